"""What every benchmark shares: timing alternately, describing the machine, writing results/<name>.jsonl.

A run of a benchmark rewrites its results file: the first record of a process starts it anew, the next ones
are appended. One line is one comparison, with everything needed to judge it beside the numbers.
"""

from __future__ import annotations

import datetime
import importlib.metadata
import json
import os
import platform
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"
PACKAGES = (
    "pixelwise",
    "numpy",
    "pillow",
    "numba",
    "onnxruntime",
    "openvino",
    "torch",
    "torchvision",
)

_started: set[Path] = set()


def alternately(
    contenders: Mapping[str, Callable[[], object]], repeats: int, warmup: int = 2
) -> dict[str, list[float]]:
    """Milliseconds of each call, by contender: `warmup` untimed rounds, then `repeats` timed ones.

    A round calls every contender once, and each round begins with another of them, so that a machine that
    drifts, or a cache that somebody else has filled, is shared out evenly. What a contender returns is
    dropped after the clock has stopped.
    """
    names = list(contenders)
    times: dict[str, list[float]] = {name: [] for name in names}
    for turn in range(-warmup, repeats):
        shift = turn % len(names)
        for name in names[shift:] + names[:shift]:
            call = contenders[name]
            start = time.perf_counter_ns()
            result = call()
            elapsed_ms = (time.perf_counter_ns() - start) / 1e6
            del result
            if turn >= 0:
                times[name].append(elapsed_ms)
    return times


def record(
    benchmark: str, work: str, peer: str, ours: str, times: Mapping[str, Sequence[float]], **details: Any
) -> dict[str, Any]:
    """Print how `ours` compares with `peer` and write it as a line of results/<benchmark>.jsonl.

    times: milliseconds by contender, as `alternately` gives them; peer and ours are two of its names, others
    are written too. ratio: the peer's median over ours, so more than 1 means that we are faster. details:
    anything JSON can hold that one must know (sizes, threads, classes, targets). Returns the line as a dict.
    """
    line: dict[str, Any] = {
        "benchmark": benchmark,
        "work": work,
        "peer": peer,
        "ours": ours,
        "ratio": round(statistics.median(times[peer]) / statistics.median(times[ours]), 2),
        "median_ms": {name: round(statistics.median(values), 3) for name, values in times.items()},
        "p95_ms": {name: round(percentile(values, 95), 3) for name, values in times.items()},
        "repeats": len(times[ours]),
        **details,
        "machine": machine(),
        "versions": versions(),
        "date": datetime.datetime.now(datetime.timezone.utc).date().isoformat(),
    }
    medians = ", ".join(f"{name} {value:.4g} ms" for name, value in line["median_ms"].items())
    print(f"{work}: {medians}; {ours} is {line['ratio']:.3g} times as fast as {peer}", flush=True)
    path = RESULTS / f"{benchmark}.jsonl"
    path.parent.mkdir(exist_ok=True)
    with path.open("a" if path in _started else "w", encoding="utf-8") as file:
        file.write(json.dumps(line) + "\n")
    _started.add(path)
    return line


def percentile(values: Sequence[float], percent: float) -> float:
    """The smallest value that at least `percent` of the values do not exceed."""
    ordered = sorted(values)
    return ordered[max(0, -int(-percent * len(ordered) // 100) - 1)]


def machine() -> dict[str, Any]:
    """CPU model, cores this process may use, system, Python, and the load of the last minute, if known."""
    return {
        "cpu": _cpu_model(),
        "instructions": _instructions(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "os": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "load": round(os.getloadavg()[0], 1) if hasattr(os, "getloadavg") else None,
    }


def _cpu_model() -> str:
    """The model as the kernel names it; where the name is vague, family and model numbers tell it apart."""
    info: dict[str, str] = {}
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text().split("\n\n")[0].splitlines():
            key, _, value = line.partition(":")
            info[key.strip()] = value.strip()
    if "model name" not in info:
        return platform.processor() or platform.machine()
    return f"{info['model name']} (family {info.get('cpu family')}, model {info.get('model')})"


def _instructions() -> list[str]:
    """Those that decide what bfloat16 and int8 are worth, as far as the kernel names them."""
    cpuinfo = Path("/proc/cpuinfo")
    words = set(cpuinfo.read_text().split()) if cpuinfo.exists() else set()
    return [
        name
        for name in ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_int8", "amx_bf16")
        if name in words
    ]


def versions() -> dict[str, str]:
    """Versions of the packages that matter and are installed, read without importing them."""
    found = {}
    for package in PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found

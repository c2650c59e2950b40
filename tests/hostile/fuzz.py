"""Throw bytes at everything that reads files, guided by the coverage that they reach: `make fuzz MINUTES=60`.

    python tests/hostile/fuzz.py --minutes 60            # all readers
    python tests/hostile/fuzz.py --minutes 5 "cards"     # one, or those whose names hold the word
    python tests/hostile/fuzz.py --list

Atheris (libFuzzer) makes the inputs, from the seeds in `readers.py`, in a process of its own for each reader, under
limits of memory and time. What is neither a value nor a PixelwiseError, a crash, a hang and a request are findings: one
of each place in the code is kept under `found/`, where `test_found.py` replays it until it is mended and ever after.
The table at the end, and --json, say for each reader how many inputs it had, and how many edges of ours they reached.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import mmap
import os
import random
import re
import resource
import struct
import subprocess
import sys
import tempfile
import time
import traceback
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
FOUND = HERE / "found"
GOAL = 50_000
"""Inputs that every reader should have had."""

MEMORY = 2 * 2**30
"""Bytes of address space above what the process has when it begins."""

SECONDS = 20
"""After which an input counts as a hang."""


@dataclass
class Row:
    """What is said of a reader. edges: of our own code, as Atheris counts them."""

    reader: str
    inputs: int = 0
    seconds: float = 0.0
    edges: int = 0
    findings: list[str] = field(default_factory=list)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("words", nargs="*", help="only readers whose names hold one of these")
    parser.add_argument("--minutes", type=float, default=60, help="in all (default: 60)")
    parser.add_argument(
        "--inputs", type=int, default=GOAL, help=f"that each reader should have (default: {GOAL})"
    )
    parser.add_argument(
        "--jobs", type=int, default=os.cpu_count() or 1, help="readers at a time (default: one a core)"
    )
    parser.add_argument("--json", type=Path, help="also write the table here")
    parser.add_argument("--list", action="store_true", help="only name the readers")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    parser.add_argument("--seconds", type=float, help=argparse.SUPPRESS)
    parser.add_argument("--work", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    sys.path.insert(0, str(HERE.parent))
    try:
        import atheris  # noqa: F401
    except ModuleNotFoundError:
        print(
            "fuzz needs Atheris, which there is for Linux and Python 3.11 to 3.13; run: pip install atheris",
            file=sys.stderr,
        )
        return 2
    if given.one:
        fuzz(given.one, given.work, given.seconds, given.inputs)
        return 0
    from hostile.readers import READERS

    names = [name for name in READERS if not given.words or any(word in name for word in given.words)]
    if given.list or not names:
        print("\n".join(names or READERS))
        return 0
    rows = run(names, given.minutes * 60, given.inputs, given.jobs)
    print(table(rows))
    if given.json:
        given.json.write_text(json.dumps([asdict(row) for row in rows], indent=1) + "\n", encoding="utf-8")
    return int(any(row.findings for row in rows))


def run(names: list[str], seconds: float, inputs: int, jobs: int) -> list[Row]:
    """Every reader until it had its inputs; then, if time is left, all of them for as long."""
    rows = {name: Row(name) for name in names}
    ends = time.monotonic() + seconds
    share = seconds * jobs / len(names)
    with tempfile.TemporaryDirectory(prefix="pixelwise-fuzz-") as work, ThreadPoolExecutor(jobs) as pool:

        def turn(name: str, until: int | None) -> None:
            left = ends - time.monotonic()
            if left > 1:
                one(rows[name], Path(work), min(left, share if until is None else 2 * share), until)
                print(line(rows[name]), file=sys.stderr, flush=True)

        list(pool.map(lambda name: turn(name, inputs), names))
        left = (ends - time.monotonic()) * jobs / len(names)
        if left > 1:
            share = left
            list(pool.map(lambda name: turn(name, None), names))
    return list(rows.values())


def one(row: Row, work: Path, seconds: float, until: int | None) -> None:
    """Fuzz a reader in child processes, a new one after each that dies."""
    place = work / re.sub(r"\W+", "-", row.reader)
    (place / "corpus").mkdir(parents=True, exist_ok=True)
    began, most = time.monotonic(), None if until is None else row.inputs + until
    while (left := seconds - (time.monotonic() - began)) > 1 and (most is None or row.inputs < most):
        (place / "count").write_bytes(bytes(8))
        command = [
            sys.executable,
            __file__,
            "--one",
            row.reader,
            "--work",
            str(place),
            "--seconds",
            str(left),
            "--inputs",
            str(-1 if most is None else most - row.inputs),
        ]
        with open(place / "log", "wb") as log:
            try:
                code = subprocess.run(
                    command, stdout=log, stderr=log, stdin=subprocess.DEVNULL, timeout=left + 60 + SECONDS
                ).returncode
            except subprocess.TimeoutExpired:
                code = -1
        row.inputs += struct.unpack("<Q", (place / "count").read_bytes())[0]
        said = (place / "log").read_bytes().decode("utf-8", "replace")
        row.edges = max([row.edges, *map(int, re.findall(r"\bcov: (\d+)", said[-200_000:]))])
        for path in sorted(place.glob("finding-*.json")):
            keep(row, json.loads(path.read_text())["what"], path.with_suffix(".bin").read_bytes())
            path.unlink()
        for path in (
            sorted(place.glob("crash-*")) + sorted(place.glob("timeout-*")) + sorted(place.glob("oom-*"))
        ):
            what = path.name.partition("-")[0] + ": " + next(iter(re.findall(r"ERROR: (.*)", said)), "")
            keep(row, what, path.read_bytes())
            path.unlink()
        if code == 0:
            break
        if not said.count("INITED"):
            row.findings.append(f"did not begin: {said.strip().splitlines()[-1:]}")
            print(f"{row.reader}: {row.findings[-1]}", file=sys.stderr, flush=True)
            break
    row.seconds += time.monotonic() - began


def keep(row: Row, what: str, data: bytes) -> None:
    """Write the input that shows it, unless one of the same place is there."""
    if what in row.findings:
        return
    row.findings.append(what)
    folder = FOUND / re.sub(r"\W+", "-", row.reader)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / hashlib.sha256(data).hexdigest()[:12]).write_bytes(data)
    print(f"{row.reader}: {what}", file=sys.stderr, flush=True)


def fuzz(name: str, place: Path, seconds: float, inputs: int) -> None:
    """In a process of its own; does not return."""
    import atheris

    with atheris.instrument_imports(include=["pixelwise"], enable_loader_override=False):
        from hostile.readers import READERS, changed_as_json
        from pixelwise.errors import PixelwiseError

        reader = READERS[name]
        scratch = tempfile.mkdtemp(prefix="fuzz-", dir="/dev/shm" if os.path.isdir("/dev/shm") else None)
        os.chdir(scratch)
        seeds = reader.seeds()
        for data in seeds:
            (place / "corpus" / hashlib.sha256(data).hexdigest()[:16]).write_bytes(data)
            try:
                reader.read(data)  # what it imports is instrumented here
            except PixelwiseError:
                pass
            except Exception:
                traceback.print_exc()  # it will be found
    sys.addaudithook(_refuse)
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + MEMORY, resource.RLIM_INFINITY))
    counter = open(place / "count", "r+b")  # noqa: SIM115  # as long as the process
    count = mmap.mmap(counter.fileno(), 8)
    seen: set[str] = set()
    done = 0

    def target(data: bytes) -> None:
        nonlocal done
        done += 1
        count[:8] = struct.pack("<Q", done)
        try:
            reader.read(data)
        except PixelwiseError:
            pass
        except Exception as error:
            what = signature(error)
            if what not in seen:
                seen.add(what)
                path = place / f"finding-{hashlib.sha256(what.encode()).hexdigest()[:12]}"
                path.with_suffix(".bin").write_bytes(data)
                path.with_suffix(".json").write_text(json.dumps({"what": what}))

    def mutate(data: bytes, most: int, seed: int) -> bytes:
        draw = random.Random(seed)
        other = changed_as_json(data, draw) if draw.random() < 0.7 else None
        return atheris.Mutate(data, most) if other is None or len(other) > most else other

    options = [
        f"-max_total_time={int(seconds)}",
        f"-runs={inputs}",
        f"-timeout={SECONDS}",
        "-rss_limit_mb=0",
        "-max_len=60000",
        f"-artifact_prefix={place}/",
        "-print_final_stats=1",
        str(place / "corpus"),
    ]
    more: dict[str, Any] = {"custom_mutator": mutate} if reader.json else {}
    atheris.Setup([sys.argv[0], *options], target, **more)
    atheris.Fuzz()


def signature(error: BaseException) -> str:
    """The kind of an error and where ours it came from: one finding each."""
    frames = traceback.extract_tb(error.__traceback__)
    ours = [f for f in frames if f"{os.sep}pixelwise{os.sep}" in f.filename] or frames[-1:]
    at = f"{ours[-1].filename.rpartition(f'{os.sep}pixelwise{os.sep}')[2]}:{ours[-1].name}" if ours else "?"
    return (
        f"{type(error).__name__} in {at}: {' '.join(str(error).split())[:120]}"
        if not ours
        else (f"{type(error).__name__} in {at}")
    )


def _refuse(event: str, arguments: tuple[Any, ...]) -> None:
    if event in (
        "socket.connect",
        "socket.getaddrinfo",
        "subprocess.Popen",
        "os.system",
        "os.exec",
        "os.posix_spawn",
    ):
        raise AssertionError(f"{event} {arguments!r:.100}")


def line(row: Row) -> str:
    rate = row.inputs / row.seconds if row.seconds else 0
    return (
        f"{row.reader}: {row.inputs:,} inputs in {row.seconds:.0f} s ({rate:.0f} a second), {row.edges} edges, "
        + (f"{len(row.findings)} findings" if row.findings else "no finding")
    )


def table(rows: list[Row]) -> str:
    """The rows as Markdown."""
    lines = ["| reader | inputs | seconds | edges of ours | findings |", "|---|---:|---:|---:|---:|"]
    for row in rows:
        lines.append(
            f"| {row.reader} | {row.inputs:,} | {row.seconds:.0f} | {row.edges} | {len(row.findings)} |"
        )
    sums = sum(r.inputs for r in rows), sum(r.seconds for r in rows), sum(len(r.findings) for r in rows)
    lines.append(f"| in all | {sums[0]:,} | {sums[1]:.0f} | | {sums[2]} |")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())

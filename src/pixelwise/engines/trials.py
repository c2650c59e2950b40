"""Trials: whether an engine survives a file on this machine and answers as the reference does, found out elsewhere.

OpenVINO is not supported by its makers on every processor and has died there with a signal, which takes Python along.
So an engine of that kind loads a file in a process of its own first, with a limit of time, and what became of it is
kept for this file, processor and version in the cache.
"""

from __future__ import annotations

import hashlib
import json
import platform
import re
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import cache
from importlib import import_module, metadata
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from pixelwise.caches import cache_dir
from pixelwise.engines.apart import Apart, Ended, Order
from pixelwise.errors import InputError, PixelwiseError
from pixelwise.files import writing
from pixelwise.precision import Precision
from pixelwise.terminal import printable
from pixelwise.untrusted import read
from pixelwise.weights.beside import beside
from pixelwise.weights.store import digest

PATIENCE_S = 90.0
"""How long loading a file, and answering once, may take in the other process; both take a second."""

SIDE_PX = 64
"""Of what an engine is shown, where a file takes any size."""

FAR: dict[Precision, float] = {"float32": 1e-4, "bfloat16": 0.25, "float16": 0.25, "int8": 0.25}
"""How far logits may be from the reference's, as a share of their range. In less than float32 only what has nothing to
do with them is found out: how many pixels change is for whoever asks for it to measure."""

Outcome: TypeAlias = Literal["ok", "crashed", "hung", "wrong"]


@dataclass(frozen=True)
class Trial:
    """What became of it. says: how it ended or how far it was, to go behind the name of the engine."""

    outcome: Outcome
    says: str = ""


def refuse_failing(order: Order, name: str, version: str, reference: str | None) -> None:
    """Raise InputError where an engine does not survive a file, or answers otherwise than the reference; remembered.

    name, version: of the engine. reference: "module:class" of the engine whose answers are right, None where there is
    none for such a file.
    """
    path = kept_at(name, order.path, version, [order.opens, order.precision, order.device])
    found = remembered(path, Trial)
    if found is None:
        found = trial(order, reference)
        remember(path, found)
    if found.outcome != "ok":
        raise InputError(
            f"engine {name!r} ({version}) {printable(found.says)} when it was tried on {order.path} in a process of "
            f"its own; take another engine, such as auto, or remove {path} to try it again"
        )


def trial(
    order: Order, reference: str | None, shown: tuple[NDArray[np.float32], NDArray[np.float32]] | None = None
) -> Trial:
    """The same, found out anew. shown: what it is shown and the answer that is right, None for noise and what the
    reference makes of it."""
    try:
        other = Apart(order, PATIENCE_S)
    except Ended as end:
        return Trial(end.how, str(end))
    except (
        PixelwiseError,
        OSError,
    ):  # what it refuses it refuses here too, and where there is no Python to start
        return Trial("ok")
    try:
        images = shown[0] if shown else noise(other.takes)
        found = other(images)
    except Ended as end:
        return Trial(end.how, str(end))
    except PixelwiseError:
        return Trial("ok")
    finally:
        other.close()
    expected = shown[1] if shown else _answer(reference, order, images)
    far = 0.0 if expected is None else gap(found, expected)
    if far <= FAR[order.precision or "float32"]:
        return Trial("ok")
    return Trial("wrong", f"gave logits that differ by {far:.2g} of their range")


def noise(takes: Iterable[int | None]) -> NDArray[np.float32]:
    """Noise of a size that a file takes."""
    _, channels, *sides = [*takes] or [None] * 4
    shape = (1, channels or 3, *(side or SIDE_PX for side in sides))
    return np.random.default_rng(0).standard_normal(shape, np.float32)


def _answer(reference: str | None, order: Order, images: NDArray[np.float32]) -> NDArray[np.float32] | None:
    if reference is None:
        return None
    module, _, kind = reference.partition(":")
    try:
        loaded = getattr(import_module(module), kind).bare(
            Order(reference, order.path, threads=order.threads)
        )
        answer: NDArray[np.float32] = loaded.run(images)
    except Exception:  # what the reference cannot run is no reference
        return None
    return answer


def gap(found: NDArray[Any], expected: NDArray[Any]) -> float:
    """The largest difference as a share of the range of what is expected; infinite where it is of another shape."""
    if found.shape != expected.shape or not np.isfinite(found).all():
        return float("inf")
    return float(np.abs(found - expected).max() / (np.ptp(expected) or 1.0))


# What is remembered ------------------------------------------------------------------------------------------

FOLDER = "engines"
"""In the cache."""


def kept_at(name: str, model: Path | str, version: str, more: Iterable[Any]) -> Path:
    """Where what was found out is kept: of a model (a file, or words that say what it is), this processor and that
    version."""
    files = [model, *beside(model)] if isinstance(model, Path) and model.is_file() else []
    hashes = [digest(path) for path in files] or [str(model)]
    text = json.dumps([hashes, version, processor(), *more], default=str)
    return cache_dir() / FOLDER / f"{name}-{hashlib.sha256(text.encode()).hexdigest()[:24]}.json"


def remembered(path: Path, kind: type[Any]) -> Any:
    """What is kept there, None for nothing; what is not what was written counts for nothing."""
    with suppress(OSError, PixelwiseError):
        if path.is_file():
            return read(path, kind, "what is kept of an engine")
    return None


def remember(path: Path, found: Any) -> None:
    """Keep it, where the cache can be written."""
    with suppress(OSError, PixelwiseError), writing(path) as temporary:
        temporary.write_text(json.dumps(asdict(found)), encoding="utf-8")


@cache
def processor() -> tuple[str, ...]:
    """Model and features of the processor, as far as the system says."""
    with suppress(OSError):
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
        found = [
            re.search(rf"^(?:{key})\s*:\s*(.*)$", text, re.M) for key in ("model name", "flags|Features")
        ]
        if any(found):
            return tuple(match[1] for match in found if match)
    return platform.processor(), platform.machine(), platform.system()


def version_of(package: str) -> str:
    """Of an installed package, or its twin for GPUs; "" for none."""
    for name in (package, f"{package}-gpu"):
        with suppress(metadata.PackageNotFoundError):
            return f"{name} {metadata.version(name)}"
    return ""

"""What this machine does with a model: `pixelwise bench`. Engines, precisions and batches beside each other, with what
they change in the answers.

Every contender is a process of its own, so that its memory can be told and one that dies is a line and not the end. All
are open at once and take turns, so that whatever else the machine does falls on each of them.
"""

from __future__ import annotations

import itertools
import os
import shlex
import statistics
import tempfile
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pixelwise import catalog
from pixelwise.bench.contender import Contender, Running
from pixelwise.engines import ENGINES
from pixelwise.errors import InputError, PixelwiseError, UnknownNameError
from pixelwise.precision import PRECISIONS
from pixelwise.sources import find

MOST_PICTURES = 8
"""Of a folder; they are drawn evenly from the whole of it."""

AGREEMENT = 0.99
"""Share of the pixels that must keep their class for a contender to be recommended."""


@dataclass(frozen=True)
class Measured:
    """One contender. engine, precision: that were taken. median_ms, p95_ms: from `batch` pictures in memory to their
    label maps, decoding and writing left out. per_second: pictures. peak_mb: of its process, all in all. file_mb: of
    the model. agreement: share of the pixels that have the class which the first contender of the model gives them.
    mean_iou: on the labels, None without."""

    model: str
    engine: str
    precision: str
    batch: int
    median_ms: float
    p95_ms: float
    per_second: float
    peak_mb: float
    file_mb: float
    agreement: float
    mean_iou: float | None = None


@dataclass(frozen=True)
class Benchmark:
    """What `bench` found. pictures: how many, and of what. left_out: contenders that could not take part, and why.
    use: the command with the fastest whose answers agree, "" where there is none."""

    pictures: str
    threads: int
    rows: tuple[Measured, ...]
    left_out: tuple[tuple[str, str], ...] = ()
    use: str = field(default="")

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def bench(
    models: Sequence[str] = ("everyday",),
    data: str | os.PathLike[str] | None = None,
    *,
    engines: Sequence[str] | None = None,
    precisions: Sequence[str] | None = None,
    batches: Sequence[int] = (1,),
    rounds: int = 20,
    threads: int | None = None,
    agreement: float = AGREEMENT,
    progress: Callable[[str], None] = lambda _: None,
) -> Benchmark:
    """Measure models on this machine.

    models: whatever `Segmenter` opens. data: a folder of pictures, or a data set with labels (then mean IoU is scored
    too); None for drawn pictures, on which agreement says little. engines: keys of ENGINES, None for all but what
    compiles first; precisions: None for all but float16; those that an engine does not have are left out. Of each model
    the first contender, float32 in the engine that `Segmenter` takes by itself, is what the others are compared with.
    batches: pictures that go through the network together. rounds: how often each is timed. threads: None for one a
    core. agreement: see `Benchmark.use`. progress: is told what is being done.

    Raises InputError for what cannot be opened or measured, UnknownNameError for an engine or precision.
    """
    for name in engines or ():
        if name not in ENGINES:
            raise UnknownNameError("engine", name, ENGINES)
    for name in precisions or ():
        if name not in PRECISIONS:
            raise UnknownNameError("precision", name, PRECISIONS)
    for what, values in (("batches", batches), ("rounds", (rounds,))):
        if not values or min(values) < 1:
            raise InputError(f"{what} must be whole numbers from 1 up, got {', '.join(map(str, values))}")
    if not 0 <= agreement <= 1:
        raise InputError(f"agreement is a share from 0 to 1, got {agreement}")
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    cores = threads or allowed or 1
    left_out: list[tuple[str, str]] = []
    with tempfile.TemporaryDirectory(prefix="pixelwise-") as folder, ExitStack() as open_ones:
        pictures, labelled = _pictures(data, Path(folder))
        running: list[Running] = []
        for model in models:
            first: Running | None = None
            for contender in _contenders(model, engines, precisions, batches, cores):
                progress(f"opening {contender}")
                one = open_ones.enter_context(Running(contender, Path(folder)))
                try:
                    one.open(pictures, labelled)
                    one.agreement = one.agrees_with(first) if first is not None else 1.0
                except PixelwiseError as error:
                    if first is None and data is None:
                        raise InputError(
                            f"{error}; drawn pictures are RGB: give pictures of yours with --data"
                        ) from error
                    if first is None:  # nothing to compare with
                        raise
                    left_out.append((str(contender), str(error)))
                    one.close()
                    continue
                if any(one.is_as(other) for other in running):
                    one.close()  # the first contender again, under the name of its engine
                    continue
                first = first or one
                running.append(one)
        for number in range(rounds):
            progress(f"round {number + 1} of {rounds}")
            for one in list(running):
                try:
                    one.time(number)
                except PixelwiseError as error:
                    left_out.append((str(one.contender), str(error)))
                    running.remove(one)
        rows = tuple(_measured(one) for one in running)
        count = f"{len(pictures)} {'labelled ' if labelled else ''}{'drawn ' if data is None else ''}pictures"
    return Benchmark(
        count if data is None else f"{count} of {Path(data).name}",
        cores,
        rows,
        tuple(left_out),
        _use(rows, agreement, drawn=data is None),
    )


def _contenders(
    model: str,
    engines: Sequence[str] | None,
    precisions: Sequence[str] | None,
    batches: Sequence[int],
    threads: int,
) -> list[Contender]:
    """The reference first, then every engine in every precision and batch."""
    found = [Contender(model, "auto", None, batches[0], threads)]
    usual = [
        name for name, row in ENGINES.items() if not row.compiles
    ]  # which takes minutes, and is asked for
    for engine, batch in itertools.product(engines or usual, batches):
        # What the model is comes first, as a quantised one is neither float32 nor bfloat16
        wanted = [p for p in ENGINES[engine].precisions if p not in ("int8", "float16")]
        ships = catalog.CATALOG[model].int8 if model in catalog.CATALOG else None
        if ships is not None and "int8" in ENGINES[engine].precisions:
            wanted.append("int8")
        wanted = [p for p in ENGINES[engine].precisions if p in precisions] if precisions else wanted
        found += [
            Contender(
                model,
                engine,
                None if p == "float32" or (p == "int8" and ships is None) else p,
                batch,
                threads,
            )
            for p in wanted
        ]
    return list(dict.fromkeys(found))


def _pictures(data: str | os.PathLike[str] | None, folder: Path) -> tuple[list[str], str | None]:
    """Paths of the pictures, and the folder of the data set where they have labels."""
    if data is None:
        paths = []
        for seed in range(2):
            path = folder / f"drawn{seed}.png"
            Image.fromarray(drawn(seed)).save(path)
            paths.append(str(path))
        return paths, None
    from pixelwise.datasets.opening import open_samples

    root = Path(data)
    try:
        samples = open_samples(root)
    except InputError:
        if not root.is_dir():
            raise
        found = [str(source.path) for source in find([root])]
        if not found:
            raise
        return found[:: -(-len(found) // MOST_PICTURES)], None
    names = samples.names
    return names[:: -(-len(names) // MOST_PICTURES)], str(root)


def drawn(seed: int, size_hw: tuple[int, int] = (683, 1024)) -> NDArray[np.uint8]:
    """A picture of soft shapes on a soft ground with grain, (h, w, 3) uint8, the same for each seed."""
    draw = np.random.default_rng(seed)
    h, w = size_hw
    y, x = np.mgrid[:h, :w].astype(np.float32)
    picture = 110 + 60 * np.stack([np.sin(x / s + y / t) for s, t in draw.uniform(60, 300, (3, 2))], axis=2)
    for _ in range(12):
        across, down = draw.uniform(0, w), draw.uniform(0, h)
        radius, colour = draw.uniform(h / 30, h / 3), draw.uniform(0, 255, 3)
        inside = ((x - across) ** 2 + (y - down) ** 2 < radius**2)[..., None]
        picture = np.where(inside, 0.3 * picture + 0.7 * colour, picture)
    return np.clip(picture + draw.normal(0, 6, (h, w, 3)), 0, 255).astype(np.uint8)


def _measured(one: Running) -> Measured:
    times = sorted(one.seconds)
    median = statistics.median(times)
    return Measured(
        one.contender.model, one.engine, one.precision, one.contender.batch, 1e3 * median,
        1e3 * times[min(len(times) - 1, int(0.95 * len(times)))], one.contender.batch / median, one.peak_mb(),
        one.file_mb, one.agreement, one.mean_iou,
    )  # fmt: skip


def _use(rows: Sequence[Measured], agreement: float, *, drawn: bool) -> str:
    """The command with the fastest row for one picture whose answers agree; on drawn pictures that shows of float32
    alone."""
    good = [
        row
        for row in rows
        if row.agreement >= agreement and row.batch == 1 and (not drawn or row.precision == rows[0].precision)
    ]
    if not good:
        return ""
    best = max(good, key=lambda row: row.per_second)
    said = f"pixelwise segment PICTURES --model {shlex.quote(best.model)} --engine {best.engine}"
    return said if best.precision == "float32" else f"{said} --precision {best.precision}"

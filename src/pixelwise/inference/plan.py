"""Before a large picture is cut: which tile fits the memory and how long it will take, and which overlap is enough."""

from __future__ import annotations

import mmap
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from array_api_compat import is_torch_array
from numpy.typing import NDArray

from pixelwise.errors import InputError
from pixelwise.inference.decide import decide
from pixelwise.inference.regions import decide_regions
from pixelwise.inference.tiling import Predict, Read, Tiling, channels_first, cut
from pixelwise.limits import free_memory

SIDES = (256, 384, 512, 640, 768, 1024)
"""Tiles that `plan` tries. Larger ones bring little: at 1024 pixels the overlap is cheap and the view is wide."""

BYTES_A_PIXEL = 4096
"""What a network is taken to need for a pixel of its input where memory cannot be measured."""


@dataclass(frozen=True)
class Plan:
    """What `plan` chose. tiles: how many; memory_bytes: expected peak beyond what is in use now; seconds: expected for
    all tiles; budget_bytes: what was allowed."""

    tiling: Tiling
    tiles: int
    memory_bytes: int
    seconds: float
    budget_bytes: int

    def __str__(self) -> str:
        tile, batch = self.tiling.tile, self.tiling.batch
        return (
            f"{self.tiles} tile{'s' * (self.tiles > 1)} of {tile} x {tile} pixels, {batch} at a time, "
            f"window {self.tiling.window}: "
            f"about {self.memory_bytes / 1e6:.0f} MB (of {self.budget_bytes / 1e6:.0f} allowed) "
            f"and {_duration(self.seconds)}"
        )


def plan(
    size_hw: tuple[int, int],
    infer: Predict,
    *,
    tiling: Tiling | None = None,
    channels: int = 3,
    sides: Sequence[int] = SIDES,
    memory_bytes: int | None = None,
) -> Plan:
    """The largest square tile of `sides` that fits `memory_bytes` (None: half of what is free), by trying it.

    The network sees the smallest tile first, which tells what a pixel costs, then the chosen one, which is timed;
    where that needs more than was allowed, the next smaller one. On a GPU as many tiles at a time as fit, up to 16.
    tiling: everything but tile and batch. No tile is much larger than the picture.

    Raises InputError where not even the smallest tile fits.
    """
    tiling = tiling or Tiling()
    fitting = [side for i, side in enumerate(sides) if i == 0 or sides[i - 1] < max(size_hw)]
    before = PeakMemory.now()
    on_gpu, used, _, k = _try(infer, channels, fitting[0] + 2 * tiling.border, before)
    budget = memory_bytes if memory_bytes is not None else _free(on_gpu) // 2
    a_pixel = used / fitting[0] ** 2
    while True:
        tile = fitting[-1]
        around = 0 if on_gpu else stitching_bytes(replace(tiling, tile=tile), size_hw, channels, k)
        if len(fitting) > 1 and a_pixel * tile**2 + around > budget:
            fitting.pop()
            continue
        _, used, seconds, _ = _try(infer, channels, tile + 2 * tiling.border, before)
        if used + around <= budget:
            break
        if len(fitting) == 1:
            raise InputError(
                f"a tile of {tile} x {tile} needs about {(used + around) / 1e6:.0f} MB, {budget / 1e6:.0f} are "
                "allowed; allow more or take a smaller network"
            )
        fitting.pop()
    batch = max(1, min(16, int(budget // max(used, 1)))) if on_gpu else 1
    chosen = replace(tiling, tile=tile, batch=batch)
    count = chosen.grid(size_hw).count
    return Plan(chosen, count, int(used * batch + around), seconds * count, int(budget))


@dataclass(frozen=True)
class Seams:
    """How often neighbouring tiles, each deciding alone, give a pixel that both see different classes.

    pixels: those compared; different: of them; by_depth: the share of different ones among those that lie 0, 1, 2, ...
    pixels from the nearer end of the overlap. Blending hides most of what is counted here: it is what the seams would
    be without.
    """

    pixels: int
    different: int
    by_depth: tuple[float, ...]

    @property
    def share(self) -> float:
        """Of the compared pixels, the share on which neighbours differ; 0 where there were no neighbours."""
        return self.different / self.pixels if self.pixels else 0.0

    def overlap_px(self, tolerance: float = 0.01) -> int:
        """The smallest overlap in whose middle, where one tile takes over from the other, at most `tolerance` of the
        pixels differ; all that was measured, if nothing less will do."""
        worst = 0.0
        for depth in reversed(range(len(self.by_depth))):
            worst = max(worst, self.by_depth[depth])
            if worst > tolerance:
                return 2 * min(depth + 1, len(self.by_depth))
        return 0

    def __str__(self) -> str:
        if not self.pixels:
            return "no pixel is seen by two tiles, so there is nothing to compare"
        return (
            f"neighbouring tiles differ on {self.share:.2%} of the pixels that both see "
            f"({self.by_depth[0]:.2%} at a tile's edge, {self.by_depth[-1]:.2%} in the middle of the overlap)"
        )


def seams(
    read: Read,
    size_hw: tuple[int, int],
    infer: Predict,
    *,
    tiling: Tiling,
    prepare: Callable[[Any], Any] = channels_first,
    align_corners: bool = False,
    regions: bool = False,
    pairs: int = 24,
    seed: int = 0,
) -> Seams:
    """Compare neighbouring tiles of a picture, `pairs` of them drawn at random; arguments as in `stitch`, save that
    rows are read anywhere and more than once. With regions, pixels differ where any of them does."""
    grid = tiling.grid(size_hw)
    rows, columns = (range(len(starts)) for starts in grid.starts)
    neighbours = [((y, x), (y + 1, x), 0) for y in rows[:-1] for x in columns]
    neighbours += [((y, x), (y, x + 1), 1) for y in rows for x in columns[:-1]]
    if not neighbours:
        return Seams(0, 0, ())
    chosen = np.random.default_rng(seed).permutation(len(neighbours))[:pairs]

    def labels(tile: tuple[int, int]) -> NDArray[Any]:
        rows, columns = (grid.places(axis, i) for axis, i in enumerate(tile))
        top = int(rows.min())
        logits = infer(prepare(cut(read(top, int(rows.max()) + 1), (rows - top, columns))))
        rule = decide_regions if regions else decide
        decided: Any
        decided, _ = rule(logits[0], (grid.tile[0], grid.tile[1]), align_corners=align_corners)
        inside = [side - starts[i] for side, starts, i in zip(grid.size, grid.starts, tile, strict=True)]
        host: NDArray[Any] = decided.cpu().numpy() if is_torch_array(decided) else decided
        return host[: inside[0], : inside[1]]

    different = np.zeros(max(grid.overlap(0), grid.overlap(1)), np.int64)
    pixels = np.zeros_like(different)
    for n in chosen:
        one, other, axis = neighbours[n]
        overlap = grid.seen(axis, other[axis])
        if overlap == 0:
            continue
        first, second = np.moveaxis(labels(one), axis, 0), np.moveaxis(labels(other), axis, 0)
        unequal = first[-overlap:] != second[:overlap]
        depth = np.minimum(np.arange(overlap), np.arange(overlap)[::-1])
        np.add.at(different, depth, unequal.sum(1))
        np.add.at(pixels, depth, unequal.shape[1])
    used = pixels > 0
    shares = different[used] / pixels[used]
    return Seams(int(pixels.sum()), int(different.sum()), tuple(shares.tolist()))


def _try(infer: Predict, channels: int, side: int, before: int | None) -> tuple[bool, int, float, int]:
    """Give the network one tile, twice: on a GPU or not, bytes beyond `before`, seconds of the second call, classes."""
    tile = np.zeros((1, channels, side, side), np.float32)
    with PeakMemory() as peak:
        logits = infer(tile)  # the first call prepares what later ones use
        on_gpu = bool(is_torch_array(logits) and logits.device.type == "cuda")
        if on_gpu:
            import torch

            torch.cuda.synchronize(logits.device)
            torch.cuda.reset_peak_memory_stats(logits.device)
            held = torch.cuda.memory_allocated(logits.device)
        start = time.perf_counter()
        logits = infer(tile)
        if on_gpu:
            torch.cuda.synchronize(logits.device)
        seconds = time.perf_counter() - start
    classes = max(2, int(logits.shape[1]))
    if on_gpu:
        return on_gpu, torch.cuda.max_memory_allocated(logits.device) - held, seconds, classes
    used = side**2 * BYTES_A_PIXEL if before is None or peak.bytes is None else max(0, peak.bytes - before)
    return on_gpu, used, seconds, classes


class PeakMemory:
    """The most memory this process held while the block ran, looked at every two milliseconds; None if unknown."""

    def __enter__(self) -> PeakMemory:
        self.bytes = self.now()
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()
        return self

    def _watch(self) -> None:
        while self.bytes is not None and not self._done.wait(0.002):
            self.bytes = max(self.bytes, self.now() or 0)

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()

    @staticmethod
    def now() -> int | None:
        """Bytes of memory this process holds; None where the system does not say it in a file."""
        try:
            return int(Path("/proc/self/statm").read_text().split()[1]) * mmap.PAGESIZE
        except (OSError, IndexError, ValueError):
            return None


def _free(on_gpu: bool) -> int:
    if not on_gpu:
        return free_memory()
    import torch

    return int(torch.cuda.mem_get_info()[0])


def stitching_bytes(tiling: Tiling, size_hw: tuple[int, int], channels: int, k: int) -> int:
    """What `stitch` holds: sums of the overlaps, rows of the picture, finished labels."""
    grid = tiling.grid(size_hw)
    (tall, wide), width = grid.tile, size_hw[1]
    sums = 4 * (k + 1) * (grid.overlap(0) * width + grid.overlap(1) * tall + wide * tall)
    return sums + width * (2 * channels * (tall + 2 * grid.border) + 5 * tall)


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.2g} s" if seconds < 10 else f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"

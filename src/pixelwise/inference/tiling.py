"""Tiles: pictures and volumes of any size in bounded memory, blended exactly.

A picture is cut into overlapping tiles, the network sees each, and where tiles overlap their logits are averaged
with weights that fall towards the tile's edge. Two facts keep the memory small. The weights are the same for all
classes of a pixel, so its class is known without dividing by their sum. And tiles come in reading order, so a pixel
is finished as soon as the last tile that covers it has passed: it becomes a label at once, and all that must be kept
are the sums of the pixels that a later tile will see again, the lower overlap of a row of tiles (`Pending`) and the
right overlap of one tile. What comes out are finished bands of rows, top to bottom.

The sum of a pixel adds its tiles in reading order whatever the memory layout, so bands are equal, bit for bit, to
the labels of a full array of sums. It is written twice: compiled loops on the CPU (kernels.py; for volumes where they
are so large that loading them pays), and plain array operations for small volumes and for tensors on a GPU.

Letters: n batch, c channels, k classes, h w pixels (d h w in a volume). Sizes are (h, w) or (d, h, w).
"""

from __future__ import annotations

import itertools
import json
import math
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from functools import cache
from typing import Annotated, Any, Literal, get_args

import numpy as np
from array_api_compat import array_namespace, device, is_torch_array
from numpy.typing import NDArray

from pixelwise.codes import code_type, highest
from pixelwise.errors import InputError, UnknownNameError, first_line
from pixelwise.inference.axis import axis_of
from pixelwise.untrusted import Between
from pixelwise.untrusted import read as read_json

Predict = Callable[[Any], Any]
"""float32 (n, c, h, w) to logits (n, k, h', w') of the same field of view: any engine, any wrapper of one."""

Read = Callable[[int, int], Any]
"""read(top, bottom) gives rows of the picture, (bottom - top, w, c), of any type that `prepare` takes."""

Pixels = Annotated[int, Between(0, 2**31)]

Window = Literal["constant", "linear", "gaussian", "spline"]


def check_window(name: str) -> None:
    if name not in get_args(Window):
        raise UnknownNameError("window", name, get_args(Window))


@dataclass(frozen=True)
class Tiling:
    """How to cut. tile: its size in pixels, one number or one an axis. overlap: of neighbours at least; an int is
    pixels, a float in [0, 1) a share of the tile, one or one an axis. window: how the weight falls from a tile's
    middle to its edge. batch: tiles the network gets at once. multiple: tiles begin at multiples of this, which for
    a network's stride makes a tile see the picture as the whole picture would be seen. margin: pixels at a tile's edge
    whose logits do not count, save at the edge of the picture; with the reach of the network's receptive field, and
    an overlap of at least twice that, tiles give exactly what the whole picture would. border: pixels that an
    unpadded network loses on each side (92 for `unet_valid`): it is given that much more than the tile.

    Tiles are spread evenly, so neighbours may overlap a little more than asked. What a tile sees beyond the picture
    is the picture mirrored at its outermost pixels; a picture smaller than a tile is continued that way.
    """

    tile: int | tuple[int, ...] = 512
    overlap: int | float | tuple[int | float, ...] = 0.25
    window: Window = "gaussian"
    batch: int = 1
    multiple: int = 1
    margin: int = 0
    border: int = 0

    def __post_init__(self) -> None:
        check_window(self.window)
        if min(self.batch, self.multiple) < 1 or min(self.border, self.margin) < 0:
            raise InputError(
                "batch and multiple must be at least 1, border and margin at least 0, "
                f"got {self.batch}, {self.multiple}, {self.border} and {self.margin}"
            )
        tiles, overlaps = _tuple(self.tile), _tuple(self.overlap)
        if len(tiles) > 1 and len(overlaps) > 1 and len(tiles) != len(overlaps):
            raise InputError(
                f"tile and overlap have {len(tiles)} and {len(overlaps)} axes; give one number an axis"
            )
        for tile, overlap in zip(tiles * len(overlaps), overlaps * len(tiles), strict=True):
            if tile >= 2**31:
                raise InputError(f"a tile has fewer than {2**31} pixels a side, got {tile}")
            if tile < 1 or overlap < 0 or self.multiple > tile - _pixels(overlap, tile):
                raise InputError(
                    f"expected 0 <= overlap <= tile - multiple, got tile {tile}, overlap {overlap} and multiple "
                    f"{self.multiple} (overlap: int for pixels, float for a share); try overlap 0.25"
                )
            if _pixels(overlap, tile) < 2 * self.margin:
                raise InputError(
                    f"the overlap must be at least twice the margin, got {_pixels(overlap, tile)} and {self.margin} "
                    f"pixels; try overlap {2 * self.margin}"
                )

    def grid(self, size: Sequence[int]) -> Grid:
        """The tiles of a picture (h, w) or volume (d, h, w)."""
        size = tuple(int(side) for side in size)
        if len(size) not in (2, 3) or min(size) < 1:
            raise InputError(f"expected a size (h, w) or (d, h, w) of at least one pixel, got {size}")
        tile, overlap = _per_axis(self.tile, len(size), "tile"), _per_axis(self.overlap, len(size), "overlap")
        starts = tuple(
            _starts(side, int(t), int(t) - _pixels(o, int(t)), self.multiple)
            for side, t, o in zip(size, tile, overlap, strict=True)
        )
        return Grid(size, tuple(int(t) for t in tile), starts, self.border)


PAYS_FROM = 2**24
"""Voxels in all windows together from which on compiled loops are loaded for volumes."""

READ_SLICES = 8
"""Slices of a volume that are read at a time."""


@dataclass(frozen=True)
class Grid:
    """Where tiles begin: starts, ascending, a tuple for each axis; tile: their size."""

    size: tuple[int, ...]
    tile: tuple[int, ...]
    starts: tuple[tuple[int, ...], ...]
    border: int = 0

    @property
    def bands(self) -> int:
        """Rows of tiles, and so of bands that `stitch` yields."""
        return len(self.starts[0])

    @property
    def count(self) -> int:
        """All tiles."""
        return math.prod(len(starts) for starts in self.starts)

    def edge(self, axis: int, i: int) -> int:
        """The first pixel along an axis that is not finished after tile i."""
        starts = self.starts[axis]
        return starts[i + 1] if i + 1 < len(starts) else self.size[axis]

    def seen(self, axis: int, i: int) -> int:
        """How many pixels of tile i, counted from its start, an earlier tile has seen."""
        return self.starts[axis][i - 1] + self.tile[axis] - self.starts[axis][i] if i else 0

    def places(self, axis: int, i: int) -> NDArray[np.int64]:
        """The pixels that tile i shows to the network along an axis; mirrored where it leaves the picture."""
        start = self.starts[axis][i]
        last = self.size[axis] - 1
        beyond = np.arange(start - self.border, start + self.tile[axis] + self.border)
        return last - np.abs(beyond % max(2 * last, 1) - last)

    def first_row(self, band: int) -> int:
        """The first row of the picture that this band or a later one needs."""
        return min(int(self.places(0, i).min()) for i in (band, self.bands - 1))

    def overlap(self, axis: int) -> int:
        """The largest overlap of neighbours along an axis."""
        return max((self.seen(axis, i) for i in range(len(self.starts[axis]))), default=0)


@dataclass(frozen=True)
class Pending:
    """What the bands after `band` finished ones need: the weighted sums of pixels that are not yet finished.

    top: the first unfinished row. sums: float32 (k, rows, w), in a volume (k, slices, h, w), with one more plane for
    the sum of weights where confidence was asked for. A view of the work in progress: save it before the next band
    is asked for. size, tiling, confidence: what it belongs to.
    """

    band: int
    top: int
    sums: Any
    size: tuple[int, ...]
    tiling: Tiling
    confidence: bool

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write an .npz file; give it through `files.writing` so that it appears whole or not at all."""
        sums = self.sums.cpu().numpy() if is_torch_array(self.sums) else self.sums
        with open(path, "wb") as file:
            about = {name: value for name, value in vars(self).items() if name != "sums"}
            np.savez(file, sums=sums, about=json.dumps(about | {"tiling": asdict(self.tiling)}))

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Pending:
        """Read back what `save` wrote; InputError for anything else."""
        try:
            with np.load(path, allow_pickle=False) as file:
                about = read_json(str(file["about"]), _About, "what it is of")
                sums = file["sums"]
                if sums.dtype != np.float32 or not np.isfinite(sums).all():
                    raise ValueError(f"sums should be finite float32, got {sums.dtype}")
                return cls(sums=sums, **vars(about))
        except Exception as error:  # zip files are damaged in more ways than zipfile tells
            line = first_line(error)
            raise InputError(f"{path} holds no unfinished work ({line}); start again without it") from error


@dataclass(frozen=True)
class _About:
    """What stands beside the sums of a `Pending`."""

    band: Pixels
    top: Pixels
    size: tuple[Pixels, ...]
    tiling: Tiling
    confidence: bool


@dataclass(frozen=True)
class Band:
    """Finished rows. top: the first of them. labels: (rows, w) class indices, in a volume (slices, h, w), the
    smallest unsigned type that holds k. confidence: float32 of the same shape, the winner's softmax probability of
    the averaged logits, if asked for. pending: what the next bands need, None after the last. codes: of overlapping
    regions, which of them each pixel belongs to (`pixelwise.codes`); labels are then the label map that their order
    makes. logits: float32 (k, rows, w), the averaged ones, if asked for."""

    top: int
    labels: NDArray[Any]
    confidence: NDArray[np.float32] | None
    pending: Pending | None
    codes: NDArray[Any] | None = None
    logits: NDArray[np.float32] | None = None


@dataclass(frozen=True)
class _Wanted:
    """What `stitch` was asked for beside labels."""

    confidence: bool
    regions: bool
    logits: bool


def channels_first(tile: Any) -> Any:
    """(h, w, c) to float32 (1, c, h, w), values as they are; volumes likewise."""
    xp = array_namespace(tile)
    moved = xp.permute_dims(tile, (tile.ndim - 1, *range(tile.ndim - 1)))[None]
    if is_torch_array(moved):
        return moved.float().contiguous()
    return np.ascontiguousarray(moved, np.float32)


def stitch(
    read: Read,
    size: Sequence[int],
    infer: Predict,
    *,
    tiling: Tiling,
    prepare: Callable[[Any], Any] = channels_first,
    align_corners: bool = False,
    confidence: bool = False,
    regions: bool = False,
    logits: bool = False,
    resume: Pending | None = None,
) -> Iterator[Band]:
    """Segment a picture tile by tile; finished bands of labels come from top to bottom, each row once.

    read: see `Read`; it is asked for every row once and in order (for slices of volumes a few at a time), from 0
    or, on resuming, from `Grid.first_row(resume.band)`, so it may stream. size: of the picture (h, w), or of a
    volume (d, h, w), whose "rows" are slices. prepare: one tile, as it was read, to the network's float32 (1, c, h,
    w); several may be prepared at a time, in threads, and all come out in one shape. infer: logits of any
    resolution, enlarged within the tile by `align_corners` as `decide` does; one channel is the logit of class 1
    against 0; its input is overwritten when the next batch is made. Tensors stay on their device until they are
    labels. regions: each logit is of a region that may overlap others, positive where it is; bands then have codes,
    and confidence is the smallest of the regions' sigmoid(|logit|). logits: bands also carry the averaged logits.
    resume: what a band carried; work goes on after that band, with the same result as if it had not stopped.

    Raises InputError for rows or logits of a wrong shape, and for a `resume` of other work.
    """
    grid = tiling.grid(size)
    if resume is not None:
        before, now = (resume.tiling, resume.size, resume.confidence), (tiling, grid.size, confidence)
        if before != now or not 0 < resume.band < grid.bands:
            about = "{} on {}, confidence {}"
            raise InputError(
                f"the unfinished work belongs to {about.format(*before)}, got {about.format(*now)}; "
                "start again without it"
            )
    wanted = _Wanted(confidence, regions, logits)
    return _bands(read, grid, infer, tiling, prepare, align_corners, wanted, resume)


def _bands(
    read: Read,
    grid: Grid,
    infer: Predict,
    tiling: Tiling,
    prepare: Callable[[Any], Any],
    align_corners: bool,
    wanted: _Wanted,
    resume: Pending | None,
) -> Iterator[Band]:
    weights, batches = _Weights(grid, tiling), _Batches(prepare, min(tiling.batch, grid.count))
    start = 0 if resume is None else resume.band
    rows, first = None, grid.first_row(start)  # the rows in memory, and the place of the first of them
    have, read_on = first, _Rows(read, grid)
    sums: _Compiled | _Plain | None = None
    for band in range(start, grid.bands):
        places = grid.places(0, band)
        need = max(have, int(places.max()) + 1)
        if need > have:
            rows = read_on(rows, have, need)
            have = need
        indices = list(itertools.product(*(range(len(starts)) for starts in grid.starts[1:])))
        for i in range(0, len(indices), tiling.batch):
            some = indices[i : i + tiling.batch]
            at = [(places - first, *(grid.places(a + 1, j) for a, j in enumerate(index))) for index in some]
            logits, single = _checked(infer(batches(rows, at)), len(some), len(grid.size), wanted.regions)
            if sums is None:
                compiled = len(grid.size) == 2 and not is_torch_array(logits) and not wanted.logits
                kind = _Compiled if compiled else _Plain
                sums = kind(grid, weights, logits, align_corners, wanted)
                if resume is not None:
                    sums.resume(resume)
            sums.add(band, some, logits)
            del logits  # before there are others
        assert sums is not None
        finished = sums.finish(band)
        top, bottom = grid.starts[0][band], grid.edge(0, band)
        left_over = band + 1 < grid.bands
        pending = None
        if left_over:
            pending = Pending(band + 1, bottom, sums.pending(band), grid.size, tiling, wanted.confidence)
        if finished.logits is not None and single:
            finished = replace(finished, logits=finished.logits[1:])
        yield replace(finished, top=top, pending=pending)
        if left_over:
            keep = grid.first_row(band + 1)
            rows, first = rows[keep - first :], keep  # type: ignore[index]


class _Rows:
    """Reads on from the rows that are kept. Those of a volume lie in one piece of memory, into which a few slices at a
    time are read, since slabs are most of what a volume needs."""

    def __init__(self, read: Read, grid: Grid) -> None:
        self._read, self._grid = read, grid
        self._slab: Any = None

    def __call__(self, rows: Any, have: int, need: int) -> Any:
        """`rows`, the last of which is have - 1, or None where there is none, and those up to need - 1."""
        if len(self._grid.size) == 2:
            chunk = self._chunk(have, need)
            return chunk if rows is None else array_namespace(chunk).concat([rows, chunk], axis=0)
        kept = 0 if rows is None else len(rows)
        total = kept + need - have
        for i in range(kept):
            self._slab[i] = rows[i]  # forwards, so never onto what is still to move
        for top in range(have, need, READ_SLICES):
            bottom = min(top + READ_SLICES, need)
            chunk = self._chunk(top, bottom)
            if self._slab is None:
                xp = array_namespace(chunk)
                shape = (self._most(), *chunk.shape[1:])
                self._slab = xp.empty(shape, dtype=chunk.dtype, device=device(chunk))
            at = kept + top - have
            self._slab[at : at + bottom - top] = chunk
        return self._slab[:total]

    def _chunk(self, top: int, bottom: int) -> Any:
        chunk, expected = self._read(top, bottom), (bottom - top, *self._grid.size[1:])
        if tuple(chunk.shape[:-1]) != expected:
            raise InputError(
                f"read({top}, {bottom}) must give ({', '.join(map(str, expected))}, channels), "
                f"got {tuple(chunk.shape)}"
            )
        return chunk

    def _most(self) -> int:
        """The most slices that a band needs at once."""
        grid = self._grid
        return max(int(grid.places(0, i).max()) + 1 - grid.first_row(i) for i in range(grid.bands))


def collect(bands: Iterator[Band], size: Sequence[int]) -> tuple[NDArray[Any], NDArray[np.float32] | None]:
    """All bands as one label map of `size`, and one of confidence where the bands have it."""
    found = whole(bands, size)
    return found.labels, found.confidence


def whole(bands: Iterator[Band], size: Sequence[int]) -> Band:
    """All bands as one, of `size`."""
    found: dict[str, NDArray[Any]] = {}
    for band in bands:
        rows = slice(band.top, band.top + len(band.labels))
        for name in ("labels", "confidence", "codes", "logits"):
            values = getattr(band, name)
            if values is None:
                continue
            before = values.shape[: values.ndim - len(size)]  # of logits, the classes
            if name not in found:
                found[name] = np.empty((*before, *size), values.dtype)
            place = (*(slice(None) for _ in before), rows)
            found[name][place] = values
    return Band(0, found["labels"], found.get("confidence"), None, found.get("codes"), found.get("logits"))


def window(tile: Sequence[int], kind: Window) -> NDArray[np.float32]:
    """The weights of a tile's pixels, float32 of the tile's size in (0, 1]: a product over the axes.

    constant: 1. linear: falls evenly from the middle to the edge. gaussian: standard deviation an eighth of the side,
    as in MONAI and nnU-Net. spline: two parabolas, flat in the middle and at the edge. No weight is below a
    thousandth (MONAI's rule), so that a pixel which only a corner sees is decided by that corner.
    """
    weights = np.ones((), np.float64)
    for side in tile:
        # 1 / side at the edge, 1 or nearly in the middle
        t = 1 - np.abs(np.arange(side) - (side - 1) / 2) * 2 / side
        profile = {
            "constant": np.ones_like(t),
            "linear": t,
            "gaussian": np.exp(-((4 * (1 - t)) ** 2) / 2),
            "spline": np.where(t < 0.5, 2 * t**2, 1 - 2 * (1 - t) ** 2),
        }[kind]
        weights = weights[..., None] * profile
    return np.maximum(weights, 1e-3).astype(np.float32)


class _Weights:
    """The weights of each tile of a grid: the window, less the margin at edges that are not the picture's."""

    def __init__(self, grid: Grid, tiling: Tiling) -> None:
        self._grid, self._margin = grid, tiling.margin
        self._window = window(grid.tile, tiling.window)
        self._cut: dict[tuple[tuple[bool, bool], ...], NDArray[np.float32]] = {}

    def __call__(self, index: tuple[int, ...]) -> NDArray[np.float32]:
        if not self._margin:
            return self._window
        ends = tuple((i == 0, i + 1 == len(s)) for i, s in zip(index, self._grid.starts, strict=True))
        if ends not in self._cut:
            weights = self._cut[ends] = np.zeros_like(self._window)
            counts = tuple(
                slice(0 if first else self._margin, side if last else side - self._margin)
                for (first, last), side in zip(ends, weights.shape, strict=True)
            )
            weights[counts] = self._window[counts]
        return self._cut[ends]


def enlarge(logits: Any, size: Sequence[int], *, align_corners: bool) -> Any:
    """Linear interpolation of the last axes to `size`, with `decide`'s arithmetic; NumPy or torch, any dimension."""
    xp, place = array_namespace(logits), device(logits)
    for axis, side in enumerate(size, start=logits.ndim - len(size)):
        n = logits.shape[axis]
        if n == side:
            continue
        where = axis_of(n, side, align_corners)
        cells = (where.cell, np.minimum(where.cell + 1, n - 1))
        before, behind = (xp.take(logits, xp.asarray(cell, device=place), axis=axis) for cell in cells)
        shape = [-1 if a == axis else 1 for a in range(logits.ndim)]
        weight = xp.reshape(xp.asarray(where.weight, device=place), tuple(shape))
        logits = before * (1 - weight) + behind * weight
    return logits


class _Compiled:
    """Sums of a picture on the CPU: only what a later tile sees again is stored (see kernels.stitch_tile)."""

    def __init__(
        self,
        grid: Grid,
        weights: _Weights,
        logits: NDArray[Any],
        align_corners: bool,
        wanted: _Wanted,
    ) -> None:
        k, *coarse = logits.shape[1:]
        self._grid, self._weights, planes = grid, weights, k + wanted.confidence
        self._rows, self._columns = (
            axis_of(n, side, align_corners) for n, side in zip(coarse, grid.tile, strict=True)
        )
        self._below = np.zeros((planes, grid.overlap(0), grid.size[1]), np.float32)
        self._beside = np.zeros((planes, grid.tile[0], grid.overlap(1)), np.float32)
        self._k, self._confidence, self._regions = k, wanted.confidence, wanted.regions
        self._dtype = code_type(k) if wanted.regions else np.min_scalar_type(k - 1)
        self._labels = np.empty((0, 0), self._dtype)
        self._probability = np.empty((0, 0), np.float32)

    def resume(self, earlier: Pending) -> None:
        self.pending(earlier.band - 1)[:] = _fitting(earlier, self.pending(earlier.band - 1))

    def add(self, band: int, indices: list[tuple[int, ...]], logits: NDArray[np.float32]) -> None:
        from pixelwise import kernels

        grid, top = self._grid, self._grid.starts[0][band]
        done = grid.edge(0, band) - top
        if indices[0] == (0,):
            shape = (done, grid.size[1])
            self._labels = np.empty(shape, self._dtype)
            self._probability = np.empty(shape if self._confidence else (0, 0), np.float32)
        tiles = []
        for (column,), one in zip(indices, np.ascontiguousarray(logits, np.float32), strict=True):
            left = grid.starts[1][column]
            inside = tuple(
                min(t, side - at) for t, side, at in zip(grid.tile, grid.size, (top, left), strict=True)
            )
            tiles.append((
                one, self._weights((band, column)),
                self._rows.cell, self._rows.weight, self._columns.cell, self._columns.weight,
                self._below, self._beside, self._labels, self._probability, left,
                inside, (grid.seen(0, band), grid.seen(1, column)), (done, grid.edge(1, column) - left),
                self._regions,
            ))  # fmt: skip

        def stitch_tiles(first: int, end: int) -> None:
            for tile in tiles:
                kernels.stitch_tile(*tile, first, end)

        kernels.in_bands(stitch_tiles, done)

    def finish(self, band: int) -> Band:
        return _finished(
            self._labels, self._probability if self._confidence else None, self._regions, self._k
        )

    def pending(self, band: int) -> NDArray[np.float32]:
        return self._below[:, : self._grid.seen(0, band + 1)]


class _Plain:
    """Sums of one row of tiles of any dimension, NumPy or torch, on the device of the logits."""

    def __init__(
        self, grid: Grid, weights: _Weights, logits: Any, align_corners: bool, wanted: _Wanted
    ) -> None:
        k = logits.shape[1]
        self._grid, self._k, self._wanted, self._align_corners = grid, k, wanted, align_corners
        self._weighed = wanted.confidence or wanted.logits
        self._xp, self._device = array_namespace(logits), device(logits)
        self._weights = weights
        work = grid.count * math.prod(grid.tile)
        self._compiled = len(grid.size) == 3 and not is_torch_array(logits) and work >= PAYS_FROM
        shape = (k + self._weighed, grid.tile[0], *grid.size[1:])
        self._sums = self._xp.zeros(shape, dtype=self._xp.float32, device=self._device)

    def _asarray(self, values: Any) -> Any:
        return self._xp.asarray(values, device=self._device)

    def resume(self, earlier: Pending) -> None:
        self.pending(earlier.band - 1)[:] = self._asarray(_fitting(earlier, self.pending(earlier.band - 1)))

    def add(self, band: int, indices: list[tuple[int, ...]], logits: Any) -> None:
        for index, one in zip(indices, logits, strict=True):
            self._add(band, index, one)

    def _add(self, band: int, index: tuple[int, ...], logits: Any) -> None:
        grid = self._grid
        logits = enlarge(logits, grid.tile, align_corners=self._align_corners)
        at = (grid.starts[0][band], *(grid.starts[a + 1][i] for a, i in enumerate(index)))
        inside = [min(t, side - a) for t, side, a in zip(grid.tile, grid.size, at, strict=True)]
        source = tuple(slice(n) for n in inside)
        goal = (slice(inside[0]), *(slice(a, a + n) for a, n in zip(at[1:], inside[1:], strict=True)))
        visible, classes, last = (slice(None), *source), (slice(self._k), *goal), (self._k, *goal)
        weights = self._asarray(self._weights((band, *index)))[source]
        if self._compiled:
            from pixelwise import kernels

            logits = np.ascontiguousarray(logits, np.float32)
            kernels.in_bands(kernels.add_window, inside[0], self._sums, logits, weights, *at[1:])
            return
        self._sums[classes] += logits[visible] * weights
        if self._weighed:
            self._sums[last] += weights

    def finish(self, band: int) -> Band:
        """Labels of the finished rows; the sums move up, so that the pending ones come first."""
        xp, k = self._xp, self._k
        done = self._grid.edge(0, band) - self._grid.starts[0][band]
        sums, regions = self._sums[:k, :done], self._wanted.regions
        if regions:
            dtype = code_type(k)
            labels = np.zeros(tuple(sums.shape[1:]), dtype)
            for region in range(k):
                labels |= _host(sums[region] > 0).astype(dtype) << dtype.type(region)
        elif self._compiled:
            from pixelwise import kernels

            labels = np.empty(sums.shape[1:], np.min_scalar_type(k - 1))
            best = np.empty((done, sums.shape[-1]), np.float32)
            kernels.in_bands(kernels.largest, done, self._sums, k, best, labels)
        else:
            labels = _host(xp.argmax(sums, axis=0)).astype(np.min_scalar_type(k - 1))
        probability = logits = None
        if self._wanted.confidence and regions:
            least = xp.min(xp.abs(sums), axis=0)
            probability = _host(1 / (1 + xp.exp(-least / self._sums[k, :done])))
        elif self._wanted.confidence:
            best = xp.max(sums, axis=0)
            odds = xp.exp((sums - best) / self._sums[k, :done])
            probability = _host(1 / xp.sum(odds, axis=0))
        if self._wanted.logits:
            logits = _host(sums / self._sums[k, :done])
        kept = self._grid.tile[0] - done
        if band + 1 < self._grid.bands:
            for i in range(0, kept, done):  # never onto itself: at most `done` rows at a time
                n = min(done, kept - i)
                self._sums[:, i : i + n] = self._sums[:, i + done : i + done + n]
            self._sums[:, kept:] = 0
        return _finished(labels, probability, regions, k, logits)

    def pending(self, band: int) -> Any:
        return self._sums[:, : self._grid.seen(0, band + 1)]


def _finished(
    values: NDArray[Any], confidence: NDArray[np.float32] | None, regions: bool, k: int,
    logits: NDArray[np.float32] | None = None,
) -> Band:  # fmt: skip
    """A band whose place is not known yet. values: class indices, or with regions the codes of k."""
    if not regions:
        return Band(0, values, confidence, None, None, logits)
    return Band(0, highest(values, k), confidence, None, values, logits)


def _fitting(earlier: Pending, expected: Any) -> Any:
    if tuple(earlier.sums.shape) != tuple(expected.shape):
        raise InputError(
            f"the unfinished work has sums {tuple(earlier.sums.shape)}, this network needs {tuple(expected.shape)}; "
            "it was another network: start again without it"
        )
    return earlier.sums


def _checked(logits: Any, n: int, dimensions: int, regions: bool) -> tuple[Any, bool]:
    """Logits as float32, NumPy unless they live on another device; a single channel that is no region becomes two, and
    whether it did."""
    if logits.ndim != dimensions + 2 or logits.shape[0] != n or 0 in logits.shape:
        raise InputError(
            f"expected logits (n, k, {'d, ' * (dimensions - 2)}h, w) with n = {n}, got shape {tuple(logits.shape)}"
        )
    if is_torch_array(logits):
        logits = logits.detach().float()
        if logits.device.type == "cpu":
            logits = logits.numpy()
    single = logits.shape[1] == 1 and not regions
    if single:
        xp = array_namespace(logits)
        logits = xp.concat([xp.zeros_like(logits), logits], axis=1)
    return logits, single


@cache
def _preparing() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(thread_name_prefix="pixelwise tiles")


class _Batches:
    """The network's input: tiles of the rows, prepared side by side, in memory that the next batch uses again."""

    def __init__(self, prepare: Callable[[Any], Any], most: int) -> None:
        self._prepare, self._most = prepare, most
        self._batch: Any = None

    def __call__(self, rows: Any, at: list[tuple[NDArray[np.int64], ...]]) -> Any:
        if self._most == 1:
            return self._prepare(cut(rows, at[0]))
        if self._batch is None:
            tile = self._prepare(cut(rows, at[0]))
            xp, shape = array_namespace(tile), (self._most, *tile.shape[1:])
            self._batch = xp.empty(shape, dtype=tile.dtype, device=device(tile))

        def put(i: int) -> None:
            self._batch[i : i + 1] = self._prepare(cut(rows, at[i]))

        # torch's modes (inference_mode and the like) are those of one thread
        each = map if is_torch_array(self._batch) else _preparing().map
        list(each(put, range(len(at))))
        return self._batch[: len(at)]


def cut(rows: Any, places: tuple[NDArray[np.int64], ...]) -> Any:
    """rows[places]: slices where the places follow each other, else a gather."""
    for axis, at in enumerate(places):
        follows = len(at) == 1 or (np.diff(at) == 1).all()
        where = (*(slice(None),) * axis, slice(int(at[0]), int(at[-1]) + 1) if follows else at)
        rows = rows[where]
    return rows


def _host(array: Any) -> NDArray[Any]:
    values: NDArray[Any] = array.cpu().numpy() if is_torch_array(array) else array
    return values


def _starts(side: int, tile: int, step: int, multiple: int) -> tuple[int, ...]:
    """Where tiles begin: evenly spread multiples, at most `step` apart, the last reaching the end."""
    last = -(-max(side - tile, 0) // multiple)
    gaps = -(-last // (step // multiple))
    return tuple(multiple * (i * last // max(gaps, 1)) for i in range(gaps + 1))


def _pixels(overlap: int | float, tile: int) -> int:
    """An overlap in pixels."""
    if not math.isfinite(overlap):
        raise InputError(f"an overlap is a number of pixels or a share below 1, got {overlap}")
    if isinstance(overlap, float) and overlap >= 1:
        raise InputError(f"a float overlap is a share below 1, got {overlap}; give pixels as an int")
    return int(overlap * tile) if isinstance(overlap, float) else int(overlap)


def _tuple(value: Any) -> tuple[Any, ...]:
    return value if isinstance(value, tuple) else (value,)


def _per_axis(value: Any, axes: int, name: str) -> tuple[Any, ...]:
    values = _tuple(value)
    if len(values) not in (1, axes):
        raise InputError(f"{name} must be one number or {axes}, one an axis, got {value}")
    return values * (axes // len(values))

"""Cleaning up a label map: fill holes, keep the largest region of a class, give small regions to a neighbour.

A region is a connected set of pixels of one class that no larger one contains. Pixels are connected by their sides,
4 neighbours in a picture and 6 in a volume: then no two regions cross each other, every side between two regions counts
once for the length of their border, and a diagonal line of pixels closes a ring. This is also how polygons are traced
(`outputs.polygons`). "Reading order" is by row, then column (in a volume by slice first); the picture's edge is its
outermost rows and columns (and slices). Three steps, in this order:

fill_holes. A hole of class c is a connected set of pixels of other classes, of one or of many, that does not touch the
picture's edge and whose neighbours outside are all of class c. Its pixels become c. Classes one after the other, in
the order given; `scipy.ndimage.binary_fill_holes` does the same to one class.

largest_only. Of class c only the region with the most pixels stays, of equal ones the first in reading order (of their
first pixels). The others are given away, smallest first, of equal ones the first in reading order. Classes one after
the other, in the order given.

min_area. While there are regions of fewer pixels than min_area, the smallest of them, of equal ones the first in
reading order, is given away. What comes of that counts as a region like every other one, so it may be next.

To give a region away: it takes the class of the neighbouring region with which it shares the most pixel sides, of equal
ones the larger, then the one of the lower class index; with all neighbouring regions of that class it is then one
region. The only region of a picture has no neighbour and stays.

Done twice, each of the three alone, and largest_only with min_area, gives what it gave once. With fill_holes before
another step that need not be so: a region that is given away can close a ring.

How: the map is read once into a graph of regions (areas, classes, shared sides), in which all three are decided without
looking at a pixel, and read a second time to write the new classes. So `clean_bands` needs memory for a few bands and
the graph, not for the picture. Loops are in kernels.py.

Letters: h w pixels, d slices.
"""

from __future__ import annotations

import operator
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from io import BufferedRandom
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pixelwise.errors import InputError, OutputError
from pixelwise.inference.tiling import Band


@dataclass(frozen=True)
class Cleanup:
    """What to clean up; the words are defined at the top of this file.

    min_area: regions of fewer pixels are given to a neighbour; 0 and 1 do nothing. fill_holes, largest_only: class
    indices, in the order in which they are done; a class that does not occur changes nothing. Raises InputError for
    what is not a whole number of at least 0.
    """

    min_area: int = 0
    fill_holes: tuple[int, ...] = ()
    largest_only: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if not _counts(self.min_area):
            raise InputError(
                f"min_area must be a number of pixels, an int of at least 0, got {self.min_area!r}"
            )
        object.__setattr__(self, "min_area", operator.index(self.min_area))
        for name in ("fill_holes", "largest_only"):
            classes = getattr(self, name)
            if not isinstance(classes, Sequence) or not all(_counts(c) for c in classes):
                raise InputError(
                    f"{name} must be a tuple of class indices, ints of at least 0 such as (1, 4), got {classes!r}"
                )
            object.__setattr__(self, name, tuple(operator.index(c) for c in classes))

    @property
    def active(self) -> bool:
        """Whether there is anything to do."""
        return self.min_area > 1 or bool(self.fill_holes) or bool(self.largest_only)


def _counts(value: Any) -> bool:
    return isinstance(value, (int, np.integer)) and not isinstance(value, bool) and 0 <= int(value) < 2**62


def clean(labels: NDArray[Any], cleanup: Cleanup) -> NDArray[Any]:
    """The map after all that `cleanup` asks for, a new array of the same shape and dtype.

    labels: (h, w), or (d, h, w) for a volume, unsigned class indices. Raises InputError for another shape or type.
    """
    labels = _checked(labels)
    if labels.size == 0 or not cleanup.active:
        return np.array(labels)
    regions = _Regions(labels.shape, labels.dtype)
    for rows in np.array_split(labels, 1 + labels.size // 2**30):
        regions.add(rows)
    return _Second(labels.shape, labels.dtype, regions.decide(cleanup)).relabel(labels)


def clean_bands(
    bands: Iterable[Band], size: Sequence[int], cleanup: Cleanup, scratch: str | os.PathLike[str]
) -> Iterator[Band]:
    """`clean` for a map that comes in bands: bands of the same rows with the final labels, equal to the whole map's.

    bands: from the top of the picture to its bottom, as `tiling.stitch` yields them; labels are class indices. size:
    (h, w), or (d, h, w) for a volume. scratch: a folder for the labels, and the confidence if there is one, until they
    are read again; its two files are removed at the end. Confidence stays as it is, `pending` is dropped: the first
    band is yielded after the last has come, as any pixel may change what is far away.

    Raises InputError for bands that do not fit together or not into `size`.
    """
    if not cleanup.active:
        for band in bands:
            yield replace(band, pending=None)
        return
    size = tuple(int(side) for side in size)
    with ExitStack() as stack:
        regions: _Regions | None = None
        files: list[BufferedRandom] = []
        heights: list[int] = []
        for band in bands:
            labels = _checked(band.labels)
            if regions is None:
                regions = _Regions(size, labels.dtype)
                names = ["labels"] if band.confidence is None else ["labels", "confidence"]
                files = [stack.enter_context(_scratch(Path(scratch) / f"cleanup.{name}")) for name in names]
            arrays = [labels] if band.confidence is None else [labels, band.confidence]
            if arrays[-1].shape != labels.shape or (arrays[1:] and arrays[1].dtype != np.float32):
                raise InputError(
                    f"expected a confidence of float32 {labels.shape}, as the labels, got {arrays[1].dtype} "
                    f"{arrays[1].shape}"
                )
            top = sum(heights)
            fits = labels.shape[1:] == size[1:] and top == band.top and top + len(labels) <= size[0]
            if not fits or labels.dtype != regions.dtype or len(arrays) != len(files):
                raise InputError(
                    f"expected the band from row {top} of a {regions.dtype} map of size {size} "
                    f"{_with(len(files))} confidence, got a band from row {band.top}, {labels.dtype} {labels.shape} "
                    f"{_with(len(arrays))}; all bands must be of one map, without gaps"
                )
            regions.add(labels)
            for file, array in zip(files, arrays, strict=True):
                file.write(np.ascontiguousarray(array).data)
            heights.append(len(labels))
        if regions is None or sum(heights) < size[0]:
            raise InputError(f"expected bands of {size[0]} rows, got {sum(heights)}; give all of them")
        second = _Second(size, regions.dtype, regions.decide(cleanup))
        top = 0
        for file in files:
            file.seek(0)
        for height in heights:
            shape = (height, *size[1:])
            labels = second.relabel(_read(files[0], shape, regions.dtype))
            confidence = _read(files[1], shape, np.float32) if len(files) == 2 else None
            yield Band(top, labels, confidence, None)
            top += height


class _Regions:
    """The graph of a map's regions, read band by band."""

    def __init__(self, size: Sequence[int], dtype: np.dtype[Any]) -> None:
        self.dtype = dtype
        self._size, self._rows = size, 0
        self._before, self._ids = _edge(size, dtype)
        # of each piece, as kernels.find_regions says: parent, area, whether it touches the edge, class
        self._pieces: tuple[NDArray[Any], ...] = (
            np.empty(0, np.int32), np.empty(0, np.int64), np.empty(0, np.bool_), np.empty(0, np.int64)
        )  # fmt: skip
        self._count = self._used = 0
        self._pairs, self._sides = np.zeros(0, np.uint64), np.zeros(0, np.int64)

    def add(self, labels: NDArray[Any]) -> None:
        """Read the next rows."""
        from pixelwise import kernels

        need = self._count + labels.size
        if need > 2**31 - 1:
            raise InputError(
                f"expected a map of less than about {2**31 - 1} regions, got {self._count} above the next "
                f"{labels.size} pixels; give the map in bands of fewer rows"
            )
        if need > len(self._pieces[0]):  # memory that is never written to costs nothing
            self._pieces = tuple(_longer(piece, self._count, need + self._count) for piece in self._pieces)
        self._rows += len(labels)
        self._count, self._pairs, self._sides, self._used = kernels.find_regions(
            _slices(labels), self._rows == self._size[0], len(self._size) == 2, self._before, self._ids,
            *self._pieces, self._count, self._pairs, self._sides, self._used,
        )  # fmt: skip

    def decide(self, cleanup: Cleanup) -> NDArray[Any]:
        """The final class of each piece, in the order in which they were found; the graph is used up."""
        from pixelwise import kernels

        parent, *about = (piece[: self._count] for piece in self._pieces)
        n, region, graph = kernels.region_graph(parent, *about, self._pairs, self._sides)
        del self._pieces, self._pairs, self._sides
        areas, touches, classes = (values[:n] for values in about)
        present = set(np.unique(classes).tolist())
        for c in filter(present.__contains__, cleanup.fill_holes):
            kernels.fill_holes(classes, touches, graph, c)
        number = np.arange(n, dtype=np.int32)
        forest = (number.copy(), number.copy(), areas, classes)
        parent = forest[0]
        kernels.merge_equals(forest, graph)

        def sorted_by_area(some: NDArray[np.bool_]) -> NDArray[np.int64]:
            return np.sort(areas[some] * n + number[some])

        for c in filter(present.__contains__, cleanup.largest_only):
            queue = sorted_by_area((parent == number) & (classes == c))
            first_largest = np.searchsorted(queue, queue[-1:] // n * n)
            kernels.give_away(np.delete(queue, first_largest), 0, forest, graph)
        if cleanup.min_area > 1:
            queue = sorted_by_area((parent == number) & (areas < cleanup.min_area))
            kernels.give_away(queue, cleanup.min_area, forest, graph)
        while not np.array_equal(parent, parent[parent]):
            parent = parent[parent]
        final: NDArray[Any] = classes.astype(self.dtype)[parent][region]
        return final


class _Second:
    """The second reading of a map: to each pixel the final class of its piece."""

    def __init__(self, size: Sequence[int], dtype: np.dtype[Any], classes: NDArray[Any]) -> None:
        self._before, self._ids = _edge(size, dtype)
        self._classes, self._count = classes, 0

    def relabel(self, labels: NDArray[Any]) -> NDArray[Any]:
        from pixelwise import kernels

        out = np.empty_like(labels)
        self._count = kernels.relabel(
            _slices(labels), self._before, self._ids, self._count, self._classes, _slices(out)
        )
        return out


def _checked(labels: NDArray[Any]) -> NDArray[Any]:
    if not isinstance(labels, np.ndarray):
        raise InputError(
            f"expected an array of class indices (h, w) or (d, h, w), got {type(labels).__name__}"
        )
    if labels.ndim not in (2, 3) or labels.dtype.kind != "u":
        raise InputError(
            "expected unsigned class indices (h, w) or (d, h, w), such as uint8, "
            f"got {labels.dtype} of shape {labels.shape}"
        )
    return np.ascontiguousarray(labels, labels.dtype.newbyteorder("="))


def _with(arrays: int) -> str:
    return "with" if arrays == 2 else "without"


def _slices(labels: NDArray[Any]) -> NDArray[Any]:
    """A picture as a volume of which each row is a slice, so that bands of both are slices."""
    return labels[:, None] if labels.ndim == 2 else labels


def _edge(size: Sequence[int], dtype: np.dtype[Any]) -> tuple[NDArray[Any], NDArray[np.int32]]:
    """What lies before the first slice: labels, and no pieces."""
    shape = (1, *size[1:]) if len(size) == 2 else tuple(size[1:])
    return np.zeros(shape, dtype), np.full(shape, -1, np.int32)


def _longer(values: NDArray[Any], count: int, length: int) -> NDArray[Any]:
    longer = np.empty(length, values.dtype)
    longer[:count] = values[:count]
    return longer


@contextmanager
def _scratch(path: Path) -> Iterator[BufferedRandom]:
    """A new file to write and to read back, which is removed in the end."""
    try:
        with open(path, "w+b") as file:
            yield file
    except OSError as error:
        raise OutputError(
            f"cannot write {path}: {error.strerror or error}; it takes the map once more"
        ) from error
    finally:
        path.unlink(missing_ok=True)


def _read(file: BufferedRandom, shape: tuple[int, ...], dtype: Any) -> NDArray[Any]:
    values = np.empty(shape, dtype)
    if file.readinto(values.data.cast("B")) < values.nbytes:
        raise InputError(f"{file.name} has been cut short; start again")
    return values

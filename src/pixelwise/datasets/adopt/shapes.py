"""Outlines of any origin, and how they are drawn: smaller ones over larger ones, crowds ignored, and what several
classes cover counted."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pixelwise.codes import code_type
from pixelwise.errors import InputError
from pixelwise.outputs.coco import decode_rle
from pixelwise.outputs.polygons import Polygon, fill
from pixelwise.terminal import counted

MOST_BYTES = 2**31
"""Of a file of outlines."""


def ignored_of(count: int) -> int:
    """The id of what is ignored beside so many outlined classes, which are numbered from 1."""
    return 255 if count < 255 else 65535


@dataclass(frozen=True)
class Shape:
    """Something outlined. kind: its class's place among the names. rings: corners (n, 2) of column and row, each ring
    filled. runs: COCO's run lengths instead. scaled: corners are shares of the picture's width and height. traced: they
    are the middles of the pixels along the inside of the border, as OpenCV finds contours."""

    kind: int
    rings: tuple[NDArray[np.float64], ...] = ()
    runs: Mapping[str, Any] | None = None
    crowd: bool = False
    scaled: bool = False
    traced: bool = False


@dataclass
class Outlines:
    """What files of one sort say. names: of the classes, without a background. shapes: of each picture that they name.
    sizes: (h, w) of the pictures, where the file says it. splits: the part, likewise. notes: what was left out; said:
    what was done."""

    label: str
    names: list[str]
    shapes: dict[PurePath, list[Shape]] = field(default_factory=dict)
    sizes: dict[PurePath, tuple[int, int]] = field(default_factory=dict)
    splits: dict[PurePath, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    said: list[str] = field(default_factory=list)


def draw(
    shapes: Sequence[Shape], size_hw: tuple[int, int], count: int, *, codes: bool
) -> tuple[NDArray[Any], int]:
    """(the label map (h, w), pixels that several classes cover). Classes are numbered from 1, 0 is what none covers.

    count: of the classes. codes: give `pixelwise.codes` instead, in which they may overlap.
    """
    out = np.zeros(size_hw, code_type(count) if codes else np.min_scalar_type(max(count, ignored_of(count))))
    masks = [(shape, _mask(shape, size_hw)) for shape in shapes]
    if codes:
        for shape, mask in masks:
            if not shape.crowd:
                out[mask] |= out.dtype.type(1 << shape.kind)
        return out, 0
    contested, ignored = np.zeros(size_hw, bool), ignored_of(count)
    for shape, mask in sorted(masks, key=lambda one: (not one[0].crowd, -int(one[1].sum()))):
        id = ignored if shape.crowd else shape.kind + 1
        if not shape.crowd:
            contested |= mask & (out != 0) & (out != id) & (out != ignored)
        out[mask] = id
    return out, int(contested.sum())


def _mask(shape: Shape, size_hw: tuple[int, int]) -> NDArray[np.bool_]:
    mask = np.zeros(size_hw, np.uint8)
    if shape.runs is not None:
        if list(shape.runs.get("size") or ()) != [*size_hw]:
            raise InputError(
                f"run lengths of the size {str(shape.runs.get('size'))[:40]} for a picture of {size_hw}"
            )
        try:
            return decode_rle(shape.runs)
        except (TypeError, ValueError, LookupError, OverflowError) as error:
            raise InputError(f"run lengths that cannot be read ({str(error)[:80]})") from error
    scale = np.array(size_hw[::-1] if shape.scaled else (1, 1), np.float64)
    fill([Polygon(1, 0, 0, (ring * scale + 0.5 * shape.traced,)) for ring in shape.rings], mask)
    if shape.traced:
        for ring in shape.rings:
            column, row = _pixels_along(ring).T
            there = (row >= 0) & (row < size_hw[0]) & (column >= 0) & (column < size_hw[1])
            mask[row[there], column[there]] = 1
    return mask.astype(bool)


def are_traced(shapes: Iterable[Shape]) -> bool:
    """Whether all corners are whole numbers and all sides run along rows, columns and diagonals, of which there are
    some: only the tracing of pixels does that. Along the edges of pixels there are no diagonals."""
    diagonals = 0
    for shape in shapes:
        for ring in shape.rings:
            across, down = np.abs(np.diff(ring, axis=0, append=ring[:1])).T
            if (ring != np.round(ring)).any() or ((across != 0) & (down != 0) & (across != down)).any():
                return False
            diagonals += int(((across == down) & (across > 0)).sum())
    return diagonals > 0


def _pixels_along(ring: NDArray[np.float64]) -> NDArray[np.int64]:
    """The pixels (n, 2) of column and row on the sides of a traced ring."""
    sides = zip(ring, np.roll(ring, -1, axis=0), strict=True)
    found = [np.linspace(a, b, int(min(np.abs(b - a).max(), 2**16)) + 1) for a, b in sides]
    pixels: NDArray[np.int64] = np.concatenate(found).round().astype(np.int64)
    return pixels


ByName = Callable[[str], "PurePath | None"]


def boxes_said(count: int) -> str:
    return (
        f"{counted(count, 'object')} without an outline, only a box: what is in the box and in no outline is ignored, "
        "or with --regions counted as what none covers"
    )


def box(left: float, top: float, width: float, height: float) -> NDArray[np.float64]:
    right, bottom = left + width, top + height
    return np.array([(left, top), (right, top), (right, bottom), (left, bottom)])


def ring_of(numbers: Any, path: Path) -> NDArray[np.float64]:
    """Corners (n, 2) of [x, y, x, y, ...]."""
    if not isinstance(numbers, list) or len(numbers) % 2 or any(type(n) not in (int, float) for n in numbers):
        raise InputError(f"{path} has an outline {str(numbers)[:60]}, expected numbers x, y, x, y, ...")
    try:
        ring = np.array(numbers, np.float64).reshape(-1, 2)
    except OverflowError as error:
        raise InputError(f"{path} has an outline with a number of too many digits") from error
    if not (np.abs(ring) < 1e9).all():
        raise InputError(f"{path} has an outline with a corner far from any picture, or that is no number")
    return ring

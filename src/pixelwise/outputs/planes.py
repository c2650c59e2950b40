"""Volumes to be looked at: three planes through one, and a grid of slices, in the scale of millimetres."""

from __future__ import annotations

import math
from functools import cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from pixelwise.geometry import AS_IT_IS, Geometry
from pixelwise.images import stretched
from pixelwise.labels import LabelSet
from pixelwise.outputs.ids import background_of

PANEL_PX = 384
"""The longer side of the largest of the three planes."""

GAP_PX = 6

LARGEST_VOXEL_PX = 8

SHOWN_AS = "LPI"
"""Columns to the left of the patient, rows to the back, slices downwards: as doctors look at scans."""


class Planes(NamedTuple):
    """Where three planes cut a volume, in `SHOWN_AS` where the volume says how it lies: slice, row, column. picture:
    uint8 RGB (h', w', 3), the three side by side: across, from the front, from the side; with letters for the sides of
    the body where those are known."""

    at: tuple[int, int, int]
    picture: NDArray[np.uint8]


def planes_of(
    labels: NDArray[Any], classes: LabelSet, values: NDArray[Any], geometry: Geometry | None
) -> Planes:
    """The planes that hold most of what is no background. labels, values: (d, h, w)."""
    shown, of_labels, spacing = _shown(values, geometry), _shown(labels, geometry), _spacing(geometry)
    at = _fullest(of_labels, classes)
    cuts = [_cut(shown, at, axis).astype(np.float64) for axis in range(3)]
    sides = _sides(shown.shape, spacing)
    picture = np.repeat(_side_by_side(_grey(cuts, sides), 0)[..., None], 3, axis=2)
    if geometry is not None and geometry.affine is not None:
        canvas, left = Image.fromarray(picture), 0
        for axis, (height, width) in enumerate(sides):
            _letters(ImageDraw.Draw(canvas), (left, 0, height, width), axis)
            left += width + GAP_PX
        picture = np.asarray(canvas)
    return Planes(at, picture)


def labels_on_planes(
    labels: NDArray[Any], at: tuple[int, int, int], geometry: Geometry | None, outside: int
) -> NDArray[Any]:
    """A label map, or codes, of the pixels of `Planes.picture`, (h', w'); `outside` between the planes."""
    shown, spacing = _shown(labels, geometry), _spacing(geometry)
    panels = []
    for axis, (height, width) in enumerate(_sides(shown.shape, spacing)):
        panels.append(_nearest(_cut(shown, at, axis), height, width))
    return _side_by_side(panels, outside)


def _shown(values: NDArray[Any], geometry: Geometry | None) -> NDArray[Any]:
    turn = AS_IT_IS if geometry is None or geometry.affine is None else geometry.turn_to(SHOWN_AS)
    return turn(values)


def _spacing(geometry: Geometry | None) -> tuple[float, float, float]:
    if geometry is None:
        return 1.0, 1.0, 1.0
    turn = AS_IT_IS if geometry.affine is None else geometry.turn_to(SHOWN_AS)
    return turn.of_sides(geometry.spacing)


def _fullest(labels: NDArray[Any], classes: LabelSet) -> tuple[int, int, int]:
    """The slice, row and column with most voxels of classes that are no background, the middle where there are none."""
    background = background_of(classes)
    counts = [np.zeros(side, np.int64) for side in labels.shape]
    for i, plane in enumerate(labels):
        found = plane != background
        if classes.ignore_id is not None:
            found &= plane != classes.ignore_id
        counts[0][i] = np.count_nonzero(found)
        counts[1] += np.count_nonzero(found, axis=1)
        counts[2] += np.count_nonzero(found, axis=0)
    first, second, third = (int(count.argmax()) if count.any() else len(count) // 2 for count in counts)
    return first, second, third


def _cut(values: NDArray[Any], at: tuple[int, int, int], axis: int) -> NDArray[Any]:
    return np.ascontiguousarray(np.moveaxis(values, axis, 0)[at[axis]])  # `take` would copy all of a view


def _sides(shape: tuple[int, ...], spacing: tuple[float, float, float]) -> list[tuple[int, int]]:
    """Height and width in pixels of each plane, all on one scale of pixels a millimetre."""
    mm = [side * step for side, step in zip(shape, spacing, strict=True)]
    scale = min(PANEL_PX / max(mm), LARGEST_VOXEL_PX / min(spacing))
    px = [max(1, round(side * scale)) for side in mm]
    return [(px[1], px[2]), (px[0], px[2]), (px[0], px[1])]


def _grey(cuts: list[NDArray[np.float64]], sides: list[tuple[int, int]]) -> list[NDArray[np.uint8]]:
    """The cuts in those sizes, from the 0.5th percentile of them all in black to the 99.5th in white."""
    finite = np.concatenate([cut[np.isfinite(cut)].ravel() for cut in cuts])
    low, high = (float(value) for value in np.percentile(finite, (0.5, 99.5))) if finite.size else (0.0, 1.0)
    if not low < high:
        low, high = low - 1, low + 1
    pictures = (Image.fromarray(stretched(np.nan_to_num(cut), (low, high))) for cut in cuts)
    return [
        np.asarray(one.resize(side[::-1], Image.Resampling.BILINEAR))
        for one, side in zip(pictures, sides, strict=True)
    ]


def _nearest(cut: NDArray[Any], height: int, width: int) -> NDArray[Any]:
    rows, columns = (
        (2 * np.arange(n) + 1) * side // (2 * n) for n, side in zip((height, width), cut.shape, strict=True)
    )
    nearest: NDArray[Any] = cut[rows][:, columns]
    return nearest


def _side_by_side(panels: list[NDArray[Any]], outside: int) -> NDArray[Any]:
    height, width = max(len(panel) for panel in panels), sum(panel.shape[1] for panel in panels)
    canvas = np.full((height, width + GAP_PX * (len(panels) - 1)), outside, panels[0].dtype)
    left = 0
    for panel in panels:
        canvas[: len(panel), left : left + panel.shape[1]] = panel
        left += panel.shape[1] + GAP_PX
    return canvas


SLICES = 20
"""In a grid, at most."""

SLICE_PX = 288
"""The longer side of a slice there."""

TEXT_PX = 15

OUTLINE_PX = 2


class Grid(NamedTuple):
    """A grid of slices of a volume in `SHOWN_AS`. axis: they lie across; at: which, in the order of the picture;
    columns: in a row of the grid; picture: uint8 RGB (h', w', 3)."""

    axis: int
    at: tuple[int, ...]
    columns: int
    picture: NDArray[np.uint8]


def grid_of(labels: NDArray[Any], classes: LabelSet, values: NDArray[Any], geometry: Geometry | None) -> Grid:
    """Slices across the axis of the coarsest spacing (of axes alike, from head to foot), evenly spaced from the first
    to the last that holds more than background, or through all of a volume that holds no more. labels, values: (d, h,
    w)."""
    shown, of_labels, spacing = _shown(values, geometry), _shown(labels, geometry), _spacing(geometry)
    axis = int(np.argmax(np.round(spacing, 3)))
    others = np.moveaxis(of_labels, axis, 0)
    outside = (background_of(classes), *(() if classes.ignore_id is None else (classes.ignore_id,)))
    full = np.flatnonzero([np.isin(plane, outside, invert=True).any() for plane in others])
    first, last = (int(full[0]), int(full[-1])) if len(full) else (0, len(others) - 1)
    count = min(SLICES, last - first + 1)
    at = tuple(int(i) for i in np.round(np.linspace(first, last, count)))
    height, width = _slice_px(shown.shape, spacing, axis)

    def unshapely(columns: int) -> float:
        """How far from 3 to 2, and how much of the grid stays empty."""
        rows = -(-count // columns)
        return abs(math.log(columns * width / (rows * height * 1.5))) + 2 * (rows * columns - count) / count

    columns = min(range(1, count + 1), key=unshapely)
    cuts = [np.moveaxis(shown, axis, 0)[i].astype(np.float64) for i in at]
    panels = _grey(cuts, [(height, width)] * count)
    return Grid(axis, at, columns, np.repeat(_in_rows(panels, columns, 0)[..., None], 3, axis=2))


def labels_on_grid(labels: NDArray[Any], grid: Grid, geometry: Geometry | None, outside: int) -> NDArray[Any]:
    """A label map of the pixels of `Grid.picture`, (h', w'); `outside` between the slices."""
    shown = _shown(labels, geometry)
    height, width = _slice_px(shown.shape, _spacing(geometry), grid.axis)
    panels = [_nearest(np.moveaxis(shown, grid.axis, 0)[i], height, width) for i in grid.at]
    return _in_rows(panels, grid.columns, outside)


def written_on(
    picture: NDArray[np.uint8], grid: Grid, size: tuple[int, int, int], geometry: Geometry | None
) -> NDArray[np.uint8]:
    """The picture with the number of each slice, as the volume of that size is stored, and where it lies, in mm, where
    the volume says that; the first slice also with the sides of the body."""
    canvas = Image.fromarray(picture)
    pen = ImageDraw.Draw(canvas)
    shown = _shown(np.empty(size, np.bool_), geometry)
    height, width = _slice_px(shown.shape, _spacing(geometry), grid.axis)
    for n, i in enumerate(grid.at):
        left, top = n % grid.columns * (width + GAP_PX), n // grid.columns * (height + GAP_PX)
        pen.text((left + 5, top + 4), _where(i, grid.axis, size, geometry), anchor="la", **_ink())
        if n == 0 and geometry is not None and geometry.affine is not None:
            _letters(pen, (left, top, height, width), grid.axis)
    return np.asarray(canvas)


def _letters(pen: ImageDraw.ImageDraw, box: tuple[int, int, int, int], axis: int) -> None:
    """At the left, right and lower side of a panel (left, top, height, width) that lies across an axis, the side of the
    body there."""
    left, top, height, width = box
    down, across = (SHOWN_AS[::-1][n] for n in range(3) if n != axis)
    pen.text((left + 5, top + height / 2), {"L": "R", "P": "A"}[across], anchor="lm", **_ink())
    pen.text((left + width - 5, top + height / 2), across, anchor="rm", **_ink())
    pen.text((left + width / 2, top + height - 5), down, anchor="md", **_ink())


@cache
def _font() -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size=TEXT_PX)


def _ink() -> dict[str, Any]:
    return {"fill": "white", "stroke_fill": "black", "stroke_width": 2, "font": _font()}


def _where(i: int, axis: int, size: tuple[int, int, int], geometry: Geometry | None) -> str:
    """The number of a slice of the volume as it is stored, and the place of its middle along the body."""
    if geometry is None or geometry.affine is None:
        return str(i)
    turn = geometry.turn_to(SHOWN_AS)
    stored = turn.order[axis]
    number = size[stored] - 1 - i if turn.flipped[stored] else i
    middle = [(side - 1) / 2 for side in size]
    middle[stored] = number
    along = 2 - axis  # x, y or z
    mm = float((geometry.affine @ [*middle[::-1], 1])[along])
    letter = ("R", "A", "S")[along] if mm >= 0 else ("L", "P", "I")[along]
    return f"{number}   {letter}  {abs(mm):.1f} mm"


def _slice_px(shape: tuple[int, ...], spacing: tuple[float, float, float], axis: int) -> tuple[int, int]:
    """Height and width of a slice in pixels."""
    mm = [side * step for n, (side, step) in enumerate(zip(shape, spacing, strict=True)) if n != axis]
    finest = min(step for n, step in enumerate(spacing) if n != axis)
    scale = min(SLICE_PX / max(mm), LARGEST_VOXEL_PX / finest)
    return max(1, round(mm[0] * scale)), max(1, round(mm[1] * scale))


def _in_rows(panels: list[NDArray[Any]], columns: int, outside: int) -> NDArray[Any]:
    height, width = panels[0].shape
    rows = -(-len(panels) // columns)
    canvas = np.full(
        (rows * (height + GAP_PX) - GAP_PX, columns * (width + GAP_PX) - GAP_PX), outside, panels[0].dtype
    )
    for n, panel in enumerate(panels):
        left, top = n % columns * (width + GAP_PX), n // columns * (height + GAP_PX)
        canvas[top : top + height, left : left + width] = panel
    return canvas

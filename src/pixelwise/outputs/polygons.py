"""Label maps to polygons and back, exactly: corners lie on pixel corners, edges run along pixel edges.

Why a tracer of our own and not GDAL's (rasterio.features.shapes): polygons come with the base install, the walk
is a page that can be read, and corners arrive as arrays, which is faster (benchmarks/outputs.py). Both give the same
shapes: where a region touches itself at a corner the walk crosses over, so that each ring is simple, and a hole
that meets the border only there stays a hole.

Letters: h w pixels, n corners. A corner is (column, row); (0, 0) is the upper left corner of the first pixel and
(w, h) the lower right one of the last.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pixelwise.errors import InputError, MissingExtraError
from pixelwise.labels import LabelSet
from pixelwise.outputs.areas import mask_of


@dataclass(frozen=True, eq=False)
class Polygon:
    """One 4-connected region of a label map, or a piece of one.

    id: the number in the label map. region: the region's number; regions count from 0 in reading order. pixels:
    how many it covers. rings: the border first, then the holes, each (n, 2) corners without a repeated last one.
    The region lies on the right of one who walks along them: borders run clockwise as one looks at the picture,
    holes the other way.
    """

    id: int
    region: int
    pixels: int
    rings: tuple[NDArray[Any], ...]

    @property
    def box(self) -> tuple[float, float, float, float]:
        """Left, top, right, bottom of the border, in columns and rows."""
        left, top = self.rings[0].min(axis=0).tolist()
        right, bottom = self.rings[0].max(axis=0).tolist()
        return left, top, right, bottom


def trace(
    labels: NDArray[Any],
    *,
    ids: Iterable[int] | None = None,
    holes: bool = True,
    junctions: bool = False,
) -> list[Polygon]:
    """Every 4-connected region of equal ids as a Polygon with int32 corners, in reading order of first pixels.

    labels (h, w), integers. ids: only regions of these ids; None is all. holes: False cuts each region that has
    holes along the top row of every hole, all across it, into pieces without holes, for formats that know none.
    junctions: corners also on straight lines where the neighbour changes, so that neighbours share theirs.
    Polygons fill the map without gap or overlap, so `fill` gives back the same map. Raises InputError for another
    shape or type.
    """
    from pixelwise import kernels

    labels = np.ascontiguousarray(labels)
    if labels.ndim != 2 or labels.dtype.kind not in "ui":
        raise InputError(f"a label map must be (h, w) integers, got {labels.dtype} {labels.shape}")
    if labels.size == 0:
        return []
    regions = np.empty(labels.shape, np.int32 if labels.size < 2**31 else np.int64)
    cut = np.zeros(labels.shape, np.bool_)
    kernels.connected(labels, cut, regions)
    rings = _Rings.of(regions, junctions)
    pieces = regions
    if not holes and len(rings.outer) < len(rings.ends):
        for y, opened in rings.tops_of_holes().items():
            cut[y] = np.isin(regions[y], opened)
        pieces = np.empty_like(regions)
        kernels.connected(regions, cut, pieces)
        rings = _Rings.of(pieces, junctions)
    columns, rows = rings.first_pixels()
    piece_ids, piece_regions = labels[rows, columns].tolist(), regions[rows, columns].tolist()
    wanted = set(piece_ids) if ids is None else set(ids)
    parts = zip(piece_ids, piece_regions, rings.pixels().tolist(), rings.by_piece(), strict=True)
    return [Polygon(*part) for part in parts if part[0] in wanted]


def of_each(
    rule: Callable[..., list[Polygon]], labels: NDArray[Any], classes: LabelSet, codes: NDArray[Any] | None
) -> list[Polygon]:
    """What `rule` (`trace` or `simplify` with its options) makes of the classes of a label map; of overlapping regions
    (codes), of each class by itself and in their order, so that filled they give the label map back."""
    if codes is None:
        return rule(labels, ids=classes.ids)
    found: list[Polygon] = []
    numbers: dict[tuple[int, int], int] = {}
    for index, id in enumerate(classes.ids):
        mask = mask_of(labels, classes, codes, index)
        for polygon in rule(mask.view(np.uint8), ids=(1,)):
            number = numbers.setdefault((id, polygon.region), len(numbers))
            found.append(replace(polygon, id=id, region=number))
    return found


@dataclass(frozen=True)
class _Rings:
    """The answer of kernels.trace_rings, sorted by piece: ring i is corners[starts[i] : ends[i]]; outer (p,):
    where in them the border of each piece stands, followed by its holes."""

    corners: NDArray[np.int32]
    starts: NDArray[np.int64]
    ends: NDArray[np.int64]
    owners: NDArray[np.int64]
    areas: NDArray[np.int64]
    outer: NDArray[np.int64]

    @classmethod
    def of(cls, pieces: NDArray[Any], junctions: bool) -> _Rings:
        from pixelwise import kernels

        corners, ends, owners, areas = kernels.trace_rings(pieces, junctions)
        starts = np.concatenate([[0], ends[:-1]])
        order = np.argsort(owners, kind="stable")
        owners = owners[order]
        outer = np.flatnonzero(np.diff(owners, prepend=-1))
        return cls(corners, starts[order], ends[order], owners, areas[order], outer)

    def first_pixels(self) -> tuple[NDArray[Any], NDArray[Any]]:
        """Columns and rows. A border ends where it began, in the upper left corner of the piece's first pixel."""
        columns, rows = self.corners[self.ends[self.outer] - 1].T
        return columns, rows

    def pixels(self) -> NDArray[np.int64]:
        """How many each piece has."""
        return np.add.reduceat(self.areas, self.outer)

    def by_piece(self) -> Iterator[tuple[NDArray[np.int32], ...]]:
        starts, ends = self.starts.tolist(), self.ends.tolist()
        for first, last in pairwise([*self.outer.tolist(), len(ends)]):
            yield tuple(self.corners[starts[i] : ends[i]] for i in range(first, last))

    def tops_of_holes(self) -> dict[int, list[int]]:
        """Row to the pieces that have a hole whose topmost row it is."""
        tops: dict[int, list[int]] = {}
        for i in np.flatnonzero(self.areas < 0).tolist():
            top = int(self.corners[self.starts[i] : self.ends[i], 1].min())
            tops.setdefault(top, []).append(int(self.owners[i]))
        return tops


MAX_LABELS = 2**30
"""Pixels of a label map that is read whole."""


def fill(polygons: Iterable[Polygon], labels: NDArray[Any]) -> None:
    """Paint polygons into `labels` (h, w), in place and in order: pixels whose centre lies inside get the id.

    Inside means inside an odd number of rings, whichever way they run; parts beyond the map are left away. Raises
    InputError for corners that are no finite numbers, or further away than a thousand million pixels.
    """
    from pixelwise import kernels

    for polygon in polygons:
        corners = np.concatenate(polygon.rings).astype(np.float64)
        ends = np.cumsum([len(ring) for ring in polygon.rings])
        if len(corners) == 0:
            continue
        near = (np.abs(corners) < 1e9).all(axis=1)  # false for NaN as well
        if not near.all():
            raise InputError(
                f"a polygon has a corner at column and row {corners[~near][0].tolist()}, far from any map; "
                "are its coordinates in the map's CRS?"
            )
        kernels.fill_polygon(labels, corners, ends, labels.dtype.type(polygon.id))


def check_size(size_hw: tuple[Any, Any]) -> None:
    """InputError unless these are the height and width of a label map of at most `MAX_LABELS` pixels."""
    h, w = size_hw
    if not (type(h) is type(w) is int and h >= 0 <= w and h * w <= MAX_LABELS):
        raise InputError(
            f"a label map of {h!r:.40} x {w!r:.40} pixels cannot be read; expected whole numbers, and at most "
            f"{MAX_LABELS:,} pixels"
        )


def blank(size_hw: tuple[int, int], classes: LabelSet) -> NDArray[Any]:
    """A label map to paint on: all ignored, or where nothing may be ignored, all of an id that no class has."""
    empty = max(classes.ids) + 1 if classes.ignore_id is None else classes.ignore_id
    return np.full(size_hw, empty, np.min_scalar_type(max(empty, *classes.ids)))


def finished(labels: NDArray[Any], classes: LabelSet) -> NDArray[Any]:
    """What `blank` gave, painted, as classes.dtype. Raises InputError where paint is missing and must not be."""
    if classes.ignore_id is None and (labels > max(classes.ids)).any():
        missing = np.argwhere(labels > max(classes.ids))
        raise InputError(
            f"{len(missing)} pixels belong to no class, the first at {tuple(missing[0].tolist())}, and the LabelSet "
            "has no ignore id for them; give it one"
        )
    return labels.astype(classes.dtype, copy=False)


def simplify(labels: NDArray[Any], tolerance_px: float, *, ids: Iterable[int] | None = None) -> list[Polygon]:
    """As `trace`, with fewer corners: stairs become slopes. Neighbours keep the very same border between them.

    tolerance_px: corners are dropped while the triangle they make with the next ones is smaller than
    tolerance_px squared (Visvalingam's rule, applied to all borders together by shapely.coverage_simplify). The
    edge of the map and points where three regions meet stay. pixels is the count before; corners are float64.
    Raises MissingExtraError without shapely, InputError for a tolerance below 0.
    """
    if not tolerance_px >= 0:
        raise InputError(f"tolerance_px must be 0 or more, got {tolerance_px}")
    try:
        import shapely
    except ModuleNotFoundError as error:
        raise MissingExtraError("simplifying polygons", "raster") from error
    exact = trace(labels, junctions=True)
    shapes = shapely.coverage_simplify(
        [shapely.Polygon(p.rings[0], p.rings[1:]) for p in exact], tolerance_px, simplify_boundary=False
    )
    wanted = {p.id for p in exact} if ids is None else set(ids)
    return [
        replace(
            polygon, rings=tuple(np.asarray(ring.coords)[:-1] for ring in (shape.exterior, *shape.interiors))
        )
        for polygon, shape in zip(exact, shapely.orient_polygons(shapes), strict=True)
        if polygon.id in wanted
    ]

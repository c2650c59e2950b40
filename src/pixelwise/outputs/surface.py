"""Surfaces of the classes of a label volume, in square millimetres, by Crofton's formula.

A straight line enters and leaves a body as often as it meets its surface, so the surface is twice the mean, over all
directions, of how often parallel lines meet it, times the area that each line stands for. Directions are the 13 in
which neighbouring voxels lie, each with the share of the sphere that is nearest to it, so that any spacing and any
angle of the axes is taken as it is; lines are the rows of voxels. Where a class ends at the edge of the scan, the edge
counts. Counting the faces of voxels would be half as much again too large for a ball; a mesh by marching cubes through
the same voxels a twelfth.

Source: Lehmann and Legland, Efficient N-dimensional surface estimation using Crofton formula and run-length encoding
(2012); ITK's label shape statistics do the same. Letters: d h w voxels.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pixelwise.codes import has
from pixelwise.errors import MissingExtraError
from pixelwise.geometry import Geometry
from pixelwise.labels import LabelSet

STEPS = (
    (0, 0, 1), (0, 1, 0), (0, 1, 1), (0, 1, -1),
    *((1, row, column) for row in (-1, 0, 1) for column in (-1, 0, 1)),
)  # fmt: skip
"""To the neighbours (slice, row, column) of a voxel, one of each two that lie opposite."""


class Step(NamedTuple):
    """A step to a neighbour, and the surface in mm2 that one change of class along it stands for."""

    step: tuple[int, int, int]
    mm2: float


def surfaces(
    labels: NDArray[Any], classes: LabelSet, geometry: Geometry, codes: NDArray[Any] | None = None
) -> dict[int, float]:
    """The surface in mm2 of each id that occurs. labels: (d, h, w) unsigned. codes: of overlapping
    regions (`pixelwise.codes`), each of which is measured whole. MissingExtraError without SciPy."""
    steps = steps_of(geometry)
    if codes is None:
        found = _surfaces(labels, steps)
        return found
    whole = {classes.ids[0]: _surfaces((labels == classes.ids[0]).view(np.uint8), steps).get(1, 0.0)}
    for region, id in enumerate(classes.ids[1:]):
        whole[id] = _surfaces(has(codes, region).view(np.uint8), steps).get(1, 0.0)
    return {id: mm2 for id, mm2 in whole.items() if mm2}


def steps_of(geometry: Geometry) -> list[Step]:
    """What each of the 13 steps stands for in a volume that lies so."""
    try:
        from scipy.spatial import SphericalVoronoi
    except ModuleNotFoundError as error:
        raise MissingExtraError("measuring surfaces", "volume") from error
    axes = np.diag(geometry.spacing[::-1]) if geometry.affine is None else geometry.affine[:3, :3]
    ways = np.array([axes @ step[::-1] for step in STEPS])  # mm
    lengths = np.linalg.norm(ways, axis=1)
    points = ways / lengths[:, None]
    shares = SphericalVoronoi(np.concatenate([points, -points])).calculate_areas()[: len(STEPS)] / (2 * np.pi)
    weights = 2 * shares * geometry.voxel_mm3 / lengths
    return [Step(step, float(weight)) for step, weight in zip(STEPS, weights, strict=True)]


def _surfaces(labels: NDArray[Any], steps: list[Step]) -> dict[int, float]:
    """The surface of each id, two slices at a time."""
    outside = int(labels.max()) + 1
    totals = np.zeros(outside + 1)
    empty = np.full((labels.shape[1] + 2, labels.shape[2] + 2), outside, np.min_scalar_type(outside))
    before = empty
    for i in range(len(labels) + 1):
        here = empty
        if i < len(labels):
            here = empty.copy()
            here[1:-1, 1:-1] = labels[i]
        for (slices, row, column), mm2 in steps:
            first, second = _pairs(before if slices else here, here, row, column)
            change = np.flatnonzero(first != second)
            for side in (first, second):
                totals += mm2 * np.bincount(side.ravel()[change], minlength=len(totals))
        before = here
    return {id: float(totals[id]) for id in np.flatnonzero(totals[:-1]).tolist()}


def _pairs(
    first: NDArray[Any], second: NDArray[Any], row: int, column: int
) -> tuple[NDArray[Any], NDArray[Any]]:
    """Both planes where a pixel of the first has one so many rows and columns on in the second."""
    height, width = first.shape
    here = first[max(0, -row) : height - max(0, row), max(0, -column) : width - max(0, column)]
    there = second[max(0, row) : height + min(0, row), max(0, column) : width + min(0, column)]
    return here, there

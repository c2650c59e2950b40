"""Outlines in LabelMe's JSON, a file a picture."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pixelwise.datasets.adopt.shapes import MOST_BYTES, ByName, Outlines, Shape, ring_of
from pixelwise.errors import InputError
from pixelwise.terminal import counted
from pixelwise.untrusted import read


@dataclass(frozen=True)
class _LabelMeShape:
    label: str
    points: Any = None
    shape_type: str = "polygon"


@dataclass(frozen=True)
class _LabelMe:
    shapes: list[_LabelMeShape]
    imagePath: str
    imageHeight: int | None = None
    imageWidth: int | None = None


def from_labelme(files: Sequence[tuple[PurePath, Path]], by_name: ByName) -> Outlines:
    outlines = Outlines(
        f"the outlines in {files[0][0]} and so on" if len(files) > 1 else f"the outlines in {files[0][0]}", []
    )
    others: dict[str, int] = defaultdict(int)
    missing = 0
    content = [
        (name, path, read(path, _LabelMe, str(path), most=MOST_BYTES, unknown="leave"))
        for name, path in files
    ]
    outlines.names = sorted({shape.label for _, _, one in content for shape in one.shapes})
    place_of = {name: place for place, name in enumerate(outlines.names)}
    for name, path, one in content:
        picture = by_name(one.imagePath) or by_name(
            str(name.with_suffix("").name) + PurePath(one.imagePath).suffix
        )
        if picture is None:
            missing += 1
            continue
        shapes = outlines.shapes.setdefault(picture, [])
        if one.imageHeight and one.imageWidth:
            outlines.sizes[picture] = one.imageHeight, one.imageWidth
        for shape in one.shapes:
            ring = _labelme_ring(shape, path)
            if ring is None:
                others[shape.shape_type] += 1
            else:
                shapes.append(Shape(place_of[shape.label], (ring,)))
    if missing:
        outlines.notes.append(f"{counted(missing, 'file')} of outlines for a picture that is not there")
    outlines.notes += [
        f"{counted(n, 'shape')} of the kind {kind!r:.30}, which encloses nothing"
        for kind, n in others.items()
    ]
    return outlines


def _labelme_ring(shape: _LabelMeShape, path: Path) -> NDArray[np.float64] | None:
    points = shape.points
    if not isinstance(points, list) or any(not isinstance(p, list) or len(p) != 2 for p in points):
        raise InputError(f"{path} has points {str(points)[:60]}, expected a list of [x, y]")
    ring = ring_of([number for point in points for number in point], path)
    if shape.shape_type == "rectangle" and len(ring) == 2:
        (a, b), (c, d) = ring
        return np.array([(a, b), (c, b), (c, d), (a, d)])
    if shape.shape_type == "circle" and len(ring) == 2:
        angles = np.linspace(0, 2 * np.pi, 90, endpoint=False)
        radius = float(np.hypot(*(ring[1] - ring[0])))
        return np.asarray(ring[0] + radius * np.stack([np.cos(angles), np.sin(angles)], axis=1))
    return ring if shape.shape_type == "polygon" and len(ring) > 2 else None

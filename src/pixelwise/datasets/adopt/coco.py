"""Outlines in COCO's JSON, with categories of its own."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePath
from typing import Any

from pixelwise.datasets.adopt.names import part_of
from pixelwise.datasets.adopt.shapes import (
    MOST_BYTES,
    ByName,
    Outlines,
    Shape,
    are_traced,
    box,
    boxes_said,
    ring_of,
)
from pixelwise.errors import InputError
from pixelwise.terminal import counted
from pixelwise.untrusted import first_twice, read


@dataclass(frozen=True)
class _Category:
    id: int
    name: str


@dataclass(frozen=True)
class _Picture:
    id: int | str
    file_name: str
    height: int
    width: int


@dataclass(frozen=True)
class _Annotation:
    image_id: int | str
    category_id: int
    segmentation: Any = None
    bbox: Any = None
    iscrowd: int = 0


@dataclass(frozen=True)
class _Coco:
    images: list[_Picture]
    annotations: list[_Annotation]
    categories: list[_Category]


def from_coco(files: Sequence[tuple[PurePath, Path]], by_name: ByName) -> Outlines:
    content = [
        (name, path, read(path, _Coco, str(path), most=MOST_BYTES, unknown="leave")) for name, path in files
    ]  # fmt: skip
    names = list(
        dict.fromkeys(c.name for _, _, one in content for c in sorted(one.categories, key=lambda c: c.id))
    )
    outlines = Outlines(f"the outlines in {', '.join(str(name) for name, _ in files[:3])}", names)
    place_of = {name: place for place, name in enumerate(names)}
    missing = without = boxed = 0
    for name, path, one in content:
        for what, ids in (
            ("category", [c.id for c in one.categories]),
            ("image", [_id(p.id) for p in one.images]),
        ):
            if len(set(ids)) < len(ids):
                raise InputError(
                    f"{path} has the {what} id {first_twice(ids)!r:.60} twice, expected one {what} for each id; "
                    "number them anew in the tool that wrote it"
                )
        known = {_id(picture.id) for picture in one.images}
        categories = {c.id: place_of[c.name] for c in one.categories}
        part = part_of(name) if len(files) > 1 else ""
        pictures: dict[int | str, PurePath] = {}
        for picture in one.images:
            if (found := by_name(picture.file_name)) is None:
                missing += 1
                continue
            pictures[_id(picture.id)] = found
            outlines.shapes.setdefault(found, [])
            outlines.sizes[found] = picture.height, picture.width
            if part:
                outlines.splits[found] = part
        for annotation in one.annotations:
            if _id(annotation.image_id) not in known:
                raise InputError(
                    f"{path} has an annotation of image {annotation.image_id!r:.60}, which it does not list; add the "
                    "image or remove the annotation"
                )
            target = pictures.get(_id(annotation.image_id))
            if target is None:
                continue
            if annotation.category_id not in categories:
                raise InputError(
                    f"{path} has an annotation of category {annotation.category_id}, which it does not name"
                )
            shape = _coco_shape(annotation, categories[annotation.category_id], path)
            boxed += shape is not None and not _outlined(annotation)
            without += shape is None
            if shape is not None:
                outlines.shapes[target].append(shape)
    if are_traced(shape for shapes in outlines.shapes.values() for shape in shapes if not shape.crowd):
        for each, shapes in outlines.shapes.items():
            outlines.shapes[each] = [replace(shape, traced=True) for shape in shapes]
        outlines.said.append(
            "the outlines run through the middles of pixels, which were counted to what they enclose"
        )
    if missing:
        outlines.notes.append(
            f"{counted(missing, 'picture')} that the outlines name: not there, or of a name that several have"
        )
    if without:
        outlines.notes.append(
            f"{counted(without, 'object')} without an outline or a box: their pixels count as what none covers"
        )
    if boxed:
        outlines.said.append(boxes_said(boxed))
    return outlines


def _id(said: int | str) -> int | str:
    """An image's id, a number also where it is written as a text."""
    return int(said) if isinstance(said, str) and re.fullmatch(r"[0-9]{1,18}", said) else said


def _coco_shape(annotation: _Annotation, kind: int, path: Path) -> Shape | None:
    said = _outlined(annotation)
    if not said:
        if not isinstance(annotation.bbox, list) or len(annotation.bbox) != 4:
            return None
        (x, y), (width, height) = ring_of(annotation.bbox, path)
        return Shape(kind, (box(x, y, width, height),), crowd=True)
    if isinstance(said, Mapping):
        return Shape(kind, runs=said, crowd=bool(annotation.iscrowd))
    return Shape(kind, tuple(ring_of(ring, path) for ring in said), crowd=bool(annotation.iscrowd))


def _outlined(annotation: _Annotation) -> Mapping[str, Any] | list[Any]:
    """An object's run lengths, or its rings but empty ones; [] where it has no outline."""
    said: Any = annotation.segmentation or None
    if isinstance(said, Mapping):
        return said
    rings = said if isinstance(said, list) and isinstance(said[0], list) else [said]
    return [ring for ring in rings if ring not in (None, [])]

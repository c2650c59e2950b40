"""Which classes outlines, files of single objects and files of one class each become."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pixelwise.codes import MOST as MOST_REGIONS
from pixelwise.datasets.adopt.items import Item
from pixelwise.datasets.adopt.reading import BACKGROUND, OBJECT, Reading, Wishes, look_at, settle
from pixelwise.datasets.adopt.shapes import Outlines, draw, ignored_of
from pixelwise.datasets.adopt.sources import Series
from pixelwise.datasets.adopt.writing import Adoption
from pixelwise.datasets.values import Census
from pixelwise.errors import InputError
from pixelwise.labels import LabelSet
from pixelwise.terminal import counted

OVERLAP = 0.001
"""Share of the labelled pixels that files of one class each may both claim and still exclude each other."""

FEW = 0.1
"""A kind of label maps that fewer of the pictures have is none: its files are single objects."""


def read_one(reading: Reading, wishes: Wishes, item: Item) -> NDArray[Any]:
    (mask,) = item.masks
    assert mask is not None
    return reading.to_ids(look_at(mask, max(item.page, 0), wishes.map_ids))


def settle_outlines(adoption: Adoption, outlines: Outlines, wishes: Wishes, regions: bool) -> None:
    names = outlines.names
    given = wishes.names or (() if wishes.listed is None else wishes.listed.names)
    if given:
        if len(given) not in (len(names), len(names) + 1):
            raise InputError(
                f"{len(given)} classes are named, and the outlines have {len(names)} ({', '.join(names)[:60]}); "
                "name as many, and the background before them, or none"
            )
        names = [*given][-len(names) :]
    outside = given[0] if len(given) > len(names) else BACKGROUND
    if outside in names:
        outside = f"no {names[0]}" if len(names) == 1 else "nothing"
    if regions and len(names) > MOST_REGIONS:
        raise InputError(f"up to {MOST_REGIONS} classes may overlap, and the outlines have {len(names)}")
    ignored = ignored_of(len(names))
    adoption.labels, adoption.regions = LabelSet.of([outside, *names], ignore_id=ignored), regions
    count = len(names)
    adoption.ids = lambda item: draw(item.shapes or (), item.size_hw, count, codes=regions)[0]
    drawn = [draw(item.shapes or (), item.size_hw, count, codes=False) for item in adoption.items]
    labelled = sum(int(((ids != 0) & (ids != ignored)).sum()) for ids, _ in drawn)
    contested = sum(pixels for _, pixels in drawn)
    shapes = sum(len(item.shapes or ()) for item in adoption.items)
    adoption.said.append(f"drew {counted(shapes, 'outline')}; what none covers became 0 ({outside})")
    if contested and not regions:
        adoption.said.append(
            f"{contested:,} of the outlined pixels ({contested / max(labelled, 1):.2%}) are in outlines of several "
            "classes: the smaller outline lies above (--regions keeps them all)"
        )
    adoption.said += outlines.said
    if not labelled:
        raise InputError("the outlines cover no pixel of the pictures; look at their coordinates")


def are_single_objects(series: Sequence[Series], pictures: int) -> bool:
    """Whether a picture has several files whose names have no rule: each is an object."""
    if len(series) < 3:
        return False
    sizes = sorted(len(one.masks) for one in series)
    return sizes[len(sizes) // 2] <= max(1, FEW * pictures)


def settle_objects(adoption: Adoption, wishes: Wishes) -> None:
    names = wishes.names or (BACKGROUND, OBJECT)
    if len(names) != 2:
        raise InputError(f"files of single objects become two classes, got the names {', '.join(names)[:80]}")
    adoption.labels = LabelSet.of(list(names))
    files = sum(mask is not None for item in adoption.items for mask in item.masks)
    adoption.said.append(
        f"{counted(files, 'file')} of one object each became 1 ({names[1]}); objects that touch are one area"
    )

    def ids(item: Item) -> NDArray[Any]:
        out = np.zeros(item.size_hw, np.uint8)
        for mask in item.masks:
            if mask is not None:
                codes = look_at(mask, 0).codes
                out[codes > codes.max() // 2] = 1
        return out

    adoption.ids = ids


def settle_classes(
    adoption: Adoption,
    series: Sequence[Series],
    censuses: Sequence[Census],
    wishes: Wishes,
    regions: bool,
    choices: str,
) -> None:
    """Files of one class each: exclusive if they hardly overlap, regions if that was said."""
    words = [one.word for one in series]
    if wishes.names and len(wishes.names) not in (len(words), len(words) + 1):
        raise InputError(
            f"{len(wishes.names)} classes are named, and there are files of {len(words)}: {', '.join(words)[:80]}"
        )
    names = [*wishes.names][-len(words) :] if wishes.names else words if len(words) > 1 else [OBJECT]
    outside = wishes.names[0] if len(wishes.names) > len(names) else BACKGROUND
    try:
        readings = [
            settle(census, Wishes(doubt=wishes.doubt)) if census.looks else None for census in censuses
        ]
    except InputError as error:
        raise InputError(choices) from error
    if any(reading is not None and len(reading.labels) > 2 for reading in readings):
        raise InputError(choices)

    def inside(item: Item, place: int) -> NDArray[np.bool_]:
        mask, reading = item.masks[place], readings[place]
        if mask is None or reading is None:
            return np.zeros(item.size_hw, bool)
        there: NDArray[np.bool_] = reading.to_ids(look_at(mask, max(item.page, 0))) == 1
        return there

    def ids(item: Item) -> NDArray[Any]:
        out = np.zeros(item.size_hw, np.uint64 if regions else np.uint16)
        for place in range(len(names)):
            mask = inside(item, place)
            out = np.where(mask, out | np.uint64(1 << place) if regions else place + 1, out).astype(out.dtype)
        return out

    both = labelled = 0
    for item in adoption.items:
        times = np.zeros(item.size_hw, np.uint16)
        for place in range(len(names)):
            times += inside(item, place)
        both, labelled = both + int((times > 1).sum()), labelled + int((times > 0).sum())
    if both > OVERLAP * labelled and not regions:
        raise InputError(
            f"{choices}; if they are classes that overlap ({both / max(labelled, 1):.1%} of the labelled pixels are in "
            "several), say --regions"
        )
    adoption.labels, adoption.regions, adoption.ids = LabelSet.of([outside, *names]), regions, ids
    missing = sum(mask is None for item in adoption.items for mask in item.masks)
    listed = ", ".join(f"{name} (such as {one.example})" for name, one in zip(names, series, strict=True))
    adoption.said.append(f"each class has files of its own: {listed}; what none covers is {outside}")
    if missing:
        adoption.said.append(f"{counted(missing, 'file')} of a class not there: the picture has none of it")
    if both and not regions:
        adoption.said.append(
            f"{both / labelled:.3%} of the labelled pixels are in files of several classes: the last counts"
        )

"""Cityscapes: streets of fifty cities.

The Cityscapes Dataset for Semantic Urban Scene Understanding. Cordts et al., 2016.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np

from pixelwise.datasets.sample import Ids, Pair, read_label_file
from pixelwise.errors import InputError
from pixelwise.labels import CITYSCAPES


def cityscapes_pairs(root: Path) -> list[Pair]:
    """Cityscapes: leftImg8bit/SPLIT/CITY/*_leftImg8bit.png beside gtFine/SPLIT/CITY/*_gtFine_labelIds.png."""
    photos = sorted((root / "leftImg8bit").glob("*/*/*_leftImg8bit.png"))
    if not photos:
        raise InputError(
            f"{root} has no leftImg8bit/SPLIT/CITY/*_leftImg8bit.png, so it is not in Cityscapes' layout"
        )
    pairs = []
    for photo in photos:
        split, city, name = photo.parts[-3], photo.parts[-2], photo.name.removesuffix("_leftImg8bit.png")
        mask = root / "gtFine" / split / city / f"{name}_gtFine_labelIds.png"
        ids = partial(_scored, mask)
        pairs.append(
            Pair(name, split, photo, mask, ids) if mask.is_file() else Pair(name, split, photo, None)
        )
    return pairs


def _scored(path: Path) -> Ids:
    """Cityscapes' ids with those that are not scored as 255: void by its definition."""
    ids = read_label_file(path)
    return np.where(np.isin(ids, CITYSCAPES.ids), ids, np.uint8(255))

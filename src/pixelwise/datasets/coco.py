"""COCO: pictures, and a JSON file with the outlines of objects, from which label maps of VOC's classes are drawn.

Microsoft COCO: Common Objects in Context. Lin et al., 2014. The rules are those of torchvision's reference
scripts, so that its models can be scored as they were: 20 of COCO's 80 categories, in VOC's order; everything
else, crowds of other things included, is background; where two objects overlap, even of one class, the pixel is
ignored; a training picture needs more than 1000 pixels of annotated area.
"""

from __future__ import annotations

import json
import warnings
from collections import defaultdict
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pixelwise.datasets.sample import Pair
from pixelwise.errors import InputError, MissingExtraError

COCO_IDS = (5, 2, 16, 9, 44, 6, 3, 17, 62, 21, 67, 18, 19, 4, 1, 64, 20, 63, 7, 72)
"""COCO's category ids of VOC's classes 1 to 20: airplane, bicycle, bird, ..."""

LEAST_TRAINING_AREA = 1000
"""Pixels; a training picture with no more of VOC's classes is left out."""

Shape = tuple[int, Any]
"""(class, outline): polygons, or run lengths as a dict, as COCO writes them."""


def coco_pairs(root: Path) -> list[Pair]:
    """annotations/instances_SPLIT.json beside SPLIT/ or images/SPLIT/; val2017 is the split val."""
    files = sorted((root / "annotations").glob("instances_*.json"))
    if not files:
        raise InputError(f"{root} has no annotations/instances_*.json, so it is not in COCO's layout")
    by_split = {file.stem.removeprefix("instances_").rstrip("0123456789"): file for file in files}
    if len(by_split) < len(files):
        raise InputError(
            f"{root}/annotations holds several years of one split: {', '.join(f.name for f in files)}; "
            "move all but one away"
        )
    return [pair for split, file in by_split.items() for pair in _pairs_of(root, split, file)]


def _pairs_of(root: Path, split: str, file: Path) -> list[Pair]:
    part = file.stem.removeprefix("instances_")
    folders = [root / part, root / "images" / part, root / "images"]
    folder = next((f for f in folders if f.is_dir()), folders[0])
    try:
        content = json.loads(file.read_bytes())
        categories = {c["id"]: c["name"] for c in content["categories"]}
        shapes: dict[int, list[Shape]] = defaultdict(list)
        area: dict[int, float] = defaultdict(float)
        for thing in content["annotations"]:
            if thing["category_id"] in COCO_IDS:
                shape = (COCO_IDS.index(thing["category_id"]) + 1, thing["segmentation"])
                shapes[thing["image_id"]].append(shape)
                area[thing["image_id"]] += thing["area"]
        records = sorted(
            (r["id"], Path(r["file_name"]).name, r["height"], r["width"]) for r in content["images"]
        )
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{file} is not a file of COCO's instances ({type(error).__name__}: {error})"
        ) from error
    if categories.get(1) != "person" or categories.get(72) != "tv":
        raise InputError(
            f"{file} has categories of its own ({', '.join(list(categories.values())[:3])}, ...), expected COCO's 80; "
            "draw its label maps into masks/ and use the layout `folder`"
        )
    pairs = []
    for number, name, height, width in records:
        if split == "train" and area[number] <= LEAST_TRAINING_AREA:
            continue
        photo = folder / name
        ids = partial(draw, tuple(shapes[number]), height, width)
        pairs.append(Pair(photo.stem, split, photo if photo.is_file() else None, file, ids))
    return pairs


def draw(shapes: tuple[Shape, ...], height: int, width: int) -> NDArray[np.uint8]:
    """The label map (h, w) of outlines: their class, 0 outside, 255 where two of them overlap."""
    ids = np.zeros((height, width), np.uint8)
    covered = np.zeros((height, width), bool)
    for class_id, outline in shapes:
        inside = decode(outline, height, width)
        ids[inside] = np.where(covered[inside], np.uint8(255), np.uint8(class_id))
        covered |= inside
    return ids


def decode(outline: Any, height: int, width: int) -> NDArray[np.bool_]:
    """Where an outline is, (h, w): a list of polygons [x, y, x, y, ...], or run lengths, compressed or not."""
    try:
        from pycocotools import mask as run_lengths
    except ModuleNotFoundError as error:
        raise MissingExtraError("drawing COCO's outlines", "coco") from error
    if not outline:
        return np.zeros((height, width), bool)
    if isinstance(outline, list):
        encoded = run_lengths.merge(run_lengths.frPyObjects(outline, height, width))
    elif isinstance(outline["counts"], list):
        encoded = run_lengths.frPyObjects(outline, height, width)
    else:
        encoded = outline
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # its arrays are of NumPy 1's kind
        inside: NDArray[np.bool_] = run_lengths.decode(encoded).astype(bool)
    return inside

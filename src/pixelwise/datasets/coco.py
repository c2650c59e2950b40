"""COCO: pictures, and a JSON file with the outlines of objects, from which label maps of VOC's classes are drawn.

Microsoft COCO: Common Objects in Context. Lin et al., 2014. The rules are those of torchvision's reference
scripts, so that its models can be scored as they were: 20 of COCO's 80 categories, in VOC's order; everything
else, crowds of other things included, is background; where two objects overlap, even of one class, the pixel is
ignored; a training picture needs more than 1000 pixels of annotated area.
"""

from __future__ import annotations

import warnings
from collections import defaultdict
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pixelwise.datasets.folder import init_command
from pixelwise.datasets.sample import Pair
from pixelwise.errors import InputError, MissingExtraError
from pixelwise.images import MAX_PIXELS
from pixelwise.outputs.coco import decode_rle
from pixelwise.untrusted import read

COCO_IDS = (5, 2, 16, 9, 44, 6, 3, 17, 62, 21, 67, 18, 19, 4, 1, 64, 20, 63, 7, 72)
"""COCO's category ids of VOC's classes 1 to 20: airplane, bicycle, bird, ..."""

LEAST_TRAINING_AREA = 1000
"""Pixels; a training picture with no more of VOC's classes is left out."""

Shape = tuple[int, Any, Any]
"""(class, outline, annotation id): polygons, or run lengths as a dict, as COCO writes them."""


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
        content = read(file, dict[str, Any], "it", most=2**31)
        categories = {c["id"]: c["name"] for c in content["categories"]}
        shapes: dict[int, list[Shape]] = defaultdict(list)
        area: dict[int, float] = defaultdict(float)
        for thing in content["annotations"]:
            if thing["category_id"] in COCO_IDS:
                shape = (COCO_IDS.index(thing["category_id"]) + 1, thing["segmentation"], thing.get("id"))
                shapes[thing["image_id"]].append(shape)
                area[thing["image_id"]] += thing["area"]
        records = sorted(
            (r["id"], Path(r["file_name"]).name, r["height"], r["width"]) for r in content["images"]
        )
    except (ValueError, LookupError, TypeError, AttributeError, OverflowError) as error:
        raise InputError(
            f"{file} is not a file of COCO's instances ({type(error).__name__}: {error})"
        ) from error
    if categories.get(1) != "person" or categories.get(72) != "tv":
        raise InputError(
            f"{file} has categories of its own ({', '.join(map(str, list(categories.values())[:3]))}, ...), "
            f"expected COCO's 80; make a data set of it: {init_command(root)}"
        )
    pairs = []
    for number, name, height, width in records:
        if type(number) not in (int, str):
            raise InputError(f"{file} has a picture with the id {number!r}, expected a number")
        if not (type(height) is type(width) is int and height > 0 < width and height * width <= MAX_PIXELS):
            raise InputError(
                f"{file} says that picture {number!r} has {height!r} x {width!r} pixels; expected whole numbers from 1 "
                f"up, and at most {MAX_PIXELS} pixels"
            )
        if split == "train" and area[number] <= LEAST_TRAINING_AREA:
            continue
        photo = folder / name
        ids = partial(draw, tuple(shapes[number]), height, width, file)
        pairs.append(Pair(photo.stem, split, photo if photo.is_file() else None, file, ids))
    return pairs


def draw(shapes: tuple[Shape, ...], height: int, width: int, file: object) -> NDArray[np.uint8]:
    """The label map (h, w) of outlines: their class, 0 outside, 255 where two of them overlap. file: for errors."""
    ids = np.zeros((height, width), np.uint8)
    covered = np.zeros((height, width), bool)
    for class_id, outline, number in shapes:
        try:
            inside = decode(outline, height, width)
        except InputError as error:
            raise InputError(f"{file}, annotation {number!r}: {error}") from error
        ids[inside] = np.where(covered[inside], np.uint8(255), np.uint8(class_id))
        covered |= inside
    return ids


def decode(outline: Any, height: int, width: int) -> NDArray[np.bool_]:
    """Where an outline is, (h, w): a list of polygons [x, y, x, y, ...], or run lengths, compressed or not.

    Raises InputError for what is neither, and for numbers that do not belong to a picture of that size: pycocotools
    takes memory by them, or dies.
    """
    if isinstance(outline, dict):
        if outline.get("size") != [height, width] or not isinstance(outline.get("counts"), (list, str)):
            raise InputError(
                f"expected run lengths of the size [{height}, {width}], got a size of {str(outline.get('size'))[:40]}"
            )
        try:
            return decode_rle(outline)
        except (TypeError, ValueError, OverflowError) as error:
            raise InputError(f"its run lengths cannot be read ({error})") from error
    for polygon in outline if isinstance(outline, list) else [outline]:
        _check_polygon(polygon, height, width)
    try:
        from pycocotools import mask as run_lengths
    except ModuleNotFoundError as error:
        raise MissingExtraError("drawing COCO's outlines", "coco") from error
    outline = [polygon for polygon in outline if len(polygon) >= 6]  # a point or a line covers nothing
    if not outline:
        return np.zeros((height, width), bool)
    encoded = run_lengths.merge(run_lengths.frPyObjects(outline, height, width))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # its arrays are of NumPy 1's kind
        inside: NDArray[np.bool_] = run_lengths.decode(encoded).astype(bool)
    return inside


def _check_polygon(polygon: Any, height: int, width: int) -> None:
    """Raise InputError unless it is [x, y, x, y, x, y, ...] with numbers no further out than the picture is large."""
    if not isinstance(polygon, list) or len(polygon) % 2:
        raise InputError(f"expected polygons [x, y, x, y, x, y, ...], got {str(polygon)[:60]}")
    for i, number in enumerate(polygon):
        side = (width, height)[i % 2]
        if type(number) not in (int, float) or not -side <= number <= 2 * side:  # false for NaN as well
            raise InputError(
                f"a polygon has {str(number)[:40]} at place {i}, expected a number near the picture's {width}x{height} "
                "pixels"
            )

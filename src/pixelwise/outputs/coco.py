"""COCO's JSON: run lengths equal to those of pycocotools, byte for byte, and polygons; both read back exactly.

Run lengths count pixels down the columns, in turn outside and inside, beginning outside. Compressed, each count
after the third is replaced by its difference to the one two before, and written in digits of five bits, lowest
first, bit 32 saying that more follow and 48 added to make letters.
Source: the annotation format of Microsoft COCO (Lin et al., 2014) and its API.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from pixelwise.errors import InputError
from pixelwise.labels import LabelSet
from pixelwise.outputs.areas import mask_of, present
from pixelwise.outputs.polygons import Polygon, blank, check_size, fill, finished, of_each, trace

Kind = Literal["rle", "counts", "polygons"]


def to_coco(
    labels: NDArray[Any],
    classes: LabelSet,
    *,
    kind: Kind = "rle",
    image_id: int = 1,
    file_name: str = "",
    codes: NDArray[Any] | None = None,
) -> dict[str, Any]:
    """One picture in COCO's layout: images, categories, annotations; plain values for JSON.

    kind: "rle", an annotation for each class that occurs, compressed run lengths (as COCO-Stuff has it);
    "counts", the same, not compressed; "polygons", an annotation for each 4-connected region, made of polygons
    along pixel edges, which COCO joins; regions with holes are cut into pieces without, since COCO knows no holes.
    Categories carry the file ids of `classes` and their colours. bbox is [left, top, width, height]; area counts
    pixels; iscrowd is 0. Ignored pixels are in no annotation. codes: of overlapping regions (`pixelwise.codes`),
    each of which is then annotated whole, in the order of the classes.
    """
    if kind not in ("rle", "counts", "polygons"):
        raise InputError(f"kind must be 'rle', 'counts' or 'polygons', got {kind!r}")
    h, w = labels.shape
    present(labels, classes)
    if kind == "polygons":
        found = _by_polygons(of_each(partial(trace, holes=False), labels, classes, codes))
    elif codes is None:
        found = _by_runs(labels, classes.ignore_id, kind == "rle")
    else:
        found = []
        for index, id in enumerate(classes.ids):
            mask = mask_of(labels, classes, codes, index).view(np.uint8)
            found += [one | {"category_id": id} for one in _by_runs(mask, 0, kind == "rle")]
    return {
        "images": [{"id": image_id, "width": w, "height": h, "file_name": file_name}],
        "categories": [
            {"id": id, "name": name, "supercategory": "", "color": list(color)}
            for id, name, color in zip(classes.ids, classes.names, classes.colors, strict=True)
        ],
        "annotations": [
            {"id": number, "image_id": image_id, "iscrowd": 0, **annotation}
            for number, annotation in enumerate(found, 1)
        ],
    }


def _by_runs(labels: NDArray[Any], left_out: int | None, compressed: bool) -> list[dict[str, Any]]:
    """All ids but one from one pass down the columns."""
    h = labels.shape[0]
    flat = labels.ravel(order="F")
    if not flat.size:
        return []
    starts = np.flatnonzero(np.concatenate([[True], flat[1:] != flat[:-1]]))
    ends = np.append(starts[1:], flat.size)
    order = np.argsort(flat[starts], kind="stable")
    ids, firsts = np.unique(flat[starts][order], return_index=True)
    annotations = []
    for id, mine in zip(ids.tolist(), np.split(order, firsts[1:]), strict=True):
        if id == left_out:
            continue
        first, end = starts[mine], ends[mine]
        counts = _counts(first, end, flat.size)
        rows, last_rows = first % h, (end - 1) % h
        left, right = int(first[0] // h), int((end[-1] - 1) // h)
        whole = end - first > h - rows  # a run that goes on in the next column touches both edges
        top = 0 if whole.any() else int(rows.min())
        bottom = h - 1 if whole.any() else int(last_rows.max())
        annotations.append(
            {
                "category_id": id,
                "segmentation": {
                    "size": list(labels.shape),
                    "counts": compress(counts) if compressed else counts.tolist(),
                },
                "area": int((end - first).sum()),
                "bbox": [left, top, right - left + 1, bottom - top + 1],
            }
        )
    return annotations


def _by_polygons(found: list[Polygon]) -> list[dict[str, Any]]:
    regions: dict[int, list[Polygon]] = {}
    for piece in found:
        regions.setdefault(piece.region, []).append(piece)
    annotations = []
    for pieces in regions.values():
        boxes = np.array([piece.box for piece in pieces])
        left, top = boxes[:, :2].min(axis=0).tolist()
        right, bottom = boxes[:, 2:].max(axis=0).tolist()
        annotations.append(
            {
                "category_id": pieces[0].id,
                "segmentation": [piece.rings[0].ravel().tolist() for piece in pieces],
                "area": sum(piece.pixels for piece in pieces),
                "bbox": [left, top, right - left, bottom - top],
            }
        )
    return annotations


def encode_rle(mask: NDArray[np.bool_]) -> dict[str, Any]:
    """A mask (h, w) as {"size": [h, w], "counts": text}, the text of pycocotools.mask.encode as str."""
    flat = np.asarray(mask, bool).ravel(order="F")
    changes = np.flatnonzero(np.diff(flat, prepend=False, append=False))
    return {"size": list(mask.shape), "counts": compress(_counts(changes[::2], changes[1::2], flat.size))}


def decode_rle(rle: Mapping[str, Any]) -> NDArray[np.bool_]:
    """The mask (h, w) of run lengths, compressed (str, bytes) or not (list). Raises InputError if they do not fit."""
    h, w = rle["size"]
    counts = rle["counts"]
    counts = decompress(counts) if isinstance(counts, (str, bytes)) else np.asarray(counts, np.int64)
    if (counts < 0).any() or counts.sum() != h * w:
        raise InputError(
            f"run lengths must be 0 or more and add up to {h} x {w} = {h * w}, got a sum of {counts.sum()}"
        )
    inside = np.arange(len(counts)) % 2 == 1
    mask: NDArray[np.bool_] = np.repeat(inside, counts).reshape(w, h).T
    return mask


def _counts(starts: NDArray[Any], ends: NDArray[Any], size: int) -> NDArray[np.int64]:
    """Runs inside, [start, end) in order, to the lengths outside, inside, outside, ..., none for nothing at the end."""
    edges = np.stack([starts, ends], axis=1).ravel()
    if len(edges) == 0 or edges[-1] < size:
        edges = np.append(edges, size)
    return np.diff(edges, prepend=0).astype(np.int64)


def compress(counts: NDArray[np.int64]) -> str:
    """Run lengths as COCO's text."""
    values = counts.copy()
    values[3:] -= counts[1:-2]
    digits: list[NDArray[np.int64]] = []
    more: list[NDArray[np.bool_]] = []
    while not more or more[-1].any():
        digit = values & 31
        values >>= 5
        digits.append(digit)
        more.append(np.where(digit & 16, values != -1, values != 0))
    letters = np.stack(digits, axis=1) + 32 * np.stack(more, axis=1) + 48  # (n, digits of the longest)
    used = np.stack([np.ones(len(counts), bool), *more[:-1]], axis=1)
    return str(letters[used].astype(np.uint8).tobytes(), "ascii")


def decompress(text: str | bytes) -> NDArray[np.int64]:
    """COCO's text as run lengths. Raises InputError for letters that are none of it."""
    data = text.encode("latin-1", "replace") if isinstance(text, str) else text
    letters = np.frombuffer(data, np.uint8).astype(np.int64) - 48
    if ((letters < 0) | (letters > 63)).any() or (letters.size and letters[-1] & 32):
        raise InputError(
            "compressed run lengths hold letters that COCO's text does not have, or are cut short"
        )
    last = (letters & 32) == 0
    number = np.cumsum(last) - last  # which value each letter is a digit of
    starts = np.flatnonzero(np.diff(number, prepend=-1))
    place = 5 * (np.arange(len(letters)) - starts[number])
    if letters.size == 0:
        return np.zeros(0, np.int64)
    values = np.add.reduceat((letters & 31) << place, starts)
    values -= np.where(letters[last] & 16, np.int64(32) << place[last], 0)
    values[1::2] = np.cumsum(values[1::2])
    values[2::2] = np.cumsum(values[2::2])
    return values


def labels_from_coco(
    content: Mapping[str, Any], classes: LabelSet, *, image_id: int | None = None
) -> NDArray[Any]:
    """The label map (h, w) of one picture of a COCO file, of type classes.dtype, later annotations over earlier.

    content: the parsed JSON, as `to_coco` returns it. Categories are matched to `classes` by name. image_id may
    be left out where there is one picture. Pixels in no annotation get the ignore id. Run lengths, and polygons
    along pixel edges, come back exactly; of other polygons the pixels whose centre lies inside.

    Raises InputError for what is no COCO file, and where pixels are left over and `classes` has no ignore id;
    UnknownNameError for a category that is none of the classes.
    """
    try:
        images = {image["id"]: image for image in content["images"]}
        categories = {category["id"]: category["name"] for category in content["categories"]}
        if image_id is None and len(images) == 1:
            image_id = next(iter(images))
        if image_id not in images:
            known = ", ".join(str(number) for number in list(images)[:20])
            raise InputError(f"image_id must name one of the pictures {known}, got {image_id}")
        size_hw = images[image_id]["height"], images[image_id]["width"]
        check_size(size_hw)
        labels = blank(size_hw, classes)
        for annotation in content["annotations"]:
            if annotation["image_id"] != image_id:
                continue
            id = classes.ids[classes.index(categories[annotation["category_id"]])]
            outline = annotation["segmentation"]
            if isinstance(outline, Mapping):
                if tuple(outline["size"]) != size_hw:
                    raise InputError(
                        f"run lengths are of the size {outline['size']!r:.60}, the picture of {size_hw}"
                    )
                labels[decode_rle(outline)] = id
            else:
                flats = [np.asarray(flat, np.float64) for flat in outline]
                if any(flat.ndim != 1 or not np.isfinite(flat).all() for flat in flats):
                    raise InputError("a polygon should be [x, y, x, y, ...], finite numbers in one list")
                rings = [flat.reshape(-1, 2) for flat in flats]
                fill([Polygon(id, 0, 0, (ring,)) for ring in rings], labels)
    except InputError:
        raise
    except (AttributeError, LookupError, TypeError, ValueError, ArithmeticError, RecursionError) as error:
        raise InputError(
            f"this is not a file of COCO's annotations ({type(error).__name__}: {error})"
        ) from error
    return finished(labels, classes)

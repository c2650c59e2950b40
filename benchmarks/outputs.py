"""Label maps to other trades' formats: polygons against GDAL's, COCO's run lengths against pycocotools', areas
against NumPy's bincount.

Maps of 2048 x 2048 and 21 classes: regions (smoothed noise) and single pixels (noise), the worst case. Each
contender's answer is checked against ours first.
"""

from __future__ import annotations

import argparse

import numpy as np
import shapely
from numpy.typing import NDArray
from pycocotools import mask as run_lengths
from rasterio import features
from scipy import ndimage

from pixelwise import LabelSet
from pixelwise.outputs.areas import count_ids
from pixelwise.outputs.coco import to_coco
from pixelwise.outputs.polygons import trace
from timing import alternately, record

CLASSES = LabelSet.of([f"class {i}" for i in range(21)])


def label_map(kind: str, side: int) -> NDArray[np.uint8]:
    rng = np.random.default_rng(0)
    if kind == "single pixels":
        return rng.integers(0, 21, (side, side), np.uint8)
    smooth = ndimage.gaussian_filter(rng.normal(size=(side, side)), 12)
    return np.digitize(smooth, np.quantile(smooth, np.linspace(0, 1, 22)[1:-1])).astype(np.uint8)


def compare(kind: str, side: int, repeats: int) -> None:
    labels = label_map(kind, side)

    def gdal() -> list[object]:
        return list(features.shapes(labels, connectivity=4))

    def pycocotools() -> list[object]:
        return [run_lengths.encode(np.asfortranarray((labels == id).view(np.uint8))) for id in CLASSES.ids]

    def ours() -> list[object]:
        return to_coco(labels, CLASSES)["annotations"]

    areas = sorted(int(shapely.geometry.shape(shape).area) for shape, _ in gdal())
    assert areas == sorted(polygon.pixels for polygon in trace(labels))
    times = alternately({"rasterio.features.shapes": gdal, "pixelwise": lambda: trace(labels)}, repeats)
    record(
        "outputs",
        f"polygons, {kind}",
        "rasterio.features.shapes",
        "pixelwise",
        times,
        side=side,
        polygons=len(areas),
    )

    texts = [rle["counts"].decode() for rle in pycocotools()]
    assert [annotation["segmentation"]["counts"] for annotation in ours()] == texts
    times = alternately({"pycocotools": pycocotools, "pixelwise": ours}, repeats)
    record("outputs", f"COCO run lengths, {kind}", "pycocotools", "pixelwise", times, side=side)

    assert list(count_ids(labels).values()) == np.bincount(labels.ravel()).tolist()
    contenders = {"np.bincount": lambda: np.bincount(labels.ravel()), "pixelwise": lambda: count_ids(labels)}
    times = alternately(contenders, repeats)
    record("outputs", f"areas, {kind}", "np.bincount", "pixelwise", times, side=side)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--side", type=int, default=2048)
    parser.add_argument("--repeats", type=int, default=7)
    arguments = parser.parse_args()
    for kind in ("regions", "single pixels"):
        compare(kind, arguments.side, arguments.repeats)

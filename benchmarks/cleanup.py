"""Cleaning up label maps: `inference.cleanup` against GDAL's sieve and against recipes with scipy.

Maps of 4096 x 4096 pixels and 21 classes: blobs (the largest of 21 smoothed fields of noise), and the same with a
twentieth of the pixels set to a class by chance. The peers do a comparable job, not the same one. GDAL's sieve
(rasterio.features.sieve, compiled, the whole map at once) gives a region to the largest neighbour, not to that with
the longest common border, not the smallest first, and leaves small regions that have no neighbour large enough (all
of them in pure noise). The scipy recipe is what one finds in notebooks: per class ndimage.label and bincount (as
skimage.morphology.remove_small_objects does inside), then each removed pixel takes the class of the nearest pixel
that was not (distance_transform_edt), which splits regions among neighbours. That all three leave the pixels of
regions that are large enough is checked; regions_left says what came out. Holes of one class are the same as
binary_fill_holes finds, which is checked too; ours also changes the map.
"""

from __future__ import annotations

import argparse

import numpy as np
from numpy.typing import NDArray
from rasterio import features
from scipy import ndimage

from pixelwise.inference.cleanup import Cleanup, clean
from pixelwise.kernels import connected
from timing import alternately, record

CLASSES = 21


def blobs(side: int) -> NDArray[np.uint8]:
    rng = np.random.default_rng(0)
    labels, highest = np.zeros((side, side), np.uint8), np.full((side, side), -np.inf, np.float32)
    for c in range(CLASSES):
        field = ndimage.gaussian_filter(rng.standard_normal((side, side), np.float32), 8)
        labels[field > highest] = c
        np.maximum(highest, field, out=highest)
    return labels


def too_small(labels: NDArray[np.uint8], min_area: int) -> NDArray[np.bool_]:
    small = np.zeros(labels.shape, np.bool_)
    for c in range(CLASSES):
        regions, _ = ndimage.label(labels == c)
        few = np.bincount(regions.ravel()) < min_area
        few[0] = False
        small |= few[regions]
    return small


def nearest(labels: NDArray[np.uint8], min_area: int) -> NDArray[np.uint8]:
    small = too_small(labels, min_area)
    rows, columns = ndimage.distance_transform_edt(small, return_distances=False, return_indices=True)
    return labels[rows, columns]


def compare(kind: str, labels: NDArray[np.uint8], min_area: int, repeats: int) -> None:
    contenders = {
        "rasterio.features.sieve": lambda: features.sieve(labels, min_area, connectivity=4),
        "scipy.ndimage, nearest pixel": lambda: nearest(labels, min_area),
        "pixelwise": lambda: clean(labels, Cleanup(min_area)),
    }
    answers = {name: contender() for name, contender in contenders.items()}
    large = ~too_small(labels, min_area)
    assert all((answer[large] == labels[large]).all() for answer in answers.values())
    left = {name: count(answer) for name, answer in answers.items()}
    times = alternately(contenders, repeats, warmup=0)
    for peer in [name for name in contenders if name != "pixelwise"]:
        record(
            "cleanup", f"small regions, {kind}", peer, "pixelwise", times,
            size_hw=labels.shape, classes=CLASSES, regions=count(labels), min_area=min_area,
            regions_left=left,
            equal_pixels=float((answers[peer] == answers["pixelwise"]).mean()),
        )  # fmt: skip


def count(labels: NDArray[np.uint8]) -> int:
    return connected(labels, np.zeros(labels.shape, np.bool_), np.empty(labels.shape, np.int32))


def compare_holes(labels: NDArray[np.uint8], c: int, repeats: int) -> None:
    contenders = {
        "scipy.ndimage.binary_fill_holes": lambda: ndimage.binary_fill_holes(labels == c),
        "pixelwise": lambda: clean(labels, Cleanup(fill_holes=(c,))),
    }
    theirs, ours = (contender() for contender in contenders.values())
    assert (theirs == (ours == c)).all()
    times = alternately(contenders, repeats, warmup=0)
    record(
        "cleanup", "holes of one class, blobs", "scipy.ndimage.binary_fill_holes", "pixelwise", times,
        size_hw=labels.shape, classes=CLASSES, filled_pixels=int((ours != labels).sum()),
    )  # fmt: skip


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--side", type=int, default=4096)
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()
    blob_like = blobs(arguments.side)
    compare("blobs", blob_like, 64, arguments.repeats)
    compare_holes(blob_like, 0, arguments.repeats)
    rng = np.random.default_rng(0)
    speckles = rng.integers(0, CLASSES, blob_like.shape, np.uint8)
    compare(
        "speckled blobs",
        np.where(rng.random(blob_like.shape) < 0.05, speckles, blob_like),
        64,
        arguments.repeats,
    )

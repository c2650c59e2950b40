"""What the compiled loops of `pixelwise.kernels` are to give, said slowly in NumPy; each function compares one of them.

All go through the functions that users call, after numba was imported, so that these take the compiled path. Letters: k
classes, h w pixels.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

Labels = NDArray[np.uint8]


def _drawn(h: int = 61, w: int = 83, k: int = 4) -> tuple[NDArray[np.float32], Labels]:
    """Logits (k, h, w) of wavy regions, and their classes (h, w)."""
    y, x = np.mgrid[:h, :w]
    waves = [np.sin(x / (3 + c) + c) + np.sin(y / (4 + c) - c) + np.sin((x + y) / (9 - c)) for c in range(k)]
    logits = np.stack(waves).astype(np.float32)
    return logits, logits.argmax(axis=0).astype(np.uint8)


def labels_and_confidence() -> str | None:
    """The class of a pixel is the largest of the interpolated logits, its confidence their softmax."""
    from pixelwise.inference.decide import decide
    from pixelwise.inference.planes import enlarged

    coarse = _drawn(13, 17)[0]
    for aligned in (False, True):
        full = enlarged(coarse, (61, 83), align_corners=aligned).astype(np.float64)
        first, second = np.sort(full, axis=0)[:-3:-1]
        share = 1 / np.exp(full - first).sum(axis=0)
        for wants in (False, True):
            labels, confidence = decide(coarse, (61, 83), align_corners=aligned, confidence=wants)
            different = int(((labels != full.argmax(axis=0)) & (first - second > 1e-4)).sum())
            if different:
                return f"{different} of {labels.size} pixels have another class"
            far = 0.0 if confidence is None else float(np.abs(confidence - share).max())
            if not far <= 1e-4:  # NaN is not
                return f"the confidence differs by {far:.2g}"
    return None


def counts_of_pairs() -> str | None:
    """A confusion matrix counts how often each true class was given each class."""
    from pixelwise.metrics.confusion import ConfusionMatrix

    truth, answer = _drawn()[1], _drawn()[1][:, ::-1].copy()
    truth[::7] = 255
    expected = np.zeros((4, 4), np.int64)
    np.add.at(expected, (truth[truth < 4], answer[truth < 4]), 1)
    return _unequal(ConfusionMatrix(4).update(answer, truth).matrix, expected)


def tiles() -> str | None:
    """A network that looks at single pixels gives the same classes whether the picture is cut into tiles or not."""
    from pixelwise.inference.tiling import Tiling, collect, stitch

    logits, expected = _drawn()
    rows = np.ascontiguousarray(logits.transpose(1, 2, 0))
    tiling = Tiling(tile=24, overlap=9)
    bands = stitch(
        lambda top, bottom: rows[top:bottom], expected.shape, lambda images: images.copy(), tiling=tiling
    )
    return _unequal(collect(bands, expected.shape)[0], expected)


def polygons() -> str | None:
    """There is a polygon for each connected region, as large as it, and filled again they are the label map."""
    from pixelwise.outputs.polygons import fill, trace

    labels = _drawn()[1]
    regions = _connected(labels)
    found = trace(labels)
    sizes = np.unique(regions, return_counts=True)[1]
    if wrong := _unequal(np.sort([polygon.pixels for polygon in found]), np.sort(sizes)):
        return wrong
    again = np.full_like(labels, 255)
    fill(found, again)
    return _unequal(again, labels)


def clean_up() -> str | None:
    """A hole is what cannot be reached from the picture's edge; of small regions none is left; of one class one is."""
    from pixelwise.inference.cleanup import Cleanup, clean

    labels = (_drawn(41, 53)[1] == 1).astype(np.uint8)
    labels[5:20, 5:30], labels[9:15, 9:22], labels[11, 12] = 1, 0, 1
    outside = np.pad(labels == 0, 1, constant_values=True)
    reached = np.zeros_like(outside)
    reached[0] = True
    while not np.array_equal(grown := _grown(reached) & outside, reached):
        reached = grown
    if wrong := _unequal(clean(labels, Cleanup(fill_holes=(1,))), (~reached[1:-1, 1:-1]).astype(np.uint8)):
        return wrong
    sizes = np.unique(_connected(clean(labels, Cleanup(min_area=20))), return_counts=True)[1]
    if sizes.min() < 20:
        return f"a region of {sizes.min()} pixels is left, the least allowed is 20"
    kept = clean(labels, Cleanup(largest_only=(1,)))
    pieces = len(np.unique(_connected(kept)[kept == 1]))
    return None if pieces == 1 else f"{pieces} regions of a class are left, expected the largest alone"


def warped_borders() -> str | None:
    """Borders move towards the truth as in the loop when it is interpreted."""
    from pixelwise import kernels
    from pixelwise.metrics.membranes import simple_points

    truth, answer = (np.pad(_drawn(16, 18)[1] == c, 1).astype(np.uint8) for c in (0, 1))
    slow, fast = truth.copy(), truth.copy()
    counted = kernels.warp.py_func(slow, answer, simple_points()), kernels.warp(fast, answer, simple_points())
    return _unequal(fast, slow) or (None if counted[0] == counted[1] else "another number of pixels differs")


def crf() -> str | None:
    """A border of doubtful logits two pixels beside the picture's own moves onto it."""
    from pixelwise.inference.crf import crf_refine
    from pixelwise.inference.terms import preset

    picture = np.zeros((24, 32, 3), np.uint8)
    picture[:, 16:] = 255
    doubtful = np.zeros((2, 24, 32), np.float32)
    doubtful[0, :, :18], doubtful[1, :, 18:] = 1, 1
    labels, _ = crf_refine(doubtful, picture, preset("resnet"), align_corners=False)
    return _unequal(labels, (picture[..., 0] > 0).astype(np.uint8))


def _connected(labels: Labels) -> NDArray[np.int64]:
    """The smallest pixel number of each 4-connected region of equal labels, at all of its pixels."""
    regions = np.arange(labels.size).reshape(labels.shape)
    beside, below = labels[:, 1:] == labels[:, :-1], labels[1:] == labels[:-1]
    while True:
        before = regions.copy()
        for one, other, same in (
            (regions[:, 1:], regions[:, :-1], beside), (regions[:, :-1], regions[:, 1:], beside),
            (regions[1:], regions[:-1], below), (regions[:-1], regions[1:], below),
        ):  # fmt: skip
            np.minimum(one, other.copy(), out=one, where=same)
        if np.array_equal(before, regions):
            return regions


def _grown(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    grown: NDArray[np.bool_] = mask.copy()
    grown[1:] |= mask[:-1]
    grown[:-1] |= mask[1:]
    grown[:, 1:] |= mask[:, :-1]
    grown[:, :-1] |= mask[:, 1:]
    return grown


def _unequal(found: NDArray[Any], expected: NDArray[Any]) -> str | None:
    if found.shape != expected.shape:
        return f"{found.shape} numbers came, expected {expected.shape}"
    different = int((found != expected).sum())
    return f"{different} of {expected.size} numbers differ" if different else None


COMPARED: dict[str, Callable[[], str | None]] = {
    "labels and confidence": labels_and_confidence,
    "counts of pairs": counts_of_pairs,
    "tiles": tiles,
    "polygons": polygons,
    "clean-up": clean_up,
    "warped borders": warped_borders,
    "CRF": crf,
}
"""What is compared, and what says how it differs, or None."""

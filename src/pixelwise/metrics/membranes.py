"""The errors of the ISBI 2012 challenge: are cells kept apart by the membranes between them?

A map of cells is boolean: True inside a cell, False on a membrane. Cells are connected through faces (4
neighbours), membranes through corners too (8), so a diagonal line of membrane separates. Beyond the picture is
membrane. A stack (n, h, w) is n pictures: no cell goes on in the next.

Source: Arganda-Carreras and others, Crowdsourcing the creation of image segmentation algorithms for
connectomics (2015); Jain and others, Boundary learning by optimization with topological constraints (2010).
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any, NamedTuple

import numpy as np
from array_api_compat import is_torch_array
from numpy.typing import NDArray

from pixelwise.errors import InputError, MissingExtraError

Cells = NDArray[np.bool_]

TENTHS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)


class AtThreshold(NamedTuple):
    """The smallest error over all thresholds, and the threshold that gave it."""

    error: float
    threshold: float


class MembraneErrors:
    """Rand, warping and pixel error of probabilities of "inside a cell", each at its best threshold.

    thresholds: a pixel is inside a cell where its probability is above; every one is tried over all pictures,
    as the challenge did, so scores of different thresholds are never mixed.
    """

    def __init__(self, thresholds: Sequence[float] = TENTHS) -> None:
        if not thresholds:
            raise InputError("thresholds must hold one number at least, got none")
        self.thresholds = tuple(thresholds)
        self._pairs = np.zeros((len(self.thresholds), 3), np.float64)
        self._wrong = np.zeros((len(self.thresholds), 2), np.int64)
        self._pixels = 0

    def update(self, probability: Any, target: Any) -> MembraneErrors:
        """Count pictures: probability, float (h, w) or (n, h, w); target, cells of the same shape. Returns itself."""
        values = np.asarray(probability.detach().cpu() if is_torch_array(probability) else probability)
        for i, threshold in enumerate(self.thresholds):
            for answer, truth in _pictures(values > threshold, target):
                self._pairs[i] += _pairs(answer, truth)
                self._wrong[i] += warped_difference(answer, truth), int((answer != truth).sum())
        self._pixels += values.size
        return self

    def rand(self) -> AtThreshold:
        """See `rand_error`."""
        return self._best([_rand(pairs) for pairs in self._pairs])

    def warping(self) -> AtThreshold:
        """See `warping_error`."""
        return self._best(self._wrong[:, 0] / self._pixels if self._pixels else [np.nan])

    def pixel(self) -> AtThreshold:
        """See `pixel_error`."""
        return self._best(self._wrong[:, 1] / self._pixels if self._pixels else [np.nan])

    def _best(self, errors: Any) -> AtThreshold:
        values = np.asarray(errors, np.float64)
        best = int(values.argmin())
        return AtThreshold(float(values[best]), float(self.thresholds[best]))


def rand_error(prediction: Any, target: Any) -> float:
    """1 - F of pairs of pixels that lie in one cell, in [0, 1]; NaN when the truth has no pair.

    prediction, target: cells, (h, w) or (n, h, w). Pairs are of two different pixels inside the truth's cells
    (the truth's membranes do not count). Precision: of the pairs in one predicted cell, those in one true cell;
    recall: the other way round. A pixel predicted as membrane is in a pair with no other.

    scikit-image's `adapted_rand_error` makes one segment of all pixels predicted as membrane, so that membrane
    painted over a cell counts as a cell found; elsewhere the two agree.
    """
    return _rand(sum(_pairs(answer, truth) for answer, truth in _pictures(prediction, target)))


def warping_error(prediction: Any, target: Any) -> float:
    """The share of pixels that differ although the truth's borders may move freely, in [0, 1].

    prediction, target: cells, (h, w) or (n, h, w). The truth is warped towards the prediction: a pixel that
    differs is flipped if that changes no topology (a simple point: nothing splits, merges, appears or closes),
    in reading order, again and again until none is left to flip. What still differs is splits, merges, holes
    and lost cells. The order is a choice: the smallest difference any order reaches can be less, never more.
    """
    pictures = _pictures(prediction, target)
    pixels = sum(truth.size for _, truth in pictures)
    wrong = sum(warped_difference(answer, truth) for answer, truth in pictures)
    return wrong / pixels if pixels else float("nan")


def pixel_error(prediction: Any, target: Any) -> float:
    """The share of pixels that differ (the squared distance of the two maps), in [0, 1]; NaN without pixels."""
    pictures = _pictures(prediction, target)
    pixels = sum(truth.size for _, truth in pictures)
    return sum(int((a != t).sum()) for a, t in pictures) / pixels if pixels else float("nan")


def warped_difference(answer: Cells, truth: Cells) -> int:
    """Pixels of one picture that still differ when the truth has been warped towards the answer."""
    from pixelwise import kernels

    warped = np.pad(truth, 1).astype(np.uint8)
    return int(kernels.warp(warped, np.pad(answer, 1).astype(np.uint8), simple_points()))


@cache
def simple_points() -> Cells:
    """(256,): may the middle of a 3 x 3 patch be flipped without a change of topology?

    Bit i of the index is neighbour i, clockwise from the upper left; 1 is cell. The middle is simple when the
    cells around it that touch it are one piece (through faces), and the membranes around it one (corners too).
    """
    around = [(0, 0), (0, 1), (0, 2), (1, 2), (2, 2), (2, 1), (2, 0), (1, 0)]

    def pieces(places: list[tuple[int, int]], reach: int) -> list[set[tuple[int, int]]]:
        """Connected pieces; neighbours are at a squared distance of `reach` (1 or 2) at most."""
        left, found = set(places), []
        while left:
            piece, todo = set(), [left.pop()]
            while todo:
                y, x = todo.pop()
                piece.add((y, x))
                near = {(v, u) for v, u in left if (v - y) ** 2 + (u - x) ** 2 <= reach}
                left -= near
                todo.extend(near)
            found.append(piece)
        return found

    table = np.zeros(256, bool)
    for index in range(256):
        cells = [place for i, place in enumerate(around) if index >> i & 1]
        membranes = [place for i, place in enumerate(around) if not index >> i & 1]
        touching = [piece for piece in pieces(cells, 1) if any(1 in place for place in piece)]
        table[index] = len(touching) == 1 and len(pieces(membranes, 2)) == 1
    return table


def _pictures(prediction: Any, target: Any) -> list[tuple[Cells, Cells]]:
    """The pictures of two maps or stacks of cells."""
    answer, truth = (np.asarray(a.detach().cpu() if is_torch_array(a) else a) for a in (prediction, target))
    if answer.shape != truth.shape or truth.ndim not in (2, 3):
        raise InputError(
            f"cells must be two maps (h, w) or stacks (n, h, w) of one size, got {answer.shape} and {truth.shape}"
        )
    for name, values in (("prediction", answer), ("target", truth)):
        if values.dtype != bool and not np.isin(values, (0, 1)).all():
            raise InputError(
                f"{name} must be boolean, True inside a cell, or 0 and 1; got {values.min()} to {values.max()}; "
                "write cells > threshold"
            )
    answer, truth = answer.astype(bool), truth.astype(bool)
    return list(zip(answer, truth, strict=True)) if truth.ndim == 3 else [(answer, truth)]


def _pairs(answer: Cells, truth: Cells) -> NDArray[np.float64]:
    """Pairs of pixels inside the true cells: together in both, together in the answer, together in the truth."""
    try:
        from scipy import ndimage
    except ImportError:
        raise MissingExtraError("the Rand error", "metrics") from None
    given, _ = ndimage.label(answer)
    true, _ = ndimage.label(truth)
    given, true = given[truth].astype(np.int64), true[truth].astype(np.int64)
    inside = given > 0
    _, both = np.unique(np.stack([given[inside], true[inside]]), axis=1, return_counts=True)
    sizes = (both, np.bincount(given[inside]), np.bincount(true))
    return np.array([(n * (n - 1.0)).sum() / 2 for n in sizes])


def _rand(pairs: Any) -> float:
    """1 - F, where F = both / mean of the two: the harmonic mean of both / given and both / true."""
    if np.ndim(pairs) == 0 or pairs[2] == 0:
        return float("nan")
    both, given, true = pairs
    return float(1 - 2 * both / (given + true))

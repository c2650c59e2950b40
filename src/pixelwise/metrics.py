"""Metrics: count first, divide once at the end.

A `ConfusionMatrix` holds 64-bit counts of pixels over any number of pictures; every score is read from the
counts, so a small last batch or picture weighs what its pixels weigh. Letters: k classes, h w pixels.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pixelwise.errors import InputError


class ConfusionMatrix:
    """counts (k, k) int64: `counts[i, j]` pixels of true class i were given class j.

    A class that occurs neither in the truth nor in the answer has the score NaN and is left out of means;
    one that occurs in either counts, so a missed or invented class can only lower a mean.
    """

    def __init__(self, num_classes: int, ignore: int | None = 255) -> None:
        self.ignore = ignore
        self.counts = np.zeros((num_classes, num_classes), np.int64)

    def add(self, predicted: NDArray[Any], target: NDArray[Any]) -> ConfusionMatrix:
        """Count one picture or many; predicted and target of the same shape, integer class numbers in [0, k).

        Pixels where target is `ignore` count for nothing. Returns itself.
        """
        k = len(self.counts)
        if predicted.shape != target.shape:
            raise InputError(
                f"predicted and target must have the same size, got {predicted.shape} and {target.shape}"
            )
        counted = np.ones(target.shape, bool) if self.ignore is None else target != self.ignore
        truth, answer = target[counted].astype(np.int64), predicted[counted].astype(np.int64)
        for name, values in (("target", truth), ("predicted", answer)):
            if values.size and not (values.min() >= 0 and values.max() < k):
                raise InputError(
                    f"{name} must hold class numbers in 0..{k - 1} (target also {self.ignore} to ignore), "
                    f"got {values.min()} to {values.max()}"
                )
        self.counts += np.bincount(truth * k + answer, minlength=k * k).reshape(k, k)
        return self

    def __add__(self, other: ConfusionMatrix) -> ConfusionMatrix:
        total = ConfusionMatrix(len(self.counts), self.ignore)
        total.counts = self.counts + other.counts
        return total

    def pixel_accuracy(self) -> float:
        """Share of the counted pixels that were given their class; NaN when nothing was counted."""
        return float(_divide(np.trace(self.counts), self.counts.sum()))

    def iou(self) -> NDArray[np.float64]:
        """(k,) intersection over union of each class, in [0, 1] or NaN."""
        hit, true, given = self._sums()
        return _divide(hit, true + given - hit)

    def dice(self) -> NDArray[np.float64]:
        """(k,) Dice (F1) of each class, in [0, 1] or NaN."""
        hit, true, given = self._sums()
        return _divide(2 * hit, true + given)

    def mean_iou(self, classes: Iterable[int] | None = None) -> float:
        """Mean of `iou` over `classes`, or over all, without the NaN ones; NaN when none is left."""
        values = self.iou() if classes is None else self.iou()[list(classes)]
        values = values[~np.isnan(values)]
        return float(values.mean()) if values.size else float("nan")

    def _sums(self) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
        return np.diagonal(self.counts), self.counts.sum(axis=1), self.counts.sum(axis=0)


def _divide(over: Any, under: Any) -> NDArray[np.float64]:
    """over / under in float64, NaN where under is 0."""
    under = np.asarray(under, np.float64)
    result = np.full(under.shape, np.nan)
    np.divide(over, under, out=result, where=under > 0)
    return result

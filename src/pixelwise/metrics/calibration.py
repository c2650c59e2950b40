"""Calibration: does a pixel given with confidence 0.9 have its class nine times in ten?

Letters: b bins, m levels of confidence.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from array_api_compat import is_torch_array
from numpy.typing import NDArray

from pixelwise.errors import InputError
from pixelwise.metrics.confusion import ConfusionMatrix


class Calibration:
    """Counts pixels by confidence, and how many of them are right, over any number of images.

    num_classes, ignore_index: as of `ConfusionMatrix`. bins: b, of equal width; bin i holds the confidences in
    (i/b, (i+1)/b], and 0 belongs to the first. Inside each bin `levels_per_bin` finer steps are counted, for
    `risk_coverage`; memory does not grow with the number of pixels.

    Source: Guo, Pleiss, Sun, Weinberger, On calibration of modern neural networks (2017), eq. 2 to 5.
    torchmetrics bins by [i/b, (i+1)/b) instead: the two differ only for confidences exactly on an edge.
    """

    def __init__(
        self, num_classes: int, ignore_index: int | None = 255, *, bins: int = 15, levels_per_bin: int = 64
    ) -> None:
        if bins < 1 or levels_per_bin < 1:
            raise InputError(f"bins and levels_per_bin must be 1 or more, got {bins} and {levels_per_bin}")
        self.num_classes, self.ignore_index, self.bins = num_classes, ignore_index, bins
        levels = bins * levels_per_bin
        self.pixels = np.zeros(levels, np.int64)
        self.right = np.zeros(levels, np.int64)
        self.confidence = np.zeros(levels, np.float64)

    def update(self, confidence: Any, prediction: Any, target: Any) -> Calibration:
        """Count pixels. Returns itself.

        confidence: of the class that was given, float in [0, 1], the softmax probability say; prediction and
        target: class numbers as of `ConfusionMatrix.update`; all of one shape, NumPy or torch, any device.

        Raises InputError for confidences outside [0, 1] or NaN where the target is not ignored.
        """
        ConfusionMatrix(self.num_classes, self.ignore_index).update(prediction, target)  # checks them
        values, answer, truth = (
            np.asarray(a.detach().cpu().double() if is_torch_array(a) else a)
            for a in (confidence, prediction, target)
        )
        if values.shape != truth.shape:
            raise InputError(
                f"confidence must have the size of target {truth.shape}, got {values.shape}; it holds one number "
                "a pixel, that of the class that was given"
            )
        if self.ignore_index is not None:
            counted = truth != self.ignore_index
            values, answer, truth = values[counted], answer[counted], truth[counted]
        values = values.ravel().astype(np.float64)
        if values.size and not (values.min() >= 0 and values.max() <= 1):
            raise InputError(
                f"confidence must lie in [0, 1], got {values.min():g} to {values.max():g}; of logits take the softmax"
            )
        levels = len(self.pixels)
        level = np.maximum(np.ceil(values * levels).astype(np.int64) - 1, 0)
        self.pixels += np.bincount(level, minlength=levels)
        self.right += np.bincount(level[(answer == truth).ravel()], minlength=levels)
        self.confidence += np.bincount(level, weights=values, minlength=levels)
        return self

    def merge(self, *others: Calibration) -> Calibration:
        """Add the counts of others, made with the same arguments. Returns itself."""
        for other in others:
            mine, theirs = ((c.num_classes, c.ignore_index, c.bins, len(c.pixels)) for c in (self, other))
            if mine != theirs:
                raise InputError(f"only counts made with the same arguments add up; got {mine} and {theirs}")
            self.pixels += other.pixels
            self.right += other.right
            self.confidence += other.confidence
        return self

    def reliability(self) -> dict[str, NDArray[Any]]:
        """The reliability table, arrays (b,): low, high, pixels, confidence (mean) and accuracy.

        An empty bin has no confidence and no accuracy: NaN.
        """
        pixels, right, confidence = (
            a.reshape(self.bins, -1).sum(axis=1) for a in (self.pixels, self.right, self.confidence)
        )
        edges = np.arange(self.bins + 1) / self.bins
        there = pixels > 0
        mean, accuracy = (
            np.divide(a, pixels, out=np.full(self.bins, np.nan), where=there) for a in (confidence, right)
        )
        return {
            "low": edges[:-1], "high": edges[1:], "pixels": pixels, "confidence": mean, "accuracy": accuracy,
        }  # fmt: skip

    def expected_error(self) -> float:
        """Expected calibration error in [0, 1]: mean of |accuracy - confidence| over bins, weighted by pixels.

        NaN when nothing was counted.
        """
        table = self.reliability()
        there = table["pixels"] > 0
        if not there.any():
            return float("nan")
        gaps = np.abs(table["accuracy"] - table["confidence"])[there]
        return float(np.average(gaps, weights=table["pixels"][there]))

    def risk_coverage(self) -> dict[str, NDArray[np.float64]]:
        """What one gains by leaving doubtful pixels unanswered: arrays by falling threshold, m of them.

        threshold: pixels with a confidence above it are answered (at the last one, 0, all are); coverage: their
        share of all pixels; risk: the share of them that are wrong, NaN where none is answered. Exact at these
        thresholds. Source: El-Yaniv, Wiener, On the foundations of noise-free selective classification (2010).
        """
        answered = self.pixels[::-1].cumsum()
        wrong = (self.pixels - self.right)[::-1].cumsum()
        levels = len(self.pixels)
        total = max(int(answered[-1]), 1)
        return {
            "threshold": np.arange(levels - 1, -1, -1) / levels,
            "coverage": answered / total if answered[-1] else np.full(levels, np.nan),
            "risk": np.divide(wrong, answered, out=np.full(levels, np.nan), where=answered > 0),
        }

    def area_under_risk_coverage(self) -> float:
        """Mean risk over all coverages, in [0, 1]: 0 where nothing is wrong; NaN when nothing was counted.

        Of two models that are wrong as often, the one whose confidence tells its mistakes from the rest has less.
        Inside a level (of bins * levels_per_bin) pixels come in random order, of which this is the limit for many.
        Source: Geifman, Uziel, El-Yaniv, Bias-reduced uncertainty estimation for deep neural classifiers (2019).
        """
        there = self.pixels > 0
        pixels = self.pixels[there][::-1].astype(np.float64)
        if not pixels.size:
            return float("nan")
        wrong = pixels - self.right[there][::-1]
        end, rate = pixels.cumsum(), wrong / pixels
        begin = end - pixels
        behind = wrong.cumsum() - wrong - rate * begin
        # The integral over n of (behind + rate * n) / n; the first level begins at 0, where behind is 0 too.
        logarithm = np.log(end[1:] / begin[1:])
        area = (rate * pixels).sum() + (behind[1:] * logarithm).sum()
        return float(max(area, 0.0) / end[-1])

"""Robustness: what is left of a model's scores when pictures are corrupted (`corruptions.py`)."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pixelwise.corruptions import CORRUPTIONS, FAMILIES, SETS
from pixelwise.metrics import Calibration, ConfusionMatrix

NOISE_OF_CITYSCAPES_C = (1, 2, 3)
"""The strengths of noise over which Cityscapes-C averages; of everything else all five."""


class Counts:
    """What is counted of the answers to one version of the pictures: confusion, calibration where it is asked for, and
    how many labelled pixels got no answer."""

    def __init__(
        self, num_classes: int, void: int, *, by_picture: bool, calibrated: bool, dims: int = 2
    ) -> None:
        self.void = void
        self.confusion = ConfusionMatrix(num_classes, void, image_dims=dims if by_picture else None)
        self.calibration = Calibration(num_classes, void) if calibrated else None
        self.unanswered = 0

    def add(
        self,
        given: NDArray[Any],
        target: NDArray[Any],
        confidence: NDArray[np.float32] | None,
        name: str,
        *,
        doubtful: NDArray[np.bool_] | None = None,
    ) -> None:
        """Count one picture, all (h, w): class indices, and their confidence where calibration is counted. doubtful:
        labelled pixels without an answer, which count for nothing else."""
        if doubtful is not None:
            self.unanswered += int(doubtful.sum())
            target = np.where(doubtful, self.void, target)
        self.confusion.update(given, target, name)
        if self.calibration is not None:
            self.calibration.update(confidence, given, target)

    def there(self) -> tuple[int, ...]:
        """The classes that the labels hold."""
        return tuple(np.flatnonzero(self.confusion.matrix.sum(axis=1)).tolist())

    @property
    def answered(self) -> float:
        """The share of the labelled pixels that got an answer; NaN where none is labelled."""
        scored = int(self.confusion.matrix.sum())
        return scored / (scored + self.unanswered) if scored + self.unanswered else math.nan


@dataclass(frozen=True, eq=False)
class Robustness:
    """Scores of pictures as they are (clean) and corrupted, by (corruption, strength).

    classes: those whose mean IoU is meant, the same everywhere: a class that is only answered under a corruption would
    change what is compared. seed: that of the corruptions. answered: whether to say what share of the pixels was.
    """

    clean: Counts
    corrupted: Mapping[tuple[str, int], Counts]
    classes: tuple[int, ...]
    seed: int = 0
    answered: bool = False

    def retention(self, corruption: str, strengths: Iterable[int] | None = None) -> float:
        """Mean IoU of the corrupted pictures, averaged over strengths, as a share of that of the clean ones; NaN where
        that is 0, or one of them is undefined. strengths: None for all that were scored."""
        of = [s for name, s in self.corrupted if name == corruption] if strengths is None else strengths
        clean = self._mean_iou(self.clean)
        values = [self._mean_iou(self.corrupted[corruption, strength]) for strength in of]
        return float(np.mean(values)) / clean if clean > 0 and values else math.nan

    def to_dict(self) -> dict[str, Any]:
        """Every score, plain values for JSON; what is undefined is null.

        Of each corruption the scores at each strength, and their means over strengths; of noise also the retention over
        strengths 1 to 3, where they were scored. Of each family the means over its corruptions, and of all together.
        "cityscapes-c" is the mean retention as published: of its sixteen, noise over three strengths.
        """
        rows: dict[str, dict[str, Any]] = {}
        for name in dict.fromkeys(name for name, _ in self.corrupted):
            counts = {s: counts for (one, s), counts in self.corrupted.items() if one == name}
            strengths = {
                s: {**self._scores(c), "retention": self.retention(name, [s])} for s, c in counts.items()
            }
            rows[name] = {"family": CORRUPTIONS[name].family, **_means(strengths.values())}
            if CORRUPTIONS[name].family == "noise" and set(counts).issuperset(NOISE_OF_CITYSCAPES_C):
                rows[name]["retention_of_strengths_1_to_3"] = self.retention(name, NOISE_OF_CITYSCAPES_C)
            rows[name]["strengths"] = {str(s): scores for s, scores in strengths.items()}
        families = {family: [row for row in rows.values() if row["family"] == family] for family in FAMILIES}
        whole = set(self.corrupted).issuperset((n, s) for n in SETS["cityscapes-c"] for s in range(1, 6))
        published = [
            rows[name].get("retention_of_strengths_1_to_3", rows[name]["retention"])
            for name in SETS["cityscapes-c"]
            if whole
        ]
        return {
            name: _plain(value)
            for name, value in {
                "seed": self.seed,
                "classes": list(self.classes),
                "clean": self._scores(self.clean),
                "corruptions": rows,
                "families": {family: _means(those) for family, those in families.items() if those},
                "mean": _means(rows.values()),
                **({"cityscapes-c": {"retention": float(np.mean(published))}} if published else {}),
            }.items()
        }

    def _mean_iou(self, counts: Counts) -> float:
        return counts.confusion.mean_iou(self.classes)

    def _scores(self, counts: Counts) -> dict[str, float]:
        assert counts.calibration is not None
        return {
            "mean_iou": self._mean_iou(counts),
            "expected_calibration_error": counts.calibration.expected_error(),
            "area_under_risk_coverage": counts.calibration.area_under_risk_coverage(),
            **({"answered": counts.answered} if self.answered else {}),
        }


def _means(rows: Iterable[Mapping[str, Any]]) -> dict[str, float]:
    """The mean of each number that all rows have."""
    rows = list(rows)
    names = [n for n, value in rows[0].items() if isinstance(value, float) and all(n in row for row in rows)]
    return {name: float(np.mean([row[name] for row in rows])) for name in names}


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(part) for key, part in value.items()}
    return None if isinstance(value, float) and math.isnan(value) else value

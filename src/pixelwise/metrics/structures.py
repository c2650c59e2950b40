"""Scores of the structures in volumes: of every volume and class Dice, surface Dice and the distance between surfaces.

A structure that is missed, or found where there is none, gets the worst that can be: Dice 0, surface Dice 0, and as
distance the diagonal of the volume. One that is in neither has no score. So leaving a structure out never helps.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pixelwise.errors import InputError
from pixelwise.metrics.boundary import SurfaceDice, SurfaceDistance
from pixelwise.metrics.confusion import ConfusionMatrix, ImageScores

WORST = "a structure that is missed or invented counts as Dice 0, surface Dice 0 and the volume's diagonal as distance"


@dataclass
class StructureScores:
    """Scores of the classes in volumes but the first, the background.

    names: of the classes, that one included. tolerance_mm: how far apart surfaces may lie and still be the same, in the
    units of the spacing. void: the number of what is unknown.
    """

    names: Sequence[str]
    tolerance_mm: float = 1.0
    void: int = 255
    _counts: ConfusionMatrix = field(init=False, repr=False)
    _distance: SurfaceDistance = field(init=False, repr=False)
    _near: SurfaceDice = field(init=False, repr=False)

    def __post_init__(self) -> None:
        if not (math.isfinite(self.tolerance_mm) and self.tolerance_mm >= 0):
            raise InputError(f"tolerance_mm must be a number of 0 or more, got {self.tolerance_mm}")
        k = len(self.names)
        self._counts = ConfusionMatrix(k, self.void, image_dims=3)
        self._distance = SurfaceDistance(k, self.void, image_dims=3)
        self._near = SurfaceDice(k, self.void, tolerance=self.tolerance_mm, image_dims=3)

    def update(self, given: Any, target: Any, name: str, spacing: Sequence[float] | None) -> None:
        """Count one volume: class numbers (d, h, w) of answer and truth, and its spacing (slices, rows, columns) in mm;
        None counts in voxels."""
        self._counts.update(given, target, name)
        self._distance.update(given, target, name, spacing=spacing)
        self._near.update(given, target, name, spacing=spacing)

    @property
    def by_case(self) -> dict[str, ImageScores]:
        """ "dice", "surface_dice" in [0, 1] and "hd95_mm", each (n, k), NaN where a class is in neither."""
        return {
            "dice": self._counts.per_image("dice"),
            "surface_dice": self._near.per_image(),
            "hd95_mm": self._distance.hausdorff_95(),
        }

    @property
    def dice(self) -> dict[str, float]:
        """Mean Dice over the volumes, by class, but the first; NaN for one that never occurs."""
        return self._by_class("dice")

    @property
    def mean_dice(self) -> float:
        """Mean of `dice` over the classes."""
        return _mean(np.array(list(self.dice.values())))

    def _by_class(self, score: str) -> dict[str, float]:
        values = self.by_case[score].values
        return {name: _mean(values[:, i]) for i, name in enumerate(self.names) if i}

    def to_dict(self) -> dict[str, Any]:
        """Means over the volumes and the scores of each, plain values for JSON, None where there is none."""
        found = self.by_case
        means = {score: self._by_class(score) for score in found}
        return {
            **{f"mean_{score}": plain(_mean(np.array(list(of.values())))) for score, of in means.items()},
            "tolerance_mm": self.tolerance_mm,
            "missed": WORST,
            "classes": {
                name: {score: plain(of[name]) for score, of in means.items()} for name in list(self.names)[1:]
            },
            "cases": [
                {
                    "name": name,
                    "mean_dice": plain(_mean(found["dice"].values[n, 1:])),
                    **{
                        c: {score: plain(float(of.values[n, i])) for score, of in found.items()}
                        for i, c in enumerate(self.names)
                        if i
                    },
                }
                for n, name in enumerate(found["dice"].names)
            ],
        }


def plain(value: float) -> float | None:
    return None if math.isnan(value) else value


def _mean(values: NDArray[np.float64]) -> float:
    left = values[~np.isnan(values)]
    return float(left.mean()) if left.size else math.nan

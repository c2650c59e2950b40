"""RegionScores: overlapping regions counted one by one, each against all that is not it.

Letters: k regions, h w pixels.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pixelwise.codes import has
from pixelwise.errors import InputError
from pixelwise.metrics.confusion import ConfusionMatrix


class RegionScores:
    """Counts of k regions, by picture too: `by_region` has a ConfusionMatrix of two classes for each.

    names: of the regions, in the order of the bits of their codes (`pixelwise.codes`). A region that occurs neither in
    the truth nor in the answer scores NaN and is left out of means.
    """

    def __init__(self, names: Sequence[str]) -> None:
        self.by_region = {name: ConfusionMatrix(2, None, image_dims=2) for name in names}

    @property
    def pictures(self) -> int:
        """How many were counted."""
        return max((len(matrix.names) for matrix in self.by_region.values()), default=0)

    def update(
        self, given: NDArray[Any], target: NDArray[Any], name: str, places: Sequence[int] | None = None
    ) -> None:
        """Count one picture: codes (h, w) of what was answered and of what is true. places: the number in the target of
        each region of the answer; None where they are the same."""
        if given.shape != target.shape:
            raise InputError(
                f"answer and truth must have the same size, got {given.shape} and {target.shape}"
            )
        matrices = list(self.by_region.values())
        for region, place in enumerate(range(len(matrices)) if places is None else places):
            matrices[place].update(has(given, region).view(np.uint8), has(target, place).view(np.uint8), name)

    def merge(self, *others: RegionScores) -> RegionScores:
        """Add the counts of others, of the same regions. Returns itself."""
        for other in others:
            for name, matrix in self.by_region.items():
                matrix.merge(other.by_region[name])
        return self

    def dice(self) -> dict[str, float]:
        """The Dice of each region over all pictures, in [0, 1] or NaN."""
        return {name: float(matrix.dice()[1]) for name, matrix in self.by_region.items()}

    def mean_dice(self) -> float:
        """The mean of those that are not NaN; NaN where none is left."""
        values = [value for value in self.dice().values() if not math.isnan(value)]
        return sum(values) / len(values) if values else math.nan

    def to_dict(self) -> dict[str, dict[str, float | None]]:
        """Scores of each region by its name: iou, dice, precision, recall, true_pixels, given_pixels; null for NaN."""
        rows = {}
        for name, matrix in self.by_region.items():
            columns = {
                "iou": matrix.iou()[1], "dice": matrix.dice()[1], "precision": matrix.precision()[1],
                "recall": matrix.recall()[1], "true_pixels": matrix.matrix[1].sum(),
                "given_pixels": matrix.matrix[:, 1].sum(),
            }  # fmt: skip
            rows[name] = {key: None if math.isnan(value) else value.item() for key, value in columns.items()}
        return rows

    def lines(self) -> list[str]:
        """The scores as a table of text."""
        width = max(len("region"), *(len(name) for name in self.by_region))
        lines = [f"{'region':<{width}}    IoU   Dice  precision  recall"]
        for name, row in self.to_dict().items():
            cells = "  ".join(
                f"{'-' if row[key] is None else f'{row[key]:.3f}':>{size}}"
                for key, size in (("iou", 5), ("dice", 5), ("precision", 9), ("recall", 6))
            )
            lines.append(f"{name:<{width}}  {cells}")
        return [*lines, f"mean Dice of the regions {self.mean_dice():.4f}"]

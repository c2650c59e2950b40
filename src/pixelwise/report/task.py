"""What a report puts first: of two classes the object's Dice, of more the mean IoU; and that of each picture."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from pixelwise.evaluation import Evaluation
from pixelwise.labels import LabelSet

GROUNDS = ("background", "ground", "nothing", "none", "outside", "other")
"""Names of a class that is what the others lie on."""


@dataclass(frozen=True)
class Task:
    """Which class is what the others lie on (ground), None where all are things in their own right; and, of two
    classes, the object that is looked for."""

    ground: int | None
    object: int | None = None

    @classmethod
    def of(cls, classes: LabelSet) -> Task:
        """Of two classes the ground is the one that is called so, else the first. Of more only the first may be it."""
        named = [i for i, name in enumerate(classes.names) if name.lower() in GROUNDS]
        if len(classes) == 2:
            ground = named[0] if len(named) == 1 else 0
            return cls(ground, 1 - ground)
        return cls(0 if named[:1] == [0] else None)

    @property
    def measure(self) -> str:
        """What a picture's score and its classes' are: "Dice" or "IoU"."""
        return "IoU" if self.object is None else "Dice"


@dataclass(frozen=True, eq=False)
class PictureScores:
    """The pictures of an evaluation by their scores: NaN for one in which nothing is there to be scored."""

    evaluation: Evaluation
    task: Task

    @cached_property
    def by_class(self) -> NDArray[np.float64]:
        """(n, k) Dice of each class in each picture for two classes, IoU for more."""
        values: NDArray[np.float64] = self.evaluation.confusion.per_image(
            "iou" if self.task.object is None else "dice"
        ).values
        return values

    @cached_property
    def values(self) -> NDArray[np.float64]:
        """(n,) the object's Dice, or the mean IoU."""
        if self.task.object is not None:
            return self.by_class[:, self.task.object]
        return self.evaluation.confusion.per_image().values

    @cached_property
    def order(self) -> list[int]:
        """The pictures' numbers, the lowest score first, those without one last."""
        return [int(i) for i in np.argsort(self.values, kind="stable")]

    @property
    def scored(self) -> list[int]:
        """`order` without those that have no score."""
        return [i for i in self.order if not np.isnan(self.values[i])]

    @property
    def called(self) -> str:
        """What the score is, in words."""
        if self.task.object is None:
            return "mean IoU"
        return f"Dice of {self.evaluation.classes.names[self.task.object]}"


def scores_of(evaluation: Evaluation) -> PictureScores:
    return PictureScores(evaluation, Task.of(evaluation.classes))

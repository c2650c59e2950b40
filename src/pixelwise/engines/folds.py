"""Several networks of one card, such as the folds of a cross-validation, as one engine: the mean of their logits."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pixelwise.engines import Engine
from pixelwise.precision import Precision
from pixelwise.weights.card import Card


class Folds:
    """members: the engines, whose cards say the same."""

    def __init__(self, members: Sequence[Engine]) -> None:
        self.members = tuple(members)
        self.card: Card = members[0].card

    @property
    def name(self) -> str:
        return self.members[0].name

    @property
    def precision(self) -> Precision:
        return self.members[0].precision

    def __call__(self, images: Any) -> Any:
        first, *others = self.members
        total = first(images)
        for member in others:
            total = total + member(images)
        return total / len(self.members)

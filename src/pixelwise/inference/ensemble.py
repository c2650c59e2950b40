"""Several models as one: the mean of their logits, such as of the folds of a cross-validation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from pixelwise.errors import InputError
from pixelwise.inference.tta import mean_of

if TYPE_CHECKING:
    from pixelwise.engines import Engine
    from pixelwise.precision import Precision


class Ensemble:
    """An engine that asks each of several and gives the mean of their logits, at the resolution of the finest of them.

    What they say of their classes and of what they are shown must agree, else InputError says in what they differ.
    Sums are taken as the answers come, so there are two of them at a time. The first model's card stands for all, and
    `name` and `precision` are those of all engines, joined where they differ.
    """

    def __init__(self, engines: Sequence[Engine]) -> None:
        if not engines:
            raise InputError("an ensemble has at least one model, got none")
        first = engines[0].card
        for other in (engine.card for engine in engines[1:]):
            for what in ("labels", "outputs", "preprocess", "volume", "align_corners"):
                one, another = getattr(first, what), getattr(other, what)
                if what == "labels":  # whatever their colours
                    one, another = (labels.names + labels.ids for labels in (one, another))
                if one != another:
                    raise InputError(
                        f"models whose logits are averaged agree in what they take and mean, and {first.name} and "
                        f"{other.name} differ in {what}; give those that were trained alike, such as folds"
                    )
        if any(engine.card.baked for engine in engines):
            raise InputError(
                "a baked model has no logits to average; export it without --bake, or give it alone"
            )
        self.engines = tuple(engines)
        self.card = first.replace(
            name=f"{first.name} and {len(engines) - 1} more",
            stride=min(engine.card.stride for engine in engines),
            parameters=sum(engine.card.parameters for engine in engines),
            file=None, file_bytes=None, sha256=None, multiply_adds=None, multiply_adds_hw=None, scores=(),
        )  # fmt: skip

    @property
    def name(self) -> str:
        return ", ".join(dict.fromkeys(engine.name for engine in self.engines))

    @property
    def precision(self) -> Precision:
        joined: Any = ", ".join(dict.fromkeys(engine.precision for engine in self.engines))
        return joined  # type: ignore[no-any-return]

    def __call__(self, images: Any) -> Any:
        answers = (engine(images) for engine in self.engines)
        return mean_of(answers, align_corners=self.card.align_corners)

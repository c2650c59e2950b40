"""Losses made of losses: weighted sums as one object, and a loss over all heads of a network."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from torch import Tensor

from pixelwise.errors import InputError, UnknownNameError
from pixelwise.losses.inputs import IGNORE, Mode, Over
from pixelwise.losses.pixel import binary_cross_entropy, cross_entropy
from pixelwise.losses.region import dice

Loss = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class WeightedSum:
    """A loss that is a weighted sum of losses, each under a name.

    >>> from functools import partial
    >>> loss = WeightedSum({"dice": (1.0, dice), "smooth": (0.5, partial(cross_entropy, label_smoothing=0.1))})

    Called with (logits, target) it gives the sum; `parts` gives each term, weighted, for a log.
    """

    terms: Mapping[str, tuple[float, Loss]]

    def __post_init__(self) -> None:
        if not self.terms:
            raise InputError("a weighted sum needs at least one term, such as {'dice': (1.0, dice)}")
        for name, (weight, _) in self.terms.items():
            if not (math.isfinite(weight) and weight > 0):
                raise InputError(f"the weight of {name!r} must be a finite number above 0, got {weight:g}")

    def __call__(self, logits: Tensor, target: Tensor) -> Tensor:
        first, *others = self.parts(logits, target).values()
        for other in others:
            first = first + other
        return first

    def parts(self, logits: Tensor, target: Tensor) -> dict[str, Tensor]:
        """The weighted terms by name; they sum to the loss."""
        return {name: weight * loss(logits, target) for name, (weight, loss) in self.terms.items()}


def dice_cross_entropy(
    logits: Tensor,
    target: Tensor,
    *,
    dice_weight: float = 1.0,
    cross_entropy_weight: float = 1.0,
    smooth: float = 1.0,
    mode: Mode = "multiclass",
    over: Over = "batch",
    ignore_index: int | None = IGNORE,
) -> Tensor:
    """dice_weight x `dice` + cross_entropy_weight x cross-entropy (of the sigmoid in binary and multilabel).

    Logits and target as for `dice`; scalar in [0, inf). Source: nnU-Net (Isensee 2018), section 2.2.
    """
    region = dice(logits, target, smooth=smooth, mode=mode, over=over, ignore_index=ignore_index)
    if mode == "multiclass":
        pixel = cross_entropy(logits, target, ignore_index=ignore_index)
    else:
        pixel = binary_cross_entropy(logits, target, mode=mode, ignore_index=ignore_index)
    return dice_weight * region + cross_entropy_weight * pixel


@dataclass(frozen=True)
class OverOutputs:
    """A loss over the dictionary that a network returns: the sum over its heads, weighted by key.

    >>> loss = OverOutputs(cross_entropy)                                   # out 1, each head aux... 0.5
    >>> loss = OverOutputs(dice, {"out": 1.0, "aux": 0.4, "aux2": 0.2})

    weights: a head takes the weight of its own key, else, if its name begins with "aux", that of "aux"
    (0.5 by torchvision's convention). Heads of weight 0 are not computed. Called with (outputs, target), where
    outputs are {key: logits (n, k, ...)}, all of the target's size.
    """

    loss: Loss
    weights: Mapping[str, float] = field(default_factory=lambda: {"out": 1.0, "aux": 0.5})

    def __call__(self, outputs: Mapping[str, Tensor], target: Tensor) -> Tensor:
        first, *others = self.parts(outputs, target).values()
        for other in others:
            first = first + other
        return first

    def parts(self, outputs: Mapping[str, Tensor], target: Tensor) -> dict[str, Tensor]:
        """The weighted loss of each head that has a weight; they sum to the loss."""
        if "out" not in outputs:
            raise InputError(f"outputs must hold the logits under 'out', got the keys {sorted(outputs)}")
        weights = {key: self.weight(key) for key in outputs}
        if not any(weights.values()):
            raise InputError(f"every head has weight 0: {weights}; give one of them a weight")
        return {
            key: weight * self.loss(outputs[key], target) for key, weight in weights.items() if weight != 0
        }

    def weight(self, key: str) -> float:
        """The weight of the head `key`; an error that names the known keys where there is none."""
        if key in self.weights:
            return self.weights[key]
        if key.startswith("aux") and "aux" in self.weights:
            return self.weights["aux"]
        raise UnknownNameError("output without a weight", key, self.weights)

"""Losses by name: what a configuration says, as the function that `fit` minimises."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping

from torch import Tensor, nn

from pixelwise.errors import InputError, UnknownNameError, suggest
from pixelwise.losses import IGNORE, LOSSES, OverOutputs, WeightedSum
from pixelwise.training.config import TrainConfig

Batch = dict[str, Tensor]
LossOf = Callable[[nn.Module, Batch], Tensor | Mapping[str, Tensor]]
"""(network, stacked batch) -> the loss, or its parts by name, whose sum is the loss."""


def make_loss(config: TrainConfig, ignored: int = IGNORE) -> LossOf:
    """The weighted losses of `config` over the network's heads: "out" counts 1, each "aux..." aux_weight.

    ignored: the number of pixels that count for nothing.
    Raises UnknownNameError for a loss, InputError for an option, that is not known, with the nearest.
    """
    terms = {}
    for name in config.loss_options:
        if name not in config.losses:
            raise InputError(f"loss_options has options for {name!r}, which is not among the losses")
    for name, weight in config.losses.items():
        if name not in LOSSES:
            raise UnknownNameError("loss", name, LOSSES)
        function, options = LOSSES[name], config.loss_options.get(name, {})
        known = [key for key in inspect.signature(function).parameters if key not in ("logits", "target")]
        for key in options:
            if key not in known:
                raise InputError(f"the loss {name} has no option {key!r}; {suggest(key, known)}")
        terms[name] = (weight, functools.partial(function, **{"ignore_index": ignored, **options}))
    one_head = WeightedSum(terms)
    heads = OverOutputs(one_head, {"out": 1.0, "aux": config.aux_weight})

    def loss_of(network: nn.Module, batch: Batch) -> dict[str, Tensor]:
        parts = {}
        for key, logits in network(batch["image"]).items():
            if weight := heads.weight(key):
                for name, value in one_head.parts(logits, batch["mask"]).items():
                    parts[name if key == "out" else f"{key} {name}"] = weight * value
        return parts

    return loss_of

"""Losses by name: what a configuration says, as the function that `fit` minimises."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from pixelwise.errors import InputError, UnknownNameError, suggest
from pixelwise.losses import IGNORE, LOSSES, OverOutputs, WeightedSum, binary_cross_entropy
from pixelwise.training.config import TrainConfig

Batch = dict[str, Tensor]
LossOf = Callable[[nn.Module, Batch], Tensor | Mapping[str, Tensor]]
"""(network, stacked batch) -> the loss, or its parts by name, whose sum is the loss."""


def make_loss(config: TrainConfig, ignored: int = IGNORE, *, regions: int = 0) -> LossOf:
    """The weighted losses of `config` over the network's heads: "out" counts 1, each "aux..." aux_weight, of
    which aux2, aux3 and so on count aux_decay times the one before.

    ignored: the number of pixels that count for nothing. regions: 0, or where classes overlap how many: the batch's
    mask then holds their codes (`pixelwise.codes`), and each loss is that of every region against all that is not it;
    cross_entropy is that of its sigmoid.
    Raises UnknownNameError for a loss, InputError for an option, that is not known, with the nearest, and for a loss of
    classes that exclude each other where regions do not.
    """
    terms = {}
    known_losses = {**LOSSES, "cross_entropy": binary_cross_entropy} if regions else LOSSES
    usual = {"ignore_index": IGNORE, "mode": "multilabel"} if regions else {"ignore_index": ignored}
    for name in config.loss_options:
        if name not in config.losses:
            raise InputError(f"loss_options has options for {name!r}, which is not among the losses")
    for name, weight in config.losses.items():
        if name not in LOSSES:
            raise UnknownNameError("loss", name, LOSSES)
        function, options = known_losses[name], config.loss_options.get(name, {})
        parameters = inspect.signature(function).parameters
        known = [key for key in parameters if key not in ("logits", "target")]
        if regions and "mode" not in parameters:
            able = [n for n, loss in known_losses.items() if "mode" in inspect.signature(loss).parameters]
            raise InputError(
                f"the loss {name} is for classes that exclude each other, and these overlap; take some of "
                f"{', '.join(able)}"
            )
        for key in options:
            if key not in known:
                raise InputError(f"the loss {name} has no option {key!r}; {suggest(key, known)}")
        terms[name] = (weight, functools.partial(function, **{**usual, **options}))
    one_head = WeightedSum(terms)
    heads = OverOutputs(one_head, {"out": 1.0, **aux_weights(config)})

    def loss_of(network: nn.Module, batch: Batch) -> dict[str, Tensor]:
        parts = {}
        target = of_regions(batch["mask"], regions, ignored) if regions else batch["mask"]
        for key, logits in network(batch["image"]).items():
            if weight := heads.weight(key):
                for name, value in one_head.parts(logits, target).items():
                    parts[name if key == "out" else f"{key} {name}"] = weight * value
        return parts

    return loss_of


def aux_weights(config: TrainConfig, most: int = 16) -> dict[str, float]:
    """What the auxiliary heads count."""
    deeper = {f"aux{i}": config.aux_weight * config.aux_decay ** (i - 1) for i in range(1, most)}
    return {"aux": config.aux_weight, **deeper}


def of_regions(codes: Tensor, count: int, ignored: int) -> Tensor:
    """Codes (n, h, w) of `count` regions, `ignored` where nothing is known, as a target (n, count, h, w) of 0 and 1,
    and of IGNORE there."""
    bits = torch.arange(count, device=codes.device)[:, None, None]
    target = (codes.unsqueeze(1) >> bits) & 1
    return target.masked_fill((codes == ignored).unsqueeze(1), IGNORE)

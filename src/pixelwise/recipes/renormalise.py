"""Weights that were rebuilt from an 8-bit release, made fit for training: the same function in ordinary numbers."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn


def renormalise(network: nn.Module, images: Tensor) -> None:
    """Give every batch norm of `network` the statistics of `images` (n, c, h, w), and every filter before one the norm
    that initialisation gives it, sqrt(2).

    In evaluation mode the function stays what it was: scale and shift of the norm make up for it. The rebuilt
    statistics are none, so in training mode, which normalises by the batch, the network would be another one; and
    its filters differ in size by a hundred, while AdamW's steps do not.
    """
    moments: dict[nn.Module, tuple[Tensor, Tensor]] = {}

    def watch(norm: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        var, mean = torch.var_mean(inputs[0].double(), dim=(0, 2, 3))
        moments[norm] = mean, var

    layers = [module for module in network.modules() if isinstance(module, (nn.Conv2d, nn.BatchNorm2d))]
    pairs = [
        (conv, norm)
        for conv, norm in pairwise(layers)
        if isinstance(conv, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d)
    ]
    hooks = [norm.register_forward_pre_hook(watch) for _, norm in pairs]
    with torch.no_grad():
        network.eval()(images)
        for hook in hooks:
            hook.remove()
        for conv, norm in pairs:
            assert norm.running_mean is not None
            assert norm.running_var is not None
            mean, var = moments[norm]
            old = (norm.running_var + norm.eps).sqrt()
            factor = 2**0.5 / conv.weight.double().flatten(1).norm(dim=1).clamp_min(1e-12)
            conv.weight.mul_(factor.view(-1, 1, 1, 1))
            norm.bias.add_(norm.weight * (mean - norm.running_mean) / old)
            norm.weight.mul_((var * factor**2 + norm.eps).sqrt() / (factor * old))
            norm.running_mean.copy_(mean * factor)
            norm.running_var.copy_(var * factor**2)

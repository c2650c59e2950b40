"""What moves the weights: parameter groups, the learning rate of a step, and what stays frozen."""

from __future__ import annotations

import math
import re
from typing import Any

import torch
from torch import Tensor, nn

from pixelwise.errors import InputError
from pixelwise.training.config import TrainConfig

ENCODERS = ("encoder", "backbone")
"""What the networks here call the part that comes with weights; everything else is head."""


def encoder_of(network: nn.Module) -> tuple[str, nn.Module] | None:
    """The network's encoder and its name, or None for a network that is of one piece."""
    children = dict(network.named_children())
    return next(((name, children[name]) for name in ENCODERS if name in children), None)


def make_optimizer(network: nn.Module, config: TrainConfig) -> torch.optim.Optimizer:
    """The optimiser of `config` over the parameters that learn.

    Each group's "lr_factor" says how its learning rate relates to that of the step: head_lr_factor and aux_lr_factor
    outside the encoder, powers of layer_decay inside. Weight decay falls on convolutions and linear layers only, not
    on the scale and shift of norms and not on biases, unless decay_norms.

    Raises InputError where factors, layer_decay or frozen_encoder ask for an encoder that the network has not.
    """
    found = encoder_of(network)
    if found is None and (config.head_lr_factor != 1 or config.layer_decay != 1 or config.frozen_encoder):
        raise InputError(
            f"{type(network).__name__} is of one piece, without an encoder: leave out head_lr_factor, layer_decay "
            "and frozen_encoder"
        )
    prefix = "" if found is None else f"{found[0]}."
    if found is not None and config.frozen_encoder:
        found[1].requires_grad_(False)
    depth = {} if found is None else layers(found[1])
    last = max(depth.values(), default=0)

    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in network.named_parameters():
        if not parameter.requires_grad:
            continue
        if name.startswith("aux"):
            factor = config.aux_lr_factor
        elif found is not None and name.startswith(prefix):
            factor = config.layer_decay ** (last + 1 - depth[name.removeprefix(prefix)])
        else:
            factor = config.head_lr_factor if found is not None else 1.0
        decay = config.weight_decay if parameter.ndim > 1 or config.decay_norms else 0.0
        groups.setdefault((factor, decay), []).append(parameter)
    if not groups:
        raise InputError("no parameter of the network learns; unfreeze some")
    listed: list[dict[str, Any]] = [
        {"params": parameters, "lr_factor": factor, "weight_decay": decay, "lr": config.peak_lr * factor}
        for (factor, decay), parameters in groups.items()
    ]
    if config.optimizer == "sgd":
        return torch.optim.SGD(listed, lr=config.peak_lr, momentum=config.momentum)
    return torch.optim.AdamW(listed, lr=config.peak_lr, fused=True)  # one pass over the weights, not ten


def layers(encoder: nn.Module) -> dict[str, int]:
    """Name of each parameter of an encoder: its layer, counted from the image.

    A layer is a block, told by the first number in the name ("layer2.0", "block1.2"), or by the second where blocks
    are numbered within a stage ("stages.2.blocks.3"); parameters outside of blocks go by their first word.
    """
    numbers: dict[str, int] = {}
    found = {}
    for name, _ in encoder.named_parameters():
        block = re.match(r"(\D*?\.?)(\d+)\.(blocks?|layers?)\.(\d+)\.", name) or re.match(
            r"[^.]*\.(?:\D*\.)?\d+\.", name
        )
        key = block.group() if block else name.partition(".")[0]
        found[name] = numbers.setdefault(key, len(numbers))
    return found


def learning_rate(step: int, steps: int, config: TrainConfig) -> float:
    """Learning rate of `step`, from 0 on: linear warm-up, then the schedule to almost 0 at the end.

    poly: (1 - progress) ** poly_power, DeepLab's (1606.00915, section 4.1); cosine: half a cosine wave. Progress
    counts from the end of the warm-up; with `warmup_ratio` from step 0, and the warm-up is a factor that rises from
    that ratio to 1, as in mmcv.
    """
    if config.warmup_ratio is not None:
        risen = min(step / config.warmup_steps, 1.0) if config.warmup_steps else 1.0
        factor = config.warmup_ratio + (1 - config.warmup_ratio) * risen
        return config.peak_lr * factor * remaining(step / steps, config)
    if step < config.warmup_steps:
        return config.peak_lr * (step + 1) / (config.warmup_steps + 1)
    progress = (step - config.warmup_steps) / (steps - config.warmup_steps)
    return config.peak_lr * remaining(progress, config)


def remaining(progress: float, config: TrainConfig) -> float:
    """The share of the peak learning rate that the schedule leaves at a progress in [0, 1]."""
    if config.schedule == "constant":
        return 1.0
    if config.schedule == "cosine":
        return (1 + math.cos(math.pi * progress)) / 2
    return float((1 - progress) ** config.poly_power)


def set_learning_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    for group in optimizer.param_groups:
        group["lr"] = rate * group["lr_factor"]


def set_mode(network: nn.Module, config: TrainConfig) -> None:
    """Training mode, but for a frozen encoder and frozen batch norms."""
    network.train()
    found = encoder_of(network)
    if config.frozen_encoder and found is not None:
        found[1].eval()
    if config.frozen_batch_norm:
        for module in network.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.eval()


def last_of(image: Tensor) -> torch.memory_format:
    """The memory format with channels last, of pictures (n, c, h, w) or volumes (n, c, d, h, w)."""
    return torch.channels_last_3d if image.ndim == 5 else torch.channels_last


def to_channels_last(network: nn.Module) -> nn.Module:
    """The network with its convolutions' weights so, of pictures and of volumes."""
    for parameter in network.parameters():
        if parameter.ndim in (4, 5):
            # not `contiguous`, which leaves the strides of 1 x 1 kernels: PyTorch would sum in another order
            parameter.data = parameter.data.to(memory_format=last_of(parameter))
    return network

"""The few pieces that several papers share. Letters: n batch, k classes, c channels, h w pixels."""

from __future__ import annotations

import copy
import functools
import math
import os
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn
from torch.nn import functional as F


@runtime_checkable
class Network(Protocol):
    """What every network here promises (torchvision's contract, and the two-step form of it).

    `forward(image)` returns an OrderedDict: "out", logits (n, k, h, w) at the image's size, and "aux..." heads.
    `coarse(image)` returns the logits of "out" before the last enlargement, (n, k, ~h/stride, ~w/stride);
    enlarging them bilinearly with `align_corners` gives "out".
    """

    stride: int
    align_corners: bool

    @property
    def num_classes(self) -> int: ...

    def coarse(self, image: Tensor) -> Tensor: ...

    def __call__(self, image: Tensor) -> dict[str, Tensor]: ...


def enlarge(logits: Tensor, size_hw: tuple[int, int], *, align_corners: bool) -> Tensor:
    """Bilinear: (n, k, h', w') to (n, k, h, w)."""
    return F.interpolate(logits, size=size_hw, mode="bilinear", align_corners=align_corners)


def enlarge_like(logits: Tensor, like: Tensor, *, align_corners: bool) -> Tensor:
    """`enlarge` to the height and width of `like` (n, c, h, w)."""
    return enlarge(logits, (like.shape[-2], like.shape[-1]), align_corners=align_corners)


def with_input_channels(conv: nn.Conv2d, in_channels: int, *, trained: bool = True) -> nn.Conv2d:
    """The first convolution of a network for another number of channels: itself for 3, else a copy.

    SMP's rule, for trained filters: one channel gets the sum of the three, more (or two) get them in turn, times
    3/in_channels, so that activations keep their size. Untrained ones are drawn anew, by He's rule for what goes out,
    as torchvision draws them.
    """
    if in_channels == conv.in_channels:
        return conv
    with torch.no_grad():
        if not trained:
            weight = conv.weight.new_empty(conv.out_channels, in_channels, *conv.kernel_size)
            nn.init.kaiming_normal_(weight, mode="fan_out", nonlinearity="relu")
        elif in_channels == 1:
            weight = conv.weight.sum(dim=1, keepdim=True)
        else:
            turn = [i % conv.in_channels for i in range(in_channels)]
            weight = conv.weight[:, turn] * (conv.in_channels / in_channels)
    new = copy.deepcopy(conv)
    new.in_channels, new.weight = in_channels, nn.Parameter(weight)
    return new


def behind(module: Any) -> Any:
    """The network that a module stands for: inside DataParallel and its kin, of a compiled network of ours, whose
    `coarse` nobody has compiled, and of a model of `pixelwise.smp`; else the module itself."""
    if isinstance(module, (nn.DataParallel, nn.parallel.DistributedDataParallel)):
        return behind(module.module)
    compiled = getattr(module, "_orig_mod", None)
    if compiled is not None and isinstance(behind(compiled), Network):
        return behind(compiled)
    return getattr(module, "pixelwise_network", module)


@contextmanager
def evaluating(network: nn.Module) -> Iterator[None]:
    """The network in evaluation mode while the block runs; then each part is as it was, frozen norms too. Of several
    threads at once, the last one that leaves puts the parts back."""
    parts = [*network.modules()]
    with _switching:
        trained = any(part.training for part in parts)
        for part in parts:
            if part.training or id(part) in _switched:
                _, count = _switched.get(id(part), (part, 0))
                _switched[id(part)] = part, count + 1
        if trained:
            network.eval()
        entered = [part for part in parts if id(part) in _switched]
    try:
        yield
    finally:
        with _switching:
            for part in entered:
                _, count = _switched.pop(id(part), (part, 1))
                if count > 1:
                    _switched[id(part)] = part, count - 1
                else:
                    part.training = True


_switched: dict[int, tuple[nn.Module, int]] = {}
"""The parts that were training before some block began, and how many blocks are still at work with them."""

_switching = threading.Lock()


def _restore() -> None:
    """In a forked process, where the other threads are not."""
    global _switching
    _switching = threading.Lock()
    for part, _ in _switched.values():
        part.training = True
    _switched.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_restore)


def classes_of(head: nn.Module) -> int:
    """How many classes a head tells apart: the channels of its last convolution, even a replaced one."""
    return [module.out_channels for module in head.modules() if isinstance(module, nn.Conv2d)][-1]


Norm = str | Mapping[str, Any] | None
"""A kind of normalisation: a key of `NORMS`, None for none, or {"name": a key, **options of its layer}."""


def norm_layer(norm: Norm, channels: int, *, pooled: bool = False) -> nn.Module:
    """The layer that normalises a map of `channels`; nn.Identity for None.

    pooled: the map is a single pixel. Where there is nothing to compare, one channel for "layer" or one pixel for
    "instance", the result would be 0 whatever comes in, and there is no norm instead.
    Raises ValueError for an unknown kind.
    """
    options = dict(norm) if isinstance(norm, Mapping) else {"name": norm}
    name = options.pop("name", None)
    if name is not None and name not in NORMS:
        raise ValueError(f"norm must be one of {', '.join(map(repr, NORMS))} or None, got {name!r}")
    if name is None or (name == "layer" and channels == 1) or (name == "instance" and pooled):
        return nn.Identity()
    layer: nn.Module = NORMS[name](channels, **options)
    return layer


class LayerNorm2d(nn.LayerNorm):
    """Layer norm over the channels of every pixel; (n, c, h, w) stays."""

    def __init__(self, channels: int, eps: float = 1e-6) -> None:
        super().__init__(channels, eps)

    def forward(self, image: Tensor) -> Tensor:
        normed = F.layer_norm(image.movedim(1, -1), self.normalized_shape, self.weight, self.bias, self.eps)
        return normed.movedim(-1, 1)


def _group_norm(channels: int, groups: int | None = None, **options: Any) -> nn.GroupNorm:
    return nn.GroupNorm(groups or groups_for(channels), channels, **options)


def groups_for(channels: int) -> int:
    """32 groups, as the paper (1803.08494), or fewer, so that a group has four channels and all are equal."""
    return math.gcd(32, max(1, channels // 4), channels)


def _instance_norm(channels: int, affine: bool = True, **options: Any) -> nn.InstanceNorm2d:
    return nn.InstanceNorm2d(channels, affine=affine, **options)


NORMS: dict[str, Callable[..., nn.Module]] = {
    "batch": nn.BatchNorm2d,
    "group": _group_norm,
    "instance": _instance_norm,
    "layer": LayerNorm2d,
}


ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "gelu": F.gelu,
    "gelu_tanh": functools.partial(F.gelu, approximate="tanh"),
    "hardswish": F.hardswish,
    "leaky_relu": F.leaky_relu,
    "mish": F.mish,
    "relu": F.relu,
    "relu6": F.relu6,
    "sigmoid": torch.sigmoid,
    "silu": F.silu,
    "tanh": torch.tanh,
}
"""Activations by name, for the encoders that let one choose. "gelu" is exact, "gelu_tanh" its approximation."""


def activation(name: str) -> Callable[[Tensor], Tensor]:
    """The function of that name; raises ValueError for an unknown one."""
    if name not in ACTIVATIONS:
        raise ValueError(f"activation must be one of {', '.join(ACTIVATIONS)}, got {name!r}")
    return ACTIVATIONS[name]


def conv_norm_relu(
    in_channels: int,
    out_channels: int,
    kernel: int,
    rate: int = 1,
    *,
    norm: Norm = "batch",
    pooled: bool = False,
) -> nn.Sequential:
    """Convolution of odd `kernel` that keeps the size, norm, ReLU; a bias where there is no norm.

    norm, pooled: see `norm_layer`.
    """
    layer = norm_layer(norm, out_channels, pooled=pooled)
    bias = isinstance(layer, nn.Identity)
    conv = nn.Conv2d(
        in_channels, out_channels, kernel, padding=rate * (kernel // 2), dilation=rate, bias=bias
    )
    return nn.Sequential(conv, layer, nn.ReLU())

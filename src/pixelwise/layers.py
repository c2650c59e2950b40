"""The few pieces that several papers share. Letters: n batch, k classes, c channels, h w pixels."""

from __future__ import annotations

import copy
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor, nn
from torch.nn import functional as F


@runtime_checkable
class Network(Protocol):
    """What every network here promises (torchvision's contract, and the two-step form of it).

    `forward(image)` returns a dictionary: "out", logits (n, k, h, w) at the image's size, and "aux..." heads.
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


def with_input_channels(conv: nn.Conv2d, in_channels: int) -> nn.Conv2d:
    """The first convolution of a pretrained network for another number of channels: itself for 3, else a copy.

    SMP's rule: one channel gets the sum of the three filters, more (or two) get them in turn, times
    3/in_channels, so that activations keep their size.
    """
    if in_channels == conv.in_channels:
        return conv
    with torch.no_grad():
        if in_channels == 1:
            weight = conv.weight.sum(dim=1, keepdim=True)
        else:
            turn = [i % conv.in_channels for i in range(in_channels)]
            weight = conv.weight[:, turn] * (conv.in_channels / in_channels)
    new = copy.deepcopy(conv)
    new.in_channels, new.weight = in_channels, nn.Parameter(weight)
    return new


def classes_of(head: nn.Module) -> int:
    """How many classes a head tells apart: the channels of its last convolution, even a replaced one."""
    return [module.out_channels for module in head.modules() if isinstance(module, nn.Conv2d)][-1]

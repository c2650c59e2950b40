"""EfficientNet and MobileOne of timm under the names of tensors that segmentation_models.pytorch (SMP) has for them:
those of TensorFlow's port and those of MobileOne's authors. The layers are timm's, and so is what they compute.

Letters: n batch, c channels, h w pixels.
"""

from __future__ import annotations

import itertools
import math
from typing import Any

from torch import Tensor, nn

REPEATS = (1, 2, 2, 3, 3, 4, 1)
"""Table 1 of 1905.11946: blocks of each stage, times the depth of the size, rounded up."""

DEPTHS = {"b0": 1.0, "b1": 1.1, "b2": 1.2, "b3": 1.4, "b4": 1.8, "b5": 2.2, "b6": 2.6, "b7": 3.1}


class EfficientNet(nn.Module):
    """The layers of timm's `network`, blocks counted from the first to the last."""

    def __init__(self, network: Any) -> None:
        super().__init__()
        self._conv_stem, self._bn0 = network.conv_stem, network.bn1
        self._blocks = nn.ModuleList(MBConvBlock(block) for stage in network.blocks for block in stage)
        self._conv_head, self._bn1 = network.conv_head, network.bn2


class MBConvBlock(nn.Module):
    """(n, c, h, w) -> (n, c', h / stride, w / stride). The norms of timm have their activation in them."""

    def __init__(self, block: Any) -> None:
        super().__init__()
        if hasattr(block, "conv_pwl"):
            self._expand_conv, self._bn0 = block.conv_pw, block.bn1
            self._depthwise_conv, self._bn1 = block.conv_dw, block.bn2
            last, norm = block.conv_pwl, block.bn3
        else:  # the first, which does not expand
            self._expand_conv, self._bn0 = nn.Identity(), nn.Identity()
            self._depthwise_conv, self._bn1 = block.conv_dw, block.bn1
            last, norm = block.conv_pw, block.bn2
        self._se_reduce, self._swish = block.se.conv_reduce, block.se.act1
        self._se_expand, self._gate = block.se.conv_expand, block.se.gate
        self._project_conv, self._bn2 = last, norm
        self._drop_path, self._has_skip = block.drop_path, bool(block.has_skip)

    def forward(self, x: Tensor) -> Tensor:
        shortcut = x
        x = self._bn0(self._expand_conv(x))
        x = self._bn1(self._depthwise_conv(x))
        squeezed = self._swish(self._se_reduce(x.mean((2, 3), keepdim=True)))  # (n, c'', 1, 1)
        x = x * self._gate(self._se_expand(squeezed))
        x = self._bn2(self._project_conv(x))
        return self._drop_path(x) + shortcut if self._has_skip else x


def efficientnet_stages(size: str) -> tuple[tuple[str, ...], ...]:
    """What leads to each feature, as `staged.StagedEncoder` takes it."""
    ends = list(itertools.accumulate(math.ceil(count * DEPTHS[size]) for count in REPEATS))
    # Of "b0" SMP takes the fourth feature two blocks early; what was trained so needs it there
    cuts = (0, ends[1], ends[2], ends[4] - 2 if size == "b0" else ends[4], ends[6])
    blocks = (tuple(f"_blocks.{i}" for i in range(a, b)) for a, b in itertools.pairwise(cuts))
    return (("_conv_stem", "_bn0"), *blocks)


class MobileOne(nn.Module):
    """The layers of timm's `network`, the stem as stage 0."""

    def __init__(self, network: Any) -> None:
        super().__init__()
        self.stage0 = MobileOneBlock(network.stem)
        for i, stage in enumerate(network.stages, start=1):
            self.add_module(f"stage{i}", nn.Sequential(*map(MobileOneBlock, stage)))


class MobileOneBlock(nn.Module):
    """(n, c, h, w) -> (n, c', h / stride, w / stride), with the branches that training has."""

    def __init__(self, block: Any) -> None:
        super().__init__()
        attention = block.attn
        self.se = attention if isinstance(attention, nn.Identity) else SqueezeExcite(attention)
        self.rbr_skip, self.rbr_conv, self.rbr_scale = block.identity, block.conv_kxk, block.conv_scale
        self.drop_path, self.activation = block.drop_path, block.act

    def forward(self, x: Tensor) -> Tensor:
        skip = x
        if self.rbr_skip is not None:  # called in timm's order, which decides how gradients are rounded
            skip = self.rbr_skip(x)
        out = x
        if self.rbr_scale is not None:
            out = self.rbr_scale(x)
        for i, branch in enumerate(self.rbr_conv):
            out = branch(x) if i == 0 and self.rbr_scale is None else out + branch(x)
        out = self.drop_path(out)
        if self.rbr_skip is not None:
            out = out + skip
        activated: Tensor = self.activation(self.se(out))
        return activated


class SqueezeExcite(nn.Module):
    """(n, c, h, w) -> the same, each channel times a number from 0 to 1."""

    def __init__(self, attention: Any) -> None:
        super().__init__()
        self.reduce, self.expand = attention.fc1, attention.fc2
        self.activation, self.gate = attention.act, attention.gate

    def forward(self, x: Tensor) -> Tensor:
        scale: Tensor = self.gate(self.expand(self.activation(self.reduce(x.mean((2, 3), keepdim=True)))))
        return x * scale

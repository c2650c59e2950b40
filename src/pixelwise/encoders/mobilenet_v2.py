"""MobileNetV2 encoder. Inverted Residuals and Linear Bottlenecks. Sandler, Howard, Zhu, Zhmoginov, Chen, CVPR 2018,
1801.04381.

The layers are torchvision's `features` without the last 1x1 convolution (Table 2 of the paper). VainF's port of
DeepLab pads in another place, see `pads_input`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models import mobilenet_v2 as classifier

ENDS = {1: 2, 3: 4, 6: 8, 13: 16, 17: 32}
"""The last layer of each stride (Table 2)."""


class MobileNetV2Encoder(nn.Module):
    """image (n, in_channels, h, w) -> features, finest first; any height and width from 1 up (from 3, `pads_input`).

    `levels` chooses among the ends of five strides (2, 4, 8, 16, 32; layers 1, 3, 6, 13 and 17). With `output_stride`
    8 or 16 later stages are dilated instead of striding: the block that loses its stride keeps the rate it had.
    pads_input: as VainF's port, the first convolution does not pad, so that features are smaller by up to a pixel, and
    blocks pad before the expansion instead of after it, where zeros are no longer zeros.
    """

    def __init__(
        self,
        *,
        in_channels: int = 3,
        output_stride: int = 32,
        levels: Sequence[int] = (0, 1, 2, 3, 4),
        width_mult: float = 1.0,
        pads_input: bool = False,
    ) -> None:
        super().__init__()
        if output_stride not in (8, 16, 32):
            raise ValueError(f"output_stride must be 8, 16 or 32, got {output_stride!r}")
        layers: list[Any] = list(classifier(weights=None, width_mult=width_mult).features[:18])
        stem = layers[0][0]
        layers[0][0] = nn.Conv2d(
            in_channels, stem.out_channels, 3, stride=2, padding=0 if pads_input else 1, bias=False
        )
        nn.init.kaiming_normal_(layers[0][0].weight, mode="fan_out")
        stride, rate = 2, 1
        for place, layer in enumerate(layers[1:], start=1):
            depthwise = layer.conv[-3][0]
            depthwise.dilation = (rate, rate)
            depthwise.padding = (0, 0) if pads_input else (rate, rate)
            if depthwise.stride == (2, 2):
                if stride == output_stride:
                    depthwise.stride, rate = (1, 1), rate * 2
                else:
                    stride *= 2
            if pads_input:
                layers[place] = PadsInput(layer)
        self.features = nn.Sequential(*layers)
        self.pads_input = pads_input
        self.ends = [list(ENDS)[level] for level in levels]
        self.channels: tuple[int, ...] = tuple(layers[end].conv[-1].num_features for end in self.ends)
        self.strides = tuple(min(ENDS[end], output_stride) for end in self.ends)

    def forward(self, image: Tensor) -> list[Tensor]:
        h, w = image.shape[-2], image.shape[-1]
        if self.pads_input and not torch.compiler.is_compiling() and min(h, w) < 3:
            raise ValueError(
                f"this MobileNetV2 needs at least 3 pixels on each side, got {h}x{w}; pad to 3x3"
            )
        features, x = [], image
        for place, layer in enumerate(self.features):
            x = layer(x)
            if place in self.ends:
                features.append(x)
        return features


class PadsInput(nn.Module):
    """An inverted residual that pads its input by the rate of its depthwise convolution."""

    def __init__(self, block: Any) -> None:
        super().__init__()
        self.conv, self.adds_input = block.conv, block.use_res_connect
        self.pad_px: int = block.conv[-3][0].dilation[0]

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.conv(F.pad(x, (self.pad_px,) * 4))
        return x + y if self.adds_input else y

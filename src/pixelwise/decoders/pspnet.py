"""PSPNet on any encoder. Pyramid Scene Parsing Network. Zhao, Shi, Qi, Wang, Jia, CVPR 2017, 1612.01105.

The encoder's last feature, next to its means over 1, 4, 9 and 36 parts of the image. As in SMP the feature is that of
stride 8 after three halvings, where the paper has a dilated ResNet of five stages, and the part that is the whole
image has no norm.

Letters: n batch, c channels, k classes, h w pixels, s stride of the last feature.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from pixelwise.decoders.network import (
    EncoderDecoder,
    auxiliary_head,
    check_encoder,
    head,
    initialise,
    resize_like,
)
from pixelwise.layers import Norm, conv_norm_relu
from pixelwise.models.upernet import AdaptiveAvgPool

POOL_SIZES = (1, 2, 3, 6)


class PSPNet(EncoderDecoder):
    """image (n, in_channels, h, w), float -> {"out": logits (n, k, h, w)}, with `aux_loss` also "aux", alike.

    encoder: its last feature is used, whatever its stride; none should lie beyond it (`create_model` sees to that),
    so that every weight learns. width: channels of the head. dropout: of whole channels, in training. norm:
    `layers.Norm`.
    """

    def __init__(
        self,
        encoder: Any,
        num_classes: int = 1,
        *,
        width: int = 512,
        dropout: float = 0.2,
        norm: Norm = "batch",
        aux_loss: bool = False,
    ) -> None:
        check_encoder("pspnet", encoder)
        decoder = PSPDecoder(encoder.channels[-1], width, dropout, norm)
        initialise(decoder)
        super().__init__(
            encoder,
            decoder,
            head(width, num_classes, 3),
            stride=encoder.strides[-1],
            aux=auxiliary_head(encoder, num_classes, norm, wanted=aux_loss),
        )


class PSPDecoder(nn.Module):
    """Features, finest first -> (n, width, h/s, w/s)."""

    def __init__(self, channels: int, width: int, dropout: float, norm: Norm) -> None:
        super().__init__()
        self.psp = Pyramid(channels, norm)
        self.conv = conv_norm_relu(
            channels + len(POOL_SIZES) * (channels // len(POOL_SIZES)), width, 1, norm=norm
        )
        self.dropout = nn.Dropout2d(dropout)

    def forward(self, features: list[Tensor], size_hw: tuple[int, int] | None = None) -> Tensor:
        x: Tensor = self.dropout(self.conv(self.psp(features[-1])))
        return x


class Pyramid(nn.Module):
    """(n, c, h, w) -> the pooled maps, then x itself: (n, ~2c, h, w)."""

    def __init__(self, channels: int, norm: Norm) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(
            Pool(channels, channels // len(POOL_SIZES), size, norm) for size in POOL_SIZES
        )

    def forward(self, x: Tensor) -> Tensor:
        maps: list[Tensor] = []
        for block in self.blocks:
            maps.append(block(x))
        maps.append(x)
        return torch.cat(maps, dim=1)


class Pool(nn.Module):
    """Means over size x size parts, 1x1 convolution, enlarged again; (n, c, h, w) -> (n, out, h, w)."""

    def __init__(self, channels: int, out_channels: int, size: int, norm: Norm) -> None:
        super().__init__()
        self.pool = nn.Sequential(
            AdaptiveAvgPool(size),
            conv_norm_relu(channels, out_channels, 1, norm=None if size == 1 else norm),
        )

    def forward(self, x: Tensor) -> Tensor:
        return resize_like(self.pool(x), x, "bilinear", align_corners=True)

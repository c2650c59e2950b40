"""DeepLabV3 on any encoder. Rethinking Atrous Convolution for Semantic Image Segmentation. Chen, Papandreou, Schroff,
Adam, 2017, 1706.05587.

The pyramid is that of `pixelwise.models.segmentation.deeplabv3`, torchvision's network, with SMP's names around it, its
choice of depthwise separable convolutions, and logits that are enlarged corner to corner.

Letters: n batch, c channels, k classes, h w pixels, s stride of the last feature.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

from torch import Tensor, nn

from pixelwise.decoders.network import EncoderDecoder, auxiliary_head, check_encoder
from pixelwise.layers import Norm, conv_norm_relu, norm_layer
from pixelwise.models.segmentation.deeplabv3 import ASPP


class DeepLabV3(EncoderDecoder):
    """image (n, in_channels, h, w), float -> {"out": logits (n, k, h, w)}, with `aux_loss` also "aux", alike.

    encoder: its last feature is used, meant to have stride 8 or 16 by dilation. width: channels of the pyramid.
    atrous_rates: of its 3x3 convolutions, meant for stride 8. separable: split those into depthwise and pointwise
    ones. dropout: behind the pyramid, in training. norm: `layers.Norm`. Training needs a batch of two or more, see
    `models.segmentation.deeplabv3.ASPPPooling`.
    """

    def __init__(
        self,
        encoder: Any,
        num_classes: int = 1,
        *,
        width: int = 256,
        atrous_rates: Sequence[int] = (12, 24, 36),
        separable: bool = False,
        dropout: float = 0.5,
        norm: Norm = "batch",
        aux_loss: bool = False,
    ) -> None:
        check_encoder("deeplabv3", encoder)
        super().__init__(
            encoder,
            DeepLabV3Decoder(encoder.channels[-1], width, atrous_rates, separable, dropout, norm),
            nn.Sequential(nn.Conv2d(width, num_classes, 1)),
            stride=encoder.strides[-1],
            aux=auxiliary_head(encoder, num_classes, norm, wanted=aux_loss),
        )


class DeepLabV3Decoder(nn.Module):
    """Features, finest first -> (n, width, h/s, w/s)."""

    def __init__(
        self,
        channels: int,
        width: int,
        atrous_rates: Sequence[int],
        separable: bool,
        dropout: float,
        norm: Norm,
    ) -> None:
        super().__init__()
        self.aspp = pyramid(channels, width, atrous_rates, separable, dropout, norm)
        self.conv, self.bn, self.relu = conv_norm_relu(width, width, 3, norm=norm)

    def forward(self, features: list[Tensor], size_hw: tuple[int, int] | None = None) -> Tensor:
        x: Tensor = self.relu(self.bn(self.conv(self.aspp(features[-1]))))
        return x


def pyramid(
    channels: int, width: int, atrous_rates: Sequence[int], separable: bool, dropout: float, norm: Norm
) -> ASPP:
    """The atrous pyramid, with plain or separable convolutions."""
    conv = partial(separable_norm_relu, norm=norm) if separable else None
    return ASPP(channels, tuple(atrous_rates), width, dropout=dropout, conv=conv, norm=norm)


def separable_norm_relu(
    in_channels: int, out_channels: int, kernel: int, rate: int = 1, *, norm: Norm = "batch"
) -> nn.Sequential:
    """Depthwise and pointwise convolution with nothing between, norm, ReLU; the size is kept."""
    return nn.Sequential(
        separable_conv(in_channels, out_channels, kernel, rate), norm_layer(norm, out_channels), nn.ReLU()
    )


def separable_conv(in_channels: int, out_channels: int, kernel: int, rate: int = 1) -> nn.Sequential:
    """Depthwise and pointwise convolution, without biases."""
    padding = rate * (kernel // 2)
    return nn.Sequential(
        nn.Conv2d(
            in_channels, in_channels, kernel, padding=padding, dilation=rate, groups=in_channels, bias=False
        ),
        nn.Conv2d(in_channels, out_channels, 1, bias=False),
    )

"""DeepLabV3+ on any encoder. Encoder-Decoder with Atrous Separable Convolution for Semantic Image Segmentation. Chen,
Zhu, Papandreou, Schroff, Adam, ECCV 2018, 1802.02611.

The pyramid of DeepLabV3, enlarged to a quarter of the image, meets the encoder's feature of that size. As in SMP a
separable convolution follows the pyramid, one where the paper has two follows the meeting, none has a norm between its
depthwise and pointwise half, and all enlarging is corner to corner. `pixelwise.models.deeplabv3plus` has the paper's.

Letters: n batch, c channels, k classes, h w pixels, s stride of the last feature.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from pixelwise.decoders.deeplabv3 import pyramid, separable_conv, separable_norm_relu
from pixelwise.decoders.network import EncoderDecoder, auxiliary_head, check_encoder, resize_like
from pixelwise.layers import Norm, conv_norm_relu, norm_layer


class DeepLabV3Plus(EncoderDecoder):
    """image (n, in_channels, h, w), float -> {"out": logits (n, k, h, w)}, with `aux_loss` also "aux", alike.

    encoder: its last feature, meant to have stride 8 or 16 by dilation, and its finest of stride 4 or more. The other
    arguments are those of `decoders.deeplabv3.DeepLabV3`. Training needs a batch of two or more.
    """

    def __init__(
        self,
        encoder: Any,
        num_classes: int = 1,
        *,
        width: int = 256,
        atrous_rates: Sequence[int] = (12, 24, 36),
        separable: bool = True,
        dropout: float = 0.5,
        norm: Norm = "batch",
        aux_loss: bool = False,
    ) -> None:
        fine = check_encoder("deeplabv3plus", encoder)[0]
        super().__init__(
            encoder,
            DeepLabV3PlusDecoder(
                fine - len(encoder.channels),
                encoder.channels[fine],
                encoder.channels[-1],
                width,
                atrous_rates,
                separable,
                dropout,
                norm,
            ),
            nn.Sequential(nn.Conv2d(width, num_classes, 1)),
            stride=encoder.strides[fine],
            aux=auxiliary_head(encoder, num_classes, norm, wanted=aux_loss),
        )


class DeepLabV3PlusDecoder(nn.Module):
    """Features, finest first -> (n, width, h/4, w/4). fine: the place of the finer one that is used, from the end."""

    def __init__(
        self, fine: int, fine_channels: int, channels: int, width: int, atrous_rates: Sequence[int], separable: bool,
        dropout: float, norm: Norm,
    ) -> None:  # fmt: skip
        super().__init__()
        self.fine = fine
        self.aspp = nn.Sequential(
            pyramid(channels, width, atrous_rates, separable, dropout, norm),
            separable_conv(width, width, 3),
            norm_layer(norm, width),
            nn.ReLU(),
        )
        self.block1 = conv_norm_relu(fine_channels, 48, 1, norm=norm)
        self.block2 = separable_norm_relu(48 + width, width, 3, norm=norm)

    def forward(self, features: list[Tensor], size_hw: tuple[int, int] | None = None) -> Tensor:
        fine: Tensor = self.block1(features[self.fine])  # (n, 48, h/4, w/4)
        context = resize_like(self.aspp(features[-1]), fine, "bilinear", align_corners=True)
        x: Tensor = self.block2(torch.cat([context, fine], dim=1))  # (n, width, h/4, w/4)
        return x

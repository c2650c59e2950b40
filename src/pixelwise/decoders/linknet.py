"""LinkNet on any encoder. LinkNet: Exploiting Encoder Representations for Efficient Semantic Segmentation. Chaurasia,
Culurciello, VCIP 2017, 1707.03718.

Steps that halve the channels twice around a transposed convolution, and add the encoder's feature instead of
concatenating it. As in SMP the steps have 4x4 kernels and one of them leads to the image's size, in place of the
paper's last two deconvolutions.

Letters: n batch, c channels, k classes, h w pixels.
"""

from __future__ import annotations

import itertools
from typing import Any

from torch import Tensor, nn

from pixelwise.decoders.network import (
    EncoderDecoder,
    auxiliary_head,
    head,
    initialise,
    levels_up,
    resize,
    size_at,
    size_of_image,
)
from pixelwise.layers import Norm, conv_norm_relu, norm_layer


class Linknet(EncoderDecoder):
    """image (n, in_channels, h, w), float -> {"out": logits (n, k, h, w)}, with `aux_loss` also "aux", alike.

    encoder: as in `Unet`. width: channels after the last step. norm: `layers.Norm`. A doubled size that is not the
    skip's (odd sides) is made so bilinearly.
    """

    def __init__(
        self,
        encoder: Any,
        num_classes: int = 1,
        *,
        width: int = 32,
        norm: Norm = "batch",
        aux_loss: bool = False,
    ) -> None:
        decoder = LinknetDecoder(encoder, width, norm)
        initialise(decoder)
        super().__init__(
            encoder,
            decoder,
            head(width, num_classes, 1),
            stride=1,
            aux=auxiliary_head(encoder, num_classes, norm, wanted=aux_loss),
        )


class LinknetDecoder(nn.Module):
    """Features, finest first, and the image's size -> (n, width, h, w). Without the size, the first of the features is
    the image, as in SMP.
    """

    def __init__(self, encoder: Any, width: int, norm: Norm) -> None:
        super().__init__()
        levels = levels_up("linknet", encoder)
        self.skips, self.strides = [level.skip for level in levels], [level.stride for level in levels]
        self.count, self.finest = len(encoder.channels), encoder.strides[0]
        channels = [encoder.channels[-1]]
        for level in levels[:-1]:  # where there is nothing to add, channels stay
            channels.append(level.channels or channels[-1])
        channels.append(width)
        self.blocks = nn.ModuleList(
            Block(before, after, norm) for before, after in itertools.pairwise(channels)
        )

    def forward(self, features: list[Tensor], size_hw: tuple[int, int] | None = None) -> Tensor:
        image_hw = size_of_image(features, size_hw, self.count, self.finest)
        features = features[-self.count :]
        x = features[-1]
        for i, block in enumerate(self.blocks):
            size = size_at(self.strides[i], self.skips[i], features, image_hw)
            x = resize(block(x), size, "bilinear", align_corners=False)
            if self.skips[i] >= 0:
                x = x + features[self.skips[i]]
        return x


class Block(nn.Module):
    """(n, in, h, w) -> (n, out, 2h, 2w)."""

    def __init__(self, in_channels: int, out_channels: int, norm: Norm) -> None:
        super().__init__()
        narrow = max(1, in_channels // 4)
        self.block = nn.Sequential(
            conv_norm_relu(in_channels, narrow, 1, norm=norm),
            nn.Sequential(
                nn.ConvTranspose2d(narrow, narrow, 4, stride=2, padding=1),
                norm_layer(norm, narrow),
                nn.ReLU(),
            ),
            conv_norm_relu(narrow, out_channels, 1, norm=norm),
        )

    def forward(self, x: Tensor) -> Tensor:
        enlarged: Tensor = self.block(x)
        return enlarged

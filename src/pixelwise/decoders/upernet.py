"""UPerNet on any encoder. Unified Perceptual Parsing for Scene Understanding. Xiao, Liu, Zhou, Jiang, Sun, ECCV 2018,
1807.10221.

PSPNet's pooling pyramid on the deepest feature, a feature pyramid over all, everything enlarged and fused at the
finest. As in SMP every feature passes a layer norm first. `pixelwise.models.upernet` has mmsegmentation's network on
ConvNeXt, with its names; the pooling is shared.

Letters: n batch, c channels, k classes, h w pixels.
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
from pixelwise.layers import LayerNorm2d, Norm, conv_norm_relu
from pixelwise.models.upernet import AdaptiveAvgPool

POOL_SIZES = (1, 2, 3, 6)


class UPerNet(EncoderDecoder):
    """image (n, in_channels, h, w), float -> {"out": logits (n, k, h, w)}, with `aux_loss` also "aux", alike.

    encoder: its features of stride 4 and more are used, two at least. width: channels of the decoder. norm:
    `layers.Norm`. pyramid_norm: of the convolution behind the pooling pyramid; "same" for `norm`, while SMP has
    "batch" there whatever the others are. Training needs two images or more in a batch, or another norm than batch
    norm, because of the pooling to one pixel.
    """

    def __init__(
        self,
        encoder: Any,
        num_classes: int = 1,
        *,
        width: int = 256,
        norm: Norm = "batch",
        pyramid_norm: Norm = "same",
        aux_loss: bool = False,
    ) -> None:
        used = check_encoder("upernet", encoder)
        last = norm if pyramid_norm == "same" else pyramid_norm
        decoder = UPerNetDecoder([encoder.channels[place] for place in used], width, norm, last)
        initialise(decoder)
        super().__init__(
            encoder,
            decoder,
            head(width, num_classes, 1),
            stride=encoder.strides[used[0]],
            aux=auxiliary_head(encoder, num_classes, norm, wanted=aux_loss),
        )


class UPerNetDecoder(nn.Module):
    """Features, finest first -> (n, width, h_i, w_i), the size of the finest that is used."""

    def __init__(self, channels: list[int], width: int, norm: Norm, pyramid_norm: Norm) -> None:
        super().__init__()
        self.feature_norms = nn.ModuleList(LayerNorm2d(c) for c in channels)
        self.psp = Pyramid(channels[-1], width, norm, pyramid_norm)
        self.fpn_lateral_blocks = nn.ModuleList(Lateral(c, width, norm) for c in reversed(channels[:-1]))
        self.fpn_conv_blocks = nn.ModuleList(
            conv_norm_relu(width, width, 3, norm=norm) for _ in channels[:-1]
        )
        self.fusion_block = conv_norm_relu(len(channels) * width, width, 3, norm=norm)

    def forward(self, features: list[Tensor], size_hw: tuple[int, int] | None = None) -> Tensor:
        features = features[-len(self.feature_norms) :]
        normed: list[Tensor] = []
        for i, norm in enumerate(self.feature_norms):
            normed.append(norm(features[i]))
        state: Tensor = self.psp(normed[-1])
        states = [state]
        for i, lateral in enumerate(self.fpn_lateral_blocks):
            state = lateral(state, normed[-2 - i])
            states.append(state)
        levels = [states[0]]
        for i, conv in enumerate(self.fpn_conv_blocks):
            levels.append(conv(states[i + 1]))
        finest = levels[-1]
        alike = [resize_like(level, finest, "bilinear", align_corners=False) for level in levels[::-1]]
        fused: Tensor = self.fusion_block(torch.cat(alike, dim=1))
        return fused


class Pyramid(nn.Module):
    """x next to its means over parts of the image, mixed; (n, c, h, w) -> (n, width, h, w)."""

    def __init__(self, channels: int, width: int, norm: Norm, out_norm: Norm) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(
            nn.Sequential(
                AdaptiveAvgPool(size), conv_norm_relu(channels, width, 1, norm=norm, pooled=size == 1)
            )
            for size in POOL_SIZES
        )
        self.out_conv = conv_norm_relu(channels + len(POOL_SIZES) * width, width, 3, norm=out_norm)

    def forward(self, x: Tensor) -> Tensor:
        if not torch.jit.is_scripting():  # type: ignore[attr-defined]
            self._refuse_one_image(x)
        maps = [x]
        for block in self.blocks:
            maps.append(resize_like(block(x), x, "bilinear", align_corners=False))
        mixed: Tensor = self.out_conv(torch.cat(maps, dim=1))
        return mixed

    def _refuse_one_image(self, x: Tensor) -> None:
        norm = self.blocks[0].get_submodule("1.1")
        exporting = torch.compiler.is_exporting()
        if isinstance(norm, nn.BatchNorm2d) and norm.training and not exporting and x.shape[0] == 1:
            raise ValueError(
                "UPerNet trains on two images or more at a time, as its pooling to one pixel leaves batch norm a "
                "single value per channel, got 1; enlarge the batch, put the batch norms into eval(), or choose "
                "another norm"
            )


class Lateral(nn.Module):
    """The coarser state, enlarged, plus a 1x1 convolution of the encoder's feature."""

    def __init__(self, channels: int, width: int, norm: Norm) -> None:
        super().__init__()
        self.conv_norm_relu = conv_norm_relu(channels, width, 1, norm=norm)

    def forward(self, state: Tensor, feature: Tensor) -> Tensor:
        feature = self.conv_norm_relu(feature)
        return resize_like(state, feature, "bilinear", align_corners=False) + feature

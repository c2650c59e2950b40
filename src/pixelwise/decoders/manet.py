"""MA-Net on any encoder. MA-Net: A Multi-Scale Attention Network for Liver and Tumor Segmentation. Fan, Wang, Li,
Wang, IEEE Access 2020, 10.1109/ACCESS.2020.3025372.

A U-Net whose deepest feature passes through attention between places (PAB, section III-B) and whose steps weigh the
enlarged feature by channel, from itself and from the skip (MFAB, section III-C).

SMP's position attention is not the paper's. It takes one softmax over all pairs of places, so that the weights of
one place do not sum to 1, and then reads its answer (places, channels) as if it were (channels, places), which mixes
the two. `position_attention="smp"` is that, for weights trained with it; "corrected", the default, is the paper's.

Letters: n batch, c channels, k classes, h w pixels, t places, p channels of the attention.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
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
    widths,
)
from pixelwise.layers import Norm, conv_norm_relu


class MAnet(EncoderDecoder):
    """image (n, in_channels, h, w), float -> {"out": logits (n, k, h, w)}, with `aux_loss` also "aux", alike.

    encoder, decoder_channels, interpolation, norm: as in `Unet`. attention_channels: the p of the position attention,
    whose cost grows with the fourth power of the image's side. reduction: of the channels in the gates.
    position_attention: "corrected" or "smp", see above.
    """

    def __init__(
        self,
        encoder: Any,
        num_classes: int = 1,
        *,
        decoder_channels: Sequence[int] | None = None,
        attention_channels: int = 64,
        reduction: int = 16,
        interpolation: str = "nearest",
        position_attention: str = "corrected",
        norm: Norm = "batch",
        aux_loss: bool = False,
    ) -> None:
        decoder = MAnetDecoder(
            encoder, decoder_channels, attention_channels, reduction, interpolation, position_attention, norm
        )
        initialise(decoder)
        super().__init__(
            encoder,
            decoder,
            head(decoder.channels[-1], num_classes, 3),
            stride=1,
            aux=auxiliary_head(encoder, num_classes, norm, wanted=aux_loss),
        )


class MAnetDecoder(nn.Module):
    """Features, finest first, and the image's size -> (n, c, h, w). Without the size, the first of the features is the
    image, as in SMP.
    """

    def __init__(
        self, encoder: Any, decoder_channels: Sequence[int] | None, attention_channels: int, reduction: int,
        interpolation: str, position_attention: str, norm: Norm,
    ) -> None:  # fmt: skip
        super().__init__()
        levels = levels_up("manet", encoder)
        self.channels = widths("manet", levels, decoder_channels)
        self.skips, self.strides = [level.skip for level in levels], [level.stride for level in levels]
        self.count, self.finest = len(encoder.channels), encoder.strides[0]
        deepest = encoder.channels[-1]
        self.center = PositionAttention(deepest, attention_channels, position_attention)
        self.blocks = nn.ModuleList(
            FusionAttention(before, level.channels, after, reduction, interpolation, norm)
            if level.channels
            else Plain(before, after, interpolation, norm)
            for level, before, after in zip(
                levels, (deepest, *self.channels[:-1]), self.channels, strict=True
            )
        )

    def forward(self, features: list[Tensor], size_hw: tuple[int, int] | None = None) -> Tensor:
        image_hw = size_of_image(features, size_hw, self.count, self.finest)
        features = features[-self.count :]
        x: Tensor = self.center(features[-1])
        for i, block in enumerate(self.blocks):
            skip: Tensor | None = None
            if self.skips[i] >= 0:
                skip = features[self.skips[i]]
            x = block(x, skip, size_at(self.strides[i], self.skips[i], features, image_hw))
        return x


class PositionAttention(nn.Module):
    """x plus what every place takes from all others; (n, c, h, w) stays."""

    def __init__(self, channels: int, attention_channels: int, kind: str) -> None:
        super().__init__()
        if kind not in ("corrected", "smp"):
            raise ValueError(f"position_attention must be 'corrected' or 'smp', got {kind!r}")
        self.kind = kind
        self.top_conv = nn.Conv2d(channels, attention_channels, 1)
        self.center_conv = nn.Conv2d(channels, attention_channels, 1)
        self.bottom_conv = nn.Conv2d(channels, channels, 3, padding=1)
        self.out_conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        asked = self.top_conv(x).flatten(2)  # (n, p, t)
        asking = self.center_conv(x).flatten(2).transpose(1, 2)  # (n, t, p)
        values = self.bottom_conv(x).flatten(2).transpose(1, 2)  # (n, t, c)
        pairs = asking @ asked  # (n, t, t)
        if self.kind == "smp":
            weights = pairs.flatten(1).softmax(dim=1).reshape(pairs.shape)
            taken = (weights @ values).reshape(x.shape)  # (n, t, c) read as (n, c, h, w)
        else:
            taken = (pairs.softmax(dim=2) @ values).transpose(1, 2).reshape(x.shape)
        mixed: Tensor = self.out_conv(x + taken)
        return mixed


class FusionAttention(nn.Module):
    """Two convolutions, enlarge, weigh by channel, concatenate the skip, two convolutions."""

    def __init__(
        self, in_channels: int, skip_channels: int, out_channels: int, reduction: int, interpolation: str, norm: Norm,
    ) -> None:  # fmt: skip
        super().__init__()
        self.interpolation_mode = interpolation
        self.hl_conv = nn.Sequential(
            conv_norm_relu(in_channels, in_channels, 3, norm=norm),
            conv_norm_relu(in_channels, skip_channels, 1, norm=norm),
        )
        self.SE_ll = gate(skip_channels, reduction)
        self.SE_hl = gate(skip_channels, reduction)
        self.conv1 = conv_norm_relu(2 * skip_channels, out_channels, 3, norm=norm)
        self.conv2 = conv_norm_relu(out_channels, out_channels, 3, norm=norm)

    def forward(self, x: Tensor, skip: Tensor | None, size_hw: tuple[int, int]) -> Tensor:
        assert skip is not None
        x = resize(self.hl_conv(x), size_hw, self.interpolation_mode)  # (n, skip_channels, *size_hw)
        x = x * (self.SE_hl(x) + self.SE_ll(skip))
        x = self.conv2(self.conv1(torch.cat([x, skip], dim=1)))
        return x


class Plain(nn.Module):
    """Enlarge and two convolutions, where there is no skip."""

    def __init__(self, in_channels: int, out_channels: int, interpolation: str, norm: Norm) -> None:
        super().__init__()
        self.interpolation_mode = interpolation
        self.conv1 = conv_norm_relu(in_channels, out_channels, 3, norm=norm)
        self.conv2 = conv_norm_relu(out_channels, out_channels, 3, norm=norm)

    def forward(self, x: Tensor, skip: Tensor | None, size_hw: tuple[int, int]) -> Tensor:
        x = resize(x, size_hw, self.interpolation_mode)
        x = self.conv2(self.conv1(x))
        return x


def gate(channels: int, reduction: int) -> nn.Sequential:
    """A weight in (0, 1) for every channel, from the mean of all (squeeze and excitation)."""
    narrow = max(1, channels // reduction)
    return nn.Sequential(
        nn.AdaptiveAvgPool2d(1), nn.Conv2d(channels, narrow, 1), nn.ReLU(), nn.Conv2d(narrow, channels, 1),
        nn.Sigmoid(),
    )  # fmt: skip

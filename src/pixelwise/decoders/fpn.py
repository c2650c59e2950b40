"""FPN for segmentation, on any encoder. Panoptic Feature Pyramid Networks. Kirillov, Girshick, He, Dollár, CVPR 2019,
1901.02446, on Feature Pyramid Networks, Lin and others, CVPR 2017, 1612.03144.

A pyramid of the last four features, each level plus the enlarged one above it; every level is brought to the size of
the finest by convolutions with doublings between, and all are added. As in SMP the pyramid's levels are not smoothed
by another convolution.

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
from pixelwise.layers import Norm, norm_layer


class FPN(EncoderDecoder):
    """image (n, in_channels, h, w), float -> {"out": logits (n, k, h, w)}, with `aux_loss` also "aux", alike.

    encoder: its last four features are used, or as many as it has, from two on; the logits are coarse by the stride
    of the finest of them, so a shallower encoder gives finer ones. pyramid_channels, segmentation_channels: of the
    levels and of the maps that are merged. merge: "add" or "cat". dropout: of whole channels, in training.
    interpolation: a mode of F.interpolate, within the pyramid. norm: `layers.Norm`; SMP has group norm only.
    """

    def __init__(
        self,
        encoder: Any,
        num_classes: int = 1,
        *,
        pyramid_channels: int = 256,
        segmentation_channels: int = 128,
        merge: str = "add",
        dropout: float = 0.2,
        interpolation: str = "nearest",
        norm: Norm = "group",
        aux_loss: bool = False,
    ) -> None:
        used = check_encoder("fpn", encoder)[-4:]
        decoder = FPNDecoder(
            [encoder.channels[place] for place in used], pyramid_channels, segmentation_channels, merge, dropout,
            interpolation, norm,
        )  # fmt: skip
        initialise(decoder)
        super().__init__(
            encoder,
            decoder,
            head(decoder.out_channels, num_classes, 1),
            stride=encoder.strides[used[0]],
            aux=auxiliary_head(encoder, num_classes, norm, wanted=aux_loss),
        )


class FPNDecoder(nn.Module):
    """Features, finest first -> (n, c, h_i, w_i), the size of the finest that is used."""

    def __init__(
        self, channels: list[int], pyramid_channels: int, segmentation_channels: int, merge: str, dropout: float,
        interpolation: str, norm: Norm,
    ) -> None:  # fmt: skip
        super().__init__()
        if merge not in ("add", "cat"):
            raise ValueError(f"merge must be 'add' or 'cat', got {merge!r}")
        self.merge = merge
        self.p5 = nn.Conv2d(channels[-1], pyramid_channels, 1)
        for i, c in enumerate(reversed(channels[:-1])):
            self.add_module(f"p{4 - i}", Lateral(c, pyramid_channels, interpolation))
        self.seg_blocks = nn.ModuleList(
            Segment(pyramid_channels, segmentation_channels, doublings, norm)
            for doublings in range(len(channels) - 1, -1, -1)
        )
        self.dropout = nn.Dropout2d(dropout)
        self.out_channels = segmentation_channels * (len(channels) if merge == "cat" else 1)

    def forward(self, features: list[Tensor], size_hw: tuple[int, int] | None = None) -> Tensor:
        p5 = self.p5(features[-1])
        pyramid: list[Tensor] = [p5]
        # Each by its name, as TorchScript knows no other way; a shallow encoder has fewer of them
        if hasattr(self, "p4"):
            pyramid.append(self.p4(pyramid[-1], features[-2]))  # type: ignore[operator]
        if hasattr(self, "p3"):
            pyramid.append(self.p3(pyramid[-1], features[-3]))  # type: ignore[operator]
        if hasattr(self, "p2"):
            pyramid.append(self.p2(pyramid[-1], features[-4]))  # type: ignore[operator]
        maps: list[Tensor] = []
        for i, block in enumerate(self.seg_blocks):
            maps.append(block(pyramid[i], pyramid[i + 1 :]))
        merged = torch.cat(maps, dim=1) if self.merge == "cat" else torch.stack(maps).sum(dim=0)
        dropped: Tensor = self.dropout(merged)
        return dropped


class Lateral(nn.Module):
    """The level above, enlarged, plus a 1x1 convolution of the encoder's feature."""

    def __init__(self, skip_channels: int, channels: int, interpolation: str) -> None:
        super().__init__()
        self.interpolation_mode = interpolation
        self.skip_conv = nn.Conv2d(skip_channels, channels, 1)

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        level: Tensor = resize_like(x, skip, self.interpolation_mode) + self.skip_conv(skip)
        return level


class Segment(nn.Module):
    """From one level of the pyramid to the size of the finest: convolution and enlargement to each level between."""

    def __init__(self, in_channels: int, out_channels: int, doublings: int, norm: Norm) -> None:
        super().__init__()
        self.block = nn.Sequential(
            *(
                ConvNormReLU(in_channels if i == 0 else out_channels, out_channels, norm)
                for i in range(max(1, doublings))
            )
        )

    def forward(self, x: Tensor, finer: list[Tensor]) -> Tensor:
        for i, block in enumerate(self.block):
            x = block(x)
            if i < len(finer):
                x = resize_like(x, finer[i], "bilinear", align_corners=True)
        return x


class ConvNormReLU(nn.Module):
    """3x3 convolution without bias, norm, ReLU."""

    def __init__(self, in_channels: int, out_channels: int, norm: Norm) -> None:
        super().__init__()
        self.block = nn.Sequential(
            nn.Conv2d(in_channels, out_channels, 3, padding=1, bias=False),
            norm_layer(norm, out_channels),
            nn.ReLU(),
        )

    def forward(self, x: Tensor) -> Tensor:
        normed: Tensor = self.block(x)
        return normed

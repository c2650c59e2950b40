"""PAN on any encoder. Pyramid Attention Network for Semantic Segmentation. Li, Xiong, An, Wang, BMVC 2018, 1805.10180.

The deepest feature is weighed by a small pyramid of its own (FPA, section 3.1); on the way up each finer feature is
weighed by what the coarser one means as a whole (GAU, section 3.2). As in SMP the pyramid's maps have one channel and
its convolutions have both bias and norm.

Letters: n batch, c channels, k classes, h w pixels, s stride of the deepest feature.
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
    resize,
    resize_like,
)
from pixelwise.layers import Norm, norm_layer


class PAN(EncoderDecoder):
    """image (n, in_channels, h, w), float -> {"out": logits (n, k, h, w)}, with `aux_loss` also "aux", alike.

    encoder: its features of stride 4 and more are used, two at least. Sides of the image: at least eight times the
    stride of the deepest feature, which is halved three times more. width: channels of the decoder. interpolation: a
    mode of F.interpolate, for enlarging on the way up. norm: `layers.Norm`. Training needs two images or more in a
    batch, or frozen batch norm, because of the pooling to one pixel.
    """

    def __init__(
        self,
        encoder: Any,
        num_classes: int = 1,
        *,
        width: int = 32,
        interpolation: str = "bilinear",
        norm: Norm = "batch",
        aux_loss: bool = False,
    ) -> None:
        used = check_encoder("pan", encoder)
        decoder = PANDecoder([encoder.channels[place] for place in used], width, interpolation, norm)
        initialise(decoder)
        super().__init__(
            encoder,
            decoder,
            head(width, num_classes, 3),
            stride=encoder.strides[used[0]],
            aux=auxiliary_head(encoder, num_classes, norm, wanted=aux_loss),
        )


class PANDecoder(nn.Module):
    """Features, finest first -> (n, width, h_i, w_i), the size of the finest that is used."""

    def __init__(self, channels: list[int], width: int, interpolation: str, norm: Norm) -> None:
        super().__init__()
        self.fpa = FeaturePyramidAttention(channels[-1], width, norm)
        if len(channels) > 5:
            raise ValueError(
                f"PAN joins up to five features of stride 4 and more, got {len(channels)}; build the encoder with fewer"
            )
        self.finest = -len(channels)
        # SMP's order, which an optimizer's state goes by
        for i, c in reversed(list(enumerate(channels[:-1], start=1))):
            self.add_module(f"gau{i}", GlobalAttentionUpsample(c, width, interpolation, norm))

    def forward(self, features: list[Tensor], size_hw: tuple[int, int] | None = None) -> Tensor:
        x: Tensor = self.fpa(features[-1])
        # Each by its name, as TorchScript knows no other way; gau1 takes the finest feature that is used
        if hasattr(self, "gau4"):
            x = self.gau4(features[self.finest + 3], x)  # type: ignore[operator]
        if hasattr(self, "gau3"):
            x = self.gau3(features[self.finest + 2], x)  # type: ignore[operator]
        if hasattr(self, "gau2"):
            x = self.gau2(features[self.finest + 1], x)  # type: ignore[operator]
        gated: Tensor = self.gau1(features[self.finest], x)  # type: ignore[operator]
        return gated


class FeaturePyramidAttention(nn.Module):
    """Mean of the whole + map * (7x7 + 5x5 + 3x3 pyramid); (n, c, h, w) -> (n, out, h, w)."""

    def __init__(self, in_channels: int, out_channels: int, norm: Norm) -> None:
        super().__init__()
        self.branch1 = nn.Sequential(
            nn.AdaptiveAvgPool2d(1), Conv(in_channels, out_channels, 1, norm, pooled=True)
        )
        self.mid = nn.Sequential(Conv(in_channels, out_channels, 1, norm))
        self.down1 = nn.Sequential(nn.MaxPool2d(2), Conv(in_channels, 1, 7, norm))
        self.down2 = nn.Sequential(nn.MaxPool2d(2), Conv(1, 1, 5, norm))
        self.down3 = nn.Sequential(nn.MaxPool2d(2), Conv(1, 1, 3, norm), Conv(1, 1, 3, norm))
        self.conv2 = Conv(1, 1, 5, norm)
        self.conv1 = Conv(1, 1, 7, norm)

    def forward(self, x: Tensor) -> Tensor:
        if not torch.jit.is_scripting():  # type: ignore[attr-defined]
            _check(x, self.branch1.get_submodule("1.bn"))
        x1 = self.down1(x)  # (n, 1, h/2, w/2)
        x2 = self.down2(x1)  # (n, 1, h/4, w/4)
        x3 = self.down3(x2)  # (n, 1, h/8, w/8)
        pyramid = resize_like(x3, x2, "bilinear", align_corners=True) + self.conv2(x2)
        pyramid = resize_like(pyramid, x1, "bilinear", align_corners=True) + self.conv1(x1)
        pyramid = resize_like(pyramid, x, "bilinear", align_corners=True)  # (n, 1, h, w)
        whole: Tensor = self.branch1(x)  # (n, out, 1, 1)
        attended: Tensor = pyramid * self.mid(x) + whole
        return attended


def _check(x: Tensor, norm: nn.Module) -> None:
    if torch.compiler.is_exporting():
        return
    if min(x.shape[-2:]) < 8:
        raise ValueError(
            "PAN halves the deepest feature three times more, so that it needs 8x8 pixels there, got "
            f"{x.shape[-2]}x{x.shape[-1]}; pad the image to eight times that feature's stride (128x128 for stride 16)"
        )
    if isinstance(norm, nn.BatchNorm2d) and norm.training and x.shape[0] == 1:
        raise ValueError(
            "PAN trains on two images or more at a time, as its pooling to one pixel leaves batch norm a single "
            "value per channel, got 1; enlarge the batch, put the batch norms into eval(), or choose another norm"
        )


class GlobalAttentionUpsample(nn.Module):
    """The coarse map, enlarged, plus the fine one weighed by the coarse one's mean; -> (n, width, h_fine, w_fine)."""

    def __init__(self, fine_channels: int, width: int, interpolation: str, norm: Norm) -> None:
        super().__init__()
        self.interpolation_mode = interpolation
        self.align_corners = True if interpolation == "bilinear" else None
        self.conv1 = nn.Sequential(
            nn.AdaptiveAvgPool2d(1), Conv(width, width, 1, norm, pooled=True, relu=False), nn.Sigmoid()
        )
        self.conv2 = Conv(fine_channels, width, 3, norm)

    def forward(self, fine: Tensor, coarse: Tensor) -> Tensor:
        size_hw = fine.shape[-2], fine.shape[-1]
        enlarged = resize(coarse, size_hw, self.interpolation_mode, align_corners=self.align_corners)
        gated: Tensor = enlarged + self.conv2(fine) * self.conv1(coarse)
        return gated


class Conv(nn.Module):
    """Convolution of odd `kernel` with bias, norm, ReLU; sizes stay."""

    def __init__(
        self, in_channels: int, out_channels: int, kernel: int, norm: Norm, *, pooled: bool = False, relu: bool = True
    ) -> None:  # fmt: skip
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, kernel, padding=kernel // 2)
        self.bn = norm_layer(norm, out_channels, pooled=pooled)
        self.activation = nn.ReLU() if relu else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        activated: Tensor = self.activation(self.bn(self.conv(x)))
        return activated

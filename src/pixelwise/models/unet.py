"""U-Net: Convolutional Networks for Biomedical Image Segmentation.

Ronneberger, Fischer, Brox, MICCAI 2015, 1505.04597.

`UNet` is the padded variant that most later work means by the name (milesial/Pytorch-UNet): 3x3
convolutions padded by one and followed by batch norm, so the logits have the size of the image. From the
paper it keeps the four levels, the doubling of channels and the skips; it differs by the padding, the norm,
the absent dropout and, with `bilinear=True`, by interpolating where the paper has a transposed convolution.
Keys are those of milesial's checkpoints.

Letters: n batch, c channels, k classes, h w pixels, d width (channels of the first level).
"""

from __future__ import annotations

import os
from collections import OrderedDict

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pixelwise.models.building import variant


class UNet(nn.Module):
    """Four levels down, four up, each level a pair of convolutions; any image of at least 16x16 pixels.

    image (n, in_channels, h, w), float -> {"out": logits (n, num_classes, h, w)}. `width` is the number of
    channels of the finest level (64 in the paper); every other width is a multiple of it. In training mode
    the batch norm of the deepest level needs more than one value per channel: at batch size 1 an image of
    at least 32 pixels on a side.
    """

    stride = 1
    align_corners = False  # never used: coarse logits already have the size of the image
    unused_parameters: tuple[str, ...] = ()

    def __init__(
        self, in_channels: int = 3, num_classes: int = 2, *, width: int = 64, bilinear: bool = False
    ) -> None:
        super().__init__()
        self.num_classes = num_classes
        # Interpolation keeps channels, so the level below hands up half as many
        d, shrink = width, 2 if bilinear else 1
        self.inc = DoubleConv(in_channels, d)
        self.down1 = Down(d, 2 * d)
        self.down2 = Down(2 * d, 4 * d)
        self.down3 = Down(4 * d, 8 * d)
        self.down4 = Down(8 * d, 16 * d // shrink)
        self.up1 = Up(16 * d, 8 * d // shrink, bilinear)
        self.up2 = Up(8 * d, 4 * d // shrink, bilinear)
        self.up3 = Up(4 * d, 2 * d // shrink, bilinear)
        self.up4 = Up(2 * d, d, bilinear)
        self.outc = OutConv(d, num_classes)

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        """image (n, c, h, w) -> {"out": logits (n, k, h, w)}."""
        return OrderedDict(out=self.coarse(image))

    def coarse(self, image: Tensor) -> Tensor:
        """image (n, c, h, w) -> logits (n, k, h, w): stride 1, nothing is left to upsample."""
        self._check_size(*image.shape)
        skip1 = self.inc(image)  # (n, d, h, w)
        skip2 = self.down1(skip1)  # (n, 2d, h/2, w/2)
        skip3 = self.down2(skip2)  # (n, 4d, h/4, w/4)
        skip4 = self.down3(skip3)  # (n, 8d, h/8, w/8)
        x = self.down4(skip4)  # (n, 16d, h/16, w/16), half the channels if bilinear; so it goes on upwards
        x = self.up1(x, skip4)  # (n, 8d, h/8, w/8)
        x = self.up2(x, skip3)  # (n, 4d, h/4, w/4)
        x = self.up3(x, skip2)  # (n, 2d, h/2, w/2)
        x = self.up4(x, skip1)  # (n, d, h, w), with either way of upsampling
        logits: Tensor = self.outc(x)
        return logits

    def _check_size(self, n: int, c: int, h: int, w: int) -> None:
        if torch.compiler.is_compiling():
            return
        if min(h, w) < 16:
            raise ValueError(
                f"U-Net needs at least 16 pixels on each side, got {h}x{w}; pad to {max(h, 16)}x{max(w, 16)}"
            )
        if self.training and n * (h // 16) * (w // 16) == 1:
            raise ValueError(
                f"batch norm cannot be trained on one image of {h}x{w} pixels, which leave one value per channel at "
                "the bottom; give it two images, or a side of 32 pixels"
            )


class DoubleConv(nn.Module):
    """(3x3 convolution, batch norm, ReLU) twice; (n, in_channels, h, w) -> (n, out_channels, h, w)."""

    def __init__(self, in_channels: int, out_channels: int, mid_channels: int | None = None) -> None:
        super().__init__()
        mid = mid_channels or out_channels
        self.double_conv = nn.Sequential(
            nn.Conv2d(in_channels, mid, 3, padding=1, bias=False),
            nn.BatchNorm2d(mid),
            nn.ReLU(inplace=True),
            nn.Conv2d(mid, out_channels, 3, padding=1, bias=False),
            nn.BatchNorm2d(out_channels),
            nn.ReLU(inplace=True),
        )

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.double_conv(x)
        return y


class Down(nn.Module):
    """Halve the size (rounding down), then a pair of convolutions."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.maxpool_conv = nn.Sequential(nn.MaxPool2d(2), DoubleConv(in_channels, out_channels))

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.maxpool_conv(x)
        return y


class Up(nn.Module):
    """Double the size, pad to the skip (halving rounded down), concatenate [skip, up], convolve twice.

    `in_channels` counts the channels after the concatenation.
    """

    def __init__(self, in_channels: int, out_channels: int, bilinear: bool) -> None:
        super().__init__()
        self.up: nn.Module
        if bilinear:
            self.up = nn.Upsample(scale_factor=2, mode="bilinear", align_corners=True)
            self.conv = DoubleConv(in_channels, out_channels, in_channels // 2)
        else:
            self.up = nn.ConvTranspose2d(in_channels, in_channels // 2, 2, stride=2)
            self.conv = DoubleConv(in_channels, out_channels)

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        x = self.up(x)
        missing_h, missing_w = skip.shape[2] - x.shape[2], skip.shape[3] - x.shape[3]  # 0 or 1 each
        left, top = missing_w // 2, missing_h // 2
        x = F.pad(x, (left, missing_w - left, top, missing_h - top))
        y: Tensor = self.conv(torch.cat([skip, x], dim=1))
        return y


class OutConv(nn.Module):
    """1x1 convolution to class logits."""

    def __init__(self, in_channels: int, num_classes: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, num_classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.conv(x)
        return logits


def _unet(
    name: str,
    *,
    num_classes: int = 2,
    in_channels: int = 3,
    weights: str | os.PathLike[str] | None = None,
    width: int = 64,
) -> UNet:
    """num_classes, in_channels: of the task. weights: the path of a checkpoint, or None. width: channels of the finest
    level.

    Raises TypeError for an unknown argument, ValueError for counts below 1, WeightsError for weights that do
    not fit.
    """
    return UNet(in_channels, num_classes, width=width, bilinear=name == "unet_bilinear")


unet = variant(_unet, "unet", "The padded U-Net with transposed convolutions.")
unet_bilinear = variant(_unet, "unet_bilinear", "The padded U-Net that interpolates.")

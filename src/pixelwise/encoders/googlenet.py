"""GoogLeNet without its classifiers. Going Deeper with Convolutions. Szegedy and others, CVPR 2015,
1409.4842.

"caffe" is the paper's network as Caffe published it (bvlc_googlenet): local response norm, biases, poolings
that round up. "torchvision" is torchvision's, converted from TensorFlow: batch norm instead of both, a 3x3
kernel in the branch that the paper gives 5x5, a 2x2 window in the last pooling. Names of the layers are
torchvision's in both. The image gets a border of 100 zero pixels, as all encoders of the FCN paper
(1411.4038); 3 is what classification has.

Letters: n batch, c channels, h w pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pixelwise.errors import UnknownNameError


class Variant(NamedTuple):
    """batch_norm: in place of biases and local response norm. wide_kernel: of the paper's 5x5 branch.
    last_pool: window of the pooling before inception5a."""

    batch_norm: bool
    wide_kernel: int
    last_pool: int


VARIANTS = {
    "caffe": Variant(False, 5, 3),  # Table 1 of the paper, models/bvlc_googlenet
    "torchvision": Variant(True, 3, 2),  # torchvision.models.googlenet
}

INCEPTIONS = {
    "3a": (64, 96, 128, 16, 32, 32),
    "3b": (128, 128, 192, 32, 96, 64),
    "4a": (192, 96, 208, 16, 48, 64),
    "4b": (160, 112, 224, 24, 64, 64),
    "4c": (128, 128, 256, 24, 64, 64),
    "4d": (112, 144, 288, 32, 64, 64),
    "4e": (256, 160, 320, 32, 128, 128),
    "5a": (256, 160, 320, 32, 128, 128),
    "5b": (384, 192, 384, 48, 128, 128),
}
"""Channels of the 1x1 branch, the 3x3 branch's two, the 5x5 branch's two and the pooling branch (Table 1)."""


class GoogLeNet(nn.Module):
    """image (n, in_channels, h, w) -> [inception5b], stride 32; any height and width from 1 up with the
    border of 100.

    `paths` says which layers lead to the feature, so that its place in the image can be computed.
    transform_input: torchvision's trained weights want an image normalised with mean = std = 0.5, and turn
    one that was normalised with ImageNet's statistics into that. width_mult: times which the number of
    channels is taken (published: 1).
    """

    strides: tuple[int, ...] = (32,)

    def __init__(
        self,
        in_channels: int = 3,
        *,
        variant: str = "caffe",
        border_px: int = 100,
        transform_input: bool = False,
        width_mult: float = 1.0,
    ) -> None:
        super().__init__()
        if variant not in VARIANTS:
            raise UnknownNameError("variant of GoogLeNet", variant, VARIANTS)
        if transform_input and in_channels != 3:
            raise ValueError(
                f"transform_input is for 3 channels, got in_channels={in_channels}; leave it out"
            )
        row = VARIANTS[variant]
        self.transform_input = transform_input
        c1, c2, c3 = scaled((64, 64, 192), width_mult)
        self.conv1 = Convolution(in_channels, c1, 7, row, stride=2, padding=border_px)
        self.maxpool1 = nn.MaxPool2d(3, stride=2, ceil_mode=True)
        self.norm = nn.Identity() if row.batch_norm else nn.LocalResponseNorm(5, alpha=1e-4, beta=0.75, k=1.0)
        self.conv2 = Convolution(c1, c2, 1, row)
        self.conv3 = Convolution(c2, c3, 3, row, padding=1)
        self.maxpool2 = nn.MaxPool2d(3, stride=2, ceil_mode=True)
        self.inception3a = Inception(c3, "3a", row, width_mult)
        self.inception3b = Inception(self.inception3a.channels, "3b", row, width_mult)
        self.maxpool3 = nn.MaxPool2d(3, stride=2, ceil_mode=True)
        self.inception4a = Inception(self.inception3b.channels, "4a", row, width_mult)
        self.inception4b = Inception(self.inception4a.channels, "4b", row, width_mult)
        self.inception4c = Inception(self.inception4b.channels, "4c", row, width_mult)
        self.inception4d = Inception(self.inception4c.channels, "4d", row, width_mult)
        self.inception4e = Inception(self.inception4d.channels, "4e", row, width_mult)
        self.maxpool4 = nn.MaxPool2d(row.last_pool, stride=2, ceil_mode=True)
        self.inception5a = Inception(self.inception4e.channels, "5a", row, width_mult)
        self.inception5b = Inception(self.inception5a.channels, "5b", row, width_mult)
        self.channels: tuple[int, ...] = (self.inception5b.channels,)

    @property
    def paths(self) -> list[list[nn.Module]]:
        """For the feature, the convolutions and poolings between the image and it; inceptions keep size and
        place."""
        stem = [self.conv1.conv, self.maxpool1, self.conv2.conv, self.conv3.conv]
        return [[*stem, self.maxpool2, self.maxpool3, self.maxpool4]]

    def forward(self, image: Tensor) -> list[Tensor]:
        if self.transform_input:
            image = image_of_mean_and_std_half(image)
        x = self.norm(self.maxpool1(self.conv1(image)))  # (n, 64, (h+193)/4, (w+193)/4)
        x = self.maxpool2(self.norm(self.conv3(self.conv2(x))))  # (n, 192, (h+193)/8, (w+193)/8)
        x = self.maxpool3(self.inception3b(self.inception3a(x)))  # (n, 480, (h+193)/16, (w+193)/16)
        x = self.inception4c(self.inception4b(self.inception4a(x)))  # (n, 512, (h+193)/16, (w+193)/16)
        x = self.maxpool4(self.inception4e(self.inception4d(x)))  # (n, 832, (h+193)/32, (w+193)/32)
        return [self.inception5b(self.inception5a(x))]  # (n, 1024, (h+193)/32, (w+193)/32)


class Inception(nn.Module):
    """Four branches side by side, concatenated: 1x1, 3x3, 5x5, pooling; (n, in, h, w) -> (n, channels, h,
    w)."""

    def __init__(self, in_channels: int, name: str, row: Variant, width_mult: float) -> None:
        super().__init__()
        one, reduce3, three, reduce5, five, pooled = scaled(INCEPTIONS[name], width_mult)
        wide = row.wide_kernel
        self.branch1 = Convolution(in_channels, one, 1, row)
        self.branch2 = nn.Sequential(
            Convolution(in_channels, reduce3, 1, row), Convolution(reduce3, three, 3, row, padding=1)
        )
        self.branch3 = nn.Sequential(
            Convolution(in_channels, reduce5, 1, row),
            Convolution(reduce5, five, wide, row, padding=wide // 2),
        )
        self.branch4 = nn.Sequential(
            nn.MaxPool2d(3, stride=1, padding=1), Convolution(in_channels, pooled, 1, row)
        )
        self.channels = one + three + five + pooled

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self.branch1(x), self.branch2(x), self.branch3(x), self.branch4(x)], dim=1)


class Convolution(nn.Module):
    """Convolution and ReLU, with a bias or with batch norm between them."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel: int,
        row: Variant,
        *,
        stride: int = 1,
        padding: int = 0,
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(
            in_channels, out_channels, kernel, stride=stride, padding=padding, bias=not row.batch_norm
        )
        self.bn = nn.BatchNorm2d(out_channels, eps=0.001) if row.batch_norm else nn.Identity()
        if row.batch_norm:
            nn.init.normal_(self.conv.weight, std=0.01)  # torchvision's, which cuts off beyond 200 deviations
        else:
            bound = (3 / (in_channels * kernel**2)) ** 0.5  # Caffe's "xavier" counts what comes in
            nn.init.uniform_(self.conv.weight, -bound, bound)
            assert self.conv.bias is not None
            nn.init.constant_(self.conv.bias, 0.2)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.bn(self.conv(x)))


def scaled(channels: Sequence[int], width_mult: float) -> list[int]:
    """Each number of channels times `width_mult`, at least 1."""
    return [max(1, round(c * width_mult)) for c in channels]


def image_of_mean_and_std_half(image: Tensor) -> Tensor:
    """(n, 3, h, w), normalised with ImageNet's mean and std, to the same normalised with 0.5 and 0.5."""
    mean = image.new_tensor([0.485, 0.456, 0.406]).view(3, 1, 1)
    std = image.new_tensor([0.229, 0.224, 0.225]).view(3, 1, 1)
    return image * (std / 0.5) + (mean - 0.5) / 0.5

"""SegNet: A Deep Convolutional Encoder-Decoder Architecture for Image Segmentation. Badrinarayanan, Kendall,
Cipolla, PAMI 2017, 1511.00561.

VGG-16 without its classifier goes down, its mirror image comes up. What joins the two is not features but
places: each pooling remembers which of four pixels was the largest, and its counterpart puts values back
there, with zeros elsewhere.

This is the authors' Caffe release (SegNet-Tutorial). Poolings round up, so any size works; an unpooling comes
back to the size that was pooled. In its files the batch norm is a scale and a shift that already hold the
statistics. The released networks for Pascal VOC and SUN also had dropout while they were trained; it has no
tensors and is left out here.

Letters: n batch, c channels, k classes, h w pixels, d width (channels of the first block, 64 in the paper).
"""

from __future__ import annotations

import itertools
import os
from collections import OrderedDict
from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F

from pixelwise.models.building import builder, with_encoder_weights


class SegNet(nn.Module):
    """image (n, c, h, w), float -> {"out": logits (n, k, h, w)}; any height and width from 1 up.

    The last layer works at full size, so `coarse` has stride 1 and is "out" itself. In training mode the
    batch norm of the deepest block needs more than one value per channel: at batch size 1, more than 16
    pixels on a side.
    """

    stride = 1
    align_corners = False  # never used: coarse logits already have the size of the image
    unused_parameters: tuple[str, ...] = ()

    def __init__(self, num_classes: int = 11, *, in_channels: int = 3, width: int = 64) -> None:
        super().__init__()
        self.num_classes = num_classes
        d = width
        self.encoder1 = block(in_channels, d, d)
        self.encoder2 = block(d, 2 * d, 2 * d)
        self.encoder3 = block(2 * d, 4 * d, 4 * d, 4 * d)
        self.encoder4 = block(4 * d, 8 * d, 8 * d, 8 * d)
        self.encoder5 = block(8 * d, 8 * d, 8 * d, 8 * d)
        self.decoder5 = block(8 * d, 8 * d, 8 * d, 8 * d)
        self.decoder4 = block(8 * d, 8 * d, 8 * d, 4 * d)
        self.decoder3 = block(4 * d, 4 * d, 4 * d, 2 * d)
        self.decoder2 = block(2 * d, 2 * d, d)
        self.decoder1 = block(d, d)
        self.score = he_normal(nn.Conv2d(d, num_classes, 3, padding=1))

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        """image (n, c, h, w) -> {"out": logits (n, k, h, w)}."""
        return OrderedDict(out=self.coarse(image))

    def coarse(self, image: Tensor) -> Tensor:
        """image (n, c, h, w) -> logits (n, k, h, w): stride 1, nothing is left to upsample."""
        if self.training:
            _check_sides(image)
        x1 = self.encoder1(image)  # (n, d, h, w)
        x, places1 = pool(x1)  # (n, d, h/2, w/2), rounded up here and below
        x2 = self.encoder2(x)  # (n, 2d, h/2, w/2)
        x, places2 = pool(x2)  # (n, 2d, h/4, w/4)
        x3 = self.encoder3(x)  # (n, 4d, h/4, w/4)
        x, places3 = pool(x3)  # (n, 4d, h/8, w/8)
        x4 = self.encoder4(x)  # (n, 8d, h/8, w/8)
        x, places4 = pool(x4)  # (n, 8d, h/16, w/16)
        x5 = self.encoder5(x)  # (n, 8d, h/16, w/16)
        x, places5 = pool(x5)  # (n, 8d, h/32, w/32)
        x = self.decoder5(unpool(x, places5, like=x5))  # (n, 8d, h/16, w/16)
        x = self.decoder4(unpool(x, places4, like=x4))  # (n, 4d, h/8, w/8)
        x = self.decoder3(unpool(x, places3, like=x3))  # (n, 2d, h/4, w/4)
        x = self.decoder2(unpool(x, places2, like=x2))  # (n, d, h/2, w/2)
        x = self.decoder1(unpool(x, places1, like=x1))  # (n, d, h, w)
        logits: Tensor = self.score(x)
        return logits


def block(*channels: int) -> nn.Sequential:
    """Layers from each number of channels to the next; (n, first, h, w) -> (n, last, h, w)."""
    return nn.Sequential(*(Layer(i, o) for i, o in itertools.pairwise(channels)))


class Layer(nn.Module):
    """3x3 convolution, batch norm, ReLU."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv = he_normal(nn.Conv2d(in_channels, out_channels, 3, padding=1))
        self.norm = nn.BatchNorm2d(out_channels, eps=1e-9)
        nn.init.constant_(self.norm.bias, 0.001)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.norm(self.conv(x)))


def pool(x: Tensor) -> tuple[Tensor, Tensor]:
    """The largest of each 2x2 pixels, and its place, row * w + column; (n, c, h, w) -> 2 (n, c, ceil(h/2),
    ceil(w/2)).

    At an odd side the last window holds one row or column only. Of equal values the first counts, as in
    Caffe.
    """
    pooled, places = F.max_pool2d(x, 2, ceil_mode=True, return_indices=True)
    return pooled, places


def unpool(x: Tensor, places: Tensor, *, like: Tensor) -> Tensor:
    """Every value of x at its place in a map of zeros that has the size of `like`, which was pooled.

    x, places (n, c, h', w'), like (n, c, h, w) -> (n, c, h, w). The same as torch's max_unpool2d, in words
    that ONNX has too.
    """
    zeros = like.new_zeros(like.shape).flatten(2)
    return zeros.scatter(2, places.flatten(2), x.flatten(2)).view(like.shape)


def he_normal(conv: nn.Conv2d) -> nn.Conv2d:
    """The convolution with He's initialisation ("msra" in the release)."""
    nn.init.kaiming_normal_(conv.weight, nonlinearity="relu")
    assert conv.bias is not None
    nn.init.zeros_(conv.bias)
    return conv


def _check_sides(image: Tensor) -> None:
    n, _, h, w = image.shape
    if n == 1 and max(h, w) <= 16:
        raise ValueError(
            f"training SegNet on one image needs more than 16 pixels on a side for the batch norm, got {h}x{w}; "
            "pad to 17x17, or use a batch of two"
        )


@builder
def segnet(
    *,
    num_classes: int = 11,
    in_channels: int = 3,
    weights: str | os.PathLike[str] | None = None,
    progress: bool = True,
    weights_backbone: Any = None,
    width: int = 64,
) -> SegNet:
    """SegNet on VGG-16; 11 classes are CamVid's.

    num_classes, in_channels: of the task. weights: the path of a checkpoint, or None. progress: draw a bar
    while fetching. weights_backbone: ImageNet weights for the encoder's convolutions: the path of a
    checkpoint of VGG-16 with Caffe's or torchvision's names, a member of torchvision's `VGG16_Weights` or its
    name, or None. width: channels of the first block; all others are multiples.

    Raises TypeError for an unknown argument, ValueError for counts below 1, WeightsError for weights that do
    not fit.
    """
    network = SegNet(num_classes, in_channels=in_channels, width=width)
    return with_encoder_weights(network, "segnet", weights_backbone, progress=progress)

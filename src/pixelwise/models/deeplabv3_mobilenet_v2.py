"""DeepLabV3 on MobileNetV2, the mobile segmentation network of section 6.4 of the MobileNetV2 paper.

MobileNetV2: Inverted Residuals and Linear Bottlenecks. Sandler, Howard, Zhu, Zhmoginov, Chen, CVPR 2018,
1801.04381; released as `mobilenetv2_dm*_coco_voc_trainaug` in TensorFlow's DeepLab zoo. Against DeepLabV3
(1706.05587) the head is cut down to the 1x1 branch and the image pooling, and the backbone ends before
MobileNetV2's last 1x1 convolution to 1280 channels. Differences from TensorFlow: padding is symmetric,
which gives the same numbers only where every stage is odd, that is for heights and widths of 16n + 1 (as
513).

Letters: n batch, k classes, h w pixels.
"""

from __future__ import annotations

import os
from collections import OrderedDict

import torch
from torch import Tensor, nn

from pixelwise.encoders.mobilenet_v2 import MobileNetV2Encoder
from pixelwise.layers import enlarge_like
from pixelwise.models.building import builder


class DeepLabV3MobileNetV2(nn.Module):
    """image (n, 3, h, w), float, normalised with mean = std = 0.5 -> {"out": logits (n, num_classes, h, w)}.

    Any height and width from 1 up; sides of 16n + 1 put the corners of the coarse logits on the corners of
    the image, which is what `align_corners=True` assumes. `width_mult` scales the backbone's channels
    (published: 1.0 and 0.5); the head keeps its 256. Training at batch size 1 works only with frozen batch
    norm, as the image pooling normalises one value per channel.
    """

    stride = 16
    align_corners = True

    unused_parameters: tuple[str, ...] = ()

    def __init__(self, num_classes: int = 21, *, in_channels: int = 3, width_mult: float = 1.0) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.backbone = MobileNetV2Encoder(
            in_channels=in_channels, output_stride=16, levels=(4,), width_mult=width_mult
        )
        self.head = Head(self.backbone.channels[-1], num_classes)

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        """image (n, 3, h, w) -> {"out": logits (n, k, h, w)}."""
        logits = self.coarse(image)  # (n, k, ceil(h/16), ceil(w/16))
        return OrderedDict(out=enlarge_like(logits, image, align_corners=self.align_corners))

    def coarse(self, image: Tensor) -> Tensor:
        """image (n, 3, h, w) -> logits (n, k, ceil(h/16), ceil(w/16))."""
        logits: Tensor = self.head(self.backbone(image)[-1])
        return logits


class Head(nn.Module):
    """The 1x1 branch and the global mean of the picture, mixed to 256 channels, then classified."""

    def __init__(self, in_channels: int, num_classes: int) -> None:
        super().__init__()
        self.aspp0 = conv_norm_relu(in_channels, 256)
        self.image_pooling = conv_norm_relu(in_channels, 256)
        self.concat_projection = conv_norm_relu(512, 256)
        self.logits = nn.Conv2d(256, num_classes, 1)

    def forward(self, features: Tensor) -> Tensor:
        local = self.aspp0(features)  # (n, 256, h/16, w/16)
        whole = self.image_pooling(features.mean((2, 3), keepdim=True))  # (n, 256, 1, 1)
        mixed = self.concat_projection(
            torch.cat([whole.expand_as(local), local], dim=1)
        )  # (n, 256, h/16, w/16)
        logits: Tensor = self.logits(mixed)
        return logits


def conv_norm_relu(in_channels: int, out_channels: int) -> nn.Sequential:
    """1x1 convolution, batch norm, ReLU."""
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, 1, bias=False),
        nn.BatchNorm2d(out_channels),
        nn.ReLU(inplace=True),
    )


@builder
def deeplabv3_mobilenet_v2(
    *,
    num_classes: int = 21,
    in_channels: int = 3,
    weights: str | os.PathLike[str] | None = None,
    width_mult: float = 1.0,
) -> DeepLabV3MobileNetV2:
    """The network of the embedded model `everyday`.

    num_classes, in_channels: of the task. weights: the path of a checkpoint, or None. width_mult: of the
    backbone's channels.

    Raises TypeError for an unknown argument, WeightsError for weights that do not fit.
    """
    return DeepLabV3MobileNetV2(num_classes, in_channels=in_channels, width_mult=width_mult)

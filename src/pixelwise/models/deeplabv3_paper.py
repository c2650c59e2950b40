"""Rethinking Atrous Convolution for Semantic Image Segmentation (DeepLabV3). Chen, Papandreou, Schroff, Adam, 2017,
1706.05587.

`segmentation/deeplabv3.py` is torchvision's network of this name; here are the paper's own and VainF's port of it
(VainF/DeepLabV3Plus-Pytorch), with the same pyramid. In the paper, the pyramid's rates go with the output stride,
the last stage has a multi-grid, 1x1 convolutions to classes follow the pyramid directly, and corners are aligned.
VainF's has torchvision's head and rates that go with the stride.

Differences from TensorFlow's release: its ResNets begin with three 3x3 convolutions and stride in the last unit of a
stage; here the ResNet is torchvision's. That rule of striding is why in the paper's rows all units of a dilated stage
have the stage's rate, while in torchvision's the first keeps the rate before.

Letters: n batch, c channels, k classes, h w pixels, s output stride.
"""

from __future__ import annotations

import os
from collections import OrderedDict
from typing import Any

from torch import Tensor, nn

from pixelwise.encoders import Encoder
from pixelwise.encoders.mobilenet_v2 import MobileNetV2Encoder
from pixelwise.encoders.resnet import ResNetEncoder, resnet
from pixelwise.layers import classes_of, conv_norm_relu, enlarge_like
from pixelwise.models.building import builder, variant
from pixelwise.models.segmentation.deeplabv3 import ASPP

ATROUS_RATES = {16: (6, 12, 18), 8: (12, 24, 36)}
"""Output stride: rates of the pyramid (section 3.3)."""

MULTI_GRID = (1, 2, 4)
"""Factors on the rate of the last stage's three blocks (Table 5)."""


class DeepLabV3Paper(nn.Module):
    """image (n, c, h, w), float -> {"out": logits (n, k, h, w)}.

    Any height and width that `backbone` takes; of its features the last is used. refine: VainF's additional 3x3
    convolution before the classifier. Training needs a batch of two or more, see `deeplabv3.ASPPPooling`.
    """

    unused_parameters: tuple[str, ...] = ()

    def __init__(
        self,
        backbone: Encoder,
        num_classes: int = 21,
        *,
        atrous_rates: tuple[int, ...] = ATROUS_RATES[16],
        align_corners: bool = True,
        refine: bool = False,
    ) -> None:
        super().__init__()
        self.stride, self.align_corners = backbone.strides[-1], align_corners
        self.backbone = backbone
        self.aspp = ASPP(backbone.channels[-1], atrous_rates, dropout=0.1)
        self.refine = conv_norm_relu(256, 256, 3) if refine else nn.Identity()
        self.logits = nn.Conv2d(256, num_classes, 1)
        for part in (self.aspp, self.refine, self.logits):
            part.apply(initialise_head)

    @property
    def num_classes(self) -> int:
        return classes_of(self.logits)

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        """image (n, c, h, w) -> {"out": logits (n, k, h, w)}."""
        return OrderedDict(out=enlarge_like(self.coarse(image), image, align_corners=self.align_corners))

    def coarse(self, image: Tensor) -> Tensor:
        """image (n, c, h, w) -> logits (n, k, h/s, w/s)."""
        features = self.backbone(image)[-1]  # (n, c', h/s, w/s)
        context = self.refine(self.aspp(features))  # (n, 256, h/s, w/s)
        logits: Tensor = self.logits(context)
        return logits


def initialise_head(module: nn.Module) -> None:
    """He's weights before a ReLU; near nought for classes (the release's 0.01)."""
    if isinstance(module, nn.Conv2d):
        if module.bias is None:
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
        else:
            nn.init.normal_(module.weight, std=0.01)
            nn.init.zeros_(module.bias)


def atrous_resnet(
    name: str,
    *,
    in_channels: int,
    output_stride: int,
    multi_grid: tuple[int, int, int] | None,
    levels: tuple[int, ...],
    weights_backbone: Any = None,
    progress: bool = True,
) -> ResNetEncoder:
    """torchvision's ResNet with the rates of the paper; without a `multi_grid`, with torchvision's own.

    Raises ValueError for an output stride other than 8 and 16.
    """
    check_stride(output_stride)
    encoder = resnet(
        name,
        weights=None if weights_backbone is False else weights_backbone,
        progress=progress,
        output_stride=output_stride,
        levels=levels,
        in_channels=in_channels,
    )
    if multi_grid is not None:
        for block in encoder.layer3:
            _set_rate(block, 16 // output_stride)
        for block, factor in zip(encoder.layer4, multi_grid, strict=True):
            _set_rate(block, 32 // output_stride * factor)
    return encoder


def _set_rate(block: Any, rate: int) -> None:
    block.conv2.dilation = block.conv2.padding = (rate, rate)


def check_stride(output_stride: int) -> None:
    if output_stride not in ATROUS_RATES:
        raise ValueError(f"output_stride must be 8 or 16, got {output_stride!r}")


def _paper(
    name: str,
    *,
    num_classes: int = 21,
    in_channels: int = 3,
    weights: str | os.PathLike[str] | None = None,
    progress: bool = True,
    output_stride: int = 16,
    multi_grid: tuple[int, int, int] = MULTI_GRID,
    weights_backbone: Any = None,
) -> DeepLabV3Paper:
    """num_classes, in_channels: of the task. weights: the path of a checkpoint, or None. progress: draw a bar while
    fetching. output_stride: 16, or 8 with all rates doubled; the same weights serve both. multi_grid: factors on the
    rates of the last stage's blocks. weights_backbone: ImageNet weights as in `encoders.resnet`, or None.

    Raises TypeError for an unknown argument, ValueError for values that make no sense, WeightsError and DownloadError
    for files.
    """
    backbone = atrous_resnet(
        name.split("_")[1],
        in_channels=in_channels,
        output_stride=output_stride,
        multi_grid=multi_grid,
        levels=(4,),
        weights_backbone=weights_backbone,
        progress=progress,
    )
    return DeepLabV3Paper(backbone, num_classes, atrous_rates=ATROUS_RATES[output_stride])


deeplabv3_resnet50_paper = variant(_paper, "deeplabv3_resnet50_paper", "The paper's DeepLabV3 on ResNet-50.")
deeplabv3_resnet101_paper = variant(
    _paper, "deeplabv3_resnet101_paper", "The paper's DeepLabV3 on ResNet-101."
)


def _vainf(
    name: str,
    *,
    num_classes: int = 21,
    in_channels: int = 3,
    weights: str | os.PathLike[str] | None = None,
    progress: bool = True,
    output_stride: int = 16,
    weights_backbone: Any = None,
) -> DeepLabV3Paper:
    """num_classes, in_channels: of the task. weights: the path of a checkpoint, or None. progress: draw a bar while
    fetching. output_stride: 16, or 8 with all rates doubled; the same weights serve both. weights_backbone:
    ImageNet weights as in `encoders.resnet`, or None.

    Raises TypeError for an unknown argument, ValueError for values that make no sense, WeightsError and DownloadError
    for files.
    """
    backbone = atrous_resnet(
        name.split("_")[1],
        in_channels=in_channels,
        output_stride=output_stride,
        multi_grid=None,
        levels=(4,),
        weights_backbone=weights_backbone,
        progress=progress,
    )
    return _with_vainf_head(backbone, num_classes, output_stride)


deeplabv3_resnet50_vainf = variant(_vainf, "deeplabv3_resnet50_vainf", "VainF's DeepLabV3 on ResNet-50.")
deeplabv3_resnet101_vainf = variant(_vainf, "deeplabv3_resnet101_vainf", "VainF's DeepLabV3 on ResNet-101.")


@builder
def deeplabv3_mobilenet_v2_vainf(
    *,
    num_classes: int = 21,
    in_channels: int = 3,
    weights: str | os.PathLike[str] | None = None,
    output_stride: int = 16,
) -> DeepLabV3Paper:
    """VainF's DeepLabV3 on MobileNetV2; arguments as in `deeplabv3_resnet101_vainf`."""
    check_stride(output_stride)
    backbone = MobileNetV2Encoder(
        in_channels=in_channels, output_stride=output_stride, levels=(4,), pads_input=True
    )
    return _with_vainf_head(backbone, num_classes, output_stride)


def _with_vainf_head(backbone: Encoder, num_classes: int, output_stride: int) -> DeepLabV3Paper:
    rates = ATROUS_RATES[output_stride]
    return DeepLabV3Paper(backbone, num_classes, atrous_rates=rates, align_corners=False, refine=True)

"""DeepLab: Semantic Image Segmentation with Deep Convolutional Nets, Atrous Convolution, and Fully Connected CRFs
(DeepLab v2). Chen, Papandreou, Kokkinos, Murphy, Yuille, TPAMI 2018, 1606.00915.

The networks are those of the Caffe release; the CRF is a separate step. Atrous spatial pyramid pooling (ASPP) is
several classifiers of different rates on the same features, summed. ResNet-101 is the first one of MSRA, which
strides in the first 1x1 convolution of a block; its batch norm keeps ImageNet's statistics, in training too.

With several scales (section 4.1.2, "MSC"), the image is classified at 1, 3/4 and 1/2 of its size with the same
weights, and the largest logit wins. Two rules of resizing exist: "caffe", the release's, and "kazuto", that of
kazuto1011/deeplab-pytorch, whose published weights partly are the release's and partly were trained under it.

As in `deeplabv1`, the "caffe" enlargement is the release's by 8 at sides of 8 i + 1 pixels.

Letters: n batch, c channels, k classes, h w pixels.
"""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Sequence
from fractions import Fraction
from functools import reduce
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pixelwise.encoders import Encoder
from pixelwise.layers import classes_of, enlarge, enlarge_like
from pixelwise.models.building import builder, variant
from pixelwise.models.deeplabv1 import VARIANTS as V1_VARIANTS
from pixelwise.models.deeplabv1 import Classifier, DilatedVGG16, FieldOfView

MULTI_SCALE = (1.0, 0.75, 0.5)
"""Section 4.1.2, "multi-scale inputs"."""

RATES = {  # section 4.1.1 and figure 7
    "aspp_s": (2, 4, 8, 12),
    "aspp_l": (6, 12, 18, 24),
}


class DeepLabV2(nn.Module):
    """image (n, c, h, w), float -> {"out": logits (n, k, h, w)} and, with several scales, "aux_<scale>" likewise.

    Any height and width from 1 up (from 2 up for several scales under the rule "kazuto"). `scales` begins with 1; each
    further one has its logits under "aux_0.75" and so on, as has 1 itself: the release trains on all of them and on
    their maximum, "out". resize: "caffe" or "kazuto", see above.
    """

    stride = 8
    unused_parameters: tuple[str, ...] = ()

    def __init__(
        self,
        backbone: Encoder,
        classifier: nn.Module,
        *,
        scales: Sequence[float] = (1.0,),
        resize: str = "caffe",
    ) -> None:
        super().__init__()
        if resize not in ("caffe", "kazuto"):
            raise ValueError(f"resize must be 'caffe' or 'kazuto', got {resize!r}")
        if not scales or scales[0] != 1 or min(scales) <= 0:
            raise ValueError(f"scales must begin with 1 and be positive, got {tuple(scales)}")
        self.scales, self.resize = tuple(scales), resize
        self.align_corners = resize == "caffe"
        self.backbone = backbone
        self.classifier = classifier

    @property
    def num_classes(self) -> int:
        return classes_of(self.classifier)

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        """image (n, c, h, w) -> {"out": logits (n, k, h, w)}, and the same of each scale where there are several."""
        pyramid = self.pyramid(image)
        heads = {"out": self.fuse(pyramid)}
        if len(self.scales) > 1:
            heads |= {f"aux_{scale:g}": logits for scale, logits in zip(self.scales, pyramid, strict=True)}
        aligned = self.align_corners
        return OrderedDict(
            (name, enlarge_like(logits, image, align_corners=aligned)) for name, logits in heads.items()
        )

    def coarse(self, image: Tensor) -> Tensor:
        """image (n, c, h, w) -> logits (n, k, h', w') on the grid of scale 1, about h/8."""
        return self.fuse(self.pyramid(image))

    def pyramid(self, image: Tensor) -> list[Tensor]:
        """The logits of every scale, each on its own grid."""
        return [self.classifier(self.backbone(self.shrink(image, scale))[-1]) for scale in self.scales]

    def fuse(self, pyramid: list[Tensor]) -> Tensor:
        """The largest logit at each place of the first grid."""
        first, *others = pyramid
        others = [enlarge_like(logits, first, align_corners=self.align_corners) for logits in others]
        return reduce(torch.maximum, others, first)

    def shrink(self, image: Tensor, scale: float) -> Tensor:
        """The image at another size, bilinear without antialiasing."""
        if scale == 1:
            return image
        h, w = image.shape[-2], image.shape[-1]
        zoom, shrink = Fraction(scale).limit_denominator(64).as_integer_ratio()
        if self.resize == "kazuto":
            if not torch.compiler.is_compiling() and min(h, w) * scale < 1:
                raise ValueError(
                    f"at scale {scale:g} an image of {h}x{w} would vanish; pad it to sides of "
                    f"{-int(-1 // scale)} or more, or build the network with multi_scale=False"
                )
            size_hw = zoom * h // shrink, zoom * w // shrink
        else:  # Caffe's Interp layer shrinks first, keeping the corners, and then zooms
            size_hw = zoom * ((h - 1) // shrink) + 1, zoom * ((w - 1) // shrink) + 1
        return enlarge(image, size_hw, align_corners=self.align_corners)


class ASPP(nn.ModuleList):
    """Classifiers of different rates on the same features, summed: (n, c, h, w) -> logits (n, k, h, w)."""

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = sum(branch(x) for branch in self)
        return logits


class Stage(NamedTuple):
    """Blocks of equal width: how many, their inner channels, the stride of the first, the rate of all."""

    blocks: int
    channels: int
    stride: int
    rate: int


RESNET101 = (Stage(3, 64, 1, 1), Stage(4, 128, 2, 1), Stage(23, 256, 1, 2), Stage(3, 512, 1, 4))
"""Deep Residual Learning (1512.03385), Table 1; strides and rates from the release's prototxt."""


class MSRAResNet(nn.Module):
    """image (n, in_channels, h, w) -> [features (n, 2048, h', w')], of stride 8; any height and width from 1 up.

    stages: four rows as of `Stage`. frozen_norm: batch norm uses its stored statistics in training too, as the
    release does.
    """

    strides: tuple[int, ...] = (8,)

    def __init__(
        self, in_channels: int = 3, stages: Sequence[Sequence[int]] = RESNET101, *, frozen_norm: bool = True
    ) -> None:
        super().__init__()
        self.frozen_norm = frozen_norm
        rows = [Stage(*row) for row in stages]
        channels = rows[0].channels
        self.conv1 = nn.Conv2d(in_channels, channels, 7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.maxpool = nn.MaxPool2d(3, 2, padding=1, ceil_mode=True)
        self.layer1, channels = _stage(channels, rows[0])
        self.layer2, channels = _stage(channels, rows[1])
        self.layer3, channels = _stage(channels, rows[2])
        self.layer4, channels = _stage(channels, rows[3])
        self.channels: tuple[int, ...] = (channels,)
        self._initialise(depth=sum(row.blocks for row in rows))

    def forward(self, image: Tensor) -> list[Tensor]:
        x = self.maxpool(F.relu(self.bn1(self.conv1(image))))  # (n, 64, h/4, w/4)
        x = self.layer1(x)  # (n, 256, h/4, w/4)
        x = self.layer2(x)  # (n, 512, h/8, w/8)
        x = self.layer3(x)  # (n, 1024, h/8, w/8)
        x = self.layer4(x)  # (n, 2048, h/8, w/8)
        return [x]

    def train(self, mode: bool = True) -> MSRAResNet:
        super().train(mode)
        if self.frozen_norm:
            for module in self.modules():
                if isinstance(module, nn.BatchNorm2d):
                    module.eval()
        return self

    def _initialise(self, depth: int) -> None:
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
            elif isinstance(module, Bottleneck):  # a frozen norm would let values double with every block
                nn.init.constant_(module.bn3.weight, depth**-0.5)


def _stage(in_channels: int, stage: Stage) -> tuple[nn.Sequential, int]:
    """The blocks in a row, and how many channels they give."""
    out = 4 * stage.channels
    first = Bottleneck(in_channels, stage.channels, stage.stride, stage.rate, projects=True)
    others = [Bottleneck(out, stage.channels, 1, stage.rate, projects=False) for _ in range(stage.blocks - 1)]
    return nn.Sequential(first, *others), out


class Bottleneck(nn.Module):
    """1x1 that strides, dilated 3x3, 1x1 to four times the channels; added to the input or to its 1x1 projection."""

    def __init__(self, in_channels: int, channels: int, stride: int, rate: int, *, projects: bool) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, channels, 1, stride=stride, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=rate, dilation=rate, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.conv3 = nn.Conv2d(channels, 4 * channels, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(4 * channels)
        self.downsample: nn.Sequential | None = None
        if projects:
            self.downsample = nn.Sequential(
                nn.Conv2d(in_channels, 4 * channels, 1, stride=stride, bias=False),
                nn.BatchNorm2d(4 * channels),
            )

    def forward(self, x: Tensor) -> Tensor:
        shortcut = x if self.downsample is None else self.downsample(x)
        x = F.relu(self.bn1(self.conv1(x)))
        x = F.relu(self.bn2(self.conv2(x)))
        return F.relu(self.bn3(self.conv3(x)) + shortcut)


@builder
def deeplabv2_resnet101(
    *,
    num_classes: int = 21,
    in_channels: int = 3,
    weights: str | os.PathLike[str] | None = None,
    multi_scale: bool = True,
    resize: str = "caffe",
    atrous_rates: Sequence[int] = RATES["aspp_l"],
    frozen_norm: bool = True,
    stages: Sequence[Sequence[int]] = RESNET101,
) -> DeepLabV2:
    """DeepLab v2 on ResNet-101 with ASPP.

    num_classes, in_channels: of the task. weights: the path of a checkpoint, or None. multi_scale: classify at 1, 3/4
    and 1/2 of the size and take the maximum, as the release. resize: "caffe" or "kazuto", see the module.
    atrous_rates: of the pyramid's 3x3 convolutions. frozen_norm: keep the statistics of batch norm in training.
    stages: the backbone's rows, for smaller networks of the same kind.

    Raises TypeError for an unknown argument, ValueError for values that make no sense, WeightsError for weights that
    do not fit.
    """
    backbone = MSRAResNet(in_channels, stages, frozen_norm=frozen_norm)
    branches = []
    for rate in atrous_rates:
        branch = nn.Conv2d(backbone.channels[-1], num_classes, 3, padding=rate, dilation=rate)
        nn.init.normal_(branch.weight, std=0.01)
        assert branch.bias is not None
        nn.init.zeros_(branch.bias)
        branches.append(branch)
    scales = MULTI_SCALE if multi_scale else (1.0,)
    return DeepLabV2(backbone, ASPP(branches), scales=scales, resize=resize)


def _vgg16(
    name: str,
    *,
    num_classes: int = 21,
    in_channels: int = 3,
    weights: str | os.PathLike[str] | None = None,
    multi_scale: bool = False,
    resize: str = "caffe",
    width_mult: float = 1.0,
) -> DeepLabV2:
    """num_classes, in_channels: of the task. weights: the path of a checkpoint, or None. multi_scale: classify at 1,
    3/4 and 1/2 of the size and take the maximum; the paper's VGG networks do not. resize: "caffe" or "kazuto", see
    the module. width_mult: scales all channels.

    Raises TypeError for an unknown argument, ValueError for values that make no sense, WeightsError for weights that
    do not fit.
    """
    backbone, head = DilatedVGG16(in_channels, width_mult), name.removeprefix("deeplabv2_vgg16_")
    classifier: nn.Module
    if head == "largefov":
        field = V1_VARIANTS["largefov"]
        field = field._replace(channels=round(field.channels * width_mult))
        classifier = Classifier(backbone.channels[-1], num_classes, field)
    else:
        fields = [FieldOfView(3, rate, round(1024 * width_mult)) for rate in RATES[head]]
        classifier = ASPP(Classifier(backbone.channels[-1], num_classes, f, pool=False) for f in fields)
    return DeepLabV2(backbone, classifier, scales=MULTI_SCALE if multi_scale else (1.0,), resize=resize)


deeplabv2_vgg16_largefov = variant(
    _vgg16, "deeplabv2_vgg16_largefov", "DeepLab v2's LargeFOV on VGG-16, which is DeepLab v1's network."
)
deeplabv2_vgg16_aspp_s = variant(
    _vgg16, "deeplabv2_vgg16_aspp_s", "DeepLab v2 on VGG-16, ASPP-S: small rates 2, 4, 8, 12."
)
deeplabv2_vgg16_aspp_l = variant(
    _vgg16, "deeplabv2_vgg16_aspp_l", "DeepLab v2 on VGG-16, ASPP-L: large rates 6, 12, 18, 24."
)

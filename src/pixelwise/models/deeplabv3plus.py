"""Encoder-Decoder with Atrous Separable Convolution for Semantic Image Segmentation (DeepLabV3+). Chen, Zhu,
Papandreou, Schroff, Adam, ECCV 2018, 1802.02611.

DeepLabV3 and a decoder: its features, enlarged to a quarter of the image, meet those of that size from the encoder.
The Xception networks are TensorFlow's release (research/deeplab), whose files fit; they pad images to the crop size
(513x513) with mid-grey, 0 after preprocessing, and because the image pooling sees all of it, logits depend on that
padding. The paper's ResNets and MobileNetV2 stand on torchvision's layers (see `deeplabv3_paper` for what that
changes); the release's MobileNetV2 has no decoder (`deeplabv3_mobilenet_v2`).

VARIANTS lists what the PyTorch ports do differently. In which order branches are concatenated is not among it: that
permutes input channels of the convolution behind, and the converters do so.

Letters: n batch, c channels, k classes, h w pixels, s output stride.
"""

from __future__ import annotations

import os
from collections import OrderedDict
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from pixelwise.encoders import Encoder
from pixelwise.encoders.mobilenet_v2 import MobileNetV2Encoder
from pixelwise.encoders.xception import xception
from pixelwise.layers import classes_of, conv_norm_relu, enlarge_like
from pixelwise.models.building import builder, variant
from pixelwise.models.deeplabv3_paper import (
    ATROUS_RATES,
    MULTI_GRID,
    atrous_resnet,
    check_stride,
    initialise_head,
)
from pixelwise.models.segmentation.deeplabv3 import ASPP


class Variant(NamedTuple):
    """align_corners: of both enlargements. aspp_dropout: behind the pyramid. decoder_dropouts: behind each of the
    decoder's 3x3 convolutions, so also their number. multi_grid: factors on the rates of the backbone's last unit or
    stage; None leaves a ResNet the rates of torchvision, whose first block of a stage keeps the rate before it.
    pads_input: of MobileNetV2Encoder."""

    align_corners: bool
    aspp_dropout: float
    decoder_dropouts: tuple[float, ...]
    multi_grid: tuple[int, int, int] | None
    pads_input: bool = False


VARIANTS = {
    # Section 4: no multi-grid; research/deeplab/model.py
    "xception": Variant(True, 0.1, (0.0, 0.0), (1, 1, 1)),
    "paper": Variant(True, 0.1, (0.0, 0.0), MULTI_GRID),  # section 4.1 starts from DeepLabV3's ResNet-101
    "vainf": Variant(False, 0.1, (0.0,), None, pads_input=True),  # VainF/DeepLabV3Plus-Pytorch, network/
    "jfzhang95": Variant(True, 0.5, (0.5, 0.1), MULTI_GRID),  # jfzhang95/pytorch-deeplab-xception, modeling/
}


class DeepLabV3Plus(nn.Module):
    """image (n, c, h, w), float -> {"out": logits (n, k, h, w)}.

    Any height and width that `backbone` takes; it gives features of stride 4 first and those of the output stride
    last. separable: the 3x3 convolutions of pyramid and decoder are split into depthwise and pointwise ones. Training
    needs a batch of two or more, see `deeplabv3.ASPPPooling`.
    """

    stride = 4
    unused_parameters: tuple[str, ...] = ()

    def __init__(
        self,
        backbone: Encoder,
        num_classes: int = 21,
        *,
        variant: Variant = VARIANTS["paper"],
        atrous_rates: tuple[int, ...] = ATROUS_RATES[16],
        separable: bool = False,
    ) -> None:
        super().__init__()
        self.align_corners = variant.align_corners
        self.backbone = backbone
        self.aspp = ASPP(
            backbone.channels[-1],
            atrous_rates,
            dropout=variant.aspp_dropout,
            conv=separable_norm_relu if separable else conv_norm_relu,
        )
        self.decoder = Decoder(
            backbone.channels[0],
            num_classes,
            dropouts=variant.decoder_dropouts,
            separable=separable,
            align_corners=variant.align_corners,
        )
        self.aspp.apply(initialise_head)
        self.decoder.apply(initialise_head)

    @property
    def num_classes(self) -> int:
        return classes_of(self.decoder)

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        """image (n, c, h, w) -> {"out": logits (n, k, h, w)}."""
        return OrderedDict(out=enlarge_like(self.coarse(image), image, align_corners=self.align_corners))

    def coarse(self, image: Tensor) -> Tensor:
        """image (n, c, h, w) -> logits (n, k, h/4, w/4)."""
        fine, *_, features = self.backbone(image)  # (n, c', h/4, w/4), (n, c'', h/s, w/s)
        context = self.aspp(features)  # (n, 256, h/s, w/s)
        logits: Tensor = self.decoder(context, fine)
        return logits


class Decoder(nn.Module):
    """context (n, 256, h/s, w/s) and fine (n, c, h/4, w/4) -> logits (n, k, h/4, w/4)."""

    def __init__(
        self,
        fine_channels: int,
        num_classes: int,
        *,
        dropouts: tuple[float, ...],
        separable: bool,
        align_corners: bool,
    ) -> None:
        super().__init__()
        self.align_corners = align_corners
        self.reduce = conv_norm_relu(fine_channels, 48, 1)
        conv = separable_norm_relu if separable else conv_norm_relu
        mix: OrderedDict[str, nn.Module] = OrderedDict()
        for place, dropout in enumerate(dropouts):
            mix[f"conv{place}"] = conv(304 if place == 0 else 256, 256, 3)
            mix[f"dropout{place}"] = nn.Dropout(dropout)
        self.mix = nn.Sequential(mix)
        self.logits = nn.Conv2d(256, num_classes, 1)

    def forward(self, context: Tensor, fine: Tensor) -> Tensor:
        fine = self.reduce(fine)  # (n, 48, h/4, w/4)
        context = enlarge_like(context, fine, align_corners=self.align_corners)  # (n, 256, h/4, w/4)
        x = self.mix(torch.cat([context, fine], dim=1))  # (n, 256, h/4, w/4)
        logits: Tensor = self.logits(x)
        return logits


def separable_norm_relu(in_channels: int, out_channels: int, kernel: int, rate: int = 1) -> nn.Sequential:
    """Depthwise and pointwise convolution, each with batch norm and ReLU; the size is kept."""
    padding = rate * (kernel // 2)
    return nn.Sequential(
        nn.Conv2d(
            in_channels, in_channels, kernel, padding=padding, dilation=rate, groups=in_channels, bias=False
        ),
        nn.BatchNorm2d(in_channels),
        nn.ReLU(),
        *conv_norm_relu(in_channels, out_channels, 1),
    )


def _of_any_width(
    name: str,
    *,
    num_classes: int = 21,
    in_channels: int = 3,
    weights: str | os.PathLike[str] | None = None,
    output_stride: int = 16,
    separable: bool = True,
    width_mult: float = 1.0,
) -> DeepLabV3Plus:
    """num_classes, in_channels: of the task. weights: the path of a checkpoint, or None. output_stride: 16, or 8 with
    all rates doubled; the same weights serve both. separable: the 3x3 convolutions of pyramid and decoder, as in the
    release. width_mult: scales the backbone's channels.

    Raises TypeError for an unknown argument, ValueError for values that make no sense, WeightsError for weights that
    do not fit.
    """
    check_stride(output_stride)
    encoder = name.removeprefix("deeplabv3plus_")
    row = VARIANTS["paper" if encoder == "mobilenet_v2" else "xception"]
    backbone: Encoder
    if encoder == "mobilenet_v2":
        backbone = MobileNetV2Encoder(
            in_channels=in_channels, output_stride=output_stride, levels=(1, 4), width_mult=width_mult
        )
    else:
        backbone = xception(
            encoder,
            in_channels=in_channels,
            output_stride=output_stride,
            multi_grid=row.multi_grid or (1, 1, 1),
            levels=(1, 4),
            width_mult=width_mult,
        )
    rates = ATROUS_RATES[output_stride]
    return DeepLabV3Plus(backbone, num_classes, variant=row, atrous_rates=rates, separable=separable)


deeplabv3plus_xception41 = variant(_of_any_width, "deeplabv3plus_xception41", "DeepLabV3+ on Xception-41.")
deeplabv3plus_xception65 = variant(
    _of_any_width, "deeplabv3plus_xception65", "DeepLabV3+ on aligned Xception-65, the release's network."
)
deeplabv3plus_xception71 = variant(_of_any_width, "deeplabv3plus_xception71", "DeepLabV3+ on Xception-71.")
deeplabv3plus_mobilenet_v2 = variant(
    _of_any_width, "deeplabv3plus_mobilenet_v2", "The paper's DeepLabV3+ on MobileNetV2."
)


def _resnet(
    name: str,
    *,
    num_classes: int = 21,
    in_channels: int = 3,
    weights: str | os.PathLike[str] | None = None,
    progress: bool = True,
    output_stride: int = 16,
    separable: bool = False,
    weights_backbone: Any = None,
) -> DeepLabV3Plus:
    """num_classes, in_channels: of the task. weights: the path of a checkpoint, or None. progress: draw a bar while
    fetching. output_stride: 16, or 8 with all rates doubled; the same weights serve both. separable: the 3x3
    convolutions of pyramid and decoder (the paper's Table 5 has both; the ports' weights have plain ones).
    weights_backbone: ImageNet weights as in `encoders.resnet`, or None.

    Raises TypeError for an unknown argument, ValueError for values that make no sense, WeightsError and DownloadError
    for files.
    """
    _, encoder, *port = name.split("_")
    row = VARIANTS[port[0] if port else "paper"]
    backbone = atrous_resnet(
        encoder,
        in_channels=in_channels,
        output_stride=output_stride,
        multi_grid=row.multi_grid,
        levels=(1, 4),
        weights_backbone=weights_backbone,
        progress=progress,
    )
    rates = ATROUS_RATES[output_stride]
    return DeepLabV3Plus(backbone, num_classes, variant=row, atrous_rates=rates, separable=separable)


deeplabv3plus_resnet50 = variant(_resnet, "deeplabv3plus_resnet50", "The paper's DeepLabV3+ on ResNet-50.")
deeplabv3plus_resnet101 = variant(_resnet, "deeplabv3plus_resnet101", "The paper's DeepLabV3+ on ResNet-101.")
deeplabv3plus_resnet50_vainf = variant(
    _resnet, "deeplabv3plus_resnet50_vainf", "VainF's DeepLabV3+ on ResNet-50."
)
deeplabv3plus_resnet101_vainf = variant(
    _resnet, "deeplabv3plus_resnet101_vainf", "VainF's DeepLabV3+ on ResNet-101."
)
deeplabv3plus_resnet101_jfzhang95 = variant(
    _resnet,
    "deeplabv3plus_resnet101_jfzhang95",
    "jfzhang95's DeepLabV3+ on ResNet-101, the paper's but for dropout.",
)


@builder
def deeplabv3plus_mobilenet_v2_vainf(
    *,
    num_classes: int = 21,
    in_channels: int = 3,
    weights: str | os.PathLike[str] | None = None,
    output_stride: int = 16,
) -> DeepLabV3Plus:
    """VainF's DeepLabV3+ on MobileNetV2; arguments as in `deeplabv3plus_mobilenet_v2`."""
    check_stride(output_stride)
    row, rates = VARIANTS["vainf"], ATROUS_RATES[output_stride]
    backbone = MobileNetV2Encoder(
        in_channels=in_channels, output_stride=output_stride, levels=(1, 4), pads_input=row.pads_input
    )
    return DeepLabV3Plus(backbone, num_classes, variant=row, atrous_rates=rates)

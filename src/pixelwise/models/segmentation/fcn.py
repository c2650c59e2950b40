"""Fully Convolutional Networks for Semantic Segmentation. Long, Shelhamer, Darrell, CVPR 2015, 1411.4038.

This is torchvision's variant. From the paper it keeps the idea, a classifier turned into convolutions; it
differs by the backbone (a dilated ResNet of output stride 8 for VGG-16 of stride 32), by a 3x3 convolution
before the classifier, and by having neither skips nor learned upsampling. The auxiliary head on the last but
one stage is PSPNet's (1612.01105); it helps training and is not needed afterwards.

Letters: n batch, k classes, c channels, h w pixels, s output stride.
"""

from __future__ import annotations

from typing import Any

from torch import nn
from torchvision.models import ResNet50_Weights, ResNet101_Weights

from pixelwise.catalog import CATALOG
from pixelwise.layers import Norm, conv_norm_relu
from pixelwise.models.segmentation.features import OnNamedFeatures, resnet_features
from pixelwise.weights.enums import (
    WeightsEnum,
    called_as_in_torchvision,
    coco_with_voc_labels,
    settle,
    with_weights,
)


class FCN(OnNamedFeatures):
    """image (n, 3, h, w), float -> {"out": logits (n, k, h, w)} and, with an auxiliary head, {"aux": likewise}.

    FCN(backbone, classifier, aux_classifier=None), as torchvision's; see `OnNamedFeatures`.
    """


class FCNHead(nn.Sequential):
    """3x3 convolution to a quarter of the channels, norm, ReLU, dropout, 1x1 convolution to classes."""

    def __init__(self, in_channels: int, channels: int, *, norm: Norm = "batch") -> None:
        mid = max(1, in_channels // 4)
        super().__init__(
            *conv_norm_relu(in_channels, mid, 3, norm=norm),
            nn.Dropout(0.1),
            nn.Conv2d(mid, channels, 1),
        )


class FCN_ResNet50_Weights(WeightsEnum):
    COCO_WITH_VOC_LABELS_V1 = coco_with_voc_labels(CATALOG["fcn_resnet50"])
    DEFAULT = COCO_WITH_VOC_LABELS_V1


class FCN_ResNet101_Weights(WeightsEnum):
    COCO_WITH_VOC_LABELS_V1 = coco_with_voc_labels(CATALOG["fcn_resnet101"])
    DEFAULT = COCO_WITH_VOC_LABELS_V1


@called_as_in_torchvision(FCN_ResNet50_Weights.DEFAULT, ResNet50_Weights.IMAGENET1K_V1)
def fcn_resnet50(
    *,
    weights: FCN_ResNet50_Weights | str | None = None,
    progress: bool = True,
    num_classes: int | None = None,
    aux_loss: bool | None = None,
    weights_backbone: ResNet50_Weights | str | None = ResNet50_Weights.IMAGENET1K_V1,
    output_stride: int = 8,
    in_channels: int = 3,
) -> FCN:
    """FCN on ResNet-50, as torchvision's builder of this name.

    weights: trained ones, which fix num_classes to 21 and aux_loss to True; None for none. weights_backbone:
    ImageNet weights, fetched unless `weights` are given; None for none. num_classes: 21 unless given.
    aux_loss: have the auxiliary head. progress: draw a bar while fetching. output_stride: 8, 16 or 32; 32 is
    the R package's network, which loads the same weights but gives other logits. in_channels: other than 3,
    the first filters are shared out (`layers.with_input_channels`).

    Raises ValueError for arguments that contradict each other, TypeError or KeyError for weights of another
    network or name, TypeError for an unknown argument, WeightsError and DownloadError for files (see
    `weights.store`).
    """
    return _fcn(
        "resnet50", FCN_ResNet50_Weights, ResNet50_Weights,
        weights, progress, num_classes, aux_loss, weights_backbone, output_stride, in_channels,
    )  # fmt: skip


@called_as_in_torchvision(FCN_ResNet101_Weights.DEFAULT, ResNet101_Weights.IMAGENET1K_V1)
def fcn_resnet101(
    *,
    weights: FCN_ResNet101_Weights | str | None = None,
    progress: bool = True,
    num_classes: int | None = None,
    aux_loss: bool | None = None,
    weights_backbone: ResNet101_Weights | str | None = ResNet101_Weights.IMAGENET1K_V1,
    output_stride: int = 8,
    in_channels: int = 3,
) -> FCN:
    """FCN on ResNet-101; arguments and errors as in `fcn_resnet50`."""
    return _fcn(
        "resnet101", FCN_ResNet101_Weights, ResNet101_Weights,
        weights, progress, num_classes, aux_loss, weights_backbone, output_stride, in_channels,
    )  # fmt: skip


def _fcn(
    encoder: str, enum: type[WeightsEnum], backbone_enum: Any,
    weights: Any, progress: bool, num_classes: int | None, aux_loss: bool | None, weights_backbone: Any,
    output_stride: int, in_channels: int,
) -> FCN:  # fmt: skip
    trained, classes, aux, pretrained = settle(
        enum, weights, num_classes, aux_loss, backbone_enum, weights_backbone
    )
    backbone = resnet_features(
        encoder,
        aux=aux,
        weights=pretrained,
        progress=progress,
        output_stride=output_stride,
        in_channels=in_channels,
    )
    # The auxiliary head is made first, as in torchvision: the same seed then gives the same weights.
    aux_classifier = FCNHead(1024, classes) if aux else None
    return with_weights(FCN(backbone, FCNHead(2048, classes), aux_classifier), trained, progress=progress)

"""Rethinking Atrous Convolution for Semantic Image Segmentation (DeepLabV3). Chen, Papandreou, Schroff, Adam,
2017, 1706.05587.

This is torchvision's variant. Atrous rates are 12, 24 and 36, the paper's for output stride 8; on
MobileNetV3, whose stride is 16, they stay so. Differences from the paper: no multi-grid in the last stage, a
3x3 convolution between pyramid and classifier, dropout in the pyramid's projection, and an auxiliary head
(PSPNet's, 1612.01105) that helps training and is not needed afterwards.

Letters: n batch, k classes, c channels, h w pixels, s output stride.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.fx import Proxy
from torchvision.models import MobileNet_V3_Large_Weights, ResNet50_Weights, ResNet101_Weights

from pixelwise.catalog import CATALOG
from pixelwise.layers import Norm, conv_norm_relu, enlarge_like
from pixelwise.models.segmentation.fcn import FCNHead
from pixelwise.models.segmentation.features import OnNamedFeatures, mobilenet_features, resnet_features
from pixelwise.weights.enums import (
    WeightsEnum,
    called_as_in_torchvision,
    coco_with_voc_labels,
    settle,
    with_weights,
)


class DeepLabV3(OnNamedFeatures):
    """image (n, 3, h, w), float -> {"out": logits (n, k, h, w)} and, with an auxiliary head, {"aux": likewise}.

    DeepLabV3(backbone, classifier, aux_classifier=None), as torchvision's; see `OnNamedFeatures`. With `DeepLabHead` as
    its classifier, training needs a batch of two or more, see `ASPPPooling`.
    """


class DeepLabHead(nn.Sequential):
    """The pyramid, a 3x3 convolution, and a 1x1 convolution to classes; size is kept."""

    def __init__(
        self, in_channels: int, num_classes: int, atrous_rates: Sequence[int] = (12, 24, 36)
    ) -> None:
        super().__init__(
            ASPP(in_channels, atrous_rates),
            nn.Conv2d(256, 256, 3, padding=1, bias=False),
            nn.BatchNorm2d(256),
            nn.ReLU(),
            nn.Conv2d(256, num_classes, 1),
        )


class ASPP(nn.Module):
    """Atrous spatial pyramid pooling: the same features seen at several rates and as a whole, then mixed.

    (n, in_channels, h, w) -> (n, out_channels, h, w). `conv` makes the 3x3 convolutions, with norm and activation;
    `norm` is that of all others, and of those too without `conv`.
    """

    def __init__(
        self,
        in_channels: int,
        atrous_rates: Sequence[int],
        out_channels: int = 256,
        *,
        dropout: float = 0.5,
        conv: Callable[[int, int, int, int], nn.Module] | None = None,
        norm: Norm = "batch",
    ) -> None:
        super().__init__()
        self.convs = nn.ModuleList(
            [
                conv_norm_relu(in_channels, out_channels, 1, norm=norm),
                *(
                    conv(in_channels, out_channels, 3, rate)
                    if conv
                    else ASPPConv(in_channels, out_channels, rate, norm=norm)
                    for rate in atrous_rates
                ),
                ASPPPooling(in_channels, out_channels, norm=norm),
            ]
        )
        self.project = nn.Sequential(
            *conv_norm_relu(len(self.convs) * out_channels, out_channels, 1, norm=norm),
            nn.Dropout(dropout),
        )

    def forward(self, x: Tensor) -> Tensor:
        branches = [branch(x) for branch in self.convs]  # each (n, out_channels, h, w)
        mixed: Tensor = self.project(torch.cat(branches, dim=1))
        return mixed


class ASPPConv(nn.Sequential):
    """3x3 convolution of a rate, norm, ReLU; size is kept."""

    def __init__(self, in_channels: int, out_channels: int, dilation: int, *, norm: Norm = "batch") -> None:
        super().__init__(*conv_norm_relu(in_channels, out_channels, 3, dilation, norm=norm))


class ASPPPooling(nn.Sequential):
    """The mean of the whole image, transformed and spread over all places; (n, c, h, w) -> (n, out_channels,
    h, w).

    Raises ValueError in training with one image: its batch norm would see one value per channel.
    """

    def __init__(self, in_channels: int, out_channels: int, *, norm: Norm = "batch") -> None:
        super().__init__(
            nn.AdaptiveAvgPool2d(1), *conv_norm_relu(in_channels, out_channels, 1, norm=norm, pooled=True)
        )

    def forward(self, x: Tensor) -> Tensor:
        if not torch.jit.is_scripting():  # type: ignore[attr-defined]
            self._refuse_one_image(x)
        whole = x
        for layer in self:
            whole = layer(whole)  # at last (n, out_channels, 1, 1)
        if self.training:  # gradients are then rounded as torchvision's and SMP's are, digit for digit
            return enlarge_like(whole, x, align_corners=False)
        return whole.expand(-1, -1, x.shape[-2], x.shape[-1])  # enlarging one pixel bilinearly repeats it

    def _refuse_one_image(self, x: Tensor | Proxy) -> None:
        norm = self[2]
        if not isinstance(norm, nn.BatchNorm2d) or not norm.training or isinstance(x, Proxy):
            return
        if x.shape[0] == 1:
            raise ValueError(
                "DeepLab's pyramid cannot train on a batch of one image: the batch norm of its image pooling would "
                "see a single value per channel; use a batch of two or more, or put that layer in eval() mode"
            )


class DeepLabV3_ResNet50_Weights(WeightsEnum):
    COCO_WITH_VOC_LABELS_V1 = coco_with_voc_labels(CATALOG["deeplabv3_resnet50"])
    DEFAULT = COCO_WITH_VOC_LABELS_V1


class DeepLabV3_ResNet101_Weights(WeightsEnum):
    COCO_WITH_VOC_LABELS_V1 = coco_with_voc_labels(CATALOG["deeplabv3_resnet101"])
    DEFAULT = COCO_WITH_VOC_LABELS_V1


class DeepLabV3_MobileNet_V3_Large_Weights(WeightsEnum):
    COCO_WITH_VOC_LABELS_V1 = coco_with_voc_labels(CATALOG["deeplabv3_mobilenet_v3_large"])
    DEFAULT = COCO_WITH_VOC_LABELS_V1


@called_as_in_torchvision(DeepLabV3_ResNet50_Weights.DEFAULT, ResNet50_Weights.IMAGENET1K_V1)
def deeplabv3_resnet50(
    *,
    weights: DeepLabV3_ResNet50_Weights | str | None = None,
    progress: bool = True,
    num_classes: int | None = None,
    aux_loss: bool | None = None,
    weights_backbone: ResNet50_Weights | str | None = ResNet50_Weights.IMAGENET1K_V1,
    output_stride: int = 8,
    in_channels: int = 3,
) -> DeepLabV3:
    """DeepLabV3 on ResNet-50, as torchvision's builder of this name.

    weights: trained ones, which fix num_classes to 21 and aux_loss to True; None for none. weights_backbone:
    ImageNet weights, fetched unless `weights` are given; None for none. num_classes: 21 unless given.
    aux_loss: have the auxiliary head. progress: draw a bar while fetching. output_stride: 8, 16 or 32; the
    weights are made for 8. in_channels: other than 3, the first filters are shared out
    (`layers.with_input_channels`).

    Raises ValueError for arguments that contradict each other, TypeError or KeyError for weights of another
    network or name, TypeError for an unknown argument, WeightsError and DownloadError for files (see
    `weights.store`).
    """
    return _on_resnet(
        "resnet50", DeepLabV3_ResNet50_Weights, ResNet50_Weights,
        weights, progress, num_classes, aux_loss, weights_backbone, output_stride, in_channels,
    )  # fmt: skip


@called_as_in_torchvision(DeepLabV3_ResNet101_Weights.DEFAULT, ResNet101_Weights.IMAGENET1K_V1)
def deeplabv3_resnet101(
    *,
    weights: DeepLabV3_ResNet101_Weights | str | None = None,
    progress: bool = True,
    num_classes: int | None = None,
    aux_loss: bool | None = None,
    weights_backbone: ResNet101_Weights | str | None = ResNet101_Weights.IMAGENET1K_V1,
    output_stride: int = 8,
    in_channels: int = 3,
) -> DeepLabV3:
    """DeepLabV3 on ResNet-101; arguments and errors as in `deeplabv3_resnet50`."""
    return _on_resnet(
        "resnet101", DeepLabV3_ResNet101_Weights, ResNet101_Weights,
        weights, progress, num_classes, aux_loss, weights_backbone, output_stride, in_channels,
    )  # fmt: skip


@called_as_in_torchvision(
    DeepLabV3_MobileNet_V3_Large_Weights.DEFAULT, MobileNet_V3_Large_Weights.IMAGENET1K_V1
)
def deeplabv3_mobilenet_v3_large(
    *,
    weights: DeepLabV3_MobileNet_V3_Large_Weights | str | None = None,
    progress: bool = True,
    num_classes: int | None = None,
    aux_loss: bool | None = None,
    weights_backbone: MobileNet_V3_Large_Weights | str | None = MobileNet_V3_Large_Weights.IMAGENET1K_V1,
    in_channels: int = 3,
) -> DeepLabV3:
    """DeepLabV3 on MobileNetV3-Large of output stride 16; arguments and errors as in `deeplabv3_resnet50`."""
    trained, classes, aux, pretrained = settle(
        DeepLabV3_MobileNet_V3_Large_Weights,
        weights,
        num_classes,
        aux_loss,
        MobileNet_V3_Large_Weights,
        weights_backbone,
    )
    backbone = mobilenet_features(
        {4: "aux", 16: "out"} if aux else {16: "out"},
        weights=pretrained,
        progress=progress,
        in_channels=in_channels,
    )
    return with_weights(_deeplabv3(backbone, 960, 40 if aux else None, classes), trained, progress=progress)


def _on_resnet(
    encoder: str, enum: type[WeightsEnum], backbone_enum: Any,
    weights: Any, progress: bool, num_classes: int | None, aux_loss: bool | None, weights_backbone: Any,
    output_stride: int, in_channels: int,
) -> DeepLabV3:  # fmt: skip
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
    return with_weights(
        _deeplabv3(backbone, 2048, 1024 if aux else None, classes), trained, progress=progress
    )


def _deeplabv3(backbone: nn.Module, channels: int, aux_channels: int | None, classes: int) -> DeepLabV3:
    # The auxiliary head is made first, as in torchvision: the same seed then gives the same weights.
    aux_classifier = None if aux_channels is None else FCNHead(aux_channels, classes)
    return DeepLabV3(backbone, DeepLabHead(channels, classes), aux_classifier)

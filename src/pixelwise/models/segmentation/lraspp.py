"""LR-ASPP, the segmentation head of "Searching for MobileNetV3". Howard and others, ICCV 2019, 1905.02244,
section 6.3.

This is torchvision's variant: the whole image is pooled to one value per channel, where the paper pools with
a window of 49x49 and stride (16, 20) made for Cityscapes.

Letters: n batch, k classes, h w pixels.
"""

from __future__ import annotations

from collections import OrderedDict

import torch
from torch import Tensor, nn
from torchvision.models import MobileNet_V3_Large_Weights

from pixelwise.catalog import CATALOG
from pixelwise.layers import classes_of, enlarge_like
from pixelwise.models.segmentation.features import mobilenet_features, refuse_unnamed, stride_of
from pixelwise.weights.enums import (
    WeightsEnum,
    called_as_in_torchvision,
    coco_with_voc_labels,
    settle,
    with_weights,
)


class LRASPP(nn.Module):
    """image (n, 3, h, w), float -> {"out": logits (n, num_classes, h, w)}; any height and width from 1 up.

    LRASPP(backbone, low_channels, high_channels, num_classes, inter_channels=128), as torchvision's: `backbone` gives a
    dictionary of two features, "low" and "high", in torchvision's network of stride 8 and 16; the logits have the finer
    one's size. `inter_channels`: width of the head.
    """

    align_corners = False
    __jit_unused_properties__ = ("num_classes", "stride")

    def __init__(
        self,
        backbone: nn.Module,
        low_channels: int,
        high_channels: int,
        num_classes: int,
        inter_channels: int = 128,
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.classifier = LRASPPHead(low_channels, high_channels, num_classes, inter_channels)

    @property
    def num_classes(self) -> int:
        return classes_of(self.classifier)

    @property
    def stride(self) -> int:
        return stride_of(self, "low")

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        """image (n, 3, h, w) -> {"out": logits (n, k, h, w)}."""
        logits = OrderedDict()
        logits["out"] = enlarge_like(self.coarse(image), image, align_corners=False)
        return logits

    def coarse(self, image: Tensor) -> Tensor:
        """image (n, 3, h, w) -> logits (n, k, ceil(h/8), ceil(w/8)): "out" before it is enlarged."""
        features = self.backbone(image)  # "low" (n, 40, h/8, w/8) and "high" (n, 960, h/16, w/16)
        if not torch.jit.is_scripting():  # type: ignore[attr-defined]
            refuse_unnamed(features, self.backbone)
        logits: Tensor = self.classifier(features)
        return logits


class LRASPPHead(nn.Module):
    """Coarse features, weighted by what the whole image shows, and fine ones, each classified, then added."""

    def __init__(self, low_channels: int, high_channels: int, num_classes: int, inter_channels: int) -> None:
        super().__init__()
        self.cbr = nn.Sequential(
            nn.Conv2d(high_channels, inter_channels, 1, bias=False),
            nn.BatchNorm2d(inter_channels),
            nn.ReLU(inplace=True),
        )
        self.scale = nn.Sequential(
            nn.AdaptiveAvgPool2d(1), nn.Conv2d(high_channels, inter_channels, 1, bias=False), nn.Sigmoid()
        )
        self.low_classifier = nn.Conv2d(low_channels, num_classes, 1)
        self.high_classifier = nn.Conv2d(inter_channels, num_classes, 1)

    def forward(self, features: dict[str, Tensor]) -> Tensor:
        """ "low" (n, c, h, w), "high" (n, d, ~h/2, ~w/2) -> logits (n, k, h, w)."""
        low, high = features["low"], features["high"]
        weights = self.scale(high)  # (n, inter_channels, 1, 1)
        x = self.cbr(high) * weights  # (n, inter_channels, ~h/2, ~w/2)
        x = enlarge_like(x, low, align_corners=False)
        logits: Tensor = self.low_classifier(low) + self.high_classifier(x)
        return logits


class LRASPP_MobileNet_V3_Large_Weights(WeightsEnum):
    COCO_WITH_VOC_LABELS_V1 = coco_with_voc_labels(CATALOG["lraspp_mobilenet_v3_large"])
    DEFAULT = COCO_WITH_VOC_LABELS_V1


@called_as_in_torchvision(LRASPP_MobileNet_V3_Large_Weights.DEFAULT, MobileNet_V3_Large_Weights.IMAGENET1K_V1)
def lraspp_mobilenet_v3_large(
    *,
    weights: LRASPP_MobileNet_V3_Large_Weights | str | None = None,
    progress: bool = True,
    num_classes: int | None = None,
    weights_backbone: MobileNet_V3_Large_Weights | str | None = MobileNet_V3_Large_Weights.IMAGENET1K_V1,
    aux_loss: bool | None = None,
    in_channels: int = 3,
) -> LRASPP:
    """LR-ASPP on MobileNetV3-Large, as torchvision's builder of this name.

    weights: trained ones, which fix num_classes to 21; None for none. weights_backbone: ImageNet weights,
    fetched unless `weights` are given; None for none. num_classes: 21 unless given. progress: draw a bar
    while fetching. in_channels: other than 3, the first filters are shared out
    (`layers.with_input_channels`).

    Raises NotImplementedError for aux_loss=True, as there is no auxiliary head; else as `deeplabv3_resnet50`.
    """
    if aux_loss:
        raise NotImplementedError(
            "lraspp_mobilenet_v3_large has no auxiliary head, so aux_loss must be left out or False; "
            "deeplabv3_mobilenet_v3_large has one"
        )
    trained, classes, _, pretrained = settle(
        LRASPP_MobileNet_V3_Large_Weights,
        weights,
        num_classes,
        None,
        MobileNet_V3_Large_Weights,
        weights_backbone,
    )
    backbone = mobilenet_features(
        {4: "low", 16: "high"}, weights=pretrained, progress=progress, in_channels=in_channels
    )
    return with_weights(LRASPP(backbone, 40, 960, classes), trained, progress=progress)

"""LR-ASPP, the segmentation head of "Searching for MobileNetV3". Howard and others, ICCV 2019, 1905.02244,
section 6.3.

This is torchvision's variant: the whole image is pooled to one value per channel, where the paper pools with
a window of 49x49 and stride (16, 20) made for Cityscapes.

Letters: n batch, k classes, h w pixels.
"""

from __future__ import annotations

from torch import Tensor, nn
from torchvision.models import MobileNet_V3_Large_Weights

from pixelwise.catalog import CATALOG
from pixelwise.encoders import Encoder
from pixelwise.encoders.mobilenet_v3 import mobilenet_v3_large
from pixelwise.layers import classes_of, enlarge_like
from pixelwise.weights.enums import (
    WeightsEnum,
    called_as_in_torchvision,
    coco_with_voc_labels,
    settle,
    with_weights,
)


class LRASPP(nn.Module):
    """image (n, 3, h, w), float -> {"out": logits (n, num_classes, h, w)}; any height and width from 1 up.

    `backbone` gives two features, in torchvision's network of stride 8 and 16; the logits have the finer
    one's size. `inter_channels`: width of the head.
    """

    align_corners = False

    def __init__(self, backbone: Encoder, num_classes: int = 21, *, inter_channels: int = 128) -> None:
        super().__init__()
        self.stride = backbone.strides[0]
        self.backbone = backbone
        low_channels, high_channels = backbone.channels
        self.classifier = LRASPPHead(low_channels, high_channels, num_classes, inter_channels)

    @property
    def num_classes(self) -> int:
        return classes_of(self.classifier)

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        """image (n, 3, h, w) -> {"out": logits (n, k, h, w)}."""
        logits = self.coarse(image)
        return {"out": enlarge_like(logits, image, align_corners=self.align_corners)}

    def coarse(self, image: Tensor) -> Tensor:
        """image (n, 3, h, w) -> logits (n, k, ceil(h/8), ceil(w/8)): "out" before it is enlarged."""
        low, high = self.backbone(image)  # (n, 40, h/8, w/8) and (n, 960, h/16, w/16)
        logits: Tensor = self.classifier(low, high)
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

    def forward(self, low: Tensor, high: Tensor) -> Tensor:
        """low (n, c, h, w), high (n, d, ~h/2, ~w/2) -> logits (n, k, h, w)."""
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
    # Layer 4 is the first of stride 8, as in torchvision.
    backbone = mobilenet_v3_large(
        weights=pretrained, progress=progress, output_stride=16, levels=(4, 16), in_channels=in_channels
    )
    return with_weights(LRASPP(backbone, classes), trained, progress=progress)

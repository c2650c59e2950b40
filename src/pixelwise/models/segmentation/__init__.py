"""torchvision's segmentation networks, in a namespace like its own: change the import, keep the rest.

>>> from pixelwise.models import segmentation                                     # doctest: +SKIP
>>> segmentation.deeplabv3_resnet101(weights="DEFAULT")                           # doctest: +SKIP
>>> segmentation.__dict__["fcn_resnet50"](num_classes=5)                          # doctest: +SKIP

Its names are here at once, not on first use, as scripts look for them in `__dict__`; so importing it brings torch.
"""

from __future__ import annotations

from pixelwise.models.segmentation import deeplabv3, fcn, lraspp
from pixelwise.models.segmentation.deeplabv3 import (
    DeepLabV3,
    DeepLabV3_MobileNet_V3_Large_Weights,
    DeepLabV3_ResNet50_Weights,
    DeepLabV3_ResNet101_Weights,
    deeplabv3_mobilenet_v3_large,
    deeplabv3_resnet50,
    deeplabv3_resnet101,
)
from pixelwise.models.segmentation.fcn import (
    FCN,
    FCN_ResNet50_Weights,
    FCN_ResNet101_Weights,
    fcn_resnet50,
    fcn_resnet101,
)
from pixelwise.models.segmentation.lraspp import (
    LRASPP,
    LRASPP_MobileNet_V3_Large_Weights,
    lraspp_mobilenet_v3_large,
)

__all__ = [
    "FCN",
    "LRASPP",
    "DeepLabV3",
    "DeepLabV3_MobileNet_V3_Large_Weights",
    "DeepLabV3_ResNet50_Weights",
    "DeepLabV3_ResNet101_Weights",
    "FCN_ResNet50_Weights",
    "FCN_ResNet101_Weights",
    "LRASPP_MobileNet_V3_Large_Weights",
    "deeplabv3",
    "deeplabv3_mobilenet_v3_large",
    "deeplabv3_resnet50",
    "deeplabv3_resnet101",
    "fcn",
    "fcn_resnet50",
    "fcn_resnet101",
    "lraspp",
    "lraspp_mobilenet_v3_large",
]

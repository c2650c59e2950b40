"""torchvision's six segmentation networks: their names are ours, so only the network has to be recognised."""

from __future__ import annotations

from typing import Any

from pixelwise.checkpoints.family import Family
from pixelwise.weights.origin import Origin
from pixelwise.weights.renames import Tensors


def _depth(tensors: Tensors) -> int:
    return 101 if "backbone.layer3.22.conv1.weight" in tensors else 50


def _fcn(tensors: Tensors) -> tuple[Origin, Tensors]:
    return Origin(f"fcn_resnet{_depth(tensors)}", _arguments(tensors)), tensors


def _deeplabv3(tensors: Tensors) -> tuple[Origin, Tensors]:
    mobile = "backbone.16.0.weight" in tensors
    backbone = "mobilenet_v3_large" if mobile else f"resnet{_depth(tensors)}"
    return Origin(f"deeplabv3_{backbone}", _arguments(tensors)), tensors


def _lraspp(tensors: Tensors) -> tuple[Origin, Tensors]:
    classes = len(tensors["classifier.low_classifier.weight"])
    return Origin("lraspp_mobilenet_v3_large", {"num_classes": classes}), tensors


def _arguments(tensors: Tensors) -> dict[str, Any]:
    has_aux = any(key.startswith("aux_classifier.") for key in tensors)
    return {"num_classes": len(tensors["classifier.4.weight"]), "aux_loss": has_aux}


FAMILIES = (
    Family(
        "torchvision.fcn",
        "FCN on a ResNet, torchvision",
        ("backbone.layer4.2.conv3.weight", "classifier.0.weight", "classifier.4.weight"),
        _fcn, dict,
    ),
    Family(
        "torchvision.deeplabv3",
        "DeepLabV3, torchvision",
        ("classifier.0.convs.4.1.weight", "classifier.0.project.0.weight", "classifier.4.weight", "backbone.*"),
        _deeplabv3, dict,
    ),
    Family(
        "torchvision.lraspp",
        "LRASPP on MobileNetV3-Large, torchvision",
        ("classifier.low_classifier.weight", "classifier.scale.1.weight", "backbone.16.0.weight"),
        _lraspp, dict,
    ),
)  # fmt: skip

"""The names and arguments of R's torchvision (mlverse), with a FutureWarning that says what to write instead.

They build Python's networks. Two differ in R: its FCNs have output stride 32 (pass output_stride=32), and its
trained DeepLabV3s leave the auxiliary head out (here it is there; ignore the output "aux").
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any, TypeVar

from pixelwise.models.deeplabv3 import DeepLabV3, deeplabv3_resnet50, deeplabv3_resnet101
from pixelwise.models.fcn_resnet import FCN, fcn_resnet50, fcn_resnet101

M = TypeVar("M", FCN, DeepLabV3)


def model_fcn_resnet50(
    pretrained: bool = False, progress: bool = True, num_classes: int = 21,
    aux_loss: bool | None = None, pretrained_backbone: bool = True, **kwargs: Any,
) -> FCN:  # fmt: skip
    """`fcn_resnet50` by its name in R."""
    return _build(fcn_resnet50, pretrained, progress, num_classes, aux_loss, pretrained_backbone, kwargs)


def model_fcn_resnet101(
    pretrained: bool = False, progress: bool = True, num_classes: int = 21,
    aux_loss: bool | None = None, pretrained_backbone: bool = True, **kwargs: Any,
) -> FCN:  # fmt: skip
    """`fcn_resnet101` by its name in R."""
    return _build(fcn_resnet101, pretrained, progress, num_classes, aux_loss, pretrained_backbone, kwargs)


def model_deeplabv3_resnet50(
    pretrained: bool = False, progress: bool = True, num_classes: int = 21,
    aux_loss: bool | None = None, pretrained_backbone: bool = False, **kwargs: Any,
) -> DeepLabV3:  # fmt: skip
    """`deeplabv3_resnet50` by its name in R."""
    return _build(
        deeplabv3_resnet50, pretrained, progress, num_classes, aux_loss, pretrained_backbone, kwargs
    )


def model_deeplabv3_resnet101(
    pretrained: bool = False, progress: bool = True, num_classes: int = 21,
    aux_loss: bool | None = None, pretrained_backbone: bool = False, **kwargs: Any,
) -> DeepLabV3:  # fmt: skip
    """`deeplabv3_resnet101` by its name in R."""
    return _build(
        deeplabv3_resnet101, pretrained, progress, num_classes, aux_loss, pretrained_backbone, kwargs
    )


def _build(
    builder: Callable[..., M], pretrained: bool, progress: bool, num_classes: int, aux_loss: bool | None,
    pretrained_backbone: bool, more: dict[str, Any],
) -> M:  # fmt: skip
    weights = "DEFAULT" if pretrained else None
    backbone = "IMAGENET1K_V1" if pretrained_backbone and not pretrained else None
    name = builder.__name__
    warnings.warn(
        f"model_{name} is the name in R; write pixelwise.models.{name}(weights={weights!r}, "
        f"num_classes={num_classes}, aux_loss={aux_loss}, weights_backbone={backbone!r})",
        FutureWarning,
        stacklevel=3,
    )
    return builder(
        weights=weights,
        progress=progress,
        num_classes=num_classes,
        aux_loss=aux_loss,
        weights_backbone=backbone,
        **more,
    )

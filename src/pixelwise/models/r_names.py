"""The names and arguments of R's torchvision (mlverse), with a FutureWarning that says what to write instead.

They build Python's networks. Some differ in R: its FCNs have output stride 32 (pass output_stride=32), its
trained DeepLabV3s leave the auxiliary head out (here it is there; ignore the output "aux"), and its ConvNeXts leave
out the norms of the stages' outputs (pass output_norms=False). Of the ConvNeXts nothing is fetched, so their `progress`
is taken, as in R, and without effect.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any, TypeVar

from pixelwise.errors import InputError
from pixelwise.models.deeplabv3 import DeepLabV3, deeplabv3_resnet50, deeplabv3_resnet101
from pixelwise.models.fcn_convnext import (
    FCNConvNeXt,
    fcn_convnext_base,
    fcn_convnext_small,
    fcn_convnext_tiny,
)
from pixelwise.models.fcn_resnet import FCN, fcn_resnet50, fcn_resnet101
from pixelwise.models.upernet import (
    UPerNet,
    upernet_convnext_base,
    upernet_convnext_small,
    upernet_convnext_tiny,
)

M = TypeVar("M", FCN, DeepLabV3)
C = TypeVar("C", FCNConvNeXt, UPerNet)


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


def model_convnext_tiny_fcn(
    num_classes: int = 21, pretrained: bool = False, progress: bool = True, **kwargs: Any
) -> FCNConvNeXt:
    """`fcn_convnext_tiny` by its name in R."""
    return _convnext(fcn_convnext_tiny, num_classes, pretrained, kwargs)


def model_convnext_tiny_upernet(
    num_classes: int = 21, pretrained: bool = False, progress: bool = True, **kwargs: Any
) -> UPerNet:
    """`upernet_convnext_tiny` by its name in R."""
    return _convnext(upernet_convnext_tiny, num_classes, pretrained, kwargs)


def model_convnext_small_fcn(
    num_classes: int = 21, pretrained: bool = False, progress: bool = True, **kwargs: Any
) -> FCNConvNeXt:
    """`fcn_convnext_small` by its name in R."""
    return _convnext(fcn_convnext_small, num_classes, pretrained, kwargs)


def model_convnext_small_upernet(
    num_classes: int = 21, pretrained: bool = False, progress: bool = True, **kwargs: Any
) -> UPerNet:
    """`upernet_convnext_small` by its name in R."""
    return _convnext(upernet_convnext_small, num_classes, pretrained, kwargs)


def model_convnext_base_fcn(
    num_classes: int = 21, pretrained: bool = False, progress: bool = True, **kwargs: Any
) -> FCNConvNeXt:
    """`fcn_convnext_base` by its name in R."""
    return _convnext(fcn_convnext_base, num_classes, pretrained, kwargs)


def model_convnext_base_upernet(
    num_classes: int = 21, pretrained: bool = False, progress: bool = True, **kwargs: Any
) -> UPerNet:
    """`upernet_convnext_base` by its name in R."""
    return _convnext(upernet_convnext_base, num_classes, pretrained, kwargs)


def _convnext(builder: Callable[..., C], num_classes: int, pretrained: bool, more: dict[str, Any]) -> C:
    name = builder.__name__
    if pretrained:
        raise InputError(
            f"the weights of R's {name} cannot be fetched here; get the file and pass it: "
            f"pixelwise.models.{name}(num_classes={num_classes}, weights=PATH)"
        )
    warnings.warn(
        f"that is the name in R; write pixelwise.models.{name}(num_classes={num_classes})",
        FutureWarning,
        stacklevel=3,
    )
    return builder(num_classes=num_classes, **more)


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

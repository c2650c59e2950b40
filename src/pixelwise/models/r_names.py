"""The names and arguments of R's torchvision (mlverse), with a FutureWarning that says what to write instead.

They build Python's networks. Some differ in R: its FCNs have output stride 32 (pass output_stride=32), its
trained DeepLabV3s leave the auxiliary head out (here it is there; ignore the output "aux"), and its ConvNeXts leave
out the norms of the stages' outputs (pass output_norms=False). Of the ConvNeXts nothing is fetched, so their `progress`
is taken, as in R, and without effect.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable
from typing import Any, cast

from torch import Tensor, nn

from pixelwise.errors import InputError
from pixelwise.labels import VOC
from pixelwise.models.building import named
from pixelwise.models.fcn_convnext import (
    FCNConvNeXt,
    fcn_convnext_base,
    fcn_convnext_small,
    fcn_convnext_tiny,
)
from pixelwise.models.segmentation.deeplabv3 import DeepLabV3, deeplabv3_resnet50, deeplabv3_resnet101
from pixelwise.models.segmentation.fcn import FCN, fcn_resnet50, fcn_resnet101
from pixelwise.models.upernet import (
    UPerNet,
    upernet_convnext_base,
    upernet_convnext_small,
    upernet_convnext_tiny,
)

BUILDERS: dict[str, Callable[..., nn.Module]] = {
    build.__name__: build
    for build in (
        fcn_resnet50, fcn_resnet101, deeplabv3_resnet50, deeplabv3_resnet101,
        fcn_convnext_tiny, fcn_convnext_small, fcn_convnext_base,
        upernet_convnext_tiny, upernet_convnext_small, upernet_convnext_base,
    )
}  # fmt: skip
"""Ours, by name."""


R_SPELLING = {"diningtable": "dining table", "pottedplant": "potted plant", "tvmonitor": "tv/monitor"}
"""Pascal VOC's classes that R writes otherwise."""


def pascal_voc_classes(class_id: int | Iterable[int] | Tensor | None = None) -> Any:
    """The names of Pascal VOC's classes, in R's spelling.

    class_id: the ids whose names are wanted, one or several, as a label map has them here: from 0, the background, to
    20, where R counts from 1 to 21. One id gives a str, several give a list, None gives all 21.
    Raises InputError for an id outside of that range.
    """
    warnings.warn(
        "pascal_voc_classes is a name from R, where ids begin at 1; here the background is 0, as in the label maps of "
        "these networks; write pixelwise.labels.VOC.names, or weights.meta['categories']",
        FutureWarning,
        stacklevel=2,
    )
    names = [R_SPELLING.get(name, name) for name in VOC.names]
    if class_id is None:
        return names
    ids = class_id.tolist() if isinstance(class_id, Tensor) else class_id
    wanted = [int(one) for one in (ids if isinstance(ids, Iterable) else [ids])]
    for one in wanted:
        if not 0 <= one < len(names):
            raise InputError(
                f"class_id must be from 0 (background) to {len(names) - 1} ({names[-1]}), got {one}; R counts from 1"
            )
    return [names[one] for one in wanted] if isinstance(ids, Iterable) else names[wanted[0]]


def _fcn(
    name: str, /, pretrained: bool = False, progress: bool = True, num_classes: int = 21,
    aux_loss: bool | None = None, pretrained_backbone: bool = True, **kwargs: Any,
) -> FCN:  # fmt: skip
    """The arguments are R's; those that R does not have are handed on."""
    return cast(FCN, _resnet(name, pretrained, progress, num_classes, aux_loss, pretrained_backbone, kwargs))


def _deeplabv3(
    name: str, /, pretrained: bool = False, progress: bool = True, num_classes: int = 21,
    aux_loss: bool | None = None, pretrained_backbone: bool = False, **kwargs: Any,
) -> DeepLabV3:  # fmt: skip
    """The arguments are R's; those that R does not have are handed on."""
    network = _resnet(name, pretrained, progress, num_classes, aux_loss, pretrained_backbone, kwargs)
    return cast(DeepLabV3, network)


def _fcn_convnext(
    name: str, /, num_classes: int = 21, pretrained: bool = False, progress: bool = True, **kwargs: Any
) -> FCNConvNeXt:
    """The arguments are R's; those that R does not have are handed on."""
    return cast(FCNConvNeXt, _convnext(name, num_classes, pretrained, kwargs))


def _upernet(
    name: str, /, num_classes: int = 21, pretrained: bool = False, progress: bool = True, **kwargs: Any
) -> UPerNet:
    """The arguments are R's; those that R does not have are handed on."""
    return cast(UPerNet, _convnext(name, num_classes, pretrained, kwargs))


def _resnet(
    r_name: str, pretrained: bool, progress: bool, num_classes: int, aux_loss: bool | None,
    pretrained_backbone: bool, more: dict[str, Any],
) -> nn.Module:  # fmt: skip
    name = r_name.removeprefix("model_")
    weights = "DEFAULT" if pretrained else None
    backbone = "IMAGENET1K_V1" if pretrained_backbone and not pretrained else None
    warnings.warn(
        f"{r_name} is the name in R; write pixelwise.models.{name}(weights={weights!r}, "
        f"num_classes={num_classes}, aux_loss={aux_loss}, weights_backbone={backbone!r})",
        FutureWarning,
        stacklevel=4,
    )
    return BUILDERS[name](
        weights=weights, progress=progress, num_classes=num_classes, aux_loss=aux_loss, weights_backbone=backbone,
        **more,
    )  # fmt: skip


def _convnext(r_name: str, num_classes: int, pretrained: bool, more: dict[str, Any]) -> nn.Module:
    _, encoder, size, head = r_name.split("_")
    name = f"{head}_{encoder}_{size}"
    if pretrained:
        raise InputError(
            f"the weights of R's {name} cannot be fetched here; get the file and pass it: "
            f"pixelwise.models.{name}(num_classes={num_classes}, weights=PATH)"
        )
    warnings.warn(
        f"that is the name in R; write pixelwise.models.{name}(num_classes={num_classes})",
        FutureWarning,
        stacklevel=4,
    )
    return BUILDERS[name](num_classes=num_classes, **more)


model_fcn_resnet50 = named(_fcn, "model_fcn_resnet50", "`fcn_resnet50` by its name in R.")
model_fcn_resnet101 = named(_fcn, "model_fcn_resnet101", "`fcn_resnet101` by its name in R.")
model_deeplabv3_resnet50 = named(
    _deeplabv3, "model_deeplabv3_resnet50", "`deeplabv3_resnet50` by its name in R."
)
model_deeplabv3_resnet101 = named(
    _deeplabv3, "model_deeplabv3_resnet101", "`deeplabv3_resnet101` by its name in R."
)
model_convnext_tiny_fcn = named(
    _fcn_convnext, "model_convnext_tiny_fcn", "`fcn_convnext_tiny` by its name in R."
)
model_convnext_small_fcn = named(
    _fcn_convnext, "model_convnext_small_fcn", "`fcn_convnext_small` by its name in R."
)
model_convnext_base_fcn = named(
    _fcn_convnext, "model_convnext_base_fcn", "`fcn_convnext_base` by its name in R."
)
model_convnext_tiny_upernet = named(
    _upernet, "model_convnext_tiny_upernet", "`upernet_convnext_tiny` by its name in R."
)
model_convnext_small_upernet = named(
    _upernet, "model_convnext_small_upernet", "`upernet_convnext_small` by its name in R."
)
model_convnext_base_upernet = named(
    _upernet, "model_convnext_base_upernet", "`upernet_convnext_base` by its name in R."
)

"""What torchvision's networks have in common: a backbone whose features have names, and heads that ask for them.

Letters: n batch, k classes, c channels, h w pixels, s stride.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.models._utils import IntermediateLayerGetter

from pixelwise.encoders.mobilenet_v3 import mobilenet_v3_large
from pixelwise.encoders.resnet import resnet
from pixelwise.errors import InputError, first_line
from pixelwise.layers import classes_of, enlarge_like, evaluating


class OnNamedFeatures(nn.Module):
    """image (n, 3, h, w), float -> {"out": logits (n, k, h, w)} and, with `aux_classifier`, {"aux": likewise}.

    backbone: any module that makes a dictionary of an image: "out", (n, c, ~h/s, ~w/s), which `classifier` turns into
    logits of the same size, and "aux" for `aux_classifier`. Each may be replaced at any time by another module, the
    last one by None. Any height and width that the backbone takes; those of the builders here take any from 1 up.

    Raises TypeError for a part that is no module; InputError where the features that `backbone` gives have no names.
    """

    align_corners = False
    __jit_unused_properties__ = ("num_classes", "stride")

    def __init__(
        self, backbone: nn.Module, classifier: nn.Module, aux_classifier: nn.Module | None = None
    ) -> None:
        super().__init__()
        for name, part in {"backbone": backbone, "classifier": classifier}.items():
            if not isinstance(part, nn.Module):
                raise TypeError(
                    f"{type(self).__name__} takes modules, (backbone, classifier, aux_classifier), got "
                    f"{name}={part!r}; the functions that build whole networks take numbers of classes"
                )
        self.backbone = backbone
        self.classifier = classifier
        self.aux_classifier = aux_classifier

    @property
    def num_classes(self) -> int:
        return classes_of(self.classifier)

    @property
    def stride(self) -> int:
        return stride_of(self, "out")

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        """image (n, 3, h, w) -> logits (n, k, h, w) under "out" and, if there is an auxiliary head, "aux"."""
        features = self.backbone(image)
        if not torch.jit.is_scripting():  # type: ignore[attr-defined]
            refuse_unnamed(features, self.backbone)
        logits = OrderedDict()
        logits["out"] = enlarge_like(self.classifier(features["out"]), image, align_corners=False)
        if self.aux_classifier is not None:
            logits["aux"] = enlarge_like(self.aux_classifier(features["aux"]), image, align_corners=False)
        return logits

    def coarse(self, image: Tensor) -> Tensor:
        """image (n, 3, h, w) -> logits (n, k, ~h/s, ~w/s): "out" before it is enlarged."""
        features = self.backbone(image)
        refuse_unnamed(features, self.backbone)
        logits: Tensor = self.classifier(features["out"])
        return logits


def refuse_unnamed(features: Any, backbone: nn.Module) -> None:
    """InputError for what a backbone gives in place of a dictionary."""
    if isinstance(features, (Tensor, list, tuple)):
        raise InputError(
            f"the backbone {type(backbone).__name__} must give its features by name, in a dictionary, but gave a "
            f"{type(features).__name__}; choose and name some with torchvision's IntermediateLayerGetter, or join "
            "encoders that give lists by pixelwise.create_model"
        )


def stride_of(network: Any, feature: str) -> int:
    """Pixels of the image along one step of that feature of `network.backbone`.

    As the backbone says (`strides`, by name), else measured: an image of 128 x 128 zeros is passed through it, once.
    Raises InputError where it does not take that.
    """
    backbone = network.backbone
    strides = getattr(backbone, "strides", None)
    if isinstance(strides, Mapping) and feature in strides:
        return int(strides[feature])
    known = network.__dict__.get("_measured")
    if known is None or known[0] is not backbone:
        known = network.__dict__["_measured"] = (backbone, _measured(backbone, feature))
    return int(known[1])


def _measured(backbone: nn.Module, feature: str) -> int:
    channels = next((m.in_channels for m in backbone.modules() if isinstance(m, nn.Conv2d)), 3)
    parameter = next(backbone.parameters(), torch.zeros(()))
    try:
        with torch.no_grad(), evaluating(backbone):
            side = backbone(parameter.new_zeros(1, channels, 128, 128))[feature].shape[-1]
    except Exception as error:  # whatever a module of anyone's may raise
        raise InputError(
            f"the stride of the backbone {type(backbone).__name__} could not be measured with an image of 128 pixels "
            f'({first_line(error)}); say it: network.backbone.strides = {{"{feature}": 16}}, or what it is'
        ) from error
    return max(1, round(128 / int(side)))


def resnet_features(
    name: str, *, aux: bool, weights: Any, progress: bool, output_stride: int, in_channels: int
) -> nn.Module:
    """A ResNet that names what its last stage gives "out", and with `aux` the one before "aux".

    The other arguments are those of `encoders.resnet.resnet`.
    """
    layers = {3: "aux", 4: "out"} if aux else {4: "out"}
    encoder = resnet(
        name, weights=weights, progress=progress, output_stride=output_stride, levels=tuple(layers),
        in_channels=in_channels,
    )  # fmt: skip
    return _named(encoder, {f"layer{level}": feature for level, feature in layers.items()})


def mobilenet_features(
    layers: Mapping[int, str], *, weights: Any, progress: bool, in_channels: int
) -> nn.Module:
    """MobileNetV3-Large of output stride 16, with names for some layers, ascending; 4 is the first of stride 8, as in
    torchvision. The other arguments are those of `encoders.mobilenet_v3.mobilenet_v3_large`.
    """
    encoder = mobilenet_v3_large(
        weights=weights, progress=progress, output_stride=16, levels=tuple(layers), in_channels=in_channels
    )
    return _named(encoder, {str(level): feature for level, feature in layers.items()})


def _named(encoder: Any, layers: dict[str, str]) -> nn.Module:
    """The encoder, layer after layer, with torchvision's way to name some; `strides` tells theirs."""
    backbone: nn.Module = IntermediateLayerGetter(encoder, layers)
    backbone.strides = dict(zip(layers.values(), encoder.strides, strict=True))  # type: ignore[assignment]
    return backbone

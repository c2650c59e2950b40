"""Networks by name, their builders and classes. Everything is loaded on first use: importing this brings no torch.

>>> from pixelwise import models                                                  # doctest: +SKIP
>>> models.deeplabv3_resnet50(weights="DEFAULT")                                  # doctest: +SKIP
>>> models.get_model("lraspp_mobilenet_v3_large", num_classes=3)                  # doctest: +SKIP
>>> models.get_weight("FCN_ResNet50_Weights.DEFAULT").transforms()                # doctest: +SKIP

The functions on models and weights behave as torchvision's of the same name; errors name the nearest match.
"""

from __future__ import annotations

import functools
import importlib
import sys
from collections.abc import Callable, Iterable
from fnmatch import filter as matching
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from pixelwise.catalog import CATALOG, entry
from pixelwise.errors import UnknownNameError

if TYPE_CHECKING:
    from torch import nn

    from pixelwise.models import segmentation as segmentation
    from pixelwise.models.deeplabv1 import DeepLabV1 as DeepLabV1
    from pixelwise.models.deeplabv2 import DeepLabV2 as DeepLabV2
    from pixelwise.models.deeplabv3_mobilenet_v2 import DeepLabV3MobileNetV2 as DeepLabV3MobileNetV2
    from pixelwise.models.deeplabv3_paper import DeepLabV3Paper as DeepLabV3Paper
    from pixelwise.models.deeplabv3plus import DeepLabV3Plus as DeepLabV3Plus
    from pixelwise.models.fcn import FCN8s as FCN8s
    from pixelwise.models.fcn import FCN16s as FCN16s
    from pixelwise.models.fcn import FCN32s as FCN32s
    from pixelwise.models.fcn_convnext import FCNConvNeXt as FCNConvNeXt
    from pixelwise.models.nnunet import NnUNet as NnUNet
    from pixelwise.models.nnunet import NnUNetMean as NnUNetMean
    from pixelwise.models.nnunet import NnUNetSlicewise as NnUNetSlicewise
    from pixelwise.models.nonewnet import NoNewNet as NoNewNet
    from pixelwise.models.r_names import model_convnext_base_fcn as model_convnext_base_fcn
    from pixelwise.models.r_names import model_convnext_base_upernet as model_convnext_base_upernet
    from pixelwise.models.r_names import model_convnext_small_fcn as model_convnext_small_fcn
    from pixelwise.models.r_names import model_convnext_small_upernet as model_convnext_small_upernet
    from pixelwise.models.r_names import model_convnext_tiny_fcn as model_convnext_tiny_fcn
    from pixelwise.models.r_names import model_convnext_tiny_upernet as model_convnext_tiny_upernet
    from pixelwise.models.r_names import model_deeplabv3_resnet50 as model_deeplabv3_resnet50
    from pixelwise.models.r_names import model_deeplabv3_resnet101 as model_deeplabv3_resnet101
    from pixelwise.models.r_names import model_fcn_resnet50 as model_fcn_resnet50
    from pixelwise.models.r_names import model_fcn_resnet101 as model_fcn_resnet101
    from pixelwise.models.r_names import pascal_voc_classes as pascal_voc_classes
    from pixelwise.models.segformer import SegFormer as SegFormer
    from pixelwise.models.segmentation.deeplabv3 import DeepLabHead as DeepLabHead
    from pixelwise.models.segmentation.deeplabv3 import DeepLabV3 as DeepLabV3
    from pixelwise.models.segmentation.deeplabv3 import (
        DeepLabV3_MobileNet_V3_Large_Weights as DeepLabV3_MobileNet_V3_Large_Weights,
    )
    from pixelwise.models.segmentation.deeplabv3 import (
        DeepLabV3_ResNet50_Weights as DeepLabV3_ResNet50_Weights,
    )
    from pixelwise.models.segmentation.deeplabv3 import (
        DeepLabV3_ResNet101_Weights as DeepLabV3_ResNet101_Weights,
    )
    from pixelwise.models.segmentation.deeplabv3 import (
        deeplabv3_mobilenet_v3_large as deeplabv3_mobilenet_v3_large,
    )
    from pixelwise.models.segmentation.deeplabv3 import deeplabv3_resnet50 as deeplabv3_resnet50
    from pixelwise.models.segmentation.deeplabv3 import deeplabv3_resnet101 as deeplabv3_resnet101
    from pixelwise.models.segmentation.fcn import FCN as FCN
    from pixelwise.models.segmentation.fcn import FCN_ResNet50_Weights as FCN_ResNet50_Weights
    from pixelwise.models.segmentation.fcn import FCN_ResNet101_Weights as FCN_ResNet101_Weights
    from pixelwise.models.segmentation.fcn import FCNHead as FCNHead
    from pixelwise.models.segmentation.fcn import fcn_resnet50 as fcn_resnet50
    from pixelwise.models.segmentation.fcn import fcn_resnet101 as fcn_resnet101
    from pixelwise.models.segmentation.lraspp import LRASPP as LRASPP
    from pixelwise.models.segmentation.lraspp import (
        LRASPP_MobileNet_V3_Large_Weights as LRASPP_MobileNet_V3_Large_Weights,
    )
    from pixelwise.models.segmentation.lraspp import lraspp_mobilenet_v3_large as lraspp_mobilenet_v3_large
    from pixelwise.models.segnet import SegNet as SegNet
    from pixelwise.models.unet import UNet as UNet
    from pixelwise.models.unet_valid import UNetValid as UNetValid
    from pixelwise.models.unetplusplus import UNetPlusPlus as UNetPlusPlus
    from pixelwise.models.upernet import UPerNet as UPerNet
    from pixelwise.weights.enums import WeightsEnum as WeightsEnum

_PUBLIC = {
    name: module
    for module, names in {
        "pixelwise.models.segmentation.deeplabv3": "DeepLabHead DeepLabV3 DeepLabV3_MobileNet_V3_Large_Weights "
        "DeepLabV3_ResNet50_Weights DeepLabV3_ResNet101_Weights deeplabv3_mobilenet_v3_large "
        "deeplabv3_resnet50 deeplabv3_resnet101",
        "pixelwise.models.segmentation.fcn": "FCN FCNHead FCN_ResNet50_Weights FCN_ResNet101_Weights fcn_resnet50 "
        "fcn_resnet101",
        "pixelwise.models.segmentation.lraspp": "LRASPP LRASPP_MobileNet_V3_Large_Weights lraspp_mobilenet_v3_large",
        "pixelwise.models.r_names": "model_deeplabv3_resnet50 model_deeplabv3_resnet101 model_fcn_resnet50 "
        "model_fcn_resnet101 model_convnext_tiny_fcn model_convnext_small_fcn model_convnext_base_fcn "
        "model_convnext_tiny_upernet model_convnext_small_upernet model_convnext_base_upernet "
        "pascal_voc_classes",
        "pixelwise.weights.enums": "WeightsEnum",
        # The backbones' weights, for weights_backbone=
        "torchvision.models": "MobileNet_V3_Large_Weights ResNet50_Weights ResNet101_Weights",
    }.items()
    for name in names.split()
}

UNLISTED = {name: f"upernet:{name}" for name in ("upernet_convnextv2", "upernet_resnet", "upernet_swin")}
"""Builders without a row, as no weights are published for them under one name; files of others ask for them."""

__all__ = [*_PUBLIC, "get_model", "get_model_builder", "get_model_weights", "get_weight", "list_models"]


def list_models(
    module: ModuleType | str | None = None,
    include: Iterable[str] | str | None = None,
    exclude: Iterable[str] | str | None = None,
) -> list[str]:
    """The names that `get_model` knows, sorted.

    module: only those made in it, or in a module inside it; or a shell pattern ("*deeplab*"), as in
    `pixelwise.list_models`, which also has the names of weights, such as "everyday". include, exclude: patterns, one or
    several; a name stays that matches any of `include` and none of `exclude`.
    """
    if isinstance(module, str):
        return sorted(set(matching(list_models(None, include, exclude), module)))
    names = [
        name
        for name, builder in _builders().items()
        if module is None or f"{__name__}.{builder.partition(':')[0]}.".startswith(f"{module.__name__}.")
    ]
    if include:
        names = [name for pattern in _patterns(include) for name in matching(names, pattern)]
    dropped = {name for pattern in _patterns(exclude or ()) for name in matching(names, pattern)}
    return sorted(set(names) - dropped)


def get_model_builder(name: str) -> Callable[..., nn.Module]:
    """The function that builds the network `name`, in upper or lower case; UnknownNameError (a ValueError) if
    none.
    """
    if (found := name.lower()) not in _builders():
        raise UnknownNameError("model", name, _builders())
    return builder_of(found)


def builder_of(name: str) -> Callable[..., nn.Module]:
    """What makes the network of a row of the catalog (this imports torch). The row "everyday" has a builder of another
    name, which its networks note as their origin; so builders that no row is named after are known too, and those of
    `UNLISTED`."""
    behind = next(
        (row.builder for row in CATALOG.values() if row.builder.endswith(f":{name}")), UNLISTED.get(name)
    )
    file, function = (behind or entry(name).builder).split(":")
    builder: Callable[..., nn.Module] = getattr(importlib.import_module(f"pixelwise.models.{file}"), function)
    return builder


def get_model(name: str, **config: Any) -> nn.Module:
    """The network `name`, built with the arguments `config`."""
    return get_model_builder(name)(**config)


def get_model_weights(name: str | Callable[..., nn.Module]) -> type[WeightsEnum]:
    """The weights enum of a network, given by name or by its builder; ValueError when it takes none."""
    import typing

    builder = get_model_builder(name) if isinstance(name, str) else name
    for kind in typing.get_args(typing.get_type_hints(builder).get("weights")):
        if isinstance(kind, type) and issubclass(kind, _weights_enum()):
            return kind
    raise ValueError(f"{getattr(builder, '__name__', builder)} takes no weights of pixelwise's enums")


def get_weight(name: str) -> WeightsEnum:
    """The member of a weights enum by its whole name, "FCN_ResNet50_Weights.COCO_WITH_VOC_LABELS_V1".

    Raises ValueError for a name without a dot or of no enum, KeyError for one that the enum does not have.
    """
    enum_name, dot, _ = name.partition(".")
    known = [
        public
        for public, home in _PUBLIC.items()
        if public.endswith("_Weights") and home.startswith("pixelwise.")
    ]
    if not dot or name.count(".") > 1:
        raise ValueError(
            f"a weight's name is its enum's and its own, such as {known[0]}.DEFAULT, got {name!r}"
        )
    if enum_name not in known:
        raise UnknownNameError("weights enum", enum_name, known)
    member: WeightsEnum = __getattr__(enum_name).verify(name)
    return member


def _builders() -> dict[str, str]:
    """The catalog's rows that are named after their builder, with its file; the others are weights."""
    return {name: entry.builder for name, entry in CATALOG.items() if entry.builder.endswith(f":{name}")}


@functools.cache
def _networks() -> dict[str, str]:
    """The classes of networks, which are those with a `coarse`, and their modules: read off the files, not run."""
    import ast

    return {
        node.name: f"{__name__}.{path.stem}"
        for path in sorted(Path(__file__).parent.glob("[!_]*.py"))
        for node in ast.parse(path.read_text(encoding="utf-8")).body
        if isinstance(node, ast.ClassDef)
        and any(isinstance(part, ast.FunctionDef) and part.name == "coarse" for part in node.body)
    }


def _patterns(patterns: Iterable[str] | str) -> Iterable[str]:
    return [patterns] if isinstance(patterns, str) else patterns


def _weights_enum() -> type[WeightsEnum]:
    from pixelwise.weights.enums import WeightsEnum

    return WeightsEnum


def __getattr__(name: str) -> Any:
    if name in _PUBLIC:
        value = getattr(importlib.import_module(_PUBLIC[name]), name)
        globals()[name] = value
        return value
    if name in _builders():
        return builder_of(name)
    if name == "segmentation":  # torchvision's namespace
        return importlib.import_module("pixelwise.models.segmentation")
    if name[:1].isupper() and name in _networks():
        value = getattr(importlib.import_module(_networks()[name]), name)
        globals()[name] = value
        return value
    raise AttributeError(f"module 'pixelwise.models' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, *_builders(), *_networks(), "segmentation"})


class _Models(ModuleType):
    """This module. Six files have the name of the builder inside, and Python would put a file that somebody imports
    here in the builder's place."""

    def __setattr__(self, name: str, value: Any) -> None:
        if not (isinstance(value, ModuleType) and name in _builders()):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Models

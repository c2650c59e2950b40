"""DeepLab v1 and v2 by the names of their Caffe release.

In Caffe a layer's tensors have no names but numbers: "conv1_1.0" is the weight, "conv1_1.1" the bias. Batch norm is two
layers: BatchNorm holds mean and variance, both times a factor that is its third tensor, and Scale holds weight and
bias; here they become one. Caffe's files want pictures as B, G, R and our networks take R, G, B, so the first
convolution's input channels are turned round. Values stay 0 to 255 less the mean.

The last layers are called after the experiment ("fc8_voc12", "fc1_voc12_c0"); any name there is read, and these two
are written.
"""

from __future__ import annotations

import re
from typing import Any

import torch

from pixelwise.checkpoints.family import Family
from pixelwise.weights.origin import Origin
from pixelwise.weights.renames import Tensors

# VGG-16 -------------------------------------------------------------------------------------------------------


def _v1(tensors: Tensors) -> tuple[Origin, Tensors]:
    side = tensors["fc6.0"].shape[-1]
    model = {3: "deeplabv1_vgg16_largefov", 7: "deeplabv1_vgg16_7x7"}.get(side, "deeplabv1_vgg16_4x4")
    return Origin(model, _vgg_arguments(tensors)), _v1_to_ours(tensors)


def _v2(tensors: Tensors) -> tuple[Origin, Tensors]:
    return Origin("deeplabv2_vgg16_aspp_l", _vgg_arguments(tensors)), _v2_to_ours(tensors)


def _vgg_arguments(tensors: Tensors) -> dict[str, Any]:
    classes = next(t for key, t in tensors.items() if re.fullmatch(r"fc8_.*\.0", key))
    width, in_channels = tensors["conv1_1.0"].shape[:2]
    arguments = {"num_classes": classes.shape[0], "in_channels": in_channels}
    return arguments if width == 64 else {**arguments, "width_mult": width / 64}


def _v1_to_ours(tensors: Tensors) -> Tensors:
    ours = {}
    for key, tensor in tensors.items():
        layer, kind = _layer(key)
        if layer.startswith("conv"):
            name = f"backbone.{layer}"
        elif layer in ("fc6", "fc7"):
            name = f"classifier.{layer}"
        elif layer.startswith("fc8_"):
            name = "classifier.fc8"
        else:
            raise KeyError(key)
        ours[f"{name}.{kind}"] = _shaped(name, kind, tensor)
    return ours


def _v2_to_ours(tensors: Tensors) -> Tensors:
    ours = {}
    for key, tensor in tensors.items():
        layer, kind = _layer(key)
        if layer.startswith("conv"):
            name = f"backbone.{layer}"
        elif found := re.fullmatch(r"fc(6|7|8)(?:_.*)?_([1-9])", layer):
            name = f"classifier.{int(found[2]) - 1}.fc{found[1]}"
        else:
            raise KeyError(key)
        ours[f"{name}.{kind}"] = _shaped(name, kind, tensor)
    return ours


def _vgg_to_theirs(tensors: Tensors) -> Tensors:
    theirs = {}
    for key, tensor in tensors.items():
        name, _, kind = key.rpartition(".")
        *_, layer = name.split(".")
        branch = re.match(r"classifier\.(\d+)\.", name)
        if layer == "fc8":
            layer = "fc8_voc12"
        if branch:
            layer = f"{layer}_{int(branch[1]) + 1}"
        theirs[f"{layer}.{('weight', 'bias').index(kind)}"] = _shaped(name, kind, tensor)
    return theirs


def _layer(key: str) -> tuple[str, str]:
    layer, _, number = key.rpartition(".")
    if number not in ("0", "1"):
        raise KeyError(key)
    return layer, "bias" if number == "1" else "weight"


def _shaped(name: str, kind: str, tensor: torch.Tensor) -> torch.Tensor:
    """Biases, which old files store as (1, 1, 1, c), as (c,); the first layer for R, G, B or back."""
    return tensor.flatten() if kind == "bias" else rgb(f"{name}.{kind}", tensor)


def rgb(key: str, tensor: torch.Tensor) -> torch.Tensor:
    """The first convolution's weight with its three input channels turned round; other tensors as they are."""
    first = key in ("backbone.conv1_1.weight", "backbone.conv1.weight")
    return tensor.flip(1) if first and tensor.shape[1] == 3 else tensor


# ResNet-101 ---------------------------------------------------------------------------------------------------

SHARED = ("*_res05.*", "*_res075.*")
"""The layers of the smaller scales: the same tensors under another name."""

BRANCHES = {
    "1": ("downsample.0", "downsample.1"),
    "2a": ("conv1", "bn1"),
    "2b": ("conv2", "bn2"),
    "2c": ("conv3", "bn3"),
}
"""Their branch: our convolution and norm."""


def _resnet(tensors: Tensors) -> tuple[Origin, Tensors]:
    ours = _resnet_to_ours(tensors)
    return Origin("deeplabv2_resnet101", resnet_arguments(ours)), ours


def resnet_arguments(ours: Tensors) -> dict[str, Any]:
    """Classes, input channels and, if they are not ResNet-101's, stages of a DeepLab v2 under our names."""
    from pixelwise.models.deeplabv2 import RESNET101

    stages = []
    for number, row in enumerate(RESNET101, start=1):
        found = [re.match(rf"backbone\.layer{number}\.(\d+)\.", key) for key in ours]
        blocks = 1 + max((int(match[1]) for match in found if match), default=0)
        channels = ours[f"backbone.layer{number}.0.conv1.weight"].shape[0]
        stages.append(row._replace(blocks=blocks, channels=channels))
    arguments: dict[str, Any] = {
        "num_classes": ours["classifier.0.weight"].shape[0],
        "in_channels": ours["backbone.conv1.weight"].shape[1],
    }
    return arguments if tuple(stages) == RESNET101 else {**arguments, "stages": tuple(stages)}


def _resnet_to_ours(tensors: Tensors) -> Tensors:
    ours: Tensors = {}
    for key, tensor in tensors.items():
        layer, _, number = key.rpartition(".")
        if found := re.fullmatch(r"fc1_.*_c(\d)", layer):
            ours[f"classifier.{found[1]}.{_layer(key)[1]}"] = tensor if number == "0" else tensor.flatten()
            continue
        convolution, norm = _places(key, layer)
        if layer.startswith(("conv", "res")) and number == "0":
            name = f"backbone.{convolution}.weight"
            ours[name] = rgb(name, tensor)
        elif layer.startswith("bn") and number in ("0", "1"):
            factor = tensors[f"{layer}.2"].flatten()[0]
            value = tensor.flatten() / factor if factor != 0 else torch.zeros_like(tensor).flatten()
            ours[f"backbone.{norm}.{('running_mean', 'running_var')[int(number)]}"] = value
        elif layer.startswith("scale") and number in ("0", "1"):
            ours[f"backbone.{norm}.{('weight', 'bias')[int(number)]}"] = tensor.flatten()
        elif not (layer.startswith("bn") and number == "2"):
            raise KeyError(key)
    return ours


def _places(key: str, layer: str) -> tuple[str, str]:
    """Where the layer is in our backbone: the convolution it is or follows, and that one's norm."""
    if layer in ("conv1", "bn_conv1", "scale_conv1"):
        return "conv1", "bn1"
    found = re.fullmatch(r"(?:res|bn|scale)([2-5])(?:([a-z])|b(\d+))_branch(1|2a|2b|2c)", layer)
    if found is None:
        raise KeyError(key)
    stage, letter, number, branch = found.groups()
    block = int(number) if number else ord(letter) - ord("a")
    convolution, norm = BRANCHES[branch]
    return f"layer{int(stage) - 1}.{block}.{convolution}", f"layer{int(stage) - 1}.{block}.{norm}"


def _resnet_to_theirs(tensors: Tensors) -> Tensors:
    theirs: Tensors = {}
    layers = {"conv1": ("conv1", "bn_conv1", "scale_conv1"), "bn1": ("conv1", "bn_conv1", "scale_conv1")}
    numbers = {
        "weight": ("scale", 0), "bias": ("scale", 1), "running_mean": ("bn", 0), "running_var": ("bn", 1)
    }  # fmt: skip
    for key, tensor in tensors.items():
        name, _, kind = key.removeprefix("backbone.").rpartition(".")
        if key.startswith("classifier."):
            branch = name.removeprefix("classifier.")
            theirs[f"fc1_voc12_c{branch}.{('weight', 'bias').index(kind)}"] = tensor
            continue
        if found := re.fullmatch(r"layer(\d)\.(\d+)\.(.*)", name):
            stage, block, part = int(found[1]) + 1, int(found[2]), found[3]
            branch = next(branch for branch, ours in BRANCHES.items() if part in ours)
            numbered = stage in (3, 4) and block > 0  # 3a, 3b1, 3b2, ... but 2a, 2b, 2c
            place = f"b{block}" if numbered else "abcdefghijklmnopqrstuvwxyz"[block]
            convolution, norm, scale = (f"{w}{stage}{place}_branch{branch}" for w in ("res", "bn", "scale"))
            is_norm = part == BRANCHES[branch][1]
        else:
            convolution, norm, scale = layers[name]
            is_norm = name == "bn1"
        if not is_norm:
            theirs[f"{convolution}.0"] = rgb(key, tensor)
        elif kind in numbers:
            layer, number = numbers[kind]
            theirs[f"{scale if layer == 'scale' else norm}.{number}"] = tensor
            theirs[f"{norm}.2"] = torch.ones(1, dtype=tensor.dtype)
    return theirs


CAFFE_V1 = Family(
    "caffe.deeplabv1",
    "DeepLab v1 on VGG-16 and v2's LargeFOV, Caffe names (a 4x4 window is taken for rate 4)",
    ("conv5_3.0", "fc6.0", "fc7.0", "fc8_*.0"),
    _v1,
    _vgg_to_theirs,
)
CAFFE_V2_VGG = Family(
    "caffe.deeplabv2_vgg16",
    "DeepLab v2 on VGG-16, Caffe names (ASPP-S looks like ASPP-L: load it into deeplabv2_vgg16_aspp_s)",
    ("conv5_3.0", "fc6_1.0", "fc7_4.0", "fc8_*_4.0"),
    _v2,
    _vgg_to_theirs,
)
CAFFE_V2_RESNET = Family(
    "caffe.deeplabv2_resnet101",
    "DeepLab v2 on ResNet-101, Caffe names",
    ("conv1.0", "bn_conv1.2", "scale_conv1.0", "res5a_branch2c.0", "fc1_*_c0.0", "fc1_*_c3.0"),
    _resnet,
    _resnet_to_theirs,
    SHARED,
)
FAMILIES = (CAFFE_V1, CAFFE_V2_VGG, CAFFE_V2_RESNET)

"""DeepLab v1 and v2 by the names of their Caffe release (see `checkpoints.caffe`).

Batch norm is two layers in Caffe: BatchNorm holds mean and variance, both times a factor that is its third tensor, and
Scale holds weight and bias; here they become one. The last layers are called after the experiment ("fc8_voc12",
"fc1_voc12_c0"); any name there is read, and these two are written.
"""

from __future__ import annotations

import re
from typing import Any

import torch

from pixelwise.checkpoints.caffe import KINDS, named, numbered, rgb
from pixelwise.checkpoints.family import Family
from pixelwise.weights.origin import Origin
from pixelwise.weights.renames import Renames, Tensors, rename

# VGG-16 -------------------------------------------------------------------------------------------------------


_V1 = Renames(
    ("conv{rest}.{blob:0|1}", "backbone.conv{rest}.{blob:0|1}"),
    ("fc{layer:6|7}.{rest}", "classifier.fc{layer:6|7}.{rest}"),
    ("fc8_voc12.{rest}", "classifier.fc8.{rest}"),
)
_V2 = Renames(
    ("conv{rest}.{blob:0|1}", "backbone.conv{rest}.{blob:0|1}"),
    ("fc{layer:6|7}_{i}.{rest}", "classifier.{i-1}.fc{layer:6|7}.{rest}"),
    ("fc8_voc12_{i}.{rest}", "classifier.{i-1}.fc8.{rest}"),
)


def _v1(tensors: Tensors) -> tuple[Origin, Tensors]:
    side = tensors["fc6.0"].shape[-1]
    model = {3: "deeplabv1_vgg16_largefov", 7: "deeplabv1_vgg16_7x7"}.get(side, "deeplabv1_vgg16_4x4")
    known = {re.sub(r"^fc8_[^.]*", "fc8_voc12", key): tensor for key, tensor in tensors.items()}
    return Origin(model, _vgg_arguments(tensors)), rgb(named(rename(known, _V1)))


def _v2(tensors: Tensors) -> tuple[Origin, Tensors]:
    known = {re.sub(r"^fc8_.*(?=_\d\.)", "fc8_voc12", key): tensor for key, tensor in tensors.items()}
    return Origin("deeplabv2_vgg16_aspp_l", _vgg_arguments(tensors)), rgb(named(rename(known, _V2)))


def _vgg_arguments(tensors: Tensors) -> dict[str, Any]:
    classes = next(t for key, t in tensors.items() if re.fullmatch(r"fc8_.*\.0", key))
    width, in_channels = tensors["conv1_1.0"].shape[:2]
    arguments = {"num_classes": classes.shape[0], "in_channels": in_channels}
    return arguments if width == 64 else {**arguments, "width_mult": width / 64}


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
        if found := re.fullmatch(r"fc1_.*_c(\d)\.([01])", key):
            kind = KINDS[int(found[2])]
            ours[f"classifier.{found[1]}.{kind}"] = tensor.flatten() if kind == "bias" else tensor
            continue
        convolution, norm = _places(key, layer)
        if layer.startswith(("conv", "res")) and number == "0":
            ours[f"backbone.{convolution}.weight"] = tensor
        elif layer.startswith("bn") and number in ("0", "1"):
            factor = tensors[f"{layer}.2"].flatten()[0]
            value = tensor.flatten() / factor if factor != 0 else torch.zeros_like(tensor).flatten()
            ours[f"backbone.{norm}.{('running_mean', 'running_var')[int(number)]}"] = value
        elif layer.startswith("scale") and number in ("0", "1"):
            ours[f"backbone.{norm}.{KINDS[int(number)]}"] = tensor.flatten()
        elif not (layer.startswith("bn") and number == "2"):
            raise KeyError(key)
    return rgb(ours)


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
    for key, tensor in rgb(tensors).items():
        name, _, kind = key.removeprefix("backbone.").rpartition(".")
        if key.startswith("classifier."):
            branch = name.removeprefix("classifier.")
            theirs[f"fc1_voc12_c{branch}.{KINDS.index(kind)}"] = tensor
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
            theirs[f"{convolution}.0"] = tensor
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
    lambda tensors: rename(numbered(rgb(tensors)), _V1, back=True),
)
CAFFE_V2_VGG = Family(
    "caffe.deeplabv2_vgg16",
    "DeepLab v2 on VGG-16, Caffe names (ASPP-S looks like ASPP-L: load it into deeplabv2_vgg16_aspp_s)",
    ("conv5_3.0", "fc6_1.0", "fc7_4.0", "fc8_*_4.0"),
    _v2,
    lambda tensors: rename(numbered(rgb(tensors)), _V2, back=True),
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

"""FCN of Long and others (`models/fcn.py`): the Caffe release (see `checkpoints.caffe`), its PyTorch copies, which also
want B, G, R, and ImageNet weights of its encoders.

One file cannot be told from another by its names: wkentaro's vgg16_from_caffe.pth has torchvision's names but wants
B, G, R; use VGG_ILSVRC_16_layers, which it was made from.
"""

from __future__ import annotations

from typing import Any

import torch

from pixelwise.checkpoints.caffe import FIRST, named, numbered, rgb
from pixelwise.checkpoints.family import Family
from pixelwise.weights.origin import Origin
from pixelwise.weights.renames import Renames, Tensors, rename

# Whole networks ---------------------------------------------------------------------------------------------

LAYERS = Renames(
    ("conv{rest}", "backbone.conv{rest}"),
    ("fc{rest}", "backbone.fc{rest}"),
    ("score_{rest}", "score_{rest}"),
    ("upscore{rest}", "upscore{rest}"),
)
"""The release's names of layers, with .weight and .bias, and ours; also those of wkentaro's copies."""


def _vgg16(tensors: Tensors) -> tuple[Origin, Tensors]:
    deconvolutions = {"upscore": "fcn32s_vgg16", "upscore16": "fcn16s_vgg16", "upscore8": "fcn8s_vgg16"}
    model = next(model for layer, model in deconvolutions.items() if f"{layer}.weight" in tensors)
    return Origin(model, _arguments(tensors, "conv1_1.weight")), _from_layers(tensors)


def _at_once(tensors: Tensors) -> tuple[Origin, Tensors]:
    known = named({key: tensor for key, tensor in tensors.items() if not key.startswith("scale_")})
    return Origin("fcn8s_atonce_vgg16", _arguments(known, "conv1_1.weight")), _from_layers(known)


def _alexnet(tensors: Tensors) -> tuple[Origin, Tensors]:
    known = named(tensors)
    return Origin("fcn32s_alexnet", _arguments(known, "conv1.weight")), _from_layers(known)


def _arguments(tensors: Tensors, first: str) -> dict[str, Any]:
    """What a builder needs; 64 filters (96 in CaffeNet) are the published width."""
    width, in_channels = tensors[first].shape[:2]
    width_mult = width / (64 if first == "conv1_1.weight" else 96)
    arguments = {"num_classes": len(tensors["score_fr.weight"]), "in_channels": in_channels}
    return arguments if width_mult == 1 else {**arguments, "width_mult": width_mult}


def _from_layers(tensors: Tensors) -> Tensors:
    return rgb(rename(tensors, LAYERS))


def _to_layers(tensors: Tensors) -> Tensors:
    return rename(rgb(tensors), LAYERS, back=True)


def _at_once_to_layers(tensors: Tensors) -> Tensors:
    theirs = numbered(_to_layers(tensors))
    for pool, scale in (("pool4", 0.01), ("pool3", 0.0001)):
        theirs[f"scale_{pool}.0"] = torch.full((theirs[f"score_{pool}.0"].shape[1],), scale)
    return theirs


CAFFE_FCN = Family(
    "caffe.fcn",
    "FCN-32s, 16s or 8s on VGG-16, Caffe names",
    ("conv5_3.0", "fc7.0", "score_fr.0", "upscore*.0"),
    lambda tensors: _vgg16(named(tensors)),
    lambda tensors: numbered(_to_layers(tensors)),
)
CAFFE_FCN_AT_ONCE = Family(
    "caffe.fcn8s_atonce",
    "FCN-8s at-once on VGG-16, Caffe names",
    ("conv5_3.0", "fc7.0", "score_fr.0", "upscore8.0", "scale_pool4.0", "scale_pool3.0"),
    _at_once,
    _at_once_to_layers,
)
CAFFE_FCN_ALEXNET = Family(
    "caffe.fcn_alexnet",
    "FCN-32s on CaffeNet, Caffe names",
    ("conv5.0", "fc7.0", "score_fr.0", "upscore.0"),
    _alexnet,
    lambda tensors: numbered(_to_layers(tensors)),
)
WKENTARO_FCN = Family(
    "wkentaro.fcn",
    "FCN on VGG-16, wkentaro's PyTorch copies (at-once: load it into fcn8s_atonce_vgg16, it looks like FCN-8s)",
    ("conv5_3.weight", "fc7.weight", "score_fr.weight", "upscore*.weight"),
    _vgg16,
    _to_layers,
)
FAMILIES = (CAFFE_FCN, CAFFE_FCN_AT_ONCE, CAFFE_FCN_ALEXNET, WKENTARO_FCN)

# Encoders: their keys without "backbone." -------------------------------------------------------------------

VGG16_LAYERS = Renames(
    ("features.0.{rest}", "conv1_1.{rest}"),
    ("features.2.{rest}", "conv1_2.{rest}"),
    ("features.5.{rest}", "conv2_1.{rest}"),
    ("features.7.{rest}", "conv2_2.{rest}"),
    ("features.10.{rest}", "conv3_1.{rest}"),
    ("features.12.{rest}", "conv3_2.{rest}"),
    ("features.14.{rest}", "conv3_3.{rest}"),
    ("features.17.{rest}", "conv4_1.{rest}"),
    ("features.19.{rest}", "conv4_2.{rest}"),
    ("features.21.{rest}", "conv4_3.{rest}"),
    ("features.24.{rest}", "conv5_1.{rest}"),
    ("features.26.{rest}", "conv5_2.{rest}"),
    ("features.28.{rest}", "conv5_3.{rest}"),
    ("classifier.0.{rest}", "fc6.{rest}"),
    ("classifier.3.{rest}", "fc7.{rest}"),
)
ALEXNET_LAYERS = Renames(
    ("features.0.{rest}", "conv1.{rest}"),
    ("features.3.{rest}", "conv2.{rest}"),
    ("features.6.{rest}", "conv3.{rest}"),
    ("features.8.{rest}", "conv4.{rest}"),
    ("features.10.{rest}", "conv5.{rest}"),
    ("classifier.1.{rest}", "fc6.{rest}"),
    ("classifier.4.{rest}", "fc7.{rest}"),
)
SAME = Renames(("{rest}", "{rest}"))
GOOGLENET_LAYERS = Renames(
    ("conv1/7x7_s2.{rest}", "conv1.conv.{rest}"),
    ("conv2/3x3_reduce.{rest}", "conv2.conv.{rest}"),
    ("conv2/3x3.{rest}", "conv3.conv.{rest}"),
    ("inception_{i}{block:a|b|c|d|e}/1x1.{rest}", "inception{i}{block:a|b|c|d|e}.branch1.conv.{rest}"),
    (
        "inception_{i}{block:a|b|c|d|e}/3x3_reduce.{rest}",
        "inception{i}{block:a|b|c|d|e}.branch2.0.conv.{rest}",
    ),
    ("inception_{i}{block:a|b|c|d|e}/3x3.{rest}", "inception{i}{block:a|b|c|d|e}.branch2.1.conv.{rest}"),
    (
        "inception_{i}{block:a|b|c|d|e}/5x5_reduce.{rest}",
        "inception{i}{block:a|b|c|d|e}.branch3.0.conv.{rest}",
    ),
    ("inception_{i}{block:a|b|c|d|e}/5x5.{rest}", "inception{i}{block:a|b|c|d|e}.branch3.1.conv.{rest}"),
    (
        "inception_{i}{block:a|b|c|d|e}/pool_proj.{rest}",
        "inception{i}{block:a|b|c|d|e}.branch4.1.conv.{rest}",
    ),
)


def _encoder(
    name: str, says: str, marks: tuple[str, ...], table: Renames, drops: tuple[str, ...], model: str,
    *, caffe: bool = False, window: int = 1,
) -> Family:  # fmt: skip
    """A family of ImageNet classifiers as encoder of `model`. window: of fc6, whose weight is a matrix in
    theirs."""

    def read(tensors: Tensors) -> tuple[Origin, Tensors]:
        ours = rename(named(tensors) if caffe else tensors, table)
        for layer, side in (("fc6.weight", window), ("fc7.weight", 1)):
            if layer in ours:
                rows, columns = ours[layer].shape[-2:]
                ours[layer] = ours[layer].reshape(rows, columns // side**2, side, side)
        if caffe:
            ours = rgb(ours)
        first = next(ours[key] for key in FIRST if key in ours)
        return Origin(model, {"in_channels": first.shape[1]}), ours

    def to_theirs(tensors: Tensors) -> Tensors:
        if caffe:
            tensors = rgb(tensors)
        flat = {k: t.flatten(1) if k in ("fc6.weight", "fc7.weight") else t for k, t in tensors.items()}
        theirs = rename(flat, table, back=True)
        return numbered(theirs) if caffe else theirs

    return Family(name, says, marks, read, to_theirs, drops)


ENCODERS = {
    "vgg16": (
        _encoder(
            "torchvision.vgg16", "VGG-16, torchvision names",
            ("features.2.weight", "features.26.weight", "classifier.0.weight", "classifier.3.weight"),
            VGG16_LAYERS, ("classifier.6.*",), "fcn32s_vgg16", window=7,
        ),
        _encoder(
            "caffe.vgg16", "VGG-16 (VGG_ILSVRC_16_layers), Caffe names", ("conv5_3.0", "fc6.0", "fc8.0"),
            SAME, ("fc8.*",), "fcn32s_vgg16", caffe=True, window=7,
        ),
    ),
    "caffenet": (
        _encoder(
            "caffe.caffenet", "CaffeNet (bvlc_reference_caffenet), Caffe names",
            ("conv5.0", "fc6.0", "fc8.0"),
            SAME, ("fc8.*",), "fcn32s_alexnet", caffe=True, window=6,
        ),
    ),
    "alexnet": (
        _encoder(
            "torchvision.alexnet", "AlexNet, torchvision names",
            ("features.3.weight", "features.8.weight", "features.10.weight", "classifier.1.weight"),
            ALEXNET_LAYERS, ("classifier.6.*",), "fcn32s_alexnet_torchvision", window=6,
        ),
    ),
    "googlenet_caffe": (
        _encoder(
            "caffe.googlenet", "GoogLeNet (bvlc_googlenet), Caffe names",
            ("conv1/7x7_s2.0", "inception_5b/1x1.0"),
            GOOGLENET_LAYERS, ("loss*",), "fcn32s_googlenet", caffe=True,
        ),
    ),
    "googlenet": (
        _encoder(
            "torchvision.googlenet", "GoogLeNet, torchvision names",
            ("conv1.bn.weight", "inception5b.branch4.1.conv.weight"),
            SAME, ("aux1.*", "aux2.*", "fc.*"), "fcn32s_googlenet_torchvision",
        ),
    ),
}  # fmt: skip
"""Kind of encoder: the families of ImageNet classifiers that fit it."""

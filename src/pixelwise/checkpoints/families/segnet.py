"""SegNet (`models/segnet.py`): the Caffe release, and ImageNet weights of VGG-16 for its encoder.

The released files are for inference: of each batch norm they hold a scale and a shift with the statistics of
the training set inside, which fits a batch norm of mean 0 and variance 1. Snapshots of the training look the
same but lack the statistics; run the release's compute_bn_statistics.py on them first. The rest is as in all of
Caffe's files (`checkpoints.caffe`), but no mean is subtracted.
"""

from __future__ import annotations

import torch
from torch import nn

from pixelwise.checkpoints.caffe import named, numbered, rgb
from pixelwise.checkpoints.family import Family
from pixelwise.weights.origin import Origin
from pixelwise.weights.renames import Renames, Tensors, rename

LAYERS = Renames(
    ("conv1_1_D.{rest}", "score.{rest}"),
    *(
        (f"conv{where}{ending}.{{rest}}", f"{place}.{kind}.{{rest}}")
        for where, place in (
            ("{i}_{j}", "encoder{i}.{j-1}"),
            ("{i:3|4|5}_3_D", "decoder{i:3|4|5}.0"),
            ("{i:3|4|5}_2_D", "decoder{i:3|4|5}.1"),
            ("{i:3|4|5}_1_D", "decoder{i:3|4|5}.2"),
            ("2_2_D", "decoder2.0"),
            ("2_1_D", "decoder2.1"),
            ("1_2_D", "decoder1.0"),
        )
        for ending, kind in (("", "conv"), ("_bn", "norm"))
    ),
)
"""The decoder counts its convolutions downwards; its very last one gives the classes."""


def _read(tensors: Tensors) -> tuple[Origin, Tensors]:
    width, in_channels = tensors["conv1_1.0"].shape[:2]
    arguments = {"num_classes": len(tensors["conv1_1_D.0"]), "in_channels": in_channels, "width": width}
    scales = [key for key in tensors if key.endswith("_bn.0")]
    absorbed = not any(tensors[key].any() for key in scales)
    ours: Tensors = {}
    for key, tensor in named(rename(tensors, LAYERS)).items():
        layer, _, kind = key.rpartition(".")
        if layer.endswith(".norm"):
            tensor = tensor.flatten()  # (1, c, 1, 1) in their files
            if kind == "weight":
                ours[f"{layer}.running_mean"] = torch.zeros_like(tensor)
                ours[f"{layer}.running_var"] = torch.ones_like(tensor)
                if absorbed:  # BN-absorber.py leaves zeros where it moved the scales into the convolutions
                    tensor = torch.ones_like(tensor)
        ours[key] = tensor
    return Origin("segnet", arguments), rgb(ours)


def _to_theirs(tensors: Tensors) -> Tensors:
    folded: Tensors = {}
    for key, tensor in rgb(tensors).items():
        layer, _, kind = key.rpartition(".")
        if not layer.endswith(".norm"):
            folded[key] = tensor
        elif kind == "weight":
            scale = tensor / (tensors[f"{layer}.running_var"] + 1e-9).sqrt()
            shift = tensors[f"{layer}.bias"] - scale * tensors[f"{layer}.running_mean"]
            folded[key], folded[f"{layer}.bias"] = scale.view(1, -1, 1, 1), shift.view(1, -1, 1, 1)
    return numbered(rename(folded, LAYERS, back=True))


FAMILIES = (
    Family(
        "caffe.segnet",
        "SegNet, Caffe names",
        ("conv1_1.0", "conv1_1_bn.0", "conv5_1_D_bn.0", "conv1_1_D.0"),
        _read,
        _to_theirs,
    ),
)


def from_vgg16(network: nn.Module, tensors: Tensors) -> Tensors:
    """All tensors of a SegNet, those of its encoder's convolutions taken from VGG-16's, under our names."""
    table = Renames(("conv{i}_{j}.{rest}", "encoder{i}.{j-1}.conv.{rest}"))
    convolutions = {key: tensor for key, tensor in tensors.items() if key.startswith("conv")}
    return {**network.state_dict(), **rename(convolutions, table)}

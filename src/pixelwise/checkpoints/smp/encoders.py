"""Encoders of segmentation_models.pytorch (SMP): their names of tensors to ours and back.

Most are the same: both are torchvision's or timm's. Two families differ: EfficientNet (SMP's own, a port of
TensorFlow's) and MobileOne (as its authors released it). SMP's files also hold layers that no feature passes through
(the classifier's last convolution, stages beyond the depth that a decoder asked for), which ours do not have.

Names here are without the prefix "encoder.".
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterable

import torch

from pixelwise.encoders import names
from pixelwise.weights.convert.family import Family, Renames, Tensors

FAMILIES: tuple[Family, ...] = ()
"""Encoders alone are no networks, so `from_checkpoint` knows none of these."""

EFFICIENTNET_REPEATS = (1, 2, 2, 3, 3, 4, 1)
"""Table 1 of 1905.11946: blocks of each stage, times the depth of the size, rounded up."""

EFFICIENTNET_DEPTHS = {"b0": 1.0, "b1": 1.1, "b2": 1.2, "b3": 1.4, "b4": 1.8, "b5": 2.2, "b6": 2.6, "b7": 3.1}

MOBILEONE = Renames(
    *(
        (f"{theirs}.{inner}.{{rest}}", f"{ours}.{new}.{{rest}}")
        for theirs, ours in (("stage0", "stem"), ("stage{i+1}.{j}", "stages.{i}.{j}"))
        for inner, new in (
            ("rbr_conv", "conv_kxk"),
            ("rbr_scale", "conv_scale"),
            ("rbr_skip", "identity"),
            ("se.reduce", "attn.fc1"),
            ("se.expand", "attn.fc2"),
        )
    )
)


@functools.cache
def efficientnet(size: str) -> Renames:
    """SMP counts blocks from the first to the last, timm stage by stage; a first block has no expansion."""
    pairs = [
        ("_conv_stem.{rest}", "conv_stem.{rest}"),
        ("_bn0.{rest}", "bn1.{rest}"),
        ("_conv_head.{rest}", "conv_head.{rest}"),
        ("_bn1.{rest}", "bn2.{rest}"),
    ]
    whole = (
        ("_expand_conv", "conv_pw"),
        ("_bn0", "bn1"),
        ("_depthwise_conv", "conv_dw"),
        ("_bn1", "bn2"),
        ("_se_reduce", "se.conv_reduce"),
        ("_se_expand", "se.conv_expand"),
        ("_project_conv", "conv_pwl"),
        ("_bn2", "bn3"),
    )
    unexpanded = (
        ("_depthwise_conv", "conv_dw"),
        ("_bn1", "bn1"),
        ("_se_reduce", "se.conv_reduce"),
        ("_se_expand", "se.conv_expand"),
        ("_project_conv", "conv_pw"),
        ("_bn2", "bn2"),
    )
    count = 0
    for stage, repeats in enumerate(EFFICIENTNET_REPEATS):
        for block in range(math.ceil(repeats * EFFICIENTNET_DEPTHS[size])):
            pairs += [
                (f"_blocks.{count}.{theirs}.{{rest}}", f"blocks.{stage}.{block}.{ours}.{{rest}}")
                for theirs, ours in (whole if stage else unexpanded)
            ]
            count += 1
    return Renames(*pairs)


def table(name: str) -> Renames | None:
    """The renaming of SMP's encoder `name`, or None where the names are the same."""
    if name.startswith("efficientnet-"):
        return efficientnet(name.removeprefix("efficientnet-"))
    return MOBILEONE if name.startswith("mobileone_") else None


def to_ours(name: str, tensors: Tensors, wanted: Iterable[str] | None = None) -> Tensors:
    """Tensors of SMP's encoder `name` under our names.

    wanted: the keys of our encoder, `encoder.state_dict()`. Tensors of layers that SMP has in every such file, and
    our encoder of that depth has not, are then left out; any other is kept, for the strict loading to complain of.
    None: all are kept. Raises KeyError, with the key, for one that the encoder does not have in SMP.
    """
    renames = table(name)
    renamed: Tensors = {}
    for key, tensor in tensors.items():
        new = key if renames is None else renames.to_ours(key)
        if new is None:
            raise KeyError(key)
        renamed[new] = tensor
    if wanted is None:
        return renamed
    unused = set(whole(name)) - set(wanted)
    return {key: tensor for key, tensor in renamed.items() if key not in unused}


def to_theirs(name: str, tensors: Tensors, *, in_channels: int = 3, depth: int = 5) -> Tensors:
    """The way back, complete: layers that SMP has, and does not use, get zeros, as its strict loading asks for them."""
    renames = table(name)
    shapes = whole(name, in_channels, depth)
    complete = {
        key: tensors[key] if key in tensors else torch.zeros_like(shapes[key], device="cpu") for key in shapes
    }
    complete |= {key: tensor for key, tensor in tensors.items() if key not in complete}
    if renames is None:
        return complete
    renamed: Tensors = {}
    for key, tensor in complete.items():
        new = renames.to_theirs(key)
        if new is None:
            raise KeyError(key)
        renamed[new] = tensor
    return renamed


@functools.cache
def whole(name: str, in_channels: int = 3, depth: int = 5) -> Tensors:
    """Everything that SMP's files hold of encoder `name`, under our names, without values.

    That is all of the network whatever the depth, but for the ones that SMP calls "tu-", which hold the part that the
    depth asks for, or all if they are plain vision transformers.
    """
    classifier = ("classifier.", "fc.", "last_linear.", "head.", "classif.")
    with torch.device("meta"):
        if name.startswith("mit_"):
            from pixelwise.encoders import mit

            return mit.MixTransformer(*mit.SIZES[name], in_channels=in_channels).state_dict()
        if names.resolve(name).kind == "timm":
            from pixelwise.encoders.timm import whole_network

            network = whole_network(names.resolve(name).network, in_channels, depth)
            return {f"model.{key}": tensor for key, tensor in network.state_dict().items()}
        from pixelwise.encoders.staged import family

        state = family(name).build(in_channels=in_channels).state_dict()
    return {key: tensor for key, tensor in state.items() if not key.startswith(classifier)}

"""No New-Net's checkpoints: the release for BraTS 2018, and nnU-Net v1 in the same configuration.

Both are made by one builder of the authors'. The release has a list of heads at every level of the decoder,
one for each data set it was trained on (`seg_outputs.3.0` is BraTS at full size); nnU-Net v1 has one head a
level (`seg_outputs.3`). nnU-Net's later default, strided convolutions for pooling and transposed ones for
up-sampling, is another network; it is refused.
"""

from __future__ import annotations

from typing import Any

from pixelwise.checkpoints.family import Family
from pixelwise.errors import WeightsError
from pixelwise.models.nonewnet import CAPS, filters
from pixelwise.weights.origin import Origin
from pixelwise.weights.renames import Renames, Tensors, rename


def _table(levels: int, *, many_heads: bool) -> Renames:
    blocks = (
        (f"conv_blocks_context.{levels}.{{b}}.blocks.0.", "bottom.{b}."),
        ("conv_blocks_context.{i}.blocks.{b}.", "down.{i}.{b}."),
        ("conv_blocks_localization.{u}.{b}.blocks.0.", "up.{u}.{b}."),
    )
    heads = (
        (f"seg_outputs.{levels - 1 - depth}.{{task}}.weight", f"heads.{depth}.{{task}}.weight")
        if many_heads
        else (f"seg_outputs.{levels - 1 - depth}.weight", f"heads.{depth}.0.weight")
        for depth in range(levels)
    )
    return Renames(
        *((f"{theirs}conv.{{rest}}", f"{ours}conv.{{rest}}") for theirs, ours in blocks),
        *((f"{theirs}instnorm.{{rest}}", f"{ours}norm.{{rest}}") for theirs, ours in blocks),
        *heads,
    )


def _origin(tensors: Tensors) -> Origin:
    if any(key.startswith("tu.") for key in tensors):
        raise WeightsError(
            "these weights up-sample by transposed convolutions (tu.*), as nnU-Net does by default; "
            "No New-Net interpolates, so they belong to another network"
        )
    levels = _levels(tensors)
    first = tensors["conv_blocks_context.0.blocks.0.conv.weight"]
    bottom = len(tensors[f"conv_blocks_context.{levels}.0.blocks.0.conv.weight"])
    dims, width = first.ndim - 2, len(first)
    heads = {key: tensor for key, tensor in tensors.items() if key.startswith("seg_outputs.")}
    finest = f"seg_outputs.{levels - 1}."
    classes = len(heads[f"{finest}0.weight" if f"{finest}0.weight" in heads else f"{finest}weight"])
    arguments: dict[str, Any] = {
        "num_classes": classes,
        "in_channels": first.shape[1],
        "deep_supervision": any(not key.startswith(finest) for key in heads),
    }
    if f"{finest}1.weight" in heads:
        arguments["cotraining_classes"] = len(heads[f"{finest}1.weight"])
    if width != 30:
        arguments["width"] = width
    if levels != 4:
        arguments["levels"] = levels
    if filters(width, levels, CAPS[dims])[-1] != bottom:
        arguments["cap"] = bottom
    if dims == 2:
        return Origin("nonewnet_2d", arguments)
    # Whether outputs are regions or classes is not in the tensors; the paper has 3 regions or 4 classes.
    return Origin("nonewnet_softmax" if classes == 4 else "nonewnet", arguments)


def _levels(tensors: Tensors) -> int:
    starts = {key.split(".")[1] for key in tensors if key.startswith("conv_blocks_localization.")}
    return len(starts)


def _our_levels(tensors: Tensors) -> int:
    return len({key.split(".")[1] for key in tensors if key.startswith("up.")})


def _release(tensors: Tensors) -> tuple[Origin, Tensors]:
    return _origin(tensors), rename(tensors, _table(_levels(tensors), many_heads=True))


def _release_to_theirs(tensors: Tensors) -> Tensors:
    return rename(tensors, _table(_our_levels(tensors), many_heads=True), back=True)


def _nnunet(tensors: Tensors) -> tuple[Origin, Tensors]:
    return _origin(tensors), rename(tensors, _table(_levels(tensors), many_heads=False))


def _nnunet_to_theirs(tensors: Tensors) -> Tensors:
    if any(key.startswith("heads.0.1.") for key in tensors):
        raise WeightsError(
            "nnU-Net v1 has one head a level, so a network with co-training heads has no place there"
        )
    return rename(tensors, _table(_our_levels(tensors), many_heads=False), back=True)


_MARKS = (
    "conv_blocks_context.0.blocks.0.conv.weight",
    "conv_blocks_context.0.blocks.0.instnorm.weight",
    "conv_blocks_localization.0.1.blocks.0.conv.weight",
)

FAMILIES = (
    Family(
        "dkfz.nonewnet",
        "No New-Net, the authors' release for BraTS 2018",
        (*_MARKS, "seg_outputs.?.0.weight"),
        _release,
        _release_to_theirs,
    ),
    Family(
        "nnunet_v1.unet",
        "nnU-Net v1's U-Net with max pooling and interpolation",
        (*_MARKS, "seg_outputs.?.weight"),
        _nnunet,
        _nnunet_to_theirs,
    ),
)

"""UPerNet checkpoints: the ConvNeXt authors' (Meta), mmsegmentation's and Hugging Face's.

Our names are Meta's. Hugging Face has the same head on ConvNeXt V2, Swin and ResNet.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from pixelwise.checkpoints.families import mit
from pixelwise.checkpoints.family import Family
from pixelwise.encoders.convnext import SIZES
from pixelwise.models.upernet import POOL_SIZES
from pixelwise.weights.origin import Origin
from pixelwise.weights.renames import Renames, Tensors, rename

_HEAD = "{head:decode_head|auxiliary_head}"
NORM = "{leaf:weight|bias|running_mean|running_var|num_batches_tracked}"

_MMSEG = Renames(
    ("backbone.stages.{i}.{k}.depthwise_conv.{rest}", "backbone.stages.{i}.{k}.dwconv.{rest}"),
    ("backbone.stages.{i}.{k}.pointwise_conv{j}.{rest}", "backbone.stages.{i}.{k}.pwconv{j}.{rest}"),
    ("{rest}", "{rest}"),
)

_HUGGINGFACE_HEADS = (
    (f"{_HEAD}.classifier.{{rest}}", f"{_HEAD}.conv_seg.{{rest}}"),
    (f"{_HEAD}.{{rest}}.batch_norm.{NORM}", f"{_HEAD}.{{rest}}.bn.{NORM}"),
    (f"{_HEAD}.{{rest}}.conv.weight", f"{_HEAD}.{{rest}}.conv.weight"),
)

_HUGGINGFACE = Renames(
    ("backbone.embeddings.patch_embeddings.{rest}", "backbone.downsample_layers.0.0.{rest}"),
    ("backbone.embeddings.layernorm.{rest}", "backbone.downsample_layers.0.1.{rest}"),
    ("backbone.encoder.stages.{i}.downsampling_layer.{rest}", "backbone.downsample_layers.{i}.{rest}"),
    ("backbone.encoder.stages.{i}.layers.{k}.layer_scale_parameter", "backbone.stages.{i}.{k}.gamma"),
    ("backbone.encoder.stages.{i}.layers.{k}.layernorm.{rest}", "backbone.stages.{i}.{k}.norm.{rest}"),
    ("backbone.encoder.stages.{i}.layers.{k}.grn.weight", "backbone.stages.{i}.{k}.grn.gamma"),
    ("backbone.encoder.stages.{i}.layers.{k}.grn.bias", "backbone.stages.{i}.{k}.grn.beta"),
    ("backbone.encoder.stages.{i}.layers.{k}.{rest}", "backbone.stages.{i}.{k}.{rest}"),
    ("backbone.hidden_states_norms.stage{i+1}.{rest}", "backbone.norm{i}.{rest}"),
    *_HUGGINGFACE_HEADS,
)

_SWIN = "backbone.encoder.layers.{i}.blocks.{k}", "backbone.layers.{i}.blocks.{k}"
_HUGGINGFACE_SWIN = Renames(
    ("backbone.embeddings.patch_embeddings.projection.{rest}", "backbone.patch_embed.proj.{rest}"),
    ("backbone.embeddings.norm.{rest}", "backbone.patch_embed.norm.{rest}"),
    (
        f"{_SWIN[0]}.attention.self.relative_position_bias_table",
        f"{_SWIN[1]}.attn.relative_position_bias_table",
    ),
    (
        f"{_SWIN[0]}.attention.self.{{part:query|key|value}}.{{rest}}",
        f"{_SWIN[1]}.attn.{{part:query|key|value}}.{{rest}}",
    ),
    (f"{_SWIN[0]}.attention.output.dense.{{rest}}", f"{_SWIN[1]}.attn.proj.{{rest}}"),
    (f"{_SWIN[0]}.layernorm_before.{{rest}}", f"{_SWIN[1]}.norm1.{{rest}}"),
    (f"{_SWIN[0]}.layernorm_after.{{rest}}", f"{_SWIN[1]}.norm2.{{rest}}"),
    (f"{_SWIN[0]}.intermediate.dense.{{rest}}", f"{_SWIN[1]}.mlp.fc1.{{rest}}"),
    (f"{_SWIN[0]}.output.dense.{{rest}}", f"{_SWIN[1]}.mlp.fc2.{{rest}}"),
    ("backbone.encoder.layers.{i}.downsample.{rest}", "backbone.layers.{i}.downsample.{rest}"),
    ("backbone.hidden_states_norms.stage{i+1}.{rest}", "backbone.norm{i}.{rest}"),
    *_HUGGINGFACE_HEADS,
)

_RESNET = "backbone.encoder.stages.{i-1}.layers.{k}", "backbone.layer{i}.{k}"
_HUGGINGFACE_RESNET = Renames(
    ("backbone.embedder.embedder.convolution.{rest}", "backbone.conv1.{rest}"),
    ("backbone.embedder.embedder.normalization.{rest}", "backbone.bn1.{rest}"),
    (f"{_RESNET[0]}.layer.{{j-1}}.convolution.{{rest}}", f"{_RESNET[1]}.conv{{j}}.{{rest}}"),
    (f"{_RESNET[0]}.layer.{{j-1}}.normalization.{{rest}}", f"{_RESNET[1]}.bn{{j}}.{{rest}}"),
    (f"{_RESNET[0]}.shortcut.convolution.{{rest}}", f"{_RESNET[1]}.downsample.0.{{rest}}"),
    (f"{_RESNET[0]}.shortcut.normalization.{{rest}}", f"{_RESNET[1]}.downsample.1.{{rest}}"),
    *_HUGGINGFACE_HEADS,
)


def _from_mmseg(tensors: Tensors) -> Tensors:
    """mmsegmentation may have the two linear layers of a block as 1x1 convolutions."""
    pointwise = re.compile(r"backbone\.stages\.\d+\.\d+\.pwconv[12]\.weight")
    return {
        key: tensor.flatten(1) if pointwise.fullmatch(key) and tensor.shape[2:] == (1, 1) else tensor
        for key, tensor in rename(tensors, _MMSEG).items()
    }


def _from_swin(tensors: Tensors) -> Tensors:
    """Queries, keys and values, which Hugging Face keeps apart, become one layer, in that order."""
    ours: Tensors = {}
    for name, tensor in rename(tensors, _HUGGINGFACE_SWIN).items():
        parts = [name.replace(".attn.query.", f".attn.{part}.") for part in ("query", "key", "value")]
        if ".attn.query." in name:
            ours[name.replace(".attn.query.", ".attn.qkv.")] = torch.cat(
                [tensors[_HUGGINGFACE_SWIN.to_theirs(part) or part] for part in parts]
            )
        elif ".attn.key." not in name and ".attn.value." not in name:
            ours[name] = tensor
    return ours


def _to_swin(tensors: Tensors) -> Tensors:
    parted: Tensors = {}
    for name, tensor in tensors.items():
        if ".attn.qkv." in name:
            for part, third in zip(("query", "key", "value"), tensor.chunk(3), strict=True):
                parted[name.replace(".attn.qkv.", f".attn.{part}.")] = third.clone()
        else:
            parted[name] = tensor
    return rename(parted, _HUGGINGFACE_SWIN, back=True)


def read_upernet(
    to_ours: Callable[[Tensors], Tensors], encoder_of: Callable[[Tensors], tuple[str, dict[str, Any]]] | None = None
) -> Callable[[Tensors], tuple[Origin, Tensors]]:  # fmt: skip
    """encoder_of: the builder and its encoder's arguments, by tensors in our names; None for ConvNeXt."""

    def read(tensors: Tensors) -> tuple[Origin, Tensors]:
        ours = to_ours(tensors)
        model, arguments = (encoder_of or _convnext)(ours)
        classes, width = ours["decode_head.conv_seg.weight"].shape[:2]
        aux_width = rows(ours, "auxiliary_head.convs.0.conv.weight")
        arguments |= heads_of(classes, width, aux_width)
        if (pools := _count(ours, "decode_head.psp_modules.")) != len(POOL_SIZES):
            arguments["pool_sizes"] = (1,) * pools  # nothing says which: `checkpoints.huggingface` does
        if (convs := _count(ours, "auxiliary_head.convs.")) > 1:
            arguments["aux_convs"] = convs
        if "auxiliary_head.conv_cat.conv.weight" in ours:
            arguments["aux_concat"] = True
        return Origin(model, arguments), ours

    return read


def _convnext(ours: Tensors) -> tuple[str, dict[str, Any]]:
    model, arguments = convnext_variant(ours, "upernet", ("tiny", "small", "base", "large", "xlarge"))
    levels = _levels(ours)
    arguments |= {"output_norms": bool(levels)}
    if levels and levels != (0, 1, 2, 3):
        arguments["stages"] = levels
    if not any(key.endswith(".gamma") for key in ours):
        arguments["layer_scale"] = None
    return model, arguments | _patch(ours["backbone.downsample_layers.0.0.weight"])


def _convnextv2(ours: Tensors) -> tuple[str, dict[str, Any]]:
    arguments, levels = _sizes(ours), _levels(ours)
    if levels != (0, 1, 2, 3):
        arguments["stages"] = levels
    return "upernet_convnextv2", arguments | _patch(ours["backbone.downsample_layers.0.0.weight"])


def _swin(ours: Tensors) -> tuple[str, dict[str, Any]]:
    patch, levels = ours["backbone.patch_embed.proj.weight"], _levels(ours)
    table = "backbone.layers.{}.blocks.0.attn.relative_position_bias_table"
    hidden, deepest = ours["backbone.layers.3.blocks.0.mlp.fc1.weight"].shape  # the most exact
    arguments = {
        "in_channels": patch.shape[1],
        "channels": patch.shape[0],
        "depths": tuple(_count(ours, f"backbone.layers.{i}.blocks.") for i in range(4)),
        "heads": tuple(ours[table.format(i)].shape[1] for i in range(4)),
        "window": (math.isqrt(ours[table.format(0)].shape[0]) + 1) // 2,
        "mlp_ratio": mit.ratio_of(hidden, deepest),
        "qkv_bias": "backbone.layers.0.blocks.0.attn.qkv.bias" in ours,
    }
    if levels != (0, 1, 2, 3):
        arguments["stages"] = levels
    return "upernet_swin", arguments | _patch(patch)


def _resnet(ours: Tensors) -> tuple[str, dict[str, Any]]:
    stem, bottleneck = ours["backbone.conv1.weight"], "backbone.layer1.0.conv3.weight" in ours
    last = "backbone.layer{}.0." + ("conv3" if bottleneck else "conv2") + ".weight"
    channels = tuple(ours[last.format(i)].shape[0] for i in (1, 2, 3, 4))
    arguments: dict[str, Any] = {
        "in_channels": stem.shape[1],
        "stem": stem.shape[0],
        "channels": channels,
        "depths": tuple(_count(ours, f"backbone.layer{i}.") for i in (1, 2, 3, 4)),
        "bottleneck": bottleneck,
    }
    if channels[0] == stem.shape[0] and "backbone.layer1.0.downsample.0.weight" in ours:
        arguments["first_stride"] = 2
    if (levels := _count(ours, "decode_head.lateral_convs.") + 1) != 4:
        arguments["stages"] = tuple(
            range(4 - levels, 4)
        )  # the deepest, unless a configuration says otherwise
    return "upernet_resnet", arguments


def _levels(ours: Tensors) -> tuple[int, ...]:
    """The stages whose features are normalised and so used."""
    return tuple(i for i in range(4) if f"backbone.norm{i}.weight" in ours)


def _patch(stem: Tensor) -> dict[str, Any]:
    return {} if stem.shape[2] == 4 else {"patch": stem.shape[2]}


def _count(tensors: Tensors, prefix: str) -> int:
    """How many numbers follow the prefix."""
    at = prefix.count(".")
    return len({key.split(".")[at] for key in tensors if key.startswith(prefix)})


def convnext_variant(ours: Tensors, head: str, names: tuple[str, ...]) -> tuple[str, dict[str, Any]]:
    """The variant with the encoder's sizes; sizes that no variant has become options of the tiny one."""
    arguments = _sizes(ours)
    channels, depths = arguments.pop("channels"), arguments.pop("depths")
    for name in names:
        if SIZES[f"convnext_{name}"] == (channels, depths):
            return f"{head}_convnext_{name}", arguments
    return f"{head}_convnext_tiny", arguments | {"channels": channels, "depths": depths}


def _sizes(ours: Tensors) -> dict[str, Any]:
    stem = ours["backbone.downsample_layers.0.0.weight"]
    channels = (
        stem.shape[0],
        *(ours[f"backbone.downsample_layers.{i}.1.weight"].shape[0] for i in (1, 2, 3)),
    )
    depths = tuple(_count(ours, f"backbone.stages.{i}.") for i in range(4))
    return {"in_channels": stem.shape[1], "channels": channels, "depths": depths}


def heads_of(classes: int, width: int, aux_width: int | None) -> dict[str, Any]:
    """The builder's arguments about the heads."""
    arguments: dict[str, Any] = {"num_classes": classes, "aux_loss": aux_width is not None}
    usual = {"width": 512, "aux_width": 256}
    return arguments | {
        key: value
        for key, value in (("width", width), ("aux_width", aux_width))
        if value is not None and value != usual[key]
    }


def rows(tensors: Tensors, key: str) -> int | None:
    """The first side of a tensor, None where it is missing."""
    return len(tensors[key]) if key in tensors else None


_PYRAMID = "decode_head.psp_modules.0.1.conv.weight"

FAMILIES: tuple[Family, ...] = (
    Family(
        "meta.upernet_convnext",
        "a UPerNet of the ConvNeXt authors (Meta)",
        ("backbone.stages.0.0.dwconv.weight", "backbone.stages.0.0.gamma", _PYRAMID),
        read_upernet(dict), dict,
    ),
    Family(
        "mmseg.upernet_convnext",
        "a UPerNet on ConvNeXt of mmsegmentation, or of R's mirror",
        ("backbone.stages.0.0.depthwise_conv.weight", "backbone.stages.0.0.gamma", _PYRAMID),
        read_upernet(_from_mmseg), lambda tensors: rename(tensors, _MMSEG, back=True),
    ),
    Family(
        "huggingface.upernet_convnext",
        "a UPerNet on ConvNeXt of Hugging Face",
        ("backbone.encoder.stages.0.layers.0.dwconv.weight", "backbone.hidden_states_norms.*.weight", _PYRAMID),
        read_upernet(lambda tensors: rename(tensors, _HUGGINGFACE)),
        lambda tensors: rename(tensors, _HUGGINGFACE, back=True),
    ),
    Family(
        "huggingface.upernet_convnextv2",
        "a UPerNet on ConvNeXt V2 of Hugging Face",
        (
            "backbone.encoder.stages.0.layers.0.dwconv.weight", "backbone.encoder.stages.0.layers.0.grn.weight",
            "backbone.hidden_states_norms.*.weight", _PYRAMID,
        ),
        read_upernet(lambda tensors: rename(tensors, _HUGGINGFACE), _convnextv2),
        lambda tensors: rename(tensors, _HUGGINGFACE, back=True),
    ),
    Family(
        "huggingface.upernet_swin",
        "a UPerNet on Swin of Hugging Face",
        (
            "backbone.embeddings.patch_embeddings.projection.weight",
            "backbone.encoder.layers.0.blocks.0.attention.self.relative_position_bias_table", _PYRAMID,
        ),
        read_upernet(_from_swin, _swin), _to_swin,
        ("*.relative_position_index", "backbone.swin.layernorm.*"),  # counted anew; of the classifier, never applied
    ),
    Family(
        "huggingface.upernet_resnet",
        "a UPerNet on a ResNet of Hugging Face",
        (
            "backbone.embedder.embedder.convolution.weight",
            "backbone.encoder.stages.0.layers.0.layer.0.convolution.weight", _PYRAMID,
        ),
        read_upernet(lambda tensors: rename(tensors, _HUGGINGFACE_RESNET), _resnet),
        lambda tensors: rename(tensors, _HUGGINGFACE_RESNET, back=True),
    ),
)  # fmt: skip

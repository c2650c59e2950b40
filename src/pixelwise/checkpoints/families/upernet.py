"""ConvNeXt segmentation checkpoints: the ConvNeXt authors' (Meta), mmsegmentation's, Hugging Face's and R's.

Our names are Meta's. The files that R's torchvision (mlverse) fetches, convnext_*_upernet_512.pth, are in
mmsegmentation's names and are read as such; R renames them while loading, so a network saved from R has the
names of `mlverse.*`. R's networks do not normalise their features and hold no such norms (but for one that it
never applies): they become networks with output_norms=False, and only such networks can be written in R's
names.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from pixelwise.checkpoints.family import Family
from pixelwise.encoders.convnext import SIZES
from pixelwise.weights.origin import Origin
from pixelwise.weights.renames import Renames, Tensors, rename

_HEAD = "{head:decode_head|auxiliary_head}"
_NORM = "{leaf:weight|bias|running_mean|running_var|num_batches_tracked}"

_MMSEG = Renames(
    ("backbone.stages.{i}.{k}.depthwise_conv.{rest}", "backbone.stages.{i}.{k}.dwconv.{rest}"),
    ("backbone.stages.{i}.{k}.pointwise_conv{j}.{rest}", "backbone.stages.{i}.{k}.pwconv{j}.{rest}"),
    ("{rest}", "{rest}"),
)

_HUGGINGFACE = Renames(
    ("backbone.embeddings.patch_embeddings.{rest}", "backbone.downsample_layers.0.0.{rest}"),
    ("backbone.embeddings.layernorm.{rest}", "backbone.downsample_layers.0.1.{rest}"),
    ("backbone.encoder.stages.{i}.downsampling_layer.{rest}", "backbone.downsample_layers.{i}.{rest}"),
    ("backbone.encoder.stages.{i}.layers.{k}.layer_scale_parameter", "backbone.stages.{i}.{k}.gamma"),
    ("backbone.encoder.stages.{i}.layers.{k}.layernorm.{rest}", "backbone.stages.{i}.{k}.norm.{rest}"),
    ("backbone.encoder.stages.{i}.layers.{k}.{rest}", "backbone.stages.{i}.{k}.{rest}"),
    ("backbone.hidden_states_norms.stage{i+1}.{rest}", "backbone.norm{i}.{rest}"),
    (f"{_HEAD}.classifier.{{rest}}", f"{_HEAD}.conv_seg.{{rest}}"),
    (f"{_HEAD}.{{rest}}.batch_norm.{_NORM}", f"{_HEAD}.{{rest}}.bn.{_NORM}"),
    (f"{_HEAD}.{{rest}}.conv.weight", f"{_HEAD}.{{rest}}.conv.weight"),
)

_MLVERSE_BACKBONE = (
    ("backbone.model.downsample_layers.{rest}", "backbone.downsample_layers.{rest}"),
    ("backbone.model.stages.{rest}", "backbone.stages.{rest}"),
)

_MLVERSE = Renames(
    *_MLVERSE_BACKBONE,
    ("decode_head.psp_modules.stages.{i}.1.{rest}", "decode_head.psp_modules.{i}.1.conv.{rest}"),
    ("decode_head.psp_modules.stages.{i}.2.{rest}", "decode_head.psp_modules.{i}.1.bn.{rest}"),
    ("decode_head.{rest}.0.weight", "decode_head.{rest}.conv.weight"),
    (f"decode_head.{{rest}}.1.{_NORM}", f"decode_head.{{rest}}.bn.{_NORM}"),
    ("decode_head.cls_seg.{rest}", "decode_head.conv_seg.{rest}"),
    ("aux_classifier.0.{rest}", "auxiliary_head.convs.0.conv.{rest}"),
    ("aux_classifier.1.{rest}", "auxiliary_head.convs.0.bn.{rest}"),
    ("aux_classifier.4.{rest}", "auxiliary_head.conv_seg.{rest}"),
)

_MLVERSE_FCN = Renames(
    *_MLVERSE_BACKBONE,
    ("classifier.{rest}", "classifier.{rest}"),
    ("aux_classifier.{rest}", "aux_classifier.{rest}"),
)


def _from_mmseg(tensors: Tensors) -> Tensors:
    """mmsegmentation may have the two linear layers of a block as 1x1 convolutions."""
    pointwise = re.compile(r"backbone\.stages\.\d+\.\d+\.pwconv[12]\.weight")
    return {
        key: tensor.flatten(1) if pointwise.fullmatch(key) and tensor.shape[2:] == (1, 1) else tensor
        for key, tensor in rename(tensors, _MMSEG).items()
    }


def _upernet(to_ours: Callable[[Tensors], Tensors]) -> Callable[[Tensors], tuple[Origin, Tensors]]:
    def read(tensors: Tensors) -> tuple[Origin, Tensors]:
        ours = to_ours(tensors)
        model, arguments = _encoder(ours, "upernet", ("tiny", "small", "base", "large", "xlarge"))
        classes, width = ours["decode_head.conv_seg.weight"].shape[:2]
        aux_width = _rows(ours, "auxiliary_head.convs.0.conv.weight")
        arguments |= _head(classes, width, aux_width) | {"output_norms": "backbone.norm0.weight" in ours}
        return Origin(model, arguments), ours

    return read


def _mlverse_fcn(tensors: Tensors) -> tuple[Origin, Tensors]:
    ours = rename(tensors, _MLVERSE_FCN)
    model, arguments = _encoder(ours, "fcn", ("tiny", "small", "base"))
    classes, width = ours["classifier.4.weight"].shape[:2]
    aux_width = _rows(ours, "aux_classifier.0.weight")
    return Origin(model, arguments | _head(classes, width, aux_width) | {"output_norms": False}), ours


def _encoder(ours: Tensors, head: str, names: tuple[str, ...]) -> tuple[str, dict[str, Any]]:
    """The variant with the encoder's sizes; sizes that no variant has become options of the tiny one."""
    stem = ours["backbone.downsample_layers.0.0.weight"]
    channels = (
        stem.shape[0],
        *(ours[f"backbone.downsample_layers.{i}.1.weight"].shape[0] for i in (1, 2, 3)),
    )
    depths = tuple(
        len({key.split(".")[3] for key in ours if key.startswith(f"backbone.stages.{i}.")}) for i in range(4)
    )
    arguments: dict[str, Any] = {"in_channels": stem.shape[1]}
    for name in names:
        if SIZES[f"convnext_{name}"] == (channels, depths):
            return f"{head}_convnext_{name}", arguments
    return f"{head}_convnext_tiny", arguments | {"channels": channels, "depths": depths}


def _head(classes: int, width: int, aux_width: int | None) -> dict[str, Any]:
    arguments: dict[str, Any] = {"num_classes": classes, "aux_loss": aux_width is not None}
    usual = {"width": 512, "aux_width": 256}
    return arguments | {
        key: value
        for key, value in (("width", width), ("aux_width", aux_width))
        if value is not None and value != usual[key]
    }


def _rows(tensors: Tensors, key: str) -> int | None:
    return len(tensors[key]) if key in tensors else None


_PYRAMID = "decode_head.psp_modules.0.1.conv.weight"

FAMILIES: tuple[Family, ...] = (
    Family(
        "meta.upernet_convnext",
        "a UPerNet of the ConvNeXt authors (Meta)",
        ("backbone.stages.0.0.dwconv.weight", "backbone.stages.0.0.gamma", _PYRAMID),
        _upernet(dict), dict,
    ),
    Family(
        "mmseg.upernet_convnext",
        "a UPerNet on ConvNeXt of mmsegmentation, or of R's mirror",
        ("backbone.stages.0.0.depthwise_conv.weight", "backbone.stages.0.0.gamma", _PYRAMID),
        _upernet(_from_mmseg), lambda tensors: rename(tensors, _MMSEG, back=True),
    ),
    Family(
        "huggingface.upernet_convnext",
        "a UPerNet on ConvNeXt of Hugging Face",
        ("backbone.encoder.stages.0.layers.0.dwconv.weight", "backbone.hidden_states_norms.stage1.weight", _PYRAMID),
        _upernet(lambda tensors: rename(tensors, _HUGGINGFACE)),
        lambda tensors: rename(tensors, _HUGGINGFACE, back=True),
    ),
    Family(
        "mlverse.upernet_convnext",
        "a UPerNet on ConvNeXt of R's torchvision",
        ("backbone.model.stages.0.0.dwconv.weight", "decode_head.psp_modules.stages.0.1.weight"),
        _upernet(lambda tensors: rename(tensors, _MLVERSE)), lambda tensors: rename(tensors, _MLVERSE, back=True),
        ("backbone.model.norm*",),
    ),
    Family(
        "mlverse.fcn_convnext",
        "an FCN on ConvNeXt of R's torchvision",
        ("backbone.model.stages.0.0.dwconv.weight", "classifier.4.weight"),
        _mlverse_fcn, lambda tensors: rename(tensors, _MLVERSE_FCN, back=True),
        ("backbone.model.norm.*", "backbone.model.head.*"),  # of the classifier that R's encoder still carries
    ),
)  # fmt: skip

"""DeepLab v3+ on Xception by the variable names of TensorFlow's release (research/deeplab, model.ckpt-*).

Weights lie as (height, width, in, out), those of depthwise convolutions as (height, width, channels, 1). The release
concatenates the pyramid as [image pooling, 1x1, three rates], ours has the image pooling last, so the input channels
of the projection move.
"""

from __future__ import annotations

from typing import Any

import torch

from pixelwise.checkpoints.family import Family
from pixelwise.weights.origin import Origin
from pixelwise.weights.renames import Renames, Tensors

MODULE = "xception_module"
UNIT = "separable_conv{j}"
ENTRY = f"entry_flow/block{{i+1}}/unit_1/{MODULE}"
MIDDLE = f"middle_flow/block1/unit_{{i+1}}/{MODULE}"
EXIT = f"exit_flow/block{{i+1}}/unit_1/{MODULE}"

COMMON = (  # their layer; our convolution; our norm
    ("entry_flow/conv1_{i}", "backbone.conv1_{i}.0", "backbone.conv1_{i}.1"),
    *(
        row
        for theirs, ours in ((ENTRY, "entry"), (MIDDLE, "middle"), (EXIT, "exit"))
        for row in (
            (
                f"{theirs}/{UNIT}_depthwise",
                f"backbone.{ours}.{{i}}.conv{{j}}.depthwise",
                f"backbone.{ours}.{{i}}.conv{{j}}.depthwise_norm",
            ),
            (
                f"{theirs}/{UNIT}_pointwise",
                f"backbone.{ours}.{{i}}.conv{{j}}.pointwise",
                f"backbone.{ours}.{{i}}.conv{{j}}.pointwise_norm",
            ),
            (
                f"{theirs}/shortcut",
                f"backbone.{ours}.{{i}}.shortcut.0",
                f"backbone.{ours}.{{i}}.shortcut.1",
            ),
        )
    ),
    ("image_pooling", "aspp.convs.4.1", "aspp.convs.4.2"),
    ("aspp0", "aspp.convs.0.0", "aspp.convs.0.1"),
    ("concat_projection", "aspp.project.0", "aspp.project.1"),
    ("decoder/feature_projection0", "decoder.reduce.0", "decoder.reduce.1"),
    ("logits/semantic", "decoder.logits", "no norm"),
)
SEPARABLE = (
    ("aspp{i}_depthwise", "aspp.convs.{i}.0", "aspp.convs.{i}.1"),
    ("aspp{i}_pointwise", "aspp.convs.{i}.3", "aspp.convs.{i}.4"),
    ("decoder/decoder_conv{i}_depthwise", "decoder.mix.conv{i}.0", "decoder.mix.conv{i}.1"),
    ("decoder/decoder_conv{i}_pointwise", "decoder.mix.conv{i}.3", "decoder.mix.conv{i}.4"),
)
PLAIN = (
    ("aspp{i}", "aspp.convs.{i}.0", "aspp.convs.{i}.1"),
    ("decoder/decoder_conv0/decoder_conv0_{i+1}", "decoder.mix.conv{i}.0", "decoder.mix.conv{i}.1"),
)
NORM = {"gamma": "weight", "beta": "bias", "moving_mean": "running_mean", "moving_variance": "running_var"}
DROPS = ("global_step", "learning_rate", "*/Momentum", "*/ExponentialMovingAverage", "*/Adam", "*/Adam_1")
"""What a training run keeps beside the weights."""


def _tables(separable: bool) -> tuple[Renames, Renames]:
    """Names of layers to our convolutions, and to our norms."""
    rows = COMMON + (SEPARABLE if separable else PLAIN)
    return Renames(*((a, b) for a, b, _ in rows)), Renames(*((a, c) for a, _, c in rows))


def _read(tensors: Tensors) -> tuple[Origin, Tensors]:
    scope = next(key for key in tensors if key.startswith("xception_")).partition("/")[0]
    separable = "aspp1_depthwise/depthwise_weights" in tensors
    width = tensors[f"{scope}/entry_flow/conv1_2/weights"].shape[3]
    arguments: dict[str, Any] = {
        "num_classes": tensors["logits/semantic/weights"].shape[3],
        "in_channels": tensors[f"{scope}/entry_flow/conv1_1/weights"].shape[2],
        "separable": separable,
    }
    if width != 64:
        arguments["width_mult"] = width / 64
    return Origin(f"deeplabv3plus_{scope.replace('_', '')}", arguments), _to_ours(tensors, scope, separable)


def _to_ours(tensors: Tensors, scope: str, separable: bool) -> Tensors:
    convolutions, norms = _tables(separable)
    ours: Tensors = {}
    for key, tensor in tensors.items():
        layer, _, leaf = key.removeprefix(f"{scope}/").rpartition("/")
        if leaf in NORM:
            name, kind = norms.to_ours(layer.removesuffix("/BatchNorm")), NORM[leaf]
        else:
            name = convolutions.to_ours(layer)
            kind = {"weights": "weight", "depthwise_weights": "weight", "biases": "bias"}.get(leaf, "")
            if kind == "weight":
                tensor = (
                    tensor.permute(2, 3, 0, 1) if leaf == "depthwise_weights" else tensor.permute(3, 2, 0, 1)
                )
        if name is None or not kind:
            raise KeyError(key)
        ours[f"{name}.{kind}"] = tensor.contiguous()
    projection = ours["aspp.project.0.weight"]
    pooling = projection.shape[1] // 5
    ours["aspp.project.0.weight"] = torch.cat([projection[:, pooling:], projection[:, :pooling]], dim=1)
    return ours


def _to_theirs(tensors: Tensors) -> Tensors:
    separable = "aspp.convs.1.3.weight" in tensors
    convolutions, norms = _tables(separable)
    middle = sum(
        key.startswith("backbone.middle.") and key.endswith("conv1.depthwise.weight") for key in tensors
    )
    deep = "xception_71" if "backbone.entry.4.conv1.depthwise.weight" in tensors else "xception_65"
    scope = "xception_41" if middle == 8 else deep
    projection = tensors["aspp.project.0.weight"]
    pooling = projection.shape[1] // 5
    projection = torch.cat([projection[:, -pooling:], projection[:, :-pooling]], dim=1)
    theirs: Tensors = {}
    for key, tensor in {**tensors, "aspp.project.0.weight": projection}.items():
        module, _, kind = key.rpartition(".")
        if kind == "num_batches_tracked":
            continue
        leaf: str | None = None
        if (layer := convolutions.to_theirs(module)) is not None:
            depthwise = layer.endswith("_depthwise")
            leaf = "biases" if kind == "bias" else "depthwise_weights" if depthwise else "weights"
            if kind == "weight":
                tensor = tensor.permute(2, 3, 0, 1) if depthwise else tensor.permute(2, 3, 1, 0)
        elif (layer := norms.to_theirs(module)) is not None:
            leaf = "BatchNorm/" + next(their for their, our in NORM.items() if our == kind)
        if layer is None or leaf is None:
            raise KeyError(key)
        name = f"{scope}/{layer}" if module.startswith("backbone.") else layer
        theirs[f"{name}/{leaf}"] = tensor.contiguous()
    return theirs


TENSORFLOW_V3PLUS = Family(
    "tensorflow.deeplabv3plus",
    "DeepLab v3+ on Xception-41, 65 or 71, TensorFlow's names",
    (
        "xception_*/entry_flow/conv1_1/weights",
        "xception_*/exit_flow/block2/*/depthwise_weights",
        "image_pooling/weights",
        "concat_projection/weights",
        "decoder/feature_projection0/weights",
        "logits/semantic/weights",
    ),
    _read,
    _to_theirs,
    DROPS,
)
FAMILIES = (TENSORFLOW_V3PLUS,)

"""U-Net++'s checkpoints: the variables of the authors' Keras network, as a dictionary of arrays.

Layers are called conv{level}{column}_{1|2}, up{level}{column} and output_{1..4}, level and column from 1.
Accepted are the variable's name ("conv11_1/kernel:0"), its path in a weights file
("conv11_1/conv11_1/kernel:0"), and the lists that `layer.get_weights()` gives ({"conv11_1": [kernel, bias]});
the first is written.
"""

from __future__ import annotations

import re
from typing import Any

from pixelwise.checkpoints.family import Family
from pixelwise.models.unetplusplus import FILTERS
from pixelwise.weights.origin import Origin
from pixelwise.weights.renames import Renames, Tensors, rename

KERAS = Renames(
    *(
        (f"{theirs}/{leaf}:0", f"{ours}.{our_leaf}")
        for theirs, ours in (
            ("conv{i+1}1_{step:1|2}", "nodes.x{i}0.conv{step}"),
            ("conv{i+1}{j+1}_{step:1|2}", "nodes.x{i}{j}.unit.conv{step}"),
            ("up{i+1}{j+1}", "nodes.x{i}{j}.up"),
            ("output_{j}", "heads.{j}"),
        )
        for leaf, our_leaf in (("kernel", "weight"), ("bias", "bias"))
    )
)


def _canonical(tensors: Tensors) -> Tensors:
    """Every accepted spelling to "layer/kernel:0" and "layer/bias:0"."""
    blobs = {"0": "kernel", "1": "bias"}
    renamed: Tensors = {}
    for key, tensor in tensors.items():
        *_, layer, leaf = ["", *re.split(r"[/.]", key.removesuffix(":0"))]
        renamed[f"{layer}/{blobs.get(leaf, leaf)}:0"] = tensor
    return renamed


def _read(tensors: Tensors) -> tuple[Origin, Tensors]:
    """Kernels (h, w, in, out), and (h, w, out, in) where up-sampling: either way reversed to torch's order."""
    named = _canonical(tensors)
    levels = [i for i in range(1, 10) if f"conv{i}1_1/kernel:0" in named]
    filters = [named[f"conv{i}1_1/kernel:0"].shape[-1] for i in levels]
    last = named[f"output_{len(levels) - 1}/kernel:0"]
    arguments: dict[str, Any] = {
        "num_classes": last.shape[-1],
        "in_channels": named["conv11_1/kernel:0"].shape[2],
    }
    if filters != list(FILTERS):
        arguments["filters"] = filters
    supervised = len(levels) > 2 and "output_1/kernel:0" in named
    ours = {k: t.permute(3, 2, 0, 1) if k.endswith("weight") else t for k, t in rename(named, KERAS).items()}
    return Origin("unetplusplus_ds" if supervised else "unetplusplus", arguments), ours


def _to_theirs(tensors: Tensors) -> Tensors:
    renamed = rename(tensors, KERAS, back=True)
    return {key: t.permute(2, 3, 1, 0) if key.endswith("kernel:0") else t for key, t in renamed.items()}


FAMILIES = (
    Family(
        "keras.unetplusplus",
        "U-Net++, the authors' release for Keras",
        ("*conv11_1[/.]*", "*conv12_1[/.]*", "*up12[/.]*", "*output_[1-9][/.]*"),
        _read,
        _to_theirs,
        drops=("training/*", "optimizer_weights/*"),
    ),
)

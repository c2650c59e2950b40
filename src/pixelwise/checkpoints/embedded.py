"""The networks of the models that ship in the package, with their weights, read back from their ONNX files."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from importlib import resources
from typing import Any

import onnx
import torch
from onnx import numpy_helper
from torch import Tensor, nn

from pixelwise import catalog, models
from pixelwise.catalog.entry import name_of
from pixelwise.errors import InputError, refuse_unknown
from pixelwise.weights import store
from pixelwise.weights.card import CARD_KEY, Card

OUTER = "network."
"""What the exporter puts before the names of a network's tensors."""


def embedded(name: str, arguments: Mapping[str, Any]) -> nn.Module:
    """The network of "everyday" or "nuclei", trained, with its card, in evaluation mode.

    arguments: those of its builder, which can say nothing else than what the network is. Its logits are those of the
    ONNX file to rounding. An export has the batch norms multiplied into the convolutions before them; here these norms
    only add a bias, their mean is 0 and their variance 1. So train it with the norms frozen, or after
    `recipes.renormalise`.

    Raises TypeError for an unknown argument, InputError for one that asks for another network.
    """
    row = catalog.entry(name)
    builder, made_by = models.builder_of(name), name_of(row.builder)
    defaults = {key: parameter.default for key, parameter in inspect.signature(builder).parameters.items()}
    refuse_unknown(f"{name} has no argument", arguments, defaults)
    trained = {**defaults, **row.arguments, "weights": "DEFAULT"}
    for key, value in arguments.items():
        if value != trained[key] and not (key == "weights" and value is True):
            other = ", ".join(
                (repr(made_by), *(f"{k}={v!r}" for k, v in {**row.arguments, **arguments}.items()))
            )
            raise InputError(
                f"{name} is a trained model, whose {key} is {trained[key]!r}, got {value!r}; for an untrained network "
                f"of its kind, say create_model({other})"
            )
    network = builder(**row.arguments)
    assert row.asset is not None
    file = onnx.load_from_string((resources.files("pixelwise") / "assets" / row.asset).read_bytes())
    tensors = {
        tensor.name.removeprefix(OUTER): torch.from_numpy(numpy_helper.to_array(tensor).copy())
        for tensor in file.graph.initializer
        if tensor.name.startswith(OUTER)
    }
    store.load_into(network, unfolded(network, tensors), source=f"the weights of {name}")
    said = {entry.key: entry.value for entry in file.metadata_props}
    vars(network)["card"] = Card.from_json(said[CARD_KEY])
    return network.eval()


def unfolded(network: nn.Module, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The state dict that gives a network the logits of its export.

    tensors: the export's, by the network's names. "X.weight_bias" is the bias that a convolution X, which has none, has
    got from the norm behind it; the norm is left nothing to do but to add it.
    """
    state = {key: tensor for key, tensor in tensors.items() if not key.endswith(".weight_bias")}
    for key, bias in tensors.items():
        if not key.endswith(".weight_bias"):
            continue
        layers, _, place = key.removesuffix(".weight_bias").rpartition(".")
        norm = f"{layers}.{int(place) + 1}"
        layer = network.get_submodule(norm)
        assert isinstance(layer, nn.BatchNorm2d), norm
        state |= {
            f"{norm}.weight": torch.full_like(bias, (1 + layer.eps) ** 0.5),
            f"{norm}.bias": bias,
            f"{norm}.running_mean": torch.zeros_like(bias),
            f"{norm}.running_var": torch.ones_like(bias),
        }
    return state

"""Networks by name, with random weights: `create_model`, and `build` for what a file says about its network."""

from __future__ import annotations

import inspect
from typing import Any

import torch
from torch import nn

from pixelwise import models
from pixelwise.catalog import CATALOG
from pixelwise.decoders import DECODERS
from pixelwise.decoders.compose import compose
from pixelwise.errors import WeightsError
from pixelwise.weights.origin import WEIGHTS_ARGUMENTS, Origin, keep_beside


def create_model(name: str, **arguments: Any) -> nn.Module:
    """A network by its name in `pixelwise.list_models()`, or, with `encoder=`, a decoder on an encoder.

    Without `encoder` the arguments go to the network's builder; the usual ones are num_classes and in_channels.
    With it, name is one of `pixelwise.decoders.DECODERS`, encoder one of `pixelwise.list_encoders()`, and the
    arguments are those of `pixelwise.decoders.compose.compose` and the decoder's own:

    >>> create_model("fpn", encoder="convnext_tiny", num_classes=11, in_channels=4)      # doctest: +SKIP

    Weights are random unless one asks otherwise.
    Raises UnknownNameError for an unknown name and TypeError for an unknown argument, each with the nearest.
    """
    if arguments.get("encoder") is not None:
        return compose(name, **arguments)
    if name in DECODERS and name not in CATALOG:
        raise TypeError(
            f"{name} is a decoder and needs an encoder: create_model({name!r}, encoder='resnet34')"
        )
    arguments.pop("encoder", None)
    network: nn.Module = models.builder_of(name)(**arguments)
    return network


TIMM_FETCHES = ("pretrained", "pretrained_cfg", "pretrained_cfg_overlay", "checkpoint_path", "cache_dir")
"""Options of timm that open files and addresses."""


def build(origin: Origin) -> nn.Module:
    """The network of that origin with random weights; nothing is fetched."""
    arguments = {name: value for name, value in origin.arguments.items() if name not in WEIGHTS_ARGUMENTS}
    for name in TIMM_FETCHES:
        if name in (arguments.get("encoder_options") or {}):
            raise WeightsError(
                f"the encoder of {origin} would take weights from elsewhere ({name}), which no file may ask for"
            )
    if arguments.get("encoder") is not None:
        arguments["encoder_weights"] = None
    elif "weights_backbone" in inspect.signature(models.builder_of(origin.model)).parameters:
        arguments["weights_backbone"] = None  # torchvision's builders would fetch ImageNet's
    network = create_model(origin.model, **arguments)
    if origin.beside:
        keep_beside(network, origin.beside)
    return network


def outline(origin: Origin) -> nn.Module:
    """The network of that origin without values: names, shapes and layers, on "meta"."""
    with torch.device("meta"):
        return build(origin)

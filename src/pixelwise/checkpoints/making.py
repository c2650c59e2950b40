"""Networks by name, with random weights: `create_model`, and `build` for what a file says about its network."""

from __future__ import annotations

import inspect
import threading
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import nn
from torch.nn.modules import module

from pixelwise import models
from pixelwise.catalog import CATALOG
from pixelwise.decoders import DECODERS, load_decoder
from pixelwise.decoders.compose import arguments_of, compose
from pixelwise.errors import WORDS, WeightsError, refuse_unknown
from pixelwise.weights.origin import TIMM_FETCHES, WEIGHTS_ARGUMENTS, Origin, keep_beside


def create_model(name: str, **arguments: Any) -> nn.Module:
    """A network by its name in `pixelwise.list_models()`, or, with `encoder=`, a decoder on an encoder.

    Without `encoder` the arguments go to the network's builder; the usual ones are num_classes and in_channels.
    With it, name is one of `pixelwise.decoders.DECODERS`, encoder one of `pixelwise.list_encoders()`, and the
    arguments are those of `pixelwise.decoders.compose.compose` and the decoder's own:

    >>> create_model("fpn", encoder="convnext_tiny", num_classes=11, in_channels=4)      # doctest: +SKIP

    Weights are random and nothing is read or fetched, also where the builders of `pixelwise.models`, as torchvision's,
    would fetch a backbone's, unless one asks for them: with `weights`, `weights_backbone` or `encoder_weights`, or by
    the name of a model that ships trained in the package, "everyday" or "nuclei" (`checkpoints.embedded`).

    Raises UnknownNameError for an unknown name and TypeError for an unknown argument, each with the nearest or, for a
    word of another library, with ours; InputError for a network that is none of the trained model.
    """
    if arguments.get("encoder") is not None:
        return compose(name, **arguments)
    if name in DECODERS and any("encoder" in WORDS.get(key, ()) for key in arguments):
        refuse_unknown("create_model() has no argument", arguments, arguments_of(name))
    if name in DECODERS and name not in CATALOG:
        raise TypeError(
            f"{name} is a decoder and needs an encoder: create_model({name!r}, encoder='resnet34')"
        )
    arguments.pop("encoder", None)
    if name in CATALOG and CATALOG[name].asset is not None:
        from pixelwise.checkpoints.embedded import embedded

        return embedded(name, arguments)
    builder = models.builder_of(name)
    if "weights_backbone" in inspect.signature(builder).parameters and "pretrained_backbone" not in arguments:
        arguments.setdefault("weights_backbone", None)  # torchvision's builders would fetch ImageNet's
    network: nn.Module = builder(**arguments)
    return network


def build(origin: Origin) -> nn.Module:
    """The network of that origin with random weights; nothing is fetched."""
    arguments = {name: value for name, value in origin.arguments.items() if name not in WEIGHTS_ARGUMENTS}
    for name in TIMM_FETCHES:
        options = arguments.get("encoder_options") or {}
        if isinstance(options, Mapping) and name in options:
            raise WeightsError(
                f"the encoder of {origin} would take weights from elsewhere ({name}), which no file may ask for"
            )
    if (encoder := arguments.get("encoder")) is not None:
        if not isinstance(encoder, str) or ":" in encoder or "/" in encoder.removeprefix("timm/"):
            raise WeightsError(
                f"the encoder of {origin.model} is {encoder!r:.80}, which lies elsewhere; expected a name of an encoder"
            )
        arguments["encoder_weights"] = None
    network = create_model(origin.model, **arguments)
    if origin.beside:
        keep_beside(network, origin.beside)
    return network


SHOWN_OR_FOR_TRAINING = (
    "num_classes", "in_channels", "aux_loss", "encoder",
    "drop_path", "dropout", "encoder_dropout", "attention_dropout", "layer_scale",
)  # fmt: skip
"""Arguments that shapes show, or that change training alone."""


def with_defaults(origin: Origin) -> dict[str, Any]:
    """The arguments of an origin and the defaults of those that it leaves out."""
    composed = "encoder" in origin.arguments
    make = load_decoder(origin.model) if composed else models.builder_of(origin.model)
    parameters = inspect.signature(make).parameters
    defaults = {
        name: parameter.default for name, parameter in parameters.items() if name not in WEIGHTS_ARGUMENTS
    }
    whole = defaults | origin.arguments
    return {name: tuple(value) if isinstance(value, list) else value for name, value in whole.items()}


def outline(origin: Origin) -> nn.Module:
    """The network of that origin without values: names, shapes and layers, on "meta"."""
    with torch.device("meta"):
        return build(origin)


@contextmanager
def plausible(tensors: int) -> Iterator[None]:
    """While the block runs, this thread makes no networks with far more parts than there are tensors for them:
    WeightsError, before time and memory are gone. Those that are put together twice, or cut to a part, are not so
    many."""
    most, thread, made = 16 * tensors + 5_000, threading.get_ident(), 0

    def count(*_: Any) -> None:
        nonlocal made
        made += threading.get_ident() == thread
        if made > most:
            raise WeightsError(
                f"the network has more than {most:,} parts and the file {tensors:,} tensors; what it says of its "
                "network is wrong"
            )

    with ExitStack() as stack:
        for register in (
            module.register_module_parameter_registration_hook,
            module.register_module_buffer_registration_hook,
            module.register_module_module_registration_hook,
        ):
            stack.callback(register(count).remove)
        yield

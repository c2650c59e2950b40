"""Encoders of segmentation_models.pytorch (SMP): which tensors its files hold.

Names are the same, but SMP's files also hold layers that no feature passes through (the classifier's last convolution,
stages beyond the depth that a decoder asked for), which ours do not have.

Names here are without the prefix "encoder.".
"""

from __future__ import annotations

import functools
import json
import math
import re
import warnings
import zlib
from collections.abc import Container

import torch
from torch import Tensor

from pixelwise.decoders.needs import NEEDS
from pixelwise.encoders import create_encoder, names
from pixelwise.weights.origin import Origin
from pixelwise.weights.renames import Tensors


def to_ours(name: str, tensors: Tensors, wanted: Container[str]) -> tuple[Tensors, Tensors]:
    """Tensors of SMP's encoder `name`: those of our encoder, and those that it has no use for.

    wanted: the keys of our encoder, `encoder.state_dict()`. Spare are tensors of layers that SMP has in every such
    file, and our encoder of that depth has not; any other stays, for the strict loading to complain of.
    """
    return without_spare(tensors, whole(name), wanted)


def without_spare(tensors: Tensors, known: Container[str], wanted: Container[str]) -> tuple[Tensors, Tensors]:
    """The tensors, and apart from them those that are `known` to be SMP's and not `wanted` by our encoder."""
    spare = {key: tensor for key, tensor in tensors.items() if key in known and key not in wanted}
    return {key: tensor for key, tensor in tensors.items() if key not in spare}, spare


def fresh(key: str, like: Tensor) -> Tensor:
    """What a layer begins with, for layers that are not there: He's random weights, which are the same for the same
    key, and norms that change nothing. Whoever takes the encoder out of a file can train it then."""
    shape, end = like.shape, key.rpartition(".")[2]
    if like.is_floating_point() and len(shape) > 1:
        draw = torch.Generator().manual_seed(zlib.crc32(key.encode()))
        spread = (2 / (shape[0] * math.prod(shape[2:]))) ** 0.5
        return torch.empty(shape, dtype=like.dtype, device="cpu").normal_(0, spread, generator=draw)
    ones = end in ("weight", "running_var")
    return (torch.ones if ones else torch.zeros)(shape, dtype=like.dtype, device="cpu")


def to_theirs(name: str, tensors: Tensors, *, in_channels: int = 3, depth: int = 5) -> Tensors:
    """The way back, complete: layers that SMP has, and does not use, are `fresh`; its strict loading asks for them."""
    shapes = whole(name, in_channels, depth)
    complete = {key: tensors[key] if key in tensors else fresh(key, shapes[key]) for key in shapes}
    complete |= {key: tensor for key, tensor in tensors.items() if key not in complete}
    return complete


@functools.cache
def whole(name: str, in_channels: int = 3, depth: int = 5) -> Tensors:
    """Everything that SMP's files hold of encoder `name`, without values.

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


def timm_whole(origin: Origin) -> Tensors:
    """All tensors that SMP's "tu-" encoder has in a network of that origin, without values, under timm's names."""
    arguments = origin.arguments
    options = {key: v for key, v in (arguments.get("encoder_options") or {}).items() if key != "taps"}
    depth = 0 if origin.model == "dpt" else arguments.get("encoder_depth") or 5
    name = names.resolve(arguments["encoder"]).network
    return _timm_tensors(name, arguments.get("in_channels", 3), depth, json.dumps(options))


@functools.cache
def _timm_tensors(name: str, in_channels: int, depth: int, options: str) -> Tensors:
    """depth 0: the whole network."""
    import timm

    asked = json.loads(options)
    with warnings.catch_warnings(), torch.device("meta"):
        warnings.simplefilter("ignore", UserWarning)
        if depth:
            info = timm.create_model(name, features_only=True, **asked).feature_info
            strides = zip(info.out_indices, info.reduction(), strict=True)
            asked |= {"features_only": True, "out_indices": [i for i, s in strides if s <= 2**depth]}
        network = timm.create_model(name, in_chans=in_channels, **asked)
        return {f"model.{key}": tensor for key, tensor in network.state_dict().items()}


def flat(key: str, known: Container[str]) -> str:
    """timm's name of a tensor in a network that is taken apart into its stages: "layers.0" becomes "layers_0"."""
    new = re.sub(r"^model\.([a-z]+)\.(\d+)\.", r"model.\1_\2.", key)
    return new if key not in known and new in known else key


def own_names(origin: Origin) -> frozenset[str]:
    """The names of all tensors that our encoder has in a network of that origin; SMP's may have more."""
    needs, arguments = NEEDS[origin.model], origin.arguments
    depth = arguments.get("encoder_depth") or (5 if needs.tokens else needs.depth)
    return _own_names(arguments["encoder"], depth, json.dumps(arguments.get("encoder_options") or {}))


@functools.cache
def _own_names(name: str, depth: int, options: str) -> frozenset[str]:
    with torch.device("meta"):
        return frozenset(create_encoder(name, depth=depth, **json.loads(options)).state_dict())


def channels(name: str, depth: int) -> tuple[int, ...]:
    """The channels of the features that our encoder `name` gives at this depth."""
    with torch.device("meta"):
        found: tuple[int, ...] = create_encoder(name, depth=depth).channels  # type: ignore[assignment]
    return found

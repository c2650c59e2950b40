"""Encoders of segmentation_models.pytorch (SMP): their names of tensors to ours and back.

Most are the same: both are torchvision's or timm's. Two families differ: EfficientNet (SMP's own, a port of
TensorFlow's) and MobileOne (as its authors released it). SMP's files also hold layers that no feature passes through
(the classifier's last convolution, stages beyond the depth that a decoder asked for), which ours do not have.

Names here are without the prefix "encoder.".
"""

from __future__ import annotations

import functools
from collections.abc import Iterable

import torch

from pixelwise.encoders import names
from pixelwise.encoders.smp_tensors import table
from pixelwise.weights.renames import Tensors


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

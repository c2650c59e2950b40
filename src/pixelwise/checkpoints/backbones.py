"""ImageNet weights for an encoder: a file of any family that fits it, or torchvision's by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

from torch import nn
from torchvision.models import AlexNet_Weights, GoogLeNet_Weights, VGG16_Weights

from pixelwise.checkpoints.families import fcn, mit, segnet
from pixelwise.checkpoints.family import Family
from pixelwise.checkpoints.reading import read
from pixelwise.encoders.pretrained import for_input_channels
from pixelwise.errors import WeightsError
from pixelwise.weights import store
from pixelwise.weights.enums import state_dict_of, verify
from pixelwise.weights.renames import Tensors
from pixelwise.weights.store import is_path

M = TypeVar("M", bound=nn.Module)


class Kind(NamedTuple):
    """families: of files that fit. enum: torchvision's weights, or None. placed: the encoder and the tensors of one
    that fits to those that are loaded, where that is not all of them and nothing else."""

    families: Sequence[Family]
    enum: Any = None
    placed: Callable[[nn.Module, Tensors], Tensors] | None = None


ENCODERS = {
    "vgg16": Kind(fcn.ENCODERS["vgg16"], VGG16_Weights),
    "caffenet": Kind(fcn.ENCODERS["caffenet"]),
    "alexnet": Kind(fcn.ENCODERS["alexnet"], AlexNet_Weights),
    "googlenet_caffe": Kind(fcn.ENCODERS["googlenet_caffe"]),
    "googlenet": Kind(fcn.ENCODERS["googlenet"], GoogLeNet_Weights),
    "mit": Kind(mit.BACKBONES),
    "segnet": Kind(fcn.ENCODERS["vgg16"], VGG16_Weights, segnet.from_vgg16),
}
"""Kind of encoder: whose weights it takes."""


def load_encoder(encoder: M, kind: str, weights: Any, *, progress: bool = True) -> M:
    """The encoder, filled with `weights`; see `read_encoder`. For another number of input channels than three they are
    shared out, see `layers.with_input_channels`.

    Raises WeightsError for missing or surplus tensors and for numbers that are not finite (torchvision's
    IMAGENET1K_FEATURES have no classifier), and what `read_encoder` raises.
    """
    row = ENCODERS[kind]
    tensors, source = read_encoder(row.families, weights, enum=row.enum, progress=progress)
    if row.placed is not None:
        tensors = row.placed(encoder, tensors)
    broken = next((key for key, tensor in tensors.items() if not tensor.isfinite().all()), None)
    if broken is not None:
        raise WeightsError(f"{source}: {broken} holds no finite numbers; use weights of the whole classifier")
    store.load_into(encoder, for_input_channels(tensors, encoder.state_dict()), source=source)
    return encoder


def read_encoder(
    families: Sequence[Family], weights: Any, *, enum: Any = None, progress: bool = True
) -> tuple[Tensors, str]:
    """The tensors of an encoder under our names, and what to call them in an error.

    families: those that fit. weights: the path of a checkpoint, a dictionary of names and arrays, or a member (or
    its name) of `enum`, torchvision's weights for this encoder, which is fetched; enum None: there are none.

    Raises WeightsError for weights of another network, TypeError and KeyError as `verify`.
    """
    if enum is None and not (isinstance(weights, Mapping) or is_path(weights)):
        known = " or ".join(family.says for family in families)
        raise WeightsError(
            f"no weights of this encoder can be fetched, expected the path of a file ({known}), got {weights!r}"
        )
    tensors, source = _read(weights, enum, progress)
    family = next((f for f in families if f.matches(tensors) == len(f.marks)), None)
    if family is None:
        known = " or ".join(family.says for family in families)
        raise WeightsError(f"{source} are not for this encoder, expected those of {known}")
    return family.interpret(tensors)[1], source


def _read(weights: Any, enum: Any, progress: bool) -> tuple[Tensors, str]:
    if isinstance(weights, Mapping):
        return read(weights), "the given weights"
    if is_path(weights):
        return read(weights), f"the weights {weights}"
    member = verify(enum, weights)
    assert member is not None
    return state_dict_of(member.url, progress=progress), str(member)

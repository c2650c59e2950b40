"""Checkpoints of anybody: recognised by their keys, renamed, and loaded with nothing missing or left over."""

from __future__ import annotations

import functools
import importlib
import pkgutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import nn

from pixelwise import catalog
from pixelwise.checkpoints import families as files
from pixelwise.checkpoints.family import Family, among
from pixelwise.checkpoints.huggingface import folder as huggingface
from pixelwise.checkpoints.making import SHOWN_OR_FOR_TRAINING, build, outline, plausible, with_defaults
from pixelwise.checkpoints.reading import Source, own_card, own_origin, read
from pixelwise.checkpoints.smp import state_dict
from pixelwise.checkpoints.smp import tensors as smp
from pixelwise.checkpoints.smp.folder import read_config
from pixelwise.errors import PixelwiseError, WeightsError, first_line
from pixelwise.weights import store
from pixelwise.weights.origin import Origin, keep_beside
from pixelwise.weights.renames import Tensors


@functools.cache
def families() -> tuple[Family, ...]:
    """Every family of checkpoints that can be read: those of each file in `families/`, and SMP's."""
    found: list[Family] = []
    for module in sorted(info.name for info in pkgutil.iter_modules(files.__path__)):
        found.extend(importlib.import_module(f"pixelwise.checkpoints.families.{module}").FAMILIES)
    return (*found, *state_dict.FAMILIES)


def recognise(tensors: Tensors) -> Family:
    """The family whose marks are all among the keys; of several, the one with the most marks.

    Raises WeightsError with the families that came nearest, and the first mark that each of them misses.
    """
    matches = {family: family.matches(tensors) for family in families()}
    whole = [family for family, count in matches.items() if count == len(family.marks)]
    if whole:
        return max(whole, key=lambda family: len(family.marks))
    near = sorted(matches, key=lambda family: -matches[family] / len(family.marks))[:3]
    near = [family for family in near if matches[family]]
    words = "; ".join(f"{family.says} would also have {_lacks(family, tensors)!r}" for family in near)
    raise WeightsError(
        f"these {len(tensors)} tensors (first: {next(iter(tensors), 'none')!r}) belong to no family that is known"
        + (f"; nearest: {words}" if near else "; see docs/models.md for those that are")
    )


def from_checkpoint(source: Source, *, allow_pickle: bool = False) -> nn.Module:
    """The network that a checkpoint belongs to, with its weights, in evaluation mode.

    source: a file (safetensors or torch), a folder as Hugging Face and SMP write it, or a dictionary of names
    and tensors or arrays. Architecture, variant, classes and input channels are read off names and shapes, what they do
    not show off the folder's config.json. allow_pickle: also read files that hold code; only for those whose maker you
    trust.

    Raises WeightsError when the family is not known, a tensor is missing, surplus or of the wrong shape, or a
    configuration asks for what our networks cannot be.
    """
    origin, said = own_origin(source), "the file"
    folder = huggingface.open_folder(source) if origin is None else None
    tensors = read(source, allow_pickle=allow_pickle)
    try:
        if origin is None:
            family = _folder_of_smp(source) or recognise(tensors)
            (origin, tensors), said = family.interpret(tensors), family.says
            if folder is None:
                huggingface.say_what_is_open(family.name, origin)
            else:
                origin = folder.origin(family.name, said, origin)
        with plausible(len(tensors)):
            store.fitting(outline(origin), tensors, source=said)  # before memory is taken for it
        network = build(origin)
    except PixelwiseError:
        raise
    except Exception as error:  # whatever a builder meets in arguments that nobody has looked at
        raise WeightsError(f"{said} is of a network that cannot be built: {first_line(error)}") from error
    store.load_into(network, tensors, source=said)
    _bring_card(network, source, folder)
    return network.eval()


def load_checkpoint(network: nn.Module, source: Source, *, allow_pickle: bool = False) -> None:
    """Load a checkpoint of any known family, or in our own names, into an existing network, strictly."""
    theirs = own_origin(source)
    folder = huggingface.open_folder(source) if theirs is None else None
    tensors, origin = read(source, allow_pickle=allow_pickle), vars(network).get("origin")
    tensors = store.under_names_of(network, tensors)
    beside: Mapping[str, Any] = {}
    if folder is not None and isinstance(origin, Origin):
        folder.check(origin)
    if theirs is not None and isinstance(origin, Origin) and theirs.model == origin.model:
        _refuse_another_make(theirs, origin, source)
    if set(tensors) != set(network.state_dict()):
        family = recognise(tensors)
        if isinstance(origin, Origin) and family.name == f"smp.{origin.model}":
            family = replace(family, read=functools.partial(smp.read_for, network))
        found, tensors = family.interpret(tensors)
        beside = found.beside
    store.load_into(network, tensors, source="the checkpoint")
    _bring_card(network, source, folder)
    if beside and isinstance(origin, Origin):
        keep_beside(network, beside)


def _refuse_another_make(theirs: Origin, own: Origin, source: Source) -> None:
    """Raise WeightsError where a network was built otherwise than the one in the file, which no shape need show."""
    there, here = with_defaults(theirs), with_defaults(own)
    for name in sorted(there.keys() & here.keys()):
        if name not in SHOWN_OR_FOR_TRAINING and there[name] != here[name]:
            raise WeightsError(
                f"{source} is of a network with {name}={there[name]!r}, this one has {here[name]!r}; build it with "
                "that, or open the file with from_checkpoint"
            )


def _bring_card(network: nn.Module, source: Source, folder: huggingface.Folder | None) -> None:
    """Let the card of the weights go with the network (`catalog.card_for`), and that of earlier weights no longer."""
    vars(network).pop("card", None)
    card = own_card(source)
    if folder is not None:
        origin = vars(network).get("origin")
        known = origin if isinstance(origin, Origin) else Origin(type(network).__name__)
        card = catalog.of_network(folder.card(known), network)
    if card is not None:
        vars(network)["card"] = card


def _folder_of_smp(source: Source) -> Family | None:
    """How a folder of SMP is read, whose `config.json` says what a bare state dict leaves open."""
    if isinstance(source, Mapping) or not Path(source).is_dir():
        return None
    config = read_config(source)
    if config is None:
        return None
    says = f"SMP's {config['_model_class']} in the folder {source}"
    return Family("smp.folder", says, (), functools.partial(smp.read, config))


def _lacks(family: Family, tensors: Tensors) -> str:
    return next(mark for mark in family.marks if not among(mark, tensors))

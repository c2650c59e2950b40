"""A network to a file: ours, with its card and origin, or in the names of a family of checkpoints."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import nn

from pixelwise import catalog
from pixelwise.checkpoints.loading import families, from_checkpoint
from pixelwise.checkpoints.making import outline
from pixelwise.checkpoints.reading import ORIGIN_KEY, Source
from pixelwise.checkpoints.smp import folder as smp
from pixelwise.checkpoints.writing import TENSOR_FILES, write_tensors
from pixelwise.errors import InputError, UnknownNameError
from pixelwise.layers import behind
from pixelwise.weights.card import CARD_KEY, Card
from pixelwise.weights.origin import Origin, origin_of


def save(
    network: nn.Module, path: str | os.PathLike[str], *, card: Card | None = None, overwrite: bool = True
) -> None:
    """Write a network as safetensors, with its card and its origin, so that `from_checkpoint` makes it again anywhere.

    card: None for `catalog.card_for(network)`. A head that was replaced by one for another number of classes is
    written with that number. What could not be opened again is not written.

    Raises InputError for a name that does not end in .safetensors, a network whose origin is not known or that was
    changed since it was built, and for arguments that cannot be written; OutputError (see `files.writing`).
    """
    network = behind(network)
    if Path(path).suffix != ".safetensors":
        raise InputError(
            f"a network is saved as safetensors, expected a name that ends in .safetensors, got {os.fspath(path)!r}"
        )
    write_tensors(network.state_dict(), path, overwrite=overwrite, says=header(network, card))


def header(network: nn.Module, card: Card | None = None) -> dict[str, str]:
    """What stands beside a network's tensors, so that they can be opened anywhere; raises as `save`."""
    said = _written(_origin_as_it_is(network))
    card = catalog.card_for(network) if card is None else catalog.of_network(card, network)
    return {CARD_KEY: card.to_json(), ORIGIN_KEY: said}


def convert_file(
    source: Source, out: str | os.PathLike[str], *, to: str | None = None, allow_pickle: bool = False,
    overwrite: bool = False,
) -> str:  # fmt: skip
    """Rewrite a checkpoint; returns a sentence that says what was done.

    to: None for our own safetensors with a card; else the name of a family, whose names the tensors then get
    (safetensors, or a torch file when `out` ends in .pth, .pt or .bin). "smp" also writes a folder as SMP does, with
    its config.json, when `out` has no such ending.
    """
    suffix = Path(out).suffix.lower()
    if suffix == ".onnx":
        raise InputError(
            f"convert writes weights, and {os.fspath(out)!r} is the name of an ONNX file; use pixelwise export"
        )
    if to is not None and suffix not in TENSOR_FILES and not (to == "smp" and suffix == ""):
        raise InputError(
            f"expected a name that ends in {', '.join(TENSOR_FILES[:-1])} or {TENSOR_FILES[-1]}, got {os.fspath(out)!r}"
        )
    network = from_checkpoint(source, allow_pickle=allow_pickle)
    origin = origin_of(network)
    if to is None:
        save(network, out, overwrite=overwrite)
        return f"{origin.model} with {sum(p.numel() for p in network.parameters()):,} parameters"
    if to == "smp" or to.startswith("smp."):
        return smp.write(network, out, overwrite=overwrite)
    by_name = {family.name: family for family in families()}
    if to not in by_name:
        raise UnknownNameError("family", to, [*by_name, "smp"])
    family = by_name[to]
    if family.to_theirs is None:
        raise InputError(f"{family.says}: reading is known, writing is not")
    write_tensors(family.to_theirs(network.state_dict()), out, overwrite=overwrite)
    return f"{origin.model} in the names of {family.says}, {smp.NAMELESS}"


def _written(origin: Origin) -> str:
    """An origin as our files have it; InputError, which names the argument, for one that JSON cannot hold."""
    for name, value in origin.arguments.items():
        try:
            json.dumps(value)
        except (TypeError, ValueError) as error:
            raise InputError(
                f"{origin} was built with {name}={value!r}, which a file cannot hold; build it with numbers, names, "
                "lists or dictionaries of them"
            ) from error
    return json.dumps({"model": origin.model, "arguments": origin.arguments})


def _origin_as_it_is(network: nn.Module) -> Origin:
    """The origin that makes this network from a file, its head's classes being counted; InputError if none does."""
    origin = origin_of(network)
    misfit = _misfit(network, origin)
    if misfit is None:
        return origin
    try:
        classes: Any = getattr(network, "num_classes", None)
    except IndexError:  # there is no convolution left in its head to count them by
        classes = None
    if isinstance(classes, int) and classes != origin.arguments.get("num_classes"):
        counted = replace(origin, arguments={**origin.arguments, "num_classes": classes})
        if _misfit(network, counted) is None:
            return counted
    raise InputError(
        f"this {origin} is not as it was built, so its file could not be opened: {misfit}; build it with the "
        "arguments that make it as it is, and copy its tensors into that"
    )


def _misfit(network: nn.Module, origin: Origin) -> str | None:
    """What the network of that origin, as read from a file, has otherwise: a tensor, or a layer as it prints itself;
    None if there is nothing."""
    found = {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}
    anew = outline(Origin(**json.loads(_written(origin))))
    built = anew.state_dict()
    for name, tensor in built.items():
        if name not in found:
            return f"{name} is missing"
        if found[name] != tuple(tensor.shape):
            return f"{name} has the shape {found[name]}, built anew {tuple(tensor.shape)}"
    for name in found:
        if name not in built:
            return f"{name} is not in it when it is built anew"
    for own, other in zip(str(network).splitlines(), str(anew).splitlines(), strict=False):
        if own != other:
            return f"it has {own.strip()} where it is built anew with {other.strip()}"
    return None

"""A network to a file: ours, with its card and origin, or in the names of a family of checkpoints."""

from __future__ import annotations

import json
import os

from torch import nn

from pixelwise import catalog
from pixelwise.checkpoints.loading import families, from_checkpoint
from pixelwise.checkpoints.reading import ORIGIN_KEY, Source
from pixelwise.checkpoints.smp import folder as smp
from pixelwise.checkpoints.writing import write_tensors
from pixelwise.errors import InputError, UnknownNameError
from pixelwise.weights.card import CARD_KEY, Card
from pixelwise.weights.origin import origin_of


def save(network: nn.Module, path: str | os.PathLike[str], *, card: Card, overwrite: bool = True) -> None:
    """Write a network as safetensors, with its card and what `from_checkpoint` needs to make it again.

    Raises InputError for a network whose origin is not known.
    """
    origin = origin_of(network)
    said = json.dumps({"model": origin.model, "arguments": origin.arguments})
    says = {CARD_KEY: card.to_json(), ORIGIN_KEY: said}
    write_tensors(network.state_dict(), path, overwrite=overwrite, says=says)


def convert_file(
    source: Source, out: str | os.PathLike[str], *, to: str | None = None, allow_pickle: bool = False,
    overwrite: bool = False,
) -> str:  # fmt: skip
    """Rewrite a checkpoint; returns a sentence that says what was done.

    to: None for our own safetensors with a card; else the name of a family, whose names the tensors then get
    (safetensors, or a torch file when `out` ends in .pth, .pt or .bin). "smp" also writes a folder as SMP does, with
    its config.json, when `out` has no such ending.
    """
    network = from_checkpoint(source, allow_pickle=allow_pickle)
    origin = origin_of(network)
    if to is None:
        save(network, out, card=catalog.card_for(network), overwrite=overwrite)
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
    return f"{origin.model} in the names of {family.says}"

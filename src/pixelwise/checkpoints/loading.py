"""Checkpoints of anybody: recognised by their keys, renamed, and loaded with nothing missing or left over."""

from __future__ import annotations

import fnmatch
import functools
import importlib
import json
import os
import pkgutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from pixelwise import catalog
from pixelwise.decoders import DECODERS
from pixelwise.errors import InputError, UnknownNameError, WeightsError
from pixelwise.files import writing
from pixelwise.weights import convert, store
from pixelwise.weights.card import CARD_KEY, Card
from pixelwise.weights.convert.family import Family, Plan, Tensors

PLAN_KEY = "pixelwise.plan"
"""Where our own safetensors files say which builder, with which arguments, made the network."""

Source = str | os.PathLike[str] | Mapping[str, Any]


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
        from pixelwise.decoders.compose import compose

        network = compose(name, **arguments)
        network.plan = Plan(name, dict(arguments))  # type: ignore[assignment]
        return network
    if name in DECODERS and name not in catalog.CATALOG:
        raise TypeError(
            f"{name} is a decoder and needs an encoder: create_model({name!r}, encoder='resnet34')"
        )
    arguments.pop("encoder", None)
    builder = catalog.entry(name).load_builder()
    plain: nn.Module = builder(**arguments)
    return plain


@functools.cache
def families() -> tuple[Family, ...]:
    """Every family of checkpoints that can be read, one converter file after the other."""
    found: list[Family] = []
    for module in sorted(
        info.name for info in pkgutil.iter_modules(convert.__path__) if info.name != "family"
    ):
        found.extend(importlib.import_module(f"{convert.__name__}.{module}").FAMILIES)
    return tuple(found)


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
    and tensors or arrays. Architecture, variant, classes and input channels are read off names and shapes.
    allow_pickle: also read files that hold code; only for those whose maker you trust.

    Raises WeightsError when the family is not known, or a tensor is missing, surplus or of the wrong shape.
    """
    own = _own_plan(source)
    tensors = read(source, allow_pickle=allow_pickle)
    if own is not None:
        return _load(create_untrained(own), tensors, "the file").eval()
    if (config := _smp_config(source)) is not None:
        from pixelwise.weights.convert import smp

        return smp.network_of(config, tensors, source=f"the folder {source}").eval()
    family = recognise(tensors)
    tensors = family.needed(tensors)
    try:
        network = create_untrained(family.plan(tensors))
    except (KeyError, IndexError, StopIteration) as error:
        raise _incomplete(family, error) from error
    return _load(network, _to_ours(family, tensors), family.says).eval()


def load_checkpoint(network: nn.Module, source: Source, *, allow_pickle: bool = False) -> None:
    """Load a checkpoint of any known family, or in our own names, into an existing network, strictly."""
    tensors = read(source, allow_pickle=allow_pickle)
    plan = getattr(network, "plan", None)
    if set(tensors) != set(network.state_dict()):
        if isinstance(plan, Plan) and recognise(tensors).name == f"smp.{plan.model}":
            from pixelwise.weights.convert import smp

            return smp.fill(network, plan, tensors, source="the checkpoint")
        family = recognise(tensors)
        tensors = _to_ours(family, family.needed(tensors))
    _load(network, tensors, "the checkpoint")


def save(
    network: nn.Module, path: str | os.PathLike[str], *, plan: Plan, card: Card, overwrite: bool = True
) -> None:
    """Write a network as safetensors, with its card and what `from_checkpoint` needs to build it again."""
    from safetensors.torch import save_file

    tensors = {
        name: tensor.detach().cpu().contiguous().clone() for name, tensor in network.state_dict().items()
    }
    said = json.dumps({"model": plan.model, "arguments": plan.arguments})
    with writing(path, overwrite=overwrite) as temporary:
        save_file(tensors, temporary, metadata={CARD_KEY: card.to_json(), PLAN_KEY: said, "format": "pt"})


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
    plan = plan_of(network)
    if to is None:
        from pixelwise.segmenter import default_card

        save(network, out, plan=plan, card=default_card(network), overwrite=overwrite)
        return f"{plan.model} with {sum(p.numel() for p in network.parameters()):,} parameters"
    if to == "smp" or to.startswith("smp."):
        from pixelwise.weights.convert import smp

        return smp.write(network, out, overwrite=overwrite)
    by_name = {family.name: family for family in families()}
    if to not in by_name:
        raise UnknownNameError("family", to, [*by_name, "smp"])
    family = by_name[to]
    if family.to_theirs is None:
        raise InputError(f"{family.says}: reading is known, writing is not")
    tensors = {
        key: t.detach().contiguous().clone() for key, t in family.to_theirs(network.state_dict()).items()
    }
    with writing(out, overwrite=overwrite) as temporary:
        if Path(out).suffix in (".pth", ".pt", ".bin"):
            torch.save(tensors, temporary)
        else:
            from safetensors.torch import save_file

            save_file(tensors, temporary, metadata={"format": "pt"})
    return f"{plan.model} in the names of {family.says}"


def create_untrained(plan: Plan) -> nn.Module:
    """The planned network with random weights; it remembers its plan (`plan_of`)."""
    if plan.arguments.get("encoder") is not None:
        network = create_model(plan.model, **{**plan.arguments, "encoder_weights": None})
        network.plan = plan  # type: ignore[assignment]
        return network
    entry = catalog.entry(plan.model)
    builder = entry.load_builder()
    arguments = dict(plan.arguments)
    if "weights_backbone" in getattr(builder, "__wrapped__", builder).__code__.co_varnames:
        arguments["weights_backbone"] = None
    plain: nn.Module = builder(**arguments)
    plain.plan = plan  # type: ignore[assignment]
    return plain


def plan_of(network: nn.Module) -> Plan:
    """How `from_checkpoint` built this network."""
    plan = getattr(network, "plan", None)
    if not isinstance(plan, Plan):
        raise InputError(
            "this network was not made by from_checkpoint, so the way to build it again is not known"
        )
    return plan


def read(source: Source, *, allow_pickle: bool = False) -> Tensors:
    """The tensors of a file, a folder or a dictionary; wrappers and prefixes of training scripts removed."""
    if isinstance(source, Mapping):
        return store.unwrap(source, "the dictionary")
    path = Path(source)
    if path.is_dir():
        names = ("model.safetensors", "pytorch_model.bin")
        found = next((path / name for name in names if (path / name).is_file()), None)
        if found is None:
            raise WeightsError(f"the folder {path} holds neither {' nor '.join(names)}")
        path = found
    return store.load_state_dict(path, allow_pickle=allow_pickle)


def _to_ours(family: Family, tensors: Tensors) -> Tensors:
    try:
        return family.to_ours(tensors)
    except (KeyError, IndexError) as error:
        raise _incomplete(family, error) from error


def _incomplete(family: Family, error: BaseException) -> WeightsError:
    return WeightsError(
        f"this looks like {family.says}, but {error} is missing or has no place there; nothing was loaded"
    )


def _load(network: nn.Module, tensors: Tensors, source: str) -> nn.Module:
    store.load_into(network, tensors, source=source)
    return network


def _lacks(family: Family, tensors: Tensors) -> str:
    return next(m for m in family.marks if not any(fnmatch.fnmatchcase(key, m) for key in tensors))


def _smp_config(source: Source) -> dict[str, Any] | None:
    """The `config.json` of a folder of segmentation_models.pytorch."""
    if isinstance(source, Mapping) or not Path(source).is_dir():
        return None
    from pixelwise.weights.convert import smp

    return smp.read_config(source)


def _own_plan(source: Source) -> Plan | None:
    """What our own safetensors files say about their network."""
    if isinstance(source, Mapping) or Path(source).suffix != ".safetensors" or not Path(source).is_file():
        return None
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(source, "pt") as file:
            said = (file.metadata() or {}).get(PLAN_KEY)
    except SafetensorError:
        return None  # reading it will say what is wrong
    return Plan(**json.loads(said)) if said else None

"""Checkpoints of anybody: recognised by their keys, renamed, and loaded with nothing missing or left over."""

from __future__ import annotations

import fnmatch
import functools
import importlib
import pkgutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn

from pixelwise.checkpoints import families as files
from pixelwise.checkpoints.family import Family
from pixelwise.checkpoints.making import build
from pixelwise.checkpoints.reading import Source, own_origin, read
from pixelwise.checkpoints.smp import tensors as smp
from pixelwise.errors import WeightsError
from pixelwise.weights import store
from pixelwise.weights.origin import Origin
from pixelwise.weights.renames import Tensors


@functools.cache
def families() -> tuple[Family, ...]:
    """Every family of checkpoints that can be read: those of each file in `families/`, and SMP's."""
    found: list[Family] = []
    for module in sorted(info.name for info in pkgutil.iter_modules(files.__path__)):
        found.extend(importlib.import_module(f"pixelwise.checkpoints.families.{module}").FAMILIES)
    return (*found, *smp.FAMILIES)


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
    own = own_origin(source)
    tensors = read(source, allow_pickle=allow_pickle)
    if own is not None:
        return _load(build(own), tensors, "the file").eval()
    if (config := _smp_config(source)) is not None:
        return smp.network_of(config, tensors, source=f"the folder {source}").eval()
    family = recognise(tensors)
    tensors = family.needed(tensors)
    try:
        network = build(family.plan(tensors))
    except (KeyError, IndexError, StopIteration) as error:
        raise _incomplete(family, error) from error
    return _load(network, _to_ours(family, tensors), family.says).eval()


def load_checkpoint(network: nn.Module, source: Source, *, allow_pickle: bool = False) -> None:
    """Load a checkpoint of any known family, or in our own names, into an existing network, strictly."""
    tensors = read(source, allow_pickle=allow_pickle)
    if set(tensors) != set(network.state_dict()):
        origin = vars(network).get("origin")
        if isinstance(origin, Origin) and recognise(tensors).name == f"smp.{origin.model}":
            return smp.fill(network, origin, tensors, source="the checkpoint")
        family = recognise(tensors)
        tensors = _to_ours(family, family.needed(tensors))
    _load(network, tensors, "the checkpoint")


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
    return smp.read_config(source)

"""What is in a checkpoint: its tensors, and what our own files say about their network."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pixelwise.errors import WeightsError
from pixelwise.weights import store
from pixelwise.weights.card import CARD_KEY, Card
from pixelwise.weights.origin import Origin
from pixelwise.weights.renames import Tensors

ORIGIN_KEY = "pixelwise.plan"
"""Where our own safetensors files say which builder, with which arguments, made the network."""

FOLDERS = ("model.safetensors", "pytorch_model.bin")
"""The file of tensors in a folder as Hugging Face and SMP write it, the first that is there; or, under the same name
and ".index.json", a list of the files that it was cut into."""

Source = str | os.PathLike[str] | Mapping[str, Any]


def read(source: Source, *, allow_pickle: bool = False) -> Tensors:
    """The tensors of a file, a folder or a dictionary; wrappers and prefixes of training scripts removed."""
    if isinstance(source, Mapping):
        return store.unwrap(source, "the dictionary")
    path = Path(source)
    if path.is_dir():
        found = next((path / name for name in FOLDERS if (path / name).is_file()), None)
        if found is None:
            lists = (path / f"{name}.index.json" for name in FOLDERS)
            cut = next((file for file in lists if file.is_file()), None)
            if cut is None:
                raise WeightsError(f"the folder {path} holds neither {' nor '.join(FOLDERS)}")
            return _read_shards(cut, allow_pickle=allow_pickle)
        path = found
    return store.load_state_dict(path, allow_pickle=allow_pickle)


def _read_shards(index: Path, *, allow_pickle: bool) -> Tensors:
    """The tensors of the files that a list names, which lie beside it."""
    try:
        places = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
        names = sorted(set(places.values()))
    except (ValueError, TypeError, KeyError, AttributeError, OSError, RecursionError) as error:
        raise WeightsError(
            f"{index} does not list tensors and their files under weight_map ({error!r})"
        ) from error
    tensors: Tensors = {}
    for name in names:
        if not isinstance(name, str) or Path(name).name != name or not (index.parent / name).is_file():
            raise WeightsError(f"{index} names the file {name!r}, which does not lie beside it")
        tensors |= store.load_state_dict(index.parent / name, allow_pickle=allow_pickle)
    if tensors.keys() != places.keys():
        stray = sorted(tensors.keys() ^ places.keys())[0]
        raise WeightsError(f"{index} and its files hold other tensors: {stray!r} is in one of the two only")
    return tensors


def own_origin(source: Source) -> Origin | None:
    """What our own safetensors files say about their network."""
    said = _own(source, ORIGIN_KEY)
    if not said:
        return None
    try:
        origin = json.loads(said)
        model, arguments = origin["model"], origin["arguments"]
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise WeightsError(
            f"{source} does not say in its header how its network is built ({error!r})"
        ) from error
    if not isinstance(model, str) or not isinstance(arguments, dict):
        raise WeightsError(
            f"{source} says in its header {model!r} and {arguments!r}, expected a name and a dictionary"
        )
    return Origin(model, arguments)


def own_card(source: Source) -> Card | None:
    """The card in our own safetensors files."""
    said = _own(source, CARD_KEY)
    return Card.from_json(said) if said else None


def _own(source: Source, key: str) -> str | None:
    """What stands under a key in the header of a safetensors file."""
    if isinstance(source, Mapping) or Path(source).suffix != ".safetensors" or not Path(source).is_file():
        return None
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(source, "pt") as file:
            said: str | None = (file.metadata() or {}).get(key)
    except SafetensorError:
        return None  # reading it will say what is wrong
    return said

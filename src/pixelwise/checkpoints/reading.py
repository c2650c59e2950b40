"""What is in a checkpoint: its tensors, and what our own files say about their network."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pixelwise import untrusted
from pixelwise.checkpoints.writing import TORCH_FILES
from pixelwise.errors import WeightsError
from pixelwise.untrusted import Sizes
from pixelwise.weights import programs, store
from pixelwise.weights.card import CARD_KEY, Card
from pixelwise.weights.origin import Origin
from pixelwise.weights.renames import Tensors

ORIGIN_KEY = "pixelwise.plan"
"""Where our own files say which builder, with which arguments, made the network."""

HUB_FILES = ("model.safetensors", "pytorch_model.bin")
"""The file of weights in a folder as Hugging Face and SMP write it."""

FOLDER_FILES = ("weights.safetensors", *HUB_FILES, "best.pt")
"""The files of weights that a folder may hold, the best first: of a run of ours, of Hugging Face and SMP, of a run
that was stopped early. Under the name of one and ".index.json" lies a list of the files that it was cut into."""

CUT = ".index.json"

Source = str | os.PathLike[str] | Mapping[str, Any]


@dataclass(frozen=True)
class _Index:
    """A list of tensors and the files that they lie in."""

    weight_map: dict[str, str]


@dataclass(frozen=True)
class _Header:
    """How the network of a file of ours is built."""

    model: str
    arguments: dict[str, Sizes]


def read(source: Source, *, allow_pickle: bool = False) -> Tensors:
    """The tensors of a file, a folder or a dictionary; wrappers and prefixes of training scripts removed."""
    if isinstance(source, Mapping):
        return store.unwrap(source, "the dictionary")
    path = file_of(source)
    if path.name.endswith(CUT):
        return _read_shards(path, allow_pickle=allow_pickle)
    return store.load_state_dict(path, allow_pickle=allow_pickle)


def file_of(source: str | os.PathLike[str]) -> Path:
    """The file itself, or the one of a folder that holds or lists its weights; WeightsError for a folder without."""
    path = Path(source)
    if not path.is_dir():
        return path
    names = [name + cut for cut in ("", CUT) for name in FOLDER_FILES]
    found = next((path / name for name in names if (path / name).is_file()), None)
    if found is None and (path / "checkpoint.pt").is_file():
        raise WeightsError(
            f"the run in {path} was stopped before its weights were validated for the first time, so there are none to "
            f"open yet; go on with it: pixelwise train --out {path} --resume"
        )
    if found is None and (path / "metrics.jsonl").is_file():
        raise WeightsError(f"the run in {path} was stopped before its first step was kept; begin it again")
    if found is None:
        raise WeightsError(f"the folder {path} holds none of {', '.join(FOLDER_FILES)}")
    return found


def _read_shards(index: Path, *, allow_pickle: bool) -> Tensors:
    """The tensors of the files that a list names, which lie beside it."""
    places = untrusted.read(
        index, _Index, f"the list of files {index}", error=WeightsError, unknown="leave"
    ).weight_map
    names = sorted(set(places.values()))
    tensors: Tensors = {}
    for name in names:
        if Path(name).name != name or "\0" in name or not (index.parent / name).is_file():
            raise WeightsError(f"{index} names the file {name!r}, which does not lie beside it")
        tensors |= store.load_state_dict(index.parent / name, allow_pickle=allow_pickle)
    if tensors.keys() != places.keys():
        stray = sorted(tensors.keys() ^ places.keys())[0]
        raise WeightsError(f"{index} and its files hold other tensors: {stray!r} is in one of the two only")
    return tensors


def own_origin(source: Source) -> Origin | None:
    """What our own files say about their network."""
    said = _own(source, ORIGIN_KEY)
    if not said:
        return None
    found = untrusted.read(
        said, _Header, f"what {source} says in its header of its network", error=WeightsError, unknown="leave"
    )
    return Origin(found.model, found.arguments)


def own_card(source: Source) -> Card | None:
    """The card in our own files."""
    said = _own(source, CARD_KEY)
    return Card.from_json(said) if said else None


def _own(source: Source, key: str) -> str | None:
    """What stands under a key in the header of a safetensors file, or beside the tensors of a run that goes on."""
    if isinstance(source, Mapping):
        return None
    try:
        path = file_of(source)
    except WeightsError:
        return None  # reading it will say what is wrong
    if path.suffix == ".safetensors" and path.is_file():
        from safetensors import SafetensorError, safe_open

        with (
            suppress(SafetensorError, OSError),
            safe_open(path, "pt") as file,
        ):  # reading it will say what is wrong
            said: str | None = (file.metadata() or {}).get(key)
            return said
    if path.suffix in (programs.ENDING, *TORCH_FILES) and programs.is_program(path):
        with suppress(WeightsError):
            return programs.header(path).get(key)
    if path.suffix in TORCH_FILES and path.is_file():
        with suppress(WeightsError):
            beside = store.load_content(path)
            found = beside.get(key) if isinstance(beside, Mapping) else None
            return found if isinstance(found, str) else None
    return None

"""What is in a checkpoint: its tensors, and what our own files say about their network."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pixelwise.errors import WeightsError
from pixelwise.weights import store
from pixelwise.weights.origin import Origin
from pixelwise.weights.renames import Tensors

ORIGIN_KEY = "pixelwise.plan"
"""Where our own safetensors files say which builder, with which arguments, made the network."""

Source = str | os.PathLike[str] | Mapping[str, Any]


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


def own_origin(source: Source) -> Origin | None:
    """What our own safetensors files say about their network."""
    if isinstance(source, Mapping) or Path(source).suffix != ".safetensors" or not Path(source).is_file():
        return None
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(source, "pt") as file:
            said = (file.metadata() or {}).get(ORIGIN_KEY)
    except SafetensorError:
        return None  # reading it will say what is wrong
    return Origin(**json.loads(said)) if said else None

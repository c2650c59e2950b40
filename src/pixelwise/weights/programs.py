"""Files of torch.export (.pt2), a network as a graph: the tensors in ours, and what they say of their network.

They are read as weights are, and the network is built anew from what our own say of it. Nothing in them is run:
`torch.export.load` unpickles, and evaluates expressions that stand in the file.
"""

from __future__ import annotations

import math
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np

from pixelwise import untrusted
from pixelwise.errors import WeightsError, first_line
from pixelwise.untrusted import Between

if TYPE_CHECKING:
    from torch import Tensor

ENDING = ".pt2"

HEADER = "pixelwise.json"
"""In the folder of such a file that is free for others: what stands in the header of our safetensors."""

NETWORK = "network."
"""Before the names of the tensors, for the graph is that of `network.coarse`."""

KINDS: dict[int, np.dtype[Any]] = {7: np.dtype("<f4"), 5: np.dtype("<i8")}
"""Numbers that torch.export has for the kinds of tensors that we write."""


@dataclass(frozen=True)
class _Side:
    as_int: Annotated[int, Between(0, 2**40)]


@dataclass(frozen=True)
class _Meta:
    dtype: int
    sizes: list[_Side]
    strides: list[_Side]
    storage_offset: _Side


@dataclass(frozen=True)
class _Stored:
    path_name: str
    use_pickle: bool
    tensor_meta: _Meta


@dataclass(frozen=True)
class _Config:
    config: dict[str, _Stored]


def is_program(path: Path) -> bool:
    """Whether a file is one of torch.export, by its content; what is no file, such as a pipe, is not waited for."""
    if not path.is_file():
        return False
    try:
        with zipfile.ZipFile(path) as archive:
            return any(
                name.count("/") == 1 and name.endswith("/archive_format") for name in archive.namelist()
            )
    except Exception:  # no archive, or a damaged one, which has as many faces as fields
        return False


def header(path: Path) -> dict[str, str]:
    """What stands in ours beside the graph; empty in those of others."""
    with zipfile.ZipFile(path) as archive:
        name = next((name for name in archive.namelist() if name.endswith(f"/extra/{HEADER}")), None)
        text = None if name is None else archive.read(name).decode("utf-8", "replace")
    if text is None:
        return {}
    return untrusted.read(text, dict[str, str], f"what {path} says of its network", error=WeightsError)


def tensors(path: Path) -> dict[str, Tensor]:
    """The tensors in a file of ours, in the names of its network. WeightsError for files of others."""
    import torch

    if not header(path):
        raise WeightsError(
            f"{path} was written by torch.export and not by pixelwise: what it holds is run to be opened, so it is "
            "not; export the network that it was made of (pixelwise export MODEL --to torch-export)"
        )
    found: dict[str, Tensor] = {}
    try:
        with zipfile.ZipFile(path) as archive:
            top = archive.namelist()[0].partition("/")[0]
            text = archive.read(f"{top}/data/weights/model_weights_config.json").decode()
            stored = untrusted.read(
                text, _Config, f"the list of tensors in {path}", error=WeightsError, unknown="leave"
            ).config
            for name, one in stored.items():
                shape = [side.as_int for side in one.tensor_meta.sizes]
                kind = KINDS.get(one.tensor_meta.dtype)
                in_order = [math.prod(shape[i + 1 :]) for i in range(len(shape))]
                strides = [side.as_int for side in one.tensor_meta.strides]
                if (
                    one.use_pickle
                    or kind is None
                    or one.tensor_meta.storage_offset.as_int
                    or any(a != b for a, b, n in zip(strides, in_order, shape, strict=True) if n > 1)
                ):
                    raise WeightsError(f"{path} holds {name!r} in a form that pixelwise does not write")
                raw = archive.read(f"{top}/data/weights/{one.path_name}")
                values = np.frombuffer(raw, kind)[: math.prod(shape)].reshape(shape)
                found[name.removeprefix(NETWORK)] = torch.from_numpy(values.copy())
    except WeightsError:
        raise
    except Exception as error:  # a damaged archive has as many faces as fields
        raise WeightsError(
            f"{path} is damaged or incomplete ({first_line(error)[:120]}); get the file again"
        ) from error
    return found


def with_header(said: dict[str, str]) -> dict[str, Any]:
    """The keyword of `torch.export.save` that puts a header into a file."""
    import json

    return {"extra_files": {HEADER: json.dumps(said)}}

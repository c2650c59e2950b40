"""Tensors to a file."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import torch

from pixelwise.errors import InputError, OutputError
from pixelwise.files import writing
from pixelwise.weights.renames import Tensors

TORCH_FILES = (".pth", ".pt", ".bin")
TENSOR_FILES = (*TORCH_FILES, ".safetensors")
"""How names of files of tensors end."""


def write_tensors(
    tensors: Tensors, path: str | os.PathLike[str], *, overwrite: bool = True, says: Mapping[str, str] | None = None
) -> None:  # fmt: skip
    """Write a torch file where `path` ends as one, else safetensors; says: what stands in the header of the latter.

    Raises OutputError (see `files.writing`).
    """
    if any(tensor.is_meta for tensor in tensors.values()):
        raise InputError('these tensors are on "meta" and hold no values; build the network on a device')
    plain = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    with writing(path, overwrite=overwrite) as temporary:
        if Path(path).suffix in TORCH_FILES:
            torch.save(plain, temporary)
        else:
            from safetensors import SafetensorError
            from safetensors.torch import save_file

            try:
                save_file(plain, temporary, metadata={"format": "pt", **(says or {})})
            except SafetensorError as error:  # how it tells that the disk is full
                raise OutputError(
                    f"cannot write {path}: {error}; free some space, or choose another place"
                ) from error

"""Tensors to a file."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import torch

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
    plain = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    with writing(path, overwrite=overwrite) as temporary:
        if Path(path).suffix in TORCH_FILES:
            torch.save(plain, temporary)
        else:
            from safetensors.torch import save_file

            save_file(plain, temporary, metadata={"format": "pt", **(says or {})})

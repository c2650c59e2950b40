"""Folders of segmentation_models.pytorch (SMP): `config.json`, which says all about its network, and tensors."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn

from pixelwise import untrusted
from pixelwise.checkpoints.smp.config import config_of
from pixelwise.checkpoints.smp.tensors import to_theirs
from pixelwise.checkpoints.writing import TENSOR_FILES, write_tensors
from pixelwise.errors import WeightsError
from pixelwise.files import writing
from pixelwise.untrusted import Sizes
from pixelwise.weights.origin import origin_of
from pixelwise.weights.renames import Tensors

NAMELESS = "which have no place for names of classes and preprocessing: they are left behind"


def read_config(folder: str | os.PathLike[str]) -> dict[str, Any] | None:
    """The `config.json` of a folder that SMP has written, or None."""
    path = Path(folder) / "config.json"
    if not path.is_file():
        return None
    config = untrusted.read(path, dict[str, Sizes], os.fspath(path), error=WeightsError)
    return config if "_model_class" in config else None


def write(network: nn.Module, out: str | os.PathLike[str], *, overwrite: bool = False) -> str:
    """Write a network as SMP would: a folder, or its state dict alone where `out` is a file's name.

    Returns a sentence that says what was done. Raises InputError for a network that SMP cannot have.
    """
    origin = origin_of(network)
    config = config_of(origin) | origin.beside.get("config", {})
    tensors = to_theirs(origin, network.state_dict(), origin.beside.get("tensors"))
    left = (
        "" if getattr(network, "aux_head", None) is None else ", without the auxiliary head, which SMP lacks"
    )
    if Path(out).suffix in TENSOR_FILES:
        write_tensors(tensors, out, overwrite=overwrite)
        return f"{origin} in the names of SMP{left}, {NAMELESS}"
    write_folder(config, tensors, out, overwrite=overwrite)
    return f"{origin} as a folder of SMP{left}, {NAMELESS}"


def write_folder(
    config: Mapping[str, Any], tensors: Tensors, folder: str | os.PathLike[str], *, overwrite: bool = True
) -> None:
    """`model.safetensors`, then `config.json`, as SMP's `save_pretrained` writes them."""
    write_tensors(tensors, Path(folder) / "model.safetensors", overwrite=overwrite)
    with writing(Path(folder) / "config.json", overwrite=overwrite) as temporary:
        temporary.write_text(json.dumps(config, indent=2, sort_keys=True, default=list), encoding="utf-8")


def write_readme(
    config: Mapping[str, Any],
    folder: str | os.PathLike[str],
    dataset: str | None = None,
    metrics: Mapping[str, Any] | None = None,
) -> None:
    """`README.md` beside them, with the head by which the Hub sorts models."""
    said = json.dumps({"metrics": dict(metrics or {}), "arguments": dict(config)}, indent=2, default=list)
    lines = [
        "---",
        "library_name: segmentation-models-pytorch",
        "pipeline_tag: image-segmentation",
        "tags: [segmentation-models-pytorch, pixelwise, semantic-segmentation, pytorch]",
        "---",
        f"# {config['_model_class']} on {config['encoder_name']}",
        "",
        f"Data set: {dataset or 'not given'}",
        "",
        "```json",
        said,
        "```",
        "",
    ]
    with writing(Path(folder) / "README.md", overwrite=True) as temporary:
        temporary.write_text("\n".join(lines), encoding="utf-8")

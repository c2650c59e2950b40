"""Models of the Hugging Face Hub: "owner/name", or "owner/name@revision", to a folder with their files."""

from __future__ import annotations

import os
import re
from pathlib import Path

from pixelwise.errors import DownloadError, MissingExtraError
from pixelwise.weights.store import offline

FILES = ("*config.json", "model*.safetensors*", "weights.safetensors", "pytorch_model.bin")
"""What is fetched of a repository."""

_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*(@[\w./-]+)?")


def is_hub_name(text: str) -> bool:
    """Whether a text could name a repository of the Hub, and is the path of nothing that is or could be there."""
    if text.lower().endswith((".onnx", ".safetensors", ".pth", ".pt", ".bin", ".ckpt")):
        return False
    here = os.path.lexists(text) or os.path.isdir(text.split("/")[0])
    return _NAME.fullmatch(text) is not None and not here


def fetch_folder(name: str, revision: str | None = None) -> Path:
    """The folder of a repository, fetched or from the Hub's own cache.

    name: as `is_hub_name` knows it. With PIXELWISE_OFFLINE or HF_HUB_OFFLINE set, only the cache is asked. Raises
    DownloadError for what cannot be had.
    """
    try:
        from huggingface_hub import snapshot_download
    except ModuleNotFoundError as error:
        raise MissingExtraError("fetching from the Hugging Face Hub", "torch") from error
    repository, _, tag = name.partition("@")
    cached_only = offline("HF_HUB_OFFLINE")
    try:
        return Path(
            snapshot_download(
                repository,
                revision=revision or tag or None,
                allow_patterns=list(FILES),
                local_files_only=cached_only,
            )
        )
    except (OSError, ValueError) as error:
        why = "it is not in the Hub's cache and the network is switched off" if cached_only else str(error)
        raise DownloadError(
            f"there is no file or folder {name}, and as a model of the Hugging Face Hub it cannot be had: "
            f"{why.splitlines()[0]}; give the path of a folder with its files"
        ) from error

"""Models of the Hugging Face Hub: "owner/name", or "owner/name@revision", to a folder with their files, and back."""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pixelwise.errors import DownloadError, MissingExtraError, OutputError, first_line
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


def fetch_folder(
    name: str,
    revision: str | None = None,
    *,
    token: str | bool | None = None,
    cache_dir: str | Path | None = None,
    force_download: bool = False,
    local_files_only: bool = False,
) -> Path:
    """The folder of a repository, fetched or from the Hub's own cache; the options are those of huggingface_hub.

    name: as `is_hub_name` knows it. With PIXELWISE_OFFLINE or HF_HUB_OFFLINE set, only the cache is asked. Raises
    DownloadError for what cannot be had.
    """
    try:
        from huggingface_hub import snapshot_download
    except ModuleNotFoundError as error:
        raise MissingExtraError("fetching from the Hugging Face Hub", "torch") from error
    repository, _, tag = name.partition("@")
    cached_only = local_files_only or offline("HF_HUB_OFFLINE")
    try:
        return Path(
            snapshot_download(
                repository,
                revision=revision or tag or None,
                allow_patterns=list(FILES),
                local_files_only=cached_only,
                token=token,
                cache_dir=cache_dir,
                force_download=force_download,
            )
        )
    except (OSError, ValueError) as error:
        why = "it is not in the Hub's cache and the network is switched off" if cached_only else str(error)
        raise DownloadError(
            f"there is no file or folder {name}, and as a model of the Hugging Face Hub it cannot be had: "
            f"{why.splitlines()[0]}; give the path of a folder with its files"
        ) from error


def push_folder(
    write: Callable[[Path], Any],
    repository: str,
    *,
    commit_message: str = "Push model using huggingface_hub.",
    private: bool | None = None,
    token: str | None = None,
    branch: str | None = None,
    create_pr: bool | None = None,
    allow_patterns: list[str] | str | None = None,
    ignore_patterns: list[str] | str | None = None,
    delete_patterns: list[str] | str | None = None,
) -> str:
    """Upload what `write` puts into the folder that it is given; the URL of the commit. The repository is made if
    need be; the options are those of huggingface_hub. Raises OutputError for what cannot be put there.
    """
    try:
        from huggingface_hub import HfApi
    except ModuleNotFoundError as error:
        raise MissingExtraError("pushing to the Hugging Face Hub", "torch") from error
    if offline("HF_HUB_OFFLINE"):
        raise OutputError(
            f"{repository} cannot be pushed to the Hugging Face Hub while the network is switched off; unset "
            "PIXELWISE_OFFLINE and HF_HUB_OFFLINE, or save the model into a folder"
        )
    api = HfApi(token=token)
    with tempfile.TemporaryDirectory() as temporary:
        write(folder := Path(temporary) / "model")
        try:
            found = api.create_repo(repo_id=repository, private=private, exist_ok=True).repo_id
            return str(
                api.upload_folder(
                    repo_id=found, repo_type="model", folder_path=folder, commit_message=commit_message,
                    revision=branch, create_pr=create_pr, allow_patterns=allow_patterns,
                    ignore_patterns=ignore_patterns, delete_patterns=delete_patterns,
                )
            )  # fmt: skip
        except (OSError, ValueError) as error:
            raise OutputError(
                f"the model could not be pushed to {repository} on the Hugging Face Hub: {first_line(error)}"
            ) from error

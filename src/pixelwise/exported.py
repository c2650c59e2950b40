"""ONNX files of models in the cache, made on first use, by one process at a time."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from pixelwise.caches import cache_dir
from pixelwise.errors import OutputError, PixelwiseError, PixelwiseWarning
from pixelwise.weights import store


def exported(what: str, stem: str, write: Callable[[Path], object]) -> Path:
    """The file of that stem in the cache; `write` makes it where it is not there. what: in sentences.

    Its name ends in its SHA-256, which is looked at each time: a file that is not what was written is discarded, with a
    warning that names it, and made again. Raises OutputError where the cache cannot be written.
    """
    folder = cache_dir() / "onnx"
    if (kept := _kept(folder, stem)) is not None:
        return kept
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with store.only_one(folder / f"{stem}.part"):
            if (kept := _kept(folder, stem)) is not None:
                return kept  # another process made it while this one waited
            return _make(write, folder, stem)
    except PixelwiseError:  # of which the one for downloads is an OSError too
        raise
    except OSError as error:
        raise OutputError(
            f"the exported {what} cannot be kept in {folder} ({error.strerror or error}); make room or permission "
            "there, or name another folder in PIXELWISE_CACHE"
        ) from error


def _make(write: Callable[[Path], object], folder: Path, stem: str) -> Path:
    new = folder / f".{stem}.new.onnx"
    try:
        write(new)
        kept = folder / f"{stem}.{store.digest(new)}.onnx"
        os.replace(new, kept)
    finally:
        new.unlink(missing_ok=True)
    (folder / f"{stem}.onnx").unlink(missing_ok=True)  # as it was called before names had a hash
    return kept


def _kept(folder: Path, stem: str) -> Path | None:
    """The whole file of that name in the cache; others are removed."""
    for path in sorted(folder.glob(f"{stem}.*.onnx")):
        with suppress(OSError):
            if store.digest(path) == path.name.split(".")[-2]:
                return path
            warnings.warn(
                f"{path} is not the exported model that was written there; it is discarded, and made again",
                PixelwiseWarning,
                stacklevel=5,
            )
            path.unlink()
    return None

"""Folders for what can be fetched or made again."""

from __future__ import annotations

import os
import stat
from contextlib import suppress
from pathlib import Path


def cache_dir() -> Path:
    """The folder for what can be fetched or made again: PIXELWISE_CACHE, or the system's place for caches."""
    if chosen := os.environ.get("PIXELWISE_CACHE"):
        return Path(chosen).expanduser()
    import platformdirs

    return Path(platformdirs.user_cache_dir("pixelwise", appauthor=False))


def private_folder(folder: Path) -> Path:
    """The folder, made if need be, which belongs to this user and which nobody else can read or write (mode 0700).

    Raises OSError where it cannot be made, is a link, or is somebody else's.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    with suppress(FileExistsError):  # which says nothing of what is there
        folder.mkdir(mode=0o700)
    about = os.lstat(folder)
    if stat.S_ISLNK(about.st_mode):
        raise NotADirectoryError(0, "it is a link, not a folder of its own")
    if not stat.S_ISDIR(about.st_mode):
        raise NotADirectoryError(0, "it is no folder")
    if hasattr(os, "geteuid"):  # elsewhere the folder of the user's caches is the user's own
        if about.st_uid != os.geteuid():
            raise PermissionError(0, "it belongs to another user")
        if stat.S_IMODE(about.st_mode) != 0o700:
            folder.chmod(0o700)
    return folder

"""Writing files so that a reader never meets half of one."""

from __future__ import annotations

import os
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from pixelwise.errors import OutputError


def plain_name(name: str) -> str:
    """The name of a file, in no other folder, for something that a data set or a stranger has named: what is neither a
    letter, a digit nor one of " -_.,+=@()" becomes "_", and so does a dot at the beginning."""
    kept = "".join(c if c.isalnum() or c in " -_.,+=@()" else "_" for c in name)[:200]
    return "_" + kept[1:] if kept.startswith(".") or not kept else kept


@contextmanager
def writing(path: str | os.PathLike[str], *, overwrite: bool = True) -> Iterator[Path]:
    """Yield a temporary path beside `path`; on success it is synced and renamed to `path`, else removed.

    Missing parent folders are made. Raises OutputError when `path` exists and `overwrite` is False, is a
    folder, or cannot be written.
    """
    path = Path(path)
    check_writable(path, overwrite=overwrite)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.stem[:40]}.", suffix=path.suffix)
        os.close(handle)
    except OSError as error:
        raise _cannot(path, error) from error
    temporary = Path(name)
    try:
        yield temporary
        with open(temporary, "rb+") as file:
            os.fsync(file.fileno())
        os.chmod(temporary, 0o666 & ~_umask())
        os.replace(temporary, path)
        _sync_folder(path.parent)
    except OSError as error:
        raise _cannot(path, error) from error
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def held(path: str | os.PathLike[str], what: str) -> Iterator[None]:
    """Hold the lock file `path` while the block runs, so that no two runs share unfinished work; a process that dies
    lets go of it. what: said in the error. Raises OutputError when somebody else holds it, or it cannot be made.
    """
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = open(path, "a+", encoding="utf-8")  # noqa: SIM115  (closed below, where it lets go)
    except OSError as error:
        raise _cannot(path, error) from error
    with file:
        if (
            not _lock(file.fileno())
            or not path.exists()
            or not os.path.samestat(os.fstat(file.fileno()), path.stat())
        ):
            file.seek(0)
            by = f" (process {who})" if (who := file.read().strip()) else ""
            raise OutputError(
                f"{what} is being worked on by another run{by}; wait for it, or choose another place"
            )
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        try:
            yield
        finally:
            with suppress(OSError):  # where an open file cannot be removed it stays, and holds nobody up
                path.unlink()


def _lock(handle: int) -> bool:
    """Lock an open file without waiting; whether that went well. It is unlocked when it is closed."""
    try:
        if sys.platform == "win32":
            import msvcrt

            msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)
        else:
            import fcntl

            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def check_writable(path: str | os.PathLike[str], *, overwrite: bool) -> None:
    """Raise OutputError now for what would otherwise be found out after the work is done."""
    path = Path(path)
    if path.is_dir():
        raise OutputError(f"cannot write {path}: it is a folder; give a file name")
    if path.exists() and not overwrite:
        raise OutputError(f"{path} exists already; pass --overwrite (overwrite=True) or another place")
    parent = path.parent
    while not parent.exists():
        parent = parent.parent
    if not parent.is_dir():
        raise OutputError(f"cannot write {path}: {parent} is a file, not a folder")
    if not os.access(parent, os.W_OK):
        raise OutputError(f"cannot write {path}: no permission to write in {parent}; choose another folder")


def _sync_folder(folder: Path) -> None:
    """Make a rename in `folder` outlive a power cut, where folders can be synced."""
    if os.name == "posix":
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def _cannot(path: Path, error: OSError) -> OutputError:
    return OutputError(f"cannot write {path}: {error.strerror or error}; choose another place")


_reading_umask = threading.Lock()


def _umask() -> int:
    """The only way to read it is to change it, which two threads must not do at a time."""
    with _reading_umask:
        mask = os.umask(0o077)
        os.umask(mask)
    return mask

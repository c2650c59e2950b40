"""Writing files so that a reader never meets half of one, and holding places so that no two runs work in one.

What is in the making bears a name of its own, `.pixelwise-*`, and a lock of the process that makes it: when that is
gone, the next one cleans up, and nothing that is somebody else's is ever touched.
"""

from __future__ import annotations

import errno
import os
import re
import sys
import threading
import warnings
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from pixelwise import locks
from pixelwise.errors import OutputError, PixelwiseWarning

LOCK = ".pixelwise.lock"
"""What a run holds in a folder that is all its own."""


def plain_name(name: str) -> str:
    """The name of a file, in no other folder, for something that a data set or a stranger has named: what is neither a
    letter, a digit nor one of " -_.,+=@()" becomes "_", and so does a dot at the beginning."""
    kept = "".join(c if c.isalnum() or c in " -_.,+=@()" else "_" for c in name)[:200]
    return "_" + kept[1:] if kept.startswith(".") or not kept else kept


@contextmanager
def writing(path: str | os.PathLike[str], *, overwrite: bool = True) -> Iterator[Path]:
    """Yield a temporary path beside `path`; on success it is synced and renamed to `path`, else removed.

    What writers that were killed have left is removed when a process first writes into a folder. Missing parent folders
    are made. Raises OutputError when `path` exists and `overwrite` is False, is a folder, or cannot be written.
    """
    path = Path(path)
    check_writable(path, overwrite=overwrite)
    try:
        make_folder(path.parent)
        _remove_leftovers(path.parent)
        with _temporary(path) as temporary:
            yield temporary
            with open(temporary, "rb+") as file:
                sync(file.fileno())
            os.chmod(temporary, 0o666 & ~_umask())
            check_writable(path, overwrite=overwrite)  # another may have written it since
            os.replace(temporary, path)
            sync_folder(path.parent)
    except OSError as error:
        raise _cannot(path, error) from error


@contextmanager
def held(path: str | os.PathLike[str], what: str, *, wait: bool = False) -> Iterator[None]:
    """Hold the lock file `path` while the block runs, so that no two runs share unfinished work; a process that dies
    lets go of it. what: said in the error. wait: for whoever holds it.

    Raises OutputError when somebody else holds it, or it cannot be made, or is a link or anything else that is no lock
    of ours. A disc that knows no locks is warned of, and the block runs. A folder that had to be made goes again where
    nothing was written into it.
    """
    path = Path(path)
    handle: int | None = None
    is_new = not path.parent.exists()
    try:
        make_folder(path.parent)
        handle = locks.take(path, wait=wait)
        if handle is None:
            raise busy(what, _read(path))
        _write(handle, f"{_OWNER}{os.getpid()}\n")
    except OSError as error:
        if handle is not None:
            locks.release(handle, path)
        if error.errno not in locks.NO_LOCKS:
            raise _cannot(path, error) from error
        _warn_of_no_locks(path)
    try:
        yield
    finally:
        if handle is not None:
            locks.release(handle, path)
        _remove_if_new(path.parent, is_new)


@contextmanager
def claimed(folder: Path, files: Iterable[Path]) -> Iterator[None]:
    """Hold a claim on `files`, which a run is to write into `folder`, while the block runs. Runs may share a folder as
    long as no file is of two of them.

    Raises OutputError, naming the file and the process, where another run has claimed one. `folder` is made, and where
    nothing was written into it removed again.
    """
    names = {os.path.normcase(os.path.relpath(file, folder)): file for file in files}
    is_new = not folder.exists()
    path, handle = folder / f"{_CLAIM}{os.getpid()}-{os.urandom(4).hex()}", None
    try:
        with held(folder / f"{_CLAIM}lock", str(folder), wait=True):
            _remove_leftovers(folder)
            for other in folder.glob(f"{_CLAIM}*-*"):
                _refuse_claim(other, names)
            try:
                handle = locks.take(path, wait=True, says=_claim_says(str(os.getpid())))
                assert handle is not None  # nobody else knows its name
                _write(handle, "\n".join((str(os.getpid()), *names)))
            except OSError as error:
                if error.errno not in locks.NO_LOCKS:
                    raise _cannot(path, error) from error
                path.unlink(missing_ok=True)  # of which `held` has warned
        yield
    finally:
        if handle is not None:
            locks.release(handle, path)
        _remove_if_new(folder, is_new)


def _remove_if_new(folder: Path, is_new: bool) -> None:
    if is_new:
        with suppress(OSError):  # there is something in it, as should be
            folder.rmdir()


def _refuse_claim(path: Path, names: Mapping[str, Path]) -> None:
    """Raise if a living run has claimed one of `names`; remove what a dead one left."""
    ours = _CLAIM_NAME.fullmatch(path.name)
    if not ours or path.is_symlink():
        return
    try:
        handle = locks.take(path, says=_claim_says(ours[1]))
        if handle is not None:
            locks.release(handle, path)
            return
    except locks.NoLock:  # it stays, and holds nobody up
        return
    except OSError:
        pass
    who, *claims = _read(path).split("\n")
    if both := names.keys() & set(claims):
        raise busy(str(names[min(both)]), who)


def _claim_says(process: str) -> re.Pattern[bytes]:
    """What a claim of that process says: its number as in every lock, and the files."""
    return re.compile(rb"((pixelwise )?%s(\n.*)?)?" % process.encode(), re.DOTALL)


def busy(what: str, who: str) -> OutputError:
    """What is said to the second run. who: the process of the first, where it is known."""
    who = who.removeprefix(_OWNER)
    by = f" (process {who})" if who.isdecimal() and len(who) <= 20 else ""
    return OutputError(f"{what} is being worked on by another run{by}; wait for it, or choose another place")


def refuse_link(path: Path) -> None:
    """Raise OutputError for a link where unfinished work is kept: what is written there would go to another place."""
    if path.is_symlink():
        raise OutputError(
            f"{path} is a link, and unfinished work is not written through links; remove it, or choose another place"
        )


def make_folder(folder: Path) -> None:
    """Make a folder and those above it, each so that a power cut does not take it away again."""
    if not folder.is_dir():
        make_folder(folder.parent)
        folder.mkdir(exist_ok=True)
        sync_folder(folder.parent)


def check_writable(path: str | os.PathLike[str], *, overwrite: bool) -> None:
    """Raise OutputError now for what would otherwise be found out after the work is done."""
    path = Path(path)
    if path.is_dir():
        raise OutputError(f"cannot write {path}: it is a folder; give a file name")
    if os.path.lexists(path) and not overwrite:
        raise OutputError(f"{path} exists already; pass --overwrite (overwrite=True) or another place")
    parent = path.parent
    while not parent.exists():
        parent = parent.parent
    if not parent.is_dir():
        raise OutputError(f"cannot write {path}: {parent} is a file, not a folder")
    if not os.access(parent, os.W_OK):
        raise OutputError(f"cannot write {path}: no permission to write in {parent}; choose another folder")


def sync(handle: int) -> None:
    """Have the disk keep what was written to an open file or folder. macOS leaves it in the drive's own memory, from
    which it comes in any order, unless the drive is asked too; network drives and some others cannot be."""
    os.fsync(handle)
    if sys.platform == "darwin":
        import fcntl

        with suppress(OSError):
            fcntl.fcntl(handle, fcntl.F_FULLFSYNC)


def sync_folder(folder: Path) -> None:
    """Make what was renamed or made in `folder` outlive a power cut, where folders can be synced."""
    if os.name != "posix":
        return
    try:
        handle = os.open(folder, os.O_RDONLY)
    except PermissionError:  # one may write into it and not look
        return
    try:
        sync(handle)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # as some network file systems answer
            raise
    finally:
        os.close(handle)


_OURS = re.compile(r"(\.pixelwise-[0-9a-f]{8}\.)(lock|part\..*)", re.DOTALL)
_CLAIM = ".pixelwise-run-"
_CLAIM_NAME = re.compile(re.escape(_CLAIM) + "([0-9]+)-[0-9a-f]{8}")
_OWNER = "pixelwise "
"""The beginning of every lock, before the number of the process."""


@contextmanager
def _temporary(path: Path) -> Iterator[Path]:
    """A new file beside `path`, whose name says that it is ours and to which lock it belongs; removed in the end."""
    while True:
        head = f".pixelwise-{os.urandom(4).hex()}."
        lock = path.with_name(f"{head}lock")
        try:
            handle = locks.take(lock)
        except OSError as error:
            if error.errno not in locks.NO_LOCKS:
                raise
            handle = -1  # nobody can lock it, so nobody will take it for a leftover either
        if handle is not None:
            break  # else another takes it for a leftover just now
    temporary = path.with_name(f"{head}part.{path.stem[:40]}{path.suffix}")
    try:
        os.close(os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
        yield temporary
    finally:
        if locks.holds(handle):
            temporary.unlink(missing_ok=True)
            locks.release(handle, lock)
        elif handle < 0:
            temporary.unlink(missing_ok=True)


_looked_through: set[Path] = set()


def _remove_leftovers(folder: Path) -> None:
    """Remove what writers that were killed left in `folder`, once in a process: of our names, held by nobody."""
    if folder in _looked_through:
        return
    _looked_through.add(folder)
    left: dict[str, list[Path]] = {}
    with suppress(OSError):
        for name in os.listdir(folder):
            if ours := _OURS.fullmatch(name):
                left.setdefault(ours[1], []).append(folder / name)
    for head, files in left.items():
        lock = folder / f"{head}lock"  # made where it is missing, so that there is one to hold
        with suppress(OSError):  # what cannot be held stays
            if (handle := locks.take(lock)) is not None:
                for file in set(files) - {lock}:
                    with suppress(OSError):
                        file.unlink()
                locks.release(handle, lock)


def _write(handle: int, text: str) -> None:
    os.lseek(handle, 0, os.SEEK_SET)
    os.ftruncate(handle, 0)
    with open(handle, "w", encoding="utf-8", errors="surrogateescape", newline="\n", closefd=False) as file:
        file.write(text)


def _read(path: Path) -> str:
    """What a lock file says, "" where it cannot be read."""
    with suppress(OSError):
        return path.read_text(encoding="utf-8", errors="surrogateescape").strip()
    return ""


def _warn_of_no_locks(path: Path) -> None:
    warnings.warn(
        f"{path.parent} lies on a disc that knows no locks; see to it that no other run works there",
        PixelwiseWarning,
        stacklevel=4,
    )


def _cannot(path: Path, error: OSError) -> OutputError:
    if isinstance(error, locks.NoLock):
        return OutputError(
            f"{error.filename} lies where a lock belongs and is none of pixelwise's; move it away, or choose another "
            "place"
        )
    if error.errno == errno.ELOOP and path.is_symlink():
        return OutputError(f"cannot write {path}: it is a link; remove it, or choose another place")
    return OutputError(f"cannot write {path}: {error.strerror or error}; choose another place")


_reading_umask = threading.Lock()


def _umask() -> int:
    """The only way to read it is to change it, which two threads must not do at a time."""
    with _reading_umask:
        mask = os.umask(0o077)
        os.umask(mask)
    return mask

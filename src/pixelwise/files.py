"""Writing files so that a reader never meets half of one, and holding places so that no two runs work in one.

What is in the making bears a name of its own, `.pixelwise-*`, and a lock of the process that makes it: when that is
gone, the next one cleans up, and nothing that is somebody else's is ever touched.
"""

from __future__ import annotations

import errno
import json
import os
import re
import sys
import threading
import warnings
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from pixelwise import locks
from pixelwise.errors import InputError, OutputError, PixelwiseWarning
from pixelwise.untrusted import read

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""What the system answers where there is no room."""

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
        handle = _take(path, wait=wait)
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
def claimed(folder: Path, files: Iterable[Path], *, finished: Iterable[Path] = ()) -> Iterator[None]:
    """Hold a claim on `files`, which a run is to write into `folder` and those below, while the block runs. Runs may
    share folders, or lie in each other's, as long as no file is of two of them: a claim lies in each folder of files.
    finished: files that are not written any more, in whose folders a killed run may have left its claims.

    Raises OutputError, naming the file and the process, where another run has claimed one. Folders are made, and where
    nothing was written into them removed again. Of more folders than files may be open a warning says so.
    """
    names = _by_folder(files)
    for place in {file.parent for file in finished} - {folder, *names}:
        _remove_dead_claims(place)
    most = _claims_at_most(len(names))
    if most < len(names):
        warnings.warn(
            f"the results go into {len(names)} folders, and only {most} can be kept from other runs, as so many files "
            "may be open; raise the limit (`ulimit -n`), or see to it that no other run works there",
            PixelwiseWarning,
            stacklevel=3,
        )
    places = {*sorted(names)[:most]}
    with ExitStack() as stack:
        for place in sorted({folder, *names}):  # in one order, so that of any two runs one gets all
            stack.enter_context(_claim(place, names.get(place, {}), holds=place in places))
        yield


def refuse_claimed(files: Iterable[Path]) -> None:
    """Raise OutputError, naming the file and the process, where a run that is at work has claimed one of `files`."""
    for folder, names in _by_folder(files).items():
        _refuse_claims(folder, names)


def _by_folder(files: Iterable[Path]) -> dict[Path, dict[str, Path]]:
    """The files by their folder and their name in it."""
    names: dict[Path, dict[str, Path]] = {}
    for file in files:
        names.setdefault(file.parent, {})[os.path.normcase(file.name)] = file
    return names


@contextmanager
def _claim(folder: Path, names: Mapping[str, Path], *, holds: bool) -> Iterator[None]:
    """The same in one folder; what killed runs have left there is removed. holds: make a claim, and not only respect
    those of others."""
    made = [place for place in (folder, *folder.parents) if not place.exists()]
    path, handle = folder / f"{_CLAIM}{os.getpid()}-{os.urandom(4).hex()}", None
    try:
        with held(folder / f"{_CLAIM}lock", str(folder), wait=True):
            _remove_leftovers(folder)
            _refuse_claims(folder, names)
            try:
                if holds:
                    handle = locks.take(path, wait=True, says=_claim_says(str(os.getpid())))
                    assert handle is not None  # it waits for those who look whether it is held
                    _write(handle, f"{_OWNER}{os.getpid()}\n{json.dumps([*names])}\n")
            except OSError as error:
                if error.errno not in locks.NO_LOCKS:  # of which `held` has warned
                    raise _cannot(path, error) from error
        yield
    finally:
        if handle is not None:
            locks.release(handle, path)
        for place in made:
            _remove_if_new(place, True)


def _claims_at_most(count: int) -> int:
    """How many of so many claims may be held, each an open file, with room for all else; as many as are allowed."""
    if sys.platform == "win32":
        return min(count, 4096)
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = count + _OTHER_FILES
    if soft == resource.RLIM_INFINITY or count <= max(soft // 2, soft - _OTHER_FILES):
        return count
    if hard != resource.RLIM_INFINITY:
        wanted = min(wanted, hard)
    with suppress(OSError, ValueError):
        if wanted > soft:
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
            soft = wanted
    return min(count, max(soft // 2, soft - _OTHER_FILES))


def _remove_if_new(folder: Path, is_new: bool) -> None:
    if is_new:
        with suppress(OSError):  # there is something in it, as should be
            folder.rmdir()


def _remove_dead_claims(folder: Path) -> None:
    _refuse_claims(folder, {})
    lock = folder / f"{_CLAIM}lock"
    with suppress(OSError):
        if lock.exists() and (handle := locks.take(lock)) is not None:
            locks.release(handle, lock)


def _refuse_claims(folder: Path, names: Mapping[str, Path]) -> None:
    """Raise if a living run has claimed one of `names`; remove what dead ones left."""
    for path in folder.glob(f"{_CLAIM}*-*"):
        if ours := _CLAIM_NAME.fullmatch(path.name):
            who, claims = _claims(path, ours[1])
            if both := names.keys() & claims:
                raise busy(str(names[min(both)]), who)


def _claims(path: Path, process: str) -> tuple[str, set[str]]:
    """Who has claimed which names; of a dead one the claim is removed, and what is no claim of ours counts for none."""
    try:
        handle = locks.take(path, says=_claim_says(process))
        if handle is not None:
            locks.release(handle, path)
            return "", set()
    except OSError as error:
        if isinstance(error, locks.NoLock) or error.errno == errno.ELOOP:
            return "", set()
    who, _, text = _read(path).partition("\n")
    try:
        return who, {*read(text, list[str], "a claim", most=_CLAIM_BYTES, surrogates=True)}
    except InputError:
        return who, {*text.split("\n")}  # as it was written before it was JSON


def _take(path: Path, *, wait: bool = False) -> int | None:
    """`locks.take` in a folder that is made, and made again where a run that leaves it empty removes it meanwhile."""
    for _ in range(100):
        with suppress(FileNotFoundError):
            make_folder(path.parent)
            return locks.take(path, wait=wait)
    return locks.take(path, wait=wait)


def _claim_says(process: str) -> re.Pattern[bytes]:
    """What a claim of that process says: its number as in every lock, and the files; or zeros, where the power went."""
    return re.compile(rb"((pixelwise )?%s(\n.*)?)?|\0*" % process.encode(), re.DOTALL)


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
        raise OutputError(
            f"{path} exists already; --overwrite (in Python overwrite=True) replaces it, or choose another place"
        )
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
_CLAIM_BYTES = 2**28
_OTHER_FILES = 200
_OWNER = "pixelwise "
"""The beginning of every lock, before the number of the process."""


@contextmanager
def _temporary(path: Path) -> Iterator[Path]:
    """A new file beside `path`, whose name says that it is ours and to which lock it belongs; removed in the end."""
    while True:
        head = f".pixelwise-{os.urandom(4).hex()}."
        lock = path.with_name(f"{head}lock")
        try:
            handle = _take(lock)
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
    advice = "free some space, or choose another place" if error.errno in FULL else "choose another place"
    return OutputError(f"cannot write {path}: {error.strerror or error}; {advice}")


_reading_umask = threading.Lock()


def _umask() -> int:
    """The only way to read it is to change it, which two threads must not do at a time."""
    with _reading_umask:
        mask = os.umask(0o077)
        os.umask(mask)
    return mask

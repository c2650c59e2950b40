"""Locks on files, which last as long as the process: one that is killed lets go of them at once.

flock on Unix, msvcrt on Windows. Two threads of one process are kept apart as two processes are, and a process that was
forked off holds nothing of its parent's. A file that is no lock of ours is neither written nor removed, whatever its
name.
"""

from __future__ import annotations

import errno
import os
import re
import stat
import sys
from contextlib import suppress
from pathlib import Path

NO_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP, errno.EINVAL}
"""What systems answer for files on discs that know no locks, as some network file systems."""

_HELD_BY_ANOTHER = {errno.EAGAIN, errno.EWOULDBLOCK, errno.EACCES, errno.EDEADLK}
_FAR = 1 << 30
"""Windows lets nobody read the bytes that are locked, so it is one behind all that is written."""

PLAIN = re.compile(rb"(pixelwise )?[0-9]{0,20}\n?|\0{0,40}")
"""What a lock of ours says: the process that holds it, after a word that earlier versions left out; nothing where that
was not yet written, and zeros where the power went meanwhile."""

_HEAD = 64
"""Bytes that such a pattern is held against."""

_held: dict[int, re.Pattern[bytes]] = {}


class NoLock(OSError):
    """Something that is no lock of ours lies where one belongs."""

    def __init__(self, path: Path) -> None:
        super().__init__(errno.EEXIST, "it is no lock of pixelwise", str(path))


def take(path: Path, *, wait: bool = False, says: re.Pattern[bytes] = PLAIN) -> int | None:
    """Make the file `path` if need be and lock it; a handle for `release`, or None where another holds it.

    wait: until the other lets go of it. says: what the first 64 bytes of a lock of ours are. Raises NoLock for what is
    none: says something else, has a second name (a hard link), or is no file. Raises OSError where the file cannot be
    opened (ELOOP: it is a link) or locked; on a disc that knows no locks it is removed.
    """
    flags = os.O_RDWR | os.O_CREAT
    for flag in ("O_NOFOLLOW", "O_NONBLOCK", "O_BINARY"):
        flags |= getattr(os, flag, 0)
    while True:
        _refuse_other_kinds(path)
        handle = os.open(path, flags, 0o666)
        try:
            try:
                got_it = _lock(handle, wait)
            except OSError as error:
                if error.errno in NO_LOCKS and _is_there(handle, path):
                    _refuse_others(handle, path, says)
                    path.unlink()
                raise
            if not got_it:
                os.close(handle)
                return None
            if _is_there(handle, path):
                _refuse_others(handle, path, says)
                _held[handle] = says
                return handle
        except BaseException:
            os.close(handle)
            raise
        os.close(
            handle
        )  # whoever held it before has removed it: what is locked is no longer the file of that name


def holds(handle: int) -> bool:
    """Whether this process has taken it; what was forked off since has not."""
    return handle in _held


def release(handle: int, path: Path) -> None:
    """Remove the file that `take` has locked, unless it is another by now, and let go of it."""
    if not holds(handle):
        return
    says = _held.pop(handle)
    try:
        ours = _is_there(handle, path) and _is_ours(handle, says)
    except OSError:
        ours = False
    if sys.platform != "win32" and ours:
        _unlink(path)  # before another can lock it
    os.close(handle)
    if sys.platform == "win32" and ours:
        _unlink(path)  # which Windows does to no file that somebody has open


def _unlink(path: Path) -> None:
    with suppress(OSError):  # a lock that cannot be removed stays, and holds nobody up
        path.unlink()


def _refuse_other_kinds(path: Path) -> None:
    """Raise before it is opened, which with a pipe or a device can do anything."""
    try:
        mode = os.lstat(path).st_mode
    except OSError:  # which opening it says better
        return
    if stat.S_ISLNK(mode):
        raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), str(path))
    if not stat.S_ISREG(mode):
        raise NoLock(path)


def _is_there(handle: int, path: Path) -> bool:
    """Whether what is open is still the file of that name."""
    try:
        return os.path.samestat(os.fstat(handle), os.lstat(path))
    except FileNotFoundError:
        return False


def _refuse_others(handle: int, path: Path, says: re.Pattern[bytes]) -> None:
    if not _is_ours(handle, says):
        raise NoLock(path)


def _is_ours(handle: int, says: re.Pattern[bytes]) -> bool:
    about = os.fstat(handle)
    if not stat.S_ISREG(about.st_mode) or about.st_nlink != 1:
        return False
    os.lseek(handle, 0, os.SEEK_SET)
    return says.fullmatch(os.read(handle, _HEAD)) is not None


def _lock(handle: int, wait: bool) -> bool:
    try:
        if sys.platform == "win32":
            import msvcrt

            os.lseek(handle, _FAR, os.SEEK_SET)
            msvcrt.locking(handle, msvcrt.LK_LOCK if wait else msvcrt.LK_NBLCK, 1)
        else:
            import fcntl

            fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except OSError as error:
        if error.errno in _HELD_BY_ANOTHER:
            return False
        raise
    return True


def _hold_nothing() -> None:
    for handle in _held:
        with suppress(OSError):
            os.close(handle)
    _held.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_hold_nothing)

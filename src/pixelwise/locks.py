"""Locks on files, which last as long as the process: one that is killed lets go of them at once.

flock on Unix, msvcrt on Windows. Two threads of one process are kept apart as two processes are, and a process that was
forked off holds nothing of its parent's.
"""

from __future__ import annotations

import errno
import os
import sys
from contextlib import suppress
from pathlib import Path

NO_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP, errno.EINVAL}
"""What systems answer for files on discs that know no locks, as some network file systems."""

_HELD_BY_ANOTHER = {errno.EAGAIN, errno.EWOULDBLOCK, errno.EACCES, errno.EDEADLK}
_FAR = 1 << 30
"""Windows lets nobody read the bytes that are locked, so it is one behind all that is written."""

_held: set[int] = set()


def take(path: Path, *, wait: bool = False) -> int | None:
    """Make the file `path` if need be and lock it; a handle for `release`, or None where another holds it.

    wait: until the other lets go of it. Raises OSError where the file cannot be opened (ELOOP: it is a link) or locked.
    """
    flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)
    while True:
        if not hasattr(os, "O_NOFOLLOW") and path.is_symlink():
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), str(path))
        handle = os.open(path, flags, 0o666)
        try:
            if not _lock(handle, wait):
                os.close(handle)
                return None
            if os.path.samestat(os.fstat(handle), os.lstat(path)):
                _held.add(handle)
                return handle
        except FileNotFoundError:
            pass
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
    """Remove the file that `take` has locked, and let go of it."""
    if not holds(handle):
        return
    _held.discard(handle)
    if sys.platform != "win32":
        _unlink(path)  # before another can lock it
    os.close(handle)
    if sys.platform == "win32":
        _unlink(path)  # which Windows does to no file that somebody has open


def _unlink(path: Path) -> None:
    with suppress(OSError):  # a lock that cannot be removed stays, and holds nobody up
        path.unlink()


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

"""Memory that a step gives back is kept for the next one, which asks for the same again."""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager


def memory_here() -> int:
    """Bytes of the machine's memory; 0 where the system does not say."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return 0


M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, M_MMAP_MAX = -1, -3, -4
"""Of glibc's malloc.h."""


@contextmanager
def freed_memory_kept() -> Iterator[None]:
    """Large tensors on the CPU come from the process's heap, which does not shrink meanwhile; also a decorator.

    glibc fetches each block above 32 MiB from the system and returns it when it is freed, so every step pays for
    hundreds of thousands of page faults: a fifth of its time, for the same numbers. Afterwards all of it is returned.
    Does nothing where the C library is another one.
    """
    library = ctypes.CDLL(None) if sys.platform == "linux" else None
    mallopt, trim = (getattr(library, name, None) for name in ("mallopt", "malloc_trim"))
    if mallopt is None or trim is None:
        yield
        return
    mallopt(M_MMAP_MAX, 0)
    mallopt(M_TRIM_THRESHOLD, -1)
    try:
        yield
    finally:
        mallopt(M_MMAP_MAX, 65536)  # glibc's own, and the two thresholds as they grow to by themselves
        mallopt(M_MMAP_THRESHOLD, 32 << 20)
        mallopt(M_TRIM_THRESHOLD, 64 << 20)
        trim(0)

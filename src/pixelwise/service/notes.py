"""Notes: what is said of a picture while it is read, such as that only its first page is used, for whoever sent it.

The library says it by Python's warnings, which belong to a process; here the thread tells whose they are.
"""

from __future__ import annotations

import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from pixelwise import images
from pixelwise.errors import PixelwiseWarning

_mine = threading.local()


def keep_notes() -> None:
    """From now on a PixelwiseWarning goes to who collects in its thread; without one, to where it went."""
    before = warnings.showwarning

    def show(message: Warning | str, category: type[Warning], *where: Any, **more: Any) -> None:
        collected: list[str] | None = getattr(_mine, "notes", None)
        if collected is None or not issubclass(category, PixelwiseWarning):
            before(message, category, *where, **more)
        else:
            collected.append(str(message))

    warnings.showwarning = show
    warnings.simplefilter("always", PixelwiseWarning)


@contextmanager
def collected() -> Iterator[list[str]]:
    """What is said in this thread while the block runs, where `keep_notes` was called."""
    images.say_again()
    found: list[str] = []
    _mine.notes = found
    try:
        yield found
    finally:
        _mine.notes = None

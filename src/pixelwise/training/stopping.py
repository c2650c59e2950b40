"""Ctrl-C during a run: the step at hand is finished, so that it can be kept; a second one does not wait for it."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

WAITS = "stopping after this step; Ctrl-C again stops at once, with what the last checkpoint keeps"


class CtrlC:
    """Turns Ctrl-C into KeyboardInterrupt at once, but within `whole` at its end, when what it holds is done.

    torn: whether a block was left in the middle, because of a second Ctrl-C or anything else.
    """

    def __init__(self, tell: Callable[[str], None]) -> None:
        self.torn = False
        self._tell, self._inside, self._asked = tell, False, False

    @contextmanager
    def whole(self) -> Iterator[None]:
        """A block that is done whole or not at all."""
        self._inside = self.torn = True
        try:
            yield
            self.torn = False
        finally:
            self._inside = False
        if self._asked:
            raise KeyboardInterrupt

    def handle(self, *_: Any) -> None:
        """The handler of the signal."""
        if not self._inside or self._asked:
            raise KeyboardInterrupt
        self._asked = True
        self._tell(WAITS)


@contextmanager
def ctrl_c(tell: Callable[[str], None], *, alone: bool) -> Iterator[CtrlC]:
    """Take Ctrl-C while the block runs, where it is Python's own to take: in the main thread, and where nobody else
    does. tell: says that it will stop; it is called within the handler. alone: False for one of several processes,
    which must not wait for steps that the others have left."""
    taken = CtrlC(tell)
    ours = (
        alone
        and threading.current_thread() is threading.main_thread()
        and signal.getsignal(signal.SIGINT) is signal.default_int_handler
    )
    if ours:
        signal.signal(signal.SIGINT, taken.handle)
    try:
        yield taken
    finally:
        if ours:
            signal.signal(signal.SIGINT, signal.default_int_handler)


def leave_ctrl_c(_: int) -> None:
    """For processes that load pictures, which the terminal sends the signal too: whoever reads them ends them."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)

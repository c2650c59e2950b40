"""An engine in a process of its own: where a forked process cannot run it, and to see whether it survives a file.

The other process is a new Python with the packages of this one, which loads one file and answers what it is shown; it
ends when nobody holds it any longer. What crashes or hangs there does not do so here.
"""

from __future__ import annotations

import errno
import os
import pickle
import signal
import subprocess
import sys
import threading
import weakref
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from pixelwise.errors import PixelwiseError, first_line
from pixelwise.precision import Precision


@dataclass(frozen=True)
class Order:
    """What the other process is to load. opens: the "module:class" of an engine of files. content: the bytes of the
    file at `path`, and of the one beside it; None: they are to be read there."""

    opens: str
    path: Path
    content: tuple[bytes, bytes | None] | None = None
    threads: int | None = None
    device: str | None = None
    precision: Precision | None = None


class Ended(PixelwiseError):
    """The other process ended by itself, or was ended because its time was over. how: which of them."""

    def __init__(self, how: Literal["crashed", "hung"], says: str) -> None:
        super().__init__(says)
        self.how = how


class Apart:
    """An engine's file in a process of its own: float32 (n, c, h, w) to its first output. takes, gives, card: as in
    `file_engine.Loaded`. patience_s: how long loading and each answer may take, None for ever.

    Raises Ended where the process ends, and PixelwiseError with the first line of what was raised there; nothing else.
    What interrupts a call goes through, and the next one starts another process.
    """

    def __init__(self, order: Order, patience_s: float | None = None) -> None:
        self._order, self._patience_s, self._one = order, patience_s, threading.Lock()
        self._start()

    def _start(self) -> None:
        places = [os.path.abspath(place) for place in sys.path]
        code = f"import sys; sys.path[:] = {places!r}; from pixelwise.engines import apart; apart.serve()"
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )  # fmt: skip
        self.close = weakref.finalize(self, _end, self._process)
        self._interrupted = False
        try:
            self.takes, self.gives, self.card = self._answer(self._order)
        except BaseException:
            self.close()
            raise

    def __call__(self, images: NDArray[np.float32]) -> NDArray[np.float32]:
        with self._one:
            if self._interrupted:
                self._start()
            found: NDArray[np.float32] = self._answer(np.ascontiguousarray(images))
        return found

    def _answer(self, what: Any) -> Any:
        """What the process says to that. Where somebody interrupts the wait, by Ctrl-C or a signal's handler, it is
        ended, for its answer would be taken for that to the next question."""
        with self._limited() as late:
            try:
                assert self._process.stdin is not None
                assert self._process.stdout is not None
                pickle.dump(what, self._process.stdin)
                self._process.stdin.flush()
                is_well, answer = pickle.load(self._process.stdout)
            except BaseException as error:
                if not _is_end(error):
                    self._interrupted = True
                    self.close()
                    raise
                code = self._process.wait()
                if late.is_set():
                    raise Ended("hung", f"gave no answer within {self._patience_s:g} seconds") from None
                raise Ended("crashed", f"ended with {_name_of(code)}") from None
        if not is_well:
            raise PixelwiseError(answer)
        return answer

    @contextmanager
    def _limited(self) -> Iterator[threading.Event]:
        """The process is killed, and the event set, when its time is over."""
        late = threading.Event()
        if self._patience_s is None:
            yield late
            return

        def kill() -> None:
            late.set()
            self._process.kill()

        timer = threading.Timer(self._patience_s, kill)
        timer.daemon = True
        timer.start()
        try:
            yield late
        finally:
            timer.cancel()


def _is_end(error: BaseException) -> bool:
    """Whether that is how it shows that the other process is no more; TimeoutError is an OSError too."""
    broken = isinstance(error, OSError) and error.errno in (errno.EPIPE, errno.EINVAL)
    return broken or isinstance(error, (EOFError, pickle.UnpicklingError))


def _end(process: subprocess.Popen[bytes]) -> None:
    for pipe in (process.stdin, process.stdout):
        with suppress(OSError):  # what is left to write goes nowhere
            if pipe is not None:
                pipe.close()
    process.kill()
    process.wait()


def _name_of(code: int) -> str:
    """How a process ended, in words."""
    if code < 0:
        with suppress(ValueError):
            return signal.Signals(-code).name
    return f"code {code}"


def serve() -> None:
    """What the other process does."""
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a library prints is no answer
    loaded = None
    with suppress(EOFError):
        while True:
            asked = pickle.load(sys.stdin.buffer)
            try:
                if isinstance(asked, Order):
                    loaded = _loaded(asked)
                    answer: Any = loaded.takes, loaded.gives, loaded.card
                else:
                    assert loaded is not None
                    answer = loaded.run(asked)
                said = True, answer
            except Exception as error:  # the runtimes' exceptions share no base class of their own
                said = False, first_line(error)
            pickle.dump(said, answers)
            answers.flush()


def _loaded(order: Order) -> Any:
    module, _, kind = order.opens.partition(":")
    return getattr(import_module(module), kind).bare(order)

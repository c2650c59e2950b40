"""The desk: how many requests are accepted, who waits, and the threads that segment."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

from starlette.requests import ClientDisconnect, Request

from pixelwise.service.limits import Limits
from pixelwise.service.logs import log_failure
from pixelwise.service.refusals import Refused, refusal

T = TypeVar("T")


class Stopped(Exception):
    """Nobody waits for the answer any more."""


NOBODY = Refused(503, "too_late", "nobody waits for the answer any more")

_asked = threading.local()


class Stoppable:
    """An engine that does not begin a forward pass for somebody who has gone: tiles and flips are many of them."""

    def __init__(self, engine: Any) -> None:
        self._engine = engine

    def __call__(self, images: Any) -> Any:
        if (stop := getattr(_asked, "stop", None)) is not None and stop.is_set():
            raise Stopped
        return self._engine(images)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._engine, name)


class Desk:
    """Gives places to as many requests as may be accepted, and threads to those that have one."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.accepted = 0
        self._counting = threading.Lock()
        self.open()

    @property
    def full(self) -> bool:
        return self.accepted >= self.limits.places

    def accept(self) -> Place:
        """A place for a request, or Refused."""
        self.check_open()
        if self.full:
            raise Refused(
                429,
                "busy",
                f"{self.accepted} requests wait or are at work, as many as may; try again in a moment",
            )
        with self._counting:
            self.accepted += 1
        return Place(self)

    def free(self) -> None:
        """One place more, also from a thread."""
        with self._counting:
            self.accepted -= 1

    def check_open(self) -> None:
        """Raise Refused where the service ends."""
        if self.closing:
            raise Refused(503, "closing", "the service is ending; try again in a moment")

    def open(self) -> None:
        """Take on requests, again where it was closed."""
        self.closing = False
        self.threads = ThreadPoolExecutor(self.limits.at_once, thread_name_prefix="segment")

    def close(self) -> None:
        """Take on nothing more; what has not begun never does."""
        self.closing = True
        self.threads.shutdown(wait=False, cancel_futures=True)


class Place:
    """Of one accepted request, until `leave`, and as long as a thread is at its work."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._deadline = time.monotonic() + desk.limits.timeout_s
        self._stop = threading.Event()
        self._work: Future[Any] | None = None
        self._gone: asyncio.Task[None] | None = None
        self._left = False

    async def do(self, request: Request, work: Callable[[], T]) -> T | Refused:
        """What `work` gives, in one of the threads, or why it gives nothing. Raises Refused when the time is up,
        ClientDisconnect when the other side has gone; what has not begun by then never does."""

        def begin() -> T | Refused:
            # No exception leaves the thread: its traceback holds pictures, and is held by what it goes through
            _asked.stop = self._stop
            try:
                if self._stop.is_set():
                    raise Stopped
                return work()
            except Stopped:
                return NOBODY
            except BaseException as error:
                refused = refusal(error)
                if refused.is_unforeseen:
                    log_failure(error, request.state.request_id)
                return refused
            finally:
                _asked.stop = None

        self._desk.check_open()
        if self._gone is None:
            self._gone = asyncio.create_task(_gone(request))
        self._work = self._desk.threads.submit(begin)
        answer: asyncio.Future[T | Refused] = asyncio.wrap_future(self._work)
        try:
            left = max(0.0, self._deadline - time.monotonic())
            either: list[asyncio.Future[Any]] = [answer, self._gone]
            await asyncio.wait(either, timeout=left, return_when=asyncio.FIRST_COMPLETED)
            if answer.done():
                return answer.result()
        finally:
            if not answer.done():
                self._stop.set()
                self._work.cancel()  # if it waits
                answer.cancel()
        if self._gone.done():
            raise ClientDisconnect
        seconds = self._desk.limits.timeout_s
        raise Refused(
            503,
            "too_late",
            f"there was no answer within {seconds:g} seconds; try again, or send a smaller picture",
        )

    def leave(self) -> None:
        """The request is over; its place is free when its work is too."""
        if self._left:
            return
        self._left = True
        if self._gone is not None:
            self._gone.cancel()
        if self._work is None or self._work.done():
            self._desk.free()
            return
        self._work.add_done_callback(lambda _: self._desk.free())


async def _gone(request: Request) -> None:
    """Returns when the other side has closed the connection."""
    while (await request.receive())["type"] != "http.disconnect":
        pass

"""Logs: one JSON object a line. Of a request what it was and what became of it, nothing of what was in it."""

from __future__ import annotations

import atexit
import json
import logging
import queue
import sys
import threading
import time
from contextlib import suppress
from datetime import datetime, timezone
from typing import Any

LOGGER = logging.getLogger("pixelwise.requests")

MOST_LINES, LAST_LINES_S = 10_000, 2.0
"""That wait to be written, and seconds that they get at the end."""

SPARING_S = 60.0
"""Seconds until the same trouble of the machine is said again."""


def log_request(level: int, error: BaseException | None, /, **about: Any) -> None:
    """A line about a request. error: what nobody foresaw, of which it says where."""
    LOGGER.log(level, "request", extra={"about": about}, exc_info=error)


def log_failure(error: BaseException, id: str) -> None:
    """A line about a picture that nobody foresaw: what was raised, and where."""
    log_request(logging.ERROR, error, id=id, error="failed")


class Lines(logging.Formatter):
    """A record as one JSON object: time (UTC), level, and of a request what is known of it, else the message."""

    def format(self, record: logging.LogRecord) -> str:
        time = datetime.fromtimestamp(record.created, timezone.utc).isoformat(timespec="milliseconds")
        about: dict[str, Any] = getattr(record, "about", None) or {"message": record.getMessage().strip()}
        line = {"time": time.replace("+00:00", "Z"), "level": record.levelname.lower(), **about}
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line)


class Sparing(logging.Filter):
    """Lets through what is news: that there are no file descriptors once a minute, without a traceback, where asyncio
    says it hundreds of times a second; that an answer was not read to its end never, as the request's own line does."""

    def __init__(self) -> None:
        super().__init__()
        self._next = 0.0

    def filter(self, record: logging.LogRecord) -> bool:
        message = record.getMessage()
        if record.name == "asyncio" and message.startswith("socket.accept() out of system resource"):
            record.exc_info = None
            is_news = record.created >= self._next
            if is_news:
                self._next = record.created + SPARING_S
            return is_news
        return not message.startswith("ASGI callable returned without completing response")


class ToStderr(logging.Handler):
    """Writes lines to standard error in a thread of its own: whoever reads them may stand still, and no request waits
    for that. Lines that find no room are counted, and that is said when there is room again."""

    def __init__(self) -> None:
        super().__init__()
        self.setFormatter(Lines())
        self.addFilter(Sparing())
        self._lines: queue.Queue[str] = queue.Queue(MOST_LINES)
        self._lost = 0
        threading.Thread(target=self._write, daemon=True).start()

    def emit(self, record: logging.LogRecord) -> None:
        try:
            self._lines.put_nowait(self.format(record))
        except queue.Full:
            self._lost += 1

    def _write(self) -> None:
        while True:
            line = self._lines.get()
            if lost := self._lost:
                self._lost = 0
                words = f"{lost} lines of the log were lost, as nobody read them"
                lost_line = logging.LogRecord("pixelwise", logging.WARNING, "", 0, words, None, None)
                line = f"{line}\n{self.format(lost_line)}"
            with suppress(OSError, ValueError):  # it is closed
                sys.stderr.write(f"{line}\n")
                sys.stderr.flush()
            self._lines.task_done()

    def end(self) -> None:
        """Wait until all is written, but not for one who does not read."""
        until = time.monotonic() + LAST_LINES_S
        while self._lines.unfinished_tasks and time.monotonic() < until:
            time.sleep(0.01)


_handlers: list[ToStderr] = []


def log_to_stderr(of_server: int = logging.WARNING) -> None:
    """Have the service, its server and whatever else logs write such lines to standard error. of_server: from
    which level its own are written."""
    handler = ToStderr()
    _handlers.append(handler)
    atexit.register(handler.end)
    for name, level in (
        ("", logging.WARNING),
        ("pixelwise.requests", logging.INFO),
        ("uvicorn", of_server),
        ("asyncio", logging.ERROR),
    ):
        logger = logging.getLogger(name)
        logger.handlers, logger.propagate = [handler], False
        logger.setLevel(level)


def end_log() -> None:
    """Have what is logged written before the process ends."""
    for handler in _handlers:
        handler.end()

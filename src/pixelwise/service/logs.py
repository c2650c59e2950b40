"""Logs: one JSON object a line. Of a request what it was and what became of it, nothing of what was in it."""

from __future__ import annotations

import json
import logging
import sys
from datetime import datetime, timezone
from typing import Any

LOGGER = logging.getLogger("pixelwise.requests")

SPARING_S = 60.0
"""Seconds until the same trouble of the machine is said again."""


def log_request(level: int, error: Exception | None, /, **about: Any) -> None:
    """A line about a request. error: what nobody foresaw, of which it says where."""
    LOGGER.log(level, "request", extra={"about": about}, exc_info=error)


def log_failure(error: Exception, id: str) -> None:
    """A line about one of several pictures of a request, and where nobody foresaw it."""
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


def log_to_stderr(of_server: int = logging.WARNING) -> None:
    """Have the service, its server and whatever else logs write such lines to standard error. of_server: from
    which level its own are written."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(Lines())
    handler.addFilter(Sparing())
    for name, level in (
        ("", logging.WARNING),
        ("pixelwise.requests", logging.INFO),
        ("uvicorn", of_server),
        ("asyncio", logging.ERROR),
    ):
        logger = logging.getLogger(name)
        logger.handlers, logger.propagate = [handler], False
        logger.setLevel(level)

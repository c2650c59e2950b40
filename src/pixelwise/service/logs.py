"""Logs: one JSON object a line. Of a request what it was and what became of it, nothing of what was in it."""

from __future__ import annotations

import json
import logging
import sys
from datetime import datetime, timezone
from typing import Any

LOGGER = logging.getLogger("pixelwise.requests")


def log_request(level: int, error: Exception | None, /, **about: Any) -> None:
    """A line about a request. error: what nobody foresaw, of which it says where."""
    LOGGER.log(level, "request", extra={"about": about}, exc_info=error)


class Lines(logging.Formatter):
    """A record as one JSON object: time (UTC), level, and of a request what is known of it, else the message."""

    def format(self, record: logging.LogRecord) -> str:
        time = datetime.fromtimestamp(record.created, timezone.utc).isoformat(timespec="milliseconds")
        about: dict[str, Any] = getattr(record, "about", None) or {"message": record.getMessage().strip()}
        line = {"time": time.replace("+00:00", "Z"), "level": record.levelname.lower(), **about}
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line)


def log_to_stderr() -> None:
    """Have the service and its server write such lines to standard error."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(Lines())
    for name, level in (
        ("pixelwise.requests", logging.INFO),
        ("uvicorn", logging.WARNING),
        ("asyncio", logging.ERROR),
    ):
        logger = logging.getLogger(name)
        logger.handlers, logger.propagate = [handler], False
        logger.setLevel(level)

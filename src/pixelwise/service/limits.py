"""Limits: what the service takes on before it reads or decodes anything."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass, fields

from pixelwise.errors import InputError

WAITING = 8
"""Requests that may wait for each worker."""

MOST_WORKERS = 4
"""Threads that segment, unless more are asked for: each takes the memory of a picture and of a network's features."""


@dataclass(frozen=True)
class Limits:
    """max_bytes: of the body of a request. max_pixels: of all pictures of a request together, as they declare them.
    max_pictures: of a request. workers: threads that segment; None: one a core, at most 4. queue: requests that were
    accepted and wait for a worker; None: 8 a worker. timeout_s: seconds from accepting a request to its answer.
    body_timeout_s: seconds for its body to arrive. max_memory: bytes that networks may take for what they are shown;
    a picture that would take more is cut into tiles; None: half of what is free at the start.

    Raises InputError for what is no positive number.
    """

    max_bytes: int = 64_000_000
    max_pixels: int = 120_000_000
    max_pictures: int = 16
    workers: int | None = None
    queue: int | None = None
    timeout_s: float = 60.0
    body_timeout_s: float = 20.0
    max_memory: int | None = None

    def __post_init__(self) -> None:
        for one in fields(self):
            value, least = getattr(self, one.name), 0 if one.name == "queue" else 1
            if (
                value is not None
                and not (isinstance(value, (int, float)) and least <= value < math.inf)
                and not (one.name.endswith("_s") and 0 < value < math.inf)
            ):
                raise InputError(f"{one.name} takes a number from {least} up, got {value!r}")

    @property
    def at_once(self) -> int:
        """How many threads segment."""
        if self.workers is not None:
            return self.workers
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        return min(MOST_WORKERS, cores)

    @property
    def places(self) -> int:
        """How many requests may be accepted and not yet answered."""
        return self.at_once + (WAITING * self.at_once if self.queue is None else self.queue)


DEFAULTS = Limits()

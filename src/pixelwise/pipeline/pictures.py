"""Many pictures: decoding, inference and writing overlap, and one bad file does not stop the rest.

One thread decodes a few pictures ahead and a few encode and write. The network runs in the calling thread, one picture
after the other, or where that is asked for several at a time, each in a thread of its own: a small network does not
keep all cores busy with one picture, and what is around it keeps only one. All queues are short and hold a number of
bytes at most, so memory is bounded by a handful of pictures however long the list is, and by one where they are large.
"""

from __future__ import annotations

import sys
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pixelwise import images
from pixelwise.errors import PixelwiseError
from pixelwise.files import writing
from pixelwise.outputs.formats import FORMATS, write_png
from pixelwise.pipeline.options import RUN_DEFAULTS, RunOptions
from pixelwise.segmentation import Segmentation
from pixelwise.sources import STDIN, Source

AHEAD = 2
"""Pictures decoded before the network asks for them."""

WRITERS = 4
"""Threads that encode and write; each may have one more picture waiting."""

MAX_DECODED = 2**28
"""Bytes of decoded pictures that are not yet written; the next is not decoded before there are fewer."""

MAX_SHOWN = 2**24
"""Bytes of pictures as networks take them that are in networks at a time, where several may be: their features take a
hundred times that. A larger one is there alone."""


@dataclass(frozen=True)
class Job:
    """One source and its results: format (or "mask of CLASS") to file."""

    source: Source
    files: dict[str, Path]


@dataclass(frozen=True)
class Outcome:
    """What became of a job: a summary (as `Segmentation.to_dict`), or the error that says why there is none."""

    job: Job
    summary: dict[str, Any] | None = None
    error: PixelwiseError | None = None


def segment_pictures(
    segment: Callable[[NDArray[np.uint8]], Segmentation],
    jobs: Iterable[Job],
    run: RunOptions = RUN_DEFAULTS,
    *,
    channels: int = 3,
    max_pixels: int = images.MAX_PIXELS,
    value_range: images.ValueRange | None = None,
    also: Callable[[Job, NDArray[np.uint8]], None] = lambda job, picture: None,
    at_once: int = 1,
    shown_bytes: Callable[[NDArray[np.uint8]], int] = lambda picture: 0,
) -> Iterator[Outcome]:
    """Segment every job's picture and write its files; outcomes come in the order of the jobs.

    segment: a picture, uint8 (h, w, channels), to Segmentation, and after it `also`; called in the calling thread, or
    with at_once above 1 in so many others at a time, in any order, and of pictures that have no more than MAX_SHOWN
    shown_bytes together. channels, max_pixels, value_range: as in `images.read`. The journal of `run` gets a line for
    every job whose files are in place. An interruption leaves whole files only.
    """
    read = partial(_read, channels=channels, max_pixels=max_pixels, value_range=value_range)
    todo = iter(jobs)
    decoder = ThreadPoolExecutor(1, thread_name_prefix="decode")
    workers = ThreadPoolExecutor(WRITERS + (at_once if at_once > 1 else 0), thread_name_prefix="write")
    decoding: deque[tuple[Job, Future[NDArray[np.uint8]]]] = deque()
    finishing: deque[Future[Outcome]] = deque()
    decoded, shown, turn = Room(MAX_DECODED), Room(MAX_SHOWN), threading.Semaphore(at_once)
    done = 0

    def decode(job: Job) -> NDArray[np.uint8]:
        decoded.wait()
        picture = read(job.source.path)
        decoded.add(picture.nbytes)
        return picture

    def finish(job: Job, picture: NDArray[np.uint8], segmentation: Segmentation) -> Outcome:
        try:
            journal = run.journal if job.source.path != STDIN else None
            if journal is not None:
                journal.begin()
            write(segmentation, job.files, overwrite=run.overwrite)
            if journal is not None:
                journal.add(job.source.path, job.files)
            return Outcome(job, segmentation.to_dict())
        except Exception as error:
            return Outcome(job, error=sentence(job, error))
        finally:
            decoded.add(-picture.nbytes)

    def lost(job: Job, picture: NDArray[np.uint8] | None, error: Exception) -> Outcome:
        if picture is not None:
            decoded.add(-picture.nbytes)
        return Outcome(job, error=sentence(job, error))

    def answer_and_finish(job: Job, coming: Future[NDArray[np.uint8]]) -> Outcome:
        picture: NDArray[np.uint8] | None = None
        try:
            picture = coming.result()
            with turn, shown.held(shown_bytes(picture)):
                segmentation = segment(picture)
                also(job, picture)
        except Exception as error:
            return lost(job, picture, error)
        return finish(job, picture, segmentation)

    def finished() -> Outcome:
        nonlocal done
        outcome = finishing.popleft().result()
        done += 1
        run.progress(done)
        return outcome

    def decode_more() -> None:
        while len(decoding) <= AHEAD and (job := next(todo, None)) is not None:
            decoding.append((job, decoder.submit(decode, job)))

    waiting = 2 * WRITERS + (at_once if at_once > 1 else 0)
    try:
        decode_more()
        while decoding:
            job, coming = decoding.popleft()
            if at_once > 1:
                finishing.append(workers.submit(answer_and_finish, job, coming))
            else:
                picture: NDArray[np.uint8] | None = None
                try:
                    picture = coming.result()
                    segmentation = segment(picture)
                    also(job, picture)
                    finishing.append(workers.submit(finish, job, picture, segmentation))
                except Exception as error:
                    finishing.append(workers.submit(lost, job, picture, error))
            decode_more()
            while finishing and (finishing[0].done() or len(finishing) > waiting):
                yield finished()
        while finishing:
            yield finished()
    finally:
        decoded.open_for_good()
        decoder.shutdown(wait=False, cancel_futures=True)
        workers.shutdown(wait=True, cancel_futures=True)


class Room:
    """Bytes that are in use, and threads that wait until there are fewer. most: how many may be."""

    def __init__(self, most: int) -> None:
        self._most, self._used, self._changed = most, 0, threading.Condition()

    def wait(self) -> None:
        """Until there is room for anything."""
        with self._changed:
            self._changed.wait_for(lambda: self._used < self._most)

    def add(self, size: int) -> None:
        with self._changed:
            self._used += size
            self._changed.notify_all()

    @contextmanager
    def held(self, size: int) -> Iterator[None]:
        """Wait for so much room, or where that is more than there ever is, for all of it, and hold it."""
        with self._changed:
            self._changed.wait_for(lambda: self._used == 0 or self._used + size <= self._most)
            self._used += size
        try:
            yield
        finally:
            self.add(-size)

    def open_for_good(self) -> None:
        """Nobody waits any more."""
        with self._changed:
            self._most = sys.maxsize
            self._changed.notify_all()


def write(segmentation: Segmentation, files: Mapping[str, Path], *, overwrite: bool) -> None:
    """Write a job's files, each whole or not at all."""
    for name, path in files.items():
        if name in FORMATS:
            segmentation.save(path, format=name, overwrite=overwrite)
        else:
            mask = segmentation.mask(name.removeprefix("mask of "))
            with writing(path, overwrite=overwrite) as temporary:
                write_png(mask, temporary, flat=True)


def _read(
    source: Path, *, channels: int, max_pixels: int, value_range: images.ValueRange | None
) -> NDArray[np.uint8]:
    given = sys.stdin.buffer if source == STDIN else source
    return images.read(given, channels=channels, max_pixels=max_pixels, value_range=value_range)


def sentence(job: Job, error: Exception) -> PixelwiseError:
    """Our own errors as they are; anything else (a runtime's, a codec's) as a sentence with the source's name."""
    if isinstance(error, PixelwiseError):
        return error
    first = (str(error).splitlines() or [""])[0]
    ours = PixelwiseError(f"{job.source.path} failed: {type(error).__name__}: {first} (--debug shows where)")
    ours.__cause__ = error
    return ours

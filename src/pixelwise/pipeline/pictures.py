"""Many pictures: decoding, inference and writing overlap, and one bad file does not stop the rest.

One thread decodes a few pictures ahead, the calling thread runs the network, and a few threads encode and write.
All queues are short, so memory is bounded by a handful of pictures however long the list is.
"""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
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

WRITERS = 2
"""Threads that encode and write; each may have one more picture waiting."""


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
) -> Iterator[Outcome]:
    """Segment every job's picture and write its files; outcomes come in the order of the jobs.

    segment: a picture, uint8 (h, w, channels), to Segmentation, called in the calling thread, and after it `also`.
    channels, max_pixels, value_range: as in `images.read`. The journal of `run` gets a line for every job whose files
    are in place. An interruption leaves whole files only.
    """
    read = partial(_read, channels=channels, max_pixels=max_pixels, value_range=value_range)
    todo = iter(jobs)
    decoder = ThreadPoolExecutor(1, thread_name_prefix="decode")
    writers = ThreadPoolExecutor(WRITERS, thread_name_prefix="write")
    decoding: deque[tuple[Job, Future[NDArray[np.uint8]]]] = deque()
    finishing: deque[Future[Outcome]] = deque()
    done = 0

    def finish(job: Job, segmentation: Segmentation) -> Outcome:
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

    def finished() -> Outcome:
        nonlocal done
        outcome = finishing.popleft().result()
        done += 1
        run.progress(done)
        return outcome

    def decode_more() -> None:
        while len(decoding) <= AHEAD and (job := next(todo, None)) is not None:
            decoding.append((job, decoder.submit(read, job.source.path)))

    try:
        decode_more()
        while decoding:
            job, picture = decoding.popleft()
            try:
                segmentation = segment(picture.result())
                also(job, picture.result())
                finishing.append(writers.submit(finish, job, segmentation))
            except Exception as error:
                failed: Future[Outcome] = Future()
                failed.set_result(Outcome(job, error=sentence(job, error)))
                finishing.append(failed)
            decode_more()
            while finishing and (finishing[0].done() or len(finishing) > 2 * WRITERS):
                yield finished()
        while finishing:
            yield finished()
    finally:
        decoder.shutdown(wait=False, cancel_futures=True)
        writers.shutdown(wait=True, cancel_futures=True)


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

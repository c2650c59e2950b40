"""What `pixelwise segment` does with a list of sources of all kinds."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pixelwise.inference.options import DEFAULTS, SegmentOptions
from pixelwise.pipeline.options import READ_DEFAULTS, RUN_DEFAULTS, ReadOptions, RunOptions
from pixelwise.pipeline.pictures import Job, Outcome, segment_pictures, sentence
from pixelwise.segmenter import Segmenter, Wanted


def settings(options: SegmentOptions, reading: ReadOptions, smooth: float) -> dict[str, Any]:
    """What decides the results, for a journal: the same values as in journals written before there was a clean-up."""
    values = options.to_dict(defaults=True)
    if options.window == SegmentOptions.window:
        values["window"] = None
    bands, scale = (None if v is None else list(v) for v in (reading.bands, reading.scale))
    return {**values, "bands": bands, "scale": scale, "smooth": smooth}


def segment_all(
    segmenter: Segmenter,
    jobs: Sequence[Job],
    options: SegmentOptions = DEFAULTS,
    reading: ReadOptions = READ_DEFAULTS,
    run: RunOptions = RUN_DEFAULTS,
    *,
    smooth: float = 0.0,
    seams: bool = False,
) -> Iterator[Outcome]:
    """Segment sources of all kinds, pictures first; one outcome each.

    smooth: of videos, see `pipeline.video.segment_video`. seams: note for each source how far its tiles agree.
    run.progress gets the number of finished jobs, with the fraction of the one at work.
    """
    pictures = [job for job in jobs if job.source.kind == "picture"]
    others = [job for job in jobs if job.source.kind != "picture"]
    wants_confidence = any("confidence" in job.files for job in pictures)
    segment = partial(segmenter.answer, options=options, wanted=Wanted(confidence=wants_confidence))

    def note_seams(job: Job, picture: NDArray[np.uint8]) -> None:
        if seams:
            found = segmenter.seams(picture, options=options, max_pixels=reading.max_pixels)
            run.note(f"{job.source.path}: {found}")

    def rest() -> Iterator[Outcome]:
        for done, job in enumerate(others, start=len(pictures)):

            def part(share: float, done: int = done) -> None:
                run.progress(done + share)

            try:
                summary = _one(segmenter, job, options, reading, replace(run, progress=part), smooth, seams)
                if run.journal is not None and job.source.path.exists():
                    run.journal.add(job.source.path, job.files)
                result = Outcome(job, summary)
            except Exception as error:
                result = Outcome(job, error=sentence(job, error))
            run.progress(done + 1)
            yield result

    looking = segment_pictures(
        segment,
        pictures,
        run,
        channels=len(segmenter.card.preprocess.mean),
        max_pixels=reading.max_pixels,
        value_range=segmenter.card.preprocess.value_range,
        also=note_seams,
    )
    return itertools.chain(looking, rest())


def _one(
    segmenter: Segmenter, job: Job, options: SegmentOptions, reading: ReadOptions, run: RunOptions,
    smooth: float, seams: bool,
) -> dict[str, Any]:  # fmt: skip
    """A raster or a video; what reads them is loaded here, because a picture needs neither."""
    if job.source.kind == "raster":
        from pixelwise.pipeline.raster import segment_raster

        return segment_raster(segmenter, job.source.path, job.files, options, reading, run, seams=seams)
    from pixelwise.pipeline.video import segment_video

    return segment_video(segmenter, job.source.path, job.files, options, reading, run, smooth=smooth)

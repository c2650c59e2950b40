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
from pixelwise.pipeline.pictures import MAX_SHOWN, Job, Outcome, segment_pictures, sentence
from pixelwise.segmenter import Segmenter, Wanted


def settings(options: SegmentOptions, reading: ReadOptions, smooth: float) -> dict[str, Any]:
    """What decides the results, for a journal: the same values as in journals written before there was a clean-up."""
    values = options.to_dict(defaults=True)
    if options.window == SegmentOptions.window:
        values["window"] = None
    bands, scale = (None if v is None else list(v) for v in (reading.bands, reading.scale))
    of_volumes = {
        "slices": reading.slices,
        "assume_orientation": reading.assume_orientation,
        "frame": reading.frame,
        "series": reading.series,
    }
    said = {name: value for name, value in of_volumes.items() if value}
    return {**values, "bands": bands, "scale": scale, "smooth": smooth, **said}


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
    if run.journal is not None:
        run.journal.made_by = segmenter.made_by
    pictures = [job for job in jobs if job.source.kind == "picture"]
    others = [job for job in jobs if job.source.kind != "picture"]
    wants_confidence = any("confidence" in job.files for job in pictures)
    segment = partial(segmenter.answer, options=options, wanted=Wanted(confidence=wants_confidence))
    at_once = 1 if seams else _at_once(segmenter, len(pictures), options)

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
                    run.journal.add(job.source.path, job.files, job.source.parts)
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
        at_once=at_once,
        shown_bytes=partial(_shown_bytes, segmenter, options),
    )
    return itertools.chain(looking, rest())


AT_ONCE = 4
"""Pictures in the network at a time, at most; each takes the memory of its features."""

PAYS_FROM = 8
"""Pictures from which on it is made ready for that."""


def _at_once(segmenter: Segmenter, pictures: int, options: SegmentOptions) -> int:
    """How many pictures are given to the network at a time: one a core, up to AT_ONCE, of an engine that takes that;
    one where there are few, and where the size of tiles is tried out."""
    if pictures < PAYS_FROM or options.tile == "auto" or segmenter.engine.name != "onnxruntime":
        return 1
    from pixelwise.engines.onnxruntime import OnnxRuntimeEngine

    if not isinstance(segmenter.engine, OnnxRuntimeEngine):  # one that stands for it
        return 1
    return min(AT_ONCE, segmenter.engine.share())


def _shown_bytes(segmenter: Segmenter, options: SegmentOptions, picture: NDArray[np.uint8]) -> int:
    """Of a picture as the network takes it, float32; with the CRF, which takes many times that, more than there may
    be."""
    if options.crf is not None:
        return MAX_SHOWN
    if options.tile is not None:
        tile = options.tile if isinstance(options.tile, tuple) else (int(options.tile), int(options.tile))
        return tile[0] * tile[1] * int(picture.shape[2]) * 4
    height, width = segmenter.card.preprocess.size_hw(picture.shape[0], picture.shape[1])
    return height * width * int(picture.shape[2]) * 4


def _one(
    segmenter: Segmenter, job: Job, options: SegmentOptions, reading: ReadOptions, run: RunOptions,
    smooth: float, seams: bool,
) -> dict[str, Any]:  # fmt: skip
    """A raster, a volume or a video; what reads them is loaded here, because a picture needs neither."""
    if job.source.kind == "raster":
        from pixelwise.pipeline.raster import segment_raster

        about = segment_raster(segmenter, job.source.path, job.files, options, reading, run, seams=seams)
    elif job.source.kind == "volume":
        from pixelwise.pipeline.volume import segment_volume_file

        about = segment_volume_file(segmenter, job.source.path, job.files, options, reading, run)
    else:
        from pixelwise.pipeline.video import segment_video

        about = segment_video(segmenter, job.source.path, job.files, options, reading, run, smooth=smooth)
    return about | segmenter.made_by()

"""What `pixelwise segment` does with a list of sources of all kinds."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from pixelwise import images
from pixelwise.pipeline.journal import Journal
from pixelwise.pipeline.pictures import Job, Outcome, segment_pictures, sentence
from pixelwise.segmentation import Segmentation
from pixelwise.segmenter import Segmenter

RASTER_TILE = 512
"""The tile of a raster for which none is asked: the same on every machine, so that results are the same too."""


@dataclass(frozen=True)
class Options:
    """How to segment. tile to crf: as in `Segmenter`; None leaves its default. seams: say for each source how far its
    tiles agree. bands, scale: of rasters, see `sources.raster.open_raster`. smooth: of videos, see
    `pipeline.video.segment_video`."""

    max_pixels: int = images.MAX_PIXELS
    tile: int | Literal["auto"] | None = None
    overlap: int | float | Literal["auto"] | None = None
    window: str | None = None
    flips: tuple[str, ...] = ()
    rotations: tuple[int, ...] = ()
    scales: tuple[float, ...] = (1.0,)
    average: str = "logits"
    crf: str | None = None
    seams: bool = False
    bands: tuple[int, ...] | None = None
    scale: tuple[float, float] | None = None
    smooth: float = 0.0

    @property
    def as_rasters(self) -> bool:
        """Whether pictures are to be read as rasters, because only those have bands and ranges of values."""
        return self.bands is not None or self.scale is not None

    def settings(self) -> dict[str, Any]:
        """What decides the results, for a journal."""
        values = asdict(self)
        del values["max_pixels"], values["seams"]
        return {name: list(v) if isinstance(v, tuple) else v for name, v in values.items()}

    def calling(self) -> dict[str, Any]:
        """Arguments for calling a Segmenter."""
        names = ("tile", "overlap", "window", "flips", "rotations", "scales", "average", "crf")
        values = {name: getattr(self, name) for name in names}
        return {name: value for name, value in values.items() if value is not None}


def segment_all(
    segmenter: Segmenter,
    jobs: Sequence[Job],
    options: Options,
    *,
    overwrite: bool = False,
    resume: bool = False,
    journal: Journal | None = None,
    progress: Callable[[float], None] = lambda jobs_done: None,
    note: Callable[[str], None] = lambda sentence: None,
) -> Iterator[Outcome]:
    """Segment sources of all kinds, pictures first; one outcome each. progress gets the number of finished jobs, with
    the fraction of the one at work; note gets sentences for the user."""
    done = 0
    pictures = [job for job in jobs if job.source.kind == "picture"]

    def segment(confidence: bool, job: Job, picture: NDArray[np.uint8]) -> Segmentation:
        found = segmenter(picture, confidence=confidence, max_pixels=picture.size, **options.calling())
        if options.seams:
            cut = {name: v for name, v in options.calling().items() if name in ("tile", "overlap")}
            note(f"{job.source.path}: {segmenter.seams(picture, max_pixels=picture.size, **cut)}")
        return found

    wants_confidence = any("confidence" in job.files for job in pictures)
    for outcome in segment_pictures(
        partial(segment, wants_confidence),
        pictures,
        max_pixels=options.max_pixels,
        overwrite=overwrite,
        journal=journal,
    ):
        done += 1
        progress(done)
        yield outcome
    for job in jobs:
        if job.source.kind == "picture":
            continue

        def part(share: float, before: int = done) -> None:
            progress(before + share)

        try:
            one = _raster if job.source.kind == "raster" else _video
            summary = one(segmenter, job, options, overwrite, resume, journal, part, note)
            if journal is not None and job.source.path.exists():
                journal.add(job.source.path, job.files)
            result = Outcome(job, summary)
        except Exception as error:
            result = Outcome(job, error=sentence(job, error))
        done += 1
        progress(done)
        yield result


def _raster(
    segmenter: Segmenter, job: Job, options: Options, overwrite: bool, resume: bool, journal: Journal | None,
    progress: Callable[[float], None], note: Callable[[str], None],
) -> dict[str, Any]:  # fmt: skip
    from pixelwise.pipeline.raster import segment_raster

    return segment_raster(
        segmenter,
        job.source.path,
        job.files,
        settings="" if journal is None else journal.hash,
        bands=options.bands,
        scale=options.scale,
        max_pixels=options.max_pixels,
        overwrite=overwrite,
        resume=resume,
        progress=progress,
        note=note,
        seams=options.seams,
        **{"tile": RASTER_TILE, **options.calling()},
    )


def _video(
    segmenter: Segmenter, job: Job, options: Options, overwrite: bool, resume: bool, journal: Journal | None,
    progress: Callable[[float], None], note: Callable[[str], None],
) -> dict[str, Any]:  # fmt: skip
    from pixelwise.pipeline.video import segment_video

    return segment_video(
        segmenter,
        job.source.path,
        job.files,
        smooth=options.smooth,
        overwrite=overwrite,
        progress=progress,
        **options.calling(),
    )

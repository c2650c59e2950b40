"""`pixelwise segment`: sources in, files out, one line a source."""

from __future__ import annotations

import gc
import json as jsonlib
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pixelwise import images, sources
from pixelwise.catalog.entry import Entry
from pixelwise.cli.options import Change, names, numbers
from pixelwise.errors import InputError, OutputError, UnknownNameError
from pixelwise.files import check_writable, claimed, refuse_claimed
from pixelwise.geometry import check_orientation
from pixelwise.inference.options import SegmentOptions
from pixelwise.limits import MAX_RASTER_PIXELS
from pixelwise.opening import located, weights_file
from pixelwise.outputs.formats import FORMATS, VOLUME_FORMATS, format_of
from pixelwise.pipeline.journal import Journal
from pixelwise.pipeline.options import ReadOptions, RunOptions
from pixelwise.pipeline.pictures import Job, Outcome
from pixelwise.pipeline.run import segment_all, settings
from pixelwise.segmenter import Segmenter
from pixelwise.sources import Source
from pixelwise.sources.volume import stem_of
from pixelwise.terminal import note, say
from pixelwise.weights.beside import beside


def run(
    inputs: list[str],
    models: list[str],
    out: Path,
    format: str | None,
    masks: list[str],
    engine: str,
    precision: Any,
    threads: int | None,
    device: str | None,
    change: Change,
    reading: ReadOptions,
    *,
    smooth: float,
    seams: bool,
    json: bool,
    overwrite: bool,
    resume: bool,
    debug: bool,
) -> int:
    """Segment every source; the exit code. Whatever can be wrong before the work starts is refused first."""
    if overwrite and resume:
        raise InputError(
            "--resume keeps what is finished and --overwrite replaces it, got both; give the one that you mean"
        )
    options = change(SegmentOptions())
    formats = None if format is None else list(names(format))
    for name in formats or []:
        if name not in FORMATS and name not in VOLUME_FORMATS:
            raise UnknownNameError("format", name, {**FORMATS, **VOLUME_FORMATS})
    found = sources.find(inputs, max_pixels=reading.max_pixels)
    kinds = {source.kind for source in found}
    no_tile = options.tile == "auto" or (options.tile is None and "picture" in kinds)
    if seams and (no_tile or kinds & {"video", "volume"}):
        raise InputError(
            "--seams compares the tiles of pictures and rasters; give their size, such as --tile 512, and no videos or "
            "volumes"
        )
    folder = out.parent if _is_file(out) else out
    if resume and engine == "auto" and precision is None and (before := Journal.asked(folder)) is not None:
        engine, precision = before
    decides = {
        "model": _identity(models[0]) if len(models) == 1 else [_identity(model) for model in models],
        "formats": formats,
        "masks": masks,
        "engine": engine,
        **({} if precision is None else {"precision": precision}),  # journals from before know none
        **settings(options, reading, smooth),
    }

    def opened(journal: Journal) -> Segmenter:
        how = engine, precision
        if resume and engine in ("auto", "fastest") and (noted := journal.engine()) is not None:
            how = noted
        return Segmenter(
            models, engine=how[0], precision=how[1], threads=threads, device=device, value_range=reading.scale
        )

    segmenter: Segmenter | None = None
    if sources.depends_on_model(found) and not isinstance(
        located(models[0]), Entry
    ):  # of which all take pictures
        segmenter = opened(Journal(folder, decides, resume=resume))
        if (wants := segmenter.card.volume) is not None:
            found = sources.for_volumes(found, len(wants.channels))
    if reading.as_rasters:
        found = [Source(s.path, s.name, "raster" if s.kind == "picture" else s.kind) for s in found]
    if _is_file(out):
        jobs = [_into_one(out, found, formats, masks)]
        out = out.parent
    else:
        jobs = [Job(source, _targets(out, source, formats, masks)) for source in found]
    try:
        journal = Journal(out, decides, resume=resume)
        _check_targets(
            jobs, overwrite=overwrite or (resume and journal.exists()), can_resume=journal.exists()
        )
        todo = [job for job in jobs if not journal.done(job.source.path, job.files, job.source.parts)]
    except OutputError:
        refuse_claimed(_files(jobs))  # what is there may be of a run that is at it, and is to be waited for
        raise
    if len(todo) < len(jobs):
        note(f"{len(jobs) - len(todo)} of {len(jobs)} were finished before")
        if not todo:
            with claimed(out, (), finished=_files(jobs)):  # removes what a killed run has left of its claims
                return 0
    segmenter = segmenter or opened(journal)
    if engine == "fastest" and len(todo) == 1 and todo[0].source.kind == "picture":
        from pixelwise.engines.racing import FastestEngine

        if isinstance(segmenter.engine, FastestEngine):  # a race takes longer than one picture
            segmenter.engine.may_race = False
    gc.freeze()  # what is loaded stays, and need not be looked through again
    gc.enable()
    options.cleanup(segmenter.classes, None if segmenter.card.volume is None else 1.0)
    for name in masks:
        segmenter.classes.index(name)
    keeps_journal = len(jobs) > 1 or resume or any(job.source.kind == "raster" for job in jobs)
    failures: list[Outcome] = []
    try:
        with claimed(out, _files(todo), finished=_files(jobs)), _progress(todo) as progress:
            for outcome in segment_all(
                segmenter,
                todo,
                options,
                reading,
                RunOptions(overwrite or resume, resume, journal if keeps_journal else None, progress, note),
                smooth=smooth,
                seams=seams,
            ):
                if outcome.error is None:
                    say(_line(outcome, json))
                    continue
                if debug or len(jobs) == 1:
                    raise outcome.error
                failures.append(outcome)
    except KeyboardInterrupt:
        if keeps_journal:
            note("what is finished is kept; the same command with --resume goes on from there")
        raise
    for failure in failures:
        note(str(failure.error))
    if failures:
        kind = "pictures" if all(job.source.kind == "picture" for job in jobs) else "sources"
        note(f"{len(failures)} of {len(jobs)} {kind} failed, listed above")
    return max((failure.error.exit_code for failure in failures if failure.error), default=0)


def reading(
    bands: str | None,
    scale: str | None,
    max_pixels: int | None,
    max_raster_pixels: int | None,
    max_memory_mb: int | None,
    allow_remote: bool,
    slices: bool = False,
    assume_orientation: str | None = None,
    frame: int | None = None,
    series: str | None = None,
) -> ReadOptions:
    """How sources are read; what is no number is answered with the form that is expected."""
    low_high = numbers("--scale", scale, float, "two numbers, such as 0,3000")
    if low_high is not None and len(low_high) != 2:
        raise InputError(f"--scale takes two numbers, such as 0,3000, got {scale!r}")
    return ReadOptions(
        max_pixels=images.MAX_PIXELS if max_pixels is None else max_pixels,
        bands=numbers("--bands", bands, int, "numbers from 1, such as 4,3,2"),
        scale=None if low_high is None else (low_high[0], low_high[1]),
        allow_remote=allow_remote,
        max_raster_pixels=MAX_RASTER_PIXELS if max_raster_pixels is None else max_raster_pixels,
        max_memory=None if max_memory_mb is None else max_memory_mb * 1_000_000,
        slices=slices,
        assume_orientation=None if assume_orientation is None else check_orientation(assume_orientation),
        frame=frame,
        series=series,
    )


VIDEO_ENDINGS = {"overlay": ".overlay.mp4", "json": ".frames.jsonl"}
DEFAULT_FORMATS = {
    "picture": ["labels", "overlay"],
    "raster": ["geotiff"],
    "video": ["overlay"],
    "volume": ["nifti", "contours"],
}


def _targets(out: Path, source: Source, formats: list[str] | None, masks: list[str]) -> dict[str, Path]:
    """What to write where: cats/tom.jpg becomes OUT/cats/tom.labels.png, ..., OUT/cats/tom.cat.png."""
    stem = (out / source.name).with_suffix("")
    endings = VIDEO_ENDINGS if source.kind == "video" else {n: f.ending for n, f in FORMATS.items()}
    chosen = DEFAULT_FORMATS[source.kind] if formats is None else formats
    if source.kind == "volume":
        stem, endings = _of_volume(out, source, chosen, masks)
    elif others := [name for name in chosen if source.kind != "video" and name not in FORMATS]:
        raise InputError(
            f"{', '.join(others)} is for volumes, and {source.path} is none; of it {', '.join(FORMATS)} can be written"
        )
    if source.kind == "video" and (masks or not set(chosen) <= endings.keys()):
        wanted = [name for name in chosen if name not in endings] + [f"mask of {name}" for name in masks]
        raise InputError(
            f"of a video, {' and '.join(endings)} can be written, got {', '.join(wanted)}; "
            "for the others cut it into pictures first"
        )
    targets = {name: stem.with_name(stem.name + endings[name]) for name in chosen}
    return targets | {f"mask of {name}": stem.with_name(f"{stem.name}.{name}.png") for name in masks}


def _of_volume(out: Path, source: Source, chosen: list[str], masks: list[str]) -> tuple[Path, dict[str, str]]:
    """Where the results of a volume begin, and their endings; one that is not compressed has a label volume that is not
    either."""
    if masks or not set(chosen) <= VOLUME_FORMATS.keys():
        wanted = [name for name in chosen if name not in VOLUME_FORMATS] + [
            f"mask of {name}" for name in masks
        ]
        raise InputError(
            f"of a volume, {', '.join(VOLUME_FORMATS)} can be written, got {', '.join(wanted)}; the label volume holds "
            "all classes"
        )
    endings = {name: format.ending for name, format in VOLUME_FORMATS.items()}
    if source.name.suffix.lower() == ".nii":
        endings["nifti"] = ".labels.nii"
    return (out / source.name).with_name(stem_of(source.name)), endings


ENDINGS = {end for f in (*FORMATS.values(), *VOLUME_FORMATS.values()) for end in (*f.suffixes, *f.only)} | {
    Path(ending).suffix for ending in VIDEO_ENDINGS.values()
}
"""Last parts of names that are files, where --out names one."""


def _is_file(out: Path) -> bool:
    return out.suffix.lower() in ENDINGS and not out.is_dir()


def _into_one(out: Path, found: list[Source], formats: list[str] | None, masks: list[str]) -> Job:
    """One source, one format, one file."""
    asked = [*(formats or []), *(f"mask of {name}" for name in masks)]
    if len(found) > 1 or len(asked) > 1 or masks:
        got = f"{len(found)} sources" if len(found) > 1 else " and ".join(asked or ["nothing"])
        raise InputError(
            f"--out {out} is a file, for one source in one format, got {got}; name a folder, such as --out "
            f"{out.with_suffix('')}"
        )
    (source,), format = found, asked[0] if asked else None
    if source.kind == "video":
        of = {Path(ending).suffix: name for name, ending in VIDEO_ENDINGS.items()}
        name = of.get(out.suffix.lower())
        if name is None or format not in (None, name):
            known = " and ".join(f"{name} ({ending})" for ending, name in of.items())
            raise InputError(f"of a video {known} can be written, got {format or ''} --out {out}")
        return Job(source, {name: out})
    return Job(source, {format_of(out, format, VOLUME_FORMATS if source.kind == "volume" else FORMATS): out})


def _files(jobs: list[Job]) -> list[Path]:
    return [file for job in jobs for file in job.files.values()]


def _check_targets(jobs: list[Job], *, overwrite: bool, can_resume: bool) -> None:
    owner: dict[Path, Path] = {}
    for job in jobs:
        source = job.source.path
        for file in job.files.values():
            if file in owner:
                raise OutputError(
                    f"{owner[file]} and {source} would both be written to {file}; "
                    "segment their folder as a whole, or in two runs with different --out"
                )
            owner[file] = source
            if file.exists() and source.exists() and file.samefile(source):
                raise OutputError(f"{file} would overwrite its own input; choose another --out")
            if file.exists() and not file.is_dir() and not overwrite and can_resume:
                raise OutputError(
                    f"{file} exists already; pass --resume to continue the run that made it, --overwrite to "
                    "replace it, or another --out"
                )
            if os.path.lexists(file) and not file.is_dir() and not overwrite:
                raise OutputError(
                    f"{file} exists already; add --overwrite to replace it, or --out FOLDER to write elsewhere"
                )
            check_writable(file, overwrite=overwrite)


def _identity(model: str) -> str | list[Any]:
    """The model's name, and for a file its size and time of change, and those of the files beside it that hold its
    weights, so that a journal notices others."""
    path = weights_file(model)
    if path is None:
        return model
    found = [one.stat() for one in (path, *beside(path))]
    return [model, *(value for one in found for value in (one.st_size, one.st_mtime_ns))]


def _line(outcome: Outcome, json: bool) -> str:
    assert outcome.summary is not None
    source, files = outcome.job.source, outcome.job.files
    if json:
        names = {name: str(file) for name, file in files.items()}
        return jsonlib.dumps({"image": str(source.path), **outcome.summary, "files": names})
    shares = ", ".join(f"{entry['name']} {entry['share']:.1%}" for entry in outcome.summary["classes"])
    if "ignored" in outcome.summary:
        shares = ", ".join([*([shares] if shares else []), f"ignored {outcome.summary['ignored']:.1%}"])
    return f"{source.path}: {shares} -> {', '.join(str(file) for file in files.values())}"


@contextmanager
def _progress(jobs: list[Job]) -> Iterator[Callable[[float], None]]:
    """What takes the number of finished jobs: a bar with the time that is left, when somebody looks on."""
    if not sys.stderr.isatty() or (len(jobs) < 2 and all(job.source.kind == "picture" for job in jobs)):
        yield lambda jobs_done: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TimeElapsedColumn, TimeRemainingColumn

    columns = (BarColumn(), TaskProgressColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    console = Console(stderr=True)
    # Lines on stdout go around the bar only where both are on the screen; a file or pipe gets them as they are.
    with Progress("Segmenting", *columns, console=console, redirect_stdout=sys.stdout.isatty()) as bar:
        task = bar.add_task("", total=len(jobs))
        yield lambda jobs_done: bar.update(task, completed=jobs_done)

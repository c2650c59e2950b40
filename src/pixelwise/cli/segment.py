"""`pixelwise segment`: pictures in, files out, one line a picture."""

from __future__ import annotations

import json as jsonlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from PIL import Image

from pixelwise import images
from pixelwise.errors import OutputError, PixelwiseError, UnknownNameError
from pixelwise.files import check_writable, writing
from pixelwise.segmentation import FORMATS, Segmentation
from pixelwise.segmenter import Segmenter


def run(
    pictures: list[str],
    model: str,
    out: Path,
    formats: list[str],
    masks: list[str],
    engine: str,
    json: bool,
    overwrite: bool,
    max_pixels: int | None,
    threads: int | None,
    debug: bool,
) -> int:
    """Segment every picture; the exit code. Whatever can be wrong before the work starts is refused first."""
    formats = [name.strip() for name in formats]
    for name in formats:
        if name not in FORMATS:
            raise UnknownNameError("format", name, FORMATS)
    found = images.find(pictures)
    targets = {path: _targets(out / name, formats, masks) for path, name in found}
    _check_targets(targets, overwrite)
    segmenter = Segmenter(model, engine=engine, threads=threads)
    for name in masks:
        segmenter.classes.index(name)
    limit = images.MAX_PIXELS if max_pixels is None else max_pixels
    failures: list[tuple[Path, PixelwiseError]] = []
    for path in _with_progress(list(targets)):
        try:
            segmentation = segmenter(path, confidence="confidence" in formats, max_pixels=limit)
            _write(segmentation, targets[path], overwrite)
        except PixelwiseError as error:
            if debug or len(targets) == 1:
                raise
            failures.append((path, error))
            continue
        print(_line(path, segmentation, targets[path], json), flush=True)
    for _, failure in failures:
        print(f"pixelwise: {failure}", file=sys.stderr)
    if failures:
        print(f"pixelwise: {len(failures)} of {len(targets)} pictures failed, listed above", file=sys.stderr)
    return max((failure.exit_code for _, failure in failures), default=0)


def _targets(stem: Path, formats: list[str], masks: list[str]) -> dict[str, Path]:
    """What to write where: cats/tom.jpg becomes OUT/cats/tom.labels.png, ..., OUT/cats/tom.cat.png."""
    plain = stem.with_suffix("")
    targets = {name: plain.with_name(plain.name + FORMATS[name]) for name in formats}
    return targets | {f"mask of {name}": plain.with_name(f"{plain.name}.{name}.png") for name in masks}


def _check_targets(targets: dict[Path, dict[str, Path]], overwrite: bool) -> None:
    owner: dict[Path, Path] = {}
    for source, files in targets.items():
        for file in files.values():
            if file in owner:
                raise OutputError(
                    f"{owner[file]} and {source} would both be written to {file}; "
                    "segment their folder as a whole, or in two runs with different --out"
                )
            owner[file] = source
            check_writable(file, overwrite=overwrite)
            if file.exists() and file.samefile(source):
                raise OutputError(f"{file} would overwrite its own input; choose another --out")


def _write(segmentation: Segmentation, targets: dict[str, Path], overwrite: bool) -> None:
    for name, path in targets.items():
        if name in FORMATS:
            segmentation.save(path, format=name, overwrite=overwrite)
        else:
            mask = segmentation.mask(name.removeprefix("mask of "))
            with writing(path, overwrite=overwrite) as temporary:
                Image.fromarray(mask).save(temporary)


def _line(path: Path, segmentation: Segmentation, targets: dict[str, Path], json: bool) -> str:
    if json:
        files = {name: str(file) for name, file in targets.items()}
        values: dict[str, Any] = {"image": str(path), **segmentation.to_dict(), "files": files}
        return jsonlib.dumps(values)
    shares = ", ".join(f"{name} {share:.1%}" for name, share in segmentation.areas().items())
    return f"{path}: {shares} -> {', '.join(str(file) for file in targets.values())}"


def _with_progress(paths: list[Path]) -> Iterator[Path]:
    """A progress bar on stderr when there is more than one picture and somebody looks."""
    if len(paths) < 2 or not sys.stderr.isatty():
        yield from paths
        return
    from rich.console import Console
    from rich.progress import track

    yield from track(paths, description="Segmenting", console=Console(stderr=True))

"""A folder of one's own: pictures, and label maps of the same names."""

from __future__ import annotations

import shlex
from collections.abc import Collection, Sequence
from functools import partial
from pathlib import Path

import numpy as np

from pixelwise.codes import code_type
from pixelwise.datasets.sample import Ids, Pair, read_label_file
from pixelwise.errors import InputError
from pixelwise.images import SUFFIXES

MASK_SUFFIXES = SUFFIXES | {".npy"}
MASK_FOLDERS = ("masks", "labels")


def folder_pairs(root: Path) -> list[Pair]:
    """images/ and masks/ (or labels/) with equal names, at the top or once in each of train/, val/, test/."""
    return [pair for split, images, masks in parts(root) for pair in match(images, masks, split)]


def region_pairs(root: Path, folders: Sequence[str]) -> list[Pair]:
    """The same where classes overlap: masks/FOLDER/NAME.png for each of `folders`. The ids are `pixelwise.codes`."""
    pairs = []
    for split, images, masks in parts(root):
        by_class = [_by_stem(masks / folder, MASK_SUFFIXES) for folder in folders]
        photos = _by_stem(images, SUFFIXES)
        for name in sorted(photos.keys() | {stem for files in by_class for stem in files}):
            files = [found.get(name) for found in by_class]
            ids = partial(
                codes_of, [file or masks / f / f"{name}.png" for file, f in zip(files, folders, strict=True)]
            )
            first = next((file for file in files if file is not None), None)
            pairs.append(Pair(name, split, photos.get(name), first, ids, regions=len(folders)))
    if not pairs:
        raise InputError(f"{root} holds no pictures and no label maps")
    return pairs


def parts(root: Path) -> list[tuple[str, Path, Path]]:
    """(split, folder of pictures, folder of label maps) of each part of a folder; InputError where it has none."""

    def masks_of(folder: Path) -> Path | None:
        beside = (folder / name for name in MASK_FOLDERS)
        return next((m for m in beside if m.is_dir() and (folder / "images").is_dir()), None)

    found = {"all": root} if masks_of(root) else {p.name: p for p in sorted(root.iterdir()) if masks_of(p)}
    if not found:
        raise InputError(
            f"{root} should hold images/ and masks/, or folders such as train/ and val/ that do; make such a folder of "
            f"what is there: {init_command(root)}; or name another layout with --format"
        )
    return [(split, folder / "images", masks_of(folder) or folder) for split, folder in found.items()]


def init_command(root: Path) -> str:
    """The command that makes a data set of what is in a folder, beside it, for a sentence."""
    return f"`{shlex.join(['pixelwise', 'init', str(root), '--out', f'{root}_ready'])}`"


def codes_of(files: Sequence[Path]) -> Ids:
    """The codes (h, w) of one picture's regions, a file a region, in which every value but 0 is inside."""
    codes: Ids | None = None
    for bit, path in enumerate(files):
        values = read_label_file(path)
        if codes is None:
            codes = np.zeros(values.shape[:2], code_type(len(files)))
        if values.shape != codes.shape:
            raise InputError(f"{path} should be (h, w) of the size {codes.shape}, got {values.shape}")
        codes |= (values != 0).astype(codes.dtype) << codes.dtype.type(bit)
    if codes is None:
        raise InputError("there is no file of any region")
    return codes


def match(images: Path, masks: Path, split: str = "all") -> list[Pair]:
    """The files of two folders, paired by their stems and sorted by them."""
    photos, labels = _by_stem(images, SUFFIXES), _by_stem(masks, MASK_SUFFIXES)
    return [
        Pair(name, split, photos.get(name), labels.get(name))
        for name in sorted(photos.keys() | labels.keys())
    ]


def _by_stem(folder: Path, suffixes: Collection[str]) -> dict[str, Path]:
    """The files of a folder but hidden ones, such as the ._NAME.png that macOS leaves beside NAME.png elsewhere."""
    files = sorted(folder.iterdir()) if folder.is_dir() else []
    return {p.stem: p for p in files if p.suffix.lower() in suffixes and not p.name.startswith(".")}

"""A folder of one's own: pictures, and label maps of the same names."""

from __future__ import annotations

from pathlib import Path

from pixelwise.datasets.sample import Pair
from pixelwise.errors import InputError
from pixelwise.images import SUFFIXES

MASK_SUFFIXES = SUFFIXES | {".npy"}
MASK_FOLDERS = ("masks", "labels")


def folder_pairs(root: Path) -> list[Pair]:
    """images/ and masks/ (or labels/) with equal names, at the top or once in each of train/, val/, test/."""

    def masks_of(folder: Path) -> Path | None:
        beside = (folder / name for name in MASK_FOLDERS)
        return next((m for m in beside if m.is_dir() and (folder / "images").is_dir()), None)

    found = {"all": root} if masks_of(root) else {p.name: p for p in sorted(root.iterdir()) if masks_of(p)}
    if not found:
        raise InputError(
            f"{root} should hold images/ and masks/, or folders such as train/ and val/ that do; "
            "name another layout with --format"
        )
    return [
        pair
        for split, folder in found.items()
        for pair in match(folder / "images", masks_of(folder) or folder, split)
    ]


def match(images: Path, masks: Path, split: str = "all") -> list[Pair]:
    """The files of two folders, paired by their stems and sorted by them."""
    photos = {p.stem: p for p in sorted(images.iterdir()) if p.suffix.lower() in SUFFIXES}
    labels = {p.stem: p for p in sorted(masks.iterdir()) if p.suffix.lower() in MASK_SUFFIXES}
    return [
        Pair(name, split, photos.get(name), labels.get(name))
        for name in sorted(photos.keys() | labels.keys())
    ]

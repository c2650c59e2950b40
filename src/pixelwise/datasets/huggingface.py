"""Data sets of the Hugging Face Hub: a `datasets.Dataset` with a column of pictures and one of label maps."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Protocol

import numpy as np

from pixelwise.datasets.opening import to_sample
from pixelwise.datasets.sample import Sample
from pixelwise.errors import InputError, UnknownNameError
from pixelwise.images import read
from pixelwise.labels import LabelSet

MASK_COLUMNS = ("mask", "annotation", "label", "labels", "segmentation_mask")
"""Names under which label maps are found if none is given."""


class Rows(Protocol):
    """What is used of a `datasets.Dataset` (one split of a data set)."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Mapping[str, Any]: ...


class HuggingFaceSamples:
    """Samples from rows: `image` names the column of pictures, `mask` that of label maps (PIL or arrays).

    classes: what the ids of the label maps mean; None leaves them as they are. A sample is named after its number.
    """

    def __init__(
        self, rows: Rows, *, classes: LabelSet | None = None, image: str = "image", mask: str | None = None
    ) -> None:
        if len(rows) == 0:
            raise InputError("the data set has no rows")
        columns = list(rows[0])
        if mask is None:
            mask = next((column for column in MASK_COLUMNS if column in columns), "mask")
        for column in (image, mask):
            if column not in columns:
                raise UnknownNameError("column", column, columns)
        self.rows, self.classes, self.image, self.mask = rows, classes, image, mask

    def __len__(self) -> int:
        return len(self.rows)

    def __iter__(self) -> Iterator[Sample]:
        return (self[index] for index in range(len(self)))

    def __getitem__(self, index: int) -> Sample:
        row, place = self.rows[index], f"row {index}"
        picture = row[self.image]
        picture = read(np.asarray(picture) if isinstance(picture, list) else picture)
        return to_sample(picture, np.asarray(row[self.mask]), self.classes, f"{index:06d}", place)

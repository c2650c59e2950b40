"""Data sets of the Hugging Face Hub: rows with a column of pictures and one of label maps."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from pixelwise.datasets.sample import Ids, Pair
from pixelwise.errors import ImageError, InputError, MissingExtraError, UnknownNameError

MASK_COLUMNS = ("mask", "annotation", "label", "labels", "segmentation_mask")
"""Names under which label maps are found if none is given."""

SPLITS = {"validation": "val"}
"""What the Hub calls a split, where we call it otherwise."""


class Rows(Protocol):
    """What is used of a `datasets.Dataset` (one split of a data set)."""

    @property
    def column_names(self) -> list[str]: ...

    def select_columns(self, column_names: list[str]) -> Rows: ...

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Mapping[str, Any]: ...


def huggingface_pairs(root: Path) -> list[Pair]:
    """A folder that `save_to_disk` wrote, of one `datasets.Dataset` or of a `datasets.DatasetDict` of splits."""
    try:
        from datasets import load_from_disk
    except ModuleNotFoundError as error:
        raise MissingExtraError("reading Hugging Face data sets", "huggingface") from error
    try:
        found = load_from_disk(str(root))
    except Exception as error:  # of a damaged folder it raises nearly anything
        raise InputError(f"{root}: datasets cannot load it ({' '.join(str(error).split())})") from error
    if not isinstance(found, dict):
        return row_pairs(found, root)
    return [
        pair
        for split, rows in found.items()
        for pair in row_pairs(rows, root / str(split), SPLITS.get(str(split), str(split)))
    ]


def row_pairs(
    rows: Rows, place: Path, split: str = "all", *, image: str = "image", mask: str | None = None
) -> list[Pair]:
    """Pairs from rows: `image` names the column of pictures, `mask` that of label maps (PIL or arrays).

    place: where they lie, for messages. A pair is named after its number.
    """
    if len(rows) == 0:
        raise InputError(f"{place}: the data set has no rows")
    columns = rows.column_names
    if mask is None:
        mask = next((column for column in MASK_COLUMNS if column in columns), "mask")
    for column in (image, mask):
        if column not in columns:
            raise UnknownNameError("column", column, columns)
    pictures, maps = rows.select_columns([image]), rows.select_columns([mask])  # a row is decoded whole
    return [
        Pair(
            f"{index:06d}",
            split,
            place,
            place,
            ids=partial(_ids, maps, index, mask),
            picture=partial(_picture, pictures, index, image),
        )
        for index in range(len(rows))
    ]


def _picture(rows: Rows, index: int, column: str) -> Any:
    try:
        picture = rows[index][column]
    except (OSError, SyntaxError, ValueError) as error:
        raise ImageError(f"the picture of row {index} cannot be read ({error})") from error
    if picture is None:
        raise ImageError(f"row {index} has no picture in column {column!r}")
    return np.asarray(picture) if isinstance(picture, list) else picture


def _ids(rows: Rows, index: int, column: str) -> Ids:
    ids = np.asarray(rows[index][column])
    if ids.ndim < 2:
        raise InputError(
            f"column {column!r} of row {index} should hold a label map (h, w), got {ids.shape or ids.item()!r}"
        )
    return ids

"""Data sets of the Hugging Face Hub: rows with a column of pictures and one of label maps."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from pixelwise.datasets.sample import Ids, Pair
from pixelwise.errors import ImageError, InputError, MissingExtraError, UnknownNameError
from pixelwise.images import read, read_values

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
        from datasets import Image as Pictures
        from datasets import load_from_disk
    except ModuleNotFoundError as error:
        raise MissingExtraError("reading Hugging Face data sets", "huggingface") from error
    try:
        found = load_from_disk(str(root))
    except Exception as error:  # of a damaged folder it raises nearly anything
        raise InputError(f"{root}: datasets cannot load it ({' '.join(str(error).split())})") from error
    splits = found if isinstance(found, dict) else {None: found}
    pairs = []
    for split, rows in splits.items():
        for column, kind in rows.features.items():
            if isinstance(kind, Pictures):  # which would be fetched from whatever address a row names
                rows = rows.cast_column(column, Pictures(decode=False))
        place = root if split is None else root / str(split)
        pairs += row_pairs(rows, place, "all" if split is None else SPLITS.get(str(split), str(split)))
    return pairs


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
        picture = _stored(rows[index][column], index)
        if isinstance(picture, bytes):
            picture = read(picture)
    except (OSError, SyntaxError, ValueError) as error:
        raise ImageError(f"the picture of row {index} cannot be read ({error})") from error
    if picture is None:
        raise ImageError(f"row {index} has no picture in column {column!r}")
    return np.asarray(picture) if isinstance(picture, list) else picture


def _stored(value: Any, index: int) -> Any:
    """The bytes of a picture that was left as it is stored; anything else as it is."""
    if not isinstance(value, Mapping) or not {"bytes", "path"} <= value.keys():
        return value
    if not isinstance(value["bytes"], bytes):
        raise ImageError(
            f"the picture of row {index} is not in the data set, which names {value['path']!r}; write it again with "
            "its pictures: load it with datasets, and call save_to_disk"
        )
    return value["bytes"]


def _ids(rows: Rows, index: int, column: str) -> Ids:
    found = _stored(rows[index][column], index)
    if isinstance(found, bytes):
        found, _ = read_values(found)
    ids = np.asarray(found)
    if ids.ndim < 2:
        raise InputError(
            f"column {column!r} of row {index} should hold a label map (h, w), got {ids.shape or ids.item()!r}"
        )
    return ids

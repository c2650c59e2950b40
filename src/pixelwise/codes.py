"""Codes: which of several overlapping regions a pixel belongs to, as the bits of one unsigned integer.

Bit i says that region i is there, which is class i + 1 of its LabelSet; class 0 is where there is none.

>>> import numpy as np
>>> codes = np.array([0b000, 0b001, 0b101], np.uint8)
>>> has(codes, 0).tolist(), highest(codes, 3).tolist()
([False, True, True], [0, 1, 3])
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from pixelwise.errors import InputError

MOST = 64
"""Regions that fit into the largest integer."""

MOST_LEARNED = 15
"""Regions whose codes leave room for pixels of which nothing is known, in 16 bits."""


def code_type(count: int) -> np.dtype[Any]:
    """The smallest unsigned type with a bit for each of `count` regions; InputError for more than MOST."""
    if count > MOST:
        raise InputError(
            f"a pixel may belong to up to {MOST} overlapping regions, got {count}; split the model"
        )
    return np.min_scalar_type(2**count - 1)


def unknown_type(count: int) -> np.dtype[Any]:
    """The smallest unsigned type that holds the codes of `count` regions and, as its largest number, a code of none of
    them, for pixels of which nothing is known; InputError for more than `MOST_LEARNED`."""
    if count > MOST_LEARNED:
        raise InputError(
            f"up to {MOST_LEARNED} overlapping regions can be trained at once, got {count}; train several models"
        )
    return np.dtype(np.uint8 if count < 8 else np.uint16)


def has(codes: NDArray[Any], region: int) -> NDArray[np.bool_]:
    """Where a region is: bool, of the shape of the codes."""
    bit = codes.dtype.type(1 << region)
    there: NDArray[np.bool_] = (codes & bit) != 0
    return there


def codes_of(masks: NDArray[np.bool_]) -> NDArray[Any]:
    """The codes (h, w) of regions whose masks are (regions, h, w)."""
    dtype = code_type(len(masks))
    codes = np.zeros(masks.shape[1:], dtype)
    for region, mask in enumerate(masks):
        codes |= mask.astype(dtype) << dtype.type(region)
    return codes


def highest(codes: NDArray[Any], count: int) -> NDArray[Any]:
    """The label map: class indices of the smallest unsigned type, later regions over earlier ones, 0 where is none."""
    indices = np.zeros(codes.shape, np.min_scalar_type(count))
    for region in range(count):
        indices[has(codes, region)] = region + 1
    return indices

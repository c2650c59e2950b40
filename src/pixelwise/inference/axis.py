"""Where the pixels of a picture lie on the coarse grid of its logits, one side at a time."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray


class Axis(NamedTuple):
    """Where the pixels of one side of the picture lie on the coarse grid.

    cell (N,): the coarse index at or before each pixel; weight (N,) float32 in [0, 1): how far past it;
    start (n + 1,): the pixels of cell c are start[c] .. start[c + 1].
    """

    cell: NDArray[np.int64]
    weight: NDArray[np.float32]
    start: NDArray[np.int64]


def axis_of(coarse: int, fine: int, align_corners: bool) -> Axis:
    """torch's rule: i (n-1)/(N-1) with aligned corners, else (i + 1/2) n/N - 1/2 and not below zero."""
    pixels = np.arange(fine, dtype=np.float64)
    if align_corners:
        position = pixels * ((coarse - 1) / (fine - 1) if fine > 1 else 0.0)
    else:
        position = np.maximum((pixels + 0.5) * (coarse / fine) - 0.5, 0.0)
    cell = np.minimum(position.astype(np.int64), coarse - 1)
    start = np.searchsorted(cell, np.arange(coarse + 1))
    return Axis(cell, (position - cell).astype(np.float32), start)

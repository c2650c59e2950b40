"""Logits and probabilities of every class at every pixel, for those who ask for them: much larger than labels.

Letters: k classes or regions, h w pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from array_api_compat import is_torch_array
from numpy.typing import NDArray

from pixelwise.errors import InputError
from pixelwise.inference.axis import axis_of
from pixelwise.inference.options import SegmentOptions
from pixelwise.inference.terms import TINY

MOST_BYTES = 4 * 2**30
"""What the planes of one picture may take."""

AT_ONCE = 1 << 20
"""Numbers that are worked on at a time, so that what is needed beside the planes stays small."""


def check_planes(size_hw: Sequence[int], planes: int, options: SegmentOptions, *, logits: bool) -> None:
    """Raise InputError where so many float32 planes of a picture need more than MOST_BYTES, and for logits of a CRF."""
    if logits and options.crf is not None:
        raise InputError(
            "the CRF answers with probabilities, not logits; ask for probabilities=True, or leave crf out"
        )
    needed = 4 * planes * size_hw[0] * size_hw[1]
    if needed > MOST_BYTES:
        raise InputError(
            f"{planes} planes of {size_hw[0]} x {size_hw[1]} float32 numbers take {needed / 2**30:.1f} GiB, more than "
            f"the limit of {MOST_BYTES / 2**30:.0f}; ask for confidence instead, or for parts of the picture"
        )


def enlarged(logits: Any, size_hw: tuple[int, int], *, align_corners: bool) -> NDArray[np.float32]:
    """Coarse logits (k, h', w'), NumPy or torch, bilinearly interpolated: float32 (k, h, w) in memory of its own."""
    if is_torch_array(logits):
        logits = logits.detach().float().cpu().numpy()
    k, height, width = logits.shape
    rows, columns = (
        axis_of(coarse, side, align_corners) for coarse, side in zip((height, width), size_hw, strict=True)
    )
    out = np.empty((k, *size_hw), np.float32)
    beside = np.minimum(columns.cell + 1, width - 1)
    step = max(1, AT_ONCE // (k * size_hw[1]))
    for top in range(0, size_hw[0], step):
        cell, v = rows.cell[top : top + step], rows.weight[top : top + step, None]
        strip = logits[:, cell] * (1 - v) + logits[:, np.minimum(cell + 1, height - 1)] * v
        out[:, top : top + step] = (
            strip[..., columns.cell] * (1 - columns.weight) + strip[..., beside] * columns.weight
        )
    return out


def log_of(probabilities: NDArray[np.float32]) -> NDArray[np.float32]:
    """Probabilities as logits with just that softmax, in place."""
    np.clip(probabilities, TINY, 1, out=probabilities)
    return np.log(probabilities, out=probabilities)


def probabilities_of(logits: NDArray[np.float32], *, regions: bool, keep_logits: bool) -> NDArray[np.float32]:
    """Logits (k, h, w) as probabilities, float32: softmax over the classes; of a single logit (1 - p, p), two planes;
    of regions a sigmoid each. keep_logits: False may write them in place of the logits."""
    k, height, width = logits.shape
    if k == 1 and not regions:
        out = np.empty((2, height, width), np.float32)
    else:
        out = np.empty_like(logits) if keep_logits else logits
    step = max(1, AT_ONCE // (k * width))
    for top in range(0, height, step):
        some = logits[:, top : top + step]
        if regions:
            out[:, top : top + step] = sigmoid(some)
        elif k == 1:
            out[0, top : top + step], out[1, top : top + step] = sigmoid(-some[0]), sigmoid(some[0])
        else:
            odds = np.exp(some - some.max(axis=0))
            out[:, top : top + step] = odds / odds.sum(axis=0)
    return out


def sigmoid(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    """1 / (1 + exp(-x)), without overflow."""
    odds = np.exp(-np.abs(logits))
    values: NDArray[np.float32] = np.where(logits >= 0, 1, odds) / (1 + odds)
    return values

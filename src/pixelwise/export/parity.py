"""Parity: how far a written file is from what it was made of. Every export ends with it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pixelwise.errors import ExportError
from pixelwise.weights.card import Outputs


class Parity(NamedTuple):
    """gap: the largest difference in logits, as a share of their range. changed: the share of pixels, of the coarse
    logits or of a label map, that have another class. pixels: how many were looked at."""

    gap: float
    changed: float
    pixels: int

    def __str__(self) -> str:
        return f"logits to {self.gap:.1e} of their range, {self.changed:.3%} of {self.pixels:,} cells of another class"


def parity_of(expected: NDArray[Any], got: NDArray[Any], outputs: Outputs) -> Parity:
    """Of logits (n, k, ...), `outputs` being what they mean on a card. Another shape, or NaN, is infinitely far."""
    if got.shape != expected.shape or not np.isfinite(got).all():
        return Parity(float("inf"), 1.0, expected[:, 0].size)
    gap = float(np.abs(got - expected).max() / (np.ptp(expected) or 1.0))
    if outputs == "exclusive" and expected.shape[1] > 1:
        other = expected.argmax(axis=1) != got.argmax(axis=1)
    else:
        other = ((expected > 0) != (got > 0)).any(axis=1)
    return Parity(gap, float(other.mean()), other.size)


def joined(found: Iterable[Parity]) -> Parity:
    """Of several comparisons the largest gap, and the share of all their pixels."""
    found = list(found)
    pixels = sum(one.pixels for one in found)
    changed = sum(one.changed * one.pixels for one in found) / max(1, pixels)
    return Parity(max((one.gap for one in found), default=0.0), changed, pixels)


def refuse_far(name: str, found: Parity, *, gap: float, changed: float = 1.0) -> None:
    """Raise ExportError for a file that is further away than that."""
    if not found.gap <= gap:  # false for NaN as well
        raise ExportError(
            f"the exported {name} differs from its network by {found.gap:.1e} of the logits' range "
            f"(allowed: {gap:.0e}); no file was written"
        )
    if not found.changed <= changed:
        raise ExportError(
            f"the exported {name} gives {found.changed:.3%} of the pixels another class than its network "
            f"(allowed: {changed:.3%}); no file was written"
        )

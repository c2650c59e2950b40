"""Ids of label volumes: as the integers that files hold, and which of them is no structure."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from pixelwise.errors import InputError
from pixelwise.labels import LabelSet


def small_ids(labels: NDArray[Any]) -> NDArray[Any]:
    """Ids (d, h, w) as uint8, or uint16 where they need it; InputError above that."""
    if labels.ndim != 3:
        raise InputError(f"a label volume is (d, h, w), got {labels.shape}")
    highest = int(labels.max(initial=0))
    if highest > 65535:
        raise InputError(f"a label volume holds ids up to 65535, got {highest}; save as .npy")
    return labels.astype(np.uint8 if highest < 256 and labels.dtype.itemsize == 1 else np.uint16, copy=False)


def background_of(classes: LabelSet) -> int:
    """The id of what is no structure: of the class "background", else of the first."""
    return classes.ids[classes.index("background") if "background" in classes.names else 0]

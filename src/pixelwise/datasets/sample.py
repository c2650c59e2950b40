"""What every data set yields."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Sample:
    """One picture with its truth.

    image (h, w, 3) uint8 RGB; mask (h, w) unsigned class ids, 255 where nothing is known; name, the file's
    stem.
    """

    image: NDArray[np.uint8]
    mask: NDArray[np.unsignedinteger[Any]]
    name: str


class Samples(Protocol):
    """What a data set is: samples by number, read when asked for. A list of samples is one too."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Sample: ...

    def __iter__(self) -> Iterator[Sample]: ...

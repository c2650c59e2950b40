"""VolumePreprocess: what a 3-D network wants done to a volume before it sees it. Part of its card."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Annotated, Any, Literal, get_args

import numpy as np

from pixelwise.errors import InputError, UnknownNameError
from pixelwise.geometry import check_orientation
from pixelwise.untrusted import Between, fit

Kind = Literal["zscore", "ct", "rescale", "none"]

PatchSide = Annotated[int, Between(1, 4096)]

MAX_PATCH = 2**27
"""Voxels of a patch, 512 x 512 x 512."""


@dataclass(frozen=True)
class Normalise:
    """How one channel is normalised, from the numbers that the file means.

    kind: "zscore", less its own mean over the whole volume, divided by its own standard deviation; "ct", cut off below
    `low` and above `high`, less `mean`, divided by `std`, which a data set has given; "rescale", so that its smallest
    value is 0 and its largest 1; "none". nonzero: of "zscore", mean and deviation are those of the voxels where any
    channel is not 0, and the others become 0.
    """

    kind: Kind = "zscore"
    nonzero: bool = False
    low: float | None = None
    high: float | None = None
    mean: float | None = None
    std: float | None = None

    def __post_init__(self) -> None:
        if self.kind not in get_args(Kind):
            raise UnknownNameError("normalisation", str(self.kind), get_args(Kind))
        numbers = (self.low, self.high, self.mean, self.std)
        if self.kind != "ct" and any(number is not None for number in numbers):
            raise InputError(f"low, high, mean and std belong to 'ct', got them with {self.kind!r}")
        if self.nonzero and self.kind != "zscore":
            raise InputError(f"nonzero belongs to 'zscore', got it with {self.kind!r}")
        if self.kind == "ct":
            low, high, mean, std = (np.nan if number is None else float(number) for number in numbers)
            if not (np.isfinite([low, high, mean, std]).all() and low < high and std > 0):
                raise InputError(
                    f"'ct' takes low below high, mean, and std above 0, got low {self.low}, high {self.high}, "
                    f"mean {self.mean} and std {self.std}"
                )


@dataclass(frozen=True)
class VolumePreprocess:
    """Normalisation, spacing, orientation and the size of what a 3-D network sees at a time.

    channels: one `Normalise` an input channel. spacing: (slices, rows, columns) in mm to which volumes are
    interpolated, linearly, and from which the logits are brought back; None leaves volumes as they are. orientation:
    where columns, rows and slices grow towards, such as "RAS", in which the network sees them; None leaves them as
    they are stored. patch: (d, h, w) voxels that it sees at a time, in the network's own orientation.
    """

    channels: tuple[Normalise, ...] = (Normalise(),)
    spacing: tuple[float, float, float] | None = None
    orientation: str | None = None
    patch: tuple[PatchSide, PatchSide, PatchSide] = (64, 64, 64)

    def __post_init__(self) -> None:
        if not self.channels or not all(isinstance(channel, Normalise) for channel in self.channels):
            raise InputError(
                f"channels takes a pixelwise Normalise for each input channel, got {self.channels!r:.80}"
            )
        object.__setattr__(self, "channels", tuple(self.channels))
        if self.spacing is not None:
            sides = tuple(float(side) for side in self.spacing)
            if len(sides) != 3 or not all(1e-4 <= side <= 1e4 for side in sides):
                raise InputError(
                    f"spacing is three numbers of millimetres (slices, rows, columns), got {self.spacing!r:.80}"
                )
            object.__setattr__(self, "spacing", sides)
        if self.orientation is not None:
            object.__setattr__(self, "orientation", check_orientation(self.orientation))
        patch = tuple(self.patch)
        if (
            len(patch) != 3
            or not all(isinstance(side, (int, np.integer)) and 1 <= side <= 4096 for side in patch)
            or np.prod(patch, dtype=np.float64) > MAX_PATCH
        ):
            raise InputError(
                f"patch is three numbers of voxels (d, h, w), together at most {MAX_PATCH:,}, got {self.patch!r:.80}"
            )
        object.__setattr__(self, "patch", tuple(int(side) for side in patch))

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON; of each channel what is not the default."""
        values = {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(self).items()}
        values["channels"] = [
            {k: v for k, v in asdict(one).items() if k == "kind" or v not in (None, False)}
            for one in self.channels
        ]
        return values

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> VolumePreprocess:
        """What `to_dict` gave, read back; InputError for anything else."""
        return fit(values, cls, "how volumes are prepared")

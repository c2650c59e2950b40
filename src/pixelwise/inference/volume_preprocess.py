"""VolumePreprocess: what a 3-D network wants done to a volume before it sees it. Part of its card."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Annotated, Any, Literal, get_args

import numpy as np

from pixelwise.errors import InputError, UnknownNameError
from pixelwise.geometry import check_orientation
from pixelwise.untrusted import Between, fit

Kind = Literal["zscore", "ct", "rescale", "rgb", "none"]

PatchSide = Annotated[int, Between(1, 4096)]

MAX_PATCH = 2**27
"""Voxels of a patch, 512 x 512 x 512."""


@dataclass(frozen=True)
class Normalise:
    """How one channel is normalised, from the numbers that the file means.

    kind: "zscore", less its own mean over the whole volume, divided by its own standard deviation; "ct", cut off below
    `low` and above `high`, less `mean`, divided by `std`, which a data set has given; "rescale", so that its smallest
    value is 0 and its largest 1; "rgb", divided by 255, for values of 0 to 255; "none". nonzero: of "zscore", mean and
    deviation are those of the voxels where any channel is not 0, and the others become 0; where the volume is prepared
    as a `Whole`, holes in these voxels count as well.
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


Order = Annotated[int, Between(0, 5)]


@dataclass(frozen=True)
class Resample:
    """How a whole volume is brought to another size.

    by: "spline", of `order` (0 to 5), cut off at the smallest and the largest value that is there; "linear", in
    float32; or "none", where sizes stay. apart: whether the axis of the coarsest spacing is brought there after the
    others, by the spline of `order_z` (0 is the nearest slice) and the nearest slice of "linear"; None where one
    spacing is more than three times another.
    """

    by: Literal["spline", "linear", "none"] = "spline"
    order: Order = 3
    order_z: Literal[0, 1] = 0
    apart: bool | None = None

    def __post_init__(self) -> None:
        if self.by not in ("spline", "linear", "none"):
            raise UnknownNameError("way to resample", str(self.by), ("spline", "linear", "none"))
        if self.order not in range(6) or self.order_z not in (0, 1):
            raise InputError(
                f"order is a whole number from 0 to 5 and order_z 0 or 1, got {self.order!r:.40} and "
                f"{self.order_z!r:.40}"
            )


@dataclass(frozen=True)
class Whole:
    """How networks want volumes that were trained on whole ones, prepared as nnU-Net does: cropped, normalised, then
    resampled, all of it in memory. Its windows have nnU-Net's places and weights.

    axes: which axis of the volume, as it is stored or oriented, is the network's first, second and third; spacing and
    patch are in that order. crop: to the box of the voxels where any channel is not 0. image, logits: how each is
    resampled. planar: the network sees single slices of the first axis, between which nothing is interpolated, so the
    first spacing says nothing. mirror: of the network's axes, those that its answers are averaged over, mirrored and
    not, in all combinations. largest: groups of ids, of which together only the largest component stays.
    """

    axes: tuple[int, int, int] = (0, 1, 2)
    crop: bool = True
    image: Resample = Resample()
    logits: Resample = Resample(order=1)
    planar: bool = False
    mirror: tuple[int, ...] = ()
    largest: tuple[tuple[int, ...], ...] = ()

    def __post_init__(self) -> None:
        if sorted(self.axes) != [0, 1, 2]:
            raise InputError(f"axes are 0, 1 and 2 in some order, got {self.axes!r:.60}")
        allowed = (1, 2) if self.planar else (0, 1, 2)
        if len(set(self.mirror)) != len(self.mirror) or not set(self.mirror) <= set(allowed):
            raise InputError(f"mirror names axes of {allowed}, each once, got {self.mirror!r:.60}")


@dataclass(frozen=True)
class VolumePreprocess:
    """Normalisation, spacing, orientation and the size of what a 3-D network sees at a time.

    channels: one `Normalise` an input channel. spacing: (slices, rows, columns) in mm to which volumes are
    interpolated, linearly, and from which the logits are brought back; None leaves volumes as they are. orientation:
    where columns, rows and slices grow towards, such as "RAS", in which the network sees them; None leaves them as
    they are stored. patch: (d, h, w) voxels that it sees at a time, in the network's own orientation. whole: of
    networks that were trained with nnU-Net, what else is done; None where volumes are prepared slice by slice.
    """

    channels: tuple[Normalise, ...] = (Normalise(),)
    spacing: tuple[float, float, float] | None = None
    orientation: str | None = None
    patch: tuple[PatchSide, PatchSide, PatchSide] = (64, 64, 64)
    whole: Whole | None = None

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
        if self.whole is not None and self.whole.planar and patch[0] != 1:
            raise InputError(f"a planar network sees one slice at a time, got a patch of {self.patch}")

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON; of each channel what is not the default."""
        values = {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(self).items()}
        values["channels"] = [
            {k: v for k, v in asdict(one).items() if k == "kind" or v not in (None, False)}
            for one in self.channels
        ]
        if self.whole is None:  # so that versions that do not know it read the others
            del values["whole"]
        return values

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> VolumePreprocess:
        """What `to_dict` gave, read back; InputError for anything else."""
        return fit(values, cls, "how volumes are prepared")

"""The fingerprint of a data set of scans: what a plan of training has to know about them, as numbers.

Measured while something else reads each pair anyway (`ScanMeasuring.add`). Letters: d h w voxels, in the order slices,
rows, columns of the orientation RAS where all scans say how they lie, else as they are stored.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pixelwise.geometry import AS_IT_IS
from pixelwise.labels import LabelSet
from pixelwise.sources.volume import Volume
from pixelwise.terminal import counted

SAMPLED = 10_000
"""Voxels of the classes of a scan whose values are looked at, at most."""

COARSE = 3.0
"""How much coarser one axis must be than the others for its slices to be too thick to be mixed."""

Sides = tuple[float, float, float]


@dataclass(frozen=True)
class Channel:
    """One channel. name: as dataset.json calls it, "" where it does not. low, high, mean, std: 0.5 and 99.5 percentile,
    mean and deviation of the values where there is a class other than the first. filled: the median share of the voxels
    that are not 0."""

    name: str
    low: float
    high: float
    mean: float
    std: float
    filled: float


@dataclass(frozen=True)
class ScanFingerprint:
    """A data set of scans in numbers; all of it is of those to learn from.

    size: the median of their sides, in voxels of their own grids. spacing: the median, in mm; finest: its 10th
    percentile; differs: the scans have several. oriented: all say how they lie. shares: of the labelled voxels, by the
    name of each class; shown: the share of the scans that show it. voxels: of all scans together.
    """

    scans: int = 0
    size: Sides = (0, 0, 0)
    spacing: Sides | None = None
    finest: Sides | None = None
    differs: bool = False
    oriented: bool = False
    channels: tuple[Channel, ...] = ()
    shares: Mapping[str, float] = field(default_factory=dict)
    shown: Mapping[str, float] = field(default_factory=dict)
    voxels: int = 0

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self)

    def lines(self, most: int = 5) -> list[str]:
        """What was measured in a few lines, of at most so many classes: the rarest first."""
        if not self.scans:
            return []
        sides = " x ".join(f"{side:.0f}" for side in self.size)
        about = (
            f"measured on {counted(self.scans, 'scan')} to learn from: {sides} voxels (slices, rows, columns)"
        )
        if self.spacing is not None:
            about += f" of {in_mm(self.spacing)}{', which differ' if self.differs else ''}"
        found = [about]
        for name, share in sorted(self.shares.items(), key=lambda item: item[1])[:most]:
            found.append(f"{name}: {share:.3%} of the voxels, in {self.shown[name]:.0%} of the scans")
        return found


def in_mm(spacing: Sides) -> str:
    return " x ".join(f"{side:.4g}" for side in spacing) + " mm"


class ScanMeasuring:
    """Collects a fingerprint. names: of the channels, from dataset.json."""

    def __init__(self, classes: LabelSet | None, names: tuple[str, ...] = ()) -> None:
        self.classes, self.names = classes, names
        self._sizes: list[Sides] = []
        self._spacings: list[Sides] = []
        self._unoriented = 0
        self._values: list[list[NDArray[np.float64]]] = []
        self._filled: list[list[float]] = []
        self._counts: dict[int, int] = {}
        self._shown: dict[int, int] = {}

    def add(self, scan: Volume, ids: NDArray[Any], counts: Mapping[int, int]) -> None:
        """One scan and its label volume, as they are stored; counts: voxels by id."""
        turn = AS_IT_IS
        if scan.affine is None:
            self._unoriented += 1
        else:
            assert scan.geometry is not None
            turn = scan.geometry.turn_to("RAS")
        self._sizes.append(turn.of_sides(scan.size))
        if scan.spacing is not None:
            self._spacings.append(turn.of_sides(scan.spacing))
        first = 0 if self.classes is None else self.classes.ids[0]
        ignored = 255 if self.classes is None else self.classes.ignore_id
        for id, count in counts.items():
            if id != ignored:
                self._counts[id] = self._counts.get(id, 0) + count
                self._shown[id] = self._shown.get(id, 0) + 1
        inside = np.flatnonzero((ids != first) & (ids != (-1 if ignored is None else ignored)))
        inside = inside[:: max(1, len(inside) // SAMPLED)]
        while len(self._values) < len(scan.channels):
            self._values.append([])
            self._filled.append([])
        for channel, values, filled in zip(scan.channels, self._values, self._filled, strict=False):
            values.append(np.asarray(channel.reshape(-1)[inside], np.float64))
            filled.append(float(np.count_nonzero(channel) / channel.size))

    def done(self) -> ScanFingerprint:
        """What was measured."""
        if not self._sizes:
            return ScanFingerprint()
        spacing = finest = None
        differs = False
        if len(self._spacings) == len(self._sizes):
            sides = np.array(self._spacings)
            spacing, finest = _sides(np.median(sides, axis=0)), _sides(np.percentile(sides, 10, axis=0))
            differs = bool((np.ptp(sides, axis=0) > 0.01 * sides.min()).any())
        total = sum(self._counts.values()) or 1
        names = {} if self.classes is None else dict(zip(self.classes.ids, self.classes.names, strict=True))
        named = {id: names.get(id, f"id {id}") for id in sorted(self._counts)}
        first = next(iter(names), 0)
        return ScanFingerprint(
            len(self._sizes),
            _sides(np.median(np.array(self._sizes), axis=0)),
            spacing,
            finest,
            differs,
            not self._unoriented,
            tuple(self._channel(i) for i in range(len(self._values))),
            {named[id]: count / total for id, count in self._counts.items() if id != first},
            {named[id]: count / len(self._sizes) for id, count in self._shown.items() if id != first},
            int(sum(math.prod(size) for size in self._sizes)),
        )

    def _channel(self, i: int) -> Channel:
        values = np.concatenate(self._values[i])
        name = self.names[i] if i < len(self.names) else ""
        filled = float(np.median(self._filled[i]))
        if not values.size:
            return Channel(name, 0.0, 1.0, 0.0, 1.0, filled)
        low, high = (float(v) for v in np.percentile(values, (0.5, 99.5)))
        return Channel(name, low, high, float(values.mean()), float(values.std()), filled)


def _sides(values: NDArray[Any]) -> Sides:
    first, second, third = (float(v) for v in values)
    return first, second, third

"""The fingerprint of a data set: what a plan of training has to know about pictures and classes, as numbers.

Measured while something else reads each pair anyway (`Measuring.add`), in bounded time: colours from a few thousand
pixels of each picture, sizes and widths from windows of a few dozen. Letters: h w pixels of a picture.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from importlib.util import find_spec
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pixelwise.labels import LabelSet
from pixelwise.terminal import counted

SAMPLED = 4096
"""Pixels of a picture whose values are looked at, about."""

LOOKS = 60
"""Windows in which sizes and widths are measured, about, shared out among the classes: a fifth of a second each at
most."""

WINDOW = 384
"""Side of such a window, in pixels."""

ENOUGH = 16
"""Sampled pixels of a class in a picture from which its colour there is known."""


@dataclass(frozen=True)
class ClassMeasure:
    """What is known of one class. share: of the labelled pixels; shown: the share of the pictures that show it.

    size_px, large_px: the median and the 90th percentile of the square roots of the areas of its connected parts, in
    pixels. width_px, thin_px: the median and the 10th percentile (by area) of its width along its middle lines, see
    `widths`. None where nothing was measured.
    """

    name: str
    share: float
    shown: float
    size_px: float | None = None
    large_px: float | None = None
    width_px: float | None = None
    thin_px: float | None = None

    @property
    def narrow_px(self) -> float | None:
        """The width that must not be lost: that of the thinnest tenth, but at least half of the median, as corners and
        what others hide in part are thin too."""
        if self.thin_px is None or self.width_px is None:
            return None
        return max(self.thin_px, self.width_px / 2)


@dataclass(frozen=True)
class Fingerprint:
    """A data set in numbers; all of it is of the pictures to learn from.

    height, width, shorter_side: the 10th percentile, median and 90th percentile over pictures, in pixels. value_range:
    0.5 and 99.5 percentile of the values of pictures of more than 8 bits; None for 8 bits. grey: no picture has colour.
    light, tint: how much lightness and colour of the same classes differ from picture to picture (standard deviations
    of what the classes of a picture have in common, as shares of the range of values). largest_share: the median share
    of a picture that its most frequent class has. measured_widths: False where SciPy was missing.
    """

    pictures: int = 0
    height: tuple[int, int, int] = (0, 0, 0)
    width: tuple[int, int, int] = (0, 0, 0)
    shorter_side: tuple[int, int, int] = (0, 0, 0)
    value_range: tuple[float, float] | None = None
    grey: bool = False
    light: float = 0.0
    tint: float = 0.0
    largest_share: float = 1.0
    measured_widths: bool = False
    classes: tuple[ClassMeasure, ...] = field(default_factory=tuple)

    @property
    def ground(self) -> int:
        """The index of the most frequent class, before which the others lie."""
        return max(range(len(self.classes)), key=lambda i: self.classes[i].share, default=0)

    @property
    def objects(self) -> list[ClassMeasure]:
        """All other classes that occur."""
        return [c for i, c in enumerate(self.classes) if i != self.ground and c.share > 0]

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self)

    def lines(self, most: int = 5) -> list[str]:
        """What was measured in a few lines, of at most so many classes: the thinnest and rarest first."""
        if not self.pictures:
            return []
        found = [
            f"measured on {counted(self.pictures, 'picture')} to learn from: {self.height[1]} x {self.width[1]} px "
            f"(h x w); from picture to picture the same classes differ by {self.light:.1%} in light and "
            f"{self.tint:.1%} in colour"
        ]
        if self.value_range is not None:
            low, high = self.value_range
            found.append(f"values of more than 8 bits: 99 of 100 lie from {low:.0f} to {high:.0f}")
        for c in sorted(self.objects, key=lambda c: (c.thin_px or math.inf, c.share))[:most]:
            wide = (
                ""
                if c.width_px is None
                else f", {c.width_px:.1f} px wide (the thinnest tenth: {c.thin_px:.1f})"
            )
            large = "" if c.size_px is None else f", {c.size_px:.0f} px large"
            found.append(f"{c.name}: {c.share:.3%} of the pixels{large}{wide}")
        if not self.measured_widths:
            found.append("widths were not measured, which needs SciPy: pip install 'pixelwise[metrics]'")
        return found


class Measuring:
    """Takes the pictures of a data set one by one and makes the fingerprint.

    classes: what the ids mean; None: ids are classes in their order. ignore_id: the id that counts for nothing, unless
    the classes say. expected: how many pictures will come, about.
    """

    def __init__(self, classes: LabelSet | None, ignore_id: int | None, expected: int) -> None:
        self.classes = classes
        self.ignore_id = ignore_id if classes is None else classes.ignore_id
        self.every = max(1, expected // 24)
        known = 2 if classes is None else classes.num_classes
        self.looks_a_class = max(3, LOOKS // max(1, known - 1))
        self.able = find_spec("scipy") is not None
        self._pictures = 0
        self._sizes: list[tuple[int, int]] = []
        self._pixels: dict[int, int] = defaultdict(int)
        self._shown: dict[int, int] = defaultdict(int)
        self._largest: list[float] = []
        self._values: list[NDArray[Any]] = []
        self._colours: dict[int, list[tuple[int, NDArray[np.float64], int]]] = defaultdict(list)
        self._deep = self._coloured = False
        self._looks: dict[int, int] = defaultdict(int)
        self._parts: dict[int, list[float]] = defaultdict(list)
        self._widths: dict[int, list[NDArray[np.float64]]] = defaultdict(list)

    def add(self, values: NDArray[Any], ids: NDArray[Any], counts: Mapping[int, int] | None = None) -> None:
        """One picture (h, w) or (h, w, c) of its own values, uint8 or deeper, and its ids (h, w).

        counts: pixels by id, where they are known already. Pairs that do not fit each other are passed over.
        """
        if values.shape[:2] != ids.shape or ids.size == 0 or values.dtype == bool:
            return
        if counts is None:
            found, occurrences = np.unique(ids, return_counts=True)
            counts = dict(zip(found.tolist(), occurrences.tolist(), strict=True))
        counts = {i: n for i, n in counts.items() if self._is_class(i)}
        if not counts:
            return
        total = sum(counts.values())
        self._sizes.append((ids.shape[0], ids.shape[1]))
        self._largest.append(max(counts.values()) / total)
        for i, n in counts.items():
            self._pixels[i] += n
            self._shown[i] += 1
        self._add_values(values, ids, counts)
        self._add_shapes(ids, counts)
        self._pictures += 1

    def done(self, known: Sequence[int] | None = None) -> Fingerprint:
        """The fingerprint of what was added. known: the ids of the classes, where there are no names for them."""
        if not self._pictures:
            return Fingerprint(measured_widths=self.able)
        names = self._names(known)
        total = sum(self._pixels.values())
        low, high = 0.0, 255.0
        if self._deep:
            low, high = (float(v) for v in np.percentile(np.concatenate(self._values), (0.5, 99.5)))
            high = high if high > low else low + 1.0
        light, tint = self._differences(high - low)
        sides = np.array(self._sizes)
        return Fingerprint(
            pictures=self._pictures,
            height=_three(sides[:, 0]),
            width=_three(sides[:, 1]),
            shorter_side=_three(sides.min(axis=1)),
            value_range=(low, high) if self._deep else None,
            grey=not self._coloured,
            light=light,
            tint=tint,
            largest_share=float(np.median(self._largest)),
            measured_widths=self.able,
            classes=tuple(self._measure(i, name, total) for i, name in names.items()),
        )

    def _is_class(self, one: int) -> bool:
        return one != self.ignore_id and (self.classes is None or one in self.classes.ids)

    def _names(self, known: Sequence[int] | None) -> dict[int, str]:
        if self.classes is not None:
            return dict(zip(self.classes.ids, self.classes.names, strict=True))
        return {i: f"class {i}" for i in (sorted(self._pixels) if known is None else known)}

    def _add_values(self, values: NDArray[Any], ids: NDArray[Any], counts: Mapping[int, int]) -> None:
        step = max(1, math.isqrt(ids.size // SAMPLED))
        some, of = values[step // 2 :: step, step // 2 :: step], ids[step // 2 :: step, step // 2 :: step]
        some = some.reshape(of.size, -1)[:, :3].astype(np.float64)  # (pixels, 1 or 3)
        if some.shape[1] == 2:  # grey and alpha
            some = some[:, :1]
        some, of = some[np.isfinite(some).all(axis=1)], of.reshape(-1)[np.isfinite(some).all(axis=1)]
        if values.dtype != np.uint8:
            self._deep = True
        self._values.append(some.mean(axis=1))
        self._coloured |= bool(some.shape[1] == 3 and np.ptp(some, axis=1).max(initial=0) > 0)
        for i in counts:
            of_class = some[of == i]
            if len(of_class) >= ENOUGH:
                mean = np.resize(of_class.mean(axis=0), 3)
                self._colours[i].append((self._pictures, mean, len(of_class)))

    def _differences(self, span: float) -> tuple[float, float]:
        """(light, tint) of `Fingerprint`: what the classes of a picture have in common of how much each of them differs
        from its mean over pictures, weighed by their pixels."""
        usual = {
            i: np.average([mean for _, mean, _ in seen], axis=0, weights=[n for _, _, n in seen])
            for i, seen in self._colours.items()
        }
        shifts, weights = np.zeros((self._pictures, 3)), np.zeros(self._pictures)
        for i, seen in self._colours.items():
            for picture, mean, pixels in seen:
                shifts[picture] += pixels * (mean - usual[i]) / span
                weights[picture] += pixels
        shifts = shifts[weights > 0] / weights[weights > 0][:, None]  # (pictures, 3)
        if not len(shifts):
            return 0.0, 0.0
        lightness = shifts.mean(axis=1)
        return float(lightness.std()), float((shifts - lightness[:, None]).std(axis=0).mean())

    def _add_shapes(self, ids: NDArray[Any], counts: Mapping[int, int]) -> None:
        """Look at each class but the most frequent one, in every so manieth picture and where it is new."""
        if not self.able:
            return
        ground = max(counts, key=lambda i: (counts[i], -i))
        for i in counts:
            regular = self._pictures % self.every == 0
            if i == ground or self._looks[i] >= self.looks_a_class or not (regular or self._looks[i] < 3):
                continue
            self._looks[i] += 1
            areas, across = looked_at(ids == i)
            self._parts[i].extend(np.sqrt(areas))
            self._widths[i].append(across)

    def _measure(self, one: int, name: str, total: int) -> ClassMeasure:
        parts = np.array(self._parts[one])
        across = np.concatenate(self._widths[one] or [np.empty(0)])
        size, large = (float(np.percentile(parts, p)) if parts.size else None for p in (50, 90))
        thin, width = (weighted_quantile(across, across, q) if across.size else None for q in (0.1, 0.5))
        return ClassMeasure(
            name, self._pixels[one] / total, self._shown[one] / self._pictures, size, large, width, thin
        )


def looked_at(inside: NDArray[np.bool_]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """(areas of connected parts, widths along middle lines) of a class's pixels (h, w), in pixels.

    Of a large picture in one window about a pixel of the class. Parts that the window cuts count only where it cuts
    all of them.
    """
    from scipy.ndimage import find_objects, label

    places = np.flatnonzero(inside)
    row, column = divmod(int(places[len(places) // 2]), inside.shape[1])
    top, left = (
        max(0, min(at - WINDOW // 2, side - WINDOW))
        for at, side in zip((row, column), inside.shape, strict=True)
    )
    window = inside[top : top + WINDOW, left : left + WINDOW]
    parts, count = label(window, np.ones((3, 3), int))
    areas = np.bincount(parts.reshape(-1), minlength=count + 1)[1:].astype(np.float64)
    open_sides = (
        top > 0, top + window.shape[0] < inside.shape[0], left > 0, left + window.shape[1] < inside.shape[1]
    )  # fmt: skip
    cut = np.zeros(count + 1, bool)
    for edge, is_open in zip((parts[0], parts[-1], parts[:, 0], parts[:, -1]), open_sides, strict=True):
        cut[edge[edge > 0]] |= is_open
    whole = areas[~cut[1:]]
    (box,) = find_objects((parts > 0).astype(np.int8))
    return (whole if whole.size else areas), widths(window[box], window, box)


def widths(
    shape: NDArray[np.bool_],
    window: NDArray[np.bool_] | None = None,
    box: tuple[slice, slice] | None = None,
) -> NDArray[np.float64]:
    """The widths, in pixels, of a shape (h, w) at each point of its middle lines.

    Every pixel is cut into two by two. A point of the shape lies on a middle line where none of its eight neighbours
    is farther from the nearest point outside the shape, and the shape is as wide there as this distance, in halves of
    pixels: a bar of w pixels has the width w. What lies beyond the border is not known, so points that are nearer to it
    than to what is outside are left out. window, box: the shape is window[box], all that the window has of it.
    """
    from scipy.ndimage import distance_transform_edt, maximum_filter

    # One more pixel all round where the window shows it: there it is outside for certain.
    margins = [(0, 0), (0, 0)]
    if window is not None and box is not None:
        margins = [
            (int(part.start > 0), int(part.stop < side)) for part, side in zip(box, window.shape, strict=True)
        ]
    doubled = np.pad(shape, margins).repeat(2, axis=0).repeat(2, axis=1)
    if doubled.all():
        return np.empty(0)
    distance = distance_transform_edt(doubled)
    rows, columns = (np.minimum(np.arange(n), np.arange(n)[::-1]) + 1 for n in doubled.shape)
    # A margin that was seen is no border of what is known
    for known, line in zip(margins, (rows, columns), strict=True):
        if known[0]:
            line[:] = np.arange(len(line))[::-1] + 1
        if known[1]:
            line[:] = np.arange(len(line)) + 1 if not known[0] else len(line)
    to_border = np.minimum(rows[:, None], columns)
    middle = doubled & (distance >= maximum_filter(distance, 3)) & (distance <= to_border)
    found: NDArray[np.float64] = distance[middle]
    return found


def weighted_quantile(values: NDArray[np.float64], weights: NDArray[np.float64], share: float) -> float:
    """The smallest value up to which at least `share` of the weights lie."""
    order = np.argsort(values)
    reached = np.cumsum(weights[order])
    return float(values[order][np.searchsorted(reached, share * reached[-1])])


def _three(values: Sequence[int] | NDArray[Any]) -> tuple[int, int, int]:
    low, middle, high = (round(float(v)) for v in np.percentile(values, (10, 50, 90)))
    return low, middle, high

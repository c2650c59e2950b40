"""Scores of borders: boundary IoU, boundary F, IoU in bands around borders, distances between surfaces.

Rules for all of them, in 2-D and 3-D (image_dims):
- Each class is a mask. Its edge is the pixels of the mask that share a face with a pixel outside it; beyond the
  picture is outside.
- Ignored pixels belong to no mask, of the prediction neither, so what was predicted there cannot matter.
- A class in neither mask is NaN and left out of means. A class in one of the two, missed or invented, gets the
  stated worst value. (MONAI's 95th percentile is NaN then and drops out of its mean, so that a miss improves
  the score; its plain Hausdorff distance is infinite and swallows the mean.)

SciPy's distance transforms do the work (`pip install 'pixelwise[metrics]'`), inside the box around each mask.
Letters: n images, k classes.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from array_api_compat import is_torch_array
from numpy.typing import NDArray

from pixelwise.errors import InputError, MissingExtraError
from pixelwise.metrics.confusion import SCORES, ConfusionMatrix, ImageScores

Mask = NDArray[np.bool_]


class BoundaryIoU:
    """IoU of the bands that lie inside each mask along its edge, added over the data set.

    A band holds the pixels of the mask within width_px of the outside, by the larger of row and column distance
    (chessboard distance: what the authors' erosions with a 3 x 3 square give). width_px None: 2 % of the
    picture's diagonal, rounded, one at least. A missed or invented class scores 0.

    Source: Cheng, Girshick, Dollar, Berg, Kirillov, Boundary IoU (2021), eq. 2. Theirs is a score of one mask;
    for a data set we add intersections and unions and divide once.
    """

    def __init__(
        self,
        num_classes: int,
        ignore_index: int | None = 255,
        *,
        width_px: int | None = None,
        image_dims: int = 2,
    ) -> None:
        if width_px is not None and width_px < 1:
            raise InputError(f"width_px must be 1 or more, got {width_px}")
        self.width_px = width_px
        self._images = _Images(num_classes, ignore_index, image_dims, rule=(width_px,))

    def update(self, prediction: Any, target: Any, names: str | Sequence[str] | None = None) -> BoundaryIoU:
        """Count one image, volume or batch; arguments and errors as of `ConfusionMatrix.update`."""
        for answer, truth in self._images.add(prediction, target, names):
            width = self.width_px or max(1, round(0.02 * math.hypot(*truth.shape)))
            sums = np.zeros((3, self._images.num_classes))
            for c in _classes(answer, truth):
                given, true = (_band(part, width) for part in _cut(answer == c, truth == c))
                sums[:, c] = (given & true).sum(), true.sum(), given.sum()
            self._images.values.append(sums)
        return self

    def merge(self, *others: BoundaryIoU) -> BoundaryIoU:
        """Add what others counted by the same rule. Returns itself."""
        self._images.merge(other._images for other in others)
        return self

    def iou(self) -> NDArray[np.float64]:
        """(k,) in [0, 1] or NaN."""
        return SCORES["iou"](self._images.sum(3))

    def mean_iou(self) -> float:
        """Mean of `iou` without the NaN ones."""
        return float(SCORES["mean_iou"](self._images.sum(3)))

    def per_image(self) -> ImageScores:
        """`iou` of every image, (n, k)."""
        return ImageScores(tuple(self._images.names), SCORES["iou"](self._images.stack(3)))


class BoundaryF:
    """F score of edges: the harmonic mean of precision and recall of edge pixels, with a tolerance.

    Precision is the share of the prediction's edge pixels within tolerance_px of the truth's edge, recall the
    other way round; Euclidean distance between pixel centres. tolerance_px None: 0.75 % of the picture's
    diagonal, as in the source. A missed or invented class scores 0.

    Source: Csurka, Larlus, Perronnin, What is a good evaluation measure for semantic segmentation? (2013). They
    average over images (`per_image().mean`); the score of the data set adds the pixels first.
    """

    def __init__(
        self,
        num_classes: int,
        ignore_index: int | None = 255,
        *,
        tolerance_px: float | None = None,
        image_dims: int = 2,
    ) -> None:
        if tolerance_px is not None and tolerance_px < 0:
            raise InputError(f"tolerance_px must be 0 or more, got {tolerance_px}")
        self.tolerance_px = tolerance_px
        self._images = _Images(num_classes, ignore_index, image_dims, rule=(tolerance_px,))

    def update(self, prediction: Any, target: Any, names: str | Sequence[str] | None = None) -> BoundaryF:
        """Count one image, volume or batch; arguments and errors as of `ConfusionMatrix.update`."""
        for answer, truth in self._images.add(prediction, target, names):
            tolerance = 0.0075 * math.hypot(*truth.shape) if self.tolerance_px is None else self.tolerance_px
            sums = np.zeros((4, self._images.num_classes))
            for c in _classes(answer, truth):
                given, true = (edge(part) for part in _cut(answer == c, truth == c))
                sums[:, c] = (
                    (_distances(given, true) <= tolerance).sum(),
                    given.sum(),
                    (_distances(true, given) <= tolerance).sum(),
                    true.sum(),
                )
            self._images.values.append(sums)
        return self

    def merge(self, *others: BoundaryF) -> BoundaryF:
        """Add what others counted by the same rule. Returns itself."""
        self._images.merge(other._images for other in others)
        return self

    def f(self) -> NDArray[np.float64]:
        """(k,) in [0, 1] or NaN."""
        return _f_score(self._images.sum(4))

    def mean_f(self) -> float:
        """Mean of `f` without the NaN ones."""
        return float(ImageScores((), self.f()).mean)

    def per_image(self) -> ImageScores:
        """`f` of every image, (n, k)."""
        return ImageScores(tuple(self._images.names), _f_score(self._images.stack(4)))


class TrimapIoU:
    """Scores of the pixels near a border, for several widths: how much of the error is at borders.

    `bands[w]` is a ConfusionMatrix of the pixels whose Euclidean distance to the nearest pixel that the truth
    labels otherwise is at most w; w = 1 is the two rows of pixels along a border. A void outline (VOC's 255) is
    another label, so pixels along it are near a border. A picture of one label has no such pixels.

    Source: Kohli, Ladicky, Torr, Robust higher order potentials (2009), section 6; DeepLab's figure of mean IoU
    by trimap width. The authors draw the band around the void outline only; ours needs none.
    """

    def __init__(
        self,
        num_classes: int,
        ignore_index: int | None = 255,
        *,
        widths_px: Sequence[float] = (1, 2, 4, 8, 16),
        image_dims: int = 2,
    ) -> None:
        if not widths_px or min(widths_px) < 1:
            raise InputError(f"widths_px must be 1 or more (the nearest other pixel), got {tuple(widths_px)}")
        self.bands = {w: ConfusionMatrix(num_classes, -1, image_dims=image_dims) for w in widths_px}
        self._images = _Images(num_classes, ignore_index, image_dims, rule=tuple(widths_px))

    def update(self, prediction: Any, target: Any, names: str | Sequence[str] | None = None) -> TrimapIoU:
        """Count one image, volume or batch; arguments and errors as of `ConfusionMatrix.update`."""
        for answer, truth in self._images.add(prediction, target, names):
            distance = np.full(truth.shape, np.inf)
            for label in np.unique(truth):
                mask = truth == label
                if not mask.all():
                    box = _box(mask)
                    here = mask[box]
                    distance[box][here] = _ndimage().distance_transform_edt(here)[here]
            for width, counts in self.bands.items():
                counts.update(
                    answer, np.where(distance <= width, truth, -1), self._images.names[len(counts.names)]
                )
        return self

    def merge(self, *others: TrimapIoU) -> TrimapIoU:
        """Add what others counted by the same rule. Returns itself."""
        self._images.merge(other._images for other in others)
        for width, counts in self.bands.items():
            counts.merge(*(other.bands[width] for other in others))
        return self

    def mean_iou(self) -> dict[float, float]:
        """Mean IoU of each band, by its width."""
        return {width: counts.mean_iou() for width, counts in self.bands.items()}


class SurfaceDistance:
    """Distances between the edges of prediction and truth, per image and class, in the units of `spacing`.

    A class that is missed or invented gets the largest distance two pixel centres of that picture can have, its
    diagonal, in all three scores: no answer can be worse, so leaving a structure out never helps.

    hausdorff: the largest distance of an edge pixel of one to the nearest edge pixel of the other, both ways.
    hausdorff_95: the larger of the two 95th percentiles (linear interpolation), as MONAI has it.
    average: the mean over the edge pixels of both together (average symmetric surface distance).
    """

    def __init__(self, num_classes: int, ignore_index: int | None = 255, *, image_dims: int = 2) -> None:
        self._images = _Images(num_classes, ignore_index, image_dims)

    def update(
        self,
        prediction: Any,
        target: Any,
        names: str | Sequence[str] | None = None,
        *,
        spacing: Sequence[float] | None = None,
    ) -> SurfaceDistance:
        """Measure one image, volume or batch; arguments and errors as of `ConfusionMatrix.update`.

        spacing: the size of a pixel along each axis, in the order of the axes, in mm say; 1 where not given.
        """
        size = _spacing(spacing, self._images.image_dims)
        for answer, truth in self._images.add(prediction, target, names):
            worst = math.hypot(*((n - 1) * s for n, s in zip(truth.shape, size, strict=True)))
            found = np.full((3, self._images.num_classes), np.nan)
            for c in _classes(answer, truth):
                given, true = (edge(part) for part in _cut(answer == c, truth == c))
                if not (given.any() and true.any()):
                    found[:, c] = worst
                    continue
                there, back = _distances(given, true, size), _distances(true, given, size)
                found[:, c] = (
                    max(there.max(), back.max()),
                    max(np.percentile(there, 95), np.percentile(back, 95)),
                    np.concatenate([there, back]).mean(),
                )
            self._images.values.append(found)
        return self

    def merge(self, *others: SurfaceDistance) -> SurfaceDistance:
        """Add the images of others. Returns itself."""
        self._images.merge(other._images for other in others)
        return self

    def hausdorff(self) -> ImageScores:
        """(n, k), 0 or more, NaN for a class in neither; `.mean` is (k,)."""
        return self._scores(0)

    def hausdorff_95(self) -> ImageScores:
        """As hausdorff, with the 95th percentile in place of the largest."""
        return self._scores(1)

    def average(self) -> ImageScores:
        """As hausdorff, with the mean in place of the largest."""
        return self._scores(2)

    def _scores(self, which: int) -> ImageScores:
        return ImageScores(tuple(self._images.names), self._images.stack(3)[:, which])


class SurfaceDice:
    """The share of the two edges, of prediction and truth together, that lies within a tolerance of the other.

    tolerance: in the units of the spacing; Euclidean distance between pixel centres. A missed or invented class scores
    0. Edges are those of pixels, each counting alike.

    Source: Nikolov et al., Deep learning to achieve clinically applicable segmentation (2018), there over elements of a
    surface that is laid between the pixels.
    """

    def __init__(
        self, num_classes: int, ignore_index: int | None = 255, *, tolerance: float = 1.0, image_dims: int = 2
    ) -> None:
        if not 0 <= tolerance < math.inf:
            raise InputError(f"tolerance must be 0 or more, got {tolerance}")
        self.tolerance = tolerance
        self._images = _Images(num_classes, ignore_index, image_dims, rule=(tolerance,))

    def update(
        self,
        prediction: Any,
        target: Any,
        names: str | Sequence[str] | None = None,
        *,
        spacing: Sequence[float] | None = None,
    ) -> SurfaceDice:
        """Count one image, volume or batch; arguments and errors as of `SurfaceDistance.update`."""
        size = _spacing(spacing, self._images.image_dims)
        for answer, truth in self._images.add(prediction, target, names):
            sums = np.zeros((2, self._images.num_classes))
            for c in _classes(answer, truth):
                given, true = (edge(part) for part in _cut(answer == c, truth == c))
                far = np.concatenate([_distances(given, true, size), _distances(true, given, size)])
                sums[:, c] = (far <= self.tolerance + 1e-9).sum(), far.size
            self._images.values.append(sums)
        return self

    def merge(self, *others: SurfaceDice) -> SurfaceDice:
        """Add the images of others. Returns itself."""
        self._images.merge(other._images for other in others)
        return self

    def per_image(self) -> ImageScores:
        """(n, k) in [0, 1], NaN for a class in neither; `.mean` is (k,)."""
        near, all_ = np.moveaxis(self._images.stack(2), 1, 0)
        values = np.where(all_ > 0, near / np.where(all_ > 0, all_, 1), np.nan)
        return ImageScores(tuple(self._images.names), values)


def _spacing(spacing: Sequence[float] | None, dims: int) -> tuple[float, ...]:
    """One positive number an axis, 1 where nothing is given; InputError for anything else."""
    size = (1.0,) * dims if spacing is None else tuple(float(s) for s in spacing)
    if len(size) != dims or not all(0 < s < math.inf for s in size):
        raise InputError(f"spacing must be {dims} positive numbers, one for each axis, got {spacing}")
    return size


@dataclass
class _Images:
    """What was found in each image, values (c, k); the checks are those of a ConfusionMatrix."""

    num_classes: int
    ignore_index: int | None
    image_dims: int
    rule: tuple[Any, ...] = ()
    names: list[str] = field(default_factory=list)
    values: list[NDArray[np.float64]] = field(default_factory=list)

    def add(
        self, prediction: Any, target: Any, names: str | Sequence[str] | None
    ) -> list[tuple[NDArray[np.int64], NDArray[np.int64]]]:
        """Prediction and truth of each image as int64 on the host, -1 where the truth is ignored."""
        _ndimage()
        check = ConfusionMatrix(self.num_classes, self.ignore_index, image_dims=self.image_dims)
        check.update(prediction, target, names)
        first = len(self.names)
        self.names.extend(
            check.names if names is not None else (str(first + i) for i in range(len(check.names)))
        )
        answer, truth = (
            np.asarray(a.detach().cpu() if is_torch_array(a) else a).astype(np.int64)
            for a in (prediction, target)
        )
        if self.ignore_index is not None:
            ignored = truth == self.ignore_index
            answer[ignored] = truth[ignored] = -1
        if truth.ndim == self.image_dims:
            return [(answer, truth)]
        return list(zip(answer, truth, strict=True))

    def merge(self, others: Iterable[_Images]) -> None:
        for other in others:
            mine, theirs = ((i.num_classes, i.ignore_index, i.image_dims, *i.rule) for i in (self, other))
            if mine != theirs:
                raise InputError(f"only scores made with the same arguments add up; got {mine} and {theirs}")
            self.names.extend(other.names)
            self.values.extend(other.values)

    def stack(self, rows: int) -> NDArray[np.float64]:
        return np.asarray(self.values, np.float64).reshape(-1, rows, self.num_classes)

    def sum(self, rows: int) -> NDArray[np.float64]:
        total: NDArray[np.float64] = self.stack(rows).sum(axis=0)
        return total


def edge(mask: Mask) -> Mask:
    """The pixels of a mask (2-D or 3-D) that share a face with a pixel outside it; beyond the picture is outside."""
    inside = mask.copy()
    for axis in range(mask.ndim):
        rows = np.moveaxis(mask, axis, 0)
        kept = np.moveaxis(inside, axis, 0)
        kept[1:] &= rows[:-1]
        kept[:-1] &= rows[1:]
        kept[0] = kept[-1] = False
    at_edge: Mask = mask & ~inside
    return at_edge


def _classes(answer: NDArray[np.int64], truth: NDArray[np.int64]) -> list[int]:
    """The classes that occur in either."""
    return [int(c) for c in np.union1d(answer, truth) if c >= 0]


def _box(mask: Mask) -> tuple[slice, ...]:
    """The smallest box around a mask with a pixel, widened by one pixel where the picture goes on."""
    box = []
    for axis in range(mask.ndim):
        rows = np.nonzero(mask.any(axis=tuple(a for a in range(mask.ndim) if a != axis)))[0]
        box.append(slice(max(0, int(rows[0]) - 1), int(rows[-1]) + 2))
    return tuple(box)


def _cut(answer: Mask, truth: Mask) -> tuple[Mask, Mask]:
    """Both masks inside the box around the two, with one pixel of outside all around."""
    box = _box(answer | truth)
    return np.pad(answer[box], 1), np.pad(truth[box], 1)


def _band(mask: Mask, width: int) -> Mask:
    """The pixels of a mask within `width` of its outside, in chessboard distance."""
    distance = _ndimage().distance_transform_cdt(mask, metric="chessboard")
    band: Mask = mask & (distance <= width)
    return band


def _distances(from_edge: Mask, to_edge: Mask, spacing: Sequence[float] | None = None) -> NDArray[np.float64]:
    """The distance of each pixel of one edge to the nearest of the other; infinite where there is none."""
    if not to_edge.any():
        return np.full(int(from_edge.sum()), np.inf)
    distance: NDArray[np.float64] = _ndimage().distance_transform_edt(~to_edge, sampling=spacing)
    return distance[from_edge]


def _f_score(sums: NDArray[np.float64]) -> NDArray[np.float64]:
    """(..., 4, k) near and all edge pixels of prediction and of truth to (..., k)."""
    near_given, given, near_true, true = np.moveaxis(sums, -2, 0)
    precision, recall = near_given / np.maximum(given, 1), near_true / np.maximum(true, 1)
    both = precision + recall
    f = 2 * precision * recall / np.where(both > 0, both, 1)
    return np.where(given + true > 0, f, np.nan)


def _ndimage() -> Any:
    try:
        from scipy import ndimage
    except ImportError:
        raise MissingExtraError("measuring borders", "metrics") from None
    return ndimage

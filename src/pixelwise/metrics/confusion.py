"""ConfusionMatrix: 64-bit counts of pixels, and every score that can be read from them.

Letters: n images, k classes, h w pixels. A score needs three numbers per class only: `hit` pixels of the class
that were given it, `true` pixels of the class, `given` pixels that were given it. The score functions take those
as arrays (..., 3, k), so one definition serves the whole data set, each image and each bootstrap resample.

Counting is written three times because three machines need it: a compiled loop for the CPU (kernels.py), NumPy
for a cold start (numba costs half a second to import), and torch for a GPU, where nothing but the finished table
visits the host. All three fill a table (k + 2, k + 2) in which row k collects the ignored pixels, row k + 1 the
pixels whose target is no class and column k those whose prediction is none: checking costs no second pass.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
from array_api_compat import is_torch_array
from numpy.typing import NDArray

from pixelwise.errors import InputError, UnknownNameError
from pixelwise.labels import LabelSet

NUMBA_PAYS_FROM_PIXELS = 60_000_000
"""bincount is faster in total than importing numba until about this many pixels were counted in the process."""

ScoreName = Literal[
    "iou",
    "dice",
    "precision",
    "recall",
    "mean_iou",
    "mean_accuracy",
    "pixel_accuracy",
    "frequency_weighted_iou",
    "kappa",
    "mcc",
]

_counted_by_numpy = 0


class ConfusionMatrix:
    """matrix (k, k) int64: `matrix[i, j]` pixels of true class i were given class j.

    num_classes: k. ignore_index: pixels whose target is this number count for nothing, whatever their
    prediction is. It may be None, or a class: that class given to a counted pixel is still a mistake, so leave
    it out of means with `mean_iou(classes)`. image_dims: 2 (or 3 for volumes) to keep the counts of each image
    too, for `per_image` and `interval`; an array of one axis more is then a batch. Memory for that: 24 k bytes
    an image.

    A class that occurs neither in the truth nor in the answer scores NaN and is left out of means. One that
    occurs in either counts, so a missed or invented class can only lower a mean. (torchmetrics averages the
    scores of images or gives absent classes 0, SMP gives absent classes 1; both differ from this.)
    """

    def __init__(
        self, num_classes: int, ignore_index: int | None = 255, *, image_dims: int | None = None
    ) -> None:
        if num_classes < 1:
            raise InputError(f"num_classes must be 1 or more, got {num_classes}")
        self.num_classes = num_classes
        self.ignore_index = ignore_index
        self.image_dims = image_dims
        self.matrix = np.zeros((num_classes, num_classes), np.int64)
        self.names: list[str] = []
        self._images: list[NDArray[np.int64]] = []

    def update(
        self, prediction: Any, target: Any, names: str | Sequence[str] | None = None
    ) -> ConfusionMatrix:
        """Count one image, one volume or a batch. Returns itself.

        prediction, target: class numbers of the same shape, any integer or boolean type, NumPy arrays or torch
        tensors on any device. target holds 0 .. k-1 or `ignore_index`; prediction holds 0 .. k-1 wherever the
        target is not ignored. names: the file of the image, or a list with one for each image of a batch; it is
        used in messages and in `per_image`.

        Raises InputError for another number, with the file, the number and where it first occurs; nothing has
        been counted then.
        """
        prediction, target = _on_one_device(prediction, target)
        if tuple(prediction.shape) != tuple(target.shape):
            raise InputError(
                f"prediction and target must have the same size, got {tuple(prediction.shape)} and "
                f"{tuple(target.shape)}; upsample the prediction to the target, never the target"
            )
        files = self._files(target, names)
        images = 1 if files is None else len(files)
        if is_torch_array(target):
            tables = count_with_torch(prediction, target, self.num_classes, self.ignore_index, images)
        else:
            tables = _count(prediction, target, self.num_classes, self.ignore_index, images)
        k = self.num_classes
        if tables[:, k + 1].any() or tables[:, :k, k:].any():
            raise self._stray(prediction, target, names)
        counts = tables[:, :k, :k]
        if self.ignore_index is not None and 0 <= self.ignore_index < k:
            counts[:, self.ignore_index] = 0
        self.matrix += counts.sum(axis=0)
        if files is not None:
            self.names.extend(files)
            self._images.extend(_sums(counts))
        return self

    def merge(self, *others: ConfusionMatrix) -> ConfusionMatrix:
        """Add the counts of others, made with the same arguments: of other workers, say. Returns itself.

        A ConfusionMatrix pickles, so `torch.distributed.all_gather_object` brings those of all processes.
        """
        for other in others:
            mine, theirs = ((c.num_classes, c.ignore_index, c.image_dims is None) for c in (self, other))
            if mine != theirs:
                raise InputError(
                    "only counts made by the same rule add up; got (num_classes, ignore_index, no counts per "
                    f"image) {mine} and {theirs}"
                )
            self.matrix += other.matrix
            self.names.extend(other.names)
            self._images.extend(other._images)
        return self

    def iou(self) -> NDArray[np.float64]:
        """(k,) intersection over union: hit / (true + given - hit), in [0, 1] or NaN."""
        return SCORES["iou"](_sums(self.matrix))

    def dice(self) -> NDArray[np.float64]:
        """(k,) Dice, which is F1: 2 hit / (true + given), in [0, 1] or NaN."""
        return SCORES["dice"](_sums(self.matrix))

    def precision(self) -> NDArray[np.float64]:
        """(k,) hit / given, in [0, 1] or NaN. A class of the truth that was never given has 0: it was missed."""
        return SCORES["precision"](_sums(self.matrix))

    def recall(self) -> NDArray[np.float64]:
        """(k,) hit / true, in [0, 1], or NaN where the truth holds no such pixel: nothing was there to find.

        A class that was invented is charged to its IoU, Dice and precision.
        """
        return SCORES["recall"](_sums(self.matrix))

    def mean_iou(self, classes: Iterable[int] | None = None) -> float:
        """Mean of `iou` over `classes`, or over all, without the NaN ones; NaN when none is left."""
        values = self.iou() if classes is None else self.iou()[list(classes)]
        return float(_mean(values))

    def mean_accuracy(self) -> float:
        """Mean of `recall` over the classes of the truth (scikit-learn's balanced accuracy), or NaN."""
        return float(SCORES["mean_accuracy"](_sums(self.matrix)))

    def pixel_accuracy(self) -> float:
        """Share of the counted pixels that were given their class; NaN when nothing was counted."""
        return float(SCORES["pixel_accuracy"](_sums(self.matrix)))

    def frequency_weighted_iou(self) -> float:
        """`iou` weighted by each class's share of the true pixels; NaN when nothing was counted."""
        return float(SCORES["frequency_weighted_iou"](_sums(self.matrix)))

    def kappa(self) -> float:
        """Cohen's kappa in [-1, 1]: agreement beyond what the class frequencies give by chance.

        NaN when truth and answer are one and the same class everywhere, where chance agrees too.
        """
        return float(SCORES["kappa"](_sums(self.matrix)))

    def mcc(self) -> float:
        """Matthews correlation coefficient in [-1, 1], for k classes after Gorodkin (2004).

        0 when the truth or the answer is one class throughout, NaN when both are that same one.
        """
        return float(SCORES["mcc"](_sums(self.matrix)))

    def by_class(self, classes: LabelSet) -> dict[str, dict[str, float]]:
        """Scores of each class by its name: iou, dice, precision, recall, true_pixels and given_pixels."""
        if len(classes) != self.num_classes:
            raise InputError(
                f"the LabelSet must name the {self.num_classes} classes counted, got {len(classes)} names"
            )
        _, true, given = _sums(self.matrix)
        columns = {
            "iou": self.iou(), "dice": self.dice(), "precision": self.precision(), "recall": self.recall(),
            "true_pixels": true, "given_pixels": given,
        }  # fmt: skip
        return {
            name: {column: values[i].item() for column, values in columns.items()}
            for i, name in enumerate(classes.names)
        }

    def per_image(self, score: ScoreName = "mean_iou") -> ImageScores:
        """The score of every image by itself; values (n,), or (n, k) for a score per class."""
        return ImageScores(tuple(self.names), _score(score)(self._of_images()))

    def interval(
        self,
        score: ScoreName = "mean_iou",
        *,
        confidence: float = 0.95,
        resamples: int = 1000,
        per_image: bool = False,
        seed: int = 0,
    ) -> Interval:
        """Bootstrap confidence interval of a score over images (percentile method).

        n images are drawn with replacement `resamples` times, their counts added and the score read from the
        sum; with per_image=True the mean of the images' own scores is taken instead. The interval says how far
        the score would move with other images of the same kind, and it is honest only if the images are
        independent: frames of one video are not. A resample may lack a rare class, which is then left out.

        low and high are floats, or (k,) arrays for a score per class. Source: Efron (1979).
        """
        images = self._of_images()
        if not 0 < confidence < 1 or resamples < 1 or len(images) == 0:
            raise InputError(
                "interval needs confidence between 0 and 1, one resample and one image at least; got "
                f"{confidence}, {resamples} and {len(images)}"
            )
        draw, n = np.random.default_rng(seed), len(images)
        values = _score(score)(images) if per_image else None
        flat = images.reshape(n, -1).astype(np.float64)  # exact: sums stay far below 2**53
        found = []
        for start in range(0, resamples, 100):
            times = draw.multinomial(n, np.full(n, 1 / n), size=min(100, resamples - start))
            if values is None:
                found.append(_score(score)((times @ flat).reshape(len(times), *images.shape[1:])))
            else:
                there = ~np.isnan(values)
                found.append(_divide(times @ np.where(there, values, 0.0), times @ there))
        low, high = _quantile(np.concatenate(found), [(1 - confidence) / 2, (1 + confidence) / 2])
        return Interval(low, high) if low.ndim else Interval(low.item(), high.item())

    def _of_images(self) -> NDArray[np.int64]:
        """(n, 3, k) hit, true, given of every image."""
        if self.image_dims is None:
            raise InputError(
                "the counts of each image were not kept; make ConfusionMatrix(..., image_dims=2), or 3 for volumes"
            )
        return np.asarray(self._images, np.int64).reshape(-1, 3, self.num_classes)

    def _files(self, target: Any, names: str | Sequence[str] | None) -> list[str] | None:
        """A name for every image of the array, or None when images are not told apart."""
        count = None if names is None or isinstance(names, str) else len(names)
        if count is not None and (target.ndim == 0 or count != target.shape[0]):
            raise InputError(f"a batch needs one name an image, got {count} for shape {tuple(target.shape)}")
        if self.image_dims is None:
            return None
        if target.ndim - self.image_dims not in (0, 1):
            raise InputError(
                f"with image_dims={self.image_dims} an image has {self.image_dims} axes and a batch one more, "
                f"got shape {tuple(target.shape)}"
            )
        if target.ndim == self.image_dims:
            if count is not None:
                raise InputError("one image takes one name, not a list of them")
            return [str(names) if names is not None else str(len(self.names))]
        if isinstance(names, str):
            raise InputError(f"a batch takes a list of names, one for each image, got {names!r}")
        first = len(self.names)
        return [str(i) for i in range(first, first + target.shape[0])] if names is None else list(names)

    def _stray(self, prediction: Any, target: Any, names: str | Sequence[str] | None) -> InputError:
        """The error for a number that is no class: which file, which number, where."""
        prediction, target = (
            np.asarray(a.cpu() if is_torch_array(a) else a).astype(np.int64) for a in (prediction, target)
        )
        k, ignore = self.num_classes, self.ignore_index
        counted = np.ones(target.shape, bool) if ignore is None else target != ignore
        what, values = "target", target
        stray = counted & ((values < 0) | (values >= k))
        if not stray.any():
            what, values = "prediction", prediction
            stray = counted & ((values < 0) | (values >= k))
        at = tuple(int(i) for i in np.unravel_index(stray.argmax(), stray.shape))
        place: tuple[int, ...] = at
        if names is None:
            file = ""
        elif isinstance(names, str):
            file = f" of {names}"
        else:
            file, place = f" of {names[at[0]]}", at[1:]
        advice = "map the file's numbers with LabelSet.to_indices" if what == "target" else "take the argmax"
        or_ignore = "" if ignore is None or what == "prediction" else f", or {ignore} to ignore"
        return InputError(
            f"the {what}{file} must hold class numbers 0 to {k - 1}{or_ignore}; got {values[at]} at {place}; "
            f"{advice}, or count more classes"
        )


@dataclass(frozen=True, eq=False)
class ImageScores:
    """A score of every image by itself: names (n), values float64 (n,) or (n, k), NaN where undefined.

    The mean of these is another number than the score of the whole data set: here an image with one pixel of a
    class weighs as much as one full of it.
    """

    names: tuple[str, ...]
    values: NDArray[np.float64]

    @property
    def mean(self) -> Any:
        """Mean over images, without the NaN ones: a float, or (k,)."""
        mean = _mean(self.values.T)
        return mean if mean.ndim else mean.item()

    def quantile(self, q: float | Sequence[float]) -> Any:
        """Quantiles over images, without the NaN ones, interpolated linearly; q in [0, 1]; shape of q, then (k,)."""
        found = _quantile(self.values, q)
        return found if found.ndim else found.item()

    def worst(self, count: int = 10, *, largest: bool = False) -> list[tuple[str, float]]:
        """Names and values of the `count` images with the lowest values (or the largest), worst first."""
        if self.values.ndim != 1:
            raise InputError(
                "worst needs one value an image; choose a class: ImageScores(s.names, s.values[:, c])"
            )
        order = np.argsort(-self.values if largest else self.values, kind="stable")  # NaN sorts last
        return [(self.names[i], self.values[i].item()) for i in order[:count] if not np.isnan(self.values[i])]


class Interval(NamedTuple):
    """low <= high: floats, or arrays (k,) for a score per class."""

    low: Any
    high: Any


def _sums(matrix: NDArray[np.int64]) -> NDArray[np.int64]:
    """(..., k, k) counts to (..., 3, k): hit, true, given."""
    hit = np.diagonal(matrix, axis1=-2, axis2=-1)
    return np.stack([hit, matrix.sum(axis=-1), matrix.sum(axis=-2)], axis=-2)


def _divide(over: Any, under: Any) -> NDArray[np.float64]:
    """over / under in float64, NaN where under is 0."""
    over, under = np.broadcast_arrays(np.asarray(over, np.float64), np.asarray(under, np.float64))
    result = np.full(under.shape, np.nan)
    np.divide(over, under, out=result, where=under != 0)
    return result


def _mean(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Mean over the last axis without NaN; NaN where nothing is left."""
    there = ~np.isnan(values)
    return _divide(np.where(there, values, 0.0).sum(axis=-1), there.sum(axis=-1))


def _quantile(values: NDArray[np.float64], q: float | Sequence[float]) -> NDArray[np.float64]:
    """Quantiles over the first axis without NaN; NaN where nothing is left."""
    columns = values.reshape(len(values), math.prod(values.shape[1:])).T
    found = [
        np.quantile(there, q) if (there := column[~np.isnan(column)]).size else np.full(np.shape(q), np.nan)
        for column in columns
    ]
    return np.stack(found, axis=-1).reshape((*np.shape(q), *values.shape[1:]))


def _iou(sums: NDArray[Any]) -> NDArray[np.float64]:
    hit, true, given = np.moveaxis(sums, -2, 0)
    return _divide(hit, true + given - hit)


def _dice(sums: NDArray[Any]) -> NDArray[np.float64]:
    hit, true, given = np.moveaxis(sums, -2, 0)
    return _divide(2 * hit, true + given)


def _precision(sums: NDArray[Any]) -> NDArray[np.float64]:
    hit, true, given = np.moveaxis(sums, -2, 0)
    return _divide(hit, np.where(true > 0, np.maximum(given, 1), given))


def _recall(sums: NDArray[Any]) -> NDArray[np.float64]:
    hit, true, _ = np.moveaxis(sums, -2, 0)
    return _divide(hit, true)


def _pixel_accuracy(sums: NDArray[Any]) -> NDArray[np.float64]:
    hit, true, _ = np.moveaxis(sums, -2, 0)
    return _divide(hit.sum(axis=-1), true.sum(axis=-1))


def _frequency_weighted_iou(sums: NDArray[Any]) -> NDArray[np.float64]:
    true = sums[..., 1, :]
    return _divide((true * np.nan_to_num(_iou(sums))).sum(axis=-1), true.sum(axis=-1))


def _beyond_chance(sums: NDArray[Any]) -> tuple[NDArray[np.float64], ...]:
    """hits, total, and the sums over classes of true x given, true x true, given x given; float64."""
    hit, true, given = np.moveaxis(sums.astype(np.float64), -2, 0)
    products = ((a * b).sum(axis=-1) for a, b in ((true, given), (true, true), (given, given)))
    return (hit.sum(axis=-1), true.sum(axis=-1), *products)


def _kappa(sums: NDArray[Any]) -> NDArray[np.float64]:
    hits, total, chance, _, _ = _beyond_chance(sums)
    return _divide(hits * total - chance, total**2 - chance)


def _mcc(sums: NDArray[Any]) -> NDArray[np.float64]:
    hits, total, chance, true, given = _beyond_chance(sums)
    spread = np.sqrt((total**2 - true) * (total**2 - given))
    nothing_to_tell = (total == 0) | (chance == total**2)
    return np.where(nothing_to_tell, np.nan, np.nan_to_num(_divide(hits * total - chance, spread)))


SCORES: dict[str, Callable[[NDArray[Any]], NDArray[np.float64]]] = {
    "iou": _iou,
    "dice": _dice,
    "precision": _precision,
    "recall": _recall,
    "mean_iou": lambda sums: _mean(_iou(sums)),
    "mean_accuracy": lambda sums: _mean(_recall(sums)),
    "pixel_accuracy": _pixel_accuracy,
    "frequency_weighted_iou": _frequency_weighted_iou,
    "kappa": _kappa,
    "mcc": _mcc,
}
"""Each score as a function of (..., 3, k) hit, true, given: to (..., k) or (...)."""


def _score(name: str) -> Callable[[NDArray[Any]], NDArray[np.float64]]:
    if name not in SCORES:
        raise UnknownNameError("score", name, SCORES)
    return SCORES[name]


def _on_one_device(prediction: Any, target: Any) -> tuple[Any, Any]:
    """Both as NumPy arrays, or both as torch tensors on the GPU that one of them lies on; integers only."""
    arrays: list[Any] = [a.detach() if is_torch_array(a) else np.asarray(a) for a in (prediction, target)]
    for what, array in zip(("prediction", "target"), arrays, strict=True):
        kind = str(array.dtype).removeprefix("torch.") if is_torch_array(array) else array.dtype.name
        if not kind.startswith(("int", "uint", "bool")):
            raise InputError(
                f"{what} must hold integer class numbers, got {kind} of shape {tuple(array.shape)}; "
                "of logits or probabilities take the argmax over classes"
            )
    devices = [a.device for a in arrays if is_torch_array(a) and a.device.type != "cpu"]
    if not devices:
        on_cpu = [a.numpy() if is_torch_array(a) else a for a in arrays]
        return on_cpu[0], on_cpu[1]
    import torch

    on_gpu = [torch.as_tensor(a).to(devices[0]) for a in arrays]
    return on_gpu[0], on_gpu[1]


def _count(
    prediction: NDArray[Any], target: NDArray[Any], k: int, ignore: int | None, images: int
) -> NDArray[np.int64]:
    """Tables (images, k + 2, k + 2), see the top of the file."""
    truth, answer = (_flat(a, k) for a in (target, prediction))
    if k > 254 or not _numba_pays(truth.size):  # the kernel's indices have 16 bits
        return _count_with_numpy(answer, truth, k, ignore, images)
    from pixelwise import kernels

    if truth.size == 0:
        return np.zeros((images, k + 2, k + 2), np.int64)
    size = truth.size // images
    pieces = max(1 if truth.size < 1 << 20 else -(-8 // images), -(-size // (1 << 31)))
    starts = np.arange(images)[:, None] * size + np.arange(pieces) * size // pieces
    edges = np.append(starts.ravel(), truth.size)
    tables = np.zeros((images, pieces, (k + 2) ** 2), np.int64)
    known = ignore is not None and np.iinfo(truth.dtype).min <= ignore <= np.iinfo(truth.dtype).max
    kernels.in_bands(
        kernels.count_pairs,
        images * pieces,
        truth,
        answer,
        edges,
        k,
        truth.dtype.type(ignore if known else 0),
        tables.reshape(images * pieces, -1),
    )
    summed: NDArray[np.int64] = tables.sum(axis=1).reshape(images, k + 2, k + 2)
    return summed


def _flat(array: NDArray[Any], k: int) -> NDArray[Any]:
    """One axis, contiguous, uint8, int32 or int64 (the kernel is compiled for each pair), k + 1 within its range."""
    if array.dtype == bool:
        array = array.view(np.uint8)
    if array.dtype != np.uint8 or k > 254:
        array = array.astype(np.int32 if np.can_cast(array.dtype, np.int32) else np.int64, copy=False)
    flat: NDArray[Any] = np.ascontiguousarray(array).reshape(-1)
    return flat


def _numba_pays(pixels: int) -> bool:
    global _counted_by_numpy
    if "numba" in sys.modules:
        return True
    _counted_by_numpy += pixels
    return _counted_by_numpy > NUMBA_PAYS_FROM_PIXELS


def _count_with_numpy(
    answer: NDArray[Any], truth: NDArray[Any], k: int, ignore: int | None, images: int
) -> NDArray[np.int64]:
    tables = np.zeros((images, (k + 2) ** 2), np.int64)
    size = truth.size // images if images else 0
    for i in range(images):
        for start in range(i * size, (i + 1) * size, 1 << 20):  # a million pixels at a time bounds the memory
            end = min(start + (1 << 20), (i + 1) * size)
            t, p = (a[start:end].astype(np.int64) for a in (truth, answer))
            stray = (t < 0) | (t >= k)
            if stray.any():
                t[stray] = np.where(t[stray] == ignore, k, k + 1) if ignore is not None else k + 1
            p[(p < 0) | (p >= k)] = k
            t *= k + 2
            t += p
            tables[i] += np.bincount(t, minlength=(k + 2) ** 2)
    return tables.reshape(images, k + 2, k + 2)


def count_with_torch(
    prediction: Any, target: Any, k: int, ignore: int | None, images: int
) -> NDArray[np.int64]:
    """As _count, on the tensors' device; only the tables come to the host."""
    import torch

    t, p = target.reshape(-1).long(), prediction.reshape(-1).long()
    outside = torch.full_like(t, k + 1) if ignore is None else torch.where(t == ignore, k, k + 1)
    t = torch.where((t >= 0) & (t < k), t, outside)
    p = torch.where((p >= 0) & (p < k), p, k)
    index = t * (k + 2) + p
    if images > 1:
        place = torch.arange(images, device=t.device)[:, None] * (k + 2) ** 2
        index = (index.reshape(images, -1) + place).reshape(-1)
    table = torch.bincount(index, minlength=images * (k + 2) ** 2).cpu().numpy()
    return np.asarray(table, np.int64).reshape(images, k + 2, k + 2)

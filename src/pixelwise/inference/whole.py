"""Volumes as nnU-Net sees them: cropped, normalised and resampled as a whole, in windows of its places and weights.

Isensee et al., nnU-Net, Nature Methods 18 (2021), and what its second version does: each step, and the order in which
numbers are added, so that its networks give here what they give there. Where a network was trained on volumes that were
prepared so, preparing them slice by slice (`volumes`) would show it something else.

Letters: c channels, k classes or regions, d h w voxels in the network's order of axes.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pixelwise.codes import code_type, highest
from pixelwise.errors import ImageError, InputError, MissingExtraError
from pixelwise.inference.axis import axis_of
from pixelwise.inference.options import Accumulate
from pixelwise.inference.planes import sigmoid
from pixelwise.inference.tiling import Band, Predict, Window, enlarge, window
from pixelwise.inference.volume_preprocess import Normalise, Resample, VolumePreprocess
from pixelwise.inference.volumes import TINY, Fitting, Size, refuse_no_rgb, shown_size

ANISOTROPIC = 3
"""How many times the smallest spacing the largest one is, from which on its axis is resampled apart."""

PEAK = 10.0
"""The largest weight of a window: so large that in float16 those of its corners do not vanish, and so small that sums
of logits do not overflow."""

OUTSIDE = -1000.0
"""The logits of what is not the background where the network has seen nothing; that of the background is 0."""

Box = tuple[slice, slice, slice]


@dataclass(frozen=True)
class Windows:
    """In which windows a volume is seen. overlap: of neighbours, a float is a share of the patch, an int voxels.
    accumulate: what sums of
    logits are kept in; in float16, as nnU-Net keeps them, they are coarse near the corners of the volume, where
    float32 gives other labels. Then the logits of each network are summed for themselves."""

    overlap: float | int = 0.5
    kind: Window = "gaussian"
    accumulate: Accumulate = "float32"


def segment_whole(
    values: NDArray[np.generic],
    fit: Fitting,
    wanted: VolumePreprocess,
    members: Sequence[Predict],
    windows: Windows,
    *,
    outputs: int,
    confidence: bool = False,
    regions: bool = False,
    logits: bool = False,
    name: str = "the volume",
    progress: Callable[[float], None] = lambda share: None,
) -> Iterator[Band]:
    """One band, of the whole volume in the network's order of axes, as `volumes.segment_volume` gives it in parts.

    values: (c, d, h, w) as stored. members: the networks whose logits are averaged. outputs: how many logits each
    gives. Raises ImageError for numbers that are not finite, InputError for sums that float16 cannot hold.
    """
    whole = wanted.whole
    assert whole is not None
    box, data, mask = _cropped(values, fit, wanted, name)
    size = _size(data.shape[1:])
    _normalise(data, wanted.channels, mask, name)
    here, there = fit.spacing, _spacing(fit, wanted)
    shown = size
    if here is not None and there is not None:
        shown = shown_size(size, here, wanted)
        data = _resampled_image(data, shown, whole.image, here, there)
    found = _predicted(data, members, wanted, windows, outputs, progress)
    del data
    exact = windows.accumulate == "float16"

    def back(one: NDArray[Any]) -> NDArray[Any]:
        if here is None or there is None:
            return one
        return resample(one, size, whole.logits, there, here, exact=exact)

    keeps = confidence or logits
    planes: Iterator[NDArray[Any]] = (back(one) for one in found)
    if keeps:
        planes = iter(np.stack([one.astype(np.float32) for one in planes]))
    inside = _decided(planes, len(found), regions=regions, keeps=keeps, confidence=confidence)
    band = _put_back(inside, box, fit.size, len(found), regions=regions, logits=logits)
    for group in whole.largest:
        _keep_largest(band, group)
    yield band


def need(fit: Fitting, wanted: VolumePreprocess, outputs: int, windows: Windows) -> int:
    """About the memory that it takes beside the volume, its label map and the network's own, as if nothing were cropped
    off."""
    voxels, shown = math.prod(fit.size), math.prod(map(max, fit.shown, wanted.patch))
    channels, exact = len(wanted.channels), windows.accumulate == "float16"
    resampling = 0 if not fit.resamples else 24 * voxels + 8 * shown
    preparing = 4 * channels * voxels + resampling + 4 * channels * shown * fit.resamples
    summing = 4 * channels * shown + (2 if exact else 4) * (2 if exact else 1) * (outputs + 1) * shown
    back = 4 * outputs * shown + (16 if fit.resamples else 8) * voxels
    return max(preparing, summing, back)


def _cropped(
    values: NDArray[np.generic], fit: Fitting, wanted: VolumePreprocess, name: str
) -> tuple[Box, NDArray[np.float32], NDArray[np.bool_] | None]:
    """The box of what is not zero, its values as a view of a copy that is the volume's own layout (sums of float32
    depend on it), and where in it they are inside, if that is asked for."""
    whole = wanted.whole
    assert whole is not None
    data = fit.turn(np.array(values, np.float32, order="C"))
    box: Box = (slice(None), slice(None), slice(None))
    some: NDArray[np.bool_] | None = None
    if whole.crop or any(channel.nonzero for channel in wanted.channels):
        some = data[0] != 0
        for one in data[1:]:
            some |= one != 0
    if whole.crop and some is not None and some.any():
        ends = []
        for axis in range(3):
            (there,) = np.nonzero(some.any(axis=tuple(other for other in range(3) if other != axis)))
            ends.append(slice(int(there[0]), int(there[-1]) + 1))
        box = (ends[0], ends[1], ends[2])
        some = some[box]
    where = (slice(None), *box)
    data = data[where]
    for channel in data:
        if not np.isfinite(channel).all():
            raise ImageError(
                f"{name} holds voxels that are no finite numbers; replace them first, such as by np.nan_to_num"
            )
    if not any(channel.nonzero for channel in wanted.channels):
        return box, data, None
    return box, data, _ndimage().binary_fill_holes(some)


def _normalise(
    data: NDArray[np.float32], channels: Sequence[Normalise], mask: NDArray[np.bool_] | None, name: str
) -> None:
    """In place and in float32, as the networks were trained with."""
    for image, how in zip(data, channels, strict=True):
        if how.kind == "zscore" and how.nonzero:
            assert mask is not None
            some = image[mask]
            if some.size:
                image[mask] = (some - some.mean()) / max(some.std(), TINY)
        elif how.kind == "zscore":
            mean, std = image.mean(), image.std()
            image -= mean
            image /= max(std, TINY)
        elif how.kind == "ct":
            assert how.mean is not None
            assert how.std is not None
            np.clip(image, how.low, how.high, out=image)
            image -= how.mean
            image /= max(how.std, TINY)
        elif how.kind == "rescale":
            image -= image.min()
            image /= max(image.max(), TINY)
        elif how.kind == "rgb":
            refuse_no_rgb(float(image.min()), float(image.max()), name)
            image /= 255.0


def _spacing(fit: Fitting, wanted: VolumePreprocess) -> tuple[float, float, float] | None:
    """Of the network's grid; of a planar one the first is the volume's own."""
    if wanted.spacing is None or fit.spacing is None:
        return None
    assert wanted.whole is not None
    return (fit.spacing[0], *wanted.spacing[1:]) if wanted.whole.planar else wanted.spacing


def _resampled_image(
    data: NDArray[np.float32],
    size: Size,
    how: Resample,
    here: tuple[float, float, float],
    there: tuple[float, float, float],
) -> NDArray[np.float32]:
    if _size(data.shape[1:]) == size or how.by == "none":
        return data
    resampled = np.empty((len(data), *size), np.float32)
    for one, goal in zip(data, resampled, strict=True):
        goal[:] = resample(one, size, how, here, there)
    return resampled


def resample(
    values: NDArray[Any],
    size: Size,
    how: Resample,
    here: tuple[float, float, float],
    there: tuple[float, float, float],
    *,
    exact: bool = True,
) -> NDArray[Any]:
    """Values (d, h, w) of spacing `here` as (size), of spacing `there`, in the values' own type.

    exact: a spline of order 1 is computed in float64 as higher ones are; without it, as linear interpolation in
    float32, which takes a fraction of the time and differs in the last digits. "linear" always gives float32.
    """
    if _size(values.shape) == size or how.by == "none":
        return values
    found: NDArray[Any]
    axis = _apart(how, here, there)
    if how.by == "linear" or (how.order == 1 and not exact):
        numbers = values.astype(np.float32, copy=False)
        if axis is None:
            return np.asarray(enlarge(numbers, size, align_corners=False))
        flat = [values.shape[a] if a == axis else side for a, side in enumerate(size)]
        numbers = np.asarray(enlarge(numbers, flat, align_corners=False))
        if how.by == "linear":
            old, new = values.shape[axis], size[axis]
            nearest = np.minimum(((np.arange(new) + 0.5) * np.float32(old / new)).astype(int), old - 1)
            found = np.take(numbers, nearest, axis)
            return found
        return _along(numbers, size[axis], axis, how.order_z)
    doubles = values.astype(np.float64)
    if axis is None:
        return _zoomed(doubles, size, how.order).astype(values.dtype)
    sides = tuple(side for a, side in enumerate(size) if a != axis)
    slices = [_zoomed(plane, sides, how.order) for plane in np.moveaxis(doubles, axis, 0)]
    return _along(np.stack(slices, axis), size[axis], axis, how.order_z).astype(values.dtype)


def _apart(how: Resample, here: tuple[float, float, float], there: tuple[float, float, float]) -> int | None:
    """The axis that is resampled apart from the others, if there is one."""
    if how.apart is False:
        return None
    coarse = here
    if how.apart is None:
        found = [spacing for spacing in (here, there) if max(spacing) / min(spacing) > ANISOTROPIC]
        if not found:
            return None
        coarse = found[0]
    largest = [axis for axis in range(3) if max(coarse) / coarse[axis] == 1]
    return largest[0] if len(largest) == 1 else None


def _zoomed(values: NDArray[np.float64], size: tuple[int, ...], order: int) -> NDArray[np.float64]:
    """A spline through the values, the outermost continued, cut off at their range; voxels are areas, not points."""
    factors = [1 / (old / new) for old, new in zip(values.shape, size, strict=True)]
    zoomed = _ndimage().zoom(values, factors, order=order, mode="nearest", grid_mode=True)
    found: NDArray[np.float64] = np.clip(zoomed, values.min(), values.max(), out=zoomed)
    return found


def _along(values: NDArray[Any], size: int, axis: int, order: int) -> NDArray[Any]:
    """Brought to `size` along one axis: by the nearest slice (0), or linearly (1)."""
    old = values.shape[axis]
    if old == size:
        return values
    if order == 0:
        places = (np.arange(size) + 0.5) * (old / size) - 0.5
        nearest = np.clip(np.floor(places + 0.5), 0, old - 1).astype(int)
        found: NDArray[Any] = np.take(values, nearest, axis)
        return found
    where = axis_of(old, size, False)
    weight = np.expand_dims(where.weight, tuple(a for a in range(3) if a != axis))
    before = np.take(values, where.cell, axis)
    return np.asarray(
        before * (1 - weight) + np.take(values, np.minimum(where.cell + 1, old - 1), axis) * weight
    )


def steps(size: Sequence[int], patch: Sequence[int], overlap: float | int) -> list[list[int]]:
    """Where windows begin along each axis of a volume that is at least as large as they are.

    >>> steps((110, 65, 200, 37), (64, 64, 96, 24), 0.5)
    [[0, 23, 46], [0, 1], [0, 35, 69, 104], [0, 6, 13]]
    """
    places = []
    for side, edge in zip(size, patch, strict=True):
        stride = max(1, edge - overlap) if isinstance(overlap, int) else edge * (1 - overlap)
        count = math.ceil((side - edge) / stride) + 1
        step = (side - edge) / (count - 1) if count > 1 else 0.0
        places.append([round(float(np.round(step * i))) for i in range(count)])
    return places


def weights_of(patch: Size, kind: Window, planar: bool) -> NDArray[np.float16]:
    """The weights of a window's voxels, float16 of the patch's size.

    gaussian: of an impulse in the middle voxel, with a deviation of an eighth of each side; what float16 makes 0 gets
    its smallest number instead.
    """
    sides = patch[1:] if planar else patch
    if kind != "gaussian":
        return (PEAK * window(sides, kind)).astype(np.float16).reshape(patch)
    impulse = np.zeros(sides)
    impulse[tuple(side // 2 for side in sides)] = 1
    smooth = _ndimage().gaussian_filter(impulse, [side / 8 for side in sides], mode="constant")
    smooth /= smooth.max() / PEAK
    weights: NDArray[np.float16] = smooth.astype(np.float32).astype(np.float16).reshape(patch)
    weights[weights == 0] = weights[weights > 0].min()
    return weights


def _predicted(
    data: NDArray[np.float32],
    members: Sequence[Predict],
    wanted: VolumePreprocess,
    windows: Windows,
    outputs: int,
    progress: Callable[[float], None],
) -> NDArray[Any]:
    """The mean logits (k, d, h, w) of the networks for prepared values (c, d, h, w)."""
    patch, whole = wanted.patch, wanted.whole
    assert whole is not None
    missing = [max(edge - side, 0) for side, edge in zip(data.shape[1:], patch, strict=True)]
    if any(missing):
        data = np.pad(data, [(0, 0), *((m // 2, m - m // 2) for m in missing)])
    places = list(itertools.product(*steps(data.shape[1:], patch, windows.overlap)))
    weights = weights_of(patch, windows.kind, whole.planar)
    passes = [[one] for one in members] if windows.accumulate == "float16" else [list(members)]
    total: NDArray[Any] | None = None
    for done, networks in enumerate(passes):

        def tell(share: float, done: int = done) -> None:
            progress(0.9 * (done + share) / len(passes))

        one = _summed(data, networks, places, weights, windows.accumulate, outputs, tell)
        if total is None:
            total = one
        else:
            total += one
    assert total is not None
    if len(passes) > 1:
        total /= len(passes)
    cut = tuple(slice(m // 2, side - (m - m // 2)) for m, side in zip(missing, data.shape[1:], strict=True))
    inner = (slice(None), *cut)
    return total[inner]


def _summed(
    data: NDArray[np.float32],
    networks: Sequence[Predict],
    places: Sequence[tuple[int, ...]],
    weights: NDArray[np.float16],
    accumulate: Accumulate,
    outputs: int,
    tell: Callable[[float], None],
) -> NDArray[Any]:
    """The weighted mean of the windows' logits (k, d, h, w)."""
    dtype = np.dtype(accumulate)
    sums = np.zeros((outputs, *data.shape[1:]), dtype)
    total = np.zeros(data.shape[1:], dtype)
    floats = weights.astype(np.float32)
    for i, start in enumerate(places):
        where = tuple(slice(at, at + side) for at, side in zip(start, weights.shape, strict=True))
        everywhere = (slice(None), *where)
        shown = np.ascontiguousarray(data[everywhere])[None]
        answer = _host(networks[0](shown))
        for network in networks[1:]:
            answer = answer + _host(network(shown))
        answer = answer * (floats / np.float32(len(networks)) if len(networks) > 1 else floats)
        with np.errstate(over="ignore"):
            sums[everywhere] += answer[0]
            total[where] += weights
        tell((i + 1) / len(places))
    with np.errstate(over="ignore", invalid="ignore"):
        np.divide(sums, total, out=sums)
    if not np.isfinite(sums).all():
        raise InputError(
            "the sums of this model's logits are no finite numbers"
            + (" in float16; take accumulate float32" if accumulate == "float16" else "; look at its weights")
        )
    return sums


@dataclass
class _Inside:
    """What was found in the box; see `Band`."""

    labels: NDArray[Any]
    codes: NDArray[Any] | None
    confidence: NDArray[np.float32] | None
    logits: NDArray[np.float32] | None


def _decided(
    planes: Iterator[NDArray[Any]], k: int, *, regions: bool, keeps: bool, confidence: bool
) -> _Inside:
    """The classes of logits that come class by class, each (d, h, w), so that they need not be there at a time."""
    kept: list[NDArray[np.float32]] = []
    best: NDArray[Any] | None = None
    labels: NDArray[Any] | None = None
    for i, plane in enumerate(planes):
        if keeps:
            kept.append(plane)
        if labels is None:
            dtype = code_type(k) if regions else np.min_scalar_type(max(1, k - 1))
            labels = np.zeros(plane.shape, dtype)
        if regions:
            labels |= (plane > 0).astype(labels.dtype) << labels.dtype.type(i)
        elif k == 1:
            labels[plane > 0] = 1
        elif best is None:
            best = plane.copy()
        else:
            more = plane > best
            best[more] = plane[more]
            labels[more] = i
    assert labels is not None
    codes = labels if regions else None
    logits = np.stack(kept) if keeps else None
    sure = None
    if confidence:
        assert logits is not None
        if regions or k == 1:
            sure = sigmoid(np.abs(logits).min(axis=0))
        else:
            sure = (1 / np.exp(logits - logits.max(axis=0)).sum(axis=0)).astype(np.float32)
    return _Inside(highest(labels, k) if regions else labels, codes, sure, logits)


def _put_back(inside: _Inside, box: Box, size: Size, k: int, *, regions: bool, logits: bool) -> Band:
    """What was found in the box, on the whole grid: background around it."""

    def grown(values: NDArray[Any] | None, around: float) -> NDArray[Any] | None:
        if values is None or values.shape[-3:] == size:
            return values
        whole = np.full((*values.shape[:-3], *size), around, values.dtype)
        place = (..., *box)
        whole[place] = values
        return whole

    everywhere = grown(inside.logits if logits else None, OUTSIDE)
    if everywhere is not None and not regions and k > 1 and inside.labels.shape != size:
        background = everywhere[0]
        within = background[box].copy()
        background[:] = 0
        background[box] = within
    labels = grown(inside.labels, 0)
    assert labels is not None
    return Band(0, labels, grown(inside.confidence, 1), None, grown(inside.codes, 0), everywhere)


def _keep_largest(band: Band, group: Sequence[int]) -> None:
    """Make background, in place, of what of these classes, taken together, is not their largest component; of several
    of the same size all stay. Voxels that touch at a corner are neighbours."""
    ndimage = _ndimage()
    mask = np.isin(band.labels, group)
    parts, count = ndimage.label(mask, np.ones((3, 3, 3), bool))
    if count < 2:
        return
    sizes = np.bincount(parts.ravel())
    sizes[0] = 0
    gone = mask & (sizes != sizes.max())[parts]
    band.labels[gone] = 0
    if band.codes is not None:
        band.codes[gone] = 0


def _host(logits: Any) -> NDArray[np.float32]:
    values = logits.detach().cpu().numpy() if hasattr(logits, "detach") else logits
    return np.asarray(values, np.float32)


def _size(shape: tuple[int, ...]) -> Size:
    depth, height, width = shape
    return depth, height, width


def _ndimage() -> Any:
    try:
        from scipy import ndimage
    except ModuleNotFoundError as error:
        raise MissingExtraError("models that take whole volumes", "volume") from error
    return ndimage

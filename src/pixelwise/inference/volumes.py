"""Volumes: from the numbers of a scan to classes on its own grid, slab by slab.

A volume is turned to the network's orientation (a view), its slices are normalised and brought to the network's spacing
as they are asked for, `tiling.stitch` blends overlapping windows of them along slabs, and what the slabs say is brought
back to the volume's own grid: logits are interpolated there, never labels. So what is needed beside the volume and its
label map is a few slabs, however many slices there are.

Letters: c channels, k classes, d h w voxels in the network's orientation.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from pixelwise.codes import code_type, highest
from pixelwise.errors import ImageError, InputError
from pixelwise.geometry import AS_IT_IS, Geometry, Turn
from pixelwise.inference.axis import axis_of
from pixelwise.inference.planes import sigmoid
from pixelwise.inference.tiling import Band, Predict, Tiling, enlarge, stitch
from pixelwise.inference.volume_preprocess import Normalise, VolumePreprocess

OVERLAP = 0.5
"""Of neighbouring windows, as a share of the patch, where nothing else is said: the field's habit."""

TINY = 1e-8
"""The smallest deviation or range that is divided by."""

Size = tuple[int, int, int]


@dataclass(frozen=True)
class Fitting:
    """How a volume comes to a network and back. turn: to the network's orientation. size: after it, on the volume's own
    grid; shown: the size in the network's spacing."""

    turn: Turn
    size: Size
    shown: Size

    @property
    def resamples(self) -> bool:
        """Whether the network sees another grid than the volume's."""
        return self.size != self.shown


def fitting(size: Size, geometry: Geometry | None, wanted: VolumePreprocess, name: str) -> Fitting:
    """How a volume of that size, as it is stored, comes to a network that wants them so.

    Raises InputError, beginning with the volume's name, where the geometry does not say what the network needs.
    """
    turn = AS_IT_IS
    if wanted.orientation is not None:
        if geometry is None or geometry.affine is None:
            raise InputError(
                f"{name} does not say how it lies in the body, and this model takes volumes in {wanted.orientation}; "
                "say where its columns, rows and slices grow towards: --assume-orientation RAS (in Python "
                "Volume.of(values, affine), or read_volume(path, assume_orientation='RAS'))"
            )
        turn = geometry.turn_to(wanted.orientation)
    turned = turn.of_sides(size)
    if wanted.spacing is None:
        return Fitting(turn, turned, turned)
    if geometry is None:
        raise InputError(
            f"{name} does not say its spacing, and this model takes volumes of "
            f"{' x '.join(f'{side:g}' for side in wanted.spacing)} mm; give it: Volume.of(values, affine)"
        )
    spacing = turn.of_sides(geometry.spacing)
    first, second, third = (
        max(1, round(side * here / there))
        for side, here, there in zip(turned, spacing, wanted.spacing, strict=True)
    )
    shown = (first, second, third)
    if math.prod(shown) > MAX_GROWTH * math.prod(turned) and math.prod(shown) > MAX_SHOWN:
        raise InputError(
            f"{name} has a spacing of {' x '.join(f'{side:g}' for side in spacing)} mm, of which this model's would "
            f"make "
            f"{' x '.join(map(str, shown))} voxels; look at the spacing in the file"
        )
    if shown != turned and geometry.sheared:
        raise InputError(
            f"the axes of {name} are not at right angles, and this model takes another spacing than the volume has, "
            "which would have to be found along them; resample it to right angles first, with what the scanner's maker "
            "or dcm2niix offers"
        )
    return Fitting(turn, turned, shown)


MAX_GROWTH, MAX_SHOWN = 64, 2**31
"""A spacing in the file of a hundred metres would fill any disk with voxels: so many times as many, and so many."""


def segment_volume(
    values: NDArray[np.generic],
    fit: Fitting,
    wanted: VolumePreprocess,
    predict: Predict,
    *,
    tiling: Tiling,
    align_corners: bool = False,
    confidence: bool = False,
    regions: bool = False,
    logits: bool = False,
    name: str = "the volume",
) -> Iterator[Band]:
    """Bands of slices of class indices on the volume's own grid, in the network's orientation, first slice first.

    values: (c, d, h, w) as stored. tiling: in the network's grid. The others, and what a band holds: see
    `tiling.stitch`; nothing is pending. Raises ImageError for numbers that are not finite, with the volume's name.
    """
    slices = _Slices(fit.turn(values), wanted.channels, fit.shown, name)
    bands = stitch(
        slices,
        fit.shown,
        predict,
        tiling=tiling,
        align_corners=align_corners,
        confidence=confidence and not fit.resamples,
        regions=regions,
        logits=logits or fit.resamples,
    )
    if not fit.resamples:
        return (replace(band, pending=None) for band in bands)
    return _brought_back(bands, fit, confidence=confidence, regions=regions, logits=logits)


def normalised(
    values: NDArray[np.generic], fit: Fitting, wanted: VolumePreprocess, name: str = "the volume"
) -> NDArray[np.float32]:
    """The whole volume as the network sees it, (c, d, h, w): turned, normalised and at its spacing, to the last bit
    what `segment_volume` cuts its windows from. values, name: as there."""
    slices = _Slices(fit.turn(values), wanted.channels, fit.shown, name)
    return np.ascontiguousarray(np.moveaxis(slices(0, fit.shown[0]), -1, 0))


class _Slices:
    """Normalised slices in the network's grid, for `stitch`: read(top, bottom) gives float32 (n, h, w, c)."""

    def __init__(
        self, values: NDArray[np.generic], channels: Sequence[Normalise], shown: Size, name: str
    ) -> None:
        self._values, self._name, self._shown = values, name, shown
        self._nonzero = any(channel.nonzero for channel in channels)
        self._scaled = [self._scale(i, channel) for i, channel in enumerate(channels)]
        self._where = axis_of(values.shape[1], shown[0], False)
        self._near: dict[int, NDArray[np.float32]] = {}

    def __call__(self, top: int, bottom: int) -> NDArray[np.float32]:
        rows = np.empty((bottom - top, *self._shown[1:], self._values.shape[0]), np.float32)
        last = self._values.shape[1] - 1
        for i in range(top, bottom):
            first, weight = int(self._where.cell[i]), self._where.weight[i]
            one = self._slice(first)
            if weight:
                one = one * (1 - weight) + self._slice(min(first + 1, last)) * weight
            rows[i - top] = np.moveaxis(one, 0, -1)
        return rows

    def _slice(self, i: int) -> NDArray[np.float32]:
        """Slice i of the volume, normalised, at the network's spacing within the slice: (c, h, w)."""
        if i not in self._near:
            raw = np.ascontiguousarray(self._values[:, i])
            some = (raw != 0).any(axis=0) if self._nonzero else None
            planes = np.stack([scale(plane, some) for scale, plane in zip(self._scaled, raw, strict=True)])
            self._near = {
                k: plane for k, plane in self._near.items() if k == i - 1
            }  # none before is needed again
            self._near[i] = enlarge(planes, self._shown[1:], align_corners=False).astype(
                np.float32, copy=False
            )
        return self._near[i]

    def _scale(
        self, channel: int, how: Normalise
    ) -> Callable[[NDArray[np.generic], NDArray[np.bool_] | None], NDArray[np.float32]]:
        """What normalises a slice of a channel; its numbers are found by going through the volume, and every number is
        looked at. Sums are taken slice by slice, each in its own order, so that a volume that is stored the other way
        round has the same to the last bit."""
        count, total, low, high = 0, 0.0, math.inf, -math.inf
        depth = self._values.shape[1]
        for i in range(depth):
            plane = self._plane(channel, i, how)
            if not np.isfinite(plane).all():
                raise ImageError(
                    f"{self._name} holds voxels that are no finite numbers, the first in slice {i} as the model "
                    f"sees it; "
                    "replace them first, such as by np.nan_to_num"
                )
            if plane.size:
                count, total = count + plane.size, total + float(plane.sum())
                low, high = min(low, float(plane.min())), max(high, float(plane.max()))
        shift, divisor = 0.0, 1.0
        if how.kind == "ct":
            assert how.mean is not None
            assert how.std is not None
            shift, divisor = how.mean, how.std
        elif how.kind == "rescale":
            shift, divisor = low, max(high - low, TINY)
        elif how.kind == "zscore" and count:
            shift = total / count
            squares = sum(float(((self._plane(channel, i, how) - shift) ** 2).sum()) for i in range(depth))
            divisor = max(math.sqrt(squares / count), TINY)

        def scale(plane: NDArray[np.generic], some: NDArray[np.bool_] | None) -> NDArray[np.float32]:
            numbers = plane.astype(np.float64)
            if how.kind == "ct":
                numbers = np.clip(numbers, how.low, how.high)
            numbers = (numbers - shift) / divisor
            if how.nonzero and some is not None:
                numbers[~some] = 0
            return numbers.astype(np.float32)

        return scale

    def _plane(self, channel: int, i: int, how: Normalise) -> NDArray[np.float64]:
        """The numbers of one slice that count for its normalisation."""
        plane = np.ascontiguousarray(self._values[channel, i]).astype(np.float64)
        if not how.nonzero:
            return plane
        return np.asarray(plane[(self._values[:, i] != 0).any(axis=0)])


def _brought_back(
    bands: Iterator[Band], fit: Fitting, *, confidence: bool, regions: bool, logits: bool
) -> Iterator[Band]:
    """Slice by slice of the volume's own grid what the bands of the network's grid say, whose logits are interpolated
    linearly."""
    where = axis_of(fit.shown[0], fit.size[0], False)
    coming = (plane for band in bands for plane in _planes(band))
    near: dict[int, NDArray[np.float32]] = {}
    have = 0
    for i, (first, weight) in enumerate(zip(where.cell.tolist(), where.weight, strict=True)):
        second = min(first + 1, fit.shown[0] - 1) if weight else first
        while have <= second:
            plane = next(coming)
            if have >= first:
                near[have] = enlarge(plane, fit.size[1:], align_corners=False)
            have += 1
        near = {k: plane for k, plane in near.items() if k >= first}
        found = near[first]
        if weight:
            found = found * (1 - weight) + near[second] * weight
        yield _decided(i, found, confidence=confidence, regions=regions, logits=logits)
    for _ in coming:  # what lies beyond is nobody's, but the windows are gone through
        pass


def _planes(band: Band) -> Iterator[NDArray[np.float32]]:
    """The logits (k, h, w) of each slice."""
    assert band.logits is not None
    return iter(band.logits.swapaxes(0, 1))


def _decided(i: int, found: NDArray[np.float32], *, confidence: bool, regions: bool, logits: bool) -> Band:
    """Slice i, whose logits are (k, h, w)."""
    k, codes = found.shape[0], None
    sure: NDArray[np.float32] | None = None
    if regions:
        dtype = code_type(k)
        codes = np.zeros(found.shape[1:], dtype)
        for region in range(k):
            codes |= (found[region] > 0).astype(dtype) << dtype.type(region)
        labels = highest(codes, k)
    elif k == 1:
        labels = (found[0] > 0).astype(np.uint8)
    else:
        labels = found.argmax(axis=0).astype(np.min_scalar_type(k - 1))
    if confidence:
        if regions or k == 1:
            sure = sigmoid(np.abs(found).min(axis=0))
        else:
            sure = 1 / np.exp(found - found.max(axis=0)).sum(axis=0)
    return Band(
        i, labels[None], None if sure is None else sure[None].astype(np.float32), None,
        None if codes is None else codes[None], found[:, None] if logits else None,
    )  # fmt: skip


def working_bytes(fit: Fitting, channels: int, outputs: int, tiling: Tiling) -> int:
    """About the memory that slabs of windows take, beside the volume, its label map and the network's own."""
    depth = tiling.grid(fit.shown).tile[0]
    plane = fit.shown[1] * fit.shown[2]
    slabs = plane * depth * 4 * (3 * channels + 2 * (outputs + 1) + (outputs if fit.resamples else 0))
    return slabs + (4 * 3 * outputs * fit.size[1] * fit.size[2] if fit.resamples else 0)

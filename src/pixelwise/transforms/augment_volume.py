"""AugmentVolume: a patch of a volume, turned, scaled, bent, mirrored and changed in its intensities, in one pass.

Turn, scale, bend and mirror are one map from the voxels of the patch to places in the volume, so the volume is
interpolated once, linearly, and only that part of it is read which the patch needs; a patch that is neither turned nor
scaled nor bent is cut out as it is. Beyond its ends a volume is continued by its mirror image, as in inference.

Letters: c channels, d h w voxels of the patch. Randomness comes from torch's global generator and nothing else.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from pixelwise.datasets.sample import Sample
from pixelwise.errors import InputError
from pixelwise.transforms.augment import cubic, draw, draw_below

Labels = Literal["linear", "nearest"]

CHANCES = (
    "foreground", "rotation", "scaling", "elastic", "noise", "brightness", "contrast", "low_resolution", "gamma",
    "gamma_inverted",
)  # fmt: skip
"""Fields that are chances, in [0, 1]."""


@dataclass(frozen=True)
class AugmentVolume:
    """Sample of a prepared volume -> {"image": float32 (c, d, h, w); "mask": int64 (d, h, w)}.

    patch: (d, h, w) of what comes out. foreground: chance that the patch lies about a voxel of a class: one of the
    classes of the volume but the background, evenly, then one of its voxels (`Sample.places`), in the middle as far as
    the volume reaches; the others lie anywhere. spacing: of the volumes, (slices, rows, columns), in which turning
    keeps angles. in_plane: slices are too thick to be mixed: it turns about their normal alone, by up to half a turn,
    and scales, bends and coarsens rows and columns only.

    The others are chances, each with how much: rotation about each axis by up to rotation_deg; scaling by a factor
    between the two of `scale` on all axes, above 1 what is seen is larger; elastic, shifts of a 3 x 3 x 3 grid of
    points of elastic_voxels deviation, bicubic in between; noise of a deviation up to noise_std; brightness, a factor a
    channel, and contrast about the mean within the old range, both from `factor`; low_resolution, by a share from
    `zoom` to 1 and back, half of the channels; gamma, from gamma_range, of the range brought to [0, 1], mean and
    deviation kept, and gamma_inverted, of the range turned over. mirror: axes along each of which half of the patches
    are mirrored. label_interpolation: "linear", of each class by itself, of which the largest wins, or "nearest".

    Source: nnU-Net (Isensee 2021), supplement 4, from which the order, the chances and the amounts are, but blur, which
    is left out, noise_std, which it calls a variance, and where a patch reaches beyond the volume.
    """

    patch: tuple[int, int, int]
    foreground: float = 0.33
    spacing: tuple[float, float, float] = (1.0, 1.0, 1.0)
    in_plane: bool = False
    rotation: float = 0.2
    rotation_deg: float = 30.0
    scaling: float = 0.2
    scale: tuple[float, float] = (0.7, 1.4)
    elastic: float = 0.0
    elastic_voxels: float = 2.0
    noise: float = 0.1
    noise_std: float = 0.1
    brightness: float = 0.15
    contrast: float = 0.15
    factor: tuple[float, float] = (0.75, 1.25)
    low_resolution: float = 0.25
    zoom: float = 0.5
    gamma: float = 0.3
    gamma_inverted: float = 0.1
    gamma_range: tuple[float, float] = (0.7, 1.5)
    mirror: tuple[int, ...] = (0, 1, 2)
    label_interpolation: Labels = "linear"

    def __post_init__(self) -> None:
        if len(self.patch) != 3 or min(self.patch) < 1:
            raise InputError(f"patch is (d, h, w) of at least 1 voxel each, got {self.patch}")
        for name in CHANCES:
            if not 0 <= getattr(self, name) <= 1:
                raise InputError(f"AugmentVolume {name} is a chance in [0, 1], got {getattr(self, name)}")
        for name in ("scale", "factor", "gamma_range"):
            low, high = getattr(self, name)
            if not 0 < low <= high:
                raise InputError(
                    f"AugmentVolume {name} is (low, high) with 0 < low <= high, got {(low, high)}"
                )
        if not 0 < self.zoom <= 1:
            raise InputError(f"AugmentVolume zoom lies above 0, up to 1, got {self.zoom}")
        for name in ("rotation_deg", "elastic_voxels", "noise_std"):
            if getattr(self, name) < 0:
                raise InputError(f"AugmentVolume {name} must not be negative, got {getattr(self, name)}")
        if len(self.spacing) != 3 or min(self.spacing) <= 0:
            raise InputError(f"spacing is three numbers of millimetres above 0, got {self.spacing}")
        if not set(self.mirror) <= {0, 1, 2}:
            raise InputError(f"mirror names axes 0 (slices), 1 (rows) and 2 (columns), got {self.mirror}")
        if self.label_interpolation not in get_args(Labels):
            raise InputError(
                f"label_interpolation is one of {', '.join(get_args(Labels))}, got {self.label_interpolation!r}"
            )

    def __call__(self, sample: Sample) -> dict[str, Tensor]:
        start = self.place(sample)
        matrix, bent = self._matrix(), self._bend()
        mirrored = [axis for axis in self.mirror if draw() < 0.5]
        if matrix is None and bent is None:
            image, mask = cut(sample.image, start, self.patch), cut(sample.mask, start, self.patch)
            pixels, ids = torch.from_numpy(image).float(), torch.from_numpy(mask.astype(np.int64))
        else:
            where = places(self.patch, start, torch.eye(3) if matrix is None else matrix, bent)
            pixels, ids = resample(sample.image, sample.mask, where, self.label_interpolation)
        if mirrored:
            pixels, ids = pixels.flip([1 + axis for axis in mirrored]), ids.flip(mirrored)
        return {"image": self.intensities(pixels), "mask": ids}

    def place(self, sample: Sample) -> tuple[int, int, int]:
        """The first voxel of the patch, in the volume; below 0 where the patch is larger than it."""
        about: tuple[int, ...] | None = None
        size = sample.mask.shape
        if draw() < self.foreground and sample.places:
            classes = sorted(sample.places)
            voxels = sample.places[classes[draw_below(len(classes))]]
            about = tuple(int(i) for i in np.unravel_index(int(voxels[draw_below(len(voxels))]), size))
        starts = []
        for axis, (side, wanted) in enumerate(zip(size, self.patch, strict=True)):
            least, most = min(0, side - wanted), max(0, side - wanted)
            if about is None:
                starts.append(least + draw_below(most - least + 1))
            else:
                starts.append(min(max(about[axis] - wanted // 2, least), most))
        return starts[0], starts[1], starts[2]

    def _matrix(self) -> Tensor | None:
        """From the patch, about its middle, to the volume; None where it is neither turned nor scaled."""
        turned, scaled = draw() < self.rotation, draw() < self.scaling
        if not turned and not scaled:
            return None
        matrix = torch.eye(3, dtype=torch.float64)
        if turned and self.in_plane:
            matrix = turn_about(0, math.pi * (2 * draw() - 1))
        elif turned:
            for axis in range(3):
                matrix = matrix @ turn_about(axis, math.radians(self.rotation_deg) * (2 * draw() - 1))
        if scaled:
            matrix = matrix @ self._shrunk()
        side = torch.tensor(self.spacing, dtype=torch.float64)
        return (matrix * side / side[:, None]).float()

    def _shrunk(self) -> Tensor:
        """What is seen as a larger thing lies closer together in the volume."""
        low, high = self.scale
        each = 1 / (low + (high - low) * draw())
        return torch.diag(torch.tensor([1.0 if self.in_plane else each, each, each], dtype=torch.float64))

    def _bend(self) -> Tensor | None:
        """Shifts (3, d, h, w) in voxels, or None."""
        if not self.elastic or draw() >= self.elastic:
            return None
        points = self.elastic_voxels * torch.randn(3, 3, 3, 3)
        if self.in_plane:
            points[0] = 0
        return torch.einsum("zi,yj,xk,aijk->azyx", *(cubic(side) for side in self.patch), points)

    def intensities(self, image: Tensor) -> Tensor:
        """Noise, brightness, contrast, low resolution and gamma, each by its chance: (c, d, h, w) -> the same."""
        if draw() < self.noise:
            image = image + self.noise_std * draw() * torch.randn(image.shape)
        if draw() < self.brightness:
            image = image * self._factors(image)
        if draw() < self.contrast:
            flat = image.flatten(1)
            mean = flat.mean(1)[:, None, None, None]
            low, high = (end[:, None, None, None] for end in (flat.amin(1), flat.amax(1)))
            image = ((image - mean) * self._factors(image) + mean).clamp(low, high)
        if draw() < self.low_resolution:
            image = torch.stack([self._coarse(channel) if draw() < 0.5 else channel for channel in image])
        if draw() < self.gamma_inverted:
            image = -gamma(-image, self._exponent())
        if draw() < self.gamma:
            image = gamma(image, self._exponent())
        return image.contiguous()

    def _factors(self, image: Tensor) -> Tensor:
        low, high = self.factor
        return (low + (high - low) * torch.rand(len(image)))[:, None, None, None]

    def _exponent(self) -> float:
        """Below 1 as often as above."""
        low, high = self.gamma_range
        if draw() < 0.5 and low < 1:
            return low + (min(1.0, high) - low) * draw()
        low = max(1.0, low) if high > 1 else low
        return low + (high - low) * draw()

    def _coarse(self, channel: Tensor) -> Tensor:
        """A channel (d, h, w) seen with fewer voxels."""
        share = self.zoom + (1 - self.zoom) * draw()
        size = [max(1, round(side * share)) for side in channel.shape]
        if self.in_plane:
            size[0] = channel.shape[0]
        small = F.interpolate(channel[None, None], size, mode="nearest-exact")
        return F.interpolate(small, channel.shape, mode="trilinear", align_corners=False)[0, 0]


def turn_about(axis: int, angle: float) -> Tensor:
    """The rotation (3, 3) about an axis of (d, h, w), in radians, float64."""
    first, second = [other for other in range(3) if other != axis]
    matrix = torch.eye(3, dtype=torch.float64)
    matrix[first, first] = matrix[second, second] = math.cos(angle)
    matrix[first, second], matrix[second, first] = -math.sin(angle), math.sin(angle)
    return matrix


def cut(values: NDArray[Any], start: Sequence[int], size: Sequence[int]) -> NDArray[Any]:
    """A part of the last three axes, continued by its mirror image beyond the ends; a copy."""
    inside = all(s >= 0 and s + n <= side for s, n, side in zip(start, size, values.shape[-3:], strict=True))
    if inside:
        index: tuple[Any, ...] = (..., *(slice(s, s + n) for s, n in zip(start, size, strict=True)))
        return np.array(values[index])
    for axis, (s, n) in enumerate(zip(start, size, strict=True), start=values.ndim - 3):
        last = values.shape[axis] - 1
        where = last - np.abs(np.arange(s, s + n) % max(2 * last, 1) - last)
        values = np.take(values, where, axis=axis)
    return values


def places(patch: Sequence[int], start: Sequence[int], matrix: Tensor, bent: Tensor | None = None) -> Tensor:
    """Where in the volume the voxels of a patch lie, (d, h, w, 3), in its voxels: matrix (3, 3) about the patch's
    middle, and then the shifts (3, d, h, w)."""
    middle = torch.tensor([(side - 1) / 2 for side in patch])
    lines = [
        torch.arange(side, dtype=torch.float32) - m for side, m in zip(patch, middle.tolist(), strict=True)
    ]
    grid = torch.stack(torch.meshgrid(*lines, indexing="ij"), dim=-1)  # (d, h, w, 3)
    where = grid @ matrix.T + middle + torch.tensor([float(s) for s in start])
    return where if bent is None else where + bent.movedim(0, -1)


def resample(
    image: NDArray[Any], mask: NDArray[Any], where: Tensor, labels: Labels = "linear"
) -> tuple[Tensor, Tensor]:
    """The values of a volume at places (d, h, w, 3), linearly, float32 (c, d, h, w), and its classes there, int64
    (d, h, w): of each class linearly, the largest winning (the lowest number of equal ones), or the nearest."""
    low = where.flatten(0, 2).amin(0).floor().int().tolist()
    high = where.flatten(0, 2).amax(0).ceil().int().tolist()
    size = [max(2, h - n + 1) for n, h in zip(low, high, strict=True)]
    scale = torch.tensor([2 / (side - 1) for side in size])
    grid = ((where - torch.tensor([float(n) for n in low])) * scale - 1).flip(-1)[None]  # x, y, z in [-1, 1]

    def at(values: Tensor, mode: str) -> Tensor:
        sampled: Tensor = F.grid_sample(
            values[None], grid, mode=mode, padding_mode="border", align_corners=True
        )
        return sampled[0]

    pixels = at(torch.from_numpy(cut(image, low, size)).float(), "bilinear")
    ids = torch.from_numpy(cut(mask, low, size).astype(np.int64))
    if labels == "nearest":
        return pixels, at(ids[None].double().float(), "nearest")[0].long()
    present = torch.unique(ids)
    shares = at((ids == present[:, None, None, None]).float(), "bilinear")  # (classes here, d, h, w)
    return pixels, present[shares.argmax(0)]


def gamma(image: Tensor, exponent: float) -> Tensor:
    """Each channel (c, d, h, w) brought to [0, 1], to that power and back, its mean and deviation kept."""
    flat = image.flatten(1)
    low, span = (
        flat.amin(1, keepdim=True),
        (flat.amax(1, keepdim=True) - flat.amin(1, keepdim=True)).clamp_min(1e-7),
    )
    bent = ((flat - low) / span).clamp_min(0).pow(exponent)
    mean, std = bent.mean(1, keepdim=True), bent.std(1, keepdim=True).clamp_min(1e-7)
    before = flat.std(1, keepdim=True)
    return ((bent - mean) / std * before + flat.mean(1, keepdim=True)).reshape(image.shape)

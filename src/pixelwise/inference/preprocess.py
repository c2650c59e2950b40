"""Preprocess: what a model wants done to a picture before it sees it. Part of every card.

Values: a picture is uint8 RGB (h, w, 3); a network's input is float32 (n, 3, h, w), (picture/255 - mean)/std. Rasters
may have other numbers of channels, and float32 in [0, 1].
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pixelwise.errors import ImageError, InputError
from pixelwise.images import check_range
from pixelwise.untrusted import Between, fit

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

LONGEST_SIDE = 2**20
"""In pixels, of the sizes that a model may ask for."""

Side = Annotated[int, Between(1, LONGEST_SIDE)]

MAX_ENLARGED = 40_000_000
"""Pixels to which a picture may be enlarged: a line of 1 x 50000 scaled by its shorter side would fill any memory."""


@dataclass(frozen=True)
class Preprocess:
    """Resize rule and normalisation.

    size, side: scale the picture, aspect kept, so that its "shorter" or "longer" side is `size` pixels; None
    leaves it as it is; a pair (height, width) makes every picture that size, whatever its aspect. multiple,
    offset: then make each side the nearest multiple of `multiple` plus `offset` (16 and 1 for a stride-16 network
    with aligned corners: 513, 385, ...). mean, std: one a channel, R G B for photos, of values in [0, 1]. Resizing
    is Pillow's antialiased bilinear, as in torchvision's PIL path. value_range: (low, high), of pictures with more than
    8 bits a channel the values that are shown as 0 and 255 (`images.read`); None: each picture's own.
    """

    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD
    size: Side | tuple[Side, Side] | None = None
    side: Literal["shorter", "longer"] = "shorter"
    multiple: Side = 1
    offset: int = 0
    value_range: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        sides = self.size if isinstance(self.size, tuple) else (self.size or 1,)
        for what, value in (
            *(("size", side) for side in sides),
            ("multiple", self.multiple),
            ("offset", self.offset),
        ):
            if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value > LONGEST_SIDE:
                raise InputError(
                    f"Preprocess {what} is whole pixels, at most {LONGEST_SIDE}, got {value!r:.60}"
                )
        given = self.size if isinstance(self.size, tuple) else (self.size or 0,) * 2
        if self.size is not None and (len(given) != 2 or min(given) < 1):
            raise InputError(
                f"Preprocess size must be at least 1 pixel, (height, width) or None, got {self.size}"
            )
        if self.side not in ("shorter", "longer"):
            raise InputError(f"Preprocess side must be 'shorter' or 'longer', got {self.side!r}")
        if self.multiple < 1 or not 0 <= self.offset < max(self.multiple, 2):
            raise InputError(
                f"Preprocess needs multiple >= 1 and 0 <= offset < multiple, got {self.multiple} and {self.offset}"
            )
        if len(self.mean) != len(self.std) or not self.mean:
            raise InputError(
                f"Preprocess needs a mean and a std for each channel, got {len(self.mean)} and {len(self.std)} numbers"
            )
        if self.value_range is not None:
            check_range(self.value_range)
        if not all(isinstance(number, (int, float)) for number in (*self.mean, *self.std)):
            raise InputError(f"Preprocess needs numbers, got mean {self.mean} and std {self.std}")
        if not all(abs(number) <= 10 for number in self.mean):
            raise InputError(
                f"Preprocess mean is of values in [0, 1], got {self.mean}; divide numbers for 0 to 255 by 255, std too"
            )
        if not all(1e-6 <= number <= 1e6 for number in self.std):
            raise InputError(f"Preprocess std must be positive, of values in [0, 1], got {self.std}")

    def with_channels(self, channels: int) -> Preprocess:
        """The same for another number of channels: mean and std of the first ones, again from the start where there are
        more."""
        known = len(self.mean)
        mean, std = (tuple(v[i % known] for i in range(channels)) for v in (self.mean, self.std))
        return replace(self, mean=mean, std=std)

    def size_hw(self, height: int, width: int) -> tuple[int, int]:
        """The size (h, w) that the network sees for a picture of height x width."""
        sides = [height, width]
        if isinstance(self.size, tuple):
            sides = list(self.size)
        elif self.size is not None:
            by_shorter = self.side == "shorter"
            fixed = (height <= width) != (not by_shorter)  # True when the height is the side that is given
            given = height if fixed else width
            other = width if fixed else height
            scaled = max(1, int(self.size * other / given))
            sides = [self.size, scaled] if fixed else [scaled, self.size]
        if self.multiple > 1:
            sides = [
                max(1 - min(self.offset, 1), round((s - self.offset) / self.multiple)) * self.multiple
                + self.offset
                for s in sides
            ]
        return sides[0], sides[1]

    def __call__(self, image: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Picture (h, w, c), uint8 or float32 in [0, 1], to network input float32 (1, c, h', w'), contiguous."""
        height, width = self.size_hw(*image.shape[:2])
        if height * width > max(MAX_ENLARGED, image.shape[0] * image.shape[1]):
            raise ImageError(
                f"this model's resize rule would make {height} x {width} pixels of a picture of {image.shape[0]} x "
                f"{image.shape[1]}; crop it, or cut it into tiles, which keep its scale (tile=512, --tile 512)"
            )
        if (height, width) != image.shape[:2]:
            image = _resized(image, (width, height))
        return normalize(image, self.mean, self.std)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON; without a range where there is none, as in files written before there were any."""
        values = {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(self).items()}
        if self.value_range is None:
            del values["value_range"]
        return values

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Preprocess:
        """What `to_dict` gave, read back; InputError for anything else."""
        return fit(values, cls, "this preprocessing")


def _resized(image: NDArray[Any], size_wh: tuple[int, int]) -> NDArray[Any]:
    """In Pillow's order of width and height; channels that are not RGB are resized one by one, so that a fourth one is
    not taken for transparency."""
    if image.shape[2] == 3 and image.dtype == np.uint8:
        return np.asarray(Image.fromarray(image).resize(size_wh, Image.Resampling.BILINEAR))
    planes = (np.ascontiguousarray(image[..., channel]) for channel in range(image.shape[2]))
    return np.stack(
        [np.asarray(Image.fromarray(plane).resize(size_wh, Image.Resampling.BILINEAR)) for plane in planes],
        axis=-1,
    )


def normalize(image: NDArray[Any], mean: Sequence[float], std: Sequence[float]) -> NDArray[np.float32]:
    """A picture (h, w, c), uint8 or float32 in [0, 1], to float32 (1, c, h, w): (values - mean)/std, where uint8 is
    divided by 255 first. mean, std: one a channel.

    uint8 has only 256 possible values a channel, so each is computed once, in float32 and in torchvision's
    order of operations (same bits), and looked up: by a compiled loop where numba is there already, else by NumPy.
    """
    out = np.empty((1, len(mean), *image.shape[:2]), np.float32)
    if image.dtype == np.uint8 and len(mean) == 3 and "numba" in sys.modules:
        from pixelwise import kernels

        shades = np.arange(256, dtype=np.float32)[:, None] / np.float32(255)
        table = (shades - np.asarray(mean, np.float32)) / np.asarray(std, np.float32)  # (256, 3)
        kernels.in_bands(kernels.look_up, image.shape[0], table, image, out[0])
        return out
    values = np.arange(256, dtype=np.float32) / np.float32(255)
    for channel in range(len(mean)):
        shift, scale = np.float32(mean[channel]), np.float32(std[channel])
        if image.dtype == np.uint8:
            np.take((values - shift) / scale, image[..., channel], out=out[0, channel], mode="clip")
        else:
            np.divide(image[..., channel] - shift, scale, out=out[0, channel])
    return out

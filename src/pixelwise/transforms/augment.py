"""Augment: random size, crop, flip, colours, turning, bending and copy-paste of one sample, in one pass.

What makes it fast: the crop's window is cut from the picture first, and only that is resized; the flip happens in
the copy that this needs anyway; all colour changes and the normalisation are one 3x4 matrix. Interpolation is
torch's antialiased bilinear on uint8, the one of torchvision's tensor path. It equals resizing all and then
cropping but for the window's border, where the pixels just outside no longer take part.

Letters: h w pixels of the crop. Randomness comes from torch's global generator and nothing else.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from pixelwise.datasets.sample import Sample, Samples
from pixelwise.errors import InputError
from pixelwise.inference.preprocess import IMAGENET_MEAN, IMAGENET_STD

TRIES = 10
"""Crops that are drawn at most, until one has no class above `largest_share`."""

CHUNK = 1 << 15
"""Pixels whose colours are changed at a time: what lies between stays in the cache."""

LUMA = torch.tensor([0.299, 0.587, 0.114])
"""Weights of R, G, B in brightness (Rec. 601)."""


@dataclass(frozen=True)
class Augment:
    """Sample -> {"image": float32 (3, h, w), (value/255 - mean)/std; "mask": int64 (h, w)}.

    crop_hw: size of what comes out. scale: the picture is shown this many times as large, drawn evenly from the
    range; with shorter_side the range is relative to a shorter side of that many pixels. Where the picture is
    smaller than the crop it lies anywhere in it, and the rest is the mean colour and ignore_index. flip: chance to
    mirror left and right.

    on_object: chance that a crop is laid about a pixel of one class, drawn evenly from those that the picture shows
    but for its most frequent one; the pixel lies in the middle half of the crop, as far as the picture reaches.

    largest_share: crops in which one class has this share of the labelled pixels or more are drawn again, up to ten
    times; 1 takes the first. colour: the chance of each of brightness (up to 32 of 255 added), contrast and
    saturation (times 0.5 to 1.5) and hue (up to 18 degrees). colour_amount: how much of these at most, in [0, 1].

    elastic_px: standard deviation, in pixels of the crop, of the random shifts of a 3x3 grid of points, between
    which the shift is bicubic; 10 is U-Net's, 0 leaves it out. turn: the crop is turned about its centre by up to so
    many degrees either way. In both cases it is continued by its mirror image.

    paste_from: samples of which one, cut in the same way, gives all pixels of one of its classes (not of the most
    frequent one), with the chance paste.

    Sources: crops about an object: nnU-Net (Isensee 2021), but for where in the crop it lies; scale, crop and flip:
    torchvision's reference and mmsegmentation (whose cat_max_ratio is largest_share); colour: SSD (Liu 2016), but
    saturation and hue are linear, about the grey axis, not in HSV; elastic: U-Net (Ronneberger 2015), section 3.1;
    copy-paste: Ghiasi 2021.
    """

    crop_hw: tuple[int, int]
    scale: tuple[float, float] = (0.5, 2.0)
    shorter_side: int | None = None
    flip: float = 0.5
    largest_share: float = 0.75
    on_object: float = 0.0
    colour: float = 0.5
    colour_amount: float = 1.0
    elastic_px: float = 0.0
    turn: float = 0.0
    paste_from: Samples | None = None
    paste: float = 0.5
    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD
    ignore_index: int = 255

    def __post_init__(self) -> None:
        if min(self.crop_hw) < 1 or not 0 < self.scale[0] <= self.scale[1]:
            raise InputError(
                "Augment needs crop_hw of at least 1 pixel and 0 < smallest <= largest scale, got "
                f"{self.crop_hw} and {self.scale}"
            )
        if self.elastic_px < 0 or self.turn < 0:
            raise InputError(
                f"Augment elastic_px and turn must not be negative, got {self.elastic_px} and {self.turn}"
            )
        chances = {
            name: getattr(self, name)
            for name in ("flip", "largest_share", "on_object", "colour", "colour_amount", "paste")
        }
        for name, value in chances.items():
            if not 0 <= value <= 1:
                raise InputError(f"Augment {name} must lie in [0, 1], got {value}")

    def __call__(self, sample: Sample) -> dict[str, Tensor]:
        image, mask = self.cut(sample)  # (3, h, w) uint8, (h, w)
        if self.paste_from is not None and draw() < self.paste:
            other = self.paste_from[draw_below(len(self.paste_from))]
            paste_class(image, mask, *self.cut(other), self.ignore_index)
        pixels = self.finish(image)  # (3, h, w)
        if self.elastic_px > 0 or self.turn > 0:
            angle = math.radians(self.turn) * (2 * draw() - 1) if self.turn > 0 else 0.0
            pixels, mask = bend(pixels, mask, self.elastic_px, angle)
        return {"image": pixels, "mask": mask.long()}

    def cut(self, sample: Sample) -> tuple[Tensor, Tensor]:
        """A random crop, resized and perhaps mirrored: image (3, h, w) uint8, mask (h, w) uint8 or int64."""
        low, high = self.scale
        zoom = low + (high - low) * draw()
        if self.shorter_side is not None:
            zoom *= self.shorter_side / min(sample.mask.shape)
        mirrored = draw() < self.flip
        for _ in range(TRIES):
            about = (
                self.place(sample.mask) if self.on_object > 0 and draw() < self.on_object else (None, None)
            )
            rows, columns = (
                Span.draw(size, crop, zoom, at)
                for size, crop, at in zip(sample.mask.shape, self.crop_hw, about, strict=True)
            )
            mask = self._mask(sample.mask, rows, columns)
            if self.largest_share == 1 or self.is_varied(mask):
                break
        image = self._image(sample.image, rows, columns)
        return (image.flip(2), mask.flip(1)) if mirrored else (image, mask)

    def place(self, mask: NDArray[Any]) -> tuple[int, int] | tuple[None, None]:
        """(row, column) of a random pixel of a random class of a mask (h, w), but for the most frequent; (None, None)
        where it has no other."""
        counts = np.bincount(mask.reshape(-1), minlength=self.ignore_index + 1)
        counts[self.ignore_index] = 0
        counts[counts.argmax()] = 0
        present = counts.nonzero()[0]
        if not len(present):
            return None, None
        one = present[draw_below(len(present))]
        row, column = divmod(
            int(np.flatnonzero(mask.reshape(-1) == one)[draw_below(int(counts[one]))]), mask.shape[1]
        )
        return row, column

    def is_varied(self, mask: Tensor) -> bool:
        """Whether every class of a mask (h, w) stays below `largest_share` of its labelled pixels."""
        counts = torch.bincount(mask.view(-1), minlength=self.ignore_index + 1)
        counts[self.ignore_index] = 0
        return bool(counts.max() < self.largest_share * counts.sum())

    def _mask(self, mask: NDArray[Any], rows: Span, columns: Span) -> Tensor:
        """Nearest neighbour: each pixel takes the one its centre falls into."""
        crop = np.full(self.crop_hw, self.ignore_index, np.uint8 if mask.dtype == np.uint8 else np.int64)
        crop[rows.target, columns.target] = mask[rows.nearest()][:, columns.nearest()]
        return torch.from_numpy(crop)

    def _image(self, image: NDArray[np.uint8], rows: Span, columns: Span) -> Tensor:
        window = torch.from_numpy(np.array(image[rows.source, columns.source]))
        resized: Tensor = F.interpolate(
            window.permute(2, 0, 1)[None],
            (rows.out, columns.out),
            mode="bilinear",
            align_corners=False,
            antialias=True,
        )[0]
        if (rows.out, columns.out) == self.crop_hw:
            return resized
        mean = (255 * torch.tensor(self.mean)).round().to(torch.uint8)
        crop = mean[:, None, None].repeat(1, *self.crop_hw)
        crop[:, rows.target, columns.target] = resized
        return crop

    def finish(self, image: Tensor) -> Tensor:
        """Colours changed and normalised: uint8 (3, h, w) -> float32 (3, h, w)."""
        change, shift = self._colours()
        std = torch.tensor(self.std)[:, None]  # (3, 1)
        low = -torch.tensor(self.mean)[:, None] / std  # what 0 becomes
        matrix, offset = change / (255 * std), low + shift / (255 * std)
        flat, pixels = image.reshape(3, -1), torch.empty(image.shape)  # (3, h w), (3, h, w)
        parts = (torch.split(whole, CHUNK, dim=1) for whole in (flat, pixels.view(3, -1)))
        for part, out in zip(*parts, strict=True):
            torch.addmm(offset, matrix, part.float(), out=out)
            if self.colour > 0:
                for channel, least, most in zip(out, low.tolist(), (low + 1 / std).tolist(), strict=True):
                    channel.clamp_(least[0], most[0])
        return pixels

    def _colours(self) -> tuple[Tensor, float]:
        """A random change of colours in 0..255: (matrix (3, 3), what is added)."""
        chance, amount = torch.rand(2, 4).tolist()
        brightness, contrast, saturation, hue = (
            self.colour_amount * (2 * a - 1) if c < self.colour else 0.0
            for c, a in zip(chance, amount, strict=True)
        )  # each in [-1, 1]
        factor, colourful, angle = 1 + 0.5 * contrast, 1 + 0.5 * saturation, math.radians(18) * hue
        grey = LUMA.repeat(3, 1)  # makes R, G and B the luma
        cosine, sine = colourful * math.cos(angle), colourful * math.sin(angle)
        chroma = torch.eye(3) - grey
        matrix: Tensor = factor * (grey + cosine * chroma + sine * QUARTER_TURN)
        return matrix, 32 * brightness


def _quarter_turn() -> Tensor:
    """The matrix (3, 3) that turns colours by 90 degrees about the grey axis of YIQ, and takes grey to 0."""
    yiq = torch.tensor([[0.299, 0.587, 0.114], [0.5959, -0.2746, -0.3213], [0.2115, -0.5227, 0.3112]])
    turn = torch.tensor([[0.0, 0.0, 0.0], [0.0, 0.0, -1.0], [0.0, 1.0, 0.0]])
    matrix: Tensor = torch.linalg.solve(yiq, turn @ yiq)
    return matrix


QUARTER_TURN = _quarter_turn()


class Span(NamedTuple):
    """One axis of a crop: `length` source pixels from `start` become `out` pixels at `place` in the crop."""

    start: int
    length: int
    out: int
    place: int

    @classmethod
    def draw(cls, size: int, crop: int, zoom: float, about: int | None = None) -> Span:
        """about: a source pixel that shall lie in the middle half of what is cut."""
        length = max(1, round(crop / zoom))
        if length <= size and about is not None:
            start = about - length // 4 - draw_below(max(1, length // 2))
            return cls(max(0, min(start, size - length)), length, crop, 0)
        if length <= size:
            return cls(draw_below(size - length + 1), length, crop, 0)
        out = min(crop, max(1, round(size * zoom)))
        return cls(0, size, out, draw_below(crop - out + 1))

    @property
    def source(self) -> slice:
        return slice(self.start, self.start + self.length)

    @property
    def target(self) -> slice:
        return slice(self.place, self.place + self.out)

    def nearest(self) -> NDArray[np.int64]:
        """The source pixel of each of the `out` pixels."""
        return self.start + (2 * np.arange(self.out) + 1) * self.length // (2 * self.out)


def paste_class(
    image: Tensor, mask: Tensor, other_image: Tensor, other_mask: Tensor, ignore_index: int
) -> None:
    """Lay one class of another crop over this one, in place: images (3, h, w) uint8, masks (h, w).

    Any of its classes but the most frequent one; nothing happens where it has no second class.
    """
    counts = torch.bincount(other_mask.view(-1), minlength=ignore_index + 1)
    counts[[ignore_index, int(counts.argmax())]] = 0
    present = counts.nonzero()[:, 0]
    if len(present):
        where = other_mask == present[draw_below(len(present))]
        torch.where(where, other_image, image, out=image)
        torch.where(where, other_mask, mask, out=mask)


def bend(image: Tensor, mask: Tensor, deviation_px: float, angle: float = 0.0) -> tuple[Tensor, Tensor]:
    """Elastic deformation by the normal shifts of a 3x3 grid, then a turn about the centre, counterclockwise, in
    radians: image (3, h, w) bilinear, mask (h, w) nearest."""
    height, width = mask.shape
    shift = cubic(height) @ (deviation_px * torch.randn(2, 3, 3)) @ cubic(width).T  # (2, h, w): y, x
    middle_y, middle_x = (height - 1) / 2, (width - 1) / 2
    y, x = torch.arange(height)[:, None] - middle_y, torch.arange(width) - middle_x
    cosine, sine = math.cos(angle), math.sin(angle)
    rows = middle_y + cosine * y + sine * x + shift[0]
    columns = middle_x + cosine * x - sine * y + shift[1]
    # grid_sample without aligned corners: -1 is the left edge of the first pixel, 1 the right edge of the last.
    grid = torch.stack([(2 * columns + 1) / width - 1, (2 * rows + 1) / height - 1], dim=-1)[None]
    bent = F.grid_sample(image[None], grid, padding_mode="reflection", align_corners=False)[0]
    ids = F.grid_sample(
        mask[None, None].float(), grid, mode="nearest", padding_mode="reflection", align_corners=False
    )
    return bent, ids[0, 0].to(mask.dtype)


def cubic(size: int) -> Tensor:
    """Weights (size, 3) of bicubic interpolation from three values, the first and last at the ends."""
    weights: Tensor = F.interpolate(torch.eye(3)[None, None], (size, 3), mode="bicubic", align_corners=True)
    return weights[0, 0]


def draw() -> float:
    return float(torch.rand(()))


def draw_below(count: int) -> int:
    return int(torch.randint(count, ()))

"""Corruptions: what cameras, weather and compression do to pictures, in five strengths, for `evaluate(corrupt=...)`.

Letters: h w pixels.

The corruptions and their strengths are those of ImageNet-C (Hendrycks, Dietterich, Benchmarking neural network
robustness to common corruptions and perturbations, 2019), in the form that takes pictures of any size (Michaelis et
al., Benchmarking robustness in object detection, 2019; their package imagecorruptions is the source of what the papers
leave open). As there, parameters are in pixels of the picture at its own size, whatever that is; thumbnails, for which
CIFAR-10-C has a table of its own, are not what they are made for. Elastic transform, the one that moves things, is left
out, as label maps do not move. Cityscapes-C leaves it out too (Kamann, Rother, Benchmarking the robustness of semantic
segmentation models, 2020, as SegFormer, 2021, reports it): its sixteen are the set "cityscapes-c".

Ours differ: results are rounded, not cut; kernels sum to one at every size of picture; the ice of frost and the
outlines of drops of spatter are drawn by code (see `_ice`, `_water`). Nothing here imports torch, OpenCV or SciPy.
"""

from __future__ import annotations

import hashlib
import io
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pixelwise.errors import InputError, UnknownNameError

Picture = NDArray[np.uint8]
Values = NDArray[np.float32]
"""(h, w, 3) or (h, w), 0 black to 1 white."""

STRENGTHS = (1, 2, 3, 4, 5)


@dataclass(frozen=True)
class Corruption:
    """One way to spoil a picture. make: (picture uint8 (h, w, 3), the parameters of a strength, random numbers) to the
    spoiled one, uint8, or float in [0, 1] and beyond. strengths: the parameters of each of the five."""

    name: str
    family: str
    make: Callable[[Picture, Sequence[float], np.random.Generator], Picture | Values]
    strengths: tuple[tuple[float, ...], ...]


def corrupt(image: Picture, corruption: str, strength: int, *, picture: str = "", seed: int = 0) -> Picture:
    """The picture, spoiled: uint8 RGB (h, w, 3), a new array.

    image: uint8 RGB (h, w, 3) of any size from 1 x 1. corruption: a key of CORRUPTIONS. strength: 1 to 5. picture: its
    name. The result is a function of these and the seed alone, not of the order or process in which pictures come.

    Raises UnknownNameError for another corruption, InputError for another strength, for what is no such picture.
    """
    if corruption not in CORRUPTIONS:
        raise UnknownNameError("corruption", corruption, CORRUPTIONS)
    _check_strength(corruption, strength)
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or image.size == 0:
        raise InputError(
            f"corruptions are made of uint8 RGB pictures (h, w, 3), got {image.dtype} {image.shape}; leave out corrupt "
            "for a model of other pictures"
        )
    key = hashlib.sha256(f"{seed}\n{corruption}\n{strength}\n{picture}".encode()).digest()
    draw = np.random.Generator(np.random.PCG64(int.from_bytes(key[:16], "big")))
    chosen = CORRUPTIONS[corruption]
    made = chosen.make(image, chosen.strengths[strength - 1], draw)
    return (made if made.dtype == np.uint8 else np.rint(np.clip(made, 0, 1) * 255)).astype(np.uint8)


def parse(wanted: str | Iterable[str]) -> tuple[tuple[str, int], ...]:
    """The (corruption, strength) that are named, in the order of CORRUPTIONS, each once.

    wanted: names with commas between, or a list of them. A name is a corruption's, a family's or a set's (SETS), and
    stands for all strengths, or for one after a colon: "fog", "noise:2", "jpeg:1,jpeg:3", "all".

    Raises UnknownNameError for another name, InputError for another strength, and where nothing is named.
    """
    texts = wanted.split(",") if isinstance(wanted, str) else list(wanted)
    chosen: set[tuple[str, int]] = set()
    for text in (text.strip() for text in texts if text.strip()):
        name, colon, number = (part.strip() for part in text.partition(":"))
        if name not in SETS and name not in CORRUPTIONS:
            raise UnknownNameError("corruption", name, [*SETS, *CORRUPTIONS])
        if colon:
            _check_strength(name, int(number) if number.isdecimal() and number.isascii() else number)
        strengths = (int(number),) if colon else STRENGTHS
        chosen |= {(one, strength) for one in SETS.get(name, (name,)) for strength in strengths}
    if not chosen:
        raise InputError(f"corrupt takes names such as fog or jpeg:3, or all, got {wanted!r}")
    return tuple(
        (name, strength) for name in CORRUPTIONS for strength in STRENGTHS if (name, strength) in chosen
    )


def _check_strength(name: str, strength: object) -> None:
    if isinstance(strength, bool) or strength not in STRENGTHS:
        raise InputError(f"the strength of {name} is a whole number from 1 to 5, got {strength!r}")


# Noise


def _gaussian_noise(image: Picture, of: Sequence[float], draw: np.random.Generator) -> Values:
    (deviation,) = of
    made: Values = _values(image) + np.float32(deviation) * draw.standard_normal(image.shape, np.float32)
    return made


def _shot_noise(image: Picture, of: Sequence[float], draw: np.random.Generator) -> Values:
    """Photons are counted, `of` of them where it is white."""
    (photons,) = of
    counts = draw.poisson(image * (photons / 255))
    made: Values = counts.astype(np.float32) / np.float32(photons)
    return made


def _impulse_noise(image: Picture, of: Sequence[float], draw: np.random.Generator) -> Picture:
    """A share of the values is black or white, as likely."""
    (share,) = of
    chance = draw.random(image.shape, np.float32)
    out: Picture = image.copy()
    out[chance < share] = 255
    out[chance < share / 2] = 0
    return out


def _speckle_noise(image: Picture, of: Sequence[float], draw: np.random.Generator) -> Values:
    (deviation,) = of
    made: Values = _values(image) * (
        1 + np.float32(deviation) * draw.standard_normal(image.shape, np.float32)
    )
    return made


# Blur


def _gaussian_blur(image: Picture, of: Sequence[float], draw: np.random.Generator) -> Values:
    (sigma,) = of
    return _gaussian(_values(image), sigma)


def _glass_blur(image: Picture, of: Sequence[float], draw: np.random.Generator) -> Values:
    """Each pixel takes the value of another one nearby, between two Gaussian blurs.

    The paper says that pixels are exchanged. In the code that made its pictures the second half of an exchange finds
    the value that the first has just written, so that nothing but copies is made; so it is here.
    """
    from pixelwise import kernels

    sigma, reach, turns = of[0], int(of[1]), int(of[2])
    rough = np.minimum(_gaussian(_values(image), sigma) * 255, 255).astype(np.uint8)
    offsets = draw.integers(-reach, reach, (turns, *image.shape[:2], 2), dtype=np.int8)
    kernels.take_neighbours(rough, offsets, reach)
    return _gaussian(_values(rough), sigma)


def _defocus_blur(image: Picture, of: Sequence[float], draw: np.random.Generator) -> Values:
    kernel = disk(int(of[0]), of[1])
    reach = len(kernel) // 2
    rows, columns = np.nonzero(kernel)
    return _shifted(_values(image), rows - reach, columns - reach, kernel[rows, columns], "reflect")


def disk(radius: int, softness: float) -> NDArray[np.float64]:
    """The kernel of defocus blur, odd x odd, which sums to one: a disk, softened by a Gaussian of deviation `softness`
    over 3 x 3 pixels, from a radius of 9 over 5 x 5."""
    soft = 1 if radius <= 8 else 2
    side = np.arange(-radius - soft, radius + soft + 1)
    sharp = (side[:, None] ** 2 + side[None] ** 2 <= radius**2).astype(np.float64)
    weights = np.exp(-(np.arange(-soft, soft + 1) ** 2) / (2 * softness**2))
    smooth = [np.convolve(line, weights, "same") for line in sharp]
    kernel = np.stack([np.convolve(line, weights, "same") for line in np.transpose(smooth)], axis=1)
    kernel[kernel < 1e-12 * kernel.max()] = 0
    made: NDArray[np.float64] = kernel / kernel.sum()
    return made


def _motion_blur(image: Picture, of: Sequence[float], draw: np.random.Generator) -> Values:
    return _moved(_values(image), int(of[0]), of[1], draw.uniform(-45, 45))


def _zoom_blur(image: Picture, of: Sequence[float], draw: np.random.Generator) -> Values:
    """The mean of the picture and of enlargements of its middle up to a factor."""
    step, end = of
    factors = np.arange(1, end, step)
    values = _values(image)
    out = values.copy()
    for factor in factors:
        _add_enlarged(values, float(factor), out)
    made: Values = out / np.float32(len(factors) + 1)
    return made


# Weather


def _snow(image: Picture, of: Sequence[float], draw: np.random.Generator) -> Values:
    """Flakes, enlarged noise above a threshold, fall in two directions before a picture that turns whiter."""
    mean, deviation, zoom, threshold, radius, sigma, remains = of
    noise = np.float32(mean) + np.float32(deviation) * draw.standard_normal((*image.shape[:2], 1), np.float32)
    flakes = np.zeros_like(noise)
    _add_enlarged(noise, zoom, flakes)
    flakes = np.where(flakes < threshold, np.float32(0), np.minimum(flakes, 1))
    flakes = _moved(flakes, int(radius), sigma, draw.uniform(-135, -45))
    values = _values(image)
    grey = values @ np.array([[0.299], [0.587], [0.114]], np.float32)
    white = np.maximum(values, grey * np.float32(1.5) + np.float32(0.5))
    made: Values = (
        values * np.float32(remains) + np.float32(1 - remains) * white + flakes + flakes[::-1, ::-1]
    )
    return made


def _frost(image: Picture, of: Sequence[float], draw: np.random.Generator) -> Values:
    remains, added = of
    made: Values = _values(image) * np.float32(remains) + np.float32(added) * _ice(image.shape[:2], draw)
    return made


ICE = (
    ((78, 149, 166), 20), ((201, 205, 214), 22), ((201, 205, 214), 22), ((138, 153, 165), 28), ((112, 123, 135), 43)
)  # fmt: skip
"""Mean colour and standard deviation of the five photographs of ice that the published frost draws from."""


def _ice(size_hw: tuple[int, int], draw: np.random.Generator) -> Values:
    """Frost on a window (h, w, 3): needles over clouds, with the mean and deviation of one of the published
    photographs. Those are others' and not shipped, so that scores under frost are not comparable with published ones.
    """
    from PIL import ImageDraw

    height, width = size_hw
    colour, deviation = ICE[draw.integers(len(ICE))]
    needles = Image.new("L", (width, height), 0)
    pen = ImageDraw.Draw(needles)
    count = max(1, height * width // 150)
    places = draw.uniform(0, 1, (count, 2)) * (width, height)
    along = draw.uniform(0, math.pi, count)
    length = draw.uniform(6, 40, count)
    shades = draw.integers(40, 256, count)
    tips = places + length[:, None] * np.stack([np.cos(along), np.sin(along)], axis=1)
    for (x, y), (to_x, to_y), shade in zip(places.tolist(), tips.tolist(), shades.tolist(), strict=True):
        pen.line((x, y, to_x, to_y), fill=shade)
    texture = _gaussian(_values(np.asarray(needles)[..., None]), 0.8) + _clouds(size_hw, 2, draw)[..., None]
    texture = (texture - texture.mean()) / max(float(texture.std()), 1e-6)
    ice = np.array(colour, np.float32) / 255 + texture * np.float32(deviation / 255)
    made: Values = np.clip(ice, 0, 1, dtype=np.float32)
    return made


def _fog(image: Picture, of: Sequence[float], draw: np.random.Generator) -> Values:
    thickness, decay = of
    values = _values(image)
    lightest = values.max()
    foggy = values + np.float32(thickness) * _clouds(image.shape[:2], decay, draw)[..., None]
    made: Values = foggy * np.float32(lightest / (lightest + thickness))
    return made


def _clouds(size_hw: tuple[int, int], decay: float, draw: np.random.Generator) -> Values:
    """(h, w) in [0, 1]: the upper left of a square of diamond-square fractal, a power of two wide, that repeats itself.

    Each new point is the mean of four around it plus noise, whose range falls by `decay` from one scale to the next.
    """
    side = 2 ** max(2, (max(size_hw) - 1).bit_length())
    clouds = np.zeros((side, side), np.float32)
    step, wobble = side, 100.0
    while step >= 2:
        half = step // 2

        def middle(four: Values, spread: float = wobble * wobble) -> Values:
            noisy: Values = four / np.float32(4) + draw.uniform(-spread, spread, four.shape).astype(
                np.float32
            )
            return noisy

        corners = clouds[::step, ::step]
        across = corners + np.roll(corners, -1, 0)
        clouds[half::step, half::step] = middle(across + np.roll(across, -1, 1))
        centres = clouds[half::step, half::step]
        on_rows = centres + np.roll(centres, 1, 0) + corners + np.roll(corners, -1, 1)
        clouds[::step, half::step] = middle(on_rows)
        on_columns = centres + np.roll(centres, 1, 1) + corners + np.roll(corners, -1, 0)
        clouds[half::step, ::step] = middle(on_columns)
        step, wobble = half, wobble / decay
    clouds -= clouds.min()
    made: Values = clouds[: size_hw[0], : size_hw[1]] / clouds.max()
    return made


def _spatter(image: Picture, of: Sequence[float], draw: np.random.Generator) -> Values:
    """Water (strengths 1 to 3) or mud on the lens, where blurred noise is above a threshold."""
    mean, deviation, sigma, threshold, amount, mud = of
    noise = np.float32(mean) + np.float32(deviation) * draw.standard_normal((*image.shape[:2], 1), np.float32)
    liquid = _gaussian(noise, sigma)
    values = _values(image)
    if mud:
        covered = _gaussian((liquid > threshold).astype(np.float32), amount)
        covered[covered < 0.8] = 0
        muddy: Values = values * (1 - covered) + covered * _values(np.array([63, 42, 20], np.uint8))
        return muddy
    drops = np.where(liquid[..., 0] < threshold, 0, np.clip(liquid[..., 0] * 255, 0, 255)).astype(np.uint8)
    light = np.float32(amount) * _water(drops)
    made: Values = values + light[..., None] * _values(np.array([175, 238, 238], np.uint8))
    return made


def _water(drops: NDArray[np.uint8]) -> Values:
    """How much light the drops add, (h, w) in [0, 1]: their heights, embossed by the distance from their outlines.

    drops: heights, 0 where there is none. The published code finds the outlines by Canny's edges; these are the pixels
    of a drop with a neighbour above, below, left or right that is none.
    """
    there = np.pad(drops > 0, 1, mode="edge")
    inside = there[1:-1, 1:-1]
    outline = inside & ~(there[:-2, 1:-1] & there[2:, 1:-1] & there[1:-1, :-2] & there[1:-1, 2:])
    depth = _box(np.minimum(_distance(outline, 20), 20)).astype(np.uint8)
    counts = np.bincount(depth.ravel(), minlength=256)
    lowest = int(counts[depth.min()])
    share = (np.cumsum(counts) - lowest) / max(depth.size - lowest, 1)
    even = np.rint(255 * np.maximum(share, 0)).astype(np.float32)[depth]
    around = np.pad(even, 1, mode="reflect") if min(even.shape) > 1 else np.pad(even, 1, mode="edge")
    height, width = even.shape
    emboss = ((-2, -1, 0), (-1, 1, 1), (0, 1, 2))
    lit = np.zeros_like(even)
    for row, weights in enumerate(emboss):
        for column, weight in enumerate(weights):
            lit += weight * around[row : row + height, column : column + width]
    light = np.rint(_box(np.clip(lit, 0, 255))) * drops
    return (light / max(float(light.max()), 1)).astype(np.float32)


def _distance(marked: NDArray[np.bool_], limit: int) -> Values:
    """How far each pixel of (h, w) is from the next one that is marked, in pixels: exact up to `limit`, else more."""
    far = np.float32(2 * limit + 1)
    height, width = marked.shape
    x = np.arange(width)
    before = np.maximum.accumulate(np.where(marked, x, -4 * limit), axis=1)
    after = np.minimum.accumulate(np.where(marked, x, width + 4 * limit)[:, ::-1], axis=1)[:, ::-1]
    along = np.minimum(np.minimum(x - before, after - x), far).astype(np.float32) ** 2
    nearest = np.pad(along, ((limit, limit), (0, 0)), constant_values=far**2)
    rows = np.arange(-limit, limit + 1)
    found = np.full(marked.shape, far**2, np.float32)
    for row in rows:
        np.minimum(found, nearest[limit + row : limit + row + height] + np.float32(row * row), out=found)
    return np.sqrt(found)


def _box(values: Values) -> Values:
    """The mean over 3 x 3 pixels."""
    offsets = np.repeat([-1, 0, 1], 3), np.tile([-1, 0, 1], 3)
    return _shifted(values[..., None], *offsets, np.full(9, 1 / 9), "reflect")[..., 0]


# Digital


def _brightness(image: Picture, of: Sequence[float], draw: np.random.Generator) -> Values:
    """The value of HSV, the largest of the three, rises; hue and saturation stay."""
    (more,) = of
    values = _values(image)
    before = values.max(axis=2, keepdims=True)
    after = np.minimum(before + np.float32(more), 1)
    made: Values = np.where(before > 0, values * (after / np.maximum(before, np.float32(1 / 255))), after)
    return made


def _contrast(image: Picture, of: Sequence[float], draw: np.random.Generator) -> Values:
    """Every channel comes nearer to its mean."""
    (remains,) = of
    values = _values(image)
    mean = values.mean(axis=(0, 1), keepdims=True, dtype=np.float64).astype(np.float32)
    made: Values = (values - mean) * np.float32(remains) + mean
    return made


def _saturate(image: Picture, of: Sequence[float], draw: np.random.Generator) -> Values:
    """The saturation of HSV, times a factor plus a constant; hue and value stay. The hue of grey is red."""
    factor, more = (np.float32(number) for number in of)
    values = _values(image)
    top = values.max(axis=2, keepdims=True)
    spread = top - values.min(axis=2, keepdims=True)
    before = spread / np.maximum(top, np.float32(1 / 255))
    after = np.clip(before * factor + more, 0, 1)
    below = (top - values) * (after / np.maximum(before, np.float32(1 / 255)))
    red = top * after * np.array([0, 1, 1], np.float32)
    made: Values = top - np.where(spread > 0, below, red)
    return made


def _pixelate(image: Picture, of: Sequence[float], draw: np.random.Generator) -> Picture:
    (share,) = of
    height, width = image.shape[:2]
    coarse = (max(1, int(width * share)), max(1, int(height * share)))
    small = Image.fromarray(image).resize(coarse, Image.Resampling.BOX)
    return np.asarray(small.resize((width, height), Image.Resampling.NEAREST))


def _jpeg(image: Picture, of: Sequence[float], draw: np.random.Generator) -> Picture:
    file = io.BytesIO()
    Image.fromarray(image).save(file, "JPEG", quality=int(of[0]))
    return np.asarray(Image.open(file))


# What they share


def _values(image: NDArray[np.uint8]) -> Values:
    made: Values = image.astype(np.float32) / np.float32(255)
    return made


def _shifted(values: Values, rows: Any, columns: Any, weights: Any, beyond: str) -> Values:
    """out[y, x] = the sum of weights[i] * values[y + rows[i], x + columns[i]]. beyond: as of `numpy.pad`, what stands
    outside of the picture: "edge" its last pixel, "reflect" the picture mirrored at it."""
    from pixelwise import kernels

    rows, columns = np.asarray(rows, np.int64), np.asarray(columns, np.int64)
    top, left = max(0, -int(rows.min())), max(0, -int(columns.min()))
    sides = ((top, max(0, int(rows.max()))), (left, max(0, int(columns.max()))), (0, 0))
    padded: Any = np.pad(values, sides, mode=beyond)  # type: ignore[call-overload]  # any mode
    height, width, channels = values.shape
    out = np.zeros((height, width * channels), np.float32)
    kernels.in_bands(
        kernels.add_shifted,
        height,
        padded.reshape(len(padded), -1),
        rows + top,
        (columns + left) * channels,
        np.asarray(weights, np.float32),
        out,
    )
    return out.reshape(values.shape)


def _gaussian(values: Values, sigma: float) -> Values:
    """Of (h, w, c), cut at four deviations; beyond the border is its last pixel."""
    reach = int(4 * sigma + 0.5)
    offsets = np.arange(-reach, reach + 1)
    weights = np.exp(-(offsets**2) / (2 * sigma**2))
    weights /= weights.sum()
    none = np.zeros_like(offsets)
    return _shifted(_shifted(values, offsets, none, weights, "edge"), none, offsets, weights, "edge")


def _moved(values: Values, radius: int, sigma: float, angle_deg: float) -> Values:
    """Blurred along a line of 2 * radius + 1 pixels, with weights that fall as a Gaussian from its first pixel."""
    along = np.arange(2 * radius + 1)
    weights = np.exp(-(along**2) / (2 * sigma**2))
    angle = math.radians(angle_deg)
    rows, columns = (np.ceil(along * part - 0.5) for part in (math.sin(angle), math.cos(angle)))
    return _shifted(values, rows, columns, weights / weights.sum(), "edge")


def _add_enlarged(values: Values, factor: float, out: Values) -> None:
    """Add the middle of (h, w, c), bilinearly enlarged by `factor` >= 1 with corners on corners, to `out` (h, w, c)."""
    from pixelwise import kernels

    places = []
    for length in values.shape[:2]:
        part = math.ceil(length / factor)
        first, whole = (length - part) // 2, round(part * factor)
        at = np.arange(length) * ((part - 1) / max(whole - 1, 1))
        before = np.minimum(np.floor(at).astype(np.int64), part - 1)
        places.append((first, part, before, (at - before).astype(np.float32)))
    (top, tall, rows, below), (left, wide, columns, beyond) = places
    middle = np.ascontiguousarray(values[top : top + tall, left : left + wide])
    kernels.in_bands(kernels.add_enlarged, len(out), middle, rows, columns, below, beyond, out)


def _each(*of: float) -> tuple[tuple[float, ...], ...]:
    return tuple((one,) for one in of)


CORRUPTIONS = {
    one.name: one
    for one in (
        Corruption("gaussian_noise", "noise", _gaussian_noise, _each(0.08, 0.12, 0.18, 0.26, 0.38)),
        Corruption("shot_noise", "noise", _shot_noise, _each(60, 25, 12, 5, 3)),
        Corruption("impulse_noise", "noise", _impulse_noise, _each(0.03, 0.06, 0.09, 0.17, 0.27)),
        Corruption("speckle_noise", "noise", _speckle_noise, _each(0.15, 0.2, 0.35, 0.45, 0.6)),
        Corruption(
            "defocus_blur", "blur", _defocus_blur, ((3, 0.1), (4, 0.5), (6, 0.5), (8, 0.5), (10, 0.5))
        ),
        Corruption(
            "glass_blur", "blur", _glass_blur, ((0.7, 1, 2), (0.9, 2, 1), (1, 2, 3), (1.1, 3, 2), (1.5, 4, 2))
        ),
        Corruption("motion_blur", "blur", _motion_blur, ((10, 3), (15, 5), (15, 8), (15, 12), (20, 15))),
        Corruption(
            "zoom_blur",
            "blur",
            _zoom_blur,
            ((0.01, 1.11), (0.01, 1.16), (0.02, 1.21), (0.02, 1.26), (0.03, 1.31)),
        ),
        Corruption("gaussian_blur", "blur", _gaussian_blur, _each(1, 2, 3, 4, 6)),
        Corruption(
            "snow",
            "weather",
            _snow,
            (
                (0.1, 0.3, 3, 0.5, 10, 4, 0.8),
                (0.2, 0.3, 2, 0.5, 12, 4, 0.7),
                (0.55, 0.3, 4, 0.9, 12, 8, 0.7),
                (0.55, 0.3, 4.5, 0.85, 12, 8, 0.65),
                (0.55, 0.3, 2.5, 0.85, 12, 12, 0.55),
            ),
        ),
        Corruption("frost", "weather", _frost, ((1, 0.4), (0.8, 0.6), (0.7, 0.7), (0.65, 0.7), (0.6, 0.75))),
        Corruption("fog", "weather", _fog, ((1.5, 2), (2, 2), (2.5, 1.7), (2.5, 1.5), (3, 1.4))),
        Corruption(
            "spatter",
            "weather",
            _spatter,
            (
                (0.65, 0.3, 4, 0.69, 0.6, 0),
                (0.65, 0.3, 3, 0.68, 0.6, 0),
                (0.65, 0.3, 2, 0.68, 0.5, 0),
                (0.65, 0.3, 1, 0.65, 1.5, 1),
                (0.67, 0.4, 1, 0.65, 1.5, 1),
            ),
        ),
        Corruption("brightness", "digital", _brightness, _each(0.1, 0.2, 0.3, 0.4, 0.5)),
        Corruption("contrast", "digital", _contrast, _each(0.4, 0.3, 0.2, 0.1, 0.05)),
        Corruption("saturate", "digital", _saturate, ((0.3, 0), (0.1, 0), (2, 0), (5, 0.1), (20, 0.2))),
        Corruption("pixelate", "digital", _pixelate, _each(0.6, 0.5, 0.4, 0.3, 0.25)),
        Corruption("jpeg", "digital", _jpeg, _each(25, 18, 15, 10, 7)),
    )
}
"""By name. Families as Cityscapes-C has them; ImageNet-C counts brightness as weather."""

FAMILIES = tuple(dict.fromkeys(one.family for one in CORRUPTIONS.values()))

SETS: dict[str, tuple[str, ...]] = {
    "all": tuple(CORRUPTIONS),
    "imagenet-c": tuple(
        name for name in CORRUPTIONS if name not in ("speckle_noise", "gaussian_blur", "spatter", "saturate")
    ),
    "cityscapes-c": tuple(name for name in CORRUPTIONS if name not in ("zoom_blur", "pixelate")),
    **{family: tuple(n for n, one in CORRUPTIONS.items() if one.family == family) for family in FAMILIES},
}
"""Names that stand for several: all eighteen; the fifteen of ImageNet-C but for elastic transform; the sixteen of
Cityscapes-C; and each family."""

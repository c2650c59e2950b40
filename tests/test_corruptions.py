"""Corruptions: each against its definition, written slowly or by SciPy, scikit-image and Pillow, at every strength."""

from __future__ import annotations

import hashlib
import io
import json
import math
import os
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage, signal, stats

from pixelwise import corruptions, kernels
from pixelwise.corruptions import CORRUPTIONS, SETS, STRENGTHS, corrupt, disk, parse
from pixelwise.errors import InputError, UnknownNameError

ALL = [(name, strength) for name in CORRUPTIONS for strength in STRENGTHS]
CERTAIN = ("defocus_blur", "zoom_blur", "gaussian_blur", *SETS["digital"])
"""Those without chance."""


@pytest.fixture(scope="module")
def photo() -> np.ndarray:
    """The face of scikit-image's astronaut, (101, 90, 3)."""
    skimage = pytest.importorskip("skimage.data")
    return np.ascontiguousarray(skimage.astronaut()[40:141, 170:260])


@pytest.fixture
def noise_picture() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (23, 31, 3)).astype(np.uint8)


def rounded(values: np.ndarray) -> np.ndarray:
    return np.rint(np.clip(values, 0, 1) * 255)


def assert_rounds(found: np.ndarray, values: np.ndarray) -> None:
    """found is values, of 0 to 1, cut and rounded; a half but for float32 may go either way."""
    assert np.abs(found - np.clip(values, 0, 1) * 255).max() <= 0.502


# Noise: the distribution of one value, in closed form


def chances(name: str, value: int, strength: int) -> np.ndarray:
    """(256,) the chance of each value that a pixel of this value may get."""
    (of,) = CORRUPTIONS[name].strengths[strength - 1]
    levels = np.arange(256)
    if name == "impulse_noise":
        kept = np.where(levels == value, 1 - of, 0)
        return kept + np.isin(levels, (0, 255)) * of / 2
    if name == "shot_noise":
        counts = np.arange(0, 400)
        found = np.zeros(256)
        np.add.at(found, rounded(counts / of).astype(int), stats.poisson.pmf(counts, value / 255 * of))
        return found
    deviation = of * (255 if name == "gaussian_noise" else value)
    edges = stats.norm.cdf(np.concatenate([[-np.inf], levels[:-1] + 0.5, [np.inf]]), value, deviation)
    return np.diff(edges)


@pytest.mark.parametrize("strength", STRENGTHS)
@pytest.mark.parametrize("name", SETS["noise"])
def test_noise_has_the_mean_the_variance_and_the_distribution_of_its_definition(name, strength):
    levels = np.arange(256)
    for value in (20, 128, 240):
        expected = chances(name, value, strength)
        assert expected.sum() == pytest.approx(1)
        mean = (levels * expected).sum()
        variance = ((levels - mean) ** 2 * expected).sum()
        found = corrupt(np.full((150, 150, 3), value, np.uint8), name, strength, picture=str(value))
        n = found.size
        assert abs(found.mean() - mean) < 5 * math.sqrt(variance / n)
        fourth = ((levels - mean) ** 4 * expected).sum()
        assert abs(found.var() - variance) < 5 * math.sqrt((fourth - variance**2) / n)
        share = np.bincount(found.ravel(), minlength=256) / n
        assert np.abs(share.cumsum() - expected.cumsum()).max() < 1.95 / math.sqrt(
            n
        )  # Kolmogorov, one in 1000


def test_noise_is_another_one_in_each_channel_and_place():
    found = corrupt(np.full((80, 80, 3), 128, np.uint8), "gaussian_noise", 3).astype(float) - 128
    pairs = (found[..., 0], found[..., 1]), (found[1:], found[:-1]), (found[:, 1:], found[:, :-1])
    for a, b in pairs:
        assert abs(np.corrcoef(a.ravel(), b.ravel())[0, 1]) < 0.06


# Blur


@pytest.mark.parametrize("strength", STRENGTHS)
def test_gaussian_blur_is_scipys(noise_picture, strength):
    (sigma,) = CORRUPTIONS["gaussian_blur"].strengths[strength - 1]
    expected = ndimage.gaussian_filter(noise_picture / 255, (sigma, sigma, 0), mode="nearest", truncate=4)
    assert_rounds(corrupt(noise_picture, "gaussian_blur", strength), expected)


@pytest.mark.parametrize("strength", STRENGTHS)
def test_defocus_blur_is_scipys_correlation_with_a_softened_disk(noise_picture, strength):
    radius, softness = CORRUPTIONS["defocus_blur"].strengths[strength - 1]
    kernel = disk(int(radius), softness)
    assert kernel.sum() == pytest.approx(1, abs=1e-12)
    side = range(-int(radius), int(radius) + 1)
    sharp = np.array([[float(x * x + y * y <= radius * radius) for x in side] for y in side])
    half = 1 if radius <= 8 else 2
    line = np.array([math.exp(-x * x / (2 * softness**2)) for x in range(-half, half + 1)])
    soft = signal.convolve2d(sharp, np.outer(line, line))
    np.testing.assert_allclose(kernel, soft / soft.sum(), atol=1e-9)
    expected = ndimage.correlate(noise_picture / 255, kernel[..., None], mode="mirror")
    assert_rounds(corrupt(noise_picture, "defocus_blur", strength), expected)


def moved_slowly(values: np.ndarray, radius: int, sigma: float, angle: float) -> np.ndarray:
    height, width, _ = values.shape
    weights = [math.exp(-i * i / (2 * sigma * sigma)) for i in range(2 * radius + 1)]
    out = np.zeros(values.shape)
    for i, weight in enumerate(weights):
        down = math.ceil(i * math.sin(math.radians(angle)) - 0.5)
        right = math.ceil(i * math.cos(math.radians(angle)) - 0.5)
        for y in range(height):
            for x in range(width):
                at = min(max(y + down, 0), height - 1), min(max(x + right, 0), width - 1)
                out[y, x] += weight / sum(weights) * values[at]
    return out


@pytest.mark.parametrize("angle", [-45, -10.5, 0, 33, -90, -135, 77])
def test_motion_follows_its_line(noise_picture, angle):
    values = (noise_picture[:12, :9] / 255).astype(np.float32)
    np.testing.assert_allclose(
        corruptions._moved(values, 10, 3, angle), moved_slowly(values, 10, 3, angle), atol=1e-6
    )


@pytest.mark.parametrize("strength", STRENGTHS)
def test_motion_blur_draws_an_angle_within_45_degrees_and_keeps_the_light(strength):
    radius, _ = CORRUPTIONS["motion_blur"].strengths[strength - 1]
    dot = np.zeros((101, 101, 3), np.uint8)
    dot[50, 50] = 255
    slopes = []
    for name in "abcdefgh":
        found = corrupt(dot, "motion_blur", strength, picture=name)[..., 0].astype(float)
        rows, columns = np.nonzero(found)
        assert (columns <= 50).all()
        assert columns.min() >= 50 - 2 * radius
        assert found.sum() == pytest.approx(255, abs=len(rows) / 2)
        slopes.append((rows.mean() - 50) / (columns.mean() - 50))
    assert max(np.abs(slopes)) <= 1.2
    assert min(slopes) < 0 < max(slopes)


@pytest.mark.parametrize("strength", STRENGTHS)
def test_zoom_blur_is_the_mean_of_scipys_enlargements(photo, strength):
    step, end = CORRUPTIONS["zoom_blur"].strengths[strength - 1]
    values, layers = photo / 255, [photo / 255]
    for factor in np.arange(1, end, step):
        parts = [math.ceil(n / factor) for n in photo.shape[:2]]
        (top, tall), (left, wide) = (((n - p) // 2, p) for n, p in zip(photo.shape, parts, strict=False))
        middle = values[top : top + tall, left : left + wide]
        layers.append(ndimage.zoom(middle, (factor, factor, 1), order=1)[: photo.shape[0], : photo.shape[1]])
    assert_rounds(corrupt(photo, "zoom_blur", strength), np.mean(layers, axis=0))


def test_glass_takes_neighbours_in_the_order_of_the_published_pictures(noise_picture):
    reach, turns = 2, 2
    offsets = np.random.default_rng(1).integers(-reach, reach, (turns, 23, 31, 2), dtype=np.int8)
    found, slow = noise_picture.copy(), noise_picture.tolist()
    kernels.take_neighbours(found, offsets, reach)
    for turn in range(turns):
        for y in range(23 - reach, reach, -1):
            for x in range(31 - reach, reach, -1):
                down, right = offsets[turn, y, x].tolist()
                slow[y][x] = slow[y + down][x + right]
    assert found.tolist() == slow
    x = np.arange(6).reshape(2, 3)  # why they are copies: this is how the published code exchanges
    x[0], x[1] = x[1], x[0]
    assert x.tolist() == [[3, 4, 5]] * 2


@pytest.mark.parametrize("strength", STRENGTHS)
def test_glass_blur_moves_a_pixel_no_further_than_it_may(strength):
    sigma, reach, turns = CORRUPTIONS["glass_blur"].strengths[strength - 1]
    step = np.zeros((40, 90, 3), np.uint8)
    step[:, 45:] = 200
    found = corrupt(step, "glass_blur", strength)
    far = int(reach * turns + 2 * math.ceil(4 * sigma))
    assert (found[:, : 45 - far] == 0).all()
    assert (np.abs(found[:, 45 + far :].astype(int) - 200) <= 1).all()
    assert np.unique(found[:, 44]).size > 5


# Weather


def clouds_slowly(side: int, decay: float, draw: np.random.Generator) -> np.ndarray:
    """Diamond-square on a torus, point by point: centres of squares, then the middles of their sides."""
    at = np.zeros((side, side))
    step, spread = side, 100.0**2
    while step >= 2:
        half = step // 2
        for first_y, first_x, around in (
            (half, half, ((-half, -half), (-half, half), (half, -half), (half, half))),
            (0, half, ((-half, 0), (half, 0), (0, -half), (0, half))),
            (half, 0, ((-half, 0), (half, 0), (0, -half), (0, half))),
        ):
            for y in range(first_y, side, step):
                for x in range(first_x, side, step):
                    mean = sum(at[(y + dy) % side, (x + dx) % side] for dy, dx in around) / 4
                    at[y, x] = mean + draw.uniform(-spread, spread)
        step, spread = half, spread / decay**2
    at -= at.min()
    return at / at.max()


@pytest.mark.parametrize("decay", [2, 1.4])
def test_clouds_are_diamond_square(decay):
    found = corruptions._clouds((13, 16), decay, np.random.default_rng(3))
    expected = clouds_slowly(16, decay, np.random.default_rng(3))
    np.testing.assert_allclose(found, expected[:13], atol=1e-4)


@pytest.mark.parametrize("strength", STRENGTHS)
def test_fog_over_one_grey_lies_between_no_cloud_and_a_full_one(strength):
    thickness, _ = CORRUPTIONS["fog"].strengths[strength - 1]
    value = 0.8
    found = corrupt(np.full((128, 128, 3), round(value * 255), np.uint8), "fog", strength) / 255
    thin = value * value / (value + thickness)
    assert found.min() == pytest.approx(thin, abs=0.5 / 255 + 1e-6)
    assert found.max() == pytest.approx(value, abs=0.5 / 255 + 1e-6)


def drawn_for(name: str, strength: int, picture: str, seed: int = 0) -> np.random.Generator:
    """The random numbers of a picture: from a hash of seed, corruption, strength and its name."""
    key = hashlib.sha256(f"{seed}\n{name}\n{strength}\n{picture}".encode()).digest()
    return np.random.Generator(np.random.PCG64(int.from_bytes(key[:16], "big")))


@pytest.mark.parametrize("strength", STRENGTHS)
def test_snow_is_enlarged_noise_moved_and_seen_twice_over_a_whiter_picture(photo, strength):
    mean, deviation, zoom, threshold, radius, sigma, remains = CORRUPTIONS["snow"].strengths[strength - 1]
    photo = photo[30:70, 20:56]
    draw, (height, width) = drawn_for("snow", strength, "face"), photo.shape[:2]
    noise = mean + deviation * draw.standard_normal((height, width, 1), np.float32)
    tall, wide = math.ceil(height / zoom), math.ceil(width / zoom)
    top, left = (height - tall) // 2, (width - wide) // 2
    flakes = ndimage.zoom(noise[top : top + tall, left : left + wide], (zoom, zoom, 1), order=1)
    flakes = flakes[:height, :width]
    flakes = np.where(flakes < threshold, 0, np.clip(flakes, 0, 1))
    flakes = moved_slowly(flakes, int(radius), sigma, draw.uniform(-135, -45))
    values = photo / 255
    whiter = np.maximum(values, (values @ [0.299, 0.587, 0.114])[..., None] * 1.5 + 0.5)
    expected = remains * values + (1 - remains) * whiter + flakes + np.rot90(flakes, 2)
    assert_rounds(corrupt(photo, "snow", strength, picture="face"), expected)


@pytest.mark.parametrize("strength", STRENGTHS)
def test_frost_has_the_mean_and_deviation_of_a_photograph_of_ice(strength):
    _, added = CORRUPTIONS["frost"].strengths[strength - 1]
    seen = set()
    for name in "abcdefghijklmnop":
        found = corrupt(np.zeros((96, 120, 3), np.uint8), "frost", strength, picture=name) / added
        which = [
            i
            for i, (colour, _) in enumerate(corruptions.ICE)
            if np.abs(found.mean((0, 1)) - colour).max() < 6
        ]
        assert which, found.mean((0, 1))
        assert found.std((0, 1)) == pytest.approx(corruptions.ICE[which[0]][1], rel=0.25)
        seen.add(corruptions.ICE[which[0]])
    assert len(seen) >= 3


def test_distances_are_scipys_up_to_the_limit():
    marked = np.random.default_rng(5).random((37, 61)) < 0.004
    assert marked.any()
    found = corruptions._distance(marked, 20)
    exact = ndimage.distance_transform_edt(~marked)
    np.testing.assert_allclose(np.minimum(found, 20), np.minimum(exact, 20), atol=1e-5)
    assert (corruptions._distance(np.zeros((5, 7), bool), 20) > 20).all()


@pytest.mark.parametrize("strength", STRENGTHS)
def test_spatter_covers_where_blurred_noise_is_high_and_nothing_else(strength):
    mean, deviation, sigma, threshold, amount, mud = CORRUPTIONS["spatter"].strengths[strength - 1]
    noise = mean + deviation * drawn_for("spatter", strength, "x").standard_normal((90, 110, 1), np.float32)
    liquid = ndimage.gaussian_filter(noise[..., 0], sigma, mode="nearest", truncate=4)
    before = np.full((90, 110, 3), 60, np.uint8)
    found = corrupt(before, "spatter", strength, picture="x")
    changed = (found != before).any(axis=2)
    if mud:
        covered = ndimage.gaussian_filter(
            (liquid > threshold).astype(float), amount, mode="nearest", truncate=4
        )
        covered[covered < 0.8] = 0
        expected = before / 255 * (1 - covered[..., None]) + covered[..., None] * [63, 42, 20] / 255
        assert_rounds(found, expected)
    else:
        assert not changed[liquid < threshold - 1e-5].any()
        assert (found >= before).all()
        light = (found.astype(float) - before).max(axis=(0, 1))
        np.testing.assert_allclose(light, np.minimum(amount * np.array([175, 238, 238]), 195), atol=1)
    assert changed.mean() > 0.002


# Digital


@pytest.mark.parametrize("strength", STRENGTHS)
@pytest.mark.parametrize("name", ["brightness", "saturate"])
def test_brightness_and_saturation_are_those_of_hsv(photo, noise_picture, name, strength):
    color = pytest.importorskip("skimage.color")
    greys = np.arange(256, dtype=np.uint8).reshape(16, 16, 1).repeat(3, 2)
    for image in (photo, noise_picture, greys):
        hsv = color.rgb2hsv(image / 255)
        of = CORRUPTIONS[name].strengths[strength - 1]
        if name == "brightness":
            hsv[..., 2] = np.clip(hsv[..., 2] + of[0], 0, 1)
        else:
            hsv[..., 1] = np.clip(hsv[..., 1] * of[0] + of[1], 0, 1)
        assert_rounds(corrupt(image, name, strength), color.hsv2rgb(hsv))


@pytest.mark.parametrize("strength", STRENGTHS)
def test_contrast_leaves_means_and_scales_deviations(noise_picture, strength):
    (share,) = CORRUPTIONS["contrast"].strengths[strength - 1]
    found = corrupt(noise_picture, "contrast", strength)
    for channel in range(3):
        of = [int(v) for v in noise_picture[..., channel].ravel()]
        mean = sum(of) / len(of)
        expected = np.array([(v - mean) * share + mean for v in of]) / 255
        assert_rounds(found[..., channel].ravel(), expected)


@pytest.mark.parametrize(("strength", "quality"), [(1, 25), (2, 18), (3, 15), (4, 10), (5, 7)])
def test_jpeg_is_pillows_at_the_published_quality(photo, strength, quality):
    file = io.BytesIO()
    Image.fromarray(photo).save(file, "JPEG", quality=quality)
    np.testing.assert_array_equal(corrupt(photo, "jpeg", strength), np.asarray(Image.open(file)))


@pytest.mark.parametrize(("strength", "block"), [(2, 2), (5, 4)])
def test_pixelate_is_the_mean_of_blocks(noise_picture, strength, block):
    image = noise_picture[:20, :28]
    means = image.reshape(20 // block, block, 28 // block, block, 3).mean(axis=(1, 3))
    expected = means.repeat(block, 0).repeat(block, 1)
    assert (
        np.abs(corrupt(image, "pixelate", strength) - expected).max() <= 1
    )  # Pillow rounds rows, then columns


@pytest.mark.parametrize(("strength", "share"), [(1, 0.6), (2, 0.5), (3, 0.4), (4, 0.3), (5, 0.25)])
def test_pixelate_leaves_as_many_pixels_as_published(photo, strength, share):
    found = corrupt(photo, "pixelate", strength)
    rows = 1 + (found[1:] != found[:-1]).any(axis=(1, 2)).sum()
    columns = 1 + (found[:, 1:] != found[:, :-1]).any(axis=(0, 2)).sum()
    assert (rows, columns) == (int(101 * share), int(90 * share))


# All of them


def psnr(a: np.ndarray, b: np.ndarray) -> float:
    return -10 * math.log10(((a.astype(float) - b) ** 2).mean() / 255**2)


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_each_strength_spoils_more_than_the_one_before(photo, name):
    """On the mean over several draws. The published parameters of five do not keep to it from step to step; of them the
    strongest spoils more than the weakest."""
    draws = 1 if name in CERTAIN else 12
    found = [
        np.mean([psnr(corrupt(photo, name, s, picture=str(i)), photo) for i in range(draws)])
        for s in STRENGTHS
    ]
    uneven = name in ("glass_blur", "snow", "frost", "fog", "saturate")
    assert found[0] > found[-1] if uneven else all(np.diff(found) < 0), found


@pytest.mark.parametrize("size_hw", [(1, 1), (1, 7), (9, 1), (2, 3), (5, 33)])
def test_pictures_of_any_size_stay_pictures_of_that_size_and_are_not_written_to(size_hw):
    image = np.random.default_rng(2).integers(0, 256, (*size_hw, 3)).astype(np.uint8)
    for values in (image, np.zeros_like(image), np.full_like(image, 255)):
        before = values.copy()
        values.setflags(write=False)
        for name, strength in ALL:
            found = corrupt(values, name, strength)
            assert (found.shape, found.dtype) == (image.shape, np.uint8), (name, strength)
            assert found.flags.writeable
        np.testing.assert_array_equal(values, before)


@pytest.mark.parametrize("name", ["brightness", "contrast", "pixelate", "jpeg", "fog", "snow", *SETS["blur"]])
def test_grey_stays_grey(name):
    grey = np.random.default_rng(4).integers(0, 256, (40, 50, 1)).astype(np.uint8).repeat(3, 2)
    found = corrupt(grey, name, 3)
    np.testing.assert_array_equal(found[..., :1].repeat(3, 2), found)


def test_a_smooth_picture_stays_what_it_is_where_nothing_but_blur_and_blocks_come():
    flat = np.full((40, 50, 3), 100, np.uint8)
    for name in (*SETS["blur"], "contrast", "pixelate"):
        for strength in STRENGTHS:
            np.testing.assert_allclose(corrupt(flat, name, strength), 100, atol=1, err_msg=name)


HASHES = """
import hashlib, json, sys
import numpy as np
from pixelwise.corruptions import CORRUPTIONS, corrupt
image = np.arange(40 * 30 * 3).reshape(40, 30, 3).astype(np.uint8)
names = sorted(CORRUPTIONS, reverse=len(sys.argv) > 1)
print(json.dumps({n: hashlib.sha256(corrupt(image, n, 3, picture="ü/1", seed=7).tobytes()).hexdigest() for n in names}))
assert "torch" not in sys.modules and "cv2" not in sys.modules
"""


def test_every_process_in_every_order_makes_the_same_pictures():
    found = [
        json.loads(
            subprocess.run(
                [sys.executable, "-c", HASHES, *more],
                env={**os.environ, "PYTHONHASHSEED": seed},
                stdout=subprocess.PIPE,
                check=True,
            ).stdout
        )
        for more, seed in (([], "1"), (["backwards"], "2"))
    ]
    image = np.arange(40 * 30 * 3).reshape(40, 30, 3).astype(np.uint8)
    here = {
        name: hashlib.sha256(corrupt(image, name, 3, picture="ü/1", seed=7).tobytes()).hexdigest()
        for name in CORRUPTIONS
    }
    assert found == [here, here]


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_another_name_or_seed_is_another_draw_where_there_is_chance(photo, name):
    one, *others = (
        corrupt(photo, name, 3, picture=picture, seed=seed)
        for picture, seed in (("a", 0), ("b", 0), ("a", 1))
    )
    for other in others:
        assert (one == other).all() == (name in CERTAIN)


PUBLISHED = {
    "gaussian_noise": "0.08/0.12/0.18/0.26/0.38", "shot_noise": "60/25/12/5/3",
    "impulse_noise": "0.03/0.06/0.09/0.17/0.27", "speckle_noise": "0.15/0.2/0.35/0.45/0.6",
    "defocus_blur": "3 0.1/4 0.5/6 0.5/8 0.5/10 0.5", "glass_blur": "0.7 1 2/0.9 2 1/1 2 3/1.1 3 2/1.5 4 2",
    "motion_blur": "10 3/15 5/15 8/15 12/20 15", "zoom_blur": "0.01 1.11/0.01 1.16/0.02 1.21/0.02 1.26/0.03 1.31",
    "gaussian_blur": "1/2/3/4/6",
    "snow": "0.1 0.3 3 0.5 10 4 0.8/0.2 0.3 2 0.5 12 4 0.7/0.55 0.3 4 0.9 12 8 0.7/0.55 0.3 4.5 0.85 12 8 0.65/"
            "0.55 0.3 2.5 0.85 12 12 0.55",
    "frost": "1 0.4/0.8 0.6/0.7 0.7/0.65 0.7/0.6 0.75", "fog": "1.5 2/2 2/2.5 1.7/2.5 1.5/3 1.4",
    "spatter": "0.65 0.3 4 0.69 0.6 0/0.65 0.3 3 0.68 0.6 0/0.65 0.3 2 0.68 0.5 0/0.65 0.3 1 0.65 1.5 1/"
               "0.67 0.4 1 0.65 1.5 1",
    "brightness": "0.1/0.2/0.3/0.4/0.5", "contrast": "0.4/0.3/0.2/0.1/0.05",
    "saturate": "0.3 0/0.1 0/2 0/5 0.1/20 0.2", "pixelate": "0.6/0.5/0.4/0.3/0.25", "jpeg": "25/18/15/10/7",
}  # fmt: skip
"""As in the function of each name in imagecorruptions/corruptions.py, a strength after the other."""


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_strengths_are_the_published_ones(name):
    published = tuple(tuple(map(float, of.split())) for of in PUBLISHED[name].split("/"))
    assert CORRUPTIONS[name].strengths == published


def test_sets_are_those_of_the_papers():
    assert len(SETS["all"]) == 18
    assert len(SETS["imagenet-c"]) == 15 - 1  # elastic transform
    assert len(SETS["cityscapes-c"]) == 16
    assert set(SETS["all"]) == set(SETS["imagenet-c"]) | set(SETS["cityscapes-c"])
    assert [len(SETS[family]) for family in corruptions.FAMILIES] == [4, 5, 4, 5]


def test_names_and_strengths_are_read():
    assert parse("jpeg:3, fog:1") == (("fog", 1), ("jpeg", 3))
    assert parse(["fog"]) == tuple(("fog", s) for s in STRENGTHS)
    assert parse("fog,fog:2,weather:2") == (
        ("snow", 2), ("frost", 2), *(("fog", s) for s in STRENGTHS), ("spatter", 2),
    )  # fmt: skip
    assert len(parse("all")) == 90
    assert len(parse("cityscapes-c")) == 80
    for text, says in (
        ("fgo", "Unknown corruption 'fgo'; did you mean 'fog'"),
        ("noise,jpg", "Unknown corruption 'jpg'; did you mean 'jpeg'"),
    ):
        with pytest.raises(UnknownNameError, match=says):
            parse(text)
    for text in ("fog:6", "fog:0", "fog:-1", "fog:", "fog:x", "all:1.5", "fog:²", "fog:1:2"):
        with pytest.raises(
            InputError, match=r"^the strength of (fog|all) is a whole number from 1 to 5, got "
        ):
            parse(text)
    for nothing in ("", " , ", []):
        with pytest.raises(InputError, match="corrupt takes names such as fog or jpeg:3, or all, got"):
            parse(nothing)


def test_what_cannot_be_corrupted_is_refused(noise_picture):
    with pytest.raises(UnknownNameError, match="did you mean 'snow'"):
        corrupt(noise_picture, "snwo", 1)
    for strength in (0, 6, 2.5, True, "3"):
        with pytest.raises(InputError, match="the strength of snow is a whole number from 1 to 5, got"):
            corrupt(noise_picture, "snow", strength)
    for other in (noise_picture / 255, noise_picture[..., 0], noise_picture[..., :2], noise_picture[:0]):
        with pytest.raises(InputError, match=r"corruptions are made of uint8 RGB pictures \(h, w, 3\), got"):
            corrupt(other, "snow", 1)


def test_help_names_all_of_them_without_importing_them():
    from pixelwise.cli import app

    assert ", ".join(corruptions.FAMILIES) + "; " + ", ".join(CORRUPTIONS) == app.CORRUPTIONS

"""Augment: values against plain definitions, image and mask together, and the same numbers from the same seed."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from torchvision.transforms.v2 import functional as TF

from pixelwise.datasets.sample import Sample
from pixelwise.errors import InputError
from pixelwise.inference.preprocess import IMAGENET_MEAN, IMAGENET_STD, normalize
from pixelwise.transforms import augment as module
from pixelwise.transforms.augment import Augment, Span, bend, cubic, paste_class

COLOURS = np.random.default_rng(1).integers(30, 226, (20, 3), dtype=np.uint8)
STILL = {"scale": (1.0, 1.0), "flip": 0.0, "largest_share": 1.0, "colour": 0.0}


def blocks(height=90, width=120, seed=0, classes=20) -> Sample:
    """Blocks of 30 pixels whose colour says their class."""
    ids = np.random.default_rng(seed).integers(0, classes, (height // 30, width // 30)).astype(np.uint8)
    mask = ids.repeat(30, 0).repeat(30, 1)
    return Sample(COLOURS[mask], mask, f"blocks{seed}")


def pixels_of(image: torch.Tensor) -> torch.Tensor:
    """A normalised image (3, h, w) back as values in 0..255."""
    return 255 * (
        image * torch.tensor(IMAGENET_STD)[:, None, None] + torch.tensor(IMAGENET_MEAN)[:, None, None]
    )


def inner(mask: torch.Tensor, margin: int) -> torch.Tensor:
    """Where all pixels within `margin` have the same label."""
    size = 2 * margin + 1
    high = torch.nn.functional.max_pool2d(mask[None].float(), size, 1, margin)
    low = -torch.nn.functional.max_pool2d(-mask[None].float(), size, 1, margin)
    return (high == low)[0]


@pytest.mark.parametrize(
    "options", [{}, {"elastic_px": 4.0}, {"paste_from": [blocks(seed=5)], "paste": 1.0}, {"shorter_side": 60}]
)
def test_image_and_mask_move_together(options):
    augment, sample = Augment((64, 80), colour=0, **options), blocks()
    compared = off = 0
    for seed in range(20):
        torch.manual_seed(seed)
        item = augment(sample)
        image, mask = item["image"], item["mask"]
        assert (image.dtype, image.shape) == (torch.float32, (3, 64, 80))
        assert (mask.dtype, mask.shape) == (torch.int64, (64, 80))
        certain = inner(mask, 4) & (mask != 255)
        compared += int(certain.sum())
        expected = torch.from_numpy(COLOURS)[mask[certain]].T
        off += int((abs(pixels_of(image)[:, certain] - expected) > 1.01).any(0).sum())
    assert compared > 5000
    # A last line of source pixels, too thin for the nearest neighbour, may still tint the crop's border.
    assert off < 0.01 * compared


def test_a_still_augmentation_is_the_preprocessing():
    sample = blocks()
    item = Augment((90, 120), **STILL)(sample)
    expected = torch.from_numpy(normalize(sample.image, IMAGENET_MEAN, IMAGENET_STD))[0]
    torch.testing.assert_close(item["image"], expected, atol=2e-6, rtol=0)
    assert (item["mask"].numpy() == sample.mask).all()
    flipped = Augment((90, 120), **{**STILL, "flip": 1.0})(sample)
    assert torch.equal(flipped["image"], item["image"].flip(2))
    assert torch.equal(flipped["mask"], item["mask"].flip(1))


@pytest.mark.parametrize("zoom", [0.6, 1.0, 1.7])
def test_a_crop_equals_torchvisions_resize_then_crop_inside_its_border(zoom):
    """The whole picture resized by torchvision's tensor path, of which the crop is a part."""
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (100, 140, 3), dtype=np.uint8)
    rows, columns = Span(20, round(48 / zoom), 48, 0), Span(10, round(48 / zoom), 48, 0)
    crop = Augment((48, 48))._image(image, rows, columns)
    window = torch.from_numpy(image[rows.source, columns.source]).permute(2, 0, 1)
    assert torch.equal(crop, TF.resize(window, [48, 48], antialias=True))
    # The same zoom over the whole picture: a pixel here is `zoom` source pixels, so the window starts at 20 / zoom.
    step = rows.length / 48
    size = [round(100 / step), round(140 / step)]
    whole = TF.resize(torch.from_numpy(image).permute(2, 0, 1), size, antialias=True).numpy()
    top, left = round(20 / step), round(10 / step)
    part = whole[:, top : top + 48, left : left + 48].astype(int)
    if zoom == 1.0:
        assert np.array_equal(part, crop.numpy())
    else:
        smooth = abs(part - crop.numpy())[:, 4:-4, 4:-4]
        assert np.median(smooth) <= 12  # noise, shifted by less than a pixel


@given(size=st.integers(1, 60), crop=st.integers(1, 60), zoom=st.floats(0.4, 2.5), seed=st.integers(0, 99))
def test_spans_stay_inside_and_follow_pillows_nearest(size, crop, zoom, seed):
    torch.manual_seed(seed)
    span = Span.draw(size, crop, zoom)
    assert 0 <= span.start <= span.start + span.length <= size
    assert 0 <= span.place <= span.place + span.out <= crop
    assert span.out == crop or span.length == size  # the crop is full, or holds all of the picture
    assert span.out / span.length == pytest.approx(zoom, rel=0.5 / span.length + 0.5 / span.out + 0.02) or (
        span.length == 1 or span.out == 1
    )
    values = np.arange(size, dtype=np.uint8)[None]
    pillow = Image.fromarray(values[:, span.source]).resize((span.out, 1), Image.Resampling.NEAREST)
    assert abs(np.asarray(pillow)[0].astype(int) - span.nearest()).max() <= (span.length % span.out != 0)


def test_a_small_picture_lies_whole_in_the_crop_and_the_rest_is_ignored():
    places = set()
    for seed in range(10):
        torch.manual_seed(seed)
        item = Augment((100, 150), **STILL)(blocks())
        known = item["mask"] != 255
        assert known.sum() == 90 * 120
        top, left = (int(i) for i in known.nonzero()[0])
        places.add((top, left))
        assert (item["mask"][top : top + 90, left : left + 120].numpy() == blocks().mask).all()
        # The rest is the mean colour, but for its rounding to 8 bits.
        assert item["image"][:, ~known].abs().max() < 0.6 / 255 / min(IMAGENET_STD)
    assert len(places) > 5


def test_no_class_reaches_its_largest_share_where_that_can_be():
    mask = np.zeros((200, 200), np.uint8)
    mask[80:120, 80:120], mask[:60, :60] = 1, 255  # almost all is 0 or ignored
    sample = Sample(COLOURS[mask % 20], mask, "rare")

    def largest(item):
        counts = torch.bincount(item["mask"].flatten(), minlength=256)[:255]
        return float(counts.max() / counts.sum())

    torch.manual_seed(0)
    free = Augment((48, 48), scale=(1, 1), largest_share=1.0, colour=0)
    capped = Augment((48, 48), scale=(1, 1), largest_share=0.75, colour=0)
    assert np.mean([largest(free(sample)) < 0.75 for _ in range(200)]) < 0.2
    assert np.mean([largest(capped(sample)) < 0.75 for _ in range(200)]) > 0.6
    uniform = Sample(sample.image, np.zeros_like(mask), "one class")  # hopeless: ten tries, then as it is
    assert largest(capped(uniform)) == 1


def test_all_randomness_is_torchs_generator():
    augment = Augment((48, 48), elastic_px=3, paste_from=[blocks(seed=3), blocks(seed=4)])
    torch.manual_seed(7)
    first = [augment(blocks()) for _ in range(3)]
    np.random.seed(1)  # noqa: NPY002 - nothing may depend on it
    torch.manual_seed(7)
    for one, again in zip(first, [augment(blocks()) for _ in range(3)], strict=True):
        assert torch.equal(one["image"], again["image"])
        assert torch.equal(one["mask"], again["mask"])
    assert not torch.equal(first[0]["image"], first[1]["image"])


def test_colours_change_linearly_and_keep_grey_grey():
    torch.manual_seed(0)
    every = Augment((8, 8), colour=1.0)
    seen = []
    for _ in range(300):
        matrix, shift = every._colours()
        grey = matrix @ torch.ones(3)
        torch.testing.assert_close(grey, grey[:1].expand(3))
        luma = torch.tensor([0.299, 0.587, 0.114])
        torch.testing.assert_close(luma @ matrix, float(grey[0]) * luma, atol=1e-3, rtol=0)  # hue keeps luma
        seen.append((float(grey[0]), float(shift)))
    factors, shifts = np.array(seen).T
    assert 0.5 <= factors.min() < 0.55 < 1.45 < factors.max() <= 1.5
    assert -32 <= shifts.min() < -29 < 29 < shifts.max() <= 32
    little = [Augment((8, 8), colour=1.0, colour_amount=0.25)._colours() for _ in range(300)]
    factors, shifts = np.array([(float((m @ torch.ones(3))[0]), s) for m, s in little]).T
    assert 0.875 <= factors.min() < 0.89 < 1.11 < factors.max() <= 1.125
    assert -8 <= shifts.min() < -7 < 7 < shifts.max() <= 8
    matrix, shift = Augment((8, 8), colour=0.0)._colours()
    torch.testing.assert_close(matrix, torch.eye(3), atol=1e-6, rtol=0)
    assert shift == 0


def test_changed_colours_stay_those_of_a_picture(monkeypatch):
    monkeypatch.setattr(module, "CHUNK", 100)  # several pieces, the last one short
    extremes = np.random.default_rng(0).choice([0, 255], (30, 40, 3)).astype(np.uint8)
    sample = Sample(extremes, np.zeros((30, 40), np.uint8), "extremes")
    augment = Augment((30, 40), **{**STILL, "colour": 1.0})
    for seed in range(20):
        torch.manual_seed(seed)
        values = pixels_of(augment(sample)["image"])
        assert values.min() >= -1e-3
        assert values.max() <= 255 + 1e-3
        torch.manual_seed(seed)
        for _ in range(2):
            torch.rand(())  # zoom, flip
        for _ in range(2):
            torch.randint(1, ())  # rows, columns
        matrix, shift = augment._colours()
        plain = (
            torch.einsum("ij,jhw->ihw", matrix, torch.from_numpy(extremes).permute(2, 0, 1).float()) + shift
        )
        torch.testing.assert_close(values, plain.clamp(0, 255), atol=1e-2, rtol=0)


def test_bending_by_nothing_changes_nothing():
    image, mask = torch.rand(3, 20, 30), torch.randint(0, 5, (20, 30))
    bent, ids = bend(image, mask, 0.0)
    torch.testing.assert_close(bent, image, atol=1e-5, rtol=0)
    assert torch.equal(ids, mask)


@pytest.mark.parametrize("quarters", [1, 2, -1])
def test_turning_by_quarters_is_numpys_rotation(quarters):
    image, mask = torch.rand(3, 20, 20), torch.randint(0, 5, (20, 20))
    turned, ids = bend(image, mask, 0.0, quarters * np.pi / 2)
    np.testing.assert_allclose(turned, np.rot90(image, quarters, (1, 2)), atol=1e-4)
    np.testing.assert_array_equal(ids, np.rot90(mask, quarters))


def test_turns_stay_within_the_given_angle_and_go_both_ways():
    size, far = 101, 40
    mask = np.zeros((size, size), np.uint8)
    mask[48:53, 50 + far - 2 : 50 + far + 3] = 1  # east of the centre
    augment = Augment((size, size), scale=(1, 1), flip=0, colour=0, largest_share=1, turn=30)
    torch.manual_seed(0)
    angles = []
    for _ in range(40):
        turned = augment(Sample(np.zeros((size, size, 3), np.uint8), mask, "one"))["mask"]
        rows, columns = turned.numpy().nonzero()
        angles.append(np.degrees(np.arctan2(50 - rows.mean(), columns.mean() - 50)))
    assert -30.5 < min(angles) < -15
    assert 15 < max(angles) < 30.5


def test_bending_is_scipys_interpolation_at_shifted_places():
    ndimage = pytest.importorskip("scipy.ndimage")
    image, mask = torch.rand(3, 40, 50), torch.randint(0, 300, (40, 50))
    torch.manual_seed(3)
    bent, ids = bend(image, mask, 6.0)
    torch.manual_seed(3)
    shift = (cubic(40) @ (6.0 * torch.randn(2, 3, 3)) @ cubic(50).T).double().numpy()
    places = np.stack(np.mgrid[:40, :50]) + shift
    for channel in range(3):
        expected = ndimage.map_coordinates(image[channel].double().numpy(), places, order=1, mode="reflect")
        np.testing.assert_allclose(bent[channel].numpy(), expected, atol=1e-4)
    nearest = ndimage.map_coordinates(mask.numpy(), np.round(places), order=0, mode="reflect")
    assert (ids.numpy() == nearest).mean() > 0.999  # but for places half-way between pixels


def test_cubic_weights_reach_their_points_and_sum_to_one():
    weights = cubic(41)
    torch.testing.assert_close(weights.sum(1), torch.ones(41))
    torch.testing.assert_close(weights[[0, 20, 40]], torch.eye(3), atol=1e-6, rtol=0)


def test_pasting_takes_one_class_and_never_the_ground():
    other = torch.zeros(30, 30, dtype=torch.uint8)
    other[:10, :10], other[20:, 20:], other[:, 15] = 3, 4, 255
    taken = set()
    for seed in range(20):
        torch.manual_seed(seed)
        image, mask = torch.zeros(3, 30, 30, dtype=torch.uint8), torch.full((30, 30), 9, dtype=torch.uint8)
        paste_class(image, mask, torch.full((3, 30, 30), 200, dtype=torch.uint8), other, 255)
        (pasted,) = set(mask.unique().tolist()) - {9}
        taken.add(pasted)
        assert torch.equal(mask == pasted, other == pasted)
        assert torch.equal(image == 200, (other == pasted).expand(3, 30, 30))
    assert taken == {3, 4}
    paste_class(image, mask, image, torch.zeros_like(other), 255)  # nothing to take
    assert set(mask.unique().tolist()) == {9, pasted}


def test_more_than_255_classes_and_their_own_ignore_index():
    sample = blocks()
    many = Sample(sample.image, sample.mask.astype(np.uint16) * 20, "many")
    torch.manual_seed(0)
    item = Augment((100, 150), scale=(1, 1), flip=0, ignore_index=65535)(many)
    known = item["mask"] != 65535
    assert known.sum() == 90 * 120
    assert set(item["mask"][known].tolist()) == {int(i) * 20 for i in np.unique(sample.mask)}


def test_what_cannot_be():
    with pytest.raises(InputError, match="smallest <= largest scale"):
        Augment((48, 48), scale=(2.0, 1.0))
    with pytest.raises(InputError, match=r"flip must lie in \[0, 1\], got 3"):
        Augment((48, 48), flip=3)

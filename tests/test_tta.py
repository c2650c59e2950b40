"""Test-time augmentation: the mean over views, each turned back, and nothing else."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from pixelwise.errors import InputError
from pixelwise.inference.tiling import Tiling, channels_first, collect, stitch
from pixelwise.inference.tta import augmented, symmetries


def drawn(n: int, h: int, w: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(n, 3, h, w)).astype(np.float32)


def pointwise(x):
    weight = np.random.default_rng(1).normal(size=(4, 3)).astype(np.float32)
    if isinstance(x, torch.Tensor):
        return torch.einsum("kc,nc...->nk...", torch.from_numpy(weight), x)
    return np.einsum("kc,nc...->nk...", weight, x)


def lopsided(x):
    """A network with a preferred direction: no symmetry leaves its answer alone."""
    kernel = torch.randn(4, 3, 3, 3, generator=torch.Generator().manual_seed(0))
    return F.conv2d(torch.from_numpy(x), kernel, padding=1).numpy()


flips = st.sampled_from([(), ("horizontal",), ("vertical",), ("horizontal", "vertical")])
turns = st.sampled_from([(), (90,), (180,), (90, 180, 270)])


@settings(max_examples=60, deadline=None)
@given(
    flips=flips,
    rotations=turns,
    average=st.sampled_from(["logits", "probabilities"]),
    size=st.tuples(st.integers(1, 9), st.integers(1, 9)),
    torch_=st.booleans(),
)
def test_a_network_that_sees_one_pixel_gives_the_same_whatever_the_flips_and_turns(
    flips, rotations, average, size, torch_
):
    images = drawn(2, *size)
    expected = pointwise(images)
    if average == "probabilities":
        expected = expected - np.log(np.exp(expected).sum(axis=1, keepdims=True))
    mean = augmented(pointwise, flips=flips, rotations=rotations, average=average)
    answer = mean(torch.from_numpy(images)).numpy() if torch_ else mean(images)
    np.testing.assert_allclose(answer, expected, atol=1e-5)


def test_flips_are_averaged_as_by_hand():
    images = drawn(1, 6, 8)
    by_hand = (lopsided(images) + lopsided(images[..., ::-1].copy())[..., ::-1]) / 2
    np.testing.assert_allclose(augmented(lopsided, flips=("horizontal",))(images), by_hand, atol=1e-6)
    by_hand = (lopsided(images) + lopsided(images[..., ::-1, :].copy())[..., ::-1, :]) / 2
    np.testing.assert_allclose(augmented(lopsided, flips=("vertical",))(images), by_hand, atol=1e-6)


def test_turns_are_averaged_as_by_hand():
    images = drawn(1, 6, 8)
    views = [np.rot90(lopsided(np.rot90(images, q, (2, 3)).copy()), -q, (2, 3)) for q in range(4)]
    mean = augmented(lopsided, rotations=(90, 180, 270))(images)
    np.testing.assert_allclose(mean, np.mean(views, axis=0), atol=1e-6)


def test_the_mean_over_all_symmetries_has_them():
    """What is averaged over the eight symmetries of the square turns with the picture."""
    mean = augmented(lopsided, flips=("horizontal",), rotations=(90, 180, 270))
    images = drawn(1, 7, 5)
    turned = mean(np.rot90(images, 1, (2, 3)).copy())
    np.testing.assert_allclose(turned, np.rot90(mean(images), 1, (2, 3)), atol=1e-6)
    mirrored = mean(images[..., ::-1].copy())
    np.testing.assert_allclose(mirrored, mean(images)[..., ::-1], atol=1e-6)


def test_every_view_is_taken_once():
    assert symmetries((), ()) == [(0, ())]
    assert len(symmetries(("horizontal", "vertical"), ())) == 4
    assert symmetries(("horizontal", "vertical"), (180,)) == symmetries(("horizontal", "vertical"), ())
    assert sorted(symmetries((), (90,))) == [(0, ()), (1, ())]
    every = symmetries(("horizontal", "vertical"), (90, 180, 270))
    assert sorted(every) == [(turns, mirrored) for turns in range(4) for mirrored in ((), (-1,))]
    subsets = {frozenset(mirrored) for turns, mirrored in symmetries(("columns", "rows", "slices"), ())}
    assert len(subsets) == 8


@pytest.mark.parametrize("kind", ["numpy", "torch"])
def test_volumes_are_mirrored_in_every_subset_of_the_axes_that_are_named(kind):
    """As by hand, and as nnU-Net's predictor does: the mean of the logits of each subset, turned back."""
    images = np.random.default_rng(0).normal(size=(1, 1, 4, 6, 5)).astype(np.float32)
    kernel = torch.randn(3, 1, 3, 3, 3, generator=torch.Generator().manual_seed(0))

    def network(x):
        answer = F.conv3d(torch.as_tensor(x), kernel, padding=1)
        return answer if isinstance(x, torch.Tensor) else answer.numpy()

    for flips, axes in (
        (("columns",), (4,)), (("rows",), (3,)), (("slices",), (2,)), (("columns", "slices"), (2, 4)),
        (("columns", "rows", "slices"), (2, 3, 4)),
    ):  # fmt: skip
        subsets = [some for n in range(len(axes) + 1) for some in itertools.combinations(axes, n)]
        views = [np.flip(network(np.flip(images, some).copy()), some) for some in subsets]
        mean = augmented(network, flips=flips)
        answer = np.asarray(mean(torch.from_numpy(images) if kind == "torch" else images))
        np.testing.assert_allclose(answer, np.mean(views, axis=0), atol=1e-6)
    for mixed in (("columns", "vertical"), ("horizontal", "slices")):
        with pytest.raises(InputError, match="of pictures, horizontal and vertical, or of volumes"):
            augmented(network, flips=mixed)


def test_logits_and_probabilities_are_different_means_and_each_is_what_it_says():
    images = drawn(1, 5, 6)
    views = np.stack([lopsided(images), lopsided(images[..., ::-1].copy())[..., ::-1]])
    logits = augmented(lopsided, flips=("horizontal",))(images)
    np.testing.assert_allclose(logits, views.mean(0), atol=1e-6)
    odds = np.exp(views)
    expected = (odds / odds.sum(axis=2, keepdims=True)).mean(0)
    probabilities = np.exp(augmented(lopsided, flips=("horizontal",), average="probabilities")(images))
    np.testing.assert_allclose(probabilities, expected, atol=1e-6)
    np.testing.assert_allclose(probabilities.sum(1), 1, atol=1e-5)
    assert np.abs(np.exp(logits) / np.exp(logits).sum(1, keepdims=True) - expected).max() > 0.01


def test_a_single_channel_keeps_its_meaning_as_a_probability():
    images = drawn(1, 4, 5)
    answer = augmented(lambda x: x[:, :1], flips=("horizontal",), average="probabilities")(images)
    assert answer.shape == (1, 1, 4, 5)
    np.testing.assert_allclose(answer[:, 0], images[:, 0], atol=1e-5)  # one pixel's logit: its own mean


@pytest.mark.parametrize("kind", ["numpy", "torch"])
def test_scales_show_the_network_larger_and_smaller_pictures_and_answer_at_the_finest(kind):
    seen = []

    def coarse(x):
        seen.append(tuple(x.shape[2:]))
        return pointwise(x)[:, :, ::4, ::4]

    constant = np.full((1, 3, 33, 65), 0.5, np.float32)
    images = torch.from_numpy(constant) if kind == "torch" else constant
    answer = augmented(coarse, scales=(0.5, 1.0, 1.75), multiple=16, offset=1, align_corners=True)(images)
    assert seen == [(17, 33), (33, 65), (65, 113)]
    assert tuple(answer.shape) == (1, 4, 17, 29)
    np.testing.assert_allclose(
        np.asarray(answer), np.broadcast_to(pointwise(constant)[:, :, :1, :1], answer.shape), atol=1e-5
    )


def test_both_ways_of_scaling_agree():
    images = drawn(1, 40, 60)
    mean = augmented(pointwise, scales=(0.6, 1.4))
    np.testing.assert_allclose(mean(torch.from_numpy(images)).numpy(), mean(images), atol=2e-3)


def test_it_composes_with_tiling_in_either_picture_order():
    picture = np.random.default_rng(0).integers(0, 256, (50, 70, 3)).astype(np.uint8)
    mean = augmented(lopsided, flips=("horizontal", "vertical"), rotations=(90,))

    def labels(p):
        size = p.shape[:2]
        bands = stitch(lambda a, b: p[a:b], size, mean, tiling=Tiling(20, 8, margin=2, batch=3))
        return collect(bands, size)[0]

    whole = mean(channels_first(picture))[0]
    best = np.sort(whole, axis=0)
    clear = best[-1] - best[-2] > 1e-2
    np.testing.assert_array_equal(labels(picture)[clear], whole.argmax(0)[clear])


def test_volumes_are_flipped_and_turned_in_their_slices():
    volume = np.random.default_rng(0).normal(size=(1, 3, 4, 5, 6)).astype(np.float32)
    mean = augmented(pointwise, flips=("horizontal",), rotations=(90,))
    np.testing.assert_allclose(mean(volume), pointwise(volume), atol=1e-5)
    with pytest.raises(InputError, match="use flips only"):
        augmented(pointwise, scales=(0.5,))(volume)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"flips": ("diagonal",)}, "'diagonal'"),
        ({"rotations": (45,)}, "90, 180 and 270"),
        ({"scales": ()}, "at least one"),
        ({"scales": (1.0, 0.0)}, "positive"),
        ({"average": "votes"}, "'votes'"),
    ],
)
def test_unknown_views_are_refused(options, message):
    with pytest.raises(InputError, match=message):
        augmented(pointwise, **options)

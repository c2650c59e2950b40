"""Augmentation of volumes against slow, exact definitions."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from scipy import ndimage

from drawn_scans import drawn
from pixelwise.checkpoints.making import create_model
from pixelwise.datasets.sample import Sample
from pixelwise.errors import InputError
from pixelwise.geometry import Geometry
from pixelwise.inference.volume_preprocess import Normalise, VolumePreprocess
from pixelwise.inference.volumes import fitting, normalised
from pixelwise.training.config import TrainConfig
from pixelwise.training.objective import make_loss
from pixelwise.training.prepared import places_of, resampled
from pixelwise.transforms.augment_volume import AugmentVolume, cut, gamma, places, resample, turn_about

NOTHING = dict.fromkeys(
    ("foreground", "rotation", "scaling", "elastic", "noise", "brightness", "contrast", "low_resolution", "gamma",
     "gamma_inverted"), 0.0,
)  # fmt: skip


def sample_of(seed=0, size=(14, 18, 16)):
    values, ids = drawn(seed, size)
    return Sample(values[None], ids, "drawn", places=places_of(ids, {0}))


@pytest.fixture(autouse=True)
def seeded():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield


@pytest.mark.parametrize("start", [(2, 3, 1), (-2, 9, -1), (3, -4, 8)])
def test_a_turned_and_scaled_patch_is_what_scipy_makes_of_it(start):
    sample, patch = sample_of(), (9, 8, 10)
    matrix = (turn_about(0, 0.3) @ turn_about(1, -0.5) @ turn_about(2, 0.4) / 1.2).float()
    pixels, ids = resample(sample.image, sample.mask, places(patch, start, matrix))
    middle = (np.array(patch) - 1) / 2
    offset = middle + np.array(start) - matrix.numpy().astype(float) @ middle
    how = {"offset": offset, "output_shape": patch, "order": 1, "mode": "mirror"}
    expected = ndimage.affine_transform(sample.image[0].astype(float), matrix.numpy().astype(float), **how)
    np.testing.assert_allclose(pixels[0].numpy(), expected, atol=0.05)  # of values to 200, in float32
    shares = np.stack(
        [
            ndimage.affine_transform((sample.mask == c).astype(float), matrix.numpy().astype(float), **how)
            for c in range(3)
        ]
    )
    clear = np.sort(shares, axis=0)[-1] - np.sort(shares, axis=0)[-2] > 1e-3
    np.testing.assert_array_equal(ids.numpy()[clear], shares.argmax(axis=0)[clear])
    assert clear.mean() > 0.98


def test_the_nearest_label_is_one_that_is_there():
    sample = sample_of()
    where = places((8, 8, 8), (3, 5, 4), turn_about(1, 0.4).float())
    _, ids = resample(sample.image, 5 * sample.mask, where, "nearest")
    expected = ndimage.map_coordinates(5 * sample.mask, where.movedim(-1, 0).numpy(), order=0, mode="mirror")
    assert (ids.numpy() == expected).mean() > 0.99  # a place halfway between two may go either way
    assert set(ids.unique().tolist()) <= {0, 5, 10}


def test_a_patch_that_nothing_happens_to_is_cut_out_and_mirrored_beyond_the_ends():
    sample = sample_of()
    inside = cut(sample.image, (2, 3, 4), (5, 6, 7))
    np.testing.assert_array_equal(inside, sample.image[:, 2:7, 3:9, 4:11])
    padded = np.pad(sample.image[0], 6, mode="reflect")
    np.testing.assert_array_equal(cut(sample.image, (-6, -6, -6), (26, 30, 28))[0], padded)
    whole = AugmentVolume((14, 18, 16), **{**NOTHING, "mirror": ()})(sample)
    np.testing.assert_array_equal(whole["image"][0].numpy(), sample.image[0])
    np.testing.assert_array_equal(whole["mask"].numpy(), sample.mask)
    seen = set()
    flipping = AugmentVolume((14, 18, 16), **NOTHING)
    for _ in range(60):
        given = flipping(sample)
        for axes in itertools.chain.from_iterable(itertools.combinations(range(3), n) for n in range(4)):
            if torch.equal(given["mask"], torch.from_numpy(np.flip(sample.mask, axes).astype(np.int64))):
                np.testing.assert_array_equal(given["image"][0].numpy(), np.flip(sample.image[0], axes))
                seen.add(axes)
    assert len(seen) == 8


def test_a_third_of_the_patches_lie_about_a_class_and_each_class_comes_as_often():
    size = (30, 30, 30)
    ids = np.zeros(size, np.uint8)
    ids[3:5, 3:5, 3:5], ids[15:26, 15:26, 15:26] = 1, 2
    sample = Sample(np.zeros((1, *size), np.float32), ids, "two", places=places_of(ids, {0}))
    always = AugmentVolume((7, 7, 7), **{**NOTHING, "foreground": 1.0})
    middles = [
        ids[tuple(s + 3 for s in always.place(sample))] for _ in range(400)
    ]  # the voxel that it lies about, away from the ends
    assert 0.4 < np.mean(np.array(middles) == 1) < 0.6
    assert set(middles) == {1, 2}
    some = AugmentVolume((7, 7, 7), **{**NOTHING, "foreground": 0.33})
    shown = np.mean([ids[tuple(s + 3 for s in some.place(sample))] == 1 for _ in range(600)])
    assert 0.11 < shown < 0.23  # half of a third, and a little by chance


def test_turning_keeps_angles_in_millimetres():
    augment = AugmentVolume((8, 8, 8), spacing=(4.0, 1.0, 1.0), **{**NOTHING, "rotation": 1.0})
    matrix = augment._matrix().double().numpy()
    to_mm = np.diag([4.0, 1.0, 1.0])
    turn = to_mm @ matrix @ np.linalg.inv(to_mm)
    np.testing.assert_allclose(turn @ turn.T, np.eye(3), atol=1e-5)
    assert abs(turn - np.eye(3)).max() > 0.01
    flat = AugmentVolume((8, 8, 8), in_plane=True, **{**NOTHING, "rotation": 1.0, "scaling": 1.0})._matrix()
    np.testing.assert_allclose(flat[0], [1, 0, 0])
    np.testing.assert_allclose(flat[:, 0], [1, 0, 0])


def test_bending_moves_by_about_what_was_asked_for():
    augment = AugmentVolume((20, 22, 24), **{**NOTHING, "elastic": 1.0, "elastic_voxels": 2.0})
    shifts = torch.stack([augment._bend() for _ in range(30)])
    assert shifts.shape == (30, 3, 20, 22, 24)
    corners = shifts[:, :, ::19, ::21, ::23]  # where points of the grid lie
    assert 1.7 < float(corners.std()) < 2.3
    still = AugmentVolume((20, 22, 24), in_plane=True, **{**NOTHING, "elastic": 1.0})._bend()
    assert not still[0].any()


def test_gamma_keeps_mean_and_deviation_and_order():
    image = torch.randn(2, 6, 7, 8) * torch.tensor([1.0, 5.0])[:, None, None, None] + 3
    bent = gamma(image, 1.4)
    for channel, was in zip(bent, image, strict=True):
        assert float(channel.mean()) == pytest.approx(float(was.mean()), abs=1e-4)
        assert float(channel.std()) == pytest.approx(float(was.std()), rel=1e-4)
        assert torch.equal(channel.flatten().argsort(), was.flatten().argsort())
    low, span = image[0].min(), image[0].max() - image[0].min()
    plain = ((image[0] - low) / span) ** 1.4
    expected = (plain - plain.mean()) / plain.std() * image[0].std() + image[0].mean()
    torch.testing.assert_close(bent[0], expected)


@pytest.mark.parametrize(
    "name", ["noise", "brightness", "contrast", "low_resolution", "gamma", "gamma_inverted"]
)
def test_intensities_change_and_labels_do_not(name):
    sample = sample_of()
    given = AugmentVolume((14, 18, 16), **{**NOTHING, name: 1.0, "mirror": ()})
    changed = [given(sample) for _ in range(4)]  # low resolution passes half of the channels over
    assert any(not np.array_equal(one["image"][0].numpy(), sample.image[0]) for one in changed)
    for one in changed:
        np.testing.assert_array_equal(one["mask"].numpy(), sample.mask)
        assert one["image"].shape == (1, 14, 18, 16)
        if name in ("contrast", "low_resolution"):
            assert sample.image.min() - 1e-3 <= float(one["image"].min())
            assert float(one["image"].max()) <= sample.image.max() + 1e-3


def test_what_comes_out_follows_from_the_seed_alone():
    augment, sample = AugmentVolume((9, 8, 10), elastic=0.5), sample_of()
    first = []
    for _ in range(2):
        torch.manual_seed(7)
        first.append([augment(sample) for _ in range(5)])
    for one, other in zip(*first, strict=True):
        assert torch.equal(one["image"], other["image"])
        assert torch.equal(one["mask"], other["mask"])


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"patch": (0, 4, 4)}, "at least 1 voxel"),
        ({"rotation": 2.0}, "chance in"),
        ({"scale": (1.4, 0.7)}, "low, high"),
        ({"mirror": (3,)}, "mirror names axes"),
        ({"label_interpolation": "cubic"}, "one of linear, nearest"),
    ],
)
def test_values_out_of_range_are_refused(options, words):
    with pytest.raises(InputError, match=words):
        AugmentVolume(**{"patch": (4, 4, 4), **options})


def test_what_is_made_ready_is_what_segmenting_sees():
    values, ids = drawn(0)
    wanted = VolumePreprocess(
        (Normalise("zscore"),), spacing=(1.0, 1.5, 0.8), orientation="RAS", patch=(8, 8, 8)
    )
    from pixelwise.geometry import affine_of

    geometry = Geometry.of(affine_of("LPS", (1.0, 1.0, 1.0)))
    fit = fitting(ids.shape, geometry, wanted, "drawn")
    image = normalised(values[None], fit, wanted)
    assert image.shape == (1, 14, 12, 20)
    assert abs(float(image.mean())) < 0.05
    mask = resampled(np.ascontiguousarray(fit.turn(ids)), fit.shown)
    shares = [
        ndimage.zoom((fit.turn(ids) == c).astype(float), np.array(fit.shown) / ids.shape, order=1, grid_mode=True,
                     mode="nearest")
        for c in range(3)
    ]  # fmt: skip
    clear = np.sort(shares, axis=0)[-1] - np.sort(shares, axis=0)[-2] > 1e-3
    np.testing.assert_array_equal(mask[clear], np.argmax(shares, axis=0)[clear])


def test_every_head_learns_and_the_deeper_ones_count_less():
    torch.manual_seed(0)
    network = create_model(
        "nonewnet_softmax", num_classes=3, in_channels=1, width=4, levels=2, deep_supervision=True
    )
    config = TrainConfig(steps=1, aux_weight=0.5, aux_decay=0.5)
    batch = {"image": torch.randn(2, 1, 16, 32, 16), "mask": torch.randint(0, 3, (2, 16, 32, 16))}
    parts = make_loss(config)(network, batch)
    sum(parts.values()).backward()
    parts = {name: value.detach() for name, value in parts.items()}
    for heads in network.heads:
        for head in heads:
            assert head.weight.grad.abs().max() > 0
    with torch.no_grad():
        logits = network(batch["image"])
    plain = torch.nn.functional.cross_entropy(logits["aux1"], batch["mask"])
    assert float(parts["aux1 cross_entropy"]) == pytest.approx(0.5 * float(plain), rel=1e-4)
    deeper = make_loss(config.replace(aux_decay=0.25))
    three = {"out": logits["out"], "aux1": logits["aux1"], "aux2": logits["aux1"], "aux3": logits["aux1"]}
    weighed = deeper(lambda image: three, batch)
    ratios = [float(weighed[f"aux{i} dice"] / weighed["aux1 dice"]) for i in (2, 3)]
    assert ratios == pytest.approx([0.25, 0.0625])

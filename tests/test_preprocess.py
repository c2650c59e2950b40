"""Preprocess against torchvision's transforms, and its sizes against their definition."""

from __future__ import annotations

import json
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from torchvision.transforms import functional as tv

from pixelwise import kernels  # noqa: F401  # numba is there
from pixelwise.errors import InputError
from pixelwise.inference.preprocess import IMAGENET_MEAN, IMAGENET_STD, Preprocess, normalize


@pytest.mark.parametrize("size_hw", [(60, 90), (333, 250), (520, 520), (700, 301)])
def test_equal_to_torchvisions_pil_path(size_hw):
    image = np.random.default_rng(0).integers(0, 256, (*size_hw, 3), dtype=np.uint8)
    resized = tv.resize(Image.fromarray(image), [520])
    expected = tv.normalize(tv.pil_to_tensor(resized).float().div(255), IMAGENET_MEAN, IMAGENET_STD)
    np.testing.assert_array_equal(Preprocess(size=520)(image)[0], expected.numpy())


def test_compiled_and_plain_normalisation_give_the_same_bits(monkeypatch):
    image = np.random.default_rng(0).integers(0, 256, (67, 91, 3), dtype=np.uint8)
    mean, std = (0.3, 0.45, 0.6), (0.2, 0.25, 0.3)
    assert "numba" in sys.modules
    compiled = [normalize(one, mean, std) for one in (image, image[::-1, ::2])]
    monkeypatch.delitem(sys.modules, "numba")
    for one, found in zip((image, image[::-1, ::2]), compiled, strict=True):
        np.testing.assert_array_equal(found, normalize(one, mean, std))
        np.testing.assert_allclose(found[0, 1], (one[..., 1] / 255 - 0.45) / 0.25, rtol=1e-5, atol=1e-6)


@given(st.integers(1, 3000), st.integers(1, 3000))
def test_the_shorter_or_longer_side_becomes_the_size(height, width):
    assert min(Preprocess(size=100).size_hw(height, width)) <= 100
    assert (100 in Preprocess(size=100).size_hw(height, width)) is True
    longer = Preprocess(size=100, side="longer").size_hw(height, width)
    assert max(longer) == 100
    assert longer[0] <= longer[1] if height <= width else longer[0] >= longer[1]


@given(st.integers(1, 3000), st.integers(1, 3000))
def test_sides_become_a_multiple_plus_the_offset(height, width):
    rule = Preprocess(size=513, side="longer", multiple=16, offset=1)
    h, w = rule.size_hw(height, width)
    assert max(h, w) == 513
    assert h % 16 == w % 16 == 1
    plain = Preprocess(multiple=32).size_hw(height, width)
    assert all(side % 32 == 0 and side >= 32 for side in plain)
    assert all(
        abs(side - given) <= 16 for side, given in zip(plain, (height, width), strict=True) if given > 16
    )


def test_a_pair_is_the_height_and_width_of_every_picture_and_travels_in_cards(picture):
    rule = Preprocess(size=(40, 72))
    resized = tv.resize(Image.fromarray(picture), [40, 72])
    expected = tv.normalize(tv.pil_to_tensor(resized).float().div(255), IMAGENET_MEAN, IMAGENET_STD)
    np.testing.assert_array_equal(rule(picture)[0], expected.numpy())
    assert {rule.size_hw(*size_hw) for size_hw in ((1, 1), (40, 72), (3000, 20))} == {(40, 72)}
    assert Preprocess.from_dict(json.loads(json.dumps(rule.to_dict()))) == rule
    for size in ((40,), (40, 0), (), (1, 2, 3)):
        with pytest.raises(InputError, match="height, width"):
            Preprocess(size=size)


def test_a_picture_left_as_it_is_is_only_normalised(picture):
    out = Preprocess(mean=(0.5, 0.5, 0.5), std=(0.25, 0.5, 1.0))(picture)
    expected = (picture / 255 - 0.5) / (0.25, 0.5, 1.0)
    np.testing.assert_allclose(out[0].transpose(1, 2, 0), expected, atol=1e-6)
    assert out.dtype == np.float32
    assert out.flags.c_contiguous


@pytest.mark.parametrize("channels", [1, 2, 5])
def test_any_number_of_channels_is_normalised_in_float32(channels):
    rng = np.random.default_rng(0)
    mean, std = rng.uniform(0.2, 0.6, (2, channels)).astype(np.float32)
    whole = rng.integers(0, 256, (7, 9, channels), dtype=np.uint8)
    shown = whole.astype(np.float32) / np.float32(255)
    expected = ((shown - mean) / std).transpose(2, 0, 1)[None]
    for image in (whole, shown):
        out = normalize(image, mean.tolist(), std.tolist())
        np.testing.assert_array_equal(out, expected)
        assert out.dtype == np.float32
        assert out.flags.c_contiguous


@pytest.mark.parametrize(
    "wrong",
    [{"size": 0}, {"side": "wider"}, {"multiple": 0}, {"multiple": 16, "offset": 16}, {"std": (0, 1, 1)}],
)
def test_rules_that_make_no_sense(wrong):
    with pytest.raises(InputError):
        Preprocess(**wrong)


def test_a_rule_survives_json_values():
    rule = Preprocess(size=513, side="longer", multiple=16, offset=1)
    assert Preprocess.from_dict(rule.to_dict()) == rule

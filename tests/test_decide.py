"""decide is argmax over bilinear interpolation: checked against torch's interpolation in float64."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from pixelwise import kernels
from pixelwise.errors import InputError
from pixelwise.exponential import exp_of_negative
from pixelwise.inference import decide as module
from pixelwise.inference.decide import decide

PATHS = ("numpy", "numba", "torch")


def run(path: str, logits: np.ndarray, size_hw, align_corners, confidence=False):
    """One of the three implementations, whatever `decide` would have picked."""
    if path == "torch":
        labels, p = module._with_torch(torch.from_numpy(logits), size_hw, align_corners, confidence)
        return labels.numpy(), None if p is None else p.numpy()
    previous, module._numba_pays = module._numba_pays, lambda pixels: path == "numba"
    try:
        return decide(logits, size_hw, align_corners=align_corners, confidence=confidence)
    finally:
        module._numba_pays = previous


def definition(logits: np.ndarray, size_hw, align_corners):
    """Labels, winning probability and the margin between the two best, by building the full logits."""
    full = F.interpolate(
        torch.from_numpy(logits)[None].double(), size=size_hw, mode="bilinear", align_corners=align_corners
    )[0]
    best = full.topk(min(2, len(full)), dim=0).values
    return full.argmax(0).numpy(), full.softmax(0).amax(0).numpy(), (best[0] - best[-1]).numpy()


def blobs(rng: np.random.Generator, k: int, h: int, w: int) -> np.ndarray:
    """Smooth logits, as networks make them: large areas where one class wins."""
    small = torch.from_numpy(rng.normal(size=(1, k, max(1, h // 6), max(1, w // 6))))
    return (F.interpolate(small, size=(h, w), mode="bicubic")[0] * 8).float().numpy()


side = st.integers(1, 24)


@settings(max_examples=150, deadline=None)
@given(
    k=st.sampled_from([2, 3, 7, 21, 150, 1000]),
    coarse_hw=st.tuples(side, side),
    size_hw=st.tuples(st.integers(1, 70), st.integers(1, 70)),
    align_corners=st.booleans(),
    smooth=st.booleans(),
    seed=st.integers(0, 2**32 - 1),
    path=st.sampled_from(PATHS),
)
def test_labels_are_argmax_of_bilinear_interpolation(
    k, coarse_hw, size_hw, align_corners, smooth, seed, path
):
    rng = np.random.default_rng(seed)
    logits = blobs(rng, k, *coarse_hw) if smooth else rng.normal(size=(k, *coarse_hw)).astype(np.float32)
    expected, _, margin = definition(logits, size_hw, align_corners)
    labels, none = run(path, logits, size_hw, align_corners)
    assert none is None
    assert labels.dtype == np.min_scalar_type(k - 1)
    assert (labels == expected)[margin > 1e-4].all()


@settings(max_examples=60, deadline=None)
@given(
    k=st.sampled_from([2, 21, 300]),
    coarse_hw=st.tuples(side, side),
    size_hw=st.tuples(st.integers(1, 50), st.integers(1, 50)),
    align_corners=st.booleans(),
    seed=st.integers(0, 2**32 - 1),
    path=st.sampled_from(PATHS),
)
def test_confidence_is_the_winners_softmax_probability(k, coarse_hw, size_hw, align_corners, seed, path):
    logits = (3 * np.random.default_rng(seed).normal(size=(k, *coarse_hw))).astype(np.float32)
    expected, probability, margin = definition(logits, size_hw, align_corners)
    labels, confidence = run(path, logits, size_hw, align_corners, confidence=True)
    assert (labels == expected)[margin > 1e-4].all()
    np.testing.assert_allclose(confidence, probability, atol=2e-5)


@settings(max_examples=60, deadline=None)
@given(
    k=st.sampled_from([1, 2, 21, 300]),
    coarse_hw=st.tuples(side, side),
    size_hw=st.tuples(st.integers(1, 50), st.integers(1, 50)),
    align_corners=st.booleans(),
    scale=st.sampled_from([0.01, 3, 100]),
    seed=st.integers(0, 2**32 - 1),
)
def test_the_two_ways_on_a_cpu_agree_to_the_last_bit(k, coarse_hw, size_hw, align_corners, scale, seed):
    """Which one answers depends on what the process did before; the answer must not."""
    logits = (scale * np.random.default_rng(seed).normal(size=(k, *coarse_hw))).astype(np.float32)
    labels, confidence = run("numpy", logits, size_hw, align_corners, confidence=True)
    again, also = run("numba", logits, size_hw, align_corners, confidence=True)
    np.testing.assert_array_equal(labels, again)
    np.testing.assert_array_equal(confidence.view(np.uint32), also.view(np.uint32))
    np.testing.assert_array_equal(labels, run("numpy", logits, size_hw, align_corners)[0])
    np.testing.assert_array_equal(labels, run("numba", logits, size_hw, align_corners)[0])


@pytest.mark.parametrize("where", ["numpy", "numba"])
def test_the_exponential_is_right_to_the_seventh_digit(where):
    x = -np.concatenate([np.linspace(0, 86, 20_001), np.geomspace(1e-38, 1, 2_000), [0]]).astype(np.float32)
    loop = (
        exp_of_negative
        if where == "numpy"
        else lambda x: np.array([kernels.exp_of_negative(one) for one in x])
    )
    np.testing.assert_allclose(loop(x), np.exp(x.astype(np.float64)), rtol=1e-7)
    far = np.array([-103, -104, -200, -1e30, -np.inf], np.float32)
    np.testing.assert_allclose(loop(far), np.exp(far.astype(np.float64)), atol=1e-44)


@pytest.mark.parametrize("path", PATHS)
def test_equal_logits_give_the_lowest_class(path):
    assert not run(path, np.ones((5, 4, 4), np.float32), (9, 9), False)[0].any()


@pytest.mark.parametrize("path", PATHS)
def test_a_single_channel_is_foreground_where_its_logit_is_positive(path):
    logits = np.array([[[-2.0, 6.0]]], np.float32)
    labels, confidence = run(path, logits, (1, 4), True, confidence=True)
    value = np.linspace(-2, 6, 4)
    np.testing.assert_array_equal(labels[0], value > 0)
    np.testing.assert_allclose(confidence[0], 1 / (1 + np.exp(-np.abs(value))), atol=1e-6)


def test_a_batch_is_decided_picture_by_picture():
    logits = np.random.default_rng(0).normal(size=(3, 4, 5, 6)).astype(np.float32)
    labels, confidence = decide(logits, (20, 30), align_corners=False, confidence=True)
    for i in range(3):
        one, p = decide(logits[i], (20, 30), align_corners=False, confidence=True)
        np.testing.assert_array_equal(labels[i], one)
        np.testing.assert_array_equal(confidence[i], p)


def test_a_torch_tensor_gives_a_torch_tensor_also_in_half_precision():
    logits = torch.randn(2, 5, 7, 8, generator=torch.Generator().manual_seed(0)).bfloat16()
    labels, _ = decide(logits, (21, 24), align_corners=True)
    assert isinstance(labels, torch.Tensor)
    expected, _ = decide(logits.float().numpy(), (21, 24), align_corners=True)
    np.testing.assert_array_equal(labels.numpy(), expected)


def test_more_than_256_classes_need_16_bits():
    logits = np.zeros((300, 2, 2), np.float32)
    logits[299] = 1
    labels, _ = decide(logits, (3, 3), align_corners=False)
    assert labels.dtype == np.uint16
    assert (labels == 299).all()


@pytest.mark.parametrize("shape", [(5, 5), (1, 2, 3, 4, 5), (0, 4, 4)])
def test_wrong_shapes_are_refused(shape):
    with pytest.raises(InputError, match="decide"):
        decide(np.zeros(shape, np.float32), (4, 4), align_corners=False)


def test_numba_is_taken_once_it_pays(monkeypatch):
    """A cold start stays with NumPy; a process with much to do, or that has numba loaded, does not."""
    monkeypatch.setattr(module, "_decided_by_numpy", 0)
    monkeypatch.setattr(module, "sys", type("sys", (), {"modules": {}}))
    assert not module._numba_pays(200_000)
    assert module._numba_pays(module.NUMBA_PAYS_FROM_PIXELS)
    monkeypatch.setattr(module, "_decided_by_numpy", 0)
    monkeypatch.setattr(module, "sys", type("sys", (), {"modules": {"numba": 1}}))
    assert module._numba_pays(1)

"""The dense CRF: its lattice against a slow plain definition and exact sums, its labels against pydensecrf's.

`pydensecrf2` (the maintained wheel of pydensecrf) is the reference; without it those tests are skipped.
"""

from __future__ import annotations

import tracemalloc
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image
from skimage import data as photographs
from torch.nn import functional as F

from pixelwise import Segmenter, kernels
from pixelwise.errors import InputError, UnknownNameError
from pixelwise.inference import densecrf, permutohedral
from pixelwise.inference.crf import crf_refine, dense_crf, refined
from pixelwise.inference.lattice import Lattice, _softmax, codes
from pixelwise.inference.preprocess import IMAGENET_MEAN, IMAGENET_STD, normalize
from pixelwise.inference.terms import CRF, RESNET, VGG, bilateral_features, message_matrix, position_features
from tiny import write_colors_model

NORMALIZATIONS = ("symmetric", "after", "before", "none")


def photograph(height: int, width: int, name: str = "astronaut") -> NDArray[np.uint8]:
    image = Image.fromarray(getattr(photographs, name)()).resize((width, height), Image.Resampling.BILINEAR)
    return np.array(image)


def energies(k: int, *shape: int, seed: int = 0) -> NDArray[np.float32]:
    """Unary energies of smooth random probabilities, as networks give them."""
    coarse = torch.from_numpy(
        np.random.default_rng(seed).normal(size=(1, k, *(max(2, s // 12) for s in shape)))
    )
    mode = "bilinear" if len(shape) == 2 else "trilinear"
    smooth = F.interpolate(4 * coarse, size=shape, mode=mode, align_corners=False)[0]
    return -smooth.log_softmax(dim=0).float().numpy()


def padded(rows: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.pad(rows, ((0, 0), (0, -rows.shape[1] % 8)))


# ---------------------------------------------------------------------------------------------- the lattice


def slow_filter(features: NDArray[np.float32], rows: NDArray[np.float32]) -> NDArray[np.float64]:
    """The lattice by its definition, a dictionary of vertices, one point at a time, sums in float64.

    The simplex of a point comes from sorting its remainders rather than from counting ranks.
    """
    d = features.shape[1]
    scale = np.float32([(d + 1) * np.sqrt(2 / 3) / np.sqrt((i + 1) * (i + 2)) for i in range(d)])
    corners: list[list[tuple[tuple[int, ...], float]]] = []
    for f in features * scale:
        lifted = np.zeros(d + 1, np.float32)
        tail = np.float32(0)
        for i in range(d, 0, -1):
            lifted[i] = tail - np.float32(i) * f[i - 1]
            tail += f[i - 1]
        lifted[0] = tail
        zero = (np.rint(lifted * (np.float32(1) / np.float32(d + 1))) * (d + 1)).astype(np.int64)
        order = sorted(range(d + 1), key=lambda i: (-(lifted[i] - np.float32(zero[i])), i))
        off = zero.sum() // (d + 1)
        if off > 0:  # too high: those with the smallest remainders go down
            zero[order[d + 1 - off :]] -= d + 1
            order = order[d + 1 - off :] + order[: d + 1 - off]
        elif off < 0:
            zero[order[:-off]] += d + 1
            order = order[-off:] + order[:-off]
        rest = (lifted.astype(np.float64) - zero)[order] / (d + 1)  # descending, spans less than 1
        weights = [1 - rest[0] + rest[d]] + [rest[d - r] - rest[d - r + 1] for r in range(1, d + 1)]
        simplex = []
        for r in range(d + 1):
            key = zero.copy() + r
            key[order[d + 1 - r :]] -= d + 1
            simplex.append((tuple(key), weights[r]))
        corners.append(simplex)
    values: dict[tuple[int, ...], NDArray[np.float64]] = {}
    for simplex, row in zip(corners, rows.astype(np.float64), strict=True):
        for key, weight in simplex:
            values[key] = values.get(key, 0) + weight * row
    nothing = np.zeros(rows.shape[1])
    for j in range(d + 1):
        step = np.full(d + 1, -1)
        step[j] = d
        values = {
            key: value
            + 0.5 * (values.get(tuple(key + step), nothing) + values.get(tuple(key - step), nothing))
            for key, value in values.items()
        }
    return np.stack([sum(w * values[key] for key, w in simplex) for simplex in corners]) / (1 + 2.0**-d)


@pytest.mark.parametrize("d", [1, 2, 3, 5, 6, 12])
def test_the_filter_is_the_plain_definition_of_the_lattice(d):
    """Also in 12 dimensions, where the codes of vertices are a hash and no longer a number of mixed radix."""
    rng = np.random.default_rng(d)
    spread = 1.0 if d < 12 else 40.0
    features = (rng.normal(size=(300, d)) * spread).astype(np.float32)
    features[150:] = features[:150] + rng.normal(size=(150, d)).astype(np.float32) / 3
    rows = rng.random((300, 8), dtype=np.float32)
    expected = slow_filter(features, rows)
    np.testing.assert_allclose(
        Lattice.of(features).filter(rows), expected, rtol=2e-5, atol=1e-5 * expected.max()
    )


def test_the_filter_of_a_photograph_is_the_plain_definition_of_the_lattice():
    """Coordinates and colours are whole numbers, so that ties and equal points abound."""
    image = photograph(24, 30)
    rows = np.random.default_rng(0).random((720, 8), dtype=np.float32)
    for features in (bilateral_features(image, 8.0, 10.0), position_features((24, 30), 3.0)):
        expected = slow_filter(features, rows)
        np.testing.assert_allclose(Lattice.of(features).filter(rows), expected, rtol=2e-5)


def test_codes_are_exact_where_they_can_be_and_a_hash_beyond():
    image = codes(
        np.zeros(5), np.array([60, 60, 85, 85, 85])
    )  # a picture of 4000 pixels under DeepLab's presets
    assert image[0] == 1
    assert (image[1:] % image[:-1] == 0).all()
    assert (codes(np.full(20, -99), np.full(20, 99)) % 2 == 1).all()


def exact(features: NDArray[np.float32]) -> NDArray[np.float64]:
    """The kernel matrix (n, n) that the lattice approximates."""
    f = features.astype(np.float64)
    squared = ((f[:, None] - f[None]) ** 2).sum(axis=-1)
    return np.exp(-squared / 2)


@pytest.mark.parametrize(("term", "most", "mean"), [("smoothness", 0.04, 0.003), ("bilateral", 0.25, 0.012)])
def test_the_normalized_filter_is_near_the_exact_gaussian_sum(term, most, mean):
    """Differences of filtered probabilities, which lie in [0, 1], on a photograph.

    Position fills its plane, so that the lattice has all the vertices that the blur needs. In five dimensions
    most do not exist, and a pixel of a rare colour is filtered less than it should be.
    """
    image = photograph(32, 40)
    position = position_features((32, 40), 3.0)
    features = position if term == "smoothness" else bilateral_features(image, 10.0, 20.0)
    q = np.exp(-energies(3, 32, 40).reshape(3, -1).T)
    kernel = exact(features)
    expected = kernel @ q / kernel.sum(axis=1, keepdims=True)
    lattice = Lattice.of(features)
    difference = np.abs(lattice.filter(padded(q))[:, :3] / lattice.mass[:, None] - expected)
    assert difference.max() < most
    assert difference.mean() < mean


def exact_crf(unary: NDArray[np.float32], image: NDArray[np.uint8], crf: CRF) -> NDArray[np.float64]:
    """Mean field with exact sums over all pairs."""
    k, *shape = unary.shape
    u = unary.reshape(k, -1).T.astype(np.float64)
    terms = []
    for weight, features in (
        (crf.smoothness, position_features(shape, crf.smoothness_px)),
        (crf.bilateral, bilateral_features(image, crf.bilateral_px, crf.bilateral_color)),
    ):
        kernel = exact(features)
        n = kernel.sum(axis=1)
        kernel = kernel / np.sqrt(n[:, None] * n) if crf.normalization == "symmetric" else kernel / n[:, None]
        terms.append((weight, kernel))
    logits = -u
    for _ in range(crf.iterations):
        q = np.exp(logits - logits.max(axis=1, keepdims=True))
        q /= q.sum(axis=1, keepdims=True)
        logits = -u + sum(w * (kernel @ q) for w, kernel in terms)
    q = np.exp(logits - logits.max(axis=1, keepdims=True))
    return (q / q.sum(axis=1, keepdims=True)).T.reshape(unary.shape)


@pytest.mark.parametrize("normalization", ["symmetric", "after"])
def test_labels_agree_with_exact_sums_over_all_pairs(normalization):
    image = photograph(36, 44)
    unary = energies(4, 36, 44) + np.random.default_rng(1).gumbel(size=(4, 36, 44)).astype(np.float32)
    crf = CRF(4, 12, 15, 3, 2, 10, normalization)
    before = unary.argmin(axis=0)
    labels, expected = (
        p.argmax(axis=0) for p in (dense_crf(unary, image, crf), exact_crf(unary, image, crf))
    )
    assert (expected != before).mean() > 0.1  # the CRF has something to do
    assert (labels == expected).mean() > 0.985


# ---------------------------------------------------------------------------------------------- mean field


@pytest.mark.parametrize("k", [1, 2, 8, 21])
def test_softmax_is_softmax_and_exact_where_float32_ends(k):
    logits = np.random.default_rng(k).normal(size=(50, k)).astype(np.float32) * np.float32(20)
    logits[0, -1] = 200
    for row in logits:
        expected = torch.from_numpy(row).double().softmax(0).numpy()
        ours = row.copy()
        _softmax(ours)
        np.testing.assert_allclose(ours, expected, rtol=1e-5, atol=1e-37)


@settings(max_examples=25, deadline=None)
@given(
    k=st.sampled_from([1, 2, 5, 9]),
    shape=st.one_of(
        st.tuples(st.integers(1, 20), st.integers(1, 20)),
        st.tuples(st.integers(1, 6), st.integers(1, 9), st.integers(1, 9)),
    ),
    channels=st.integers(1, 4),
    normalization=st.sampled_from(NORMALIZATIONS),
    seed=st.integers(0, 2**32 - 1),
)
def test_probabilities_sum_to_one_and_follow_their_classes(k, shape, channels, normalization, seed):
    """Any shape, 2-D or 3-D, any number of channels; exchanging classes exchanges their probabilities."""
    rng = np.random.default_rng(seed)
    unary = rng.normal(size=(k, *shape)).astype(np.float32) * 3
    image = rng.integers(0, 256, (*shape, channels))
    crf = CRF(2, 5, 30, 2, 2, 3, normalization)
    q = dense_crf(unary, image, crf)
    assert q.shape == unary.shape
    assert q.dtype == np.float32
    np.testing.assert_allclose(q.sum(axis=0), 1, rtol=1e-5)
    order = rng.permutation(k)
    np.testing.assert_allclose(dense_crf(unary[order], image, crf), q[order], atol=1e-4)


def test_without_iterations_or_weights_it_is_the_softmax_of_the_unary_term():
    unary, image = energies(5, 20, 30), photograph(20, 30)
    expected = torch.from_numpy(-unary).softmax(dim=0).numpy()
    for crf in (CRF(iterations=0), CRF(bilateral=0, smoothness=0)):
        np.testing.assert_allclose(dense_crf(unary, image, crf), expected, atol=1e-6)


def test_labels_move_to_the_edge_of_the_picture():
    """The network's border lies 5 pixels beside the edge and is unsure of it; noise flips single pixels."""
    image = np.zeros((40, 60, 3), np.uint8)
    image[:, 30:] = 200
    logit = np.clip((np.arange(60) - 35) / 4, -2, 2) * np.ones((40, 1))
    logit[np.random.default_rng(0).random((40, 60)) < 0.03] *= -1
    labels = dense_crf(np.stack([logit, -logit]) / 2, image, CRF(bilateral=6, bilateral_px=30)).argmax(axis=0)
    np.testing.assert_array_equal(labels, np.broadcast_to(np.arange(60) >= 30, (40, 60)))


def test_a_vector_and_a_matrix_of_penalties_are_potts_with_other_numbers():
    """Potts penalises different labels by w: minus w on the diagonal, or w off it, is the same."""
    unary, image = energies(4, 30, 40), photograph(30, 40)
    expected = dense_crf(unary, image, CRF(4, 20, 10, 3, 2))
    for vector in (False, True):
        w = [(np.full(4, -v) if vector else v * (1 - np.eye(4))) for v in (4, 3)]
        np.testing.assert_allclose(dense_crf(unary, image, CRF(w[0], 20, 10, w[1], 2)), expected, atol=1e-4)


def test_impossible_classes_stay_impossible():
    unary, image = energies(3, 20, 30), photograph(20, 30)
    unary[1, :, :15] = np.inf
    q = dense_crf(unary, image)
    assert (q[1, :, :15] == 0).all()
    assert np.isfinite(q).all()


def test_the_number_of_threads_changes_nothing(monkeypatch):
    unary, image = energies(5, 60, 80), photograph(60, 80)
    expected = dense_crf(unary, image)
    monkeypatch.setattr(kernels, "threads", lambda: 1)
    np.testing.assert_array_equal(dense_crf(unary, image), expected)
    monkeypatch.setattr(kernels, "threads", lambda: 7)
    np.testing.assert_array_equal(dense_crf(unary, image), expected)


def test_a_volume_is_smoothed_along_all_three_axes():
    unary = np.full((2, 9, 9, 9), 1.0, np.float32)
    unary[0] = 0
    unary[:, 4, 4, 4] = 1, 0
    q = dense_crf(unary, np.zeros((9, 9, 9)), CRF(bilateral=0, smoothness=5, smoothness_px=(1, 2, 3)))
    assert (q.argmax(axis=0) == 0).all()


def test_standard_deviations_stand_in_the_order_of_the_axes():
    """A wide column spreads down, not aside."""
    features = position_features((6, 8), (2.0, 4.0))
    np.testing.assert_array_equal(features[1], (np.float32(0.25), 0))  # x first
    np.testing.assert_array_equal(features[8], (0, np.float32(0.5)))


def test_the_presets_are_those_of_the_papers_code():
    assert (VGG.bilateral, VGG.bilateral_px, VGG.bilateral_color) == (4, 49, 5)
    assert (VGG.smoothness, VGG.smoothness_px, VGG.normalization) == (3, 3, "after")
    assert (RESNET.bilateral, RESNET.bilateral_px, RESNET.bilateral_color) == (4, 67, 3)
    assert (RESNET.smoothness, RESNET.smoothness_px, RESNET.normalization) == (3, 1, "symmetric")
    assert VGG.iterations == RESNET.iterations == 10


def test_memory_grows_with_the_pixels_and_no_faster():
    peaks = []
    for height in (60, 120, 240):
        unary, image = energies(3, height, 100), np.tile(photograph(60, 100), (height // 60, 1, 1))
        tracemalloc.start()
        dense_crf(unary, image, CRF(iterations=1))
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert all(b < 2.1 * a for a, b in pairwise(peaks)), peaks
    assert peaks[-1] / 24000 < 700  # bytes a pixel


# ---------------------------------------------------------------------------------------------- tiles, coarse logits


def test_a_margin_that_sees_everything_changes_nothing():
    unary, image = energies(3, 40, 50), photograph(40, 50)
    whole = dense_crf(unary, image, CRF(bilateral_px=15))
    for tile, margin in ((64, 0), (17, 50)):
        np.testing.assert_array_equal(
            dense_crf(unary, image, CRF(bilateral_px=15), tile_px=tile, margin_px=margin), whole
        )


def test_tiles_with_the_default_margin_give_nearly_the_same_labels():
    unary, image = energies(5, 150, 180), photograph(150, 180)
    crf = CRF(bilateral_px=15)
    whole, tiled = (dense_crf(unary, image, crf, tile_px=tile).argmax(axis=0) for tile in (None, 64))
    assert (whole == tiled).mean() > 0.995


@pytest.mark.parametrize("align_corners", [False, True])
@pytest.mark.parametrize("k", [1, 3, 300])
def test_crf_refine_is_interpolation_then_the_crf(k, align_corners):
    logits, image = -energies(k, 12, 15), photograph(45, 57)
    if k == 1:
        logits = np.random.default_rng(0).normal(size=(1, 12, 15)).astype(np.float32)
    crf = CRF(bilateral_px=20)
    labels, confidence = crf_refine(logits, image, crf, align_corners=align_corners)
    both = np.concatenate([np.zeros_like(logits), logits]) if k == 1 else logits
    fine = F.interpolate(
        torch.from_numpy(both)[None], size=(45, 57), mode="bilinear", align_corners=align_corners
    )
    q = dense_crf(-fine[0].numpy(), image, crf)
    assert labels.dtype == np.min_scalar_type(max(k, 2) - 1)
    np.testing.assert_allclose(confidence, q.max(axis=0), atol=1e-4)
    best = np.sort(q, axis=0)[-2:]
    assert (labels == q.argmax(axis=0))[best[1] - best[0] > 1e-3].all()
    tiled, _ = crf_refine(logits, image, crf, align_corners=align_corners, tile_px=20, margin_px=60)
    np.testing.assert_array_equal(tiled, labels)


@pytest.mark.parametrize("kind", ["numpy", "torch"])
@pytest.mark.parametrize("k", [1, 3])
def test_a_refined_network_answers_what_crf_refine_gives(k, kind):
    image, crf = photograph(45, 57), CRF(bilateral_px=20)
    logits = np.random.default_rng(0).normal(size=(1, k, 12, 15)).astype(np.float32) * 3
    labels, confidence = crf_refine(logits[0], image, crf, align_corners=True)
    answer = torch.from_numpy(logits) if kind == "torch" else logits
    network = refined(lambda x: answer, crf, mean=IMAGENET_MEAN, std=IMAGENET_STD, align_corners=True)
    q = np.exp(np.asarray(network(normalize(image, IMAGENET_MEAN, IMAGENET_STD))))[0]
    assert q.shape == (max(k, 2), 45, 57)
    np.testing.assert_allclose(q.max(axis=0), confidence, atol=2e-3)
    assert (q.argmax(axis=0) == labels).mean() > 0.999


def test_a_segmenter_refines_whole_pictures_and_tiles(tmp_path):
    """A network of stride 2 cuts staircases into a slanted edge, and its answers are made unsure by noise."""
    segmenter = Segmenter(write_colors_model(tmp_path / "colors.onnx"))
    truth = np.add.outer(np.arange(96), 2 * np.arange(96)) // 96 % 2  # stripes: red, green
    noise = np.random.default_rng(0).integers(-70, 70, (96, 96, 1))
    picture = np.clip(np.eye(3)[truth] * 150 + 50 + noise, 0, 255).astype(np.uint8)
    crf = CRF(bilateral_px=20, bilateral_color=60)
    logits = segmenter.engine(segmenter.card.preprocess(picture))[0]
    expected, certain = crf_refine(logits, picture, crf, align_corners=False)
    whole = segmenter(picture, crf=crf, confidence=True)
    np.testing.assert_array_equal(whole.labels, expected)
    np.testing.assert_array_equal(whole.confidence, certain)
    assert segmenter(picture, crf=crf).confidence is None
    tiled = segmenter(picture, crf=crf, tile=64, overlap=0.5)
    assert (tiled.labels == whole.labels).mean() > 0.99
    plain = segmenter(picture)
    assert (plain.labels != truth + 1).sum() > 2 * (whole.labels != truth + 1).sum()
    for crf_ in ("vgg", "resnet"):
        assert segmenter(picture, crf=crf_, tile=64).labels.shape == truth.shape
    with pytest.raises(UnknownNameError, match="resnet"):
        segmenter(picture, crf="resnet50")


# ---------------------------------------------------------------------------------------------- pydensecrf


def both(picture, unary, add, iterations=10):
    """Probabilities of pydensecrf and of ours, set up by the same calls: add(crf, its module)."""
    theirs = pytest.importorskip("pydensecrf.densecrf", reason="pydensecrf2 is not installed")
    answers = []
    for module in (theirs, densecrf):
        crf = module.DenseCRF2D(picture.shape[1], picture.shape[0], len(unary))
        crf.setUnaryEnergy(unary.reshape(len(unary), -1))
        add(crf, module)
        answers.append(np.array(crf.inference(iterations)))
    return answers


@pytest.mark.parametrize("size_hw", [(60, 80), (53, 71)])
@pytest.mark.parametrize(
    "name", ["NORMALIZE_SYMMETRIC", "NORMALIZE_AFTER", "NORMALIZE_BEFORE", "NO_NORMALIZATION"]
)
def test_probabilities_are_pydensecrfs(name, size_hw):
    """Where the pixels are no multiple of four, pydensecrf fills up with points at the origin of the features;
    their vertices take part in the blur, so that a few pixels nearby and black ones differ."""
    picture, unary = photograph(*size_hw), energies(5, *size_hw)

    def add(crf, module):
        kind = getattr(module, name)
        crf.addPairwiseGaussian(sxy=3, compat=3, normalization=kind)
        crf.addPairwiseBilateral((20, 15), (13, 9, 11), picture, compat=10, normalization=kind)

    theirs, ours = both(picture, unary, add, iterations=5)
    if theirs.shape[1] % 4 == 0:
        np.testing.assert_allclose(ours, theirs, atol=2e-4)
    else:
        assert (np.abs(ours - theirs) > 2e-4).mean() < 0.02
    assert (ours.argmax(axis=0) == theirs.argmax(axis=0)).mean() > 0.999


@pytest.mark.parametrize("compat", [2.5, np.float32([-3, -1, -2, 0.5]), "matrix"])
def test_compatibilities_are_pydensecrfs(compat):
    picture, unary = photograph(40, 60), energies(4, 40, 60)
    if isinstance(compat, str):
        compat = np.random.default_rng(0).normal(size=(4, 4)).astype(np.float32)
    theirs, ours = both(picture, unary, lambda crf, _: crf.addPairwiseBilateral(15, 10, picture, compat), 4)
    np.testing.assert_allclose(ours, theirs, atol=1e-4)


def test_steps_and_kl_divergence_are_pydensecrfs():
    theirs = pytest.importorskip("pydensecrf.densecrf", reason="pydensecrf2 is not installed")
    picture, unary = photograph(30, 40), energies(3, 30, 40)
    divergences, answers = [], []
    for module in (theirs, densecrf):
        crf = module.DenseCRF2D(40, 30, 3)
        crf.setUnaryEnergy(unary.reshape(3, -1))
        crf.addPairwiseGaussian(3, 3)
        crf.addPairwiseBilateral(20, 13, picture, 5)
        q, one, two = crf.startInference()
        divergences.append([crf.klDivergence(q)])
        for _ in range(3):
            crf.stepInference(q, one, two)
            divergences[-1].append(crf.klDivergence(q))
        answers.append(np.array(q))
    np.testing.assert_allclose(answers[1], answers[0], atol=1e-4)
    np.testing.assert_allclose(divergences[1], divergences[0], rtol=1e-4)


def test_generic_features_in_three_dimensions_are_pydensecrfs():
    theirs = pytest.importorskip("pydensecrf.densecrf", reason="pydensecrf2 is not installed")
    shape = (6, 20, 24)
    unary = energies(3, *shape).reshape(3, -1)
    volume = np.random.default_rng(0).integers(0, 256, (*shape, 2)).astype(np.uint8)
    answers = []
    for module in (theirs, densecrf):
        crf = module.DenseCRF(np.prod(shape).item(), 3)
        crf.setUnaryEnergy(unary)
        crf.addPairwiseEnergy(densecrf.create_pairwise_gaussian((1, 3, 3), shape), 3)
        crf.addPairwiseEnergy(densecrf.create_pairwise_bilateral((2, 5, 5), (60, 70), volume, chdim=3), 4)
        answers.append(np.array(crf.inference(5)))
    np.testing.assert_allclose(answers[1], answers[0], atol=1e-4)


def test_helpers_are_pydensecrfs():
    utils = pytest.importorskip("pydensecrf.utils", reason="pydensecrf2 is not installed")
    rng = np.random.default_rng(0)
    sm = rng.dirichlet(np.ones(4) / 4, 300).T.reshape(4, 15, 20)
    labels = rng.integers(0, 5, (15, 20))
    image = rng.integers(0, 256, (15, 20, 3)).astype(np.uint8)
    for name, arguments in (
        ("unary_from_softmax", (sm,)),
        ("unary_from_softmax", (sm.astype(np.float32), 0.7)),
        ("unary_from_softmax", (sm, None, 1e-3)),
        ("unary_from_labels", (labels, 4, 0.6)),
        ("unary_from_labels", (labels, 5, 0.9, False)),
        ("create_pairwise_gaussian", ((2, 3), (15, 20))),
        ("create_pairwise_bilateral", ((2, 3), (5, 6, 7), image, 2)),
        ("create_pairwise_bilateral", ((2, 3), 5, np.moveaxis(image, -1, 0).copy(), 0)),
        ("create_pairwise_bilateral", ((2, 3), (9,), image[..., 0])),
    ):
        ours, theirs = getattr(densecrf, name)(*arguments), getattr(utils, name)(*arguments)
        assert ours.dtype == theirs.dtype == np.float32
        np.testing.assert_allclose(ours, theirs, rtol=1e-6, err_msg=name)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["astronaut", "coffee", "chelsea"])
@pytest.mark.parametrize("preset", [RESNET, VGG])
def test_labels_are_pydensecrfs_at_full_size(name, preset):
    """500 x 375 x 21, ten iterations, DeepLab's parameters, each preset under its own normalisation."""
    picture, unary = photograph(375, 500, name), energies(21, 375, 500)
    names = {"symmetric": "NORMALIZE_SYMMETRIC", "after": "NORMALIZE_AFTER"}

    def add(crf, module):
        kind = getattr(module, names[preset.normalization])
        crf.addPairwiseGaussian(preset.smoothness_px, preset.smoothness, normalization=kind)
        crf.addPairwiseBilateral(
            preset.bilateral_px, preset.bilateral_color, picture, preset.bilateral, normalization=kind
        )

    theirs, ours = both(picture, unary, add)
    assert (theirs.argmax(axis=0) == ours.argmax(axis=0)).mean() > 0.99999
    np.testing.assert_array_equal(ours.reshape(21, 375, 500), dense_crf(unary, picture, preset))


# ---------------------------------------------------------------------------------------------- torch


def test_the_torch_lattice_is_the_same_lattice():
    features = bilateral_features(photograph(40, 50), 20.0, 10.0)
    rows = np.random.default_rng(0).random((2000, 8), dtype=np.float32)
    expected, lattice = Lattice.of(features), permutohedral.Lattice.of(features, "cpu")
    assert lattice.neighbour.shape[-1] == len(expected.start) - 1
    ours = lattice.filter(torch.from_numpy(rows)).numpy()
    np.testing.assert_allclose(ours, expected.filter(rows), rtol=1e-5)


@pytest.mark.parametrize("normalization", NORMALIZATIONS)
def test_the_torch_mean_field_gives_the_same_probabilities(normalization):
    unary, image = energies(4, 30, 40), photograph(30, 40)
    crf = CRF(4, 20, 10, 3, 2, 5, normalization)
    terms = permutohedral.terms(torch.from_numpy(image), crf, 4)
    refined = permutohedral.mean_field(torch.from_numpy(-unary.reshape(4, -1).T), terms, 5)
    expected = dense_crf(unary, image, crf)
    np.testing.assert_allclose(refined.softmax(dim=1).T.reshape(unary.shape), expected, atol=1e-4)


def test_a_torch_tensor_gives_a_torch_tensor():
    unary, image = energies(4, 30, 40), photograph(30, 40)
    q = dense_crf(torch.from_numpy(unary), torch.from_numpy(image))
    assert isinstance(q, torch.Tensor)
    np.testing.assert_array_equal(q.numpy(), dense_crf(unary, image))


@pytest.mark.parametrize("normalization", NORMALIZATIONS)
def test_the_gradient_of_the_filter_is_its_transpose(normalization):
    features = np.random.default_rng(0).normal(size=(14, 3))
    lattice = permutohedral.Lattice.of(features, "cpu", normalization)
    matrix = lattice.filter(torch.eye(14, dtype=torch.float64))
    rows = torch.eye(14, dtype=torch.float64, requires_grad=True)
    (gradient,) = torch.autograd.grad((lattice.filter(rows) * torch.eye(14)).sum(), rows)
    torch.testing.assert_close(gradient, matrix.T)
    start = torch.randn(14, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    assert torch.autograd.gradcheck(lattice.filter, (start.requires_grad_(),))
    assert torch.autograd.gradgradcheck(lattice.filter, (start,))


def test_mean_field_has_the_gradients_of_numerical_differentiation():
    rng = np.random.default_rng(0)
    lattice = permutohedral.Lattice.of(rng.normal(size=(12, 3)), "cpu", "symmetric")
    logits = torch.from_numpy(rng.normal(size=(12, 3))).requires_grad_()
    matrix = torch.from_numpy(rng.normal(size=(3, 3))).requires_grad_()

    def refined(a, b):
        return permutohedral.mean_field(a, [(lattice, b)], 3)

    assert torch.autograd.gradcheck(refined, (logits, matrix))


def test_crf_as_rnn_starts_as_the_crf_and_learns():
    unary, image = energies(3, 24, 30), photograph(24, 30)
    crf = CRF(4, 12, 15, 3, 2, 3)
    layer = permutohedral.CRFasRNN(3, crf)
    logits = torch.from_numpy(-unary)[None].repeat(2, 1, 1, 1).requires_grad_()
    images = torch.from_numpy(image).permute(2, 0, 1)[None].repeat(2, 1, 1, 1)
    refined = layer(logits, images)
    np.testing.assert_allclose(
        refined[1].softmax(dim=0).detach().numpy(), dense_crf(unary, image, crf), atol=1e-4
    )
    target = torch.from_numpy(unary.argmax(axis=0))[None].repeat(2, 1, 1)
    optimizer = torch.optim.SGD(layer.parameters(), lr=1.0)
    losses = []
    for _ in range(3):
        loss = F.cross_entropy(layer(logits, images), target)
        losses.append(loss.item())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert losses[2] < losses[1] < losses[0]
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in layer.parameters())
    assert logits.grad is not None
    assert logits.grad.isfinite().all()
    assert (logits.grad.abs().sum(dim=1) > 0).float().mean() > 0.9  # nearly every pixel


# ---------------------------------------------------------------------------------------------- what is refused


def test_wrong_input_is_refused_in_a_sentence():
    unary, image = energies(3, 10, 12), photograph(10, 12)
    with pytest.raises(InputError, match="colours come last"):
        dense_crf(unary, np.moveaxis(image, -1, 0))
    with pytest.raises(InputError, match=r"\(k, h, w\)"):
        dense_crf(unary[0], image[0])
    with pytest.raises(InputError, match="NaN"):
        dense_crf(np.full_like(unary, np.nan), image)
    with pytest.raises(InputError, match="NaN"):
        dense_crf(unary, np.where(np.arange(12) == 3, np.nan, image[..., 0]))
    with pytest.raises(InputError, match="symmetric"):
        CRF(normalization="symetric")
    with pytest.raises(InputError, match="iterations"):
        CRF(iterations=-1)
    with pytest.raises(InputError, match="positive"):
        dense_crf(unary, image, CRF(bilateral_px=0))
    with pytest.raises(InputError, match="for each channel"):
        dense_crf(unary, image, CRF(bilateral_color=(1, 2)))
    with pytest.raises(InputError, match=r"vector \(3,\)"):
        message_matrix(np.ones(4), 3)
    with pytest.raises(InputError, match="tile_px"):
        dense_crf(unary, image, tile_px=0)
    with pytest.raises(InputError, match="crf_refine"):
        crf_refine(unary[0], image, align_corners=False)
    crf = densecrf.DenseCRF2D(12, 10, 3)
    with pytest.raises(InputError, match="setUnaryEnergy first"):
        crf.inference(1)
    with pytest.raises(InputError, match="reshape"):
        crf.setUnaryEnergy(unary)
    with pytest.raises(InputError, match="width first"):
        crf.addPairwiseBilateral(3, 3, np.moveaxis(image, 0, 1), 3)
    with pytest.raises(InputError, match="gt_prob"):
        densecrf.unary_from_labels(np.zeros(3, int), 2, 1.0)
    with pytest.raises(InputError, match=r"0 \.\. 2"):
        densecrf.unary_from_labels(np.full(3, 3), 3, 0.5, zero_unsure=False)
    with pytest.raises(InputError, match="above 0"):
        permutohedral.CRFasRNN(3, CRF(bilateral=0))

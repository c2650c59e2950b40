"""Borders: every score against its definition written out pixel by pixel, and against MONAI and scikit-image."""

from __future__ import annotations

import itertools
import math
import warnings

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pixelwise.errors import InputError
from pixelwise.metrics import BoundaryF, BoundaryIoU, ConfusionMatrix, SurfaceDistance, TrimapIoU
from pixelwise.metrics.boundary import edge

pytest.importorskip("scipy", reason="the metrics extra is not installed")

K = 3


@st.composite
def maps(draw, dims=None):
    """Prediction and target of up to 3 classes, the target with ignored pixels (255) in some cases."""
    shape = draw(st.sampled_from([(5, 6), (1, 4), (7, 3), (2, 3, 4), (3, 3, 3)]))
    if dims:
        shape = shape[:dims] if len(shape) >= dims else (*shape, 2)
    size = math.prod(shape)
    classes = draw(st.lists(st.integers(0, K - 1), min_size=1, max_size=K, unique=True))
    prediction = draw(st.lists(st.sampled_from(classes), min_size=size, max_size=size))
    values = st.sampled_from([*classes, *draw(st.sampled_from([(), (255,)]))])
    target = draw(st.lists(values, min_size=size, max_size=size))
    return np.array(prediction).reshape(shape), np.array(target).reshape(shape)


def masks(prediction, target, c):
    """The two masks of a class; what is ignored belongs to neither."""
    return (prediction == c) & (target != 255), target == c


def pixels(mask):
    return [tuple(int(i) for i in p) for p in np.argwhere(mask)]


def outside_of(mask):
    """Every pixel outside a mask, one row beyond the picture included."""
    return [
        p
        for p in itertools.product(*(range(-1, n + 1) for n in mask.shape))
        if not all(0 <= i < n for i, n in zip(p, mask.shape, strict=True)) or not mask[p]
    ]


def edge_of(mask):
    """The definition: pixels of the mask with a pixel of the outside at distance one."""
    outside = outside_of(mask)
    return [p for p in pixels(mask) if any(math.dist(p, q) == 1 for q in outside)]


def nearest(points, others, spacing):
    def distance(p, q):
        return math.hypot(*((a - b) * s for a, b, s in zip(p, q, spacing, strict=True)))

    return [min((distance(p, q) for q in others), default=math.inf) for p in points]


@settings(deadline=None)
@given(maps())
def test_an_edge_is_the_pixels_beside_the_outside(case):
    for c in range(K):
        mask = case[1] == c
        assert pixels(edge(mask)) == edge_of(mask)


@settings(deadline=None)
@given(maps(), st.sampled_from([None, 1, 2]))
def test_boundary_iou_is_its_definition(case, width):
    prediction, target = case
    d = width or max(1, round(0.02 * math.hypot(*target.shape)))
    expected = []
    for c in range(K):
        bands = []
        for mask in masks(prediction, target, c):
            outside = outside_of(mask)
            bands.append(
                {
                    p
                    for p in pixels(mask)
                    if min(max(abs(a - b) for a, b in zip(p, q, strict=True)) for q in outside) <= d
                }
            )
        union = bands[0] | bands[1]
        expected.append(len(bands[0] & bands[1]) / len(union) if union else math.nan)
    scores = BoundaryIoU(K, width_px=width, image_dims=target.ndim).update(prediction, target)
    np.testing.assert_allclose(scores.iou(), expected)
    np.testing.assert_allclose(scores.per_image().values, [expected])


@settings(deadline=None)
@given(maps(), st.sampled_from([None, 0, 1, 1.5]))
def test_boundary_f_is_its_definition(case, tolerance):
    prediction, target = case
    within = 0.0075 * math.hypot(*target.shape) if tolerance is None else tolerance
    expected = []
    for c in range(K):
        a, b = (edge_of(mask) for mask in masks(prediction, target, c))
        if not a and not b:
            expected.append(math.nan)
            continue
        ones = (1,) * target.ndim
        precision = sum(x <= within for x in nearest(a, b, ones)) / len(a) if a else 0
        recall = sum(x <= within for x in nearest(b, a, ones)) / len(b) if b else 0
        expected.append(2 * precision * recall / (precision + recall) if precision + recall else 0)
    scores = BoundaryF(K, tolerance_px=tolerance, image_dims=target.ndim).update(prediction, target)
    np.testing.assert_allclose(scores.f(), expected)
    np.testing.assert_allclose(scores.per_image().values, [expected])


@settings(deadline=None)
@given(maps())
def test_trimap_bands_are_their_definition(case):
    prediction, target = case
    widths = (1, 1.5, 2)
    scores = TrimapIoU(K, widths_px=widths, image_dims=target.ndim).update(prediction, target)
    everywhere = list(np.ndindex(target.shape))
    for width in widths:
        expected = np.zeros((K, K), int)
        for p in everywhere:
            distance = min((math.dist(p, q) for q in everywhere if target[q] != target[p]), default=math.inf)
            if distance <= width and target[p] != 255:
                expected[target[p], prediction[p]] += 1
        assert (scores.bands[width].matrix == expected).all()


@settings(deadline=None)
@given(maps(), st.sampled_from([(1, 1, 1), (0.5, 2, 3)]))
def test_surface_distances_are_their_definition(case, spacing):
    prediction, target = case
    size = spacing[-target.ndim :]
    expected = np.full((3, K), np.nan)
    for c in range(K):
        a, b = (edge_of(mask) for mask in masks(prediction, target, c))
        if a and b:
            there, back = nearest(a, b, size), nearest(b, a, size)
            expected[0, c] = max(there + back)
            expected[1, c] = max(np.percentile(there, 95), np.percentile(back, 95))
            expected[2, c] = np.mean(there + back)
        elif a or b:
            expected[:, c] = math.hypot(*((n - 1) * s for n, s in zip(target.shape, size, strict=True)))
    scores = SurfaceDistance(K, image_dims=target.ndim).update(prediction, target, spacing=size)
    found = [s.values[0] for s in (scores.hausdorff(), scores.hausdorff_95(), scores.average())]
    np.testing.assert_allclose(found, expected, atol=1e-12)


@settings(deadline=None)
@given(maps())
def test_what_is_predicted_on_ignored_pixels_changes_nothing(case):
    prediction, target = case
    other = np.where(target == 255, (prediction + 1) % K, prediction)
    dims = target.ndim
    for new, read in (
        (lambda: BoundaryIoU(K, image_dims=dims), lambda s: s.iou()),
        (lambda: BoundaryF(K, image_dims=dims), lambda s: s.f()),
        (lambda: SurfaceDistance(K, image_dims=dims), lambda s: s.hausdorff().values),
        (lambda: TrimapIoU(K, image_dims=dims), lambda s: s.bands[1].matrix),
    ):
        np.testing.assert_array_equal(
            read(new().update(prediction, target)), read(new().update(other, target))
        )


def test_a_perfect_answer_is_perfect_everywhere():
    target = np.kron(np.array([[0, 1], [2, 1]]), np.ones((9, 11), int))
    assert BoundaryIoU(4).update(target, target).mean_iou() == 1
    assert BoundaryF(4).update(target, target).mean_f() == 1
    np.testing.assert_array_equal(SurfaceDistance(4).update(target, target).average().mean, [0, 0, 0, np.nan])
    assert set(TrimapIoU(4).update(target, target).mean_iou().values()) == {1.0}


def test_a_missed_or_invented_structure_gets_the_worst_value():
    target = np.zeros((31, 41), int)
    target[10:20, 10:20] = 1
    missed = np.zeros_like(target)
    for prediction, truth in ((missed, target), (target, missed)):
        assert BoundaryIoU(3).update(prediction, truth).iou()[1] == 0
        assert BoundaryF(3).update(prediction, truth).f()[1] == 0
        distances = SurfaceDistance(3).update(prediction, truth, "a", spacing=(2, 0.5))
        for scores in (distances.hausdorff(), distances.hausdorff_95(), distances.average()):
            assert scores.values[0, 1] == math.hypot(30 * 2, 40 * 0.5)
            assert math.isnan(scores.values[0, 2])
    bad = np.zeros_like(target)
    bad[0, 0] = 1  # a bad answer is still no worse than none
    assert SurfaceDistance(3).update(bad, target).hausdorff().values[0, 1] < math.hypot(30, 40)


def test_boundary_iou_sees_at_a_large_object_what_iou_does_not():
    target = np.zeros((200, 200), int)
    target[20:180, 20:180] = 1
    prediction = np.zeros_like(target)
    prediction[24:176, 24:176] = 1
    assert ConfusionMatrix(2).update(prediction, target).iou()[1] == 152**2 / 160**2
    band = BoundaryIoU(2, width_px=6).update(prediction, target).iou()[1]
    true, given = 160**2 - 148**2, 152**2 - 140**2
    both = 152**2 - 148**2
    assert band == both / (true + given - both)


def test_images_of_a_batch_add_up_and_keep_their_names():
    draw = np.random.default_rng(0)
    target = np.kron(draw.integers(0, 3, (4, 3, 3)), np.ones((1, 5, 5), int))
    prediction = np.roll(target, 1, axis=2)
    names = list("abcd")
    for kind, read in (
        (BoundaryIoU, lambda s: s.per_image().values),
        (BoundaryF, lambda s: s.per_image().values),
        (SurfaceDistance, lambda s: s.average().values),
        (TrimapIoU, lambda s: s.bands[2].per_image("iou").values),
    ):
        whole = kind(K).update(torch.from_numpy(prediction), torch.from_numpy(target), names)
        halves = kind(K).merge(
            kind(K).update(prediction[:2], target[:2], names[:2]),
            *(kind(K).update(p, t, n) for p, t, n in zip(prediction[2:], target[2:], "cd", strict=True)),
        )
        np.testing.assert_array_equal(read(whole), read(halves))
        assert len(read(whole)) == 4
        assert whole._images.names == halves._images.names == names
    scores = SurfaceDistance(K).update(prediction, target)
    assert scores.hausdorff().names == ("0", "1", "2", "3")
    summed = BoundaryIoU(K).update(prediction, target)
    assert summed.iou()[0] != summed.per_image().mean[0]


def test_wrong_arguments_are_refused_in_words():
    zeros = np.zeros((4, 4), int)
    with pytest.raises(InputError, match="spacing must be 2 positive"):
        SurfaceDistance(2).update(zeros, zeros, spacing=(1, 1, 1))
    with pytest.raises(InputError, match="got 9 at"):
        BoundaryIoU(2).update(zeros, zeros + 9)
    with pytest.raises(InputError, match="width_px"):
        BoundaryIoU(2, width_px=0)
    with pytest.raises(InputError, match="tolerance_px"):
        BoundaryF(2, tolerance_px=-1)
    with pytest.raises(InputError, match="widths_px"):
        TrimapIoU(2, widths_px=[0])
    with pytest.raises(InputError, match="same arguments"):
        BoundaryIoU(2).merge(BoundaryIoU(2, width_px=3))


def one_hot(labels):
    return torch.from_numpy(np.stack([labels == c for c in range(K)])[None])


def monai_metrics():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # its imports, under newer versions of what it needs
        return pytest.importorskip("monai.metrics", reason="MONAI is a reference for surface distances")


@pytest.mark.parametrize(("shape", "spacing"), [((24, 31), (1.0, 1.0)), ((9, 12, 11), (2.0, 0.7, 0.7))])
def test_surface_distances_are_monais_where_both_structures_exist(shape, spacing):
    monai = monai_metrics()
    draw = np.random.default_rng(0)
    target = draw.integers(0, K, [-(-n // 4) for n in shape])
    for axis, n in enumerate(shape):
        target = target.repeat(4, axis=axis).take(range(n), axis=axis)
    prediction = np.where(draw.random(shape) < 0.05, draw.integers(0, K, shape), np.roll(target, 1, axis=0))
    ours = SurfaceDistance(K, image_dims=len(shape)).update(prediction, target, spacing=spacing)
    a, b = one_hot(prediction), one_hot(target)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = [
            monai.compute_hausdorff_distance(a, b, include_background=True, spacing=list(spacing)),
            monai.compute_hausdorff_distance(
                a, b, include_background=True, percentile=95, spacing=list(spacing)
            ),
            monai.compute_average_surface_distance(
                a, b, include_background=True, symmetric=True, spacing=list(spacing)
            ),
        ]
    for mine, other in zip((ours.hausdorff(), ours.hausdorff_95(), ours.average()), theirs, strict=True):
        np.testing.assert_allclose(mine.values, other.numpy(), rtol=1e-5)


@pytest.mark.parametrize(("percentile", "mean"), [(95, 1), (None, math.inf)])
def test_monai_drops_a_missed_structure_from_its_mean_percentile(percentile, mean):
    monai = monai_metrics()
    target = np.zeros((2, 32, 32), int)
    target[:, 4:12, 4:12] = 1
    near, missed = np.roll(target[0], 1, axis=0), np.zeros_like(target[0])
    metric = monai.HausdorffDistanceMetric(percentile=percentile, reduction="mean")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for prediction in (near, missed):
            metric(one_hot(prediction)[:, :2], one_hot(target[0])[:, :2])
        theirs = float(metric.aggregate())
    ours = SurfaceDistance(2).update(np.stack([near, missed]), target)
    assert theirs == mean  # 1: the image where nothing was found is as if it had never been
    for scores in (ours.hausdorff(), ours.hausdorff_95()):
        assert scores.mean[1] == pytest.approx((1 + math.hypot(31, 31)) / 2)


def test_hausdorff_is_scikit_images_between_edges():
    measure = pytest.importorskip("skimage.metrics", reason="scikit-image is a reference")
    draw = np.random.default_rng(3)
    prediction, target = draw.random((2, 20, 30)) < 0.3
    ours = SurfaceDistance(2).update(prediction, target).hausdorff().values[0, 1]
    assert ours == pytest.approx(measure.hausdorff_distance(edge(prediction), edge(target)))

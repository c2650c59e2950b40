"""Counts and scores: against slow definitions, scikit-learn, and where others differ."""

from __future__ import annotations

import math
import pickle
import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import pixelwise.kernels  # noqa: F401  (numba is loaded, so that its kernel counts here)
from pixelwise.errors import InputError, UnknownNameError
from pixelwise.labels import LabelSet
from pixelwise.metrics import ConfusionMatrix, ImageScores, confusion

TRUTH = np.array([[0, 0, 1, 1], [2, 2, 255, 1]], np.uint8)
ANSWER = np.array([[0, 1, 1, 1], [2, 0, 2, 0]], np.uint8)
INTEGERS = ("uint8", "int8", "uint16", "int16", "uint32", "int32", "uint64", "int64")


def counted(prediction, target, k, ignore):
    """The definition, one pixel at a time."""
    matrix = [[0] * k for _ in range(k)]
    for p, t in zip(prediction.ravel().tolist(), target.ravel().tolist(), strict=True):
        if t != ignore:
            matrix[t][p] += 1
    return matrix


@st.composite
def maps(draw, max_classes=6, max_images=1):
    """k, ignore_index, prediction, target (n, h, w) with absent classes and ignored pixels among them."""
    k = draw(st.integers(1, max_classes))
    ignore = draw(st.sampled_from([None, 255, -1, 0, k]))
    shape = (draw(st.integers(1, max_images)), draw(st.integers(1, 5)), draw(st.integers(1, 7)))
    size = math.prod(shape)
    pool = draw(st.lists(st.integers(0, k - 1), min_size=1, max_size=k, unique=True))
    truths = pool + ([ignore] if ignore is not None else [])
    target = draw(st.lists(st.sampled_from(truths), min_size=size, max_size=size))
    prediction = draw(st.lists(st.sampled_from(pool), min_size=size, max_size=size))
    return k, ignore, np.array(prediction).reshape(shape), np.array(target).reshape(shape)


def test_scores_are_read_from_the_counts():
    counts = ConfusionMatrix(4).update(ANSWER, TRUTH)
    assert counts.matrix.tolist() == [[1, 1, 0, 0], [1, 2, 0, 0], [1, 0, 1, 0], [0, 0, 0, 0]]
    assert counts.matrix.dtype == np.int64
    assert counts.pixel_accuracy() == 4 / 7
    np.testing.assert_allclose(counts.iou(), [1 / 4, 2 / 4, 1 / 2, np.nan])
    np.testing.assert_allclose(counts.dice(), [2 / 5, 4 / 6, 2 / 3, np.nan])
    np.testing.assert_allclose(counts.precision(), [1 / 3, 2 / 3, 1, np.nan])
    np.testing.assert_allclose(counts.recall(), [1 / 2, 2 / 3, 1 / 2, np.nan])
    assert counts.mean_iou() == pytest.approx((1 / 4 + 2 / 4 + 1 / 2) / 3)
    assert counts.mean_iou([1, 3]) == pytest.approx(1 / 2)
    assert counts.mean_accuracy() == pytest.approx((1 / 2 + 2 / 3 + 1 / 2) / 3)
    assert counts.frequency_weighted_iou() == pytest.approx((2 / 4 + 3 * 2 / 4 + 2 / 2) / 7)


def test_a_perfect_answer_scores_one_and_nothing_counted_is_nan():
    perfect = ConfusionMatrix(3).update(TRUTH[:, :2], TRUTH[:, :2])
    empty = ConfusionMatrix(3).update(ANSWER, np.full_like(TRUTH, 255))
    for name in ("pixel_accuracy", "mean_iou", "mean_accuracy", "frequency_weighted_iou", "kappa", "mcc"):
        assert getattr(perfect, name)() == pytest.approx(1), name
        assert math.isnan(getattr(empty, name)()), name


def test_an_invented_class_lowers_the_mean_iou_and_a_missed_one_the_precision():
    invented = ConfusionMatrix(4).update(np.array([0, 0, 3]), np.array([0, 0, 0]))
    np.testing.assert_allclose(invented.iou(), [2 / 3, np.nan, np.nan, 0])
    np.testing.assert_allclose(invented.precision(), [1, np.nan, np.nan, 0])
    np.testing.assert_allclose(invented.recall(), [2 / 3, np.nan, np.nan, np.nan])
    missed = ConfusionMatrix(4).update(np.array([0, 0, 0]), np.array([0, 0, 3]))
    np.testing.assert_allclose(missed.iou(), [2 / 3, np.nan, np.nan, 0])
    np.testing.assert_allclose(missed.precision(), [2 / 3, np.nan, np.nan, 0])


@settings(deadline=None)  # the first call of each pair of types compiles
@given(maps(), st.sampled_from(INTEGERS), st.sampled_from(INTEGERS))
def test_every_integer_type_is_counted_as_the_definition_says(case, of_answer, of_truth):
    k, ignore, prediction, target = case
    if ignore is not None and not np.iinfo(of_truth).min <= ignore <= np.iinfo(of_truth).max:
        of_truth = "int64"
    prediction, target = prediction.astype(of_answer), target.astype(of_truth)
    expected = counted(prediction, target, k, ignore)
    assert ConfusionMatrix(k, ignore).update(prediction, target).matrix.tolist() == expected
    tensors = torch.from_numpy(prediction), torch.from_numpy(target)
    assert ConfusionMatrix(k, ignore).update(*tensors).matrix.tolist() == expected
    flat = prediction.ravel().astype(np.int64), target.ravel().astype(np.int64)
    by_numpy = confusion._count_with_numpy(*flat, k, ignore, 1)
    assert (by_numpy == confusion._count(*flat, k, ignore, 1)).all()
    by_torch = confusion.count_with_torch(*tensors, k, ignore, 1)  # what a GPU runs
    assert (by_numpy == by_torch).all()
    if ignore != 0:
        assert by_numpy[0, :k, :k].tolist() == expected


@settings(deadline=None)
@given(
    st.lists(st.tuples(st.integers(-3, 9), st.integers(-3, 9)), min_size=1, max_size=40),
    st.sampled_from([None, 255, -1, 0, 5]),
    st.integers(1, 2),
)
def test_the_compiled_loop_numpy_and_torch_fill_equal_tables_strays_included(pairs, ignore, images):
    k = 4
    pairs = pairs * images
    expected = np.zeros((images, k + 2, k + 2), np.int64)
    for i, (t, p) in enumerate(pairs):
        row = t if 0 <= t < k else k if t == ignore else k + 1
        expected[i * images // len(pairs), row, p if 0 <= p < k else k] += 1
    truth, answer = np.array(pairs).T.copy()
    assert (confusion._count(answer, truth, k, ignore, images) == expected).all()
    assert (confusion._count_with_numpy(answer, truth, k, ignore, images) == expected).all()
    tensors = torch.from_numpy(answer), torch.from_numpy(truth)
    assert (confusion.count_with_torch(*tensors, k, ignore, images) == expected).all()


@pytest.mark.parametrize("k", [1, 2, 21, 150, 253, 254, 255, 256, 300])
def test_any_number_of_classes_in_maps_larger_than_a_block(k):
    draw = np.random.default_rng(k)
    target, prediction = draw.integers(0, k, (2, 3, 61, 97))
    target[:, :4] = 999
    target[:, 30:] = target[:, 30:, :1]  # runs of one class, as real maps have
    prediction[:, 30:] = target[:, 30:]
    found = ConfusionMatrix(k, 999).update(prediction.astype(np.uint16), target).matrix
    expected = np.zeros((k, k), np.int64)
    np.add.at(expected, (target[:, 4:].ravel(), prediction[:, 4:].ravel()), 1)
    assert (found == expected).all()


def test_large_maps_are_dealt_to_threads_without_losing_a_pixel():
    draw = np.random.default_rng(0)
    target, prediction = draw.integers(0, 21, (2, 3, 701, 811)).astype(np.uint8)
    expected = np.bincount(target.ravel().astype(np.int64) * 21 + prediction.ravel(), minlength=441)
    counts = ConfusionMatrix(21, None, image_dims=2).update(prediction, target)
    assert (counts.matrix.ravel() == expected).all()
    for i in range(3):
        alone = ConfusionMatrix(21, None).update(prediction[i], target[i])
        assert counts.per_image("mean_iou").values[i] == alone.mean_iou()


def test_boolean_masks_strided_views_and_volumes_count_alike():
    target = np.arange(4 * 6 * 8).reshape(4, 6, 8) % 3 == 0
    prediction = np.arange(4 * 6 * 8).reshape(4, 6, 8) % 2 == 0
    expected = counted(prediction.astype(int), target.astype(int), 2, 255)
    assert ConfusionMatrix(2).update(prediction, target).matrix.tolist() == expected
    wide = np.repeat(target, 2, axis=2)
    assert ConfusionMatrix(2).update(prediction, wide[:, :, ::2]).matrix.tolist() == expected
    mixed = ConfusionMatrix(2).update(
        torch.from_numpy(prediction).permute(2, 0, 1), target.transpose(2, 0, 1)
    )
    assert mixed.matrix.tolist() == expected
    big_endian = target.astype(">i4")
    assert ConfusionMatrix(2).update(prediction, big_endian).matrix.tolist() == expected


def test_an_ignore_index_may_be_a_class_or_none():
    target, prediction = np.array([0, 0, 1, 2]), np.array([0, 1, 1, 1])
    assert ConfusionMatrix(3, 0).update(prediction, target).matrix.tolist() == [[0] * 3, [0, 1, 0], [0, 1, 0]]
    with pytest.raises(InputError, match="got 255 at"):
        ConfusionMatrix(3, None).update(np.zeros(2, int), np.array([0, 255]))


@settings(deadline=None)
@given(maps(max_images=4))
def test_counts_of_pictures_add_up_to_the_counts_of_the_set(case):
    k, ignore, prediction, target = case
    whole = ConfusionMatrix(k, ignore, image_dims=2).update(prediction, target)
    parts = [
        ConfusionMatrix(k, ignore, image_dims=2).update(p, t) for p, t in zip(prediction, target, strict=True)
    ]
    merged = ConfusionMatrix(k, ignore, image_dims=2).merge(*parts)
    assert (whole.matrix == merged.matrix).all()
    for score in confusion.SCORES:
        np.testing.assert_array_equal(merged.per_image(score).values, whole.per_image(score).values)
        alone = [confusion.SCORES[score](confusion._sums(p.matrix)) for p in parts]
        np.testing.assert_array_equal(whole.per_image(score).values, alone)


def test_pixels_that_are_ignored_never_count_whatever_was_predicted_there():
    target = np.array([[0, 1, 255, 255]])
    a = ConfusionMatrix(2).update(np.array([[0, 1, 0, 1]]), target)
    b = ConfusionMatrix(2).update(np.array([[0, 1, 77, -3]]), target)
    assert (a.matrix == b.matrix).all()
    assert a.matrix.sum() == 2


@pytest.mark.parametrize(
    ("prediction", "target", "names", "words"),
    [
        ([[0, 3]], [[0, 0]], None, r"the prediction must hold class numbers 0 to 2; got 3 at \(0, 1\)"),
        (
            [[0, 0]],
            [[0, 7]],
            "a.png",
            r"the target of a.png must hold .* or 255 to ignore; got 7 at \(0, 1\)",
        ),
        ([[0, -1]], [[0, 0]], "a.png", r"the prediction of a.png .* got -1 at \(0, 1\)"),
        ([[[0]], [[0]]], [[[0]], [[9]]], ["a.png", "b.png"], r"of b.png .* got 9 at \(0, 0\)"),
        ([[0, 0]], [[0]], None, r"same size, got \(1, 2\) and \(1, 1\)"),
        ([[0.5]], [[0]], None, "integer class numbers, got float64"),
        ([[[0]]], [[[0]]], ["a.png", "b.png"], "one name an image"),
    ],
)
@pytest.mark.parametrize("kind", ["numpy", "torch", "cold"])
def test_impossible_input_is_refused_in_words_and_nothing_is_counted(
    prediction, target, names, words, kind, monkeypatch
):
    if kind == "cold":
        monkeypatch.setattr(confusion, "_numba_pays", lambda pixels: False)
    arrays = [np.array(prediction), np.array(target)]
    if kind == "torch":
        arrays = [torch.from_numpy(a) for a in arrays]
    counts = ConfusionMatrix(3)
    with pytest.raises(InputError, match=words):
        counts.update(*arrays, names)
    assert counts.matrix.sum() == 0


def test_a_batch_is_told_from_an_image_by_its_axes():
    flat = np.zeros((2, 3), int)
    counts = (
        ConfusionMatrix(2, image_dims=2).update(flat, flat, "a.png").update(flat[None], flat[None], ["b"])
    )
    assert counts.per_image().names == ("a.png", "b")
    assert ConfusionMatrix(2, image_dims=3).update(flat[None], flat[None]).names == ["0"]
    for names, array in ((["a"], flat), ("a", flat[None]), (None, flat[0]), (None, flat[None, None])):
        with pytest.raises(InputError, match=r"axes|name"):
            counts.update(array, array, names)
    with pytest.raises(InputError, match="image_dims=2"):
        ConfusionMatrix(2).per_image()
    with pytest.raises(InputError, match="same rule"):
        ConfusionMatrix(2).merge(ConfusionMatrix(3))
    with pytest.raises(UnknownNameError, match="mean_iou"):
        counts.per_image("miou")
    assert ConfusionMatrix(2, image_dims=2).update(flat[None][:0], flat[None][:0]).per_image().mean != 0


def test_classes_are_called_by_name():
    table = ConfusionMatrix(4).update(ANSWER, TRUTH).by_class(LabelSet.of(["sky", "road", "car", "dog"]))
    assert list(table) == ["sky", "road", "car", "dog"]
    assert table["road"] == {
        "iou": 2 / 4, "dice": 4 / 6, "precision": 2 / 3, "recall": 2 / 3, "true_pixels": 3, "given_pixels": 3,
    }  # fmt: skip
    assert math.isnan(table["dog"]["iou"])
    with pytest.raises(InputError, match="4 classes"):
        ConfusionMatrix(4).by_class(LabelSet.of(["sky"]))


def test_counts_travel_between_processes():
    counts = ConfusionMatrix(4, image_dims=2).update(ANSWER, TRUTH, "a.png")
    copy = pickle.loads(pickle.dumps(counts))
    total = ConfusionMatrix(4, image_dims=2).merge(counts, copy)
    assert (total.matrix == 2 * counts.matrix).all()
    assert total.names == ["a.png", "a.png"]


def test_the_mean_over_images_is_another_number_than_the_score_of_the_set():
    target = np.array([[[1, 1, 1, 1]], [[0, 0, 0, 1]]])
    prediction = np.array([[[1, 1, 1, 1]], [[0, 0, 0, 0]]])
    counts = ConfusionMatrix(2, image_dims=2).update(prediction, target, ["full", "speck"])
    of_images = counts.per_image("iou")
    np.testing.assert_allclose(of_images.values, [[np.nan, 1], [3 / 4, 0]])
    np.testing.assert_allclose(of_images.mean, [3 / 4, 1 / 2])
    np.testing.assert_allclose(of_images.quantile([0, 0.5, 1]), [[3 / 4, 0], [3 / 4, 1 / 2], [3 / 4, 1]])
    np.testing.assert_allclose(counts.iou(), [3 / 4, 4 / 5])
    scores = counts.per_image()
    assert scores.mean == (1 + 3 / 8) / 2
    assert scores.quantile(0.5) == (1 + 3 / 8) / 2
    assert scores.worst(1) == [("speck", 3 / 8)]
    assert scores.worst(1, largest=True) == [("full", 1.0)]
    with pytest.raises(InputError, match="one value an image"):
        of_images.worst()


def test_images_without_a_score_are_left_out_of_mean_quantiles_and_worst():
    scores = ImageScores(("a", "b", "c"), np.array([np.nan, 0.5, 0.25]))
    assert scores.mean == 0.375
    assert scores.quantile(1) == 0.5
    assert scores.worst() == [("c", 0.25), ("b", 0.5)]
    nothing = ImageScores(("a",), np.array([np.nan]))
    assert math.isnan(nothing.mean)
    assert math.isnan(nothing.quantile(0.5))


def noisy_images(n=40):
    draw = np.random.default_rng(1)
    target = draw.integers(0, 3, (n, 8, 8))
    wrong = draw.random((n, 8, 8)) < draw.random((n, 1, 1))
    return np.where(wrong, draw.integers(0, 3, target.shape), target), target


@pytest.mark.parametrize("score", ["pixel_accuracy", "mean_iou", "mcc"])
def test_an_interval_is_the_bootstrap_written_out(score):
    prediction, target = noisy_images()
    counts = ConfusionMatrix(3, image_dims=2).update(prediction, target)
    n, draw, values, means = len(target), np.random.default_rng(7), [], []
    each = [
        getattr(ConfusionMatrix(3).update(p, t), score)() for p, t in zip(prediction, target, strict=True)
    ]
    for _ in range(250):  # the same draws: multinomial counts of each image
        chosen = np.repeat(np.arange(n), draw.multinomial(n, np.full(n, 1 / n)))
        values.append(getattr(ConfusionMatrix(3).update(prediction[chosen], target[chosen]), score)())
        means.append(np.mean([each[i] for i in chosen]))
    found = counts.interval(score, confidence=0.9, resamples=250, seed=7)
    np.testing.assert_allclose(found, np.quantile(values, [0.05, 0.95]), atol=1e-12)
    found = counts.interval(score, confidence=0.9, resamples=250, seed=7, per_image=True)
    np.testing.assert_allclose(found, np.quantile(means, [0.05, 0.95]), atol=1e-12)


def test_intervals_hold_the_score_shrink_with_confidence_and_exist_per_class():
    counts = ConfusionMatrix(4, image_dims=2).update(*noisy_images())
    wide, narrow = counts.interval(confidence=0.99), counts.interval(confidence=0.5)
    assert wide.low < narrow.low < counts.mean_iou() < narrow.high < wide.high
    assert wide == counts.interval(confidence=0.99)
    classes = counts.interval("iou")
    assert (classes.low[:3] < counts.iou()[:3]).all()
    assert (counts.iou()[:3] < classes.high[:3]).all()
    assert np.isnan([classes.low[3], classes.high[3]]).all()
    with pytest.raises(InputError, match="confidence"):
        counts.interval(confidence=95)


@settings(deadline=None)
@given(maps())
def test_scores_are_scikit_learns(case):
    sk = pytest.importorskip("sklearn.metrics", reason="scikit-learn is the reference for scores")
    k, ignore, prediction, target = case
    counts = ConfusionMatrix(k, ignore).update(prediction, target)
    there = np.ones(target.shape, bool) if ignore is None else target != ignore
    t, p = target[there], prediction[there]
    if not t.size:
        assert math.isnan(counts.mean_iou())
        return
    labels = np.arange(k)
    either = np.union1d(t, p)
    if k > 1:
        assert (counts.matrix == sk.confusion_matrix(t, p, labels=labels)).all()
    for ours, theirs in (
        (counts.iou(), sk.jaccard_score),
        (counts.dice(), sk.f1_score),
        (counts.precision(), sk.precision_score),
    ):
        np.testing.assert_allclose(ours[either], theirs(t, p, labels=either, average=None, zero_division=0))
        assert np.isnan(np.delete(ours, either)).all()
    true = np.unique(t)
    np.testing.assert_allclose(counts.recall()[true], sk.recall_score(t, p, labels=true, average=None))
    assert np.isnan(np.delete(counts.recall(), true)).all()
    assert counts.pixel_accuracy() == pytest.approx(sk.accuracy_score(t, p))
    assert counts.mean_accuracy() == pytest.approx(
        sk.recall_score(t, p, labels=true, average="macro", zero_division=0)
    )
    assert counts.mean_iou() == pytest.approx(
        sk.jaccard_score(t, p, labels=either, average="macro", zero_division=0)
    )
    assert counts.frequency_weighted_iou() == pytest.approx(
        sk.jaccard_score(t, p, labels=either, average="weighted", zero_division=0)
    )
    if len(either) > 1:
        assert counts.kappa() == pytest.approx(sk.cohen_kappa_score(t, p, labels=either), abs=1e-12)
        assert counts.mcc() == pytest.approx(sk.matthews_corrcoef(t, p), abs=1e-12)
    else:  # nothing to tell apart: scikit-learn says 0 for MCC, which would lower a mean over images
        assert math.isnan(counts.kappa())
        assert math.isnan(counts.mcc())


def test_torchmetrics_counts_the_same_pixels():
    functional = pytest.importorskip("torchmetrics.functional", reason="torchmetrics is a reference")
    prediction, target = noisy_images()
    target[:, :2] = 255
    theirs = functional.classification.multiclass_confusion_matrix(
        torch.from_numpy(prediction), torch.from_numpy(target), 5, ignore_index=255
    )
    assert (ConfusionMatrix(5).update(prediction, target).matrix == theirs.numpy()).all()


def test_torchmetrics_gives_an_absent_class_zero_and_averages_images_where_we_count():
    tm = pytest.importorskip("torchmetrics", reason="torchmetrics is compared with")
    segmentation = pytest.importorskip("torchmetrics.segmentation")
    prediction = torch.tensor([[[1, 1, 1, 1]], [[0, 0, 0, 0]]])
    target = torch.tensor([[[1, 1, 1, 1]], [[0, 0, 0, 1]]])
    ours = ConfusionMatrix(2, image_dims=2).update(prediction, target)
    images = segmentation.MeanIoU(2, input_format="index")
    images.update(prediction, target)
    assert ours.mean_iou() == pytest.approx((3 / 4 + 4 / 5) / 2)
    cells = ours.per_image("iou").values
    assert float(images.compute()) == pytest.approx(np.nanmean(cells))  # a mean of images, not of counts
    absent = tm.JaccardIndex("multiclass", num_classes=3, average="none")(prediction, target)
    np.testing.assert_allclose(absent, [3 / 4, 4 / 5, 0])
    np.testing.assert_allclose(ConfusionMatrix(3).update(prediction, target).iou(), [3 / 4, 4 / 5, np.nan])


def test_smp_calls_21_classes_with_every_pixel_wrong_nine_tenths_right():
    smp = pytest.importorskip("segmentation_models_pytorch", reason="SMP is compared with")
    target = torch.zeros(1, 8, 8, dtype=torch.int64)
    prediction = torch.ones_like(target)
    stats = smp.metrics.get_stats(prediction, target, mode="multiclass", num_classes=21)
    assert float(smp.metrics.iou_score(*stats, reduction="macro")) == pytest.approx(19 / 21)
    assert ConfusionMatrix(21).update(prediction, target).mean_iou() == 0


def test_a_small_count_loads_neither_torch_nor_numba_nor_scipy():
    code = (
        "import sys, numpy as np; from pixelwise.metrics import ConfusionMatrix; "
        "a = np.zeros((90, 90), np.uint8); assert ConfusionMatrix(3).update(a, a).mean_iou() == 1; "
        "print([m for m in ('torch', 'numba', 'scipy') if m in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"

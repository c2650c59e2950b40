"""Scores by hand on small counts, and the promises about absent classes and ignored pixels."""

import numpy as np
import pytest

from pixelwise.errors import InputError
from pixelwise.metrics import ConfusionMatrix

TRUTH = np.array([[0, 0, 1, 1], [2, 2, 255, 1]], np.uint8)
ANSWER = np.array([[0, 1, 1, 1], [2, 0, 2, 0]], np.uint8)


def test_scores_are_read_from_the_counts():
    confusion = ConfusionMatrix(4).add(ANSWER, TRUTH)
    assert confusion.counts.tolist() == [[1, 1, 0, 0], [1, 2, 0, 0], [1, 0, 1, 0], [0, 0, 0, 0]]
    assert confusion.counts.dtype == np.int64
    assert confusion.pixel_accuracy() == 4 / 7
    np.testing.assert_allclose(confusion.iou(), [1 / 4, 2 / 4, 1 / 2, np.nan])
    np.testing.assert_allclose(confusion.dice(), [2 / 5, 4 / 6, 2 / 3, np.nan])
    assert confusion.mean_iou() == pytest.approx((1 / 4 + 2 / 4 + 1 / 2) / 3)
    assert confusion.mean_iou([1, 3]) == pytest.approx(1 / 2)


def test_a_perfect_answer_scores_one_and_nothing_counted_is_nan():
    confusion = ConfusionMatrix(3).add(TRUTH[:, :2], TRUTH[:, :2])
    assert confusion.pixel_accuracy() == 1
    assert confusion.mean_iou() == 1
    empty = ConfusionMatrix(3).add(ANSWER, np.full_like(TRUTH, 255))
    assert np.isnan([empty.pixel_accuracy(), empty.mean_iou()]).all()


def test_an_invented_class_lowers_the_mean():
    confusion = ConfusionMatrix(4).add(np.array([0, 0, 3]), np.array([0, 0, 0]))
    np.testing.assert_allclose(confusion.iou(), [2 / 3, np.nan, np.nan, 0])


def test_counts_of_pictures_add_up_to_the_counts_of_the_set():
    draw = np.random.default_rng(0)
    truth, answer = draw.integers(0, 21, (2, 6, 30, 20))
    whole = ConfusionMatrix(21).add(answer, truth)
    parts = sum(
        (ConfusionMatrix(21).add(a, t) for a, t in zip(answer, truth, strict=True)), ConfusionMatrix(21)
    )
    assert (whole.counts == parts.counts).all()


@pytest.mark.parametrize(
    ("answer", "truth", "words"),
    [
        ([3], [0], "predicted must hold"),
        ([0], [7], "target must hold"),
        ([-1], [0], "predicted"),
        ([0, 0], [0], "same size"),
    ],
)
def test_impossible_input_is_refused_in_words(answer, truth, words):
    with pytest.raises(InputError, match=words):
        ConfusionMatrix(3).add(np.array(answer), np.array(truth))

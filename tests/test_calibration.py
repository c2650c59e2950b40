"""Calibration: tables and curves against their definitions in exact fractions, and torchmetrics."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pixelwise.errors import InputError
from pixelwise.metrics import Calibration


@st.composite
def answers(draw):
    n = draw(st.integers(1, 30))
    floats = st.one_of(st.floats(0, 1, width=32), st.sampled_from([0.0, 0.25, 0.5, 1.0]))
    confidence = draw(st.lists(floats, min_size=n, max_size=n))
    prediction = draw(st.lists(st.integers(0, 2), min_size=n, max_size=n))
    target = draw(st.lists(st.sampled_from([0, 1, 2, 255]), min_size=n, max_size=n))
    return np.array(confidence, np.float32), np.array(prediction), np.array(target)


def in_bin(value, i, bins):
    """The definition, without rounding: (i/b, (i+1)/b], and 0 in the first."""
    exact = Fraction(float(value))
    return Fraction(i, bins) < exact <= Fraction(i + 1, bins) or (i == 0 and exact == 0)


@settings(deadline=None)
@given(answers(), st.sampled_from([1, 3, 4, 15]))
def test_table_and_error_are_their_definitions(case, bins):
    confidence, prediction, target = case
    found = Calibration(3, bins=bins).update(confidence, prediction, target)
    table, error, total = found.reliability(), 0.0, int((target != 255).sum())
    for i in range(bins):
        there = [
            (float(c), p == t)
            for c, p, t in zip(confidence, prediction, target, strict=True)
            if t != 255 and in_bin(c, i, bins)
        ]
        assert table["pixels"][i] == len(there)
        assert table["low"][i] == i / bins
        if not there:
            assert math.isnan(table["accuracy"][i])
            assert math.isnan(table["confidence"][i])
            continue
        mean, accuracy = (sum(column) / len(there) for column in zip(*there, strict=True))
        assert table["confidence"][i] == pytest.approx(mean)
        assert table["accuracy"][i] == pytest.approx(accuracy)
        error += len(there) / total * abs(mean - accuracy)
    if total:
        assert found.expected_error() == pytest.approx(error, abs=1e-12)
    else:
        assert math.isnan(found.expected_error())


@settings(deadline=None)
@given(answers())
def test_risk_and_coverage_are_exact_at_their_thresholds(case):
    confidence, prediction, target = case
    curve = Calibration(3, bins=4, levels_per_bin=5).update(confidence, prediction, target).risk_coverage()
    counted = target != 255
    assert len(curve["threshold"]) == 20
    for i, (threshold, coverage, risk) in enumerate(zip(*curve.values(), strict=True)):
        exact = Fraction(19 - i, 20)
        assert threshold == float(exact)
        above = counted & np.array([Fraction(float(c)) > exact or exact == 0 for c in confidence])
        if not counted.any():
            assert math.isnan(coverage)
        else:
            assert coverage == above.sum() / counted.sum()
        if above.any():
            assert risk == (prediction != target)[above].mean()
        else:
            assert math.isnan(risk)


def test_an_honest_answer_has_no_error_and_a_boaster_the_full_one():
    target = np.array([0, 0, 0, 1])
    assert Calibration(2).update(np.full(4, 0.75), np.zeros(4, int), target).expected_error() == 0
    assert Calibration(2).update(np.ones(4), 1 - target, target).expected_error() == 1


def test_counts_of_batches_add_up_and_tensors_count_alike():
    draw = np.random.default_rng(0)
    confidence, target = draw.random((4, 9, 9)).astype(np.float32), draw.integers(0, 3, (4, 9, 9))
    prediction = draw.integers(0, 3, (4, 9, 9))
    whole = Calibration(3).update(*(torch.from_numpy(a) for a in (confidence, prediction, target)))
    parts = Calibration(3).merge(
        *(Calibration(3).update(c, p, t) for c, p, t in zip(confidence, prediction, target, strict=True))
    )
    assert (whole.pixels == parts.pixels).all()
    assert whole.expected_error() == pytest.approx(parts.expected_error())
    halves = Calibration(3).update(
        torch.full((3,), 0.5, dtype=torch.bfloat16), np.zeros(3, int), np.zeros(3, int)
    )
    assert halves.reliability()["confidence"][7] == 0.5
    with pytest.raises(InputError, match="same arguments"):
        whole.merge(Calibration(3, bins=3))


@pytest.mark.parametrize("value", [-0.1, 1.1, float("nan")])
def test_a_confidence_that_is_none_is_refused(value):
    zeros = np.zeros(2, int)
    with pytest.raises(InputError, match=r"\[0, 1\]"):
        Calibration(2).update(np.array([0.5, value]), zeros, zeros)
    ignored = np.array([0, 255])
    assert Calibration(2).update(np.array([0.5, value]), zeros, ignored).pixels.sum() == 1
    with pytest.raises(InputError, match="size of target"):
        Calibration(2).update(np.array([0.5]), zeros, zeros)


def test_the_error_is_torchmetrics_but_on_the_edges_of_bins():
    functional = pytest.importorskip("torchmetrics.functional.classification", reason="a reference for ECE")
    draw = np.random.default_rng(0)
    probabilities = torch.from_numpy(draw.dirichlet([1, 1, 1], 500).astype(np.float32))
    target = torch.from_numpy(draw.integers(0, 3, 500))
    confidence, prediction = probabilities.max(dim=1)

    def theirs(p, t, bins):
        return float(functional.multiclass_calibration_error(p, t, p.shape[1], n_bins=bins, norm="l1"))

    ours = Calibration(3, bins=15).update(confidence, prediction, target)
    assert ours.expected_error() == pytest.approx(theirs(probabilities, target, 15), abs=1e-6)
    edge = torch.tensor([[0.5, 0.5], [0.75, 0.25]])  # 0.5 ends our bin of (0.25, 0.5] and begins theirs
    answer = torch.tensor([1, 0])
    ours = Calibration(2, bins=2).update(edge.amax(dim=1), torch.tensor([0, 0]), answer)
    assert ours.expected_error() == pytest.approx(0.5 * 0.5 + 0.5 * 0.25)
    assert theirs(edge, answer, 2) == pytest.approx(abs((0.5 + 0.75) / 2 - 0.5))


def test_the_area_under_risk_and_coverage_is_the_mean_risk_of_pixels_taken_one_by_one():
    """The definition: the risk among the surest i, averaged over i; what has one level of confidence is shuffled."""
    draw = np.random.default_rng(0)
    n = 20_000
    level = np.minimum(draw.geometric(0.1, n), 40)  # many pixels share a level, most the highest
    confidence = 1 - level / 64 / 15
    wrong = draw.random(n) < level / 50
    found = Calibration(2).update(confidence - 1e-5, wrong.astype(int), np.zeros(n, int))
    one_by_one = []
    for _ in range(20):
        order = np.lexsort((draw.random(n), -confidence))
        one_by_one.append((wrong[order].cumsum() / np.arange(1, n + 1)).mean())
    assert found.area_under_risk_coverage() == pytest.approx(np.mean(one_by_one), abs=1e-3)
    assert found.area_under_risk_coverage() < wrong.mean() - 0.03


def test_the_area_under_risk_and_coverage_in_closed_form():
    zeros, ones = np.zeros(8, int), np.ones(8, int)
    sure, doubtful = np.full(8, 0.9), np.full(8, 0.6)
    assert Calibration(2).update(sure, zeros, zeros).area_under_risk_coverage() == 0
    assert Calibration(2).update(sure, ones, zeros).area_under_risk_coverage() == 1
    assert Calibration(2).update(sure, np.arange(8) % 2, zeros).area_under_risk_coverage() == 0.5
    knows = Calibration(2).update(sure, zeros, zeros).update(doubtful, ones, zeros)
    assert knows.area_under_risk_coverage() == pytest.approx(0.5 - 0.5 * math.log(2))
    errs = Calibration(2).update(sure, ones, zeros).update(doubtful, zeros, zeros)
    assert errs.area_under_risk_coverage() == pytest.approx(0.5 + 0.5 * math.log(2))
    assert math.isnan(Calibration(2).area_under_risk_coverage())

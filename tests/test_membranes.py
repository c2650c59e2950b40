"""The errors of the ISBI challenge: pairs counted one by one, warpings tried one by one."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pixelwise.errors import InputError
from pixelwise.metrics import MembraneErrors, pixel_error, rand_error, warping_error
from pixelwise.metrics.membranes import simple_points, warped_difference

pytest.importorskip("scipy", reason="the metrics extra is not installed")


def cells(rows):
    """'#' is membrane."""
    return np.array([[c != "#" for c in row] for row in rows.split()])


def booleans(h, w):
    return st.lists(st.booleans(), min_size=h * w, max_size=h * w).map(lambda v: np.array(v).reshape(h, w))


def pieces(mask, through_corners):
    """(h, w) numbers of the connected pieces of a mask, 0 outside; and how many there are."""
    found, count = np.zeros(mask.shape, int), 0
    for start in zip(*np.nonzero(mask), strict=True):
        if found[start]:
            continue
        count += 1
        todo = [start]
        while todo:
            y, x = todo.pop()
            if found[y, x]:
                continue
            found[y, x] = count
            for dy, dx in itertools.product((-1, 0, 1), repeat=2):
                v, u = y + dy, x + dx
                inside = 0 <= v < mask.shape[0] and 0 <= u < mask.shape[1]
                if inside and mask[v, u] and (through_corners or dy * dx == 0):
                    todo.append((v, u))
    return found, count


@settings(deadline=None)
@given(booleans(4, 5), booleans(4, 5))
def test_the_rand_error_is_pairs_counted_one_by_one(prediction, target):
    given_cell, _ = pieces(prediction, False)
    true_cell, _ = pieces(target, False)
    both = given_pairs = true_pairs = 0
    for p, q in itertools.combinations(zip(*np.nonzero(target), strict=True), 2):
        in_given = given_cell[p] == given_cell[q] != 0
        in_true = true_cell[p] == true_cell[q]
        both += in_given and in_true
        given_pairs += in_given
        true_pairs += in_true
    if true_pairs == 0:
        assert math.isnan(rand_error(prediction, target))
    else:
        assert rand_error(prediction, target) == pytest.approx(1 - 2 * both / (given_pairs + true_pairs))


TRUTH = cells("....... ....... ####### ....... .......")
MERGED = cells("....... ....... ###.### ....... .......")


def test_one_missing_pixel_of_membrane_merges_two_cells():
    assert rand_error(TRUTH, TRUTH) == warping_error(TRUTH, TRUTH) == pixel_error(TRUTH, TRUTH) == 0
    pairs = 14 * 13 / 2
    assert rand_error(MERGED, TRUTH) == pytest.approx(1 - 2 * 2 * pairs / (28 * 27 / 2 + 2 * pairs))
    assert warping_error(MERGED, TRUTH) == 1 / 35
    assert pixel_error(MERGED, TRUTH) == 1 / 35


def test_a_membrane_that_only_moved_has_no_warping_error():
    moved = cells("....... ####### ....... ....... .......")
    assert warping_error(moved, TRUTH) == 0
    assert pixel_error(moved, TRUTH) == 14 / 35
    assert rand_error(moved, TRUTH) > 0


def test_scikit_image_makes_one_segment_of_the_membrane_that_covers_cells():
    measure = pytest.importorskip("skimage.metrics", reason="scikit-image is a reference")
    from scipy.ndimage import label

    draw = np.random.default_rng(0)
    target = draw.random((20, 30)) < 0.8
    covered = target & (draw.random((20, 30)) < 0.9)
    never_covers = target | (draw.random((20, 30)) < 0.05)
    theirs = [measure.adapted_rand_error(label(target)[0], label(p)[0])[0] for p in (never_covers, covered)]
    assert rand_error(never_covers, target) == pytest.approx(theirs[0])
    assert abs(rand_error(covered, target) - theirs[1]) > 1e-3
    nothing = np.zeros_like(target)  # every cell painted over: no cell was found
    truth = np.ones_like(target)
    assert measure.adapted_rand_error(label(truth)[0], label(nothing)[0])[0] == 0
    assert rand_error(nothing, truth) == 1


def test_a_point_is_simple_when_flipping_it_keeps_the_number_of_cells_and_of_membranes():
    around = [(0, 0), (0, 1), (0, 2), (1, 2), (2, 2), (2, 1), (2, 0), (1, 0)]
    for index in range(256):
        counts = []
        for middle in (True, False):
            patch = np.zeros((3, 3), bool)
            for i, place in enumerate(around):
                patch[place] = index >> i & 1
            patch[1, 1] = middle
            counts.append((pieces(patch, False)[1], pieces(~patch, True)[1]))
        assert simple_points()[index] == (counts[0] == counts[1]), index


def reachable(target, prediction):
    """The smallest difference that flips of simple points reach, in any order and by any detour."""
    h, w = target.shape
    start = tuple(target.ravel().tolist())
    seen, todo = {start}, [start]
    while todo:
        state = todo.pop()
        padded = np.pad(np.array(state).reshape(h, w), 1)
        for i in range(h * w):
            y, x = i // w + 1, i % w + 1
            ring = [padded[y + v, x + u] for v, u in
                    ((-1, -1), (-1, 0), (-1, 1), (0, 1), (1, 1), (1, 0), (1, -1), (0, -1))]  # fmt: skip
            if simple_points()[sum(int(b) << n for n, b in enumerate(ring))]:
                after = (*state[:i], not state[i], *state[i + 1 :])
                if after not in seen:
                    seen.add(after)
                    todo.append(after)
    goal = tuple(prediction.ravel().tolist())
    return min(sum(a != b for a, b in zip(state, goal, strict=True)) for state in seen)


@settings(deadline=None, max_examples=25)
@given(booleans(3, 3), booleans(3, 3))
def test_the_warped_difference_lies_between_the_best_warping_and_no_warping(prediction, target):
    ours = warped_difference(prediction, target)
    assert reachable(target, prediction) <= ours <= (prediction != target).sum()


def warped_slowly(prediction, target):
    """The definition in the docstring, one pixel after the other; topology is judged on the whole picture."""
    now = np.pad(target, 1)
    goal = np.pad(prediction, 1)

    def simple(y, x):
        patch = now[y - 1 : y + 2, x - 1 : x + 2].copy()
        patch[1, 1] = False
        touching = {n for n in pieces(patch, False)[0][[0, 1, 1, 2], [1, 0, 2, 1]] if n}
        membrane = ~patch
        membrane[1, 1] = False
        return len(touching) == 1 and pieces(membrane, True)[1] == 1

    flipped = True
    while flipped:
        flipped = False
        for y, x in itertools.product(range(1, now.shape[0] - 1), range(1, now.shape[1] - 1)):
            if now[y, x] != goal[y, x] and simple(y, x):
                now[y, x] = goal[y, x]
                flipped = True
    return now[1:-1, 1:-1], int((now != goal).sum())


@settings(deadline=None, max_examples=40)
@given(booleans(6, 7), booleans(6, 7))
def test_warping_follows_its_rule_and_keeps_the_topology_of_the_truth(prediction, target):
    warped, difference = warped_slowly(prediction, target)
    assert warped_difference(prediction, target) == difference
    assert pieces(warped, False)[1] == pieces(target, False)[1]
    assert pieces(~np.pad(warped, 1), True)[1] == pieces(~np.pad(target, 1), True)[1]


def test_each_error_is_taken_at_its_best_threshold_over_all_pictures():
    draw = np.random.default_rng(0)
    target = np.stack([TRUTH, TRUTH.T[:5].repeat(2, axis=1)[:, :7]])
    probability = np.clip(target * 0.5 + draw.random(target.shape) * 0.5, 0, 1)
    errors = MembraneErrors([0.2, 0.5, 0.8])
    for p, t in zip(probability, target, strict=True):
        errors.update(torch.from_numpy(p), torch.from_numpy(t))
    for best, single in (
        (errors.rand(), rand_error),
        (errors.warping(), warping_error),
        (errors.pixel(), pixel_error),
    ):
        each = [single(probability > threshold, target) for threshold in (0.2, 0.5, 0.8)]
        assert best.error == pytest.approx(min(each))
        assert best.threshold == (0.2, 0.5, 0.8)[int(np.argmin(each))]


def test_impossible_input_is_refused_in_words():
    with pytest.raises(InputError, match="one size"):
        rand_error(TRUTH, TRUTH[:2])
    with pytest.raises(InputError, match="cells > threshold"):
        warping_error(TRUTH * 0.3, TRUTH)
    with pytest.raises(InputError, match="thresholds"):
        MembraneErrors([])
    assert math.isnan(MembraneErrors().rand().error)

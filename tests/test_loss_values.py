"""Losses against plain NumPy in float64, against torch, SMP and MONAI, and against the failures of SMP 0.6."""

from __future__ import annotations

import itertools
import math
import warnings

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pixelwise import losses

SEEDS = pytest.mark.parametrize("seed", range(3))
SHAPES = pytest.mark.parametrize("shape", [(2, 4, 5, 6), (3, 21, 7), (1, 3, 2, 3, 4), (2, 2, 1, 1)])
MODES = pytest.mark.parametrize("mode", ["multiclass", "binary", "multilabel"])


def case(shape=(2, 4, 5, 6), ignored=0.3, seed=0, mode="multiclass"):
    """(logits, target) in NumPy; in multiclass the last class never occurs."""
    draw = np.random.default_rng(seed)
    n, k, *spatial = (shape[0], 1, *shape[2:]) if mode == "binary" else shape
    logits = draw.normal(size=(n, k, *spatial)) * 4
    size = (n, k, *spatial) if mode == "multilabel" else (n, *spatial)
    target = draw.integers(0, max(k - 1, 1) if mode == "multiclass" else 2, size)
    target[draw.random(target.shape) < ignored] = 255
    target.flat[0] = 0
    return logits, target


def softmax(logits):
    powers = np.exp(logits - logits.max(1, keepdims=True))
    return powers / powers.sum(1, keepdims=True)


def sigmoid(logits):
    return 1 / (1 + np.exp(-logits))


def by_class(logits, target, mode):
    """(p, t, c): probabilities, truths and what counts, each (n, k, ...), in the plainest way."""
    k = logits.shape[1]
    if mode == "multiclass":
        p, t = softmax(logits), np.stack([target == c for c in range(k)], 1)
        return p, t.astype(float), np.stack([target != 255] * k, 1)
    target = target.reshape(logits.shape)
    return sigmoid(logits), (target == 1).astype(float), target != 255


def torched(*arrays):
    return [torch.tensor(array) for array in arrays]


def places(target):
    return [at for at in np.ndindex(target.shape) if target[at] != 255]


# ---------------------------------------------------------------- sums over pixels


@SHAPES
@SEEDS
def test_cross_entropy_is_the_mean_over_the_pixels_that_count(shape, seed):
    logits, target = case(shape, seed=seed)
    p = softmax(logits)
    each = [-np.log(p[(at[0], target[at], *at[1:])]) for at in places(target)]
    got = losses.cross_entropy(*torched(logits, target))
    assert got.item() == pytest.approx(np.mean(each), rel=1e-12)


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 1.0])
@pytest.mark.parametrize("weights", [None, [1.0, 0.0, 2.0, 3.0]])
@pytest.mark.parametrize("reduction", ["none", "mean", "sum"])
def test_cross_entropy_is_torchs_with_smoothing_weights_and_reductions(smoothing, weights, reduction):
    logits, target = torched(*case())
    expected = torch.nn.functional.cross_entropy(
        logits, target, None if weights is None else torch.tensor(weights, dtype=torch.float64),
        ignore_index=255, reduction=reduction, label_smoothing=smoothing,
    )  # fmt: skip
    got = losses.cross_entropy(
        logits, target, class_weights=weights, label_smoothing=smoothing, reduction=reduction
    )
    if weights is not None and smoothing:
        # A class of weight 0 is left out whole; torch keeps the smoothed part of its pixels in the sum.
        own = torch.tensor(weights)[target.where(target != 255, 0)]
        expected = torch.nn.functional.cross_entropy(
            logits, target.where((own > 0), 255), torch.tensor(weights, dtype=torch.float64),
            ignore_index=255, reduction=reduction, label_smoothing=smoothing,
        )  # fmt: skip
    torch.testing.assert_close(got, expected)


def test_pixel_weights_multiply_the_loss_and_leave_the_denominator():
    logits, target = torched(*case())
    weights = torch.rand(target.shape, dtype=torch.float64) * 5
    each = losses.cross_entropy(logits, target, reduction="none")
    got = losses.cross_entropy(logits, target, pixel_weights=weights)
    torch.testing.assert_close(got, (each * weights).sum() / (target != 255).sum())
    torch.testing.assert_close(losses.cross_entropy(logits, target, pixel_weights=weights * 2), got * 2)


@pytest.mark.parametrize(("threshold", "at_least"), [(0.7, 0.0), (0.01, 0.25), (0.5, 1.0), (1.0, 0.0)])
def test_ohem_is_the_mean_over_the_hard_pixels_or_over_the_hardest_share(threshold, at_least):
    logits, target = case()
    p = softmax(logits)
    true = sorted(p[(at[0], target[at], *at[1:])] for at in places(target))
    hard = [value for value in true if value < threshold]
    hard = max(hard, true[: math.ceil(at_least * len(true))], key=len)
    got = losses.ohem_cross_entropy(*torched(logits, target), threshold=threshold, at_least=at_least)
    assert got.item() == pytest.approx(np.mean([-np.log(value) for value in hard]), rel=1e-12)


@MODES
@pytest.mark.parametrize("gamma", [0.0, 0.5, 1.0, 2.0, 3.5])
def test_focal_is_its_formula_of_the_probability_of_the_truth(mode, gamma):
    logits, target = case(mode=mode)
    p, t, counted = by_class(logits, target, mode)
    true = (p * t).sum(1)[target != 255] if mode == "multiclass" else np.where(t == 1, p, 1 - p)[counted]
    got = losses.focal(*torched(logits, target), gamma=gamma, mode=mode)
    assert got.item() == pytest.approx(np.mean(-((1 - true) ** gamma) * np.log(true)), rel=1e-11)
    if gamma == 0 and mode == "multiclass":
        torch.testing.assert_close(got, losses.cross_entropy(*torched(logits, target)))


@pytest.mark.parametrize("alpha", [None, 0.25])
def test_focal_of_the_sigmoid_is_torchvisions(alpha):
    from torchvision.ops import sigmoid_focal_loss

    logits, target = torched(*case(ignored=0, mode="multilabel"))
    expected = sigmoid_focal_loss(logits, target.double(), alpha=-1 if alpha is None else alpha, gamma=2)
    got = losses.focal(logits, target, alpha=alpha, mode="multilabel", reduction="none")
    torch.testing.assert_close(got, expected)


def test_focal_of_the_softmax_with_class_weights_divides_by_them_as_cross_entropy_does():
    logits, target = torched(*case())
    weights = [1.0, 3.0, 0.5, 2.0]
    torch.testing.assert_close(
        losses.focal(logits, target, gamma=0, class_weights=weights),
        losses.cross_entropy(logits, target, class_weights=weights),
    )


@pytest.mark.parametrize("mode", ["binary", "multilabel"])
@pytest.mark.parametrize("smoothing", [0.0, 0.2])
@pytest.mark.parametrize("positive", [None, 3.0])
def test_binary_cross_entropy_is_its_formula(mode, smoothing, positive):
    logits, target = case(mode=mode)
    p, t, counted = by_class(logits, target, mode)
    t = t * (1 - smoothing) + smoothing / 2
    expected = -(positive or 1) * t * np.log(p) - (1 - t) * np.log(1 - p)
    got = losses.binary_cross_entropy(
        *torched(logits, target), mode=mode, label_smoothing=smoothing, positive_weight=positive
    )
    assert got.item() == pytest.approx(expected[counted].mean(), rel=1e-11)


def test_binary_cross_entropy_takes_soft_targets_and_a_weight_for_each_class():
    logits, target = torched(*case(mode="multilabel"))
    soft = torch.rand(target.shape, dtype=torch.float64).where(target != 255, 255.0)
    weights = [1.0, 2.0, 3.0, 4.0]
    expected = torch.nn.functional.binary_cross_entropy_with_logits(
        logits, soft, pos_weight=torch.tensor(weights).reshape(4, 1, 1), reduction="none"
    )
    got = losses.binary_cross_entropy(logits, soft, positive_weight=weights, mode="multilabel")
    torch.testing.assert_close(got, expected[target != 255].mean())


def test_two_classes_of_softmax_and_one_of_sigmoid_are_the_same_losses():
    logits, target = torched(*case(mode="binary"))
    two = torch.cat([torch.zeros_like(logits), logits], 1)
    options = {"label_smoothing": 0.1}
    torch.testing.assert_close(
        losses.binary_cross_entropy(logits, target, **options), losses.cross_entropy(two, target, **options)
    )
    torch.testing.assert_close(losses.focal(logits, target, mode="binary"), losses.focal(two, target))
    for loss in (losses.dice, losses.jaccard, losses.tversky, losses.mcc, losses.soft_cldice):
        torch.testing.assert_close(
            loss(logits, target, mode="binary"), loss(two, target, classes=[1]), msg=loss.__name__
        )
    torch.testing.assert_close(
        losses.generalised_dice(logits, target, mode="binary"), losses.generalised_dice(two, target)
    )


def test_distillation_is_the_divergence_from_the_teacher_where_it_speaks():
    logits, _ = case()
    teacher = softmax(case(seed=1)[0])
    teacher[0, :, :2] = 0  # silent
    spoken = teacher.sum(1) > 0
    gap = np.where(
        teacher > 0, teacher * (np.log(np.maximum(teacher, 1e-300)) - np.log(softmax(logits))), 0
    ).sum(1)
    got = losses.distillation(*torched(logits, teacher))
    assert got.item() == pytest.approx(gap[spoken].mean(), rel=1e-5)
    agreed = losses.distillation(*torched(logits, softmax(logits)))
    assert agreed.item() == pytest.approx(0, abs=1e-6)


def test_a_silent_teacher_is_a_loss_of_zero_not_nan():
    logits = torch.randn(1, 3, 2, 2, requires_grad=True)
    value = losses.distillation(logits, torch.zeros(1, 3, 2, 2))
    value.backward()
    assert value.item() == 0
    assert (logits.grad == 0).all()


# ---------------------------------------------------------------- overlaps


def regions(logits, target, mode, over):
    """Flat (p, t) of the counted pixels, by picture and class: {(picture, class): (p, t)}."""
    p, t, counted = by_class(logits, target, mode)
    found = {}
    for c in range(p.shape[1]):
        pictures = [slice(None)] if over == "batch" else [slice(i, i + 1) for i in range(len(p))]
        for number, picture in enumerate(pictures):
            here = counted[picture, c]
            found[number, c] = (p[picture, c][here], t[picture, c][here])
    return found


def numpy_mcc(p, t):
    tp, fp, fn, tn = (p * t).sum(), (p * (1 - t)).sum(), ((1 - p) * t).sum(), ((1 - p) * (1 - t)).sum()
    return (tp * tn - fp * fn) / np.sqrt((tp + fp) * (tp + fn) * (tn + fp) * (tn + fn))


REGION = {
    "dice": (losses.dice, lambda p, t: 1 - (2 * (p * t).sum() + 1) / (p.sum() + t.sum() + 1), {}),
    "dice, s 0": (losses.dice, lambda p, t: 1 - 2 * (p * t).sum() / (p.sum() + t.sum()), {"smooth": 0}),
    "dice, s 10": (losses.dice, lambda p, t: 1 - (2 * (p * t).sum() + 10) / (p.sum() + t.sum() + 10), {"smooth": 10}),
    "jaccard": (losses.jaccard, lambda p, t: 1 - ((p * t).sum() + 1) / ((p + t - p * t).sum() + 1), {}),
    "tversky": (
        losses.tversky,
        lambda p, t: 1 - ((p * t).sum() + 2)
        / ((p * t).sum() + 0.2 * (p * (1 - t)).sum() + 0.9 * ((1 - p) * t).sum() + 2),
        {"alpha": 0.2, "beta": 0.9, "smooth": 2},
    ),
    "focal_tversky": (
        losses.focal_tversky,
        lambda p, t: (1 - ((p * t).sum() + 1)
        / ((p * t).sum() + 0.3 * (p * (1 - t)).sum() + 0.7 * ((1 - p) * t).sum() + 1)) ** 0.75,
        {},
    ),
    "mcc": (losses.mcc, lambda p, t: 1 - numpy_mcc(p, t), {}),
}  # fmt: skip


@pytest.mark.parametrize("name", REGION)
@pytest.mark.parametrize("over", ["image", "batch"])
@MODES
@SEEDS
def test_region_losses_are_their_formula_by_class_and_image_or_batch(name, over, mode, seed):
    loss, formula, options = REGION[name]
    logits, target = case(mode=mode, seed=seed)
    each = {key: formula(p, t) for key, (p, t) in regions(logits, target, mode, over).items() if t.any()}
    got = loss(*torched(logits, target), mode=mode, over=over, **options)
    assert got.item() == pytest.approx(np.mean(list(each.values())), rel=1e-9)
    none = loss(*torched(logits, target), mode=mode, over=over, reduction="none", **options)
    none = none if over == "image" else none[None]
    for key, value in each.items():
        assert none[key].item() == pytest.approx(value, rel=1e-9)


def test_an_absent_class_is_left_out_or_costs_its_area_or_what_the_formula_gives():
    logits, target = case(ignored=0.3)  # class 3 never occurs
    p = softmax(logits)[:, 3][target != 255]
    area, formula = p.mean(), 1 - 1 / (p.sum() + 1)
    kinds = (("skip", 0.0), ("area", area), ("formula", formula))
    for loss in (losses.dice, losses.jaccard):
        for absent, expected in kinds:
            got = loss(*torched(logits, target), absent=absent, reduction="none")
            assert got[3].item() == pytest.approx(expected, rel=1e-9), absent
        skipped, counted = (loss(*torched(logits, target), absent=absent) for absent in ("skip", "area"))
        none = loss(*torched(logits, target), absent="area", reduction="none")
        torch.testing.assert_close(skipped, none[:3].mean())
        torch.testing.assert_close(counted, none.mean())
    for mode, absent in (("multiclass", "skip"), ("binary", "area"), ("multilabel", "area")):
        inputs = torched(*case(mode=mode))
        for loss in (losses.dice, losses.mcc):
            assert loss(*inputs, mode=mode) == loss(*inputs, mode=mode, absent=absent)  # the default


@MODES
def test_sums_over_a_million_pixels_are_as_exact_in_float32_as_in_float64(mode):
    draw = torch.Generator().manual_seed(0)
    logits = torch.randn(1, 1 if mode == "binary" else 2, 1024, 1024, generator=draw) + 3
    target = torch.randint(0, 2, logits.shape if mode == "multilabel" else (1, 1024, 1024), generator=draw)
    target[..., :100] = 255
    single, double = (
        losses.dice(each, target, mode=mode, reduction="none") for each in (logits, logits.double())
    )
    torch.testing.assert_close(single.double(), double, rtol=2e-6, atol=0)


def test_dice_needs_new_memory_for_the_probabilities_and_for_the_gradient_only():
    logits, target = torched(*case((2, 16, 32, 32)))  # so many classes that a map of labels is small
    leaf = logits.requires_grad_()
    with torch.profiler.profile(
        activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True
    ) as found:
        losses.dice(leaf, target).backward()
    taken = [event.self_cpu_memory_usage for event in found.events() if event.self_cpu_memory_usage > 0]
    size = leaf.numel() * leaf.element_size()
    assert sum(each >= size for each in taken) == 2


@pytest.mark.parametrize(("weight", "power"), [("square", 2), ("simple", 1), ("uniform", 0)])
@pytest.mark.parametrize("over", ["image", "batch"])
@MODES
def test_generalised_dice_is_one_dice_of_classes_weighted_by_size(weight, power, over, mode):
    logits, target = case(mode=mode)
    found = regions(logits, target, mode, over)
    pictures: dict[int, list] = {}
    for (picture, _), (p, t) in found.items():
        pictures.setdefault(picture, []).append((p, t))
        if mode == "binary":
            pictures[picture].append((1 - p, 1 - t))
    expected = []
    for pairs in pictures.values():
        pairs = [(p, t) for p, t in pairs if t.any()]
        top = sum((p * t).sum() / t.sum() ** power for p, t in pairs)
        bottom = sum((p + t).sum() / t.sum() ** power for p, t in pairs)
        expected.append(1 - 2 * top / bottom)
    got = losses.generalised_dice(*torched(logits, target), weight=weight, over=over, mode=mode)
    assert got.item() == pytest.approx(np.mean(expected), rel=1e-10)
    none = losses.generalised_dice(
        *torched(logits, target), weight=weight, over=over, mode=mode, reduction="none"
    )
    np.testing.assert_allclose(none.reshape(-1), expected, rtol=1e-10)


def test_mcc_of_a_class_that_fills_the_picture_costs_what_is_missing():
    logits = torch.tensor([[[[2.0, -1.0]]]])
    got = losses.mcc(logits, torch.ones(1, 1, 2, dtype=torch.int64), mode="binary")
    assert got.item() == pytest.approx(1 - sigmoid(np.array([2.0, -1.0])).mean(), rel=1e-6)
    assert losses.mcc(logits, torch.ones(1, 1, 2, dtype=torch.int64), mode="binary", absent="formula") == 1


# ---------------------------------------------------------------- Lovász


def jaccard_loss(wrong, t):
    """1 - IoU of the mask t with the pixels in `wrong` flipped."""
    flipped = np.where(wrong, 1 - t, t)
    union = np.maximum(flipped, t).sum()
    return 0.0 if union == 0 else 1 - (flipped * t).sum() / union


def numpy_lovasz(errors, t):
    """The Lovász extension by its definition: the sum over sorted errors of error x growth of the set function."""
    wrong, before, total = np.zeros(len(t), bool), 0.0, 0.0
    for i in np.argsort(-errors, kind="stable"):
        wrong[i] = True
        after = jaccard_loss(wrong, t)
        total += errors[i] * (after - before)
        before = after
    return total


@pytest.mark.parametrize("over", ["image", "batch"])
@SHAPES
@SEEDS
def test_lovasz_softmax_is_the_extension_of_the_jaccard_loss_of_present_classes(over, shape, seed):
    logits, target = case(shape, seed=seed)
    each = {
        key: numpy_lovasz(np.abs(t - p), t)
        for key, (p, t) in regions(logits, target, "multiclass", over).items()
        if t.any()
    }
    got = losses.lovasz_softmax(*torched(logits, target), over=over)
    assert got.item() == pytest.approx(np.mean(list(each.values())), rel=1e-11)
    none = losses.lovasz_softmax(*torched(logits, target), over=over, reduction="none")
    assert none.shape == (logits.shape[:2] if over == "image" else logits.shape[1:2])


@pytest.mark.parametrize("over", ["image", "batch"])
@pytest.mark.parametrize("mode", ["binary", "multilabel"])
@SEEDS
def test_lovasz_hinge_is_the_extension_at_the_hinge_errors_absent_classes_included(over, mode, seed):
    logits, target = case(mode=mode, seed=seed)
    target[0] = np.where(target[0] == 1, 0, target[0])
    _, t, counted = by_class(logits, target, mode)
    errors = np.maximum(0, 1 - logits * (2 * t - 1))
    expected = []
    for c in range(logits.shape[1]):
        for picture in [slice(None)] if over == "batch" else [slice(i, i + 1) for i in range(len(t))]:
            here = counted[picture, c]
            expected.append(numpy_lovasz(errors[picture, c][here], t[picture, c][here]))
    got = losses.lovasz_hinge(*torched(logits, target), mode=mode, over=over)
    assert got.item() == pytest.approx(np.mean(expected), rel=1e-11)


@given(
    bits=st.lists(st.tuples(st.booleans(), st.integers(0, 8)), min_size=1, max_size=12),
    scale=st.sampled_from([0.1, 1.0]),
)
@settings(max_examples=60, deadline=None)
def test_lovasz_hinge_with_tied_and_zero_errors_is_still_its_definition(bits, scale):
    t = np.array([float(hit) for hit, _ in bits])
    logits = np.array([value for _, value in bits]) * scale - 4 * scale
    expected = numpy_lovasz(np.maximum(0, 1 - logits * (2 * t - 1)), t)
    got = losses.lovasz_hinge(torch.tensor(logits)[None, None], torch.tensor(t)[None].bool())
    assert got.item() == pytest.approx(expected, rel=1e-11, abs=1e-12)


@pytest.mark.parametrize("sharp", [0.0, 8.0])
@pytest.mark.parametrize("over", ["image", "batch"])
def test_lovasz_of_many_float32_pixels_is_that_of_float64(sharp, over):
    """Sorting packed integers instead of floats, and leaving out what has no share, changes nothing."""
    torch.manual_seed(0)
    target = torch.randint(0, 4, (2, 70, 80))
    logits = torch.randn(2, 4, 70, 80) + sharp * torch.nn.functional.one_hot(target, 4).movedim(-1, 1)
    target[torch.rand(target.shape) < 0.1] = 255
    result = []
    for dtype in (torch.float32, torch.float64):
        values = logits.to(dtype, copy=True).requires_grad_()
        loss = losses.lovasz_softmax(values, target, over=over)
        loss.backward()
        result.append((loss.double(), values.grad.double()))
    torch.testing.assert_close(result[0][0], result[1][0], rtol=1e-6, atol=1e-9)
    scale = result[1][1].abs().max().item()
    # Errors nearer than float32 can tell change places: a few gradients move by a step of their neighbour.
    torch.testing.assert_close(result[0][1], result[1][1], rtol=0, atol=2e-3 * scale)


def test_lovasz_is_the_jaccard_loss_itself_at_certain_predictions():
    target = torch.tensor([[[0, 0, 1, 1, 1, 2]]])
    guess = torch.tensor([[[0, 1, 1, 1, 0, 2]]])
    logits = torch.nn.functional.one_hot(guess, 3).movedim(-1, 1) * 100.0
    got = losses.lovasz_softmax(logits, target, reduction="none")
    np.testing.assert_allclose(got, [1 - 1 / 3, 1 - 2 / 4, 0], atol=1e-6)


# ---------------------------------------------------------------- backward passes written by hand


def plain_cross_entropy(logits, target):
    return torch.nn.functional.cross_entropy(logits, target, ignore_index=255)


def plain_focal(logits, target):
    nll = torch.nn.functional.cross_entropy(logits, target, ignore_index=255, reduction="none")
    return (nll * (1 - (-nll).exp()) ** 2).sum() / (target != 255).sum()


def plain_dice(logits, target):
    k, counted = logits.shape[1], (target != 255).unsqueeze(1)
    truth = torch.nn.functional.one_hot(target.where(target != 255, 0), k).movedim(-1, 1) * counted
    p = logits.softmax(1) * counted
    each = 1 - (2 * (p * truth).sum((2, 3)) + 1) / (p.sum((2, 3)) + truth.sum((2, 3)) + 1)
    present = truth.sum((2, 3)) > 0
    return each[present].mean()


@pytest.mark.parametrize("shape", [(1, 3, 300, 301), (70, 5, 17, 9), (2, 150, 40, 41)])
def test_what_passes_its_gradient_back_by_hand_gives_what_plain_torch_gives(shape):
    logits, target = torched(*case(shape, ignored=0.1))
    for ours, plain in (
        (losses.cross_entropy, plain_cross_entropy),
        (losses.focal, plain_focal),
        (lambda a, b: losses.dice(a, b, over="image"), plain_dice),
    ):
        value, gradient = value_and_gradient(ours, logits, target)
        expected, expected_gradient = value_and_gradient(plain, logits, target)
        torch.testing.assert_close(value, expected, rtol=1e-12, atol=0)
        torch.testing.assert_close(gradient, expected_gradient, rtol=1e-9, atol=1e-15)
        single, single_gradient = value_and_gradient(ours, logits.float(), target)
        torch.testing.assert_close(single.double(), expected, rtol=2e-6, atol=0)
        scale = expected_gradient.abs().max().item()
        torch.testing.assert_close(single_gradient.double(), expected_gradient, rtol=0, atol=1e-5 * scale)


# ---------------------------------------------------------------- distances


def numpy_distance(mask, spacing):
    """Of each pixel in the mask to the nearest one outside; 0 outside. By looking at all pairs."""
    outside = np.argwhere(~mask) * spacing
    result = np.zeros(mask.shape)
    for at in np.argwhere(mask):
        result[tuple(at)] = np.sqrt(((outside - at * spacing) ** 2).sum(1)).min()
    return result


DISTANCE = pytest.mark.parametrize(
    ("shape", "spacing"), [((2, 3, 6, 7), None), ((2, 3, 6, 7), (0.5, 2.0)), ((1, 3, 3, 4, 5), None)]
)


@DISTANCE
@MODES
def test_boundary_is_the_mean_of_probability_times_signed_distance(shape, spacing, mode):
    logits, target = case(shape, mode=mode)
    steps = np.array(spacing or [1.0] * (len(shape) - 2))
    p, t, counted = by_class(logits, target, mode)
    signed = np.zeros(p.shape)
    for at in np.ndindex(p.shape[:2]):
        mask = t[at] == 1
        if mask.any() and not mask.all():
            outside, inside = numpy_distance(~mask, steps), numpy_distance(mask, steps)
            signed[at] = np.where(mask, steps.min() / 2 - inside, outside - steps.min() / 2)
    got = losses.boundary(*torched(logits, target), spacing=spacing, mode=mode)
    assert got.item() == pytest.approx((signed * p)[counted].mean(), rel=1e-6)
    none = losses.boundary(*torched(logits, target), spacing=spacing, mode=mode, reduction="none")
    np.testing.assert_allclose(none, np.where(counted, signed * p, 0), rtol=1e-5, atol=1e-7)


@DISTANCE
@MODES
@pytest.mark.parametrize("power", [1.0, 2.0])
def test_hausdorff_is_the_squared_error_times_both_distances(shape, spacing, mode, power):
    logits, target = case(shape, mode=mode)
    steps = np.array(spacing or [1.0] * (len(shape) - 2))
    p, t, counted = by_class(logits, target, mode)
    far = np.zeros(p.shape)
    for at in np.ndindex(p.shape[:2]):
        for mask in (t[at] == 1, (p[at] > 0.5) & counted[at]):
            if mask.any() and not mask.all():
                far[at] += (numpy_distance(mask, steps) + numpy_distance(~mask, steps)) ** power
    got = losses.hausdorff(*torched(logits, target), spacing=spacing, mode=mode, power=power)
    assert got.item() == pytest.approx(((p - t) ** 2 * far)[counted].mean(), rel=1e-6)


def test_distances_of_classes_that_take_no_part_are_not_in_the_mean():
    logits, target = torched(*case())
    for loss in (losses.boundary, losses.hausdorff):
        none = loss(logits, target, reduction="none")
        some = loss(logits, target, classes=[2, 0], reduction="none")
        assert torch.equal(some, none[:, [2, 0]])
        share = (target != 255).sum() * 2
        torch.testing.assert_close(loss(logits, target, classes=[2, 0]), some.sum() / share)


def numpy_unet_weights(ids, w0, sigma, spacing):
    expected = np.ones(ids.shape)
    cells = [np.argwhere(ids == cell) * spacing for cell in np.unique(ids) if cell]
    for at in np.argwhere(ids == 0):
        distances = sorted(np.sqrt(((cell - at * spacing) ** 2).sum(1)).min() for cell in cells)
        if len(distances) > 1:
            expected[tuple(at)] += w0 * np.exp(-((distances[0] + distances[1]) ** 2) / (2 * sigma**2))
    return expected


@pytest.mark.parametrize(
    ("shape", "spacing", "cells"), [((20, 23), None, 4), ((20, 23), (2.0, 0.5), 2), ((6, 7, 8), None, 3),
                                    ((9, 9), None, 1), ((9, 9), None, 0)]
)  # fmt: skip
def test_unet_weights_rise_between_two_cells_as_the_paper_says(shape, spacing, cells):
    draw = np.random.default_rng(0)
    ids = np.zeros(shape, np.int32)
    for cell in range(cells):
        corner = [draw.integers(0, side - 2) for side in shape]
        ids[tuple(slice(c, c + 2) for c in corner)] = cell * 1000 + 7
    expected = numpy_unet_weights(ids, 10.0, 4.0, np.array(spacing or [1.0] * len(shape)))
    got = losses.unet_weights(ids, sigma=4.0, spacing=spacing)
    assert got.dtype == torch.float32
    np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-5)
    assert torch.equal(losses.unet_weights(torch.tensor(ids), sigma=4.0, spacing=spacing), got)


def test_unet_weights_of_two_cells_one_pixel_apart_by_hand():
    ids = np.array([[0, 0, 0, 0, 0], [1, 1, 0, 2, 2], [0, 0, 0, 0, 0]])
    got = losses.unet_weights(ids, w0=10, sigma=5, background=0.5, cell=2.0)
    assert got[1, 2].item() == pytest.approx(0.5 + 10 * math.exp(-(2**2) / 50), rel=1e-6)
    assert got[1, 0] == got[1, 4] == 2
    full = losses.unet_weights(np.array([[1, 2]]))  # no background at all
    assert (full == 1).all()


# ---------------------------------------------------------------- structure


def numpy_skeleton(image, iterations):
    from scipy import ndimage

    cross = ndimage.generate_binary_structure(image.ndim, 1)

    def erode(x):
        return ndimage.minimum_filter(x, footprint=cross, mode="constant", cval=np.inf)

    def opened(x):
        return ndimage.maximum_filter(erode(x), size=3, mode="constant", cval=-np.inf)

    skeleton = np.maximum(image - opened(image), 0)
    for _ in range(iterations):
        image = erode(image)
        ridge = np.maximum(image - opened(image), 0)
        skeleton = skeleton + np.maximum(ridge - skeleton * ridge, 0)
    return skeleton


@pytest.mark.parametrize("shape", [(2, 3, 9, 8), (1, 3, 5, 6, 7)])
@pytest.mark.parametrize("over", ["image", "batch"])
@MODES
def test_soft_cldice_is_the_harmonic_mean_over_soft_skeletons(shape, over, mode):
    logits, target = case(shape, mode=mode)
    p, t, counted = by_class(logits, target, mode)
    p = p * counted
    lines = [np.array([[numpy_skeleton(m, 2) for m in image] for image in maps]) for maps in (p, t)]
    expected = []
    for c in range(p.shape[1]):
        for picture in [slice(None)] if over == "batch" else [slice(i, i + 1) for i in range(len(t))]:
            at = (picture, c)
            if t[at].any():
                precision = ((lines[0][at] * t[at]).sum() + 1) / (lines[0][at].sum() + 1)
                sensitivity = ((lines[1][at] * p[at]).sum() + 1) / (lines[1][at].sum() + 1)
                expected.append(1 - 2 * precision * sensitivity / (precision + sensitivity))
    got = losses.soft_cldice(*torched(logits, target), iterations=2, over=over, mode=mode)
    assert got.item() == pytest.approx(np.mean(expected), rel=1e-10)


@pytest.mark.parametrize(("shape", "shrink"), [((2, 3, 9, 11), 1), ((2, 3, 16, 14), 2), ((1, 3, 5, 6, 5), 1)])
@MODES
def test_rmi_is_the_log_determinant_of_what_the_prediction_leaves_open(shape, shrink, mode):
    logits, target = case(shape, ignored=0.01, mode=mode, seed=3)
    p, t, counted = by_class(logits, target, mode)
    p, ridge, expected = p * counted, 1e-4, []
    cells = [side // shrink for side in shape[2:]]

    def shrunk(image):
        for axis, cell in enumerate(cells):
            image = np.stack(np.split(image.take(range(cell * shrink), axis), cell, axis), axis)
            image = image.mean(axis + 1)
        return image

    for at in np.ndindex(p.shape[:2]):
        whole, few_p, few_t = shrunk(counted[at].astype(float)) == 1, shrunk(p[at]), shrunk(t[at])
        rows = []
        for corner in itertools.product(*(range(cell - 2) for cell in cells)):
            box = tuple(slice(c, c + 3) for c in corner)
            if whole[box].all():
                rows.append((few_p[box].ravel(), few_t[box].ravel()))
        of_p, of_t = (np.array(part) for part in zip(*rows, strict=True))
        if not of_t.any():
            continue
        v = of_p.shape[1]
        both = np.cov(of_p.T, of_t.T, bias=True)
        pp, pt, tt = both[:v, :v], both[:v, v:], both[v:, v:]
        left = tt - pt.T @ np.linalg.inv(pp + ridge * np.eye(v)) @ pt
        _, log_det = np.linalg.slogdet(left + ridge * np.eye(v))
        expected.append((log_det - v * np.log(ridge)) / (2 * v))
    got = losses.rmi(*torched(logits, target), shrink=shrink, mode=mode)
    assert got.item() == pytest.approx(np.mean(expected), rel=1e-6)


# ---------------------------------------------------------------- other libraries, where the rule is the same


@pytest.fixture
def smp():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return pytest.importorskip("segmentation_models_pytorch", reason="SMP is not installed").losses


@pytest.fixture
def monai():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return pytest.importorskip("monai.losses", reason="MONAI is not installed")


def value_and_gradient(loss, logits, target):
    logits = logits.clone().requires_grad_()
    value = loss(logits, target)
    value.backward()
    return value.detach(), logits.grad


def same(ours, theirs, logits, target, their_target=None):
    a, b = value_and_gradient(ours, logits, target), value_and_gradient(
        theirs, logits, target if their_target is None else their_target
    )  # fmt: skip
    torch.testing.assert_close(a[0], b[0], rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(a[1], b[1], rtol=1e-3, atol=1e-6)


def everywhere():
    """(logits, target) with every class in every image: there the rules of all libraries agree."""
    logits = torch.randn(2, 3, 8, 9, generator=torch.Generator().manual_seed(0)) * 2
    target = torch.arange(2 * 8 * 9).reshape(2, 8, 9) % 3
    return logits, target


def test_dice_jaccard_tversky_and_lovasz_are_smps_where_every_class_is_present(smp):
    logits, target = everywhere()
    same(lambda a, b: losses.dice(a, b, smooth=0), smp.DiceLoss("multiclass"), logits, target)
    same(lambda a, b: losses.jaccard(a, b, smooth=0), smp.JaccardLoss("multiclass"), logits, target)
    same(
        lambda a, b: losses.tversky(a, b, alpha=0.2, beta=0.6, smooth=0),
        smp.TverskyLoss("multiclass", alpha=0.2, beta=0.6),
        logits,
        target,
    )
    void = target.where(torch.rand(target.shape) > 0.3, 255)
    same(losses.lovasz_softmax, smp.LovaszLoss("multiclass", ignore_index=255), logits, void)
    same(
        lambda a, b: losses.lovasz_softmax(a, b, over="image"),
        smp.LovaszLoss("multiclass", per_image=True),
        logits,
        target,
    )
    for over in ("image", "batch"):
        same(
            lambda a, b, over=over: losses.lovasz_hinge(a, b, over=over),
            smp.LovaszLoss("binary", per_image=over == "image"),
            logits[:, :1],
            target.clamp(max=1),
        )
    same(
        lambda a, b: losses.focal(a, b, mode="binary"), smp.FocalLoss("binary"), logits[:, :1], target.clamp(max=1)
    )  # fmt: skip


def test_dice_focal_hausdorff_and_cldice_are_monais_where_every_class_is_present(monai):
    logits, target = everywhere()
    channel = target.unsqueeze(1)
    same(
        lambda a, b: losses.dice(a, b, smooth=1e-5, over="image"),
        monai.DiceLoss(softmax=True, to_onehot_y=True), logits, target, channel,
    )  # fmt: skip
    same(
        lambda a, b: losses.generalised_dice(a, b, over="image"),
        monai.GeneralizedDiceLoss(softmax=True, to_onehot_y=True, smooth_nr=0, smooth_dr=0), logits, target, channel,
    )  # fmt: skip
    same(
        lambda a, b: losses.focal(a, b) / 3,  # MONAI's mean divides by classes as well
        monai.FocalLoss(use_softmax=True, to_onehot_y=True), logits, target, channel,
    )  # fmt: skip
    same(
        lambda a, b: losses.hausdorff(a, b, classes=[1, 2]),
        monai.HausdorffDTLoss(softmax=True, to_onehot_y=True), logits, target, channel,
    )  # fmt: skip
    same(
        lambda a, b: losses.soft_cldice(a, b, mode="binary"),
        monai.SoftclDiceLoss(sigmoid=True, smooth=1e-12),
        logits[:, :1], target.clamp(max=1), target.clamp(max=1)[:, None].float(),
    )  # fmt: skip


# ---------------------------------------------------------------- what fails in SMP 0.6


def test_focal_of_the_softmax_does_not_change_when_all_logits_of_a_pixel_do(smp):
    logits, target = everywhere()
    shift = torch.randn(2, 1, 8, 9) * 5
    torch.testing.assert_close(losses.focal(logits + shift, target), losses.focal(logits, target))
    theirs = smp.FocalLoss("multiclass")
    assert not torch.isclose(theirs(logits + shift, target), theirs(logits, target))


def test_half_of_the_pixels_ignored_does_not_halve_the_loss(smp):
    logits, target = everywhere()
    logits, target = torch.cat([logits, logits]), torch.cat([target, torch.full_like(target, 255)])
    smooth = losses.cross_entropy(logits, target, label_smoothing=0.1)
    torch.testing.assert_close(smooth, losses.cross_entropy(logits[:2], target[:2], label_smoothing=0.1))
    theirs = smp.SoftCrossEntropyLoss(smooth_factor=0.1, ignore_index=255)
    assert theirs(logits, target) == pytest.approx(smooth.item() / 2, rel=0.1)
    binary = target.where(target == 255, target.clamp(max=1))
    ours = losses.binary_cross_entropy(logits[:, :1], binary)
    theirs = smp.SoftBCEWithLogitsLoss(ignore_index=255)(logits[:, :1], binary[:, None].float())
    assert theirs.item() == pytest.approx(ours.item() / 2, rel=1e-4)


def test_an_empty_mask_under_a_full_prediction_costs_much_and_teaches(smp):
    logits, target = torch.full((1, 1, 64, 64), 3.0), torch.zeros(1, 64, 64, dtype=torch.int64)
    for loss in (losses.dice, losses.jaccard, losses.tversky, losses.focal_tversky, losses.mcc):
        for dtype in (torch.float32, torch.float16):
            value, gradient = value_and_gradient(
                lambda a, b, loss=loss: loss(a, b, mode="binary", over="image"), logits.to(dtype), target
            )
            assert value > 0.9
            assert (gradient > 0).all()  # every probability is to fall
    value, gradient = value_and_gradient(
        lambda a, b: losses.dice(a, b, mode="binary", over="image"), logits, target
    )
    assert value.item() == pytest.approx(torch.sigmoid(torch.tensor(3.0)).item(), rel=1e-6)  # its area
    their_value, their_gradient = value_and_gradient(smp.DiceLoss("binary"), logits, target)
    assert their_value == 0
    assert (their_gradient == 0).all()


def test_the_empty_image_of_a_batch_counts_over_images_and_is_not_hidden_by_the_full_one():
    target = torch.stack([torch.zeros(8, 8), torch.ones(8, 8)]).long()
    logits = torch.full((2, 1, 8, 8), 20.0)  # everything is foreground: wrong in the first image
    each = losses.dice(logits, target, mode="binary", over="image", reduction="none")
    np.testing.assert_allclose(each, [[1.0], [0.0]], atol=1e-6)
    assert losses.dice(logits, target, mode="binary", over="image").item() == pytest.approx(0.5, abs=1e-6)


@pytest.mark.parametrize("gamma", [0.0, 0.1, 0.5, 0.99])
def test_focal_with_gamma_below_1_has_finite_gradients_at_certain_pixels(gamma, smp):
    logits = torch.tensor([[200.0, -200.0], [0.0, 0.0]]).reshape(1, 2, 2)
    target = torch.zeros(1, 2, dtype=torch.int64)
    value, gradient = value_and_gradient(lambda a, b: losses.focal(a, b, gamma=gamma), logits, target)
    assert value.isfinite()
    assert gradient.isfinite().all()
    assert (gradient[..., 0] == 0).all()
    value, gradient = value_and_gradient(
        lambda a, b: losses.focal(a, b, gamma=gamma, mode="binary"), logits[:, :1], target
    )
    assert gradient.isfinite().all()
    if gamma:
        theirs = value_and_gradient(smp.FocalLoss("binary", gamma=gamma), -logits[:, :1], target)[1]
        assert theirs.isnan().any()


def test_half_precision_at_512_by_512_is_finite_where_smp_is_not(smp):
    torch.manual_seed(0)
    target = torch.randint(0, 2, (1, 512, 512))
    logits = torch.randn(1, 1, 512, 512, dtype=torch.float16)
    for loss in (losses.dice, losses.mcc, losses.focal_tversky):
        value, gradient = value_and_gradient(
            lambda a, b, loss=loss: loss(a, b, mode="binary"), logits, target
        )
        torch.testing.assert_close(value, loss(logits.float(), target, mode="binary"))
        assert gradient.isfinite().all()
        assert gradient.abs().max() > 0
    assert not smp.MCCLoss()(logits.sigmoid(), target.half()).isfinite()

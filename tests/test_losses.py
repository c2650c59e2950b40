"""What every loss promises: exact ignoring, honest shapes, gradients, types, and sentences for what is wrong."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pixelwise import losses
from pixelwise.errors import InputError, UnknownNameError

MULTICLASS = {
    "cross_entropy": losses.cross_entropy,
    "cross_entropy, smooth": partial(losses.cross_entropy, label_smoothing=0.1),
    "cross_entropy, weighted": partial(losses.cross_entropy, class_weights=[1.0, 2.0, 0.5]),
    "ohem": losses.ohem_cross_entropy,
    "focal": losses.focal,
    "focal, gamma 0.5": partial(losses.focal, gamma=0.5),
    "dice": losses.dice,
    "dice, by image": partial(losses.dice, over="image"),
    "dice, area": partial(losses.dice, over="image", absent="area"),
    "jaccard": losses.jaccard,
    "tversky": losses.tversky,
    "focal_tversky": losses.focal_tversky,
    "generalised_dice": losses.generalised_dice,
    "mcc": losses.mcc,
    "lovasz_softmax": losses.lovasz_softmax,
    "lovasz_softmax, by image": partial(losses.lovasz_softmax, over="image"),
    "boundary": losses.boundary,
    "hausdorff": losses.hausdorff,
    "soft_cldice": losses.soft_cldice,
    "rmi": partial(losses.rmi, shrink=1),
    "dice_cross_entropy": losses.dice_cross_entropy,
}
BINARY = {
    "binary_cross_entropy": losses.binary_cross_entropy,
    "binary_cross_entropy, smooth": partial(losses.binary_cross_entropy, label_smoothing=0.1),
    "focal": partial(losses.focal, alpha=0.25),
    "focal, gamma 0.5": partial(losses.focal, gamma=0.5),
    "dice": losses.dice,
    "dice, by image": partial(losses.dice, over="image"),
    "jaccard": losses.jaccard,
    "tversky": losses.tversky,
    "focal_tversky": losses.focal_tversky,
    "generalised_dice": losses.generalised_dice,
    "mcc": losses.mcc,
    "lovasz_hinge": losses.lovasz_hinge,
    "boundary": losses.boundary,
    "hausdorff": losses.hausdorff,
    "soft_cldice": losses.soft_cldice,
    "rmi": partial(losses.rmi, shrink=1),
    "dice_cross_entropy": losses.dice_cross_entropy,
}
EVERY = [
    *(pytest.param(loss, "multiclass", id=f"{name}, multiclass") for name, loss in MULTICLASS.items()),
    *(pytest.param(partial(loss, mode="binary"), "binary", id=f"{name}, binary") for name, loss in BINARY.items()),
    *(
        pytest.param(partial(loss, mode="multilabel"), "multilabel", id=f"{name}, multilabel")
        for name, loss in BINARY.items()
    ),
]  # fmt: skip
every_loss = pytest.mark.parametrize(("loss", "mode"), EVERY)


def case(mode, spatial=(8, 9), n=2, k=3, ignored=0.2, seed=0, dtype=torch.float64):
    """(logits, target) of random numbers, the last class absent from the last image."""
    draw = np.random.default_rng(seed)
    logits = draw.normal(size=(n, 1 if mode == "binary" else k, *spatial)) * 2
    shape = logits.shape if mode == "multilabel" else (n, *spatial)
    target = draw.integers(0, k if mode == "multiclass" else 2, shape)
    if mode == "multiclass":
        target[-1:] %= k - 1
    target[draw.random(shape) < ignored] = 255
    return torch.tensor(logits, dtype=dtype), torch.tensor(target)


def value_and_gradient(loss, logits, target, **options):
    logits = logits.clone().requires_grad_()
    value = loss(logits, target, **options)
    value.backward()
    return value.detach(), logits.grad


def ignored_logits(target, logits):
    """Which logits belong to ignored pixels, of the shape of the logits."""
    ignored = target == 255
    return (ignored if ignored.shape == logits.shape else ignored.unsqueeze(1)).expand_as(logits)


@every_loss
def test_gradients_are_those_of_the_value(loss, mode):
    logits, target = case(mode, spatial=(5, 6))
    assert torch.autograd.gradcheck(
        lambda logits: loss(logits, target), logits.clone().requires_grad_(), atol=1e-6, eps=1e-7
    )


@every_loss
def test_ignored_pixels_change_neither_loss_nor_gradient(loss, mode):
    logits, target = case(mode)
    value, gradient = value_and_gradient(loss, logits, target)
    ignored = ignored_logits(target, logits)
    assert (gradient[ignored] == 0).all()
    assert gradient[~ignored].abs().max() > 0
    for other in (1e4, -1e4):
        changed, changed_gradient = value_and_gradient(loss, logits.where(~ignored, other), target)
        assert changed == value
        assert torch.equal(changed_gradient, gradient)


WITHOUT_NEIGHBOURS = [each for each in EVERY if not any(part in each.id for part in ("cldice", "rmi"))]


@pytest.mark.parametrize(
    ("loss", "mode"),
    [each for each in WITHOUT_NEIGHBOURS if not any(p in each.id for p in ("boundary", "hausdorff"))],
)
def test_a_mean_divides_by_what_counts_so_ignoring_a_pixel_is_as_if_it_were_not_there(loss, mode):
    logits, target = case(mode, ignored=0.0, n=1)
    expected, expected_gradient = value_and_gradient(loss, logits, target)
    void = torch.full((*target.shape[:-1], 7), 255)
    wider, wide_gradient = value_and_gradient(
        loss, torch.cat([logits, torch.randn(*logits.shape[:-1], 7)], -1), torch.cat([target, void], -1)
    )
    torch.testing.assert_close(wider, expected)
    torch.testing.assert_close(wide_gradient[..., :-7], expected_gradient)


@every_loss
@pytest.mark.parametrize("n", [1, 2])
def test_where_nothing_counts_the_loss_is_0_with_zero_gradients(loss, mode, n):
    logits, target = case(mode, n=n)
    value, gradient = value_and_gradient(loss, logits, torch.full_like(target, 255))
    assert value == 0
    assert (gradient == 0).all()


@every_loss
def test_an_image_where_nothing_counts_does_not_change_the_mean_over_the_others(loss, mode):
    logits, target = case(mode, n=1)
    alone = loss(logits, target)
    both = loss(
        torch.cat([logits, torch.randn_like(logits)]), torch.cat([target, torch.full_like(target, 255)])
    )
    torch.testing.assert_close(both, alone)


@every_loss
def test_boolean_uint8_and_wider_targets_are_equal(loss, mode):
    logits, target = case(mode, ignored=0.0)
    target = target.clamp(max=1)
    expected, expected_gradient = value_and_gradient(loss, logits, target)
    for dtype in (torch.bool, torch.uint8, torch.int16, torch.int32, torch.uint16):
        value, gradient = value_and_gradient(loss, logits, target.to(dtype))
        assert value == expected
        assert torch.equal(gradient, expected_gradient)
    logits, target = case(mode)  # with 255
    assert loss(logits, target.to(torch.uint8)) == loss(logits, target)


@every_loss
@pytest.mark.parametrize("ignore_index", [None, 254, -1])
def test_255_where_it_is_not_the_ignore_index_raises_a_sentence(loss, mode, ignore_index):
    logits, target = case(mode)
    place = tuple((target == 255).nonzero()[0].tolist())
    for dtype in (torch.int64, torch.uint8):
        with pytest.raises(InputError, match=r"target holds 255\S* at \(.*must be in \[0, \d\)") as raised:
            loss(logits, target.to(dtype), ignore_index=ignore_index)
        assert str(place) in str(raised.value)
    with pytest.raises(InputError, match="target holds -1"):
        loss(logits, target.where(target != 255, -1), ignore_index=255)


@pytest.mark.parametrize("mode", ["multiclass", "binary", "multilabel"])
@pytest.mark.parametrize("ignored", [0.0, 0.3])
def test_the_first_id_too_many_and_the_last_too_few_raise_beside_ignored_pixels_too(mode, ignored):
    logits, target = case(mode, ignored=ignored)
    classes = 3 if mode == "multiclass" else 2
    for stray in (classes, -1):
        wrong = target.clone()
        wrong.view(-1)[5] = stray
        with pytest.raises(
            InputError, match=rf"target holds {stray} at \(.*only ignore_index=255 may lie outside"
        ):
            losses.dice(logits, wrong, mode=mode)


@every_loss
def test_any_ignore_index_means_the_same_even_a_negative_one_or_a_class(loss, mode):
    logits, target = case(mode)
    value, gradient = value_and_gradient(loss, logits, target)
    for other in (-100, 7):
        renamed = target.where(target != 255, other)
        assert value_and_gradient(loss, logits, renamed, ignore_index=other)[0] == value
    without = target.where(target != 0, 255)  # background ignored by hand, and by its number
    if not (target == 255).any() or mode == "multiclass":
        by_hand, _ = value_and_gradient(loss, logits, without)
        by_number, _ = value_and_gradient(loss, logits, target.where(target != 255, 0), ignore_index=0)
        assert by_hand == by_number
    assert gradient.isfinite().all()


@every_loss
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_logits_give_the_loss_of_the_same_numbers_in_float64(loss, mode, dtype):
    logits, target = case(mode)
    logits = (logits * 5).to(dtype)
    value, gradient = value_and_gradient(loss, logits, target)
    expected, expected_gradient = value_and_gradient(loss, logits.double(), target)
    assert value.dtype == torch.float32
    assert gradient.dtype == dtype
    torch.testing.assert_close(value.double(), expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(gradient.double(), expected_gradient, rtol=2e-2, atol=1e-4)


LARGE = [each for each in EVERY if "hausdorff" not in each.id and "boundary" not in each.id]


@pytest.mark.parametrize(("loss", "mode"), [each for each in LARGE if "multilabel" not in each.id])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_at_512_by_512_is_finite(loss, mode, dtype):
    logits, target = case(mode, spatial=(512, 512), n=1, dtype=torch.float32)
    logits = (logits * 20).to(dtype)
    value, gradient = value_and_gradient(loss, logits, target)
    assert value.isfinite()
    assert value > 0
    assert gradient.isfinite().all()
    torch.testing.assert_close(value, loss(logits.float(), target), rtol=1e-5, atol=0)


@every_loss
def test_autocast_changes_nothing(loss, mode):
    logits, target = case(mode, dtype=torch.float32)
    value, gradient = value_and_gradient(loss, logits, target)
    with torch.autocast("cpu", torch.bfloat16):
        inside, gradient_inside = value_and_gradient(loss, logits, target)
    assert inside == value
    assert torch.equal(gradient_inside, gradient)


@every_loss
def test_huge_logits_have_a_finite_loss_and_gradient(loss, mode):
    logits, target = case(mode, dtype=torch.float32)
    value, gradient = value_and_gradient(loss, logits.sign() * 3e4, target)
    assert value.isfinite()
    assert gradient.isfinite().all()


@every_loss
def test_volumes_are_taken_and_agree_with_one_another(loss, mode):
    logits, target = case(mode, spatial=(4, 5, 6), ignored=0.02)
    value, gradient = value_and_gradient(loss, logits, target)
    assert value.isfinite()
    assert gradient.abs().sum() > 0
    turned, turned_gradient = value_and_gradient(loss, logits.transpose(-1, -3), target.transpose(-1, -3))
    torch.testing.assert_close(turned, value)
    torch.testing.assert_close(turned_gradient.transpose(-1, -3), gradient)


@every_loss
def test_the_layout_in_memory_does_not_matter(loss, mode):
    logits, target = case(mode)
    value, gradient = value_and_gradient(loss, logits, target)
    last = logits.contiguous(memory_format=torch.channels_last)
    other, other_gradient = value_and_gradient(loss, last, target)
    torch.testing.assert_close(other, value)
    torch.testing.assert_close(other_gradient, gradient)


@every_loss
def test_a_batch_in_another_order_has_the_same_loss(loss, mode):
    logits, target = case(mode, n=3)
    torch.testing.assert_close(loss(logits.flip(0), target.flip(0)), loss(logits, target))


BY_PIXEL = ("cross_entropy", "ohem", "focal", "binary_cross_entropy")
MAPS = ("boundary", "hausdorff")


@every_loss
def test_none_has_the_shape_it_says_and_sums_to_the_sum(loss, mode):
    name = getattr(getattr(loss, "func", loss), "__name__", "")
    if name == "dice_cross_entropy":
        pytest.skip("a sum of unlike losses has no shape but that of a number")
    logits, target = case(mode)
    n, k = logits.shape[:2]
    each = loss(logits, target, reduction="none")
    over = {"lovasz_hinge": "image", "soft_cldice": "image", "rmi": "image"}.get(name, "batch")
    over = (getattr(loss, "keywords", {}) or {}).get("over", over)
    if name in ("cross_entropy", "ohem_cross_entropy", "focal", "binary_cross_entropy"):
        expected = target.shape
    elif name in MAPS:
        expected = logits.shape
    elif name == "generalised_dice":
        expected = ()
    else:
        expected = (n, k) if over == "image" else (k,)
    assert each.shape == expected
    total = loss(logits, target, reduction="sum")
    assert total.shape == loss(logits, target).shape == ()
    torch.testing.assert_close(each.sum(), total)
    if each.shape == target.shape:
        assert (each[target == 255] == 0).all()


def test_a_right_answer_costs_nothing_and_a_wrong_one_much():
    target = torch.tensor([[[0, 1, 1], [2, 2, 255], [0, 0, 1]]])
    right = torch.nn.functional.one_hot(target.where(target != 255, 0), 3).movedim(-1, 1) * 50.0
    for name, loss in MULTICLASS.items():
        if name in ("boundary", "cross_entropy, smooth"):
            assert loss(right, target) < loss(-right, target)
        else:
            assert loss(right, target).item() == pytest.approx(0, abs=1e-5), name
            if "rmi" not in name:  # which cannot tell a class from its inverse
                assert loss(-right, target).item() > 0.4, name


@given(
    shape=st.lists(st.integers(1, 5), min_size=0, max_size=3),
    n=st.integers(0, 3),
    seed=st.integers(0, 1000),
    ignored=st.sampled_from([0.0, 0.5, 1.0]),
)
@settings(max_examples=40, deadline=None)
def test_any_size_down_to_nothing_gives_a_finite_loss_and_gradient(shape, n, seed, ignored):
    logits, target = case("multiclass", tuple(shape), n=max(n, 1), seed=seed, ignored=ignored)
    logits, target = logits[:n], target[:n]
    for name, loss in MULTICLASS.items():
        if name in ("boundary", "hausdorff", "soft_cldice", "rmi"):
            continue  # of pictures
        value, gradient = value_and_gradient(loss, logits, target)
        assert value.isfinite(), name
        assert gradient.isfinite().all(), name


@pytest.mark.parametrize(
    ("logits", "target", "mode", "words"),
    [
        ((2, 1, 4, 4), (2, 4, 4), "multiclass", "pass mode='binary'"),
        ((2, 3, 4, 4), (2, 4, 4), "binary", "pass mode='multiclass'"),
        ((2, 3, 4, 4), (2, 1, 4, 4), "multiclass", r"shape \(2, 4, 4\), got \(2, 1, 4, 4\)"),
        ((2, 3, 4, 4), (2, 4, 4), "multilabel", r"shape \(2, 3, 4, 4\), got \(2, 4, 4\)"),
        ((2, 3, 4, 4), (2, 4, 5), "multiclass", r"got \(2, 4, 5\)"),
    ],
)
def test_shapes_that_do_not_fit_are_named(logits, target, mode, words):
    with pytest.raises(InputError, match=words):
        losses.dice(torch.zeros(logits), torch.zeros(target, dtype=torch.int64), mode=mode)


def test_options_that_do_not_exist_are_named():
    logits, target = case("multiclass")
    with pytest.raises(UnknownNameError, match="'multiclas'; did you mean 'multiclass'"):
        losses.dice(logits, target, mode="multiclas")
    with pytest.raises(UnknownNameError, match="over 'pictures'"):
        losses.dice(logits, target, over="pictures")
    with pytest.raises(UnknownNameError, match="absent"):
        losses.dice(logits, target, absent="perfect")
    with pytest.raises(UnknownNameError, match="reduction 'average'"):
        losses.cross_entropy(logits, target, reduction="average")
    with pytest.raises(UnknownNameError, match="weight"):
        losses.generalised_dice(logits, target, weight="cubic")
    with pytest.raises(InputError, match=r"target must hold ids .* got torch.float32"):
        losses.dice(logits, target.float())
    with pytest.raises(InputError, match=r"logits must be a floating tensor .* torch.int64"):
        losses.dice(target, target)
    with pytest.raises(InputError, match=r"classes must be numbers in \[0, 3\), got \[3\]"):
        losses.dice(logits, target, classes=[3])
    with pytest.raises(InputError, match="class_weights must be 3 numbers"):
        losses.cross_entropy(logits, target, class_weights=[1.0, 2.0])
    with pytest.raises(InputError, match="pixel_weights must have the target's shape"):
        losses.cross_entropy(logits, target, pixel_weights=torch.ones(3))
    with pytest.raises(InputError, match="gamma must be 0 or more"):
        losses.focal(logits, target, gamma=-1)
    with pytest.raises(InputError, match="use class_weights instead"):
        losses.focal(logits, target, alpha=0.25)
    with pytest.raises(InputError, match="use alpha instead"):
        losses.focal(*case("binary"), mode="binary", class_weights=[1.0])
    with pytest.raises(InputError, match="use lovasz_softmax"):
        losses.lovasz_hinge(logits, target, mode="multiclass")
    with pytest.raises(InputError, match="use cross_entropy"):
        losses.binary_cross_entropy(logits, target, mode="multiclass")
    with pytest.raises(InputError, match="choose a smaller window"):
        losses.rmi(logits, target, shrink=4)
    with pytest.raises(InputError, match="spacing must be 2 positive numbers"):
        losses.boundary(logits, target, spacing=(1.0,))
    with pytest.raises(InputError, match="threshold must be in"):
        losses.ohem_cross_entropy(logits, target, threshold=0)


def test_a_weighted_sum_is_the_sum_of_its_named_parts():
    logits, target = case("multiclass")
    both = losses.WeightedSum({"ce": (0.3, losses.cross_entropy), "dice": (2.0, losses.dice)})
    parts = both.parts(logits, target)
    assert list(parts) == ["ce", "dice"]
    torch.testing.assert_close(parts["ce"], 0.3 * losses.cross_entropy(logits, target))
    torch.testing.assert_close(
        both(logits, target), 0.3 * losses.cross_entropy(logits, target) + 2 * losses.dice(logits, target)
    )
    torch.testing.assert_close(
        losses.dice_cross_entropy(logits, target, dice_weight=2.0, cross_entropy_weight=0.3),
        both(logits, target),
    )
    with pytest.raises(InputError, match="at least one term"):
        losses.WeightedSum({})


def test_outputs_are_weighted_by_key_and_auxiliary_heads_count_half():
    (logits, target), (aux, _) = case("multiclass"), case("multiclass", seed=1)
    main, side = losses.cross_entropy(logits, target), losses.cross_entropy(aux, target)
    both = losses.OverOutputs(losses.cross_entropy)
    torch.testing.assert_close(both({"out": logits, "aux": aux}, target), main + 0.5 * side)
    torch.testing.assert_close(both({"out": logits, "aux_low": aux}, target), main + 0.5 * side)
    torch.testing.assert_close(both({"out": logits}, target), main)
    several = losses.OverOutputs(losses.cross_entropy, {"out": 2.0, "aux": 0.4, "aux2": 0.0})
    outputs = {"out": logits, "aux1": aux, "aux2": aux}
    torch.testing.assert_close(several(outputs, target), 2 * main + 0.4 * side)
    assert list(several.parts(outputs, target)) == ["out", "aux1"]
    with pytest.raises(UnknownNameError, match="'edges'"):
        both({"out": logits, "edges": aux}, target)
    with pytest.raises(InputError, match="under 'out'"):
        both({"aux": aux}, target)

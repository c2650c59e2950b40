"""Losses against plain NumPy in float64, and what they promise at the edges."""

import numpy as np
import pytest
import torch

from pixelwise.losses import cross_entropy, dice, distillation


def case(shape=(2, 4, 5, 6), ignored=0.3, seed=0):
    draw = np.random.default_rng(seed)
    logits = draw.normal(size=shape) * 4
    target = draw.integers(0, shape[1] - 1, (shape[0], *shape[2:]))  # the last class never occurs
    target[draw.random(target.shape) < ignored] = 255
    return logits, target


def softmax(logits):
    powers = np.exp(logits - logits.max(1, keepdims=True))
    return powers / powers.sum(1, keepdims=True)


def numpy_cross_entropy(logits, target):
    probabilities = softmax(logits)
    places = [at for at in np.ndindex(target.shape) if target[at] != 255]
    return np.mean([-np.log(probabilities[(at[0], target[at], *at[1:])]) for at in places])


def numpy_dice(logits, target, smooth):
    probabilities, scores = softmax(logits), []
    counted = target != 255
    for k in range(logits.shape[1]):
        t, p = (target == k)[counted].astype(float), probabilities[:, k][counted]
        if t.sum():
            scores.append(1 - (2 * (t * p).sum() + smooth) / (t.sum() + p.sum() + smooth))
    return np.mean(scores)


@pytest.mark.parametrize("shape", [(2, 4, 5, 6), (1, 2, 1, 1), (3, 21, 7), (1, 3, 2, 3, 4)])
def test_cross_entropy_is_the_mean_over_the_pixels_that_count(shape):
    logits, target = case(shape, ignored=0.0 if shape[-1] == 1 else 0.3)
    got = cross_entropy(torch.tensor(logits, dtype=torch.float32), torch.tensor(target))
    assert got.item() == pytest.approx(numpy_cross_entropy(logits, target), rel=1e-5)


@pytest.mark.parametrize("smooth", [0.0, 1.0, 10.0])
@pytest.mark.parametrize("shape", [(2, 4, 5, 6), (3, 21, 7), (1, 3, 2, 3, 4)])
def test_dice_is_one_minus_the_mean_over_the_classes_of_the_target(shape, smooth):
    logits, target = case(shape)
    got = dice(torch.tensor(logits, dtype=torch.float32), torch.tensor(target), smooth=smooth)
    assert got.item() == pytest.approx(numpy_dice(logits, target, smooth), rel=1e-5)


def test_distillation_is_the_divergence_from_the_teacher_where_it_speaks():
    logits, _ = case()
    teacher = softmax(case(seed=1)[0])
    teacher[0, :, :2] = 0  # silent
    spoken = teacher.sum(1) > 0
    gap = np.where(
        teacher > 0, teacher * (np.log(np.maximum(teacher, 1e-300)) - np.log(softmax(logits))), 0
    ).sum(1)
    got = distillation(torch.tensor(logits), torch.tensor(teacher))
    assert got.item() == pytest.approx(gap[spoken].mean(), rel=1e-5)
    assert distillation(torch.tensor(logits), torch.tensor(softmax(logits))).item() == pytest.approx(
        0, abs=1e-6
    )


@pytest.mark.parametrize("loss", [cross_entropy, dice])
def test_ignored_pixels_change_neither_loss_nor_gradient(loss):
    logits, target = case()
    logits, target = torch.tensor(logits, requires_grad=True), torch.tensor(target)
    loss(logits, target).backward()
    assert (logits.grad.abs().sum(1)[target == 255] == 0).all()
    assert (logits.grad.abs().sum(1)[target != 255] > 0).all()
    changed = torch.where((target == 255)[:, None], 1e4, logits.detach())
    assert loss(changed, target) == loss(logits, target)


@pytest.mark.parametrize("loss", [cross_entropy, dice])
def test_nothing_to_learn_is_a_loss_of_zero_not_nan(loss):
    logits = torch.randn(2, 3, 4, 4, requires_grad=True)
    value = loss(logits, torch.full((2, 4, 4), 255))
    value.backward()
    assert value.item() == 0
    assert (logits.grad == 0).all()


def test_a_silent_teacher_is_a_loss_of_zero_not_nan():
    logits = torch.randn(1, 3, 2, 2, requires_grad=True)
    value = distillation(logits, torch.zeros(1, 3, 2, 2))
    value.backward()
    assert value.item() == 0
    assert (logits.grad == 0).all()


@pytest.mark.parametrize("loss", [cross_entropy, dice])
def test_a_certain_and_right_answer_costs_nothing_and_a_wrong_one_much(loss):
    target = torch.tensor([[[0, 1], [2, 255]]])
    right = torch.nn.functional.one_hot(target.where(target != 255, 0), 3).movedim(-1, 1) * 50.0
    assert loss(right, target).item() == pytest.approx(0, abs=1e-6)
    assert loss(-right, target).item() > 0.5


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("loss", [cross_entropy, dice])
def test_half_precision_logits_of_a_large_picture_do_not_overflow(loss, dtype):
    logits = torch.randn(1, 2, 300, 300).mul(20).to(dtype).requires_grad_()
    target = torch.randint(0, 2, (1, 300, 300))
    value = loss(logits, target)
    value.backward()
    assert value.item() == pytest.approx(loss(logits.double(), target).item(), rel=1e-3)
    assert logits.grad.isfinite().all()

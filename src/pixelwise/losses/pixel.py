"""Losses that are a sum over pixels: cross-entropy, its hardest pixels, focal, binary, distillation."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from pixelwise.errors import InputError
from pixelwise.losses.inputs import (
    IGNORE,
    Inputs,
    Mode,
    Reduction,
    full_precision,
    prepare,
    reduce_pixels,
)


@full_precision
def cross_entropy(
    logits: Tensor,
    target: Tensor,
    *,
    class_weights: Tensor | Sequence[float] | None = None,
    pixel_weights: Tensor | None = None,
    label_smoothing: float = 0.0,
    ignore_index: int | None = IGNORE,
    reduction: Reduction = "mean",
) -> Tensor:
    """-log softmax(logits)[target], by default its mean over the pixels that are not ignored.

    logits (n, k, ...), any real; target (n, ...) ids in [0, k) or ignore_index. class_weights (k,): a pixel
    weighs as much as its class, and the mean divides by the sum of those weights (torch's rule);
    pixel_weights, of the target's shape, multiply the loss only (`unet_weights`). label_smoothing e: the
    target is 1 - e + e/k and e/k elsewhere. none: (n, ...), 0 where ignored. [0, inf), 0 is perfect; nothing
    counted gives 0 where torch's mean is NaN.
    """
    inputs = prepare(logits, target, "multiclass", ignore_index)
    share = by_class(class_weights, inputs)
    losses = F.cross_entropy(
        inputs.logits, inputs.labels, reduction="none", label_smoothing=label_smoothing,
        weight=share if label_smoothing else None,
    )  # fmt: skip
    weights = None if share is None else share[inputs.labels]
    if label_smoothing and weights is not None:  # torch has weighed the classes already
        losses = losses / weights.where(weights > 0, 1)
    return reduce_pixels(weighed(losses, pixel_weights, inputs), inputs, reduction, weights)


@full_precision
def ohem_cross_entropy(
    logits: Tensor,
    target: Tensor,
    *,
    threshold: float = 0.7,
    at_least: float = 1 / 16,
    class_weights: Tensor | Sequence[float] | None = None,
    ignore_index: int | None = IGNORE,
    reduction: Reduction = "mean",
) -> Tensor:
    """Cross-entropy of the hard pixels only: those whose true class has a probability below `threshold`.

    logits, target and class_weights as for `cross_entropy`. Where fewer than the share `at_least` (in [0, 1])
    of the counted pixels of the batch are hard, that share with the largest losses is kept instead, ties
    included. mean: over the kept pixels; none: (n, ...), 0 for the others.
    Source: online bootstrapping of High-performance Semantic Segmentation Using Very Deep FCNs (Wu 2016),
    section 3.2, after OHEM (Shrivastava 2016).
    """
    if not (0 < threshold <= 1 and 0 <= at_least <= 1):
        raise InputError(
            f"threshold must be in (0, 1] and at_least in [0, 1], got {threshold} and {at_least}"
        )
    inputs = prepare(logits, target, "multiclass", ignore_index)
    losses = F.cross_entropy(inputs.logits, inputs.labels, reduction="none")  # (n, x)
    counted = torch.ones_like(losses, dtype=torch.bool) if inputs.counted is None else inputs.counted
    hard = counted & (losses > -math.log(threshold))
    fewest = math.ceil(at_least * int(counted.sum()))
    if int(hard.sum()) < fewest:
        smallest = losses.detach()[counted].topk(fewest).values[-1]
        hard = counted & (losses >= smallest)
    share = by_class(class_weights, inputs)
    kept = Inputs(inputs.logits, inputs.labels, hard, inputs.shape, inputs.mode)
    return reduce_pixels(losses, kept, reduction, None if share is None else share[inputs.labels])


@full_precision
def focal(
    logits: Tensor,
    target: Tensor,
    *,
    gamma: float = 2.0,
    alpha: float | None = None,
    class_weights: Tensor | Sequence[float] | None = None,
    mode: Mode = "multiclass",
    ignore_index: int | None = IGNORE,
    reduction: Reduction = "mean",
) -> Tensor:
    """-(1 - p)^gamma log p, where p is the probability of what the target says.

    multiclass: p is the softmax at the target's class, so a constant added to all logits of a pixel changes
    nothing; class_weights as for `cross_entropy`, which gamma 0 is. binary and multilabel: p is the sigmoid
    of +-logits, and alpha in [0, 1] weighs positives by alpha and negatives by 1 - alpha; the mean divides by
    the number of counted pixels (multilabel: and classes). none: of the shape of the target. gamma is 0 or
    more; below 1 the gradient stays finite up to p = 1. Source: Focal Loss (Lin 2017), eq. 4 and 5.
    """
    if gamma < 0:
        raise InputError(f"gamma must be 0 or more, got {gamma}")
    inputs = prepare(logits, target, mode, ignore_index)
    weights: Tensor | None = None
    balance: Tensor | None = None
    if inputs.by_class:
        if class_weights is not None:
            raise InputError(f"class_weights are for mode='multiclass', got mode={mode!r}; use alpha instead")
        sign = inputs.labels.to(inputs.logits.dtype).mul_(2).sub_(1)  # 1 or -1: torch.where is far slower
        log_p = F.logsigmoid(inputs.logits * sign)
        balance = None if alpha is None else 0.5 + (alpha - 0.5) * sign
    else:
        if alpha is not None:
            raise InputError("alpha is for the modes binary and multilabel; use class_weights instead")
        log_p = -F.cross_entropy(inputs.logits, inputs.labels, reduction="none")
        share = by_class(class_weights, inputs)
        weights = None if share is None else share[inputs.labels]
    losses: Tensor = FocalTerm.apply(log_p, gamma)
    if balance is not None:
        losses = losses * balance
    return reduce_pixels(losses, inputs, reduction, weights)


class FocalTerm(torch.autograd.Function):
    """log p -> -(1 - p)^gamma log p.

    Its derivative, -(1 - p)^gamma (1 + gamma p (-log p) / (1 - p)), is written so that no factor is infinite
    at p = 1: autograd would multiply (1 - p)^(gamma - 1) by 0 there.
    """

    @staticmethod
    def forward(ctx: Any, log_p: Tensor, gamma: float) -> Tensor:
        rest = torch.expm1(log_p).neg_()  # 1 - p
        ctx.save_for_backward(log_p, rest)
        ctx.gamma = gamma
        return rest.pow(gamma).mul_(log_p).neg_()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor, None]:
        log_p, rest = ctx.saved_tensors
        ratio = log_p / rest.clamp(min=torch.finfo(rest.dtype).tiny)  # at p = 1 it does not matter
        factor = ratio.mul_(rest - 1).mul_(ctx.gamma).add_(1)
        return factor.mul_(rest.pow(ctx.gamma)).mul_(upstream).neg_(), None


@full_precision
def binary_cross_entropy(
    logits: Tensor,
    target: Tensor,
    *,
    positive_weight: float | Sequence[float] | Tensor | None = None,
    pixel_weights: Tensor | None = None,
    label_smoothing: float = 0.0,
    mode: Literal["binary", "multilabel"] = "binary",
    ignore_index: int | None = IGNORE,
    reduction: Reduction = "mean",
) -> Tensor:
    """-t log p - (1 - t) log(1 - p), p the sigmoid of the logits, over the pixels that are not ignored.

    binary: logits (n, 1, ...), target (n, ...) or (n, 1, ...); multilabel: both (n, k, ...). target: ids 0
    and 1, or soft, a floating tensor in [0, 1]; or ignore_index. positive_weight, a number or (k,), multiplies
    the first term; pixel_weights, of the target's shape, the whole. label_smoothing e: t becomes
    t (1 - e) + e / 2, as `cross_entropy` does with two classes. none: of the shape of the target (n, ...) or
    (n, k, ...); mean: over counted pixels (and classes). [0, inf).
    """
    if mode not in ("binary", "multilabel"):
        raise InputError(f"mode must be 'binary' or 'multilabel', got {mode!r}; use cross_entropy instead")
    inputs = prepare(logits, target, mode, ignore_index, soft=True)
    truth = inputs.labels
    if label_smoothing:
        truth = truth * (1 - label_smoothing) + label_smoothing / 2
    more: Tensor | None = None
    if positive_weight is not None:
        more = torch.as_tensor(positive_weight, dtype=truth.dtype, device=truth.device).reshape(-1, 1)
    losses = F.binary_cross_entropy_with_logits(inputs.logits, truth, pos_weight=more, reduction="none")
    return reduce_pixels(weighed(losses, pixel_weights, inputs), inputs, reduction)


def distillation(logits: Tensor, teacher: Tensor) -> Tensor:
    """Mean Kullback-Leibler divergence KL(teacher || softmax(logits)) over the pixels that have a teacher.

    logits (n, k, ...), any real; teacher (n, k, ...) probabilities that sum to 1 over axis 1, or to 0 where
    there is no opinion (a padded border). Scalar in [0, inf), 0 when both agree. Source: Distilling the
    Knowledge in a Neural Network (Hinton 2015), eq. 1 at temperature 1.
    """
    teacher = teacher.float()
    gap = torch.xlogy(teacher, teacher) - teacher * logits.float().log_softmax(1)
    return gap.sum() / teacher.sum().clamp(min=1)


def by_class(weights: Tensor | Sequence[float] | None, inputs: Inputs) -> Tensor | None:
    """class_weights as a tensor (k,) beside the logits."""
    if weights is None:
        return None
    share = torch.as_tensor(weights, dtype=inputs.logits.dtype, device=inputs.logits.device)
    k = inputs.logits.shape[1]
    if share.shape != (k,) or (share < 0).any():
        raise InputError(f"class_weights must be {k} numbers of 0 or more, got {share.tolist()}")
    return share


def weighed(losses: Tensor, pixel_weights: Tensor | None, inputs: Inputs) -> Tensor:
    """The losses by pixel times pixel_weights, if there are any."""
    if pixel_weights is None:
        return losses
    if pixel_weights.numel() != losses.numel():
        raise InputError(
            f"pixel_weights must have the target's shape {tuple(inputs.shape)}, got {tuple(pixel_weights.shape)}"
        )
    return losses * pixel_weights.to(losses).reshape(losses.shape)

"""Losses: functions of (logits, target), each a scalar with a gradient.

Letters: n batch, k classes, ... any number of spatial axes (h w, or d h w). target is int64 in [0, k), or
`ignore` where nothing is known. Means divide by the pixels that count, over the whole batch; a batch where
nothing counts gives 0 with zero gradients, not NaN. Half-precision logits are reduced in float32.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

IGNORE = 255


def cross_entropy(logits: Tensor, target: Tensor, *, ignore: int = IGNORE) -> Tensor:
    """Mean of -log softmax(logits)[target] over the pixels that are not ignored.

    logits (n, k, ...), any real; target (n, ...) int64. Scalar in [0, inf), 0 is perfect. torch's own mean
    is NaN when every pixel is ignored; this one is 0.
    """
    counted = target != ignore
    total = F.cross_entropy(logits.float(), target, ignore_index=ignore, reduction="sum")
    return total / counted.sum().clamp(min=1)


def dice(logits: Tensor, target: Tensor, *, ignore: int = IGNORE, smooth: float = 1.0) -> Tensor:
    """One minus soft Dice, (2 sum p t + s) / (sum p + sum t + s), averaged over the classes of the target.

    logits (n, k, ...), any real; target (n, ...) int64. p is the softmax, t the one-hot target, both sums
    run over all counted pixels of the batch and `smooth` is s, in pixels. Scalar in [0, 1], 0 is perfect. A
    class that the target lacks has no overlap to measure and is left out (its false pixels lower the other
    classes' Dice all the same). Source: V-Net (Milletari 2016), Dice loss layer; we leave out the squares
    in the denominator, as most later code.
    """
    classes = logits.shape[1]
    counted = (target != ignore).unsqueeze(1)  # (n, 1, ...)
    truth = F.one_hot(target.where(counted.squeeze(1), 0), classes).movedim(-1, 1) * counted  # (n, k, ...)
    probabilities = logits.float().softmax(1).where(counted, 0.0)  # (n, k, ...)
    axes = [axis for axis in range(logits.ndim) if axis != 1]
    overlap = (probabilities * truth).sum(axes)  # (k,)
    truth_size, predicted_size = truth.sum(axes), probabilities.sum(axes)
    loss = 1 - (2 * overlap + smooth) / (predicted_size + truth_size + smooth)
    present = truth_size > 0
    return (loss * present).sum() / present.sum().clamp(min=1)


def distillation(logits: Tensor, teacher: Tensor) -> Tensor:
    """Mean Kullback-Leibler divergence KL(teacher || softmax(logits)) over the pixels that have a teacher.

    logits (n, k, ...), any real; teacher (n, k, ...) probabilities that sum to 1 over axis 1, or to 0 where
    there is no opinion (a padded border). Scalar in [0, inf), 0 when both agree. Source: Distilling the
    Knowledge in a Neural Network (Hinton 2015), eq. 1 at temperature 1.
    """
    teacher = teacher.float()
    gap = torch.xlogy(teacher, teacher) - teacher * logits.float().log_softmax(1)
    return gap.sum() / teacher.sum().clamp(min=1)

"""The formulas behind SMP's losses, under its names and with its numbers, finite where its are not.

Letters: n batch, k classes, ... any axes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from pixelwise.errors import InputError

__all__ = [
    "focal_loss_with_logits",
    "label_smoothed_nll_loss",
    "soft_dice_score",
    "soft_jaccard_score",
    "soft_tversky_score",
    "softmax_focal_loss_with_logits",
    "to_tensor",
]


def to_tensor(x: Any, dtype: torch.dtype | None = None) -> Tensor:
    """A list, an array or a tensor as a tensor."""
    return torch.as_tensor(x, dtype=dtype)


def precise(x: Tensor) -> Tensor:
    """Half precision as float32: a sum over pixels does not fit into it."""
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x


def soft_tversky_score(
    output: Tensor,
    target: Tensor,
    alpha: float,
    beta: float,
    smooth: float = 0.0,
    eps: float = 1e-7,
    dims: Sequence[int] | None = None,
) -> Tensor:
    """(tp + smooth) / (tp + alpha fp + beta fn + smooth), the denominator eps or more, summed over `dims` or all axes.

    output, target: of one shape, in [0, 1]; tp is the sum of the smaller of the two.
    """
    if output.shape != target.shape:
        raise InputError(
            f"output and target must have the same shape, got {tuple(output.shape)} and {tuple(target.shape)}"
        )
    axes = list(range(output.ndim)) if dims is None else list(dims)
    predicted, true = output.sum(axes), target.sum(axes)
    tp = (predicted + true - (output - target).abs().sum(axes)) / 2  # its gradient at equality is half
    whole = tp + alpha * (predicted - tp) + beta * (true - tp) + smooth
    return (tp + smooth) / whole.clamp_min(eps)


def soft_dice_score(
    output: Tensor, target: Tensor, smooth: float = 0.0, eps: float = 1e-7, dims: Sequence[int] | None = None
) -> Tensor:
    """`soft_tversky_score` at 1/2 and 1/2."""
    return soft_tversky_score(output, target, 0.5, 0.5, smooth, eps, dims)


def soft_jaccard_score(
    output: Tensor, target: Tensor, smooth: float = 0.0, eps: float = 1e-7, dims: Sequence[int] | None = None
) -> Tensor:
    """`soft_tversky_score` at 1 and 1."""
    return soft_tversky_score(output, target, 1.0, 1.0, smooth, eps, dims)


def focal_loss_with_logits(
    output: Tensor,
    target: Tensor,
    gamma: float | None = 2.0,
    alpha: float | None = 0.25,
    reduction: str | None = "mean",
    normalized: bool = False,
    reduced_threshold: float | None = None,
    eps: float = 1e-6,
) -> Tensor:
    """(1 - p)^gamma times the binary cross-entropy, p being exp(- that cross-entropy).

    output: logits; target: of the same shape, in [0, 1]. alpha weighs positives by alpha and negatives by 1 - alpha.
    reduction: "mean", "sum", "batchwise_mean" (the sum over the first axis), or anything else for none. normalized:
    divided by the sum of the factors. reduced_threshold t: the factor is ((1 - p) / t)^gamma, and 1 where p < t.
    """
    output = precise(output)
    target = target.to(dtype=output.dtype, device=output.device)
    loss = F.binary_cross_entropy_with_logits(output, target, reduction="none")
    balance = None if alpha is None else alpha * target + (1 - alpha) * (1 - target)
    return _focused(loss, gamma, balance, reduction, normalized, reduced_threshold, eps)


def softmax_focal_loss_with_logits(
    output: Tensor,
    target: Tensor,
    gamma: float | None = 2.0,
    reduction: str | None = "mean",
    normalized: bool = False,
    reduced_threshold: float | None = None,
    eps: float = 1e-6,
) -> Tensor:
    """`focal_loss_with_logits` of the softmax: output (n, k, ...) logits, target (n, ...) ids."""
    loss = F.nll_loss(F.log_softmax(precise(output), 1), target.long(), reduction="none")
    return _focused(loss, gamma, None, reduction, normalized, reduced_threshold, eps)


def _focused(
    loss: Tensor,
    gamma: float | None,
    balance: Tensor | None,
    reduction: str | None,
    normalized: bool,
    reduced_threshold: float | None,
    eps: float,
) -> Tensor:
    gamma = 0.0 if gamma is None else gamma
    rest = -torch.expm1(-loss)  # 1 - p
    base = rest if reduced_threshold is None else rest / reduced_threshold
    if 0 < gamma < 1:  # the gradient of a root is infinite at 0
        factor = (
            base.where(base > 0, torch.ones_like(base)).pow(gamma).where(base > 0, torch.zeros_like(base))
        )
    else:
        factor = base.pow(gamma)
    if reduced_threshold is not None:
        factor = factor.where(1 - rest >= reduced_threshold, torch.ones_like(factor))
    loss = factor * loss
    if balance is not None:
        loss = loss * balance
    if normalized:
        loss = loss / factor.sum().clamp_min(eps)
    if reduction == "mean":
        return loss.mean() if loss.numel() else loss.sum()
    if reduction == "sum":
        return loss.sum()
    return loss.sum(0) if reduction == "batchwise_mean" else loss


def label_smoothed_nll_loss(
    lprobs: Tensor,
    target: Tensor,
    epsilon: float | None,
    ignore_index: int | None = None,
    reduction: str | None = "mean",
    dim: int = -1,
) -> Tensor:
    """(1 - epsilon) (- log p of the target) + epsilon / k times the sum of all - log p.

    lprobs: log-probabilities with the classes along `dim`; target: ids, without that axis or with 1 there.
    ignore_index: such pixels cost nothing, but count in a mean; with it the unreduced loss keeps the axis of classes.
    """
    target = target.long()
    if target.dim() == lprobs.dim() - 1:
        target = target.unsqueeze(dim)
    ignored = torch.zeros_like(target, dtype=torch.bool) if ignore_index is None else target == ignore_index
    loss = -lprobs.gather(dim, target.masked_fill(ignored, 0))
    if epsilon is not None and epsilon != 0:  # 0 times the infinite loss of a class that is ruled out is NaN
        loss = (1.0 - epsilon) * loss - epsilon / lprobs.size(dim) * lprobs.sum(dim, keepdim=True)
    loss = loss.masked_fill(ignored, 0.0)
    if ignore_index is None:
        loss = loss.squeeze(dim)
    if reduction == "sum":
        return loss.sum()
    return loss.mean() if reduction == "mean" else loss

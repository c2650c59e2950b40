"""SMP's scores: counts by image and class from `get_stats`, then a score and a way to sum up, with SMP's numbers.

>>> from pixelwise import smp                                                           # doctest: +SKIP
>>> tp, fp, fn, tn = smp.metrics.get_stats(labels, target, "multiclass", num_classes=3) # doctest: +SKIP
>>> smp.metrics.iou_score(tp, fp, fn, tn, reduction="micro")                            # doctest: +SKIP

Every score takes the four counts (n, k) and

reduction: "micro" adds up images and classes, then takes the score; "macro" adds up images, and the scores of the
classes are averaged; "weighted" the same, with class_weights; "micro-imagewise" adds up the classes of each image, and
images are averaged; "macro-imagewise" and "weighted-imagewise" average the scores of every class in every image;
"none" or None: the scores (n, k).
class_weights (k,): need not sum to 1. SMP divides by k once more in "macro" and "weighted-imagewise", so weights of 1
give a k-th of the score.
zero_division: the score where nothing is there to divide by (1.0 by default, so a class that is nowhere scores 1);
"warn" is 0 with a warning.

The result is float32, a scalar but for "none". `pixelwise.metrics` leaves out what cannot be measured instead;
docs/from_smp.md has the figures.

Letters: n batch, k classes, ... spatial axes.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import Any, Literal, Protocol

import torch
from torch import Tensor

from pixelwise.errors import InputError, UnknownNameError

__all__ = [
    "accuracy",
    "balanced_accuracy",
    "f1_score",
    "false_discovery_rate",
    "false_negative_rate",
    "false_omission_rate",
    "false_positive_rate",
    "fbeta_score",
    "get_stats",
    "iou_score",
    "negative_likelihood_ratio",
    "negative_predictive_value",
    "positive_likelihood_ratio",
    "positive_predictive_value",
    "precision",
    "recall",
    "sensitivity",
    "specificity",
]

Counts = tuple[Tensor, Tensor, Tensor, Tensor]
Zero = float | Literal["warn"]
MODES = ("binary", "multiclass", "multilabel")
REDUCTIONS = (
    "micro", "macro", "weighted", "micro-imagewise", "macro-imagewise", "weighted-imagewise", "none"
)  # fmt: skip


@torch.no_grad()
def get_stats(
    output: Tensor,
    target: Tensor,
    mode: str,
    ignore_index: int | None = None,
    threshold: float | Sequence[float] | None = None,
    num_classes: int | None = None,
) -> Counts:
    """True positives, false positives, false negatives and true negatives, each (n, k) int64.

    multiclass: output and target (n, ...) ids; those outside of [0, num_classes) are of no class, and where the target
    is ignore_index (outside as well) nothing is counted. binary and multilabel: both (n, k, ...) of 0 and 1; with a
    threshold, a number or one for each class, output may be probabilities, and both are 1 where they reach it.
    Multiclass counts are on the CPU, others where output is.

    Raises InputError for a floating target, a floating output without threshold, shapes that differ, and what the mode
    does not take.
    """
    _refuse(output, target, mode, ignore_index, threshold, num_classes)
    if mode == "multiclass":
        assert num_classes is not None
        return _of_ids(output, target, num_classes, ignore_index)
    if threshold is not None:
        least = torch.as_tensor(threshold, device=output.device)
        least = least.reshape(-1, *[1] * (output.ndim - 2)) if least.ndim else least
        output, target = (output >= least).long(), (target >= least).long()
    n, k = target.shape[:2]
    output, target = output.reshape(n, k, -1), target.reshape(n, k, -1)
    tp = (output * target).sum(2)
    fp, fn = output.sum(2) - tp, target.sum(2) - tp
    return tp, fp, fn, target.shape[2] - (tp + fp + fn)


def _refuse(
    output: Tensor,
    target: Tensor,
    mode: str,
    ignore_index: int | None,
    threshold: float | Sequence[float] | None,
    num_classes: int | None,
) -> None:
    if mode not in MODES:
        raise UnknownNameError("mode", mode, MODES)
    if target.is_floating_point():
        raise InputError(f"target must be of an integer type, got {target.dtype}; convert it with .long()")
    if output.is_floating_point() and mode == "multiclass":
        raise InputError(f"multiclass output must hold ids, got {output.dtype}; take output.argmax(1)")
    if output.is_floating_point() and threshold is None:
        raise InputError(
            f"output of {output.dtype} needs a threshold, such as threshold=0.5 of probabilities"
        )
    if output.shape != target.shape:
        raise InputError(
            f"output and target must have the same shape, got {tuple(output.shape)} and {tuple(target.shape)}"
        )
    if mode != "multiclass" and ignore_index is not None:
        raise InputError(f"ignore_index is for the mode multiclass, got {ignore_index} with mode {mode!r}")
    if mode == "multiclass" and threshold is not None:
        raise InputError(f"threshold is for the modes binary and multilabel, got {threshold} with multiclass")
    if mode == "multiclass" and num_classes is None:
        raise InputError("multiclass ids need num_classes=, how many there are")
    if ignore_index is not None and num_classes is not None and 0 <= ignore_index < num_classes:
        raise InputError(
            f"ignore_index must lie outside of [0, {num_classes}), got {ignore_index}; subtract 1 from target and "
            "output if it is 0, so that it becomes -1"
        )


def _of_ids(output: Tensor, target: Tensor, num_classes: int, ignore_index: int | None) -> Counts:
    n = len(target)
    output, target = output.reshape(n, -1).long(), target.reshape(n, -1).long()
    counted = torch.ones_like(target, dtype=torch.bool) if ignore_index is None else target != ignore_index
    first = torch.arange(n, device=target.device).unsqueeze(1) * num_classes

    def by_class(ids: Tensor, which: Tensor) -> Tensor:
        which = which & (ids >= 0) & (ids < num_classes)
        return torch.bincount((ids + first)[which], minlength=n * num_classes).reshape(n, num_classes).cpu()

    tp = by_class(target, counted & (output == target))
    fp, fn = by_class(output, counted) - tp, by_class(target, counted) - tp
    return tp, fp, fn, counted.sum(1, keepdim=True).cpu() - tp - fp - fn


def _score(
    formula: Callable[..., Tensor],
    counts: Counts,
    reduction: str | None,
    class_weights: Sequence[float] | Tensor | None,
    zero_division: Zero,
) -> Tensor:
    if reduction is not None and reduction not in REDUCTIONS:
        raise UnknownNameError("reduction", reduction, REDUCTIONS)
    if class_weights is None and reduction is not None and "weighted" in reduction:
        raise InputError(f"reduction={reduction!r} needs class_weights, a number for each class")
    weights = torch.as_tensor(1.0 if class_weights is None else class_weights, device=counts[0].device)
    weights = _defined(weights / weights.sum(), 0.0)

    if reduction == "micro":
        score = formula(*(count.sum() for count in counts))
    elif reduction in ("macro", "weighted"):
        score = _defined(formula(*(count.sum(0) for count in counts)), zero_division) * weights
        score = score.mean() if reduction == "macro" else score.sum()
    elif reduction == "micro-imagewise":
        score = _defined(formula(*(count.sum(1) for count in counts)), zero_division).mean()
    else:
        score = _defined(formula(*counts), zero_division)
        if reduction in ("macro-imagewise", "weighted-imagewise"):
            score = (score.mean(0) * weights).mean()
    return _defined(score, zero_division)  # a sum of nothing, an infinity times 0


def _defined(score: Tensor, zero_division: Zero) -> Tensor:
    undefined = score.isnan()
    if zero_division == "warn":
        if undefined.any():
            warnings.warn("a score divides by zero, and is taken as 0", UserWarning, stacklevel=4)
        zero_division = 0.0
    return score.masked_fill(undefined, float(zero_division))


class Score(Protocol):
    """Four counts (n, k) to a score; see the top of this module."""

    def __call__(
        self,
        tp: Tensor,
        fp: Tensor,
        fn: Tensor,
        tn: Tensor,
        reduction: str | None = None,
        class_weights: Sequence[float] | Tensor | None = None,
        zero_division: Zero = 1.0,
    ) -> Tensor: ...


def fbeta_score(
    tp: Tensor,
    fp: Tensor,
    fn: Tensor,
    tn: Tensor,
    beta: float = 1.0,
    reduction: str | None = None,
    class_weights: Sequence[float] | Tensor | None = None,
    zero_division: Zero = 1.0,
) -> Tensor:
    """(1 + beta^2) tp / ((1 + beta^2) tp + beta^2 fn + fp); the rest at the top of this module."""

    def formula(tp: Tensor, fp: Tensor, fn: Tensor, tn: Tensor) -> Tensor:
        hits = (1 + beta**2) * tp
        return hits / (hits + (beta**2) * fn + fp)

    return _score(formula, (tp, fp, fn, tn), reduction, class_weights, zero_division)


def _named(name: str, says: str, formula: Callable[..., Tensor]) -> Score:
    """The score of one formula of the four counts."""

    def score(
        tp: Tensor,
        fp: Tensor,
        fn: Tensor,
        tn: Tensor,
        reduction: str | None = None,
        class_weights: Sequence[float] | Tensor | None = None,
        zero_division: Zero = 1.0,
    ) -> Tensor:
        return _score(formula, (tp, fp, fn, tn), reduction, class_weights, zero_division)

    score.__name__ = score.__qualname__ = name
    score.__doc__ = f"{says}; the rest at the top of this module."
    return score


def _sensitivity(tp: Any, fp: Any, fn: Any, tn: Any) -> Any:
    return tp / (tp + fn)


def _specificity(tp: Any, fp: Any, fn: Any, tn: Any) -> Any:
    return tn / (tn + fp)


def _precision(tp: Any, fp: Any, fn: Any, tn: Any) -> Any:
    return tp / (tp + fp)


def _negatives(tp: Any, fp: Any, fn: Any, tn: Any) -> Any:
    return tn / (tn + fn)


f1_score = _named(
    "f1_score", "F1 or Dice, 2 tp / (2 tp + fp + fn)", lambda tp, fp, fn, tn: 2 * tp / (2 * tp + fn + fp)
)
iou_score = _named("iou_score", "IoU, tp / (tp + fp + fn)", lambda tp, fp, fn, tn: tp / (tp + fp + fn))
accuracy = _named(
    "accuracy", "(tp + tn) / all pixels", lambda tp, fp, fn, tn: (tp + tn) / (tp + fp + fn + tn)
)
sensitivity = _named("sensitivity", "Recall, tp / (tp + fn)", _sensitivity)
specificity = _named("specificity", "tn / (tn + fp)", _specificity)
balanced_accuracy = _named(
    "balanced_accuracy",
    "The mean of sensitivity and specificity",
    lambda *counts: (_sensitivity(*counts) + _specificity(*counts)) / 2,
)
positive_predictive_value = _named("positive_predictive_value", "Precision, tp / (tp + fp)", _precision)
negative_predictive_value = _named("negative_predictive_value", "tn / (tn + fn)", _negatives)
false_negative_rate = _named(
    "false_negative_rate", "1 - sensitivity", lambda *counts: 1 - _sensitivity(*counts)
)
false_positive_rate = _named(
    "false_positive_rate", "1 - specificity", lambda *counts: 1 - _specificity(*counts)
)
false_discovery_rate = _named(
    "false_discovery_rate", "1 - precision", lambda *counts: 1 - _precision(*counts)
)
false_omission_rate = _named(
    "false_omission_rate", "1 - negative predictive value", lambda *counts: 1 - _negatives(*counts)
)
positive_likelihood_ratio = _named(
    "positive_likelihood_ratio",
    "Sensitivity over false positive rate, which may be infinite",
    lambda *counts: _sensitivity(*counts) / (1 - _specificity(*counts)),
)
negative_likelihood_ratio = _named(
    "negative_likelihood_ratio",
    "False negative rate over specificity, which may be infinite",
    lambda *counts: (1 - _sensitivity(*counts)) / _specificity(*counts),
)
precision = positive_predictive_value
recall = sensitivity

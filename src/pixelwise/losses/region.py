"""Losses that compare regions: each is a formula in four sums over pixels, by class and by image or batch.

Letters: n batch, k classes; o overlap (soft true positives), p predicted size, t true size, c counted pixels.

Each takes `over`: "image" sums over the pixels of each image and averages images and classes, "batch" sums
over all pixels of the batch first. `absent` says what a class that the target lacks (in that image, or in the
batch) costs, since it has no overlap to measure:
- "skip": nothing, it is left out of the mean. The default of multiclass: the softmax makes the present classes
  pay for its false pixels.
- "area": the mean of its probability over the counted pixels, in [0, 1]: everything that is predicted is wrong,
  with a gradient that does not vanish however much that is. The default of binary and multilabel, where nobody
  else pays.
- "formula": what the formula gives with overlap and true size 0, as MONAI has it. Its gradient vanishes where
  much is predicted, and with smooth = 0 everywhere.
An image without a counted pixel is left out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from pixelwise.errors import InputError
from pixelwise.losses.inputs import (
    IGNORE,
    Inputs,
    Mode,
    Over,
    Reduction,
    full_precision,
    one_of,
    prepare,
    reduce_classes,
)

Absent = Literal["skip", "area", "formula"]


@dataclass(frozen=True)
class Sums:
    """Four sums (n, k), or (1, k) over the batch, and which of its entries are present or counted at all."""

    overlap: Tensor
    predicted: Tensor
    true: Tensor
    counted: Tensor

    @property
    def present(self) -> Tensor:
        return self.true > 0


def sums(inputs: Inputs, over: Over) -> Sums:
    """Sums of probabilities and truths by class: (n, k) over images, (1, k) over the batch."""
    one_of("over", over, Over)
    labels = inputs.labels
    n, k = inputs.logits.shape[:2]
    ones = labels.new_ones(()).expand_as(labels) if inputs.counted is None else inputs.counted.long()
    if inputs.by_class:
        p = inputs.probabilities()
        overlap, predicted = (p * labels.to(p.dtype)).sum(2), p.sum(2)
        true, counted = labels.sum(2), ones.sum(2)
    else:
        overlap, predicted = ClassSums.apply(inputs.logits, labels, inputs.counted)
        true = labels.new_zeros(n, k).scatter_add_(1, labels, ones)
        counted = ones.sum(1, keepdim=True).expand(n, k)
    four = [each.to(inputs.logits.dtype) for each in (overlap, predicted, true, counted)]
    return Sums(*(each.sum(0, keepdim=True) if over == "batch" else each for each in four))


class ClassSums(torch.autograd.Function):
    """(logits (n, k, x), labels (n, x), counted (n, x) or None) -> sums of the softmax, (n, k) twice.

    First over the counted pixels of the class itself (soft true positives), then over all counted pixels. On a
    CPU the cost is new memory of the size of the logits, which takes several times as long as a pass over it:
    here once for the probabilities and once for the gradient, where autograd needs three for the gradient.
    """

    @staticmethod
    def forward(ctx: Any, logits: Tensor, labels: Tensor, counted: Tensor | None) -> tuple[Tensor, Tensor]:
        p = logits.softmax(1)
        if counted is not None:
            p *= counted.unsqueeze(1)  # a probability of 0 has no gradient either
        own = p.gather(1, labels.unsqueeze(1)).squeeze(1)  # (n, x)
        overlap = p.new_zeros(p.shape[:2], dtype=torch.float64)  # of many small terms, one after another
        overlap.scatter_add_(1, labels, own.double())
        ctx.save_for_backward(p, own, labels)
        return overlap.to(p.dtype), p.sum(2)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, of_overlap: Tensor, of_predicted: Tensor) -> tuple[Tensor, None, None]:
        p, own, labels = ctx.saved_tensors
        own = own * of_overlap.gather(1, labels)
        gradient = p * of_predicted.unsqueeze(2)
        mean = gradient.sum(1).add_(own)  # (n, x)
        gradient.addcmul_(p, mean.unsqueeze(1), value=-1)
        return gradient.scatter_add_(1, labels.unsqueeze(1), own.unsqueeze(1)), None, None


def with_absent(loss: Tensor, of: Sums, mode: Mode, absent: Absent | None) -> tuple[Tensor, Tensor]:
    """(loss (n, k) or (1, k) with the rule for absent classes applied, which of its entries take part)."""
    if absent is None:
        absent = "skip" if mode == "multiclass" else "area"
    one_of("absent", absent, Absent)
    known = of.counted > 0
    if absent == "skip":
        return loss, known & of.present
    if absent == "area":
        loss = loss.where(of.present, of.predicted / of.counted.clamp(min=1))
    return loss, known


@full_precision
def tversky(
    logits: Tensor,
    target: Tensor,
    *,
    alpha: float = 0.3,
    beta: float = 0.7,
    smooth: float = 1.0,
    mode: Mode = "multiclass",
    over: Over = "batch",
    absent: Absent | None = None,
    classes: Sequence[int] | None = None,
    ignore_index: int | None = IGNORE,
    reduction: Reduction = "mean",
) -> Tensor:
    """One minus the Tversky index, 1 - (o + s) / (o + alpha (p - o) + beta (t - o) + s).

    alpha weighs false positives, beta false negatives; both 1/2 is Dice (with half its s), both 1 is Jaccard.
    The rest as for `dice`. Source: Tversky loss (Salehi 2017), eq. 3, and its best alpha and beta.
    """
    of = sums(prepare(logits, target, mode, ignore_index), over)
    loss = tversky_term(of, alpha, beta, smooth)
    return reduce_classes(*with_absent(loss, of, mode, absent), over, reduction, classes)


def tversky_term(of: Sums, alpha: float, beta: float, smooth: float) -> Tensor:
    """The wrong over everything, (alpha fp + beta fn) / (o + alpha fp + beta fn + s): exact near 0."""
    if min(alpha, beta, smooth) < 0:
        raise InputError(
            f"alpha, beta and smooth must be 0 or more, got alpha={alpha}, beta={beta}, smooth={smooth}"
        )
    wrong = alpha * (of.predicted - of.overlap) + beta * (of.true - of.overlap)
    whole = of.overlap + wrong + smooth
    return wrong / whole.where(whole > 0, 1)


@full_precision
def dice(
    logits: Tensor,
    target: Tensor,
    *,
    smooth: float = 1.0,
    mode: Mode = "multiclass",
    over: Over = "batch",
    absent: Absent | None = None,
    classes: Sequence[int] | None = None,
    ignore_index: int | None = IGNORE,
    reduction: Reduction = "mean",
) -> Tensor:
    """One minus soft Dice, 1 - (2 o + s) / (p + t + s), averaged over classes (and images).

    logits (n, k, ...), any real. multiclass: softmax, target (n, ...) in [0, k); binary: sigmoid, k is 1,
    target (n, ...) in {0, 1}; multilabel: sigmoid, target (n, k, ...) in {0, 1}; or ignore_index. smooth is s,
    in pixels. over, absent: see the top of this module. classes: numbers of those that take part, None for
    all. none: (k,) over the batch, (n, k) over images, 0 for those left out. In [0, 1], 0 is perfect.
    Source: V-Net (Milletari 2016), Dice loss layer; we leave out the squares in the denominator, as most
    later code.
    """
    of = sums(prepare(logits, target, mode, ignore_index), over)
    loss = tversky_term(of, 0.5, 0.5, smooth / 2)
    return reduce_classes(*with_absent(loss, of, mode, absent), over, reduction, classes)


@full_precision
def jaccard(
    logits: Tensor,
    target: Tensor,
    *,
    smooth: float = 1.0,
    mode: Mode = "multiclass",
    over: Over = "batch",
    absent: Absent | None = None,
    classes: Sequence[int] | None = None,
    ignore_index: int | None = IGNORE,
    reduction: Reduction = "mean",
) -> Tensor:
    """One minus soft intersection over union, 1 - (o + s) / (p + t - o + s).

    Arguments and shapes as for `dice`. In [0, 1], 0 is perfect. Source: Optimizing Intersection-Over-Union
    (Rahman and Wang 2016), eq. 3 to 5.
    """
    of = sums(prepare(logits, target, mode, ignore_index), over)
    loss = tversky_term(of, 1.0, 1.0, smooth)
    return reduce_classes(*with_absent(loss, of, mode, absent), over, reduction, classes)


@full_precision
def focal_tversky(
    logits: Tensor,
    target: Tensor,
    *,
    alpha: float = 0.3,
    beta: float = 0.7,
    gamma: float = 0.75,
    smooth: float = 1.0,
    mode: Mode = "multiclass",
    over: Over = "batch",
    absent: Absent | None = None,
    classes: Sequence[int] | None = None,
    ignore_index: int | None = IGNORE,
    reduction: Reduction = "mean",
) -> Tensor:
    """The Tversky loss of each class to the power of gamma, then averaged.

    gamma is the exponent itself (the paper writes 1/gamma with gamma 4/3); below 1 it raises small losses,
    and a loss of exactly 0 keeps a zero gradient. A class counted by its area is raised as well. The rest as
    for `tversky`. Source: Focal Tversky loss (Abraham and Khan 2019), eq. 4.
    """
    if gamma <= 0:
        raise InputError(f"gamma must be above 0, got {gamma}")
    of = sums(prepare(logits, target, mode, ignore_index), over)
    plain, known = with_absent(tversky_term(of, alpha, beta, smooth), of, mode, absent)
    raised = plain.where(plain > 0, 1).pow(gamma).where(plain > 0, 0)
    return reduce_classes(raised, known, over, reduction, classes)


@full_precision
def generalised_dice(
    logits: Tensor,
    target: Tensor,
    *,
    weight: Literal["square", "simple", "uniform"] = "square",
    mode: Mode = "multiclass",
    over: Over = "batch",
    ignore_index: int | None = IGNORE,
    reduction: Reduction = "mean",
) -> Tensor:
    """1 - 2 sum_k w o / sum_k w (p + t): one Dice of all classes, each weighted by its size in the target.

    w: 1/t^2 ("square"), 1/t ("simple") or 1 ("uniform"); 0 for a class that the target lacks, where the
    paper's is infinite. binary: background and foreground are the two classes, as in the paper. Logits and
    target as for `dice`. none: scalar over the batch, (n,) over images. In [0, 1], 0 is perfect.
    Source: Generalised Dice overlap (Sudre 2017), section 2.1.
    """
    powers = {"square": 2, "simple": 1, "uniform": 0}
    one_of("weight", weight, Literal["square", "simple", "uniform"])
    of = sums(prepare(logits, target, mode, ignore_index), over)
    if mode == "binary":
        negatives = Sums(
            of.counted - of.predicted - of.true + of.overlap,
            of.counted - of.predicted,
            of.counted - of.true,
            of.counted,
        )
        of = Sums(
            *(
                torch.cat([getattr(negatives, name), getattr(of, name)], 1)
                for name in ("overlap", "predicted", "true", "counted")
            )
        )
    smallest = of.true.where(of.present, torch.inf).amin(1, keepdim=True)  # so that weights are at most 1
    w = (smallest / of.true.clamp(min=1)).pow(powers[weight]).where(of.present, 0)
    known = of.present.any(1)
    both = (w * (of.predicted + of.true)).sum(1)
    loss = 1 - 2 * (w * of.overlap).sum(1) / both.where(known, 1)
    result = reduce_classes(loss.unsqueeze(1), known.unsqueeze(1), over, reduction, None)
    return result.squeeze(-1) if reduction == "none" else result


@full_precision
def mcc(
    logits: Tensor,
    target: Tensor,
    *,
    mode: Mode = "multiclass",
    over: Over = "batch",
    absent: Absent | None = None,
    classes: Sequence[int] | None = None,
    ignore_index: int | None = IGNORE,
    reduction: Reduction = "mean",
) -> Tensor:
    """One minus Matthews' correlation coefficient of each class against the rest, averaged.

    With soft counts, MCC = (o c - p t) / sqrt(p (c - p) t (c - t)): it needs pixels of the class and of the
    rest. A class that the target lacks follows `absent` ("formula" takes MCC as 0); one that fills it
    completely is left out ("skip") or costs the mean of 1 - its probability ("area"). The rest as for
    `dice`. In [0, 2], 0 is perfect, 1 is chance. Source: MCC loss (Abhishek and Hamarneh 2021), eq. 3.
    """
    of = sums(prepare(logits, target, mode, ignore_index), over)
    if absent is None:
        absent = "skip" if mode == "multiclass" else "area"
    one_of("absent", absent, Absent)
    counted = of.counted.clamp(min=1)
    o, p, t = of.overlap / counted, of.predicted / counted, of.true / counted  # shares: no product overflows
    mixed = (of.true > 0) & (of.true < of.counted)
    spread = (p * (1 - p)).clamp(min=0) + 1e-12  # a prediction without spread has no correlation, not NaN
    loss = 1 - (o - p * t) / (spread.sqrt() * (t * (1 - t)).where(mixed, 1).sqrt())
    known = of.counted > 0
    if absent == "skip":
        known = known & mixed
    elif absent == "area":
        loss = loss.where(mixed, torch.where(of.true > 0, 1 - p, p))
    else:
        loss = loss.where(mixed, 1.0)
    return reduce_classes(loss, known, over, reduction, classes)

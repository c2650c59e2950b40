"""SMP's losses: its classes, arguments and numbers. `pixelwise.losses` has those that we recommend.

>>> from pixelwise import smp                                                           # doctest: +SKIP
>>> loss = smp.losses.DiceLoss("multiclass", ignore_index=255)(logits, target)          # doctest: +SKIP

y_pred (n, k, ...), logits unless from_logits is False; y_true ids (n, ...) or (n, 1, ...), or for "multilabel"
(n, k, ...) of 0 and 1; any type of numbers, half precision is computed in float32. Where SMP fails or gives NaN
(nothing that counts, an id of another integer type, an absent smoothing) the result is finite; docs/from_smp.md says
what its numbers do not show. For hard targets in range most are numbers of `pixelwise.losses` as well, which check what
they are given and so cannot be traced, scripted or compiled whole, as SMP's can: a comment at each class says why it
is no call of those.

Letters: n batch, k classes, x pixels in a row.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.loss import _Loss

from pixelwise.errors import InputError, UnknownNameError
from pixelwise.smp.losses._functional import (
    focal_loss_with_logits,
    label_smoothed_nll_loss,
    precise,
    soft_dice_score,
    soft_jaccard_score,
    soft_tversky_score,
    to_tensor,
)

__all__ = [
    "BINARY_MODE",
    "MULTICLASS_MODE",
    "MULTILABEL_MODE",
    "DiceLoss",
    "FocalLoss",
    "JaccardLoss",
    "LovaszLoss",
    "MCCLoss",
    "SoftBCEWithLogitsLoss",
    "SoftCrossEntropyLoss",
    "TverskyLoss",
]

BINARY_MODE: str = "binary"
MULTICLASS_MODE: str = "multiclass"
MULTILABEL_MODE: str = "multilabel"


def _check_mode(mode: str, class_weights: object = None) -> None:
    if mode not in (BINARY_MODE, MULTICLASS_MODE, MULTILABEL_MODE):
        raise UnknownNameError("mode", mode, (BINARY_MODE, MULTICLASS_MODE, MULTILABEL_MODE))
    if class_weights is not None and mode == BINARY_MODE:
        raise InputError(
            "class_weights are for the modes multiclass and multilabel; there is one class in binary"
        )


# Not losses.dice, jaccard and tversky: soft targets, ready probabilities, eps, subclasses; traced and compiled whole
class _OverlapLoss(_Loss):
    """One minus `compute_score`; the arguments are those of `DiceLoss`."""

    def __init__(
        self,
        mode: str,
        classes: Sequence[int] | None = None,
        log_loss: bool = False,
        from_logits: bool = True,
        smooth: float = 0.0,
        ignore_index: int | None = None,
        eps: float = 1e-7,
        class_weights: Sequence[float] | None = None,
    ) -> None:
        _check_mode(mode, class_weights)
        if classes is not None and mode == BINARY_MODE:
            raise InputError(
                "classes are for the modes multiclass and multilabel; there is one class in binary"
            )
        super().__init__()
        self.mode = mode
        self.classes = None if classes is None else to_tensor(classes, dtype=torch.long)
        self.from_logits = from_logits
        self.smooth = smooth
        self.ignore_index = ignore_index
        self.eps = eps
        self.log_loss = log_loss
        self.class_weights = None if class_weights is None else to_tensor(class_weights, dtype=torch.float)

    def forward(self, y_pred: Tensor, y_true: Tensor) -> Tensor:
        if y_true.shape[0] != y_pred.shape[0]:
            raise InputError(
                f"y_pred has {len(y_pred)} images and y_true {len(y_true)}; give as many of both"
            )
        y_pred = precise(y_pred)
        if not y_pred.numel():
            return y_pred.sum()
        if self.from_logits:
            y_pred = y_pred.softmax(1) if self.mode == MULTICLASS_MODE else y_pred.sigmoid()
        n, k = y_true.shape[0], 1 if self.mode == BINARY_MODE else y_pred.shape[1]
        y_pred = y_pred.reshape(n, k, -1)
        y_true = y_true.reshape(n, 1 if self.mode == MULTICLASS_MODE else k, -1)
        counted = None if self.ignore_index is None else y_true != self.ignore_index  # (n, 1 or k, x)
        if counted is not None:
            y_pred, y_true = y_pred * counted, y_true * counted
        if self.mode == MULTICLASS_MODE:
            ones = y_pred.new_ones(()).expand(y_true.shape) if counted is None else counted.to(y_pred.dtype)
            y_true = _scattered(torch.zeros_like(y_pred), y_true.long(), ones)
        y_true = y_true.to(y_pred.dtype)  # (n, k, x)
        scores = self.compute_score(y_pred, y_true, smooth=self.smooth, eps=self.eps, dims=(0, 2))  # (k,)
        loss = -torch.log(scores.clamp_min(self.eps)) if self.log_loss else 1.0 - scores
        loss = loss * (y_true.sum((0, 2)) > 0)
        return self.aggregate_loss(loss if self.classes is None else loss[self.classes.to(loss.device)])

    def compute_score(
        self, output: Tensor, target: Tensor, smooth: float = 0.0, eps: float = 1e-7, dims: Any = None
    ) -> Tensor:
        """By class (k,), of output and target (n, k, x) in [0, 1]: for those who subclass."""
        raise NotImplementedError

    def aggregate_loss(self, loss: Tensor) -> Tensor:
        """The losses of the classes that take part (k',), to one number."""
        if self.class_weights is None:
            return loss.mean()
        weights = self.class_weights.to(loss.device)
        return _weighted_mean(loss, weights if self.classes is None else weights[self.classes])


def _scattered(zeros: Tensor, ids: Tensor, ones: Tensor) -> Tensor:
    """`ones` (n, 1, x) at the places that ids (n, 1, x) name along the axis of classes of `zeros` (n, k, x)."""
    try:
        return zeros.scatter(1, ids, ones)
    except RuntimeError as error:
        raise InputError(
            f"y_true must hold ids in [0, {zeros.shape[1]}), or ignore_index, got others; pass "
            "ignore_index= to leave them out"
        ) from error


def _weighted_mean(loss: Tensor, weights: Tensor) -> Tensor:
    whole = weights.sum()
    return (loss * weights).sum() / whole.where(whole != 0, torch.ones_like(whole))


class DiceLoss(_OverlapLoss):
    """One minus soft Dice, 2 tp / (2 tp + fp + fn), by class over the whole batch; then the mean of the classes.

    classes: numbers of those that take part, None for all. A class without a true pixel costs 0 and counts in the mean.
    log_loss: - log(score) instead, the score at least eps. smooth: pixels added above and below. eps: the least
    denominator. class_weights (k,): the mean is weighted.
    """

    def compute_score(
        self, output: Tensor, target: Tensor, smooth: float = 0.0, eps: float = 1e-7, dims: Any = None
    ) -> Tensor:
        return soft_dice_score(output, target, smooth, eps, dims)


class JaccardLoss(_OverlapLoss):
    """One minus soft intersection over union, tp / (tp + fp + fn); the rest as for `DiceLoss`."""

    def compute_score(
        self, output: Tensor, target: Tensor, smooth: float = 0.0, eps: float = 1e-7, dims: Any = None
    ) -> Tensor:
        return soft_jaccard_score(output, target, smooth, eps, dims)


class TverskyLoss(DiceLoss):
    """One minus Tversky's index, tp / (tp + alpha fp + beta fn), its mean to the power of gamma; as `DiceLoss`."""

    def __init__(
        self,
        mode: str,
        classes: Sequence[int] | None = None,
        log_loss: bool = False,
        from_logits: bool = True,
        smooth: float = 0.0,
        ignore_index: int | None = None,
        eps: float = 1e-7,
        alpha: float = 0.5,
        beta: float = 0.5,
        gamma: float = 1.0,
        class_weights: Sequence[float] | None = None,
    ) -> None:
        super().__init__(mode, classes, log_loss, from_logits, smooth, ignore_index, eps, class_weights)
        self.alpha = alpha
        self.beta = beta
        self.gamma = gamma

    def compute_score(
        self, output: Tensor, target: Tensor, smooth: float = 0.0, eps: float = 1e-7, dims: Any = None
    ) -> Tensor:
        return soft_tversky_score(output, target, self.alpha, self.beta, smooth, eps, dims)

    def aggregate_loss(self, loss: Tensor) -> Tensor:
        mean = super().aggregate_loss(loss)
        if self.gamma >= 0 and self.gamma == int(self.gamma):
            return mean**self.gamma
        positive = ~(
            mean <= 0
        )  # of 0, or of a rounding error below it, a root has no gradient; NaN stays NaN
        return torch.where(positive, mean, torch.ones_like(mean)) ** self.gamma * positive


# Not losses.focal: soft targets, normalized, reduced_threshold; the mean of means where labels are ignored by class
class FocalLoss(_Loss):
    """The binary focal loss of each class against the rest, in every mode; then the mean of the classes.

    alpha weighs positives by alpha and negatives by 1 - alpha. reduction, normalized, reduced_threshold: within each
    class, see `focal_loss_with_logits`. from_logits: False for probabilities, kept from eps to 1 - eps.
    """

    def __init__(
        self,
        mode: str,
        alpha: float | None = None,
        gamma: float | None = 2.0,
        ignore_index: int | None = None,
        from_logits: bool = True,
        eps: float = 1e-7,
        reduction: str | None = "mean",
        normalized: bool = False,
        reduced_threshold: float | None = None,
        class_weights: Sequence[float] | None = None,
    ) -> None:
        _check_mode(mode, class_weights)
        super().__init__()
        self.mode = mode
        self.from_logits = from_logits
        self.ignore_index = ignore_index
        self.reduction = reduction  # type: ignore[assignment]  # None for none, as in SMP
        self.eps = eps
        self.focal_loss_fn = partial(
            focal_loss_with_logits, alpha=alpha, gamma=gamma, reduced_threshold=reduced_threshold,
            reduction=reduction, normalized=normalized,
        )  # fmt: skip
        self.class_weights = None if class_weights is None else to_tensor(class_weights, dtype=torch.float)

    def forward(self, y_pred: Tensor, y_true: Tensor) -> Tensor:
        y_pred = precise(y_pred)
        if not self.from_logits:
            y_pred = torch.clamp(y_pred, self.eps, 1 - self.eps)
            y_pred = torch.log(y_pred) if self.mode == MULTICLASS_MODE else torch.log(y_pred / (1 - y_pred))
        if self.mode == BINARY_MODE:
            return self._of_class(y_pred.reshape(-1), y_true.reshape(-1), y_true.reshape(-1))
        losses = []
        for number in range(y_pred.shape[1]):
            of_class = y_pred[:, number]
            ids = y_true.reshape(of_class.shape) if self.mode == MULTICLASS_MODE else y_true[:, number]
            hits = ids == number if self.mode == MULTICLASS_MODE else ids
            losses.append(self._of_class(of_class, hits, ids))
        if self.class_weights is not None:
            weights = self.class_weights.to(y_pred.device)
            return _weighted_mean(torch.stack([loss.sum() for loss in losses]), weights)
        every = torch.cat([loss.reshape(-1) for loss in losses])
        return every.mean() if every.numel() else every.sum()

    def _of_class(self, y_pred: Tensor, y_true: Tensor, ids: Tensor) -> Tensor:
        if self.ignore_index is not None:
            counted = ids != self.ignore_index
            y_pred, y_true = y_pred[counted], y_true[counted]
        return self.focal_loss_fn(y_pred, y_true)


# Not losses.lovasz_*: soft targets, ids of no class (they are of the background there), the gradient of a gradient
class LovaszLoss(_Loss):
    """The Lovász extension of one minus IoU: of the hinge error, or for "multiclass" of the softmax's.

    per_image: each image by itself, then the mean; else the batch as one picture. Multiclass: the mean of the classes
    that are there. Multilabel: all classes as one picture. Takes logits; from_logits has no effect, as in SMP.
    """

    def __init__(
        self, mode: str, per_image: bool = False, ignore_index: int | None = None, from_logits: bool = True
    ) -> None:
        _check_mode(mode)
        super().__init__()
        self.mode = mode
        self.ignore_index = ignore_index
        self.per_image = per_image

    def forward(self, y_pred: Tensor, y_true: Tensor) -> Tensor:
        y_pred, n = precise(y_pred), y_pred.shape[0]
        of_picture = self._softmax if self.mode == MULTICLASS_MODE else self._hinge
        k = y_pred.shape[1] if self.mode == MULTICLASS_MODE else 1
        if not y_pred.numel():
            return y_pred.sum()
        pixels, ids = y_pred.reshape(n, k, -1).movedim(1, 0), y_true.reshape(n, -1)  # (k, n, x), (n, x)
        if not self.per_image:
            pixels, ids = pixels.reshape(k, 1, -1), ids.reshape(1, -1)
        return torch.stack([of_picture(pixels[:, i], ids[i]) for i in range(len(ids))]).mean()

    def _hinge(self, logits: Tensor, ids: Tensor) -> Tensor:
        """logits (1, x), ids (x,) -> scalar."""
        truth = ids.to(logits.dtype)
        return self._extension(1.0 - logits[0] * (2.0 * truth - 1.0), truth, ids)

    def _softmax(self, logits: Tensor, ids: Tensor) -> Tensor:
        """logits (k, x), ids (x,) -> scalar."""
        probabilities, losses = logits.softmax(0), []
        for number, of_class in enumerate(probabilities):
            hits = ids == number
            if number != self.ignore_index and hits.any():
                truth = hits.to(of_class.dtype)
                losses.append(self._extension((truth - of_class).abs(), truth, ids))
        return torch.stack(losses).mean() if losses else probabilities.sum() * 0.0

    def _extension(self, errors: Tensor, truth: Tensor, ids: Tensor) -> Tensor:
        """The errors, largest first, each times what it adds to one minus IoU; all (x,).

        Source: The Lovász-Softmax loss (Berman 2018), algorithm 1.
        """
        if self.ignore_index is not None:  # last, where they cost nothing and change nobody's share
            ignored = ids == self.ignore_index
            errors, truth = errors.masked_fill(ignored, -torch.inf), truth.masked_fill(ignored, 0.0)
        errors, order = torch.sort(errors, descending=True)
        truth = truth[order]
        size = truth.sum()
        wrong = 1.0 - (size - truth.cumsum(0)) / (size + (1.0 - truth).cumsum(0))
        steps = torch.cat([wrong[:1], wrong[1:] - wrong[:-1]])
        return (errors.relu() * steps).sum()


# Not losses.binary_cross_entropy: any axes and weights, targets beyond [0, 1]; TorchScript
class SoftBCEWithLogitsLoss(nn.Module):
    """torch's binary cross-entropy with ids to ignore (which count in the mean) and soft targets.

    smooth_factor s: the target t becomes t (1 - s) + (1 - t) s.
    """

    weight: Tensor | None
    pos_weight: Tensor | None

    def __init__(
        self,
        weight: Tensor | None = None,
        ignore_index: int | None = -100,
        reduction: str = "mean",
        smooth_factor: float | None = None,
        pos_weight: Tensor | None = None,
    ) -> None:
        super().__init__()
        self.ignore_index = ignore_index
        self.reduction = reduction
        self.smooth_factor = smooth_factor
        self.register_buffer("weight", weight)
        self.register_buffer("pos_weight", pos_weight)

    def forward(self, y_pred: Tensor, y_true: Tensor) -> Tensor:
        y_pred = precise(y_pred)
        y_true = y_true.reshape(y_pred.shape).to(y_pred.dtype)
        target = y_true
        if self.smooth_factor is not None:
            target = (1 - y_true) * self.smooth_factor + y_true * (1 - self.smooth_factor)
        loss = F.binary_cross_entropy_with_logits(
            y_pred, target, self.weight, pos_weight=self.pos_weight, reduction="none"
        )
        if self.ignore_index is not None:
            loss = loss.masked_fill(y_true == self.ignore_index, 0.0)
        if self.reduction == "mean":
            return loss.mean()
        if self.reduction == "sum":
            return loss.sum()
        return loss


# Not losses.cross_entropy: one class alone, and any axis of classes; traced and compiled whole
class SoftCrossEntropyLoss(nn.Module):
    """torch's cross-entropy with label smoothing, where ignored pixels count in the mean.

    dim: the axis of the classes in y_pred.
    """

    def __init__(
        self,
        reduction: str = "mean",
        smooth_factor: float | None = None,
        ignore_index: int | None = -100,
        dim: int = 1,
    ) -> None:
        super().__init__()
        self.smooth_factor = smooth_factor
        self.ignore_index = ignore_index
        self.reduction = reduction
        self.dim = dim

    def forward(self, y_pred: Tensor, y_true: Tensor) -> Tensor:
        return label_smoothed_nll_loss(
            F.log_softmax(precise(y_pred), self.dim),
            y_true,
            epsilon=self.smooth_factor,
            ignore_index=self.ignore_index,
            reduction=self.reduction,
            dim=self.dim,
        )


# Not losses.mcc: takes probabilities and adds eps to each count; TorchScript
class MCCLoss(_Loss):
    """One minus Matthews' correlation coefficient of the whole batch, for one class.

    y_pred: probabilities (n, h, w) or (n, 1, h, w); y_true: 0 and 1, of either shape. eps is added to each of the four
    counts.
    """

    def __init__(self, eps: float = 1e-5) -> None:
        super().__init__()
        self.eps = eps

    def forward(self, y_pred: Tensor, y_true: Tensor) -> Tensor:
        p = precise(y_pred).reshape(-1)
        t = y_true.reshape(-1).to(p.dtype)
        tp, tn = (p * t).sum() + self.eps, ((1 - p) * (1 - t)).sum() + self.eps
        fp, fn = (p * (1 - t)).sum() + self.eps, ((1 - p) * t).sum() + self.eps
        product = (tp + fp) * (tp + fn) * (tn + fp) * (tn + fn)
        known = ~(product <= 0)  # with eps 0 there may be nothing to correlate; NaN stays NaN
        mcc = (tp * tn - fp * fn) / torch.where(known, product, torch.ones_like(product)).sqrt()
        return 1.0 - torch.where(known, mcc, torch.zeros_like(mcc))

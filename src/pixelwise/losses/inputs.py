"""What every loss does first and last: check and flatten what came in, reduce what goes out.

Letters: n batch, k classes, ... any number of spatial axes (h w, or d h w), x all pixels of an image in a row.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeVar, cast, get_args

import torch
from torch import Tensor

from pixelwise.errors import InputError, UnknownNameError

Mode = Literal["binary", "multiclass", "multilabel"]
Over = Literal["image", "batch"]
Reduction = Literal["none", "mean", "sum"]

IGNORE = 255

Function = TypeVar("Function", bound=Callable[..., Tensor])


def full_precision(loss: Function) -> Function:
    """Decorator: inside `loss` autocast is off, so that no sum over pixels is taken in half precision."""

    @functools.wraps(loss)
    def wrapped(logits: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        with torch.autocast(logits.device.type, enabled=False):
            return loss(logits, *args, **kwargs)

    return cast(Function, wrapped)


def one_of(argument: str, value: object, allowed: object) -> None:
    """Raise UnknownNameError unless `value` is one of the strings of the Literal `allowed`."""
    if value not in get_args(allowed):
        raise UnknownNameError(argument, value, get_args(allowed))


@dataclass(frozen=True)
class Inputs:
    """Logits and target with their pixels in a row, target checked and without ignored ids.

    logits (n, k, x) float32 or float64. Multiclass: labels (n, x) int64 in [0, k), counted (n, x) bool.
    Binary and multilabel: labels (n, k, x) int64 in {0, 1}, counted (n, k, x) bool. counted is None where
    every pixel counts; labels of pixels that do not are 0. shape: that of the target without flattening.
    """

    logits: Tensor
    labels: Tensor
    counted: Tensor | None
    shape: torch.Size
    mode: Mode

    @property
    def by_class(self) -> bool:
        """Whether labels and counted have an axis of classes."""
        return self.mode != "multiclass"

    def hits(self) -> Tensor:
        """(n, k, x) bool: whether a pixel counts and is of the class."""
        if self.by_class:
            return self.labels.bool()  # ignored ones are 0
        classes = torch.arange(self.logits.shape[1], device=self.labels.device)
        hits = self.labels.unsqueeze(1) == classes[:, None]  # (n, k, x)
        return hits if self.counted is None else hits & self.counted.unsqueeze(1)

    def counted_by_class(self) -> Tensor:
        """(n, 1 or k, x) bool: whether a pixel counts."""
        if self.counted is None:
            return torch.ones((), dtype=torch.bool, device=self.labels.device).expand(
                self.logits.shape[0], 1, self.logits.shape[2]
            )
        return self.counted if self.by_class else self.counted.unsqueeze(1)

    def probabilities(self) -> Tensor:
        """(n, k, x): softmax or sigmoid of the logits, 0 where a pixel does not count."""
        p = self.logits.sigmoid() if self.by_class else self.logits.softmax(1)
        return p if self.counted is None else p.masked_fill(~self.counted_by_class(), 0.0)


def prepare(
    logits: Tensor, target: Tensor, mode: Mode, ignore_index: int | None, *, soft: bool = False
) -> Inputs:
    """Check (logits, target) and lay their pixels in a row; every loss states the same contract.

    logits (n, k, ...) of a floating type; half precision becomes float32. target: multiclass (n, ...) in
    [0, k); binary (n, ...) or (n, 1, ...) in {0, 1}, with k = 1; multilabel (n, k, ...) in {0, 1}; of bool or
    any integer type, and `ignore_index` (if not None) anywhere. soft: a floating target in [0, 1] is taken
    as well, and labels are of the type of the logits.
    Raises InputError that names the shapes, or the first id out of range and its place.
    """
    one_of("mode", mode, Mode)
    if not logits.is_floating_point() or logits.ndim < 2:
        raise InputError(
            f"logits must be a floating tensor (n, k, ...), got {logits.dtype} {tuple(logits.shape)}"
        )
    n, k = logits.shape[:2]
    spatial = logits.shape[2:]
    if mode == "multiclass" and k < 2:
        raise InputError("multiclass logits need 2 classes or more, got 1; pass mode='binary'")
    if mode == "binary" and k != 1:
        raise InputError(f"binary logits must be (n, 1, ...), got {k} classes; pass mode='multiclass'")
    expected = (n, k, *spatial) if mode == "multilabel" else (n, *spatial)
    if mode == "binary" and target.shape == logits.shape:
        target = target.squeeze(1)
    if target.shape != expected:
        raise InputError(
            f"{mode} logits {tuple(logits.shape)} need a target of shape {expected}, got {tuple(target.shape)}"
        )
    if target.is_floating_point() and not soft:
        raise InputError(f"target must hold ids of bool or an integer type, got {target.dtype}")
    labels, counted = check_ids(target, k if mode == "multiclass" else 2, ignore_index)
    pixels = spatial.numel()
    flat = (n, pixels) if mode == "multiclass" else (n, k, pixels)
    precise = logits if logits.dtype == torch.float64 else logits.float()
    return Inputs(
        logits=precise.reshape(n, k, pixels).contiguous(),  # channels_last comes as a view
        labels=labels.to(precise.dtype if soft else torch.int64).reshape(flat),
        counted=None if counted is None else counted.reshape(flat),
        shape=target.shape,
        mode=mode,
    )


def check_ids(target: Tensor, classes: int, ignore_index: int | None) -> tuple[Tensor, Tensor | None]:
    """(target with 0 where ignored, which pixels count); None instead of the latter if all of them do."""
    if target.dtype == torch.bool:
        target = target.to(torch.uint8)
    elif target.dtype in (torch.uint16, torch.uint32, torch.uint64):  # torch compares only few of these
        target = target.to(torch.int64)
    counted: Tensor | None = None
    lowest, highest = ends(target)
    if ignore_index is not None and not (ignore_index < lowest or ignore_index > highest):  # it may occur
        mask = target != ignore_index
        if not mask.all():
            counted, target = mask, target.where(mask, 0)
            lowest, highest = ends(target)
    if not (lowest >= 0 and highest <= classes - 1):  # a NaN is refused as well
        place = tuple(((target >= 0) & (target <= classes - 1)).logical_not().nonzero()[0].tolist())
        advice = (
            f"pass ignore_index={target[place].item()} to leave such pixels out"
            if ignore_index is None
            else f"only ignore_index={ignore_index} may lie outside"
        )
        raise InputError(
            f"target holds {target[place].item()} at {place}, but must be in [0, {classes}); {advice}"
        )
    return target, counted


def ends(target: Tensor) -> tuple[float, float]:
    """The lowest and highest id, NaN if there is a NaN, (0, 0) if there is nothing."""
    if not target.numel():
        return 0.0, 0.0
    lowest, highest = (float(end) for end in target.aminmax())
    return lowest, highest


def reduce_pixels(
    loss: Tensor, inputs: Inputs, reduction: Reduction, weights: Tensor | None = None
) -> Tensor:
    """A loss by pixel to what was asked for; ignored pixels are 0, weigh nothing and have no gradient.

    loss: of the shape of inputs.labels. none: of the shape of the target; sum: scalar; mean: scalar, the sum
    over the number of pixels that count, or over the sum of their `weights` (by which loss is multiplied).
    """
    one_of("reduction", reduction, Reduction)
    if weights is not None:
        loss = loss * weights
    if inputs.counted is not None:
        loss = loss.masked_fill(~inputs.counted, 0.0)
    if reduction == "none":
        return loss.reshape(inputs.shape)
    total = loss.sum()
    if reduction == "sum":
        return total
    if weights is not None:
        share = weights.expand_as(loss)
        size = (share if inputs.counted is None else share.masked_fill(~inputs.counted, 0.0)).sum()
        return total / size.where(size > 0, 1)  # no weight, no loss
    if inputs.counted is None:
        return total / max(loss.numel(), 1)
    return total / inputs.counted.sum().clamp(min=1)


def reduce_classes(
    loss: Tensor, known: Tensor, over: Over, reduction: Reduction, classes: Sequence[int] | None
) -> Tensor:
    """A loss by image and class to what was asked for; a class that is not `known` is left out.

    loss (n, k), or (1, k) where the batch is one picture; known (the same) bool; classes: the class numbers
    that take part, None for all. none: (n, k') or, over the batch, (k'), with 0 for those left out; sum and
    mean: scalar, over those that are not; 0 with zero gradients if there are none.
    """
    one_of("reduction", reduction, Reduction)
    if classes is not None:
        check_classes(classes, loss.shape[1])
        loss, known = loss[:, list(classes)], known[:, list(classes)]
    loss = loss.masked_fill(~known, 0.0)
    if reduction == "none":
        return loss.squeeze(0) if over == "batch" else loss
    return loss.sum() if reduction == "sum" else loss.sum() / known.sum().clamp(min=1)


def reduce_maps(
    loss: Tensor, inputs: Inputs, reduction: Reduction, classes: Sequence[int] | None, spatial: torch.Size
) -> Tensor:
    """A loss by pixel and class (n, k, x) to what was asked for; ignored pixels are 0.

    none: (n, k', ...) of the `classes` that take part; sum: scalar; mean: scalar, over the counted pixels of
    those classes.
    """
    one_of("reduction", reduction, Reduction)
    counted = inputs.counted_by_class().expand_as(loss)
    if classes is not None:
        check_classes(classes, loss.shape[1])
        loss, counted = loss[:, list(classes)], counted[:, list(classes)]
    loss = loss.masked_fill(~counted, 0.0)
    if reduction == "none":
        return loss.reshape(*loss.shape[:2], *spatial)
    return loss.sum() if reduction == "sum" else loss.sum() / counted.sum().clamp(min=1)


def check_classes(classes: Sequence[int], k: int) -> None:
    """Raise InputError unless `classes` are some of the numbers 0 to k - 1."""
    if not len(classes) or not all(0 <= number < k for number in classes):
        raise InputError(f"classes must be numbers in [0, {k}), got {list(classes)}")

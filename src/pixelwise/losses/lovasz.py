"""The Lovász extension of the Jaccard loss: a surrogate of 1 - IoU that is exact at hard predictions.

With a class's errors sorted, largest first, the loss is sum_i e_i (J_i - J_(i-1)), where J_i is the Jaccard loss
of a prediction that is wrong in the first i pixels. Of g pixels of the class, h hits and b others come up to i:

    J_i = 1 - (g - h) / (g + b);   a step is 1 / (g + b) for a hit, (g - h) / ((g + b - 1) (g + b)) for another.

So once all hits have come (h = g), steps are 0: a pixel of another class whose error is below all errors of the
class's own pixels has neither a share in the loss nor a gradient, and need not be sorted. Early in training
that is most of them. Source: The Lovász-Softmax loss (Berman 2018), algorithm 1 and eq. 9 to 11.

Letters: n batch, k classes, x pixels of an image, m errors that are sorted.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from pixelwise.errors import InputError
from pixelwise.losses.inputs import IGNORE, Over, Reduction, full_precision, one_of, prepare, reduce_classes


@full_precision
def lovasz_softmax(
    logits: Tensor,
    target: Tensor,
    *,
    over: Over = "batch",
    classes: Sequence[int] | None = None,
    ignore_index: int | None = IGNORE,
    reduction: Reduction = "mean",
) -> Tensor:
    """Lovász extension of 1 - IoU at the softmax, averaged over the classes that the target has.

    logits (n, k, ...), any real; target (n, ...) ids in [0, k) or ignore_index. An error is 1 - p at the
    pixels of a class and p at the others. over: one picture made of the whole batch, or each image by itself.
    classes: numbers of those that take part, None for all. none: (k,) over the batch, (n, k) over images, 0
    for absent classes. In [0, 1], 0 is perfect.
    """
    one_of("over", over, Over)
    inputs = prepare(logits, target, "multiclass", ignore_index)
    loss, known = LovaszSoftmax.apply(inputs.logits, inputs.labels, inputs.counted, over)
    return reduce_classes(loss, known, over, reduction, classes)


@full_precision
def lovasz_hinge(
    logits: Tensor,
    target: Tensor,
    *,
    mode: Literal["binary", "multilabel"] = "binary",
    over: Over = "image",
    classes: Sequence[int] | None = None,
    ignore_index: int | None = IGNORE,
    reduction: Reduction = "mean",
) -> Tensor:
    """Lovász extension of 1 - IoU at the hinge errors max(0, 1 - s logits), s = 1 in the class, -1 outside.

    binary: logits (n, 1, ...), target (n, ...) in {0, 1}; multilabel: both (n, k, ...); or ignore_index. A
    class that the target lacks costs its largest error, which is what the formula gives for g = 0. none: (k,)
    over the batch, (n, k) over images. In [0, inf), 0 when every logit has a margin of 1.
    """
    one_of("over", over, Over)
    if mode not in ("binary", "multilabel"):
        raise InputError(f"mode must be 'binary' or 'multilabel', got {mode!r}; use lovasz_softmax instead")
    inputs = prepare(logits, target, mode, ignore_index)
    errors = (1 - inputs.logits.where(inputs.labels.bool(), -inputs.logits)).relu()  # (n, k, x)
    if inputs.counted is not None:
        errors = errors.masked_fill(~inputs.counted, 0.0)  # an error of 0 costs nothing
    hits, counted = inputs.hits(), inputs.counted_by_class().expand_as(errors)
    if over == "batch":  # (1, k, n x)
        errors, hits, counted = (each.transpose(0, 1).flatten(1)[None] for each in (errors, hits, counted))
    loss: Tensor = LovaszExtension.apply(errors, hits)
    return reduce_classes(loss, counted.any(2), over, reduction, classes)


class LovaszExtension(torch.autograd.Function):
    """(errors (n, k, x), 0 or more; hits (n, k, x)) -> the loss by row, (n, k)."""

    @staticmethod
    def forward(ctx: Any, errors: Tensor, hits: Tensor) -> Tensor:
        losses, gradient = errors.new_zeros(errors.shape[:2]), torch.zeros_like(errors)
        for i in range(errors.shape[0]):
            for c in range(errors.shape[1]):
                error, hit = errors[i, c], hits[i, c]
                total = int(hit.sum())
                lowest = error[hit].amin() if total else error.new_zeros(())
                place = ((error > lowest) | (hit & (error > 0))).nonzero().squeeze(1)
                if place.numel():
                    losses[i, c], steps = extension(error[place], hit[place], total)
                    gradient[i, c, place] = steps
        ctx.save_for_backward(gradient)
        return losses

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor, None]:
        (gradient,) = ctx.saved_tensors
        return gradient * upstream.unsqueeze(2), None


class LovaszSoftmax(torch.autograd.Function):
    """(logits (n, k, x), labels (n, x), counted (n, x) or None, over) -> loss and presence, (n or 1, k).

    Beside the probabilities, what is kept for the gradient is probability times derivative, with the places
    of the pixels that were sorted where these are few.
    """

    @staticmethod
    def forward(
        ctx: Any, logits: Tensor, labels: Tensor, counted: Tensor | None, over: Over
    ) -> tuple[Tensor, Tensor]:
        n, k = logits.shape[:2]
        probabilities = logits.softmax(1)
        kind = labels.to(torch.int16 if k < 2**15 else torch.int64)
        if counted is not None:
            kind = kind.masked_fill(~counted, -1)
        rows = [slice(0, n)] if over == "batch" else [slice(i, i + 1) for i in range(n)]
        losses = logits.new_zeros(len(rows), k)
        known = torch.zeros(len(rows), k, dtype=torch.bool, device=logits.device)
        shares: list[tuple[int, int, Tensor | None, Tensor]] = []
        for picture, row in enumerate(rows):
            own = kind[row].reshape(-1)
            for c in range(k):
                hit = own == c
                ours = hit.nonzero().squeeze(1)
                if not ours.numel():
                    continue
                p = probabilities[row, c].reshape(-1)
                p_ours = p[ours]
                lowest = (1 - p_ours.amax()).clamp_(min=0)
                # Ours are left out of the others by a probability of 0, as is what does not count.
                p_others = p.masked_fill(hit if counted is None else hit | (own < 0), 0.0)
                others = (p_others > lowest).nonzero().squeeze(1)
                place = torch.cat([ours, others])
                p_here = torch.cat([p_ours, p[others]])
                errors, hits = p_here.clone(), torch.zeros_like(place, dtype=torch.bool)
                errors[: len(ours)] = (1 - p_ours).clamp_(min=0)
                hits[: len(ours)] = True
                losses[picture, c], steps = extension(errors, hits, len(ours))
                known[picture, c] = True
                share = steps.mul_(p_here)
                share[: len(ours)].neg_()
                if len(place) > len(p) // 8:  # so many that all are fewer bytes than some and their places
                    shares.append((picture, c, None, torch.zeros_like(p).scatter_(0, place, share)))
                else:
                    shares.append((picture, c, place, share))
        ctx.save_for_backward(probabilities)
        ctx.shares = shares
        ctx.mark_non_differentiable(known)
        ctx.rows = rows
        return losses, known

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor, _: Tensor) -> tuple[Tensor, None, None, None]:
        (probabilities,) = ctx.saved_tensors
        n, k, x = probabilities.shape
        mean = probabilities.new_zeros(n, x)  # sum over classes of p times the gradient at p
        for picture, c, place, share in ctx.shares:
            here = mean[ctx.rows[picture]]  # (1 or n, x)
            if place is None:
                here.addcmul_(share.view_as(here), upstream[picture, c])
            else:
                here.view(-1).index_add_(0, place, share * upstream[picture, c])
        gradient = probabilities * mean.neg_().unsqueeze(1)
        for picture, c, place, share in ctx.shares:
            here = gradient[ctx.rows[picture], c]  # (1 or n, x)
            if place is None:
                here.addcmul_(share.view_as(here), upstream[picture, c])
            else:
                image = place.div(x, rounding_mode="floor")
                flat = gradient[ctx.rows[picture]].view(-1)
                flat.index_add_(0, place + (image * (k - 1) + c) * x, share * upstream[picture, c])
        return gradient, None, None, None


def extension(errors: Tensor, hits: Tensor, total: int) -> tuple[Tensor, Tensor]:
    """(the loss, its step for each error in their order); errors (m,) of 0 or more, hits (m,), total hits g.

    Errors that are left out must have a step or a value of 0 (see the top of this module).
    """
    if total == 0:
        steps = torch.zeros_like(errors)
        steps[errors.argmax()] = 1
        return errors.amax(), steps
    order, sorted_errors, hit = largest_first(errors, hits)
    h = hit.cumsum(0, dtype=torch.int32)
    whole = torch.arange(1 + total, len(order) + 1 + total, device=order.device, dtype=torch.int32).sub_(h)
    one = whole.to(errors.dtype).reciprocal_()  # 1 / (g + b)
    others = (total - h).to(errors.dtype).mul_(one).div_(whole.sub_(1).clamp_(min=1))
    steps = torch.where(hit, one, others)
    loss = torch.dot(sorted_errors, steps)
    return loss, torch.empty_like(steps).scatter_(0, order, steps)


def largest_first(errors: Tensor, hits: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """(indices that sort errors (m,) of 0 or more, largest first; errors and hits in that order).

    On a CPU float32 errors are packed with hits and places into integers of 64 bits, whose order is the same
    and which NumPy sorts an order of magnitude faster (by vector instructions) than torch sorts with indices.
    """
    if errors.device.type != "cpu" or errors.dtype != torch.float32 or not 1000 < errors.numel() < 2**31:
        order = errors.argsort(descending=True)
        return order, errors[order], hits[order]
    bits = errors.contiguous().view(torch.int32)  # of non-negative floats: in the same order
    packed = (0x7FFFFFFF - bits).to(torch.int64)
    packed = packed.mul_(2).add_(hits).mul_(1 << 31).add_(torch.arange(len(bits)))
    packed.numpy().sort()
    order = packed & 0x7FFFFFFF
    packed >>= 31
    hit = (packed & 1).bool()
    packed >>= 1
    return order, (0x7FFFFFFF - packed.to(torch.int32)).view(torch.float32), hit

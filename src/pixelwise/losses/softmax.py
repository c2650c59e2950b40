"""Softmax, its target's log probability and its sums by class, without a tensor of probabilities in memory.

A tensor of the size of the logits costs more to allocate than the mathematics on it, so on a CPU the work goes
block by block through buffers that stay in the cache, and the backward pass computes the softmax again from
the logits and the logarithm of its denominator. On other devices one block is the whole batch.

Letters: n batch, k classes, x pixels of an image, b pixels of a block.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

BLOCK = 1 << 17  # logits in a block: half a megabyte of float32
SERIAL = (1 << 15) - 1  # as many as torch works on in one thread

Block = tuple[slice, slice]
Result = TypeVar("Result")


def blocks(logits: Tensor) -> list[Block]:
    """Which images and which pixels make a block of logits (n, k, x)."""
    n, k, x = logits.shape
    if logits.device.type != "cpu":
        return [(slice(0, n), slice(0, x))]
    limit = BLOCK if torch.get_num_threads() == 1 else SERIAL
    size = max(64, limit // k // 64 * 64)  # whole cache lines
    if 2 * x <= size:  # several images fit into one block
        images = size // max(x, 1)
        return [(slice(first, first + images), slice(0, x)) for first in range(0, n, images)]
    return [(slice(i, i + 1), slice(at, at + size)) for i in range(n) for at in range(0, x, size)]


def in_threads(work: Callable[[list[Block]], Result], logits: Tensor) -> list[Result]:
    """work(blocks) of as many runs of blocks as torch may use threads; their results in order.

    A thread for a run of blocks, not torch's threads for each operation on a block: those would wait for each
    other several times a block, which takes very long on a machine that is busy with other things too.
    """
    every = blocks(logits)
    threads = min(torch.get_num_threads(), len(every) // 8) if logits.device.type == "cpu" else 1
    if threads < 2:
        return [work(every)]
    edges = [len(every) * i // threads for i in range(threads + 1)]

    def one(run: list[Block]) -> Result:
        with torch.no_grad():  # which is a matter of each thread
            return work(run)

    with ThreadPoolExecutor(threads) as pool:
        return list(pool.map(one, (every[a:b] for a, b in pairwise(edges))))


class Scratch:
    """Memory for tensors of the size of a block, taken once: allocating anew costs as much as computing."""

    def __init__(self, logits: Tensor, run: list[Block]) -> None:
        size = max((logits[n, :, x].numel() for n, x in run), default=0)
        self.memory = logits.new_empty(size)

    def like(self, block: Tensor) -> Tensor:
        """Uninitialised, of the shape of `block`; the same memory each time."""
        return self.memory[: block.numel()].view(block.shape)


def exponentials(logits: Tensor, scratch: Scratch) -> tuple[Tensor, Tensor, Tensor]:
    """(exp(logits - largest), their sum over classes, log sum exp); (n, k, b), (n, 1, b), (n, 1, b)."""
    largest = logits.amax(1, keepdim=True)
    powers = torch.sub(logits, largest, out=scratch.like(logits)).exp_()
    total = powers.sum(1, keepdim=True)
    return powers, total, total.log().add_(largest)


def softmax(logits: Tensor, log_denominator: Tensor, scratch: Scratch) -> Tensor:
    """exp(logits - log sum exp); (n, k, b), (n, b) -> (n, k, b), in the scratch."""
    return torch.sub(logits, log_denominator.unsqueeze(1), out=scratch.like(logits)).exp_()


def log_denominator(logits: Tensor) -> Tensor:
    """log sum exp over the classes; (n, k, x) -> (n, x)."""
    result = logits.new_empty(logits.shape[0], logits.shape[2])

    def work(run: list[Block]) -> None:
        scratch = Scratch(logits, run)
        for n, x in run:
            result[n, x] = exponentials(logits[n, :, x], scratch)[2].squeeze(1)

    in_threads(work, logits)
    return result


class TargetLogProbability(torch.autograd.Function):
    """(logits (n, k, x), labels (n, x)) -> log softmax(logits) at the labels, (n, x)."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, labels: Tensor) -> Tensor:
        denominator = log_denominator(logits)
        ctx.save_for_backward(logits, labels, denominator)
        return logits.gather(1, labels.unsqueeze(1)).squeeze(1) - denominator

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor, None]:
        logits, labels, denominator = ctx.saved_tensors
        gradient = torch.empty_like(logits)

        def work(run: list[Block]) -> None:
            scratch = Scratch(logits, run)
            for n, x in run:
                g = upstream[n, x].unsqueeze(1)  # (n, 1, b)
                p = softmax(logits[n, :, x], denominator[n, x], scratch)  # (n, k, b)
                gradient[n, :, x] = p.mul_(-g).scatter_add_(1, labels[n, x].unsqueeze(1), g)

        in_threads(work, logits)
        return gradient, None


class ClassSums(torch.autograd.Function):
    """(logits (n, k, x), labels (n, x), counted (n, x) or None) -> sums of the softmax, (n, k) twice.

    First over the counted pixels of the class itself (soft true positives), then over all counted pixels.
    """

    @staticmethod
    def forward(ctx: Any, logits: Tensor, labels: Tensor, counted: Tensor | None) -> tuple[Tensor, Tensor]:
        denominator = logits.new_empty(labels.shape)

        def work(run: list[Block]) -> Tensor:
            sums = logits.new_zeros((2, *logits.shape[:2]), dtype=torch.float64)  # of many small terms
            scratch = Scratch(logits, run)
            for n, x in run:
                p, total, log_total = exponentials(logits[n, :, x], scratch)
                denominator[n, x] = log_total.squeeze(1)
                scale = total.reciprocal_()
                if counted is not None:
                    scale *= counted[n, x].unsqueeze(1)
                p *= scale
                own = p.gather(1, labels[n, x].unsqueeze(1)).squeeze(1)  # (n, b); 0 where not counted
                sums[0, n] = sums[0, n].scatter_add(1, labels[n, x], own.double())
                sums[1, n] += p.sum(2)
            return sums

        overlap, predicted = torch.stack(in_threads(work, logits)).sum(0).to(logits.dtype)
        ctx.save_for_backward(logits, labels, counted, denominator)
        return overlap, predicted

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, of_overlap: Tensor, of_predicted: Tensor) -> tuple[Tensor, None, None]:
        logits, labels, counted, denominator = ctx.saved_tensors
        gradient = torch.empty_like(logits)

        def work(run: list[Block]) -> None:
            scratch, more = Scratch(logits, run), Scratch(logits, run)
            for n, x in run:
                label = labels[n, x]
                p = softmax(logits[n, :, x], denominator[n, x], scratch)  # (n, k, b)
                if counted is not None:
                    p *= counted[n, x].unsqueeze(1)
                own = p.gather(1, label.unsqueeze(1)) * of_overlap[n].gather(1, label).unsqueeze(1)
                weighed = torch.mul(p, of_predicted[n].unsqueeze(2), out=more.like(p))
                mean = weighed.sum(1, keepdim=True).add_(own)  # (n, 1, b)
                weighed.addcmul_(p, mean, value=-1).scatter_add_(1, label.unsqueeze(1), own)
                gradient[n, :, x] = weighed

        in_threads(work, logits)
        return gradient, None, None


def target_log_probability(logits: Tensor, labels: Tensor) -> Tensor:
    """log softmax(logits) at the labels; (n, k, x), (n, x) int64 in [0, k) -> (n, x)."""
    result: Tensor = TargetLogProbability.apply(logits, labels)
    return result

"""The loops that NumPy cannot express well, compiled by numba on first use and cached on disk.

Importing this module imports numba (about half a second), so a cold command does without it: callers ask
`worth_it(pixels)` first. Threads: each kernel releases the GIL and works on a range of rows; `in_bands` deals
the ranges to a pool. That needs no threading layer, so kernels may be called from any number of threads.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from itertools import pairwise
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray


@cache
def _pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads(), thread_name_prefix="pixelwise")


@cache
def threads() -> int:
    """The number of CPUs this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def in_bands(kernel: Callable[..., Any], rows: int, *arguments: Any) -> None:
    """Run kernel(*arguments, first_row, end_row) over all rows, a band for each CPU (4 when there is much)."""
    bands = 1 if rows < 8 else min(threads() * 2, rows)
    edges = [rows * i // bands for i in range(bands + 1)]
    if bands == 1 or threads() == 1:
        kernel(*arguments, 0, rows)
        return
    futures = [_pool().submit(kernel, *arguments, a, b) for a, b in pairwise(edges)]
    for future in futures:
        future.result()


@njit(cache=True, nogil=True)
def coarse_argmax(
    logits: NDArray[np.float32], best: NDArray[np.float32], labels: NDArray[Any], first: int, end: int
) -> None:
    """labels[y, x] = the class with the largest logits[:, y, x], the lowest of equals; NaN never wins."""
    k, _, w = logits.shape
    for y in range(first, end):
        for x in range(w):
            best[y, x] = logits[0, y, x]
            labels[y, x] = 0
        for c in range(1, k):
            for x in range(w):
                if logits[c, y, x] > best[y, x]:
                    best[y, x] = logits[c, y, x]
                    labels[y, x] = c


@njit(cache=True, nogil=True)
def decide_rows(
    logits: NDArray[np.float32],
    coarse: NDArray[Any],
    row_start: NDArray[np.int64],
    row_weight: NDArray[np.float32],
    column_start: NDArray[np.int64],
    column_weight: NDArray[np.float32],
    labels: NDArray[Any],
    first: int,
    end: int,
) -> None:
    """Cells (y, x) of the coarse grid for y in [first, end): fill the pixels between four neighbouring logits.

    logits (k, h, w); coarse (h, w) their argmax; cell row y covers picture rows row_start[y] .. row_start[y+1],
    whose distance from coarse row y is row_weight; columns likewise. Where the corners agree the cell is filled;
    elsewhere only the classes that can win (their best corner is no worse than every corner of some class) are
    interpolated.
    """
    k, h, w = logits.shape
    corner = np.empty((4, k), np.float32)
    candidate = np.empty(k, np.int64)
    left = np.empty(k, np.float32)
    right = np.empty(k, np.float32)
    for y in range(first, end):
        i0, i1 = row_start[y], row_start[y + 1]
        if i0 == i1:
            continue
        below = min(y + 1, h - 1)
        for x in range(w):
            j0, j1 = column_start[x], column_start[x + 1]
            if j0 == j1:
                continue
            beside = min(x + 1, w - 1)
            c = coarse[y, x]
            if coarse[y, beside] == c and coarse[below, x] == c and coarse[below, beside] == c:
                for i in range(i0, i1):
                    for j in range(j0, j1):
                        labels[i, j] = c
                continue
            floor = np.float32(-np.inf)
            for c in range(k):
                a, b = logits[c, y, x], logits[c, y, beside]
                d, e = logits[c, below, x], logits[c, below, beside]
                floor = max(floor, min(min(a, b), min(d, e)))
            m = 0
            for c in range(k):
                a, b = logits[c, y, x], logits[c, y, beside]
                d, e = logits[c, below, x], logits[c, below, beside]
                if max(max(a, b), max(d, e)) >= floor:
                    candidate[m] = c
                    corner[0, m], corner[1, m], corner[2, m], corner[3, m] = a, b, d, e
                    m += 1
            for i in range(i0, i1):
                v = row_weight[i]
                for n in range(m):
                    left[n] = corner[0, n] * (np.float32(1) - v) + corner[2, n] * v
                    right[n] = corner[1, n] * (np.float32(1) - v) + corner[3, n] * v
                for j in range(j0, j1):
                    u = column_weight[j]
                    winner, most = 0, np.float32(-np.inf)
                    for n in range(m):
                        value = left[n] * (np.float32(1) - u) + right[n] * u
                        if value > most:
                            winner, most = n, value
                    labels[i, j] = candidate[winner]


@njit(cache=True, nogil=True)
def decide_rows_with_confidence(
    logits: NDArray[np.float32],
    row_start: NDArray[np.int64],
    row_weight: NDArray[np.float32],
    column_start: NDArray[np.int64],
    column_weight: NDArray[np.float32],
    labels: NDArray[Any],
    confidence: NDArray[np.float32],
    first: int,
    end: int,
) -> None:
    """As decide_rows, every class interpolated: confidence is the softmax probability of the winner."""
    k, h, w = logits.shape
    left = np.empty(k, np.float32)
    right = np.empty(k, np.float32)
    values = np.empty(k, np.float32)
    for y in range(first, end):
        below = min(y + 1, h - 1)
        for i in range(row_start[y], row_start[y + 1]):
            v = row_weight[i]
            for x in range(w):
                j0, j1 = column_start[x], column_start[x + 1]
                if j0 == j1:
                    continue
                beside = min(x + 1, w - 1)
                for c in range(k):
                    left[c] = logits[c, y, x] * (np.float32(1) - v) + logits[c, below, x] * v
                    right[c] = logits[c, y, beside] * (np.float32(1) - v) + logits[c, below, beside] * v
                for j in range(j0, j1):
                    u = column_weight[j]
                    winner, most = 0, np.float32(-np.inf)
                    for c in range(k):
                        values[c] = left[c] * (np.float32(1) - u) + right[c] * u
                        if values[c] > most:
                            winner, most = c, values[c]
                    total = np.float32(0)
                    for c in range(k):
                        total += np.exp(values[c] - most)
                    labels[i, j] = winner
                    confidence[i, j] = np.float32(1) / total

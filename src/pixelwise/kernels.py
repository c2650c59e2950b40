"""The loops that NumPy cannot express well, compiled by numba on first use and kept on disk (`compiling`).

Importing this module imports numba (about half a second), so a cold command does without it: callers ask
`worth_it(pixels)` first. Threads: each kernel releases the GIL and works on a range of rows; `in_bands` deals
the ranges to a pool. That needs no threading layer, so kernels may be called from any number of threads.
"""

from __future__ import annotations

import heapq
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pixelwise import exponential as ex
from pixelwise.compiling import compiled

ROWS_AT_ONCE = 16
"""Rows of a tile whose best classes `stitch_tile` keeps: they fit the nearest cache."""


@cache
def _pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads(), thread_name_prefix="pixelwise")


if hasattr(
    os, "register_at_fork"
):  # a forked process has none of the threads, and would wait for them for ever
    os.register_at_fork(after_in_child=_pool.cache_clear)


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


@compiled
def exp_of_negative(x: Any) -> Any:
    """exp(x), float32, for one x <= 0: `exponential.exp_of_negative`, operation by operation."""
    x = max(x, ex.LEAST)
    n = np.floor(x * ex.LOG2E + ex.HALF)
    r = x - n * ex.LOG2_HIGH - n * ex.LOG2_LOW
    p = ((((ex.C0 * r + ex.C1) * r + ex.C2) * r + ex.C3) * r + ex.C4) * r + ex.C5
    return (p * (r * r) + r + ex.ONE) * ex.HALVES[int(-n)]


@compiled
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


@compiled
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


@compiled
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
                        total += exp_of_negative(values[c] - most)
                    labels[i, j] = winner
                    confidence[i, j] = np.float32(1) / total


@compiled
def count_pairs(
    truth: NDArray[Any],
    answer: NDArray[Any],
    edges: NDArray[np.int64],
    k: int,
    ignore: Any,
    tables: NDArray[np.int64],
    first: int,
    end: int,
) -> None:
    """tables[part, t (k + 2) + p] += the pixels edges[part] .. edges[part + 1] of true class t given class p.

    truth, answer: flat, of integer types that hold k + 1 <= 255. A truth outside 0 .. k-1 is counted as k where
    it equals `ignore` and as k + 1 elsewhere, an answer outside as k. A block of pixels becomes 16-bit indices
    first, a loop without branches that the compiler does many lanes at a time. Then four indices go as one word
    to four private tables, so that no increment waits for the one before (to one where four would not fit into
    the first cache); words that repeat, as most do inside a region, are only counted. A part may hold 2**32 - 1
    pixels.
    """
    block = 4096
    indices = np.empty(block, np.uint16)
    words = indices.view(np.uint64)
    count = 4 if tables.shape[1] < 2500 else 1
    private = np.empty((count, tables.shape[1]), np.uint32)
    one, two, three, four = private[0], private[1 % count], private[2 % count], private[3 % count]
    low, bits = np.uint64(0xFFFF), np.uint64(16)
    top_truth, ignored, stray = truth.dtype.type(k), truth.dtype.type(k), truth.dtype.type(k + 1)
    top_answer = answer.dtype.type(k)
    stride = np.uint16(k + 2)
    for part in range(first, end):
        private[:] = 0
        at, stop = edges[part], edges[part + 1]
        while at < stop:
            n = min(block, stop - at)
            some_truth, some_answer = truth[at : at + n], answer[at : at + n]
            for i in range(n):
                t, p = some_truth[i], some_answer[i]
                beyond = ignored if t == ignore else stray
                t = t if (t >= 0) & (t < top_truth) else beyond
                p = p if (p >= 0) & (p < top_answer) else top_answer
                indices[i] = np.uint16(np.uint16(t) * stride + np.uint16(p))
            whole = n // 4
            if whole:
                word, times = words[0], np.uint32(0)
                for i in range(whole):
                    if words[i] == word:
                        times += np.uint32(1)
                        continue
                    one[word & low] += times
                    two[(word >> bits) & low] += times
                    three[(word >> bits >> bits) & low] += times
                    four[word >> bits >> bits >> bits] += times
                    word, times = words[i], np.uint32(1)
                one[word & low] += times
                two[(word >> bits) & low] += times
                three[(word >> bits >> bits) & low] += times
                four[word >> bits >> bits >> bits] += times
            for i in range(4 * whole, n):
                one[indices[i]] += np.uint32(1)
            at += n
        for n in range(count):
            for i in range(tables.shape[1]):
                tables[part, i] += np.int64(private[n, i])


@compiled
def warp(warped: NDArray[np.uint8], goal: NDArray[np.uint8], simple: NDArray[np.bool_]) -> int:
    """Flip simple points of `warped` that differ from `goal`, in reading order, until none is left; how many differ.

    warped, goal: (h, w) of 0 and 1 whose outermost pixels are 0 and stay so. simple (256,): by the eight
    neighbours, clockwise from the upper left, the first in bit 0.
    """
    h, w = goal.shape
    flipped = True
    different = 0
    while flipped:
        flipped = False
        different = 0
        for y in range(1, h - 1):
            for x in range(1, w - 1):
                if warped[y, x] == goal[y, x]:
                    continue
                around = (
                    warped[y - 1, x - 1]
                    | warped[y - 1, x] << 1
                    | warped[y - 1, x + 1] << 2
                    | warped[y, x + 1] << 3
                    | warped[y + 1, x + 1] << 4
                    | warped[y + 1, x] << 5
                    | warped[y + 1, x - 1] << 6
                    | warped[y, x - 1] << 7
                )
                if simple[around]:
                    warped[y, x] = goal[y, x]
                    flipped = True
                else:
                    different += 1
    return different


@compiled
def connected(labels: NDArray[Any], cut: NDArray[np.bool_], regions: NDArray[Any]) -> int:
    """Number the 4-connected regions of equal labels in reading order of their first pixels; how many there are.

    labels (h, w); where cut (h, w) is True a pixel does not belong with the one above it; regions (h, w) signed
    receives the numbers. Until the last line regions holds a forest of pixels: parents come earlier.
    """
    h, w = labels.shape
    parent = regions.reshape(-1)
    for y in range(h):
        for x in range(w):
            p = y * w + x
            beside = x > 0 and labels[y, x - 1] == labels[y, x]
            root = p
            if beside:
                root = parent[p - 1]
                while parent[root] != root:
                    root = parent[root]
            if y > 0 and not cut[y, x] and labels[y - 1, x] == labels[y, x]:
                above = parent[p - w]
                while parent[above] != above:
                    above = parent[above]
                if beside:
                    parent[max(root, above)] = min(root, above)
                root = min(root, above)
                parent[p - w] = root
            parent[p] = root
    count = 0
    for p in range(h * w):
        if parent[p] == p:
            parent[p] = -1 - count
            count += 1
        else:
            parent[p] = parent[parent[p]]
    for p in range(h * w):
        parent[p] = -1 - parent[p]
    return count


@compiled
def trace_rings(
    regions: NDArray[Any], junctions: bool
) -> tuple[NDArray[np.int32], NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """The borders of numbered regions along pixel edges, each walked with its region on the right.

    regions (h, w) as `connected` leaves them. Answers corners (n, 2) of column and row; where ring i ends in
    them; its region; its area, negative for a hole. Rings come in the reading order of the first pixel below
    their topmost edges, so that the first ring of a region is its outer one. Where a region touches itself at
    a corner the walk crosses to the other side, which leaves every ring simple. junctions: also a corner on
    straight lines where the region on the other side changes.
    """
    h, w = regions.shape
    seen = np.zeros((h, w), np.bool_)  # the upper edges that a ring has passed
    corners, n = np.empty((1024, 2), np.int32), 0
    rings, count = np.empty((256, 3), np.int64), 0
    for y0 in range(h):
        for x0 in range(w):
            me = regions[y0, x0]
            if seen[y0, x0] or (y0 > 0 and regions[y0 - 1, x0] == me):
                continue
            y, x, dy, dx = y0, x0, 0, 1  # the edge on the left of pixel (y, x) for one who looks along d
            area = 0
            while True:
                if dx == 1:
                    seen[y, x] = True
                area += (x + 1) * (dy == 1) - x * (dy == -1)
                ahead_y, ahead_x = y + dy, x + dx
                left_y, left_x = ahead_y - dx, ahead_x + dy
                ahead = left = other = -1
                if 0 <= ahead_y < h and 0 <= ahead_x < w:
                    ahead = regions[ahead_y, ahead_x]
                if 0 <= left_y < h and 0 <= left_x < w:
                    left = regions[left_y, left_x]
                if 0 <= y - dx < h and 0 <= x + dy < w:
                    other = regions[y - dx, x + dy]
                straight = left != me and ahead == me
                if not straight or (junctions and left != other):
                    if n == len(corners):
                        corners = np.concatenate((corners, np.empty_like(corners)))
                    corners[n, 0] = x + (dx + dy + 1) // 2
                    corners[n, 1] = y + (dy - dx + 1) // 2
                    n += 1
                if left == me:
                    y, x, dy, dx = left_y, left_x, -dx, dy
                elif ahead == me:
                    y, x = ahead_y, ahead_x
                else:
                    dy, dx = dx, -dy
                if y == y0 and x == x0 and dx == 1:
                    break
            if count == len(rings):
                rings = np.concatenate((rings, np.empty_like(rings)))
            rings[count, 0], rings[count, 1], rings[count, 2] = n, me, area
            count += 1
    return corners[:n].copy(), rings[:count, 0].copy(), rings[:count, 1].copy(), rings[:count, 2].copy()


@compiled
def fill_polygon(
    labels: NDArray[Any], corners: NDArray[np.float64], ends: NDArray[np.int64], value: int
) -> None:
    """labels[y, x] = value where the centre of the pixel lies inside an odd number of rings.

    corners (n, 2) of column and row, finite, pixel (0, 0) reaching from 0 to 1; ends (r,): where each ring ends in
    them. A centre on a left or upper edge is inside, on a right or lower one outside.
    """
    h, w = labels.shape
    low, high = np.ceil(corners[:, 1].min() - 0.5), np.ceil(corners[:, 1].max() - 0.5)
    top, bottom = int(max(low, 0)), int(min(high, h))
    low, high = np.ceil(corners[:, 0].min() - 0.5), np.ceil(corners[:, 0].max() - 0.5)
    left, right = int(max(low, 0)), int(min(high, w))
    if top >= bottom or left >= right:
        return
    crossed = np.zeros((bottom - top, right - left + 1), np.bool_)
    start = 0
    for end in ends:
        xa, ya = corners[end - 1]
        for i in range(start, end):
            xb, yb = corners[i]
            first, last = np.ceil(min(ya, yb) - 0.5), np.ceil(max(ya, yb) - 0.5)
            for y in range(int(max(first, top)), int(min(last, bottom))):
                x = np.ceil(xa + (y + 0.5 - ya) * (xb - xa) / (yb - ya) - 0.5)
                crossed[y - top, int(min(max(x, left), right)) - left] ^= True
            xa, ya = xb, yb
        start = end
    for y in range(top, bottom):
        inside = False
        for x in range(left, right):
            inside ^= crossed[y - top, x - left]
            if inside:
                labels[y, x] = value


@compiled
def stitch_tile(
    logits: NDArray[np.float32],
    window: NDArray[np.float32],
    row_cell: NDArray[np.int64],
    row_weight: NDArray[np.float32],
    column_cell: NDArray[np.int64],
    column_weight: NDArray[np.float32],
    below: NDArray[np.float32],
    beside: NDArray[np.float32],
    labels: NDArray[Any],
    confidence: NDArray[np.float32],
    left: int,
    inside: tuple[int, int],
    seen: tuple[int, int],
    finished: tuple[int, int],
    regions: bool,
    first: int,
    end: int,
) -> None:
    """Add one tile to the weighted sums of a picture and decide the pixels that it is the last to cover.

    logits (k, h, w), enlarged to the tile as `decide` does (cell, weight: see decide._Axis); window: the tile's
    weights. Of its `inside` pixels (height, width; the rest lies beyond the picture) earlier tiles have seen the
    first `seen` rows and columns, and no later one sees the first `finished`. Sums of seen pixels come from `beside`
    (planes, h, overlap), which the tile to the left has left, and `below` (planes, overlap, w), which the row of
    tiles above has; unfinished ones go there, moved by `finished`. The others become labels[y, left + x], and
    confidence unless that is empty; then planes = k + 1, the last for the sum of weights. regions: labels become the
    codes of overlapping regions (bit c: the sum of logit c is positive), confidence the smallest sigmoid(|logit|).

    Tile rows first, first + 1 .. end - 1 are done, and each with those that lie whole steps of finished[0] further
    down, in this order: row y + step writes what row y has read, and nobody else touches it. They are done some at a
    time, class by class, so that the logits are read as they lie in memory.
    """
    k, h, w = logits.shape
    planes = below.shape[0]
    rows, columns = inside
    step, done = finished
    enlarged = (h, w) != window.shape
    line = np.empty(w, np.float32)
    row = np.empty(columns, np.float32)
    best = np.empty((ROWS_AT_ONCE, done), np.float32)
    winner = np.empty((ROWS_AT_ONCE, done), np.int32)
    codes = np.empty((ROWS_AT_ONCE if regions else 0, done), np.uint64)
    sums = np.empty((planes if confidence.size else 0, ROWS_AT_ONCE, done), np.float32)
    total = np.empty(done, np.float32)
    for start in range(first, end, ROWS_AT_ONCE):
        count = min(ROWS_AT_ONCE, end - start)
        for top in range(start, rows, step):
            bottom = min(top + count, rows)
            for c in range(planes):
                for y in range(top, bottom):
                    weight = window[y]
                    if c == k:
                        for x in range(columns):
                            row[x] = weight[x]
                    elif enlarged:
                        cell, v = row_cell[y], row_weight[y]
                        after = min(cell + 1, h - 1)
                        for x in range(w):
                            line[x] = logits[c, cell, x] * (np.float32(1) - v) + logits[c, after, x] * v
                        for x in range(columns):
                            i, u = column_cell[x], column_weight[x]
                            value = line[i] * (np.float32(1) - u) + line[min(i + 1, w - 1)] * u
                            row[x] = value * weight[x]
                    else:
                        for x in range(columns):
                            row[x] = logits[c, y, x] * weight[x]
                    for x in range(seen[1]):
                        row[x] += beside[c, y, x]
                    if y < seen[0]:
                        for x in range(seen[1], columns):
                            row[x] += below[c, y, left + x]
                    for x in range(done, columns):
                        beside[c, y, x - done] = row[x]
                    if y >= step:
                        for x in range(done):
                            below[c, y - step, left + x] = row[x]
                        continue
                    highest, which = best[y - top], winner[y - top]
                    if regions:
                        if c < k:
                            code, bit = codes[y - top], np.uint64(1) << np.uint64(c)
                            for x in range(done):
                                before = np.uint64(0) if c == 0 else code[x]
                                code[x] = before | bit if row[x] > 0 else before
                                least = np.abs(row[x])
                                highest[x] = least if c == 0 or least < highest[x] else highest[x]
                    elif c == 0:
                        for x in range(done):
                            highest[x] = row[x]
                            which[x] = 0
                    elif c < k:
                        for x in range(done):
                            better = row[x] > highest[x]
                            highest[x] = row[x] if better else highest[x]
                            which[x] = c if better else which[x]
                    if confidence.size:
                        for x in range(done):
                            sums[c, y - top, x] = row[x]
            if top >= step:
                continue
            for y in range(top, bottom):
                highest, which = best[y - top], winner[y - top]
                if regions:
                    for x in range(done):
                        labels[y, left + x] = codes[y - top, x]
                    if confidence.size:
                        for x in range(done):
                            odds = exp_of_negative(-highest[x] / sums[k, y - top, x])
                            confidence[y, left + x] = np.float32(1) / (np.float32(1) + odds)
                    continue
                for x in range(done):
                    labels[y, left + x] = which[x]
                if confidence.size:
                    total[:] = 0
                    for c in range(k):
                        for x in range(done):
                            total[x] += exp_of_negative(
                                (sums[c, y - top, x] - highest[x]) / sums[k, y - top, x]
                            )
                    for x in range(done):
                        confidence[y, left + x] = np.float32(1) / total[x]


@compiled
def add_window(
    sums: NDArray[np.float32],
    logits: NDArray[np.float32],
    weights: NDArray[np.float32],
    top: int,
    left: int,
    first: int,
    end: int,
) -> None:
    """Add a window of a volume to weighted sums, in slices first, first + 1 .. end - 1.

    sums[c, z, top + y, left + x] += logits[c, z, y, x] * weights[z, y, x] of all that weights (d, h, w) has; where
    there is one more plane of sums than of logits, it gets the weights.
    """
    k = logits.shape[0]
    _, h, w = weights.shape
    for z in range(first, end):
        for c in range(k):
            for y in range(h):
                goal, line, weight = sums[c, z, top + y, left : left + w], logits[c, z, y], weights[z, y]
                for x in range(w):
                    goal[x] += line[x] * weight[x]
        if sums.shape[0] > k:
            for y in range(h):
                goal, weight = sums[k, z, top + y, left : left + w], weights[z, y]
                for x in range(w):
                    goal[x] += weight[x]


@compiled
def largest(
    sums: NDArray[np.float32], k: int, best: NDArray[np.float32], labels: NDArray[Any], first: int, end: int
) -> None:
    """labels[z, y, x] = the class with the largest sums[:k, z, y, x], the lowest of equals. best (d, w): to work in."""
    _, h, w = labels.shape
    for z in range(first, end):
        most = best[z]
        for y in range(h):
            line, found = sums[0, z, y], labels[z, y]
            for x in range(w):
                most[x] = line[x]
                found[x] = 0
            for c in range(1, k):
                line = sums[c, z, y]
                for x in range(w):
                    if line[x] > most[x]:
                        most[x] = line[x]
                        found[x] = c


@compiled
def _root(parent: NDArray[Any], i: int) -> int:
    """The root of i in a forest whose parents come earlier; the way there becomes shorter."""
    while parent[i] != i:
        parent[i] = parent[parent[i]]
        i = parent[i]
    return i


@compiled
def _join(parent: NDArray[Any], a: int, b: int) -> int:
    """One tree of those of a and b: its root. With a < 0 just b."""
    if a < 0 or a == b:
        return b
    a, b = _root(parent, a), _root(parent, b)
    parent[max(a, b)] = min(a, b)
    return min(a, b)


@compiled
def _add_sides(pairs: NDArray[np.uint64], sides: NDArray[np.int64], pair: Any, count: int) -> int:
    """sides[where pairs holds pair] += count, in a hash table with 0 for empty places; 1 for a new pair, else 0."""
    last = np.uint64(len(pairs) - 1)
    mixed = (pair ^ (pair >> np.uint64(29))) * np.uint64(0x9E3779B97F4A7C15)
    place = (mixed ^ (mixed >> np.uint64(32))) & last
    while pairs[place] != 0:
        if pairs[place] == pair:
            sides[place] += count
            return 0
        place = (place + np.uint64(1)) & last
    pairs[place], sides[place] = pair, count
    return 1


@compiled
def _pair(a: int, b: int) -> Any:
    return np.uint64(min(a, b)) << np.uint64(32) | np.uint64(max(a, b))


@compiled
def _join_run(
    parent: NDArray[np.int32], ids: NDArray[np.int32], before: NDArray[Any], c: Any, x: int, end: int, me: int
) -> int:
    """One tree of me (-1: none) and the pieces of class c beside the pixels x .. end - 1 of a row: its root."""
    last = -1
    for i in range(x, end):
        if before[i] == c and ids[i] != last:
            last = ids[i]
            me = _join(parent, me, last)
    return me


@compiled
def _border_run(
    pairs: NDArray[np.uint64],
    sides: NDArray[np.int64],
    ids: NDArray[np.int32],
    before: NDArray[Any],
    c: Any,
    x: int,
    end: int,
    me: int,
) -> int:
    """Add the sides between pixels x .. end - 1 of a row, of piece me and class c, and others; how many new pairs."""
    used = 0
    i = x
    while i < end:
        other, first = ids[i], i
        while i < end and ids[i] == other:
            i += 1
        if other >= 0 and before[first] != c:
            used += _add_sides(pairs, sides, _pair(other, me), i - first)
    return used


@compiled
def find_regions(
    labels: NDArray[Any],
    last: bool,
    flat: bool,
    before: NDArray[Any],
    ids: NDArray[np.int32],
    parent: NDArray[np.int32],
    areas: NDArray[np.int64],
    touches: NDArray[np.bool_],
    classes: NDArray[Any],
    count: int,
    pairs: NDArray[np.uint64],
    sides: NDArray[np.int64],
    used: int,
) -> tuple[int, NDArray[np.uint64], NDArray[np.int64], int]:
    """Read a band of a map: its pieces of regions, in reading order, and the pixel sides that pieces share.

    labels (n, h, w): the next n slices, 6-connected; before, ids (h, w): labels and pieces of the slice before
    (-1: there is none), afterwards of the last one. The equal pixels that follow each other in a row belong to
    the piece of an equal neighbour above or behind, else to a new one; pieces that turn out to be one region become one
    tree of `parent`. Pieces
    have areas in pixels, classes, and touches: they lie at the map's border (last: the band is the lowest; flat: the
    second axis has no border). These arrays have room for a piece a pixel. pairs, sides: a hash table, see
    `_add_sides`, of `used` pairs. Answers the numbers of pieces so far, and the table, which may have grown.
    """
    d, h, w = labels.shape
    for z in range(d):
        for y in range(h):
            if 2 * (used + 3 * w) > len(pairs):
                old_pairs, old_sides = pairs, sides
                size = 1024
                while size < 2 * (used + 3 * w):
                    size *= 2
                pairs, sides = np.zeros(size, np.uint64), np.zeros(size, np.int64)
                for i in range(len(old_pairs)):
                    if old_pairs[i] != 0:
                        _add_sides(pairs, sides, old_pairs[i], old_sides[i])
            border = (last and z == d - 1) or (not flat and (y == 0 or y == h - 1)) or ids[y, 0] < 0
            x = 0
            while x < w:
                c, end = labels[z, y, x], x + 1
                while end < w and labels[z, y, end] == c:
                    end += 1
                me = -1
                if ids[y, x] >= 0:
                    me = _join_run(parent, ids[y], before[y], c, x, end, me)
                if y > 0:
                    me = _join_run(parent, ids[y - 1], before[y - 1], c, x, end, me)
                if me < 0:
                    me = count
                    count += 1
                    parent[me], areas[me], touches[me], classes[me] = me, 0, False, c
                areas[me] += end - x
                touches[me] |= border or x == 0 or end == w
                if x > 0:
                    used += _add_sides(pairs, sides, _pair(ids[y, x - 1], me), 1)
                used += _border_run(pairs, sides, ids[y], before[y], c, x, end, me)
                if y > 0:
                    used += _border_run(pairs, sides, ids[y - 1], before[y - 1], c, x, end, me)
                ids[y, x:end] = me
                before[y, x:end] = c
                x = end
    return count, pairs, sides, used


@compiled
def relabel(
    labels: NDArray[Any],
    before: NDArray[Any],
    ids: NDArray[np.int32],
    count: int,
    classes: NDArray[Any],
    out: NDArray[Any],
) -> int:
    """Read a band again, with the same pieces as `find_regions`: out = the class of each pixel's piece.

    labels, out (n, h, w); before, ids (h, w) and the answer, the number of pieces so far, as there.
    """
    d, h, w = labels.shape
    for z in range(d):
        for y in range(h):
            x = 0
            while x < w:
                c, end, me = labels[z, y, x], x, np.int32(-1)
                while end < w and labels[z, y, end] == c:
                    if me < 0 and before[y, end] == c:
                        me = ids[y, end]
                    if me < 0 and y > 0 and before[y - 1, end] == c:
                        me = ids[y - 1, end]
                    end += 1
                if me < 0:
                    me = np.int32(count)
                    count += 1
                before[y, x:end] = c
                ids[y, x:end] = me
                out[z, y, x:end] = classes[me]
                x = end
    return count


@compiled
def region_graph(
    parent: NDArray[np.int32],
    areas: NDArray[np.int64],
    touches: NDArray[np.bool_],
    classes: NDArray[Any],
    pairs: NDArray[np.uint64],
    sides: NDArray[np.int64],
) -> tuple[int, NDArray[np.int32], tuple[NDArray[np.int64], NDArray[np.int32], NDArray[np.int64]]]:
    """From the pieces of `find_regions` to regions, numbered in reading order of their first pixels.

    Answers how many there are, the region of each piece, and the graph: the neighbours of region r stand from
    start[r] to start[r + 1], each with the pixel sides that it shares with r; one may stand there several times. The
    first places of areas, touches and classes become those of regions.
    """
    n = len(parent)
    region, count = np.empty(n, np.int32), 0
    for i in range(n):
        if parent[i] == i:
            region[i] = count
            areas[count], touches[count], classes[count] = areas[i], touches[i], classes[i]
            count += 1
        else:
            r = region[parent[i]]
            region[i] = r
            areas[r] += areas[i]
            touches[r] |= touches[i]
    low, bits = np.uint64(0xFFFFFFFF), np.uint64(32)
    start = np.zeros(count + 2, np.int64)
    for i in range(len(pairs)):
        if pairs[i] != 0:
            start[region[pairs[i] >> bits] + 2] += 1
            start[region[pairs[i] & low] + 2] += 1
    start = np.cumsum(start)
    neighbour, shared = np.empty(start[-1], np.int32), np.empty(start[-1], np.int64)
    for i in range(len(pairs)):
        if pairs[i] != 0:
            a, b = region[pairs[i] >> bits], region[pairs[i] & low]
            for one, other in ((a, b), (b, a)):
                at = start[one + 1]
                neighbour[at], shared[at] = other, sides[i]
                start[one + 1] += 1
    return count, region, (start[:-1], neighbour, shared)


@compiled
def fill_holes(classes: NDArray[Any], touches: NDArray[np.bool_], graph: Any, c: Any) -> None:
    """Regions that cannot be reached from the map's border without crossing class c become c."""
    start, neighbour, _ = graph
    reached = np.zeros(len(classes), np.bool_)
    stack, n = np.empty(len(classes), np.int32), 0
    for i in range(len(classes)):
        if touches[i] and classes[i] != c:
            reached[i] = True
            stack[n] = i
            n += 1
    while n:
        n -= 1
        i = stack[n]
        for e in range(start[i], start[i + 1]):
            other = neighbour[e]
            if not reached[other] and classes[other] != c:
                reached[other] = True
                stack[n] = other
                n += 1
    for i in range(len(classes)):
        if not reached[i]:
            classes[i] = c


@compiled
def _merge(a: int, b: int, forest: Any) -> int:
    """One region of a and b, both roots: the one that comes first in reading order."""
    parent, after, areas, _ = forest
    a, b = min(a, b), max(a, b)
    parent[b] = a
    areas[a] += areas[b]
    after[a], after[b] = after[b], after[a]
    return a


@compiled
def _give_one_away(
    region: int, forest: Any, graph: Any, border: NDArray[np.int64], met: NDArray[np.int32]
) -> int:
    """Give a region to the neighbour with the longest common border (see cleanup.py): the root of what comes of it.

    border: zeros, one a region, and so afterwards; met: room for all regions.
    """
    parent, after, areas, classes = forest
    start, neighbour, sides = graph
    n, member = 0, region
    while True:
        for e in range(start[member], start[member + 1]):
            other = _root(parent, neighbour[e])
            if other != region:
                if border[other] == 0:
                    met[n] = other
                    n += 1
                border[other] += sides[e]
        member = after[member]
        if member == region:
            break
    if n == 0:
        return region
    best = met[0]
    for i in range(1, n):
        one = met[i]
        if border[one] != border[best]:
            better = border[one] > border[best]
        elif areas[one] != areas[best]:
            better = areas[one] > areas[best]
        else:
            better = classes[one] < classes[best]
        best = one if better else best
    c, merged = classes[best], region
    for i in range(n):
        border[met[i]] = 0
        if classes[met[i]] == c:
            merged = _merge(merged, met[i], forest)
    classes[merged] = c
    return merged


@compiled
def merge_equals(forest: Any, graph: Any) -> None:
    """Neighbours of one class become one region; forest and graph as in `give_away`."""
    parent, _, _, classes = forest
    start, neighbour, _ = graph
    for i in range(len(parent)):
        for e in range(start[i], start[i + 1]):
            other = neighbour[e]
            if other < i and classes[other] == classes[i]:
                a, b = _root(parent, i), _root(parent, other)
                if a != b:
                    _merge(a, b, forest)


@compiled
def give_away(queue: NDArray[np.int64], min_area: int, forest: Any, graph: Any) -> None:
    """Give regions away, the smallest first; what comes of one and has fewer than min_area pixels, in its turn.

    queue: area * n + number of n regions, ascending. forest: parent and after (the circle of the members of a
    region), areas and classes, of the regions by number. graph: see `region_graph`. In min_area whoever is given away
    is the smallest region there is, so what comes of it is at least twice as large: a pair of neighbours is looked
    at as often as an area can double below min_area.
    """
    parent, _, areas, _ = forest
    n = len(parent)
    border, met = np.zeros(n, np.int64), np.empty(n, np.int32)
    again = [np.int64(0) for _ in range(0)]  # a heap
    at = 0
    while at < len(queue) or again:
        if at < len(queue) and (not again or queue[at] < again[0]):
            area, region = divmod(queue[at], n)
            at += 1
        else:
            area, region = divmod(heapq.heappop(again), n)
        if parent[region] == region and areas[region] == area:
            region = _give_one_away(region, forest, graph, border, met)
            if area < areas[region] < min_area:
                heapq.heappush(again, areas[region] * n + region)


@compiled
def add_shifted(
    padded: NDArray[np.float32],
    rows: NDArray[np.int64],
    places: NDArray[np.int64],
    weights: NDArray[np.float32],
    out: NDArray[np.float32],
    first: int,
    end: int,
) -> None:
    """out[y, x] += the sum over i of weights[i] * padded[y + rows[i], x + places[i]]; channels lie beside each other
    in x, so that a place is a column times their number."""
    wide = out.shape[1]
    for y in range(first, end):
        goal = out[y]
        for i in range(len(rows)):
            source, weight = padded[y + rows[i], places[i] : places[i] + wide], weights[i]
            for x in range(wide):
                goal[x] += weight * source[x]


@compiled
def add_enlarged(
    image: NDArray[np.float32],
    rows: NDArray[np.int64],
    columns: NDArray[np.int64],
    below: NDArray[np.float32],
    beyond: NDArray[np.float32],
    out: NDArray[np.float32],
    first: int,
    end: int,
) -> None:
    """out[y, x] += image (h', w', c) between rows[y] and the next one, the share below[y] of the way, and between
    columns[x] and the next, the share beyond[x]; past the last there is the last."""
    last, edge, channels = image.shape[0] - 1, image.shape[1] - 1, image.shape[2]
    for y in range(first, end):
        high, low, down = image[rows[y]], image[min(rows[y] + 1, last)], below[y]
        for x in range(out.shape[1]):
            left, right, across = columns[x], min(columns[x] + 1, edge), beyond[x]
            for c in range(channels):
                above = high[left, c] + across * (high[right, c] - high[left, c])
                under = low[left, c] + across * (low[right, c] - low[left, c])
                out[y, x, c] += above + down * (under - above)


@compiled
def take_neighbours(image: NDArray[np.uint8], offsets: NDArray[np.int8], reach: int) -> None:
    """In place, from the last pixel to the first and so many times as there are offsets (t, h, w, 2): each pixel takes
    the value of the one so many rows and columns away. `reach` pixels at the border, and one more at the top and the
    left, stay."""
    height, width, channels = image.shape
    for turn in range(offsets.shape[0]):
        for y in range(height - reach, reach, -1):
            for x in range(width - reach, reach, -1):
                row, column = y + offsets[turn, y, x, 0], x + offsets[turn, y, x, 1]
                for c in range(channels):
                    image[y, x, c] = image[row, column, c]


@compiled
def look_up(
    table: NDArray[np.float32], image: NDArray[np.uint8], out: NDArray[np.float32], first: int, end: int
) -> None:
    """out[c, y, x] = table[image[y, x, c], c] for y in [first, end) and three channels. table (256, 3)."""
    for y in range(first, end):
        for x in range(image.shape[1]):
            out[0, y, x] = table[image[y, x, 0], 0]
            out[1, y, x] = table[image[y, x, 1], 1]
            out[2, y, x] = table[image[y, x, 2], 2]


@compiled
def blend(
    table: NDArray[np.uint8],
    palette: NDArray[np.intp],
    rows: NDArray[np.uint8],
    image: NDArray[np.uint8],
    out: NDArray[np.uint8],
    first: int,
    end: int,
) -> None:
    """out[y, x, c] = table[palette[rows[y, x], c], image[y, x, c]] for y in [first, end) and three channels.

    table (257, 256): colour value, or 256 for none, and picture value to the blend; palette (k, 3).
    """
    w = rows.shape[1]
    for y in range(first, end):
        for x in range(w):
            row = rows[y, x]
            out[y, x, 0] = table[palette[row, 0], image[y, x, 0]]
            out[y, x, 1] = table[palette[row, 1], image[y, x, 1]]
            out[y, x, 2] = table[palette[row, 2], image[y, x, 2]]

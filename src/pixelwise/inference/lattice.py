"""The permutohedral lattice: a Gaussian sum over all pairs of pixels in time linear in the pixels.

Each pixel is a point in a space of d features (position, colour). The points lie in simplices of a lattice; a
filter shares each pixel's values among the d + 1 vertices of its simplex (splat), blurs the vertices along the
d + 1 directions of the lattice with weights 1/2, 1, 1/2, and reads the pixels' results off the same vertices
with the same weights (slice). Vertices that no pixel touches do not exist and count as zero.

    filtered_i ~ sum over all j of exp(-|f_i - f_j|^2 / 2) values_j

Source: Adams, Baek, Davis, Fast High-Dimensional Filtering Using the Permutohedral Lattice (2010). What the
paper leaves open (rounding, ties, scale, the order of the blurs) is done as in the code of Kraehenbuehl and
Koltun's dense CRF, which DeepLab uses, so that the numbers are theirs: see `Lattice`.

Letters: n pixels, d features, m vertices, k channels (classes). Threads as in `pixelwise.kernels`.
"""

# mypy: disallow-untyped-decorators=False
# (numba's njit has no types)

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from pixelwise.compiling import compiled
from pixelwise.errors import InputError
from pixelwise.kernels import in_bands

LANES = 8
"""Rows of values are padded to a multiple of this, so that the loops over channels run in whole vectors."""

FAST = {"contract", "reassoc", "nsz", "nnan"}
"""What the compiler may do where values are summed: fused operations, any order, no NaN. Not in the geometry."""


@dataclass(frozen=True)
class Lattice:
    """The vertices of a set of points, and how points and vertices are connected.

    vertex (n, d + 1) int32 and weight (n, d + 1) float32: where each point reads its result.
    neighbour (d + 1, m, 2) int32: the two vertices beside each one along each direction, m where there is none.
    start (m + 1) int64, point (n (d + 1)) int32, share (n (d + 1)) float32: what each vertex sums, its points in
    ascending order; so the sum is that of a plain loop over the points, whatever the number of threads.
    """

    vertex: NDArray[np.int32]
    weight: NDArray[np.float32]
    neighbour: NDArray[np.int32]
    start: NDArray[np.int64]
    point: NDArray[np.int32]
    share: NDArray[np.float32]

    @staticmethod
    def of(features: NDArray[np.float32]) -> Lattice:
        """The lattice of float32 features (n, d), each divided by the standard deviation of its Gaussian."""
        n, d = features.shape
        features = np.ascontiguousarray(features, np.float32)
        low, high, finite = _range(features)
        if not n or not d or not finite:
            raise InputError(
                f"the lattice needs finite features (n, d) of one point at least, got shape {features.shape}"
                f"{'' if finite else ' with NaN or infinity'}"
            )
        if n * (d + 1) > np.iinfo(np.int32).max:
            raise InputError(f"the lattice holds 2^31 connections, got {n} points of {d} features; use tiles")
        code = codes(low, high)
        names = np.empty((n, d + 1), np.int64)
        weight = np.empty((n, d + 1), np.float32)
        in_bands(_enclose, n, features, scales(d), code, names, weight)
        vertex = np.empty((n, d + 1), np.int32)
        table, number = _number(names, vertex)
        del names
        m = len(number)
        neighbour = np.empty((d + 1, m, 2), np.int32)
        in_bands(_find_neighbours, m, table, number, steps(code), neighbour)
        start = np.zeros(m + 1, np.int64)
        point = np.empty(vertex.size, np.int32)
        share = np.empty(vertex.size, np.float32)
        _by_vertex(vertex, weight, start, point, share)
        alpha = np.float32(1 / (1 + 2.0**-d))  # one over the sum that the blurs make of a single vertex
        return Lattice(vertex, weight * alpha, neighbour, start, point, share)

    @cached_property
    def mass(self) -> NDArray[np.float32]:
        """(n,) the filter of ones: how much each point receives in all."""
        ones = np.ones((len(self.vertex), LANES), np.float32)
        mass: NDArray[np.float32] = self.filter(ones)[:, 0].copy()
        return mass

    def scaled(self, before: NDArray[np.float32] | float = 1.0, after: Any = 1.0) -> Lattice:
        """The lattice whose filter multiplies by `before` (n,) what comes in and by `after` (n,) what comes out."""
        share = self.share * (before[self.point] if isinstance(before, np.ndarray) else np.float32(before))
        weight = self.weight * np.asarray(after, np.float32)[..., None]
        return replace(self, weight=weight, share=share)

    def filter(self, rows: NDArray[np.float32]) -> NDArray[np.float32]:
        """Filter float32 rows (n, k), k a multiple of LANES."""
        out = np.zeros_like(rows)
        self.slice_into(out, self.splat_and_blur(rows), out)
        return out

    def splat_and_blur(self, rows: NDArray[np.float32]) -> NDArray[np.float32]:
        """The values (m + 1, k) of the vertices, the last row zero."""
        m = len(self.start) - 1
        values = np.empty((m + 1, rows.shape[1]), np.float32)
        blurred = np.empty_like(values)
        values[m] = blurred[m] = 0
        in_bands(_splat, m, rows, self.start, self.point, self.share, values)
        for direction in self.neighbour:
            in_bands(_blur, m, values, direction, blurred)
            values, blurred = blurred, values
        return values

    def slice_into(
        self,
        rows: NDArray[np.float32],
        values: NDArray[np.float32],
        base: NDArray[np.float32],
        *,
        softmax: bool = False,
    ) -> None:
        """rows (n, k) = base (n, k) plus the weighted sum of the values of each point's vertices; then, on
        request, the softmax of each row."""
        in_bands(_slice, len(rows), values, self.vertex, self.weight, base, rows, softmax)


def softmax_into(rows: NDArray[np.float32], base: NDArray[np.float32]) -> None:
    """rows (n, k) = the softmax of each row of base (n, k)."""
    in_bands(_softmax_rows, len(rows), base, rows)


def scales(d: int) -> NDArray[np.float32]:
    """(d,) what features are multiplied by, so that lattice and blur together have a standard deviation of 1."""
    i = np.arange(d, dtype=np.float64)
    width = np.float32(np.sqrt(2 / 3) * (d + 1))
    factors: NDArray[np.float32] = (1 / np.sqrt((i + 1) * (i + 2)) * width).astype(np.float32)
    return factors


def codes(lowest: NDArray[np.floating[Any]], highest: NDArray[np.floating[Any]]) -> NDArray[np.int64]:
    """(d,) factors that make one int64 of a vertex' first d coordinates: code . coordinates, modulo 2^64.

    lowest, highest (d,): the range of each feature.

    Such a code is linear, so that the code of a neighbour is the vertex' own plus a constant. It is a number of
    mixed radix, different for all vertices that the features can reach, where such a number fits into 63 bits
    (five features may span 4000 steps each). Beyond, in spaces of many features, it is a random hash: two of a
    million vertices then share a code with a probability of about 3e-8.
    """
    d = len(lowest)
    scale = scales(d).astype(np.float64)
    low, high = lowest * scale, highest * scale
    radix = []
    for j in range(d):  # coordinate j is the sum of the later features minus j times the one before
        before = (j * low[j - 1], j * high[j - 1]) if j else (0.0, 0.0)
        span = (high[j:].sum() - before[0]) - (low[j:].sum() - before[1])
        radix.append(int(span) + 6 * (d + 1))  # rounding, canonical simplex, and a step to either side
    total = 1
    factors = []
    for r in radix:
        factors.append(total)
        total *= r
    if total < 2**63:
        return np.array(factors, np.int64)
    random: NDArray[np.int64] = np.random.default_rng(0).integers(-(2**63), 2**63, d, np.int64) | 1
    return random


def steps(code: NDArray[np.int64]) -> NDArray[np.int64]:
    """(d + 1,) what is added to a vertex' code to get that of its neighbour along each direction.

    A step along direction j takes 1 from every coordinate and adds d + 1 to coordinate j.
    """
    d = len(code)
    along: NDArray[np.int64] = np.append(code * np.int64(d + 1), np.int64(0)) - code.sum()
    return along


@compiled
def _range(features: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32], bool]:
    """The smallest and largest value of each column, and whether all values are finite."""
    low = np.full(features.shape[1], np.float32(np.inf))
    high = np.full(features.shape[1], np.float32(-np.inf))
    finite = True
    for n in range(features.shape[0]):
        for i in range(features.shape[1]):
            f = features[n, i]
            low[i] = f if f < low[i] else low[i]
            high[i] = f if f > high[i] else high[i]
            finite &= np.isfinite(f)
    return low, high, finite


@compiled
def _enclose(
    features: NDArray[np.float32],
    scale: NDArray[np.float32],
    code: NDArray[np.int64],
    names: NDArray[np.int64],
    weight: NDArray[np.float32],
    first: int,
    end: int,
) -> None:
    """The simplex of each point: the codes of its vertices and their barycentric weights.

    The point is lifted to d + 1 coordinates whose sum is zero, each is rounded to a multiple of d + 1 (halves to
    even), the remainders are ranked in descending order, and where the rounded ones do not sum to zero those of
    extreme rank move by d + 1. Vertex r is that point plus r in all coordinates, minus d + 1 where the rank is
    above d - r. All in float32 without fused operations, as the original has it: a remainder that is rounded
    differently is another simplex.
    """
    d = features.shape[1]
    one_by = np.float32(1) / np.float32(d + 1)
    width = np.float32(d + 1)
    lifted = np.empty(d + 1, np.float32)
    rounded = np.empty(d + 1, np.float32)
    rank = np.empty(d + 1, np.int64)
    by_rank = np.empty(d + 1, np.int64)
    share = np.empty(d + 2, np.float32)
    every = np.int64(0)
    for i in range(d):
        every += code[i]
    for n in range(first, end):
        tail = np.float32(0)
        for i in range(d, 0, -1):
            f = features[n, i - 1] * scale[i - 1]
            lifted[i] = tail - np.float32(i) * f
            tail += f
        lifted[0] = tail
        off = 0
        for i in range(d + 1):
            nearest = np.rint(one_by * lifted[i])
            rounded[i] = nearest * width
            off += int(nearest)
            rank[i] = 0
        for i in range(d):
            rest = lifted[i] - rounded[i]
            for j in range(i + 1, d + 1):
                if rest < lifted[j] - rounded[j]:
                    rank[i] += 1
                else:
                    rank[j] += 1
        for i in range(d + 1):
            rank[i] += off
            if rank[i] < 0:
                rank[i] += d + 1
                rounded[i] += width
            elif rank[i] > d:
                rank[i] -= d + 1
                rounded[i] -= width
        for i in range(d + 2):
            share[i] = 0
        name = np.int64(0)
        for i in range(d + 1):
            rest = (lifted[i] - rounded[i]) * one_by
            share[d - rank[i]] += rest
            share[d - rank[i] + 1] -= rest
            by_rank[rank[i]] = i
            if i < d:
                name += np.int64(rounded[i]) * code[i]
        share[0] += np.float32(1) + share[d + 1]
        for r in range(d + 1):
            if r:
                i = by_rank[d + 1 - r]
                name += every
                if i < d:
                    name -= np.int64(d + 1) * code[i]
            names[n, r] = name
            weight[n, r] = share[r]


@compiled(inline="always")
def _slot(name: np.int64, table: NDArray[np.int32], number: NDArray[np.int64]) -> Any:
    """Where `name` stands in the hash table, or the empty slot where it belongs."""
    mask = len(table) - 1
    mixed = np.uint64(name) * np.uint64(0x9E3779B97F4A7C15)
    slot = np.int64(mixed >> np.uint64(32)) & mask
    while table[slot] >= 0 and number[table[slot]] != name:
        slot = (slot + 1) & mask
    return slot


@compiled
def _number(
    names: NDArray[np.int64], vertex: NDArray[np.int32]
) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    """Number the codes in the order in which they come: vertex[i, r] is the number of names[i, r].

    Returns the hash table (a power of two long, numbers or -1, linear probing) and the code of each number.
    """
    table = np.full(1 << 12, -1, np.int32)
    number = np.empty(1 << 11, np.int64)
    m = 0
    for i in range(names.shape[0]):
        for r in range(names.shape[1]):
            name = names[i, r]
            if i and name == names[i - 1, r]:  # as one in three does in photographs
                vertex[i, r] = vertex[i - 1, r]
                continue
            slot = _slot(name, table, number)
            if table[slot] < 0:
                if m == len(number):
                    more = np.empty(2 * m, np.int64)
                    more[:m] = number
                    number = more
                    table = np.full(4 * m, -1, np.int32)
                    for v in range(m):
                        table[_slot(number[v], table, number)] = v
                    slot = _slot(name, table, number)
                table[slot] = m
                number[m] = name
                m += 1
            vertex[i, r] = table[slot]
    return table, number[:m].copy()


@compiled
def _find_neighbours(
    table: NDArray[np.int32],
    number: NDArray[np.int64],
    step: NDArray[np.int64],
    neighbour: NDArray[np.int32],
    first: int,
    end: int,
) -> None:
    m = len(number)
    for j in range(len(step)):
        for v in range(first, end):
            left = table[_slot(number[v] + step[j], table, number)]
            right = table[_slot(number[v] - step[j], table, number)]
            neighbour[j, v, 0] = left if left >= 0 else m
            neighbour[j, v, 1] = right if right >= 0 else m


@compiled
def _by_vertex(
    vertex: NDArray[np.int32],
    weight: NDArray[np.float32],
    start: NDArray[np.int64],
    point: NDArray[np.int32],
    share: NDArray[np.float32],
) -> None:
    """Sort the connections by vertex (counting sort, stable)."""
    n, corners = vertex.shape
    for i in range(n):
        for r in range(corners):
            start[vertex[i, r] + 1] += 1
    for v in range(len(start) - 1):
        start[v + 1] += start[v]
    at = start[:-1].copy()
    for i in range(n):
        for r in range(corners):
            v = vertex[i, r]
            point[at[v]] = i
            share[at[v]] = weight[i, r]
            at[v] += 1


@njit(inline="always")
def _softmax(row: NDArray[np.float32]) -> None:
    """Softmax in place, with exp written out so that the loop runs in vectors; the caller's FAST holds for it.

    exp(x) = 2^n exp(r), n = rint(x / ln 2), exp(r) by its Taylor series to r^7; 0 below -87, where float32 ends.
    The relative error is a few times the rounding error of x itself.
    """
    most = row[0]
    for c in range(1, len(row)):
        most = row[c] if row[c] > most else most
    total = np.float32(0)
    for c in range(len(row)):
        x = row[c] - most
        x = x if x > np.float32(-88) else np.float32(-88)
        n = np.rint(x * np.float32(1 / np.log(2)))
        r = x - n * np.float32(np.log(2))
        e = np.float32(1 / 5040)
        e = e * r + np.float32(1 / 720)
        e = e * r + np.float32(1 / 120)
        e = e * r + np.float32(1 / 24)
        e = e * r + np.float32(1 / 6)
        e = e * r + np.float32(0.5)
        e = e * r + np.float32(1)
        e = e * r + np.float32(1)
        e *= np.int32((np.int32(n) + np.int32(127)) << np.int32(23)).view(np.float32)
        e = e if x > np.float32(-87) else np.float32(0)
        row[c] = e
        total += e
    scale = np.float32(1) / total
    for c in range(len(row)):
        row[c] *= scale


@compiled(fastmath=FAST)
def _splat(
    rows: NDArray[np.float32],
    start: NDArray[np.int64],
    point: NDArray[np.int32],
    share: NDArray[np.float32],
    values: NDArray[np.float32],
    first: int,
    end: int,
) -> None:
    k = rows.shape[1]
    for v in range(first, end):
        for c in range(k):
            values[v, c] = 0
        for e in range(start[v], start[v + 1]):
            i, part = point[e], share[e]
            for c in range(k):
                values[v, c] += part * rows[i, c]


@compiled(fastmath=FAST)
def _blur(
    values: NDArray[np.float32],
    neighbour: NDArray[np.int32],
    blurred: NDArray[np.float32],
    first: int,
    end: int,
) -> None:
    half = np.float32(0.5)
    for v in range(first, end):
        left, right = neighbour[v, 0], neighbour[v, 1]
        for c in range(values.shape[1]):
            blurred[v, c] = values[v, c] + half * (values[left, c] + values[right, c])


@compiled(fastmath=FAST)
def _slice(
    values: NDArray[np.float32],
    vertex: NDArray[np.int32],
    weight: NDArray[np.float32],
    base: NDArray[np.float32],
    rows: NDArray[np.float32],
    softmax: bool,
    first: int,
    end: int,
) -> None:
    row = np.empty(rows.shape[1], np.float32)
    for i in range(first, end):
        for c in range(len(row)):
            row[c] = base[i, c]
        for r in range(vertex.shape[1]):
            v, part = vertex[i, r], weight[i, r]
            for c in range(len(row)):
                row[c] += part * values[v, c]
        if softmax:
            _softmax(row)
        for c in range(len(row)):
            rows[i, c] = row[c]


@compiled(fastmath=FAST)
def _softmax_rows(base: NDArray[np.float32], rows: NDArray[np.float32], first: int, end: int) -> None:
    row = np.empty(rows.shape[1], np.float32)
    for i in range(first, end):
        for c in range(len(row)):
            row[c] = base[i, c]
        _softmax(row)
        for c in range(len(row)):
            rows[i, c] = row[c]


@compiled(fastmath=FAST)
def interpolate(
    coarse: NDArray[np.float32],
    row: NDArray[np.int64],
    row_weight: NDArray[np.float32],
    column: NDArray[np.int64],
    column_weight: NDArray[np.float32],
    rows: NDArray[np.float32],
    first: int,
    end: int,
) -> None:
    """rows (h w, k) = coarse (y, x, k), bilinearly between the coarse row[i], column[j] and the ones after them."""
    one = np.float32(1)
    width = len(column)
    for i in range(first, end):
        above, v = row[i], row_weight[i]
        below = min(above + 1, coarse.shape[0] - 1)
        for j in range(width):
            left, u = column[j], column_weight[j]
            right = min(left + 1, coarse.shape[1] - 1)
            for c in range(coarse.shape[2]):
                upper = coarse[above, left, c] * (one - u) + coarse[above, right, c] * u
                lower = coarse[below, left, c] * (one - u) + coarse[below, right, c] * u
                rows[i * width + j, c] = upper * (one - v) + lower * v


@compiled
def columns(rows: NDArray[np.float32], out: NDArray[np.float32], first: int, end: int) -> None:
    """out (k, n) = the first k columns of rows."""
    for i in range(first, end):
        for c in range(len(out)):
            out[c, i] = rows[i, c]

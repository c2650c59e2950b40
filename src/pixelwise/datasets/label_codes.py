"""A number a pixel, whatever a label file holds: a grey value, an id, or the 24 bits of a colour; the nearest level."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pixelwise.errors import InputError

Codes = NDArray[np.uint32]
"""One number a pixel, (h, w): a grey value or id, or of a colour the 24 bits of R, G and B."""


def codes_of(values: NDArray[Any]) -> tuple[Codes, bool]:
    """(codes, whether they are colours) of what `images.read_values` gives: (h, w) or (h, w, c).

    Grey in three channels is grey; what is more than half transparent is black, and where nothing else is, the alpha
    channel is the label map. Raises InputError for numbers that are no whole ones of zero or more, and other shapes.
    """
    if values.dtype == bool:
        values = values.astype(np.uint8)
    if values.ndim == 3 and values.shape[2] in (2, 4):
        values = _without_alpha(values)
    if values.ndim == 3 and values.shape[2] == 1:
        values = values[..., 0]
    if values.dtype.kind == "f" and np.isfinite(values).all() and (values == np.round(values)).all():
        values = np.round(values).astype(np.int64)
    if values.dtype.kind not in "ui" or (
        values.size and not 0 <= int(values.min()) <= int(values.max()) < 2**32
    ):
        raise InputError(f"it should hold whole numbers of zero or more, got {values.dtype}")
    if values.ndim == 2:
        return values.astype(np.uint32), False
    if values.ndim != 3 or values.shape[2] != 3 or values.dtype != np.uint8:
        raise InputError(
            f"it should be (h, w) numbers or (h, w, 3) colours of 8 bits, got {values.dtype} {values.shape}"
        )
    red, green, blue = (np.asarray(values[..., i], np.uint32) for i in range(3))
    if (red == green).all() and (green == blue).all():
        return red, False
    return np.asarray(red << 16 | green << 8 | blue, np.uint32), True


def in_colors(codes: Codes) -> Codes:
    """Grey values of 8 bits as codes of colours."""
    colors: Codes = codes * np.uint32(0x010101)
    return colors


def color_of(code: int) -> tuple[int, int, int]:
    """The colour (R, G, B) of a code."""
    return code >> 16 & 255, code >> 8 & 255, code & 255


def nearest(codes: Codes, levels: Sequence[int], *, colored: bool) -> NDArray[np.intp]:
    """For each pixel the place of its level in `levels`, (h, w): the nearest, but of what lies between two levels that
    are beside it, the nearer of these two, so that no third class runs along a border."""
    known = np.array(levels, np.uint32)
    order = np.argsort(known)
    at = np.minimum(np.searchsorted(known[order], codes), len(known) - 1)
    exact = known[order][at] == codes
    places = np.where(exact, order[at], 0)
    rows, columns = np.nonzero(~exact)
    for start in range(0, len(rows), 2**16):
        y, x = rows[start : start + 2**16], columns[start : start + 2**16]
        points = points_of(codes[y, x], colored)
        to = np.linalg.norm(points[:, None] - points_of(known, colored)[None], axis=2)
        best = to.argmin(axis=1)
        if len(known) > 2:
            best = _between_neighbours(y, x, to, best, places, exact, points_of(known, colored))
        places[y, x] = best
    return places


def _between_neighbours(
    y: NDArray[Any], x: NDArray[Any], to: NDArray[Any], best: NDArray[Any], places: NDArray[Any],
    exact: NDArray[np.bool_], points: NDArray[Any],
) -> NDArray[Any]:  # fmt: skip
    """`best`, but where two levels within two pixels have the point between them, the nearer of these."""
    h, w = exact.shape
    beside = np.zeros(to.shape, bool)
    for down in range(-2, 3):
        for right in range(-2, 3):
            row, column = np.clip(y + down, 0, h - 1), np.clip(x + right, 0, w - 1)
            there = exact[row, column]
            beside[np.flatnonzero(there), places[row, column][there]] = True
    apart = np.linalg.norm(points[:, None] - points[None], axis=2)
    longer = np.full(len(y), 1.1)
    out: NDArray[Any] = best.copy()
    for a in range(len(points)):
        for b in range(a + 1, len(points)):
            both = beside[:, a] & beside[:, b]
            if both.any():
                detour = (to[:, a] + to[:, b]) / apart[a, b]
                taken = both & (detour < longer)
                out[taken] = np.where(to[taken, a] <= to[taken, b], a, b)
                longer[taken] = detour[taken]
    return out


def _without_alpha(values: NDArray[Any]) -> NDArray[Any]:
    shown, alpha = values[..., :-1], values[..., -1]
    solid = alpha >= (np.iinfo(alpha.dtype).max + 1) // 2 if alpha.dtype.kind in "ui" else alpha >= 0.5
    if solid.all():
        return np.asarray(shown if shown.shape[2] > 1 else shown[..., 0])
    if not shown[solid].any():  # black on nothing: only the alpha channel says where
        return np.asarray(alpha)
    kept = np.where(solid[..., None], shown, 0).astype(values.dtype)
    return np.asarray(kept if kept.shape[2] > 1 else kept[..., 0])


def grey_code(value: int) -> int:
    return value * 0x010101


def points_of(codes: NDArray[np.uint32], colored: bool) -> NDArray[np.float64]:
    """Codes as points (n, 3) or (n, 1), so that distances can be taken."""
    if not colored:
        return codes.astype(np.float64)[:, None]
    return np.stack([codes >> 16, codes >> 8 & 255, codes & 255], axis=1).astype(np.float64)

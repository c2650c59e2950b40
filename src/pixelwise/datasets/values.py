"""What the numbers in label files are: ids of classes, black and white, colours, numbered objects, or a blend of these.

`Census` looks at the files one by one and says it of all together; `nearest` turns values into levels. A level is a
value that fills areas: squares of 2 x 2 pixels. What antialiasing or JPEG puts between two levels fills none.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from pixelwise.errors import InputError

Codes = NDArray[np.uint32]
"""One number a pixel, (h, w): a grey value or id, or of a colour the 24 bits of R, G and B."""

LARGEST_PLAIN_ID = 63
"""Values up to this, and 255, are taken for ids of classes if nobody says more; black and white lie further apart."""

FLAT = 0.3
"""A level's squares of 2 x 2 pixels are at least so many times its pixels; those of a line two pixels wide are half."""

DENSE = 0.3
"""Of the numbers up to the highest so many are there where they are ids of many classes."""

MOST_IN_DOUBT = 0.3
"""Share of the pixels in doubt from which on these are no label maps; of a photograph it is about half."""

MOSTLY = 0.2
"""Share of the pixels in doubt up to which thin lines, which fill no areas, are black and white all the same."""

NEAR, NEAR_LOSSY = 24, 40
"""Values, of 255, by which two levels differ at least; JPEG puts some further away beside a level."""

IN_DOUBT = 0.25
"""A pixel further from the nearest level than this share of the way to the next one is in doubt."""

FEWEST_OBJECTS = 8
"""Of the picture that has most: fewer are classes."""

CHANCE = 7.0
"""Of the order in which few objects are numbered: e to the power of this to one against it."""

AREAS = 0.4
"""Label maps have at least so many squares of 2 x 2 equal pixels for each pixel."""

MOST_LEVELS = 256
MOST_CODES = 4096
"""Of one file that are kept, the most frequent ones; a photograph has more."""

Kind = Literal[
    "one value", "ids", "two values", "levels", "objects", "coloured objects", "photographs", "too near"
]


@dataclass(frozen=True)
class Look:
    """One file: its codes, and of each the pixels, the squares of 2 x 2 pixels, and the pieces. colors: of the indices
    of a palette. pixels: all of them. in_order: row by row, no code above 0 begins before the lower ones."""

    codes: NDArray[np.uint32]
    counts: NDArray[np.int64]
    squares: NDArray[np.int64]
    pieces: NDArray[np.int64]
    colored: bool
    lossy: bool
    pixels: int
    colors: dict[int, int] | None = None
    in_order: bool = False


@dataclass(frozen=True)
class Verdict:
    """What the values of all files are.

    levels: the codes that mean something, in the order of their ids. colored: codes are colours. exact: every pixel is
    one of the levels. by_index: of palettes the indices count, not the colours. in_doubt: share of the pixels that are
    nearly as far from one level as from another.
    """

    kind: Kind
    levels: tuple[int, ...] = ()
    colored: bool = False
    exact: bool = True
    by_index: bool = True
    in_doubt: float = 0.0


@dataclass
class Census:
    """Files are added one by one; `verdict` says what all of them are."""

    looks: list[Look] = field(default_factory=list)

    def add(
        self,
        codes: Codes,
        *,
        colored: bool = False,
        lossy: bool = False,
        colors: dict[int, int] | None = None,
    ) -> None:
        """codes: of a file. lossy: its kind keeps no exact values. colors: of its palette's indices."""
        values, places, counts = _unique(codes)
        squares = np.zeros(len(values), np.int64)
        pieces = np.zeros(len(values), np.int64)
        in_order = False
        if codes.size and len(values) > 1:
            rough = _roughly(codes) if lossy else places
            inner = rough[1:, 1:]
            same = (inner == rough[:-1, :-1]) & (inner == rough[:-1, 1:]) & (inner == rough[1:, :-1])
            squares = np.bincount(places[1:, 1:][same], minlength=len(values))
            if 2 < len(values) <= MOST_CODES:
                pieces = _pieces(places, len(values))
                in_order = _begin_in_order(places[codes > 0])
        else:
            squares[:] = counts
        if len(values) > MOST_CODES:
            kept = np.sort(np.argsort(counts)[-MOST_CODES:])
            values, counts, squares, pieces = values[kept], counts[kept], squares[kept], pieces[kept]
        self.looks.append(
            Look(
                values.astype(np.uint32),
                counts,
                squares,
                pieces,
                colored,
                lossy,
                codes.size,
                colors,
                in_order,
            )
        )

    def verdict(self, *, levels: Sequence[int] | None = None) -> Verdict:
        """What the files are. levels: their colours, where somebody says them."""
        looks, by_index = self._one_way()
        colored = any(look.colored for look in looks)
        if levels is not None and not colored and all(level == _grey(level & 255) for level in levels):
            levels = [level & 255 for level in levels]
        elif levels is not None:
            colored = True
        if colored:
            looks = [_as_colors(look) for look in looks]
        codes, counts, squares = _summed(looks)
        total = sum(look.pixels for look in looks)
        if levels is not None:
            known = np.isin(codes, np.array(levels, np.uint32))
            doubt = _doubt(codes, counts, np.array(levels, np.uint32), colored)
            exact = bool(known.all()) and counts.sum() == total
            return Verdict("levels", tuple(levels), colored, exact, by_index, doubt / max(total, 1))
        found = tuple(codes.tolist())
        lossy = any(look.lossy for look in looks)
        if lossy and not colored and len(found) > 1 and found[-1] < NEAR_LOSSY:
            return Verdict("too near", found, exact=False, by_index=by_index)
        if len(found) == 1:
            return Verdict("one value", found, colored, by_index=by_index)
        if len(found) == 2:
            return Verdict(
                "ids" if found == (0, 1) and not colored else "two values", found, colored, by_index=by_index
            )
        if not colored and not lossy and (_are_objects(looks) or int(codes[-1]) > 2**16):
            return Verdict("objects", found, by_index=by_index)
        if not colored and not lossy and max(c for c in found if c != 255) <= LARGEST_PLAIN_ID:
            return Verdict("ids", found, by_index=by_index)
        flat = squares >= FLAT * counts
        if not lossy and len(found) <= MOST_LEVELS and (~flat).sum() < max(3, flat.sum() + 1):
            if (
                not colored
                and len(found) > FEWEST_OBJECTS
                and len(found) >= DENSE * max(c for c in found if c != 255)
            ):
                return Verdict("ids", found, by_index=by_index)
            if colored and _are_colored_objects(looks, found):
                return Verdict("coloured objects", found, True, by_index=by_index)
            return Verdict("two values" if len(found) == 2 else "levels", found, colored, by_index=by_index)
        chosen = _apart(codes[flat], counts[flat], colored, NEAR_LOSSY if lossy else NEAR)
        if colored and _are_colored_objects(looks, chosen):
            return Verdict("coloured objects", tuple(chosen), True, False, by_index)
        if len(chosen) < 2 and not colored:
            chosen = [found[0], found[-1]]
            if _doubt(codes, counts, np.array(chosen, np.uint32), False) > MOSTLY * total:
                chosen = []
        if len(chosen) < 2 or len(chosen) > MOST_LEVELS or int(squares.sum()) < AREAS * total:
            return Verdict("photographs", colored=colored, by_index=by_index, in_doubt=1.0)
        doubt = _doubt(codes, counts, np.array(chosen, np.uint32), colored) + (total - int(counts.sum()))
        if doubt > MOST_IN_DOUBT * total:
            return Verdict("photographs", colored=colored, by_index=by_index, in_doubt=doubt / total)
        kind: Kind = "two values" if len(chosen) == 2 else "levels"
        return Verdict(kind, tuple(chosen), colored, False, by_index, doubt / max(total, 1))

    def _one_way(self) -> tuple[list[Look], bool]:
        """(looks, whether indices of palettes count): they do where all palettes agree, and either every file has one
        of different colours, or the indices and the numbers of the files without one are 0, 1, 2 ... and 255."""
        with_palette = [look for look in self.looks if look.colors is not None]
        if not with_palette:
            return self.looks, True
        color_of: dict[int, int] = {}
        agree = all(
            color_of.setdefault(index, color) == color
            for look in with_palette
            for index, color in (look.colors or {}).items()
        )
        if agree and len(with_palette) == len(self.looks) and len(set(color_of.values())) == len(color_of):
            return self.looks, True
        plain = [look for look in self.looks if look.colors is None]
        if agree and not any(look.colored or look.lossy for look in plain):
            numbers = {code for look in plain for code in look.codes.tolist()}
            ids = {code for look in with_palette for code in look.codes.tolist()} - {255}
            shown = bool(numbers - {0}) and {_grey(n) for n in numbers} <= {*color_of.values(), 0}
            if (
                ids == set(range(len(ids)))
                and (numbers - {255}) <= set(range(LARGEST_PLAIN_ID + 1))
                and not shown
            ):
                return self.looks, True
        return [look if look.colors is None else _as_colors(look) for look in self.looks], False


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
        points = _points(codes[y, x], colored)
        to = np.linalg.norm(points[:, None] - _points(known, colored)[None], axis=2)
        best = to.argmin(axis=1)
        if len(known) > 2:
            best = _between_neighbours(y, x, to, best, places, exact, _points(known, colored))
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


def _unique(codes: Codes) -> tuple[NDArray[np.uint32], NDArray[Any], NDArray[np.int64]]:
    """(values, the place of each pixel's among them, how many each has), quickly where they are small."""
    if codes.size == 0 or int(codes.max()) >= 2**16:
        values, places, counts = np.unique(codes, return_inverse=True, return_counts=True)
        return values, places.reshape(codes.shape), counts
    every = np.bincount(codes.ravel())
    there = np.flatnonzero(every)
    table = np.zeros(len(every), np.uint16)
    table[there] = np.arange(len(there))
    return there.astype(np.uint32), table[codes], every[there]


def _roughly(codes: Codes) -> Codes:
    """Codes that are equal where all channels nearly are, as JPEG leaves areas of one colour."""
    channels = [
        np.minimum((codes >> np.uint32(shift) & np.uint32(255)) + 8, 255) >> 4 for shift in (16, 8, 0)
    ]
    out: Codes = channels[0] << np.uint32(8) | channels[1] << np.uint32(4) | channels[2]
    return out


def _pieces(places: NDArray[Any], count: int) -> NDArray[np.int64]:
    """How many pieces each value has, at least: runs of a row with none of their value above them."""
    h, w = places.shape
    flat = places.ravel()
    begins = np.ones(h * w, bool)
    begins[1:] = flat[1:] != flat[:-1]
    begins[::w] = True
    starts = np.flatnonzero(begins)
    above = np.zeros((h, w), bool)
    above[1:] = places[1:] == places[:-1]
    joined = np.add.reduceat(above.ravel(), starts, dtype=np.int64)
    return np.bincount(flat[starts[joined == 0]], minlength=count)


def _grey(value: int) -> int:
    return value * 0x010101


def _as_colors(look: Look) -> Look:
    """The look with codes of colours: of the palette, or of grey values."""
    if look.colors is not None:
        codes = np.array([look.colors.get(int(code), 0) for code in look.codes], np.uint32)
        if all(code == _grey(code & 255) for code in codes.tolist()):
            return _with_codes(look, codes & np.uint32(255), colored=False)
        return _with_codes(look, codes, colored=True)
    if look.colored:
        return look
    if look.codes.size and int(look.codes.max()) > 255:
        raise InputError("some label maps hold colours, and others numbers above 255; bring them to one form")
    return _with_codes(look, in_colors(look.codes), colored=True)


def _with_codes(look: Look, codes: NDArray[np.uint32], *, colored: bool) -> Look:
    return Look(codes, look.counts, look.squares, look.pieces, colored, look.lossy, look.pixels)


def _summed(looks: Iterable[Look]) -> tuple[NDArray[np.uint32], NDArray[np.int64], NDArray[np.int64]]:
    """(codes, pixels, squares) of all files together."""
    looks = list(looks)
    codes, at = np.unique(np.concatenate([look.codes for look in looks]), return_inverse=True)
    sums = [
        np.bincount(at, np.concatenate(parts), len(codes)).astype(np.int64)
        for parts in ([look.counts for look in looks], [look.squares for look in looks])
    ]
    return codes, sums[0], sums[1]


def _are_objects(looks: Iterable[Look]) -> bool:
    """Objects are numbered from 1 in each file, in one piece each, and files have more or fewer of them."""
    looks = list(looks)
    counting = _count_from_one(looks)
    if counting and max(int(look.codes[-1]) for look in counting) >= FEWEST_OBJECTS:
        return True
    by_chance = sum(math.lgamma(int(look.codes[-1]) + 1) for look in counting)
    if counting and all(look.in_order or len(look.codes) <= 2 for look in counting) and by_chance > CHANCE:
        return True
    present = highest = whole = 0
    most = []
    for look in looks:
        numbers = look.codes > 0
        if not numbers.any():
            continue
        present += int(numbers.sum())
        highest += int(look.codes.max())
        whole += int((look.pieces[numbers] == 1).sum())
        most.append(int(numbers.sum()))
    if not most or max(most) < FEWEST_OBJECTS or whole < 0.7 * present:
        return False
    if max(most) > 255:
        return True
    differ = max(most) >= 1.5 * min(most) if len(most) > 1 else max(most) > LARGEST_PLAIN_ID
    return present >= 0.9 * highest and differ


def _begin_in_order(places: NDArray[Any]) -> bool:
    """Whether no number begins before all lower ones have, row by row."""
    highest = np.maximum.accumulate(places.astype(np.int64))
    return bool(places.size) and int(places[0]) == int(places.min()) and not (np.diff(highest) > 1).any()


def _count_from_one(looks: Iterable[Look]) -> list[Look]:
    """The files in which something is numbered, where all run from 1 without a gap, nearly all numbers are in one
    piece, and not all files end at the same; else []."""
    counting = [look for look in looks if (look.codes > 0).any()]
    whole = present = 0
    for look in counting:
        if int(look.codes[-1]) != int((look.codes > 0).sum()):
            return []
        if len(look.codes) > 2:
            whole += int((look.pieces[look.codes > 0] == 1).sum())
            present += int(look.codes[-1])
    ends = {int(look.codes[-1]) for look in counting}
    return counting if len(ends) > 1 and max(ends) > 2 and whole >= 0.7 * present else []


def may_be_objects(looks: Iterable[Look]) -> bool:
    """Whether numbers up to a few could count objects as well as name classes."""
    return bool(_count_from_one(looks))


def _are_colored_objects(looks: Sequence[Look], levels: Sequence[int]) -> bool:
    """Most colours occur in one file only, so that they tell objects apart and not classes."""
    if len(looks) < 3 or len(levels) < FEWEST_OBJECTS:
        return False
    files = [sum(int(level) in set(look.codes.tolist()) for look in looks) for level in levels]
    return sum(n == 1 for n in files) >= 0.8 * (len(levels) - 1)


def _apart(codes: NDArray[np.uint32], counts: NDArray[np.int64], colored: bool, near: int) -> list[int]:
    """The most frequent codes that are no neighbours of more frequent ones, in ascending order."""
    kept: list[int] = []
    for place in np.argsort(-counts, kind="stable")[: 8 * MOST_LEVELS]:
        point = _points(codes[place : place + 1], colored)
        if (
            not kept
            or (np.abs(_points(np.array(kept, np.uint32), colored) - point).max(axis=1) >= near).all()
        ):
            kept.append(int(codes[place]))
    return sorted(kept)


def _doubt(
    codes: NDArray[np.uint32], counts: NDArray[np.int64], levels: NDArray[np.uint32], colored: bool
) -> int:
    """Pixels whose nearest level is not much nearer than the next."""
    if len(levels) < 2:
        return 0
    doubt = 0
    known = _points(levels, colored)
    for start in range(0, len(codes), 2**14):
        to = np.linalg.norm(_points(codes[start : start + 2**14], colored)[:, None] - known[None], axis=2)
        to = np.partition(to, 1, axis=1)[:, :2]
        unclear = to[:, 0] > IN_DOUBT * (to[:, 0] + to[:, 1])
        doubt += int(counts[start : start + 2**14][unclear].sum())
    return doubt


def _points(codes: NDArray[np.uint32], colored: bool) -> NDArray[np.float64]:
    """Codes as points (n, 3) or (n, 1), so that distances can be taken."""
    if not colored:
        return codes.astype(np.float64)[:, None]
    return np.stack([codes >> 16, codes >> 8 & 255, codes & 255], axis=1).astype(np.float64)

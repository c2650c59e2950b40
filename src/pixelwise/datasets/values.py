"""What the numbers in label files are: ids of classes, black and white, colours, numbered objects, or a blend of these.

`Census` looks at the files one by one and says it of all together; `label_codes.nearest` turns values into levels. A
level is a value that fills areas: squares of 2 x 2 pixels. What antialiasing or JPEG puts between two levels fills
none.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from pixelwise.datasets.label_codes import Codes, grey_code, points_of
from pixelwise.datasets.looks import (
    LARGEST_PLAIN_ID,
    Look,
    as_colors,
    begin_in_order,
    pieces_of,
    roughly,
    summed,
    unique_of,
)
from pixelwise.datasets.numbered import FEWEST_OBJECTS, are_colored_objects, are_objects

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

AREAS = 0.4
"""Label maps have at least so many squares of 2 x 2 equal pixels for each pixel."""

MOST_LEVELS = 256

MOST_CODES = 4096
"""Of one file that are kept, the most frequent ones; a photograph has more."""

Kind = Literal[
    "one value", "ids", "two values", "levels", "objects", "coloured objects", "photographs", "too near"
]


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
        values, places, counts = unique_of(codes)
        squares = np.zeros(len(values), np.int64)
        pieces = np.zeros(len(values), np.int64)
        in_order = False
        if codes.size and len(values) > 1:
            rough = roughly(codes) if lossy else places
            inner = rough[1:, 1:]
            same = (inner == rough[:-1, :-1]) & (inner == rough[:-1, 1:]) & (inner == rough[1:, :-1])
            squares = np.bincount(places[1:, 1:][same], minlength=len(values))
            if 2 < len(values) <= MOST_CODES:
                pieces = pieces_of(places, len(values))
                in_order = begin_in_order(places[codes > 0])
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
        if levels is not None and not colored and all(level == grey_code(level & 255) for level in levels):
            levels = [level & 255 for level in levels]
        elif levels is not None:
            colored = True
        if colored:
            looks = [as_colors(look) for look in looks]
        codes, counts, squares = summed(looks)
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
        if not colored and not lossy and (are_objects(looks) or int(codes[-1]) > 2**16):
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
            if colored and are_colored_objects(looks, found):
                return Verdict("coloured objects", found, True, by_index=by_index)
            return Verdict("two values" if len(found) == 2 else "levels", found, colored, by_index=by_index)
        chosen = _apart(codes[flat], counts[flat], colored, NEAR_LOSSY if lossy else NEAR)
        if colored and are_colored_objects(looks, chosen):
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
            shown = bool(numbers - {0}) and {grey_code(n) for n in numbers} <= {*color_of.values(), 0}
            if (
                ids == set(range(len(ids)))
                and (numbers - {255}) <= set(range(LARGEST_PLAIN_ID + 1))
                and not shown
            ):
                return self.looks, True
        return [look if look.colors is None else as_colors(look) for look in self.looks], False


def _apart(codes: NDArray[np.uint32], counts: NDArray[np.int64], colored: bool, near: int) -> list[int]:
    """The most frequent codes that are no neighbours of more frequent ones, in ascending order."""
    kept: list[int] = []
    for place in np.argsort(-counts, kind="stable")[: 8 * MOST_LEVELS]:
        point = points_of(codes[place : place + 1], colored)
        if (
            not kept
            or (np.abs(points_of(np.array(kept, np.uint32), colored) - point).max(axis=1) >= near).all()
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
    known = points_of(levels, colored)
    for start in range(0, len(codes), 2**14):
        to = np.linalg.norm(points_of(codes[start : start + 2**14], colored)[:, None] - known[None], axis=2)
        to = np.partition(to, 1, axis=1)[:, :2]
        unclear = to[:, 0] > IN_DOUBT * (to[:, 0] + to[:, 1])
        doubt += int(counts[start : start + 2**14][unclear].sum())
    return doubt

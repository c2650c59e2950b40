"""Whether label files number or colour single objects: one piece each, and in each file others."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from pixelwise.datasets.looks import LARGEST_PLAIN_ID, Look

FEWEST_OBJECTS = 8
"""Of the picture that has most: fewer are classes."""

CHANCE = 7.0
"""Of the order in which few objects are numbered: e to the power of this to one against it."""


def are_objects(looks: Iterable[Look]) -> bool:
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


def are_colored_objects(looks: Sequence[Look], levels: Sequence[int]) -> bool:
    """Most colours occur in one file only, so that they tell objects apart and not classes."""
    if len(looks) < 3 or len(levels) < FEWEST_OBJECTS:
        return False
    files = [sum(int(level) in set(look.codes.tolist()) for look in looks) for level in levels]
    return sum(n == 1 for n in files) >= 0.8 * (len(levels) - 1)

"""One label file as a census sees it: its numbers, and of each the pixels, the areas and the pieces."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pixelwise.datasets.label_codes import Codes, grey_code, in_colors
from pixelwise.errors import InputError

LARGEST_PLAIN_ID = 63
"""Values up to this, and 255, are taken for ids of classes if nobody says more; black and white lie further apart."""


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


def unique_of(codes: Codes) -> tuple[NDArray[np.uint32], NDArray[Any], NDArray[np.int64]]:
    """(values, the place of each pixel's among them, how many each has), quickly where they are small."""
    if codes.size == 0 or int(codes.max()) >= 2**16:
        values, places, counts = np.unique(codes, return_inverse=True, return_counts=True)
        return values, places.reshape(codes.shape), counts
    every = np.bincount(codes.ravel())
    there = np.flatnonzero(every)
    table = np.zeros(len(every), np.uint16)
    table[there] = np.arange(len(there))
    return there.astype(np.uint32), table[codes], every[there]


def roughly(codes: Codes) -> Codes:
    """Codes that are equal where all channels nearly are, as JPEG leaves areas of one colour."""
    channels = [
        np.minimum((codes >> np.uint32(shift) & np.uint32(255)) + 8, 255) >> 4 for shift in (16, 8, 0)
    ]
    out: Codes = channels[0] << np.uint32(8) | channels[1] << np.uint32(4) | channels[2]
    return out


def pieces_of(places: NDArray[Any], count: int) -> NDArray[np.int64]:
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


def as_colors(look: Look) -> Look:
    """The look with codes of colours: of the palette, or of grey values."""
    if look.colors is not None:
        codes = np.array([look.colors.get(int(code), 0) for code in look.codes], np.uint32)
        if all(code == grey_code(code & 255) for code in codes.tolist()):
            return _with_codes(look, codes & np.uint32(255), colored=False)
        return _with_codes(look, codes, colored=True)
    if look.colored:
        return look
    if look.codes.size and int(look.codes.max()) > 255:
        raise InputError("some label maps hold colours, and others numbers above 255; bring them to one form")
    return _with_codes(look, in_colors(look.codes), colored=True)


def _with_codes(look: Look, codes: NDArray[np.uint32], *, colored: bool) -> Look:
    return Look(codes, look.counts, look.squares, look.pieces, colored, look.lossy, look.pixels)


def summed(looks: Iterable[Look]) -> tuple[NDArray[np.uint32], NDArray[np.int64], NDArray[np.int64]]:
    """(codes, pixels, squares) of all files together."""
    looks = list(looks)
    codes, at = np.unique(np.concatenate([look.codes for look in looks]), return_inverse=True)
    sums = [
        np.bincount(at, np.concatenate(parts), len(codes)).astype(np.int64)
        for parts in ([look.counts for look in looks], [look.squares for look in looks])
    ]
    return codes, sums[0], sums[1]


def begin_in_order(places: NDArray[Any]) -> bool:
    """Whether no number begins before all lower ones have, row by row."""
    highest = np.maximum.accumulate(places.astype(np.int64))
    return bool(places.size) and int(places[0]) == int(places.min()) and not (np.diff(highest) > 1).any()

"""Level 5 MAT files of MATLAB, of which SBD's label maps are; read here, because SciPy's reader, which is written in C,
can end the process at a damaged file. MAT-File Format, The MathWorks, 2019.
"""

from __future__ import annotations

import math
import struct
import zlib
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from pixelwise.images import MAX_PIXELS

COMPRESSED, MATRIX, STRUCTURE = 15, 14, 2

STORED = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8", 12: "i8", 13: "u8"}
"""Types of numbers in the file."""

CLASSES = {6: "f8", 7: "f4", 8: "i1", 9: "u1", 10: "i2", 11: "u2", 12: "i4", 13: "u4", 14: "i8", 15: "u8"}
"""Classes of MATLAB's arrays; what is stored may be narrower."""


def read_field(content: bytes, variable: str, field: str) -> NDArray[np.generic]:
    """The array, of any number of axes, in a field of a variable that is one structure.

    Raises ValueError, in words, for a file that holds none, is damaged, or has more than 8 bytes for each of
    `images.MAX_PIXELS`.
    """
    if content[126:128] not in (b"IM", b"MI"):
        raise ValueError("it is no MAT file of level 5 (save it with -v7 or older)")
    order = "<" if content[126:128] == b"IM" else ">"
    for kind, part in _elements(content[128:], order):
        if kind == COMPRESSED:
            unpacked = zlib.decompressobj()
            try:
                whole = unpacked.decompress(part, 8 * MAX_PIXELS)
            except zlib.error as error:
                raise ValueError(f"its {len(part)} compressed bytes are damaged: {error}") from error
            kind, part = next(_elements(whole, order), (0, b""))
        if kind != MATRIX:
            continue
        about, shape, name, values = _matrix(part, order)
        if name != variable:
            continue
        if about != STRUCTURE or math.prod(shape) != 1:
            raise ValueError(f"its {variable} is no structure")
        for key, (inner, inside) in zip(_keys(values, order), values, strict=False):
            if key == field and inner == MATRIX:
                return _numbers(inside, order)
        raise ValueError(f"its {variable} has no field {field}")
    raise ValueError(f"it holds no {variable}")


Element = tuple[int, bytes]


def _elements(content: bytes, order: str) -> Iterator[Element]:
    """(type, bytes) of the data elements in a row."""
    at = 0
    while at + 8 <= len(content):
        kind, size = struct.unpack_from(f"{order}II", content, at)
        if kind >> 16:  # a small one: size and type share a word, and the bytes follow in the next
            kind, size, begin, step = kind & 0xFFFF, kind >> 16, at + 4, 8
        else:
            begin, step = at + 8, 8 + size + (-size % 8 if kind != COMPRESSED else 0)
        if size > (4 if step == 8 and begin == at + 4 else len(content) - begin):
            raise ValueError("it is cut short")
        yield kind, content[begin : begin + size]
        at += step


def _matrix(content: bytes, order: str) -> tuple[int, tuple[int, ...], str, Iterator[Element]]:
    """Class, shape and name of an array, and the elements that follow."""
    elements = _elements(content, order)
    (_, flags), (_, sides), (_, name) = (next(elements, (0, b"")) for _ in range(3))
    if len(flags) < 4 or len(sides) % 4 or not 2 <= len(sides) // 4 <= 32:
        raise ValueError("it is damaged")
    shape = struct.unpack(f"{order}{len(sides) // 4}i", sides)
    return struct.unpack_from(f"{order}I", flags)[0] & 0xFF, shape, name.decode("latin-1"), elements


def _keys(elements: Iterator[Element], order: str) -> list[str]:
    """The names of a structure's fields, which come before their values."""
    (_, width), (_, names) = (next(elements, (0, b"")) for _ in range(2))
    length = struct.unpack(f"{order}i", width)[0] if len(width) == 4 else 0
    if length < 1 or len(names) % length:
        raise ValueError("it is damaged")
    parts = (names[i : i + length] for i in range(0, len(names), length))
    return [part.split(b"\0")[0].decode("latin-1") for part in parts]


def _numbers(content: bytes, order: str) -> NDArray[np.generic]:
    about, shape, _, elements = _matrix(content, order)
    kind, data = next(elements, (0, b""))
    if about not in CLASSES or kind not in STORED:
        raise ValueError("it is no array of numbers")
    values = np.frombuffer(
        data[: len(data) // int(STORED[kind][1]) * int(STORED[kind][1])], order + STORED[kind]
    )
    if min(shape) < 0 or math.prod(shape) != values.size:
        raise ValueError(f"it has {values.size} numbers where {' x '.join(map(str, shape))} were to be")
    with np.errstate(invalid="ignore"):  # of floats that are no integers, in a damaged file
        return values.reshape(shape, order="F").astype(CLASSES[about])

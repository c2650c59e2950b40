"""PNG, written fast: one filter for the whole picture, and a deflate that is chosen for what the picture holds.

Pillow tries five filters for every row, which takes as long as the network of a small model, and then compresses with
a zlib that takes as long again. Here every row is the difference to the row above it ("Up"), which NumPy makes in one
pass, and no file is a tenth larger for it (benchmarks/outputs.py). Of label maps such differences are nearly all zero:
zlib's run lengths make them smaller than its search does, at a third of the time. Of photographs they are small numbers
of every kind: ISA-L takes a fifth of zlib's time for the same size.

Source: Portable Network Graphics (W3C, third edition), sections 5, 9 and 11. Letters: h w pixels, c channels.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

try:
    from isal import isal_zlib as fast
except ImportError:  # there are no wheels of it for every processor
    import zlib as fast  # type: ignore[no-redef]

_UP = 2
_BAND_BYTES = 2**18
"""Filtered at a time: they fit into a core's own cache, and of a large picture there is no second copy."""

_KINDS = {1: 0, 3: 2, 4: 6}
"""Channels to PNG's number for grey, RGB and RGBA."""
_PALETTE = 3


def encode(picture: NDArray[Any], *, flat: bool = False, palette: bytes | None = None) -> Iterator[bytes]:
    """A picture as the parts of a PNG file, one after the other.

    picture: (h, w), (h, w, 3) or (h, w, 4) uint8, or (h, w) uint16 or bool, with at least one pixel. flat: it holds
    few values in large areas, as label maps do. palette: R G B of the values 0, 1, ..., at most 256 of them; then the
    picture is (h, w) uint8.
    """
    h, w = picture.shape[:2]
    channels = 1 if picture.ndim == 2 else picture.shape[2]
    rows = np.packbits(picture, axis=1) if picture.dtype == bool else np.ascontiguousarray(picture)
    if rows.dtype.itemsize == 2:
        rows = rows.astype(">u2").view(np.uint8)  # the first byte is the upper one
    rows = rows.reshape(h, -1)
    bits = 1 if picture.dtype == bool else 8 * picture.dtype.itemsize
    kind = _KINDS[channels] if palette is None else _PALETTE
    yield b"\x89PNG\r\n\x1a\n"
    yield _chunk(b"IHDR", struct.pack(">IIBBBBB", w, h, bits, kind, 0, 0, 0))
    if palette is not None:
        yield _chunk(b"PLTE", palette)
    deflate = zlib.compressobj(1, strategy=zlib.Z_RLE) if flat else fast.compressobj(1)
    for filtered in _filtered(rows):
        if data := deflate.compress(filtered.data):
            yield _chunk(b"IDAT", data)
    yield _chunk(b"IDAT", deflate.flush())
    yield _chunk(b"IEND", b"")


def _filtered(rows: NDArray[np.uint8]) -> Iterator[NDArray[np.uint8]]:
    """Rows (h, bytes) in bands, each with the number of its filter in front. Above the first row are zeros."""
    count = max(1, _BAND_BYTES // (rows.shape[1] + 1))
    for top in range(0, len(rows), count):
        band = rows[top : top + count]
        out = np.empty((len(band), rows.shape[1] + 1), np.uint8)
        out[:, 0] = _UP
        if top == 0:
            out[0, 1:] = band[0]
        else:
            np.subtract(band[0], rows[top - 1], out=out[0, 1:])
        np.subtract(band[1:], band[:-1], out=out[1:, 1:])
        yield out


def _chunk(name: bytes, data: bytes) -> bytes:
    """Length, name, data and check sum."""
    return b"".join(
        (struct.pack(">I", len(data)), name, data, struct.pack(">I", zlib.crc32(data, zlib.crc32(name))))
    )

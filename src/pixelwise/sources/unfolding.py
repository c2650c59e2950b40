"""To how many bytes what is compressed unfolds, found out from its headers or a part at a time, before a decoder that
knows no limit unfolds it."""

from __future__ import annotations

import bz2
import lzma
import struct
import zlib
from typing import Any

UNFOLD = frozenset(("gzip", "zlib", "bz2", "lzma", "zstd", "blosc", "lz4"))
"""Codecs of which this is known, by their names in Zarr."""

OF_TIFF = {8: "zlib", 32946: "zlib", 32773: "packbits", 34925: "lzma", 34926: "zstd", 50000: "zstd"}
"""The same by their numbers in TIFF."""

SLACK = 2**18
"""Bytes that a piece may unfold to besides: two blocks of zstd, which does not always say more exactly."""

DECODER_BYTES = 2**28
"""What a decoder of LZMA may ask for; its strongest preset takes a quarter."""

A_PART = 2**20

DAMAGE = (ValueError, EOFError, OSError, IndexError, zlib.error, lzma.LZMAError, struct.error)
"""What decoders raise."""


def unfolds_to(codec: str, config: dict[str, Any], data: bytes, most: int) -> int:
    """Bytes; where these are more than `most` any number that is. config: of the codec, as Zarr has it. Raises some of
    DAMAGE for what cannot be unfolded."""
    if codec == "blosc":
        whole, block = struct.unpack("<II", data[4:12])
        return max(int(whole), int(block))
    if codec == "lz4":
        size: int = struct.unpack("<I", data[:4])[0]
        return size
    if codec == "zstd":
        return _zstd(data)
    if codec == "packbits":
        return _packbits(data)
    kind = config.get("format", lzma.FORMAT_XZ)
    if codec == "lzma" and kind not in (lzma.FORMAT_AUTO, lzma.FORMAT_XZ, lzma.FORMAT_ALONE):
        raise ValueError("LZMA without a header")
    size = 0
    while data:
        if codec in ("gzip", "zlib"):
            more, data = _inflated(data, most - size, 31 if codec == "gzip" else 15)
            size += more
        else:
            decoder: Any = bz2.BZ2Decompressor() if codec == "bz2" else None
            decoder = decoder or lzma.LZMADecompressor(kind, DECODER_BYTES)
            part = decoder.decompress(data, A_PART)
            size += len(part)
            while not decoder.eof and size <= most and (part or not decoder.needs_input):
                part = decoder.decompress(b"", A_PART)
                size += len(part)
            data = decoder.unused_data if decoder.eof else b""
        data = b"" if codec == "zlib" else data.lstrip(b"\0")
        if size > most:
            break
    return size


def _inflated(data: bytes, most: int, window: int = 15) -> tuple[int, bytes]:
    """How many bytes a stream of deflate unfolds to, or a number above `most`, and what follows it."""
    decoder, size = zlib.decompressobj(window), 0
    for start in range(0, len(data), A_PART // 16):
        part = data[start : start + A_PART // 16]
        while part:
            size += len(decoder.decompress(part, A_PART))
            if size > most:
                return size, b""
            if decoder.eof:
                return size, decoder.unused_data + data[start + A_PART // 16 :]
            part = decoder.unconsumed_tail
    while more := len(decoder.decompress(decoder.unconsumed_tail, A_PART)):
        size += more
        if size > most:
            break
    return size, b""


def _zstd(data: bytes) -> int:
    """What the headers of frames and blocks say at most."""
    size = at = 0
    while len(data) - at >= 5:
        magic = struct.unpack_from("<I", data, at)[0]
        if magic & 0xFFFFFFF0 == 0x184D2A50:  # to be skipped
            at += 8 + struct.unpack_from("<I", data, at + 4)[0]
            continue
        if magic != 0xFD2FB528:
            raise ValueError("no zstd")
        about = data[at + 4]
        at += 5
        single, declares = bool(about & 32), about >> 6
        block = 2**17
        if not single:
            window = 2 ** (10 + (data[at] >> 3))
            block = min(block, window + window // 8 * (data[at] & 7))
            at += 1
        at += (0, 1, 2, 4)[about & 3]
        wide = (int(single), 2, 4, 8)[declares]
        declared = int.from_bytes(data[at : at + wide], "little") + (256 if wide == 2 else 0)
        at += wide
        blocks, last = 0, False
        while not last:
            head = int.from_bytes(data[at : at + 3], "little")
            if at + 3 > len(data):
                raise ValueError("zstd that is cut short")
            last, kind, length = bool(head & 1), head >> 1 & 3, head >> 3
            blocks += block if kind == 2 else length
            at += 3 + (1 if kind == 1 else length)
        at += 4 if about & 4 else 0
        size += declared if wide else blocks
    return size


def _packbits(data: bytes) -> int:
    """Of TIFF: a byte says how many bytes follow, or how often the next one stands."""
    size = at = 0
    while at < len(data):
        head = data[at]
        size += head + 1 if head < 128 else 257 - head if head > 128 else 0
        at += head + 2 if head < 128 else 2 if head > 128 else 1
    return size

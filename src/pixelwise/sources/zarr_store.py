"""A folder of Zarr that is read for what it holds itself, and no chunk of which unfolds to more than a chunk.

zarr decodes a chunk as a whole, whatever it unfolds to, and opens whatever lies under a chunk's name. Here a chunk is
looked at before zarr gets it. Codecs of which that cannot be known beforehand are refused.
"""

from __future__ import annotations

import asyncio
import bz2
import lzma
import math
import os
import stat
import struct
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from zarr.abc.store import RangeByteRequest, SuffixByteRequest
from zarr.core.buffer.core import default_buffer_prototype
from zarr.storage import LocalStore

from pixelwise.errors import ImageError
from pixelwise.untrusted import MAX_BYTES

DESCRIPTIONS = frozenset(("zarr.json", ".zarray", ".zgroup", ".zattrs", ".zmetadata"))

UNFOLD = frozenset(("gzip", "zlib", "bz2", "lzma", "zstd", "blosc", "lz4"))
"""Codecs of which it is found out what a chunk unfolds to."""

PLAIN = frozenset(
    "bytes transpose crc32c crc32 adler32 fletcher32 jenkins_lookup3 delta shuffle bitround quantize fixedscaleoffset "
    "astype packbits".split()
)
"""Codecs that change the size of a chunk by no more than an item's."""

SLACK = 2**18
"""Bytes that a chunk may unfold to besides: two blocks of zstd, which does not always say more exactly."""

DECODER_BYTES = 2**28
"""What a decoder of LZMA may ask for; its strongest preset takes a quarter."""

A_PART = 2**20

DAMAGE = (ValueError, EOFError, OSError, IndexError, zlib.error, lzma.LZMAError, struct.error)
"""What decoders raise."""


class Store(LocalStore):  # type: ignore[misc]  # of a package without types
    """allow_remote: follow links out of the folder. After the array is known call `expect`."""

    def __init__(self, root: Path, *, allow_remote: bool = False) -> None:
        super().__init__(root, read_only=True)
        self._inside, self._allow_remote = os.path.realpath(root), allow_remote
        self._chunk: _Chunk | None = None

    def expect(self, array: Any) -> None:
        """Of which array chunks are read from now on. Raises ValueError for codecs that are not known."""
        self._chunk = _Chunk(array)

    def _read(self, key: str, known: _Chunk | None, byte_range: Any) -> bytes | None:
        path = self.root / key
        try:
            found = os.stat(path)
        except (FileNotFoundError, NotADirectoryError):
            return None
        if stat.S_ISDIR(found.st_mode):
            return None
        if not self._allow_remote:
            real = os.path.realpath(path)
            if os.path.commonpath((real, self._inside)) != self._inside:
                raise ImageError(
                    f"{path} is a link that leads out of {self.root}; copy the file there, or pass --allow-remote "
                    "(allow_remote=True) if you trust its maker"
                )
        if not stat.S_ISREG(found.st_mode):
            raise ImageError(f"{path} is a pipe or a device, expected a file; write {self.root} anew")
        most = MAX_BYTES if known is None else known.stored
        if found.st_size > most:
            raise ImageError(
                f"{path} has {found.st_size:,} bytes, more than the {most:,} that it may have; write {self.root} anew"
            )
        start, end = 0, found.st_size
        if isinstance(byte_range, RangeByteRequest):
            start, end = byte_range.start, byte_range.end
        elif isinstance(byte_range, SuffixByteRequest):
            start = max(0, end - byte_range.suffix)
        elif byte_range is not None:
            start = byte_range.offset
        with open(path, "rb") as file:
            file.seek(start)
            return file.read(max(0, min(end, found.st_size) - start))

    def _checked(self, key: str, prototype: Any, byte_range: Any) -> Any:
        known = None if key.rpartition("/")[2] in DESCRIPTIONS else self._chunk
        data = self._read(key, known, byte_range)
        if data is None:
            return None
        try:
            if known is None:
                pass
            elif not known.index:
                known.check(data)
            elif byte_range is None:
                known.check_shard(data)
            elif isinstance(byte_range, SuffixByteRequest) or (known.index_first and byte_range.start == 0):
                known.check_index(data)
            else:
                known.check(data)
        except DAMAGE as error:
            raise ImageError(f"{self.root / key} is damaged ({error}); write {self.root} anew") from error
        return (prototype or default_buffer_prototype()).buffer.from_bytes(data)

    def get_sync(self, key: str, *, prototype: Any = None, byte_range: Any = None) -> Any:
        return self._checked(key, prototype, byte_range)

    async def get(self, key: str, prototype: Any = None, byte_range: Any = None) -> Any:
        return await asyncio.to_thread(self._checked, key, prototype, byte_range)

    async def get_partial_values(self, prototype: Any, key_ranges: Iterable[tuple[str, Any]]) -> Any:
        return [await self.get(key, prototype, byte_range) for key, byte_range in key_ranges]


class _Chunk:
    """What a chunk of an array is: most, the bytes that it may unfold to; stored, that its file may have; index, the
    bytes of a shard's index, 0 where chunks are files."""

    def __init__(self, array: Any) -> None:
        about, chunk, size = array.metadata, math.prod(array.chunks), np.dtype(array.dtype).itemsize
        self.index, self.index_first, self._order, self._checksum = 0, False, "<", 0
        if about.zarr_format == 2:
            outside_first = [about.compressor, *reversed(about.filters or ())]
            codecs = [codec.get_config() for codec in outside_first if codec is not None]
            names = [str(config["id"]) for config in codecs]
        else:
            stored = [codec.to_dict() for codec in about.codecs]
            if any(config["name"] == "sharding_indexed" for config in stored):
                stored = self._shards(stored, array)
            codecs = [dict(config.get("configuration", {})) for config in reversed(stored)]
            names = [str(config["name"]).removeprefix("numcodecs.") for config in reversed(stored)]
            self._checksum = 4 if stored and stored[-1]["name"] == "crc32c" else 0
        for name in names:
            if name not in UNFOLD | PLAIN:
                raise ValueError(f"its codec {name} is not known; write it anew with gzip, zstd or blosc")
        outer = names[1 if self._checksum else 0 :]
        if any(name in UNFOLD for name in outer[1:]):
            raise ValueError("it is compressed twice; write it anew with one of gzip, zstd or blosc")
        self._codec = outer[0] if outer and outer[0] in UNFOLD else None
        self._config = codecs[len(names) - len(outer)] if self._codec else {}
        self.most = 2 * chunk * max(size, 16 if {*names} - {"bytes", "transpose", *UNFOLD} else size) + SLACK
        shards = math.prod(array.shards) // chunk if self.index else 1
        self.stored = self.most if not self.index else 2 * chunk * shards * size + self.index + SLACK

    def _shards(self, stored: list[dict[str, Any]], array: Any) -> list[dict[str, Any]]:
        """The codecs of the chunks inside."""
        about = stored[-1].get("configuration", {})
        index = {config["name"]: config.get("configuration", {}) for config in about.get("index_codecs", ())}
        inside: list[dict[str, Any]] = list(about.get("codecs", ()))
        if stored[-1]["name"] != "sharding_indexed" or {*index} - {"bytes", "crc32c"} or not inside:
            raise ValueError("its shards are stored in an unusual way; write it anew")
        self._entries = math.prod(s // c for s, c in zip(array.shards, array.chunks, strict=True))
        self.index = 16 * self._entries + (4 if "crc32c" in index else 0)
        self.index_first = about.get("index_location", "end") == "start"
        self._order = ">" if index.get("bytes", {}).get("endian") == "big" else "<"
        return [config if isinstance(config, dict) else config.to_dict() for config in inside]

    def check_index(self, data: bytes) -> Any:
        """Places and sizes of the chunks that are there. Raises ValueError where one lies in the index."""
        entries = np.frombuffer(data[: 16 * self._entries], f"{self._order}u8").reshape(-1, 2)
        entries = np.unique(entries[entries[:, 0] != 2**64 - 1], axis=0)
        if self.index_first and (entries[:, 0] < self.index).any():
            raise ValueError("a chunk lies in the shard's index")
        return entries

    def check_shard(self, data: bytes) -> None:
        for start, size in self.check_index(data if self.index_first else data[-self.index :]).tolist():
            self.check(data[start : start + size])

    def check(self, data: bytes) -> None:
        """Raise ValueError where a chunk unfolds to more than it may, or cannot be unfolded."""
        if self._checksum:
            data = data[: -self._checksum]
        size = _unfolds_to(self._codec, self._config, data, self.most) if self._codec else len(data)
        if size > self.most:
            raise ValueError(f"a chunk unfolds to more than {self.most:,} bytes")


def _unfolds_to(codec: str, config: dict[str, Any], data: bytes, most: int) -> int:
    """Bytes; where these are more than `most` any number that is."""
    if codec == "blosc":
        whole, block = struct.unpack("<II", data[4:12])
        return max(int(whole), int(block))
    if codec == "lz4":
        size: int = struct.unpack("<I", data[:4])[0]
        return size
    if codec == "zstd":
        return _zstd(data)
    if codec == "lzma" and config.get("format", lzma.FORMAT_XZ) not in (lzma.FORMAT_XZ, lzma.FORMAT_ALONE):
        raise ValueError("LZMA without a header")
    size = 0
    while data:
        if codec in ("gzip", "zlib"):
            more, data = inflated(data, most - size, 31 if codec == "gzip" else 15)
            size += more
        else:
            decoder: Any = bz2.BZ2Decompressor() if codec == "bz2" else None
            decoder = decoder or lzma.LZMADecompressor(config.get("format", lzma.FORMAT_XZ), DECODER_BYTES)
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


def inflated(data: bytes, most: int, window: int = 15) -> tuple[int, bytes]:
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

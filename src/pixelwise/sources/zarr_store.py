"""A folder of Zarr that is read for what it holds itself, and no chunk of which unfolds to more than a chunk.

zarr decodes a chunk as a whole, whatever it unfolds to, and opens whatever lies under a chunk's name. Here a chunk is
looked at before zarr gets it. Codecs of which that cannot be known beforehand are refused.
"""

from __future__ import annotations

import asyncio
import math
import os
import stat
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from zarr.abc.store import RangeByteRequest, SuffixByteRequest
from zarr.core.buffer.core import default_buffer_prototype
from zarr.storage import LocalStore

from pixelwise.errors import ImageError
from pixelwise.sources.unfolding import DAMAGE, SLACK, UNFOLD, unfolds_to
from pixelwise.untrusted import MAX_BYTES

DESCRIPTIONS = frozenset(("zarr.json", ".zarray", ".zgroup", ".zattrs", ".zmetadata"))

PLAIN = frozenset(
    "bytes transpose crc32c crc32 adler32 fletcher32 jenkins_lookup3 delta shuffle bitround quantize fixedscaleoffset "
    "astype packbits".split()
)
"""Codecs that change the size of a chunk by no more than an item's."""


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
        size = unfolds_to(self._codec, self._config, data, self.most) if self._codec else len(data)
        if size > self.most:
            raise ValueError(f"a chunk unfolds to more than {self.most:,} bytes")

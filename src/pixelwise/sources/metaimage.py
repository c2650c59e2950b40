"""MetaImage, ITK's own format: `.mha`, and `.mhd` with its voxels in a file beside it. A header of a dozen words and
plain or deflated numbers, read here: SimpleITK follows paths in headers to anywhere, knows no limits, and says nothing
where no orientation is said."""

from __future__ import annotations

import itertools
import math
import os
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np

from pixelwise.errors import ImageError
from pixelwise.geometry import LETTERS, Geometry
from pixelwise.sources.voxels import (
    LPS_TO_RAS,
    Inflating,
    Read,
    ScanFiles,
    affine_from,
    beside,
    check_frame,
    check_voxels,
    geometry_from,
    geometry_without_place,
    read_numbers,
    read_rest,
    read_text_numbers,
    refuse_assumed,
    sides_of,
    told,
)

MAX_HEADER_LINES, MAX_LINE = 1000, 2**16

TYPES = {
    "MET_CHAR": "i1", "MET_UCHAR": "u1", "MET_SHORT": "i2", "MET_USHORT": "u2", "MET_INT": "i4", "MET_UINT": "u4",
    "MET_LONG": "i4", "MET_ULONG": "u4", "MET_LONG_LONG": "i8", "MET_ULONG_LONG": "u8", "MET_FLOAT": "f4",
    "MET_DOUBLE": "f8",
}  # fmt: skip
"""MetaImage's words for kinds of numbers; its long has 4 bytes everywhere."""

MM = {"mm": 1.0, "cm": 10.0, "um": 0.001, "?": 1.0, "": 1.0}


def read_metaimage(
    path: Path, assume: str | None = None, max_memory: int | None = None, frame: int | None = None
) -> Read:
    """See `volume.read_volume`."""
    with told(path), ExitStack() as stack:
        file: Any = stack.enter_context(open(path, "rb"))
        header = _header(path, file)
        sizes = [int(side) for side in header.get("dimsize", "").split()]
        if header.get("ndims", "").strip() != str(len(sizes)):
            raise ImageError(
                f"{path} is damaged: it says {header.get('ndims')!r:.20} dimensions and sizes {sizes[:8]}"
            )
        sides_of(path, sizes)
        channels = int(header.get("elementnumberofchannels", "1"))
        if channels < 1 or channels > 2**16:
            raise ImageError(f"{path} is damaged: it speaks of {channels} channels")
        if channels > 1 and len(sizes) == 4:
            raise ImageError(f"{path} has channels and four dimensions; take the part out that is meant")
        geometry, notes = _geometry(path, header, assume)
        index = check_frame(path, frame, sizes[3] if len(sizes) == 4 else channels)
        kind = TYPES.get(header.get("elementtype", "").upper().removesuffix("_ARRAY"))
        if kind is None:
            raise ImageError(
                f"{path} holds voxels of type {header.get('elementtype', '')!r:.40}; convert it to numbers"
            )
        big = _flag(header, "binarydatabyteordermsb") or _flag(header, "elementbyteordermsb")
        dtype = np.dtype(f"{'>' if big else '<'}{kind}")
        count = math.prod(sizes) * channels
        name = header["elementdatafile"]
        data = path
        if name.upper() != "LOCAL":
            if name.split(maxsplit=1)[:1] == ["LIST"] or "%" in name:
                raise ImageError(f"{path} has its voxels in many files; write it anew as one .mha")
            data = beside(path, name)
            file = stack.enter_context(open(data, "rb"))
        skip = int(header.get("headersize", "0"))
        is_text = not _flag(header, "binarydata", True)
        if not -1 <= skip < 2**40:
            raise ImageError(f"{path} is damaged: its header has {skip} bytes (HeaderSize)")
        if _flag(header, "compresseddata"):
            check_voxels(path, data, count, dtype, None, max_memory)
            file.seek(max(0, skip), os.SEEK_CUR)
            file = Inflating(file)
        else:
            if skip == -1:
                file.seek(max(0, data.stat().st_size - count * dtype.itemsize))
            else:
                file.seek(skip, os.SEEK_CUR)
            check_voxels(path, data, count, dtype, None if is_text else file.tell(), max_memory)
        values = (read_text_numbers if is_text else read_numbers)(file, count, dtype)
        read_rest(path, file)
    shape = (*sizes[::-1], channels) if channels > 1 else tuple(sizes[::-1])
    values = values.reshape(shape)
    if channels > 1:
        values = np.moveaxis(values, -1, 0)
    if values.ndim == 4 and (index is not None or len(values) == 1):
        values = values[index or 0]
    return Read(values, geometry, notes, ScanFiles("metaimage", path))


def _flag(header: dict[str, str], name: str, default: bool = False) -> bool:
    return header.get(name, str(default)).strip().lower() in ("true", "t", "1")


def _header(path: Path, file: Any) -> dict[str, str]:
    """Words and values, the words in small letters; the last is ElementDataFile, behind which the voxels begin."""
    header: dict[str, str] = {}
    for line in itertools.islice(iter(lambda: file.readline(MAX_LINE), b""), MAX_HEADER_LINES):
        word, is_there, value = line.decode("utf-8", "replace").partition("=")
        if not is_there:
            break
        header[word.strip().lower()] = value.strip()
        if word.strip().lower() == "elementdatafile":
            return header
    raise ImageError(f"{path} is no MetaImage, or is damaged: its header does not end in ElementDataFile")


def _numbers(path: Path, header: dict[str, str], names: tuple[str, ...], count: int) -> list[float] | None:
    for name in names:
        if name.lower() in header:
            found = [float(word) for word in header[name.lower()].split()]
            if len(found) != count:
                raise ImageError(f"{path} is damaged: its {name} has {len(found)} numbers, expected {count}")
            return found
    return None


def _geometry(path: Path, header: dict[str, str], assume: str | None) -> tuple[Geometry | None, list[str]]:
    n = len(header["dimsize"].split())
    unit = MM.get(header.get("distanceunits", "").lower(), math.nan)
    if math.isnan(unit):
        raise ImageError(f"{path} counts space in {header['distanceunits']!r:.20}; expected mm, cm or um")
    spacing = _numbers(path, header, ("ElementSpacing", "ElementSize"), n)
    matrix = _numbers(path, header, ("TransformMatrix", "Rotation", "Orientation"), n * n)
    origin = _numbers(path, header, ("Offset", "Position", "Origin"), n)
    if spacing is None or matrix is None or origin is None:
        sides = None if spacing is None else [side * unit for side in spacing[2::-1]]
        return geometry_without_place(path, sides, assume), []
    refuse_assumed(path, assume, "TransformMatrix")
    if not (np.isfinite(spacing[:3]).all() and min(spacing[:3]) > 0):
        return geometry_without_place(path, spacing[2::-1], None), []
    axes = np.array(matrix).reshape(n, n)[:3, :3] * np.array(spacing[:3])[:, None]
    affine = LPS_TO_RAS @ affine_from((axes * unit).tolist(), [side * unit for side in origin[:3]])
    geometry = geometry_from(path, affine, "TransformMatrix or Offset")
    return geometry, _notes(header, affine)


def _notes(header: dict[str, str], affine: Any) -> list[str]:
    """A sentence where the letters, which say where axes come from, are not those of the matrix."""
    letters = header.get("anatomicalorientation", "").upper()
    if len(letters) != 3 or any(sum(letter in pair for letter in letters) != 1 for pair in LETTERS):
        return []
    oblique = np.abs(affine[:3, :3]).max(axis=0)
    axes = affine[:3, :3] / np.where(oblique == 0, 1, oblique)
    for column, letter in enumerate(letters):
        row = next(i for i, pair in enumerate(LETTERS) if letter in pair)
        if axes[row, column] * (-1 if letter in "RAS" else 1) < -0.9:
            return [
                f"its AnatomicalOrientation {letters} is not that of its TransformMatrix, which is taken, as ITK does"
            ]
    return []

"""NRRD: `.nrrd`, and `.nhdr` with its voxels in a file beside it. pynrrd reads the header; voxels are read here, since
what it does with them knows no limit and follows paths to anywhere."""

from __future__ import annotations

import bz2
import gzip
import itertools
import math
import os
import warnings
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np

from pixelwise.errors import ImageError, MissingExtraError
from pixelwise.geometry import Geometry
from pixelwise.sources.voxels import (
    Read,
    ScanFiles,
    affine_from,
    beside,
    channels_first,
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

MAX_HEADER_LINES, MAX_LINE = 10_000, 2**16

TYPES: dict[str, str] = {
    **dict.fromkeys(("signed char", "int8", "int8_t"), "i1"),
    **dict.fromkeys(("uchar", "unsigned char", "uint8", "uint8_t"), "u1"),
    **dict.fromkeys(("short", "short int", "signed short", "signed short int", "int16", "int16_t"), "i2"),
    **dict.fromkeys(("ushort", "unsigned short", "unsigned short int", "uint16", "uint16_t"), "u2"),
    **dict.fromkeys(("int", "signed int", "int32", "int32_t"), "i4"),
    **dict.fromkeys(("uint", "unsigned int", "uint32", "uint32_t"), "u4"),
    **dict.fromkeys(
        (
            "longlong",
            "long long",
            "long long int",
            "signed long long",
            "signed long long int",
            "int64",
            "int64_t",
        ),
        "i8",
    ),
    **dict.fromkeys(
        ("ulonglong", "unsigned long long", "unsigned long long int", "uint64", "uint64_t"), "u8"
    ),
    "float": "f4",
    "double": "f8",
}
"""NRRD's words for kinds of numbers."""

SPACES = {
    "right-anterior-superior": (1, 1, 1), "ras": (1, 1, 1),
    "left-anterior-superior": (-1, 1, 1), "las": (-1, 1, 1),
    "left-posterior-superior": (-1, -1, 1), "lps": (-1, -1, 1),
}  # fmt: skip
"""Signs that lead from a space's axes to the right, to the front and to the top."""

MM = {"mm": 1.0, "millimeter": 1.0, "millimeters": 1.0, "m": 1000.0, "cm": 10.0, "um": 0.001, "\u00b5m": 0.001,
      "\u03bcm": 0.001, "microns": 0.001, "": 1.0}  # fmt: skip
"""Millimetres of a unit of length."""

COLORS = ("rgb-color", "rgba-color", "hsv-color", "xyz-color")


def read_nrrd(
    path: Path, assume: str | None = None, max_memory: int | None = None, frame: int | None = None
) -> Read:
    """See `volume.read_volume`."""
    with told(path), ExitStack() as stack:
        file = stack.enter_context(open(path, "rb"))
        header = _header(path, file)
        sizes = [int(side) for side in header["sizes"]]
        if header["dimension"] != len(sizes):
            raise ImageError(
                f"{path} is damaged: it says {header['dimension']} dimensions and sizes {sizes[:8]}"
            )
        axis = _channel_axis(path, header, sizes)
        spatial = [side for i, side in enumerate(sizes) if i != axis]
        sides_of(path, sizes)
        sides_of(path, spatial, most=3)
        geometry = _geometry(path, header, axis, assume)
        count = check_frame(path, frame, 1 if axis is None else sizes[axis])
        encoding = str(header["encoding"]).lower()
        kind = TYPES.get(str(header["type"]).lower())
        if kind is None:
            raise ImageError(
                f"{path} holds voxels of type {str(header['type'])!r:.40}; convert it to numbers"
            )
        is_text = encoding in ("ascii", "text", "txt")
        dtype = np.dtype(kind)
        if dtype.itemsize > 1 and not is_text:
            order = {"little": "<", "big": ">"}.get(str(header.get("endian", "")).lower())
            if order is None:
                raise ImageError(
                    f"{path} does not say its byte order (endian: little or big); mend its header"
                )
            dtype = np.dtype(f"{order}{kind}")
        name = header.get("data file", header.get("datafile"))
        data = path
        if name is not None:
            if str(name).split(maxsplit=1)[:1] == ["LIST"] or "%" in str(name):
                raise ImageError(f"{path} has its voxels in many files; write it anew as one .nrrd")
            data = beside(path, str(name))
            file = stack.enter_context(open(data, "rb"))
        number = math.prod(sizes)
        skip = int(header.get("byte skip", header.get("byteskip", 0)))
        lines = int(header.get("line skip", header.get("lineskip", 0)))
        if not (-1 <= skip < 2**40 and 0 <= lines < 10_000):
            raise ImageError(f"{path} is damaged: it skips {lines} lines and {skip} bytes")
        for _ in range(lines):
            file.readline(MAX_LINE)
        if encoding in ("gzip", "gz", "bzip2", "bz2"):
            check_voxels(path, data, number, dtype, None, max_memory)
            unfold: Any = gzip.open if encoding.startswith("g") else bz2.open
            file = stack.enter_context(unfold(file))
            _skip(path, file, max(0, skip))
        elif encoding == "raw" or is_text:
            if skip == -1 and not is_text:
                file.seek(max(0, data.stat().st_size - number * dtype.itemsize))
            else:
                file.seek(max(0, skip), os.SEEK_CUR)
            check_voxels(path, data, number, dtype, None if is_text else file.tell(), max_memory)
        else:
            raise ImageError(f"{path} is encoded as {encoding!r:.40}; write it anew as raw or gzip")
        values = (read_text_numbers if is_text else read_numbers)(file, number, dtype).reshape(sizes[::-1])
        read_rest(path, file)
    values = channels_first(values, None if axis is None else len(sizes) - 1 - axis)
    if values.ndim == 4 and (count is not None or len(values) == 1):
        values = values[count or 0]
    return Read(values, geometry, [], ScanFiles("nrrd", path))


def _skip(path: Path, file: Any, count: int) -> None:
    while count > 0:
        got = len(file.read(min(count, 2**20)))
        if not got:
            raise EOFError("it ends before its voxels")
        count -= got


def _header(path: Path, file: Any) -> dict[str, Any]:
    """The header's fields, by names in small letters; the file then stands behind it."""
    try:
        import nrrd
    except ModuleNotFoundError as error:
        raise MissingExtraError(f"reading {path.name}", "volume") from error
    if not (start := file.read(4)).startswith(b"NRRD"):
        raise ImageError(f"{path} is no NRRD file: it begins with {start!r}")
    file.seek(0)
    lines: list[str] = []
    for line in itertools.islice(iter(lambda: file.readline(MAX_LINE), b""), MAX_HEADER_LINES):
        lines.append(line.decode("utf-8", "replace").rstrip("\r\n"))
        if not lines[-1].strip():
            break
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        header = {str(name).lower(): value for name, value in nrrd.read_header(lines).items()}
    for field in ("type", "dimension", "sizes", "encoding"):
        if field not in header:
            raise ImageError(f"{path} is damaged: its header says nothing of {field}")
    return header


def _channel_axis(path: Path, header: dict[str, Any], sizes: list[int]) -> int | None:
    """The axis, as the file counts them, that is none of space."""
    kinds = [str(kind).lower() for kind in header.get("kinds", ())]
    if any(kind in COLORS for kind in kinds):
        raise ImageError(f"{path} holds colours; one scan has one number a voxel: take one channel out of it")
    if "complex" in kinds:
        raise ImageError(f"{path} holds complex numbers; convert it")
    if len(sizes) != 4:
        return None
    directions = header.get("space directions")
    if directions is not None and len(directions) == 4:
        none = [i for i, one in enumerate(directions) if not np.isfinite(np.asarray(one, np.float64)).any()]
        if len(none) == 1:
            return none[0]
    other = [i for i, kind in enumerate(kinds) if kind not in ("domain", "space", "???", "none")]
    if len(kinds) == 4 and len(other) == 1:
        return other[0]
    raise ImageError(
        f"{path} has four axes, and does not say which of them is none of space (space directions: none, or kinds)"
    )


def _geometry(path: Path, header: dict[str, Any], axis: int | None, assume: str | None) -> Geometry | None:
    units = [str(unit).lower() for unit in header.get("space units", header.get("units", ()))]
    known = {MM.get(unit, math.nan) for i, unit in enumerate(units) if len(units) < 4 or i != axis} or {1.0}
    if len(known) > 1 or math.isnan(unit := next(iter(known))):
        raise ImageError(f"{path} counts space in {' '.join(units)[:60]}; expected mm, cm, m or um")
    space = str(header.get("space", "")).lower()
    steps = None
    if (directions := header.get("space directions")) is not None:
        steps = np.array(
            [np.asarray(one, np.float64) for i, one in enumerate(directions) if axis is None or i != axis],
            np.float64,
        )
        if steps.shape != (3, 3):
            raise ImageError(
                f"{path} has space directions of {steps.shape}; expected three of three numbers: mend its header"
            )
    if space in SPACES and steps is not None:
        refuse_assumed(path, assume, f"space {space}")
        origin = np.asarray(header.get("space origin", np.full(3, np.nan)), np.float64)
        if origin.shape != (3,):
            raise ImageError(f"{path} has a space origin of {origin.shape}; expected three numbers")
        signs = np.diag([*SPACES[space], 1])
        affine = signs @ affine_from(steps.tolist(), origin.tolist()) * np.array([[unit]] * 3 + [[1]])
        return geometry_from(path, affine, "space directions or space origin")
    if steps is not None:
        spacing = np.linalg.norm(steps, axis=1)
    elif (given := header.get("spacings")) is not None:
        spacing = np.array([float(side) for i, side in enumerate(given) if axis is None or i != axis])
    else:
        return geometry_without_place(path, None, assume)
    if spacing.shape != (3,):
        raise ImageError(f"{path} has {len(spacing)} spacings; expected three: mend its header")
    return geometry_without_place(path, (spacing[::-1] * unit).tolist(), assume)

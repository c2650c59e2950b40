"""NIfTI-1 and -2 (nibabel)."""

from __future__ import annotations

import math
import struct
import warnings
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pixelwise.errors import ImageError, InputError, MissingExtraError, first_line
from pixelwise.geometry import Geometry, affine_of, in_words
from pixelwise.limits import check_memory
from pixelwise.sources.voxels import (
    NEARLY,
    Read,
    ScanFiles,
    apart,
    check_frame,
    opened,
    read_numbers,
    read_rest,
    told,
)

NO_SCALAR = {128: "colours (RGB)", 2304: "colours (RGBA)", 32: "complex numbers", 1792: "complex numbers",
             2048: "complex numbers", 1: "single bits"}  # fmt: skip
"""Kinds of voxels, by their number in the header, that are not read."""

MM = {0: 1.0, 1: 1000.0, 2: 1.0, 3: 0.001}
"""Millimetres of a unit of length by its number in the header: none said, which is taken as mm as nearly all files are,
metres, mm, microns."""


def read_nifti(
    path: Path, assume: str | None = None, max_memory: int | None = None, frame: int | None = None
) -> Read:
    """See `volume.read_volume`."""
    try:
        import nibabel
        from nibabel.arrayproxy import ArrayProxy
    except ModuleNotFoundError as error:
        raise MissingExtraError(f"reading {path.name}", "volume") from error
    with opened(path) as file, told(path), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        start = file.read(544)
        kind = _kind(path, start)
        file.seek(0)
        header = (nibabel.Nifti1Header if kind == 1 else nibabel.Nifti2Header).from_fileobj(file, check=False)
        shape = _shape(path, header)
        count, size = math.prod(shape), int(header["bitpix"]) // 8
        _check_numbers(path, header)
        geometry, notes = _geometry_of(path, header, assume)
        index = check_frame(path, frame, shape[3] if len(shape) == 4 else 1)
        part = shape if index is None else shape[:3]
        voxels, at = math.prod(part), int(header.get_data_offset())
        bytes_needed = voxels * (size + ((4 if size <= 2 else 8) if _scales(header) else 0))
        advice = "crop it, or give it more (max_memory, --max-memory-mb)"
        check_memory(f"reading {path}", bytes_needed, max_memory, advice)
        needed = at + count * size
        if not path.name.lower().endswith(".gz") and path.stat().st_size < needed:
            raise ImageError(
                f"{path} has {path.stat().st_size:,} bytes, and its header speaks of {needed:,}; it was cut off: "
                "copy it again"
            )
        scale = header.get_slope_inter() if _scales(header) else (1.0, 0.0)
        at += (index or 0) * voxels * size
        if _scales(header):
            proxy = ArrayProxy(file, (part, header.get_data_dtype(), at, *scale), mmap=False)
            raw = np.asarray(proxy, dtype=np.float32 if size <= 2 else np.float64)
        else:  # without the copy that nibabel makes
            file.seek(at)
            raw = read_numbers(file, voxels, header.get_data_dtype())
        values = np.asarray(raw).reshape(part, order="F").T
        read_rest(path, file, needed - at - voxels * size)
    values = values.astype(values.dtype.newbyteorder("="), copy=False)
    return Read(values, geometry, notes, ScanFiles("nifti", path))


def _kind(path: Path, start: bytes) -> int:
    """1 or 2, the version of NIfTI."""
    if len(start) < 348:
        raise ImageError(f"{path} is damaged or was cut off, it has {len(start)} bytes; copy it again")
    for order in "<>":
        size = struct.unpack(order + "i", start[:4])[0]
        if size == 540 and start[4:8] == b"n+2\0":
            return 2
        if size == 348 and start[344:348] == b"n+1\0":
            return 1
        if (size == 348 and start[344:347] == b"ni1") or (size == 540 and start[4:7] == b"ni2"):
            raise ImageError(
                f"{path} is the header of a pair of files; join them into one, such as by "
                f"nibabel.save(nibabel.load(...), "
                "'scan.nii.gz')"
            )
        if size == 348:
            raise ImageError(
                f"{path} is of the kind before NIfTI (Analyze 7.5), in which right and left are not known; convert it "
                "with a program that knows them"
            )
    raise ImageError(f"{path} is no NIfTI file: it begins with {start[:4]!r}")


def _shape(path: Path, header: Any) -> tuple[int, ...]:
    """(columns, rows, slices), or with channels behind them."""
    code = int(header["datatype"])
    if code in NO_SCALAR:
        raise ImageError(
            f"{path} holds {NO_SCALAR[code]}, one scan has one number a voxel; take one channel out of it, or "
            f"convert it"
        )
    dims = [int(side) for side in header["dim"]]
    if not 1 <= dims[0] <= 7 or min(dims[1 : dims[0] + 1], default=0) < 1:
        raise ImageError(f"{path} is damaged: its header speaks of sides {dims}")
    sides = dims[1 : dims[0] + 1]
    while len(sides) > 3 and sides[-1] == 1:
        sides.pop()
    sides += [1] * (3 - len(sides))
    if len(sides) > 4:
        raise ImageError(
            f"{path} has {len(sides)} dimensions, {' x '.join(map(str, sides))}; expected a volume of three, or "
            f"four with "
            "channels: take the part out that is meant"
        )
    return tuple(sides)


def _scales(header: Any) -> bool:
    slope, intercept = float(header["scl_slope"]), float(header["scl_inter"])
    return math.isfinite(slope) and slope != 0 and (slope, intercept) != (1.0, 0.0)


def _check_numbers(path: Path, header: Any) -> None:
    """Raise ImageError for numbers of the header with which voxels would be read wrongly."""
    offset = float(header["vox_offset"])
    if not (offset == 0 or int(header["sizeof_hdr"]) + 4 <= offset < 2**40):
        raise ImageError(f"{path} is damaged: its voxels begin at byte {offset:g} (vox_offset)")
    for name in ("scl_slope", "scl_inter"):
        if math.isinf(float(header[name])):
            raise ImageError(f"{path} is damaged: its {name} is {float(header[name])}")
    slope, intercept = float(header["scl_slope"]), float(header["scl_inter"])
    if math.isfinite(slope) and slope != 0 and not math.isfinite(intercept):
        raise ImageError(f"{path} is damaged: its scl_slope is {slope} and its scl_inter {intercept}")


def _geometry_of(path: Path, header: Any, assume: str | None) -> tuple[Geometry, list[str]]:
    """Where the voxels lie, and sentences about what another program may read differently. The sform counts where its
    code says that there is one, else the qform."""
    codes = int(header["sform_code"]), int(header["qform_code"])
    if (unit := MM.get(int(header["xyzt_units"]) % 8, 0.0)) == 0:
        raise ImageError(
            f"{path} is damaged: its unit of length has the number {int(header['xyzt_units']) % 8}, expected 0 to 3"
        )
    zooms = np.asarray(header["pixdim"][1:4], np.float64)
    sides = [max(1, int(side)) for side in header["dim"][1:4]]
    notes: list[str] = []
    if not (np.isfinite(zooms).all() and (zooms > 0).all()) and codes[0] <= 0:
        raise ImageError(
            f"{path} says that its voxels are {' x '.join(f'{side:g}' for side in zooms)} in size (pixdim); expected "
            "positive numbers: mend its header"
        )
    if max(codes) <= 0:
        column, row, slices = (float(side) * unit for side in zooms)
        spacing = (slices, row, column)
        if assume is None:
            return Geometry(spacing, None, header), notes
        return Geometry(spacing, affine_of(assume, spacing), header), notes
    if assume is not None:
        raise InputError(
            f"{path} says how it lies (sform code {codes[0]}, qform code {codes[1]}), got an assumed orientation "
            f"{assume}; leave it out"
        )
    forms = {}
    if codes[0] > 0:
        forms["sform"] = np.asarray(header.get_sform(), np.float64)
    if codes[1] > 0:
        try:
            forms["qform"] = _qform(header)
        except Exception as error:  # quaternions that turn nothing
            if "sform" not in forms:
                raise ImageError(f"{path} has a qform that cannot be ({first_line(error)})") from error
            notes.append("its qform cannot be, and its sform is taken")
    which, affine = next(iter(forms.items()))
    for name, form in forms.items():
        if not np.isfinite(form).all() or np.linalg.det(form[:3, :3]) == 0:
            if name == which:
                raise ImageError(
                    f"{path} does not say where its voxels lie: its {name} is singular or not finite, "
                    f"{in_words(form[:3])}; mend its header"
                )
            notes.append(f"its {name} is singular or not finite, and its {which} is taken")
    if len(forms) == 2 and not notes and (far := apart(forms["sform"], forms["qform"], sides)) > NEARLY:
        notes.append(
            f"its sform and its qform differ by up to {far:.3g} voxels; the sform is taken, as nibabel does, where "
            "SimpleITK takes the qform"
        )
    if unit != 1:
        affine = affine * np.array([[unit], [unit], [unit], [1]])
    try:
        geometry = Geometry.of(affine, header)
    except InputError as error:
        raise ImageError(f"{path} does not say where its voxels lie ({error})") from error
    found = np.array(geometry.spacing[::-1]) / unit
    if np.isfinite(zooms).all() and np.abs(found - zooms).max() > 0.01 * found.min():
        notes.append(
            f"its voxels are {' x '.join(f'{side:g}' for side in found)} by its {which} and "
            f"{' x '.join(f'{side:g}' for side in zooms)} by its pixdim; the {which} is taken"
        )
    return geometry, notes


def _qform(header: Any) -> NDArray[np.float64]:
    if float(header["pixdim"][0]) == 0:  # which counts as 1
        header = header.copy()
        header["pixdim"][0] = 1
    return np.asarray(header.get_qform(), np.float64)

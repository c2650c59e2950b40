"""Volumes: scans of slices, with what a file says about where their voxels lie.

NIfTI-1 and -2 (nibabel). Nothing about the place of a scan is guessed: what a file does not say, or says in a way that
cannot be, is refused in a sentence, and where two programs would read it differently a warning says so.
"""

from __future__ import annotations

import gzip
import logging
import math
import os
import struct
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pixelwise.errors import ImageError, InputError, MissingExtraError, PixelwiseWarning, first_line
from pixelwise.geometry import Geometry, affine_of, check_orientation, in_words
from pixelwise.images import check_file
from pixelwise.limits import check_memory

ENDINGS = (".nii", ".nii.gz")
"""What counts as a volume when a folder is searched."""

MAX_BEHIND = 2**24
"""Bytes that may lie behind the voxels of a compressed file."""

NEARLY = 1e-3
"""Share of a voxel up to which two ways of saying where voxels lie are the same; headers hold float32."""


@dataclass(frozen=True, eq=False)
class Volume:
    """A scan. values: (d, h, w), or (c, d, h, w) of several channels, in the numbers that the file means (its slope and
    intercept are applied), of any real type; d are slices, h rows and w columns as they are stored, the last axis being
    the one that the file counts first: `nibabel.load(path).dataobj` transposed, and SimpleITK's `GetArrayFromImage`.

    geometry: where the voxels lie, None where nobody says it. name: for sentences.
    """

    values: NDArray[Any]
    geometry: Geometry | None = None
    name: str = "the volume"

    def __post_init__(self) -> None:
        values = self.values
        if not isinstance(values, np.ndarray) or values.ndim not in (3, 4) or values.dtype.kind not in "biuf":
            what = (
                f"{values.dtype} {values.shape}" if isinstance(values, np.ndarray) else type(values).__name__
            )
            raise InputError(f"a volume is an array of real numbers (d, h, w) or (c, d, h, w), got {what}")
        if 0 in values.shape:
            raise InputError(f"a volume has voxels, got {values.shape}")

    @classmethod
    def of(cls, values: NDArray[Any], affine: Any = None, *, spacing: Any = None) -> Volume:
        """A volume of an array, see `Volume`. affine: (4, 4), from (column, row, slice, 1) to mm, see `Geometry`; or
        only its spacing, (slices, rows, columns) in mm. InputError for what cannot be."""
        if affine is not None and spacing is not None:
            raise InputError("an affine says the spacing too, got both; leave spacing out")
        if affine is not None:
            return cls(values, Geometry.of(affine))
        return cls(values, None if spacing is None else Geometry(spacing))

    @property
    def channels(self) -> NDArray[Any]:
        """The values as (c, d, h, w)."""
        return self.values if self.values.ndim == 4 else self.values[None]

    @property
    def size(self) -> tuple[int, int, int]:
        """Slices, rows and columns."""
        depth, height, width = self.values.shape[-3:]
        return depth, height, width

    @property
    def affine(self) -> NDArray[np.float64] | None:
        """See `Geometry`."""
        return None if self.geometry is None else self.geometry.affine

    @property
    def spacing(self) -> tuple[float, float, float] | None:
        """Millimetres from voxel to voxel, (slices, rows, columns)."""
        return None if self.geometry is None else self.geometry.spacing


def is_volume(path: Path) -> bool:
    """Whether a file is to be treated as a volume, by the end of its name."""
    return path.name.lower().endswith(ENDINGS)


def stem_of(name: Path) -> str:
    """The name of a volume's file without its ending."""
    ending = next(
        (end for end in sorted(ENDINGS, key=len, reverse=True) if name.name.lower().endswith(end)), ""
    )
    return name.name[: -len(ending)] if ending and len(ending) < len(name.name) else name.name


def read_volume(
    path: str | os.PathLike[str], *, assume_orientation: str | None = None, max_memory: int | None = None
) -> Volume:
    """The volume in a file. assume_orientation: of a file that does not say how it lies, where its columns, rows and
    slices grow towards, such as "RAS"; of one that says it, it is refused. max_memory: bytes that the voxels may take,
    None for half of what is free.

    A file in which two places say differently where voxels lie is read as nibabel does, with a PixelwiseWarning. Raises
    ImageError, with the file's name, for what cannot be used, MissingExtraError without nibabel.
    """
    path = Path(path)
    check_file(path)
    if assume_orientation is not None:
        assume_orientation = check_orientation(assume_orientation)
    if not is_volume(path):
        raise ImageError(f"{path} is no volume by its name; these are read: {', '.join(ENDINGS)}")
    return _read_nifti(path, assume_orientation, max_memory)


NO_SCALAR = {128: "colours (RGB)", 2304: "colours (RGBA)", 32: "complex numbers", 1792: "complex numbers",
             2048: "complex numbers", 1: "single bits"}  # fmt: skip
"""Kinds of voxels, by their number in the header, that are not read."""

MM = {0: 1.0, 1: 1000.0, 2: 1.0, 3: 0.001}
"""Millimetres of a unit of length by its number in the header: none said, which is taken as mm as nearly all files are,
metres, mm, microns."""


def _read_nifti(path: Path, assume: str | None, max_memory: int | None) -> Volume:
    try:
        import nibabel
        from nibabel.arrayproxy import ArrayProxy
    except ModuleNotFoundError as error:
        raise MissingExtraError(f"reading {path.name}", "volume") from error
    with _opened(path) as file, _told(path), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        start = file.read(544)
        kind = _kind(path, start)
        file.seek(0)
        header = (nibabel.Nifti1Header if kind == 1 else nibabel.Nifti2Header).from_fileobj(file, check=False)
        shape = _shape(path, header)
        count, size = math.prod(shape), int(header["bitpix"]) // 8
        _check_numbers(path, header)
        geometry, notes = _geometry_of(path, header, assume)
        bytes_needed = count * (size + ((4 if size <= 2 else 8) if _scales(header) else 0))
        advice = "crop it, or give it more (max_memory, --max-memory-mb)"
        check_memory(f"reading {path}", bytes_needed, max_memory, advice)
        needed = int(header.get_data_offset()) + count * size
        if not path.name.lower().endswith(".gz") and path.stat().st_size < needed:
            raise ImageError(
                f"{path} has {path.stat().st_size:,} bytes, and its header speaks of {needed:,}; it was cut off: "
                f"copy it "
                "again"
            )
        voxels = ArrayProxy(file, header, mmap=False)
        exact = np.float32 if size <= 2 else np.float64
        raw = np.asarray(voxels, dtype=exact) if _scales(header) else voxels.get_unscaled()
        values = np.asarray(raw).reshape(shape, order="F").T
        _read_rest(path, file)
    for sentence in notes:
        warnings.warn(f"{path}: {sentence}", PixelwiseWarning, stacklevel=3)
    values = values.astype(values.dtype.newbyteorder("="), copy=False)
    return Volume(values, geometry, str(path))


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    """The file's bytes, decompressed where it says that they are, whatever its name is."""
    with open(path, "rb") as file:
        zipped = file.read(2) == b"\x1f\x8b"
        file.seek(0)
        if not zipped:
            yield file
            return
        with gzip.open(file) as inside:
            yield inside


@contextmanager
def _told(path: Path) -> Iterator[None]:
    """Whatever a damaged file does to its reader is one sentence."""
    try:
        with quiet():
            yield
    except (ImageError, InputError, MissingExtraError):
        raise
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise ImageError(f"{path} is damaged or was cut off ({first_line(error)}); copy it again") from error
    except OSError as error:
        raise ImageError(f"{path} cannot be read ({first_line(error)})") from error
    except MemoryError as error:
        raise ImageError(f"{path} does not fit into memory; crop it") from error
    except Exception as error:  # nibabel's own share no base class
        raise ImageError(f"{path} is damaged, or no volume ({first_line(error)})") from error


@contextmanager
def quiet() -> Iterator[None]:
    """nibabel prints what it finds odd in a header, which is looked at here."""
    logger = logging.getLogger("nibabel.global")
    before, logger.disabled = logger.disabled, True
    try:
        yield
    finally:
        logger.disabled = before


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


def _read_rest(path: Path, file: Any) -> None:
    """To the end, where a compressed file has the sum of all bytes before it."""
    if not isinstance(file, gzip.GzipFile):
        return
    behind = 0
    while more := file.read(2**20):
        behind += len(more)
        if behind > MAX_BEHIND:
            raise ImageError(f"{path} goes on behind its voxels; it is damaged, or was made to fill memory")


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
    if len(forms) == 2 and not notes and (far := _apart(forms["sform"], forms["qform"], sides)) > NEARLY:
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


def _apart(first: NDArray[np.float64], second: NDArray[np.float64], sides: list[int]) -> float:
    """How far two affines put a corner of the volume apart, in voxels of the first."""
    corners = np.array(
        [[i, j, k, 1] for i in (0, sides[0] - 1) for j in (0, sides[1] - 1) for k in (0, sides[2] - 1)]
    )
    apart = np.linalg.norm((corners @ (first - second).T)[:, :3], axis=1)
    return float(apart.max() / np.linalg.norm(first[:3, :3], axis=0).min())

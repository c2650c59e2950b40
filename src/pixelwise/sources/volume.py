"""Volumes: scans of slices, with what a file says about where their voxels lie.

One module for each kind of file: `nifti`, `nrrd`, `metaimage`, `dicom` and `stacks`. Nothing about the place of a scan
is guessed: what a file does not say, or says in a way that cannot be, is refused in a sentence, and where two programs
would read it differently a warning says so.
"""

from __future__ import annotations

import os
import re
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pixelwise.errors import ImageError, InputError, PixelwiseWarning
from pixelwise.geometry import Geometry, check_orientation
from pixelwise.images import check_file
from pixelwise.sources import dicom
from pixelwise.sources.voxels import NEARLY, Read, ScanFiles, apart

ENDINGS = (".nii", ".nii.gz", ".nrrd", ".nhdr", ".mha", ".mhd")
"""What counts as a volume when a folder is searched, besides DICOM."""

STACKS = (".tif", ".tiff", ".zarr")
"""What is a volume only for a model that takes volumes."""

NAMED = (
    *sorted(ENDINGS, key=len, reverse=True),
    ".ome.tiff",
    ".ome.tif",
    ".ome.zarr",
    *STACKS,
    *dicom.ENDINGS,
    ".zip",
)
"""Endings that the names of results leave out, longer ones first."""


@dataclass(frozen=True, eq=False)
class Volume:
    """A scan. values: (d, h, w), or (c, d, h, w) of several channels, in the numbers that the file means (its slope and
    intercept are applied), of any real type; d are slices, h rows and w columns as they are stored, the last axis being
    the one that the file counts first: `nibabel.load(path).dataobj` transposed, and SimpleITK's `GetArrayFromImage`.

    geometry: where the voxels lie, None where nobody says it. name: for sentences. origin: the files that it was read
    from, None for an array.
    """

    values: NDArray[Any]
    geometry: Geometry | None = None
    name: str = "the volume"
    origin: ScanFiles | None = None

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
    """Whether a file or folder is to be treated as a volume: by the end of its name, or as it holds DICOM. Stacks of
    pictures (`STACKS`) are volumes only for a model that takes volumes."""
    if path.name.lower().endswith(ENDINGS):
        return True
    if path.is_dir():
        return path.suffix.lower() != ".zarr" and any(
            one.suffix.lower() in dicom.ENDINGS or dicom.is_dicom(one) for one in dicom.files_in(path)
        )
    if path.suffix.lower() == ".zip":
        return dicom.is_dicom_zip(path)
    return path.suffix.lower() in dicom.ENDINGS or (dicom.may_be(path.name) and dicom.is_dicom(path))


def stem_of(name: Path) -> str:
    """The name of a volume's file without its ending."""
    ending = next((end for end in NAMED if name.name.lower().endswith(end)), "")
    return name.name[: -len(ending)] if ending and len(ending) < len(name.name) else name.name


CHANNEL = re.compile(r"(.+)_(\d{4})")
"""A file of one channel, as nnU-Net names them: CASE_0000.nii.gz, CASE_0001.nii.gz and so on."""


def channel_of(path: Path) -> tuple[str, int] | None:
    """What a file's name says that it holds: the case, and the number of the channel; None for other names."""
    found = CHANNEL.fullmatch(stem_of(path))
    return None if found is None or not path.name.lower().endswith(ENDINGS) else (found[1], int(found[2]))


def channel_files(path: Path, count: int, *, check: bool = True) -> list[Path]:
    """The files of so many channels of a case, of which one is the first; only that one where its name says nothing of
    channels. check: raise ImageError where one is missing."""
    of = channel_of(path)
    if count < 2 or of is None or of[1] != 0:
        return [path]
    ending = path.name[len(stem_of(path)) :]
    files = [path.with_name(f"{of[0]}_{i:04d}{ending}") for i in range(count)]
    missing = [file.name for file in files if check and not file.exists()]
    if missing:
        raise ImageError(
            f"{path} is the first of {count} channels, and {', '.join(missing)[:200]} is not beside it; put it there"
        )
    return files


def read_volume(
    path: str | os.PathLike[str],
    *,
    frame: int | None = None,
    series: str | None = None,
    channels: int = 1,
    assume_orientation: str | None = None,
    max_memory: int | None = None,
) -> Volume:
    """The volume in a file, of DICOM also in a folder or a zip.

    frame: of a series over time, or of several channels, which one, from 1. series: of several series of DICOM the UID
    of one, the beginning of it, or its number in the list that the error without it names. channels: how many are
    wanted; CASE_0000.nii.gz is then read with CASE_0001.nii.gz and so on beside it. assume_orientation: of a file that
    does not say how it lies, where its columns, rows and slices grow towards, such as "RAS"; of one that says it, it is
    refused. max_memory: bytes that the voxels may take, None for half of what is free.

    A file in which two places say differently where voxels lie is read as nibabel does, with a PixelwiseWarning. Raises
    ImageError, with the file's name, for what cannot be used, InputError for a frame or series that there is not,
    MissingExtraError without what reads that kind of file.
    """
    path = Path(path)
    if not path.is_dir():
        check_file(path)
    if assume_orientation is not None:
        assume_orientation = check_orientation(assume_orientation)
    parts = [
        _read(file, assume_orientation, max_memory, frame, series) for file in channel_files(path, channels)
    ]
    for read in parts:
        for sentence in read.notes:
            warnings.warn(f"{read.files.path}: {sentence}", PixelwiseWarning, stacklevel=2)
    first = parts[0]
    values = first.values if len(parts) == 1 else _together(parts)
    return Volume(values, first.geometry, str(path), first.files)


def ids_of(volume: Volume) -> NDArray[Any]:
    """The whole numbers (d, h, w) of a label volume, unsigned, 0 to 65535. Raises InputError, with its name, else."""
    values: NDArray[Any] = volume.values
    if values.ndim != 3:
        raise InputError(
            f"{volume.name} has {len(values)} channels, expected a label map of one number a voxel; take the part out "
            "that is meant"
        )
    if values.dtype.kind == "f":
        if not np.isfinite(values).all():
            raise InputError(
                f"{volume.name} holds voxels that are no numbers, expected the ids of a label map"
            )
        whole = values.astype(np.int64)
        if (whole != values).any():
            raise InputError(
                f"{volume.name} holds fractions such as {values[whole != values][0]:g}, expected the ids of a label "
                "map: it was interpolated, or is a scan; write it anew with nearest neighbours"
            )
        values = whole
    if values.dtype.kind == "i" and values.min() < 0:
        raise InputError(f"{volume.name} holds {values.min()}, expected ids from 0")
    if values.max() > 65535:
        raise InputError(f"{volume.name} holds {values.max()}, expected ids to 65535")
    return np.ascontiguousarray(values).astype(np.min_scalar_type(int(values.max())), copy=False)


def _read(
    path: Path, assume: str | None, max_memory: int | None, frame: int | None, series: str | None
) -> Read:
    """A file, by the end of its name, or as DICOM."""
    name = path.name.lower()
    is_folder = path.is_dir() and path.suffix.lower() != ".zarr"
    if is_folder or not name.endswith((*ENDINGS, *STACKS)):
        if not is_volume(path):
            raise ImageError(
                f"{path} is no volume by its name, nor DICOM; these are read: "
                f"{', '.join((*ENDINGS, *STACKS))}, and DICOM as a file, folder or zip"
            )
        return dicom.read_dicom(path, assume, max_memory, frame, series)
    if series is not None:
        raise InputError(f"{path} is no DICOM, which alone has series; leave --series (series) out")
    if name.endswith((".nii", ".nii.gz")):
        from pixelwise.sources.nifti import read_nifti as read
    elif name.endswith((".nrrd", ".nhdr")):
        from pixelwise.sources.nrrd import read_nrrd as read
    elif name.endswith((".mha", ".mhd")):
        from pixelwise.sources.metaimage import read_metaimage as read
    else:
        from pixelwise.sources.stacks import read_stack as read
    return read(path, assume, max_memory, frame)


def _together(parts: list[Read]) -> NDArray[Any]:
    """The channels of several files, which must lie alike."""
    first = parts[0]
    for read in parts:
        a, b = first.geometry, read.geometry
        names = f"{first.files.path} and {read.files.path.name}"
        if read.values.ndim != 3 or read.values.shape != first.values.shape:
            raise ImageError(
                f"{names} are to be channels of one volume, and have {first.values.shape} and {read.values.shape}; "
                "bring them to one grid"
            )
        if (a is None) != (b is None) or (a and b and (a.affine is None) != (b.affine is None)):
            raise ImageError(
                f"{names} are to be channels of one volume, and one of them does not say where it lies"
            )
        if a is None or b is None:
            continue
        far = 0.0
        if a.affine is not None and b.affine is not None:
            far = apart(a.affine, b.affine, read.values.shape[::-1])
        if far > NEARLY or not np.allclose(a.spacing, b.spacing, rtol=NEARLY):
            raise ImageError(
                f"{names} are to be channels of one volume, and lie up to {far:.3g} voxels apart; bring "
                "them to one grid"
            )
    values = np.empty((len(parts), *first.values.shape), np.result_type(*(read.values for read in parts)))
    for i in range(len(parts)):
        values[i] = parts[i].values
        parts[i] = parts[i]._replace(values=values[i])
    return values

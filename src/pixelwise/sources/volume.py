"""Volumes: scans of slices, with what a file says about where their voxels lie.

NIfTI-1 and -2 (nibabel). Nothing about the place of a scan is guessed: what a file does not say, or says in a way that
cannot be, is refused in a sentence, and where two programs would read it differently a warning says so.
"""

from __future__ import annotations

import os
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pixelwise.errors import ImageError, InputError, PixelwiseWarning
from pixelwise.geometry import Geometry, check_orientation
from pixelwise.images import check_file
from pixelwise.sources.voxels import ScanFiles

ENDINGS = (".nii", ".nii.gz")
"""What counts as a volume when a folder is searched."""


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
    from pixelwise.sources.nifti import read_nifti

    read = read_nifti(path, assume_orientation, max_memory)
    for sentence in read.notes:
        warnings.warn(f"{path}: {sentence}", PixelwiseWarning, stacklevel=2)
    return Volume(read.values, read.geometry, str(path), read.files)

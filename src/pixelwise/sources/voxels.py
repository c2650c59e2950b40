"""What the readers of volumes share: what they return, where files came from, and sentences about damaged ones."""

from __future__ import annotations

import gzip
import logging
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

from numpy.typing import NDArray

from pixelwise.errors import ImageError, InputError, MissingExtraError, first_line
from pixelwise.geometry import Geometry

MAX_BEHIND = 2**24
"""Bytes that may lie behind the voxels of a compressed file."""

NEARLY = 1e-3
"""Share of a voxel up to which two ways of saying where voxels lie are the same; headers hold float32."""

FileKind = Literal["nifti", "nrrd", "metaimage", "dicom", "tiff", "zarr"]


@dataclass(frozen=True)
class ScanFiles:
    """The files of a volume. path: the file or folder that was named. slices: of DICOM, for each slice of the array, in
    its order (the first axis of (d, h, w)), the file, its name inside of the folder or zip that `path` is ("" where it
    is that file itself), and the frame in it, from 0; `sources.dicom.read_headers` gives them."""

    kind: FileKind
    path: Path
    slices: tuple[tuple[str, int], ...] = ()


class Read(NamedTuple):
    """What a reader gives: values (d, h, w) or (c, d, h, w), where they lie, sentences for the user, and the files."""

    values: NDArray[Any]
    geometry: Geometry | None
    notes: list[str]
    files: ScanFiles


@contextmanager
def opened(path: Path) -> Iterator[Any]:
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
def told(path: Path) -> Iterator[None]:
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


def read_rest(path: Path, file: Any) -> None:
    """To the end, where a compressed file has the sum of all bytes before it."""
    if not isinstance(file, gzip.GzipFile):
        return
    behind = 0
    while more := file.read(2**20):
        behind += len(more)
        if behind > MAX_BEHIND:
            raise ImageError(f"{path} goes on behind its voxels; it is damaged, or was made to fill memory")

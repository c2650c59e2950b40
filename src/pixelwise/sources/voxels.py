"""What the readers of volumes share: what they return, where files came from, and sentences about damaged ones."""

from __future__ import annotations

import bz2
import gzip
import io
import logging
import math
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pixelwise.errors import ImageError, InputError, MissingExtraError, first_line
from pixelwise.geometry import Geometry, affine_of, in_words
from pixelwise.images import check_file
from pixelwise.limits import check_memory

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


def read_rest(path: Path, file: Any, left: int = 0) -> None:
    """To the end, where a compressed file has the sum of all bytes before it. left: bytes of voxels that come yet."""
    if not isinstance(file, (gzip.GzipFile, bz2.BZ2File, Inflating)):
        return
    behind = -left
    while more := file.read(2**20):
        behind += len(more)
        if behind > MAX_BEHIND:
            raise ImageError(f"{path} goes on behind its voxels; it is damaged, or was made to fill memory")
    if behind < 0:
        raise EOFError("its last voxels are missing")


class Inflating(io.RawIOBase):
    """What a file of zlib's or gzip's bytes unfolds to, a part at a time."""

    def __init__(self, file: Any) -> None:
        self._file, self._decoder, self._left = file, zlib.decompressobj(47), b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        part = b""
        while not part and not self._decoder.eof:
            coming = self._left or self._file.read(2**16)
            if not coming:
                raise EOFError("its compressed bytes end too early")
            part = self._decoder.decompress(coming, len(buffer))
            self._left = self._decoder.unconsumed_tail
        buffer[: len(part)] = part
        return len(part)


def read_numbers(file: Any, count: int, dtype: np.dtype[Any]) -> NDArray[Any]:
    """So many numbers from a file, in this machine's byte order. Raises EOFError where there are fewer."""
    values: NDArray[Any] = np.empty(count, dtype)
    bytes_ = values.view(np.uint8).data
    at = 0
    while at < len(bytes_):
        got = file.readinto(bytes_[at : at + 2**24])
        if not got:
            raise EOFError(f"{at:,} of {len(bytes_):,} bytes are there")
        at += got
    return values if dtype.isnative else values.byteswap(inplace=True).view(dtype.newbyteorder("="))


def read_text_numbers(file: Any, count: int, dtype: np.dtype[Any]) -> NDArray[Any]:
    """The same of numbers that are written out."""
    words = file.read(32 * count + 1).split()
    if len(words) < count:
        raise EOFError(f"{len(words):,} of {count:,} numbers are there")
    return np.array(words[:count], np.float64 if dtype.kind == "f" else np.int64).astype(dtype)


def check_voxels(path: Path, data: Path, count: int, dtype: np.dtype[Any], at: int | None,
                 max_memory: int | None) -> None:  # fmt: skip
    """Raise where so many voxels do not fit into memory, or not into the file of theirs, in which they are as they are
    from byte `at` on; None for what is compressed."""
    needed = count * dtype.itemsize
    advice = "crop it, or give it more (max_memory, --max-memory-mb)"
    check_memory(f"reading {path}", needed, max_memory, advice)
    if at is not None and (there := data.stat().st_size - at) < needed:
        raise ImageError(
            f"{data} has {max(0, there):,} bytes of voxels, and the header speaks of {needed:,}; it was cut off: copy "
            "it again"
        )


def beside(path: Path, name: str) -> Path:
    """The file that a header names as that of its voxels: one beside it, and nowhere else."""
    if not name or name != Path(name).name or name in (".", "..") or "\\" in name or "\0" in name:
        raise ImageError(
            f"{path} names a file in another place ({name!r:.80}); the voxels must lie in a file beside it: move it "
            "there, and name it so"
        )
    data = path.parent / name
    if data.is_symlink() and data.resolve().parent != path.parent.resolve():
        raise ImageError(f"{data} is a link that leads elsewhere; copy the file there")
    if not data.exists():
        raise ImageError(
            f"{path} names {name} as the file of its voxels, and none is beside it; put it there"
        )
    check_file(data)
    return data


def check_frame(path: Path, frame: int | None, count: int, *, needed: bool = False) -> int | None:
    """The index, from 0, of a frame that is counted from 1. needed: one must be said where there are several."""
    if frame is None:
        if needed and count > 1:
            raise ImageError(f"{path} holds {count} volumes; choose one with --frame 1 to {count} (frame=)")
        return None
    if isinstance(frame, bool) or not isinstance(frame, int) or not 1 <= frame <= count:
        holds = "one volume" if count == 1 else f"{count} volumes, counted from 1"
        raise InputError(f"{path} holds {holds}; got frame {frame!r:.40}")
    return frame - 1


LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])
"""DICOM, ITK and most of NRRD count to the left and to the back, where `Geometry` counts to the right and the front."""


def affine_from(axes: Any, origin: Any) -> NDArray[np.float64]:
    """The affine of three steps, of a column, a row and a slice, and of the first voxel."""
    affine = np.eye(4)
    affine[:3, :3] = np.transpose(np.array(axes, np.float64))
    affine[:3, 3] = origin
    return affine


def geometry_from(path: Path, affine: NDArray[np.float64], what: str) -> Geometry:
    """The geometry of an affine, of which `what` says where it stands."""
    if not np.isfinite(affine).all() or np.linalg.det(affine[:3, :3]) == 0:
        raise ImageError(
            f"{path} does not say where its voxels lie: its {what} is singular or not finite, "
            f"{in_words(affine[:3])}; mend its header"
        )
    try:
        return Geometry.of(affine)
    except InputError as error:
        raise ImageError(f"{path} does not say where its voxels lie ({error})") from error


def geometry_without_place(
    path: Path, spacing: Sequence[float] | None, assume: str | None
) -> Geometry | None:
    """The geometry of a file that says only its spacing, (slices, rows, columns) in mm, or nothing. assume: the
    orientation that the user says it has."""
    if spacing is None:
        if assume is not None:
            raise InputError(
                f"{path} does not say its spacing, so an orientation is not enough; give a Volume.of"
            )
        return None
    if not (np.isfinite(spacing).all() and min(spacing) > 0):
        raise ImageError(
            f"{path} says that its voxels are {' x '.join(f'{side:g}' for side in reversed(spacing))} in size; "
            "expected positive numbers: mend its header"
        )
    sides = float(spacing[0]), float(spacing[1]), float(spacing[2])
    return Geometry(sides, None if assume is None else affine_of(assume, sides))


def refuse_assumed(path: Path, assume: str | None, says: str) -> None:
    """Raise InputError where an orientation is assumed of a file that says it."""
    if assume is not None:
        raise InputError(
            f"{path} says how it lies ({says}), got an assumed orientation {assume}; leave it out"
        )


def channels_first(values: NDArray[Any], axis: int | None) -> NDArray[Any]:
    """An array of voxels with its axis of channels or frames, if it has one, in front: a view."""
    return values if axis is None else np.moveaxis(values, axis, 0)


def sides_of(path: Path, sides: Sequence[int], most: int = 4) -> None:
    """Raise ImageError for what cannot be the sides of a volume."""
    if not 3 <= len(sides) <= most:
        raise ImageError(
            f"{path} has {len(sides)} dimensions, {' x '.join(map(str, sides))[:200]}; expected a volume of three, or "
            "four with channels: take the part out that is meant"
        )
    if min(sides) < 1 or math.prod(sides) >= 2**48:
        raise ImageError(f"{path} is damaged: its header speaks of sides {list(sides)}")


def apart(first: NDArray[np.float64], second: NDArray[np.float64], sides: Sequence[int]) -> float:
    """How far two affines put a corner of the volume apart, in voxels of the first."""
    corners = np.array(
        [[i, j, k, 1] for i in (0, sides[0] - 1) for j in (0, sides[1] - 1) for k in (0, sides[2] - 1)]
    )
    apart = np.linalg.norm((corners @ (first - second).T)[:, :3], axis=1)
    return float(apart.max() / np.linalg.norm(first[:3, :3], axis=0).min())

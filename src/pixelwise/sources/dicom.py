"""DICOM (pydicom): a series of slices in a folder or zip, or in files of many frames.

Slices are put in order along their normal, r x c of the directions in which columns and rows are counted, and never by
their number or name. What does not make one regular volume is refused in words. Nothing that a file says of a patient
gets into a sentence, so what pydicom says of damaged files, which may quote it, is left out.
"""

from __future__ import annotations

import io
import itertools
import logging
import os
import re
import zipfile
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pixelwise.errors import ImageError, InputError, MissingExtraError, PixelwiseError
from pixelwise.limits import check_memory
from pixelwise.sources.voxels import (
    LPS_TO_RAS,
    Read,
    ScanFiles,
    affine_from,
    geometry_from,
    refuse_assumed,
)

ENDINGS = (".dcm", ".dicom", ".ima")
"""What files of DICOM end in, where they end in anything."""

MAX_FILES = 200_000
"""Files of a folder or zip."""

MAX_PART = 2**28
"""Bytes that are read at a time, of a header or of a picture."""

MAX_READS = 1_000_000
"""Parts of which a header may consist; one of 5,000 frames has so many."""

STORAGE = "1.2.840.10008.5.1.4.1.1."
NO_PICTURES = (
    "1.2.840.10008.1.3.10",  # DICOMDIR
    *(
        STORAGE + kind for kind in ("66", "67", "68.", "88.", "11.", "104.", "9.", "4.2")
    ),  # masks, reports, curves
    *(f"{STORAGE}481.{kind}" for kind in range(3, 10)),  # contours and plans of radiotherapy
)
"""What classes of objects that are no pictures begin with."""

DEFLATED = "1.2.840.10008.1.2.1.99"

HEADER = (
    "SOPClassUID SeriesInstanceUID Modality SeriesDescription SeriesNumber ImageType Rows Columns NumberOfFrames "
    "SamplesPerPixel PhotometricInterpretation BitsAllocated BitsStored PixelRepresentation ImagePositionPatient "
    "ImageOrientationPatient PixelSpacing RescaleSlope RescaleIntercept ModalityLUTSequence FrameOfReferenceUID "
    "AcquisitionNumber TemporalPositionIdentifier TriggerTime EchoNumbers EchoTime AcquisitionTime ContentTime "
    "DiffusionBValue PatientName PatientID SharedFunctionalGroupsSequence PerFrameFunctionalGroupsSequence"
).split()
"""What is read of each file first."""

TIMES = (
    "TemporalPositionIdentifier", "TemporalPositionIndex", "AcquisitionNumber", "TriggerTime", "EchoNumbers",
    "EchoTime", "DiffusionBValue", "AcquisitionTime", "ContentTime",
)  # fmt: skip
"""What may tell apart slices at one place, the first that does so counts."""

STEP_MM, STEP_SHARE = 0.01, 0.01
"""How far, in mm and as a share of the step, a slice may lie from where it belongs."""

GAP = 1.5
"""Steps from which on a slice is missing."""

TILT = 1e-3
"""Sine of the angle between the slices' normal and their stack from which on they are tilted."""

LISTED = 8
"""Series that a sentence names."""


@dataclass(frozen=True)
class _Slice:
    """name, frame: as in `ScanFiles.slices`. position, directions: mm and cosines (LPS). spacing: (rows, columns) mm.
    times: of `TIMES`, None for what is not said."""

    name: str
    frame: int
    size: tuple[int, int]
    position: NDArray[np.float64]
    directions: NDArray[np.float64]
    spacing: tuple[float, float]
    slope: float
    intercept: float
    times: tuple[Any, ...]
    reference: str


# Where files lie ---------------------------------------------------------------------------------------------------


class _Place:
    """A folder, a zip, or one file, as names and what opens them."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._zip: zipfile.ZipFile | None = None

    def __enter__(self) -> _Place:
        if not self.path.is_dir() and not is_dicom(self.path) and zipfile.is_zipfile(self.path):
            self._zip = zipfile.ZipFile(self.path)
        return self

    def __exit__(self, *_: object) -> None:
        if self._zip is not None:
            self._zip.close()

    @property
    def is_one_file(self) -> bool:
        return self._zip is None and not self.path.is_dir()

    def names(self) -> list[str]:
        """Of all files, without hidden ones; "" stands for the one file. ImageError for a zip that nobody should
        unpack."""
        if self.is_one_file:
            return [""]
        found = sorted(self._in_zip() if self._zip is not None else self._in_folder())
        if len(found) > MAX_FILES:
            raise ImageError(f"{self.path} has more than {MAX_FILES:,} files; name the folder of one series")
        return found

    def _in_folder(self) -> Iterator[str]:
        for path in itertools.islice(files_in(self.path), MAX_FILES + 1):
            yield path.relative_to(self.path).as_posix()

    def _in_zip(self) -> Iterator[str]:
        assert self._zip is not None
        for entry in self._zip.infolist():
            parts = entry.filename.replace("\\", "/").split("/")
            if (
                entry.filename.startswith(("/", "\\"))
                or ".." in parts
                or ":" in parts[0]
                or "\0" in entry.filename
            ):
                raise ImageError(
                    f"{self.path} holds a file that is to be written outside of its folder "
                    f"({entry.filename!r:.80}); pack it anew"
                )
            if entry.flag_bits & 1:
                raise ImageError(f"{self.path} is encrypted; unpack it, and name the folder")
            hidden = any(part.startswith(".") or part == "__MACOSX" for part in parts)
            if not entry.is_dir() and not hidden:
                yield entry.filename

    def size(self, name: str) -> int:
        if self._zip is not None:
            return self._zip.getinfo(name).file_size
        return (self.path / name if name else self.path).stat().st_size

    @contextmanager
    def open(self, name: str) -> Iterator[Any]:
        """A file, of which no more is read at a time than there is, nor than `MAX_PART`."""
        if self._zip is not None:
            with self._zip.open(name) as entry:
                yield _Bounded(entry, self.size(name), self.path)
            return
        path = self.path / name if name else self.path
        with open(path, "rb") as file:
            yield _Bounded(file, self.size(name), self.path)

    @contextmanager
    def open_whole(self, name: str) -> Iterator[Any]:
        """The same for what is read from here and there, which in a zip would unfold it each time anew."""
        with self.open(name) as file:
            if self._zip is None:
                yield file
                return
            parts = io.BytesIO()
            while part := file.read(2**20):
                parts.write(part)
            parts.seek(0)
            yield _Bounded(parts, len(parts.getbuffer()), self.path)


class _Bounded:
    """A file that is not asked for more than it has: Python makes room first, for as much as a length in it says."""

    def __init__(self, file: Any, size: int, path: Path) -> None:
        self._file, self._size, self._path, self._reads = file, size, path, 0
        self.seek, self.tell, self.close = file.seek, file.tell, file.close

    def read(self, count: int | None = -1) -> bytes:
        self._reads += 1
        if self._reads > MAX_READS:
            raise ImageError(f"{self._path} is damaged, or has a header of more than {MAX_READS:,} parts")
        left = max(0, self._size - self._file.tell())
        count = left if count is None or count < 0 else min(count, left)
        if count > MAX_PART:
            raise ImageError(
                f"{self._path} is damaged, or has a part of {count:,} bytes, more than {MAX_PART:,}"
            )
        part: bytes = self._file.read(count)
        return part


def files_in(folder: Path) -> Iterator[Path]:
    """The files in a folder and those below that may be DICOM by their names, without hidden ones."""
    for here, folders, names in os.walk(folder):
        folders[:] = sorted(
            name for name in folders if not name.startswith(".") and not name.endswith(".zarr")
        )
        for name in sorted(names):
            if not name.startswith(".") and may_be(name) and (path := Path(here, name)).is_file():
                yield path


def may_be(name: str) -> bool:
    """Whether a file may be DICOM by its name: it has an ending of DICOM, or none that is a word."""
    ending = os.path.splitext(name)[1].lower()
    return ending in ENDINGS or not re.fullmatch(r"\.[a-z][a-z0-9_]*", ending)


def is_dicom(path: Path) -> bool:
    """Whether a file begins as DICOM does."""
    try:
        if not path.is_file():
            return False
        with open(path, "rb") as file:
            return file.read(132)[128:] == b"DICM"
    except OSError:
        return False


def is_dicom_zip(path: Path, look_at: int = 20) -> bool:
    """Whether one of the first files in a zip is DICOM."""
    try:
        with zipfile.ZipFile(path) as archive:
            entries = [entry for entry in archive.infolist() if not entry.is_dir()]
            if any(Path(entry.filename).suffix.lower() in ENDINGS for entry in entries):
                return True
            for entry in [e for e in entries if may_be(Path(e.filename).name)][:look_at]:
                with archive.open(entry) as file:
                    if file.read(132)[128:] == b"DICM":
                        return True
    except Exception:  # whatever a damaged archive does to its reader
        pass
    return False


def find_scans(folder: Path) -> list[Path]:
    """The folders below one, or itself, that hold DICOM, each a scan; where a series is spread over several, the folder
    around them. Of archives those that hold DICOM."""
    archives = [
        Path(here, name)
        for here, folders, names in os.walk(folder)
        for name in names
        if name.lower().endswith(".zip") and not name.startswith(".") and is_dicom_zip(Path(here, name))
    ]
    return sorted([*_scan_folders(folder), *archives])


def _scan_folders(folder: Path) -> list[Path]:
    leaves: dict[Path, list[Path]] = defaultdict(list)
    for path in files_in(folder):
        if path.suffix.lower() in ENDINGS or is_dicom(path):
            leaves[path.parent].append(path)
    if len(leaves) < 2 or folder in leaves:
        return [folder] if folder in leaves else list(leaves)
    series: dict[str, set[Path]] = defaultdict(set)
    for leaf, files in leaves.items():
        for path in files:
            if uid := _series_of(path):
                series[uid].add(leaf)
    scans = set(leaves)
    for places in series.values():
        if len(places) > 1:
            around = Path(os.path.commonpath(places))
            scans = {scan for scan in scans if around not in (scan, *scan.parents)} | {around}
    return [scan for scan in scans if not any(other in scan.parents for other in scans)]


def _series_of(path: Path) -> str | None:
    """The series of a file; None for what cannot be read, which its reader will say."""
    try:
        with _silent(), _Place(path) as place, place.open("") as file:
            found = _dataset(file, ["SeriesInstanceUID", "SOPClassUID"])
            if str(found.get("SOPClassUID", "")).startswith(NO_PICTURES):
                return None
            return str(found.get("SeriesInstanceUID", "")) or None
    except Exception:
        return None


# Reading -----------------------------------------------------------------------------------------------------------


def read_dicom(
    path: Path,
    assume: str | None = None,
    max_memory: int | None = None,
    frame: int | None = None,
    series: str | None = None,
) -> Read:
    """See `volume.read_volume`. series: the UID of one, the beginning of it, or its number in the list."""
    with _told(path), _Place(path) as place:
        refuse_assumed(path, assume, "ImageOrientationPatient")
        chosen, notes = _chosen(place, series)
        slices = [one for name, header in chosen for one in _slices(path, name, header)]
        _check_alike(path, slices)
        slices = _in_order(path, slices, frame)
        step = _step(path, slices)
        first = slices[0]
        (rows_mm, columns_mm), (r, c) = first.spacing, (first.directions[:3], first.directions[3:])
        affine = LPS_TO_RAS @ affine_from([r * columns_mm, c * rows_mm, step], first.position.tolist())
        geometry = geometry_from(path, affine, "ImagePositionPatient")
        values = _values(place, slices, dict(chosen), max_memory)
    return Read(values, geometry, notes, ScanFiles("dicom", path, tuple((s.name, s.frame) for s in slices)))


def read_headers(files: ScanFiles) -> list[Any]:
    """pydicom's datasets, without their pixels, of the files of a DICOM volume: in the order of its slices; of a file
    of many frames it once."""
    with _told(files.path), _Place(files.path) as place:
        found = []
        for name in dict.fromkeys(name for name, _ in files.slices):
            with place.open(name) as file:
                found.append(_dataset(file, None))
        return found


@contextmanager
def _told(path: Path) -> Iterator[None]:
    """Whatever a damaged file does to its reader is one sentence, without what the file says."""
    try:
        with _silent():
            yield
    except PixelwiseError:
        raise
    except MemoryError:
        raise ImageError(f"{path} does not fit into memory; crop it") from None
    except zipfile.BadZipFile:
        raise ImageError(f"{path} is a damaged archive; pack it anew") from None
    except EOFError:
        raise ImageError(f"{path} is damaged or was cut off; copy it again") from None
    except OSError as error:
        raise ImageError(f"{path} cannot be read ({error.strerror or 'it is damaged'})") from None
    except Exception as error:
        raise ImageError(
            f"{path} is damaged, or no DICOM that can be read ({type(error).__name__}); copy it again"
        ) from None


@contextmanager
def _silent() -> Iterator[None]:
    """pydicom says what it finds odd in logs and warnings, with the values."""
    import warnings

    logger = logging.getLogger("pydicom")  # whose level is that of those below it, too
    before = logger.level
    logger.setLevel(logging.CRITICAL + 1)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(before)


def _dataset(file: Any, tags: Sequence[str] | None) -> Any:
    """The header of a file; what is deflated as a whole is refused before it unfolds."""
    try:
        from pydicom.filereader import read_dataset, read_partial
    except ModuleNotFoundError:
        raise MissingExtraError("reading DICOM", "volume") from None
    start = file.read(132)
    if start[128:] != b"DICM":
        raise _NoDicom
    meta = read_dataset(file, False, True, stop_when=lambda tag, vr, length: tag.group != 2)
    if str(meta.get("TransferSyntaxUID", "")) == DEFLATED:
        raise _Deflated
    if file.read(2) == b"\0\0":  # commands, of which pydicom would read on and on
        raise _NoDicom
    file.seek(0)
    before = 0

    def stops(tag: Any, vr: Any, length: int) -> bool:
        nonlocal before
        if tag <= before:  # they go upwards
            raise _NoDicom
        before = int(tag)
        return int(tag) >= PIXELS

    return read_partial(file, stop_when=stops, specific_tags=None if tags is None else _tags(tags))


PIXELS = 0x7FE00008
"""The first tag of pixels, as floats, doubles or whole numbers."""


def _tags(words: Sequence[str]) -> list[Any]:
    from pydicom.tag import Tag

    return [Tag(word) for word in words]


class _NoDicom(Exception):
    pass


class _Deflated(Exception):
    pass


def _headers(place: _Place) -> Iterator[tuple[str, Any]]:
    """Name and header of each file that is DICOM."""
    for name in place.names():
        is_named_so = os.path.splitext(name or place.path.name)[1].lower() in ENDINGS or place.is_one_file
        if not is_named_so and not may_be(Path(name).name):
            continue
        where = f"{place.path}: {name}" if name else str(place.path)
        try:
            with place.open(name) as file:
                yield name, _dataset(file, HEADER)
        except _NoDicom:
            if is_named_so:
                raise ImageError(
                    f"{where} is no DICOM file by its content, or was cut off; copy it again, or move it elsewhere"
                ) from None
        except _Deflated:
            raise ImageError(
                f"{where} is deflated as a whole; write it plainly first, such as by dcmconv +te"
            ) from None
        except (PixelwiseError, OSError, zipfile.BadZipFile, MemoryError):
            raise
        except Exception as error:
            raise ImageError(
                f"{where} is damaged, or no DICOM that can be read ({type(error).__name__}); copy it again"
            ) from None


def _chosen(place: _Place, series: str | None) -> tuple[list[tuple[str, Any]], list[str]]:
    """Files and headers of the one series that is meant, and a sentence on what is left out."""
    by_series: dict[str, list[tuple[str, Any]]] = defaultdict(list)
    localizers = 0
    for name, header in _headers(place):
        if str(header.get("SOPClassUID", "")).startswith(NO_PICTURES):
            continue
        if not header.get("Rows") or not header.get("Columns"):
            where = f"{place.path}: {name}" if name else str(place.path)
            raise ImageError(f"{where} holds no picture, or was cut off; copy it again, or move it elsewhere")
        if "LOCALIZER" in [str(word).upper() for word in _words(header.get("ImageType"))]:
            localizers += 1
        else:
            by_series[str(header.get("SeriesInstanceUID", ""))].append((name, header))
    if not by_series:
        what = "nothing but localizers" if localizers else "no DICOM pictures"
        raise ImageError(f"{place.path} holds {what}; name the folder of a series of slices")
    order = sorted(by_series, key=lambda uid: (_number(by_series[uid][0][1].get("SeriesNumber")), uid))
    if series is None and len(order) > 1:
        raise ImageError(
            f"{place.path} holds {len(order)} series, {_list(order, by_series)}; choose one with --series (series=), "
            "by its number here or the beginning of its UID"
        )
    uid = order[0] if series is None else _matching(place.path, series, order, by_series)
    notes = [f"{localizers} localizers are left out"] if localizers else []
    return by_series[uid], notes


def _matching(path: Path, series: str, order: list[str], by_series: dict[str, Any]) -> str:
    if series.isdecimal() and 1 <= int(series) <= len(order):
        return order[int(series) - 1]
    found = [uid for uid in order if uid.startswith(series)] if series else []
    if series in order:
        found = [series]
    if len(found) == 1:
        return found[0]
    how = f"{len(found)} series whose UID begins with" if found else "no series"
    raise InputError(f"{path} holds {how} {series!r:.70}; there are {_list(order, by_series)}")


def _list(order: list[str], by_series: dict[str, list[tuple[str, Any]]]) -> str:
    """Series for people: number, modality, description, slices, UID; without descriptions that name the patient."""
    rows = []
    for number, uid in enumerate(order[:LISTED], start=1):
        header, count = by_series[uid][0][1], len(by_series[uid])
        said = _description(header)
        rows.append(
            f"{number}: {_plain(header.get('Modality', ''), 8)}{f' {said!r}' if said else ''}, {count} of "
            f"{header.Columns} x {header.Rows} ({_plain(uid, 64)})"
        )
    more = f"; and {len(order) - LISTED} more" if len(order) > LISTED else ""
    return "; ".join(rows) + more


def _description(header: Any) -> str:
    said = _plain(header.get("SeriesDescription", ""), 30)
    words = re.findall(r"\w{2,}", f"{header.get('PatientName', '')} {header.get('PatientID', '')}".lower())
    return "" if any(word in said.lower() for word in words) else said


def _plain(value: Any, most: int) -> str:
    return "".join(c for c in str(value) if c.isprintable())[:most]


def _number(value: Any) -> int:
    try:
        return int(value)
    except (TypeError, ValueError):
        return 2**31


def _words(value: Any) -> list[Any]:
    return [] if value is None else [value] if isinstance(value, str) else list(value)


# One volume of slices ----------------------------------------------------------------------------------------------


def _slices(path: Path, name: str, header: Any) -> Iterator[_Slice]:
    """The slices of a file: it, or its frames."""
    where = f"{path}: {name}" if name else str(path)
    if "MOSAIC" in [str(word).upper() for word in _words(header.get("ImageType"))]:
        raise ImageError(
            f"{where} is a mosaic, all slices in one picture, whose places are not in it; have the scanner write "
            "slices of their own, or convert it with dcm2niix"
        )
    samples, colors = int(header.get("SamplesPerPixel", 1)), str(header.get("PhotometricInterpretation", ""))
    if samples != 1 or not colors.startswith("MONOCHROME"):
        raise ImageError(
            f"{where} holds colours ({_plain(colors, 20) or 'unsaid'}); expected one number a voxel: name another "
            "series"
        )
    frames = int(header.get("NumberOfFrames") or 1)
    groups = list(header.get("PerFrameFunctionalGroupsSequence") or ())
    if not groups and frames > 1:
        raise ImageError(
            f"{where} has {frames} frames and does not say where each lies; expected slices, or an enhanced file"
        )
    if groups and len(groups) != frames:
        raise ImageError(f"{where} is damaged: it has {frames} frames, and says places of {len(groups)}")
    shared = next(iter(header.get("SharedFunctionalGroupsSequence") or ()), None)
    for frame in range(frames):
        own = groups[frame] if groups else None

        def said(keyword: str, group: str | None = None, own: Any = own) -> Any:
            for item in (own, shared):
                inner = None if item is None or group is None else next(iter(item.get(group) or ()), None)
                if inner is not None and inner.get(keyword) is not None:
                    return inner.get(keyword)
            return header.get(keyword)

        position = _floats(
            where, "ImagePositionPatient", said("ImagePositionPatient", "PlanePositionSequence"), 3
        )
        directions = _floats(
            where, "ImageOrientationPatient", said("ImageOrientationPatient", "PlaneOrientationSequence"), 6
        )
        spacing = _floats(where, "PixelSpacing", said("PixelSpacing", "PixelMeasuresSequence"), 2)
        if min(spacing) <= 0:
            raise ImageError(
                f"{where} says that its pixels are {spacing[1]:g} x {spacing[0]:g} mm; expected positive numbers"
            )
        r, c = directions[:3], directions[3:]
        if abs(r @ c) > 1e-3 or abs(r @ r - 1) > 1e-2 or abs(c @ c - 1) > 1e-2:
            raise ImageError(
                f"{where} has an ImageOrientationPatient that is none: {directions.round(4).tolist()}"
            )
        slope, intercept = 1.0, 0.0
        if header.get("ModalityLUTSequence") is None:
            rescale = "PixelValueTransformationSequence"
            slope = _one(where, "RescaleSlope", said("RescaleSlope", rescale), 1.0)
            intercept = _one(where, "RescaleIntercept", said("RescaleIntercept", rescale), 0.0)
            if slope == 0:
                raise ImageError(f"{where} is damaged: its RescaleSlope is 0")
        times = tuple(
            said(word, "MRDiffusionSequence" if word == "DiffusionBValue" else "FrameContentSequence")
            for word in TIMES
        )
        yield _Slice(
            name, frame, (int(header.Rows), int(header.Columns)), position, directions,
            (float(spacing[0]), float(spacing[1])), slope, intercept,
            tuple(None if value is None else str(value)[:32] for value in times),
            str(header.get("FrameOfReferenceUID", "")),
        )  # fmt: skip


def _floats(where: str, word: str, value: Any, count: int) -> NDArray[np.float64]:
    if value is None or value == "":
        raise ImageError(
            f"{where} does not say its {word}, so nobody knows where it lies; name another series"
        )
    try:
        found = np.array([float(number) for number in value], np.float64)
    except (TypeError, ValueError):
        found = np.zeros(0)
    if found.shape != (count,) or not np.isfinite(found).all():
        raise ImageError(f"{where} is damaged: its {word} is not {count} finite numbers")
    return found


def _one(where: str, word: str, value: Any, default: float) -> float:
    if value is None or value == "":
        return default
    return float(_floats(where, word, [value], 1)[0])


def _check_alike(path: Path, slices: Sequence[_Slice]) -> None:
    """Raise ImageError where slices are not of one grid."""
    first = slices[0]
    for one in slices:
        what = None
        if one.size != first.size:
            what = f"{one.size[1]} x {one.size[0]} pixels and {first.size[1]} x {first.size[0]}"
        elif not np.allclose(one.directions, first.directions, atol=1e-3):
            what = f"directions {one.directions.round(3).tolist()} and {first.directions.round(3).tolist()}"
        elif not np.allclose(one.spacing, first.spacing, rtol=1e-3):
            sides = [f"{columns:g} x {rows:g} mm" for rows, columns in (one.spacing, first.spacing)]
            what = f"pixels of {sides[0]} and {sides[1]}"
        elif one.reference != first.reference:
            what = "two frames of reference"
        if what:
            raise ImageError(
                f"{path} mixes slices that are no one volume ({what}, in {_called(one)} and {_called(first)}); put "
                "each volume into a folder of its own"
            )


def _called(one: _Slice) -> str:
    return f"{one.name or 'it'}{f' frame {one.frame + 1}' if one.frame else ''}"


def _along(one: _Slice) -> float:
    normal = np.cross(one.directions[:3], one.directions[3:])
    return float(one.position @ normal / np.linalg.norm(normal))


def _in_order(path: Path, slices: list[_Slice], frame: int | None) -> list[_Slice]:
    """Slices along their normal; of several volumes at one place that which is chosen."""
    slices = sorted(slices, key=_along)
    places: list[list[_Slice]] = []
    for one in slices:
        if places and _along(one) - _along(places[-1][0]) <= STEP_MM / 2:
            places[-1].append(one)
        else:
            places.append([one])
    counts = Counter(len(place) for place in places)
    times = next(iter(counts))
    if len(counts) == 1 and times == 1:
        if frame not in (None, 1):
            raise InputError(f"{path} holds one volume; got frame {frame!r:.40}")
        return slices
    twice = next(place for place in places if len(place) > 1)
    for i, word in enumerate(TIMES):
        values = sorted({one.times[i] for one in slices if one.times[i] is not None}, key=_as_number)
        if len(counts) > 1 or len(values) != times:
            continue
        if any({one.times[i] for one in place} != {*values} for place in places):
            continue
        if frame is None:
            raise ImageError(
                f"{path} holds {times} volumes at one place, told apart by {word}; choose one with --frame 1 to "
                f"{times} (frame=)"
            )
        if isinstance(frame, bool) or not isinstance(frame, int) or not 1 <= frame <= times:
            raise InputError(f"{path} holds {times} volumes, counted from 1; got frame {frame!r:.40}")
        return [one for place in places for one in place if one.times[i] == values[frame - 1]]
    raise ImageError(
        f"{path} has two slices at the same place, {_called(twice[0])} and {_called(twice[1])}, and nothing tells them "
        "apart; take one of them out"
    )


def _as_number(value: str) -> tuple[float, str]:
    try:
        return float(value), value
    except ValueError:
        return float("inf"), value


def _step(path: Path, slices: Sequence[_Slice]) -> NDArray[np.float64]:
    """From slice to slice, in mm (LPS). ImageError for what is no regular stack."""
    if len(slices) < 2:
        raise ImageError(
            f"{path} has one slice, and so no distance between slices; name the folder of the whole series"
        )
    along = np.array([_along(one) for one in slices])
    steps = np.diff(along)
    usual = float(np.median(steps))
    allowed = STEP_MM + STEP_SHARE * usual
    wide = int(np.argmax(steps))
    if steps[wide] > GAP * usual:
        raise ImageError(
            f"{path} lacks slices: from {_called(slices[wide])} to {_called(slices[wide + 1])} it is "
            f"{steps[wide]:.4g} mm along the stack, and {usual:.4g} mm elsewhere; copy the whole series"
        )
    if float(np.abs(steps - usual).max()) > allowed:
        raise ImageError(
            f"{path} has slices at unequal distances, {steps.min():.4g} to {steps.max():.4g} mm; bring them to equal "
            "ones first, with a program that resamples"
        )
    positions = np.array([one.position for one in slices])
    step: NDArray[np.float64] = (positions[-1] - positions[0]) / (len(slices) - 1)
    normal = np.cross(slices[0].directions[:3], slices[0].directions[3:])
    normal /= np.linalg.norm(normal)
    aside = step - (step @ normal) * normal
    if (sine := float(np.linalg.norm(aside) / np.linalg.norm(step))) > TILT:
        raise ImageError(
            f"{path} is tilted: its stack leans by {np.degrees(np.arcsin(min(1.0, sine))):.3g} degrees against the "
            "slices (gantry tilt); straighten it first, such as with dcm2niix"
        )
    off = np.linalg.norm(positions - positions[0] - np.arange(len(slices))[:, None] * step, axis=1)
    if float(off.max()) > 2 * allowed:
        worst = int(off.argmax())
        raise ImageError(
            f"{path} has a slice that lies {off[worst]:.3g} mm beside the others ({_called(slices[worst])}); mend its "
            "ImagePositionPatient"
        )
    return step


# Numbers -----------------------------------------------------------------------------------------------------------


def _values(
    place: _Place, slices: Sequence[_Slice], headers: dict[str, Any], max_memory: int | None
) -> NDArray[Any]:
    """The array (d, h, w)."""
    path, (rows, columns) = place.path, slices[0].size
    _check_decoders(path, (headers[one.name] for one in slices))
    dtype = _dtype(path, slices, headers)
    largest = 0 if place.is_one_file else max(place.size(one.name) for one in slices)
    needed = len(slices) * rows * columns * dtype.itemsize + largest
    check_memory(
        f"reading {path}", needed, max_memory, "crop it, or give it more (max_memory, --max-memory-mb)"
    )
    stored = sum(place.size(name) for name in {one.name for one in slices})
    if len(slices) * rows * columns > 2**32 + 10_000 * stored:
        raise ImageError(f"{path} is damaged: it speaks of {len(slices)} slices of {columns} x {rows} pixels")
    values: NDArray[Any] = np.empty((len(slices), rows, columns), dtype)
    by_file: dict[str, dict[int, int]] = defaultdict(dict)
    for index, one in enumerate(slices):
        by_file[one.name][one.frame] = index
    for name, frames in by_file.items():
        order = sorted(frames)
        with ExitStack() as stack:
            file = stack.enter_context(place.open_whole(name))
            pictures = stack.enter_context(closing(_pictures(file, order)))
            for frame in order:
                picture = next(pictures, None)
                if picture is None or picture.shape != (rows, columns):
                    raise ImageError(f"{path}: {name or 'it'} is damaged: it lacks pixels; copy it again")
                index = frames[frame]
                values[index] = _meant(path, slices[index], headers[name], picture, dtype)
    return values


def _pictures(file: Any, order: list[int]) -> Any:
    from pydicom.pixels import iter_pixels

    return iter_pixels(file, indices=order if order != [0] else None, raw=True)


def _check_decoders(path: Path, headers: Iterator[Any]) -> None:
    """Raise ImageError where slices are compressed in a way that nothing that is installed can read."""
    from pydicom.pixels import get_decoder

    for uid in {header.file_meta.get("TransferSyntaxUID") for header in headers}:
        if uid is None:
            raise ImageError(
                f"{path} does not say how its pixels are stored (TransferSyntaxUID); write it anew"
            )
        if not getattr(uid, "is_encapsulated", True):
            continue
        try:
            decoder = get_decoder(uid)
        except NotImplementedError:
            raise ImageError(
                f"{path} is stored in a way that is not read ({_plain(uid, 64)}); write it anew"
            ) from None
        if not decoder.is_available:
            needs = "; or ".join(str(missing) for missing in decoder.missing_dependencies)
            raise ImageError(
                f"{path} is compressed ({_plain(uid.name, 60)}), and no decoder for that is installed: {needs[:400]}; "
                "install one, or write it uncompressed, such as by gdcmconv --raw"
            )


def _stored_range(header: Any) -> tuple[float, float]:
    allocated = int(header.get("BitsAllocated", 16))
    bits = min(max(1, int(header.get("BitsStored") or allocated)), allocated)
    if int(header.get("PixelRepresentation", 0)):
        return -(2.0 ** (bits - 1)), 2.0 ** (bits - 1) - 1
    return 0.0, 2.0**bits - 1


def _dtype(path: Path, slices: Sequence[_Slice], headers: dict[str, Any]) -> np.dtype[Any]:
    """The smallest integers that hold all that the slices may mean; float32, or float64 of more than 16 bits, where a
    slope or intercept is a fraction."""
    allocated = {int(header.get("BitsAllocated", 16)) for header in headers.values()}
    if not allocated <= {8, 16, 32, 64}:
        raise ImageError(f"{path} has voxels of {max(allocated)} bits; expected 8, 16, 32 or 64")
    if any("PixelRepresentation" not in header for header in headers.values()):  # floats (parametric maps)
        return np.dtype(np.float32 if max(allocated) <= 32 else np.float64)
    whole = all(one.slope.is_integer() and one.intercept.is_integer() for one in slices)
    if any(header.get("ModalityLUTSequence") is not None for header in headers.values()) or not whole:
        return np.dtype(np.float32 if max(allocated) <= 16 else np.float64)
    ends = {edge * one.slope + one.intercept for one in slices for edge in _stored_range(headers[one.name])}
    for kind in (np.uint8, np.int16, np.uint16, np.int32, np.int64):
        if np.iinfo(kind).min <= min(ends) and max(ends) <= np.iinfo(kind).max:
            return np.dtype(kind)
    return np.dtype(np.float64)


def _meant(path: Path, one: _Slice, header: Any, picture: Any, dtype: np.dtype[Any]) -> Any:
    """What the stored numbers of a slice mean."""
    if picture.dtype.kind == "f":
        return picture * one.slope + one.intercept
    low, high = _stored_range(header)
    if picture.min() < low or picture.max() > high:
        raise ImageError(
            f"{path}: {_called(one)} is damaged: it holds values beyond its {header.BitsStored} bits"
        )
    if header.get("ModalityLUTSequence") is not None:
        from pydicom.pixels import apply_modality_lut

        return apply_modality_lut(picture, header)
    if (one.slope, one.intercept) == (1.0, 0.0):
        return picture
    if dtype.kind in "iu":
        return picture.astype(np.int64 if picture.dtype.itemsize > 2 else np.int32) * int(one.slope) + int(
            one.intercept
        )
    return picture * one.slope + one.intercept

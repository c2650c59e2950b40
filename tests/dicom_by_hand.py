"""DICOM drawn by pydicom: a series of slices, or one enhanced file, of a scan (d, h, w) with an affine as `Volume` has
it.

Patients have names here, `SECRETS`, none of which may get out.
"""

from __future__ import annotations

import shutil
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.sequence import Sequence
from pydicom.uid import UID, ExplicitVRLittleEndian, generate_uid

CT, ENHANCED_CT = "1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.5.1.4.1.1.2.1"

SECRETS = ("Quincampoix", "Hortense", "PAT-90210", "19310417", "Dr.Bellerose")

RAS_TO_LPS = np.diag([-1.0, -1.0, 1.0, 1.0])


def dataset(uid: str, sop_class: str = CT) -> FileDataset:
    """A CT picture without pixels or place."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = UID(sop_class), UID(uid)
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ds = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
    ds.SOPClassUID, ds.SOPInstanceUID = UID(sop_class), UID(uid)
    ds.PatientName, ds.PatientID, ds.PatientBirthDate = f"{SECRETS[0]}^{SECRETS[1]}", SECRETS[2], SECRETS[3]
    ds.PatientSex, ds.StudyDate, ds.StudyTime, ds.StudyID, ds.AccessionNumber = "", "", "", "", ""
    ds.ReferringPhysicianName = SECRETS[4]
    ds.Modality, ds.SeriesDescription, ds.SeriesNumber = "CT", "Abdomen", 3
    ds.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
    ds.PositionReferenceIndicator, ds.Manufacturer = "", "drawn"
    ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, "MONOCHROME2"
    return ds


def place(affine: np.ndarray) -> tuple[list[float], list[float], np.ndarray, np.ndarray]:
    """(rows, columns) mm, the six cosines, the position of the first slice, and the step (LPS)."""
    lps = RAS_TO_LPS @ affine
    columns, rows = (float(np.linalg.norm(lps[:3, axis])) for axis in (0, 1))
    cosines = [*(lps[:3, 0] / columns), *(lps[:3, 1] / rows)]
    return [rows, columns], [float(c) for c in cosines], lps[:3, 3], lps[:3, 2]


def decimals(numbers: Any) -> list[str]:
    """As DICOM writes numbers: at most 16 letters."""
    return [pydicom.valuerep.format_number_as_ds(float(number)) for number in numbers]


def series(
    values: np.ndarray,
    affine: np.ndarray,
    *,
    slope: float = 1,
    intercept: float = 0,
    series_uid: str | None = None,
    study: str | None = None,
    change: Callable[[int, FileDataset], None] | None = None,
) -> Iterator[FileDataset]:
    """Slices, of the stored numbers that `values` are. change: gets the number of each and it."""
    spacing, cosines, first, step = place(affine)
    series_uid, study, frame = series_uid or generate_uid(), study or generate_uid(), generate_uid()
    for i, plane in enumerate(values):
        ds = dataset(generate_uid())
        ds.StudyInstanceUID, ds.SeriesInstanceUID, ds.FrameOfReferenceUID = study, series_uid, frame
        ds.InstanceNumber = len(values) - i  # which says nothing
        ds.Rows, ds.Columns = plane.shape
        ds.PixelSpacing, ds.ImageOrientationPatient = decimals(spacing), decimals(cosines)
        ds.ImagePositionPatient = decimals(first + i * step)
        ds.SliceThickness = "9.5"  # neither does this
        ds.RescaleSlope, ds.RescaleIntercept = decimals([slope, intercept])
        set_pixels(ds, plane)
        if change is not None:
            change(i, ds)
        yield ds


def set_pixels(ds: Dataset, plane: np.ndarray) -> None:
    bits = plane.dtype.itemsize * 8
    ds.BitsAllocated, ds.BitsStored, ds.HighBit = bits, bits, bits - 1
    ds.PixelRepresentation = int(plane.dtype.kind == "i")
    ds.PixelData = plane.astype(plane.dtype.newbyteorder("<")).tobytes()
    ds["PixelData"].VR = "OW"


def write(folder: Path, slices: Any, name: str = "{:04d}.dcm", seed: int | None = 0) -> Path:
    """Files in a folder, whose names are in another order than the slices."""
    folder.mkdir(parents=True, exist_ok=True)
    slices = list(slices)
    order = np.arange(len(slices)) if seed is None else np.random.default_rng(seed).permutation(len(slices))
    for number, ds in zip(order, slices, strict=True):
        path = folder / name.format(int(number), uid=ds.SOPInstanceUID)
        path.parent.mkdir(parents=True, exist_ok=True)
        ds.save_as(path, enforce_file_format=True)
    return folder


def zipped(folder: Path, path: Path) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in sorted(folder.rglob("*")):
            if file.is_file():
                archive.write(file, file.relative_to(folder.parent))
    return path


def enhanced(
    values: np.ndarray, affine: np.ndarray, *, slope: float = 1, intercept: float = 0, order: Any = None
) -> FileDataset:
    """One file of many frames. order: in which the slices are stored."""
    spacing, cosines, first, step = place(affine)
    order = range(len(values)) if order is None else order
    ds = dataset(generate_uid(), ENHANCED_CT)
    ds.StudyInstanceUID, ds.SeriesInstanceUID = generate_uid(), generate_uid()
    ds.FrameOfReferenceUID = generate_uid()
    ds.Rows, ds.Columns = values.shape[1:]
    ds.NumberOfFrames = len(values)
    shared = Dataset()
    measures, orientation, rescale = Dataset(), Dataset(), Dataset()
    measures.PixelSpacing, measures.SliceThickness = decimals(spacing), "9.5"
    orientation.ImageOrientationPatient = decimals(cosines)
    rescale.RescaleSlope, rescale.RescaleIntercept, rescale.RescaleType = *decimals([slope, intercept]), "HU"
    shared.PixelMeasuresSequence = Sequence([measures])
    shared.PlaneOrientationSequence = Sequence([orientation])
    shared.PixelValueTransformationSequence = Sequence([rescale])
    ds.SharedFunctionalGroupsSequence = Sequence([shared])
    groups = []
    for i in order:
        group, position = Dataset(), Dataset()
        position.ImagePositionPatient = decimals(first + i * step)
        group.PlanePositionSequence = Sequence([position])
        groups.append(group)
    ds.PerFrameFunctionalGroupsSequence = Sequence(groups)
    set_pixels(ds, np.stack([values[i] for i in order]))
    return ds


def saved(ds: FileDataset, path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    ds.save_as(path, enforce_file_format=True)
    return path


def copied(folder: Path, to: Path) -> Path:
    shutil.copytree(folder, to)
    return to

"""Small whole scans, as bytes: what is changed to see what readers make of it."""

from __future__ import annotations

import gzip
import io
import tempfile
import zipfile
from functools import cache
from pathlib import Path

import numpy as np

import dicom_by_hand as drawn
from volumes_by_hand import affine_at

SCAN = np.arange(3 * 4 * 5, dtype=np.int16).reshape(3, 4, 5)
AFFINE = affine_at("LPS", (2.5, 1.0, 1.25), (3, 4, 5))


def nifti(version: int = 1) -> bytes:
    import nibabel

    kind = nibabel.Nifti1Image if version == 1 else nibabel.Nifti2Image
    return bytes(kind(SCAN.T, AFFINE).to_bytes())


def nrrds() -> list[bytes]:
    head = (
        "NRRD0004\ntype: int16\ndimension: 3\nspace: left-posterior-superior\nsizes: 5 4 3\n"
        "space directions: (1.25,0,0) (0,1,0) (0,0,2.5)\nkinds: domain domain domain\nendian: little\n"
        "encoding: {}\nspace origin: (0,0,0)\n\n"
    )
    return [
        head.format("raw").encode() + SCAN.tobytes(),
        head.format("gzip").encode() + gzip.compress(SCAN.tobytes()),
    ]


def metaimages() -> list[bytes]:
    head = (
        "ObjectType = Image\nNDims = 3\nBinaryData = True\nBinaryDataByteOrderMSB = False\nCompressedData = {}\n"
        "TransformMatrix = 1 0 0 0 1 0 0 0 1\nOffset = 0 0 0\nElementSpacing = 1.25 1 2.5\nDimSize = 5 4 3\n"
        "ElementType = MET_SHORT\nElementDataFile = LOCAL\n"
    )
    return [
        head.format("False").encode() + SCAN.tobytes(),
        head.format("True").encode() + gzip.compress(SCAN.tobytes()),
    ]


@cache
def slices() -> list[bytes]:
    with tempfile.TemporaryDirectory() as folder:
        drawn.write(Path(folder), drawn.series(SCAN, AFFINE, series_uid="1.2.3", study="1.2"), seed=None)
        return [path.read_bytes() for path in sorted(Path(folder).iterdir())]


@cache
def frames() -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        return drawn.saved(drawn.enhanced(SCAN, AFFINE), Path(folder) / "x.dcm").read_bytes()


@cache
def packed() -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        for i, content in enumerate(slices()):
            archive.writestr(f"scan/{i}.dcm", content)
    return file.getvalue()

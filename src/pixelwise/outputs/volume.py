"""Label volumes as files: NIfTI, in the geometry of the scan that they belong to, and tables of them."""

from __future__ import annotations

import csv
import gzip
import io
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from pixelwise.errors import InputError, MissingExtraError
from pixelwise.geometry import Geometry
from pixelwise.labels import LabelSet
from pixelwise.outputs.areas import cell, count_ids, present, summary
from pixelwise.outputs.ids import small_ids
from pixelwise.outputs.surface import surfaces
from pixelwise.sources.volume import ids_of, read_volume
from pixelwise.sources.voxels import quiet


def nifti(labels: NDArray[Any], geometry: Geometry | None, *, zipped: bool) -> bytes:
    """A label map (d, h, w) as the bytes of a NIfTI file, unsigned, of uint8 or uint16. With the header of the file
    that the volume came from, all that says where it lies stays byte for byte, and so do version and byte order;
    without, both forms are written with code 1.

    Of a volume that only says its spacing, so does the file (both codes 0). Raises InputError for ids above 65535, and
    without a geometry.
    """
    try:
        import nibabel
    except ModuleNotFoundError as error:
        raise MissingExtraError("writing NIfTI", "volume") from error
    labels = small_ids(labels)
    if geometry is None:
        raise InputError(
            "a NIfTI file says where its voxels lie, and this volume does not; give it an affine (Volume.of), or save "
            "as .npy"
        )
    array = labels.T
    if geometry.header is not None:
        kind = nibabel.Nifti2Image if int(geometry.header["sizeof_hdr"]) == 540 else nibabel.Nifti1Image
        header = geometry.header.copy()
        header["dim"][0] = 3
        header["dim"][4:] = 1
        image = kind(array, None, header)
    elif geometry.affine is None:
        image = nibabel.Nifti1Image(array, None)
        image.header.set_zooms(geometry.spacing[::-1])
        image.header.set_xyzt_units("mm")
    else:
        image = nibabel.Nifti1Image(array, geometry.affine)
        image.set_sform(geometry.affine, code=1)
        image.set_qform(geometry.affine, code=0 if geometry.sheared else 1)
        image.header.set_xyzt_units("mm")
    image.header.set_data_dtype(labels.dtype)
    image.header.set_slope_inter(1, 0)
    image.header["cal_min"] = image.header["cal_max"] = 0
    image.header.set_intent("label")
    with quiet():
        content = image.to_bytes()
    return gzip.compress(content, compresslevel=6, mtime=0) if zipped else bytes(content)


def read_label_volume(path: Path) -> NDArray[Any]:
    """The label map (d, h, w) of a file that holds one: whole numbers from 0, as they are."""
    return ids_of(read_volume(path))


def volume_summary(
    labels: NDArray[Any], classes: LabelSet, geometry: Geometry | None, codes: NDArray[Any] | None = None
) -> dict[str, Any]:
    """Size, spacing and the volume of a voxel in mm, and of every class that occurs id, name, color, voxels, share,
    mm3 and mm2, its surface (`outputs.surface`), largest first; None for millimetres that nobody knows. Otherwise as
    `outputs.areas.summary`."""
    depth, height, width = labels.shape
    about = summary(_flat(labels), classes, None if codes is None else _flat(codes))
    voxel = None if geometry is None else geometry.voxel_mm3
    measured = {} if geometry is None else surfaces(labels, classes, geometry, codes)
    rows = [
        {
            "id": one["id"], "name": one["name"], "color": one["color"], "voxels": one["pixels"],
            "share": one["share"], "mm3": None if voxel is None else one["pixels"] * voxel,
            "mm2": measured.get(one["id"]),
        }
        for one in about["classes"]
    ]  # fmt: skip
    return {
        "depth": depth, "height": height, "width": width,
        "spacing_mm": None if geometry is None else list(geometry.spacing), "voxel_mm3": voxel,
        "classes": rows, **{k: v for k, v in about.items() if k == "ignored"},
    }  # fmt: skip


def volumes_csv(
    labels: NDArray[Any], classes: LabelSet, geometry: Geometry | None, codes: NDArray[Any] | None = None
) -> str:
    """A table with a header: class, id, voxels, percent (of all voxels), mm3, mm2 (of its surface, `outputs.surface`),
    largest class first; both are "unknown" where nobody says the spacing. Otherwise as `outputs.areas.areas_csv`."""
    flat = _flat(labels)
    counts = dict(
        sorted(
            present(flat, classes, None if codes is None else _flat(codes)).items(), key=lambda item: -item[1]
        )
    )
    names = dict(zip(classes.ids, classes.names, strict=True))
    if classes.ignore_id is not None and (ignored := count_ids(flat).get(classes.ignore_id, 0)):
        names[classes.ignore_id], counts[classes.ignore_id] = "(ignored)", ignored
    text = io.StringIO(newline="")
    table = csv.writer(text, lineterminator="\n")
    table.writerow(["class", "id", "voxels", "percent", "mm3", "mm2"])
    measured = {} if geometry is None else surfaces(labels, classes, geometry, codes)
    for id, voxels in counts.items():
        volume = "unknown" if geometry is None else repr(voxels * geometry.voxel_mm3)
        surface = repr(measured[id]) if id in measured else "unknown"
        share = f"{100 * voxels / labels.size:.6g}"
        table.writerow([cell(names[id]), id, voxels, share, volume, surface])
    return text.getvalue()


def _flat(values: NDArray[Any]) -> NDArray[Any]:
    """(d, h, w) as rows (d h, w), which is how maps are counted."""
    return values.reshape(-1, values.shape[-1])

"""Label volumes as files: NIfTI, in the geometry of the scan that they belong to; tables of them; and three planes of
one, to be looked at."""

from __future__ import annotations

import csv
import gzip
import io
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pixelwise.errors import InputError, MissingExtraError
from pixelwise.geometry import AS_IT_IS, Geometry
from pixelwise.images import stretched
from pixelwise.labels import LabelSet
from pixelwise.outputs.areas import cell, count_ids, present, summary
from pixelwise.outputs.surface import surfaces
from pixelwise.sources.volume import read_volume
from pixelwise.sources.voxels import quiet


def nifti(labels: NDArray[Any], geometry: Geometry | None, *, zipped: bool) -> bytes:
    """A label map (d, h, w) as the bytes of a NIfTI file, unsigned, of uint8 or uint16. With the header of the file
    that the volume came from, all that says where it lies stays byte for byte, and so do version and byte order;
    without, both forms are written with code 1.

    Raises InputError for ids above 65535, and without an affine where no header stands for it.
    """
    try:
        import nibabel
    except ModuleNotFoundError as error:
        raise MissingExtraError("writing NIfTI", "volume") from error
    labels = small_ids(labels)
    if geometry is None or (geometry.header is None and geometry.affine is None):
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


def small_ids(labels: NDArray[Any]) -> NDArray[Any]:
    """Ids as uint8, or uint16 where they need it; InputError above that."""
    if labels.ndim != 3:
        raise InputError(f"a label volume is (d, h, w), got {labels.shape}")
    highest = int(labels.max(initial=0))
    if highest > 65535:
        raise InputError(f"a label volume holds ids up to 65535, got {highest}; save as .npy")
    return labels.astype(np.uint8 if highest < 256 and labels.dtype.itemsize == 1 else np.uint16, copy=False)


def read_label_volume(path: Path) -> NDArray[Any]:
    """The label map (d, h, w) of a file that holds one: whole numbers from 0, as they are."""
    volume = read_volume(path)
    values = volume.values
    if values.dtype.kind == "f":
        whole = values.astype(np.int64)
        if (whole != values).any():
            raise InputError(f"{path} holds fractions, expected the ids of a label map")
        values = whole
    if values.dtype.kind not in "iu" or values.min() < 0 or values.ndim != 3:
        raise InputError(
            f"{path} holds {values.dtype} {values.shape} from {values.min()}, expected ids from 0 (d, h, w)"
        )
    return np.ascontiguousarray(values).astype(np.min_scalar_type(int(values.max())), copy=False)


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


PANEL_PX = 384
"""The longer side of the largest of the three planes."""

GAP_PX = 6

LARGEST_VOXEL_PX = 8

SHOWN_AS = "LPI"
"""Columns to the left of the patient, rows to the back, slices downwards: as doctors look at scans."""


class Planes(NamedTuple):
    """Where three planes cut a volume, in `SHOWN_AS` where the volume says how it lies: slice, row, column. picture:
    uint8 RGB (h', w', 3), the three side by side: across, from the front, from the side."""

    at: tuple[int, int, int]
    picture: NDArray[np.uint8]


def planes_of(
    labels: NDArray[Any], classes: LabelSet, values: NDArray[Any], geometry: Geometry | None
) -> Planes:
    """The planes that hold most of what is no background. labels, values: (d, h, w)."""
    shown, of_labels, spacing = _shown(values, geometry), _shown(labels, geometry), _spacing(geometry)
    at = _fullest(of_labels, classes)
    cuts = [_cut(shown, at, axis).astype(np.float64) for axis in range(3)]
    finite = np.concatenate([cut[np.isfinite(cut)].ravel() for cut in cuts])
    low, high = (float(value) for value in np.percentile(finite, (0.5, 99.5))) if finite.size else (0.0, 1.0)
    if not low < high:
        low, high = low - 1, low + 1
    panels = [
        np.asarray(
            Image.fromarray(stretched(np.nan_to_num(cut), (low, high))).resize(
                side[::-1], Image.Resampling.BILINEAR
            )
        )
        for cut, side in zip(cuts, _sides(shown.shape, spacing), strict=True)
    ]
    return Planes(at, np.repeat(_side_by_side(panels, 0)[..., None], 3, axis=2))


def labels_on_planes(
    labels: NDArray[Any], at: tuple[int, int, int], geometry: Geometry | None, outside: int
) -> NDArray[Any]:
    """A label map, or codes, of the pixels of `Planes.picture`, (h', w'); `outside` between the planes."""
    shown, spacing = _shown(labels, geometry), _spacing(geometry)
    panels = []
    for axis, (height, width) in enumerate(_sides(shown.shape, spacing)):
        cut = _cut(shown, at, axis)
        rows, columns = (
            (2 * np.arange(n) + 1) * side // (2 * n)
            for n, side in zip((height, width), cut.shape, strict=True)
        )
        panels.append(cut[rows][:, columns])
    return _side_by_side(panels, outside)


def _shown(values: NDArray[Any], geometry: Geometry | None) -> NDArray[Any]:
    turn = AS_IT_IS if geometry is None or geometry.affine is None else geometry.turn_to(SHOWN_AS)
    return turn(values)


def _spacing(geometry: Geometry | None) -> tuple[float, float, float]:
    if geometry is None:
        return 1.0, 1.0, 1.0
    turn = AS_IT_IS if geometry.affine is None else geometry.turn_to(SHOWN_AS)
    return turn.of_sides(geometry.spacing)


def _fullest(labels: NDArray[Any], classes: LabelSet) -> tuple[int, int, int]:
    """The slice, row and column with most voxels of classes that are no background, the middle where there are none."""
    background = classes.ids[classes.index("background") if "background" in classes.names else 0]
    counts = [np.zeros(side, np.int64) for side in labels.shape]
    for i, plane in enumerate(labels):
        found = plane != background
        if classes.ignore_id is not None:
            found &= plane != classes.ignore_id
        counts[0][i] = np.count_nonzero(found)
        counts[1] += np.count_nonzero(found, axis=1)
        counts[2] += np.count_nonzero(found, axis=0)
    first, second, third = (int(count.argmax()) if count.any() else len(count) // 2 for count in counts)
    return first, second, third


def _cut(values: NDArray[Any], at: tuple[int, int, int], axis: int) -> NDArray[Any]:
    return np.ascontiguousarray(np.moveaxis(values, axis, 0)[at[axis]])  # `take` would copy all of a view


def _sides(shape: tuple[int, ...], spacing: tuple[float, float, float]) -> list[tuple[int, int]]:
    """Height and width in pixels of each plane, all on one scale of pixels a millimetre."""
    mm = [side * step for side, step in zip(shape, spacing, strict=True)]
    scale = min(PANEL_PX / max(mm), LARGEST_VOXEL_PX / min(spacing))
    px = [max(1, round(side * scale)) for side in mm]
    return [(px[1], px[2]), (px[0], px[2]), (px[0], px[1])]


def _side_by_side(panels: list[NDArray[Any]], outside: int) -> NDArray[Any]:
    height, width = max(len(panel) for panel in panels), sum(panel.shape[1] for panel in panels)
    canvas = np.full((height, width + GAP_PX * (len(panels) - 1)), outside, panels[0].dtype)
    left = 0
    for panel in panels:
        canvas[: len(panel), left : left + panel.shape[1]] = panel
        left += panel.shape[1] + GAP_PX
    return canvas

"""What a label map can be written as: one table, for saving, reading, `--help` and docs/outputs.md. What a row needs
is imported when it is used, so that `--help` answers at once.

For people: pictures, and csv, a table of areas. Exact, `reading.read_labels` reads them back: those with a `read`.
Of volumes there are fewer: `VOLUME_FORMATS`.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from pixelwise.errors import InputError, UnknownNameError
from pixelwise.untrusted import read

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from pixelwise.labels import LabelSet
    from pixelwise.segmentation import Segmentation


Bytes: TypeAlias = "bytes | memoryview"

MAX_LABELS_BYTES = 2**30
"""Of a file of outlines."""


MAX_LABELS = 2**28
"""Pixels of a label map that is a picture."""


@dataclass(frozen=True)
class Format:
    """One row of the table.

    ending: what the command line puts behind a picture's name. says: what it is, for people. encode: (segmentation,
    last part of the file's name, such as ".png") -> the parts of the file, one after the other; and the keyword
    `option` where there is one. read: (path, classes) -> label map (h, w), the way back; None where a file does not
    hold the label map. means_by: endings that mean this format where none is named. only: the endings it may have,
    where another kind of file would damage it; none: any. option: of `Segmentation.save`, for this format alone.
    extra: of pixelwise, without which it cannot be written.
    """

    ending: str
    says: str
    encode: Callable[..., Iterable[Bytes]]
    read: Callable[[Path, LabelSet], NDArray[Any]] | None = None
    means_by: tuple[str, ...] = ()
    only: tuple[str, ...] = ()
    option: str | None = None
    extra: str | None = None

    @property
    def suffixes(self) -> tuple[str, ...]:
        """The last parts of the names that its files have."""
        return tuple(dict.fromkeys(Path(f"x{ending}").suffix for ending in (self.ending, *self.means_by)))


def _picture(draw: Callable[..., NDArray[np.uint8]]) -> Callable[..., Iterable[Bytes]]:
    """The encoder of a picture (h, w), (h, w, 3) or (h, w, 4) that `draw` makes of a segmentation."""

    def encode(found: Segmentation, suffix: str, **options: Any) -> Iterable[Bytes]:
        picture = draw(found, **options)
        if suffix == ".png":
            return _png(picture)
        from PIL import Image

        # WebP without loss, which keeps holes.
        how: dict[str, Any] = {"lossless": True} if suffix == ".webp" else {"quality": 92}
        file: Any = io.BytesIO()
        file.name = f"x{suffix}"  # of which Pillow takes the format
        try:
            Image.fromarray(picture).save(file, **how)
        except ValueError as error:  # an ending that Pillow does not know
            raise InputError(f"cannot write a picture as {suffix!r} ({error}); use .png") from error
        return (file.getbuffer(),)

    return encode


def _png(picture: NDArray[Any], **how: Any) -> Iterable[Bytes]:
    from pixelwise.outputs.png import encode

    return encode(picture, **how)


def write_png(picture: NDArray[Any], path: Path, **how: Any) -> None:
    """A picture as a PNG file. how: the keywords of `png.encode`."""
    with open(path, "wb") as file:
        file.writelines(_png(picture, **how))


def _labels(image: Any) -> Iterable[Bytes]:
    """A label map as PIL's image of ids, with or without a palette."""
    import numpy as np

    palette = image.getpalette() if image.mode == "P" else None
    return _png(np.asarray(image), flat=True, palette=None if palette is None else bytes(palette))


def _confidence(found: Segmentation) -> NDArray[np.uint8]:
    import numpy as np

    if found.confidence is None:
        raise InputError("there is no confidence to save; ask for it: segmenter(image, confidence=True)")
    return np.round(found.confidence * 255).astype(np.uint8)


def _text(say: Callable[..., str]) -> Callable[..., Iterable[Bytes]]:
    """The encoder of what `say` makes of a segmentation."""
    return lambda found, suffix, **options: (say(found, **options).encode(),)


def _array(found: Segmentation, suffix: str) -> Iterable[Bytes]:
    import numpy as np

    file = io.BytesIO()
    np.save(file, found.labels)
    return (file.getbuffer(),)


def _areas(found: Segmentation) -> str:
    from pixelwise.outputs.areas import areas_csv

    if found.labels.ndim == 3:
        from pixelwise.outputs.volume import volumes_csv

        return volumes_csv(found.labels, found.classes, found.geometry, found.codes)
    return areas_csv(found.labels, found.classes, found.georeference, found.codes)


def _geotiff(found: Segmentation, suffix: str) -> Iterable[Bytes]:
    from pixelwise.outputs.geo import geotiff

    return (geotiff(found.labels, found.classes, found.georeference),)


def _read_picture(path: Path, classes: LabelSet) -> NDArray[Any]:
    from pixelwise.images import read_values

    return read_values(path, max_pixels=MAX_LABELS)[0]


def _read_array(path: Path, classes: LabelSet) -> NDArray[Any]:
    import numpy as np

    try:
        mapped: NDArray[Any] = np.lib.format.open_memmap(
            path, mode="r"
        )  # refuses a size that the file does not have
    except ValueError as error:
        if "Python objects" not in str(error):
            raise
        raise InputError(
            "it holds Python objects, which are not read because they can run code; save it as an array of numbers"
        ) from None
    return np.array(mapped)


def _read_geotiff(path: Path, classes: LabelSet) -> NDArray[Any]:
    from pixelwise.outputs.geo import read_raster

    return read_raster(path)


def _read_geojson(path: Path, classes: LabelSet) -> NDArray[Any]:
    from pixelwise.outputs.geo import labels_from_geojson

    return labels_from_geojson(read(path, dict[str, Any], "it", most=MAX_LABELS_BYTES), classes)


def _read_coco(path: Path, classes: LabelSet) -> NDArray[Any]:
    from pixelwise.outputs.coco import labels_from_coco

    return labels_from_coco(read(path, dict[str, Any], "it", most=MAX_LABELS_BYTES), classes)


FORMATS = {
    "labels": Format(
        ".labels.png", "palette PNG of ids: coloured for people, numbers for programs; 16-bit grey above 255",
        encode=lambda found, suffix: _labels(found.to_pil()), read=_read_picture,
        means_by=(".png",), only=(".png",)),
    "ids": Format(
        ".ids.png", "grey PNG of ids, 8 or 16 bit",
        encode=lambda found, suffix: _labels(found.ids_image()), read=_read_picture, only=(".png",)),
    "npy": Format(".npy", "the array", encode=_array, read=_read_array, means_by=(".npy",)),
    "geotiff": Format(
        ".labels.tif", "ids with palette, CRS, transform, nodata", encode=_geotiff, read=_read_geotiff,
        means_by=(".tif", ".tiff"), only=(".tif", ".tiff"), extra="raster"),
    "geojson": Format(
        ".geojson", "polygons with holes, in the picture's CRS; exact unless simplified",
        encode=_text(lambda found, simplify_px: json.dumps(found.to_geojson(simplify_px=simplify_px))),
        read=_read_geojson, means_by=(".geojson",), option="simplify_px"),
    "coco": Format(
        ".coco.json", "COCO, compressed run lengths, one annotation for each class",
        encode=_text(lambda found: json.dumps(found.to_coco())), read=_read_coco, means_by=(".coco.json",)),
    "coco-polygons": Format(
        ".polygons.json", "COCO, polygons, one annotation for each region",
        encode=_text(lambda found: json.dumps(found.to_coco(kind="polygons"))), read=_read_coco,
        means_by=(".polygons.json",)),
    "overlay": Format(
        ".overlay.png", "the photo under the classes' colours",
        encode=_picture(lambda found: found.overlay()), means_by=(".jpg", ".jpeg")),
    "side-by-side": Format(
        ".side-by-side.png", "the photo, and the overlay beside it",
        encode=_picture(lambda found: found.side_by_side())),
    "contours": Format(
        ".contours.png", "the photo with the border of each class in its colour",
        encode=_picture(lambda found: found.contours())),
    "cutout": Format(
        ".cutout.png", "RGBA, transparent (and empty) outside the classes kept",
        encode=_picture(lambda found, names: found.cutout(*names)), only=(".png", ".webp"), option="names"),
    "legend": Format(
        ".legend.png", "colours, names and shares of the classes that occur",
        encode=_picture(lambda found: found.legend())),
    "confidence": Format(
        ".confidence.png", "grey, 255 is certain; ask for it: `segmenter(photo, confidence=True)`",
        encode=_picture(_confidence)),
    "csv": Format(".csv", "a table of areas", encode=_text(_areas), means_by=(".csv",)),
    "json": Format(
        ".json", "size, and of each class id, name, colour, pixels and share",
        encode=_text(lambda found: json.dumps(found.to_dict(), indent=1) + "\n"), means_by=(".json",)),
}  # fmt: skip
"""Every format by its name."""


def by_ending(formats: Mapping[str, Format]) -> dict[str, str]:
    """What an ending means where no format is named, longer endings first."""
    rows = ((ending, name) for name, format in formats.items() for ending in format.means_by)
    return dict(sorted(rows, key=lambda row: -row[0].count(".")))


BY_ENDING = by_ending(FORMATS)


def format_of(path: Path, format: str | None, formats: Mapping[str, Format] = FORMATS) -> str:
    """The format of those that a file is to be written in: the one that is named, else what its ending means.

    Raises InputError for an ending that means none, or is not the format's; UnknownNameError for another name.
    """
    if format is None:
        means = by_ending(formats)
        format = next((name for end, name in means.items() if path.name.lower().endswith(end)), None)
        if format is None:
            raise InputError(
                f"cannot tell a format from {path.name!r}; use {', '.join(means)}, or name the format"
            )
    if format not in formats:
        raise UnknownNameError("format", format, formats)
    only = formats[format].only
    if only and path.suffix.lower() not in only:
        raise InputError(
            f"format {format!r} is written as {' or '.join(end[1:].upper() for end in only)}, which keeps it exact; "
            f"got {path.name!r}"
        )
    return format


def _nifti(found: Segmentation, suffix: str) -> Iterable[Bytes]:
    from pixelwise.outputs.volume import nifti

    return (nifti(found.labels, found.geometry, zipped=suffix != ".nii"),)


def _read_volume(path: Path, classes: LabelSet) -> NDArray[Any]:
    from pixelwise.outputs.volume import read_label_volume

    return read_label_volume(path)


def _nrrd(found: Segmentation, suffix: str) -> Iterable[Bytes]:
    from pixelwise.outputs.nrrd import nrrd

    return (nrrd(found.labels, found.classes, found.geometry),)


def _dicom_seg(found: Segmentation, suffix: str) -> Iterable[Bytes]:
    from pixelwise.outputs.dicom_seg import dicom_seg

    return (dicom_seg(found.labels, found.classes, found.origin, found.codes),)


def _read_dicom_seg(path: Path, classes: LabelSet) -> NDArray[Any]:
    from pixelwise.outputs.dicom_seg import read_dicom_seg

    return read_dicom_seg(path, classes)


VOLUME_FORMATS = {
    "nifti": Format(
        ".labels.nii.gz", "ids, in the geometry of the scan", encode=_nifti, read=_read_volume,
        means_by=(".nii.gz", ".nii"), only=(".gz", ".nii"), extra="volume"),
    "nrrd": Format(
        ".seg.nrrd", "ids where the scan lies, with names and colours of segments for 3D Slicer",
        encode=_nrrd, read=_read_volume, means_by=(".nrrd",), only=(".nrrd",), extra="volume"),
    "dicom-seg": Format(
        ".seg.dcm", "a DICOM-SEG object of the scan's series, a segment for each class; of DICOM scans only",
        encode=_dicom_seg, read=_read_dicom_seg, means_by=(".dcm",), only=(".dcm",), extra="volume"),
    "montage": Format(
        ".montage.png", "a grid of slices with the border of each class in its colour",
        encode=_picture(lambda found: found.montage())),
    **{name: FORMATS[name] for name in ("npy", "overlay", "side-by-side", "contours", "legend", "csv", "json")},
}  # fmt: skip
"""What a label volume can be written as; pictures are of three planes through it."""


def formats_for(dimensions: int) -> dict[str, Format]:
    """The table for label maps of two dimensions, or for volumes."""
    return VOLUME_FORMATS if dimensions == 3 else FORMATS


READERS = {
    suffix: format.read
    for format in (*FORMATS.values(), *VOLUME_FORMATS.values())
    if format.read
    for suffix in format.suffixes
}
"""Last part of a name to what reads such a file."""

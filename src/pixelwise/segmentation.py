"""Segmentation: what comes out. A label map at the picture's own size, and everything one does with it."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pixelwise.errors import InputError, UnknownNameError
from pixelwise.files import writing
from pixelwise.georeference import Georeference
from pixelwise.labels import LabelSet
from pixelwise.outputs.areas import summary

if TYPE_CHECKING:
    from pixelwise.outputs.polygons import Polygon

FORMATS = {
    "labels": ".labels.png",
    "overlay": ".overlay.png",
    "side-by-side": ".side-by-side.png",
    "contours": ".contours.png",
    "cutout": ".cutout.png",
    "legend": ".legend.png",
    "ids": ".ids.png",
    "confidence": ".confidence.png",
    "npy": ".npy",
    "geotiff": ".labels.tif",
    "geojson": ".geojson",
    "coco": ".coco.json",
    "coco-polygons": ".polygons.json",
    "csv": ".csv",
    "json": ".json",
}
"""What `save` can write, and the ending that the command line gives it.

For people: overlay, the photo with its classes; side-by-side, the photo beside it; contours, the photo with the
borders of the classes; cutout, the photo without its background, transparent; legend, colours, names, shares;
csv, a table of areas. Exact, `outputs.reading.read_labels` reads them back: labels, a palette PNG of ids,
coloured for people too; ids, a grey PNG of 8 or 16 bit; npy, the array; geotiff, ids with palette, CRS and
transform; geojson, polygons in the picture's CRS; coco, run lengths; coco-polygons. Also confidence, a grey PNG,
255 is certain; json, classes and shares.
"""

_BY_SUFFIX = {
    ".coco.json": "coco",
    ".polygons.json": "coco-polygons",
    ".png": "labels",
    ".npy": "npy",
    ".tif": "geotiff",
    ".tiff": "geotiff",
    ".geojson": "geojson",
    ".csv": "csv",
    ".json": "json",
    ".jpg": "overlay",
    ".jpeg": "overlay",
}
"""What an ending means where no format is given, longer endings first."""

_ONLY_AS = {
    "labels": (".png",),
    "ids": (".png",),
    "cutout": (".png", ".webp"),
    "geotiff": (".tif", ".tiff"),
}
"""Formats that other kinds of files would damage, and the endings they may have."""


@dataclass(frozen=True, eq=False)
class Segmentation:
    """labels: (h, w) unsigned, file ids of `classes`. confidence: (h, w) float32 in (0, 1], the softmax
    probability of the winner, or None if it was not asked for. image: the picture, uint8 RGB (h, w, 3).
    georeference: where it lies on Earth, None for a photo."""

    labels: NDArray[Any]
    classes: LabelSet
    image: NDArray[np.uint8]
    confidence: NDArray[np.float32] | None = None
    georeference: Georeference | None = None

    def mask(self, name: str) -> NDArray[np.bool_]:
        """Where a class is: (h, w) boolean. An unknown name is answered with the nearest ones."""
        mask: NDArray[np.bool_] = self.labels == self.classes.ids[self.classes.index(name)]
        return mask

    def areas(self) -> dict[str, float]:
        """Share of the picture of every class that occurs, in [0, 1], largest first."""
        return {entry["name"]: entry["share"] for entry in self.to_dict()["classes"]}

    def overlay(self, *, alpha: float = 0.5) -> NDArray[np.uint8]:
        """The picture under its classes' colours, uint8 (h, w, 3). alpha: 0 only picture, 1 only colours."""
        from pixelwise import draw

        return draw.overlay(self.image, self.labels, self.classes, alpha=alpha)

    def legend(self) -> NDArray[np.uint8]:
        """Colours, names and shares of the classes that occur, as a picture uint8 (h', w', 3)."""
        from pixelwise import draw

        return draw.legend(self.classes, self.areas())

    def contours(self, *, width_px: int | None = None) -> NDArray[np.uint8]:
        """The picture with the borders of its classes in their colours, uint8 (h, w, 3); see `draw.outline`."""
        from pixelwise import draw

        return draw.outline(self.image, self.labels, self.classes, width_px=width_px)

    def side_by_side(self, *, right: Literal["overlay", "labels"] = "overlay") -> NDArray[np.uint8]:
        """The picture, and right of it the overlay or the label map in its colours, uint8 (h, 2 w + gap, 3)."""
        from pixelwise import draw

        if right not in ("overlay", "labels"):
            raise UnknownNameError("picture for the right side", right, ("overlay", "labels"))
        other = self.overlay() if right == "overlay" else draw.colorize(self.labels, self.classes)
        return draw.side_by_side(self.image, other)

    def cutout(self, *names: str) -> NDArray[np.uint8]:
        """What belongs to the named classes, RGBA uint8 (h, w, 4), all zeros elsewhere.

        Without a name: everything but the class "background" and ignored pixels. Raises InputError where there is
        no such class, UnknownNameError for a name that is no class.
        """
        from pixelwise import draw

        if not names and "background" not in self.classes.names:
            raise InputError(
                "a cut-out keeps all but the class 'background', which these classes lack; name what to keep: "
                f"{', '.join(list(self.areas())[:10])}"
            )
        kept = names or [name for name in self.classes.names if name != "background"]
        ids = [self.classes.ids[self.classes.index(name)] for name in kept]
        return draw.cutout(self.image, np.isin(self.labels, ids))

    def polygons(self, *, simplify_px: float = 0) -> list[Polygon]:
        """Every 4-connected region of a class as a polygon with holes, in columns and rows along pixel edges.

        simplify_px: 0 is exact; more makes slopes of stairs (`outputs.polygons.simplify`, extra raster).
        """
        from pixelwise.outputs import polygons

        if simplify_px:
            return polygons.simplify(self.labels, simplify_px, ids=self.classes.ids)
        return polygons.trace(self.labels, ids=self.classes.ids)

    def to_coco(
        self, *, kind: Literal["rle", "counts", "polygons"] = "rle", image_id: int = 1, file_name: str = ""
    ) -> dict[str, Any]:
        """COCO's JSON of this picture, as plain values; see `outputs.coco.to_coco`."""
        from pixelwise.outputs import coco

        return coco.to_coco(self.labels, self.classes, kind=kind, image_id=image_id, file_name=file_name)

    def to_geojson(self, *, simplify_px: float = 0) -> dict[str, Any]:
        """Polygons in the picture's CRS (columns and rows without one), plain values; see `outputs.geo.to_geojson`."""
        from pixelwise.outputs import geo

        return geo.to_geojson(self.labels, self.classes, self.georeference, simplify_px=simplify_px)

    def to_pil(self) -> Image.Image:
        """The label map as a palette image of ids; 16-bit grey where there are ids above 255.

        Ignored pixels and unused ids are light grey. Raises InputError for ids above 65535.
        """
        image = self._ids_image()
        if self.labels.dtype == np.uint8:
            colors = np.full(
                (256, 3), 224, np.uint8
            )  # all 256: Pillow packs fewer into fewer bits, and cuts ids
            palette = self.classes.palette()[:256]
            colors[: len(palette)] = palette
            image.putpalette(colors.tobytes())
        return image

    def _ids_image(self) -> Image.Image:
        if self.labels.dtype.itemsize > 2:
            raise InputError(
                f"a PNG holds ids up to 65535, these are {self.labels.dtype}; save as geotiff or npy"
            )
        return Image.fromarray(self.labels)

    def to_dict(self) -> dict[str, Any]:
        """Size, and of every class that occurs id, name, colour, pixels and share; plain values for JSON."""
        return summary(self.labels, self.classes)

    def save(
        self,
        path: str | os.PathLike[str],
        *,
        format: str | None = None,
        names: Sequence[str] = (),
        simplify_px: float = 0,
        overwrite: bool = True,
    ) -> Path:
        """Write one of FORMATS to `path`; by default the format follows the ending (.png: labels).

        names: the classes that a cutout keeps. simplify_px: for geojson, see `to_geojson`. The file appears whole
        or not at all. Returns the path. Raises InputError where the format cannot hold what there is, or the ending
        is not the format's; MissingExtraError where the format needs a library that is not installed.
        """
        path = Path(path)
        if format is None:
            format = next((f for end, f in _BY_SUFFIX.items() if path.name.lower().endswith(end)), None)
            if format is None:
                raise InputError(
                    f"cannot tell a format from {path.name!r}; use {', '.join(_BY_SUFFIX)}, or pass format="
                )
        if format not in FORMATS:
            raise UnknownNameError("format", format, FORMATS)
        endings = _ONLY_AS.get(format)
        if endings and path.suffix.lower() not in endings:
            raise InputError(
                f"format {format!r} is written as {' or '.join(end[1:].upper() for end in endings)}, "
                f"which keeps it exact; got {path.name!r}"
            )
        for option, given, owner in (("names", names, "cutout"), ("simplify_px", simplify_px, "geojson")):
            if given and format != owner:
                raise InputError(f"{option} is for format {owner!r}, got format {format!r}")
        with writing(path, overwrite=overwrite) as temporary:
            self._write(temporary, format, names, simplify_px)
        return path

    def _write(self, path: Path, format: str, names: Sequence[str], simplify_px: float) -> None:
        if format == "labels":
            self.to_pil().save(path, optimize=False)
        elif format == "ids":
            self._ids_image().save(path)
        elif format == "npy":
            np.save(path, self.labels)
        elif format == "geotiff":
            from pixelwise.outputs.geo import write_geotiff

            write_geotiff(path, self.labels, self.classes, self.georeference)
        elif format == "geojson":
            _write_text(path, json.dumps(self.to_geojson(simplify_px=simplify_px)))
        elif format == "coco":
            _write_text(path, json.dumps(self.to_coco()))
        elif format == "coco-polygons":
            _write_text(path, json.dumps(self.to_coco(kind="polygons")))
        elif format == "csv":
            from pixelwise.outputs.areas import areas_csv

            _write_text(path, areas_csv(self.labels, self.classes, self.georeference))
        elif format == "json":
            _write_text(path, json.dumps(self.to_dict(), indent=1) + "\n")
        else:
            picture = Image.fromarray(self._picture(format, names))
            try:
                picture.save(path, **_encoder(path))
            except ValueError as error:  # an ending that Pillow does not know
                raise InputError(f"cannot write a picture as {path.suffix!r} ({error}); use .png") from error

    def _picture(self, format: str, names: Sequence[str]) -> NDArray[np.uint8]:
        if format == "overlay":
            return self.overlay()
        if format == "side-by-side":
            return self.side_by_side()
        if format == "contours":
            return self.contours()
        if format == "cutout":
            return self.cutout(*names)
        if format == "legend":
            return self.legend()
        if self.confidence is None:
            raise InputError("there is no confidence to save; ask for it: segmenter(image, confidence=True)")
        return np.round(self.confidence * 255).astype(np.uint8)


def _write_text(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8", newline="\n")


def _encoder(path: Path) -> dict[str, Any]:
    """PNG at zlib's fastest level: pictures are looked at, not archived. WebP without loss, which keeps holes."""
    by_suffix: dict[str, dict[str, Any]] = {".png": {"compress_level": 1}, ".webp": {"lossless": True}}
    return by_suffix.get(path.suffix.lower(), {"quality": 92})

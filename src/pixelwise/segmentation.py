"""Segmentation: what comes out. A label map at the picture's own size, and everything one does with it."""

from __future__ import annotations

import base64
import html
import io
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pixelwise.errors import InputError, UnknownNameError
from pixelwise.files import writing
from pixelwise.geometry import Geometry
from pixelwise.georeference import Georeference
from pixelwise.labels import LabelSet, ranges
from pixelwise.outputs.areas import mask_of, summary
from pixelwise.outputs.formats import FORMATS, format_of, formats_for

if TYPE_CHECKING:
    from pixelwise.outputs.planes import Grid
    from pixelwise.outputs.polygons import Polygon
    from pixelwise.sources.voxels import ScanFiles


SHOWN_CLASSES = 6
"""Classes that the one line about a segmentation names."""

SHOWN_PX = 1000
"""The longest side of what a notebook shows."""


@dataclass(frozen=True, eq=False, repr=False)
class Segmentation:
    """labels: (h, w) unsigned, file ids of `classes`. confidence: (h, w) float32 in (0, 1], the probability of the
    winner (softmax, or sigmoid(|logit|) of a binary model), or None if it was not asked for. image: the picture, uint8
    RGB (h, w, 3). georeference: where it lies on Earth, None for a photo.

    codes: None where a pixel has one class. Of a model whose regions overlap (`Card.outputs`) it says which of them
    each pixel belongs to (h, w), see `pixelwise.codes`: then `mask`, `areas`, cut-outs, polygons and the files made of
    them (csv, json, coco, geojson) hold each region whole, and labels and whatever is a label map or drawn from it show
    later regions over earlier ones, and the first class where there is none. Its confidence is the smallest of the
    regions' sigmoid(|logit|).

    probabilities, logits: float32 (k, h, w) if asked for, see `Segmenter.__call__`. engine, precision: that made it,
    None where that is not known.

    Of a volume labels, confidence and codes are (d, h, w), probabilities and logits (k, d, h, w), on the scan's own
    grid, in the order and orientation in which it is stored. geometry: where the voxels lie, with their spacing, None
    where nobody said it. image is then a picture of three planes through the scan, and what is drawn (`overlay`,
    `contours`, `side_by_side`) is drawn on it; planes_at: which ones, see `planes`. slices: what `montage` is drawn on.
    origin: the files of the scan, which some outputs speak of (DICOM-SEG). Cut-outs, polygons and whatever is a flat
    picture of ids are for pictures.

    `np.asarray(segmentation)` is the label map, and a notebook shows the overlay with its legend.
    """

    labels: NDArray[Any]
    classes: LabelSet
    image: NDArray[np.uint8]
    confidence: NDArray[np.float32] | None = None
    georeference: Georeference | None = None
    codes: NDArray[Any] | None = None
    probabilities: NDArray[np.float32] | None = None
    logits: NDArray[np.float32] | None = None
    engine: str | None = None
    precision: str | None = None
    geometry: Geometry | None = None
    planes_at: tuple[int, int, int] | None = None
    slices: Grid | None = None
    origin: ScanFiles | None = None

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        """The label map, as NumPy asks for it."""
        if copy is False and dtype is not None and np.dtype(dtype) != self.labels.dtype:
            raise ValueError(
                f"a label map of {self.labels.dtype} cannot become {np.dtype(dtype)} without a copy"
            )
        return self.labels.astype(self.labels.dtype if dtype is None else dtype, copy=bool(copy))

    def __repr__(self) -> str:
        areas = list(self.areas().items())
        found = [f"{name} {share:.1%}" for name, share in areas[:SHOWN_CLASSES]]
        if len(areas) > SHOWN_CLASSES:
            found.append(f"and {len(areas) - SHOWN_CLASSES} more")
        return f"Segmentation({' x '.join(map(str, self.labels.shape))}: {', '.join(found) or 'no class'})"

    def _repr_html_(self) -> str:
        """The overlay, at most SHOWN_PX pixels a side, and the classes that occur; nothing comes from elsewhere."""
        flat = self._drawn()
        height, width = flat.labels.shape
        step = max(1, -(-max(height, width) // SHOWN_PX))
        from pixelwise.outputs.png import encode

        small = replace(
            flat,
            labels=flat.labels[::step, ::step],
            image=np.ascontiguousarray(flat.image[::step, ::step]),
            codes=None if flat.codes is None else flat.codes[::step, ::step],
        )
        file = io.BytesIO()
        file.writelines(encode(small.overlay()))
        colors = dict(zip(self.classes.names, self.classes.colors, strict=True))
        legend = "".join(
            f'<span style="margin-right:1em;white-space:nowrap"><span style="display:inline-block;width:.8em;'
            f'height:.8em;border:1px solid #888;background:rgb{colors[name]}"></span> {html.escape(name)} '
            f"{share:.1%}</span> "
            for name, share in self.areas().items()
        )
        data = base64.b64encode(file.getvalue()).decode()
        return (
            f'<div><img style="max-width:100%" alt="{html.escape(repr(self))}" src="data:image/png;base64,{data}">'
            f'<div style="font:13px/1.6 system-ui,sans-serif">{legend}</div></div>'
        )

    @property
    def spacing(self) -> tuple[float, float, float] | None:
        """Of a volume, millimetres from voxel to voxel (slices, rows, columns), None where that is not known."""
        return None if self.geometry is None else self.geometry.spacing

    def planes(self) -> Segmentation:
        """Three planes through a volume, as a segmentation of a picture: across, from the front and from the side, in
        the scale of millimetres; the ones that hold most of what is no background. Between them is the ignore id, the
        first class where there is none."""
        if self.labels.ndim != 3 or self.planes_at is None:
            raise InputError("planes are of volumes, and this is the segmentation of a picture")
        from pixelwise.outputs.planes import labels_on_planes

        gap = self.classes.ids[0] if self.classes.ignore_id is None else self.classes.ignore_id
        return replace(
            self,
            labels=labels_on_planes(self.labels, self.planes_at, self.geometry, gap),
            codes=None if self.codes is None else labels_on_planes(self.codes, self.planes_at, self.geometry, 0),
            confidence=None, probabilities=None, logits=None, geometry=None, planes_at=None, slices=None,
        )  # fmt: skip

    def montage(self) -> NDArray[np.uint8]:
        """A grid of evenly spaced slices of a volume with the outlines of its classes, in the scale of millimetres, and
        the number of each and where it lies; uint8 (h', w', 3). InputError for a picture."""
        if self.labels.ndim != 3 or self.slices is None:
            raise InputError(
                "a montage is of the slices of a volume, and this is the segmentation of a picture"
            )
        from pixelwise import draw
        from pixelwise.outputs.ids import background_of
        from pixelwise.outputs.planes import OUTLINE_PX, labels_on_grid, written_on

        depth, height, width = self.labels.shape
        gap = self.classes.ids[0] if self.classes.ignore_id is None else self.classes.ignore_id
        flat = labels_on_grid(self.labels, self.slices, self.geometry, gap)
        drawn = draw.outline(
            self.slices.picture,
            flat,
            self.classes,
            width_px=OUTLINE_PX,
            background=background_of(self.classes),
        )
        return written_on(drawn, self.slices, (depth, height, width), self.geometry)

    def _drawn(self) -> Segmentation:
        """What is drawn of it."""
        return self.planes() if self.labels.ndim == 3 else self

    def _refuse_volume(self, what: str) -> None:
        if self.labels.ndim == 3:
            raise InputError(
                f"{what} are of pictures, and this is the segmentation of a volume; take one of its planes(), or "
                f"save it "
                f"as {', '.join(formats_for(3))}"
            )

    def mask(self, which: str | int) -> NDArray[np.bool_]:
        """Where a class is, by its name or its id: boolean, as the label map. An unknown name is answered with the
        nearest ones.

        Of overlapping regions each has its own mask, whatever lies over it in the label map; that of the first class is
        where no region is.
        """
        return mask_of(self.labels, self.classes, self.codes, self._index(which))

    def _index(self, which: str | int) -> int:
        if isinstance(which, str):
            return self.classes.index(which)
        if isinstance(which, (bool, np.bool_)) or not isinstance(which, (int, np.integer)):
            raise InputError(f"a class is named by its name or its id, a whole number, got {which!r}")
        if which not in self.classes.ids:
            raise InputError(f"id {which} belongs to no class; known are {ranges(sorted(self.classes.ids))}")
        return self.classes.ids.index(int(which))

    def areas(self) -> dict[str, float]:
        """Share of the picture of every class that occurs, in [0, 1], largest first. Where regions overlap each counts
        whole, so that they may sum to more than 1."""
        rows, codes = self.labels, self.codes
        if rows.ndim == 3:
            rows = rows.reshape(-1, rows.shape[-1])
            codes = None if codes is None else codes.reshape(rows.shape)
        return {entry["name"]: entry["share"] for entry in summary(rows, self.classes, codes)["classes"]}

    def overlay(self, *, alpha: float = 0.5) -> NDArray[np.uint8]:
        """The picture under its classes' colours, uint8 (h, w, 3). alpha: 0 only picture, 1 only colours."""
        from pixelwise import draw

        outside = True if self.codes is None else self.classes.names[0]
        return draw.overlay(self.image, self._drawn().labels, self.classes, alpha=alpha, background=outside)

    def legend(self) -> NDArray[np.uint8]:
        """Colours, names and shares of the classes that occur, as a picture uint8 (h', w', 3)."""
        from pixelwise import draw

        return draw.legend(self.classes, self.areas())

    def contours(self, *, width_px: int | None = None) -> NDArray[np.uint8]:
        """The picture with the borders of its classes in their colours, uint8 (h, w, 3); see `draw.outline`. On the
        planes of a volume they are 2 pixels wide, and the background has none."""
        from pixelwise import draw

        if self.labels.ndim == 3:
            from pixelwise.outputs.ids import background_of
            from pixelwise.outputs.planes import OUTLINE_PX

            flat, width_px = self.planes().labels, OUTLINE_PX if width_px is None else width_px
            background = background_of(self.classes)
            return draw.outline(self.image, flat, self.classes, width_px=width_px, background=background)
        return draw.outline(self.image, self._drawn().labels, self.classes, width_px=width_px)

    def side_by_side(self, *, right: Literal["overlay", "labels"] = "overlay") -> NDArray[np.uint8]:
        """The picture, and right of it the overlay or the label map in its colours, uint8 (h, 2 w + gap, 3)."""
        from pixelwise import draw

        if right not in ("overlay", "labels"):
            raise UnknownNameError("picture for the right side", right, ("overlay", "labels"))
        other = self.overlay() if right == "overlay" else draw.colorize(self._drawn().labels, self.classes)
        return draw.side_by_side(self.image, other)

    def cutout(self, *names: str | int) -> NDArray[np.uint8]:
        """What belongs to the named classes (names or ids), RGBA uint8 (h, w, 4), all zeros elsewhere.

        Without a name: everything but the class "background" and ignored pixels, or every region where regions overlap.
        Raises InputError where there is no such class or id, UnknownNameError for a name that is no class.
        """
        from pixelwise import draw

        self._refuse_volume("cut-outs")
        outside = "background" if self.codes is None else self.classes.names[0]
        if not names and outside not in self.classes.names:
            raise InputError(
                "a cut-out keeps all but the class 'background', which these classes lack; name what to keep: "
                f"{', '.join(list(self.areas())[:10])}"
            )
        kept = names or [name for name in self.classes.names if name != outside]
        indices = [self._index(name) for name in kept]
        mask = np.isin(self.labels, [self.classes.ids[i] for i in indices])
        if self.codes is not None:  # regions also where others lie over them
            for index in indices:
                mask |= mask_of(self.labels, self.classes, self.codes, index)
        return draw.cutout(self.image, mask)

    def polygons(self, *, simplify_px: float = 0) -> list[Polygon]:
        """Every 4-connected region of a class as a polygon with holes, in columns and rows along pixel edges.

        simplify_px: 0 is exact; more makes slopes of stairs (`outputs.polygons.simplify`, extra raster).
        """
        from pixelwise.outputs import polygons

        self._refuse_volume("polygons")
        rule = partial(polygons.simplify, tolerance_px=simplify_px) if simplify_px else polygons.trace
        return polygons.of_each(rule, self.labels, self.classes, self.codes)

    def to_coco(
        self, *, kind: Literal["rle", "counts", "polygons"] = "rle", image_id: int = 1, file_name: str = ""
    ) -> dict[str, Any]:
        """COCO's JSON of this picture, as plain values; see `outputs.coco.to_coco`."""
        from pixelwise.outputs import coco

        self._refuse_volume("COCO's annotations")
        return coco.to_coco(
            self.labels, self.classes, kind=kind, image_id=image_id, file_name=file_name, codes=self.codes
        )

    def to_geojson(self, *, simplify_px: float = 0) -> dict[str, Any]:
        """Polygons in the picture's CRS (columns and rows without one), plain values; see `outputs.geo.to_geojson`."""
        from pixelwise.outputs import geo

        self._refuse_volume("polygons")
        return geo.to_geojson(
            self.labels, self.classes, self.georeference, simplify_px=simplify_px, codes=self.codes
        )

    def to_pil(self) -> Image.Image:
        """The label map as a palette image of ids; 16-bit grey where there are ids above 255.

        Ignored pixels and unused ids are light grey. Raises InputError for ids above 65535.
        """
        image = self.ids_image()
        if self.labels.dtype == np.uint8:
            # All 256: Pillow packs fewer into fewer bits, and cuts ids
            colors = np.full((256, 3), 224, np.uint8)
            palette = self.classes.palette()[:256]
            colors[: len(palette)] = palette
            image.putpalette(colors.tobytes())
        return image

    def ids_image(self) -> Image.Image:
        """The label map as a grey image of ids, 8 or 16 bit. Raises InputError for ids above 65535."""
        self._refuse_volume("PNGs of ids")
        if self.labels.dtype.itemsize > 2:
            raise InputError(
                f"a PNG holds ids up to 65535, these are {self.labels.dtype}; save as geotiff or npy"
            )
        return Image.fromarray(self.labels)

    def to_dict(self) -> dict[str, Any]:
        """Size, and of every class that occurs id, name, colour, pixels and share; of a volume also its spacing, and
        voxels, mm3 and mm2 (of the surface) of each class in place of pixels; with engine and precision where they are
        known. Plain values for JSON."""
        made_by = {"engine": self.engine, "precision": self.precision}
        known = {name: value for name, value in made_by.items() if value is not None}
        if self.labels.ndim == 3:
            from pixelwise.outputs.volume import volume_summary

            return volume_summary(self.labels, self.classes, self.geometry, self.codes) | known
        return summary(self.labels, self.classes, self.codes) | known

    def save(
        self,
        path: str | os.PathLike[str],
        *,
        format: str | None = None,
        names: str | Sequence[str] = (),
        simplify_px: float = 0,
        overwrite: bool = True,
    ) -> Path:
        """Write one of `outputs.formats.FORMATS`, of a volume of `VOLUME_FORMATS`, to `path`; by default the format
        follows the ending (.png: labels).

        names: the classes that a cutout keeps. simplify_px: for geojson, see `to_geojson`. The file appears whole
        or not at all. Returns the path. Raises InputError where the format cannot hold what there is, or the ending
        is not the format's; MissingExtraError where the format needs a library that is not installed.
        """
        path = Path(path)
        parts = self._parts(path, format, names, simplify_px)
        with writing(path, overwrite=overwrite) as temporary, open(temporary, "wb") as file:
            file.writelines(parts())
        return path

    def to_bytes(
        self,
        format: str,
        *,
        ending: str | None = None,
        names: str | Sequence[str] = (),
        simplify_px: float = 0,
    ) -> bytes:
        """The content of the file that `save` writes, without a file. ending: of its name, such as ".jpg" for an
        overlay; by default the format's own. The others, and what is raised, as in `save`."""
        formats = formats_for(self.labels.ndim)
        if format not in formats:
            raise UnknownNameError("format", format, formats)
        path = Path(f"x{formats[format].ending if ending is None else ending}")
        return b"".join(self._parts(path, format, names, simplify_px)())

    def _parts(
        self, path: Path, format: str | None, names: str | Sequence[str], simplify_px: float
    ) -> Callable[[], Iterable[bytes | memoryview]]:
        """What makes the parts of a file; what is refused is refused now."""
        formats = formats_for(self.labels.ndim)
        format = format_of(path, format, formats)
        chosen = formats[format]
        kept = (names,) if isinstance(names, str) else names
        options = {"names": kept, "simplify_px": simplify_px}
        for option, given in options.items():
            if given and option != chosen.option:
                owner = next(name for name, one in FORMATS.items() if one.option == option)  # of pictures
                raise InputError(f"{option} is for format {owner!r}, got format {format!r}")
        more = {chosen.option: options[chosen.option]} if chosen.option else {}
        return partial(chosen.encode, self, path.suffix.lower(), **more)

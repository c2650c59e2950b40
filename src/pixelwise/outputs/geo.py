"""Label maps for geographic information systems: GeoTIFF and GeoJSON, and back.

Both also take a picture without a georeference: then a GeoJSON coordinate is a column and a row of the picture,
(0, 0) its upper left corner, and the file says so with "crs": null and a transform that changes nothing.
"""

from __future__ import annotations

import json
import os
import threading
import warnings
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pixelwise.errors import InputError, MissingExtraError
from pixelwise.georeference import Georeference
from pixelwise.labels import LabelSet
from pixelwise.limits import MAX_RASTER_PIXELS, check_memory, check_stored
from pixelwise.outputs.areas import Rows, present, projection, square_metres_per_pixel
from pixelwise.outputs.polygons import Polygon, blank, check_size, fill, finished, of_each, simplify, trace
from pixelwise.sources.gdal import open_dataset, told

_TILE = 256

_CACHE_BYTES = 64_000_000
"""What GDAL may hold of blocks not yet written, or two rows of tiles; its own default is a share of the memory."""

CLASSES_TAG = "pixelwise_classes"
"""The GeoTIFF tag that holds the LabelSet as JSON."""


def write_geotiff(
    path: str | os.PathLike[str],
    labels: Rows,
    classes: LabelSet,
    georeference: Georeference | None = None,
) -> None:
    """A tiled, losslessly compressed GeoTIFF of ids with CRS, transform and, up to 16 bits, the classes' colours.

    labels (h, w) uint8, uint16 or uint32, an array or anything that is sliced into rows; as many as one row of
    tiles holds are asked for at a time. nodata is the ignore id, so pixels that the source said nothing of stay
    unknown. The LabelSet travels as JSON in the tag CLASSES_TAG. Raises MissingExtraError without rasterio.
    """
    rasterio = _rasterio("writing a GeoTIFF")
    h, w = labels.shape
    nodata = classes.ignore_id
    profile: dict[str, Any] = {
        "driver": "GTiff", "height": h, "width": w, "count": 1, "dtype": labels.dtype.name,
        "compress": "deflate", "tiled": True, "blockxsize": _TILE, "blockysize": _TILE, "bigtiff": "if_safer",
    }  # fmt: skip
    if nodata is not None and nodata <= np.iinfo(labels.dtype).max:
        profile["nodata"] = nodata
    if georeference is not None:
        profile["crs"] = projection(georeference, "writing a GeoTIFF")
        profile["transform"] = rasterio.Affine(*georeference.transform)
    limit = rasterio.Env(GDAL_CACHEMAX=max(_CACHE_BYTES, 2 * _TILE * w * labels.dtype.itemsize))
    with _quiet(), limit, rasterio.open(path, "w", **profile) as file:
        for top in range(0, h, _TILE):
            rows = labels[top : top + _TILE]
            file.write(rows, 1, window=rasterio.windows.Window(0, top, w, len(rows)))
        file.update_tags(**{CLASSES_TAG: json.dumps(classes.to_dict())})
        if labels.dtype.itemsize <= 2:
            colors = zip(classes.ids, classes.colors, strict=True)
            file.write_colormap(1, {id: (*color, 255) for id, color in colors})


def geotiff(labels: Rows, classes: LabelSet, georeference: Georeference | None = None) -> bytes:
    """The bytes of the file that `write_geotiff` writes."""
    _rasterio("writing a GeoTIFF")
    from rasterio.io import MemoryFile

    with MemoryFile() as file:
        write_geotiff(file.name, labels, classes, georeference)
        content: bytes = file.read()
    return content


def read_raster(path: str | os.PathLike[str]) -> NDArray[Any]:
    """The first band of a raster, (h, w), as large as half of the free memory at most.

    Raises ImageError for what `sources.gdal.open_dataset` refuses, MissingExtraError without rasterio.
    """
    with open_dataset(Path(path)) as file, told(f"{path} cannot be read"):
        size = file.height * file.width * np.dtype(file.dtypes[0]).itemsize
        tall, wide = file.block_shapes[0]
        needed = size + 3 * tall * wide * sum(np.dtype(kind).itemsize for kind in file.dtypes)
        check_memory(f"reading {path}", needed, None, "cut it into tiles with GDAL")
        declared = size * file.count
        check_stored(
            Path(path),
            file.shape,
            declared,
            MAX_RASTER_PIXELS,
            "or fill it (gdal_translate -co SPARSE_OK=NO)",
        )
        band: NDArray[Any] = file.read(1)
        return band


def to_geojson(
    labels: NDArray[Any],
    classes: LabelSet,
    georeference: Georeference | None = None,
    *,
    simplify_px: float = 0,
    codes: NDArray[Any] | None = None,
) -> dict[str, Any]:
    """A FeatureCollection with a Polygon for each 4-connected region of a class; plain values for JSON.

    Coordinates are x and y in the CRS, which is named in the member "crs" of GeoJSON 2008 (RFC 7946 knows longitude
    and latitude only; GDAL and QGIS read both); without georeference they are column and row. Properties: id,
    name, fill (its colour), pixels, and square_metres where the picture tells. simplify_px: 0 is exact, and reads
    back; else see `polygons.simplify`. Ignored pixels are in no polygon. codes: of overlapping regions
    (`pixelwise.codes`), which are then traced, and simplified, each by itself, in the order of the classes. The member
    "raster" holds the map's size and transform, for the way back.

    Raises InputError for a CRS without EPSG code, which GeoJSON cannot name.
    """
    h, w = labels.shape
    present(labels, classes)
    place = Georeference(None, (1, 0, 0, 0, 1, 0)) if georeference is None else georeference
    if place.crs is not None and place.epsg is None:
        raise InputError(
            "GeoJSON names a CRS by its EPSG code and this one has none; save as geotiff, or warp the raster to "
            f"an EPSG CRS first; got {place.crs[:80]}"
        )
    a, b, _, d, e, _ = place.transform
    turn = -1 if a * e - b * d < 0 else 1  # borders run counterclockwise as x and y see it, holes clockwise
    metres = square_metres_per_pixel(georeference)
    known = {id: (name, "#{:02x}{:02x}{:02x}".format(*color)) for id, name, color in _classes(classes)}
    rule = partial(simplify, tolerance_px=simplify_px) if simplify_px else trace
    found = of_each(rule, labels, classes, codes)
    features = []
    for polygon in found:
        rings = []
        for ring in polygon.rings:
            corners = (ring if georeference is None else place.to_world(ring))[::turn].tolist()
            rings.append([*corners, corners[0]])
        name, color = known[polygon.id]
        properties = {"id": polygon.id, "name": name, "fill": color, "pixels": polygon.pixels}
        if metres is not None:
            properties["square_metres"] = polygon.pixels * metres
        geometry = {"type": "Polygon", "coordinates": rings}
        features.append({"type": "Feature", "properties": properties, "geometry": geometry})
    crs = {"type": "name", "properties": {"name": f"urn:ogc:def:crs:EPSG::{place.epsg}"}}
    return {
        "type": "FeatureCollection",
        "crs": None if place.crs is None else crs,
        "raster": {"height": h, "width": w, "transform": list(place.transform)},
        "features": features,
    }


def labels_from_geojson(
    content: Mapping[str, Any],
    classes: LabelSet,
    *,
    size_hw: tuple[int, int] | None = None,
    georeference: Georeference | None = None,
) -> NDArray[Any]:
    """The label map (h, w) of a FeatureCollection, of type classes.dtype, later features over earlier ones.

    content: the parsed JSON. size_hw and georeference: of the wanted map; by default those that `to_geojson`
    wrote into the file. Coordinates must be in the CRS of the georeference, features have a property "name", one
    of the classes, and are Polygons or MultiPolygons. A pixel belongs to a polygon when its centre lies inside;
    what was not simplified comes back exactly. Pixels in no polygon get the ignore id.

    Raises InputError for what is no such file, and where pixels are left over and `classes` has no ignore id;
    UnknownNameError for a name that is none of the classes.
    """
    try:
        raster = content.get("raster") or {}
        if size_hw is None and not raster:
            raise InputError(
                "this GeoJSON does not say how large its raster is; pass size_hw and georeference"
            )
        if size_hw is None:
            size_hw = raster["height"], raster["width"]
        check_size(size_hw)
        transform = raster.get("transform", (1, 0, 0, 0, 1, 0))
        place = Georeference(None, tuple(transform)) if georeference is None else georeference
        labels = blank(size_hw, classes)
        for feature in content["features"]:
            id = classes.ids[classes.index(feature["properties"]["name"])]
            geometry = feature["geometry"]
            if geometry["type"] not in ("Polygon", "MultiPolygon"):
                raise InputError(
                    f"expected Polygons and MultiPolygons, got a {geometry['type']}; leave it out"
                )
            coordinates = geometry["coordinates"]
            parts = [coordinates] if geometry["type"] == "Polygon" else coordinates
            for part in parts:
                corners = [np.asarray(ring, np.float64) for ring in part]
                if any(c.ndim != 2 or c.shape[1] < 2 or not np.isfinite(c).all() for c in corners):
                    raise InputError("a ring should be corners [x, y], two or more finite numbers each")
                rings = [place.to_pixels(ring[:-1, :2]) for ring in corners]
                fill([Polygon(id, 0, 0, tuple(rings))], labels)
    except InputError:
        raise
    except (AttributeError, LookupError, TypeError, ValueError, ArithmeticError, RecursionError) as error:
        raise InputError(
            f"this is not a GeoJSON FeatureCollection ({type(error).__name__}: {error})"
        ) from error
    return finished(labels, classes)


def _classes(classes: LabelSet) -> Any:
    return zip(classes.ids, classes.names, classes.colors, strict=True)


def _rasterio(what: str) -> Any:
    try:
        import rasterio
    except ModuleNotFoundError as error:
        raise MissingExtraError(what, "raster") from error
    return rasterio


_quieting, _quiet_ones, _filters = threading.Lock(), [0], ExitStack()


@contextmanager
def _quiet() -> Iterator[None]:
    """rasterio warns of every raster without a georeference; here that is a photo, and fine. Python has one set of
    filters for all threads, so the first to write sets it and the last puts it back."""
    from rasterio.errors import NotGeoreferencedWarning

    with _quieting:
        if not _quiet_ones[0]:
            _filters.enter_context(warnings.catch_warnings())
            warnings.simplefilter("ignore", NotGeoreferencedWarning)
        _quiet_ones[0] += 1
    try:
        yield
    finally:
        with _quieting:
            _quiet_ones[0] -= 1
            if not _quiet_ones[0]:
                _filters.close()

"""Stacks of pictures as volumes: TIFF and OME-TIFF (tifffile), and OME-Zarr (zarr), where they have an axis Z. They say
how far apart their voxels are, and never how they lie in a body."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
from numpy.typing import NDArray

from pixelwise.errors import ImageError, MissingExtraError, PixelwiseError, first_line
from pixelwise.images import check_regular
from pixelwise.limits import check_memory
from pixelwise.sources.raster import bound, check_ome, most_bytes, node_of
from pixelwise.sources.voxels import FileKind, Read, ScanFiles, check_frame, geometry_without_place

MM = {
    **dict.fromkeys(
        ("\u00b5m", "\u03bcm", "\\u00b5m", "um", "micron", "microns", "micrometer", "micrometre"), 1e-3
    ),
    **dict.fromkeys(("mm", "millimeter", "millimetre"), 1.0),
    **dict.fromkeys(("nm", "nanometer", "nanometre"), 1e-6),
    **dict.fromkeys(("cm", "centimeter", "centimetre"), 10.0),
    **dict.fromkeys(("m", "meter", "metre"), 1e3),
    "inch": 25.4,
}
"""Millimetres of the units that such files name."""

UNSAID = "it does not say how far apart its voxels are in a unit of length, so spacing is unknown"


def read_stack(
    path: Path, assume: str | None = None, max_memory: int | None = None, frame: int | None = None
) -> Read:
    """See `volume.read_volume`."""
    check_regular(path)
    kind: FileKind = "zarr" if path.suffix.lower() == ".zarr" else "tiff"
    try:
        values, spacing = (_zarr if kind == "zarr" else _tiff)(path, frame, max_memory)
    except PixelwiseError:
        raise
    except ModuleNotFoundError as error:
        raise MissingExtraError(f"reading {path.name}", "raster") from error
    except MemoryError as error:
        raise ImageError(f"{path} does not fit into memory; crop it") from error
    except Exception as error:  # codecs and stores raise what they like
        raise ImageError(f"{path} is damaged, or no stack ({first_line(error).rstrip('.')})") from error
    geometry = geometry_without_place(path, spacing, assume)
    values = values.astype(values.dtype.newbyteorder("="), copy=False)
    return Read(values, geometry, [] if spacing else [UNSAID], ScanFiles(kind, path))


def _zarr(path: Path, frame: int | None, max_memory: int | None) -> tuple[NDArray[Any], list[float] | None]:
    import zarr

    from pixelwise.sources.zarr_store import Store

    store: Any = Store(path)
    try:
        root = zarr.open(store, mode="r")
        node, axes = node_of(root)
        if axes is None:
            raise ImageError(f"{path} does not name its axes; expected an OME-Zarr with z, y and x")
        store.expect(node)
        values = _arranged(
            path, axes.lower(), node.shape, np.dtype(node.dtype), lambda index: node[index], frame, max_memory
        )
        return values, _zarr_spacing(root)
    finally:
        store.close()


def _zarr_spacing(root: Any) -> list[float] | None:
    about = root.attrs.get("ome", root.attrs)["multiscales"][0]
    steps: dict[str, float] = {}
    for i, axis in enumerate(about["axes"]):
        unit = MM.get(str(axis.get("unit", "")))
        for one in (
            *about["datasets"][0].get("coordinateTransformations", ()),
            *about.get("coordinateTransformations", ()),
        ):
            if one.get("type") == "scale" and unit is not None:
                steps[axis["name"].lower()] = steps.get(axis["name"].lower(), unit) * float(one["scale"][i])
    return [steps[name] for name in "zyx"] if {*"zyx"} <= steps.keys() else None


def _tiff(path: Path, frame: int | None, max_memory: int | None) -> tuple[NDArray[Any], list[float] | None]:
    import tifffile

    # It logs what it finds odd, line by line, and Python prints that where nobody listens.
    logging.getLogger("tifffile").addHandler(logging.NullHandler())
    with tifffile.TiffFile(
        path, _multifile=False
    ) as file:  # else it opens whatever files a description names
        if file.is_ome:
            check_ome(file.ome_metadata or "", len(file.pages), int(file.pages.first.samplesperpixel))
        series = file.series[0]
        if any(page is None for page in series.pages):
            raise ImageError(f"{path} describes planes that are nowhere; write it anew")
        for keyframe in {id(page.keyframe): page.keyframe for page in (*series.pages, series)}.values():
            bound(keyframe, path)
        for page in series.pages:
            if max(page.databytecounts, default=0) > most_bytes(page.keyframe):
                raise ImageError(f"{path} is damaged: a strip or tile has more bytes than it may have")
        axes = series.axes.lower()
        pages = [name for name in axes if name in "qi"]
        if "z" not in axes and len(pages) == 1:  # a file of pages, which names no axis
            axes = axes.replace(pages[0], "z")
        shape = tuple(int(side) for side in series.shape)
        stored = path.stat().st_size
        if math.prod(shape) > 2**28 + 10_000 * stored:
            raise ImageError(f"{path} is damaged: it speaks of {' x '.join(map(str, shape))} voxels")
        values = _arranged(
            path,
            axes,
            shape,
            np.dtype(series.dtype),
            lambda index: series.asarray()[index],
            frame,
            max_memory,
        )
        return values, _tiff_spacing(file)


def _tiff_spacing(file: Any) -> list[float] | None:
    if file.is_ome:
        root = ElementTree.fromstring(file.ome_metadata)
        pixels = next(element for element in root.iter() if element.tag.rpartition("}")[2] == "Pixels")
        steps = []
        for axis in "ZYX":
            unit = MM.get(pixels.get(f"PhysicalSize{axis}Unit", "\u00b5m"))
            side = pixels.get(f"PhysicalSize{axis}")
            if unit is None or side is None:
                return None
            steps.append(float(side) * unit)
        return steps
    if file.is_imagej:
        about = file.imagej_metadata or {}
        unit, tags = MM.get(str(about.get("unit", ""))), file.pages.first.tags
        if (
            unit is None
            or "spacing" not in about
            or not {"XResolution", "YResolution"} <= {tag.name for tag in tags}
        ):
            return None
        sides = [tags[name].value for name in ("YResolution", "XResolution")]
        return [float(about["spacing"]) * unit, *(below / above * unit for above, below in sides)]
    return None


def _arranged(
    path: Path,
    axes: str,
    shape: Sequence[int],
    dtype: np.dtype[Any],
    read: Any,
    frame: int | None,
    max_memory: int | None,
) -> NDArray[Any]:
    """The array as (d, h, w), or (c, d, h, w) of several channels."""
    shape = tuple(int(side) for side in shape)
    if len(axes) != len(shape) or len(set(axes)) != len(axes) or 0 in shape:
        raise ImageError(f"{path} names {len(axes)} axes ({axes[:20]}) of an array of {shape}; write it anew")
    sides = dict(zip(axes, shape, strict=True))
    if not {*"zyx"} <= sides.keys() or sides["z"] < 2:
        has = ", ".join(f"{name} {side}" for name, side in sides.items())
        raise ImageError(f"{path} has no axis Z of several slices ({has[:100]}); this model takes volumes")
    others = [name for name, side in sides.items() if name not in "tczyx" and side > 1]
    if others or dtype.kind not in "biuf":
        what = f"colours, or an axis {others[0]}" if others else str(dtype)
        raise ImageError(
            f"{path} holds {what}; expected real numbers along z, y and x, with channels c and time t"
        )
    index = check_frame(path, frame, sides.get("t", 1), needed=True)
    taken = (
        math.prod(shape)
        if "t" not in sides
        else math.prod(shape) // sides["t"] * (1 if path.suffix == ".zarr" else 2)
    )
    advice = "crop it, or give it more (max_memory, --max-memory-mb)"
    check_memory(f"reading {path}", 2 * taken * dtype.itemsize, max_memory, advice)
    where: tuple[Any, ...] = tuple(
        (index or 0) if name == "t" else slice(None) if name in "czyx" else 0 for name in axes
    )
    values: NDArray[Any] = np.asarray(read(where))
    names = "".join(name for name in axes if name in "czyx")
    values = values.transpose([names.index(name) for name in "czyx" if name in names])
    if values.ndim == 4 and len(values) == 1:
        values = values[0]
    return values

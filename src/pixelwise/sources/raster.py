"""Rasters: pictures of any size, number of bands and type of value, read a few rows at a time.

GeoTIFF and whatever else GDAL knows goes through rasterio; OME-TIFF and Zarr, whose bands may be spread over pages
and axes, through tifffile and zarr. All of them become the same thing, `Raster`.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from pixelwise.errors import ImageError, InputError, MissingExtraError
from pixelwise.georeference import Georeference

if TYPE_CHECKING:
    from collections.abc import Iterator

SAMPLE = 1000
"""Rows and columns, at most, of what is looked at to find the range of values."""


CACHE_BYTES = 64_000_000
"""What GDAL may keep of decoded blocks, or two rows of blocks where that is more; its own default is a twentieth of
the memory, which a large raster would fill."""


class Rows(Protocol):
    """Where rows come from. names: what each band is called in the file, "" where it has no name."""

    height: int
    width: int
    dtype: np.dtype[Any]
    names: tuple[str, ...]
    georeference: Georeference | None

    def read(self, bands: Sequence[int], top: int, bottom: int, step: int = 1) -> Any:
        """Bands (from 0) of every step-th row and column: values (rows, w, bands), valid (rows, w) bool or None."""
        ...

    def close(self) -> None: ...


@dataclass(frozen=True)
class Raster:
    """An open raster, its chosen bands, and how its values become what a network sees.

    bands: counted from 1, in the network's order. low, high: the values shown as 0 and 1; None for uint8 as it is.
    notes: sentences on what was chosen for the user.
    """

    rows: Rows
    bands: tuple[int, ...]
    low: float | None
    high: float | None
    notes: tuple[str, ...]

    @property
    def size_hw(self) -> tuple[int, int]:
        return self.rows.height, self.rows.width

    def read(self, top: int, bottom: int) -> tuple[NDArray[Any], NDArray[np.bool_] | None]:
        """Rows top .. bottom: (rows, w, bands), uint8 as it is or float32 in [0, 1]; and where the raster has data,
        (rows, w), or None when it has everywhere. Values outside low .. high are cut off, missing ones are 0."""
        values, valid = self._values(top, bottom)
        if self.low is None or self.high is None:
            return values, valid
        scaled = (values.astype(np.float32) - np.float32(self.low)) / np.float32(self.high - self.low)
        return np.clip(np.nan_to_num(scaled, copy=False, nan=0.0), 0, 1, out=scaled), valid

    def _values(self, top: int, bottom: int, step: int = 1) -> tuple[NDArray[Any], NDArray[np.bool_] | None]:
        values, valid = self.rows.read([b - 1 for b in self.bands], top, bottom, step)
        if np.issubdtype(values.dtype, np.floating):
            finite = np.isfinite(values).all(axis=-1)
            if not finite.all():
                valid = finite if valid is None else valid & finite
        return values, valid

    def close(self) -> None:
        self.rows.close()


def count_bands(path: Path) -> int:
    """How many bands a raster has. Raises ImageError for what cannot be opened."""
    if not path.exists():
        raise ImageError(f"no such file: {path}")
    rows = _open_rows(path)
    rows.close()
    return len(rows.names)


def open_raster(
    path: Path,
    *,
    channels: int = 3,
    bands: Sequence[int] | None = None,
    scale: tuple[float, float] | None = None,
) -> Raster:
    """Open a raster for a network of `channels` inputs.

    bands: which, counted from 1, in the network's order; by default the first ones (a single band is repeated).
    scale: the values to show as 0 and 1. By default uint8 stays as it is, and any other type is stretched between
    the 2nd and the 98th percentile of the chosen bands together, so that colours keep their balance, over at most
    1000 x 1000 of its pixels that have data; `notes` says which values these are. Raises ImageError for what cannot
    be opened, InputError for bands that do not exist or do not fit the network.
    """
    if not path.exists():
        raise ImageError(f"no such file: {path}")
    rows = _open_rows(path)
    if rows.dtype.kind not in "buif":
        raise ImageError(
            f"{path} holds {rows.dtype} values, expected integers or real numbers; convert it first"
        )
    count, notes = len(rows.names), []
    if bands is None:
        if count >= channels:
            bands = range(1, channels + 1)
        elif count == 1:
            bands = [1] * channels
        else:
            raise InputError(
                f"{path} has {count} bands and the model takes {channels}; name {channels} with --bands, "
                f"such as {','.join(str(min(i, count)) for i in range(1, channels + 1))}"
            )
        if count > channels:
            notes.append(
                f"bands {', '.join(map(str, bands))} of {count} are used; choose others with --bands"
            )
    if any(not 1 <= band <= count for band in bands) or len(bands) != channels:
        raise InputError(
            f"the model takes {channels} bands and {path} has {count}, counted from 1; "
            f"got bands {', '.join(map(str, bands))}"
        )
    low, high = scale or (None, None)
    raster = Raster(rows, tuple(bands), low, high, ())
    if scale is not None and not scale[0] < scale[1]:
        raise InputError(f"scale needs two values, the smaller first, got {scale[0]:g} and {scale[1]:g}")
    if scale is None and rows.dtype != np.uint8:
        low, high = _range(raster, path)
        notes.append(
            f"values {low:g} to {high:g} (2nd to 98th percentile) are shown as black to white; fix with --scale"
        )
        raster = Raster(rows, tuple(bands), low, high, ())
    return Raster(raster.rows, raster.bands, raster.low, raster.high, tuple(notes))


def _range(raster: Raster, path: Path) -> tuple[float, float]:
    step = max(1, -(-max(raster.size_hw) // SAMPLE))
    values, valid = raster._values(0, raster.rows.height, step)
    values = values if valid is None else values[valid]
    if values.size == 0:
        raise ImageError(
            f"{path} holds no data: every pixel looked at is marked as missing or is not a number"
        )
    low, high = (float(v) for v in np.percentile(values.astype(np.float64), (2, 98)))
    return (low, high) if low < high else (low, low + 1)


def _open_rows(path: Path) -> Rows:
    name = path.name.lower()
    if name.endswith(".zarr"):
        return _zarr(path)
    if name.endswith((".ome.tif", ".ome.tiff")):
        return _ome(path)
    return _Gdal(path)


@contextmanager
def _quiet() -> Iterator[None]:
    """rasterio warns of every raster that does not say where it lies."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


class _Gdal:
    def __init__(self, path: Path) -> None:
        try:
            import rasterio
            from rasterio.enums import ColorInterp, MaskFlags
        except ModuleNotFoundError as error:
            raise MissingExtraError(f"reading {path.name} as a raster", "raster") from error
        self._path = path
        try:
            with _quiet():
                self._file = rasterio.open(path)
                rows = self._file.block_shapes[0][0] if self._file.count else 1
                bands = sum(np.dtype(kind).itemsize for kind in self._file.dtypes)
                cache = max(CACHE_BYTES, 2 * rows * self._file.width * bands)
                self._limit = rasterio.Env(GDAL_CACHEMAX=cache)
        except (rasterio.errors.RasterioError, UnicodeError) as error:
            raise ImageError(f"{path} is not a raster that GDAL can read ({_first_line(error)})") from error
        file = self._file
        color = [i + 1 for i, kind in enumerate(file.colorinterp) if kind != ColorInterp.alpha]
        if not color:
            raise ImageError(
                f"{path} has no bands; name one of its parts: {', '.join(file.subdatasets[:5]) or 'none'}"
            )
        self._bands = color
        self._palette = None
        if len(color) == 1 and file.colorinterp[0] == ColorInterp.palette:
            table = np.zeros((65536 if file.dtypes[0] == "uint16" else 256, 3), np.uint8)
            for value, rgba in file.colormap(1).items():
                table[value] = rgba[:3]
            self._palette = table
        self.height, self.width = file.height, file.width
        self.dtype = np.dtype(np.uint8 if self._palette is not None else file.dtypes[color[0] - 1])
        names = [file.descriptions[b - 1] or "" for b in color]
        self.names = ("red", "green", "blue") if self._palette is not None else tuple(names)
        self._complete = all(MaskFlags.all_valid in file.mask_flag_enums[b - 1] for b in color)
        place = file.transform
        known = file.crs is not None or not place.is_identity
        self.georeference = (
            Georeference(file.crs.to_string() if file.crs else None, tuple(place)[:6]) if known else None
        )

    def read(self, bands: Sequence[int], top: int, bottom: int, step: int = 1) -> Any:
        import rasterio
        from rasterio.windows import Window

        window = Window(0, top, self.width, bottom - top)
        shape = (-(-(bottom - top) // step), -(-self.width // step))
        wanted = [1] if self._palette is not None else [self._bands[b] for b in bands]
        different = sorted(set(wanted))
        try:
            with self._limit:
                values = self._file.read(different, window=window, out_shape=(len(different), *shape))
                valid = (
                    None if self._complete else self._file.dataset_mask(window=window, out_shape=shape) > 0
                )
        except rasterio.errors.RasterioError as error:
            raise ImageError(
                f"rows {top} to {bottom} of {self._path} cannot be read ({_first_line(error)})"
            ) from error
        if self._palette is not None:
            return np.ascontiguousarray(self._palette[values[0]][..., list(bands)]), valid
        order = [different.index(b) for b in wanted]
        return np.ascontiguousarray(values[order].transpose(1, 2, 0)), valid

    def close(self) -> None:
        self._file.close()


class _Array:
    """An array that is read where it is sliced (zarr's), whose axes are named: y, x, at most one of c or s for the
    bands, and others of length 1."""

    def __init__(self, path: Path, array: Any, axes: str, close: Any = None) -> None:
        self.georeference: Georeference | None = None
        self._path, self._array, self._close = path, array, close
        axes = axes.lower()
        bands = [
            i for i, (name, n) in enumerate(zip(axes, array.shape, strict=True)) if name in "cs" and n > 1
        ]
        others = {n: s for n, s in zip(axes, array.shape, strict=True) if n not in "yxcs" and s > 1}
        if others or len(bands) > 1 or "y" not in axes or "x" not in axes:
            shape = ", ".join(f"{name} {side}" for name, side in zip(axes, array.shape, strict=True))
            raise ImageError(
                f"{path} holds more than one picture ({shape}); expected rows, columns and bands"
            )
        self._axes = axes
        self._band_axis = bands[0] if bands else None
        self.height, self.width = array.shape[axes.index("y")], array.shape[axes.index("x")]
        self.dtype = np.dtype(array.dtype)
        self.names = ("",) * (1 if self._band_axis is None else array.shape[self._band_axis])

    def read(self, bands: Sequence[int], top: int, bottom: int, step: int = 1) -> Any:
        where = [slice(0, 1)] * len(self._axes)
        where[self._axes.index("y")] = slice(top, bottom, step)
        where[self._axes.index("x")] = slice(0, self.width, step)
        if self._band_axis is not None:
            where[self._band_axis] = slice(min(bands), max(bands) + 1)
        try:
            values = np.asarray(self._array[tuple(where)])
        except Exception as error:  # codecs and stores raise what they like
            raise ImageError(
                f"rows {top} to {bottom} of {self._path} cannot be read ({_first_line(error)})"
            ) from error
        kept = "yx" if self._band_axis is None else "yx" + self._axes[self._band_axis]
        dropped = tuple(i for i, name in enumerate(self._axes) if name not in kept)
        values = values.squeeze(dropped)
        names = "".join(name for name in self._axes if name in kept)
        values = values.transpose([names.index(name) for name in kept])
        if self._band_axis is None:
            return np.repeat(values[..., None], len(bands), axis=-1), None
        return np.ascontiguousarray(values[..., [b - min(bands) for b in bands]]), None

    def close(self) -> None:
        if self._close is not None:
            self._close()


def _ome(path: Path) -> _Array:
    try:
        import tifffile
        import zarr
    except ModuleNotFoundError as error:
        raise MissingExtraError(f"reading {path.name}", "raster") from error
    try:
        file = tifffile.TiffFile(path)
        series = file.series[0]
        array = zarr.open(series.aszarr(level=0), mode="r")
    except Exception as error:
        raise ImageError(f"{path} is not an OME-TIFF that can be read ({_first_line(error)})") from error
    return _Array(path, array, series.axes, file.close)


def _zarr(path: Path) -> _Array:
    try:
        import zarr
    except ModuleNotFoundError as error:
        raise MissingExtraError(f"reading {path.name}", "raster") from error
    try:
        node: Any = zarr.open(str(path), mode="r")
        axes = None
        if not hasattr(node, "shape"):
            about = node.attrs.get("ome", node.attrs).get("multiscales")
            if about:
                first = about[0]
                axes = "".join(str(axis["name"]) for axis in first.get("axes", ())) or None
                node = node[first["datasets"][0]["path"]]
            else:
                arrays = [array for _, array in node.arrays()]
                if len(arrays) != 1:
                    raise ValueError(f"{len(arrays)} arrays and no multiscales; name one of them")
                node = arrays[0]
    except Exception as error:
        raise ImageError(f"{path} is not a Zarr array that can be read ({_first_line(error)})") from error
    return _Array(path, node, axes or _guess(node.shape))


def _guess(shape: tuple[int, ...]) -> str:
    """Axes of an array that does not name them: the bands are first or last, whichever is shorter."""
    singles = len(shape) - 3 if len(shape) > 3 else 0
    names = {2: "yx"}.get(len(shape)) or ("cyx" if shape[singles] < shape[-1] else "yxc")
    return "tzuvw"[:singles] + names


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")

"""Rasters: pictures of any size, number of bands and type of value, read a few rows at a time.

GeoTIFF and whatever else GDAL knows goes through rasterio; OME-TIFF and Zarr, whose bands may be spread over pages
and axes, through tifffile and zarr. All of them become the same thing, `Raster`.
"""

from __future__ import annotations

import logging
import lzma
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol
from xml.etree import ElementTree

import numpy as np
from numpy.typing import NDArray

from pixelwise.errors import ImageError, InputError, MissingExtraError, first_line
from pixelwise.georeference import Georeference
from pixelwise.images import check_regular
from pixelwise.limits import MAX_RASTER_PIXELS, MOSTLY_EMPTY, check_memory, check_stored
from pixelwise.sources.gdal import open_dataset, quiet, told
from pixelwise.sources.unfolding import DAMAGE, OF_TIFF, SLACK, unfolds_to

RASTER_OPTION = "--max-raster-pixels, max_raster_pixels"

SAMPLE = 1000
"""Rows and columns, at most, of what is looked at to find the range of values."""


CACHE_BYTES = 64_000_000
"""What GDAL may keep of decoded blocks, or two rows of blocks where that is more; its own default is a twentieth of
the memory, which a large raster would fill."""

A_BLOCK = 1024
"""Pixels that a block counts as where it is smaller: finding it costs about what so many do."""

A_CHUNK = 128 * 128
"""The same of chunks of zarr, each of which is an object to it, and often a file."""

CHUNK_BYTES = 2560
"""What zarr keeps in memory for each chunk that it reads."""

AT_ONCE = 10
"""Chunks that zarr decodes at the same time, by its own default."""

LOWER = "pass --max-memory-mb (max_memory) if the file is to be trusted, or cut it into tiles with GDAL"


class Rows(Protocol):
    """Where rows come from. names: what each band is called in the file, "" where it has no name."""

    height: int
    width: int
    dtype: np.dtype[Any]
    names: tuple[str, ...]
    georeference: Georeference | None
    blocks: int
    """How many pieces the file is stored in, each decoded as a whole."""
    a_block: int
    """Pixels that each counts as, at least."""

    def needs(self, bands: Sequence[int], rows: int, columns: int) -> int:
        """Bytes, at the peak, for reading so many values of each band; the pieces that are decoded included."""
        ...

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

    def needs(self, rows: int, columns: int | None = None) -> int:
        """Bytes that `read` takes at its peak for so many rows, its result included."""
        columns = self.rows.width if columns is None else columns
        scaling = 0 if self.low is None else 14 * rows * columns * len(self.bands)
        return self.rows.needs([b - 1 for b in self.bands], rows, columns) + scaling

    def close(self) -> None:
        self.rows.close()


def count_bands(path: Path, *, allow_remote: bool = False) -> int:
    """How many bands a raster has. Raises ImageError for what cannot be opened."""
    rows = _open_rows(path, allow_remote)
    rows.close()
    return len(rows.names)


def open_raster(
    path: Path,
    *,
    channels: int = 3,
    bands: Sequence[int] | None = None,
    scale: tuple[float, float] | None = None,
    value_range: tuple[float, float] | None = None,
    allow_remote: bool = False,
    max_pixels: int = MAX_RASTER_PIXELS,
    max_memory: int | None = None,
) -> Raster:
    """Open a raster for a network of `channels` inputs.

    bands: which, counted from 1, in the network's order; by default the first ones (a single band is repeated).
    scale: the values to show as 0 and 1. By default uint8 stays as it is, and any other type is stretched between
    the 2nd and the 98th percentile of the chosen bands together, so that colours keep their balance, over at most
    1000 x 1000 of its pixels that have data; `notes` says which values these are. value_range: what a model's card says
    about them, a scale of what is no uint8. allow_remote: also what the file
    names in other files or on the network, such as the parts of a VRT. max_pixels: refuse more, a stored piece of less
    than 1024 (a chunk of Zarr: 16384) counting as so many, and of a file that is nearly empty more than a hundredth.
    max_memory: bytes that a read, its largest stored piece decoded, may take; None is half of what is free.

    Raises ImageError for what cannot be opened, InputError for bands that do not exist or do not fit the network, and
    for what is beyond the limits, before anything of its size is allocated.
    """
    rows = _open_rows(path, allow_remote)
    try:
        if rows.dtype.kind not in "buif":
            raise ImageError(
                f"{path} holds {rows.dtype} values, expected integers or real numbers; convert it first"
            )
        _check_size(rows, path, max_pixels)
        chosen, notes = _choose(rows, path, channels, bands)
        if scale is None and rows.dtype != np.uint8:
            scale = value_range
        low, high = scale or (None, None)
        raster = Raster(rows, chosen, low, high, tuple(notes))
        check_memory(f"reading {path}", raster.needs(1), max_memory, LOWER)
        if not allow_remote:  # whose parts lie elsewhere
            h, w = rows.height, rows.width
            declared = h * w * len(rows.names) * rows.dtype.itemsize
            advice = f"or, if you trust it, raise the limit to {h * w * MOSTLY_EMPTY} ({RASTER_OPTION})"
            check_stored(path, (h, w), declared, max_pixels, advice)
        if scale is not None and not scale[0] < scale[1]:
            raise InputError(f"scale needs two values, the smaller first, got {scale[0]:g} and {scale[1]:g}")
        if scale is None and rows.dtype != np.uint8:
            low, high = _range(raster, path, max_memory)
            notes.append(
                f"values {low:g} to {high:g} (2nd to 98th percentile) are shown as black to white; fix with --scale"
            )
            raster = Raster(rows, chosen, low, high, tuple(notes))
        return raster
    except BaseException:
        rows.close()
        raise


def _check_size(rows: Rows, path: Path, max_pixels: int) -> None:
    h, w = rows.height, rows.width
    if h * w == 0:
        raise ImageError(f"{path} has no pixels ({h} x {w})")
    if h * w > max_pixels:
        counted = f"{h} x {w} = {h * w:,} pixels"
    elif (cost := rows.blocks * rows.a_block) > max(max_pixels, h * w):
        counted = f"{h} x {w} pixels in {rows.blocks:,} pieces, which cost as many as {cost:,} would"
    else:
        return
    raise ImageError(
        f"{path} has {counted}, more than the limit of {max_pixels:,} for rasters; if it is to be trusted, raise the "
        f"limit ({RASTER_OPTION})"
    )


def _choose(
    rows: Rows, path: Path, channels: int, bands: Sequence[int] | None
) -> tuple[tuple[int, ...], list[str]]:
    """Which bands are taken, and what the user is told of it."""
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
    return tuple(bands), notes


def _range(raster: Raster, path: Path, max_memory: int | None) -> tuple[float, float]:
    step = max(1, -(-max(raster.size_hw) // SAMPLE))
    rows, columns = (-(-side // step) for side in raster.size_hw)
    sorting = 24 * rows * columns * len(raster.bands)
    check_memory(f"looking at the values of {path}", raster.needs(rows, columns) + sorting, max_memory, LOWER)
    values, valid = raster._values(0, raster.rows.height, step)
    values = values if valid is None else values[valid]
    if values.size == 0:
        raise ImageError(
            f"{path} holds no data: every pixel looked at is marked as missing or is not a number"
        )
    low, high = (float(v) for v in np.percentile(values.astype(np.float64), (2, 98)))
    return (low, high) if low < high else (low, low + 1)


def _open_rows(path: Path, allow_remote: bool) -> Rows:
    if not path.exists():
        raise ImageError(f"no such file: {path}")
    check_regular(path)
    name = path.name.lower()
    try:
        if name.endswith(".zarr"):
            return _zarr(path, allow_remote)
        if name.endswith((".ome.tif", ".ome.tiff")) and (ome := _ome(path)) is not None:
            return ome
        return _Gdal(path, allow_remote)
    except MemoryError:
        raise ImageError(f"opening {path} needs more memory than there is") from None


class _Gdal:
    a_block = A_BLOCK

    def __init__(self, path: Path, allow_remote: bool) -> None:
        self._file = open_dataset(path, allow_remote=allow_remote)
        try:
            with quiet(), told(f"{path} is not a raster that GDAL can read"):
                self._describe(path)
        except BaseException:
            self._file.close()
            raise

    def _describe(self, path: Path) -> None:
        import rasterio
        from rasterio.enums import ColorInterp, MaskFlags

        self._path = path
        # GDAL opens what lies beside a file late: this may go wrong too.
        flags = self._file.mask_flag_enums
        interleaved = self._file.tags(ns="IMAGE_STRUCTURE").get("INTERLEAVE") == "PIXEL"
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
        self._complete = all(MaskFlags.all_valid in flags[b - 1] for b in color)
        tall, wide = file.block_shapes[0]
        across = -(-self.width // wide)
        self.blocks = -(-self.height // tall) * across * (1 if interleaved else len(color))
        sizes = [16 if kind.startswith("complex") else np.dtype(kind).itemsize for kind in file.dtypes]
        a_block = tall * wide * (sum(sizes) if interleaved else max(sizes))
        whole = self.height * self.width * sum(sizes)
        cache = max(CACHE_BYTES, 2 * tall * across * wide * sum(sizes))
        self._limit = rasterio.Env(GDAL_CACHEMAX=cache)
        # What is decoded passes through a buffer of its own, and what was compressed lies in another.
        self._held: int = min(cache, whole + a_block) + 2 * a_block
        place = file.transform
        known = file.crs is not None or not place.is_identity
        self.georeference = (
            Georeference(file.crs.to_string() if file.crs else None, tuple(place)[:6]) if known else None
        )

    def needs(self, bands: Sequence[int], rows: int, columns: int) -> int:
        values = (len(set(bands)) + 2 * len(bands)) * self.dtype.itemsize + (0 if self._complete else 2)
        return self._held + rows * columns * values

    def read(self, bands: Sequence[int], top: int, bottom: int, step: int = 1) -> Any:
        from rasterio.windows import Window

        window = Window(0, top, self.width, bottom - top)
        shape = (-(-(bottom - top) // step), -(-self.width // step))
        wanted = [1] if self._palette is not None else [self._bands[b] for b in bands]
        different = sorted(set(wanted))
        what = f"rows {top} to {bottom} of {self._path} cannot be read"
        try:
            with told(what), self._limit:
                values = self._file.read(different, window=window, out_shape=(len(different), *shape))
                valid = (
                    None if self._complete else self._file.dataset_mask(window=window, out_shape=shape) > 0
                )
        except MemoryError as error:
            raise ImageError(f"{what} ({first_line(error).rstrip('.')})") from error
        if self._palette is not None:
            return np.ascontiguousarray(self._palette[values[0]][..., list(bands)]), valid
        order = [different.index(b) for b in wanted]
        return np.ascontiguousarray(values[order].transpose(1, 2, 0)), valid

    def close(self) -> None:
        self._file.close()


class _Array:
    """An array that is read where it is sliced (zarr's), whose axes are named: y, x, at most one of c or s for the
    bands, and others of length 1."""

    a_block = A_CHUNK

    def __init__(self, path: Path, array: Any, axes: str, close: Any = None) -> None:
        self.georeference: Georeference | None = None
        self._path, self._array, self._close = path, array, close
        axes, sides = axes.lower(), tuple(int(side) for side in array.shape)
        if len(axes) != len(sides) or len(set(axes)) != len(axes):
            raise ImageError(
                f"{path} names {len(axes)} axes ({axes}) of an array of {len(sides)}; write it anew"
            )
        if 0 in sides:
            raise ImageError(f"{path} has no pixels: an array of {' x '.join(map(str, sides))}")
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
        self.height, self.width = sides[axes.index("y")], sides[axes.index("x")]
        self.dtype = np.dtype(array.dtype)
        chunks = tuple(int(side) for side in array.chunks)
        if min(chunks) < 1:
            raise ImageError(f"{path} has no pixels, or chunks of none: shape {sides}, chunks {chunks}")
        self.blocks = math.prod(-(-side // part) for side, part in zip(sides, chunks, strict=True))
        # A chunk at the border is stored whole; it is decoded from another buffer, and put into the array from it.
        self._held: int = 2 * min(AT_ONCE, self.blocks) * math.prod(chunks) * self.dtype.itemsize
        # Of a shard, a file of many chunks, the index is read, and the whole where all of it is asked for.
        shards = getattr(array, "shards", None)
        self._sharded = shards is not None
        self._held += CHUNK_BYTES * self.blocks
        if shards is not None:
            # Of a chunk the index has 16 bytes, and there are three of it while it is looked at.
            self._held += min(AT_ONCE, self.blocks) * 48 * (math.prod(shards) // math.prod(chunks))
        self.names = ("",) * (1 if self._band_axis is None else array.shape[self._band_axis])

    def needs(self, bands: Sequence[int], rows: int, columns: int) -> int:
        read: int = max(bands) - min(bands) + 1 if self._band_axis is not None else 1
        values: int = (read * (3 if self._sharded else 1) + len(bands)) * self.dtype.itemsize
        return self._held + rows * columns * values

    def read(self, bands: Sequence[int], top: int, bottom: int, step: int = 1) -> Any:
        where = [slice(0, 1)] * len(self._axes)
        where[self._axes.index("y")] = slice(top, bottom, step)
        where[self._axes.index("x")] = slice(0, self.width, step)
        if self._band_axis is not None:
            where[self._band_axis] = slice(min(bands), max(bands) + 1)
        try:
            values = np.asarray(self._array[tuple(where)])
        except ImageError:
            raise
        except Exception as error:  # codecs and stores raise what they like
            raise ImageError(
                f"rows {top} to {bottom} of {self._path} cannot be read ({first_line(error).rstrip('.')})"
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


def _ome(path: Path) -> _Array | None:
    """The first picture of an OME-TIFF; None for a TIFF that only has the name of one."""
    try:
        import tifffile
        import zarr
    except ModuleNotFoundError as error:
        raise MissingExtraError(f"reading {path.name}", "raster") from error
    # It logs what it finds odd, line by line, and Python prints that where nobody listens.
    logging.getLogger("tifffile").addHandler(logging.NullHandler())
    file = None
    try:
        # Without _multifile it opens whatever files the description names.
        file = tifffile.TiffFile(path, _multifile=False)
        if not file.is_ome:
            file.close()
            return None
        check_ome(file.ome_metadata or "", len(file.pages), int(file.pages.first.samplesperpixel))
        series = file.series[0]
        if any(page is None for page in series.pages):
            raise ValueError("its description names planes that are nowhere")
        for keyframe in {id(page.keyframe): page.keyframe for page in (*series.pages, series)}.values():
            bound(keyframe, path)
        for page in series.pages:
            if max(page.databytecounts, default=0) > most_bytes(page.keyframe):
                raise ValueError("a strip or tile has more bytes than it may have")
        array = zarr.open(series.aszarr(level=0), mode="r")
        return _Array(path, array, series.axes, file.close)
    except Exception as error:
        if file is not None:
            file.close()
        if isinstance(error, ImageError):
            raise
        raise ImageError(
            f"{path} is not an OME-TIFF that can be read ({first_line(error).rstrip('.')})"
        ) from error


def most_bytes(page: Any) -> int:
    """Bytes that a strip or tile of tifffile's page may have and unfold to; what is not compressed is one piece."""
    rows = page.chunks[0] if page.is_tiled else min(page.chunks[0], page.imagelength)
    pixels = page.size if page.compression == 1 else rows * math.prod(page.chunks[1:])
    return int(2 * pixels * page.dtype.itemsize + SLACK)


REVERSED = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))


def bound(page: Any, path: Path) -> None:
    """Have tifffile's page look to how much a strip or tile unfolds before it is decoded."""
    codec, decode, most = OF_TIFF.get(page.compression, ""), page.decode, most_bytes(page)
    config = {"format": lzma.FORMAT_AUTO}

    def bounded(data: bytes | None, *arguments: Any, **options: Any) -> Any:
        if data is not None:
            try:
                stream = bytes(data).translate(REVERSED) if page.fillorder == 2 else bytes(data)
                size = unfolds_to(codec, config, stream, most)
            except DAMAGE as error:
                raise ImageError(f"a strip or tile of {path} is damaged ({error}); write it anew") from error
            if size > most:
                raise ImageError(
                    f"a strip or tile of {path} unfolds to more than the {most:,} bytes that it may; write it anew"
                )
        return decode(data, *arguments, **options)

    if codec:
        page.decode = bounded


def check_ome(description: str, pages: int, samples: int) -> None:
    """Raise ValueError where an OME-TIFF describes more planes than it has: they would be counted through one by one,
    and made up."""
    counts = {"SizeC", "SizeZ", "SizeT", "IFD", "PlaneCount", "NumPlanes", "FirstC", "FirstZ", "FirstT"}
    root = ElementTree.fromstring(description)
    for element in root.iter():
        tag = element.tag.rpartition("}")[2]
        if tag == "UUID" and (element.text or "").strip() != root.get("UUID"):
            raise ValueError("its description names planes that are in other files; join them first")
        if tag.startswith("Modulo"):
            raise ValueError("it divides an axis further (Modulo); expected rows, columns and bands")
        sizes = [int(element.get(f"Size{axis}", 1)) for axis in "CZT"]
        numbers = [int(value) for name, value in element.attrib.items() if name in counts]
        if tag in ("Pixels", "TiffData") and not all(
            0 <= n <= pages * samples for n in (*numbers, math.prod(sizes))
        ):
            raise ValueError(f"it describes more planes than the {pages} that it has")


def _zarr(path: Path, allow_remote: bool) -> _Array:
    try:
        import zarr

        from pixelwise.sources.zarr_store import Store
    except ModuleNotFoundError as error:
        raise MissingExtraError(f"reading {path.name}", "raster") from error
    # A store of our own: zarr takes "::" and "://" in a name for an address.
    store: Any = None
    try:
        store = Store(path, allow_remote=allow_remote)
        with quiet():  # zarr warns of codecs that other programs may not know
            node, axes = node_of(zarr.open(store, mode="r"))
        if not 2 <= len(node.shape) <= 8:
            raise ValueError(f"its shape is {node.shape}; expected rows, columns and bands")
        array = _Array(path, node, axes or _guess(node.shape), store.close)
        store.expect(node)
        return array
    except Exception as error:  # other people's JSON, of any shape
        if store is not None:
            store.close()
        if isinstance(error, ImageError):
            raise
        raise ImageError(
            f"{path} is not a Zarr array that can be read ({first_line(error).rstrip('.')})"
        ) from error


def node_of(node: Any) -> tuple[Any, str | None]:
    """The array, and its axes where they are named; of a pyramid the largest."""
    if hasattr(node, "shape"):
        return node, None
    about = node.attrs.get("ome", node.attrs).get("multiscales")
    if about:
        first = about[0]
        axes = "".join(str(axis["name"]) for axis in first.get("axes", ())) or None
        return node[first["datasets"][0]["path"]], axes
    arrays = [array for _, array in node.arrays()]
    if len(arrays) != 1:
        raise ValueError(f"{len(arrays)} arrays and no multiscales; name one of them")
    return arrays[0], None


def _guess(shape: tuple[int, ...]) -> str:
    """Axes of an array that does not name them: the bands are first or last, whichever is shorter."""
    singles = len(shape) - 3 if len(shape) > 3 else 0
    names = {2: "yx"}.get(len(shape)) or ("cyx" if shape[singles] < shape[-1] else "yxc")
    return "tzuvw"[:singles] + names

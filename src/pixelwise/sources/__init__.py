"""Where pixels come from besides single pictures: rasters (`raster.py`), videos (`video.py`) and volumes (`volume.py`);
`find`, which tells them apart, and `read`, one picture for a network of any number of channels."""

from __future__ import annotations

import os
import struct
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any, Literal

from numpy.typing import NDArray

from pixelwise import images
from pixelwise.errors import ImageError, MissingExtraError
from pixelwise.sources import dicom
from pixelwise.sources.volume import ENDINGS, STACKS, channel_files, channel_of, is_volume
from pixelwise.terminal import note

Kind = Literal["picture", "raster", "video", "volume"]

VIDEO_SUFFIXES = frozenset(".mp4 .m4v .mov .mkv .webm .avi .mpg .mpeg .wmv .flv .ts .mts .3gp .ogv".split())
RASTER_SUFFIXES = frozenset(".vrt .zarr .img .ntf .nc .bil .bip .bsq .ecw .asc .dem".split())

STDIN = Path("-")
"""The source that stands for one picture on standard input."""

CAMERA = "camera:"
"""What the name of a camera begins with; its number follows."""


@dataclass(frozen=True)
class Source:
    """Something to segment. path: where it is; name: its place below the input, which its results keep. parts: files
    beside it that belong to it."""

    path: Path
    name: Path
    kind: Kind
    parts: tuple[Path, ...] = ()


def find(inputs: Iterable[str | os.PathLike[str]], *, max_pixels: int = images.MAX_PIXELS) -> list[Source]:
    """What `inputs` name: pictures, folders and patterns as in `images.find`, "-" for standard input, videos and
    "camera:0", rasters and Zarr folders, and volumes, also in folders, of which those that hold DICOM are volumes.

    A TIFF counts as a raster when it says where on Earth it lies, marks pixels without data, has more than 4
    bands, or more than `max_pixels`. Raises ImageError when an input names nothing.
    """
    found: dict[Path, Source] = {}
    for given in inputs:
        path, text = Path(given), os.fspath(given)
        if text == "-":
            found.setdefault(STDIN, Source(STDIN, Path("stdin"), "picture"))
        elif text.startswith(CAMERA):
            found.setdefault(path, Source(path, Path(text.replace(":", "")), "video"))
        elif path.suffix.lower() == ".zarr":
            found.setdefault(path, Source(path, Path(path.name), "raster"))
        else:
            scans = dicom.find_scans(path) if path.is_dir() else []
            for scan in scans:
                name = scan.relative_to(path) if scan != path else Path(path.resolve().name or "scan")
                found.setdefault(scan, Source(scan, name, "volume"))
            try:
                pictures = images.find([given], also=ENDINGS)
            except ImageError:
                if not scans:
                    raise
                continue
            for one, name in pictures:
                found.setdefault(one, Source(one, name, kind_of(one, max_pixels=max_pixels)))
    return list(found.values())


def depends_on_model(found: Iterable[Source]) -> bool:
    """Whether what sources are, pictures or volumes, and which files belong together, is for the model to say."""
    return any(
        source.path.suffix.lower() in STACKS or (channel_of(source.path) or ("", 0))[1] == 1
        for source in found
    )


def for_volumes(found: Iterable[Source], channels: int) -> list[Source]:
    """The same for a model of volumes: stacks of pictures are volumes, and the files of the channels of a case, where
    the model wants several, are one, named after the case."""
    sources: list[Source] = []
    parts: set[Path] = set()
    for source in found:
        kind: Kind = "volume" if source.path.suffix.lower() in STACKS else source.kind
        of = channel_of(source.path) if kind == "volume" and channels > 1 else None
        if of is None or of[1] != 0:
            sources.append(replace(source, kind=kind))
            continue
        files = channel_files(source.path, channels, check=False)
        parts.update(files[1:])
        name = source.name.name.removeprefix(f"{of[0]}_0000")
        sources.append(Source(source.path, source.name.with_name(of[0] + name), kind, tuple(files[1:])))
    return [source for source in sources if source.path not in parts]


def kind_of(path: Path, *, max_pixels: int = images.MAX_PIXELS) -> Kind:
    """What a file is to be treated as; by its suffix, a TIFF by its first directory."""
    suffix = path.suffix.lower()
    if is_volume(path):
        return "volume"
    if suffix in VIDEO_SUFFIXES:
        return "video"
    if suffix in RASTER_SUFFIXES or path.name.lower().endswith((".ome.tif", ".ome.tiff")):
        return "raster"
    if suffix in (".tif", ".tiff") and _is_raster_tiff(path, max_pixels):
        return "raster"
    return "picture"


def read(
    source: images.ImageLike,
    *,
    channels: int = 3,
    max_pixels: int = images.MAX_PIXELS,
    value_range: images.ValueRange | None = None,
) -> NDArray[Any]:
    """A picture (h, w, channels), uint8 as `images.read` gives it; for a network of other channels than grey or RGB
    also from a raster, or a TIFF that Pillow does not read, of just as many bands: then uint8 or float32 in [0, 1], as
    `raster.open_raster` scales it, which is said on stderr. value_range: of what is no uint8, for both.

    Raises ImageError for what cannot be used, MissingExtraError for a raster without the extra.
    """
    if channels in (1, 3) or not isinstance(source, (str, os.PathLike)):
        return images.read(source, channels=channels, max_pixels=max_pixels, value_range=value_range)
    path = Path(source)
    if kind_of(path, max_pixels=max_pixels) == "raster":
        return _bands(path, channels, max_pixels, value_range)
    try:
        return images.read(path, channels=channels, max_pixels=max_pixels, value_range=value_range)
    except ImageError as error:
        if path.suffix.lower() not in (".tif", ".tiff") or not path.is_file():
            raise
        try:
            return _bands(path, channels, max_pixels, value_range)
        except MissingExtraError:
            raise error from None


def _bands(path: Path, channels: int, max_pixels: int, value_range: images.ValueRange | None) -> NDArray[Any]:
    """All of a raster that has as many bands as the network takes channels."""
    from pixelwise.sources.raster import count_bands, open_raster

    bands = count_bands(path)
    if bands != channels:
        raise ImageError(
            f"this model takes pictures of {channels} channels, and {path} has {bands} bands; choose them on the "
            "command line (--bands), or pass an array"
        )
    raster = open_raster(path, channels=channels, value_range=value_range)
    try:
        height, width = raster.size_hw
        if height * width > max_pixels:
            raise ImageError(
                f"{path} has {height} x {width} = {height * width:,} pixels, more than the limit of {max_pixels:,}; "
                "raise the limit (max_pixels), or read it in rows (Segmenter.bands)"
            )
        for sentence in raster.notes:
            note(f"{path}: {sentence}")
        values, _ = raster.read(0, height)
        return values
    finally:
        raster.close()


WIDTH, HEIGHT, BANDS = 256, 257, 277
GEOGRAPHIC_TAGS = {33550, 33922, 34264, 34735, 42113}
"""Pixel scale, tie points, transformation, geographic keys, and GDAL's value of pixels without data."""


def _is_raster_tiff(path: Path, max_pixels: int) -> bool:
    """Pipes are left to the picture's decoder."""
    try:
        if not path.is_file():
            return False
        with open(path, "rb") as file:
            return is_raster_tiff(file, max_pixels=max_pixels)
    except OSError:
        return False


def is_raster_tiff(file: IO[bytes], *, max_pixels: int = images.MAX_PIXELS) -> bool:
    """Whether a file, open at its beginning, is a TIFF that counts as a raster (see `find`). From the tags of the first
    directory alone; whatever cannot be read is left to the picture's decoder."""
    try:
        order = {b"II": "<", b"MM": ">"}[file.read(2)]
        (version,) = struct.unpack(order + "H", file.read(2))
        if version == 43:  # BigTIFF, which Pillow reads only in part
            return True
        (place,) = struct.unpack(order + "I", file.read(4))
        file.seek(place)
        (count,) = struct.unpack(order + "H", file.read(2))
        tags: dict[int, int] = {}
        for _ in range(count):
            tag, kind, _, value = struct.unpack(order + "HHI4s", file.read(12))
            tags[tag] = struct.unpack(order + ("H2x" if kind == 3 else "I"), value)[0]
    except (OSError, KeyError, struct.error):
        return False
    if GEOGRAPHIC_TAGS & tags.keys() or tags.get(BANDS, 1) > 4:
        return True
    return tags.get(WIDTH, 0) * tags.get(HEIGHT, 0) > max_pixels

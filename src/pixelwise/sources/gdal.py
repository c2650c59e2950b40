"""Opening files with GDAL such that a file is read for what it holds itself.

GDAL takes what a file says: a virtual raster, or a service described in XML, may stand under any name, a GeoTIFF may
name the file of its overviews in a tag, GDAL opens `.ovr` and `.msk` files beside it with whatever driver fits, and a
file of HDF5 may keep its values in any other. All of these name paths, or addresses, which GDAL fetches. Here the
beginning of the file decides which driver may open it, one of those whose files hold their own values, and what GDAL
would open besides is looked at in the same way before it does.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pixelwise.errors import ImageError, MissingExtraError, first_line
from pixelwise.images import check_regular
from pixelwise.weights.store import offline

TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
IMAGINE = b"EHFA_HEADER_TAG"

DRIVERS: tuple[tuple[tuple[bytes, ...], str], ...] = (
    (TIFF, "GTiff"),
    ((IMAGINE,), "HFA"),
    ((b"NITF", b"NSIF"), "NITF"),
    ((b"CDF\x01", b"CDF\x02", b"CDF\x05"), "netCDF"),
    ((b"\x89PNG\r\n\x1a\n",), "PNG"),
    ((b"\xff\xd8\xff",), "JPEG"),
    ((b"\0\0\0\x0cjP  ", b"\xff\x4f\xff\x51"), "JP2OpenJPEG"),
    ((b"GIF87a", b"GIF89a"), "GIF"),
    ((b"BM",), "BMP"),
)
"""How a file begins, and GDAL's driver for it."""

PLAIN = {".bil": "EHdr", ".bip": "EHdr", ".bsq": "EHdr", ".img": "EHdr", ".asc": "AAIGrid", ".dem": "USGSDEM"}
"""Kinds that are known by their suffix, being numbers and nothing else; a header beside them may be ENVI's instead."""

ELSEWHERE = (
    "which may have other files, or addresses, read; pass --allow-remote (allow_remote=True) if you trust its maker, "
    "or make a GeoTIFF of it (gdal_translate)"
)


def open_dataset(path: Path, *, allow_remote: bool = False) -> Any:
    """A rasterio dataset. allow_remote: of any kind that GDAL knows, with whatever it names in other files or on the
    network.

    Raises ImageError for what cannot be opened, or names others; MissingExtraError without rasterio.
    """
    try:
        import rasterio
    except ModuleNotFoundError as error:
        raise MissingExtraError(f"reading {path.name} as a raster", "raster") from error
    check_regular(path)
    try:
        if allow_remote:
            refuse_offline(path)
        driver = None if allow_remote else _driver(path)
        for beside in () if allow_remote else _opened_besides(path):
            _check_besides(beside)
        with quiet(), told(f"{path} is not a raster that GDAL can read"):
            # The whole path, because rasterio takes a folder named "http:" or "zip:" for the beginning of an address.
            dataset = rasterio.open(os.path.abspath(path), driver=driver)
    except OSError as error:
        raise ImageError(f"cannot read {path}: {error.strerror or error}") from error
    except ImageError:
        raise
    except (UnicodeError, ValueError) as error:
        raise ImageError(
            f"{path} is not a raster that GDAL can read ({first_line(error).rstrip('.')})"
        ) from error
    try:
        if not allow_remote:
            with told(f"{path} is not a raster that GDAL can read"):
                _refuse_others(dataset, path)
    except BaseException:
        dataset.close()
        raise
    return dataset


def refuse_offline(path: Path) -> None:
    """Raise ImageError where PIXELWISE_OFFLINE forbids what allow_remote allows."""
    if offline():
        raise ImageError(
            f"{path} is to be read with whatever it names elsewhere (--allow-remote, allow_remote=True), and "
            "PIXELWISE_OFFLINE forbids the network; unset one of them"
        )


def _driver(path: Path) -> str:
    with open(path, "rb") as file:
        start = file.read(1024)
    for beginnings, driver in DRIVERS:
        if start.startswith(beginnings):
            return driver
    if start.startswith(b"RIFF") and start[8:12] == b"WEBP":
        return "WEBP"
    if start.startswith(b"\x89HDF\r\n\x1a\n"):
        raise ImageError(f"{path} is a file of HDF5 (NetCDF 4), {ELSEWHERE}")
    if start.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"<"):
        raise ImageError(f"{path} is a description of a raster in XML (such as a VRT), {ELSEWHERE}")
    driver = PLAIN.get(path.suffix.lower(), "")
    if driver == "EHdr" and _is_envi(path):
        driver = "ENVI"
    if not driver:
        raise ImageError(f"{path} is not a raster of a kind that is read for what it holds itself")
    return driver


def _is_envi(path: Path) -> bool:
    for header in (path.with_suffix(".hdr"), Path(f"{path}.hdr"), path.with_suffix(".HDR")):
        if header.is_file():
            with open(header, "rb") as file:
                return file.read(4) == b"ENVI"
    return False


def _opened_besides(path: Path) -> Iterator[Path]:
    """Files that GDAL opens beside this one, with any driver that takes them; it finds them in capitals too."""
    names = {f"{path.name}.ovr".lower(), f"{path.name}.msk".lower()}
    names |= {f"{path.name}.aux".lower(), f"{path.stem}.aux".lower()}
    with os.scandir(path.parent) as entries:
        about = tuple(f"{path.stem}{mark}".lower() for mark in "._")
        of_it = [entry for entry in entries if entry.name.lower().startswith(about)]
    for entry in of_it:  # headers, world files and more: GDAL would wait for a pipe
        if not entry.is_file():
            check_regular(path.parent / entry.name)
    found = [path.parent / entry.name for entry in of_it if entry.name.lower() in names]
    for file in sorted(found):
        if file.name == path.name or not file.is_file():
            continue
        with open(file, "rb") as opened:
            start = opened.read(len(IMAGINE))
        if (
            file.suffix.lower() != ".aux" or start == IMAGINE
        ):  # GDAL leaves an .aux file of any other kind alone
            yield file


def _check_besides(path: Path) -> None:
    """Raise ImageError unless it is a TIFF, or of Imagine, that names no others."""
    with open(path, "rb") as file:
        start = file.read(len(IMAGINE))
    if not start.startswith((*TIFF, IMAGINE)):
        raise ImageError(
            f"{path}, which would be read with the raster beside it, is no TIFF; move it away, or pass --allow-remote "
            "(allow_remote=True) if you trust its maker"
        )
    open_dataset(path).close()


def _refuse_others(dataset: Any, path: Path) -> None:
    """Raise ImageError where the file, now open, has GDAL read others: nothing else was asked of it before, since even
    the list of its files has its overviews opened. To GDAL capitals are as small letters in domains and keys."""
    for domain in dataset.tag_namespaces():
        if domain.lower() == "overviews" and any(
            key.strip().lower().startswith("overview_file") for key in dataset.tags(ns=domain)
        ):
            raise ImageError(f"{path} names another file for its overviews, {ELSEWHERE}")
    folder = os.path.abspath(path.parent)
    for file in dataset.files:
        if os.path.dirname(os.path.abspath(file)) != folder:
            raise ImageError(f"{path} has {file} read, {ELSEWHERE}")


@contextmanager
def told(says: str) -> Iterator[None]:
    """What GDAL finds wrong is an ImageError that begins so, and its warnings are no lines on standard error. rasterio
    lets some of GDAL's own errors through."""
    import rasterio
    from rasterio._err import CPLE_BaseError
    from rasterio.errors import RasterioError

    try:
        with rasterio.Env():
            yield
    except (RasterioError, CPLE_BaseError) as error:
        raise ImageError(f"{says} ({first_line(error).rstrip('.')})") from error


@contextmanager
def quiet() -> Iterator[None]:
    """rasterio warns of every raster that does not say where it lies."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield

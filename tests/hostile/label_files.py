"""Label maps, read with `read_labels`."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator

import numpy as np
from PIL import Image

from hostile.cases import Case, Place, Refused, Right, encoded, equals, flat, npy, png
from hostile.pictures import bomb, next_page, npy_with
from hostile.rasters import geotiff, huge, vrt
from pixelwise.errors import ImageError, InputError

MAP = np.arange(192, dtype=np.uint8).reshape(12, 16) % 4

NOISE = np.random.default_rng(0).integers(0, 4, (60, 80), np.uint8)


def read(name: str) -> Callable[[Place], np.ndarray]:
    def do(place: Place) -> np.ndarray:
        from pixelwise.outputs.reading import read_labels
        from tiny import COLORS

        return read_labels(name, COLORS)

    return do


def _cases() -> Iterator[Case]:
    def one(name: str, file: str, make: Callable[[Place], bytes | str], right: Right | None = None) -> Case:
        right = right or Refused(file.replace(".", r"\."), InputError)
        return Case(name, lambda place: place.write(file, make(place)), read(file), right)

    right = equals(MAP)
    yield one("ids", "x.png", lambda p: encoded(MAP, "PNG"), right)
    yield one(
        "ids of 16 bits",
        "x.png",
        lambda p: encoded(MAP.astype(np.uint16) + 1000, "PNG"),
        equals(MAP.astype(int) + 1000),
    )
    yield one("indices of a palette", "x.png", lambda p: encoded(_palette(), "PNG"), right)
    yield one("an array in the order of Fortran", "x.npy", lambda p: npy(np.asfortranarray(MAP)), right)
    yield one("an array of another byte order", "x.npy", lambda p: npy(MAP.astype(">u2")), right)
    yield one("a GeoTIFF", "x.tif", lambda p: geotiff(MAP[None]), right)
    yield one("nothing in it", "x.png", lambda p: b"", Refused("empty", ImageError))
    yield one("colours", "x.png", lambda p: encoded(flat((255, 0, 0)), "PNG"), Refused(r"x\.png.*label map"))
    yield one("real numbers", "x.npy", lambda p: npy(MAP / 3), Refused(r"x\.npy.*float64"))
    yield one(
        "a volume", "x.npy", lambda p: npy(np.zeros((2, 3, 4), np.uint8)), Refused(r"x\.npy.*\(2, 3, 4\)")
    )
    yield one(
        "a pickle",
        "x.npy",
        lambda p: npy(np.array([[{}]], object)),
        Refused("holds Python objects, which are not"),
    )
    yield one(
        "a header that is a program", "x.npy", lambda p: npy_with("__import__('os').system('touch came')")
    )
    yield one("a header of brackets", "x.npy", lambda p: npy_with("(" * 100))
    yield one("a header that ends in a string", "x.npy", lambda p: npy_with("{'descr': '|u1', 'shape': ('"))
    yield one(
        "a header without an end",
        "x.npy",
        lambda p: b"\x93NUMPY\x02\x00" + struct.pack("<I", 2**32 - 1) + b"{",
    )
    yield one(
        "a shape of a terabyte",
        "x.npy",
        lambda p: npy_with("{'descr': '|u1', 'fortran_order': False, 'shape': (1000000, 1000000), }"),
    )
    yield one(
        "a negative shape",
        "x.npy",
        lambda p: npy_with("{'descr': '|u1', 'fortran_order': False, 'shape': (-1, 5), }"),
    )
    yield one("an unknown version", "x.npy", lambda p: b"\x93NUMPY\x09\x00" + bytes(100))
    yield one("cut short", "x.npy", lambda p: npy(MAP)[:-50])
    yield one("an archive of arrays", "x.npy", lambda p: b"PK\x03\x04" + bytes(100))
    yield one("a promise of 60000 x 60000 pixels", "x.png", lambda p: bomb())
    yield one("a bomb of 30000 x 30000 zeros", "x.png", lambda p: _zeros(30_000))
    yield one("a cut picture", "x.png", lambda p: encoded(NOISE, "PNG")[:900])
    yield one("a GeoTIFF without end", "x.tif", lambda p: huge(100_000, 1))
    yield one("pages in a circle", "x.tif", lambda p: next_page(), equals(MAP * 0 + 255))
    yield one("a list of files called a GeoTIFF", "x.tif", lambda p: vrt(f"{p.outside}/secret.png"))
    yield one(
        "a list of addresses called a GeoTIFF", "x.tif", lambda p: vrt(f"/vsicurl/http://{p.address}/x.tif")
    )
    yield one("another kind of file", "x.docx", lambda p: b"PK", Refused(r"x\.docx.*\.npy"))


def _palette() -> Image.Image:
    image = Image.fromarray(MAP)
    image.putpalette([0, 0, 0, 255, 0, 0, 0, 255, 0, 0, 0, 255])
    return image


def _zeros(side: int) -> bytes:
    """Of zeros, of which a megabyte takes a kilobyte."""
    return png(struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0), bytes((side // 8 + 1) * side))


CASES = list(_cases())

"""Pictures, read by path and by their bytes."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable, Iterator

import numpy as np
from PIL import Image

from hostile.cases import (
    Case,
    Place,
    Refused,
    chunk,
    encoded,
    equals,
    flat,
    flipped,
    npy,
    png,
)  # fmt: skip
from pixelwise.errors import ImageError

RED, GREEN, BLUE, WHITE, DARK = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255), (0, 0, 0)
SIZE = (12, 16)


def bomb(width: int = 60_000, height: int = 60_000) -> bytes:
    """A PNG of 69 bytes whose header promises far more."""
    return png(struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0), b"\0" * 9)


def palette_with_alpha() -> bytes:
    """Left half opaque red, right half a palette entry that is half transparent blue."""
    image = Image.fromarray(np.repeat([[0] * 8 + [1] * 8], 12, axis=0).astype(np.uint8))
    image.putpalette([*RED, *BLUE])
    return encoded(image, "PNG", transparency=bytes([255, 128]))


def rotated() -> bytes:
    """A camera held sideways: stored with red on top, to be shown with red on the right."""
    exif = Image.Exif()
    exif[0x0112] = 6
    stored = np.concatenate([flat(RED, (8, 12)), flat(BLUE, (8, 12))])
    return encoded(stored, "JPEG", exif=exif, quality=98, subsampling=0)


def bad_exif() -> bytes:
    """The EXIF block ends in the middle of its table."""
    exif = Image.Exif()
    exif[0x0112] = 1
    return encoded(flat(RED), "JPEG", exif=exif.tobytes()[:-8] + b"\xff" * 8, quality=98)


def animation(kind: str, **options: object) -> bytes:
    frames = [Image.fromarray(flat(color)) for color in (RED, GREEN, BLUE)]
    return encoded(frames[0], kind, save_all=True, append_images=frames[1:], **options)


def nan_tiff() -> bytes:
    values = np.full(SIZE, 0.5, np.float32)
    values[3, 4] = np.nan
    return encoded(values, "TIFF")


def sixteen_bit_rgb_png() -> bytes:
    """Pillow reads such files but does not write them: 12 x 16 pixels of (65535, 0, 0)."""
    rows = b"".join(b"\0" + struct.pack(">HHH", 65535, 0, 0) * 16 for _ in range(12))
    return png(struct.pack(">IIBBBBB", 16, 12, 16, 2, 0, 0, 0), rows)


def text_bomb() -> bytes:
    """A comment of a kilobyte that unpacks to a gigabyte's worth of nothing."""
    comment = b"Comment\0\0" + zlib.compress(b"\0" * 80_000_000, 9)
    rows = b"".join(b"\0" + bytes(RED) * 16 for _ in range(12))
    return png(struct.pack(">IIBBBBB", 16, 12, 8, 2, 0, 0, 0), rows, chunk(b"zTXt", comment))


def profile_bomb() -> bytes:
    """A colour profile that unpacks to 80 MB."""
    profile = b"icc\0\0" + zlib.compress(b"\0" * 80_000_000, 9)
    rows = b"".join(b"\0" + bytes(RED) * 16 for _ in range(12))
    return png(struct.pack(">IIBBBBB", 16, 12, 8, 2, 0, 0, 0), rows, chunk(b"iCCP", profile))


def next_page(place: int = 0) -> bytes:
    """A TIFF whose first directory says that the next one lies at `place`; 0: that it is itself."""
    data = bytearray(encoded(flat(RED), "TIFF"))
    (first,) = struct.unpack_from("<I", data, 4)
    (count,) = struct.unpack_from("<H", data, first)
    struct.pack_into("<I", data, first + 2 + 12 * count, place or first)
    return bytes(data)


def tiff_with(tag: int, value: int) -> bytes:
    """A grey TIFF whose directory has another value under a tag."""
    data = bytearray(encoded(np.zeros(SIZE, np.uint8), "TIFF"))
    (first,) = struct.unpack_from("<I", data, 4)
    (count,) = struct.unpack_from("<H", data, first)
    for i in range(count):
        at = first + 2 + 12 * i
        if struct.unpack_from("<H", data, at)[0] == tag:
            struct.pack_into("<HII", data, at + 2, 4, 1, value)
    return bytes(data)


def npy_with(header: str) -> bytes:
    text = header.encode() + b" " * (117 - len(header)) + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text


half_blue = np.concatenate([flat(RED, (12, 8)), flat((127, 127, 255), (12, 8))], axis=1)
left_blue = np.concatenate([flat(BLUE, (12, 8)), flat(RED, (12, 8))], axis=1)
grey = np.arange(192, dtype=np.uint8).reshape(SIZE)

RIGHT: dict[str, tuple[Callable[[], bytes], np.ndarray, int]] = {
    # name: what makes the file, what must be read, how far off JPEG may be
    "cmyk.jpg": (lambda: encoded(Image.new("CMYK", (16, 12), (0, 255, 255, 0)), "JPEG"), flat(RED), 30),
    "sixteen.png": (
        lambda: encoded(grey.astype(np.uint16) * 257, "PNG"),
        np.dstack([np.clip(np.round((grey - 0.955) * 255 / 189.09), 0, 255).astype(np.uint8)] * 3), 0,
    ),
    "sixteen_rgb.png": (sixteen_bit_rgb_png, flat(RED), 0),
    "palette_alpha.png": (palette_with_alpha, half_blue, 1),
    "rotated.jpg": (rotated, left_blue, 6),
    "bad_exif.jpg": (bad_exif, flat(RED), 6),
    "moving_gif.gif": (lambda: animation("GIF"), flat(RED), 0),
    "moving_png.png": (lambda: animation("PNG"), flat(RED), 0),
    "moving_webp.webp": (lambda: animation("WEBP", lossless=True), flat(RED), 0),
    "pages.tif": (lambda: animation("TIFF"), flat(RED), 0),
    "two_views.jpg": (lambda: animation("MPO", quality=98), flat(RED), 6),
    "really_a_png.jpg": (lambda: encoded(flat(GREEN), "PNG"), flat(GREEN), 0),
    "really_a_tiff.png": (lambda: encoded(flat(BLUE), "TIFF"), flat(BLUE), 0),
    "really_numpy.png": (lambda: npy(flat(BLUE)), flat(BLUE), 0),
    "one_pixel.png": (lambda: encoded(flat(BLUE, (1, 1)), "PNG"), flat(BLUE, (1, 1)), 0),
    "wide.png": (lambda: encoded(flat(GREEN, (1, 50_000)), "PNG"), flat(GREEN, (1, 50_000)), 0),
    "high.png": (lambda: encoded(flat(GREEN, (50_000, 1)), "PNG"), flat(GREEN, (50_000, 1)), 0),
    "grey_alpha.png": (
        lambda: encoded(Image.merge("LA", [Image.new("L", (16, 12), v) for v in (0, 255)]), "PNG"), flat(DARK), 0,
    ),
    "one_bit.png": (lambda: encoded(Image.new("1", (16, 12), 1), "PNG"), flat(WHITE), 0),
    "float.tif": (lambda: encoded(np.full(SIZE, 1, np.float32), "TIFF"), flat(DARK), 0),
    "hdr.tif": (lambda: encoded(np.full(SIZE, 4000, np.float32), "TIFF"), flat(DARK), 0),
    "below_zero.tif": (lambda: encoded(-grey.astype(np.float32), "TIFF"),
                       np.dstack([np.clip(np.round((190.045 - grey) * 255 / 189.09), 0, 255).astype(np.uint8)] * 3), 0),
    "largest.tif": (lambda: encoded(np.where(grey > 99, np.float32(3e38), np.float32(-3e38)), "TIFF"),
                    np.dstack([np.where(grey > 99, 255, 0).astype(np.uint8)] * 3), 0),
    "junk_behind.png": (lambda: encoded(flat(RED), "PNG") + b"\0" * 5000, flat(RED), 0),
    "circle_of_pages.tif": (next_page, flat(RED), 0),
    "next_page_beyond_the_end.tif": (lambda: next_page(0x7FFFFFFF), flat(RED), 0),
}  # fmt: skip

WRONG: dict[str, tuple[Callable[[], bytes], str]] = {
    # name: what makes the file, what the sentence says
    "cut.jpg": (lambda: encoded(flat(RED, (200, 200)), "JPEG")[:700], "cut short"),
    "cut_png.png": (lambda: encoded(np.random.default_rng(0).integers(0, 255, (40, 40, 3), np.uint8), "PNG")[:900],
                "cut short"),
    "header_only.png": (lambda: encoded(flat(RED), "PNG")[:33], "not a picture|cut short"),
    "bomb.png": (bomb, "limit"),
    "bomb_gif.gif": (lambda: b"GIF89a" + struct.pack("<HH", 65535, 65535) + b"\0\0\0,\0\0\0\0\xff\xff\xff\xff\0\2\0;",
                 "limit"),
    "empty.png": (lambda: b"", "empty"),
    "text.png": (lambda: b"not a picture at all\n", "not a picture"),
    "page.jpg": (lambda: b"<!DOCTYPE html><title>404</title>", "not a picture"),
    "program.png": (lambda: b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n", "a drawing of lines"),
    "nan.tif": (nan_tiff, "NaN"),
    "pickle.png": (lambda: npy(np.array([{"a": 1}], dtype=object)), "holds Python objects, which are not read"),
    "volume.png": (lambda: npy(np.zeros((4, 5, 6, 3), np.uint8)), "one picture"),
    "no_pixels.npy": (lambda: npy(np.zeros((0, 5, 3), np.uint8)), "no pixels"),
    "words.npy": (lambda: npy(np.full(SIZE, "a")), "is|holds"),
    "a_terabyte.npy": (lambda: npy_with("{'descr': '|u1', 'fortran_order': False, 'shape': (1000000, 1000000), }"),
                       "damaged|limit|memory|cut short"),
    "broken_header.npy": (lambda: npy_with("{'descr': '|u1', 'fortran_order': False, 'shape': (((((((3, }"), "damaged"),
    "times.npy": (lambda: npy(np.zeros(SIZE, "datetime64[s]")), "is|holds"),
    "no_width.bmp": (lambda: encoded(flat(RED), "BMP")[:18] + bytes(4) + encoded(flat(RED), "BMP")[22:],
                     "is|holds"),
    "checksum.png": (lambda: flipped(encoded(flat(RED), "PNG"), 20), "is|holds"),
    "negative_offset.tif": (lambda: tiff_with(273, 0xFFFFFFFF), "is|holds"),
    "wide_strip.tif": (lambda: tiff_with(256, 0x7FFFFFFF), "limit"),
    "many_bits.tif": (lambda: tiff_with(258, 77), "is|holds"),
    "unknown_compression.tif": (lambda: tiff_with(259, 4242), "is|holds"),
    "no_quantisation.jpg": (lambda: encoded(flat(RED), "JPEG").replace(b"\xff\xdb", b"\xff\xfe"),
                            "is|holds"),
    "riff_without_picture.webp": (lambda: b"RIFF\x04\0\0\0WEBP", "is|holds"),
    "ppm_of_a_billion.ppm": (lambda: b"P6 100000 100000 255\n\0\0\0", "limit"),
    "text_of_80_megabytes.png": (text_bomb, "damaged"),
    "profile_of_80_megabytes.png": (profile_bomb, "damaged"),
    "ico_in_itself.ico": (lambda: b"\0\0\1\0\1\0\0\0\0\0\1\0\x20\0\x16\0\0\0\0\0\0\0", "is|holds"),
}  # fmt: skip


def read(name: str) -> Callable[[Place], np.ndarray]:
    """By path, and by the bytes: both must give the same."""

    def do(place: Place) -> np.ndarray:
        from pixelwise import images

        by_path = images.read(name)
        np.testing.assert_array_equal(images.read((place.folder / name).read_bytes()), by_path)
        return by_path

    return do


def _cases() -> Iterator[Case]:
    for name, (make, expected, tolerance) in RIGHT.items():
        yield Case(
            name, lambda place, n=name, m=make: place.write(n, m()), read(name), equals(expected, tolerance)
        )
    for name, (make, says) in WRONG.items():
        yield Case(
            name, lambda place, n=name, m=make: place.write(n, m()), read(name),
            Refused(rf"{name}.*({says})", ImageError),
        )  # fmt: skip


CASES = list(_cases())

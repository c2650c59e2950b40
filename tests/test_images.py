"""images.read: every kind of picture gives the right pixels, every bad one a sentence."""

from __future__ import annotations

import io
import subprocess
import sys
import zipfile

import numpy as np
import pytest
from PIL import Image

from pixelwise import images
from pixelwise.errors import ImageError


def encoded(image: Image.Image, kind: str, **options) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF", "WEBP", "PPM"])
def test_lossless_formats_read_back_exactly(kind, picture, tmp_path):
    path = tmp_path / "picture"
    Image.fromarray(picture).save(path, kind, **({"lossless": True} if kind == "WEBP" else {}))
    for source in (path, str(path), path.read_bytes()):
        np.testing.assert_array_equal(images.read(source), picture)


def test_jpeg_is_close(picture):
    read = images.read(encoded(Image.fromarray(picture), "JPEG", quality=98, subsampling=0))
    assert np.abs(read.astype(int) - picture).mean() < 2


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(orientation, picture):
    undo = {1: 0, 2: "flip", 3: 2, 4: "flipud", 5: "t", 6: 1, 7: "tt", 8: 3}[orientation]
    stored = {
        0: lambda a: a,
        "flip": lambda a: a[:, ::-1],
        2: lambda a: a[::-1, ::-1],
        "flipud": lambda a: a[::-1],
        "t": lambda a: a.transpose(1, 0, 2),
        1: lambda a: np.rot90(a, 1),
        "tt": lambda a: a[::-1, ::-1].transpose(1, 0, 2),
        3: lambda a: np.rot90(a, -1),
    }[undo](picture)
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encoded(Image.fromarray(np.ascontiguousarray(stored)), "PNG", exif=exif)
    np.testing.assert_array_equal(images.read(data), picture)


def test_a_picture_in_memory_stays_as_the_caller_has_it(picture):
    image = Image.fromarray(picture)
    image.getexif()[0x0112] = 6
    np.testing.assert_array_equal(images.read(image), np.rot90(picture, -1))
    assert image.getexif()[0x0112] == 6
    np.testing.assert_array_equal(np.asarray(image), picture)


def test_transparency_is_laid_over_white(picture):
    alpha = np.zeros(picture.shape[:2], np.uint8)
    alpha[:, :45] = 255
    read = images.read(encoded(Image.fromarray(np.dstack([picture, alpha])), "PNG"))
    np.testing.assert_array_equal(read[:, :45], picture[:, :45])
    assert (read[:, 45:] == 255).all()
    np.testing.assert_array_equal(images.read(np.dstack([picture, alpha])), read)


def test_palette_grey_and_one_bit_pictures():
    grey = np.arange(256, dtype=np.uint8).reshape(16, 16)
    as_rgb = np.repeat(grey[..., None], 3, axis=2)
    np.testing.assert_array_equal(images.read(encoded(Image.fromarray(grey), "PNG")), as_rgb)
    palette = Image.fromarray(grey).convert("P")
    np.testing.assert_array_equal(images.read(encoded(palette, "PNG")), as_rgb)
    bits = images.read(encoded(Image.fromarray(grey > 100), "PNG"))
    np.testing.assert_array_equal(bits[..., 0], np.where(grey > 100, 255, 0))


def test_a_transparent_palette_entry_becomes_white():
    image = Image.fromarray(np.array([[0, 1]], np.uint8))
    image.putpalette([10, 20, 30, 40, 50, 60])
    read = images.read(encoded(image, "PNG", transparency=1))
    assert read.tolist() == [[[10, 20, 30], [255, 255, 255]]]


def test_cmyk_is_converted():
    cmyk = Image.new("CMYK", (4, 4), (255, 0, 0, 0))  # full cyan
    red, green, blue = images.read(encoded(cmyk, "TIFF"))[0, 0]
    assert red < 60
    assert min(green, blue) > 150


def test_arrays_of_other_types(picture):
    np.testing.assert_array_equal(images.read(picture), picture)
    np.testing.assert_array_equal(images.read(picture / 255), picture)
    np.testing.assert_array_equal(images.read(picture[..., 0])[..., 2], picture[..., 0])


@pytest.mark.parametrize(
    ("array", "says"),
    [
        (np.zeros((3, 8, 9), np.uint8), "channels last"),
        (np.zeros((8, 9, 2), np.uint8), "shape"),
        (np.zeros((8, 9, 3), np.int64), "int64"),
        (np.full((8, 9, 3), 3.0), r"\[0, 1\]"),
        (np.full((8, 9, 3), np.nan), "NaN"),
        (np.zeros((0, 9, 3), np.uint8), "no pixels"),
    ],
)
def test_arrays_that_cannot_be_pictures(array, says):
    with pytest.raises(ImageError, match=says):
        images.read(array)


def test_bad_files_get_one_sentence(tmp_path, picture):
    whole = encoded(Image.fromarray(picture), "JPEG")
    cases = {
        "no such file": tmp_path / "missing.jpg",
        "is empty": tmp_path / "empty.jpg",
        "cut short": tmp_path / "cut.jpg",
        "not a picture": tmp_path / "text.jpg",
        "is a folder": tmp_path,
    }
    (tmp_path / "empty.jpg").touch()
    (tmp_path / "cut.jpg").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "text.jpg").write_text("hello")
    for says, path in cases.items():
        with pytest.raises(ImageError, match=says) as caught:
            images.read(path)
        assert str(path) in str(caught.value)


@pytest.mark.parametrize("keep", [0.02, 0.1, 0.5, 0.9])
@pytest.mark.parametrize("kind", ["PNG", "JPEG", "TIFF", "WEBP", "BMP", "GIF"])
def test_no_truncation_escapes_as_another_error(kind, keep, picture):
    whole = encoded(Image.fromarray(picture), kind)
    with pytest.raises(ImageError):
        images.read(whole[: int(len(whole) * keep)])


def test_a_photo_is_opened_without_the_decoders_of_other_kinds(tmp_path, picture):
    """Pillow imports all of them, half a hundred modules, where it is asked for one that it has not yet."""
    for kind in ("JPEG", "PNG"):
        Image.fromarray(picture).save(tmp_path / f"photo.{kind}", kind)
    code = (
        "import sys\nfrom pixelwise import images\nfor path in sys.argv[1:]: images.read(path)\n"
        "print(*(name for name in sys.modules if name.startswith('PIL.') and name.endswith('Plugin')))"
    )
    paths = [tmp_path / "photo.JPEG", tmp_path / "photo.PNG"]
    done = subprocess.run([sys.executable, "-c", code, *paths], capture_output=True, text=True, check=True)
    assert "PIL.JpegImagePlugin" in done.stdout.split()
    assert "PIL.DdsImagePlugin" not in done.stdout.split()


@pytest.mark.parametrize("start", [b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n"])
def test_what_only_begins_like_a_photo_is_none(start):
    with pytest.raises(ImageError, match=r"is not a picture|is damaged or cut short"):
        images.read(start + b"and then something else" * 9)


def test_a_decompression_bomb_is_refused_before_decoding():
    bomb = encoded(Image.new("1", (30_000, 30_000)), "PNG")
    assert len(bomb) < 1_000_000
    with pytest.raises(ImageError, match="limit"):
        images.read(bomb)


def test_the_pixel_limit_is_the_callers(picture):
    with pytest.raises(ImageError, match="5,400"):
        images.read(encoded(Image.fromarray(picture), "PNG"), max_pixels=5_399)
    assert images.read(encoded(Image.fromarray(picture), "PNG"), max_pixels=5_400).shape == picture.shape


def test_find_walks_folders_and_patterns(tmp_path):
    for name in ("b.JPG", "a.png", "sub/c.webp", "notes.txt", ".hidden/d.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    below = [str(name) for _, name in images.find([tmp_path])]
    assert below == ["a.png", "b.JPG", "sub/c.webp"]
    assert [p.name for p, _ in images.find([str(tmp_path / "*.png"), tmp_path / "a.png"])] == ["a.png"]
    for nothing in (tmp_path / "*.bmp", tmp_path / "none"):
        with pytest.raises(ImageError):
            images.find([nothing])


class Pipe(io.RawIOBase):
    """A file that cannot go back."""

    def __init__(self, data: bytes) -> None:
        self._file = io.BytesIO(data)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer) -> int:
        return self._file.readinto(buffer)


def test_open_files_are_read_from_where_they_stand(picture, tmp_path):
    data = encoded(Image.fromarray(picture), "PNG")
    (tmp_path / "a.png").write_bytes(data)
    with open(tmp_path / "a.png", "rb") as file:
        np.testing.assert_array_equal(images.read(file), picture)
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("a.png", data)
    with zipfile.ZipFile(tmp_path / "a.zip") as archive, archive.open("a.png") as member:
        np.testing.assert_array_equal(images.read(member), picture)
    later = io.BytesIO(b"head" + data)
    later.seek(4)
    np.testing.assert_array_equal(images.read(later), picture)
    assert not Pipe(data).seekable()
    np.testing.assert_array_equal(images.read(Pipe(data)), picture)
    file = io.BytesIO()
    np.save(file, picture)
    file.seek(0)
    np.testing.assert_array_equal(images.read(file), picture)


def test_open_files_that_hold_no_picture(picture, tmp_path):
    (tmp_path / "a.png").write_bytes(encoded(Image.fromarray(picture), "PNG"))
    (tmp_path / "b.txt").write_text("words")
    for name in ("a.png", "b.txt"):
        with (
            open(tmp_path / name, encoding="utf-8") as file,
            pytest.raises(ImageError, match="open it in binary mode"),
        ):
            images.read(file)
    with pytest.raises(ImageError, match="open it in binary mode"):
        images.read(io.StringIO("words"))
    with pytest.raises(ImageError, match=r"empty \(0 bytes\)"):
        images.read(io.BytesIO())
    with pytest.raises(ImageError, match="is not a picture"):
        images.read(io.BytesIO(b"something else"))
    closed = io.BytesIO(b"x")
    closed.close()
    with pytest.raises(ImageError, match="closed file"):
        images.read(closed)


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_the_limit_on_pixels_holds_for_arrays_too(channels):
    with pytest.raises(ImageError, match="99 pixels, more than the limit of 98"):
        images.read(np.zeros((9, 11, channels), np.uint8), channels=channels, max_pixels=98)
    assert images.read(np.zeros((9, 11, channels), np.uint8), channels=channels, max_pixels=99).shape == (
        9,
        11,
        channels,
    )

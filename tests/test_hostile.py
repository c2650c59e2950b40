"""Files as people have them: each gives the right pixels or one sentence, and a folder of them is got through."""

from __future__ import annotations

import io
import os
import struct
import subprocess
import sys
import threading
import zlib
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pixelwise import images
from pixelwise.errors import ImageError
from pixelwise.inference.preprocess import Preprocess
from tiny import CARD, write_colors_model

RED, GREEN, BLUE, WHITE, DARK = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255), (0, 0, 0)
SIZE = (12, 16)


def flat(color: tuple[int, int, int], size_hw: tuple[int, int] = SIZE) -> np.ndarray:
    return np.full((*size_hw, 3), color, np.uint8)


def encoded(image: Image.Image | np.ndarray, kind: str, **options: object) -> bytes:
    file = io.BytesIO()
    (image if isinstance(image, Image.Image) else Image.fromarray(image)).save(file, kind, **options)
    return file.getvalue()


def bomb() -> bytes:
    """A PNG of 69 bytes whose header promises 60000 x 60000 pixels."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(b"\0" * 9))
        + chunk(b"IEND", b"")
    )


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
    data = encoded(flat(RED), "JPEG", exif=exif.tobytes()[:-8] + b"\xff" * 8, quality=98)
    return data


def animation(kind: str, **options: object) -> bytes:
    frames = [Image.fromarray(flat(color)) for color in (RED, GREEN, BLUE)]
    return encoded(frames[0], kind, save_all=True, append_images=frames[1:], **options)


def nan_tiff() -> bytes:
    values = np.full(SIZE, 0.5, np.float32)
    values[3, 4] = np.nan
    return encoded(values, "TIFF")


def sixteen_bit_rgb_png() -> bytes:
    """Pillow reads such files but does not write them: 12 x 16 pixels of (65535, 0, 0)."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    rows = b"".join(b"\0" + struct.pack(">HHH", 65535, 0, 0) * 16 for _ in range(12))
    header = struct.pack(">IIBBBBB", 16, 12, 16, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(rows))
        + chunk(b"IEND", b"")
    )


def npy(values: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.save(file, values)
    return file.getvalue()


half_blue = np.concatenate([flat(RED, (12, 8)), flat((127, 127, 255), (12, 8))], axis=1)
left_blue = np.concatenate([flat(BLUE, (12, 8)), flat(RED, (12, 8))], axis=1)
grey = np.arange(192, dtype=np.uint8).reshape(SIZE)

RIGHT: dict[str, tuple[Callable[[], bytes], np.ndarray, int]] = {
    # name: what makes the file, what must be read, how far off JPEG may be
    "cmyk.jpg": (lambda: encoded(Image.new("CMYK", (16, 12), (0, 255, 255, 0)), "JPEG"), flat(RED), 30),
    "sixteen.png": (lambda: encoded(grey.astype(np.uint16) * 257, "PNG"), np.dstack([grey] * 3), 0),
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
    "float.tif": (lambda: encoded(np.full(SIZE, 1, np.float32), "TIFF"), flat(WHITE), 0),
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
    "program.png": (lambda: b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n", "not a picture"),
    "nan.tif": (nan_tiff, "NaN"),
    "hdr.tif": (lambda: encoded(np.full(SIZE, 4000, np.float32), "TIFF"), "4000"),
    "below_zero.tif": (lambda: encoded(np.full(SIZE, -3, np.float32), "TIFF"), "-3"),
    "pickle.png": (lambda: npy(np.array([{"a": 1}], dtype=object)), "allow_pickle"),
    "volume.png": (lambda: npy(np.zeros((4, 5, 6, 3), np.uint8)), "one picture"),
}  # fmt: skip


@pytest.mark.parametrize("name", RIGHT)
def test_odd_files_give_the_right_pixels(name, tmp_path):
    make, expected, tolerance = RIGHT[name]
    path = tmp_path / name
    path.write_bytes(make())
    for source in (path, path.read_bytes()):
        read = images.read(source)
        assert read.shape == expected.shape
        assert np.abs(read.astype(int) - expected).max() <= tolerance


@pytest.mark.parametrize("name", WRONG)
def test_bad_files_give_one_sentence_with_their_name(name, tmp_path):
    make, says = WRONG[name]
    path = tmp_path / name
    path.write_bytes(make())
    with pytest.raises(ImageError, match=says) as caught:
        images.read(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_links_that_lead_nowhere_folders_and_impossible_names_are_named(tmp_path):
    loop, dangling, folder = tmp_path / "loop.png", tmp_path / "dangling.png", tmp_path / "folder.png"
    loop.symlink_to(loop)
    dangling.symlink_to("nothing")
    folder.mkdir()
    for path, says in {
        loop: "leads nowhere",
        dangling: "leads nowhere",
        folder: "is a folder",
        tmp_path / ("x" * 300): "cannot read",
        tmp_path / "a\0b.png": "no such file|cannot read",
    }.items():
        with pytest.raises(ImageError, match=says):
            images.read(path)


def test_a_file_without_permission_is_named(tmp_path, monkeypatch):
    """The refusal is played, because root may read everything."""
    path = tmp_path / "mine.png"
    path.write_bytes(encoded(flat(RED), "PNG"))

    def refuse(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("builtins.open", refuse)
    with pytest.raises(ImageError, match=r"no permission to read .*mine\.png"):
        images.read(path)


def test_a_device_that_fails_in_the_middle_is_named(tmp_path, monkeypatch):
    path = tmp_path / "worn.png"
    path.write_bytes(encoded(flat(RED), "PNG"))

    class Worn(io.BytesIO):
        def read(self, *_: object) -> bytes:
            raise OSError(5, "Input/output error")

    monkeypatch.setattr("builtins.open", lambda *_: Worn())
    with pytest.raises(ImageError, match=r"worn\.png .*Input/output error"):
        images.read(path)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_a_pipe_is_read_to_its_end(tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    source = tmp_path / "source.png"
    source.write_bytes(encoded(flat(GREEN), "PNG"))
    writer = threading.Thread(target=lambda: pipe.write_bytes(source.read_bytes()))
    writer.start()
    np.testing.assert_array_equal(images.read(pipe), flat(GREEN))
    writer.join()


def test_the_callers_limit_may_be_above_pillows(monkeypatch):
    """With a low limit of Pillow's own, as it is for a picture of 200 million pixels."""
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 50)
    data = encoded(flat(RED), "PNG")
    assert images.read(data, max_pixels=192).shape == (12, 16, 3)
    assert Image.MAX_IMAGE_PIXELS == 50
    with pytest.raises(ImageError, match="limit of 100"):
        images.read(data, max_pixels=100)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "TIFF", "GIF", "WEBP", "BMP", "PPM", "JPEG2000", "AVIF"])
def test_no_flipped_byte_escapes_as_another_error(kind):
    y, x = np.mgrid[:20, :30]
    whole = encoded(np.stack([x * 8, y * 12, x * y % 256], axis=-1).astype(np.uint8), kind)
    rng = np.random.default_rng(0)
    for _ in range(60):
        data = bytearray(whole)
        for at in rng.integers(0, min(len(data), int(rng.choice([40, 10_000]))), rng.integers(1, 6)):
            data[at] = rng.choice([0, 255, rng.integers(0, 256)])
        with suppress(ImageError):
            assert images.read(bytes(data)).dtype == np.uint8


@pytest.mark.parametrize("size_hw", [(1, 50_000), (50_000, 1)])
def test_a_line_is_not_enlarged_until_memory_ends(size_hw):
    """By its shorter side it would become 520 x 26,000,000."""
    with pytest.raises(ImageError, match=r"26000000.*--tile"):
        Preprocess(size=520)(flat(RED, size_hw))
    assert Preprocess(size=520, side="longer")(flat(RED, size_hw)).size == 3 * 520


@pytest.fixture(scope="module")
def even_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The colours model for any size: pictures are first brought to even sides."""
    card = CARD.replace(preprocess=Preprocess(mean=(0, 0, 0), std=(1, 1, 1), multiple=2))
    return write_colors_model(tmp_path_factory.mktemp("models") / "even.onnx", card)


def test_a_folder_of_all_of_them_is_got_through(even_model, tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    for name, (make, *_) in {**RIGHT, **WRONG}.items():
        (folder / name).write_bytes(make())
    (folder / "loop.png").symlink_to(folder / "loop.png")
    (folder / "up").symlink_to(folder)
    (folder / "folder.png").mkdir()
    (folder / "folder.png" / "inside.png").write_bytes(encoded(flat(BLUE), "PNG"))
    odd = b"na\xefve.png" if sys.platform == "linux" else b"naive.png"
    Path(os.fsdecode(os.fsencode(folder) + b"/" + odd)).write_bytes(encoded(flat(GREEN), "PNG"))
    run = ["segment", "in", "--model", str(even_model), "--out", "out", "--format", "ids,npy"]
    strict = {**os.environ, "PYTHONIOENCODING": "utf-8:strict"}  # as on a terminal in most languages
    result = subprocess.run(
        [sys.executable, "-m", "pixelwise", *run], capture_output=True, cwd=tmp_path, env=strict
    )
    errors = result.stderr.decode(errors="replace").splitlines()
    assert result.returncode == 2, errors
    bad = {*WRONG, "loop.png"}
    assert len(errors) == len(bad) + 1
    for name in bad:
        assert sum(f"in/{name}" in line for line in errors) == 1, name
    assert errors[-1].endswith(f"{len(bad)} of {len(bad) + len(RIGHT) + 2} pictures failed, listed above")
    assert len(result.stdout.splitlines()) == len(RIGHT) + 2
    answers = {p.name.removesuffix(".npy"): np.load(p) for p in (tmp_path / "out").glob("*.npy")}
    assert len(answers) == len(RIGHT) + 1
    assert (answers["one_pixel"] == 3).all()
    assert answers["wide"].shape == (1, 50_000)
    assert (answers["wide"] == 2).all()
    assert (answers["rotated"][:, :7] == 3).all()
    assert (answers["rotated"][:, 9:] == 1).all()
    assert (answers["cmyk"] == 1).all()
    assert (np.load(tmp_path / "out" / "folder.png" / "inside.npy") == 3).all()

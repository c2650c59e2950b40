"""PNG files as they are written: Pillow reads the same pixels, and they are little larger than Pillow's own."""

from __future__ import annotations

import io
import zlib

import numpy as np
import pytest
from PIL import Image
from skimage import data

from pixelwise.draw import overlay
from pixelwise.labels import VOC, LabelSet
from pixelwise.outputs import png
from pixelwise.outputs.formats import FORMATS
from pixelwise.segmentation import Segmentation

RNG = np.random.default_rng(0)


def encoded(picture, **how):
    return b"".join(png.encode(picture, **how))


def opened(content):
    image = Image.open(io.BytesIO(content))
    image.load()
    return image


@pytest.mark.parametrize("flat", [False, True])
@pytest.mark.parametrize("size_hw", [(1, 1), (1, 9), (7, 1), (5, 13), (700, 200), (2, 300_001)])
@pytest.mark.parametrize(
    ("dtype", "channels", "mode"),
    [("bool", 0, "1"), ("uint8", 0, "L"), ("uint16", 0, "I;16"), ("uint8", 3, "RGB"), ("uint8", 4, "RGBA")],
)
def test_pillow_reads_back_every_kind_of_picture(dtype, channels, mode, size_hw, flat):
    shape = (*size_hw, channels) if channels else size_hw
    picture = RNG.integers(0, 2 if dtype == "bool" else np.iinfo(dtype).max, shape).astype(dtype)
    image = opened(encoded(picture, flat=flat))
    assert image.mode == mode
    np.testing.assert_array_equal(np.asarray(image), picture)


def test_a_view_of_a_picture_is_written_as_it_looks():
    picture = RNG.integers(0, 256, (40, 60, 3), np.uint8)
    for view in (picture[::2], picture[:, ::-1], picture.transpose(1, 0, 2), picture[..., ::-1]):
        np.testing.assert_array_equal(np.asarray(opened(encoded(view))), view)


def test_a_palette_gives_each_id_its_colour():
    colors = RNG.integers(0, 256, (256, 3), np.uint8)
    labels = RNG.integers(0, 256, (30, 50), np.uint8)
    image = opened(encoded(labels, flat=True, palette=colors.tobytes()))
    np.testing.assert_array_equal(np.asarray(image), labels)
    np.testing.assert_array_equal(np.asarray(image.convert("RGB")), colors[labels])


def test_each_part_has_its_length_and_check_sum():
    content = encoded(RNG.integers(0, 256, (300, 500, 3), np.uint8))  # several bands
    at, names = 8, []
    while at < len(content):
        length = int.from_bytes(content[at : at + 4], "big")
        name, body = content[at + 4 : at + 8], content[at + 8 : at + 8 + length]
        assert int.from_bytes(content[at + 8 + length : at + 12 + length], "big") == zlib.crc32(name + body)
        names.append(name)
        at += 12 + length
    assert (names[0], {*names[1:-1]}, names[-1]) == (b"IHDR", {b"IDAT"}, b"IEND")


PHOTOS = {"cat": data.chelsea, "cup": data.coffee, "person": data.astronaut}


@pytest.mark.parametrize("without", [False, True], ids=["ISA-L", "zlib"])
@pytest.mark.parametrize("photo", PHOTOS)
def test_an_overlay_is_at_most_1_3_times_as_large_as_pillows(photo, without, monkeypatch):
    if without:  # as on a processor for which there is no wheel
        monkeypatch.setattr(png, "fast", zlib)
    image = PHOTOS[photo]()
    y, x = np.indices(image.shape[:2])
    labels = (((x - 200) ** 2 + (y - 150) ** 2 < 120**2) * 8 + (y > 250) * 12).astype(np.uint8)
    drawn = overlay(image, labels, VOC)
    content, file = encoded(drawn), io.BytesIO()
    Image.fromarray(drawn).save(file, "PNG", compress_level=1)
    np.testing.assert_array_equal(np.asarray(opened(content)), drawn)
    assert len(content) < 1.3 * len(file.getvalue())
    ids, palette = encoded(labels, flat=True, palette=bytes(768)), Image.fromarray(labels)
    palette.putpalette(bytes(768))
    file = io.BytesIO()
    palette.save(file, "PNG")
    assert len(ids) < 1.3 * len(file.getvalue())


def test_every_format_that_is_a_picture_holds_the_same_pixels_as_the_drawing(tmp_path):
    image = data.chelsea()[:90, :120]
    labels = np.zeros((90, 120), np.uint8)
    labels[20:60, 30:80] = 8
    found = Segmentation(labels, VOC, image, confidence=np.full((90, 120), 0.5, np.float32))
    drawn = {
        "labels": labels,
        "ids": labels,
        "overlay": found.overlay(),
        "side-by-side": found.side_by_side(),
        "contours": found.contours(),
        "cutout": found.cutout(),
        "legend": found.legend(),
        "confidence": np.full((90, 120), 128, np.uint8),
    }
    assert {*drawn} == {name for name, format in FORMATS.items() if format.ending.endswith(".png")}
    for name, expected in drawn.items():
        with Image.open(found.save(tmp_path / f"{name}.png", format=name)) as written:
            assert written.format == "PNG"
            np.testing.assert_array_equal(np.asarray(written), expected, err_msg=name)


def test_ids_above_255_are_written_in_16_bits(tmp_path):
    labels = np.array([[0, 255, 256], [65535, 1, 4660]], np.uint16)
    found = Segmentation(labels, LabelSet.of(["a", "b"]), np.zeros((2, 3, 3), np.uint8))
    for format in ("labels", "ids"):
        with Image.open(found.save(tmp_path / f"{format}.png", format=format)) as written:
            assert written.mode == "I;16"
            np.testing.assert_array_equal(np.asarray(written), labels)


@pytest.mark.parametrize("order", ["C", "F", "big"])
def test_numbers_of_two_bytes_lie_as_they_will(order):
    values = np.arange(6 * 5, dtype=np.uint16).reshape(6, 5) * 2113
    given = values.astype(">u2") if order == "big" else np.asarray(values, order=order)
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(b"".join(png.encode(given))))), values)

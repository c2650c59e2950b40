"""Pictures as instruments give them: more than 8 bits a channel are stretched by one stated rule, everywhere alike;
more than one page is said; what is no picture is told what it is."""

from __future__ import annotations

import io
import json
import struct
import sys
import warnings

import numpy as np
import pytest
import torch
from PIL import Image

from hostile.cases import png
from pixelwise import Card, Segmenter, images
from pixelwise.datasets.opening import open_samples
from pixelwise.errors import ImageError, InputError, PixelwiseWarning
from pixelwise.evaluation import evaluate
from pixelwise.inference.preprocess import Preprocess
from test_images import encoded
from tiny import CARD, quadrant_labels, quadrants, write_colors_model

SIGNAL = np.random.default_rng(0).integers(200, 3001, (40, 60)).astype(np.uint16)
"""A picture of 12 bits."""


def by_definition(values: np.ndarray, low: float, high: float) -> np.ndarray:
    return np.clip(np.round((values.astype(np.float64) - low) * 255 / (high - low)), 0, 255)


def by_percentiles(values: np.ndarray) -> np.ndarray:
    return by_definition(values, *np.percentile(values, (0.5, 99.5)))


def sixteen_bit_png(values: np.ndarray) -> bytes:
    """RGB or RGBA of 16 bits, which Pillow reads but does not write."""
    height, width, channels = values.shape
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    return png(struct.pack(">IIBBBBB", width, height, 16, {3: 2, 4: 6}[channels], 0, 0, 0), rows)


@pytest.mark.parametrize(
    "kind", ["png", "tiff", "bytes", "array", "pil", "float tiff", "npy", "tensor", "int tiff"]
)
def test_a_picture_of_12_bits_is_stretched_from_its_own_percentiles(kind, tmp_path):
    path = tmp_path / ("a.tif" if "tiff" in kind else "a.npy" if kind == "npy" else "a.png")
    if kind == "npy":
        np.save(path, SIGNAL)
    else:
        dtype = {"float tiff": np.float32, "int tiff": np.int32}.get(kind, np.uint16)
        Image.fromarray(SIGNAL.astype(dtype)).save(path)
    source = {
        "bytes": path.read_bytes(), "array": SIGNAL, "pil": Image.fromarray(SIGNAL), "tensor": torch.from_numpy(SIGNAL),
    }.get(kind, path)  # fmt: skip
    with pytest.warns(PixelwiseWarning, match=r"0\.5th to their 99\.5th percentile.*--scale LOW,HIGH"):
        read = images.read(source)
    assert read.dtype == np.uint8
    np.testing.assert_array_equal(read, by_percentiles(SIGNAL)[..., None].repeat(3, 2))
    np.testing.assert_array_equal(
        images.read(source, value_range=(0, 4095))[..., 1], by_definition(SIGNAL, 0, 4095)
    )
    np.testing.assert_array_equal(  # what lies outside is cut off, not wrapped round
        images.read(source, value_range=(1000, 2000), channels=1)[..., 0], by_definition(SIGNAL, 1000, 2000)
    )


@pytest.mark.parametrize("channels", [3, 4])
def test_colours_of_16_bits_keep_both_bytes_and_their_balance(channels):
    values = np.random.default_rng(1).integers(0, 300, (17, 23, channels)).astype(np.uint16)
    values[..., 1] += 500
    values[..., 3:] = 65535
    data = sixteen_bit_png(values)
    np.testing.assert_array_equal(
        images.read(data, value_range=(0, 1000)), by_definition(values[..., :3], 0, 1000)
    )
    np.testing.assert_array_equal(
        images.read(values, value_range=(0, 1000)), by_definition(values[..., :3], 0, 1000)
    )
    with pytest.warns(PixelwiseWarning, match="percentile"):
        np.testing.assert_array_equal(images.read(data), by_percentiles(values[..., :3]))
    np.testing.assert_array_equal(images.read_unscaled(data), values[..., :3])
    values[:, :5, 3:] = 0
    clear = images.read(sixteen_bit_png(values), value_range=(0, 1000))
    assert (clear[:, :5] == 255).all() == (channels == 4)  # over white


@pytest.mark.parametrize("how", [{}, {"compression": "deflate"}, {"byteorder": ">"}, {"tile": (16, 16)},
                                 {"compression": "deflate", "byteorder": ">", "tile": (16, 16)}])  # fmt: skip
def test_tiffs_of_16_bit_colours_are_read_whole_however_they_are_stored(how, tmp_path):
    tifffile = pytest.importorskip("tifffile", reason="writes the files (pixelwise[raster])")
    values = np.random.default_rng(2).integers(0, 65536, (33, 41, 3)).astype(np.uint16)
    tifffile.imwrite(tmp_path / "a.tif", values, photometric="rgb", **how)
    np.testing.assert_array_equal(images.read_unscaled(tmp_path / "a.tif"), values)
    np.testing.assert_array_equal(images.read_unscaled((tmp_path / "a.tif").read_bytes()), values)


def test_a_turned_picture_of_16_bits_is_turned_whole():
    values = np.random.default_rng(3).integers(0, 65536, (5, 7)).astype(np.uint16)
    exif = Image.Exif()
    exif[0x0112] = 6
    turned = images.read_unscaled(encoded(Image.fromarray(values), "PNG", exif=exif))
    np.testing.assert_array_equal(turned[..., 0], np.rot90(values, -1))


def test_of_other_pictures_of_16_bits_the_lost_bits_are_said():
    data = b"P6 3 2 65535\n" + np.arange(18, dtype=">u2").tobytes()
    with pytest.warns(PixelwiseWarning, match=r"only the upper 8 are used.*save it as PNG or TIFF"):
        images.read(data)


def test_what_is_shown_is_never_wrong_in_silence(tmp_path):
    speck = np.zeros((40, 50), np.uint16)
    speck[3, 4] = 900
    with pytest.warns(PixelwiseWarning, match="percentile"):
        assert images.read(speck).max() == 255  # it is not lost
    for value in (0, 1234):
        with pytest.warns(
            PixelwiseWarning, match=f"the array holds the value {value} everywhere, and is shown black"
        ):
            assert not images.read(np.full((4, 5), value, np.uint16)).any()
    with pytest.warns(
        PixelwiseWarning, match=r"from 200 to 3000, and 0 to 0\.5 are to be shown, so it is all white"
    ):
        images.read(np.array([[200, 3000]], np.uint16), value_range=(0, 0.5))
    with pytest.warns(PixelwiseWarning, match="so it is all black; bring it to the same units"):
        images.read(np.array([[0.2, 1.0]]), value_range=(0, 4095))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert images.read(np.array([[0.2, 1.0]]), value_range=(0, 0.5))[..., 0].tolist() == [[102, 255]]
        assert images.read(np.array([[0.2, 1.0]]))[..., 0].tolist() == [[51, 255]]  # as it ever was
        assert images.read(np.full((4, 5), 300, np.uint16), value_range=(0, 600)).max() == 128
    for bad in (np.nan, np.inf):
        values = np.ones((4, 5), np.float32)
        values[2, 2] = bad
        Image.fromarray(values).save(tmp_path / "a.tif")
        for value_range in (None, (0, 1)):
            with pytest.raises(
                ImageError, match=r"a\.tif holds NaN or infinite values, first at row 2, column 2; write"
            ):
                images.read(tmp_path / "a.tif", value_range=value_range)
    with pytest.raises(ImageError, match="the array holds NaN or infinite values, first at row 0, column 1"):
        images.read(np.array([[0.5, np.nan]]))
    with pytest.raises(ImageError, match=r"floats from 0 to 7, expected \[0, 1\].*\(value_range\)"):
        images.read(np.array([[0.0, 7.0]]))
    for wrong in ((5, 5), (9, 1), (0, np.inf), "ab", 3):
        with pytest.raises(InputError, match="value_range takes two numbers, the smaller first"):
            images.read(SIGNAL, value_range=wrong)


def test_pictures_of_8_bits_stay_as_they_are(picture):
    for source in (picture, encoded(Image.fromarray(picture), "PNG"), picture / 255):
        np.testing.assert_array_equal(images.read(source), picture)
    with pytest.warns(PixelwiseWarning, match="of 8 bits a channel are taken as they are: a range of values"):
        np.testing.assert_array_equal(images.read(picture, value_range=(0, 50)), picture)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        again = images.read(encoded(Image.fromarray(picture), "PNG"), value_range=(0, 50))
    np.testing.assert_array_equal(again, picture)
    np.testing.assert_array_equal(images.read_unscaled(picture), picture)


def test_the_range_is_said_once():
    with pytest.warns(PixelwiseWarning) as caught:
        first = images.read(SIGNAL)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        np.testing.assert_array_equal(images.read(SIGNAL), first)
    assert len(caught) == 1


# The model's card -------------------------------------------------------------------------------------------------

TWELVE = CARD.replace(preprocess=Preprocess(mean=(0, 0, 0), std=(1, 1, 1), value_range=(1000.0, 3040.0)))


def test_a_card_carries_the_range_and_old_ones_are_unchanged(tmp_path):
    assert Card.from_json(TWELVE.to_json()) == TWELVE
    assert "value_range" not in CARD.to_json()  # byte by byte what earlier versions wrote
    assert Card.from_json(CARD.to_json()).preprocess.value_range is None
    assert Segmenter(write_colors_model(tmp_path / "a.onnx", TWELVE)).card == TWELVE
    assert Card.of(["a", "b"], value_range=(0, 9)).preprocess.value_range == (0.0, 9.0)
    with pytest.raises(InputError, match="value_range"):
        Card.from_json(TWELVE.to_json().replace("3040.0", "2.0"))


def test_saved_weights_carry_the_range(tmp_path):
    from pixelwise import create_model, save

    card = Card.of(["a", "b"], value_range=(100, 900))
    save(create_model("unet", width=2, num_classes=2), tmp_path / "a.safetensors", card=card)
    assert Segmenter(tmp_path / "a.safetensors").card.preprocess.value_range == (100, 900)


def deep_quadrants() -> np.ndarray:
    """Of the quadrants, 1000 for 0 and 3040 for 255."""
    return (quadrants().astype(np.uint16) * 8 + 1000).astype(np.uint16)


def test_a_segmenter_shows_path_bytes_array_and_pil_image_as_its_card_says(tmp_path):
    segmenter = Segmenter(write_colors_model(tmp_path / "a.onnx", TWELVE))
    (tmp_path / "a.png").write_bytes(sixteen_bit_png(deep_quadrants()))
    data = (tmp_path / "a.png").read_bytes()
    for source in (tmp_path / "a.png", data, deep_quadrants(), io.BytesIO(data)):
        found = segmenter(source)
        np.testing.assert_array_equal(found.labels, quadrant_labels())
        np.testing.assert_array_equal(found.image, quadrants())
    plain = Segmenter(write_colors_model(tmp_path / "b.onnx", CARD), value_range=(1000, 3040))
    np.testing.assert_array_equal(plain(data).labels, quadrant_labels())
    other = Segmenter(tmp_path / "a.onnx", value_range=(0, 60000))  # in place of the card's: all is dark
    assert not other(data).labels.any()


def test_segment_and_evaluate_obey_the_card_and_scale_goes_before_it(typed, tmp_path):
    write_colors_model(tmp_path / "range.onnx", TWELVE)
    write_colors_model(tmp_path / "none.onnx", CARD)
    for folder in ("images", "masks"):
        (tmp_path / "data" / folder).mkdir(parents=True)
    (tmp_path / "data" / "images" / "a.png").write_bytes(sixteen_bit_png(deep_quadrants()))
    Image.fromarray(quadrant_labels()).save(tmp_path / "data" / "masks" / "a.png")
    for out, more, says in (
        ("1", "--model range.onnx", ""),
        ("2", "--model none.onnx --scale 1000,3040", ""),
        ("3", "--model none.onnx", "pixelwise: pictures of more than 8 bits a channel are shown from"),
    ):
        result = typed(f"segment data/images --format npy --out {out} {more}")
        assert (result.code, result.err[: len(says) or None]) == (0, says)
        np.testing.assert_array_equal(np.load(tmp_path / out / "a.npy"), quadrant_labels())
    result = typed("evaluate --data data --model range.onnx --split all --json")
    assert json.loads(result.out)["pixel_accuracy"] == 1
    found = evaluate(Segmenter(tmp_path / "range.onnx"), open_samples(tmp_path / "data", split="all"))
    assert found.confusion.pixel_accuracy() == 1
    typed("segment data/images --format npy --out 4 --model none.onnx --scale 0,60000")
    assert not np.load(tmp_path / "4" / "a.npy").any()


def test_samples_are_read_in_the_range_that_they_are_given(tmp_path):
    for folder in ("images", "masks"):
        (tmp_path / folder).mkdir()
    Image.fromarray(SIGNAL).save(tmp_path / "images" / "a.png")
    Image.fromarray((SIGNAL > 900).astype(np.uint8)).save(tmp_path / "masks" / "a.png")
    samples = open_samples(tmp_path, split="all")
    samples.value_range = (0.0, 4095.0)
    np.testing.assert_array_equal(samples[0].image[..., 0], by_definition(SIGNAL, 0, 4095))
    np.testing.assert_array_equal(samples.pairs[0].read_unscaled()[..., 0], SIGNAL)


def test_nuclei_are_found_in_12_bits_as_in_8(data, typed, tmp_path):
    """As a microscope gives it."""
    shares: dict[str, list[float]] = {"eight": [], "twelve": []}
    (tmp_path / "eight").mkdir()
    (tmp_path / "twelve").mkdir()
    for path in sorted((data / "dsb2018_nuclei" / "images").glob("*.png"))[:60:12]:
        grey = np.asarray(Image.open(path).convert("L"))
        Image.fromarray(grey).save(tmp_path / "eight" / path.name)
        Image.fromarray(grey.astype(np.uint16) * 16).save(tmp_path / "twelve" / path.name)
    for name, found in shares.items():
        result = typed(f"segment {name} --model nuclei --format json --out {name}_out --json")
        assert ("more than 8 bits" in result.err) == (name == "twelve")
        for line in result.out.splitlines():
            found.append({c["name"]: c["share"] for c in json.loads(line)["classes"]}.get("nucleus", 0))
    assert min(shares["twelve"]) > 0.01
    np.testing.assert_allclose(shares["twelve"], shares["eight"], atol=0.012)


# Pages, and what is no picture --------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "GIF", "WEBP"])
def test_of_several_pages_the_first_is_used_and_that_is_said(kind, picture, tmp_path):
    pages = [Image.fromarray(picture[::turn]) for turn in (1, -1, 1)]
    pages[0].save(tmp_path / "a", kind, save_all=True, append_images=pages[1:], lossless=True)
    with pytest.warns(PixelwiseWarning, match=r"a holds (3|more than one) pictures?; the first is used"):
        read = images.read(tmp_path / "a")
    if kind != "GIF":  # which has 256 colours
        np.testing.assert_array_equal(read, picture)


def test_smaller_copies_behind_a_tiff_are_no_further_pages(picture, tmp_path):
    tifffile = pytest.importorskip("tifffile", reason="writes the file (pixelwise[raster])")
    with tifffile.TiffWriter(tmp_path / "a.tif") as file:
        file.write(picture, photometric="rgb")
        file.write(picture[::2, ::2], photometric="rgb", subfiletype=1)
    np.testing.assert_array_equal(images.read(tmp_path / "a.tif"), picture)


def preview_first(picture: np.ndarray) -> bytes:
    """A TIFF as cameras write their raw files: a small preview, then a picture in a page below it."""
    info = Image.new("RGB", (8, 8)).getexif()
    info[254], info[330] = 1, 0
    return encoded(Image.fromarray(picture), "TIFF", tiffinfo=info)


@pytest.mark.parametrize(
    ("name", "data", "says"),
    [
        ("a.dcm", bytes(128) + b"DICM" + bytes(60), r"is a DICOM file, which is not read; save its pictures as PNG"),
        ("a.cr2", b"II*\0\x10\0\0\0CR\x02\0", r"is a camera's raw file, which is not read; develop it to TIFF"),
        ("a.nii.gz", b"\x1f\x8b" + bytes(60), r"NIfTI"),
        ("a.psd", b"8BPS\0\1" + bytes(60), r"Photoshop document, which is not read; save it as PNG"),
        ("a.pdf", b"%PDF-1.4 ", r"is a PDF, which is not read; save its pages as pictures, as pdftoppm -png does"),
        ("a.svg", b'<?xml version="1.0"?><svg/>', r"drawing of lines .*Inkscape"),
        ("a.m3u8", b"#EXTM3U\n", r"is a list of other files, which is not read; give the files that it names"),
        ("a.png", b"ffconcat version 1.0\nfile a.mp4\n", r"is a list of other files"),
        ("a.zip", b"PK\3\4", r"is an archive, which is not read; unpack it first"),
        ("a.xyz", b"hello", r"is not a picture, or of a kind that Pillow cannot read"),
    ],
)  # fmt: skip
def test_other_kinds_of_file_are_told_what_they_are(name, data, says, tmp_path):
    (tmp_path / name).write_bytes(data)
    with pytest.raises(ImageError, match=says) as caught:
        images.read(tmp_path / name)
    assert str(caught.value).startswith(str(tmp_path / name))


def test_the_preview_in_a_cameras_raw_file_is_not_taken_for_the_picture(picture, tmp_path):
    (tmp_path / "a.dat").write_bytes(preview_first(picture))
    Image.fromarray(picture).save(tmp_path / "b.nef", "TIFF")
    for name in ("a.dat", "b.nef"):
        with pytest.raises(
            ImageError, match=rf"{name} is a camera's raw file, which is not read; develop it"
        ):
            images.read(tmp_path / name)


def test_heic_says_what_to_install_and_is_read_with_it(picture, tmp_path, monkeypatch):
    (tmp_path / "a.heic").write_bytes(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(40))
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    with pytest.raises(
        ImageError, match=r"a\.heic is a HEIC picture, which needs pillow-heif; run: pip install pillow"
    ):
        images.read(tmp_path / "a.heic")
    assert [name.name for _, name in images.find([tmp_path])] == ["a.heic"]
    monkeypatch.undo()
    heif = pytest.importorskip("pillow_heif", reason="HEIC needs pillow-heif")
    smooth = picture[..., :1].repeat(3, 2)
    heif.from_pillow(Image.fromarray(smooth)).save(tmp_path / "a.heic", quality=95)
    assert np.abs(images.read(tmp_path / "a.heic").astype(int) - smooth).mean() < 3
    (tmp_path / "a.heic").write_bytes((tmp_path / "a.heic").read_bytes()[:300])
    with pytest.raises(ImageError, match=r"a\.heic"):
        images.read(tmp_path / "a.heic")

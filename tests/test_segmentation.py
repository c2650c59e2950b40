"""Segmentation: what is written reads back, and what is counted adds up."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image

from pixelwise import LabelSet, Segmentation
from pixelwise.errors import InputError, OutputError, UnknownNameError
from pixelwise.outputs.formats import FORMATS
from tiny import COLORS, quadrant_labels, quadrants


@pytest.fixture
def segmentation() -> Segmentation:
    return Segmentation(quadrant_labels(), COLORS, quadrants(), np.full((40, 60), 0.5, np.float32))


def test_areas_are_shares_largest_first():
    labels = np.array([[3, 3, 3, 1]], np.uint8)
    assert Segmentation(labels, COLORS, np.zeros((1, 4, 3), np.uint8)).areas() == {"blue": 0.75, "red": 0.25}


@pytest.mark.parametrize(("name", "format"), [("x.png", None), ("x.ids.png", "ids"), ("x.npy", None)])
def test_what_is_written_reads_back(segmentation, tmp_path, name, format):
    path = segmentation.save(tmp_path / name, format=format)
    read = np.load(path) if name.endswith("npy") else np.asarray(Image.open(path))
    np.testing.assert_array_equal(read, segmentation.labels)


def test_more_than_256_ids_are_written_with_16_bits(tmp_path):
    classes = LabelSet.of([f"c{i}" for i in range(400)])
    labels = np.array([[0, 399]], np.uint16)
    path = Segmentation(labels, classes, np.zeros((1, 2, 3), np.uint8)).save(tmp_path / "x.png")
    assert np.asarray(Image.open(path)).tolist() == [[0, 399]]


def test_the_palette_shows_the_classes_colours(segmentation, tmp_path):
    shown = np.asarray(Image.open(segmentation.save(tmp_path / "x.png")).convert("RGB"))
    np.testing.assert_array_equal(shown, np.array(COLORS.colors, np.uint8)[quadrant_labels()])


def test_the_json_names_every_class_that_occurs(segmentation, tmp_path):
    values = json.loads(segmentation.save(tmp_path / "x.json").read_text())
    assert (values["height"], values["width"]) == (40, 60)
    assert {c["name"]: c["pixels"] for c in values["classes"]} == dict.fromkeys(COLORS.names, 600)
    assert values["classes"][1]["color"] == list(COLORS.colors[values["classes"][1]["id"]])


def test_confidence_is_a_grey_picture(segmentation, tmp_path):
    path = segmentation.save(tmp_path / "x.png", format="confidence")
    assert (np.asarray(Image.open(path)) == 128).all()
    bare = Segmentation(segmentation.labels, COLORS, segmentation.image)
    with pytest.raises(InputError, match="confidence=True"):
        bare.save(tmp_path / "y.png", format="confidence")
    assert not (tmp_path / "y.png").exists()


def test_the_overlay_lies_between_picture_and_colours(segmentation):
    np.testing.assert_array_equal(segmentation.overlay(alpha=0), segmentation.image)
    half = segmentation.overlay(alpha=0.5).astype(int)
    assert np.abs(half[:20, 30:] - [255, 0, 0]).max() <= 1
    assert segmentation.legend().shape[2] == 3


def test_a_cutout_keeps_the_named_classes_and_nothing_of_the_rest(segmentation, tmp_path):
    cut = np.asarray(Image.open(segmentation.save(tmp_path / "x.png", format="cutout", names=["red"])))
    kept = segmentation.mask("red")
    np.testing.assert_array_equal(cut[kept], np.dstack([segmentation.image, np.full((40, 60), 255)])[kept])
    assert not cut[~kept].any()
    assert (segmentation.cutout("red", "blue")[..., 3] > 0).sum() == 1200
    with pytest.raises(
        InputError, match="'background', which these classes lack; name what to keep: dark, red"
    ):
        segmentation.cutout()


def test_a_cutout_without_a_name_drops_the_background(segmentation):
    classes = LabelSet.of(["background", "cat"])
    labels = np.array([[0, 1, 255]], np.uint8)
    alpha = Segmentation(labels, classes, np.zeros((1, 3, 3), np.uint8)).cutout()[..., 3]
    assert alpha.tolist() == [[0, 255, 0]]


def test_side_by_side_shows_the_photo_on_the_left(segmentation):
    pair = segmentation.side_by_side(right="labels")
    np.testing.assert_array_equal(pair[:, :60], segmentation.image)
    np.testing.assert_array_equal(pair[:, -60:], np.array(COLORS.colors, np.uint8)[segmentation.labels])
    np.testing.assert_array_equal(segmentation.side_by_side()[:, -60:], segmentation.overlay())
    with pytest.raises(UnknownNameError, match="did you mean 'overlay'"):
        segmentation.side_by_side(right="overly")


def test_contours_are_as_wide_as_asked_for(segmentation):
    drawn = segmentation.contours(width_px=2)
    np.testing.assert_array_equal(drawn[:18, :28], segmentation.image[:18, :28])
    assert (drawn[:18, 30:32] == COLORS.colors[1]).all()


@pytest.mark.parametrize("format", FORMATS)
def test_every_format_is_written_under_its_ending(segmentation, tmp_path, format):
    if format == "geotiff":
        pytest.importorskip("rasterio")
    names = ["red"] if format == "cutout" else []
    path = segmentation.save(tmp_path / f"photo{FORMATS[format].ending}", format=format, names=names)
    assert path.stat().st_size > 0
    assert [p.name for p in tmp_path.iterdir()] == [f"photo{FORMATS[format].ending}"]


def test_an_ending_that_says_enough_needs_no_format(segmentation, tmp_path):
    def kind(name):
        content = json.loads(segmentation.save(tmp_path / name).read_text())
        return content.get("type") or (
            "annotations" in content and type(content["annotations"][0]["segmentation"])
        )

    assert kind("x.json") is False
    assert kind("x.coco.json") is dict
    assert kind("x.polygons.json") is list
    assert kind("x.geojson") == "FeatureCollection"
    assert (
        segmentation.save(tmp_path / "x.CSV")
        .read_text()
        .startswith("class,id,pixels,percent,square_metres\n")
    )


def test_what_a_png_cannot_hold_is_refused(tmp_path):
    far = Segmentation(
        np.array([[90_000]], np.uint32), LabelSet.of(["far"], ids=[90_000]), np.zeros((1, 1, 3), np.uint8)
    )
    for format in ("labels", "ids"):
        with pytest.raises(InputError, match="ids up to 65535, these are uint32; save as geotiff or npy"):
            far.save(tmp_path / "x.png", format=format)
    assert np.load(far.save(tmp_path / "x.npy")) == 90_000
    assert far.areas() == {"far": 1}


def test_what_cannot_be_saved(segmentation, tmp_path):
    with pytest.raises(InputError, match="cannot tell a format"):
        segmentation.save(tmp_path / "x.xyz")
    with pytest.raises(UnknownNameError, match="did you mean 'overlay'"):
        segmentation.save(tmp_path / "x.png", format="overlai")
    with pytest.raises(InputError, match="PNG, which keeps it exact"):
        segmentation.save(tmp_path / "x.jpg", format="labels")
    with pytest.raises(InputError, match="written as TIF or TIFF"):
        segmentation.save(tmp_path / "x.png", format="geotiff")
    with pytest.raises(InputError, match="written as PNG or WEBP"):
        segmentation.save(tmp_path / "x.jpg", format="cutout", names=["red"])
    with pytest.raises(InputError, match=r"cannot write a picture as '\.xyz'"):
        segmentation.save(tmp_path / "x.xyz", format="overlay")
    with pytest.raises(InputError, match="names is for format 'cutout', got format 'overlay'"):
        segmentation.save(tmp_path / "x.png", format="overlay", names=["red"])
    with pytest.raises(InputError, match="simplify_px is for format 'geojson', got format 'labels'"):
        segmentation.save(tmp_path / "x.png", simplify_px=1)
    assert not list(tmp_path.iterdir())
    segmentation.save(tmp_path / "x.png")
    with pytest.raises(OutputError, match="exists already"):
        segmentation.save(tmp_path / "x.png", overwrite=False)
    with pytest.raises(UnknownNameError, match="did you mean 'green'"):
        segmentation.mask("gren")

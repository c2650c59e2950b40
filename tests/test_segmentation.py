"""Segmentation: what is written reads back, and what is counted adds up."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image

from pixelwise import LabelSet, Segmentation
from pixelwise.errors import InputError, OutputError, UnknownNameError
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


def test_what_cannot_be_saved(segmentation, tmp_path):
    with pytest.raises(InputError, match="cannot tell a format"):
        segmentation.save(tmp_path / "x.xyz")
    with pytest.raises(UnknownNameError, match="did you mean 'overlay'"):
        segmentation.save(tmp_path / "x.png", format="overlai")
    with pytest.raises(InputError, match="PNG, which keeps ids exact"):
        segmentation.save(tmp_path / "x.jpg", format="labels")
    segmentation.save(tmp_path / "x.png")
    with pytest.raises(OutputError, match="exists already"):
        segmentation.save(tmp_path / "x.png", overwrite=False)
    with pytest.raises(UnknownNameError, match="did you mean 'green'"):
        segmentation.mask("gren")

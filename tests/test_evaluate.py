"""pixelwise evaluate: known answers give known scores, in Python, as text, as JSON and as a page."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pixelwise import Segmenter
from pixelwise.datasets.layouts import Pair, find_pairs
from pixelwise.errors import InputError, UnknownNameError
from pixelwise.evaluation import CLASSES, confusion_picture, evaluate, read_labels
from pixelwise.labels import CITYSCAPES
from tiny import COLORS, quadrant_labels, quadrants


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two pictures whose answers are known: one is labelled right, in the other a quarter is wrong or void."""
    for name in ("right", "wrong"):
        for kind in ("images", "masks"):
            (tmp_path / kind).mkdir(exist_ok=True)
        Image.fromarray(quadrants()).save(tmp_path / "images" / f"{name}.png")
    Image.fromarray(quadrant_labels()).save(tmp_path / "masks" / "right.png")
    truth = quadrant_labels()
    truth[:20, 30:45], truth[:20, 45:] = 3, 255  # red quarter: half is blue in truth, half is void
    Image.fromarray(truth).save(tmp_path / "masks" / "wrong.png")
    return tmp_path


def test_scores_are_those_of_the_counts(folder, colors_model):
    result = evaluate(Segmenter(colors_model), find_pairs(folder), mean_over=["red", "blue"])
    scores = result.to_dict()
    # By hand: red 600 right and 300 invented; blue 1200 right and 300 missed; the others whole; 300 void.
    assert result.confusion.matrix.tolist() == [
        [1200, 0, 0, 0],
        [0, 600, 0, 0],
        [0, 0, 1200, 0],
        [0, 300, 0, 1200],
    ]
    assert scores["pixel_accuracy"] == 4200 / 4500
    assert scores["mean_iou"] == pytest.approx((1 + 600 / 900 + 1 + 1200 / 1500) / 4)
    assert scores["mean_iou_of"]["mean_iou"] == pytest.approx((600 / 900 + 1200 / 1500) / 2)
    assert scores["classes"]["red"]["precision"] == pytest.approx(600 / 900)
    assert scores["classes"]["blue"]["recall"] == pytest.approx(1200 / 1500)
    assert [row["name"] for row in scores["worst"]] == ["wrong", "right"]
    assert scores["pictures"] == 2
    assert scores["published"][0]["metric"] == "mean IoU"
    json.dumps(scores)


def test_the_confusion_picture_has_a_row_a_class(folder, colors_model):
    picture = confusion_picture(evaluate(Segmenter(colors_model), find_pairs(folder)))
    assert picture.dtype == np.uint8
    assert (picture == (0, 0, 255)).all(axis=-1).any()  # a class that is always right is full blue


def test_what_cannot_be_scored(folder, colors_model):
    segmenter = Segmenter(colors_model)
    with pytest.raises(InputError, match="lacks its picture"):
        evaluate(segmenter, [Pair("x", "val", None, None)])
    with pytest.raises(InputError, match="knows 4 classes, the labels have 21"):
        evaluate(segmenter, find_pairs(folder), classes=CLASSES["voc"])
    with pytest.raises(UnknownNameError, match="did you mean 'red'"):
        evaluate(segmenter, find_pairs(folder), mean_over=["rde"])
    with pytest.raises(InputError, match="protocol"):
        evaluate(segmenter, find_pairs(folder), protocol="none")
    bad = quadrant_labels()
    bad[7, 9] = 50
    Image.fromarray(bad).save(folder / "masks" / "right.png")
    with pytest.raises(InputError, match=r"right\.png: label id 50 at \(7, 9\)"):
        evaluate(segmenter, find_pairs(folder))
    Image.fromarray(bad[:-1]).save(folder / "masks" / "right.png")
    with pytest.raises(InputError):
        evaluate(segmenter, find_pairs(folder))


def test_cityscapes_ids_that_are_not_scored_are_void(tmp_path):
    Image.fromarray(np.array([[7, 26, 0, 4, 33]], np.uint8)).save(tmp_path / "x.png")
    assert read_labels(tmp_path / "x.png", CITYSCAPES).tolist() == [[0, 13, 255, 255, 18]]


@pytest.mark.parametrize("layout", ["cityscapes", "ade20k"])
def test_layouts_of_the_benchmarks(layout, tmp_path):
    files = {
        "cityscapes": ("leftImg8bit/val/ulm/u_1_leftImg8bit.png", "gtFine/val/ulm/u_1_gtFine_labelIds.png"),
        "ade20k": ("images/validation/a.jpg", "annotations/validation/a.png"),
    }[layout]
    for file in files:
        (tmp_path / file).parent.mkdir(parents=True)
        Image.fromarray(quadrant_labels()).save(tmp_path / file)
    (pair,) = find_pairs(tmp_path)
    assert (pair.split, pair.image, pair.mask) == ("val", tmp_path / files[0], tmp_path / files[1])


class Page(HTMLParser):
    """Collects the cells of tables and where pictures come from."""

    def __init__(self) -> None:
        super().__init__()
        self.cells: list[str] = []
        self.sources: list[str] = []

    def handle_starttag(self, tag, attributes):
        if tag == "img":
            self.sources.append(dict(attributes)["src"])

    def handle_data(self, data):
        self.cells.append(data.strip())


def test_the_command(folder, colors_model, tmp_path):
    run = [sys.executable, "-m", "pixelwise", "evaluate", "--data", folder, "--model", colors_model]
    printed = subprocess.run([*run, "--json"], capture_output=True, text=True)
    assert printed.returncode == 0, printed.stderr
    assert json.loads(printed.stdout)["mean_iou"] == pytest.approx((1 + 600 / 900 + 1 + 1200 / 1500) / 4)
    text = subprocess.run([*run, "--out", tmp_path / "report"], capture_output=True, text=True).stdout
    assert "mean IoU 0.8667" in text
    assert all(name in text for name in COLORS.names)
    report = tmp_path / "report"
    assert json.loads((report / "report.json").read_text())["pictures"] == 2
    assert sorted(p.name for p in (report / "worst").iterdir()) == ["01_wrong.jpg", "02_right.jpg"]
    page = Page()
    page.feed((report / "report.html").read_text())
    assert "0.867" in page.cells
    assert len(page.sources) == 3
    assert all(source.startswith("data:image/") for source in page.sources)
    again = subprocess.run([*run, "--out", report], capture_output=True, text=True)
    assert (again.returncode, len(again.stderr.splitlines())) == (2, 1)
    wrong = subprocess.run([*run, "--split", "vall"], capture_output=True, text=True, env=dict(os.environ))
    assert wrong.returncode == 2
    assert "did you mean 'all'" in wrong.stderr


def test_everyday_on_voc_has_the_scores_of_its_card(data):
    """A tenth of the val pictures, so the tolerance is that of a sample."""
    pairs = [pair for pair in find_pairs(data / "voc2012_animals", "voc") if pair.split == "val"][::10]
    segmenter = Segmenter("everyday")
    result = evaluate(segmenter, pairs, classes=CLASSES["voc"])
    (accuracy,) = [score.value for score in segmenter.card.scores if score.metric == "pixel accuracy"]
    assert result.confusion.pixel_accuracy() == pytest.approx(accuracy, abs=0.03)

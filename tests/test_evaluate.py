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
from typer.testing import CliRunner

from pixelwise import LabelSet, Segmenter, SegmentOptions
from pixelwise.cli import app
from pixelwise.datasets.layouts import LAYOUTS
from pixelwise.datasets.opening import PairSamples, open_samples
from pixelwise.datasets.sample import Pair, Sample
from pixelwise.errors import InputError, UnknownNameError
from pixelwise.evaluation import PROTOCOLS, evaluate
from pixelwise.inference.preprocess import IMAGENET_MEAN, IMAGENET_STD
from pixelwise.labels import VOC
from pixelwise.report import write_report
from pixelwise.report.confusion import confusion_picture
from pixelwise.report.text import table
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
    result = evaluate(Segmenter(colors_model), open_samples(folder), mean_over=["red", "blue"])
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
    assert scores["classes"]["red"]["mean_dice_of_pictures"] == pytest.approx(0.5)  # 1, and 0 where invented
    assert [row["name"] for row in scores["worst"]] == ["wrong", "right"]
    assert scores["pictures"] == 2
    assert scores["published"][0]["metric"] == "mean IoU"
    json.dumps(scores)


def test_the_confusion_picture_has_a_row_a_class(folder, colors_model):
    picture = confusion_picture(evaluate(Segmenter(colors_model), open_samples(folder)))
    assert picture.dtype == np.uint8
    assert (picture == (0, 0, 255)).all(axis=-1).any()  # a class that is always right is full blue


def test_what_cannot_be_scored(folder, colors_model):
    segmenter = Segmenter(colors_model)
    with pytest.raises(InputError, match="lacks its picture"):
        evaluate(segmenter, PairSamples([Pair("x", "val", None, None)]))
    with pytest.raises(
        InputError,
        match=r"knows 4 classes, the labels have 21, of which the model's class 0 is 'dark' and .* 'background'",
    ):
        evaluate(segmenter, open_samples(folder), classes=VOC)
    with pytest.raises(UnknownNameError, match="did you mean 'red'"):
        evaluate(segmenter, open_samples(folder), mean_over=["rde"])
    with pytest.raises(UnknownNameError, match=r"protocol 'none'.*torchvision"):
        evaluate(segmenter, open_samples(folder), protocol="none")
    bad = quadrant_labels()
    bad[7, 9] = 50
    Image.fromarray(bad).save(folder / "masks" / "right.png")
    with pytest.raises(InputError, match=r"right\.png: label id 50 at \(7, 9\)"):
        evaluate(segmenter, open_samples(folder, classes=COLORS))
    with pytest.raises(InputError, match=r"right.*50.*\(7, 9\)"):
        evaluate(segmenter, open_samples(folder))
    Image.fromarray(bad[:-1]).save(folder / "masks" / "right.png")
    with pytest.raises(InputError, match=r"right\.png should be .*\(40, 60\), got \(39, 60\)"):
        evaluate(segmenter, open_samples(folder))


def test_classes_are_matched_by_name_and_others_are_refused_unless_their_place_is_meant(colors_model):
    picture = quadrants()
    truth = LabelSet.of(COLORS.names).to_indices(quadrant_labels())
    sample = Sample(picture, truth.astype(np.uint8), "quadrants")
    segmenter = Segmenter(colors_model)
    expected = evaluate(segmenter, [sample]).confusion.matrix
    assert (expected > 0).sum() > 2
    back = COLORS.names[::-1]
    turned = Sample(picture, (3 - truth).astype(np.uint8), "quadrants")
    found = evaluate(segmenter, [turned], classes=LabelSet.of(back)).confusion.matrix
    np.testing.assert_array_equal(found, expected[::-1, ::-1])
    others = LabelSet.of(["dark", "b", "c", "d"])
    with pytest.raises(InputError, match=r"its class 1 is 'red', theirs 'b'; choose .* or say --by-place"):
        evaluate(segmenter, [sample], classes=others)
    numbered = LabelSet.of([f"class {i}" for i in range(4)])
    for classes, meant in ((others, True), (numbered, False)):
        by_place = evaluate(segmenter, [sample], classes=classes, by_place=meant).confusion.matrix
        np.testing.assert_array_equal(by_place, expected)
    fewer = LabelSet.of(["dark", "red"])
    with pytest.raises(InputError, match="the labels have 2, of which the first 2 are called the same"):
        evaluate(segmenter, [sample], classes=fewer, by_place=True)


def test_the_protocol_of_torchvision_is_that_of_its_reference_scripts(tmp_path):
    """Counts equal those of a loop written as torchvision's: PIL resize of picture and label map, plain argmax."""
    torch = pytest.importorskip("torch")
    from torchvision.transforms import InterpolationMode
    from torchvision.transforms.v2 import functional as F

    from pixelwise.models.segmentation.lraspp import lraspp_mobilenet_v3_large

    torch.manual_seed(0)
    network = lraspp_mobilenet_v3_large(weights=None, weights_backbone=None, num_classes=21).eval()
    draw = np.random.default_rng(0)
    blocks = draw.integers(0, 21, (9, 12)).astype(np.uint8).repeat(12, 0).repeat(12, 1)
    blocks[30:34, 50:70] = 255
    image = draw.integers(0, 256, (9, 12, 3), dtype=np.uint8).repeat(12, 0).repeat(12, 1)

    picture = F.resize(Image.fromarray(image), 520, InterpolationMode.BILINEAR, antialias=True)
    target = np.asarray(F.resize(Image.fromarray(blocks), 520, InterpolationMode.NEAREST))
    pixels = F.to_dtype(F.pil_to_tensor(picture), torch.float32, scale=True)
    with torch.inference_mode():
        logits = network(F.normalize(pixels, IMAGENET_MEAN, IMAGENET_STD)[None])["out"]
    answer = logits[0].argmax(0).numpy()
    known = target != 255
    expected = np.bincount(target[known].astype(int) * 21 + answer[known], minlength=441).reshape(21, 21)

    segmenter = Segmenter(network, classes=VOC)
    result = evaluate(segmenter, [Sample(image, blocks, "blocks")], protocol="torchvision")
    assert result.confusion.matrix.sum() == known.sum()
    assert abs(result.confusion.matrix - expected).sum() <= 20  # of 360,000: ties within rounding
    assert segmenter.card.preprocess.size == 520  # the model itself is left as it was


@pytest.mark.parametrize("protocol", ["sliding-512", "sliding-1024", "multi-scale-flip"])
def test_tiles_scales_and_flips_change_nothing_for_a_model_that_looks_at_pixels(protocol, colors_model):
    image, mask = (a.repeat(15, 0).repeat(15, 1) for a in (quadrants(), quadrant_labels()))  # 600 x 900
    samples = [Sample(image, mask, "large")]
    plain = evaluate(Segmenter(colors_model), samples).confusion.matrix
    result = evaluate(Segmenter(colors_model), samples, protocol=protocol)
    assert result.confusion.matrix.sum() == plain.sum()
    wrong = abs(result.confusion.matrix - plain).sum() / 2
    assert wrong <= (0 if protocol.startswith("sliding") else 0.02 * plain.sum())  # scales blur the borders
    json.dumps(result.to_dict()["protocol"])


@pytest.mark.parametrize(
    ("protocol", "side", "stride"), [("sliding-512", 512, 320), ("sliding-1024", 1024, 768)]
)
def test_a_sliding_protocol_shows_as_many_tiles_as_its_stride_asks_for(protocol, side, stride, colors_model):
    """Eight strides wide; tiles begin at multiples of 32, so that 512 - 171 is 320. A longer stride needs fewer."""
    segmenter, shown = Segmenter(colors_model), []
    engine = segmenter.engine
    segmenter.engine = lambda images: shown.append(images.shape) or engine(images)
    image = np.zeros((side, side + 8 * stride, 3), np.uint8)
    evaluate(segmenter, [Sample(image, np.zeros(image.shape[:2], np.uint8), "wide")], protocol=protocol)
    assert shown == [(1, 3, side, side)] * 9


def test_the_protocol_of_many_scales_shows_each_of_them_twice(colors_model):
    segmenter, shown = Segmenter(colors_model), []
    engine = segmenter.engine
    segmenter.engine = lambda images: shown.append(images.shape[2:]) or engine(images)
    samples = [Sample(np.zeros((40, 80, 3), np.uint8), np.zeros((40, 80), np.uint8), "dark")]
    evaluate(segmenter, samples, protocol="multi-scale-flip")
    assert sorted(shown) == [(h, 2 * h) for h in (20, 30, 40, 50, 60, 70) for _ in range(2)]


def test_the_command_line_names_every_protocol_and_layout():
    assert all(name in app.PROTOCOLS for name in PROTOCOLS)
    assert all(name in app.LAYOUTS for name in LAYOUTS)


def test_options_change_the_protocol_and_are_said_in_the_report(folder, colors_model):
    """A red speck in the green quarter is wrong, until it is cleaned up."""
    for name in ("right", "wrong"):
        image = quadrants()
        image[30:34, 10:16] = (255, 0, 0)
        Image.fromarray(image).save(folder / "images" / f"{name}.png")
    run = ["evaluate", "--data", str(folder), "--model", str(colors_model)]
    views = ["--tile", "32", "--flip", "horizontal", "--crf", "off"]
    scores = {}
    for area in ("0", "50"):
        result = CliRunner().invoke(app.app, [*run, "--json", *views, "--min-area", area])
        scores[area] = json.loads(result.stdout)
    green = {area: s["classes"]["green"] for area, s in scores.items()}
    assert green["0"]["given_pixels"] == 1200 - 2 * 24
    assert green["50"]["given_pixels"] == 1200
    protocol = scores["50"]["protocol"]
    assert protocol["options"] == {"tile": 32, "flips": ["horizontal"], "min_area": 50}
    assert protocol["says"].endswith("; but with tile=32, flips=['horizontal'], min_area=50")
    assert scores["50"]["classes"]["dark"]["iou"] == 1
    text = CliRunner().invoke(app.app, [*run, *views, "--min-area", "50"]).stdout
    assert "but with tile=32, flips=['horizontal'], min_area=50" in text


def test_what_is_typed_stands_in_place_of_what_the_protocol_says(folder, colors_model):
    run = ["evaluate", "--data", str(folder), "--model", str(colors_model), "--json"]
    typed = ["--protocol", "multi-scale-flip", "--scales", "1", "--average", "logits"]
    protocol = json.loads(CliRunner().invoke(app.app, [*run, *typed]).stdout)["protocol"]
    assert protocol["options"] == {"flips": ["horizontal"]}
    assert protocol["says"].endswith("; but with scales=[1.0], average='logits'")
    typed = ["--protocol", "sliding-512", "--window", "gaussian"]
    protocol = json.loads(CliRunner().invoke(app.app, [*run, *typed]).stdout)["protocol"]
    assert protocol["options"] == {"tile": 512, "overlap": 171}
    unchanged = json.loads(CliRunner().invoke(app.app, [*run, "--protocol", "sliding-512"]).stdout)[
        "protocol"
    ]
    assert unchanged == PROTOCOLS["sliding-512"].to_dict()
    for words in (["--tile", "auto"], ["--overlap", "auto"]):
        refused = CliRunner().invoke(app.app, [*run, *words])
        assert isinstance(refused.exception, InputError)
        assert "an evaluation takes a fixed" in str(refused.exception)


def test_doubtful_pixels_are_left_out_and_counted(folder, colors_model, tmp_path):
    segmenter, options = Segmenter(colors_model), SegmentOptions(min_confidence=0.43)
    result = evaluate(segmenter, open_samples(folder), options=options)
    answer = segmenter(quadrants(), confidence=True)
    sure = answer.confidence >= np.float32(0.43)
    expected = np.zeros((4, 4), np.int64)
    labelled = 0
    for name in ("right", "wrong"):
        truth = np.asarray(Image.open(folder / "masks" / f"{name}.png"))
        labelled += (truth != 255).sum()
        np.add.at(expected, (truth[sure & (truth != 255)], answer.labels[sure & (truth != 255)]), 1)
    np.testing.assert_array_equal(result.confusion.matrix, expected)
    assert 0.3 < result.answered < 0.99
    assert result.answered == expected.sum() / labelled
    assert result.to_dict()["answered"] == result.answered
    sentence = (
        f"{result.answered:.2%} of the labelled pixels scored, the others are below min_confidence 0.43"
    )
    assert sentence in table(result)
    write_report(result, segmenter, tmp_path / "report")
    assert sentence in (tmp_path / "report" / "report.html").read_text(encoding="utf-8")
    assert "answered" not in evaluate(segmenter, open_samples(folder)).to_dict()
    with pytest.raises(InputError, match="no answer reaches min_confidence"):
        evaluate(segmenter, open_samples(folder), options=SegmentOptions(min_confidence=0.9))


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
    reported = [*run, "--out", tmp_path / "report", "--mean-over", "red,blue"]
    text = subprocess.run(reported, capture_output=True, text=True).stdout
    assert "published: mean IoU 1.0000 on drawn pictures; as they are (by construction)" in text
    assert "mean IoU 0.8667" in text
    assert all(name in text for name in COLORS.names)
    report = tmp_path / "report"
    assert json.loads((report / "report.json").read_text())["pictures"] == 2
    assert sorted(p.name for p in (report / "worst").iterdir()) == ["01_wrong.jpg", "02_right.jpg"]
    page = Page()
    page.feed((report / "report.html").read_text())
    assert "0.867" in page.cells
    assert "Mean IoU 0.7333 over red, blue." in page.cells
    assert "Published: mean IoU 1.0000 on drawn pictures; as they are (by construction)" in page.cells
    assert len(page.sources) == 2 * 4 + 2  # two pictures large, in four panels, and two thumbnails
    assert all(source.startswith("data:image/") for source in page.sources)
    again = subprocess.run([*run, "--out", report], capture_output=True, text=True)
    assert (again.returncode, len(again.stderr.splitlines())) == (2, 1)
    wrong = subprocess.run([*run, "--split", "vall"], capture_output=True, text=True, env=dict(os.environ))
    assert wrong.returncode == 2
    assert "did you mean" in wrong.stderr
    assert "'all'" in wrong.stderr
    mapped = subprocess.run([*run, "--json", "--map-ids", "1-3=0"], capture_output=True, text=True)
    assert json.loads(mapped.stdout)["classes"]["dark"]["recall"] == pytest.approx(1 / 4, abs=0.05)


@pytest.mark.slow
def test_everyday_on_voc_has_the_scores_of_its_card(data):
    """A tenth of the val pictures, so the tolerance is that of a sample."""
    samples = open_samples(data / "voc2012_animals", "voc", "val")
    samples.pairs = samples.pairs[::10]
    segmenter = Segmenter("everyday")
    result = evaluate(segmenter, samples, classes=samples.classes)
    (accuracy,) = [score.value for score in segmenter.card.scores if score.metric == "pixel accuracy"]
    assert result.confusion.pixel_accuracy() == pytest.approx(accuracy, abs=0.03)

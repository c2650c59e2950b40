"""Reports: what the page says, shows and holds back, whatever the names, the number of pictures and the screen."""

from __future__ import annotations

import base64
import io
import json
import re
import shutil
import subprocess
from datetime import datetime
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from pixelwise import LabelSet, Segmenter, evaluate
from pixelwise.cli import app
from pixelwise.datasets.sample import Sample
from pixelwise.draw import VOID_COLOR
from pixelwise.labels import APART
from pixelwise.metrics import ConfusionMatrix
from pixelwise.report import mistakes, pictures, plots, write_report
from pixelwise.report.page import Run
from pixelwise.report.pictures import Gallery, shown_large
from pixelwise.report.task import PictureScores, Task, scores_of
from pixelwise.report.text import COLUMNS, table
from seeing import least_difference
from tiny import CARD, COLORS, quadrant_labels, quadrants, write_colors_model

PAIR = LabelSet.of(["background", "vessel"])
WHEN = datetime(2026, 3, 9, 12, 30)


class Page(HTMLParser):
    """What a browser makes of a page: its tags with their attributes, and the texts under each class or tag."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.texts: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))

    def handle_data(self, data):
        if data.strip():
            self.texts.append(data.strip())

    def after(self, text: str, count: int = 1) -> list[str]:
        """The texts that follow a text."""
        place = self.texts.index(text)
        return self.texts[place + 1 : place + 1 + count]

    def of(self, tag: str) -> list[dict[str, str]]:
        return [attributes for name, attributes in self.tags if name == tag]


def two_classes(count: int = 3) -> list[Sample]:
    """Pictures of the model of `tiny.py` for two classes: what is red is a vessel; the first is wholly right, each
    other one misses a row more."""
    samples = []
    for i in range(count):
        image = np.zeros((40, 60, 3), np.uint8)
        image[10:30, 10:50, 0] = 255
        mask = (image[..., 0] > 0).astype(np.uint8)
        mask[8 - 2 * min(i, 4) : 10, 10:50] = i > 0
        samples.append(Sample(image, mask, f"drawn {i}"))
    return samples


@pytest.fixture(scope="module")
def vessels(tmp_path_factory) -> Segmenter:
    """A binary model: red or not."""
    path = write_colors_model(tmp_path_factory.mktemp("model") / "vessels.onnx", None)
    segmenter = Segmenter(path, card=CARD.replace(name="colors", scores=()))
    inner = segmenter.engine

    class Red:
        name, card = "of the test", CARD.replace(name="vessels", labels=PAIR, scores=())

        def __call__(self, images):
            logits = np.asarray(inner(images))
            return np.stack([logits[:, 0], logits[:, 1]], axis=1)

    segmenter.engine = Red()
    segmenter.card, segmenter.classes = Red.card, PAIR
    return segmenter


def reported(segmenter, samples, out, **more) -> Page:
    gallery = Gallery(more.pop("classes", segmenter.classes))
    result = evaluate(
        segmenter, samples, classes=gallery.classes, by_place=more.pop("by_place", False), data="retina",
        part="3 of 9 pictures", look=gallery.look,
    )  # fmt: skip
    write_report(result, segmenter, out, gallery=gallery, when=WHEN, **more)
    return Page((out / "report.html").read_text(encoding="utf-8"))


# What it says


def test_of_two_classes_the_object_comes_first(vessels, tmp_path):
    page = reported(vessels, two_classes(), tmp_path)
    # By hand: 800 pixels of each were found; 800, 800 + 4 rows and 800 + 6 rows of 40 are there.
    hit, true = 3 * 800, 800 + 960 + 1040
    dice, iou = 2 * hit / (hit + true), hit / true
    first = page.texts.index("Dice of vessel")
    assert page.texts[first - 1] == f"{dice:.3f}"
    assert page.texts[first + 1].startswith("95% interval over pictures ")
    assert page.texts[page.texts.index("IoU of vessel") - 1] == f"{iou:.3f}"
    assert page.texts[page.texts.index("precision of vessel") - 1] == "1.000"
    assert page.texts[page.texts.index("recall of vessel") - 1] == f"{iou:.3f}"
    assert "retina: 3 of 9 pictures" in page.texts
    assert page.after("Date") == ["9 March 2026"]
    assert page.after("vessel", 5) == [
        f"{iou:.3f}",
        f"{dice:.3f}",
        "1.000",
        f"{iou:.3f}",
        f"{true / 7200:.2%}",
    ]
    shown = [i["data-score"] for i in page.of("li") if "data-score" in i]
    assert shown == [f"{2 * 800 / (800 + t):.3f}" for t in (1040, 960, 800)]
    found = json.loads((tmp_path / "report.json").read_text())
    assert found["by_picture"][0]["dice"] == {"background": 1, "vessel": 1}
    assert found["date"] == "2026-03-09T12:30:00"
    assert found["versions"]["pixelwise"]


def test_of_more_classes_the_mean_iou_comes_first_with_its_interval(colors_model, tmp_path):
    segmenter, truth = Segmenter(colors_model), quadrant_labels()
    truth[:20, 30:45] = 3
    samples = [Sample(quadrants(), quadrant_labels(), "right"), Sample(quadrants(), truth, "wrong")]
    page = reported(segmenter, samples, tmp_path)
    result = evaluate(segmenter, samples)
    low, high = result.to_dict()["mean_iou_95_percent"]
    place = page.texts.index("mean IoU")
    assert page.texts[place - 1] == f"{result.confusion.mean_iou():.3f}"
    assert page.texts[place + 1] == f"95% interval over pictures {low:.3f} to {high:.3f}"
    assert page.after("The most frequent mistakes, by pixels.", 8)[4:] == ["blue", "red", "300", "20.0%"]
    assert "Published: mean IoU 1.0000 on drawn pictures; as they are (by construction)" in page.texts


def test_which_class_is_the_ground_and_which_the_object():
    for names, ground, thing in (
        (["background", "vessel"], 0, 1),
        (["membrane", "cell"], 0, 1),
        (["cell", "Background"], 1, 0),
        (["ground", "disc", "square"], 0, None),
        (["road", "car", "tree"], None, None),
        (["road", "car", "background"], None, None),
    ):
        assert Task.of(LabelSet.of(names)) == Task(ground, thing), names


def test_a_score_that_the_evaluation_has_found_again_is_not_repeated(colors_model):
    def says(source, value):
        score = CARD.scores[0].__class__("mean IoU", value, "these pictures", "own-size", source)
        segmenter = Segmenter(colors_model, card=CARD.replace(scores=(score,)))
        return table(evaluate(segmenter, [Sample(quadrants(), quadrant_labels(), "one")]))

    assert "these pictures" not in says("measured here", 1.0)
    assert "measured when it was made: mean IoU 0.9000 on these pictures" in says("measured here", 0.9)
    assert "published: mean IoU 1.0000 on these pictures; own-size (a paper)" in says("a paper", 1.0)


def test_the_table_fits_80_columns_and_no_name_is_cut(colors_model):
    long = "a structure that somebody described with great care in all its parts and all its colours"
    names = ["dark", long, "漢字" * 30, "x" * 46]
    segmenter = Segmenter(colors_model, card=CARD.replace(labels=LabelSet.of(names), scores=()))
    result = evaluate(segmenter, [Sample(quadrants(), quadrant_labels(), "one")], corrupt="fog")
    lines = table(result).splitlines()
    for name in names:
        assert any(line.startswith(name) for line in lines), name
    rows = lines[: lines.index("")]
    numbers = [line for line in rows if re.search(r"\d\.\d{3}", line)]
    assert len(numbers) == 4
    assert all(len(line) <= COLUMNS for line in numbers)
    assert len({line.rindex("%") for line in numbers}) == 1  # columns stand under one another
    corrupted = [line for line in lines if line.startswith(("clean", "fog", "IoU, corrupted"))]
    assert len(corrupted) == 3
    assert all(len(line) <= COLUMNS for line in corrupted)


# What it shows


def image_of(uri: str) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(uri.split(",", 1)[1])))


def test_swatches_have_the_colours_of_the_pictures_to_the_last_bit(vessels, tmp_path):
    samples = two_classes(2)
    samples[1].mask[35:, :20] = 255
    samples[1].image[36:, 40:, 0] = 255  # invented
    page = reported(vessels, samples, tmp_path)
    swatches = {
        tuple(int(v) for v in re.findall(r"\d+", i["style"])) for i in page.of("i") if i["class"] == "swatch"
    }
    panels = [(i["alt"], i["src"]) for i in page.of("img") if "loading" not in i]
    assert [re.sub(r".*: (the |where )?", "", alt).split(",")[0] for alt, _ in panels[:4]] == [
        "picture", "truth", "model's answer", "it errs"
    ]  # fmt: skip
    seen = set()
    for alt, src in panels:
        picture = np.asarray(image_of(src).convert("RGB"))
        colors = set(map(tuple, np.unique(picture.reshape(-1, 3), axis=0).tolist()))
        if "truth" in alt or "answer" in alt:
            assert colors <= swatches
            seen |= colors
        elif "errs" in alt:
            greys = {color for color in colors if len(set(color)) == 1}
            assert colors - greys <= swatches
            seen |= colors - greys
    wanted = {
        *PAIR.colors,
        VOID_COLOR,
        *(mistakes.COLORS[c] for c in (mistakes.RIGHT, mistakes.MISSED, mistakes.INVENTED)),
    }
    assert seen == wanted == swatches


def test_the_mistakes_are_told_apart_however_one_sees_and_from_the_first_classes():
    colors, greys = list(mistakes.COLORS.values()), [(v, v, v) for v in range(56, 201, 12)]
    assert least_difference(colors) > 35
    assert least_difference(colors, greys) > 12
    assert least_difference(colors, APART[1:3]) > 8


def test_what_each_pixel_is():
    # truth: ground, ground, object, object, object, unknown; answer beside it, 255 being no answer
    target = np.array([[0, 0, 1, 1, 2, 255, 1, 0]])
    given = np.array([[0, 1, 0, 1, 1, 1, 255, 255]])
    p, r, m, i, o = mistakes.PLAIN, mistakes.RIGHT, mistakes.MISSED, mistakes.INVENTED, mistakes.OTHER
    assert mistakes.verdict(given, target, 0, 255).tolist() == [[p, i, m, r, o, p, m, p]]
    assert mistakes.verdict(given, target, None, 255).tolist() == [[p, o, o, p, o, p, o, o]]


@pytest.mark.parametrize("grey", [0, 128, 255])
def test_what_is_coloured_has_a_light_line_round_it_and_a_dark_one_round_that(grey):
    found = np.zeros((9, 20), np.uint8)
    found[4, 8:12] = mistakes.MISSED
    shown = np.asarray(mistakes.picture(np.full((9, 20, 3), grey, np.uint8), found).convert("RGB"))
    assert [tuple(shown[row, 9]) for row in (4, 3, 2, 5, 6)] == [
        mistakes.COLORS[mistakes.MISSED], mistakes.LIGHT, mistakes.DARK, mistakes.LIGHT, mistakes.DARK
    ]  # fmt: skip
    shade = {tuple(shown[0, x]) for x in range(20)}
    assert len(shade) == 1
    assert 56 <= shade.pop()[0] <= 200


def test_a_large_picture_is_shown_smaller_and_a_small_one_larger(vessels):
    for side, shown in (((3000, 1500), (768, 384)), ((10, 8), (320, 256)), ((500, 700), (500, 700))):
        image, given = np.zeros((*side, 3), np.uint8), np.zeros(side, np.int64)
        given[side[0] // 2 :] = 1
        photo, answer, truth = pictures.at_size(image, given, given)
        assert photo.shape == (*shown, 3)
        assert answer.shape == truth.shape == shown
        assert answer.mean() == 0.5


def test_worst_median_and_best_are_shown_large(vessels):
    def places(values):
        result = evaluate(vessels, two_classes(1))
        counts = ConfusionMatrix(2, 255, image_dims=2)
        for i, share in enumerate(values):
            truth = np.zeros(100, int) if share is None else np.r_[np.ones(50, int), np.zeros(50, int)]
            answer = (
                np.zeros(100, int)
                if share is None
                else np.r_[np.ones(share, int), np.zeros(100 - share, int)]
            )
            counts.update(answer[None], truth[None], f"p{i}")
        scores = PictureScores(result.__class__(**{**vars(result), "confusion": counts}), Task(0, 1))
        return list(shown_large(scores).items())

    assert places([40, 10, 50, None, 30, 20]) == [
        (1, "Lowest score"), (5, "Second lowest"), (4, "Median"), (2, "Highest score")
    ]  # fmt: skip
    assert places([1, 2, 3, 4, 5, 6, 7])[2:] == [(2, "Third lowest"), (3, "Median"), (6, "Highest score")]
    assert places([40, 10]) == [(1, "Lowest score"), (0, "Highest score")]
    assert places([None, 10]) == [(1, "The only picture")]
    assert places([None]) == []


def test_alt_texts_say_what_the_pictures_show(vessels, tmp_path):
    page = reported(vessels, two_classes(2), tmp_path)
    alts = [i["alt"] for i in page.of("img")]
    assert alts[:4] == [
        "drawn 1: the picture, 60 by 40 pixels",
        "drawn 1: the truth, background 60%, vessel 40%",
        "drawn 1: the model's answer, background 67%, vessel 33%",
        "drawn 1: where it errs, of its pixels 6.7% missed",
    ]
    assert alts[-1] == "drawn 0: the picture and its mistakes"
    captions = [
        page.texts[i] for i, t in enumerate(page.texts) if t in ("Picture", "Truth", "Answer", "Mistakes")
    ]
    assert captions.count("Truth") == 2


def test_a_picture_without_an_object_has_no_score_and_is_said(vessels, tmp_path):
    samples = [
        *two_classes(2),
        Sample(np.zeros((40, 60, 3), np.uint8), np.zeros((40, 60), np.uint8), "empty"),
    ]
    page = reported(vessels, samples, tmp_path)
    assert "1 picture has no score: none of it is in the truth, and none was found." in page.texts
    items = [i for i in page.of("li") if "data-score" in i]
    assert (items[-1]["data-name"], items[-1]["data-score"]) == ("empty", "")
    assert "no score" in page.texts


def test_classes_in_another_order_are_drawn_in_their_own_colours(colors_model, tmp_path):
    """The truth in the colours of the labels' classes, the answer too."""
    back = LabelSet.of(COLORS.names[::-1])
    sample = Sample(quadrants(), 3 - quadrant_labels(), "turned")
    page = reported(Segmenter(colors_model), [sample], tmp_path, classes=back)
    truth, answer = (np.asarray(image_of(i["src"]).convert("RGB")) for i in page.of("img")[1:3])
    np.testing.assert_array_equal(truth, answer)
    assert tuple(truth[0, 0]) == back.colors[back.index("dark")]


# What it holds back


NASTY = [
    '"><img src=x onerror=alert(1)>',
    "<script>alert(1)</script>",
    "' onmouseover='x",
    "\u202egnp.exe\n&amp;",
]


def test_no_name_makes_markup_and_nothing_is_asked_of_anybody(colors_model, tmp_path):
    def made(names, out):
        segmenter = Segmenter(
            colors_model, card=CARD.replace(name=names[0], labels=LabelSet.of(names), scores=())
        )
        samples = [Sample(quadrants(), (quadrant_labels() + i) % 4, name) for i, name in enumerate(names)]
        gallery = Gallery(segmenter.classes)
        result = evaluate(
            segmenter, samples, data=names[1], part=names[2], mean_over=names, look=gallery.look
        )
        run = Run(
            {"data": names[0], "losses": {names[1]: 1.0}},
            [{"step": 1, "loss": 1.0, "parts": {names[1]: 1.0}}],
        )
        write_report(result, segmenter, out / "train", gallery=gallery, run=run, when=WHEN)
        write_report(result, segmenter, out, gallery=gallery, when=WHEN)
        return [(out / place / "report.html").read_text(encoding="utf-8") for place in (".", "train")]

    plain = made(["one", "two", "three", "four"], tmp_path / "plain")
    for nasty, usual in zip(made(NASTY, tmp_path / "nasty"), plain, strict=True):
        tags = [[(tag, sorted(attributes)) for tag, attributes in Page(html).tags] for html in (nasty, usual)]
        assert tags[0] == tags[1]
        page = Page(nasty)
        assert NASTY[0] in page.texts
        assert "\u202e" not in nasty
        for tag, attributes in page.tags:
            assert not any(name.startswith("on") for name in attributes)
            for name in ("src", "href", "action", "srcset", "data"):
                assert attributes.get(name, "data:").startswith("data:"), (tag, attributes)
        assert "url(" not in nasty
        assert "@import" not in nasty
        policy = next(
            a["content"] for a in page.of("meta") if a.get("http-equiv") == "Content-Security-Policy"
        )
        assert policy.startswith("default-src 'none'; img-src data:;")
    assert sorted(path.name[:3] for path in (tmp_path / "nasty" / "worst").iterdir()) == [
        "01_",
        "02_",
        "03_",
        "04_",
    ]


def test_thumbnails_are_small_and_as_many_as_is_said(vessels, tmp_path, monkeypatch):
    monkeypatch.setattr(pictures, "MOST_THUMBNAILS", 4)
    monkeypatch.setattr("pixelwise.report.shown.MOST_THUMBNAILS", 4)
    samples = two_classes(7)
    order = [3, 0, 6, 1, 5, 2, 4]
    page = reported(vessels, [samples[i] for i in order], tmp_path)
    says = "The 4 pictures with the lowest scores have a thumbnail, the other 3 only their score."
    assert any(text.startswith(says) for text in page.texts)
    items = [i["data-name"] for i in page.of("li") if "data-score" in i]
    assert len(items) == 7
    thumbs = [i for i in page.of("img") if "loading" in i]
    assert [i["alt"].split(":")[0] for i in thumbs] == items[:4]
    for thumb in thumbs:
        assert max(image_of(thumb["src"]).size) <= 2 * pictures.THUMBNAIL_PX


@pytest.mark.slow
def test_a_page_of_2000_pictures_stays_below_ten_megabytes(vessels, tmp_path):
    """500 of noise, which no format makes small, and others of which nothing is kept."""
    noise = np.random.default_rng(0).integers(0, 256, (96, 96, 3), dtype=np.uint8)
    wrong, (right, *_) = (noise[..., 0] < 128).astype(np.uint8), two_classes()

    class Many:
        def __len__(self):
            return 2000

        def __iter__(self):
            return (self[i] for i in range(2000))

        def __getitem__(self, number):
            name = f"a picture with a long name {number:05}"
            if number < 500:
                return Sample(np.roll(noise, number, axis=0), np.roll(wrong, number, axis=0), name)
            return Sample(right.image, right.mask, name)

    reported(vessels, Many(), tmp_path)
    assert 2e6 < (tmp_path / "report.html").stat().st_size < 10e6


# Plots, and the run


def test_the_histogram_counts_the_pictures():
    svg = plots.histogram(np.array([0.02, 0.5, 0.52, 1.0, 0.999, np.nan]), "Dice of <vessel>")
    bars = re.findall(r'<rect[^>]*height="([\d.]+)"><title>([^<]*)</title>', svg)
    assert [title for _, title in bars] == [
        "0 to 0.05: 1 picture",
        "0.5 to 0.55: 2 pictures",
        "0.95 to 1: 2 pictures",
    ]
    assert [float(height) for height, _ in bars] == [75, 150, 150]
    assert (
        'aria-label="Histogram of the Dice of &lt;vessel&gt; of 5 pictures: from 0.020 to 1.000, median 0.520"'
        in svg
    )
    assert "no picture has a score" in plots.histogram(np.array([np.nan]), "x")


def test_curves_stand_in_the_page_of_a_training_with_its_settings_and_their_reasons(vessels, tmp_path):
    lines = [
        {"step": s, "loss": 3 - s / 500, "parts": {"cross_entropy": 2 - s / 500, "dice": 1.0}}
        for s in range(1, 1001)
    ]
    lines += [{"step": 500, "score": 0.25}, {"step": 700, "score": 0.75}, {"step": 1000, "score": 0.5}]
    lines += [{"step": 1000, "loss": float("nan"), "parts": {"dice": float("inf")}}]
    config = {"crop": [320, 320], "steps": 1000, "reasons": {"crop": "vessels are 3 px wide: own size"}}
    page = reported(vessels, two_classes(2), tmp_path, run=Run(config, lines))
    assert "Training" in page.texts
    labels = [i["aria-label"] for i in page.of("svg")]
    assert labels[0].startswith("Loss by step, running mean: loss 2.998 to ")
    assert labels[1].startswith(
        "Mean IoU of validations by step: validation: best 0.750, last 0.250 to 0.500"
    )
    counts = [len(i["points"].split()) for i in page.of("polyline")]
    assert counts == [334, 334, 334, 3]  # of 1,000 steps every third
    heights = [float(point.split(",")[1]) for point in page.of("polyline")[3]["points"].split()]
    assert heights == [138.5, 63.5, 101.0]  # a quarter, three quarters, half of 150 above 176
    assert page.after("crop", 2) == ["[320, 320]", "vessels are 3 px wide: own size"]
    assert "reasons" not in page.texts
    assert not (tmp_path / "report.json").exists()
    assert not (tmp_path / "worst").exists()


# The page in a browser


BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")

PROBE = """{
const said = {};
const root = document.documentElement;
said.over = root.scrollWidth - root.clientWidth;
said.width = root.clientWidth;
said.outside = [...document.body.querySelectorAll("*")].filter((e) => {
  if (e.closest(".wide") && !e.matches(".wide")) return false;
  const box = e.getBoundingClientRect();
  return box.width && (box.right > root.clientWidth + 1 || box.left < -1);
}).map((e) => e.outerHTML.slice(0, 80));
const level = (c) => { const v = c / 255; return v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4; };
const light = ([r, g, b]) => 0.2126 * level(r) + 0.7152 * level(g) + 0.0722 * level(b);
const parts = (color) => color.match(/[\\d.]+/g).map(Number);
const paper = parts(getComputedStyle(document.body).backgroundColor);
said.dark = light(paper) < 0.2;
const texts = document.querySelectorAll("td, th, p, dt, dd, figcaption, label, small, b");
said.contrast = Math.min(...[...texts].map((e) => {
  const style = getComputedStyle(e);
  const [r, g, b, a = 1] = parts(style.backgroundColor);
  const card = e.closest(".figures li") ? parts(getComputedStyle(e.closest(".figures li")).backgroundColor) : paper;
  const under = [r, g, b].map((v, i) => v * a + card[i] * (1 - a));
  const two = [light(under), light(parts(style.color))].sort((x, y) => x - y);
  return (two[1] + 0.05) / (two[0] + 0.05);
}));
const shown = () => [...document.querySelectorAll("ol.all li")].filter((e) => !e.hidden).map(
  (e) => e.dataset.name + " " + e.querySelector("b").textContent);
const f = document.querySelector("form.choose");
const set = (name, value) => {
  f.elements[name].value = value;
  f.elements[name].dispatchEvent(new Event("input", { bubbles: true }));
};
said.form = !f.hidden;
said.first = shown();
set("order", "best"); said.best = shown();
set("order", "name"); said.name = shown();
set("order", "worst"); set("least", "0.85"); set("most", "0.95"); said.between = shown();
said.status = document.querySelector("#said").textContent;
set("least", ""); set("most", ""); set("part", "WN 1"); said.part = shown();
set("part", ""); set("of", "0"); said.of = shown();
const tab = [...document.querySelectorAll("select, input, summary, [tabindex='0']")];
said.named = tab.every((e) => e.closest("label") || e.getAttribute("aria-label") || e.textContent.trim());
const wide = () => document.querySelector(".large img").getBoundingClientRect().width;
said.before = wide();
document.querySelector(".large button").click();
said.larger = wide();
said.over += root.scrollWidth - root.clientWidth;
parent.postMessage(JSON.stringify(said), "*");
}"""

FRAME = """<!doctype html><meta name="color-scheme" content="light dark"><title></title>
<script>addEventListener("message", (event) => { document.title = "said " + event.data; });</script>
<iframe src="probe.html" style="width:WIDTHpx;height:900px;border:0"></iframe>"""
"""In a frame, because a window has a least width."""


@pytest.mark.slow
@pytest.mark.skipif(BROWSER is None, reason="no chromium")
@pytest.mark.parametrize("width", [420, 1200])
@pytest.mark.parametrize("dark", [False, True])
def test_the_page_in_a_browser(width, dark, vessels, tmp_path):
    """Nothing leaves the page sideways, all text stands out, and the list is sorted and filtered."""
    samples = [
        *two_classes(4),
        Sample(np.zeros((40, 60, 3), np.uint8), np.zeros((40, 60), np.uint8), "e" * 190),
    ]
    names = LabelSet.of(["background", "VeryLongNameOfAClass_" * 6])
    reported(vessels, samples, tmp_path, classes=names, by_place=True)
    html = (tmp_path / "report.html").read_text(encoding="utf-8")
    html = re.sub(r"<meta http-equiv=[^>]*>", "", html).replace("</body>", f"<script>{PROBE}</script></body>")
    (tmp_path / "probe.html").write_text(html, encoding="utf-8")
    (tmp_path / "frame.html").write_text(FRAME.replace("WIDTH", str(width)), encoding="utf-8")
    command = [BROWSER, "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'user'}",
               f"--blink-settings=preferredColorScheme={int(not dark)}", "--window-size=1300,900",
               "--virtual-time-budget=2000", "--dump-dom", (tmp_path / "frame.html").as_uri()]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    text = next(iter(re.findall(r"<title>said (.*?)</title>", done.stdout, re.S)), None)
    assert text is not None, done.stderr[-2000:]
    said = json.loads(text.replace("&amp;", "&").replace("&lt;", "<").replace("&gt;", ">"))
    assert said["dark"] == dark
    assert said["width"] <= width
    assert (said["over"], said["outside"]) == (0, [])
    assert said["contrast"] > 4.5
    assert said["form"]
    assert said["named"]
    assert said["larger"] > 1.5 * said["before"] > 100
    scores = {f"drawn {i}": 2 * 800 / (800 + 800 + 40 * (0, 4, 6, 8)[i]) for i in range(4)}
    rows = [f"{name} {score:.3f}" for name, score in sorted(scores.items(), key=lambda item: item[1])]
    empty = f"{'e' * 190} no score"
    assert said["first"] == [*rows, empty]
    assert said["best"] == [*rows[::-1], empty]
    assert said["name"] == [*rows[::-1], empty]
    assert said["between"] == [row for row in rows if 0.85 <= float(row[-5:]) <= 0.95] != []
    assert said["status"] == f"{len(said['between'])} of 5 pictures shown"
    assert said["part"] == ["drawn 1 0.909"]
    assert [row.rsplit(" ", 1)[1] for row in said["of"]] == sorted(
        row.rsplit(" ", 1)[1] for row in said["of"]
    )
    assert len(said["of"]) == 5


def test_the_command_writes_the_report_and_its_words(colors_model, tmp_path):
    data = tmp_path / "mine"
    for kind, values in (("images", quadrants()), ("masks", quadrant_labels())):
        (data / kind).mkdir(parents=True)
        for name in ("a", "b"):
            Image.fromarray(values).save(data / kind / f"{name}.png")
    run = ["evaluate", "--data", str(data), "--model", str(colors_model)]
    done = CliRunner().invoke(app.app, [*run, "--out", str(tmp_path / "out")])
    assert done.exit_code == 0, done.output
    assert "scored: all 2 pictures" in done.stdout
    found = json.loads((tmp_path / "out" / "report.json").read_text())
    assert (found["part"], found["pictures"]) == ("all 2 pictures", 2)
    (data / "classes.txt").write_text("dark\nrot\ngreen\nblue\n")
    refused = CliRunner().invoke(app.app, run)
    assert refused.exit_code != 0
    assert "its class 1 is 'red', theirs 'rot'" in str(refused.exception)
    meant = CliRunner().invoke(app.app, [*run, "--by-place", "--json"])
    assert json.loads(meant.stdout)["mean_iou"] == 1
    part = CliRunner().invoke(app.app, [*run, "--by-place", "--split", "val"]).stdout
    assert "scored: 1 of 2 pictures, the split val" in part


def test_scores_of_pictures_are_those_of_the_counts(vessels):
    result = evaluate(vessels, two_classes(3))
    scores = scores_of(result)
    np.testing.assert_allclose(scores.values, [1, 1600 / 1760, 1600 / 1840])
    assert scores.order == [2, 1, 0]
    assert scores.called == "Dice of vessel"


@pytest.mark.parametrize(
    ("last", "numbers"),
    [(1, [0, 1]), (30, [0, 10, 20, 30]), (44, [0, 10, 20, 30, 40]), (233, [0, 50, 100, 150, 200, 233])],
)
def test_the_steps_below_a_curve_are_round_numbers_in_their_places(last, numbers):
    lines = [{"step": step, "score": 0.5} for step in range(1, last + 1)]
    axis = plots.score_curve(lines)
    found = re.findall(r'<text x="([\d.]+)" y="(\d+)" text-anchor="(?:middle|end)">([\d,]+)</text>', axis)
    places = {int(number): float(x) for x, _, number in found}
    assert list(places) == numbers
    left, right = places[0], max(places.values())
    for number, x in places.items():
        assert (x - left) / (right - left) == pytest.approx(number / numbers[-1], abs=1e-3)

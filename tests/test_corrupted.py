"""evaluate --corrupt: the scores are those of pictures that were corrupted to files, and nothing else changes."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from pixelwise import Segmenter, SegmentOptions, evaluate
from pixelwise.cli import app
from pixelwise.corruptions import CORRUPTIONS, corrupt, parse
from pixelwise.datasets.opening import open_samples
from pixelwise.datasets.sample import Sample
from pixelwise.errors import InputError, UnknownNameError
from pixelwise.labels import LabelSet
from pixelwise.metrics import Calibration
from pixelwise.report import write_report
from pixelwise.report.text import table
from tiny import COLORS, quadrant_labels, quadrants

WANTED = "shot_noise,fog:5,contrast:2,jpeg:3"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three pictures of other sizes, with void; the tiny model is right about most pixels."""
    root = tmp_path / "data"
    for kind in ("images", "masks"):
        (root / kind).mkdir(parents=True)
    for number, name in enumerate("abc"):
        image, truth = quadrants()[number:, : 60 - number], quadrant_labels()[number:, : 60 - number].copy()
        truth[:5] = 255
        truth[30:, 20:25] = 1
        Image.fromarray(image).save(root / "images" / f"{name}.png")
        Image.fromarray(truth).save(root / "masks" / f"{name}.png")
    return root


def by_hand(folder: Path, to: Path, name: str, strength: int, seed: int) -> Path:
    """The data set with its pictures corrupted, as lossless files."""
    shutil.copytree(folder, to)
    for path in (to / "images").iterdir():
        image = np.asarray(Image.open(path).convert("RGB"))
        Image.fromarray(corrupt(image, name, strength, picture=path.stem, seed=seed)).save(path)
    return to


def test_as_typed_the_scores_are_those_of_corrupted_files_and_the_others_stay(folder, colors_model, tmp_path):
    run = ["evaluate", "--data", str(folder), "--model", str(colors_model), "--split", "all", "--json"]
    plain = json.loads(CliRunner().invoke(app.app, run).stdout)
    assert "corrupted" not in plain
    typed = [*run, "--corrupt", WANTED, "--seed", "5"]
    result = CliRunner().invoke(app.app, typed)
    scores = json.loads(result.stdout)
    assert {key: value for key, value in scores.items() if key != "corrupted"} == plain
    found = scores["corrupted"]
    assert found["seed"] == 5
    assert found["clean"]["mean_iou"] == plain["mean_iou"]
    assert [(n, int(s)) for n, row in found["corruptions"].items() for s in row["strengths"]] == list(
        parse(WANTED)
    )
    for name, strength in (("shot_noise", 5), ("fog", 5), ("contrast", 2), ("jpeg", 3)):
        files = by_hand(folder, tmp_path / f"{name}{strength}", name, strength, 5)
        other = [*run[:2], str(files), *run[3:]]
        expected = json.loads(CliRunner().invoke(app.app, other).stdout)
        row = found["corruptions"][name]["strengths"][str(strength)]
        assert row["mean_iou"] == expected["mean_iou"]
        assert row["retention"] == expected["mean_iou"] / plain["mean_iou"]
    assert json.loads(CliRunner().invoke(app.app, typed).stdout) == scores
    another = json.loads(CliRunner().invoke(app.app, [*typed[:-1], "6"]).stdout)["corrupted"]
    assert another["corruptions"]["jpeg"] == found["corruptions"]["jpeg"]
    assert another["corruptions"]["shot_noise"] != found["corruptions"]["shot_noise"]


def test_calibration_and_risk_are_those_of_the_answers(folder, colors_model):
    segmenter, samples = Segmenter(colors_model), open_samples(folder, split="all")
    found = evaluate(segmenter, samples, corrupt=["contrast:1"]).to_dict()["corrupted"]
    for row, change in (
        (found["clean"], lambda sample: sample.image),
        (
            found["corruptions"]["contrast"]["strengths"]["1"],
            lambda sample: corrupt(sample.image, "contrast", 1, picture=sample.name),
        ),
    ):
        counted = Calibration(4)
        for sample in samples:
            answer = segmenter(change(sample), confidence=True)
            counted.update(answer.confidence, answer.labels, sample.mask)
        assert row["expected_calibration_error"] == counted.expected_error()
        assert row["area_under_risk_coverage"] == counted.area_under_risk_coverage()
    assert found["clean"] != found["corruptions"]["contrast"]["strengths"]["1"]


def test_means_are_over_strengths_then_over_corruptions_and_noise_also_over_three(folder, colors_model):
    samples = open_samples(folder, split="all")
    found = evaluate(Segmenter(colors_model), samples, corrupt="all").to_dict()["corrupted"]
    clean, rows = found["clean"]["mean_iou"], found["corruptions"]
    iou = {name: [row["strengths"][str(s)]["mean_iou"] for s in range(1, 6)] for name, row in rows.items()}
    assert list(iou) == list(CORRUPTIONS)
    for name, row in rows.items():
        assert row["mean_iou"] == pytest.approx(sum(iou[name]) / 5)
        assert row["retention"] == pytest.approx(sum(iou[name]) / 5 / clean)
        eces = [one["expected_calibration_error"] for one in row["strengths"].values()]
        assert row["expected_calibration_error"] == pytest.approx(sum(eces) / 5)
        assert ("retention_of_strengths_1_to_3" in row) == name.endswith("noise")
    blurs = [sum(v) / 5 / clean for name, v in iou.items() if name.endswith("blur")]
    assert found["families"]["blur"]["retention"] == pytest.approx(sum(blurs) / 5)
    assert found["mean"]["retention"] == pytest.approx(sum(sum(v) / 5 for v in iou.values()) / 18 / clean)
    sixteen = [
        sum(v[:3]) / 3 if name.endswith("noise") else sum(v) / 5
        for name, v in iou.items()
        if name not in ("zoom_blur", "pixelate")
    ]
    assert len(sixteen) == 16
    assert found["cityscapes-c"]["retention"] == pytest.approx(sum(sixteen) / 16 / clean)
    assert rows["fog"]["family"] == "weather"


def test_the_order_and_the_company_of_pictures_and_corruptions_change_nothing(folder, colors_model):
    segmenter, samples = Segmenter(colors_model), list(open_samples(folder, split="all"))
    one = evaluate(segmenter, samples, corrupt="noise,fog").robustness
    other = evaluate(segmenter, samples[::-1], corrupt="fog,impulse_noise:4").robustness
    for key, counts in other.corrupted.items():
        np.testing.assert_array_equal(counts.confusion.matrix, one.corrupted[key].confusion.matrix)
        np.testing.assert_array_equal(counts.calibration.pixels, one.corrupted[key].calibration.pixels)
    parts = [evaluate(segmenter, [sample], corrupt="fog:2").robustness for sample in samples]
    merged = sum(part.corrupted["fog", 2].confusion.matrix for part in parts)
    np.testing.assert_array_equal(merged, one.corrupted["fog", 2].confusion.matrix)


def test_the_mean_is_over_the_classes_that_were_named(folder, colors_model):
    result = evaluate(
        Segmenter(colors_model),
        open_samples(folder, split="all"),
        corrupt="contrast:5",
        mean_over=["red", "blue"],
    )
    robust = result.robustness
    red_blue = [
        counts.confusion.iou()[[1, 3]].mean() for counts in (robust.clean, robust.corrupted["contrast", 5])
    ]
    found = result.to_dict()["corrupted"]
    assert found["clean"]["mean_iou"] == pytest.approx(red_blue[0])
    assert found["mean"]["retention"] == pytest.approx(red_blue[1] / red_blue[0])
    assert "IoU: mean IoU of red, blue; " in table(result)


def test_classes_in_another_order_and_protocols_of_another_size_score_corrupted_pictures_alike(colors_model):
    image = quadrants()
    truth = quadrant_labels()
    segmenter = Segmenter(colors_model)
    for protocol in ("own-size", "torchvision"):
        straight = evaluate(segmenter, [Sample(image, truth, "q")], corrupt="contrast:2", protocol=protocol)
        turned = evaluate(
            segmenter,
            [Sample(image, 3 - truth, "q")],
            classes=LabelSet.of(COLORS.names[::-1]),
            corrupt="contrast:2",
            protocol=protocol,
        )
        by_file = evaluate(
            segmenter, [Sample(corrupt(image, "contrast", 2, picture="q"), truth, "q")], protocol=protocol
        )
        matrix = straight.robustness.corrupted["contrast", 2].confusion.matrix
        np.testing.assert_array_equal(matrix, by_file.confusion.matrix)
        np.testing.assert_array_equal(
            turned.robustness.corrupted["contrast", 2].confusion.matrix, matrix[::-1, ::-1]
        )


def test_a_class_that_only_a_corruption_brings_is_no_class_of_the_mean(colors_model):
    """Else a stronger corruption that brings no such class would look better than a weaker one."""
    from tiny import quadrant_labels, quadrants

    image, truth = quadrants(), quadrant_labels().astype(np.int64)
    truth[truth == 3] = (
        255  # nothing of it is labelled, and parts of the others are answered as it under noise
    )
    found = evaluate(Segmenter(colors_model), [Sample(image, truth, "q")], corrupt="impulse_noise", seed=1)
    said = found.to_dict()["corrupted"]
    assert said["classes"] == list(COLORS.names[:3])
    for strength in range(1, 6):
        confusion = found.robustness.corrupted["impulse_noise", strength].confusion
        expected = np.mean(confusion.iou()[:3])
        assert said["corruptions"]["impulse_noise"]["strengths"][str(strength)]["mean_iou"] == expected
    assert confusion.matrix[:3, 3].sum() > 0
    assert confusion.mean_iou() != expected


def test_pixels_without_an_answer_are_said_for_each_corruption(folder, colors_model):
    options = SegmentOptions(min_confidence=0.43)
    samples, segmenter = open_samples(folder, split="all"), Segmenter(colors_model)
    found = evaluate(segmenter, samples, corrupt="contrast:1,contrast:5", options=options).to_dict()
    assert found["corrupted"]["clean"]["answered"] == found["answered"]
    labelled = answered = 0
    for sample in samples:
        given = segmenter.segment(corrupt(sample.image, "contrast", 1, picture=sample.name), options).labels
        labelled += (sample.mask != 255).sum()
        answered += ((sample.mask != 255) & (given != 255)).sum()
    rows = found["corrupted"]["corruptions"]["contrast"]["strengths"]
    assert rows["1"]["answered"] == answered / labelled < 1
    assert rows["5"] == {  # no pixel is sure enough
        "mean_iou": None, "expected_calibration_error": None, "area_under_risk_coverage": None, "answered": 0,
        "retention": None,
    }  # fmt: skip
    assert found["corrupted"]["mean"]["retention"] is None
    plain = evaluate(segmenter, samples, corrupt="fog:1").to_dict()["corrupted"]
    assert "answered" not in plain["clean"]


def test_a_model_that_is_always_wrong_retains_nothing_that_can_be_said(colors_model, tmp_path):
    samples = [Sample(quadrants(), (quadrant_labels() + 1) % 4, "q")]
    segmenter = Segmenter(colors_model)
    result = evaluate(segmenter, samples, corrupt="jpeg:1,noise")
    found = result.to_dict()["corrupted"]
    assert found["clean"]["mean_iou"] == 0
    assert found["mean"]["retention"] is None
    assert "nan" not in table(result)
    write_report(result, segmenter, tmp_path)
    html = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "nan" not in re.sub('"data:[^"]*"', "", html)


def test_wrong_names_and_strengths_are_answered_in_one_sentence_before_anything_is_read(folder, colors_model):
    (folder / "images" / "a.png").write_bytes(b"no picture")
    run = [
        sys.executable,
        "-m",
        "pixelwise",
        "evaluate",
        "--data",
        folder,
        "--model",
        colors_model,
        "--split",
        "all",
    ]
    wrong = subprocess.run([*run, "--corrupt", "jpeg,fgo"], capture_output=True, text=True)
    assert (wrong.returncode, wrong.stderr, wrong.stdout) == (
        2,
        "pixelwise: Unknown corruption 'fgo'; did you mean 'fog'?\n",
        "",
    )
    for typed, says in (
        ("fog:7", "the strength of fog is a whole number from 1 to 5, got 7"),
        ("", "corrupt takes names such as fog or jpeg:3, or all, got ''"),
    ):
        result = CliRunner().invoke(app.app, [*map(str, run[3:]), "--corrupt", typed])
        assert isinstance(result.exception, InputError)
        assert says in str(result.exception)
    with pytest.raises(UnknownNameError, match="did you mean 'snow'"):
        evaluate(Segmenter(colors_model), [], corrupt=["snw"])
    grey = Sample(quadrants()[..., 0], quadrant_labels(), "grey")
    with pytest.raises(InputError, match="corruptions are made of uint8 RGB pictures"):
        evaluate(Segmenter(colors_model), [grey], corrupt="fog")


def test_the_report_shows_a_table_and_a_plot_in_both_lights_and_on_a_phone(folder, colors_model, tmp_path):
    run = ["evaluate", "--data", str(folder), "--model", str(colors_model), "--split", "all"]
    out = tmp_path / "report"
    text = CliRunner().invoke(app.app, [*run, "--corrupt", "all", "--out", str(out)]).stdout
    found = json.loads((out / "report.json").read_text())["corrupted"]
    fog = found["corruptions"]["fog"]
    line = next(line.split() for line in text.splitlines() if line.startswith("fog"))
    assert line[1:6] == [f"{fog['strengths'][str(s)]['mean_iou']:.3f}" for s in range(1, 6)]
    assert line[6:8] == [f"{fog['mean_iou']:.3f}", f"{fog['retention']:.1%}"]
    assert f"retained as Cityscapes-C counts, all sixteen: {found['cityscapes-c']['retention']:.1%}" in text
    html = (out / "report.html").read_text(encoding="utf-8")
    cells = re.findall(r"<td>([^<]*)</td>", html[html.index('<th scope="row">fog</th>') :])[:19]
    assert cells[:2] == [f"{fog['retention']:.1%}", f"{fog['strengths']['1']['mean_iou']:.3f}"]
    assert cells[12] == f"{fog['expected_calibration_error']:.3f}"
    assert cells[18] == f"{fog['area_under_risk_coverage']:.3f}"
    assert html.count("<svg") == 4 + 1  # and the histogram
    assert "prefers-color-scheme: dark" in html
    assert 'name="viewport"' in html
    weather = re.search(r'<svg[^>]*aria-label="[^"]*weather".*?</svg>', html)[0]
    heights = [float(y) for y in re.findall(r'class="dot l2" cx="[\d.]+" cy="([\d.]+)"', weather)]
    shares = [one["retention"] for one in fog["strengths"].values()]
    lines = [float(y) for y in re.findall(r'class="grid" d="M44 ([\d.]+)', weather)]  # 0 % to 100 %
    np.testing.assert_allclose((lines[0] - np.array(heights)) / (lines[0] - lines[-1]), shares, atol=2e-3)
    plain = tmp_path / "plain"
    CliRunner().invoke(app.app, [*run, "--out", str(plain)])
    assert (plain / "report.html").read_text(encoding="utf-8").count("<svg") == 1


def test_the_page_of_results_shows_the_numbers_that_were_scored():
    results = pytest.importorskip("results_corrupted")
    found = json.loads(results.NUMBERS.read_text(encoding="utf-8"))
    assert results.table(found) in (results.DOCS / "results.md").read_text(encoding="utf-8")
    assert results.plot(found) == results.PLOT.read_text(encoding="utf-8")
    assert set(found["corruptions"]) == set(CORRUPTIONS)

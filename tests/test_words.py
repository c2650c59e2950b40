"""What commands and reports say beside their scores: each figure is the right one, each option does what it is named
for, and what a legend or a heading calls something is what it is."""

from __future__ import annotations

import io
import json
import re
from html import unescape
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from drawn import draw_folder
from pixelwise import images
from pixelwise.cli import models
from pixelwise.cli import segment as cli_segment
from pixelwise.datasets.doctor import examine
from pixelwise.datasets.opening import open_data
from pixelwise.report import corrupted, mistakes, plots
from test_plan import PERSON, planned, print_of
from test_report import Page, reported, two_classes, vessels  # noqa: F401  (the last is a fixture)
from tiny import quadrants


def test_figures_of_a_plan_are_those_of_its_run():
    config = planned(print_of(PERSON, side=1500))
    assert "'person', is 24 px wide and stays 8" in config.reasons["image_size"]
    config = planned(print_of(PERSON))  # 400 x 400, of which 4.34 crops of 192 x 192 would be a picture
    assert (config.steps, config.warmup_steps, config.validate_every) == (2000, 100, 100)
    assert (
        config.reasons["steps"] == "each of 40 pictures is seen 50 times, in 4.0 crops; --budget sets others"
    )
    assert config.reasons["validate_every"] == "20 times, on 8 pictures kept back by their names"
    assert [planned(print_of(PERSON), steps=n).warmup_steps for n in (1, 19, 40, 999)] == [0, 0, 2, 49]


def test_of_two_lists_of_classes_the_one_that_is_obeyed_is_named_and_removing_the_other_mends_it(tmp_path):
    root = draw_folder(tmp_path / "mine", 3)
    said = {"classes": [{"id": i, "name": n} for i, n in enumerate(("ground", "disc", "box"))]}
    (root / "pixelwise.json").write_text(json.dumps(said))
    (found,) = [f for f in examine(open_data(root)).findings if f.severity == "error"]
    assert found.message == "pixelwise.json says that id 2 is 'box', and classes.txt that it is 'square'"
    assert found.fix == "pixelwise.json is obeyed: correct it, or remove classes.txt"
    assert open_data(root).classes.names[2] == "box"
    Path(found.file).unlink()
    assert examine(open_data(root)).safe


def test_a_stopped_folder_goes_on_as_it_is_told(typed, colors_model, monkeypatch):
    Path("in").mkdir()
    for name in "abc":
        Image.fromarray(quadrants()).save(f"in/{name}.png")
    whole = cli_segment.segment_all

    def stopped(*arguments, **options):
        yield next(whole(*arguments, **options))
        raise KeyboardInterrupt

    line = f"segment in --model {colors_model} --out out --format npy"
    with monkeypatch.context() as patched:
        patched.setattr(cli_segment, "segment_all", stopped)
        said = typed(line)
    assert said.code == 130
    (option,) = re.findall(r"the same command with (\S+) goes on from there", said.err)
    kept = {path: path.stat().st_mtime_ns for path in Path("out").glob("*.npy")}
    assert 0 < len(kept) < 4
    assert typed(f"{line} {option}").code == 0
    assert sorted(path.name for path in Path("out").glob("*.npy")) == ["a.npy", "b.npy", "c.npy"]
    assert {path: path.stat().st_mtime_ns for path in kept} == kept


def test_each_word_of_the_column_of_weights_is_explained_below(typed):
    said = typed("models")
    rows, legend = said.out.split("\n\n", 1)
    used = {word for row in rows.splitlines()[1:] for word in models.WEIGHTS.values() if row.endswith(word)}
    assert used == set(models.WEIGHTS.values())
    legend = " ".join(legend.split())
    assert "weights: in package, or fetched on first use;" in legend
    assert (
        "by hand: official files, which --model opens once you have them; none: none are published" in legend
    )


def test_the_confusion_of_the_page_has_the_truth_in_its_rows(vessels, tmp_path):  # noqa: F811
    reported(vessels, two_classes(), tmp_path)
    html = (tmp_path / "report.html").read_text(encoding="utf-8")
    table = re.search(r'<table class="confusion".*?</table>', html, re.DOTALL)[0]
    caption = "Each row is a class in the truth, each column what the model answered; numbers are percent of the row"
    assert caption in unescape(table)
    rows = [re.findall(r"<t[hd][^>]*>([^<]*)</t[hd]>", row) for row in re.findall(r"<tr>.*?</tr>", table)]
    # 800 of 800, 960 and 1040 pixels of vessels were found, and nothing else
    assert rows[-2:] == [["background", "100", "0", "4,400"], ["vessel", "14", "86", "2,800"]]


def test_half_a_percent_in_the_confusion_of_the_page_is_not_none(vessels, tmp_path):  # noqa: F811
    (sample,) = two_classes(1)
    sample.mask[10, 10:18], sample.mask[0, :8] = 0, 255  # 8 of 1600 pixels are taken for a vessel
    reported(vessels, [sample], tmp_path)
    cells = re.findall(
        r'<td class="[^"]*" style[^>]*>([^<]*)<', (tmp_path / "report.html").read_text(encoding="utf-8")
    )
    assert [unescape(cell) for cell in cells] == [">99", "<1", "100"]


def test_what_the_legend_of_mistakes_says_of_a_colour_is_what_has_it(vessels, tmp_path):  # noqa: F811
    samples = two_classes(2)
    samples[1].image[36:, 40:, 0] = 255  # which nobody labelled
    reported(vessels, samples, tmp_path)
    html = (tmp_path / "report.html").read_text(encoding="utf-8")
    said = {
        text: tuple(map(int, re.findall(r"\d+", colour)))
        for colour, text in re.findall(r'background:rgb(\([^)]*\))"></i><span>([^<]*)</span>', html)
    }
    target = np.array([[0, 0, 1, 1]])
    found = mistakes.verdict(np.array([[0, 1, 0, 1]]), target, 0, 255)
    shown = mistakes.picture(np.zeros((1, 4, 3), np.uint8), found).convert("RGB")
    colours = [shown.getpixel((x, 0)) for x in range(4)]
    assert colours[1:] == [
        said["invented: found, and not there"], said["missed: there, and not found"], said["right"]
    ]  # fmt: skip


@pytest.mark.parametrize(("most", "ticks"), [(3, "0 1 2 3"), (21, "0 6 12 18 24"), (250, "0 80 160 240 320")])
def test_the_histogram_counts_in_round_numbers(most, ticks):
    svg = plots.histogram(np.full(most, 0.5), "Dice")
    assert re.findall(r'text-anchor="end">([\d,]+)</text>', svg)[: len(ticks.split())] == ticks.split()


@pytest.mark.parametrize("count", [1, 2, 3, 6])
def test_the_legend_below_a_plot_of_corruptions_lies_inside_of_it(count):
    row = {
        "family": "noise",
        "retention": 0.9,
        "strengths": {str(s): {"retention": 0.9} for s in range(1, 6)},
    }
    svg = corrupted.retention_plot({"corruptions": {f"{i}_noise": row for i in range(count)}}, "noise")
    (tall,) = re.findall(r'viewBox="0 0 340 (\d+)"', svg)
    lowest = max(int(y) for y in re.findall(r'<text x="\d+" y="(\d+)">', svg))
    assert lowest + 4 < int(tall) < lowest + 12


def test_a_second_page_that_cannot_be_read_is_no_second_picture(recwarn):
    file, image = io.BytesIO(), Image.fromarray(quadrants())
    image.save(file, "TIFF", save_all=True, append_images=[image])
    data = file.getvalue()
    entries = int.from_bytes(
        data[8:10], "little"
    )  # of the first page's list, which ends with the place of the next
    nowhere = (len(data) + 1000).to_bytes(4, "little")
    damaged = data[: 10 + 12 * entries] + nowhere + data[14 + 12 * entries :]
    np.testing.assert_array_equal(images.read(damaged), quadrants())
    assert [str(one.message) for one in recwarn if "holds" in str(one.message)] == []
    images.read(data)
    assert "holds more than one picture; the first is used" in str(recwarn[-1].message)

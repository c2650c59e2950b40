"""Engine and precision are noted: in results, in journals, and --resume takes what is noted there."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pixelwise import Segmenter
from pixelwise.pipeline.journal import JOURNAL
from tiny import quadrants


@pytest.fixture(autouse=True)
def photos(typed) -> None:
    for i in range(2):
        Image.fromarray(quadrants()).save(f"{i}.png")


def finished() -> list[dict]:
    lines = [json.loads(line) for line in Path("out", JOURNAL).read_text().splitlines()]
    return [line for line in lines if "source" in line]


def test_a_result_says_which_engine_made_it_in_which_precision(colors_model):
    found = Segmenter(colors_model, threads=1)(quadrants())
    assert (found.engine, found.precision) == ("onnxruntime", "float32")
    assert (found.to_dict()["engine"], found.to_dict()["precision"]) == ("onnxruntime", "float32")


def test_lines_files_and_journals_say_it(typed, colors_model):
    made = typed(f"segment 0.png 1.png -m {colors_model} --engine openvino --format json --json -o out")
    assert made.code == 0
    for line in made.out.splitlines():
        assert json.loads(line)["engine"] == "openvino"
    assert json.loads(Path("out/0.json").read_text())["precision"] == "float32"
    assert [(line["engine"], line["precision"]) for line in finished()] == [("openvino", "float32")] * 2


def test_resume_takes_the_engine_that_is_noted(typed, colors_model, monkeypatch):
    command = f"segment 0.png 1.png -m {colors_model} --format npy --threads 1 -o out"
    assert typed(command).code == 0
    journal = Path("out", JOURNAL).read_text()
    cut = journal.replace('"onnxruntime"', '"openvino"').splitlines()
    Path("out", JOURNAL).write_text("\n".join(cut[:-1]) + "\n")
    assert typed(f"{command} --resume").code == 0
    assert [line["engine"] for line in finished()] == ["openvino", "openvino"]
    # what is noted and not there is refused
    Path("out", JOURNAL).write_text("\n".join(cut[:-1]) + "\n")
    monkeypatch.delitem(sys.modules, "pixelwise.engines.openvino", raising=False)
    monkeypatch.delitem(sys.modules, "pixelwise.silent", raising=False)
    monkeypatch.setitem(sys.modules, "openvino", None)
    refused = typed(f"{command} --resume")
    assert refused.code == 1
    assert "pip install 'pixelwise[openvino]'" in refused.err


def test_resume_goes_on_with_what_was_asked_for_without_saying_it_again(typed, colors_model):
    command = f"segment 0.png 1.png -m {colors_model} --format npy --threads 1 -o out"
    assert typed(f"{command} --engine openvino --precision float32").code == 0
    Path("out/1.npy").unlink()
    assert typed(f"{command} --resume").code == 0
    assert [line["engine"] for line in finished()][-1] == "openvino"
    assert Path("out/1.npy").exists()
    Path("out/1.npy").unlink()
    refused = typed(f"{command} --resume --engine onnxruntime")
    assert refused.code == 2
    assert "engine: openvino, now onnxruntime" in refused.err


def test_resume_in_another_precision_is_refused(typed, colors_model):
    command = f"segment 0.png 1.png -m {colors_model} --format npy --threads 1 -o out"
    assert typed(command).code == 0
    refused = typed(f"{command} --resume --precision float32")
    assert refused.code == 2
    assert "precision: None, now float32" in refused.err
    np.testing.assert_array_equal(np.load("out/0.npy"), np.load("out/1.npy"))


def test_evaluate_says_it_and_takes_a_precision(typed, colors_model):
    for folder in ("images", "masks"):
        Path("set", folder).mkdir(parents=True)
    Image.fromarray(quadrants()).save("set/images/a.png")
    Image.fromarray(Segmenter(colors_model, threads=1)(quadrants()).labels).save("set/masks/a.png")
    scores = typed(f"evaluate --data set -m {colors_model} --engine openvino --precision float32 --json")
    assert scores.code == 0, scores.err
    said = json.loads(scores.out)
    assert (said["engine"], said["precision"], said["pixel_accuracy"]) == ("openvino", "float32", 1.0)
    refused = typed(f"evaluate --data set -m {colors_model} --precision int8")
    assert "quantise it first: pixelwise quantize" in refused.err

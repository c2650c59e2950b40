"""`pixelwise bench` as typed, and what becomes of contenders that die, hang or cannot take part."""

from __future__ import annotations

import dataclasses
import json
import os
import shlex
import signal
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import onnx
import openvino
import pytest
from onnx import TensorProto, helper, numpy_helper
from PIL import Image
from typer.testing import CliRunner

from pixelwise.bench import (
    Benchmark,
    Measured,
    _contenders,
    _measured,
    _pictures,
    _use,
    bench,
    contender,
    drawn,
)
from pixelwise.bench.contender import Contender, Running
from pixelwise.bench.plot import plot
from pixelwise.cli.app import app
from pixelwise.cli.bench import table
from pixelwise.errors import InputError
from pixelwise.weights.card import CARD_KEY, Card
from tiny import write_colors_model

HAS_BFLOAT16 = "BF16" in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")


def pictures(folder: Path, count: int = 3) -> Path:
    folder.mkdir()
    draw = np.random.default_rng(0)
    for i in range(count):
        Image.fromarray(draw.integers(0, 255, (20, 24, 3), np.uint8)).save(folder / f"{i}.png")
    return folder


def test_every_engine_takes_its_turns_and_the_last_line_works_as_typed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_colors_model(Path("colors.onnx"))
    data = pictures(tmp_path / "mine")
    words = "bench colors.onnx --data mine --engine onnxruntime,openvino --batch 1,2 --rounds 2 --threads 1"
    done = CliRunner().invoke(app, [*shlex.split(words), "--out", "plot.svg"])
    assert done.exit_code == 0, done.output
    lines = done.stdout.splitlines()
    rows = [line.split() for line in lines[1:8] if line and line.split()[0] in ("onnxruntime", "openvino")]
    ours = ["float32", "bfloat16"] if HAS_BFLOAT16 else ["float32"]
    expected = [["onnxruntime", "float32", batch] for batch in "12"]
    expected += [["openvino", precision, batch] for batch in "12" for precision in ours]
    assert [row[:3] for row in rows] == expected
    assert ("left out: colors.onnx openvino bfloat16" in done.stdout) is not HAS_BFLOAT16
    assert all(row[-1] == "100.00" for row in rows if row[1] == "float32")
    assert max(map(len, lines)) <= 80
    assert "3 pictures of mine" in done.stdout.replace("\n", " ")
    root = ElementTree.parse("plot.svg").getroot()
    assert len(root.findall("{http://www.w3.org/2000/svg}circle")) == len(expected)
    command = shlex.split(lines[-1].replace("PICTURES", str(data)))
    assert command[0] == "pixelwise"
    assert CliRunner().invoke(app, [*command[1:], "--out", "masks"]).exit_code == 0
    assert len(list(Path("masks").glob("*.labels.png"))) == 3
    refused = CliRunner().invoke(app, ["bench", "colors.onnx", "--out", "plot.svg"])
    assert "plot.svg" in str(refused.exception)
    assert "--overwrite" in str(refused.exception)


def test_labels_give_a_mean_iou_and_json_every_figure(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_colors_model(Path("colors.onnx"))
    options = {"save_as_external_data": True, "location": "weights", "size_threshold": 0}
    onnx.save(onnx.load("colors.onnx"), "colors.onnx", **options)
    (tmp_path / "set").mkdir()
    images = pictures(tmp_path / "set" / "images")
    masks = tmp_path / "set" / "masks"
    masks.mkdir()
    for path in images.iterdir():
        Image.fromarray((np.asarray(Image.open(path)).mean(axis=2) > 128).astype(np.uint8)).save(
            masks / path.name
        )
    done = CliRunner().invoke(app, shlex.split("evaluate --data set --model colors.onnx --by-place --json"))
    assert done.exit_code == 0, done.output
    expected = json.loads(done.stdout)["mean_iou"]
    (tmp_path / "set" / "classes.txt").write_text("\n".join(json.loads(done.stdout)["classes"]))
    done = CliRunner().invoke(
        app, shlex.split("bench colors.onnx --data set --engine onnxruntime --rounds 1 --json")
    )
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    (row,) = found["rows"]
    assert row["mean_iou"] == pytest.approx(expected)
    assert row["file_mb"] == pytest.approx(
        sum(Path(name).stat().st_size for name in ("colors.onnx", "weights")) / 1e6
    )
    assert row["peak_mb"] > 20
    assert row["per_second"] == pytest.approx(1e3 / row["median_ms"])
    assert found["pictures"] == "3 labelled pictures of set"


def test_pictures_are_drawn_evenly_from_the_whole_folder(tmp_path):
    folder = pictures(tmp_path / "mine", 20)
    paths, labelled = _pictures(folder, tmp_path)
    assert [Path(path).stem for path in paths] == sorted(map(str, range(20)))[::3]
    assert labelled is None


def test_one_in_twenty_is_slower_than_the_95th_percentile(tmp_path):
    one = Running(Contender("a", "auto", None, 2, 1), tmp_path)
    one.seconds, one.peak_mb = [i / 1000 for i in range(1, 41)], lambda: 1.0  # type: ignore[method-assign]
    found = _measured(one)
    assert (found.median_ms, found.p95_ms, found.per_second) == pytest.approx((20.5, 39, 2 / 0.0205))


def test_a_contender_that_dies_in_a_later_round_is_left_out_once(tmp_path, monkeypatch):
    model, time = str(write_colors_model(tmp_path / "colors.onnx")), Running.time

    def dies(one, number):
        if one.engine == "openvino" and number == 1:
            os.kill(one._process.pid, signal.SIGKILL)
        time(one, number)

    monkeypatch.setattr(Running, "time", dies)
    data = pictures(tmp_path / "mine")
    found = bench([model], data, engines=["onnxruntime", "openvino"], precisions=["float32"], rounds=4)
    assert [row.engine for row in found.rows] == ["onnxruntime"]
    assert found.left_out == ((f"{model} openvino", "its process died (signal 9)"),)


def test_a_contender_that_dies_or_hangs_is_a_sentence(tmp_path, monkeypatch):
    model = str(write_colors_model(tmp_path / "colors.onnx"))
    path = tmp_path / "a.png"
    Image.fromarray(drawn(0, (24, 32))).save(path)
    with Running(Contender(model, "auto", None, 1, 1), tmp_path) as one:
        one.open([str(path)], None)
        one.time(0)
        assert one._process is not None
        os.kill(one._process.pid, signal.SIGSTOP)
        with monkeypatch.context() as patched:
            patched.setattr(contender, "PATIENCE_S", 0.05)
            with pytest.raises(InputError, match="no answer within 0 seconds"):
                one.time(1)
        with pytest.raises(InputError, match="its process died"):
            one.time(2)
        assert len(one.seconds) == 1


def test_what_cannot_be_measured_is_refused_in_a_sentence(tmp_path):
    for words, sentence in (
        ({"engines": ["openvin"]}, "openvino"),
        ({"precisions": ["bf16"]}, "bfloat16"),
        ({"batches": [0]}, "batches must be whole numbers from 1 up, got 0"),
        ({"agreement": 2.0}, "agreement is a share from 0 to 1, got 2.0"),
        ({"data": tmp_path / "none"}, "none"),
    ):
        with pytest.raises(InputError, match=sentence):
            bench(**words)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="no such model file"):
        bench([str(tmp_path / "none.onnx")])


def test_a_model_of_five_channels_wants_pictures_of_its_own(tmp_path):
    node = helper.make_node("Conv", ["image", "w"], ["logits"], kernel_shape=[1, 1])
    graph = helper.make_graph(
        [node], "five", [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["n", 5, "h", "w"])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["n", 2, "h", "w"])],
        [numpy_helper.from_array(np.ones((2, 5, 1, 1), np.float32), "w")],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    model.metadata_props.add(
        key=CARD_KEY, value=Card.of(["a", "b"], mean=(0.5,) * 5, std=(0.5,) * 5).to_json()
    )
    onnx.save(model, tmp_path / "five.onnx")
    with pytest.raises(InputError, match="drawn pictures are RGB: give pictures of yours with --data"):
        bench([str(tmp_path / "five.onnx")], engines=["onnxruntime"], rounds=1)


def test_the_table_names_models_and_those_left_out_and_uses_only_what_agrees():
    def row(model: str, engine: str, precision: str, ms: float, agreement: float) -> Measured:
        return Measured(model, engine, precision, 1, ms, ms, 1e3 / ms, 100.0, 8.4, agreement)

    three = (
        row("my a", "x", "float32", 30, 1.0),
        row("my a", "y", "bfloat16", 10, 0.995),
        row("my a", "z", "float32", 20, 0.98),
    )
    assert (
        _use(three, 0.99, drawn=False)
        == "pixelwise segment PICTURES --model 'my a' --engine y --precision bfloat16"
    )
    assert _use(three, 0.99, drawn=True) == "pixelwise segment PICTURES --model 'my a' --engine x"
    assert _use(three[1:2], 0.999, drawn=False) == ""
    int8 = dataclasses.replace(three[0], precision="int8", per_second=1000.0)
    assert _use((*three, int8), 0.9, drawn=False).endswith(
        "--engine x --precision int8"
    )  # else it is the float one
    many = dataclasses.replace(three[0], engine="w", batch=8, per_second=1000.0)
    assert _use((*three, many), 1.0, drawn=False).endswith("--engine x")  # for one picture

    rows = (row("a", "onnxruntime", "float32", 30, 1.0), row("b", "openvino", "bfloat16", 10, 0.98))
    lines = table(Benchmark("2 drawn pictures", 2, rows, (("a pytorch", "torch is not here"),), ""), 0.99)
    assert lines[0].split()[0] == "model"
    assert "left out: a pytorch (torch is not here)" in lines
    assert max(map(len, lines)) <= 100
    assert "agreement" not in lines[-1]
    assert plot(Benchmark("", 2, rows)).count("<circle") == 2


def test_the_int8_that_ships_beside_a_model_takes_part():
    def of(model, precisions=None):
        return [
            (one.engine, one.precision)
            for one in _contenders(model, ["onnxruntime", "pytorch"], precisions, (1,), 1)
        ]

    assert of("everyday") == [
        ("auto", None), ("onnxruntime", None), ("onnxruntime", "int8"), ("pytorch", None), ("pytorch", "bfloat16"),
    ]  # fmt: skip
    assert of("everyday", ["int8"]) == [("auto", None), ("onnxruntime", "int8")]
    assert of("nuclei") == [("auto", None), ("onnxruntime", None), ("pytorch", None), ("pytorch", "bfloat16")]

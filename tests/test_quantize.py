"""Quantize: the agreement that was asked for is reached, int8 must pay, and what it costs is said."""

from __future__ import annotations

import itertools
import re
import shutil
from importlib import import_module

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from PIL import Image
from typer.testing import CliRunner

from pixelwise import Card, Segmenter
from pixelwise.cli.app import app
from pixelwise.errors import ExportError, InputError
from pixelwise.export.quantize import fewest_floats, times_as_fast
from pixelwise.exporting import export_model, picture, with_card
from pixelwise.quantizing import quantize_model, read_pictures
from pixelwise.weights.card import CARD_KEY, Score

CARD = Card.of(
    ["dark", "red", "green", "blue"], mean=[0, 0, 0], std=[1, 1, 1], stride=2, name="deep colours"
).replace(scores=(Score("mean IoU", 0.5, "drawn pictures", "as they are", "made up"),))


def write_model(path, layers=3):
    """Convolutions with relu between; the last one's logits are mixtures of what the others found."""
    random, nodes, weights, at, channels = np.random.default_rng(0), [], [], "image", 3
    for layer in range(layers):
        last = layer == layers - 1
        out = 4 if last else 8
        weight = random.normal(0, 1, (out, channels, 1, 1) if last else (out, channels, 3, 3))
        weight *= 1.4 / np.sqrt(weight[0].size)
        weights.append(numpy_helper.from_array(weight.astype(np.float32), f"weight {layer}"))
        stride = 2 if layer == 0 else 1
        gives = "logits" if last else f"conv {layer}"
        nodes.append(
            helper.make_node(
                "Conv", [at, f"weight {layer}"], [gives], strides=[stride] * 2, pads=[0 if last else 1] * 4
            )
        )
        if not last:
            nodes.append(helper.make_node("Relu", [gives], [f"relu {layer}"]))
        at, channels = f"relu {layer}", out
    graph = helper.make_graph(
        nodes,
        "deep",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["n", 3, "h", "w"])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["n", 4, "h2", "w2"])],
        weights,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    model.metadata_props.add(key=CARD_KEY, value=CARD.to_json())
    onnx.save(model, str(path))
    return path


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return write_model(tmp_path_factory.mktemp("model") / "deep.onnx")


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("photos")
    for i in range(10):
        Image.fromarray(picture((60 + 7 * i, 90), 3)).save(folder / f"{i}.png")
    return folder


def clock(gain):
    """Seconds that pass as if int8 were so many times as fast: of each two spans the second is short."""
    now, spans = 0.0, itertools.cycle([gain, 0.0, 1.0, 0.0])

    def tick():
        nonlocal now
        now += next(later)
        return now

    later = itertools.chain([0.0], spans)
    return tick


def test_what_is_written_is_int8_agrees_and_says_so(model, photos, tmp_path):
    out = tmp_path / "int8.onnx"
    told = quantize_model(model, photos, out, agreement=0.97, threads=1, clock=clock(2.5))
    agreement = float(told.split("agreement ")[1].split()[0])
    assert 0.97 <= agreement <= 1
    assert "with float32 over 5 pictures" in told
    assert "2.5 times as fast at 67x90" in told
    assert told.endswith(" to 0.0 MB")
    small, plain = Segmenter(out, threads=1), Segmenter(model, threads=1)
    assert (small.card.precision, small.engine.precision) == ("int8", "int8")
    assert small.card.labels == plain.card.labels
    assert small.card.notes[-1].startswith("int8: agreement ")
    assert len(plain.card.scores) == 1
    assert small.card.scores == ()  # which were measured of another file
    shown = [picture((60 + 7 * i, 90), 3) for i in range(1, 10, 2)]
    equal = [(small(one).labels == plain(one).labels) for one in shown]
    assert sum(one.sum() for one in equal) / sum(one.size for one in equal) == pytest.approx(
        agreement, abs=6e-5
    )
    weights = [tensor for tensor in onnx.load(out).graph.initializer if tensor.data_type == TensorProto.INT8]
    scales = {len(numpy_helper.to_array(tensor).shape) for tensor in weights}
    assert 4 in scales  # convolutions
    with pytest.raises(InputError, match="was quantised and runs in int8, got precision 'float32'"):
        Segmenter(out, precision="float32")
    with pytest.raises(InputError, match="is quantised already"):
        quantize_model(out, photos, tmp_path / "again.onnx")


def test_layers_go_back_to_float_until_the_agreement_holds(model, photos, tmp_path):
    out, asked = tmp_path / "x.onnx", 0.9996
    told = quantize_model(model, photos, out, agreement=asked, threads=1, clock=clock(2))
    assert float(told.split("agreement ")[1].split()[0]) >= asked
    assert re.search(r"over 5 pictures, [12] of 3 layers in float32", told)
    assert Segmenter(out, threads=1).engine.precision == "int8"
    with pytest.raises(
        ExportError, match=r"int8 does not pay .*, 3 of 3 layers in float32.*no file was written"
    ):
        quantize_model(model, photos, tmp_path / "none.onnx", agreement=1.0, threads=1, clock=clock(2))
    assert list(tmp_path.iterdir()) == [out]


def test_an_agreement_that_is_not_reached_leaves_no_file(model, photos, tmp_path, monkeypatch):
    monkeypatch.setattr("pixelwise.export.quantize.fewest_floats", lambda *_: ())
    with pytest.raises(ExportError, match=r"expected were 0\.9996 and .*allow for more loss"):
        quantize_model(model, photos, tmp_path / "x.onnx", agreement=0.9996, threads=1, clock=clock(2))
    assert list(tmp_path.iterdir()) == []


def test_eight_pictures_are_enough_and_are_taken_evenly(model, photos, tmp_path, monkeypatch):
    for i in range(8):
        shutil.copy(photos / f"{i}.png", tmp_path)
    card = Segmenter(model, threads=1).card
    found = read_pictures(tmp_path, card)
    assert [len(values) for values in found.ranges] == [60, 74, 88, 102]
    assert [len(values) for values in found.scored] == [67, 81, 95, 109]
    for i in range(8, 16):
        Image.fromarray(picture((60 + 7 * i, 90), 3)).save(tmp_path / f"a{i:02}.png")
    monkeypatch.setattr("pixelwise.quantizing.PICTURES", 4)
    assert [len(values) for values in read_pictures(tmp_path, card).ranges] == [60, 88, 116, 144]


def test_seven_pictures_are_too_few(model, photos, tmp_path):
    for i in range(7):
        shutil.copy(photos / f"{i}.png", tmp_path)
    with pytest.raises(InputError, match="has 7 pictures that can be used; expected at least 8"):
        read_pictures(tmp_path, Segmenter(model, threads=1).card)


def test_ranges_come_from_the_pictures_that_are_not_for_scoring(model, photos, tmp_path):
    """Labelled ones of which some cannot be used are scored with their own labels."""
    segmenter = Segmenter(model, threads=1)
    for i, path in enumerate(sorted(photos.iterdir())):
        split = "train" if i < 5 else "val"
        for kind in ("images", "masks"):
            (tmp_path / split / kind).mkdir(parents=True, exist_ok=True)
        shutil.copy(path, tmp_path / split / "images")
        segmenter(path).save(tmp_path / split / "masks" / path.name)
    (tmp_path / "classes.txt").write_text("\n".join(CARD.labels.names))
    (tmp_path / "val" / "images" / "5.png").write_bytes(b"broken")
    found = read_pictures(tmp_path, segmenter.card)
    assert [len(values) for values in found.ranges] == [60 + 7 * i for i in range(5)]
    assert [len(values) for values in found.scored] == [60 + 7 * i for i in range(6, 10)]
    assert [pair.image.name for pair in found.samples.pairs] == [f"{i}.png" for i in range(6, 10)]


def test_half_as_fast_again_is_just_enough_and_no_agreement_is_none(model, photos, tmp_path):
    told = quantize_model(model, photos, tmp_path / "x.onnx", agreement=0.5, threads=1, clock=clock(1.5))
    assert "1.5 times as fast" in told
    with pytest.raises(InputError, match=r"above 0 and up to 1, such as 0\.99, got 0"):
        quantize_model(model, photos, tmp_path / "y.onnx", agreement=0)


def test_what_is_baked_is_not_quantised(model, photos, tmp_path):
    export_model(model, tmp_path / "baked.onnx", bake=True)
    with pytest.raises(InputError, match=r"baked.onnx is baked already; quantise the model"):
        quantize_model(tmp_path / "baked.onnx", photos, tmp_path / "x.onnx")


def test_int8_that_does_not_pay_leaves_no_file(model, photos, tmp_path):
    with pytest.raises(
        ExportError, match=r"does not pay for deep colours .*1\.4 times as fast.*no file was written"
    ):
        quantize_model(model, photos, tmp_path / "x.onnx", agreement=0.9, threads=1, clock=clock(1.4))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["liar.onnx", "liar.xml"])
def test_a_card_that_lies_about_int8_is_refused(name, model, tmp_path):
    path, liar = tmp_path / name, CARD.replace(precision="int8")
    if path.suffix == ".onnx":
        onnx.save(with_card(onnx.load(model), liar), path)
    else:
        pytest.importorskip("openvino", reason="needs the extra openvino")
        import_module("pixelwise.export.openvino").write_openvino(model, liar, path)
    with pytest.raises(
        InputError, match=r"says that it runs in int8, and nothing in it does; quantise the model"
    ):
        Segmenter(path, threads=1)


def labelled_by(model, photos, folder):
    """A data set of the photos, with the model's own answers as labels."""
    segmenter = Segmenter(model, threads=1)
    for name in ("images", "masks"):
        (folder / name).mkdir(parents=True)
    for path in photos.iterdir():
        shutil.copy(path, folder / "images")
        segmenter(path).save(folder / "masks" / path.name)
    (folder / "classes.txt").write_text("\n".join(CARD.labels.names))


def test_labels_in_the_folder_give_the_mean_iou(model, photos, tmp_path):
    labelled_by(model, photos, tmp_path / "set")
    told = quantize_model(model, tmp_path / "set", tmp_path / "x.onnx", agreement=0.9, clock=clock(2))
    assert "mean IoU 1.0000 in float32, 0." in told  # one of the classes is rare
    (tmp_path / "set" / "classes.txt").write_text("\n".join(["other", *CARD.labels.names[1:]]))
    told = quantize_model(model, tmp_path / "set", tmp_path / "y.onnx", agreement=0.9, clock=clock(2))
    assert "no mean IoU (" in told


def test_the_layers_that_cost_most_go_back_first_and_as_few_as_it_takes():
    costs = {"a": 0.001, "b": 0.03, "c": 0.002, "d": 0.01, "e": 0.0, "f": 0.004}
    asked = []

    def agreement(floats):
        asked.append(tuple(floats))
        return 1 - sum(cost for layer, cost in costs.items() if layer not in floats)

    def fewest(asked):
        return fewest_floats(list(costs), lambda floats: agreement(floats) >= asked, costs.get)

    assert fewest(0.9) == ()
    assert fewest(0.96) == ("b",)
    assert fewest(0.99) == ("b", "d")
    assert fewest(1.0) == ("b", "d", "f", "c", "a")
    assert len(asked) < 20
    assert len(fewest_floats(list(costs), lambda floats: False, costs.get)) == 6


def test_layers_go_back_to_float_until_the_mean_iou_holds(model, photos, tmp_path):
    labelled_by(model, photos, tmp_path / "set")
    found = {}
    for drop in (0.5, 0.1):
        out = tmp_path / f"{drop}.onnx"
        told = quantize_model(model, tmp_path / "set", out, mean_iou_drop=drop, threads=1, clock=clock(2))
        before, after = map(float, re.search(r"mean IoU ([\d.]+) in float32, ([\d.]+) now", told).groups())
        assert before - after <= drop + 1e-4
        found[drop] = told, after
    assert "layers in float32" not in found[0.5][0]
    assert "layers in float32" in found[0.1][0]
    assert found[0.5][1] < found[0.1][1]
    with pytest.raises(
        ExportError, match=r"expected were 0\.0 of mean IoU at most and 1\.5 times, so no file"
    ):
        quantize_model(
            model, tmp_path / "set", tmp_path / "x.onnx", mean_iou_drop=0.0, threads=1, clock=clock(2)
        )
    for words, says in (
        ({"mean_iou_drop": 0.1, "agreement": 0.9}, "both say how much may be lost"),
        ({"mean_iou_drop": 1.5}, r"a difference of mean IoU from 0 to 1, such as 0\.005, got 1\.5"),
        ({"mean_iou_drop": 0.1, "to": "openvino"}, "give --agreement in place of mean IoU"),
    ):
        with pytest.raises(InputError, match=says):
            quantize_model(
                model, tmp_path / "set", tmp_path / ("x.xml" if "to" in words else "x.onnx"), **words
            )
    with pytest.raises(InputError, match=r"wants labels, and .* has none; give --agreement"):
        quantize_model(model, photos, tmp_path / "x.onnx", mean_iou_drop=0.1)
    assert not (tmp_path / "x.onnx").exists()


def test_speed_is_the_median_of_ratios_taken_alternately():
    done = []
    times = iter([0, 4, 4, 6, 6, 16, 16, 17, 17, 20, 20, 22])  # 4 to 2, 10 to 1, 3 to 2
    gain = times_as_fast(lambda: done.append("a"), lambda: done.append("b"), lambda: next(times), rounds=3)
    assert gain == 2
    assert "".join(done) == "abababab"


HOSTILE = {
    "no folder": (lambda folder: folder.rmdir(), "which does not exist"),
    "nothing in it": (lambda folder: None, "no pictures in "),
    "too few": (
        lambda folder: Image.fromarray(picture((40, 40), 3)).save(folder / "a.png"),
        r"has 1 picture that can be used; expected at least 8",
    ),
    "one colour": (
        lambda folder: [Image.new("L", (40 + i, 40), 128).save(folder / f"{i}.png") for i in range(12)],
        r"has 0 pictures that can be used \(12 left out, the first: .*0\.png is of one colour\)",
    ),
    "always the same": (
        lambda folder: [Image.fromarray(picture((40, 40), 3)).save(folder / f"{i}.png") for i in range(12)],
        r"has 1 picture that can be used \(11 left out, the first: .*png is a picture that was there already\)",
    ),
    "no pictures but so called": (
        lambda folder: [(folder / f"{i}.jpg").write_bytes(b"\xff\xd8\xff none") for i in range(20)],
        r"has 0 pictures that can be used \(20 left out, the first: .*0\.jpg",
    ),
    "broken off": (
        lambda folder: [(folder / f"{i}.png").write_bytes(b"\x89PNG\r\n\x1a\n") for i in range(9)],
        r"\(9 left out",
    ),
}  # fmt: skip


@pytest.mark.parametrize("made", HOSTILE)
def test_a_folder_of_which_nothing_can_be_learned_is_refused_in_a_sentence(made, model, tmp_path, capsys):
    make, says = HOSTILE[made]
    (tmp_path / "data").mkdir()
    make(tmp_path / "data")
    with pytest.raises(InputError, match=says):
        quantize_model(model, tmp_path / "data", tmp_path / "x.onnx")
    assert not (tmp_path / "x.onnx").exists()


def test_a_few_broken_pictures_are_left_out_and_named(model, photos, tmp_path):
    shutil.copytree(photos, tmp_path / "data")
    (tmp_path / "data" / "00.png").write_bytes(b"broken")
    (tmp_path / "data" / "black.png").write_bytes((photos / "1.png").read_bytes()[:200])
    told = quantize_model(model, tmp_path / "data", tmp_path / "x.onnx", agreement=0.9, clock=clock(2))
    assert "; 2 pictures left out, the first: " in told


def test_quantize_as_typed(model, photos, tmp_path, monkeypatch):
    monkeypatch.setattr("pixelwise.quantizing.MUST_GAIN", 0.0)  # no test depends on the clock
    out = tmp_path / "it.onnx"
    typed = ["quantize", model, "--data", photos, "--out", out, "--agreement", "0.9", "--threads", "1"]
    result = CliRunner().invoke(app, [str(word) for word in typed])
    assert result.exit_code == 0, result.output
    assert f"{model} -> {out}: agreement " in result.output
    assert Segmenter(out).engine.precision == "int8"
    for more, says in (
        (["--to", "tflite"], "Unknown kind of file to export to 'tflite'"),
        (["--agreement", "99"], "agreement is a share of the pixels above 0 and up to 1"),
        ([], "exists already"),
    ):
        found = CliRunner().invoke(app, [str(word) for word in (*typed, *more)])
        assert says in str(found.exception)


def test_int8_of_a_model_that_was_not_quantised_says_the_command(model, tmp_path):
    with pytest.raises(
        InputError, match=r"quantise it: pixelwise quantize .*deep.onnx --data DIR --out .*x.onnx"
    ):
        export_model(model, tmp_path / "x.onnx", precision="int8")


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")
def test_int8_for_openvino_agrees_opens_and_says_so(model, photos, tmp_path):
    pytest.importorskip("nncf", reason="needs the extra quantize")
    out = tmp_path / "int8.xml"
    told = quantize_model(model, photos, out, agreement=0.95, threads=1, clock=clock(3))
    agreement = float(told.split("agreement ")[1].split()[0])
    assert 0.95 <= agreement <= 1
    assert "3.0 times as fast at 67x90" in told
    assert sorted(path.name for path in tmp_path.iterdir()) == ["int8.bin", "int8.xml"]
    small, plain = Segmenter(out, threads=1), Segmenter(model, engine="openvino", threads=1)
    assert (small.engine.name, small.engine.precision) == ("openvino", "int8")
    same = Segmenter(out, threads=1, precision="int8")
    compiled, _ = same.engine._loaded.held  # what is left in float is float32
    assert compiled.get_property("INFERENCE_PRECISION_HINT").to_string() == "f32"
    assert small.card.notes[-1].startswith("int8: agreement ")
    shown = [picture((60 + 7 * i, 90), 3) for i in range(1, 10, 2)]
    equal = [(small(one).labels == plain(one).labels) for one in shown]
    assert sum(one.sum() for one in equal) / sum(one.size for one in equal) == pytest.approx(
        agreement, abs=6e-5
    )

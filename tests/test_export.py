"""Export: the file says the same as the network, carries its card, and tells nothing about the machine."""

from __future__ import annotations

import errno
import os
import pickle
import re
import shutil
from dataclasses import replace
from threading import Thread

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import nn
from typer.testing import CliRunner

from pixelwise import Segmenter
from pixelwise.cli.app import app
from pixelwise.errors import ExportError, InputError, OutputError
from pixelwise.export import onnx as module
from pixelwise.export.onnx import export_onnx, trace
from pixelwise.export.parity import Parity, joined, parity_of
from pixelwise.exporting import copy, export_model
from pixelwise.opening import Said
from pixelwise.weights.beside import beside
from pixelwise.weights.card import CARD_KEY, Card
from test_bake import write_random_model
from tiny import CARD, quadrant_labels, quadrants, write_colors_model


class Net(nn.Module):
    """Two convolutions with dropout between; the simplest network there is."""

    stride, align_corners, num_classes = 2, False, 4

    def __init__(self) -> None:
        super().__init__()
        self.first, self.drop, self.second = nn.Conv2d(3, 5, 3, 2, 1), nn.Dropout(), nn.Conv2d(5, 4, 1)

    def coarse(self, image):
        return self.second(self.drop(self.first(image).relu()))

    def forward(self, image):
        return {"out": nn.functional.interpolate(self.coarse(image), image.shape[-2:], mode="bilinear")}


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    torch.manual_seed(0)
    network = Net().train()
    path = tmp_path_factory.mktemp("export") / "net.onnx"
    return network, path, export_onnx(network, CARD, path)


def test_the_file_gives_the_networks_logits_and_the_difference_is_told(exported):
    network, path, difference = exported
    assert 0 <= difference < 1e-5
    assert network.training
    image = torch.randn(3, 3, 41, 60)
    session = onnxruntime.InferenceSession(str(path))
    (logits,) = session.run(None, {"image": image.numpy()})
    with torch.no_grad():
        np.testing.assert_allclose(logits, network.eval().coarse(image).numpy(), atol=1e-5)
    network.train()


def test_the_card_travels_inside(exported):
    model = onnx.load(exported[1])
    (entry,) = [e for e in model.metadata_props if e.key == CARD_KEY]
    assert Card.from_json(entry.value) == CARD.replace(parameters=164)


def test_no_path_of_the_machine_is_left_in_the_file(exported):
    data = exported[1].read_bytes()
    assert b"site-packages" not in data
    assert b".py" not in data


def test_an_export_that_disagrees_leaves_no_file(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "_difference", lambda *arguments: Parity(0.5, 0.0, 1))
    with pytest.raises(ExportError, match=r"differs from its network by 5\.0e-01"):
        export_onnx(Net(), CARD, tmp_path / "net.onnx")
    assert list(tmp_path.iterdir()) == []


class OfTwoMinds(Net):
    """Large images get other logits: the tracer follows one branch only."""

    def coarse(self, image):
        logits = super().coarse(image)
        return logits + 1 if image.shape[-1] > 400 else logits


class WithPlaces(Net):
    """Something learnt for each place of images of 64x96."""

    def __init__(self) -> None:
        super().__init__()
        self.places = nn.Parameter(torch.randn(1, 4, 32, 48))

    def coarse(self, image):
        return super().coarse(image) + self.places


def test_a_file_that_would_be_wrong_at_another_size_is_not_written(tmp_path):
    for traced_at in ((416, 448), (64, 96)):
        with pytest.raises(ExportError, match="differs from its network"):
            export_onnx(OfTwoMinds(), CARD, tmp_path / "net.onnx", traced_at=traced_at)
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_onnx_runtime_cannot_run_at_another_size_is_not_written(tmp_path, monkeypatch):
    monkeypatch.setattr(
        module, "trace", lambda network, example, dynamic: trace(network, example, dynamic=False)
    )
    with pytest.raises(ExportError, match=r"fails at a batch of 3 and 97x130 \(.*dynamic=False"):
        export_onnx(Net(), CARD, tmp_path / "net.onnx")
    assert list(tmp_path.iterdir()) == []


def test_a_network_of_one_size_is_exported_for_that_size_and_any_batch(tmp_path):
    path = tmp_path / "net.onnx"
    with pytest.raises(ExportError, match=r"cannot be .*dynamic=False"):
        export_onnx(WithPlaces(), CARD, path, traced_at=(64, 96))
    assert export_onnx(WithPlaces(), CARD, path, traced_at=(64, 96), dynamic=False) < 1e-5
    session = onnxruntime.InferenceSession(str(path))
    assert session.get_inputs()[0].shape[1:] == [3, 64, 96]
    assert session.run(None, {"image": np.zeros((5, 3, 64, 96), np.float32)})[0].shape == (5, 4, 32, 48)


def test_a_size_that_the_network_does_not_take_cannot_be_checked(tmp_path):
    class Picky(Net):
        def coarse(self, image):
            if not torch.compiler.is_exporting() and image.shape[-1] % 2:
                raise ValueError("only even widths")
            return super().coarse(image)

    with pytest.raises(
        ExportError, match=r"1 and 129x529, .* fails \(only even widths\); pass sizes that it takes"
    ):
        export_onnx(Picky(), CARD, tmp_path / "net.onnx")
    assert export_onnx(Picky(), CARD, tmp_path / "net.onnx", checked_at=((97, 130),)) < 1e-5


def test_what_cannot_be_exported(tmp_path, exported):
    with pytest.raises(InputError, match="gave logits of 254x318, which are no whole ratio"):
        export_onnx(nn.Conv2d(3, 4, 3), CARD, tmp_path / "x.onnx")
    with pytest.raises(InputError, match=r"takes a network, its card .* and a path, got PosixPath as a card"):
        export_onnx(nn.Conv2d(3, 4, 1), tmp_path / "x.onnx", CARD)
    with pytest.raises(OutputError, match="exists already"):
        export_onnx(Net(), CARD, exported[1], overwrite=False)
    assert list(tmp_path.iterdir()) == []


@pytest.fixture(scope="module")
def colors(tmp_path_factory):
    return write_colors_model(tmp_path_factory.mktemp("colors") / "colors.onnx")


def typed(*words):
    return CliRunner().invoke(app, [str(word) for word in words])


def test_openvinos_files_open_with_card_and_the_same_label_map(colors, tmp_path):
    pytest.importorskip("openvino", reason="needs the extra openvino")
    out = tmp_path / "colors.xml"
    result = typed("export", colors, "--out", out, "--to", "openvino")
    assert result.exit_code == 0, result.output
    assert "4 classes, 52 parameters, logits to " in result.output
    assert ", 0.000% of " in result.output
    assert sorted(path.name for path in tmp_path.iterdir()) == ["colors.bin", "colors.xml"]
    plain = Segmenter(colors, threads=1)
    copied = tmp_path / "other" / "same.xml"
    assert "the same file, of 4 classes" in typed("export", out, "--out", copied).output
    for path in (out, copied):
        opened = Segmenter(path, threads=1)
        assert (opened.engine.name, opened.engine.precision) == ("openvino", "float32")
        assert opened.card == plain.card
        np.testing.assert_array_equal(opened(quadrants()).labels, quadrant_labels())
    shutil.rmtree(copied.parent)
    again = typed("export", colors, "--out", out)
    assert "exists already" in str(again.exception)


def test_weights_in_halves_take_half_the_bytes_and_are_as_far_as_is_said(tmp_path):
    write_random_model(tmp_path / "net.onnx", replace(CARD, stride=32), stride=32)
    result = typed("export", tmp_path / "net.onnx", "--out", tmp_path / "half.onnx", "--precision", "float16")
    assert result.exit_code == 0, result.output
    far = float(re.search(r"logits to ([\d.e-]+) of their range", result.output)[1])
    assert 1e-5 < far < 2e-3
    sizes = [(tmp_path / name).stat().st_size for name in ("net.onnx", "half.onnx")]
    assert sizes[1] < 0.6 * sizes[0]
    images = np.random.default_rng(0).normal(size=(1, 3, 96, 128)).astype(np.float32)
    one, other = (Segmenter(tmp_path / name).engine(images) for name in ("net.onnx", "half.onnx"))
    assert 0 < np.abs(one - other).max() < 1e-2 * np.ptp(one)


def test_weights_that_halves_cannot_hold_stay_as_they_are(tmp_path):
    path = write_random_model(tmp_path / "net.onnx", replace(CARD, stride=32), stride=32)
    model = onnx.load(path)
    values = onnx.numpy_helper.to_array(model.graph.initializer[0]) * 1e6
    model.graph.initializer[0].CopyFrom(onnx.numpy_helper.from_array(values, "weight"))
    onnx.save(model, path)
    assert "logits to 0.0e+00 of their range" in export_model(path, tmp_path / "x.onnx", precision="float16")


def test_openvinos_files_hold_halves_where_they_are_asked_for(tmp_path):
    pytest.importorskip("openvino", reason="needs the extra openvino")
    path = write_random_model(tmp_path / "net.onnx", replace(CARD, stride=32), stride=32)
    for precision in ("float32", "float16"):
        export_model(path, tmp_path / f"{precision}.xml", precision=precision)
    sizes = [(tmp_path / f"{precision}.bin").stat().st_size for precision in ("float32", "float16")]
    assert sizes[1] == pytest.approx(sizes[0] / 2, rel=0.01)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--out", "{to}/x.onnx", "--to", "openvino"], r"expected a name that ends in \.xml, got "),
        (["--out", "{to}/x.onnx", "--to", "coreml"], "Unknown kind of file to export to 'coreml'"),
        (["--out", "{to}/x.tflite"], r"ends in \.onnx \(onnx\) or \.xml \(openvino\)"),
        (["--out", "{to}/x.xml", "--bake"], r"a baked file is ONNX, expected a name that ends in \.onnx"),
        (["--out", "{to}/x.onnx", "--precision", "float64"], "Unknown precision to export in 'float64'"),
        (["--out", "{to}/x.onnx", "--precision", "int8"], "pixelwise quantize .* --data DIR --out "),
    ],
)
def test_what_export_cannot_write_is_said_and_leaves_nothing(words, says, colors, tmp_path):
    result = typed("export", colors, *(word.format(to=tmp_path) for word in words))
    assert re.search(says, str(result.exception))
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_is_too_far_from_its_model_is_not_written(colors, tmp_path, monkeypatch):
    far = Parity(0.3, 0.2, 100)
    monkeypatch.setattr("pixelwise.exporting.differences", lambda *arguments: far)
    for name in ("x.xml", "x.onnx"):
        with pytest.raises(ExportError, match=r"differs from its network by 3\.0e-01 of the logits' range"):
            export_model(colors, tmp_path / name, precision="float16")
    monkeypatch.setattr("pixelwise.exporting.differences", lambda *arguments: far._replace(gap=0.01))
    with pytest.raises(ExportError, match=r"gives 20\.000% of the pixels another class .*allowed: 2\.000%"):
        export_model(colors, tmp_path / "x.onnx", precision="float16")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("engine", ["onnxruntime", "openvino"])
@pytest.mark.parametrize("place", ["../weights.bin", "{folder}/weights.bin", "link.bin"])
def test_weights_outside_of_the_folder_are_refused(place, engine, colors, tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "weights.bin").write_bytes(bytes(1000))
    (tmp_path / "in" / "link.bin").symlink_to(tmp_path / "weights.bin")
    model = onnx.load(colors)
    for tensor in model.graph.initializer:
        onnx.external_data_helper.set_external_data(tensor, place.format(folder=tmp_path))
        tensor.ClearField("raw_data")
    path = tmp_path / "in" / "colors.onnx"
    path.write_bytes(model.SerializeToString())
    with pytest.raises(InputError, match="is not a model that"):
        Segmenter(path, engine=engine)


@pytest.mark.parametrize("name", ["weights", "weights" * 30])
def test_weights_in_another_file_are_exported_as_one_file(name, tmp_path):
    """Where another model has a file of the same name."""
    for folder, seed in (("here", 0), ("there", 1)):
        (tmp_path / folder).mkdir()
        path = write_random_model(tmp_path / folder / "net.onnx", replace(CARD, stride=4), seed=seed)
        onnx.save(onnx.load(path), path, save_as_external_data=True, location=name, size_threshold=0)
        assert beside(path) == [tmp_path / folder / name]
    out = tmp_path / "there" / "out.onnx"
    result = typed("export", tmp_path / "here" / "net.onnx", "--out", out)
    assert "the same model in one file, of 4 classes" in result.output
    shown = np.random.default_rng(0).integers(0, 256, (40, 60, 3), np.uint8)
    answers = [Segmenter(path, threads=1)(shown).labels for path in (tmp_path / "here" / "net.onnx", out)]
    np.testing.assert_array_equal(*answers)
    assert len(np.unique(answers[0])) > 1
    shutil.move(tmp_path / "here" / name, tmp_path)
    model = onnx.load(tmp_path / "here" / "net.onnx", load_external_data=False)
    model.graph.initializer[0].external_data[0].value = f"../{name}"
    (tmp_path / "here" / "net.onnx").write_bytes(model.SerializeToString())
    result = typed("export", tmp_path / "here" / "net.onnx", "--out", tmp_path / "x.onnx")
    assert isinstance(result.exception, InputError)
    assert "is not a model that ONNX Runtime can load" in str(result.exception)
    assert not (tmp_path / "x.onnx").exists()


def test_an_answer_that_is_no_number_is_infinitely_far():
    """Also among others, though whatever is compared with NaN is false."""
    expected = np.zeros((1, 2, 3, 3), np.float32)
    found = expected.copy()
    found[0, 0, 0, 0] = np.nan
    told = joined([Parity(0.0, 0.0, 27), parity_of(expected, found, "exclusive")])
    assert told == Parity(np.inf, 0.25, 36)


def test_of_regions_a_pixel_has_changed_where_one_of_them_has():
    expected = np.array([2.0, 1.0], np.float32).reshape(1, 2, 1, 1)
    assert parity_of(expected, expected - 1.5, "exclusive").changed == 0
    assert parity_of(expected, expected - 1.5, "regions").changed == 1


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
    """Two models as OpenVINO's own files, of the same sizes, and what each answers."""
    pytest.importorskip("openvino", reason="needs the extra openvino")
    folder, shown = tmp_path_factory.mktemp("pairs"), quadrants()
    made = {}
    for name, turned in (("one", 1), ("two", 2)):
        weight = np.zeros((4, 3, 2, 2), np.float32)
        for channel in range(3):
            weight[(channel + turned) % 4, channel] = 0.25
        numbers = weight, np.array([0.4, 0, 0, 0], np.float32)
        write_colors_model(folder / f"{name}.onnx", CARD.replace(name=name), numbers)
        export_model(folder / f"{name}.onnx", folder / f"{name}.xml")
        made[folder / f"{name}.xml"] = Segmenter(folder / f"{name}.xml", threads=1)(shown).labels
    return made


def test_weights_that_are_not_those_an_xml_was_written_with_are_refused(pairs, tmp_path):
    one, two = pairs
    assert (pairs[one] != pairs[two]).any()
    assert one.with_suffix(".bin").stat().st_size == two.with_suffix(".bin").stat().st_size
    shutil.copy(one, tmp_path / "x.xml")
    short = one.with_suffix(".bin").read_bytes()[:-4]
    for weights, says in (
        (
            two.with_suffix(".bin").read_bytes(),
            r"x\.bin does not hold the weights that x\.xml was written with",
        ),
        (one.with_suffix(".bin").read_bytes() + bytes(64), r"x\.bin does not hold the weights"),
        (short, r"export it again, or copy it with its weights, x\.bin"),
    ):
        (tmp_path / "x.bin").write_bytes(weights)
        with pytest.raises(InputError, match=says):
            Segmenter(tmp_path / "x.xml", threads=1)
    shutil.copy(one.with_suffix(".bin"), tmp_path / "x.bin")
    opened = Segmenter(tmp_path / "x.xml", threads=1)
    again = pickle.loads(pickle.dumps(opened))
    np.testing.assert_array_equal(again(quadrants()).labels, pairs[one])


def test_an_export_that_fails_leaves_the_pair_that_was_there(pairs, tmp_path, monkeypatch):
    one, two = pairs
    copy(one, tmp_path / "x.xml", overwrite=False)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    whole = shutil.copyfile

    def full(source, path):
        if source.suffix == ".xml":
            raise OSError(errno.ENOSPC, "No space left on device")
        return whole(source, path)

    monkeypatch.setattr("pixelwise.exporting.shutil.copyfile", full)
    with pytest.raises(OutputError, match="No space left on device; free some space"):
        copy(two, tmp_path / "x.xml", overwrite=True)
    with pytest.raises(OutputError, match="No space left on device"):
        copy(two, tmp_path / "y.xml", overwrite=True)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_of_two_exports_to_one_name_the_second_waits(pairs, tmp_path, monkeypatch):
    """Between its two files the first gives the second all the time that it would take."""
    one, two = pairs
    rename, others = os.replace, []

    def renamed(source, path):
        rename(source, path)
        if not others:
            others.append(Thread(target=copy, args=(two, tmp_path / "x.xml"), kwargs={"overwrite": True}))
            others[0].start()
            others[0].join(0.2)

    monkeypatch.setattr("pixelwise.files.os.replace", renamed)
    copy(one, tmp_path / "x.xml", overwrite=True)
    others[0].join()
    np.testing.assert_array_equal(Segmenter(tmp_path / "x.xml", threads=1)(quadrants()).labels, pairs[two])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["x.bin", "x.xml"]


def test_a_file_of_which_something_is_said_is_not_copied_as_it_is(colors, tmp_path):
    said = Said(classes=["night", "brick", "grass", "sky"])
    assert "night, brick, grass, sky" in export_model(colors, tmp_path / "x.onnx", said)
    assert Segmenter(tmp_path / "x.onnx", threads=1).classes.names == ("night", "brick", "grass", "sky")

"""Files of torch.export: they hold the network's graph, and open by `--model` as what they were made of."""

from __future__ import annotations

import copy
import json
import pickle
import re
import shutil
import zipfile

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

import pixelwise
from pixelwise import Card, Segmenter, from_checkpoint
from pixelwise.cli.app import app
from pixelwise.errors import InputError, WeightsError
from pixelwise.export import torch_export
from pixelwise.weights.programs import KINDS
from tiny import quadrants, write_colors_model

NAMES = ["sky", "road", "tree"]


def typed(*words):
    return CliRunner().invoke(app, [str(word) for word in words])


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A network of three classes, its weights as a file of ours, and those exported by the command."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("program")
    network = pixelwise.create_model("unet", width=4, num_classes=3).eval()
    card = Card.of(NAMES, name="three", mean=(0.4, 0.5, 0.6), std=(0.2, 0.2, 0.2), size=96)
    pixelwise.save(network, folder / "three.safetensors", card=card)
    result = typed(
        "export", folder / "three.safetensors", "--out", folder / "three.pt2", "--to", "torch-export"
    )
    assert result.exit_code == 0, result.output
    return network, folder / "three.pt2", result.output


def test_the_graph_gives_the_networks_logits_at_other_sizes(made):
    network, path, said = made
    assert re.search(r"3 classes, [\d,]+ parameters, logits to \S+ of their range, 0\.000% of ", said)
    assert "sky, road, tree" in said
    run = torch.export.load(path).module()
    image = torch.rand(2, 3, 160, 224)
    with torch.no_grad():
        expected = network.coarse(image)
        torch.testing.assert_close(run(image), expected, rtol=1e-5, atol=1e-5)
    assert expected.std() > 0


def test_it_opens_with_its_card_and_the_same_label_map(made, tmp_path):
    _, path, _ = made
    weights = path.with_suffix(".safetensors")
    picture = tmp_path / "picture.png"
    Image.fromarray(quadrants()).save(picture)
    for model, out in ((path, "one"), (weights, "other")):
        result = typed(
            "segment", picture, "--model", model, "--out", tmp_path / out, "--format", "labels,json"
        )
        assert result.exit_code == 0, result.output
    for name in ("picture.labels.png", "picture.json"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "other" / name).read_bytes()
    assert Segmenter(path).card == Segmenter(weights).card


@pytest.mark.slow
def test_it_can_be_exported_further(made, tmp_path):
    _, path, _ = made
    again = typed("export", path, "--out", tmp_path / "again.onnx")
    assert again.exit_code == 0, again.output
    np.testing.assert_array_equal(
        Segmenter(tmp_path / "again.onnx")(quadrants()).labels, Segmenter(path)(quadrants()).labels
    )


def test_nothing_in_it_is_run(made, tmp_path):
    _, path, _ = made
    theirs = tmp_path / "theirs.pt2"
    program = torch.export.export(torch.nn.Conv2d(3, 2, 1), (torch.rand(1, 3, 8, 8),))
    torch.export.save(program, theirs)
    with pytest.raises(
        WeightsError, match=r"written by torch\.export and not by pixelwise: .*--to torch-export"
    ):
        Segmenter(theirs)

    class Evil:
        def __reduce__(self):
            return (open, (str(tmp_path / "was run"), "w"))

    evil = tmp_path / "evil.pt2"
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(evil, "w") as new:
        for name in old.namelist():
            content = old.read(name)
            if name.endswith("weights_config.json"):
                content = content.replace(b'"use_pickle": false', b'"use_pickle": true', 1)
            if name.endswith(("/weight_0", "sample_inputs/model.pt")):
                content = pickle.dumps(Evil())
            new.writestr(name, content)
    with pytest.raises(WeightsError, match="in a form that pixelwise does not write"):
        Segmenter(evil)
    assert not (tmp_path / "was run").exists()


@pytest.mark.parametrize(
    ("key", "value"),
    [("storage_offset", {"as_int": 1}), ("dtype", 6), ("strides", [{"as_int": 1}] * 4), ("use_pickle", True)],
)
def test_tensors_in_a_form_that_is_not_ours_are_refused(key, value, made, tmp_path):
    """Read as if they were in ours they would be other numbers."""
    _, path, _ = made
    other = tmp_path / "other.pt2"
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(other, "w") as new:
        for name in old.namelist():
            content = old.read(name)
            if name.endswith("weights_config.json"):
                said = json.loads(content)
                one = next(one for one in said["config"].values() if len(one["tensor_meta"]["sizes"]) == 4)
                (one if key == "use_pickle" else one["tensor_meta"])[key] = value
                content = json.dumps(said).encode()
            new.writestr(name, content)
    with pytest.raises(WeightsError, match="in a form that pixelwise does not write"):
        Segmenter(other)


def test_weights_that_do_not_come_back_are_not_written(made, tmp_path, monkeypatch):
    network, path, _ = made
    other = copy.deepcopy(network)
    with torch.no_grad():
        next(other.parameters()).add_(1)
    monkeypatch.setattr(torch_export, "from_checkpoint", lambda path: other)
    result = typed("export", path.with_suffix(".safetensors"), "--out", tmp_path / "x.pt2", "--size", "32,32")
    assert "does not open again with its weights, so no file was written" in str(result.exception)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["net.pt", "net.pt2"])
def test_an_archive_that_python_cannot_read_is_refused(name, tmp_path):
    """zipfile raises NotImplementedError for it, which is no BadZipFile."""
    path = tmp_path / name
    torch.save({"weight": torch.ones(2)}, path)
    content = bytearray(path.read_bytes())
    entry = content.index(b"PK\x01\x02")
    content[entry + 6] = 64  # the version of the format that is needed to read the first entry
    path.write_bytes(content)
    with pytest.raises(WeightsError, match="damaged or incomplete"):
        from_checkpoint(path)


def test_what_is_damaged_is_refused(made, tmp_path):
    _, path, _ = made
    whole = path.read_bytes()
    cut = tmp_path / "cut.pt2"
    cut.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(WeightsError, match=r"damaged or incomplete|no weights file"):
        Segmenter(cut)
    short = tmp_path / "short.pt2"
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(short, "w") as new:
        for name in old.namelist():
            new.writestr(name, old.read(name)[:-4] if name.endswith("/weight_0") else old.read(name))
    with pytest.raises(WeightsError, match="damaged or incomplete"):
        Segmenter(short)


def test_what_torch_export_does_not_take_is_said_and_leaves_nothing(made, tmp_path, monkeypatch):
    _, path, _ = made
    weights = path.with_suffix(".safetensors")
    halves = typed("export", weights, "--out", tmp_path / "x.pt2", "--precision", "float16")
    assert "is written in float32, got precision 'float16'" in str(halves.exception)
    baked = typed("export", weights, "--out", tmp_path / "x.pt2", "--bake")
    assert "a baked file is ONNX" in str(baked.exception)
    none = typed("export", write_colors_model(tmp_path.parent / "colors.onnx"), "--out", tmp_path / "x.pt2")
    assert isinstance(none.exception, InputError)
    assert "there is no torch network to open" in str(none.exception)
    monkeypatch.setattr(torch_export, "TOLERANCE", -1.0)
    far = typed("export", weights, "--out", tmp_path / "x.pt2")
    assert "differs from its network by" in str(far.exception)
    assert list(tmp_path.iterdir()) == []


def test_one_size(made, tmp_path):
    _, path, _ = made
    out = tmp_path / "one.pt2"
    result = typed("export", path.with_suffix(".safetensors"), "--out", out, "--size", "96,128")
    assert result.exit_code == 0, result.output
    run = torch.export.load(out).module()
    assert run(torch.rand(1, 3, 96, 128)).shape[:2] == (1, 3)
    with pytest.raises(Exception, match="128"):
        run(torch.rand(1, 3, 96, 160))


def test_the_numbers_of_kinds_are_torchs():
    schema = pytest.importorskip("torch._export.serde.schema")
    names = {np.dtype("<f4"): "FLOAT", np.dtype("<i8"): "LONG"}
    assert {number: schema.ScalarType[names[kind]].value for number, kind in KINDS.items()} == {
        n: n for n in KINDS
    }


def test_a_copy_is_the_same_file(made, tmp_path):
    _, path, _ = made
    result = typed("export", path, "--out", tmp_path / "copy.pt2")
    assert "the same file, of 3 classes" in result.output
    assert (tmp_path / "copy.pt2").read_bytes() == path.read_bytes()
    shutil.copy(path, tmp_path / "renamed.pt")
    np.testing.assert_array_equal(
        Segmenter(path)(quadrants()).labels, Segmenter(tmp_path / "renamed.pt")(quadrants()).labels
    )

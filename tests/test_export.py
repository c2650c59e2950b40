"""Export: the file says the same as the network, carries its card, and tells nothing about the machine."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import nn

from pixelwise.errors import ExportError, InputError, OutputError
from pixelwise.export import onnx as module
from pixelwise.export.onnx import export_onnx, trace
from pixelwise.export.parity import Parity
from pixelwise.weights.card import CARD_KEY, Card
from tiny import CARD


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

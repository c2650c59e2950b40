"""The front door: picture in, label map of the same size out, from every kind of model."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from pixelwise import LabelSet, Segmenter, models, open_engine
from pixelwise.errors import InputError, PixelwiseWarning, UnknownNameError
from pixelwise.weights import store
from tiny import CARD, COLORS, quadrant_labels, quadrants, write_colors_model


class Colors(nn.Module):
    """The tiny model as a torch network."""

    stride, align_corners, num_classes = 2, False, 4

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 2, stride=2)
        self.noise = nn.Dropout(0.9)  # shows whether the network is in evaluation
        with torch.no_grad():
            self.conv.weight.zero_()
            self.conv.bias.copy_(torch.tensor([0.4, 0, 0, 0]))
            for channel in range(3):
                self.conv.weight[channel + 1, channel] = 0.25

    def coarse(self, image):
        return self.noise(self.conv(image))

    def forward(self, image):
        return {"out": nn.functional.interpolate(self.coarse(image), size=image.shape[-2:], mode="bilinear")}


def test_every_kind_of_source_gives_the_same_label_map(colors_model, tmp_path):
    segmenter = Segmenter(colors_model)
    Image.fromarray(quadrants()).save(tmp_path / "q.png")
    for source in (
        quadrants(),
        tmp_path / "q.png",
        str(tmp_path / "q.png"),
        (tmp_path / "q.png").read_bytes(),
        Image.open(tmp_path / "q.png"),
    ):
        np.testing.assert_array_equal(segmenter(source).labels, quadrant_labels())


def test_labels_have_the_pictures_own_size_whatever_the_network_saw(tmp_path):
    card = CARD.replace(preprocess=dataclasses.replace(CARD.preprocess, size=24, side="longer"))
    segmenter = Segmenter(write_colors_model(tmp_path / "small.onnx", card))
    labels = segmenter(quadrants()).labels
    assert labels.shape == (40, 60)
    assert (labels == quadrant_labels()).mean() > 0.93


def test_a_torch_network_and_its_file_agree_and_the_network_is_left_in_training(colors_model):
    network = Colors().train()
    ours = Segmenter(network, card=CARD)
    noise = np.random.default_rng(0).integers(0, 256, (31, 45, 3), dtype=np.uint8)
    a, b = ours(noise, confidence=True), Segmenter(colors_model)(noise, confidence=True)
    np.testing.assert_array_equal(a.labels, b.labels)
    np.testing.assert_allclose(a.confidence, b.confidence, atol=1e-6)
    assert network.training
    still = Colors().eval()
    np.testing.assert_array_equal(Segmenter(still, card=CARD)(noise).labels, a.labels)
    assert not still.training
    assert ours.engine.name == "pytorch"


def test_a_network_without_card_gets_generic_labels():
    with pytest.warns(PixelwiseWarning, match="named by number.*say what it was made with: classes"):
        segmenter = Segmenter(Colors())
    assert segmenter.classes.names == ("class 0", "class 1", "class 2", "class 3")
    assert segmenter.card.parameters == 52


def test_confidence_is_kept_only_if_asked(colors_model):
    segmenter = Segmenter(colors_model)
    assert segmenter(quadrants()).confidence is None
    confidence = segmenter(quadrants(), confidence=True).confidence
    logits = np.array([0.4, 1, 0, 0])
    assert confidence[0, 59] == pytest.approx(np.exp(1) / np.exp(logits).sum(), abs=1e-6)


def test_labels_are_file_ids(tmp_path):
    classes = LabelSet.of(COLORS.names, ids=[7, 300, 11, 2])
    path = write_colors_model(tmp_path / "ids.onnx", CARD.replace(labels=classes))
    segmentation = Segmenter(path)(quadrants())
    np.testing.assert_array_equal(segmentation.labels, np.array([7, 300, 11, 2])[quadrant_labels()])
    np.testing.assert_array_equal(segmentation.mask("red"), quadrant_labels() == 1)


def test_models_that_cannot_be_opened(tmp_path, colors_model):
    with pytest.raises(UnknownNameError, match="did you mean 'everyday'"):
        Segmenter("everday")
    with pytest.raises(InputError, match="no such model file"):
        Segmenter(tmp_path / "none.onnx")
    (tmp_path / "bad.onnx").write_bytes(b"not a model")
    with pytest.raises(InputError, match="not a model"):
        Segmenter(tmp_path / "bad.onnx")
    bare = write_colors_model(tmp_path / "bare.onnx", card=None)
    with pytest.raises(InputError, match="no pixelwise card"):
        open_engine(bare)
    with pytest.warns(PixelwiseWarning, match="named by number"):
        assert Segmenter(bare).classes.names == ("class 0", "class 1", "class 2", "class 3")
    assert Segmenter(bare, card=CARD)(quadrants()).areas()["red"] == 0.25
    with pytest.raises(UnknownNameError, match="did you mean 'onnxruntime'"):
        Segmenter(colors_model, engine="onnxruntim")
    with pytest.raises(InputError, match="engine 'pytorch' runs"):
        Segmenter(colors_model, engine="pytorch")
    with pytest.raises(InputError, match="coarse"):
        open_engine(nn.Conv2d(3, 4, 1), card=CARD)


def test_engines_name_themselves(colors_model):
    assert repr(Segmenter(colors_model)) == "Segmenter('colors', engine='onnxruntime', classes=4)"


def test_a_named_torch_model_is_exported_once_and_then_runs_without_torch(tmp_path, monkeypatch):
    name, file = "lraspp_mobilenet_v3_large", "lraspp_mobilenet_v3_large-d234d4ea.pth"
    torch.manual_seed(0)
    network = models.lraspp_mobilenet_v3_large(weights_backbone=None).eval()
    torch.save(network.state_dict(), tmp_path / file)
    monkeypatch.setenv("PIXELWISE_WEIGHTS", str(tmp_path))
    monkeypatch.setenv("PIXELWISE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(store, "digest", lambda path: "d234d4ea" + "0" * 56)
    photo = np.random.default_rng(0).integers(0, 256, (90, 120, 3), dtype=np.uint8)
    first = Segmenter(name)(photo, confidence=True)
    (exported,) = (tmp_path / "cache" / "onnx").iterdir()
    assert exported.name.startswith(f"{name}-d234d4ea-")  # and what of its card

    def unwanted(name):
        raise AssertionError("the exported file should be enough")

    monkeypatch.setattr(models, "builder_of", unwanted)
    again = Segmenter(name)
    assert again.card.name == name
    np.testing.assert_array_equal(again(photo).labels, first.labels)
    monkeypatch.undo()
    with pytest.warns(PixelwiseWarning, match="named by number"):
        reference = Segmenter(network)
    assert reference.card.labels.names[8] == "class 8"  # without a card no name is guessed
    np.testing.assert_allclose(reference(photo, confidence=True).confidence, first.confidence, atol=1e-4)


def test_untrained_models_cannot_segment():
    with pytest.raises(InputError, match="no trained weights for unetplusplus"):
        Segmenter("unetplusplus")

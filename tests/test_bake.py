"""Bake: plain ONNX Runtime gives the label maps of Segmenter, pixel for pixel, from the picture."""

from __future__ import annotations

import pickle
import re
from dataclasses import replace

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper
from PIL import Image
from typer.testing import CliRunner

from pixelwise import Card, Segmenter
from pixelwise.cli.app import app
from pixelwise.errors import ExportError, InputError
from pixelwise.export.bake import bake
from pixelwise.exporting import export_model, picture, with_card
from pixelwise.weights.card import CARD_KEY
from tiny import write_colors_model

SIZES = ((40, 61), (97, 33), (64, 64), (15, 120), (301, 45))
"""Wide, tall, square, flat; shrunk and enlarged, and the last one so that its height is resized first."""


def write_random_model(path, card, *, stride=4, seed=0):
    """One convolution with random weights over patches, of whatever channels and logits the card speaks of."""
    shape = (card.channels, len(card.preprocess.mean), stride, stride)
    weight = np.random.default_rng(seed).normal(0, 1, shape).astype(np.float32)
    weight -= weight.mean(axis=(1, 2, 3), keepdims=True)
    graph = helper.make_graph(
        [helper.make_node("Conv", ["image", "weight"], ["logits"], strides=[stride, stride])],
        "random",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["n", shape[1], "h", "w"])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["n", shape[0], "h2", "w2"])],
        [numpy_helper.from_array(weight, "weight")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    model.metadata_props.add(key=CARD_KEY, value=card.to_json())
    onnx.save(model, str(path))
    return path


def names(count):
    return [f"class {i}" for i in range(count)]


def card(count=5, **words):
    return Card.of(names(count), stride=4, **words)


CARDS = {
    "shorter side, corners in line": card(size=48, align_corners=True),
    "longer side, a multiple and one more": card(size=150, side="longer", multiple=16, offset=1),
    "always one size": card(size=(33, 70)),
    "a multiple": card(multiple=32),
    "as it is": card(),
    "ids of their own": card(ids=[7, 300, 0, 12, 65536]),
    "300 classes": card(300, size=40),
    "one logit": card(2, outputs="binary", size=50, ids=[1, 0]),
    "four channels": card(mean=[0.1, 0.2, 0.3, 0.4], std=[0.5, 0.25, 0.125, 1], size=40),
    "regions": card(4, outputs="regions", size=50, ids=[3, 1, 2, 0]),
}


@pytest.mark.parametrize("said", CARDS)
def test_a_baked_file_gives_the_label_maps_of_segmenter(said, tmp_path):
    card = CARDS[said]
    path = write_random_model(tmp_path / "model.onnx", card)
    segmenter = Segmenter(path, threads=1)
    baked = bake(onnx.load(path), card)
    onnx.checker.check_model(baked, full_check=True)
    session = onnxruntime.InferenceSession(baked.SerializeToString(), providers=["CPUExecutionProvider"])
    assert Card.from_json(session.get_modelmeta().custom_metadata_map[CARD_KEY]) == replace(card, baked=True)
    for size_hw in SIZES:
        shown = picture(size_hw, len(card.preprocess.mean))
        expected = segmenter(shown)
        labels, *regions = session.run(None, {"picture": shown[None]})
        assert labels.dtype == expected.labels.dtype
        np.testing.assert_array_equal(labels[0], expected.labels)
        if card.outputs == "regions":
            masks = [expected.mask(name) for name in card.labels.names[1:]]
            np.testing.assert_array_equal(regions[0][0], masks)
        else:
            assert not regions
    assert len(np.unique(labels)) > 1


def test_equal_and_nearly_equal_logits_fall_as_in_segmenter(tmp_path):
    """Classes that differ by nothing, or by the last bit, where interpolation itself rounds."""
    even = card(4)
    path = write_random_model(tmp_path / "model.onnx", even)
    model = onnx.load(path)
    weight = np.repeat(numpy_helper.to_array(model.graph.initializer[0])[:1], 4, axis=0)
    weight[2] = np.nextafter(weight[2], np.float32(9))
    weight[3] = np.nextafter(weight[3], np.float32(-9))
    model.graph.initializer[0].CopyFrom(numpy_helper.from_array(weight, "weight"))
    onnx.save(model, path)
    session = onnxruntime.InferenceSession(bake(model, even).SerializeToString())
    shown = picture((150, 170), 3)
    expected = Segmenter(path, threads=1)(shown).labels
    assert len(np.unique(expected)) > 2
    np.testing.assert_array_equal(session.run(["labels"], {"picture": shown[None]})[0][0], expected)


def test_borders_are_interpolated_a_few_at_a_time(tmp_path, monkeypatch):
    path = write_random_model(tmp_path / "model.onnx", card(size=60))
    whole, shown = onnx.load(path), picture((90, 70), 3)
    answers = []
    for at_once in (4_000_000, 5, 5 * 500):
        monkeypatch.setattr("pixelwise.export.bake.AT_ONCE", at_once)
        session = onnxruntime.InferenceSession(bake(whole, card(size=60)).SerializeToString())
        answers.append(session.run(["labels"], {"picture": shown[None]})[0])
    np.testing.assert_array_equal(answers[0], answers[1])
    np.testing.assert_array_equal(answers[0], answers[2])
    assert Segmenter(path, threads=1)(shown).labels.tolist() == answers[0][0].tolist()


def test_what_cannot_be_baked_is_said(tmp_path):
    path = write_colors_model(tmp_path / "colors.onnx")
    model, card = onnx.load(path), Segmenter(path).card
    with pytest.raises(InputError, match="colors is baked already"):
        bake(bake(model, card), replace(card, baked=True))
    model.opset_import[0].domain = "ai.onnx"  # as it may be called
    assert [node.op_type for node in bake(model, card).graph.node].count("Conv") == 1
    model.opset_import[0].version = 11
    with pytest.raises(
        InputError, match="of ONNX opset 11, and a picture and its label map need 13 or later"
    ):
        bake(model, card)


@pytest.mark.parametrize(
    ("image", "weight", "logits"),
    [("picture", "labels", "baked/5"), ("baked/0", "picture", "labels"), ("labels", "baked/3", "height")],
)
def test_names_in_the_network_may_be_those_of_what_is_added(image, weight, logits, tmp_path):
    """Also in a graph inside, which takes the picture and the weights from outside."""
    plain = write_random_model(tmp_path / "plain.onnx", card(size=40))
    model, shown = onnx.load(plain), picture((61, 40), 3)
    graph, (conv,) = model.graph, model.graph.node
    graph.initializer[0].name, graph.input[0].name, graph.output[0].name = weight, image, logits
    conv.input[:], conv.output[:] = [image, weight], ["inner"]
    branch = helper.make_graph([conv], "branch", [], [helper.make_empty_tensor_value_info("inner")])
    graph.initializer.append(numpy_helper.from_array(np.array(True), "true"))
    either = helper.make_node("If", ["true"], [logits], then_branch=branch, else_branch=branch)
    graph.ClearField("node")
    graph.node.append(either)
    onnx.save(model, tmp_path / "model.onnx")
    export_model(tmp_path / "model.onnx", tmp_path / "baked.onnx", bake=True)
    baked = Segmenter(tmp_path / "baked.onnx", threads=1)
    np.testing.assert_array_equal(baked(shown).labels, Segmenter(plain, threads=1)(shown).labels)


def test_nodes_without_names_are_baked(tmp_path):
    model = onnx.load(write_random_model(tmp_path / "model.onnx", card(size=40)))
    model.graph.node[0].output[0] = "found"
    model.graph.node.append(helper.make_node("Neg", ["found"], ["logits"]))
    onnx.save(model, tmp_path / "model.onnx")
    session = onnxruntime.InferenceSession(bake(model, card(size=40)).SerializeToString())
    shown = picture((61, 40), 3)
    expected = Segmenter(tmp_path / "model.onnx", threads=1)(shown).labels
    np.testing.assert_array_equal(session.run(["labels"], {"picture": shown[None]})[0][0], expected)


def test_export_says_how_far_the_file_is_from_the_model(tmp_path):
    path = write_random_model(tmp_path / "model.onnx", card(size=48))
    said = export_model(path, tmp_path / "baked.onnx", bake=True)
    assert said.startswith("5 classes, logits to 0.0e+00 of their range, 0.000% of ")
    assert "; from picture to label map 0.000% of 132,261 pixels changed; class 0, class 1" in said
    assert re.match(
        r"5 classes, logits to 0.0e\+00 of their range, 0.000% of [1-9][\d,]* cells of another class;", said
    )
    said = export_model(path, tmp_path / "halves.onnx", precision="float16")
    assert said.startswith("5 classes, logits to 0.0e+00")  # 960 numbers are too few to be worth it
    assert (tmp_path / "halves.onnx").stat().st_size < 1.5 * path.stat().st_size
    for name in ("baked", "halves"):
        assert [one.key for one in onnx.load(tmp_path / f"{name}.onnx").metadata_props] == [CARD_KEY]


def test_a_baked_file_that_gives_other_label_maps_is_not_written(tmp_path, monkeypatch):
    path = write_random_model(tmp_path / "model.onnx", card(size=48))
    monkeypatch.setattr("pixelwise.export.bake.FRACTION_BITS", 4)
    with pytest.raises(ExportError, match=r"from picture to label map gives .* of the pixels another class"):
        export_model(path, tmp_path / "baked.onnx", bake=True)
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("words", "size_hw"),
    [
        ({"size": 40, "side": "longer"}, (2, 200)),  # less than a pixel would be left
        (
            {"size": 150, "side": "longer", "multiple": 16, "offset": 1},
            (5, 120),
        ),  # less than half of a multiple
        ({"multiple": 16}, (5, 120)),
        ({"size": (30, 40)}, (50, 50)),  # the height shrinks by twice as much as the width, and no more
        ({"size": (30, 40)}, (51, 50)),
    ],
    ids=str,
)
def test_the_smallest_sides_and_the_order_of_passes_are_those_of_segmenter(words, size_hw, tmp_path):
    said = Card.of(names(3), stride=1, **words)
    path = write_random_model(tmp_path / "model.onnx", said, stride=1)
    session = onnxruntime.InferenceSession(bake(onnx.load(path), said).SerializeToString())
    shown = picture(size_hw, 3)
    expected = Segmenter(path, threads=1)(shown).labels
    np.testing.assert_array_equal(session.run(["labels"], {"picture": shown[None]})[0][0], expected)


@pytest.fixture(scope="module", params=["exclusive", "regions"])
def baked_and_plain(request, tmp_path_factory):
    said = card(4, outputs=request.param, size=50, ids=[3, 1, 2, 0])
    folder = tmp_path_factory.mktemp("baked")
    path = write_random_model(folder / "model.onnx", said)
    export_model(path, folder / "baked.onnx", bake=True)
    return Segmenter(folder / "baked.onnx", threads=1), Segmenter(path, threads=1)


def test_a_baked_file_opens_with_its_card_and_answers_the_same(baked_and_plain):
    baked, plain = baked_and_plain
    assert baked.card == replace(plain.card, baked=True)
    pictures = [picture(size_hw, 3) for size_hw in SIZES[:3]]
    clean = {"min_area": 60, "fill_holes": ["class 1"], "largest_only": ["class 2"]}
    for options in ({}, clean):
        for shown in pictures:
            found, expected = baked(shown, **options), plain(shown, **options)
            np.testing.assert_array_equal(found.labels, expected.labels)
            assert found.labels.dtype == expected.labels.dtype
            assert found.areas() == expected.areas()
    for found, shown in zip(baked.map(pictures, batch=3), pictures, strict=True):
        np.testing.assert_array_equal(found.labels, plain(shown).labels)
    fastest = Segmenter(baked.engine.path, engine="fastest", threads=1)  # there is nobody to race
    np.testing.assert_array_equal(fastest(pictures[0]).labels, plain(pictures[0]).labels)
    again = pickle.loads(pickle.dumps(baked))
    np.testing.assert_array_equal(again(pictures[0]).labels, plain(pictures[0]).labels)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"confidence": True}, "with no confidence"),
        ({"min_confidence": 0.5}, "with no confidence"),
        ({"probabilities": True}, "with no probabilities"),
        ({"logits": True}, "with no logits"),
        ({"tile": 64}, "with no tiles"),
        ({"flips": ["horizontal"]}, "with no flips, rotations or scales"),
        ({"rotations": [90]}, "with no flips, rotations or scales"),
        ({"scales": [1, 2]}, "with no flips, rotations or scales"),
    ],
)
def test_a_baked_file_refuses_what_takes_logits(options, says, baked_and_plain):
    with pytest.raises(InputError, match=f"is baked: it takes a whole picture .* {says}; leave it out"):
        baked_and_plain[0](picture((40, 50), 3), **options)


def test_a_baked_file_refuses_bands_the_crf_deep_pictures_and_other_words(baked_and_plain):
    baked = baked_and_plain[0]
    shown = picture((40, 50), 3)
    with pytest.raises(InputError, match="with no tiles"):
        baked.bands(lambda top, bottom: shown[top:bottom], (40, 50))
    with pytest.raises(InputError, match="with no tiles"):
        baked.seams(shown)
    with pytest.raises(InputError, match=r"with no CRF|the CRF is for classes of which"):
        baked(shown, crf="vgg")
    with pytest.raises(InputError, match="gives its label map, no logits"):
        baked.engine(np.zeros((1, 3, 40, 50), np.float32))
    path = baked.engine._path
    with pytest.raises(InputError, match="baked: its classes and how pictures are prepared are in it"):
        Segmenter(path, mean=[0, 0, 0])
    with pytest.raises(InputError, match="engine 'openvino' does not run it; take engine onnxruntime"):
        Segmenter(path, engine="openvino")


def test_a_baked_file_segments_a_picture_as_typed(baked_and_plain, tmp_path):
    baked, plain = baked_and_plain
    shown = picture((60, 80), 3)
    Image.fromarray(shown).save(tmp_path / "photo.png")
    out = tmp_path / "labels.npy"
    typed = ["segment", tmp_path / "photo.png", "--model", baked.engine._path, "--out", out]
    assert CliRunner().invoke(app, [str(word) for word in typed]).exit_code == 0
    np.testing.assert_array_equal(np.load(out), plain(shown).labels)


def test_a_card_that_lies_about_being_baked_is_refused(baked_and_plain, tmp_path):
    baked, plain = baked_and_plain
    model = with_card(onnx.load(plain.engine._path), replace(plain.card, baked=True))
    onnx.save(model, tmp_path / "liar.onnx")
    with pytest.raises(InputError, match="says that it is baked, and the model does not take pictures"):
        Segmenter(tmp_path / "liar.onnx")
    four = replace(baked.card, preprocess=replace(baked.card.preprocess, mean=(0,) * 4, std=(1,) * 4))
    onnx.save(with_card(onnx.load(baked.engine._path), four), tmp_path / "four.onnx")
    with pytest.raises(InputError, match="the model does not take pictures of 4 channels"):
        Segmenter(tmp_path / "four.onnx")
    other = replace(baked.card, labels=replace(baked.classes, ids=(3, 1, 2, 9)))
    onnx.save(with_card(onnx.load(baked.engine._path), other), tmp_path / "ids.onnx")
    with pytest.raises(InputError, match="gives ids that are none of its classes'"):
        Segmenter(tmp_path / "ids.onnx")(picture((60, 80), 3))

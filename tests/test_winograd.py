"""Winograd's form of convolutions in ONNX files, beside the convolutions themselves."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

import pixelwise
from pixelwise.export import winograd
from pixelwise.export.onnx import export_onnx


def model_of(
    weights: NDArray[np.float32], bias: NDArray[np.float32] | None = None, **attributes: object
) -> onnx.ModelProto:
    """An ONNX model of a convolution with a ReLU behind it."""
    held = {"weights": weights} | ({} if bias is None else {"bias": bias})
    values = {"kernel_shape": list(weights.shape[2:]), "pads": [1] * 4} | attributes
    channels = weights.shape[1] * int(attributes.get("group", 1))  # type: ignore[call-overload]
    graph = helper.make_graph(
        [
            helper.make_node("Conv", ["image", *held], ["made"], name="layer", **values),
            helper.make_node("Relu", ["made"], ["logits"], name="relu"),
        ],
        "graph",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["n", channels, "h", "w"])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(value, name) for name, value in held.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)


def answer(model: onnx.ModelProto, image: NDArray[np.float32]) -> NDArray[np.float32]:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    (found,) = session.run(None, {"image": image})
    return found  # type: ignore[no-any-return]


def changed(model: onnx.ModelProto, monkeypatch: pytest.MonkeyPatch, fewest: int = 1) -> onnx.ModelProto:
    other = onnx.ModelProto()
    other.CopyFrom(model)
    with monkeypatch.context() as patched:
        patched.setattr(winograd, "FEWEST", fewest)
        winograd.rewrite(other)
    return other


@settings(max_examples=25, deadline=None)
@given(
    rate=st.integers(1, 4),
    channels=st.tuples(st.integers(1, 5), st.integers(1, 5)),
    shape=st.tuples(st.integers(1, 2), st.integers(1, 23), st.integers(1, 23)),
    at_once=st.integers(1, 5),
    with_bias=st.booleans(),
    seed=st.integers(0, 99),
)
def test_it_is_the_same_convolution(rate, channels, shape, at_once, with_bias, seed):
    draw = np.random.default_rng(seed)
    weights = draw.standard_normal((*channels, 3, 3)).astype(np.float32)
    bias = draw.standard_normal(channels[0]).astype(np.float32) if with_bias else None
    image = draw.standard_normal((shape[0], channels[1], *shape[1:])).astype(np.float32)
    plain = model_of(weights, bias, pads=[rate] * 4, dilations=[rate] * 2)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(winograd, "AT_ONCE", at_once)
        other = changed(plain, patched)
    assert "Relu" in (kinds := [node.op_type for node in other.graph.node])
    assert "MatMul" in kinds
    expected, found = answer(plain, image), answer(other, image)
    assert found.shape == expected.shape
    assert np.abs(found - expected).max() <= 2e-5 * max(1.0, float(np.abs(expected).max()))
    assert winograd.restore(other) == 1
    assert np.array_equal(answer(other, image), expected)
    assert [node.op_type for node in other.graph.node] == ["Conv", "Relu"]
    assert {tensor.name for tensor in other.graph.initializer} == {t.name for t in plain.graph.initializer}


@pytest.mark.parametrize(
    "attributes",
    [
        {"pads": [0] * 4},
        {"pads": [1, 1, 2, 2]},
        {"strides": [2, 2]},
        {"dilations": [2, 1], "pads": [2, 1, 2, 1]},
        {"dilations": [5, 5], "pads": [5] * 4},
        {"group": 2},
        {"pads": [0] * 4, "auto_pad": "SAME_UPPER"},
    ],
    ids=str,
)
def test_other_convolutions_stay_as_they_are(attributes, monkeypatch):
    weights = np.ones((4, 4, 3, 3), np.float32)
    if attributes.get("auto_pad"):
        attributes = {"auto_pad": "SAME_UPPER", "kernel_shape": [3, 3]}
    plain = model_of(weights, **attributes)
    if "auto_pad" in attributes:
        for attribute in [a for a in plain.graph.node[0].attribute if a.name == "pads"]:
            plain.graph.node[0].attribute.remove(attribute)
    assert changed(plain, monkeypatch) == plain
    assert winograd.restore(plain) == 0


def test_few_channels_kernels_of_other_sizes_and_weights_that_are_computed_stay(monkeypatch):
    for shape, pads in (((4, 4, 5, 5), 2), ((4, 4, 1, 1), 0), ((4, 1, 3, 3), 1), ((1, 4, 3, 3), 1)):
        plain = model_of(np.ones(shape, np.float32), pads=[pads] * 4)
        assert changed(plain, monkeypatch, fewest=2) == plain
    computed = model_of(np.ones((4, 4, 3, 3), np.float32))
    computed.graph.initializer[0].name = "stored"
    computed.graph.node.insert(0, helper.make_node("Abs", ["stored"], ["weights"], name="abs"))
    assert changed(computed, monkeypatch) == computed
    assert (
        changed(model_of(np.ones((4, 4, 3, 3), np.float32)), monkeypatch, fewest=4).graph.node[0].op_type
        == "Shape"
    )


def test_weights_in_half_precision_stay_as_they_are(monkeypatch):
    plain = model_of(np.ones((4, 4, 3, 3), np.float16))
    assert changed(plain, monkeypatch) == plain


def test_convolutions_without_a_name_are_told_apart(monkeypatch):
    draw = np.random.default_rng(0)
    shapes = ((4, 3, 3, 3), (5, 4, 3, 3))
    plain = model_of(draw.standard_normal(shapes[0]).astype(np.float32))
    plain.graph.node[0].name = ""
    weights = draw.standard_normal(shapes[1]).astype(np.float32)
    plain.graph.initializer.append(numpy_helper.from_array(weights, "more"))
    plain.graph.node[1].output[0] = "between"
    plain.graph.node.append(helper.make_node("Conv", ["between", "more"], ["logits"], pads=[1] * 4))
    other, image = changed(plain, monkeypatch), draw.standard_normal((1, 3, 11, 9)).astype(np.float32)
    np.testing.assert_allclose(answer(other, image), answer(plain, image), atol=1e-3)
    assert winograd.restore(other) == 2
    np.testing.assert_array_equal(answer(other, image), answer(plain, image))


def test_weights_in_another_file_are_taken_along(tmp_path, monkeypatch):
    draw = np.random.default_rng(0)
    weights = draw.standard_normal((4, 3, 3, 3)).astype(np.float32)
    plain = model_of(weights)
    onnx.save(
        changed(plain, monkeypatch),
        tmp_path / "it.onnx",
        save_as_external_data=True,
        location="it.data",
        size_threshold=0,
    )
    assert (tmp_path / "it.data").stat().st_size >= weights.nbytes
    image = draw.standard_normal((1, 3, 9, 7)).astype(np.float32)
    found = onnx.load_from_string(winograd.restored(tmp_path / "it.onnx"))
    assert [node.op_type for node in found.graph.node] == ["Conv", "Relu"]
    assert np.array_equal(answer(found, image), answer(plain, image))


@pytest.mark.slow
def test_an_export_has_it_and_gives_the_logits_of_the_network(tmp_path, monkeypatch):
    monkeypatch.setattr(winograd, "FEWEST", 16)
    torch.manual_seed(0)
    network = pixelwise.create_model(
        "unet", encoder="resnet18", num_classes=3, decoder_channels=(32, 16, 16, 16, 8)
    )
    card = pixelwise.Card.of(["a", "b", "c"])
    gap = export_onnx(network, card, tmp_path / "with.onnx")
    assert export_onnx(network, card, tmp_path / "without.onnx", rewrite=False) <= gap < 1e-5
    marked = [n for n in onnx.load(tmp_path / "with.onnx").graph.node if winograd.MARK in n.name]
    assert len({node.name.partition(winograd.MARK)[0] for node in marked}) > 10
    assert all(winograd.MARK not in n.name for n in onnx.load(tmp_path / "without.onnx").graph.node)
    sizes = [(tmp_path / f"{name}.onnx").stat().st_size for name in ("with", "without")]
    assert sizes[0] < 1.02 * sizes[1]
    image = np.random.default_rng(0).integers(0, 255, (70, 90, 3), np.uint8)
    names = (tmp_path / "with.onnx", tmp_path / "without.onnx")
    found, expected = (pixelwise.Segmenter(name)(image, logits=True) for name in names)
    assert np.abs(found.logits - expected.logits).max() < 1e-4 * np.ptp(expected.logits)
    assert np.array_equal(found.labels, expected.labels)
    there, back = (pixelwise.Segmenter(name, engine="openvino")(image, logits=True) for name in names)
    assert np.array_equal(there.logits, back.logits)  # the same convolutions

"""Several models as one: the mean of their logits, for pictures and for volumes, on the command line and in Python."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from pixelwise import Card, LabelSet, Segmenter
from pixelwise.errors import InputError
from pixelwise.outputs.reading import read_labels
from pixelwise.weights.card import CARD_KEY
from volumes_by_hand import AS_STORED, TISSUES, affine_at, card_of, ellipsoids, write_tissues_model

COLORS = LabelSet.of(["dark", "red", "green"])


def write(path: Path, seed: int, card: Card, *, dims: int = 2, stride: int = 1) -> Path:
    """One convolution with drawn weights, from 3 channels, or from 1 of a volume."""
    draw = np.random.default_rng(seed)
    channels, k = (3 if dims == 2 else 1), card.channels
    weight = draw.normal(size=(k, channels, *(3,) * dims)).astype(np.float32)
    how = {"kernel_shape": [3] * dims, "pads": [1] * 2 * dims, "strides": [stride] * dims}
    sides = ["d", "h", "w"][-dims:]
    graph = helper.make_graph(
        [helper.make_node("Conv", ["image", "weight", "bias"], ["logits"], **how)],
        "drawn",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["n", channels, *sides])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["n", k, *(f"{s}_" for s in sides)])],
        [
            numpy_helper.from_array(weight, "weight"),
            numpy_helper.from_array(draw.normal(size=k).astype(np.float32), "bias"),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    model.metadata_props.add(key=CARD_KEY, value=card.replace(stride=stride).to_json())
    onnx.save(model, str(path))
    return path


def test_the_logits_of_a_picture_are_the_mean_of_each_models(tmp_path):
    card = Card.of(COLORS)
    models = [write(tmp_path / f"{seed}.onnx", seed, card) for seed in range(3)]
    picture = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    each = [Segmenter(model)(picture, logits=True).logits for model in models]
    together = Segmenter(models)
    found = together(picture, logits=True, confidence=True)
    np.testing.assert_allclose(found.logits, np.mean(each, axis=0), atol=1e-5)
    np.testing.assert_array_equal(found.labels, np.mean(each, axis=0).argmax(axis=0))
    assert (found.engine, found.precision) == ("onnxruntime", "float32")
    assert together.card.name == "a model of one's own and 2 more"
    tiled = together(picture, tile=16, overlap=8, logits=True)
    each = [Segmenter(model)(picture, tile=16, overlap=8, logits=True).logits for model in models]
    np.testing.assert_allclose(tiled.logits, np.mean(each, axis=0), atol=1e-5)
    one = Segmenter(models[:1])
    np.testing.assert_array_equal(one(picture).labels, Segmenter(models[0])(picture).labels)
    assert one.card == Segmenter(models[0]).card


def test_models_of_two_strides_meet_at_the_finer(tmp_path):
    ndimage = pytest.importorskip("scipy.ndimage")
    card = Card.of(COLORS, multiple=4)
    models = [write(tmp_path / f"{stride}.onnx", stride, card, stride=stride) for stride in (4, 2)]
    picture = np.random.default_rng(0).integers(0, 256, (16, 24, 3), dtype=np.uint8)
    fine, coarse = (Segmenter(model).engine(np.ones((1, 3, 16, 24), np.float32)) for model in models[::-1])
    together = Segmenter(models)
    assert together.card.stride == 2
    found = together.engine(np.ones((1, 3, 16, 24), np.float32))
    assert found.shape == fine.shape == (1, 3, 8, 12)
    assert coarse.shape == (1, 3, 4, 6)
    rows, columns = (np.clip((np.arange(2 * n) + 0.5) / 2 - 0.5, 0, None) for n in (4, 6))
    bent = ndimage.map_coordinates
    grid = np.meshgrid(rows, columns, indexing="ij")
    larger = np.stack([bent(plane, grid, order=1, mode="nearest") for plane in coarse[0]])
    np.testing.assert_allclose(found[0], (fine[0] + larger) / 2, atol=1e-5)
    assert together(picture).labels.shape == (16, 24)


def test_regions_are_averaged_as_logits_too(tmp_path):
    card = Card.of(["outside", "cell", "nucleus"], outputs="regions")
    models = [write(tmp_path / f"{seed}.onnx", seed, card) for seed in range(2)]
    picture = np.random.default_rng(0).integers(0, 256, (12, 14, 3), dtype=np.uint8)
    each = [Segmenter(model)(picture, logits=True).logits for model in models]
    found = Segmenter(models)(picture)
    for i, name in enumerate(("cell", "nucleus")):
        np.testing.assert_array_equal(found.mask(name), np.mean(each, axis=0)[i] > 0)


def test_folds_segment_a_scan_and_are_noted_in_the_journal(tmp_path, typed):
    models = [
        write(tmp_path / f"fold{fold}.onnx", fold, card_of(replace(AS_STORED, patch=(8, 12, 12))), dims=3)
        for fold in range(2)
    ]
    nibabel = pytest.importorskip("nibabel")
    size, affine = (10, 14, 16), affine_at("RAS", (2, 1, 1), (10, 14, 16))
    values = ellipsoids(affine, size)
    for name in ("a.nii.gz", "b.nii.gz"):
        Path("scans").mkdir(exist_ok=True)
        nibabel.Nifti1Image(values.T, affine).to_filename(f"scans/{name}")
    both = f"--model {models[0]} --model {models[1]}"
    done = typed(f"segment scans {both} --out out --format nifti")
    assert (done.code, done.err) == (0, "")
    each = [Segmenter(model)(values, logits=True).logits for model in models]
    expected = np.mean(each, axis=0).argmax(axis=0)
    assert any((logits.argmax(axis=0) != expected).any() for logits in each)
    np.testing.assert_array_equal(read_labels("out/a.labels.nii.gz", TISSUES), expected)
    again = typed(f"segment scans {both} --out out --format nifti --resume")
    assert (again.code, again.out) == (0, "")
    assert "2 of 2 were finished before" in again.err
    other = typed(f"segment scans --model {models[0]} --out out --format nifti --resume")
    assert other.code == 2
    assert "holds results of other settings" in other.err


def test_pictures_are_segmented_by_several_models_from_the_command_line(tmp_path, typed):
    card = Card.of(COLORS)
    models = [write(tmp_path / f"{seed}.onnx", seed, card) for seed in range(2)]
    picture = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    Image.fromarray(picture).save("a.png")
    done = typed(f"segment a.png -m {models[0]} -m {models[1]} -o out --format labels --flip horizontal")
    assert (done.code, done.err) == (0, "")
    expected = Segmenter(models)(picture, flips=["horizontal"]).labels
    np.testing.assert_array_equal(read_labels("out/a.labels.png", COLORS), expected)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"labels": LabelSet.of(["dark", "green", "red"])}, "differ in labels"),
        ({"labels": LabelSet.of(["dark", "red", "green"], ids=[0, 1, 7])}, "differ in labels"),
        ({"align_corners": True}, "differ in align_corners"),
        ({"preprocess": Card.of(COLORS, mean=[0] * 3).preprocess}, "differ in preprocess"),
    ],
)
def test_models_that_do_not_agree_are_refused_with_what_they_differ_in(tmp_path, change, says):
    card = Card.of(COLORS)
    one, other = write(tmp_path / "1.onnx", 1, card), write(tmp_path / "2.onnx", 2, card.replace(**change))
    with pytest.raises(InputError, match=says):
        Segmenter([one, other])


def test_a_model_of_pictures_and_one_of_volumes_or_none_are_no_ensemble(tmp_path, colors_model):
    volumes = write_tissues_model(tmp_path / "v.onnx")
    with pytest.raises(InputError, match="differ in"):
        Segmenter([colors_model, volumes])
    with pytest.raises(InputError, match="at least one model, got none"):
        Segmenter([])
    with pytest.raises(InputError, match="no such model file"):
        Segmenter([volumes, tmp_path / "missing.onnx"])

"""What is made of the segmentation of a volume: cleaned up in three dimensions, measured, drawn, and written as files
that other programs read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("nibabel", reason="needs the extra volume")
ndimage = pytest.importorskip("scipy.ndimage", reason="needs the extra volume")

import nibabel

from pixelwise import Card, LabelSet, Segmenter, Volume
from pixelwise.errors import InputError
from pixelwise.geometry import affine_of
from pixelwise.outputs.reading import read_labels
from volumes_by_hand import AS_STORED, TISSUES, affine_at, card_of, ellipsoids, tissues, write_tissues_model

SIZE = (14, 20, 24)
SPACING = (2.5, 1.0, 1.25)
SIDES = ndimage.generate_binary_structure(3, 1)


@pytest.fixture(scope="module")
def segmenter(tmp_path_factory: pytest.TempPathFactory) -> Segmenter:
    return Segmenter(write_tissues_model(tmp_path_factory.mktemp("model") / "tissues.onnx"))


def blobs(seed: int = 0) -> np.ndarray:
    """Values of background, organ and lesion in blobs of all sizes."""
    noise = ndimage.gaussian_filter(np.random.default_rng(seed).normal(size=SIZE), 1.2)
    return np.digitize(noise, np.quantile(noise, (0.5, 0.8))).astype(np.float32) * 60 + 10


# Cleaned up ----------------------------------------------------------------------------------------------------


def test_holes_are_filled_in_three_dimensions(segmenter):
    values = ellipsoids(affine_at("RAS", SPACING, SIZE), SIZE).astype(np.float32)
    values[(values == 130)] = 70
    values[7, 10, 12] = 10  # a hole
    values[:7, 11, 14] = 10  # a channel from outside, which is a hole in each slice alone
    labels = tissues(values)
    found = segmenter(values, fill_holes=["organ"]).labels
    expected = np.where(ndimage.binary_fill_holes(labels == 1, SIDES), 1, labels)
    np.testing.assert_array_equal(found, expected)
    assert (found[7, 10, 12], found[4, 11, 14]) == (1, 0)


@pytest.mark.parametrize("turn", [(0, 1, 2), (2, 0, 1)])
def test_only_the_largest_region_stays_and_small_ones_go_to_a_neighbour(segmenter, turn):
    values = np.ascontiguousarray(blobs().transpose(turn))
    labels = tissues(values)
    assert len(np.unique(labels)) == 3
    found = segmenter(values, largest_only=["lesion"]).labels
    parts, _ = ndimage.label(labels == 2, SIDES)
    sizes = np.bincount(parts.ravel())[1:]
    np.testing.assert_array_equal(found == 2, parts == 1 + sizes.argmax())
    assert len(sizes) > 3
    found = segmenter(values, min_area=30).labels
    for value in range(3):
        parts, count = ndimage.label(found == value, SIDES)
        assert count == 0 or np.bincount(parts.ravel())[1:].min() >= 30
        assert any(ndimage.label(labels == value, SIDES)[1] > count for value in range(3))


def test_the_smallest_region_is_said_in_voxels_or_in_cubic_millimetres(segmenter, typed, tmp_path):
    values, affine = blobs(1), affine_of("RAS", SPACING)
    voxel = float(np.prod(SPACING))
    scan = Volume.of(values, affine)
    labels = tissues(values)
    parts = [ndimage.label(labels == value, SIDES)[0] for value in range(3)]
    smallest = min(int(np.bincount(some.ravel())[1:].min()) for some in parts)
    np.testing.assert_array_equal(segmenter(scan, min_mm3=smallest * voxel).labels, labels)
    assert (segmenter(scan, min_mm3=(smallest + 0.01) * voxel).labels != labels).any()
    for voxels in (2, 17, 30):
        expected = segmenter(scan, min_area=voxels).labels
        for mm3 in (voxels * voxel, (voxels - 0.5) * voxel):
            np.testing.assert_array_equal(segmenter(scan, min_mm3=mm3).labels, expected)
    with pytest.raises(InputError, match="min_mm3 is for volumes that say their spacing"):
        segmenter(values, min_mm3=30)
    with pytest.raises(InputError, match="give one of them"):
        segmenter(scan, min_mm3=30, min_area=3)
    model = write_tissues_model(tmp_path / "tissues.onnx")
    nibabel.Nifti1Image(values.T, affine).to_filename("scan.nii")
    done = typed(
        f"segment scan.nii -m {model} -o out --format nifti --min-mm3 50 --largest-only lesion --fill-holes organ"
    )
    assert (done.code, done.err) == (0, "")
    expected = segmenter(scan, min_mm3=50, largest_only=["lesion"], fill_holes=["organ"]).labels
    np.testing.assert_array_equal(read_labels("out/scan.labels.nii", TISSUES), expected)
    done = typed(f"segment scan.nii -m {model} -o out2 --largest-only leison")
    assert done.code == 2
    assert "lesion" in done.err


def test_a_picture_has_no_cubic_millimetres(colors_model, typed):
    from PIL import Image

    Image.new("RGB", (16, 16)).save("a.png")
    done = typed(f"segment a.png -m {colors_model} --min-mm3 5")
    assert done.code == 2
    assert "min_mm3 is for volumes that say their spacing" in done.err


REGIONS = LabelSet.of(["nothing", "whole tumour", "tumour core", "enhancing tumour"], ids=[0, 2, 1, 4])


def regions_segmenter(path: Path) -> Segmenter:
    """Regions that lie in each other: over 40, over 50 and over 100."""
    import onnx
    from onnx import numpy_helper

    from pixelwise.weights.card import CARD_KEY

    write_tissues_model(path)
    model = onnx.load(path)
    model.graph.initializer[0].CopyFrom(numpy_helper.from_array(_middle((1, 1, 1)), "weight"))
    model.graph.initializer[1].CopyFrom(
        numpy_helper.from_array(np.array([-40, -50, -100], np.float32), "bias")
    )
    card = Card.of(REGIONS, outputs="regions", volume=AS_STORED)
    del model.metadata_props[:]
    model.metadata_props.add(key=CARD_KEY, value=card.to_json())
    onnx.save(model, path)
    return Segmenter(path)


def _middle(weights: Any) -> np.ndarray:
    kernel = np.zeros((3, 1, 3, 3, 3), np.float32)
    kernel[:, 0, 1, 1, 1] = weights
    return kernel


def test_regions_are_written_in_their_order_as_the_challenge_counts_them(tmp_path):
    """Whole tumour, then its core, then what enhances: ids 2, 1 and 4, each region whole in mask, mm3 and table."""
    segmenter = regions_segmenter(tmp_path / "regions.onnx")
    values = blobs(2)
    values[values == 10], values[values == 70], values[values == 130] = 45, 20, 60
    values[3:6, 4:9, 5:11] = 120
    scan = Volume.of(values, affine_of("RAS", SPACING))
    found = segmenter(scan)
    expected = np.where(values > 100, 4, np.where(values > 50, 1, np.where(values > 40, 2, 0)))
    np.testing.assert_array_equal(found.labels, expected)
    counts = {row["name"]: row["voxels"] for row in found.to_dict()["classes"]}
    assert counts == {
        "whole tumour": int((values > 40).sum()), "tumour core": int((values > 50).sum()),
        "enhancing tumour": int((values > 100).sum()), "nothing": int((values <= 40).sum()),
    }  # fmt: skip
    found = segmenter(scan, largest_only=["tumour core"], fill_holes=["whole tumour"])
    core, _ = ndimage.label(values > 50, SIDES)
    np.testing.assert_array_equal(
        found.mask("tumour core"), core == 1 + np.bincount(core.ravel())[1:].argmax()
    )
    whole = ndimage.binary_fill_holes(values > 40, SIDES)
    np.testing.assert_array_equal(found.mask("whole tumour"), whole)
    np.testing.assert_array_equal(found.mask("enhancing tumour"), values > 100)
    with pytest.raises(InputError, match="is what no region covers"):
        segmenter(scan, largest_only=["nothing"])

"""Every network of the catalog goes through the front door: picture in, label map, overlay and file out; and
saved and opened again, it gives the same."""

from __future__ import annotations

from fnmatch import fnmatch

import numpy as np
import pytest

import pixelwise
from pixelwise import Segmenter, export_onnx, models
from pixelwise.catalog import CATALOG
from pixelwise.errors import InputError, PixelwiseWarning
from pixelwise.outputs.reading import read_labels
from test_contract import NARROW, VOLUMES, build

PICTURES = [name for name in models.list_models() if name not in VOLUMES]
SMALL = [name for name in PICTURES if any(fnmatch(name, pattern) for pattern in NARROW) and "vgg" not in name]
FIRST = {CATALOG[name].builder.partition(":")[0]: name for name in reversed(SMALL)}.values()
"""A small one of each paper that has any; the others run in the slow tier."""


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name in FIRST else pytest.mark.slow) for name in PICTURES]
)
def test_a_network_of_the_catalog_segments_draws_and_opens_again(name, picture, tmp_path):
    network = build(name, num_classes=4, in_channels=3).eval()
    with pytest.warns(PixelwiseWarning, match="named by number"):
        segmenter = Segmenter(network)
    found = segmenter(picture, confidence=True)
    assert found.labels.shape == picture.shape[:2]
    assert len(np.unique(found.labels)) > 1 or found.confidence.std() > 0  # it looked
    regions = segmenter.card.outputs == "regions"  # the first class is outside all of them
    assert segmenter.classes.names == tuple(f"class {i}" for i in range(4 + regions))
    assert found.overlay().shape == picture.shape
    if not regions:
        assert sum(found.areas().values()) == pytest.approx(1)
    found.save(tmp_path / "labels.png")
    np.testing.assert_array_equal(read_labels(tmp_path / "labels.png", found.classes), found.labels)
    pixelwise.save(network, tmp_path / "network.safetensors")
    again = Segmenter(tmp_path / "network.safetensors")
    np.testing.assert_array_equal(again(picture).labels, found.labels)


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=pytest.mark.slow if name in FIRST else pytest.mark.exhaustive)
        for name in PICTURES
    ],
)
@pytest.mark.filterwarnings("ignore::pixelwise.errors.PixelwiseWarning")
def test_the_exported_file_of_a_network_of_the_catalog_opens_to_the_same_label_map(name, picture, tmp_path):
    network = build(name, num_classes=4, in_channels=3).eval()
    segmenter = Segmenter(network)
    export_onnx(network, segmenter.card, tmp_path / "network.onnx")
    exported = Segmenter(tmp_path / "network.onnx")
    assert exported.card == segmenter.card
    assert (exported(picture).labels == segmenter(picture).labels).mean() > 0.999


@pytest.mark.parametrize("name", VOLUMES)
def test_a_network_for_volumes_is_opened_with_how_its_release_prepares_them(name):
    with pytest.warns(PixelwiseWarning, match="has no card: its classes are named by number"):
        segmenter = Segmenter(build(name))
    assert segmenter.card.volume == CATALOG[name].card.volume
    assert len(segmenter.card.volume.channels) == 4
    with pytest.raises(InputError, match="takes volumes: a path"):
        segmenter(b"")

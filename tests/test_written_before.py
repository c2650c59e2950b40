"""Files that an earlier version wrote open alike: networks, exported models, runs, folders and rasters to go on with.

tests/written_before/make.py says what each is and how it was made; expected.json and expected.npz, what that version
answered. Logits, label maps and confidences are compared as numbers, since kernels differ between processors; what is
bit for bit is so on one machine only.
"""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.numpy import load_file

import pixelwise

HERE = Path(__file__).parent / "written_before"
sys.path.insert(0, str(HERE))

import make  # noqa: E402

EXPECTED = json.loads((HERE / "expected.json").read_text(encoding="utf-8"))
ARRAYS = np.load(HERE / "expected.npz")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A copy to work in, with its own place written where the files name places."""
    return make.unpack(tmp_path / "somewhere")


@pytest.mark.parametrize("file", EXPECTED["networks"])
def test_a_network_opens_to_the_same_logits_and_card(file: str):
    want = EXPECTED["networks"][file]
    network = pixelwise.from_checkpoint(HERE / "networks" / file)
    with torch.no_grad():
        found = network(torch.from_numpy(make.fixed_input(*want["input"])))
    assert {key: list(value.shape) for key, value in found.items()} == want["outputs"]
    for key, value in found.items():
        before = ARRAYS[f"networks/{file}/{key}"]
        np.testing.assert_allclose(
            make.thinned(value.numpy()), before, atol=1e-4 * max(1.0, np.abs(before).max())
        )
    for what in ("stride", "align_corners", "num_classes"):
        assert getattr(network, what) == want[what]
    assert sum(p.numel() for p in network.parameters()) == want["parameters"]
    with safe_open(HERE / "networks" / file, "np") as opened:
        card = pixelwise.Card.from_json(opened.metadata()["pixelwise.card"])
    about = make.about(json.loads(json.dumps(card.to_dict())))
    assert {key: about[key] for key in want["card"]} == want["card"]


@pytest.mark.parametrize("file", EXPECTED["onnx"])
def test_an_exported_model_gives_the_same_label_map_and_card(file: str):
    picture, _ = make.drawn_picture()
    segmenter = pixelwise.Segmenter(HERE / "onnx" / file, threads=1)
    found = segmenter(picture, confidence=True)
    before = ARRAYS[f"onnx/{file}/labels"]
    assert found.labels.dtype == before.dtype
    assert (found.labels == before).mean() >= 0.999
    np.testing.assert_allclose(
        make.thinned(np.asarray(found.confidence)), ARRAYS[f"onnx/{file}/confidence"], atol=1e-4
    )
    about = make.about(json.loads(json.dumps(segmenter.card.to_dict())))
    assert {key: about[key] for key in EXPECTED["onnx"][file]} == EXPECTED["onnx"][file]


@pytest.mark.slow
def test_a_run_that_was_killed_goes_on_to_the_weights_it_would_have_had(root: Path):
    run = EXPECTED["runs"]["run_cut"]
    resumed = make.command(*run["resume"][1:], cwd=root)
    assert resumed.returncode == 0, resumed.stderr
    found = load_file(root / "run_cut" / "weights.safetensors")
    assert found.keys() == run["tensors"].keys()
    for key, value in found.items():
        np.testing.assert_allclose(value, ARRAYS[f"runs/run_cut/{key}"], atol=1e-4, err_msg=key)
    np.testing.assert_allclose(make.losses(root / "run_cut"), run["losses"], rtol=1e-4)


@pytest.mark.slow
def test_the_configuration_of_a_finished_run_makes_it_again(root: Path):
    run = EXPECTED["runs"]["run"]
    again = make.command("train", "--config", "run/config.json", "--out", "again", cwd=root)
    assert again.returncode == 0, again.stderr
    before, after = (load_file(root / name / "weights.safetensors") for name in ("run", "again"))
    assert before.keys() == after.keys() == run["tensors"].keys()
    for key, value in after.items():
        np.testing.assert_allclose(value, before[key], atol=1e-3, err_msg=key)
    np.testing.assert_allclose(make.losses(root / "again"), run["losses"], rtol=1e-3)


def test_a_folder_that_was_half_done_goes_on_where_it_stopped(root: Path):
    want = EXPECTED["segmented"]
    went_on = make.command(*want["resume"][1:], cwd=root)
    assert went_on.returncode == 0, went_on.stderr
    assert want["says"] in went_on.stderr
    assert make.labels_in(root / "segmented") == want["labels"]


def test_a_raster_that_was_half_done_goes_on_at_its_tile_to_the_same_file(root: Path):
    want = EXPECTED["raster"]
    went_on = make.command(*want["resume"][1:], cwd=root)
    assert went_on.returncode == 0, went_on.stderr
    assert want["says"] in went_on.stderr
    geotiff = root / "raster" / "out" / "map.labels.tif"
    assert hashlib.sha256(geotiff.read_bytes()).hexdigest() == want["geotiff_sha256"]
    assert not geotiff.with_name(f".{geotiff.name}.unfinished").exists()

"""Every example runs, and torchvision's give the same with their own import."""

from __future__ import annotations

import os
import re
import runpy
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image
from skimage import data as photos

import pixelwise.weights.store as store
from pixelwise import Segmenter
from pixelwise.exporting import export_model

EXAMPLES = Path(__file__).parents[1] / "examples"
FILE = "fcn_resnet50_coco-1167a1af.pth"


@pytest.fixture(scope="module")
def random_weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """torchvision's FCN with random weights under the name of the official file."""
    torch.manual_seed(0)
    network = torchvision.models.segmentation.fcn_resnet50(weights=None, weights_backbone=None, aux_loss=True)
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.weight.uniform_(0.9, 1.3)
    folder = tmp_path_factory.mktemp("weights")
    torch.save(network.state_dict(), folder / FILE)
    return folder


@pytest.fixture
def dogs(random_weights, tmp_path, monkeypatch) -> Path:
    """The working folder of the documentation: two pictures, and local weights whose hash is not looked at."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PIXELWISE_WEIGHTS", str(random_weights))
    monkeypatch.setattr(store, "check_hash", lambda path, sha256: None)
    for name, photo in (("dog.jpg", photos.chelsea()), ("dog2.jpg", photos.coffee())):
        Image.fromarray(photo).resize((160, 120)).save(tmp_path / name)
    return tmp_path


def with_torchvisions_imports(script: str, folder: Path) -> Path:
    """The example as it was before the change of imports, its weights taken from our folder."""
    text = (EXAMPLES / script).read_text()
    text = text.replace("from pixelwise.models import", "from torchvision.models.segmentation import")
    text = text.replace("from pixelwise.draw import", "from torchvision.utils import")
    assert "pixelwise" not in text
    original = folder / f"original_{script}"
    original.write_text(text)
    return original


@pytest.mark.filterwarnings(
    "ignore:The image decoding:DeprecationWarning"
)  # torchvision means its own decode_image
@pytest.mark.parametrize("script", ["torchvision_inference.py", "torchvision_masks.py"])
def test_torchvisions_examples_give_the_same_pictures(script, dogs, random_weights, monkeypatch):
    runpy.run_path(str(EXAMPLES / script))
    ours = {path.name: np.asarray(Image.open(path)) for path in dogs.glob("*.png")}
    assert ours
    hub = dogs / "hub" / "checkpoints"
    hub.mkdir(parents=True)
    (hub / FILE).symlink_to(random_weights / FILE)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(dogs / "hub"))
    monkeypatch.setenv("PIXELWISE_WEIGHTS", "")
    for path in dogs.glob("*.png"):
        path.unlink()
    runpy.run_path(str(with_torchvisions_imports(script, dogs)))
    for name, picture in ours.items():
        theirs = np.asarray(Image.open(dogs / name))
        # Random weights leave many pixels undecided to the last bit, so a few may fall the other way.
        differing = (np.abs(theirs.astype(int) - picture) > 1).mean()
        assert differing < 1e-3, (name, differing)


def test_the_training_step_has_torchvisions_loss(tmp_path, capsys):
    runpy.run_path(str(EXAMPLES / "torchvision_training_step.py"))
    ours = capsys.readouterr().out
    runpy.run_path(str(with_torchvisions_imports("torchvision_training_step.py", tmp_path)))
    assert float(ours.split()[1]) == pytest.approx(float(capsys.readouterr().out.split()[1]), abs=2e-4)


@pytest.mark.parametrize(
    ("script", "writes"), [("first_mask.py", "first_mask.png"), ("demo.py", "demo/cat.labels.png")]
)
def test_our_own_examples_find_the_cat(script, writes, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", [script])
    runpy.run_path(str(EXAMPLES / script))
    assert "cat" in capsys.readouterr().out
    labels = np.asarray(Image.open(tmp_path / writes))
    assert labels.shape == photos.chelsea().shape[:2]
    assert (labels == 8).mean() > 0.3


def test_streets_are_drawn_with_their_labels():
    street = runpy.run_path(str(EXAMPLES / "lanes.py"))["street"]
    picture, mask = (np.asarray(image) for image in street(7))
    assert (picture.shape, mask.shape) == ((64, 112, 3), (64, 112))
    assert set(np.unique(mask)) == {0, 1, 2}
    assert picture[mask == 2].mean() > picture[mask == 1].mean() + 20  # markings are brighter than the road
    assert not (mask[:19] > 0).any()  # above the horizon
    assert (np.asarray(street(8)[1]) != mask).any()


@pytest.mark.slow
def test_road_and_lane_are_learned_from_drawn_streets(tmp_path):
    run = [sys.executable, str(EXAMPLES / "lanes.py"), "lanes", "50"]
    result = subprocess.run(run, cwd=tmp_path, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    right = [
        float(share) for share in re.findall(r"street \d+: ([\d.]+)% of its pixels right", result.stdout)
    ]
    assert len(right) == 3
    assert min(right) > 75
    assert sum(right) / 3 > 85
    assert "%, road " in result.stdout
    assert np.asarray(Image.open(tmp_path / "lanes" / "mask.png")).shape == (64, 112)
    assert np.asarray(Image.open(tmp_path / "lanes" / "lanes.png")).shape[0] == 3 * (3 * 64 + 2 * 8)


def test_heads_are_drawn_with_their_label_volumes():
    head = runpy.run_path(str(EXAMPLES / "tumour.py"))["head"]
    values, labels, affine = head(7)
    assert (values.shape, values.dtype, labels.shape) == ((4, 28, 48, 40), np.int16, (28, 48, 40))
    assert set(np.unique(labels)) == {0, 1, 2, 3}
    np.testing.assert_allclose(np.linalg.norm(affine[:3, :3], axis=0), (3.5, 3.5, 3))
    means = [[channel[labels == id].mean() for id in (1, 2, 3)] for channel in values]
    assert means[1][1] > means[1][0] + 200  # T1ce: what enhances is bright
    assert means[2][2] > means[2][1] + 200  # T2: necrosis is
    assert (head(8)[1] != labels).any()


@pytest.mark.exhaustive
@pytest.mark.parametrize(("steps", "least"), [(4, 0.0), (150, 0.6)])
def test_a_tumour_is_learned_from_drawn_heads_and_found_in_scans(steps, least, tmp_path):
    """From volumes to label volumes, through the commands' own path; after a few steps nothing is found yet."""
    nibabel = pytest.importorskip("nibabel")
    run = [sys.executable, str(EXAMPLES / "tumour.py"), "tumour", str(steps)]
    result = subprocess.run(run, cwd=tmp_path, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    found = [float(score) for score in re.findall(r"head_\d+: whole tumour Dice ([\d.]+)", result.stdout)]
    assert len(found) == 3
    assert sum(found) / 3 >= least
    for name in ("head_1000", "head_1002"):
        scan, labels = (nibabel.load(tmp_path / "tumour" / f"{name}{end}.nii.gz") for end in ("", ".labels"))
        assert labels.shape == scan.shape[:3]
        np.testing.assert_array_equal(labels.affine, scan.affine)
        assert (tmp_path / "tumour" / f"{name}.csv").read_text().startswith("class,id,voxels,percent,mm3,mm2")
        assert np.asarray(Image.open(tmp_path / "tumour" / f"{name}.montage.png")).ndim == 3


@pytest.fixture(scope="module")
def baked_cat(tmp_path_factory) -> Path:
    """A folder with the baked model, a picture as PPM, and what `Segmenter` says of it."""
    folder = tmp_path_factory.mktemp("baked")
    export_model("everyday", folder / "model.onnx", bake=True)
    shown = photos.chelsea()[:160, :200]
    Image.fromarray(shown).save(folder / "cat.ppm")
    np.save(folder / "labels.npy", Segmenter()(shown).labels)
    return folder


def said_and_written(command: list[str], folder: Path, **environment: str) -> None:
    """The program says the classes, and writes the label map."""
    written = folder / "labels.pgm"
    written.unlink(missing_ok=True)
    run = [*command, str(folder / "model.onnx"), str(folder / "cat.ppm"), str(written)]
    done = subprocess.run(run, capture_output=True, text=True, env={**os.environ, **environment}, timeout=300)
    assert done.returncode == 0, done.stderr
    assert "class 8: " in done.stdout
    np.testing.assert_array_equal(np.asarray(Image.open(written)), np.load(folder / "labels.npy"))


@pytest.mark.slow
def test_javascript_gives_the_label_map_of_segmenter_pixel_for_pixel(baked_cat):
    if shutil.which("node") is None or shutil.which("npm") is None:
        pytest.skip("needs Node.js and npm")
    install = ["npm", "install", "--no-audit", "--no-fund", "--prefix", str(baked_cat), "onnxruntime-web"]
    if subprocess.run(install, capture_output=True, timeout=240).returncode != 0:
        pytest.skip("npm cannot install onnxruntime-web here")
    script = shutil.copy(EXAMPLES / "label_map.mjs", baked_cat)
    said_and_written(["node", str(script)], baked_cat)


@pytest.mark.slow
def test_cpp_gives_the_label_map_of_segmenter_pixel_for_pixel(baked_cat):
    place = os.environ.get("ONNXRUNTIME_DIR")
    if place is None or shutil.which("g++") is None:
        pytest.skip(
            "needs g++, and ONNXRUNTIME_DIR: the folder of a release of ONNX Runtime, for its headers"
        )
    program, library = baked_cat / "label_map", Path(place) / "lib"
    build = [
        "g++",
        "-std=c++17",
        "-Wall",
        "-Wextra",
        str(EXAMPLES / "label_map.cpp"),
        "-isystem",
        f"{place}/include",
    ]
    build += ["-L", str(library), "-lonnxruntime", "-o", str(program)]
    done = subprocess.run(build, capture_output=True, text=True, timeout=300)
    assert (done.returncode, done.stderr) == (0, "")
    said_and_written([str(program)], baked_cat, LD_LIBRARY_PATH=str(library))

"""Training on scans: `pixelwise train`, `check`, `evaluate` and `segment` as typed, on drawn volumes of few voxels."""

from __future__ import annotations

import gzip
import json
import shutil
import subprocess
import sys

import nibabel
import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from drawn_scans import draw_scans, drawn, write_volume
from pixelwise.cli.app import app
from pixelwise.datasets.opening import open_data
from pixelwise.datasets.scan_fingerprint import Channel, ScanFingerprint
from pixelwise.errors import InputError
from pixelwise.geometry import affine_of
from pixelwise.training.plan import Machine
from pixelwise.training.scan_plan import plan_scans
from pixelwise.training.state import load_state

TINY = {
    "model": "nonewnet_softmax", "model_options": {"width": 4, "levels": 2, "deep_supervision": True},
    "volume": {"channels": [{"kind": "zscore"}], "spacing": [1, 1, 1], "orientation": "RAS", "patch": [12, 16, 16]},
    "batch_size": 2, "steps": 4, "peak_lr": 3e-3, "workers": 0, "ema_decay": 0.9, "validate_every": 2,
    "augment": {"rotation": 0.5, "scaling": 0.5, "elastic": 0.5}, "aux_weight": 0.5, "aux_decay": 0.5,
}  # fmt: skip


def pixelwise(*arguments):
    """A command in this process: its output and exit code; what it raised is raised."""
    result = CliRunner().invoke(app, [str(one) for one in arguments])
    if isinstance(result.exception, Exception):
        raise result.exception
    assert result.exit_code in (0, 1), result.output
    return result


def configured(folder, data, **changes):
    path = folder / "wanted.json"
    path.write_text(json.dumps({**TINY, "data": str(data), **changes}))
    return path


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return draw_scans(tmp_path_factory.mktemp("data") / "organs")


@pytest.fixture(scope="module")
def run(data, tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    pixelwise("train", "--config", configured(folder, data), "--out", folder / "run")
    return folder / "run"


def test_a_run_on_scans_opens_for_segment_and_evaluate_and_both_give_its_dice(run, data, tmp_path):
    card = json.loads((run / "card.json").read_text())
    scan = data / "imagesTr" / "case_03.nii.gz"
    pixelwise("segment", scan, "--model", run, "--out", tmp_path / "masks")
    labels = nibabel.load(str(tmp_path / "masks" / "case_03.labels.nii.gz"))
    assert labels.shape == nibabel.load(str(scan)).shape
    assert set(np.unique(labels.dataobj)) <= {0, 1, 2}
    found = json.loads(pixelwise("evaluate", "--data", data, "--model", run, "--json").stdout)
    assert found["part"] == "2 of 8 scans, those that were held out when the model was trained on this folder"
    assert found["structures"]["mean_dice"] == pytest.approx(card["scores"][0]["value"])
    assert {score["metric"] for score in card["scores"]} == {"mean Dice", "Dice of organ", "Dice of lesion"}
    (case, *others) = found["structures"]["cases"]
    assert set(case["organ"]) == {"dice", "surface_dice", "hd95_mm"}
    assert len(others) == 1
    pixelwise(
        "segment", data / "imagesTr" / f"{case['name']}.nii.gz", "--model", run, "--out", tmp_path / "again"
    )
    answer = np.asarray(nibabel.load(str(tmp_path / "again" / f"{case['name']}.labels.nii.gz")).dataobj)
    truth = np.asarray(nibabel.load(str(data / "labelsTr" / f"{case['name']}.nii.gz")).dataobj)
    both = ((answer == 1) & (truth == 1)).sum()
    assert case["organ"]["dice"] == pytest.approx(2 * both / ((answer == 1).sum() + (truth == 1).sum()))


def test_a_run_that_was_stopped_goes_on_to_the_same_weights_bit_by_bit(run, data, tmp_path):
    short = tmp_path / "short"
    pixelwise("train", "--config", configured(tmp_path, data, steps=2, schedule="constant"), "--out", short)
    pixelwise("train", "--out", short, "--resume", "--steps", "4")
    whole = tmp_path / "whole"
    pixelwise("train", "--config", configured(tmp_path, data, schedule="constant"), "--out", whole)
    one, other = (load_state(folder / "checkpoint.pt") for folder in (short, whole))
    for part in ("network", "average"):
        assert one[part].keys() == other[part].keys()
        for name, tensor in one[part].items():
            assert torch.equal(tensor, other[part][name]), name
    shutil.rmtree(short / "prepared")
    again = pixelwise("train", "--out", short, "--resume", "--steps", "5")
    assert again.exit_code == 0  # what was made ready is made again


def test_a_plan_is_printed_before_it_runs_and_says_why(data):
    text = " ".join(
        pixelwise("train", "--data", data, "--dry-run").stdout.split()
    )  # lines are broken by width
    for name in ("spacing", "orientation", "patch", "model_options", "batch_size", "steps"):
        assert name in text
    assert "a step took" in text
    assert "GiB of memory" in text


def test_folds_train_and_open_as_one_model(data, tmp_path):
    out = tmp_path / "folds"
    config = configured(tmp_path, data, steps=1, validate_every=0)
    pixelwise("train", "--config", config, "--out", out, "--folds", "2", "--no-check")
    held_out = []
    for i in range(2):
        said = json.loads((out / f"fold_{i}" / "data.json").read_text())
        held_out.append(set(said["val"]))
        assert not held_out[i] & set(said["train"])
    assert not held_out[0] & held_out[1]
    assert len(held_out[0] | held_out[1]) == 8
    pixelwise("segment", data / "imagesTr" / "case_00.nii.gz", "--model", out, "--out", tmp_path / "masks")
    assert (tmp_path / "masks" / "case_00.labels.nii.gz").is_file()
    before = (out / "fold_1" / "weights.safetensors").stat().st_mtime_ns
    (out / "folds.json").unlink()
    pixelwise("train", "--config", config, "--out", out, "--folds", "2", "--no-check", "--resume")
    assert (out / "fold_1" / "weights.safetensors").stat().st_mtime_ns == before


def test_paired_folders_and_channels_in_files_of_their_own_are_read(tmp_path):
    own = tmp_path / "own"
    for i in range(3):
        values, ids = drawn(i)
        write_volume(own / "images" / f"s{i}.nii.gz", values)
        write_volume(own / "masks" / f"s{i}.labels.nii.gz", ids)
    (own / "classes.txt").write_text("0 background\n1 organ\n2 lesion\n")
    (own / "images" / "._s0.nii.gz").write_bytes(b"left by macOS")
    opened = open_data(own)
    assert [pair.name for pair in opened.pairs] == ["s0", "s1", "s2"]
    assert opened.volumes
    assert opened.samples("all")[0].mask.shape == (14, 18, 16)
    raw = tmp_path / "Dataset007_Two"
    values, ids = drawn(0)
    for i in range(2):
        for channel in range(2):
            write_volume(raw / "imagesTr" / f"c{i}_{channel:04}.nii.gz", values + 50 * channel)
        write_volume(raw / "labelsTr" / f"c{i}.nii.gz", ids)
    said = {"labels": {"background": 0, "organ": 1, "lesion": 2}, "channel_names": {"0": "T1", "1": "CT"}}
    (raw / "dataset.json").write_text(json.dumps(said))
    sample = open_data(raw).samples("all")[1]
    assert sample.image.shape == (2, 14, 18, 16)
    np.testing.assert_array_equal(sample.image[1], sample.image[0] + 50)


def test_the_words_of_the_decathlon_are_read_too(tmp_path):
    root = draw_scans(tmp_path / "Task04", 2, about=False)
    labels = {"0": "background", "1": "Anterior", "2": "Posterior"}
    said = {"labels": labels, "modality": {"0": "MRI"}, "training": [{"image": "./imagesTr/case_00.nii.gz"}]}
    (root / "dataset.json").write_text(json.dumps(said))
    classes = open_data(root).classes
    assert classes.names == ("background", "Anterior", "Posterior")
    assert classes.ids == (0, 1, 2)


def cut_gzip(root):
    path = root / "imagesTr" / "case_01.nii.gz"
    path.write_bytes(path.read_bytes()[:-400])


def moved(root):
    _, ids = drawn(1)
    affine = affine_of("RAS", (1, 1, 1))
    affine[0, 3] = 5
    write_volume(root / "labelsTr" / "case_01.nii.gz", ids, affine=affine)


def zipped_noise(root):
    (root / "imagesTr" / "case_01.nii.gz").write_bytes(gzip.compress(b"no scan" * 100))


def relabelled(change, dtype=None):
    def spoil(root):
        _, ids = drawn(1)
        changed = change(ids) if dtype is None else change(ids.astype(dtype))
        write_volume(root / "labelsTr" / "case_01.nii.gz", changed)

    return spoil


def rescanned(change):
    def spoil(root):
        write_volume(root / "imagesTr" / "case_01.nii.gz", change(drawn(1)[0]))

    return spoil


def with_nan(values):
    values[3, 4, 5] = np.nan
    return values


def stray(ids):
    ids[2, 3, 4] = 7
    return ids


def about(**said):
    usual = {"labels": {"background": 0, "organ": 1, "lesion": 2}, "channel_names": {"0": "MRI"}}

    def spoil(root):
        (root / "dataset.json").write_text(json.dumps({**usual, **said}))

    return spoil


BAD = {
    "another size": (relabelled(lambda ids: ids[:-1]), "does not lie on its scan", "13 x 18 x 16 voxels"),
    "another place": (moved, "does not lie on its scan", "5 voxels away"),
    "another spacing": (
        lambda root: write_volume(root / "labelsTr" / "case_01.nii.gz", drawn(1)[1], spacing=(2, 1, 1)),
        "does not lie on its scan", "voxels away",
    ),
    "turned over": (
        lambda root: write_volume(root / "labelsTr" / "case_01.nii.gz", drawn(1)[1], orientation="LAS"),
        "does not lie on its scan", "voxels away",
    ),
    "a stray id": (relabelled(stray), "unknown id", "id 7 at slice 2, row 3, column 4 is no class"),
    "empty labels": (relabelled(lambda ids: 0 * ids), "empty label volume", "nothing is labelled"),
    "fractions": (relabelled(lambda ids: ids * 0.5, np.float32), "unusable label volume", "fractions such as 0.5"),
    "below zero": (relabelled(lambda ids: ids - 1, np.int16), "unusable label volume", "holds -1"),
    "labels in channels": (relabelled(lambda ids: np.stack([ids, ids])), "unusable label volume", "2 channels"),
    "no label volume": (
        lambda root: (root / "labelsTr" / "case_01.nii.gz").unlink(), "missing label volume", "case_01",
    ),
    "no scan": (lambda root: (root / "imagesTr" / "case_01.nii.gz").unlink(), "missing scan", "case_01"),
    "cut off": (cut_gzip, "unreadable", "copy it again"),
    "no scan inside": (zipped_noise, "unreadable", "no NIfTI"),
    "an empty file": (
        lambda root: (root / "imagesTr" / "case_01.nii.gz").write_bytes(b""), "unreadable", "is empty (0 bytes)",
    ),
    "a series over time": (rescanned(lambda v: np.stack([v] * 4)), "channels differ", "4 channels"),
    "not a number": (rescanned(with_nan), "not finite", "slice 3, row 4, column 5"),
    "nothing to see": (rescanned(lambda v: 0 * v), "empty scan", "nothing to see"),
    "the same scan twice": (rescanned(lambda v: drawn(0)[0]), "duplicate", "case_00"),
    "channels by name": (about(channel_names={"0": "T1", "1": "T2"}), "channels differ", "names 2 channels"),
    "a class that is nowhere": (
        about(labels={"background": 0, "organ": 1, "lesion": 2, "cyst": 3}), "class never occurs", "'cyst' (3)",
    ),
    "a list of more": (about(training=[{"image": "imagesTr/case_77.nii.gz"}]), "listed and missing", "case_77"),
    "nothing said": (lambda root: (root / "dataset.json").unlink(), "no classes", "what the ids mean"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_check_says_in_a_sentence_what_is_wrong(name, tmp_path):
    spoil, kind, words = BAD[name]
    root = draw_scans(tmp_path / "data", 3)
    spoil(root)
    result = pixelwise("check", root, "--json")
    found = [one for one in json.loads(result.stdout)["findings"] if one["kind"] == kind]
    assert found, result.stdout
    assert words in found[0]["message"]
    assert "\n" not in found[0]["message"]
    assert result.exit_code == (found[0]["severity"] == "error")


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (about(labels={"background": 0, "tumour": [1, 2]}), "regions that overlap"),
        (about(labels={"background": 0, "organ": 1, "lesion": 1}), "names a label twice"),
        (about(labels={"background": 0, "organ": "one"}), "expected a number"),
        (lambda root: (root / "dataset.json").write_text("{"), "it is no JSON"),
        (lambda root: shutil.rmtree(root / "labelsTr"), "no labelsTr/"),
    ],
)
def test_a_dataset_that_cannot_be_opened_is_refused_in_a_sentence(spoil, words, tmp_path):
    root = draw_scans(tmp_path / "data", 2)
    spoil(root)
    with pytest.raises(InputError, match=words):
        pixelwise("check", root)


def test_hidden_leftovers_are_no_scans_and_a_good_set_is_safe(data, tmp_path):
    root = shutil.copytree(data, tmp_path / "data")
    (root / "imagesTr" / "._case_00.nii.gz").write_bytes(b"left by macOS")
    result = pixelwise("check", root)
    assert result.exit_code == 0
    assert "14 x 18 x 16 voxels (slices, rows, columns) of 1 x 1 x 1 mm" in result.stdout


def test_data_that_are_not_safe_are_not_trained_on(tmp_path):
    root = draw_scans(tmp_path / "data", 3)
    moved(root)
    with pytest.raises(InputError, match="the data are not safe to train on: does not lie on its scan"):
        pixelwise("train", "--config", configured(tmp_path, root), "--out", tmp_path / "run")


def test_options_of_pictures_are_refused_for_scans_and_the_other_way_round(data, tmp_path):
    with pytest.raises(InputError, match=r"--crop is of pictures"):
        pixelwise("train", "--data", data, "--crop", "64", "--dry-run")
    with pytest.raises(InputError, match=r"takes pictures, and .* holds scans"):
        pixelwise(
            "train",
            "--config",
            configured(tmp_path, data, model="unet", model_options={}),
            "--out",
            tmp_path / "r",
        )
    with pytest.raises(InputError, match="no option 'colour'"):
        pixelwise(
            "train", "--config", configured(tmp_path, data, augment={"colour": 1}), "--out", tmp_path / "r"
        )
    with pytest.raises(InputError, match="three numbers above 0"):
        pixelwise("train", "--data", data, "--patch", "40,x", "--dry-run")


def test_a_missed_structure_gets_the_worst_there_is():
    from pixelwise.metrics import StructureScores

    truth = np.zeros((5, 6, 7), np.uint8)
    truth[1:3, 1:3, 1:3] = 1
    scores = StructureScores(("ground", "organ", "lesion"))
    scores.update(np.zeros_like(truth), truth, "missed", (3.0, 1.0, 2.0))
    scores.update(truth, truth, "found", (3.0, 1.0, 2.0))
    (missed, found) = scores.to_dict()["cases"]
    assert missed["organ"] == {
        "dice": 0.0, "surface_dice": 0.0, "hd95_mm": pytest.approx(np.sqrt(12**2 + 5**2 + 12**2)),
    }  # fmt: skip
    assert found["organ"] == {"dice": 1.0, "surface_dice": 1.0, "hd95_mm": 0.0}
    assert found["lesion"]["dice"] is None
    assert scores.mean_dice == 0.5


def test_surface_dice_and_distances_are_in_millimetres():
    from pixelwise.metrics import StructureScores

    truth = np.zeros((3, 4, 12), np.uint8)
    truth[1, 1, 2:5] = 1
    given = np.roll(truth, 2, axis=2)
    for spacing, near in (
        ((1, 1, 0.5), 1.0),
        ((1, 1, 1.0), 4 / 6),
    ):  # one voxel of three is in both, one lies 1 off
        scores = StructureScores(("ground", "organ"))
        scores.update(given, truth, "moved", spacing)
        (case,) = scores.to_dict()["cases"]
        assert case["organ"]["surface_dice"] == pytest.approx(near)
        assert case["organ"]["hd95_mm"] == pytest.approx(spacing[2] * np.percentile([0, 1, 2], 95))


MRI = Channel("MRI", 0, 200, 100, 20, 1.0)


def planned(found, **given):
    return plan_scans(found, {"data": "x", **given}, Machine(), scans=100, held_out=25, classes=3)


def test_a_plan_takes_the_spacing_of_the_scans_and_a_patch_of_their_shape():
    found = ScanFingerprint(100, (36, 50, 35), (1, 1, 1), (1, 1, 1), False, True, (MRI,), voxels=100 * 63_000)
    config = planned(found)
    assert config.volume.spacing == (1, 1, 1)
    assert config.volume.patch == (40, 56, 40)
    assert config.volume.orientation == "RAS"
    large = ScanFingerprint(
        100, (300, 512, 512), (1, 0.8, 0.8), (1, 0.8, 0.8), True, True, (MRI,), voxels=10**9
    )
    patch = planned(large).volume.patch
    assert np.prod(patch) < 1.3 * 96**3 / 4
    assert patch[1] == patch[2] > patch[0]


def test_a_plan_keeps_thick_slices_apart_and_puts_them_first():
    found = ScanFingerprint(
        100, (320, 320, 20), (0.6, 0.6, 4.0), (0.6, 0.6, 3.6), True, True, (MRI,), voxels=100 * 2_000_000
    )
    config = planned(found)
    assert config.volume.orientation == "ASR"  # slices grow to the right, across which they are thick
    assert config.volume.spacing == (3.6, 0.6, 0.6)
    assert config.augment["in_plane"] is True


def test_a_plan_normalises_ct_by_the_data_set_and_what_was_cut_free_without_its_zeros():
    ct = Channel("CT", -100.0, 250.0, 60.0, 40.0, 1.0)
    brain = Channel("T1", 0.0, 900.0, 500.0, 90.0, 0.3)
    found = ScanFingerprint(10, (40, 40, 40), (1, 1, 1), (1, 1, 1), False, False, (ct, brain), voxels=640_000)
    volume = planned(found).volume
    assert (volume.channels[0].kind, volume.channels[0].low, volume.channels[0].mean) == ("ct", -100, 60)
    assert (volume.channels[1].kind, volume.channels[1].nonzero) == ("zscore", True)
    assert volume.orientation is None


@pytest.mark.slow
def test_ellipsoids_are_learned_where_no_fixed_answer_finds_them(tmp_path):
    data = draw_scans(tmp_path / "organs", 12, size=(18, 26, 22), shift=4)
    config = configured(
        tmp_path, data, steps=250, augment={}, peak_lr=5e-3, warmup_steps=10, validate_every=0,
        model_options={"width": 8, "levels": 2}, loss_options={"dice": {"classes": [1, 2]}},
        volume={**TINY["volume"], "patch": [16, 24, 20]},
    )  # fmt: skip
    command = ["train", "--config", config, "--out", tmp_path / "run", "--export"]
    subprocess.run([sys.executable, "-m", "pixelwise", *map(str, command)], check=True, capture_output=True)
    truths = [sample.mask for sample in open_data(data).samples("all")]
    usual = np.mean([mask == 1 for mask in truths], axis=0)
    fixed = [
        max(
            2 * ((usual > t) & (m == 1)).sum() / ((usual > t).sum() + (m == 1).sum())
            for t in (0.2, 0.35, 0.5)
        )
        for m in truths
    ]
    for model in (tmp_path / "run", tmp_path / "run" / "model.onnx"):
        found = json.loads(
            pixelwise("evaluate", "--data", data, "--model", model, "--split", "val", "--json").stdout
        )
        organ = found["structures"]["classes"]["organ"]["dice"]
        assert organ > 0.85
        assert organ > np.mean(fixed) + 0.15  # the best fixed answer

"""Windows, networks and whole folders against nnU-Net v2 itself (`make peers`; nnunetv2 lives in an environment of its
own)."""

from __future__ import annotations

import copy
import io
import itertools
import json
import os
import shutil
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from nnunet_by_hand import LINEAR, REGIONS, architecture, configuration, dataset_of, plans_of, scan
from pixelwise import Segmenter, Volume
from pixelwise.inference.tiling import Tiling, window

PLACES = {name: Path(tempfile.mkdtemp()) for name in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results")}
os.environ.update({name: str(path) for name, path in PLACES.items()} | {"nnUNet_def_n_proc": "1"})
# Before it is imported, for it looks once

sliding = pytest.importorskip(
    "nnunetv2.inference.sliding_window_prediction", reason="nnunetv2 is not here; run `make peers`"
)


@pytest.mark.parametrize("tile", [(32, 32), (40, 56), (24, 32, 48)])
def test_the_gaussian_window_is_nnunets_but_for_the_floor_at_the_corners(tile: tuple[int, ...]):
    theirs = sliding.compute_gaussian(
        tile, sigma_scale=1 / 8, dtype=torch.float64, device=torch.device("cpu")
    ).numpy()
    ours = window(tile, "gaussian").astype(np.float64)
    theirs = theirs / theirs.max()
    ours = ours / ours.max()
    # They put a peak on one pixel, which for even sides is half a pixel off the middle; we are symmetric.
    sides = [np.arange(side) - side // 2 for side in tile]
    distance = sum(
        (np.meshgrid(*sides, indexing="ij")[axis] / (side / 8)) ** 2 for axis, side in enumerate(tile)
    )
    far = np.exp(-distance / 2) > 2e-3
    np.testing.assert_allclose(theirs[far], np.exp(-distance / 2)[far], rtol=0.05)
    centred = [np.arange(side) - (side - 1) / 2 for side in tile]
    at = sum((np.meshgrid(*centred, indexing="ij")[axis] / (side / 8)) ** 2 for axis, side in enumerate(tile))
    expected = np.exp(-at / 2)
    expected /= expected.max()
    seen = expected > 2e-3
    np.testing.assert_allclose(ours[seen], expected[seen], rtol=1e-3)


@pytest.mark.parametrize("size", [(100, 128), (64, 65), (33, 200)])
def test_tiles_reach_every_pixel_and_are_as_many_as_nnunets(size: tuple[int, int]):
    tile = (64, 64)
    padded = tuple(max(side, edge) for side, edge in zip(size, tile, strict=True))
    theirs = sliding.compute_steps_for_sliding_window(padded, tile, 0.5)
    grid = Tiling(64, 0.5).grid(padded)
    assert [len(starts) for starts in grid.starts] == [len(starts) for starts in theirs]
    for ours, others, side in zip(grid.starts, theirs, padded, strict=True):
        assert (ours[0], ours[-1]) == (others[0], others[-1]) == (0, side - 64)
        assert all(b - a <= 32 for a, b in itertools.pairwise(ours))


# Trained folders ------------------------------------------------------------------------------------------------

SPACING = (3.0, 0.9, 0.8)
CASES: dict[str, Any] = {
    "Dataset101_Isotropic": (plans_of(), dataset_of(), (1.5, 1.0, 1.0), 1),
    "Dataset102_CT_and_MR": (
        plans_of(
            configuration(
                spacing=[2.0, 1.0, 1.0],
                normalization_schemes=["CTNormalization", "ZScoreNormalization"],
                use_mask_for_norm=[False, True],
            )
        ),
        dataset_of(channels=2),
        SPACING,
        2,
    ),
    "Dataset103_Anisotropic": (
        plans_of(configuration(spacing=[4.0, 1.0, 1.0])),
        dataset_of(),
        (5.0, 1.2, 0.9),
        1,
    ),
    "Dataset104_Turned_Regions": (
        plans_of(transpose_forward=[2, 0, 1], transpose_backward=[1, 2, 0]),
        dataset_of(REGIONS),
        (1.0, 1.5, 1.0),
        1,
    ),
    "Dataset105_Slices": (plans_of(configuration(2)), dataset_of(), SPACING, 1),
    "Dataset106_Residual": (
        plans_of(configuration(architecture=architecture(residual=True, strides=[[1, 1, 1], [1, 2, 2]]))),
        dataset_of(),
        SPACING,
        1,
    ),
    "Dataset107_Torch": (
        plans_of(
            configuration(
                resampling_fn_data="resample_torch_fornnunet",
                resampling_fn_data_kwargs=LINEAR,
                resampling_fn_seg="resample_torch_fornnunet",
                resampling_fn_seg_kwargs={**LINEAR, "is_seg": True},
                resampling_fn_probabilities="resample_torch_fornnunet",
                resampling_fn_probabilities_kwargs=LINEAR,
            )
        ),
        dataset_of(),
        (4.0, 1.1, 0.9),
        1,
    ),
    "Dataset108_Organ": (
        plans_of(configuration(patch_size=[20, 32, 32])),
        dataset_of({"background": 0, "organ": 1}),
        (2.0, 1.1, 0.9),
        1,
    ),
}
"""By the name of the data set: its plans, dataset.json, the spacing of the scan, and how many folds."""


@contextmanager
def silent() -> Iterator[None]:
    """nnU-Net speaks and warns much."""
    with warnings.catch_warnings(), redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
        warnings.simplefilter("ignore")
        yield


@cache
def trained(name: str) -> Path:
    """The folder that nnU-Net's own trainer writes, of networks that nobody has trained. Their heads sum to zero over
    the classes, as training leaves them; where that is not so, ties lie where float16 is coarse."""
    from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

    plans, dataset, _, folds = copy.deepcopy(CASES[name])
    plans["dataset_name"] = name
    (kind,) = plans["configurations"]
    plans["configurations"][kind]["data_identifier"] = f"nnUNetPlans_{kind}"
    place = PLACES["nnUNet_preprocessed"] / name / f"nnUNetPlans_{kind}"
    place.mkdir(parents=True, exist_ok=True)
    (place / "case.b2nd").touch()
    for fold in range(folds):
        torch.manual_seed(fold)
        with silent():
            given = {**copy.deepcopy(plans), "continue_training": False}
            trainer = nnUNetTrainer(given, kind, fold, dataset, device=torch.device("cpu"))
            trainer.initialize()
            network = trainer.network.eval()
            trainer.set_deep_supervision_enabled(False)
            with torch.no_grad():
                for head in network.decoder.seg_layers:
                    head.weight.normal_(0, 2)
                    head.weight -= head.weight.mean(dim=0, keepdim=True)
                patch = plans["configurations"][kind]["patch_size"]
                answer = network(torch.randn(1, len(dataset["channel_names"]), *patch))
                network.decoder.seg_layers[-1].bias -= answer.mean(dim=(0, *range(2, answer.ndim)))
            trainer.configure_rotation_dummyDA_mirroring_and_inital_patch_size()
            trainer.save_checkpoint(str(Path(trainer.output_folder) / "checkpoint_final.pth"))
    folder = Path(trainer.output_folder).parent
    (folder / "plans.json").write_text(json.dumps(plans))
    (folder / "dataset.json").write_text(json.dumps(dataset))
    return folder


def predictor_of(folder: Path, folds: int) -> Any:
    from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor

    with silent():
        predictor = nnUNetPredictor(
            tile_step_size=0.5, use_gaussian=True, use_mirroring=True, perform_everything_on_device=False,
            device=torch.device("cpu"), allow_tqdm=False,
        )  # fmt: skip
        predictor.initialize_from_trained_model_folder(
            str(folder), tuple(range(folds)), "checkpoint_final.pth"
        )
    return predictor


def dice(found: np.ndarray, expected: np.ndarray) -> float:
    """Of the voxels of all classes but the background, each with its class."""
    same = ((found == expected) & (expected > 0)).sum()
    return float(2 * same / ((found > 0).sum() + (expected > 0).sum()))


@pytest.mark.parametrize("name", [name for name in CASES if name != "Dataset108_Organ"])
def test_labels_are_those_of_nnunets_own_predictor(name: str):
    _, dataset, spacing, folds = CASES[name]
    folder = trained(name)
    values = scan((16, 28, 30), channels=len(dataset["channel_names"]))
    with silent():
        expected = predictor_of(folder, folds).predict_single_npy_array(
            values, {"spacing": list(spacing)}, None, None, False
        )
    assert len(np.unique(expected)) >= 3
    volume = Volume.of(values, spacing=spacing)
    exact = Segmenter(folder, engine="pytorch")(volume, accumulate="float16").labels
    if "Slices" in name:  # of whose voxels one lies on a tie
        assert (exact != expected).sum() <= 1
    else:
        np.testing.assert_array_equal(exact, expected)
    segmenter = Segmenter(folder)
    other = segmenter(
        volume, accumulate="float16"
    ).labels  # ONNX Runtime adds up in another order: ties may fall over
    assert (other != expected).mean() < 2e-4
    plain = segmenter(volume).labels  # of so small a volume the corners are a large part
    assert dice(plain, expected) > 0.998
    print(
        f"{name}: {(other != expected).sum()} and {(plain != expected).sum()} of {plain.size} labels are others"
    )


def test_of_a_larger_volume_few_labels_are_others_in_float32_and_fewer_in_float16():
    values = scan((32, 64, 64), smooth=4, noise=0)
    folder = trained("Dataset108_Organ")
    with silent():
        expected = predictor_of(folder, 1).predict_single_npy_array(
            values, {"spacing": [2.0, 1.1, 0.9]}, None, None, False
        )
    segmenter, volume = Segmenter(folder), Volume.of(values, spacing=(2.0, 1.1, 0.9))
    exact, plain = (segmenter(volume, accumulate=kind).labels for kind in ("float16", "float32"))
    assert dice(exact, expected) >= 0.9999
    assert dice(plain, expected) >= 0.9995


@pytest.mark.parametrize("name", ["Dataset101_Isotropic", "Dataset105_Slices", "Dataset106_Residual"])
def test_a_network_gives_nnunets_logits_to_the_last_bit(name: str):
    from pixelwise.checkpoints.nnunet.folder import find
    from pixelwise.checkpoints.nnunet.network import open_fold

    folder = trained(name)
    theirs = predictor_of(folder, 1)
    theirs.network.load_state_dict(theirs.list_of_parameters[0])
    model = find(folder)
    assert model is not None
    network, _ = open_fold(model, model.folds[0])
    (config,) = CASES[name][0]["configurations"].values()
    image = torch.randn(2, 1, *config["patch_size"], generator=torch.Generator().manual_seed(0))
    planar = image.ndim == 4
    with torch.no_grad():
        expected = theirs.network.eval()(image)
        found = network.coarse(image[:, :, None] if planar else image)  # type: ignore[operator]
    assert torch.equal(found[:, :, 0] if planar else found, expected)


@pytest.mark.parametrize("reader", ["SimpleITKIO", "NibabelIOWithReorient"])
def test_a_file_gets_the_labels_and_the_place_that_nnunet_gives_it(reader: str, tmp_path: Path):
    import nibabel

    source = trained("Dataset101_Isotropic")
    folder = tmp_path / "model"
    shutil.copytree(source, folder)
    plans = json.loads((folder / "plans.json").read_text())
    (folder / "plans.json").write_text(json.dumps(plans | {"image_reader_writer": reader}))
    turn, sides = 0.2, np.diag([0.9, 1.1, 2.0])
    axes = np.array([[0, np.sin(turn), np.cos(turn)], [-1, 0, 0], [0, np.cos(turn), -np.sin(turn)]])
    affine = np.eye(4)
    affine[:3, :3], affine[:3, 3] = axes @ sides, (-20, 30, 5)
    image = nibabel.Nifti1Image(scan((20, 32, 36))[0].T, affine)
    image.to_filename(tmp_path / "case_0000.nii.gz")
    with silent():
        predictor_of(folder, 1).predict_from_files_sequential(
            [[str(tmp_path / "case_0000.nii.gz")]], [str(tmp_path / "theirs")], False, True, None
        )
    words = [
        "segment",
        "case_0000.nii.gz",
        "--model",
        str(folder),
        "--accumulate",
        "float16",
        "--out",
        "ours.nii.gz",
    ]
    run = subprocess.run(
        [sys.executable, "-m", "pixelwise", *words], cwd=tmp_path, capture_output=True, text=True
    )
    assert run.returncode == 0, run.stderr
    theirs, ours = nibabel.load(tmp_path / "theirs.nii.gz"), nibabel.load(tmp_path / "ours.nii.gz")
    np.testing.assert_array_equal(np.asarray(ours.dataobj), np.asarray(theirs.dataobj))
    np.testing.assert_allclose(ours.affine, image.affine, atol=1e-6)
    np.testing.assert_allclose(theirs.affine, image.affine, atol=1e-4)

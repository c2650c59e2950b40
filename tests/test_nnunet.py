"""Folders of nnU-Net v2: read without nnU-Net and without running a pickle, and segmenting as it does."""

from __future__ import annotations

import copy
import json
import os
import shutil
import subprocess
import sys
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

pytest.importorskip("nibabel", reason="needs the extra volume")
pytest.importorskip("skimage", reason="the second way resizes with it")

import nibabel

from nnunet_by_hand import (
    LABELS,
    LINEAR,
    NAME,
    REGIONS,
    architecture,
    checkpoint,
    configuration,
    dataset_of,
    expected_labels,
    network_of,
    plans_of,
    resampling,
    saved,
    scan,
    write_folder,
)
from pixelwise import Segmenter, Volume
from pixelwise.checkpoints.nnunet.folder import find
from pixelwise.checkpoints.nnunet.network import _build
from pixelwise.checkpoints.nnunet.plans import read_plans
from pixelwise.errors import InputError, PixelwiseError, PixelwiseWarning, WeightsError
from pixelwise.exporting import export_model
from pixelwise.inference.volume_preprocess import Resample, VolumePreprocess, Whole
from pixelwise.inference.whole import resample, steps, weights_of

SPACING = (2.0, 1.1, 0.9)


def write_scan(path: Path, values: np.ndarray, spacing: tuple[float, float, float] = SPACING) -> Path:
    image = nibabel.Nifti1Image(values.T, np.diag([*spacing[::-1], 1.0]))
    image.header.set_xyzt_units("mm")
    image.to_filename(path)
    return path


# The networks ---------------------------------------------------------------------------------------------------


def planned(dims: int, residual: bool, channels: int, classes: int, **arguments: Any) -> Any:
    config = configuration(dims, patch_size=[64] * dims, spacing=[1.0] * dims)
    config["normalization_schemes"], config["use_mask_for_norm"] = (
        ["NoNormalization"] * channels,
        [False] * channels,
    )
    config["architecture"] = architecture(dims, residual=residual, **arguments)
    labels = {"background": 0, **{f"class {i}": i for i in range(1, classes)}}
    return read_plans(
        plans_of(config), dataset_of(labels, channels), "3d_fullres" if dims == 3 else "2d", None, (), "it"
    )[0]


DOUBLED = [32, 64, 128, 256, 320, 320]


@pytest.mark.parametrize(
    ("plan", "parameters", "keys"),
    [
        ((3, False, 1, 3, [8, 16, 32], [2, 2, 2], [2, 2], [[1] * 3, [2] * 3, [2] * 3]), 85_406, 136),
        ((3, True, 2, 4, [8, 16, 32], [1, 3, 4], [1, 1], [[1] * 3, [1, 2, 2], [2] * 3]), 268_320, 320),
        ((2, False, 1, 2, [8, 16, 32], [2, 2, 2], [2, 2], [[1] * 2, [2] * 2, [2] * 2]), 29_684, 136),
        ((3, False, 1, 3, DOUBLED[:4], [2] * 4, [2] * 3, [[1] * 3] + [[2] * 3] * 3), 5_603_177, None),
        ((3, False, 1, 3, DOUBLED, [2] * 6, [2] * 5, [[1] * 3] + [[2] * 3] * 5), 31_196_399, None),
        ((3, True, 1, 3, DOUBLED, [1, 3, 4, 6, 6, 6], [1] * 5, [[1] * 3] + [[2] * 3] * 5), 102_350_575, None),
    ],
)  # fmt: skip
def test_a_network_has_as_many_numbers_as_that_of_nnunet_and_as_many_names(plan, parameters, keys):
    dims, residual, channels, classes, features, convs, decoder, strides = plan
    kernels = [[3] * dims] * len(features)
    if residual and len(features) == 3:
        kernels[0] = [1, 3, 3]
    arguments = {
        "n_stages": len(features), "features_per_stage": features, "kernel_sizes": kernels, "strides": strides,
        "n_blocks_per_stage" if residual else "n_conv_per_stage": convs, "n_conv_per_stage_decoder": decoder,
    }  # fmt: skip
    with torch.device("meta"):
        network = _build(planned(dims, residual, channels, classes, **arguments))
    assert sum(p.numel() for p in network.parameters()) == parameters
    assert keys is None or len(saved(network)) == keys


@pytest.mark.parametrize(
    ("kind", "parameters"), [("PlainConvUNet", 68_782), ("ResidualEncoderUNet", 119_798)]
)
def test_plans_of_before_2_3_are_read_in_the_words_of_then(kind: str, parameters: int):
    config = configuration()
    del config["architecture"]
    config |= {
        "UNet_class_name": kind, "UNet_base_num_features": 8, "unet_max_num_features": 24,
        "n_conv_per_stage_encoder": [2, 2, 2], "n_conv_per_stage_decoder": [2, 2], "num_pool_per_axis": [2, 2, 2],
        "pool_op_kernel_sizes": [[1] * 3, [2] * 3, [2] * 3], "conv_kernel_sizes": [[3] * 3] * 3,
    }  # fmt: skip
    plans = plans_of(config)
    plans["foreground_intensity_properties_by_modality"] = plans.pop(
        "foreground_intensity_properties_per_channel"
    )
    dataset = dataset_of()
    dataset["modality"] = dataset.pop("channel_names")
    network = _build(read_plans(plans, dataset, "3d_fullres", (0, 1, 2), (), "it")[0])
    assert sum(p.numel() for p in network.parameters()) == parameters
    assert network.multiples == (4, 4, 4)
    with pytest.raises(ValueError, match="multiples of 4 x 4 x 4, got 8 x 9 x 8; pad to 8 x 12 x 8"):
        network(torch.zeros(1, 1, 8, 9, 8))


# From a scan to labels ------------------------------------------------------------------------------------------

CASES: dict[str, Any] = {
    "3-D": (plans_of(), dataset_of(), SPACING, {}),
    "CT and z-score inside": (
        plans_of(configuration(normalization_schemes=["CTNormalization", "ZScoreNormalization"],
                               use_mask_for_norm=[False, True])),
        dataset_of(channels=2), SPACING, {},
    ),
    "turned, regions": (
        plans_of(transpose_forward=[2, 0, 1], transpose_backward=[1, 2, 0]), dataset_of(REGIONS), (1.0, 1.5, 1.0), {},
    ),
    "slices": (plans_of(configuration(2)), dataset_of(), SPACING, {"mirror": (0, 1)}),
    "coarse scans": (plans_of(), dataset_of(), (4.0, 1.1, 0.9), {}),
    "coarse plans": (plans_of(configuration(spacing=[5.0, 1.0, 1.0])), dataset_of(), (3.0, 1.3, 0.9), {}),
    "residual, two folds, not mirrored": (
        plans_of(configuration(architecture=architecture(residual=True, strides=[[1, 1, 1], [1, 2, 2]]))),
        dataset_of(), SPACING, {"folds": 2, "mirror": None},
    ),
    "resampled by torch": (
        plans_of(configuration(resampling_fn_data="resample_torch_fornnunet", resampling_fn_data_kwargs=LINEAR,
                               resampling_fn_probabilities="resample_torch_fornnunet",
                               resampling_fn_probabilities_kwargs=LINEAR)),
        dataset_of(), (4.0, 1.1, 0.9), {},
    ),
    "small": (plans_of(configuration(patch_size=[20, 24, 32])), dataset_of(), SPACING, {"mirror": (0,)}),
    "scaled": (plans_of(configuration(normalization_schemes=["RescaleTo01Normalization"])), dataset_of(), SPACING, {}),
}  # fmt: skip

EVERY_DAY = ("CT and z-score inside", "turned, regions")


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[] if name in EVERY_DAY else [pytest.mark.slow]) for name in CASES]
)
def test_labels_are_those_of_the_definition(name: str, tmp_path: Path):
    plans, dataset, spacing, how = CASES[name]
    values = scan(channels=len(dataset["channel_names"]))
    segmenter = Segmenter(write_folder(tmp_path, plans, dataset, **how), engine="pytorch")
    for kind in ("float16", "float32"):
        found = segmenter(Volume.of(values, spacing=spacing), accumulate=kind).labels
        expected = expected_labels(values, spacing, plans, dataset, half=kind == "float16", **how)
        assert len(np.unique(expected)) >= 3
        assert (found != expected).sum() <= (0 if kind == "float16" else 1)
        if name in EVERY_DAY:
            break  # the other is as slow once more


WITHOUT_TORCH = """
import sys
class No:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("torch", "onnx"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, No())
sys.argv = ["pixelwise", *sys.argv[1:]]
from pixelwise.cli import main
main()
"""


def test_the_second_run_needs_no_torch(tmp_path: Path, capfd: pytest.CaptureFixture[str]):
    folder = write_folder(tmp_path / "model")
    source = write_scan(tmp_path / "scan.nii.gz", scan()[0])
    kept = Path(os.environ["PIXELWISE_CACHE"]) / "onnx"
    before = set(kept.glob("nnunet-*"))
    first = Segmenter(folder)(source, accumulate="float16").labels
    assert "exporting fold_0" in capfd.readouterr().err
    expected = expected_labels(scan(), SPACING, plans_of(), dataset_of(), half=True)
    np.testing.assert_array_equal(first, expected)

    def typed(out: str) -> subprocess.CompletedProcess[str]:
        words = ["segment", source, "--model", folder, "--out", tmp_path / out, "--accumulate", "float16"]
        command = [sys.executable, "-c", WITHOUT_TORCH, *map(str, words)]
        return subprocess.run(command, capture_output=True, text=True)

    second = typed("second.nii.gz")
    assert second.returncode == 0, second.stderr
    written = nibabel.load(tmp_path / "second.nii.gz")
    np.testing.assert_array_equal(np.asarray(written.dataobj).T, expected)
    np.testing.assert_array_equal(written.affine, nibabel.load(source).affine)
    (exported,) = set(kept.glob("nnunet-*")) - before
    card = Segmenter(exported).card
    assert card.volume is not None
    assert card.volume.whole == Whole(mirror=(0, 1, 2))
    assert card.labels.names == tuple(LABELS)


def test_a_changed_file_is_another_model(tmp_path: Path):
    folder = write_folder(tmp_path)
    model = find(folder)
    assert model is not None
    before = model.keys()
    (folder / "dataset.json").write_text(json.dumps(dataset_of(licence="CC0")))
    after = find(folder).keys()
    assert before != after
    torch.save(checkpoint(plans_of(), dataset_of(), seed=1), folder / "fold_0" / "checkpoint_final.pth")
    assert find(folder).keys() not in (before, after)


@pytest.mark.slow
def test_a_folder_one_fold_a_checkpoint_and_a_zip_file_are_the_same_model(tmp_path: Path):
    plans, dataset = plans_of(configuration(2)), dataset_of()
    folder = write_folder(tmp_path / "Dataset004_Tissues", plans, dataset, folds=2, mirror=(0, 1))
    (folder / "fold_all").mkdir()
    shutil.copy(folder / "fold_1" / "checkpoint_final.pth", folder / "fold_all")
    lone = tmp_path / "lone.pth"
    shutil.copy(folder / "fold_0" / "checkpoint_final.pth", lone)
    packed = tmp_path / "release.zip"
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in sorted(folder.rglob("*.*")):
            archive.write(file, file.relative_to(tmp_path))
    volume = Volume.of(scan(size=(4, 20, 24), pad=2), spacing=SPACING)

    def labels(path: Path) -> np.ndarray:
        return Segmenter(path, engine="pytorch")(volume).labels

    both, first = labels(folder), labels(folder / "fold_0")
    assert (both != first).any()
    np.testing.assert_array_equal(labels(packed), both)
    np.testing.assert_array_equal(labels(tmp_path / "Dataset004_Tissues"), both)
    for path in (lone, folder / "fold_0" / "checkpoint_final.pth"):
        np.testing.assert_array_equal(labels(path), first)
    np.testing.assert_array_equal(labels(folder / "fold_all"), labels(folder / "fold_1"))


@pytest.mark.slow
def test_an_exported_ensemble_opens_by_its_name_and_says_all(tmp_path: Path):
    plans = plans_of(transpose_forward=[2, 0, 1], transpose_backward=[1, 2, 0])
    folder = write_folder(tmp_path / "model", plans, dataset_of(REGIONS), folds=2)
    (folder / "postprocessing.json").write_text(
        json.dumps({"postprocessing_fns": ["remove_all_but_largest_component_from_segmentation"],
                    "postprocessing_kwargs": [{"labels_or_regions": [1, [2, 3]], "background_label": 0}]})
    )  # fmt: skip
    export_model(str(folder), tmp_path / "model.onnx", to="onnx")
    opened, source = Segmenter(tmp_path / "model.onnx"), Segmenter(folder, engine="pytorch")
    assert opened.card.volume == source.card.volume
    assert (opened.classes.names, opened.classes.ids) == (tuple(REGIONS), (0, 1, 2, 3))
    assert opened.card.outputs == "regions"
    assert opened.card.volume.whole.largest == ((1, 2, 3),)
    volume = Volume.of(scan(), spacing=(1.0, 1.5, 1.0))
    found, expected = opened(volume), source(volume)
    assert (found.labels != expected.labels).mean() < 1e-3
    for more, what in (({"precision": "float16"}, "takes volumes"), ({"bake": True}, "takes volumes")):
        with pytest.raises(InputError, match=what):
            export_model(str(folder), tmp_path / "other.onnx", **more)


def test_confidence_and_logits_are_those_of_the_whole_grid(tmp_path: Path):
    segmenter = Segmenter(write_folder(tmp_path, mirror=None), engine="pytorch")
    volume = Volume.of(scan(), spacing=(1.5, 1.0, 1.0))
    found = segmenter(volume, confidence=True, probabilities=True, logits=True)
    np.testing.assert_array_equal(found.logits.argmax(axis=0), found.labels)
    np.testing.assert_allclose(found.probabilities.max(axis=0), found.confidence, atol=1e-5)
    outside = found.logits[:, 0, 0, 0]
    assert outside[0] == 0
    assert (outside[1:] == -1000).all()
    np.testing.assert_array_equal(segmenter(volume).labels, found.labels)
    plain = segmenter(volume, flips=("none",)).labels
    np.testing.assert_array_equal(plain, found.labels)  # it was not mirrored in training
    assert (segmenter(volume, flips=("slices", "columns")).labels != plain).any()


def test_of_several_parts_only_the_largest_stay_where_postprocessing_says_so(tmp_path: Path):
    folder = write_folder(tmp_path, mirror=None)
    volume = Volume.of(scan(), spacing=(1.5, 1.0, 1.0))
    before = Segmenter(folder, engine="pytorch")(volume).labels
    (folder / "crossval_results_folds_0").mkdir()
    (folder / "crossval_results_folds_0" / "postprocessing.json").write_text(
        json.dumps({"postprocessing_fns": ["remove_all_but_largest_component_from_segmentation"] * 2,
                    "postprocessing_kwargs": [{"labels_or_regions": [1]}, {"labels_or_regions": 2}]})
    )  # fmt: skip
    after = Segmenter(folder, engine="pytorch")(volume).labels
    from skimage.measure import label

    expected = before.copy()
    for group in ((1,), (2,)):
        parts = label(np.isin(expected, group), connectivity=3)
        sizes = np.bincount(parts.ravel())[1:]
        assert len(sizes) > 1
        expected[(parts > 0) & (parts != sizes.argmax() + 1)] = 0
    np.testing.assert_array_equal(after, expected)


def test_what_it_needs_is_said_before_the_start(tmp_path: Path):
    folder = write_folder(tmp_path)
    volume = Volume.of(scan(), spacing=(1.5, 1.0, 1.0))
    with pytest.raises(InputError, match=r"needs about .* of memory, more than the limit"):
        Segmenter(folder, engine="pytorch").volume(volume, max_memory=100_000)
    with pytest.raises(InputError, match="windows of the size it was trained with"):
        Segmenter(folder, engine="pytorch")(volume, tile=16)
    with pytest.raises(InputError, match="takes volumes of 1 channel"):
        Segmenter(folder, engine="pytorch")(Volume.of(scan(channels=2), spacing=SPACING))


def test_accumulating_in_float16_is_for_nnunet_alone(colors_model: Path):
    with pytest.raises(InputError, match="'float16' is for models from nnU-Net"):
        Segmenter(colors_model)(np.zeros((20, 20, 3), np.uint8), accumulate="float16")


# The parts ------------------------------------------------------------------------------------------------------


def test_windows_begin_where_those_of_nnunet_do():
    assert steps((110, 65, 200, 37), (64, 64, 96, 24), 0.5) == [
        [0, 23, 46],
        [0, 1],
        [0, 35, 69, 104],
        [0, 6, 13],
    ]
    assert steps((64, 100), (64, 64), 32) == [[0], [0, 18, 36]]


def test_the_weights_of_a_window_are_those_of_nnunet():
    weights = weights_of((64, 64, 64), "gaussian", False)
    assert weights.dtype == np.float16
    assert weights.max() == 10
    assert np.unravel_index(weights.argmax(), weights.shape) == (32, 32, 32)
    smallest = np.float16(6e-8)
    assert weights.min() == smallest
    assert abs(float(weights[0, 32, 32]) - 0.0034) < 2e-4


def test_linear_interpolation_without_float64_is_the_same_but_for_the_last_digits():
    values = np.random.default_rng(0).normal(0, 1, (5, 9, 8)).astype(np.float32)
    for here, size in (((1.0, 1.0, 1.0), (9, 7, 13)), ((4.0, 1.0, 1.0), (10, 7, 13))):
        args = (size, Resample(order=1), here, (1.0, 1.0, 1.0))
        np.testing.assert_allclose(resample(values, *args, exact=False), resample(values, *args), atol=2e-6)


def test_a_card_keeps_how_whole_volumes_are_prepared(tmp_path: Path):
    segmenter = Segmenter(write_folder(tmp_path, mirror=(0, 2)), engine="pytorch")
    card = segmenter.card
    assert type(card).from_json(card.to_json()) == card
    assert card.volume.whole.mirror == (0, 2)
    assert "whole" not in VolumePreprocess().to_dict()


# What is refused ------------------------------------------------------------------------------------------------


class Runs:
    """Of which a pickle runs a program."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return os.system, (f"touch {self.path}",)


@pytest.mark.parametrize("where", ["beside", "init_args", "plans", "weights"])
def test_a_malicious_checkpoint_runs_nothing(where: str, tmp_path: Path):
    came, content = tmp_path / "came", checkpoint(plans_of(), dataset_of())
    if where == "beside":
        content["logging"]["loss"] = Runs(came)
    elif where == "init_args":
        content["init_args"]["device"] = Runs(came)
    elif where == "plans":
        content["init_args"]["plans"] = copy.deepcopy(plans_of()) | {"more": Runs(came)}
    else:
        content["network_weights"]["encoder.more"] = Runs(came)
    folder = write_folder(tmp_path / "model")
    file = folder / "fold_0" / "checkpoint_final.pth"
    torch.save(content, file)
    (folder / "crossval_results_folds_0").mkdir()
    (folder / "crossval_results_folds_0" / "postprocessing.pkl").write_bytes(
        b"cos\nsystem\n(S'touch " + str(came).encode() + b"'\ntR."
    )
    for path in (folder, file):
        with pytest.raises(WeightsError, match=r"would run code \((posix|nt|os)\.system\)"):
            Segmenter(path)
    assert not came.exists()


def changed(path: str, value: Any) -> Any:
    """A change of the plans: what stands under keys and places joined by points."""

    def change(plans: dict[str, Any], dataset: dict[str, Any], content: dict[str, Any]) -> None:
        at: Any = {"plans": plans, "dataset": dataset, "checkpoint": content}
        *keys, last = path.split(".")
        for key in keys:
            at = at[int(key)] if isinstance(at, list) else at[key]
        if value is REMOVED:
            del at[last]
        else:
            at[int(last) if isinstance(at, list) else last] = value

    return change


REMOVED = object()
CONFIG = "plans.configurations.3d_fullres"
NET = f"{CONFIG}.architecture.arch_kwargs"

HOSTILE = [
    (f"{CONFIG}.inherits_from", "3d_fullres", "inherits from itself"),
    (f"{CONFIG}.inherits_from", "3d_lowres", "there is no configuration '3d_lowres'"),
    (f"{CONFIG}.previous_stage", "3d_lowres", "second stage of a cascade"),
    (f"{CONFIG}.preprocessor_name", "MyPreprocessor", "MyPreprocessor"),
    (f"{CONFIG}.normalization_schemes", ["MyNormalization"], "MyNormalization"),
    (f"{CONFIG}.use_mask_for_norm", [False, False], "expected one for each channel"),
    (f"{CONFIG}.resampling_fn_data", "my_resampling", "my_resampling"),
    (f"{CONFIG}.resampling_fn_data_kwargs", {**resampling(3), "order": 9}, "from 0 to 5"),
    (f"{CONFIG}.resampling_fn_data_kwargs", {**resampling(3), "hole": 1}, "hole"),
    (f"{CONFIG}.architecture.network_class_name", "os.system", "has the network 'system'"),
    (f"{CONFIG}.architecture.network_class_name", "dynamic.architectures.primus.Primus", "Primus"),
    (f"{CONFIG}.patch_size", [8, 12, 13], "strides do not divide"),
    (f"{CONFIG}.patch_size", [8, 12], "expected 2 or 3"),
    (f"{CONFIG}.spacing", [0.0, 1.0, 1.0], "from 0.0001 to 10000"),
    (f"{CONFIG}.architecture", REMOVED, "how its network is built"),
    (f"{NET}.conv_op", "os.system", "convolves with 'system'"),
    (f"{NET}.norm_op", "torch.nn.LayerNorm", "LayerNorm"),
    (f"{NET}.nonlin", "builtins.eval", "eval"),
    (f"{NET}.features_per_stage", [4, 8192], "another shape"),
    (f"{NET}.features_per_stage", [4, 10**9], "from 1 to 8192"),
    (f"{NET}.n_stages", 10**6, "from 2 to 16"),
    (f"{NET}.kernel_sizes", [[2, 2, 2], [3, 3, 3]], "even sizes"),
    (f"{NET}.strides", [[1, 1, 1], [0, 2, 2]], "strides"),
    (f"{NET}.n_conv_per_stage", [1], "give 1 n_conv_per_stage, expected 2"),
    (f"{NET}.n_conv_per_stage", [64, 64], "keys missing"),
    (f"{NET}.squeeze_excitation", True, "squeeze_excitation"),
    ("plans.image_reader_writer", "NaturalImage2DIO", "NaturalImage2DIO"),
    ("plans.transpose_backward", [1, 2, 0], "do not belong together"),
    ("plans.transpose_forward", [0, 0, 1], "do not belong together"),
    ("plans.label_manager", "MyLabels", "MyLabels"),
    ("plans.configurations", [], "an object of keys"),
    ("dataset.labels", {"organ": 1}, "no label 'background'"),
    ("dataset.labels", {"background": 0, "organ": 7}, "expected 0, 1, 2"),
    ("dataset.labels", {"background": 0, "organ": 1, "lesion": 2, "ignore": 9}, "'ignore' 9, expected 3"),
    ("dataset.labels", {"background": 0, "whole": [1, 2]}, "regions_class_order"),
    ("dataset.labels", {"background": 0, **{str(i): i for i in range(1, 6)}}, "these weights have 3 classes"),
    ("dataset.channel_names", {}, "has 0 channels"),
    ("checkpoint.init_args.configuration", "3d_lowres", "there is no configuration '3d_lowres'"),
    ("checkpoint.init_args", None, "no checkpoint of nnU-Net"),
    ("checkpoint.network_weights", {}, "state dict"),
    ("checkpoint.inference_allowed_mirroring_axes", [0, 7], "from 0 to 2"),
    ("checkpoint.inference_allowed_mirroring_axes", "all", "a list"),
]


@pytest.fixture(scope="module")
def good() -> dict[str, Any]:
    return checkpoint(plans_of(), dataset_of())


@pytest.mark.parametrize(
    ("path", "value", "says"), HOSTILE, ids=[f"{p.split('.')[-1]}-{i}" for i, (p, _, _) in enumerate(HOSTILE)]
)
def test_plans_and_checkpoints_that_cannot_be_are_one_sentence(path, value, says, good, tmp_path: Path):
    plans, dataset = copy.deepcopy(plans_of()), copy.deepcopy(dataset_of())
    content = {**good, "init_args": dict(good["init_args"])}
    changed(path, value)(plans, dataset, content)
    folder = tmp_path / NAME
    (folder / "fold_0").mkdir(parents=True)
    torch.save(content, folder / "fold_0" / "checkpoint_final.pth")
    (folder / "plans.json").write_text(json.dumps(plans))
    (folder / "dataset.json").write_text(json.dumps(dataset))
    with pytest.raises(PixelwiseError) as error:
        Segmenter(folder, engine="pytorch")
    assert says in str(error.value)
    assert "\n" not in str(error.value)


def test_folders_that_are_not_whole_are_one_sentence(good, tmp_path: Path):
    folder = write_folder(tmp_path / "a")
    file = folder / "fold_0" / "checkpoint_final.pth"

    def refused(path: Path, says: str) -> None:
        with pytest.raises(PixelwiseError, match=says):
            Segmenter(path, engine="pytorch")

    (folder / "dataset.json").rename(folder / "d")
    refused(folder, "has plans.json and no dataset.json")
    (folder / "d").rename(folder / "dataset.json")
    file.rename(folder / "fold_0" / "checkpoint_best.pth")
    refused(folder, "name the checkpoint itself")
    refused(folder / "fold_0", "name the checkpoint itself, such as .*checkpoint_best.pth")
    (folder / "fold_0" / "checkpoint_best.pth").rename(file)
    (folder / "plans.json").write_text("{")
    refused(folder, "the plans.json of .* cannot be read")
    (folder / "plans.json").write_text(json.dumps(plans_of()))
    content = file.read_bytes()
    file.write_bytes(content[: len(content) // 2])
    refused(folder, "damaged or incomplete")
    file.write_bytes(content)
    (folder / "postprocessing.json").write_text(
        json.dumps({"postprocessing_fns": ["os.system"], "postprocessing_kwargs": [{}]})
    )
    refused(folder, "asks for 'os.system'")
    (folder / "postprocessing.json").unlink()
    shutil.copytree(folder, tmp_path / "a" / "another")
    refused(tmp_path / "a", "holds 2 models")
    packed = tmp_path / "release.zip"
    with zipfile.ZipFile(packed, "w") as archive:
        for name in ("plans.json", "dataset.json"):
            archive.write(folder / name, f"{NAME}/{name}")
    refused(packed, "has no fold_0")
    packed.write_bytes(packed.read_bytes()[:200])
    refused(packed, "damaged zip file")


def test_names_of_foreign_saves_are_read_and_unknown_trainers_are_warned_of(tmp_path: Path):
    own = network_of(plans_of(), dataset_of())
    weights = OrderedDict((f"module.{name}", value.half()) for name, value in saved(own).items())
    folder = write_folder(tmp_path / "a", weights=weights, trainer_name="nnUNetTrainerOfMine")
    with pytest.warns(PixelwiseWarning, match="trained by 'nnUNetTrainerOfMine'"):
        opened = Segmenter(folder, engine="pytorch")
    for name, value in opened.engine.network.state_dict().items():
        torch.testing.assert_close(value, own.state_dict()[name].half().float())

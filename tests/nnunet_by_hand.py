"""Folders as nnU-Net v2 leaves them, with small networks of ours, and a second, slow way from a scan to its labels."""

from __future__ import annotations

import itertools
import json
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy import ndimage
from skimage.transform import resize

LABELS = {"background": 0, "organ": 1, "lesion": 2}
REGIONS = {"background": 0, "whole": [1, 2, 3], "core": [2, 3], "enhancing": 3}
LINEAR = {"is_seg": False, "force_separate_z": None, "memefficient_seg_resampling": False}
NAME = "nnUNetTrainer__nnUNetPlans__3d_fullres"


def architecture(
    dims: int = 3, *, residual: bool = False, strides: Any = None, **changes: Any
) -> dict[str, Any]:
    convs = "n_blocks_per_stage" if residual else "n_conv_per_stage"
    return {
        "network_class_name": "dynamic_network_architectures.architectures.unet."
        + ("ResidualEncoderUNet" if residual else "PlainConvUNet"),
        "arch_kwargs": {
            "n_stages": 2,
            "features_per_stage": [4, 6],
            "conv_op": f"torch.nn.modules.conv.Conv{dims}d",
            "kernel_sizes": [[3] * dims] * 2,
            "strides": strides or [[1] * dims, [2] * dims],
            convs: [1, 2],
            "n_conv_per_stage_decoder": [1],
            "conv_bias": True,
            "norm_op": f"torch.nn.modules.instancenorm.InstanceNorm{dims}d",
            "norm_op_kwargs": {"eps": 1e-5, "affine": True},
            "dropout_op": None,
            "dropout_op_kwargs": None,
            "nonlin": "torch.nn.LeakyReLU",
            "nonlin_kwargs": {"inplace": True},
            **changes,
        },
        "_kw_requires_import": ["conv_op", "norm_op", "dropout_op", "nonlin"],
    }


def resampling(order: int) -> dict[str, Any]:
    return {"is_seg": False, "order": order, "order_z": 0, "force_separate_z": None}


def configuration(dims: int = 3, **changes: Any) -> dict[str, Any]:
    return {
        "data_identifier": "nnUNetPlans_3d_fullres",
        "preprocessor_name": "DefaultPreprocessor",
        "batch_size": 2,
        "patch_size": [8, 12, 12][-dims:],
        "median_image_size_in_voxels": [14.0, 20.0, 24.0],
        "spacing": [1.5, 1.0, 1.0][-dims:],
        "normalization_schemes": ["ZScoreNormalization"],
        "use_mask_for_norm": [False],
        "resampling_fn_data": "resample_data_or_seg_to_shape",
        "resampling_fn_seg": "resample_data_or_seg_to_shape",
        "resampling_fn_data_kwargs": resampling(3),
        "resampling_fn_seg_kwargs": {**resampling(1), "is_seg": True},
        "resampling_fn_probabilities": "resample_data_or_seg_to_shape",
        "resampling_fn_probabilities_kwargs": resampling(1),
        "architecture": architecture(dims),
        "batch_dice": False,
        **changes,
    }


def plans_of(config: dict[str, Any] | None = None, **changes: Any) -> dict[str, Any]:
    name = "3d_fullres" if len((config or configuration())["patch_size"]) == 3 else "2d"
    return {
        "dataset_name": "Dataset004_Tissues",
        "plans_name": "nnUNetPlans",
        "original_median_spacing_after_transp": [1.5, 1.0, 1.0],
        "original_median_shape_after_transp": [14, 20, 24],
        "image_reader_writer": "SimpleITKIO",
        "transpose_forward": [0, 1, 2],
        "transpose_backward": [0, 1, 2],
        "configurations": {name: config or configuration()},
        "experiment_planner_used": "ExperimentPlanner",
        "label_manager": "LabelManager",
        "foreground_intensity_properties_per_channel": {
            str(i): {
                "max": 900.0, "mean": 60.0, "median": 50.0, "min": -900.0,
                "percentile_00_5": -120.0, "percentile_99_5": 280.0, "std": 75.0,
            }
            for i in range(2)
        },
        **changes,
    }  # fmt: skip


def dataset_of(labels: dict[str, Any] | None = None, channels: int = 1, **changes: Any) -> dict[str, Any]:
    found = {
        "channel_names": {str(i): f"channel {i}" for i in range(channels)},
        "labels": labels or LABELS,
        "numTraining": 1,
        "file_ending": ".nii.gz",
        **changes,
    }
    if labels is REGIONS:
        found.setdefault("regions_class_order", [1, 2, 3])
    return found


def network_of(plans: dict[str, Any], dataset: dict[str, Any], seed: int = 0) -> Any:
    """Our network for plans, with weights that make both classes and regions occur."""
    from pixelwise.checkpoints.nnunet.network import _build
    from pixelwise.checkpoints.nnunet.plans import read_plans

    torch.manual_seed(seed)
    (name,) = plans["configurations"]
    network = _build(read_plans(plans, dataset, name, None, (), "the plans")[0])
    with torch.no_grad():
        for head in network.decoder.seg_layers:
            head.weight.normal_(0, 2)
            head.bias.zero_()
        network.eval()
        patch = plans["configurations"][name]["patch_size"]
        answer = network.coarse(torch.randn(1, len(dataset["channel_names"]), *patch))
        network.decoder.seg_layers[-1].bias -= answer.mean(dim=(0, *range(2, answer.ndim)))
    return network


def saved(network: Any) -> OrderedDict[str, torch.Tensor]:
    """Its tensors under all the names that nnU-Net's files have for them."""
    own = OrderedDict(network.state_dict())
    found: OrderedDict[str, torch.Tensor] = OrderedDict()
    for name, tensor in own.items():
        found[name] = tensor
        for part, number in ((".conv.", 0), (".norm.", 1)):
            if part in name:
                found[name.replace(part, f".all_modules.{number}.")] = tensor
    for name, tensor in list(found.items()):
        if name.startswith("encoder."):
            found[f"decoder.{name}"] = tensor
    return found


def checkpoint(
    plans: dict[str, Any], dataset: dict[str, Any], *, seed: int = 0, mirror: Any = (0, 1, 2), **changes: Any
) -> dict[str, Any]:
    """What nnU-Net's trainer saves."""
    (name,) = [
        name for name, one in plans["configurations"].items() if "architecture" in one or len(one) > 3
    ][:1]
    return {
        "network_weights": changes.pop("weights", None) or saved(network_of(plans, dataset, seed)),
        "optimizer_state": {"state": {}, "param_groups": [{"lr": 0.01, "params": [0]}]},
        "grad_scaler_state": None,
        "logging": {"mean_fg_dice": [np.float32(0.5), np.float64(0.6)]},
        "_best_ema": np.float64(0.6),
        "current_epoch": 1000,
        "init_args": {
            "plans": plans, "configuration": name, "fold": 0, "dataset_json": dataset, "device": torch.device("cpu"),
        },
        "trainer_name": "nnUNetTrainer",
        "inference_allowed_mirroring_axes": mirror,
        **changes,
    }  # fmt: skip


def write_folder(
    folder: Path, plans: dict[str, Any] | None = None, dataset: dict[str, Any] | None = None, *, folds: int = 1,
    mirror: Any = (0, 1, 2), **changes: Any,
) -> Path:  # fmt: skip
    """A folder of so many folds; returns it."""
    plans, dataset = plans or plans_of(), dataset or dataset_of()
    model = folder / NAME
    for fold in range(folds):
        place = model / f"fold_{fold}"
        place.mkdir(parents=True)
        torch.save(
            checkpoint(plans, dataset, seed=fold, mirror=mirror, **changes), place / "checkpoint_final.pth"
        )
    (model / "plans.json").write_text(json.dumps(plans))
    (model / "dataset.json").write_text(json.dumps(dataset))
    return model


def scan(
    size: tuple[int, int, int] = (14, 20, 24), channels: int = 1, seed: int = 0, pad: int = 2, smooth: float = 2,
    noise: float = 5,
) -> np.ndarray:  # fmt: skip
    """Soft blots with noise, float32 (c, d, h, w), zero in a rim."""
    random = np.random.default_rng(seed)
    values = ndimage.gaussian_filter(random.normal(0, 1, (channels, *size)), (0, *(smooth,) * 3))
    values = values / values.std() * 100 + 60 + random.normal(0, 1, values.shape) * noise
    if pad:
        inner = np.zeros(size, bool)
        inner[1:, pad:-pad, pad : -pad - 1] = True
        values[:, ~inner] = 0
        values[:, size[0] // 2, size[1] // 2, size[2] // 2] = 0  # a hole
    return values.astype(np.float32)


def expected_labels(
    values: np.ndarray, spacing: tuple[float, float, float], plans: dict[str, Any], dataset: dict[str, Any], *,
    folds: int = 1, mirror: Any = (0, 1, 2), half: bool = True,
) -> np.ndarray:  # fmt: skip
    """The label map (d, h, w) of a scan (c, d, h, w) by the definition of each step, in torch, skimage and SciPy."""
    ((_, config),) = plans["configurations"].items()
    forward = plans["transpose_forward"]
    data = values.astype(np.float32).transpose(0, *(axis + 1 for axis in forward))
    here = [spacing[axis] for axis in forward]
    whole = data.shape[1:]
    inside = ndimage.binary_fill_holes((data != 0).any(axis=0))
    box = tuple(slice(int(w.min()), int(w.max()) + 1) for w in np.nonzero(inside))
    data, inside = data[(slice(None), *box)], inside[box]
    there = config["spacing"] if len(config["spacing"]) == 3 else [here[0], *config["spacing"]]
    size = [round(a / b * n) for a, b, n in zip(here, there, data.shape[1:], strict=True)]
    for i, (scheme, masked) in enumerate(
        zip(config["normalization_schemes"], config["use_mask_for_norm"], strict=True)
    ):
        x = data[i]
        said = plans["foreground_intensity_properties_per_channel"][str(i)]
        if scheme == "CTNormalization":
            x = np.clip(x, said["percentile_00_5"], said["percentile_99_5"])
            x = (x - np.float32(said["mean"])) / np.float32(said["std"])
        elif scheme == "ZScoreNormalization" and masked:
            x = np.where(inside, (x - x[inside].mean()) / x[inside].std(), 0)
        elif scheme == "ZScoreNormalization":
            x = (x - x.mean()) / x.std()
        elif scheme == "RescaleTo01Normalization":
            x = (x - x.min()) / (x.max() - x.min())
        data[i] = x
    cropped = data.shape[1:]
    data = _resampled(
        data, size, here, there, config["resampling_fn_data"], config["resampling_fn_data_kwargs"]
    )
    total = None
    for fold in range(folds):
        logits = _windows(data, network_of(plans, dataset, fold), config["patch_size"], mirror, half)
        total = logits if total is None else total + logits
    assert total is not None
    total = total / total.dtype.type(folds)
    name, given = config["resampling_fn_probabilities"], config["resampling_fn_probabilities_kwargs"]
    total = _resampled(total, list(cropped), there, here, name, given)
    order = dataset.get("regions_class_order")
    found = np.zeros(cropped, np.uint8)
    if order is None:
        found = total.argmax(axis=0).astype(np.uint8)
    else:
        for logit, value in zip(total, order, strict=True):
            found[logit > 0] = value
    labels = np.zeros(whole, np.uint8)
    labels[box] = found
    return labels.transpose(plans["transpose_backward"])


def _resampled(
    data: np.ndarray, size: list[int], here: Any, there: Any, name: str, given: dict[str, Any]
) -> np.ndarray:
    if list(data.shape[1:]) == list(size) or name == "no_resampling_hack":
        return data
    coarse = here if max(here) / min(here) > 3 else there
    axis = [i for i in range(3) if coarse[i] == max(coarse)]
    apart = max(coarse) / min(coarse) > 3 and len(axis) == 1
    if given.get("force_separate_z") is not None:
        apart = given["force_separate_z"]
    if name == "resample_torch_fornnunet":
        x = torch.from_numpy(np.ascontiguousarray(data))[None].float()
        if apart:
            middle = [data.shape[1 + i] if i == axis[0] else n for i, n in enumerate(size)]
            x = torch.nn.functional.interpolate(x, middle, mode="trilinear")
            return torch.nn.functional.interpolate(x, size, mode="nearest-exact")[0].numpy()
        return torch.nn.functional.interpolate(x, size, mode="trilinear")[0].numpy()
    new = np.zeros((len(data), *size), data.dtype)
    for one, goal in zip(data.astype(np.float64), new, strict=True):
        if not apart:
            goal[:] = resize(one, size, given["order"], mode="edge", anti_aliasing=False)
            continue
        flat = [n for i, n in enumerate(size) if i != axis[0]]
        slices = [
            resize(plane, flat, given["order"], mode="edge", anti_aliasing=False)
            for plane in np.moveaxis(one, axis[0], 0)
        ]
        stack = np.stack(slices, axis[0])
        at = list(np.meshgrid(*(np.arange(n, dtype=float) for n in size), indexing="ij"))
        at[axis[0]] = stack.shape[axis[0]] / size[axis[0]] * (at[axis[0]] + 0.5) - 0.5
        goal[:] = ndimage.map_coordinates(stack, at, order=0, mode="nearest")
    return new


def _windows(data: np.ndarray, network: Any, patch: list[int], mirror: Any, half: bool) -> np.ndarray:
    planar = len(patch) == 2
    sides = [1, *patch] if planar else patch
    missing = [max(0, side - n) for side, n in zip(sides, data.shape[1:], strict=True)]
    data = np.pad(data, [(0, 0), *((m // 2, m - m // 2) for m in missing)])
    starts = []
    for n, side in zip(data.shape[1:], sides, strict=True):
        count = int(np.ceil((n - side) / (side * 0.5))) + 1
        starts.append([int(np.round((n - side) / max(count - 1, 1) * i)) for i in range(count)])
    weight = np.zeros(patch)
    weight[tuple(side // 2 for side in patch)] = 1
    weight = ndimage.gaussian_filter(weight, [side / 8 for side in patch], mode="constant")
    weight = torch.from_numpy(weight / (weight.max() / 10)).half()
    weight[weight == 0] = weight[weight != 0].min()
    weight = weight.reshape(sides)
    kind = torch.float16 if half else torch.float32
    total: torch.Tensor | None = None
    seen = torch.zeros(data.shape[1:], dtype=kind)
    axes = [axis + 2 for axis in mirror or ()]
    ways = [way for i in range(1, len(axes) + 1) for way in itertools.combinations(axes, i)]
    for start in itertools.product(*starts):
        where = tuple(slice(a, a + n) for a, n in zip(start, sides, strict=True))
        x = torch.from_numpy(np.ascontiguousarray(data[(slice(None), *where)]))[None]
        x = x[:, :, 0] if planar else x
        with torch.no_grad():
            answer = network.coarse(x)
            for way in ways:
                answer += torch.flip(network.coarse(torch.flip(x, way)), way)
            answer /= len(ways) + 1
        answer = answer[0][:, None] if planar else answer[0]
        if total is None:
            total = torch.zeros((len(answer), *data.shape[1:]), dtype=kind)
        total[(slice(None), *where)] += answer * weight
        seen[where] += weight
    assert total is not None
    total /= seen
    inner = tuple(slice(m // 2, n - (m - m // 2)) for m, n in zip(missing, data.shape[1:], strict=True))
    return total[(slice(None), *inner)].numpy()

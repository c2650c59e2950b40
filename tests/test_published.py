"""The published recipes: each takes a step, with the schedule and the parameter groups of its source."""

import dataclasses
import json

import numpy as np
import pytest
import torch
from torch.nn import functional as F
from typer.testing import CliRunner

from drawn import draw_folder
from drawn_scans import write_volume
from pixelwise.cli.app import app
from pixelwise.cli.train import base_of
from pixelwise.errors import InputError, UnknownNameError
from pixelwise.losses import unet_cross_entropy, unet_weights
from pixelwise.recipes.published import RECIPES, listing, recipe
from pixelwise.training.config import TrainConfig
from pixelwise.training.experiment import experiment_of
from pixelwise.training.loop import fit
from pixelwise.training.objective import make_loss
from pixelwise.training.optimize import learning_rate, make_optimizer
from pixelwise.training.progress import read_metrics
from pixelwise.training.start import changed

EVERYDAY = {"camvid_lraspp", "coco_deeplabv3_mobilenet_v3_large", "ade20k_segformer_b0", "isbi_unet"}
NAMES = [
    pytest.param(n, marks=() if n in EVERYDAY else pytest.mark.slow)
    for n in RECIPES
    if recipe(n).volume is None
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return draw_folder(tmp_path_factory.mktemp("data") / "mine", 5)


def in_small(name, folder, **changes):
    """The recipe on the drawn data: one step of two small crops, without weights that would be fetched."""
    config = recipe(name)
    size = {"augment": {**config.augment, "crop_hw": [64, 64]}}
    if name == "isbi_unet":
        config = config.replace(model_options={"width": 8})
    if config.image_size:
        size["image_size"] = 64
    return config.replace(
        data=str(folder), format="folder", weights=None, steps=1, epochs=None, batch_size=2, accumulate=1,
        warmup_steps=0, workers=0, **size, **changes,
    )  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_every_recipe_builds_its_experiment_and_takes_a_step(name, folder, tmp_path):
    experiment = experiment_of(in_small(name, folder), check=False)
    before = {key: value.clone() for key, value in experiment.network.state_dict().items()}
    trained = fit(
        experiment.network, experiment.training, experiment.augment, experiment.loss_of, experiment.config, tmp_path
    )  # fmt: skip
    line = read_metrics(tmp_path / "metrics.jsonl")[0]
    assert np.isfinite(line["loss"])
    assert line["loss"] > 0
    moved = [key for key, value in trained.state_dict().items() if not torch.equal(value, before[key])]
    assert len(moved) > len(before) / 4
    aux = sum(part.startswith("aux") for part in line["parts"])
    wanted = 3 if name == "voc_deeplabv2_resnet101" else int(bool(recipe(name).model_options.get("aux_loss")))
    assert aux == wanted


@pytest.mark.slow
def test_no_new_nets_recipe_takes_a_step_on_scans_of_four_channels(tmp_path):
    random = np.random.default_rng(0)
    for i in range(5):
        ids = np.zeros((36, 34, 40), np.uint8)
        ids[8:20, 8:20, 8:24], ids[10:16, 10:16, 10:18], ids[12:14, 12:14, 12:15] = 1, 2, 3
        values = np.stack([100 + 50 * ids + random.normal(0, 9, ids.shape) for _ in range(4)]).astype(
            np.float32
        )
        write_volume(tmp_path / "data" / "imagesTr" / f"case_{i}.nii.gz", values)
        write_volume(tmp_path / "data" / "labelsTr" / f"case_{i}.nii.gz", ids)
    names = ("nothing", "edema", "enhancing tumour", "necrosis")
    (tmp_path / "data" / "classes.txt").write_text("\n".join(names))
    config = recipe("brats_nonewnet_softmax")
    small = dataclasses.replace(config.volume, patch=(32, 32, 32))
    config = config.replace(
        data=str(tmp_path / "data"),
        steps=1,
        volume=small,
        model_options={"width": 4},
        workers=0,
        validate_every=0,
    )
    experiment = experiment_of(config, check=False)
    assert experiment.card.labels.names == names
    assert experiment.card.volume.channels == config.volume.channels
    fit(
        experiment.network, experiment.training, experiment.augment, experiment.loss_of, experiment.config, tmp_path
    )  # fmt: skip
    line = read_metrics(tmp_path / "metrics.jsonl")[0]
    assert 0 < line["loss"] < 10


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_survives_json(name):
    config = recipe(name)
    assert TrainConfig.from_json(config.to_json()) == config
    assert (
        json.loads(config.to_json())["model"] in name
        or name in ("camvid_lraspp", "isbi_unet")
        or "voc" in name
    )


def test_torchvisions_schedule_is_that_of_its_reference_script():
    """train.py: LambdaLR over (1 - x / (iterations of an epoch * epochs)) ** 0.9, stepped every iteration."""
    config = recipe("coco_fcn_resnet50")
    samples = 3200
    steps = config.total_steps(samples)
    assert steps == 30 * samples // 32
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.02)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda x: (1 - x / steps) ** 0.9)
    for step in range(steps):
        assert learning_rate(step, steps, config) == pytest.approx(optimizer.param_groups[0]["lr"], rel=1e-12)
        optimizer.step()
        scheduler.step()


def test_segformers_schedule_is_mmcvs_poly_with_its_warm_up():
    """mmcv 1.x, hooks/lr_updater.py: the poly rate of the iteration, in the warm-up times 1 - k."""
    config = recipe("ade20k_segformer_b2")
    for i in (0, 1, 700, 1499, 1500, 1501, 80_000, 159_999):
        regular = 6e-5 * (1 - i / 160_000) ** 1.0
        k = (1 - i / 1500) * (1 - 1e-6)
        expected = regular * (1 - k) if i < 1500 else regular
        assert learning_rate(i, 160_000, config) == pytest.approx(expected, rel=1e-9)


def test_deeplabs_schedule_is_poly_from_the_first_step():
    config = recipe("voc_deeplabv2_resnet101")
    for i in (0, 1, 10_000, 19_999):
        assert learning_rate(i, 20_000, config) == pytest.approx(2.5e-4 * (1 - i / 20_000) ** 0.9)
    assert config.samples_a_step() == 10


def groups(name, folder):
    """Name of each parameter: (learning rate, weight decay), at the peak."""
    experiment = experiment_of(in_small(name, folder), check=False)
    optimizer = make_optimizer(experiment.network, experiment.config)
    of = {id(p): (g["lr"], g["weight_decay"]) for g in optimizer.param_groups for p in g["params"]}
    return {key: of[id(p)] for key, p in experiment.network.named_parameters()}


def test_rates_and_decay_are_those_of_the_sources(folder):
    tv = groups("coco_deeplabv3_mobilenet_v3_large", folder)
    assert {group for key, group in tv.items() if key.startswith("aux")} == {(0.1, 1e-6)}
    assert {group for key, group in tv.items() if not key.startswith("aux")} == {(0.01, 1e-6)}
    segformer = groups("ade20k_segformer_b0", folder)
    for key, (rate, decay) in segformer.items():
        assert rate == pytest.approx(6e-5 if key.startswith("backbone") else 6e-4)
        assert decay == (
            0 if key.endswith("bias") or ".norm" in key or ".bn" in key or "fuse.1" in key else 0.01
        ), key


def test_options_beside_a_recipe_change_single_settings():
    base = base_of("coco_fcn_resnet50", None)
    plain = TrainConfig.from_dict(changed(base, {"data": "mine"}))
    assert plain.differs(recipe("coco_fcn_resnet50")) == "data 'mine' instead of ''"
    other = TrainConfig.from_dict(changed(base, {"data": "mine", "steps": 7, "batch_size": 2}))
    assert (other.steps, other.epochs, other.batch_size, other.peak_lr) == (7, None, 2, 0.02)
    smaller = TrainConfig.from_dict(changed(base, {"data": "mine", "image_size": 256}))
    assert smaller.augment == {"colour": 0.0, "largest_share": 1.0}  # the crops follow the option
    with pytest.raises(InputError, match="steps or epochs"):
        TrainConfig.from_dict(changed(base, {"data": "mine", "steps": 7, "epochs": 2}))


def test_a_recipe_is_named_rightly_or_the_nearest_is_proposed(tmp_path):
    asked = ["train", "--out", str(tmp_path / "run"), "--data", str(tmp_path)]
    error = CliRunner().invoke(app, [*asked, "--recipe", "camvid_lrasp"]).exception
    assert isinstance(error, UnknownNameError)
    assert "did you mean 'camvid_lraspp'" in str(error)
    both = [*asked, "--recipe", "camvid_lraspp", "--config", "x.json"]
    error = CliRunner().invoke(app, both).exception
    assert isinstance(error, InputError)
    assert "give one of them" in str(error)


def test_the_recipes_are_listed_with_what_they_are():
    shown = CliRunner().invoke(app, ["train", "--list-recipes"])
    assert shown.exit_code == 0
    assert shown.output.strip() == listing()
    lines = listing().splitlines()
    assert [line.split()[0] for line in lines] == list(RECIPES)
    assert all(len(line.split()) > 5 for line in lines)


def test_a_recipe_trains_from_the_command_line_and_is_resumed_by_the_same_command(folder, tmp_path):
    command = [
        "train", "--recipe", "coco_lraspp_mobilenet_v3_large", "--data", str(folder), "--format", "folder",
        "--weights", "none", "--steps", "2", "--batch-size", "2", "--accumulate", "1", "--image-size", "32",
        "--workers", "0", "--out", str(tmp_path / "run"),
    ]  # fmt: skip
    first = CliRunner().invoke(app, command)
    assert first.exit_code == 0, first.exception
    kept = TrainConfig.from_json((tmp_path / "run" / "config.json").read_text())
    assert (kept.model, kept.optimizer, kept.peak_lr, kept.steps) == (
        "lraspp_mobilenet_v3_large",
        "sgd",
        0.01,
        2,
    )
    again = CliRunner().invoke(app, [*command, "--resume"])
    assert again.exit_code == 0, again.exception
    command[2] = "camvid_lraspp"
    other = CliRunner().invoke(app, [*command, "--resume"]).exception
    assert isinstance(other, InputError)
    assert "holds a run with" in str(other)


def test_unets_loss_weighs_the_ground_between_cells():
    instances = torch.zeros(24, 24, dtype=torch.int64)
    instances[2:10, 2:20], instances[12:22, 2:20] = 1, 2  # two cells, two pixels apart
    target = (instances > 0).long()
    target[0] = 255
    logits = torch.randn(1, 2, 24, 24, generator=torch.Generator().manual_seed(0))
    weights = unet_weights(instances)
    assert weights[10:12, 5:15].min() > 5  # of 1 + 10 exp(...)
    each = F.cross_entropy(logits, target[None], ignore_index=255, reduction="none")
    expected = (each * weights).sum() / (target != 255).sum()
    torch.testing.assert_close(unet_cross_entropy(logits, target[None]), expected)
    config = TrainConfig(
        steps=1, losses={"unet_cross_entropy": 1.0}, loss_options={"unet_cross_entropy": {"background": 1}}
    )
    swapped = torch.where(target == 255, 255, 1 - target)[None]
    parts = make_loss(config)(lambda image: {"out": image}, {"image": logits.flip(1), "mask": swapped})
    torch.testing.assert_close(parts["unet_cross_entropy"], expected)


def test_a_file_of_a_classifier_fills_the_backbone_of_a_recipes_network(folder, tmp_path):
    from torchvision.models import mobilenet_v3_large

    torch.manual_seed(7)
    classifier = mobilenet_v3_large().state_dict()
    torch.save(classifier, tmp_path / "mobile.pth")
    config = in_small("coco_lraspp_mobilenet_v3_large", folder).replace(weights=str(tmp_path / "mobile.pth"))
    own = experiment_of(config, check=False).network.state_dict()
    for key in ("0.0.weight", "4.block.1.0.weight", "16.1.running_var"):
        assert torch.equal(own[f"backbone.{key}"], classifier[f"features.{key}"])
    random = experiment_of(config.replace(weights=None), check=False).network.state_dict()
    assert not torch.equal(random["backbone.0.0.weight"], classifier["features.0.0.weight"])
    with pytest.raises(InputError, match=r"none\.pth"):
        experiment_of(config.replace(weights=str(tmp_path / "none.pth")), check=False)

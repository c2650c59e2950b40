"""The fingerprint of a data set and the plan made of it: decisions as values, reasons as sentences, and as typed."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from typer.testing import CliRunner

import pixelwise
from drawn import draw_folder
from pixelwise.cli.app import app
from pixelwise.datasets.doctor import examine, measure
from pixelwise.datasets.fingerprint import ClassMeasure, Fingerprint, Measuring, looked_at, widths
from pixelwise.datasets.opening import divided, open_data
from pixelwise.datasets.sample import Sample
from pixelwise.errors import InputError
from pixelwise.labels import LabelSet
from pixelwise.training import start
from pixelwise.training.config import TrainConfig
from pixelwise.training.experiment import make_augmentation, unfulfilled_rule
from pixelwise.training.plan import Machine, parse_budget, plan, steps_within, table, usual_size, validations
from pixelwise.training.probes import Cost
from pixelwise.training.progress import read_metrics
from pixelwise.transforms.augment import Augment, Span

GROUND = ClassMeasure("ground", 0.9, 1.0)
PERSON = ClassMeasure("person", 0.3, 1.0, size_px=60, large_px=120, width_px=40, thin_px=24)
VESSEL = ClassMeasure("vessel", 0.1, 1.0, size_px=300, large_px=500, width_px=4, thin_px=3)


def print_of(*objects, side=400, **changes):
    """A fingerprint of 40 pictures of so many pixels a side with these classes beside the ground."""
    values = {
        "pictures": 40, "height": (side,) * 3, "width": (side,) * 3, "shorter_side": (side,) * 3, "light": 0.1,
        "tint": 0.1, "largest_share": 0.9, "measured_widths": True,
    }  # fmt: skip
    return Fingerprint(**{**values, **changes}, classes=(GROUND, *objects))


def planned(fingerprint, machine=None, **asked):
    machine = machine or Machine(memory=16 << 30)
    return plan(fingerprint, {"data": "mine", **asked}, machine, pictures=40, held_out=8)


def train(*arguments):
    return CliRunner().invoke(app, ["train", *map(str, arguments)])


# The fingerprint


def exact_widths(shape):
    """The definition of `widths`, point by point."""
    inside = np.repeat(np.repeat(shape, 2, 0), 2, 1)
    h, w = inside.shape
    outside = np.argwhere(~inside)
    distance = np.zeros((h, w))
    for y, x in np.argwhere(inside):
        distance[y, x] = np.sqrt(((outside - (y, x)) ** 2).sum(1)).min()
    found = []
    for y, x in np.argwhere(inside):
        around = distance[max(0, y - 1) : y + 2, max(0, x - 1) : x + 2]
        to_border = min(y + 1, x + 1, h - y, w - x)
        if around.max() <= distance[y, x] <= to_border:
            found.append(distance[y, x])
    return sorted(found)


def test_widths_are_those_of_the_slow_definition():
    draw = np.random.default_rng(3)
    rows, columns = np.mgrid[:18, :20]
    shapes = [draw.random((12, 13)) < share for share in (0.3, 0.6, 0.9)]
    shapes += [np.hypot(rows - 8, columns - 9) < 6, abs(rows - columns) < 2]
    for shape in shapes:
        assert np.allclose(sorted(widths(shape)), exact_widths(shape))


def test_a_bar_is_as_wide_as_it_has_pixels():
    for pixels in range(1, 8):
        bar = np.zeros((40, 40), bool)
        bar[12 : 12 + pixels] = True
        assert set(widths(bar)) == {pixels}
    assert widths(np.ones((9, 9), bool)).size == 0  # goes on for all one knows


def test_parts_that_a_window_cuts_do_not_count():
    mask = np.zeros((900, 900), bool)
    mask[440:450, 440:460] = True  # whole
    mask[:, 300] = True  # goes through the window
    areas, across = looked_at(mask)
    assert areas.tolist() == [200]
    assert {1.0, 10.0} <= set(across)


def drawn_pairs(count, *, light=0.0, seed=0):
    """Pictures (120, 160) with two bars 3 px wide, and how much brighter each one is."""
    draw = np.random.default_rng(seed)
    for _ in range(count):
        ids = np.zeros((120, 160), np.uint8)
        ids[30:33, 10:150] = ids[10:110, 80:83] = 1
        image = (
            np.array([(80, 90, 100), (160, 60, 60)])[ids]
            + draw.normal(0, light)
            + draw.normal(0, 4, (120, 160, 1))
        )
        yield image.clip(0, 255).astype(np.uint8), ids


def measured(pairs, classes=("ground", "bar")):
    measuring = Measuring(LabelSet.of(classes), 255, 10)
    for image, ids in pairs:
        measuring.add(image, ids)
    return measuring.done()


def test_the_fingerprint_says_what_was_drawn():
    found = measured(drawn_pairs(10))
    ground, bar = found.classes
    assert (found.pictures, found.height, found.shorter_side, found.grey) == (
        10,
        (120,) * 3,
        (120,) * 3,
        False,
    )
    assert (bar.width_px, bar.thin_px, bar.shown, found.ground) == (3, 3, 1, 0)
    assert bar.share == pytest.approx((3 * 140 + 3 * 100 - 9) / (120 * 160))
    assert bar.size_px == pytest.approx(math.sqrt(3 * 140 + 3 * 100 - 9))
    assert ground.size_px is None
    assert found.light < 0.005
    assert found.value_range is None
    assert measured(drawn_pairs(10, light=40)).light > 0.08
    assert json.loads(json.dumps(found.to_dict()))["classes"][1]["name"] == "bar"


def test_twelve_bits_give_a_range_of_values():
    pairs = [((image[..., 0].astype(np.uint16) * 16), ids) for image, ids in drawn_pairs(4)]
    found = measured(pairs)
    low, high = found.value_range
    values = np.concatenate([image.reshape(-1) for image, _ in pairs])
    assert low == pytest.approx(np.percentile(values, 0.5), rel=0.05)
    assert high == pytest.approx(np.percentile(values, 99.5), rel=0.05)
    assert found.grey


def test_check_and_train_measure_the_pictures_to_learn_from(tmp_path):
    data = open_data(draw_folder(tmp_path / "mine", 10))
    learned, held_out, _ = divided(data, None)
    found = examine(data).fingerprint
    assert found.pictures == len(learned) == 10 - len(held_out)
    assert [c.name for c in found.classes] == ["ground", "disc", "square"]
    assert found.classes[2].width_px == 20
    assert measure(data) == found


def test_check_prints_what_it_measured_and_what_follows(tmp_path):
    result = CliRunner().invoke(app, ["check", str(draw_folder(tmp_path / "mine", 10))])
    assert result.exit_code == 0
    lines = result.stdout.splitlines()
    assert any(line.startswith("measured on 8 pictures to learn from: 64 x 80 px") for line in lines)
    assert any(line.startswith("square: ") and "20.0 px wide" in line for line in lines)
    assert "train would take: size: own size, no shrinking: shorter sides are 64 px" in lines
    found = json.loads(CliRunner().invoke(app, ["check", str(tmp_path / "mine"), "--json"]).stdout)
    assert found["fingerprint"]["classes"][2]["width_px"] == 20


# The plan


def test_thin_things_keep_pictures_at_their_own_size():
    config = planned(print_of(VESSEL, side=1500))
    assert config.image_size == 0
    assert config.reasons["image_size"].startswith("own size, no shrinking: 'vessel' is 3.0 px wide")
    assert config.augment["scale"][0] >= 0.8


def test_large_pictures_of_large_things_are_shrunk():
    config = planned(print_of(PERSON, side=1500))
    assert config.image_size == 512
    assert "shrunk from 1500 px" in config.reasons["image_size"]
    tiny = ClassMeasure("bead", 0.01, 1.0, size_px=20, large_px=24, width_px=20, thin_px=18)
    assert planned(print_of(PERSON, tiny, side=1500)).image_size == 0


def test_without_widths_nothing_is_shrunk():
    bare = ClassMeasure("person", 0.3, 1.0)
    config = planned(print_of(bare, side=1500, measured_widths=False))
    assert config.image_size == 0
    assert "nothing was measured" in config.reasons["image_size"]


def test_crops_are_as_large_as_things_ask_for_and_pictures_allow():
    bead = ClassMeasure("bead", 0.2, 1.0, size_px=20, large_px=36, width_px=20, thin_px=18)
    assert planned(print_of(PERSON)).augment["crop_hw"] == [192, 192]
    assert planned(print_of(bead)).augment["crop_hw"] == [160, 160]
    assert planned(print_of(VESSEL)).augment["crop_hw"] == [160, 160]  # ten widths of it
    assert planned(print_of(PERSON, side=100)).augment["crop_hw"] == [128, 128]
    assert planned(print_of(PERSON, side=1500), Machine(gpu=True)).augment["crop_hw"] == [256, 256]


def test_one_fixed_camera_gets_less_change_of_colour():
    steady = planned(print_of(PERSON, light=0.01, tint=0.005))
    varied = planned(print_of(PERSON, light=0.01, tint=0.05))
    assert steady.augment["colour"] == varied.augment["colour"] == 0.5
    assert steady.augment["colour_amount"] < varied.augment["colour_amount"]
    assert "one fixed camera, little is enough" in steady.reasons["augment.colour_amount"]
    assert "more than where" in varied.reasons["augment.colour_amount"]


def test_rare_classes_are_sampled_more_often():
    rare = ClassMeasure("tumour", 0.002, 0.1, size_px=20, large_px=30, width_px=20, thin_px=18)
    config = planned(print_of(PERSON, rare))
    assert config.augment["on_object"] > 0
    assert "'tumour' has 0.2% of the pixels" in config.reasons["augment.on_object"]
    assert config.class_balanced
    assert "only 10% of the pictures show 'tumour'" in config.reasons["class_balanced"]
    common = planned(print_of(PERSON))
    assert (common.augment["on_object"], common.class_balanced) == (0.0, False)
    roads = [planned(print_of(replace(VESSEL, share=share))) for share in (0.09, 0.15, 0.2)]
    assert [config.augment["on_object"] for config in roads] == [0.5, 0.5, 0.0]
    assert [bool(config.loss_options) for config in roads] == [True, False, False]


def test_the_rule_on_one_class_of_a_crop_stands_where_pictures_allow_it():
    assert planned(print_of(PERSON, largest_share=0.9)).augment["largest_share"] == 1.0
    assert planned(print_of(PERSON, largest_share=0.5)).augment["largest_share"] == 0.75


def test_the_machine_decides_on_encoder_batch_and_crop():
    small, large = planned(print_of(PERSON)), planned(print_of(PERSON), Machine(gpu=True, memory=80 << 30))
    assert (small.encoder, small.batch_size) == ("resnet18", 4)
    assert (large.encoder, large.batch_size) == ("resnet34", 8)
    tight = planned(print_of(PERSON), Machine(memory=350 << 20))
    assert tight.batch_size < 4
    assert "of memory" in tight.reasons["batch_size"]


def test_small_things_need_no_coarse_stage():
    assert planned(print_of(VESSEL)).model_options == {"encoder_depth": 4}
    large = planned(print_of(PERSON))
    assert large.model_options == {}
    assert "stride of 32" in large.reasons["model_options"]


def test_precision_and_learning_rate_follow_machine_and_weights():
    assert planned(print_of(PERSON)).precision == "float32"
    assert planned(print_of(PERSON), Machine(bfloat16=True)).precision == "bfloat16"
    settled = {"pictures": 40, "held_out": 8}
    random, fetched = (
        plan(print_of(PERSON), {"data": "mine"}, Machine(), **settled, weights=w) for w in (None, "imagenet")
    )
    assert (random.peak_lr, random.weights) == (2e-3, None)
    assert (fetched.peak_lr, fetched.weights) == (1e-3, "imagenet")
    assert planned(print_of(PERSON), weights=None).peak_lr == 2e-3
    fifteen = planned(print_of(*[PERSON] * 15), weights=None)
    sixteen = planned(print_of(*[PERSON] * 16), weights=None)
    assert (fifteen.peak_lr, sixteen.peak_lr) == (2e-3, 4e-3)
    assert planned(print_of(*[PERSON] * 16), weights="imagenet").peak_lr == 1e-3


def test_dice_is_of_the_one_class_that_is_looked_for():
    two = planned(print_of(replace(VESSEL, share=0.09)))
    assert two.losses == {"dice": 1.0}
    assert two.loss_options == {"dice": {"classes": [1], "absent": "area"}}
    assert "'vessel' alone" in two.reasons["loss_options"]
    assert planned(print_of(VESSEL, PERSON)).loss_options == {}
    assert planned(print_of(PERSON)).loss_options == {}  # it fills much of the pictures: so does the ground
    settled = {"pictures": 40, "held_out": 8}
    overlapping = plan(print_of(VESSEL), {"data": "mine"}, Machine(), **settled, regions=True)
    assert (overlapping.losses, overlapping.loss_options) == ({"cross_entropy": 1.0, "dice": 1.0}, {})


def test_options_override_single_decisions_and_reasons_say_so():
    free = planned(print_of(VESSEL, side=1500))
    asked = planned(print_of(VESSEL, side=1500), batch_size=2, augment={"colour": 0.1}, peak_lr=3e-4, seed=7)
    assert (asked.batch_size, asked.augment["colour"], asked.peak_lr, asked.seed) == (2, 0.1, 3e-4, 7)
    for name in ("batch_size", "augment.colour", "peak_lr", "seed"):
        assert asked.reasons[name] == "as asked for"
    assert {k: v for k, v in asked.augment.items() if k != "colour"} == {
        k: v for k, v in free.augment.items() if k != "colour"
    }
    shrunk = planned(print_of(VESSEL, side=1500), image_size=384)
    assert (shrunk.image_size, shrunk.augment["crop_hw"]) == (384, [384, 384])
    assert "becomes 0.8: --crop leaves pictures at their own size" in shrunk.reasons["image_size"]
    cropped = planned(print_of(PERSON, side=1500), crop=320)
    assert (cropped.image_size, cropped.augment["crop_hw"]) == (0, [320, 320])
    with pytest.raises(InputError, match=r"--crop .* and --image-size .*: give one of them"):
        planned(print_of(PERSON), crop=320, image_size=320)


def test_steps_come_from_pictures_options_or_a_budget():
    free = planned(print_of(PERSON, side=192))
    assert (free.steps, free.epochs) == (500, None)
    assert planned(print_of(PERSON), steps=7).steps == 7
    assert planned(print_of(PERSON), epochs=3).epochs == 3
    budget = plan(
        print_of(PERSON), {"data": "mine"}, Machine(), pictures=40, held_out=8, steps=99, because="a budget"
    )
    assert (budget.steps, budget.reasons["steps"]) == (99, "a budget")
    assert steps_within(0.1, 1.0, 5.0) == 1


@pytest.mark.parametrize(("a_step", "a_validation"), [(1.0, 5.0), (0.25, 0.0), (0.01, 3.0), (2.0, 40.0)])
def test_a_budget_is_filled_and_not_overrun(a_step, a_validation):
    def takes(steps):  # the steps, the validations, and the scoring at the end
        return steps * a_step + (validations(steps) + 1) * a_validation

    for seconds in (150.0, 600.0, 36000.0):
        steps = steps_within(seconds, a_step, a_validation)
        assert takes(steps) <= seconds < takes(steps + 1)


@pytest.mark.parametrize(
    ("text", "seconds"), [("90s", 90), ("20min", 1200), ("1.5h", 5400), ("3", 180), ("2 m", 120)]
)
def test_a_budget_is_a_time(text, seconds):
    assert parse_budget(text) == seconds


@pytest.mark.parametrize("text", ["", "soon", "-3min", "0", "1e9h", "3 days"])
def test_what_is_no_time_is_refused(text):
    with pytest.raises(InputError, match="such as 90s, 20min or 2h"):
        parse_budget(text)


length = st.none() | st.floats(0.5, 5000)
measures = st.builds(
    ClassMeasure, st.text(min_size=1, max_size=40), st.floats(0, 1), st.floats(0, 1), length, length, length, length
)  # fmt: skip
three = st.tuples(*[st.integers(1, 20000)] * 3)


@settings(max_examples=60, deadline=None)
@given(
    fingerprint=st.builds(
        Fingerprint, st.integers(0, 10**6), three, three, three,
        st.none() | st.just((100.0, 4000.0)), st.booleans(), st.floats(0, 1), st.floats(0, 1), st.floats(0, 1),
        st.booleans(), st.lists(measures, max_size=5).map(tuple),
    ),
    machine=st.builds(Machine, st.booleans(), st.integers(1, 128), st.integers(0, 1 << 40), st.booleans()),
    pictures=st.integers(1, 10**5), held_out=st.integers(1, 10**4), steps=st.none() | st.integers(1, 10**6),
)  # fmt: skip
def test_every_plan_is_a_configuration_that_is_valid_and_says_why(
    fingerprint, machine, pictures, held_out, steps
):
    config = plan(
        fingerprint,
        {"data": "mine"},
        machine,
        pictures=pictures,
        held_out=held_out,
        steps=steps,
        because="so",
    )
    assert TrainConfig.from_json(config.to_json()).differs(config) == ""
    assert config.batch_size <= max(pictures, 2)
    assert 0 <= config.warmup_steps < config.steps
    assert 0 < config.validate_every <= config.steps
    assert min(config.augment["crop_hw"]) >= 32
    Augment(**{k: tuple(v) if isinstance(v, list) else v for k, v in config.augment.items()})
    assert all(config.reasons.values())
    lines = table(config, 80).splitlines()
    assert len(lines) >= len(config.reasons)
    assert "\n".join(lines).count("\x1b") == 0


def test_a_table_fits_its_width():
    for width in (80, 100, 140):
        assert max(map(len, table(planned(print_of(VESSEL)), width).splitlines())) <= width


def test_what_a_configuration_leaves_open_means_the_same_as_ever():
    assert [usual_size([side]) for side in (10, 333, 480, 5000)] == [64, 320, 480, 512]


# Crops about objects


def test_crops_about_objects_show_them():
    mask = np.zeros((400, 400), np.uint8)
    mask[300:304, 40:44] = 1
    sample = Sample(np.zeros((400, 400, 3), np.uint8), mask, "one")
    torch.manual_seed(0)
    about = Augment((64, 64), (1.0, 1.0), on_object=1.0, largest_share=1.0)
    assert all((about(sample)["mask"] == 1).any() for _ in range(20))
    anywhere = Augment((64, 64), (1.0, 1.0), largest_share=1.0)
    assert sum(bool((anywhere(sample)["mask"] == 1).any()) for _ in range(20)) < 5
    empty = Sample(sample.image, np.zeros_like(mask), "none")
    assert about(empty)["mask"].shape == (64, 64)


def test_without_crops_about_objects_the_draws_are_those_of_before():
    sample = Sample(np.zeros((50, 60, 3), np.uint8), np.eye(50, 60, dtype=np.uint8), "a")
    torch.manual_seed(5)
    torch.rand(())  # the scale
    torch.rand(())  # the flip
    spans = Span.draw(50, 32, 1.0), Span.draw(60, 32, 1.0)
    torch.manual_seed(5)
    mask = Augment((32, 32), (1.0, 1.0), flip=0.0, largest_share=1.0, colour=0.0)(sample)["mask"]
    assert np.array_equal(mask, sample.mask[spans[0].source, spans[1].source])


def test_a_pixel_that_a_crop_is_about_lies_in_its_middle_half():
    torch.manual_seed(0)
    for about in (0, 30, 150, 299):
        for _ in range(50):
            span = Span.draw(300, 64, 1.0, about)
            assert 0 <= span.start <= 300 - 64
            if 48 <= about < 252:
                assert 16 <= about - span.start < 48


def test_a_rule_that_no_crop_fulfils_is_said():
    mask = np.zeros((64, 64), np.uint8)
    samples = [Sample(np.zeros((64, 64, 3), np.uint8), mask, "plain")] * 4
    config = TrainConfig(steps=1, augment={"crop_hw": [32, 32]}, image_size=0)
    from pixelwise.inference.preprocess import Preprocess

    augment = make_augmentation(config, Preprocess(), 255, samples)
    said = unfulfilled_rule(augment, samples)
    assert said.startswith(
        "the rule that no class fills 75% of a crop (largest_share) cannot be fulfilled in 4 of 4"
    )
    halves = np.repeat(np.arange(64, dtype=np.uint8)[:, None] // 8 % 2, 64, axis=1)
    assert unfulfilled_rule(augment, [Sample(samples[0].image, halves, "striped")] * 4) == ""


# As typed


TINY = ("--model", "unet", "--encoder", "none", "--steps", "3", "--workers", "0", "--batch-size", "2")


@pytest.fixture
def folder(tmp_path):
    return draw_folder(tmp_path / "mine", 8)


@pytest.fixture
def small(monkeypatch):
    """Plans of a tiny network."""
    true = start.plan

    def narrow(fingerprint, given, *args, **kwargs):
        return true(fingerprint, {"model_options": {"width": 4}, **given}, *args, **kwargs)

    monkeypatch.setattr(start, "plan", narrow)


def test_a_dry_run_prints_the_plan_and_writes_nothing(folder, tmp_path, small):
    found = sorted(tmp_path.rglob("*"))
    result = train("--data", folder, "--dry-run", *TINY)
    assert result.exit_code == 0, result.exception
    rows = result.stdout.splitlines()
    assert any(row.startswith("steps") and row.endswith("as asked for") for row in rows)
    assert any(row.startswith("crop_hw") and "shorter side is 64 px" in row for row in rows)
    assert sorted(tmp_path.rglob("*")) == found
    result = train("--data", folder, "--dry-run", "--json", *TINY)
    config = TrainConfig.from_json(result.stdout)
    assert (config.steps, config.image_size, config.augment["crop_hw"]) == (3, 0, [64, 64])


def test_what_goes_together_is_said_in_a_sentence(folder, tmp_path):
    for words, says in (
        (("--data", folder), "--out says where the run goes"),
        (("--data", folder, "--dry-run", "--resume"), "leave out --resume"),
        (("--data", folder, "--out", tmp_path / "run", "--json"), "give both"),
        (("--data", folder, "--out", tmp_path / "run", "--budget", "soon"), "such as 90s, 20min or 2h"),
        (
            ("--data", folder, "--out", tmp_path / "run", "--budget", "3min", "--steps", "3"),
            "leave out --steps",
        ),
        (("--data", folder, "--dry-run", "--crop", "64", "--image-size", "64"), "give one of them"),
        (("--dry-run",), "give it with --data"),
    ):
        error = train(*words).exception
        assert isinstance(error, InputError), words
        assert says in str(error)
        assert "\n" not in str(error)


def test_a_budget_sets_the_steps_and_what_was_measured_is_frozen(folder, tmp_path, small, monkeypatch):
    monkeypatch.setattr("pixelwise.training.probes.estimate", lambda *_: Cost(1.0, 0))
    monkeypatch.setattr("pixelwise.training.validation.seconds_of", lambda *_: 0.0)
    words = ("--data", folder, "--model", "unet", "--encoder", "none", "--workers", "0", "--batch-size", "2")
    result = train(*words, "--out", tmp_path / "one", "--budget", "5s")
    assert result.exit_code == 0, result.exception
    one = TrainConfig.from_json(tmp_path / "one" / "config.json")
    assert one.steps == 5
    assert "a step took 1 s here" in one.reasons["steps"]
    assert "steps" in result.stderr

    monkeypatch.setattr("pixelwise.training.probes.estimate", lambda *_: Cost(99.0, 0))  # a busy machine
    result = train("--config", tmp_path / "one" / "config.json", "--out", tmp_path / "two")
    assert result.exit_code == 0, result.exception
    assert TrainConfig.from_json(tmp_path / "two" / "config.json") == one
    losses = [
        [line["loss"] for line in read_metrics(tmp_path / run / "metrics.jsonl") if "loss" in line]
        for run in ("one", "two")
    ]
    assert losses[0] == losses[1]
    longer = train("--config", tmp_path / "one" / "config.json", "--dry-run", "--json", "--budget", "200s")
    assert TrainConfig.from_json(longer.stdout).steps == 2


def test_python_plans_as_the_command_does(folder, tmp_path, small):
    said: list[str] = []
    pixelwise.train(
        folder, tmp_path / "run", encoder=None, steps=2, workers=0, batch_size=2, crop=32, say=said.append
    )
    config = TrainConfig.from_json(tmp_path / "run" / "config.json")
    assert (config.image_size, config.augment["crop_hw"]) == (0, [32, 32])
    assert any(line.startswith("crop_hw") and line.endswith("as asked for") for line in said)


def test_options_beside_a_configuration_are_reasons_too(folder, tmp_path, small):
    (tmp_path / "plan.json").write_text(train("--data", folder, "--dry-run", "--json", *TINY).stdout)
    result = train("--config", tmp_path / "plan.json", "--dry-run", "--json", "--lr", "0.02", "--crop", "32")
    config = TrainConfig.from_json(result.stdout)
    assert (config.peak_lr, config.augment["crop_hw"]) == (0.02, [32, 32])
    assert config.reasons["peak_lr"] == "as asked for"


def test_a_configuration_from_before_loads_and_means_the_same():
    old = {"steps": 3, "data": "mine", "image_size": 64, "augment": {"colour": 0.0}}
    config = TrainConfig.from_dict(old)
    assert (config.reasons, config.value_range) == ({}, None)
    assert config.differs(TrainConfig(**old)) == ""
    assert config.differs(config.replace(reasons={"steps": "why"})) == ""


def test_a_picture_of_more_bits_is_measured_as_it_is(tmp_path):
    root = draw_folder(tmp_path / "mine", 6)
    for path in Path(root / "images").iterdir():
        grey = np.asarray(Image.open(path).convert("L")).astype(np.uint16) * 16
        Image.fromarray(grey).save(path)
    found = measure(open_data(root))
    assert found.value_range is not None
    assert 500 < found.value_range[0] < found.value_range[1] < 4096
    assert planned(found).value_range == found.value_range


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        (("--steps", 0), "steps must be above 0, got 0"),
        (("--epochs", "nan"), "epochs is nan, expected a number"),
        (("--epochs", "inf"), "epochs is inf, expected a number"),
        (("--batch-size", 0), "batch_size must be above 0, got 0"),
        (("--accumulate", 0), "accumulate must be above 0, got 0"),
        (("--image-size", 1), "image_size must be 0 (pictures as they are) or at least 32 pixels, got 1"),
        (
            ("--crop", 4096),
            "crops of 4096 px are larger than the pictures, of 64 x 80 px (h x w): use --crop 96",
        ),
        (("--batch-size", 100000), "a batch of 100000 pictures is larger than the 6 there are to learn from"),
        (("--losses", "dice=-1"), "the weight of the loss dice must be a finite number above 0, got -1"),
        (("--losses", "dice=nan"), "losses.dice is nan, expected a number"),
    ],
)
def test_values_out_of_range_are_refused_in_one_sentence_before_a_plan_is_made(tmp_path, asked, says):
    data = draw_folder(tmp_path / "mine", 8)
    quick = ("--model", "unet", "--encoder", "resnet18", "--weights", "none", "--no-check")
    error = train("--data", data, "--dry-run", *quick, *asked).exception
    assert isinstance(error, InputError)
    assert says in str(error)
    assert "\n" not in str(error)

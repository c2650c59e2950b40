"""`pixelwise train` as a user runs it: what it writes, what it refuses, and the four commands of the guide."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load, load_file
from typer.testing import CliRunner

import pixelwise
from drawn import draw_folder
from pixelwise.checkpoints.loading import from_checkpoint
from pixelwise.checkpoints.saving import save
from pixelwise.cli.app import app
from pixelwise.datasets.opening import split_by_name
from pixelwise.errors import DownloadError, InputError, WeightsError
from pixelwise.segmenter import Segmenter
from pixelwise.training.config import TrainConfig
from pixelwise.training.experiment import experiment_of
from pixelwise.training.probes import Cost
from pixelwise.training.progress import read_metrics
from pixelwise.training.start import prepared
from pixelwise.weights.card import Card

GUIDE = Path(__file__).parents[1] / "docs" / "train_your_own.md"
TINY = {
    "steps": 3,
    "batch_size": 2,
    "model": "unet",
    "model_options": {"width": 4},
    "image_size": 64,
    "workers": 0,
}


def train(*arguments):
    """The command in this process; its result, with `exception` for what it raised."""
    return CliRunner().invoke(app, ["train", *map(str, arguments)])


def configured(folder, data, **changes):
    path = folder / "wanted.json"
    path.write_text(json.dumps({**TINY, "data": str(data), **changes}))
    return path


def refused(result, *says):
    """One sentence that says all of this, and the exit code of bad input."""
    error = result.exception
    assert isinstance(error, InputError), result.output
    assert error.exit_code == 2
    assert "\n" not in str(error)
    for words in says:
        assert words in str(error)


@pytest.fixture
def folder(tmp_path):
    return draw_folder(tmp_path / "mine", 8)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """The folder of a short run on pictures drawn alike, elsewhere."""
    place = tmp_path_factory.mktemp("made")
    wanted = configured(place, draw_folder(place / "mine", 8))
    result = train("--config", wanted, "--out", place / "run")
    assert result.exit_code == 0, result.exception
    return place / "run"


@pytest.fixture
def done(made, folder, tmp_path):
    """The folder of a short run on `folder`."""
    shutil.copytree(made, tmp_path / "run")
    config = json.loads((made / "config.json").read_text())
    (tmp_path / "run" / "config.json").write_text(json.dumps({**config, "data": str(folder)}))
    return tmp_path / "run"


def test_a_run_leaves_weights_with_a_card_a_report_and_its_configuration(done, folder, monkeypatch):
    names = "best.pt card.json checkpoint.pt config.json confusion.png data.json metrics.jsonl report.html "
    names += "weights.safetensors"
    found = {path.name for path in done.iterdir()}
    assert found - {"curves.png"} == set(names.split())
    network = from_checkpoint(done / "weights.safetensors")
    best = torch.load(done / "best.pt", weights_only=True)
    assert all(torch.equal(value, best["state_dict"][name]) for name, value in network.state_dict().items())

    segmenter = Segmenter(network, engine="pytorch")  # names and preprocessing came with the file
    card = segmenter.card
    assert card == Card.from_dict(json.loads((done / "card.json").read_text()))
    assert card.labels.names == ("ground", "disc", "square")
    assert card.parameters == sum(parameter.numel() for parameter in network.parameters())
    assert card.multiply_adds > 1e6
    steps = json.loads((done / "config.json").read_text())["steps"]
    assert card.notes[-1] == (
        f"Trained for {steps} steps, and kept as it was at the best mean IoU on the held-out pictures; the "
        "configuration is in config.json beside the weights."
    )
    scores = [line["score"] for line in read_metrics(done / "metrics.jsonl") if "score" in line]
    assert card.scores[0].metric == "mean IoU"
    assert card.scores[0].value == pytest.approx(max(scores))  # in the run and after it, by one path
    picture = folder / "images" / "drawn03.png"
    answer = segmenter(picture)
    assert set(answer.areas()) <= {"ground", "disc", "square"}
    assert answer.labels.shape == (64, 80)
    page = (done / "report.html").read_text()
    for wanted in ("disc", "Worst, median and best", "Curves", "Mean IoU of validations by step", "Settings"):
        assert wanted in page
    held_out = len(split_by_name([path.stem for path in (folder / "images").iterdir()])[1])
    part = f"{held_out} of 8 pictures, those that were held out and not trained on"
    assert page.count(f"mine: {part}") == 2  # above the scores, and beside the protocol


def test_a_model_is_scored_on_what_it_was_not_trained_on_unless_more_is_asked_for(done, folder, tmp_path):
    """On the folder that its card names; on another one all there is, as of any model."""
    held_out = sorted(split_by_name([path.stem for path in (folder / "images").iterdir()])[1])

    def evaluated(*more, data=folder, out=None):
        command = ["evaluate", "--data", str(data), "--model", str(done), *more]
        result = CliRunner().invoke(app, [*command, *(("--out", str(tmp_path / out)) if out else ())])
        assert result.exit_code == 0, result.exception
        return result

    usual = evaluated(out="usual")
    part = (
        f"{len(held_out)} of 8 pictures, those that were held out when the model was trained on this folder"
    )
    assert f"scored: {part}\n" in usual.stdout
    assert "--split all scores all" in usual.stderr
    assert "measured when it was made" not in usual.stdout  # the score of its card is this one
    assert "published" not in usual.stdout
    assert f"mine, val: {part}" in (tmp_path / "usual" / "report.html").read_text(encoding="utf-8")
    rows = json.loads((tmp_path / "usual" / "report.json").read_text())["by_picture"]
    assert sorted(row["name"] for row in rows) == held_out
    every = evaluated("--split", "all")
    learned = 8 - len(held_out)
    flatter = "of the part that the model was trained on: their scores flatter it"
    assert f"scored: all 8 pictures, {learned} {flatter}" in every.stdout
    assert "--split val scores those that the model was not trained on" in every.stderr
    assert "measured when it was made: mean IoU" in every.stdout
    assert f"scored: {learned} of 8 pictures, all {flatter}" in evaluated("--split", "train").stdout
    said = evaluated("--split", "val")
    assert (f"scored: {part}\n" in said.stdout, said.stderr) == (True, "")
    other = shutil.copytree(folder, tmp_path / "other")
    assert "scored: all 8 pictures\n" in evaluated(data=other).stdout


def test_curves_are_drawn_where_matplotlib_is(done):
    pytest.importorskip("matplotlib", reason="matplotlib is not installed")
    with Image.open(done / "curves.png") as picture:
        assert len(np.unique(np.asarray(picture).reshape(-1, picture.mode.count("A") + 3), axis=0)) > 50


def test_python_trains_as_the_command_does(done, folder, tmp_path):
    config = TrainConfig.from_json((done / "config.json").read_text())
    said: list[str] = []
    card = pixelwise.train(folder, tmp_path / "two", config=done / "config.json", say=said.append)
    assert any(line.startswith("3 classes, ") for line in said)
    assert TrainConfig.from_json((tmp_path / "two" / "config.json").read_text()) == config
    assert card == Card.from_dict(json.loads((done / "card.json").read_text()))
    ours, theirs = (from_checkpoint(run / "weights.safetensors") for run in (tmp_path / "two", done))
    assert all(torch.equal(ours.state_dict()[key], tensor) for key, tensor in theirs.state_dict().items())
    with pytest.raises(InputError, match="holds a run already"):
        pixelwise.train(folder, tmp_path / "two", config=config)
    with pytest.raises(InputError, match="holds a run with model 'unet', not 'fpn'"):
        pixelwise.train(folder, tmp_path / "two", resume=True, model="fpn")


def test_python_trains_with_the_defaults_of_the_command(folder, tmp_path):
    fields = {**TINY, "encoder": None}  # U-Net itself, where the default is a decoder on an encoder
    card = pixelwise.train(folder, tmp_path / "run", **fields, say=lambda _: None)
    config = TrainConfig.from_json((tmp_path / "run" / "config.json").read_text())
    assert config.channels_last
    assert (config.data, config.weights, config.steps) == (str(folder), None, 3)
    assert card.labels.names == ("ground", "disc", "square")
    for name in ("everyday", "nuclei"):
        with pytest.raises(
            InputError, match=f"{name} is a trained model, and a run begins with an architecture"
        ):
            pixelwise.train(folder, tmp_path / name, model=name, steps=1, workers=0)


def test_a_finished_run_is_neither_overwritten_nor_mixed_up(done, folder, tmp_path):
    losses = [line["loss"] for line in read_metrics(done / "metrics.jsonl") if "loss" in line]
    refused(train("--data", folder, "--out", done), "holds a run already", "--resume")
    refused(train("--out", done, "--resume", "--model", "fpn"), "model 'unet', not 'fpn'")
    other = configured(tmp_path, folder, seed=5)
    refused(train("--config", other, "--out", done, "--resume"), "holds a run with seed 0, not 5")
    refused(train("--out", tmp_path / "elsewhere", "--resume"), "no run", "leave out --resume")
    assert train("--out", done, "--resume", "--workers", 0).exit_code == 0
    assert [line["loss"] for line in read_metrics(done / "metrics.jsonl") if "loss" in line] == losses


def warned(result):
    """What a run that went on says of its data."""
    assert result.exit_code == 0, result.exception
    found = re.findall(
        r"warning: the data have changed since this run began or last went on: (.*)", result.output
    )
    assert len(found) <= 1
    return found[0] if found else ""


def test_a_run_that_goes_on_says_what_has_changed_about_its_data(done, folder):
    learned, held = split_by_name([path.stem for path in (folder / "images").iterdir()])
    for name in (learned[0], held[0]):
        mask = folder / "masks" / f"{name}.png"
        ids = np.asarray(Image.open(mask))
        Image.fromarray(2 - ids).save(mask)
    (folder / "classes.txt").write_text("ground\ndisk\nsquare\n")
    assert warned(train("--out", done, "--resume", "--steps", 4)) == (
        f"1 label map to learn from changed ({learned[0]}); 1 label map to validate on changed ({held[0]}); class 1 is "
        "called disk, not disc; it goes on with them, and scores from here on are not of the same label maps as those "
        "before"
    )
    assert before_going_on(done) == ""


def test_the_best_so_far_is_scored_again_where_label_maps_to_validate_on_have_changed(done, folder):
    """Else no later weights might reach what the others scored by labels that were mended since."""
    before = torch.load(done / "checkpoint.pt", weights_only=True)["best"]
    for name in split_by_name([path.stem for path in (folder / "images").iterdir()])[1]:
        mask = folder / "masks" / f"{name}.png"
        Image.fromarray((np.asarray(Image.open(mask)) + 1) % 3).save(mask)
    assert "to validate on changed" in warned(train("--out", done, "--resume", "--steps", 4))
    scores = [line["score"] for line in read_metrics(done / "metrics.jsonl") if "score" in line]
    after = torch.load(done / "checkpoint.pt", weights_only=True)["best"]
    assert after != before
    assert after >= scores[-1]
    assert json.loads((done / "card.json").read_text())["scores"][0]["value"] == pytest.approx(after)


def before_going_on(out):
    """What a run that goes on says before it does."""
    said = []
    prepared({}, None, out, resume=True, check=True, say=said.append)
    return " ".join(said)


def move(name, source, target):
    for part in ("images", "masks"):
        (target / part).mkdir(parents=True, exist_ok=True)
        (source / part / f"{name}.png").rename(target / part / f"{name}.png")


def test_what_is_gone_from_the_data_is_named_and_what_is_said_to_do_helps(done, folder, tmp_path):
    learned, held = split_by_name([path.stem for path in (folder / "images").iterdir()])
    for name in learned[1:]:
        move(name, folder, tmp_path / "away")
    result = train("--out", done, "--resume")
    refused(result, "has batches of 2 pictures, more than it now has to learn from: 1 (5 pictures to learn from gone (",
            f"{', '.join(sorted(learned[1:])[:3])} and 2 more", "--batch-size 1 and another --out")  # fmt: skip
    wanted = configured(tmp_path, folder, steps=1)
    assert train("--config", wanted, "--batch-size", 1, "--out", tmp_path / "other").exit_code == 0
    for name in learned[1:]:
        move(name, tmp_path / "away", folder)
    assert before_going_on(done) == ""
    move(held[0], folder, tmp_path / "away")
    assert f"1 picture to validate on gone ({held[0]})" in before_going_on(done)
    move(held[1], folder, tmp_path / "away")
    refused(train("--out", done, "--resume"), "of the pictures that the run validated on none is in", held[0])


def test_data_that_were_moved_are_named_with_data_and_must_be_the_same(done, folder, tmp_path):
    moved = tmp_path / "moved"
    shutil.copytree(folder, moved)
    folder.rename(tmp_path / "away")
    refused(
        train("--out", done, "--resume"), f"are not at {folder} any more: say with --data where they are now"
    )
    mask = moved / "masks" / "drawn03.png"
    whole = mask.read_bytes()
    Image.fromarray(2 - np.asarray(Image.open(mask))).save(mask)
    wrong = train("--out", done, "--resume", "--data", moved)
    refused(wrong, f"{moved} does not hold the data of the run", f"which were in {folder}", "drawn03")
    mask.write_bytes(whole)
    assert warned(train("--out", done, "--resume", "--data", moved, "--steps", 4)) == ""
    assert json.loads((done / "config.json").read_text())["data"] == str(moved)
    assert evaluated("--data", moved, "--model", done) == set(
        split_by_name([f"drawn{i:02}" for i in range(8)])[1]
    )


def test_a_run_from_before_data_were_kept_goes_on(done, folder):
    (done / "data.json").unlink()
    state = torch.load(done / "checkpoint.pt", weights_only=True)
    assert state.pop("data").keys() == {"train", "val"}
    torch.save(state, done / "checkpoint.pt")
    assert before_going_on(done) == ""
    move(split_by_name([f"drawn{i:02}" for i in range(8)])[0][0], folder, folder / "away")
    assert ": 6 pictures to learn from, now 5;" in before_going_on(done)


def test_a_budget_sets_the_steps_that_are_still_to_come(done, monkeypatch):
    monkeypatch.setattr("pixelwise.training.probes.estimate", lambda *_: Cost(0.5, 0))
    monkeypatch.setattr("pixelwise.training.validation.seconds_of", lambda *_: 1.0)
    result = train(
        "--out", done, "--resume", "--budget", "5s"
    )  # two validations, and six steps after the three
    assert result.exit_code == 0, result.exception
    assert "going on after step 3 of a run of 3 steps, now to 9" in result.output
    config = json.loads((done / "config.json").read_text())
    assert config["steps"] == 9
    assert config["reasons"]["steps"] == (
        "what 5 s allow: a step took 0.5 s here, a validation 1 s; 3 were done"
    )
    refused(
        train("--out", done, "--resume", "--budget", "5s", "--steps", 20), "leave out --steps and --epochs"
    )


def test_other_classes_are_another_run(done, folder):
    (folder / "classes.txt").write_text("ground\ndisc\nsquare\nstar\n")
    refused(
        train("--out", done, "--resume"),
        "learned the classes ground, disc, square, and now there are ground, disc",
    )


def test_a_damaged_list_of_data_says_what_to_do(done):
    (done / "data.json").write_text('{"train": 5, "val": {}}')
    refused(
        train("--out", done, "--resume"),
        f"{done / 'data.json'} cannot be read (train is 5",
        "without data.json",
    )
    (done / "data.json").unlink()
    assert before_going_on(done) == ""


def test_a_run_whose_weights_are_cut_in_half_says_so_and_what_it_says_to_do_helps(done, folder):
    weights = done / "weights.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[: len(whole) // 2])
    command = ("segment", folder / "images", "--model", done, "--out", done / "out")
    refused(
        CliRunner().invoke(app, [str(word) for word in command]),
        f"{weights} are damaged or incomplete",
        "--resume",
    )
    with pytest.raises(WeightsError, match=r"incomplete .*; go on with the run, .* --out \S+ --resume$"):
        from_checkpoint(done)
    (done / "checkpoint.pt").rename(done / "kept")
    with pytest.raises(WeightsError, match=r"incomplete .*; get the file again$"):
        from_checkpoint(done)
    (done / "kept").rename(done / "checkpoint.pt")
    assert train("--out", done, "--resume", "--workers", 0).exit_code == 0
    again, before = load_file(weights), load(whole)  # whose notes come in any order
    assert again.keys() == before.keys()
    assert all(torch.equal(again[name], before[name]) for name in before)
    from_checkpoint(done)


def test_going_on_with_a_run_fetches_no_weights(folder, tmp_path, monkeypatch):
    monkeypatch.setenv("PIXELWISE_OFFLINE", "1")
    wanted = TrainConfig.from_dict({**TINY, "model_options": {}, "encoder": "resnet18", "data": str(folder)})
    with pytest.raises(DownloadError):
        experiment_of(wanted.replace(weights="imagenet"))
    experiment = experiment_of(wanted.replace(weights="imagenet"), resume=True)
    assert experiment.config.weights == "imagenet"
    said = []
    assert experiment_of(wanted.replace(weights="auto"), say=said.append).config.weights is None
    assert any("starting from random ones" in line for line in said)


def test_a_data_set_without_val_keeps_the_smaller_part_of_train_back(tmp_path):
    draw_folder(tmp_path / "mine" / "train", 12, names=False)
    (tmp_path / "mine" / "classes.txt").write_text("ground\ndisc\nsquare\n")
    experiment = experiment_of(TrainConfig.from_dict({**TINY, "data": str(tmp_path / "mine")}))
    learned, kept = split_by_name([f"drawn{i:02}" for i in range(12)])
    assert len(kept) < len(learned)
    assert [pair.name for pair in experiment.training.pairs] == learned
    assert [pair.name for pair in experiment.held_out.pairs] == kept


def evaluated(*arguments):
    """The names of the pictures that `pixelwise evaluate` scores."""
    result = CliRunner().invoke(app, ["evaluate", *map(str, arguments), "--json"])
    assert result.exit_code == 0, result.exception
    return {row["name"] for row in json.loads(result.stdout)["worst"]}


def test_a_run_is_scored_on_what_it_held_out_also_after_pictures_were_added(done, folder, tmp_path):
    names = [f"drawn{i:02}" for i in range(8)]
    learned, kept = split_by_name(names)
    assert len(kept) == 2
    assert evaluated("--data", folder, "--split", "val", "--model", done) == set(kept)
    draw_folder(tmp_path / "more", 25)
    shutil.copytree(tmp_path / "more", folder, dirs_exist_ok=True)
    everything = [f"drawn{i:02}" for i in range(25)]
    assert set(split_by_name(everything)[1]) & set(learned)  # which a new run would hold out
    scored = evaluated("--data", folder, "--split", "val", "--model", done)
    assert set(kept) < scored
    assert not scored & set(learned)
    gone_on = train("--out", done, "--resume", "--steps", 4)
    assert gone_on.exit_code == 0, gone_on.exception
    assert "pictures more to learn from (drawn08" in gone_on.output
    assert not set(json.loads((done / "data.json").read_text())["val"]) & set(learned)


@pytest.mark.slow
def test_a_run_of_an_earlier_version_keeps_its_split(folder, tmp_path):
    """It divided at 0.2, and said so nowhere: neither in config.json, in its checkpoint nor on its card."""
    learned, kept = split_by_name([f"drawn{i:02}" for i in range(8)], 0.2)
    assert len(kept) != 2
    assert (
        train("--config", configured(tmp_path, folder, split_at=0.2), "--out", tmp_path / "run").exit_code
        == 0
    )
    run = tmp_path / "run"
    for name, key in (("config.json", "split_at"), ("card.json", "split_at")):
        values = json.loads((run / name).read_text())
        assert values.pop(key) == 0.2
        (run / name).write_text(json.dumps(values))
    state = torch.load(run / "checkpoint.pt", weights_only=True)
    config = json.loads(state["config"])
    del config["split_at"]
    torch.save({**state, "config": json.dumps(config)}, run / "checkpoint.pt")
    card = Card.from_dict({**json.loads((run / "card.json").read_text())})
    assert (card.split_at, card.border) == (None, 0.2)
    save(from_checkpoint(run), tmp_path / "old.safetensors", card=card)
    assert evaluated("--data", folder, "--split", "val", "--model", tmp_path / "old.safetensors") == set(kept)
    resumed = train("--out", run, "--resume")
    assert resumed.exit_code == 0, resumed.exception
    assert f"{len(learned)} pictures to learn from" in resumed.output
    assert json.loads((run / "card.json").read_text())["split_at"] == 0.2


@pytest.mark.slow
def test_data_with_train_and_no_val_are_scored_on_what_was_kept_back(tmp_path):
    data = draw_folder(tmp_path / "mine" / "train", 8).parent
    (data / "train" / "classes.txt").rename(data / "classes.txt")
    assert train("--config", configured(tmp_path, data), "--out", tmp_path / "run").exit_code == 0
    kept = set(split_by_name([f"drawn{i:02}" for i in range(8)])[1])
    assert evaluated("--data", data, "--split", "val", "--model", tmp_path / "run") == kept


def test_classes_without_names_are_those_of_the_masks(tmp_path):
    data = draw_folder(tmp_path / "mine", 6, names=False)
    result = train("--config", configured(tmp_path, data, steps=1), "--out", tmp_path / "run")
    assert result.exit_code == 0, result.exception
    card = json.loads((tmp_path / "run" / "card.json").read_text())
    assert card["labels"]["names"] == ["class 0", "class 1", "class 2"]


def test_an_empty_folder(tmp_path):
    (tmp_path / "images").mkdir()
    (tmp_path / "masks").mkdir()
    refused(train("--data", tmp_path, "--out", tmp_path / "run"), "no pictures")
    refused(train("--data", tmp_path / "images", "--out", tmp_path / "run"), "should hold images/ and masks/")
    refused(train("--data", tmp_path / "none", "--out", tmp_path / "run"), "no folder")
    refused(train("--out", tmp_path / "run"), "give it with --data")


def test_a_mask_without_a_picture(folder, tmp_path):
    (folder / "images" / "drawn02.png").unlink()
    refused(train("--data", folder, "--out", tmp_path / "run"), "drawn02", "no picture")


def test_an_id_that_no_class_has(folder, tmp_path):
    mask = np.asarray(Image.open(folder / "masks" / "drawn02.png")).copy()
    mask[7, 9] = 77
    Image.fromarray(mask).save(folder / "masks" / "drawn02.png")
    result = train("--config", configured(tmp_path, folder), "--out", tmp_path / "run")
    refused(result, "not safe to train", "drawn02.png", "id 77", "pixelwise check")
    result = train("--config", configured(tmp_path, folder), "--out", tmp_path / "run", "--no-check")
    refused(result, "77", "drawn02.png")


def test_a_single_picture(tmp_path):
    data = draw_folder(tmp_path / "mine", 1)
    refused(train("--data", data, "--out", tmp_path / "run"), "1 picture cannot be divided")


def test_a_batch_larger_than_the_data(folder, tmp_path):
    result = train("--config", configured(tmp_path, folder, batch_size=50), "--out", tmp_path / "run")
    refused(result, "a batch of 50 pictures is larger than the", "use --batch-size")


def test_a_configuration_with_an_unknown_key(folder, tmp_path):
    refused(
        train("--config", configured(tmp_path, folder, modle="unet"), "--out", tmp_path / "run"),
        "no 'modle'", "did you mean 'model'",
    )  # fmt: skip
    refused(
        train("--config", configured(tmp_path, folder, augment={"flipp": 0}), "--out", tmp_path / "run"),
        "no option 'flipp'", "did you mean 'flip'",
    )  # fmt: skip
    refused(train("--config", tmp_path / "no.json", "--out", tmp_path / "run"), "no.json cannot be read")


def test_an_output_folder_that_cannot_be_written(folder, tmp_path, monkeypatch):
    (tmp_path / "run").write_text("a file")
    refused(train("--data", folder, "--out", tmp_path / "run"), "is a file, not a folder")
    monkeypatch.setattr(os, "access", lambda *_: False)
    refused(train("--data", folder, "--out", tmp_path / "other"), "no permission to write")


def test_misspelt_names(folder, tmp_path):
    out = ("--out", tmp_path / "run", "--data", folder)
    refused(train(*out, "--model", "unett"), "did you mean", "'unet'")
    refused(train(*out, "--encoder", "resnet43"), "did you mean", "resnet34")
    refused(train(*out, "--model", "fpn", "--encoder", "none"), "fpn is a decoder and needs an encoder")
    options = configured(tmp_path, folder, model_options={"widht": 4})
    refused(
        train("--config", options, "--out", tmp_path / "run"), "no argument 'widht'", "did you mean 'width'"
    )
    refused(train(*out, "--losses", "dicee=1", "--weights", "none"), "did you mean 'dice'")
    refused(train(*out, "--losses", "dice"), "such as cross_entropy=1,dice=0.5")
    refused(train(*out, "--precision", "half"), "precision is 'half', expected one of 'float32'")


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"losses": {"dicee": 1.0}}, "did you mean 'dice'"),
        (
            {"loss_options": {"dice": {"smoth": 1.0}}},
            "the loss dice has no option 'smoth'; did you mean 'smooth'",
        ),
        ({"loss_options": {"dice": {"over": "imag"}}}, "did you mean 'image'"),
        ({"model": "unett"}, "did you mean 'unet'"),
        ({"model": "fpn", "model_options": {}, "encoder": "resnet43"}, "did you mean 'resnet34'"),
        ({"model_options": {"widht": 4}}, "did you mean 'width'"),
        ({"augment": {"flipp": 0}}, "did you mean 'flip'"),
        ({"format": "vocc"}, "did you mean 'voc'"),
        ({"trackers": ["tensorbord"]}, "the tracker 'tensorbord' is not installed or not known"),
        ({"model": "everyday"}, "say --model"),
        (
            {"model": "fpn", "model_options": {}, "encoder": "resnet18", "weights": "no/such.pth"},
            "there is no file no/such.pth",
        ),
    ],
)
def test_a_misspelt_name_is_found_before_data_are_read_and_weights_fetched(wrong, says, tmp_path):
    """The folder is not there, which would be said first, and with `weights` imagenet so would that no one answers."""
    changes = {"weights": "imagenet" if wrong.get("encoder") else None, "losses": {"dice": 1.0}, **wrong}
    config = configured(tmp_path, tmp_path / "nowhere", **changes)
    refused(train("--config", config, "--out", tmp_path / "run"), says)


@pytest.mark.slow
def test_one_batch_can_be_learned_by_heart(folder, tmp_path):
    result = train(
        "--config", configured(tmp_path, folder, peak_lr=1e-2), "--out", tmp_path / "run", "--overfit-batch"
    )
    assert result.exit_code == 0, result.output
    assert "can learn these labels" in result.output
    assert not (tmp_path / "run" / "checkpoint.pt").exists()


@pytest.mark.slow
def test_the_learning_rate_finder_names_a_rate_where_the_loss_falls(folder, tmp_path):
    result = train("--config", configured(tmp_path, folder), "--out", tmp_path / "run", "--find-lr")
    assert result.exit_code == 0, result.exception
    rate = float(re.search(r"pass --lr (\S+)", result.output)[1])
    assert 1e-4 < rate < 0.5
    rows = (tmp_path / "run" / "find_lr.csv").read_text().splitlines()
    assert len(rows) > 20
    assert float(rows[1].split(",")[1]) > min(float(row.split(",")[1]) for row in rows[1:])


@pytest.mark.slow
def test_launched_on_two_processes_one_of_them_speaks_and_writes(folder, tmp_path):
    launch = (
        "-m accelerate.commands.launch --multi_gpu --num_processes 2 --num_machines 1 --mixed_precision no"
    )
    launch += " --dynamo_backend no --main_process_port 0 -m pixelwise train --out run --config"
    done = subprocess.run(
        [sys.executable, *launch.split(), str(configured(tmp_path, folder, batch_size=1))],
        cwd=tmp_path, capture_output=True, text=True, timeout=300,
        env={**os.environ, "ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("the model and its report are in run") == 1
    state = torch.load(tmp_path / "run" / "checkpoint.pt", weights_only=True)
    assert (state["processes"], state["step"]) == (2, 3)


@pytest.mark.slow
def test_the_four_commands_of_the_guide_in_small(tmp_path):
    draw_folder(tmp_path / "mydata", 20)
    commands = re.findall(r"^pixelwise .*$", GUIDE.read_text(encoding="utf-8"), re.MULTILINE)
    assert [command.split()[1] for command in commands] == ["check", "train", "evaluate", "segment"]
    environment = {**os.environ, "PIXELWISE_OFFLINE": "1"}
    for command in commands:
        words = shlex.split(command)[1:]
        if words[0] == "train":
            words += ["--epochs", "12", "--encoder", "resnet18"]
        done = subprocess.run(
            [sys.executable, "-m", "pixelwise", *words],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        if words[0] == "check":
            assert "safe to train" in done.stdout
        if words[0] == "train":
            assert "starting from random" in done.stderr
        if words[0] == "evaluate":
            assert float(re.search(r"mean IoU (\S+)", done.stdout)[1]) > 0.6
    written = list((tmp_path / "masks").glob("*.labels.png"))
    assert len(written) == 20
    truth = np.asarray(Image.open(tmp_path / "mydata" / "masks" / "drawn00.png"))
    assert (np.asarray(Image.open(tmp_path / "masks" / "drawn00.labels.png")) == truth).mean() > 0.85

"""What one sees of a training run and does about it: the table, Ctrl-C, a full disk, and going on for longer."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
from contextlib import contextmanager

import numpy as np
import pytest
import torch
from rich.cells import cell_len
from typer.testing import CliRunner

from drawn import draw_folder
from pixelwise.cli.app import app
from pixelwise.errors import OutputError
from pixelwise.segmenter import Segmenter
from pixelwise.training import loop, runner
from pixelwise.training.config import TrainConfig
from pixelwise.training.draws import Draws
from pixelwise.training.optimize import learning_rate
from pixelwise.training.progress import Metrics, Progress, columns, read_metrics

WANTED = {
    "steps": 6, "batch_size": 2, "model": "unet", "model_options": {"width": 4}, "image_size": 64, "workers": 0,
    "validate_every": 2, "losses": {"cross_entropy": 1.0},
}  # fmt: skip


def train(*arguments):
    return CliRunner().invoke(app, ["train", *map(str, arguments)])


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return draw_folder(tmp_path_factory.mktemp("watched") / "data", 6)


@pytest.fixture(scope="module")
def configured(data):
    """The path of a configuration with changes."""

    def path(**changes):
        file = data.parent / f"{'-'.join(map(str, changes.values())) or 'wanted'}.json"
        file.write_text(json.dumps({**WANTED, "data": str(data), **changes}))
        return file

    return path


@pytest.fixture(scope="module")
def whole(data, configured):
    """The folder of a run that nobody disturbed."""
    result = train("--config", configured(), "--out", data.parent / "whole")
    assert result.exit_code == 0, result.exception
    return data.parent / "whole"


def steps(run):
    return [
        (line["step"], line["loss"], line["lr"])
        for line in read_metrics(run / "metrics.jsonl")
        if "loss" in line
    ]


def same_weights(run, other):
    one, two = (torch.load(each / "best.pt", weights_only=True)["state_dict"] for each in (run, other))
    return all(torch.equal(one[name], two[name]) for name in one)


# The table -------------------------------------------------------------------------------------------------------

ROW = {
    "step": "1200/40000", "loss": "1.2345", "cross_entropy": "0.7000", "dice": "0.5345", "aux cross_entropy": "0.1000",
    "learning rate": "1.00e-03", "images/s": "12.3", "left": "12 min", "mean IoU": "0.7123",
    "Dice of 海马体 and whatever lies around it": "0.6543", "best mean IoU": "0.7200",
}  # fmt: skip


@pytest.mark.parametrize("width", [20, 40, 80, 120, 200])
def test_the_table_fits_the_terminal_with_every_name_and_every_value_whole(width):
    lines = columns(ROW, width)
    assert max(map(cell_len, lines)) <= width
    words = " ".join(lines).split()
    for value in ROW.values():
        assert value in " ".join(words)
    if width >= 40:
        for name in ROW:
            assert [word for word in words if word in name.split()]
            assert set(name.split()) <= set(words)
    if width == 200:
        assert len(lines) == 2


def test_the_loss_is_the_sum_of_its_parts_over_the_same_steps(capsys):
    progress = Progress(3, 0, 4, live=False)
    for done, (one, two) in enumerate([(0.5, 0.25), (0.25, 0.75), (0.75, 0.5)], start=1):
        progress.step(done, {"dice": one, "cross_entropy": two}, 1e-3)
    progress.validated(3, {"mean IoU": 0.5, "Dice of disc": 0.625}, 0.75)
    said = capsys.readouterr().err.splitlines()
    assert said[0] == "losses are means of the last 20 steps"
    assert said[1].startswith(
        "step 1/3  loss 0.7500  dice 0.5000  cross_entropy 0.2500  learning rate 1.00e-03"
    )
    assert said[2].startswith(
        "step 3/3  loss 1.0000  dice 0.5000  cross_entropy 0.5000  learning rate 1.00e-03"
    )
    assert said[3] == "step 3/3  mean IoU 0.5000  Dice of disc 0.6250  best mean IoU 0.7500"


@pytest.mark.skipif(not hasattr(os, "openpty"), reason="there are no pseudo-terminals")
def test_in_a_terminal_the_heading_stands_below_the_bar():
    """In a real one of 40 columns, as the terminal shows it in the end."""
    script = (
        "from pixelwise.training.progress import Progress; p = Progress(2, 0, 4)\n"
        "p.step(1, {'dice': 1, 'focal': 1}, 1e-3);"
        "p.step(2, {'dice': 1, 'focal': 1}, 1e-3); p.validated(2, {'mean IoU': 0.5}, 0.5); p.close()"
    )
    master, slave = os.openpty()
    environment = {**os.environ, "COLUMNS": "40", "TERM": "xterm"}
    subprocess.run([sys.executable, "-c", script], stderr=slave, env=environment, check=True)
    shown = os.read(master, 65536).decode()
    os.close(master)
    os.close(slave)
    lines = [re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", line) for line in re.split(r"\r?\n|\r", shown)]
    bar = max(i for i, line in enumerate(lines) if "━" in line)
    assert set(lines[bar].strip()) == {"━"}
    assert [line.split() for line in lines[bar + 1 : bar + 3]] == [
        ["step", "loss", "dice", "focal"], ["2/2", "2.0000", "1.0000", "1.0000"],
    ]  # fmt: skip


# Ctrl-C ----------------------------------------------------------------------------------------------------------


class Pressed:
    """Presses Ctrl-C, `times` times, at call number `at` of what it stands for."""

    def __init__(self, call, at, times=1):
        self.call, self.left, self.times = call, at, times

    def __call__(self, *arguments, **options):
        self.left -= 1
        if self.left == 0:
            for _ in range(self.times):
                signal.raise_signal(signal.SIGINT)
        return self.call(*arguments, **options)


def where(monkeypatch, place, at, times=1):
    """Ctrl-C in the middle of a step, of loading, of a validation, of saving, of the export."""
    owner, name = {
        "a step": (loop, "learning_rate"),
        "loading": (Draws, "sample_of"),
        "validation": (Segmenter, "__call__"),
        "a checkpoint": (loop, "save_state"),
        "the end": (runner, "evaluate"),
    }[place]
    pressed = Pressed(getattr(owner, name), at, times)
    monkeypatch.setattr(owner, name, lambda *a, **o: pressed(*a, **o))


@pytest.mark.parametrize(
    ("place", "at", "times", "says"),
    [
        pytest.param("a step", 3, 1, "3 of 6 steps are kept in", marks=pytest.mark.slow),
        pytest.param("a step", 3, 2, "0 of 6 steps are kept in", marks=pytest.mark.slow),
        pytest.param("loading", 7, 1, "2 of 6 steps are kept in", marks=pytest.mark.slow),
        ("validation", 1, 1, "2 of 6 steps are kept in"),
        pytest.param("a checkpoint", 2, 1, "2 of 6 steps are kept in", marks=pytest.mark.slow),
        pytest.param("the end", 1, 1, "all 6 steps are kept in", marks=pytest.mark.slow),
    ],
)
def test_ctrl_c_says_what_is_kept_and_what_it_says_to_do_goes_on_bit_for_bit(
    place, at, times, says, whole, configured, tmp_path, monkeypatch
):
    run = tmp_path / "run"
    with monkeypatch.context() as early:
        where(early, place, at, times)
        stopped = train("--config", configured(), "--out", run)
    assert stopped.exit_code == 130, stopped.exception
    (sentence,) = [line for line in stopped.output.splitlines() if line.startswith("pixelwise: stopped")]
    assert says in sentence
    assert not [path.name for path in run.iterdir() if path.name.startswith(".") and "lock" not in path.name]
    if (run / "best.pt").exists():
        assert "the best weights so far, which --model opens" in sentence
        assert Segmenter(run)(np.zeros((64, 64, 3), np.uint8)).labels.shape == (64, 64)
    command = shlex.split(sentence.rpartition("go on with: ")[2])
    assert command[:2] == ["pixelwise", "train"]
    resumed = train(*command[2:])
    assert resumed.exit_code == 0, resumed.exception
    assert steps(run) == steps(whole)
    assert same_weights(run, whole)
    scores = [
        [line for line in read_metrics(each / "metrics.jsonl") if "score" in line] for each in (run, whole)
    ]
    assert scores[0] == scores[1]


@pytest.mark.slow
def test_ctrl_c_before_anything_is_kept_says_so_and_the_same_command_begins_again(
    configured, tmp_path, monkeypatch
):
    command = ("--config", configured(steps=1), "--out", tmp_path / "run")
    with monkeypatch.context() as early:
        where(early, "a checkpoint", 1)
        stopped = train(*command)
    assert stopped.exit_code == 130
    assert "stopped; nothing is kept yet: begin again with the same command" in stopped.output
    assert train(*command).exit_code == 0


# A full disk -----------------------------------------------------------------------------------------------------


@contextmanager
def nearly_full(size):
    """No file can grow beyond so many bytes."""
    resource = pytest.importorskip("resource", reason="there is no limit on the size of files")
    limits, before = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, before)


def test_a_full_disk_is_one_sentence_and_the_run_goes_on_when_there_is_room(whole, tmp_path):
    """8 KiB are less than a checkpoint or the weights, and more than what is written before."""
    run = shutil.copytree(whole, tmp_path / "run")
    kept = {name: (run / name).read_bytes() for name in ("checkpoint.pt", "weights.safetensors")}
    with nearly_full(8192):
        longer, again = (
            train("--out", run, "--resume", "--steps", 7),
            train("--out", run, "--resume", "--steps", 6),
        )
    for result, says in (
        (longer, r"no room for .*pt, which .*; the previous one is whole: free some space and resume$"),
        (again, r"cannot write .*weights.safetensors: .*; free some space, or choose another place$"),
    ):
        assert isinstance(result.exception, OutputError), result.exception
        assert result.exception.exit_code == 2
        assert re.match(says, str(result.exception))
    assert {name: (run / name).read_bytes() for name in kept} == kept
    assert not [path.name for path in run.iterdir() if "part" in path.name]
    assert train("--out", run, "--resume", "--steps", 7).exit_code == 0
    assert [step for step, *_ in steps(run)] == [1, 2, 3, 4, 5, 6, 7]


def test_a_disk_that_is_full_at_a_line_of_the_metrics_is_one_sentence(tmp_path):
    metrics = Metrics(tmp_path / "metrics.jsonl", 0)
    metrics.add({"step": 1, "loss": 0.5})
    metrics._file.close()
    metrics._file = open("/dev/full", "w")  # noqa: SIM115  # closed by close()
    with pytest.raises(
        OutputError, match=r"metrics\.jsonl \(No space left .*checkpoint .* whole: free some space"
    ):
        metrics.add({"step": 2, "loss": 0.5})
    metrics.close()
    assert [line["step"] for line in read_metrics(tmp_path / "metrics.jsonl")] == [1]


# Longer ----------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_finished_run_goes_on_and_is_what_a_longer_one_is_but_for_the_rates_that_it_had(
    configured, tmp_path
):
    run, long = tmp_path / "run", tmp_path / "long"
    assert train("--config", configured(steps=4, schedule="constant"), "--out", run).exit_code == 0
    assert train("--config", configured(steps=6, schedule="constant"), "--out", long).exit_code == 0
    longer = train("--out", run, "--resume", "--steps", 6)
    assert longer.exit_code == 0, longer.exception
    assert "going on after step 4 of a run of 4 steps, now to 6" in longer.output
    assert steps(run) == steps(long)
    assert same_weights(run, long)
    assert TrainConfig.from_json(run / "config.json").steps == 6
    refused = train("--out", run, "--resume", "--steps", 5).exception
    assert "has done 6 steps, which cannot end after 5; ask for more" in str(refused)


def test_what_goes_on_for_longer_has_the_learning_rate_of_a_run_that_was_as_long_from_the_beginning(
    whole, tmp_path
):
    shutil.copytree(whole, tmp_path / "run")
    longer = train("--out", tmp_path / "run", "--resume", "--epochs", 4)  # of 5 pictures, in batches of 2
    assert longer.exit_code == 0, longer.exception
    config = TrainConfig.from_json(tmp_path / "run" / "config.json")
    assert (config.epochs, config.steps) == (4, None)
    expected = [learning_rate(step, 6, config) for step in range(6)]
    expected += [learning_rate(step, 10, config) for step in range(6, 10)]
    assert [lr for _, _, lr in steps(tmp_path / "run")] == expected
    assert f"a run of 10 steps, {expected[6]:.1e} (it was {expected[5]:.1e})" in longer.output
    assert json.loads((tmp_path / "run" / "card.json").read_text())["notes"][-1].startswith(
        "Trained for 10 steps"
    )


@pytest.mark.slow
def test_a_run_that_was_exported_is_exported_again_when_it_has_gone_on(whole, tmp_path):
    run = shutil.copytree(whole, tmp_path / "run")
    (run / "model.onnx").write_bytes(b"that of six steps")
    assert train("--out", run, "--resume", "--steps", 7).exit_code == 0
    exported, weights = (Segmenter(run / name).card for name in ("model.onnx", "weights.safetensors"))
    assert exported.notes == weights.notes
    assert "Trained for 7 steps" in exported.notes[-1]

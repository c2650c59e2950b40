"""Runs that are killed go on as if they were not, and no kill and no full disk costs a checkpoint."""

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import torch

from pixelwise.errors import InputError, OutputError
from pixelwise.training.progress import read_metrics
from pixelwise.training.state import load_state, save_state

SCRIPT = Path(__file__).parent / "crashing.py"
pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="the script forks")


def script(what, out, *arguments):
    """What tests/crashing.py prints last, in a process of its own: pytest's has threads, which forks do not like."""
    done = subprocess.run(
        [sys.executable, str(SCRIPT), what, str(out), *arguments], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.fixture(scope="module")
def writes(tmp_path_factory):
    """(folder, what happened at each write, what happened when the disk was full)."""
    out = tmp_path_factory.mktemp("writes")
    return out, *script("writes", out)


def losses(folder):
    return [(line["step"], line["loss"], line["lr"]) for line in read_metrics(folder / "metrics.jsonl")]


def test_a_run_killed_again_and_again_has_the_losses_of_one_that_was_not(tmp_path):
    kills = script("run", tmp_path)
    assert len(kills) >= 3
    assert all(code == -9 for _, code in kills)
    assert len(losses(tmp_path / "whole")) == 24
    assert losses(tmp_path / "cut") == losses(tmp_path / "whole")  # bit for bit, with two workers
    kept = (torch.load(tmp_path / run / "best.pt", weights_only=True) for run in ("whole", "cut"))
    whole, cut = (weights["state_dict"] for weights in kept)
    assert all(torch.equal(whole[name], cut[name]) for name in whole)
    assert not list((tmp_path / "cut").glob(".*"))  # what the kills left half written is gone


def test_a_kill_at_any_write_leaves_the_old_checkpoint_or_the_new_one(writes):
    out, points, _ = writes
    calls = [call for call, _, _ in points]
    assert calls.count("write") > 5
    assert calls[-4:] == ["fsync", "chmod", "replace", "fsync"]
    assert all(code == 9 for _, code, _ in points)
    assert [step for _, _, step in points] == [1] * (len(points) - 1) + [2]  # the new one once it is renamed
    assert list((out / "killed").glob(".*"))
    save_state({"step": 3}, out / "killed" / "checkpoint.pt")
    assert {path.name for path in (out / "killed").iterdir()} == {"checkpoint.pt", "died_in"}


def test_a_file_that_does_not_fit_is_one_sentence_and_the_old_one_stays(writes):
    out, _, (kind, sentence, files) = writes
    assert kind == "OutputError"
    assert "needs 4 MiB" in sentence
    assert "the previous one is whole" in sentence
    assert files == ["checkpoint.pt"]
    assert (load_state(out / "full" / "checkpoint.pt", {"weights": torch.Tensor})["weights"] == 1).all()


def test_a_full_disk_is_told_from_other_trouble(tmp_path, monkeypatch):
    def full(file):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OutputError, match=r"no room for .* there is none yet: free some space"):
        save_state({"weights": torch.ones(3)}, tmp_path / "checkpoint.pt")
    assert not list(tmp_path.iterdir())
    monkeypatch.undo()
    with pytest.raises(OutputError, match="is a folder"):
        save_state({}, tmp_path)


def test_a_damaged_checkpoint_is_told_in_one_sentence(tmp_path):
    (tmp_path / "checkpoint.pt").write_bytes(b"half a file")
    with pytest.raises(InputError, match="is no checkpoint of a training run"):
        load_state(tmp_path / "checkpoint.pt")


def test_a_checkpoint_that_unfolds_to_far_more_than_it_has_is_not_read(tmp_path):
    torch.save({"step": torch.zeros(10_000_000)}, tmp_path / "whole.pt")
    with (
        zipfile.ZipFile(tmp_path / "whole.pt") as whole,
        zipfile.ZipFile(tmp_path / "small.pt", "w", zipfile.ZIP_DEFLATED) as small,
    ):
        for name in whole.namelist():
            small.writestr(name, whole.read(name))
    assert (tmp_path / "small.pt").stat().st_size < 100_000
    with pytest.raises(
        InputError, match=r"small\.pt is no checkpoint of a training run .*would unfold to 40,"
    ):
        load_state(tmp_path / "small.pt")


def test_a_line_that_was_cut_short_is_left_out_of_the_metrics(tmp_path):
    (tmp_path / "metrics.jsonl").write_text('{"step": 1, "loss": 0.5}\n{"step": 2, "lo')
    assert read_metrics(tmp_path / "metrics.jsonl") == [{"step": 1, "loss": 0.5}]


@pytest.mark.parametrize(
    ("kind", "kills"),
    [
        *(pytest.param(kind, 3, marks=pytest.mark.slow) for kind in ("folder", "raster", "train", "export")),
        *(
            pytest.param(kind, 25, marks=pytest.mark.exhaustive)
            for kind in ("folder", "raster", "train", "export")
        ),
    ],
)
def test_commands_killed_at_random_and_called_again_give_what_one_gives_that_was_not(kind, kills, tmp_path):
    """Whatever they were doing; every file bit for bit, and nothing beside."""
    done = subprocess.run(
        [sys.executable, str(SCRIPT.with_name("killing.py")), kind, str(tmp_path / "runs"), str(kills), "0"],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1])["kills"] == kills

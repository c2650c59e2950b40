"""What is left after a kill or a failure: nothing for ever, nothing that is written through to another place or asks
for what does not work; and what is somebody's own stays."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from drawn import draw_folder
from pixelwise.cli.app import app
from pixelwise.errors import OutputError, PixelwiseError
from pixelwise.files import writing
from pixelwise.pipeline.journal import JOURNAL, Journal
from pixelwise.segmenter import Segmenter
from tiny import quadrants

LINKS = pytest.mark.skipif(os.name != "posix", reason="makes links")


def command(*arguments: object) -> str | None:
    """What a command says that fails; None where it does its work."""
    result = CliRunner().invoke(app, [*map(str, arguments)])
    assert result.exit_code == 0 or getattr(result.exception, "exit_code", None) == 2, result.exception
    return None if result.exit_code == 0 else str(result.exception)


def write_map(path: Path, values: np.ndarray) -> Path:
    """A GeoTIFF of strips, not compressed."""
    rasterio = pytest.importorskip("rasterio")
    profile = {"driver": "GTiff", "height": values.shape[0], "width": values.shape[1], "count": 3}
    with rasterio.open(
        path, "w", **profile, dtype="uint8", transform=rasterio.Affine(2, 0, 0, 0, -2, 0)
    ) as file:
        file.write(values.transpose(2, 0, 1))
    return path


def noise(height: int = 300, width: int = 100) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 255, (height, width, 3), np.uint8)


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


# Of writers that were killed


def test_what_a_killed_writer_left_goes_and_what_is_in_the_making_or_somebodys_own_stays(tmp_path):
    halves = """
import sys
from pixelwise.files import writing
with writing(sys.argv[1]) as temporary:
    temporary.write_text("half")
    print("half", flush=True)
    sys.stdin.read()
"""
    run = [sys.executable, "-c", halves]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    mine = {".photo.x1y2z3a4.png", ".pixelwise-notes.txt", ".pixelwise-0123abcd.txt", ".checkpoint.ab.pt"}
    with (
        subprocess.Popen([*run, tmp_path / "killed.png"], **pipes) as killed,
        subprocess.Popen([*run, tmp_path / "alive.png"], **pipes) as alive,
    ):
        assert killed.stdout.readline() == alive.stdout.readline() == "half\n"
        killed.kill()
        killed.wait()
        for name in mine:
            (tmp_path / name).write_text("mine")
        (tmp_path / ".pixelwise-01234567.part.a.png").mkdir()
        (tmp_path / ".pixelwise-01234567.part.b.png").write_text("whose lock was lost when the power went")
        mine.add(".pixelwise-01234567.part.a.png")
        assert len(names(tmp_path) - mine) == 5
        with writing(tmp_path / "new.txt") as temporary:
            temporary.write_text("whole")
        left = names(tmp_path) - mine - {"new.txt"}
        assert len(left) == 2  # a half and its lock
        assert any(name.endswith(".part.alive.png") for name in left)
        alive.communicate()
    assert names(tmp_path) == {*mine, "new.txt", "alive.png"}
    assert (tmp_path / "alive.png").read_text() == "half"


def test_of_two_writers_of_one_file_that_is_not_to_be_replaced_the_second_is_told(tmp_path):
    slow = writing(tmp_path / "it", overwrite=False)
    slow.__enter__().write_text("slow")
    with writing(tmp_path / "it", overwrite=False) as fast:
        fast.write_text("fast")
    with pytest.raises(OutputError, match="it exists already; --overwrite"):
        slow.__exit__(None, None, None)
    assert (tmp_path / "it").read_text() == "fast"
    assert names(tmp_path) == {"it"}


@LINKS
def test_a_result_that_is_a_link_is_replaced_and_not_written_through(tmp_path):
    (tmp_path / "mine").write_text("mine")
    (tmp_path / "it").symlink_to(tmp_path / "mine")
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    with pytest.raises(OutputError, match="exists already"), writing(tmp_path / "dangling", overwrite=False):
        pass
    for name in ("it", "dangling"):
        with writing(tmp_path / name) as temporary:
            temporary.write_text("result")
        assert not (tmp_path / name).is_symlink()
    assert (tmp_path / "mine").read_text() == "mine"
    assert names(tmp_path) == {"mine", "it", "dangling"}


# Of runs over folders


def pictures(folder: Path) -> Path:
    folder.mkdir()
    for name in "ab":
        Image.fromarray(quadrants()).save(folder / f"{name}.png")
    return folder


@LINKS
@pytest.mark.parametrize("target", ["file", "nothing"])
def test_a_journal_that_is_a_link_is_refused(target, colors_model, tmp_path):
    (tmp_path / "out").mkdir()
    if target == "file":
        (tmp_path / "file").write_text("mine\n")
    (tmp_path / "out" / JOURNAL).symlink_to(tmp_path / target)
    run = ["segment", pictures(tmp_path / "in"), "--model", colors_model, "--out", tmp_path / "out"]
    for more in ([], ["--resume"], ["--overwrite"]):
        assert f"{JOURNAL} is a link" in command(*run, *more)
    assert names(tmp_path / "out") == {JOURNAL}
    assert target == "nothing" or (tmp_path / "file").read_text() == "mine\n"
    (tmp_path / "out" / JOURNAL).unlink()  # what the sentence says to do
    assert command(*run) is None


@LINKS
@pytest.mark.parametrize(
    ("what", "says"), [("pipe", "is no file"), ("folder", "is no file"), ("huge", "bytes")]
)
def test_a_journal_that_would_never_end_is_refused(what, says, colors_model, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    journal = out / JOURNAL
    if what == "pipe":
        os.mkfifo(journal)
    elif what == "folder":
        journal.mkdir()
    else:
        journal.touch()
        os.truncate(journal, 7 * 2**30)  # of which the disk holds nothing
    run = ["segment", pictures(tmp_path / "in"), "--model", colors_model, "--out", out, "--format", "npy"]
    for more in ([], ["--resume"]):
        done = subprocess.run(
            [sys.executable, "-m", "pixelwise", *map(str, run), *more],
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert done.returncode == 2, done.stderr
        assert JOURNAL in done.stderr
        assert says in done.stderr
        assert len(done.stderr.splitlines()) == 1
    assert names(out) == {JOURNAL}
    journal.rename(tmp_path / "away")  # what the sentence says to do
    assert command(*run) is None


def test_lines_of_a_journal_that_are_none_of_ours_cost_no_memory_and_no_finished_source(
    colors_model, tmp_path
):
    run = ["segment", pictures(tmp_path / "in"), "--model", colors_model, "--out", tmp_path / "out"]
    run += ["--format", "npy"]
    assert command(*run) is None
    journal = tmp_path / "out" / JOURNAL
    settings, first, second = journal.read_bytes().splitlines(keepends=True)
    zeros = bytes(2**24)
    for long in (b"x" * (2**24 - 1), zeros, zeros + b"\n", zeros * 3 + second, zeros * 7 + b"y"):
        end = b"" if long.endswith(b"\n") else b"\n"
        journal.write_bytes(settings + long + end + first + long + end + second[:-1])
        assert _peak(lambda: Journal(tmp_path / "out", {}, resume=True)) < 2**24 * 4.5
        said = CliRunner().invoke(app, [*map(str, run), "--resume"])
        assert "2 of 2 were finished before" in said.stderr
    journal.write_bytes(settings + zeros + second + first)  # one line, and so not of ours
    assert "1 of 2 were finished before" in CliRunner().invoke(app, [*map(str, run), "--resume"]).stderr


def _peak(work) -> int:
    """The bytes that it takes at most at a time."""
    tracemalloc.start()
    try:
        work()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_what_was_written_before_the_first_source_of_a_journal_is_gone_on_with(colors_model, tmp_path):
    """As a kill leaves it between a picture's files and its line, or between two of its files."""
    run = ["segment", pictures(tmp_path / "in"), "--model", colors_model, "--out", tmp_path / "out"]
    run += ["--format", "npy"]
    assert command(*run) is None
    journal = tmp_path / "out" / JOURNAL
    settings, *sources = journal.read_text().splitlines(keepends=True)
    assert "settings" in settings
    assert len(sources) == 2
    journal.write_text(settings)
    assert "--resume" in command(*run)
    assert command(*run, "--resume") is None
    assert len(journal.read_text().splitlines()) == 3


# Of rasters


@pytest.mark.parametrize("more", [[], ["--resume"], ["--overwrite"]])
def test_of_a_damaged_raster_nothing_is_left_and_the_same_is_said_again(more, colors_model, tmp_path):
    source = write_map(tmp_path / "map.tif", noise())
    whole = source.read_bytes()
    source.write_bytes(whole[: len(whole) * 2 // 3])  # it opens, and its last rows cannot be read
    out = tmp_path / "out"
    run = ["segment", source, "--model", colors_model, "--out", out, "--tile", 64]
    first = command(*run)
    assert "cannot be read" in first
    assert not out.exists()
    assert command(*run, *more) == first
    source.write_bytes(whole)
    assert command(*run) is None
    assert names(out) == {JOURNAL, "map.labels.tif"}


def unfinished(tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[list[object], Path]:
    """A run over a raster that failed before its result was written: the command, and the folder of its work."""
    write_map(tmp_path / "map.tif", noise())
    run = ["segment", tmp_path / "map.tif", "--model", model, "--out", tmp_path / "out", "--tile", 64]

    def full(*_):
        raise OutputError("no room")

    with monkeypatch.context() as patched:
        patched.setattr("pixelwise.pipeline.raster.write_geotiff", full)
        assert "no room" in command(*run)
    return run, tmp_path / "out" / ".map.labels.tif.unfinished"


def content(path: Path) -> object:
    return {p.name: p.read_bytes() for p in path.iterdir()} if path.is_dir() else path.read_bytes()


def labels(out: Path) -> np.ndarray:
    rasterio = pytest.importorskip("rasterio")
    with rasterio.open(out / "map.labels.tif") as file:
        return file.read(1)


@pytest.mark.parametrize("gone", ["labels", "pending.npz", "work.json"])
def test_a_kill_while_finished_work_is_removed_costs_no_row(gone, colors_model, tmp_path, monkeypatch):
    """Its files go one by one, in any order; rows that are gone must not be taken for rows of zeros."""
    run, work = unfinished(tmp_path, colors_model, monkeypatch)
    (work / gone).unlink()
    assert command(*run, "--resume") is None
    expected = Segmenter(colors_model)(noise(), tile=64).labels
    np.testing.assert_array_equal(labels(tmp_path / "out"), expected)
    assert names(tmp_path / "out") == {JOURNAL, "map.labels.tif"}


def test_where_nothing_was_finished_nothing_asks_for_resume(colors_model, tmp_path, monkeypatch):
    """A kill right after the folder was made, and a failure of the network at its first tile."""
    run, work = unfinished(tmp_path, colors_model, monkeypatch)
    for name in names(work) - {"work.json"}:
        (work / name).unlink()
    assert command(*run) is None
    shutil.rmtree(tmp_path / "out")

    def fails(*_):
        raise PixelwiseError("the network fails")

    monkeypatch.setattr("pixelwise.engines.onnxruntime.OnnxRuntimeEngine.__call__", fails)
    result = CliRunner().invoke(app, [*map(str, run)])
    assert "the network fails" in str(result.exception)
    assert not (tmp_path / "out").exists()


@LINKS
@pytest.mark.parametrize("link", ["", "labels", "work.json", "answers", "pending.npz"])
def test_unfinished_work_that_is_a_link_is_refused(link, colors_model, tmp_path, monkeypatch):
    """A stranger's folder of results must not lead ours to write, or to delete, somewhere else."""
    run, work = unfinished(tmp_path, colors_model, monkeypatch)
    place, mine = work / link if link else work, tmp_path / "mine"
    place.rename(mine) if place.exists() else mine.write_bytes(b"mine")
    before = content(mine)
    place.symlink_to(mine)
    for more in ([], ["--resume"], ["--overwrite"]):
        said = command(*run, *more)
        assert f"{place} is a link" in said
        assert "remove it" in said
    assert content(mine) == before
    place.unlink()  # what the sentence says to do
    assert command(*run, "--resume") is None


# Of training


def train(tmp_path: Path, *more: object) -> list[object]:
    config = {
        "steps": 2, "batch_size": 2, "model": "unet", "model_options": {"width": 4}, "image_size": 64, "workers": 0,
        "validate_every": 1, "data": str(draw_folder(tmp_path / "data", 4)),
    }  # fmt: skip
    (tmp_path / "wanted.json").write_text(json.dumps(config))
    return ["train", "--config", tmp_path / "wanted.json", "--no-check", "--out", tmp_path / "run", *more]


def losses(run: Path) -> list[object]:
    from pixelwise.training.progress import read_metrics

    return [
        (line["step"], line.get("loss"), line.get("score")) for line in read_metrics(run / "metrics.jsonl")
    ]


@pytest.mark.slow
def test_a_run_that_was_killed_before_its_first_checkpoint_goes_on_by_the_same_command(tmp_path, monkeypatch):
    run, command_ = tmp_path / "run", train(tmp_path)
    resume = ["train", "--out", run, "--resume"]
    assert "leave out --resume" in command(*resume)
    assert command(*command_) is None  # what the sentence says to do
    expected = losses(run)
    assert len(expected) == 4
    assert "pass --resume" in command(*command_)
    shutil.rmtree(run)

    class Killed(BaseException):
        pass

    def killed(*_):
        raise Killed

    with monkeypatch.context() as patched:
        patched.setattr("pixelwise.training.loop.save_state", killed)
        with pytest.raises(Killed):
            command(*command_)
    assert names(run) == {"config.json", "data.json", "metrics.jsonl"}
    (run / ".mine.pt").write_text("mine")
    assert command(*resume) is None
    assert losses(run) == expected
    assert (run / ".mine.pt").read_text() == "mine"
    (run / "checkpoint.pt").unlink()  # of a finished run, which is not to be begun again over its results
    assert command(*resume) == command(*command_)
    assert "holds a run already, whose checkpoint.pt is gone; choose another --out" in command(*resume)


@LINKS
def test_metrics_that_are_a_link_are_not_written_through(tmp_path):
    from pixelwise.training.progress import Metrics

    (tmp_path / "mine").write_text("mine")
    (tmp_path / "metrics.jsonl").symlink_to(tmp_path / "mine")
    metrics = Metrics(tmp_path / "metrics.jsonl", 0)
    metrics.add({"step": 1})
    metrics.close()
    assert (tmp_path / "mine").read_text() == "mine"
    assert (tmp_path / "metrics.jsonl").read_text() == '{"step": 1}\n'

"""Runs that are interrupted go on where they stopped, and never leave half of anything."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from PIL import Image
from typer.testing import CliRunner

from pixelwise.cli.app import app
from pixelwise.engines import open_engine
from pixelwise.errors import ImageError, OutputError, PixelwiseError
from pixelwise.pipeline import pictures as pipeline
from pixelwise.pipeline.journal import JOURNAL, Journal, fingerprint
from pixelwise.pipeline.options import RunOptions
from pixelwise.pipeline.pictures import AHEAD, MAX_SHOWN, WRITERS, Job, segment_pictures
from pixelwise.segmentation import Segmentation
from pixelwise.sources import Source
from pixelwise.weights.beside import beside
from tiny import COLORS, quadrant_labels, quadrants, write_colors_model


def pictures(folder: Path, count: int) -> list[Path]:
    folder.mkdir(exist_ok=True)
    paths = [folder / f"{i:02}.png" for i in range(count)]
    for i, path in enumerate(paths):
        Image.fromarray(np.full((8, 8, 3), i, np.uint8)).save(path)
    return paths


def jobs(paths: list[Path], out: Path) -> list[Job]:
    return [Job(Source(p, Path(p.name), "picture"), {"npy": out / f"{p.stem}.npy"}) for p in paths]


def by_value(picture: np.ndarray) -> Segmentation:
    """A network whose answer is the picture's own grey value."""
    return Segmentation(picture[..., 0] % 4, COLORS, picture)


def test_a_finished_source_is_known_and_a_changed_one_is_not(tmp_path):
    (path,) = pictures(tmp_path, 1)
    files = {"npy": tmp_path / "out" / "00.npy"}
    settings = {"model": "a", "tile": 512}
    journal = Journal(tmp_path / "out", settings, resume=False)
    assert not journal.exists()
    journal.add(path, files)
    files["npy"].touch()
    assert not Journal(tmp_path / "out", settings, resume=False).done(path, files)
    assert Journal(tmp_path / "out", settings, resume=True).done(path, files)
    times = path.stat().st_atime_ns, path.stat().st_mtime_ns
    path.write_bytes(path.read_bytes() + b"more, under the old time, as an archive or `cp -p` leaves it")
    os.utime(path, ns=times)
    assert not Journal(tmp_path / "out", settings, resume=True).done(path, files)
    journal.add(path, files)
    assert Journal(tmp_path / "out", settings, resume=True).done(path, files)
    os.utime(path, ns=(1, 1))
    assert not Journal(tmp_path / "out", settings, resume=True).done(path, files)


def test_results_that_are_gone_are_made_again(tmp_path):
    (path,) = pictures(tmp_path, 1)
    files = {"npy": tmp_path / "00.npy", "labels": tmp_path / "00.labels.png"}
    Journal(tmp_path, {}, resume=False).add(path, files)
    for there in ((), ("npy",), ("labels",), ("npy", "labels")):
        for kind, file in files.items():
            file.touch() if kind in there else file.unlink(missing_ok=True)
        assert Journal(tmp_path, {}, resume=True).done(path, files) == (len(there) == 2)


def test_other_settings_are_refused_by_name(tmp_path):
    (path,) = pictures(tmp_path, 1)
    files = {"npy": tmp_path / "00.npy"}
    files["npy"].touch()
    Journal(tmp_path, {"model": "a", "tile": 512}, resume=False).add(path, files)
    other = Journal(tmp_path, {"model": "a", "tile": 256}, resume=True)
    with pytest.raises(OutputError, match=r"tile: 512, now 256.*--overwrite"):
        other.done(path, files)


def test_a_torn_line_is_ignored_and_the_next_one_is_whole(tmp_path):
    first, second = pictures(tmp_path, 2)
    files = {p: {"npy": tmp_path / f"{p.stem}.npy"} for p in (first, second)}
    for one in files.values():
        one["npy"].touch()
    journal = Journal(tmp_path, {}, resume=False)
    journal.add(first, files[first])
    journal.add(second, files[second])
    whole = (tmp_path / JOURNAL).read_bytes()
    (tmp_path / JOURNAL).write_bytes(whole[:-9])
    again = Journal(tmp_path, {}, resume=True)
    assert again.done(first, files[first])
    assert not again.done(second, files[second])
    again.add(second, files[second])
    assert Journal(tmp_path, {}, resume=True).done(second, files[second])


def test_the_fingerprint_follows_values_and_not_their_order():
    assert fingerprint({"a": 1, "b": [2]}) == fingerprint({"b": [2], "a": 1})
    assert fingerprint({"a": 1}) != fingerprint({"a": 2})


def test_outcomes_come_in_order_and_files_hold_the_answers(tmp_path):
    out = tmp_path / "out"
    work = jobs(pictures(tmp_path / "in", 9), out)
    outcomes = list(segment_pictures(by_value, work, RunOptions(journal=Journal(out, {}, resume=False))))
    assert [o.job for o in outcomes] == work
    for i, outcome in enumerate(outcomes):
        assert outcome.summary["classes"][0]["id"] == i % 4
        assert (np.load(work[i].files["npy"]) == i % 4).all()
    lines = [json.loads(line) for line in (out / JOURNAL).read_text().splitlines()]
    assert sorted(line["source"] for line in lines[1:]) == [str(job.source.path) for job in work]


def test_one_failure_of_each_kind_does_not_stop_the_rest(tmp_path):
    paths = pictures(tmp_path / "in", 6)
    paths[1].write_bytes(b"no picture")
    work = jobs(paths, tmp_path / "out")
    (tmp_path / "out" / "04.npy").mkdir(parents=True)

    def segment(picture: np.ndarray) -> Segmentation:
        if picture[0, 0, 0] == 3:
            raise RuntimeError("the runtime says no\nand more")
        return by_value(picture)

    errors = [outcome.error for outcome in segment_pictures(segment, work)]
    assert [error is None for error in errors] == [True, False, True, False, False, True]
    assert isinstance(errors[1], ImageError)
    assert type(errors[3]) is PixelwiseError
    assert str(errors[3]).startswith(f"{paths[3]} failed: RuntimeError: the runtime says no (")
    assert isinstance(errors[4], OutputError)


def test_decoding_runs_ahead_and_waiting_is_bounded(tmp_path, monkeypatch):
    """While the network holds the first picture the next ones are decoded, and no more than that."""
    from pixelwise import images

    read, enough = [], threading.Event()
    plain = images.read

    def counted(source: object, **options: object) -> np.ndarray:
        read.append(source)
        if len(read) == AHEAD + 1:
            enough.set()
        return plain(source, **options)

    monkeypatch.setattr(images, "read", counted)
    alive = []

    def segment(picture: np.ndarray) -> Segmentation:
        assert enough.wait(20)
        alive.append(len(read) - len(alive))
        return by_value(picture)

    outcomes = segment_pictures(segment, jobs(pictures(tmp_path / "in", 30), tmp_path / "out"))
    assert len(list(outcomes)) == 30
    assert max(alive) <= AHEAD + 1 + 1
    assert WRITERS > 1


def test_pictures_are_in_the_network_at_the_same_time_and_come_out_in_order(tmp_path):
    meeting = threading.Barrier(2)

    def segment(picture: np.ndarray) -> Segmentation:
        meeting.wait(20)  # nobody gets past it alone
        return by_value(picture)

    work = jobs(pictures(tmp_path / "in", 8), tmp_path / "out")
    outcomes = list(segment_pictures(segment, work, at_once=2))
    assert [outcome.job for outcome in outcomes] == work
    for i, outcome in enumerate(outcomes):
        assert outcome.error is None
        assert (np.load(work[i].files["npy"]) == i % 4).all()


@pytest.mark.parametrize(
    ("at_once", "shown", "most"),
    [(3, MAX_SHOWN // 3, 3), (3, MAX_SHOWN // 2, 2), (3, MAX_SHOWN, 1), (3, 2 * MAX_SHOWN, 1)],
)
def test_no_more_pictures_are_in_the_network_than_may_be(at_once, shown, most, tmp_path):
    counting, inside, seen = threading.Lock(), 0, []

    def segment(picture: np.ndarray) -> Segmentation:
        nonlocal inside
        with counting:
            inside += 1
            seen.append(inside)
        time.sleep(0.01)
        with counting:
            inside -= 1
        return by_value(picture)

    work = jobs(pictures(tmp_path / "in", 12), tmp_path / "out")
    outcomes = list(segment_pictures(segment, work, at_once=at_once, shown_bytes=lambda picture: shown))
    assert [outcome.error for outcome in outcomes] == [None] * 12
    assert max(seen) <= most


@pytest.mark.parametrize("at_once", [1, 3])
def test_large_pictures_are_decoded_one_at_a_time(at_once, tmp_path, monkeypatch):
    monkeypatch.setattr(pipeline, "MAX_DECODED", 1)
    plain_read, plain_write = pipeline.images.read, pipeline.write
    counting, inside, seen = threading.Lock(), 0, []

    def read(source: object, **options: object) -> np.ndarray:
        nonlocal inside
        with counting:
            inside += 1
            seen.append(inside)
        return plain_read(source, **options)

    def write(segmentation: Segmentation, files: dict[str, Path], *, overwrite: bool) -> None:
        nonlocal inside
        plain_write(segmentation, files, overwrite=overwrite)
        with counting:
            inside -= 1

    monkeypatch.setattr(pipeline.images, "read", read)
    monkeypatch.setattr(pipeline, "write", write)
    work = jobs(pictures(tmp_path / "in", 9), tmp_path / "out")
    assert [outcome.error for outcome in segment_pictures(by_value, work, at_once=at_once)] == [None] * 9
    assert max(seen) == 1


@pytest.mark.parametrize("at_once", [1, 3])
def test_pictures_that_failed_leave_room_for_others(at_once, tmp_path, monkeypatch):
    monkeypatch.setattr(pipeline, "MAX_DECODED", 1)
    paths = pictures(tmp_path / "in", 9)
    paths[2].write_bytes(b"no picture")

    def segment(picture: np.ndarray) -> Segmentation:
        if picture[0, 0, 0] in (4, 5):
            raise RuntimeError("no")
        return by_value(picture)

    work = jobs(paths, tmp_path / "out")
    (tmp_path / "out" / "06.npy").mkdir(parents=True)
    failed = [outcome.error is not None for outcome in segment_pictures(segment, work, at_once=at_once)]
    assert failed == [i in (2, 4, 5, 6) for i in range(9)]


@pytest.mark.parametrize("at_once", [1, 3])
@pytest.mark.parametrize("room", [1, 2**28])
def test_stopping_early_leaves_whole_files_only(at_once, room, tmp_path, monkeypatch):
    monkeypatch.setattr(pipeline, "MAX_DECODED", room)
    out = tmp_path / "out"
    outcomes = segment_pictures(by_value, jobs(pictures(tmp_path / "in", 12), out), at_once=at_once)
    next(outcomes)
    outcomes.close()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("write")]
    for path in out.iterdir():
        assert path.suffix == ".npy"
        assert not path.name.startswith(".")
        assert np.load(path).shape == (8, 8)


def test_an_engine_says_from_how_many_threads_it_can_be_called(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: range(6), raising=False)
    model = write_colors_model(tmp_path / "model.onnx")
    images = np.random.default_rng(0).normal(size=(1, 3, 20, 30)).astype(np.float32)
    engine = open_engine(model)
    before = engine(images)
    assert engine.share() == 6
    np.testing.assert_array_equal(engine(images), before)
    taken = engine._loaded.held.get_session_options()  # whoever waits gives up the core
    assert taken.get_session_config_entry("session.intra_op.allow_spinning") == "0"
    assert open_engine(model, threads=2).share() == 2
    assert open_engine(model).share(4) == 4
    assert open_engine(model, threads=2).share(4) == 2
    assert open_engine(model, threads=1).share() == 1
    os.utime(model, ns=(1, 1))
    assert engine.share() == 1  # the file may be another's by now


def test_calls_beside_others_have_a_part_of_the_threads_and_one_alone_has_all(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: range(6), raising=False)
    ran, session = [], onnxruntime.InferenceSession
    images = np.random.default_rng(0).normal(size=(1, 3, 20, 30)).astype(np.float32)

    class Noted(session):
        def run(self, names, given):
            ran.append(self.get_session_options().intra_op_num_threads)
            return super().run(names, given)

    monkeypatch.setattr(onnxruntime, "InferenceSession", Noted)
    engine = open_engine(write_colors_model(tmp_path / "model.onnx"), threads=4)
    assert engine.share(2, lambda: len(ran) != 1) == 2
    answers = [engine(images) for _ in range(3)]
    assert ran == [4, 2, 4]
    assert all(np.array_equal(answer, answers[0]) for answer in answers)


def segment(folder: Path, model: Path, *more: str) -> subprocess.CompletedProcess[str]:
    run = [sys.executable, "-m", "pixelwise", "segment", "in", "--model", str(model), "--out", "out"]
    return subprocess.run([*run, *more], capture_output=True, text=True, cwd=folder)


def test_resume_does_what_is_left_and_refuses_other_settings(colors_model, tmp_path):
    (tmp_path / "in").mkdir()
    for name in ("a.png", "b.png", "c.png"):
        Image.fromarray(quadrants()).save(tmp_path / "in" / name)
    (tmp_path / "in" / "c.png").write_bytes(b"not yet copied")
    first = segment(tmp_path, colors_model, "--format", "npy")
    assert first.returncode == 2
    Image.fromarray(quadrants()).save(tmp_path / "in" / "c.png")
    kept = {name: (tmp_path / "out" / name).stat().st_mtime_ns for name in ("a.npy", "b.npy")}
    again = segment(tmp_path, colors_model, "--format", "npy")
    assert again.returncode == 2
    assert "--resume" in again.stderr
    other = segment(tmp_path, colors_model, "--format", "npy", "--resume", "--flip", "horizontal")
    assert other.returncode == 2
    assert "flips: [], now ['horizontal']" in other.stderr
    resumed = segment(tmp_path, colors_model, "--format", "npy", "--resume")
    assert resumed.returncode == 0, resumed.stderr
    assert "2 of 3 were finished before" in resumed.stderr
    assert [line.split(":")[0] for line in resumed.stdout.splitlines()] == ["in/c.png"]
    assert kept == {name: (tmp_path / "out" / name).stat().st_mtime_ns for name in kept}
    np.testing.assert_array_equal(np.load(tmp_path / "out" / "c.npy"), quadrant_labels())


def test_resume_notices_other_weights_beside_the_model(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("in").mkdir()
    for name in ("a.png", "b.png"):
        Image.fromarray(quadrants()).save(f"in/{name}")
    model = onnx.load(write_colors_model(Path("model.onnx")))
    onnx.save(model, "model.onnx", save_as_external_data=True, location="weights.data", size_threshold=0)
    typed = ["segment", "in", "--model", "model.onnx", "--out", "out", "--format", "npy", "--threads", "1"]
    assert CliRunner().invoke(app, typed).exit_code == 0
    Path("out/b.npy").unlink()
    assert CliRunner().invoke(app, [*typed, "--resume"]).exit_code == 0
    os.utime("weights.data", ns=(1, 1))
    found = CliRunner().invoke(app, [*typed, "--resume"])
    assert "model: ['model.onnx', " in str(found.exception)
    for name in ("model.xml", "model.bin"):
        Path(name).write_bytes(bytes(10))
    assert beside(Path("model.xml")) == [Path("model.bin")]
    assert beside(Path("in/a.png")) == []


def test_to_resume_and_to_overwrite_contradict_each_other(colors_model, tmp_path):
    pictures(tmp_path / "in", 2)
    both = segment(tmp_path, colors_model, "--resume", "--overwrite")
    assert both.returncode == 2
    assert "--resume keeps what is finished and --overwrite replaces it, got both" in both.stderr
    assert not (tmp_path / "out").exists()


@pytest.mark.skipif(os.name != "posix", reason="needs Unix signals")
def test_control_c_leaves_nothing_half_written_and_resume_finishes(colors_model, tmp_path):
    (tmp_path / "in").mkdir()
    for i in range(200):
        Image.fromarray(quadrants()).save(tmp_path / "in" / f"{i:03}.png")
    # A shell starts background jobs deaf to Control-C, and so their children: undo that first.
    listen = "import os, signal, sys; signal.signal(signal.SIGINT, signal.SIG_DFL); os.execv(sys.argv[1], sys.argv[1:])"
    run = [sys.executable, "-m", "pixelwise", "segment", "in", "--model", str(colors_model), "--out", "out"]
    run = [sys.executable, "-c", listen, *run]
    process = subprocess.Popen(run, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=tmp_path)
    assert process.stdout is not None
    for _ in range(3):
        assert process.stdout.readline()
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors
    assert "--resume" in errors
    files = list((tmp_path / "out").iterdir())
    assert {p.suffix for p in files} <= {".png", ".jsonl"}
    assert [p.name for p in files if p.name.startswith(".")] == [JOURNAL]
    for path in files:
        if path.suffix == ".png":
            with Image.open(path) as image:
                image.load()
    done = len((tmp_path / "out" / JOURNAL).read_text().splitlines()) - 1
    assert 3 <= done < 200
    resumed = segment(tmp_path, colors_model, "--resume")
    assert resumed.returncode == 0, resumed.stderr
    assert len(resumed.stdout.splitlines()) == 200 - done
    assert len(list((tmp_path / "out").glob("*.labels.png"))) == 200

"""Two runs at once never write in one place: the second says who is at work there, and a dead one holds nobody up."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from drawn import draw_folder
from pixelwise import files, locks
from pixelwise.cli.app import app
from pixelwise.errors import InputError, OutputError, PixelwiseWarning
from pixelwise.files import LOCK, claimed, held
from pixelwise.pipeline.journal import JOURNAL
from pixelwise.segmenter import Segmenter
from test_leftovers import labels, noise, unfinished, write_map
from tiny import quadrants

HOLD = "import sys; from pathlib import Path; from pixelwise.files import held, claimed\n"
posix = pytest.mark.skipif(os.name != "posix", reason="of Unix")


def started(code: str, *arguments: object) -> subprocess.Popen[str]:
    """A process that runs the code."""
    run = [sys.executable, "-c", HOLD + code, *map(str, arguments)]
    return subprocess.Popen(run, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


@contextmanager
def at_work(code: str, *arguments: object) -> Iterator[int]:
    """Run the code in a process that says "at work"; its id. It is killed in the end."""
    with started(code, *arguments) as process:
        assert process.stdout.readline() == "at work\n"
        yield process.pid
        process.kill()


def command(*arguments: object) -> Exception | None:
    """What a command raises; None where it does its work."""
    result = CliRunner().invoke(app, [*map(str, arguments)])
    return None if result.exit_code == 0 else result.exception


def test_who_holds_a_lock_is_said_to_a_process_and_to_a_thread(tmp_path):
    waits = "with held(Path(sys.argv[1]), 'it'): print('at work', flush=True); sys.stdin.read()"
    with at_work(waits, tmp_path / "lock") as process:
        says = f"it is being worked on by another run .process {process}.; wait"
        with pytest.raises(OutputError, match=says), held(tmp_path / "lock", "it"):
            pass
    assert (tmp_path / "lock").exists()
    found = []

    def try_it():
        try:
            with held(tmp_path / "lock", "it"):
                found.append("got it")
        except OutputError as error:
            found.append(str(error))

    with held(tmp_path / "lock", "it"):  # at once, whatever the dead one has left
        thread = threading.Thread(target=try_it)
        thread.start()
        thread.join()
    try_it()
    assert f"process {os.getpid()}" in found[0]
    assert found[1] == "got it"
    assert not list(tmp_path.iterdir())


@posix
def test_what_was_forked_off_does_not_hold_what_its_parent_held(tmp_path):
    """As the processes that load pictures for a training run, which outlive a kill by some seconds."""
    forks = """
import os
ready, say = os.pipe()
with held(Path(sys.argv[1]), 'it'):
    child = os.fork()
    if not child:
        os.write(say, b'.')
        sys.stdin.read()
        os._exit(0)
    os.read(ready, 1)
    print(child, flush=True)
    sys.stdin.read()
"""
    with started(forks, tmp_path / "lock") as process:
        child = int(process.stdout.readline())
        process.kill()
        process.wait()
        os.kill(child, 0)  # it is still there
        with held(tmp_path / "lock", "it"):
            pass
        process.stdin.close()


@posix
def test_what_was_forked_off_lets_nobody_into_what_its_parent_holds(tmp_path):
    """It leaves the block too, as a process that ends by an exception does."""
    forks = """
import os
with held(Path(sys.argv[1]), 'it'):
    if child := os.fork():
        print(os.waitpid(child, 0)[1], Path(sys.argv[1]).exists(), flush=True)
"""
    with started(forks, tmp_path / "lock") as process:
        assert process.stdout.readline() == "0 True\n"


@posix
@pytest.mark.parametrize("made_anew", [False, True])
def test_a_lock_whose_file_was_removed_while_one_waited_for_it_is_taken_anew(
    made_anew, tmp_path, monkeypatch
):
    path, lock = tmp_path / "lock", locks._lock

    def slow(handle, wait):
        monkeypatch.undo()
        path.unlink()
        if made_anew:
            path.touch()
        return lock(handle, wait)

    monkeypatch.setattr(locks, "_lock", slow)
    handle = locks.take(path)
    assert os.path.samestat(os.fstat(handle), path.stat())
    assert locks.take(path) is None
    locks.release(handle, path)
    assert not list(tmp_path.iterdir())


@posix
def test_a_lock_that_is_a_link_is_refused_and_nothing_is_written_through_it(tmp_path):
    other = tmp_path / "mine.txt"
    other.write_text("mine")
    for target in (other, tmp_path / "not there"):
        (tmp_path / "lock").symlink_to(target)
        with pytest.raises(OutputError, match="lock: it is a link; remove it"):
            held(tmp_path / "lock", "it").__enter__()
        (tmp_path / "lock").unlink()
    assert other.read_text() == "mine"
    assert not (tmp_path / "not there").exists()


def locks_of(kind: str, place: Path, user: Path) -> None:
    """Put something at `place` that is no lock of ours; `user` is the name of a file elsewhere."""
    if kind == "pipe":
        os.mkfifo(place)
    elif kind == "hard link":
        user.write_text("123")
        os.link(user, place)
    else:
        place.write_bytes({"text": b"precious\n", "digits": b"12 monkeys", "zeros": bytes(5000)}[kind])


@posix
@pytest.mark.parametrize("no_locks", [False, True])
@pytest.mark.parametrize("name", [".pixelwise-run-lock", ".a.labels.tif.lock"])
@pytest.mark.parametrize("kind", ["text", "digits", "zeros", "pipe", "hard link"])
def test_what_is_no_lock_of_ours_is_refused_and_stays(
    kind, name, no_locks, colors_model, tmp_path, monkeypatch
):
    if no_locks:
        monkeypatch.setattr("fcntl.flock", none)
    out, user = tmp_path / "out", tmp_path / "user.txt"
    out.mkdir()
    write_map(tmp_path / "a.tif", noise())
    locks_of(kind, out / name, user)
    before = os.lstat(out / name), None if kind == "pipe" else (out / name).read_bytes()
    run = ["segment", tmp_path / "a.tif", "--model", colors_model, "--out", out, "--tile", "64"]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", PixelwiseWarning)
        error = command(*run)
        assert isinstance(error, OutputError), error
        assert f"{out / name} lies where a lock belongs and is none of pixelwise's; move it away" in str(
            error
        )
        assert [path.name for path in out.iterdir()] == [name]
        assert os.lstat(out / name).st_mtime_ns == before[0].st_mtime_ns
        assert before[1] is None or (out / name).read_bytes() == before[1]
        (out / name).rename(tmp_path / "away")  # what the sentence says to do
        assert command(*run) is None
    assert {path.name for path in out.iterdir()} == {JOURNAL, "a.labels.tif"}


def test_what_becomes_somebodys_while_it_is_held_stays(tmp_path):
    with held(tmp_path / "lock", "it"):
        (tmp_path / "lock").rename(tmp_path / "away")
        (tmp_path / "lock").write_text("mine")
    assert (tmp_path / "lock").read_text() == "mine"
    with held(tmp_path / "other", "it"):
        (tmp_path / "other").write_text("mine")
    assert (tmp_path / "other").read_text() == "mine"


@pytest.mark.parametrize("left", [b"", b"123", b"123\n", b"pixelwise 123\n", bytes(14)])
def test_a_lock_that_a_killed_process_of_any_version_left_is_taken(left, tmp_path):
    (tmp_path / "lock").write_bytes(left)
    with held(tmp_path / "lock", "it"):
        pass
    assert not list(tmp_path.iterdir())


def none(*_):
    raise OSError(errno.ENOLCK, "No locks available")


@posix
def test_a_disc_without_locks_is_warned_of_and_used(tmp_path, monkeypatch):
    monkeypatch.setattr("fcntl.flock", none)
    with pytest.warns(PixelwiseWarning, match=f"{tmp_path} lies on a disc that knows no locks"):  # noqa: SIM117
        with held(tmp_path / "lock", "it"), files.writing(tmp_path / "a.txt") as temporary:
            temporary.write_text("whole")
    with pytest.warns(PixelwiseWarning, match="no locks"), claimed(tmp_path, [tmp_path / "b.txt"]):
        pass
    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]


def test_other_trouble_with_a_lock_is_one_sentence(tmp_path, monkeypatch):
    def read_only(*_, **__):
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(locks, "take", read_only)
    for attempt in (held(tmp_path / "lock", "it"), claimed(tmp_path, []), files.writing(tmp_path / "a.txt")):
        with pytest.raises(OutputError, match=r"cannot write .*Read-only file system; choose"):
            attempt.__enter__()


CLAIM = (
    "with claimed(Path(sys.argv[1]), map(Path, sys.argv[2:])): print('at work', flush=True); sys.stdin.read()"
)


def test_runs_share_a_folder_as_long_as_they_write_no_file_of_each_other(colors_model, tmp_path):
    for name in "abc":
        (tmp_path / name).mkdir()
        Image.fromarray(quadrants()).save(tmp_path / name / f"{name}.png")
    out, more = tmp_path / "out", ["--model", colors_model, "--out", tmp_path / "out", "--format", "npy"]
    with at_work(CLAIM, out, out / "a.npy", out / "b.npy") as process:
        for sources in (["b"], ["c", "b"]):
            error = command("segment", *(tmp_path / source for source in sources), *more)
            assert isinstance(error, OutputError), error
            assert f"b.npy is being worked on by another run (process {process})" in str(error)
        assert not list(out.glob("*.npy"))
        assert command("segment", tmp_path / "c", *more) is None
    assert list(out.glob(".pixelwise-run-*"))
    assert command("segment", tmp_path / "b", *more) is None
    assert {path.name for path in out.iterdir()} == {"b.npy", "c.npy"}


def test_whoever_meets_results_of_a_run_at_work_is_told_of_it_and_not_to_resume(colors_model, tmp_path):
    (tmp_path / "in").mkdir()
    for name in ("in/a", "in/b", "c"):
        Image.fromarray(quadrants()).save(tmp_path / f"{name}.png")
    out, more = tmp_path / "out", ["--model", colors_model, "--format", "npy", "--out", tmp_path / "out"]
    run, alone = ["segment", tmp_path / "in", *more], ["segment", tmp_path / "c.png", *more]
    assert command(*run) is None
    assert command(*alone) is None
    other_settings = [*run, "--resume", "--flip", "horizontal"]
    with at_work(CLAIM, out, *(out / f"{name}.npy" for name in "abc")) as process:
        for second in (run, alone, other_settings):
            assert f".npy is being worked on by another run (process {process})" in str(command(*second))
    assert "a.npy exists already; pass --resume" in str(command(*run))
    assert "c.npy exists already; pass --resume" in str(command(*alone))
    assert "holds results of other settings" in str(command(*other_settings))


@pytest.mark.parametrize("first", ["above", "below", "beside"])
def test_runs_whose_folders_lie_in_each_other_write_no_file_of_each_other(first, colors_model, tmp_path):
    (tmp_path / "in" / "sub").mkdir(parents=True)
    for name in ("a", "sub/q", "sub/r"):
        Image.fromarray(quadrants()).save(tmp_path / "in" / f"{name}.png")
    out, more = tmp_path / "out", ["--model", colors_model, "--format", "npy", "--overwrite", "--out"]
    above = ["segment", tmp_path / "in", *more, out]
    below = ["segment", tmp_path / "in" / "sub" / "q.png", *more, out / "sub"]
    place, second = {"above": (out, below), "below": (out / "sub", above), "beside": (out, below)}[first]
    file = "sub/r.npy" if first == "beside" else "sub/q.npy"
    with at_work(CLAIM, place, out / "a.npy" if first == "above" else out / file, out / file) as process:
        error = command(*second)
        if first == "beside":
            assert error is None
        else:
            assert isinstance(error, OutputError), error
            assert f"{out / file} is being worked on by another run (process {process})" in str(error)
            assert not list(out.rglob("*.npy"))
    assert command(*above) is None  # at once, whatever the dead one has left
    assert {path.name for path in out.rglob("*") if path.is_file()} == {JOURNAL, "a.npy", "q.npy", "r.npy"}


@pytest.mark.parametrize("left", ["", "a.npy"])
def test_claims_that_a_killed_run_left_go_also_where_all_is_finished(left, colors_model, tmp_path):
    (tmp_path / "in" / "sub").mkdir(parents=True)
    for name in ("a", "sub/q"):
        Image.fromarray(quadrants()).save(tmp_path / "in" / f"{name}.png")
    out = tmp_path / "out"
    run = ["segment", tmp_path / "in", "--model", colors_model, "--format", "npy", "--out", out]
    assert command(*run) is None
    with at_work(CLAIM, out, out / "a.npy", out / "sub" / "q.npy"):
        assert len(list(out.rglob(".pixelwise-run-*"))) == 2
    (out / "sub" / ".pixelwise-run-lock").touch()
    if left:
        (out / left).unlink()
    assert command(*run, "--resume") is None
    assert {path.name for path in out.rglob("*") if path.is_file()} == {JOURNAL, "a.npy", "q.npy"}


@posix
@pytest.mark.parametrize("name", [b"a\nb", b" a", b"a ", b"\xff", b'"a\\'])
def test_a_claim_holds_for_any_name(name, colors_model, tmp_path):
    name = os.fsdecode(name)
    (tmp_path / "in").mkdir()
    Image.fromarray(quadrants()).save(tmp_path / "in" / f"{name}.png")
    out = tmp_path / "out"
    run = ["segment", tmp_path / "in", "--model", colors_model, "--format", "npy", "--out", out]
    with at_work(CLAIM, out, out / f"{name}.npy") as process:
        assert f".npy is being worked on by another run (process {process})" in str(command(*run))
        assert not list(out.glob("*.npy"))
    with claimed(out, [out / f"{name}.npy"]):  # at once, whatever the dead one has left
        pass
    assert not out.exists() or not list(out.iterdir())


@posix
def test_what_is_no_claim_of_ours_stays_and_holds_nobody_up(colors_model, tmp_path):
    out, user = tmp_path / "out", tmp_path / "user.txt"
    out.mkdir()
    mine = {
        "123-0123abcd": "text",
        "12-00000000": "digits",
        "123-00000000": "hard link",
        "1-00000000": "pipe",
    }
    for name, kind in {**mine, "notes-mine": "text"}.items():
        locks_of(kind, out / f".pixelwise-run-{name}", user)
    user.write_text("123 is mine")
    before = sorted(out.iterdir())
    Image.fromarray(quadrants()).save(tmp_path / "a.png")
    run = ["segment", tmp_path / "a.png", "--model", colors_model, "--format", "npy", "--out", out]
    assert command(*run) is None
    assert sorted(out.iterdir()) == [*before, out / "a.npy"]
    assert user.read_text() == "123 is mine"
    assert (out / ".pixelwise-run-123-0123abcd").read_text() == "precious\n"


@posix
def test_more_folders_than_files_may_be_open_are_claimed_as_far_as_possible(tmp_path, monkeypatch):
    many = """
import resource, warnings
resource.setrlimit(resource.RLIMIT_NOFILE, (64, int(sys.argv[2])))
folders = [Path(sys.argv[1], str(i)) for i in range(100)]
with warnings.catch_warnings(record=True) as said, claimed(Path(sys.argv[1]), [f / 'a' for f in folders]):
    print(len(list(Path(sys.argv[1]).rglob('.pixelwise-run-*'))), *{str(w.message) for w in said}, flush=True)
"""
    for limit, expected in (
        (64, "32 the results go into 100 folders, and only 32 can be kept"),
        (1024, "100\n"),
    ):
        with started(many, tmp_path / "out", limit) as process:
            assert process.stdout.readline().startswith(expected)
        assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("attempt", [held, claimed, files.writing])
def test_a_folder_that_another_run_removes_before_the_lock_is_made_again(attempt, tmp_path, monkeypatch):
    make, calls, out = files.make_folder, [], tmp_path / "out"

    def removed_at_once(folder):
        make(folder)
        if folder == out:
            calls.append(folder)
            if len(calls) <= 2:
                folder.rmdir()

    monkeypatch.setattr(files, "make_folder", removed_at_once)
    arguments = {held: (out / "lock", "it"), claimed: (out, [out / "a"]), files.writing: (out / "a",)}[
        attempt
    ]
    with attempt(*arguments):
        (out / "a").write_text("whole")
    assert [path.name for path in out.iterdir()] == ["a"]


def test_of_many_that_claim_a_file_at_once_one_gets_it(tmp_path):
    races = """
sys.stdin.readline()
try:
    with claimed(Path(sys.argv[1]), [Path(sys.argv[1], 'it')]):
        print('got it', flush=True)
        sys.stdin.read()
except Exception as error:
    print(error, flush=True)
"""
    processes = [started(races, tmp_path) for _ in range(4)]
    for process in processes:
        process.stdin.write("go\n")
        process.stdin.flush()
    lines = [process.stdout.readline().strip() for process in processes]
    for process in processes:
        process.communicate()
    (first,) = (process for process, line in zip(processes, lines, strict=True) if line == "got it")
    assert sum(f"it is being worked on by another run (process {first.pid})" in line for line in lines) == 3


def test_nothing_is_left_of_a_claim_where_nothing_was_written(colors_model, tmp_path):
    (tmp_path / "bad.png").write_bytes(b"no picture")
    (tmp_path / "worse.png").write_bytes(b"no picture")
    sources = [tmp_path / "bad.png", tmp_path / "worse.png"]
    assert command("segment", *sources, "--model", colors_model, "--out", tmp_path / "out") is not None
    assert not (tmp_path / "out").exists()


@pytest.fixture
def train(tmp_path):
    """The arguments of a short run in the folder `out`."""
    config = {"steps": 1, "batch_size": 2, "model": "unet", "model_options": {"width": 4}, "image_size": 64}
    data = str(draw_folder(tmp_path / "data", 4))
    (tmp_path / "wanted.json").write_text(json.dumps({**config, "workers": 0, "data": data}))
    return ["train", "--config", tmp_path / "wanted.json", "--out", tmp_path / "out"]


def test_of_two_evaluations_in_one_folder_the_second_says_who_is_at_work(colors_model, tmp_path):
    data, out = draw_folder(tmp_path / "data", 2), tmp_path / "out"
    with held(out / LOCK, "it"):
        error = command("evaluate", "--data", data, "--model", colors_model, "--out", out)
        assert isinstance(error, InputError), error
        assert f"out is being worked on by another run (process {os.getpid()})" in str(error)
        assert [path.name for path in out.iterdir()] == [LOCK]


@pytest.mark.slow
def test_of_two_trainings_in_one_folder_the_second_says_who_is_at_work(train, tmp_path):
    run, says = tmp_path / "out", f"out is being worked on by another run (process {os.getpid()})"
    for lock in (LOCK, ".checkpoint.pt.lock"):  # the latter is held by `fit`, where it is called by itself
        with held(run / lock, "it"):
            assert says in str(command(*train))
            assert not (run / "checkpoint.pt").exists()
    assert command(*train) is None
    with held(run / LOCK, "it"):
        assert says in str(command("train", "--out", run, "--resume"))


def test_a_video_is_written_by_one_run_at_a_time(colors_model, tmp_path):
    pytest.importorskip("av")
    from fractions import Fraction

    from pixelwise.sources.video import VideoWriter

    with VideoWriter(tmp_path / "v.mp4", (40, 60), Fraction(10)) as writer:
        writer.add(np.zeros((40, 60, 3), np.uint8), Fraction(0))
    run = ["segment", tmp_path / "v.mp4", "--model", colors_model, "--out", tmp_path / "out"]
    with held(tmp_path / "out" / ".v.overlay.mp4.lock", "it"):
        assert f"v.overlay.mp4 is being worked on by another run (process {os.getpid()})" in str(
            command(*run)
        )
    assert command(*run) is None
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["v.overlay.mp4"]


@pytest.mark.slow
def test_of_runs_that_resume_one_raster_at_once_none_writes_beside_another(
    colors_model, tmp_path, monkeypatch
):
    """As typed, and all started together: one is at work at a time, whichever, and the map is what one alone writes."""
    run, _ = unfinished(tmp_path, colors_model, monkeypatch)
    start = [sys.executable, "-m", "pixelwise", *map(str, run), "--resume"]
    processes = [subprocess.Popen(start, stderr=subprocess.PIPE, text=True) for _ in range(4)]
    said = [process.communicate()[1] for process in processes]
    codes = [process.returncode for process in processes]
    assert 0 in codes, said
    for code, words in zip(codes, said, strict=True):
        assert code == 0 or (code == 2 and "is being worked on by another run (process " in words), words
    np.testing.assert_array_equal(labels(tmp_path / "out"), Segmenter(colors_model)(noise(), tile=64).labels)
    assert {path.name for path in (tmp_path / "out").iterdir()} == {JOURNAL, "map.labels.tif"}

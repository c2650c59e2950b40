"""`pixelwise selftest`: each check sees what it is there for and is named, and a report tells nothing private."""

from __future__ import annotations

import getpass
import hashlib
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from contextlib import nullcontext
from dataclasses import replace
from importlib import resources
from pathlib import Path

import numpy as np
import pytest

from pixelwise import kernels, opening
from pixelwise.catalog.embedded import ROWS
from pixelwise.engines import ENGINES
from pixelwise.errors import MissingExtraError, OutputError, PixelwiseError, UnknownNameError
from pixelwise.selftest import answers, checks, definitions, hostile, machine, reference, run

ROOT = Path(__file__).parents[1]
SOURCES = Path(hostile.__file__).parent


def only(name: str, **more):
    """The result of one check."""
    (result,) = run([name], **more).results
    return result


def command(*arguments: str, **environment: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-m", "pixelwise", "selftest", *arguments],
        capture_output=True, encoding="utf-8", env={**os.environ, **environment},
    )  # fmt: skip


# The command -------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_whole_selftest_passes_here():
    done = command()
    assert done.returncode == 0, done.stdout + done.stderr
    lines = done.stdout.splitlines()
    names = [check.name for check in checks.all_checks()]
    assert [line[:22].strip() for line in lines[: len(names)]] == names
    table = [line.split()[0] for line in lines[len(names) : -1]]
    assert table == ["engine", *ENGINES]
    assert re.fullmatch(r"\d+ ok, 0 failed, \d+ skipped in \d+ s", lines[-1])


def test_a_check_that_fails_is_named_and_the_exit_code_is_1(tmp_path):
    (tmp_path / "file").write_text("no folder")
    done = command("installation", "caches", PIXELWISE_CACHE=str(tmp_path / "file" / "below"))
    assert done.returncode == 1, done.stderr
    installation, caches, last = done.stdout.splitlines()
    assert installation.startswith("installation           ok ")
    assert re.match(r"caches +failed +cannot write .*PIXELWISE_CACHE names it", caches)
    assert str(tmp_path / "file" / "below") in caches, "one must see which folder to mend"
    assert "<" not in caches
    assert last.startswith("1 ok, 1 failed, 0 skipped in ")
    assert "Traceback" not in done.stderr


@pytest.mark.skipif(os.name != "posix", reason="names that Windows does not have")
def test_a_folder_on_the_terminal_cannot_control_it(tmp_path):
    (tmp_path / "red\x1b[31m\n").write_text("no folder")
    done = command("caches", PIXELWISE_CACHE=str(tmp_path / "red\x1b[31m\n" / "below"))
    assert done.returncode == 1, done.stderr
    assert len(done.stdout.splitlines()) == 2
    assert f"{tmp_path}/red\\x1b[31m\\n/below" in done.stdout
    assert "\x1b" not in done.stdout


def test_a_cache_that_no_variable_names_is_not_said_to_be_named_by_one(monkeypatch, tmp_path):
    (tmp_path / "file").write_text("no folder")
    monkeypatch.delenv("PIXELWISE_CACHE", raising=False)
    monkeypatch.setattr(checks, "cache_dir", lambda: tmp_path / "file" / "below")
    report = run(["caches"])
    (result,) = report.results
    assert result.outcome == "failed"
    assert re.search(r"or name another in PIXELWISE_CACHE$", result.says)
    assert "PIXELWISE_CACHE names it" not in result.says
    assert str(tmp_path) in result.local
    assert str(tmp_path) not in result.says + repr(report) + json.dumps(report.to_dict())


@pytest.mark.slow
def test_the_report_as_json_stands_alone_on_stdout():
    done = command("engine onnx", "--json")
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["ok"] is True
    assert [result["name"] for result in report["results"]] == ["engine onnxruntime"]
    assert report["engines"]["onnxruntime"]["largest_difference"] < checks.FAR
    assert report["versions"]["numpy"] == np.__version__
    assert report["machine"]["cores_allowed"] == kernels.threads()
    assert done.stderr.startswith("engine onnxruntime     ok ")


def test_a_name_that_no_check_has_is_refused_with_the_names_there_are():
    done = command("engnie")
    assert done.returncode == 2
    assert "Unknown check 'engnie'" in done.stderr
    with pytest.raises(UnknownNameError, match="'caches'"):
        run(["cache", "cahces"])


def test_a_folder_that_cannot_be_written_is_refused(tmp_path):
    with pytest.raises(OutputError, match=r"cannot make a folder in .*nowhere"):
        run(["installation"], folder=tmp_path / "nowhere")


def test_nothing_is_left_where_the_checks_worked(tmp_path):
    assert only("engine onnxruntime", folder=tmp_path).outcome == "ok"
    assert not list(tmp_path.iterdir())


# What a check is there for -----------------------------------------------------------------------------------


def test_a_package_that_is_too_old_is_named(monkeypatch):
    monkeypatch.setattr(machine, "requirements", lambda: {"numpy": ("99.1", None), "absent": ("", None)})
    result = only("installation")
    assert result.outcome == "failed"
    assert f"numpy {np.__version__} (needed: 99.1 or newer), absent; run: pip install" in result.says


def test_a_file_that_is_not_the_wheels_is_named(monkeypatch, tmp_path):
    about, _ = as_pip_leaves_it(tmp_path, monkeypatch)
    hash = "OjXXzsULnAbrMU4-SYA5RH6fCe7rICoJD2V85PSKEHQ"  # of neither
    (about / "RECORD").write_text(f"pixelwise/a.py,sha256={hash},6\npixelwise/c.py,sha256={hash},6\n")
    result = only("installation")
    assert result.outcome == "failed"
    assert (
        "2 files of pixelwise are not those of the wheel (pixelwise/a.py, pixelwise/c.py); run: pip"
        in result.says
    )


@pytest.mark.parametrize("record", [None, "", "pixelwise/a.py,,\npixelwise-1.0.dist-info/RECORD,,\n"])
def test_an_installation_whose_list_of_files_is_gone_is_named(record, monkeypatch, tmp_path):
    about, _ = as_pip_leaves_it(tmp_path, monkeypatch)
    if record is not None:
        (about / "RECORD").write_text(record)
    result = only("installation")
    assert result.outcome == "failed"
    assert re.search(r"\(RECORD in its .dist-info folder\) is missing .* run: pip install", result.says)
    monkeypatch.setattr(checks, "_package", lambda: tmp_path / "elsewhere" / "pixelwise")
    result = only("installation")
    assert result.outcome == "ok"
    assert result.says.endswith("installed in place (editable), so no file was compared with a hash")


def as_pip_leaves_it(tmp_path, monkeypatch) -> tuple[Path, Path]:
    """The folder of its metadata, without a record of its files' hashes, and the package."""
    package = tmp_path / "pixelwise"
    package.mkdir()
    (package / "a.py").write_text("a = 1\n")
    (package / "b.py").write_text("b = 1\n")
    about = tmp_path / "pixelwise-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text(
        "Metadata-Version: 2.4\nName: pixelwise\nVersion: 1.0\nRequires-Dist: numpy>=1.26\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(checks, "_package", lambda: package)
    return about, package


def test_an_engine_that_computes_something_else_is_named(monkeypatch):
    pytest.importorskip("torch", reason="the engine is patched after it was opened")
    from pixelwise.engines.onnxruntime import OnnxRuntimeEngine

    right = OnnxRuntimeEngine.__call__
    monkeypatch.setattr(OnnxRuntimeEngine, "__call__", lambda self, images: right(self, images) * 1.001)
    result = only("engine onnxruntime")
    assert (result.name, result.outcome) == ("engine onnxruntime", "failed")
    assert re.match(
        r"logits differ from the definition by 0\.0\d+ of their range, allowed is 0\.0001", result.says
    )


@pytest.mark.parametrize("factor", [np.nan, np.inf])
def test_logits_and_confidences_that_are_no_numbers_are_not_equal_to_anything(factor, monkeypatch):
    pytest.importorskip("torch", reason="the engine is patched after it was opened")
    from pixelwise.engines.onnxruntime import OnnxRuntimeEngine
    from pixelwise.segmenter import Segmenter

    right = OnnxRuntimeEngine.__call__
    with monkeypatch.context() as patch:
        patch.setattr(
            OnnxRuntimeEngine, "__call__", lambda self, images: right(self, images) * np.float32(factor)
        )
        assert "are not all finite numbers" in only("engine onnxruntime").says
    with monkeypatch.context() as patch:
        answer = Segmenter.__call__

        def doubtful(self, image, **options):
            found = answer(self, image, **options)
            return replace(found, confidence=np.full(found.labels.shape, factor, np.float32))

        patch.setattr(Segmenter, "__call__", doubtful)
        result = only("model nuclei")
        assert (result.outcome, "mean confidence is" in result.says) == ("failed", True), result.says


@pytest.mark.parametrize("name", ROWS)
def test_every_model_in_the_package_has_a_stored_answer_and_gives_it(name):
    assert only(f"model {name}").says == "the file has the stored hash, 192 pixels have the stored classes"


@pytest.mark.parametrize("name", ROWS)
def test_the_stored_hash_is_that_of_the_models_file(name):
    path = Path(str(resources.files("pixelwise"))) / "assets" / ROWS[name].asset
    assert hashlib.sha256(path.read_bytes()).hexdigest() == answers.ANSWERS[name].sha256


@pytest.mark.parametrize("name", ROWS)
def test_a_model_with_one_flipped_byte_is_named(name, monkeypatch, tmp_path):
    """Though the answers of such a file are well within what other processors may differ by."""
    copy = another_asset(name, monkeypatch, tmp_path)
    content = bytearray(copy.read_bytes())
    content[len(content) // 2] ^= 1
    copy.write_bytes(content)
    result = only(f"model {name}")
    assert (result.name, result.outcome) == (f"model {name}", "failed")
    assert re.search(rf"{name}.onnx has the SHA-256 .*; run: pip install --force-reinstall", result.says)
    copy.unlink()
    assert re.search(rf"{name}.onnx cannot be read \(.*\); run: pip install", only(f"model {name}").says)


def another_asset(name, monkeypatch, tmp_path) -> Path:
    """A copy of a model's file, which is opened in its place."""
    (tmp_path / "assets").mkdir()
    asset = Path(str(resources.files("pixelwise"))) / "assets" / f"{name}.onnx"
    monkeypatch.setattr(opening.resources, "files", lambda package: tmp_path)
    return Path(shutil.copy(asset, tmp_path / "assets"))


def test_a_model_whose_weights_are_damaged_is_named(monkeypatch, tmp_path):
    """A file that opens and runs all the same, and whose hash is the stored one."""
    copy = another_asset("nuclei", monkeypatch, tmp_path)
    content = bytearray(copy.read_bytes())
    middle = len(content) // 2 // 4 * 4
    content[middle : middle + 40_000] = bytes(40_000)
    copy.write_bytes(content)
    stored = replace(answers.ANSWERS["nuclei"], sha256=hashlib.sha256(content).hexdigest())
    monkeypatch.setitem(answers.ANSWERS, "nuclei", stored)
    result = only("model nuclei")
    assert (result.name, result.outcome) == ("model nuclei", "failed")
    assert "of the pixels have another class than stored" in result.says


def test_a_model_without_a_stored_answer_is_named(monkeypatch):
    monkeypatch.setattr(answers, "ANSWERS", {})
    assert "there is no stored answer" in only("model nuclei").says


@pytest.mark.parametrize(
    ("patched", "what"),
    [
        ("decide_rows", "labels and confidence"),
        ("decide_rows_with_confidence", "labels and confidence"),
        ("count_pairs", "counts of pairs"),
        ("stitch_tile", "tiles"),
        ("connected", "polygons"),
        ("fill_polygon", "polygons"),
        ("fill_holes", "clean-up"),
        ("give_away", "clean-up"),
        ("relabel", "clean-up"),
        ("warp", "warped borders"),
    ],
)
def test_a_compiled_loop_that_gives_something_else_is_named(patched, what, monkeypatch):
    """Each loop is replaced by one that leaves zeros in its arrays: what is in them before may be any number, which the
    next loop would look up."""

    def nothing(*arguments):
        worked = copied(arguments)
        result = right(*worked)
        for given, done in zip(arguments, worked, strict=True):
            if isinstance(given, np.ndarray) and not np.array_equal(given, done):
                given[...] = 0
        return result

    def copied(value):
        if isinstance(value, tuple):
            return tuple(copied(one) for one in value)
        return value.copy() if isinstance(value, np.ndarray) else value

    right = getattr(kernels, patched)
    nothing.py_func = getattr(right, "py_func", None)
    monkeypatch.setattr(kernels, patched, nothing)
    monkeypatch.setattr(definitions, "COMPARED", {what: definitions.COMPARED[what]})
    result = only("kernels")
    assert (result.name, result.outcome) == ("kernels", "failed")
    assert what in result.says or "IndexError" in result.says or result.trace


def test_compiled_loops_agree_with_numpy():
    assert only("kernels").outcome == "ok"


def test_a_file_that_is_not_refused_is_named(monkeypatch, tmp_path):
    picture = tmp_path / "fine.png"
    picture.write_bytes(hostile._picture("PNG"))
    assert hostile.verdict(hostile.images.read, picture) == "was read, expected to be refused"
    assert "ended as ZeroDivisionError" in hostile.verdict(lambda path: 1 / 0, picture)
    assert hostile.verdict(refuse("two\nlines"), picture) == "was refused in more than one line"
    monkeypatch.setattr(hostile, "_megabytes", iter([100, 900]).__next__)
    assert hostile.verdict(refuse("one line"), picture).startswith("took 800 MB")


def refuse(sentence: str):
    def reader(path):
        raise PixelwiseError(sentence)

    return reader


def test_a_file_that_runs_code_is_named(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "pickle.pt"
    path.write_bytes(hostile.CHECKPOINTS["pickle.pt"]())

    def careless(path: Path) -> None:
        import pickle

        pickle.loads(path.read_bytes())

    assert hostile.verdict(careless, path) == "ran code that the file brought (ran-pt)"
    assert not (tmp_path / "ran-pt").exists()


def test_a_file_that_ends_the_process_is_named(monkeypatch):
    def crash(bench, module, *arguments, check):
        return subprocess.CompletedProcess([], -11, stdout='["bomb.png", null]\n', stderr="")

    monkeypatch.setattr(checks, "_child", crash)
    assert only("hostile pictures").says == "reading bomb.gif ended the process: signal 11"


def test_a_process_that_hangs_is_named(monkeypatch):
    monkeypatch.setattr(checks, "PATIENCE_S", 0.01)
    assert "was not done after 0.01 seconds" in only("hostile pictures").says


def test_the_hostile_set_is_small_and_has_ninety_files():
    assert sum((SOURCES / name).stat().st_size for name in ("hostile.py", "reference.py")) < 30_000
    groups = ("pictures", "files", "checkpoints", "rasters", "videos")
    counts = {group: len(hostile.cases(group, "http://127.0.0.1:9")) for group in groups}
    assert sum(counts.values()) >= 90, counts


@pytest.mark.slow
@pytest.mark.parametrize("group", ["pictures", "files", "checkpoints", "rasters", "videos"])
def test_hostile_files_are_refused(group):
    result = only(f"hostile {group}")
    assert result.outcome == "ok", result.says


def test_what_needs_an_extra_is_skipped_with_its_name(monkeypatch):
    monkeypatch.setattr(checks, "find_spec", lambda name: None)
    results = {
        result.name: result for result in run(["engine p", "hostile c", "hostile r", "hostile v"]).results
    }
    assert {name: result.outcome for name, result in results.items()} == dict.fromkeys(results, "skipped")
    for name, extra in (
        ("engine pytorch", "torch"),
        ("hostile rasters", "raster"),
        ("hostile videos", "video"),
    ):
        assert results[name].says == str(MissingExtraError("this check", extra))


@pytest.mark.skipif(os.name != "posix", reason="modes of POSIX")
@pytest.mark.parametrize("below", [".", "cache"])
def test_a_cache_in_which_others_may_write_is_named(below, tmp_path, monkeypatch):
    """Or one that lies in a folder in which they may."""
    (tmp_path / "open").mkdir()
    (tmp_path / "open").chmod(0o777)
    monkeypatch.setenv("PIXELWISE_CACHE", str(tmp_path / "open" / below))
    result = only("caches")
    assert result.outcome == "failed"
    assert "(mode 777); run: chmod o-w on it" in result.says
    (tmp_path / "open").chmod(0o775)  # a group's, as on systems where each user has one
    assert only("caches").outcome == "ok"
    assert (tmp_path / "open" / below / "kernels").stat().st_mode & 0o777 == 0o700


@pytest.mark.skipif(os.name != "posix" or os.geteuid() != 0, reason="needs to give a folder away")
@pytest.mark.parametrize("below", [".", "cache"])
def test_a_cache_in_the_folder_of_another_user_is_named(below, tmp_path, monkeypatch):
    (tmp_path / "theirs").mkdir()
    os.chown(tmp_path / "theirs", 12345, 12345)
    monkeypatch.setenv("PIXELWISE_CACHE", str(tmp_path / "theirs" / below))
    result = only("caches")
    assert result.outcome == "failed"
    assert "belongs to another user; name a folder of your own" in result.says


def test_a_folder_for_compiled_loops_that_cannot_be_used_is_named(tmp_path, monkeypatch):
    (tmp_path / "kernels").write_text("no folder")
    monkeypatch.setenv("PIXELWISE_CACHE", str(tmp_path))
    assert "for compiled loops, cannot be used (it is no folder); remove it" in only("caches").says


def test_a_link_in_place_of_the_folder_for_compiled_loops_is_said_to_be_one(tmp_path, monkeypatch):
    (tmp_path / "elsewhere").mkdir()
    try:
        (tmp_path / "kernels").symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    except OSError:
        pytest.skip("this system makes no links")
    monkeypatch.setenv("PIXELWISE_CACHE", str(tmp_path))
    assert "cannot be used (it is a link, not a folder of its own); remove it" in only("caches").says


@pytest.mark.slow
def test_a_segmenter_works_in_processes_of_every_kind():
    assert only("processes").outcome == "ok"


def test_a_process_without_an_answer_is_named(monkeypatch):
    def silent(bench, module, *arguments, check):
        return subprocess.CompletedProcess(
            [], 1, stdout="", stderr="the process gave no answer within 40 seconds\n"
        )

    monkeypatch.setattr(checks, "_child", silent)
    assert re.match(
        r"a Segmenter in a process of \w+: code 1: the process gave no answer", only("processes").says
    )


@pytest.mark.slow
def test_files_are_replaced_whole_and_locks_hold():
    result = only("atomic writing")
    assert result.outcome == "ok", result.says


def test_a_file_that_is_met_half_written_is_named(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"00000001" * 3)
    with pytest.raises(checks.Failed, match=r"half written \(24 bytes\)"):
        checks._whole(path)


def test_a_lock_that_is_given_away_is_named(monkeypatch):
    monkeypatch.setattr(checks, "held", lambda path, what: nullcontext())
    assert "a lock that another process holds was given away" in only("atomic writing").says


@pytest.mark.slow
def test_a_run_that_is_killed_and_gone_on_with_gives_the_same_files():
    result = only("kill and resume")
    assert result.outcome == "ok", result.says


@pytest.mark.slow
@pytest.mark.parametrize("how", ["changed", "gone"])
def test_a_file_that_differs_after_a_kill_is_named(how, monkeypatch):
    ran = checks._child

    def careless(bench, module, *arguments, **more):
        done = ran(bench, module, *arguments, **more)
        if "--resume" in arguments:
            file = Path(arguments[arguments.index("--out") + 1]) / "3.json"
            file.write_text("{}") if how == "changed" else file.unlink()
        return done

    monkeypatch.setattr(checks, "_child", careless)
    assert "after a kill and --resume 1 files differ, such as 3.json" in only("kill and resume").says


def test_an_exception_that_nobody_foresaw_is_a_failure_with_its_places(monkeypatch):
    def broken(name):
        raise ZeroDivisionError("by zero")

    monkeypatch.setattr(checks, "open_model", lambda *arguments: broken("x"))
    result = only("engine onnxruntime")
    assert (result.outcome, result.says) == ("failed", "ZeroDivisionError: by zero")
    assert any(place.startswith("selftest/checks.py:") for place in result.trace)


# The definition ----------------------------------------------------------------------------------------------


def test_the_file_written_by_hand_is_valid_onnx():
    onnx = pytest.importorskip("onnx")
    onnx.checker.check_model(onnx.load_from_string(reference.in_onnx()), full_check=True)


def test_every_class_of_the_small_network_wins_somewhere():
    image = answers.picture().transpose(2, 0, 1)[None] / np.float32(127.5) - np.float32(1)
    assert set(reference.by_definition(image).argmax(axis=1).ravel()) == set(range(reference.CLASSES))


# What is private ---------------------------------------------------------------------------------------------


def test_a_report_tells_no_folder_no_name_and_no_value_of_the_environment(tmp_path):
    """Of a failure, whose sentence and exception have all of them."""
    home = tmp_path / "home of jane"
    (home / "work").mkdir(parents=True)
    (home / "cache").write_text("no folder")
    environment = {
        "HOME": str(home), "USER": "jane_doe", "LOGNAME": "jane_doe", "SECRET_TOKEN": "hunter2-and-more",
        "PIXELWISE_CACHE": str(home / "cache" / "jane_doe"), "PYTHONPATH": str(ROOT / "src"),
    }  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-m", "pixelwise", "selftest", "caches", "installation", "engine onnx", "--json"],
        capture_output=True, encoding="utf-8", cwd=home / "work", env={**os.environ, **environment},
    )  # fmt: skip
    assert done.returncode == 1, done.stderr
    report = json.loads(done.stdout)
    assert report["results"][-1]["outcome"] == "failed"
    text = done.stdout + done.stderr
    for private in (
        str(tmp_path),
        str(home),
        "jane",
        "hunter2",
        sys.prefix,
        str(ROOT),
        tempfile.gettempdir(),
    ):
        assert private not in text, private
    assert "SECRET_TOKEN" not in text
    assert "<home>" in text or "<environment>" in text


@pytest.mark.parametrize(
    ("private", "public"),
    [
        ("{here}/photos/cat.jpg is damaged", "<here>/photos/cat.jpg is damaged"),
        (
            "cannot write /data/of a stranger/secret/cat.png",
            "cannot write <path>/of a stranger/secret/cat.png",
        ),
        ("no such file: /srv/secret/cat.png", "no such file: <path>/cat.png"),
        (r"no such file: 'D:\secret\cat.png'", "no such file: '<path>/cat.png'"),
        ("{user} on {machine} has it", "<user> on <machine> has it"),
        ("{user}s and {machine}x", "{user}s and {machine}x"),
        ("the value hunter2-and-more", "the value <environment>"),
        ("a share of 3/4, NumPy 1.26, and/or", "a share of 3/4, NumPy 1.26, and/or"),
    ],
)
def test_private_words_become_words_in_brackets(private, public, monkeypatch, tmp_path):
    monkeypatch.setenv("SECRET_TOKEN", "hunter2-and-more")
    monkeypatch.setattr(getpass, "getuser", lambda: "zaphod")
    monkeypatch.setattr(platform, "node", lambda: "heartofgold")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(tempfile, "gettempdir", lambda: "/nowhere-at-all")
    words = {"here": os.getcwd(), "user": "zaphod", "machine": "heartofgold"}
    assert machine.scrubbed(private.format(**words)) == public.format(**words)

"""The command line as a user runs it."""

from __future__ import annotations

import gc
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from pixelwise.cli.app import app
from pixelwise.errors import InputError
from tiny import quadrant_labels, quadrants


def pixelwise(*arguments: object, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "pixelwise", *map(str, arguments)],
        capture_output=True, text=True, cwd=cwd, env={**os.environ, **environment},
    )  # fmt: skip


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    path = tmp_path / "photos" / "quarters.png"
    path.parent.mkdir()
    Image.fromarray(quadrants()).save(path)
    return path


def refused(result: subprocess.CompletedProcess[str], *says: str, exit_code: int = 2) -> None:
    """One sentence on stderr, nothing on stdout, and the exit code."""
    assert result.returncode == exit_code, result.stderr
    assert result.stdout == ""
    assert len(result.stderr.strip().splitlines()) == 1, result.stderr
    assert result.stderr.startswith("pixelwise: ")
    for words in says:
        assert words in result.stderr


def nothing_written(folder: Path, photo: Path) -> None:
    assert [p for p in folder.rglob("*") if p.is_file() and p != photo] == []


def test_one_photo(photo, colors_model, tmp_path):
    result = pixelwise("segment", photo, "--model", colors_model, "--out", "out", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert result.stderr == ""
    assert "red 25.0%" in result.stdout
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == [
        "quarters.labels.png",
        "quarters.overlay.png",
    ]
    labels = np.asarray(Image.open(tmp_path / "out" / "quarters.labels.png"))
    np.testing.assert_array_equal(labels, quadrant_labels())


def test_json_formats_and_masks(photo, colors_model, tmp_path):
    arguments = [
        "segment",
        photo,
        "--model",
        colors_model,
        "--format",
        "npy,confidence",
        "--mask",
        "blue",
        "--json",
    ]
    result = pixelwise(*arguments, cwd=tmp_path)
    values = json.loads(result.stdout)
    assert {c["name"]: c["share"] for c in values["classes"]} == dict.fromkeys(
        ("dark", "red", "green", "blue"), 0.25
    )
    np.testing.assert_array_equal(np.load(tmp_path / values["files"]["npy"]), quadrant_labels())
    mask = np.asarray(Image.open(tmp_path / "quarters.blue.png"))
    np.testing.assert_array_equal(mask, quadrant_labels() == 3)
    assert (tmp_path / "quarters.confidence.png").exists()


def test_a_folder_keeps_its_shape_and_one_bad_file_does_not_stop_it(photo, colors_model, tmp_path):
    (photo.parent / "a").mkdir()
    (photo.parent / "a" / "broken.jpg").write_bytes(b"\xff\xd8 no picture")
    Image.fromarray(quadrants()).save(photo.parent / "a" / "second.bmp")
    result = pixelwise(
        "segment", photo.parent, "--model", colors_model, "--out", "out", "--format", "ids", cwd=tmp_path
    )
    assert result.returncode == 2
    written = sorted(str(p.relative_to(tmp_path / "out")) for p in (tmp_path / "out").rglob("*.png"))
    assert written == ["a/second.ids.png", "quarters.ids.png"]
    assert "broken.jpg" in result.stderr
    assert "1 of 3 pictures failed" in result.stderr
    assert len(result.stdout.splitlines()) == 2


def test_bad_inputs_get_one_sentence_and_leave_nothing(photo, colors_model, tmp_path):
    whole = photo.read_bytes()
    bad = tmp_path / "bad"
    bad.mkdir()
    (bad / "empty.png").touch()
    (bad / "cut.png").write_bytes(whole[: len(whole) // 2])
    (bad / "text.png").write_text("hello")
    Image.new("1", (30_000, 30_000)).save(bad / "bomb.png")
    for name, says in {
        "empty": "is empty",
        "cut": "cut short",
        "text": "not a picture",
        "bomb": "limit",
    }.items():
        arguments = ["segment", bad / f"{name}.png", "--model", colors_model, "--out", "out"]
        refused(pixelwise(*arguments, cwd=tmp_path), f"{name}.png", says)
    refused(pixelwise("segment", bad / "none.png", "--out", "out", cwd=tmp_path), "no such file")
    assert not (tmp_path / "out").exists()


def test_names_that_do_not_exist_are_answered_with_near_ones(photo, colors_model, tmp_path):
    run = ["segment", photo, "--out", "out"]
    refused(pixelwise(*run, "--model", "evryday", cwd=tmp_path), "'everyday'")
    refused(pixelwise(*run, "--model", colors_model, "--mask", "bleu", cwd=tmp_path), "'blue'")
    refused(pixelwise(*run, "--model", colors_model, "--format", "label", cwd=tmp_path), "'labels'")
    refused(pixelwise(*run, "--model", colors_model, "--engine", "onnx", cwd=tmp_path), "onnxruntime")
    refused(pixelwise("models", "deplab*", cwd=tmp_path), "deplab*")
    assert not (tmp_path / "out").exists()


def test_results_are_not_replaced_unless_told(photo, colors_model, tmp_path):
    run = ["segment", photo, "--model", colors_model, "--format", "labels"]
    existing = tmp_path / "quarters.labels.png"
    existing.write_text("mine")
    refused(pixelwise(*run, cwd=tmp_path), "exists already", "--overwrite")
    assert existing.read_text() == "mine"
    assert pixelwise(*run, "--overwrite", cwd=tmp_path).returncode == 0
    np.testing.assert_array_equal(np.asarray(Image.open(existing)), quadrant_labels())


def test_two_inputs_for_one_result_and_results_over_inputs(photo, colors_model, tmp_path):
    twin = tmp_path / "quarters.jpg"
    Image.fromarray(quadrants()).save(twin)
    refused(pixelwise("segment", photo, twin, "--model", colors_model, cwd=tmp_path), "both be written")
    own = tmp_path / "x.labels.png"
    photo.rename(own)
    refused(
        pixelwise("segment", own, "--model", colors_model, "--format", "labels", "--overwrite", "--mask", "red",
                  "--out", own, cwd=tmp_path), "is a file",
    )  # fmt: skip


def test_an_out_that_cannot_be_a_folder(photo, colors_model, tmp_path):
    run = ["segment", photo, "--model", colors_model, "--out"]
    refused(pixelwise(*run, photo, cwd=tmp_path), "would overwrite its own input")
    nothing_written(tmp_path, photo)
    (tmp_path / "notes").write_text("mine")
    refused(pixelwise(*run, "notes", cwd=tmp_path), "is a file")
    assert (tmp_path / "notes").read_text() == "mine"


@pytest.mark.skipif(not hasattr(os, "geteuid"), reason="needs Unix permissions")
def test_an_out_without_permission(photo, colors_model, tmp_path):
    """/proc refuses everybody, root too."""
    if not Path("/proc/self").exists():
        pytest.skip("needs a folder that nobody may write to")
    refused(
        pixelwise("segment", photo, "--model", colors_model, "--out", "/proc/out", cwd=tmp_path),
        "cannot write",
    )


def test_debug_shows_the_traceback(tmp_path):
    result = pixelwise("segment", "none.png", "--debug", cwd=tmp_path)
    assert result.returncode != 0
    assert "Traceback" in result.stderr


def test_wrong_options_are_exit_code_2(tmp_path):
    assert pixelwise("segment", cwd=tmp_path).returncode == 2
    assert pixelwise("segment", "x.png", "--modle", "x", cwd=tmp_path).returncode == 2


@pytest.mark.parametrize(
    ("option", "value", "says"),
    [
        ("tile", "huge", "a number of pixels, or auto, got 'huge'"),
        ("overlap", "much", "a share below 1"),
        ("window", "gauss", "'gaussian'"),
        ("flip", "sideways", "horizontal"),
        ("scales", "1,two", "0.75,1,1.25"),
        ("bands", "4,x", "4,3,2"),
        ("scale", "7", "two numbers"),
        ("crf", "vg", "vgg"),
        ("rotate", "half", "90,180,270"),
        ("average", "logit", "'logits'"),
    ],
)
def test_options_that_are_no_numbers_or_names_get_one_sentence(option, value, says):
    typed = CliRunner().invoke(app, ["segment", "x.png", f"--{option}", value])
    assert isinstance(typed.exception, InputError)
    assert says in str(typed.exception)


def test_tiles_flips_and_scales_reach_the_segmenter(photo, colors_model, tmp_path):
    """The colours model does not care for flips, so the label map is the one without."""
    run = ["segment", photo, "--model", colors_model, "--format", "npy", "--tile", "32", "--overlap", "8"]
    views = ("--flip", "horizontal,vertical", "--rotate", "90", "--average", "probabilities")
    result = pixelwise(*run, "--window", "linear", *views, "--seams", "--out", "a", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert result.stderr.startswith(f"pixelwise: {photo}: neighbouring tiles differ on ")
    np.testing.assert_array_equal(np.load(tmp_path / "a" / "quarters.npy"), quadrant_labels())
    bad = pixelwise(*run, "--scales", "0,1", "--out", "b", cwd=tmp_path)
    refused(bad, "positive factors")
    refused(pixelwise(*run[:-1], "32", "--out", "b", cwd=tmp_path), "overlap")
    refused(pixelwise(*run[:6], "--seams", "--out", "b", cwd=tmp_path), "such as --tile 512")


@pytest.mark.skipif(not hasattr(os, "openpty"), reason="needs a terminal to pretend")
def test_a_bar_on_the_terminal_leaves_stdout_to_the_results(photo, colors_model, tmp_path):
    Image.fromarray(quadrants()).save(photo.parent / "second.png")
    ours, theirs = os.openpty()
    run = [
        sys.executable,
        "-m",
        "pixelwise",
        "segment",
        str(photo.parent),
        "--model",
        str(colors_model),
        "--json",
    ]
    with subprocess.Popen(run, stdout=subprocess.PIPE, stderr=theirs, cwd=tmp_path) as process:
        os.close(theirs)
        assert process.stdout is not None
        lines = process.stdout.read().splitlines()
        shown = os.read(ours, 65536)
    os.close(ours)
    assert process.returncode == 0
    assert sorted(Path(json.loads(line)["image"]).name for line in lines) == ["quarters.png", "second.png"]
    assert b"Segmenting" in shown
    assert b"100%" in shown


def test_models_lists_names_and_cards(tmp_path):
    result = pixelwise("models", "*resnet*", "--json", cwd=tmp_path)
    cards = json.loads(result.stdout)
    assert cards["deeplabv3_resnet50"]["parameters"] == 42_004_074
    table = pixelwise("models", "*resnet*", cwd=tmp_path).stdout
    assert all(name in table for name in cards)


def test_version_and_help(tmp_path):
    import pixelwise as package

    assert pixelwise("--version", cwd=tmp_path).stdout.strip() == package.__version__
    assert "segment" in pixelwise("--help", cwd=tmp_path).stdout


def test_weights_with_the_wrong_hash_are_refused(photo, tmp_path):
    weights = tmp_path / "weights"
    weights.mkdir()
    (weights / "lraspp_mobilenet_v3_large-d234d4ea.pth").write_bytes(b"something else")
    run = ["segment", photo, "--model", "lraspp_mobilenet_v3_large", "--out", "out"]
    refused(pixelwise(*run, cwd=tmp_path, PIXELWISE_WEIGHTS=str(weights)), "SHA-256", "expected d234d4ea")
    offline = {
        "PIXELWISE_OFFLINE": "1",
        "PIXELWISE_CACHE": str(tmp_path / "cache"),
        "TORCH_HOME": str(tmp_path),
    }
    refused(pixelwise(*run, cwd=tmp_path, **offline), "PIXELWISE_OFFLINE", exit_code=1)
    assert not (tmp_path / "out").exists()


def test_from_the_shell_to_the_network_are_seven_calls(picture, tmp_path, monkeypatch):
    from pixelwise.cli import main
    from pixelwise.engines.onnxruntime import OnnxRuntimeEngine

    Image.fromarray(picture).save(tmp_path / "photo.png")
    plain, calls = OnnxRuntimeEngine.__call__, []

    def watched(self, images):
        frame = sys._getframe(1)
        while frame is not None:
            if frame.f_globals["__name__"].startswith("pixelwise."):
                calls.insert(0, frame.f_code.co_name)
            frame = frame.f_back
        return plain(self, images)

    monkeypatch.setattr(OnnxRuntimeEngine, "__call__", watched)
    monkeypatch.setattr(
        sys, "argv", ["pixelwise", "segment", str(tmp_path / "photo.png"), "--out", str(tmp_path)]
    )
    with pytest.raises(SystemExit) as done:
        main()
    assert done.value.code == 0
    assert gc.isenabled()  # put off while modules are imported
    # main, the options that become one value, the command, what it does, the pictures, the front door; then the engine
    assert [*calls, "__call__"] == [
        "main",
        "run",
        "segment",
        "run",
        "segment_pictures",
        "answer",
        "__call__",
    ]

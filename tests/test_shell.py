"""The command line as people type it: short options, near names, one file as result, tables, completion, devices."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from PIL import Image

import pixelwise
from conftest import Typed
from pixelwise import Segmenter, catalog
from pixelwise.engines.onnxruntime import CPU, CUDA
from pixelwise.errors import InputError
from pixelwise.outputs.reading import read_labels
from tiny import COLORS, quadrant_labels, quadrants


@pytest.fixture(autouse=True)
def photo(typed) -> None:
    Image.fromarray(quadrants()).save("photo.png")


@pytest.fixture
def segment(typed, colors_model) -> Callable[[str], Typed]:
    return lambda line: typed(f"segment {line} -m {colors_model}")


def refused(result: Typed, *says: str) -> None:
    assert (result.code, result.out) == (2, "")
    assert result.err.startswith("pixelwise: ")
    assert len(result.err.splitlines()) == 1
    for words in says:
        assert words in result.err


@pytest.mark.parametrize(
    "command", ["", *"segment models convert export init check selftest evaluate train".split()]
)
def test_h_is_help_and_descriptions_are_whole(command, typed):
    result = typed(f"{command} -h")
    assert result.code == 0
    assert result.out == typed(f"{command} --help").out
    assert "-h, --help" in result.out
    if command == "":
        listed = result.out.partition("Commands:")[2].splitlines()[1:]
        assert len(listed) >= 8
        assert all(line.rstrip().endswith(".") and "..." not in line for line in listed)
    else:
        wants = {"segment": "mo", "evaluate": "mo", "export": "o", "init": "o", "train": "mo"}.get(
            command, ""
        )
        assert ("-m, --model" in result.out, "-o, --out" in result.out) == ("m" in wants, "o" in wants)


def test_the_version_has_a_short_option(typed):
    assert typed("-V").out == typed("--version").out != ""


def test_commands_have_near_names(typed):
    refused(typed("segmnt photo.png"), "Unknown command 'segmnt'; did you mean 'segment'?")
    refused(typed("frobnicate"), "Unknown command 'frobnicate'; known: ", "segment")
    refused(typed("photo.png"), "photo.png is no command; to segment it: pixelwise segment photo.png")


def test_models_searches_and_keeps_columns_and_names_at_80_columns_in_a_pipe(typed):
    every = typed("models")
    lines = every.out.splitlines()
    assert max(map(len, lines)) <= 80
    assert lines[0].split() == ["model", "classes", "parameters", "score", "weights"]
    assert [line.split()[0] for line in lines[1 : lines.index("")]] == catalog.list_models()
    assert lines[1].split() == ["everyday", "21", "2.11", "M", "0.845", "a", "in", "package"]
    assert any(line.startswith("a: mIoU of 7 classes on 445 pictures of animals") for line in lines)
    for word, pattern in (("deeplab", "*deeplab*"), ("DeepLabV3_res", "deeplabv3_res*"), ("unet?", "unet?"),
                          ("segformer_b[01]", "segformer_b[01]")):  # fmt: skip
        found = typed(f"models {word} --json")
        names = catalog.list_models(pattern)
        assert (found.code, list(json.loads(found.out))) == (0, names) if names else (2, [])
    refused(typed("models deplab"), "'deplab'")


def test_completion_is_offered_and_completes(tmp_path):
    where = {"COMP_WORDS": "pixelwise segm", "COMP_CWORD": "1", "_PIXELWISE_COMPLETE": "complete_bash"}
    code = "import sys; sys.argv[0] = 'pixelwise'; from pixelwise.cli import main; main()"
    result = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env={**os.environ, **where},
        cwd=tmp_path,
    )
    assert result.stdout.split() == ["segment"]


@pytest.mark.parametrize(
    ("name", "more", "format"),
    [
        ("a.png", "", "labels"),
        ("sub/b.PNG", "", "labels"),
        ("c.npy", "", "npy"),
        ("d.png", "--format ids", "ids"),
    ],
)
def test_out_may_be_the_file_of_one_picture(name, more, format, segment):
    result = segment(f"photo.png -o {name} {more}")
    assert (result.code, result.err) == (0, "")
    assert result.out.rstrip().endswith(f"-> {name}")
    np.testing.assert_array_equal(read_labels(name, COLORS), quadrant_labels())
    assert {p.name for p in Path().rglob("*") if p.is_file()} == {"photo.png", Path(name).name}


def test_other_endings_write_what_they_mean(segment):
    assert segment("photo.png -o a.jpg").code == 0
    with Image.open("a.jpg") as overlay:
        assert overlay.format == "JPEG"
    assert segment("photo.png -o a.json").code == 0
    assert json.loads(Path("a.json").read_text())["classes"][0]["share"] == 0.25
    assert segment("photo.png -o a.overlay --format npy").code == 0  # no ending of a file: a folder
    assert Path("a.overlay/photo.npy").is_file()
    Path("b.png").mkdir()
    assert segment("photo.png -o b.png --format npy").code == 0
    assert Path("b.png/photo.npy").is_file()


def test_one_file_for_more_than_one_thing_is_refused_with_a_folder_that_works(segment):
    Image.fromarray(quadrants()).save("other.png")
    for more, got in (
        ("other.png", "got 2 sources"), ("--format ids,npy", "got ids and npy"), ("--mask red", "got mask of red"),
    ):  # fmt: skip
        refused(
            segment(f"photo.png {more} --out x.png"), "for one source in one format", got, "such as --out x\n"
        )
        assert segment(f"photo.png {more} --out x --overwrite").code == 0
    refused(segment("photo.png -o x.jpg --format ids"), "format 'ids' is written as PNG", "'x.jpg'")
    assert not Path("x.png").exists()
    assert not Path("x.jpg").exists()
    assert segment("photo.png --out photo.png").code == 2  # its own input


def test_the_second_time_says_what_to_do_and_doing_it_works(segment):
    assert segment("photo.png").code == 0
    again = segment("photo.png")
    refused(
        again,
        "photo.labels.png exists already; add --overwrite to replace it, or --out FOLDER to write elsewhere",
    )
    assert segment("photo.png --overwrite").code == 0
    assert segment("photo.png --out FOLDER").code == 0
    assert segment("photo.png -o a.npy").code == 0
    refused(segment("photo.png -o a.npy"), "a.npy exists already; add --overwrite")


def test_what_is_ignored_is_printed(segment):
    assert "ignored" not in segment("photo.png -o a.npy").out
    assert segment("photo.png --min-confidence 0.99 -o b.npy --json").out.count('"ignored": 1.0') == 1
    sure = segment("photo.png --min-confidence 0.99 -o c.npy").out
    assert sure.startswith("photo.png: ignored 100.0% -> c.npy")


# Devices --------------------------------------------------------------------------------------------------------------


def test_devices_that_are_not_here_are_refused_with_what_to_do(segment, typed, colors_model):
    assert segment("photo.png -o a.npy --device cpu").code == 0
    assert segment("photo.png -o b.npy --device auto").code == 0
    np.testing.assert_array_equal(np.load("a.npy"), np.load("b.npy"))
    refused(
        segment("photo.png -o c.npy --device mps"), "runs on cpu, cuda, cuda:1 and so on, got device 'mps'"
    )
    if CUDA not in onnxruntime.get_available_providers():
        refused(segment("photo.png -o c.npy --device cuda"), "no CUDA here", "onnxruntime-gpu")
    data = Path("data")
    for folder in ("images", "masks"):
        (data / folder).mkdir(parents=True)
    Image.fromarray(quadrants()).save(data / "images" / "a.png")
    Image.fromarray(quadrant_labels()).save(data / "masks" / "a.png")
    ran = typed(f"evaluate --data data --split all -m {colors_model} --json --device cpu")
    assert json.loads(ran.out)["pixel_accuracy"] == 1
    refused(typed(f"evaluate --data data -m {colors_model} --device tpu"), "got device 'tpu'")


def test_onnx_runtime_uses_cuda_where_it_has_it(colors_model, monkeypatch):
    """Without a GPU: what it is asked for, and that a provider that does not load is no reason to go on in silence."""
    asked = []
    session = onnxruntime.InferenceSession

    def noted(model, options, providers, **more):
        asked.append(providers)
        return session(model, options, providers=[CPU], **more)

    monkeypatch.setattr(onnxruntime, "InferenceSession", noted)
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: [CUDA, CPU])
    for device, number in (("cuda", 0), ("cuda:1", 1), ("auto", 0)):
        with pytest.raises(InputError, match="cannot use CUDA here, as its libraries do not load"):
            Segmenter(colors_model, device=device)
        assert asked[-1] == [(CUDA, {"device_id": number, "use_tf32": "0"}), CPU]
    for device in (None, "cpu"):
        Segmenter(colors_model, device=device)
        assert asked[-1] == [CPU]


def test_training_runs_where_it_is_told(monkeypatch):
    torch = pytest.importorskip("torch")
    from pixelwise.training.loop import on_device, process_state, train_on

    for name in ("ACCELERATE_USE_CPU", "ACCELERATE_TORCH_DEVICE"):
        monkeypatch.setenv(name, "before")
    for device in (None, "auto"):
        train_on(device)
        assert os.environ["ACCELERATE_USE_CPU"] == "before"
    train_on("cpu")
    assert os.environ["ACCELERATE_USE_CPU"] == "true"
    assert "ACCELERATE_TORCH_DEVICE" not in os.environ
    monkeypatch.setenv("ACCELERATE_USE_CPU", "false")
    with on_device("cpu"):
        assert process_state().device.type == "cpu"
        assert os.environ["ACCELERATE_USE_CPU"] == "true"
    assert os.environ["ACCELERATE_USE_CPU"] == "false"
    with pytest.raises(InputError, match="device 'meta' cannot be used here"):
        pixelwise.train("nowhere", "run", device="meta")
    for wrong in ("meta", "gpu", *([] if torch.cuda.is_available() else ["cuda"])):
        with pytest.raises(InputError, match=f"device '{wrong}' cannot be used here"):
            train_on(wrong)


def test_a_picture_too_small_for_a_network_is_told_so(typed):
    Image.fromarray(quadrants()[:7, :20]).save("small.png")
    refused(
        typed("segment small.png -m nuclei"),
        "nuclei cannot take a picture of 7 x 20 pixels, which is too small for this network; enlarge it to at least",
    )
    Image.fromarray(quadrants()).resize((32, 32)).save("small.png")
    assert typed("segment small.png -m nuclei").code == 0

"""The shape of the package: no torch on the path that runs a model, arrows one way, an instant import."""

from __future__ import annotations

import ast
import json
import subprocess
import sys

import pytest

import pixelwise
from imports import ROOT, UPWARDS, arrows, downwards, imports, modules, own, packages, rings

TORCH_SIDE = {"torch", "torchvision", "timm", "safetensors", "huggingface_hub", "onnx", "onnxscript"}

TORCH_FILES = {"pixelwise.engines.pytorch", "pixelwise.inference.permutohedral"}
"""Files beside the inference path that import torch: an engine and a twin, loaded when a torch network is there."""


def test_no_file_stands_in_a_ring_with_lazy_and_string_imports_counted():
    assert not rings(downwards())


def test_no_package_stands_in_a_ring():
    assert not rings(packages())


def test_the_arrow_upwards_is_the_one_that_is_listed_and_would_close_a_ring():
    for name, other in UPWARDS:
        assert other in arrows()[name]
        assert other not in arrows(top_level_only=True)[name]
    assert rings({name: others for name, others in arrows().items() if name != "pixelwise"})


def test_the_walk_sees_lazy_imports_and_names_in_strings():
    code = (
        'def f():\n    import pixelwise.draw\n    g("pixelwise.labels:LabelSet", f"pixelwise.catalog.{x}")\n'
    )
    known = dict.fromkeys(
        ("pixelwise", "pixelwise.draw", "pixelwise.labels", "pixelwise.catalog.fcn", "pixelwise.catalog")
    )
    assert own(imports(ast.parse(code)), known) == {
        "pixelwise.draw",
        "pixelwise.labels",
        "pixelwise.catalog.fcn",
    }
    assert rings({"a": {"b"}, "b": {"c"}, "c": {"a"}}) == [["a", "b", "c", "a"]]


INFERENCE_PATH = (
    "segmenter",
    "segmentation",
    "images",
    "draw",
    "catalog",
    "labels",
    "inference",
    "engines",
    "sources",
    "pipeline",
    "outputs",
    "georeference",
    "cli",
    "service",
)


def test_nothing_on_the_inference_path_imports_torch_at_import_time():
    known = modules()
    graph = {
        name: imports(ast.parse(path.read_text(encoding="utf-8")), top_level_only=True)
        for name, path in known.items()
    }
    start = [n for n in known if n.split(".")[1:2] and n.split(".")[1] in INFERENCE_PATH]
    todo, seen = [n for n in start if n not in TORCH_FILES], set()
    while todo:
        name = todo.pop()
        if name in seen:
            continue
        seen.add(name)
        outside = {n.split(".")[0] for n in graph[name]} & TORCH_SIDE
        assert not outside, f"{name} imports {outside}"
        todo.extend(own(graph[name], known))


def test_the_parts_that_make_no_network_know_none():
    parts = "losses metrics inference draw labels images errors layers kernels weights catalog".split()
    for name, others in arrows().items():
        if name.split(".")[1:2] and name.split(".")[1] in parts:
            assert not {n for n in others if n.startswith("pixelwise.models")}, name


def test_networks_know_nothing_of_what_is_made_of_them():
    above = {
        "checkpoints",
        "export",
        "segmenter",
        "training",
        "recipes",
        "evaluation",
        "report",
        "pipeline",
        "cli",
    }
    for name, others in downwards().items():
        if name.split(".")[1] in ("models", "decoders", "encoders", "layers"):
            assert not {n for n in others if n.split(".")[1] in above}, name


def run(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout


def test_importing_pixelwise_loads_nothing_but_itself():
    code = "import sys, json, numpy; before = set(sys.modules); import pixelwise; " + (
        "print(json.dumps(sorted(m for m in set(sys.modules) - before if not m.startswith('importlib'))))"
    )
    assert set(json.loads(run(code))) <= {"pixelwise", "__future__", "typing"}


def test_segmenting_a_photo_loads_no_torch_and_no_numba():
    if not (ROOT / "assets" / "everyday.onnx").exists():
        pytest.skip("the embedded model is not there")
    code = (
        "import sys, numpy; from pixelwise import Segmenter; "
        "s = Segmenter()(numpy.zeros((60, 80, 3), numpy.uint8)); s.overlay(); s.legend(); "
        "print([m for m in ('torch', 'torchvision', 'numba', 'scipy', 'matplotlib') if m in sys.modules])"
    )
    assert run(code).strip() == "[]"


def test_a_command_begins_without_pydantic_which_typer_loads_for_what_needs_it(tmp_path):
    code = (
        "import atexit, sys; from pixelwise.cli import main; sys.argv = ['pixelwise', {}]; "
        "atexit.register(lambda: print([m for m in ('pydantic', 'rich', 'torch') if m in sys.modules])); main()"
    )
    plain = "'segment', 'none.jpg', '--out', 'x', '--flip', 'vertical', '--overwrite'"
    answers = [
        subprocess.run(
            [sys.executable, "-c", code.format(words)], capture_output=True, text=True, cwd=tmp_path
        )
        for words in (plain, plain + ", '--threads', 'two'")
    ]
    assert answers[0].stdout.strip() == "[]"
    assert "none.jpg" in answers[0].stderr
    assert "Invalid value for '--threads'" in answers[1].stderr


def test_every_public_name_exists():
    for name in pixelwise.__all__:
        assert getattr(pixelwise, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'Segmentor'"):
        _ = pixelwise.Segmentor

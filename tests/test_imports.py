"""The shape of the package: no torch on the path that runs a model, arrows one way, an instant import."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest

import pixelwise

ROOT = Path(pixelwise.__file__).parent
TORCH_SIDE = {"torch", "torchvision", "timm", "safetensors", "huggingface_hub", "onnx", "onnxscript"}


def modules() -> dict[str, Path]:
    found = {}
    for path in ROOT.rglob("*.py"):
        parts = ["pixelwise", *path.relative_to(ROOT).with_suffix("").parts]
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imports(path: Path, *, top_level_only: bool) -> set[str]:
    """Every module that a file imports, blocks under TYPE_CHECKING left out."""
    names: set[str] = set()

    def visit(node: ast.AST) -> None:
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            return
        if top_level_only and isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            return
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.update(f"{node.module}.{alias.name}" for alias in node.names)
        for child in ast.iter_child_nodes(node):
            visit(child)

    visit(ast.parse(path.read_text(encoding="utf-8")))
    return names


def own(names: set[str], known: dict[str, Path]) -> set[str]:
    """Which of our modules those imports load."""
    loaded = set()
    for name in names:
        parts = name.split(".")
        for end in range(len(parts), 0, -1):
            if ".".join(parts[:end]) in known:
                loaded.add(".".join(parts[:end]))
                break
    return loaded - {"pixelwise"}


def test_no_import_cycle():
    known = modules()
    graph = {name: own(imports(path, top_level_only=True), known) for name, path in known.items()}
    done: set[str] = set()

    def walk(name: str, trail: list[str]) -> None:
        assert name not in trail, " -> ".join([*trail[trail.index(name) :], name])
        if name not in done:
            for other in graph[name]:
                walk(other, [*trail, name])
            done.add(name)

    for name in known:
        walk(name, [])


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
)


def test_nothing_on_the_inference_path_imports_torch_at_import_time():
    known = modules()
    graph = {name: imports(path, top_level_only=True) for name, path in known.items()}
    start = [n for n in known if n.split(".")[1:2] and n.split(".")[1] in INFERENCE_PATH]
    todo, seen = [n for n in start if n != "pixelwise.engines.pytorch"], set()
    while todo:
        name = todo.pop()
        if name in seen:
            continue
        seen.add(name)
        outside = {n.split(".")[0] for n in graph[name]} & TORCH_SIDE
        assert not outside, f"{name} imports {outside}"
        todo.extend(own(graph[name], known))


def test_the_parts_that_make_no_network_know_none():
    known = modules()
    for name, path in known.items():
        part = name.split(".")[1] if "." in name else ""
        if part in (
            "losses",
            "metrics",
            "inference",
            "draw",
            "labels",
            "images",
            "errors",
            "layers",
            "kernels",
        ):
            assert not {n for n in own(imports(path, top_level_only=False), known) if ".models" in n}, name


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


def test_every_public_name_exists():
    for name in pixelwise.__all__:
        assert getattr(pixelwise, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'Segmentor'"):
        _ = pixelwise.Segmentor

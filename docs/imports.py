"""The arrows between the files of the package, read from their source: what `docs/house.py` draws and tests hold.

Lazy imports inside functions count, and so do strings that name a module ("pixelwise.a.b", "pixelwise.a.b:name", and
f"pixelwise.a.{...}", which may be any module of that package). Blocks under TYPE_CHECKING do not.
"""

from __future__ import annotations

import ast
import functools
import re
from collections.abc import Iterable, Mapping
from importlib.util import find_spec
from pathlib import Path

ROOT = Path(next(iter(find_spec("pixelwise").submodule_search_locations)))  # type: ignore[union-attr, arg-type]

UPWARDS = {
    # A network's `weights=` is a convenience; whoever knows others' names of tensors stands above the networks.
    ("pixelwise.models.building", "pixelwise.checkpoints.loading"),
    ("pixelwise.models.building", "pixelwise.checkpoints.backbones"),
}
"""The one arrow between packages that points upwards: by name, and only when weights are asked for."""

Graph = dict[str, set[str]]


@functools.cache
def modules() -> dict[str, Path]:
    """Every module of the package: its file."""
    found = {}
    for path in ROOT.rglob("*.py"):
        parts = ["pixelwise", *path.relative_to(ROOT).with_suffix("").parts]
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imports(tree: ast.AST, *, top_level_only: bool = False) -> set[str]:
    """Every name that a file imports; top_level_only: what importing it loads at once, strings left out."""
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
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and not top_level_only:
            if re.fullmatch(r"pixelwise(\.\w+)+(:\w+)?", node.value):
                names.add(node.value.replace(":", "."))
            elif re.fullmatch(r"pixelwise(\.\w+)+\.", node.value):
                names.add(f"{node.value}*")
        for child in ast.iter_child_nodes(node):
            visit(child)

    visit(tree)
    return names


def own(names: Iterable[str], known: Mapping[str, object]) -> set[str]:
    """Which of our modules those imports load."""
    loaded = set()
    for name in names:
        if name.endswith(".*"):
            loaded |= {module for module in known if module.startswith(name[:-1])}
            continue
        parts = name.split(".")
        for end in range(len(parts), 0, -1):
            if ".".join(parts[:end]) in known:
                loaded.add(".".join(parts[:end]))
                break
    return loaded - {"pixelwise"}


@functools.cache
def arrows(*, top_level_only: bool = False) -> Graph:
    """Each module and those it imports."""
    known = modules()
    return {
        name: own(imports(ast.parse(path.read_text(encoding="utf-8")), top_level_only=top_level_only), known) - {name}
        for name, path in known.items()
    }  # fmt: skip


def downwards() -> Graph:
    """All arrows but the one upwards; the package itself, which names everything, is left out."""
    return {
        name: {other for other in others if (name, other) not in UPWARDS}
        for name, others in arrows().items()
        if name != "pixelwise"
    }


def packages() -> Graph:
    """The same between the folders and single files directly under the package."""
    found: Graph = {}
    for name, others in downwards().items():
        package = name.split(".")[1]
        found.setdefault(package, set()).update(other.split(".")[1] for other in others)
        found[package].discard(package)
    return found


def rings(graph: Mapping[str, set[str]]) -> list[list[str]]:
    """A ring for each arrow that closes one."""
    found: list[list[str]] = []
    done: set[str] = set()

    def walk(name: str, trail: list[str]) -> None:
        if name in trail:
            found.append([*trail[trail.index(name) :], name])
        elif name not in done:
            for other in sorted(graph.get(name, ())):
                walk(other, [*trail, name])
            done.add(name)

    for name in sorted(graph):
        walk(name, [])
    return found


def floors(graph: Mapping[str, set[str]]) -> dict[str, int]:
    """How high each stands: 0 what imports nothing, else one above the highest that it imports."""

    @functools.cache
    def floor(name: str) -> int:
        return 1 + max((floor(other) for other in graph[name]), default=-1)

    return {name: floor(name) for name in graph}


def longest_chain(graph: Mapping[str, set[str]]) -> list[str]:
    """From the highest down, each importing the next."""
    height = floors(graph)
    chain = [max(height, key=lambda name: height[name])]
    while graph[chain[-1]]:
        chain.append(max(sorted(graph[chain[-1]]), key=lambda name: height[name]))
    return chain

"""What a fresh machine meets: commands that exist and promises that hold; and what stands in for the versions of Python
that are not at hand, one lowest version everywhere and sources of it."""

from __future__ import annotations

import ast
import re
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PROJECT = (ROOT / "pyproject.toml").read_text(encoding="utf-8")


def test_ruff_and_mypy_check_for_the_lowest_version_that_the_package_promises():
    (lowest,) = re.findall(r'^requires-python = ">=3\.(\d+)"', PROJECT, re.MULTILINE)
    assert re.findall(r'^target-version = "py3(\d+)"', PROJECT, re.MULTILINE) == [lowest]
    assert re.findall(r'^python_version = "3\.(\d+)"', PROJECT, re.MULTILINE) == [lowest]
    assert f'"3.{lowest}"' in (ROOT / ".ci" / "pythons.py").read_text(encoding="utf-8")
    assert sys.version_info >= (3, int(lowest))


def test_sources_are_written_in_the_lowest_version():
    (lowest,) = re.findall(r'^requires-python = ">=3\.(\d+)"', PROJECT, re.MULTILINE)
    with pytest.raises(SyntaxError):  # what later versions have is seen
        ast.parse("try:\n    pass\nexcept* ValueError:\n    pass\n", feature_version=(3, int(lowest)))
    for folder in ("src", "examples"):
        for path in (ROOT / folder).rglob("*.py"):
            ast.parse(path.read_text(encoding="utf-8"), str(path), feature_version=(3, int(lowest)))


def test_the_first_screen_promises_only_what_can_be_typed():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    first = readme.partition("\n## ")[0]
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = re.findall(r"^make (\w+)", first, re.MULTILINE)
    assert targets == ["demo", "test"]
    assert all(re.search(rf"^{target}:", makefile, re.MULTILINE) for target in targets)
    assert "pip install ." in first
    for paragraph in readme.split("\n\n"):
        for promise in re.finditer(r"pip install '?pixelwise", paragraph):
            assert "once published" in paragraph[: promise.start()][-60:], paragraph

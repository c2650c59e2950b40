"""The runner of `make mutants`: which changes it makes, which it draws, and what it says of them."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
from collections import Counter

import pytest

from mutants.mutations import Mutant, mutants
from mutants.run import MATCHING, ROOT, Traced, accepted, drawn, matching, sources

CODE = '''
"""A docstring."""
LIMIT = 3

def clipped(values: list[int], low: int = 0, *, high: "Literal[9]" = 1) -> list[int]:
    if low > high and not values:
        raise ValueError(f"low must not be {high + 1}, got {low}")
    values.sort()
    return [min(max(value, low), high) for value in values[low:]]
'''


def changes(code: str) -> dict[str, str]:
    return {f"{m.line} {m.after}": m.kind for m in mutants(code, "a.py")}


def test_changes_are_small_and_leave_out_what_nobody_meets():
    assert changes(CODE) == {
        "3 LIMIT = 4": "constant",
        "5 def clipped(values: list[int], low: int = 1, *, high: \"Literal[9]\" = 1) -> list[int]:": "constant",
        "5 def clipped(values: list[int], low: int = 0, *, high: \"Literal[9]\" = 0) -> list[int]:": "constant",
        "5 def clipped(values: list[int], low: int = 0, *, high: \"Literal[9]\" = 2) -> list[int]:": "constant",
        "6 if (low > high or not values):": "and/or",
        "6 if (not (low > high and (not values))):": "condition",
        "6 if (low >= high) and not values:": "comparison",
        "6 if (low < high) and not values:": "comparison",
        "6 if low > high and values:": "sign",
        "8 pass": "left out",
        "9 return None": "return",
        "9 return [max(max(value, low), high) for value in values[low:]]": "function",
        "9 return [min(min(value, low), high) for value in values[low:]]": "function",
        "9 return [min(max(value, low), high) for value in (values[low + 1:])]": "slice",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("x = a + 1.5", {"(a - 1.5)", "a + 3.0"}),
        ("x = f(a, axis=-1)", {"f(a)", "f(a, axis=1)", "f(a, axis=-2)", "f(a, axis=-0)"}),
        (
            "x = 'ä' if a is None else b // c",
            {"'ä' if (a is not None) else b // c", "'ä' if a is None else (b * c)"},
        ),
        ("x = f(a, b) + g(a, a)", {"(f(a, b) - g(a, a))", "f(b, a) + g(a, a)"}),
        ("x = 'a' + b", set()),
        ("x: Literal[2] = a", set()),
        ("x -= y", {"+"}),
    ],
)
def test_each_kind_of_code_has_its_changes(before, after):
    found = {m.after.removeprefix("x = ") for m in mutants(before, "a.py")}
    assert found == ({"x += y"} if after == {"+"} else after)


def test_every_change_of_a_file_can_be_compiled_and_is_another_program():
    path = "inference/tta.py"
    source = sources(ROOT)[path]
    found = mutants(source, path)
    assert len(found) > 100
    for mutant in found[::7]:
        assert ast.dump(ast.parse(mutant.applied(source))) != ast.dump(ast.parse(source))


def test_a_default_shows_in_its_function_and_a_constant_in_its_class_or_file():
    scopes = {(m.line, m.scope) for m in mutants(f"{CODE}\nclass A:\n    b = 2\n    c = 'd'\n", "a.py")}
    assert {(3, (1, 13)), (5, (6, 9)), (6, (6, 6)), (12, (11, 13))} < scopes


def test_what_is_compiled_shows_in_the_whole_file_for_no_tracing_sees_it():
    (mutant,) = mutants("a = b\n\n@compiled(fastmath=FAST)\ndef f(x):\n    y = 4\n", "a.py")
    assert (mutant.line, mutant.scope) == (5, (1, 5))


def test_the_draw_has_its_share_of_each_package_and_a_smaller_one_is_inside():
    line = "x = a + b\n"
    files = {f"{package}/a.py": line * (300 if package == "metrics" else 30) for package in MATCHING}
    least = 10 * len(MATCHING)
    many, few = drawn(files, 250, seed=1, least=10), drawn(files, least, seed=1, least=10)
    assert len(many) == len(set(many)) == 250
    assert set(few) < set(many)
    assert Counter(m.path.partition("/")[0] for m in few) == dict.fromkeys(MATCHING, 10)
    assert Counter(m.path.partition("/")[0] for m in few[: 2 * len(MATCHING)]) == dict.fromkeys(MATCHING, 2)  # interleaved
    assert drawn(files, least, seed=1, least=10) == few != drawn(files, least, seed=2, least=10)


def test_tests_through_the_line_run_the_quickest_first_as_long_as_there_is_time():
    tests = [
        Traced("slow", 3.0, {"a.py": frozenset({4, 5})}),
        Traced("elsewhere", 0.1, {"a.py": frozenset({9}), "b.py": frozenset({5})}),
        Traced("quick", 1.0, {"a.py": frozenset({5})}),
    ]
    mutant = Mutant("a.py", "constant", 0, 0, "", 5, (5, 5), "", "")
    assert [t.name for t in matching(mutant, tests, 10, {})] == ["quick", "slow"]
    assert [t.name for t in matching(mutant, tests, 3, {})] == ["quick"]
    assert [t.name for t in matching(mutant, tests, 0, {})] == ["quick"]  # one at least
    at_import = {"a.py": frozenset({5})}
    assert [t.name for t in matching(mutant, tests, 10, at_import)] == ["elsewhere", "quick", "slow"]
    around = Mutant("a.py", "constant", 0, 0, "", 7, (7, 7), "", "")  # a part of a literal
    assert [t.name for t in matching(around, tests, 10, {})] == ["elsewhere", "quick", "slow"]


def test_what_is_accepted_is_still_a_change_of_the_code_and_has_a_reason():
    files, listed = sources(ROOT), accepted(ROOT)
    known = {
        (path, m.before, m.after)
        for path in {path for path, _, _ in listed}
        for m in mutants(files[path], path)
    }
    assert not [change for change in listed if change not in known]
    assert all(len(reason) > 10 for reason in listed.values())


def test_every_test_file_that_is_named_exists():
    assert all(
        (ROOT / "tests" / f"test_{name}.py").is_file() for names in MATCHING.values() for name in names
    )
    assert all(any(path.startswith(f"{package}/") for path in sources(ROOT)) for package in MATCHING)


def test_it_tells_what_is_killed_from_what_survives_and_goes_on_where_it_was(tmp_path):
    package, tests = tmp_path / "src" / "pixelwise", tmp_path / "tests"
    (package / "metrics").mkdir(parents=True)
    (tests / "mutants").mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "metrics" / "a.py").write_text(
        "def f(a, b):\n    return a + b\ndef g(a):\n    return a / 2\n"
        "def unseen():\n    '''\n\n\n\n    '''\n    return 7\n"
    )
    for name in MATCHING["metrics"]:
        (tests / f"test_{name}.py").touch()
    (tests / "test_metrics.py").write_text(
        "import subprocess, sys\nfrom pixelwise.metrics.a import f\n"
        "def test_f():\n    assert f(2, 0) == 2\n"
        "def test_g():\n    code = 'from pixelwise.metrics.a import g; raise SystemExit(g(4) != 2)'\n"
        "    assert subprocess.run([sys.executable, '-c', code]).returncode == 0\n"
    )
    listed = tests / "mutants" / "accepted.jsonl"
    listed.touch()
    (tmp_path / "pyproject.toml").write_text("[tool.pytest.ini_options]\nmarkers = ['slow', 'exhaustive']\n")
    command = [
        sys.executable,
        str(ROOT / "tests" / "mutants" / "run.py"),
        "--root",
        str(tmp_path),
        "--preload",
        "",
    ]

    def said() -> tuple[list[str], str]:
        """What it tried now, and what it says at the end."""
        environment = {**os.environ, "PYTHONPATH": str(ROOT / "tests"), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
        done = subprocess.run(command, capture_output=True, text=True, timeout=100, env=environment)
        assert done.returncode == 0, done.stdout + done.stderr
        tried, _, end = done.stdout.partition("survivors:")
        return [line for line in tried.splitlines() if "/" in line], end

    tried, end = said()
    assert len(tried) == 7
    assert "src/pixelwise/metrics/a.py:2\n  - return a + b\n  + return (a - b)\n  (survived)" in end
    assert "src/pixelwise/metrics/a.py:11\n  - return 7\n  + return 8\n  (unseen)" in end
    assert end.split()[-6:] == ["all", "7", "4", "0", "1", "2"]
    change = {"path": "metrics/a.py", "before": "return a + b", "after": "return (a - b)", "reason": "known"}
    listed.write_text(json.dumps(change) + "\n")
    tried, end = said()
    assert tried == []
    assert end.split()[-6:] == ["all", "7", "4", "1", "0", "2"]
    with open(tests / "test_metrics.py", "a") as file:
        file.write(
            "def test_unseen():\n    from pixelwise.metrics.a import unseen\n    assert unseen() == 7\n"
        )
    tried, end = said()
    assert len(tried) == 2
    assert end.split()[-6:] == ["all", "7", "6", "1", "0", "0"]

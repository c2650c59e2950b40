"""The corpus: every hostile file gives what is right or one sentence, and nothing else happens (see `child.py`)."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterator

import pytest

from hostile.cases import KINDS, Case, every
from hostile.guard import Guard

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="limits of memory are those of Linux")


def parameters() -> Iterator[object]:
    for kind, case in every():
        marks = [pytest.mark.slow] if case.slow else []
        yield pytest.param(kind, case, id=f"{kind}-{case.name}", marks=marks)


@pytest.mark.parametrize(("kind", "case"), list(parameters()))
def test_a_hostile_file_gives_what_is_right_and_nothing_else_happens(kind: str, case: Case, guard: Guard):
    for extra in case.needs:
        pytest.importorskip(extra)
    assert guard.run(kind, case) == []


def test_there_are_enough_cases_of_every_kind_and_no_two_of_one_cause():
    found = Counter((kind, case.name) for kind, case in every())
    assert sum(found.values()) == len(found) >= 250
    for kind in KINDS:
        assert sum(one == kind for one, _ in found) >= 12, kind

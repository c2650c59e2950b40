"""What fuzzing found stays mended, and a few changed inputs of every reader give a value or one sentence."""

from __future__ import annotations

import re
import sys

import pytest

from hostile.fuzz import FOUND
from hostile.guard import Guard
from hostile.readers import READERS

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="limits of memory are those of Linux")


@pytest.mark.parametrize("reader", list(READERS))
def test_what_fuzzing_found_and_a_few_more_give_a_value_or_one_sentence(reader: str, guard: Guard):
    """More of them: `make fuzz`."""
    assert guard.replay(reader, sorted((FOUND / re.sub(r"\W+", "-", reader)).glob("*")), 25) == []


@pytest.mark.slow
@pytest.mark.parametrize("reader", list(READERS))
def test_many_changed_inputs_give_a_value_or_one_sentence(reader: str, guard: Guard):
    assert guard.replay(reader, [], 150) == []

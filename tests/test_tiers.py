"""Every row of tiers.py still matches tests, and no test is lost over the three tiers."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

import tiers


def collected(*more: str) -> list[str]:
    command = [sys.executable, "-m", "pytest", "--collect-only", "-q", *more, str(Path(__file__).parent)]
    lines = subprocess.run(
        command, capture_output=True, text=True, cwd=Path(__file__).parents[1]
    ).stdout.splitlines()
    return [line for line in lines if "::" in line and not line.startswith("ERROR")]


@pytest.mark.slow
def test_each_row_matches_and_each_test_is_in_one_tier():
    every = collected()
    names = [test.partition("::")[2].rpartition("::")[2] for test in every]
    for pattern, _ in tiers.TIERS:
        assert any(re.fullmatch(pattern, name) for name in names), pattern
    parts = [
        collected("-m", expression)
        for expression in ("not slow and not exhaustive", "slow and not exhaustive", "exhaustive")
    ]
    assert sorted(test for part in parts for test in part) == sorted(every)


def test_exhaustive_wins():
    assert tiers.tier_of("test_gradients_reach_every_parameter_with_every_norm[unet-layer]") == "exhaustive"
    assert tiers.tier_of("test_gradients_reach_every_parameter[deeplabv3_resnet101]") == "slow"
    assert tiers.tier_of("test_gradients_reach_every_parameter[segnet]") is None

"""The service under thousands of requests, a tenth of them hostile: every answer right, the process as it was."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("fastapi", reason="needs the extra serve")

from soaking import soak


@pytest.mark.parametrize(
    ("requests", "models", "count"),
    [
        pytest.param(600, {}, 9, marks=pytest.mark.slow),
        pytest.param(10_000, {"other": "everyday"}, 18, marks=pytest.mark.exhaustive),
    ],
)
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="memory is read from /proc")
def test_no_answer_is_wrong_and_the_service_is_as_it_was(requests, models, count, tmp_path):
    found = soak(tmp_path, requests, models=models, count=count)
    assert found["faults"] == []
    assert found["tracebacks"] == []
    assert found["lives"]
    assert found["hostile"] == requests // 10
    assert found["after_mb"] < 1.1 * found["before_mb"]

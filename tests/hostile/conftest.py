"""The one process for all cases of a session."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from hostile.guard import Guard


@pytest.fixture(scope="session")
def guard(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guard]:
    with Guard(tmp_path_factory.mktemp("hostile")) as one:
        yield one

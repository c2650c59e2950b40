"""What several tests share: where the real data lies, and pictures drawn by code."""

from __future__ import annotations

import os
import signal
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch

from pixelwise import cli, images
from pixelwise.errors import PixelwiseWarning
from tiers import tier_of
from tiny import write_colors_model

os.environ.setdefault("NUMBA_CACHE_DIR", str(Path(__file__).parents[1] / "build" / "numba"))
# Every test has an empty cache of its own, and compiling the loops for each session would take minutes

# What a shell starts in the background has Ctrl-C ignored, and so have its children
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

torch.set_num_threads(1)  # small networks on busy cores: more threads only wait for each other

DATA = Path(os.environ.get("PIXELWISE_DATA", Path(__file__).parents[2] / "shared" / "data"))


@pytest.hookimpl(tryfirst=True)  # before -m chooses
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if (tier := tier_of(item.name)) is not None:
            item.add_marker(tier)


@pytest.fixture
def data() -> Path:
    """The folder of real labelled data; a test that needs it skips where it is absent."""
    if not DATA.is_dir():
        pytest.skip(f"the data folder {DATA} is absent (set PIXELWISE_DATA)")
    return DATA


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test reads or writes the user's cache."""
    monkeypatch.setenv("PIXELWISE_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))


@pytest.fixture(autouse=True)
def nothing_said(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is said once a process is said once a test."""
    monkeypatch.setattr(images, "_said", set())


class Typed(NamedTuple):
    """What a command gave."""

    code: int
    out: str
    err: str


@pytest.fixture
def typed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> Callable[[str], Typed]:
    """Types a command of `pixelwise` in the test's folder, in this process, which is quicker than a new one."""
    monkeypatch.chdir(tmp_path)

    def run(line: str) -> Typed:
        monkeypatch.setattr(sys, "argv", ["pixelwise", *line.split()])
        monkeypatch.setattr(images, "_said", set())
        with warnings.catch_warnings():
            warnings.simplefilter("default", PixelwiseWarning)
            with pytest.raises(SystemExit) as left:
                cli.main()
        return Typed(int(left.value.code or 0), *capsys.readouterr())

    return run


@pytest.fixture
def picture() -> np.ndarray:
    """A smooth coloured picture with an edge, uint8 (60, 90, 3)."""
    y, x = np.mgrid[:60, :90]
    image = np.stack([x * 255 // 89, y * 255 // 59, (x * y) % 256], axis=-1).astype(np.uint8)
    image[20:40, 30:60] = (250, 20, 30)
    return image


@pytest.fixture(scope="session")
def colors_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file of the tiny model whose answers are known."""
    return write_colors_model(tmp_path_factory.mktemp("models") / "colors.onnx")

"""`pixelwise export`: any model to a file that runs without torch."""

from __future__ import annotations

from pathlib import Path

from pixelwise.cli.options import numbers
from pixelwise.errors import InputError
from pixelwise.exporting import export_model
from pixelwise.files import check_writable
from pixelwise.terminal import say


def run(model: str, out: Path, size: str | None, overwrite: bool) -> None:
    """Export and say what was written."""
    sides = numbers("--size", size, int, "a height and a width, such as 512,512")
    if sides is not None and (len(sides) != 2 or min(sides) < 1):
        raise InputError(f"--size takes a height and a width, such as 512,512, got {size!r}")
    check_writable(out, overwrite=overwrite)
    size_hw = None if sides is None else (sides[0], sides[1])
    say(f"{model} -> {out}: {export_model(model, out, size_hw=size_hw, overwrite=overwrite)}")

"""`pixelwise export`: any model to a file that runs without torch."""

from __future__ import annotations

from pathlib import Path

from pixelwise.cli.options import numbers
from pixelwise.errors import InputError
from pixelwise.exporting import export_model
from pixelwise.terminal import say


def run(
    model: str,
    out: Path,
    to: str | None,
    bake: bool,
    precision: str | None,
    size: str | None,
    overwrite: bool,
) -> None:
    """Export and say what was written."""
    sides = numbers("--size", size, int, "a height and a width, such as 512,512")
    if sides is not None and (len(sides) != 2 or min(sides) < 1):
        raise InputError(f"--size takes a height and a width, such as 512,512, got {size!r}")
    size_hw = None if sides is None else (sides[0], sides[1])
    told = export_model(
        model, out, to=to, bake=bake, precision=precision, size_hw=size_hw, overwrite=overwrite
    )
    say(f"{model} -> {out}: {told}")

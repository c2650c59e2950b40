"""`pixelwise quantize`: any model to int8, measured on pictures."""

from __future__ import annotations

from pathlib import Path

from pixelwise.quantizing import quantize_model
from pixelwise.terminal import say


def run(
    model: str, data: Path, out: Path, agreement: float, to: str | None, threads: int | None, overwrite: bool
) -> None:
    """Quantise and say what it was and what it is."""
    told = quantize_model(model, data, out, agreement=agreement, to=to, threads=threads, overwrite=overwrite)
    say(f"{model} -> {out}: {told}")

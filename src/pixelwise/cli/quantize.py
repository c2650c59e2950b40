"""`pixelwise quantize`: any model to int8, measured on pictures."""

from __future__ import annotations

from pathlib import Path

from pixelwise.quantizing import quantize_model
from pixelwise.terminal import say


def run(
    model: str,
    data: Path,
    out: Path,
    agreement: float | None,
    mean_iou_drop: float | None,
    to: str | None,
    threads: int | None,
    overwrite: bool,
) -> None:
    """Quantise and say what it was and what it is."""
    told = quantize_model(
        model, data, out, agreement=agreement, mean_iou_drop=mean_iou_drop, to=to, threads=threads,
        overwrite=overwrite,
    )  # fmt: skip
    say(f"{model} -> {out}: {told}")

"""curves.png: loss and validation score over the steps of a run, as one picture."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import Any

from pixelwise.report.plots import loss_points, score_points


def curves_picture(lines: Sequence[Mapping[str, Any]]) -> bytes | None:
    """A PNG: the parts of the loss on the left axis, the score of validations on the right. lines: of a metrics.jsonl
    (`training.progress.read_metrics`). None where matplotlib (extra train) is not installed."""
    try:
        from matplotlib.figure import Figure
    except ModuleNotFoundError:
        return None
    losses, scores = loss_points(lines), score_points(lines)
    figure: Any = Figure(figsize=(9, 4.5), layout="constrained")
    left = figure.subplots()
    for name, points in losses.items():
        left.plot(*zip(*points, strict=True), label=name)
    left.set_xlabel("step")
    left.set_ylabel("loss (running mean)")
    left.set_ylim(bottom=0)
    if scores:
        right = left.twinx()
        right.plot(*zip(*scores, strict=True), "k.-", label="validation mean IoU")
        right.set_ylabel("validation mean IoU")
        right.set_ylim(0, 1)
    figure.legend(loc="outside upper center", ncols=len(losses) + 1)
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=110)
    return file.getvalue()

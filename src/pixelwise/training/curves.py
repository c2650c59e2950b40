"""curves.png: loss and validation score over the steps of a run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pixelwise.errors import MissingExtraError
from pixelwise.files import writing
from pixelwise.training.progress import read_metrics


def draw_curves(metrics: Path, path: Path) -> None:
    """Draw a metrics.jsonl: the parts of the loss on the left axis, the score of validations on the right."""
    try:
        from matplotlib.figure import Figure
    except ModuleNotFoundError as error:
        raise MissingExtraError("drawing curves", "train") from error
    lines = read_metrics(metrics)
    steps = [line for line in lines if "loss" in line]
    scores = [line for line in lines if "score" in line]
    figure: Any = Figure(figsize=(9, 4.5), layout="constrained")
    left = figure.subplots()
    parts = list(steps[0]["parts"]) if steps else []
    for name in parts:
        left.plot(
            [line["step"] for line in steps], _smooth([line["parts"][name] for line in steps]), label=name
        )
    left.set_xlabel("step")
    left.set_ylabel("loss (running mean)")
    left.set_ylim(bottom=0)
    if scores:
        right = left.twinx()
        right.plot(
            [s["step"] for s in scores], [s["score"] for s in scores], "k.-", label="validation mean IoU"
        )
        right.set_ylabel("validation mean IoU")
        right.set_ylim(0, 1)
    figure.legend(loc="outside upper center", ncols=len(parts) + 1)
    with writing(path) as temporary:
        figure.savefig(temporary, format="png", dpi=110)


def _smooth(values: list[float]) -> list[float]:
    """Exponential running mean over about a fiftieth of the values, without the bias of its start."""
    keep = 1 - 1 / max(1.0, len(values) / 50)
    mean, weight, smooth = 0.0, 0.0, []
    for value in values:
        mean, weight = keep * mean + (1 - keep) * value, keep * weight + (1 - keep)
        smooth.append(mean / weight)
    return smooth

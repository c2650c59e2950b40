"""The scores of an evaluation as text for a terminal: tables that fit into 80 columns, and sentences."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from pixelwise.corruptions import STRENGTHS
from pixelwise.evaluation import Evaluation
from pixelwise.report.corrupted import percent, rows_of, what_it_means
from pixelwise.report.task import scores_of
from pixelwise.terminal import counted, printable
from pixelwise.weights.card import Score

COLUMNS = 80
"""The width of a table, whatever the names are."""


def table(evaluation: Evaluation) -> str:
    """The scores of every class that occurs and the summary, as text. A name that is too long for its column stands on
    a line of its own."""
    scores = evaluation.to_dict()
    if evaluation.surfaces is not None:
        return "\n".join([*structures(scores["structures"]), "", *sentences(evaluation, scores)])
    total = sum(row["true_pixels"] for row in scores["classes"].values()) or 1
    rows = [
        (
            name,
            [
                *(cell(row[key]) for key in ("iou", "dice", "precision", "recall")),
                f"{row['true_pixels'] / total:.2%}",
            ],
        )
        for name, row in scores["classes"].items()
        if row["iou"] is not None
    ]
    lines = lined("class", ("IoU", "Dice", "precision", "recall", "of pixels"), rows)
    if evaluation.regions is not None:
        lines = [*evaluation.regions.lines(), "", "as the label map that their order makes:", *lines]
    return "\n".join([*lines, "", *sentences(evaluation, scores), *_corrupted(evaluation)])


def structures(scores: dict[str, Any]) -> list[str]:
    """The scores of scans: the mean of each structure, and of each scan its mean Dice, the lowest first."""
    keys = ("dice", "surface_dice", "hd95_mm")
    heads = ("Dice", f"within {scores['tolerance_mm']:g} mm", "HD95 in mm")
    rows = [(name, [cell(row[key]) for key in keys]) for name, row in scores["classes"].items()]
    rows.append(("mean", [cell(scores[f"mean_{key}"]) for key in keys]))
    cases = sorted(scores["cases"], key=lambda case: (case["mean_dice"] is None, case["mean_dice"]))
    names = list(scores["classes"])[:3]
    by_case = [
        (case["name"], [cell(case["mean_dice"]), *(cell(case[name]["dice"]) for name in names)])
        for case in cases[:SHOWN_CASES]
    ]
    more = [f"... and {len(cases) - SHOWN_CASES} more, of higher Dice"] if len(cases) > SHOWN_CASES else []
    return [*lined("structure", heads, rows), "", *lined("scan", ("mean Dice", *names), by_case), *more]


SHOWN_CASES = 10
"""Scans whose scores are printed; JSON has all."""


def sentences(evaluation: Evaluation, scores: dict[str, Any]) -> list[str]:
    """What is said under the table: the summary, what was scored and how, and what the model's card says."""
    low, high = scores["mean_iou_95_percent"]
    if evaluation.surfaces is not None:
        found = scores["structures"]
        lines = [
            f"mean Dice {cell4(found['mean_dice'])}, surface Dice {cell4(found['mean_surface_dice'])} within "
            f"{found['tolerance_mm']:g} mm, 95th percentile of the distance of the surfaces "
            f"{cell4(found['mean_hd95_mm'])} mm, {counted(scores['pictures'], 'scan')}"
        ]
        lines += [f"scored: {evaluation.part}"] if evaluation.part else []
        says = f"protocol {evaluation.protocol.name}: {evaluation.protocol.says}"
        return [*lines, says, *answered(evaluation), *on_the_card(evaluation)]
    lines = [
        f"mean IoU {scores['mean_iou']:.4f} (95% over pictures {low:.4f} to {high:.4f}), "
        f"pixel accuracy {scores['pixel_accuracy']:.4f}, mean accuracy {scores['mean_accuracy']:.4f}, "
        f"{counted(scores['pictures'], 'picture')}",
    ]
    if (thing := scores_of(evaluation).task.object) is not None:
        name = evaluation.classes.names[thing]
        row = scores["classes"][name]
        if row["dice"] is not None:
            lines.insert(0, f"{name}: Dice {row['dice']:.4f}, IoU {row['iou']:.4f}")
    if evaluation.part:
        lines.append(f"scored: {evaluation.part}")
    lines += [f"protocol {evaluation.protocol.name}: {evaluation.protocol.says}", *answered(evaluation)]
    if evaluation.mean_over:
        of = scores["mean_iou_of"]
        lines.append(f"mean IoU {of['mean_iou']:.4f} over {', '.join(of['classes'])}")
    return [*lines, *on_the_card(evaluation)]


def on_the_card(evaluation: Evaluation) -> list[str]:
    """The scores on the model's card, each with where it is from, but those that the evaluation has just found
    again."""
    lines = []
    for score in evaluation.card.scores:
        if _found_again(score, evaluation):
            continue
        whose = "measured when it was made" if score.source == MEASURED_HERE else "published"
        source = "" if score.source == MEASURED_HERE else f" ({score.source})"
        lines.append(f"{whose}: {score.metric} {score.value:.4f} on {score.data}; {score.protocol}{source}")
    return lines


MEASURED_HERE = "measured here"
"""The source of a score that pixelwise has put on a card."""


def _found_again(score: Score, evaluation: Evaluation) -> bool:
    ours = {
        "mean IoU": evaluation.confusion.mean_iou(),
        "pixel accuracy": evaluation.confusion.pixel_accuracy(),
    }
    if (found := evaluation.surfaces) is not None:
        ours |= {
            "mean Dice": found.mean_dice,
            **{f"Dice of {name}": dice for name, dice in found.dice.items()},
        }
    return score.source == MEASURED_HERE and abs(ours.get(score.metric, math.inf) - score.value) < 5e-5


def answered(evaluation: Evaluation) -> list[str]:
    """What to add where doubtful pixels have no answer, else nothing."""
    least = evaluation.protocol.options.min_confidence
    if not least:
        return []
    return [
        f"{evaluation.answered:.2%} of the labelled pixels scored, the others are below min_confidence {least:g}"
    ]


def lined(title: str, heads: Sequence[str], rows: Sequence[tuple[str, Sequence[str]]]) -> list[str]:
    """Lines of a table: names to the left, cells to the right of their columns, COLUMNS letters wide at most."""
    from rich.cells import cell_len

    names = [printable(name) for name, _ in rows]
    widths = [max(len(head), *(len(cells[i]) for _, cells in rows), 0) for i, head in enumerate(heads)]
    room = COLUMNS - sum(width + 2 for width in widths)
    longest = max((cell_len(name) for name in (title, *names)), default=0)
    width = min(longest, room)
    lines = [
        title
        + " " * (width - len(title))
        + "".join(f"  {h:>{w}}" for h, w in zip(heads, widths, strict=True))
    ]
    for name, (_, cells) in zip(names, rows, strict=True):
        own, fits = cell_len(name), cell_len(name) <= width
        if not fits:
            lines.append(name)
        numbers = "".join(f"  {c:>{w}}" for c, w in zip(cells, widths, strict=True))
        lines.append((name + " " * (width - own) if fits else " " * width) + numbers)
    return lines


def _corrupted(evaluation: Evaluation) -> list[str]:
    """The table of corrupted pictures, nothing where there are none."""
    if evaluation.robustness is None:
        return []
    found = evaluation.robustness.to_dict()
    rows = []
    for name, row in rows_of(found):
        cells = [cell(row.get("strengths", {}).get(str(s), {}).get("mean_iou")) for s in STRENGTHS]
        cells += [cell(row["mean_iou"]), percent(row.get("retention"))]
        cells += [cell(row[key]) for key in ("expected_calibration_error", "area_under_risk_coverage")]
        rows.append((name, cells))
    heads = (*(f"at {s}" for s in STRENGTHS), "mean", "retained", "ECE", "risk")
    return ["", *lined("IoU, corrupted", heads, rows), "", what_it_means(evaluation, found)]


def cell4(value: float | None) -> str:
    """A score with four digits."""
    return "unknown" if value is None else f"{value:.4f}"


def cell(value: float | None) -> str:
    """A score with three digits, nothing for none."""
    return "" if value is None else f"{value:.3f}"

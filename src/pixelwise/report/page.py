"""The page of a report: one HTML file that asks nobody for anything, in light and dark, from phone to desktop."""

from __future__ import annotations

import base64
import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pixelwise.evaluation import Evaluation
from pixelwise.report import confusion, corrupted, plots, shown
from pixelwise.report.markup import cell, facts, swatched, text
from pixelwise.report.pictures import Gallery, Large
from pixelwise.report.task import PictureScores, scores_of
from pixelwise.report.text import answered, on_the_card

PLAIN = {"mean_iou": "mean IoU", "pixel_accuracy": "pixel accuracy", "mean_accuracy": "mean accuracy"}

MOST_NAMES = 20
"""Of classes that are named because they do not occur."""


@dataclass(frozen=True)
class Run:
    """The training that a report is about. config: `TrainConfig.to_dict`; metrics: the lines of its metrics.jsonl
    (`training.progress.read_metrics`)."""

    config: Mapping[str, Any]
    metrics: Sequence[Mapping[str, Any]] = field(default_factory=list)


def render(
    evaluation: Evaluation,
    larges: Sequence[Large],
    gallery: Gallery,
    made: Mapping[str, str],
    run: Run | None = None,
) -> str:
    """The page. larges: the pictures shown large; gallery: their thumbnails; made: when and with what, for people."""
    scores, found = evaluation.to_dict(), scores_of(evaluation)
    kind = "Evaluation" if run is None else "Training"
    script = _file("page.js")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{digest}'"
    name = text(evaluation.card.name)
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{name}: {kind.lower()}</title>
<meta http-equiv="Content-Security-Policy" content="{policy}">
<meta name="viewport" content="width=device-width, initial-scale=1"><meta name="color-scheme" content="light dark">
<style>{plots.PLOT_STYLE}{_file("page.css")}</style></head><body>
<header><p class="kind">{kind}</p><h1>{name}</h1>
<p class="note">{text(_scored(evaluation))}</p></header>
<main>{_headline(evaluation, scores, found)}
{_curves(run)}
<div class="pair">{_classes(evaluation, scores)}{_distribution(found)}</div>
{shown.large_section(evaluation, larges, found)}
{confusion.section(evaluation)}
{_corrupted(evaluation)}
{_what(evaluation, made)}
{_settings(run)}
{shown.list_section(evaluation, gallery, found)}</main>
<script>{script}</script></body></html>
"""


def _file(name: str) -> str:
    return Path(__file__).with_name(name).read_text(encoding="utf-8")


def _scored(evaluation: Evaluation) -> str:
    """Which pictures the scores are of."""
    count = len(evaluation.confusion.names)
    part = evaluation.part or f"{count:,} picture{'s' if count != 1 else ''}"
    return f"{evaluation.data}: {part}" if evaluation.data else part


def _headline(evaluation: Evaluation, scores: dict[str, Any], found: PictureScores) -> str:
    """The numbers that are looked for first: of two classes the object's, of more the means."""
    interval = evaluation.confusion.interval
    of_many = scores["pictures"] > 1
    if (found_3d := evaluation.surfaces) is not None:
        said = scores["structures"]
        tolerance = f"surface Dice within {said['tolerance_mm']:g} mm"
        numbers = [(said["mean_dice"], "mean Dice", "")]
        numbers += [(value, f"Dice of {name}", "") for name, value in list(found_3d.dice.items())[:4]]
        numbers += [(said["mean_surface_dice"], tolerance, ""), (said["mean_hd95_mm"], "mm, HD95", "")]
        rest = [
            (scores[key], f"{PLAIN[key]} of the voxels of all scans")
            for key in ("mean_iou", "pixel_accuracy")
        ]
    elif evaluation.regions is not None:
        numbers = [(evaluation.regions.mean_dice(), "mean Dice of the regions", "")]
        numbers += [(value, f"Dice of {name}", "") for name, value in evaluation.regions.dice().items()]
        rest = [(scores[key], f"{PLAIN[key]} of the label map") for key in ("mean_iou", "pixel_accuracy")]
    elif (thing := found.task.object) is not None:
        name = evaluation.classes.names[thing]
        row = scores["classes"][name]
        low, high = (bound[thing] for bound in interval("dice"))
        numbers = [(row["dice"], f"Dice of {name}", _interval(low, high) if of_many else "")]
        numbers += [
            (row[key], f"{key.replace('iou', 'IoU')} of {name}", "") for key in ("iou", "precision", "recall")
        ]
        rest = [(scores[key], PLAIN[key]) for key in ("mean_iou", "pixel_accuracy")]
    else:
        low, high = (math.nan if v is None else v for v in scores["mean_iou_95_percent"])
        numbers = [(scores["mean_iou"], "mean IoU", _interval(low, high) if of_many else "")]
        numbers += [(scores["mean_dice"], "mean Dice", "")]
        numbers += [(scores[key], PLAIN[key], "") for key in ("pixel_accuracy", "mean_accuracy")]
        rest = []
    items = "".join(
        f"<li{' class=first' if not place else ''}><b>{cell(value)}</b>{text(called)}"
        f"{f'<small>{text(between)}</small>' if between else ''}</li>"
        for place, (value, called, between) in enumerate(numbers)
    )
    lines = (
        [f"Over all classes: {', '.join(f'{called} {cell(value)}' for value, called in rest)}."]
        if rest
        else []
    )
    if of := scores.get("mean_iou_of"):
        lines.append(f"Mean IoU {of['mean_iou']:.4f} over {', '.join(of['classes'])}.")
    return f'<ul class="figures">{items}</ul>{"".join(f"<p>{text(line)}</p>" for line in lines)}'


def _interval(low: float, high: float) -> str:
    return "" if math.isnan(low) else f"95% interval over pictures {low:.3f} to {high:.3f}"


def _what(evaluation: Evaluation, made: Mapping[str, str]) -> str:
    """Model, data, protocol and versions, each once."""
    card = evaluation.card
    size = card.preprocess.size
    parts = [
        f"{card.architecture}, {card.parameters / 1e6:.2f} million parameters" if card.parameters else ""
    ]
    parts.append(
        ""
        if size is None
        else f"pictures at {size if isinstance(size, int) else 'x'.join(map(str, size))} px"
    )
    words = [part for part in parts if part]
    others = "".join(f"<li>{text(line[:1].upper() + line[1:])}</li>" for line in on_the_card(evaluation))
    pairs = [
        ("Model", text("; ".join([card.name, *words]))),
        ("Made by", text(card.origin) if card.origin != "unknown" else ""),
        ("Data", text(_scored(evaluation))),
        ("Date", text(made.get("date", ""))),
        ("Protocol", text(f"{evaluation.protocol.name}: {evaluation.protocol.says}")),
        ("Left out", text("; ".join(answered(evaluation)))),
        ("Other scores", f'<ul class="plain">{others}</ul>' if others else ""),
        ("Versions", text(made.get("versions", ""))),
    ]
    return f"<section><h2>About these scores</h2>{facts(pairs)}</section>"


def _curves(run: Run | None) -> str:
    if run is None:
        return ""
    curves = [plot for plot in (plots.loss_curves(run.metrics), plots.score_curve(run.metrics)) if plot]
    if not curves:
        return ""
    return f'<section><h2>Curves</h2><div class="plots">{"".join(curves)}</div></section>'


def _classes(evaluation: Evaluation, scores: dict[str, Any]) -> str:
    """The scores by class; of regions that overlap those of each, whatever lies over it."""
    by_class = scores.get("regions", scores["classes"])
    total = sum(row["true_pixels"] for row in scores["classes"].values()) or 1
    rows = "".join(
        f'<tr><th scope="row">{swatched(evaluation.classes, i)}</th>'
        + "".join(f"<td>{cell(row[key])}</td>" for key in ("iou", "dice", "precision", "recall"))
        + f"<td>{row['true_pixels'] / total:.2%}</td><td class=extra>{row['true_pixels']:,}</td></tr>"
        for i, row in enumerate(by_class.values(), start=len(evaluation.classes) - len(by_class))
        if row["iou"] is not None
    )
    absent = [n for n, row in by_class.items() if row["iou"] is None]
    which = (
        ", ".join(absent) if len(absent) <= MOST_NAMES else f"{len(absent)} of the {len(by_class)} classes"
    )
    says = f"<p class=note>In neither truth nor answer: {text(which)}.</p>" if absent else ""
    whole = " They overlap, and each counts whole." if evaluation.regions is not None else ""
    heads = "".join(
        f'<th scope="col">{head}</th>' for head in ("IoU", "Dice", "precision", "recall", "of pixels")
    )
    heads += '<th scope="col" class="extra">pixels</th>'
    return (
        '<section><h2>Classes</h2><div class="wide" tabindex="0" role="region" aria-label="Scores of the classes">'
        '<table class="classes"><caption>Counted over all pictures together. Precision: what share of the pixels '
        f"that were given a class have it; recall: what share of the class was found.{whole}</caption>"
        f'<thead><tr><th scope="col" class="left">class</th>{heads}</tr></thead><tbody>{rows}</tbody></table></div>'
        f"{says}</section>"
    )


def _distribution(found: PictureScores) -> str:
    without = len(found.order) - len(found.scored)
    says = ""
    if without:
        have = "pictures have" if without != 1 else "picture has"
        says = (
            f"<p class=note>{without:,} {have} no score: none of it is in the truth, and none was found.</p>"
        )
    called = f"{found.called} of a picture"
    return (
        f"<section><h2>Scores of the pictures</h2><p>Each picture by itself. Their mean is another number than the "
        "score over all pixels, because a picture with little in it counts as much as a full one.</p>"
        f'<div class="plots">{plots.histogram(found.values, called)}</div>{says}</section>'
    )


def _corrupted(evaluation: Evaluation) -> str:
    """Plot and table of corrupted pictures, empty where there are none."""
    if evaluation.robustness is None:
        return ""
    return corrupted.section(evaluation)


def _settings(run: Run | None) -> str:
    """All settings of a run, with the reasons of those that were chosen for the data."""
    if run is None:
        return ""
    reasons = run.config.get("reasons") or {}
    rows = ""
    for name, value in run.config.items():
        if name != "reasons":
            reason = f"<td>{text(reasons.get(name, ''))}</td>" if reasons else ""
            cells = f'<th scope="row"><code>{text(name)}</code></th><td><code>{text(value)}</code></td>'
            rows += f"<tr>{cells}{reason}</tr>"
    why = '<th scope="col" class="left">why</th>' if reasons else ""
    return (
        "<section><h2>Settings</h2><details><summary>All settings of the run, which are those of its config.json"
        '</summary><div class="wide" tabindex="0" role="region" aria-label="Settings"><table class="settings"><thead>'
        f'<tr><th scope="col" class="left">setting</th><th scope="col" class="left">value</th>{why}</tr></thead>'
        f"<tbody>{rows}</tbody></table></div></details></section>"
    )

"""Report: an Evaluation to look at: text, the confusion matrix and the worst pictures as images, and one HTML page."""

from __future__ import annotations

import base64
import html
import io
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from pixelwise import draw
from pixelwise.corruptions import STRENGTHS
from pixelwise.datasets.opening import ignore_index
from pixelwise.evaluation import Evaluation, answer_under
from pixelwise.segmenter import Segmenter


def confusion_picture(evaluation: Evaluation) -> NDArray[np.uint8]:
    """The confusion matrix, rows the truth, each row as shares of its class; uint8 (h, w, 3)."""
    matrix = evaluation.confusion.matrix
    present = np.flatnonzero(matrix.sum(0) + matrix.sum(1))
    shares = matrix[np.ix_(present, present)] / np.maximum(matrix[present].sum(1, keepdims=True), 1)
    names = [evaluation.classes.names[i] for i in present]
    cell, font = 34, ImageFont.load_default(size=13)
    left = 16 + max(int(font.getlength(name)) for name in names)
    size = cell * len(names)
    canvas = Image.new("RGB", (left + size + 16, left + size + 16), "white")
    pen = ImageDraw.Draw(canvas)
    for row, name in enumerate(names):
        pen.text((left - 6, left + row * cell + cell / 2), name, fill="black", font=font, anchor="rm")
        across = Image.new("L", (left, cell), 0)
        ImageDraw.Draw(across).text((4, cell / 2), name, fill=255, font=font, anchor="lm")
        canvas.paste((0, 0, 0), (left + row * cell, 0), across.rotate(90, expand=True))
        for column in range(len(names)):
            share = shares[row, column]
            shade = round(255 * (1 - share**0.5))
            colour = (shade, shade, 255) if row == column else (255, shade, shade)
            x, y = left + column * cell, left + row * cell
            pen.rectangle((x, y, x + cell - 2, y + cell - 2), fill=colour)
            if share >= 0.01:
                ink = "white" if shade < 110 else "black"
                pen.text((x + cell / 2, y + cell / 2), f"{100 * share:.0f}", fill=ink, font=font, anchor="mm")
    return np.asarray(canvas)


def worst_pictures(
    evaluation: Evaluation, segmenter: Segmenter, count: int = 10
) -> list[tuple[str, float, NDArray[np.uint8]]]:
    """The pictures with the lowest mean IoU: name, score, and photo, truth and answer side by side."""
    shown = []
    numbers = {name: i for i, name in enumerate(evaluation.confusion.names)}
    for name, score in evaluation.confusion.per_image().worst(count):
        answer, truth = answer_under(evaluation.protocol, segmenter, evaluation.samples[numbers[name]])
        known = truth != ignore_index(evaluation.classes)
        ids = np.full(truth.shape, segmenter.classes.ignore_id or 0, segmenter.classes.dtype)
        ids[known] = segmenter.classes.to_ids(truth[known])
        panels = [
            answer.image,
            draw.overlay(answer.image, ids, segmenter.classes, alpha=0.6),
            answer.overlay(alpha=0.6),
        ]
        captions = [f"{name}: mean IoU {score:.3f}", "truth", "answer"]
        shown.append((name, score, draw.side_by_side(*panels, captions=captions)))
    return shown


def table(evaluation: Evaluation) -> str:
    """The scores of every class that occurs and the summary, as text."""
    scores = evaluation.to_dict()
    width = max(len(name) for name in evaluation.classes.names)
    lines = [f"{'class':<{width}}    IoU   Dice  precision  recall  share of pixels"]
    if evaluation.regions is not None:
        lines = [*evaluation.regions.lines(), "", "as the label map that their order makes:", *lines]
    total = sum(row["true_pixels"] for row in scores["classes"].values()) or 1
    for name, row in scores["classes"].items():
        if row["iou"] is not None:
            cells = "  ".join(
                _cell(row[key], w) for key, w in (("iou", 5), ("dice", 5), ("precision", 9), ("recall", 6))
            )
            lines.append(f"{name:<{width}}  {cells}  {row['true_pixels'] / total:14.2%}")
    low, high = scores["mean_iou_95_percent"]
    lines += [
        "",
        f"mean IoU {scores['mean_iou']:.4f} (95% over pictures {low:.4f} to {high:.4f}), "
        f"pixel accuracy {scores['pixel_accuracy']:.4f}, mean accuracy {scores['mean_accuracy']:.4f}, "
        f"{scores['pictures']} pictures",
        f"protocol {evaluation.protocol.name}: {evaluation.protocol.says}",
        *answered(evaluation),
    ]
    if evaluation.mean_over:
        of = scores["mean_iou_of"]
        lines.append(f"mean IoU {of['mean_iou']:.4f} over {', '.join(of['classes'])}")
    for score in evaluation.card.scores:
        lines.append(
            f"published: {score.metric} {score.value:.4f} on {score.data}; {score.protocol} ({score.source})"
        )
    return "\n".join([*lines, *_corrupted_lines(evaluation)])


def _corrupted_lines(evaluation: Evaluation) -> list[str]:
    """The table of corrupted pictures as text, nothing where there are none."""
    if evaluation.robustness is None:
        return []
    found = evaluation.robustness.to_dict()
    rows = _corrupted_rows(found)
    width = max(len(name) for name, _ in rows)
    strengths = "  ".join(f"IoU at {s}" for s in STRENGTHS)
    lines = ["", f"{'corrupted':<{width}}  {strengths}   mean  retained    ECE   risk"]
    for name, row in rows:
        cells = [_cell(row.get("strengths", {}).get(str(s), {}).get("mean_iou"), 8) for s in STRENGTHS]
        cells += [_cell(row["mean_iou"], 5), _percent(row.get("retention"), 8)]
        cells += [_cell(row[key], 5) for key in ("expected_calibration_error", "area_under_risk_coverage")]
        lines.append(f"{name:<{width}}  {'  '.join(cells)}")
    return [*lines, "", _what_corrupted_means(evaluation, found)]


def _corrupted_rows(found: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    """Clean, each family after its corruptions, and all: what both tables show."""
    rows = [("clean", found["clean"])]
    for family, means in found["families"].items():
        rows += [(name, row) for name, row in found["corruptions"].items() if row["family"] == family]
        rows.append((f"mean of {family}", means))
    return [*rows, ("mean of all", found["mean"])]


def _what_corrupted_means(evaluation: Evaluation, found: dict[str, Any]) -> str:
    """What the columns are, and what others would report."""
    names = [evaluation.classes.names[i] for i in found["classes"]]
    over = (
        f" of {', '.join(names)}" if len(names) <= 8 else f" of the {len(names)} classes that the labels hold"
    )
    says = (
        f"IoU: mean IoU{over}; retained: its share of that of the clean pictures, mean over strengths; ECE: expected "
        f"calibration error; risk: area under the risk-coverage curve; seed {found['seed']}"
    )
    noise = {
        name: row["retention_of_strengths_1_to_3"]
        for name, row in found["corruptions"].items()
        if row.get("retention_of_strengths_1_to_3") is not None
    }
    if noise:
        says += "; retained over strengths 1 to 3, which are those of noise in Cityscapes-C: " + ", ".join(
            f"{name} {value:.1%}" for name, value in noise.items()
        )
    if (published := found.get("cityscapes-c", {}).get("retention")) is not None:
        says += f"; retained as Cityscapes-C counts, all sixteen: {published:.1%}"
    return says


def retention_plot(found: dict[str, Any], family: str) -> str:
    """An SVG: what share of the mean IoU is left at each strength, a line for each corruption of the family.

    found: `Robustness.to_dict`. Its colours are the variables of PLOT_STYLE, for light and dark.
    """
    rows = {name: row for name, row in found["corruptions"].items() if row["family"] == family}
    left, top, width, height = 44, 26, 288, 150
    values = [s["retention"] for row in rows.values() for s in row["strengths"].values()]
    highest = max([1.0, *(value for value in values if value is not None)])

    def at(strength: int, value: float) -> tuple[float, float]:
        return left + 14 + (strength - 1) * (width - 28) / 4, top + height * (1 - value / highest)

    parts = [f'<text class="name" x="{left}" y="16">{family}</text>']
    for value in (0, 0.25, 0.5, 0.75, 1):
        y = at(1, value)[1]
        parts.append(f'<path class="grid" d="M{left} {y:.1f}h{width}"/>')
        parts.append(f'<text x="{left - 6}" y="{y + 4:.1f}" text-anchor="end">{value:.0%}</text>')
    for strength in STRENGTHS:
        x = at(strength, 0)[0]
        parts.append(f'<text x="{x:.1f}" y="{top + height + 16}" text-anchor="middle">{strength}</text>')
    for number, (name, row) in enumerate(rows.items()):
        points = [
            at(int(strength), scores["retention"])
            for strength, scores in row["strengths"].items()
            if scores["retention"] is not None
        ]
        line = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
        parts.append(f'<polyline class="line l{number}" points="{line}"/>')
        parts += [f'<circle class="dot l{number}" cx="{x:.1f}" cy="{y:.1f}" r="3"/>' for x, y in points]
        short = name.removesuffix(f"_{family}")
        x, y = left + number % 2 * 146, top + height + 38 + number // 2 * 18
        parts.append(f'<path class="line l{number}" d="M{x} {y - 4}h20"/>')
        parts.append(f'<text x="{x + 26}" y="{y}">{short} {_percent(row["retention"], 0)}</text>')
    tall = top + height + 38 + (len(rows) - 1) // 2 * 18 + 8
    return (
        f'<svg class="plot" xmlns="http://www.w3.org/2000/svg" viewBox="0 0 340 {tall}" width="340" height="{tall}" '
        f'role="img" aria-label="Retained mean IoU over strengths: {family}">{"".join(parts)}</svg>'
    )


PLOT_STYLE = """
:root { --ink: #222; --paper: #fff; --rule: #ddd; --soft: #555;
  --l0: #0062a8; --l1: #c04a00; --l2: #00795a; --l3: #a0306f; --l4: #6f6400 }
@media (prefers-color-scheme: dark) { :root { --ink: #e4e4e4; --paper: #16181b; --rule: #3c4046; --soft: #aab;
  --l0: #6bb8ff; --l1: #ff9a55; --l2: #4fd1a5; --l3: #f28bc4; --l4: #d9cb4a } }
.plot text { font: 12px system-ui, sans-serif; fill: var(--ink) } .plot .name { font-weight: bold }
.plot .grid { stroke: var(--rule); fill: none } .plot .line { fill: none; stroke-width: 2 }
.plot .l0 { stroke: var(--l0) } .plot .l1 { stroke: var(--l1); stroke-dasharray: 7 3 }
.plot .l2 { stroke: var(--l2); stroke-dasharray: 2 3 } .plot .l3 { stroke: var(--l3); stroke-dasharray: 9 3 2 3 }
.plot .l4 { stroke: var(--l4); stroke-dasharray: 4 2 } .plot .dot { fill: var(--paper); stroke-dasharray: none }
"""
"""Colours and lines of `retention_plot`; the page takes its own from the same variables."""


def _corrupted_section(evaluation: Evaluation) -> str:
    """Plot and table of corrupted pictures for the page, empty where there are none."""
    if evaluation.robustness is None:
        return ""
    found = evaluation.robustness.to_dict()
    columns = {
        "mean_iou": "mean IoU",
        "expected_calibration_error": "ECE",
        "area_under_risk_coverage": "risk",
    }
    head = "".join(f"<th colspan=6 class=group>{title} at strength</th>" for title in columns.values())
    numbers = "".join(f"<th class=group>{s}</th>" for s in STRENGTHS) + "<th class=group>mean</th>"
    rows = []
    for name, row in _corrupted_rows(found):
        cells = f"<td>{html.escape(name)}</td><td>{_percent(row.get('retention'), 0)}</td>"
        for key in columns:
            by_strength = [row.get("strengths", {}).get(str(s), {}).get(key) for s in STRENGTHS]
            cells += "".join(f"<td>{_cell(value, 0)}</td>" for value in (*by_strength, row[key]))
        rows.append(f"<tr{' class=sum' if 'strengths' not in row else ''}>{cells}</tr>")
    plots = "".join(retention_plot(found, family) for family in found["families"])
    return f"""<h2>Corrupted pictures</h2>
<p>What share of the clean pictures' mean IoU is left at each strength; in the legend its mean over strengths.</p>
<div class="plots">{plots}</div>
<div class="wide"><table class="corrupted"><tr><th rowspan=2>corruption</th><th rowspan=2>retained</th>{head}</tr>
<tr>{numbers * 3}</tr>{"".join(rows)}</table></div>
<p>{html.escape(_what_corrupted_means(evaluation, found))}.</p>
"""


def page(evaluation: Evaluation, worst: list[tuple[str, float, NDArray[np.uint8]]]) -> str:
    """One HTML page that needs nothing beside it: summary, classes, confusion matrix, worst pictures."""
    scores = evaluation.to_dict()
    rows = "".join(
        f"<tr><td><i style='background:rgb{evaluation.classes.colors[i]}'></i>{html.escape(name)}</td>"
        + "".join(f"<td>{_cell(row[key], 0)}</td>" for key in ("iou", "dice", "precision", "recall"))
        + f"<td>{row['true_pixels']:,}</td></tr>"
        for i, (name, row) in enumerate(scores["classes"].items())
        if row["iou"] is not None
    )
    published = "".join(
        f"<li>{html.escape(f'{s.metric} {s.value:.4f} on {s.data}; {s.protocol} ({s.source})')}</li>"
        for s in evaluation.card.scores
    )
    if published:
        published = f"<p>Published on its card, each under its own protocol:</p><ul>{published}</ul>"
    pictures = "".join(
        f"<img src='{_data_uri(picture, 'JPEG')}' alt='{html.escape(name)}'>" for name, _, picture in worst
    )
    low, high = scores["mean_iou_95_percent"]
    of = scores.get("mean_iou_of")
    chosen = (
        f"<p>Mean IoU {of['mean_iou']:.4f} over {html.escape(', '.join(of['classes']))}.</p>" if of else ""
    )
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{html.escape(evaluation.card.name)} evaluated</title>
<meta name="viewport" content="width=device-width, initial-scale=1"><meta name="color-scheme" content="light dark">
<style>{PLOT_STYLE}
body {{ font: 15px/1.5 system-ui, sans-serif; max-width: 70rem; margin: 2rem auto; padding: 0 1rem }}
body {{ color: var(--ink); background: var(--paper) }}
.wide {{ overflow-x: auto }} .sum {{ color: var(--soft) }} .corrupted {{ font-size: 13px; white-space: nowrap }}
.plots {{ display: grid; gap: 1rem; margin-bottom: 1rem }}
.plots {{ grid-template-columns: repeat(auto-fit, minmax(min(400px, 100%), 1fr)) }}
.plot {{ width: 100%; max-width: 500px; height: auto }}
table {{ border-collapse: collapse }}
td, th {{ padding: .15rem .8rem; text-align: right; border-bottom: 1px solid var(--rule) }}
td:first-child, th:first-child {{ text-align: left; white-space: nowrap }}
img {{ max-width: 100%; margin: .5rem 0; display: block }}
i {{ display: inline-block; width: 1em; height: 1em; margin-right: .5em; border: 1px solid #888 }}
.corrupted td, .corrupted th {{ padding: .15rem .3rem }} .corrupted .group {{ text-align: center }}
.big span {{ font-size: 1.8rem; margin-right: .3rem }} .big {{ display: flex; flex-wrap: wrap; gap: 0 3rem }}
</style></head><body>
<h1>{html.escape(evaluation.card.name)}</h1>
<p>{scores["pictures"]} pictures of {html.escape(evaluation.data)}.
Protocol {html.escape(evaluation.protocol.name)}: {html.escape(evaluation.protocol.says)}.
{"".join(f"{sentence}." for sentence in answered(evaluation))}</p>
<p class="big"><b><span>{scores["mean_iou"]:.3f}</span>mean IoU</b><b><span>{scores["pixel_accuracy"]:.3f}</span>pixel
accuracy</b><b><span>{scores["mean_accuracy"]:.3f}</span>mean accuracy</b></p>
<p>95% interval of the mean IoU over pictures: {low:.3f} to {high:.3f}.</p>
{chosen}{published}
<h2>Classes</h2>
<div class="wide"><table>
<tr><th>class</th><th>IoU</th><th>Dice</th><th>precision</th><th>recall</th><th>pixels</th></tr>{rows}</table></div>
{_corrupted_section(evaluation)}<h2>Confusion</h2><p>Rows are the truth; numbers are percent of the row.</p>
<img src="{_data_uri(confusion_picture(evaluation), "PNG")}" alt="confusion matrix" style="max-width: 60rem">
<h2>Worst pictures</h2>{pictures}
</body></html>
"""


def answered(evaluation: Evaluation) -> list[str]:
    """What to add where doubtful pixels have no answer, else nothing."""
    least = evaluation.protocol.options.min_confidence
    if not least:
        return []
    return [
        f"{evaluation.answered:.2%} of the labelled pixels scored, the others are below min_confidence {least:g}"
    ]


def _data_uri(picture: NDArray[np.uint8], kind: str) -> str:
    file = io.BytesIO()
    Image.fromarray(picture).save(file, kind)
    return f"data:image/{kind.lower()};base64,{base64.b64encode(file.getvalue()).decode()}"


def _percent(value: float | None, width: int) -> str:
    return f"{'' if value is None else f'{value:.1%}':>{width}}"


def _cell(value: float | None, width: int) -> str:
    return f"{'' if value is None else f'{value:.3f}':>{width}}"

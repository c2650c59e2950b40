"""Report: an Evaluation to look at: text, the confusion matrix and the worst pictures as images, and one HTML page."""

from __future__ import annotations

import base64
import html
import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from pixelwise import draw
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
    return "\n".join(lines)


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
<style>
body {{ font: 15px/1.5 system-ui, sans-serif; max-width: 70rem; margin: 2rem auto; padding: 0 1rem; color: #222 }}
table {{ border-collapse: collapse }}
td, th {{ padding: .15rem .8rem; text-align: right; border-bottom: 1px solid #ddd }}
td:first-child, th:first-child {{ text-align: left }} img {{ max-width: 100%; margin: .5rem 0; display: block }}
i {{ display: inline-block; width: 1em; height: 1em; margin-right: .5em; border: 1px solid #888 }}
.big span {{ font-size: 1.8rem; margin-right: .3rem }} .big {{ display: flex; gap: 3rem }}
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
<table><tr><th>class</th><th>IoU</th><th>Dice</th><th>precision</th><th>recall</th><th>pixels</th></tr>{rows}</table>
<h2>Confusion</h2><p>Rows are the truth; numbers are percent of the row.</p>
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


def _cell(value: float | None, width: int) -> str:
    return f"{'' if value is None else f'{value:.3f}':>{width}}"

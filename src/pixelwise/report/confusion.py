"""The confusion matrix as a picture, as a table of the page, and as a list of the most frequent mistakes."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from pixelwise.evaluation import Evaluation
from pixelwise.report.markup import swatched, text

MOST_CLASSES = 24
"""Of a table; beyond that there is the picture, and the list of mistakes."""

MOST_MISTAKES = 12
"""Of the list."""


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


def section(evaluation: Evaluation) -> str:
    """Table and list for the page."""
    matrix = evaluation.confusion.matrix
    present = np.flatnonzero(matrix.sum(0) + matrix.sum(1))
    parts = []
    if len(present) <= MOST_CLASSES:
        parts.append(_table(evaluation, present))
    else:
        parts.append(
            f"<p>{len(present)} classes occur, which is too many for a table to read; all of them are in confusion.png "
            "beside this page.</p>"
        )
    if len(present) > 2:
        parts.append(_mistakes(evaluation))
    return f'<section><h2>Confusion</h2><div class="stack">{"".join(parts)}</div></section>'


def _table(evaluation: Evaluation, present: NDArray[np.intp]) -> str:
    matrix, names = evaluation.confusion.matrix, evaluation.classes.names
    heads = "".join(f'<th scope="col"><span>{text(names[i])}</span></th>' for i in present)
    rows = []
    for i in present:
        total = matrix[i].sum()
        cells = "".join(_cell(matrix[i, j] / total if total else None, i == j) for j in present)
        rows.append(f'<tr><th scope="row">{text(names[i])}</th>{cells}<td>{total:,}</td></tr>')
    many = " many" if len(present) > 6 else ""
    return (
        f'<div class="wide" tabindex="0" role="region" aria-label="Confusion matrix"><table class="confusion{many}">'
        "<caption>Each row is a class in the truth, each column what the model answered; numbers are percent of the "
        "row’s pixels. Blue is right, orange is wrong.</caption>"
        f'<thead><tr><th scope="col" rowspan="2" class="left">truth</th><th scope="colgroup" colspan="{len(present)}">'
        f'answer, in % of the row</th><th scope="col" rowspan="2">pixels</th></tr><tr>{heads}</tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table></div>"
    )


def _cell(share: float | None, right: bool) -> str:
    """A cell with its percentage; the shade grows with the root, so that small mistakes are seen."""
    if share is None:
        return "<td>–</td>"
    if share == 0:
        return "<td>0</td>"
    shown = "<1" if share <= 0.005 else f"{100 * share:.0f}"
    shown = ">99" if shown == "100" and share < 1 else shown
    return f'<td class="{"hit" if right else "miss"}" style="--s:{share**0.5:.2f}">{text(shown)}</td>'


def _mistakes(evaluation: Evaluation) -> str:
    """What is taken for what most often, in pixels."""
    classes, wrong = evaluation.classes, evaluation.confusion.matrix.copy()
    totals = wrong.sum(axis=1)
    np.fill_diagonal(wrong, 0)
    order = np.argsort(-wrong.ravel(), kind="stable")[:MOST_MISTAKES]
    rows = []
    for place in order:
        i, j = divmod(int(place), len(classes))
        if count := int(wrong[i, j]):
            rows.append(
                f'<tr><th scope="row">{swatched(classes, i)}</th><td class="left">{swatched(classes, j)}</td>'
                f'<td class="extra">{count:,}</td><td>{count / totals[i]:.1%}</td></tr>'
            )
    if not rows:
        return "<p>There is no mistake.</p>"
    return (
        '<div class="wide" tabindex="0" role="region" aria-label="Most frequent mistakes"><table class="often">'
        "<caption>The most frequent mistakes, by pixels.</caption><thead><tr>"
        '<th scope="col" class="left">truth</th><th scope="col" class="left">taken for</th>'
        '<th scope="col" class="extra">pixels</th>'
        f'<th scope="col">of the class</th></tr></thead><tbody>{"".join(rows)}</tbody></table></div>'
    )

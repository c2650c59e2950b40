"""The sections of the page that show pictures: a few large ones, and the list of all of them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from pixelwise import draw
from pixelwise.evaluation import Evaluation
from pixelwise.report import mistakes
from pixelwise.report.markup import cell, keys, text
from pixelwise.report.pictures import MOST_THUMBNAILS, SHORTEST_PX, THUMBNAIL_PX, Gallery, Large
from pixelwise.report.task import PictureScores
from pixelwise.terminal import counted


def large_section(evaluation: Evaluation, larges: Sequence[Large], found: PictureScores) -> str:
    """The pictures that are shown large, with the legends of their panels; empty where there are none."""
    if not larges:
        return ""
    shown = "".join(_large(one, found) for one in larges)
    ground = found.task.ground
    many = len(evaluation.classes) > 2
    codes = [mistakes.OTHER] if ground is None else [c for c in mistakes.SAYS if c != mistakes.OTHER or many]
    matrix = evaluation.confusion.matrix
    present = [int(i) for i in np.flatnonzero(matrix.sum(0) + matrix.sum(1))]
    classes = [(evaluation.classes.colors[i], evaluation.classes.names[i]) for i in present]
    return (
        "<section><h2>Worst, median and best</h2>"
        f"{keys([*classes, (draw.VOID_COLOR, 'not labelled')], 'Truth and answer')}"
        f"{keys([(mistakes.COLORS[code], mistakes.SAYS[code]) for code in codes], 'Mistakes')}"
        f"{shown}</section>"
    )


def _large(one: Large, found: PictureScores) -> str:
    figures = ""
    for panel in one.panels:
        width, height = panel.image.size
        sharp = ' class="sharp"' if max(width, height) <= SHORTEST_PX * 2 and not panel.photo else ""
        figures += (
            f'<figure><img{sharp} src="{panel.uri()}" width="{width}" height="{height}" alt="{text(panel.alt)}">'
            f"<figcaption>{text(panel.title)}</figcaption></figure>"
        )
    width, height = one.panels[0].image.size
    return (
        f'<article class="large"><header><h3>{text(one.place)}: {text(one.name)}</h3>'
        f"<p>{text(found.called)} {cell(one.score)}. {text(one.says)}</p>"
        f'<button type="button" hidden aria-pressed="false" aria-label="Enlarge {text(one.name)}">Enlarge</button>'
        "</header>"
        f'<div class="panels{" broad" if width > 2 * height else ""}">{figures}</div></article>'
    )


def list_section(evaluation: Evaluation, gallery: Gallery, found: PictureScores) -> str:
    """Every picture with its score, the lowest first, and what sorts and filters them."""
    names = evaluation.confusion.names
    items = "".join(_item(names[i], found, i, gallery.uri(i)) for i in found.order)
    present = np.flatnonzero(~np.isnan(found.by_class).all(axis=0))
    options = "".join(
        f'<option value="{i}">{found.task.measure} of {text(evaluation.classes.names[i])}</option>'
        for i in present
        if i != found.task.object
    )
    says = "On each thumbnail the picture, and its mistakes in the colours above."
    if len(names) > MOST_THUMBNAILS:
        says = (
            f"The {MOST_THUMBNAILS} pictures with the lowest scores have a thumbnail, the other "
            f"{len(names) - MOST_THUMBNAILS:,} only their score. " + says
        )
    return f"""<section><h2>All pictures</h2><p>{says}</p>
<form class="choose" hidden aria-label="Sort and filter the pictures">
<label>Score<select name="of"><option value="">{text(found.called)}</option>{options}</select></label>
<label>Order<select name="order"><option value="worst">lowest first</option><option value="best">highest first</option>
<option value="name">by name</option></select></label>
<label>Name contains<input name="part" type="search" autocomplete="off"></label>
<label class="half">Score from<input name="least" type="number" min="0" max="1" step="any"></label>
<label class="half">to<input name="most" type="number" min="0" max="1" step="any"></label>
</form><p id="said" class="note" role="status">{counted(len(names), "picture")}, the lowest score first.</p>
<ol class="all">{items}</ol></section>"""


def _item(name: str, found: PictureScores, number: int, uri: str | None) -> str:
    score = found.values[number]
    shown = "" if np.isnan(score) else f"{score:.3f}"
    by_class = " ".join(f"{c}:{v:.3f}" for c, v in enumerate(found.by_class[number]) if not np.isnan(v))
    picture = ""
    if uri is not None:
        picture = (
            f'<img src="{uri}" alt="{text(name)}: the picture and its mistakes" loading="lazy" decoding="async" '
            f'width="{2 * THUMBNAIL_PX}" height="{THUMBNAIL_PX}">'
        )
    return (
        f'<li data-name="{text(name)}" data-score="{shown}" data-classes="{by_class}">{picture}'
        f"<b>{shown or 'no score'}</b><span>{text(name)}</span></li>"
    )

"""Small parts of the page. Every text that comes from elsewhere goes through `text`."""

from __future__ import annotations

import html
from collections.abc import Iterable

from pixelwise.labels import Color, LabelSet
from pixelwise.terminal import printable


def text(value: object) -> str:
    """A text of anybody's as HTML, also inside of quotes: what would be markup is shown as it is, and what would
    control the line or turn it round becomes its escape."""
    return html.escape(printable(value))


def swatch(color: Color) -> str:
    """A small square of that colour; the name stands beside it."""
    return f'<i class="swatch" style="background:rgb{tuple(int(v) for v in color)}"></i>'


def swatched(classes: LabelSet, index: int) -> str:
    """A class: its colour and its name."""
    return (
        f'<span class="named">{swatch(classes.colors[index])}<span>{text(classes.names[index])}</span></span>'
    )


def keys(entries: Iterable[tuple[Color, str]], label: str) -> str:
    """A legend: of what, colours and what they mean."""
    items = "".join(f"<li>{swatch(color)}<span>{text(says)}</span></li>" for color, says in entries)
    return f'<div class="keys"><b>{text(label)}</b><ul>{items}</ul></div>'


def facts(pairs: Iterable[tuple[str, str]]) -> str:
    """What was done, by terms; the second of each pair is HTML."""
    return f'<dl class="facts">{"".join(f"<dt>{text(term)}</dt><dd>{says}</dd>" for term, says in pairs if says)}</dl>'


def cell(value: float | None) -> str:
    """A score with three digits, a dash for none."""
    return "–" if value is None or value != value else f"{value:.3f}"

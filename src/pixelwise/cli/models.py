"""`pixelwise models`: the catalog as a table or as JSON."""

from __future__ import annotations

import json as jsonlib
import sys
from typing import Literal

from pixelwise import catalog
from pixelwise.errors import UnknownNameError
from pixelwise.opening import card_of
from pixelwise.weights.card import Card


def run(pattern: str, json: bool) -> None:
    """Print every model whose name matches `pattern` (shell wildcards)."""
    names = catalog.list_models(pattern)
    if not names:
        raise UnknownNameError("model", pattern, catalog.CATALOG)
    cards = {name: card_of(name) for name in names}
    if json:
        print(jsonlib.dumps({name: card.to_dict() for name, card in cards.items()}, indent=1))
        return
    from rich.console import Console
    from rich.table import Table

    rows = [
        (
            name,
            str(card.labels.num_classes),
            f"{card.parameters / 1e6:.2f} M",
            _score(card),
            catalog.entry(name).weights,
        )
        for name, card in cards.items()
    ]
    titles = ("model", "classes", "parameters", "mean IoU or Dice", "weights")
    console = Console(width=None if sys.stdout.isatty() else 140)
    widths = [max(map(len, column)) for column in zip(titles, *rows, strict=True)]
    left = (
        console.width - sum(widths) + widths[3] - 2 * len(titles)
    )  # for the scores, which are cut where it is narrow
    table = Table(box=None, pad_edge=False, header_style="bold")
    for i, (title, width) in enumerate(zip(titles, widths, strict=True)):
        justify: Literal["left", "right"] = "right" if title in ("classes", "parameters") else "left"
        table.add_column(
            title, justify=justify, no_wrap=True, width=min(width, max(left, len(title))) if i == 3 else width
        )
    for row in rows:
        table.add_row(*row)
    console.print(table)


def _score(card: Card) -> str:
    for score in card.scores:
        if "iou" in score.metric.lower() or "dice" in score.metric.lower():
            return f"{score.value:.3f} on {score.data}"
    return ""

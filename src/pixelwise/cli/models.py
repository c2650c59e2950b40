"""`pixelwise models`: the catalog as a table or as JSON."""

from __future__ import annotations

import json as jsonlib
import sys

from pixelwise import catalog
from pixelwise.errors import UnknownNameError
from pixelwise.segmenter import card_of
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

    table = Table(box=None, pad_edge=False, header_style="bold")
    for title in ("model", "classes", "parameters", "mean IoU or Dice", "weights"):
        table.add_column(
            title, justify="right" if title in ("classes", "parameters") else "left", no_wrap=True
        )
    for name, card in cards.items():
        table.add_row(
            name, str(card.labels.num_classes), f"{card.parameters / 1e6:.2f} M", _score(card), _weights(name)
        )
    Console(width=None if sys.stdout.isatty() else 140).print(table)


def _score(card: Card) -> str:
    for score in card.scores:
        if "iou" in score.metric.lower() or "dice" in score.metric.lower():
            return f"{score.value:.3f} on {score.data}"
    return ""


def _weights(name: str) -> str:
    entry = catalog.entry(name)
    if entry.asset is not None:
        return "in the package"
    if entry.fetched:
        return "fetched on first use"
    return "official files, not fetched" if entry.official else "none official"

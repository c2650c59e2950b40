"""`pixelwise models`: the catalog as a table or as JSON."""

from __future__ import annotations

import json as jsonlib
import textwrap

from pixelwise import catalog
from pixelwise.errors import UnknownNameError
from pixelwise.opening import card_of
from pixelwise.terminal import say
from pixelwise.weights.card import Card, Score

WEIGHTS = {
    "in the package": "in package",
    "fetched on first use": "fetched",
    "official files, not fetched": "by hand",
    "none official": "none",
}
"""What the catalog says of the weights, in a word."""

MEANING = (
    "weights: in package, or fetched on first use; by hand: official files, which --model opens once you have them; "
    "none: none are published"
)


def run(pattern: str, json: bool) -> None:
    """Print every model whose name matches `pattern` (shell wildcards), or has it inside where there are none."""
    names = catalog.list_models(pattern if set(pattern) & set("*?[") else f"*{pattern.lower()}*")
    if not names:
        raise UnknownNameError("model", pattern, catalog.CATALOG)
    cards = {name: card_of(name) for name in names}
    if json:
        print(jsonlib.dumps({name: card.to_dict() for name, card in cards.items()}, indent=1))
        return
    for line in table(cards):
        say(line)


def table(cards: dict[str, Card]) -> list[str]:
    """Lines of at most 80 columns, on a terminal as in a pipe: a model each, then what its figures were measured on."""
    on: dict[str, str] = {}
    rows = [("model", "classes", "parameters", "score", "weights")]
    for name, card in cards.items():
        score = _score(card)
        mark = (
            "" if score is None else on.setdefault(f"{score.metric} on {score.data}", chr(ord("a") + len(on)))
        )
        rows.append(
            (
                name,
                str(card.labels.num_classes),
                f"{card.parameters / 1e6:.2f} M",
                "" if score is None else f"{score.value:.3f} {mark}",
                WEIGHTS[catalog.entry(name).weights],
            )
        )
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        "  ".join(
            f"{word:{side}{width}}" for word, side, width in zip(row, "<>><<", widths, strict=True)
        ).rstrip()
        for row in rows
    ]
    notes = [f"{mark}: {what}" for what, mark in on.items()]
    return [*lines, "", *(part for note in (*notes, MEANING) for part in textwrap.wrap(note, 80))]


def _score(card: Card) -> Score | None:
    return next((s for s in card.scores if "iou" in s.metric.lower() or "dice" in s.metric.lower()), None)

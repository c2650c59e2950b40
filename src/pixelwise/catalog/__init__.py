"""Every model by name: who builds it, what is known about its weights, and where they lie.

One file a paper, named after the file in `models/` whose function builds the network; its rows are `ROWS`, by name.
A file that is put here is in the catalog. Reading it imports neither torch nor any network; `pixelwise.models` finds
the builders. That is also why the networks may take their weights' facts from here.
"""

from __future__ import annotations

import pkgutil
from fnmatch import fnmatch
from importlib import import_module
from typing import Any

from pixelwise.catalog.entry import Entry
from pixelwise.errors import UnknownNameError
from pixelwise.inference.preprocess import Preprocess
from pixelwise.labels import LabelSet
from pixelwise.weights.card import Card
from pixelwise.weights.origin import Origin


def _rows() -> dict[str, Entry]:
    """The models that ship in the package, then those of each paper, in the alphabet of the files."""
    files = sorted(module.name for module in pkgutil.iter_modules(__path__) if module.name != "entry")
    rows: dict[str, Entry] = {}
    for file in sorted(files, key=lambda file: file != "embedded"):
        rows |= import_module(f"pixelwise.catalog.{file}").ROWS
    return rows


CATALOG: dict[str, Entry] = _rows()


def list_models(pattern: str = "*") -> list[str]:
    """The names that match `pattern` (shell wildcards), in the order of the catalog.

    >>> list_models("deeplabv3_resnet???")
    ['deeplabv3_resnet101']
    """
    return [name for name in CATALOG if fnmatch(name, pattern)]


def entry(name: str) -> Entry:
    """The catalog's row of that name; raises UnknownNameError, with the nearest names, when there is none."""
    try:
        return CATALOG[name]
    except KeyError:
        raise UnknownNameError("model", name, CATALOG) from None


def card_for(network: Any) -> Card:
    """The card that came with a network's file, while its classes are as many. Of any other network: classes named by
    number, the preprocessing that its architecture has in the catalog (else `Preprocess()`), the rest read off it."""
    card, outputs = vars(network).get("card"), int(getattr(network, "num_classes", 1))
    if isinstance(card, Card) and fits(card, outputs):
        return card
    origin = vars(network).get("origin")
    known = CATALOG.get(origin.model) if isinstance(origin, Origin) else None
    return Card(
        name=type(network).__name__,
        architecture=str(origin or type(network).__name__),
        labels=LabelSet.of([f"class {i}" for i in range(max(outputs, 2))]),
        preprocess=Preprocess() if known is None or known.card is None else known.card.preprocess,
        stride=getattr(network, "stride", 1),
        align_corners=getattr(network, "align_corners", False),
        parameters=sum(parameter.numel() for parameter in network.parameters()),
        origin="a network in memory",
    )


def fits(card: Card, outputs: int) -> bool:
    """Whether a network with so many outputs can have that card; one output tells two classes apart."""
    return card.labels.num_classes in ((outputs,) if outputs > 1 else (1, 2))

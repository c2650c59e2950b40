"""Every model by name: who builds it, what is known about its weights, and where they lie.

One file a paper, named after the file in `models/` whose function builds the network (but for those in
`models/segmentation/`, which have torchvision's names); its rows are `ROWS`, by name.
A file that is put here is in the catalog. Reading it imports neither torch nor any network; `pixelwise.models` finds
the builders. That is also why the networks may take their weights' facts from here.
"""

from __future__ import annotations

import pkgutil
from dataclasses import replace
from fnmatch import fnmatch
from importlib import import_module
from typing import Any

from pixelwise.catalog.entry import Entry
from pixelwise.errors import InputError, UnknownNameError
from pixelwise.inference.preprocess import Preprocess
from pixelwise.labels import LabelSet
from pixelwise.weights.card import Card, Outputs
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


def how_to_get(name: str) -> str:
    """One sentence for whoever asks for the weights of a model that has none here: where they are, and how to use them.

    >>> how_to_get("fcn_convnext_tiny").partition(";")[0]
    'there are no trained weights for fcn_convnext_tiny at hand: none are published'
    """
    return f"there are no trained weights for {name} at hand: {entry(name).way}"


def card_for(network: Any) -> Card:
    """The card that came with a network's file, while its classes are as many. Of any other network: classes named by
    number, the preprocessing that its architecture has in the catalog (else `Preprocess()`), the rest read off it."""
    card, channels = vars(network).get("card"), int(network.num_classes)
    if isinstance(card, Card):
        if channels == 1 and card.outputs == "exclusive" and card.labels.num_classes == 2:
            card = card.replace(outputs="binary")  # written before cards said what outputs mean
        if card.channels == channels:
            return card
    origin = vars(network).get("origin")
    composed = (
        isinstance(origin, Origin) and "encoder" in origin.arguments
    )  # a decoder, whose name a paper's may be
    known = CATALOG.get(origin.model) if isinstance(origin, Origin) and not composed else None
    row = None if known is None else known.card
    overlap = row is not None and row.outputs == "regions"
    if channels > 1 and isinstance(origin, Origin):  # what SMP's config.json says
        overlap = overlap or origin.beside.get("config", {}).get("activation") == "sigmoid"
    bare = unnamed(type(network).__name__, channels, outputs="regions" if overlap else None)
    preprocess = Preprocess() if row is None else row.preprocess
    if (inputs := inputs_of(network)) is not None:
        preprocess = preprocess.with_channels(inputs)
    architecture = str(origin or type(network).__name__)
    volume = None if row is None else row.volume
    if volume is not None and len(volume.channels) != len(preprocess.mean):
        volume = replace(volume, channels=(volume.channels[0],) * len(preprocess.mean))
    return of_network(bare.replace(architecture=architecture, preprocess=preprocess, volume=volume), network)


def inputs_of(network: Any) -> int | None:
    """The channels of a network's input, by how it was made; None where that does not say."""
    origin = vars(network).get("origin")
    inputs = origin.arguments.get("in_channels") if isinstance(origin, Origin) else None
    return inputs if isinstance(inputs, int) else None


def unnamed(name: str, channels: int, *, outputs: Outputs | None = None) -> Card:
    """The card of a network with so many logits of which nothing is known; a single one is binary."""
    outputs = outputs or ("binary" if channels == 1 else "exclusive")
    return Card.of(numbered(channels, outputs), outputs=outputs, name=name).replace(
        origin="a network in memory"
    )


def numbered(channels: int, outputs: Outputs) -> LabelSet:
    """Classes named by number, for a network with so many logits."""
    names = channels + 1 if outputs == "regions" else max(channels, 2)
    return LabelSet.of([f"class {i}" for i in range(names)])


def of_network(card: Card, network: Any) -> Card:
    """The card with what a network itself says: stride, align_corners, parameters. InputError for one that names other
    classes than the network has outputs."""
    parameters = sum(parameter.numel() for parameter in network.parameters())
    return agreed(card, int(network.num_classes)).replace(
        stride=int(network.stride), align_corners=bool(network.align_corners), parameters=parameters
    )


def agreed(card: Card, channels: int) -> Card:
    """The card; InputError where it names other classes than a network with so many logits tells apart."""
    if card.channels == channels:
        return card
    means = (
        f" and outputs={card.outputs!r}, which takes {card.channels}" if card.outputs != "exclusive" else ""
    )
    number, plural = card.labels.num_classes, "" if channels == 1 else "s"
    needed = {"binary": 2, "regions": channels + 1}.get("binary" if channels == 1 else card.outputs, channels)
    first = ", the first being what is outside all regions" if card.outputs == "regions" else ""
    binary = ' and outputs="binary"' if channels == 1 else ""
    raise InputError(
        f"the card names {number} classes{means}, the network has {channels} output{plural}; give {needed} names{first}"
        f"{binary} (classes=[...], or a card by pixelwise.Card.of)"
    )

"""Segmenter, the front door: `Segmenter()("photo.jpg")` is a Segmentation."""

from __future__ import annotations

import os
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

from array_api_compat import is_torch_array

from pixelwise import catalog, images
from pixelwise.engines import Engine, open_engine
from pixelwise.errors import InputError, MissingExtraError
from pixelwise.images import ImageLike
from pixelwise.inference.decide import decide
from pixelwise.inference.preprocess import Preprocess
from pixelwise.labels import LabelSet
from pixelwise.segmentation import Segmentation
from pixelwise.weights import store
from pixelwise.weights.card import Card

if TYPE_CHECKING:
    from torch import nn


class Segmenter:
    """A loaded model with everything it needs from picture to label map.

    model: "everyday" (21 everyday classes, ships in the package), another name of `pixelwise models`, an ONNX
    file with a card, or a torch network. engine: "auto", "onnxruntime" or "pytorch". A named torch model is
    fetched, exported once, kept as ONNX in the cache, and from then on runs without torch. card: for a network
    or file that has none. threads: CPU threads, None for one a core.
    """

    def __init__(
        self,
        model: str | os.PathLike[str] | nn.Module = "everyday",
        *,
        engine: str = "auto",
        card: Card | None = None,
        threads: int | None = None,
    ) -> None:
        self.engine = _open(model, engine, card, threads)
        self.card = self.engine.card
        self.classes = self.card.labels

    def __call__(
        self, image: ImageLike, *, confidence: bool = False, max_pixels: int = images.MAX_PIXELS
    ) -> Segmentation:
        """Segment one picture: a path, the bytes of a file, a PIL image, or an array (see `images.read`).

        confidence: also keep each pixel's winning softmax probability. max_pixels: refuse larger pictures.
        """
        picture = images.read(image, max_pixels=max_pixels)
        coarse = self.engine(self.card.preprocess(picture))
        indices, probability = decide(
            coarse[0], picture.shape[:2], align_corners=self.card.align_corners, confidence=confidence
        )
        if is_torch_array(indices):
            indices = indices.cpu().numpy()
            probability = None if probability is None else probability.cpu().numpy()
        return Segmentation(self.classes.to_ids(indices), self.classes, picture, probability)

    def __repr__(self) -> str:
        return f"Segmenter({self.card.name!r}, engine={self.engine.name!r}, classes={self.card.labels.num_classes})"


def _open(model: Any, engine: str, card: Card | None, threads: int | None) -> Engine:
    if not isinstance(model, (str, os.PathLike)):
        return open_engine(model, engine, card=card or default_card(model), threads=threads)
    path = Path(model)
    if path.suffix == ".onnx" or path.is_file():
        return open_engine(path, engine, card=card, threads=threads)
    entry = catalog.entry(str(model))
    if entry.asset is not None:
        with resources.as_file(resources.files("pixelwise") / "assets" / entry.asset) as asset:
            return open_engine(asset, engine, threads=threads)
    if entry.card is None or entry.card.sha256 is None or entry.url is None:
        raise InputError(
            f"there are no trained weights for {model}; train it, or name another of `pixelwise models`"
        )
    if engine == "pytorch":
        return open_engine(_trained(entry), engine, card=entry.card, threads=threads)
    exported = store.cache_dir() / "onnx" / f"{entry.card.name}-{entry.card.sha256[:8]}.onnx"
    if not exported.exists():
        network = _trained(entry)
        from pixelwise.export.onnx import export_onnx

        export_onnx(network, entry.card, exported)
    return open_engine(exported, engine, threads=threads)


def card_of(name: str) -> Card:
    """The card of a model of the catalog; that of an embedded model lies inside its file."""
    entry = catalog.entry(name)
    return entry.card if entry.card is not None else _open(name, "auto", None, 1).card


def _trained(entry: catalog.Entry) -> nn.Module:
    try:
        builder = entry.load_builder()
    except ModuleNotFoundError as error:
        raise MissingExtraError(f"making {entry.builder.partition(':')[2]}", "torch") from error
    network: nn.Module = builder(weights="DEFAULT")
    return network.eval()


def default_card(network: Any) -> Card:
    """The card of a network that comes without one: its architecture's preprocessing and, where the number of
    classes is the same, its labels; else classes named by number."""
    known = catalog.CATALOG.get(getattr(network, "architecture", ""))
    classes = int(getattr(network, "num_classes", 1))
    generic = LabelSet.of([f"class {i}" for i in range(max(classes, 2))])
    card = known.card if known is not None else None
    return Card(
        name=type(network).__name__,
        architecture=getattr(network, "architecture", type(network).__name__),
        labels=card.labels if card is not None and card.labels.num_classes == classes else generic,
        preprocess=card.preprocess if card is not None else Preprocess(),
        stride=getattr(network, "stride", 1),
        align_corners=getattr(network, "align_corners", False),
        parameters=sum(p.numel() for p in network.parameters()),
        origin="a network in memory",
    )

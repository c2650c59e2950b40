"""Segmenter, the front door: `Segmenter()("photo.jpg")` is a Segmentation."""

from __future__ import annotations

import os
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

from array_api_compat import is_torch_array

from pixelwise import catalog, images
from pixelwise.engines import Engine, open_engine
from pixelwise.errors import InputError
from pixelwise.images import ImageLike
from pixelwise.inference.decide import decide
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
        return open_engine(model, engine, card=card or _card_of(model), threads=threads)
    path = Path(model)
    if path.suffix == ".onnx" or path.exists():
        return open_engine(path, engine, card=card, threads=threads)
    entry = catalog.entry(str(model))
    if entry.asset is not None:
        file = resources.files("pixelwise") / "assets" / entry.asset
        with resources.as_file(file) as asset:
            return open_engine(asset, engine, threads=threads)
    if entry.card is None or entry.url is None:
        raise InputError(f"{model} has no trained weights; build it with pixelwise.models and train it, or pick another")
    if engine == "pytorch":
        return open_engine(_trained(entry), engine, card=entry.card, threads=threads)
    exported = store.cache_dir() / "onnx" / f"{entry.card.name}-{entry.card.sha256[:8]}.onnx"
    if not exported.exists():
        from pixelwise.export.onnx import export_onnx

        export_onnx(_trained(entry), entry.card, exported)
    return open_engine(exported, engine, threads=threads)

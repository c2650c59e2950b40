"""Segmenter, the front door: `Segmenter()("photo.jpg")` is a Segmentation."""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

import numpy as np
from array_api_compat import is_torch_array
from numpy.typing import NDArray

from pixelwise import catalog, images, models
from pixelwise.engines import Engine, open_engine
from pixelwise.errors import InputError, MissingExtraError
from pixelwise.images import ImageLike
from pixelwise.inference.decide import decide
from pixelwise.inference.plan import SIDES, Seams, plan, seams
from pixelwise.inference.preprocess import normalize
from pixelwise.inference.tiling import Band, Pending, Predict, Read, Tiling, Window, collect, stitch
from pixelwise.inference.tta import Average, Flip, augmented
from pixelwise.segmentation import Segmentation
from pixelwise.weights import store
from pixelwise.weights.card import Card

if TYPE_CHECKING:
    from torch import nn

    from pixelwise.inference.terms import CRF

Tile = int | tuple[int, int] | Literal["auto"]
Overlap = int | float | Literal["auto"]

CRF_TILE_PX = 1024
"""A picture larger than this goes through the CRF in tiles: untiled, twelve megapixels would take nine gigabytes."""


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
        self,
        image: ImageLike,
        *,
        confidence: bool = False,
        max_pixels: int = images.MAX_PIXELS,
        tile: Tile | None = None,
        overlap: Overlap = 0.25,
        window: Window = "gaussian",
        flips: Sequence[Flip] = (),
        rotations: Sequence[int] = (),
        scales: Sequence[float] = (1.0,),
        average: Average = "logits",
        crf: CRF | str | None = None,
    ) -> Segmentation:
        """Segment one picture: a path, the bytes of a file, a PIL image, or an array (see `images.read`).

        confidence: also keep each pixel's winning softmax probability. max_pixels: refuse larger pictures.

        tile: None shows the network the whole picture, resized by the card's rule. Otherwise the picture is taken at
        its own scale, in overlapping tiles of this size (height, width; as near as the network allows) whose answers
        are blended: the card's resize rule does not apply, its normalisation does. "auto" takes the largest tile that
        fits half of the free memory and prints the plan to stderr. overlap: an int is pixels, a float a share of the
        tile; "auto" measures where neighbouring tiles agree. window: see `inference.tiling.Tiling`.

        flips, rotations, scales, average: test-time augmentation, see `inference.tta.augmented`. crf: "vgg", "resnet"
        or a CRF of `inference.crf`, which moves borders to the picture's edges; with tiles, each is refined alone and
        the answers are blended.
        """
        picture = images.read(image, max_pixels=max_pixels)
        size_hw = (picture.shape[0], picture.shape[1])
        if tile is not None:
            bands = self.bands(
                lambda top, bottom: picture[top:bottom], size_hw, tile=tile, overlap=overlap, window=window,
                flips=flips, rotations=rotations, scales=scales, average=average, crf=crf, confidence=confidence,
            )  # fmt: skip
            labels, certain = collect(bands, size_hw)
            return Segmentation(labels, self.classes, picture, certain)
        logits = self._augmented(flips, rotations, scales, average)(self.card.preprocess(picture))[0]
        aligned = self.card.align_corners
        indices: Any
        probability: Any
        if crf is None:
            indices, probability = decide(logits, size_hw, align_corners=aligned, confidence=confidence)
        else:
            from pixelwise.inference.crf import crf_refine
            from pixelwise.inference.terms import preset

            indices, probability = crf_refine(
                logits, picture, preset(crf), align_corners=aligned, tile_px=CRF_TILE_PX
            )
        if is_torch_array(indices):
            indices = indices.cpu().numpy()
            probability = None if probability is None else probability.cpu().numpy()
        return Segmentation(
            self.classes.to_ids(indices), self.classes, picture, probability if confidence else None
        )

    def bands(
        self,
        read: Read,
        size_hw: tuple[int, int],
        *,
        tile: Tile = "auto",
        overlap: Overlap = 0.25,
        window: Window = "gaussian",
        flips: Sequence[Flip] = (),
        rotations: Sequence[int] = (),
        scales: Sequence[float] = (1.0,),
        average: Average = "logits",
        crf: CRF | str | None = None,
        confidence: bool = False,
        channels: int = 3,
        prepare: Callable[[Any], Any] | None = None,
        through: Callable[[Predict], Predict] | None = None,
        resume: Pending | None = None,
    ) -> Iterator[Band]:
        """Segment what does not fit into memory: rows come in through `read`, finished bands of file ids go out.

        read, resume, and what a Band holds: see `inference.tiling.stitch`; the other arguments: see `__call__`. The
        picture is taken at its own scale. prepare: a tile as read (h, w, channels) to the network's float32
        (1, channels, h, w); None normalises uint8 RGB by the card. through: wraps whatever answers for a tile.

        overlap="auto" reads a few rows here and there before it begins. What was "auto" is not decided again on
        resuming.
        """
        prepare = prepare or self._normalized
        predict, aligned = self._augmented(flips, rotations, scales, average), self.card.align_corners
        if crf is not None:
            from pixelwise.inference.crf import refined
            from pixelwise.inference.terms import preset

            mean, std = self.card.preprocess.mean, self.card.preprocess.std
            predict, aligned = refined(predict, preset(crf), mean=mean, std=std, align_corners=aligned), False
        if resume is not None and "auto" in (tile, overlap):
            tiling = resume.tiling
        else:
            share = 0.25 if overlap == "auto" else overlap
            tiling = self._tiling(size_hw, predict, tile, share, window, channels)
            if overlap == "auto":
                half = _half(tiling)
                measured = seams(
                    read, size_hw, predict, tiling=replace(tiling, overlap=half), prepare=prepare, align_corners=aligned
                )  # fmt: skip
                tiling = replace(tiling, overlap=min(measured.overlap_px(), *half))
                print(f"pixelwise: {measured}; overlap {tiling.overlap} px", file=sys.stderr)
        stitched = stitch(
            read,
            size_hw,
            predict if through is None else through(predict),
            tiling=tiling,
            prepare=prepare,
            align_corners=aligned,
            confidence=confidence,
            resume=resume,
        )
        return (replace(band, labels=self.classes.to_ids(band.labels)) for band in stitched)

    def seams(
        self,
        image: ImageLike | Read,
        size_hw: tuple[int, int] | None = None,
        *,
        tile: int | tuple[int, int] = 512,
        overlap: Overlap = "auto",
        max_pixels: int = images.MAX_PIXELS,
        channels: int = 3,
        prepare: Callable[[Any], Any] | None = None,
    ) -> Seams:
        """How far neighbouring tiles of a picture agree before they are blended, on a sample of them.

        image: a picture as in `__call__`; or, with size_hw, a function that reads rows, as in `bands`. overlap: up to
        which to compare; "auto" is half a tile.
        """
        if size_hw is None:
            picture = images.read(cast("ImageLike", image), max_pixels=max_pixels)
            read, size_hw = lambda top, bottom: picture[top:bottom], (picture.shape[0], picture.shape[1])
        else:
            read = cast("Read", image)
        share = 0.5 if overlap == "auto" else overlap
        return seams(
            read,
            size_hw,
            self.engine,
            tiling=self._tiling(size_hw, self.engine, tile, share, "constant", channels),
            prepare=prepare or self._normalized,
            align_corners=self.card.align_corners,
        )

    def _normalized(self, tile: NDArray[np.uint8]) -> NDArray[np.float32]:
        return normalize(tile, self.card.preprocess.mean, self.card.preprocess.std)

    def _augmented(
        self, flips: Sequence[Flip], rotations: Sequence[int], scales: Sequence[float], average: Average
    ) -> Predict:
        if not flips and not rotations and tuple(scales) == (1.0,):
            return self.engine
        return augmented(
            self.engine,
            flips=flips,
            rotations=rotations,
            scales=scales,
            average=average,
            align_corners=self.card.align_corners,
            multiple=self.card.preprocess.multiple,
            offset=self.card.preprocess.offset,
        )

    def _tiling(
        self,
        size_hw: tuple[int, int],
        predict: Predict,
        tile: Tile,
        overlap: int | float,
        window: Window,
        channels: int,
    ) -> Tiling:
        """Tiles that this network takes, beginning where its grids of features do: at multiples of its stride, and
        of 32, the deepest stride of most encoders, where the tile is large enough for that."""
        fit = replace(self.card.preprocess, size=None).size_hw
        stride = math.lcm(self.card.stride, self.card.preprocess.multiple)
        if tile == "auto":
            sides = tuple(fit(side, side)[0] for side in SIDES)
            tiling = Tiling(sides[0], overlap, window, multiple=math.lcm(stride, 32))
            found = plan(size_hw, predict, tiling=tiling, channels=channels, sides=sides)
            print(f"pixelwise: {found}", file=sys.stderr)
            return found.tiling
        sides = fit(*(tile if isinstance(tile, tuple) else (tile, tile)))
        shared = overlap if isinstance(overlap, float) else overlap / min(sides)
        deep = math.lcm(stride, 32)
        multiple = deep if min(sides) * (1 - shared) >= deep else stride
        return Tiling(sides, overlap, window, multiple=multiple)

    def __repr__(self) -> str:
        return f"Segmenter({self.card.name!r}, engine={self.engine.name!r}, classes={self.card.labels.num_classes})"


def _half(tiling: Tiling) -> tuple[int, ...]:
    """Half of a tile's sides."""
    sides = tiling.tile if isinstance(tiling.tile, tuple) else (tiling.tile,) * 2
    return tuple(side // 2 for side in sides)


def _open(model: Any, engine: str, card: Card | None, threads: int | None) -> Engine:
    if not isinstance(model, (str, os.PathLike)):
        return open_engine(model, engine, card=card or catalog.card_for(model), threads=threads)
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
        return open_engine(_trained(str(model)), engine, card=entry.card, threads=threads)
    exported = store.cache_dir() / "onnx" / f"{entry.card.name}-{entry.card.sha256[:8]}.onnx"
    if not exported.exists():
        network = _trained(str(model))
        from pixelwise.export.onnx import export_onnx

        export_onnx(network, entry.card, exported)
    return open_engine(exported, engine, threads=threads)


def card_of(name: str) -> Card:
    """The card of a model of the catalog; that of an embedded model lies inside its file."""
    entry = catalog.entry(name)
    return entry.card if entry.card is not None else _open(name, "auto", None, 1).card


def _trained(name: str) -> nn.Module:
    try:
        builder = models.builder_of(name)
    except ModuleNotFoundError as error:
        raise MissingExtraError(f"making {name}", "torch") from error
    network: nn.Module = builder(weights="DEFAULT")
    return network.eval()

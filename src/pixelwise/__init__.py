"""pixelwise: semantic segmentation, a class for every pixel.

>>> from pixelwise import Segmenter          # doctest: +SKIP
>>> Segmenter()("photo.jpg").areas()         # doctest: +SKIP
{'cat': 0.87, 'background': 0.13}

Importing this module is instant: each public name is loaded on first use.
"""

from __future__ import annotations

import importlib
import os
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0.dev0"

# ONNX Runtime, from the moment it is imported, notes its use under ~/.cache/Microsoft and sends it to its maker, unless
# it finds this. What segments a picture asks no network; who wants the reports sets the variable to 0.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

_PUBLIC = {
    "Card": "pixelwise.weights.card",
    "LabelSet": "pixelwise.labels",
    "Normalise": "pixelwise.inference.volume_preprocess",
    "Preprocess": "pixelwise.inference.preprocess",
    "SegmentOptions": "pixelwise.inference.options",
    "Segmentation": "pixelwise.segmentation",
    "Segmenter": "pixelwise.segmenter",
    "Volume": "pixelwise.sources.volume",
    "VolumePreprocess": "pixelwise.inference.volume_preprocess",
    "create_encoder": "pixelwise.encoders",
    "create_model": "pixelwise.checkpoints.making",
    "decide": "pixelwise.inference.decide",
    "evaluate": "pixelwise.evaluation",
    "export_onnx": "pixelwise.export.onnx",
    "from_checkpoint": "pixelwise.checkpoints.loading",
    "list_decoders": "pixelwise.decoders",
    "list_encoders": "pixelwise.encoders",
    "list_models": "pixelwise.catalog",
    "load_checkpoint": "pixelwise.checkpoints.loading",
    "open_engine": "pixelwise.engines",
    "read_volume": "pixelwise.sources.volume",
    "save": "pixelwise.checkpoints.saving",
    "train": "pixelwise.training.start",
}
_MODULES = (
    "catalog", "corruptions", "datasets", "decoders", "draw", "encoders", "errors", "evaluation", "images", "inference",
    "labels", "layers", "losses", "metrics", "models", "outputs", "smp", "sources", "training", "transforms", "weights",
)  # fmt: skip

__all__ = [*_PUBLIC, "__version__"]

if TYPE_CHECKING:
    from pixelwise import catalog as catalog
    from pixelwise import corruptions as corruptions
    from pixelwise import datasets as datasets
    from pixelwise import decoders as decoders
    from pixelwise import draw as draw
    from pixelwise import encoders as encoders
    from pixelwise import errors as errors
    from pixelwise import evaluation as evaluation
    from pixelwise import images as images
    from pixelwise import inference as inference
    from pixelwise import labels as labels
    from pixelwise import layers as layers
    from pixelwise import losses as losses
    from pixelwise import metrics as metrics
    from pixelwise import models as models
    from pixelwise import outputs as outputs
    from pixelwise import smp as smp
    from pixelwise import sources as sources
    from pixelwise import training as training
    from pixelwise import transforms as transforms
    from pixelwise import weights as weights
    from pixelwise.catalog import list_models as list_models
    from pixelwise.checkpoints.loading import from_checkpoint as from_checkpoint
    from pixelwise.checkpoints.loading import load_checkpoint as load_checkpoint
    from pixelwise.checkpoints.making import create_model as create_model
    from pixelwise.checkpoints.saving import save as save
    from pixelwise.decoders import list_decoders as list_decoders
    from pixelwise.encoders import create_encoder as create_encoder
    from pixelwise.encoders import list_encoders as list_encoders
    from pixelwise.engines import open_engine as open_engine
    from pixelwise.evaluation import evaluate as evaluate
    from pixelwise.export.onnx import export_onnx as export_onnx
    from pixelwise.inference.decide import decide as decide
    from pixelwise.inference.options import SegmentOptions as SegmentOptions
    from pixelwise.inference.preprocess import Preprocess as Preprocess
    from pixelwise.inference.volume_preprocess import Normalise as Normalise
    from pixelwise.inference.volume_preprocess import VolumePreprocess as VolumePreprocess
    from pixelwise.labels import LabelSet as LabelSet
    from pixelwise.segmentation import Segmentation as Segmentation
    from pixelwise.segmenter import Segmenter as Segmenter
    from pixelwise.sources.volume import Volume as Volume
    from pixelwise.sources.volume import read_volume as read_volume
    from pixelwise.training.start import train as train
    from pixelwise.weights.card import Card as Card


def __getattr__(name: str) -> Any:
    if name in _PUBLIC:
        value = getattr(importlib.import_module(_PUBLIC[name]), name)
        globals()[name] = value
        return value
    if name in _MODULES:
        return importlib.import_module(f"pixelwise.{name}")
    raise AttributeError(f"module 'pixelwise' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *_PUBLIC, *_MODULES])

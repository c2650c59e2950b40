"""Names in a configuration: a misspelt one is found before data are read and weights fetched, with the nearest."""

from __future__ import annotations

from pathlib import Path

import torch

from pixelwise.datasets.layouts import LAYOUTS
from pixelwise.errors import InputError, UnknownNameError
from pixelwise.inference.preprocess import Preprocess
from pixelwise.losses import LOSSES
from pixelwise.training.config import TrainConfig
from pixelwise.training.experiment import make_augmentation, make_network, make_volume_augmentation
from pixelwise.training.loop import refuse_unknown_trackers
from pixelwise.training.objective import make_loss

FILES = (".pth", ".pt", ".safetensors", ".bin", ".npz")
"""How files of weights end."""


def refuse_misspelt(config: TrainConfig) -> None:
    """Raise InputError for a name in `config` that is not known: of its model, encoder or their options, losses and
    theirs, augmentation, layout, trackers, or a file of weights that is not there.

    The network is made for it without values, and no file is opened.
    """
    if config.format not in ("auto", *LAYOUTS):
        raise UnknownNameError("format", config.format, ["auto", *LAYOUTS])
    refuse_unknown_trackers(config.trackers)
    make_loss(config)
    for name in config.losses:
        try_words(name, config)
    if config.volume is not None:
        make_volume_augmentation(config, config.volume)
    else:
        make_augmentation(config.replace(image_size=config.image_size or 64), Preprocess(), 255, [])
    weights = Path(config.weights or "")
    if (len(weights.parts) > 1 or weights.suffix in FILES) and not weights.exists():
        raise InputError(f"there is no file {weights}; --weights takes auto, none, imagenet or a file")
    try:
        with torch.device("meta"):
            make_network(config.replace(weights=None), 2, lambda _: None)
    except InputError as error:
        if not isinstance(error.__cause__, RuntimeError):  # whoever needs values while it is put together
            raise


def try_words(name: str, config: TrainConfig) -> None:
    """Raise what a loss raises for those of its options that are words, such as over="picture"."""
    words = {key: value for key, value in config.loss_options.get(name, {}).items() if isinstance(value, str)}
    if words:
        LOSSES[name](torch.zeros(1, 2, 8, 8), torch.zeros(1, 8, 8, dtype=torch.int64), **words)

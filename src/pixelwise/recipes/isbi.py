"""Membranes between cells in electron microscopy (ISBI 2012): a U-Net, from the data folder to its errors.

    python -m pixelwise.recipes.isbi --data ../shared/data --out runs/isbi

The challenge's data are not ours to pass on: a yardstick, not a model to ship. Trained on the first 25 of the 30
slices, scored once, on the last five, at the end of a run of fixed length; the paper's figures are of the challenge's
own hidden stack, so they stand beside these and not against them. Errors, eight views averaged (one view): warping
0.00259 (0.00272), Rand 0.0850 (0.1649), pixel 0.0800 (0.0782). 17 minutes on one of two AMD EPYC cores, both busy.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from pixelwise.checkpoints.making import create_model
from pixelwise.datasets.folder import match
from pixelwise.datasets.opening import PairSamples, ignore_index
from pixelwise.datasets.sample import Samples
from pixelwise.files import writing
from pixelwise.inference.preprocess import Preprocess
from pixelwise.labels import LabelSet
from pixelwise.metrics import MembraneErrors
from pixelwise.models.unet import UNet
from pixelwise.recipes.folders import folders
from pixelwise.segmenter import Segmenter
from pixelwise.training.config import TrainConfig
from pixelwise.training.experiment import Experiment
from pixelwise.training.objective import make_loss
from pixelwise.training.runner import train
from pixelwise.transforms.augment import Augment
from pixelwise.weights.card import Card

CLASSES = LabelSet.of(("membrane", "cell"), colors=((0, 0, 0), (240, 240, 240)))
PREPROCESS = Preprocess(mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25))
CONFIG = TrainConfig(
    model="unet", model_options={"width": 16}, steps=700, batch_size=4, peak_lr=2e-3, weight_decay=1e-4,
    warmup_steps=50, ema_decay=0.99, precision="bfloat16", channels_last=True,
    augment={"crop_hw": (256, 256), "scale": (0.8, 1.25), "largest_share": 1.0, "elastic_px": 10.0},
)  # fmt: skip
EIGHT_VIEWS: Mapping[str, Any] = {
    "flips": ("horizontal",),
    "rotations": (90, 180, 270),
    "average": "probabilities",
}


def slices(data: Path) -> tuple[PairSamples, PairSamples]:
    """(first 25, last 5) slices of `data`/isbi2012_em; neighbours look alike, so the held-out ones lie together."""
    pairs = match(data / "isbi2012_em" / "image", data / "isbi2012_em" / "label")
    return PairSamples(pairs[:25], CLASSES, "first 25"), PairSamples(pairs[25:], CLASSES, "last 5")


def experiment(data: Path) -> Experiment:
    learned, held_out = slices(data)
    network = create_model("unet", **CONFIG.model_options, num_classes=CLASSES.num_classes)
    card = Card(
        name="isbi2012_em",
        architecture="unet",
        labels=CLASSES,
        preprocess=PREPROCESS,
        stride=UNet.stride,
        align_corners=UNet.align_corners,
        parameters=sum(parameter.numel() for parameter in network.parameters()),
        licence="that of the ISBI 2012 challenge's data: not for passing on",
        origin="pixelwise, recipes/isbi.py: padded U-Net of width 16, trained from scratch on 25 slices",
    )
    ignored = ignore_index(CLASSES)
    augment = Augment(**CONFIG.augment, mean=PREPROCESS.mean, std=PREPROCESS.std, ignore_index=ignored)
    return Experiment(CONFIG, network, learned, held_out, augment, make_loss(CONFIG, ignored), card)


def errors(segmenter: Segmenter, samples: Samples, **views: Any) -> dict[str, dict[str, float]]:
    """The challenge's three errors, each at its best threshold. views: test-time augmentation, as in `Segmenter`."""
    found = MembraneErrors([i / 20 for i in range(1, 20)])
    for sample in samples:
        answer = segmenter(sample.image, confidence=True, **views)
        assert answer.confidence is not None
        inside = np.where(answer.labels == 1, answer.confidence, 1 - answer.confidence)
        found.update(inside, sample.mask == 1)
    return {name: getattr(found, name)()._asdict() for name in ("warping", "rand", "pixel")}


def main() -> None:
    data, out = folders("Train and score a U-Net for membranes.", "isbi", holds="isbi2012_em")
    made = experiment(data)
    train(made, out, export=True)
    segmenter = Segmenter(out / "model.onnx")
    scores = {
        "one view": errors(segmenter, made.held_out),
        "eight views": errors(segmenter, made.held_out, **EIGHT_VIEWS),
    }
    with writing(out / "membranes.json") as temporary:
        temporary.write_text(json.dumps(scores, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(scores, indent=1))


if __name__ == "__main__":
    main()

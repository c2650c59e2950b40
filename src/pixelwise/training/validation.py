"""Validation: the held-out pictures, through the path that users take, spread over the processes."""

from __future__ import annotations

import time

import numpy as np
from accelerate.utils import gather_object
from numpy.typing import NDArray
from torch import nn

from pixelwise.datasets.opening import ignore_index
from pixelwise.datasets.sample import Sample, Samples
from pixelwise.metrics import ConfusionMatrix, RegionScores
from pixelwise.segmentation import Segmentation
from pixelwise.segmenter import Segmenter
from pixelwise.sources.volume import Volume
from pixelwise.training.loop import process_state
from pixelwise.weights.card import Card

SHOWN = 4
"""Regions at most whose Dice are told one by one."""


def answer_to(segmenter: Segmenter, sample: Sample) -> Segmentation:
    """What the model says of a picture or a scan."""
    if sample.mask.ndim == 3:
        return segmenter.volume(Volume(sample.image, sample.geometry, sample.name))
    return segmenter(sample.image)


def seconds_of(network: nn.Module, samples: Samples, card: Card) -> float:
    """How long one validation takes here, by its first picture, looked at twice: the first time warms up."""
    if not len(samples):
        return 0.0
    segmenter, picture = Segmenter(network.eval(), engine="pytorch", card=card), samples[0]
    answer_to(segmenter, picture)
    began = time.perf_counter()
    answer_to(segmenter, picture)
    return (time.perf_counter() - began) * len(samples)


class Validation:
    """network -> its scores over `samples`, by name, each picture whole and scored at its own size. The first,
    `metric`, says which is best: the mean IoU, beside which stands of two classes the Dice of the second; or where
    regions overlap the mean of their Dice, beside which stand those of each, of at most `SHOWN`. Of scans it is the
    mean Dice of the classes but the first, each the mean over the scans, beside which stand those of each.

    Every process looks at its share, none at a picture twice; the counts are added, so that the score does not
    depend on how many they are. `counts` are those of the last call, for all pictures, in every process.
    """

    def __init__(self, samples: Samples, card: Card) -> None:
        self.samples, self.card = samples, card
        self.metric = "mean Dice" if card.outputs == "regions" or card.volume else "mean IoU"
        self.counts = self._empty()

    def __call__(self, network: nn.Module) -> dict[str, float]:
        segmenter = Segmenter(network, engine="pytorch", card=self.card)
        mine = self._empty()
        with process_state().split_between_processes(list(range(len(self.samples)))) as share:
            for index in share:
                sample = self.samples[index]
                answer = answer_to(segmenter, sample)
                if isinstance(mine, RegionScores):
                    assert answer.codes is not None
                    assert sample.codes is not None  # as the data of such a card have
                    mine.update(answer.codes, sample.codes, sample.name)
                else:
                    mine.update(segmenter.classes.to_indices(answer.labels), sample.mask, sample.name)
        all_counts = gather_object([mine])
        self.counts = self._empty()
        self.counts.merge(*all_counts)
        return {name: score if np.isfinite(score) else 0.0 for name, score in self._scores().items()}

    def _scores(self) -> dict[str, float]:
        if isinstance(self.counts, RegionScores):
            dice = self.counts.dice() if len(self.counts.by_region) <= SHOWN else {}
            each = {f"Dice of {name}": value for name, value in dice.items()}
            return {self.metric: self.counts.mean_dice(), **each}
        names = self.card.labels.names
        if self.card.volume is not None:
            by_class = self.counts.per_image("dice").mean
            each = {f"Dice of {names[i]}": float(by_class[i]) for i in range(1, min(len(names), SHOWN + 1))}
            return {self.metric: mean_of(by_class[1:]), **each}
        of_object = {f"Dice of {names[1]}": float(self.counts.dice()[1])} if len(names) == 2 else {}
        return {self.metric: self.counts.mean_iou(), **of_object}

    def _empty(self) -> ConfusionMatrix | RegionScores:
        classes = self.card.labels
        if self.card.outputs == "regions":
            return RegionScores(classes.names[1:])
        dims = 2 if self.card.volume is None else 3
        return ConfusionMatrix(classes.num_classes, ignore_index(classes), image_dims=dims)


def mean_of(values: NDArray[np.float64]) -> float:
    """Without the NaN ones; NaN when none is left."""
    left = values[~np.isnan(values)]
    return float(left.mean()) if left.size else float("nan")

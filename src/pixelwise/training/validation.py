"""Validation: the held-out pictures, through the path that users take, spread over the processes."""

from __future__ import annotations

import time

import numpy as np
from accelerate.utils import gather_object
from torch import nn

from pixelwise.datasets.opening import ignore_index
from pixelwise.datasets.sample import Samples
from pixelwise.metrics import ConfusionMatrix
from pixelwise.segmenter import Segmenter
from pixelwise.training.loop import process_state
from pixelwise.weights.card import Card


def seconds_of(network: nn.Module, samples: Samples, card: Card) -> float:
    """How long one validation takes here, by its first picture."""
    began = time.perf_counter()
    if len(samples):
        Segmenter(network.eval(), engine="pytorch", card=card)(samples[0].image)
    return (time.perf_counter() - began) * len(samples)


class Validation:
    """network -> mean IoU over `samples`, each picture whole and scored at its own size.

    Every process looks at its share, none at a picture twice; the counts are added, so that the score does not
    depend on how many they are. `confusion` holds the counts of the last call, for all pictures, in every process.
    """

    def __init__(self, samples: Samples, card: Card) -> None:
        self.samples, self.card = samples, card
        self.confusion = self._empty()

    def __call__(self, network: nn.Module) -> float:
        segmenter = Segmenter(network, engine="pytorch", card=self.card)
        mine = self._empty()
        with process_state().split_between_processes(list(range(len(self.samples)))) as share:
            for index in share:
                sample = self.samples[index]
                answer = segmenter.classes.to_indices(segmenter(sample.image).labels)
                mine.update(answer, sample.mask, sample.name)
        self.confusion = self._empty().merge(*gather_object([mine]))
        score = self.confusion.mean_iou()
        return score if np.isfinite(score) else 0.0

    def _empty(self) -> ConfusionMatrix:
        classes = self.card.labels
        return ConfusionMatrix(classes.num_classes, ignore_index(classes), image_dims=2)

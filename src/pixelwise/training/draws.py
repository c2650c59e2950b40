"""The order in which a run sees its samples, as one long data set."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from pixelwise.datasets.sample import Sample, Samples


class Draws(Dataset[dict[str, Tensor]]):
    """Every sample of a run in order of use: item i is the augmented sample of draw first + i, up to draw last.

    Samples come in a new random order each epoch; an epoch's remainder is not dropped but runs into the next one.
    The sample of a draw, and the random numbers its augmentation takes from torch, depend on seed and draw alone.
    weights: how often each sample is drawn, relative to the others; then an epoch has repeats.
    """

    def __init__(
        self,
        samples: Samples,
        augment: Callable[[Sample], dict[str, Tensor]],
        *,
        seed: int,
        first: int,
        last: int,
        weights: Tensor | None = None,
    ) -> None:
        self.samples, self.augment, self.seed = samples, augment, seed
        self.first, self.last, self.weights = first, last, weights
        self._epoch, self._order = -1, torch.empty(0)

    def __len__(self) -> int:
        return self.last - self.first

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        draw = self.first + index
        sample = self.samples[self.sample_of(draw)]
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed((self.seed + 1) * 1_000_000_007 + draw)
            return self.augment(sample)

    def sample_of(self, draw: int) -> int:
        """The number of the sample that is shown at `draw`."""
        epoch, place = divmod(draw, len(self.samples))
        if epoch != self._epoch:
            shuffle = torch.Generator().manual_seed(self.seed * 1_000_003 + epoch)
            if self.weights is None:
                self._order = torch.randperm(len(self.samples), generator=shuffle)
            else:
                self._order = torch.multinomial(
                    self.weights, len(self.samples), replacement=True, generator=shuffle
                )
            self._epoch = epoch
        return int(self._order[place])


def class_balance(samples: Samples, threshold: float = 0.5) -> Tensor:
    """How often to draw each sample, (n,) from 1 up, so that pictures with rare classes come more often.

    A class that the share f of the samples shows asks for max(1, sqrt(threshold / f)); a sample follows the rarest
    of its classes. Every mask is read once.
    Source: repeat factor sampling of LVIS (1908.03195, section 3.2), there with a threshold of 0.001.
    """
    shown = [np.unique(sample.mask) for sample in samples]
    # 255, or 65535 where there are more classes, is unknown
    shown = [ids[ids != np.iinfo(ids.dtype).max] for ids in shown]
    counts = np.bincount(np.concatenate(shown).astype(np.int64), minlength=1)
    wanted = np.sqrt(threshold * len(shown) / np.maximum(counts, 1))
    return torch.tensor([max(1.0, wanted[ids].max(initial=1.0)) for ids in shown], dtype=torch.float64)

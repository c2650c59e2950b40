"""Questions to ask before a long run: what will it cost, at which learning rate, and can it learn at all?

Each works on a copy of the network, on the device that the run will use.
"""

from __future__ import annotations

import copy
import math
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.utils.data import default_collate

from pixelwise.datasets.sample import Sample, Samples
from pixelwise.errors import InputError
from pixelwise.training.config import TrainConfig
from pixelwise.training.draws import Draws
from pixelwise.training.loop import process_state, raise_if_out_of_memory
from pixelwise.training.memory import freed_memory_kept
from pixelwise.training.objective import Batch, LossOf
from pixelwise.training.optimize import make_optimizer, set_learning_rate, set_mode, to_channels_last

PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}

Augment = Callable[[Sample], Batch]


@dataclass(frozen=True)
class Cost:
    """seconds: of one step, or of loading what it needs where that is slower. bytes: the most memory held so far, by
    the GPU or else the process; 0 where the system does not say."""

    seconds: float
    bytes: int


@freed_memory_kept()
def estimate(
    network: nn.Module,
    samples: Samples,
    augment: Augment,
    loss_of: LossOf,
    config: TrainConfig,
    steps: int = 3,
) -> Cost:
    """Time and memory of a step, from the middle of a few; the first, which warms up, is left out.

    Raises PixelwiseError, which names the knobs, when memory runs out, and InputError for a batch of one picture of
    which a norm over the batch has a single value.
    """
    probe = _Probe(network, config, loss_of)
    began = time.perf_counter()
    batch = collate(samples, augment, config)
    loading = (time.perf_counter() - began) / max(config.workers, 1)
    times = []
    try:
        for _ in range(steps + 1):
            began = time.perf_counter()
            probe.step(batch, 0.0)
            times.append(time.perf_counter() - began)
    except (RuntimeError, MemoryError) as error:
        raise_if_out_of_memory(error)
        raise
    except ValueError as error:
        if "more than 1 value per channel" not in str(error):
            raise
        raise InputError(
            f"a batch of {config.batch_size} picture is too small for this network at crops of this size: its batch "
            "norm has a single value a channel; use --batch-size 2 or a larger --image-size"
        ) from error
    seconds = max(statistics.median(times[1:]), loading) * config.accumulate
    return Cost(seconds, probe.memory())


def find_lr(
    network: nn.Module, samples: Samples, augment: Augment, loss_of: LossOf, config: TrainConfig,
    *, lowest: float = 1e-6, highest: float = 1.0, steps: int = 60,
) -> tuple[float, list[tuple[float, float]]]:  # fmt: skip
    """(suggested peak learning rate, [(rate, smoothed loss)]): rates grow from step to step until the loss explodes.

    The suggestion is where the loss falls most steeply over the logarithm of the rate. Source: Cyclical Learning
    Rates (1506.01186, section 3.3), with the smoothing of the loss (0.9, without its bias) that later tools use.
    """
    probe = _Probe(network, config, loss_of)
    curve: list[tuple[float, float]] = []
    mean, lowest_seen = 0.0, math.inf
    for step, batch in enumerate(batches(samples, augment, config, steps)):
        rate = lowest * (highest / lowest) ** (step / (steps - 1))
        loss = probe.step(batch, rate)
        mean = 0.9 * mean + 0.1 * loss
        smooth = mean / (1 - 0.9 ** (step + 1))
        lowest_seen = min(lowest_seen, smooth)
        if not math.isfinite(smooth) or (step > 5 and smooth > 3 * lowest_seen):
            break
        curve.append((rate, smooth))
    slopes = [curve[i + 1][1] - curve[i - 1][1] for i in range(1, len(curve) - 1)]
    if not slopes or min(slopes) >= 0:
        raise InputError(
            f"the loss falls at no learning rate between {lowest:g} and {highest:g}; try --overfit-batch and look at "
            "the data"
        )
    return curve[slopes.index(min(slopes)) + 1][0], curve


def overfit_batch(
    network: nn.Module,
    samples: Samples,
    augment: Augment,
    loss_of: LossOf,
    config: TrainConfig,
    steps: int = 150,
    *,
    regions: bool = False,
) -> tuple[float, float, float]:
    """(first loss, last loss, pixel accuracy in [0, 1]) after `steps` steps on one and the same batch. regions: classes
    overlap, and the mask holds codes (`pixelwise.codes`), all of which must be right.

    A network and labels that fit together learn one batch by heart, to an accuracy of about 1; if not, no longer run
    will help.
    """
    probe = _Probe(network, config, loss_of)
    batch = collate(samples, augment, config)
    losses = [probe.step(batch, config.peak_lr) for _ in range(steps)]
    answer, mask = probe.answer(batch, regions=regions)
    known = mask != mask.max() if mask.max() in (255, 65535) else torch.ones_like(mask, dtype=torch.bool)
    return losses[0], losses[-1], float((answer == mask)[known].float().mean())


def batches(samples: Samples, augment: Augment, config: TrainConfig, count: int) -> Iterator[Batch]:
    """The first `count` batches of the run, loaded here."""
    draws = Draws(samples, augment, seed=config.seed, first=0, last=count * config.batch_size)
    for index in range(count):
        first = index * config.batch_size
        yield default_collate([draws[first + i] for i in range(config.batch_size)])


def collate(samples: Samples, augment: Augment, config: TrainConfig) -> Batch:
    """The first batch of the run."""
    return next(batches(samples, augment, config, 1))


class _Probe:
    """A copy of a network that takes steps; the network itself stays as it is."""

    def __init__(self, network: nn.Module, config: TrainConfig, loss_of: LossOf) -> None:
        self.device = process_state().device
        self.config, self.loss_of = config, loss_of
        self.network = copy.deepcopy(network).to(self.device)
        if config.channels_last:
            self.network = to_channels_last(self.network)
        self.optimizer = make_optimizer(self.network, config)
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=config.precision == "float16")
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)

    def step(self, batch: Batch, rate: float) -> float:
        """One update at a learning rate; the loss before it."""
        set_mode(self.network, self.config)
        set_learning_rate(self.optimizer, rate)
        here = {name: value.to(self.device) for name, value in batch.items()}
        with self._autocast():
            losses = self.loss_of(self.network, here)
        loss: Tensor = losses if isinstance(losses, Tensor) else torch.stack(list(losses.values())).sum()
        self.optimizer.zero_grad()
        self.scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
        if self.config.clip_norm is not None:
            self.scaler.unscale_(self.optimizer)
            nn.utils.clip_grad_norm_(self.network.parameters(), self.config.clip_norm)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        return float(loss.detach())

    def answer(self, batch: Batch, *, regions: bool) -> tuple[Tensor, Tensor]:
        """(classes or codes, truth) of the batch, (n, h, w) each, with the statistics of the batch in batch norms."""
        with torch.no_grad(), self._autocast():
            logits = self.network(batch["image"].to(self.device))["out"]
        if not regions:
            return logits.argmax(1).cpu(), batch["mask"]
        bits = 2 ** torch.arange(logits.shape[1], device=logits.device)[:, None, None]
        return ((logits > 0) * bits).sum(1).cpu(), batch["mask"]

    def memory(self) -> int:
        """The most memory in use so far: the GPU's, or the process's."""
        if self.device.type == "cuda":
            return torch.cuda.max_memory_allocated(self.device)
        try:
            import resource
        except ModuleNotFoundError:  # Windows
            return 0
        unit = 1 if sys.platform == "darwin" else 1024
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit

    def _autocast(self) -> torch.autocast:
        precision = PRECISIONS[self.config.precision]
        return torch.autocast(self.device.type, precision, enabled=precision != torch.float32)

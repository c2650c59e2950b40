"""The training loop, top to bottom: draw a batch, loss, step, average, now and then validate and save.

Runs are a function of their configuration: the samples, crops and flips of step s depend on the seed and on
s alone, not on the number of workers or on where a run was interrupted.
"""

from __future__ import annotations

import dataclasses
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.data import DataLoader, Dataset

from pixelwise.datasets.sample import Sample, Samples
from pixelwise.errors import InputError
from pixelwise.files import writing

Batch = dict[str, Tensor]


@dataclass(frozen=True)
class TrainConfig:
    """Everything about a run but network, data and loss."""

    steps: int
    batch_size: int = 8
    optimizer: Literal["sgd", "adamw"] = "adamw"
    peak_lr: float = 1e-3
    weight_decay: float = 1e-4
    momentum: float = 0.9  # of SGD
    warmup_steps: int = 0  # linear from 0, then poly: (1 - progress) ** poly_power
    poly_power: float = 0.9
    clip_norm: float | None = None  # largest gradient norm
    frozen_batch_norm: bool = False  # statistics stay; scale and shift still learn
    ema_decay: float | None = None  # validate and return the exponential average of weights and statistics
    bfloat16: bool = False  # autocast of the forward pass
    save_every: int = 0  # steps between validations and checkpoints; 0 means at the end only
    workers: int = 1  # processes that load and augment
    seed: int = 0


def fit(
    network: nn.Module,
    samples: Samples,
    augment: Callable[[Sample], Batch],
    loss_of: Callable[[nn.Module, Batch], Tensor],
    config: TrainConfig,
    out: Path,
    validate: Callable[[nn.Module], float] | None = None,
) -> nn.Module:
    """Train `network` and return it as it was best by `validate` (higher is better), else at the end.

    augment: Sample -> tensors of one sample, drawing from torch's global generator; loss_of: (network,
    stacked batch) -> scalar. `out` receives checkpoint.pt (all that resuming needs: call again to go on)
    and best.pt (weights). With `ema_decay` what is validated, saved as best and returned is the average.
    """
    out.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(config.seed)
    optimizer = make_optimizer(network, config)
    averaging = get_ema_multi_avg_fn(config.ema_decay or 0.0)  # type: ignore[no-untyped-call]
    average = AveragedModel(network, multi_avg_fn=averaging, use_buffers=True)
    start, best = 0, float("-inf")
    if (out / "checkpoint.pt").is_file():
        state = torch.load(out / "checkpoint.pt", weights_only=True)
        expected, found = dataclasses.asdict(config), state["config"]
        if found != expected:
            raise InputError(
                f"{out} holds a run with another configuration, {found}: resume that or use another folder"
            )
        network.load_state_dict(state["network"])
        average.load_state_dict(state["average"])
        optimizer.load_state_dict(state["optimizer"])
        start, best = state["step"], state["best"]

    draws = Draws(samples, augment, config, start)
    loader = DataLoader(
        draws, config.batch_size, num_workers=config.workers, persistent_workers=config.workers > 0
    )
    began, losses = time.monotonic(), torch.zeros(())
    for step, batch in enumerate(loader, start=start):
        set_mode(network, config)
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, config)
        with torch.autocast("cpu", torch.bfloat16, enabled=config.bfloat16):
            loss = loss_of(network, batch)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        if config.clip_norm is not None:
            nn.utils.clip_grad_norm_(network.parameters(), config.clip_norm)
        optimizer.step()
        average.update_parameters(network)

        done = step + 1
        losses = losses + loss.detach()
        if done % 20 == 0:
            pace = (time.monotonic() - began) / (done - start)
            left = pace * (config.steps - done) / 60
            progress = f"step {done}/{config.steps}  loss {losses / 20:.4f}"
            print(f"{progress}  {pace:.2f} s/step  {left:.0f} min left", file=sys.stderr)
            losses = torch.zeros(())
        if done == config.steps or (config.save_every and done % config.save_every == 0):
            candidate = average.module if config.ema_decay else network
            score = validate(candidate.eval()) if validate else float(done)
            if validate:
                print(f"step {done}  score {score:.4f}  best so far {max(best, score):.4f}", file=sys.stderr)
            if score > best:
                best = score
                save(candidate.state_dict(), out / "best.pt")
            state = {
                "network": network.state_dict(),
                "average": average.state_dict(),
                "optimizer": optimizer.state_dict(),
                "step": done,
                "best": best,
                "config": dataclasses.asdict(config),
            }
            save(state, out / "checkpoint.pt")
    network.load_state_dict(torch.load(out / "best.pt", weights_only=True))
    return network.eval()


class Draws(Dataset[Batch]):
    """Every sample of a run in order of use: item i is the i-th augmented sample counted from step `start`.

    Samples come in a new random order each epoch; an epoch's remainder is not dropped but runs into the
    next one.
    """

    def __init__(
        self, samples: Samples, augment: Callable[[Sample], Batch], config: TrainConfig, start: int
    ) -> None:
        self.samples, self.augment, self.seed = samples, augment, config.seed
        self.first, self.last = start * config.batch_size, config.steps * config.batch_size

    def __len__(self) -> int:
        return self.last - self.first

    def __getitem__(self, index: int) -> Batch:
        draw = self.first + index
        epoch, place = divmod(draw, len(self.samples))
        shuffle = torch.Generator().manual_seed(self.seed * 1_000_003 + epoch)
        order = torch.randperm(len(self.samples), generator=shuffle)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed((self.seed + 1) * 1_000_000_007 + draw)
            return self.augment(self.samples[int(order[place])])


def make_optimizer(network: nn.Module, config: TrainConfig) -> torch.optim.Optimizer:
    """Weight decay on convolutions only: not on the scale and shift of norms, not on biases."""
    parameters = [parameter for parameter in network.parameters() if parameter.requires_grad]
    groups: list[dict[str, Any]] = [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": config.weight_decay},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]
    if config.optimizer == "sgd":
        return torch.optim.SGD(groups, lr=config.peak_lr, momentum=config.momentum)
    return torch.optim.AdamW(groups, lr=config.peak_lr)


def learning_rate(step: int, config: TrainConfig) -> float:
    """Learning rate of `step`, from 0 on: linear warm-up, then the poly schedule of DeepLab to almost 0."""
    if step < config.warmup_steps:
        return config.peak_lr * (step + 1) / (config.warmup_steps + 1)
    progress = (step - config.warmup_steps) / (config.steps - config.warmup_steps)
    return float(config.peak_lr * (1 - progress) ** config.poly_power)


def set_mode(network: nn.Module, config: TrainConfig) -> None:
    """Training mode, but for the batch norms where they are frozen."""
    network.train()
    if config.frozen_batch_norm:
        for module in network.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.eval()


def save(state: dict[str, Any], path: Path) -> None:
    """Write under a temporary name, then rename: an interrupted run leaves the previous file whole."""
    with writing(path) as temporary:
        torch.save(state, temporary)

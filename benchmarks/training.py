"""Steps of training against two loops as their makers show them: python benchmarks/training.py

Peers: segmentation_models.pytorch in a plain PyTorch loop (its examples: Unet on resnet34, Dice loss, Adam), and the
reference loop of torchvision with the settings of its recipe for LRASPP on MobileNetV3-Large (SGD, poly,
cross-entropy), both rewritten here. Ours is `fit`: metrics written every step, checkpoint at the end, data as
`Samples`. Same weights, same pictures in the same order, same number of loading processes, float32 throughout.

Every contender runs in a process of its own; the parent lets one of them go at a time, for a few steps, in turn. Times
are from one step's forward pass to the next one's, loading included; the first step of a turn is left out. Beside the
clock's stands the CPU time of the process that trains, which says more where others use the machine too; then set
OMP_WAIT_POLICY=PASSIVE, or threads that wait for each other count as busy.

"same batches": a fixed crop, so that both see equal tensors. That both do the same is shown by 20 steps on small crops,
in float64 and in float32 with the memory laid out as the peer has it, whose losses must agree to 1e-5 in float64. With
channels-last convolutions sums are rounded otherwise, and a fresh network with batch norm doubles any difference in a
step or two: how far the losses of the timed runs part is recorded too, and, as a measure for all these, how far the
peer parts from itself in float32 when one thread computes in place of two.
"augmented": each side's own way to resize, crop, flip and change colours (torchvision v2 as in its reference presets,
albumentations as in SMP's examples, Augment). Ours differ from the peers in: channels-last, U-Net's convolutions of
repeated pixels, memory that is kept between steps, AdamW in one pass, the order of arithmetic in the Dice loss, and
one-pass augmentation.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import multiprocessing
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from augment import samples, with_albumentations, with_torchvision
from pixelwise.datasets.sample import Sample
from pixelwise.inference.preprocess import IMAGENET_MEAN, IMAGENET_STD, normalize
from pixelwise.training.config import TrainConfig
from pixelwise.training.draws import Draws
from timing import record

Augment, Turn = Callable[[Sample], Any], Callable[[], None]
COMPARED, WORKERS, THREADS = 20, 1, 2
SIZE_HW = (375, 500)


@dataclass(frozen=True)
class Case:
    """What is learned. peer: name of the other side. classes: few for Dice, as SMP counts a class that a batch lacks
    as a perfect one, and we leave it out."""

    peer: str
    network: str
    crop_hw: tuple[int, int]
    classes: int
    batch_size: int = 4

    def samples(self) -> list[Sample]:
        return [Sample(s.image, s.mask % self.classes, s.name) for s in samples(SIZE_HW)]


CASES = {
    "smp": Case("SMP, plain PyTorch loop", "unet on resnet34", (256, 256), classes=4),
    "torchvision": Case("torchvision's reference loop", "lraspp_mobilenet_v3_large", (256, 256), classes=21),
}


def config_of(case: str, steps: int) -> TrainConfig:
    """Our side's settings; the peers' are the same numbers, in their loops below."""
    usual: dict[str, Any] = {
        "steps": steps, "batch_size": CASES[case].batch_size, "workers": WORKERS, "channels_last": True,
        "decay_norms": True, "warmup_steps": 0, "save_minutes": 1000.0,
    }  # fmt: skip
    if case == "smp":
        return TrainConfig(
            **usual, optimizer="adamw", peak_lr=2e-4, weight_decay=1e-2, schedule="constant",
            losses={"dice": 1.0}, loss_options={"dice": {"over": "batch", "smooth": 0.0}},
        )  # fmt: skip
    return TrainConfig(
        **usual, optimizer="sgd", peak_lr=0.01, momentum=0.9, weight_decay=1e-6, schedule="poly",
        losses={"cross_entropy": 1.0},
    )  # fmt: skip


class FixedCrop:
    """The middle of a picture, normalised: the same tensors for both sides."""

    def __init__(self, crop_hw: tuple[int, int]) -> None:
        self.crop_hw = crop_hw

    def __call__(self, sample: Sample) -> dict[str, Tensor]:
        h, w = self.crop_hw
        pad = [(0, max(0, h - sample.mask.shape[0])), (0, max(0, w - sample.mask.shape[1]))]
        image = np.pad(sample.image, [*pad, (0, 0)], mode="reflect")[:h, :w]
        mask = np.pad(sample.mask, pad, mode="reflect")[:h, :w]
        pixels = normalize(np.ascontiguousarray(image), IMAGENET_MEAN, IMAGENET_STD)[0]
        return {"image": torch.from_numpy(pixels), "mask": torch.from_numpy(mask.astype(np.int64))}


class Ordered(Dataset[tuple[Tensor, Tensor]]):
    """A plain data set for the peers: pictures in the order in which `fit` draws them, each augmented."""

    def __init__(self, pictures: list[Sample], augment: Callable[[Sample], Any], count: int) -> None:
        order = Draws(pictures, lambda sample: {}, seed=0, first=0, last=count)
        self.pictures, self.augment = pictures, augment
        self.order = [order.sample_of(i) for i in range(count)]

    def __len__(self) -> int:
        return len(self.order)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        item = self.augment(self.pictures[self.order[index]])
        return (item["image"], item["mask"]) if isinstance(item, dict) else (item[0], item[1])


class Turns:
    """Called at the start of every step of a child: waits for its turn, and sends how long the last ones took."""

    def __init__(self, pipe: Connection) -> None:
        self.pipe, self.left = pipe, 0
        self.began: tuple[float, float] | None = None
        self.seconds: list[tuple[float, float]] = []  # (by the clock, of the CPU) of each step

    def __call__(self) -> None:
        clock, cpu = time.perf_counter(), time.process_time()
        if self.began:
            self.seconds.append((clock - self.began[0], cpu - self.began[1]))
        if self.left == 0:
            self.pipe.send(self.seconds)
            self.left, self.seconds = self.pipe.recv(), []
        self.left -= 1
        self.began = time.perf_counter(), time.process_time()


def networks(case: str) -> tuple[nn.Module, nn.Module]:
    """(ours, the peer's) with the same random weights."""
    torch.manual_seed(0)
    classes = CASES[case].classes
    if case == "smp":
        import segmentation_models_pytorch as smp

        from pixelwise.checkpoints.loading import load_checkpoint
        from pixelwise.checkpoints.making import create_model

        theirs = smp.Unet("resnet34", encoder_weights=None, classes=classes)
        ours = create_model("unet", encoder="resnet34", num_classes=classes)
        load_checkpoint(ours, theirs.state_dict())
        return ours, theirs
    from torchvision.models.segmentation import lraspp_mobilenet_v3_large as reference

    from pixelwise.models import lraspp_mobilenet_v3_large

    theirs = reference(weights=None, weights_backbone=None, num_classes=classes)
    ours = lraspp_mobilenet_v3_large(weights_backbone=None, num_classes=classes)
    ours.load_state_dict(dict(zip(ours.state_dict(), theirs.state_dict().values(), strict=True)))
    return ours, theirs


def augmentation(case: str, side: str, augmented: bool) -> Augment:
    crop_hw = CASES[case].crop_hw
    if not augmented:
        return FixedCrop(crop_hw)
    if side == "pixelwise":
        from pixelwise.transforms import augment

        return augment.Augment(crop_hw, largest_share=1.0, colour=0.5)
    if case == "smp":
        return with_albumentations(crop_hw, "colours")
    return with_torchvision(SIZE_HW, crop_hw, "colours")


def ours(
    case: str, augment: Augment, steps: int, turn: Turn, dtype: torch.dtype = torch.float32, **changes: Any
) -> list[float]:
    """`fit` with its turns; the losses."""
    from pixelwise.training.loop import fit
    from pixelwise.training.objective import Batch, make_loss
    from pixelwise.training.progress import read_metrics

    config = config_of(case, steps).replace(**changes)
    loss = make_loss(config)

    def loss_of(network: nn.Module, batch: Batch) -> Any:
        turn()
        return loss(network, {**batch, "image": batch["image"].to(dtype)})

    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder)
        fit(networks(case)[0].to(dtype), CASES[case].samples(), augment, loss_of, config, out)
        return [line["loss"] for line in read_metrics(out / "metrics.jsonl") if "loss" in line]


def smp_loop(augment: Augment, steps: int, turn: Turn, dtype: torch.dtype = torch.float32) -> list[float]:
    """A plain loop, as in SMP's examples."""
    from segmentation_models_pytorch.losses import MULTICLASS_MODE, DiceLoss

    case = CASES["smp"]
    model = networks("smp")[1].to(dtype)
    data = Ordered(case.samples(), augment, steps * case.batch_size)
    loader = DataLoader(data, batch_size=case.batch_size, num_workers=WORKERS, multiprocessing_context="fork")
    loss_fn = DiceLoss(MULTICLASS_MODE, from_logits=True, ignore_index=255)
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-4, weight_decay=1e-2)
    losses = []
    model.train()
    for images, masks in loader:
        turn()
        optimizer.zero_grad()
        loss = loss_fn(model(images.to(dtype)), masks)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


def torchvision_loop(
    augment: Augment, steps: int, turn: Turn, dtype: torch.dtype = torch.float32
) -> list[float]:
    """references/segmentation/train.py for one epoch: criterion over the heads, SGD, poly stepped every iteration."""
    case = CASES["torchvision"]
    model = networks("torchvision")[1].to(dtype)
    data = Ordered(case.samples(), augment, steps * case.batch_size)
    loader = DataLoader(
        data, batch_size=case.batch_size, num_workers=WORKERS, drop_last=True, multiprocessing_context="fork"
    )
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9, weight_decay=1e-6)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda x: (1 - x / steps) ** 0.9)

    def criterion(outputs: dict[str, Tensor], target: Tensor) -> Tensor:
        heads = {
            name: nn.functional.cross_entropy(x, target, ignore_index=255) for name, x in outputs.items()
        }
        return heads["out"] if len(heads) == 1 else heads["out"] + 0.5 * heads["aux"]

    losses = []
    model.train()
    for image, target in loader:
        turn()
        output = model(image.to(dtype))
        loss = criterion(output, target)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        scheduler.step()
        losses.append(loss.item())
    return losses


PEERS = {"smp": smp_loop, "torchvision": torchvision_loop}


def furthest_apart(ours: list[float], theirs: list[float]) -> float:
    """The largest difference between two runs' losses of one step."""
    return max(abs(a - b) for a, b in zip(ours, theirs, strict=True))


def largest_difference(case: str, dtype: torch.dtype) -> float:
    """Between the losses of both sides over 20 steps, on crops of 64x64 and in the peer's memory layout."""
    small, nobody = FixedCrop((64, 64)), lambda: None
    both = (
        ours(case, small, COMPARED, nobody, dtype, channels_last=False),
        PEERS[case](small, COMPARED, nobody, dtype),
    )
    return furthest_apart(*both)


def peers_own_difference(case: str) -> float:
    """Between the losses of the peer over the same 20 steps in float32 with two threads and with one."""
    losses = []
    for threads in (THREADS, 1):
        torch.set_num_threads(threads)
        losses.append(PEERS[case](FixedCrop((64, 64)), COMPARED, lambda: None))
    torch.set_num_threads(THREADS)
    return furthest_apart(*losses)


def child(case: str, side: str, augmented: bool, steps: int, pipe: Connection) -> None:
    """One contender, from its first step to its last; then its losses."""
    torch.set_num_threads(THREADS)
    turn, augment = Turns(pipe), augmentation(case, side, augmented)
    loop = partial(ours, case) if side == "pixelwise" else PEERS[case]
    with open("/dev/null", "w") as nowhere, contextlib.redirect_stderr(nowhere):  # progress lines
        losses = loop(augment, steps, turn)
    pipe.send(turn.seconds)  # of the last turn, which nobody asked for any more
    pipe.send(losses)


def compare(case: str, augmented: bool, rounds: int, a_turn: int) -> None:
    """Run both sides in turns and record the medians; without augmentation, their losses too."""
    spec, context = CASES[case], multiprocessing.get_context("spawn")
    sides = ("pixelwise", spec.peer)
    steps = max(COMPARED, (rounds + 1) * a_turn)
    turns = [a_turn] * (steps // a_turn) + ([steps % a_turn] if steps % a_turn else [])
    pipes, children = {}, []
    for side in sides:
        here, there = context.Pipe()
        process = context.Process(target=child, args=(case, side, augmented, steps, there))
        process.start()
        there.close()  # so that a side that dies is an EOFError here
        pipes[side] = here
        children.append(process)
    for side in sides:
        pipes[side].recv()  # both stand before their first step
    times: dict[str, list[float]] = {side: [] for side in sides}
    cpu: dict[str, list[float]] = {side: [] for side in sides}
    for number, count in enumerate(turns):
        for side in sides if number % 2 else sides[::-1]:
            pipes[side].send(count)
            seconds = pipes[side].recv()
            if number > 0:  # the first turn warms up
                times[side] += [1000 * s for s, _ in seconds[1:]]
                cpu[side] += [1000 * s for _, s in seconds[1:]]
    losses = {side: pipes[side].recv() for side in sides}
    for process in children:
        process.join()
    details: dict[str, Any] = {
        "batch_size": spec.batch_size, "crop_hw": spec.crop_hw, "classes": spec.classes,
        "workers": WORKERS, "torch_threads": THREADS,
        "steps_per_second": {s: round(1000 / statistics.median(t), 3) for s, t in times.items()},
        "cpu_median_ms": {s: round(statistics.median(t), 1) for s, t in cpu.items()},
        "cpu_ratio": round(statistics.median(cpu[spec.peer]) / statistics.median(cpu["pixelwise"]), 2),
        "target": 1.3,
    }  # fmt: skip
    if not augmented:
        details["largest_loss_difference_in_20_steps"] = {
            "float64": largest_difference(case, torch.float64),
            "float32, same layout": largest_difference(case, torch.float32),
            "float32, the peer against itself on one thread": peers_own_difference(case),
            "as timed": furthest_apart(*(losses[side][:COMPARED] for side in sides)),
        }  # fmt: skip
        assert details["largest_loss_difference_in_20_steps"]["float64"] <= 1e-5, details
    work = f"{spec.network}, {'augmented' if augmented else 'same batches'}"
    record("training", work, spec.peer, "pixelwise", times, **details)
    print("   ", json.dumps({k: v for k, v in details.items() if "loss" in k or "second" in k or "cpu" in k}))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=5, help="timed turns of each side (default: 5)")
    parser.add_argument(
        "--steps", type=int, default=4, help="steps of a turn, the first untimed (default: 4)"
    )
    parser.add_argument("--only", choices=CASES, help="one of the peers")
    options = parser.parse_args()
    for case in [options.only] if options.only else CASES:
        for augmented in (False, True):
            compare(case, augmented, options.rounds, options.steps)


if __name__ == "__main__":
    main()

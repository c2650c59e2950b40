"""Runs that are killed, for test_crash.py and test_training.py: a script, because it forks and kills itself.

python crashing.py run OUT             two runs of one configuration, OUT/whole and OUT/cut, the latter killed
python crashing.py writes OUT          one checkpoint over another, killed at every call that writes (OUT/killed), and
                                       a checkpoint that the file size limit stops (OUT/full)
python crashing.py train OUT BATCH     one run as launched, for `accelerate launch`
"""

from __future__ import annotations

import json
import os
import random
import resource
import signal
import sys
import time
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional as F
from torchvision.transforms import v2

from pixelwise.datasets.sample import Sample
from pixelwise.losses import cross_entropy
from pixelwise.models.unet import UNet
from pixelwise.training import state as saving
from pixelwise.training.config import TrainConfig
from pixelwise.training.loop import fit
from pixelwise.transforms.torchvision import joint

CONFIG = TrainConfig(
    steps=24, batch_size=2, accumulate=2, peak_lr=1e-2, warmup_steps=3, validate_every=4, save_minutes=0, workers=2,
    seed=3, ema_decay=0.9, clip_norm=1.0,
)  # fmt: skip


def squares(count=3, side=32):
    """Bright squares on dark ground; class 1 is the square."""
    draw = np.random.default_rng(5)
    samples = []
    for i in range(count):
        mask = np.zeros((side, side), np.uint8)
        top, left = draw.integers(2, side - 14, 2)
        mask[top : top + 12, left : left + 12] = 1
        image = (draw.integers(0, 60, (side, side, 3)) + 150 * mask[..., None]).astype(np.uint8)
        samples.append(Sample(image, mask, f"square{i}"))
    return samples


def loss_of(network, batch):
    """With dropout, so that a step also draws random numbers of its own."""
    return cross_entropy(network(F.dropout(batch["image"], 0.1))["out"], batch["mask"])


def run(out: Path) -> None:
    torch.manual_seed(0)
    fit(UNet(width=4), squares(5), joint(v2.RandomHorizontalFlip()), loss_of, CONFIG, out)


def forked(work) -> int:
    """Run `work` in a child; its process id."""
    if child := os.fork():
        return child
    try:
        work()
        os._exit(0)
    except BaseException as error:
        print(repr(error), file=sys.stderr)
        os._exit(1)


def ended(child: int) -> int:
    """Wait for a child: its exit code, or minus the signal that ended it."""
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def kill_until_done(out: Path) -> None:
    assert ended(forked(lambda: run(out / "whole"))) == 0
    chance, metrics, kills = random.Random(0), out / "cut" / "metrics.jsonl", []
    for target in (3, 7, 12, 18, 10**9):
        child = forked(lambda: run(out / "cut"))
        while lines(metrics) < target:
            time.sleep(0.002)
            if os.waitpid(child, os.WNOHANG)[0]:
                print(json.dumps(kills))
                return
        time.sleep(chance.random() * 0.1)
        os.kill(child, signal.SIGKILL)
        kills.append([lines(metrics), ended(child)])
    raise AssertionError("the run never ended")


def lines(path: Path) -> int:
    return path.read_bytes().count(b"\n") if path.is_file() else 0


def kill_at_every_write(out: Path) -> list:
    """For each child: what it died in, its exit code, and which of the two states the checkpoint then holds."""
    out.mkdir()
    old, new = ({"weights": torch.full((20_000,), value), "step": int(value)} for value in (1.0, 2.0))
    path = out / "checkpoint.pt"
    seen = []
    for point in range(1000):
        saving.save_state(old, path)
        child = forked(
            lambda point=point: die_at(point, out / "died_in", lambda: saving.save_state(new, path))
        )
        code = ended(child)
        state = saving.load_state(path, {"weights": torch.Tensor, "step": int})
        assert (state["weights"] == state["step"]).all()
        if code == 0:
            return seen
        seen.append([(out / "died_in").read_text(), code, state["step"]])
    raise AssertionError("there is no end of writing")


def die_at(point: int, note: Path, work) -> None:
    """Run `work`, but end the process, without a word to anybody, in its call number `point` that writes."""
    left = [point]

    def dying(name, call, before=lambda *a: None):
        def wrapped(*arguments, **options):
            if left[0] == 0:
                before(*arguments)
                note.write_text(name)
                os._exit(9)
            left[0] -= 1
            return call(*arguments, **options)

        return wrapped

    def dying_open(*arguments):
        file = open(*arguments)  # noqa: SIM115  # Dying closes it
        return Dying(
            file, dying("write", file.write, lambda data: (file.write(data[: len(data) // 2]), file.flush()))
        )

    class Dying:
        def __init__(self, file, write):
            self.file, self.write = file, write

        def __getattr__(self, name):
            return getattr(self.file, name)

        def __enter__(self):
            return self

        def __exit__(self, *error):
            self.file.close()

    saving.open = dying_open
    for name in ("fsync", "replace", "chmod"):
        setattr(os, name, dying(name, getattr(os, name)))
    work()


def fill_the_disk(out: Path) -> list:
    """The error, its sentence and the files that are left."""
    out.mkdir()
    path = out / "checkpoint.pt"
    saving.save_state({"weights": torch.ones(10)}, path)
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
    try:
        saving.save_state({"weights": torch.ones(1_000_000)}, path)
    except Exception as error:
        return [type(error).__name__, str(error), sorted(p.name for p in out.iterdir())]
    raise AssertionError("there was room")


def train(out: Path, batch_size: int) -> None:
    """Nothing here makes the mean over a batch differ from the mean of its halves: no statistics, no ignored pixels."""
    from pixelwise.catalog import card_for
    from pixelwise.training.validation import Validation

    config = CONFIG.replace(
        batch_size=batch_size, accumulate=1, workers=1, frozen_batch_norm=True, steps=30, ema_decay=None
    )
    torch.manual_seed(0)
    network = UNet(width=4)
    seen = []

    def plain_loss(network, batch):
        seen.extend(float(picture.sum()) for picture in batch["image"])
        return cross_entropy(network(batch["image"])["out"], batch["mask"])

    validation = Validation(squares(5), card_for(network))
    fit(network, squares(5), joint(v2.Identity()), plain_loss, config, out, validation)
    rank = os.environ.get("RANK", "0")
    (out / f"seen{rank}.json").write_text(json.dumps([seen, validation.counts.names]))


if __name__ == "__main__":
    torch.set_num_threads(1)
    out = Path(sys.argv[2])
    match sys.argv[1]:
        case "run":
            kill_until_done(out)
        case "writes":
            print(json.dumps([kill_at_every_write(out / "killed"), fill_the_disk(out / "full")]))
        case "train":
            train(out, int(sys.argv[3]))

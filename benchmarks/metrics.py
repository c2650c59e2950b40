"""Counting pixels: `ConfusionMatrix` against torchmetrics and SMP, on maps with regions and on noise.

8 maps of 1024 x 1024, the truth and an answer that differs from it along borders, as real ones do; noise is the
worst case of our kernel, whose runs are then all of length one. All contenders get the same memory: torchmetrics
and SMP as CPU tensors, ours as the NumPy arrays of those tensors. Each count is checked against ours first.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

import numpy as np
import segmentation_models_pytorch as smp
import torch
from torchmetrics.functional.classification import multiclass_confusion_matrix

import pixelwise.kernels  # numba is loaded, as in any process that counts more than a few pictures
from pixelwise.metrics import ConfusionMatrix
from timing import alternately, record

SHAPE = (8, 1024, 1024)


def maps(kind: str, classes: int, dtype: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Answer and truth: squares of 32 pixels, the answer 3 pixels beside; or noise."""
    draw = np.random.default_rng(0)
    if kind == "noise":
        truth, answer = draw.integers(0, classes, (2, *SHAPE))
    else:
        coarse = draw.integers(0, classes, (SHAPE[0], SHAPE[1] // 32, SHAPE[2] // 32))
        truth = coarse.repeat(32, axis=1).repeat(32, axis=2)
        answer = np.roll(truth, 3, axis=2)
    return torch.from_numpy(answer.astype(dtype)), torch.from_numpy(truth.astype(dtype))


def compare(kind: str, classes: int, dtype: str, repeats: int) -> None:
    answer, truth = maps(kind, classes, dtype)
    ours_in = answer.numpy(), truth.numpy()

    def torchmetrics(checks: bool) -> torch.Tensor:
        return multiclass_confusion_matrix(answer, truth, classes, validate_args=checks)

    def get_stats() -> tuple[torch.Tensor, ...]:
        return smp.metrics.get_stats(answer, truth, mode="multiclass", num_classes=classes)

    def ours() -> ConfusionMatrix:
        return ConfusionMatrix(classes).update(*ours_in)

    contenders: dict[str, Callable[[], object]] = {
        "torchmetrics without checks": lambda: torchmetrics(False),
        "torchmetrics": lambda: torchmetrics(True),
        "SMP get_stats": get_stats,
        "pixelwise": ours,
    }
    matrix = ours().matrix
    assert (torchmetrics(True).numpy() == matrix).all()
    assert (get_stats()[0].sum(dim=0).numpy() == matrix.diagonal()).all()
    times = alternately(contenders, repeats=repeats, warmup=1)
    for peer in ("torchmetrics without checks", "torchmetrics", "SMP get_stats"):
        record(
            "metrics", f"{kind}, {classes} classes, {dtype}, against {peer}", peer, "pixelwise", times,
            shape=SHAPE, classes=classes, dtype=dtype, torch_threads=torch.get_num_threads(),
            numba_threads=pixelwise.kernels.threads(),
        )  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=5)
    for kind in ("regions", "noise"):
        for classes in (21, 150):
            for dtype in ("uint8", "int64"):
                compare(kind, classes, dtype, parser.parse_args().repeats)


if __name__ == "__main__":
    main()

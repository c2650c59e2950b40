"""Engines beside each other, and whether `fastest` takes the right one: networks alone, two sizes, float32.

Weights are random, as speed does not depend on them. Each engine is timed alternately with the others; `fastest` has
chosen before, from a race of its own with an empty cache. `within` is the time of what it chose as a share of that of
the fastest in this run, which is to be at most 1.1.
"""

from __future__ import annotations

import argparse
import itertools
import os
import statistics
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch

import pixelwise
from pixelwise import Card, open_engine
from pixelwise.engines import ENGINES
from pixelwise.export.onnx import export_onnx
from timing import alternately, record

MODELS = {
    "everyday": lambda: pixelwise.create_model("everyday"),
    "lraspp_mobilenet_v3_large": lambda: _plain("lraspp_mobilenet_v3_large"),
    "deeplabv3_mobilenet_v3_large": lambda: _plain("deeplabv3_mobilenet_v3_large"),
    "deeplabv3_resnet50": lambda: _plain("deeplabv3_resnet50"),
    "fcn_resnet50": lambda: _plain("fcn_resnet50"),
    "segformer_b0": lambda: _plain("segformer_b0"),
    "unet on resnet34": lambda: pixelwise.create_model(
        "unet", encoder="resnet34", num_classes=21, encoder_weights=None
    ),
    "unetplusplus": lambda: pixelwise.create_model("unetplusplus", num_classes=21),
}
SIZES_HW = ((256, 384), (512, 768))
ROUNDS = 10


def _plain(name: str) -> torch.nn.Module:
    return pixelwise.create_model(name, num_classes=21)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", help="models, comma separated")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    given = parser.parse_args()
    wanted = given.only.split(",") if given.only else list(MODELS)
    with tempfile.TemporaryDirectory() as place:
        os.environ["PIXELWISE_CACHE"] = place
        for name in wanted:
            torch.manual_seed(0)
            network = MODELS[name]().eval()
            card = vars(network).get("card") or Card.of([f"class {i}" for i in range(21)], name=name)
            path = Path(place) / "model.onnx"
            export_onnx(network, card, path)
            for size_hw in SIZES_HW:
                _compare(name, path, size_hw, given.threads, given.rounds)


def _compare(name: str, path: Path, size_hw: tuple[int, int], threads: int, rounds: int) -> None:
    images = np.random.default_rng(0).standard_normal((1, 3, *size_hw), np.float32)
    chosen: Any = open_engine(path, "fastest", threads=threads)
    chosen(images)
    engines = {
        engine: open_engine(path, engine, threads=threads)
        for engine, row in ENGINES.items()
        if path.suffix in row.files
    }
    times = alternately({engine: lambda e=opened: e(images) for engine, opened in engines.items()}, rounds)
    medians = {engine: statistics.median(some) for engine, some in times.items()}
    best = min(medians.values())
    for peer, ours in itertools.pairwise(engines):
        record(
            "engines", f"{name} at {size_hw[0]}x{size_hw[1]}", peer, ours, times, threads=threads,
            fastest=chosen.name, within=round(medians[chosen.name] / best, 3),
        )  # fmt: skip


if __name__ == "__main__":
    main()

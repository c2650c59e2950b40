"""Stitching a large picture: `stitch` against MONAI's `sliding_window_inference`, which keeps all logits.

Same tiny network, same windows (they coincide where the tile's step divides the picture, as 384 does 2048 - 512 and
8192 - 512), same weights, tiles four at a time. MONAI is given the normalised float picture ready made; ours starts
from bytes. Time: alternately in one process; cpu_s is that of all threads together, which other programs disturb
less. Memory: each in a process of its own, the peak above what was held when its input was ready and a small picture
had been through. `--giant` stitches 32768 x 32768 pixels drawn row by row and writes the labels to a file.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial

import numpy as np
import torch

from pixelwise.inference.plan import PeakMemory
from pixelwise.inference.preprocess import IMAGENET_MEAN, IMAGENET_STD, normalize
from pixelwise.inference.tiling import Tiling, collect, stitch
from timing import alternately, record

CLASSES, TILE, OVERLAP, BATCH = 12, 512, 0.25, 4


def rows_of(side: int) -> Callable[[int, int], np.ndarray]:
    """A reader of a drawn picture: slow waves and a little texture."""
    channel = np.array([1, 2, 3], np.float32)
    waves = 128 + 60 * np.sin(np.arange(side, dtype=np.float32)[:, None] / (37 * channel))
    steps = np.arange(side, dtype=np.uint8)

    def read(top: int, bottom: int) -> np.ndarray:
        rows = np.empty((bottom - top, side, 3), np.uint8)
        for row, y in zip(rows, range(top, bottom), strict=True):  # drawing must not need memory
            row[:] = waves + 60 * np.cos(y / (53 * channel))
            row += (y % 11 + steps % 11)[:, None]
        return rows

    return read


def network() -> Callable[[object], torch.Tensor]:
    """A vignette, so that neighbouring tiles disagree and blending matters, and a linear map: little to wait for."""
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(CLASSES, 3, generator=generator)
    vignette = torch.linspace(-1, 1, TILE).cos().outer(torch.linspace(-1, 1, TILE).cos())

    def infer(images: object) -> torch.Tensor:
        with torch.inference_mode():
            return (weight @ (torch.as_tensor(images) * vignette).flatten(2)).unflatten(2, (TILE, TILE))

    return infer


def network_alone(side: int) -> None:
    """The same tiles through the same network, and nothing else."""
    grid, infer = Tiling(TILE, OVERLAP).grid((side, side)), network()
    tiles = np.zeros((BATCH, 3, TILE, TILE), np.float32)
    for _ in range(-(-grid.count // BATCH)):
        infer(tiles)


def prepare(tile: np.ndarray) -> np.ndarray:
    return normalize(tile, IMAGENET_MEAN, IMAGENET_STD)


def ours(picture: np.ndarray, window: str) -> np.ndarray:
    size = picture.shape[:2]
    tiling = Tiling(TILE, OVERLAP, window, batch=BATCH)  # type: ignore[arg-type]
    bands = stitch(lambda a, b: picture[a:b], size, network(), tiling=tiling, prepare=prepare)
    return collect(bands, size)[0]


def monai(image: torch.Tensor, window: str) -> np.ndarray:
    from monai.inferers import sliding_window_inference

    with torch.inference_mode():
        logits = sliding_window_inference(image, TILE, BATCH, network(), overlap=OVERLAP, mode=window)
        return logits.argmax(1)[0].numpy()


def compare(side: int, window: str, repeats: int) -> None:
    picture = rows_of(side)(0, side)
    image = torch.from_numpy(prepare(picture))
    equal = float((ours(picture, window) == monai(image, window)).mean())
    print(f"equal labels: {equal:.7f}")
    memory = {name: peak_of(name, side, window) for name in ("MONAI", "stitch")}
    print(f"peak above baseline: {', '.join(f'{k} {v / 1e6:.0f} MB' for k, v in memory.items())}")
    contenders = {
        "MONAI": lambda: monai(image, window),
        "stitch": lambda: ours(picture, window),
        "network alone": lambda: network_alone(side),
    }
    cpu_s: dict[str, list[float]] = {name: [] for name in contenders}

    def counted(name: str) -> None:
        start = time.process_time()
        contenders[name]()
        cpu_s[name].append(round(time.process_time() - start, 2))

    times = alternately({name: partial(counted, name) for name in contenders}, repeats=repeats, warmup=0)
    record(
        "tiling", f"{window}, {side} x {side}", "MONAI", "stitch", times,
        classes=CLASSES, tile=TILE, overlap=OVERLAP, batch=BATCH, equal_pixels=equal, peak_bytes=memory,
        peak_ratio=round(memory["MONAI"] / memory["stitch"], 1), torch_threads=torch.get_num_threads(), cpu_s=cpu_s,
    )  # fmt: skip


def peak_of(name: str, side: int, window: str) -> int:
    command = [sys.executable, __file__, "--peak", name, "--side", str(side), "--window", window]
    return int(subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout)


def peak(name: str, side: int, window: str) -> int:
    """Bytes above what is held once the input is there and a small picture has been through."""
    picture = rows_of(side)(0, side)
    if name == "MONAI":
        image = torch.from_numpy(prepare(picture))
        del picture
        work = lambda n: monai(image[..., :n, :n], window)  # noqa: E731
    else:
        work = lambda n: ours(picture[:n, :n], window)  # noqa: E731
    work(1400)  # four tiles at a time, for both
    before = PeakMemory.now()
    with PeakMemory() as measured:
        work(side)
    assert before is not None
    assert measured.bytes is not None
    return measured.bytes - before


def giant(side: int) -> None:
    read, count = rows_of(side), np.zeros(CLASSES, np.int64)
    start = time.perf_counter()
    with PeakMemory() as measured, tempfile.TemporaryFile() as file:
        tiling = Tiling(TILE, OVERLAP, batch=BATCH)
        for band in stitch(read, (side, side), network(), tiling=tiling, prepare=prepare):
            file.write(band.labels)
            count += np.bincount(band.labels.ravel(), minlength=CLASSES)
        assert file.tell() == side * side
    seconds = time.perf_counter() - start
    assert count.sum() == side * side
    assert measured.bytes is not None
    values = {
        "work": f"{side} x {side}, drawn",
        "seconds": round(seconds),
        "peak_process_bytes": measured.bytes,
    }
    print(json.dumps(values))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--side", type=int, default=2048)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--window", choices=["constant", "gaussian"])
    parser.add_argument("--peak", choices=["MONAI", "stitch"], help="measure one process and print its bytes")
    parser.add_argument("--giant", action="store_true", help="32768 x 32768 only, in this process")
    options = parser.parse_args()
    if (options.side - TILE) % round(TILE * (1 - OVERLAP)):
        parser.error(
            f"windows coincide where --side is 512 + 384 i, as 2048 and 8192 are; got {options.side}"
        )
    if options.peak:
        print(peak(options.peak, options.side, options.window))
    elif options.giant:
        giant(32768)
    else:
        for window in [options.window] if options.window else ["constant", "gaussian"]:
            compare(options.side, window, options.repeats)


if __name__ == "__main__":
    main()

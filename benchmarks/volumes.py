"""A scan of 512 x 512 x 600 voxels: our path from its numbers to its label map against MONAI's
`sliding_window_inference`, which keeps all logits.

Same windows (they coincide where half a patch divides the volume less a patch), same weights, same network in the same
engine. MONAI is given the normalised float volume ready made and its argmax; ours starts from int16 and normalises.
Time: alternately in one process. Memory: each in a process of its own, the peak above what was held when its input was
ready and a small volume had been through, less the label map. `--real` is a small 3-D U-Net in ONNX Runtime, on a
smaller volume; `--depths` gives our peak for several numbers of slices, which must not grow with them.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pixelwise.geometry import Geometry
from pixelwise.inference.plan import PeakMemory
from pixelwise.inference.tiling import Tiling
from pixelwise.inference.volume_preprocess import Normalise, VolumePreprocess
from pixelwise.inference.volumes import fitting, segment_volume
from timing import RESULTS, alternately, machine, record, versions

CLASSES, PATCH, OVERLAP = 3, (120, 128, 128), 0.5
WANTED = VolumePreprocess((Normalise("ct", low=-1000, high=1000, mean=20, std=300),), patch=PATCH)
SIZE = (600, 512, 512)
SMALL = (180, 192, 256)
"""So large that compiled loops are loaded."""

Network = Callable[[Any], Any]


def volume(size: tuple[int, int, int]) -> np.ndarray:
    """Slow waves and a little texture, int16 (d, h, w), drawn slice by slice."""
    values = np.empty(size, np.int16)
    rows = np.sin(np.arange(size[1], dtype=np.float32) / 37)[:, None]
    columns = np.cos(np.arange(size[2], dtype=np.float32) / 29)
    grain = np.arange(size[2]) % 11
    for z, plane in enumerate(values):
        plane[:] = 300 * (rows + columns + np.sin(z / 17)) + 9 * (z % 7) + grain
    return values


def normalised(values: np.ndarray) -> torch.Tensor:
    """As MONAI is given it: float32 (1, 1, d, h, w)."""
    (how,) = WANTED.channels
    shown = np.empty((1, 1, *values.shape), np.float32)
    for z, plane in enumerate(values):
        shown[0, 0, z] = (np.clip(plane.astype(np.float64), how.low, how.high) - how.mean) / how.std
    return torch.from_numpy(shown)


def negligible() -> Network:
    """One multiplication a logit, by vignettes of different falls, so that neighbouring windows disagree and blending
    matters."""
    axes = [torch.linspace(-1, 1, side).cos() for side in PATCH]
    vignette = axes[0][:, None, None] * axes[1][:, None] * axes[2]
    weights = torch.stack([-vignette, 0.2 * vignette**2 - 0.05, vignette**3])

    def infer(images: Any) -> Any:
        with torch.inference_mode():
            return torch.as_tensor(images) * weights

    return infer


def real() -> Network:
    """A small 3-D U-Net with random weights, exported and run by ONNX Runtime."""
    import pixelwise

    network = pixelwise.create_model("nonewnet", in_channels=1, num_classes=CLASSES, width=8)
    card = pixelwise.Card.of(["background", "organ", "lesion"], volume=WANTED)
    with tempfile.TemporaryDirectory() as folder:
        pixelwise.save(network, Path(folder) / "net.safetensors", card=card)
        from pixelwise.exporting import export_model

        export_model(Path(folder) / "net.safetensors", Path(folder) / "net.onnx")
        return pixelwise.Segmenter(Path(folder) / "net.onnx").engine


def ours(values: np.ndarray, infer: Network) -> np.ndarray:
    size = (values.shape[0], values.shape[1], values.shape[2])
    fit = fitting(size, Geometry((1.0, 1.0, 1.0)), WANTED, "the volume")
    labels = np.empty(size, np.uint8)
    bands: Iterator[Any] = segment_volume(values[None], fit, WANTED, infer, tiling=Tiling(PATCH, OVERLAP))
    for band in bands:
        labels[band.top : band.top + len(band.labels)] = band.labels
    return labels


def monai(image: torch.Tensor, infer: Network) -> np.ndarray:
    from monai.inferers import sliding_window_inference

    def predictor(windows: torch.Tensor) -> torch.Tensor:
        return torch.as_tensor(infer(windows.numpy()))

    with torch.inference_mode():
        logits = sliding_window_inference(image, PATCH, 1, predictor, overlap=OVERLAP, mode="gaussian")
        return logits.argmax(1)[0].to(torch.uint8).numpy()


def compare(work: str, size: tuple[int, int, int], network: str, repeats: int) -> None:
    infer = NETWORKS[network]()
    values = volume(size)
    image = normalised(values)
    equal = float((ours(values, infer) == monai(image, infer)).mean())
    print(f"equal labels: {equal:.7f}")
    memory = {name: peak_of(name, size, network) for name in ("MONAI", "pixelwise")}
    print(f"peak beside input and label map: {', '.join(f'{k} {v / 1e6:.0f} MB' for k, v in memory.items())}")
    window = np.zeros((1, 1, *PATCH), np.float32)
    count = Tiling(PATCH, OVERLAP).grid(size).count
    contenders: dict[str, Callable[[], object]] = {
        "MONAI": lambda: monai(image, infer),
        "pixelwise": lambda: ours(values, infer),
        "network alone": lambda: [infer(window) for _ in range(count)][:0],
    }
    times = alternately(contenders, repeats=repeats, warmup=0)
    record(
        "volumes", f"{work}, {' x '.join(map(str, size[::-1]))}", "MONAI", "pixelwise", times,
        classes=CLASSES, patch=PATCH, overlap=OVERLAP, windows=count, equal_voxels=equal, peak_bytes=memory,
        peak_ratio=round(memory["MONAI"] / memory["pixelwise"], 1), torch_threads=torch.get_num_threads(),
    )  # fmt: skip


def depths(counts: list[int]) -> None:
    """Our peak beside input and label map, for several numbers of slices."""
    peaks = {count: peak_of("pixelwise", (count, *SIZE[1:]), "negligible") for count in counts}
    line = {
        "benchmark": "volumes", "work": "memory by slices, 512 x 512", "peak_bytes": peaks, "classes": CLASSES,
        "patch": PATCH, "overlap": OVERLAP, "machine": machine(), "versions": versions(),
    }  # fmt: skip
    print({count: f"{peak / 1e6:.0f} MB" for count, peak in peaks.items()})
    with (RESULTS / "volumes.jsonl").open("a", encoding="utf-8") as file:
        file.write(json.dumps(line) + "\n")


def peak_of(name: str, size: tuple[int, int, int], network: str) -> int:
    options = ["--peak", name, "--size", ",".join(map(str, size)), "--network", network]
    command = [sys.executable, __file__, *options]
    return int(subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout)


def peak(name: str, size: tuple[int, int, int], network: str) -> int:
    values, infer = volume(size), NETWORKS[network]()
    if name == "MONAI":
        image = normalised(values)
        del values
        work = lambda box: monai(image[(..., *box)], infer)  # noqa: E731
    else:
        work = lambda box: ours(values[box], infer)  # noqa: E731
    work(tuple(slice(side) for side in SMALL))
    before = PeakMemory.now()
    with PeakMemory() as measured:
        labels = work(tuple(slice(side) for side in size))
    assert before is not None
    assert measured.bytes is not None
    return measured.bytes - before - int(labels.nbytes)


NETWORKS: dict[str, Callable[[], Network]] = {"negligible": negligible, "real": real}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", default=",".join(map(str, SIZE)), help="slices,rows,columns")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--network", choices=list(NETWORKS), default="negligible")
    parser.add_argument(
        "--peak", choices=["MONAI", "pixelwise"], help="measure one process and print its bytes"
    )
    options = parser.parse_args()
    d, h, w = (int(side) for side in options.size.split(","))
    if any((side - tile) % (tile // 2) for side, tile in zip((d, h, w), PATCH, strict=True)):
        parser.error(
            f"windows coincide where sides less {PATCH} are multiples of half of it, got {options.size}"
        )
    if options.peak:
        print(peak(options.peak, (d, h, w), options.network))
        return
    compare("a network of negligible cost", (d, h, w), "negligible", options.repeats)
    compare("a small 3-D U-Net", (240, 256, 256), "real", 1)
    depths([240, 600])


if __name__ == "__main__":
    main()

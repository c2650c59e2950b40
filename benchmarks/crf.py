"""The dense CRF against pydensecrf2: 500 x 375 x 21, ten iterations, DeepLab's parameters, alternately.

    python benchmarks/crf.py                                    # speed, equality of labels, memory by pixels
    python benchmarks/crf.py --data DATA --model everyday --pictures 60     # what the CRF does to a model's scores

Energies are those of the embedded `everyday` model on scikit-image's photographs. Each contender starts from the
same energies and picture and ends with labels. pydensecrf runs on one thread; ours on all CPUs, and on one too.
--data: mean IoU and boundary F of a model on a data set, without the CRF and with each preset; these lines are
appended to those of the last run without it.
"""

from __future__ import annotations

import argparse
import json
import time
import tracemalloc
from pathlib import Path

import numpy as np
from PIL import Image
from skimage import data

from pixelwise import Segmenter, kernels
from pixelwise.datasets.opening import open_samples
from pixelwise.inference import densecrf
from pixelwise.inference.crf import dense_crf
from pixelwise.inference.terms import CRF, PRESETS
from pixelwise.metrics import BoundaryF, ConfusionMatrix
from timing import RESULTS, alternately, machine, record

SIZE_HW = (375, 500)


def photograph(name: str, size_hw: tuple[int, int]) -> np.ndarray:
    size = (size_hw[1], size_hw[0])
    return np.array(Image.fromarray(getattr(data, name)()).resize(size, Image.Resampling.BILINEAR))


def energies(segmenter: Segmenter, picture: np.ndarray) -> np.ndarray:
    """The model's energies (21, h, w) for a picture."""
    coarse = segmenter.engine(segmenter.card.preprocess(picture))[0]
    rows = [
        np.asarray(Image.fromarray(one).resize(picture.shape[1::-1], Image.Resampling.BILINEAR))
        for one in coarse
    ]
    logits = np.stack(rows)
    logits -= logits.max(axis=0)
    return densecrf.unary_from_softmax(np.exp(logits) / np.exp(logits).sum(axis=0))


def labels(module, picture: np.ndarray, unary: np.ndarray, crf: CRF) -> np.ndarray:
    """The same calls of pydensecrf's module or ours."""
    height, width = picture.shape[:2]
    normalization = {"symmetric": module.NORMALIZE_SYMMETRIC, "after": module.NORMALIZE_AFTER}[
        crf.normalization
    ]
    field = module.DenseCRF2D(width, height, len(unary))
    field.setUnaryEnergy(unary)
    field.addPairwiseGaussian(sxy=crf.smoothness_px, compat=crf.smoothness, normalization=normalization)
    field.addPairwiseBilateral(
        sxy=crf.bilateral_px,
        srgb=crf.bilateral_color,
        rgbim=picture,
        compat=crf.bilateral,
        normalization=normalization,
    )
    return np.array(field.inference(crf.iterations)).argmax(axis=0)


def on_one_thread(call):
    """call() with the kernels on the calling thread only."""
    threads = kernels.threads
    kernels.threads = lambda: 1
    try:
        return call()
    finally:
        kernels.threads = threads


def speed(repeats: int) -> None:
    import pydensecrf.densecrf as pydensecrf

    segmenter = Segmenter()
    for preset, crf in PRESETS.items():
        for name in ("astronaut", "chelsea", "coffee"):
            picture = photograph(name, SIZE_HW)
            unary = energies(segmenter, picture)
            theirs = labels(pydensecrf, picture, unary, crf)
            ours = labels(densecrf, picture, unary, crf)
            times = alternately(
                {
                    "pydensecrf2": lambda p=picture, u=unary, c=crf: labels(pydensecrf, p, u, c),
                    "pixelwise": lambda p=picture, u=unary, c=crf: labels(densecrf, p, u, c),
                    "pixelwise, one thread": lambda p=picture, u=unary, c=crf: on_one_thread(
                        lambda: labels(densecrf, p, u, c)
                    ),
                },
                repeats=repeats,
                warmup=1,
            )
            record(
                "crf", f"{preset} preset, {name}, 500 x 375 x 21, 10 iterations", "pydensecrf2", "pixelwise", times,
                normalization=crf.normalization, equal_pixels=float((theirs == ours).mean()),
                changed_by_crf=float((ours != unary.argmin(axis=0)).mean()), threads=kernels.threads(),
            )  # fmt: skip


def memory() -> None:
    """Peak memory of arrays beside what goes in, by the number of pixels."""
    for factor in (1, 2, 4):
        picture = photograph("coffee", (375 * factor, 500))
        unary = np.random.default_rng(0).random((21, *picture.shape[:2]), dtype=np.float32)
        tracemalloc.start()
        dense_crf(unary, picture, CRF(iterations=1))
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        pixels = picture.shape[0] * picture.shape[1]
        write(
            {
                "work": "peak memory",
                "pixels": pixels,
                "mib": round(peak / 2**20),
                "bytes_a_pixel": peak // pixels,
            }
        )


def scores(data: Path, model: str, split: str | None, pictures: int | None) -> None:
    """Mean IoU and boundary F of a model, without the CRF and with each preset."""
    segmenter = Segmenter(model)
    samples = open_samples(data, split=split)
    count = len(samples) if pictures is None else min(pictures, len(samples))
    chosen = np.linspace(0, len(samples) - 1, count).astype(int).tolist()
    classes = segmenter.classes.num_classes
    counts = {name: (ConfusionMatrix(classes), BoundaryF(classes)) for name in (None, *PRESETS)}
    seconds = dict.fromkeys(counts, 0.0)
    for i in chosen:
        sample = samples[i]
        for name, scores in counts.items():
            start = time.perf_counter()
            answer = segmenter.classes.to_indices(segmenter(sample.image, crf=name).labels)
            seconds[name] += time.perf_counter() - start
            for score in scores:
                score.update(answer, sample.mask)
    for name, (confusion, boundary) in counts.items():
        write(
            {
                "work": f"{segmenter.card.name} on {count} pictures of {data.name}, {samples.split}, CRF: {name}",
                "mean_iou": round(confusion.mean_iou(), 4),
                "pixel_accuracy": round(confusion.pixel_accuracy(), 4),
                "boundary_f": round(boundary.mean_f(), 4),
                "seconds_a_picture": round(seconds[name] / count, 3),
            }
        )


def write(line: dict[str, object]) -> None:
    """Print a measurement that is not a comparison of times, and append it to results/crf.jsonl."""
    print(", ".join(f"{key} {value}" for key, value in line.items()), flush=True)
    with (RESULTS / "crf.jsonl").open("a", encoding="utf-8") as file:
        file.write(json.dumps({"benchmark": "crf", **line, "machine": machine()}) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, help="a data set: measure scores on it, not speed")
    parser.add_argument("--model", default="everyday", help="with --data, which (default: everyday)")
    parser.add_argument("--split", help="with --data, which part (default: val, or test, or all)")
    parser.add_argument("--pictures", type=int, help="with --data, how many, evenly chosen (default: all)")
    parser.add_argument("--repeats", type=int, default=5)
    arguments = parser.parse_args()
    if arguments.data is not None:
        scores(arguments.data, arguments.model, arguments.split, arguments.pictures)
        return
    speed(arguments.repeats)
    memory()


if __name__ == "__main__":
    main()

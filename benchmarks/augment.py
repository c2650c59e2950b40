"""Augmentation of one sample against albumentations and torchvision v2: python benchmarks/augment.py

Every contender gets the same decoded pictures and gives what a network learns from: float32 (3, h, w) normalised and
int64 (h, w). Settings: the picture shown 0.5 to 2 times as large (antialiased where it shrinks, but for albumentations,
which does not), a random crop (filled up where the picture is smaller), a mirror image half of the time; then the
same with colours changed (brightness, contrast, saturation, hue: each of half the pictures, each library its own
way) and with elastic bending. One process, one thread. `images_per_second` stands beside the medians.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable
from typing import Any

import numpy as np
import skimage.data
import torch
from PIL import Image
from torchvision import tv_tensors
from torchvision.transforms import v2

from pixelwise.datasets.sample import Sample
from pixelwise.inference.preprocess import IMAGENET_MEAN, IMAGENET_STD
from pixelwise.transforms.augment import Augment
from timing import alternately, record

COUNT = 8
"""Different pictures a round; one call of a contender augments each of them once."""


def samples(size_hw: tuple[int, int], seed: int = 0) -> list[Sample]:
    """The cat Chelsea (CC0) at that size, shifted, with label maps of smooth regions of 21 classes."""
    height, width = size_hw
    cat = np.asarray(
        Image.fromarray(skimage.data.chelsea()).resize((width, height), Image.Resampling.BICUBIC)
    )
    made = []
    for i in range(COUNT):
        fields = np.random.default_rng(seed + i).normal(size=(21, 8, 8)).astype(np.float32)
        scaled = [
            np.asarray(Image.fromarray(f).resize((width, height), Image.Resampling.BICUBIC)) for f in fields
        ]
        made.append(Sample(np.roll(cat, 40 * i, axis=1), np.argmax(scaled, axis=0).astype(np.uint8), str(i)))
    return made


def with_torchvision(
    size_hw: tuple[int, int], crop_hw: tuple[int, int], more: str
) -> Callable[[Sample], Any]:
    shorter = min(size_hw)
    steps: list[Any] = [
        v2.RandomResize(shorter // 2, shorter * 2, antialias=True),
        v2.RandomCrop(crop_hw, pad_if_needed=True, fill={tv_tensors.Image: 0, tv_tensors.Mask: 255}),
        v2.RandomHorizontalFlip(),
    ]
    if more == "colours":
        steps.append(v2.RandomPhotometricDistort(p=0.5))
    if more == "elastic":
        steps.append(
            v2.ElasticTransform(alpha=50.0, sigma=5.0, fill={tv_tensors.Image: 0, tv_tensors.Mask: 255})
        )
    geometry = v2.Compose(steps)
    finish = v2.Compose([v2.ToDtype(torch.float32, scale=True), v2.Normalize(IMAGENET_MEAN, IMAGENET_STD)])

    def augment(sample: Sample) -> Any:
        image = tv_tensors.Image(torch.from_numpy(sample.image).permute(2, 0, 1))
        image, mask = geometry(image, tv_tensors.Mask(torch.from_numpy(sample.mask)))
        return finish(image), mask.long()

    return augment


def with_albumentations(crop_hw: tuple[int, int], more: str) -> Callable[[Sample], Any]:
    import albumentations as A
    import cv2
    from albumentations.pytorch import ToTensorV2

    cv2.setNumThreads(0)
    steps = [
        A.RandomScale(scale_limit=(-0.5, 1.0), p=1.0),
        A.PadIfNeeded(*crop_hw, border_mode=cv2.BORDER_CONSTANT, fill=0, fill_mask=255),
        A.RandomCrop(*crop_hw),
        A.HorizontalFlip(p=0.5),
    ]
    if more == "colours":
        steps += [
            A.RandomBrightnessContrast(brightness_limit=0.125, contrast_limit=0.5, p=0.75),
            A.HueSaturationValue(hue_shift_limit=9, sat_shift_limit=64, val_shift_limit=0, p=0.75),
        ]
    if more == "elastic":
        steps.append(A.ElasticTransform(alpha=50, sigma=5, p=1.0))
    compose = A.Compose([*steps, A.Normalize(IMAGENET_MEAN, IMAGENET_STD), ToTensorV2()])

    def augment(sample: Sample) -> Any:
        done = compose(image=sample.image, mask=sample.mask)
        return done["image"], done["mask"].long()

    return augment


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--repeats", type=int, default=25, help="timed rounds (default: 25)")
    options = parser.parse_args()
    torch.set_num_threads(1)
    for size_hw, crop_hw in (((375, 500), (480, 480)), ((1024, 2048), (512, 1024))):
        drawn = samples(size_hw)
        for more in ("", "colours", "elastic"):
            ours = Augment(
                crop_hw,
                largest_share=1.0,
                colour=0.5 if more == "colours" else 0.0,
                elastic_px=10.0 if more == "elastic" else 0.0,
            )
            contenders = {
                "torchvision": with_torchvision(size_hw, crop_hw, more),
                "albumentations": with_albumentations(crop_hw, more),
                "pixelwise": ours,
            }
            torch.manual_seed(0)
            times = alternately(
                {name: lambda f=f, d=drawn: [f(sample) for sample in d] for name, f in contenders.items()},
                options.repeats,
            )
            work = f"{size_hw[0]}x{size_hw[1]} to {crop_hw[0]}x{crop_hw[1]}, resize, crop, flip{more and ', ' + more}"
            speed = {name: round(COUNT * 1000 / statistics.median(t), 1) for name, t in times.items()}
            for peer in ("torchvision", "albumentations"):
                record(
                    "augment", work, peer, "pixelwise", times,
                    images_per_call=COUNT, images_per_second=speed, torch_threads=1,
                )  # fmt: skip
            print(f"    images/s: {speed}")


if __name__ == "__main__":
    main()

"""Overlay and draw_segmentation_masks against torchvision's: python benchmarks/draw.py

Two claims, at 520x520 and 1024x1024 with 21 classes on a photo:
- overlay: from one label map to the finished picture. torchvision takes boolean masks, so it is timed with
  the masks ready made; "from labels" adds what its documentation does to make them.
- draw_segmentation_masks: the same call with the same tensors, equal pixels.
"""

from __future__ import annotations

import argparse

import numpy as np
import skimage.data
import torch
from numpy.typing import NDArray
from PIL import Image
from torchvision.utils import draw_segmentation_masks as torchvision_draw

from pixelwise.draw import draw_segmentation_masks, overlay
from pixelwise.labels import VOC
from timing import alternately, record


def photo(size_px: int) -> NDArray[np.uint8]:
    """The cat Chelsea (CC0), squeezed to a square."""
    return np.array(
        Image.fromarray(skimage.data.chelsea()).resize((size_px, size_px), Image.Resampling.BICUBIC)
    )


def blobs(size_px: int, classes: int = 21, seed: int = 0) -> NDArray[np.uint8]:
    """A label map of smooth regions: the largest of `classes` coarse noise fields, scaled up."""
    fields = np.random.default_rng(seed).normal(size=(classes, 12, 12)).astype(np.float32)
    size = (size_px, size_px)
    scaled = [np.asarray(Image.fromarray(f).resize(size, Image.Resampling.BICUBIC)) for f in fields]
    return np.argmax(scaled, axis=0).astype(np.uint8)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--repeats", type=int, default=25, help="timed rounds (default: 25)")
    parser.add_argument("--torch-threads", type=int, help="default: torch's own choice")
    options = parser.parse_args()
    repeats = options.repeats
    if options.torch_threads:
        torch.set_num_threads(options.torch_threads)
    colors = list(VOC.colors)
    for size_px in (520, 1024):
        image, labels = photo(size_px), blobs(size_px)
        tensor = torch.from_numpy(image).permute(2, 0, 1).contiguous()
        label_tensor = torch.from_numpy(labels)
        every_class = torch.arange(len(VOC), dtype=torch.uint8)[:, None, None]
        masks = label_tensor == every_class
        size = f"{len(VOC)} classes, {size_px}x{size_px}"
        facts = {"classes": len(VOC), "size_hw": [size_px, size_px], "torch_threads": torch.get_num_threads()}

        def theirs(tensor=tensor, masks=masks):
            return torchvision_draw(tensor, masks, alpha=0.5, colors=colors)

        def theirs_from_labels(tensor=tensor, labels=label_tensor, every=every_class):
            return torchvision_draw(tensor, labels == every, alpha=0.5, colors=colors)

        def our_overlay(image=image, labels=labels):
            return overlay(image, labels, VOC, alpha=0.5, background=False)

        def ours(tensor=tensor, masks=masks):
            return draw_segmentation_masks(tensor, masks, alpha=0.5, colors=colors)

        assert torch.equal(theirs(), ours())
        rounding = np.abs(our_overlay().astype(int) - theirs().permute(1, 2, 0).numpy()).max()
        assert rounding <= 1, "torchvision truncates where overlay rounds; nothing else may differ"

        contenders = {
            "torchvision": theirs,
            "torchvision from labels": theirs_from_labels,
            "pixelwise": our_overlay,
        }
        times = alternately(contenders, repeats)
        record("draw", f"overlay, {size}", "torchvision", "pixelwise", times, target=10, **facts)
        times = alternately({"torchvision": theirs, "pixelwise": ours}, repeats)
        record("draw", f"draw_segmentation_masks, {size}", "torchvision", "pixelwise", times, **facts)


if __name__ == "__main__":
    main()

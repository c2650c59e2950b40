"""Any torchvision v2 transform as a way from a `Sample` to tensors: image and mask move together."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms import v2

from pixelwise.datasets.sample import Sample

IMAGE_AND_MASK_FILL = {tv_tensors.Image: 127, tv_tensors.Mask: 255}  # grey, near 0 once normalised; ignored


def joint(
    transform: v2.Transform, mean: float = 0.5, std: float = 0.5
) -> Callable[[Sample], dict[str, Tensor]]:
    """Sample -> {"image": float32 (3, h, w), "mask": int64 (h, w)} by way of a torchvision v2 transform.

    The transform sees a uint8 `tv_tensors.Image` and a uint8 `tv_tensors.Mask` and so decides by type what
    moves both and what changes colours only; masks are never interpolated.
    """
    finish = v2.Compose([v2.ToDtype(torch.float32, scale=True), v2.Normalize([mean] * 3, [std] * 3)])

    def augment(sample: Sample) -> dict[str, Tensor]:
        image = tv_tensors.Image(torch.tensor(sample.image).permute(2, 0, 1))
        mask = tv_tensors.Mask(torch.tensor(sample.mask))
        image, mask = transform(image, mask)
        return {
            "image": finish(image).as_subclass(torch.Tensor),
            "mask": mask.as_subclass(torch.Tensor).long(),
        }

    return augment

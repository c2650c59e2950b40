"""Test-time augmentation: a network's mean answer for a picture or volume as it is, flipped, turned and scaled.

`augmented` takes a Predict and returns one, so it fits anything that takes an engine: `decide` for a whole picture,
`stitch` for tiles, another `augmented`.

What is averaged is named. "logits": their mean; it weighs confident answers more. "probabilities": the mean of the
softmax, what most publications report as multi-scale testing; its logarithm is returned, which are logits with just
that softmax. Of a single logit, and of overlapping regions, it is the mean of the sigmoids, and the logits with just
those sigmoids.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from typing import Any, Literal, get_args

import numpy as np
from array_api_compat import array_namespace, is_torch_array
from numpy.typing import NDArray
from PIL import Image

from pixelwise.errors import InputError, UnknownNameError
from pixelwise.inference.tiling import Predict, enlarge

Flip = Literal["horizontal", "vertical", "columns", "rows", "slices"]
Average = Literal["logits", "probabilities"]

VOLUME_FLIPS: dict[str, int] = {"columns": -1, "rows": -2, "slices": -3}
"""What volumes are mirrored in, and the axis of (n, c, d, h, w) that it reverses."""


def augmented(
    predict: Predict,
    *,
    flips: Sequence[Flip] = (),
    rotations: Sequence[int] = (),
    scales: Sequence[float] = (1.0,),
    average: Average = "logits",
    align_corners: bool = False,
    multiple: int = 1,
    offset: int = 0,
    regions: bool = False,
) -> Predict:
    """`predict` averaged over every combination of what is named, the picture as it is always among the flips.

    flips: "horizontal" (left and right change places), "vertical", or both, which is four views; of volumes (n, c, d,
    h, w) also "columns", "rows" and "slices", the first and the last of which change places, so that three of them are
    eight views. rotations: further turns by 90, 180 or 270 degrees; with a flip and all turns these are the eight
    symmetries of the square, each once. scales: factors on both sides, each as near as sides of multiple * i + offset
    allow; Pillow's antialiased bilinear for NumPy, torch's for tensors. align_corners: how this network's logits are
    enlarged. regions: each logit has a sigmoid of its own. Volumes are turned in h and w, and not scaled.

    The answer has the resolution of the finest of the averaged logits. Raises InputError for unknown names, and a
    factor that is not positive.
    """
    check_views(flips, rotations, scales, average)
    views = symmetries(flips, rotations)

    def mean(images: Any) -> Any:
        channels = 0

        def answers() -> Iterator[Any]:
            nonlocal channels
            for scale, (turns, mirrored) in itertools.product(scales, views):
                view = _scaled(images, scale, multiple, offset)
                view = _contiguous(_turned(_flipped(view, mirrored), turns))
                logits = _flipped(_turned(predict(view), -turns), mirrored)
                channels = logits.shape[1]
                yield _scores(logits, average, regions)

        total = mean_of(answers(), align_corners=align_corners)
        if average == "probabilities":
            xp = array_namespace(total)
            total = xp.log(xp.clip(total, 1e-30, 1.0))
            if regions or channels == 1:
                total = total[:, :channels] - total[:, channels:]
        return _contiguous(total)

    return mean


def mean_of(answers: Iterator[Any], *, align_corners: bool) -> Any:
    """The mean of answers (n, k, h, w) or (n, k, d, h, w) of one field of view, at the resolution of the finest of
    them, as they come: of each resolution there is one sum at a time."""
    sums: dict[tuple[int, ...], Any] = {}
    count = 0
    for answer in answers:
        size, count = tuple(answer.shape[2:]), count + 1
        sums[size] = answer if size not in sums else sums[size] + answer
    finest = [max(sides) for sides in zip(*sums, strict=True)]
    first, *others = (enlarge(one, finest, align_corners=align_corners) for one in sums.values())
    return sum(others, start=first) / count


def check_views(
    flips: Sequence[Flip], rotations: Sequence[int], scales: Sequence[float], average: Average
) -> None:
    """Raise UnknownNameError or InputError for what `augmented` does not know."""
    for flip in flips:
        if flip not in get_args(Flip):
            raise UnknownNameError("flip", flip, get_args(Flip))
    if set(flips) & VOLUME_FLIPS.keys() and set(flips) - VOLUME_FLIPS.keys():
        raise InputError(
            f"flips are of pictures, horizontal and vertical, or of volumes, {', '.join(VOLUME_FLIPS)}, got "
            f"{', '.join(flips)}"
        )
    if any(degrees not in (90, 180, 270) for degrees in rotations):
        raise InputError(f"rotations must be among 90, 180 and 270 degrees, got {tuple(rotations)}")
    if not scales or not all(math.isfinite(scale) and scale > 0 for scale in scales):
        raise InputError(f"scales must be positive factors, at least one, got {tuple(scales)}")
    if average not in get_args(Average):
        raise UnknownNameError("average", average, get_args(Average))


def symmetries(flips: Sequence[Flip], rotations: Sequence[int]) -> list[tuple[int, tuple[int, ...]]]:
    """The views: (quarter turns, the axes that are mirrored first), each once, the picture as it is first."""
    views: dict[tuple[int, tuple[int, ...]], None] = {(0, ()): None}
    if "horizontal" in flips:
        views[0, (-1,)] = None
    if "vertical" in flips:  # a vertical flip is a horizontal one, turned by half
        views |= {(2, () if mirrored else (-1,)): None for _, mirrored in views}
    for flip, axis in VOLUME_FLIPS.items():
        if flip in flips:
            views |= {(0, (*mirrored, axis)): None for _, mirrored in views}
    upright = list(views)
    for degrees in rotations:
        views |= {((turns + degrees // 90) % 4, mirrored): None for turns, mirrored in upright}
    return list(views)


def _flipped(array: Any, axes: tuple[int, ...]) -> Any:
    return array_namespace(array).flip(array, axis=axes) if axes else array


def _turned(array: Any, quarters: int) -> Any:
    """Turned anticlockwise in the last two axes."""
    xp, quarters = array_namespace(array), quarters % 4
    if quarters == 2:
        return xp.flip(array, axis=(-2, -1))
    if quarters:
        axes = tuple(range(array.ndim))
        array = xp.flip(
            xp.permute_dims(array, (*axes[:-2], axes[-1], axes[-2])), axis=-2 if quarters == 1 else -1
        )
    return array


def _scores(logits: Any, average: Average, regions: bool) -> Any:
    """What is averaged; of sigmoids both p and 1 - p, each of which keeps its digits where it is small."""
    if average == "logits":
        return logits
    xp = array_namespace(logits)
    if regions or logits.shape[1] == 1:
        odds = xp.exp(-xp.abs(logits))
        large, small = 1 / (1 + odds), odds / (1 + odds)
        positive = logits > 0
        return xp.concat([xp.where(positive, large, small), xp.where(positive, small, large)], axis=1)
    odds = xp.exp(logits - xp.max(logits, axis=1, keepdims=True))
    return odds / xp.sum(odds, axis=1, keepdims=True)


def _scaled(images: Any, scale: float, multiple: int, offset: int) -> Any:
    """(n, c, h, w) resized by a factor; scale 1 leaves it alone."""
    if scale == 1:
        return images
    if images.ndim != 4:
        raise InputError(
            f"scales are for pictures (n, c, h, w), got shape {tuple(images.shape)}; use flips only"
        )
    h, w = (
        max(1 - min(offset, 1), round((side * scale - offset) / multiple)) * multiple + offset
        for side in images.shape[2:]
    )
    if is_torch_array(images):
        from torch.nn import functional as F

        return F.interpolate(images, size=(h, w), mode="bilinear", align_corners=False, antialias=True)
    out: NDArray[np.float32] = np.empty((*images.shape[:2], h, w), np.float32)
    for n, c in np.ndindex(*images.shape[:2]):
        channel = Image.fromarray(np.ascontiguousarray(images[n, c], np.float32))
        out[n, c] = np.asarray(channel.resize((w, h), Image.Resampling.BILINEAR))  # Pillow: (w, h)
    return out


def _contiguous(array: Any) -> Any:
    return array.contiguous() if is_torch_array(array) else np.ascontiguousarray(array)

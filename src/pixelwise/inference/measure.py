"""What a network of unknown make gives for a picture: how many logits, at which share of its size."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
from array_api_compat import is_torch_array

from pixelwise.errors import InputError
from pixelwise.inference.preprocess import Preprocess
from pixelwise.inference.tiling import Predict

SEEN_HW = (256, 320)
"""Height and width of what is shown, unless the preprocessing asks for others: two sides, so that they are told
apart, both multiples of the strides that occur."""


class Measured(NamedTuple):
    """channels: logits of a pixel. stride: input pixels per logit."""

    channels: int
    stride: int


def measure(
    predict: Predict,
    preprocess: Preprocess,
    what: str,
    *,
    align_corners: bool,
    single: bool | None = None,
    size_hw: tuple[int, int] | None = None,
) -> Measured:
    """Show noise to a network once. what: begins the sentence of an error. single: each logit is decided for itself
    (sigmoid), not the largest of them (softmax); None: one alone is. size_hw: the only size that it takes.

    Raises InputError for what does not give finite logits (n, k, h/s, w/s) with a whole s, and for probabilities.
    """
    channels = len(preprocess.mean)
    if size_hw is None:
        fixed = isinstance(preprocess.size, tuple)
        size_hw = (preprocess if fixed else replace(preprocess, size=None)).size_hw(*SEEN_HW)
    noise = np.random.default_rng(0).standard_normal((1, channels, *size_hw), np.float32)
    logits = _array(predict(noise), what)
    given = f"{what} was shown a picture (1, {channels}, {size_hw[0]}, {size_hw[1]}) and"
    if logits.ndim != 4 or len(logits) != 1:
        raise InputError(f"{given} gave {logits.shape}; expected logits (1, classes, height, width)")
    stride = ratio(size_hw, logits.shape[2:], align_corners=align_corners)
    if stride is None:
        raise InputError(
            f"{given} gave logits of {logits.shape[2]}x{logits.shape[3]}, which are no whole ratio of it"
            + ("" if align_corners else ", or one with align_corners=True (pixelwise.Card.of)")
            + "; enlarge them to the size of the picture in the network's forward"
        )
    if not np.isfinite(logits).all():
        raise InputError(f"{given} gave numbers that are not finite; look at its weights")
    single = logits.shape[1] == 1 if single is None else single
    # Logits may lie between 0 and 1 for once; what does for large numbers too is meant to
    if (kind := probabilities(logits, single)) and probabilities(_array(predict(noise * 1000), what), single):
        raise InputError(
            f"{given} gave probabilities ({kind}), where logits are expected: leave out its last activation"
        )
    return Measured(logits.shape[1], stride)


def ratio(size_hw: tuple[int, int], coarse_hw: Any, *, align_corners: bool) -> int | None:
    """Pixels per logit, where that is one whole number for both sides; with aligned corners from corner to corner."""
    for corner in (0, 1) if align_corners else (0,):
        sides = [(side - corner, coarse - corner) for side, coarse in zip(size_hw, coarse_hw, strict=True)]
        if all(coarse > 0 and side % coarse == 0 for side, coarse in sides):
            first, second = (int(side // coarse) for side, coarse in sides)
            if first == second:
                return first
    return None


def check_ratio(image: Any, logits: Any, stride: int, what: str, *, align_corners: bool) -> None:
    """Raise InputError for logits (n, k, h', w') that are not of every `stride` pixels of the image (n, c, h, w)."""
    for side, coarse in zip(image.shape[2:], logits.shape[2:], strict=True):
        if not side - stride < coarse * stride < side + stride + align_corners:
            raise InputError(
                f"{what} gave logits of {logits.shape[2]}x{logits.shape[3]} for {image.shape[2]}x{image.shape[3]} "
                f"pixels, and before one for {stride} of them; say which sizes it takes (multiple= of "
                "pixelwise.Card.of)"
            )


def probabilities(logits: Any, single: bool) -> str | None:
    """ "sigmoid" or "softmax" where all numbers (1, k, h, w) look like what those give, else None. single: each is
    decided for itself; the largest of several is the same for sigmoids."""
    if logits.min() < 0 or logits.max() > 1:
        return None
    if single:
        return "sigmoid"
    return "softmax" if np.allclose(logits.sum(axis=1), 1, atol=1e-3) else None


def _array(found: Any, what: str) -> Any:
    """As an array; InputError for anything but fractions, such as the numbers of classes."""
    floating = (
        found.is_floating_point()
        if is_torch_array(found)
        else np.issubdtype(np.asarray(found).dtype, np.floating)
    )
    if not floating:
        raise InputError(
            f"{what} gave numbers of type {found.dtype}, where logits are expected; leave out what comes behind them "
            "(argmax, a threshold)"
        )
    return found.detach().cpu().float().numpy() if is_torch_array(found) else np.asarray(found)

"""Overlapping regions: one logit each, positive where the region is, whatever the others say.

`decide_regions` is to them what `decide` is to classes that exclude each other.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from array_api_compat import is_torch_array
from numpy.typing import NDArray

from pixelwise.codes import code_type, has, highest
from pixelwise.errors import InputError
from pixelwise.inference.cleanup import Cleanup, clean
from pixelwise.inference.decide import decide
from pixelwise.inference.options import SegmentOptions
from pixelwise.inference.tiling import Band
from pixelwise.labels import LabelSet


def decide_regions(
    logits: Any, size_hw: tuple[int, int], *, align_corners: bool, confidence: bool = False
) -> tuple[NDArray[Any], NDArray[np.float32] | None]:
    """Which regions each pixel belongs to: those whose logit, bilinearly interpolated, is positive there.

    logits: float (k, h, w), NumPy or torch, finite. size_hw: the size (H, W) of the result. align_corners: as in
    torch's bilinear interpolation.

    Returns codes (H, W), see `pixelwise.codes`, and the confidence, float32 in [0.5, 1), or None: the smallest of the
    regions' sigmoid(|logit|), so that a pixel is as certain as the least certain thing said of it. Both are NumPy's.
    Raises InputError for more than 64 regions.
    """
    if logits.ndim != 3:
        raise InputError(f"decide_regions expects logits (k, h, w), got shape {tuple(logits.shape)}")
    dtype = code_type(logits.shape[0])
    codes, least = np.zeros(size_hw, dtype), None
    for region in range(logits.shape[0]):
        one = logits[region : region + 1]
        found, sure = (
            _host(values)
            for values in decide(one, size_hw, align_corners=align_corners, confidence=confidence)
        )
        codes |= found.astype(dtype) << dtype.type(region)
        least = sure if least is None else np.minimum(least, sure)
    return codes, least


def refuse_for_regions(options: SegmentOptions, classes: LabelSet, *, streamed: bool) -> None:
    """Raise InputError for options that have no meaning where regions overlap. streamed: the picture comes in rows."""
    if options.crf is not None:
        raise InputError(
            "the CRF is for classes of which a pixel has one, and the regions of this model overlap; leave crf out"
        )
    outside = classes.names[0]
    if outside in (*options.fill_holes, *options.largest_only):
        raise InputError(
            f"{outside!r} is what no region covers, so it has no mask to clean up; name regions: "
            f"{', '.join(classes.names[1:11])}"
        )
    if streamed and options.cleanup(classes).active:
        raise InputError(
            "overlapping regions are cleaned up one by one, which needs the whole picture in memory; leave min_area, "
            "fill_holes and largest_only out, or segment it as a picture"
        )


def clean_regions(codes: NDArray[Any], count: int, cleanup: Cleanup) -> NDArray[Any]:
    """Codes of which each region's mask was cleaned up by itself, as a map of two classes.

    codes (h, w) of `count` regions; cleanup: its class indices are those of the label map, region i being i + 1. Holes
    are those of the mask, only its largest piece stays, and min_area holds for its pieces and for what it leaves free.
    """
    cleaned = np.zeros_like(codes)
    for region in range(count):
        own = replace(
            cleanup,
            fill_holes=(1,) if region + 1 in cleanup.fill_holes else (),
            largest_only=(1,) if region + 1 in cleanup.largest_only else (),
        )
        mask = has(codes, region).view(np.uint8)
        cleaned |= (clean(mask, own) if own.active else mask).astype(codes.dtype) << codes.dtype.type(region)
    return cleaned


def cleaned(found: Band, cleanup: Cleanup, count: int) -> Band:
    """A whole picture's answer, cleaned up: its label map, or where it has codes, each of `count` regions."""
    if found.codes is None:
        return replace(found, labels=clean(found.labels, cleanup))
    codes = clean_regions(found.codes, count, cleanup)
    return replace(found, labels=highest(codes, count), codes=codes)


def _host(values: Any) -> Any:
    return values.cpu().numpy() if is_torch_array(values) else values

"""Losses that measure in distances to a boundary, and the weights that U-Net puts between cells.

They call SciPy's exact Euclidean distance transforms, on the CPU and for each image and class: a millisecond
or two for 256 x 256, so best with few classes. Distances carry no gradient; probabilities do.

Letters: n batch, k classes, ... spatial axes (h w, or d h w), x all pixels of an image in a row.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pixelwise.errors import InputError, MissingExtraError
from pixelwise.losses.inputs import IGNORE, Mode, Reduction, full_precision, prepare, reduce_maps
from pixelwise.losses.pixel import cross_entropy


@full_precision
def boundary(
    logits: Tensor,
    target: Tensor,
    *,
    spacing: Sequence[float] | None = None,
    mode: Mode = "multiclass",
    classes: Sequence[int] | None = None,
    ignore_index: int | None = IGNORE,
    reduction: Reduction = "mean",
) -> Tensor:
    """Mean of probability x signed distance to the class's boundary in the target.

    The distance is positive outside a class, negative inside, in pixels or in units of `spacing` (one step for
    each spatial axis). Boundaries run between pixels: the nearest ones lie half a step away on both sides,
    where the authors' code has 1 outside and 0 inside. 0 everywhere for a class that an image lacks or that
    fills it. logits (n, k, ...) with 2 or 3 spatial axes; target and `classes` as for `dice`. An ignored pixel
    has no term and counts as outside for its neighbours' distances. none: (n, k', ...); mean: over counted
    pixels and classes. Any real: lowest for the perfect prediction. To be added to a region loss.
    Source: Boundary loss (Kervadec 2019), eq. 5.
    """
    inputs = prepare(logits, target, mode, ignore_index)
    hits = inputs.hits().reshape(logits.shape)
    signed = by_image_and_class(signed_distance, hits, spacing, classes).to(inputs.logits)
    return reduce_maps(
        signed.flatten(2) * inputs.probabilities(), inputs, reduction, classes, logits.shape[2:]
    )


@full_precision
def hausdorff(
    logits: Tensor,
    target: Tensor,
    *,
    power: float = 2.0,
    spacing: Sequence[float] | None = None,
    mode: Mode = "multiclass",
    classes: Sequence[int] | None = None,
    ignore_index: int | None = IGNORE,
    reduction: Reduction = "mean",
) -> Tensor:
    """Mean of (p - t)^2 (d_t^a + d_p^a): errors weigh more the farther they lie from both boundaries.

    d_t and d_p: distance of a pixel to the nearest pixel on the other side of the class's boundary in the
    target and in the prediction (p > 1/2), in pixels or units of `spacing`; 0 everywhere where there is no
    boundary. a is `power`. Arguments, ignored pixels and shapes as for `boundary`. [0, inf), 0 is perfect.
    Source: Reducing the Hausdorff distance (Karimi and Salcudean 2019), eq. 8.
    """
    inputs = prepare(logits, target, mode, ignore_index)
    p, hits = inputs.probabilities(), inputs.hits()
    far = torch.zeros_like(p)
    for mask in (hits, p.detach() > 0.5):
        distance = by_image_and_class(boundary_distance, mask.reshape(logits.shape), spacing, classes)
        far += distance.to(p).flatten(2).pow(power)
    return reduce_maps((p - hits.to(p)).square() * far, inputs, reduction, classes, logits.shape[2:])


def unet_weights(
    instances: Tensor | NDArray[Any],
    *,
    w0: float = 10.0,
    sigma: float = 5.0,
    background: float = 1.0,
    cell: float = 1.0,
    spacing: Sequence[float] | None = None,
) -> Tensor:
    """The weight map of U-Net: w_c + w0 exp(-(d1 + d2)^2 / (2 sigma^2)) on the ground between cells.

    instances: one image (h, w) or (d, h, w) of integers, 0 background and one id for each cell (touching or
    not). d1, d2: distances to the nearest and second nearest cell, in pixels or units of `spacing`, as is
    sigma; the second term is 0 inside cells and where there are fewer than two. w_c: `background` or `cell`,
    to balance classes. Returns float32 of the same shape on the CPU, for `pixel_weights` of `cross_entropy`.
    Distances are measured up to 6 sigma, beyond which the term is below 2e-8 w0.
    Source: U-Net (Ronneberger 2015), eq. 2.
    """
    ids = np.asarray(instances.cpu() if isinstance(instances, Tensor) else instances)
    if ids.ndim not in (2, 3) or not (np.issubdtype(ids.dtype, np.integer) or ids.dtype == bool):
        raise InputError(
            f"instances must be one image (h, w) or (d, h, w) of integer ids, got {ids.dtype} {ids.shape}"
        )
    ndimage = scipy_ndimage()
    steps = check_spacing(spacing, ids.ndim)
    _, ranks = np.unique(ids, return_inverse=True)  # 0 stays the lowest; find_objects needs small ids
    ranks = ranks.reshape(ids.shape) + (0 if (ids == 0).any() else 1)
    if ids.size and ids.min() < 0:
        raise InputError(f"instance ids must be 0 or more, got {ids.min()}")
    nearest, second = np.full(ids.shape, np.inf), np.full(ids.shape, np.inf)
    for rank, box in enumerate(ndimage.find_objects(ranks), start=1):
        around = tuple(
            slice(max(0, part.start - reach), part.stop + reach)
            for part, reach in zip(box, (int(np.ceil(6 * sigma / step)) + 1 for step in steps), strict=True)
        )
        distance = ndimage.distance_transform_edt(ranks[around] != rank, sampling=steps)
        closer = nearest[around]
        second[around] = np.minimum(second[around], np.maximum(closer, distance))
        nearest[around] = np.minimum(closer, distance)
    between = w0 * np.exp(-((nearest + second) ** 2) / (2 * sigma**2))
    weights = np.where(ids == 0, background + between, cell)
    return torch.from_numpy(weights.astype(np.float32))


def unet_cross_entropy(
    logits: Tensor,
    target: Tensor,
    *,
    background: int = 0,
    w0: float = 10.0,
    sigma: float = 5.0,
    ignore_index: int | None = IGNORE,
) -> Tensor:
    """Cross-entropy in which the ground between cells weighs more, as in U-Net; scalar, 0 is perfect.

    logits (n, k, h, w), target (n, h, w) int64. Cells are the pieces that hang together (by their sides) of all that
    is neither `background` nor ignored; their weights are those of `unet_weights`, which says what w0 and sigma are,
    with 1 for both classes. Needs the extra `metrics`. Source: U-Net (Ronneberger 2015), eq. 1 and 2.
    """
    ndimage = scipy_ndimage()
    cells = (target != background) & (target != (-1 if ignore_index is None else ignore_index))
    maps = [unet_weights(ndimage.label(mask)[0], w0=w0, sigma=sigma) for mask in cells.cpu().numpy()]
    weights = torch.stack(maps).to(logits.device)  # (n, h, w)
    return cross_entropy(logits, target, pixel_weights=weights, ignore_index=ignore_index)


def by_image_and_class(
    transform: Any, masks: Tensor, spacing: Sequence[float] | None, classes: Sequence[int] | None
) -> Tensor:
    """transform(mask (...), steps) for each mask of (n, k, ...) whose class takes part; float32, 0 elsewhere."""
    if masks.ndim not in (4, 5):
        raise InputError(f"distances need logits (n, k, h, w) or (n, k, d, h, w), got {tuple(masks.shape)}")
    steps = check_spacing(spacing, masks.ndim - 2)
    array = masks.cpu().numpy()
    result = np.zeros(array.shape, np.float32)
    for image in range(array.shape[0]):
        for c in range(array.shape[1]):
            mask = array[image, c]
            if (classes is None or c in classes) and mask.any() and not mask.all():
                result[image, c] = transform(mask, steps)
    return torch.from_numpy(result)


def signed_distance(mask: NDArray[np.bool_], steps: tuple[float, ...]) -> NDArray[np.float64]:
    """Distance to the boundary that runs between pixels, half a step nearer; negative inside the mask."""
    half = min(steps) / 2
    edt = scipy_ndimage().distance_transform_edt
    signed: NDArray[np.float64] = np.where(
        mask, half - edt(mask, sampling=steps), edt(~mask, sampling=steps) - half
    )
    return signed


def boundary_distance(mask: NDArray[np.bool_], steps: tuple[float, ...]) -> NDArray[np.float64]:
    """Distance to the nearest pixel on the other side of the mask's boundary."""
    edt = scipy_ndimage().distance_transform_edt
    distance: NDArray[np.float64] = edt(mask, sampling=steps) + edt(~mask, sampling=steps)
    return distance


def check_spacing(spacing: Sequence[float] | None, axes: int) -> tuple[float, ...]:
    """One positive step for each axis; 1 for all of them by default."""
    steps = (1.0,) * axes if spacing is None else tuple(float(step) for step in spacing)
    if len(steps) != axes or min(steps) <= 0:
        raise InputError(f"spacing must be {axes} positive numbers, got {steps}")
    return steps


def scipy_ndimage() -> Any:
    try:
        from scipy import ndimage  # type: ignore[import-untyped,unused-ignore]
    except ImportError:
        raise MissingExtraError("a distance transform", "metrics") from None
    return ndimage

"""Losses that look at how pixels lie together: centre lines (soft-clDice) and neighbourhoods (RMI).

Letters: n batch, k classes, ... spatial axes (h w, or d h w), v neighbours in a window, m windows.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from pixelwise.errors import InputError
from pixelwise.losses.inputs import IGNORE, Mode, Over, Reduction, full_precision, prepare, reduce_classes
from pixelwise.losses.region import Absent, sums, with_absent


@full_precision
def soft_cldice(
    logits: Tensor,
    target: Tensor,
    *,
    iterations: int = 3,
    smooth: float = 1.0,
    mode: Mode = "multiclass",
    over: Over = "image",
    absent: Absent | None = None,
    classes: Sequence[int] | None = None,
    ignore_index: int | None = IGNORE,
    reduction: Reduction = "mean",
) -> Tensor:
    """One minus the harmonic mean of how much of each centre line lies inside the other mask.

    precision = (sum S(p) t + s) / (sum S(p) + s), sensitivity = (sum S(t) p + s) / (sum S(t) + s), S the soft
    skeleton after `iterations` erosions: at least the largest radius of the vessels, in pixels. For tubes, so
    leave the background out by `classes`. logits (n, k, h, w) or (n, k, d, h, w); ignored pixels are taken as
    empty in prediction and target alike. The rest as for `dice`. In [0, 1], 0 is perfect.
    Source: clDice (Shit 2021), algorithms 1 and 2.
    """
    if logits.ndim not in (4, 5):
        raise InputError(f"soft_cldice needs 2 or 3 spatial axes, got logits of shape {tuple(logits.shape)}")
    if iterations < 0:
        raise InputError(f"iterations must be 0 or more, got {iterations}")
    inputs = prepare(logits, target, mode, ignore_index)
    of = sums(inputs, over)
    p = inputs.probabilities()
    t = inputs.hits().to(p)
    line_p, line_t = (soft_skeleton(map_.reshape(logits.shape), iterations).flatten(2) for map_ in (p, t))
    four = [(line_p * t).sum(2), line_p.sum(2), (line_t * p).sum(2), line_t.sum(2)]
    if over == "batch":
        four = [each.sum(0, keepdim=True) for each in four]
    inside_t, length_p, inside_p, length_t = four
    precision = (inside_t + smooth) / (length_p + smooth)
    sensitivity = (inside_p + smooth) / (length_t + smooth)
    both = precision + sensitivity
    loss = 1 - 2 * precision * sensitivity / both.where(both > 0, 1)
    return reduce_classes(*with_absent(loss, of, mode, absent), over, reduction, classes)


def soft_skeleton(maps: Tensor, iterations: int) -> Tensor:
    """Ridges of maps (n, k, h, w) or (n, k, d, h, w) in [0, 1]: what openings of growing size take away."""
    skeleton = (maps - soft_open(maps)).relu()
    for _ in range(iterations):
        maps = soft_erode(maps)
        ridge = (maps - soft_open(maps)).relu()
        skeleton = skeleton + (ridge - skeleton * ridge).relu()
    return skeleton


def soft_erode(maps: Tensor) -> Tensor:
    """Minimum over a pixel and its neighbours along the axes."""
    axes = maps.ndim - 2
    pool = F.max_pool2d if axes == 2 else F.max_pool3d
    smallest: Tensor | None = None
    for axis in range(axes):
        size = [3 if a == axis else 1 for a in range(axes)]
        along = -pool(-maps, size, 1, [side // 2 for side in size])
        smallest = along if smallest is None else torch.minimum(smallest, along)
    assert smallest is not None
    return smallest


def soft_open(maps: Tensor) -> Tensor:
    """Erosion, then the maximum over a pixel and all its neighbours."""
    pool = F.max_pool2d if maps.ndim == 4 else F.max_pool3d
    return pool(soft_erode(maps), 3, 1, 1)


@full_precision
def rmi(
    logits: Tensor,
    target: Tensor,
    *,
    window: int = 3,
    shrink: int = 3,
    ridge: float = 1e-4,
    mode: Mode = "multiclass",
    classes: Sequence[int] | None = None,
    ignore_index: int | None = IGNORE,
    reduction: Reduction = "mean",
) -> Tensor:
    """Region mutual information: how badly a neighbourhood of the prediction tells that of the target.

    Maps of each class are averaged over cells of `shrink` pixels; every window of `window` cells a side is a
    vector of v values. With C the covariance of the target's vectors given the prediction's (over the windows
    of an image, each touching no ignored pixel), the loss is (log det(C + r I) - v log r) / (2 v): the bound
    on minus the mutual information, shifted and scaled so that it is 0 where the prediction tells all; r is
    `ridge`. In float64 throughout. logits (n, k, h, w) or (n, k, d, h, w), at least window x shrink a side;
    target as for `dice`. A class without a pixel in the windows is left out. none: (n, k'). [0, inf), to be
    added to a cross-entropy (half and half in the paper): a prediction may tell all and be the wrong way round.
    Source: Region Mutual Information Loss (Zhao 2019), eq. 12 to 15.
    """
    axes = logits.ndim - 2
    if axes not in (2, 3) or min(logits.shape[2:]) < window * shrink:
        raise InputError(
            f"rmi needs 2 or 3 spatial axes of at least window x shrink = {window * shrink} pixels, "
            f"got logits of shape {tuple(logits.shape)}; choose a smaller window or shrink"
        )
    if window < 1 or shrink < 1 or ridge <= 0:
        raise InputError(
            f"window and shrink must be 1 or more, ridge above 0; got {window}, {shrink}, {ridge}"
        )
    inputs = prepare(logits, target, mode, ignore_index)
    n = len(logits)
    pool = F.avg_pool2d if axes == 2 else F.avg_pool3d
    p, t, counted = (
        pool(map_.double().reshape(n, -1, *logits.shape[2:]), shrink)
        for map_ in (inputs.probabilities(), inputs.hits(), inputs.counted_by_class())
    )
    whole = windows((counted > 1 - 1e-9).double(), window).amin(2, keepdim=True)  # (n, 1 or k, 1, m)
    size = whole.sum(3, keepdim=True)  # (n, 1 or k, 1, 1)
    share = whole / size.clamp(min=1)
    of_p, of_t = (windows(map_, window) for map_ in (p, t))  # (n, k, v, m)
    of_p, of_t = (map_ - (map_ * share).sum(3, keepdim=True) for map_ in (of_p, of_t))
    v = of_p.shape[2]
    eye = torch.eye(v, dtype=torch.float64, device=logits.device)
    pp, tp, tt = (
        (a * share) @ b.transpose(2, 3) for a, b in ((of_p, of_p), (of_t, of_p), (of_t, of_t))
    )  # (n, k, v, v)
    given = tt - tp @ torch.linalg.solve(pp + ridge * eye, tp.transpose(2, 3))
    given = (given + given.transpose(2, 3)) / 2 + ridge * eye
    log_det = 2 * torch.linalg.cholesky(given).diagonal(dim1=2, dim2=3).log().sum(2)  # (n, k)
    loss = (log_det - v * math.log(ridge)) / (2 * v)
    known = (windows(t, window) * whole).amax((2, 3)) > 0
    loss = loss.to(inputs.logits.dtype)
    return reduce_classes(loss, known & (size[:, :, 0, 0] > 0), "image", reduction, classes)


def windows(maps: Tensor, side: int) -> Tensor:
    """Every window of maps (n, k, ...) as a vector: (n, k, v, m), v = side to the number of axes."""
    spatial = maps.shape[2:]
    shifted = []
    for shift in itertools.product(range(side), repeat=len(spatial)):
        part = maps
        for axis, (start, length) in enumerate(zip(shift, spatial, strict=True), start=2):
            part = part.narrow(axis, start, length - side + 1)
        shifted.append(part)
    return torch.stack([each.flatten(2) for each in shifted], 2)

"""decide: coarse logits to a label map of any size, without ever building the logits at that size.

The definition is argmax over bilinear interpolation. Between four neighbouring coarse logits every
interpolated value is a weighted mean of the four, with the same weights for all classes. So where one class is
largest at all four corners it is largest everywhere between them (convexity), and only the cells on borders
between classes need arithmetic.

The same idea is written three times because three machines need it: compiled loops for the CPU (kernels.py),
plain NumPy for a cold start (numba costs half a second to import), and torch for a GPU. `decide` picks.
"""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
from array_api_compat import is_torch_array
from numpy.typing import NDArray

from pixelwise.errors import InputError
from pixelwise.exponential import exp_of_negative
from pixelwise.inference.axis import Axis, axis_of

NUMBA_PAYS_FROM_PIXELS = 3_000_000
"""NumPy is faster in total than importing numba until about this many pixels were decided in the process."""

_decided_by_numpy = 0


def decide(
    logits: Any, size_hw: tuple[int, int], *, align_corners: bool, confidence: bool = False
) -> tuple[Any, Any | None]:
    """The winning class of every pixel, and on request its softmax probability.

    logits: float (k, h, w) or (n, k, h, w), NumPy or torch, finite. size_hw: the size (H, W) of the result.
    align_corners: as in torch's bilinear interpolation. A single channel (k = 1) is the logit of class 1
    against a class 0 whose logit is zero.

    Returns class indices ([n,] H, W), the smallest unsigned type that holds k (torch: on the logits' device),
    and float32 probabilities of the same shape in (0, 1], or None. Equal logits: the lowest class.
    """
    if logits.ndim not in (3, 4):
        raise InputError(f"decide expects logits (k, h, w) or (n, k, h, w), got shape {tuple(logits.shape)}")
    if min(size_hw) < 1 or 0 in logits.shape:
        raise InputError(
            f"decide needs at least one pixel, got logits {tuple(logits.shape)} and size {size_hw}"
        )
    if is_torch_array(logits):
        if logits.device.type != "cpu":
            return _with_torch(logits, size_hw, align_corners, confidence)
        import torch

        values = logits.detach().float().numpy()
        labels, probability = decide(values, size_hw, align_corners=align_corners, confidence=confidence)
        return torch.from_numpy(labels), None if probability is None else torch.from_numpy(probability)
    if logits.ndim == 4:
        maps = [decide(one, size_hw, align_corners=align_corners, confidence=confidence) for one in logits]
        labels = np.stack([one for one, _ in maps])
        return labels, np.stack([p for _, p in maps if p is not None]) if confidence else None
    logits = np.ascontiguousarray(logits, np.float32)
    if logits.shape[0] == 1:
        logits = np.concatenate([np.zeros_like(logits), logits])
    rows = axis_of(logits.shape[1], size_hw[0], align_corners)
    columns = axis_of(logits.shape[2], size_hw[1], align_corners)
    labels = np.empty(size_hw, np.min_scalar_type(logits.shape[0] - 1))
    probability = np.empty(size_hw, np.float32) if confidence else None
    if _numba_pays(labels.size):
        _with_numba(logits, rows, columns, labels, probability)
    else:
        _with_numpy(logits, rows, columns, labels, probability)
    return labels, probability


def _numba_pays(pixels: int) -> bool:
    global _decided_by_numpy
    if "numba" in sys.modules:
        return True
    _decided_by_numpy += pixels
    return _decided_by_numpy > NUMBA_PAYS_FROM_PIXELS


def _with_numba(
    logits: NDArray[np.float32],
    rows: Axis,
    columns: Axis,
    labels: NDArray[Any],
    probability: NDArray[np.float32] | None,
) -> None:
    from pixelwise import kernels

    cells = (rows.start, rows.weight, columns.start, columns.weight, labels)
    height, width = logits.shape[1:]
    if probability is not None:
        kernels.in_bands(kernels.decide_rows_with_confidence, height, logits, *cells, probability)
        return
    coarse = np.empty((height, width), labels.dtype)
    kernels.in_bands(kernels.coarse_argmax, height, logits, np.empty((height, width), np.float32), coarse)
    kernels.in_bands(kernels.decide_rows, height, logits, coarse, *cells)


def _with_numpy(
    logits: NDArray[np.float32],
    rows: Axis,
    columns: Axis,
    labels: NDArray[Any],
    probability: NDArray[np.float32] | None,
) -> None:
    k, height, width = logits.shape
    coarse = logits.argmax(axis=0).astype(labels.dtype)
    below, beside = np.minimum(np.arange(height) + 1, height - 1), np.minimum(np.arange(width) + 1, width - 1)
    labels[:] = coarse[rows.cell][:, columns.cell]
    if probability is None:
        border = (
            (coarse != coarse[below]) | (coarse != coarse[:, beside]) | (coarse != coarse[below][:, beside])
        )
        at_row, at_column = np.nonzero(border[rows.cell][:, columns.cell])
    else:
        at_row, at_column = (index.ravel() for index in np.indices(labels.shape))
    flat = logits.reshape(k, -1)
    step = max(1, 4_000_000 // k)  # pixels at a time: bounds the memory
    for i in range(0, len(at_row), step):
        row, column = at_row[i : i + step], at_column[i : i + step]
        y, x, v, u = rows.cell[row], columns.cell[column], rows.weight[row], columns.weight[column]
        # In the order of the compiled loops, so that the values are theirs to the last bit.
        left = flat[:, y * width + x] * (1 - v) + flat[:, below[y] * width + x] * v
        right = flat[:, y * width + beside[x]] * (1 - v) + flat[:, below[y] * width + beside[x]] * v
        values = left * (1 - u) + right * u
        winner = values.argmax(axis=0)
        labels[row, column] = winner
        if probability is not None:
            most = values[winner, np.arange(len(row))]
            probability[row, column] = 1 / sum(exp_of_negative(one - most) for one in values)


def _with_torch(
    logits: Any, size_hw: tuple[int, int], align_corners: bool, confidence: bool
) -> tuple[Any, Any | None]:
    """On a GPU full logits of a few rows at a time are cheap; nothing visits the host."""
    import torch

    squeeze = logits.ndim == 3
    logits = (logits[None] if squeeze else logits).detach().float()
    if logits.shape[1] == 1:
        logits = torch.cat([torch.zeros_like(logits), logits], dim=1)
    n, k, h, w = logits.shape
    rows, columns = axis_of(h, size_hw[0], align_corners), axis_of(w, size_hw[1], align_corners)

    def tensor(values: NDArray[Any]) -> torch.Tensor:
        return torch.from_numpy(values).to(logits.device)

    x, u = tensor(columns.cell), tensor(columns.weight)
    dtype = torch.uint8 if k <= 256 else torch.uint16 if k <= 65536 else torch.int64
    labels = torch.empty((n, *size_hw), dtype=dtype, device=logits.device)
    probability = torch.empty((n, *size_hw), device=logits.device) if confidence else None
    band = max(1, 64_000_000 // (n * k * size_hw[1]))
    for i in range(0, size_hw[0], band):
        y, v = tensor(rows.cell[i : i + band]), tensor(rows.weight[i : i + band])[:, None]
        upper, lower = logits[:, :, y], logits[:, :, (y + 1).clamp_max(h - 1)]
        strip = upper * (1 - v) + lower * v
        values = strip[..., x] * (1 - u) + strip[..., (x + 1).clamp_max(w - 1)] * u
        labels[:, i : i + band] = values.argmax(dim=1)
        if probability is not None:
            probability[:, i : i + band] = values.softmax(dim=1).amax(dim=1)
    if squeeze:
        return labels[0], None if probability is None else probability[0]
    return labels, probability

"""The pairwise terms of a dense CRF: their parameters, the features of pixels, and what weighs the messages.

`crf.py` computes with them on NumPy arrays, `permutohedral.py` on torch tensors.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pixelwise.errors import InputError, UnknownNameError

Normalization = Literal["symmetric", "after", "before", "none"]
Std = float | Sequence[float]

TINY = np.float32(1e-20)
"""Added to the number of neighbours of a pixel before dividing by it."""


def check_normalization(name: str) -> None:
    if name not in get_args(Normalization):
        raise UnknownNameError("normalization", name, get_args(Normalization))


@dataclass(frozen=True)
class CRF:
    """The parameters of the two terms; the defaults are those of DeepLab on ResNet-101.

    bilateral, smoothness: the weights w1 and w2; 0 leaves the term out. Or a vector (k,) or matrix (k, k) of
    penalties that multiplies the filtered probabilities (so [x_i != x_j] is 1 minus the identity, or, which is
    the same, minus the identity); the matrix is made symmetric.
    bilateral_px, smoothness_px: standard deviations of position in pixels, one number or one an axis, in the
    order of the axes (y, x) or (z, y, x). bilateral_color: of colour, in the picture's own units, one number or
    one a channel.
    iterations: of mean field; 0 gives the softmax of the unary term.
    normalization: what is done with n = filter(1), the number of neighbours of a pixel. "symmetric" divides by
    its root before and after filtering (pydensecrf's default), "after" by it after filtering (DeepLab's Caffe
    layer), "before" before, "none" not at all.
    """

    bilateral: ArrayLike = 4.0
    bilateral_px: Std = 67.0
    bilateral_color: Std = 3.0
    smoothness: ArrayLike = 3.0
    smoothness_px: Std = 1.0
    iterations: int = 10
    normalization: Normalization = "symmetric"

    def __post_init__(self) -> None:
        if self.iterations < 0:
            raise InputError(f"CRF iterations must be 0 or more, got {self.iterations}")
        check_normalization(self.normalization)


RESNET = CRF()
"""For DeepLab on ResNet-101, as the PyTorch port that reports 77.93 on VOC with it, through pydensecrf."""
VGG = CRF(4.0, 49.0, 5.0, 3.0, 3.0, 10, "after")
"""For DeepLab on VGG-16, as its run scripts; the Caffe layer normalises after filtering."""
PRESETS = {"vgg": VGG, "resnet": RESNET}


def preset(crf: CRF | str) -> CRF:
    """A CRF by its name, "vgg" or "resnet", or as it is; UnknownNameError for other names."""
    if isinstance(crf, CRF):
        return crf
    if crf not in PRESETS:
        raise UnknownNameError("CRF", crf, PRESETS)
    return PRESETS[crf]


def message_matrix(compat: ArrayLike, classes: int) -> NDArray[np.float32]:
    """What turns filtered probabilities into what is added to the logits: (), or (k, k) symmetric.

    A number w is Potts' penalty for different labels. The sum over all labels is the same for each, so that
    what is left of it is a bonus, w times the label's own filtered probability. Vectors and matrices are
    penalties as they stand, with a minus.
    """
    values = np.asarray(compat, np.float32)
    if values.shape not in ((), (classes,), (classes, classes)) or not np.isfinite(values).all():
        raise InputError(
            f"compat must be a number, a vector ({classes},) or a matrix ({classes}, {classes}), all finite; "
            f"got shape {values.shape}"
        )
    if values.ndim == 0:
        return values
    return -np.diag(values) if values.ndim == 1 else -(values + values.T) / 2


def position_features(
    shape: Sequence[int], std_px: Std, start: Sequence[int] | None = None
) -> NDArray[np.float32]:
    """Features (n, axes) of the pixels of a grid: coordinates over std_px, the last axis (x) first.

    start: the coordinates of the first pixel, so that a tile lies in the lattice of its picture.
    """
    std = _per("axis", std_px, len(shape))
    columns = []
    for axis in reversed(range(len(shape))):
        first = start[axis] if start is not None else 0
        along = np.arange(first, first + shape[axis], dtype=np.float32) / std[axis]
        columns.append(
            np.broadcast_to(np.expand_dims(along, [i for i in range(len(shape)) if i != axis]), shape)
        )
    return np.stack(columns, axis=-1).reshape(-1, len(shape))


def bilateral_features(
    image: NDArray[Any], std_px: Std, std_color: Std, start: Sequence[int] | None = None
) -> NDArray[np.float32]:
    """Features (n, axes + c) of the pixels of an image (..., c): position, then colour over std_color."""
    *shape, channels = image.shape
    colors = image.reshape(-1, channels).astype(np.float32) / _per("channel", std_color, channels)
    return np.concatenate([position_features(shape, std_px, start), colors], axis=1)


def terms_of(
    crf: CRF, image: NDArray[Any], start: Sequence[int] | None = None
) -> Iterator[tuple[NDArray[np.float32], ArrayLike]]:
    """Features and weights of the terms that count: smoothness, then bilateral."""
    if np.any(crf.smoothness):
        yield position_features(image.shape[:-1], crf.smoothness_px, start), crf.smoothness
    if np.any(crf.bilateral):
        yield bilateral_features(image, crf.bilateral_px, crf.bilateral_color, start), crf.bilateral


def _per(what: str, std: Std, count: int) -> NDArray[np.float32]:
    """One positive standard deviation for each axis or channel."""
    values = np.asarray(std, np.float32)
    if values.shape not in ((), (count,)) or not (values > 0).all():
        raise InputError(
            f"a standard deviation must be positive, one number or one for each {what} ({count}), got {std}"
        )
    return np.broadcast_to(values, (count,))

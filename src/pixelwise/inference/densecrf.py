"""pydensecrf's names and argument orders on top of `pixelwise.inference.crf`, so that its users can move.

    import pydensecrf.densecrf as dcrf        ->  from pixelwise.inference import densecrf as dcrf
    from pydensecrf.utils import ...          ->  from pixelwise.inference.densecrf import ...

Matrices are plain NumPy arrays. Images may have any number of channels and any type; arrays need not be
contiguous. pydensecrf can also learn kernels (kernel=DIAG_KERNEL, FULL_KERNEL); they start as the identity, so
that inference is the same, and so the argument is accepted and ignored here.

Letters: n points, k classes (pydensecrf: n labels), d features.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pixelwise.errors import InputError
from pixelwise.inference.crf import MeanField, columns_of, rows_of
from pixelwise.inference.terms import Normalization, Std, bilateral_features, position_features

CONST_KERNEL, DIAG_KERNEL, FULL_KERNEL = "const", "diag", "full"
NO_NORMALIZATION: Normalization = "none"
NORMALIZE_BEFORE: Normalization = "before"
NORMALIZE_AFTER: Normalization = "after"
NORMALIZE_SYMMETRIC: Normalization = "symmetric"


class DenseCRF:
    """A fully connected CRF over `nvar` points with `nlabels` classes."""

    def __init__(self, nvar: int, nlabels: int) -> None:
        self._shape = (nlabels, nvar)
        self._field: MeanField | None = None
        self._pairwise: list[tuple[NDArray[np.float32], ArrayLike, Normalization]] = []

    def setUnaryEnergy(self, u: NDArray[Any]) -> None:
        """u: energies, -log of probabilities, (k, n)."""
        if u.shape != self._shape:
            raise InputError(
                f"the unary must be (classes, points) = {self._shape}, got {u.shape}; reshape it"
            )
        self._field = MeanField(rows_of(u), self._shape[0])
        for features, compat, normalization in self._pairwise:
            self._field.add(features, compat, normalization)

    def addPairwiseEnergy(
        self,
        feats: NDArray[Any],
        compat: ArrayLike,
        kernel: object = DIAG_KERNEL,
        normalization: Normalization = NORMALIZE_SYMMETRIC,
    ) -> None:
        """feats: (d, n), each over its standard deviation. compat: a number w > 0 rewards equal labels; a
        vector (k,) or matrix (k, k) is a penalty, so that agreement needs negative values on the diagonal."""
        term = (np.ascontiguousarray(feats.T, np.float32), compat, normalization)
        self._pairwise.append(term)
        if self._field is not None:
            self._field.add(*term)

    def inference(self, niter: int) -> NDArray[np.float32]:
        """The probabilities (k, n) after `niter` iterations."""
        q = self._ready.start()
        for _ in range(niter):
            self._ready.step(q)
        return columns_of(q, self._shape[0])

    def startInference(self) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]:
        """The probabilities (k, n) before the first iteration, and two arrays of no meaning for stepInference."""
        nothing = np.empty((0, 0), np.float32)
        return self.inference(0), nothing, nothing

    def stepInference(self, q: NDArray[np.float32], tmp1: Any = None, tmp2: Any = None) -> None:
        """One iteration of the probabilities q (k, n), in place."""
        rows = self._padded(q)
        self._ready.step(rows)
        q[:] = rows[:, : self._shape[0]].T

    def klDivergence(self, q: NDArray[np.float32]) -> float:
        """How far q (k, n) is from the CRF's distribution, up to a constant; see MeanField.kl_divergence."""
        return self._ready.kl_divergence(self._padded(q))

    @property
    def _ready(self) -> MeanField:
        if self._field is None:
            raise InputError("the CRF has no unary energies yet; call setUnaryEnergy first")
        return self._field

    def _padded(self, q: NDArray[np.float32]) -> NDArray[np.float32]:
        rows = np.zeros_like(self._ready.base)
        rows[:, : self._shape[0]] = q.T
        return rows


class DenseCRF2D(DenseCRF):
    """A fully connected CRF over the pixels of a picture, row by row; the width comes first, as in pydensecrf."""

    def __init__(self, w: int, h: int, nlabels: int) -> None:
        super().__init__(w * h, nlabels)
        self._size_hw = (h, w)

    def addPairwiseGaussian(
        self,
        sxy: Std,
        compat: ArrayLike,
        kernel: object = DIAG_KERNEL,
        normalization: Normalization = NORMALIZE_SYMMETRIC,
    ) -> None:
        """The smoothness term; sxy: standard deviation in pixels, or (x, y)."""
        features = position_features(self._size_hw, _yx(sxy))
        self.addPairwiseEnergy(features.T, compat, kernel, normalization)

    def addPairwiseBilateral(
        self,
        sxy: Std,
        srgb: Std,
        rgbim: NDArray[Any],
        compat: ArrayLike,
        kernel: object = DIAG_KERNEL,
        normalization: Normalization = NORMALIZE_SYMMETRIC,
    ) -> None:
        """The bilateral term; srgb: standard deviation of colour, or one a channel; rgbim: (h, w, c)."""
        if rgbim.ndim != 3 or rgbim.shape[:2] != self._size_hw:
            raise InputError(
                f"the image must be (h, w, c) = {(*self._size_hw, 'c')}, got {rgbim.shape}; DenseCRF2D(w, h, labels) "
                "takes the width first"
            )
        features = bilateral_features(rgbim, _yx(sxy), srgb)
        self.addPairwiseEnergy(features.T, compat, kernel, normalization)


def unary_from_softmax(
    sm: NDArray[Any], scale: float | None = None, clip: float | None = 1e-5
) -> NDArray[np.float32]:
    """Energies (k, n) of probabilities (k, ...), -log of them, clipped from below.

    scale: in (0, 1], how far the probabilities are trusted: scale * sm + (1 - scale) / k.
    """
    k = sm.shape[0]
    if scale is not None:
        if not 0 < scale <= 1:
            raise InputError(f"scale must lie in (0, 1], got {scale}")
        sm = scale * sm + (1 - scale) / k
    if clip is not None:
        sm = np.clip(sm, clip, 1.0)
    energies: NDArray[np.float32] = -np.log(sm).reshape(k, -1).astype(np.float32)
    return energies


def unary_from_labels(
    labels: NDArray[Any], n_labels: int, gt_prob: float, zero_unsure: bool = True
) -> NDArray[np.float32]:
    """Energies (k, n) of a label map of any shape whose labels are right with probability gt_prob in (0, 1).

    zero_unsure: 0 means that nothing is known, and the classes are 1 .. n_labels; else they are 0 .. n_labels - 1.
    """
    if not 0 < gt_prob < 1:
        raise InputError(f"gt_prob must lie between 0 and 1, got {gt_prob}")
    flat = np.asarray(labels).reshape(-1).astype(np.int64)
    lowest, highest = (0, n_labels) if zero_unsure else (0, n_labels - 1)
    if flat.size and (flat.min() < lowest or flat.max() > highest):
        raise InputError(f"labels must lie in {lowest} .. {highest}, got {flat.min()} .. {flat.max()}")
    energies = np.full((n_labels, flat.size), -np.log((1 - gt_prob) / max(n_labels - 1, 1)), np.float32)
    known = np.flatnonzero(flat) if zero_unsure else np.arange(flat.size)
    energies[flat[known] - int(zero_unsure), known] = -np.log(gt_prob)
    if zero_unsure:
        energies[:, flat == 0] = -np.log(1 / n_labels)
    return energies


def create_pairwise_gaussian(sdims: Sequence[float], shape: Sequence[int]) -> NDArray[np.float32]:
    """Features (axes, n) for addPairwiseEnergy: coordinates over sdims, both in the order of the axes (y, x)."""
    return np.ascontiguousarray(position_features(shape, sdims).T[::-1])


def create_pairwise_bilateral(
    sdims: Sequence[float], schan: Std, img: NDArray[Any], chdim: int = -1
) -> NDArray[np.float32]:
    """Features (axes + c, n): coordinates over sdims in the order of the axes, then channels over schan.

    chdim: the axis of the channels; -1, and this is pydensecrf's convention, says that there is none.
    """
    image = img[..., None] if chdim == -1 else np.moveaxis(img, chdim, -1)
    axes = image.ndim - 1
    features = bilateral_features(image, sdims, schan).T
    return np.ascontiguousarray(np.concatenate([features[:axes][::-1], features[axes:]]))


def _yx(sxy: Std) -> Std:
    """(x, y) to the order of the axes."""
    return sxy if isinstance(sxy, (int, float, np.number)) else tuple(reversed(sxy))

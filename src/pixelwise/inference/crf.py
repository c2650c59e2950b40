"""The fully connected CRF of DeepLab: labels that follow the edges of the picture.

Every pixel is connected with every other, the more strongly the nearer they are in position and colour
(bilateral term), or in position alone (smoothness term). The energy of a labelling x is

    E(x) = sum_i u_i(x_i) + sum_{i<j} [x_i != x_j] k(i, j)
    k(i, j) = w1 exp(-|p_i - p_j|^2 / (2 a^2) - |I_i - I_j|^2 / (2 b^2)) + w2 exp(-|p_i - p_j|^2 / (2 g^2))

and mean field inference repeats Q = softmax(-u + w1 filter1(Q) + w2 filter2(Q)): agreement with the
neighbourhood is rewarded. `lattice.py` filters in time and memory linear in the pixels.

>>> import numpy as np
>>> from pixelwise.inference.crf import dense_crf
>>> from pixelwise.inference.terms import CRF
>>> picture = np.zeros((40, 60, 3), np.uint8); picture[:, 30:] = 200
>>> energy = np.random.default_rng(0).random((2, 40, 60)); energy[1, :, 30:] -= 0.3; energy[0, :, :30] -= 0.3
>>> dense_crf(energy, picture, CRF(bilateral_px=20)).argmax(axis=0)[5, [0, 29, 30, 59]]
array([0, 0, 1, 1])

Sources: Kraehenbuehl, Koltun, Efficient Inference in Fully Connected CRFs with Gaussian Edge Potentials (2011);
Chen et al., DeepLab (2015, 2017). As in both code bases, and unlike the paper, a pixel also is its own
neighbour. `densecrf.py` has pydensecrf's names for the same thing, `permutohedral.py` the torch twin.

Letters: n pixels, k classes; spatial shapes are (h, w) or (d, h, w), colours come last, as in pictures.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from array_api_compat import array_namespace, device, is_torch_array
from numpy.typing import ArrayLike, NDArray

from pixelwise.errors import InputError
from pixelwise.inference.axis import axis_of
from pixelwise.inference.lattice import LANES, Lattice, columns, interpolate, softmax_into
from pixelwise.inference.terms import (
    CRF,
    RESNET,
    TINY,
    Normalization,
    check_normalization,
    message_matrix,
    terms_of,
)
from pixelwise.inference.tiling import Predict, enlarge
from pixelwise.kernels import in_bands

IMPOSSIBLE = np.float32(-1e30)
"""The logit of what cannot be."""


def dense_crf(
    unary: Any, image: Any, crf: CRF = RESNET, *, tile_px: int | None = None, margin_px: int | None = None
) -> Any:
    """The probabilities of the classes after mean field inference.

    unary: energies (k, h, w) or (k, d, h, w), -log of probabilities or minus the logits, NumPy or torch.
    image: (h, w[, c]) or (d, h, w[, c]) of any number of channels, in the units of crf.bilateral_color.
    Returns float32 of the unary's shape, sums over k are 1; a torch tensor on the unary's device if that is
    one (on a GPU everything is computed there, without tiles).

    tile_px: work on tiles of this side, each seen together with margin_px more on every side (default: twice
    the largest standard deviation of position), so that what is needed beside the result is bounded. An
    approximation: what lies beyond the margin counts for nothing. On a photograph of 400 x 600 pixels with tiles
    of 200, 99.9 % of the labels were those of the whole picture with the default margin, 99.4 % with half of it.
    """
    shape = check_shapes(unary, image)
    if is_torch_array(unary):
        import torch

        if unary.device.type != "cpu":
            return _with_torch(unary, image, crf)
        picture = image.detach().numpy() if is_torch_array(image) else image
        values = unary.detach().float().numpy()
        return torch.from_numpy(dense_crf(values, picture, crf, tile_px=tile_px, margin_px=margin_px))
    unary, image = np.asarray(unary), np.asarray(image).reshape(*shape, -1)
    k = len(unary)
    out = np.empty(unary.shape, np.float32)
    for inner, outer, core in tiles(shape, tile_px, _margin(crf, margin_px)):
        seen, result = (slice(None), *outer), (slice(None), *inner)
        part = unary[seen]
        rows = _refined(rows_of(part.reshape(k, -1)), k, image[outer], crf, [s.start for s in outer])
        within = (slice(None), *core)
        out[result] = columns_of(rows, k).reshape(part.shape)[within]
    return out


def crf_refine(
    logits: Any,
    image: NDArray[np.uint8],
    crf: CRF = RESNET,
    *,
    align_corners: bool,
    tile_px: int | None = None,
    margin_px: int | None = None,
    out: NDArray[np.float32] | None = None,
) -> tuple[NDArray[Any], NDArray[np.float32]]:
    """A network's coarse logits to class indices and confidences at the picture's size, through the CRF.

    logits: float (k, h', w'), any stride; one channel is the logit of class 1 against a class 0 whose logit is
    zero. image: uint8 (h, w, c). Bilinear interpolation (align_corners as in torch), then mean field.
    tile_px, margin_px: as in `dense_crf`; the logits are interpolated tile by tile, so that memory beside the
    two results is bounded. out: float32 (k, h, w) that receives the probabilities of all classes.

    Returns indices (h, w) of the smallest unsigned type that holds k, equal probabilities to the lowest, and
    the winners' probabilities, float32 in (0, 1].
    """
    if is_torch_array(logits):
        logits = logits.detach().float().cpu().numpy()
    if logits.ndim != 3 or 0 in logits.shape or image.ndim != 3 or 0 in image.shape:
        raise InputError(
            f"crf_refine expects logits (k, h', w') and an image (h, w, c), got {logits.shape} and {image.shape}"
        )
    if len(logits) == 1:
        logits = np.concatenate([np.zeros_like(logits), logits])
    k, size_hw = len(logits), image.shape[:2]
    coarse = rows_of(-logits.reshape(k, -1)).reshape(*logits.shape[1:], -1)
    axes = [axis_of(n, size, align_corners) for n, size in zip(logits.shape[1:], size_hw, strict=True)]
    labels = np.empty(size_hw, np.min_scalar_type(k - 1))
    confidence = np.empty(size_hw, np.float32)
    for inner, outer, core in tiles(size_hw, tile_px, _margin(crf, margin_px)):
        row, column = outer
        height, width = row.stop - row.start, column.stop - column.start
        fine = np.empty((height * width, coarse.shape[-1]), np.float32)
        in_bands(
            interpolate, height, coarse,
            axes[0].cell[row], axes[0].weight[row], axes[1].cell[column], axes[1].weight[column], fine,
        )  # fmt: skip
        fine = _refined(fine, k, image[outer], crf, [row.start, column.start])
        grid = fine.reshape(height, width, -1)[core]
        labels[inner] = grid.argmax(axis=-1)
        confidence[inner] = grid.max(axis=-1)
        if out is not None:
            where = (slice(None), *inner)
            out[where] = np.moveaxis(grid[..., :k], -1, 0)
    return labels, confidence


def refined(
    predict: Predict, crf: CRF = RESNET, *, mean: Sequence[float], std: Sequence[float], align_corners: bool
) -> Predict:
    """`predict` followed by the CRF: (n, c, h, w) to log-probabilities (n, k, h, w), which are logits like any other.

    As a Predict it composes with tiles: each is refined with what it sees of the picture, and the answers are blended
    as always. mean, std: of `Preprocess`, so that the CRF sees colours of 0 to 255 again. A single logit becomes two.
    """

    def answer(images: Any) -> Any:
        logits = predict(images)
        xp, place = array_namespace(logits), device(logits)
        images = xp.asarray(images, device=place)
        if logits.shape[1] == 1:
            logits = xp.concat([xp.zeros_like(logits), logits], axis=1)
        scale, shift = (
            xp.asarray(np.reshape(np.float32(255) * np.asarray(v, np.float32), (-1, 1, 1)), device=place)
            for v in (std, mean)
        )
        answers = []
        for one, image in zip(logits, images, strict=True):
            fine = enlarge(one, image.shape[1:], align_corners=align_corners)
            answers.append(dense_crf(-fine, xp.permute_dims(image * scale + shift, (1, 2, 0)), crf))
        return xp.log(xp.clip(xp.stack(answers), float(TINY), 1.0))

    return answer


class MeanField:
    """Mean field inference over n points with any number of pairwise terms; `dense_crf` and `DenseCRF` use it.

    base: minus the energies as rows (n, k padded), what is padded impossible: see `rows_of`.
    """

    def __init__(self, base: NDArray[np.float32], classes: int) -> None:
        self.base = base
        self.classes = classes
        self.terms: list[_Term] = []

    def add(self, features: NDArray[np.float32], compat: ArrayLike, normalization: Normalization) -> None:
        """Add a pairwise term. features (n, d), divided by their standard deviations; compat as in `CRF`."""
        check_normalization(normalization)
        if features.ndim != 2 or len(features) != len(self.base):
            raise InputError(
                f"features must be (n, d) of the unary's {len(self.base)} points, got {features.shape}"
            )
        matrix = message_matrix(compat, self.classes)
        lattice = Lattice.of(features)
        if normalization != "none":
            mass = lattice.mass + TINY
            norm = 1 / (np.sqrt(mass) if normalization == "symmetric" else mass)
            lattice = lattice.scaled(
                before=1.0 if normalization == "after" else norm,
                after=1.0 if normalization == "before" else norm,
            )
        if matrix.ndim == 0:
            self.terms.append(_Term(lattice.scaled(after=matrix)))
        else:
            extra = self.base.shape[1] - self.classes
            self.terms.append(_Term(lattice, np.pad(matrix, (0, extra))))

    def start(self) -> NDArray[np.float32]:
        """Q = softmax(-u), as rows (n, k padded)."""
        q = np.empty_like(self.base)
        softmax_into(q, self.base)
        return q

    def step(self, q: NDArray[np.float32]) -> None:
        """One iteration, all pixels at once, in place."""
        messages = [term.message(q) for term in self.terms]
        sums = self.base
        for i, (term, values) in enumerate(zip(self.terms, messages, strict=True), start=1):
            term.lattice.slice_into(q, values, sums, softmax=i == len(self.terms))
            sums = q

    def kl_divergence(self, q: NDArray[np.float32]) -> float:
        """What pydensecrf calls the KL divergence: sum of Q log Q + Q u - Q message, up to the partition function.

        Every pair is counted from both sides and each pixel with itself.
        """
        total = float(
            (q * np.log(np.maximum(q, TINY))).sum(dtype=np.float64) - (q * self.base).sum(dtype=np.float64)
        )
        for term in self.terms:
            message = np.zeros_like(q)
            term.lattice.slice_into(message, term.message(q), message)
            total -= float((q * message).sum(dtype=np.float64))
        return total


@dataclass(frozen=True)
class _Term:
    """A pairwise term: its filter, and the (k, k) matrix that makes messages of it if that is not a factor."""

    lattice: Lattice
    matrix: NDArray[np.float32] | None = None

    def message(self, q: NDArray[np.float32]) -> NDArray[np.float32]:
        values = self.lattice.splat_and_blur(q)
        return values if self.matrix is None else values @ self.matrix  # symmetric: no transpose


def rows_of(unary: NDArray[Any]) -> NDArray[np.float32]:
    """The rows of `MeanField`: minus the energies (k, n), pixel by pixel, padded to whole vectors."""
    k, n = unary.shape
    rows = np.full((n, -(-k // LANES) * LANES), IMPOSSIBLE, np.float32)
    np.negative(unary.T, out=rows[:, :k], casting="same_kind")
    np.maximum(rows, IMPOSSIBLE, out=rows)  # infinite energies stay finite, NaN stays
    if np.isnan(rows).any():
        raise InputError("the unary energies hold NaN; give finite energies, or infinity for what cannot be")
    return rows


def columns_of(rows: NDArray[np.float32], k: int) -> NDArray[np.float32]:
    """Rows (n, k padded) as (k, n)."""
    out = np.empty((k, len(rows)), np.float32)
    in_bands(columns, len(rows), rows, out)
    return out


def check_shapes(unary: Any, image: Any) -> tuple[int, ...]:
    """The spatial shape of a picture or volume and its energies, which must fit."""
    shape = tuple(unary.shape[1:])
    if len(shape) not in (2, 3) or 0 in unary.shape:
        raise InputError(f"dense_crf expects energies (k, h, w) or (k, d, h, w), got {tuple(unary.shape)}")
    if tuple(image.shape) != shape and tuple(image.shape[:-1]) != shape:
        raise InputError(
            f"the image must be {shape} or {(*shape, 'c')} to fit energies {tuple(unary.shape)}, got "
            f"{tuple(image.shape)}; colours come last"
        )
    return shape


def tiles(
    shape: Sequence[int], tile_px: int | None, margin_px: int
) -> Iterator[tuple[tuple[slice, ...], tuple[slice, ...], tuple[slice, ...]]]:
    """Cut a picture into tiles: where each lies, where it lies with its margin, where the former is in the latter."""
    if tile_px is None:
        tile_px = max(shape)
    if tile_px < 1 or margin_px < 0:
        raise InputError(
            f"tile_px must be at least 1 and margin_px not negative, got {tile_px} and {margin_px}"
        )
    for corner in np.ndindex(*(-(-side // tile_px) for side in shape)):
        inner, outer, core = [], [], []
        for i, side in zip(corner, shape, strict=True):
            a, b = i * tile_px, min((i + 1) * tile_px, side)
            first = max(a - margin_px, 0)
            inner.append(slice(a, b))
            outer.append(slice(first, min(b + margin_px, side)))
            core.append(slice(a - first, b - first))
        yield tuple(inner), tuple(outer), tuple(core)


def _margin(crf: CRF, margin_px: int | None) -> int:
    if margin_px is not None:
        return margin_px
    return int(np.ceil(2 * max(np.max(crf.bilateral_px), np.max(crf.smoothness_px))))


def _refined(
    base: NDArray[np.float32], k: int, image: NDArray[Any], crf: CRF, start: Sequence[int]
) -> NDArray[np.float32]:
    """Probabilities, as rows, of a picture or tile whose first pixel is `start`."""
    field = MeanField(base, k)
    for features, compat in terms_of(crf, image, start):
        field.add(features, compat, crf.normalization)
    q = field.start()
    for _ in range(crf.iterations):
        field.step(q)
    return q


def _with_torch(unary: Any, image: Any, crf: CRF) -> Any:
    import torch

    from pixelwise.inference import permutohedral

    k, *shape = unary.shape
    picture = torch.as_tensor(image).to(unary.device).reshape(*shape, -1)
    terms = permutohedral.terms(picture, crf, k)
    logits = -unary.detach().float().reshape(k, -1).T
    return permutohedral.mean_field(logits, terms, crf.iterations).softmax(dim=1).T.reshape(unary.shape)

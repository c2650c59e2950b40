"""The dense CRF in torch: the same lattice and mean field as `inference/crf.py`, differentiable, on any device.

`CRFasRNN` is the layer of Zheng et al., Conditional Random Fields as Recurrent Neural Networks (2015): mean field
unrolled, with weights and compatibilities that are learnt. Gradients reach the logits and those parameters; the
picture that makes the lattice gets none. On the CPU without gradients `inference/crf.py` is several times faster.

Letters: n points, d features, m vertices, k classes, b pictures of a batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from pixelwise.errors import InputError
from pixelwise.inference.lattice import codes, scales, steps
from pixelwise.inference.terms import CRF, RESNET, TINY, Normalization, message_matrix, terms_of


@dataclass(frozen=True)
class Lattice:
    """As `pixelwise.inference.lattice.Lattice`, but that vertices are numbered by their codes.

    vertex (n, d + 1) int64 and weight (n, d + 1): the simplex of each point. neighbour (d + 1, 2, m) int64, m
    where there is none. before, after (n, 1): what a filter multiplies by.
    """

    vertex: Tensor
    weight: Tensor
    neighbour: Tensor
    before: Tensor
    after: Tensor

    @staticmethod
    def of(
        features: NDArray[Any], device: torch.device | str, normalization: Normalization = "none"
    ) -> Lattice:
        """The lattice of NumPy features (n, d), computed on `device`; float32 gives the simplices of NumPy's."""
        d = features.shape[1]
        code = torch.from_numpy(codes(features.min(axis=0), features.max(axis=0))).to(device)
        step = torch.from_numpy(steps(code.cpu().numpy())).to(device)
        points = torch.from_numpy(features).to(device)
        names, weight = _enclose(points, torch.from_numpy(scales(d)).to(points), code)
        number, vertex = torch.unique(names, return_inverse=True)  # sorted
        beside = number + torch.stack([step, -step], dim=1)[..., None]  # (d + 1, 2, m)
        place = torch.searchsorted(number, beside).clamp_max(len(number) - 1)
        neighbour = torch.where(number[place] == beside, place, len(number))
        one = torch.ones_like(weight[:, :1])
        lattice = Lattice(vertex, weight, neighbour, one, one / (1 + 2.0**-d))
        if normalization == "none":
            return lattice
        mass = lattice.filter(one) + float(TINY)
        norm = mass.rsqrt() if normalization == "symmetric" else mass.reciprocal()
        before, after = lattice.before, lattice.after
        return Lattice(
            vertex,
            weight,
            neighbour,
            before if normalization == "after" else before * norm,
            after if normalization == "before" else after * norm,
        )

    def filter(self, rows: Tensor) -> Tensor:
        """Filter rows (n, k); differentiable in them."""
        filtered: Tensor = _Filter.apply(rows, self, False)
        return filtered


class _Filter(torch.autograd.Function):
    """after slice(blur(splat(before rows))); its gradient is the transpose: the blurs in reverse order, before
    and after exchanged. Nothing is kept for it but the lattice."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, lattice: Lattice, transposed: bool) -> Tensor:
        ctx.lattice, ctx.transposed = lattice, transposed
        before, after, directions = lattice.before, lattice.after, lattice.neighbour
        if transposed:
            before, after, directions = after, before, directions.flip(0)
        rows = rows * before
        # The last row is where nothing is
        values = rows.new_zeros(lattice.neighbour.shape[-1] + 1, rows.shape[1])
        for corner, weight in zip(lattice.vertex.unbind(1), lattice.weight.unbind(1), strict=True):
            values.index_add_(0, corner, rows * weight[:, None])
        for left, right in directions:
            values[:-1] += 0.5 * (values[left] + values[right])
        out = torch.zeros_like(rows)
        for corner, weight in zip(lattice.vertex.unbind(1), lattice.weight.unbind(1), strict=True):
            out += values[corner] * weight[:, None]
        return out * after

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        rows: Tensor = _Filter.apply(gradients[0], ctx.lattice, not ctx.transposed)
        return rows, None, None


def _enclose(features: Tensor, scale: Tensor, code: Tensor) -> tuple[Tensor, Tensor]:
    """The codes (n, d + 1) of the vertices around each point, and their weights; as the NumPy twin, step by step."""
    d = features.shape[1]
    lifted, tail = [], torch.zeros_like(features[:, 0])
    for i in range(d, 0, -1):
        f = features[:, i - 1] * scale[i - 1]
        lifted.append(tail - i * f)
        tail = tail + f
    up = torch.stack([tail, *reversed(lifted)], dim=1)  # (n, d + 1)
    one_by = torch.ones_like(tail) / (d + 1)
    nearest = (up * one_by[:, None]).round()
    rounded = nearest * (d + 1)
    rest = up - rounded
    rank = torch.zeros_like(up, dtype=torch.int64)
    for i in range(d):
        smaller = rest[:, i, None] < rest[:, i + 1 :]
        rank[:, i] += smaller.sum(dim=1)
        rank[:, i + 1 :] += ~smaller
    rank += nearest.sum(dim=1, keepdim=True).long()
    wrap = (rank < 0).long() - (rank > d).long()
    rank += wrap * (d + 1)
    rounded += wrap * (d + 1)
    rest = (up - rounded) * one_by[:, None]
    share = torch.zeros(len(up), d + 2, dtype=up.dtype, device=up.device)
    share.scatter_add_(1, d - rank, rest)
    share.scatter_add_(1, d - rank + 1, -rest)
    share[:, 0] += 1 + share[:, d + 1]
    r = torch.arange(d + 1, device=up.device)
    base = (rounded[:, :d].long() * code).sum(dim=1, keepdim=True)
    names = base + r * code.sum()
    for i in range(d):  # minus d + 1 where the rank is above d - r
        names -= (rank[:, i, None] > d - r) * (code[i] * (d + 1))
    return names, share[:, : d + 1]


def mean_field(logits: Tensor, terms: Sequence[tuple[Lattice, Tensor]], iterations: int) -> Tensor:
    """Refined logits (n, k) of logits (n, k), minus the unary energies; their softmax are the probabilities.

    terms: lattices and what makes messages of what they filter, a number () or a matrix (k, k) that the
    filtered rows are multiplied with from the right.
    """
    refined = logits
    for _ in range(iterations):
        q = refined.softmax(dim=1)
        refined = logits
        for lattice, matrix in terms:
            filtered = lattice.filter(q)
            refined = refined + (filtered * matrix if matrix.ndim == 0 else filtered @ matrix)
    return refined


def terms(image: Tensor, crf: CRF, classes: int) -> list[tuple[Lattice, Tensor]]:
    """The pairwise terms of `crf` for an image (h, w, c) or (d, h, w, c), on its device."""
    return [
        (
            Lattice.of(features, image.device, crf.normalization),
            torch.from_numpy(message_matrix(compat, classes)).to(image.device),
        )
        for features, compat in terms_of(crf, image.detach().cpu().numpy())
    ]


class CRFasRNN(nn.Module):
    """Mean field as a layer: logits (b, k, h, w) and images (b, c, h, w) to refined logits, 3-D alike.

    crf: where learning starts, and what stays as it is: standard deviations, iterations, normalisation. Images
    have the units of crf.bilateral_color (0 to 255), not those of the network.

    Parameters: `smoothness` and `bilateral` (k, k) weigh what each filter gives for each class, at first the
    weights of `crf` times the identity; `compatibility` (k, k) is the penalty of two labels, at first minus the
    identity. The last iteration's logits are returned, so that any loss of logits follows.
    """

    def __init__(self, num_classes: int, crf: CRF = RESNET) -> None:
        super().__init__()
        if not all(isinstance(w, (int, float)) and w > 0 for w in (crf.smoothness, crf.bilateral)):
            raise InputError("CRFasRNN learns from numbers: give crf.smoothness and crf.bilateral above 0")
        self.crf = crf
        identity = torch.eye(num_classes)
        self.smoothness = nn.Parameter(float(crf.smoothness) * identity)  # type: ignore[arg-type]
        self.bilateral = nn.Parameter(float(crf.bilateral) * identity)  # type: ignore[arg-type]
        self.compatibility = nn.Parameter(-identity)

    def forward(self, logits: Tensor, images: Tensor) -> Tensor:
        if logits.shape[1] != len(self.compatibility) or images.shape[2:] != logits.shape[2:]:
            raise InputError(
                f"CRFasRNN expects logits (b, {len(self.compatibility)}, ...) and images of the same size, got "
                f"{tuple(logits.shape)} and {tuple(images.shape)}"
            )
        if len(images) != len(logits):
            raise InputError(f"one image for each logit map, got {len(images)} for {len(logits)}")
        weights = (self.smoothness, self.bilateral)
        refined = []
        for one, image in zip(logits, images, strict=True):
            lattices = [lattice for lattice, _ in terms(image.movedim(0, -1), self.crf, len(one))]
            matrices = [-(self.compatibility @ weight).T for weight in weights]
            rows = mean_field(
                one.flatten(1).T, list(zip(lattices, matrices, strict=True)), self.crf.iterations
            )
            refined.append(rows.T.reshape(one.shape))
        return torch.stack(refined)

"""UNet++: A Nested U-Net Architecture for Medical Image Segmentation.

Zhou, Siddiquee, Tajbakhsh, Liang, DLMIA 2018, 1807.10165; skips and pruning again in IEEE TMI 2020,
1912.05074.

This is the authors' Keras network, with its dropout of 0.5 after every convolution and without any norm.
Unlike it, it takes sides that are no multiples of 16: where halving has rounded down, the up-sampled map is
continued by a row or column of zeros at its end.

X(i, j) is the node at level i (size h/2^i) and column j: two convolutions over everything to its left on the
level, and the node below to the left, up-sampled. X(i, 0) is the encoder. X(0, 1) .. X(0, 4) are full-size
results of U-Nets of growing depth, so that with deep supervision, which gives each its own head, the rest can
be pruned away.

Letters: n batch, c channels, k classes, h w pixels, i level, j column, L depth.
"""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pixelwise.models.building import builder


class UNetPlusPlus(nn.Module):
    """Nested dense skips; any image with sides of at least 2^depth (16) pixels.

    image (n, in_channels, h, w), float -> {"out": logits (n, num_classes, h, w)} and, with
    `deep_supervision`, the single heads' logits under "aux1" .. "aux4", all of the image's size, meant to
    weigh the same in the loss.

    filters: channels of the levels, top first; one more than the depth. mode, with deep supervision only:
    "accurate", "out" has the mean of the heads' probabilities (which are `probabilities`: "sigmoid", as
    released, or "softmax"); "fast", "out" is the deepest head, which then is not repeated among the aux.
    There is no norm, so any batch size trains; `dropout` acts in training mode only.
    """

    stride = 1
    align_corners = False  # never used: coarse logits already have the size of the image
    unused_parameters: tuple[str, ...] = ()

    def __init__(
        self,
        in_channels: int = 3,
        num_classes: int = 1,
        *,
        filters: Sequence[int] = (32, 64, 128, 256, 512),
        deep_supervision: bool = False,
        mode: str = "accurate",
        probabilities: str = "sigmoid",
        dropout: float = 0.5,
    ) -> None:
        super().__init__()
        if mode not in ("accurate", "fast"):
            raise ValueError(f"mode must be 'accurate' or 'fast', got {mode!r}")
        if probabilities not in ("sigmoid", "softmax"):
            raise ValueError(f"probabilities must be 'sigmoid' or 'softmax', got {probabilities!r}")
        if len(filters) < 2:
            raise ValueError(f"filters must name at least two levels, got {tuple(filters)}")
        self.in_channels, self.num_classes, self.dropout = in_channels, num_classes, dropout
        self.filters, self.depth = tuple(filters), len(filters) - 1
        self.deep_supervision, self.mode, self.probabilities = deep_supervision, mode, probabilities
        self.nodes = nn.ModuleDict()
        for i, here in enumerate(filters):  # column 0, the encoder
            self.nodes[f"x{i}0"] = Unit(filters[i - 1] if i else in_channels, here, dropout)
        for j in range(1, self.depth + 1):
            for i in range(self.depth + 1 - j):
                self.nodes[f"x{i}{j}"] = Nested(filters[i + 1], filters[i], j, dropout)
        heads = range(1, self.depth + 1) if deep_supervision else (self.depth,)
        self.heads = nn.ModuleDict({str(j): nn.Conv2d(filters[0], num_classes, 1) for j in heads})
        self.apply(_initialise)

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        """image (n, c, h, w) -> {"out": logits (n, k, h, w), "aux1": ..., ...}."""
        heads = self._heads(image)
        logits = OrderedDict(out=self._out(heads))
        if self.mode == "fast" or not self.deep_supervision:
            heads.pop()
        return logits | {f"aux{j}": head for j, head in enumerate(heads, 1)}

    def coarse(self, image: Tensor) -> Tensor:
        """image (n, c, h, w) -> logits (n, k, h, w): stride 1, nothing is left to upsample."""
        return self._out(self._heads(image))

    def pruned(self, depth: int) -> UNetPlusPlus:
        """The paper's L1 .. L4: a copy that holds only X(i, j) with i + j <= depth and the head of X(0,
        depth).

        Its output is the one that this network has under f"aux{depth}" (for the full depth: in fast mode).
        Raises ValueError if that head was not trained, that is without deep supervision, or if there is no
        such depth.
        """
        if str(depth) not in self.heads:
            raise ValueError(
                f"depth must be one of {', '.join(self.heads)}, which have heads, got {depth}; "
                "for the others train with deep_supervision=True"
            )
        small = UNetPlusPlus(
            self.in_channels,
            self.num_classes,
            filters=self.filters[: depth + 1],
            probabilities=self.probabilities,
            dropout=self.dropout,
        )
        kept = small.state_dict()
        own = {key: tensor.clone() for key, tensor in self.state_dict().items() if key in kept}
        small.load_state_dict(own, assign=True)
        return small.train(self.training)

    def _heads(self, image: Tensor) -> list[Tensor]:
        """The logits of X(0, 1) .. X(0, L), or of the last alone without deep supervision: (n, k, h, w) each."""
        _check_sides(image, self.depth)
        x = [self.nodes["x00"](image)]
        for i in range(1, self.depth + 1):
            x.append(self.nodes[f"x{i}0"](F.max_pool2d(x[-1], 2)))  # (n, filters[i], h/2^i, w/2^i)
        row = [[encoded] for encoded in x]  # row[i] is X(i, 0), X(i, 1), ... as far as they are computed
        for j in range(1, self.depth + 1):
            for i in range(self.depth + 1 - j):
                row[i].append(self.nodes[f"x{i}{j}"](row[i + 1][j - 1], row[i]))
        return [self.heads[str(j)](node) for j, node in enumerate(row[0]) if str(j) in self.heads]

    def _out(self, heads: list[Tensor]) -> Tensor:
        if self.mode == "fast" or len(heads) == 1:
            return heads[-1]
        stacked = torch.stack(heads)  # (L, n, k, h, w)
        if self.probabilities == "softmax":
            return F.log_softmax(stacked, 2).logsumexp(0)  # of the mean, but for a constant
        yes, no = F.logsigmoid(stacked), F.logsigmoid(-stacked)
        return yes.logsumexp(0) - no.logsumexp(0)  # its sigmoid is the mean of the sigmoids


class Unit(nn.Module):
    """(3x3 convolution, ReLU, dropout) twice: (n, in, h, w) -> (n, out, h, w)."""

    def __init__(self, in_channels: int, out_channels: int, dropout: float) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, padding=1)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        x = self.dropout(F.relu(self.conv1(x)))
        x = self.dropout(F.relu(self.conv2(x)))
        return x


class Nested(nn.Module):
    """X(i, j) of the decoder: [X(i + 1, j - 1) up-sampled, X(i, 0), ..., X(i, j - 1)] through a Unit."""

    def __init__(self, below_channels: int, channels: int, column: int, dropout: float) -> None:
        super().__init__()
        self.up = nn.ConvTranspose2d(below_channels, channels, 2, stride=2)
        self.unit = Unit((1 + column) * channels, channels, dropout)

    def forward(self, below: Tensor, left: list[Tensor]) -> Tensor:
        """below (n, c', h/2, w/2), left: j maps (n, c, h, w) -> (n, c, h, w)."""
        up = self.up(below)
        missing_h, missing_w = left[0].shape[2] - up.shape[2], left[0].shape[3] - up.shape[3]  # 0 or 1 each
        up = F.pad(up, (0, missing_w, 0, missing_h))
        x: Tensor = self.unit(torch.cat([up, *left], dim=1))
        return x


def _check_sides(image: Tensor, depth: int) -> None:
    h, w = image.shape[2:]
    if not torch.compiler.is_compiling() and min(h, w) < 2**depth:
        raise ValueError(
            f"U-Net++ of depth {depth} needs at least {2**depth} pixels on each side, got {h}x{w}; "
            f"pad to {max(h, 2**depth)}x{max(w, 2**depth)} or prune it to fewer levels"
        )


def _initialise(module: nn.Module) -> None:
    """Keras' he_normal for convolutions and its glorot_uniform for up-convolutions; no bias."""
    if isinstance(module, nn.Conv2d):
        fan_in = module.in_channels * module.kernel_size[0] ** 2
        # So that what is left of the cut-off normal has 2/fan_in
        std = (2 / fan_in) ** 0.5 / 0.8796256610342398
        nn.init.trunc_normal_(module.weight, std=std, a=-2 * std, b=2 * std)
    elif isinstance(module, nn.ConvTranspose2d):
        nn.init.xavier_uniform_(module.weight)
    else:
        return
    assert module.bias is not None
    nn.init.zeros_(module.bias)


FILTERS = (32, 64, 128, 256, 512)
"""Channels of the levels, top first: section 4 of the paper, and the release's nb_filter."""


@builder
def unetplusplus(
    *,
    num_classes: int = 1,
    in_channels: int = 3,
    weights: str | os.PathLike[str] | None = None,
    filters: Sequence[int] = FILTERS,
    probabilities: str = "sigmoid",
    dropout: float = 0.5,
) -> UNetPlusPlus:
    """U-Net++ with the one deepest head; `filters` cut to fewer levels makes the pruned L1, L2, L3.

    num_classes, in_channels: of the task. weights: the path of a checkpoint, or None. filters, probabilities,
    dropout: see `UNetPlusPlus`.

    Raises TypeError for an unknown argument, ValueError for counts below 1, WeightsError for weights that do
    not fit.
    """
    return UNetPlusPlus(
        in_channels, num_classes, filters=filters, probabilities=probabilities, dropout=dropout
    )


@builder
def unetplusplus_ds(
    *,
    num_classes: int = 1,
    in_channels: int = 3,
    weights: str | os.PathLike[str] | None = None,
    filters: Sequence[int] = FILTERS,
    probabilities: str = "sigmoid",
    dropout: float = 0.5,
    mode: str = "accurate",
) -> UNetPlusPlus:
    """U-Net++ with deep supervision: a head for every depth, ready to be `pruned`; arguments as in
    `unetplusplus`.

    mode: "accurate", the mean of the heads, or "fast", the deepest alone.
    """
    return UNetPlusPlus(
        in_channels,
        num_classes,
        filters=filters,
        deep_supervision=True,
        mode=mode,
        probabilities=probabilities,
        dropout=dropout,
    )

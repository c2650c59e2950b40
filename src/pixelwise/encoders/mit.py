"""Mix Transformer (MiT), the encoder of SegFormer. Xie, Wang, Yu, Anandkumar, Alvarez, Luo, NeurIPS 2021,
2105.15203.

Four stages. Each begins with an overlapping patch convolution and goes on with transformer blocks whose keys
and values are taken from a smaller image ("sequence reduction"), and whose feed-forward part holds a
depthwise 3x3 convolution in place of a position code. Layers and keys are the release's (NVlabs/SegFormer).

One trap: layer norm's epsilon. The release has 1e-6 in the blocks and at the end of a stage, but 1e-5 after
the patch convolution and the reduction; its ports differ (`EPSILONS`), by about 1e-5 of the features. A copy
of the weights gives its own library's numbers only with that library's epsilons.

Letters: n batch, c channels, h w pixels, t tokens (pixels in a row), r reduction.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import accumulate
from operator import mul
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.ops import StochasticDepth

from pixelwise.layers import activation as activation_of


class Epsilons(NamedTuple):
    """blocks: of the two norms of a block and of the norm that ends a stage; patches: of the norms after the
    patch convolution and after the sequence reduction.
    """

    blocks: float
    patches: float


EPSILONS = {
    "nvlabs": Epsilons(1e-6, 1e-5),
    "smp": Epsilons(1e-6, 1e-5),
    "mmseg": Epsilons(1e-6, 1e-6),
    "huggingface": Epsilons(1e-5, 1e-5),  # the 1e-6 of its configuration is not read (transformers 5.23)
}


class MiTSize(NamedTuple):
    channels: tuple[int, int, int, int]
    depths: tuple[int, int, int, int]


SIZES = {
    # Table 6 of the paper
    "mit_b0": MiTSize((32, 64, 160, 256), (2, 2, 2, 2)),
    "mit_b1": MiTSize((64, 128, 320, 512), (2, 2, 2, 2)),
    "mit_b2": MiTSize((64, 128, 320, 512), (3, 4, 6, 3)),
    "mit_b3": MiTSize((64, 128, 320, 512), (3, 4, 18, 3)),
    "mit_b4": MiTSize((64, 128, 320, 512), (3, 8, 27, 3)),
    "mit_b5": MiTSize((64, 128, 320, 512), (3, 6, 40, 3)),
}


class MixTransformer(nn.Module):
    """image (n, in_channels, h, w) -> four features of strides 4, 8, 16, 32, finest first.

    Any height and width from `smallest_px` on, 29 as in the paper. Where a stage's sides are no multiples of its
    reduction, keys and values do not see the last rows and columns, as in the release. heads, reductions: per stage;
    mlp_ratio: how much the feed-forward parts widen, one number or one a stage; patches, patch_strides: the kernels and
    strides of the patch convolutions, whose products are the strides of the features; activation: of the feed-forward
    parts, a key of `layers.ACTIVATIONS`; drop_path: the probability of skipping the last block's branches in training,
    rising to it linearly from 0; dropout, attention_dropout: of what the branches give and of the attention, in
    training; eps: whose layer norms, a key of `EPSILONS`, or the two values.
    """

    def __init__(
        self,
        channels: tuple[int, ...] = SIZES["mit_b0"].channels,
        depths: tuple[int, ...] = SIZES["mit_b0"].depths,
        *,
        in_channels: int = 3,
        heads: tuple[int, ...] = (1, 2, 5, 8),
        reductions: tuple[int, ...] = (8, 4, 2, 1),
        mlp_ratio: float | Sequence[float] = 4,
        patches: tuple[int, ...] = (7, 3, 3, 3),
        patch_strides: tuple[int, ...] = (4, 2, 2, 2),
        activation: str = "gelu",
        drop_path: float = 0.1,
        dropout: float = 0.0,
        attention_dropout: float = 0.0,
        eps: str | Epsilons = "nvlabs",
    ) -> None:
        super().__init__()
        ratios = (mlp_ratio,) * 4 if isinstance(mlp_ratio, (int, float)) else tuple(mlp_ratio)
        for name, values in (
            ("channels", channels),
            ("depths", depths),
            ("heads", heads),
            ("reductions", reductions),
            ("mlp_ratio", ratios),
            ("patches", patches),
            ("patch_strides", patch_strides),
        ):
            if len(values) != 4:
                raise ValueError(f"{name} needs one number for each of the four stages, got {values}")
        for c, count in zip(channels, heads, strict=True):
            if c % count:
                raise ValueError(
                    f"the channels of a stage must be a multiple of its heads, got {c} and {count}"
                )
        if isinstance(eps, str) and eps not in EPSILONS:
            raise ValueError(f"eps must be one of {', '.join(EPSILONS)}, or two numbers, got {eps!r}")
        eps = EPSILONS[eps] if isinstance(eps, str) else Epsilons(*eps)
        self.channels = tuple(channels)
        self.strides = tuple(accumulate(patch_strides, mul))
        self.smallest_px = _smallest(patches, patch_strides, reductions)
        skips = iter(torch.linspace(0, drop_path, sum(depths), device="cpu").tolist())

        def blocks(stage: int) -> nn.ModuleList:
            c, k, r = channels[stage], heads[stage], reductions[stage]
            more = {"activation": activation, "dropout": dropout, "attention_dropout": attention_dropout}
            return nn.ModuleList(
                Block(c, k, r, ratios[stage], next(skips), eps, **more)  # type: ignore[arg-type]
                for _ in range(depths[stage])
            )

        c1, c2, c3, c4 = channels
        k1, k2, k3, k4 = patches
        s1, s2, s3, s4 = patch_strides
        self.patch_embed1 = PatchEmbedding(in_channels, c1, k1, s1, eps.patches)
        self.block1, self.norm1 = blocks(0), nn.LayerNorm(c1, eps.blocks)
        self.patch_embed2 = PatchEmbedding(c1, c2, k2, s2, eps.patches)
        self.block2, self.norm2 = blocks(1), nn.LayerNorm(c2, eps.blocks)
        self.patch_embed3 = PatchEmbedding(c2, c3, k3, s3, eps.patches)
        self.block3, self.norm3 = blocks(2), nn.LayerNorm(c3, eps.blocks)
        self.patch_embed4 = PatchEmbedding(c3, c4, k4, s4, eps.patches)
        self.block4, self.norm4 = blocks(3), nn.LayerNorm(c4, eps.blocks)
        self.apply(_initialise)

    def forward(self, image: Tensor) -> list[Tensor]:
        if not torch.compiler.is_exporting() and min(image.shape[-2:]) < self.smallest_px:
            least = self.smallest_px
            enough = self.strides[-1] * math.ceil(least / self.strides[-1])
            raise ValueError(
                f"a Mix Transformer takes images of at least {least}x{least} pixels, got "
                f"{image.shape[-2]}x{image.shape[-1]}; pad the image to {enough}x{enough}"
            )
        f1 = _stage(image, self.patch_embed1, self.block1, self.norm1)  # (n, c1, h/4, w/4)
        f2 = _stage(f1, self.patch_embed2, self.block2, self.norm2)  # (n, c2, h/8, w/8)
        f3 = _stage(f2, self.patch_embed3, self.block3, self.norm3)  # (n, c3, h/16, w/16)
        f4 = _stage(
            f3, self.patch_embed4, self.block4, self.norm4
        )  # (n, c4, h/32, w/32); all sizes rounded up
        return [f1, f2, f3, f4]


def _smallest(patches: Sequence[int], strides: Sequence[int], reductions: Sequence[int]) -> int:
    """The side from which on the reductions, which do not pad, leave at least one pixel in every stage."""
    side = 1
    for kernel, stride, reduction in zip(
        reversed(patches), reversed(strides), reversed(reductions), strict=True
    ):
        side = max(1, (max(side, reduction) - 1) * stride + kernel % 2)
    return side


def _stage(image: Tensor, patch_embed: PatchEmbedding, blocks: nn.ModuleList, norm: nn.Module) -> Tensor:
    tokens, size_hw = patch_embed(image)  # (n, t, c)
    for block in blocks:
        tokens = block(tokens, size_hw)
    return to_image(norm(tokens), size_hw)  # (n, c, h, w)


class PatchEmbedding(nn.Module):
    """Patches that overlap, as a strided convolution; image (n, c, h, w) -> tokens (n, t, c') and their (h',
    w').
    """

    def __init__(self, in_channels: int, channels: int, kernel: int, stride: int, eps: float) -> None:
        super().__init__()
        self.proj = nn.Conv2d(in_channels, channels, kernel, stride, padding=kernel // 2)
        self.norm = nn.LayerNorm(channels, eps)

    def forward(self, image: Tensor) -> tuple[Tensor, tuple[int, int]]:
        patches = self.proj(image)
        return self.norm(to_tokens(patches)), (patches.shape[-2], patches.shape[-1])


class Block(nn.Module):
    """Attention, then the feed-forward part, each on normalised tokens and added to them; (n, t, c) stays."""

    def __init__(
        self,
        channels: int,
        heads: int,
        reduction: int,
        mlp_ratio: float,
        skip: float,
        eps: Epsilons,
        *,
        activation: str = "gelu",
        dropout: float = 0.0,
        attention_dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.dropout = dropout
        self.norm1 = nn.LayerNorm(channels, eps.blocks)
        self.attn = ReducedAttention(channels, heads, reduction, eps.patches, dropout=attention_dropout)
        self.norm2 = nn.LayerNorm(channels, eps.blocks)
        self.mlp = MixFFN(channels, int(mlp_ratio * channels), activation=activation, dropout=dropout)
        self.drop_path = StochasticDepth(skip, "row")

    def forward(self, tokens: Tensor, size_hw: tuple[int, int]) -> Tensor:
        attended = F.dropout(self.attn(self.norm1(tokens), size_hw), self.dropout, self.training)
        tokens = tokens + self.drop_path(attended)
        tokens = tokens + self.drop_path(self.mlp(self.norm2(tokens), size_hw))
        return tokens


class ReducedAttention(nn.Module):
    """Every token asks; the answers come from the image shrunk by r, so that the cost is t * t/r^2."""

    def __init__(
        self, channels: int, heads: int, reduction: int, eps: float, *, dropout: float = 0.0
    ) -> None:
        super().__init__()
        self.heads, self.reduction, self.dropout = heads, reduction, dropout
        self.q = nn.Linear(channels, channels)
        if reduction > 1:
            self.sr = nn.Conv2d(channels, channels, reduction, reduction)
            self.norm = nn.LayerNorm(channels, eps)
        self.kv = nn.Linear(channels, 2 * channels)  # keys first
        self.proj = nn.Linear(channels, channels)

    def forward(self, tokens: Tensor, size_hw: tuple[int, int]) -> Tensor:
        q = self.q(tokens).unflatten(-1, [self.heads, -1]).transpose(1, 2)  # (n, heads, t, c/heads)
        if hasattr(self, "sr"):  # TorchScript asks for a layer that is not there unless it is asked like this
            tokens = self.norm(to_tokens(self.sr(to_image(tokens, size_hw))))  # (n, t/r^2, c)
        k, v = (
            self.kv(tokens).unflatten(-1, [2, self.heads, -1]).permute(2, 0, 3, 1, 4).unbind(0)
        )  # (n, heads, t/r^2, c/heads)
        dropped = self.dropout if self.training else 0.0
        mixed = (
            F.scaled_dot_product_attention(q, k, v, dropout_p=dropped).transpose(1, 2).flatten(2)
        )  # (n, t, c)
        attended: Tensor = self.proj(mixed)
        return attended


class MixFFN(nn.Module):
    """Linear, depthwise 3x3 convolution (whose zero padding tells where the border is), activation, linear."""

    def __init__(self, channels: int, hidden: int, *, activation: str = "gelu", dropout: float = 0.0) -> None:
        super().__init__()
        self.activation, self.dropout = activation_of(activation), dropout
        self.fc1 = nn.Linear(channels, hidden)
        self.dwconv = DepthwiseConv(hidden)
        self.fc2 = nn.Linear(hidden, channels)

    def forward(self, tokens: Tensor, size_hw: tuple[int, int]) -> Tensor:
        hidden = self.activation(self.dwconv(self.fc1(tokens), size_hw))
        mixed = self.fc2(F.dropout(hidden, self.dropout, self.training))
        return F.dropout(mixed, self.dropout, self.training)


class DepthwiseConv(nn.Module):
    """3x3, one filter per channel; (n, t, c) stays."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.dwconv = nn.Conv2d(channels, channels, 3, padding=1, groups=channels)

    def forward(self, tokens: Tensor, size_hw: tuple[int, int]) -> Tensor:
        return to_tokens(self.dwconv(to_image(tokens, size_hw)))


def to_tokens(image: Tensor) -> Tensor:
    """(n, c, h, w) -> (n, t, c), row by row."""
    return image.flatten(2).transpose(1, 2)


def to_image(tokens: Tensor, size_hw: tuple[int, int]) -> Tensor:
    """(n, t, c) -> (n, c, h, w), a view whose channels lie next to each other in memory."""
    n, _, c = tokens.shape
    return tokens.reshape(n, size_hw[0], size_hw[1], c).permute(0, 3, 1, 2)


def _initialise(module: nn.Module) -> None:
    """As released: linear layers from a normal of 0.02 cut off at +-2, convolutions by their fan out, biases
    0.
    """
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
    elif isinstance(module, nn.Conv2d):
        fan_out = math.prod(module.kernel_size) * module.out_channels // module.groups
        nn.init.normal_(module.weight, std=math.sqrt(2 / fan_out))
    if isinstance(module, (nn.Linear, nn.Conv2d)) and module.bias is not None:
        nn.init.zeros_(module.bias)

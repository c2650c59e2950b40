"""Swin Transformer: Hierarchical Vision Transformer using Shifted Windows. Liu, Lin, Cao, Hu, Wei, Zhang, Lin, Guo,
ICCV 2021, 2103.14030.

Four stages of transformer blocks whose attention stays in windows, every second time windows shifted by half; between
stages 2x2 pixels are merged into one. For segmentation every feature that is handed out is normalised, while the next
stage goes on from what was not. Keys are the authors' (SwinTransformer/Swin-Transformer-Semantic-Segmentation), without
the indices that their files hold. Sides that are no multiples of patch, window or two are padded with zeros at the
right and bottom.

Letters: n batch, c channels, h w pixels, s window, t tokens of a window (s * s).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.ops import StochasticDepth

from pixelwise.layers import activation as activation_of


class SwinSize(NamedTuple):
    channels: int
    depths: tuple[int, int, int, int]
    heads: tuple[int, int, int, int]


SIZES = {
    # Section 3.3 of the paper
    "swin_tiny": SwinSize(96, (2, 2, 6, 2), (3, 6, 12, 24)),
    "swin_small": SwinSize(96, (2, 2, 18, 2), (3, 6, 12, 24)),
    "swin_base": SwinSize(128, (2, 2, 18, 2), (4, 8, 16, 32)),
    "swin_large": SwinSize(192, (2, 2, 18, 2), (6, 12, 24, 48)),
}

EPS = 1e-5
"""Of the norms outside the blocks."""


class SwinTransformer(nn.Module):
    """image (n, in_channels, h, w) -> the features of the stages in `levels`, finest first; any sides from 1 up.

    channels: of the first stage, each next one has twice as many. window: its side, in pixels of the stage. patch: the
    side of the first patches, the finest stride. qkv_bias: queries, keys and values have biases. activation: of the
    feed-forward parts, a key of `layers.ACTIVATIONS`. drop_path: the probability of skipping the last block's branches
    in training, rising to it linearly from 0. dropout, attention_dropout: of what the branches give and of the
    attention, in training. eps: of the blocks' norms.
    """

    def __init__(
        self,
        channels: int = SIZES["swin_tiny"].channels,
        depths: tuple[int, ...] = SIZES["swin_tiny"].depths,
        heads: tuple[int, ...] = SIZES["swin_tiny"].heads,
        *,
        in_channels: int = 3,
        window: int = 7,
        patch: int = 4,
        mlp_ratio: float = 4,
        qkv_bias: bool = True,
        activation: str = "gelu",
        drop_path: float = 0.2,
        dropout: float = 0.0,
        attention_dropout: float = 0.0,
        eps: float = 1e-5,
        levels: Sequence[int] = (0, 1, 2, 3),
    ) -> None:
        super().__init__()
        for name, values in (("depths", depths), ("heads", heads)):
            if len(values) != 4:
                raise ValueError(f"{name} needs one number for each of the four stages, got {values}")
        widths = [channels * 2**level for level in range(4)]
        for c, count in zip(widths, heads, strict=True):
            if c % count:
                raise ValueError(
                    f"the channels of a stage must be a multiple of its heads, got {c} and {count}"
                )
        self.levels = tuple(levels)
        self.channels = tuple(widths[level] for level in self.levels)
        self.strides = tuple(patch * 2**level for level in self.levels)
        self.dropout = dropout
        skips = iter(torch.linspace(0, drop_path, sum(depths), device="cpu").tolist())
        self.patch_embed = PatchEmbedding(in_channels, channels, patch)
        self.layers = nn.ModuleList()
        for level, (c, depth, count) in enumerate(zip(widths, depths, heads, strict=True)):
            blocks = nn.ModuleList(
                Block(
                    c, count, window, window // 2 if i % 2 else 0, mlp_ratio, next(skips), qkv_bias=qkv_bias,
                    activation=activation, dropout=dropout, attention_dropout=attention_dropout, eps=eps,
                )
                for i in range(depth)
            )  # fmt: skip
            self.layers.append(Stage(blocks, PatchMerging(c) if level < 3 else None))

        def norm(level: int) -> nn.Module:
            return nn.LayerNorm(widths[level], EPS) if level in self.levels else nn.Identity()

        self.norm0, self.norm1, self.norm2, self.norm3 = norm(0), norm(1), norm(2), norm(3)
        self.apply(_initialise)

    def forward(self, image: Tensor) -> list[Tensor]:
        x = F.dropout(self.patch_embed(image), self.dropout, self.training)  # (n, h/4, w/4, c)
        features = []
        for stage, norm in zip(self.layers, (self.norm0, self.norm1, self.norm2, self.norm3), strict=True):
            feature, x = stage(x)  # sizes rounded up
            features.append(norm(feature).permute(0, 3, 1, 2))
        return [features[level].contiguous() for level in self.levels]


class PatchEmbedding(nn.Module):
    """Patches side by side as a strided convolution; (n, c, h, w) -> (n, h/patch, w/patch, c')."""

    def __init__(self, in_channels: int, channels: int, patch: int) -> None:
        super().__init__()
        self.patch = patch
        self.proj = nn.Conv2d(in_channels, channels, patch, patch)
        self.norm = nn.LayerNorm(channels, EPS)

    def forward(self, image: Tensor) -> Tensor:
        last = (
            self.patch - 1
        )  # what the last patch may lack; of a whole one more the convolution makes nothing
        padded = F.pad(image, (0, last, 0, last))
        patches: Tensor = self.norm(self.proj(padded).permute(0, 2, 3, 1))
        return patches


class Stage(nn.Module):
    """Blocks, then the merging: x (n, h, w, c) -> what the blocks give, and that at half the size."""

    def __init__(self, blocks: nn.ModuleList, downsample: nn.Module | None) -> None:
        super().__init__()
        self.blocks, self.downsample = blocks, downsample

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        for block in self.blocks:
            x = block(x)
        return x, x if self.downsample is None else self.downsample(x)


class Block(nn.Module):
    """Attention in windows, then the feed-forward part, each on normalised pixels and added; (n, h, w, c) stays."""

    def __init__(
        self, channels: int, heads: int, window: int, shift: int, mlp_ratio: float, skip: float, *, qkv_bias: bool,
        activation: str, dropout: float, attention_dropout: float, eps: float,
    ) -> None:  # fmt: skip
        super().__init__()
        self.window, self.shift, self.dropout = window, shift, dropout
        self.norm1 = nn.LayerNorm(channels, eps)
        self.attn = WindowAttention(channels, heads, window, qkv_bias, attention_dropout)
        self.norm2 = nn.LayerNorm(channels, eps)
        self.mlp = FeedForward(channels, int(mlp_ratio * channels), activation)
        self.drop_path = StochasticDepth(skip, "row")

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.drop_path(F.dropout(self._in_windows(self.norm1(x)), self.dropout, self.training))
        x = x + self.drop_path(F.dropout(self.mlp(self.norm2(x)), self.dropout, self.training))
        return x

    def _in_windows(self, x: Tensor) -> Tensor:
        (n, h, w, c), s = x.shape, self.window
        rows, columns = (h + s - 1) // s, (w + s - 1) // s
        x = F.pad(x, (0, 0, 0, columns * s - w, 0, rows * s - h))
        apart = None
        if self.shift:
            x = torch.roll(x, (-self.shift, -self.shift), dims=(1, 2))
            apart = self._apart(rows * s, columns * s, x)
        windows = x.reshape(n, rows, s, columns, s, c).transpose(2, 3).reshape(n, rows * columns, s * s, c)
        windows = self.attn(windows, apart)
        x = windows.reshape(n, rows, columns, s, s, c).transpose(2, 3).reshape(n, rows * s, columns * s, c)
        if self.shift:
            x = torch.roll(x, (self.shift, self.shift), dims=(1, 2))
        return x[:, :h, :w]

    def _apart(self, height: int, width: int, like: Tensor) -> Tensor:
        """What is added to the attention where a shifted window has wrapped around, (h w / t, t, t): -100 between
        pixels that are no neighbours in the image."""
        s = self.window
        row, column = (
            (place >= side - s).int() + (place >= side - self.shift).int()
            for side, place in (
                (height, torch.arange(height, device=like.device)),
                (width, torch.arange(width, device=like.device)),
            )
        )
        region = (3 * row[:, None] + column).reshape(height // s, s, width // s, s)
        region = region.transpose(1, 2).reshape(-1, s * s)
        return (region[:, None] != region[:, :, None]).to(like.dtype) * -100.0


class WindowAttention(nn.Module):
    """Attention of the pixels of a window to each other, with a bias for every offset; (n, windows, t, c) stays."""

    relative_position_index: Tensor

    def __init__(self, channels: int, heads: int, window: int, qkv_bias: bool, dropout: float) -> None:
        super().__init__()
        self.heads, self.dropout = heads, dropout
        self.relative_position_bias_table = nn.Parameter(torch.zeros((2 * window - 1) ** 2, heads))
        self.register_buffer("relative_position_index", _offsets(window), persistent=False)
        self.qkv = nn.Linear(channels, 3 * channels, bias=qkv_bias)  # queries first
        self.proj = nn.Linear(channels, channels)

    def forward(self, windows: Tensor, apart: Tensor | None) -> Tensor:
        n, count, t, c = windows.shape
        q, k, v = self.qkv(windows).unflatten(-1, (3, self.heads, -1)).permute(3, 0, 1, 4, 2, 5)
        table = self.relative_position_bias_table[self.relative_position_index]  # (t, t, heads)
        added = table.permute(2, 0, 1)
        joined = (n * count, self.heads) if apart is None else (n, count * self.heads)
        q, k, v = (part.reshape(*joined, t, c // self.heads) for part in (q, k, v))
        if apart is not None:
            added = (added + apart[:, None]).flatten(0, 1)  # (windows * heads, t, t)
        dropped = self.dropout if self.training else 0.0
        mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=added[None], dropout_p=dropped)
        mixed = mixed.reshape(n, count, self.heads, t, c // self.heads).transpose(2, 3)
        attended: Tensor = self.proj(mixed.reshape(n, count, t, c))
        return attended


def _offsets(window: int) -> Tensor:
    """The row of the table for every two pixels of a window, (t, t)."""
    place = torch.arange(window, device="cpu")
    offset = place[:, None] - place + window - 1  # (s, s)
    pairs = (
        offset[:, None, :, None] * (2 * window - 1) + offset[None, :, None, :]
    )  # (s, s, s, s): y, x and y', x'
    return pairs.reshape(window * window, window * window)


class FeedForward(nn.Module):
    """Linear, activation, linear; (..., c) stays."""

    def __init__(self, channels: int, hidden: int, activation: str) -> None:
        super().__init__()
        self.activation = activation_of(activation)
        self.fc1 = nn.Linear(channels, hidden)
        self.fc2 = nn.Linear(hidden, channels)

    def forward(self, x: Tensor) -> Tensor:
        mixed: Tensor = self.fc2(self.activation(self.fc1(x)))
        return mixed


class PatchMerging(nn.Module):
    """2x2 pixels side by side in the channels, normalised and mixed; (n, h, w, c) -> (n, h/2, w/2, 2c)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.reduction = nn.Linear(4 * channels, 2 * channels, bias=False)
        self.norm = nn.LayerNorm(4 * channels, EPS)

    def forward(self, x: Tensor) -> Tensor:
        h, w = x.shape[1:3]
        x = F.pad(x, (0, 0, 0, 1, 0, 1))
        four = [x[:, row : h + row : 2, column : w + column : 2] for column in (0, 1) for row in (0, 1)]
        merged: Tensor = self.reduction(self.norm(torch.cat(four, dim=-1)))
        return merged


def _initialise(module: nn.Module) -> None:
    """As released: linear layers and the tables of offsets from a normal of 0.02 cut off at +-2, biases 0."""
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
    elif isinstance(module, WindowAttention):
        nn.init.trunc_normal_(module.relative_position_bias_table, std=0.02)

"""SegFormer: Simple and Efficient Design for Semantic Segmentation with Transformers. Xie, Wang, Yu,
Anandkumar, Alvarez, Luo, NeurIPS 2021, 2105.15203.

The encoder is in encoders/mit.py. The head projects its four features to the same width, enlarges them to the
finest one's size, concatenates them, deepest first, mixes them with a 1x1 convolution and classifies. Network
and keys are the release's (NVlabs/SegFormer), without the `decode_head.conv_seg` that its files hold and
nothing uses. mmsegmentation 1.x has another head under the same name (a norm and a ReLU in every projection),
whose weights do not fit this one.

One thing is done in another order. Projecting and mixing are linear and act on every pixel alike; enlarging
is linear and acts on every channel alike, with weights that sum to one. So the 1x1 convolutions may come
before the enlargement, on 64 times fewer pixels for the deepest feature and without a concatenation: the same
function, to rounding (4e-7 of the range), at a fraction of the work (`fuse_levels`; `fast_head=False` is
the paper's order).

Letters: n batch, c channels, k classes, h w pixels, d width of the head, i level, 1 the finest.
"""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pixelwise.encoders import Encoder
from pixelwise.encoders.mit import SIZES, Epsilons, MixTransformer
from pixelwise.layers import classes_of, enlarge, enlarge_like
from pixelwise.models.building import variant, with_encoder_weights


class SegFormer(nn.Module):
    """image (n, in_channels, h, w), float -> {"out": logits (n, k, h, w)}; any sides from 29 pixels on.

    backbone: an encoder with four features, the finest of stride 4 in the paper. width: the d of the head. dropout: of
    whole channels before the classifier, in training. fast_head: see above; with False the paper's order of
    operations. Training works at any batch size.
    """

    align_corners = False
    unused_parameters: tuple[str, ...] = ()

    def __init__(
        self,
        backbone: Encoder,
        num_classes: int = 150,
        *,
        width: int = 256,
        dropout: float = 0.1,
        fast_head: bool = True,
    ) -> None:
        super().__init__()
        self.stride = backbone.strides[0]
        self.backbone = backbone
        self.decode_head = AllMLPHead(backbone.channels, width, num_classes, dropout, fast=fast_head)

    @property
    def num_classes(self) -> int:
        return classes_of(self.decode_head.linear_pred)

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        """image (n, c, h, w) -> {"out": logits (n, k, h, w)}."""
        return OrderedDict(out=enlarge_like(self.coarse(image), image, align_corners=self.align_corners))

    def coarse(self, image: Tensor) -> Tensor:
        """image (n, c, h, w) -> logits (n, k, ceil(h/stride), ceil(w/stride)): "out" before it is enlarged."""
        logits: Tensor = self.decode_head(self.backbone(image))
        return logits


class AllMLPHead(nn.Module):
    """Four features (n, c_i, h_i, w_i), finest first -> logits (n, k, h_1, w_1)."""

    def __init__(
        self, channels: tuple[int, ...], width: int, num_classes: int, dropout: float, *, fast: bool
    ) -> None:
        super().__init__()
        if len(channels) != 4:
            raise ValueError(f"SegFormer's head needs four features, got {len(channels)}")
        c1, c2, c3, c4 = channels
        self.fast = fast
        self.linear_c4 = Projection(c4, width)
        self.linear_c3 = Projection(c3, width)
        self.linear_c2 = Projection(c2, width)
        self.linear_c1 = Projection(c1, width)
        self.linear_fuse = Fuse(4 * width, width)
        self.dropout = nn.Dropout2d(dropout)
        self.linear_pred = nn.Conv2d(width, num_classes, 1)

    def forward(self, features: list[Tensor]) -> Tensor:
        fused = self.fused(features) if self.fast else self.fused_as_published(features)  # (n, d, h_1, w_1)
        logits: Tensor = self.linear_pred(self.dropout(F.relu(fused)))
        return logits

    def fused_as_published(self, features: list[Tensor]) -> Tensor:
        """Project each level, enlarge all to the finest's size, concatenate, mix, normalise."""
        f1, f2, f3, f4 = features
        levels = (
            enlarge_like(self.linear_c4(f4), f1, align_corners=False),
            enlarge_like(self.linear_c3(f3), f1, align_corners=False),
            enlarge_like(self.linear_c2(f2), f1, align_corners=False),
            self.linear_c1(f1),
        )
        mixed = self.linear_fuse.conv(torch.cat(levels, dim=1))  # (n, 4d, h_1, w_1) -> (n, d, h_1, w_1)
        fused: Tensor = self.linear_fuse.bn(mixed)
        return fused

    def fused(self, features: list[Tensor]) -> Tensor:
        """The same, with the order of `fuse_levels`."""
        projections = [p.proj for p in (self.linear_c4, self.linear_c3, self.linear_c2, self.linear_c1)]
        return fuse_levels(features[::-1], projections, self.linear_fuse.conv, self.linear_fuse.bn, target=3)


def fuse_levels(
    features: Sequence[Tensor],
    projections: Sequence[nn.Linear],
    mix: nn.Conv2d,
    norm: nn.Module,
    *,
    target: int,
) -> Tensor:
    """norm(mix(concatenate(resize(project_i(f_i))))) as norm(resize((mix_i project_i)(f_i)) + ...).

    The sizes become that of `features[target]`. Each level has one matrix, mix_i project_i (d, c_i), and all biases
    become one, the sum of mix_i bias_i. Batch norm joins them where it is linear too, that is outside training.
    """
    size_hw = features[target].shape[-2], features[target].shape[-1]
    weight, shift = mix.weight.flatten(1), mix.bias  # (d, i * d), (d,) or None
    joined = False
    if (
        isinstance(norm, nn.BatchNorm2d)
        and not norm.training
        and norm.running_mean is not None
        and norm.running_var is not None
    ):
        joined = True
        scale = norm.weight * torch.rsqrt(norm.running_var + norm.eps)  # (d,)
        mean = norm.running_mean if shift is None else norm.running_mean - shift
        weight, shift = scale[:, None] * weight, norm.bias - scale * mean
    parts = weight.chunk(len(features), dim=1)  # (d, d) each
    bias = torch.stack([part @ linear.bias for part, linear in zip(parts, projections, strict=True)]).sum(0)
    bias = bias if shift is None else bias + shift
    fused = _on_pixels(features[target], parts[target] @ projections[target].weight, bias)  # (n, d, h, w)
    for i in range(len(features) - 1, -1, -1):
        if i != target:
            level = _on_pixels(features[i], parts[i] @ projections[i].weight)
            fused += enlarge(level, size_hw, align_corners=False)
    return fused if joined else norm(fused)


def _on_pixels(feature: Tensor, matrix: Tensor, bias: Tensor | None = None) -> Tensor:
    """matrix (d, c) on every pixel: (n, c, h, w) -> (n, d, h, w)."""
    return F.conv2d(feature, matrix[:, :, None, None], bias)


class Projection(nn.Module):
    """A linear layer on every pixel; (n, c, h, w) -> (n, d, h, w)."""

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.proj = nn.Linear(channels, width)

    def forward(self, feature: Tensor) -> Tensor:
        projected: Tensor = self.proj(feature.movedim(1, -1)).movedim(-1, 1)
        return projected


class Fuse(nn.Module):
    """The parameters of the mixing convolution and the batch norm after it."""

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, width, 1, bias=False)
        self.bn = nn.BatchNorm2d(width)
        nn.init.kaiming_normal_(self.conv.weight, mode="fan_out", nonlinearity="relu")


class Variant(NamedTuple):
    encoder: str
    width: int


VARIANTS = {
    # Table 6 of the paper
    "segformer_b0": Variant("mit_b0", 256),
    "segformer_b1": Variant("mit_b1", 256),
    "segformer_b2": Variant("mit_b2", 768),
    "segformer_b3": Variant("mit_b3", 768),
    "segformer_b4": Variant("mit_b4", 768),
    "segformer_b5": Variant("mit_b5", 768),
}


def _segformer(
    name: str,
    *,
    num_classes: int = 150,
    in_channels: int = 3,
    weights: str | os.PathLike[str] | None = None,
    weights_backbone: Any = None,
    eps: str | Epsilons = "nvlabs",
    drop_path: float = 0.1,
    dropout: float = 0.1,
    encoder_dropout: float = 0.0,
    attention_dropout: float = 0.0,
    fast_head: bool = True,
    channels: tuple[int, ...] | None = None,
    depths: tuple[int, ...] | None = None,
    width: int | None = None,
    heads: tuple[int, ...] = (1, 2, 5, 8),
    reductions: tuple[int, ...] = (8, 4, 2, 1),
    mlp_ratio: float | Sequence[float] = 4,
    patches: tuple[int, ...] = (7, 3, 3, 3),
    patch_strides: tuple[int, ...] = (4, 2, 2, 2),
    activation: str = "gelu",
) -> SegFormer:
    """num_classes, in_channels: of the task; ADE20K has 150 classes, Cityscapes 19. weights: the path of a checkpoint
    of any known family that fits this network, or None. weights_backbone: the path of a Mix Transformer of the
    release, Hugging Face or mmsegmentation (mit_b0.pth and so on), or None; Hugging Face's want eps="huggingface".
    eps, drop_path, attention_dropout: see `MixTransformer`, whose dropout is encoder_dropout here; dropout, fast_head:
    see `SegFormer`. channels, depths, width: sizes other than the variant's. heads, reductions, mlp_ratio, patches,
    patch_strides, activation: what else others make encoders of, see `MixTransformer`.

    Raises TypeError for an unknown argument, ValueError for impossible sizes, WeightsError for weights that
    do not fit.
    """
    row = VARIANTS[name]
    size = SIZES[row.encoder]
    encoder = MixTransformer(
        channels or size.channels,
        depths or size.depths,
        in_channels=in_channels,
        heads=heads,
        reductions=reductions,
        mlp_ratio=mlp_ratio,
        patches=patches,
        patch_strides=patch_strides,
        activation=activation,
        drop_path=drop_path,
        dropout=encoder_dropout,
        attention_dropout=attention_dropout,
        eps=eps,
    )
    encoder = with_encoder_weights(encoder, "mit", weights_backbone)
    return SegFormer(encoder, num_classes, width=width or row.width, dropout=dropout, fast_head=fast_head)


segformer_b0 = variant(_segformer, "segformer_b0", "SegFormer-B0, 3.8 M parameters.")
segformer_b1 = variant(_segformer, "segformer_b1", "SegFormer-B1, 13.7 M parameters.")
segformer_b2 = variant(_segformer, "segformer_b2", "SegFormer-B2, 27.5 M parameters.")
segformer_b3 = variant(_segformer, "segformer_b3", "SegFormer-B3, 47.3 M parameters.")
segformer_b4 = variant(_segformer, "segformer_b4", "SegFormer-B4, 64.1 M parameters.")
segformer_b5 = variant(_segformer, "segformer_b5", "SegFormer-B5, 84.7 M parameters.")

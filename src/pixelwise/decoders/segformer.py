"""SegFormer's head on any encoder. SegFormer: Simple and Efficient Design for Semantic Segmentation with Transformers.
Xie, Wang, Yu, Anandkumar, Alvarez, Luo, NeurIPS 2021, 2105.15203.

Every feature is projected to the same width and brought to a quarter of the image, all are concatenated, deepest
first, and mixed. As in SMP an encoder with a feature of stride 2 has that one used too, and there is no dropout. The
arithmetic, with its faster order, is that of `pixelwise.models.segformer`.

Letters: n batch, c channels, k classes, h w pixels, d width of the head.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pixelwise.decoders.network import (
    EncoderDecoder,
    auxiliary_head,
    check_encoder,
    head,
    initialise,
    resize_like,
)
from pixelwise.layers import Norm, conv_norm_relu
from pixelwise.models.segformer import fuse_levels


class Segformer(EncoderDecoder):
    """image (n, in_channels, h, w), float -> {"out": logits (n, k, h, w)}, with `aux_loss` also "aux", alike.

    encoder: any; logits are as coarse as its finest feature of stride 4 or more. width: the d of the head. fast: the
    order of `fuse_levels`, False for the paper's; the same function, to rounding. norm: `layers.Norm`.
    """

    def __init__(
        self,
        encoder: Any,
        num_classes: int = 1,
        *,
        width: int = 256,
        fast: bool = True,
        norm: Norm = "batch",
        aux_loss: bool = False,
    ) -> None:
        used = check_encoder("segformer", encoder)
        coarse = [place for place in used if encoder.strides[place] >= 4]
        target = coarse[0] if coarse else used[-1]
        decoder = SegformerDecoder(
            [encoder.channels[place] for place in used], width, used.index(target), fast, norm
        )
        initialise(decoder)
        super().__init__(
            encoder,
            decoder,
            head(width, num_classes, 1),
            stride=encoder.strides[target],
            aux=auxiliary_head(encoder, num_classes, norm, wanted=aux_loss),
        )


class SegformerDecoder(nn.Module):
    """Features, finest first -> (n, d, h_i, w_i), the size of the feature at place `target` of those used."""

    def __init__(self, channels: list[int], width: int, target: int, fast: bool, norm: Norm) -> None:
        super().__init__()
        self.target, self.fast = len(channels) - 1 - target, fast
        self.mlp_stage = nn.ModuleList(Projection(c, width) for c in reversed(channels))
        self.fuse_stage = conv_norm_relu(len(channels) * width, width, 1, norm=norm)

    def forward(self, features: list[Tensor], size_hw: tuple[int, int] | None = None) -> Tensor:
        features = features[-len(self.mlp_stage) :][::-1]  # deepest first
        quick: Tensor | None = None
        if not torch.jit.is_scripting():  # type: ignore[attr-defined]
            quick = self._fused(features)
        if quick is not None:
            return quick
        like = features[self.target]
        levels: list[Tensor] = []
        for i, stage in enumerate(self.mlp_stage):
            levels.append(resize_like(stage(features[i]), like, "bilinear", align_corners=False))
        fused: Tensor = self.fuse_stage(torch.cat(levels, dim=1))
        return fused

    def _fused(self, features: list[Tensor]) -> Tensor | None:
        """The same in the faster order; None where that is not wanted."""
        if not self.fast:
            return None
        projections = [stage.get_submodule("linear") for stage in self.mlp_stage]
        mix, norm, _ = self.fuse_stage
        return F.relu(fuse_levels(features, projections, mix, norm, target=self.target))  # type: ignore[arg-type]


class Projection(nn.Module):
    """A linear layer on every pixel; (n, c, h, w) -> (n, d, h, w)."""

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.linear = nn.Linear(channels, width)

    def forward(self, feature: Tensor) -> Tensor:
        projected: Tensor = self.linear(feature.movedim(1, -1)).movedim(-1, 1)
        return projected

"""UNet++ on any encoder. UNet++: A Nested U-Net Architecture for Medical Image Segmentation. Zhou, Siddiquee,
Tajbakhsh, Liang, DLMIA 2018, 1807.10165; deep supervision as in IEEE TMI 2020, 1912.05074.

SMP's version: nodes between encoder and decoder keep the width of the encoder's feature, only the last of a level has
the decoder's; the finest encoder feature is half the image, and one more step without a skip leads to its size.

Names of the nodes are SMP's: x_{d}_{i} lies on level i, 0 the deepest but one, and has x_{d+1}_{i} ... x_{i}_{i} on
its left: d counts from the right, where the paper's X(level, column) counts from the left and from the top.

Letters: n batch, c channels, k classes, h w pixels, i level, d place in it.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from pixelwise.decoders.network import (
    EncoderDecoder,
    auxiliary_head,
    head,
    initialise,
    levels_up,
    size_at,
    size_of_image,
    widths,
)
from pixelwise.decoders.unet import DecoderBlock
from pixelwise.layers import Norm, enlarge_like


class UnetPlusPlus(EncoderDecoder):
    """image (n, in_channels, h, w), float -> {"out": logits (n, k, h, w)} and further heads, alike.

    encoder: at least two features, each half as large as the one before. deep_supervision: the paper's heads on the
    other nodes of the finest level that has a skip, under "aux1", "aux2", ... from the shallowest U-Net on; they help
    training and are not needed afterwards. The other arguments are those of `Unet`.
    """

    def __init__(
        self,
        encoder: Any,
        num_classes: int = 1,
        *,
        decoder_channels: Sequence[int] | None = None,
        attention: str | None = None,
        interpolation: str = "nearest",
        norm: Norm = "batch",
        deep_supervision: bool = False,
        aux_loss: bool = False,
    ) -> None:
        decoder = UnetPlusPlusDecoder(encoder, decoder_channels, attention, interpolation, norm)
        initialise(decoder)
        super().__init__(
            encoder,
            decoder,
            head(decoder.channels[-1], num_classes, 3),
            stride=1,
            aux=auxiliary_head(encoder, num_classes, norm, wanted=aux_loss),
        )
        self.deep_heads = nn.ModuleList(
            head(decoder.inner_channels, num_classes, 3) for _ in decoder.supervised if deep_supervision
        )

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        """image (n, c, h, w) -> {"out": logits (n, k, h, w), "aux": ..., "aux1": ..., "aux2": ...}."""
        size_hw = image.shape[-2], image.shape[-1]
        features = self.features(image)
        assert isinstance(self.decoder, UnetPlusPlusDecoder)
        nodes = self.decoder.nodes(features, size_hw)
        logits = OrderedDict(out=self.segmentation_head(nodes[self.decoder.last]))
        if self.aux_head is not None:
            aux = self.aux_head(features[max(0, len(features) - 2)])
            logits["aux"] = enlarge_like(aux, image, align_corners=True)
        for i, deep in enumerate(self.deep_heads):
            node = nodes[self.decoder.supervised[i]]
            logits[f"aux{i + 1}"] = enlarge_like(deep(node), image, align_corners=True)
        return logits


class UnetPlusPlusDecoder(nn.Module):
    """Features, finest first, and the image's size -> (n, c, h, w). Without the size, the first of the features is the
    image, as in SMP.
    """

    def __init__(
        self, encoder: Any, decoder_channels: Sequence[int] | None, attention: str | None, interpolation: str,
        norm: Norm,
    ) -> None:  # fmt: skip
        super().__init__()
        self.levels = levels_up("unetplusplus", encoder)
        self.channels = widths("unetplusplus", self.levels, decoder_channels)
        self.count, self.finest = len(encoder.channels), encoder.strides[0]
        below = (encoder.channels[-1], *(level.channels for level in self.levels))
        before = (encoder.channels[-1], *self.channels)
        blocks: dict[str, nn.Module] = {}
        for i, level in enumerate(self.levels):
            c = level.channels
            blocks[_node(0, i)] = DecoderBlock(
                before[i],
                c * (i + 1),
                self.channels[i],
                interpolation,
                attention,
                norm,
                last=level.stride == 1,
            )
            # Without a feature of the encoder only the last node is left
            for d in range(1, i + 1 if c else 0):
                blocks[_node(d, i)] = DecoderBlock(
                    below[i], c * (i + 1 - d), c, interpolation, attention, norm, last=False
                )
        self.blocks = nn.ModuleDict(blocks)
        self.last = _node(0, len(self.levels) - 1)
        finest = max(i for i, level in enumerate(self.levels) if level.channels)
        self.supervised = [_node(d, finest) for d in range(finest, 0, -1)]
        self.inner_channels = self.levels[finest].channels

    def forward(self, features: list[Tensor], size_hw: tuple[int, int] | None = None) -> Tensor:
        return self.nodes(features, size_hw)[self.last]

    def nodes(self, features: list[Tensor], size_hw: tuple[int, int] | None) -> dict[str, Tensor]:
        """Every node by its name."""
        image_hw = size_of_image(features, size_hw, self.count, self.finest)
        features = features[-self.count :]
        x: dict[str, Tensor] = {}
        coarser = features[-1]  # the encoder's feature of the level below
        for i, level in enumerate(self.levels):
            size = size_at(level.stride, level.skip, features, image_hw)
            if level.skip < 0:
                x[_node(0, i)] = self.blocks[_node(0, i)](x[_node(0, i - 1)], None, size)
                continue
            skip = features[level.skip]
            for d in range(i, -1, -1):
                left = [x[_node(other, i)] for other in range(d + 1, i + 1)]
                below = coarser if d == i else x[_node(d, i - 1)]
                x[_node(d, i)] = self.blocks[_node(d, i)](below, torch.cat([*left, skip], dim=1), size)
            coarser = skip
        return x


def _node(d: int, level: int) -> str:
    return f"x_{d}_{level}"

"""DPT on vision transformers. Vision Transformers for Dense Prediction. Ranftl, Bochkovskiy, Koltun, ICCV 2021,
2103.13413.

Tokens of four blocks become images of four sizes (reassemble, section 3), which residual blocks fuse from the deepest
on. As in SMP all of them use norms, and the features are not normalised first.

The paper's patches have 16 pixels: features are brought to strides 4, 8, 16 and 32. Patches of 14 count as 16, so that
the factors stay 4, 2, 1 and 1/2, as DINOv2 (2304.07193) has them; every fusion then enlarges to the size of the next
feature and the last to half the image, which for 16 is the doubling of the paper.

Letters: n batch, c channels, k classes, h w pixels, p tokens before those of the image.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pixelwise.decoders.network import EncoderDecoder, auxiliary_head, check_encoder, head, initialise, resize
from pixelwise.layers import Norm, norm_layer

REASSEMBLE = (256, 512, 1024, 1024)
"""Channels of four features before the fusion, finest first (section 3); finer ones of a pyramid have 128 and 64."""


class DPT(EncoderDecoder):
    """image (n, in_channels, h, w), float -> {"out": logits (n, k, h, w)}, with `aux_loss` also "aux", alike.

    encoder: a vision transformer (`encoders.timm.TimmTransformer`), or any other, which then has no tokens besides
    those of the image. readout: what is done with the class token, "cat", "add" (the mean of all such tokens) or
    "ignore". reassemble_channels: of the features before they get `width` channels, finest first. norm: `layers.Norm`.
    Sides of the image: as the encoder takes them.
    """

    def __init__(
        self,
        encoder: Any,
        num_classes: int = 1,
        *,
        readout: str = "cat",
        reassemble_channels: Sequence[int] | None = None,
        width: int = 256,
        norm: Norm = "batch",
        aux_loss: bool = False,
    ) -> None:
        check_encoder("dpt", encoder)
        if reassemble_channels is None:
            finer = len(encoder.channels) - len(REASSEMBLE)
            reassemble_channels = REASSEMBLE[:finer] if finer < 0 else (64, 128)[2 - finer :] + REASSEMBLE
        if len(reassemble_channels) != len(encoder.channels):
            raise ValueError(
                f"reassemble_channels must have one number for each of the {len(encoder.channels)} features of the "
                f"encoder, got {tuple(reassemble_channels)}"
            )
        has_tokens = getattr(encoder, "prefix_tokens", 0) > 0
        decoder = DPTDecoder(
            encoder.channels, encoder.strides, has_tokens, readout, reassemble_channels, width, norm
        )
        initialise(decoder)
        super().__init__(
            encoder,
            decoder,
            Head(width, num_classes, norm),
            stride=2,
            aux=auxiliary_head(encoder, num_classes, norm, wanted=aux_loss),
        )
        self.has_tokens = has_tokens

    def features(self, image: Tensor) -> list[Any]:
        """Pairs of a map and the tokens before it (None where there are none), finest first."""
        if not self.has_tokens:
            return [(feature, None) for feature in self.encoder(image)]
        return list(zip(*self.encoder.with_tokens(image), strict=True))

    def decode(self, features: list[Any], size_hw: tuple[int, int]) -> Tensor:
        maps, tokens = (list(each) for each in zip(*features, strict=True))
        logits: Tensor = self.segmentation_head(self.decoder(maps, tokens, size_hw))
        return logits


class DPTDecoder(nn.Module):
    """Maps (n, c, h_i, w_i), tokens of each (n, p, c) or None -> (n, width, h/2, w/2), h and w those of the image.

    Without the size of the image it is taken for four times the first map after its reassembly, as in SMP.
    """

    def __init__(
        self, channels: Sequence[int], strides: Sequence[int], has_tokens: bool, readout: str,
        reassemble_channels: Sequence[int], width: int, norm: Norm,
    ) -> None:  # fmt: skip
        super().__init__()
        if readout not in READOUTS:
            raise ValueError(f"readout must be one of {', '.join(READOUTS)}, got {readout!r}")
        self.projection_blocks = nn.ModuleList(
            ConcatReadout(c, has_tokens) if readout == "cat" else READOUTS[readout]() for c in channels
        )
        self.reassemble_blocks = nn.ModuleList(
            Reassemble(c, between, width, 2 ** (round(math.log2(stride)) - i - 2))
            for i, (c, between, stride) in enumerate(zip(channels, reassemble_channels, strides, strict=True))
        )
        self.fusion_blocks = nn.ModuleList(Fusion(width, norm) for _ in channels)

    def forward(
        self,
        features: Sequence[Tensor],
        prefix_tokens: Sequence[Tensor | None],
        size_hw: tuple[int, int] | None = None,
    ) -> Tensor:
        maps = [
            reassemble(project(feature, tokens))
            for project, reassemble, feature, tokens in zip(
                self.projection_blocks, self.reassemble_blocks, features, prefix_tokens, strict=True
            )
        ]
        if size_hw is None:
            size_hw = 4 * maps[0].shape[-2], 4 * maps[0].shape[-1]
        sizes = [((size_hw[0] + 1) // 2, (size_hw[1] + 1) // 2), *((x.shape[-2], x.shape[-1]) for x in maps)]
        fused: Tensor | None = None
        for i, fuse in enumerate(self.fusion_blocks):
            place = len(maps) - 1 - i
            fused = fuse(maps[place], fused, sizes[place])
        assert fused is not None
        return fused


class ConcatReadout(nn.Module):
    """The class token next to every other, mixed by a linear layer and GELU; (n, c, h, w) stays."""

    def __init__(self, channels: int, has_tokens: bool) -> None:
        super().__init__()
        self.project = nn.Sequential(nn.Linear(channels * (2 if has_tokens else 1), channels), nn.GELU())

    def forward(self, feature: Tensor, tokens: Tensor | None) -> Tensor:
        x = feature.movedim(1, -1)  # (n, h, w, c)
        if tokens is not None:
            x = torch.cat([x, tokens[:, :1, None, :].expand_as(x)], dim=-1)
        mixed: Tensor = self.project(x).movedim(-1, 1)
        return mixed


class AddReadout(nn.Module):
    """The mean of the tokens before the image's, added to every other."""

    def forward(self, feature: Tensor, tokens: Tensor | None) -> Tensor:
        return feature if tokens is None else feature + tokens.mean(dim=1)[:, :, None, None]


class IgnoreReadout(nn.Module):
    """The image's tokens alone."""

    def forward(self, feature: Tensor, tokens: Tensor | None) -> Tensor:
        return feature


READOUTS: dict[str, Any] = {"cat": ConcatReadout, "add": AddReadout, "ignore": IgnoreReadout}


class Reassemble(nn.Module):
    """1x1 convolution, `factor` times as large, 3x3 convolution; (n, in, h, w) -> (n, out, ~factor h, ~factor w)."""

    def __init__(self, in_channels: int, between: int, out_channels: int, factor: float) -> None:
        super().__init__()
        self.project_to_out_channel = nn.Conv2d(in_channels, between, 1)
        self.upsample: nn.Module = nn.Identity()
        if factor > 1:
            self.upsample = nn.ConvTranspose2d(between, between, int(factor), stride=int(factor))
        elif factor < 1:
            self.upsample = nn.Conv2d(between, between, 3, stride=int(1 / factor), padding=1)
        self.project_to_feature_dim = nn.Conv2d(between, out_channels, 3, padding=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        x = self.project_to_feature_dim(self.upsample(self.project_to_out_channel(x)))
        return x


class Fusion(nn.Module):
    """A residual block, plus what is fused so far, another residual block, enlarged to `size_hw`, 1x1 convolution."""

    def __init__(self, channels: int, norm: Norm) -> None:
        super().__init__()
        self.residual_conv_block1 = Residual(channels, norm)
        self.residual_conv_block2 = Residual(channels, norm)
        self.project = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor, fused: Tensor | None, size_hw: tuple[int, int]) -> Tensor:
        x = self.residual_conv_block1(x)
        if fused is not None:
            x = x + fused
        x = resize(self.residual_conv_block2(x), size_hw, "bilinear", align_corners=True)
        x = self.project(x)
        return x


class Residual(nn.Module):
    """x plus twice (ReLU, 3x3 convolution, norm)."""

    def __init__(self, channels: int, norm: Norm) -> None:
        super().__init__()
        self.conv_1 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.batch_norm_1 = norm_layer(norm, channels)
        self.conv_2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.batch_norm_2 = norm_layer(norm, channels)

    def forward(self, x: Tensor) -> Tensor:
        y = self.batch_norm_1(self.conv_1(F.relu(x)))
        y = self.batch_norm_2(self.conv_2(F.relu(y)))
        added: Tensor = x + y
        return added


class Head(nn.Module):
    """3x3 convolution, norm, ReLU, dropout, 1x1 convolution to classes."""

    def __init__(self, channels: int, num_classes: int, norm: Norm) -> None:
        super().__init__()
        conv = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        nn.init.xavier_uniform_(conv.weight)
        self.head = nn.Sequential(
            conv, norm_layer(norm, channels), nn.ReLU(), nn.Dropout(0.1), *head(channels, num_classes, 1)
        )

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(x)
        return logits

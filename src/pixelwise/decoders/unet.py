"""U-Net on any encoder. U-Net: Convolutional Networks for Biomedical Image Segmentation. Ronneberger, Fischer, Brox,
MICCAI 2015, 1505.04597.

The paper's right half: enlarge, concatenate the encoder's feature of that size, two 3x3 convolutions, until the size
of the image. As in SMP, sizes double by repeating pixels, convolutions are padded and normalised, and the first step
is fed by the encoder's last feature directly. scSE attention: Roy, Navab, Wachinger, MICCAI 2018, 1803.02579.

Letters: n batch, c channels, k classes, h w pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pixelwise.decoders.network import (
    EncoderDecoder,
    auxiliary_head,
    head,
    initialise,
    levels_up,
    resize,
    size_at,
    size_of_image,
    widths,
)
from pixelwise.layers import Norm, conv_norm_relu


class Unet(EncoderDecoder):
    """image (n, in_channels, h, w), float -> {"out": logits (n, k, h, w)}, with `aux_loss` also "aux", alike.

    encoder: its features of stride 2 and more must halve, as in a pyramid; missing fine ones are done without.
    decoder_channels: after each step, deepest first; None for 16 at the image's size, doubling downwards.
    attention: None or "scse", before the first and after the second convolution of a step. interpolation: a mode of
    F.interpolate. center: two more convolutions before the first step (SMP has them for VGG). norm: `layers.Norm`.
    """

    def __init__(
        self,
        encoder: Any,
        num_classes: int = 1,
        *,
        decoder_channels: Sequence[int] | None = None,
        attention: str | None = None,
        interpolation: str = "nearest",
        center: bool = False,
        norm: Norm = "batch",
        aux_loss: bool = False,
    ) -> None:
        decoder = UnetDecoder(encoder, decoder_channels, attention, interpolation, center, norm)
        initialise(decoder)
        super().__init__(
            encoder,
            decoder,
            head(decoder.channels[-1], num_classes, 3),
            stride=1,
            aux=auxiliary_head(encoder, num_classes, norm, wanted=aux_loss),
        )


class UnetDecoder(nn.Module):
    """Features, finest first, and the image's size -> (n, c, h, w). Without the size, the first of the features is the
    image, as in SMP.
    """

    def __init__(
        self, encoder: Any, decoder_channels: Sequence[int] | None, attention: str | None, interpolation: str,
        center: bool, norm: Norm,
    ) -> None:  # fmt: skip
        super().__init__()
        levels = levels_up("unet", encoder)
        self.channels = widths("unet", levels, decoder_channels)
        self.skips, self.strides = [level.skip for level in levels], [level.stride for level in levels]
        self.count, self.finest = len(encoder.channels), encoder.strides[0]
        deepest = encoder.channels[-1]
        self.center = Center(deepest, norm) if center else nn.Identity()
        self.blocks = nn.ModuleList(
            DecoderBlock(
                before, level.channels, after, interpolation, attention, norm, last=level.stride == 1
            )
            for level, before, after in zip(
                levels, (deepest, *self.channels[:-1]), self.channels, strict=True
            )
        )

    def forward(self, features: list[Tensor], size_hw: tuple[int, int] | None = None) -> Tensor:
        image_hw = size_of_image(features, size_hw, self.count, self.finest)
        features = features[-self.count :]
        x: Tensor = self.center(features[-1])
        for i, block in enumerate(self.blocks):
            skip: Tensor | None = None
            if self.skips[i] >= 0:
                skip = features[self.skips[i]]
            x = block(x, skip, size_at(self.strides[i], self.skips[i], features, image_hw))
        return x


class DecoderBlock(nn.Module):
    """Enlarge, concatenate the skip, two convolutions; (n, in, h, w) -> (n, out, *size_hw).

    last: the step to the image's own size, which has no skip and, in SMP, no attention before the convolutions.
    """

    def __init__(
        self, in_channels: int, skip_channels: int, out_channels: int, interpolation: str, attention: str | None,
        norm: Norm, *, last: bool,
    ) -> None:  # fmt: skip
        super().__init__()
        joined = in_channels + skip_channels
        self.interpolation_mode = interpolation
        self.conv1 = conv_norm_relu(joined, out_channels, 3, norm=norm)
        self.attention1 = Attention(None if last else attention, joined)
        self.conv2 = conv_norm_relu(out_channels, out_channels, 3, norm=norm)
        self.attention2 = Attention(attention, out_channels)

    def forward(self, x: Tensor, skip: Tensor | None, size_hw: tuple[int, int]) -> Tensor:
        convolved: Tensor | None = None
        if not torch.jit.is_scripting():  # type: ignore[attr-defined]
            convolved = self._doubled(x, skip, size_hw)
        if convolved is not None:
            x = convolved
        else:
            x = resize(x, size_hw, self.interpolation_mode)
            if skip is not None:
                x = torch.cat([x, skip], dim=1)
            x = self.conv1(self.attention1(x))
        x = self.attention2(self.conv2(x))
        return x

    def _doubled(self, x: Tensor, skip: Tensor | None, size_hw: tuple[int, int]) -> Tensor | None:
        """What the first convolution gives, by `convolve_doubled`; None where that is not worth it."""
        if not self._doubles_cheaply(x, size_hw):
            return None
        conv, norm, relu = self.conv1
        assert isinstance(conv, nn.Conv2d)
        convolved: Tensor = relu(norm(convolve_doubled(conv, x, skip)))
        return convolved

    def _doubles_cheaply(self, x: Tensor, size_hw: tuple[int, int]) -> bool:
        """Whether `convolve_doubled` may stand for the first convolution and saves time there.

        Only where steps of training were measured, on a CPU: predictions and exported files keep the plain order of
        arithmetic. On a map of fewer pixels than channels the sums of weights cost more than they save.
        """
        if not self.training or x.device.type != "cpu" or self.interpolation_mode != "nearest":
            return False
        doubled = (2 * x.shape[-2], 2 * x.shape[-1]) == tuple(size_hw)
        enough = x.shape[0] * x.shape[-2] * x.shape[-1] >= x.shape[1]
        return (
            doubled and enough and is_plain(self.conv1) and isinstance(self.attention1.attention, nn.Identity)
        )


def is_plain(conv_norm_relu: nn.Sequential) -> bool:
    """Whether the convolution is only that: no other layer in its place, no parametrisation, nobody who listens."""
    conv = conv_norm_relu[0]
    heard = any(m._forward_hooks or m._forward_pre_hooks or m._backward_hooks for m in (conv_norm_relu, conv))
    return type(conv) is nn.Conv2d and not heard


def convolve_doubled(conv: nn.Conv2d, x: Tensor, skip: Tensor | None) -> Tensor:
    """`conv`, a padded 3x3, of x with every pixel repeated 2x2, concatenated with the skip; neither is ever made.

    x (n, c, h, w), skip (n, s, 2h, 2w), conv from c + s channels -> (n, out, 2h, 2w). Nine weights over
    repeated pixels meet only four different ones, so those that meet the same are added beforehand: a transposed
    convolution of 4x4 weights and stride 2, four products for a pixel and channel instead of nine.
    """
    c = x.shape[1]
    padded = F.pad(conv.weight[:, :c], (1, 1, 1, 1))
    columns = padded[..., :-1] + padded[..., 1:]
    summed = (columns[..., :-1, :] + columns[..., 1:, :]).flip(-2, -1).transpose(0, 1)  # (c, out, 4, 4)
    out = F.conv_transpose2d(x, summed, conv.bias, stride=2, padding=1)
    return out if skip is None else out + F.conv2d(skip, conv.weight[:, c:], padding=1)


class Center(nn.Sequential):
    """Two 3x3 convolutions; (n, c, h, w) stays."""

    def __init__(self, channels: int, norm: Norm) -> None:
        super().__init__(
            conv_norm_relu(channels, channels, 3, norm=norm),
            conv_norm_relu(channels, channels, 3, norm=norm),
        )


class Attention(nn.Module):
    """None: nothing. "scse": concurrent spatial and channel squeeze and excitation."""

    def __init__(self, kind: str | None, channels: int) -> None:
        super().__init__()
        if kind not in (None, "scse"):
            raise ValueError(f"attention must be None or 'scse', got {kind!r}")
        self.attention = nn.Identity() if kind is None else SCSE(channels)

    def forward(self, x: Tensor) -> Tensor:
        attended: Tensor = self.attention(x)
        return attended


class SCSE(nn.Module):
    """x weighted by channel and x weighted by place, added (their sum, not their maximum, as in SMP)."""

    def __init__(self, channels: int, reduction: int = 16) -> None:
        super().__init__()
        narrow = max(1, channels // reduction)
        self.cSE = nn.Sequential(
            nn.AdaptiveAvgPool2d(1), nn.Conv2d(channels, narrow, 1), nn.ReLU(), nn.Conv2d(narrow, channels, 1),
            nn.Sigmoid(),
        )  # fmt: skip
        self.sSE = nn.Sequential(nn.Conv2d(channels, 1, 1), nn.Sigmoid())

    def forward(self, x: Tensor) -> Tensor:
        weighed: Tensor = x * self.cSE(x) + x * self.sSE(x)
        return weighed

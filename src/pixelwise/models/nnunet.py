"""nnU-Net: a U-Net whose every size stands in a plan that was made for a data set.

Isensee, Jaeger, Kohl, Petersen, Maier-Hein, Nature Methods 2021, 1904.08128; the residual encoder: Isensee et al.,
2404.09556. These are the networks of its second version, in which strides take the place of pooling, tensors named as
there, without the copies that its files hold (`checkpoints.nnunet`).

Letters: n batch, c channels, k classes or regions, d h w voxels (h w in 2-D), s stage, finest first in the encoder and
deepest first in the decoder.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

Sides = Sequence[int]
"""One number an axis."""


class NnUNet(nn.Module):
    """image (n, in_channels, d, h, w), float -> {"out": logits (n, num_classes, d, h, w)}; in 2-D without d.

    Each side is a multiple of the product of its strides. The decoder has a head at every stage, of which training
    with deep supervision uses all and this forward the finest.
    """

    stride = 1
    align_corners = False  # never used: coarse logits already have the size of the image

    def __init__(
        self, encoder: nn.Module, decoder: Decoder, strides: Sequence[Sides], num_classes: int
    ) -> None:
        super().__init__()
        self.encoder, self.decoder, self.num_classes = encoder, decoder, num_classes
        self.multiples = tuple(math.prod(axis) for axis in zip(*strides, strict=True))
        unused = decoder.seg_layers[:-1].named_parameters(prefix="decoder.seg_layers")
        self.unused_parameters = tuple(name for name, _ in unused)

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        """image (n, c, d, h, w) -> logits (n, k, d, h, w) under "out"."""
        return OrderedDict(out=self.coarse(image))

    def coarse(self, image: Tensor) -> Tensor:
        """image (n, c, d, h, w) -> logits (n, k, d, h, w): stride 1, nothing is left to upsample."""
        sides = image.shape[2:]
        if not torch.compiler.is_compiling() and any(
            s % m for s, m in zip(sides, self.multiples, strict=True)
        ):
            raise ValueError(
                f"this nnU-Net takes sides that are multiples of {' x '.join(map(str, self.multiples))}, got "
                f"{' x '.join(map(str, sides))}; pad to "
                + " x ".join(str(-(-s // m) * m) for s, m in zip(sides, self.multiples, strict=True))
            )
        logits: Tensor = self.decoder(self.encoder(image))
        return logits


class PlainEncoder(nn.Module):
    """Stages of convolutions, of which the first takes the stage's stride; -> all features, finest first."""

    def __init__(self, in_channels: int, sizes: Sizes) -> None:
        super().__init__()
        self.stages = nn.ModuleList()
        for s, features in enumerate(sizes.features):
            stage = stack(
                in_channels, features, sizes.convs[s], sizes.kernels[s], sizes.strides[s], sizes.layers
            )
            self.stages.append(nn.Sequential(stage))
            in_channels = features

    def forward(self, image: Tensor) -> list[Tensor]:
        features, x = [], image
        for stage in self.stages:
            x = stage(x)
            features.append(x)
        return features


class ResidualEncoder(nn.Module):
    """A convolution, then stages of residual blocks, of which the first takes the stage's stride."""

    def __init__(self, in_channels: int, sizes: Sizes) -> None:
        super().__init__()
        ones = [1] * len(sizes.kernels[0])
        width = sizes.stem or sizes.features[0]
        self.stem = stack(in_channels, width, 1, sizes.kernels[0], ones, sizes.layers)
        self.stages = nn.ModuleList()
        for s, features in enumerate(sizes.features):
            blocks = nn.Sequential()
            for b in range(sizes.convs[s]):
                stride = ones if b else sizes.strides[s]
                blocks.append(
                    Residual(features if b else width, features, sizes.kernels[s], stride, sizes.layers)
                )
            self.stages.append(Named(blocks=blocks))
            width = features

    def forward(self, image: Tensor) -> list[Tensor]:
        features, x = [], self.stem(image)
        for stage in self.stages:
            x = stage(x)
            features.append(x)
        return features


class Decoder(nn.Module):
    """From the deepest features up: a transposed convolution, the skip beside it, convolutions, a head."""

    def __init__(self, sizes: Sizes, num_classes: int) -> None:
        super().__init__()
        layers = sizes.layers
        self.stages, self.transpconvs, self.seg_layers = nn.ModuleList(), nn.ModuleList(), nn.ModuleList()
        below = sizes.features[-1]
        for s, convs in enumerate(sizes.decoder_convs, start=2):
            width, stride, kernel = sizes.features[-s], tuple(sizes.strides[-s + 1]), sizes.kernels[-s]
            self.transpconvs.append(layers.transposed(below, width, stride, stride, bias=layers.bias))
            self.stages.append(stack(2 * width, width, convs, kernel, [1] * layers.dims, layers))
            self.seg_layers.append(layers.conv(width, num_classes, 1, bias=True))
            below = width

    def forward(self, features: list[Tensor]) -> Tensor:
        *skips, x = features
        for up, stage in zip(self.transpconvs, self.stages, strict=True):
            x = stage(torch.cat([up(x), skips.pop()], dim=1))
        logits: Tensor = self.seg_layers[-1](x)
        return logits


class Residual(nn.Module):
    """Two convolutions and what came in, pooled and projected where sizes differ: block D of the ResNets."""

    def __init__(self, in_channels: int, features: int, kernel: Sides, stride: Sides, layers: Layers) -> None:
        super().__init__()
        ones = [1] * layers.dims
        self.conv1 = Conv(in_channels, features, kernel, stride, layers)
        self.conv2 = Conv(features, features, kernel, ones, layers, activated=False)
        self.skip = nn.Sequential()
        if any(side != 1 for side in stride):
            self.skip.append(layers.pool(tuple(stride), tuple(stride)))
        if in_channels != features:
            projection = Conv(in_channels, features, ones, ones, layers, activated=False, bias=False)
            self.skip.append(projection)
        self.nonlin2 = layers.activation()

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.nonlin2(self.conv2(self.conv1(x)) + self.skip(x))
        return found


class Conv(nn.Module):
    """Convolution, norm, activation; or the last two the other way round. Dropout is for training, and left out."""

    def __init__(
        self, in_channels: int, features: int, kernel: Sides, stride: Sides, layers: Layers, *,
        activated: bool = True, bias: bool | None = None,
    ) -> None:  # fmt: skip
        super().__init__()
        padding = tuple((side - 1) // 2 for side in kernel)
        self.conv = layers.conv(
            in_channels,
            features,
            tuple(kernel),
            tuple(stride),
            padding,
            bias=layers.bias if bias is None else bias,
        )
        if layers.norm is not None:
            self.norm = layers.norms(features)
        self.nonlin = layers.activation() if activated else nn.Identity()
        self.nonlin_first = layers.nonlin_first

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        if self.nonlin_first:
            x = self.nonlin(x)
        if hasattr(self, "norm"):
            x = self.norm(x)
        return x if self.nonlin_first else self.nonlin(x)


class Named(nn.Module):
    """One part under a name of its own, as tensors are named there."""

    def __init__(self, **part: nn.Module) -> None:
        super().__init__()
        ((self.name, module),) = part.items()
        self.add_module(self.name, module)

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = getattr(self, self.name)(x)
        return found


def stack(in_channels: int, features: int, convs: int, kernel: Sides, stride: Sides, layers: Layers) -> Named:
    """So many convolutions, of which the first takes the stride."""
    blocks = nn.Sequential()
    for i in range(convs):
        step = [1] * layers.dims if i else stride
        blocks.append(Conv(features if i else in_channels, features, kernel, step, layers))
    return Named(convs=blocks)


CONV = {2: nn.Conv2d, 3: nn.Conv3d}
TRANSPOSED = {2: nn.ConvTranspose2d, 3: nn.ConvTranspose3d}
POOL = {2: nn.AvgPool2d, 3: nn.AvgPool3d}
NORM: dict[str, dict[int, Any]] = {
    "instance": {2: nn.InstanceNorm2d, 3: nn.InstanceNorm3d},
    "batch": {2: nn.BatchNorm2d, 3: nn.BatchNorm3d},
}


@dataclass(frozen=True)
class Layers:
    """What all blocks have in common. slope: of the leaky ReLU, 0 for ReLU."""

    dims: int
    bias: bool = True
    norm: Literal["instance", "batch"] | None = "instance"
    eps: float = 1e-5
    affine: bool = True
    slope: float = 0.01
    nonlin_first: bool = False

    @property
    def conv(self) -> Any:
        return CONV[self.dims]

    @property
    def transposed(self) -> Any:
        return TRANSPOSED[self.dims]

    @property
    def pool(self) -> Any:
        return POOL[self.dims]

    def norms(self, features: int) -> nn.Module:
        assert self.norm is not None
        layer: nn.Module = NORM[self.norm][self.dims](features, eps=self.eps, affine=self.affine)
        return layer

    def activation(self) -> nn.Module:
        return nn.LeakyReLU(self.slope) if self.slope else nn.ReLU()


@dataclass(frozen=True)
class Sizes:
    """Of each stage, finest first. convs: convolutions, or residual blocks. decoder_convs: deepest first. stem: width
    of the first convolution of a residual encoder, None for the first stage's."""

    features: Sequence[int]
    kernels: Sequence[Sides]
    strides: Sequence[Sides]
    convs: Sequence[int]
    decoder_convs: Sequence[int]
    layers: Layers
    stem: int | None = None


def plain_conv_unet(in_channels: int, num_classes: int, sizes: Sizes) -> NnUNet:
    """The network that nnU-Net calls PlainConvUNet, with random weights."""
    return _initialised(
        NnUNet(PlainEncoder(in_channels, sizes), Decoder(sizes, num_classes), sizes.strides, num_classes)
    )


def residual_encoder_unet(in_channels: int, num_classes: int, sizes: Sizes) -> NnUNet:
    """The network that nnU-Net calls ResidualEncoderUNet, with random weights."""
    network = _initialised(
        NnUNet(ResidualEncoder(in_channels, sizes), Decoder(sizes, num_classes), sizes.strides, num_classes)
    )
    for module in network.modules():
        if isinstance(module, Residual) and isinstance(getattr(module.conv2, "norm", None), nn.Module):
            norm = module.conv2.norm
            if getattr(norm, "weight", None) is not None:
                nn.init.zeros_(norm.weight)  # type: ignore[arg-type]
    return network


def _initialised(network: NnUNet) -> NnUNet:
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.Conv3d | nn.ConvTranspose2d | nn.ConvTranspose3d):
            nn.init.kaiming_normal_(module.weight, a=0.01)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    return network


class NnUNetSlicewise(nn.Module):
    """A 2-D network that takes volumes (n, c, d, h, w), each slice by itself."""

    stride, align_corners = 1, False

    def __init__(self, network: NnUNet) -> None:
        super().__init__()
        self.network, self.num_classes = network, network.num_classes

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        return OrderedDict(out=self.coarse(image))

    def coarse(self, image: Tensor) -> Tensor:
        """(n, c, d, h, w) -> logits (n, k, d, h, w)."""
        slices = image.movedim(2, 1).flatten(0, 1)  # (n d, c, h, w)
        logits = self.network.coarse(slices)
        return logits.reshape(-1, image.shape[2], *logits.shape[1:]).movedim(1, 2)


class NnUNetMean(nn.Module):
    """The mean of the logits of several networks, as one."""

    stride, align_corners = 1, False

    def __init__(self, networks: Sequence[nn.Module]) -> None:
        super().__init__()
        self.networks = nn.ModuleList(networks)
        self.num_classes = networks[0].num_classes

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        return OrderedDict(out=self.coarse(image))

    def coarse(self, image: Tensor) -> Tensor:
        """(n, c, ...) -> logits (n, k, ...)."""
        first, *others = self.networks
        total: Tensor = first.coarse(image)  # type: ignore[operator]
        for network in others:
            total = total + network.coarse(image)  # type: ignore[operator]
        return total / len(self.networks)

"""ConvNeXt, as an encoder. A ConvNet for the 2020s. Liu, Mao, Wu, Feichtenhofer, Darrell, Xie, CVPR 2022,
2201.03545.

Four stages of residual blocks (depthwise 7x7, layer norm, widen by 4, GELU, narrow, scale), each begun by a
convolution whose patches do not overlap. For segmentation the authors, mmsegmentation and Hugging Face
normalise every feature that is handed out, while the next stage goes on from what was not normalised; the R
package (mlverse/torchvision) leaves those norms out (`output_norms=False`), so the same weights give other
classes there. Keys are the authors' (facebookresearch/ConvNeXt).

Letters: n batch, c channels, h w pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torchvision.ops import StochasticDepth

from pixelwise.layers import LayerNorm2d
from pixelwise.layers import activation as activation_of


class ConvNeXtSize(NamedTuple):
    channels: tuple[int, int, int, int]
    depths: tuple[int, int, int, int]


SIZES = {
    # Section 3 of the paper
    "convnext_tiny": ConvNeXtSize((96, 192, 384, 768), (3, 3, 9, 3)),
    "convnext_small": ConvNeXtSize((96, 192, 384, 768), (3, 3, 27, 3)),
    "convnext_base": ConvNeXtSize((128, 256, 512, 1024), (3, 3, 27, 3)),
    "convnext_large": ConvNeXtSize((192, 384, 768, 1536), (3, 3, 27, 3)),
    "convnext_xlarge": ConvNeXtSize((256, 512, 1024, 2048), (3, 3, 27, 3)),
}

EPS = 1e-6


class ConvNeXt(nn.Module):
    """image (n, in_channels, h, w) -> the features of the stages in `levels`, finest first.

    Any height and width from the coarsest stride on, 32 pixels; feature i has floor(h / strides[i]) rows, as patches
    that are not whole are left out. output_norms: see above. drop_path: the probability of skipping the last block in
    training, rising to it linearly from 0. layer_scale: what the blocks' scales begin with; None for none. patch: the
    side of the first patches, the finest stride. activation: of the blocks, a key of `layers.ACTIVATIONS`. between:
    what else is done to the widened features, made for their number (ConvNeXt V2).
    """

    def __init__(
        self,
        channels: tuple[int, ...] = SIZES["convnext_tiny"].channels,
        depths: tuple[int, ...] = SIZES["convnext_tiny"].depths,
        *,
        in_channels: int = 3,
        levels: Sequence[int] = (0, 1, 2, 3),
        output_norms: bool = True,
        drop_path: float = 0.0,
        layer_scale: float | None = 1e-6,
        patch: int = 4,
        activation: str = "gelu",
        between: Callable[[int], nn.Module] | None = None,
    ) -> None:
        super().__init__()
        for name, values in (("channels", channels), ("depths", depths)):
            if len(values) != 4:
                raise ValueError(f"{name} needs one number for each of the four stages, got {values}")
        self.levels = tuple(levels)
        self.channels = tuple(channels[level] for level in self.levels)
        self.smallest_px = 8 * patch
        self.strides = tuple(patch * 2**level for level in self.levels)
        skips = iter(torch.linspace(0, drop_path, sum(depths), device="cpu").tolist())
        c1, c2, c3, c4 = channels
        self.downsample_layers = nn.ModuleList(
            (
                nn.Sequential(nn.Conv2d(in_channels, c1, patch, stride=patch), LayerNorm2d(c1)),
                nn.Sequential(LayerNorm2d(c1), nn.Conv2d(c1, c2, 2, stride=2)),
                nn.Sequential(LayerNorm2d(c2), nn.Conv2d(c2, c3, 2, stride=2)),
                nn.Sequential(LayerNorm2d(c3), nn.Conv2d(c3, c4, 2, stride=2)),
            )
        )
        self.stages = nn.ModuleList(
            nn.Sequential(
                *(
                    Block(c, next(skips), layer_scale, activation=activation, between=between)
                    for _ in range(depth)
                )
            )
            for c, depth in zip(channels, depths, strict=True)
        )

        def norm(level: int) -> nn.Module:
            return LayerNorm2d(channels[level]) if output_norms and level in self.levels else nn.Identity()

        self.norm0, self.norm1, self.norm2, self.norm3 = norm(0), norm(1), norm(2), norm(3)
        self.apply(_initialise)

    def forward(self, image: Tensor) -> list[Tensor]:
        if not torch.compiler.is_exporting() and min(image.shape[-2:]) < self.smallest_px:
            raise ValueError(
                f"ConvNeXt takes images of at least {self.smallest_px}x{self.smallest_px} pixels, got "
                f"{image.shape[-2]}x{image.shape[-1]}; pad the image"
            )
        x1 = self.stages[0](self.downsample_layers[0](image))  # (n, c1, h/4, w/4)
        x2 = self.stages[1](self.downsample_layers[1](x1))  # (n, c2, h/8, w/8)
        x3 = self.stages[2](self.downsample_layers[2](x2))  # (n, c3, h/16, w/16)
        x4 = self.stages[3](self.downsample_layers[3](x3))  # (n, c4, h/32, w/32); all sizes rounded down
        features = (self.norm0(x1), self.norm1(x2), self.norm2(x3), self.norm3(x4))
        return [features[level] for level in self.levels]


class Block(nn.Module):
    """x + scale * narrow(between(GELU(widen(norm(depthwise(x)))))); (n, c, h, w) stays."""

    def __init__(
        self,
        channels: int,
        skip: float,
        layer_scale: float | None,
        *,
        activation: str = "gelu",
        between: Callable[[int], nn.Module] | None = None,
    ) -> None:
        super().__init__()
        self.activation = activation_of(activation)
        self.dwconv = nn.Conv2d(channels, channels, 7, padding=3, groups=channels)
        self.norm = nn.LayerNorm(channels, EPS)
        self.pwconv1 = nn.Linear(channels, 4 * channels)
        self.grn = None if between is None else between(4 * channels)
        self.pwconv2 = nn.Linear(4 * channels, channels)
        self.gamma = None if layer_scale is None else nn.Parameter(torch.full((channels,), layer_scale))
        self.drop_path = StochasticDepth(skip, "row")

    def forward(self, x: Tensor) -> Tensor:
        y = self.dwconv(x).movedim(1, -1)  # (n, h, w, c)
        y = self.activation(self.pwconv1(self.norm(y)))
        y = self.pwconv2(y if self.grn is None else self.grn(y))
        y = y if self.gamma is None else self.gamma * y
        added: Tensor = x + self.drop_path(y.movedim(-1, 1))
        return added


def _initialise(module: nn.Module) -> None:
    """As released: convolutions and linear layers from a normal of 0.02 cut off at +-2, biases 0."""
    if isinstance(module, (nn.Linear, nn.Conv2d)):
        nn.init.trunc_normal_(module.weight, std=0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)

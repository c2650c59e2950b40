"""ConvNeXt V2: Co-designing and Scaling ConvNets with Masked Autoencoders. Woo, Debnath, Hu, Chen, Liu, Kweon, Xie,
CVPR 2023, 2301.00808.

ConvNeXt whose blocks let the widened channels compete (global response normalisation) and have no scale. Keys are the
authors' (facebookresearch/ConvNeXt-V2), with the norms of the features as in `encoders.convnext`.

Letters: n batch, c channels, h w pixels.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from pixelwise.encoders.convnext import ConvNeXt, ConvNeXtSize

SIZES = {
    # Table 12 of the paper
    "convnextv2_atto": ConvNeXtSize((40, 80, 160, 320), (2, 2, 6, 2)),
    "convnextv2_femto": ConvNeXtSize((48, 96, 192, 384), (2, 2, 6, 2)),
    "convnextv2_pico": ConvNeXtSize((64, 128, 256, 512), (2, 2, 6, 2)),
    "convnextv2_nano": ConvNeXtSize((80, 160, 320, 640), (2, 2, 8, 2)),
    "convnextv2_tiny": ConvNeXtSize((96, 192, 384, 768), (3, 3, 9, 3)),
    "convnextv2_base": ConvNeXtSize((128, 256, 512, 1024), (3, 3, 27, 3)),
    "convnextv2_large": ConvNeXtSize((192, 384, 768, 1536), (3, 3, 27, 3)),
    "convnextv2_huge": ConvNeXtSize((352, 704, 1408, 2816), (3, 3, 27, 3)),
}


def convnextv2(
    channels: tuple[int, ...] = SIZES["convnextv2_tiny"].channels,
    depths: tuple[int, ...] = SIZES["convnextv2_tiny"].depths,
    *,
    in_channels: int = 3,
    levels: Sequence[int] = (0, 1, 2, 3),
    drop_path: float = 0.0,
    patch: int = 4,
    activation: str = "gelu",
) -> ConvNeXt:
    """The encoder; the arguments are those of `ConvNeXt`."""
    return ConvNeXt(
        channels, depths, in_channels=in_channels, levels=levels, drop_path=drop_path, layer_scale=None, patch=patch,
        activation=activation, between=GlobalResponseNorm,
    )  # fmt: skip


class GlobalResponseNorm(nn.Module):
    """x + gamma * x * g / mean(g) + beta, g the norm of a channel over the whole image; (n, h, w, c) stays."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.zeros(1, 1, 1, channels))
        self.beta = nn.Parameter(torch.zeros(1, 1, 1, channels))

    def forward(self, x: Tensor) -> Tensor:
        response = torch.linalg.vector_norm(x, dim=(1, 2), keepdim=True)  # (n, 1, 1, c)
        share = response / (response.mean(dim=-1, keepdim=True) + 1e-6)
        normed: Tensor = self.gamma * (x * share) + self.beta + x
        return normed

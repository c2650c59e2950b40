"""SMP's blocks, with its arguments and names of tensors, made of the layers of this package.

Letters: n batch, c channels, h w pixels.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from pixelwise.checkpoints.smp.config import norm_of
from pixelwise.decoders.smp_parts import Activation, ArgMax, Clamp
from pixelwise.decoders.unet import SCSE
from pixelwise.errors import UnknownNameError
from pixelwise.layers import norm_layer

__all__ = ["Activation", "ArgMax", "Attention", "Clamp", "Conv2dReLU", "SCSEModule", "get_norm_layer"]


def get_norm_layer(use_norm: Any, out_channels: int) -> nn.Module:
    """True or "batchnorm", False or "identity", "layernorm", "instancenorm", "groupnorm", or {"type": one of these,
    **options of the layer}. Layer norm is over the channels of a pixel and works on maps, where SMP's fails.
    """
    return norm_layer(norm_of(use_norm), out_channels)


class Conv2dReLU(nn.Sequential):
    """Convolution, norm, ReLU: (n, c, h, w) -> (n, out_channels, h', w'); a bias where there is no norm."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        padding: int = 0,
        stride: int = 1,
        use_norm: Any = "batchnorm",
    ) -> None:
        norm = get_norm_layer(use_norm, out_channels)
        conv = nn.Conv2d(
            in_channels, out_channels, kernel_size, stride, padding, bias=isinstance(norm, nn.Identity)
        )
        super().__init__(conv, norm, nn.ReLU(inplace=True))


class SCSEModule(SCSE):
    """Squeeze and excitation by channel and by place; (n, c, h, w) stays."""

    def __init__(self, in_channels: int, reduction: int = 16) -> None:
        super().__init__(in_channels, reduction)


class Attention(nn.Module):
    """None: nothing. "scse": `SCSEModule` of `params`. (n, c, h, w) stays."""

    def __init__(self, name: str | None, **params: Any) -> None:
        super().__init__()
        if name not in (None, "scse"):
            raise UnknownNameError("attention", name, ("scse",))
        self.attention = nn.Identity(**params) if name is None else SCSEModule(**params)

    def forward(self, x: Tensor) -> Tensor:
        attended: Tensor = self.attention(x)
        return attended

"""MobileNetV3-Large encoder. Searching for MobileNetV3. Howard and others, ICCV 2019, 1905.02244.

The layers are torchvision's `features`, without pooling and classifier. Keys are torchvision's: 0 is the
stem, 1 to 15 are the inverted residual blocks of Table 1, 16 is the last 1x1 convolution.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from torch import Tensor, nn
from torchvision import models

from pixelwise.layers import with_input_channels
from pixelwise.weights.enums import load_classifier

CHANNELS = (16, 16, 24, 24, 40, 40, 40, 80, 80, 80, 80, 112, 112, 160, 160, 160, 960)
STRIDES = (2, 2, 4, 4, 8, 8, 8, 16, 16, 16, 16, 16, 16, 32, 32, 32, 32)
"""Of each layer's output (Table 1 of the paper)."""


class MobileNetV3Encoder(nn.Sequential):
    """image (n, 3, h, w) -> the outputs of the layers numbered in `levels`, finest first; any height and
    width.

    The default levels are the last layers of each size. `output_stride` says how `layers` were built: with 16
    the last stage (layers 13 to 15) is dilated instead of striding.
    """

    def __init__(
        self,
        layers: Iterable[nn.Module],
        *,
        output_stride: int = 32,
        levels: Sequence[int] = (1, 3, 6, 12, 16),
    ) -> None:
        super().__init__(*layers)
        self.levels = tuple(levels)
        self.channels = tuple(CHANNELS[level] for level in self.levels)
        self.strides = tuple(min(STRIDES[level], output_stride) for level in self.levels)

    def forward(self, image: Tensor) -> list[Tensor]:
        features, x = [], image
        for level, layer in enumerate(self):
            x = layer(x)
            if level in self.levels:
                features.append(x)
        return features


def mobilenet_v3_large(
    *,
    weights: Any = None,
    progress: bool = True,
    output_stride: int = 32,
    levels: Sequence[int] = (1, 3, 6, 12, 16),
    in_channels: int = 3,
) -> MobileNetV3Encoder:
    """The encoder, with ImageNet weights if `weights` names some.

    weights: a member of torchvision's `MobileNet_V3_Large_Weights`, its name as text, the path of such a file, or its
    names and tensors; None. output_stride: 16 or 32. in_channels: other than 3, the weights' first filters are shared
    out (`with_input_channels`). Raises ValueError for another stride, and what `verify` and `fetch` raise.
    """
    if output_stride not in (16, 32):
        raise ValueError(f"output_stride must be 16 or 32, got {output_stride!r}")
    network = models.mobilenet_v3_large(weights=None, dilated=output_stride == 16)
    load_classifier(network, models.MobileNet_V3_Large_Weights, weights, progress=progress)
    stem = network.features[0]
    stem[0] = with_input_channels(stem[0], in_channels, trained=weights is not None)
    return MobileNetV3Encoder(network.features, output_stride=output_stride, levels=levels)

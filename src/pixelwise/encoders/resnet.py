"""ResNet encoders. Deep Residual Learning for Image Recognition. He, Zhang, Ren, Sun, CVPR 2016, 1512.03385.

The layers are torchvision's (the stride of a bottleneck is in its 3x3 convolution, "v1.5"), without pooling
and classifier. Keys are torchvision's: conv1, bn1, layer1 ... layer4.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor, nn
from torchvision import models

from pixelwise.errors import UnknownNameError
from pixelwise.layers import with_input_channels
from pixelwise.weights.enums import load_classifier


class ResNetEncoder(nn.Module):
    """image (n, 3, h, w) -> features, finest first; any height and width from 1 up.

    `levels` chooses among the five stages: 0 is the stem before its pooling, 1 to 4 are layer1 to layer4.
    Only the chosen ones are kept in memory. `output_stride` says how `network` was built: below 32 its last
    stages are dilated instead of striding.
    """

    def __init__(
        self, network: Any, *, output_stride: int = 32, levels: Sequence[int] = (0, 1, 2, 3, 4)
    ) -> None:
        super().__init__()
        self.conv1, self.bn1, self.relu, self.maxpool = (
            network.conv1,
            network.bn1,
            network.relu,
            network.maxpool,
        )
        self.layer1, self.layer2, self.layer3, self.layer4 = (
            network.layer1, network.layer2, network.layer3, network.layer4
        )  # fmt: skip
        last: int = network.fc.in_features
        channels, strides = (64, last // 8, last // 4, last // 2, last), (2, 4, 8, 16, 32)
        self.levels = tuple(levels)
        self.channels = tuple(channels[level] for level in self.levels)
        self.strides = tuple(min(strides[level], output_stride) for level in self.levels)

    def forward(self, image: Tensor) -> list[Tensor]:
        features = []
        x = self.relu(self.bn1(self.conv1(image)))  # (n, 64, h/2, w/2)
        if 0 in self.levels:
            features.append(x)
        x = self.maxpool(x)  # (n, 64, h/4, w/4)
        for level, stage in enumerate((self.layer1, self.layer2, self.layer3, self.layer4), start=1):
            x = stage(x)
            if level in self.levels:
                features.append(x)
        return features


BUILDERS: dict[str, tuple[Callable[..., Any], Any]] = {
    "resnet18": (models.resnet18, models.ResNet18_Weights),
    "resnet34": (models.resnet34, models.ResNet34_Weights),
    "resnet50": (models.resnet50, models.ResNet50_Weights),
    "resnet101": (models.resnet101, models.ResNet101_Weights),
    "resnet152": (models.resnet152, models.ResNet152_Weights),
}
"""Name of the encoder: torchvision's constructor and its weights (Table 1 of the paper)."""

DILATED_STAGES = {8: (False, True, True), 16: (False, False, True), 32: (False, False, False)}
"""Output stride: which of layer2, layer3 and layer4 are dilated instead of striding."""


def resnet(
    name: str,
    *,
    weights: Any = None,
    progress: bool = True,
    output_stride: int = 32,
    levels: Sequence[int] = (0, 1, 2, 3, 4),
    in_channels: int = 3,
) -> ResNetEncoder:
    """The encoder `name` ("resnet50"), with ImageNet weights if `weights` names some.

    weights: a member of torchvision's enum for this network, its name as text, the path of such a file, its names and
    tensors, or None. output_stride: 8, 16 or 32; resnet18 and resnet34 have no dilated form and take 32 only.
    in_channels: other than 3, the weights' first filters are shared out (`with_input_channels`).

    Raises UnknownNameError for another name, ValueError for another stride, and what `verify` and `fetch`
    raise.
    """
    if name not in BUILDERS:
        raise UnknownNameError("encoder", name, BUILDERS)
    if output_stride not in DILATED_STAGES:
        raise ValueError(f"output_stride must be 8, 16 or 32, got {output_stride!r}")
    if output_stride < 32 and name in ("resnet18", "resnet34"):
        raise ValueError(f"{name} cannot be dilated, so its output_stride must be 32, got {output_stride}")
    build, enum = BUILDERS[name]
    network = build(weights=None, replace_stride_with_dilation=DILATED_STAGES[output_stride])
    load_classifier(network, enum, weights, progress=progress)
    network.conv1 = with_input_channels(network.conv1, in_channels, trained=weights is not None)
    return ResNetEncoder(network, output_stride=output_stride, levels=levels)

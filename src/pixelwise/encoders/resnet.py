"""ResNet encoders. Deep Residual Learning for Image Recognition. He, Zhang, Ren, Sun, CVPR 2016, 1512.03385.

`ResNetEncoder` has torchvision's layers (the stride of a bottleneck is in its 3x3 convolution, "v1.5"), without
pooling and classifier; `ResNet` has any sizes and the choices that torchvision does not offer. Keys are torchvision's:
conv1, bn1, layer1 ... layer4.

Letters: n batch, c channels, h w pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F
from torchvision import models

from pixelwise.errors import UnknownNameError
from pixelwise.layers import activation as activation_of
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


class ResNet(nn.Module):
    """image (n, in_channels, h, w) -> the features of the stages in `levels`, finest first; any sides from 1 up.

    channels: what the four stages give, of which a bottleneck has a quarter inside. stem: channels of the first
    convolution. bottleneck: the blocks of ResNet-50 and deeper, else those of ResNet-18. stride_first: a bottleneck
    shrinks in its first convolution, as in the paper, else in its 3x3. first_stride: of the first stage, 1 in the
    paper. activation: after the first convolution and after each sum, a key of `layers.ACTIVATIONS`; inside the blocks
    it is ReLU, as Hugging Face has it.
    """

    def __init__(
        self,
        channels: tuple[int, ...] = (256, 512, 1024, 2048),
        depths: tuple[int, ...] = (3, 4, 6, 3),
        *,
        in_channels: int = 3,
        stem: int = 64,
        bottleneck: bool = True,
        stride_first: bool = False,
        first_stride: int = 1,
        activation: str = "relu",
        levels: Sequence[int] = (0, 1, 2, 3),
    ) -> None:
        super().__init__()
        for name, values in (("channels", channels), ("depths", depths)):
            if len(values) != 4:
                raise ValueError(f"{name} needs one number for each of the four stages, got {values}")
        self.levels, self.activation = tuple(levels), activation_of(activation)
        self.channels = tuple(channels[level] for level in self.levels)
        self.strides = tuple(4 * first_stride * 2**level for level in self.levels)
        self.conv1 = nn.Conv2d(in_channels, stem, 7, 2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(stem)
        self.maxpool = nn.MaxPool2d(3, 2, padding=1)

        def stage(before: int, after: int, depth: int, stride: int) -> nn.Sequential:
            return nn.Sequential(
                *(
                    Residual(
                        before if i == 0 else after, after, stride if i == 0 else 1, bottleneck=bottleneck,
                        stride_first=stride_first, activation=activation,
                    )
                    for i in range(depth)
                )
            )  # fmt: skip

        c1, c2, c3, c4 = channels
        d1, d2, d3, d4 = depths
        self.layer1 = stage(stem, c1, d1, first_stride)
        self.layer2 = stage(c1, c2, d2, 2)
        self.layer3 = stage(c2, c3, d3, 2)
        self.layer4 = stage(c3, c4, d4, 2)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, image: Tensor) -> list[Tensor]:
        x = self.maxpool(self.activation(self.bn1(self.conv1(image))))  # (n, c, h/4, w/4)
        features = []
        for stage in (self.layer1, self.layer2, self.layer3, self.layer4):
            x = stage(x)
            features.append(x)
        return [features[level] for level in self.levels]


class Residual(nn.Module):
    """x, or its projection, plus two 3x3 convolutions, or a 1x1, a 3x3 and a 1x1, each with batch norm."""

    def __init__(
        self, before: int, after: int, stride: int, *, bottleneck: bool, stride_first: bool, activation: str
    ) -> None:
        super().__init__()
        self.activation = activation_of(activation)
        inside = after // 4 if bottleneck else after
        kernels = (1, 3, 1) if bottleneck else (3, 3)
        strided = 0 if stride_first or not bottleneck else 1
        widths = (before, *(inside,) * (len(kernels) - 1), after)
        self.count = len(kernels)
        for i, kernel in enumerate(kernels):
            step = stride if i == strided else 1
            conv = nn.Conv2d(widths[i], widths[i + 1], kernel, step, padding=kernel // 2, bias=False)
            self.add_module(f"conv{i + 1}", conv)
            self.add_module(f"bn{i + 1}", nn.BatchNorm2d(widths[i + 1]))
        self.downsample = (
            nn.Sequential(nn.Conv2d(before, after, 1, stride, bias=False), nn.BatchNorm2d(after))
            if before != after or stride != 1
            else None
        )

    def forward(self, x: Tensor) -> Tensor:
        y = x
        for i in range(1, self.count + 1):
            y = self.get_submodule(f"bn{i}")(self.get_submodule(f"conv{i}")(y))
            y = F.relu(y) if i < self.count else y
        return self.activation(y + (x if self.downsample is None else self.downsample(x)))

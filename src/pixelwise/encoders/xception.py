"""Aligned Xception encoders. Encoder-Decoder with Atrous Separable Convolution (DeepLabV3+, 1802.02611), section 3.3
and figure 4, after Xception: Deep Learning with Depthwise Separable Convolutions. Chollet, CVPR 2017, 1610.02357.

Against Chollet's network: more units, separable convolutions that stride in place of poolings, batch norm after each
depthwise convolution, and ReLU after it in the last unit only. The layers are those of TensorFlow's release
(research/deeplab/core/xception.py), whose ImageNet and DeepLab files fit; its strided convolutions pad evenly, so the
numbers are the same at every size. The decay of batch norm's averages is torch's here (the release's is 0.9997).

Letters: n batch, c channels, h w pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from torch import Tensor, nn
from torch.nn import functional as F

from pixelwise.errors import UnknownNameError

EPSILON = 1e-3
"""Of batch norm, in the release's backbone (its DeepLab heads have 1e-5)."""


class Row(NamedTuple):
    """One unit: the channels of its three separable convolutions, the stride of the last, and what is added."""

    channels: tuple[int, int, int]
    stride: int
    shortcut: str  # "conv", "identity" or "none"


def _rows(entry: Sequence[tuple[int, int]], middle: int) -> dict[str, tuple[Row, ...]]:
    return {
        "entry": tuple(Row((c, c, c), stride, "conv") for c, stride in entry),
        "middle": (Row((728, 728, 728), 1, "identity"),) * middle,
        "exit": (Row((728, 1024, 1024), 2, "conv"), Row((1536, 1536, 2048), 1, "none")),
    }


ROWS = {  # figure 4 (65), and the release's functions of these names
    "xception41": _rows([(128, 2), (256, 2), (728, 2)], middle=8),
    "xception65": _rows([(128, 2), (256, 2), (728, 2)], middle=16),
    "xception71": _rows([(128, 2), (256, 1), (256, 2), (728, 1), (728, 2)], middle=16),
}


class XceptionEncoder(nn.Module):
    """image (n, in_channels, h, w) -> features, finest first; any height and width from 1 up.

    `levels` chooses among five: 0 to 3 are taken in the unit that leaves strides 2, 4, 8 and 16, before its last
    convolution (the release's decoder takes level 1), and 4 is the end. Below `output_stride` 32, units that would
    stride further do not; the unit itself keeps the rate it had, later ones dilate. `multi_grid` multiplies the rates
    of the last unit's three convolutions. width_mult scales all channels (published: 1).
    """

    def __init__(
        self,
        rows: dict[str, tuple[Row, ...]],
        *,
        in_channels: int = 3,
        output_stride: int = 32,
        multi_grid: tuple[int, int, int] = (1, 1, 1),
        levels: Sequence[int] = (0, 1, 2, 3, 4),
        width_mult: float = 1.0,
    ) -> None:
        super().__init__()
        if output_stride not in (8, 16, 32):
            raise ValueError(f"output_stride must be 8, 16 or 32, got {output_stride!r}")
        channels, stride, rate = _scaled(64, width_mult), 2, 1
        self.conv1_1 = conv_norm_relu(in_channels, _scaled(32, width_mult), stride=2)
        self.conv1_2 = conv_norm_relu(_scaled(32, width_mult), channels)
        flows: dict[str, list[Unit]] = {name: [] for name in rows}
        all_channels, all_strides, self.taps = [], [], []
        units = [(name, row) for name, flow in rows.items() for row in flow]
        for place, (name, row) in enumerate(units):
            last = place == len(units) - 1
            keeps = stride == output_stride  # from here on nothing strides
            widths = [_scaled(width, width_mult) for width in row.channels]
            if row.stride == 2:
                all_channels.append(widths[1])
                all_strides.append(stride)
                self.taps.append(place)
            rates = [rate * grid for grid in multi_grid] if last else [rate] * 3
            unit_stride = 1 if keeps else row.stride
            flows[name].append(
                Unit(channels, widths, unit_stride, rates, row.shortcut, relu_inside=row.shortcut == "none")
            )
            channels = widths[2]
            rate, stride = (rate * row.stride, stride) if keeps else (rate, stride * row.stride)
        self.entry, self.middle, self.exit = (
            nn.ModuleList(flows[name]) for name in ("entry", "middle", "exit")
        )
        self.levels = tuple(levels)
        self.channels = tuple([*all_channels, channels][level] for level in self.levels)
        self.strides = tuple([*all_strides, stride][level] for level in self.levels)
        self._initialise()

    def forward(self, image: Tensor) -> list[Tensor]:
        x = self.conv1_2(self.conv1_1(image))  # (n, 64, h/2, w/2)
        features = []
        for place, unit in enumerate([*self.entry, *self.middle, *self.exit]):
            x, before_stride = unit(x)
            if place in self.taps and self.taps.index(place) in self.levels:
                features.append(before_stride)
        if len(self.taps) in self.levels:
            features.append(x)  # (n, 2048, h/32, w/32), or of the output stride
        return features

    def _initialise(self) -> None:
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")


class Unit(nn.Module):
    """Three separable convolutions and a shortcut.

    (n, c, h, w) -> the unit's output and what its second convolution gives. `relu_inside` puts ReLU after each norm
    instead of before each separable convolution.
    """

    def __init__(
        self,
        in_channels: int,
        channels: Sequence[int],
        stride: int,
        rates: Sequence[int],
        shortcut: str,
        *,
        relu_inside: bool,
    ) -> None:
        super().__init__()
        first, second, third = channels
        self.conv1 = SeparableConv(in_channels, first, 1, rates[0], relu_inside)
        self.conv2 = SeparableConv(first, second, 1, rates[1], relu_inside)
        self.conv3 = SeparableConv(second, third, stride, rates[2], relu_inside)
        self.adds_input = shortcut == "identity"
        self.shortcut: nn.Sequential | None = None
        if shortcut == "conv":
            self.shortcut = nn.Sequential(
                nn.Conv2d(in_channels, third, 1, stride=stride, bias=False),
                nn.BatchNorm2d(third, eps=EPSILON),
            )

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        before_stride = self.conv2(self.conv1(x))
        y = self.conv3(before_stride)
        if self.shortcut is not None:
            y = y + self.shortcut(x)
        elif self.adds_input:
            y = y + x
        return y, before_stride


class SeparableConv(nn.Module):
    """Depthwise 3x3 and pointwise 1x1 convolution, each with batch norm, and ReLU before both or after each."""

    def __init__(
        self, in_channels: int, out_channels: int, stride: int, rate: int, relu_inside: bool
    ) -> None:
        super().__init__()
        self.relu_inside = relu_inside
        self.depthwise = nn.Conv2d(
            in_channels, in_channels, 3, stride, padding=rate, dilation=rate, groups=in_channels, bias=False
        )
        self.depthwise_norm = nn.BatchNorm2d(in_channels, eps=EPSILON)
        self.pointwise = nn.Conv2d(in_channels, out_channels, 1, bias=False)
        self.pointwise_norm = nn.BatchNorm2d(out_channels, eps=EPSILON)

    def forward(self, x: Tensor) -> Tensor:
        if self.relu_inside:
            x = F.relu(self.depthwise_norm(self.depthwise(x)))
            return F.relu(self.pointwise_norm(self.pointwise(x)))
        y: Tensor = self.pointwise_norm(self.pointwise(self.depthwise_norm(self.depthwise(F.relu(x)))))
        return y


def conv_norm_relu(in_channels: int, out_channels: int, *, stride: int = 1) -> nn.Sequential:
    """3x3 convolution, batch norm, ReLU."""
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, 3, stride, padding=1, bias=False),
        nn.BatchNorm2d(out_channels, eps=EPSILON),
        nn.ReLU(),
    )


def _scaled(channels: int, width_mult: float) -> int:
    return max(1, round(channels * width_mult))


def xception(
    name: str,
    *,
    in_channels: int = 3,
    output_stride: int = 32,
    multi_grid: tuple[int, int, int] = (1, 1, 1),
    levels: Sequence[int] = (0, 1, 2, 3, 4),
    width_mult: float = 1.0,
) -> XceptionEncoder:
    """The encoder "xception41", "xception65" or "xception71", with random weights.

    Raises UnknownNameError for another name, ValueError for an output stride other than 8, 16 and 32.
    """
    if name not in ROWS:
        raise UnknownNameError("encoder", name, ROWS)
    return XceptionEncoder(
        ROWS[name],
        in_channels=in_channels,
        output_stride=output_stride,
        multi_grid=multi_grid,
        levels=levels,
        width_mult=width_mult,
    )

"""AlexNet turned into convolutions. ImageNet Classification with Deep Convolutional Neural Networks.
Krizhevsky, Sutskever, Hinton, NIPS 2012; as a fully convolutional encoder by Long, Shelhamer, Darrell, CVPR
2015, 1411.4038.

Two networks go by the name. "caffenet" is Caffe's, on which FCN-AlexNet was published: it normalises after
pooling (the paper before) and has convolutions in two groups, a trace of the paper's two GPUs. "torchvision"
is that of Krizhevsky's later report (One weird trick, 1404.5997): other widths, no groups, no normalisation.
In both the hidden classifier layers became convolutions, the image gets a border of 100 zero pixels so that
they fit, and poolings round up as Caffe's do; torchvision's round down, which is the same for its 224 pixels.

Letters: n batch, c channels, h w pixels.
"""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor, nn
from torch.nn import functional as F

from pixelwise.errors import UnknownNameError


class Variant(NamedTuple):
    """channels: of conv1 ... conv5. groups: likewise. normalise: local response norm after pool1 and
    pool2."""

    channels: tuple[int, int, int, int, int]
    groups: tuple[int, int, int, int, int]
    normalise: bool


VARIANTS = {
    "caffenet": Variant((96, 256, 384, 384, 256), (1, 2, 1, 2, 2), True),  # bvlc_reference_caffenet
    "torchvision": Variant((64, 192, 384, 256, 256), (1, 1, 1, 1, 1), False),  # torchvision.models.alexnet
}


class AlexNet(nn.Module):
    """image (n, in_channels, h, w) -> [fc7]; any height and width from 1 up with the border of 100.

    `paths` says which layers lead to it, so that its
    place in the image can be computed. width_mult: times which the number of channels is taken (published:
    1).
    """

    strides: tuple[int, ...] = (32,)

    def __init__(
        self,
        in_channels: int = 3,
        *,
        variant: str = "caffenet",
        border_px: int = 100,
        width_mult: float = 1.0,
    ) -> None:
        super().__init__()
        if variant not in VARIANTS:
            raise UnknownNameError("variant of AlexNet", variant, VARIANTS)
        row = VARIANTS[variant]
        c1, c2, c3, c4, c5, hidden = (max(2, 2 * round(c * width_mult / 2)) for c in (*row.channels, 4096))
        g1, g2, g3, g4, g5 = row.groups
        self.conv1 = nn.Conv2d(in_channels, c1, 11, stride=4, padding=border_px, groups=g1)
        self.pool1 = nn.MaxPool2d(3, stride=2, ceil_mode=True)
        self.norm = nn.LocalResponseNorm(5, alpha=1e-4, beta=0.75, k=1.0) if row.normalise else nn.Identity()
        self.conv2 = nn.Conv2d(c1, c2, 5, padding=2, groups=g2)
        self.pool2 = nn.MaxPool2d(3, stride=2, ceil_mode=True)
        self.conv3 = nn.Conv2d(c2, c3, 3, padding=1, groups=g3)
        self.conv4 = nn.Conv2d(c3, c4, 3, padding=1, groups=g4)
        self.conv5 = nn.Conv2d(c4, c5, 3, padding=1, groups=g5)
        self.pool5 = nn.MaxPool2d(3, stride=2, ceil_mode=True)
        self.fc6 = nn.Conv2d(c5, hidden, 6)
        self.fc7 = nn.Conv2d(hidden, hidden, 1)
        self.drop = nn.Dropout(0.5)
        self.channels: tuple[int, ...] = (hidden,)
        for name, module in self.named_children():  # section 5 of the paper, and Caffe's prototxt
            if isinstance(module, nn.Conv2d):
                nn.init.normal_(module.weight, std=0.005 if name.startswith("fc") else 0.01)
                assert module.bias is not None
                nn.init.constant_(module.bias, 0.0 if name in ("conv1", "conv3") else 1.0)

    @property
    def paths(self) -> list[list[nn.Module]]:
        """For each feature, the convolutions and poolings between the image and it."""
        return [[layer for layer in self.children() if isinstance(layer, nn.Conv2d | nn.MaxPool2d)]]

    def forward(self, image: Tensor) -> list[Tensor]:
        x = self.norm(self.pool1(F.relu(self.conv1(image))))  # (n, 96, (h+189)/8, (w+189)/8)
        x = self.norm(self.pool2(F.relu(self.conv2(x))))  # (n, 256, (h+189)/16, (w+189)/16)
        x = F.relu(self.conv3(x))  # (n, 384, (h+189)/16, (w+189)/16)
        x = F.relu(self.conv4(x))
        x = self.pool5(F.relu(self.conv5(x)))  # (n, 256, (h+189)/32, (w+189)/32)
        x = self.drop(F.relu(self.fc6(x)))  # (n, 4096, (h+189)/32 - 5, (w+189)/32 - 5)
        return [self.drop(F.relu(self.fc7(x)))]

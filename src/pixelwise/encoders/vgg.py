"""VGG-16 turned into convolutions. Very Deep Convolutional Networks for Large-Scale Image Recognition.
Simonyan, Zisserman, ICLR 2015, 1409.1556 (column D of Table 1); as a fully convolutional encoder by Long,
Shelhamer, Darrell, CVPR 2015, 1411.4038.

As in the FCN release, the two hidden classifier layers became convolutions (7x7 and 1x1), the image gets a
border of 100 zero pixels so that a 7x7 window fits whatever its size, and poolings round up, as Caffe's do.
Names of the layers are Caffe's: conv1_1 ... conv5_3, fc6, fc7.

Letters: n batch, c channels, h w pixels.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F


class VGG16(nn.Module):
    """image (n, in_channels, h, w) -> [pool3, pool4, fc7], finest first.

    Any height and width from 1 up with the border of 100. Because of the border the features are larger than
    the image over their stride; `paths` says which layers lead to each, so that their place in the image can
    be computed. width_mult: times which the number of channels is taken (published: 1).
    """

    strides: tuple[int, ...] = (8, 16, 32)

    def __init__(self, in_channels: int = 3, *, border_px: int = 100, width_mult: float = 1.0) -> None:
        super().__init__()
        c1, c2, c3, c4, hidden = (max(1, round(c * width_mult)) for c in (64, 128, 256, 512, 4096))
        self.conv1_1 = nn.Conv2d(in_channels, c1, 3, padding=border_px)
        self.conv1_2 = nn.Conv2d(c1, c1, 3, padding=1)
        self.pool1 = nn.MaxPool2d(2, ceil_mode=True)
        self.conv2_1 = nn.Conv2d(c1, c2, 3, padding=1)
        self.conv2_2 = nn.Conv2d(c2, c2, 3, padding=1)
        self.pool2 = nn.MaxPool2d(2, ceil_mode=True)
        self.conv3_1 = nn.Conv2d(c2, c3, 3, padding=1)
        self.conv3_2 = nn.Conv2d(c3, c3, 3, padding=1)
        self.conv3_3 = nn.Conv2d(c3, c3, 3, padding=1)
        self.pool3 = nn.MaxPool2d(2, ceil_mode=True)
        self.conv4_1 = nn.Conv2d(c3, c4, 3, padding=1)
        self.conv4_2 = nn.Conv2d(c4, c4, 3, padding=1)
        self.conv4_3 = nn.Conv2d(c4, c4, 3, padding=1)
        self.pool4 = nn.MaxPool2d(2, ceil_mode=True)
        self.conv5_1 = nn.Conv2d(c4, c4, 3, padding=1)
        self.conv5_2 = nn.Conv2d(c4, c4, 3, padding=1)
        self.conv5_3 = nn.Conv2d(c4, c4, 3, padding=1)
        self.pool5 = nn.MaxPool2d(2, ceil_mode=True)
        self.fc6 = nn.Conv2d(c4, hidden, 7)
        self.fc7 = nn.Conv2d(hidden, hidden, 1)
        self.drop = nn.Dropout(0.5)
        self.channels: tuple[int, ...] = (c3, c4, hidden)
        for module in self.modules():  # He's: with the paper's, it did not start to learn by itself
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
                assert module.bias is not None
                nn.init.zeros_(module.bias)

    @property
    def paths(self) -> list[list[nn.Module]]:
        """For each feature, the convolutions and poolings between the image and it."""
        layers = [layer for layer in self.children() if layer is not self.drop]
        return [layers[: layers.index(last) + 1] for last in (self.pool3, self.pool4, self.fc7)]

    def forward(self, image: Tensor) -> list[Tensor]:
        x = self.pool1(F.relu(self.conv1_2(F.relu(self.conv1_1(image)))))  # (n, 64, (h+198)/2, (w+198)/2)
        x = self.pool2(F.relu(self.conv2_2(F.relu(self.conv2_1(x)))))  # (n, 128, (h+198)/4, (w+198)/4)
        x = pool3 = self.pool3(F.relu(self.conv3_3(F.relu(self.conv3_2(F.relu(self.conv3_1(x)))))))
        x = pool4 = self.pool4(F.relu(self.conv4_3(F.relu(self.conv4_2(F.relu(self.conv4_1(x)))))))
        x = self.pool5(F.relu(self.conv5_3(F.relu(self.conv5_2(F.relu(self.conv5_1(x)))))))
        x = self.drop(F.relu(self.fc6(x)))  # (n, 4096, (h+198)/32 - 6, (w+198)/32 - 6)
        fc7 = self.drop(F.relu(self.fc7(x)))
        return [pool3, pool4, fc7]

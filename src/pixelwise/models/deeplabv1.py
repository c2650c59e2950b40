"""Semantic Image Segmentation with Deep Convolutional Nets and Fully Connected CRFs (DeepLab). Chen, Papandreou,
Kokkinos, Murphy, Yuille, ICLR 2015, 1412.7062.

The networks are those of the Caffe release; the CRF is a separate step. VGG-16 keeps its
convolutions; the last two poolings lose their stride, conv5 and fc6 are dilated instead ("the hole algorithm"), and
fc6 becomes smaller. Poolings are 3x3 with padding 1, rounded up, so that sides of 8 i + 1 pixels keep their corners
in place, and before fc6 stands an average pooling (pool5a) that the paper does not mention.

Whatever the size of the image, the logits are enlarged with aligned corners. At sides of 8 i + 1 (321 in training,
513 in the authors' tests) that is the release's enlargement by 8; other images the authors pad to 513 with the mean
colour, zeros after preprocessing, and cut afterwards.

Letters: n batch, c channels, k classes, h w pixels.
"""

from __future__ import annotations

import os
from collections import OrderedDict
from typing import NamedTuple

from torch import Tensor, nn
from torch.nn import functional as F

from pixelwise.layers import classes_of, enlarge_like
from pixelwise.models.building import builder, variant


class FieldOfView(NamedTuple):
    """How fc6 looks at its input: kernel and rate, and the channels of fc6 and fc7."""

    kernel: int
    rate: int
    channels: int


VARIANTS = {  # Table 2: name, kernel size, input stride; parameters follow from them
    "7x7": FieldOfView(7, 4, 4096),  # DeepLab-CRF-7x7, sees 224 pixels
    # DeepLab-CRF, sees 128 pixels: the paper's plain DeepLab (init vgg16_128)
    "4x4": FieldOfView(4, 4, 4096),
    "4x4_rate8": FieldOfView(4, 8, 4096),  # DeepLab-CRF-4x4, sees 224 pixels
    "largefov": FieldOfView(3, 12, 1024),  # DeepLab-CRF-LargeFOV, sees 224 pixels (init vgg16_20M)
}


class DeepLabV1(nn.Module):
    """image (n, in_channels, h, w), float -> {"out": logits (n, num_classes, h, w)}.

    Any height and width from 1 up; sides of 8 i + 1 are the release's, see above. There is no norm, so any batch size
    trains. width_mult scales all channels (published: 1).
    """

    stride = 8
    align_corners = True
    unused_parameters: tuple[str, ...] = ()

    def __init__(
        self, field: FieldOfView, num_classes: int = 21, *, in_channels: int = 3, width_mult: float = 1.0
    ) -> None:
        super().__init__()
        self.backbone = DilatedVGG16(in_channels, width_mult)
        self.classifier = Classifier(
            self.backbone.channels[-1],
            num_classes,
            field._replace(channels=round(field.channels * width_mult)),
        )

    @property
    def num_classes(self) -> int:
        return classes_of(self.classifier)

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        """image (n, c, h, w) -> {"out": logits (n, k, h, w)}."""
        return OrderedDict(out=enlarge_like(self.coarse(image), image, align_corners=True))

    def coarse(self, image: Tensor) -> Tensor:
        """image (n, c, h, w) -> logits (n, k, h', w'); h' is h halved three times, h // 2 + 1 each."""
        logits: Tensor = self.classifier(self.backbone(image)[-1])
        return logits


class DilatedVGG16(nn.Module):
    """image (n, in_channels, h, w) -> [pool5 (n, 512, h', w')], of stride 8; any height and width from 1 up.

    VGG-16 (1409.1556, Table 1, column D) with names as in Caffe.
    """

    strides: tuple[int, ...] = (8,)

    def __init__(self, in_channels: int = 3, width_mult: float = 1.0) -> None:
        super().__init__()
        c64, c128, c256, c512 = (max(1, round(c * width_mult)) for c in (64, 128, 256, 512))
        self.conv1_1 = conv3x3(in_channels, c64)
        self.conv1_2 = conv3x3(c64, c64)
        self.pool1 = nn.MaxPool2d(3, 2, padding=1, ceil_mode=True)
        self.conv2_1 = conv3x3(c64, c128)
        self.conv2_2 = conv3x3(c128, c128)
        self.pool2 = nn.MaxPool2d(3, 2, padding=1, ceil_mode=True)
        self.conv3_1 = conv3x3(c128, c256)
        self.conv3_2 = conv3x3(c256, c256)
        self.conv3_3 = conv3x3(c256, c256)
        self.pool3 = nn.MaxPool2d(3, 2, padding=1, ceil_mode=True)
        self.conv4_1 = conv3x3(c256, c512)
        self.conv4_2 = conv3x3(c512, c512)
        self.conv4_3 = conv3x3(c512, c512)
        self.pool4 = nn.MaxPool2d(3, 1, padding=1)
        self.conv5_1 = conv3x3(c512, c512, rate=2)
        self.conv5_2 = conv3x3(c512, c512, rate=2)
        self.conv5_3 = conv3x3(c512, c512, rate=2)
        self.pool5 = nn.MaxPool2d(3, 1, padding=1)
        self.channels: tuple[int, ...] = (c512,)

    def forward(self, image: Tensor) -> list[Tensor]:
        x = self.pool1(F.relu(self.conv1_2(F.relu(self.conv1_1(image)))))  # (n, 64, h/2, w/2)
        x = self.pool2(F.relu(self.conv2_2(F.relu(self.conv2_1(x)))))  # (n, 128, h/4, w/4)
        x = self.pool3(
            F.relu(self.conv3_3(F.relu(self.conv3_2(F.relu(self.conv3_1(x))))))
        )  # (n, 256, h/8, w/8)
        x = self.pool4(
            F.relu(self.conv4_3(F.relu(self.conv4_2(F.relu(self.conv4_1(x))))))
        )  # (n, 512, h/8, w/8)
        x = self.pool5(F.relu(self.conv5_3(F.relu(self.conv5_2(F.relu(self.conv5_1(x)))))))
        return [x]


class Classifier(nn.Module):
    """pool5a, fc6, fc7, fc8: (n, c, h, w) -> logits (n, k, h, w)."""

    def __init__(self, in_channels: int, num_classes: int, field: FieldOfView, *, pool: bool = True) -> None:
        super().__init__()
        padding = (field.kernel - 1) * field.rate // 2
        # Divides by 9 at the border too
        self.pool5a = nn.AvgPool2d(3, 1, padding=1) if pool else nn.Identity()
        fc6 = nn.Conv2d(in_channels, field.channels, field.kernel, padding=padding, dilation=field.rate)
        self.fc6 = he_normal(fc6)
        self.fc7 = he_normal(nn.Conv2d(field.channels, field.channels, 1))
        self.fc8 = nn.Conv2d(field.channels, num_classes, 1)
        self.dropout = nn.Dropout(0.5)
        nn.init.normal_(self.fc8.weight, std=0.01)
        assert self.fc8.bias is not None
        nn.init.zeros_(self.fc8.bias)

    def forward(self, x: Tensor) -> Tensor:
        x = self.dropout(F.relu(self.fc6(self.pool5a(x))))  # (n, 1024 or 4096, h, w)
        x = self.dropout(F.relu(self.fc7(x)))
        logits: Tensor = self.fc8(x)
        return logits


def conv3x3(in_channels: int, out_channels: int, rate: int = 1) -> nn.Conv2d:
    return he_normal(nn.Conv2d(in_channels, out_channels, 3, padding=rate, dilation=rate))


def he_normal(conv: nn.Conv2d) -> nn.Conv2d:
    """The convolution with He's initialisation; the authors always began with ImageNet weights."""
    nn.init.kaiming_normal_(conv.weight, nonlinearity="relu")
    assert conv.bias is not None
    nn.init.zeros_(conv.bias)
    return conv


def _vgg16(
    name: str,
    *,
    num_classes: int = 21,
    in_channels: int = 3,
    weights: str | os.PathLike[str] | None = None,
    width_mult: float = 1.0,
) -> DeepLabV1:
    """num_classes, in_channels: of the task. weights: the path of a checkpoint, or None. width_mult: scales all
    channels.

    Raises TypeError for an unknown argument, ValueError for counts below 1, WeightsError for weights that do not fit.
    """
    field = VARIANTS[name.removeprefix("deeplabv1_vgg16_")]
    return DeepLabV1(field, num_classes, in_channels=in_channels, width_mult=width_mult)


deeplabv1_vgg16_largefov = variant(
    _vgg16, "deeplabv1_vgg16_largefov", "DeepLab-LargeFOV: fc6 is 3x3 with rate 12, 1024 channels."
)
deeplabv1_vgg16_7x7 = variant(
    _vgg16, "deeplabv1_vgg16_7x7", "DeepLab-7x7: fc6 keeps VGG's 7x7 window, with rate 4."
)


@builder
def deeplabv1_vgg16_4x4(
    *,
    num_classes: int = 21,
    in_channels: int = 3,
    weights: str | os.PathLike[str] | None = None,
    width_mult: float = 1.0,
    rate: int = 4,
) -> DeepLabV1:
    """DeepLab with a 4x4 window in fc6; arguments as in `deeplabv1_vgg16_largefov`.

    rate: 4 is the paper's plain DeepLab, 8 its DeepLab-4x4 of the larger field of view; their tensors look alike.
    """
    if rate not in (4, 8):
        raise ValueError(f"rate must be 4 (DeepLab) or 8 (DeepLab-4x4), got {rate!r}")
    field = VARIANTS["4x4" if rate == 4 else "4x4_rate8"]
    return DeepLabV1(field, num_classes, in_channels=in_channels, width_mult=width_mult)

"""Fully Convolutional Networks for Semantic Segmentation. Long, Shelhamer, Darrell, CVPR 2015, 1411.4038.

A classifier becomes convolutions, its coarse scores are enlarged by deconvolution (FCN-32s), and finer layers
are scored and added on the way up (FCN-16s, FCN-8s). Sizes work out for every image because it gets a border
of 100 zero pixels; where the image lies in the enlarged scores follows from the layers' geometry, see
`Affine`.

This is the authors' Caffe release ("heavy", fcn.berkeleyvision.org). Against the paper: all deconvolutions
are fixed to bilinear interpolation (deconvolution="inner" has the paper's, "learned" makes all of them
learn), training is online with high momentum and gains some five points. FCN-8s at-once is the release's:
trained in one go, with skips scaled down. FCN-GoogLeNet was never released; it is built here by the paper's
words. For the dilated ResNet variant that torchvision calls FCN, see `segmentation/fcn.py`.

Letters: n batch, c channels, k classes, h w pixels.
"""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import torch
from torch import Tensor, nn

from pixelwise.encoders.alexnet import AlexNet
from pixelwise.encoders.googlenet import GoogLeNet
from pixelwise.encoders.vgg import VGG16
from pixelwise.models.building import builder, variant, with_encoder_weights
from pixelwise.weights.origin import note_origin

Deconvolution = Literal["frozen", "inner", "learned"]
"""Which deconvolutions learn: none (the release), all but the last (the paper), all."""


class Backbone(Protocol):
    """An encoder of which the place of every feature in the image can be computed.

    `paths[i]` are the convolutions and poolings between the image and feature i.
    """

    channels: tuple[int, ...]
    strides: tuple[int, ...]

    @property
    def paths(self) -> list[list[nn.Module]]: ...

    def __call__(self, image: Tensor) -> list[Tensor]: ...


class FCN32s(nn.Module):
    """One stream: scores of stride 32, enlarged at once. Any backbone whose last feature has stride 32.

    image (n, c, h, w), float -> {"out": logits (n, k, h, w)}, any height and width from 1 up. The enlargement
    is a deconvolution followed by a crop, not an interpolation, so `coarse` has stride 1 and is "out" itself.
    """

    stride = 1
    align_corners = False  # never used: coarse logits already have the size of the image
    unused_parameters: tuple[str, ...] = ()

    def __init__(
        self, backbone: Backbone, num_classes: int = 21, *, deconvolution: Deconvolution = "frozen"
    ) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.backbone = backbone
        learned = _learned(deconvolution)
        self.score_fr = Score(backbone.channels[-1], num_classes)
        scores = Affine.of(backbone.paths[-1])
        self.upscore = Upscore(num_classes, scores.kernel_px(32), 32, learned=learned.last)
        self.offset = scores.then(self.upscore).offset()  # 19 on VGG-16, 18 on CaffeNet, 98 on GoogLeNet

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        """image (n, c, h, w) -> {"out": logits (n, k, h, w)}."""
        return OrderedDict(out=self.coarse(image))

    def coarse(self, image: Tensor) -> Tensor:
        """image (n, c, h, w) -> logits (n, k, h, w): stride 1, nothing is left to upsample."""
        *_, features = self.backbone(image)  # (n, c, (h+198)/32 - 6, (w+198)/32 - 6) for VGG-16
        logits = self.upscore(self.score_fr(features))  # (n, k, h + 45 or more, w + 45 or more) for VGG-16
        return crop(logits, self.offset, image)


class FCN16s(nn.Module):
    """Two streams: scores of stride 32 enlarged twice, plus scores of pool4, enlarged 16 times.

    image (n, c, h, w), float -> {"out": logits (n, k, h, w)}, any height and width from 1 up; `coarse` is
    "out" itself as in FCN32s. The backbone's last two features have strides 16 and 32.
    """

    stride = 1
    align_corners = False  # never used: coarse logits already have the size of the image
    unused_parameters: tuple[str, ...] = ()

    def __init__(
        self, backbone: Backbone, num_classes: int = 21, *, deconvolution: Deconvolution = "frozen"
    ) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.backbone = backbone
        learned = _learned(deconvolution)
        self.score_fr = Score(backbone.channels[-1], num_classes)
        self.upscore2 = Upscore(num_classes, 4, 2, learned=learned.inner)
        self.score_pool4 = Score(backbone.channels[-2], num_classes)
        self.upscore16 = Upscore(num_classes, 32, 16, learned=learned.last)
        pool4, scores = (Affine.of(path) for path in backbone.paths[-2:])
        fused = scores.then(self.upscore2)
        self.offset_pool4 = pool4.offset(fused)  # 5
        self.offset = fused.then(self.upscore16).offset()  # 27

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        """image (n, c, h, w) -> {"out": logits (n, k, h, w)}."""
        return OrderedDict(out=self.coarse(image))

    def coarse(self, image: Tensor) -> Tensor:
        """image (n, c, h, w) -> logits (n, k, h, w): stride 1, nothing is left to upsample."""
        *_, pool4, fc7 = self.backbone(image)
        x = self.upscore2(self.score_fr(fc7))  # stride 16
        x = x + crop(self.score_pool4(pool4), self.offset_pool4, x)
        return crop(self.upscore16(x), self.offset, image)  # (n, k, h, w)


class FCN8s(nn.Module):
    """Three streams: scores enlarged twice, plus scores of pool4, enlarged twice, plus pool3's, enlarged 8
    times.

    image (n, c, h, w), float -> {"out": logits (n, k, h, w)}, any height and width from 1 up; `coarse` is
    "out" itself as in FCN32s. at_once: the variant that is trained in one go; its skips are scaled down
    before they are scored.
    """

    stride = 1
    align_corners = False  # never used: coarse logits already have the size of the image
    unused_parameters: tuple[str, ...] = ()

    def __init__(
        self,
        backbone: Backbone,
        num_classes: int = 21,
        *,
        at_once: bool = False,
        deconvolution: Deconvolution = "frozen",
    ) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.backbone = backbone
        self.scale_pool4, self.scale_pool3 = AT_ONCE_SCALES if at_once else (1.0, 1.0)
        learned = _learned(deconvolution)
        self.score_fr = Score(backbone.channels[-1], num_classes)
        self.upscore2 = Upscore(num_classes, 4, 2, learned=learned.inner)
        self.score_pool4 = Score(backbone.channels[-2], num_classes)
        self.upscore_pool4 = Upscore(num_classes, 4, 2, learned=learned.inner)
        self.score_pool3 = Score(backbone.channels[-3], num_classes)
        self.upscore8 = Upscore(num_classes, 16, 8, learned=learned.last)
        pool3, pool4, scores = (Affine.of(path) for path in backbone.paths[-3:])
        fused4 = scores.then(self.upscore2)
        fused3 = fused4.then(self.upscore_pool4)
        self.offset_pool4 = pool4.offset(fused4)  # 5
        self.offset_pool3 = pool3.offset(fused3)  # 9
        self.offset = fused3.then(self.upscore8).offset()  # 31

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        """image (n, c, h, w) -> {"out": logits (n, k, h, w)}."""
        return OrderedDict(out=self.coarse(image))

    def coarse(self, image: Tensor) -> Tensor:
        """image (n, c, h, w) -> logits (n, k, h, w): stride 1, nothing is left to upsample."""
        pool3, pool4, fc7 = self.backbone(image)
        x = self.upscore2(self.score_fr(fc7))  # stride 16
        x = x + crop(self.score_pool4(self.scale_pool4 * pool4), self.offset_pool4, x)
        x = self.upscore_pool4(x)  # stride 8
        x = x + crop(self.score_pool3(self.scale_pool3 * pool3), self.offset_pool3, x)
        return crop(self.upscore8(x), self.offset, image)  # (n, k, h, w)


AT_ONCE_SCALES = (0.01, 0.0001)
"""Of pool4 and pool3, voc-fcn8s-atonce/net.py: layers with constant weights in Caffe."""


class Score(nn.Conv2d):
    """1x1 convolution to class scores, zero at first, as in the release."""

    def __init__(self, in_channels: int, num_classes: int) -> None:
        super().__init__(in_channels, num_classes, 1)
        nn.init.zeros_(self.weight)
        assert self.bias is not None
        nn.init.zeros_(self.bias)


class Upscore(nn.ConvTranspose2d):
    """Deconvolution that enlarges `stride` times, each class by itself at first: bilinear interpolation.

    The weight is dense, (k, k, kernel, kernel), as in the files; what joins two classes is zero unless it
    `learned`.
    """

    def __init__(self, num_classes: int, kernel_px: int, stride: int, *, learned: bool) -> None:
        super().__init__(num_classes, num_classes, kernel_px, stride=stride, bias=False)
        self.weight.requires_grad_(learned)
        with torch.no_grad():
            self.weight.copy_(bilinear(num_classes, kernel_px))


def bilinear(num_classes: int, kernel_px: int) -> Tensor:
    """The weight (k, k, kernel, kernel) of a deconvolution that interpolates: a tent on the diagonal, else
    zero."""
    reach = (kernel_px + 1) // 2
    centre = reach - 1 if kernel_px % 2 else reach - 0.5
    tent = 1 - (torch.arange(kernel_px) - centre).abs() / reach
    classes = torch.arange(num_classes)
    weight = torch.zeros(num_classes, num_classes, kernel_px, kernel_px)
    weight[classes, classes] = tent[:, None] * tent[None, :]
    return weight


def crop(scores: Tensor, offset: int, like: Tensor) -> Tensor:
    """The part of `scores` that begins at row and column `offset` and has the height and width of `like`."""
    h, w = like.shape[2], like.shape[3]
    return scores[:, :, offset : offset + h, offset : offset + w]


@dataclass(frozen=True)
class Affine:
    """Where pixels of the image lie in a feature map: pixel x at coordinate scale * x + shift, in either
    direction.

    A layer with kernel k, stride s and padding p maps x to (x + p - (k - 1) / 2) / s, a deconvolution to s x
    + (k - 1) / 2 - p; a path composes them. Two maps of the same scale lie on each other after the one with
    the larger shift has lost as many rows and columns as the shifts differ by. (This is Caffe's rule,
    coord_map.py, and all numbers are exact: halves of whole numbers, divided by powers of two.)

    >>> Affine.of([nn.Conv2d(1, 1, 3, padding=100), nn.MaxPool2d(2)])
    Affine(scale=0.5, shift=49.25)
    """

    scale: float = 1.0
    shift: float = 0.0

    @classmethod
    def of(cls, layers: Iterable[nn.Module]) -> Affine:
        """The composition of some layers, from the image on."""
        place = cls()
        for layer in layers:
            place = place.then(layer)
        return place

    def then(self, layer: nn.Module) -> Affine:
        """One layer further on."""
        kernel, stride, padding, dilation = (
            _same(getattr(layer, name)) for name in ("kernel_size", "stride", "padding", "dilation")
        )
        middle = dilation * (kernel - 1) / 2 - padding
        if isinstance(layer, nn.ConvTranspose2d):
            return Affine(stride * self.scale, stride * self.shift + middle)
        return Affine(self.scale / stride, (self.shift - middle) / stride)

    def kernel_px(self, stride: int) -> int:
        """Of a deconvolution that enlarges `stride` times and puts the image on whole pixels: 2 stride or 1
        less."""
        return 2 * stride - (2 * (stride * self.shift - 0.5) % 2 != 0)

    def offset(self, other: Affine | None = None) -> int:
        """Rows and columns that this map has before the first one of `other` (default: of the image)."""
        other = other or Affine()
        offset = self.shift - other.shift
        if self.scale != other.scale or offset != int(offset) or offset < 0:
            raise ValueError(
                f"this backbone's features cannot be cropped to the image: they lie at {self}, expected whole "
                f"pixels from {other} on; give the encoder a larger border_px"
            )
        return int(offset)


def _same(sizes: int | tuple[int, int]) -> int:
    """The one number that a square layer has in both directions."""
    return sizes if isinstance(sizes, int) else sizes[0]


@dataclass(frozen=True)
class _Learned:
    inner: bool
    last: bool


def _learned(deconvolution: str) -> _Learned:
    try:
        return {
            "frozen": _Learned(inner=False, last=False),
            "inner": _Learned(inner=True, last=False),
            "learned": _Learned(inner=True, last=True),
        }[deconvolution]
    except KeyError:
        raise ValueError(
            f"deconvolution must be 'frozen', 'inner' or 'learned', got {deconvolution!r}"
        ) from None


def _fcn32s(
    name: str,
    *,
    num_classes: int = 21,
    in_channels: int = 3,
    weights: str | os.PathLike[str] | None = None,
    progress: bool = True,
    weights_backbone: Any = None,
    deconvolution: Deconvolution = "frozen",
    width_mult: float = 1.0,
) -> FCN32s:
    """num_classes, in_channels: of the task. weights: the path of a checkpoint of the whole network, or None.
    progress: draw a bar while fetching. weights_backbone: ImageNet weights for the encoder: the path of a checkpoint
    with torchvision's names or, of VGG-16, Caffe's, a member of torchvision's weights for this encoder or its name,
    or None. deconvolution: which deconvolutions learn, "frozen" (none), "inner" (all but the last) or "learned".
    width_mult: times which the encoder's channels are taken (published: 1).

    Raises TypeError for an unknown argument, ValueError for counts below 1, WeightsError for weights that do
    not fit.
    """
    encoder: VGG16 | AlexNet
    if name == "fcn32s_vgg16":
        encoder, kind = VGG16(in_channels, width_mult=width_mult), "vgg16"
    else:
        encoder, kind = AlexNet(in_channels, variant="torchvision", width_mult=width_mult), "alexnet"
    backbone = with_encoder_weights(encoder, kind, weights_backbone, progress=progress)
    return FCN32s(backbone, num_classes, deconvolution=deconvolution)


fcn32s_vgg16 = variant(_fcn32s, "fcn32s_vgg16", "FCN-32s on VGG-16 (fcn32s-heavy-pascal).")
fcn32s_alexnet_torchvision = variant(
    _fcn32s,
    "fcn32s_alexnet_torchvision",
    "FCN-32s on torchvision's AlexNet, of which no weights were published.",
)


def _fcn32s_caffe(
    name: str,
    *,
    num_classes: int = 21,
    in_channels: int = 3,
    weights: str | os.PathLike[str] | None = None,
    weights_backbone: Any = None,
    deconvolution: Deconvolution = "frozen",
    width_mult: float = 1.0,
) -> FCN32s:
    """weights_backbone: ImageNet weights for the encoder, the path of a checkpoint with Caffe's names, or None. The
    other arguments and the errors are those of `fcn32s_vgg16`.
    """
    encoder: AlexNet | GoogLeNet
    if name == "fcn32s_alexnet":
        encoder, kind = AlexNet(in_channels, width_mult=width_mult), "caffenet"
    else:
        encoder, kind = GoogLeNet(in_channels, width_mult=width_mult), "googlenet_caffe"
    backbone = with_encoder_weights(encoder, kind, weights_backbone)
    return FCN32s(backbone, num_classes, deconvolution=deconvolution)


fcn32s_alexnet = variant(_fcn32s_caffe, "fcn32s_alexnet", "FCN-32s on CaffeNet (fcn-alexnet-pascal).")
fcn32s_googlenet = variant(_fcn32s_caffe, "fcn32s_googlenet", "FCN-32s on Caffe's GoogLeNet, never released.")


@builder
def fcn32s_googlenet_torchvision(
    *,
    num_classes: int = 21,
    in_channels: int = 3,
    weights: str | os.PathLike[str] | None = None,
    progress: bool = True,
    weights_backbone: Any = None,
    deconvolution: Deconvolution = "frozen",
    width_mult: float = 1.0,
    transform_input: bool | None = None,
) -> FCN32s:
    """FCN-32s on torchvision's GoogLeNet, with batch norm; arguments as in `fcn32s_vgg16`.

    transform_input: see `GoogLeNet`; None means with torchvision's weights_backbone only.
    """
    if transform_input is None:
        transform_input = weights_backbone is not None and in_channels == 3
    encoder = GoogLeNet(
        in_channels, variant="torchvision", transform_input=transform_input, width_mult=width_mult
    )
    backbone = with_encoder_weights(encoder, "googlenet", weights_backbone, progress=progress)
    network = FCN32s(backbone, num_classes, deconvolution=deconvolution)
    note_origin(network, "fcn32s_googlenet_torchvision", {"transform_input": transform_input})
    return network


@builder
def fcn16s_vgg16(
    *,
    num_classes: int = 21,
    in_channels: int = 3,
    weights: str | os.PathLike[str] | None = None,
    progress: bool = True,
    weights_backbone: Any = None,
    deconvolution: Deconvolution = "frozen",
    width_mult: float = 1.0,
) -> FCN16s:
    """FCN-16s on VGG-16 (fcn16s-heavy-pascal); arguments as in `fcn32s_vgg16`."""
    encoder = VGG16(in_channels, width_mult=width_mult)
    backbone = with_encoder_weights(encoder, "vgg16", weights_backbone, progress=progress)
    return FCN16s(backbone, num_classes, deconvolution=deconvolution)


def _fcn8s(
    name: str,
    *,
    num_classes: int = 21,
    in_channels: int = 3,
    weights: str | os.PathLike[str] | None = None,
    progress: bool = True,
    weights_backbone: Any = None,
    deconvolution: Deconvolution = "frozen",
    width_mult: float = 1.0,
) -> FCN8s:
    """The arguments and errors are those of `fcn32s_vgg16`."""
    encoder = VGG16(in_channels, width_mult=width_mult)
    backbone = with_encoder_weights(encoder, "vgg16", weights_backbone, progress=progress)
    at_once = name == "fcn8s_atonce_vgg16"
    return FCN8s(backbone, num_classes, at_once=at_once, deconvolution=deconvolution)


fcn8s_vgg16 = variant(_fcn8s, "fcn8s_vgg16", "FCN-8s on VGG-16 (fcn8s-heavy-pascal).")
fcn8s_atonce_vgg16 = variant(_fcn8s, "fcn8s_atonce_vgg16", "FCN-8s at-once on VGG-16 (fcn8s-atonce-pascal).")

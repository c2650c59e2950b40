"""FCN on ConvNeXt: a fully convolutional head (1411.4038) on the encoder of A ConvNet for the 2020s
(2201.03545).

No paper of its own: these are the `model_convnext_*_fcn` of R's torchvision (mlverse). A 3x3 convolution of
fixed width on the last stage (stride 32) and, for training, a second head on the stage before it. Unlike R,
which leaves it out, every feature is normalised first, as the ConvNeXt authors do for segmentation;
`output_norms=False` gives R's network.

Letters: n batch, k classes, c channels, h w pixels.
"""

from __future__ import annotations

import os
from collections import OrderedDict

from torch import Tensor, nn

from pixelwise.encoders import Encoder
from pixelwise.encoders.convnext import SIZES, ConvNeXt
from pixelwise.layers import classes_of, enlarge_like
from pixelwise.models.building import variant


class FCNConvNeXt(nn.Module):
    """image (n, in_channels, h, w), float -> {"out": logits (n, k, h, w)}, with `aux_loss` also "aux", alike.

    Any sides from 32 pixels on. `backbone` gives one feature, or two with `aux_loss`: the last feeds the
    classifier, the one before it the auxiliary head. In training batch norm needs more than one value a
    channel: at batch size 1 an image with a side of 64 pixels or more.
    """

    align_corners = False
    unused_parameters: tuple[str, ...] = ()

    def __init__(
        self,
        backbone: Encoder,
        num_classes: int = 21,
        *,
        aux_loss: bool = False,
        width: int = 512,
        aux_width: int = 256,
        dropout: float = 0.1,
    ) -> None:
        super().__init__()
        self.stride = backbone.strides[-1]
        self.backbone = backbone
        self.classifier = Head(backbone.channels[-1], width, num_classes, dropout)
        self.aux_classifier = (
            Head(backbone.channels[-2], aux_width, num_classes, dropout) if aux_loss else None
        )

    @property
    def num_classes(self) -> int:
        return classes_of(self.classifier)

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        """image (n, c, h, w) -> logits (n, k, h, w) under "out" and, if there is an auxiliary head, "aux"."""
        features = self.backbone(image)
        logits = OrderedDict(
            out=enlarge_like(self.classifier(features[-1]), image, align_corners=self.align_corners)
        )
        if self.aux_classifier is not None:
            aux = self.aux_classifier(features[-2])
            logits["aux"] = enlarge_like(aux, image, align_corners=self.align_corners)
        return logits

    def coarse(self, image: Tensor) -> Tensor:
        """image (n, c, h, w) -> logits (n, k, h/32, w/32): "out" before it is enlarged."""
        logits: Tensor = self.classifier(self.backbone(image)[-1])
        return logits


class Head(nn.Sequential):
    """3x3 convolution, batch norm, ReLU, dropout, 1x1 convolution to classes."""

    def __init__(self, in_channels: int, width: int, num_classes: int, dropout: float) -> None:
        super().__init__(
            nn.Conv2d(in_channels, width, 3, padding=1, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(),
            nn.Dropout(dropout),
            nn.Conv2d(width, num_classes, 1),
        )


def _fcn_convnext(
    name: str,
    *,
    num_classes: int = 21,
    in_channels: int = 3,
    weights: str | os.PathLike[str] | None = None,
    aux_loss: bool = False,
    output_norms: bool = True,
    drop_path: float = 0.0,
    layer_scale: float = 1e-6,
    dropout: float = 0.1,
    channels: tuple[int, ...] | None = None,
    depths: tuple[int, ...] | None = None,
    width: int = 512,
    aux_width: int = 256,
) -> FCNConvNeXt:
    """num_classes, in_channels: of the task. weights: the path of a checkpoint of any known family that fits this
    network, or None. aux_loss: have the auxiliary head. output_norms, drop_path, layer_scale: see `ConvNeXt`;
    dropout, width, aux_width: see `FCNConvNeXt`. channels, depths: sizes other than the variant's.

    Raises TypeError for an unknown argument, ValueError for impossible sizes, WeightsError for weights that
    do not fit.
    """
    size = SIZES[name.removeprefix("fcn_")]
    encoder = ConvNeXt(
        channels or size.channels, depths or size.depths, in_channels=in_channels, levels=(2, 3) if aux_loss else (3,),
        output_norms=output_norms, drop_path=drop_path, layer_scale=layer_scale,
    )  # fmt: skip
    return FCNConvNeXt(
        encoder, num_classes, aux_loss=aux_loss, width=width, aux_width=aux_width, dropout=dropout
    )


fcn_convnext_tiny = variant(_fcn_convnext, "fcn_convnext_tiny", "FCN on ConvNeXt-Tiny, 31.4 M parameters.")
fcn_convnext_small = variant(_fcn_convnext, "fcn_convnext_small", "FCN on ConvNeXt-Small, 53.0 M parameters.")
fcn_convnext_base = variant(_fcn_convnext, "fcn_convnext_base", "FCN on ConvNeXt-Base, 92.3 M parameters.")

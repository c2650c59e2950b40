"""UPerNet: Unified Perceptual Parsing for Scene Understanding. Xiao, Liu, Zhou, Jiang, Sun, ECCV 2018,
1807.10221.

Of the paper's network, which parses scenes, objects, parts, materials and textures at once, this is what
later work means by the name: PSPNet's pooling pyramid on the deepest feature, a feature pyramid (FPN) over
all four, everything enlarged and fused at the finest, one head. It is mmsegmentation's version on ConvNeXt
(2201.03545), with an auxiliary FCN head on the third stage. Keys are those of the ConvNeXt authors' files. The head
is the same on Swin, ResNet and ConvNeXt V2, on which Hugging Face has it too.

Letters: n batch, c channels, k classes, h w pixels, d width of the head.
"""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pixelwise.encoders import Encoder
from pixelwise.encoders.convnext import SIZES, ConvNeXt
from pixelwise.encoders.convnextv2 import convnextv2
from pixelwise.encoders.resnet import ResNet
from pixelwise.encoders.swin import SwinTransformer
from pixelwise.layers import classes_of, enlarge_like
from pixelwise.models.building import builder, variant

POOL_SIZES = (1, 2, 3, 6)


class UPerNet(nn.Module):
    """image (n, in_channels, h, w), float -> {"out": logits (n, k, h, w)}, with `aux_loss` also "aux", alike.

    backbone: an encoder with two features or more, of which the auxiliary head takes the third. Sides: as the backbone
    takes them (ConvNeXt: 32 pixels or more). width, aux_width: the d of the two heads. pool_sizes: of the pyramid, in
    pixels. aux_convs, aux_concat: see `AuxiliaryHead`. dropout: of whole channels before each classifier, in training.
    Training needs two images or more in a batch, or frozen batch norm, because of the pooling to one pixel.
    The auxiliary loss is meant to weigh 0.4.
    """

    align_corners = False
    unused_parameters: tuple[str, ...] = ()

    def __init__(
        self,
        backbone: Encoder,
        num_classes: int = 150,
        *,
        aux_loss: bool = True,
        width: int = 512,
        aux_width: int = 256,
        dropout: float = 0.1,
        pool_sizes: Sequence[int] = POOL_SIZES,
        aux_convs: int = 1,
        aux_concat: bool = False,
    ) -> None:
        super().__init__()
        if aux_loss and len(backbone.channels) < 3:
            raise ValueError(
                f"UPerNet's auxiliary head is on the third feature, got {len(backbone.channels)}; "
                "pass aux_loss=False"
            )
        self.stride = backbone.strides[0]
        self.backbone = backbone
        self.decode_head = UPerHead(backbone.channels, width, num_classes, dropout, pool_sizes)
        self.auxiliary_head = (
            AuxiliaryHead(backbone.channels[2], aux_width, num_classes, dropout, aux_convs, concat=aux_concat)
            if aux_loss
            else None
        )

    @property
    def num_classes(self) -> int:
        return classes_of(self.decode_head.conv_seg)

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        """image (n, c, h, w) -> logits (n, k, h, w) under "out" and, if there is an auxiliary head, "aux"."""
        features = self.backbone(image)
        logits = OrderedDict(
            out=enlarge_like(self.decode_head(features), image, align_corners=self.align_corners)
        )
        if self.auxiliary_head is not None:
            aux = self.auxiliary_head(features[2])
            logits["aux"] = enlarge_like(aux, image, align_corners=self.align_corners)
        return logits

    def coarse(self, image: Tensor) -> Tensor:
        """image (n, c, h, w) -> logits (n, k, h/4, w/4): "out" before it is enlarged."""
        logits: Tensor = self.decode_head(self.backbone(image))
        return logits


class UPerHead(nn.Module):
    """Features (n, c_i, h_i, w_i), finest first, two or more -> logits (n, k, h_1, w_1)."""

    def __init__(
        self,
        channels: tuple[int, ...],
        width: int,
        num_classes: int,
        dropout: float,
        pool_sizes: Sequence[int] = POOL_SIZES,
    ) -> None:
        super().__init__()
        if len(channels) < 2:
            raise ValueError(f"UPerNet's head needs two features or more, got {len(channels)}")
        deepest = channels[-1]
        self.psp_modules = nn.ModuleList(
            nn.Sequential(AdaptiveAvgPool(size), ConvNormReLU(deepest, width, 1)) for size in pool_sizes
        )
        self.bottleneck = ConvNormReLU(deepest + len(pool_sizes) * width, width, 3)
        self.lateral_convs = nn.ModuleList(ConvNormReLU(c, width, 1) for c in channels[:-1])
        self.fpn_convs = nn.ModuleList(ConvNormReLU(width, width, 3) for _ in channels[:-1])
        self.fpn_bottleneck = ConvNormReLU(len(channels) * width, width, 3)
        self.dropout = nn.Dropout2d(dropout)
        self.conv_seg = _classifier(width, num_classes)

    def forward(self, features: list[Tensor]) -> Tensor:
        *finer, deepest = features
        self._check_batch(deepest)
        pooled = [_enlarge_to(deepest, pool(deepest)) for pool in self.psp_modules]
        state = self.bottleneck(torch.cat([deepest, *pooled], dim=1))  # (n, d, h_i, w_i), i the last
        levels = [state]
        for i in range(len(finer) - 1, -1, -1):
            lateral = self.lateral_convs[i](finer[i])
            state = lateral + _enlarge_to(lateral, state)  # (n, d, h_i, w_i)
            levels.insert(0, self.fpn_convs[i](state))
        fused = self.fpn_bottleneck(torch.cat([_enlarge_to(state, level) for level in levels], dim=1))
        logits: Tensor = self.conv_seg(self.dropout(fused))
        return logits

    def _check_batch(self, feature: Tensor) -> None:
        norm = self.psp_modules[0][1].bn  # type: ignore[index]
        if norm.training and not torch.compiler.is_exporting() and feature.shape[0] == 1:
            raise ValueError(
                "UPerNet trains on two images or more at a time, as its pooling to one pixel leaves batch norm "
                "a single value per channel, got 1; enlarge the batch, or put the batch norms into eval()"
            )


class AuxiliaryHead(nn.Module):
    """3x3 convolution, batch norm, ReLU, dropout, 1x1 convolution; (n, c, h, w) -> (n, k, h, w).

    convs: how many of the former three there are. concat: what they give is joined with what they got, and passes one
    more of them.
    """

    def __init__(
        self,
        channels: int,
        width: int,
        num_classes: int,
        dropout: float,
        convs: int = 1,
        *,
        concat: bool = False,
    ) -> None:
        super().__init__()
        if convs < 1:
            raise ValueError(f"the auxiliary head needs one convolution or more, got {convs}")
        widths = [channels, *[width] * convs]
        self.convs = nn.Sequential(*(ConvNormReLU(a, b, 3) for a, b in pairwise(widths)))
        self.conv_cat = ConvNormReLU(channels + width, width, 3) if concat else None
        self.dropout = nn.Dropout2d(dropout)
        self.conv_seg = _classifier(width, num_classes)

    def forward(self, feature: Tensor) -> Tensor:
        state = self.convs(feature)
        if self.conv_cat is not None:
            state = self.conv_cat(torch.cat([feature, state], dim=1))
        logits: Tensor = self.conv_seg(self.dropout(state))
        return logits


class ConvNormReLU(nn.Module):
    """Convolution of odd `kernel` without bias, batch norm, ReLU; sizes stay."""

    def __init__(self, in_channels: int, out_channels: int, kernel: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, kernel, padding=kernel // 2, bias=False)
        self.bn = nn.BatchNorm2d(out_channels)
        nn.init.kaiming_normal_(self.conv.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.bn(self.conv(x)))


class AdaptiveAvgPool(nn.AdaptiveAvgPool2d):
    """nn.AdaptiveAvgPool2d to `size` x `size`, which can be exported for images of any size as well.

    Bin i of s over h rows holds the rows from floor(i h / s) to ceil((i + 1) h / s), so that the mean over
    bins is a product with an (s, h) matrix; the exporter knows products, but adaptive pooling only at fixed
    sizes.
    """

    def __init__(self, size: int) -> None:
        super().__init__(size)
        self.size = size

    def forward(self, x: Tensor) -> Tensor:
        if torch.jit.is_scripting():  # type: ignore[attr-defined]
            return F.adaptive_avg_pool2d(x, self.size)
        return self._pool(x)

    def _pool(self, x: Tensor) -> Tensor:
        if not torch.compiler.is_exporting():
            return super().forward(x)
        rows, columns = self._bins(x.shape[-2], x), self._bins(x.shape[-1], x)
        return rows @ x @ columns.T  # (s, h) (n, c, h, w) (w, s) -> (n, c, s, s)

    def _bins(self, length: int, like: Tensor) -> Tensor:
        pixel = torch.arange(length, device=like.device)
        bin_ = torch.arange(self.size, device=like.device)[:, None]
        start = torch.div(bin_ * length, self.size, rounding_mode="floor")
        end = torch.div((bin_ + 1) * length + self.size - 1, self.size, rounding_mode="floor")
        inside = ((pixel >= start) & (pixel < end)).to(like.dtype)  # (s, length)
        return inside / (end - start).to(like.dtype)


def _classifier(width: int, num_classes: int) -> nn.Conv2d:
    classifier = nn.Conv2d(width, num_classes, 1)
    nn.init.normal_(classifier.weight, std=0.01)
    nn.init.zeros_(classifier.bias)  # type: ignore[arg-type]  # it has one
    return classifier


def _enlarge_to(fine: Tensor, coarse: Tensor) -> Tensor:
    """`coarse` at the height and width of `fine`."""
    return enlarge_like(coarse, fine, align_corners=False)


def _upernet(
    name: str,
    *,
    num_classes: int = 150,
    in_channels: int = 3,
    weights: str | os.PathLike[str] | None = None,
    aux_loss: bool = True,
    output_norms: bool = True,
    drop_path: float = 0.4,
    layer_scale: float | None = 1e-6,
    dropout: float = 0.1,
    channels: tuple[int, ...] | None = None,
    depths: tuple[int, ...] | None = None,
    patch: int = 4,
    activation: str = "gelu",
    stages: Sequence[int] = (0, 1, 2, 3),
    width: int = 512,
    aux_width: int = 256,
    pool_sizes: Sequence[int] = POOL_SIZES,
    aux_convs: int = 1,
    aux_concat: bool = False,
) -> UPerNet:
    """num_classes, in_channels: of the task; ADE20K has 150 classes. weights: the path of a checkpoint of any known
    family that fits this network, or None. aux_loss: have the auxiliary head. stages: those whose features are used, of
    0 to 3. output_norms, drop_path, layer_scale, patch, activation: see `ConvNeXt`; dropout, width, aux_width,
    pool_sizes, aux_convs, aux_concat: see `UPerNet`. channels, depths: sizes other than the variant's.

    Raises TypeError for an unknown argument, ValueError for impossible sizes, WeightsError for weights that
    do not fit.
    """
    size = SIZES[name.removeprefix("upernet_")]
    encoder = ConvNeXt(
        channels or size.channels, depths or size.depths, in_channels=in_channels, levels=stages, patch=patch,
        activation=activation, output_norms=output_norms, drop_path=drop_path, layer_scale=layer_scale,
    )  # fmt: skip
    return UPerNet(
        encoder, num_classes, aux_loss=aux_loss, width=width, aux_width=aux_width, dropout=dropout,
        pool_sizes=pool_sizes, aux_convs=aux_convs, aux_concat=aux_concat,
    )  # fmt: skip


upernet_convnext_tiny = variant(
    _upernet, "upernet_convnext_tiny", "UPerNet on ConvNeXt-Tiny, 60.2 M parameters."
)
upernet_convnext_small = variant(
    _upernet, "upernet_convnext_small", "UPerNet on ConvNeXt-Small, 81.9 M parameters."
)
upernet_convnext_base = variant(
    _upernet, "upernet_convnext_base", "UPerNet on ConvNeXt-Base, 122.1 M parameters."
)
upernet_convnext_large = variant(
    _upernet, "upernet_convnext_large", "UPerNet on ConvNeXt-Large, 235.0 M parameters."
)
upernet_convnext_xlarge = variant(
    _upernet, "upernet_convnext_xlarge", "UPerNet on ConvNeXt-XLarge, 391.1 M parameters."
)


@builder
def upernet_convnextv2(
    *,
    num_classes: int = 150,
    in_channels: int = 3,
    weights: str | os.PathLike[str] | None = None,
    aux_loss: bool = True,
    drop_path: float = 0.4,
    dropout: float = 0.1,
    channels: tuple[int, ...] = (96, 192, 384, 768),
    depths: tuple[int, ...] = (3, 3, 9, 3),
    patch: int = 4,
    activation: str = "gelu",
    stages: Sequence[int] = (0, 1, 2, 3),
    width: int = 512,
    aux_width: int = 256,
    pool_sizes: Sequence[int] = POOL_SIZES,
    aux_convs: int = 1,
    aux_concat: bool = False,
) -> UPerNet:
    """UPerNet on ConvNeXt V2, of the size of ConvNeXt V2-Tiny.

    num_classes, in_channels: of the task. weights: the path of a checkpoint of any known family that fits this network,
    or None. aux_loss: have the auxiliary head. stages: those whose features are used, of 0 to 3. channels, depths,
    drop_path, patch, activation: see `ConvNeXt`; dropout, width, aux_width, pool_sizes, aux_convs, aux_concat: see
    `UPerNet`.

    Raises TypeError for an unknown argument, ValueError for impossible sizes, WeightsError for weights that do not fit.
    """
    encoder = convnextv2(
        channels, depths, in_channels=in_channels, levels=stages, patch=patch, activation=activation,
        drop_path=drop_path,
    )  # fmt: skip
    return UPerNet(
        encoder, num_classes, aux_loss=aux_loss, width=width, aux_width=aux_width, dropout=dropout,
        pool_sizes=pool_sizes, aux_convs=aux_convs, aux_concat=aux_concat,
    )  # fmt: skip


@builder
def upernet_resnet(
    *,
    num_classes: int = 150,
    in_channels: int = 3,
    weights: str | os.PathLike[str] | None = None,
    aux_loss: bool = True,
    dropout: float = 0.1,
    stem: int = 64,
    channels: tuple[int, ...] = (256, 512, 1024, 2048),
    depths: tuple[int, ...] = (3, 4, 6, 3),
    bottleneck: bool = True,
    stride_first: bool = False,
    first_stride: int = 1,
    activation: str = "relu",
    stages: Sequence[int] = (0, 1, 2, 3),
    width: int = 512,
    aux_width: int = 256,
    pool_sizes: Sequence[int] = POOL_SIZES,
    aux_convs: int = 1,
    aux_concat: bool = False,
) -> UPerNet:
    """UPerNet on a ResNet, of the size of ResNet-50.

    num_classes, in_channels: of the task. weights: the path of a checkpoint of any known family that fits this network,
    or None. aux_loss: have the auxiliary head. stages: those whose features are used, of 0 to 3. stem, channels,
    depths, bottleneck, stride_first, first_stride, activation: see `ResNet`; dropout, width, aux_width, pool_sizes,
    aux_convs, aux_concat: see `UPerNet`.

    Raises TypeError for an unknown argument, ValueError for impossible sizes, WeightsError for weights that do not fit.
    """
    encoder = ResNet(
        channels, depths, in_channels=in_channels, stem=stem, bottleneck=bottleneck, stride_first=stride_first,
        first_stride=first_stride, activation=activation, levels=stages,
    )  # fmt: skip
    return UPerNet(
        encoder, num_classes, aux_loss=aux_loss, width=width, aux_width=aux_width, dropout=dropout,
        pool_sizes=pool_sizes, aux_convs=aux_convs, aux_concat=aux_concat,
    )  # fmt: skip


@builder
def upernet_swin(
    *,
    num_classes: int = 150,
    in_channels: int = 3,
    weights: str | os.PathLike[str] | None = None,
    aux_loss: bool = True,
    drop_path: float = 0.3,
    dropout: float = 0.1,
    encoder_dropout: float = 0.0,
    attention_dropout: float = 0.0,
    channels: int = 96,
    depths: tuple[int, ...] = (2, 2, 6, 2),
    heads: tuple[int, ...] = (3, 6, 12, 24),
    window: int = 7,
    patch: int = 4,
    mlp_ratio: float = 4,
    qkv_bias: bool = True,
    activation: str = "gelu",
    eps: float = 1e-5,
    stages: Sequence[int] = (0, 1, 2, 3),
    width: int = 512,
    aux_width: int = 256,
    pool_sizes: Sequence[int] = POOL_SIZES,
    aux_convs: int = 1,
    aux_concat: bool = False,
) -> UPerNet:
    """UPerNet on a Swin Transformer, of the size of Swin-T.

    num_classes, in_channels: of the task. weights: the path of a checkpoint of any known family that fits this network,
    or None. aux_loss: have the auxiliary head. stages: those whose features are used, of 0 to 3. channels, depths,
    heads, window, patch, mlp_ratio, qkv_bias, activation, drop_path, attention_dropout, eps: see `SwinTransformer`,
    whose dropout is encoder_dropout here; dropout, width, aux_width, pool_sizes, aux_convs, aux_concat: see `UPerNet`.

    Raises TypeError for an unknown argument, ValueError for impossible sizes, WeightsError for weights that do not fit.
    """
    encoder = SwinTransformer(
        channels, depths, heads, in_channels=in_channels, window=window, patch=patch, mlp_ratio=mlp_ratio,
        qkv_bias=qkv_bias, activation=activation, drop_path=drop_path, dropout=encoder_dropout,
        attention_dropout=attention_dropout, eps=eps, levels=stages,
    )  # fmt: skip
    return UPerNet(
        encoder, num_classes, aux_loss=aux_loss, width=width, aux_width=aux_width, dropout=dropout,
        pool_sizes=pool_sizes, aux_convs=aux_convs, aux_concat=aux_concat,
    )  # fmt: skip

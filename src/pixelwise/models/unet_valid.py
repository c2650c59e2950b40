"""U-Net: Convolutional Networks for Biomedical Image Segmentation.

Ronneberger, Fischer, Brox, MICCAI 2015, 1505.04597.

`UNetValid` is the network of the paper itself: 23 convolutions, none padded, so that every logit is computed
from pixels that exist and the output is 184 pixels smaller than the input (572 -> 388). The padded network
that most later work calls U-Net is in `unet.py`.

Two variants. "paper" is figure 1: plain up-convolutions, the copy from the left first in the concatenation
(the text fixes no order), dropout after levels 3 and 4 on the way down but not on the copy. "phseg_v5" is the
network that the authors released for Caffe, and the only one that their weights fit: a ReLU after every
up-convolution, the last of which keeps 128 channels, up-sampled map first in the concatenation, and the
dropped-out map is what is copied. In evaluation both have the paper's sizes.

The contract of this package is an output as large as the input; the paper's overlap-tile strategy gives it:
the image is continued by mirroring and the output is cut to the image, here with the whole image as one tile.
For an image that is too large for that, `tile_geometry` says which tiles to cut, and `UNetValid.valid` is the
bare network.

Letters: n batch, c channels, k classes, h w pixels, d width (channels of the first level).
"""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pixelwise.models.building import variant


class Variant(NamedTuple):
    """What the paper and the released network do differently."""

    last_up_keeps_channels: bool
    relu_after_up: bool
    up_comes_first: bool
    skip_is_dropped_out: bool


VARIANTS = {
    "paper": Variant(False, False, False, False),  # figure 1 and section 2
    "phseg_v5": Variant(True, True, True, True),  # u-net-release-2015-10-02, phseg_v5-train.prototxt
}


class UNetValid(nn.Module):
    """Four levels down, four up, without padding; any image from 1x1 pixels up.

    image (n, in_channels, h, w), float -> {"out": logits (n, num_classes, h, w)}. With `pad=False` the image
    must have sides of 16 i + 12 pixels, at least 188, and the logits are 184 pixels smaller. `width` is the
    number of channels of the finest level (64 in the paper); `dropout` acts in training mode only. There is
    no norm, so any batch size trains.
    """

    stride = 1
    align_corners = False  # never used: coarse logits already have the size of the image
    unused_parameters: tuple[str, ...] = ()

    def __init__(
        self,
        in_channels: int = 1,
        num_classes: int = 2,
        *,
        variant: str = "paper",
        pad: bool = True,
        width: int = 64,
        dropout: float = 0.5,
    ) -> None:
        super().__init__()
        if variant not in VARIANTS:
            raise ValueError(f"variant must be one of {', '.join(map(repr, VARIANTS))}, got {variant!r}")
        self.num_classes, self.pad, self.variant = num_classes, pad, VARIANTS[variant]
        d, last_up = width, 2 * width if self.variant.last_up_keeps_channels else width
        self.down0 = Pair(in_channels, d)
        self.down1 = Pair(d, 2 * d)
        self.down2 = Pair(2 * d, 4 * d)
        self.down3 = Pair(4 * d, 8 * d)
        self.down4 = Pair(8 * d, 16 * d)
        self.dropout = nn.Dropout(dropout)
        self.up3 = Up(16 * d, 8 * d, 8 * d, 4, self.variant)
        self.up2 = Up(8 * d, 4 * d, 4 * d, 16, self.variant)
        self.up1 = Up(4 * d, 2 * d, 2 * d, 40, self.variant)
        self.up0 = Up(2 * d, last_up, d, 88, self.variant)
        self.score = nn.Conv2d(d, num_classes, 1)
        self.apply(_initialise)

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        """image (n, c, h, w) -> {"out": logits (n, k, h, w)}, 184 pixels smaller with `pad=False`."""
        return OrderedDict(out=self.coarse(image))

    def coarse(self, image: Tensor) -> Tensor:
        """image (n, c, h, w) -> logits (n, k, h, w), 184 pixels smaller with `pad=False`; stride 1."""
        if not self.pad:
            return self.valid(image)
        h, w = image.shape[2:]
        logits = self.valid(mirror(image, BORDER, (BORDER + -(h + 12) % 16, BORDER + -(w + 12) % 16)))
        return logits[:, :, :h, :w]  # (n, k, h, w)

    def valid(self, tile: Tensor) -> Tensor:
        """The paper's network: tile (n, c, h, w), sides of 16 i + 12 >= 188 -> logits (n, k, h - 184, w -
        184).
        """
        _check_sides(*tile.shape[2:])
        skip0 = self.down0(tile)  # (n, d, h - 4, w - 4)
        skip1 = self.down1(F.max_pool2d(skip0, 2))  # (n, 2d, h/2 - 6, w/2 - 6)
        skip2 = self.down2(F.max_pool2d(skip1, 2))  # (n, 4d, h/4 - 7, w/4 - 7)
        skip3 = self.down3(F.max_pool2d(skip2, 2))  # (n, 8d, h/8 - 7.5, w/8 - 7.5)
        dropped3 = self.dropout(skip3)
        x = self.dropout(self.down4(F.max_pool2d(dropped3, 2)))  # (n, 16d, h/16 - 7.75, w/16 - 7.75)
        if self.variant.skip_is_dropped_out:
            skip3 = dropped3
        x = self.up3(x, skip3)  # (n, 8d, h/8 - 19.5, w/8 - 19.5)
        x = self.up2(x, skip2)  # (n, 4d, h/4 - 43, w/4 - 43)
        x = self.up1(x, skip1)  # (n, 2d, h/2 - 90, w/2 - 90)
        x = self.up0(x, skip0)  # (n, d, h - 184, w - 184)
        logits: Tensor = self.score(x)
        return logits


class Pair(nn.Module):
    """(3x3 convolution without padding, ReLU) twice: (n, in, h, w) -> (n, out, h - 4, w - 4)."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.conv2(F.relu(self.conv1(x))))


class Up(nn.Module):
    """Double the size, join the skip less `crop_px` pixels on each side, a pair of convolutions."""

    def __init__(
        self, in_channels: int, up_channels: int, out_channels: int, crop_px: int, variant: Variant
    ) -> None:
        super().__init__()
        self.crop_px, self.variant = crop_px, variant
        self.up = nn.ConvTranspose2d(in_channels, up_channels, 2, stride=2)
        # The skip has as many channels as the output
        self.pair = Pair(up_channels + out_channels, out_channels)

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        x, crop = self.up(x), self.crop_px
        if self.variant.relu_after_up:
            x = F.relu(x)
        skip = skip[:, :, crop:-crop, crop:-crop]
        y: Tensor = self.pair(torch.cat([x, skip] if self.variant.up_comes_first else [skip, x], dim=1))
        return y


@dataclass(frozen=True)
class TileGeometry:
    """One square tile of an unpadded U-Net, in pixels; every size is along one side.

    input_px -> output_px, `border_px` less on each side. crops_px: what each skip loses on each side before
    it is joined, finest level first. step_px: how far apart tiles may lie so that they agree with a single
    large one, and with each other where they overlap. It is output_px rounded down to the network's stride,
    because a tile shifted by less than a whole stride is pooled in other groups (the paper's figures step by
    output_px, which covers the image as well but lets the result depend on where the tiles begin). For the
    smallest tile of the paper's network, of 4 pixels of output, there is no such step: 0.
    """

    input_px: int
    output_px: int
    border_px: int
    crops_px: tuple[int, ...]
    step_px: int


def tile_geometry(output_px: int, *, levels: int = 4) -> TileGeometry:
    """The smallest tile whose output has at least `output_px` pixels, for a U-Net with `levels` poolings.

    Two unpadded 3x3 convolutions cost 4 pixels at every level, so b pixels at the bottom come from
    2^levels (b + 4) + 4 (2^levels - 1) pixels of input and become 2^levels b - 4 (2^levels - 1) of output.

    >>> tile_geometry(388)
    TileGeometry(input_px=572, output_px=388, border_px=92, crops_px=(88, 40, 16, 4), step_px=384)
    >>> tile_geometry(1).input_px
    188

    Raises ValueError for an output below 1 pixel or no levels.
    """
    if output_px < 1 or levels < 1:
        raise ValueError(f"output_px and levels must be at least 1, got {output_px} and {levels}")
    scale = 2**levels
    output = output_px + (4 - output_px) % scale  # an output is 4 more than a multiple of 2^levels
    border = 6 * scale - 4
    crops = [4]
    for _ in range(levels - 1):
        crops.insert(0, 2 * (crops[0] + 4))
    return TileGeometry(output + 2 * border, output, border, tuple(crops), output // scale * scale)


BORDER = tile_geometry(1).border_px
"""Pixels that the network's output is smaller on each side: 92."""


def mirror(image: Tensor, before: int, after: Sequence[int]) -> Tensor:
    """Continue an image by mirroring it at its outermost pixels, which are not repeated: dcb|abcd|cba.

    image (n, c, h, w) -> (n, c, before + h + after[0], before + w + after[1]). A border wider than the image
    goes to and fro as often as it must; one pixel is repeated.
    """
    for axis, behind in zip((2, 3), after, strict=True):
        size = image.shape[axis]
        last = size - 1
        there_and_back = torch.full((1,), 2 * last, device=image.device).clamp(min=1)
        places = torch.arange(-before, size + behind, device=image.device) % there_and_back
        image = image.index_select(axis, last - (places - last).abs())
    return image


def _check_sides(h: int, w: int) -> None:
    if torch.compiler.is_compiling() or all(side >= 188 and side % 16 == 12 for side in (h, w)):
        return
    better = [tile_geometry(max(side - 2 * BORDER, 1)).input_px for side in (h, w)]
    raise ValueError(
        f"the unpadded U-Net takes sides of 188, 204, 220, ... pixels (16 i + 12), got {h}x{w}; "
        f"pad to {better[0]}x{better[1]}, or build it with pad=True to have any image padded by mirroring"
    )


def _initialise(module: nn.Module) -> None:
    """Section 3: normal weights of variance 2/N, where N values come in at each output; no bias."""
    if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
        incoming = module.in_channels * (module.kernel_size[0] ** 2 if isinstance(module, nn.Conv2d) else 1)
        nn.init.normal_(module.weight, std=(2 / incoming) ** 0.5)
        assert module.bias is not None
        nn.init.zeros_(module.bias)


def _unet_valid(
    name: str,
    *,
    num_classes: int = 2,
    in_channels: int = 3,
    weights: str | os.PathLike[str] | None = None,
    pad: bool = True,
    width: int = 64,
    dropout: float = 0.5,
) -> UNetValid:
    """num_classes, in_channels: of the task. weights: the path of a checkpoint, or None. pad, width, dropout: see
    `UNetValid`.

    Raises TypeError for an unknown argument, ValueError for counts below 1, WeightsError for weights that do
    not fit.
    """
    row = "phseg_v5" if name == "unet_phseg_v5" else "paper"
    return UNetValid(in_channels, num_classes, variant=row, pad=pad, width=width, dropout=dropout)


unet_valid = variant(_unet_valid, "unet_valid", "The paper's U-Net, whose pictures had one channel.")
unet_phseg_v5 = variant(
    _unet_valid, "unet_phseg_v5", "The U-Net that the authors released, whose weights have in_channels=1."
)

"""An encoder and a decoder joined: the contract that all networks here share, and the few pieces most of them use.

Letters: n batch, c channels, k classes, h w pixels.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pixelwise.decoders.needs import NEEDS
from pixelwise.layers import Norm, classes_of, enlarge
from pixelwise.models.segmentation.fcn import FCNHead


class EncoderDecoder(nn.Module):
    """image (n, in_channels, h, w), float -> {"out": logits (n, k, h, w)} and, with `aux_loss`, {"aux": alike}.

    encoder: see `pixelwise.encoders.Encoder`. decoder: (features, (h, w)) -> (n, c, ~h/stride, ~w/stride).
    segmentation_head: from there to logits. aux: a head for the last feature but one, or None; its loss is meant to
    weigh 0.4 (PSPNet, 1612.01105). Any height and width that the encoder takes, unless the decoder says otherwise.
    """

    unused_parameters: tuple[str, ...] = ()

    def __init__(
        self,
        encoder: Any,
        decoder: nn.Module,
        segmentation_head: nn.Module,
        *,
        stride: int,
        align_corners: bool = True,
        aux: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.stride, self.align_corners = stride, align_corners
        self.encoder = encoder
        self.decoder = decoder
        self.segmentation_head = segmentation_head
        self.aux_head = aux
        self._encoder_is_frozen = False

    @property
    def num_classes(self) -> int:
        return classes_of(self.segmentation_head)

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        """image (n, c, h, w) -> logits (n, k, h, w) under "out" and, if there is an auxiliary head, "aux"."""
        size_hw = image.shape[-2], image.shape[-1]
        features = self.features(image)
        logits = OrderedDict(out=self._enlarge(self.decode(features, size_hw), size_hw))
        if self.aux_head is not None:
            coarse = self.aux_head(as_map(features[max(0, len(features) - 2)]))
            logits["aux"] = enlarge(coarse, size_hw, align_corners=self.align_corners)
        return logits

    def coarse(self, image: Tensor) -> Tensor:
        """image (n, c, h, w) -> logits (n, k, ~h/stride, ~w/stride): "out" before it is enlarged."""
        return self.decode(self.features(image), (image.shape[-2], image.shape[-1]))

    def features(self, image: Tensor) -> list[Any]:
        """What the decoder reads off an image: the encoder's features, finest first."""
        features: list[Any] = self.encoder(image)
        return features

    def decode(self, features: list[Any], size_hw: tuple[int, int]) -> Tensor:
        """The second half of `coarse`: from features to logits, for an image of `size_hw`."""
        logits: Tensor = self.segmentation_head(self.decoder(features, size_hw))
        return logits

    def _enlarge(self, coarse: Tensor, size_hw: tuple[int, int]) -> Tensor:
        return coarse if self.stride == 1 else enlarge(coarse, size_hw, align_corners=self.align_corners)

    def freeze_encoder(self, frozen: bool = True) -> None:
        """Keep the encoder as it is: no gradients, and in evaluation mode whatever `train` and `eval` are told.

        freeze_encoder(False) undoes it.
        """
        self._encoder_is_frozen = frozen
        self.encoder.requires_grad_(not frozen)
        self.encoder.train(self.training and not frozen)

    def train(self, mode: bool = True) -> EncoderDecoder:
        super().train(mode)
        if self._encoder_is_frozen:
            self.encoder.eval()
        return self


def check_encoder(decoder: str, encoder: Any) -> list[int]:
    """The places of the features that `decoder` uses; ValueError, with the reason, for an encoder that will not do."""
    needs = NEEDS[decoder]
    refusal = needs.refusal(encoder.strides)
    if refusal is not None:
        raise ValueError(f"{decoder} cannot use the features of {type(encoder).__name__}: {refusal}")
    return needs.used(encoder.strides)


def auxiliary_head(encoder: Any, num_classes: int, norm: Norm, *, wanted: bool) -> nn.Module | None:
    """torchvision's FCN head on the last feature but one (the last, where there is only one)."""
    if not wanted:
        return None
    return FCNHead(encoder.channels[max(0, len(encoder.channels) - 2)], num_classes, norm=norm)


def head(in_channels: int, num_classes: int, kernel: int) -> nn.Sequential:
    """One convolution of odd `kernel` to classes; Glorot's initialisation."""
    conv = nn.Conv2d(in_channels, num_classes, kernel, padding=kernel // 2)
    nn.init.xavier_uniform_(conv.weight)
    nn.init.zeros_(conv.bias)  # type: ignore[arg-type]  # it has one
    return nn.Sequential(conv)


def initialise(decoder: nn.Module) -> None:
    """Convolutions from He's uniform distribution, linear layers from Glorot's, biases 0."""
    for module in decoder.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_uniform_(module.weight, mode="fan_in", nonlinearity="relu")
        elif isinstance(module, nn.Linear):
            nn.init.xavier_uniform_(module.weight)
        if isinstance(module, (nn.Conv2d, nn.Linear)) and module.bias is not None:
            nn.init.zeros_(module.bias)


def as_map(feature: Any) -> Tensor:
    """The map of a feature, which may come with tokens: (map, tokens)."""
    found: Tensor = feature[0] if isinstance(feature, tuple) else feature
    return found


def resize(x: Tensor, size_hw: tuple[int, int], mode: str, align_corners: bool | None = None) -> Tensor:
    """x (n, c, h', w') at `size_hw`, by a mode of F.interpolate; itself where it has that size."""
    h, w = size_hw
    exporting = False
    if not torch.jit.is_scripting():  # type: ignore[attr-defined]
        exporting = torch.compiler.is_exporting()
    if not exporting and x.shape[-2] == h and x.shape[-1] == w:
        return x
    return F.interpolate(x, size=(h, w), mode=mode, align_corners=align_corners)


def resize_like(x: Tensor, like: Tensor, mode: str, align_corners: bool | None = None) -> Tensor:
    """x at the height and width of `like`."""
    return resize(x, (like.shape[-2], like.shape[-1]), mode, align_corners=align_corners)


class Level:
    """One step of a decoder that doubles the size until it has the image's.

    skip: the place of the encoder's feature of this size, -1 for none; channels: of it, 0 for none; stride: of this
    size.
    """

    def __init__(self, stride: int, skip: int, channels: int) -> None:
        self.stride, self.skip, self.channels = stride, skip, channels


def size_at(stride: int, skip: int, features: list[Tensor], size_hw: tuple[int, int]) -> tuple[int, int]:
    """Height and width at a level: the skip's, or the image's over the stride, rounded down."""
    if skip >= 0:
        return features[skip].shape[-2], features[skip].shape[-1]
    if stride == 1:  # nothing to divide, and nothing that an export would have to write down
        return size_hw
    return size_hw[0] // stride, size_hw[1] // stride


def size_of_image(
    features: list[Tensor], size_hw: tuple[int, int] | None, count: int, finest: int
) -> tuple[int, int]:
    """`size_hw`, or without it the size of the first feature, which in SMP's lists is the image.

    count: features of the encoder, the image apart. finest: their first stride. Raises ValueError where neither tells.
    """
    if size_hw is not None:
        return size_hw
    if len(features) <= count and finest > 1:
        raise ValueError(
            "expected a list that begins with the image, or the size of the image, got features alone; call "
            "decoder(features, (h, w))"
        )
    return features[0].shape[-2], features[0].shape[-1]


def levels_up(decoder: str, encoder: Any) -> list[Level]:
    """From the encoder's last feature to the image, the steps between: finer by two each, the last without a skip."""
    at = {encoder.strides[place]: place for place in check_encoder(decoder, encoder)}
    deepest = max(at)
    steps = []
    for step in range(int(math.log2(deepest)) - 1, -1, -1):
        place = at.get(2**step, -1)
        steps.append(Level(2**step, place, 0 if place < 0 else encoder.channels[place]))
    return steps


def widths(decoder: str, levels: Sequence[Level], decoder_channels: Sequence[int] | None) -> tuple[int, ...]:
    """The channels after each step: as given, or 16 at the size of the image and twice as many for each halving."""
    if decoder_channels is None:
        return tuple(16 * 2**step for step in range(len(levels) - 1, -1, -1))
    if len(decoder_channels) != len(levels):
        raise ValueError(
            f"decoder_channels must have one number for each of the {len(levels)} doublings that {decoder} does "
            f"from this encoder to the image, got {tuple(decoder_channels)}"
        )
    return tuple(decoder_channels)

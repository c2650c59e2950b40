"""Any encoder with any decoder: `pixelwise.create_model("unet", encoder="resnet34", num_classes=11)` comes here."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from torch import nn

from pixelwise.decoders import load_decoder
from pixelwise.decoders.needs import NEEDS
from pixelwise.encoders import create_encoder
from pixelwise.encoders.pretrained import Weights
from pixelwise.errors import UnknownNameError, refuse_unknown
from pixelwise.weights.origin import note_origin

INTERPOLATIONS = ("nearest", "nearest-exact", "bilinear", "bicubic", "area")
"""Modes of F.interpolate for images, which the option `interpolation` of decoders takes."""


def compose(
    decoder: str,
    encoder: str,
    *,
    num_classes: int = 1,
    in_channels: int = 3,
    encoder_weights: Weights = None,
    encoder_depth: int | None = None,
    output_stride: int | None = None,
    dilation: str = "classic",
    encoder_options: Mapping[str, Any] | None = None,
    **options: Any,
) -> nn.Module:
    """The network of a decoder (a key of `DECODERS`) on an encoder (a name of `pixelwise.list_encoders`).

    encoder_depth, output_stride: None for what the decoder is meant for (`NEEDS`). encoder_weights, dilation and what
    is in encoder_options: see `pixelwise.encoders.create_encoder`. options: the decoder's own, such as aux_loss.

    Raises UnknownNameError for an unknown decoder or encoder and TypeError for an unknown option, each with the
    nearest; ValueError where the two do not go together, or a number is out of range.
    """
    network = load_decoder(decoder)
    refuse_unknown(f"{decoder} has no option", options, arguments_of(decoder))
    if isinstance(num_classes, bool) or not isinstance(num_classes, int) or num_classes < 1:
        raise ValueError(f"num_classes must be a whole number from 1 up, got {num_classes!r}")
    if options.get("interpolation", "nearest") not in INTERPOLATIONS:
        raise UnknownNameError("interpolation", str(options["interpolation"]), INTERPOLATIONS)
    needs = NEEDS[decoder]
    if encoder_depth is None:  # DPT counts taken features; of a pyramid, four lie at depth 5
        encoder_depth = 5 if needs.tokens else needs.depth
    if output_stride is None:
        output_stride = needs.output_stride
    features = create_encoder(
        encoder, in_channels=in_channels, output_stride=output_stride, depth=encoder_depth, weights=encoder_weights,
        dilation=dilation, **(encoder_options or {}),
    )  # fmt: skip
    composed: nn.Module = network(features, num_classes, **options)
    given = {
        "encoder": encoder, "num_classes": num_classes, "in_channels": in_channels, "encoder_depth": encoder_depth,
        "output_stride": output_stride, "dilation": dilation, "encoder_options": dict(encoder_options or {}), **options,
    }  # fmt: skip
    note_origin(composed, decoder, given)
    return composed


def arguments_of(decoder: str) -> list[str]:
    """What `compose` takes by keyword for that decoder: its own arguments and the decoder's options."""
    own = [name for name in inspect.signature(compose).parameters if name not in ("decoder", "options")]
    return [*own, *(name for name in inspect.signature(load_decoder(decoder)).parameters if name not in own)]

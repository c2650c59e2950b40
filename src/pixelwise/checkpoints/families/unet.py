"""U-Net's checkpoints: milesial/Pytorch-UNet, whose names are ours, and the authors' Caffe release."""

from __future__ import annotations

from typing import Any

from pixelwise.checkpoints.caffe import named, numbered
from pixelwise.checkpoints.family import Family
from pixelwise.errors import WeightsError
from pixelwise.weights.origin import Origin
from pixelwise.weights.renames import Renames, Tensors, rename


def _milesial(tensors: Tensors) -> tuple[Origin, Tensors]:
    width, in_channels = tensors["inc.double_conv.0.weight"].shape[:2]
    arguments: dict[str, Any] = {
        "num_classes": len(tensors["outc.conv.weight"]),
        "in_channels": in_channels,
    }
    if width != 64:
        arguments["width"] = width
    return Origin("unet" if "up1.up.weight" in tensors else "unet_bilinear", arguments), tensors


FREIBURG = Renames(
    ("conv_d{i}a-b.{rest}", "down{i}.conv1.{rest}"),
    ("conv_d{i}b-c.{rest}", "down{i}.conv2.{rest}"),
    ("upconv_d4c_u3a.{rest}", "up3.up.{rest}"),
    ("upconv_u3d_u2a.{rest}", "up2.up.{rest}"),
    ("upconv_u2d_u1a.{rest}", "up1.up.{rest}"),
    ("upconv_u1d_u0a.{rest}", "up0.up.{rest}"),
    ("conv_u{i}b-c.{rest}", "up{i}.pair.conv1.{rest}"),
    ("conv_u{i}c-d.{rest}", "up{i}.pair.conv2.{rest}"),
    ("conv_u0d-score.{rest}", "score.{rest}"),
)
"""Layers to our names. Both kinds of weights lie in memory as in torch: (out, in, h, w), and (in, out, h, w) for the
up-convolutions.
"""


def _freiburg(tensors: Tensors) -> tuple[Origin, Tensors]:
    width, in_channels = tensors["conv_d0a-b.0"].shape[:2]
    _refuse_other_variants(tensors)
    arguments: dict[str, Any] = {"num_classes": len(tensors["conv_u0d-score.0"]), "in_channels": in_channels}
    if width != 64:
        arguments["width"] = width
    return Origin("unet_phseg_v5", arguments), named(rename(tensors, FREIBURG))


def _freiburg_to_theirs(tensors: Tensors) -> Tensors:
    renamed = numbered(rename(tensors, FREIBURG, back=True))
    _refuse_other_variants(renamed)
    return renamed


def _refuse_other_variants(tensors: Tensors) -> None:
    joined, kept = tensors["conv_u0b-c.0"].shape[1], len(tensors["conv_d0a-b.0"])
    if joined != 3 * kept:
        raise WeightsError(
            f"the released U-Net joins {kept} copied channels with {2 * kept} up-sampled ones in conv_u0b-c, "
            f"these weights have {joined} in all; its layer names fit only unet_phseg_v5"
        )


FAMILIES = (
    Family(
        "milesial.unet",
        "U-Net, milesial/Pytorch-UNet",
        (
            "inc.double_conv.0.weight",
            "down4.maxpool_conv.1.double_conv.0.weight",
            "up4.conv.double_conv.0.weight",
            "outc.conv.weight",
        ),
        _milesial,
        dict,
        drops=("mask_values",),  # what the files of masks held, [0, 255] or so; no tensor
    ),
    Family(
        "freiburg.unet",
        "U-Net, the authors' release for Caffe",
        ("conv_d0a-b.0", "upconv_d4c_u3a.0", "conv_u0b-c.0", "conv_u0d-score.0"),
        _freiburg,
        _freiburg_to_theirs,
    ),
)

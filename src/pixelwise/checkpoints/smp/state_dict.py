"""Bare state dicts of segmentation_models.pytorch (SMP): which network they are of, as far as they say.

They leave some things open, above all the names of timm's encoders and what has no tensors (dilation, atrous rates,
interpolation): what can be read off is, SMP's defaults are taken for the rest with a warning, and where that is not
enough the error says what to do.
"""

from __future__ import annotations

import functools
import re
import warnings
from typing import Any

from pixelwise.checkpoints.family import Family
from pixelwise.checkpoints.smp.config import CLASSES
from pixelwise.checkpoints.smp.encoders import channels, whole
from pixelwise.checkpoints.smp.tensors import modern, read
from pixelwise.encoders import names
from pixelwise.errors import PixelwiseWarning, WeightsError
from pixelwise.weights.origin import Origin
from pixelwise.weights.renames import Tensors

_CANDIDATES: tuple[tuple[str, str], ...] = (
    ("patch_embed1.proj.weight", "mit_"),
    ("_conv_stem.weight", "efficientnet-"),
    ("conv_stem.weight", "timm-"),
    ("features.denseblock1.denselayer1.norm1.weight", "densenet"),
    ("features.conv1_1.conv.weight", "dpn"),
    ("features.0.0.weight", "mobilenet_v2"),
    ("features.0.weight", "vgg"),
    ("layer0.conv1.weight", "se"),
    ("layer1.0.conv1.weight", "res"),
    ("layer1.0.conv1.conv.weight", "timm-sk"),
    ("layer1.0.conv1.conv_reduce.weight", "timm-sk"),
    ("conv2d_1a.conv.weight", "inceptionresnetv2"),
    ("features.3.conv.conv.weight", "inceptionv4"),
    ("block1.rep.0.conv1.weight", "xception"),
)
"""A tensor that all encoders of a family have, and how their names begin."""


def encoder_of(tensors: Tensors) -> str:
    """SMP's name of the encoder whose tensors, without their prefix, these are; WeightsError if they do not say."""
    if any(key.startswith("model.") for key in tensors):
        raise WeightsError(
            "these tensors belong to a network of SMP on one of timm's encoders ('tu-...'), whose name they do not "
            "say; give the folder with config.json, or build it, create_model(<decoder>, encoder='tu-<name>', "
            "num_classes=...), and use load_checkpoint(network, <this>)"
        )
    starts = tuple(start for mark, start in _CANDIDATES if mark in tensors) or ("mobileone", "timm-")
    shapes = {key: tuple(t.shape) for key, t in tensors.items() if not key.endswith("num_batches_tracked")}
    stem = next((tensor for tensor in tensors.values() if tensor.ndim == 4), None)
    in_channels = 3 if stem is None else stem.shape[1]
    for name in names.SMP:
        if name.startswith(starts) and _shapes(name, in_channels) == shapes:
            return name
    raise WeightsError(
        "these tensors look like a network of SMP, but on none of its encoders; give the folder with config.json, or "
        "build the network with create_model and use load_checkpoint"
    )


@functools.cache
def _shapes(name: str, in_channels: int) -> dict[str, tuple[int, ...]]:
    theirs = whole(name, in_channels)
    return {key: tuple(t.shape) for key, t in theirs.items() if not key.endswith("num_batches_tracked")}


def config_from_tensors(decoder: str, tensors: Tensors) -> tuple[dict[str, Any], list[str]]:
    """SMP's arguments as far as names and shapes of tensors tell, and which of the others could have been different."""
    tensors = modern(decoder, "resnet34", tensors)
    encoder = {key.removeprefix("encoder."): t for key, t in tensors.items() if key.startswith("encoder.")}
    name = encoder_of(encoder)
    stem = next(tensor for tensor in encoder.values() if tensor.ndim == 4)
    head = tensors.get("segmentation_head.0.weight", tensors.get("segmentation_head.head.4.weight"))
    if head is None:
        raise KeyError("segmentation_head.0.weight")
    config: dict[str, Any] = {
        "_model_class": next(kind for kind, ours in CLASSES.items() if ours == decoder),
        "encoder_name": name,
        "encoder_weights": None,
        "in_channels": stem.shape[1],
        "classes": len(head),
    }

    def rows(key: str) -> int:
        return len(tensors[f"decoder.{key}"])

    def count(pattern: str) -> int:
        return len({m.group(1) for key in tensors if (m := re.match(rf"decoder\.{pattern}", key))})

    unsure = []
    if decoder in ("unet", "manet", "linknet", "unetplusplus"):
        depth = count(r"blocks\.x_0_(\d+)\.") if decoder == "unetplusplus" else count(r"blocks\.(\d+)\.")
        config["encoder_depth"] = depth
        steps = [f"blocks.{'x_0_' if decoder == 'unetplusplus' else ''}{i}" for i in range(depth)]
        if decoder != "linknet":
            config["decoder_channels"] = [rows(f"{step}.conv1.0.weight") for step in steps]
            unsure.append("decoder_interpolation")
        if any(".attention2.attention.cSE" in key for key in tensors):
            config["decoder_attention_type"] = "scse"
        norm = f"decoder.{steps[-1]}.conv1.1" if decoder != "linknet" else f"decoder.{steps[-1]}.block.0.1"
        config["decoder_use_norm"] = _norm_in(tensors, norm)
        if decoder == "manet":
            config["decoder_pab_channels"] = rows("center.top_conv.weight")
    elif decoder == "fpn":
        config["encoder_depth"] = _depth(name, tensors["decoder.p5.weight"].shape[1], (5, 4), unsure)
        config["decoder_pyramid_channels"] = rows("p5.weight")
        config["decoder_segmentation_channels"] = c = rows("seg_blocks.0.block.0.block.0.weight")
        config["decoder_merge_policy"] = "add" if head.shape[1] == c else "cat"
        unsure.append("decoder_interpolation")
    elif decoder == "pspnet":
        config["encoder_depth"] = _depth(
            name, tensors["decoder.psp.blocks.0.pool.1.0.weight"].shape[1], (3, 4, 5), unsure
        )
        config["psp_out_channels"] = rows("conv.0.weight")
        config["decoder_use_norm"] = _norm_in(tensors, "decoder.conv.1")
    elif decoder == "pan":
        config["encoder_depth"] = 2 + count(r"gau(\d)\.")
        config["decoder_channels"] = rows("fpa.mid.0.conv.weight")
        unsure += ["encoder_output_stride", "decoder_interpolation"]
    elif decoder in ("deeplabv3", "deeplabv3plus"):
        aspp = "aspp" if decoder == "deeplabv3" else "aspp.0"
        config["encoder_depth"] = _depth(
            name, tensors[f"decoder.{aspp}.convs.0.0.weight"].shape[1], (5, 4, 3), unsure
        )
        config["decoder_channels"] = rows(f"{aspp}.convs.0.0.weight")
        config["decoder_aspp_separable"] = f"decoder.{aspp}.convs.1.0.0.weight" in tensors
        unsure += ["encoder_output_stride", "decoder_atrous_rates"]
    elif decoder == "upernet":
        config["encoder_depth"] = 1 + count(r"feature_norms\.(\d+)\.")
        config["decoder_channels"] = rows("fusion_block.0.weight")
        config["decoder_use_norm"] = _norm_in(tensors, "decoder.fusion_block.1")
    elif decoder == "segformer":
        levels = count(r"mlp_stage\.(\d+)\.")
        config["encoder_depth"] = levels + (1 if name.startswith("mit_") else 0)
        config["decoder_segmentation_channels"] = rows("fuse_stage.0.weight")
    return config, unsure


def _norm_in(tensors: Tensors, at: str) -> Any:
    """Which norm the tensors named `at` belong to."""
    if f"{at}.running_mean" in tensors:
        return "batchnorm"
    return "layernorm" if f"{at}.weight" in tensors else "identity"


def _depth(name: str, deepest: int, tries: tuple[int, ...], unsure: list[str]) -> int:
    """The depth whose last feature has that many channels; `tries` begins with SMP's default, which is taken where
    several have, and noted as unsure. WeightsError where several have and the default is none of them.
    """
    found = [depth for depth in tries if channels(name, depth)[-1] == deepest]
    if len(found) > 1:
        if found[0] != tries[0]:
            raise WeightsError(
                f"a state dict does not say whether encoder_depth of {name} was {' or '.join(map(str, found))}; give "
                "the folder with config.json, or build the network and use load_checkpoint"
            )
        unsure.append("encoder_depth")
    return found[0] if found else tries[0]


def _read(decoder: str, tensors: Tensors) -> tuple[Origin, Tensors]:
    config, unsure = config_from_tensors(decoder, tensors)
    if unsure:
        warnings.warn(
            f"a state dict does not say {' and '.join(unsure)} of SMP's {config['_model_class']}; its defaults are "
            "taken. If they were others, give the folder with config.json, or build the network and use "
            "load_checkpoint",
            PixelwiseWarning,
            stacklevel=2,
        )
    return read(config, tensors)


_MARKS: dict[str, tuple[str, ...]] = {
    "unet": ("decoder.blocks.0.conv1.0.weight", "decoder.blocks.0.conv2.0.weight", "segmentation_head.0.weight"),
    "unetplusplus": ("decoder.blocks.x_0_0.conv1.0.weight", "segmentation_head.0.weight"),
    "manet": ("decoder.center.top_conv.weight", "decoder.blocks.0.hl_conv.0.0.weight",
              "decoder.blocks.0.conv1.0.weight", "decoder.blocks.0.conv2.0.weight"),
    "linknet": ("decoder.blocks.0.block.0.0.weight", "decoder.blocks.0.block.1.0.weight"),
    "fpn": ("decoder.p5.weight", "decoder.seg_blocks.0.block.0.block.0.weight"),
    "pspnet": ("decoder.psp.blocks.0.pool.1.0.weight", "decoder.conv.0.weight"),
    "pan": ("decoder.fpa.mid.0.conv.weight", "decoder.gau1.conv2.conv.weight"),
    "deeplabv3": ("decoder.*.convs.0.0.weight", "decoder.*.project.0.weight", "segmentation_head.0.weight"),
    "deeplabv3plus": ("decoder.aspp.0.convs.0.0.weight", "decoder.aspp.0.project.0.weight",
                      "decoder.block1.0.weight", "segmentation_head.0.weight"),
    "upernet": ("decoder.feature_norms.0.weight", "decoder.fpn_lateral_blocks.0.conv_norm_relu.0.weight"),
    "segformer": ("decoder.mlp_stage.0.linear.weight", "decoder.fuse_stage.0.weight"),
    "dpt": ("decoder.reassemble_blocks.0.project_to_out_channel.weight", "segmentation_head.head.4.weight"),
}  # fmt: skip

FAMILIES: tuple[Family, ...] = tuple(
    Family(
        f"smp.{decoder}",
        f"a {kind} of segmentation_models.pytorch",
        _MARKS[decoder],
        functools.partial(_read, decoder),
    )
    for kind, decoder in CLASSES.items()
)

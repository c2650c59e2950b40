"""The arguments of segmentation_models.pytorch (SMP) 0.6, as its config.json has them, to our origins and back."""

from __future__ import annotations

import numbers
from collections.abc import Mapping
from typing import Any

import torch

from pixelwise.decoders.smp_parts import ACTIVATIONS
from pixelwise.encoders import names
from pixelwise.errors import InputError, UnknownNameError
from pixelwise.layers import Norm, groups_for
from pixelwise.weights.origin import TIMM_FETCHES, Origin

CLASSES = {
    "Unet": "unet",
    "UnetPlusPlus": "unetplusplus",
    "MAnet": "manet",
    "Linknet": "linknet",
    "FPN": "fpn",
    "PSPNet": "pspnet",
    "PAN": "pan",
    "DeepLabV3": "deeplabv3",
    "DeepLabV3Plus": "deeplabv3plus",
    "UPerNet": "upernet",
    "Segformer": "segformer",
    "DPT": "dpt",
}
"""SMP's class: our decoder."""

_STEPS = {
    "decoder_channels": "decoder_channels",
    "decoder_interpolation": "interpolation",
    "decoder_use_norm": "norm",
}
_ATROUS = {
    "encoder_output_stride": "output_stride",
    "decoder_channels": "width",
    "decoder_atrous_rates": "atrous_rates",
    "decoder_aspp_separable": "separable",
    "decoder_aspp_dropout": "dropout",
}

OPTIONS: dict[str, dict[str, str]] = {
    "unet": {**_STEPS, "decoder_attention_type": "attention"},
    "unetplusplus": {**_STEPS, "decoder_attention_type": "attention"},
    "manet": {**_STEPS, "decoder_pab_channels": "attention_channels"},
    "linknet": {"decoder_use_norm": "norm"},
    "fpn": {
        "decoder_pyramid_channels": "pyramid_channels",
        "decoder_segmentation_channels": "segmentation_channels",
        "decoder_merge_policy": "merge",
        "decoder_dropout": "dropout",
        "decoder_interpolation": "interpolation",
    },
    "pspnet": {"psp_out_channels": "width", "decoder_use_norm": "norm", "psp_dropout": "dropout"},
    "pan": {
        "encoder_output_stride": "output_stride",
        "decoder_channels": "width",
        "decoder_interpolation": "interpolation",
    },
    "deeplabv3": _ATROUS,
    "deeplabv3plus": _ATROUS,
    "upernet": {"decoder_channels": "width", "decoder_use_norm": "norm"},
    "segformer": {"decoder_segmentation_channels": "width"},
    "dpt": {
        "decoder_readout": "readout",
        "decoder_intermediate_channels": "reassemble_channels",
        "decoder_fusion_channels": "width",
    },
}
"""Decoder: SMP's argument and ours, for those that both have."""

OLD_NAMES = {
    "decoder_use_batchnorm": "decoder_use_norm",
    "psp_use_batchnorm": "decoder_use_norm",
    "upscale_mode": "decoder_interpolation",
}
"""Arguments that SMP once had and still takes."""

FPN_GROUPS = 32
"""Groups of the group norm in SMP's FPN, however many channels there are; ours has fewer for few channels."""

COMMON = (
    "encoder_name", "encoder_depth", "encoder_weights", "in_channels", "classes", "activation", "aux_params",
    "upsampling", "encoder_output_indices",
)  # fmt: skip

DEFAULT_DEPTH = {"pspnet": 3, "dpt": 4}
"""SMP's encoder_depth where it is not 5."""

NORMS = {
    "batchnorm": "batch",
    "identity": None,
    "layernorm": "layer",
    "instancenorm": "instance",
    "groupnorm": "group",
}
"""SMP's name of a norm: ours. SMP has no group norm; where its layer norm would fail, ours works."""


def origin_from_config(config: Mapping[str, Any]) -> Origin:
    """How to build the network of a `config.json`; InputError for one that we cannot have."""
    config = {OLD_NAMES.get(key, key): value for key, value in config.items()}
    kind = config.get("_model_class")
    if kind not in CLASSES:
        raise UnknownNameError("class of SMP", kind, CLASSES)
    decoder = CLASSES[kind]
    _check_rest(config)
    name = str(config.get("encoder_name", "resnet34"))
    arguments: dict[str, Any] = {
        "encoder": name,
        "num_classes": _whole(config, "classes", 1),
        "in_channels": _whole(config, "in_channels", 3),
    }
    if ":" in name or "/" in name.removeprefix("timm/"):
        raise InputError(
            f"config.json names the encoder {name!r}, which lies elsewhere; expected a name of an encoder"
        )
    for word in ("weights", *TIMM_FETCHES):
        if config.get(word) is not None:
            raise InputError(f"config.json asks for weights from elsewhere ({word}), which no file may do")
    depth = _whole(config, "encoder_depth", DEFAULT_DEPTH.get(decoder, 5))
    options = {
        key: value
        for key, value in config.items()
        if key not in COMMON and key not in OPTIONS[decoder] and not key.startswith("_") and value is not None
    }
    if decoder == "dpt":
        if (taps := config.get("encoder_output_indices")) is not None:
            options["taps"] = list(taps)
        elif depth != 4:
            options["taps"] = even_taps(name, depth)
    else:
        arguments["encoder_depth"] = depth
    for theirs, ours in OPTIONS[decoder].items():
        if config.get(theirs) is not None:
            value = config[theirs]
            arguments[ours] = norm_of(value) if ours == "norm" else value
        elif theirs == "decoder_use_norm" and config.get(theirs, True) is False:
            arguments[ours] = None
    if names.resolve(name).kind != "timm" and "output_stride" in OPTIONS[decoder].values():
        arguments["dilation"] = "smp"
    if decoder == "unet" and name.startswith("vgg"):
        arguments["center"] = True
    if decoder == "fpn" and _groups("group", arguments.get("segmentation_channels", 128)) != FPN_GROUPS:
        arguments["norm"] = {"name": "group", "groups": FPN_GROUPS}
    if decoder == "manet":
        arguments["position_attention"] = "smp"
    if decoder == "upernet" and arguments.get("norm", "batch") != "batch":
        arguments["pyramid_norm"] = "batch"
    if options:
        arguments["encoder_options"] = options
    return Origin(decoder, arguments)


def norm_of(use_norm: Any) -> Any:
    """SMP's `decoder_use_norm` (a flag, a name or a dictionary) as `layers.Norm`."""
    options = dict(use_norm) if isinstance(use_norm, Mapping) else {"type": use_norm}
    kind = options.pop("type", None)
    kind = (
        {True: "batchnorm", False: "identity"}.get(kind, kind)
        if isinstance(kind, bool)
        else str(kind).lower()
    )
    if kind == "inplace":
        raise InputError(
            "the norm 'inplace' needs a package of its own (inplace_abn); build with 'batchnorm'"
        )
    if kind not in NORMS:
        raise UnknownNameError("norm", kind, NORMS)
    return {"name": NORMS[kind], **options} if options and NORMS[kind] else NORMS[kind]


def config_of(origin: Origin) -> dict[str, Any]:
    """SMP's `config.json` for a network of that origin; InputError for one that SMP cannot have."""
    decoder, arguments = origin.model, dict(origin.arguments)
    if decoder not in OPTIONS or "encoder" not in arguments:
        raise InputError(f"{decoder} is no network of SMP, which has {', '.join(CLASSES)} on its encoders")
    name = arguments["encoder"]
    if names.resolve(name).kind == "timm" and not name.startswith(("tu-", "timm-")):
        name = f"tu-{name.removeprefix('timm/')}"
    options = dict(arguments.get("encoder_options") or {})
    config: dict[str, Any] = {
        "_model_class": next(kind for kind, ours in CLASSES.items() if ours == decoder),
        "encoder_name": name,
        "encoder_weights": None,
        "in_channels": arguments.get("in_channels", 3),
        "classes": arguments.get("num_classes", 1),
    }
    if decoder == "dpt":
        if (taps := options.pop("taps", None)) is not None:
            config |= {"encoder_depth": len(taps), "encoder_output_indices": list(taps)}
    else:
        config["encoder_depth"] = arguments.get("encoder_depth") or DEFAULT_DEPTH.get(decoder, 5)
    for theirs, ours in OPTIONS[decoder].items():
        if ours in arguments:
            value = arguments[ours]
            config[theirs] = _use_norm(value) if ours == "norm" else value
    dilated = "output_stride" in OPTIONS[decoder].values()
    if names.resolve(name).kind != "timm" and dilated and arguments.get("dilation") != "smp":
        raise InputError(
            f"SMP dilates {name} in another way; only networks with dilation='smp' can be written"
        )
    if decoder == "manet" and arguments.get("position_attention") != "smp":
        raise InputError(
            "SMP's MAnet has another position attention; only position_attention='smp' can be written"
        )
    if (
        decoder == "upernet"
        and arguments.get("pyramid_norm", "same") == "same"
        and arguments.get("norm", "batch") != "batch"
    ):
        raise InputError("SMP's UPerNet has batch norm behind its pyramid; build with pyramid_norm='batch'")
    if decoder == "unet" and bool(arguments.get("center")) != name.startswith("vgg"):
        raise InputError("SMP's Unet has a center on VGG and on no other encoder, unlike this network")
    if decoder == "fpn":
        channels, norm = arguments.get("segmentation_channels", 128), arguments.get("norm", "group")
        if (groups := _groups(norm, channels)) != FPN_GROUPS:
            raise InputError(
                f"SMP's FPN has a group norm of {FPN_GROUPS} groups, got norm={norm!r}"
                + (f", which has {groups} for {channels} channels" if groups else "")
                + f"; build with norm={{'name': 'group', 'groups': {FPN_GROUPS}}}"
            )
    if (
        decoder != "fpn"
        and "norm" not in OPTIONS[decoder].values()
        and arguments.get("norm", "batch") != "batch"
    ):
        raise InputError(
            f"SMP's {config['_model_class']} has batch norm only, got norm={arguments['norm']!r}"
        )
    return config | options


def _groups(norm: Norm, channels: int) -> int | None:
    """How many groups a norm has for that many channels; None for one that is no group norm."""
    options: dict[str, Any] = dict(norm) if isinstance(norm, Mapping) else {"name": norm}
    if options.get("name") != "group":
        return None
    given: int | None = options.get("groups")
    return given or groups_for(channels)


def _whole(config: Mapping[str, Any], key: str, default: int) -> int:
    value = config.get(key, default)
    if not _is_count(value):
        raise InputError(f"SMP's {key} must be a whole number from 1 up, got {value!r}")
    return int(value)


def _is_count(value: Any) -> bool:
    return not isinstance(value, bool) and isinstance(value, numbers.Integral) and int(value) > 0


def _check_rest(config: Mapping[str, Any]) -> None:
    """Refuse what would not be noticed by building the network, or only by a layer that does not know its name."""
    rates = config.get("decoder_atrous_rates") or ()
    if not isinstance(rates, (list, tuple)) or not all(type(rate) is int and rate > 0 for rate in rates):
        raise InputError(
            f"decoder_atrous_rates must be whole numbers from 1 up, got {rates!r}; correct config.json"
        )
    activation, factor = config.get("activation"), config.get("upsampling")
    if activation is not None and not callable(activation) and activation not in ACTIVATIONS:
        raise UnknownNameError("activation", str(activation), ACTIVATIONS)
    if factor is not None and (
        isinstance(factor, bool) or not isinstance(factor, (int, float)) or factor <= 0
    ):
        raise InputError(f"SMP's upsampling must be a number above 0, got {factor!r}")


def _use_norm(norm: Any) -> Any:
    options = dict(norm) if isinstance(norm, Mapping) else {"name": norm}
    kind = options.pop("name")
    if kind not in ("batch", None):
        raise InputError(f"SMP can run its networks with batch norm or none, got {norm!r}")
    return {"type": "batchnorm", **options} if options else kind is not None


def even_taps(name: str, depth: int) -> list[int]:
    """The blocks whose tokens SMP takes of a plain vision transformer at this depth; ValueError where it has fewer."""
    import timm

    from pixelwise.encoders.timm import evenly

    with torch.device("meta"):
        blocks = len(timm.create_model(name.removeprefix("tu-")).feature_info)
    if not 1 <= depth <= blocks:
        raise ValueError(f"the depth of {name} must be from 1 to {blocks}, its blocks, got {depth}")
    return evenly(depth, blocks)

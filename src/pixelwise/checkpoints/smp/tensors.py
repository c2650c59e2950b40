"""segmentation_models.pytorch (SMP) 0.6: folders of `config.json` and `model.safetensors`, and bare state dicts.

A folder says everything about its network. A bare state dict leaves some things open, above all the names of timm's
encoders and what has no tensors (dilation, atrous rates, interpolation): what can be read off is, SMP's defaults are
taken for the rest with a warning, and where that is not enough the error says what to do.

Decoders have SMP's names here, encoders those of `smp_encoders`. SMP's files also hold tensors that no pixel of the
output depends on; they are left out of our networks, kept beside their origin, and written back.
"""

from __future__ import annotations

import functools
import json
import os
import re
import warnings
from collections.abc import Callable, Container, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from pixelwise.checkpoints.family import Family
from pixelwise.checkpoints.making import build
from pixelwise.checkpoints.smp import encoders as smp_encoders
from pixelwise.encoders import create_encoder, names
from pixelwise.encoders.smp_tensors import table
from pixelwise.errors import InputError, UnknownNameError, WeightsError
from pixelwise.files import writing
from pixelwise.weights import store
from pixelwise.weights.origin import Origin, origin_of
from pixelwise.weights.renames import Tensors

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


# From SMP's arguments to ours, and back ----------------------------------------------------------------------------


def plan_of(config: Mapping[str, Any]) -> Origin:
    """How to build the network of a `config.json`; WeightsError for one that we cannot have."""
    config = {OLD_NAMES.get(key, key): value for key, value in config.items()}
    kind = config.get("_model_class")
    if kind not in CLASSES:
        raise UnknownNameError("class of SMP", kind, CLASSES)
    decoder = CLASSES[kind]
    name = str(config.get("encoder_name", "resnet34"))
    arguments: dict[str, Any] = {
        "encoder": name,
        "num_classes": int(config.get("classes", 1)),
        "in_channels": int(config.get("in_channels", 3)),
    }
    depth = int(config.get("encoder_depth", DEFAULT_DEPTH.get(decoder, 5)))
    options = {
        key: value
        for key, value in config.items()
        if key not in COMMON and key not in OPTIONS[decoder] and not key.startswith("_") and value is not None
    }
    if decoder == "dpt":
        if (taps := config.get("encoder_output_indices")) is not None:
            options["taps"] = list(taps)
        elif depth != 4:
            options["taps"] = _even_taps(name, depth)
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


def config_of(plan: Origin) -> dict[str, Any]:
    """SMP's `config.json` for a planned network; InputError for one that SMP cannot have."""
    decoder, arguments = plan.model, dict(plan.arguments)
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
    if (
        decoder not in ("fpn",)
        and "norm" not in OPTIONS[decoder].values()
        and arguments.get("norm", "batch") != "batch"
    ):
        raise InputError(
            f"SMP's {config['_model_class']} has batch norm only, got norm={arguments['norm']!r}"
        )
    return config | options


def _use_norm(norm: Any) -> Any:
    options = dict(norm) if isinstance(norm, Mapping) else {"name": norm}
    kind = options.pop("name")
    if kind not in ("batch", None):
        raise InputError(f"SMP can run its networks with batch norm or none, got {norm!r}")
    return {"type": "batchnorm", **options} if options else kind is not None


def _even_taps(name: str, depth: int) -> list[int]:
    import timm

    with torch.device("meta"):
        blocks = len(timm.create_model(name.removeprefix("tu-")).feature_info)
    return [int(blocks / depth * place) - 1 for place in range(1, depth + 1)]


# Tensors -----------------------------------------------------------------------------------------------------------


def network_of(config: Mapping[str, Any], tensors: Tensors, *, source: str = "the checkpoint") -> nn.Module:
    """The network of a `config.json` with its tensors; what it does not need is kept beside its origin."""
    network = build(plan_of(config))
    fill(network, origin_of(network), tensors, source=source, config=config)
    return network


def fill(
    network: nn.Module,
    plan: Origin,
    tensors: Tensors,
    *,
    source: str,
    config: Mapping[str, Any] | None = None,
) -> None:
    """Load SMP's tensors into the network of `plan`; WeightsError for any that is missing, surplus or misshapen."""
    ours, left_over = to_ours(plan, tensors, network.state_dict())
    head = ours.get("segmentation_head.0.weight", ours.get("segmentation_head.head.4.weight"))
    classes = getattr(network, "num_classes", None)
    if head is not None and classes is not None and len(head) != classes:
        raise WeightsError(
            f"{source} has {len(head)} classes, the network {classes}; build it with num_classes={len(head)} "
            "(classes in SMP), or correct config.json"
        )
    store.load_into(network, ours, source=source)
    keep_beside(network, plan, left_over, config)


def keep_beside(
    network: nn.Module, plan: Origin, tensors: Tensors, config: Mapping[str, Any] | None = None
) -> None:
    """Note on the network what SMP's file held that it has no use for: `write` gives it back."""
    beside = {"tensors": tensors, "config": dict(config or {})}
    vars(network)["origin"] = replace(plan, beside=beside)


def to_ours(plan: Origin, tensors: Tensors, own: Mapping[str, Any]) -> tuple[Tensors, Tensors]:
    """SMP's tensors as our network's, whose keys are `own`, and those that have no use there, under SMP's names."""
    name = plan.arguments["encoder"]
    tensors = modern(plan.model, name, tensors)
    heads = {key: t for key, t in own.items() if key.startswith(("aux_head.", "deep_heads."))}
    encoder = {key.removeprefix("encoder."): t for key, t in tensors.items() if key.startswith("encoder.")}
    ours = {key: tensor for key, tensor in tensors.items() if not key.startswith("encoder.")}
    wanted = {key.removeprefix("encoder.") for key in own if key.startswith("encoder.")}
    if names.resolve(name).kind == "timm":
        encoder = {_flat(key, wanted): tensor for key, tensor in encoder.items()}
        kept, spare = encoder, {_flat(key, wanted) for key in _timm_whole(plan)} - wanted
    else:
        kept, spare = smp_encoders.to_ours(name, encoder), set(smp_encoders.whole(name)) - wanted
    ours |= {f"encoder.{key}": tensor for key, tensor in kept.items() if key not in spare}
    unused = [key for key in ours if key not in own and _is_unused(plan, key)]
    for key in unused:
        del ours[key]
    back = _theirs(name, {key: tensor for key, tensor in kept.items() if key in spare})
    left_over = {f"encoder.{key}": tensor for key, tensor in back.items()} | {
        key: tensors[key] for key in unused
    }
    return {**heads, **ours}, left_over


def to_theirs(plan: Origin, tensors: Tensors, left_over: Mapping[str, Any] | None = None) -> Tensors:
    """Our network's tensors as SMP's, complete: those that SMP has and does not use are `left_over`'s, or zeros."""
    name = plan.arguments["encoder"]
    encoder = {key.removeprefix("encoder."): t for key, t in tensors.items() if key.startswith("encoder.")}
    in_channels = plan.arguments.get("in_channels", 3)
    if names.resolve(name).kind == "timm":
        whole = {_flat(key, encoder): (key, tensor) for key, tensor in _timm_whole(plan).items()}
        named = {key: whole[key][0] if key in whole else key for key in encoder}
        theirs = {f"encoder.{named[key]}": tensor for key, tensor in encoder.items()}
        theirs |= {
            f"encoder.{key}": torch.zeros_like(tensor, device="cpu")
            for flat, (key, tensor) in whole.items()
            if flat not in encoder
        }
    else:
        complete = smp_encoders.to_theirs(name, encoder, in_channels=in_channels)
        theirs = {f"encoder.{key}": tensor for key, tensor in complete.items()}
    theirs |= {
        key: tensor
        for key, tensor in tensors.items()
        if key.startswith(("decoder.", "segmentation_head.", "classification_head."))
    }
    theirs |= _unused(plan, theirs)
    return theirs | {key: tensor for key, tensor in (left_over or {}).items() if key in theirs}


def _flat(key: str, known: Container[str]) -> str:
    """timm's name of a tensor in a network that is taken apart into its stages: "layers.0" becomes "layers_0"."""
    flat = re.sub(r"^model\.([a-z]+)\.(\d+)\.", r"model.\1_\2.", key)
    return flat if key not in known and flat in known else key


def modern(decoder: str, encoder: str, tensors: Tensors) -> Tensors:
    """The tensors under the names of SMP 0.6: DeepLabV3's decoder and some of timm's encoders had others before."""
    if decoder == "deeplabv3":
        parts = {"decoder.0.": "decoder.aspp.", "decoder.1.": "decoder.conv.", "decoder.2.": "decoder.bn."}
        tensors = {parts.get(key[:10], key[:10]) + key[10:]: tensor for key, tensor in tensors.items()}
    row = names.resolve(encoder)
    if row.kind == "timm" and row.network.removeprefix("tf_").startswith(names.OLD_TIMM):
        old = {key: re.sub(r"^encoder\.(?!model\.)", "encoder.model.", key) for key in tensors}
        if "gernet" in encoder:
            old = {key: new.replace(".stages.", ".stages_") for key, new in old.items()}
        tensors = {old[key]: tensor for key, tensor in tensors.items()}
    return tensors


def _theirs(name: str, tensors: Tensors) -> Tensors:
    """The renaming alone, of the tensors given."""
    renames = table(name)
    return tensors if renames is None else {str(renames.to_theirs(key)): t for key, t in tensors.items()}


def _is_unused(plan: Origin, key: str) -> bool:
    """Whether SMP's decoder makes this tensor and leaves it out of its forward."""
    if key.startswith("classification_head."):
        return True
    if plan.model == "unetplusplus" and key.startswith("decoder.center."):
        return True
    return plan.model in ("unet", "unetplusplus") and ".attention1." in key


def _unused(plan: Origin, theirs: Tensors) -> Tensors:
    """The tensors that `_is_unused` tells, with zeros: of a step without a skip, and of the center of U-Net++."""
    zeros: Tensors = {}
    arguments = plan.arguments
    if plan.model in ("unet", "unetplusplus") and arguments.get("attention") == "scse":
        steps = [
            key.split(".")[2]
            for key in theirs
            if re.fullmatch(r"decoder\.blocks\.\w+\.conv1\.0\.weight", key)
        ]
        for step in steps:
            at = f"decoder.blocks.{step}.attention1.attention"
            if f"{at}.cSE.1.weight" not in theirs:
                c = theirs[f"decoder.blocks.{step}.conv1.0.weight"].shape[1]
                zeros |= {
                    f"{at}.cSE.1.weight": torch.zeros(c // 16, c, 1, 1), f"{at}.cSE.1.bias": torch.zeros(c // 16),
                    f"{at}.cSE.3.weight": torch.zeros(c, c // 16, 1, 1), f"{at}.cSE.3.bias": torch.zeros(c),
                    f"{at}.sSE.0.weight": torch.zeros(1, c, 1, 1), f"{at}.sSE.0.bias": torch.zeros(1),
                }  # fmt: skip
    if plan.model == "unetplusplus" and arguments["encoder"].startswith("vgg"):
        from pixelwise.decoders.unet import Center

        deepest = _channels(arguments["encoder"], arguments.get("encoder_depth", 5))[-1]
        center = Center(deepest, arguments.get("norm", "batch")).state_dict()
        zeros |= {f"decoder.center.{key}": torch.zeros_like(tensor) for key, tensor in center.items()}
    return zeros


def _channels(encoder: str, depth: int) -> tuple[int, ...]:
    with torch.device("meta"):
        channels: tuple[int, ...] = create_encoder(encoder, depth=depth).channels  # type: ignore[assignment]
    return channels


def _timm_whole(plan: Origin) -> Tensors:
    """All tensors that SMP's "tu-" encoder has for a plan, without values."""
    arguments = plan.arguments
    options = {key: v for key, v in (arguments.get("encoder_options") or {}).items() if key != "taps"}
    depth = 0 if plan.model == "dpt" else arguments.get("encoder_depth") or 5
    name = names.resolve(arguments["encoder"]).network
    return _timm_tensors(name, arguments.get("in_channels", 3), depth, json.dumps(options))


@functools.cache
def _timm_tensors(name: str, in_channels: int, depth: int, options: str) -> Tensors:
    """depth 0: the whole network."""
    import timm

    asked = json.loads(options)
    with warnings.catch_warnings(), torch.device("meta"):
        warnings.simplefilter("ignore", UserWarning)
        if depth:
            info = timm.create_model(name, features_only=True, **asked).feature_info
            strides = zip(info.out_indices, info.reduction(), strict=True)
            asked |= {"features_only": True, "out_indices": [i for i, s in strides if s <= 2**depth]}
        network = timm.create_model(name, in_chans=in_channels, **asked)
        return {f"model.{key}": tensor for key, tensor in network.state_dict().items()}


# Folders -----------------------------------------------------------------------------------------------------------


def read_config(folder: str | os.PathLike[str]) -> dict[str, Any] | None:
    """The `config.json` of a folder that SMP has written, or None."""
    path = Path(folder) / "config.json"
    if not path.is_file():
        return None
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, OSError) as error:
        raise WeightsError(f"{path} is no JSON: {error}") from error
    return config if isinstance(config, dict) and "_model_class" in config else None


def write(network: nn.Module, out: str | os.PathLike[str], *, overwrite: bool = False) -> str:
    """Write a network as SMP would: a folder, or its state dict alone where `out` is a file's name.

    Returns a sentence that says what was done. Raises InputError for a network that SMP cannot have.
    """
    from safetensors.torch import save_file

    plan = origin_of(network)
    config = config_of(plan) | {
        key: value
        for key, value in plan.beside.get("config", {}).items()
        if key in ("activation", "upsampling")
    }
    theirs = to_theirs(plan, network.state_dict(), plan.beside.get("tensors"))
    theirs = {key: tensor.detach().cpu().contiguous().clone() for key, tensor in theirs.items()}
    path = Path(out)
    left = (
        "" if getattr(network, "aux_head", None) is None else ", without the auxiliary head, which SMP lacks"
    )
    if path.suffix in (".pth", ".pt", ".bin", ".safetensors"):
        with writing(path, overwrite=overwrite) as temporary:
            if path.suffix == ".safetensors":
                save_file(theirs, temporary, metadata={"format": "pt"})
            else:
                torch.save(theirs, temporary)
        return f"{plan.model} on {plan.arguments['encoder']} in the names of SMP{left}"
    with writing(path / "model.safetensors", overwrite=overwrite) as temporary:
        save_file(theirs, temporary, metadata={"format": "pt"})
    with writing(path / "config.json", overwrite=overwrite) as temporary:
        temporary.write_text(json.dumps(config, indent=2, sort_keys=True, default=list), encoding="utf-8")
    return f"{plan.model} on {plan.arguments['encoder']} as a folder of SMP{left}"


# Bare state dicts --------------------------------------------------------------------------------------------------

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
    theirs = _theirs(name, smp_encoders.whole(name, in_channels))
    return {key: tuple(t.shape) for key, t in theirs.items() if not key.endswith("num_batches_tracked")}


def config_from(decoder: str, tensors: Tensors) -> tuple[dict[str, Any], list[str]]:
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
        config["encoder_depth"] = _depth(name, tensors["decoder.p5.weight"].shape[1], (5, 4))
        config["decoder_pyramid_channels"] = rows("p5.weight")
        config["decoder_segmentation_channels"] = c = rows("seg_blocks.0.block.0.block.0.weight")
        config["decoder_merge_policy"] = "add" if head.shape[1] == c else "cat"
        unsure.append("decoder_interpolation")
    elif decoder == "pspnet":
        config["encoder_depth"] = _depth(
            name, tensors["decoder.psp.blocks.0.pool.1.0.weight"].shape[1], (3, 4, 5)
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
            name, tensors[f"decoder.{aspp}.convs.0.0.weight"].shape[1], (5, 4, 3)
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


def _depth(name: str, deepest: int, tries: tuple[int, ...]) -> int:
    return next((depth for depth in tries if _channels(name, depth)[-1] == deepest), tries[0])


def _plan_from(decoder: str, warn: bool = True) -> Callable[[Tensors], Origin]:
    def plan(tensors: Tensors) -> Origin:
        config, unsure = config_from(decoder, tensors)
        if unsure and warn:
            kind = config["_model_class"]
            warnings.warn(
                f"a state dict does not say {' and '.join(unsure)} of SMP's {kind}; its defaults are taken. If they "
                "were others, give the folder with config.json, or build the network and use load_checkpoint",
                UserWarning,
                stacklevel=3,
            )
        return plan_of(config)

    return plan


def _ours_from(decoder: str) -> Callable[[Tensors], Tensors]:
    def ours(tensors: Tensors) -> Tensors:
        plan = _plan_from(decoder, warn=False)(tensors)
        with torch.device("meta"):
            own = build(plan).state_dict()
        return to_ours(plan, tensors, own)[0]

    return ours


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
        _plan_from(decoder),
        _ours_from(decoder),
    )
    for kind, decoder in CLASSES.items()
)

"""What a `config.json` says of a network, in arguments of our builders, or which key asks for what we lack.

Read as transformers 5 reads it: keys that it leaves alone are left alone, and defaults are its own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pixelwise.checkpoints.huggingface.meaning import labels_of
from pixelwise.checkpoints.huggingface.values import MOST, Values
from pixelwise.encoders import convnext, mit, swin
from pixelwise.errors import WeightsError
from pixelwise.untrusted import SHORT

ARCHITECTURES = {
    "SegformerForSemanticSegmentation": "segformer",
    "UperNetForSemanticSegmentation": "upernet",
}
"""What can be opened, and the model_type that its configuration has."""

ACTIVATIONS = {
    **{name: name for name in ("gelu", "hardswish", "leaky_relu", "mish", "relu", "relu6", "sigmoid", "silu", "tanh")},
    "gelu_python": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_fast": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "gelu_python_tanh": "gelu_tanh",
    "swish": "silu",
}  # fmt: skip
"""Their name of an activation: ours (`layers.ACTIVATIONS`)."""

Shown = dict[str, tuple[str, Any]]


@dataclass(frozen=True)
class Said:
    """says: the architecture. families: the names that its tensors may have (`Family.name`). shown: our arguments that
    shapes show too, and the key and value by which the configuration says them. arguments: those that shapes do not
    show."""

    says: str
    families: tuple[str, ...]
    shown: Shown
    arguments: dict[str, Any]


def read_config(values: Mapping[str, Any], where: Path) -> Said:
    """What the configuration in the file `where` says; WeightsError, which names the key, for what our networks cannot
    be, and, which names the architecture, for any other model."""
    config = Values(values, where)
    return _segformer(config) if _kind(values, where) == "segformer" else _upernet(config)


def _kind(values: Mapping[str, Any], where: Path) -> str:
    """The model_type of a configuration whose model can be opened; WeightsError, which names it, for any other."""
    named, kind = values.get("architectures"), values.get("model_type")
    known = " and ".join(ARCHITECTURES)
    if isinstance(named, list) and named:
        for name in named:
            if isinstance(name, str) and kind is not None and ARCHITECTURES.get(name) == kind:
                return ARCHITECTURES[name]
        what = f"a {named[0]}" if isinstance(named[0], str) else SHORT.repr(named[0])
        if isinstance(named[0], str) and named[0] in ARCHITECTURES:
            what += f" of the model_type {SHORT.repr(kind)}"
    elif named is None and isinstance(kind, str):
        if kind in ARCHITECTURES.values():
            return kind
        what = f"a model of the type {kind[:60]!r}"
    else:
        raise WeightsError(
            f"{where} does not say which architecture of transformers it is of (architectures={SHORT.repr(named)}, "
            f"model_type={SHORT.repr(kind)}); those that can be opened: {known}"
        )
    raise WeightsError(
        f"the folder {where.parent} holds {what[:120]} of transformers, which pixelwise cannot run; of transformers it "
        f"opens {known}"
    )


def _segformer(config: Values) -> Said:
    config.only("num_encoder_blocks", 4, "a SegFormer here has four stages")
    config.only(
        "num_hidden_layers", config.values.get("num_encoder_blocks", 4), "another name of num_encoder_blocks"
    )
    config.only("reshape_last_stage", True, "its head takes images from all stages")
    channels = config.wholes("hidden_sizes", mit.SIZES["mit_b0"].channels)
    heads = config.wholes("num_attention_heads", (1, 2, 5, 8))
    if any(c % h for c, h in zip(channels, heads, strict=True)):
        config.refuse("num_attention_heads", f"numbers that divide hidden_sizes, {list(channels)}")
    labels, outputs = labels_of(config)
    arguments = {
        "heads": heads,
        "patch_strides": config.wholes("strides", (4, 2, 2, 2)),
        "activation": config.word("hidden_act", "gelu", ACTIVATIONS),
        "drop_path": config.share("drop_path_rate", 0.1),
        "dropout": config.share("classifier_dropout_prob", 0.1),
        "encoder_dropout": config.share("hidden_dropout_prob", 0.0),
        "attention_dropout": config.share("attention_probs_dropout_prob", 0.0),
    }
    config.number("layer_norm_eps", 1e-6)  # transformers reads it and builds with 1e-5 whatever it says
    shown = {
        "num_classes": ("num_labels", 1 if outputs == "binary" else labels.num_classes),
        "in_channels": ("num_channels", config.whole("num_channels", 3)),
        "channels": ("hidden_sizes", channels),
        "depths": ("depths", config.wholes("depths", (2, 2, 2, 2))),
        "width": ("decoder_hidden_size", config.whole("decoder_hidden_size", 256)),
        "reductions": ("sr_ratios", config.wholes("sr_ratios", (8, 4, 2, 1))),
        "patches": ("patch_sizes", config.wholes("patch_sizes", (7, 3, 3, 3))),
        "mlp_ratio": ("mlp_ratios", config.numbers("mlp_ratios", (4, 4, 4, 4), 4)),
    }
    families = ("huggingface.segformer", "transformers5.segformer")
    return Said("SegformerForSemanticSegmentation", families, shown, arguments)


def _upernet(config: Values) -> Said:
    if "backbone" in config and "backbone_config" not in config:
        config.refuse("backbone", f"a backbone_config of one of the types {', '.join(_BACKBONES)}")
    inner = config.values.get("backbone_config")
    if inner is None:
        inner = {"model_type": "resnet", "out_features": ["stage1", "stage2", "stage3", "stage4"]}
    if not isinstance(inner, dict):
        config.refuse("backbone_config", "an object of keys and values")
    backbone = Values(inner, config.where, "backbone_config.")
    kind = backbone.word("model_type", "none", {name: name for name in _BACKBONES})
    levels = _out_features(backbone)
    shown, arguments, channels = _BACKBONES[kind](backbone)
    if len(levels) < 2:
        backbone.refuse("out_features", "two stages or more, as UPerNet joins them")
    aux = config.flag("use_auxiliary_head", True)
    if aux and len(levels) < 3:
        config.refuse(
            "use_auxiliary_head", f"false, as out_features has {len(levels)} and it takes the third"
        )
    if aux and "auxiliary_in_channels" in config:
        third = channels[levels[2]]
        config.only("auxiliary_in_channels", third, f"the third of the stages has {third} channels")
    shown |= {
        "in_channels": ("backbone_config.num_channels", backbone.whole("num_channels", 3)),
        "stages": ("backbone_config.out_features", levels),
        "width": ("hidden_size", config.whole("hidden_size", 512)),
        "aux_loss": ("use_auxiliary_head", aux),
    }
    if aux:
        shown |= {
            "aux_width": ("auxiliary_channels", config.whole("auxiliary_channels", 256)),
            "aux_convs": ("auxiliary_num_convs", config.whole("auxiliary_num_convs", 1, most=64)),
            "aux_concat": ("auxiliary_concat_input", config.flag("auxiliary_concat_input", False)),
        }
    pools = config.wholes("pool_scales", (1, 2, 3, 6), None)
    if max(pools) > 512:
        config.refuse("pool_scales", "numbers up to 512")
    labels, outputs = labels_of(config)
    shown["num_classes"] = ("num_labels", 1 if outputs == "binary" else labels.num_classes)
    shown["pool_sizes"] = ("pool_scales", pools)
    arguments |= {"pool_sizes": pools, "stages": levels, "dropout": 0.0}
    return Said("UperNetForSemanticSegmentation", (f"huggingface.upernet_{kind}",), shown, arguments)


def _stages(backbone: Values, sizes: Iterable[str], defaults: Mapping[str, tuple[int, ...]]) -> Shown:
    """Of our arguments channels and depths, what the configuration says."""
    theirs = {"channels": "hidden_sizes", "depths": "depths"}
    return {
        ours: (f"backbone_config.{theirs[ours]}", backbone.wholes(theirs[ours], defaults[ours]))
        for ours in sizes
    }


def _convnext(backbone: Values) -> tuple[Shown, dict[str, Any], tuple[int, ...]]:
    for key in ("num_stages", "num_hidden_layers"):
        backbone.only(key, 4, "a ConvNeXt here has four stages")
    size = convnext.SIZES["convnext_tiny"]
    shown = _stages(backbone, ("channels", "depths"), {"channels": size.channels, "depths": size.depths})
    shown["patch"] = ("backbone_config.patch_size", backbone.side("patch_size", 4))
    arguments: dict[str, Any] = {
        "activation": backbone.word("hidden_act", "gelu", ACTIVATIONS),
        "drop_path": backbone.share("drop_path_rate", 0.0),
    }
    return shown, arguments, shown["channels"][1]


def _convnext_v1(backbone: Values) -> tuple[Shown, dict[str, Any], tuple[int, ...]]:
    shown, arguments, channels = _convnext(backbone)
    scale = backbone.number("layer_scale_init_value", 1e-6, least=-float(MOST))
    arguments["layer_scale"] = scale if scale > 0 else None
    shown["layer_scale"] = ("backbone_config.layer_scale_init_value", arguments["layer_scale"])
    shown["output_norms"] = ("backbone_config.model_type", True)
    return shown, arguments, channels


def _swin(backbone: Values) -> tuple[Shown, dict[str, Any], tuple[int, ...]]:
    backbone.only(
        "use_absolute_embeddings", False, "a Swin Transformer here has no positions of one image's size"
    )
    size = swin.SIZES["swin_tiny"]
    channels = backbone.whole("embed_dim", size.channels)
    key = (
        "num_heads"
        if "num_heads" in backbone or "num_attention_heads" not in backbone
        else "num_attention_heads"
    )
    heads = backbone.wholes(key, size.heads)
    if any(channels * 2**i % count for i, count in enumerate(heads)):
        backbone.refuse(key, f"numbers that divide embed_dim, {channels}, times 1, 2, 4 and 8")
    shown = _stages(backbone, ("depths",), {"depths": size.depths})
    shown |= {
        "channels": ("backbone_config.embed_dim", channels),
        "heads": (f"backbone_config.{key}", heads),
        "window": ("backbone_config.window_size", backbone.whole("window_size", 7)),
        "patch": ("backbone_config.patch_size", backbone.side("patch_size", 4)),
        "mlp_ratio": ("backbone_config.mlp_ratio", backbone.number("mlp_ratio", 4.0)),
        "qkv_bias": ("backbone_config.qkv_bias", backbone.flag("qkv_bias", True)),
    }
    arguments = {
        "activation": backbone.word("hidden_act", "gelu", ACTIVATIONS),
        "eps": backbone.number("layer_norm_eps", 1e-5),
        "drop_path": backbone.share("drop_path_rate", 0.1),
        "encoder_dropout": backbone.share("hidden_dropout_prob", 0.0),
        "attention_dropout": backbone.share("attention_probs_dropout_prob", 0.0),
    }
    return shown, arguments, tuple(channels * 2**i for i in range(4))


def _resnet(backbone: Values) -> tuple[Shown, dict[str, Any], tuple[int, ...]]:
    usual = {"channels": (256, 512, 1024, 2048), "depths": (3, 4, 6, 3)}
    shown = _stages(backbone, ("channels", "depths"), usual)
    kind = backbone.word("layer_type", "bottleneck", {"basic": "basic", "bottleneck": "bottleneck"})
    shown |= {
        "stem": ("backbone_config.embedding_size", backbone.whole("embedding_size", 64)),
        "bottleneck": ("backbone_config.layer_type", kind == "bottleneck"),
    }
    arguments = {
        "activation": backbone.word("hidden_act", "relu", ACTIVATIONS),
        "first_stride": 2 if backbone.flag("downsample_in_first_stage", False) else 1,
        "stride_first": backbone.flag("downsample_in_bottleneck", False),
    }
    return shown, arguments, shown["channels"][1]


_BACKBONES: dict[str, Callable[[Values], tuple[Shown, dict[str, Any], tuple[int, ...]]]] = {
    "convnext": _convnext_v1,
    "convnextv2": _convnext,
    "swin": _swin,
    "resnet": _resnet,
}
"""model_type of a backbone: what it says of sizes that show, of what does not, and the channels of its stages."""


def _out_features(backbone: Values) -> tuple[int, ...]:
    """The stages whose features are used, from 0, by out_features and out_indices, where 0 is the stem."""
    stages = ("stem", "stage1", "stage2", "stage3", "stage4")
    by_name = by_number = None
    if "out_features" in backbone:
        names = backbone.values["out_features"]
        if not isinstance(names, list) or any(
            name not in stages[1:] for name in names if isinstance(name, str)
        ):
            backbone.refuse("out_features", f"some of {', '.join(stages[1:])}")
        if not all(isinstance(name, str) for name in names):
            backbone.refuse("out_features", f"some of {', '.join(stages[1:])}")
        by_name = tuple(stages.index(name) - 1 for name in names)
    if "out_indices" in backbone:
        numbers = backbone.values["out_indices"]
        if not isinstance(numbers, list) or not all(type(i) is int and -4 <= i <= 4 and i for i in numbers):
            backbone.refuse("out_indices", "some of 1, 2, 3 and 4, the stages")
        by_number = tuple(i % 5 - 1 for i in numbers)
    key = "out_indices" if by_name is None else "out_features"
    levels = by_number if by_name is None else by_name
    if levels is None:
        backbone.refuse("out_features", "the stages that UPerNet joins, as without it there is only the last")
    if by_name is not None and by_number is not None and by_name != by_number:
        backbone.refuse(
            "out_indices", f"the same stages as out_features, {SHORT.repr(backbone.values['out_features'])}"
        )
    if list(levels) != sorted(set(levels)):
        backbone.refuse(key, "stages in rising order")
    return levels

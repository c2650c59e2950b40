"""Folders of Hugging Face's transformers: `config.json`, which says what shapes do not show, and
`preprocessor_config.json`.

Both are read as transformers reads them. What a configuration asks for becomes arguments of our builders and a card;
what our networks cannot be is refused, by the name of the key, before any tensor is read. Sizes that tensors show as
well must agree with them, so that no number in a file is taken on trust.
"""

from __future__ import annotations

import inspect
import json
import math
import reprlib
import warnings
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from pixelwise import models
from pixelwise.catalog import CATALOG
from pixelwise.checkpoints.reading import FOLDERS, Source
from pixelwise.encoders import convnext, mit, swin
from pixelwise.errors import WeightsError
from pixelwise.inference.preprocess import IMAGENET_MEAN, IMAGENET_STD, Preprocess
from pixelwise.labels import ADE20K, LabelSet, spread_colors
from pixelwise.models import segformer
from pixelwise.weights.card import Card, Outputs
from pixelwise.weights.origin import Origin

CONFIG, PREPROCESSOR = "config.json", "preprocessor_config.json"

ARCHITECTURES = {
    "SegformerForSemanticSegmentation": "segformer",
    "UperNetForSemanticSegmentation": "upernet",
}
"""What can be opened, and the model_type that its configuration has."""

MAX_BYTES = 2**24
"""Of a configuration; those of 150 classes have 10 KB."""

MOST = 2**16
"""The largest whole number that a configuration may hold."""

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

_SHORT = reprlib.Repr()
_SHORT.maxlist = _SHORT.maxtuple = _SHORT.maxdict = 8
_SHORT.maxstring = _SHORT.maxother = _SHORT.maxlong = 60


@dataclass(frozen=True)
class Folder:
    """A folder whose configuration can be obeyed.

    says: in words. families: the names that its tensors may have (`Family.name`). shown: our arguments that shapes
    show too, and the key and value by which the configuration says them. arguments: those that shapes do not show.
    labels, outputs: what the logits mean. preprocess: None where the folder does not say.
    """

    path: Path
    says: str
    families: tuple[str, ...]
    shown: dict[str, tuple[str, Any]]
    arguments: dict[str, Any]
    labels: LabelSet
    outputs: Outputs
    preprocess: Preprocess | None

    def origin(self, family: str, says: str, found: Origin) -> Origin:
        """The origin with what the configuration adds to what was read off the tensors, `found`.

        family, says: the name of the tensors' family, and its words. Raises WeightsError where the two disagree.
        """
        if family not in self.families:
            raise WeightsError(f"{self.path / CONFIG} is of {self.says}, but the tensors are of {says}")
        whole = _all_arguments(found)
        for argument, (key, value) in self.shown.items():
            if _visible(argument, value, whole) != _visible(argument, whole[argument], whole):
                raise WeightsError(
                    f"{self.path / CONFIG} says {key}={_SHORT.repr(value)}, but the tensors are of a network with "
                    f"{_SHORT.repr(whole[argument])}; one of the two is of another network"
                )
        return Origin(found.model, {**found.arguments, **self.arguments})

    def card(self, origin: Origin) -> Card:
        """The card of a network of that origin; warns where the folder does not say how pictures are prepared."""
        preprocess = self.preprocess
        if preprocess is None:
            preprocess = _usual(origin)
            warnings.warn(
                f"the folder {self.path} has no {PREPROCESSOR}, so pictures are prepared as usual: "
                f"{_words(preprocess)}; if its network was trained with others, give a card (pixelwise.Card.of)",
                UserWarning,
                stacklevel=4,
            )
        return Card(
            name=_name(self.path), architecture=str(origin), labels=self.labels, preprocess=preprocess,
            stride=1, align_corners=False, parameters=0, origin=f"a folder of Hugging Face, {self.says}",
            outputs=self.outputs,
        )  # fmt: skip

    def check(self, origin: Origin) -> None:
        """WeightsError, which names it, where a network of that origin computes otherwise than the folder's."""
        if "encoder" in origin.arguments:
            return  # a composed network, whose tensors are others
        own = _all_arguments(origin)
        for argument, value in self.arguments.items():
            if argument in own and argument not in _TRAINING and own[argument] != value:
                raise WeightsError(
                    f"{self.path / CONFIG} is of a network with {argument}={_SHORT.repr(value)}, this one has "
                    f"{_SHORT.repr(own[argument])}; open the folder with from_checkpoint, or build with that"
                )


def _visible(argument: str, value: Any, whole: Mapping[str, Any]) -> Any:
    """What shapes show of a value of an argument of ours; whole: all the arguments."""
    if argument == "mlp_ratio" and isinstance(value, tuple):
        return [int(ratio * channels) for ratio, channels in zip(value, whole["channels"], strict=True)]
    if argument == "mlp_ratio":
        return [int(value * whole["channels"] * 2**stage) for stage in range(4)]
    if argument == "layer_scale":
        return value is None
    if argument == "pool_sizes" or (
        argument == "stages" and "bottleneck" in whole
    ):  # a ResNet's have no norms
        return len(value)
    return value


_TRAINING = ("drop_path", "dropout", "encoder_dropout", "attention_dropout", "layer_scale")
"""Arguments that change training alone."""


def open_folder(source: Source) -> Folder | None:
    """What the configuration of a folder says, None where there is none, or it is of SMP.

    source: the folder, or the file in it that holds the tensors. Raises WeightsError, which names the key, for what our
    networks cannot be, and for a configuration of any other model.
    """
    if isinstance(source, Mapping):
        return None
    path = Path(source)
    if not path.is_dir():
        if path.name not in FOLDERS:
            return None
        path = path.parent
    where = path / CONFIG
    if not where.is_file():
        return None
    values = _read(where)
    if "_model_class" in values:
        return None
    kind = _kind(values, where)
    config = Values(values, where)
    return (_segformer if kind == "segformer" else _upernet)(config, path)


def say_what_is_open(family: str, origin: Origin) -> None:
    """For tensors without a configuration: warn of what they do not say of their network, unless it is one of those
    that were published.

    Raises WeightsError where there is no usual value to take.
    """
    arguments = origin.arguments
    if "pool_sizes" in arguments:
        raise WeightsError(
            f"these tensors are of a UPerNet that pools in {len(arguments['pool_sizes'])} sizes, and do not say which; "
            f"give the folder with {CONFIG}"
        )
    if not family.startswith(("huggingface.", "transformers5.")):
        return
    if origin.model.startswith("segformer"):
        open_ = ["num_attention_heads", "strides", "hidden_act"]
        usual = not arguments.keys() - {"num_classes", "in_channels", "eps"}
    elif origin.model == "upernet_swin":
        open_ = ["hidden_act", "layer_norm_eps", "pool_scales"]
        size = (arguments["channels"], arguments["depths"], arguments["heads"])
        usual = size in swin.SIZES.values() and arguments["window"] in (7, 12) and arguments["mlp_ratio"] == 4
        usual = usual and not arguments.keys() & {"patch", "stages"}
    elif origin.model == "upernet_resnet":
        open_ = [
            "downsample_in_first_stage",
            "downsample_in_bottleneck",
            "out_features",
            "hidden_act",
            "pool_scales",
        ]
        usual = False
    else:
        open_ = ["hidden_act", "pool_scales"]
        usual = origin.model != "upernet_convnextv2" and not arguments.keys() & {
            "channels",
            "levels",
            "patch",
        }
    if not usual:
        warnings.warn(
            f"these tensors do not say {', '.join(open_[:-1])} and {open_[-1]} of their network, and it is none of "
            f"those that were published; the usual ones are taken. If they were others, give the folder with {CONFIG}",
            UserWarning,
            stacklevel=3,
        )


# What a configuration says --------------------------------------------------------------------------------------------


class Values:
    """The values of a JSON object, asked for by key and kind; WeightsError, which names the key, for any other kind."""

    def __init__(self, values: Mapping[str, Any], where: Path, prefix: str = "") -> None:
        self.values, self.where, self.prefix = values, where, prefix

    def __contains__(self, key: str) -> bool:
        return self.values.get(key) is not None

    def refuse(self, key: str, expected: str) -> NoReturn:
        said = _SHORT.repr(self.values.get(key))
        raise WeightsError(f"{self.where} says {self.prefix}{key}={said}, expected {expected}")

    def whole(self, key: str, default: int, *, least: int = 1, most: int = MOST) -> int:
        value = self.values.get(key, default)
        if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
            self.refuse(key, f"a whole number from {least} to {most}")
        return value

    def number(self, key: str, default: float, *, least: float = 0.0, most: float = float(MOST)) -> float:
        value = self.values.get(key, default)
        if not _is_number(value) or not least <= value <= most:
            self.refuse(key, f"a number from {least:g} to {most:g}")
        return float(value)

    def share(self, key: str, default: float) -> float:
        """A probability of dropping something."""
        value = self.number(key, default, most=1.0)
        if value == 1:
            self.refuse(key, "a probability below 1")
        return value

    def flag(self, key: str, default: bool) -> bool:
        value = self.values.get(key, default)
        if not isinstance(value, bool):
            self.refuse(key, "true or false")
        return value

    def wholes(self, key: str, default: tuple[int, ...], count: int | None = 4) -> tuple[int, ...]:
        """Whole numbers from 1 up; count: how many, None for any number of them."""
        value = self.values.get(key, default)
        fits = isinstance(value, (list, tuple)) and (len(value) == count if count else 1 <= len(value) <= 64)
        if not fits or any(
            isinstance(v, bool) or not isinstance(v, int) or not 1 <= v <= MOST for v in value
        ):
            amount = f"{count} whole numbers" if count else "a list of whole numbers"
            self.refuse(
                key, f"{amount} from 1 to {MOST}" + (", as there are four stages here" if count == 4 else "")
            )
        return tuple(value)

    def numbers(
        self, key: str, default: tuple[float, ...], count: int, *, single: bool = False
    ) -> tuple[float, ...]:
        """Numbers; single: one may stand for all."""
        value = self.values.get(key, default)
        if single and _is_number(value):
            value = [value] * count
        if not isinstance(value, (list, tuple)) or len(value) != count or not all(map(_is_number, value)):
            self.refuse(key, f"{count} numbers")
        return tuple(float(v) for v in value)

    def word(self, key: str, default: str, known: Mapping[str, str]) -> str:
        value = self.values.get(key, default)
        if not isinstance(value, str) or value not in known:
            self.refuse(key, f"one of {', '.join(known)}")
        return known[value]

    def only(self, key: str, value: Any, why: str) -> None:
        """Refuse anything but this one value."""
        said = self.values.get(key, value)
        if type(said) is not type(value) or said != value:
            self.refuse(key, f"{_SHORT.repr(value)}: {why}")

    def side(self, key: str, default: int) -> int:
        """One whole number, or two equal ones."""
        value = self.values.get(key, default)
        if isinstance(value, list) and len(value) == 2 and value[0] == value[1]:
            value = value[0]
        if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= MOST:
            self.refuse(key, f"a whole number from 1 to {MOST}, or two equal ones")
        return value


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _read(path: Path) -> dict[str, Any]:
    """The object in a JSON file; WeightsError for anything else."""
    try:
        if path.stat().st_size > MAX_BYTES:
            raise WeightsError(f"{path} has {path.stat().st_size:,} bytes, expected a configuration of a few")
        values = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, OSError, RecursionError) as error:
        raise WeightsError(f"{path} is no JSON ({str(error).splitlines()[0]})") from error
    if not isinstance(values, dict):
        raise WeightsError(f"{path} holds {_SHORT.repr(values)}, expected an object of keys and values")
    return values


def _kind(values: Mapping[str, Any], where: Path) -> str:
    """The model_type of a configuration whose model can be opened; WeightsError, which names it, for any other."""
    named, kind = values.get("architectures"), values.get("model_type")
    known = " and ".join(ARCHITECTURES)
    if isinstance(named, list) and named:
        for name in named:
            if isinstance(name, str) and kind is not None and ARCHITECTURES.get(name) == kind:
                return ARCHITECTURES[name]
        what = f"a {named[0]}" if isinstance(named[0], str) else _SHORT.repr(named[0])
        if isinstance(named[0], str) and named[0] in ARCHITECTURES:
            what += f" of the model_type {_SHORT.repr(kind)}"
    elif named is None and isinstance(kind, str):
        if kind in ARCHITECTURES.values():
            return kind
        what = f"a model of the type {kind[:60]!r}"
    else:
        raise WeightsError(
            f"{where} does not say which architecture of transformers it is of (architectures={_SHORT.repr(named)}, "
            f"model_type={_SHORT.repr(kind)}); those that can be opened: {known}"
        )
    raise WeightsError(
        f"the folder {where.parent} holds {what[:120]} of transformers, which pixelwise cannot run; of transformers it "
        f"opens {known}"
    )


def _segformer(config: Values, path: Path) -> Folder:
    config.only("num_encoder_blocks", 4, "a SegFormer here has four stages")
    config.only(
        "num_hidden_layers", config.values.get("num_encoder_blocks", 4), "another name of num_encoder_blocks"
    )
    config.only("reshape_last_stage", True, "its head takes images from all stages")
    channels = config.wholes("hidden_sizes", mit.SIZES["mit_b0"].channels)
    heads = config.wholes("num_attention_heads", (1, 2, 5, 8))
    if any(c % h for c, h in zip(channels, heads, strict=True)):
        config.refuse("num_attention_heads", f"numbers that divide hidden_sizes, {list(channels)}")
    labels, outputs = _labels(config)
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
    return _folder(
        config, path, "SegformerForSemanticSegmentation", ("huggingface.segformer", "transformers5.segformer"), shown,
        arguments,
    )  # fmt: skip


def _upernet(config: Values, path: Path) -> Folder:
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
    labels, outputs = _labels(config)
    shown["num_classes"] = ("num_labels", 1 if outputs == "binary" else labels.num_classes)
    shown["pool_sizes"] = ("pool_scales", pools)
    arguments |= {"pool_sizes": pools, "stages": levels, "dropout": 0.0}
    return _folder(
        config, path, "UperNetForSemanticSegmentation", (f"huggingface.upernet_{kind}",), shown, arguments
    )


def _folder(
    config: Values, path: Path, architecture: str, families: tuple[str, ...], shown: dict[str, tuple[str, Any]],
    arguments: dict[str, Any],
) -> Folder:  # fmt: skip
    """What all have in common: names and preprocessing."""
    _, in_channels = shown["in_channels"]
    preprocess, reduced = _preprocess(path, in_channels)
    labels, outputs = _labels(config, reduced=reduced)
    return Folder(path, architecture, families, shown, arguments, labels, outputs, preprocess)


Shown = dict[str, tuple[str, Any]]


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
            "out_indices", f"the same stages as out_features, {_SHORT.repr(backbone.values['out_features'])}"
        )
    if list(levels) != sorted(set(levels)):
        backbone.refuse(key, "stages in rising order")
    return levels


# What pictures and logits mean ----------------------------------------------------------------------------------------


def _labels(config: Values, *, reduced: bool = False) -> tuple[LabelSet, Outputs]:
    """The names by id2label; reduced: label files count them from 1, and 0 is ignored. Names that say nothing but
    their number, which transformers makes up, are ours; a name that comes again gets its number."""
    said = config.values.get("id2label")
    if said is None:
        said = {str(i): f"LABEL_{i}" for i in range(config.whole("num_labels", 2))}
    if not isinstance(said, dict) or not said or set(said) != {str(i) for i in range(len(said))}:
        config.refuse("id2label", "names under the numbers from 0 up, none left out")
    names = [said[str(i)] for i in range(len(said))]
    if len(names) > MOST or not all(isinstance(name, str) for name in names):
        config.refuse("id2label", f"names, at most {MOST}")
    if names == [f"LABEL_{i}" for i in range(len(names))]:
        names = [f"class {i}" for i in range(len(names))]
    if len(names) == 1:  # a single logit, trained with a sigmoid
        first = "class 0" if names[0] == "class 0" else "not " + names[0]
        return LabelSet.of([first, "class 1" if names[0] == "class 0" else names[0]]), "binary"
    ignored = config.values.get("semantic_loss_ignore_index", config.values.get("loss_ignore_index", 255))
    if type(ignored) is not int or not len(names) <= ignored <= MOST:
        ignored = 255  # of a class, or of none: no label file can say it
    seen: set[str] = set()
    for i, name in enumerate(names):
        if name in seen:
            names[i] = f"{name} ({i})"
        seen.add(names[i])
    if len(set(names)) != len(names):
        config.refuse("id2label", "different names")
    if not reduced:
        return LabelSet.of(names, ignore_id=ignored), "exclusive"
    if tuple(names) == ADE20K.names:
        return ADE20K, "exclusive"
    count = len(names)
    return LabelSet.of(
        names, colors=spread_colors(count + 1)[1:], ids=range(1, count + 1), ignore_id=0
    ), "exclusive"


_PROCESSORS: dict[str, tuple[tuple[float, ...], tuple[float, ...], tuple[int, int]]] = {
    "Segformer": (IMAGENET_MEAN, IMAGENET_STD, (512, 512)),
    "ViT": ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5), (224, 224)),
}
"""Image processors of transformers that scale and normalise and do nothing else: their mean, std and (height, width)
where the file does not say."""


def _preprocess(path: Path, in_channels: int) -> tuple[Preprocess | None, bool]:
    """What `preprocessor_config.json` says, None without one; and whether label files count classes from 1."""
    where = path / PREPROCESSOR
    if not where.is_file():
        return None, False
    config = Values({key: value for key, value in _read(where).items() if value is not None}, where)
    key = "image_processor_type" if "image_processor_type" in config else "feature_extractor_type"
    endings = ("ImageProcessor", "ImageProcessorFast", "ImageProcessorPil", "FeatureExtractor")
    known = {f"{name}{end}": name for name in _PROCESSORS for end in endings}
    mean, std, size_hw = _PROCESSORS[config.word(key, "SegformerImageProcessor", known)]
    for step in ("do_center_crop", "do_pad"):
        if step in config:
            config.only(
                step, False, "pictures are scaled and normalised here, and nothing else is done to them"
            )
    size: int | tuple[int, int] | None = None
    if config.flag("do_resize", True):
        size = _size(config, size_hw)
        if "resample" in config:
            config.only("resample", 2, "pictures are scaled bilinearly here")
    factor = config.number("rescale_factor", 1 / 255)
    if factor == 0:
        config.refuse("rescale_factor", "more than 0")
    unit = (
        255 * factor if config.flag("do_rescale", True) else 255.0
    )  # what 1 in our [0, 1] is in their values
    if math.isclose(unit, 1, rel_tol=1e-12):
        unit = 1.0
    if config.flag("do_normalize", True):
        mean = config.numbers("image_mean", mean, in_channels, single=True)
        std = config.numbers("image_std", std, in_channels, single=True)
        if min(std) <= 0:
            config.refuse("image_std", "numbers above 0")
    else:
        mean, std = (0.0,) * in_channels, (1.0,) * in_channels
    older = config.flag("reduce_labels", False) if "reduce_labels" in config else False
    reduced = config.flag("do_reduce_labels", older) if "do_reduce_labels" in config else older
    return Preprocess(tuple(m / unit for m in mean), tuple(s / unit for s in std), size), reduced


def _size(config: Values, usual_hw: tuple[int, int]) -> int | tuple[int, int]:
    """The rule in "size": a pair for a fixed height and width, a number for the shorter side."""
    said = config.values.get("size")
    if said is None:
        return usual_hw
    sides = {"height": said, "width": said} if isinstance(said, int) else said
    if isinstance(sides, dict):
        sides = {key: value for key, value in sides.items() if value is not None}
        inside = Values(sides, config.where, "size.")
        if sides.keys() == {"height", "width"}:
            return inside.whole("height", 1), inside.whole("width", 1)
        if sides.keys() == {"shortest_edge"}:
            return inside.whole("shortest_edge", 1)
    config.refuse("size", "a number, height and width, or shortest_edge alone")


def _name(folder: Path) -> str:
    """Of the folder, or, in the cache of huggingface-hub (models--user--name/snapshots/commit), of what it keeps."""
    folder = folder.absolute()
    kept = folder.parent.parent.name
    if folder.parent.name == "snapshots" and kept.startswith("models--"):
        return kept.removeprefix("models--").replace("--", "/")
    return folder.resolve().name


def _usual(origin: Origin) -> Preprocess:
    """The preprocessing of that architecture in the catalog, else ImageNet's mean and std; of networks for others than
    three channels, values in [0, 1]."""
    channels = int(origin.arguments.get("in_channels", 3))
    if channels != 3:
        return Preprocess((0.0,) * channels, (1.0,) * channels)
    row = CATALOG.get(origin.model)
    return Preprocess() if row is None or row.card is None else row.card.preprocess


def _words(preprocess: Preprocess) -> str:
    size = (
        "their own size"
        if preprocess.size is None
        else f"scaled to {preprocess.size} pixels on the {preprocess.side} side"
    )
    return f"{size}, mean {preprocess.mean} and std {preprocess.std}"


def _all_arguments(origin: Origin) -> dict[str, Any]:
    """The arguments of an origin, with the defaults of its builder and the sizes of its variant."""
    parameters = inspect.signature(models.builder_of(origin.model)).parameters
    whole = {name: parameter.default for name, parameter in parameters.items()} | origin.arguments
    whole = {name: tuple(value) if isinstance(value, list) else value for name, value in whole.items()}
    sizes: dict[str, Any] = {}
    if origin.model in segformer.VARIANTS:
        encoder, sizes["width"] = segformer.VARIANTS[origin.model]
        sizes |= mit.SIZES[encoder]._asdict()
        if isinstance(ratio := whole["mlp_ratio"], (int, float)):
            whole["mlp_ratio"] = (ratio,) * 4
    elif origin.model.startswith("upernet_convnext_"):
        sizes = convnext.SIZES[origin.model.removeprefix("upernet_")]._asdict()
    return whole | {name: value for name, value in sizes.items() if whole.get(name) is None}

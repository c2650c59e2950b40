"""Folders of Hugging Face's transformers: tensors, `config.json` and `preprocessor_config.json`.

What the configuration asks for and shapes do not show becomes arguments of our builders; what our networks cannot be is
refused before any tensor is read. Sizes that tensors show as well must agree with them.
"""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pixelwise import models
from pixelwise.catalog import CATALOG
from pixelwise.checkpoints.huggingface.config import Said, read_config
from pixelwise.checkpoints.huggingface.meaning import PREPROCESSOR, labels_of, preprocess_of
from pixelwise.checkpoints.huggingface.values import Values, read_values
from pixelwise.checkpoints.reading import HUB_FILES, Source, file_of
from pixelwise.encoders import convnext, mit, swin
from pixelwise.errors import PixelwiseWarning, WeightsError
from pixelwise.inference.preprocess import Preprocess
from pixelwise.labels import LabelSet
from pixelwise.models import segformer
from pixelwise.untrusted import SHORT
from pixelwise.weights.card import Card, Outputs
from pixelwise.weights.origin import Origin
from pixelwise.weights.store import load_content

CONFIG = "config.json"


@dataclass(frozen=True)
class Folder:
    """A folder whose configuration can be obeyed.

    said: what that says. labels, outputs: what the logits mean. preprocess: None where the folder does not say.
    """

    path: Path
    said: Said
    labels: LabelSet
    outputs: Outputs
    preprocess: Preprocess | None

    def origin(self, family: str, says: str, found: Origin) -> Origin:
        """The origin with what the configuration adds to what was read off the tensors, `found`.

        family, says: the name of the tensors' family, and its words. Raises WeightsError where the two disagree.
        """
        if family not in self.said.families:
            raise WeightsError(f"{self.path / CONFIG} is of {self.said.says}, but the tensors are of {says}")
        whole = _all_arguments(found)
        for argument, (key, value) in self.said.shown.items():
            if _visible(argument, value, whole) != _visible(argument, whole[argument], whole):
                raise WeightsError(
                    f"{self.path / CONFIG} says {key}={SHORT.repr(value)}, but the tensors are of a network with "
                    f"{SHORT.repr(whole[argument])}; one of the two is of another network"
                )
        return Origin(found.model, {**found.arguments, **self.said.arguments})

    def card(self, origin: Origin) -> Card:
        """The card of a network of that origin; warns where the folder does not say how pictures are prepared."""
        preprocess = self.preprocess
        if preprocess is None:
            preprocess = _usual(origin)
            warnings.warn(
                f"the folder {self.path} has no {PREPROCESSOR}, so pictures are prepared as usual: "
                f"{_words(preprocess)}; if its network was trained with others, give a card (pixelwise.Card.of)",
                PixelwiseWarning,
                stacklevel=4,
            )
        return Card(
            name=_name(self.path), architecture=str(origin), labels=self.labels, preprocess=preprocess,
            stride=1, align_corners=False, parameters=0, origin=f"a folder of Hugging Face, {self.said.says}",
            outputs=self.outputs,
        )  # fmt: skip

    def check(self, origin: Origin) -> None:
        """WeightsError, which names it, where a network of that origin computes otherwise than the folder's."""
        if "encoder" in origin.arguments:
            return  # a composed network, whose tensors are others
        own = _all_arguments(origin)
        for argument, value in self.said.arguments.items():
            if argument in own and argument not in _TRAINING and own[argument] != value:
                raise WeightsError(
                    f"{self.path / CONFIG} is of a network with {argument}={SHORT.repr(value)}, this one has "
                    f"{SHORT.repr(own[argument])}; open the folder with from_checkpoint, or build with that"
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
    whole = path.is_dir()
    if not whole:
        if path.name not in HUB_FILES:
            return None
        path = path.parent
    where = path / CONFIG
    if not where.is_file():
        return None
    values = read_values(where)
    if "_model_class" in values or not (whole or {"architectures", "model_type"} & values.keys()):
        return None  # of SMP; or a file that happens to lie beside another program's configuration
    if (
        whole and "peak_lr" in values
    ):  # a run of ours, whose weights say themselves whose they are, but for old ones
        _refuse_damaged(path)
        raise WeightsError(
            f"{file_of(path)} does not say which network it is of, as those of unfinished runs once did not; go on "
            f"with the run: pixelwise train --out {path} --resume"
        )
    said = read_config(values, where)
    preprocess, reduced = preprocess_of(path, said.shown["in_channels"][1])
    labels, outputs = labels_of(Values(values, where), reduced=reduced)
    return Folder(path, said, labels, outputs, preprocess)


def _refuse_damaged(run: Path) -> None:
    """WeightsError, with what to do, where the weights of a run do not say whose they are because they are damaged."""
    file = file_of(run)  # or it says that there is none yet
    try:
        load_content(file)
    except WeightsError as error:
        if not (run / "checkpoint.pt").is_file():
            raise
        what = str(error).removesuffix("; get the file again")
        raise WeightsError(
            f"{what}; go on with the run, which writes them again: pixelwise train --out {run} --resume"
        ) from error


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
            PixelwiseWarning,
            stacklevel=3,
        )


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

"""An experiment: what a configuration says, made real. Data are opened, a network is made, and weights are fetched.

`runner.train` runs it. A recipe is a function that returns an `Experiment` made otherwise: with its own network, data
or augmentation.
"""

from __future__ import annotations

import dataclasses
import inspect
import shlex
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from pixelwise import models
from pixelwise.catalog import CATALOG
from pixelwise.catalog.entry import name_of
from pixelwise.checkpoints.making import create_model
from pixelwise.codes import unknown_type
from pixelwise.datasets.doctor import examine
from pixelwise.datasets.findings import UNTRAINABLE, Finding, Report
from pixelwise.datasets.opening import (
    DataSet,
    PairSamples,
    divided,
    ignore_index,
    open_data,
    parse_map,
)
from pixelwise.datasets.sample import Coded, Sample, Samples
from pixelwise.errors import DownloadError, InputError, PixelwiseError, WeightsError, suggest
from pixelwise.inference.preprocess import Preprocess
from pixelwise.inference.volume_preprocess import VolumePreprocess
from pixelwise.labels import LabelSet
from pixelwise.terminal import counted
from pixelwise.training.config import TrainConfig
from pixelwise.training.kept_data import Kept, few
from pixelwise.training.objective import Batch, LossOf, make_loss
from pixelwise.training.plan import usual_size
from pixelwise.training.prepared import Prepared
from pixelwise.training.probes import Cost
from pixelwise.transforms.augment import Augment
from pixelwise.transforms.augment_volume import AugmentVolume
from pixelwise.weights.card import EARLIER_BORDER, TRAINED_HERE, Card

Say = Callable[[str], None]


@dataclass(frozen=True)
class Experiment:
    """A whole run: what is learned, from what, and how it is scored.

    network: one whose origin is known, so that it can be made again from the file of weights. card: of the finished
    model, but for its scores, which are measured on `held_out` through the card's own preprocessing.
    """

    config: TrainConfig
    network: nn.Module
    training: Samples
    held_out: Samples
    augment: Callable[[Sample], Batch]
    loss_of: LossOf
    card: Card
    cost: Cost | None = None  # of a step, where it was measured already
    kept: Kept | None = None  # what its files hold, where that was looked at


def experiment_of(
    config: TrainConfig,
    data: DataSet | None = None,
    *,
    check: bool = True,
    report: Report | None = None,
    resume: bool = False,
    before: Kept | None = None,
    say: Say = lambda _: None,
) -> Experiment:
    """What a configuration says, made real. The experiment's own configuration has nothing left to choose.

    data: its data, where they are open already. check: examine the data first; report: what that found, where it was
    done; resume: the weights will come from a checkpoint, so none are fetched; before: the data of that run, whose
    pictures stay in the part that they were in; say: is told what was chosen. Raises InputError for data that are not
    safe to train on, and for names and options that are not known, each with the nearest.
    """
    data = data_of(config) if data is None else data
    if data.volumes:
        return _of_volumes(config, data, check=check, report=report, resume=resume, before=before, say=say)
    if config.volume is not None:
        raise InputError(f"the configuration is for scans (volume), and {config.data} holds pictures")
    border = EARLIER_BORDER if resume and config.split_at is None else config.split_at
    training, held_out, border = divided_as_before(data, border, before)
    if not resume:
        config = config.replace(split_at=border)
    classes = training.classes
    if check or classes is None:
        if report is None:
            report = examined(data, config.data, say) if check else examine(data)
        if classes is None:
            classes = LabelSet.of([f"class {i}" for i in report.pixels], ids=list(report.pixels))
            training, held_out = (PairSamples(s.pairs, classes, s.split) for s in (training, held_out))
    regions = classes.num_classes - 1 if data.regions else 0
    outputs = regions or classes.num_classes
    if not resume and config.value_range is None:
        config = config.replace(value_range=data.value_range)
    training.value_range = held_out.value_range = config.value_range
    if classes.num_classes < 2:
        raise InputError(f"{config.data} has one class, {classes.names[0]!r}: there is nothing to tell apart")
    if config.image_size is None:
        config = config.replace(image_size=usual_size(training.shorter_sides()))
    if resume:
        network, _ = make_network(config.replace(weights=None), outputs, say)
    else:
        network, config = make_network(config, outputs, say)
    preprocess = Preprocess(
        size=config.image_size or None,
        multiple=32 if config.model == "dpt" else 1,
        value_range=config.value_range,
    )
    what = config.model if config.encoder is None else f"{config.model} on {config.encoder}"
    card = Card(
        name=Path(config.data).resolve().name,
        architecture=config.model,
        labels=classes,
        preprocess=preprocess,
        stride=int(network.stride),  # type: ignore[arg-type]
        align_corners=bool(network.align_corners),
        parameters=sum(parameter.numel() for parameter in network.parameters()),
        multiply_adds=None,
        licence="that of the data it was trained on, and of the weights it started from",
        origin=(
            f"{TRAINED_HERE}{what}, encoder weights {config.weights or 'random'}, {counted(len(training), 'picture')} "
            f"of {Path(config.data).resolve().name}"
        ),
        outputs="regions" if regions else "exclusive",
        split_at=border,
    )
    learned: Samples = Coded(training, regions) if regions else training
    ignored = int(np.iinfo(unknown_type(regions)).max) if regions else ignore_index(classes)
    augment = make_augmentation(config, preprocess, ignored, learned)
    if not resume and (unfulfilled := unfulfilled_rule(augment, learned)):
        say(unfulfilled)
    loss_of = make_loss(config, ignored, regions=regions)
    return Experiment(config, network, learned, held_out, augment, loss_of, card)


def _of_volumes(
    config: TrainConfig, data: DataSet, *, check: bool, report: Report | None, resume: bool, before: Kept | None,
    say: Say,
) -> Experiment:  # fmt: skip
    """`experiment_of` for scans."""
    if config.volume is None:
        raise InputError(
            f"{config.data} holds scans, and the configuration says nothing of how a network sees them (volume); leave "
            "the configuration out, and it is planned"
        )
    wanted = config.volume
    if check and report is None:
        examined(data, config.data, say)
    border = EARLIER_BORDER if resume and config.split_at is None else config.split_at
    training, held_out, border = divided_as_before(data, border, before, config.fold)
    if not resume:
        config = config.replace(split_at=border)
    classes = training.classes
    if classes is None:
        raise InputError(
            f"nothing says what the label volumes of {config.data} mean; put a classes.txt there, a line a class: its "
            "number and its name"
        )
    if classes.num_classes < 2:
        raise InputError(f"{config.data} has one class, {classes.names[0]!r}: there is nothing to tell apart")
    options = {"in_channels": len(wanted.channels), **config.model_options}
    network, made = make_network(
        config.replace(model_options=options, weights=None if resume else config.weights),
        classes.num_classes,
        say,
    )
    if not resume:
        config = config.replace(weights=made.weights, image_size=0)
    if not any(isinstance(layer, nn.Conv3d) for layer in network.modules()):
        raise InputError(
            f"{config.model} takes pictures, and {config.data} holds scans; take a network of volumes, such as "
            "nonewnet_softmax"
        )
    card = Card.of(classes, volume=wanted, name=Path(config.data).resolve().name).replace(
        architecture=config.model,
        stride=int(network.stride),  # type: ignore[arg-type]
        align_corners=bool(network.align_corners),
        parameters=sum(parameter.numel() for parameter in network.parameters()),
        licence="that of the data it was trained on",
        origin=(
            f"{TRAINED_HERE}{config.model}, random weights, {counted(len(training), 'scan')} of "
            f"{Path(config.data).resolve().name}"
        ),
        split_at=border,
        fold=config.fold,
    )
    augment = make_volume_augmentation(config, wanted)
    prepared = Prepared(training, wanted)
    return Experiment(
        config, network, prepared, held_out, augment, make_loss(config, ignore_index(classes)), card
    )


def make_volume_augmentation(config: TrainConfig, wanted: VolumePreprocess) -> AugmentVolume:
    """What `augment` in the configuration says, of patches of the network's size and spacing. Raises InputError for
    keys that `AugmentVolume` has not."""
    options: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in config.augment.items()}
    known = [f.name for f in dataclasses.fields(AugmentVolume) if f.name not in ("patch", "spacing")]
    for key in options:
        if key not in known:
            raise InputError(f"augmentation of scans has no option {key!r}; {suggest(key, known)}")
    spacing = wanted.spacing or (1.0, 1.0, 1.0)
    return AugmentVolume(patch=wanted.patch, spacing=spacing, **options)


def data_of(config: TrainConfig) -> DataSet:
    """The data set that a configuration names, opened. Raises InputError where it names none."""
    if not config.data:
        raise InputError("expected a folder of pictures and label maps; give it with --data")
    change = None if config.map_ids is None else parse_map(config.map_ids)
    return open_data(Path(config.data), config.format, map_ids=change)


def examined(data: DataSet, name: str, say: Say) -> Report:
    """What the doctor finds in a data set; InputError where it is not safe to train on."""
    report = examine(data)
    refuse_unsafe(report, name)
    for finding in report.findings:
        say(f"{finding.severity}: {finding.kind}: {finding.file or 'all files'}: {finding.message}")
    return report


def divided_as_before(
    data: DataSet, border: float | None, before: Kept | None, fold: tuple[int, int] | None = None
) -> tuple[PairSamples, PairSamples, float | None]:
    """`divided`, but what was in one part of the data of an earlier part of the run stays there. Raises InputError
    where that leaves a part empty. fold: as in TrainConfig."""
    training, held_out, border = divided(data, border, fold)
    if before is None or border is None:
        return training, held_out, border
    place = {pair.name: i for i, pair in enumerate(p for p in data.pairs if p.split in ("train", "all"))}
    both = sorted([*training.pairs, *held_out.pairs], key=lambda pair: place[pair.name])
    kept = {n for n in held_out.names if n not in before.train} | before.val.keys()
    learned, held = ([p for p in both if (p.name in kept) is back] for back in (False, True))
    for part, earlier, words in (
        (learned, before.train, "learned from"),
        (held, before.val, "validated on"),
    ):
        if not part:
            raise InputError(
                f"of the pictures that the run {words} none is in {data.root} any more ({few(earlier)}): put them "
                "back, or begin a new run with another --out"
            )
    return (
        PairSamples(learned, training.classes, training.split),
        PairSamples(held, held_out.classes, held_out.split),
        border,
    )


def refuse_unsafe(report: Report, data: str) -> None:
    """Raise InputError with the first error that the doctor found, if there is one."""
    errors: list[Finding] = [finding for finding in report.findings if finding.severity == "error"]
    if errors:
        first = errors[0]
        more = f", and {len(errors) - 1} more" if len(errors) > 1 else ""
        unchecked = "" if first.kind in UNTRAINABLE else ", or pass --no-check"
        raise InputError(
            f"the data are not safe to train on: {first.kind}: {first.file or 'all files'}: {first.message}{more}; "
            f"see `{shlex.join(['pixelwise', 'check', data])}`{unchecked}"
        )


def make_network(config: TrainConfig, classes: int, say: Say) -> tuple[nn.Module, TrainConfig]:
    """The untrained network, and the configuration with the encoder weights that it really has.

    weights "auto": ImageNet's if they can be had, else random ones. Raises InputError for the name of a model that is
    trained already: its network would begin with other weights than the configuration says.
    """
    if config.model in CATALOG and CATALOG[config.model].asset is not None:
        raise InputError(
            f"{config.model} is a trained model, and a run begins with an architecture; its own is "
            f"{name_of(CATALOG[config.model].builder)}: say --model {name_of(CATALOG[config.model].builder)}"
        )
    arguments: dict[str, Any] = dict(config.model_options, num_classes=classes)
    if config.encoder is not None:
        arguments["encoder"], option = config.encoder, "encoder_weights"
    elif takes_backbone_weights(config.model):
        option = "weights_backbone"
    elif config.weights in (None, "auto"):
        config, option = config.replace(weights=None), ""
    else:
        raise InputError(
            f"weights are those of an encoder, and {config.model} is asked for without one; name it with --encoder"
        )

    def build(weights: str | None) -> nn.Module:
        if weights == "imagenet" and option == "weights_backbone":
            weights = "IMAGENET1K_V1"  # torchvision's name, as papers and its own recipes start from
        torch.manual_seed(config.seed)
        try:
            return create_model(config.model, **arguments, **({option: weights} if option else {}))
        except PixelwiseError:
            raise
        except (
            TypeError,
            ValueError,
            OverflowError,
        ) as error:  # an option that it has not, or of no sense for it
            raise InputError(" ".join(str(error).split())) from error
        except (RuntimeError, MemoryError) as error:
            reason = next(iter(str(error).splitlines()), "memory")
            raise InputError(
                f"{config.model} with {config.model_options} cannot be built ({reason})"
            ) from error

    if config.weights != "auto":
        return build(config.weights), config
    try:
        return build("imagenet"), config.replace(weights="imagenet")
    except (DownloadError, WeightsError):
        say(
            f"ImageNet weights of {config.encoder or config.model} cannot be fetched: starting from random ones "
            "(--weights FILE takes a local file)"
        )
        return build(None), config.replace(weights=None)


def takes_backbone_weights(model: str) -> bool:
    """Whether the network of that name has a backbone that comes with weights."""
    known = model in CATALOG  # what is not, create_model will say
    return known and "weights_backbone" in inspect.signature(models.builder_of(model)).parameters


def unfulfilled_rule(augment: Augment, samples: Samples, looks: int = 8) -> str:
    """A sentence where hardly any crop of a few pictures fulfils `largest_share`, else ""."""
    if augment.largest_share >= 1 or not len(samples):
        return ""
    varied = 0
    looks = min(looks, len(samples))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        for i in range(looks):
            varied += augment.is_varied(augment.cut(samples[i * len(samples) // looks])[1])
    if 2 * varied >= looks:
        return ""
    return (
        f"the rule that no class fills {augment.largest_share:.0%} of a crop (largest_share) cannot be fulfilled in "
        f"{looks - varied} of {looks} pictures: crops there are taken as they come; largest_share 1 drops the rule"
    )


def make_augmentation(config: TrainConfig, preprocess: Preprocess, ignored: int, samples: Samples) -> Augment:
    """Square crops of image_size pixels, with what `augment` in the configuration says otherwise.

    Its keys are those of `transforms.augment.Augment`; paste also asks for copy-paste among the samples. Raises
    InputError for other keys, and where nothing says how large the crops are.
    """
    options = {k: tuple(v) if isinstance(v, list) else v for k, v in config.augment.items()}
    known = [
        f.name
        for f in dataclasses.fields(Augment)
        if f.name not in ("mean", "std", "ignore_index", "paste_from")
    ]
    for key in options:
        if key not in known:
            raise InputError(f"augmentation has no option {key!r}; {suggest(key, known)}")
    usual: dict[str, Any] = {}
    if side := config.image_size:
        usual = {"crop_hw": (side, side), "shorter_side": side}
    elif "crop_hw" not in options:
        raise InputError(
            "image_size 0 leaves pictures as they are, so augment must say how large the crops are: "
            '{"crop_hw": [320, 320]}'
        )
    return Augment(
        **{**usual, **options},
        mean=preprocess.mean,
        std=preprocess.std,
        ignore_index=ignored,
        paste_from=samples if "paste" in options else None,
    )

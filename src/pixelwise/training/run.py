"""From a configuration to a model one can ship: examine the data, estimate, train, score, write.

`train(experiment_of(config), out)` is what `pixelwise train` does. A recipe is a function that returns an `Experiment`
made otherwise: with its own network, data or augmentation.
"""

from __future__ import annotations

import dataclasses
import inspect
import json
import os
import statistics
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import nn

from pixelwise import models
from pixelwise.catalog import CATALOG
from pixelwise.checkpoints.making import build, create_model
from pixelwise.checkpoints.saving import save
from pixelwise.datasets.doctor import Finding, Report, examine
from pixelwise.datasets.opening import PairSamples, ignore_index, open_samples, parse_map, split_by_name
from pixelwise.datasets.sample import Pair, Sample, Samples
from pixelwise.decoders import DECODERS
from pixelwise.errors import (
    DownloadError,
    InputError,
    MissingExtraError,
    OutputError,
    PixelwiseError,
    UnknownNameError,
    WeightsError,
    suggest,
)
from pixelwise.evaluation import Evaluation, evaluate
from pixelwise.export.embed import count_multiply_adds, embed
from pixelwise.files import check_writable, writing
from pixelwise.inference.preprocess import Preprocess
from pixelwise.labels import LabelSet
from pixelwise.report import confusion_picture, page, table, worst_pictures
from pixelwise.segmenter import Segmenter
from pixelwise.training.config import TrainConfig
from pixelwise.training.curves import draw_curves
from pixelwise.training.loop import fit, process_state, refuse_large_batch
from pixelwise.training.objective import Batch, LossOf, make_loss
from pixelwise.training.probes import estimate
from pixelwise.training.progress import duration
from pixelwise.training.validation import Validation
from pixelwise.transforms.augment import Augment
from pixelwise.weights.card import Card, Score
from pixelwise.weights.origin import origin_of

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


def with_defaults(given: Mapping[str, Any]) -> TrainConfig:
    """A configuration from the few fields that somebody gave; the rest suits a small data set of one's own."""
    values = dict(given)
    values.setdefault("model", "unet")
    if values["model"] in DECODERS:
        values.setdefault("encoder", "resnet34")
    if "steps" not in values:
        values.setdefault("epochs", 50)
    values.setdefault("validate_every", None)
    values.setdefault("channels_last", True)
    values.setdefault("workers", usual_workers())
    config = TrainConfig.from_dict(values)
    training, _ = open_data(config)
    if "batch_size" not in values:
        config = config.replace(batch_size=min(config.batch_size, len(training)))
    if "warmup_steps" not in values:
        config = config.replace(warmup_steps=config.total_steps(len(training)) // 20)
    return config


def usual_workers() -> int:
    """How many processes load pictures unless somebody says otherwise."""
    return max(1, min(4, (os.cpu_count() or 2) - 1))


def experiment_of(
    config: TrainConfig, *, check: bool = True, resume: bool = False, say: Say = lambda _: None
) -> Experiment:
    """What a configuration says, made real. The experiment's own configuration has nothing left to choose.

    check: examine the data first; resume: the weights will come from a checkpoint, so none are fetched; say: is told
    what was chosen. Raises InputError for data that are not safe to train
    on, and for names and options that are not known, each with the nearest.
    """
    training, held_out = open_data(config)
    classes = training.classes
    if check or classes is None:
        report = examine(
            Path(config.data),
            layout=config.format,
            map_ids=None if config.map_ids is None else parse_map(config.map_ids),
        )
        if check:
            refuse_unsafe(report, config.data)
            for finding in report.findings:
                say(f"{finding.severity}: {finding.kind}: {finding.file or 'all files'}: {finding.message}")
        if classes is None:
            classes = LabelSet.of([f"class {i}" for i in report.pixels], ids=list(report.pixels))
            training, held_out = (PairSamples(s.pairs, classes, s.split) for s in (training, held_out))
    if classes.num_classes < 2:
        raise InputError(f"{config.data} has one class, {classes.names[0]!r}: there is nothing to tell apart")
    if config.image_size is None:
        config = config.replace(image_size=usual_size(training.pairs))
    if resume:
        network, _ = make_network(config.replace(weights=None), classes.num_classes, say)
    else:
        network, config = make_network(config, classes.num_classes, say)
    preprocess = Preprocess(size=config.image_size or None, multiple=32 if config.model == "dpt" else 1)
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
            f"trained with pixelwise: {what}, encoder weights {config.weights or 'random'}, {len(training)} pictures "
            f"of {Path(config.data).resolve().name}"
        ),
    )
    ignored = ignore_index(classes)
    return Experiment(
        config,
        network,
        training,
        held_out,
        make_augmentation(config, preprocess, ignored, training),
        make_loss(config, ignored),
        card,
    )


def open_data(config: TrainConfig) -> tuple[PairSamples, PairSamples]:
    """(training, held out): the splits train and val; what has no val keeps some of train back, by names."""
    if not config.data:
        raise InputError("expected a folder of pictures and label maps; give it with --data")
    root, change = Path(config.data), None if config.map_ids is None else parse_map(config.map_ids)
    training = open_samples(root, config.format, "train", map_ids=change)
    try:
        held_out = open_samples(root, config.format, "val", map_ids=change)
    except UnknownNameError:
        kept = set(split_by_name(training.names)[1])
        parts = [[p for p in training.pairs if (p.name in kept) == wanted] for wanted in (False, True)]
        training, held_out = (PairSamples(pairs, training.classes, training.split) for pairs in parts)
    return training, held_out


def refuse_unsafe(report: Report, data: str) -> None:
    """Raise InputError with the first error that the doctor found, if there is one."""
    errors: list[Finding] = [finding for finding in report.findings if finding.severity == "error"]
    if errors:
        first = errors[0]
        more = f", and {len(errors) - 1} more" if len(errors) > 1 else ""
        raise InputError(
            f"the data are not safe to train on: {first.kind}: {first.file or 'all files'}: {first.message}{more}; "
            f"see `pixelwise check {data}`, or pass --no-check"
        )


def usual_size(pairs: list[Pair], most: int = 512) -> int:
    """The median of the pictures' shorter sides, as a multiple of 32 from 64 to `most` pixels."""
    sides = []
    for pair in pairs[:: max(1, len(pairs) // 100)]:
        if pair.image is not None:
            with Image.open(pair.image) as opened:
                sides.append(min(opened.size))
    return int(np.clip(round(statistics.median(sides) / 32) * 32, 64, most))


def make_network(config: TrainConfig, classes: int, say: Say) -> tuple[nn.Module, TrainConfig]:
    """The untrained network, and the configuration with the encoder weights that it really has.

    weights "auto": ImageNet's if they can be had, else random ones.
    """
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
        except (TypeError, ValueError) as error:  # an option that the network has not, or of no sense for it
            raise InputError(str(error)) from error

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


def refuse_unusable(out: Path, *, resume: bool) -> None:
    """Raise now for a folder that cannot be written, or holds a run that was not asked to go on."""
    check_writable(out / "config.json", overwrite=True)
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"cannot make the folder {out} ({error.strerror}); choose another --out") from error
    if resume and not (out / "checkpoint.pt").is_file():
        raise InputError(f"there is no run in {out} to resume: it has no checkpoint.pt; leave out --resume")
    if not resume and (out / "checkpoint.pt").exists():
        raise OutputError(f"{out} holds a run already; pass --resume to go on with it, or another --out")


def train(experiment: Experiment, out: Path, *, export: bool = False, say: Say | None = None) -> Card:
    """Train, and leave in `out` all that is worth keeping; the finished model's card.

    checkpoint.pt, best.pt, metrics.jsonl and config.json come from `fit`, and are what resuming needs. At the end:
    weights.safetensors with the card, card.json, curves.png, report.html (scores, confusion matrix, the worst
    validation pictures), confusion.png, and with `export` model.onnx, scored as users run it.
    """
    state = process_state()
    say = say or (lambda text: print(text, file=sys.stderr))
    tell: Say = say if state.is_main_process else (lambda _: None)
    config, card = experiment.config, experiment.card
    validate = Validation(experiment.held_out, card)

    refuse_large_batch(config, len(experiment.training), state.num_processes)
    steps = config.total_steps(len(experiment.training), state.num_processes)
    cost = estimate(experiment.network, experiment.training, experiment.augment, experiment.loss_of, config)
    tell(
        f"{card.labels.num_classes} classes, {len(experiment.training)} pictures to learn from, "
        f"{len(experiment.held_out)} to validate on; {steps} steps of about {cost.seconds:.2g} s, "
        f"{duration(steps * cost.seconds)} in all; memory {cost.bytes / 2**30:.1f} GiB on {state.device.type}"
    )
    trained = fit(
        experiment.network, experiment.training, experiment.augment, experiment.loss_of, config, out, validate
    )
    if not state.is_main_process:
        return card

    network = build(origin_of(experiment.network))  # without what speed or distribution changed about it
    network.load_state_dict(trained.state_dict())
    network.eval()
    side = config.image_size or 512
    card = card.replace(
        multiply_adds=count_multiply_adds(network, (side, side)),
        multiply_adds_hw=(side, side),
        notes=(
            *card.notes,
            f"Trained for {steps} steps; the configuration is in config.json beside the weights.",
        ),
    )
    data = f"{card.name}, {len(experiment.held_out)} held-out pictures"
    evaluations: list[Evaluation] = []

    def measure(segmenter: Segmenter) -> tuple[Score, ...]:
        evaluations.append(evaluate(segmenter, experiment.held_out, classes=card.labels, data=data))
        return scores_of(evaluations[-1], data)

    if export:
        card = embed(network, card, out / "model.onnx", lambda file: measure(Segmenter(file)))
        segmenter = Segmenter(out / "model.onnx")
    else:
        segmenter = Segmenter(network, engine="pytorch", card=card)
        card = card.replace(scores=measure(segmenter))
    (evaluation,) = evaluations
    save(network, out / "weights.safetensors", card=card)
    write_report(evaluation, segmenter, card, out, tell)
    return card


def scores_of(evaluation: Evaluation, data: str) -> tuple[Score, ...]:
    """The figures that belong on a card."""
    says = evaluation.protocol.says
    return (
        Score("mean IoU", evaluation.confusion.mean_iou(), data, says, "measured here"),
        Score("pixel accuracy", evaluation.confusion.pixel_accuracy(), data, says, "measured here"),
    )


def write_report(evaluation: Evaluation, segmenter: Segmenter, card: Card, out: Path, tell: Say) -> None:
    """card.json, report.html, confusion.png and curves.png; the table of scores goes to `tell`."""
    tell(table(evaluation))
    with writing(out / "card.json") as temporary:
        temporary.write_text(json.dumps(card.to_dict(), indent=1) + "\n", encoding="utf-8")
    with writing(out / "confusion.png") as temporary:
        Image.fromarray(confusion_picture(evaluation)).save(temporary)
    with writing(out / "report.html") as temporary:
        temporary.write_text(page(evaluation, worst_pictures(evaluation, segmenter)), encoding="utf-8")
    try:
        draw_curves(out / "metrics.jsonl", out / "curves.png")
    except MissingExtraError as error:
        tell(f"no curves.png: {error}")

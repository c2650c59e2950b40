"""An experiment run: estimate, train, score, and write a model one can ship. It is what `pixelwise train` does."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np

from pixelwise import terminal
from pixelwise.checkpoints.making import build
from pixelwise.checkpoints.saving import header, save
from pixelwise.errors import InputError, OutputError
from pixelwise.evaluation import PROTOCOLS, Evaluation, evaluate
from pixelwise.export.embed import count_multiply_adds, embed
from pixelwise.files import LOCK, check_writable, held, writing
from pixelwise.folds import FILE as FOLDS
from pixelwise.report import write_report
from pixelwise.report.page import Run
from pixelwise.report.pictures import Gallery
from pixelwise.report.text import MEASURED_HERE, table
from pixelwise.segmenter import Segmenter
from pixelwise.terminal import counted
from pixelwise.training.config import TrainConfig
from pixelwise.training.experiment import Experiment, Say
from pixelwise.training.loop import fit, process_state, refuse_large_batch
from pixelwise.training.optimize import learning_rate
from pixelwise.training.prepared import FOLDER as PREPARED
from pixelwise.training.prepared import Prepared
from pixelwise.training.probes import estimate
from pixelwise.training.progress import duration, read_metrics
from pixelwise.training.state import Standing, standing
from pixelwise.training.validation import Validation
from pixelwise.weights.card import Card, Score
from pixelwise.weights.origin import origin_of

RESULTS = ("best.pt", "weights.safetensors", "model.onnx")
"""What a run may not lose to another one."""


def refuse_unusable(out: Path, *, resume: bool) -> None:
    """Raise now for a folder that cannot be written, or holds a run that was not asked to go on.

    A run that was killed before its first checkpoint has only its config.json, and is resumed from the beginning.
    """
    check_writable(out / "config.json", overwrite=True)
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"cannot make the folder {out} ({error.strerror}); choose another --out") from error
    if (out / "checkpoint.pt").is_file():
        if not resume:
            raise OutputError(f"{out} holds a run already; pass --resume to go on with it, or another --out")
    elif any((out / name).exists() for name in RESULTS):
        raise OutputError(f"{out} holds a run already, whose checkpoint.pt is gone; choose another --out")
    elif resume and not (out / "config.json").is_file():
        raise InputError(f"there is no run in {out} to resume: it has no config.json; leave out --resume")


def train(experiment: Experiment, out: Path, *, export: bool = False, say: Say | None = None) -> Card:
    """Train, and leave in `out` all that is worth keeping; the finished model's card.

    checkpoint.pt, best.pt, metrics.jsonl and config.json come from `fit`, and are what resuming needs; data.json says
    what the data were (`kept_data`). At the end: weights.safetensors with the card, card.json, curves.png, report.html
    (scores, curves, the validation pictures with their mistakes), confusion.png, and with `export` model.onnx, scored
    as users run it. Raises OutputError where another run is at work in `out`.
    """
    if process_state().is_main_process:
        with held(out / LOCK, str(out)):
            return _train(experiment, out, export=export, say=say)
    return _train(experiment, out, export=export, say=say)


def _train(experiment: Experiment, out: Path, *, export: bool, say: Say | None) -> Card:
    state = process_state()
    say = say or partial(terminal.say, file=sys.stderr)
    tell: Say = say if state.is_main_process else (lambda _: None)
    config, card = experiment.config, experiment.card
    validate = Validation(experiment.held_out, card)
    what = "picture" if card.volume is None else "scan"
    if isinstance(experiment.training, Prepared):
        experiment.training.keep_in(out / PREPARED)

    refuse_large_batch(config, len(experiment.training), state.num_processes)
    steps = config.total_steps(len(experiment.training), state.num_processes)
    # One from before the run went on would say otherwise than the weights
    export = export or (out / "model.onnx").exists()
    before = standing(out)
    left = max(0, steps - before.step) if before else steps
    if before is not None and state.is_main_process:
        tell(goes_on(before, steps, config))
    has = (
        f"{card.labels.num_classes} classes, {counted(len(experiment.training), what)} to learn from, "
        f"{len(experiment.held_out)} to validate on"
    )
    if left:
        cost = experiment.cost or estimate(
            experiment.network, experiment.training, experiment.augment, experiment.loss_of, config
        )
        has += f"; {counted(left, 'step')} of about {cost.seconds:.2g} s, {duration(left * cost.seconds)} in all; "
        has += f"memory {cost.bytes / 2**30:.1f} GiB on {state.device.type}"
    tell(has)
    trained = fit(
        experiment.network, experiment.training, experiment.augment, experiment.loss_of, config, out, validate,
        header(experiment.network, card), experiment.kept,
    )  # fmt: skip
    if not state.is_main_process:
        return card

    network = build(origin_of(experiment.network))  # without what speed or distribution changed about it
    network.load_state_dict(trained.state_dict())
    network.eval()
    if card.volume is None:
        side = config.image_size or 512
        card = card.replace(
            multiply_adds=count_multiply_adds(network, (side, side)), multiply_adds_hw=(side, side)
        )
    card = card.replace(
        notes=(
            *card.notes,
            f"Trained for {counted(steps, 'step')}, and kept as it was at the best {validate.metric} on the held-out "
            f"{what}s; the configuration is in config.json beside the weights.",
        ),
    )
    data = f"{card.name}, {counted(len(experiment.held_out), f'held-out {what}')}"
    evaluations: list[Evaluation] = []
    gallery = Gallery(card.labels)
    held_out, total = len(experiment.held_out), len(experiment.held_out) + len(experiment.training)
    part = f"{held_out} of {total} {what}s, those that were held out and not trained on"

    def measure(segmenter: Segmenter) -> tuple[Score, ...]:
        evaluations.append(
            evaluate(
                segmenter, experiment.held_out, classes=card.labels, data=card.name, look=gallery.look,
                part=part,
            )
        )  # fmt: skip
        return scores_of(evaluations[-1], data)

    if export:
        card = embed(network, card, out / "model.onnx", lambda file: measure(Segmenter(file)))
        segmenter = Segmenter(out / "model.onnx")
    else:
        segmenter = Segmenter(network, engine="pytorch", card=card)
        card = card.replace(scores=measure(segmenter))
    (evaluation,) = evaluations
    save(network, out / "weights.safetensors", card=card)
    finish(evaluation, segmenter, gallery, config, card, out, tell)
    return card


def read_card(run: Path) -> Card:
    """The card that a finished run has left."""
    return Card.from_json((run / "card.json").read_text(encoding="utf-8"))


def write_folds(cards: Sequence[Card], out: Path) -> Card:
    """Write folds.json beside finished folds; the first card, with the mean of their scores."""
    found = {
        score.metric: [next(s.value for s in card.scores if s.metric == score.metric) for card in cards]
        for score in cards[0].scores
    }
    means = {metric: float(np.nanmean(values)) for metric, values in found.items()}
    said = {"folds": len(cards), "scores": {k: None if v != v else v for k, v in means.items()}}
    with writing(out / FOLDS) as temporary:
        temporary.write_text(json.dumps(said, indent=1) + "\n", encoding="utf-8")
    data = f"{cards[0].name}, each scan by the one of {len(cards)} folds that held it out, the mean over the folds"
    return cards[0].replace(
        scores=tuple(replace(score, value=means[score.metric], data=data) for score in cards[0].scores)
    )


def goes_on(before: Standing, steps: int, config: TrainConfig) -> str:
    """What is said of a run that is gone on with: how far it is, and where that changes, what it does from here."""
    if steps == before.steps:
        return f"going on after step {before.step} of {steps}"
    if before.step >= steps:
        return f"the run has done {before.step} steps and ends here"
    now = learning_rate(before.step, steps, config)
    last = learning_rate(max(before.step - 1, 0), before.steps, before.config)
    return (
        f"going on after step {before.step} of a run of {before.steps} steps, now to {steps}: from here on the "
        f"learning rate is that of a run of {steps} steps, {now:.1e} (it was {last:.1e})"
    )


def kept(out: Path, *, export: bool) -> str:
    """What there is of a run that was stopped, and how to go on with it, as part of a sentence."""
    there = standing(out)
    if there is None:
        return "nothing is kept yet: begin again with the same command"
    total = there.steps_of(TrainConfig.from_json(out / "config.json"))
    steps = f"all {total} steps" if there.step >= total else f"{there.step} of {total} steps"
    best = ", and the best weights so far, which --model opens" if (out / "best.pt").exists() else ""
    command = f"pixelwise train --out {shlex.quote(str(out))} --resume{' --export' if export else ''}"
    return f"{steps} are kept in {out}{best}; go on with: {command}"


def scores_of(evaluation: Evaluation, data: str) -> tuple[Score, ...]:
    """The figures that belong on a card."""
    says = evaluation.protocol.says
    if evaluation.regions is not None:
        protocol = PROTOCOLS[evaluation.protocol.name].says + "; each region against all that is not it"
        dice = evaluation.regions.dice()
        return (
            Score("mean Dice", evaluation.regions.mean_dice(), data, protocol, MEASURED_HERE),
            *(Score(f"Dice of {name}", dice[name], data, protocol, "measured here") for name in dice),
        )
    if evaluation.surfaces is not None:
        dice = evaluation.surfaces.dice
        return (
            Score("mean Dice", evaluation.surfaces.mean_dice, data, says, MEASURED_HERE),
            *(Score(f"Dice of {name}", dice[name], data, says, MEASURED_HERE) for name in dice),
        )
    return (
        Score("mean IoU", evaluation.confusion.mean_iou(), data, says, MEASURED_HERE),
        Score("pixel accuracy", evaluation.confusion.pixel_accuracy(), data, says, MEASURED_HERE),
    )


def finish(
    evaluation: Evaluation,
    segmenter: Segmenter,
    gallery: Gallery,
    config: TrainConfig,
    card: Card,
    out: Path,
    tell: Say,
) -> None:
    """card.json and the report; the table of scores goes to `tell`."""
    for line in table(evaluation).splitlines():
        tell(line)
    with writing(out / "card.json") as temporary:
        temporary.write_text(json.dumps(card.to_dict(), indent=1) + "\n", encoding="utf-8")
    run = Run(config.to_dict(), read_metrics(out / "metrics.jsonl"))
    written = write_report(evaluation, segmenter, out, gallery=gallery, run=run)
    if out / "curves.png" not in written:
        tell("no curves.png, which needs matplotlib (extra train); report.html has the curves")

"""An experiment run: estimate, train, score, and write a model one can ship. It is what `pixelwise train` does."""

from __future__ import annotations

import json
import sys
from functools import partial
from pathlib import Path

from PIL import Image

from pixelwise import terminal
from pixelwise.checkpoints.making import build
from pixelwise.checkpoints.saving import header, save
from pixelwise.errors import InputError, MissingExtraError, OutputError
from pixelwise.evaluation import Evaluation, evaluate
from pixelwise.export.embed import count_multiply_adds, embed
from pixelwise.files import LOCK, check_writable, held, writing
from pixelwise.report import confusion_picture, page, table, worst_pictures
from pixelwise.segmenter import Segmenter
from pixelwise.training.curves import draw_curves
from pixelwise.training.experiment import Experiment, Say
from pixelwise.training.loop import fit, process_state, refuse_large_batch
from pixelwise.training.probes import estimate
from pixelwise.training.progress import duration
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

    checkpoint.pt, best.pt, metrics.jsonl and config.json come from `fit`, and are what resuming needs. At the end:
    weights.safetensors with the card, card.json, curves.png, report.html (scores, confusion matrix, the worst
    validation pictures), confusion.png, and with `export` model.onnx, scored as users run it. Raises OutputError where
    another run is at work in `out`.
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

    refuse_large_batch(config, len(experiment.training), state.num_processes)
    steps = config.total_steps(len(experiment.training), state.num_processes)
    cost = experiment.cost or estimate(
        experiment.network, experiment.training, experiment.augment, experiment.loss_of, config
    )
    tell(
        f"{card.labels.num_classes} classes, {len(experiment.training)} pictures to learn from, "
        f"{len(experiment.held_out)} to validate on; {steps} steps of about {cost.seconds:.2g} s, "
        f"{duration(steps * cost.seconds)} in all; memory {cost.bytes / 2**30:.1f} GiB on {state.device.type}"
    )
    trained = fit(
        experiment.network, experiment.training, experiment.augment, experiment.loss_of, config, out, validate,
        header(experiment.network, card),
    )  # fmt: skip
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
    for line in table(evaluation).splitlines():
        tell(line)
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

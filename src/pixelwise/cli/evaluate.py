"""`pixelwise evaluate`: scores of a model on a labelled data set."""

from __future__ import annotations

import json as jsonlib
import sys
from collections.abc import Iterable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from pixelwise import corruptions
from pixelwise.cli.options import Change
from pixelwise.datasets.opening import DataSet, PairSamples, choose_split, divided, open_data, parse_map
from pixelwise.datasets.sample import Sample, Samples
from pixelwise.evaluation import evaluate, protocol_of
from pixelwise.files import LOCK, check_writable, held
from pixelwise.folds import FILE as FOLDS
from pixelwise.report import write_report
from pixelwise.report.pictures import Gallery
from pixelwise.report.text import table
from pixelwise.segmenter import Segmenter
from pixelwise.terminal import counted, note, say
from pixelwise.weights.card import TRAINED_HERE, Card


def run(
    data: Path, layout: str, split: str | None, map_ids: str | None, models: list[str], engine: str, precision: Any,
    device: str | None, protocol: str, change: Change, mean_over: list[str], by_place: bool, corrupt: str | None,
    seed: int, out: Path | None, json: bool,
    overwrite: bool,
) -> None:  # fmt: skip
    """Evaluate, print, and write the report folder if one is asked for."""
    options = change(protocol_of(protocol).options)
    if corrupt is not None:
        corruptions.parse(corrupt)  # refused before anything is read
    opened = open_data(data, layout, map_ids=None if map_ids is None else parse_map(map_ids))
    choose_split(opened.pairs, split)  # an unknown one is refused before the model is read
    files = [] if out is None else [out / name for name in ("report.html", "report.json", "confusion.png")]
    for path in files:
        check_writable(path, overwrite=overwrite)
    with nullcontext() if out is None else held(out / LOCK, str(out)):
        segmenter = Segmenter(models, engine=engine, precision=precision, device=device)
        samples, part, hint = scored(opened, split, segmenter.card)
        if hint:
            note(hint)
        classes = samples.classes or segmenter.classes
        gallery = None if out is None else Gallery(classes)
        result = evaluate(
            segmenter,
            PairSamples(samples.pairs, classes, samples.split),
            classes=classes,
            protocol=protocol,
            options=options,
            data=f"{data.resolve().name}, {samples.split}",
            part=part,
            by_place=by_place,
            mean_over=mean_over,
            corrupt=() if corrupt is None else corrupt,
            seed=seed,
            progress=_with_progress,
            look=None if gallery is None else gallery.look,
        )
        if json:
            print(jsonlib.dumps(result.to_dict(), indent=1))
        else:
            for line in table(result).splitlines():
                say(line)
        if out is None:
            return
        write_report(result, segmenter, out, gallery=gallery, overwrite=overwrite)
        say(f"wrote {', '.join(map(str, files))} and {out / 'worst'}", file=sys.stderr)


def scored(data: DataSet, split: str | None, card: Card) -> tuple[PairSamples, str, str]:
    """The pictures that are scored; which of the data those are, in words; and what else could be, "" for nothing.

    Of a folder in which nobody keeps any back those that the model's run held out, where its card says that it was
    trained on this folder; else all of them.
    """
    splits = {pair.split for pair in data.pairs}
    trained_on = (
        not splits & {"val", "test"}
        and card.origin.startswith(TRAINED_HERE)
        and card.name == data.root.resolve().name
    )
    kept_back = trained_on and split in (None, "val")
    samples = held_out_of(data, card) if kept_back else data.samples(split, card.border)
    count, total = len(samples), len(data.pairs)
    what = "scan" if data.volumes else "picture"
    part = f"all {counted(total, what)}" if count == total else f"{count} of {total} {what}s"
    if card.fold is not None and card.name.startswith(f"{data.root.resolve().name} and "):
        hint = f"what each fold held out is scored in {FOLDS}, beside the folds"
        return samples, f"{part}, each learned from by all folds but one: the scores flatter them", hint
    if not trained_on:
        return samples, part if samples.split == "all" else f"{part}, the split {samples.split}", ""
    if samples.split == "val":
        hint = f"--split {splits.pop()} scores all"
        hint = "" if split else f"only those are scored that the model was not trained on; {hint}"
        return samples, f"{part}, those that were held out when the model was trained on this folder", hint
    kept = set(held_out_of(data, card).names)
    learned = sum(name not in kept for name in samples.names)
    of = "all" if learned == count else f"{learned}"
    hint = "--split val scores those that the model was not trained on"
    return samples, f"{part}, {of} of the part that the model was trained on: their scores flatter it", hint


def held_out_of(data: DataSet, card: Card) -> PairSamples:
    """What the run that made the model held out of these data."""
    if card.fold is not None:
        return divided(data, None, card.fold)[1]
    return data.samples("val", card.border)


def _with_progress(samples: Samples) -> Iterable[Sample]:
    if not sys.stderr.isatty():
        return samples
    from rich.console import Console
    from rich.progress import track

    return track(samples, description="Evaluating", console=Console(stderr=True))

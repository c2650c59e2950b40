"""`pixelwise evaluate`: scores of a model on a labelled data set."""

from __future__ import annotations

import json as jsonlib
import sys
from collections.abc import Iterable
from contextlib import nullcontext
from pathlib import Path

from PIL import Image

from pixelwise import corruptions
from pixelwise.cli.options import Change
from pixelwise.datasets.opening import PairSamples, choose_split, open_data, parse_map
from pixelwise.datasets.sample import Sample, Samples
from pixelwise.evaluation import evaluate, protocol_of
from pixelwise.files import LOCK, check_writable, held, plain_name, writing
from pixelwise.report import confusion_picture, page, table, worst_pictures
from pixelwise.segmenter import Segmenter
from pixelwise.terminal import say


def run(
    data: Path, layout: str, split: str | None, map_ids: str | None, model: str, engine: str, protocol: str,
    change: Change, mean_over: list[str], corrupt: str | None, seed: int, out: Path | None, json: bool,
    overwrite: bool,
) -> None:  # fmt: skip
    """Evaluate, print, and write the report folder if one is asked for."""
    options = change(protocol_of(protocol).options)
    if corrupt is not None:
        corruptions.parse(corrupt)  # refused before anything is read
    opened = open_data(data, layout, map_ids=None if map_ids is None else parse_map(map_ids))
    choose_split(opened.pairs, split)  # an unknown one is refused before the model is read
    files = {} if out is None else {n: out / n for n in ("report.json", "report.html", "confusion.png")}
    for path in files.values():
        check_writable(path, overwrite=overwrite)
    with nullcontext() if out is None else held(out / LOCK, str(out)):
        segmenter = Segmenter(model, engine=engine)
        samples = opened.samples(split, segmenter.card.border)
        classes = samples.classes or segmenter.classes
        result = evaluate(
            segmenter,
            PairSamples(samples.pairs, classes, samples.split, segmenter.card.preprocess.value_range),
            classes=classes,
            protocol=protocol,
            options=options,
            data=f"{data.name}, {samples.split}",
            mean_over=mean_over,
            corrupt=() if corrupt is None else corrupt,
            seed=seed,
            progress=_with_progress,
        )
        if json:
            print(jsonlib.dumps(result.to_dict(), indent=1))
        else:
            for line in table(result).splitlines():
                say(line)
        if out is None:
            return
        worst = worst_pictures(result, segmenter)
        with writing(files["report.json"], overwrite=overwrite) as temporary:
            temporary.write_text(jsonlib.dumps(result.to_dict(), indent=1) + "\n", encoding="utf-8")
        with writing(files["confusion.png"], overwrite=overwrite) as temporary:
            Image.fromarray(confusion_picture(result)).save(temporary)
        for rank, (name, _, picture) in enumerate(worst, start=1):
            with writing(out / "worst" / f"{rank:02d}_{plain_name(name)}.jpg") as temporary:
                Image.fromarray(picture).save(temporary, quality=90)
        with writing(files["report.html"], overwrite=overwrite) as temporary:
            temporary.write_text(page(result, worst), encoding="utf-8")
        say(f"wrote {', '.join(str(path) for path in files.values())} and {out / 'worst'}", file=sys.stderr)


def _with_progress(samples: Samples) -> Iterable[Sample]:
    if not sys.stderr.isatty():
        return samples
    from rich.console import Console
    from rich.progress import track

    return track(samples, description="Evaluating", console=Console(stderr=True))

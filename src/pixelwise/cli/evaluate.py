"""`pixelwise evaluate`: scores of a model on a labelled data set."""

from __future__ import annotations

import json as jsonlib
import sys
from collections.abc import Iterable
from pathlib import Path

from PIL import Image

from pixelwise.datasets.layouts import Pair, detect, find_pairs
from pixelwise.errors import UnknownNameError
from pixelwise.evaluation import CLASSES, confusion_picture, evaluate, page, table, worst_pictures
from pixelwise.files import check_writable, writing
from pixelwise.segmenter import Segmenter


def run(
    data: Path, layout: str, split: str | None, model: str, engine: str, protocol: str,
    mean_over: list[str], out: Path | None, json: bool, overwrite: bool,
) -> None:  # fmt: skip
    """Evaluate, print, and write the report folder if one is asked for."""
    layout = detect(data) if layout == "auto" else layout
    pairs = find_pairs(data, layout)
    splits = list(dict.fromkeys(pair.split for pair in pairs))
    if split is None:
        split = next((s for s in ("val", "test") if s in splits), splits[0])
    if split not in splits:
        raise UnknownNameError("split", split, splits)
    files = {} if out is None else {n: out / n for n in ("report.json", "report.html", "confusion.png")}
    for path in files.values():
        check_writable(path, overwrite=overwrite)
    segmenter = Segmenter(model, engine=engine)
    chosen = [pair for pair in pairs if pair.split == split]
    result = evaluate(
        segmenter,
        chosen,
        classes=CLASSES.get(layout),
        protocol=protocol,
        data=f"{data.name}, {split}",
        mean_over=mean_over,
        progress=_with_progress,
    )
    print(jsonlib.dumps(result.to_dict(), indent=1) if json else table(result))
    if out is None:
        return
    worst = worst_pictures(result, segmenter)
    with writing(files["report.json"], overwrite=overwrite) as temporary:
        temporary.write_text(jsonlib.dumps(result.to_dict(), indent=1) + "\n", encoding="utf-8")
    with writing(files["confusion.png"], overwrite=overwrite) as temporary:
        Image.fromarray(confusion_picture(result)).save(temporary)
    for rank, (name, _, picture) in enumerate(worst, start=1):
        with writing(out / "worst" / f"{rank:02d}_{name}.jpg") as temporary:
            Image.fromarray(picture).save(temporary, quality=90)
    with writing(files["report.html"], overwrite=overwrite) as temporary:
        temporary.write_text(page(result, worst), encoding="utf-8")
    print(f"wrote {', '.join(str(path) for path in files.values())} and {out / 'worst'}", file=sys.stderr)


def _with_progress(pairs: list[Pair]) -> Iterable[Pair]:
    if not sys.stderr.isatty():
        return pairs
    from rich.console import Console
    from rich.progress import track

    return track(pairs, description="Evaluating", console=Console(stderr=True))

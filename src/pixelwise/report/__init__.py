"""Reports: what an evaluation found, to look at: one page, and the pictures beside it.

`write_report` is what `pixelwise evaluate` and `pixelwise train` call; `text.table` is what they print. What comes
first follows the kind of `task`; `page` puts together what `plots`, `shown` (from `pictures` and their `mistakes`),
`confusion` and `corrupted` make.
"""

from __future__ import annotations

import json
import platform
from datetime import datetime
from importlib import metadata
from pathlib import Path

import numpy as np
from PIL import Image

import pixelwise
from pixelwise import draw
from pixelwise.evaluation import Evaluation
from pixelwise.files import plain_name, writing
from pixelwise.report.confusion import confusion_picture
from pixelwise.report.curves import curves_picture
from pixelwise.report.page import Run, render
from pixelwise.report.pictures import Gallery, Large, large, shown_large
from pixelwise.report.task import PictureScores, scores_of
from pixelwise.segmenter import Segmenter

WORST = 10
"""As many pictures have a file of their own in worst/."""


def write_report(
    evaluation: Evaluation,
    segmenter: Segmenter,
    out: Path,
    *,
    gallery: Gallery | None = None,
    run: Run | None = None,
    when: datetime | None = None,
    overwrite: bool = True,
) -> list[Path]:
    """Write the report of an evaluation into the folder `out`; the paths of what was written.

    report.html and confusion.png; for an evaluation also report.json (`Evaluation.to_dict`, each picture's scores, when
    and with what it was made) and worst/ with the pictures of the lowest scores; for a training (run) curves.png where
    matplotlib is installed. gallery: the thumbnails, collected while the pictures were scored; None makes them now, by
    segmenting every picture again. segmenter: the model that was evaluated. when: the date on it; None is now.
    """
    when = when or datetime.now()
    scores = scores_of(evaluation)
    if gallery is None:
        gallery = Gallery(evaluation.classes)
        for number in range(len(scores.order)):
            gallery.look(*evaluation.again(segmenter, number))
    places = shown_large(scores)
    worst = scores.scored[: WORST if run is None else 0]
    seen = {
        number: large(evaluation, segmenter, scores, number, places.get(number, ""))
        for number in dict.fromkeys([*places, *worst])
    }
    versions = versions_of(segmenter)
    made = {
        "date": f"{when.day} {when:%B %Y}",
        "versions": ", ".join(f"{name} {version}" for name, version in versions.items()),
    }
    written = []
    if run is None:
        written.append(out / "report.json")
        values = {
            **evaluation.to_dict(),
            "date": when.isoformat(timespec="seconds"),
            "versions": versions,
            "by_picture": _by_picture(scores),
        }
        with writing(written[-1], overwrite=overwrite) as temporary:
            temporary.write_text(json.dumps(values, indent=1) + "\n", encoding="utf-8")
    written.append(out / "report.html")
    with writing(written[-1], overwrite=overwrite) as temporary:
        content = render(evaluation, [seen[number] for number in places], gallery, made, run)
        temporary.write_text(content, encoding="utf-8")
    written.append(out / "confusion.png")
    with writing(written[-1], overwrite=overwrite) as temporary:
        Image.fromarray(confusion_picture(evaluation)).save(temporary, format="png")
    if run is not None and (curves := curves_picture(run.metrics)) is not None:
        written.append(out / "curves.png")
        with writing(written[-1], overwrite=overwrite) as temporary:
            temporary.write_bytes(curves)
    for rank, number in enumerate(worst, start=1):
        written.append(out / "worst" / f"{rank:02d}_{plain_name(seen[number].name)}.jpg")
        with writing(written[-1]) as temporary:
            Image.fromarray(_side_by_side(seen[number])).save(
                temporary, format="jpeg", quality=90, subsampling=0
            )
    return written


def versions_of(segmenter: Segmenter) -> dict[str, str]:
    """What made the numbers: pixelwise, Python, NumPy and the engine."""
    engine = {"onnxruntime": "onnxruntime", "pytorch": "torch"}.get(segmenter.engine.name, "")
    found = {"pixelwise": pixelwise.__version__, "Python": platform.python_version(), "NumPy": np.__version__}
    try:
        return {**found, segmenter.engine.name: metadata.version(engine)}
    except (metadata.PackageNotFoundError, ValueError):  # an engine of somebody's own
        return {**found, "engine": segmenter.engine.name}


def _by_picture(scores: PictureScores) -> list[dict[str, object]]:
    """The scores of each picture, plain values for JSON."""
    evaluation, measure = scores.evaluation, scores.task.measure.lower()
    means = evaluation.confusion.per_image().values
    names = evaluation.classes.names
    return [
        {
            "name": name,
            "mean_iou": None if np.isnan(mean) else float(mean),
            measure: {names[c]: float(v) for c, v in enumerate(row) if not np.isnan(v)},
        }
        for name, mean, row in zip(evaluation.confusion.names, means, scores.by_class, strict=True)
    ]


def _side_by_side(one: Large) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    """The panels as one picture, for a file."""
    panels = [np.asarray(panel.image.convert("RGB")) for panel in one.panels]
    return draw.side_by_side(*panels, captions=[panel.title for panel in one.panels])

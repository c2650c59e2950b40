"""Evaluation: a model, a labelled data set and a protocol to scores that say how they were made.

One 64-bit confusion matrix over the whole data set, at the label maps' own size, and the counts of each picture
beside it. What is written: every score as JSON, the confusion matrix and the worst pictures as images, and one
HTML page that holds all of it.
"""

from __future__ import annotations

import base64
import copy
import html
import io
import math
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from pixelwise import draw
from pixelwise.datasets.opening import ignore_index
from pixelwise.datasets.sample import Sample, Samples
from pixelwise.errors import InputError, UnknownNameError
from pixelwise.labels import LabelSet
from pixelwise.metrics import ConfusionMatrix
from pixelwise.segmentation import Segmentation
from pixelwise.segmenter import Segmenter
from pixelwise.weights.card import Card


@dataclass(frozen=True)
class Protocol:
    """A named, pinned way of scoring, which travels with every result.

    says: it, in words. shorter_side: picture and label map are brought to this many pixels first, in place of the
    card's own size, and scored there; None: the card's size, scored at the label map's own. options: how the
    Segmenter is called.
    """

    name: str
    says: str
    shorter_side: int | None = None
    options: dict[str, Any] = field(default_factory=dict)


ONE_MATRIX = "void pixels left out; one confusion matrix over the whole data set"


PROTOCOLS = {
    protocol.name: protocol
    for protocol in (
        Protocol(
            "own-size",
            "the card's own preprocessing, the whole picture at one scale; scored at the label map's own size; "
            + ONE_MATRIX,
        ),
        Protocol(
            "torchvision",
            "as torchvision's reference scripts score: shorter side 520 (antialiased bilinear), the label map resized "
            "to the same size (nearest) and scored there; whole picture, one scale; " + ONE_MATRIX,
            shorter_side=520,
        ),
        Protocol(
            "sliding-512",
            "the picture at its own size in tiles of 512x512 with a stride of about 341, as mmsegmentation slides; "
            "logits averaged evenly; scored at the label map's own size; " + ONE_MATRIX,
            options={"tile": 512, "overlap": 171, "window": "constant"},
        ),
        Protocol(
            "sliding-1024",
            "the picture at its own size in tiles of 1024x1024 with a stride of about 768, as SegFormer on Cityscapes; "
            "logits averaged evenly; scored at the label map's own size; " + ONE_MATRIX,
            options={"tile": 1024, "overlap": 256, "window": "constant"},
        ),
        Protocol(
            "multi-scale-flip",
            "the card's own preprocessing times 0.5, 0.75, 1, 1.25, 1.5 and 1.75, each also mirrored; probabilities "
            "averaged; scored at the label map's own size; " + ONE_MATRIX,
            options={
                "scales": (0.5, 0.75, 1.0, 1.25, 1.5, 1.75),
                "flips": ("horizontal",),
                "average": "probabilities",
            },
        ),
    )
}
"""Known protocols by name."""


@dataclass(frozen=True, eq=False)
class Evaluation:
    """Scores of one model on one data set. confusion: counts, by picture too; card: the model's; samples: as they
    were scored; mean_over: classes whose mean IoU is wanted beside that of all."""

    confusion: ConfusionMatrix
    classes: LabelSet
    card: Card
    protocol: Protocol
    data: str
    samples: Samples
    mean_over: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Every score, plain values for JSON; a class that never occurs has null."""
        confusion = self.confusion
        low, high = confusion.interval()
        per_image = confusion.per_image()
        return {
            "mean_iou": _plain(confusion.mean_iou()),
            **({"mean_iou_of": self._mean_of()} if self.mean_over else {}),
            "mean_iou_95_percent": [_plain(low), _plain(high)],
            "pixel_accuracy": _plain(confusion.pixel_accuracy()),
            "mean_accuracy": _plain(confusion.mean_accuracy()),
            "frequency_weighted_iou": _plain(confusion.frequency_weighted_iou()),
            "mean_dice": _mean(confusion.dice()),
            "kappa": _plain(confusion.kappa()),
            "mcc": _plain(confusion.mcc()),
            "mean_iou_of_pictures": {
                "mean": _plain(per_image.mean),
                "quantiles": {str(q): _plain(per_image.quantile(q)) for q in (0.05, 0.25, 0.5, 0.75, 0.95)},
            },
            "classes": {
                name: {
                    **{column: _plain(value) for column, value in row.items()},
                    "mean_dice_of_pictures": _mean(dice),
                }
                for (name, row), dice in zip(
                    confusion.by_class(self.classes).items(),
                    confusion.per_image("dice").values.T,
                    strict=True,
                )
            },
            "worst": [{"name": name, "mean_iou": value} for name, value in per_image.worst(10)],
            "pictures": len(confusion.names),
            "model": self.card.name,
            "data": self.data,
            "protocol": asdict(self.protocol),
            "published": [asdict(score) for score in self.card.scores],
            "confusion_matrix": confusion.matrix.tolist(),
        }

    def _mean_of(self) -> dict[str, Any]:
        value = self.confusion.mean_iou([self.classes.index(name) for name in self.mean_over])
        return {"classes": list(self.mean_over), "mean_iou": _plain(value)}


def evaluate(
    segmenter: Segmenter,
    samples: Samples,
    *,
    classes: LabelSet | None = None,
    protocol: str = "own-size",
    data: str = "",
    mean_over: Iterable[str] = (),
    progress: Callable[[Samples], Iterable[Sample]] = iter,
) -> Evaluation:
    """Run the model over all samples and count.

    samples: masks hold class indices, as `open_samples` and its kin give them. classes: what those are; None: the
    model's own. They must be as many as the model's, in its order. mean_over: see `Evaluation`. progress: wraps the
    samples, to draw a bar.

    Raises InputError for what the samples raise, for a mask with an unknown id, and for a model of other classes.
    """
    if protocol not in PROTOCOLS:
        raise UnknownNameError("protocol", protocol, PROTOCOLS)
    rule = PROTOCOLS[protocol]
    classes = classes or segmenter.classes
    if classes.num_classes != segmenter.classes.num_classes:
        raise InputError(
            f"{segmenter.card.name} knows {segmenter.classes.num_classes} classes, the labels have "
            f"{classes.num_classes}; choose a model made for them"
        )
    mean_over = tuple(mean_over)
    for name in mean_over:
        classes.index(name)
    confusion = ConfusionMatrix(classes.num_classes, ignore_index(classes), image_dims=2)
    for sample in progress(samples):
        answer, target = answer_under(rule, segmenter, sample)
        confusion.update(segmenter.classes.to_indices(answer.labels), target, sample.name)
    if not confusion.matrix.any():
        raise InputError("there is nothing to score: no pictures, or every labelled pixel is void")
    return Evaluation(confusion, classes, segmenter.card, rule, data, samples, mean_over)


def answer_under(
    protocol: Protocol, segmenter: Segmenter, sample: Sample
) -> tuple[Segmentation, NDArray[np.unsignedinteger[Any]]]:
    """The model's answer and the truth (h, w) it is compared with, both at the size where the protocol scores."""
    if protocol.shorter_side is None:
        return segmenter(sample.image, **protocol.options), sample.mask
    height, width = replace(
        segmenter.card.preprocess, size=protocol.shorter_side, side="shorter", multiple=1, offset=0
    ).size_hw(*sample.mask.shape)
    picture = Image.fromarray(sample.image).resize((width, height), Image.Resampling.BILINEAR)
    target = Image.fromarray(sample.mask).resize((width, height), Image.Resampling.NEAREST)
    as_it_is = copy.copy(segmenter)
    as_it_is.card = segmenter.card.replace(preprocess=replace(segmenter.card.preprocess, size=None))
    return as_it_is(picture, **protocol.options), np.asarray(target)


# Pictures and page ----------------------------------------------------------------------------------------------


def confusion_picture(evaluation: Evaluation) -> NDArray[np.uint8]:
    """The confusion matrix, rows the truth, each row as shares of its class; uint8 (h, w, 3)."""
    matrix = evaluation.confusion.matrix
    present = np.flatnonzero(matrix.sum(0) + matrix.sum(1))
    shares = matrix[np.ix_(present, present)] / np.maximum(matrix[present].sum(1, keepdims=True), 1)
    names = [evaluation.classes.names[i] for i in present]
    cell, font = 34, ImageFont.load_default(size=13)
    left = 16 + max(int(font.getlength(name)) for name in names)
    size = cell * len(names)
    canvas = Image.new("RGB", (left + size + 16, left + size + 16), "white")
    pen = ImageDraw.Draw(canvas)
    for row, name in enumerate(names):
        pen.text((left - 6, left + row * cell + cell / 2), name, fill="black", font=font, anchor="rm")
        across = Image.new("L", (left, cell), 0)
        ImageDraw.Draw(across).text((4, cell / 2), name, fill=255, font=font, anchor="lm")
        canvas.paste((0, 0, 0), (left + row * cell, 0), across.rotate(90, expand=True))
        for column in range(len(names)):
            share = shares[row, column]
            shade = round(255 * (1 - share**0.5))
            colour = (shade, shade, 255) if row == column else (255, shade, shade)
            x, y = left + column * cell, left + row * cell
            pen.rectangle((x, y, x + cell - 2, y + cell - 2), fill=colour)
            if share >= 0.01:
                ink = "white" if shade < 110 else "black"
                pen.text((x + cell / 2, y + cell / 2), f"{100 * share:.0f}", fill=ink, font=font, anchor="mm")
    return np.asarray(canvas)


def worst_pictures(
    evaluation: Evaluation, segmenter: Segmenter, count: int = 10
) -> list[tuple[str, float, NDArray[np.uint8]]]:
    """The pictures with the lowest mean IoU: name, score, and photo, truth and answer side by side."""
    shown = []
    numbers = {name: i for i, name in enumerate(evaluation.confusion.names)}
    for name, score in evaluation.confusion.per_image().worst(count):
        answer, truth = answer_under(evaluation.protocol, segmenter, evaluation.samples[numbers[name]])
        known = truth != ignore_index(evaluation.classes)
        ids = np.full(truth.shape, segmenter.classes.ignore_id or 0, segmenter.classes.dtype)
        ids[known] = segmenter.classes.to_ids(truth[known])
        panels = [
            answer.image,
            draw.overlay(answer.image, ids, segmenter.classes, alpha=0.6),
            answer.overlay(alpha=0.6),
        ]
        captions = [f"{name}: mean IoU {score:.3f}", "truth", "answer"]
        shown.append((name, score, draw.side_by_side(*panels, captions=captions)))
    return shown


def table(evaluation: Evaluation) -> str:
    """The scores of every class that occurs and the summary, as text."""
    scores = evaluation.to_dict()
    width = max(len(name) for name in evaluation.classes.names)
    lines = [f"{'class':<{width}}    IoU   Dice  precision  recall  share of pixels"]
    total = sum(row["true_pixels"] for row in scores["classes"].values()) or 1
    for name, row in scores["classes"].items():
        if row["iou"] is not None:
            cells = "  ".join(
                _cell(row[key], w) for key, w in (("iou", 5), ("dice", 5), ("precision", 9), ("recall", 6))
            )
            lines.append(f"{name:<{width}}  {cells}  {row['true_pixels'] / total:14.2%}")
    low, high = scores["mean_iou_95_percent"]
    lines += [
        "",
        f"mean IoU {scores['mean_iou']:.4f} (95% over pictures {low:.4f} to {high:.4f}), "
        f"pixel accuracy {scores['pixel_accuracy']:.4f}, mean accuracy {scores['mean_accuracy']:.4f}, "
        f"{scores['pictures']} pictures",
        f"protocol {evaluation.protocol.name}: {evaluation.protocol.says}",
    ]
    if evaluation.mean_over:
        of = scores["mean_iou_of"]
        lines.append(f"mean IoU {of['mean_iou']:.4f} over {', '.join(of['classes'])}")
    for score in evaluation.card.scores:
        lines.append(
            f"published: {score.metric} {score.value:.4f} on {score.data}; {score.protocol} ({score.source})"
        )
    return "\n".join(lines)


def page(evaluation: Evaluation, worst: list[tuple[str, float, NDArray[np.uint8]]]) -> str:
    """One HTML page that needs nothing beside it: summary, classes, confusion matrix, worst pictures."""
    scores = evaluation.to_dict()
    rows = "".join(
        f"<tr><td><i style='background:rgb{evaluation.classes.colors[i]}'></i>{html.escape(name)}</td>"
        + "".join(f"<td>{_cell(row[key], 0)}</td>" for key in ("iou", "dice", "precision", "recall"))
        + f"<td>{row['true_pixels']:,}</td></tr>"
        for i, (name, row) in enumerate(scores["classes"].items())
        if row["iou"] is not None
    )
    published = "".join(
        f"<li>{html.escape(f'{s.metric} {s.value:.4f} on {s.data}; {s.protocol} ({s.source})')}</li>"
        for s in evaluation.card.scores
    )
    if published:
        published = f"<p>Published on its card, each under its own protocol:</p><ul>{published}</ul>"
    pictures = "".join(
        f"<img src='{_data_uri(picture, 'JPEG')}' alt='{html.escape(name)}'>" for name, _, picture in worst
    )
    low, high = scores["mean_iou_95_percent"]
    of = scores.get("mean_iou_of")
    chosen = (
        f"<p>Mean IoU {of['mean_iou']:.4f} over {html.escape(', '.join(of['classes']))}.</p>" if of else ""
    )
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{html.escape(evaluation.card.name)} evaluated</title>
<style>
body {{ font: 15px/1.5 system-ui, sans-serif; max-width: 70rem; margin: 2rem auto; padding: 0 1rem; color: #222 }}
table {{ border-collapse: collapse }}
td, th {{ padding: .15rem .8rem; text-align: right; border-bottom: 1px solid #ddd }}
td:first-child, th:first-child {{ text-align: left }} img {{ max-width: 100%; margin: .5rem 0; display: block }}
i {{ display: inline-block; width: 1em; height: 1em; margin-right: .5em; border: 1px solid #888 }}
.big span {{ font-size: 1.8rem; margin-right: .3rem }} .big {{ display: flex; gap: 3rem }}
</style></head><body>
<h1>{html.escape(evaluation.card.name)}</h1>
<p>{scores["pictures"]} pictures of {html.escape(evaluation.data)}.
Protocol {html.escape(evaluation.protocol.name)}: {html.escape(evaluation.protocol.says)}.</p>
<p class="big"><b><span>{scores["mean_iou"]:.3f}</span>mean IoU</b><b><span>{scores["pixel_accuracy"]:.3f}</span>pixel
accuracy</b><b><span>{scores["mean_accuracy"]:.3f}</span>mean accuracy</b></p>
<p>95% interval of the mean IoU over pictures: {low:.3f} to {high:.3f}.</p>
{chosen}{published}
<h2>Classes</h2>
<table><tr><th>class</th><th>IoU</th><th>Dice</th><th>precision</th><th>recall</th><th>pixels</th></tr>{rows}</table>
<h2>Confusion</h2><p>Rows are the truth; numbers are percent of the row.</p>
<img src="{_data_uri(confusion_picture(evaluation), "PNG")}" alt="confusion matrix" style="max-width: 60rem">
<h2>Worst pictures</h2>{pictures}
</body></html>
"""


def _data_uri(picture: NDArray[np.uint8], kind: str) -> str:
    file = io.BytesIO()
    Image.fromarray(picture).save(file, kind)
    return f"data:image/{kind.lower()};base64,{base64.b64encode(file.getvalue()).decode()}"


def _cell(value: float | None, width: int) -> str:
    return f"{'' if value is None else f'{value:.3f}':>{width}}"


def _mean(values: NDArray[np.float64]) -> float | None:
    """Without the NaN ones; None when none is left."""
    left = values[~np.isnan(values)]
    return float(left.mean()) if left.size else None


def _plain(value: float) -> float | None:
    return None if isinstance(value, float) and math.isnan(value) else value

"""Pictures of a report: a few large ones (picture, truth, answer, mistakes), and a thumbnail of each of the others."""

from __future__ import annotations

import base64
import heapq
import io
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, features

from pixelwise import draw
from pixelwise.datasets.opening import ignore_index
from pixelwise.evaluation import Evaluation
from pixelwise.labels import LabelSet
from pixelwise.metrics import ConfusionMatrix
from pixelwise.report import mistakes
from pixelwise.report.task import PictureScores, Task
from pixelwise.segmenter import Segmenter

LONGEST_PX = 768
"""The longest side of a large picture."""

SHORTEST_PX = 320
"""Of a picture that is smaller than this the pixels are repeated, so that lines round something are thin beside it."""

THUMBNAIL_PX = 96
"""The longest side of each of the two halves of a thumbnail: the picture, and its mistakes."""

MOST_THUMBNAILS = 500
"""Of a page; the pictures with the lowest scores have them."""


@dataclass(frozen=True)
class Panel:
    """One picture of the page. title: under it; alt: what it shows, for whoever does not see it; photo: whether it is
    one, which may lose a little."""

    title: str
    alt: str
    image: Image.Image
    photo: bool = False

    def uri(self) -> str:
        """The picture as an address that holds it."""
        file = io.BytesIO()
        if self.photo:
            self.image.save(file, "JPEG", quality=85)
        else:
            self.image.save(file, "PNG", optimize=True)
        return data_uri(file.getvalue(), "jpeg" if self.photo else "png")


def data_uri(data: bytes, kind: str) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"


@dataclass(frozen=True)
class Large:
    """One of the pictures that are shown large. place: why, such as "Lowest score"; says: its mistakes, in words."""

    place: str
    name: str
    score: float
    says: str
    panels: tuple[Panel, ...]


def shown_large(scores: PictureScores) -> dict[int, str]:
    """The numbers of the pictures that are shown large, and why: the three worst, the median and the best."""
    found = scores.scored
    last = len(found) - 1
    if last < 1:
        return dict.fromkeys(found, "The only picture")
    titles = {
        2: "Third lowest",
        1: "Second lowest",
        len(found) // 2: "Median",
        0: "Lowest score",
        last: "Highest score",
    }
    return {found[place]: titles[place] for place in sorted(titles) if place <= last}


def large(
    evaluation: Evaluation, segmenter: Segmenter, scores: PictureScores, number: int, place: str
) -> Large:
    """A picture of the evaluation, answered again by the same model."""
    name, image, given, target = evaluation.again(segmenter, number)
    classes, void = evaluation.classes, ignore_index(evaluation.classes)
    height, width = target.shape
    image, given, target = at_size(image, given, target)
    found = mistakes.verdict(given, target, scores.task.ground, void)
    wrong = _shares(found)
    panels = (
        Panel("Picture", f"{name}: the picture, {width} by {height} pixels", Image.fromarray(image), True),
        Panel("Truth", f"{name}: the truth, {_areas(target, classes)}", _colored(target, classes)),
        Panel("Answer", f"{name}: the model's answer, {_areas(given, classes)}", _colored(given, classes)),
        Panel("Mistakes", f"{name}: where it errs, {wrong}", mistakes.picture(image, found)),
    )
    return Large(place, name, float(scores.values[number]), f"{wrong[:1].upper()}{wrong[1:]}.", panels)


def at_size(
    image: NDArray[np.uint8], given: NDArray[Any], target: NDArray[Any], longest: int = LONGEST_PX
) -> tuple[NDArray[np.uint8], NDArray[Any], NDArray[Any]]:
    """Picture and class indices at the size at which they are shown: at most `longest` a side, the pixels of small ones
    repeated. Of class indices the nearest pixel is taken."""
    height, width = target.shape
    if max(height, width) > longest:
        rows, columns = (
            np.minimum(((np.arange(n) + 0.5) * size / n).astype(int), size - 1)
            for n, size in ((max(1, round(s * longest / max(height, width))), s) for s in (height, width))
        )
        small = Image.fromarray(image).resize((len(columns), len(rows)), Image.Resampling.BOX, reducing_gap=2)
        given, target = (indices[np.ix_(rows, columns)] for indices in (given, target))
        return np.asarray(small), given, target
    times = max(1, math.ceil(min(SHORTEST_PX, longest) / max(height, width)))
    return (
        image.repeat(times, 0).repeat(times, 1),
        given.repeat(times, 0).repeat(times, 1),
        target.repeat(times, 0).repeat(times, 1),
    )


def _colored(indices: NDArray[Any], classes: LabelSet) -> Image.Image:
    """Class indices in exactly the colours of their classes, what is unknown in light grey."""
    known = indices < len(classes)
    if len(classes) > 255:
        table = np.array([*classes.colors, draw.VOID_COLOR], np.uint8)
        return Image.fromarray(table[np.where(known, indices, len(classes))])
    shown = Image.fromarray(np.where(known, indices, len(classes)).astype(np.uint8))
    shown.putpalette(np.array([*classes.colors, draw.VOID_COLOR], np.uint8).tobytes())
    return shown


def _areas(indices: NDArray[Any], classes: LabelSet, most: int = 4) -> str:
    """ "vessel 12%, background 88%": the classes that cover most, with their shares."""
    known = indices[indices < len(classes)]
    counts = np.bincount(known.ravel(), minlength=len(classes))
    largest = [i for i in np.argsort(-counts, kind="stable") if counts[i]]
    words = [f"{classes.names[i]} {percent(counts[i] / indices.size)}" for i in largest[:most]]
    if len(largest) > most:
        words.append(f"and {len(largest) - most} more classes")
    return ", ".join(words) or "nothing is known of it"


def _shares(found: NDArray[np.uint8]) -> str:
    """What is wrong, in percent of the picture."""
    counts = np.bincount(found.ravel(), minlength=5)
    names = {
        mistakes.MISSED: "missed",
        mistakes.INVENTED: "invented",
        mistakes.OTHER: "taken for another class",
    }
    words = [f"{percent(counts[code] / found.size)} {name}" for code, name in names.items() if counts[code]]
    return f"of its pixels {', '.join(words)}" if words else "no mistake"


def percent(share: float) -> str:
    """A share in percent, with as many digits as one reads: 12%, 1.2%, below 0.1%."""
    if 0 < share < 0.001:
        return "below 0.1%"
    return f"{100 * share:.0f}%" if share >= 0.1 or share == 0 else f"{100 * share:.1f}%"


class Gallery:
    """Collects thumbnails while pictures are scored: `evaluate(..., look=gallery.look)`. Of more than MOST_THUMBNAILS
    pictures those with the lowest scores keep theirs."""

    def __init__(self, classes: LabelSet) -> None:
        self.classes, self.task = classes, Task.of(classes)
        self.thumbnails: dict[int, bytes] = {}
        self._seen = 0
        self._kept: list[tuple[float, int]] = []  # a heap: the highest score, negated, comes out first

    def look(self, name: str, image: NDArray[np.uint8], given: NDArray[Any], target: NDArray[Any]) -> None:
        """Keep a thumbnail of this picture if it is among the worst so far; see `evaluation.Look`."""
        number, self._seen = self._seen, self._seen + 1
        score = self._score(given, target)
        if len(self._kept) == MOST_THUMBNAILS:
            if -score <= self._kept[0][0]:
                return
            _, dropped = heapq.heappushpop(self._kept, (-score, number))
            del self.thumbnails[dropped]
        else:
            heapq.heappush(self._kept, (-score, number))
        self.thumbnails[number] = self._thumbnail(image, given, target)

    def uri(self, number: int) -> str | None:
        """The thumbnail of that picture as an address, None where there is none."""
        if number not in self.thumbnails:
            return None
        return data_uri(self.thumbnails[number], _KIND)

    def _score(self, given: NDArray[Any], target: NDArray[Any]) -> float:
        """The picture's score, which is infinite where it has none."""
        void = ignore_index(self.classes)
        counts = ConfusionMatrix(len(self.classes), void, image_dims=2)
        counts.update(given, np.where(given == void, np.asarray(void, target.dtype), target))
        value = counts.mean_iou() if self.task.object is None else float(counts.dice()[self.task.object])
        return math.inf if math.isnan(value) else value

    def _thumbnail(self, image: NDArray[np.uint8], given: NDArray[Any], target: NDArray[Any]) -> bytes:
        image, given, target = at_size(image, given, target, longest=3 * THUMBNAIL_PX)
        found = mistakes.verdict(given, target, self.task.ground, ignore_index(self.classes))
        halves = [Image.fromarray(image), mistakes.picture(image, found).convert("RGB")]
        for half in halves:
            half.thumbnail((THUMBNAIL_PX, THUMBNAIL_PX), Image.Resampling.LANCZOS)
        width, height = halves[0].size
        both = Image.new("RGB", (2 * width, height))
        both.paste(halves[0], (0, 0))
        both.paste(halves[1], (width, 0))
        file = io.BytesIO()
        both.save(file, _KIND.upper(), quality=70)
        return file.getvalue()


_KIND = "webp" if features.check("webp") else "jpeg"

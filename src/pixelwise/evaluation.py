"""Evaluation: a model, a labelled data set and a protocol to scores that say how they were made.

One 64-bit confusion matrix over the whole data set, at the label maps' own size, and the counts of each picture
beside it. `report` shows them.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field, replace
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pixelwise import corruptions
from pixelwise.datasets.opening import PairSamples, ignore_index
from pixelwise.datasets.sample import Sample, Samples
from pixelwise.errors import InputError, UnknownNameError
from pixelwise.images import range_of, stretched
from pixelwise.inference.options import DEFAULTS, SegmentOptions
from pixelwise.labels import LabelSet
from pixelwise.metrics import ConfusionMatrix, RegionScores, StructureScores
from pixelwise.metrics.structures import WORST
from pixelwise.robustness import Counts, Robustness
from pixelwise.segmentation import Segmentation
from pixelwise.segmenter import Segmenter
from pixelwise.sources.volume import Volume
from pixelwise.weights.card import Card


@dataclass(frozen=True)
class Protocol:
    """A named, pinned way of scoring, which travels with every result.

    says: it, in words. shorter_side: picture and label map are brought to this many pixels first, in place of the
    card's own size, and scored there; None: the card's size, scored at the label map's own. options: how it is
    segmented.
    """

    name: str
    says: str
    shorter_side: int | None = None
    options: SegmentOptions = DEFAULTS

    def changed(self, options: SegmentOptions) -> Protocol:
        """The protocol with other options, which it says."""
        before, now = (o.to_dict(defaults=True) for o in (self.options, options))
        changes = ", ".join(f"{name}={value!r}" for name, value in now.items() if before.get(name) != value)
        return replace(self, says=f"{self.says}; but with {changes}", options=options) if changes else self

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON; of the options those that are not the default."""
        return {**asdict(self), "options": self.options.to_dict()}


ONE_MATRIX = "void pixels left out; one confusion matrix over the whole data set"


AS_A_MAP = (
    "regions that overlap are compared as the label map that their order makes, later ones over earlier"
)


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
            "the picture at its own size in tiles of 512x512 with a stride of at most 341, as mmsegmentation slides; "
            "logits averaged evenly; scored at the label map's own size; " + ONE_MATRIX,
            options=SegmentOptions(tile=512, overlap=171, window="constant"),
        ),
        Protocol(
            "sliding-1024",
            "the picture at its own size in tiles of 1024x1024 with a stride of about 768, as SegFormer on Cityscapes; "
            "logits averaged evenly; scored at the label map's own size; " + ONE_MATRIX,
            options=SegmentOptions(tile=1024, overlap=256, window="constant"),
        ),
        Protocol(
            "multi-scale-flip",
            "the card's own preprocessing times 0.5, 0.75, 1, 1.25, 1.5 and 1.75, each also mirrored; probabilities "
            "averaged; scored at the label map's own size; " + ONE_MATRIX,
            options=SegmentOptions(
                scales=(0.5, 0.75, 1.0, 1.25, 1.5, 1.75), flips=("horizontal",), average="probabilities"
            ),
        ),
    )
}
"""Known protocols by name."""

OWN_GRID = Protocol(
    "own-grid",
    "each scan whole, in the windows that the card says, scored on its own grid; the mean over scans of each class; "
    + WORST,
)
"""How models of volumes are scored."""


def protocol_of(name: str) -> Protocol:
    """A known protocol; UnknownNameError for another name."""
    if name not in PROTOCOLS:
        raise UnknownNameError("protocol", name, PROTOCOLS)
    return PROTOCOLS[name]


Look: TypeAlias = Callable[[str, NDArray[np.uint8], NDArray[Any], NDArray[Any]], None]
"""Is shown each picture as it is scored: its name, the picture (h, w, 3), and what the model answered and what is true,
both (h, w) class indices of the labels, 255 (65535) where there is none."""


@dataclass(frozen=True, eq=False)
class Evaluation:
    """Scores of one model on one data set. confusion: counts, by picture too; card: the model's; samples: as they
    were scored; mean_over: classes whose mean IoU is wanted beside that of all; answered: the share of the labelled
    pixels that got an answer, 1 without a min_confidence. The others are left out of every count. robustness: the same
    of corrupted pictures, None where that was not asked for. regions: of a model and labels whose classes overlap the
    scores of each region, whatever the others are; None where a pixel has one class. part: which pictures of the data
    those are, in words. order: the labels' number of each of the model's classes, None where both have the same.
    made_by: the engine and its precision. surfaces: of scans Dice, surface Dice and distances of each and each class,
    None of pictures."""

    confusion: ConfusionMatrix
    classes: LabelSet
    card: Card
    protocol: Protocol
    data: str
    samples: Samples
    mean_over: tuple[str, ...] = ()
    answered: float = 1.0
    robustness: Robustness | None = None
    regions: RegionScores | None = None
    part: str = ""
    order: NDArray[np.int64] | None = field(default=None, repr=False)
    made_by: dict[str, Any] = field(default_factory=dict)
    surfaces: StructureScores | None = None

    def again(
        self, segmenter: Segmenter, number: int
    ) -> tuple[str, NDArray[np.uint8], NDArray[np.int64], NDArray[Any]]:
        """What `Look` was shown of one picture, made again by the same model. number: its place among the samples."""
        answer, given, target = _answered(
            self.protocol, segmenter, self.samples[number], self.classes, self.order
        )
        return _shown(self.confusion.names[number], answer, given, target, self.samples[number])

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
            **self.made_by,
            "data": self.data,
            **({"part": self.part} if self.part else {}),
            "protocol": self.protocol.to_dict(),
            **({"answered": self.answered} if self.protocol.options.min_confidence else {}),
            "published": [asdict(score) for score in self.card.scores],
            "confusion_matrix": confusion.matrix.tolist(),
            **({"corrupted": self._corrupted(self.robustness)} if self.robustness else {}),
            **({} if self.regions is None else self._of_regions(self.regions)),
            **({} if self.surfaces is None else {"structures": self.surfaces.to_dict()}),
        }

    def _of_regions(self, regions: RegionScores) -> dict[str, Any]:
        return {"regions": regions.to_dict(), "mean_dice_of_regions": _plain(regions.mean_dice())}

    def _corrupted(self, robustness: Robustness) -> dict[str, Any]:
        names = [self.classes.names[i] for i in robustness.classes]
        return robustness.to_dict() | {"classes": names}

    def _mean_of(self) -> dict[str, Any]:
        value = self.confusion.mean_iou([self.classes.index(name) for name in self.mean_over])
        return {"classes": list(self.mean_over), "mean_iou": _plain(value)}


def evaluate(
    segmenter: Segmenter,
    samples: Samples,
    *,
    classes: LabelSet | None = None,
    protocol: str = "own-size",
    options: SegmentOptions | None = None,
    data: str = "",
    part: str = "",
    by_place: bool = False,
    mean_over: Iterable[str] = (),
    corrupt: str | Iterable[str] = (),
    seed: int = 0,
    tolerance_mm: float = 1.0,
    progress: Callable[[Samples], Iterable[Sample]] = iter,
    look: Look | None = None,
) -> Evaluation:
    """Run the model over all samples and count.

    samples: masks hold class indices, as `open_samples` and its kin give them; of their files with more than 8 bits a
    channel the model's card says what is shown (`Preprocess.value_range`). classes: what those are; None: the
    model's own. They must be the model's, in any order; where one of the two only numbers them ("class 0", "class 1"),
    or by_place says that it is meant, as many will do, and each counts as the one in its place. options: how to
    segment, in place of the protocol's; what they change is said with the scores. Of a model whose regions overlap the
    label map is scored that their order makes, which the protocol then says, and where the samples have codes each
    region too (`Evaluation.regions`). data, part: what is scored, in words, to be said with the scores. mean_over: see
    `Evaluation`. progress: wraps the samples, to draw a bar. look: is shown what is scored (`Look`), such as
    `report.gallery.Gallery.look`.

    corrupt: also score each picture corrupted by these, such as "all" or "fog,jpeg:3" (`corruptions.parse`): mean IoU
    (of the classes of mean_over, else of those that the labels hold, the same for every corruption), what share of that
    of the clean pictures is left, calibration and risk-coverage, in `Evaluation.robustness`. Everything else stays as
    without. seed: of the corruptions, which follow from it and from the samples' names.

    A model of volumes is scored on scans (samples whose image is (c, d, h, w)), by Dice, surface Dice within
    tolerance_mm and the 95th percentile of the surfaces' distance of each and each class, in `Evaluation.surfaces`.

    Raises InputError for what the samples raise, for a mask with an unknown id, and for a model of other classes;
    UnknownNameError for a corruption.
    """
    of_volumes = segmenter.card.volume is not None
    refuse_other_kind(segmenter, samples)
    if isinstance(samples, PairSamples):  # shown as `segmenter` shows the files
        samples = copy.copy(samples)
        samples.value_range = segmenter.card.preprocess.value_range
    rule = volume_rule(protocol, corrupt) if of_volumes else protocol_of(protocol)
    if options is not None:
        options.refuse_auto("an evaluation", "pictures")
        rule = rule.changed(options)
    wanted = corruptions.parse(corrupt) if corrupt else ()
    classes = classes or segmenter.classes
    order = _order(segmenter, classes, by_place)
    mean_over = tuple(mean_over)
    for name in mean_over:
        classes.index(name)
    if segmenter.card.outputs == "regions":
        rule = replace(rule, says=f"{rule.says}; {AS_A_MAP}")
    void, doubts = ignore_index(classes), rule.options.min_confidence > 0
    clean = Counts(
        classes.num_classes, void, by_picture=True, calibrated=bool(wanted), dims=3 if of_volumes else 2
    )
    surfaces = StructureScores(classes.names, tolerance_mm, void) if of_volumes else None
    regions = RegionScores(classes.names[1:])
    places = _places(order, classes) if segmenter.card.outputs == "regions" else None
    corrupted = {key: Counts(classes.num_classes, void, by_picture=False, calibrated=True) for key in wanted}

    def count(counts: Counts, sample: Sample) -> None:
        calibrated = counts.calibration is not None
        answer, given, target = _answered(rule, segmenter, sample, classes, order, confidence=calibrated)
        if answer.codes is not None and sample.codes is not None and counts is clean:
            regions.update(answer.codes, _at(sample.codes, answer.codes.shape), sample.name, places)
        doubtful = (given == void) & (target != void) if doubts else None
        counts.add(given, target, answer.confidence, sample.name, doubtful=doubtful)
        if surfaces is not None:
            truth = target if doubtful is None else np.where(doubtful, void, target)
            surfaces.update(
                given, truth, sample.name, None if sample.geometry is None else sample.geometry.spacing
            )
        if look is not None and counts is clean:
            look(*_shown(sample.name, answer, given, target, sample))

    for sample in progress(samples):
        count(clean, sample)
        for (name, strength), counts in corrupted.items():
            image = corruptions.corrupt(sample.image, name, strength, picture=sample.name, seed=seed)
            count(counts, replace(sample, image=image))
    if not clean.confusion.matrix.any():
        why = ", or no answer reaches min_confidence" if clean.unanswered else ""
        raise InputError(f"there is nothing to score: no pictures, or every labelled pixel is void{why}")
    of = tuple(classes.index(name) for name in mean_over) or clean.there()
    return Evaluation(
        clean.confusion,
        classes,
        segmenter.card,
        rule,
        data,
        samples,
        mean_over,
        clean.answered,
        Robustness(clean, corrupted, of, seed, doubts) if wanted else None,
        regions if regions.pictures else None,
        part,
        order,
        made_by=segmenter.made_by(),
        surfaces=surfaces,
    )


def volume_rule(protocol: str, corrupt: str | Iterable[str]) -> Protocol:
    """The protocol of scans, the one there is. Raises InputError for what is of pictures alone."""
    if protocol not in (OWN_GRID.name, "own-size"):
        raise InputError(
            f"the protocol {protocol} is of pictures; scans are scored by {OWN_GRID.name}: leave it out"
        )
    if corrupt:
        raise InputError("corruptions are of pictures, and this model takes scans; leave --corrupt out")
    return OWN_GRID


def refuse_other_kind(segmenter: Segmenter, samples: Samples) -> None:
    """Raise InputError where a model of scans is to be scored on pictures, or the other way round."""
    if not isinstance(samples, PairSamples) or not samples.pairs:
        return
    name = segmenter.card.name
    if samples.pairs[0].volume and segmenter.card.volume is None:
        raise InputError(f"{name} takes pictures, and the data are scans; choose a model of volumes")
    if not samples.pairs[0].volume and segmenter.card.volume is not None:
        raise InputError(f"{name} takes volumes, and the data are pictures; choose a model of pictures")


def _shown(
    name: str, answer: Segmentation, given: NDArray[np.int64], target: NDArray[Any], sample: Sample
) -> tuple[str, NDArray[np.uint8], NDArray[np.int64], NDArray[Any]]:
    """What a `Look` sees: of a scan the slice that holds most of what is no background."""
    if target.ndim == 2:
        return name, answer.image, given, target
    some = ((target > 0) | (given > 0)).reshape(len(target), -1).sum(axis=1)
    at = int(some.argmax())
    grey = stretched(np.asarray(sample.image[0, at]), range_of(sample.image[0], name))
    return name, np.repeat(grey[..., None], 3, axis=2), given[at], target[at]


def _order(segmenter: Segmenter, classes: LabelSet, by_place: bool) -> NDArray[np.int64] | None:
    """The labels' number of each of the model's classes, where the same names come in another order; the void number
    stays. None where each counts as the one in its place. Raises InputError for other classes than the model's."""
    own, theirs, model = segmenter.classes.names, classes.names, segmenter.card.name
    first = next((i for i, pair in enumerate(zip(own, theirs, strict=False)) if pair[0] != pair[1]), None)
    if len(own) != len(theirs):
        where = (
            f"of which the first {min(len(own), len(theirs))} are called the same"
            if first is None
            else f"of which the model's class {first} is {own[first]!r} and the labels' {theirs[first]!r}"
        )
        raise InputError(
            f"{model} knows {len(own)} classes, the labels have {len(theirs)}, {where}; choose a model made for them"
        )
    numbered = tuple(f"class {i}" for i in range(len(own)))
    if first is None or numbered in (own, theirs):
        return None
    if set(own) == set(theirs):
        void = ignore_index(classes)
        table = np.arange(max(void, len(own)) + 1)
        table[: len(own)] = [classes.index(name) for name in own]
        return table
    if by_place:
        return None
    raise InputError(
        f"{model} knows other classes than the labels have: its class {first} is {own[first]!r}, theirs "
        f"{theirs[first]!r}; choose a model made for them, or say --by-place (by_place=True) if those mean the same"
    )


def _places(order: NDArray[np.int64] | None, classes: LabelSet) -> list[int] | None:
    """The number among the labels' regions of each of the model's, by those of their classes; None for the same."""
    if order is None:
        return None
    places = [int(order[i]) - 1 for i in range(1, classes.num_classes)]
    if -1 in places:
        raise InputError(
            f"the first class is what no region covers, and that is {classes.names[0]!r} in the labels and another in "
            "the model; name the labels' classes in the model's order"
        )
    return places


def _at(codes: NDArray[Any], size_hw: tuple[int, ...]) -> NDArray[Any]:
    """The codes at the size where a protocol scores, by the nearest neighbour."""
    if codes.shape == size_hw:
        return codes
    rows, columns = (
        (2 * np.arange(new) + 1) * old // (2 * new) for new, old in zip(size_hw, codes.shape, strict=True)
    )
    nearest: NDArray[Any] = codes[rows][:, columns]
    return nearest


def _answered(
    protocol: Protocol, segmenter: Segmenter, sample: Sample, classes: LabelSet, order: NDArray[np.int64] | None, *,
    confidence: bool = False,
) -> tuple[Segmentation, NDArray[np.int64], NDArray[np.unsignedinteger[Any]]]:  # fmt: skip
    """The answer, the same as class indices of the labels (h, w), and the truth (h, w)."""
    answer, target = _under(protocol, segmenter, sample, confidence=confidence)
    given = segmenter.classes.to_indices(answer.labels, ignore_index=ignore_index(classes))
    return answer, given if order is None else order[given], target


def _under(
    protocol: Protocol, segmenter: Segmenter, sample: Sample, *, confidence: bool
) -> tuple[Segmentation, NDArray[np.unsignedinteger[Any]]]:
    """The model's answer, with its confidence if asked for, and the truth (h, w) it is compared with, both at the size
    where the protocol scores."""
    if sample.mask.ndim == 3:
        scan = Volume(sample.image, sample.geometry, sample.name)
        return segmenter.segment(scan, protocol.options, confidence=confidence), sample.mask
    if protocol.shorter_side is None:
        return segmenter.segment(sample.image, protocol.options, confidence=confidence), sample.mask
    height, width = replace(
        segmenter.card.preprocess, size=protocol.shorter_side, side="shorter", multiple=1, offset=0
    ).size_hw(*sample.mask.shape)
    picture = Image.fromarray(sample.image).resize((width, height), Image.Resampling.BILINEAR)
    target = Image.fromarray(sample.mask).resize((width, height), Image.Resampling.NEAREST)
    as_it_is = copy.copy(segmenter)
    as_it_is.card = segmenter.card.replace(preprocess=replace(segmenter.card.preprocess, size=None))
    return as_it_is.segment(picture, protocol.options, confidence=confidence), np.asarray(target)


def _mean(values: NDArray[np.float64]) -> float | None:
    """Without the NaN ones; None when none is left."""
    left = values[~np.isnan(values)]
    return float(left.mean()) if left.size else None


def _plain(value: float) -> float | None:
    return None if isinstance(value, float) and math.isnan(value) else value

"""A model to int8, measured on pictures of one's own: `pixelwise quantize`."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pixelwise import images, sources
from pixelwise.datasets.opening import DataSet, PairSamples, open_data
from pixelwise.engines.file_engine import is_quantised
from pixelwise.errors import ExportError, InputError, MissingExtraError, PixelwiseError, UnknownNameError
from pixelwise.exporting import as_onnx, check_ending, copy, files_of, with_card
from pixelwise.files import check_writable
from pixelwise.opening import NOTHING, Said
from pixelwise.segmenter import Segmenter
from pixelwise.terminal import counted, note
from pixelwise.weights.card import Card

KINDS = {"onnx": ".onnx", "openvino": ".xml"}
"""What can be written, and how the names of such files end."""

PICTURES = 32
"""On so many the ranges are measured, and on as many others the agreement."""

LOOKED_AT = 4
"""Of them for the cost of a single layer."""

FEWEST = 4
"""Pictures below which nothing can be said."""

AGREEMENT = 0.99
"""The share of the pixels that must keep their class, unless another is asked for."""

MUST_GAIN = 1.5
"""How many times as fast as float32 int8 must be."""


@dataclass(frozen=True)
class Pictures:
    """What a model is measured on: as `sources.read` gives it, for ranges and for agreement, and of the latter the
    samples where they are labelled. unread: what was no picture, as messages."""

    ranges: list[NDArray[Any]]
    scored: list[NDArray[Any]]
    samples: PairSamples | None
    unread: list[str]


def quantize_model(
    model: str | os.PathLike[str],
    data: str | os.PathLike[str],
    out: str | os.PathLike[str],
    said: Said = NOTHING,
    *,
    agreement: float | None = None,
    mean_iou_drop: float | None = None,
    to: str | None = None,
    threads: int | None = None,
    overwrite: bool = False,
    clock: Callable[[], float] = time.perf_counter,
) -> str:
    """Write a model with as many of its layers in int8 as leave it what is asked for of itself in float32, if that
    pays; returns a sentence that says what it was and what it is.

    model: whatever `Segmenter` opens and `export_model` exports. data: a folder of pictures like those that it is for;
    labelled, in one of the layouts, it also gives the mean IoU. out: a name that ends as KINDS says. said: in place of
    what the model's card says. agreement: the share of the pixels that must keep their class, in pictures that the
    ranges were not measured on; None for `AGREEMENT`. mean_iou_drop: in its place, for ONNX files and labelled data,
    how much mean IoU (0 to 1) may be lost in those pictures. to: a key of KINDS; None for the one that `out` ends in.
    clock: seconds, by which the speeds are compared.

    Raises InputError for what cannot be opened, and a folder of which nothing can be learned; ExportError, leaving no
    file, where int8 is not `MUST_GAIN` times as fast as float32 in the same engine.
    """
    if agreement is not None and mean_iou_drop is not None:
        raise InputError("agreement and mean_iou_drop both say how much may be lost; give one of them")
    if mean_iou_drop is not None and not 0 <= mean_iou_drop < 1:
        raise InputError(
            f"mean_iou_drop is a difference of mean IoU from 0 to 1, such as 0.005, got {mean_iou_drop}"
        )
    agreement = AGREEMENT if agreement is None else agreement
    if not 0 < agreement <= 1:
        raise InputError(
            f"agreement is a share of the pixels above 0 and up to 1, such as 0.99, got {agreement}"
        )
    kind = check_ending(out, to, KINDS)
    if kind == "openvino" and mean_iou_drop is not None:
        raise InputError(
            "for OpenVINO's files layers are chosen by agreement; give --agreement in place of mean IoU"
        )
    for path in files_of(Path(out)):
        check_writable(path, overwrite=overwrite)
    try:
        import onnx

        from pixelwise.export import quantize, winograd

        if kind == "openvino":
            from pixelwise.export import openvino, quantize_openvino  # noqa: F401
    except ModuleNotFoundError as error:
        raise MissingExtraError("quantising", "quantize") from error
    with TemporaryDirectory(prefix="pixelwise-") as place:
        folder = Path(place)
        source, card, _ = as_onnx(model, said, None, folder)
        card.refuse_volumes("int8")
        if card.baked or card.precision == "int8":
            raise InputError(
                f"{os.fspath(model)} is {'baked' if card.baked else 'quantised'} already; quantise the model that it "
                "was made of"
            )
        pictures = read_pictures(Path(data), card)
        if mean_iou_drop is not None and pictures.samples is None:
            raise InputError(
                f"a drop of mean IoU wants labels, and {os.fspath(data)} has none; give --agreement"
            )
        note(f"measuring what int8 costs {card.name}")
        if kind == "onnx":
            plain, float32 = onnx.load(source), source
            winograd.restore(plain)
            onnx.save(plain, folder / "plain.onnx")
        else:
            float32 = folder / "float32.xml"
            openvino.write_openvino(source, card, float32)
        before = Segmenter(float32, card=card, threads=threads)
        trial = _Trial(before, pictures)
        if mean_iou_drop is not None:
            trial.expect_mean_iou(mean_iou_drop)
            agreement = 0.0
        if kind == "onnx":
            made, kept = _int8_onnx(trial, folder, agreement, threads)
        else:
            made, kept = _int8_openvino(trial, float32, folder, agreement)
        after = Segmenter(made, threads=threads)
        reached = trial.agreement(after)
        image = card.preprocess(pictures.scored[0])
        gain = quantize.times_as_fast(lambda: before.engine(image), lambda: after.engine(image), clock)
        told = (
            f"agreement {reached:.4f} with float32 over {counted(len(pictures.scored), 'picture')}{kept}, {gain:.1f} "
            f"times as fast at {image.shape[2]}x{image.shape[3]}"
        )
        short = reached < agreement if mean_iou_drop is None else trial.lost(after) > mean_iou_drop
        if gain < MUST_GAIN or short or after.card.precision != "int8":
            less = "allow for more loss, or " if short or kept else ""
            wanted = f"{agreement}" if mean_iou_drop is None else f"{mean_iou_drop} of mean IoU at most"
            raise ExportError(
                f"int8 does not pay for {card.name} in {after.engine.name} here: {told}; expected were {wanted} and "
                f"{MUST_GAIN} times, so no file was written; {less}take bfloat16 where the processor has it (--engine "
                "openvino --precision bfloat16)"
            )
        scores = _scores(before, after, pictures)
        noted = after.card.replace(scores=(), notes=(*card.notes, f"int8: {told}"))
        if kind == "onnx":
            onnx.save(with_card(onnx.load(made), noted), made)
        else:
            made = openvino.with_card(made, noted, folder / "noted.xml")
        sizes = [sum(path.stat().st_size for path in files_of(one)) / 1e6 for one in (float32, made)]
        copy(made, Path(out), overwrite=overwrite)
    return "; ".join([told, *scores, f"{sizes[0]:.1f} to {sizes[1]:.1f} MB", *pictures.unread])


class _Trial:
    """What candidates are compared with: the answers of the model in float32, in the same engine."""

    def __init__(self, before: Segmenter, pictures: Pictures) -> None:
        self.before, self.pictures, self.card = before, pictures, before.card
        self._expected = [answered(before, values) for values in pictures.scored]
        self.drop: float | None = None
        self._mean_iou = float("nan")

    def expect_mean_iou(self, drop: float) -> None:
        """From now on candidates hold where they lose at most that much mean IoU. InputError where it cannot be
        scored."""
        self.drop, self._mean_iou = drop, mean_iou(self.before, self.pictures)

    def lost(self, segmenter: Segmenter) -> float:
        """Of mean IoU, against float32."""
        return self._mean_iou - mean_iou(segmenter, self.pictures)

    def holds(self, segmenter: Segmenter, asked: float) -> bool:
        """Whether a candidate keeps what is asked for."""
        return self.agreement(segmenter) >= asked if self.drop is None else self.lost(segmenter) <= self.drop

    @property
    def ranges(self) -> Iterator[NDArray[np.float32]]:
        """What the network sees of the pictures that ranges are measured on."""
        return (self.card.preprocess(values) for values in self.pictures.ranges)

    def agreement(self, segmenter: Segmenter, looked_at: int | None = None) -> float:
        """The share of equal pixels in the first of the pictures, None for all."""
        pairs = list(zip(self.pictures.scored, self._expected, strict=True))[:looked_at]
        return share_of_equals((answered(segmenter, values), expected) for values, expected in pairs)

    def agreements(self, run: Callable[[Any], Any], numbers: Iterable[int]) -> list[float]:
        """The same in each of those pictures, of a bare network."""
        found = []
        for number in numbers:
            values = self.pictures.scored[number]
            coarse = run(self.card.preprocess(values))
            pair = answered(self.before, values, coarse), self._expected[number]
            found.append(share_of_equals([pair]))
        return found


def _int8_onnx(trial: _Trial, folder: Path, asked: float, threads: int | None) -> tuple[Path, str]:
    """The model in folder/plain.onnx in int8, for ONNX Runtime; and how many of its layers stay in float32."""
    import onnx

    from pixelwise.export.quantize import Quantiser, fewest_floats

    quantise = Quantiser(folder / "plain.onnx", trial.ranges, folder)
    made = folder / "int8.onnx"

    def write(floats: Collection[str]) -> None:
        model = quantise(floats)
        precision = "int8" if is_quantised(model.SerializeToString(), made.suffix) else "float32"
        onnx.save(with_card(model, trial.card.replace(precision=precision)), made)

    def holds(floats: Collection[str]) -> bool:
        write(floats)
        return trial.holds(Segmenter(made, threads=threads), asked)

    def cost(layer: str) -> float:
        write([other for other in quantise.layers if other != layer])
        return 1 - trial.agreement(Segmenter(made, threads=threads), LOOKED_AT)

    floats = fewest_floats(quantise.layers, holds, cost)
    write(floats)
    kept = f", {len(floats)} of {len(quantise.layers)} layers in float32" if floats else ""
    return made, kept


def _int8_openvino(trial: _Trial, float32: Path, folder: Path, asked: float) -> tuple[Path, str]:
    """The same of OpenVINO's own file; NNCF does not say which layers stay in float32."""
    from pixelwise.export.quantize_openvino import write_int8

    made = folder / "int8.xml"
    numbers = range(len(trial.pictures.scored))
    write_int8(float32, list(trial.ranges), numbers, trial.agreements, asked, trial.card, made)
    return made, ""


def read_pictures(data: Path, card: Card) -> Pictures:
    """The pictures of a folder, labelled or not, as the model of that card sees them: half of them for ranges, half for
    agreement, at most `PICTURES` each, taken evenly from all of them. Of labelled ones the latter are of the split that
    is for scoring, where there is one.

    Raises InputError, in one sentence, for a folder that does not exist, holds no pictures, or of which too few can be
    read.
    """
    if not data.is_dir():
        raise InputError(
            f"--data takes a folder of pictures like those that the model is for, got {os.fspath(data)!r}, "
            f"{'which is a file' if data.exists() else 'which does not exist'}"
        )
    labelled = _labelled(data)
    if labelled is None:
        found: list[Any] = [path for path, _ in images.find([data])]
        note(f"{data} is no labelled data set, so all of its {counted(len(found), 'picture')} count")
        first, second = found[::2], found[1::2]
        samples: PairSamples | None = None
    else:
        samples = labelled.samples(None, card.border)
        kept = set(samples.names)
        second = samples.pairs
        first = [pair for pair in labelled.pairs if pair.name not in kept and pair.image is not None]
        if len(first) < FEWEST:
            first, second = second[::2], second[1::2]
    unread: list[str] = []
    seen: set[bytes] = set()
    ranges, _ = _read(first, card, unread, seen)
    scored, those = _read(second, card, unread, seen)
    if min(len(ranges), len(scored)) < FEWEST:
        why = f" ({len(unread)} left out, the first: {unread[0]})" if unread else ""
        raise InputError(
            f"{os.fspath(data)} has {counted(len(ranges) + len(scored), 'picture')} that can be used{why}; expected at "
            f"least {2 * FEWEST}, half for ranges and half for agreement"
        )
    if samples is not None:
        samples = PairSamples([second[i] for i in those], samples.classes, samples.split)
    if unread:
        unread = [f"{counted(len(unread), 'picture')} left out, the first: {unread[0]}"]
    return Pictures(ranges, scored, samples, unread)


def _labelled(data: Path) -> DataSet | None:
    """The folder as a data set, None where it is none, only pictures."""
    try:
        return open_data(data)
    except UnknownNameError:
        raise
    except InputError:
        return None


def _read(
    found: Sequence[Any], card: Card, unread: list[str], seen: set[bytes]
) -> tuple[list[NDArray[Any]], list[int]]:
    """Up to `PICTURES` of them, evenly, and their places; what cannot be read, is of one colour, or was seen already
    is noted, and another one taken."""
    preprocess = card.preprocess
    read, places = [], []
    step = max(1.0, len(found) / PICTURES)
    order = dict.fromkeys([*(int(i * step) for i in range(min(len(found), PICTURES))), *range(len(found))])
    for place in order:
        one = found[place]
        try:
            source = one if isinstance(one, Path) else one.image if one.picture is None else one.picture()
            values = sources.read(
                source,
                channels=len(preprocess.mean),
                max_pixels=images.MAX_PIXELS,
                value_range=preprocess.value_range,
            )
            preprocess(values)  # refuses what would become too large
            digest = hashlib.sha256(values.tobytes()).digest()
            if values.min() == values.max():
                raise InputError(f"{_name(one)} is of one colour")
            if digest in seen:
                raise InputError(f"{_name(one)} is a picture that was there already")
        except PixelwiseError as error:
            unread.append(str(error))
            if len(unread) > 4 * PICTURES:
                break
            continue
        seen.add(digest)
        read.append(values)
        places.append(place)
        if len(read) == PICTURES:
            break
    return read, places


def _name(one: Any) -> str:
    return str(one if isinstance(one, Path) else one.name)


def answered(segmenter: Segmenter, values: NDArray[Any], coarse: Any = None) -> NDArray[Any]:
    """What the model says of each pixel: its class, or of regions that overlap their codes. coarse: as in `answer`."""
    found = segmenter.answer(values, coarse=coarse)
    return found.labels if found.codes is None else found.codes


def share_of_equals(pairs: Any) -> float:
    """The share of the pixels of all pairs of label maps that are equal in both."""
    equal = total = 0
    for one, other in pairs:
        equal += int((one == other).sum())
        total += one.size
    return equal / total


def mean_iou(segmenter: Segmenter, pictures: Pictures) -> float:
    """Over the labelled pictures, in [0, 1]. Raises InputError where they are labelled otherwise."""
    from pixelwise.evaluation import evaluate

    assert pictures.samples is not None
    classes = pictures.samples.classes or segmenter.classes
    return float(evaluate(segmenter, pictures.samples, classes=classes).confusion.mean_iou())


def _scores(before: Segmenter, after: Segmenter, pictures: Pictures) -> list[str]:
    """The mean IoU of both over the labelled pictures; why there is none, where they are labelled otherwise."""
    if pictures.samples is None:
        return []
    try:
        values = [mean_iou(segmenter, pictures) for segmenter in (before, after)]
    except PixelwiseError as error:
        return [f"no mean IoU ({error})"]
    return [f"mean IoU {values[0]:.4f} in float32, {values[1]:.4f} now"]

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
    agreement: float = 0.99,
    to: str | None = None,
    threads: int | None = None,
    overwrite: bool = False,
    clock: Callable[[], float] = time.perf_counter,
) -> str:
    """Write a model with as many of its layers in int8 as leave it `agreement` with itself in float32, if that pays;
    returns a sentence that says what it was and what it is.

    model: whatever `Segmenter` opens and `export_model` exports. data: a folder of pictures like those that it is for;
    labelled, in one of the layouts, it also gives the mean IoU. out: a name that ends as KINDS says. said: in place of
    what the model's card says. agreement: the share of the pixels that must keep their class, in pictures that the
    ranges were not measured on. to: a key of KINDS; None for the one that `out` ends in. clock: seconds, by which the
    speeds are compared.

    Raises InputError for what cannot be opened, and a folder of which nothing can be learned; ExportError, leaving no
    file, where int8 is not `MUST_GAIN` times as fast as float32 in the same engine.
    """
    if not 0 < agreement <= 1:
        raise InputError(
            f"agreement is a share of the pixels above 0 and up to 1, such as 0.99, got {agreement}"
        )
    kind = check_ending(out, to, KINDS)
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
        if card.baked or card.precision == "int8":
            raise InputError(
                f"{os.fspath(model)} is {'baked' if card.baked else 'quantised'} already; quantise the model that it "
                "was made of"
            )
        pictures = read_pictures(Path(data), card)
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
        if gain < MUST_GAIN or reached < agreement:
            less = "ask for less agreement, or " if reached < agreement or kept else ""
            raise ExportError(
                f"int8 does not pay for {card.name} in {after.engine.name} here: {told}; expected were {agreement} and "
                f"{MUST_GAIN} times, so no file was written; {less}take bfloat16 where the processor has it (--engine "
                "openvino --precision bfloat16)"
            )
        scores = _scores(before, after, pictures.samples)
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

    def agrees(floats: Collection[str], looked_at: int | None = None) -> float:
        onnx.save(with_card(quantise(floats), trial.card.replace(precision="int8")), made)
        return trial.agreement(Segmenter(made, threads=threads), looked_at)

    def cost(layer: str) -> float:
        return 1 - agrees([other for other in quantise.layers if other != layer], LOOKED_AT)

    found = fewest_floats(quantise.layers, agrees, cost, asked)
    onnx.save(with_card(quantise(found.floats), trial.card.replace(precision="int8")), made)
    kept = f", {len(found.floats)} of {len(quantise.layers)} layers in float32" if found.floats else ""
    return made, kept


def _int8_openvino(trial: _Trial, float32: Path, folder: Path, asked: float) -> tuple[Path, str]:
    """The same of OpenVINO's own file; NNCF does not say which layers stay in float32."""
    from pixelwise.export.quantize_openvino import write_int8

    made = folder / "int8.xml"
    numbers, card = range(len(trial.pictures.scored)), trial.card.replace(precision="int8")
    write_int8(float32, list(trial.ranges), numbers, trial.agreements, asked, card, made)
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


def _scores(before: Segmenter, after: Segmenter, samples: PairSamples | None) -> list[str]:
    """The mean IoU of both over the labelled pictures; why there is none, where they are labelled otherwise."""
    from pixelwise.evaluation import evaluate

    if samples is None:
        return []
    try:
        values = [
            evaluate(segmenter, samples, classes=samples.classes or segmenter.classes).confusion.mean_iou()
            for segmenter in (before, after)
        ]
    except PixelwiseError as error:
        return [f"no mean IoU ({error})"]
    return [f"mean IoU {values[0]:.4f} in float32, {values[1]:.4f} now"]

"""The data doctor: what is wrong with a data set, in which file, at which pixel, and how to mend it.

Most failed trainings fail here: label maps that are pictures, ids that no class has, photos turned by their
EXIF tag, the same photo in train and val. Nothing is changed; every finding says what to do.
"""

from __future__ import annotations

import hashlib
import itertools
import shlex
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pixelwise.codes import has, highest
from pixelwise.datasets.fingerprint import Fingerprint, Measuring
from pixelwise.datasets.folder import init_command
from pixelwise.datasets.manifest import contradiction
from pixelwise.datasets.opening import DataSet, choose_split, divided, learned_from, read_classes
from pixelwise.datasets.sample import Pair
from pixelwise.datasets.values import LARGEST_PLAIN_ID, Census, Verdict, may_be_objects
from pixelwise.errors import ImageError, InputError
from pixelwise.images import read_values
from pixelwise.labels import LabelSet, ranges
from pixelwise.terminal import counted

LOSSY = {".jpg", ".jpeg", ".jpe", ".jfif", ".webp", ".avif", ".jp2"}
RARE = 0.001
"""Below this share of all labelled pixels a class counts as rare."""

FEW = 10
"""Pictures of a validation part; fewer are called too few."""


UNTRAINABLE = frozenset({"nothing to divide", "nothing to tell apart"})
"""Kinds of findings with which no training can begin, checked or not."""

FirstSeen = Mapping[int, tuple[str, tuple[int, int]]]
"""Where each value was seen first: (file, (row, column))."""


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong. kind: a short name, the same for every such fault. severity: an "error" makes
    training wrong, a "warning" may be meant. pixel: (row, column) where it first shows."""

    kind: str
    severity: Literal["error", "warning"]
    message: str
    fix: str
    file: str | None = None
    pixel: tuple[int, int] | None = None


@dataclass
class Report:
    """What the doctor saw. pixels: labelled pixels by id; splits: pictures by split; fingerprint: of the pictures to
    learn from. are_ids: the label maps hold ids, and not black and white, objects or what lies between."""

    findings: list[Finding] = field(default_factory=list)
    pixels: dict[int, int] = field(default_factory=dict)
    splits: dict[str, int] = field(default_factory=dict)
    fingerprint: Fingerprint = field(default_factory=Fingerprint)
    are_ids: bool = True

    @property
    def safe(self) -> bool:
        """True when nothing was found that makes training wrong."""
        return not any(finding.severity == "error" for finding in self.findings)

    def to_dict(self) -> dict[str, Any]:
        total = sum(self.pixels.values()) or 1
        return {
            "safe": self.safe,
            "splits": self.splits,
            "classes": {str(i): {"pixels": n, "share": n / total} for i, n in sorted(self.pixels.items())},
            "findings": [asdict(finding) for finding in self.findings],
            "fingerprint": self.fingerprint.to_dict(),
        }


def examine(
    data: DataSet,
    *,
    num_classes: int | None = None,
    ignore_id: int | None = 255,
    progress: Callable[[list[Pair]], Iterable[Pair]] = iter,
) -> Report:
    """Look at every picture and label map of a data set.

    num_classes: ids 0 .. num_classes - 1 are classes; None: those of the data set, or where it has none the ids below
    the first large gap. ignore_id: the id that counts for nothing, unless the classes have their own. progress: wraps
    the list of pairs, to draw a bar.
    """
    report = Report()
    pairs, map_ids, mends = data.pairs, data.map_ids, Mends(data)
    classes = data.classes if num_classes is None else None
    if classes is not None:
        ignore_id = classes.ignore_id
    report.splits = dict(Counter(pair.split for pair in pairs if pair.image is not None))
    first_seen: dict[int, tuple[str, tuple[int, int]]] = {}
    counts: Counter[int] = Counter()
    digests: dict[str, list[Pair]] = defaultdict(list)
    modes: Counter[str] = Counter()
    learned = learned_from(pairs)
    measuring = Measuring(classes, ignore_id, len(learned))
    census = Census()
    unread = 0
    names_differ = _names_differ(pairs, mends)
    report.findings += names_differ
    for pair in progress(pairs):
        if names_differ and (pair.image is None or pair.mask is None):
            unread += pair.mask is not None
            continue
        picture = _examine_picture(pair, report, mends)
        if picture is not None:
            digests[
                hashlib.sha256(picture.tobytes() + bytes(str(picture.shape), "ascii")).hexdigest()
            ].append(pair)
        labels = _examine_mask(pair, report, modes, mends)
        if labels is None:
            unread += pair.mask is not None
            continue
        labels = labels if map_ids is None else map_ids(labels)
        if picture is not None and labels.shape != picture.shape[:2]:
            report.findings.append(_sizes_differ(pair, picture.shape[:2], labels.shape, mends))
        if data.regions and classes is not None:
            found = _pixels_of_regions(labels, classes)
            counts.update(found)
            if picture is not None and id(pair) in learned:
                measuring.add(picture, as_map(labels, classes), found)
            continue
        if labels.size and 0 <= labels.min() <= labels.max() < 2**32:
            census.add(labels.astype(np.uint32))
        ids, places, occurrences = np.unique(labels, return_index=True, return_counts=True)
        if picture is not None and id(pair) in learned:
            counted = dict(zip(ids.tolist(), occurrences.tolist(), strict=True))
            measuring.add(picture, labels, counted)
        for one, place, count in zip(ids.tolist(), places.tolist(), occurrences.tolist(), strict=True):
            counts[one] += count
            row, column = divmod(place, labels.shape[1])
            first_seen.setdefault(one, (pair.place, (row, column)))
        if ignore_id is not None and ids.tolist() == [ignore_id]:
            message = f"every pixel is {ignore_id}, which is ignored"
            report.findings.append(
                _finding("nothing to learn", "warning", message, "leave the pair out", pair.mask)
            )
    if data.manifest is not None and (said := contradiction(data.manifest.labels, read_classes(data.root))):
        fix = "pixelwise.json is obeyed: correct it, or remove classes.txt"
        report.findings.append(
            Finding("two lists of classes", "error", said, fix, str(data.root / "classes.txt"))
        )
    known = set(range(num_classes)) if num_classes is not None else set(classes.ids) if classes else None
    trouble = _no_ids(census, first_seen, known, ignore_id, mends)
    unnamed = classes is None or classes.names == tuple(f"class {i}" for i in classes.ids)
    if not trouble and num_classes is None and unnamed and map_ids is None and may_be_objects(census.looks):
        most = max(one for one in counts if one != ignore_id)
        message = f"each picture's ids run from 1 to another end, up to {most}: they may number objects, not classes"
        fix = f"if they do, one class for all of them: {mends.change(f'1-{most}=1')}"
        if classes is not None and mends.own:
            fix = f"if they do, one class for all of them: {mends.merged(f'1-{most}=1')}"
        report.findings.append(Finding("perhaps object ids", "warning", message, fix))
    form = [f for f in report.findings if f.severity == "error" and f.fix == mends.in_place]
    if trouble and form and mends.own:  # one command for both
        report.findings = [finding for finding in report.findings if finding not in form]
        fix = f"{init_command(mends.root)}, which mends their form too ({form[0].message})"
        trouble = [replace(finding, fix=fix) for finding in trouble]
    if any(finding.kind == "object ids" for finding in trouble):  # which may need 16 bits elsewhere
        report.findings = [finding for finding in report.findings if finding.kind != "16-bit label map"]
    report.findings += trouble
    report.are_ids = not trouble
    _examine_ids(
        report, counts, first_seen, known, ignore_id, classes, mends, trusted=not trouble, whole=not unread
    )
    report.fingerprint = measuring.done(list(report.pixels))
    report.findings.extend(_duplicates(digests))
    report.findings.extend(_colour_coded(modes, report, mends))
    report.findings.extend(_small_validation(pairs))
    if report.safe:
        report.findings.extend(_no_training(data, report, classes, mends))
    return report


def _no_training(
    data: DataSet, report: Report, classes: LabelSet | None, mends: Mends
) -> Iterator[Finding]:  # fmt: skip
    """Data without a fault from which nothing can be learned all the same: nothing to divide, or to tell apart."""
    try:
        divided(data, None)
    except InputError as error:
        said, _, fix = str(error).rpartition("; ")
        # A published set may be there to be evaluated on only
        severity: Literal["error", "warning"] = "error" if data.layout == "folder" else "warning"
        yield Finding("nothing to divide", severity, said, fix)
    there = [i for i, pixels in report.pixels.items() if pixels]
    if len(there) > 1:
        return
    message = "no pixel of the label maps is of any class: there is nothing to learn"
    if there:
        name = "" if classes is None else f" ({classes.names[classes.ids.index(there[0])]})"
        message = f"all pixels that count are of class {there[0]}{name}: there is nothing to tell apart"
    fix = "label what is to be found with another id than the rest"
    if data.map_ids is not None:
        fix += ", or change the ids in another way (--map-ids, or map_ids in pixelwise.json)"
    yield Finding("nothing to tell apart", "error", message, fix)


def measure(data: DataSet, most: int = 64) -> Fingerprint:
    """The fingerprint alone, of at most so many of the pictures to learn from; what cannot be read is passed over."""
    learned = learned_from(data.pairs)
    pairs = [pair for pair in data.pairs if id(pair) in learned]
    pairs = pairs[:: max(1, -(-len(pairs) // most))]
    measuring = Measuring(data.classes, 255, len(pairs))
    for pair in pairs:
        with suppress(ImageError, InputError):
            labels = pair.read_ids()
            labels = labels if data.map_ids is None else data.map_ids(labels)
            if data.regions and data.classes is not None:
                labels = as_map(labels, data.classes)
            measuring.add(pair.read_unscaled(), labels)
    return measuring.done()


def as_map(codes: NDArray[Any], classes: LabelSet) -> NDArray[Any]:
    """The label map, in ids, that the order of overlapping regions makes of their codes."""
    ids: NDArray[Any] = classes.to_ids(highest(codes, len(classes) - 1))
    return ids


class Mends:
    """What to type against what was found, for this data set."""

    def __init__(self, data: DataSet) -> None:
        self.root, self.own = data.root, data.layout == "folder" and not data.regions
        """own: a folder of one's own, which `pixelwise init` and `check --fix` know."""
        self.in_place = f"`{shlex.join(['pixelwise', 'check', str(self.root), '--fix'])}`"
        if not self.own:
            self.in_place = "save it as PNG of mode L or P"

    def anew(self, words: str) -> str:
        """A new folder, made of what is there; words: by hand."""
        return f"{init_command(self.root)}; or {words}" if self.own else words

    def or_leave_out(self, words: str) -> str:
        """By hand; or a new folder without it."""
        return f"{words}, or make a folder without it: {init_command(self.root)}" if self.own else words

    def merged(self, changes: str) -> str:
        """A new folder of two classes, from one whose classes are listed."""
        out = f"{self.root}_ready"
        words = ["init", str(self.root), "--out", out, "--map-ids", changes, "--classes", "background,object"]
        return f"`{shlex.join(['pixelwise', *words])}`"

    def change(self, changes: str) -> str:
        """Other ids, for this command and those that follow."""
        command = shlex.join(["pixelwise", "check", str(self.root), "--map-ids", changes])
        return f"`{command}`, and the same option for train and evaluate"


def _names_differ(pairs: Sequence[Pair], mends: Mends) -> list[Finding]:
    """Pictures and label maps that both lack a partner are one finding: they are called otherwise."""
    pictures = [pair for pair in pairs if pair.mask is None and pair.image is not None]
    masks = [pair for pair in pairs if pair.image is None and pair.mask is not None]
    if not pictures or not masks or not mends.own or pictures[0].image is None or masks[0].mask is None:
        return []
    message = (
        f"{counted(len(pictures), 'picture')} without a label map of the same name, and "
        f"{counted(len(masks), 'label map')} without a picture: such as {pictures[0].image.name} "
        f"and {masks[0].mask.name}"
    )
    fix = (
        f"{init_command(mends.root)}, which pairs them by what their names share; or give both the same names"
    )
    return [Finding("names differ", "error", message, fix, str(masks[0].mask))]


def _no_ids(
    census: Census, first_seen: FirstSeen, known: set[int] | None, ignore_id: int | None, mends: Mends
) -> list[Finding]:  # fmt: skip
    """Label maps that hold something else than ids: black and white, with or without what is between, or objects."""
    if not census.looks:
        return []
    verdict = census.verdict()
    levels = verdict.levels
    counting = [level for level in levels if level != ignore_id]
    named = known is not None and len(counting) > 1 and set(counting) <= known
    if verdict.kind == "objects" and not named:
        message = (
            f"the label maps number objects, up to {max(counting)}, and do not say of which class they are"
        )
        one = mends.change(f"1-{max(counting)}=1")
        fix = f"one class for all of them: {one}; or once and for all: {mends.anew('give each its class')}"
        return [_at(first_seen, counting[-1], "object ids", message, fix)]
    if verdict.kind == "two values" and verdict.exact and not named:
        low, high = levels
        if high <= LARGEST_PLAIN_ID:
            return []
        changes = ",".join(f"{a}={b}" for a, b in ((low, 0), (high, 1)) if a != b)
        ignored = f", and {high} means ignore" if high == ignore_id else ""
        message = f"the label maps hold {low} and {high} only{ignored}: black and white, not the ids 0 and 1"
        fix = f"{mends.change(changes)}; or once and for all: {mends.anew(f'write 1 for {high}')}"
        kind = "0/255 label maps" if levels == (0, 255) else "black and white label maps"
        return [_at(first_seen, high, kind, message, fix)]
    if verdict.exact or verdict.kind not in ("two values", "levels") or named:
        return []
    return [_between(verdict, first_seen, mends)]


def _between(
    verdict: Verdict, first_seen: FirstSeen, mends: Mends
) -> Finding:  # fmt: skip
    """Antialiased label maps, or such as JPEG has changed."""
    levels = verdict.levels
    strange = next(value for value in sorted(first_seen) if value not in levels)
    shown = " and ".join(map(str, levels)) if len(levels) == 2 else ", ".join(map(str, levels))
    message = (
        f"the label maps hold {len(first_seen)} values, {shown} and what antialiasing or JPEG puts between them; "
        f"{verdict.in_doubt:.2%} of the pixels are nearly as far from one as from another"
    )
    middles = [(a + b) // 2 for a, b in itertools.pairwise(levels)]
    ends = [0, *(middle + 1 for middle in middles)], [*middles, max(*first_seen, levels[-1])]
    changes = ",".join(f"{a}-{b}={i}" for i, (a, b) in enumerate(zip(*ends, strict=True)))
    fix = (
        f"{init_command(mends.root)} takes the nearest; or {mends.change(changes)}"
        if mends.own
        else mends.change(changes)
    )
    return _at(first_seen, strange, "antialiased label maps", message, fix)


def _at(first_seen: FirstSeen, value: int, kind: str, message: str, fix: str) -> Finding:
    file, pixel = first_seen[value]
    return Finding(kind, "error", message, fix, file, pixel)


def _small_validation(pairs: Sequence[Pair]) -> Iterator[Finding]:
    """A score on a few pictures hangs on each of them."""
    pairs = [pair for pair in pairs if pair.image is not None and pair.mask is not None]
    try:
        count = len(choose_split(pairs, "val")[1]) if pairs else FEW
    except InputError:  # no such part, or too few to make one
        return
    if count < FEW:
        message = (
            f"{counted(count, 'picture')} to validate on: each is {1 / count:.0%} of the score, so a difference of a "
            "few percent between two models says nothing"
        )
        yield Finding(
            "small validation part", "warning", message, f"label more pictures, {FEW} or more for this part"
        )


def plainer(values: NDArray[Any]) -> NDArray[Any] | None:
    """The ids (h, w) of a label map (h, w, c) that has channels for nothing: equal ones, and alpha that is all opaque.
    None where something would be lost."""
    color, alpha = (values[..., :-1], values[..., -1]) if values.shape[2] in (2, 4) else (values, None)
    if alpha is not None and (alpha != np.iinfo(alpha.dtype).max).any():
        return None
    first: NDArray[Any] = color[..., 0]
    return first if all((color[..., i] == first).all() for i in range(1, color.shape[2])) else None


def _pixels_of_regions(codes: NDArray[Any], classes: LabelSet) -> dict[int, int]:
    """How many pixels each class has, by its id: the first those of no region."""
    found = [int((codes == 0).sum()), *(int(has(codes, i).sum()) for i in range(len(classes) - 1))]
    return dict(zip(classes.ids, found, strict=True))


def _examine_picture(pair: Pair, report: Report, mends: Mends) -> NDArray[Any] | None:
    if pair.image is None:
        message = f"{pair.name} ({pair.split}) has a label map but no picture"
        report.findings.append(
            _finding("missing picture", "error", message, mends.or_leave_out("add it"), pair.mask)
        )
        return None
    try:
        picture = pair.read_unscaled()
        if pair.picture is not None:
            return picture
        with Image.open(pair.image) as opened:
            orientation, alpha = opened.getexif().get(0x0112, 1), _uses_alpha(opened)
    except ImageError as error:
        fix = mends.or_leave_out("replace the file")
        report.findings.append(_finding("unreadable", "error", str(error), fix, pair.image))
        return None
    if alpha:
        message = "the picture is partly transparent; pixelwise lays it over white"
        report.findings.append(
            _finding("transparent picture", "warning", message, "save it as RGB", pair.image)
        )
    sizes_tell = orientation >= 5 and picture.shape[0] != picture.shape[1]  # turned by a quarter
    if orientation != 1 and not sizes_tell and pair.mask is not None:
        message = f"the EXIF tag turns or mirrors the picture (orientation {orientation}); is its label map turned too?"
        fix = "save the picture turned and without the tag, and look at the pair"
        report.findings.append(_finding("EXIF orientation", "warning", message, fix, pair.image))
    return picture


def _examine_mask(pair: Pair, report: Report, modes: Counter[str], mends: Mends) -> NDArray[Any] | None:
    """The ids (h, w), or None when there are none to be had."""

    def found(kind: str, severity: Literal["error", "warning"], message: str, fix: str) -> None:
        report.findings.append(_finding(kind, severity, message, fix, pair.mask))

    if pair.mask is None:
        message = f"{pair.name} ({pair.split}) has a picture but no label map"
        report.findings.append(
            _finding("missing label map", "error", message, mends.or_leave_out("draw it"), pair.image)
        )
        return None
    if pair.ids is not None:
        try:
            return pair.read_ids()
        except InputError as error:
            found("unreadable", "error", str(error), mends.or_leave_out("correct the file"))
            return None
    try:
        values, mode = read_values(pair.mask)
    except ImageError as error:
        fix = mends.or_leave_out("replace the file")
        found("unreadable", "error", f"the label map cannot be read ({error})", fix)
        return None
    modes["colour" if values.ndim == 3 and values.shape[2] >= 3 else "ids"] += 1
    if pair.mask.suffix.lower() in LOSSY:
        fix = mends.anew("save it again as PNG from what it was made of")
        found("lossy label map", "error", "lossy compression changes ids at borders", fix)
        return None
    if values.ndim == 3 and mode in ("LA", "RGBA", "PA"):
        fix = (
            mends.in_place
            if plainer(values) is not None
            else mends.anew("save ids only, as PNG of mode L or P")
        )
        found("label map with alpha", "error", f"mode {mode} has an alpha channel", fix)
        return plainer(values)
    if values.ndim == 3 and (plain := plainer(values)) is not None:
        found(
            "grey label map as RGB",
            "error",
            "its three channels are equal: ids saved as grey",
            mends.in_place,
        )
        return plain
    if values.ndim == 3:
        colours = np.unique(values.reshape(-1, values.shape[2]), axis=0)
        shown = ", ".join(str(tuple(int(v) for v in c)) for c in colours[:4])
        message = f"it holds colours, not ids: {len(colours)} of them, such as {shown}"
        found("RGB label map", "error", message, mends.anew("replace each colour by the id of its class"))
        return None
    if values.dtype == bool:
        values = values.astype(np.uint8)
    if not np.issubdtype(values.dtype, np.integer):
        found("label map of floats", "error", f"it holds {values.dtype} values", "save integer ids")
        return None
    if values.dtype.itemsize > 1 and values.size:
        top, step = int(values.max()), 257
        if top > 255 and not (values % step).any():
            message = f"16-bit values up to {top} are all multiples of 257: ids were stretched to 16 bits"
            found("stretched 16-bit label map", "error", message, mends.in_place)
            values = values // step
        elif top <= 255:
            message = "16-bit file for ids below 256; other tools may stretch or cut them"
            found("16-bit label map", "warning", message, mends.in_place)
    ids: NDArray[Any] = values
    return ids


def _sizes_differ(pair: Pair, picture: tuple[int, ...], labels: tuple[int, ...], mends: Mends) -> Finding:
    said = f"the picture is {picture[0]} x {picture[1]} (h x w), its label map {labels[0]} x {labels[1]}"
    if labels[::-1] == picture:
        fix = mends.anew("turn the map, or the picture where an EXIF tag turns it, and look at the pair")
        return _finding("turned label map", "error", said, fix, pair.mask)
    return _finding("sizes differ", "error", said, mends.or_leave_out("redraw the map"), pair.mask)


def _examine_ids(
    report: Report,
    counts: Counter[int],
    first_seen: FirstSeen,
    known: set[int] | None,
    ignore_id: int | None,
    classes: LabelSet | None,
    mends: Mends,
    *,
    trusted: bool,
    whole: bool,
) -> None:
    """trusted: the numbers are ids, of which those of no class are said. whole: every label map was read, so that what
    does not occur can be said too."""
    ids = sorted(i for i in counts if i != ignore_id)
    known = set(range(_classes_in(ids))) if known is None else known
    for one in (i for i in ids if trusted and i not in known):
        file, pixel = first_seen[one]
        ignored = "" if ignore_id is None else f" or {ignore_id} to ignore"
        expected = f"expected {ranges(sorted(known))}{ignored}"
        message = f"id {one} belongs to no class ({expected}); {counts[one]} pixels in all"
        fix = f"correct the map, or ignore the id: {mends.change(f'{one}={255 if ignore_id is None else ignore_id}')}"
        report.findings.append(Finding("stray id", "error", message, fix, file, pixel))
    report.pixels = {i: counts[i] for i in sorted(known)}
    total = sum(report.pixels.values())
    for i, pixels in report.pixels.items() if trusted and whole else ():
        name = f"class {i}" + (f" ({classes.names[classes.ids.index(i)]})" if classes else "")
        if pixels == 0:
            message = f"{name} never occurs"
            report.findings.append(
                Finding("empty class", "warning", message, "add pictures of it, or drop the class")
            )
        elif pixels < RARE * total:
            message = f"{name} has {pixels / total:.4%} of the pixels"
            fix = "weight it, sample its pictures more often, or merge it"
            report.findings.append(Finding("rare class", "warning", message, fix))


def _classes_in(ids: list[int]) -> int:
    """How many classes, if nobody says: ids from 0 on, up to the first gap of more than ten."""
    end = 0
    for i in ids:
        if i - end > 10:
            break
        end = i
    return end + 1


def _duplicates(digests: dict[str, list[Pair]]) -> Iterator[Finding]:
    for pairs in digests.values():
        names = {pair.name for pair in pairs}
        splits = sorted({pair.split for pair in pairs})
        others = ", ".join(str(pair.image) for pair in pairs[1:])
        if len(splits) > 1 and not {"trainval", "all"} & set(splits):
            message = f"equal pixels in {' and '.join(splits)}: also {others}"
            fix = "keep it in one split; a score on the other would be too good"
            yield _finding("duplicate across splits", "error", message, fix, pairs[0].image)
        elif len(names) > 1:
            message = f"equal pixels under {len(names)} names: also {others}"
            yield _finding("duplicate", "warning", message, "keep one of them", pairs[0].image)


def _colour_coded(modes: Counter[str], report: Report, mends: Mends) -> Iterator[Finding]:
    if modes["colour"] and modes["ids"]:
        message = f"colours are in {counted(modes['colour'], 'label map')}, and ids in {modes['ids']}"
        yield Finding("mixed label maps", "error", message, mends.anew("bring all of them to ids"))


def _uses_alpha(image: Image.Image) -> bool:
    if image.mode not in ("RGBA", "LA", "PA", "RGBa", "La"):
        return False
    low = image.getchannel("A").getextrema()[0]
    return isinstance(low, (int, float)) and low < 255


def _finding(
    kind: str, severity: Literal["error", "warning"], message: str, fix: str, file: Path | None
) -> Finding:
    return Finding(kind, severity, message, fix, None if file is None else str(file))

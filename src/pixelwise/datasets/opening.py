"""The one way from a data set on disk to samples: `open_data` opens it, once, for whoever examines and uses it;
`open_samples` gives one split of it.

What a label file's numbers mean is settled here, once: a sample's mask holds class indices.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pixelwise.codes import highest
from pixelwise.datasets.folder import region_pairs
from pixelwise.datasets.layouts import LAYOUTS, detect, find_pairs
from pixelwise.datasets.manifest import Manifest, read_manifest
from pixelwise.datasets.sample import Ids, Pair, Sample
from pixelwise.datasets.volumes import (
    ABOUT,
    looks_like_volumes,
    read_about,
    read_labels,
    read_scan,
    refuse_apart,
)
from pixelwise.errors import InputError, UnknownNameError
from pixelwise.images import ValueRange
from pixelwise.labels import LARGEST_ID, LabelSet
from pixelwise.terminal import counted

HELD_OUT = 0.2
"""The share of an undivided folder that is its split val."""

MOST_BYTES = 2**20
"""Of a classes.txt."""

LONGEST_NAME = 200
"""Letters of a class's name in a classes.txt."""

IGNORED = re.compile(r"\b(void|ignored?)\b", re.IGNORECASE)
"""What the name of what is no class says in a classes.txt: void/ignore, or unlabelled (void)."""

MapIds = Callable[[Ids], Ids]


@dataclass(frozen=True)
class DataSet:
    """A data set on disk, opened once: the pairs of all of its splits, of which nothing is read yet.

    classes: what the ids mean; None where neither a pixelwise.json, nor the layout, nor a classes.txt says. map_ids:
    changes the files' ids (h, w) before anything else sees them. manifest: what pixelwise.json says. layout: the key of
    `layouts.LAYOUTS` as which it was read.
    """

    root: Path
    pairs: list[Pair]
    classes: LabelSet | None = None
    map_ids: MapIds | None = None
    manifest: Manifest | None = None
    layout: str = "folder"

    @property
    def volumes(self) -> bool:
        """True where the pairs are scans and their label volumes."""
        return any(pair.volume for pair in self.pairs)

    @property
    def regions(self) -> bool:
        """True where the classes overlap: `Pair.read_ids` gives codes (`pixelwise.codes`), bit i of class i + 1."""
        return self.manifest is not None and self.manifest.regions

    @property
    def value_range(self) -> tuple[float, float] | None:
        """(low, high) of pictures of more than 8 bits a channel, where the data set says it."""
        return None if self.manifest is None else self.manifest.value_range

    def samples(self, split: str | None = None, border: float | None = None) -> PairSamples:
        """The samples of one split; see `open_samples`. Raises InputError for a split that it has not, and for pairs
        that lack a file."""
        split, chosen = choose_split(self.pairs, split, border)
        for pair in chosen:
            if pair.image is None or pair.mask is None:
                missing = "picture" if pair.image is None else "label map"
                raise InputError(
                    f"{pair.name} ({pair.split}) lacks its {missing}; see `pixelwise check {self.root}`"
                )
        if self.map_ids is not None:
            chosen = [with_map(pair, self.map_ids) for pair in chosen]
        return PairSamples(chosen, self.classes, split)


def open_data(
    root: Path, layout: str = "auto", *, classes: LabelSet | None = None, map_ids: MapIds | None = None
) -> DataSet:
    """The data set in the folder `root`; the arguments are those of `open_samples`.

    A folder's pixelwise.json is obeyed: its classes, and its changes of ids unless `map_ids` says others.

    Raises InputError for a missing folder (with how to get the data) and a pixelwise.json that cannot be read,
    UnknownNameError for a layout.
    """
    root = Path(root)
    manifest = read_manifest(root)
    if manifest is not None and manifest.regions and layout in ("auto", "folder"):
        if map_ids is not None:
            raise InputError(
                f"the classes of {root} overlap, so there are no ids to change; leave map_ids out"
            )
        return DataSet(root, region_pairs(root, manifest.folders), classes or manifest.labels, None, manifest)
    if layout == "auto":
        layout = detect(root) if manifest is None or looks_like_volumes(root) else "folder"
    pairs = find_pairs(root, layout)
    if manifest is None:
        said = LAYOUTS[layout].classes or (classes_of_volumes(root) if layout == "volumes" else None)
        return DataSet(root, pairs, classes or said or read_classes(root), map_ids, None, layout)
    if map_ids is None and manifest.map_ids is not None:
        map_ids = map_of(manifest, root)
    return DataSet(root, pairs, classes or manifest.labels, map_ids, manifest, layout)


def open_samples(
    root: Path,
    layout: str = "auto",
    split: str | None = None,
    *,
    classes: LabelSet | None = None,
    map_ids: MapIds | None = None,
    border: float | None = None,
) -> PairSamples:
    """The samples of one split of the data set in the folder `root`.

    layout: a key of LAYOUTS, or "auto" for what the folders look like. split: one that the data set has; None for
    val, else test, else all there is. A folder that is not divided has the split "all", and divides itself into
    "train" and "val" by a hash of the names (`split_by_name`); one that has train and no val keeps a "val" back of
    that. border: where it divides; None keeps a fifth back. To score a model on what its run held out, also after
    pictures were added, give its card's `border`. map_ids: changes the files' ids (h, w) before anything else sees
    them. classes: what the ids mean; None for what pixelwise.json says, the layout's own, or a folder's classes.txt;
    where there is none of them, masks hold the ids as they are.

    Raises InputError for a missing folder (with how to get the data), an unknown split, and pairs that lack a file.
    """
    return open_data(root, layout, classes=classes, map_ids=map_ids).samples(split, border)


class PairSamples:
    """Samples read from `pairs` when asked for; `classes` says what their ids mean, `split` what part they are.
    value_range: of pictures of more than 8 bits a channel, as in `images.read`."""

    def __init__(
        self,
        pairs: Sequence[Pair],
        classes: LabelSet | None = None,
        split: str = "all",
        value_range: ValueRange | None = None,
    ) -> None:
        self.pairs, self.classes, self.split = list(pairs), classes, split
        self.value_range = value_range

    @property
    def names(self) -> list[str]:
        return [pair.name for pair in self.pairs]

    def shorter_sides(self, most: int = 100) -> list[int]:
        """Of about so many of the pictures, in pixels."""
        sides = []
        for pair in self.pairs[:: max(1, len(self.pairs) // most)]:
            if pair.picture is not None:
                sides.append(min(pair.read_unscaled().shape[:2]))
            elif pair.image is not None:
                with Image.open(pair.image) as opened:
                    sides.append(min(opened.size))
        return sides

    def __len__(self) -> int:
        return len(self.pairs)

    def __iter__(self) -> Iterator[Sample]:
        return (self[index] for index in range(len(self)))

    def __getitem__(self, index: int) -> Sample:
        pair = self.pairs[index]
        if pair.volume:
            return volume_sample(pair, self.classes)
        image, ids = pair.read_image(self.value_range), pair.read_ids()
        if not pair.regions:
            return to_sample(image, ids, self.classes, pair.name, pair.place)
        return replace(to_sample(image, highest(ids, pair.regions), None, pair.name, pair.place), codes=ids)


def volume_sample(pair: Pair, classes: LabelSet | None) -> Sample:
    """A scan and its label volume, read. Raises InputError and ImageError, with the file, for what cannot be used, and
    where the two do not lie alike."""
    scan = read_scan(pair)
    ids, where = read_labels(pair)
    ids = ids if pair.ids is None else pair.ids()
    refuse_apart(pair, scan, ids, where)
    try:
        indices = ids if classes is None else _to_indices(ids, classes)
    except InputError as error:
        raise InputError(f"{pair.mask}: {error}; see `pixelwise check`") from None
    return Sample(scan.channels, indices, pair.name, geometry=scan.geometry)


def classes_of_volumes(root: Path) -> LabelSet | None:
    """The classes of a dataset.json, None where there is none."""
    about = read_about(root)
    return None if about is None else about.classes(root / ABOUT)


def to_sample(image: NDArray[np.uint8], ids: Ids, classes: LabelSet | None, name: str, place: str) -> Sample:
    """A picture and its file ids as a sample. place: the label map, for messages.

    Raises InputError for a label map that is not (h, w), of another size, of no integers, or with an unknown id.
    """
    if ids.shape != image.shape[:2]:
        raise InputError(
            f"{place} should be (h, w) ids of the picture's size {image.shape[:2]}, got {ids.shape}; "
            "see `pixelwise check`"
        )
    if ids.dtype == bool:
        ids = ids.astype(np.uint8)
    if not np.issubdtype(ids.dtype, np.integer) or (ids.dtype.kind == "i" and ids.min(initial=0) < 0):
        raise InputError(
            f"{place} should hold integers of zero or more, got {ids.dtype}; see `pixelwise check`"
        )
    if classes is None:
        return Sample(image, ids.astype(np.min_scalar_type(int(ids.max(initial=0))), copy=False), name)
    try:
        return Sample(image, _to_indices(ids, classes), name)
    except InputError as error:
        raise InputError(f"{place}: {error}") from None


def ignore_index(classes: LabelSet) -> int:
    """The number of unknown pixels in a sample's mask."""
    return 255 if classes.num_classes <= 255 else 65535


def _to_indices(ids: Ids, classes: LabelSet) -> NDArray[np.unsignedinteger]:
    """File ids to class indices, through a table: `LabelSet.to_indices` is exact but slow, and says what is wrong."""
    ignored = ignore_index(classes)
    dtype = np.uint8 if ignored == 255 else np.uint16
    size = max(*classes.ids, classes.ignore_id or 0) + 2
    table, known = np.zeros(size, dtype), np.zeros(size, bool)
    table[list(classes.ids)], known[list(classes.ids)] = np.arange(len(classes)), True
    if classes.ignore_id is not None:
        table[classes.ignore_id], known[classes.ignore_id] = ignored, True
    if ids.max(initial=0) >= size:
        ids = np.minimum(ids, size - 1)  # the last entry is nobody's
    if not known[ids].all():
        classes.to_indices(ids)  # raises
    return table[ids]


def choose_split(
    pairs: Sequence[Pair], split: str | None, border: float | None = None
) -> tuple[str, list[Pair]]:
    """(split, its pairs); see `open_samples`."""
    splits = list(dict.fromkeys(pair.split for pair in pairs))
    if split is None:
        split = next((s for s in ("val", "test") if s in splits), splits[0])
    if split in splits:
        return split, [pair for pair in pairs if pair.split == split]
    divisible = ["train", "val"] if splits == ["all"] else ["val"] if "train" in splits else []
    if split not in divisible:
        raise UnknownNameError("split", split, splits + divisible)
    whole = [pair for pair in pairs if pair.split in ("all", "train")]
    wanted = set(split_by_name((pair.name for pair in whole), border)[split == "val"])
    return split, [pair for pair in whole if pair.name in wanted]


def divided(
    data: DataSet, border: float | None, fold: tuple[int, int] | None = None
) -> tuple[PairSamples, PairSamples, float | None]:
    """(training, held out, border) of a data set: the splits train and val; what has no val keeps some of train back by
    names, those below the border. None: a fifth of them. The border that comes back is None where the data are divided
    already. fold: (i, k), what is held out is the i-th of k parts (`split_in_folds`), and there is no border. Raises
    InputError where there is nothing to learn from or nothing to hold out."""
    parts = list(dict.fromkeys(pair.split for pair in data.pairs))
    if "train" not in parts and parts != ["all"]:
        raise InputError(
            f"{data.root} has no part to learn from: expected a folder train/, got {', '.join(parts)}; name one of "
            "them train, and what should be kept back val"
        )
    if fold is not None:
        return *_in_fold(data, fold), None
    training = data.samples("train")
    if "val" in parts:
        return training, data.samples("val"), None
    if border is None:
        border = border_of(pair.name for pair in data.pairs if pair.split in ("train", "all"))
    held_out = data.samples("val", border)
    kept = set(held_out.names)
    learned = [p for p in data.samples("train", border).pairs if p.name not in kept]
    return PairSamples(learned, training.classes, training.split), held_out, border


def learned_from(pairs: Sequence[Pair], border: float | None = None) -> set[int]:
    """The identities (`id`) of the pairs that are there to learn from: those of the split train less what is held back
    of it; all where there is none, or nothing to divide."""
    try:
        training = choose_split(pairs, "train", border)[1]
        if not any(pair.split == "val" for pair in pairs):
            kept = {pair.name for pair in choose_split(pairs, "val", border)[1]}
            training = [pair for pair in training if pair.name not in kept]
    except (UnknownNameError, InputError):
        training = list(pairs)
    return {id(pair) for pair in training}


def split_by_name(names: Iterable[str], border: float | None = None) -> tuple[list[str], list[str]]:
    """(training, held out): a name is held out when its SHA-256, as a number in [0, 1), is below the border.

    None puts the border where it holds out a fifth of these names, to the nearest whole number (`border_of`). With the
    same border a name is in the same part whatever other names there are, so a run that writes its border down can be
    scored on what it never saw after files were added, moved or listed differently; without one, of five added names
    one more is held out, which may be one that was trained on before. Only where one part would be empty, the name
    nearest to the border goes there.
    """
    positions = {name: _position(name) for name in names}
    border = border_of(positions) if border is None else border
    if len(positions) < 2:
        raise _too_few(positions)
    lowest, highest = (f(positions, key=lambda n: positions[n]) for f in (min, max))
    held = {name for name in positions if (positions[name] < border or name == lowest) and name != highest}
    return [n for n in positions if n not in held], [n for n in positions if n in held]


def split_in_folds(names: Iterable[str], folds: int) -> list[list[str]]:
    """The names in so many parts, which differ by at most one in their number: in the order of their SHA-256, the first
    to the first, the second to the second, and round again. Raises InputError for fewer names than parts."""
    ordered = sorted(set(names), key=lambda name: (_position(name), name))
    if folds < 2 or len(ordered) < folds:
        raise InputError(f"expected from 2 folds to as many as there are names, {len(ordered)}, got {folds}")
    return [ordered[i::folds] for i in range(folds)]


def _in_fold(data: DataSet, fold: tuple[int, int]) -> tuple[PairSamples, PairSamples]:
    """(training, held out) of a fold."""
    number, folds = fold
    if not 0 <= number < folds:
        raise InputError(f"of {folds} folds the first is 0 and the last {folds - 1}, got {number}")
    every = data.samples("train" if any(pair.split == "train" for pair in data.pairs) else "all")
    kept = set(split_in_folds(every.names, folds)[number])
    learned, held = ([pair for pair in every.pairs if (pair.name in kept) is back] for back in (False, True))
    return PairSamples(learned, every.classes, "train"), PairSamples(held, every.classes, "val")


def border_of(names: Iterable[str], share: float = HELD_OUT) -> float:
    """The border below which that share of the names lies, to the nearest whole number of them, but at least one and
    not all: midway between two of their hashes."""
    positions = sorted(_position(name) for name in set(names))
    if len(positions) < 2:
        raise _too_few(positions)
    count = min(max(round(share * len(positions)), 1), len(positions) - 1)
    return (positions[count - 1] + positions[count]) / 2


def _too_few(names: Collection[object]) -> InputError:
    return InputError(
        f"{counted(len(names), 'picture')} cannot be divided into those to learn from and those held out: expected two "
        "or more; add pictures"
    )


def _position(name: str) -> float:
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big") / 2**64


def read_classes(root: Path) -> LabelSet | None:
    """The classes of a folder's classes.txt, see `read_class_list`; None where there is none."""
    path = root / "classes.txt"
    return read_class_list(path) if path.is_file() else None


def read_class_list(path: Path) -> LabelSet:
    """The classes of a file, lines of an id and a name (or a name alone: numbered from 0).

    Raises InputError, with the file, for what is no such list.
    """
    try:
        return _classes_of(path.read_bytes())
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror or error})") from error
    except UnicodeDecodeError as error:
        raise InputError(
            f"{path} is no list of classes: it is no UTF-8 at byte {error.start}; save it as UTF-8"
        ) from error
    except InputError as error:
        raise InputError(f"{path}: {error}") from None


def _classes_of(data: bytes) -> LabelSet:
    if len(data) > MOST_BYTES:
        raise InputError(f"a list of classes has at most {MOST_BYTES:,} bytes, got {len(data):,}")
    rows = [line.strip() for line in data.decode("utf-8-sig").splitlines() if line.strip()]
    named: dict[int, str] = {}
    for i, row in enumerate(rows):
        match = re.fullmatch(r"([0-9]+)[\s,:]+(.+)", row)
        digits, name = (str(i), row) if match is None else match.groups()
        if len(digits) > 9:
            raise InputError(f"an id has at most nine digits, got {digits[:20]}...")
        if not name.isprintable() or len(name) > LONGEST_NAME:
            raise InputError(
                f"a name is at most {LONGEST_NAME} letters without control characters, got {name[:40]!r}"
            )
        if int(digits) in named:
            raise InputError(f"id {digits} is there twice, for {named[int(digits)]!r} and {name!r}")
        named[int(digits)] = name
    ignored = next((i for i, name in named.items() if IGNORED.search(name)), None)
    named.pop(-1 if ignored is None else ignored, None)
    return LabelSet.of(list(named.values()), ids=list(named), ignore_id=255 if ignored is None else ignored)


def parse_map(text: str) -> MapIds:
    """The function that `--map-ids` names: "1-65535=1,7=255" changes those ids and leaves the others."""
    ranges = []
    for part in text.split(","):
        match = re.fullmatch(r"\s*([0-9]{1,20})(?:-([0-9]{1,20}))?=([0-9]{1,20})\s*", part)
        if match is None:
            raise InputError(
                f"ids are changed by parts such as 7=255 or 1-65535=1, separated by commas; got {part!r:.60}"
            )
        low, high, to = (int(digits) for digits in (match[1], match[2] or match[1], match[3]))
        if max(low, high, to) > LARGEST_ID:
            raise InputError(f"ids are at most {LARGEST_ID}, got {part!r}")
        ranges.append((low, high, to))
    return partial(_map_ranges, ranges)


def map_of(manifest: Manifest, root: Path) -> MapIds | None:
    """The change of ids that the pixelwise.json of a folder asks for. Raises InputError, with the file."""
    try:
        return None if manifest.map_ids is None else parse_map(manifest.map_ids)
    except InputError as error:
        raise InputError(f"{root / 'pixelwise.json'}, map_ids: {error}") from error


def _map_ranges(ranges: list[tuple[int, int, int]], ids: Ids) -> Ids:
    out = ids.astype(np.promote_types(ids.dtype, np.min_scalar_type(max(to for _, _, to in ranges))))
    for low, high, to in ranges:
        out[(ids >= low) & (ids <= high)] = to
    return out


def with_map(pair: Pair, map_ids: MapIds) -> Pair:
    """The pair with its ids changed by `map_ids` when they are read."""
    return replace(pair, ids=partial(_mapped, pair, map_ids))


def _mapped(pair: Pair, map_ids: MapIds) -> Ids:
    return map_ids(read_labels(pair)[0] if pair.volume else pair.read_ids())

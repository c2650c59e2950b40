"""What lies in the folders that people name: pictures, and one or several kinds of what labels them.

Files of one folder and one sort of name are a group. Its names say what it is, or where they do not, its contents:
label maps have areas of equal values, photographs have none.
"""

from __future__ import annotations

import glob
import os
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePath
from typing import Literal

from pixelwise.datasets.adopt.names import MASK_WORDS, PICTURE_WORDS, SPLITS, pair, part_of, rest_of, split
from pixelwise.datasets.adopt.outlines import find_outlines
from pixelwise.datasets.adopt.reading import look_at
from pixelwise.datasets.adopt.shapes import Outlines
from pixelwise.datasets.values import Census
from pixelwise.errors import ImageError, InputError
from pixelwise.images import SUFFIXES
from pixelwise.terminal import counted

PICTURES = SUFFIXES | {".npy", ".tga", ".heic", ".heif"}
"""Suffixes of what may be a picture or a label map."""

TEXTS = {".json", ".txt", ".yaml", ".yml", ".names"}
"""Suffixes of what may say what the pictures show."""

SAMPLE = 5
"""Files of a group that are looked at."""

LEFT_OUT = {"segmentationobject", "instances"}
"""Folders of numbered objects beside label maps of classes."""

_STEM_WORDS = frozenset(
    "mask masks label labels gt seg segmentation annotation annot anno groundtruth manual".split()
)
"""Words of `MASK_WORDS` that say it in the name of a file too."""

Role = Literal["picture", "mask"]


@dataclass(frozen=True)
class Series:
    """Label maps of one kind. word: what tells it from others, such as the name of a class. masks: of each picture."""

    word: str
    masks: dict[PurePath, PurePath]

    @property
    def example(self) -> str:
        return str(next(iter(self.masks.values())))


@dataclass
class Found:
    """All that was found, by paths relative to `root`.

    series: kinds of label maps; outlines: kinds of files of outlines. splits: the part of each picture. notes: what was
    left out, in sentences. lists: files of classes, by name.
    """

    root: Path
    files: dict[PurePath, Path]
    pictures: list[PurePath]
    series: list[Series]
    outlines: list[Outlines]
    splits: dict[PurePath, str]
    notes: list[str] = field(default_factory=list)

    def classes_file(self) -> Path | None:
        """A list of classes that lies in the sources: labelmap.txt, classes.txt and their like."""
        known = {"labelmap.txt", "classes.txt", "class_dict.csv", "label_colors.txt", "labels.txt"}
        return next((path for name, path in self.files.items() if name.name.lower() in known), None)


def find(sources: Sequence[str | os.PathLike[str]], *, but: Path | None = None) -> Found:
    """What lies in `sources`: folders, files or patterns. but: a folder to leave out, that of the results.

    Raises InputError for a source that is not there, and where there are no pictures or nothing that labels them.
    """
    skipped: list[Path] = []
    root, files = _files(sources, but, skipped)
    images = {name: path for name, path in files.items() if name.suffix.lower() in PICTURES}
    if not images:
        raise InputError(
            f"there are no pictures in {_listed(sources)}; looked for {', '.join(sorted(SUFFIXES))}"
        )
    roles, notes = _roles(images)
    if skipped:
        notes.append(
            f"a data set that lies in the source, made by init: {_some([_under(p, root) for p in skipped])}"
        )
    pictures = [name for name, role in roles.items() if role == "picture"]
    masks = [name for name, role in roles.items() if role == "mask"]
    if not pictures and masks and (guessed := _by_order(sources, images)):
        pictures, masks = guessed
    outlines = find_outlines(files, pictures or [*images])
    if outlines and not pictures:
        pictures, masks = [*images], []
    if not pictures or not (masks or outlines):
        raise InputError(
            f"{_listed(sources)} holds {counted(len(pictures), 'picture')} and {counted(len(masks), 'label map')} "
            "that can be told apart by their names, folders and contents; name two folders, first that of the "
            "pictures: `pixelwise init PICTURES LABELS --out DATA`"
        )
    found = Found(root, files, pictures, [], outlines, {}, notes)
    _add_series(found, masks)
    found.splits = _splits(found)
    return found


def _listed(sources: Sequence[str | os.PathLike[str]]) -> str:
    return ", ".join(os.fspath(source) for source in sources[:3])


def _under(path: Path, root: Path) -> Path:
    return path.relative_to(root) if path.is_relative_to(root) else path


def _files(
    sources: Sequence[str | os.PathLike[str]], but: Path | None, skipped: list[Path]
) -> tuple[Path, dict[PurePath, Path]]:
    """(the folder that holds all sources, every file that may matter by its path relative to it). skipped: is given the
    data sets of ours below a source, which are not its own."""
    paths: list[Path] = []
    tops: list[Path] = []
    for source in sources:
        path = Path(source)
        if path.is_dir():
            tops.append(path.absolute())
            paths += _inside(path.absolute(), but, skipped)
        elif path.exists():
            tops.append(path.absolute().parent)
            paths.append(path.absolute())
        else:
            matches = (
                sorted(glob.glob(os.fspath(source), recursive=True))
                if glob.has_magic(os.fspath(source))
                else []
            )
            if not matches:
                raise InputError(f"there is no {os.fspath(source)}; expected a folder, a file or a pattern")
            for match in map(Path, matches):
                tops.append(match.absolute() if match.is_dir() else match.absolute().parent)
                paths += _inside(match.absolute(), but, skipped) if match.is_dir() else [match.absolute()]
    root = Path(os.path.commonpath(tops))
    return root, {PurePath(path.relative_to(root)): path for path in dict.fromkeys(paths)}


def _inside(folder: Path, but: Path | None, skipped: list[Path]) -> Iterator[Path]:
    """Files below a folder, in order, but hidden ones, links to folders, the folder `but` and data sets of ours."""
    for here, folders, names in os.walk(folder):
        folders[:] = sorted(f for f in folders if not f.startswith(".") and Path(here, f) != but)
        folders[:] = [f for f in folders if f.lower() not in LEFT_OUT]
        ours = [f for f in folders if Path(here, f, "pixelwise.json").is_file()]
        skipped += [Path(here, f) for f in ours]
        folders[:] = [f for f in folders if f not in ours]
        for name in sorted(names):
            path = Path(here, name)
            if (
                not name.startswith(".")
                and path.suffix.lower() in PICTURES | TEXTS | {".csv"}
                and path.is_file()
            ):
                yield path


def _roles(images: dict[PurePath, Path]) -> tuple[dict[PurePath, Role], list[str]]:
    """(what each file is, what was left out)."""
    groups: dict[tuple[PurePath, str, str], list[PurePath]] = defaultdict(list)
    for folder, names in _by_folder(images).items():
        rests = _rests(names)
        for name in names:
            groups[folder, rests[name], name.suffix.lower()].append(name)
    roles: dict[PurePath, Role] = {}
    notes = []
    for (folder, rest, suffix), names in groups.items():
        said = _said(folder, rest)
        looks = None if said == "picture" else _looks_like([images[n] for n in names])
        if said == "mask" and looks == "picture" and suffix != ".npy":
            notes.append(
                f"{counted(len(names), 'file')} such as {names[0]}: pictures by their looks, not label maps"
            )
            continue
        for name in names:
            roles[name] = said or looks or "picture"
    return roles, notes


def _by_folder(names: Iterable[PurePath]) -> dict[PurePath, list[PurePath]]:
    folders: dict[PurePath, list[PurePath]] = defaultdict(list)
    for name in names:
        folders[name.parent].append(name)
    return folders


def _rests(names: Sequence[PurePath]) -> dict[PurePath, str]:
    """What the name of a file adds to that of another in its folder (`_mask` of x_mask.png beside x.png), or the words
    that call it a label map; "" where there is neither. What all of a folder have tells nothing."""
    stems = {name.stem for name in names}
    rests = {}
    for name in names:
        words = re.split(r"[\W_]+", name.stem)
        rest = ""
        for cut in range(1, len(name.stem)):
            before, after = name.stem[:cut], name.stem[cut:]
            if before in stems and not after[0].isalnum() and re.search(r"[^\W\d_]", after):
                rest = after
            elif after in stems and not before[-1].isalnum() and re.search(r"[^\W\d_]", before):
                rest = before
        rests[name] = rest or "_".join(w.lower() for w in words if w.lower() in _STEM_WORDS)
    often = Counter(rests.values())
    if len(often) == 1:
        return dict.fromkeys(names, "")
    return rests


def _said(folder: PurePath, rest: str) -> Role | None:
    """What the name of a file, or else those of its folders, say that it is."""
    if set(split(rest)) & _STEM_WORDS:
        return "mask"
    if rest:
        return None
    for part in reversed(folder.parts):
        words = set(split(part))
        if words & MASK_WORDS:
            return "mask"
        if words & PICTURE_WORDS:
            return "picture"
    return None


def _looks_like(paths: Sequence[Path]) -> Role | None:
    """What the contents of some of the files say; None where none can be read."""
    census = Census()
    for path in paths[:: max(1, len(paths) // SAMPLE)][:SAMPLE]:
        try:
            look_at(path, 0).add_to(census)
        except (ImageError, InputError):
            continue
    if not census.looks:
        return None
    return "picture" if census.verdict().kind == "photographs" else "mask"


def _by_order(
    sources: Sequence[str | os.PathLike[str]], images: dict[PurePath, Path]
) -> tuple[list[PurePath], list[PurePath]] | None:
    """(pictures, label maps), where two folders were named and nothing else tells: the pictures come first."""
    if len(sources) < 2 or not all(Path(source).is_dir() for source in sources):
        return None
    first = Path(sources[0]).absolute()
    ours = [name for name, path in images.items() if path.is_relative_to(first)]
    theirs = [name for name in images if name not in set(ours)]
    return (ours, theirs) if ours and theirs else None


def _add_series(found: Found, masks: Sequence[PurePath]) -> None:
    """Pair the label maps with pictures, kind by kind, and note what has no partner."""
    if not masks:
        return
    pairing = pair(found.pictures, masks, part_of)
    kinds: dict[tuple[str, ...], dict[PurePath, PurePath]] = defaultdict(dict)
    for mask, picture in pairing.pictures.items():
        kinds[rest_of(mask, picture)][picture] = mask
    if len(kinds) > 1 and all(len(each) == 1 for each in kinds.values()):
        by_picture = Counter(picture for each in kinds.values() for picture in each)
        if max(by_picture.values()) == 1:  # one each, whose names differ without a rule
            kinds = {(): {picture: mask for each in kinds.values() for picture, mask in each.items()}}
    common = set.intersection(*(set(kind) for kind in kinds)) if len(kinds) > 1 else set()
    for kind, pairs in kinds.items():
        word = " ".join(w for w in kind if w not in common and w not in MASK_WORDS) or " ".join(kind)
        found.series.append(Series(word, dict(sorted(pairs.items()))))
    for mask, equal in pairing.unclear.items():
        found.notes.append(
            f"{mask} could belong to {' or '.join(str(p) for p in equal[:3])}, and was left out"
        )
    for picture, rivals in pairing.rivals.items():
        found.notes.append(
            f"{picture} could have {' or '.join(str(m) for m in rivals[:3])}, and was left out"
        )
    if pairing.alone:
        found.notes.append(
            f"{counted(len(pairing.alone), 'label map')} without a picture of a name like it: {_some(pairing.alone)}"
        )


def _some(things: Sequence[object]) -> str:
    return ", ".join(str(thing) for thing in things[:3]) + (", ..." if len(things) > 3 else "")


def _splits(found: Found) -> dict[PurePath, str]:
    """The part of each picture: what lists say, or files of outlines, or folders; "all" where there is only one."""
    splits = _of_lists(found)
    if not splits:
        splits = {picture: part_of(picture) for picture in found.pictures}
        for outlines in found.outlines:
            splits |= outlines.splits
    return splits if len(set(splits.values())) > 1 else dict.fromkeys(splits, "all")


def _of_lists(found: Found) -> dict[PurePath, str]:
    """The part of each picture by lists such as train.txt and val.txt; {} where there are none, or they are of other
    pictures. A list of both (trainval.txt) counts where there is none of one of them."""
    lists: dict[str, set[str]] = {}
    for name, path in found.files.items():
        part = "trainval" if name.stem.lower() == "trainval" else SPLITS.get(name.stem.lower(), "")
        if name.suffix.lower() == ".txt" and part:
            stems = _stems(path)
            if stems:
                lists.setdefault(part, set()).update(stems)
    both = lists.pop("trainval", None)
    if both is not None and not {"train", "val"} <= lists.keys():
        lists["train"] = both - set().union(*lists.values())
    if len(lists) < 2:
        return {}
    splits = {}
    for picture in found.pictures:
        parts = [part for part, stems in lists.items() if picture.stem in stems]
        if len(parts) == 1:
            splits[picture] = parts[0]
    return splits


def _stems(path: Path) -> set[str]:
    """The stems of what a list names first in each line; an empty set for what is no list."""
    try:
        if path.stat().st_size > 2**24:
            return set()
        rows = path.read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        return set()
    return {PurePath(row.split()[0].replace("\\", "/")).stem for row in rows if row.strip()}

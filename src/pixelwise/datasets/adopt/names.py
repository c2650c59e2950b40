"""Pairing by names: which label map belongs to which picture, or that nobody can tell.

A name is a row of words and numbers, of the folders as well as of the file. What all names of one side share says
nothing; of the rest, what rarely occurs says most. A label map belongs to the picture that it is most like, if there is
one such picture, if no number in the names speaks against it, and if of its kind no other is as much like that picture.
"""

from __future__ import annotations

import math
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import PurePath

MASK_WORDS = frozenset(
    "mask masks label labels lbl labelmap labelmaps gt gts groundtruth ground truth seg segs segm segmentation "
    "segmentations segmentationclass annotation annotations annot annots anno ann target targets manual trainannot "
    "valannot testannot labelids".split()
)
"""Words by which people say that a file is a label map."""

PICTURE_WORDS = frozenset(
    "image images img imgs photo photos picture pictures pic pics jpegimages rgb input inputs raw original originals "
    "orig src scan scans frame frames volume volumes".split()
)
"""Words by which they say that it is a picture."""

ROLES = MASK_WORDS | PICTURE_WORDS

SPLITS = {
    "train": "train", "training": "train", "val": "val", "valid": "val", "validation": "val",
    "test": "test", "testing": "test",
}  # fmt: skip
"""Folders that are parts of a data set, and what the parts are called here."""

ENOUGH = 0.6
"""Of what two names say, so much must be the same."""

Word = str


@dataclass
class Pairing:
    """pictures: of each label map that found its picture. unclear: a label map, and the pictures that are equally like
    it. alone: label maps that no picture is like. rivals: label maps of one kind that are equally like one picture."""

    pictures: dict[PurePath, PurePath] = field(default_factory=dict)
    unclear: dict[PurePath, list[PurePath]] = field(default_factory=dict)
    alone: list[PurePath] = field(default_factory=list)
    rivals: dict[PurePath, list[PurePath]] = field(default_factory=dict)


def pair(
    pictures: Iterable[PurePath],
    masks: Iterable[PurePath],
    part_of: Callable[[PurePath], str] = lambda path: "all",
) -> Pairing:
    """Find each label map's picture. Paths are relative; part_of: of the data set, which two of a pair must share."""
    found = Pairing()
    pictures, masks = list(pictures), list(masks)
    ours = _Side(pictures)
    sides = {folder: _Side(paths) for folder, paths in _by_folder(masks).items()}
    if len(pictures) == len(masks) == 1:
        if set(words_of(pictures[0])) & set(words_of(masks[0])):
            found.pictures[masks[0]] = pictures[0]
        else:
            found.alone = masks
        return found
    inside = Counter(folder for path in pictures for folder in path.parents)
    only = {folder: path for path in pictures for folder in path.parents if inside[folder] == 1}
    parts = {path: part_of(path) for path in [*pictures, *masks]}
    by_key: dict[tuple[Word, ...], list[PurePath]] = defaultdict(list)
    holding: dict[Word, list[PurePath]] = defaultdict(list)
    for path, words in ours.words.items():
        by_key[words].append(path)
        for word in set(words):
            holding[word].append(path)
    like: dict[PurePath, tuple[PurePath, float]] = {}
    for mask in masks:
        theirs = sides[mask.parent]
        words = theirs.words[mask]
        if (picture := _in_a_folder_of_its_own(mask, only, inside)) is not None:
            like[mask] = picture, 1.0
            continue
        equal = [p for p in by_key[words] if parts[p] == parts[mask]] if words in by_key else []
        scores = dict.fromkeys(equal, 1.0) if len(equal) == 1 else _scores(mask, ours, theirs, holding, parts)
        best = max(scores.values(), default=0.0)
        nearest = [p for p, score in scores.items() if score > best - 1e-9]
        called_so = [p for p in nearest if p.stem == mask.stem]
        nearest = called_so if len(called_so) == 1 else nearest
        if best < ENOUGH:
            found.alone.append(mask)
        elif len(nearest) > 1:
            found.unclear[mask] = sorted(nearest)
        else:
            like[mask] = nearest[0], best
    _keep_the_best(like, found)
    return found


def _in_a_folder_of_its_own(
    mask: PurePath, only: Mapping[PurePath, PurePath], inside: Mapping[PurePath, int]
) -> PurePath | None:
    """The one picture below the nearest folder above the mask that has any, where each picture has such a folder."""
    for folder in mask.parents:
        if folder in only and not set(split(folder.name)) & (ROLES | SPLITS.keys()) and folder.name:
            return only[folder]
        if inside.get(folder, 0):
            return None
    return None


def _by_folder(paths: Iterable[PurePath]) -> dict[PurePath, list[PurePath]]:
    """What all names of a folder share says next to nothing, so each folder of label maps is a side of its own."""
    folders: dict[PurePath, list[PurePath]] = defaultdict(list)
    for path in paths:
        folders[path.parent].append(path)
    return folders


def words_of(path: PurePath) -> tuple[Word, ...]:
    """The words and numbers of a path but those that say what kind of file it is; numbers without zeros in front."""
    folders = [word for part in path.parts[:-1] for word in split(part) if word not in SPLITS]
    said = [*folders, *split(path.stem)]
    return tuple(word for word in said if word not in ROLES) or tuple(split(path.stem))


def split(text: str) -> list[Word]:
    """Runs of digits, as numbers, and runs of letters, in small ones."""
    return [
        run.lstrip("0") or "0" if run.isdigit() else run.lower() for run in re.findall(r"\d+|[^\W\d_]+", text)
    ]


def rest_of(mask: PurePath, picture: PurePath) -> tuple[str, ...]:
    """What a label map's path says that its picture's does not, in alphabetical order: the same for all of one kind."""
    ours = Counter(word for part in [*picture.parts[:-1], picture.stem] for word in split(part))
    rest = []
    for part in [*mask.parts[:-1], mask.stem]:
        for word in split(part):
            if ours[word]:
                ours[word] -= 1
            elif word.removesuffix("annot") not in SPLITS:
                rest.append(word)
    return tuple(sorted(rest))


def part_of(path: PurePath) -> str:
    """The part of the data set that the folders of a path name, or of a file of outlines its own name; "all"."""
    parts = [*path.parts[:-1], *([path.stem] if path.suffix.lower() == ".json" else [])]
    words = [word.removesuffix("annot") for part in parts for word in split(part)]
    return next((SPLITS[word] for word in words if word in SPLITS), "all")


class _Side:
    """All paths of one side: the words of each, and what words weigh: the more paths have one, the less."""

    def __init__(self, paths: Iterable[PurePath]) -> None:
        self.words = {path: words_of(path) for path in paths}
        having = Counter(word for row in self.words.values() for word in set(row))
        self.weights = {
            word: math.log((len(self.words) + 1) / count) + 0.01 for word, count in having.items()
        }  # fmt: skip

    def weight(self, words: Iterable[Word]) -> float:
        return sum(self.weights[word] for word in words)


def _scores(
    mask: PurePath, ours: _Side, theirs: _Side, holding: Mapping[Word, list[PurePath]], parts: Mapping[PurePath, str]
) -> dict[PurePath, float]:  # fmt: skip
    """How like the mask each picture is, from 0 to 1; those that share none of its words are left out."""
    words = theirs.words[mask]
    scores = {}
    for picture in {p for word in words for p in holding.get(word, ())}:
        row = ours.words[picture]
        if parts[picture] != parts[mask] or not _numbers_agree(row, words):
            continue
        shared = _in_both(row, words, lambda word: ours.weights[word] + theirs.weights[word])
        scores[picture] = shared / (ours.weight(row) + theirs.weight(words))
    return scores


def _numbers_agree(one: Sequence[Word], other: Sequence[Word]) -> bool:
    """The numbers of one, in their order, are among those of the other."""
    few, many = sorted(([w for w in row if w.isdigit()] for row in (one, other)), key=len)
    rest = iter(many)
    return all(number in rest for number in few)


def _in_both(one: Sequence[Word], other: Sequence[Word], weigh: Callable[[Word], float]) -> float:
    """What the words weigh that both have in their order, at most."""
    best = [[0.0] * (len(other) + 1) for _ in range(len(one) + 1)]
    for i, a in enumerate(one):
        for j, b in enumerate(other):
            taken = best[i][j] + weigh(a) if a == b else 0.0
            best[i + 1][j + 1] = max(best[i][j + 1], best[i + 1][j], taken)
    return best[-1][-1]


def _keep_the_best(like: Mapping[PurePath, tuple[PurePath, float]], found: Pairing) -> None:
    """Of the label maps of one kind that are like one picture, the one that is most like it; of equals none."""
    rivals: dict[tuple[PurePath, tuple[str, ...], PurePath], list[tuple[float, PurePath]]] = defaultdict(list)
    for mask, (picture, score) in like.items():
        rivals[picture, rest_of(mask, picture), mask.parent].append((score, mask))
    for (picture, _, _), ranked in rivals.items():
        best = max(score for score, _ in ranked)
        first = [mask for score, mask in ranked if score > best - 1e-9]
        if len(first) > 1:
            found.rivals.setdefault(picture, []).extend(sorted(first))
        else:
            found.pictures[first[0]] = picture
        found.alone += [mask for score, mask in ranked if mask not in first]

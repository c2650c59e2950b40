"""From what label maps hold to ids of classes: which values are which class, and what somebody should know of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pixelwise.datasets.adopt.pages import read_page
from pixelwise.datasets.adopt.palettes import IGNORED, Painted
from pixelwise.datasets.label_codes import Codes, codes_of, color_of, in_colors, nearest
from pixelwise.datasets.numbered import may_be_objects
from pixelwise.datasets.opening import MapIds
from pixelwise.datasets.values import Census, Verdict
from pixelwise.errors import InputError
from pixelwise.labels import Color, LabelSet, ranges, spread_colors
from pixelwise.terminal import counted

LOSSY = frozenset(".jpg .jpeg .jpe .jfif .webp .avif .jp2".split())
"""Suffixes of kinds that may keep no exact values."""

IGNORE = 255

BACKGROUND = "background"

OBJECT = "object"
"""The class of two-valued label maps, of which nobody said what it is."""


@dataclass(frozen=True)
class Looked:
    """One label map as it is: codes (h, w), whether they are colours, and the colours of its palette's indices."""

    codes: Codes
    colored: bool
    lossy: bool
    colors: dict[int, int] | None

    def add_to(self, census: Census) -> None:
        census.add(self.codes, colored=self.colored, lossy=self.lossy, colors=self.colors)


@dataclass(frozen=True)
class Wishes:
    """What somebody said. names: of the classes, in order. listed: their ids and names, from a list. palette: their
    colours. keep_ids: numbers are classes, even where they look like those of objects. map_ids: change them first.
    ignore_id: of the source. doubt: the share of pixels in doubt that is allowed."""

    names: tuple[str, ...] = ()
    listed: LabelSet | None = None
    palette: tuple[Painted, ...] = ()
    keep_ids: bool = False
    map_ids: MapIds | None = None
    ignore_id: int | None = IGNORE
    doubt: float = 0.1


@dataclass(frozen=True)
class Reading:
    """labels: the classes that are written. to_ids: from a label map as it is to ids (h, w) of them. said: what was
    done, in sentences."""

    labels: LabelSet
    to_ids: Callable[[Looked], NDArray[Any]]
    said: tuple[str, ...]


def look_at(path: Path, page: int, map_ids: MapIds | None = None) -> Looked:
    """Read one label map. Raises ImageError and InputError, with the file, for what is none."""
    values, colors = read_page(path, page)
    try:
        codes, colored = codes_of(values)
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
    if not colored and codes.size and int(codes.max()) > 255 and not (codes % 257).any():
        codes = codes // np.uint32(257)  # ids of 8 bits, stretched to 16
    if map_ids is not None:
        codes, colors = map_ids(codes).astype(np.uint32), None
    return Looked(codes, colored, path.suffix.lower() in LOSSY, colors)


def settle(census: Census, wishes: Wishes) -> Reading:
    """What becomes of label maps like those of the census. Raises InputError, with advice, where nobody can tell."""
    levels = [_code(one.color) for one in wishes.palette] or None
    verdict = census.verdict(levels=levels)
    if verdict.kind == "photographs":
        raise InputError(
            "what should be label maps has no areas of equal values, so these are photographs or probabilities; "
            "name the folder of label maps: `pixelwise init PICTURES LABELS --out DATA`"
        )
    if verdict.kind == "too near":
        raise InputError(
            f"the label maps are JPEG or the like and hold values up to {verdict.levels[-1]}: such files blur what "
            "lies so near together, and what was 1 may be 0 or 2 now; write them as PNG from their source"
        )
    if verdict.kind == "one value":
        raise InputError(
            f"every pixel of every label map is {_shown(verdict, verdict.levels[0])}: there is nothing to learn"
        )
    if (verdict.kind == "objects" and wishes.keep_ids) or _are_listed(verdict, wishes):
        verdict = Verdict("ids", verdict.levels, by_index=verdict.by_index)
    if verdict.in_doubt > wishes.doubt:
        raise InputError(
            f"{verdict.in_doubt:.1%} of the pixels of the label maps are nearly as far from one class as from another, "
            f"and up to {wishes.doubt:.1%} are taken for the nearest; look at the label maps, or allow it with --doubt "
            f"{np.ceil(verdict.in_doubt * 100) / 100:.2f}"
        )
    if wishes.palette:
        return _painted(verdict, wishes)
    if verdict.kind == "ids":
        return _as_they_are(verdict, census, wishes)
    if verdict.kind in ("objects", "coloured objects"):
        return _objects(verdict, census, wishes)
    return _levels(verdict, census, wishes)


def _are_listed(verdict: Verdict, wishes: Wishes) -> bool:
    """Whether a list names every number that occurs, and two or more do."""
    if wishes.listed is None or verdict.colored or not verdict.exact:
        return False
    counting = set(verdict.levels) - {wishes.listed.ignore_id, wishes.ignore_id}
    return len(counting) > 1 and counting <= {*wishes.listed.ids}


def _as_they_are(verdict: Verdict, census: Census, wishes: Wishes) -> Reading:
    """Numbers that are ids already."""
    ignored = wishes.ignore_id
    found = [level for level in verdict.levels if level != ignored]
    if wishes.listed is not None:
        labels = wishes.listed
        known = {*labels.ids, labels.ignore_id, ignored}
        if stray := [level for level in found if level not in known]:
            raise InputError(
                f"the label maps hold {ranges(stray)}, which is none of the {len(labels)} classes that are listed "
                f"({ranges(sorted(labels.ids))}); correct the list, or change ids with --map-ids"
            )
    elif wishes.names:
        ids = range(len(wishes.names)) if set(found) <= set(range(len(wishes.names))) else found
        labels = _named(wishes.names, list(ids), found)
    else:
        names = [BACKGROUND, OBJECT] if found == [0, 1] else [f"class {i}" for i in found]
        labels = LabelSet.of(names, ids=found, ignore_id=None if ignored in found else ignored)
    labels = _with_palette(labels, census)
    dtype = np.min_scalar_type(max(*verdict.levels, *labels.ids, labels.ignore_id or 0))
    there = f"ids {ranges(found)}" + (f", and {ignored} to ignore" if ignored in verdict.levels else "")
    said = f"the label maps hold {there}, which are kept"
    if set(found) <= {0, 1} and ignored == IGNORE and wishes.map_ids is None:
        _refuse_two_forms(census)
    if wishes.listed is None and not wishes.names and not wishes.keep_ids and may_be_objects(census.looks):
        said += f"; if they number objects, one class of them all is made by --map-ids 1-{max(found)}=1"
    if not verdict.by_index:
        raise InputError(
            "the label maps' palettes differ, and their colours are no ids; give them with --palette FILE"
        )
    return Reading(labels, lambda looked: looked.codes.astype(dtype), (said,))


def _refuse_two_forms(census: Census) -> None:
    """Raise InputError where some files mark the object with 1 and others with 255, as two tools do."""
    ones = sum(1 in look.codes for look in census.looks)
    highs = sum(IGNORE in look.codes for look in census.looks)
    both = sum(1 in look.codes and IGNORE in look.codes for look in census.looks)
    if ones and highs and not both:
        raise InputError(
            f"{counted(ones, 'label map')} with 0 and 1, and {highs} with 255 but never 1: if 255 is the object there, "
            "say --map-ids 255=1, and if it is to be ignored, say --map-ids 255=255"
        )


def _with_palette(labels: LabelSet, census: Census) -> LabelSet:
    """The classes in the colours that the label maps' palettes give them, where these are different ones."""
    colors: dict[int, int] = {}
    for look in census.looks:
        colors |= look.colors or {}
    wanted = [colors.get(id) for id in labels.ids]
    if (
        None in wanted
        or len(set(wanted)) < len(wanted)
        or all(len(set(color_of(c or 0))) == 1 for c in wanted)
    ):
        return labels
    return LabelSet(labels.names, tuple(color_of(c or 0) for c in wanted), labels.ids, labels.ignore_id)


def _levels(verdict: Verdict, census: Census, wishes: Wishes) -> Reading:
    """Black and white, other grey levels, or colours: numbered in their order."""
    levels = _in_order(verdict, census)
    usual = (
        [BACKGROUND, OBJECT] if len(levels) == 2 else [f"value {_shown(verdict, level)}" for level in levels]
    )
    labels = _named(
        wishes.names or _names_of(wishes.listed, len(levels)) or tuple(usual),
        list(range(len(levels))),
        levels,
    )
    if verdict.colored and len(levels) > 2:
        labels = LabelSet(
            labels.names, tuple(color_of(level) for level in levels), labels.ids, labels.ignore_id
        )
    became = ", ".join(
        f"{_shown(verdict, level)} became {i} ({labels.names[i]})" for i, level in enumerate(levels[:40])
    )
    said = [f"of the label maps {became}"]
    if labels.names == tuple(usual) and len(levels) > 2:
        said.append(
            "the classes are called by their values: name them with --classes, or by colour with --palette FILE"
        )
    if not verdict.exact:
        said.append(_doubt_said(verdict))
    return Reading(labels, _nearest_of(levels, verdict, range(len(levels))), tuple(said))


def _painted(verdict: Verdict, wishes: Wishes) -> Reading:
    """Colours that somebody named."""
    palette = wishes.palette
    ids = [place if one.id is None else one.id for place, one in enumerate(palette)]
    void = [id for id, one in zip(ids, palette, strict=True) if one.name.lower() in IGNORED]
    kept = [(id, one) for id, one in zip(ids, palette, strict=True) if id not in void]
    if len(kept) < 2:
        raise InputError(
            f"the palette names {len(kept)} class besides what is ignored; at least two are needed"
        )
    if all(one.id is None for one in palette):
        kept = [(place, one) for place, (_, one) in enumerate(kept)]
    ignored = IGNORE if IGNORE not in [id for id, _ in kept] else 65535
    labels = LabelSet(
        tuple(one.name for _, one in kept), tuple(one.color for _, one in kept), tuple(id for id, _ in kept), ignored
    )  # fmt: skip
    of_color = {one.color: id for id, one in kept}
    numbers = [of_color.get(one.color, ignored) for one in palette]
    said = [f"the {len(palette)} colours of the palette became the ids {ranges(sorted(of_color.values()))}"]
    if void:
        said[0] += f", and {', '.join(one.name for one in palette if one.name.lower() in IGNORED)} is ignored"
    if not verdict.exact:
        said.append(_doubt_said(verdict))
    return Reading(labels, _nearest_of(list(verdict.levels), verdict, numbers), tuple(said))


def _objects(verdict: Verdict, census: Census, wishes: Wishes) -> Reading:
    """Numbered or coloured objects, all of one class."""
    most = max(len(look.codes) for look in census.looks) - 1
    names = wishes.names or _names_of(wishes.listed, 2) or (BACKGROUND, OBJECT)
    labels = _named(names, [0, 1], [0, 1])
    how = "number" if verdict.kind == "objects" else "colour"
    advice = "; --keep-ids takes the numbers for classes" if verdict.kind == "objects" else ""
    said = (
        f"the label maps {how} objects, up to {most} in a picture: all became 1 ({labels.names[1]}), and those that "
        f"touch are one area from now on{advice}"
    )
    ground = 0 if not verdict.colored else _in_order(verdict, census)[0]

    def to_ids(looked: Looked) -> NDArray[Any]:
        codes = _codes(looked, verdict)
        if verdict.exact:
            inside: NDArray[Any] = codes != ground
        else:
            inside = nearest(codes, verdict.levels, colored=True) != verdict.levels.index(ground)
        return inside.astype(np.uint8)

    return Reading(labels, to_ids, (said,))


def _nearest_of(
    levels: Sequence[int], verdict: Verdict, ids: Sequence[int]
) -> Callable[[Looked], NDArray[Any]]:
    numbers = np.array(ids, np.min_scalar_type(max(ids)))

    def to_ids(looked: Looked) -> NDArray[Any]:
        found: NDArray[Any] = numbers[nearest(_codes(looked, verdict), levels, colored=verdict.colored)]
        return found

    return to_ids


def _codes(looked: Looked, verdict: Verdict) -> Codes:
    """A file's codes in the form that the verdict speaks of."""
    if looked.colors is not None and not (verdict.by_index and not verdict.colored):
        table = np.zeros(max(looked.colors) + 1, np.uint32)
        table[list(looked.colors)] = list(looked.colors.values())
        codes: Codes = table[looked.codes]
        return codes if verdict.colored else codes & np.uint32(255)
    if verdict.colored and not looked.colored:
        return in_colors(looked.codes)
    return looked.codes


def _in_order(verdict: Verdict, census: Census) -> list[int]:
    """Grey levels from dark to light; of colours black first, or else what covers most, then by their numbers."""
    levels = sorted(verdict.levels)
    if not verdict.colored or 0 in levels:
        return levels
    covered = dict.fromkeys(levels, 0)
    for look in census.looks:
        for code, count in zip(look.codes.tolist(), look.counts.tolist(), strict=True):
            if code in covered:
                covered[code] += count
    first = max(levels, key=lambda level: covered[level])
    return [first, *(level for level in levels if level != first)]


def _named(names: Sequence[str], ids: Sequence[int], found: Sequence[int]) -> LabelSet:
    if len(names) != len(ids):
        raise InputError(
            f"{len(names)} classes are named ({', '.join(names)[:60]}), and the label maps hold {len(found)} values; "
            "name as many, the background included, or none"
        )
    return LabelSet.of(list(names), ids=ids, colors=spread_colors(len(names)))


def _names_of(listed: LabelSet | None, count: int) -> tuple[str, ...]:
    """The names of a list of just so many classes."""
    return listed.names if listed is not None and len(listed) == count else ()


def _doubt_said(verdict: Verdict) -> str:
    return (
        f"pixels between these values, as antialiasing and JPEG make them, became the nearest; {verdict.in_doubt:.2%} "
        "of all pixels are nearly as far from another"
    )


def _shown(verdict: Verdict, level: int) -> str:
    return " ".join(map(str, color_of(level))) if verdict.colored else str(level)


def _code(color: Color) -> int:
    return color[0] << 16 | color[1] << 8 | color[2]

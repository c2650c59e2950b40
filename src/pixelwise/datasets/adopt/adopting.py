"""What `pixelwise init` does: it surveys what is there, says what it would make of it, and writes that.

Everything is read once before anything is written, so that what is wrong is said while it costs nothing. Sources are
never changed. The new folder grows under a hidden name beside its place, and is renamed when it is whole.
"""

from __future__ import annotations

import glob
import os
import shlex
import shutil
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path, PurePath
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pixelwise.codes import MOST as MOST_REGIONS
from pixelwise.codes import has
from pixelwise.datasets.adopt.names import PICTURE_WORDS, SPLITS, split
from pixelwise.datasets.adopt.outlines import Outlines, Shape, draw, ignored_of
from pixelwise.datasets.adopt.pages import count_pages, orientation, read_page, unturned
from pixelwise.datasets.adopt.palettes import Painted, has_colors, read_palette
from pixelwise.datasets.adopt.reading import BACKGROUND, IGNORE, OBJECT, Reading, Wishes, look_at, settle
from pixelwise.datasets.adopt.sources import Found, Series, find
from pixelwise.datasets.manifest import Manifest, read_manifest
from pixelwise.datasets.opening import map_of, read_class_list
from pixelwise.datasets.values import Census, color_of
from pixelwise.errors import ImageError, InputError, OutputError
from pixelwise.files import check_writable, held, make_folder, plain_name, refuse_link, sync, sync_folder
from pixelwise.images import SUFFIXES, read, read_unscaled
from pixelwise.labels import VOC, LabelSet, voc_colors
from pixelwise.limits import check_disk
from pixelwise.terminal import counted

OVERLAP = 0.001
"""Share of the labelled pixels that files of one class each may both claim and still exclude each other."""

FEW = 0.1
"""A kind of label maps that fewer of the pictures have is none: its files are single objects."""

WHOLE = -1
"""The page of a file that has no others."""

Progress = Callable[[list["Item"]], Iterable["Item"]]


@dataclass
class Item:
    """One picture and what labels it. page: of a TIFF of several, else WHOLE. masks: its label maps, by kind; shapes:
    its outlines. name: what both are called in the end. turn: the EXIF tag, where the label map is not turned by it
    (False), is turned as the picture is (True), or nobody can tell (None).
    may_be_turned: it has such a tag, and the sizes do not tell."""

    image: Path
    relative: PurePath
    split: str
    page: int = WHOLE
    masks: tuple[Path | None, ...] = ()
    shapes: tuple[Shape, ...] | None = None
    declared_hw: tuple[int, int] | None = None
    size_hw: tuple[int, int] = (0, 0)
    name: str = ""
    turn: bool | None = None
    may_be_turned: bool = False


@dataclass
class Adoption:
    """What would be written. said: what is done to the label maps and pictures; left_out: what is not written, in
    sentences. ids: makes an item's label map (h, w), or where classes overlap its codes."""

    root: Path
    items: list[Item]
    labels: LabelSet
    ids: Callable[[Item], NDArray[Any]]
    truths: str
    regions: bool = False
    said: list[str] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)

    @property
    def splits(self) -> dict[str, int]:
        """Pictures by part."""
        return dict(Counter(item.split for item in self.items))

    def pairs(self) -> list[tuple[str, str]]:
        """(picture, what labels it), as people would say it."""
        rows = []
        for item in self.items:
            page = "" if item.page == WHOLE else f", page {item.page + 1}"
            masks = [str(_relative(mask, self.root)) for mask in item.masks if mask is not None]
            rows.append((f"{item.relative}{page}", ", ".join(masks) + page if masks else self.truths))
        return rows

    def manifest(self) -> Manifest:
        return Manifest.of(self.labels, done=(*self.said, *self.left_out), regions=self.regions)

    def write(self, out: Path, *, progress: Progress = iter) -> None:
        """Make the folder `out` with images/, masks/, classes.txt and pixelwise.json; with train/, val/ and test/ that
        have the first two where there are parts. Raises OutputError where something is there, or no room."""
        refuse_existing(out)
        check_disk(out, sum(item.image.stat().st_size for item in self.items if item.page <= 0) + 2**20)
        unfinished = out.absolute().with_name(f".{out.absolute().name}.unfinished")
        refuse_link(unfinished)
        with held(unfinished.with_suffix(".lock"), str(out)):
            try:
                _empty(unfinished)  # a run that was killed has left it
                make_folder(unfinished)
                for item in progress(self.items):
                    self._write_item(item, unfinished if item.split == "all" else unfinished / item.split)
                listed = "".join(
                    f"{i} {n}\n" for i, n in zip(self.labels.ids, self.labels.names, strict=True)
                )
                _write(unfinished / "classes.txt", listed.encode())
                _write(unfinished / "pixelwise.json", self.manifest().to_json().encode())
                for here, _, _ in os.walk(unfinished):
                    sync_folder(Path(here))
                refuse_existing(out)
                os.rename(unfinished, out)
                sync_folder(out.absolute().parent)
            except OSError as error:
                raise OutputError(
                    f"cannot write {out}: {error.strerror or error}; choose another --out"
                ) from error
            finally:
                with suppress(OSError):
                    _empty(unfinished)

    def _write_item(self, item: Item, folder: Path) -> None:
        ids = self.ids(item)
        if ids.shape != item.size_hw:
            raise InputError(
                f"the label map of {item.relative} became {ids.shape}, the picture is {item.size_hw}"
            )
        make_folder(folder / "images")
        _write_picture(item, folder / "images")
        if not self.regions:
            make_folder(folder / "masks")
            _save(_with_palette(ids, self.labels), folder / "masks" / f"{item.name}.png")
            return
        for bit, place in enumerate(self.manifest().folders):
            make_folder(folder / "masks" / place)
            inside = has(ids, bit).astype(np.uint8) * np.uint8(255)
            _save(Image.fromarray(inside), folder / "masks" / place / f"{item.name}.png")


def refuse_existing(out: Path) -> None:
    """Raise OutputError where there is something already, or where nothing may be written."""
    if os.path.lexists(out):
        raise OutputError(f"{out} exists already, and nothing is written over it; choose another --out")
    check_writable(out, overwrite=False)


def survey(
    sources: Sequence[str | os.PathLike[str]],
    out: Path,
    wishes: Wishes | None = None,
    *,
    regions: bool = False,
    progress: Progress = iter,
) -> Adoption:
    """Read what is in `sources` and say what `out` would become. regions: the files of one class each may overlap.

    Raises InputError where there is nothing to pair, where several things label the pictures, and where nobody can tell
    what their values mean; each with what to say. A file that cannot be read is left out, and said.
    """
    wishes = wishes or Wishes()
    found = find(sources, but=Path(out).absolute())
    if (manifest := read_manifest(found.root)) is not None:  # a data set of ours, to be made anew
        regions = regions or manifest.regions
        if not (wishes.names or wishes.listed or wishes.palette):
            wishes = replace(wishes, listed=manifest.labels)
        if wishes.map_ids is None and manifest.map_ids is not None:
            wishes = replace(wishes, map_ids=map_of(manifest, found.root))
    series = _chosen(found, sources, out)
    outlines = found.outlines[0] if found.outlines else None
    adoption = Adoption(found.root, [], LabelSet.of([BACKGROUND, OBJECT]), lambda item: np.zeros(0), "")
    adoption.left_out += found.notes
    items = _items(found, series, outlines, adoption.left_out)
    if not items:
        raise InputError(_no_pairs(found, adoption.left_out))
    censuses = [Census() for _ in series]
    adoption.items = _kept(items, adoption.left_out, partial(_size_of_labels, wishes, censuses), progress)
    if not adoption.items:
        raise InputError(_no_pairs(found, adoption.left_out))
    if outlines is not None:
        adoption.truths = outlines.label
        adoption.left_out += outlines.notes
        _settle_outlines(adoption, outlines, wishes, regions)
    elif _are_single_objects(series, len(found.pictures)):
        _settle_objects(adoption, wishes)
    elif len(series) > 1 or regions:
        _settle_classes(adoption, series, censuses, wishes, regions, _choices(found, sources, out))
    else:
        reading = settle(censuses[0], _with_lists(wishes, censuses[0], found))
        adoption.labels, adoption.said = reading.labels, [*reading.said]
        adoption.ids = partial(_read_one, reading, wishes)
    _name(adoption)
    adoption.manifest()  # refuses names that cannot be written
    return adoption


def _with_lists(wishes: Wishes, census: Census, found: Found) -> Wishes:
    """The wishes with what lists in the sources say, where nobody said otherwise; colours where the label maps have
    some."""
    colored = census.verdict().colored or any(look.colors for look in census.looks)
    listed = found.classes_file()
    if wishes.palette and not colored and any(len(set(one.color)) > 1 for one in wishes.palette):
        return replace(wishes, palette=(), listed=_as_labels(wishes.palette))
    if wishes.names or wishes.listed or wishes.palette:
        return wishes
    if listed is None:
        return replace(wishes, listed=VOC) if _is_voc(census, found) else wishes
    if not has_colors(listed):
        return replace(wishes, listed=read_class_list(listed))
    palette = tuple(read_palette(listed))
    return replace(wishes, palette=palette) if colored else replace(wishes, listed=_as_labels(palette))


def _as_labels(palette: Sequence[Painted]) -> LabelSet:
    ids = [place if one.id is None else one.id for place, one in enumerate(palette)]
    return LabelSet.of([one.name for one in palette], colors=[one.color for one in palette], ids=ids)


def _is_voc(census: Census, found: Found) -> bool:
    """Whether the label maps lie where VOC's do and are painted in its colours, each as the index of its class."""
    colors = dict(enumerate(voc_colors(21))) | {IGNORE: (224, 224, 192)}
    painted = all(
        look.colors is not None and all(colors.get(i) == color_of(color) for i, color in look.colors.items())
        for look in census.looks
    )
    return painted and any(
        "SegmentationClass" in name.parts for one in found.series for name in one.masks.values()
    )


def _chosen(found: Found, sources: Sequence[str | os.PathLike[str]], out: Path) -> list[Series]:
    """The kinds of label maps to take; InputError where outlines label the pictures too."""
    if len(found.outlines) + bool(found.series) > 1:
        raise InputError(_choices(found, sources, out))
    return found.series


def _choices(found: Found, sources: Sequence[str | os.PathLike[str]], out: Path) -> str:
    """The sentence that asks which of several things is meant, with a command for the first."""
    kinds = [one.example for one in found.series] + [one.label for one in found.outlines]
    said = f"several things label the pictures: {'; '.join(kinds[:4])}{'; ...' if len(kinds) > 4 else ''}"
    pictures = _named_as_source(found, found.pictures)
    meant = _named_as_source(found, [*found.series[0].masks.values()]) if found.series else None
    if pictures is None or meant is None:
        return f"{said}; name the pictures and the one that you mean: `pixelwise init PICTURES LABELS --out {out}`"
    command = shlex.join(["pixelwise", "init", pictures, meant, "--out", os.fspath(out)])
    return f"{said}; name the pictures and the one that you mean, for the first: `{command}`"


def _named_as_source(found: Found, names: Sequence[PurePath]) -> str | None:
    """A folder or a pattern that means just these files."""
    wanted = {found.root / name for name in names}
    folder = Path(os.path.commonpath([path.parent for path in wanted]))
    inside = {
        path for path in found.files.values() if path.is_relative_to(folder) and path.suffix.lower() != ".txt"
    }
    here = os.path.relpath(folder)
    shown = here if not here.startswith("..") else os.fspath(folder)
    if inside == wanted:
        return shown
    called = [path.name for path in wanted]
    begins, ends = _common(called), _common([name[::-1] for name in called])[::-1]
    for pattern in (f"*{ends}", f"**/*{ends}", f"{begins}*{ends}", f"*{Path(ends).suffix}"):
        whole = os.path.join(glob.escape(shown), pattern)
        if {Path(match).absolute() for match in glob.glob(whole, recursive=True)} == wanted:
            return whole
    return None


def _common(names: Sequence[str]) -> str:
    """The letters with which all names begin."""
    first, last = min(names), max(names)
    same = next(
        (i for i, (a, b) in enumerate(zip(first, last, strict=False)) if a != b), min(len(first), len(last))
    )
    return first[:same]


def _items(
    found: Found, series: Sequence[Series], outlines: Outlines | None, left_out: list[str]
) -> list[Item]:  # fmt: skip
    """An item for each picture that something labels, or for each of its pages."""
    items = []
    unlabelled = []
    unlisted = 0
    for picture in found.pictures:
        masks = [found.files.get(one.masks[picture]) if picture in one.masks else None for one in series]
        shapes = None if outlines is None else outlines.shapes.get(picture)
        if shapes is None and not any(masks):
            unlabelled.append(picture)
            continue
        if picture not in found.splits:
            unlisted += 1
            continue
        size = None if outlines is None else outlines.sizes.get(picture)
        item = Item(
            found.files[picture], picture, found.splits[picture], masks=tuple(masks),
            shapes=None if shapes is None else tuple(shapes), declared_hw=size,
        )  # fmt: skip
        items += _by_page(item, left_out)
    if unlabelled:
        examples = ", ".join(map(str, unlabelled[:3])) + (", ..." if len(unlabelled) > 3 else "")
        left_out.append(f"{counted(len(unlabelled), 'picture')} without labels: {examples}")
    if unlisted:
        left_out.append(f"{counted(unlisted, 'labelled picture')} in no list of a part, or in several")
    return items


def _by_page(item: Item, left_out: list[str]) -> list[Item]:
    """The item, or one for each page where picture and label map are TIFFs of as many pages."""
    try:
        pages = count_pages(item.image)
        others = {count_pages(mask) for mask in item.masks if mask is not None} or {1}
    except ImageError as error:
        left_out.append(f"{item.relative} was left out: {error}")
        return []
    if others == {1} and pages == 1:
        return [item]
    if others != {pages}:
        left_out.append(
            f"{item.relative} was left out: it has {pages} pages, and its label map "
            f"{', '.join(map(str, sorted(others)))}"
        )
        return []
    return [
        Item(item.image, item.relative, item.split, page, item.masks, declared_hw=item.declared_hw)
        for page in range(pages)
    ]  # fmt: skip


Sizes = Callable[[Item], "tuple[int, int] | None"]


def _kept(items: list[Item], left_out: list[str], labels_hw: Sizes, progress: Progress) -> list[Item]:
    """The items whose picture and labels can be read and are of one size; of the others a sentence each."""
    kept = []
    for item in progress(items):
        try:
            picture = read_page(item.image, item.page)[0] if item.page != WHOLE else read_unscaled(item.image)
            item.size_hw = picture.shape[0], picture.shape[1]
            size = labels_hw(item)
        except (ImageError, InputError) as error:
            left_out.append(f"{item.relative} was left out: {error}")
            continue
        if size is not None and not _fit(item, size):
            left_out.append(
                f"{item.relative} was left out: it is {item.size_hw[0]} x {item.size_hw[1]} (h x w), and its labels "
                f"{size[0]} x {size[1]}"
            )
            continue
        try:
            if item.shapes is not None:  # what is wrong with them is said now
                draw(
                    item.shapes,
                    item.size_hw,
                    max(shape.kind for shape in item.shapes or (_NOTHING,)) + 1,
                    codes=False,
                )
        except InputError as error:
            left_out.append(f"{item.relative} was left out: {error}")
            continue
        kept.append(item)
    return kept


_NOTHING = Shape(0)


def _fit(item: Item, labels_hw: tuple[int, int]) -> bool:
    """Whether picture and labels are of one size, also if one was turned by a tag that the other does not know."""
    tag = orientation(item.image) if item.page == WHOLE else 1
    turned = tag >= 5  # by a quarter: height and width change places
    if labels_hw == item.size_hw:
        item.turn = True if turned and labels_hw[0] != labels_hw[1] else None
        item.may_be_turned = tag != 1 and item.turn is None and item.shapes is None
        return True
    if turned and labels_hw == item.size_hw[::-1]:
        item.turn, item.size_hw = False, labels_hw
        return True
    return False


def _size_of_labels(wishes: Wishes, censuses: Sequence[Census], item: Item) -> tuple[int, int] | None:
    """The size of an item's labels, None where outlines do not say it. Label maps are seen by their kind's census."""
    if item.shapes is not None:
        return item.declared_hw
    looked = [
        None if mask is None else look_at(mask, max(item.page, 0), wishes.map_ids) for mask in item.masks
    ]
    sizes = {one.codes.shape for one in looked if one is not None}
    if len(sizes) > 1:
        raise InputError(f"its label maps are of different sizes, {', '.join(map(str, sorted(sizes)))}")
    for one, census in zip(looked, censuses, strict=True):
        if one is not None:
            one.add_to(census)
    h, w = sizes.pop()
    return h, w


def _read_one(reading: Reading, wishes: Wishes, item: Item) -> NDArray[Any]:
    (mask,) = item.masks
    assert mask is not None
    return reading.to_ids(look_at(mask, max(item.page, 0), wishes.map_ids))


def _settle_outlines(adoption: Adoption, outlines: Outlines, wishes: Wishes, regions: bool) -> None:
    names = outlines.names
    given = wishes.names or (() if wishes.listed is None else wishes.listed.names)
    if given:
        if len(given) not in (len(names), len(names) + 1):
            raise InputError(
                f"{len(given)} classes are named, and the outlines have {len(names)} ({', '.join(names)[:60]}); "
                "name as many, and the background before them, or none"
            )
        names = [*given][-len(names) :]
    outside = given[0] if len(given) > len(names) else BACKGROUND
    if outside in names:
        outside = f"no {names[0]}" if len(names) == 1 else "nothing"
    if regions and len(names) > MOST_REGIONS:
        raise InputError(f"up to {MOST_REGIONS} classes may overlap, and the outlines have {len(names)}")
    ignored = ignored_of(len(names))
    adoption.labels, adoption.regions = LabelSet.of([outside, *names], ignore_id=ignored), regions
    count = len(names)
    adoption.ids = lambda item: draw(item.shapes or (), item.size_hw, count, codes=regions)[0]
    drawn = [draw(item.shapes or (), item.size_hw, count, codes=False) for item in adoption.items]
    labelled = sum(int(((ids != 0) & (ids != ignored)).sum()) for ids, _ in drawn)
    contested = sum(pixels for _, pixels in drawn)
    shapes = sum(len(item.shapes or ()) for item in adoption.items)
    adoption.said.append(f"drew {counted(shapes, 'outline')}; what none covers became 0 ({outside})")
    if contested and not regions:
        adoption.said.append(
            f"{contested:,} of the outlined pixels ({contested / max(labelled, 1):.2%}) are in outlines of several "
            "classes: the smaller outline lies above (--regions keeps them all)"
        )
    adoption.said += outlines.said
    if not labelled:
        raise InputError("the outlines cover no pixel of the pictures; look at their coordinates")


def _are_single_objects(series: Sequence[Series], pictures: int) -> bool:
    """Whether a picture has several files whose names have no rule: each is an object."""
    if len(series) < 3:
        return False
    sizes = sorted(len(one.masks) for one in series)
    return sizes[len(sizes) // 2] <= max(1, FEW * pictures)


def _settle_objects(adoption: Adoption, wishes: Wishes) -> None:
    names = wishes.names or (BACKGROUND, OBJECT)
    if len(names) != 2:
        raise InputError(f"files of single objects become two classes, got the names {', '.join(names)[:80]}")
    adoption.labels = LabelSet.of(list(names))
    files = sum(mask is not None for item in adoption.items for mask in item.masks)
    adoption.said.append(
        f"{counted(files, 'file')} of one object each became 1 ({names[1]}); objects that touch are one area"
    )

    def ids(item: Item) -> NDArray[Any]:
        out = np.zeros(item.size_hw, np.uint8)
        for mask in item.masks:
            if mask is not None:
                codes = look_at(mask, 0).codes
                out[codes > codes.max() // 2] = 1
        return out

    adoption.ids = ids


def _settle_classes(
    adoption: Adoption,
    series: Sequence[Series],
    censuses: Sequence[Census],
    wishes: Wishes,
    regions: bool,
    choices: str,
) -> None:
    """Files of one class each: exclusive if they hardly overlap, regions if that was said."""
    words = [one.word for one in series]
    if wishes.names and len(wishes.names) not in (len(words), len(words) + 1):
        raise InputError(
            f"{len(wishes.names)} classes are named, and there are files of {len(words)}: {', '.join(words)[:80]}"
        )
    names = [*wishes.names][-len(words) :] if wishes.names else words if len(words) > 1 else [OBJECT]
    outside = wishes.names[0] if len(wishes.names) > len(names) else BACKGROUND
    try:
        readings = [
            settle(census, Wishes(doubt=wishes.doubt)) if census.looks else None for census in censuses
        ]
    except InputError as error:
        raise InputError(choices) from error
    if any(reading is not None and len(reading.labels) > 2 for reading in readings):
        raise InputError(choices)

    def inside(item: Item, place: int) -> NDArray[np.bool_]:
        mask, reading = item.masks[place], readings[place]
        if mask is None or reading is None:
            return np.zeros(item.size_hw, bool)
        there: NDArray[np.bool_] = reading.to_ids(look_at(mask, max(item.page, 0))) == 1
        return there

    def ids(item: Item) -> NDArray[Any]:
        out = np.zeros(item.size_hw, np.uint64 if regions else np.uint16)
        for place in range(len(names)):
            mask = inside(item, place)
            out = np.where(mask, out | np.uint64(1 << place) if regions else place + 1, out).astype(out.dtype)
        return out

    both = labelled = 0
    for item in adoption.items:
        times = np.zeros(item.size_hw, np.uint16)
        for place in range(len(names)):
            times += inside(item, place)
        both, labelled = both + int((times > 1).sum()), labelled + int((times > 0).sum())
    if both > OVERLAP * labelled and not regions:
        raise InputError(
            f"{choices}; if they are classes that overlap ({both / max(labelled, 1):.1%} of the labelled pixels are in "
            "several), say --regions"
        )
    adoption.labels, adoption.regions, adoption.ids = LabelSet.of([outside, *names]), regions, ids
    missing = sum(mask is None for item in adoption.items for mask in item.masks)
    listed = ", ".join(f"{name} (such as {one.example})" for name, one in zip(names, series, strict=True))
    adoption.said.append(f"each class has files of its own: {listed}; what none covers is {outside}")
    if missing:
        adoption.said.append(f"{counted(missing, 'file')} of a class not there: the picture has none of it")
    if both and not regions:
        adoption.said.append(
            f"{both / labelled:.3%} of the labelled pixels are in files of several classes: the last counts"
        )


def _no_pairs(found: Found, left_out: Sequence[str]) -> str:
    said = f"; {left_out[0]}" if left_out else ""
    return (
        f"of {counted(len(found.pictures), 'picture')} in {found.root} none has a label that can be read and has a "
        f"name like it{said}; name label maps as their pictures, or name two folders: `pixelwise init PICTURES "
        "LABELS --out DATA`"
    )


def _name(adoption: Adoption) -> None:
    """Give each item a name of its own, the shortest that tells it from the others of its part, and say what is copied
    and what is converted."""
    taken: set[tuple[str, str]] = set()
    digits = len(str(max((item.page for item in adoption.items), default=0) + 1))
    stems = Counter((item.split, item.relative.stem.casefold(), item.page) for item in adoption.items)
    converted = turned = 0
    for item in adoption.items:
        words = (
            []
            if stems[item.split, item.relative.stem.casefold(), item.page] == 1
            else _folders(item.relative)
        )
        page = "" if item.page == WHOLE else f"_{item.page + 1:0{digits}}"
        name = base = plain_name("_".join([*words, item.relative.stem]))[:150] + page
        number = 2
        while (item.split, name.casefold()) in taken:
            name, number = f"{base}-{number}", number + 1
        taken.add((item.split, name.casefold()))
        item.name = name
        converted += _must_be_converted(item) and item.turn is None
        turned += item.turn is not None
    if converted:
        adoption.said.append(f"{converted} of {counted(len(adoption.items), 'picture')} written as PNG")
    if unclear := [item for item in adoption.items if item.may_be_turned]:
        adoption.said.append(
            f"{counted(len(unclear), 'picture')} (first {unclear[0].relative}) with an EXIF tag that turns or mirrors: "
            "taken as turned, and whether the label map is too its size does not tell; look at the pair, and if it "
            "does not fit, remove the tag"
        )
    if turned:
        adoption.said.append(
            f"{counted(turned, 'picture')} with an EXIF tag that turns: written as PNG, as the labels lie"
        )


def _folders(relative: PurePath) -> list[str]:
    """The folders above a file that say more than what lies in them."""
    return [part for part in relative.parts[:-1] if set(split(part)) - PICTURE_WORDS - SPLITS.keys()]


def _must_be_converted(item: Item) -> bool:
    return item.page != WHOLE or item.turn is not None or item.image.suffix.lower() not in SUFFIXES


def _write_picture(item: Item, folder: Path) -> None:
    """Copy the picture, or where training could not read it as it is, write it as PNG."""
    if not _must_be_converted(item):
        target = folder / f"{item.name}{item.image.suffix.lower()}"
        shutil.copyfile(item.image, target)
        with open(target, "rb+") as file:
            sync(file.fileno())
        return
    target = folder / f"{item.name}.png"
    if item.page != WHOLE or item.image.suffix.lower() == ".npy":  # deep grey stays deep
        values = read_page(item.image, max(item.page, 0))[0]
        if values.ndim == 2 and values.dtype not in (np.uint8, np.uint16, bool):
            _save(Image.fromarray(values.astype(np.float32)), target.with_suffix(".tif"))
            return
        if values.dtype in (np.uint8, np.uint16, bool):
            _save(Image.fromarray(values), target)
            return
    _save(unturned(item.image) if item.turn is False else Image.fromarray(read(item.image)), target)


def _with_palette(ids: NDArray[Any], labels: LabelSet) -> Image.Image:
    """Ids as a picture that shows the colours of their classes, where they are small enough."""
    top = int(ids.max(initial=0))
    if top > 255:
        return Image.fromarray(ids.astype(np.uint16))
    image = Image.fromarray(ids.astype(np.uint8), "P")
    palette = np.full((256, 3), 224, np.uint8)
    table = labels.palette()[:256]
    palette[: len(table)] = table
    image.putpalette(palette.tobytes())
    return image


def _save(image: Image.Image, path: Path) -> None:
    with open(path, "xb") as file:
        image.save(file, "TIFF" if path.suffix == ".tif" else "PNG")
        file.flush()
        sync(file.fileno())


def _write(path: Path, data: bytes) -> None:
    with open(path, "xb") as file:
        file.write(data)
        file.flush()
        sync(file.fileno())


def _empty(folder: Path) -> None:
    """Remove a folder of ours with all that is in it, if it is there."""
    if folder.is_dir() and not folder.is_symlink():
        shutil.rmtree(folder)


def _relative(path: Path, root: Path) -> PurePath:
    return path.relative_to(root) if path.is_relative_to(root) else path

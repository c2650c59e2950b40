"""What becomes a picture of the new data set: each picture, or page, with what labels it, read once."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath

from pixelwise.datasets.adopt.pages import count_pages, orientation, read_page
from pixelwise.datasets.adopt.reading import Wishes, look_at
from pixelwise.datasets.adopt.shapes import Outlines, Shape, draw
from pixelwise.datasets.adopt.sources import Found, Series
from pixelwise.datasets.values import Census
from pixelwise.errors import ImageError, InputError
from pixelwise.images import read_unscaled
from pixelwise.terminal import counted

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


def items_of(
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


def kept(items: list[Item], left_out: list[str], labels_hw: Sizes, progress: Progress) -> list[Item]:
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


def size_of_labels(wishes: Wishes, censuses: Sequence[Census], item: Item) -> tuple[int, int] | None:
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

"""What would be written, in words and then in files. The new folder grows under a hidden name beside its place, and is
renamed when it is whole."""

from __future__ import annotations

import os
import shutil
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path, PurePath
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pixelwise.codes import has
from pixelwise.datasets.adopt.items import WHOLE, Item, Progress
from pixelwise.datasets.adopt.names import PICTURE_WORDS, SPLITS, split
from pixelwise.datasets.adopt.pages import read_page, unturned
from pixelwise.datasets.manifest import Manifest
from pixelwise.errors import InputError, OutputError
from pixelwise.files import check_writable, held, make_folder, plain_name, refuse_link, sync, sync_folder
from pixelwise.images import SUFFIXES, read
from pixelwise.labels import LabelSet
from pixelwise.limits import check_disk
from pixelwise.terminal import counted


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


def give_names(adoption: Adoption) -> None:
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

"""Outlines in files of others: which files hold some, of which sort, and of which pictures.

Only pictures that were found are meant: a file says which by a name, and no name is opened.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path, PurePath

from pixelwise.datasets.adopt.coco import from_coco
from pixelwise.datasets.adopt.labelme import from_labelme
from pixelwise.datasets.adopt.shapes import ByName, Outlines
from pixelwise.datasets.adopt.yolo import from_yolo, yolo_files
from pixelwise.errors import InputError


def find_outlines(files: Mapping[PurePath, Path], pictures: Sequence[PurePath]) -> list[Outlines]:
    """What the .json and .txt files among `files` say of the pictures, one for each sort that is there.

    Raises InputError, with the file, for one that is of a sort by its looks and cannot be read as such.
    """
    found: list[Outlines] = []
    coco, labelme = [], []
    for name, path in files.items():
        if path.suffix.lower() == ".json":
            keys = _keys(path)
            if {'"images"', '"annotations"', '"categories"'} <= keys:
                coco.append((name, path))
            elif {'"shapes"', '"imagePath"'} <= keys:
                labelme.append((name, path))
    by_name = _by_name(pictures)
    if coco:
        found.append(from_coco(coco, by_name))
    if labelme:
        found.append(from_labelme(labelme, by_name))
    unread: list[str] = []
    if lines := yolo_files(files, pictures, unread):
        found.append(from_yolo(lines, files))
        found[-1].notes += unread
    return [one for one in found if one.shapes]


def _keys(path: Path) -> set[str]:
    """Which keys a file of JSON may have, from its text: it may be large, and most are not ours to read."""
    wanted = ('"images"', '"annotations"', '"categories"', '"shapes"', '"imagePath"')
    found, tail = set(), b""
    try:
        with open(path, "rb") as file:
            while block := file.read(2**20):
                found |= {key for key in wanted if key.encode() in tail + block}
                tail = block[-20:]
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror or error})") from error
    return found


def _by_name(pictures: Iterable[PurePath]) -> ByName:
    """Which picture a file means by a name: the one that ends in its folders and name, or is the only one so called."""
    of_name: dict[str, list[PurePath]] = defaultdict(list)
    for picture in pictures:
        of_name[picture.name].append(picture)

    def which(said: str) -> PurePath | None:
        wanted = PurePath(said.replace("\\", "/"))
        same = of_name.get(wanted.name, [])
        whole = [p for p in same if p.parts[-len(wanted.parts) :] == wanted.parts]
        chosen = whole if len(whole) == 1 else same
        return chosen[0] if len(chosen) == 1 else None

    return which

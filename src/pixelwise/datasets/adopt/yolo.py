"""Outlines in YOLO's lines of text, a file a picture."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePath

import numpy as np

from pixelwise.datasets.adopt.names import part_of
from pixelwise.datasets.adopt.shapes import Outlines, Shape, box, boxes_said
from pixelwise.datasets.adopt.yolo_names import yolo_names
from pixelwise.errors import InputError

LARGEST_TEXT = 2**24
"""Bytes of one picture's lines."""


def yolo_files(
    files: Mapping[PurePath, Path], pictures: Sequence[PurePath], unread: list[str]
) -> dict[PurePath, tuple[PurePath, list[list[float]]]]:
    """Picture: (its file of lines, the numbers of each), for .txt files of a picture's name that hold only numbers.
    unread: is given a sentence for each other one."""
    of_stem: dict[str, list[PurePath]] = defaultdict(list)
    for picture in pictures:
        of_stem[picture.stem].append(picture)
    found = {}
    for name, path in files.items():
        if path.suffix.lower() != ".txt" or name.stem not in of_stem:
            continue
        candidates = [p for p in of_stem[name.stem] if part_of(p) == part_of(name)]
        lines = _numbers(path)
        if len(candidates) == 1 and isinstance(lines, int):
            place = f", line {lines}," if lines else ""
            unread.append(f"{name}{place} cannot be read: expected lines of a class and pairs of x and y")
        elif len(candidates) == 1 and not isinstance(lines, int):
            found[candidates[0]] = name, lines
    return found


def _numbers(path: Path) -> list[list[float]] | int:
    """The numbers of each line, or the number of the first line that has anything else; 0 if it is none."""
    rows = []
    number = 0
    try:
        if path.stat().st_size > LARGEST_TEXT:
            return 0
        for number, line in enumerate(path.read_text("utf-8").splitlines(), 1):
            row = [float(word) for word in line.split()]
            if row and np.isfinite(row).all() and (len(row) < 5 or not row[0] == int(row[0]) >= 0):
                return number
            rows += [row] if row else []
    except (OSError, ValueError):
        return number
    return rows


def from_yolo(
    lines: Mapping[PurePath, tuple[PurePath, list[list[float]]]], files: Mapping[PurePath, Path]
) -> Outlines:  # fmt: skip
    folder = next(iter(lines.values()))[0].parent
    outlines = Outlines(f"the outlines in {folder}/*.txt", [])
    boxes = 0
    highest = 0
    for picture, (name, rows) in lines.items():
        shapes = outlines.shapes.setdefault(picture, [])
        for row in rows:
            if not np.isfinite(row).all() or not all(-1 <= number <= 2 for number in row[1:]):
                raise InputError(f"{files[name]} has numbers beyond the picture, expected shares from 0 to 1")
            if len(row) == 5:
                boxes += 1
                x, y, width, height = row[1:]
                ring = box(x - width / 2, y - height / 2, width, height)
                shapes.append(Shape(_yolo_class(row[0], files[name]), (ring,), crowd=True, scaled=True))
                continue
            if len(row) % 2 == 0:
                raise InputError(
                    f"{files[name]} has a line of {len(row)} numbers, expected a class and pairs of x and y"
                )
            shapes.append(
                Shape(_yolo_class(row[0], files[name]), (np.array(row[1:]).reshape(-1, 2),), scaled=True)
            )
            highest = max(highest, int(row[0]))
    if boxes and all(shape.crowd for shapes in outlines.shapes.values() for shape in shapes):
        raise InputError(
            f"{folder}/*.txt hold boxes (five numbers a line), and segmentation needs outlines; draw these first"
        )
    if boxes:
        outlines.said.append(boxes_said(boxes))
    outlines.names = yolo_names(files)
    if len(outlines.names) <= highest:
        if outlines.names:
            outlines.notes.append(
                f"{len(outlines.names)} names are listed, and the outlines have classes up to {highest}"
            )
        outlines.names += [f"class {i}" for i in range(len(outlines.names), highest + 1)]
    return outlines


def _yolo_class(number: float, path: Path) -> int:
    if number > 10_000:
        raise InputError(f"{path} has an object of class {number:.0f}, expected a class from 0 to 10000")
    return int(number)

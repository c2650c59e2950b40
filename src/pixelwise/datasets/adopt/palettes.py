"""Lists of classes with their colours, as people write them: a line a class, with three numbers or #rrggbb."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from pixelwise.datasets.manifest import LONGEST_NAME
from pixelwise.errors import InputError
from pixelwise.labels import Color
from pixelwise.untrusted import first_twice

MOST_BYTES = 2**20
"""Of a list."""

IGNORED = frozenset(("void", "ignore", "ignored", "unlabeled", "unlabelled"))
"""Names of what is no class."""

_COLOR = re.compile(r"(?<![\w#])(?:#([0-9a-fA-F]{6})|(\d{1,3})[\s,;]+(\d{1,3})[\s,;]+(\d{1,3}))(?!\w)")
_FOUR = re.compile(r"\s*\d{1,8}[\s,;:]+(?=\d{1,3}[\s,;]+\d{1,3}[\s,;]+\d{1,3}(?!\w))")
_ID = re.compile(r"^\s*(\d{1,8})[\s,;:]+")


@dataclass(frozen=True)
class Painted:
    """A class of such a list; id: its number there, None where there is none."""

    name: str
    color: Color
    id: int | None = None


def read_palette(path: Path) -> list[Painted]:
    """The classes of a list: `name 128 0 0`, `128,0,0 name`, `3 name 128 0 0`, `name:128,0,0::` and `name #800000`, in
    any order of name and colour; lines that begin with # and no colour, and a line of headings, are left out.

    Raises InputError, with the file, for what is no such list.
    """
    found = _palette_of(_text(path), path)
    if not found:
        raise InputError(f"{path} has no line such as `road 128 64 128`, a class and its colour")
    for what, values in (("name", [p.name for p in found]), ("colour", [p.color for p in found])):
        if len(set(values)) < len(values):
            raise InputError(f"{path} has the {what} {first_twice(values)!r:.60} twice")
    ids = [p.id for p in found if p.id is not None]
    if len(ids) not in (0, len(found)) or len(set(ids)) < len(ids):
        raise InputError(f"{path} should give each class an id of its own, or none of them one")
    return found


def has_colors(path: Path) -> bool:
    """Whether every line of a list has a colour."""
    lines = [line for line in _text(path).splitlines() if line.strip() and not _is_comment(line)]
    return bool(lines) and all(_COLOR.search(line) for line in lines)


def _palette_of(text: str, path: Path) -> list[Painted]:
    found = []
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip() or _is_comment(line):
            continue
        four = _FOUR.match(line)
        color = _COLOR.search(line, 0 if four is None else four.end())
        if color is None:
            if number == 1:
                continue  # name,r,g,b
            raise InputError(
                f"{path}, line {number}: expected a class and its colour, got {line.strip()[:60]!r}"
            )
        rgb = _rgb(color)
        if max(rgb) > 255:
            raise InputError(f"{path}, line {number}: a colour is three numbers from 0 to 255, got {rgb}")
        head, tail = line[: color.start()], line[color.end() :]
        id = None
        if numbered := _ID.match(head):
            id, head = int(numbered[1]), head[numbered.end() :]
        name = head if re.search(r"[^\W\d_]", head) else tail
        name = name.strip(" \t,;:\"'")
        if not 0 < len(name) <= LONGEST_NAME or not name.isprintable():
            raise InputError(
                f"{path}, line {number}: a name of 1 to {LONGEST_NAME} letters is missing in {line[:60]!r}"
            )
        found.append(Painted(name, rgb, id))
    return found


def _rgb(color: re.Match[str]) -> Color:
    if color[1]:
        value = int(color[1], 16)
        return value >> 16, value >> 8 & 255, value & 255
    return int(color[2]), int(color[3]), int(color[4])


def _is_comment(line: str) -> bool:
    return line.lstrip().startswith(("#", "//")) and not re.match(r"\s*#[0-9a-fA-F]{6}\b", line)


def _text(path: Path) -> str:
    try:
        if not path.is_file():
            raise InputError(f"{path} is no list of classes and colours: it is no file")
        with open(path, "rb") as file:
            data = file.read(MOST_BYTES + 1)
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror or error})") from error
    if len(data) > MOST_BYTES:
        raise InputError(f"{path} is no list of classes and colours: it has more than {MOST_BYTES:,} bytes")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(
            f"{path} is no list of classes and colours: no UTF-8 at byte {error.start}"
        ) from error

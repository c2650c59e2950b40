"""What is answered: formats by name or by the types that a request accepts, and several files as a zip archive.

Each file is what `pixelwise segment` writes, byte for byte.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote

from pixelwise.errors import UnknownNameError
from pixelwise.files import plain_name
from pixelwise.outputs.formats import FORMATS
from pixelwise.service.refusals import Refused

TYPES = {
    ".png": "image/png",
    ".jpg": "image/jpeg",
    ".tif": "image/tiff",
    ".npy": "application/octet-stream",
    ".geojson": "application/geo+json",
    ".json": "application/json",
    ".csv": "text/csv; charset=utf-8",
    ".zip": "application/zip",
}
"""Last part of a name to the type of such a file."""


class Wanted(NamedTuple):
    """One file of each picture. ending: what its name has behind the picture's."""

    format: str
    ending: str


def _of(format: str) -> Wanted:
    return Wanted(format, FORMATS[format].ending)


BY_TYPE = {
    "image/png": _of("labels"),
    "application/json": _of("json"),
    "application/geo+json": _of("geojson"),
    "image/jpeg": Wanted("overlay", ".overlay.jpg"),
    "text/csv": _of("csv"),
    "application/zip": _of("labels"),
}
"""What is meant where a type is asked for, and no format by its name."""


def by_name(formats: str) -> list[Wanted]:
    """The formats named, comma separated; UnknownNameError for another, with the nearest."""
    names = [name for part in formats.split(",") if (name := part.strip())]
    for name in names or [formats]:
        if name not in FORMATS:
            raise UnknownNameError("format", name, FORMATS)
    return [_of(name) for name in dict.fromkeys(names)]


def by_accept(header: str) -> tuple[Wanted, bool]:
    """What a header Accept asks for most, and whether in an archive; Refused (406) where there is nothing of it."""
    asked: list[tuple[float, int, str]] = []
    unwanted: set[str] = set()
    for part in header.split(","):
        kind, *parameters = (word.strip().lower() for word in part.split(";"))
        weight = 1.0
        for word in parameters:
            if word.startswith("q="):
                try:
                    weight = float(word[2:])
                except ValueError:
                    weight = 0.0
        if weight > 0:
            asked.append((-weight, kind.count("*"), kind))
        else:
            unwanted.add(kind)
    for _, _, kind in sorted(asked, key=lambda one: one[:2]):
        for known, wanted in BY_TYPE.items():
            if known not in unwanted and kind in (known, "*/*", f"{known.partition('/')[0]}/*"):
                return wanted, known == "application/zip"
    if not header.strip():
        return BY_TYPE["image/png"], False
    raise Refused(
        406,
        "not_acceptable",
        f"the types that are accepted (Accept) are none of {', '.join(BY_TYPE)}; ask for one of them, or name a format",
    )


def type_of(ending: str) -> str:
    """The type of a file whose name ends so."""
    return TYPES[Path(f"x{ending}").suffix]


FAILED = ".error.json"
"""Ending of what stands in an archive for a picture that failed."""


def stems(names: Iterable[str], endings: Iterable[str]) -> list[str]:
    """What the results of uploads are called, by the names of those: in no folder, of harmless letters, and with any
    of these endings none like another: `a.coco` and `a` would both have an `a.coco.json`."""
    ends = [*endings, FAILED]
    found: list[str] = []
    taken: set[str] = set()
    for name in names:
        stem = Path(plain_name(name.replace("\\", "/").rpartition("/")[2])).stem or "picture"
        unique, number = stem, 1
        while taken.intersection(files := [f"{unique}{end}".casefold() for end in ends]):
            number += 1
            unique = f"{stem}-{number}"
        taken.update(files)
        found.append(unique)
    return found


def archive(files: Iterable[tuple[str, bytes]]) -> bytes:
    """A zip archive of files by their names, not compressed, which they are; the same bytes whenever it is made."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        for name, content in files:
            archive.writestr(zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0)), content)
    return file.getvalue()


def disposition(name: str) -> str:
    """The header Content-Disposition for a file of that name."""
    plain = name.isascii()
    return f'attachment; filename="{name}"' if plain else f"attachment; filename*=UTF-8''{quote(name)}"

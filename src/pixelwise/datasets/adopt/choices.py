"""What is asked where several things label the pictures, or none: a sentence with a command in it."""

from __future__ import annotations

import glob
import os
import shlex
from collections.abc import Sequence
from pathlib import Path, PurePath

from pixelwise.datasets.adopt.sources import Found, Series
from pixelwise.errors import InputError
from pixelwise.terminal import counted


def chosen(found: Found, sources: Sequence[str | os.PathLike[str]], out: Path) -> list[Series]:
    """The kinds of label maps to take; InputError where outlines label the pictures too."""
    if len(found.outlines) + bool(found.series) > 1:
        raise InputError(choices_of(found, sources, out))
    return found.series


def choices_of(found: Found, sources: Sequence[str | os.PathLike[str]], out: Path) -> str:
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


def no_pairs(found: Found, left_out: Sequence[str]) -> str:
    said = f"; {left_out[0]}" if left_out else ""
    return (
        f"of {counted(len(found.pictures), 'picture')} in {found.root} none has a label that can be read and has a "
        f"name like it{said}; name label maps as their pictures, or name two folders: `pixelwise init PICTURES "
        "LABELS --out DATA`"
    )

"""`pixelwise init`: from what people have to a data set; shows what would be written, and asks."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Iterable
from pathlib import Path

from pixelwise.datasets.adopt.adopting import survey
from pixelwise.datasets.adopt.items import Item, Progress
from pixelwise.datasets.adopt.palettes import has_colors, read_palette
from pixelwise.datasets.adopt.reading import Wishes
from pixelwise.datasets.adopt.writing import Adoption, refuse_existing
from pixelwise.datasets.opening import parse_map, read_class_list
from pixelwise.errors import InputError
from pixelwise.terminal import counted, note, say

SHOWN = 6
"""Pairs that are printed; the rest is counted."""


def run(
    sources: list[str], out: Path, classes: str | None, palette: Path | None, map_ids: str | None, ignore_id: int,
    keep_ids: bool, regions: bool, doubt: float, yes: bool,
) -> int:  # fmt: skip
    """Survey, show, ask and write; the exit code: 2 where nothing was written because nobody could be asked."""
    refuse_existing(out)
    wishes = _wishes(classes, palette, map_ids, ignore_id, keep_ids, doubt)
    try:
        return _run(sources, out, wishes, regions, yes)
    except KeyboardInterrupt:
        written = (
            f"{out} is whole"
            if out.is_dir()
            else f"nothing was written to {out}; type the same to begin anew"
        )
        note(f"stopped: {written}")
        return 130


def _run(sources: list[str], out: Path, wishes: Wishes, regions: bool, yes: bool) -> int:
    found = survey(sources, out, wishes, regions=regions, progress=_with_progress("Reading"))
    for line in _lines(found):
        say(line)
    if not yes:
        if not can_be_asked():
            again = shlex.join(["pixelwise", *sys.argv[1:], "--yes"])
            note(f"nothing was written, as there is no terminal to ask; if this is right, type: {again}")
            return 2
        say("")
        answer = _asked(f"write {counted(len(found.items), 'pair')} to {out}? [y/N] ")
        if answer.strip().lower() not in ("y", "yes"):
            note("nothing was written")
            return 2
    found.write(out, progress=_with_progress("Writing"))
    say(
        f"wrote {counted(len(found.items), 'pair')} to {out}; next: {shlex.join(['pixelwise', 'check', str(out)])}"
    )
    return 0


def _asked(question: str) -> str:
    """What somebody types; nothing where they close the input (Ctrl-D)."""
    try:
        return input(question)
    except EOFError:
        return ""


def can_be_asked() -> bool:
    """Whether somebody sits before a terminal."""
    return sys.stdin is not None and sys.stdin.isatty()


def _wishes(
    classes: str | None,
    palette: Path | None,
    map_ids: str | None,
    ignore_id: int,
    keep_ids: bool,
    doubt: float,
) -> Wishes:
    painted = () if palette is None else tuple(read_palette(palette))
    names: tuple[str, ...] = ()
    listed = None
    if classes is not None and Path(classes).is_file():
        if not painted and has_colors(Path(classes)):
            painted = tuple(read_palette(Path(classes)))
        else:
            listed = read_class_list(Path(classes))
    elif classes is not None:
        names = tuple(name.strip() for name in classes.split(","))
        if not all(names) or len(set(names)) < len(names):
            raise InputError(
                f"--classes takes a file, or names such as background,vessel; got {classes[:60]!r}"
            )
    change = None if map_ids is None else parse_map(map_ids)
    return Wishes(names, listed, painted, keep_ids, change, None if ignore_id < 0 else ignore_id, doubt)


def _lines(found: Adoption) -> list[str]:
    """What would be written, for people."""
    pairs = found.pairs()
    shown = pairs if len(pairs) <= SHOWN else [*pairs[: SHOWN - 1], pairs[-1]]
    width = max(len(picture) for picture, _ in shown)
    lines = [f"  {picture:{width}}  {label}" for picture, label in shown]
    if len(pairs) > SHOWN:
        lines.insert(-1, f"  ... and {len(pairs) - SHOWN} more")
    kept = found.splits
    parts = "" if set(kept) == {"all"} else f" ({', '.join(f'{part}: {n}' for part, n in kept.items())})"
    ids = ", ".join(f"{i} {name}" for i, name in zip(found.labels.ids[:20], found.labels.names, strict=False))
    more = ", ..." if len(found.labels) > 20 else ""
    overlap = ", which overlap" if found.regions else ""
    return [
        f"{counted(len(pairs), 'picture')} with labels{parts}:",
        *lines,
        f"classes: {ids}{more}{overlap}",
        *(f"done: {sentence}" for sentence in found.said),
        *(f"left out: {sentence}" for sentence in found.left_out[:20]),
        *([f"left out: ... and {len(found.left_out) - 20} more"] if len(found.left_out) > 20 else []),
    ]


def _with_progress(what: str) -> Progress:
    def bar(items: list[Item]) -> Iterable[Item]:
        if len(items) < 50 or not sys.stderr.isatty():
            return items
        from rich.console import Console
        from rich.progress import track

        return track(items, description=what, console=Console(stderr=True))

    return bar

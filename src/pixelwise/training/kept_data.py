"""What a run learned from, kept in its folder, so that one that is gone on with says what has changed since."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path

from pixelwise.datasets.opening import PairSamples
from pixelwise.datasets.sample import Pair
from pixelwise.errors import InputError
from pixelwise.files import writing
from pixelwise.terminal import counted
from pixelwise.untrusted import read

FILE = "data.json"

MOST_BYTES = 2**28
"""Of that file, in which a picture takes about 80."""

Digests = dict[str, tuple[str, str]]
"""By the name of a picture: what the file of the picture and that of its label map hold."""


@dataclass(frozen=True)
class Kept:
    """The data of a run. train, val: the pictures to learn from and to validate on. classes: names by id. map_ids: what
    its pixelwise.json changes about ids."""

    train: Digests
    val: Digests
    classes: dict[str, str] = field(default_factory=dict)
    map_ids: str | None = None

    @cached_property
    def words(self) -> dict[str, str]:
        """Two texts, of what is learned from and of what is validated on, which differ where that differs."""
        meaning = [self.classes, self.map_ids]
        return {part: _short([sorted(getattr(self, part).items()), meaning]) for part in ("train", "val")}


def kept_data(training: PairSamples, held_out: PairSamples, map_ids: str | None) -> Kept:
    """What the files of a run hold now; each is read once. map_ids: those of its pixelwise.json."""
    digests = _Digests()
    train, val = ({pair.name: digests.of(pair) for pair in part.pairs} for part in (training, held_out))
    labels = training.classes
    named = {} if labels is None else dict(zip(map(str, labels.ids), labels.names, strict=True))
    return Kept(train, val, named, map_ids)


def read_kept(out: Path) -> Kept | None:
    """What was kept in the folder of a run; None in one of an earlier version."""
    path = out / FILE
    if not path.is_file():
        return None
    advice = f"without {FILE} the run goes on too, and does not say what has changed about its data"
    what = f"the list of the run's data {path}"
    return read(path, Kept, what, advice=advice, most=MOST_BYTES, surrogates=True)


def write_kept(kept: Kept, out: Path) -> None:
    with writing(out / FILE) as temporary:
        temporary.write_text(json.dumps(asdict(kept), indent=0) + "\n", encoding="utf-8")


def changes(now: Kept, then: Kept) -> str:
    """What differs, as part of a sentence; "" for the same data."""
    said = []
    for part, other, words in (("train", "val", "to learn from"), ("val", "train", "to validate on")):
        new, old = getattr(now, part), getattr(then, part)
        added = new.keys() - old.keys()
        moved = added & getattr(then, other).keys()
        gone = old.keys() - new.keys() - getattr(now, other).keys()
        both = new.keys() & old.keys()
        said += [
            *_counted(added - moved, "picture", f"more {words}"),
            *_counted(moved, "picture", f"now {words} that {'was' if len(moved) == 1 else 'were'} not"),
            *_counted(gone, "picture", f"{words} gone"),
            *_counted({n for n in both if new[n][0] != old[n][0]}, "picture", f"{words} changed"),
            *_counted({n for n in both if new[n][1] != old[n][1]}, "label map", f"{words} changed"),
        ]
    for number, name in now.classes.items():
        if (was := then.classes.get(number, name)) != name:
            said.append(f"class {number} is called {name}, not {was}")
    if now.map_ids != then.map_ids:
        said.append(f"pixelwise.json changes ids by {now.map_ids!r}, not {then.map_ids!r}")
    return "; ".join(said)


def refuse_other_classes(now: Kept, then: Kept, out: Path) -> None:
    """Raise InputError where a network of the one has not the outputs of the other."""
    if now.classes.keys() != then.classes.keys():
        before, after = (", ".join(kept.classes.values()) for kept in (then, now))
        raise InputError(
            f"the run in {out} learned the classes {before}, and now there are {after}: make them as they were, or "
            "begin a new run with another --out"
        )


def few(names: Iterable[str], most: int = 3) -> str:
    """The first of some names, and how many more there are."""
    listed = sorted(names)
    more = f" and {len(listed) - most} more" if len(listed) > most else ""
    return ", ".join(listed[:most]) + more


def _counted(names: Collection[str], what: str, does: str) -> list[str]:
    return [f"{counted(len(names), what)} {does} ({few(names)})"] if names else []


class _Digests:
    """Of pairs; a file that several share is read once."""

    def __init__(self) -> None:
        self._of_file: dict[Path, str] = {}

    def of(self, pair: Pair) -> tuple[str, str]:
        """Of a picture's file, and of that of its label map; of regions, which have a file each, of their codes."""
        labels = self._file(pair.mask)
        if pair.regions:
            ids = pair.read_ids()
            labels = _short([ids.shape, hashlib.blake2b(ids.tobytes()).hexdigest()])
        if len(pair.channels) > 1:
            return _short([self._file(path) for path in pair.channels]), labels
        return self._file(pair.image), labels

    def _file(self, path: Path | None) -> str:
        if path is None:
            return ""
        if path not in self._of_file:
            whole = hashlib.blake2b(digest_size=8)
            for each in sorted(path.rglob("*")) if path.is_dir() else [path]:  # rows lie in a folder of files
                if each.is_file():
                    with open(each, "rb") as file:
                        while block := file.read(2**20):
                            whole.update(block)
            self._of_file[path] = whole.hexdigest()
        return self._of_file[path]


def _short(values: Sequence[object] | Mapping[str, object]) -> str:
    return hashlib.blake2b(json.dumps(values).encode(), digest_size=8).hexdigest()

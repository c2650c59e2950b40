"""`pixelwise.json`: what a data set says of itself, written by `pixelwise init` and obeyed wherever it is opened.

It stands in the root of a folder of images/ and masks/ (or train/, val/ and test/ that have these), and wins over a
classes.txt beside it. A person may write it too; of its keys only `classes` must be there.

Where classes overlap (`regions`), masks/ has a folder a class, and in it a file a picture: masks/CLASS/NAME.png belongs
to images/NAME.jpg, and every value but 0 is inside. CLASS is the name of the class as `files.plain_name` writes it. The
first class is what no other covers, and has no folder. A class that a picture does not have is a file of zeros.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pixelwise.codes import MOST
from pixelwise.errors import InputError
from pixelwise.files import plain_name
from pixelwise.labels import Color, Id, LabelSet, spread_colors
from pixelwise.untrusted import first_twice, read

NAME = "pixelwise.json"
VERSION = 1
"""Of the form of the file; a higher one is from a later pixelwise and refused."""

LONGEST_NAME = 200
"""Letters of a class's name."""


@dataclass(frozen=True)
class ManifestClass:
    """A class: the number that it has in label files, its name, and its colour (RGB; None: one is chosen)."""

    id: Id
    name: str
    color: Color | None = None


@dataclass(frozen=True)
class Manifest:
    """What `pixelwise.json` holds.

    classes: in the order of a network's outputs. ignore_id: the number that counts for nothing; None: every number is a
    class. done: what was done to the files that people had, in sentences. map_ids: changes of the label files' ids, as
    `--map-ids` takes them. value_range: (low, high) of pictures of more than 8 bits a channel, which become 0 and 255.
    regions: the classes overlap; see above. version: of the form of the file.

    Raises InputError for what does not go together.
    """

    classes: tuple[ManifestClass, ...]
    ignore_id: Id | None = 255
    done: tuple[str, ...] = ()
    map_ids: str | None = None
    value_range: tuple[float, float] | None = None
    regions: bool = False
    version: int = VERSION

    def __post_init__(self) -> None:
        if self.version < 1:
            raise InputError(f"its version is {self.version}, expected {VERSION}")
        if self.version > VERSION:
            raise InputError(
                f"it is of version {self.version}, and this pixelwise knows {VERSION}; install a newer one"
            )
        for each in self.classes:
            if not each.name.isprintable() or not 0 < len(each.name) <= LONGEST_NAME:
                raise InputError(
                    f"a name is 1 to {LONGEST_NAME} letters without control characters, got {each.name[:40]!r}"
                )
        if self.value_range is not None and not self.value_range[0] < self.value_range[1]:
            raise InputError(f"value_range is (low, high) with low < high, got {list(self.value_range)}")
        if self.regions and not 2 <= len(self.classes) <= MOST + 1:
            raise InputError(
                f"regions are the background and 1 to {MOST} classes that overlap, got {len(self.classes)} in all"
            )
        if self.regions and len(set(self.folders)) < len(self.folders):
            raise InputError(
                f"two classes would have the folder masks/{first_twice(self.folders)}; rename one"
            )
        assert self.labels  # raises for ids or names that are there twice, and for an ignored class

    @property
    def labels(self) -> LabelSet:
        """The classes as all else knows them."""
        usual = spread_colors(len(self.classes))
        return LabelSet(
            tuple(each.name for each in self.classes),
            tuple(each.color or usual[i] for i, each in enumerate(self.classes)),
            tuple(each.id for each in self.classes),
            self.ignore_id,
        )

    @property
    def folders(self) -> tuple[str, ...]:
        """Where classes overlap, the folder in masks/ of each but the first."""
        return tuple(plain_name(each.name) for each in self.classes[1:])

    @classmethod
    def of(cls, labels: LabelSet, **more: Any) -> Manifest:
        """The manifest of a data set with these classes; more: the other fields."""
        rows = zip(labels.ids, labels.names, labels.colors, strict=True)
        classes = tuple(ManifestClass(id, name, color) for id, name, color in rows)
        return cls(classes, labels.ignore_id, **more)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON, without what was not said."""
        said: dict[str, Any] = {
            "version": self.version,
            "classes": [
                {"id": c.id, "name": c.name, **({} if c.color is None else {"color": list(c.color)})}
                for c in self.classes
            ],
            "ignore_id": self.ignore_id,
            "done": list(self.done),
        }
        if self.map_ids is not None:
            said["map_ids"] = self.map_ids
        if self.value_range is not None:
            said["value_range"] = list(self.value_range)
        if self.regions:
            said["regions"] = True
        return said

    def to_json(self) -> str:
        """The text of the file, a class a line."""
        said = self.to_dict()
        lines = [json.dumps(each, ensure_ascii=False) for each in said.pop("classes")]
        rest = json.dumps(said, indent=1, ensure_ascii=False)
        head, _, tail = rest.partition(",\n")  # behind the version
        return f'{head},\n "classes": [\n  ' + ",\n  ".join(lines) + f"\n ],\n{tail}\n"


def read_manifest(root: Path) -> Manifest | None:
    """The manifest of the data set in a folder, None where there is none. Raises InputError, with the file."""
    path = root / NAME
    if not path.is_file():
        return None
    return read(path, Manifest, str(path), advice="correct it, or make the folder anew with `pixelwise init`")


def contradiction(manifest: LabelSet, listed: LabelSet | None) -> str:
    """How a classes.txt differs from the manifest beside it, in words; "" where they agree, or there is none."""
    if listed is None:
        return ""
    ours, theirs = (
        dict(zip(manifest.ids, manifest.names, strict=True)),
        dict(zip(listed.ids, listed.names, strict=True)),
    )
    for id in sorted(ours.keys() | theirs.keys()):
        if ours.get(id) != theirs.get(id):
            said = [repr(names[id]) if id in names else "no class" for names in (ours, theirs)]
            return f"{NAME} says that id {id} is {said[0]}, and classes.txt that it is {said[1]}"
    return ""

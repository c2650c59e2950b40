"""LabelSet: the one object that says what the numbers in a label map mean.

A network speaks in class indices 0 .. k-1. A file may use other numbers (ADE20K: 1 .. 150, Cityscapes:
7, 8, 11, ...). The LabelSet holds both: `ids[i]` is the number that class index i has in files.
`to_indices` reads, `to_ids` writes; whatever pixelwise hands out went through `to_ids`.
"""

from __future__ import annotations

import colorsys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray

from pixelwise.errors import InputError, UnknownNameError
from pixelwise.untrusted import Between, first_twice, fit

Color = tuple[int, int, int]

MOST_CLASSES = 2**16
"""Of a LabelSet."""

LARGEST_ID = 2**24 - 1
"""The largest id, which is the largest that the three bytes of a colour can hold."""

Id = Annotated[int, Between(0, LARGEST_ID)]


@dataclass(frozen=True)
class LabelSet:
    """Names, colours and file ids of the classes, in the order of the network's outputs.

    names: k different names, at most `MOST_CLASSES`. colors: k RGB triples in 0..255. ids: k different integers from 0
    to `LARGEST_ID`, the numbers used in label files. ignore_id: the number in label files that counts for nothing (255
    unless a class owns it); None when every number is a class.
    """

    names: tuple[str, ...]
    colors: tuple[Color, ...]
    ids: tuple[Id, ...]
    ignore_id: Id | None = 255

    def __post_init__(self) -> None:
        k = len(self.names)
        for name in self.names:
            if not isinstance(name, str):
                raise InputError(f"names of classes are words, got {name!r:.60}")
        if not (len(self.colors) == len(self.ids) == k):
            raise InputError(
                f"a LabelSet needs one name, colour and id per class, got {k} names, "
                f"{len(self.colors)} colours and {len(self.ids)} ids"
            )
        if not 1 <= k <= MOST_CLASSES:
            raise InputError(f"a LabelSet needs at least one class, and has at most {MOST_CLASSES}, got {k}")
        for id in (*self.ids, *(() if self.ignore_id is None else (self.ignore_id,))):
            if isinstance(id, bool) or not isinstance(id, (int, np.integer)) or not 0 <= id <= LARGEST_ID:
                raise InputError(
                    f"ids in a LabelSet are whole numbers of zero or more, up to {LARGEST_ID}, got {id!r:.60}"
                )
        for color in self.colors:
            _color(color)
        for what, values in (("name", self.names), ("id", self.ids)):
            if len(set(values)) != k:
                raise InputError(
                    f"every {what} in a LabelSet must be different, got {first_twice(values)!r:.60} twice"
                )
        if self.ignore_id in self.ids:
            name = self.names[self.ids.index(self.ignore_id)]
            raise InputError(
                f"ignore_id {self.ignore_id} is the id of class {name!r}; choose another, or None"
            )

    @classmethod
    def of(
        cls,
        names: Sequence[str],
        *,
        colors: Sequence[Color] | None = None,
        ids: Sequence[int] | None = None,
        ignore_id: int | None = 255,
    ) -> LabelSet:
        """A LabelSet from names alone; colours are those of `default_colors`, ids count from 0.

        With more than 255 classes and consecutive ids, 65535 is the default for ignore_id.
        """
        if isinstance(names, str) or not isinstance(names, Sequence):
            raise InputError(
                f'names of classes come in a list, such as ["ground", "vessel"], got {names!r:.60}'
            )
        ids = tuple(range(len(names))) if ids is None else tuple(int(i) for i in ids)
        if ignore_id == 255 and 255 in ids:
            ignore_id = 65535
        return cls(
            names=tuple(names),
            colors=default_colors(len(names)) if colors is None else tuple(_color(c) for c in colors),
            ids=ids,
            ignore_id=ignore_id,
        )

    @property
    def num_classes(self) -> int:
        return len(self.names)

    def __len__(self) -> int:
        return len(self.names)

    def index(self, name: str) -> int:
        """The class index of a name; an unknown name is answered with the nearest ones."""
        try:
            return self.names.index(name)
        except ValueError:
            raise UnknownNameError("class", name, self.names) from None

    @property
    def plain(self) -> bool:
        """True when file ids and class indices are the same numbers."""
        return self.ids == tuple(range(len(self.ids)))

    @property
    def dtype(self) -> np.dtype[Any]:
        """The smallest unsigned integer type that holds every id and the ignore id."""
        return np.min_scalar_type(max(*self.ids, self.ignore_id or 0))

    def to_ids(self, indices: NDArray[Any]) -> NDArray[Any]:
        """Class indices (any shape, integers in [0, k)) to file ids of type `dtype`."""
        if self.plain:
            return indices.astype(self.dtype, copy=False)
        ids: NDArray[Any] = np.asarray(self.ids, self.dtype)[indices]
        return ids

    def to_indices(self, ids: NDArray[Any], *, ignore_index: int = 255) -> NDArray[np.int64]:
        """File ids (any shape) to class indices, int64; the ignore id becomes `ignore_index`.

        Raises InputError for an id that no class has, naming it and where it first occurs.
        """
        ids = np.asarray(ids)
        order = np.argsort(self.ids)
        known = np.asarray(self.ids)[order]
        place = np.minimum(np.searchsorted(known, ids), len(known) - 1)
        indices = np.asarray(order[place], np.int64)
        stray = known[place] != ids
        if self.ignore_id is not None:
            ignored = ids == self.ignore_id
            stray &= ~ignored
            indices[ignored] = ignore_index
        if stray.any():
            at = tuple(int(i) for i in np.argwhere(stray)[0])
            raise InputError(
                f"label id {int(ids[at])} at {at} belongs to no class; "
                f"expected {ranges(sorted(self.ids))}" + self._ignore_words()
            )
        return indices

    def _ignore_words(self) -> str:
        return "" if self.ignore_id is None else f", or {self.ignore_id} to ignore"

    def palette(self) -> NDArray[np.uint8]:
        """Colours indexed by file id: (max id + 1, 3) uint8; ids that no class has are white-grey (224)."""
        table = np.full((max(self.ids) + 1, 3), 224, np.uint8)
        table[list(self.ids)] = self.colors
        return table

    def to_dict(self) -> dict[str, Any]:
        return {
            "names": list(self.names),
            "colors": [list(c) for c in self.colors],
            "ids": list(self.ids),
            "ignore_id": self.ignore_id,
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> LabelSet:
        """What `to_dict` gave, read back; InputError for anything else."""
        return fit(values, cls, "this LabelSet")


def _color(values: Sequence[int]) -> Color:
    try:
        r, g, b = (int(v) for v in values)
    except (TypeError, ValueError, OverflowError):
        raise InputError(f"a colour is three numbers from 0 to 255, got {values!r:.40}") from None
    if not all(0 <= v <= 255 for v in (r, g, b)):
        raise InputError(f"a colour is three numbers from 0 to 255, got {(r, g, b)}")
    return r, g, b


def ranges(numbers: Sequence[int]) -> str:
    """[0, 1, 2, 7] as '0-2, 7'."""
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][1] + 1:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    return ", ".join(str(a) if a == b else f"{a}-{b}" for a, b in runs)


def voc_colors(count: int) -> tuple[Color, ...]:
    """The colour map of the Pascal VOC development kit: bits of the id dealt to the high bits of R, G, B."""
    colors = []
    for index in range(count):
        rgb = [0, 0, 0]
        for bit in range(24):
            rgb[bit % 3] |= ((index >> bit) & 1) << (7 - bit // 3)
        colors.append(_color(rgb))
    return tuple(colors)


APART: tuple[Color, ...] = (
    (0, 0, 0), (255, 76, 0), (51, 153, 255), (102, 51, 178), (178, 255, 153), (0, 128, 102), (153, 51, 26),
    (204, 128, 153), (230, 178, 230), (153, 102, 153), (153, 26, 255), (102, 153, 102), (230, 230, 0), (102, 204, 153),
    (153, 204, 102),
)  # fmt: skip
"""Colours that people tell apart, however they see colours: with normal sight and without the cones for long, medium or
short waves the first eight differ by at least 16 in CIEDE2000, all by at least 10, from one another and from the light
grey of what is not labelled. Found by a search over a grid of colours."""


def default_colors(count: int) -> tuple[Color, ...]:
    """`count` colours for classes that come without: `APART`, and from there on those of `spread_colors`."""
    if count < 2:
        return spread_colors(count)
    return (*APART[:count], *spread_colors(count)[len(APART) :])


def spread_colors(count: int) -> tuple[Color, ...]:
    """`count` colours: black for class 0 when there are others, then hues by the golden ratio."""
    if count < 2:
        return ((255, 255, 255),) * count
    colors: list[Color] = [(0, 0, 0)]
    for i in range(count - 1):
        hue, ring = (0.02 + i * 0.6180339887) % 1.0, (i // 12) % 3
        r, g, b = colorsys.hsv_to_rgb(hue, (0.75, 0.5, 0.9)[ring], (0.95, 0.9, 0.6)[ring])
        colors.append((round(r * 255), round(g * 255), round(b * 255)))
    return tuple(colors)


VOC = LabelSet.of(
    "background aeroplane bicycle bird boat bottle bus car cat chair cow diningtable dog horse motorbike "
    "person pottedplant sheep sofa train tvmonitor".split(),
    colors=voc_colors(21),
)
"""Pascal VOC's 21 classes in the order of the development kit and of torchvision; 255 is the void outline."""

ADE20K = LabelSet.of(
    (
        "wall, building, sky, floor, tree, ceiling, road, bed, windowpane, grass, cabinet, sidewalk, person, earth, "
        "door, table, mountain, plant, curtain, chair, car, water, painting, sofa, shelf, house, sea, mirror, rug, "
        "field, armchair, seat, fence, desk, rock, wardrobe, lamp, bathtub, railing, cushion, base, box, column, "
        "signboard, chest of drawers, counter, sand, sink, skyscraper, fireplace, refrigerator, grandstand, path, "
        "stairs, runway, case, pool table, pillow, screen door, stairway, river, bridge, bookcase, blind, coffee "
        "table, toilet, flower, book, hill, bench, countertop, stove, palm, kitchen island, computer, swivel chair, "
        "boat, bar, arcade machine, hovel, bus, towel, light, truck, tower, chandelier, awning, streetlight, booth, "
        "television receiver, airplane, dirt track, apparel, pole, land, bannister, escalator, ottoman, bottle, "
        "buffet, poster, stage, van, ship, fountain, conveyer belt, canopy, washer, plaything, swimming pool, stool, "
        "barrel, basket, waterfall, tent, bag, minibike, cradle, oven, ball, food, step, tank, trade name, microwave, "
        "pot, animal, bicycle, lake, dishwasher, screen, blanket, sculpture, hood, sconce, vase, traffic light, tray, "
        "ashcan, fan, pier, crt screen, plate, monitor, bulletin board, shower, radiator, glass, clock, flag"
    ).split(", "),
    colors=spread_colors(151)[1:],
    ids=range(1, 151),
    ignore_id=0,
)
"""The 150 classes of ADE20K's scene parsing benchmark, 1 to 150 in its label files, where 0 is everything else."""

CAMVID = LabelSet.of(
    "sky building pole road pavement tree sign fence car pedestrian bicyclist".split(),
    colors=(
        (128, 128, 128), (128, 0, 0), (192, 192, 128), (128, 64, 128), (60, 40, 222), (128, 128, 0),
        (192, 128, 128), (64, 64, 128), (64, 0, 128), (64, 64, 0), (0, 128, 192),
    ),
    ignore_id=11,
)  # fmt: skip
"""CamVid's 11 classes as SegNet's authors numbered them; 11 is void."""

CITYSCAPES = LabelSet.of(
    [
        *"road,sidewalk,building,wall,fence,pole,traffic light,traffic sign,vegetation,terrain,sky".split(","),
        *"person,rider,car,truck,bus,train,motorcycle,bicycle".split(","),
    ],
    colors=(
        (128, 64, 128), (244, 35, 232), (70, 70, 70), (102, 102, 156), (190, 153, 153), (153, 153, 153),
        (250, 170, 30), (220, 220, 0), (107, 142, 35), (152, 251, 152), (70, 130, 180), (220, 20, 60),
        (255, 0, 0), (0, 0, 142), (0, 0, 70), (0, 60, 100), (0, 80, 100), (0, 0, 230), (119, 11, 32),
    ),
    ids=(7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33),
)  # fmt: skip
"""The 19 classes of Cityscapes that are scored, with the ids of its labelIds files; every other id is void."""

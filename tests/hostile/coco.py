"""Label maps in COCO's JSON, read with `read_labels`."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from hostile.cases import Case, Gives, Refused, Right, equals
from hostile.label_files import read

WHOLE: dict[str, Any] = {
    "images": [{"id": 1, "height": 12, "width": 16, "file_name": "x.jpg"}],
    "categories": [{"id": 5, "name": "red"}],
    "annotations": [
        {"id": 7, "image_id": 1, "category_id": 5, "segmentation": [[0, 0, 16, 0, 16, 12, 0, 12]]}
    ],
}
RED = np.ones((12, 16), np.uint8)
NONE = RED * 255


def with_outline(outline: Any) -> dict[str, Any]:
    content = copy.deepcopy(WHOLE)
    content["annotations"][0]["segmentation"] = outline
    return content


def changed(*path: Any, to: Any) -> dict[str, Any]:
    """The whole one with another value at a path of keys."""
    content = copy.deepcopy(WHOLE)
    where: Any = content
    for key in path[:-1]:
        where = where[key]
    where[path[-1]] = to
    return content


def _cases() -> Iterator[Case]:
    def one(name: str, make: Callable[[], Any], right: Right | None = None) -> Case:
        def write(place: Any) -> None:
            content = make()
            place.write("x.json", content if isinstance(content, (str, bytes)) else json.dumps(content))

        return Case(name, write, read("x.json"), right or Refused(r"x\.json"))

    def anything(value: Any, _: Any) -> None:
        assert value.shape == (12, 16)

    def nothing(value: Any, _: Any) -> None:
        assert value.shape == (0, 16)

    yield one("whole", lambda: WHOLE, equals(RED))
    yield one("run lengths", lambda: with_outline({"size": [12, 16], "counts": [0, 192]}), equals(RED))
    yield one("run lengths as text", lambda: with_outline({"size": [12, 16], "counts": "0P6"}), equals(RED))
    yield one("no annotations", lambda: changed("annotations", to=[]), equals(NONE))
    yield one("a polygon of no corners", lambda: with_outline([[]]), Gives(anything))
    yield one("no JSON", lambda: "{")
    yield one("another byte than text has", lambda: b"\xff\xfe{}")
    yield one("a list", list)
    yield one("a number", lambda: "7")
    yield one("nested without end", lambda: "[" * 100_000)
    yield one("a number of a million digits", lambda: '{"images": ' + "9" * 1_000_000 + "}")
    yield one("no pictures", lambda: changed("images", to=[]))
    yield one("pictures that are a word", lambda: changed("images", to="words"))
    yield one("an unknown category", lambda: changed("annotations", 0, "category_id", to=99))
    yield one("a category of another name", lambda: changed("categories", 0, "name", to="purple"))
    yield one("a category of a list for a name", lambda: changed("categories", 0, "name", to=["red"]))
    yield one("an id that is a list", lambda: changed("images", 0, "id", to=[1]))
    yield one("a height of words", lambda: changed("images", 0, "height", to="12"))
    yield one("a negative height", lambda: changed("images", 0, "height", to=-12))
    yield one("a height of a fraction", lambda: changed("images", 0, "height", to=12.5))
    yield one("no pixels", lambda: changed("images", 0, "height", to=0), Gives(nothing))
    yield one("a height without end", lambda: changed("images", 0, "height", to=10**9))
    yield one("a height beyond any number", lambda: changed("images", 0, "height", to=10**400))
    yield one("an infinite height", lambda: json.dumps(changed("images", 0, "height", to=float("inf"))))
    yield one("a corner that is missing", lambda: with_outline([[0, 0, None, 5, 5, 5]]))
    yield one(
        "a corner that is not a number", lambda: json.dumps(with_outline([[0, 0, float("nan"), 5, 5, 5]]))
    )
    yield one("a corner at infinity", lambda: json.dumps(with_outline([[0, 0, float("inf"), 5, 5, 5]])))
    yield one("a corner at 1e308", lambda: with_outline([[0, 0, 1e308, 5, -1e308, 5]]))
    yield one("a corner a billion pixels out", lambda: with_outline([[0, 0, 1e9, 5, 5, 1e9]]))
    yield one("an odd number of coordinates", lambda: with_outline([[0, 0, 5, 5, 5]]))
    yield one("corners in pairs", lambda: with_outline([[[0, 0], [5, 5], [5, 0]]]))
    yield one("an outline that is a word", lambda: with_outline("words"))
    yield one("an outline that is nothing", lambda: with_outline(None))
    yield one(
        "run lengths of another size",
        lambda: with_outline({"size": [20_000, 20_000], "counts": [0, 400_000_000]}),
    )
    yield one("run lengths that do not add up", lambda: with_outline({"size": [12, 16], "counts": [0, 191]}))
    yield one("a negative run length", lambda: with_outline({"size": [12, 16], "counts": [-1, 193]}))
    yield one("run lengths beyond any number", lambda: with_outline({"size": [12, 16], "counts": [10**30]}))
    yield one("run lengths of fractions", lambda: with_outline({"size": [12, 16], "counts": [0.5, 191.5]}))
    yield one("run lengths of words", lambda: with_outline({"size": [12, 16], "counts": ["a"]}))
    yield one("run lengths whose text is cut", lambda: with_outline({"size": [12, 16], "counts": "0P"}))
    yield one(
        "run lengths whose text never ends", lambda: with_outline({"size": [12, 16], "counts": "o" * 100_000})
    )
    yield one(
        "run lengths whose text is none", lambda: with_outline({"size": [12, 16], "counts": "\x00\xff"})
    )
    yield one("run lengths without a size", lambda: with_outline({"counts": [192]}))
    yield one("a size of three", lambda: with_outline({"size": [12, 16, 1], "counts": [192]}))


CASES = list(_cases())

"""Label maps in GeoJSON, read with `read_labels`."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from hostile.cases import Case, Gives, Refused, Right, equals
from hostile.label_files import read

SQUARE = [[0, 0], [0, 12], [16, 12], [16, 0], [0, 0]]
WHOLE: dict[str, Any] = {
    "type": "FeatureCollection",
    "crs": None,
    "raster": {"height": 12, "width": 16, "transform": [1, 0, 0, 0, 1, 0]},
    "features": [
        {
            "type": "Feature",
            "properties": {"id": 1, "name": "red"},
            "geometry": {"type": "Polygon", "coordinates": [SQUARE]},
        }
    ],
}
RED = np.ones((12, 16), np.uint8)


def changed(*path: Any, to: Any) -> dict[str, Any]:
    """The whole one with another value at a path of keys."""
    content = copy.deepcopy(WHOLE)
    where: Any = content
    for key in path[:-1]:
        where = where[key]
    where[path[-1]] = to
    return content


def geometry(coordinates: Any, kind: str = "Polygon") -> dict[str, Any]:
    return changed("features", 0, "geometry", to={"type": kind, "coordinates": coordinates})


def _cases() -> Iterator[Case]:
    def one(name: str, make: Callable[[], Any], right: Right | None = None) -> Case:
        def write(place: Any) -> None:
            content = make()
            place.write("x.geojson", content if isinstance(content, (str, bytes)) else json.dumps(content))

        return Case(name, write, read("x.geojson"), right or Refused(r"x\.geojson"))

    def anything(value: Any, _: Any) -> None:
        assert value.shape == (12, 16)

    yield one("whole", lambda: WHOLE, equals(RED))
    yield one("several parts", lambda: geometry([[SQUARE]], "MultiPolygon"), equals(RED))
    yield one("no features", lambda: changed("features", to=[]), equals(RED * 255))
    yield one("a height over all", lambda: geometry([[[*xy, 100] for xy in SQUARE]]), equals(RED))
    yield one("another member", lambda: changed("bbox", to=[0, 0, 16, 12]), equals(RED))
    yield one("no JSON", lambda: "{")
    yield one("another byte than text has", lambda: b"\xff\xfe{}")
    yield one("nested without end", lambda: '{"a":' * 100_000)
    yield one("a list", list)
    yield one("no size", lambda: changed("raster", to=None), Refused(r"x\.geojson.*size_hw"))
    yield one("a size of words", lambda: changed("raster", "height", to="many"))
    yield one("a size that is not a number", lambda: json.dumps(changed("raster", "height", to=float("nan"))))
    yield one("an infinite size", lambda: json.dumps(changed("raster", "height", to=float("inf"))))
    yield one("a size without end", lambda: changed("raster", "height", to=10**9))
    yield one("a size beyond any number", lambda: changed("raster", "height", to=10**400))
    yield one("a negative size", lambda: changed("raster", "height", to=-1))
    yield one("a size that is a list", lambda: changed("raster", "width", to=[16]))
    yield one("a transform of four numbers", lambda: changed("raster", "transform", to=[1, 0, 0, 0]))
    yield one("a transform of nothing", lambda: changed("raster", "transform", to=[0] * 6))
    yield one("a transform of words", lambda: changed("raster", "transform", to=["a"] * 6))
    yield one(
        "a transform beyond any number", lambda: changed("raster", "transform", to=[10**400, 0, 0, 0, 1, 0])
    )
    yield one(
        "a transform that is not a number",
        lambda: json.dumps(changed("raster", "transform", to=[float("nan"), 0, 0, 0, 1, 0])),
    )
    yield one("a name of nobody", lambda: changed("features", 0, "properties", "name", to="purple"))
    yield one("a name that is a list", lambda: changed("features", 0, "properties", "name", to=[]))
    yield one("no properties", lambda: changed("features", 0, "properties", to=None))
    yield one("no geometry", lambda: changed("features", 0, "geometry", to=None))
    yield one("a point", lambda: geometry([1, 2], "Point"), Refused(r"x\.geojson.*Point"))
    yield one("a ring of numbers", lambda: geometry([[1, 2, 3]]))
    yield one("a ring of nothing", lambda: geometry([[]]))
    yield one("corners of one number", lambda: geometry([[[1], [2], [3], [1]]]))
    yield one("corners of words", lambda: geometry([[["a", "b"]] * 4]))
    yield one("a corner beyond any number", lambda: geometry([[[0, 0], [10**400, 5], [5, 5], [0, 0]]]))
    yield one(
        "a corner at infinity", lambda: json.dumps(geometry([[[0, 0], [float("inf"), 5], [5, 5], [0, 0]]]))
    )
    yield one(
        "a corner that is not a number",
        lambda: json.dumps(geometry([[[0, 0], [float("nan"), 5], [5, 5], [0, 0]]])),
    )
    yield one("a corner at 1e308", lambda: geometry([[[0, 0], [1e308, 5], [-1e308, 5], [0, 0]]]))
    yield one("rings of several lengths", lambda: geometry([[[0, 0], [1], [5, 5], [0, 0]]]))
    yield one("a ring of two corners", lambda: geometry([[[0, 0], [0, 0]]]), Gives(anything))


CASES = list(_cases())

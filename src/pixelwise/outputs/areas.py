"""How much of a label map belongs to each class: pixels, percent, and square metres where the map tells."""

from __future__ import annotations

import csv
import io
from collections import Counter
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from pixelwise.codes import has
from pixelwise.errors import InputError, MissingExtraError
from pixelwise.georeference import Georeference
from pixelwise.labels import LabelSet
from pixelwise.terminal import printable

# NumPy counts a copy in 64-bit integers: as many pixels at a time as stay in a core's cache
_AT_ONCE = 1 << 16
_BAND = 1 << 22  # pixels asked for at a time
_TABLE = 1 << 20  # ids above this are sorted, not counted in a table


class Rows(Protocol):
    """A label map (h, w) that gives its rows, whether it lies in memory or not; an array is one."""

    @property
    def shape(self) -> tuple[int, ...]: ...

    @property
    def dtype(self) -> np.dtype[Any]: ...

    def __getitem__(self, rows: slice, /) -> NDArray[Any]: ...


def count_ids(labels: Rows) -> dict[int, int]:
    """Id to the number of its pixels, for the ids that occur, ascending. labels (h, w): unsigned integers."""
    h, w = labels.shape
    total: Counter[int] = Counter()
    step = max(1, _BAND // max(w, 1))
    for top in range(0, h, step):
        total.update(_count(labels[top : top + step].reshape(-1)))
    return dict(sorted(total.items()))


def _count(flat: NDArray[Any]) -> dict[int, int]:
    highest = int(flat.max(initial=0))
    if highest >= _TABLE:
        ids, counts = np.unique(flat, return_counts=True)
        return dict(zip(ids.tolist(), counts.tolist(), strict=True))
    table = np.zeros(highest + 1, np.int64)
    step = max(_AT_ONCE, highest)
    for start in range(0, flat.size, step):
        table += np.bincount(flat[start : start + step], minlength=highest + 1)
    return {id: int(table[id]) for id in np.flatnonzero(table).tolist()}


def mask_of(
    labels: NDArray[Any], classes: LabelSet, codes: NDArray[Any] | None, index: int
) -> NDArray[np.bool_]:
    """Where the class of that index is, (h, w): by its id, or where regions overlap, by its bit in the codes. What is
    ignored belongs to no class."""
    if codes is None or index == 0:
        mask: NDArray[np.bool_] = labels == classes.ids[index]
        return mask
    mask = has(codes, index - 1)
    return mask if classes.ignore_id is None else mask & (labels != classes.ignore_id)


def count_codes(labels: Rows, classes: LabelSet, codes: Rows) -> dict[int, int]:
    """Id to the number of the class's pixels where regions overlap, and of those that are ignored, ascending."""
    h, w = labels.shape
    total: Counter[int] = Counter()
    step = max(1, _BAND // max(w, 1))
    for top in range(0, h, step):
        rows, bits = labels[top : top + step], codes[top : top + step]
        for index, id in enumerate(classes.ids):
            total[id] += int(np.count_nonzero(mask_of(rows, classes, bits, index)))
        if classes.ignore_id is not None:
            total[classes.ignore_id] += int(np.count_nonzero(rows == classes.ignore_id))
    return {id: count for id, count in sorted(total.items()) if count}


def summary(labels: Rows, classes: LabelSet, codes: Rows | None = None) -> dict[str, Any]:
    """Size, and of every class that occurs id, name, color, pixels and share of the map, largest first; and the share
    that is ignored, where there is any. Plain values for JSON. codes: of overlapping regions (`pixelwise.codes`), each
    of which counts whole."""
    counts = count_ids(labels) if codes is None else count_codes(labels, classes, codes)
    h, w = labels.shape
    rows = zip(classes.ids, classes.names, classes.colors, strict=True)
    largest_first = sorted((row for row in rows if row[0] in counts), key=lambda row: -counts[row[0]])
    found = [
        {"id": id, "name": name, "color": list(color), "pixels": counts[id], "share": counts[id] / (h * w)}
        for id, name, color in largest_first
    ]
    ignored = counts.get(-1 if classes.ignore_id is None else classes.ignore_id, 0)
    return {"height": h, "width": w, "classes": found, **({"ignored": ignored / (h * w)} if ignored else {})}


def present(labels: Rows, classes: LabelSet, codes: Rows | None = None) -> dict[int, int]:
    """count_ids, or count_codes, without the ignore id. InputError for an id that is neither that nor a class."""
    counts = count_ids(labels) if codes is None else count_codes(labels, classes, codes)
    counts.pop(-1 if classes.ignore_id is None else classes.ignore_id, None)
    stray = counts.keys() - set(classes.ids)
    if stray:
        raise InputError(
            f"the label map holds id {min(stray)} at {counts[min(stray)]} pixels, which is no class; "
            "pass the LabelSet that belongs to it"
        )
    return counts


def projection(georeference: Georeference, what: str) -> Any:
    """Its CRS as rasterio's CRS, None where it has none. what: the task, for the message of MissingExtraError.

    Raises MissingExtraError without rasterio, InputError for a CRS that it does not know.
    """
    try:
        from rasterio.crs import CRS
        from rasterio.errors import CRSError
    except ModuleNotFoundError as error:
        raise MissingExtraError(what, "raster") from error
    if georeference.crs is None:
        return None
    try:
        return CRS.from_user_input(georeference.crs)
    except CRSError as error:
        raise InputError(
            f"crs must be an EPSG code that PROJ knows, as 'EPSG:32633', or WKT, got {georeference.crs[:80]!r}"
        ) from error


def square_metres_per_pixel(georeference: Georeference | None) -> float | None:
    """A pixel's area on the plane of a projected CRS; None where that says nothing of the ground.

    That is without a CRS, in degrees, and in Mercator's projection, whose metres grow with the latitude (web maps
    at 60 degrees show everything four times as large). Elsewhere the projection's own distortion is left in: UTM
    keeps areas to one or two parts in a thousand. Raises as `projection` does.
    """
    if georeference is None or georeference.crs is None:
        return None
    crs = projection(georeference, "square metres of a georeferenced label map")
    if not crs.is_projected or crs.to_dict().get("proj") in ("merc", "webmerc"):
        return None
    _, metres = crs.linear_units_factor
    return georeference.pixel_area * float(metres) ** 2


def areas_csv(
    labels: Rows, classes: LabelSet, georeference: Georeference | None = None, codes: Rows | None = None
) -> str:
    """A table with a header: class, id, pixels, percent (of all pixels), square_metres, largest class first.

    Classes that do not occur are left out; pixels to ignore come last, as class "(ignored)". square_metres is
    "unknown" where the picture does not tell (see `square_metres_per_pixel`). codes: as in `summary`. A class whose
    name begins with = + - @ has an apostrophe before it, as spreadsheets want it; control characters are escaped.
    """
    counts = dict(sorted(present(labels, classes, codes).items(), key=lambda item: -item[1]))
    names = dict(zip(classes.ids, classes.names, strict=True))
    size = labels.shape[0] * labels.shape[1]
    ignored = count_ids(labels).get(-1 if classes.ignore_id is None else classes.ignore_id, 0)
    if ignored and classes.ignore_id is not None:
        names[classes.ignore_id], counts[classes.ignore_id] = "(ignored)", ignored
    metres = square_metres_per_pixel(georeference)
    text = io.StringIO(newline="")
    table = csv.writer(text, lineterminator="\n")
    table.writerow(["class", "id", "pixels", "percent", "square_metres"])
    for id, pixels in counts.items():
        area = "unknown" if metres is None else repr(pixels * metres)
        table.writerow([cell(names[id]), id, pixels, f"{100 * pixels / size:.6g}", area])
    return text.getvalue()


def cell(name: str) -> str:
    """A name that no spreadsheet takes for a formula: behind an apostrophe where it begins like one."""
    name = printable(name)
    return f"'{name}" if name.startswith(("=", "+", "-", "@")) else name

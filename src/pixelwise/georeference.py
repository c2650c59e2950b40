"""Georeference: where on Earth the pixels of a picture lie. Plain numbers and text, so it needs no GIS library."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pixelwise.errors import InputError

Affine = tuple[float, float, float, float, float, float]


@dataclass(frozen=True)
class Georeference:
    """crs: "EPSG:32633" or WKT, or None where it is not known. transform: (a, b, c, d, e, f) of rasterio's order,

        x = a column + b row + c,    y = d column + e row + f,

    from pixel edges (column 0 is the left edge of the first pixel) to the CRS's units.
    """

    crs: str | None
    transform: Affine

    def __post_init__(self) -> None:
        numbers = tuple(float(value) for value in self.transform)
        if len(numbers) != 6 or not np.isfinite(numbers).all():
            raise InputError(
                f"transform must be 6 finite numbers (a, b, c, d, e, f), got {self.transform}; "
                "from rasterio pass tuple(dataset.transform)[:6]"
            )
        object.__setattr__(self, "transform", numbers)
        if self.pixel_area == 0:
            raise InputError(f"transform maps all pixels onto a line: {numbers}; its pixels need an area")

    @property
    def pixel_area(self) -> float:
        """Area of a pixel in squared units of the CRS, positive."""
        a, b, _, d, e, _ = self.transform
        return abs(a * e - b * d)

    @property
    def epsg(self) -> int | None:
        """The CRS's EPSG code, read from "EPSG:code" or from the end of WKT 1 or 2; None if it names none."""
        text = (self.crs or "").strip()
        code = (
            r'(?:AUTHORITY\["EPSG",\s*"|ID\["EPSG",\s*)(\d+)"?\s*\]\s*\]$'  # the last bracket closes the CRS
        )
        found = re.fullmatch(r"EPSG:(\d+)", text, re.IGNORECASE) or re.search(code, text)
        return int(found[1]) if found else None

    def to_world(self, points: NDArray[Any]) -> NDArray[np.float64]:
        """(n, 2) of column and row, at pixel edges, to (n, 2) of x and y in the CRS."""
        a, b, c, d, e, f = self.transform
        column, row = np.asarray(points, np.float64).T
        return np.stack([a * column + b * row + c, d * column + e * row + f], axis=1)

    def to_pixels(self, points: NDArray[Any]) -> NDArray[np.float64]:
        """The inverse of to_world: (n, 2) of x and y to (n, 2) of column and row."""
        a, b, c, d, e, f = self.transform
        x, y = (np.asarray(points, np.float64) - (c, f)).T
        determinant = a * e - b * d
        return np.stack([(e * x - b * y) / determinant, (a * y - d * x) / determinant], axis=1)

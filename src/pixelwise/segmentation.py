"""Segmentation: what comes out. A label map at the picture's own size, and everything one does with it."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pixelwise.errors import InputError, UnknownNameError
from pixelwise.files import writing
from pixelwise.labels import LabelSet

FORMATS = {
    "labels": ".labels.png",
    "overlay": ".overlay.png",
    "legend": ".legend.png",
    "ids": ".ids.png",
    "confidence": ".confidence.png",
    "npy": ".npy",
    "json": ".json",
}
"""What `save` can write, and the ending that the command line gives it. labels: palette PNG of ids, coloured
for people and exact for programs; overlay: the photo with its classes; legend: colours, names, shares; ids: grey
PNG of ids, 8 or 16 bit; confidence: grey PNG, 255 is certain; npy: the array; json: classes and shares."""


@dataclass(frozen=True, eq=False)
class Segmentation:
    """labels: (h, w) unsigned, file ids of `classes`. confidence: (h, w) float32 in (0, 1], the softmax
    probability of the winner, or None if it was not asked for. image: the picture, uint8 RGB (h, w, 3)."""

    labels: NDArray[Any]
    classes: LabelSet
    image: NDArray[np.uint8]
    confidence: NDArray[np.float32] | None = None

    def mask(self, name: str) -> NDArray[np.bool_]:
        """Where a class is: (h, w) boolean. An unknown name is answered with the nearest ones."""
        mask: NDArray[np.bool_] = self.labels == self.classes.ids[self.classes.index(name)]
        return mask

    def areas(self) -> dict[str, float]:
        """Share of the picture of every class that occurs, in [0, 1], largest first."""
        counts = np.bincount(self.labels.ravel(), minlength=max(self.classes.ids) + 1)
        shares = {name: int(counts[i]) / self.labels.size for name, i in self._names() if counts[i]}
        return dict(sorted(shares.items(), key=lambda item: -item[1]))

    def overlay(self, *, alpha: float = 0.5) -> NDArray[np.uint8]:
        """The picture under its classes' colours, uint8 (h, w, 3). alpha: 0 only picture, 1 only colours."""
        from pixelwise import draw

        return draw.overlay(self.image, self.labels, self.classes, alpha=alpha)

    def legend(self) -> NDArray[np.uint8]:
        """Colours, names and shares of the classes that occur, as a picture uint8 (h', w', 3)."""
        from pixelwise import draw

        return draw.legend(self.classes, self.areas())

    def to_pil(self) -> Image.Image:
        """The label map as a palette image of ids (more than 256 ids: 16-bit grey)."""
        image = Image.fromarray(self.labels)
        if self.labels.dtype == np.uint8:
            image.putpalette(self.classes.palette().tobytes())
        return image

    def to_dict(self) -> dict[str, Any]:
        """Size, and of every class that occurs id, name, colour, pixels and share; plain values for JSON."""
        counts = np.bincount(self.labels.ravel(), minlength=max(self.classes.ids) + 1)
        found = [
            {
                "id": i,
                "name": name,
                "color": list(self.classes.colors[self.classes.names.index(name)]),
                "pixels": int(counts[i]),
                "share": int(counts[i]) / self.labels.size,
            }
            for name, i in self._names()
            if counts[i]
        ]
        return {
            "height": self.labels.shape[0],
            "width": self.labels.shape[1],
            "classes": sorted(found, key=lambda entry: -entry["pixels"]),
        }

    def save(
        self, path: str | os.PathLike[str], *, format: str | None = None, overwrite: bool = True
    ) -> Path:
        """Write one of FORMATS to `path`; by default the format follows the suffix (.png: labels).

        What is written as labels, ids or npy reads back to the same label map. The file appears whole or not
        at all. Returns the path.
        """
        path = Path(path)
        if format is None:
            by_suffix = {
                ".png": "labels",
                ".npy": "npy",
                ".json": "json",
                ".jpg": "overlay",
                ".jpeg": "overlay",
            }
            format = by_suffix.get(path.suffix.lower())
            if format is None:
                raise InputError(
                    f"cannot tell a format from {path.name!r}; use .png, .npy, .json, or pass format="
                )
        if format not in FORMATS:
            raise UnknownNameError("format", format, FORMATS)
        if format in ("labels", "ids") and path.suffix.lower() != ".png":
            raise InputError(f"format {format!r} is written as PNG, which keeps ids exact; got {path.name!r}")
        with writing(path, overwrite=overwrite) as temporary:
            self._write(temporary, format)
        return path

    def _write(self, path: Path, format: str) -> None:
        if format == "npy":
            np.save(path, self.labels)
        elif format == "json":
            path.write_text(json.dumps(self.to_dict(), indent=1) + "\n", encoding="utf-8")
        elif format == "labels":
            self.to_pil().save(path, optimize=False)
        elif format == "ids":
            Image.fromarray(self.labels).save(path)
        elif format == "overlay":
            Image.fromarray(self.overlay()).save(path, **_encoder(path))
        elif format == "legend":
            Image.fromarray(self.legend()).save(path)
        else:
            if self.confidence is None:
                raise InputError(
                    "there is no confidence to save; ask for it: segmenter(image, confidence=True)"
                )
            Image.fromarray(np.round(self.confidence * 255).astype(np.uint8)).save(path)

    def _names(self) -> list[tuple[str, int]]:
        return list(zip(self.classes.names, self.classes.ids, strict=True))


def _encoder(path: Path) -> dict[str, Any]:
    """PNG at zlib's fastest level: overlays are looked at, not archived."""
    return {"compress_level": 1} if path.suffix.lower() == ".png" else {"quality": 92}

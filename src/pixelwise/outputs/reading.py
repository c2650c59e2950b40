"""The way back: a label map from any exact file that `Segmentation.save` writes."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from pixelwise.errors import InputError
from pixelwise.images import check_file
from pixelwise.labels import LabelSet

SUFFIXES = ".png .npy .tif .tiff .json .geojson".split()


def read_labels(path: str | os.PathLike[str], classes: LabelSet) -> NDArray[Any]:
    """The label map (h, w) of a file, by its suffix: .png (labels or ids), .npy, .tif, .json (COCO), .geojson.

    `classes` matter for COCO and GeoJSON, whose objects bear names; the others hold the ids themselves.
    Raises ImageError where there is no file, InputError for a file of another kind, with its name.
    """
    path = Path(path)
    check_file(path)
    try:
        labels = _read(path, classes)
    except (OSError, SyntaxError, ValueError, UnidentifiedImageError) as error:
        raise InputError(f"{path}: {error}") from error
    if labels.ndim != 2 or labels.dtype.kind not in "ui":
        raise InputError(f"{path} holds {labels.dtype} {labels.shape}, expected a label map: (h, w) integers")
    return labels


def _read(path: Path, classes: LabelSet) -> NDArray[Any]:
    from pixelwise.outputs import coco, geo

    suffix = path.suffix.lower()
    if suffix == ".npy":
        array: NDArray[Any] = np.load(path, allow_pickle=False)
        return array
    if suffix == ".png":
        with Image.open(path) as image:
            return np.asarray(image)
    if suffix in (".tif", ".tiff"):
        return geo.read_raster(path)
    if suffix == ".geojson":
        return geo.labels_from_geojson(json.loads(path.read_bytes()), classes)
    if suffix == ".json":
        return coco.labels_from_coco(json.loads(path.read_bytes()), classes)
    raise InputError(f"cannot tell what it holds; label maps are read from {', '.join(SUFFIXES)}")

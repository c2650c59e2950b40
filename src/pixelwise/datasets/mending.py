"""`pixelwise check --fix`: label maps for which there is one right answer are written as it; the originals are kept."""

from __future__ import annotations

import os
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pixelwise.datasets.opening import DataSet
from pixelwise.datasets.pair_faults import plainer
from pixelwise.errors import ImageError, InputError
from pixelwise.files import writing
from pixelwise.images import read_values
from pixelwise.terminal import counted

KEPT = "before_fix"
"""The folder in the data set that receives the originals, under the same names."""

EXACT = {".png", ".tif", ".tiff", ".bmp"}
"""Suffixes of the label maps that are looked at."""


def mend(data: DataSet) -> list[str]:
    """Rewrite label maps whose ids are right and whose form is not, as PNG of 8 bits: ids below 256 in 16 bits, ids
    stretched by 257, and channels for nothing (equal ones, and alpha that is all opaque). Returns what was done, in
    sentences. Raises InputError for a data set that is no folder of one's own.
    """
    if data.layout != "folder" or data.regions:
        raise InputError(
            f"--fix changes folders of images/ and masks/ only, and {data.root} is a {data.layout} data set"
        )
    done: Counter[str] = Counter()
    for pair in data.pairs:
        if pair.mask is None or pair.ids is not None or pair.mask.suffix.lower() not in EXACT:
            continue
        try:
            values, mode = read_values(pair.mask)
        except ImageError:  # which the doctor names
            continue
        what, plain = _plain(values)
        if plain is not None and mode != "P":
            _keep(pair.mask, data.root)
            _replace(pair.mask, plain)
            done[what] += 1
    said = [f"written with 8 bits: {counted(count, 'label map')} {what}" for what, count in done.items()]
    return [*said, f"the originals are in {data.root / KEPT}"] if said else ["there was nothing to fix"]


def _plain(values: NDArray[Any]) -> tuple[str, NDArray[np.uint8] | None]:
    """(what was wrong, the ids of 8 bits), or None where nothing is, or no answer is the only right one."""
    what = []
    if values.ndim == 3:
        plain = plainer(values)
        if plain is None:
            return "", None
        values, what = plain, ["of several channels"]
    if values.dtype.kind in "ui" and values.dtype.itemsize > 1 and values.size and values.min() >= 0:
        if values.max() > 255 and not (values % 257).any() and values.max() <= 65535:
            values, what = values // 257, [*what, "of ids stretched to 16 bits"]
        elif values.max() <= 255:
            what = [*what, "of 16 bits for ids below 256"]
    if not what or values.dtype.kind not in "ui" or values.max(initial=0) > 255:
        return "", None
    return " and ".join(what), values.astype(np.uint8)


def _keep(path: Path, root: Path) -> None:
    """Copy an original to where it is kept; one that is there already is never written over."""
    inside = path.relative_to(root)
    kept = root / KEPT / inside
    number = 2
    while os.path.lexists(kept):
        kept, number = (root / KEPT / inside).with_name(f"{path.stem}-{number}{path.suffix}"), number + 1
    with writing(kept, overwrite=False) as temporary:
        shutil.copyfile(path, temporary)


def _replace(path: Path, ids: NDArray[np.uint8]) -> None:
    """Write the ids in the place of a label map, as PNG; a file of another kind goes."""
    target = path.with_suffix(".png")
    if target != path and os.path.lexists(target):
        raise InputError(f"{path} cannot become {target.name}, which is there already; remove one of them")
    with writing(target) as temporary:
        Image.fromarray(ids).save(temporary, "PNG")
    if target != path:
        path.unlink()

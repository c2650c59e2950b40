"""The way back: a label map from any exact file that `Segmentation.save` writes."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from pixelwise.errors import InputError, MissingExtraError, PixelwiseError, first_line
from pixelwise.images import check_file
from pixelwise.labels import LabelSet
from pixelwise.outputs.formats import READERS
from pixelwise.sources.volume import is_volume


def read_labels(path: str | os.PathLike[str], classes: LabelSet) -> NDArray[Any]:
    """The label map (h, w) of a file that holds one exactly, or of a scan's file the label volume (d, h, w); what it is
    says its suffix (`formats.READERS`).

    `classes` matter for COCO and GeoJSON, whose objects bear names; the others hold the ids themselves.
    Raises ImageError where there is no file, InputError for a file of another kind, with its name.
    """
    path = Path(path)
    check_file(path)
    try:
        if (read := READERS.get(path.suffix.lower())) is None:
            raise InputError(f"cannot tell what it holds; label maps are read from {', '.join(READERS)}")
        labels = read(path, classes)
    except MissingExtraError:
        raise
    except PixelwiseError as error:
        raise InputError(f"{path}: {error}") from error
    except Exception as error:  # decoders of others raise nearly anything for damaged files
        line = first_line(error)
        raise InputError(f"{path} is damaged, or none of its kind ({line[:200]})") from error
    if labels.ndim != (3 if is_volume(path) else 2) or labels.dtype.kind not in "ui":
        expected = "volume: (d, h, w)" if is_volume(path) else "map: (h, w)"
        raise InputError(f"{path} holds {labels.dtype} {labels.shape}, expected a label {expected} integers")
    return labels

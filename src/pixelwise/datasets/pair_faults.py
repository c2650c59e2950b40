"""What is wrong with a picture, with its label map, or between the two."""

from __future__ import annotations

from collections import Counter
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pixelwise.datasets.findings import Finding, Mends, Report, finding_of
from pixelwise.datasets.sample import Pair
from pixelwise.errors import ImageError, InputError
from pixelwise.images import read_values

LOSSY = {".jpg", ".jpeg", ".jpe", ".jfif", ".webp", ".avif", ".jp2"}


def plainer(values: NDArray[Any]) -> NDArray[Any] | None:
    """The ids (h, w) of a label map (h, w, c) that has channels for nothing: equal ones, and alpha that is all opaque.
    None where something would be lost."""
    color, alpha = (values[..., :-1], values[..., -1]) if values.shape[2] in (2, 4) else (values, None)
    if alpha is not None and (alpha != np.iinfo(alpha.dtype).max).any():
        return None
    first: NDArray[Any] = color[..., 0]
    return first if all((color[..., i] == first).all() for i in range(1, color.shape[2])) else None


def examine_picture(pair: Pair, report: Report, mends: Mends) -> NDArray[Any] | None:
    if pair.image is None:
        message = f"{pair.name} ({pair.split}) has a label map but no picture"
        report.findings.append(
            finding_of("missing picture", "error", message, mends.or_leave_out("add it"), pair.mask)
        )
        return None
    try:
        picture = pair.read_unscaled()
        if pair.picture is not None:
            return picture
        with Image.open(pair.image) as opened:
            orientation, alpha = opened.getexif().get(0x0112, 1), _uses_alpha(opened)
    except ImageError as error:
        fix = mends.or_leave_out("replace the file")
        report.findings.append(finding_of("unreadable", "error", str(error), fix, pair.image))
        return None
    if alpha:
        message = "the picture is partly transparent; pixelwise lays it over white"
        report.findings.append(
            finding_of("transparent picture", "warning", message, "save it as RGB", pair.image)
        )
    sizes_tell = orientation >= 5 and picture.shape[0] != picture.shape[1]  # turned by a quarter
    if orientation != 1 and not sizes_tell and pair.mask is not None:
        message = f"the EXIF tag turns or mirrors the picture (orientation {orientation}); is its label map turned too?"
        fix = "save the picture turned and without the tag, and look at the pair"
        report.findings.append(finding_of("EXIF orientation", "warning", message, fix, pair.image))
    return picture


def examine_mask(pair: Pair, report: Report, modes: Counter[str], mends: Mends) -> NDArray[Any] | None:
    """The ids (h, w), or None when there are none to be had."""

    def found(kind: str, severity: Literal["error", "warning"], message: str, fix: str) -> None:
        report.findings.append(finding_of(kind, severity, message, fix, pair.mask))

    if pair.mask is None:
        message = f"{pair.name} ({pair.split}) has a picture but no label map"
        report.findings.append(
            finding_of("missing label map", "error", message, mends.or_leave_out("draw it"), pair.image)
        )
        return None
    if pair.ids is not None:
        try:
            return pair.read_ids()
        except InputError as error:
            found("unreadable", "error", str(error), mends.or_leave_out("correct the file"))
            return None
    try:
        values, mode = read_values(pair.mask)
    except ImageError as error:
        fix = mends.or_leave_out("replace the file")
        found("unreadable", "error", f"the label map cannot be read ({error})", fix)
        return None
    modes["colour" if values.ndim == 3 and values.shape[2] >= 3 else "ids"] += 1
    if pair.mask.suffix.lower() in LOSSY:
        fix = mends.anew("save it again as PNG from what it was made of")
        found("lossy label map", "error", "lossy compression changes ids at borders", fix)
        return None
    if values.ndim == 3 and mode in ("LA", "RGBA", "PA"):
        fix = (
            mends.in_place
            if plainer(values) is not None
            else mends.anew("save ids only, as PNG of mode L or P")
        )
        found("label map with alpha", "error", f"mode {mode} has an alpha channel", fix)
        return plainer(values)
    if values.ndim == 3 and (plain := plainer(values)) is not None:
        found(
            "grey label map as RGB",
            "error",
            "its three channels are equal: ids saved as grey",
            mends.in_place,
        )
        return plain
    if values.ndim == 3:
        colours = np.unique(values.reshape(-1, values.shape[2]), axis=0)
        shown = ", ".join(str(tuple(int(v) for v in c)) for c in colours[:4])
        message = f"it holds colours, not ids: {len(colours)} of them, such as {shown}"
        found("RGB label map", "error", message, mends.anew("replace each colour by the id of its class"))
        return None
    if values.dtype == bool:
        values = values.astype(np.uint8)
    if not np.issubdtype(values.dtype, np.integer):
        found("label map of floats", "error", f"it holds {values.dtype} values", "save integer ids")
        return None
    if values.dtype.itemsize > 1 and values.size:
        top, step = int(values.max()), 257
        if top > 255 and not (values % step).any():
            message = f"16-bit values up to {top} are all multiples of 257: ids were stretched to 16 bits"
            found("stretched 16-bit label map", "error", message, mends.in_place)
            values = values // step
        elif top <= 255:
            message = "16-bit file for ids below 256; other tools may stretch or cut them"
            found("16-bit label map", "warning", message, mends.in_place)
    ids: NDArray[Any] = values
    return ids


def sizes_differ(pair: Pair, picture: tuple[int, ...], labels: tuple[int, ...], mends: Mends) -> Finding:
    said = f"the picture is {picture[0]} x {picture[1]} (h x w), its label map {labels[0]} x {labels[1]}"
    if labels[::-1] == picture:
        fix = mends.anew("turn the map, or the picture where an EXIF tag turns it, and look at the pair")
        return finding_of("turned label map", "error", said, fix, pair.mask)
    return finding_of("sizes differ", "error", said, mends.or_leave_out("redraw the map"), pair.mask)


def _uses_alpha(image: Image.Image) -> bool:
    if image.mode not in ("RGBA", "LA", "PA", "RGBa", "La"):
        return False
    low = image.getchannel("A").getextrema()[0]
    return isinstance(low, (int, float)) and low < 255

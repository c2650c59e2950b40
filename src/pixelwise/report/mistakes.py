"""Where an answer is right and where it is wrong, as a picture: over the photo in grey, in colours of its own."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pixelwise.labels import Color

PLAIN, RIGHT, MISSED, INVENTED, OTHER = range(5)
"""What a pixel is: nothing to tell, right, an object that was missed, one that is not there, or another class."""

SAYS = {
    RIGHT: "right",
    MISSED: "missed: there, and not found",
    INVENTED: "invented: found, and not there",
    OTHER: "taken for another class",
}

COLORS: dict[int, Color] = {
    RIGHT: (51, 102, 0),
    MISSED: (255, 230, 0),
    INVENTED: (0, 230, 255),
    OTHER: (153, 0, 153),
}
"""Told apart, and from the greys, however one sees, and from the first colours of classes: see `labels.APART`. What is
right is the darkest, so that one sees what is wrong."""

LIGHT, DARK = (255, 255, 255), (0, 0, 0)
"""The two lines round what is coloured, so that one of them stands out wherever it lies."""

_GREYS = 48
"""Shades that are left of the photo, from _DARKEST to _LIGHTEST: fewer make a smaller file."""

_DARKEST, _LIGHTEST = 56, 200


def verdict(given: NDArray[Any], target: NDArray[Any], ground: int | None, void: int) -> NDArray[np.uint8]:
    """What each pixel is, (h, w) uint8 of PLAIN to OTHER.

    given, target: class indices (h, w). ground: the class on which the others lie: where answer and truth are both it,
    or where the truth is unknown (void), there is nothing to tell. None: no class is; then what is right is plain, and
    what is wrong another class.
    """
    known, same = target != void, given == target
    found = np.full(target.shape, OTHER, np.uint8)
    if ground is None:
        found[same] = PLAIN
    else:
        doubtful = given == void  # no answer is no object
        found[(given == ground) | doubtful] = MISSED
        found[target == ground] = INVENTED
        found[same] = RIGHT
        found[(target == ground) & (same | doubtful)] = PLAIN
    found[~known] = PLAIN
    return found


def picture(image: NDArray[np.uint8], found: NDArray[np.uint8]) -> Image.Image:
    """The photo in grey under `found`, what is coloured with a light line and a dark one round it.

    image (h, w, 3), found (h, w) of `verdict`. A palette image, in which the colours are exactly those of COLORS.
    """
    grey = np.asarray(Image.fromarray(image).convert("L"), np.float32)
    shades = np.clip(grey * (_GREYS / 256), 0, _GREYS - 1).astype(np.uint8)
    marked = found > PLAIN
    inner = _grown(marked)
    pixels = np.where(_grown(inner), np.uint8(_GREYS + 1), shades)
    pixels[inner] = _GREYS
    pixels[marked] = _GREYS + 1 + found[marked]
    ramp = np.linspace(_DARKEST, _LIGHTEST, _GREYS).round().astype(np.uint8)
    palette = [[v, v, v] for v in ramp] + [[*LIGHT], [*DARK], *([*COLORS[code]] for code in sorted(COLORS))]
    shown = Image.fromarray(pixels)
    shown.putpalette(np.array(palette, np.uint8).tobytes())
    return shown


def _grown(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The mask and its neighbours above, below, left and right."""
    out: NDArray[np.bool_] = mask.copy()
    out[1:] |= mask[:-1]
    out[:-1] |= mask[1:]
    out[:, 1:] |= mask[:, :-1]
    out[:, :-1] |= mask[:, 1:]
    return out

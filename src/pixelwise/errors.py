"""The exceptions of pixelwise. Every message says what was expected, what came, and what to do.

PixelwiseError                something outside the caller's hands failed (command line: exit code 1)
├── DownloadError             a file could not be fetched (also an OSError)
├── ExportError               a network could not be exported, or its export disagrees with it
├── MissingExtraError         an optional dependency is not installed (also an ImportError)
└── InputError                what was passed in cannot be used (also a ValueError; exit code 2)
    ├── ColorError            a colour is not three numbers in range (also a RuntimeError)
    ├── ImageError            a picture is missing, damaged, too large or of an unknown kind
    ├── OutputError           a result cannot be written where it was asked for
    ├── UnknownNameError      no model, class, engine or option has that name
    └── WeightsError          weights do not fit the network, or their hash is wrong

PixelwiseWarning (a UserWarning) is what our own warnings are.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class PixelwiseError(Exception):
    """Base of all errors that pixelwise raises on purpose."""

    exit_code = 1


class PixelwiseWarning(UserWarning):
    """What goes on all the same, but may not be what was meant; the message says how to say what is."""


class DownloadError(PixelwiseError, OSError):
    """A file could not be fetched; the message names the address and where to put the file by hand."""


class ExportError(PixelwiseError):
    """A network could not be exported, or the export's numbers are too far from the network's."""


class MissingExtraError(PixelwiseError, ImportError):
    """An optional dependency is missing; the message names the extra that brings it."""

    def __init__(self, what: str, extra: str) -> None:
        super().__init__(f"{what} needs an optional part of pixelwise; run: pip install 'pixelwise[{extra}]'")


class InputError(PixelwiseError, ValueError):
    """What was passed in cannot be used."""

    exit_code = 2


class ImageError(InputError):
    """A picture is missing, empty, truncated, too large, or not a picture."""


class ColorError(InputError, RuntimeError):
    """A colour is not three numbers in range (also a RuntimeError, which is what torchvision raises)."""


class OutputError(InputError):
    """A result cannot be written where it was asked for."""


class UnknownNameError(InputError):
    """A name is not known; the message proposes the nearest ones."""

    def __init__(self, kind: str, name: object, known: Iterable[str]) -> None:
        super().__init__(f"Unknown {kind} {name!r}; {suggest(str(name), known)}")


class WeightsError(InputError):
    """Weights do not fit the network, hold something else than tensors, or have the wrong hash."""


def suggest(name: str, known: Iterable[str]) -> str:
    """The end of an error message: the names nearest to `name`, or all of them when they are few."""
    names = sorted(known)
    close = difflib.get_close_matches(name, names, n=3, cutoff=0.6)
    if close:
        return f"did you mean {' or '.join(repr(c) for c in close)}?"
    if len(names) <= 30:
        return f"known: {', '.join(names)}"
    return f"{len(names)} names are known, none of them near"

"""What is printed for people: one line each, in which the name of a file can do nothing to the terminal."""

from __future__ import annotations

import codecs
import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TextIO

CONTROL = re.compile(
    r"[\x00-\x1f\x7f-\x9f\udc80-\udc9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\U000e0000-\U000e007f]"
)
"""Control characters, also as bytes that are no text, line separators, what turns the direction of the text that
follows, and letters that nobody sees."""


def printable(text: object) -> str:
    """`text` on one line: what would control the terminal, end the line or turn it round becomes its escape (\\x1b)."""
    return CONTROL.sub(lambda found: found[0].encode("unicode_escape").decode(), str(text))


def counted(number: int, what: str) -> str:
    """1 picture, 2 pictures, 0 classes."""
    plural = f"{what}es" if what.endswith("s") else f"{what}s"
    return f"{number:,} {what if number == 1 else plural}"


def without_secrets(url: str) -> str:
    """An address for messages: without the user and password, and the query, that may be in it."""
    return re.sub(r"[?#].*", "", re.sub(r"^([^/?#]*//)[^/?#]*@", r"\1", url))


def say(line: object, *, file: TextIO | None = None) -> None:
    """Print one line of results on standard output, or on `file`, at once."""
    print(printable(line), file=file or sys.stdout, flush=True)


def note(sentence: object) -> None:
    """Print a sentence about the work, not its result, on standard error: "pixelwise: ..."."""
    say(f"pixelwise: {' '.join(str(sentence).split())}", file=sys.stderr)


def print_any_name() -> None:
    """From now on names that are bytes and no text are printed as those bytes, and what the terminal has no sign for
    as an escape; printing never fails for a name."""
    codecs.register_error("pixelwise", _as_bytes)
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="pixelwise")


def _as_bytes(error: UnicodeError) -> tuple[str | bytes, int]:
    try:
        return codecs.lookup_error("surrogateescape")(error)
    except UnicodeError:
        return codecs.lookup_error("backslashreplace")(error)


@contextmanager
def libraries_silenced() -> Iterator[None]:
    """Python's standard error goes on; what libraries in C write there beside it, such as libtiff of a damaged file,
    goes nowhere."""
    ours: Any = sys.stderr  # None where there is no console
    try:
        if ours is None or id(ours) != id(sys.__stderr__) or ours.fileno() != 2:
            raise ValueError
        ours.flush()
        kept = os.dup(2)
    except (OSError, ValueError):  # closed, or not the process's own
        yield
        return
    with open(kept, "w", buffering=1, encoding=ours.encoding, errors=ours.errors) as stream:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, 2)
        os.close(nowhere)
        sys.stderr = stream
        try:
            yield
        finally:
            sys.stderr = ours
            stream.flush()
            os.dup2(kept, 2)

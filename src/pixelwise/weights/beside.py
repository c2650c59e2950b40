"""Files beside a model's own that hold its weights: OpenVINO's .bin, and what an ONNX file keeps outside of itself."""

from __future__ import annotations

import mmap
import re
from contextlib import suppress
from pathlib import Path

PLACE = re.compile(rb"\n\x08location\x12([\x00-\x7f]|[\x80-\xff][\x01-\x7f])", re.DOTALL)
"""In the bytes of an ONNX file a tensor's note of the file that holds it, as far as the length of the name."""


def beside(path: Path) -> list[Path]:
    """The other files that the model in `path` consists of, those that are there."""
    others = []
    if path.suffix.lower() == ".xml":
        others = [path.with_suffix(".bin")]
    elif path.suffix.lower() == ".onnx":
        with suppress(OSError, ValueError):  # what cannot be read is found out by whoever opens it
            others = [path.parent / name for name in outside(path)]
    found = []
    for other in others:
        with suppress(OSError, ValueError):  # what is no name of a file
            if other.is_file():
                found.append(other)
    return found


def outside(path: Path) -> list[str]:
    """The names of the files that an ONNX file says hold its weights; none where it holds them itself."""
    if path.stat().st_size == 0:
        return []
    names = set()
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        for place in PLACE.finditer(content):
            low, *high = place[1]
            length = (low & 0x7F) + (high[0] << 7 if high else 0)
            names.add(content[place.end() : place.end() + length].decode("utf-8", "surrogateescape"))
    return sorted(names)

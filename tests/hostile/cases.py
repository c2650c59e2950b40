"""What a case is: a hostile file, what a user does with it, and what is right."""

from __future__ import annotations

import contextlib
import functools
import importlib
import io
import os
import re
import struct
import sys
import tempfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from pixelwise.errors import InputError, PixelwiseError

KINDS = (
    "pictures", "rasters", "videos", "label_files", "coco", "geojson", "data_sets", "adopted", "class_files", "cards",
    "onnx_files", "checkpoints", "folders", "journals", "runs", "configs",
)  # fmt: skip
"""The files of this package that hold tables of cases."""


@dataclass(frozen=True)
class Place:
    """Where a case happens. folder: its own, and the working directory; outside: a folder that it must not touch, with
    the file `secret.png` in it; address: of a server which nothing may ask."""

    folder: Path
    outside: Path
    address: str

    def write(self, name: str, data: bytes | str) -> Path:
        """A file in the folder, with the folders above it."""
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data if isinstance(data, bytes) else data.encode("utf-8", "surrogateescape"))
        return path


@dataclass(frozen=True)
class Answer:
    """What a command gave."""

    code: int
    out: str


@dataclass(frozen=True)
class Refused:
    """One sentence is right: an error of this class (of a command its exit code) that says `says` (a pattern)."""

    says: str
    error: type[PixelwiseError] = InputError


@dataclass(frozen=True)
class Gives:
    """A value is right: the one that `check` passes, by assertions; commands give an `Answer`."""

    check: Callable[[Any, Place], None]


Right = Refused | Gives


@dataclass(frozen=True)
class Case:
    """name: what is wrong with the file. make: puts it into the place. do: what a user does; returns a value, or raises
    PixelwiseError. leaves: patterns of new files that may stay (of a command that succeeds: its results). deletes:
    likewise of files that may go, or become others. slow: in continuous integration only. needs:
    packages.
    """

    name: str
    make: Callable[[Place], object]
    do: Callable[[Place], Any]
    right: Right
    leaves: tuple[str, ...] = ()
    slow: bool = False
    deletes: tuple[str, ...] = ()
    needs: tuple[str, ...] = field(default=())


class Failed(Exception):
    """A command that ended with an exit code other than 0 and wrote this to standard error."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(text)
        self.code = code


@contextlib.contextmanager
def own_stderr() -> Iterator[list[str]]:
    """The process's own standard error, as a command has it; what is written there, also by libraries in C."""
    said = [""]
    kept, place = os.dup(2), os.memfd_create("stderr")
    os.dup2(place, 2)
    assert sys.__stderr__ is not None
    try:
        with contextlib.redirect_stderr(sys.__stderr__):
            yield said
    finally:
        sys.__stderr__.flush()
        os.dup2(kept, 2)
        os.close(kept)
        with open(place, "rb") as file:
            file.seek(0)
            said[0] = file.read().decode("utf-8", "replace")


def typed(*words: str) -> Callable[[Place], Answer]:
    """`pixelwise WORDS`, in the folder of the case; "{outside}" and "{address}" stand for those of the place.

    Raises Failed where the command says on standard error why it ends with a code other than 0.
    """

    def do(place: Place) -> Answer:
        from pixelwise.cli import main

        before, sys.argv = sys.argv, [
            "pixelwise", *(w.format(outside=place.outside, address=place.address) for w in words)
        ]  # fmt: skip
        out = io.TextIOWrapper(io.BytesIO(), encoding="utf-8", errors="surrogateescape")
        code = 0
        try:
            with contextlib.redirect_stdout(out), own_stderr() as said:
                main()
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else int(end.code is not None)
        finally:
            sys.argv = before
        out.flush()
        texts = [out.buffer.getvalue().decode("utf-8", "replace"), said[0]]  # type: ignore[attr-defined]
        if words[0] == "train":  # which also says how it goes
            texts[1] = "".join(line for line in texts[1].splitlines(True) if line.startswith("pixelwise: "))
        if code and texts[1]:
            raise Failed(code, texts[1])
        return Answer(code, texts[0])

    return do


def accepted(*patterns: str) -> Gives:
    """A command that ends well, and prints each of the patterns."""

    def check(answer: Answer, _: Place) -> None:
        for pattern in patterns:
            assert re.search(pattern, answer.out), f"{pattern!r} is not in {answer.out[:300]!r}"

    return Gives(check)


def equals(expected: Any, tolerance: int = 0) -> Gives:
    """An array of this shape that differs by no more than `tolerance`."""

    def check(value: Any, _: Place) -> None:
        assert np.shape(value) == np.shape(expected), f"shape {np.shape(value)}"
        assert np.abs(np.asarray(value).astype(np.int64) - expected).max() <= tolerance, "other values"

    return Gives(check)


def every(kinds: tuple[str, ...] = KINDS) -> Iterator[tuple[str, Case]]:
    """All cases with their kind."""
    for kind in kinds:
        for case in importlib.import_module(f"hostile.{kind}").CASES:
            yield kind, case


def find(kind: str, name: str) -> Case:
    (case,) = (case for _, case in every((kind,)) if case.name == name)
    return case


# What several tables draw -----------------------------------------------------------------------------------


def flat(color: tuple[int, int, int], size_hw: tuple[int, int] = (12, 16)) -> np.ndarray:
    return np.full((*size_hw, 3), color, np.uint8)


def encoded(image: Image.Image | np.ndarray, kind: str, **options: Any) -> bytes:
    file = io.BytesIO()
    (image if isinstance(image, Image.Image) else Image.fromarray(image)).save(file, kind, **options)
    return file.getvalue()


def npy(values: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.save(file, values)
    return file.getvalue()


def chunk(name: bytes, data: bytes) -> bytes:
    """One part of a PNG."""
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def png(header: bytes, rows: bytes, *more: bytes) -> bytes:
    """A PNG from what its parts hold. more: whole parts before the pixels."""
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + b"".join(more)
        + chunk(b"IDAT", zlib.compress(rows, 9))
        + chunk(b"IEND", b"")
    )


def flipped(data: bytes, *places: int) -> bytes:
    """The bytes at these places turned over."""
    changed = bytearray(data)
    for place in places:
        changed[place] ^= 255
    return bytes(changed)


@functools.cache
def _colors_model() -> bytes:
    from pixelwise.inference.preprocess import Preprocess
    from tiny import CARD, write_colors_model

    with tempfile.TemporaryDirectory() as folder:
        card = CARD.replace(preprocess=Preprocess(mean=(0, 0, 0), std=(1, 1, 1), multiple=2))
        return write_colors_model(Path(folder, "colors.onnx"), card).read_bytes()


def colors_model(place: Place) -> Path:
    """The model of `tiny.py`, for pictures of any size, as colors.onnx."""
    return place.write("colors.onnx", _colors_model())


def segmented(source: str, *more: str) -> Callable[[Place], Answer]:
    """`pixelwise segment SOURCE` with that model."""
    return typed("segment", source, "--model", "colors.onnx", "--out", "out", *more)


def labels_of(file: str, expected: Any) -> Gives:
    """A command that ends well and leaves this label map in a file."""

    def check(_: Answer, place: Place) -> None:
        path = place.folder / file
        found = np.load(path) if path.suffix == ".npy" else np.asarray(Image.open(path))
        assert found.shape == np.shape(expected), f"shape {found.shape}"
        assert (found == expected).all(), f"other labels: {np.unique(found)}"

    return Gives(check)

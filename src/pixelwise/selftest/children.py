"""What `checks.py` has other processes do: `python -m pixelwise.selftest.children WHAT ...`, which may be killed."""

from __future__ import annotations

import itertools
import multiprocessing
import sys
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pixelwise import kernels
from pixelwise.files import held, writing
from pixelwise.segmenter import Segmenter
from pixelwise.selftest.answers import picture

PATIENCE_S = 40
"""How long a process may take for one picture; starting takes a few seconds."""

BLOCKS, BLOCK = 20_000, 8
"""A version of the file that `write_again_and_again` writes: its number, eight digits, so many times."""


def answer_elsewhere(model: Path, method: str) -> None:
    """A Segmenter that was used here answers the same in a process that `method` starts. The compiled loops and their
    threads are at work on both sides."""
    assert kernels.threads() > 0  # imported, so that labels are decided by the compiled loops
    segmenter = Segmenter(model, threads=2)
    expected = segmenter(picture()).labels
    context: Any = multiprocessing.get_context(method)
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_answer, args=(sender, segmenter), daemon=True)
    process.start()
    sender.close()
    try:
        found: NDArray[Any] | None = receiver.recv() if receiver.poll(PATIENCE_S) else None
    except EOFError:
        process.join()
        sys.exit(f"the process ended with code {process.exitcode} and without an answer")
    finally:
        process.kill()
        process.join()
    if found is None:
        sys.exit(f"the process gave no answer within {PATIENCE_S} seconds")
    if not np.array_equal(found, expected):
        sys.exit(f"{int((found != expected).sum())} of {expected.size} pixels have another class there")


def _answer(sender: Connection, segmenter: Segmenter) -> None:
    assert kernels.threads() > 0
    sender.send(segmenter(picture()).labels)


def write_again_and_again(path: Path) -> None:
    """Numbered versions of one file, until somebody ends it."""
    for number in itertools.count():
        with writing(path) as temporary:
            temporary.write_bytes(f"{number:0{BLOCK}d}".encode() * BLOCKS)
        if number == 0:
            print("begun", flush=True)


def hold(path: Path) -> None:
    """Hold a lock, until somebody ends it."""
    with held(path, "the folder"):
        print("held", flush=True)
        sys.stdin.read()


if __name__ == "__main__":
    what, place, *more = sys.argv[1:]
    if what == "answer":
        answer_elsewhere(Path(place), *more)
    else:
        {"write": write_again_and_again, "hold": hold}[what](Path(place))

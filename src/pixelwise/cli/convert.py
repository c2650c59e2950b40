"""`pixelwise convert`: a checkpoint of one family to our file, or to another family's names."""

from __future__ import annotations

from pathlib import Path

from pixelwise.errors import MissingExtraError
from pixelwise.files import check_writable
from pixelwise.terminal import say


def run(source: Path, out: Path, to: str | None, allow_pickle: bool, overwrite: bool) -> None:
    """Convert and say what was found."""
    try:
        from pixelwise.checkpoints.saving import convert_file
    except ModuleNotFoundError as error:
        raise MissingExtraError("converting checkpoints", "torch") from error
    if to != "smp":  # which writes a folder
        check_writable(out, overwrite=overwrite)
    said = convert_file(source, out, to=to, allow_pickle=allow_pickle, overwrite=overwrite)
    say(f"{source} -> {out}: {said}")

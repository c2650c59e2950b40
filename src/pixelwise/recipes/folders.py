"""What all recipes are asked on the command line: the folder of the data, and the one for what comes out."""

from __future__ import annotations

import argparse
from pathlib import Path


def folders(
    does: str, name: str, *, holds: str, gets: str = "checkpoints, model and report"
) -> tuple[Path, Path]:
    """(--data, --out, runs/`name` unless given). does: the recipe in a sentence. holds: what the data folder holds.
    gets: what is written."""
    parser = argparse.ArgumentParser(description=does)
    parser.add_argument("--data", type=Path, required=True, help=f"folder that holds {holds}")
    parser.add_argument("--out", type=Path, default=Path("runs") / name, help=gets)
    arguments = parser.parse_args()
    return arguments.data, arguments.out

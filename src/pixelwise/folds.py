"""The folder of a cross-validation: run folders fold_0, fold_1, ..., and folds.json, which says how many."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

from pixelwise.errors import InputError
from pixelwise.untrusted import Between, read

FOLD = "fold_{}"

FILE = "folds.json"


@dataclass(frozen=True)
class Folds:
    """What folds.json holds. folds: how many; scores: the mean over them of each score on what they held out."""

    folds: Annotated[int, Between(2, 100)]
    scores: dict[str, Annotated[float, Between(nan=True)]] = field(default_factory=dict)


def folds_of(folder: Path) -> list[Path] | None:
    """The run folders of a cross-validation; None for any other folder. Raises InputError where one is missing."""
    path = folder / FILE
    if not path.is_file():
        return None
    runs = [folder / FOLD.format(i) for i in range(read(path, Folds, str(path)).folds)]
    for run in runs:
        if not run.is_dir():
            raise InputError(
                f"{path} speaks of {len(runs)} folds, and {run.name} is not there; train it: --resume"
            )
    return runs

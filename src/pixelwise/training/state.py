"""The state of a run on disk, which survives a kill and a full disk: the old file stays whole until the new one is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import NoneType
from typing import Any

import torch

from pixelwise.errors import InputError, OutputError, first_line
from pixelwise.files import FULL, writing
from pixelwise.training.config import TrainConfig
from pixelwise.weights.store import refuse_inflated

CHECKPOINT = {
    "network": Mapping, "average": (Mapping, NoneType), "optimizer": Mapping, "scaler": (Mapping, NoneType),
    "step": int, "best": (int, float), "samples": int, "processes": int, "config": str,
}  # fmt: skip
"""What a checkpoint holds, and of what kind."""


def save_state(state: dict[str, Any], path: Path) -> None:
    """Write under a temporary name, sync, rename: whatever interrupts it, `path` is the old file or the new one.

    Raises OutputError, one sentence, when the disk is full or cannot be written; `path` is then as it was.
    """
    try:
        with writing(path) as temporary, open(temporary, "wb") as file:
            try:
                torch.save(state, file)
            except RuntimeError as error:  # torch wraps what its stream writer met
                if isinstance(error.__context__, (OSError, KeyboardInterrupt)):
                    raise error.__context__ from error
                raise
    except (OSError, OutputError) as error:
        cause = error if isinstance(error, OSError) else error.__cause__
        if isinstance(cause, OSError) and cause.errno in FULL:
            size = sum(t.nbytes for t in _tensors(state)) / 2**20
            kept = "the previous one is whole" if path.exists() else "there is none yet"
            raise OutputError(
                f"no room for {path}, which needs {size:.0f} MiB beside the old one ({cause.strerror}); "
                f"{kept}: free some space and resume"
            ) from error
        raise


def save_text(text: str, path: Path) -> None:
    """The same for a text."""
    with writing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def load_state(path: Path, holds: Mapping[str, Any] = CHECKPOINT) -> dict[str, Any]:
    """A checkpoint's tensors and plain values, on the CPU; InputError for a file that is none. holds: what must be in
    it, and of what kind.
    """
    try:
        refuse_inflated(path)
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # whatever the reader of a damaged file met
        raise InputError(f"{path} is no checkpoint of a training run ({first_line(error)})") from error
    if not isinstance(state, dict):
        raise InputError(
            f"{path} is no checkpoint of a training run: it holds a {type(state).__name__}; train into another folder"
        )
    for name, kind in holds.items():
        if not isinstance(state.get(name), kind):
            raise InputError(
                f"{path} is no checkpoint of a training run: its {name!r} is none; train into another folder"
            )
    return state


@dataclass(frozen=True)
class Standing:
    """How far a run is, when its checkpoint was kept: step, of how many its `config` then asked for."""

    step: int
    config: TrainConfig
    samples: int
    processes: int

    @property
    def steps(self) -> int:
        return self.steps_of(self.config)

    def steps_of(self, config: TrainConfig) -> int:
        """The steps of the same run with another configuration."""
        return config.total_steps(self.samples, self.processes)


def standing(out: Path) -> Standing | None:
    """How far the run in the folder `out` is, by its checkpoint; None where it has none yet."""
    if not (out / "checkpoint.pt").is_file():
        return None
    state = load_state(out / "checkpoint.pt")
    return Standing(
        state["step"], TrainConfig.from_json(state["config"]), state["samples"], state["processes"]
    )


def _tensors(value: Any) -> list[torch.Tensor]:
    if isinstance(value, torch.Tensor):
        return [value]
    if isinstance(value, dict):
        return [tensor for inner in value.values() for tensor in _tensors(inner)]
    return [tensor for inner in value for tensor in _tensors(inner)] if isinstance(value, list) else []

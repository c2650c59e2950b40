"""What one sees of a run: a live table in a terminal, plain lines elsewhere, and metrics.jsonl in either case."""

from __future__ import annotations

import json
import math
import os
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

from pixelwise.errors import InputError
from pixelwise.files import writing
from pixelwise.terminal import say
from pixelwise.untrusted import Between, fit, read

Anything = Annotated[float, Between(nan=True)]
"""A number, or what became of one."""

EVERY_SECONDS = 15.0
"""How often a line is printed where nobody watches."""


class Metrics:
    """metrics.jsonl: one line a step, {"step", "epoch", "loss", "parts", "lr", "seconds"}, and one a validation,
    {"step", "score", ...}. Opened at a step, it forgets what a killed run wrote after that."""

    def __init__(self, path: Path, step: int) -> None:
        kept = [line for line in read_metrics(path) if line["step"] <= step]
        with writing(path) as temporary:
            temporary.write_text("".join(json.dumps(line) + "\n" for line in kept), encoding="utf-8")
        self._file = open(path, "a", encoding="utf-8")  # noqa: SIM115  # closed by close()

    def add(self, values: Mapping[str, Any]) -> None:
        self._file.write(json.dumps(values) + "\n")
        self._file.flush()

    def sync(self) -> None:
        """Make the lines outlive a power cut: before a checkpoint does, which goes on behind them."""
        os.fsync(self._file.fileno())

    def close(self) -> None:
        self._file.close()


@dataclass(frozen=True)
class Line:
    """What is read of a line of metrics.jsonl."""

    step: Annotated[int, Between(0)]
    loss: Anything | None = None
    parts: dict[str, Anything] = field(default_factory=dict)
    score: Anything | None = None


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """The lines of a metrics.jsonl up to the first that a kill, or anybody, left otherwise; none where there is no
    file."""
    lines: list[dict[str, Any]] = []
    if path.is_file():
        for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
            try:
                values = read(line, dict[str, Any], "a line")
                fit(values, Line, "a line", unknown="leave")
            except InputError:
                break
            lines.append(values)
    return lines


class Progress:
    """Tells how a run goes, on stderr. steps: of the run; done: where it starts; images: pictures a step."""

    def __init__(self, steps: int, done: int, images: int, *, live: bool | None = None) -> None:
        self.steps, self.first, self.images = steps, done, images
        self._began = self._told = time.monotonic()
        self._row: dict[str, str] = {}
        self._table: Any = None
        if sys.stderr.isatty() if live is None else live:
            from rich.console import Console
            from rich.live import Live

            self._table = Live(console=Console(stderr=True), refresh_per_second=4, get_renderable=self._draw)
            self._table.start()

    def step(self, done: int, loss: float, parts: Mapping[str, float], rate: float) -> None:
        """After a step. loss: the mean since the last checkpoint line; parts: of this step."""
        seconds = time.monotonic() - self._began
        pace = seconds / (done - self.first)
        self._row.update(
            {
                "step": f"{done}/{self.steps}",
                "loss": f"{loss:.4f}",
                **({name: f"{value:.4f}" for name, value in parts.items()} if len(parts) > 1 else {}),
                "learning rate": f"{rate:.2e}",
                "images/s": f"{self.images / pace:.1f}",
                "left": duration(pace * (self.steps - done)),
            }
        )
        if self._table is None and (
            done == self.steps or time.monotonic() - self._told > EVERY_SECONDS or done == self.first + 1
        ):
            self._told = time.monotonic()
            say("  ".join(f"{name} {value}" for name, value in self._row.items()), file=sys.stderr)

    def validated(self, done: int, score: float, best: float) -> None:
        self._row.update({"score": f"{score:.4f}", "best": f"{best:.4f}"})
        if self._table is None:
            say(f"step {done}/{self.steps}  score {score:.4f}  best so far {best:.4f}", file=sys.stderr)

    def close(self) -> None:
        if self._table is not None:
            self._table.stop()

    def _draw(self) -> Any:
        from rich.console import Group
        from rich.progress_bar import ProgressBar
        from rich.table import Table

        table = Table(box=None, pad_edge=False)
        for name in self._row:
            table.add_column(name, justify="right", no_wrap=True)
        table.add_row(*self._row.values())
        done = int(self._row["step"].partition("/")[0]) if "step" in self._row else self.first
        return Group(ProgressBar(total=self.steps, completed=done, width=60), table)


def duration(seconds: float) -> str:
    """Seconds as a person says them: 40 s, 12 min, 3.5 h."""
    if not math.isfinite(seconds):
        return "?"
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"

"""What one sees of a run: a live table in a terminal, plain lines elsewhere, and metrics.jsonl in either case."""

from __future__ import annotations

import json
import math
import os
import sys
import time
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

from rich.cells import cell_len, chop_cells

from pixelwise.errors import InputError, OutputError
from pixelwise.files import writing
from pixelwise.terminal import printable, say
from pixelwise.untrusted import Between, fit, read

Anything = Annotated[float, Between(nan=True)]
"""A number, or what became of one."""

EVERY_SECONDS = 15.0
"""How often a line is printed where nobody watches."""

RECENT = 20
"""Steps over which the losses that one sees are averaged."""


class Metrics:
    """metrics.jsonl: one line a step, {"step", "epoch", "loss", "parts", "lr", "seconds"}, and one a validation,
    {"step", "score", "scores"}. Opened at a step, it forgets what a killed run wrote after that; judged: whether the
    validation of that step is done. Raises OutputError, also where the disk is full."""

    def __init__(self, path: Path, step: int, *, judged: bool = True) -> None:
        kept = [
            line
            for line in read_metrics(path)
            if line["step"] < step or (line["step"] == step and (judged or "score" not in line))
        ]
        self.path = path
        with writing(path) as temporary:
            temporary.write_text("".join(json.dumps(line) + "\n" for line in kept), encoding="utf-8")
        with self._told():
            self._file = open(path, "a", encoding="utf-8")  # noqa: SIM115  # closed by close()

    def add(self, values: Mapping[str, Any]) -> None:
        with self._told():
            self._file.write(json.dumps(values) + "\n")
            self._file.flush()

    def sync(self) -> None:
        """Make the lines outlive a power cut: before a checkpoint does, which goes on behind them."""
        with self._told():
            os.fsync(self._file.fileno())

    def close(self) -> None:
        with suppress(OSError):  # of what `add` has told already
            self._file.close()

    @contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise OutputError(
                f"cannot write {self.path} ({error.strerror or error}); the last checkpoint beside it is whole: free "
                "some space and resume"
            ) from error


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
    """Tells how a run goes, on stderr. steps: of the run; done: where it starts; images: pictures a step.

    The loss and its parts are means over the same steps, the last `RECENT` of those that were told.
    """

    def __init__(self, steps: int, done: int, images: int, *, live: bool | None = None) -> None:
        self.steps, self.first, self.images = steps, done, images
        self._began = self._told = time.monotonic()
        self._recent: deque[Mapping[str, float]] = deque(maxlen=RECENT)
        self._row: dict[str, str] = {}
        self._note = f"losses are means of the last {RECENT} steps"
        self._table: Any = None
        if sys.stderr.isatty() if live is None else live:
            from rich.console import Console
            from rich.live import Live

            console = Console(stderr=True)
            self._table = Live(
                console=console, refresh_per_second=4, get_renderable=lambda: self._draw(console.width)
            )
            self._table.start()
        elif done < steps:
            say(self._note, file=sys.stderr)

    def step(self, done: int, parts: Mapping[str, float], rate: float) -> None:
        """After a step. parts: of its loss, by name; they sum to it."""
        self._recent.append(parts)
        means = {name: sum(p.get(name, 0.0) for p in self._recent) / len(self._recent) for name in parts}
        pace = (time.monotonic() - self._began) / (done - self.first)
        self._row.update(
            {
                "step": f"{done}/{self.steps}",
                "loss": f"{sum(means.values()):.4f}",
                **({name: f"{value:.4f}" for name, value in means.items()} if len(means) > 1 else {}),
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

    def validated(self, done: int, scores: Mapping[str, float], best: float) -> None:
        """After a validation. scores: by name, the first of which decides what is best."""
        names = {printable(name): value for name, value in scores.items()}
        first = next(iter(names))
        self._row.update(
            {name: f"{value:.4f}" for name, value in names.items()} | {f"best {first}": f"{best:.4f}"}
        )
        if self._table is None:
            told = "  ".join(f"{name} {value:.4f}" for name, value in names.items())
            say(f"step {done}/{self.steps}  {told}  best {first} {best:.4f}", file=sys.stderr)

    def note(self, text: str) -> None:
        """Say something else. It may come from a handler of signals, which must not print as others do."""
        self._note = text
        if self._table is None:
            with suppress(OSError):
                os.write(2, f"{text}\n".encode())

    def close(self) -> None:
        if self._table is not None:
            self._table.stop()

    def _draw(self, width: int) -> Any:
        from rich.progress_bar import ProgressBar
        from rich.table import Table
        from rich.text import Text

        done = int(self._row["step"].partition("/")[0]) if "step" in self._row else self.first
        bar = ProgressBar(total=self.steps, completed=done, width=min(60, width))
        lines = [*columns(self._row, width), *wrapped(self._note, width)]
        grid = Table.grid()  # whose rows end, as the bar by itself does not
        grid.add_row(bar)
        grid.add_row(Text("\n".join(lines), no_wrap=True, overflow="ignore"))
        return grid


def columns(row: Mapping[str, str], width: int) -> list[str]:
    """Lines of at most `width` cells that show a row of a table, each value under its name.

    What does not fit beside the others goes below them, and a name that is wider than all lines over several; nothing
    is left out and nothing cut.
    """
    lines: list[str] = []
    block: list[tuple[list[str], str, int]] = []

    def flush() -> None:
        height = max((len(name) for name, _, _ in block), default=0)
        for i in range(height):
            cells = [
                (name[i - height + len(name)] if i >= height - len(name) else "", size)
                for name, _, size in block
            ]
            lines.append("  ".join(_right(text, size) for text, size in cells))
        if block:
            lines.append("  ".join(_right(value, size) for _, value, size in block))
        block.clear()

    for name, value in row.items():
        names = wrapped(name, width)
        size = max(cell_len(text) for text in (*names, value))
        if block and sum(s + 2 for _, _, s in block) + size > width:
            flush()
        block.append((names, value, size))
    flush()
    return lines


def wrapped(text: str, width: int) -> list[str]:
    """A text in lines of at most `width` cells, broken between words, and within those that are wider."""
    lines = [""]
    for word in text.split(" "):
        if cell_len(joined := f"{lines[-1]} {word}" if lines[-1] else word) <= width:
            lines[-1] = joined
        else:
            lines.extend(chop_cells(word, width))
    return lines if lines[0] else lines[1:] or [""]


def _right(text: str, size: int) -> str:
    return " " * (size - cell_len(text)) + text


def duration(seconds: float) -> str:
    """Seconds as a person says them: 40 s, 12 min, 3.5 h."""
    if not math.isfinite(seconds):
        return "?"
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"

"""The fastest engine: a race among those that are installed, which only those run whose answers are right.

It is run once for a model, a size, a processor and the versions of the engines, on the first picture that comes; what
came of it is kept in the cache. Whoever crashes, hangs or answers otherwise than the reference is left out, and named.
"""

from __future__ import annotations

import math
import os
import statistics
import threading
import time
import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
from array_api_compat import is_torch_array
from numpy.typing import NDArray

from pixelwise.engines.apart import Order
from pixelwise.engines.trials import FAR, gap, kept_at, remember, remembered, trial
from pixelwise.errors import first_line
from pixelwise.precision import Precision
from pixelwise.terminal import note, printable
from pixelwise.weights.card import Card

ROUNDS = 5
"""Times that each engine is timed, alternately; the median counts."""

BEHIND = 1.5
"""An engine that took so many times as long as the first in the first round runs no others."""

ENOUGH = 0.97
"""An engine is taken in place of one that stands before it in the table if it takes less than this share of its time:
below that it is noise, and the choice would be another one every time."""


class Runs(Protocol):
    """An engine, as `engines.Engine`."""

    card: Card

    @property
    def name(self) -> str: ...

    @property
    def precision(self) -> Precision: ...

    def __call__(self, images: Any) -> Any: ...


@dataclass(frozen=True)
class Candidate:
    """One that may run. open: loads it. order: how it is proven in a process of its own first, None for what is not
    tried there. missing: the sentence that says what to install, where it is not."""

    name: str
    open: Callable[[], Runs]
    order: Order | None = None
    missing: str = ""


@dataclass(frozen=True)
class Entry:
    """What became of one. ms: the median of a forward pass. changed: share of the coarse pixels that are another class
    than the reference's. says: why it did not run."""

    name: str
    outcome: Literal["ok", "crashed", "hung", "wrong", "failed", "missing"]
    ms: float | None = None
    changed: float | None = None
    says: str = ""

    def __str__(self) -> str:
        if self.outcome == "missing":
            return f"{self.name} is not installed"
        return (
            f"{self.name} {self.ms:.1f} ms"
            if self.ms is not None
            else f"{self.name} left out: {printable(self.says)}"
        )


@dataclass(frozen=True)
class Race:
    """winner: a name among the entries, empty where nobody is left. shape: (n, c, h, w) of what was shown."""

    winner: str
    shape: tuple[int, ...]
    entries: tuple[Entry, ...]

    def __str__(self) -> str:
        others = "; ".join(str(entry) for entry in self.entries if entry.name != self.winner)
        if not self.winner:
            return f"fastest at {' x '.join(map(str, self.shape[2:]))}: nobody ({others})"
        ms = {entry.name: entry.ms for entry in self.entries}[self.winner]
        took = "" if ms is None else f" ({ms:.1f} ms{'; ' if others else ''}{others})"
        return f"fastest at {' x '.join(map(str, self.shape[2:]))}: {self.winner}{took}"


def race(
    candidates: Sequence[Candidate],
    images: Any,
    expected: NDArray[np.float32],
    far: float,
    *,
    clock: Callable[[], float] = time.perf_counter,
    rounds: int = ROUNDS,
) -> tuple[Race, Runs | None]:
    """Who is fastest, and its engine; None where nobody is left.

    images: what all are shown. expected: the reference's logits, from which no answer may be further than `far`, as a
    share of their range, before anything is timed.
    """
    entries: dict[str, Entry] = {}
    running: dict[str, Runs] = {}
    for candidate in candidates:
        found = _proven(candidate, images, expected, far)
        if isinstance(found, Entry):
            entries[candidate.name] = found
        else:
            running[candidate.name], entries[candidate.name] = (
                found,
                Entry(candidate.name, "ok", changed=_changed(_array(found(images)), expected)),
            )
    times: dict[str, list[float]] = {name: [] for name in running}
    for number in range(rounds):
        for name, engine in running.items():
            if number and min(times[name]) > BEHIND * min(min(some) for some in times.values()):
                continue
            began = clock()
            _array(engine(images))  # what is on a GPU is waited for
            times[name].append(clock() - began)
    for name, some in times.items():
        entries[name] = Entry(name, "ok", round(statistics.median(some) * 1000, 3), entries[name].changed)
    winner = ""
    for name, some in times.items():
        if not winner or statistics.median(some) < ENOUGH * statistics.median(times[winner]):
            winner = name
    shape = tuple(int(side) for side in images.shape)
    return Race(winner, shape, tuple(entries.values())), running.get(winner)


def _proven(candidate: Candidate, images: Any, expected: NDArray[np.float32], far: float) -> Runs | Entry:
    """The engine, once its answer was looked at, or what is wrong with it."""
    name = candidate.name
    if candidate.missing:
        return Entry(name, "missing", says=candidate.missing)
    if candidate.order is not None:
        found = trial(candidate.order, None, shown=(_array(images), expected))
        if found.outcome != "ok":
            return Entry(name, found.outcome, says=found.says)
    try:
        engine = candidate.open()
        off = gap(_array(engine(images)), expected)
    except Exception as error:  # whatever it is, it is no engine for this
        return Entry(name, "failed", says=first_line(error))
    if not off <= far:
        return Entry(name, "wrong", says=f"its logits differ by {off:.2g} of their range")
    return engine


def _changed(found: NDArray[np.float32], expected: NDArray[np.float32]) -> float:
    if expected.shape[1] == 1:
        return float(((found > 0) != (expected > 0)).mean())
    return float((found.argmax(1) != expected.argmax(1)).mean())


def _array(values: Any) -> NDArray[Any]:
    return values.detach().cpu().numpy() if is_torch_array(values) else np.asarray(values)


class FastestEngine:
    """Takes whoever wins on the first picture that it is shown, and stays with it.

    reference: whose answers are right. fallback: what runs where nobody is to race, or nobody is left. model: its file,
    or words that say what it is. decides: what else the choice depends on. may_race: False takes what an earlier race
    has found out, else the fallback. Pickled as the engine that it has become, before that as the fallback.
    """

    def __init__(
        self,
        candidates: Sequence[Candidate],
        reference: Runs,
        fallback: Runs,
        model: Path | str,
        decides: Sequence[Any],
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._candidates, self._reference, self._fallback = candidates, reference, fallback
        self._model, self._decides, self._clock = model, [*decides], clock
        self._chosen: Runs | None = None
        self._deciding = threading.Lock()
        self.card, self.may_race = fallback.card, True
        self.race: Race | None = None
        _all.add(self)

    @property
    def name(self) -> str:
        """Of the engine that was taken; "fastest" before."""
        return "fastest" if self._chosen is None else self._chosen.name

    @property
    def precision(self) -> Precision:
        return self._fallback.precision

    def __call__(self, images: Any) -> Any:
        with self._deciding:
            if self._chosen is None:
                self._chosen = self._decided(images)
        return self._chosen(images)

    def _decided(self, images: Any) -> Runs:
        path = kept_at("fastest", self._model, "", [*self._decides, _size_class(images.shape)])
        known: Race | None = remembered(path, Race)
        if known is not None and (taken := self._won(known)) is not None:
            self.race = known
            return taken
        if not self.may_race:
            note(
                f"fastest: nobody has raced at this size yet, and a single picture takes {self._fallback.name}"
            )
            return self._fallback
        expected = _array(self._reference(images))
        self.race, chosen = race(self._candidates, images, expected, FAR[self.precision], clock=self._clock)
        remember(path, self.race)
        note(self.race)
        return chosen or self._fallback

    def _won(self, known: Race) -> Runs | None:
        """The engine that has won an earlier race; None where that cannot be, or it cannot be opened now."""
        well = [entry.name for entry in known.entries if entry.outcome == "ok"]
        if known.entries and not well and not known.winner:
            return self._fallback
        for candidate in self._candidates:
            if candidate.name == known.winner and candidate.name in well:
                try:
                    return candidate.open()
                except Exception as error:  # as in a race
                    note(f"fastest: {known.winner}, which won before, cannot be opened: {first_line(error)}")
        return None

    def __reduce__(self) -> Any:
        return _itself, (self._chosen or self._fallback,)


def _itself(engine: Any) -> Any:
    return engine


_all: weakref.WeakSet[FastestEngine] = weakref.WeakSet()


def _unlock() -> None:
    """In a forked process, where nobody would ever give back what another thread had locked."""
    for engine in list(_all):
        engine._deciding = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_unlock)


def _size_class(shape: Sequence[int]) -> list[int]:
    """Pictures of the same class are for the same engine: as many at once, and of areas within a factor of 1.4."""
    n, channels, *sides = (int(side) for side in shape)
    return [n, channels, round(2 * math.log2(math.prod(sides)))]

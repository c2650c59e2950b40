"""pixelwise selftest: does this installation work on this machine? `run` answers with a report.

>>> from pixelwise.selftest import run          # doctest: +SKIP
>>> report = run()                              # doctest: +SKIP
>>> report.ok, report.to_dict()["engines"]      # doctest: +SKIP
(True, {'onnxruntime': {'version': '1.32.0', 'largest_difference': 1.2e-07}})
"""

from __future__ import annotations

import os
import tempfile
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import pixelwise
from pixelwise.errors import MissingExtraError, OutputError, UnknownNameError
from pixelwise.selftest import machine
from pixelwise.selftest.checks import Bench, Check, Failed, all_checks


@dataclass(frozen=True)
class Result:
    """One check. says: what was found, or what is wrong and what to do, without anything private. seconds: it took.
    trace: places in pixelwise where an unforeseen exception came from. local: the same as `says` with folders and names
    as they are, for whoever sits at this machine; in no report."""

    name: str
    outcome: Literal["ok", "failed", "skipped"]
    says: str
    seconds: float
    trace: tuple[str, ...] = ()
    local: str = field(default="", repr=False, compare=False)


@dataclass(frozen=True)
class Report:
    """machine, versions: see `machine.py`. engines: by name, the version of each, how far it was from the definition,
    and how many ms it takes for the photo that all are compared with."""

    machine: dict[str, Any]
    versions: dict[str, str | None]
    engines: dict[str, dict[str, Any]] = field(default_factory=dict)
    results: tuple[Result, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether no check failed."""
        return all(result.outcome != "failed" for result in self.results)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON, without names of people, machines and folders, and without the environment."""
        content = {"ok": self.ok, **asdict(self)}
        for result in content["results"]:
            del result["local"]
        return content


def run(
    only: Sequence[str] = (),
    *,
    folder: str | os.PathLike[str] | None = None,
    progress: Callable[[Result], None] = lambda result: None,
) -> Report:
    """Run the checks, all or those that are named, and report; it takes a minute the first time, then less.

    only: names of checks, or beginnings of them, such as "hostile". folder: where their files are made, in a new folder
    that is removed at the end; None is the system's place for temporary ones. Name a folder of yours to see whether
    its file system keeps what pixelwise promises. progress: gets each result as it comes. A check that fails does not
    raise. Raises UnknownNameError for a name that no check has, OutputError where the folder cannot be written.
    """
    chosen = [
        check for check in all_checks() if not only or any(check.name.startswith(name) for name in only)
    ]
    for name in only:
        if not any(check.name.startswith(name) for check in chosen):
            raise UnknownNameError("check", name, [check.name for check in all_checks()])
    results = []
    try:
        place = tempfile.TemporaryDirectory(
            prefix="pixelwise-selftest-", dir=folder, ignore_cleanup_errors=True
        )
    except OSError as error:
        raise OutputError(
            f"cannot make a folder in {folder or tempfile.gettempdir()}: {error.strerror or error}; name another one"
        ) from error
    with place as name:
        bench = Bench(Path(name).resolve())
        for check in chosen:
            results.append(_result(check, bench))
            progress(results[-1])
    return Report(machine.about(), machine.versions(), bench.engines, tuple(results))


def _result(check: Check, bench: Bench) -> Result:
    """The result of one check, in which what is private is in `local` alone."""
    began = time.perf_counter()
    outcome: Literal["ok", "failed", "skipped"] = "failed"
    trace: tuple[str, ...] = ()
    try:
        if check.possible:
            outcome, local = "ok", check.run(bench)
        else:
            outcome, local = "skipped", str(MissingExtraError("this check", check.extra or ""))
    except Failed as error:
        local = str(error)
    except Exception as error:
        local = f"{type(error).__name__}: {error}"
        trace = _places(error)
    says = " ".join(machine.scrubbed(local.replace(str(bench.folder), "<folder>")).split())
    return Result(check.name, outcome, says, round(time.perf_counter() - began, 2), trace, local)


def _places(error: BaseException) -> tuple[str, ...]:
    """Files of pixelwise, lines and functions that the exception went through, the innermost last."""
    root = str(Path(pixelwise.__file__).parent)
    return tuple(
        f"{os.path.relpath(frame.filename, root)}:{frame.lineno} {frame.name}"
        for frame in traceback.extract_tb(error.__traceback__)
        if frame.filename.startswith(root)
    )

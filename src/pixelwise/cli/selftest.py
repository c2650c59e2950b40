"""`pixelwise selftest`: a line a check, or a report as JSON; exit code 1 when one failed.

The lines name folders as they are, so that one can mend them; with --json they have the report's words in their place.
"""

from __future__ import annotations

import json as jsonlib
import sys
from collections.abc import Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from pixelwise.engines import ENGINES
from pixelwise.engines.trials import version_of
from pixelwise.selftest import Result
from pixelwise.selftest import run as run_checks
from pixelwise.selftest.bill import write_bill
from pixelwise.selftest.checks import RACED, RACED_HW
from pixelwise.terminal import say


def run(only: list[str], folder: Path | None, sbom: Path | None, json: bool, overwrite: bool) -> int:
    """Run and print; the exit code. sbom: only write the bill of materials."""
    if sbom is not None:
        say(write_bill(sbom, overwrite=overwrite))
        return 0
    width = 22

    def show(result: Result) -> None:
        says = result.says if json else result.local
        say(
            f"{result.name:{width}} {result.outcome:8} {says} ({result.seconds:.1f} s)",
            file=sys.stderr if json else None,
        )

    report = run_checks(only, folder=folder, progress=show)
    if json:
        print(jsonlib.dumps(report.to_dict(), indent=1))
    else:
        counts = {
            kind: sum(r.outcome == kind for r in report.results) for kind in ("ok", "failed", "skipped")
        }
        for line in engines(report.engines):
            say(line)
        seconds = sum(result.seconds for result in report.results)
        print(f"{', '.join(f'{n} {kind}' for kind, n in counts.items())} in {seconds:.0f} s", flush=True)
    return 0 if report.ok else 1


def engines(found: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    """The table of engines, a line each; nothing where they were not looked at."""
    if not any("ms" in about for about in found.values()):
        return
    height, width = RACED_HW
    yield f"{'engine':17} {'version':24} {RACED + f' at {height} x {width}':22} computes in"
    for name, row in ENGINES.items():
        about = found.get(name, {})
        if row.extra is not None and find_spec(row.package) is None:
            yield f"{name:17} not here: pip install 'pixelwise[{row.extra}]'"
            continue
        took = f"{about['ms']:.1f} ms" if "ms" in about else about.get("left_out") or "compiles for minutes"
        yield f"{name:17} {version_of(row.package):24} {took:22} {', '.join(row.precisions)}"

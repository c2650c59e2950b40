"""`pixelwise selftest`: a line a check, or a report as JSON; exit code 1 when one failed.

The lines name folders as they are, so that one can mend them; with --json they have the report's words in their place.
"""

from __future__ import annotations

import json as jsonlib
import sys
from pathlib import Path

from pixelwise.selftest import Result
from pixelwise.selftest import run as run_checks
from pixelwise.selftest.bill import write_bill
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
        seconds = sum(result.seconds for result in report.results)
        print(f"{', '.join(f'{n} {kind}' for kind, n in counts.items())} in {seconds:.0f} s", flush=True)
    return 0 if report.ok else 1

"""`pixelwise selftest`: a line a check, or a report as JSON; exit code 1 when one failed."""

from __future__ import annotations

import json as jsonlib
import sys
from pathlib import Path

from pixelwise.selftest import Result
from pixelwise.selftest import run as run_checks
from pixelwise.selftest.bill import write_bill


def run(only: list[str], folder: Path | None, sbom: Path | None, json: bool, overwrite: bool) -> int:
    """Run and print; the exit code. sbom: only write the bill of materials."""
    if sbom is not None:
        print(write_bill(sbom, overwrite=overwrite))
        return 0
    width = 22

    def show(result: Result) -> None:
        line = f"{result.name:{width}} {result.outcome:8} {result.says} ({result.seconds:.1f} s)"
        print(line, file=sys.stderr if json else sys.stdout, flush=True)

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

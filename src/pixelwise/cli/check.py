"""`pixelwise check`: the data doctor's findings as text or JSON; exit code 1 when it is not safe to train."""

from __future__ import annotations

import json as jsonlib
import sys
from collections.abc import Iterable
from pathlib import Path

from pixelwise.datasets.doctor import examine
from pixelwise.datasets.findings import Report
from pixelwise.datasets.mending import mend
from pixelwise.datasets.opening import open_data, parse_map
from pixelwise.datasets.sample import Pair
from pixelwise.terminal import counted, note, say

SHOWN = 5
"""Findings of one kind that are printed; the rest is counted (JSON has them all)."""


def run(
    data: Path,
    layout: str,
    num_classes: int | None,
    ignore_id: int,
    map_ids: str | None,
    json: bool,
    fix: bool = False,
) -> int:
    """Examine and print; the exit code. fix: mend first what has one right answer."""
    change = None if map_ids is None else parse_map(map_ids)
    if fix:
        for sentence in mend(open_data(data, layout, map_ids=change)):
            note(sentence)
    report = examine(
        open_data(data, layout, map_ids=change),
        num_classes=num_classes,
        ignore_id=None if ignore_id < 0 else ignore_id,
        progress=_with_progress,
    )
    if json:
        print(jsonlib.dumps(report.to_dict(), indent=1))
    else:
        for line in _lines(report):
            say(line)
    return 0 if report.safe else 1


def _lines(report: Report) -> list[str]:
    lines = []
    by_kind: dict[str, int] = {}
    said = ("", "")
    for finding in report.findings:
        by_kind[finding.kind] = by_kind.get(finding.kind, 0) + 1
        if by_kind[finding.kind] > SHOWN:
            continue
        place = finding.file or "all files"
        if finding.pixel is not None:
            place += f", row {finding.pixel[0]}, column {finding.pixel[1]}"
        lines.append(f"{finding.severity}: {finding.kind}: {place}: {finding.message}")
        if (finding.kind, finding.fix) != said:
            lines.append(f"    mend: {finding.fix}")
        said = finding.kind, finding.fix
    lines += [f"... and {n - SHOWN} more of kind {kind!r}" for kind, n in by_kind.items() if n > SHOWN]
    total = sum(report.pixels.values())
    shares = ", ".join(f"{i}: {n / total:.2%}" for i, n in report.pixels.items() if total)
    splits = ", ".join(f"{split}: {n}" for split, n in report.splits.items())
    verdict = "safe to train" if report.safe else "not safe to train: mend the errors first"
    if report.safe and (turned := by_kind.get("EXIF orientation")):
        pictures = counted(turned, "picture")
        verdict = (
            f"safe to train once you have looked at {pictures} that an EXIF tag turns, beside the label map"
        )
    if report.safe and "nothing to divide" in by_kind:
        verdict = "safe to evaluate on, and no part of it is there to train on"
    if report.scans is not None:
        by_class = [f"voxels by class: {shares}"] if shares else []
        return [*lines, f"scans by split: {splits}", *by_class, *report.scans.lines(), verdict]
    by_class = [f"pixels by class: {shares}"] if report.are_ids and shares else []
    measured = [*report.fingerprint.lines(), *_planned(report)] if report.safe else []
    return [*lines, f"pictures by split: {splits}", *by_class, *measured, verdict]


def _planned(report: Report) -> list[str]:
    """What a plan of training would do with these data on any machine."""
    if not report.fingerprint.pictures:
        return []
    from pixelwise.training.plan import Machine, plan

    pictures = report.fingerprint.pictures
    reasons = plan(
        report.fingerprint, {}, Machine(), pictures=pictures, held_out=max(1, pictures // 4)
    ).reasons
    shown = {"image_size": "size", "augment.on_object": "crops", "augment.colour_amount": "colours"}
    return [f"train would take: {what}: {reasons[name]}" for name, what in shown.items()]


def _with_progress(pairs: list[Pair]) -> Iterable[Pair]:
    if len(pairs) < 50 or not sys.stderr.isatty():
        return pairs
    from rich.console import Console
    from rich.progress import track

    return track(pairs, description="Checking", console=Console(stderr=True))

"""What the data doctor reports: findings, each with what to do, and the commands against them."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from pixelwise.datasets.fingerprint import Fingerprint
from pixelwise.datasets.folder import init_command
from pixelwise.datasets.opening import DataSet
from pixelwise.datasets.scan_fingerprint import ScanFingerprint

UNTRAINABLE = frozenset({"nothing to divide", "nothing to tell apart"})
"""Kinds of findings with which no training can begin, checked or not."""

FirstSeen = Mapping[int, tuple[str, tuple[int, int]]]
"""Where each value was seen first: (file, (row, column))."""


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong. kind: a short name, the same for every such fault. severity: an "error" makes
    training wrong, a "warning" may be meant. pixel: (row, column) where it first shows."""

    kind: str
    severity: Literal["error", "warning"]
    message: str
    fix: str
    file: str | None = None
    pixel: tuple[int, int] | None = None


@dataclass
class Report:
    """What the doctor saw. pixels: labelled pixels by id; splits: pictures by split; fingerprint: of the pictures to
    learn from. are_ids: the label maps hold ids, and not black and white, objects or what lies between.
    scans: of a data set of scans their fingerprint, in place of that of pictures."""

    findings: list[Finding] = field(default_factory=list)
    pixels: dict[int, int] = field(default_factory=dict)
    splits: dict[str, int] = field(default_factory=dict)
    fingerprint: Fingerprint = field(default_factory=Fingerprint)
    are_ids: bool = True
    scans: ScanFingerprint | None = None

    @property
    def safe(self) -> bool:
        """True when nothing was found that makes training wrong."""
        return not any(finding.severity == "error" for finding in self.findings)

    def to_dict(self) -> dict[str, Any]:
        total = sum(self.pixels.values()) or 1
        return {
            "safe": self.safe,
            "splits": self.splits,
            "classes": {str(i): {"pixels": n, "share": n / total} for i, n in sorted(self.pixels.items())},
            "findings": [asdict(finding) for finding in self.findings],
            "fingerprint": (self.fingerprint if self.scans is None else self.scans).to_dict(),
        }


class Mends:
    """What to type against what was found, for this data set."""

    def __init__(self, data: DataSet) -> None:
        self.root, self.own = data.root, data.layout == "folder" and not data.regions
        """own: a folder of one's own, which `pixelwise init` and `check --fix` know."""
        self.in_place = f"`{shlex.join(['pixelwise', 'check', str(self.root), '--fix'])}`"
        if not self.own:
            self.in_place = "save it as PNG of mode L or P"

    def anew(self, words: str) -> str:
        """A new folder, made of what is there; words: by hand."""
        return f"{init_command(self.root)}; or {words}" if self.own else words

    def or_leave_out(self, words: str) -> str:
        """By hand; or a new folder without it."""
        return f"{words}, or make a folder without it: {init_command(self.root)}" if self.own else words

    def merged(self, changes: str) -> str:
        """A new folder of two classes, from one whose classes are listed."""
        out = f"{self.root}_ready"
        words = ["init", str(self.root), "--out", out, "--map-ids", changes, "--classes", "background,object"]
        return f"`{shlex.join(['pixelwise', *words])}`"

    def change(self, changes: str) -> str:
        """Other ids, for this command and those that follow."""
        command = shlex.join(["pixelwise", "check", str(self.root), "--map-ids", changes])
        return f"`{command}`, and the same option for train and evaluate"


def finding_at(first_seen: FirstSeen, value: int, kind: str, message: str, fix: str) -> Finding:
    file, pixel = first_seen[value]
    return Finding(kind, "error", message, fix, file, pixel)


def finding_of(
    kind: str, severity: Literal["error", "warning"], message: str, fix: str, file: Path | None
) -> Finding:
    return Finding(kind, severity, message, fix, None if file is None else str(file))

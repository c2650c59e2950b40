"""`pixelwise bench`: what this machine does with a model."""

from __future__ import annotations

import json as jsonlib
import math
import sys
import textwrap
from pathlib import Path

from pixelwise.bench import Benchmark, bench
from pixelwise.bench.plot import plot
from pixelwise.cli.options import numbers
from pixelwise.errors import InputError
from pixelwise.files import check_writable, writing
from pixelwise.terminal import counted, note, printable, say


def run(
    models: list[str], data: Path | None, engines: str | None, precisions: str | None, batch: str, rounds: int,
    threads: int | None, agreement: float, json: bool, out: Path | None, overwrite: bool,
) -> None:  # fmt: skip
    """Measure and print; with `out` also the plot."""
    batches: list[int] = list(numbers("--batch", batch, int, "numbers of pictures, such as 1,4") or [])
    if out is not None:
        if out.suffix.lower() != ".svg":
            raise InputError(f"the plot is an SVG, expected a name that ends in .svg, got {str(out)!r}")
        check_writable(out, overwrite=overwrite)
    found = bench(
        models or ["everyday"],
        data,
        engines=_names(engines),
        precisions=_names(precisions),
        batches=batches,
        rounds=rounds,
        threads=threads,
        agreement=agreement,
        progress=_show,
    )
    if sys.stderr.isatty():
        sys.stderr.write("\r\x1b[K")
    if out is not None:
        with writing(out, overwrite=overwrite) as temporary:
            temporary.write_text(plot(found), encoding="utf-8")
    if json:
        print(jsonlib.dumps(found.to_dict(), indent=1))
    else:
        for line in table(found, agreement):
            say(line)
    if out is not None:
        say(f"wrote {out}", file=sys.stderr)


def _names(text: str | None) -> list[str] | None:
    return None if text is None else [name.strip() for name in text.split(",") if name.strip()]


def _show(what: str) -> None:
    if sys.stderr.isatty():
        sys.stderr.write(f"\r\x1b[K{printable(what)}")
        sys.stderr.flush()
    elif what.startswith("opening"):  # a line each, not one a round
        note(what)


def table(found: Benchmark, agreement: float) -> list[str]:
    """Lines: a contender each, what the columns mean, who was left out and why, and last the command to use."""
    several = len({row.model for row in found.rows}) > 1
    scored = any(row.mean_iou is not None for row in found.rows)
    head = ["model"] * several + [
        "engine",
        "precision",
        "batch",
        "ms",
        "p95",
        "per s",
        "RAM MB",
        "file MB",
        "agree %",
    ]
    rows = [head + ["mIoU"] * scored]
    for row in found.rows:
        rows.append(
            [row.model] * several
            + [
                row.engine,
                row.precision,
                str(row.batch),
                f"{row.median_ms:.1f}",
                f"{row.p95_ms:.1f}",
                f"{row.per_second:.1f}",
                "?" if math.isnan(row.peak_mb) else f"{row.peak_mb:.0f}",
                f"{row.file_mb:.1f}",
                f"{100 * row.agreement:.2f}",
            ]
            + (["" if row.mean_iou is None else f"{row.mean_iou:.4f}"] if scored else [])
        )
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    sides = ["<"] * (2 + several) + [">"] * len(head)
    lines = [
        "  ".join(
            f"{word:{side}{width}}" for word, side, width in zip(row, sides, widths, strict=False)
        ).rstrip()
        for row in rows
    ]
    little = ", which says little on drawn pictures: give --data" if " drawn " in found.pictures else ""
    notes = [
        "ms: median from a picture in memory to its label map; p95: one in twenty takes longer; agree: pixels with the "
        f"class that the first gives them{little}; {found.pictures}, {counted(found.threads, 'thread')}, all in turns",
        *(f"left out: {who} ({why})" for who, why in found.left_out),
    ]
    lines += ["", *(part for note in notes for part in textwrap.wrap(note, 80, break_on_hyphens=False))]
    if found.use:
        of = " of those in float32" if little else ""
        lines += [
            "",
            f"the fastest{of} for one picture at a time, with {agreement:.0%} agreement:",
            found.use,
        ]
    return lines

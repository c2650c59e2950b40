"""Plots of a report as SVG: the histogram of the pictures' scores, and the curves of a run."""

from __future__ import annotations

import html
import math
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from pixelwise.terminal import counted

PLOT_STYLE = """
:root { --ink: #222; --paper: #fff; --rule: #ddd; --soft: #555;
  --l0: #0062a8; --l1: #c04a00; --l2: #00795a; --l3: #a0306f; --l4: #6f6400 }
@media (prefers-color-scheme: dark) { :root { --ink: #e4e4e4; --paper: #16181b; --rule: #3c4046; --soft: #aab;
  --l0: #6bb8ff; --l1: #ff9a55; --l2: #4fd1a5; --l3: #f28bc4; --l4: #d9cb4a } }
.plot text { font: 12px system-ui, sans-serif; fill: var(--ink) } .plot .name { font-weight: bold }
.plot .grid { stroke: var(--rule); fill: none } .plot .line { fill: none; stroke-width: 2 }
.plot .l0 { stroke: var(--l0) } .plot .l1 { stroke: var(--l1); stroke-dasharray: 7 3 }
.plot .l2 { stroke: var(--l2); stroke-dasharray: 2 3 } .plot .l3 { stroke: var(--l3); stroke-dasharray: 9 3 2 3 }
.plot .l4 { stroke: var(--l4); stroke-dasharray: 4 2 } .plot .dot { fill: var(--paper); stroke-dasharray: none }
"""
"""Colours and lines of every plot, in light and dark; the page takes its own from the same variables."""

BINS = 20
"""Of the histogram, from 0 to 1."""

MOST_POINTS = 400
"""Of a curve: of a longer run every so many steps are shown."""

Point: TypeAlias = tuple[float, float]

_LEFT, _TOP, _WIDTH, _HEIGHT = 58, 26, 412, 150


def histogram(values: NDArray[np.float64], called: str) -> str:
    """An SVG: how many pictures have which score. values: in [0, 1], NaN ones are left out; called: what it is."""
    there = values[~np.isnan(values)]
    counts, _ = np.histogram(np.clip(there, 0, 1), bins=BINS, range=(0, 1))
    most = max(1, int(counts.max()))
    step = (
        1
        if most <= 4
        else next(s * 10**p for p in range(12) for s in (1, 2, 3, 4, 5, 6, 8) if 4 * s * 10**p >= most)
    )
    top = most if most <= 4 else 4 * step
    parts = _frame(range(0, top + 1, step), "{:,}", "pictures")
    parts += [_x_label(v, f"{v:g}") for v in (0, 0.25, 0.5, 0.75, 1)]
    parts.append(_x_title(called))
    bar = _WIDTH / BINS
    for i, count in enumerate(counts):
        if count:
            tall = _HEIGHT * count / top
            parts.append(
                f'<rect class="bar" x="{_LEFT + i * bar + 1:.1f}" y="{_TOP + _HEIGHT - tall:.1f}" '
                f'width="{bar - 2:.1f}" height="{tall:.1f}"><title>{i / BINS:g} to {(i + 1) / BINS:g}: {count} '
                f"picture{'s' if count != 1 else ''}</title></rect>"
            )
    says = "no picture has a score"
    if there.size:
        median = float(np.median(there))
        x = _LEFT + _WIDTH * min(max(median, 0), 1)
        end, shift = ("end", -6) if median > 0.5 else ("start", 6)
        parts.append(f'<path class="middle" d="M{x:.1f} {_TOP - 22}V{_TOP + _HEIGHT}"/>')
        parts.append(
            f'<text x="{x + shift:.1f}" y="{_TOP - 12}" text-anchor="{end}">median {median:.3f}</text>'
        )
        says = f"from {there.min():.3f} to {there.max():.3f}, median {median:.3f}"
    return _svg(parts, f"Histogram of the {called} of {counted(there.size, 'picture')}: {says}")


def loss_curves(lines: Sequence[Mapping[str, Any]]) -> str:
    """An SVG: the loss and its parts over the steps, as a running mean; "" where there are none. lines: of a
    metrics.jsonl (`training.progress.read_metrics`)."""
    curves = {name: _thinned(points) for name, points in loss_points(lines).items()}
    return _curves(curves, "loss", None, "Loss by step, running mean")


def loss_points(lines: Sequence[Mapping[str, Any]]) -> dict[str, list[Point]]:
    """(step, running mean) of the loss and each of its parts; of a loss of one part that part alone. What is not finite
    is left out."""
    curves: dict[str, list[Point]] = {}
    for line in lines:
        if "loss" in line:
            for name, value in {"loss": line["loss"], **line.get("parts", {})}.items():
                if _finite(value):
                    curves.setdefault(name, []).append((line["step"], float(value)))
    if len(curves) == 2:
        del curves["loss"]
    return {name: _smooth(points) for name, points in curves.items()}


def score_curve(lines: Sequence[Mapping[str, Any]]) -> str:
    """An SVG: the score of each validation over the steps; "" where there is none. lines: as in `loss_curves`."""
    points = score_points(lines)
    best = max((y for _, y in points), default=0.0)
    curves = {f"validation: best {best:.3f}, last": _thinned(points)} if points else {}
    return _curves(curves, "mean IoU", 1.0, "Mean IoU of validations by step", dots=len(points) <= 60)


def score_points(lines: Sequence[Mapping[str, Any]]) -> list[Point]:
    """(step, score) of each validation."""
    return [(line["step"], float(line["score"])) for line in lines if _finite(line.get("score"))]


def _curves(
    curves: dict[str, list[Point]], what: str, top: float | None, label: str, dots: bool = False
) -> str:
    """Lines over steps with their legend, "" for none. top: of the axis; None: from the values."""
    if not curves:
        return ""
    last = max(max(x for x, _ in points) for points in curves.values()) or 1
    highest = max(max(y for _, y in points) for points in curves.values())
    top = top or _nice(highest)
    parts = _frame([top * quarter / 4 for quarter in range(5)], "{:.3g}", what)
    parts += [_x_label(step / last, f"{step:,}") for step in _steps(last)]
    parts.append(_x_title("step"))
    for number, points in enumerate(curves.values()):
        shown = [
            (_LEFT + _WIDTH * x / last, _TOP + _HEIGHT * (1 - min(max(y / top, 0), 1))) for x, y in points
        ]
        line = " ".join(f"{x:.1f},{y:.1f}" for x, y in shown)
        parts.append(f'<polyline class="line l{number % 5}" points="{line}"/>')
        if dots or len(shown) == 1:
            parts += [
                f'<circle class="dot l{number % 5}" cx="{x:.1f}" cy="{y:.1f}" r="2.5"/>' for x, y in shown
            ]
    y, said = _TOP + _HEIGHT + 56, []
    for number, (name, points) in enumerate(curves.items()):
        x = _LEFT + number % 2 * 215
        row = y + number // 2 * 18
        parts.append(f'<path class="line l{number % 5}" d="M{x} {row - 4}h22"/>')
        parts.append(f'<text x="{x + 28}" y="{row}">{html.escape(name[:34])} {points[-1][1]:.3f}</text>')
        said.append(f"{name} {points[0][1]:.3f} to {points[-1][1]:.3f}")
    return _svg(parts, f"{label}: {', '.join(said)}", tall=y + (len(curves) - 1) // 2 * 18 + 8)


def _svg(parts: Sequence[str], label: str, tall: int = _TOP + _HEIGHT + 42) -> str:
    return (
        f'<svg class="plot scores" xmlns="http://www.w3.org/2000/svg" viewBox="0 0 480 {tall}" width="480" '
        f'height="{tall}" '
        f'role="img" aria-label="{html.escape(label)}">{"".join(parts)}</svg>'
    )


def _frame(ticks: Sequence[float], form: str, what: str) -> list[str]:
    """Lines across with their numbers, from 0 to the last, and what is counted, along the axis."""
    parts = []
    for value in ticks:
        y = _TOP + _HEIGHT * (1 - value / ticks[-1])
        parts.append(f'<path class="grid" d="M{_LEFT} {y:.1f}h{_WIDTH}"/>')
        parts.append(f'<text x="{_LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{form.format(value)}</text>')
    middle = _TOP + _HEIGHT / 2
    return [
        *parts,
        f'<text transform="translate(10 {middle}) rotate(-90)" text-anchor="middle">{what}</text>',
    ]


def _x_label(share: float, text: str) -> str:
    x, anchor = _LEFT + share * _WIDTH, "end" if share == 1 else "middle"
    return f'<text x="{x:.1f}" y="{_TOP + _HEIGHT + 16}" text-anchor="{anchor}">{text}</text>'


def _x_title(text: str) -> str:
    short = text if len(text) <= 50 else text[:49] + "…"
    return f'<text x="{_LEFT + _WIDTH / 2}" y="{_TOP + _HEIGHT + 34}" text-anchor="middle">{html.escape(short)}</text>'


def _nice(highest: float) -> float:
    """The top of an axis: 1, 2, 4 or 8 times a power of ten, not below the highest value."""
    if not highest > 0:
        return 1.0
    power = 10.0 ** math.floor(math.log10(highest))
    return next(step * power for step in (1, 2, 4, 8, 10) if step * power >= highest * 0.999)


def _steps(last: float) -> list[int]:
    """Round numbers from 0 to `last`, which is there too where it does not stand on another's toes."""
    power = 10 ** max(0, math.floor(math.log10(last)) - 1)
    apart = next(step * power for step in (1, 2, 5, 10, 20, 50) if last <= 5 * step * power)
    steps = list(range(0, int(last) + 1, apart))
    return [*steps, int(last)] if last - steps[-1] >= 0.6 * apart else steps


def _finite(value: Any) -> bool:
    return isinstance(value, (int, float)) and math.isfinite(value)


def _smooth(points: list[Point]) -> list[Point]:
    """An exponential running mean over about a fiftieth of the points, without the bias of its start."""
    keep = 1 - 1 / max(1.0, len(points) / 50)
    mean, weight, smooth = 0.0, 0.0, []
    for step, value in points:
        mean, weight = keep * mean + (1 - keep) * value, keep * weight + (1 - keep)
        smooth.append((step, mean / weight))
    return smooth


def _thinned(points: list[Point]) -> list[Point]:
    """At most MOST_POINTS of them, the last one among them."""
    every = -(-len(points) // MOST_POINTS)
    kept = points[::-1][:: max(1, every)]
    return kept[::-1]

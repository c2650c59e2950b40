"""The plot of a benchmark as SVG: how fast, and how many pixels keep their class."""

from __future__ import annotations

import html
import math

from pixelwise.bench import Benchmark, Measured

WIDTH, HEIGHT, LEFT, TOP = 640, 300, 70, 24
STYLE = """
:root { --ink: #222; --paper: #fff; --rule: #ddd; --dot: #0062a8 }
@media (prefers-color-scheme: dark) { :root { --ink: #e4e4e4; --paper: #16181b; --rule: #3c4046; --dot: #6bb8ff } }
svg { background: var(--paper) } text { font: 13px system-ui, sans-serif; fill: var(--ink) }
.rule { stroke: var(--rule) } .dot { fill: var(--dot) } .lead { stroke: var(--rule) }
"""


def plot(found: Benchmark) -> str:
    """Each contender a point: pictures a second (logarithmic) to the right, agreement in percent upwards, its name in
    a list beside it by the number at the point."""
    rows = sorted(found.rows, key=lambda row: -row.per_second)
    low = min(0.5, min(math.log10(row.per_second) for row in rows))
    low, high = (
        math.floor(low * 4) / 4,
        math.ceil(max(math.log10(row.per_second) for row in rows) * 4 + 0.5) / 4,
    )
    least = min(0.99, *(row.agreement for row in rows), 1.0)
    least = math.floor(least * 200) / 200

    def at(row: Measured) -> tuple[float, float]:
        x = LEFT + WIDTH * (math.log10(row.per_second) - low) / (high - low)
        return x, TOP + HEIGHT * (1 - (row.agreement - least) / (1 - least))

    parts = []
    for i in range(6):
        share = least + (1 - least) * i / 5
        y = TOP + HEIGHT * (1 - i / 5)
        parts.append(f'<path class="rule" d="M{LEFT} {y:.1f}h{WIDTH}"/>')
        parts.append(f'<text x="{LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{100 * share:.1f}</text>')
    for power in range(math.floor(low), math.ceil(high) + 1):
        for digit in (1, 2, 5):
            value = digit * 10.0**power
            if low <= math.log10(value) <= high:
                x = LEFT + WIDTH * (math.log10(value) - low) / (high - low)
                parts.append(f'<path class="rule" d="M{x:.1f} {TOP}v{HEIGHT}"/>')
                parts.append(
                    f'<text x="{x:.1f}" y="{TOP + HEIGHT + 18}" text-anchor="middle">{value:g}</text>'
                )
    bottom = TOP + HEIGHT + 40
    parts.append(f'<text x="{LEFT + WIDTH / 2}" y="{bottom}" text-anchor="middle">pictures a second</text>')
    parts.append(f'<text x="8" y="{TOP - 8}">pixels with the same class, %</text>')
    last = -99.0
    for number, row in enumerate(sorted(rows, key=lambda row: at(row)), start=1):
        x, y = at(row)
        parts.append(
            f'<circle class="dot" cx="{x:.1f}" cy="{y:.1f}" r="5"><title>{html.escape(named(row))}</title></circle>'
        )
        beside = max(x, last + 16)
        last = beside
        parts.append(
            f'<text x="{beside:.1f}" y="{y - 9 if y > TOP + 20 else y + 19:.1f}" text-anchor="middle">{number}</text>'
        )
        parts.append(
            f'<text x="{LEFT}" y="{bottom + 8 + 20 * number}">{number}  {html.escape(named(row))}: '
            f"{row.per_second:.3g} a second, {100 * row.agreement:.2f} %</text>"
        )
    tall = bottom + 24 + 20 * len(rows)
    wide = LEFT + WIDTH + 20
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {wide} {tall}" width="{wide}" height="{tall}" '
        f'role="img" aria-label="Speed against agreement"><style>{STYLE}</style>{"".join(parts)}</svg>\n'
    )


def named(row: Measured) -> str:
    """A contender in words."""
    return f"{row.model}, {row.engine}, {row.precision}" + (f", batch {row.batch}" if row.batch > 1 else "")

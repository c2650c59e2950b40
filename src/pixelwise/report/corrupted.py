"""Scores of corrupted pictures: what tables of them show, and the plot of what is left at each strength."""

from __future__ import annotations

from typing import Any

from pixelwise.corruptions import STRENGTHS
from pixelwise.evaluation import Evaluation
from pixelwise.report.markup import text


def rows_of(found: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    """Clean, each family after its corruptions, and all: what every table shows. found: `Robustness.to_dict`."""
    rows = [("clean", found["clean"])]
    for family, means in found["families"].items():
        rows += [(name, row) for name, row in found["corruptions"].items() if row["family"] == family]
        rows.append((f"mean of {family}", means))
    return [*rows, ("mean of all", found["mean"])]


def what_it_means(evaluation: Evaluation, found: dict[str, Any]) -> str:
    """What the columns are, and what others would report."""
    names = [evaluation.classes.names[i] for i in found["classes"]]
    over = (
        f" of {', '.join(names)}" if len(names) <= 8 else f" of the {len(names)} classes that the labels hold"
    )
    says = (
        f"IoU: mean IoU{over}; retained: its share of that of the clean pictures, mean over strengths; ECE: expected "
        f"calibration error; risk: area under the risk-coverage curve; seed {found['seed']}"
    )
    noise = {
        name: row["retention_of_strengths_1_to_3"]
        for name, row in found["corruptions"].items()
        if row.get("retention_of_strengths_1_to_3") is not None
    }
    if noise:
        says += "; retained over strengths 1 to 3, which are those of noise in Cityscapes-C: " + ", ".join(
            f"{name} {value:.1%}" for name, value in noise.items()
        )
    if (published := found.get("cityscapes-c", {}).get("retention")) is not None:
        says += f"; retained as Cityscapes-C counts, all sixteen: {published:.1%}"
    return says


def section(evaluation: Evaluation) -> str:
    """Plot and table for the page."""
    assert evaluation.robustness is not None
    found = evaluation.robustness.to_dict()
    columns = {
        "mean_iou": "mean IoU",
        "expected_calibration_error": "ECE",
        "area_under_risk_coverage": "risk",
    }
    head = "".join(
        f'<th scope="colgroup" colspan="6" class="group">{title} at strength</th>'
        for title in columns.values()
    )
    numbers = "".join(f'<th scope="col">{s}</th>' for s in STRENGTHS) + '<th scope="col">mean</th>'
    rows = []
    for name, row in rows_of(found):
        cells = f'<th scope="row">{text(name)}</th><td>{percent(row.get("retention"))}</td>'
        for key in columns:
            by_strength = [row.get("strengths", {}).get(str(s), {}).get(key) for s in STRENGTHS]
            cells += "".join(
                f"<td>{'' if value is None else f'{value:.3f}'}</td>" for value in (*by_strength, row[key])
            )
        rows.append(f"<tr{' class=sum' if 'strengths' not in row else ''}>{cells}</tr>")
    plots = "".join(retention_plot(found, family) for family in found["families"])
    return (
        "<section><h2>Corrupted pictures</h2><p>How much of the clean pictures’ mean IoU is left at each strength; in "
        f'the legend its mean over strengths.</p><div class="plots">{plots}</div><div class="wide" tabindex="0" '
        'role="region" aria-label="Scores of corrupted pictures"><table class="corrupted"><caption>'
        f"{text(what_it_means(evaluation, found))}.</caption><thead>"
        f'<tr><th scope="col" rowspan="2" class="left">corruption</th><th scope="col" rowspan="2">retained</th>{head}'
        f"</tr><tr>{numbers * 3}</tr></thead><tbody>{''.join(rows)}</tbody></table></div></section>"
    )


def retention_plot(found: dict[str, Any], family: str) -> str:
    """An SVG: what share of the mean IoU is left at each strength, a line for each corruption of the family.

    found: `Robustness.to_dict`. Its colours are those of `plots.PLOT_STYLE`, for light and dark.
    """
    rows = {name: row for name, row in found["corruptions"].items() if row["family"] == family}
    left, top, width, height = 44, 26, 288, 150
    values = [s["retention"] for row in rows.values() for s in row["strengths"].values()]
    highest = max([1.0, *(value for value in values if value is not None)])

    def at(strength: int, value: float) -> tuple[float, float]:
        return left + 14 + (strength - 1) * (width - 28) / 4, top + height * (1 - value / highest)

    parts = [f'<text class="name" x="{left}" y="16">{family}</text>']
    for value in (0, 0.25, 0.5, 0.75, 1):
        y = at(1, value)[1]
        parts.append(f'<path class="grid" d="M{left} {y:.1f}h{width}"/>')
        parts.append(f'<text x="{left - 6}" y="{y + 4:.1f}" text-anchor="end">{value:.0%}</text>')
    for strength in STRENGTHS:
        x = at(strength, 0)[0]
        parts.append(f'<text x="{x:.1f}" y="{top + height + 16}" text-anchor="middle">{strength}</text>')
    for number, (name, row) in enumerate(rows.items()):
        points = [
            at(int(strength), scores["retention"])
            for strength, scores in row["strengths"].items()
            if scores["retention"] is not None
        ]
        line = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
        parts.append(f'<polyline class="line l{number}" points="{line}"/>')
        parts += [f'<circle class="dot l{number}" cx="{x:.1f}" cy="{y:.1f}" r="3"/>' for x, y in points]
        short = name.removesuffix(f"_{family}")
        x, y = left + number % 2 * 146, top + height + 38 + number // 2 * 18
        parts.append(f'<path class="line l{number}" d="M{x} {y - 4}h20"/>')
        parts.append(f'<text x="{x + 26}" y="{y}">{short} {percent(row["retention"])}</text>')
    tall = top + height + 38 + (len(rows) - 1) // 2 * 18 + 8
    return (
        f'<svg class="plot" xmlns="http://www.w3.org/2000/svg" viewBox="0 0 340 {tall}" width="340" height="{tall}" '
        f'role="img" aria-label="Retained mean IoU over strengths: {family}">{"".join(parts)}</svg>'
    )


def percent(value: float | None) -> str:
    """A share in percent, nothing for none."""
    return "" if value is None else f"{value:.1%}"

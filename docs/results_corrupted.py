"""Score `everyday` on corrupted pictures for results.md: `python docs/results_corrupted.py ../shared/data`.

Every 16th picture of VOC 2012 val (animals), all corruptions at all strengths: 28 times 91 answers, ten minutes on
two idle cores.
Writes results/everyday_corrupted.json, and from it the plot beside it and the table in results.md; without an argument
only those two.
"""

import json
import sys
from pathlib import Path

from pixelwise import Segmenter, evaluate
from pixelwise.datasets.opening import PairSamples, open_samples
from pixelwise.report.corrupted import retention_plot
from pixelwise.report.plots import PLOT_STYLE

EVERY = 16
CLASSES = ("background", "cat", "cow", "dog", "horse", "person", "sheep")
DOCS = Path(__file__).parent
NUMBERS, PLOT = (DOCS / "results" / f"everyday_corrupted.{kind}" for kind in ("json", "svg"))
PANEL_PX = 350, 280


def score(data: Path):
    val = open_samples(data / "voc2012_animals", split="val")
    samples = PairSamples(val.pairs[::EVERY], val.classes, "val")
    result = evaluate(
        Segmenter("everyday"), samples, classes=val.classes, mean_over=CLASSES, corrupt="all", progress=told
    )
    return {"pictures": len(samples), "classes": CLASSES, **result.to_dict()["corrupted"]}


def told(samples):
    for number, sample in enumerate(samples, start=1):
        yield sample
        print(f"{number} of {len(samples)}", file=sys.stderr)


def plot(found):
    """The four panels of a report's plot as one picture."""
    width, height = PANEL_PX
    panels = [
        retention_plot(found, family).replace("<svg ", f'<svg x="{i % 2 * width}" y="{i // 2 * height}" ', 1)
        for i, family in enumerate(found["families"])
    ]
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {2 * width} {2 * height}" width="{2 * width}" '
        f'height="{2 * height}"><style>{PLOT_STYLE}</style><rect width="100%" height="100%" '
        f'style="fill: var(--paper)"/>{"".join(panels)}</svg>\n'
    )


def table(found):
    """One line a corruption: mean IoU by strength, and the means of everything."""
    lines = [
        "| corruption | mean IoU at 1 | 2 | 3 | 4 | 5 | mean | retained | calibration error | risk |",
        "|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|",
    ]

    def line(name, row):
        strengths = [row.get("strengths", {}).get(str(s), {}).get("mean_iou") for s in range(1, 6)]
        cells = ["" if value is None else f"{value:.3f}" for value in (*strengths, row["mean_iou"])]
        cells.append(f"{row['retention']:.1%}".replace("%", " %") if "retention" in row else "")
        cells += [f"{row[key]:.3f}" for key in ("expected_calibration_error", "area_under_risk_coverage")]
        lines.append(f"| {name} | {' | '.join(cells)} |")

    line("none", found["clean"])
    for family, means in found["families"].items():
        for name, row in found["corruptions"].items():
            if row["family"] == family:
                line(f"`{name}`", row)
        line(f"mean of {family}", means)
    line("mean of all", found["mean"])
    return "\n".join(lines)


def main() -> None:
    if len(sys.argv) > 1:
        NUMBERS.write_text(json.dumps(score(Path(sys.argv[1])), indent=1) + "\n", encoding="utf-8")
    found = json.loads(NUMBERS.read_text(encoding="utf-8"))
    PLOT.write_text(plot(found), encoding="utf-8")
    page = DOCS / "results.md"
    before, mark, rest = page.read_text(encoding="utf-8").partition(
        "<!-- corrupted: written by docs/results_corrupted.py -->\n"
    )
    _, end, after = rest.partition("<!-- end -->")
    page.write_text(f"{before}{mark}{table(found)}\n{end}{after}", encoding="utf-8")


if __name__ == "__main__":
    main()

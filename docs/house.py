"""Draw docs/house.svg: the folders of the package, floor above floor, as their imports have it.

`python docs/house.py` writes it; `docs/build.py` does so too, and checks it. A room is a folder or a file directly under
the package, with the first words of its docstring. Each stands one floor above the highest that it imports, so what a
room uses lies below it. Lines go to what it uses and nothing between them uses already; the dashed one is the one
import upwards.
"""

from __future__ import annotations

import ast
import re
from html import escape
from pathlib import Path

from imports import UPWARDS, Graph, floors, modules, packages

PICTURE = Path(__file__).parent / "house.svg"
WIDTH, ROOM_H, GAP_X, GAP_Y, MARGIN = 1120, 58, 14, 44, 16
LETTER, LEFT_OUT = 5.6, ("__main__", "errors", "files")
"""Pixels of a small letter; rooms that nearly all others use, and whose lines would hide the rest."""

INK, GREY, LINE, UP = "#23272f", "#5d6673", "#9aa4b2", "#c2410c"
FILLS = {
    "#fde6c4": "cli service smp recipes training evaluation report robustness pipeline selftest".split(),
    "#f4d8e8": "segmenter segmentation outputs draw".split(),
    "#d6eeda": "checkpoints export decoders models encoders layers".split(),
}
"""Fill: the rooms that have it (faces and runs; the front door and its results; networks). The rest: PLAIN."""
BOLD = ' font-weight="bold"'
PLAIN = "#d9e6f6"


def drawing() -> str:
    """The picture as SVG."""
    graph = {name: others - set(LEFT_OUT) for name, others in packages().items() if name not in LEFT_OUT}
    height = floors(graph)
    rows: dict[int, list[str]] = {}
    for name, floor in height.items():
        rows.setdefault(floor, []).append(name)
    boxes: dict[str, tuple[float, float, float]] = {}  # left, top, width
    y = float(MARGIN)
    for floor in sorted(rows, reverse=True):
        names = sorted(rows[floor], key=lambda name: _middle(name, graph, boxes))
        wanted = [max(9.0 * len(_words(n)[0]), LETTER * max(map(len, _words(n)[1:]))) + 22 for n in names]
        free = WIDTH - 2 * MARGIN - GAP_X * (len(names) - 1)
        scale = min(1.0, free / sum(wanted))
        x = (WIDTH - scale * sum(wanted) - GAP_X * (len(names) - 1)) / 2
        for name, width in zip(names, wanted, strict=True):
            boxes[name] = (x, y, width * scale)
            x += width * scale + GAP_X
        y += ROOM_H + GAP_Y
    lines = [
        _line(boxes[name], boxes[other], LINE, 1.2)
        for name, others in sorted(graph.items())
        for other in sorted(_direct(name, others, graph))
    ]
    upwards = {(one.split(".")[1], other.split(".")[1]) for one, other in UPWARDS}
    lines += [_line(boxes[other], boxes[one], UP, 2.0, dashed=True) for one, other in upwards]
    rooms = [_room(name, *boxes[name]) for name in boxes]
    feet = (
        f"Each folder (with its number of files) or file stands above all that it imports; {' and '.join(LEFT_OUT[1:])} "
        "lie below everything.",
        "A line that other lines already lead along is left out. Dashed: the one import upwards, weights= in a builder.",
    )
    return "\n".join([
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {y + 18:.0f}" font-family="sans-serif">',
        f'<rect width="{WIDTH}" height="{y + 18:.0f}" rx="8" fill="#fbfbf8"/>',
        *lines, *rooms,
        *(
            f'<text x="{WIDTH / 2}" y="{y - 16 + 18 * i:.0f}" font-size="13" fill="{GREY}" text-anchor="middle">'
            f"{escape(foot)}</text>"
            for i, foot in enumerate(feet)
        ),
        "</svg>", "",
    ])  # fmt: skip


def _direct(name: str, others: set[str], graph: Graph) -> set[str]:
    """Those of `others` that no other one of them reaches."""
    return {other for other in others if not any(other in _below(via, graph) for via in others - {other})}


def _below(name: str, graph: Graph) -> set[str]:
    found: set[str] = set()
    todo = [name]
    while todo:
        new = graph[todo.pop()] - found
        found |= new
        todo.extend(new)
    return found


def _middle(name: str, graph: Graph, boxes: dict[str, tuple[float, float, float]]) -> tuple[float, str]:
    """Where the rooms above that use this one stand, on average; rows are sorted by it, so that few lines cross."""
    above = [
        boxes[user][0] + boxes[user][2] / 2 for user, used in graph.items() if name in used and user in boxes
    ]
    return (sum(above) / len(above) if above else WIDTH / 2), name


def _words(name: str) -> tuple[str, str, str]:
    """The room's name and two lines from the beginning of its docstring."""
    known = modules()
    path = known[f"pixelwise.{name}"]
    says = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    heading, _, rest = " ".join(says.partition("\n\n")[0].split()).partition(": ")
    first = (
        rest if rest and len(heading.split()) <= 2 else heading
    )  # "Decoders: what makes ..." says it after the colon
    first = re.sub(r"\s\([^)]*\)", "", first).replace("`", "")
    first = re.split(r"[:.;](?:\s|$)", first, maxsplit=1)[0]
    count = sum(module == f"pixelwise.{name}" or module.startswith(f"pixelwise.{name}.") for module in known)
    words, lines = first.split(), [""]
    for word in words:
        if len(lines[-1]) + len(word) > 24 and len(lines) < 2:
            lines.append("")
        lines[-1] = f"{lines[-1]} {word}".strip()
    one, two = (*lines, "")[:2]
    folder = path.name == "__init__.py"
    return f"{name}/ ({count})" if folder else f"{name}.py", one, two[:32] + ("…" if len(two) > 32 else "")


def _room(name: str, x: float, y: float, width: float) -> str:
    fill = next((fill for fill, names in FILLS.items() if name in names), PLAIN)
    title, one, two = _words(name)
    middle = x + width / 2
    texts = "".join(
        f'<text x="{middle:.0f}" y="{y + at:.0f}" font-size="{size}" fill="{colour}" text-anchor="middle"'
        f'{BOLD if bold else ""}>{escape(text)}</text>'
        for text, at, size, colour, bold in ((title, 19, 14, INK, True), (one, 36, 11, GREY, False), (two, 50, 11, GREY, False))
    )  # fmt: skip
    return f'<rect x="{x:.0f}" y="{y:.0f}" width="{width:.0f}" height="{ROOM_H}" rx="6" fill="{fill}" stroke="{GREY}"/>{texts}'


def _line(
    upper: tuple[float, float, float], lower: tuple[float, float, float], colour: str, width: float, *, dashed: bool = False
) -> str:  # fmt: skip
    x1, y1, x2, y2 = upper[0] + upper[2] / 2, upper[1] + ROOM_H, lower[0] + lower[2] / 2, lower[1]
    if dashed:
        x1, x2 = x1 + 12, x2 + 12
    bend = (y2 - y1) / 2
    dash = ' stroke-dasharray="6 4"' if dashed else ""
    return (
        f'<path d="M{x1:.0f} {y1:.0f}C{x1:.0f} {y1 + bend:.0f} {x2:.0f} {y2 - bend:.0f} {x2:.0f} {y2:.0f}" fill="none" '
        f'stroke="{colour}" stroke-width="{width}"{dash}/>'
    )


if __name__ == "__main__":
    PICTURE.write_text(drawing(), encoding="utf-8")
    print(PICTURE)

"""Draw docs/figures/<module>.svg: how data flows through the network of each paper, as the code in models/ has it.

`python docs/figures.py` writes all of them; `docs/build.py` does so too, and checks them. One visual language:
a box is a feature map with the layers that make it, its colour says what part it is, its height how large the
map is (the label under it says the same as a fraction of the image's side), and the text in it what is done and,
in bold, how many channels come out. k is the number of classes. Plain Python and text; sizes are in pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from html import escape
from itertools import pairwise
from pathlib import Path

FOLDER = Path(__file__).parent / "figures"
Point = tuple[float, float]

INK, GREY, PAPER = "#23272f", "#5d6673", "#fbfbf8"
KINDS = {  # name: fill, outline, words in the legend
    "data": ("#eceef1", "#7a8492", "image, result"),
    "encoder": ("#d9e6f6", "#35689f", "encoder"),
    "context": ("#fde6c4", "#b8720c", "context module"),
    "decoder": ("#d6eeda", "#37854a", "decoder"),
    "head": ("#f4d8e8", "#a13a73", "head: class scores"),
}
SIGNS = {"+": "sum", "C": "concatenation", "×": "product", "max": "largest"}
HEIGHTS = {0: 34, 1: 116, 2: 98, 4: 82, 8: 68, 16: 57, 32: 48}
"""Height of a box by stride; 0 is a map of one pixel."""


@dataclass(frozen=True)
class Box:
    """Something with a middle and four sides where arrows begin and end."""

    x: float
    y: float
    w: float
    h: float

    @property
    def left(self) -> Point:
        return self.x - self.w / 2, self.y

    @property
    def right(self) -> Point:
        return self.x + self.w / 2, self.y

    @property
    def top(self) -> Point:
        return self.x, self.y - self.h / 2

    @property
    def bottom(self) -> Point:
        return self.x, self.y + self.h / 2


@dataclass
class Figure:
    """A picture of `width` by `height`, the legend included. desc: the flow in words, for those who cannot see it."""

    title: str
    desc: str
    width: int
    height: int
    lines: list[str] = field(default_factory=list)
    kinds: set[str] = field(default_factory=set)
    signs: set[str] = field(default_factory=set)
    skips: bool = False

    def box(
        self, x: float, y: float, kind: str, text: str, channels: str | int = "", stride: int | None = None,
        w: float = 84, *, size: str | None = None, h: float | None = None, above: bool = False,
    ) -> Box:  # fmt: skip
        """A box around (x, y). text: lines apart by "|". size: what to write under it, or above, not the fraction."""
        fill, outline, _ = KINDS[kind]
        self.kinds.add(kind)
        height = h or HEIGHTS[stride if stride is not None else 16]
        self.lines.append(
            f'<rect x="{x - w / 2:g}" y="{y - height / 2:g}" width="{w:g}" height="{height:g}" rx="5" '
            f'fill="{fill}" stroke="{outline}" stroke-width="1.5"/>'
        )
        rows = [(line, "normal") for line in text.split("|") if line]
        rows += [(line, "bold") for line in str(channels).split("|") if line]
        assert len(rows) * 15 <= height - 2, f"{self.title}: {text!r} is higher than its box"
        for place, (row, weight) in enumerate(rows):
            assert _width(row, 12, weight) <= w - 3, f"{self.title}: {row!r} is wider than its box"
            self.text(x, y + 15 * (place - (len(rows) - 1) / 2) + 4.5, row, px=12, weight=weight)
        fraction = "1×1" if stride == 0 else "" if stride is None else "1" if stride == 1 else f"1/{stride}"
        if size != "" and (size or fraction):
            self.text(
                x, y - height / 2 - 6 if above else y + height / 2 + 13, size or fraction, colour=GREY, px=11
            )
        return Box(x, y, w, height)

    def sign(self, x: float, y: float, sign: str) -> Box:
        """A circle in which several maps become one."""
        self.signs.add(sign)
        self.lines.append(
            f'<circle cx="{x:g}" cy="{y:g}" r="14" fill="#fff" stroke="{INK}" stroke-width="1.5"/>'
        )
        self.text(x, y + (4 if sign == "max" else 5), sign, px=11 if sign == "max" else 15, weight="bold")
        return Box(x, y, 28, 28)

    def arrow(
        self,
        *points: Point,
        skip: bool = False,
        label: str = "",
        at: Point | None = None,
        anchor: str = "middle",
    ) -> None:
        """An arrow through points, its corners rounded. at: the label's place, else over the first piece."""
        self.skips |= skip
        dash = ' stroke-dasharray="5 4"' if skip else ""
        marker = "skip" if skip else "data"
        self.lines.append(
            f'<path d="{_rounded(points)}" fill="none" stroke="{GREY if skip else INK}" stroke-width="1.5"{dash} '
            f'marker-end="url(#{marker})"/>'
        )
        if label:
            (x0, y0), (x1, y1) = points[:2]
            x, y = at or ((x0 + x1) / 2, (y0 + y1) / 2 - 6)
            for place, row in enumerate(label.split("|")):
                self.text(x, y + 13 * place, row, colour=GREY, px=11, anchor=anchor)

    def arc(self, start: Point, end: Point, lift: float) -> None:
        """A skip over what lies between two boxes of one row."""
        self.skips = True
        (x0, y0), (x1, y1) = start, end
        self.lines.append(
            f'<path d="M{x0:g} {y0:g} C{x0:g} {y0 - lift * 1.33:g} {x1:g} {y1 - lift * 1.33:g} {x1:g} {y1:g}" '
            f'fill="none" stroke="{GREY}" stroke-width="1.5" stroke-dasharray="5 4" marker-end="url(#skip)"/>'
        )

    def chain(self, *boxes: Box) -> None:
        """Straight arrows from box to box, rightwards or, where the next lies to the left, leftwards."""
        for a, b in pairwise(boxes):
            self.arrow(*((a.right, b.left) if b.x > a.x else (a.left, b.right)))

    def text(
        self, x: float, y: float, text: str, *, px: float = 12.5, weight: str = "normal", colour: str = INK,
        anchor: str = "middle",
    ) -> None:  # fmt: skip
        self.lines.append(
            f'<text x="{x:g}" y="{y:g}" font-size="{px:g}" font-weight="{weight}" fill="{colour}" '
            f'text-anchor="{anchor}">{escape(text)}</text>'
        )

    def note(self, x: float, y: float, text: str, *, anchor: str = "start") -> None:
        """Small print; lines apart by "|"."""
        for place, row in enumerate(text.split("|")):
            self.text(x, y + 15 * place, row, px=11.5, colour=GREY, anchor=anchor)

    def svg(self) -> str:
        self._legend()
        markers = "".join(
            f'<marker id="{name}" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" '
            f'orient="auto"><path d="M0 0.5 L8 4 L0 7.5 z" fill="{colour}"/></marker>'
            for name, colour in (("data", INK), ("skip", GREY))
        )
        return (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {self.width} {self.height}" '
            f'width="{self.width}" height="{self.height}" role="img" aria-labelledby="title desc" '
            "font-family=\"Inter, 'Helvetica Neue', Helvetica, Arial, 'DejaVu Sans', sans-serif\">\n"
            f'<title id="title">{escape(self.title)}</title>\n<desc id="desc">{escape(self.desc)}</desc>\n'
            f"<defs>{markers}</defs>\n"
            f'<rect x="0.5" y="0.5" width="{self.width - 1}" height="{self.height - 1}" rx="10" fill="{PAPER}" '
            'stroke="#d9dbd6"/>\n'
            f'<text x="20" y="28" font-size="15" font-weight="bold" fill="{INK}">{escape(self.title)}</text>\n'
            + "\n".join(self.lines)
            + "\n</svg>\n"
        )

    def _legend(self) -> None:
        x, y = 20.0, self.height - 20
        self.lines.append(
            f'<line x1="20" y1="{y - 20}" x2="{self.width - 20}" y2="{y - 20}" stroke="#d9dbd6" stroke-width="1"/>'
        )
        for kind, (fill, outline, words) in KINDS.items():
            if kind in self.kinds:
                self.lines.append(
                    f'<rect x="{x:g}" y="{y - 10}" width="18" height="14" rx="3" fill="{fill}" stroke="{outline}" '
                    'stroke-width="1.5"/>'
                )
                x = self._word(x + 24, y, words)
        self.lines.append(
            f'<path d="M{x:g} {y - 3} h24" stroke="{INK}" stroke-width="1.5" marker-end="url(#data)"/>'
        )
        x = self._word(x + 30, y, "data")
        if self.skips:
            self.lines.append(
                f'<path d="M{x:g} {y - 3} h26" stroke="{GREY}" stroke-width="1.5" stroke-dasharray="5 4" '
                'marker-end="url(#skip)"/>'
            )
            x = self._word(x + 32, y, "skip")
        for sign, words in SIGNS.items():
            if sign in self.signs:
                self.lines.append(
                    f'<circle cx="{x + 9:g}" cy="{y - 3}" r="9.5" fill="#fff" stroke="{INK}" stroke-width="1.2"/>'
                )
                self.text(x + 9, y + 1, sign, px=8 if sign == "max" else 11, weight="bold")
                x = self._word(x + 23, y, words)
        self.text(self.width - 20, y + 1, "height: size of the map", px=11, colour=GREY, anchor="end")

    def _word(self, x: float, y: float, words: str) -> float:
        self.text(x, y + 1, words, px=11, anchor="start", colour=GREY)
        return x + _width(words, 11, "normal") + 15


def _width(text: str, px: float, weight: str) -> float:
    """About how wide a text is in the wider of the fonts that may draw it."""
    narrow = sum(character in " .,:;il|'()[]/1·" for character in text)
    return px * (0.66 if weight == "bold" else 0.6) * (len(text) - 0.42 * narrow)


def _rounded(points: Sequence[Point], radius: float = 8) -> str:
    path = [f"M{points[0][0]:g} {points[0][1]:g}"]
    for before, here, after in zip(points, points[1:], points[2:], strict=False):
        stops = []
        for other in (before, after):
            dx, dy = other[0] - here[0], other[1] - here[1]
            length = (dx * dx + dy * dy) ** 0.5
            share = min(radius, length / 2) / length if length else 0
            stops.append((here[0] + dx * share, here[1] + dy * share))
        path.append(f"L{stops[0][0]:g} {stops[0][1]:g}")
        path.append(f"Q{here[0]:g} {here[1]:g} {stops[1][0]:g} {stops[1][1]:g}")
    path.append(f"L{points[-1][0]:g} {points[-1][1]:g}")
    return " ".join(path)


def row(figure: Figure, y: float, *cells: tuple[float, str, str, str | int, int]) -> list[Box]:
    """Boxes side by side at height y, joined by arrows. A cell: x, kind, text, channels, stride.

    A text that begins with "^" has its size written above, where something leaves the box downwards.
    """
    boxes = [
        figure.box(x, y, kind, text.removeprefix("^"), channels, stride, above=text.startswith("^"))
        for x, kind, text, channels, stride in cells
    ]
    figure.chain(*boxes)
    return boxes


def vgg16(figure: Figure, y: float, xs: Sequence[float], conv4: int = 16, conv5: int = 32) -> list[Box]:
    """The image and the five stages of VGG-16, each after its pooling; the strides of the last two are the caller's."""
    rate, above = (
        ("rate 2, pool", "") if conv5 == 8 else ("pool", "^")
    )  # skips leave those of stride 8 and 16
    return row(
        figure, y,
        (xs[0], "data", "image", "c", 1),
        (xs[1], "encoder", "2 × conv1|pool", 64, 2),
        (xs[2], "encoder", "2 × conv2|pool", 128, 4),
        (xs[3], "encoder", f"{above}3 × conv3|pool", 256, 8),
        (xs[4], "encoder", f"{above}3 × conv4|pool", 512, conv4),
        (xs[5], "encoder", f"3 × conv5|{rate}", 512, conv5),
    )  # fmt: skip


def fcn() -> Figure:
    f = Figure(
        "FCN on VGG-16: one, two or three streams (FCN-32s, 16s, 8s)",
        "VGG-16 with fully connected layers turned into convolutions gives class scores at 1/32. "
        "FCN-32s enlarges them at once; FCN-16s doubles them and adds scores of pool4; FCN-8s doubles "
        "again and adds scores of pool3.",
        width=1060,
        height=600,
    )
    y1, y2, y3, y4 = 112, 232, 322, 456
    image, _, _, pool3, pool4, pool5 = vgg16(f, y1, (62, 165, 268, 376, 562, 668))
    fc6 = f.box(773, y1, "encoder", "fc6 7×7", 4096, 32)
    fc7 = f.box(876, y1, "encoder", "fc7 1×1", 4096, 32)
    score = f.box(985, y1, "head", "score 1×1", "k", 32, above=True)
    f.chain(pool5, fc6, fc7, score)
    f.note(
        image.x - 42,
        202,
        "with a border of|100 zero pixels",
    )
    s4 = f.box(562, y2, "head", "score 1×1", "k", 16, size="")
    s3 = f.box(376, y2, "head", "score 1×1", "k", 8, size="")
    f.arrow(pool4.bottom, s4.top, skip=True, label="pool4", at=(570, 174), anchor="start")
    f.arrow(pool3.bottom, s3.top, skip=True, label="pool3", at=(384, 174), anchor="start")
    up2 = f.box(773, y3, "decoder", "×2|deconv 4×4", "k", 16, 96)
    plus4 = f.sign(562, y3, "+")
    up4 = f.box(472, y3, "decoder", "×2|deconv 4×4", "k", 8, 96)
    plus3 = f.sign(376, y3, "+")
    up8 = f.box(268, y3, "decoder", "×8|deconv 16×16", "k", 1, 112)
    out8 = f.box(90, y3, "data", "FCN-8s|logits", "k", 1)
    f.arrow(score.bottom, (985, y3), up2.right)
    f.arrow(up2.left, plus4.right)
    f.arrow(s4.bottom, plus4.top, skip=True, label="crop 5", at=(570, 285), anchor="start")
    f.chain(plus4, up4, plus3, up8)
    f.arrow(s3.bottom, plus3.top, skip=True, label="crop 9", at=(384, 288), anchor="start")
    f.arrow(up8.left, out8.right, label="crop 31")
    up16 = f.box(562, y4, "decoder", "×16|deconv 32×32", "k", 1, 112)
    out16 = f.box(376, y4, "data", "FCN-16s|logits", "k", 1)
    f.arrow(plus4.bottom, up16.top)
    f.arrow(up16.left, out16.right, label="crop 27")
    up32 = f.box(985, y4, "decoder", "×32|deconv 64×64", "k", 1, 112)
    out32 = f.box(800, y4, "data", "FCN-32s|logits", "k", 1)
    f.arrow(score.bottom, up32.top)
    f.arrow(up32.left, out32.right, label="crop 19")
    f.note(
        20,
        420,
        "At-once: pool4 × 0.01 and pool3 × 0.0001|before they are scored.",
    )
    f.note(
        20,
        462,
        "Crops are offsets in pixels of their map.|"
        "Maps are larger than the fraction says,|"
        "as the border has its share.",
    )
    return f


def deeplabv1() -> Figure:
    f = Figure(
        "DeepLab v1 on VGG-16, LargeFOV",
        "VGG-16 whose last two poolings do not stride and whose conv5 is dilated, then fc6 as a 3x3 "
        "convolution of rate 12, fc7, fc8, and bilinear enlargement by 8.",
        width=1060,
        height=286,
    )
    y = 118
    *_, pool5 = vgg16(f, y, (58, 154, 250, 346, 442, 540), 8, 8)
    boxes = [
        f.box(638, y, "context", "pool5a|mean 3×3", 512, 8),
        f.box(738, y, "context", "fc6 3×3|rate 12", 1024, 8),
        f.box(834, y, "context", "fc7 1×1", 1024, 8),
        f.box(928, y, "head", "fc8 1×1", "k", 8, 62),
        f.box(1008, y, "data", "×8|logits", "k", 1, 64),
    ]
    f.chain(pool5, *boxes)
    f.note(
        20,
        219,
        "Poolings are 3×3 maxima; pool4 and pool5 have stride 1. Enlarged bilinearly with aligned corners. "
        "Other fields of view: fc6 7×7 with rate 4, or 4×4|"
        "with rate 4 or 8, and 4096 channels in fc6 and fc7. The dense CRF of the paper is a separate step.",
    )
    return f


def deeplabv2() -> Figure:
    f = Figure(
        "DeepLab v2 on ResNet-101: ASPP and several scales",
        "The image at three scales passes the same network; logits are brought to the first grid and "
        "the largest wins. The network: ResNet-101 dilated to 1/8, four 3x3 classifiers of rates 6, 12, "
        "18, 24, summed.",
        width=1060,
        height=606,
    )
    ys = (84, 164, 236)
    image = f.box(62, ys[1], "data", "image", "c", 1)
    maximum = f.sign(800, ys[1], "max")
    logits = f.box(985, ys[1], "data", "×8|logits", "k", 1)
    for y, scale, h in zip(ys, ("1", "3/4", "1/2"), (66, 54, 44), strict=True):
        small = f.box(200, y, "data", f"× {scale}", h=h, w=70)
        network = f.box(400, y, "encoder", "network below, same weights", h=h, w=190)
        scores = f.box(590, y, "head", "", "k", h=h, w=66)
        f.chain(small, network, scores)
        f.arrow(image.right, *([] if y == ys[1] else [(130, ys[1]), (130, y)]), small.left)
        word = "to the grid of scale 1" if y != ys[0] else ""
        if y == ys[1]:
            f.arrow(scores.right, maximum.left, label=word, at=(704, y - 6))
        else:
            end = maximum.top if y < ys[1] else maximum.bottom
            f.arrow(scores.right, (800, y), end, label=word, at=(704, y - 6))
    f.arrow(maximum.right, logits.left, label="1/8", at=(880, ys[1] - 6))
    f.text(20, 304, "The network", px=13, weight="bold", anchor="start")
    y = 410
    *_, layer4 = row(
        f, y,
        (62, "data", "image", "c", 1),
        (165, "encoder", "conv1 7×7", 64, 2),
        (268, "encoder", "max pool|layer1", 256, 4),
        (371, "encoder", "layer2", 512, 8),
        (474, "encoder", "layer3|rate 2", 1024, 8),
        (577, "encoder", "layer4|rate 4", 2048, 8),
    )  # fmt: skip
    plus = f.sign(850, y, "+")
    for rate, by in zip((6, 12, 18, 24), (338, 386, 434, 482), strict=True):
        branch = f.box(715, by, "context", f"3×3, rate {rate}", "k", w=96, h=40)
        f.arrow(layer4.right, (640, y), (640, by), branch.left)
        f.arrow(branch.right, (808, by), (808, y), plus.left)
    scores = f.box(985, y, "head", "scores", "k", 8)
    f.arrow(plus.right, scores.left)
    f.note(
        20,
        530,
        "On VGG-16 (dilated as in DeepLab v1, no pool5a) each branch is fc6 3×3 with 1024 channels, fc7 "
        "and fc8; ASPP-S has rates 2, 4, 8, 12.|"
        "In training every scale has a loss of its own, next to that of the maximum.",
    )
    return f


def resnet(f: Figure, y: float, xs: Sequence[float], layer3: str, layer4: str) -> list[Box]:
    """The image and a ResNet of output stride 8, with the rates of its last two stages."""
    return row(
        f, y,
        (xs[0], "data", "image", 3, 1),
        (xs[1], "encoder", "conv1 7×7", 64, 2),
        (xs[2], "encoder", "max pool|layer1", 256, 4),
        (xs[3], "encoder", "layer2", 512, 8),
        (xs[4], "encoder", f"^layer3|{layer3}", 1024, 8),
        (xs[5], "encoder", f"layer4|{layer4}", 2048, 8),
    )  # fmt: skip


def aspp(f: Figure, x: float, y: float, start: Box, rates: Sequence[int], stride: int) -> Box:
    """The pyramid of five branches between `start` and the returned projection to 256 channels."""
    words = ["1×1", *(f"3×3, rate {rate}" for rate in rates), "image mean, 1×1"]
    join = f.sign(x + 118, y, "C")
    for place, word in enumerate(words):
        by = y + 52 * (place - 2)
        branch = f.box(x, by, "context", word, 256, w=116, h=42)
        if place == 2:
            f.arrow(start.right, branch.left)
            f.arrow(branch.right, join.left)
        else:
            f.arrow(start.right, (x - 78, y), (x - 78, by), branch.left)
            f.arrow(branch.right, (join.x, by), join.top if place < 2 else join.bottom)
    project = f.box(x + 192, y, "context", "1×1", 256, stride, 58, above=True)
    f.arrow(join.right, project.left)
    return project


def deeplabv3() -> Figure:
    f = Figure(
        "DeepLabV3 on a ResNet, torchvision's form",
        "A dilated ResNet of output stride 8; atrous spatial pyramid pooling with a 1x1 branch, three "
        "3x3 branches of rates 12, 24, 36 and image pooling; a 3x3 convolution; class scores; "
        "enlargement by 8.",
        width=1120,
        height=474,
    )
    y = 178
    *_, layer3, layer4 = resnet(f, y, (62, 155, 248, 341, 434, 527), "rate 2", "rate 4")
    project = aspp(f, 672, y, layer4, (12, 24, 36), 8)
    mix = f.box(936, y, "decoder", "3×3", 256, 8, 54)
    score = f.box(1004, y, "head", "1×1", "k", 8, 46)
    out = f.box(1072, y, "data", "×8|logits", "k", 1, 56)
    f.chain(project, mix, score, out)
    aux = [
        f.box(434, 322, "head", "3×3", 256, 8),
        f.box(334, 322, "head", "1×1", "k", 8),
        f.box(234, 322, "data", "×8|aux", "k", 1),
    ]
    f.arrow(layer3.bottom, aux[0].top)
    f.chain(*aux)
    f.note(
        20,
        300,
        "The auxiliary head is for|training. The first block|of a dilated stage keeps|the rate before it.",
    )
    f.note(
        560,
        344,
        "The paper's: output stride 16 with rates 6, 12, 18 (or 8 with 12, 24, 36),|"
        "rates × (1, 2, 4) in layer4's blocks, no 3×3 convolution after the pyramid,|"
        "no auxiliary head. On MobileNetV3-Large: 960 channels at 1/16,|"
        "rates 12, 24, 36, ×16.",
    )
    return f


def deeplabv3plus() -> Figure:
    f = Figure(
        "DeepLabV3+ on aligned Xception-65",
        "Xception features at 1/16 pass the pyramid, are enlarged to 1/4, meet features of that size "
        "reduced to 48 channels, and two 3x3 convolutions mix them before the class scores.",
        width=1060,
        height=530,
    )
    y, y2 = 178, 400
    boxes = row(
        f, y,
        (62, "data", "image", "c", 1),
        (157, "encoder", "2 × conv", 64, 2),
        (252, "encoder", "entry flow|unit 1", 128, 4),
        (352, "encoder", "^entry flow|unit 2", 256, 8),
        (452, "encoder", "entry flow|unit 3", 728, 16),
        (552, "encoder", "16 middle|units", 728, 16),
        (652, "encoder", "exit flow", 2048, 16),
    )  # fmt: skip
    project = aspp(f, 800, y, boxes[-1], (6, 12, 18), 16)
    fine = f.box(352, y2, "decoder", "1×1", 48, 4, size="1/4")
    f.arrow(
        boxes[3].bottom,
        fine.top,
        skip=True,
        label="256 channels at 1/4, in unit 2|before its convolution that strides",
        at=(362, 282),
        anchor="start",
    )
    join = f.sign(560, y2, "C")
    f.arrow(fine.right, join.left, skip=True, label="second", at=(500, y2 - 6))
    f.arrow(
        project.bottom, (project.x, 330), (560, 330), join.top, label="first: bilinear to 1/4", at=(640, 323)
    )
    mix1 = f.box(660, y2, "decoder", "sep. 3×3", 256, 4)
    mix2 = f.box(764, y2, "decoder", "sep. 3×3", 256, 4)
    score = f.box(860, y2, "head", "1×1", "k", 4, 56)
    out = f.box(960, y2, "data", "×4|logits", "k", 1, 70)
    f.arrow(join.right, mix1.left, label="304", at=(596, y2 - 6))
    f.chain(mix1, mix2, score, out)
    f.note(
        20,
        356,
        "Separable convolutions in pyramid and decoder|"
        "with Xception and MobileNetV2, plain ones with|"
        "ResNets, whose fine features are layer1's 256;|"
        "MobileNetV2's are 24.",
    )
    f.note(
        20,
        428,
        "The exit flow does not stride; its second unit|"
        "has rate 2. Output stride 8: rates 12, 24, 36.|"
        "VainF's decoder has one 3×3 convolution.",
    )
    return f


def lraspp() -> Figure:
    f = Figure(
        "LR-ASPP on MobileNetV3-Large",
        "Features of 1/16 are weighed channel by channel by what the whole image shows, enlarged to "
        "1/8, classified, and added to class scores of the features of 1/8.",
        width=1112,
        height=426,
    )
    y, y2 = 118, 302
    *_, fine, _, deep = row(
        f, y,
        (58, "data", "image", 3, 1),
        (160, "encoder", "layers 0, 1", 16, 2),
        (262, "encoder", "layers 2, 3", 24, 4),
        (364, "encoder", "^layer 4", 40, 8),
        (466, "encoder", "layers 5–12", 112, 16),
        (578, "encoder", "layers 13–16", 960, 16),
    )  # fmt: skip
    cbr = f.box(706, y, "context", "1×1", 128, 16, 70)
    times = f.sign(806, y, "×")
    up = f.box(878, y, "decoder", "to 1/8", 128, 8, 68)
    high = f.box(958, y, "head", "1×1", "k", 8, 52, above=True)
    f.chain(deep, cbr, times, up, high)
    mean = f.box(646, 222, "context", "image mean", 960, 0, 88)
    gate = f.box(748, 222, "context", "1×1, sigmoid", 128, 0, 94)
    f.arrow(deep.right, (646, y), mean.top)
    f.arrow(mean.right, gate.left)
    f.arrow(gate.right, (806, 222), times.bottom)
    low = f.box(364, y2, "head", "1×1", "k", 8)
    f.arrow(fine.bottom, low.top, skip=True)
    plus = f.sign(958, y2, "+")
    f.arrow(low.right, plus.left, skip=True)
    f.arrow(high.bottom, plus.top)
    out = f.box(1052, y2, "data", "×8|logits", "k", 1, 76)
    f.arrow(plus.right, out.left)
    f.note(
        20,
        262,
        "Layer 4 is the first of stride 8, as|"
        "in torchvision. Layers 13 to 15 are|"
        "dilated (rate 2), not striding.",
    )
    return f


def fcn_resnet() -> Figure:
    f = Figure(
        "FCN on a dilated ResNet, torchvision's form",
        "A ResNet of output stride 8, a 3x3 convolution, class scores, enlargement by 8; an auxiliary "
        "head of the same kind on the stage before.",
        width=980,
        height=388,
    )
    y, y2 = 118, 270
    *_, layer3, layer4 = resnet(f, y, (62, 168, 274, 380, 486, 592), "rate 2", "rate 4")
    _heads(f, y, y2, layer3, layer4, (512, 256), 8)
    f.note(
        20,
        222,
        "The auxiliary head is for training.|"
        "With output_stride=32, as in R's torchvision, no stage|"
        "is dilated: layer3 has 1/16, layer4 1/32, and the|"
        "enlargement is ×32.",
    )
    return f


def _heads(
    f: Figure, y: float, y2: float, before: Box, last: Box, widths: tuple[int, int], stride: int
) -> None:
    """Two heads of a 3x3 and a 1x1 convolution, on the last feature and, below it, on the one before."""
    main = [
        f.box(698, y, "head", "3×3", widths[0], stride),
        f.box(804, y, "head", "1×1", "k", stride),
        f.box(910, y, "data", f"×{stride}|logits", "k", 1),
    ]
    f.chain(last, *main)
    finer = stride if stride == 8 else stride // 2
    aux = [
        f.box(698, y2, "head", "3×3", widths[1], finer),
        f.box(804, y2, "head", "1×1", "k", finer),
        f.box(910, y2, "data", f"×{finer}|aux", "k", 1),
    ]
    f.arrow(before.bottom, (before.x, y2), aux[0].left)
    f.chain(*aux)


def fcn_convnext() -> Figure:
    f = Figure(
        "FCN on ConvNeXt-Tiny",
        "ConvNeXt's last stage at 1/32, normalised, a 3x3 convolution, class scores, enlargement by 32; "
        "an auxiliary head of the same kind on the stage before.",
        width=980,
        height=388,
    )
    y, y2 = 118, 270
    *_, stage3, stage4 = row(
        f, y,
        (62, "data", "image", "c", 1),
        (168, "encoder", "patches 4×4|3 blocks", 96, 4),
        (274, "encoder", "halve|3 blocks", 192, 8),
        (380, "encoder", "^halve|9 blocks", 384, 16),
        (486, "encoder", "halve|3 blocks", 768, 32),
    )  # fmt: skip
    norm = f.box(592, y, "encoder", "layer norm", 768, 32)
    f.chain(stage4, norm)
    _heads(f, y, y2, stage3, norm, (512, 256), 32)
    f.note(
        20,
        222,
        "The auxiliary head (aux_loss=True) is for training; its|"
        "feature is normalised as well. R's torchvision has no|"
        "norms there (output_norms=False). Base is wider|"
        "(128 to 1024), Small and Base have 27 blocks in stage 3.",
    )
    return f


def deeplabv3_mobilenet_v2() -> Figure:
    f = Figure(
        "DeepLabV3 on MobileNetV2",
        "MobileNetV2 of output stride 16; a 1x1 branch and the mean of the image are concatenated, "
        "projected, classified and enlarged by 16.",
        width=1120,
        height=312,
    )
    y = 118
    *_, deep = row(
        f, y,
        (56, "data", "image", 3, 1),
        (152, "encoder", "conv 3×3|block 1", 16, 2),
        (248, "encoder", "blocks 2, 3", 24, 4),
        (344, "encoder", "blocks 4–6", 32, 8),
        (440, "encoder", "blocks 7–13", 96, 16),
        (544, "encoder", "14–17, rate 2", 320, 16),
    )  # fmt: skip
    local = f.box(672, y, "context", "1×1", 256, 16)
    whole = f.box(672, 208, "context", "image mean, 1×1", 256, 0, 122)
    join = f.sign(778, y, "C")
    f.chain(deep, local)
    f.arrow(local.right, join.left, label="second", at=(739, y - 8))
    f.arrow(deep.right, (604, y), (604, 208), (whole.left[0], 208))
    f.arrow(whole.right, (778, 208), join.bottom, label="first", at=(758, 201))
    project = f.box(862, y, "context", "1×1", 256, 16, 70)
    score = f.box(952, y, "head", "1×1", "k", 16, 70)
    out = f.box(1060, y, "data", "×16|logits", "k", 1)
    f.arrow(join.right, project.left, label="512", at=(809, y - 8))
    f.chain(project, score, out)
    f.note(
        20,
        218,
        "Block 14 would stride and does not; blocks 15 to 17 are dilated. Enlarged|"
        "bilinearly with aligned corners, exact for sides of 16n + 1 pixels.",
    )
    return f


@dataclass(frozen=True)
class Level:
    """One level of a network in the shape of a U: the channels of its two boxes, what is written at its skip, sizes."""

    down: str | int
    up: str | int
    skip: str = "copy"
    down_size: str | None = None
    up_size: str | None = None


def u_shape(
    f: Figure, levels: Sequence[Level], floor: tuple[str | int, str | None], *, block: str, down: str, up: str,
    image: tuple[str, str | int, str | None], score: str, out_size: str | None = None,
    aux: Sequence[tuple[int, str]] = (),
) -> None:  # fmt: skip
    """The finest level at the top, the encoder on the left, the decoder on the right, the floor between them.

    block: what every box holds. down, up: between levels. aux: levels with a head of their own, and its text.
    """
    w, step, gap, x, far, y = 110.0, 70.0, 36.0, 172.0, f.width - 224.0, 112.0
    strides = [2**place for place in range(len(levels) + 1)]
    ys = [y]
    for here, below in pairwise(strides):
        ys.append(ys[-1] + HEIGHTS[here] / 2 + gap + HEIGHTS[below] / 2)
    lefts, joins, rights = [], [], []
    for place, level in enumerate(levels):
        y, dx = ys[place], step * place
        left = f.box(
            x + dx, y, "encoder", block, level.down, strides[place], w, size=level.down_size, above=True
        )
        right = f.box(far - dx, y, "decoder", block, level.up, strides[place], w, size=level.up_size)
        join = f.sign(right.left[0] - 34, y, "C")
        f.arrow(left.right, join.left, skip=True, label=level.skip)
        f.arrow(join.right, right.left)
        lefts.append(left), joins.append(join), rights.append(right)
    middle = (lefts[-1].x + joins[-1].x) / 2 + 8
    base = f.box(middle, ys[-1], "encoder", block, floor[0], strides[-1], w, size=floor[1])
    for here, there in zip(lefts, [*lefts[1:], base], strict=True):
        start = here.x - w / 4
        f.arrow(
            (start, here.bottom[1]),
            (start, there.y),
            there.left,
            label=down,
            at=(start - 7, there.y - 10),
            anchor="end",
        )
    for join, source in zip(joins, [*rights[1:], base], strict=True):
        if source is base:
            points, label_y = [base.right, (join.x, base.y), join.bottom], join.y + 34
        else:
            points, label_y = [(join.x, source.top[1]), join.bottom], source.top[1] - 10
        f.arrow(*points, label=up, at=(join.x - 7, label_y), anchor="end")
    start = f.box(58, ys[0], "data", image[0], image[1], 1, 68, size=image[2])
    head = f.box(far + w / 2 + 44, ys[0], "head", score, "k", 1, 52, size=out_size)
    end = f.box(head.x + 74, ys[0], "data", "logits", "k", 1, 60, size=out_size)
    f.arrow(start.right, lefts[0].left)
    f.arrow(rights[0].right, head.left)
    f.arrow(head.right, end.left)
    for place, text in aux:
        right = rights[place]
        small = f.box(right.right[0] + 62, right.y, "head", text, "k", strides[place], 80)
        f.arrow(right.right, small.left)


def unet() -> Figure:
    f = Figure(
        "U-Net, padded",
        "Four levels down with max pooling, four up with transposed convolutions; on every level the "
        "encoder's map is concatenated in front of the one that comes up. The output has the size of "
        "the image.",
        width=1120,
        height=716,
    )
    u_shape(
        f, [Level(64, 64), Level(128, 128), Level(256, 256), Level(512, 512)], (1024, None),
        block="2 × conv 3×3", down="max pool", up="up-conv 2×2", image=("image", "c", None), score="1×1",
    )  # fmt: skip
    f.note(
        830,
        500,
        "Concatenation: [copy, up]. Every con-|"
        "volution is padded and followed by batch|"
        "norm and ReLU. unet_bilinear interpolates|"
        "in place of the up-convolution and has|"
        "512 channels at the bottom, going up|"
        "256, 128, 64, 64.",
    )
    return f


def unet_valid() -> Figure:
    f = Figure(
        "U-Net, as in the paper: nothing is padded",
        "Four levels down, four up, with unpadded convolutions; copies are cropped by 4, 16, 40 and 88 "
        "pixels on each side. A tile of 572 pixels gives 388.",
        width=1120,
        height=716,
    )
    u_shape(
        f,
        [
            Level(64, 64, "copy, crop 88", "570, 568", "390, 388"),
            Level(128, 128, "copy, crop 40", "282, 280", "198, 196"),
            Level(256, 256, "copy, crop 16", "138, 136", "102, 100"),
            Level(512, 512, "copy, crop 4", "66, 64", "54, 52"),
        ],
        (1024, "30, 28"),
        block="2 × conv 3×3", down="max pool", up="up-conv 2×2", image=("tile", "c", "572"), score="1×1",
        out_size="388",
    )  # fmt: skip
    f.note(
        830,
        486,
        "Sizes are pixels of a side after each|"
        "convolution. Concatenation: [copy, up].|"
        "The released unet_phseg_v5 has [up, copy],|"
        "a ReLU after each up-convolution, and 128|"
        "channels from the last of them. The image|"
        "is mirrored at its border, so that the|"
        "logits have its size.",
    )
    return f


def nonewnet() -> Figure:
    f = Figure(
        "No New-Net: a 3-D U-Net",
        "Four levels down with max pooling, four up with trilinear interpolation; the map that comes up "
        "is concatenated in front of the encoder's. Every second convolution of the decoder already has "
        "the next level's width.",
        width=1120,
        height=716,
    )
    u_shape(
        f, [Level("30, 30", "30, 30"), Level("60, 60", "60, 30"), Level("120, 120", "120, 60"),
         Level("240, 240", "240, 120")],
        ("320, 240", None), block="2 × conv 3×3×3", down="max pool", up="trilinear ×2",
        image=("volume", 4, None), score="1×1×1",
        aux=((1, "1×1×1, ×2"), (2, "1×1×1, ×4"), (3, "1×1×1, ×8")),
    )  # fmt: skip
    f.note(
        850,
        548,
        "Concatenation: [up, copy]. Instance norm|"
        "and leaky ReLU after each convolution. The|"
        "three lower heads: deep_supervision=True,|"
        "then enlarged. Co-training gives each head|"
        "a twin. In 2-D 480 channels at the bottom.",
    )
    return f


def segnet() -> Figure:
    f = Figure(
        "SegNet: places, not features, go across",
        "The convolutions of VGG-16 and their mirror image; each max pooling remembers the places of "
        "the maxima, and the unpooling of the same size puts values back there.",
        width=1120,
        height=372,
    )
    y, x, pitch, w = 226, 55.0, 77.7, 64
    image = f.box(x, y, "data", "image", "c", 1, w)
    encoder = [
        f.box(x + pitch * (i + 1), y, "encoder", f"{n} × conv", c, 2**i, w)
        for i, (n, c) in enumerate(((2, 64), (2, 128), (3, 256), (3, 512), (3, 512)))
    ]
    deepest = f.box(x + pitch * 6, y, "encoder", "pool", 512, 32, w)
    decoder = [
        f.box(x + pitch * (7 + i), y, "decoder", f"unpool|{n} × conv", c, 2 ** (4 - i), w)
        for i, (n, c) in enumerate(((3, 512), (3, 256), (3, 128), (2, 64), (1, 64)))
    ]
    score = f.box(x + pitch * 12, y, "head", "3×3", "k", 1, w)
    out = f.box(x + pitch * 13, y, "data", "logits", "k", 1, w)
    f.chain(image, *encoder, deepest, *decoder, score, out)
    for i, (left, right) in enumerate(zip(encoder, reversed(decoder), strict=True)):
        top = 64 + 23 * i
        f.arrow(left.top, (left.x, top), (right.x, top), right.top, skip=True)
    f.text(deepest.x, 57, "places of the maxima", px=11, colour=GREY)
    f.note(
        20,
        320,
        "Convolutions are 3×3 with batch norm and ReLU. Max pooling of 2×2 after each encoder block; "
        "unpooling puts zeros everywhere else.",
    )
    return f


def unetplusplus() -> Figure:
    f = Figure(
        "U-Net++: nested, dense skips",
        "A triangle of nodes X(i, j), level i and column j. X(i, 0) is the encoder. X(i, j) takes all "
        "nodes to its left on the level and the node below to the left, up-sampled. The top row's nodes "
        "have heads.",
        width=1120,
        height=700,
    )
    heights, ys = (70, 62, 54, 48, 44), (232, 344, 444, 534, 614)
    names = {0: 32, 1: 64, 2: 128, 3: 256, 4: 512}
    nodes = {}
    for i in range(5):
        for j in range(5 - i):
            kind = "encoder" if j == 0 else "decoder"
            nodes[i, j] = f.box(
                130 + 105 * (2 * j + i),
                ys[i],
                kind,
                f"X({i}, {j})",
                names[i],
                2**i,
                84,
                h=heights[i],
                size="" if j else None,
            )
    image = f.box(44, ys[0], "data", "image", "c", 1, 56, h=84)
    f.arrow(image.right, nodes[0, 0].left)
    for (i, j), node in nodes.items():
        if (i + 1, j) in nodes:
            below = nodes[i + 1, j]
            if j == 0:
                f.arrow((node.right[0] - 16, node.bottom[1]), (below.left[0] + 16, below.top[1]))
            f.arrow(
                (below.right[0] - 16, below.top[1]), (nodes[i, j + 1].left[0] + 16, nodes[i, j + 1].bottom[1])
            )
        for k in range(j):
            left = nodes[i, k]
            if k == j - 1:
                f.arrow(left.right, node.left, skip=True)
            else:
                span = j - k - 1
                f.arc(
                    (left.x + 14, left.top[1]),
                    (node.x - 8 - 8 * span, node.top[1]),
                    22 * span + 16 if i == 0 else 14 * span + 4,
                )
    for j in range(1, 5):
        head = f.box(nodes[0, j].x + 22, 84, "head", "1×1", "k", 1, 58, h=46, size="")
        f.arrow((head.x, nodes[0, j].top[1]), head.bottom)
        f.text(head.x + 36, 82, f"L{j}", px=12, weight="bold", anchor="start")
        f.text(head.x + 36, 96, f"aux{j}", px=11, colour=GREY, anchor="start")
    f.note(
        734,
        530,
        "A node is two 3×3 convolutions with ReLU and dropout 0.5|"
        "on [up, X(i, 0), ..., X(i, j − 1)]. Downwards: 2×2 max pooling;|"
        "upwards: up-convolution 2×2. One head, at X(0, 4), or four with|"
        'deep supervision: "out" is the mean of their probabilities|'
        "(accurate) or the last head alone (fast). Pruned to Lj, only nodes|"
        "with i + j up to that depth remain.",
    )
    return f


def segformer() -> Figure:
    f = Figure(
        "SegFormer-B0",
        "Four transformer stages at 1/4 to 1/32; each feature is projected to 256 channels and enlarged "
        "to 1/4, the four are concatenated, deepest first, mixed by a 1x1 convolution, classified and "
        "enlarged by 4.",
        width=1060,
        height=548,
    )
    ys = (102, 206, 304, 398)
    image = f.box(62, ys[0], "data", "image", "c", 1)
    join = f.sign(660, 250, "C")
    stages = []
    for place, (channels, stride, patch) in enumerate(((32, 4, 7), (64, 8, 3), (160, 16, 3), (256, 32, 3))):
        y = ys[place]
        stage = f.box(225, y, "encoder", f"patches {patch}×{patch}, 2 blocks", channels, stride, 152, size="")
        f.text(
            stage.left[0] - 8, y + (30 if place == 0 else 4), f"1/{stride}", px=11, colour=GREY, anchor="end"
        )
        linear = f.box(390, y, "decoder", "linear", 256, stride, 78)
        f.arrow(stage.right, linear.left)
        if place == 0:
            end = linear
        else:
            end = f.box(518, y, "decoder", "to 1/4", 256, 4, 78, size="")
            f.arrow(linear.right, end.left)
        if stages:
            f.arrow(stages[-1].bottom, stage.top)
        stages.append(stage)
        target = {0: join.top, 3: join.bottom}.get(place, join.left)
        bend = 660 if place in (0, 3) else 606
        order = ("fourth", "third", "second", "first")[place]
        f.arrow(
            end.right,
            (bend, y),
            *([(bend, 250)] if place in (1, 2) else []),
            target,
            label=order,
            at=(582 if place else 500, y - 7),
        )
    f.arrow(image.right, stages[0].left)
    mix = f.box(762, 250, "decoder", "1×1, norm", 256, 4)
    score = f.box(862, 250, "head", "1×1", "k", 4, 64)
    out = f.box(970, 250, "data", "×4|logits", "k", 1)
    f.arrow(join.right, mix.left, label="1024", at=(696, 243))
    f.chain(mix, score, out)
    f.note(
        20,
        462,
        "Blocks are transformer blocks. B1 to B5: 64, 128, 320, 512 channels; blocks 2 2 2 2, 3 4 6 3, 3 4 "
        "18 3, 3 8 27 3, 3 6 40 3; from B2 on 768 in|"
        "the head. Keys and values see the map shrunk by 8, 4, 2, 1. The code projects and mixes before it "
        "enlarges: the same function, with less|"
        "work (fast_head=False: as drawn).",
    )
    return f


def upernet() -> Figure:
    f = Figure(
        "UPerNet on ConvNeXt-Tiny",
        "ConvNeXt features at 1/4 to 1/32; the deepest passes a pooling pyramid of 1, 2, 3, 6 bins; a "
        "feature pyramid adds each coarser map to the next finer one; all four are enlarged to 1/4, "
        "concatenated, mixed and classified.",
        width=1120,
        height=600,
    )
    ys = (104, 216, 318, 426)
    image = f.box(58, ys[0], "data", "image", "c", 1, 76)
    stages, sums = [], []
    join = f.sign(806, 270, "C")
    for place, (channels, stride, blocks) in enumerate(((96, 4, 3), (192, 8, 3), (384, 16, 9), (768, 32, 3))):
        y = ys[place]
        words = "patches 4×4, " if place == 0 else "halve, "
        stage = f.box(206, y, "encoder", f"{words}{blocks} blocks", channels, stride, 142, size="")
        f.text(
            stage.left[0] - 8, y + (30 if place == 0 else 4), f"1/{stride}", px=11, colour=GREY, anchor="end"
        )
        if stages:
            f.arrow(stages[-1].bottom, stage.top)
        stages.append(stage)
        if place < 3:
            lateral = f.box(360, y, "decoder", "1×1", 512, stride, 70, size="")
            plus = f.sign(560, y, "+")
            mixed = f.box(660, y, "decoder", "3×3", 512, stride, 70, size="")
            f.arrow(stage.right, lateral.left, label="norm", at=(299, y - 7))
            f.arrow(lateral.right, plus.left)
            f.arrow(plus.right, mixed.left)
            sums.append(plus)
    f.arrow(image.right, stages[0].left)
    y = ys[3]
    bins = f.box(374, y + 62, "context", "means of 1, 2, 3, 6 bins|each 1×1", 512, w=154, h=54)
    pyramid = f.sign(490, y, "C")
    context = f.box(570, y, "context", "3×3", 512, 32, 70)
    f.arrow(stages[3].right, pyramid.left, label="norm", at=(299, y - 7))
    f.arrow(stages[3].right, (286, y), (286, y + 62), bins.left)
    f.arrow(bins.right, (490, y + 62), pyramid.bottom, label="4 × 512", at=(486, y + 80))
    f.arrow(pyramid.right, context.left)
    f.text(508, y - 18, "2816", px=11, colour=GREY)
    f.arrow((560, context.top[1]), sums[2].bottom, label="×2", at=(568, 372), anchor="start")
    f.arrow(sums[2].top, sums[1].bottom, label="×2", at=(568, 270), anchor="start")
    f.arrow(sums[1].top, sums[0].bottom, label="×2", at=(568, 164), anchor="start")
    f.arrow((695, ys[0]), (806, ys[0]), join.top, label="first", at=(734, ys[0] - 7))
    f.arrow((695, ys[1]), (770, ys[1]), (770, 270), join.left, label="second", at=(732, ys[1] - 7))
    f.arrow((695, ys[2]), (770, ys[2]), (770, 270), join.left, label="third", at=(732, ys[2] - 7))
    f.arrow(context.right, (806, y), join.bottom, label="fourth", at=(734, y - 7))
    f.text(816, 330, "all at 1/4", px=11, colour=GREY, anchor="start")
    mix = f.box(900, 270, "decoder", "3×3", 512, 4, 70)
    score = f.box(982, 270, "head", "1×1", "k", 4, 50)
    out = f.box(1064, 270, "data", "×4|logits", "k", 1, 68)
    f.arrow(join.right, mix.left, label="2048", at=(842, 263))
    f.chain(mix, score, out)
    f.note(
        690,
        480,
        "Auxiliary head for training, on the normalised feature|"
        "at 1/16: 3×3 to 256, 1×1 to k, ×16. Each stage goes on|"
        "from what was not normalised. Pyramid: [feature, 1, 2, 3, 6].",
    )
    return f


FIGURES: dict[str, Callable[[], Figure]] = {
    "fcn": fcn,
    "fcn_resnet": fcn_resnet,
    "fcn_convnext": fcn_convnext,
    "deeplabv1": deeplabv1,
    "deeplabv2": deeplabv2,
    "deeplabv3": deeplabv3,
    "deeplabv3_mobilenet_v2": deeplabv3_mobilenet_v2,
    "deeplabv3plus": deeplabv3plus,
    "lraspp": lraspp,
    "nonewnet": nonewnet,
    "segformer": segformer,
    "segnet": segnet,
    "unet": unet,
    "unet_valid": unet_valid,
    "unetplusplus": unetplusplus,
    "upernet": upernet,
}
"""Name of the file, which is that of the module in models/, and what draws it."""


def drawings() -> dict[Path, str]:
    """Every picture's file and what it should hold."""
    return {FOLDER / f"{name}.svg": draw().svg() for name, draw in FIGURES.items()}


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    for path, text in drawings().items():
        path.write_text(text, encoding="utf-8")

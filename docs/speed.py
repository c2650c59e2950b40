"""Write speed.md and its plot from what the benchmarks measured (benchmarks/results): python docs/speed.py"""

from __future__ import annotations

import json
from html import escape
from pathlib import Path
from typing import Any

DOCS = Path(__file__).parent
RESULTS = DOCS.parent / "benchmarks" / "results"
PLOT = DOCS / "speed.svg"

Line = dict[str, Any]

CALLED = {
    "pixelwise": "ONNX Runtime, float32",
    "pixelwise without rewriting": "ONNX Runtime, float32, convolutions as they are",
    "pixelwise bfloat16": "OpenVINO, bfloat16",
    "pixelwise int8": "OpenVINO, int8",
}
NETWORKS = {
    "lraspp": "LRASPP-MobileNetV3",
    "deeplabv3_mobilenet": "DeepLabV3-MobileNetV3",
    "deeplabv3_resnet50": "DeepLabV3-ResNet50",
    "fcn_resnet50": "FCN-ResNet50",
    "segformer": "SegFormer-B0",
}

STOPS = """What stops the rest: the networks on ResNet-50 and DeepLabV3's head run at the processor's peak or, by Winograd's form
and taps that fall into padding, above it. More needs fewer bits, and the processor has no instructions for them: bfloat16
and int8 have rows only where they are computed faster than float32. LRASPP's time lies in depthwise layers and
squeeze-and-excite, which wait for memory; what is outside of its network is decoding, antialiased resizing and the decision
at the picture's own size, 17 of 88 ms.
"""
SAYS = {
    "folder": "; `one by one` is the loop in Python that writes the same files, `peer` this command before its PNG files were "
    "written faster. Both cores are busy to nine tenths: two thirds of what a picture takes of them is the network",
    "engines": ", networks alone in float32; `fastest` chose before, in a race of its own",
}


def read(name: str) -> list[Line]:
    """The lines of one benchmark, none where it was not run."""
    path = RESULTS / f"{name}.jsonl"
    return (
        [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.exists() else []
    )


def table(head: list[str], rows: list[list[str]]) -> str:
    words = ["|" + "|".join(row) + "|" for row in [head, *rows]]
    return "\n".join([words[0], "|---|" + "--:|" * (len(head) - 1), *words[1:]]) + "\n"


def on(line: Line) -> str:
    """The machine and the week of a line, in words."""
    machine, versions = line["machine"], line["versions"]
    names = ", ".join(
        f"{name} {versions[name]}" for name in ("onnxruntime", "openvino", "torch") if name in versions
    )
    has = "".join(f", {word}" for word in machine.get("instructions", []))
    return f"{machine['cores']} cores of {machine['cpu']}{has}, {line['date']}; {names}"


def network_of(line: Line) -> str:
    return NETWORKS[str(line["work"]).partition(",")[0]]


def networks(lines: list[Line]) -> str:
    rows = []
    for line in lines:
        if line["ours"] == "pixelwise without rewriting":
            continue
        medians, ours = line["median_ms"], line["ours"]
        gflop = 2e-9 * line["multiply_adds"] if line.get("multiply_adds") else None
        share = ""
        if gflop and ours == "pixelwise":
            h, w = line["network_hw"]
            gflop *= h * w / (513 * 513)
            share = f"{gflop / medians['network alone'] * 1e3 / line['peak_gflops']:.0%}"
        rows.append(
            [
                network_of(line),
                CALLED[ours],
                f"{medians[line['peer']]:.0f}",
                f"{medians[ours]:.1f}",
                f"**{line['ratio']:.1f}**",
                f"{line['agreement'][ours]:.2%}",
                f"{medians['network alone']:.1f}" if ours == "pixelwise" else "",
                share,
            ]
        )
    head = [
        "network",
        "ours",
        "peer, ms",
        "ours, ms",
        "times as fast",
        "pixels as in float32",
        "network alone, ms",
        "share of the peak",
    ]
    return table(head, rows)


def plot(lines: list[Line]) -> str:
    """Bars: times as fast as the peer, by network and by what ours runs in."""
    shown = [line for line in lines if line["ours"] != "pixelwise without rewriting"]
    most = max(line["ratio"] for line in shown)
    left, width, tall = 190, 420, 18
    parts, y, last = [], 30, ""
    for line in shown:
        name = network_of(line)
        if name != last:
            y += 12
            parts.append(f'<text x="{left - 10}" y="{y + 13}" text-anchor="end">{escape(name)}</text>')
            last = name
        kind = list(CALLED).index(line["ours"])
        long = width * line["ratio"] / most
        parts.append(
            f'<rect class="k{kind}" x="{left}" y="{y}" width="{long:.1f}" height="{tall - 4}" rx="2"/>'
        )
        parts.append(f'<text x="{left + long + 6:.1f}" y="{y + 12}">{line["ratio"]:.1f}</text>')
        y += tall
    x = left
    for kind, name in enumerate(CALLED.values()):
        if any(list(CALLED).index(line["ours"]) == kind for line in shown):
            parts.append(f'<rect class="k{kind}" x="{x}" y="8" width="12" height="12" rx="2"/>')
            parts.append(f'<text x="{x + 17}" y="19">{name}</text>')
            x += 30 + 7 * len(name)
    style = (
        ":root { --ink: #222; --paper: #fff } @media (prefers-color-scheme: dark) { :root { --ink: #e4e4e4; "
        "--paper: #16181b } } svg { background: var(--paper) } text { font: 13px system-ui, sans-serif; fill: var(--ink) }"
        " .k0 { fill: #0072b2 } .k2 { fill: #e69f00 } .k3 { fill: #009e73 }"
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 700 {y + 10}" width="700" height="{y + 10}" role="img" '
        f'aria-label="Times as fast as the peer"><style>{style}</style>{"".join(parts)}</svg>\n'
    )


def compared(lines: list[Line]) -> str:
    """Any benchmark's lines."""
    rows = []
    for line in lines:
        medians = line["median_ms"]
        rows.append(
            [
                line["work"],
                line["peer"],
                f"{medians[line['peer']]:,.4g}",
                f"{medians[line['ours']]:,.4g}",
                f"**{line['ratio']:.{0 if line['ratio'] >= 10 else 2 if line['ratio'] < 3 else 1}f}**",
            ]
        )
    return table(["work", "peer", "peer, ms", "ours, ms", "times as fast"], rows)


def engines(lines: list[Line]) -> str:
    """Networks alone by engine, and what `fastest` took."""
    rows, called = [], {"onnxruntime": "ONNX Runtime", "openvino": "OpenVINO"}
    for line in lines:
        medians = line["median_ms"]
        rows.append(
            [
                line["work"].replace("_", " "),
                *(f"{medians[name]:,.4g}" for name in called),
                called[line["fastest"]],
                f"{line['within']:.2f}",
            ]
        )
    return table(
        ["network", *(f"{name}, ms" for name in called.values()), "`fastest` takes", "its time to the least"],
        rows,
    )


def worth(lines: list[Line]) -> str:
    """What rewriting is worth in whole networks."""
    rows = []
    for line in lines:
        if line["ours"] != "pixelwise":
            continue
        before, after = (line["median_ms"][who] for who in ("pixelwise without rewriting", "pixelwise"))
        rows.append([network_of(line), f"{before:.1f}", f"{after:.1f}", f"{before / after:.2f}"])
    return table(["network, file to label map", "as they are, ms", "rewritten, ms", "times as fast"], rows)


def page() -> str:
    found = read("networks")
    parts = [
        "# How fast\n",
        "Written by `python docs/speed.py` from what the scripts in `benchmarks/` measured: peer and ours alternately in "
        "one run, medians. A ratio holds for its machine; `pixelwise bench` measures yours.\n",
    ]
    if found:
        first = found[0]
        parts += [
            "## From a JPEG file to a label map\n",
            f"`benchmarks/networks.py`, a picture of {first['picture_hw'][1]} x {first['picture_hw'][0]}, "
            f"{first['threads']} threads ({on(first)}). The peers are torchvision's documented pipeline and, for SegFormer, "
            "transformers'; random weights, the same on both sides, which makes label maps noisier than trained ones and "
            "agreement lower. The share of the peak is that of the network alone against the most operations a second that "
            "one large convolution reached in the same run; above 100 % a rewritten network needs fewer.\n",
            "![Times as fast as the peer](speed.svg)\n",
            networks(found),
            STOPS,
            "## What rewriting convolutions is worth\n",
            "The same network and engine, with its large convolutions in Winograd's form and as they are:\n",
            worth(found),
        ]
    if layers := read("rewrites"):
        parts += [
            f"Layer by layer (`benchmarks/rewrites.py`, {on(layers[0])}): Winograd's form pays from 256 channels on; a "
            "convolution of a large rate as one product for each of its taps, over the part of the map that the tap "
            "reaches, does not pay, for ONNX Runtime leaves out rows of padding itself, and cutting out columns costs what "
            "it saves. No exporter does that.\n",
            compared([{**line, "work": f"{line['work']}, {line['ours']}"} for line in layers]),
        ]
    for name, title in (
        ("folder", "A folder of pictures"),
        ("startup", "From a cold shell"),
        ("engines", "Engines that race"),
        ("outputs", "Files"),
        ("decide", "Logits to labels"),
        ("draw", "Overlays"),
    ):
        if lines := read(name):
            write = engines if name == "engines" else compared
            parts += [
                f"## {title}\n",
                f"`benchmarks/{name}.py` ({on(lines[0])}){SAYS.get(name, '')}:\n",
                write(lines),
            ]
    return "\n".join(parts)


def main() -> None:
    (DOCS / "speed.md").write_text(page(), encoding="utf-8")
    if found := read("networks"):
        PLOT.write_text(plot(found), encoding="utf-8")


if __name__ == "__main__":
    main()

"""Write docs/models.md, docs/encoders.md, docs/cli.md, docs/figures/*.svg and tables in other pages: `python
docs/build.py`.

Models come from the catalog's cards, papers from the docstrings of the modules in models/ (read, not imported),
checkpoint families from what each converter does to the names of each network, encoders from building each, commands
from their --help, tables of formats, layouts and losses from the package's own. With --check nothing is written; the exit code is 1 and one sentence says so when a file would
change. Building all encoders takes a minute, so --check looks at their page only with --encoders as well.
"""

from __future__ import annotations

import ast
import inspect
import os
import re
import subprocess
import sys
from collections.abc import Iterable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

import encoder_table
import figures
import house
from pixelwise.catalog import CATALOG
from pixelwise.catalog.entry import Entry
from pixelwise.checkpoints.families import fcn
from pixelwise.checkpoints.family import Family
from pixelwise.checkpoints.loading import families
from pixelwise.checkpoints.making import outline
from pixelwise.cli.app import app
from pixelwise.datasets.layouts import LAYOUTS
from pixelwise.errors import PixelwiseError
from pixelwise.losses import LOSSES
from pixelwise.models import builder_of
from pixelwise.opening import card_of
from pixelwise.outputs.formats import BY_ENDING, FORMATS, VOLUME_FORMATS, by_ending
from pixelwise.weights.card import Card, Score
from pixelwise.weights.origin import Origin
from pixelwise.weights.renames import Tensors

DOCS = Path(__file__).parent

HEADINGS = {
    "fcn": "FCN",
    "deeplabv1": "DeepLab v1",
    "unet_valid": "U-Net, as in the paper",
    "unet": "U-Net, padded",
    "segnet": "SegNet",
    "deeplabv2": "DeepLab v2",
    "segmentation.fcn": "FCN on a dilated ResNet",
    "segmentation.deeplabv3": "DeepLab v3, torchvision's",
    "deeplabv3_paper": "DeepLab v3, the paper's and VainF's",
    "deeplabv3_mobilenet_v2": "DeepLab v3 on MobileNetV2",
    "deeplabv3plus": "DeepLab v3+",
    "unetplusplus": "U-Net++",
    "nonewnet": "No New-Net (3-D U-Net)",
    "segmentation.lraspp": "LR-ASPP",
    "segformer": "SegFormer",
    "upernet": "UPerNet on ConvNeXt",
    "fcn_convnext": "FCN on ConvNeXt",
}
"""Module in models/: its heading, in the order of the page. A module that is not here comes last, under its title."""

FIGURE_OF = {
    "deeplabv3_paper": "deeplabv3",
    "segmentation.deeplabv3": "deeplabv3",
    "segmentation.fcn": "fcn_resnet",
    "segmentation.lraspp": "lraspp",
}
"""Modules whose picture has another name than theirs."""

ARXIV_ID = r"\b\d{4}\.\d{4,5}\b"
FILES = ("Official file: ", "Official files: ")
"""What the notes of a card begin with that belong among the weight files."""

OPTIONS: tuple[dict[str, Any], ...] = ({"output_norms": False}, {"deep_supervision": True})
"""Arguments with which a network may fit families that it does not fit without."""

INTRODUCTION = """\
<!-- Written by docs/build.py from the cards in catalog/. Change those, then run it. -->

# Models

{count} models, one section per paper. Parameters and multiply-adds are those of the default number of classes;
multiply-adds are of one forward pass over the size given. Scores are published ones, with their source, unless the
source says "measured here". *Checkpoints* names the families of files that load into the network; their names are
explained below each table and serve `pixelwise convert --to`. A dash: not known, or there is none.

{contents}
- [Building and loading](#building-and-loading)

{sections}
{how_to}
`Segmenter` and `--model` take a name as well. `pixelwise models` says what is behind it: a model in the package, one
that is fetched on first use, official files that you get yourself and give in place of the name, or nothing yet.

ImageNet weights of an encoder go into a builder's `weights_backbone`: what torchvision has by name, a file, or a
dictionary of names and tensors. With `in_channels` other than 3 their first filters are shared out: one channel gets
the sum of the three, more get them in turn, scaled so that activations keep their size. The networks on VGG-16, AlexNet
and GoogLeNet take these: {encoders}.
"""

HOW_TO = """\
## Building and loading

Any row of the tables, with random weights, and nothing is fetched; other arguments are the builder's, such as
`in_channels`. Only `everyday` and `nuclei` come trained, as they ship, and in no other size. The builders in
`pixelwise.models` do the same, but for torchvision's six, which fetch a backbone's weights as torchvision's own do:

```python
import pixelwise

network = pixelwise.create_model("unet", num_classes=11)
```

A checkpoint of any family above: the family, the variant, the number of classes and of input channels are read off
the names and shapes, and nothing may be missing or left over. A dictionary of names and arrays, such as Caffe's or
TensorFlow's tensors, does as well as a file:

```python
import pixelwise

network = pixelwise.from_checkpoint("segformer.b0.512x512.ade.160k.pth")
```

The same into a network that exists, where the names alone do not tell which it is, as for ASPP-S:

```python
network = pixelwise.create_model("deeplabv2_vgg16_aspp_s")
pixelwise.load_checkpoint(network, "aspp_s.pth")
```

From the command line, to safetensors with a card inside, and back to a family's names for use elsewhere:

```
pixelwise convert segformer.b0.512x512.ade.160k.pth segformer_b0.safetensors
pixelwise convert segformer_b0.safetensors model.safetensors --to huggingface.segformer
```
"""


def main() -> int:
    pages = {
        DOCS / "models.md": models_page(),
        DOCS / "cli.md": cli_page(),
        **figures.drawings(),
        house.PICTURE: house.drawing(),
    }
    pages |= {path: with_tables(path.read_text(encoding="utf-8")) for path in map(DOCS.joinpath, WITH_TABLES)}
    if "--check" not in sys.argv[1:] or "--encoders" in sys.argv[1:]:
        pages[DOCS / "encoders.md"] = encoder_table.page()
    stray = [path for path in figures.FOLDER.glob("*.svg") if path not in pages]
    changed = [
        path for path, text in pages.items() if not path.exists() or path.read_text(encoding="utf-8") != text
    ]
    if "--check" in sys.argv[1:]:
        if changed or stray:
            names = ", ".join(str(path.relative_to(DOCS.parent)) for path in [*changed, *stray])
            print(f"out of date: {names}; run python docs/build.py", file=sys.stderr)
        return 1 if changed or stray else 0
    figures.FOLDER.mkdir(exist_ok=True)
    for path in stray:
        path.unlink()
    for path in changed:
        path.write_text(pages[path], encoding="utf-8")
        print(path.relative_to(DOCS.parent))
    return 0


# models.md ----------------------------------------------------------------------------------------------------


def models_page() -> str:
    modules: dict[str, dict[str, Entry]] = {name: {} for name in HEADINGS}
    for name, entry in CATALOG.items():
        modules.setdefault(entry.builder.partition(":")[0], {})[name] = entry
    sections = [section(module, entries) for module, entries in modules.items() if entries]
    contents = "\n".join(
        f"- [{heading}](#{_anchor(heading)}): {', '.join(f'`{name}`' for name in modules[module])}"
        for module, heading in ((module, heading_of(module)) for module in modules)
        if modules[module]
    )
    return INTRODUCTION.format(
        count=len(CATALOG),
        contents=contents,
        sections="\n".join(sections),
        how_to=HOW_TO,
        encoders=encoders(),
    )


def section(module: str, entries: dict[str, Entry]) -> str:
    """Heading, citation, picture, one row per variant, and what the rows refer to."""
    figure = FIGURE_OF.get(module, module)
    if figure not in figures.FIGURES:
        raise SystemExit(f"docs/figures.py draws no picture for models/{module}.py; add one to FIGURES")
    scores: list[str] = []
    fitting: dict[str, Family] = {}
    rows = [
        "| model | parameters | multiply-adds | published scores | weight files | licence | checkpoints |",
        "|---|--:|--:|---|---|---|---|",
    ]
    cards: dict[str, Card] = {}
    for name, entry in entries.items():
        card = _card(name, entry)
        if card is None:
            rows.append(f"| `{name}` | – | – | – | ships in the package | – | – |")
            continue
        cards[name] = card
        cells = (
            f"`{name}`",
            f"{card.parameters / 1e6:.2f} M",
            _multiply_adds(card),
            "<br>".join(_score(score, scores) for score in card.scores) or "–",
            _file(entry, card),
            "–" if card.licence == "unknown" else card.licence,
            "<br>".join(_fitting(name, entry, fitting)) or "–",
        )
        rows.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    remarks = []
    for title, texts in (
        ("Scores", [f"<sup>{_letter(place)}</sup> {text}" for place, text in enumerate(scores)]),
        ("Checkpoints", [f"`{name}`: {_markdown(family.says)}" for name, family in sorted(fitting.items())]),
        ("Notes", list(_notes(cards))),
    ):
        remarks += [f"{title}:", "", *(f"- {text}" for text in texts), ""] if texts else []
    picture = f"![Data flow: {heading_of(module)}](figures/{figure}.svg)"
    return "\n".join([f"## {heading_of(module)}", "", citation(module), "", picture, "", *rows, "", *remarks])


def heading_of(module: str) -> str:
    return HEADINGS.get(module) or citation(module).partition(". ")[0].replace("*", "")


def citation(module: str) -> str:
    """Title, authors, year and a link, from the docstring of models/<module>.py: all up to its first arXiv id that
    stands after a comma, else its first sentence."""
    spec = find_spec("pixelwise")
    assert spec is not None
    assert spec.origin is not None
    file = f"models/{module.replace('.', '/')}.py"
    source = (Path(spec.origin).parent / file).read_text(encoding="utf-8")
    text = " ".join((ast.get_docstring(ast.parse(source)) or "").split())
    found = re.match(rf"(.*?, {ARXIV_ID})", text)
    words = found[1] if found else text.partition(". ")[0]
    title, dot, rest = words.partition(". ")
    rest = re.sub(ARXIV_ID, r"[arXiv:\g<0>](https://arxiv.org/abs/\g<0>)", rest)
    title = re.sub(ARXIV_ID, r"[arXiv:\g<0>](https://arxiv.org/abs/\g<0>)", title)
    return f"*{title}*{dot}{rest}. Code: [{file}](../src/pixelwise/{file})."


def _card(name: str, entry: Entry) -> Card | None:
    """The catalog's card, or that inside an asset; None for an asset that has not been made yet."""
    if entry.card is not None:
        return entry.card
    try:
        return card_of(name)
    except (PixelwiseError, FileNotFoundError):
        return None


def _multiply_adds(card: Card) -> str:
    if card.multiply_adds is None or card.multiply_adds_hw is None:
        return "–"
    h, w = card.multiply_adds_hw
    billions = card.multiply_adds / 1e9
    return f"{billions:.{1 if billions >= 10 else 2}f} G at {h}×{w}"


def _score(score: Score, known: list[str]) -> str:
    """The number, and the letter under which data, protocol and source are explained."""
    text = _markdown(f"{score.data}; {score.protocol}; {score.source}")
    if text not in known:
        known.append(text)
    return f"{score.metric} {score.value:.4g}<sup>{_letter(known.index(text))}</sup>"


def _file(entry: Entry, card: Card) -> str:
    if entry.asset is not None:
        return "ships in the package"
    more = [
        _markdown(note.partition(": ")[2]).removesuffix(".") for note in card.notes if note.startswith(FILES)
    ]
    if card.file is None:
        return "<br>".join(more) or "–"
    name = f"[{card.file}]({entry.url})" if entry.url else card.file
    size = f", {card.file_bytes / 1e6:.0f} MB" if card.file_bytes else ""
    digest = [f"SHA-256 {card.sha256[:8]}…"] if card.sha256 else []
    return "<br>".join([name + size, *digest, *more])


def _notes(cards: dict[str, Card]) -> Iterable[str]:
    """What the cards note, but for the files, put together by the models it is said of."""
    holders: dict[str, list[str]] = {}
    for name, card in cards.items():
        for note in card.notes:
            if not note.startswith(FILES):
                holders.setdefault(note, []).append(name)
    said: dict[tuple[str, ...], list[str]] = {}
    for note, names in holders.items():
        said.setdefault(tuple(names), []).append(_markdown(note))
    for names, notes in said.items():
        whom = "" if len(names) == len(cards) else ", ".join(f"`{name}`" for name in names) + ": "
        yield whom + " ".join(notes)


def _markdown(text: str) -> str:
    """Text of a card: stars stay stars, and arXiv's numbers become links."""
    return re.sub(ARXIV_ID, r"[\g<0>](https://arxiv.org/abs/\g<0>)", text.replace("*", "\\*"))


def _letter(place: int) -> str:
    return chr(ord("a") + place)


def _anchor(heading: str) -> str:
    """As GitHub makes them."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


# Which families load into which network -------------------------------------------------------------------------


def _fitting(name: str, entry: Entry, found: dict[str, Family]) -> Iterable[str]:
    """The families whose names this network's tensors can bear: written in them, they are recognised, and come back
    whole. Where the names alone lead to a twin of the same tensors, `load_checkpoint` is the way in."""
    if entry.asset is not None:  # its weights are in the package
        return
    alike: list[tuple[Family, str]] = []
    sources = set()
    for options in ({}, *OPTIONS):
        tensors = _tensors(name, entry, tuple(options.items()))
        for family in families() if tensors is not None else ():
            if family.name in {known.name for known, _ in alike}:
                continue
            origin = _round_trip(family, tensors)
            words = "".join(f" with `{key}={value}`" for key, value in options.items())
            if origin is not None and origin.model == name:
                alike.append((family, words))
                sources.add(family.name.partition(".")[0])
            elif origin is not None and origin.model in CATALOG and not options:
                twin = _tensors(origin.model, CATALOG[origin.model], ())
                if twin is not None and _shapes(twin) == _shapes(tensors):
                    alike.append((family, " by `load_checkpoint`"))
    for family, words in alike:
        # Of one source, what is recognised as another network is that network's: FCN-8s at-once is not FCN-8s.
        if "load_checkpoint" in words and family.name.partition(".")[0] in sources:
            continue
        found[family.name] = family
        yield f"`{family.name}`{words}"


def _round_trip(family: Family, tensors: Tensors) -> Origin | None:
    """What `family` takes a file of these tensors in its own names for, or None if they do not fit it."""
    if family.to_theirs is None:
        return None
    try:
        theirs = family.to_theirs(dict(tensors))
        if family.matches(theirs) < len(family.marks):
            return None
        origin, back = family.read(theirs)
        return origin if _shapes(back) == _shapes(tensors) else None
    except (LookupError, PixelwiseError, StopIteration, ValueError):
        return None
    except RuntimeError:  # it looks at values, which tensors on "meta" do not have
        if next(iter(tensors.values())).device.type == "meta":
            zero = torch.zeros(())
            return _round_trip(family, {key: zero.expand(tensor.shape) for key, tensor in tensors.items()})
        return None


_cache: dict[tuple[str, tuple[tuple[str, Any], ...]], Tensors | None] = {}


def _tensors(name: str, entry: Entry, options: tuple[tuple[str, Any], ...]) -> Tensors | None:
    """The network's state, shapes without values; None if its builder does not know the options."""
    if (name, options) not in _cache:
        known = inspect.signature(builder_of(name)).parameters
        state = None
        if all(key in known for key, _ in options):
            state = dict(outline(Origin(name, dict(options))).state_dict())
        _cache[name, options] = state
    return _cache[name, options]


def _shapes(tensors: Tensors) -> dict[str, tuple[int, ...]]:
    """Without the counters of batch norm, which files may lack."""
    return {
        key: tuple(tensor.shape) for key, tensor in tensors.items() if not key.endswith("num_batches_tracked")
    }


def encoders() -> str:
    """Families of files that hold an encoder alone."""
    return "; ".join(family.says for kind in fcn.ENCODERS.values() for family in kind)


# cli.md ---------------------------------------------------------------------------------------------------------


def cli_page() -> str:
    commands = [
        command.name or command.callback.__name__ for command in app.registered_commands if command.callback
    ]
    sections = [f"## pixelwise {command}\n\n```\n{_help(command)}\n```\n" for command in commands]
    return (
        "<!-- Written by docs/build.py from the --help of each command. -->\n\n"
        "# Command line\n\n"
        "Results go to stdout, progress and errors to stderr. Exit codes: 0 done, 1 failure, 2 bad input.\n\n"
        f"```\n{_help()}\n```\n\n" + "\n".join(sections)
    )


AS_INSTALLED = "import sys; from pixelwise.cli import main; sys.argv[0] = 'pixelwise'; main()"
"""So that help says `pixelwise`, as the installed command does, wherever that lies."""


def _help(*command: str) -> str:
    environment = os.environ | {"COLUMNS": "100", "NO_COLOR": "1", "TERM": "dumb", "PYTHONUTF8": "1"}
    shown = subprocess.run(
        [sys.executable, "-c", AS_INSTALLED, *command, "--help"],
        env=environment, capture_output=True, encoding="utf-8", check=True,
    ).stdout  # fmt: skip
    return "\n".join(line.rstrip() for line in shown.strip().splitlines())


# Tables in pages that are written by hand ------------------------------------------------------------------------

WITH_TABLES = ("outputs.md", "train_your_own.md", "volumes.md")


def with_tables(page: str) -> str:
    """The page with what stands between `<!-- NAME: written by docs/build.py -->` and `<!-- end -->` made anew."""
    tables = {"formats": formats, "volume_formats": volume_formats, "layouts": layouts, "losses": losses}
    return re.sub(
        r"(<!-- (\w+): written by docs/build\.py -->\n).*?(<!-- end -->)",
        lambda found: f"{found[1]}\n{tables[found[2]]()}\n\n{found[3]}",
        page,
        flags=re.DOTALL,
    )


def formats() -> str:
    return _formats(FORMATS, BY_ENDING)


def volume_formats() -> str:
    return _formats(VOLUME_FORMATS, by_ending(VOLUME_FORMATS))


def _formats(formats: dict, means: dict) -> str:
    rows = ["| `format` | ending on the command line | what it is | reads back |", "|---|---|---|---|"]
    for name, row in formats.items():
        needs = f"; needs `pixelwise[{row.extra}]`" if row.extra else ""
        rows.append(f"| `{name}` | `{row.ending}` | {row.says}{needs} | {'yes' if row.read else ''} |")
    meant = ", ".join(f"`{ending}` {name}" for ending, name in means.items())
    return "\n".join([*rows, "", f"Where no format is given, the ending says it: {meant}."])


def layouts() -> str:
    rows = ["| `--format` | what it looks like | how to get it |", "|---|---|---|"]
    rows += [f"| `{name}` | {_first(row.pairs)} | {row.source} |" for name, row in LAYOUTS.items()]
    return "\n".join(rows)


def losses() -> str:
    rows = ["| loss | what it is |", "|---|---|"]
    return "\n".join([*rows, *(f"| `{name}` | {_first(loss)} |" for name, loss in LOSSES.items())])


def _first(function: object) -> str:
    """The first paragraph of a docstring, as the cell of a table."""
    text = " ".join((inspect.getdoc(function) or "").partition("\n\n")[0].split())
    return text.replace("|", "\\|").replace("*", "\\*")


if __name__ == "__main__":
    sys.exit(main())

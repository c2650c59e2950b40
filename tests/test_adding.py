"""CONTRIBUTING.md's lists of what an addition touches are right: one of each kind is added to a copy, in those files.

Then a user's commands find it: it is listed, runs, is saved and read back, and errors name it.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pixelwise

ROOT = Path(pixelwise.__file__).parent
CONTRIBUTING = (Path(__file__).parents[1] / "CONTRIBUTING.md").read_text(encoding="utf-8")
LISTS = {
    kind: re.findall(r"`(\w+/[\w/.]*)`", text)
    for kind, text in re.findall(
        r"^- \*\*(\w+)\*\*: (.*?)(?=^- \*\*|\Z)",
        re.search(r"<!-- tests/test_adding.py reads these lists -->\n(.*?)<!-- end", CONTRIBUTING, re.S)[1],
        re.S | re.M,
    )
}
"""Kind: the files that its list names, NAME standing for the new one's; a folder for one of its files."""

Edits = dict[str, str | tuple[str, str]]
"""File: the text of a new one, or of an old one a line (its beginning) and what is put behind it."""

NETWORK: Edits = {
    "models/dot.py": '''
"""One convolution."""

from torch import Tensor, nn

from pixelwise.models.building import builder


class Dot(nn.Module):
    stride, align_corners = 1, False

    def __init__(self, in_channels: int, num_classes: int) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.conv = nn.Conv2d(in_channels, num_classes, 1)

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        return {"out": self.coarse(image)}

    def coarse(self, image: Tensor) -> Tensor:
        return self.conv(image)


@builder
def dot(*, num_classes: int = 2, in_channels: int = 3, weights: str | None = None) -> Dot:
    """One convolution."""
    return Dot(in_channels, num_classes)
''',
    "catalog/dot.py": """
from pixelwise.catalog.entry import Entry
from pixelwise.inference.preprocess import Preprocess
from pixelwise.labels import LabelSet
from pixelwise.weights.card import Card

ROWS = {
    "dot": Entry("dot:dot", Card("dot", "dot", LabelSet.of(("no", "yes")), Preprocess(), 1, False, 8)),
}
""",
    "checkpoints/families/dot.py": """
from pixelwise.checkpoints.family import Family
from pixelwise.weights.origin import Origin
from pixelwise.weights.renames import Renames, rename

TABLE = Renames(("their.{rest}", "conv.{rest}"))


def _read(tensors):
    classes, channels = tensors["their.weight"].shape[:2]
    return Origin("dot", {"num_classes": classes, "in_channels": channels}), rename(tensors, TABLE)


FAMILIES = (Family("theirs.dot", "a dot of theirs", ("their.weight",), _read),)
""",
}
DECODER: Edits = {
    "decoders/plain.py": '''
from torch import nn

from pixelwise.decoders.network import EncoderDecoder, check_encoder, head


class Plain(EncoderDecoder):
    """The last feature, classified."""

    def __init__(self, encoder, num_classes: int = 1) -> None:
        check_encoder("plain", encoder)
        super().__init__(encoder, Last(), head(encoder.channels[-1], num_classes, 1), stride=encoder.strides[-1])


class Last(nn.Module):
    def forward(self, features, size_hw):
        return features[-1]
''',
    "decoders/__init__.py": (
        "DECODERS: dict[str, str] = {",
        '    "plain": "pixelwise.decoders.plain:Plain",',
    ),
    "decoders/needs.py": ("NEEDS: dict[str, Needs] = {", '    "plain": Needs(),'),
}
LOSS: Edits = {
    "losses/pixel.py": (
        "from __future__ import annotations",
        """

def half_cross_entropy(logits, target, *, ignore_index=255):
    return cross_entropy(logits, target, ignore_index=ignore_index) / 2

""",
    ),
    "losses/__init__.py": ("from pixelwise.losses.pixel import (", "    half_cross_entropy,"),
}
LAYOUT: Edits = {
    "datasets/twins.py": """
from pathlib import Path

from pixelwise.datasets.sample import Pair


def twins_pairs(root: Path) -> list[Pair]:
    pictures = sorted(root.glob("*.x.png"))
    return [Pair(p.name[:-6], "train", p, p.with_name(p.name.replace(".x.", ".y."))) for p in pictures]
""",
    "datasets/layouts.py": (
        "LAYOUTS",
        """    "twins": Layout(
        opens="pixelwise.datasets.twins:twins_pairs",
        sign=lambda root: any(root.glob("*.x.png")),
        source="nowhere",
    ),""",
    ),
}
FORMAT: Edits = {
    "outputs/rows.py": """
import json

import numpy as np


def encode_rows(found, suffix):
    yield json.dumps(found.labels.tolist()).encode()


def read_rows(path, classes):
    return np.array(json.loads(path.read_text()), np.uint8)
""",
    "outputs/formats.py": (
        "FORMATS = {",
        """    "rows": Format(
        ".rows",
        "the ids as lists",
        encode=lambda found, suffix: __import__("pixelwise.outputs.rows").outputs.rows.encode_rows(found, suffix),
        read=lambda path, classes: __import__("pixelwise.outputs.rows").outputs.rows.read_rows(path, classes),
        means_by=(".rows",),
    ),""",
    ),
}
ENGINE: Edits = {
    "engines/backwards.py": '''
from pixelwise.engines.onnxruntime import OnnxRuntimeEngine


class BackwardsEngine(OnnxRuntimeEngine):
    """The same model with the picture turned upside down and its answer back."""

    name = "backwards"

    def __call__(self, images):
        return super().__call__(images[:, :, ::-1].copy())[:, :, ::-1]
''',
    "engines/__init__.py": (
        "ENGINES = {",
        """    "backwards": Known(
        opens="pixelwise.engines.backwards:BackwardsEngine", says="files (.onnx)", files=(".onnx",)
    ),""",
    ),
}


def added(kind: str, edits: Edits, name: str, tmp_path: Path) -> Path:
    """A copy of the package with these edits, which are all that its list names and no more."""
    wanted = {place.replace("NAME", name) for place in LISTS[kind]}
    for place in edits:
        assert place in wanted or f"{place.rpartition('/')[0]}/" in wanted, (
            f"{place} is not in the list of {kind}"
        )
    assert len(wanted) == len(edits)
    copy = tmp_path / "src" / "pixelwise"
    shutil.copytree(ROOT, copy, ignore=shutil.ignore_patterns("__pycache__"))
    for place, edit in edits.items():
        path = copy / place
        if isinstance(edit, str):
            assert not path.exists()
            path.write_text(edit, encoding="utf-8")
            continue
        mark, new = edit
        lines = path.read_text(encoding="utf-8").splitlines()
        at = next(
            i for i, line in enumerate(lines) if line.startswith(mark) and (mark[-1] in "{(s" or "{" in line)
        )
        path.write_text("\n".join([*lines[: at + 1], new, *lines[at + 1 :]]) + "\n", encoding="utf-8")
    return copy.parent


def python(source: Path, code: str, cwd: Path) -> str:
    environment = {**os.environ, "PYTHONPATH": str(source), "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=cwd, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_network_is_three_files(tmp_path):
    source = added("network", NETWORK, "dot", tmp_path)
    code = """
import numpy, torch, pixelwise
from pixelwise.cli.models import run
run("dot", json=False)
theirs = {"their.weight": torch.eye(3)[:2, :, None, None], "their.bias": torch.zeros(2)}
network = pixelwise.from_checkpoint(theirs)
picture = numpy.zeros((4, 6, 3), numpy.uint8); picture[:, :3, 0] = 255; picture[:, 3:, 1] = 255
print(pixelwise.Segmenter(network, engine="pytorch")(picture).labels.tolist()[0])
pixelwise.save(network, "dot.safetensors")
again = pixelwise.from_checkpoint("dot.safetensors")
print(again.origin, torch.equal(again.conv.weight, network.conv.weight))
print(pixelwise.models.dot(num_classes=5).num_classes, pixelwise.create_model("dot", in_channels=1).conv.in_channels)
"""
    said = python(source, code, tmp_path).splitlines()
    assert any(line.startswith("dot ") and line.endswith(" none") for line in said)
    assert said[-3:] == ["[0, 0, 0, 1, 1, 1]", "dot True", "5 1"]


def test_a_decoder_is_a_file_and_two_rows(tmp_path):
    source = added("decoder", DECODER, "plain", tmp_path)
    code = """
import torch, pixelwise
network = pixelwise.create_model("plain", encoder="resnet18", num_classes=3, encoder_depth=2)
print(tuple(network(torch.zeros(1, 3, 32, 40))["out"].shape), network.stride, network.origin)
"""
    assert python(source, code, tmp_path).split("\n")[0] == "(1, 3, 32, 40) 4 plain on resnet18"


def test_a_loss_is_a_function_and_a_row(tmp_path):
    source = added("loss", LOSS, "half", tmp_path)
    formats = source / "pixelwise" / "losses" / "__init__.py"
    text = formats.read_text(encoding="utf-8")
    formats.write_text(
        text.replace("        cross_entropy, ohem", "        half_cross_entropy, cross_entropy, ohem")
    )
    code = """
import torch
from pixelwise.training.config import TrainConfig
from pixelwise.training.objective import make_loss
from pixelwise import losses
logits, target = torch.randn(1, 3, 4, 4), torch.zeros(1, 4, 4, dtype=torch.long)
print(round(float(losses.LOSSES["half_cross_entropy"](logits, target) / losses.cross_entropy(logits, target)), 4))
try:
    make_loss(TrainConfig(model="unet", losses={"half_cross_entropi": 1.0}, steps=1), 255)
except Exception as error:
    print(error)
"""
    half, error = python(source, code, tmp_path).splitlines()
    assert half == "0.5"
    assert "half_cross_entropy" in error


def test_a_layout_is_a_function_and_a_row(tmp_path):
    source = added("layout", LAYOUT, "twins", tmp_path)
    code = """
import numpy
from pathlib import Path
from PIL import Image
from pixelwise.datasets.opening import open_samples
Path("data").mkdir()
for i in range(3):
    Image.fromarray(numpy.full((8, 8, 3), i, numpy.uint8)).save(f"data/{i}.x.png")
    Image.fromarray(numpy.full((8, 8), i % 2, numpy.uint8)).save(f"data/{i}.y.png")
found = open_samples(Path("data"), "auto", "train")
print(len(found), found[1].mask.max(), found[2].name)
import sys
from pixelwise.cli import main
sys.argv = ["pixelwise", "check", "--help"]
main()
"""
    said = python(source, code, tmp_path)
    assert said.splitlines()[0] == "3 1 2"
    assert "twins" in said


def test_a_format_is_a_writer_a_reader_and_a_row(tmp_path):
    source = added("format", FORMAT, "rows", tmp_path)
    code = """
import numpy
from PIL import Image
from pixelwise import LabelSet, Segmentation
from pixelwise.outputs.reading import read_labels
picture = numpy.zeros((2, 3, 3), numpy.uint8)
found = Segmentation(numpy.array([[0, 1, 1], [1, 0, 0]], numpy.uint8), LabelSet.of(("a", "b")), picture)
found.save("x.rows")
print(open("x.rows").read(), (read_labels("x.rows", found.classes) == found.labels).all())
Image.fromarray(picture).save("photo.png")
import sys
from pixelwise.cli import main
sys.argv = ["pixelwise", "segment", "photo.png", "--format", "rows", "--out", "out"]
try:
    main()
except SystemExit as done:
    print(done.code, read_labels("out/photo.rows", found.classes).shape)
"""
    first, *_, last = python(source, code, tmp_path).splitlines()
    assert first == "[[0, 1, 1], [1, 0, 0]] True"
    assert last == "0 (2, 3)"


def test_an_engine_is_a_class_and_a_row(tmp_path, colors_model):
    source = added("engine", ENGINE, "backwards", tmp_path)
    code = f"""
import numpy
from pixelwise import Segmenter
picture = numpy.random.default_rng(0).integers(0, 256, (8, 12, 3), dtype=numpy.uint8)
one, other = (Segmenter({str(colors_model)!r}, engine=e)(picture).labels for e in ("onnxruntime", "backwards"))
print((one == other).all(), Segmenter({str(colors_model)!r}, engine="backwards").engine.name)
try:
    Segmenter({str(colors_model)!r}, engine="backward")
except Exception as error:
    print(error)
"""
    same, error = python(source, code, tmp_path).splitlines()
    assert same == "True backwards"
    assert "backwards" in error

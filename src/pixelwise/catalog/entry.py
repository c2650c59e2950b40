"""Entry: one row of the catalog; and what the rows of several papers have in common."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from pixelwise.inference.preprocess import Preprocess
from pixelwise.inference.volume_preprocess import VolumePreprocess
from pixelwise.labels import VOC, LabelSet
from pixelwise.weights.card import Card, Outputs, Score


@dataclass(frozen=True)
class Entry:
    """One row of the catalog.

    builder: "file:function" in `models/` that makes the network ("folder.file:function" where it lies in one).
    card: what is known about the weights; None where it lies inside the asset. base_url: the folder that `card.file` is
    fetched from. asset: a file in pixelwise/assets, for the models that ship in the package, and int8 the same model
    quantised; arguments: of the builder, that make its network.
    """

    builder: str
    card: Card | None = None
    base_url: str | None = None
    asset: str | None = None
    int8: str | None = None
    arguments: Mapping[str, Any] = field(default_factory=dict)

    @property
    def url(self) -> str | None:
        """Where the weights are fetched from; None when there is nothing to fetch."""
        if self.base_url is None or self.card is None or self.card.file is None:
            return None
        return self.base_url + self.card.file

    @property
    def fetched(self) -> bool:
        """Whether `Segmenter` fetches the weights by itself: where they lie is known, and their hash."""
        return self.url is not None and self.card is not None and self.card.sha256 is not None

    @property
    def files(self) -> str:
        """The weights that the authors published, as the card names them; "" where there are none."""
        if self.card is None:
            return ""
        said = (note.partition(": ") for note in self.card.notes)
        noted = (
            re.split(r"\.(?: (?=[A-Z])|$)", files)[0]
            for begins, _, files in said
            if begins in ("Official file", "Official files")
        )
        return self.url or self.card.file or next(noted, "")

    @property
    def weights(self) -> str:
        """In the words of `pixelwise models`, what `Segmenter` finds under this name."""
        if self.asset is not None:
            return "in the package"
        if self.fetched:
            return "fetched on first use"
        return "official files, not fetched" if self.files else "none official"

    @property
    def way(self) -> str:
        """How to come by trained weights: the rest of a sentence that says that there are none at hand."""
        name = name_of(self.builder)
        if self.weights == "in the package":
            return "they ship in the package"
        if self.weights == "fetched on first use":
            return f"they are fetched from {self.url}"
        if not self.files:
            train = f"train it (pixelwise train --model {name})"
            return f"none are published; {train}, or take another of `pixelwise models`"
        assert self.card is not None
        get = f"get the official ones yourself ({self.files}; {self.card.origin})"
        if any(kind in self.files for kind in FOREIGN):
            return (
                f"{get}, read their tensors into a dictionary of names and arrays, and make the network with it: "
                f"Segmenter(pixelwise.create_model({name!r}, weights=DICTIONARY))"
            )
        return f"{get} and give the file's path: --model FILE, Segmenter(FILE) or from_checkpoint(FILE)"


FOREIGN = (".caffemodel", ".ckpt", ".tar.gz")
"""In the names of files of Caffe and TensorFlow, which are read with these."""


def by_name(*entries: Entry) -> dict[str, Entry]:
    """Rows under the names of the functions that build them."""
    return {name_of(entry.builder): entry for entry in entries}


def name_of(builder: str) -> str:
    """The function in "file:function"."""
    return builder.partition(":")[2]


def mean_iou(percent: float, data: str, protocol: str, source: str) -> Score:
    """Papers print percent, to two digits at most; cards hold fractions."""
    return Score("mean IoU", round(percent / 100, 4), data, protocol, source)


def row(
    builder: str, *, labels: LabelSet, preprocess: Preprocess, stride: int, align_corners: bool = False,
    parameters: int, multiply_adds: int | None = None, multiply_adds_hw: tuple[int, int] | None = None,
    outputs: Outputs = "exclusive", volume: VolumePreprocess | None = None,
    base_url: str | None = None, file: str | None = None, file_bytes: int | None = None, sha256: str | None = None,
    licence: str = "unknown", origin: str, scores: tuple[Score, ...] = (), notes: tuple[str, ...] = (),
) -> Entry:  # fmt: skip
    """A row whose card is named after its builder; the words are those of Entry and Card."""
    name = name_of(builder)
    card = Card(
        name=name, architecture=name, labels=labels, preprocess=preprocess, stride=stride, align_corners=align_corners,
        parameters=parameters, multiply_adds=multiply_adds, multiply_adds_hw=multiply_adds_hw, file=file,
        file_bytes=file_bytes, sha256=sha256, licence=licence, origin=origin, scores=scores, notes=notes,
        outputs=outputs, volume=volume,
    )  # fmt: skip
    return Entry(builder=builder, card=card, base_url=base_url)


def torchvision(
    builder: str, *, file: str, mib: float, parameters: int, multiply_adds: int, stride: int, miou: float,
    pixel_accuracy: float,
) -> Entry:  # fmt: skip
    """Weights that torchvision publishes. mib: the file's size as its metadata has it, to three digits (right to about
    500 bytes). parameters, multiply_adds (at 520x520): with the auxiliary head. miou, pixel_accuracy: percent."""
    data, source = "COCO val2017, the 20 VOC classes and background", "torchvision, metadata of the weights"
    protocol = "single scale, shorter side 520"
    return row(
        builder, labels=VOC, preprocess=Preprocess(size=520), stride=stride,
        parameters=parameters, multiply_adds=multiply_adds, multiply_adds_hw=(520, 520),
        base_url="https://download.pytorch.org/models/", file=file, file_bytes=round(mib * 2**20),
        sha256=file.removesuffix(".pth").rpartition("-")[2],
        licence="BSD-3-Clause", origin="torchvision, trained on COCO train2017",
        scores=(
            mean_iou(miou, data, protocol, source),
            Score("pixel accuracy", round(pixel_accuracy / 100, 3), data, protocol, source),
        ),
        notes=("Parameters and multiply-adds count the auxiliary head where there is one.",),
    )  # fmt: skip


biomedical = partial(row, preprocess=Preprocess(mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0)), stride=1)
"""A network that takes pixels in [0, 1] and has no weights to fetch."""

deeplab = partial(row, labels=VOC, align_corners=True, multiply_adds_hw=(513, 513))
"""A network for Pascal VOC whose official files a user fetches himself."""

CAFFE = Preprocess(mean=(122.675 / 255, 116.669 / 255, 104.008 / 255), std=(1 / 255, 1 / 255, 1 / 255))
"""DeepLab's input in Caffe: values of 0 to 255 less a mean."""
LARGEFOV = (
    "Official files: init.caffemodel (vgg16_20M, without fc8), train_iter_* and train2_iter_*.caffemodel."
)


def vainf(
    builder: str, *, stride: int, parameters: int, multiply_adds: int, miou: float, files: str
) -> Entry:
    """One of VainF's networks. miou: percent on VOC 2012 val."""
    protocol = "output stride 16, centre crop of 513"
    return deeplab(
        builder, preprocess=Preprocess(), stride=stride, align_corners=False,
        parameters=parameters, multiply_adds=multiply_adds,
        licence="MIT", origin="VainF/DeepLabV3Plus-Pytorch, trained on VOC 2012 trainaug",
        scores=(mean_iou(miou, "Pascal VOC 2012 val", protocol, "VainF's readme"),), notes=(files,),
    )  # fmt: skip

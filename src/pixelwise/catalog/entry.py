"""Entry: one row of the catalog; and what the rows of several papers have in common."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

from pixelwise.inference.preprocess import Preprocess
from pixelwise.labels import VOC, LabelSet
from pixelwise.weights.card import Card, Outputs, Score


@dataclass(frozen=True)
class Entry:
    """One row of the catalog.

    builder: "file:function" in `models/` that makes the network. card: what is known about the weights; None where it
    lies inside the asset. base_url: the folder that `card.file` is fetched from. asset: a file in
    pixelwise/assets, for the models that ship in the package.
    """

    builder: str
    card: Card | None = None
    base_url: str | None = None
    asset: str | None = None

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
    def official(self) -> bool:
        """Whether the authors published weights, which a user may give as a file."""
        notes = () if self.card is None else self.card.notes
        files = any(note.startswith(("Official file: ", "Official files: ")) for note in notes)
        return files or (self.card is not None and self.card.file is not None)


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
    outputs: Outputs = "exclusive",
    base_url: str | None = None, file: str | None = None, file_bytes: int | None = None, sha256: str | None = None,
    licence: str = "unknown", origin: str, scores: tuple[Score, ...] = (), notes: tuple[str, ...] = (),
) -> Entry:  # fmt: skip
    """A row whose card is named after its builder; the words are those of Entry and Card."""
    name = name_of(builder)
    card = Card(
        name=name, architecture=name, labels=labels, preprocess=preprocess, stride=stride, align_corners=align_corners,
        parameters=parameters, multiply_adds=multiply_adds, multiply_adds_hw=multiply_adds_hw, file=file,
        file_bytes=file_bytes, sha256=sha256, licence=licence, origin=origin, scores=scores, notes=notes,
        outputs=outputs,
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

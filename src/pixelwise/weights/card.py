"""Card: everything one must know about a set of weights in order to run it and to trust it."""

from __future__ import annotations

import json
import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Annotated, Any, Literal, TypeAlias, get_args

from pixelwise.errors import InputError, UnknownNameError
from pixelwise.images import check_range
from pixelwise.inference.preprocess import IMAGENET_MEAN, IMAGENET_STD, LONGEST_SIDE, Preprocess
from pixelwise.inference.volume_preprocess import VolumePreprocess
from pixelwise.labels import Color, LabelSet
from pixelwise.untrusted import Between, fit, read

CARD_KEY = "pixelwise.card"
"""The key under which a card travels in the metadata of ONNX and safetensors files."""

IR_CARD_KEY = "pixelwise_card"
"""Where a card lies in the runtime information of a file of OpenVINO's own; a dot would be a path there."""

IR_WEIGHTS_KEY = "pixelwise_weights"
"""Where the SHA-256 of the .bin lies beside it, so that weights of another model are noticed."""

Outputs: TypeAlias = Literal["exclusive", "binary", "regions"]
"""What a network's k logits of a pixel mean. "exclusive": one a class, and the largest wins (softmax). "binary": a
single one, positive where the second of two classes is. "regions": one for each class but the first, positive where
that class is, whatever the others say (sigmoids). In the label map later ones then lie over earlier ones, and the
first class is where there is none."""


TRAINED_HERE = "trained with pixelwise: "
"""How the origin of a card begins whose model a run of `pixelwise train` made."""

EARLIER_BORDER = 0.2
"""Where versions divided a folder that asked for a share of the range of hashes, not of the names."""

Count = Annotated[int, Between(0, 2**62)]


@dataclass(frozen=True)
class Score:
    """One measured or published figure. value: in the metric's own unit, fractions in [0, 1] for IoU,
    accuracy and Dice. source: who measured it, "measured here" or the publication."""

    metric: str
    value: Annotated[float, Between(nan=True)]
    data: str
    protocol: str
    source: str


@dataclass(frozen=True)
class Card:
    """Travels with every set of weights, inside exported files too.

    name: as in `pixelwise models`; architecture: the builder that makes the network. stride: input pixels per
    coarse logit; align_corners: how coarse logits are enlarged. parameters: their number. multiply_adds: of one
    forward pass over `multiply_adds_hw` (height, width) pixels. file, sha256: the weights' file name and its
    full SHA-256 (or its official first eight digits), where there is a file. notes: what a user should know. outputs:
    what the logits mean (`Outputs`), of which there are `channels`. split_at: where the run that made it divided
    its pictures, see `border`. precision: of the arithmetic that the file is made for. baked: whether it takes a
    picture and gives its label map, not logits (`export.bake`). volume: how a network that takes volumes (n, c, d,
    h, w) wants them; None of one that takes pictures. fold: (i, k) where its run held out the i-th of k parts
    (`datasets.opening.split_in_folds`).
    """

    name: str
    architecture: str
    labels: LabelSet
    preprocess: Preprocess
    stride: Annotated[int, Between(1, LONGEST_SIDE)]
    align_corners: bool
    parameters: Count
    multiply_adds: Count | None = None
    multiply_adds_hw: tuple[Count, Count] | None = None
    file: str | None = None
    file_bytes: Count | None = None
    sha256: str | None = None
    licence: str = "unknown"
    origin: str = "unknown"
    scores: tuple[Score, ...] = ()
    notes: tuple[str, ...] = field(default=())
    outputs: Outputs = "exclusive"
    split_at: Annotated[float, Between(0, 1)] | None = None
    precision: Literal["float32", "int8"] = "float32"
    baked: bool = False
    volume: VolumePreprocess | None = None
    fold: tuple[Annotated[int, Between(0, 999)], Annotated[int, Between(2, 1000)]] | None = None

    def __post_init__(self) -> None:
        for what, value, kind in (
            ("stride", self.stride, int), ("align_corners", self.align_corners, bool),
            ("parameters", self.parameters, int), ("name", self.name, str),
        ):  # fmt: skip
            if type(value) is not kind or (what == "stride" and self.stride < 1):
                raise InputError(
                    f"a card's {what} is {'at least 1' if what == 'stride' else kind.__name__}, got {value!r:.60}"
                )
        if not isinstance(self.labels, LabelSet) or not isinstance(self.preprocess, Preprocess):
            raise InputError(
                "a card has labels=LabelSet.of(...) and preprocess=Preprocess(...); Card.of makes both"
            )
        if self.volume is not None and len(self.volume.channels) != len(self.preprocess.mean):
            raise InputError(
                f"a card's volume is for {len(self.volume.channels)} input channels, its mean for "
                f"{len(self.preprocess.mean)}; Card.of(..., volume=...) makes both"
            )
        if self.precision not in ("float32", "int8"):
            raise UnknownNameError("precision of a card", str(self.precision), ("float32", "int8"))
        if self.outputs not in get_args(Outputs):
            raise UnknownNameError("kind of outputs", str(self.outputs), get_args(Outputs))
        names = self.labels.num_classes
        if self.outputs == "binary" and names != 2:
            raise InputError(
                'a card with outputs="binary" names two classes, where the logit is negative and where it is positive; '
                f"got {names} names"
            )
        if self.outputs == "regions" and names < 2:
            raise InputError(
                'a card with outputs="regions" names what is outside all regions, then each region; got one name'
            )

    @classmethod
    def of(
        cls,
        classes: Sequence[str] | LabelSet,
        *,
        outputs: Outputs = "exclusive",
        mean: Sequence[float] = IMAGENET_MEAN,
        std: Sequence[float] = IMAGENET_STD,
        size: int | tuple[int, int] | None = None,
        side: Literal["shorter", "longer"] = "shorter",
        multiple: int = 1,
        offset: int = 0,
        colors: Sequence[Color] | None = None,
        ids: Sequence[int] | None = None,
        align_corners: bool = False,
        stride: int = 1,
        value_range: Sequence[float] | None = None,
        volume: VolumePreprocess | None = None,
        name: str = "a model of one's own",
        licence: str = "unknown",
        notes: Sequence[str] = (),
    ) -> Card:
        """A card written by hand, for a network that has none.

        classes: their names in the order of the network's outputs, with "binary" and "regions" the background first,
        or a LabelSet; colors, ids: see `LabelSet.of`. mean, std: one a channel of the input, of values in [0, 1];
        ImageNet's unless said otherwise. size, side, multiple, offset: see `Preprocess`. align_corners: how logits
        smaller than the picture are enlarged. stride: input pixels per logit. Both are read off a network that says so
        itself. value_range: (low, high) of pictures with more than 8 bits a channel, see `Preprocess`. volume: of a
        network that takes volumes, how it wants them; mean, std and size say nothing then. Raises InputError for what
        does not agree.
        """
        labels = classes if isinstance(classes, LabelSet) else LabelSet.of(classes, colors=colors, ids=ids)
        if volume is not None:
            mean, std = (0.0,) * len(volume.channels), (1.0,) * len(volume.channels)
        return cls(
            name=name, architecture="unknown", labels=labels,
            preprocess=Preprocess(
                numbers("mean", mean), numbers("std", std), sides(size), side, multiple, offset,
                None if value_range is None else check_range(value_range),
            ),
            stride=stride, align_corners=align_corners, parameters=0, licence=licence, notes=tuple(notes),
            outputs=outputs, volume=volume,
        )  # fmt: skip

    @property
    def channels(self) -> int:
        """How many logits a pixel has."""
        return {"exclusive": self.labels.num_classes, "binary": 1}.get(
            self.outputs, self.labels.num_classes - 1
        )

    @property
    def border(self) -> float | None:
        """Where the run that made the model divided its pictures by their names
        (`datasets.opening.split_by_name`); None where none did. Runs from before cards said it had theirs at 0.2."""
        trained_here = self.origin.startswith(TRAINED_HERE)
        return EARLIER_BORDER if self.split_at is None and trained_here else self.split_at

    def refuse_volumes(self, task: str) -> None:
        """Raise InputError where the model takes volumes and a task is for pictures."""
        if self.volume is not None:
            raise InputError(
                f"{self.name} takes volumes, and {task} is for models of pictures; segment scans with it: "
                "pixelwise segment scan.nii.gz --model MODEL"
            )

    def replace(self, **changes: Any) -> Card:
        """A copy with some fields changed."""
        return replace(self, **changes)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON; precision, baked, volume and fold only where they are not the usual, so that versions
        that know of none of them read the others."""
        values = {**asdict(self), "labels": self.labels.to_dict(), "preprocess": self.preprocess.to_dict()}
        if self.volume is not None:
            values["volume"] = self.volume.to_dict()
        for name, usual in (("precision", "float32"), ("baked", False), ("volume", None), ("fold", None)):
            if values[name] == usual:
                del values[name]
        return values

    def to_json(self) -> str:
        return json.dumps(self.to_dict())

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Card:
        """What `to_dict` gave, read back; InputError for anything else."""
        return fit(values, cls, "this card")

    @classmethod
    def from_json(cls, text: str) -> Card:
        """Read a card back; a card of a newer or damaged kind is refused in one sentence (InputError)."""
        return read(text, cls, "this file's model card", advice="export the model again")


def numbers(what: str, given: Any) -> tuple[float, ...]:
    """A number a channel; InputError for anything else. Arrays of NumPy are taken."""
    try:
        return tuple(float(number) for number in given)
    except (TypeError, ValueError):
        raise InputError(
            f"{what} takes a number a channel, such as [0.5, 0.5, 0.5], got {given!r:.60}"
        ) from None


def sides(size: Any) -> int | tuple[int, int] | None:
    """A size as `Preprocess` has it; InputError for anything else."""
    try:
        if size is None or isinstance(size, (str, bytes)):
            return None if size is None else sides(object())
        if isinstance(size, Sequence):
            height, width = size
            return operator.index(height), operator.index(width)
        return operator.index(size)
    except (TypeError, ValueError):
        raise InputError(
            f"size takes pixels, one number or (height, width), or None, got {size!r:.60}"
        ) from None


CardOf: TypeAlias = Callable[[Any, "Card | None"], Card]
"""From an engine and the card in its file, None where it has none, to the card that it gets."""

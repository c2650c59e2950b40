"""Card: everything one must know about a set of weights in order to run it and to trust it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from pixelwise.errors import InputError
from pixelwise.inference.preprocess import Preprocess
from pixelwise.labels import LabelSet

CARD_KEY = "pixelwise.card"
"""The key under which a card travels in the metadata of ONNX and safetensors files."""


@dataclass(frozen=True)
class Score:
    """One measured or published figure. value: in the metric's own unit, fractions in [0, 1] for IoU,
    accuracy and Dice. source: who measured it, "measured here" or the publication."""

    metric: str
    value: float
    data: str
    protocol: str
    source: str


@dataclass(frozen=True)
class Card:
    """Travels with every set of weights, inside exported files too.

    name: as in `pixelwise models`; architecture: the builder that makes the network. stride: input pixels per
    coarse logit; align_corners: how coarse logits are enlarged. parameters: their number. multiply_adds: of one
    forward pass over `multiply_adds_hw` (height, width) pixels. file, sha256: the weights' file name and its
    full SHA-256 (or its official first eight digits), where there is a file. notes: what a user should know.
    """

    name: str
    architecture: str
    labels: LabelSet
    preprocess: Preprocess
    stride: int
    align_corners: bool
    parameters: int
    multiply_adds: int | None = None
    multiply_adds_hw: tuple[int, int] | None = None
    file: str | None = None
    file_bytes: int | None = None
    sha256: str | None = None
    licence: str = "unknown"
    origin: str = "unknown"
    scores: tuple[Score, ...] = ()
    notes: tuple[str, ...] = field(default=())

    def replace(self, **changes: Any) -> Card:
        """A copy with some fields changed."""
        return replace(self, **changes)

    def to_dict(self) -> dict[str, Any]:
        return {**asdict(self), "labels": self.labels.to_dict(), "preprocess": self.preprocess.to_dict()}

    def to_json(self) -> str:
        return json.dumps(self.to_dict())

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Card:
        size = values["multiply_adds_hw"]
        return cls(
            **{
                **values,
                "labels": LabelSet.from_dict(values["labels"]),
                "preprocess": Preprocess.from_dict(values["preprocess"]),
                "multiply_adds_hw": None if size is None else (size[0], size[1]),
                "scores": tuple(Score(**score) for score in values["scores"]),
                "notes": tuple(values["notes"]),
            }
        )

    @classmethod
    def from_json(cls, text: str) -> Card:
        """Read a card back; a card of a newer or damaged kind is refused in one sentence."""
        try:
            return cls.from_dict(json.loads(text))
        except (ValueError, TypeError, KeyError) as error:
            raise InputError(
                f"this file's model card cannot be read ({error}); export the model again"
            ) from error

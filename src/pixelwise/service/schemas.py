"""The shapes of the service's JSON answers, for its OpenAPI."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel

from pixelwise.segmenter import Segmenter


class Class(BaseModel):
    """One class of a model. id: its number in label maps; color: red, green, blue, 0 to 255."""

    id: int
    name: str
    color: tuple[int, int, int]


class Model(BaseModel):
    """A model. name: for the parameter `model`; title: by its card. ignore_id: of pixels of which nothing is said, or
    null. outputs: what a pixel may be: exclusive (one class), binary (one of two), regions (any number of them).
    confidence: whether it can say how sure it is."""

    name: str
    title: str
    classes: list[Class]
    ignore_id: int | None
    outputs: Literal["exclusive", "binary", "regions"]
    engine: str
    precision: str
    confidence: bool
    licence: str
    parameters: int

    @classmethod
    def of(cls, name: str, segmenter: Segmenter) -> Model:
        card, labels = segmenter.card, segmenter.classes
        return cls(
            name=name, title=card.name, classes=classes_of(segmenter), ignore_id=labels.ignore_id,
            outputs=card.outputs, confidence=not card.baked, licence=card.licence, parameters=card.parameters,
            **segmenter.made_by(),
        )  # fmt: skip


class Models(BaseModel):
    """The models that are loaded. default: the one that answers where none is named. max_bytes: of a request's body."""

    default: str
    max_bytes: int
    models: list[Model]


class Labels(BaseModel):
    """The classes of one model."""

    model: str
    classes: list[Class]
    ignore_id: int | None


class Status(BaseModel):
    """How the service is."""

    status: str


class Fault(BaseModel):
    """code: for programs; message: one sentence for people; request_id: under which the log says more."""

    code: str
    message: str
    request_id: str


class Failure(BaseModel):
    """What is answered where there is no result."""

    error: Fault


def classes_of(segmenter: Segmenter) -> list[Class]:
    labels = segmenter.classes
    rows = zip(labels.ids, labels.names, labels.colors, strict=True)
    return [Class(id=id, name=name, color=color) for id, name, color in rows]

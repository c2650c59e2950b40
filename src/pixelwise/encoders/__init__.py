"""Encoders: networks that turn an image into features of several sizes, for any decoder to use."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from torch import Tensor


class Encoder(Protocol):
    """What a decoder may rely on.

    `encoder(image (n, 3, h, w))` returns one feature per entry of `channels`, finest first; feature i has
    `channels[i]` channels and ceil(h / strides[i]) by ceil(w / strides[i]) pixels.
    """

    channels: tuple[int, ...]
    strides: tuple[int, ...]

    def __call__(self, image: Tensor) -> list[Tensor]: ...

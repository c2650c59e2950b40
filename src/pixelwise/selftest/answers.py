"""What the models in the package answer for a picture made by code: the class of every eighth pixel, stored.

A file that is not what it was has another SHA-256; a network whose arithmetic is not what it was does not answer the
same. Between processors float32 logits differ in the sixth digit, which moves a border by a pixel at most: hence
`SHARE`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

SHARE = 0.01
"""The share of sampled pixels that may have another class."""

CONFIDENCE = 0.002
"""How far the mean confidence may be from the stored one."""

STEP = 8

LETTERS = ".123456789abcdefghijklmnopqrstuvwxyz"
"""One for each id: "." is 0, the background."""


def picture() -> NDArray[np.uint8]:
    """uint8 (96, 128, 3), in which `everyday` sees a plant and a screen."""
    y, x = np.mgrid[:96, :128] / 128
    waves = ((13, 33, 7), (52, 29, 10), (8, 25, 5))
    channels = [np.sin(a * x + b * y + c * np.sin((5 + i) * 4 * x * y)) for i, (a, b, c) in enumerate(waves)]
    return np.round(128 + 127 * np.stack(channels, axis=-1)).astype(np.uint8)


def sampled(labels: NDArray[np.integer]) -> tuple[str, ...]:
    """The ids of every eighth pixel of every eighth row, from the fourth, as letters."""
    return tuple("".join(LETTERS[i] for i in row) for row in labels[STEP // 2 :: STEP, STEP // 2 :: STEP])


@dataclass(frozen=True)
class Answer:
    """sha256: of the model's file, 64 hexadecimal digits. confidence: its mean over all pixels. rows: see `sampled`."""

    sha256: str
    confidence: float
    rows: tuple[str, ...]


ANSWERS = {
    "everyday": Answer(
        "2d8766c83bde8fd399f6eea18a22e5910e8450bd4f51dcc4e8217b8942d8d4a8",
        0.5100,
        tuple(
            """
        ggggg........kkk gg.gggg.k.kkkkkk .g.g.gkkk.kkkkkk gg.kkkkkkkkkkkkk
        ...kkkkkkkkkkkkk g.kkkkkkkkkkkkkk g.kkkkkgggggkkkg ..kkkggggggggggg
        ...gkggggggggggg ...ggggggggggggg ........gggggg.. kkkk....ggggg..g
    """.split()
        ),
    ),
    "nuclei": Answer(
        "9adf0808084e0d24c184a0580278f9d1c65b2fcba1b0a6d33d2c2cdd72016441",
        0.8337,
        tuple(
            """
        1.11111...111..1 ..11.11.1....111 111.1..11.111..1 11...1...111111.
        11..1111111.11.. ..111..11...1.11 .1.1.111......1. 111..1.11...1111
        1.11..11.1.11..1 .111.111.....1.1 111111.1111.1.11 1.11...1.11....1
    """.split()
        ),
    ),
}

"""A data set of one's own, drawn: the folder that a new user would bring."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image


def draw_folder(root: Path, count: int, names: bool = True, side: tuple[int, int] = (64, 80)) -> Path:
    """images/ and masks/: on noisy ground a red disc (id 1) and a blue square (id 2)."""
    draw = np.random.default_rng(0)
    rows, columns = np.mgrid[: side[0], : side[1]]
    for folder in ("images", "masks"):
        (root / folder).mkdir(parents=True)
    for i in range(count):
        mask = np.zeros(side, np.uint8)
        y, x, radius = draw.integers(15, 50), draw.integers(15, 30), draw.integers(8, 14)
        mask[(rows - y) ** 2 + (columns - x) ** 2 < radius**2] = 1
        top, left = draw.integers(5, 40), draw.integers(45, 58)
        mask[top : top + 20, left : left + 20] = 2
        image = draw.integers(40, 100, (*side, 3)) + np.array([[0, 0, 0], [130, 0, 0], [0, 0, 130]])[mask]
        Image.fromarray(image.astype(np.uint8)).save(root / "images" / f"drawn{i:02}.png")
        Image.fromarray(mask).save(root / "masks" / f"drawn{i:02}.png")
    if names:
        (root / "classes.txt").write_text("ground\ndisc\nsquare\n")
    return root

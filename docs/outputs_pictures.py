"""Draw the pictures of outputs.md: one photograph in every format that is looked at; `python docs/outputs_pictures.py`."""

from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw
from skimage import data

from pixelwise import Segmenter, draw

OUT = Path(__file__).with_name("outputs")
GREY, LIGHT = 204, 255

photo = data.astronaut()
found = Segmenter()(photo, confidence=True)


def on_checkers(rgba: np.ndarray, square_px: int = 16) -> np.ndarray:
    """A transparent picture as image programs show it."""
    y, x = np.indices(rgba.shape[:2]) // square_px
    board = np.where((x + y) % 2, GREY, LIGHT).astype(np.uint8)[..., None]
    return np.where(rgba[..., 3:] > 0, rgba[..., :3], board)


def with_corners(simplify_px: float, crop: tuple[int, int, int, int], scale: int) -> np.ndarray:
    """A part of the picture, enlarged, with polygons drawn over it and a dot on each corner."""
    left, top = crop[:2]
    part = Image.fromarray(photo).crop(crop)
    canvas = part.resize((part.width * scale, part.height * scale), Image.Resampling.NEAREST)
    pen = ImageDraw.Draw(canvas)
    for polygon in found.polygons(simplify_px=simplify_px):
        for ring in polygon.rings:
            corners = [tuple(corner) for corner in ((ring - (left, top)) * scale).tolist()]
            pen.line([*corners, corners[0]], fill=(255, 255, 0), width=2)
            for x, y in corners:
                pen.ellipse((x - 3, y - 3, x + 3, y + 3), fill=(255, 0, 0))
    return np.asarray(canvas)


def save(name: str, picture: np.ndarray, width: int) -> None:
    height = round(picture.shape[0] * width / picture.shape[1])
    small = Image.fromarray(picture).resize((width, height), Image.Resampling.LANCZOS)
    OUT.mkdir(exist_ok=True)
    small.save(OUT / name, quality=88)


confidence = np.round(found.confidence * 255).astype(np.uint8)
row = draw.side_by_side(
    draw.colorize(found.labels, found.classes), found.contours(), on_checkers(found.cutout()), confidence,
    captions=["labels", "contours", "cutout", "confidence"], text_px=24,
)  # fmt: skip
save("formats.jpg", row, 1240)
save("side_by_side.jpg", found.side_by_side(), 820)
crop = (372, 78, 418, 182)
corners = draw.side_by_side(
    with_corners(0, crop, 6), with_corners(3, crop, 6), captions=["exact", "simplify_px=3"], text_px=24
)
save("polygons.jpg", corners, corners.shape[1])

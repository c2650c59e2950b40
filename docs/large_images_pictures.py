"""Draw the pictures of large_images.md: a poster of photographs shown whole and in tiles, and tiles that are blended or
not; `python docs/large_images_pictures.py`."""

from pathlib import Path

import numpy as np
from PIL import Image, ImageOps
from skimage import data

from pixelwise import Segmenter, draw

OUT = Path(__file__).with_name("large_images")
WIDTH = 1240


def fitted(name: str, height: int, width: int, *, mirrored: bool = False) -> np.ndarray:
    """A photograph of scikit-image, cropped and resized."""
    photo = Image.fromarray(getattr(data, name)())
    return np.asarray(ImageOps.fit(ImageOps.mirror(photo) if mirrored else photo, (width, height)))


def save(name: str, picture: np.ndarray) -> None:
    height = round(picture.shape[0] * WIDTH / picture.shape[1])
    OUT.mkdir(exist_ok=True)
    Image.fromarray(picture).resize((WIDTH, height), Image.Resampling.LANCZOS).save(OUT / name, quality=85)


segmenter = Segmenter()
names = ("chelsea", "coffee", "astronaut", "rocket")
poster = np.vstack(
    [
        np.hstack([fitted(names[(i + 3 * row) % 4], 400, 400, mirrored=(i + row) % 3 == 2) for i in range(8)])
        for row in range(6)
    ]
)
pictures = [segmenter(poster).overlay(), segmenter(poster, tile=512).overlay()]
save("whole_and_tiles.jpg", draw.side_by_side(*pictures, captions=["shown whole", "tile=512"], text_px=72))

photo = fitted("astronaut", 1024, 1024)
pictures = [
    segmenter(photo, tile=257, overlap=0, window="constant").overlay(),
    segmenter(photo, tile=257, overlap=0.5).overlay(),
]
save(
    "seams.jpg",
    draw.side_by_side(*pictures, captions=["tile=257, overlap=0", "tile=257, overlap=0.5"], text_px=40),
)

"""Draw the README's picture: a photograph, its label map and the overlay; `python docs/picture.py`."""

from pathlib import Path

from PIL import Image
from skimage import data

from pixelwise import Segmenter, draw

found = Segmenter()(data.astronaut())
overlay = draw.overlay(found.image, found.labels, found.classes, alpha=0.6, contour=True)
picture = draw.side_by_side(found.image, draw.colorize(found.labels, found.classes), overlay, found.legend())
height, width = picture.shape[0] * 3 // 5, picture.shape[1] * 3 // 5
out = Path(__file__).with_name("astronaut.jpg")
Image.fromarray(picture).resize((width, height), Image.Resampling.LANCZOS).save(out, quality=88)

"""Ten data sets as people have them, drawn by code: what own_data.py trains on.

Each has pictures to learn from, in the layout and with the masks that its makers would have (`source`), and two parts
that are held out, in our own layout: `test`, drawn alike, and `shifted`, drawn alike and then taken in other light and
with another camera (`other_light`). The same name and seed give the same pixels.
"""

from __future__ import annotations

import json
import math
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

Rng = np.random.Generator
Drawn = tuple[NDArray[Any], NDArray[np.uint8]]
"""A picture (h, w, 3) uint8 or (h, w) uint16, and its classes (h, w)."""


@dataclass(frozen=True)
class Kind:
    """A data set. draw: (rng, number of the picture) -> one picture; write: how its makers keep it (folder, name of the
    picture, picture, classes); counts: pictures to learn from, and of each part that is held out."""

    draw: Callable[[Rng, int], Drawn]
    write: Callable[[Path, int, NDArray[Any], NDArray[np.uint8]], None]
    classes: tuple[str, ...]
    counts: tuple[int, int] = (20, 6)


def make(name: str, root: Path) -> Path:
    """The data set `name` under root/name: source/, ready/ (our own layout), test/ and shifted/; nothing where it is
    there already."""
    kind, folder = KINDS[name], root / name
    if (folder / "done").is_file():
        return folder
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    for i in range(kind.counts[0]):
        image, mask = kind.draw(rng, i)
        kind.write(folder / "source", i, image, mask)
        ready(folder / "ready", i, image, mask, kind.classes)
    for part in ("test", "shifted"):
        for i in range(kind.counts[1]):
            image, mask = kind.draw(rng, 1000 + i)
            ready(
                folder / part, i, other_light(rng, image) if part == "shifted" else image, mask, kind.classes
            )
    if name == "polygons":
        coco(folder / "source", folder / "ready", kind.classes)
    (folder / "done").write_text("")
    return folder


def ready(
    folder: Path, number: int, image: NDArray[Any], mask: NDArray[np.uint8], classes: tuple[str, ...]
) -> None:
    """images/, masks/ with ids, classes.txt."""
    save(folder / "images" / f"{number:02}.png", image)
    save(folder / "masks" / f"{number:02}.png", mask)
    (folder / "classes.txt").write_text("\n".join(classes) + "\n", encoding="utf-8")


def save(path: Path, values: NDArray[Any], **options: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(values).save(path, **options)


def other_light(rng: Rng, image: NDArray[Any]) -> NDArray[Any]:
    """The picture darker or brighter, softer or harder, and in another tint."""
    top = 255.0 if image.dtype == np.uint8 else 4095.0
    gamma = math.exp(rng.uniform(-0.45, 0.45))
    gain, offset = rng.uniform(0.65, 1.15), rng.uniform(-0.06, 0.12)
    tint = rng.uniform(0.8, 1.15, 3) if image.ndim == 3 else 1.0
    values = (image / top) ** gamma * gain * tint + offset
    return np.asarray(np.clip(values * top, 0, top).astype(image.dtype))


# What pictures are made of


def smooth(rng: Rng, h: int, w: int, cell: int) -> NDArray[np.float64]:
    """Noise (h, w) of about unit variance that changes over `cell` pixels."""
    coarse = rng.standard_normal((h // cell + 3, w // cell + 3)).astype(np.float32)
    large = Image.fromarray(coarse).resize(
        (coarse.shape[1] * cell, coarse.shape[0] * cell), Image.Resampling.BICUBIC
    )
    return np.asarray(large)[cell : cell + h, cell : cell + w].astype(np.float64) * 1.4


def ground(rng: Rng, h: int, w: int, colour: tuple[float, ...], rough: float = 12.0) -> NDArray[np.float64]:
    """A coloured ground (h, w, 3) with large and small texture."""
    texture = rough * (smooth(rng, h, w, 48) + 0.6 * smooth(rng, h, w, 12))
    tints = np.stack([smooth(rng, h, w, 64) for _ in range(3)], axis=-1)
    return np.array(colour) + texture[..., None] + 0.5 * rough * tints


def finish(rng: Rng, image: NDArray[np.float64], noise: float) -> NDArray[np.uint8]:
    return np.asarray(np.clip(image + noise * rng.standard_normal(image.shape), 0, 255).astype(np.uint8))


def curve(rng: Rng, h: int, w: int, bend: float, steps: int = 60) -> list[tuple[float, float]]:
    """A wandering line from a border inwards."""
    side = rng.integers(4)
    x, y = rng.uniform(0, w), rng.uniform(0, h)
    x, y = ((0.0, y), (float(w), y), (x, 0.0), (x, float(h)))[side]
    angle = math.atan2(h / 2 - y, w / 2 - x) + rng.uniform(-0.6, 0.6)
    stride, points = max(h, w) / 40, [(x, y)]
    for _ in range(steps):
        angle += rng.normal(0, bend)
        x, y = x + stride * math.cos(angle), y + stride * math.sin(angle)
        points.append((x, y))
    return points


def line(h: int, w: int, points: list[tuple[float, float]], width: float) -> NDArray[np.float64]:
    """How much of each pixel (h, w) a line covers, in [0, 1]."""
    canvas = Image.new("L", (2 * w, 2 * h))
    doubled = [(2 * x, 2 * y) for x, y in points]
    ImageDraw.Draw(canvas).line(doubled, fill=255, width=max(1, round(2 * width)), joint="curve")
    return np.asarray(canvas.resize((w, h), Image.Resampling.BOX), np.float64) / 255


def blob(rng: Rng, h: int, w: int, radius: float, wobble: float = 0.25) -> NDArray[np.bool_]:
    """A roundish shape (h, w) anywhere."""
    y, x = rng.uniform(0, h), rng.uniform(0, w)
    angles = np.linspace(0, 2 * math.pi, 24, endpoint=False)
    reach = radius * (
        1 + wobble * np.convolve(np.tile(rng.standard_normal(24), 3), np.ones(5) / 5, "same")[24:48]
    )
    canvas = Image.new("1", (w, h))
    ImageDraw.Draw(canvas).polygon(
        [(x + r * math.cos(a), y + r * math.sin(a)) for r, a in zip(reach, angles, strict=True)], fill=1
    )
    return np.asarray(canvas)


# The ten


def vessels(rng: Rng, number: int) -> Drawn:
    """Curves 3 px wide, a little darker than an uneven ground; wider ones and bright ones are none."""
    h = w = 320
    image = ground(rng, h, w, (176, 96, 62), 14)
    mask = np.zeros((h, w))
    for _ in range(4):
        other = line(h, w, curve(rng, h, w, 0.12), 7)
        image += other[..., None] * np.array([-14, -12, -8])
    for _ in range(3):
        image += line(h, w, curve(rng, h, w, 0.15), 3)[..., None] * np.array([26, 24, 20])
    for _ in range(9):
        one = line(h, w, curve(rng, h, w, 0.16), rng.uniform(2.5, 3.5))
        image -= one[..., None] * np.array([22, 26, 14]) * rng.uniform(0.5, 1.1)
        mask = np.maximum(mask, one)
    return finish(rng, image, 9), (mask > 0.5).astype(np.uint8)


def roads(rng: Rng, number: int) -> Drawn:
    """Grey roads 9 px wide between fields, with rivers, roofs and bare ground of nearly the same grey."""
    h = w = 320
    image = ground(rng, h, w, (96, 112, 72), 12)
    mask = np.zeros((h, w))
    for _ in range(14):
        image[blob(rng, h, w, 45)] += rng.normal(0, 16, 3)
    for _ in range(10):
        y, x = rng.integers(0, h - 24), rng.integers(0, w - 24)
        image[y : y + rng.integers(10, 24), x : x + rng.integers(10, 24)] = rng.normal(136, 10) + rng.normal(
            0, 5, 3
        )
    for _ in range(2):
        river = line(h, w, curve(rng, h, w, 0.12), 10)[..., None]
        image = image * (1 - river) + river * (
            np.array([92, 110, 124]) + 6 * smooth(rng, h, w, 24)[..., None]
        )
    for _ in range(4):
        one = line(h, w, curve(rng, h, w, 0.05), rng.uniform(7, 11))
        tone = rng.normal(128, 8) + rng.normal(0, 4, 3) + 6 * smooth(rng, h, w, 16)[..., None]
        image = image * (1 - one[..., None]) + one[..., None] * tone
        mask = np.maximum(mask, one)
    for _ in range(16):  # trees hide some of it
        image[blob(rng, h, w, 7)] = rng.normal((62, 84, 48), 8)
    return finish(rng, image, 9), (mask > 0.5).astype(np.uint8)


def blobs(rng: Rng, number: int) -> Drawn:
    """Spotted round cells among plain ones of the same tone."""
    h = w = 320
    image, mask = ground(rng, h, w, (196, 170, 184), 10), np.zeros((h, w), np.uint8)
    spots = smooth(rng, h, w, 4)
    for wanted in (False, True) * 9:
        shape = blob(rng, h, w, rng.uniform(13, 24))
        image[shape] = (
            np.array([158, 118, 150]) + rng.normal(0, 8) + 6 * smooth(rng, h, w, 16)[shape][:, None]
        )
        if wanted:
            image[shape] += 12 * spots[shape][:, None]
        mask[shape] = wanted
    return finish(rng, image, 8), mask


def tiny(rng: Rng, number: int) -> Drawn:
    """Three discs of 6 px a picture, 0.05 % of it, among specks, streaks and rings."""
    h = w = 416
    image, mask = ground(rng, h, w, (92, 98, 120), 11), np.zeros((h, w), np.uint8)
    rows, columns = np.mgrid[:h, :w]
    for _ in range(60):
        y, x = rng.integers(4, h - 4), rng.integers(4, w - 4)
        image[y : y + 2, x : x + 2] += 45
    for _ in range(14):
        x, y, angle = rng.uniform(0, w), rng.uniform(0, h), rng.uniform(0, math.pi)
        end = (x + 16 * math.cos(angle), y + 16 * math.sin(angle))
        image += line(h, w, [(x, y), end], 2.5)[..., None] * 45
    for wanted in [False] * 10 + [True] * 3:
        y, x = rng.integers(12, h - 12), rng.integers(12, w - 12)
        distance = np.hypot(rows - y, columns - x)
        shape = distance < 3.2 if wanted else (distance < 4.5) & (distance > 2.2)
        image[shape] += 48 + rng.normal(0, 5)
        mask[shape] = wanted
    return finish(rng, image, 9), mask


def grey12(rng: Rng, number: int) -> Drawn:
    """Nuclei in 12 bits, of very different brightness, beside flat debris."""
    h = w = 320
    mask = np.zeros((h, w), np.uint8)
    image = 260 + 60 * smooth(rng, h, w, 64)
    for wanted in (False, True) * 14:
        shape = blob(rng, h, w, rng.uniform(7, 14), 0.15)
        strength = math.exp(rng.normal(5.3, 0.5))
        texture = 1 + (0.35 * smooth(rng, h, w, 5)[shape] if wanted else 0.0)
        image[shape] = np.maximum(image[shape], 280 + strength * texture)
        mask[shape] = wanted
    image += 42 * rng.standard_normal((h, w))
    return np.clip(image, 0, 4095).astype(np.uint16), mask


def tiles(rng: Rng, number: int) -> Drawn:
    """Strips of 4000 px (held-out ones of 800) with roofs of 20 to 36 px; yards of the same tone have no ridge."""
    h, w = 640, 4000 if number < 1000 else 800
    image, mask = ground(rng, h, w, (104, 112, 84), 12), np.zeros((h, w), np.uint8)
    for wanted in (False, True) * (h * w // 24000):
        height, width = rng.integers(20, 37, 2)
        y, x = rng.integers(0, h - 40), rng.integers(0, w - 40)
        if mask[y : y + height, x : x + width].any():
            continue
        tone = np.array([142, 120, 108]) + rng.normal(0, 9, 3)
        image[y : y + height, x : x + width] = tone
        if wanted:
            image[y : y + height // 2, x : x + width] += 20
            image[y + height // 2 : y + height, x : x + width] -= 10
        else:
            image[y : y + height, x : x + width] += 8 * rng.standard_normal((height, width, 1))
        mask[y : y + height, x : x + width] = wanted
    return finish(rng, image, 10), mask


PAINTS = np.array([(r, g, b) for r in (40, 128, 215) for g in (40, 128, 215) for b in (40, 128, 215)], float)
PAINTS = np.delete(PAINTS, 13, axis=0)  # the grey of the ground


def thirty(rng: Rng, number: int) -> Drawn:
    """Ground and 29 classes: 26 colours, and stripes across, along and in squares."""
    h = w = 320
    image, mask = ground(rng, h, w, (128, 128, 128), 8), np.zeros((h, w), np.uint8)
    rows, columns = np.mgrid[:h, :w]
    stripes = [np.sin(rows * 0.8), np.sin(columns * 0.8), np.sin(rows * 0.5) * np.sin(columns * 0.5)]
    for _ in range(20):
        one = int(rng.integers(29))
        shape = blob(rng, h, w, rng.uniform(28, 44))
        image[shape] = PAINTS[one] if one < 26 else 128 + 70 * np.sign(stripes[one - 26])[shape][:, None]
        image[shape] += rng.normal(0, 9, 3)
        mask[shape] = one + 1
    return finish(rng, image, 12), mask


def unequal(rng: Rng, number: int) -> Drawn:
    """Scratches on brushed metal, 1 % of the pixels, in two of three pictures; grain and seams look alike."""
    h = w = 320
    grain = np.repeat(smooth(rng, h, 8, 4)[:, :1], w, axis=1)
    image = ground(rng, h, w, (150, 152, 156), 8) + 9 * grain[..., None]
    mask = np.zeros((h, w))
    for _ in range(3):
        y = rng.uniform(0, h)
        image -= line(h, w, [(0, y), (w, y + rng.normal(0, 6))], 3)[..., None] * 26
    if number % 3 != 2:
        for _ in range(int(rng.integers(2, 5))):
            x, y, angle = rng.uniform(30, w - 30), rng.uniform(30, h - 30), rng.uniform(0.5, math.pi - 0.5)
            reach = rng.uniform(20, 60)
            middle = (x + reach / 2 * math.cos(angle) + rng.normal(0, 3), y + reach / 2 * math.sin(angle))
            end = (x + reach * math.cos(angle), y + reach * math.sin(angle))
            one = line(h, w, [(x, y), middle, end], rng.uniform(3, 5))
            image -= one[..., None] * rng.uniform(16, 34)
            mask = np.maximum(mask, one)
    return finish(rng, image, 9), (mask > 0.5).astype(np.uint8)


def mixed(rng: Rng, number: int) -> Drawn:
    """Leaves of 30 to 45 px in pictures from 180 to 640 px, of many cameras."""
    h, w = (int(s) for s in rng.integers(180, 641, 2))
    image, mask = ground(rng, h, w, (120, 104, 84), 14), np.zeros((h, w), np.uint8)
    for wanted in (False, True) * max(2, h * w // 14000):
        shape = blob(rng, h, w, rng.uniform(14, 22))
        veins = 10 * np.sin((np.mgrid[:h, :w].sum(0) if wanted else np.mgrid[:h, :w][0]) * 0.9)
        image[shape] = np.array([92, 124, 66]) + rng.normal(0, 10, 3) + veins[shape][:, None]
        mask[shape] = wanted
    cast = rng.uniform(0.8, 1.15, 3) * rng.uniform(0.8, 1.1)
    return finish(rng, image * cast, 9), mask


def polygons(rng: Rng, number: int) -> Drawn:
    """Triangles, bars and hexagons, three classes told apart by their outlines alone."""
    h, w = 288, 384
    image, mask = ground(rng, h, w, (112, 122, 132), 14), np.zeros((h, w), np.uint8)
    for _ in range(10):
        one = int(rng.integers(3))
        x, y, turn = rng.uniform(20, w - 20), rng.uniform(20, h - 20), rng.uniform(0, 2 * math.pi)
        radius = rng.uniform(18, 30)
        if one == 1:
            corners = [(1.3, 0.25), (1.3, math.pi - 0.25), (1.3, math.pi + 0.25), (1.3, -0.25)]
        else:
            corners = [(1.0, 2 * math.pi * k / (3, 0, 6)[one]) for k in range((3, 0, 6)[one])]
        canvas = Image.new("1", (w, h))
        ImageDraw.Draw(canvas).polygon(
            [(x + radius * r * math.cos(a + turn), y + radius * r * math.sin(a + turn)) for r, a in corners],
            fill=1,
        )
        shape = np.asarray(canvas)
        image[shape] = np.array([150, 130, 110]) + rng.normal(0, 14, 3)
        mask[shape] = one + 1
    return finish(rng, image, 10), mask


# How people keep them


def write_vessels(folder: Path, number: int, image: NDArray[Any], mask: NDArray[np.uint8]) -> None:
    save(folder / "images" / f"{number + 21}_training.tif", image)
    save(folder / "1st_manual" / f"{number + 21}_manual1.gif", mask * np.uint8(255))


def write_roads(folder: Path, number: int, image: NDArray[Any], mask: NDArray[np.uint8]) -> None:
    save(folder / f"sat{number:03}.png", image)
    soft = Image.fromarray(mask * np.uint8(255))
    soft = soft.resize((mask.shape[1] * 2, mask.shape[0] * 2), Image.Resampling.BILINEAR).resize(soft.size)
    save(folder / f"sat{number:03}_mask.png", np.asarray(soft))


def write_two_folders(picture: str, truth: str, ending: str = "png", **options: Any) -> Callable[..., None]:
    """Folders of the names `picture` and `truth`, masks 0/255."""

    def write(folder: Path, number: int, image: NDArray[Any], mask: NDArray[np.uint8]) -> None:
        save(folder / picture / f"IMG_{number:04}.{ending}", image, **options)
        save(folder / truth / f"IMG_{number:04}.png", mask * np.uint8(255))

    return write


def write_colours(folder: Path, number: int, image: NDArray[Any], mask: NDArray[np.uint8]) -> None:
    palette = np.random.default_rng(0).integers(0, 256, (256, 3)).astype(np.uint8)
    palette[0] = 0
    save(folder / "img" / f"{number:03}.jpg", image, quality=92)
    save(folder / "gt" / f"{number:03}.png", palette[mask])


def write_outlines(folder: Path, number: int, image: NDArray[Any], mask: NDArray[np.uint8]) -> None:
    save(folder / "images" / f"{number:02}.jpg", image, quality=95)  # the outlines follow, see `coco`


def coco(source: Path, ready_: Path, classes: tuple[str, ...]) -> None:
    """annotations.json with the outlines of every connected part of the masks."""
    import cv2

    annotations: list[dict[str, Any]] = []
    images = []
    for i, path in enumerate(sorted((ready_ / "masks").glob("*.png"))):
        mask = np.asarray(Image.open(path))
        images.append(
            {"id": i, "file_name": f"{path.stem}.jpg", "height": mask.shape[0], "width": mask.shape[1]}
        )
        for one in range(1, len(classes)):
            found, _ = cv2.findContours(
                (mask == one).astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE
            )
            for contour in found:
                if len(contour) >= 3:
                    annotations.append(
                        {
                            "id": len(annotations) + 1, "image_id": i, "category_id": one, "iscrowd": 0,
                            "segmentation": [[float(v) for v in contour.reshape(-1)]],
                            "area": float(cv2.contourArea(contour)),
                            "bbox": [float(v) for v in cv2.boundingRect(contour)],
                        }
                    )  # fmt: skip
    categories = [{"id": i, "name": name} for i, name in enumerate(classes) if i]
    (source / "annotations.json").write_text(
        json.dumps({"images": images, "annotations": annotations, "categories": categories}), encoding="utf-8"
    )


KINDS = {
    "vessels": Kind(vessels, write_vessels, ("ground", "vessel")),
    "roads": Kind(roads, write_roads, ("ground", "road")),
    "blobs": Kind(blobs, write_two_folders("raw", "label"), ("ground", "spotted")),
    "tiny": Kind(tiny, write_two_folders("images", "annotations"), ("ground", "disc")),
    "grey12": Kind(grey12, write_two_folders("images", "masks"), ("ground", "nucleus")),
    "tiles": Kind(tiles, write_two_folders("tiles", "truth", "jpg", quality=90), ("ground", "roof"), (6, 6)),
    "thirty": Kind(thirty, write_colours, ("ground", *(f"kind {i}" for i in range(1, 30)))),
    "unequal": Kind(unequal, write_two_folders("good_and_bad", "defects"), ("ground", "scratch")),
    "mixed": Kind(mixed, write_two_folders("photos", "leaves", "jpg", quality=92), ("ground", "leaf")),
    "polygons": Kind(polygons, write_outlines, ("ground", "triangle", "bar", "hexagon")),
}

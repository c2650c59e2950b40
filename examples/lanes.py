"""Road and lane, from pictures to a mask: draws streets with their label maps, trains some minutes, and segments
streets that it has not seen. Needs `pip install '.[train]'` in the clone.

    python examples/lanes.py [FOLDER] [STEPS]

FOLDER (lanes/) gets streets/ (the data set: images/, masks/, classes.txt), run/ (the model), mask.png and lanes.png.
With photographs and label maps of your own in place of `streets/`, the rest stays as it is.
"""

import argparse
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

import pixelwise

HEIGHT, WIDTH, FINER = 64, 112, 4  # drawn four times as fine, then made smaller, as a camera does
CLASSES = ("background", "road", "lane")


def street(seed: int) -> tuple[Image.Image, Image.Image]:
    """A drawn street, RGB, and its label map of 0 background, 1 road and 2 lane markings; both HEIGHT x WIDTH."""
    draw = np.random.default_rng(seed)
    h, w = HEIGHT * FINER, WIDTH * FINER
    horizon, vanishing, bend = (
        h * draw.uniform(0.3, 0.5),
        w * draw.uniform(0.35, 0.65),
        w * draw.uniform(-0.5, 0.5),
    )
    centre, half = w * draw.uniform(0.4, 0.6), w * draw.uniform(0.4, 0.75)

    def edge(u: float, t: np.ndarray) -> np.ndarray:
        """Points (x, y) of a line along the street: u from -1 (left edge) to 1, t from 0 (horizon) to 1 (bottom)."""
        x = vanishing + (centre - vanishing) * t + bend * t * (1 - t) + u * half * t
        return np.stack([x, horizon + (h - horizon) * t], axis=1)

    def strip(left: float, right: float, near: float = 0.0, far: float = 1.0) -> list[tuple[float, float]]:
        t = np.linspace(near, far, 30)
        return [(float(x), float(y)) for x, y in np.concatenate([edge(left, t), edge(right, t)[::-1]])]

    sky, ground = draw.integers((90, 130, 170), (170, 190, 240)), draw.integers((60, 80, 30), (130, 130, 80))
    picture = Image.new("RGB", (w, h), tuple(map(int, sky)))
    mask = Image.new("L", (w, h), 0)
    paint, label = ImageDraw.Draw(picture), ImageDraw.Draw(mask)
    paint.rectangle((0, horizon, w, h), fill=tuple(map(int, ground)))
    for _ in range(draw.integers(3, 9)):  # houses and trees
        x, wide, high = draw.uniform(-0.1, 1) * w, draw.uniform(0.05, 0.2) * w, draw.uniform(0.05, 0.35) * h
        colour = tuple(map(int, draw.integers((50, 60, 50), (170, 150, 140))))
        paint.rectangle((x, horizon - high, x + wide, horizon + 0.02 * h), fill=colour)
    grey = int(draw.integers(60, 115))
    paint.polygon(strip(-1, 1), fill=(grey, grey, grey + 5))
    label.polygon(strip(-1, 1), fill=1)
    depth = np.arange(1, 12) + draw.uniform(0, 1)
    dashes = [(1.0 / (d + 0.5), 1.0 / d) for d in depth if d >= 1]  # equally long on the ground
    lines = [(-0.93, 0.02, [(0.0, 1.0)]), (0.93, 0.02, [(0.0, 1.0)]), (draw.uniform(-0.1, 0.1), 0.03, dashes)]
    for u, broad, parts in lines:
        for near, far in parts:
            paint.polygon(strip(u - broad, u + broad, near, far), fill=(225, 225, 205))
            label.polygon(strip(u - broad, u + broad, near, far), fill=2)
    if draw.uniform() < 0.6:  # a car hides a part of the street
        t, u = draw.uniform(0.25, 0.7), draw.uniform(-0.6, 0.6)
        (x, y), side = edge(u, np.array([t]))[0], half * t * 0.22
        paint.rectangle(
            (x - side, y - 1.4 * side, x + side, y), fill=tuple(map(int, draw.integers(20, 220, 3)))
        )
        label.rectangle((x - side, y - 1.4 * side, x + side, y), fill=0)
    picture = picture.filter(ImageFilter.GaussianBlur(FINER / 2)).resize(
        (WIDTH, HEIGHT), Image.Resampling.BOX
    )
    light = np.asarray(picture) * draw.uniform(0.5, 1.1) + draw.normal(0, 6, (HEIGHT, WIDTH, 3))
    seen = Image.fromarray(light.clip(0, 255).astype(np.uint8))
    return seen, mask.resize((WIDTH, HEIGHT), Image.Resampling.NEAREST)


def main(folder: Path, steps: int) -> None:
    data = folder / "streets"
    for kind in ("images", "masks"):
        (data / kind).mkdir(parents=True, exist_ok=True)
    for seed in range(60):
        picture, mask = street(seed)
        picture.save(data / "images" / f"{seed:02}.png")
        mask.save(data / "masks" / f"{seed:02}.png")
    (data / "classes.txt").write_text("\n".join(CLASSES) + "\n", encoding="utf-8")

    small = {
        "encoder_depth": 4,
        "decoder_channels": (64, 32, 16, 16),
    }  # enough for small pictures, on any laptop
    card = pixelwise.train(
        data, folder / "run", model="unet", encoder="resnet18", model_options=small, weights=None, steps=steps
    )
    print(f"{card.scores[0].metric} {card.scores[0].value:.3f} on {card.scores[0].data}")

    segmenter = pixelwise.Segmenter(folder / "run")
    rows = []
    for seed in (1000, 1001, 1002):  # streets that it has not seen
        picture, mask = street(seed)
        found = segmenter(picture)
        rows.append(
            np.concatenate([found.side_by_side(), found.side_by_side(right="labels")[:, WIDTH:]], axis=1)
        )
        right = (found.labels == np.asarray(mask)).mean()
        shares = ", ".join(f"{name} {share:.0%}" for name, share in found.areas().items())
        print(f"street {seed}: {right:.1%} of its pixels right; {shares}")
    print("wrote", found.save(folder / "mask.png"))
    sheet = np.concatenate([np.pad(row, ((0, 8), (0, 0), (0, 0)), constant_values=255) for row in rows])[:-8]
    height, width = sheet.shape[:2]
    Image.fromarray(sheet).resize((3 * width, 3 * height), Image.Resampling.NEAREST).save(
        folder / "lanes.png"
    )
    print("wrote", folder / "lanes.png")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path, nargs="?", default=Path("lanes"))
    parser.add_argument("steps", type=int, nargs="?", default=300)
    asked = parser.parse_args()
    main(asked.folder, asked.steps)

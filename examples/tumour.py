"""A tumour in a scan, from volumes to a label map: draws heads in four kinds of MRI with their label volumes, trains a
small No New-Net some minutes, and segments heads that it has not seen. Needs `pip install '.[train,volume]'` in the
clone.

    python examples/tumour.py [FOLDER] [STEPS]

FOLDER (tumour/) gets heads/ (the data set: imagesTr/, labelsTr/, dataset.json, as BraTS and nnU-Net have it), run/ (the
model), and of each new head NAME.nii.gz, NAME.labels.nii.gz, NAME.montage.png and NAME.csv. With scans and label
volumes of your own in place of `heads/`, the rest stays as it is.
"""

import argparse
import json
from pathlib import Path

import nibabel
import numpy as np

import pixelwise

SIZE, SPACING = (28, 48, 40), (3.0, 3.5, 3.5)  # slices, rows and columns, and their mm
CHANNELS = ("T1", "T1ce", "T2", "FLAIR")
CLASSES = ("background", "edema", "enhancing tumour", "necrosis")
GREY = np.array(  # of air, brain, edema, enhancing tumour and necrosis in each of the channels
    [[0, 500, 420, 400, 250], [0, 520, 430, 900, 260], [0, 400, 800, 600, 950], [0, 450, 900, 650, 350]],
    float,
)


def head(seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A drawn head: values (4, d, h, w), label volume (d, h, w) of `CLASSES`, and its affine to mm (RAS)."""
    draw = np.random.default_rng(seed)
    affine = np.diag([*SPACING[::-1], 1.0])
    affine[:3, 3] = -affine[:3, :3] @ ((np.array(SIZE[::-1]) - 1) / 2)
    index = np.stack(np.meshgrid(*map(np.arange, SIZE), indexing="ij"), axis=-1)
    points = index[..., ::-1] @ affine[:3, :3].T + affine[:3, 3]  # x, y, z in mm

    def ball(middle: np.ndarray, radii: np.ndarray) -> np.ndarray:
        return (((points - middle) / radii) ** 2).sum(axis=-1) < 1

    brain = ball(draw.uniform(-3, 3, 3), np.array([60, 74, 38]) * draw.uniform(0.9, 1.05))
    middle = draw.uniform(-1, 1, 3) * (30, 36, 14)
    radii = draw.uniform(0.85, 1.15, 3) * draw.uniform(16, 26)
    labels = np.zeros(SIZE, np.uint8)
    for id, share in ((1, 1.0), (2, 0.7), (3, 0.42)):  # each inside the one before
        labels[ball(middle, radii * share) & brain] = id
    values = GREY[:, np.where(labels > 0, labels + 1, brain)]
    field = 1 + 0.1 * (points @ draw.normal(size=3)) / 60  # of the coils
    values = np.where(values > 0, values * field + draw.normal(0, 40, values.shape), 0)
    return values.clip(0).astype(np.int16), labels, affine


def save(path: Path, values: np.ndarray, affine: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    nibabel.Nifti1Image(
        np.moveaxis(values, 0, -1).transpose(2, 1, 0, 3) if values.ndim == 4 else values.T, affine
    ).to_filename(path)


def main(folder: Path, steps: int) -> None:
    data = folder / "heads"
    for seed in range(24):
        values, labels, affine = head(seed)
        save(data / "imagesTr" / f"head_{seed:02}.nii.gz", values, affine)
        save(data / "labelsTr" / f"head_{seed:02}.nii.gz", labels, affine)
    about = {
        "channel_names": dict(enumerate(CHANNELS)),
        "labels": {name: i for i, name in enumerate(CLASSES)},
        "file_ending": ".nii.gz",
    }
    (data / "dataset.json").write_text(json.dumps(about), encoding="utf-8")

    small = {"width": 8, "levels": 3}  # enough for small heads, on any laptop
    card = pixelwise.train(data, folder / "run", model="nonewnet_softmax", model_options=small, steps=steps)
    print(f"{card.scores[0].metric} {card.scores[0].value:.3f} on {card.scores[0].data}")

    segmenter = pixelwise.Segmenter(folder / "run")
    for seed in (1000, 1001, 1002):  # heads that it has not seen
        values, labels, affine = head(seed)
        name = f"head_{seed}"
        save(folder / f"{name}.nii.gz", values, affine)
        found = segmenter(folder / f"{name}.nii.gz", flips=("columns", "rows"), largest_only=CLASSES[1:])
        given, true = found.labels > 0, labels > 0
        dice = 2 * (given & true).sum() / (given.sum() + true.sum())
        sizes = {row["name"]: row["mm3"] / 1000 for row in found.to_dict()["classes"]}
        parts = ", ".join(f"{part} {sizes.get(part, 0):.1f} ml" for part in CLASSES[1:])
        print(
            f"{name}: whole tumour Dice {dice:.3f}, {true.sum() * np.prod(SPACING) / 1000:.1f} ml are true; {parts}"
        )
        for ending in ("labels.nii.gz", "montage.png", "csv"):
            path = folder / f"{name}.{ending}"
            found.save(path, format="montage" if ending == "montage.png" else None)
            print("wrote", path)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path, nargs="?", default=Path("tumour"))
    parser.add_argument("steps", type=int, nargs="?", default=300)
    asked = parser.parse_args()
    main(asked.folder, asked.steps)

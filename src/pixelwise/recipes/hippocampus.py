"""The hippocampus in MRI (Medical Segmentation Decathlon, task 4): a small No New-Net, from the folder to its Dice.

python -m pixelwise.recipes.hippocampus --data ../shared/data --out runs/hippocampus

130 volumes of about 36 x 50 x 36 voxels of 1 mm, anterior (head) and posterior (body and tail); 104 to learn from and
26 held out by a hash of their names. The data are CC BY-SA 4.0, and so is what is made of them. MSD's own test labels
are not public, so published figures are of other volumes than ours.

Measured on the 26 held-out volumes: mean Dice 0.861 (anterior 0.869, posterior 0.854; 0.813 after 500 steps, 0.850
after 1,000, 0.856 after 1,500), which is below what is published of larger networks. On one core of an AMD EPYC without
AVX-512 a step takes 0.5 to 0.7 s, the whole run about 20 minutes and 1 GiB of memory. The same command goes on with a
run that was stopped.
"""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
from PIL import Image

from pixelwise import draw
from pixelwise.datasets.opening import open_data
from pixelwise.datasets.sample import Samples
from pixelwise.evaluation import Evaluation, evaluate
from pixelwise.files import writing
from pixelwise.inference.volume_preprocess import Normalise, VolumePreprocess
from pixelwise.labels import LabelSet
from pixelwise.recipes.folders import folders
from pixelwise.segmenter import Segmenter
from pixelwise.training.config import TrainConfig
from pixelwise.training.experiment import Experiment, experiment_of
from pixelwise.training.runner import train

FOLDER = "msd_hippocampus"

CLASSES = LabelSet.of(
    ("background", "anterior", "posterior"), colors=((0, 0, 0), (255, 196, 0), (0, 160, 255))
)

CONFIG = TrainConfig(
    model="nonewnet_softmax", model_options={"width": 12, "levels": 3, "deep_supervision": False}, format="volumes",
    volume=VolumePreprocess((Normalise("zscore"),), spacing=(1.0, 1.0, 1.0), orientation="RAS", patch=(32, 48, 32)),
    split_at=None, steps=2000, batch_size=2, peak_lr=3e-3, schedule="cosine", warmup_steps=50, clip_norm=12.0,
    ema_decay=0.995, loss_options={"dice": {"classes": [1, 2]}}, augment={"elastic": 0.2}, channels_last=True,
    workers=1, validate_every=500,
)  # fmt: skip


def experiment(data: Path) -> Experiment:
    """The run on `data`/msd_hippocampus."""
    root = data / FOLDER
    made = experiment_of(CONFIG.replace(data=str(root)), open_data(root, "volumes", classes=CLASSES))
    card = made.card.replace(
        licence="CC BY-SA 4.0, as the Medical Segmentation Decathlon's hippocampus data that it was trained on",
        notes=("For T1 volumes cut out around one hippocampus: a whole head has to be cut so first.",),
    )
    return dataclasses.replace(made, card=card)


def picture(segmenter: Segmenter, samples: Samples, found: Evaluation, scale: int = 6) -> Image.Image:
    """Three of the scans, of the lowest, the median and the highest mean Dice, a row each: the slice that holds most,
    with the outlines of the truth to the left and of the model's answer to the right."""
    scores = np.nanmean(found.confusion.per_image("dice").values[:, 1:], axis=1)
    order = np.argsort(scores)
    rows = []
    for number in (order[0], order[len(order) // 2], order[-1]):
        name, image, given, target = found.again(segmenter, int(number))
        image, given, target = (  # front is up
            np.asarray(plane)[::-1].repeat(scale, 0).repeat(scale, 1) for plane in (image, given, target)
        )
        shown = [draw.outline(image, labels, found.classes, width_px=2) for labels in (target, given)]
        captions = [f"{name}: truth", f"answer, mean Dice {scores[number]:.3f}"]
        rows.append(draw.side_by_side(*shown, captions=captions, text_px=18))
    widest = max(row.shape[1] for row in rows)
    filled = [np.pad(r, ((0, 0), (0, widest - r.shape[1]), (0, 0)), constant_values=255) for r in rows]
    return Image.fromarray(np.concatenate(filled, axis=0))


def main() -> None:
    does = "Train and score a small network for the hippocampus, anterior and posterior."
    data, out = folders(does, "hippocampus", holds=FOLDER)
    made = experiment(data)
    train(made, out)
    segmenter = Segmenter(out)
    found = evaluate(segmenter, made.held_out, classes=CLASSES, data=f"{FOLDER}, held out")
    assert found.surfaces is not None
    with writing(out / "structures.json") as temporary:
        temporary.write_text(json.dumps(found.surfaces.to_dict(), indent=1) + "\n", encoding="utf-8")
    with writing(out / "cases.png") as temporary:
        picture(segmenter, made.held_out, found).save(temporary, "PNG")


if __name__ == "__main__":
    main()

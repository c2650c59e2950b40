"""COCO's first 128 training pictures with all 80 classes: too few pictures for too many classes, on purpose.

python -m pixelwise.recipes.coco128 --data ../shared/data --out runs/coco128

"""

from __future__ import annotations

from pathlib import Path

from pixelwise.datasets.folder import match
from pixelwise.datasets.opening import PairSamples, split_by_name
from pixelwise.labels import LabelSet
from pixelwise.recipes import from_voc
from pixelwise.recipes.folders import folders
from pixelwise.training.config import TrainConfig
from pixelwise.training.experiment import Experiment
from pixelwise.training.runner import train
from pixelwise.weights.card import EARLIER_BORDER

CONFIG = TrainConfig(
    model="fpn", encoder="mobilenetv2_100", model_options={"pyramid_channels": 128}, steps=600, batch_size=4,
    optimizer="adamw", peak_lr=3e-4, head_lr_factor=5.0, weight_decay=1e-2, warmup_steps=40, ema_decay=0.99,
    losses={"cross_entropy": 1.0, "lovasz_softmax": 1.0}, precision="bfloat16", channels_last=True, image_size=256,
    augment={"crop_hw": (256, 256), "scale": (0.6, 1.8)}, class_balanced=True,
)  # fmt: skip


def samples(data: Path) -> tuple[PairSamples, PairSamples]:
    """(training, held out) of `data`/coco128_seg, divided by a hash of the names as undivided folders were."""
    root = data / "coco128_seg"
    lines = (root / "classes_coco80.txt").read_text(encoding="utf-8").splitlines()
    classes = LabelSet.of([line.split(maxsplit=1)[1] for line in lines])
    pairs = match(root / "images", root / "masks_coco80")
    kept = set(split_by_name((pair.name for pair in pairs), EARLIER_BORDER)[1])
    parts = [[pair for pair in pairs if (pair.name in kept) == wanted] for wanted in (False, True)]
    return PairSamples(parts[0], classes, "train"), PairSamples(parts[1], classes, "val")


def experiment(data: Path) -> Experiment:
    learned, held_out = samples(data)
    made = from_voc.network(CONFIG, data / from_voc.START, learned)
    licence = "CC BY 4.0, that of COCO's annotations"
    return from_voc.experiment(CONFIG, made, learned, held_out, "coco128", licence, "COCO128")


def main() -> None:
    does = "Train, score and export a network for COCO128's 80 classes."
    data, out = folders(does, "coco128", holds="coco128_seg and weights")
    train(experiment(data), out, export=True)


if __name__ == "__main__":
    main()

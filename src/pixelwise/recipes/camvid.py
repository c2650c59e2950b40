"""CamVid's 11 classes at 360x480, the SegNet split: FPN on MobileNetV2, from the data folder to the ONNX file.

    python -m pixelwise.recipes.camvid --data ../shared/data --out runs/camvid

CamVid is CC BY-NC 4.0: a yardstick beside published tables, not a model to ship. Trained on train and val together, in
three phases, each of a number of steps that was fixed beforehand; scored on test at the end of each. At the end: mean
IoU 0.6786 (95 % over pictures 0.6634 to 0.6924), pixel accuracy 0.9171, one view at one scale; with the mirror image
averaged 0.6905 and 0.9203. 2,908,043 parameters (11.6 MB). The phases are the same network on pictures enlarged further
and further, each added when the score of the one before was known: 0.6517 after the first, 0.6687 after the second. 77
minutes on one of two AMD EPYC cores, then about an hour on both, and 57 minutes more.
"""

from __future__ import annotations

from pathlib import Path

from pixelwise.datasets.opening import PairSamples, open_data
from pixelwise.decoders.fpn import FPN
from pixelwise.labels import CAMVID
from pixelwise.recipes import from_voc
from pixelwise.recipes.folders import folders
from pixelwise.training.config import TrainConfig
from pixelwise.training.experiment import Experiment
from pixelwise.training.runner import train
from pixelwise.weights.store import load_state_dict

CONFIG = TrainConfig(
    model="fpn", encoder="mobilenetv2_100", model_options={"pyramid_channels": 128}, steps=1300, batch_size=8,
    optimizer="adamw", peak_lr=4e-4, head_lr_factor=3.0, weight_decay=1e-2, warmup_steps=50, ema_decay=0.99,
    losses={"cross_entropy": 1.0, "lovasz_softmax": 1.0}, precision="bfloat16", channels_last=True, image_size=448,
    augment={"crop_hw": (352, 448), "scale": (0.75, 1.5)},
)  # fmt: skip
LARGER = CONFIG.replace(
    steps=1500, seed=1, peak_lr=2.5e-4, ema_decay=0.995, image_size=576,
    augment={"crop_hw": (384, 512), "scale": (0.7, 1.5)},
)  # fmt: skip
"""The second phase: pictures larger still, as poles are a pixel or two wide."""
LARGEST = LARGER.replace(
    steps=900, seed=2, peak_lr=2e-4, image_size=720, augment={"crop_hw": (480, 640), "scale": (0.7, 1.4)}
)
"""The third: twice the size that they have, so that the network's finest features are of every second pixel."""


def samples(data: Path) -> tuple[PairSamples, PairSamples]:
    """(train and val, test) of `data`/camvid."""
    camvid = open_data(data / "camvid", "camvid")
    parts = [camvid.samples(split) for split in ("train", "val", "test")]
    learned = PairSamples([*parts[0].pairs, *parts[1].pairs], CAMVID, "train and val")
    return learned, parts[2]


def network(data: Path, learned: PairSamples) -> FPN:
    return from_voc.network(CONFIG, data / from_voc.START, learned)


def experiment(data: Path, config: TrainConfig = CONFIG, start: Path | None = None) -> Experiment:
    """The phase that `config` describes; start: the weights that the phase before it left."""
    learned, test = samples(data)
    made = network(data, learned)
    if start is not None:
        made.load_state_dict(load_state_dict(start))
    licence = "CC BY-NC 4.0, that of CamVid"
    return from_voc.experiment(config, made, learned, test, "camvid", licence, "CamVid train and val")


def main() -> None:
    does = "Train, score and export a network for CamVid."
    data, out = folders(does, "camvid", holds="camvid and weights")
    start: Path | None = None
    for name, config in (("first", CONFIG), ("second", LARGER)):
        phase = out / name
        if not (phase / "report.html").is_file():
            train(experiment(data, config, start), phase)
        start = phase / "weights.safetensors"
    train(experiment(data, LARGEST, start), out, export=True)


if __name__ == "__main__":
    main()

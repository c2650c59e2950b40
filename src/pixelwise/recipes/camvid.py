"""CamVid's 11 classes at 360x480, the SegNet split: FPN on MobileNetV2, from the data folder to the ONNX file.

    python -m pixelwise.recipes.camvid --data ../shared/data --out runs/camvid

CamVid is CC BY-NC 4.0: a yardstick beside published tables, not a model to ship. Trained on train and val together for
a number of steps that was fixed beforehand, scored once, on test, at the end: mean IoU 0.6517 (95 % over pictures 0.637
to 0.664), pixel accuracy 0.9103, single scale, 2,908,043 parameters (11.6 MB). 77 minutes on one of two AMD EPYC cores.
The loss was still falling after its 22 epochs.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

from pixelwise.datasets.opening import PairSamples, ignore_index, open_samples
from pixelwise.decoders.fpn import FPN
from pixelwise.encoders import create_encoder
from pixelwise.inference.preprocess import Preprocess
from pixelwise.labels import CAMVID
from pixelwise.recipes.renormalise import renormalise
from pixelwise.training.config import TrainConfig
from pixelwise.training.objective import make_loss
from pixelwise.training.run import Experiment, train
from pixelwise.transforms.augment import Augment
from pixelwise.weights.card import Card
from pixelwise.weights.convert.family import Plan

START = "weights/deeplabv3_mobilenet_v2_voc21_tf1qat.pth"
HALF = (0.5, 0.5, 0.5)
PREPROCESS = Preprocess(mean=HALF, std=HALF, size=448, multiple=32)  # enlarged: poles are a pixel or two wide
CONFIG = TrainConfig(
    model="fpn", encoder="mobilenetv2_100", model_options={"pyramid_channels": 128}, steps=1300, batch_size=8,
    optimizer="adamw", peak_lr=4e-4, head_lr_factor=3.0, weight_decay=1e-2, warmup_steps=50, ema_decay=0.99,
    losses={"cross_entropy": 1.0, "lovasz_softmax": 1.0}, precision="bfloat16", channels_last=True, image_size=448,
    augment={"crop_hw": (352, 448), "scale": (0.75, 1.5)},
)  # fmt: skip


def samples(data: Path) -> tuple[PairSamples, PairSamples]:
    """(train and val, test) of `data`/camvid."""
    parts = [open_samples(data / "camvid", "camvid", split) for split in ("train", "val", "test")]
    learned = PairSamples([*parts[0].pairs, *parts[1].pairs], CAMVID, "train and val")
    return learned, parts[2]


def network(start: Path, learned: PairSamples) -> FPN:
    """FPN whose encoder is that of the VOC network in the file `start`, its batch norms made fit for training."""
    torch.manual_seed(CONFIG.seed)
    assert CONFIG.encoder is not None
    encoder = create_encoder(CONFIG.encoder)
    released = torch.load(start, weights_only=True)
    tensors = [tensor for name, tensor in released.items() if name.startswith("backbone.")]
    # timm's names for the same layers in the same order; that each fits is checked
    encoder.load_state_dict(dict(zip(encoder.state_dict(), tensors, strict=True)))
    seen = [
        torch.from_numpy(PREPROCESS(learned[i].image)) for i in range(0, len(learned), len(learned) // 24)
    ]
    renormalise(encoder, torch.cat(seen))
    return FPN(encoder, CAMVID.num_classes, **CONFIG.model_options)


def experiment(data: Path) -> Experiment:
    learned, test = samples(data)
    made = network(data / START, learned)
    card = Card(
        name="camvid",
        architecture="fpn",
        labels=CAMVID,
        preprocess=PREPROCESS,
        stride=int(made.stride),
        align_corners=bool(made.align_corners),
        parameters=sum(parameter.numel() for parameter in made.parameters()),
        licence="CC BY-NC 4.0, that of CamVid; the encoder's start is Apache-2.0",
        origin=(
            "pixelwise, recipes/camvid.py: FPN on MobileNetV2, whose encoder starts from Google's 8-bit release of "
            "DeepLabV3-MobileNetV2 for Pascal VOC (Apache-2.0), trained on CamVid train and val"
        ),
    )
    ignored = ignore_index(CAMVID)
    augment = Augment(
        **CONFIG.augment, shorter_side=CONFIG.image_size, mean=HALF, std=HALF, ignore_index=ignored
    )
    arguments = {**CONFIG.model_options, "encoder": CONFIG.encoder, "num_classes": CAMVID.num_classes}
    return Experiment(
        CONFIG, Plan("fpn", arguments), made, learned, test, augment, make_loss(CONFIG, ignored), card
    )


def main() -> None:
    parser = argparse.ArgumentParser(description="Train, score and export a network for CamVid.")
    parser.add_argument("--data", type=Path, required=True, help="folder that holds camvid and weights")
    parser.add_argument("--out", type=Path, default=Path("runs/camvid"), help="checkpoints, model and report")
    arguments = parser.parse_args()
    train(experiment(arguments.data), arguments.out, export=True)


if __name__ == "__main__":
    main()

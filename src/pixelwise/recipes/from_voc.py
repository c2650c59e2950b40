"""What `recipes.camvid` and `recipes.coco128` share: FPN on the MobileNetV2 of Google's VOC network, as a run."""

from __future__ import annotations

from pathlib import Path

import torch

from pixelwise.datasets.opening import PairSamples, ignore_index
from pixelwise.decoders.fpn import FPN
from pixelwise.encoders import create_encoder
from pixelwise.inference.preprocess import Preprocess
from pixelwise.recipes.renormalise import renormalise
from pixelwise.training.config import TrainConfig
from pixelwise.training.experiment import Experiment
from pixelwise.training.objective import make_loss
from pixelwise.transforms.augment import Augment
from pixelwise.weights.card import Card
from pixelwise.weights.origin import note_origin

START = "weights/deeplabv3_mobilenet_v2_voc21_tf1qat.pth"
HALF = (0.5, 0.5, 0.5)


def preprocess(config: TrainConfig) -> Preprocess:
    """Pictures enlarged or shrunk to a shorter side of image_size, and to whole multiples of 32."""
    return Preprocess(mean=HALF, std=HALF, size=config.image_size, multiple=32)


def network(config: TrainConfig, start: Path, learned: PairSamples) -> FPN:
    """FPN whose encoder is that of the VOC network in the file `start`, its batch norms made fit for training."""
    assert config.encoder is not None
    assert learned.classes is not None
    torch.manual_seed(config.seed)
    encoder = create_encoder(config.encoder)
    released = torch.load(start, weights_only=True)
    tensors = [tensor for name, tensor in released.items() if name.startswith("backbone.")]
    # timm's names for the same layers in the same order; that each fits is checked
    encoder.load_state_dict(dict(zip(encoder.state_dict(), tensors, strict=True)))
    prepare = preprocess(config)
    seen = [torch.from_numpy(prepare(learned[i].image)) for i in range(0, len(learned), len(learned) // 24)]
    size = [min(image.shape[axis] for image in seen) for axis in (2, 3)]
    renormalise(encoder, torch.cat([image[..., : size[0], : size[1]] for image in seen]))
    classes = learned.classes.num_classes
    made = FPN(encoder, classes, **config.model_options)
    note_origin(made, "fpn", {**config.model_options, "encoder": config.encoder, "num_classes": classes})
    return made


def experiment(
    config: TrainConfig,
    made: FPN,
    learned: PairSamples,
    held_out: PairSamples,
    name: str,
    licence: str,
    origin: str,
) -> Experiment:
    """The run that `config` describes, with a card that says where the network comes from."""
    assert learned.classes is not None
    classes = learned.classes
    card = Card(
        name=name,
        architecture="fpn",
        labels=classes,
        preprocess=preprocess(config),
        stride=int(made.stride),
        align_corners=bool(made.align_corners),
        parameters=sum(parameter.numel() for parameter in made.parameters()),
        licence=f"{licence}; the encoder's start is Apache-2.0",
        origin=(
            f"pixelwise, recipes/{name}.py: FPN on MobileNetV2, whose encoder starts from Google's 8-bit release of "
            f"DeepLabV3-MobileNetV2 for Pascal VOC (Apache-2.0), trained on {origin}"
        ),
    )
    ignored = ignore_index(classes)
    augment = Augment(
        **config.augment, shorter_side=config.image_size, mean=HALF, std=HALF, ignore_index=ignored
    )
    return Experiment(config, made, learned, held_out, augment, make_loss(config, ignored), card)

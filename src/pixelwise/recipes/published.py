"""Recipes: what a paper or its code trained with, as a TrainConfig. `pixelwise train --recipe NAME --data FOLDER`.

Each is a function without arguments, named after data set and network; the docstring names the source and says what
is different here. A step is that of the source on one device: where the source spreads a batch over several, its
share is `batch_size` and the rest is `accumulate`; `accelerate launch` on so many devices wants --accumulate 1. The
results that we measured stand in docs/results.md; none of these functions promises the source's score.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from pixelwise.errors import UnknownNameError
from pixelwise.inference.volume_preprocess import Normalise, VolumePreprocess
from pixelwise.training.config import TrainConfig

PLAIN: dict[str, Any] = {"colour": 0.0, "largest_share": 1.0}
"""Augmentation without changes of colour and without a cap on what a crop may show of one class."""

SEGFORMERS = ("b0", "b1", "b2", "b3", "b4", "b5")


def camvid_lraspp() -> TrainConfig:
    """LR-ASPP on MobileNetV3-Large, 3.2 million parameters, at CamVid's 360x480.

    Source: the network is that of Searching for MobileNetV3 (1905.02244), which has no CamVid; the recipe is ours.
    ImageNet weights are fetched; the data are SegNet's CamVid, whose pictures are shown whole when validating.
    """
    return TrainConfig(
        epochs=200, batch_size=8, model="lraspp_mobilenet_v3_large", weights="imagenet", format="camvid",
        image_size=0, augment={"crop_hw": [360, 480]}, losses={"cross_entropy": 1.0, "dice": 1.0},
        optimizer="adamw", peak_lr=1e-3, weight_decay=1e-2, head_lr_factor=2.0, warmup_steps=200, clip_norm=1.0,
        ema_decay=0.998, channels_last=True, validate_every=None,
    )  # fmt: skip


def coco_torchvision(model: str) -> TrainConfig:
    """torchvision's reference recipe, for each of its six networks: COCO with VOC's classes, 30 epochs.

    Source: torchvision's references/segmentation, and the arguments that its README gives for each network: 8 GPUs of
    4 pictures, SGD, poly 0.9, the auxiliary head at half the loss and ten times the rate; norms and biases decay too.
    Different: pictures smaller than the crop are continued in the mean colour, not in black, and in any place; an
    epoch's remainder runs into the next one instead of being dropped; on one device batch norms see 4 pictures, not 32.
    """
    mobile = "mobilenet" in model
    options = {} if model.startswith("lraspp") else {"aux_loss": True}
    return TrainConfig(
        epochs=30, batch_size=4, accumulate=8, model=model, model_options=options, weights="imagenet",
        format="coco", image_size=520, augment={"crop_hw": [480, 480], **PLAIN}, losses={"cross_entropy": 1.0},
        aux_weight=0.5, optimizer="sgd", peak_lr=0.01 if mobile else 0.02, momentum=0.9,
        weight_decay=1e-6 if mobile else 1e-4, decay_norms=True, aux_lr_factor=10.0, schedule="poly",
        poly_power=0.9, validate_every=None,
    )  # fmt: skip


def ade20k_segformer(size: str) -> TrainConfig:
    """SegFormer on ADE20K: 160,000 steps of 16 crops of 512x512, for B5 of 640x640.

    Source: SegFormer (2105.15203) and the configurations of its release: AdamW, the head at ten times the rate, warm-up
    as a factor over a linear fall, 8 GPUs of 2 pictures. Give the ImageNet weights with --weights mit_b0.pth; there is
    no place to fetch them from. Different: no bias decays and no norm, where the release spares what is called a norm
    in its names; pictures are validated at a shorter side of 512 that is not made a multiple of 32.
    """
    return _segformer(size, "ade20k", side=640 if size == "b5" else 512, batch_size=2)


def cityscapes_segformer(size: str) -> TrainConfig:
    """SegFormer on Cityscapes: 160,000 steps of 8 crops of 1024x1024.

    Source and differences: as on ADE20K (see ade20k_segformer); pictures are validated whole, where the release slides
    a window of 1024 over them.
    """
    return _segformer(size, "cityscapes", side=1024, batch_size=1)


def _segformer(size: str, data: str, side: int, batch_size: int) -> TrainConfig:
    return TrainConfig(
        steps=160_000, batch_size=batch_size, accumulate=8, model=f"segformer_{size}", format=data, image_size=side,
        augment={"scale": [0.5, 2.0], "largest_share": 0.75, "colour": 0.5}, losses={"cross_entropy": 1.0},
        optimizer="adamw", peak_lr=6e-5, weight_decay=0.01, head_lr_factor=10.0, schedule="poly", poly_power=1.0,
        warmup_steps=1500, warmup_ratio=1e-6, validate_every=16_000,
    )  # fmt: skip


def voc_deeplabv2_resnet101() -> TrainConfig:
    """DeepLab v2 on ResNet-101 with ASPP at three scales: 20,000 steps of 10 crops of 321.

    Source: DeepLab (1606.00915, section 4.1), and the prototxt of its release: batch 1, iter_size 10, a loss for
    each scale and for their maximum, frozen batch norms. It began with weights of COCO, which are not to be fetched:
    name a file in model_options, {"weights": "FILE"}. Different: scales are drawn evenly from 0.5 to 1.5, not from five
    values; biases of the classifier learn at 10, not 20 times the rate; input as ImageNet's mean and deviation have it.
    """
    return TrainConfig(
        steps=20_000, batch_size=1, accumulate=10, model="deeplabv2_resnet101", format="voc", image_size=0,
        augment={"crop_hw": [321, 321], "scale": [0.5, 1.5], **PLAIN}, losses={"cross_entropy": 1.0}, aux_weight=1.0,
        optimizer="sgd", peak_lr=2.5e-4, momentum=0.9, weight_decay=5e-4, head_lr_factor=10.0, schedule="poly",
        poly_power=0.9, validate_every=2000,
    )  # fmt: skip


def voc_deeplabv3_resnet101() -> TrainConfig:
    """DeepLab v3 on ResNet-101, first phase: 30,000 steps of 16 crops of 513 at output stride 16.

    Source: Rethinking Atrous Convolution (1706.05587, section 4.1). The second phase is 30,000 steps more on `trainval`
    with frozen_batch_norm, peak_lr 1e-3 and output_stride 8, from the weights of the first. Different: ImageNet weights
    are torchvision's; batch norms average with torch's 0.1, not 0.0003; what lies outside a picture is its mean colour
    with no label. The paper adds SBD's pictures to VOC's: name their list train, or the score will be lower.
    """
    return _deeplab("deeplabv3_resnet101_paper", weights="imagenet", weight_decay=1e-4)


def voc_deeplabv3plus_xception65() -> TrainConfig:
    """DeepLab v3+ on Xception-65: 30,000 steps of 16 crops of 513 at output stride 16.

    Source: DeepLab v3+ (1802.02611) and its release (tensorflow/models, research/deeplab). Different: as for
    voc_deeplabv3_resnet101, but for the weights: there are none to fetch, and none are asked for.
    """
    return _deeplab("deeplabv3plus_xception65", weights=None, weight_decay=4e-5)


def _deeplab(model: str, weights: str | None, weight_decay: float) -> TrainConfig:
    return TrainConfig(
        steps=30_000, batch_size=16, model=model, model_options={"output_stride": 16}, weights=weights, format="voc",
        image_size=0, augment={"crop_hw": [513, 513], "scale": [0.5, 2.0], **PLAIN}, losses={"cross_entropy": 1.0},
        optimizer="sgd", peak_lr=7e-3, momentum=0.9, weight_decay=weight_decay, schedule="poly", poly_power=0.9,
        validate_every=3000,
    )  # fmt: skip


def isbi_unet() -> TrainConfig:
    """The paper's U-Net on a folder of membranes (0) and cells (1), one large tile a step.

    Source: U-Net (1505.04597, section 3): SGD with momentum 0.99, elastic bending by 10 pixels on a 3x3 grid, turning,
    shifts, changes of grey, and a loss that weighs the ground between cells. The paper gives neither the learning rate
    nor the number of steps: those are ours. Different: the border around a tile (388 pixels, 572 with it) is its mirror
    image in training too; classes are not balanced; the picture is shown as three equal channels.
    """
    return TrainConfig(
        steps=20_000, batch_size=1, model="unet_valid", image_size=0,
        augment={
            "crop_hw": [388, 388], "scale": [1.0, 1.0], "flip": 0.0, "elastic_px": 10.0, "turn": 180.0,
            "largest_share": 1.0,
        },
        losses={"unet_cross_entropy": 1.0}, loss_options={"unet_cross_entropy": {"w0": 10.0, "sigma": 5.0}},
        optimizer="sgd", peak_lr=1e-4, momentum=0.99, weight_decay=0.0, schedule="constant", validate_every=1000,
    )  # fmt: skip


def brats_nonewnet_softmax() -> TrainConfig:
    """No New-Net on BraTS's four kinds of MRI: 125,000 steps of 2 patches of 128x128x128.

    Source: No New-Net (1809.10483): 30 filters, Dice and cross-entropy, Adam at 1e-4, 500 epochs of 250 batches; scans
    of 1 mm, each channel z-scored within the brain, patches anywhere. Give a folder of imagesTr and labelsTr whose
    classes are nothing and three tissues. Different: the tissues exclude each other, which is the paper's baseline; its
    final model learns three regions that overlap, and from further scans. The rate falls as a power of the step, where
    the source cuts it to a fifth whenever the loss stands still; weight decay is AdamW's; the chances of augmentation
    are nnU-Net's with bending added, as the paper gives none.
    """
    return TrainConfig(
        steps=125_000, batch_size=2, model="nonewnet_softmax", format="volumes",
        volume=VolumePreprocess(
            (Normalise("zscore", nonzero=True),) * 4, spacing=(1.0, 1.0, 1.0), patch=(128, 128, 128)
        ),
        augment={"foreground": 0.0, "elastic": 0.2}, losses={"dice": 1.0, "cross_entropy": 1.0},
        loss_options={"dice": {"classes": [1, 2, 3]}}, optimizer="adamw", peak_lr=1e-4, weight_decay=1e-5,
        schedule="poly", poly_power=0.9, validate_every=2500,
    )  # fmt: skip


RECIPES: dict[str, Callable[[], TrainConfig]] = {
    "camvid_lraspp": camvid_lraspp,
    "coco_fcn_resnet50": partial(coco_torchvision, "fcn_resnet50"),
    "coco_fcn_resnet101": partial(coco_torchvision, "fcn_resnet101"),
    "coco_deeplabv3_resnet50": partial(coco_torchvision, "deeplabv3_resnet50"),
    "coco_deeplabv3_resnet101": partial(coco_torchvision, "deeplabv3_resnet101"),
    "coco_deeplabv3_mobilenet_v3_large": partial(coco_torchvision, "deeplabv3_mobilenet_v3_large"),
    "coco_lraspp_mobilenet_v3_large": partial(coco_torchvision, "lraspp_mobilenet_v3_large"),
    **{f"ade20k_segformer_{size}": partial(ade20k_segformer, size) for size in SEGFORMERS},
    **{f"cityscapes_segformer_{size}": partial(cityscapes_segformer, size) for size in SEGFORMERS},
    "voc_deeplabv2_resnet101": voc_deeplabv2_resnet101,
    "voc_deeplabv3_resnet101": voc_deeplabv3_resnet101,
    "voc_deeplabv3plus_xception65": voc_deeplabv3plus_xception65,
    "isbi_unet": isbi_unet,
    "brats_nonewnet_softmax": brats_nonewnet_softmax,
}  # fmt: skip
"""Every recipe by its name."""


def recipe(name: str) -> TrainConfig:
    """The configuration of a recipe, but for the data; UnknownNameError, with the nearest name, for no recipe."""
    if name not in RECIPES:
        raise UnknownNameError("recipe", name, RECIPES)
    return RECIPES[name]()


def listing() -> str:
    """One line a recipe: its name and what it is."""
    width = max(map(len, RECIPES))
    says = {
        name: (getattr(make, "func", make).__doc__ or "").splitlines()[0] for name, make in RECIPES.items()
    }
    return "\n".join(f"{name:{width}}  {line}" for name, line in says.items())

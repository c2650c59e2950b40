"""A training script as torchvision's reference shows it, written again: with their namespace and with ours it prints
the same digits."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torchvision.models
from PIL import Image, ImageDraw
from torch import Tensor, nn
from torch.utils.data import DataLoader
from torchvision.datasets import VOCSegmentation
from torchvision.transforms import InterpolationMode, RandomCrop
from torchvision.transforms import functional as F

import pixelwise.models
from pixelwise.labels import VOC

SHORTER, CROP = 64, 48


def draw_voc(root: Path, train: int, val: int) -> Path:
    """A VOCdevkit of discs and boxes in the palette's colours, with an outline of 255 to ignore; its root."""
    draw = random.Random(0)
    folder = root / "VOCdevkit" / "VOC2012"
    for part in ("JPEGImages", "SegmentationClass", "ImageSets/Segmentation"):
        (folder / part).mkdir(parents=True)
    names = [f"2012_{i:06}" for i in range(train + val)]
    for name in names:
        mask = Image.new("P", (draw.randint(70, 110), draw.randint(60, 90)))
        mask.putpalette([level for color in VOC.colors for level in color])
        image, pen = Image.new("RGB", mask.size, (90, 110, 70)), ImageDraw.Draw(mask)
        for _ in range(3):
            label, x, y, side = (
                draw.randint(1, 20),
                draw.randint(0, 60),
                draw.randint(0, 50),
                draw.randint(15, 40),
            )
            box = (x, y, x + side, y + side)
            for canvas, fill, outline in (
                (pen, label, 255),
                (ImageDraw.Draw(image), VOC.colors[label], None),
            ):
                canvas.ellipse(box, fill=fill, outline=outline)
        image.save(folder / "JPEGImages" / f"{name}.jpg")
        mask.save(folder / "SegmentationClass" / f"{name}.png")
    for part, listed in (("train", names[:train]), ("val", names[train:])):
        (folder / "ImageSets/Segmentation" / f"{part}.txt").write_text("\n".join(listed))
    return root


def for_training(image: Image.Image, target: Image.Image) -> tuple[Tensor, Tensor]:
    """Half to twice the size, mirrored or not, a crop; what is missing is 0 in the picture, ignored in the target."""
    shorter = random.randint(SHORTER // 2, SHORTER * 2)
    image, target = F.resize(image, [shorter]), F.resize(target, [shorter], InterpolationMode.NEAREST)
    if random.random() < 0.5:
        image, target = F.hflip(image), F.hflip(target)
    right, below = (max(CROP - side, 0) for side in image.size)
    image, target = F.pad(image, [0, 0, right, below]), F.pad(target, [0, 0, right, below], fill=255)
    place = RandomCrop.get_params(image, (CROP, CROP))
    return as_tensors(F.crop(image, *place), F.crop(target, *place))


def for_scoring(image: Image.Image, target: Image.Image) -> tuple[Tensor, Tensor]:
    return as_tensors(F.resize(image, [SHORTER]), F.resize(target, [SHORTER], InterpolationMode.NEAREST))


def as_tensors(image: Image.Image, target: Image.Image) -> tuple[Tensor, Tensor]:
    pixels = F.convert_image_dtype(F.pil_to_tensor(image), torch.float32)
    normalised = F.normalize(pixels, [0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
    return normalised, torch.as_tensor(np.array(target), dtype=torch.int64)


def criterion(outputs: dict[str, Tensor], target: Tensor) -> Tensor:
    losses = {
        name: nn.functional.cross_entropy(logits, target, ignore_index=255)
        for name, logits in outputs.items()
    }
    return losses["out"] if len(losses) == 1 else losses["out"] + 0.5 * losses["aux"]


def train(
    segmentation: Any, name: str, root: Path, out: Path, *, aux_loss: bool, lr: float = 0.01
) -> list[str]:
    """One epoch and its scores: what the script prints."""
    random.seed(0)
    torch.manual_seed(0)
    printed = []
    data = VOCSegmentation(str(root), "2012", "train", transforms=for_training)
    loader = DataLoader(data, batch_size=2, shuffle=True, drop_last=True)
    model = segmentation.__dict__[name](
        weights=None, weights_backbone=None, num_classes=21, aux_loss=aux_loss
    )
    groups = [
        {"params": [p for p in model.backbone.parameters() if p.requires_grad]},
        {"params": [p for p in model.classifier.parameters() if p.requires_grad]},
    ]
    if aux_loss:
        heads = [p for p in model.aux_classifier.parameters() if p.requires_grad]
        groups.append({"params": heads, "lr": lr * 10})
    optimizer = torch.optim.SGD(groups, lr=lr, momentum=0.9, weight_decay=1e-4)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: (1 - step / len(loader)) ** 0.9)
    model.train()
    for image, target in loader:
        loss = criterion(model(image), target)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        printed.append(f"lr: {optimizer.param_groups[0]['lr']:.6f}  loss: {loss.item():.4f}")
    torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict()}, out)

    model.eval()
    confusion = torch.zeros(21, 21, dtype=torch.int64)
    with torch.inference_mode():
        for image, target in VOCSegmentation(str(root), "2012", "val", transforms=for_scoring):
            answer = model(image[None])["out"].argmax(1)[0]
            counted = target < 21
            pairs = 21 * target[counted] + answer[counted]
            confusion += torch.bincount(pairs, minlength=21 * 21).reshape(21, 21)
    counts = confusion.double()
    right = counts.diag()
    recall, iou = right / counts.sum(1), right / (counts.sum(1) + counts.sum(0) - right)
    printed.append(f"global correct: {100 * float(right.sum() / counts.sum()):.1f}")
    printed.append(f"average row correct: {[f'{100 * value:.1f}' for value in recall.tolist()]}")
    printed.append(f"IoU: {[f'{100 * value:.1f}' for value in iou.tolist()]}")
    printed.append(f"mean IoU: {100 * float(iou.nanmean()):.1f}")
    return printed


@pytest.mark.parametrize(
    ("name", "aux_loss", "pictures"),
    [
        ("lraspp_mobilenet_v3_large", False, 8),
        pytest.param("deeplabv3_mobilenet_v3_large", True, 16, marks=pytest.mark.slow),
        pytest.param("fcn_resnet50", True, 8, marks=pytest.mark.slow),
        pytest.param("deeplabv3_resnet50", False, 8, marks=pytest.mark.slow),
    ],
)
def test_one_epoch_prints_the_same_digits_as_with_torchvision(
    name: str, aux_loss: bool, pictures: int, tmp_path: Path
):
    root = draw_voc(tmp_path, pictures, 3)
    theirs, ours = tmp_path / "theirs.pth", tmp_path / "ours.pth"
    expected = train(torchvision.models.segmentation, name, root, theirs, aux_loss=aux_loss)
    printed = train(pixelwise.models.segmentation, name, root, ours, aux_loss=aux_loss)
    assert printed == expected
    assert len(set(printed[: pictures // 2])) == pictures // 2  # something was learned between steps
    # A run that stopped with torchvision goes on here: their checkpoint, model and optimizer.
    stopped = torch.load(theirs, weights_only=True)
    model = pixelwise.models.segmentation.__dict__[name](
        weights=None, weights_backbone=None, num_classes=21, aux_loss=aux_loss
    )
    model.load_state_dict(stopped["model"])
    for key, value in torch.load(ours, weights_only=True)["model"].items():
        torch.testing.assert_close(value, stopped["model"][key], rtol=1e-3, atol=1e-5)

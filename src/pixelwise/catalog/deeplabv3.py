"""DeepLab v3 in torchvision's form, with its weights."""

from __future__ import annotations

from pixelwise.catalog.entry import Entry, by_name, torchvision

ROWS: dict[str, Entry] = by_name(
    torchvision("segmentation.deeplabv3:deeplabv3_resnet50", file="deeplabv3_resnet50_coco-cd0a2569.pth", mib=160.515,
                parameters=42_004_074, multiply_adds=178_721_945_088, stride=8, miou=66.4, pixel_accuracy=92.4),
    torchvision("segmentation.deeplabv3:deeplabv3_resnet101", file="deeplabv3_resnet101_coco-586e9e4e.pth", mib=233.217,
                parameters=60_996_202, multiply_adds=258_743_039_488, stride=8, miou=67.4, pixel_accuracy=92.4),
    torchvision("segmentation.deeplabv3:deeplabv3_mobilenet_v3_large",
                file="deeplabv3_mobilenet_v3_large-fc3c493d.pth", mib=42.301,
                parameters=11_029_328, multiply_adds=10_452_447_938, stride=16, miou=60.3, pixel_accuracy=91.2),
)  # fmt: skip

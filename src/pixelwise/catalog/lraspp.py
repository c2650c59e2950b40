"""LR-ASPP on MobileNetV3: torchvision's weights."""

from __future__ import annotations

from pixelwise.catalog.entry import Entry, by_name, torchvision

ROWS: dict[str, Entry] = by_name(
    torchvision("segmentation.lraspp:lraspp_mobilenet_v3_large",
                file="lraspp_mobilenet_v3_large-d234d4ea.pth", mib=12.490,
                parameters=3_221_538, multiply_adds=2_086_219_688, stride=8, miou=57.9, pixel_accuracy=91.2),
)  # fmt: skip

"""FCN on a dilated ResNet: torchvision's weights."""

from __future__ import annotations

from pixelwise.catalog.entry import Entry, by_name, torchvision

ROWS: dict[str, Entry] = by_name(
    torchvision("segmentation.fcn:fcn_resnet50", file="fcn_resnet50_coco-1167a1af.pth", mib=135.009,
                parameters=35_322_218, multiply_adds=152_716_512_000, stride=8, miou=60.5, pixel_accuracy=91.4),
    torchvision("segmentation.fcn:fcn_resnet101", file="fcn_resnet101_coco-7ecb50ca.pth", mib=207.711,
                parameters=54_314_346, multiply_adds=232_737_606_400, stride=8, miou=63.7, pixel_accuracy=91.9),
)  # fmt: skip

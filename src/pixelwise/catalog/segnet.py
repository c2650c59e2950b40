"""SegNet, trained on CamVid."""

from __future__ import annotations

from pixelwise.catalog.entry import Entry, by_name, row
from pixelwise.inference.preprocess import Preprocess
from pixelwise.labels import LabelSet
from pixelwise.weights.card import Score

_CAMVID = LabelSet.of(
    ["sky", "building", "pole", "road", "pavement", "tree", "sign", "fence", "car", "pedestrian", "bicyclist"],
    colors=(
        (128, 128, 128), (128, 0, 0), (192, 192, 128), (128, 64, 128), (60, 40, 222), (128, 128, 0),
        (192, 128, 128), (64, 64, 128), (64, 0, 128), (64, 64, 0), (0, 128, 192),
    ),
    ignore_id=11,
)  # fmt: skip

_TEST = "CamVid test, 360x480"

ROWS: dict[str, Entry] = by_name(
    row("segnet:segnet", labels=_CAMVID,
        preprocess=Preprocess(mean=(0.0, 0.0, 0.0), std=(1 / 255, 1 / 255, 1 / 255)), stride=1,
        parameters=29_449_355, multiply_adds=106_712_432_640, multiply_adds_hw=(360, 480),
        licence="CC-BY-NC-4.0", origin="alexgkendall/SegNet-Tutorial, trained on CamVid",
        scores=(Score("mean IoU", 0.601, _TEST, "140,000 iterations, 3,500 pictures", "PAMI, table 3"),
                Score("mean IoU", 0.464, _TEST, "CamVid alone", "1611.09326 (Tiramisu), table 3")),
        notes=("Official files: segnet_pascal, segnet_sun, segnet_sun_low_resolution, segnet_weights_driving_webdemo, "
               "segnet_iter_30000_timo (.caffemodel). Those of SegNet-Basic are another network.",
               "Input in the official files: 0 to 255, no mean subtracted. They are B, G, R; converted, R, G, B.",
               "29,455,125 parameters with 21 classes.")),
)  # fmt: skip

"""DeepLab v3 as in the paper (1706.05587), and VainF's."""

from __future__ import annotations

from pixelwise.catalog.entry import Entry, by_name, deeplab, vainf
from pixelwise.inference.preprocess import Preprocess

ROWS: dict[str, Entry] = by_name(
    deeplab("deeplabv3_paper:deeplabv3_resnet50_paper", preprocess=Preprocess(), stride=16, parameters=39_048_533,
            multiply_adds=50_435_832_256, origin="1706.05587"),
    deeplab("deeplabv3_paper:deeplabv3_resnet101_paper", preprocess=Preprocess(), stride=16, parameters=58_040_661,
            multiply_adds=71_061_387_712, origin="1706.05587",
            notes=("Of the paper, as recalled: VOC 2012 val 77.21 at output stride 16, 78.51 at 8; no such file is "
                   "published.",)),
    vainf("deeplabv3_paper:deeplabv3_resnet50_vainf", stride=16, parameters=39_638_869, multiply_adds=51_078_150_592,
          miou=76.9, files="Official file: best_deeplabv3_resnet50_voc_os16.pth."),
    vainf("deeplabv3_paper:deeplabv3_resnet101_vainf", stride=16, parameters=58_630_997, multiply_adds=71_703_706_048,
          miou=77.3, files="Official file: best_deeplabv3_resnet101_voc_os16.pth."),
    vainf("deeplabv3_paper:deeplabv3_mobilenet_v2_vainf", stride=16, parameters=5_113_877, multiply_adds=5_844_337_664,
          miou=70.1, files="Official file: best_deeplabv3_mobilenet_voc_os16.pth."),
)  # fmt: skip

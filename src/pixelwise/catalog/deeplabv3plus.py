"""DeepLab v3+ (1802.02611): TensorFlow's release, VainF's and jfzhang95's."""

from __future__ import annotations

from pixelwise.catalog.entry import Entry, by_name, deeplab, mean_iou, vainf
from pixelwise.inference.preprocess import Preprocess

_TENSORFLOW = Preprocess(mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
_RELEASE, _RELEASE_LICENCE = "tensorflow/models research/deeplab", "Apache-2.0"
_VAL, _TEST, _ZOO = "Pascal VOC 2012 val", "Pascal VOC 2012 test", "TensorFlow's model zoo"

ROWS: dict[str, Entry] = by_name(
    deeplab("deeplabv3plus:deeplabv3plus_xception41", preprocess=_TENSORFLOW, stride=4, parameters=28_108_661,
            multiply_adds=40_012_398_128, origin=_RELEASE, licence=_RELEASE_LICENCE,
            notes=("Encoder: xception_41_2018_05_09.tar.gz (ImageNet only).",)),
    deeplab("deeplabv3plus:deeplabv3plus_xception65", preprocess=_TENSORFLOW, stride=4, parameters=41_055_413,
            multiply_adds=54_035_303_024, origin=_RELEASE, licence=_RELEASE_LICENCE,
            scores=(mean_iou(82.20, _VAL, "output stride 16, single scale", _ZOO),
                    mean_iou(83.58, _VAL, "output stride 8, 6 scales and flip", _ZOO),
                    mean_iou(87.80, _TEST, "trained on trainval, output stride 8, 6 scales and flip", _ZOO)),
            notes=("Official files: model.ckpt of deeplabv3_pascal_train_aug_2018_01_04, "
                   "deeplabv3_pascal_trainval_2018_01_04, deeplabv3_cityscapes_train_2018_02_06, "
                   "deeplabv3_xception_ade20k_train_2018_05_29 (.tar.gz).",
                   "Pictures are padded to the crop size (VOC 513x513) with mid-grey, and the image pooling sees the "
                   "padding.")),
    deeplab("deeplabv3plus:deeplabv3plus_xception71", preprocess=_TENSORFLOW, stride=4, parameters=43_477_837,
            multiply_adds=66_068_012_856, origin=_RELEASE, licence=_RELEASE_LICENCE,
            notes=("Encoder: xception_71_2018_05_09.tar.gz (ImageNet only).",)),
    deeplab("deeplabv3plus:deeplabv3plus_resnet50", preprocess=Preprocess(), stride=4, parameters=40_352_181,
            multiply_adds=72_194_808_256, origin="1802.02611"),
    deeplab("deeplabv3plus:deeplabv3plus_resnet101", preprocess=Preprocess(), stride=4, parameters=59_344_309,
            multiply_adds=92_820_363_712, origin="1802.02611"),
    deeplab("deeplabv3plus:deeplabv3plus_mobilenet_v2", preprocess=_TENSORFLOW, stride=4, parameters=2_719_813,
            multiply_adds=5_804_159_152, origin="1802.02611"),
    vainf("deeplabv3plus:deeplabv3plus_resnet50_vainf", stride=4, parameters=39_761_845, multiply_adds=62_379_547_072,
          miou=77.2, files="Official file: best_deeplabv3plus_resnet50_voc_os16.pth."),
    vainf("deeplabv3plus:deeplabv3plus_resnet101_vainf", stride=4, parameters=58_753_973, multiply_adds=83_005_102_528,
          miou=78.3, files="Official file: best_deeplabv3plus_resnet101_voc_os16.pth; Cityscapes: "
                           "best_deeplabv3plus_resnet101_cityscapes_os16.pth, 76.2."),
    vainf("deeplabv3plus:deeplabv3plus_mobilenet_v2_vainf", stride=4, parameters=5_225_717,
          multiply_adds=16_817_423_360,
          miou=71.1, files="Official file: best_deeplabv3plus_mobilenet_voc_os16.pth; Cityscapes: "
                           "best_deeplabv3plus_mobilenet_cityscapes_os16.pth, 72.1."),
    deeplab("deeplabv3plus:deeplabv3plus_resnet101_jfzhang95", preprocess=Preprocess(), stride=4,
            parameters=59_344_309, multiply_adds=92_820_363_712,
            origin="jfzhang95/pytorch-deeplab-xception, trained on VOC 2012 trainaug", licence="MIT",
            scores=(mean_iou(78.43, _VAL, "output stride 16, scaled and cropped to 513", "jfzhang95's readme"),),
            notes=("Official file: deeplab-resnet.pth.tar.",)),
)  # fmt: skip

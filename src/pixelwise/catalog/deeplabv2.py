"""DeepLab v2 (1606.00915) on VGG16 and ResNet-101, as released for Caffe."""

from __future__ import annotations

from pixelwise.catalog.entry import CAFFE, LARGEFOV, Entry, by_name, deeplab, mean_iou

_ORIGIN = "1606.00915, Caffe release"
_ASPP = "Official files: train_iter_20000.caffemodel, train2_iter_20000.caffemodel."

ROWS: dict[str, Entry] = by_name(
    deeplab("deeplabv2:deeplabv2_vgg16_largefov", preprocess=CAFFE, stride=8, parameters=20_505_429,
            multiply_adds=128_584_633_024, origin=_ORIGIN, notes=(LARGEFOV,)),
    deeplab("deeplabv2:deeplabv2_vgg16_aspp_s", preprocess=CAFFE, stride=8, parameters=37_877_652,
            multiply_adds=201_956_050_624, origin=_ORIGIN, notes=(_ASPP,)),
    deeplab("deeplabv2:deeplabv2_vgg16_aspp_l", preprocess=CAFFE, stride=8, parameters=37_877_652,
            multiply_adds=201_956_050_624, origin=_ORIGIN, notes=(_ASPP,)),
    deeplab("deeplabv2:deeplabv2_resnet101", preprocess=CAFFE, stride=8, parameters=44_048_532,
            multiply_adds=344_881_950_272, origin=_ORIGIN,
            scores=(mean_iou(77.69, "Pascal VOC 2012 val", "3 scales, with CRF", "1606.00915"),
                    mean_iou(79.7, "Pascal VOC 2012 test", "3 scales, with CRF", "1606.00915")),
            notes=("At a single scale 188,885,763,264 multiply-adds.",
                   "Official files: init.caffemodel (COCO), train_iter_20000.caffemodel (trainaug; isht7 measures "
                   "75.54 without CRF), train2_iter_20000.caffemodel (trainval).",
                   "kazuto1011: deeplabv2_resnet101_msc-vocaug.pth is train2_iter_20000, which has seen val; "
                   "-vocaug-20000 (76.65 without CRF, 77.93 with), -cocostuff10k-20000 and -cocostuff164k-100000 are "
                   "his own.")),
)  # fmt: skip

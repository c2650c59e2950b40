"""DeepLab v1 (1412.7062) on VGG16, as released for Caffe."""

from __future__ import annotations

from pixelwise.catalog.entry import CAFFE, LARGEFOV, Entry, by_name, deeplab, mean_iou
from pixelwise.weights.card import Score

_ORIGIN = "1412.7062, Caffe release"


def _scores(val: float, val_crf: float, test_crf: float) -> tuple[Score, ...]:
    """Mean IoU in percent: of val without and with CRF, of test with CRF."""
    source = "1412.7062, table 1"
    return (
        mean_iou(val, "Pascal VOC 2012 val", "without CRF", source),
        mean_iou(val_crf, "Pascal VOC 2012 val", "with CRF", source),
        mean_iou(test_crf, "Pascal VOC 2012 test", "with CRF", source),
    )


ROWS: dict[str, Entry] = by_name(
    deeplab("deeplabv1:deeplabv1_vgg16_largefov", preprocess=CAFFE, stride=8, parameters=20_505_429,
            multiply_adds=128_584_633_024, origin=_ORIGIN,
            scores=_scores(val=62.25, val_crf=67.64, test_crf=70.3), notes=(LARGEFOV,)),
    deeplab("deeplabv1:deeplabv1_vgg16_7x7", preprocess=CAFFE, stride=8, parameters=134_346_581,
            multiply_adds=609_537_541_824, origin=_ORIGIN,
            scores=_scores(val=64.38, val_crf=67.64, test_crf=70.3)),
    deeplab("deeplabv1:deeplabv1_vgg16_4x4", preprocess=CAFFE, stride=8, parameters=65_140_565,
            multiply_adds=317_142_124_224, origin=_ORIGIN,
            scores=_scores(val=59.80, val_crf=63.74, test_crf=66.4),
            notes=("Official files: init.caffemodel (vgg16_128, without fc8), train_iter_*.caffemodel. "
                   "Scores are of rate 4.",)),
)  # fmt: skip

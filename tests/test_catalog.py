"""What the catalog says about pictures: the numbers that each family's training code subtracts and divides by."""

from __future__ import annotations

from fnmatch import fnmatch

import pytest

from pixelwise.catalog import CATALOG

IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))  # torchvision and timm, of values 0 to 1
CAFFE_FCN = (
    (122.67892, 116.66877, 104.00699),
    (1, 1, 1),
)  # fcn.berkeleyvision.org, voc_layers.py, read as R, G, B
CAFFE_DEEPLAB = ((122.675, 116.669, 104.008), (1, 1, 1))  # DeepLab v1 and v2, train.prototxt
TENSORFLOW = ((127.5, 127.5, 127.5), (127.5, 127.5, 127.5))  # research/deeplab: 2 / 255 x - 1
AS_THEY_ARE = ((0, 0, 0), (1, 1, 1))  # 0 to 255 (SegNet)
UNIT = ((0, 0, 0), (255, 255, 255))  # 0 to 1 (the U-Nets)

# names: mean and std of values 0 to 255, shorter side, what sides are multiples of; the first that fits counts
EXPECTED = {
    "fcn*_resnet*": (IMAGENET, 520, 1),
    "fcn_convnext_*": (IMAGENET, 520, 1),
    "fcn*_torchvision": (IMAGENET, None, 1),
    "fcn*": (CAFFE_FCN, None, 1),
    "lraspp_*": (IMAGENET, 520, 1),
    "deeplabv3_*_paper": (IMAGENET, None, 1),
    "deeplabv3_*_vainf": (IMAGENET, None, 1),
    "deeplabv3_*": (IMAGENET, 520, 1),
    "deeplabv3plus_xception*": (TENSORFLOW, None, 1),
    "deeplabv3plus_mobilenet_v2": (TENSORFLOW, None, 1),
    "deeplabv3plus_*": (IMAGENET, None, 1),
    "deeplabv[12]_*": (CAFFE_DEEPLAB, None, 1),
    "segformer_b5": (IMAGENET, 640, 32),
    "segformer_*": (IMAGENET, 512, 32),
    "upernet_convnext_*large": (IMAGENET, 640, 1),
    "upernet_*": (IMAGENET, 512, 1),
    "segnet": (AS_THEY_ARE, None, 1),
    "unet*": (UNIT, None, 1),
    "nonewnet*": (((0,) * 4, (255,) * 4), None, 1),
}


@pytest.mark.parametrize("name", [name for name, entry in CATALOG.items() if entry.card is not None])
def test_pictures_are_shown_as_the_weights_were_trained(name: str):
    (mean, std), size, multiple = next(row for pattern, row in EXPECTED.items() if fnmatch(name, pattern))
    of_bytes = 255 if max(mean) < 1 and max(std) < 1 else 1
    card = CATALOG[name].card
    assert card is not None
    assert [255 * value for value in card.preprocess.mean] == pytest.approx(
        [of_bytes * value for value in mean]
    )
    assert [255 * value for value in card.preprocess.std] == pytest.approx(
        [of_bytes * value for value in std]
    )
    assert (card.preprocess.size, card.preprocess.side, card.preprocess.multiple) == (
        size,
        "shorter",
        multiple,
    )
    assert card.preprocess.offset == 0

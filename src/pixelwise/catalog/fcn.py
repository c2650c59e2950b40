"""FCN as published (1411.4038): VGG16, AlexNet and GoogLeNet, trained on Pascal VOC."""

from __future__ import annotations

from pixelwise.catalog.entry import Entry, by_name, mean_iou, row
from pixelwise.inference.preprocess import Preprocess
from pixelwise.labels import VOC
from pixelwise.weights.card import Score

_CAFFE = Preprocess(mean=(122.67892 / 255, 116.66877 / 255, 104.00699 / 255), std=(1 / 255, 1 / 255, 1 / 255))
"""Values of 0 to 255 less a mean."""
_HEAVY = "shelhamer/fcn.berkeleyvision.org, voc-fcn"


def _fcn(
    name: str, *, parameters: int, multiply_adds: int, file: str | None = None, caffe: bool = True, origin: str,
    scores: tuple[Score, ...] = (), notes: tuple[str, ...],
) -> Entry:  # fmt: skip
    """multiply_adds: at 500x500, with dense deconvolutions. caffe: input as Caffe's, else as torchvision's."""
    return row(
        f"fcn:{name}", labels=VOC, preprocess=_CAFFE if caffe else Preprocess(), stride=1,
        parameters=parameters, multiply_adds=multiply_adds, multiply_adds_hw=(500, 500), file=file,
        licence="BSD-2-Clause; weights for unrestricted use" if file else "unknown", origin=origin, scores=scores,
        notes=(
            "Parameters count the bilinear deconvolutions, which do not learn unless asked to.",
            "Caffe's files are B, G, R; converted, they take R, G, B." if caffe else "Input as torchvision's.",
            *notes,
        ),
    )  # fmt: skip


def _seg11(percent: float, source: str = "release readme and wkentaro's") -> Score:
    return mean_iou(percent, "Pascal VOC seg11valid, 736 images", "single scale", source)


def _voc(percent: float, part: str, source: str) -> Score:
    return mean_iou(percent, f"Pascal VOC {part}", "single scale", source)


def _copy(name: str, md5: str) -> str:
    return f"PyTorch copy by wkentaro: {name}_from_caffe.pth (MD5 {md5})."


ROWS: dict[str, Entry] = by_name(
    _fcn("fcn32s_vgg16", parameters=136_152_917, multiply_adds=181_365_854_976,
         file="fcn32s-heavy-pascal.caffemodel", origin=_HEAVY + "32s",
         scores=(_seg11(63.63), _voc(59.4, "2011 val", "1411.4038, table 2")),
         notes=("134,346,581 parameters learn.", _copy("fcn32s", "d3eb467a80e7da0468a20dfcbc13e6c8"))),
    _fcn("fcn16s_vgg16", parameters=134_815_994, multiply_adds=181_448_086_272,
         file="fcn16s-heavy-pascal.caffemodel", origin=_HEAVY + "16s",
         scores=(_seg11(65.01), _voc(62.4, "2011 val", "1411.4038, table 2")),
         notes=("134,357,354 parameters learn.", _copy("fcn16s", "a2d4035f669f09483b39c9a14a0d6670"))),
    _fcn("fcn8s_vgg16", parameters=134_489_759, multiply_adds=181_529_034_048,
         file="fcn8s-heavy-pascal.caffemodel", origin=_HEAVY + "8s",
         scores=(_seg11(65.51), _voc(67.2, "2012 test", "release readme"),
                 _voc(62.7, "2011 val", "1411.4038, table 2"), _voc(62.2, "2012 test", "1411.4038")),
         notes=("134,362,751 parameters learn.", _copy("fcn8s", "de93e540ec79512f8770033849c8ae89"))),
    _fcn("fcn8s_atonce_vgg16", parameters=134_489_759, multiply_adds=181_529_034_048,
         file="fcn8s-atonce-pascal.caffemodel", origin=_HEAVY + "8s-atonce",
         scores=(_seg11(65.40),),
         notes=("134,362,751 parameters learn.", _copy("fcn8s-atonce", "bfed4437e941fef58932891217fe6464"),
                "That copy has FCN-8s' names, so from_checkpoint takes it for one: load it with weights= here.")),
    _fcn("fcn32s_alexnet", parameters=58_704_590, multiply_adds=21_424_487_968,
         file="fcn-alexnet-pascal.caffemodel", origin=_HEAVY + "-alexnet",
         scores=(_seg11(48.0, "release readme"), _voc(39.8, "2011 val", "1411.4038, table 1")),
         notes=("56,954,261 parameters learn.",)),
    _fcn("fcn32s_alexnet_torchvision", parameters=58_840_206, multiply_adds=21_349_478_848, caffe=False,
         origin="1411.4038 on torchvision's AlexNet; no trained weights are published",
         notes=("57,089,877 parameters learn.", "Encoder: alexnet-owt-7be5be79.pth (SHA-256 prefix).")),
    _fcn("fcn32s_googlenet", parameters=7_745_406, multiply_adds=15_708_386_545,
         origin="1411.4038 on Caffe's GoogLeNet; no trained weights are published",
         scores=(_voc(42.5, "2011 val", "1411.4038, table 1, weights never published"),),
         notes=("5,995,077 parameters learn.", "Encoder: bvlc_googlenet.caffemodel.")),
    _fcn("fcn32s_googlenet_torchvision", parameters=7_371_758, multiply_adds=15_092_659_588, caffe=False,
         origin="1411.4038 on torchvision's GoogLeNet; no trained weights are published",
         notes=("5,621,429 parameters learn.", "Encoder: googlenet-1378be20.pth (SHA-256 prefix).")),
)  # fmt: skip

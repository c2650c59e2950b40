"""Every model by name: one plain table of who builds it, what is known about its weights, and where they lie.

A builder is named by its file in `models/` and its function; `pixelwise.models` finds them, so reading the catalog
imports neither torch nor any network; that is also why the networks may take their weights' facts from here.
"""

from __future__ import annotations

from dataclasses import dataclass
from fnmatch import fnmatch
from typing import Any

from pixelwise.errors import UnknownNameError
from pixelwise.inference.preprocess import Preprocess
from pixelwise.labels import ADE20K, VOC, LabelSet
from pixelwise.weights.card import Card, Score
from pixelwise.weights.origin import Origin

TORCHVISION_URL = "https://download.pytorch.org/models/"


@dataclass(frozen=True)
class Entry:
    """One row of the catalog.

    builder: "file:function" in `models/` that makes the network. card: what is known about the weights; None where it
    lies inside the asset. base_url: the folder that `card.file` is fetched from. asset: a file in
    pixelwise/assets, for the models that ship in the package.
    """

    builder: str
    card: Card | None = None
    base_url: str | None = None
    asset: str | None = None

    @property
    def url(self) -> str | None:
        """Where the weights are fetched from; None when there is nothing to fetch."""
        if self.base_url is None or self.card is None or self.card.file is None:
            return None
        return self.base_url + self.card.file


def _torchvision(
    name: str, module: str, file: str, mib: float, parameters: int, multiply_adds: int, stride: int,
    miou: float, pixel_accuracy: float,
) -> Entry:  # fmt: skip
    data, source = "COCO val2017, the 20 VOC classes and background", "torchvision, metadata of the weights"
    protocol = "single scale, shorter side 520"
    return Entry(
        builder=f"{module}:{name}",
        base_url=TORCHVISION_URL,
        card=Card(
            name=name,
            architecture=name,
            labels=VOC,
            preprocess=Preprocess(size=520),
            stride=stride,
            align_corners=False,
            parameters=parameters,
            multiply_adds=multiply_adds,
            multiply_adds_hw=(520, 520),
            file=file,
            file_bytes=round(mib * 2**20),  # torchvision states MiB to three digits: right to about 500 bytes
            sha256=file.removesuffix(".pth").rpartition("-")[2],
            licence="BSD-3-Clause",
            origin="torchvision, trained on COCO train2017",
            scores=(
                Score("mean IoU", round(miou / 100, 3), data, protocol, source),
                Score("pixel accuracy", round(pixel_accuracy / 100, 3), data, protocol, source),
            ),
            notes=("Parameters and multiply-adds count the auxiliary head where there is one.",),
        ),
    )


CATALOG: dict[str, Entry] = {
    "everyday": Entry("deeplabv3_mobilenet_v2:deeplabv3_mobilenet_v2", asset="everyday.onnx"),
    "nuclei": Entry("unet:unet", asset="nuclei.onnx"),
} | {
    # name, module, file, MiB, parameters, multiply-adds (both with auxiliary head), stride, mIoU %, accuracy %
    row[0]: _torchvision(*row)
    for row in (
        ("fcn_resnet50", "fcn_resnet", "fcn_resnet50_coco-1167a1af.pth",
         135.009, 35_322_218, 152_716_512_000, 8, 60.5, 91.4),
        ("fcn_resnet101", "fcn_resnet", "fcn_resnet101_coco-7ecb50ca.pth",
         207.711, 54_314_346, 232_737_606_400, 8, 63.7, 91.9),
        ("deeplabv3_resnet50", "deeplabv3", "deeplabv3_resnet50_coco-cd0a2569.pth",
         160.515, 42_004_074, 178_721_945_088, 8, 66.4, 92.4),
        ("deeplabv3_resnet101", "deeplabv3", "deeplabv3_resnet101_coco-586e9e4e.pth",
         233.217, 60_996_202, 258_743_039_488, 8, 67.4, 92.4),
        ("deeplabv3_mobilenet_v3_large", "deeplabv3", "deeplabv3_mobilenet_v3_large-fc3c493d.pth",
         42.301, 11_029_328, 10_452_447_938, 16, 60.3, 91.2),
        ("lraspp_mobilenet_v3_large", "lraspp", "lraspp_mobilenet_v3_large-d234d4ea.pth",
         12.490, 3_221_538, 2_086_219_688, 8, 57.9, 91.2),
    )
}  # fmt: skip


def _segformer(
    variant: str, size: int, parameters: int, multiply_adds: int, fast: int, single: float, multi: float,
    cityscapes: float,
) -> Entry:  # fmt: skip
    source = "SegFormer paper, table 1a"
    return Entry(
        f"segformer:segformer_{variant}",
        Card(
            name=f"segformer_{variant}",
            architecture=f"segformer_{variant}",
            labels=ADE20K,
            preprocess=Preprocess(size=size, multiple=32),
            stride=4,
            align_corners=False,
            parameters=parameters,
            multiply_adds=multiply_adds,
            multiply_adds_hw=(size, size),
            file=f"segformer.{variant}.{size}x{size}.ade.160k.pth",
            licence="NVIDIA Source Code License for SegFormer (non-commercial)",
            origin="NVlabs/SegFormer, trained on ADE20K",
            scores=(
                Score("mean IoU", round(single / 100, 3), "ADE20K val", "single scale", source),
                Score("mean IoU", round(multi / 100, 3), "ADE20K val", "multi-scale and flip", source),
                Score(
                    "mean IoU", round(cityscapes / 100, 3), "Cityscapes val",
                    f"single scale, windows of 1024; segformer.{variant}.1024x1024.city.160k.pth", source,
                ),
            ),
            notes=(
                f"Multiply-adds are the published network's; the head as it is computed here needs {fast:,} in all.",
                "The official files are on the authors' drives and are not fetched; pass their path as weights.",
                "Their unused decode_head.conv_seg is neither counted nor loaded.",
            ),
        ),
    )  # fmt: skip


def _upernet_convnext(
    size: str, file: str, pixels: int, parameters: int, multiply_adds: int, single: float, multi: float,
    elsewhere: str,
) -> Entry:  # fmt: skip
    source = "ConvNeXt repository, table of ADE20K models"
    return Entry(
        f"upernet:upernet_convnext_{size}",
        Card(
            name=f"upernet_convnext_{size}",
            architecture=f"upernet_convnext_{size}",
            labels=ADE20K,
            preprocess=Preprocess(size=pixels),
            stride=4,
            align_corners=False,
            parameters=parameters,
            multiply_adds=multiply_adds,
            multiply_adds_hw=(512, 512),
            file=f"upernet_convnext_{size}_{file}.pth",
            licence="MIT",
            origin="facebookresearch/ConvNeXt, trained on ADE20K",
            scores=(
                Score("mean IoU", round(single / 100, 3), "ADE20K val", "single scale", source),
                Score("mean IoU", round(multi / 100, 3), "ADE20K val", "multi-scale and flip", source),
            ),
            notes=("Parameters and multiply-adds count the auxiliary head.", elsewhere),
        ),
        base_url="https://dl.fbaipublicfiles.com/convnext/ade20k/",
    )


def _fcn_convnext(size: str, parameters: int, multiply_adds: int) -> Entry:
    return Entry(
        f"fcn_convnext:fcn_convnext_{size}",
        Card(
            name=f"fcn_convnext_{size}",
            architecture=f"fcn_convnext_{size}",
            labels=VOC,
            preprocess=Preprocess(size=520),
            stride=32,
            align_corners=False,
            parameters=parameters,
            multiply_adds=multiply_adds,
            multiply_adds_hw=(520, 520),
            origin="the network of R's torchvision (mlverse); no trained weights are published",
            notes=("R leaves out the norm of the encoder's features: output_norms=False.",),
        ),
    )


CATALOG |= {
    # variant, training crop, parameters, multiply-adds there (published; fast head), ADE20K mIoU % single- and
    # multi-scale, Cityscapes mIoU %
    f"segformer_{row[0]}": _segformer(*row)
    for row in (
        ("b0", 512, 3_752_694, 8_387_821_568, 4_126_408_704, 37.4, 38.0, 76.2),
        ("b1", 512, 13_715_798, 15_878_062_080, 11_650_203_648, 42.2, 43.1, 78.5),
        ("b2", 512, 27_461_974, 62_337_843_200, 24_287_117_312, 46.5, 47.5, 81.0),
        ("b3", 512, 47_337_814, 78_963_015_680, 40_912_289_792, 49.4, 50.0, 81.7),
        ("b4", 512, 64_108_374, 95_567_478_784, 57_516_752_896, 50.3, 51.1, 82.3),
        ("b5", 640, 84_708_694, 183_141_171_200, 123_347_173_376, 51.0, 51.8, 82.4),
    )
}

CATALOG |= {
    # size, rest of the file's name, training crop, parameters, multiply-adds at 512, mIoU % single- and multi-scale,
    # the same network elsewhere
    f"upernet_convnext_{row[0]}": _upernet_convnext(*row)
    for row in (
        ("tiny", "1k_512x512", 512, 60_242_636, 235_581_407_232, 46.0, 46.7,
         "mmsegmentation: upernet_convnext_tiny_fp16_512x512_160k_ade20k_*-cad485de.pth (SHA-256 prefix); R's mirror: "
         "convnext_tiny_upernet_512.pth (MD5 6a8321d6e804aaa92a55d8b91b7d6f39)."),
        ("small", "1k_512x512", 512, 81_877_196, 257_671_495_680, 48.7, 49.6,
         "mmsegmentation: upernet_convnext_small_fp16_512x512_160k_ade20k_*-1b1e394f.pth (SHA-256 prefix); R's mirror: "
         "convnext_small_upernet_512.pth (MD5 7040ac0cb06a748d25e4d26e7d27eedc)."),
        ("base", "1k_512x512", 512, 122_102_956, 293_603_115_008, 49.1, 49.9,
         "mmsegmentation: upernet_convnext_base_fp16_512x512_160k_ade20k_*-02a24fc6.pth, 640x640: -9280e39b (SHA-256 "
         "prefixes); R's mirror: convnext_base_upernet_512.pth (MD5 df98aa4c6bca23a3732dae19680eceb9)."),
        ("large", "22k_640x640", 640, 234_994_796, 395_061_362_688, 53.2, 53.7,
         "mmsegmentation: upernet_convnext_large_fp16_640x640_160k_ade20k_*-e57aa54d.pth (SHA-256 prefix)."),
        ("xlarge", "22k_640x640", 640, 391_140_396, 535_979_622_400, 53.6, 54.0,
         "mmsegmentation: upernet_convnext_xlarge_fp16_640x640_160k_ade20k_*-95fc38c2.pth (SHA-256 prefix)."),
    )
}  # fmt: skip

CATALOG |= {
    # size, parameters without auxiliary head, multiply-adds at 520
    f"fcn_convnext_{row[0]}": _fcn_convnext(*row)
    for row in (
        ("tiny", 31_370_869, 24_433_660_608),
        ("small", 53_005_429, 46_523_749_056),
        ("base", 92_296_853, 81_866_430_720),
    )
}


def _biomedical(
    name: str, module: str, parameters: int, multiply_adds: tuple[int, int] | None, labels: LabelSet,
    licence: str, origin: str, scores: tuple[Score, ...], *notes: str,
) -> Entry:  # fmt: skip
    """A row without weights to fetch. multiply_adds: their number, and the side of the square image."""
    return Entry(
        builder=f"{module}:{name}",
        card=Card(
            name=name,
            architecture=name,
            labels=labels,
            preprocess=Preprocess(mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0)),
            stride=1,
            align_corners=False,
            parameters=parameters,
            multiply_adds=multiply_adds[0] if multiply_adds else None,
            multiply_adds_hw=(multiply_adds[1], multiply_adds[1]) if multiply_adds else None,
            licence=licence,
            origin=origin,
            scores=scores,
            notes=notes,
        ),
    )


_CELLS = LabelSet.of(("background", "cell"))
_REGIONS = LabelSet.of(("whole tumour", "tumour core", "enhancing tumour"))
_TISSUES = LabelSet.of(("nothing", "edema", "enhancing tumour", "necrosis"), ids=(0, 2, 4, 1))
_ISBI = "ISBI 2012 EM, 7 rotations averaged"
_PHSEG = "Official file: phseg_v5.caffemodel (u-net-release-2015-10-02), one input channel."
_BRATS = (
    "Official files: 0_model_best.model .. 4_model_best.model, one per fold, with heads at four levels for two data "
    "sets (12,420,330 parameters): deep_supervision=True, cotraining_classes=3.",
    "Input channels T1, T1ce, T2, FLAIR, 1 mm, each z-scored within the brain and zero outside it.",
)
_KERAS = "Keras names are read; the authors publish no 2-D weights. Outputs are meant for sigmoids."

CATALOG |= {
    # name, module, parameters, multiply-adds and side, labels, licence of the weights, origin, scores, notes
    row[0]: _biomedical(*row)
    for row in (
        ("unet", "unet", 31_037_698, (192_686_325_760, 512), LabelSet.of(("background", "car")), "GPL-3.0",
         "milesial/Pytorch-UNet, trained on Carvana",
         (Score("Dice", 0.988423, "Carvana test", "as its readme says", "milesial/Pytorch-UNet, readme"),),
         "Official files: unet_carvana_scale0.5_epoch2.pth, unet_carvana_scale1.0_epoch2.pth; scale 0.5 and 1."),
        ("unet_bilinear", "unet", 17_263_042, (159_937_200_128, 512), LabelSet.of(("background", "foreground")),
         "unknown", "milesial/Pytorch-UNet", ()),
        ("unet_valid", "unet_valid", 31_031_810, (150_802_709_248, 388), _CELLS, "unknown", "1505.04597",
         (Score("warping error", 0.000353, _ISBI, "challenge", "1505.04597"),
          Score("Rand error", 0.0382, _ISBI, "challenge", "1505.04597"),
          Score("pixel error", 0.0611, _ISBI, "challenge", "1505.04597")),
         "With one input channel, as in the paper, 31,030,658 parameters.",
         "Multiply-adds for an image that one tile of 572 pixels covers."),
        ("unet_phseg_v5", "unet_valid", 31_101_506, (157_668_539_136, 388), _CELLS, "unknown",
         "u-net-release-2015-10-02 of the University of Freiburg", (), _PHSEG,
         "With its one input channel 31,100,354 parameters."),
        ("unetplusplus", "unetplusplus", 9_042_177, (119_151_788_032, 512), LabelSet.of(("foreground",)), "unknown",
         "MrGiovanni/UNetPlusPlus, 1807.10165", (), _KERAS),
        ("unetplusplus_ds", "unetplusplus", 9_042_276, (119_176_953_856, 512), LabelSet.of(("foreground",)),
         "unknown", "MrGiovanni/UNetPlusPlus, 1807.10165", (), _KERAS),
        ("nonewnet", "nonewnet", 12_418_980, None, _REGIONS, "MIT", "modelhub-ai/mic-dkfz-brats, 1809.10483",
         tuple(Score(f"Dice, {region}", dice, "BraTS 2018 test", "ensemble of folds and flips", "1809.10483")
               for region, dice in zip(_REGIONS.names, (0.8781, 0.8062, 0.7788), strict=True)),
         *_BRATS, "391,312,834,560 multiply-adds for a volume of 128 x 128 x 128.", "Outputs are for sigmoids."),
        ("nonewnet_softmax", "nonewnet", 12_419_010, None, _TISSUES, "unknown", "1809.10483", (), _BRATS[1],
         "391,375,749,120 multiply-adds for a volume of 128 x 128 x 128."),
        ("nonewnet_2d", "nonewnet", 4_835_700, (2_275_246_080, 128), _REGIONS, "unknown",
         "1809.10483, in two dimensions", (), _BRATS[1], "Outputs are for sigmoids."),
    )
}  # fmt: skip


def _fcn(
    name: str, parameters: int, multiply_adds: int, file: str | None, caffe: bool, origin: str,
    scores: tuple[tuple[float, str, str], ...], *notes: str,
) -> Entry:  # fmt: skip
    """scores: mean IoU in percent, data, source. caffe: values of 0 to 255 less a mean, else torchvision's."""
    mean, std = (122.67892 / 255, 116.66877 / 255, 104.00699 / 255), (1 / 255, 1 / 255, 1 / 255)
    return Entry(
        f"fcn:{name}",
        Card(
            name=name,
            architecture=name,
            labels=VOC,
            preprocess=Preprocess(mean=mean, std=std) if caffe else Preprocess(),
            stride=1,
            align_corners=False,
            parameters=parameters,
            multiply_adds=multiply_adds,
            multiply_adds_hw=(500, 500),
            file=file,
            licence="BSD-2-Clause; weights for unrestricted use" if file else "unknown",
            origin=origin,
            scores=tuple(Score("mean IoU", round(p / 100, 4), d, "single scale", s) for p, d, s in scores),
            notes=(
                "Parameters count the bilinear deconvolutions, which do not learn unless asked to.",
                "Caffe's files are B, G, R; converted, they take R, G, B."
                if caffe
                else "Input as torchvision's.",
                *notes,
            ),
        ),
    )


_SEG11 = "Pascal VOC seg11valid, 736 images"
_HEAVY = "shelhamer/fcn.berkeleyvision.org, voc-fcn"
_COPY = "PyTorch copy by wkentaro: {}_from_caffe.pth (MD5 {})."

CATALOG |= {
    # name, parameters, multiply-adds at 500x500 with dense deconvolutions, file, Caffe's input, origin, scores, notes
    row[0]: _fcn(*row)
    for row in (
        ("fcn32s_vgg16", 136_152_917, 181_365_854_976, "fcn32s-heavy-pascal.caffemodel", True, _HEAVY + "32s",
         ((63.63, _SEG11, "release readme and wkentaro's"), (59.4, "Pascal VOC 2011 val", "1411.4038, table 2")),
         "134,346,581 parameters learn.", _COPY.format("fcn32s", "d3eb467a80e7da0468a20dfcbc13e6c8")),
        ("fcn16s_vgg16", 134_815_994, 181_448_086_272, "fcn16s-heavy-pascal.caffemodel", True, _HEAVY + "16s",
         ((65.01, _SEG11, "release readme and wkentaro's"), (62.4, "Pascal VOC 2011 val", "1411.4038, table 2")),
         "134,357,354 parameters learn.", _COPY.format("fcn16s", "a2d4035f669f09483b39c9a14a0d6670")),
        ("fcn8s_vgg16", 134_489_759, 181_529_034_048, "fcn8s-heavy-pascal.caffemodel", True, _HEAVY + "8s",
         ((65.51, _SEG11, "release readme and wkentaro's"), (67.2, "Pascal VOC 2012 test", "release readme"),
          (62.7, "Pascal VOC 2011 val", "1411.4038, table 2"), (62.2, "Pascal VOC 2012 test", "1411.4038")),
         "134,362,751 parameters learn.", _COPY.format("fcn8s", "de93e540ec79512f8770033849c8ae89")),
        ("fcn8s_atonce_vgg16", 134_489_759, 181_529_034_048, "fcn8s-atonce-pascal.caffemodel", True,
         _HEAVY + "8s-atonce", ((65.40, _SEG11, "release readme and wkentaro's"),),
         "134,362,751 parameters learn.", _COPY.format("fcn8s-atonce", "bfed4437e941fef58932891217fe6464"),
         "That copy has FCN-8s' names, so from_checkpoint takes it for one: load it with weights= here."),
        ("fcn32s_alexnet", 58_704_590, 21_424_487_968, "fcn-alexnet-pascal.caffemodel", True, _HEAVY + "-alexnet",
         ((48.0, _SEG11, "release readme"), (39.8, "Pascal VOC 2011 val", "1411.4038, table 1")),
         "56,954,261 parameters learn."),
        ("fcn32s_alexnet_torchvision", 58_840_206, 21_349_478_848, None, False,
         "1411.4038 on torchvision's AlexNet; no trained weights are published", (),
         "57,089,877 parameters learn.", "Encoder: alexnet-owt-7be5be79.pth (SHA-256 prefix)."),
        ("fcn32s_googlenet", 7_745_406, 15_708_386_545, None, True,
         "1411.4038 on Caffe's GoogLeNet; no trained weights are published",
         ((42.5, "Pascal VOC 2011 val", "1411.4038, table 1, weights never published"),),
         "5,995,077 parameters learn.", "Encoder: bvlc_googlenet.caffemodel."),
        ("fcn32s_googlenet_torchvision", 7_371_758, 15_092_659_588, None, False,
         "1411.4038 on torchvision's GoogLeNet; no trained weights are published", (),
         "5,621,429 parameters learn.", "Encoder: googlenet-1378be20.pth (SHA-256 prefix)."),
    )
}  # fmt: skip

CATALOG["segnet"] = Entry(
    "segnet:segnet",
    Card(
        name="segnet",
        architecture="segnet",
        labels=LabelSet.of(
            [
                "sky", "building", "pole", "road", "pavement", "tree",
                "sign", "fence", "car", "pedestrian", "bicyclist",
            ],
            colors=(
                (128, 128, 128), (128, 0, 0), (192, 192, 128), (128, 64, 128), (60, 40, 222), (128, 128, 0),
                (192, 128, 128), (64, 64, 128), (64, 0, 128), (64, 64, 0), (0, 128, 192),
            ),
            ignore_id=11,
        ),
        preprocess=Preprocess(mean=(0.0, 0.0, 0.0), std=(1 / 255, 1 / 255, 1 / 255)),
        stride=1,
        align_corners=False,
        parameters=29_449_355,
        multiply_adds=106_712_432_640,
        multiply_adds_hw=(360, 480),
        licence="CC-BY-NC-4.0",
        origin="alexgkendall/SegNet-Tutorial, trained on CamVid",
        scores=(
            Score("mean IoU", 0.601, "CamVid test, 360x480", "140,000 iterations, 3,500 pictures", "PAMI, table 3"),
            Score("mean IoU", 0.464, "CamVid test, 360x480", "CamVid alone", "1611.09326 (Tiramisu), table 3"),
        ),
        notes=(
            "Official files: segnet_pascal, segnet_sun, segnet_sun_low_resolution, segnet_weights_driving_webdemo, "
            "segnet_iter_30000_timo (.caffemodel). Those of SegNet-Basic are another network.",
            "Input in the official files: 0 to 255, no mean subtracted. They are B, G, R; converted, R, G, B.",
            "29,455,125 parameters with 21 classes.",
        ),
    ),
)  # fmt: skip


def _deeplab(
    name: str, module: str, parameters: int, multiply_adds: int, stride: int, preprocess: Preprocess,
    origin: str, licence: str, scores: tuple[tuple[float, str, str, str], ...], *notes: str,
) -> Entry:  # fmt: skip
    """scores: mean IoU in percent on Pascal VOC 2012, split, protocol, source."""
    return Entry(
        builder=f"{module}:{name}",
        card=Card(
            name=name,
            architecture=name,
            labels=VOC,
            preprocess=preprocess,
            stride=stride,
            align_corners=not name.endswith("_vainf"),
            parameters=parameters,
            multiply_adds=multiply_adds,
            multiply_adds_hw=(513, 513),
            licence=licence,
            origin=origin,
            scores=tuple(
                Score("mean IoU", round(miou / 100, 4), f"Pascal VOC 2012 {split}", protocol, source)
                for miou, split, protocol, source in scores
            ),
            notes=notes,
        ),
    )


_CAFFE = Preprocess(mean=(122.675 / 255, 116.669 / 255, 104.008 / 255), std=(1 / 255, 1 / 255, 1 / 255))
_TENSORFLOW = Preprocess(mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
_IMAGENET = Preprocess()
_LARGEFOV = (
    "Official files: init.caffemodel (vgg16_20M, without fc8), train_iter_* and train2_iter_*.caffemodel."
)
_V1 = ("1412.7062, Caffe release", "unknown")
_V2 = ("1606.00915, Caffe release", "unknown")
_TF = ("tensorflow/models research/deeplab", "Apache-2.0")
_VAINF = ("VainF/DeepLabV3Plus-Pytorch, trained on VOC 2012 trainaug", "MIT")
_V1_SOURCE, _V2_SOURCE, _ZOO, _README = (
    "1412.7062, table 1",
    "1606.00915",
    "TensorFlow's model zoo",
    "VainF's readme",
)
_CROP = "output stride 16, centre crop of 513"

CATALOG |= {
    # name, module, parameters, multiply-adds at 513x513, stride, preprocessing, origin, licence, scores, notes
    row[0]: _deeplab(*row)
    for row in (
        ("deeplabv1_vgg16_largefov", "deeplabv1", 20_505_429, 128_584_633_024, 8, _CAFFE, *_V1,
         ((62.25, "val", "without CRF", _V1_SOURCE), (67.64, "val", "with CRF", _V1_SOURCE),
          (70.3, "test", "with CRF", _V1_SOURCE)), _LARGEFOV),
        ("deeplabv1_vgg16_7x7", "deeplabv1", 134_346_581, 609_537_541_824, 8, _CAFFE, *_V1,
         ((64.38, "val", "without CRF", _V1_SOURCE), (67.64, "val", "with CRF", _V1_SOURCE),
          (70.3, "test", "with CRF", _V1_SOURCE))),
        ("deeplabv1_vgg16_4x4", "deeplabv1", 65_140_565, 317_142_124_224, 8, _CAFFE, *_V1,
         ((59.80, "val", "without CRF", _V1_SOURCE), (63.74, "val", "with CRF", _V1_SOURCE),
          (66.4, "test", "with CRF", _V1_SOURCE)),
         "Official files: init.caffemodel (vgg16_128, without fc8), train_iter_*.caffemodel. Scores are of rate 4."),
        ("deeplabv2_vgg16_largefov", "deeplabv2", 20_505_429, 128_584_633_024, 8, _CAFFE, *_V2, (), _LARGEFOV),
        ("deeplabv2_vgg16_aspp_s", "deeplabv2", 37_877_652, 201_956_050_624, 8, _CAFFE, *_V2, (),
         "Official files: train_iter_20000.caffemodel, train2_iter_20000.caffemodel."),
        ("deeplabv2_vgg16_aspp_l", "deeplabv2", 37_877_652, 201_956_050_624, 8, _CAFFE, *_V2, (),
         "Official files: train_iter_20000.caffemodel, train2_iter_20000.caffemodel."),
        ("deeplabv2_resnet101", "deeplabv2", 44_048_532, 344_881_950_272, 8, _CAFFE, *_V2,
         ((77.69, "val", "3 scales, with CRF", _V2_SOURCE), (79.7, "test", "3 scales, with CRF", _V2_SOURCE)),
         "At a single scale 188,885,763,264 multiply-adds.",
         "Official files: init.caffemodel (COCO), train_iter_20000.caffemodel (trainaug; isht7 measures 75.54 without "
         "CRF), train2_iter_20000.caffemodel (trainval).",
         "kazuto1011: deeplabv2_resnet101_msc-vocaug.pth is train2_iter_20000, which has seen val; "
         "-vocaug-20000 (76.65 without CRF, 77.93 with), -cocostuff10k-20000 and -cocostuff164k-100000 are his own."),
        ("deeplabv3_resnet50_paper", "deeplabv3_paper", 39_048_533, 50_435_832_256, 16, _IMAGENET,
         "1706.05587", "unknown", ()),
        ("deeplabv3_resnet101_paper", "deeplabv3_paper", 58_040_661, 71_061_387_712, 16, _IMAGENET,
         "1706.05587", "unknown", (),
         "Of the paper, as recalled: VOC 2012 val 77.21 at output stride 16, 78.51 at 8; no such file is published."),
        ("deeplabv3_resnet50_vainf", "deeplabv3_paper", 39_638_869, 51_078_150_592, 16, _IMAGENET, *_VAINF,
         ((76.9, "val", _CROP, _README),), "Official file: best_deeplabv3_resnet50_voc_os16.pth."),
        ("deeplabv3_resnet101_vainf", "deeplabv3_paper", 58_630_997, 71_703_706_048, 16, _IMAGENET, *_VAINF,
         ((77.3, "val", _CROP, _README),), "Official file: best_deeplabv3_resnet101_voc_os16.pth."),
        ("deeplabv3_mobilenet_v2_vainf", "deeplabv3_paper", 5_113_877, 5_844_337_664, 16, _IMAGENET, *_VAINF,
         ((70.1, "val", _CROP, _README),), "Official file: best_deeplabv3_mobilenet_voc_os16.pth."),
        ("deeplabv3plus_xception41", "deeplabv3plus", 28_108_661, 40_012_398_128, 4, _TENSORFLOW, *_TF, (),
         "Official file: xception_41_2018_05_09.tar.gz, ImageNet only."),
        ("deeplabv3plus_xception65", "deeplabv3plus", 41_055_413, 54_035_303_024, 4, _TENSORFLOW, *_TF,
         ((82.20, "val", "output stride 16, single scale", _ZOO),
          (83.58, "val", "output stride 8, 6 scales and flip", _ZOO),
          (87.80, "test", "trained on trainval, output stride 8, 6 scales and flip", _ZOO)),
         "Official files: model.ckpt of deeplabv3_pascal_train_aug_2018_01_04, deeplabv3_pascal_trainval_2018_01_04, "
         "deeplabv3_cityscapes_train_2018_02_06, deeplabv3_xception_ade20k_train_2018_05_29 (.tar.gz).",
         "Pictures are padded to the crop size (VOC 513x513) with mid-grey, and the image pooling sees the padding."),
        ("deeplabv3plus_xception71", "deeplabv3plus", 43_477_837, 66_068_012_856, 4, _TENSORFLOW, *_TF, (),
         "Official file: xception_71_2018_05_09.tar.gz, ImageNet only."),
        ("deeplabv3plus_resnet50", "deeplabv3plus", 40_352_181, 72_194_808_256, 4, _IMAGENET,
         "1802.02611", "unknown", ()),
        ("deeplabv3plus_resnet101", "deeplabv3plus", 59_344_309, 92_820_363_712, 4, _IMAGENET,
         "1802.02611", "unknown", ()),
        ("deeplabv3plus_mobilenet_v2", "deeplabv3plus", 2_719_813, 5_804_159_152, 4, _TENSORFLOW,
         "1802.02611", "unknown", ()),
        ("deeplabv3plus_resnet50_vainf", "deeplabv3plus", 39_761_845, 62_379_547_072, 4, _IMAGENET, *_VAINF,
         ((77.2, "val", _CROP, _README),), "Official file: best_deeplabv3plus_resnet50_voc_os16.pth."),
        ("deeplabv3plus_resnet101_vainf", "deeplabv3plus", 58_753_973, 83_005_102_528, 4, _IMAGENET, *_VAINF,
         ((78.3, "val", _CROP, _README),), "Official file: best_deeplabv3plus_resnet101_voc_os16.pth; Cityscapes: "
         "best_deeplabv3plus_resnet101_cityscapes_os16.pth, 76.2."),
        ("deeplabv3plus_mobilenet_v2_vainf", "deeplabv3plus", 5_225_717, 16_817_423_360, 4, _IMAGENET, *_VAINF,
         ((71.1, "val", _CROP, _README),), "Official file: best_deeplabv3plus_mobilenet_voc_os16.pth; Cityscapes: "
         "best_deeplabv3plus_mobilenet_cityscapes_os16.pth, 72.1."),
        ("deeplabv3plus_resnet101_jfzhang95", "deeplabv3plus", 59_344_309, 92_820_363_712, 4, _IMAGENET,
         "jfzhang95/pytorch-deeplab-xception, trained on VOC 2012 trainaug", "MIT",
         ((78.43, "val", "output stride 16, scaled and cropped to 513", "jfzhang95's readme"),),
         "Official file: deeplab-resnet.pth.tar."),
    )
}  # fmt: skip


def list_models(pattern: str = "*") -> list[str]:
    """The names that match `pattern` (shell wildcards), in the order of the catalog.

    >>> list_models("*resnet50")
    ['fcn_resnet50', 'deeplabv3_resnet50']
    """
    return [name for name in CATALOG if fnmatch(name, pattern)]


def entry(name: str) -> Entry:
    """The catalog's row of that name; raises UnknownNameError, with the nearest names, when there is none."""
    try:
        return CATALOG[name]
    except KeyError:
        raise UnknownNameError("model", name, CATALOG) from None


def card_for(network: Any) -> Card:
    """The card of a network that came without one: classes named by number, the preprocessing that its architecture
    has in the catalog (else `Preprocess()`), the rest read off the network."""
    origin = vars(network).get("origin")
    known = CATALOG.get(origin.model) if isinstance(origin, Origin) else None
    return Card(
        name=type(network).__name__,
        architecture=str(origin or type(network).__name__),
        labels=LabelSet.of([f"class {i}" for i in range(max(int(getattr(network, "num_classes", 1)), 2))]),
        preprocess=Preprocess() if known is None or known.card is None else known.card.preprocess,
        stride=getattr(network, "stride", 1),
        align_corners=getattr(network, "align_corners", False),
        parameters=sum(parameter.numel() for parameter in network.parameters()),
        origin="a network in memory",
    )

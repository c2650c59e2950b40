"""DeepLab in PyTorch by others: kazuto1011 and isht7 (v2), VainF (v3, v3+), jfzhang95 (v3+).

The files of kazuto1011 and isht7 want pictures as B, G, R, as the Caffe files they come from; our networks
take R, G, B, so the first convolution's input channels are turned round. VainF's decoder concatenates [fine,
context] where ours has [context, fine], so the input channels of the convolution behind it move.
"""

from __future__ import annotations

import torch

from pixelwise.checkpoints.caffe import rgb
from pixelwise.checkpoints.families.deeplab_caffe import resnet_arguments
from pixelwise.checkpoints.family import Family
from pixelwise.weights.origin import Origin
from pixelwise.weights.renames import Renames, Tensors, rename

# v2 -----------------------------------------------------------------------------------------------------------

KAZUTO_NAMES = Renames(
    ("layer1.conv1.conv.{rest}", "backbone.conv1.{rest}"),
    ("layer1.conv1.bn.{rest}", "backbone.bn1.{rest}"),
    ("layer{s+1}.block{b+1}.reduce.conv.{rest}", "backbone.layer{s}.{b}.conv1.{rest}"),
    ("layer{s+1}.block{b+1}.reduce.bn.{rest}", "backbone.layer{s}.{b}.bn1.{rest}"),
    ("layer{s+1}.block{b+1}.conv3x3.conv.{rest}", "backbone.layer{s}.{b}.conv2.{rest}"),
    ("layer{s+1}.block{b+1}.conv3x3.bn.{rest}", "backbone.layer{s}.{b}.bn2.{rest}"),
    ("layer{s+1}.block{b+1}.increase.conv.{rest}", "backbone.layer{s}.{b}.conv3.{rest}"),
    ("layer{s+1}.block{b+1}.increase.bn.{rest}", "backbone.layer{s}.{b}.bn3.{rest}"),
    ("layer{s+1}.block{b+1}.shortcut.conv.{rest}", "backbone.layer{s}.{b}.downsample.0.{rest}"),
    ("layer{s+1}.block{b+1}.shortcut.bn.{rest}", "backbone.layer{s}.{b}.downsample.1.{rest}"),
    ("aspp.c{i}.{rest}", "classifier.{i}.{rest}"),
)
ISHT7_NAMES = Renames(
    ("conv1.{rest}", "backbone.conv1.{rest}"),
    ("bn1.{rest}", "backbone.bn1.{rest}"),
    ("layer5.conv2d_list.{i}.{rest}", "classifier.{i}.{rest}"),
    ("layer{s:1|2|3|4}.{rest}", "backbone.layer{s:1|2|3|4}.{rest}"),
)


def _v2(name: str, says: str, marks: tuple[str, ...], table: Renames, prefix: str, resize: str) -> Family:
    """prefix: what the names of multi-scale files begin with, and those of single-scale files do not."""

    def read(tensors: Tensors) -> tuple[Origin, Tensors]:
        ours = rename({key.removeprefix(prefix): tensor for key, tensor in tensors.items()}, table)
        multi_scale = all(key.startswith(prefix) for key in tensors)
        arguments = {**resnet_arguments(ours), "multi_scale": multi_scale, "resize": resize}
        return Origin("deeplabv2_resnet101", arguments), rgb(ours)

    def to_theirs(tensors: Tensors) -> Tensors:
        theirs = rename(rgb(tensors), table, back=True)
        return {prefix + key: tensor for key, tensor in theirs.items()}

    return Family(name, says, marks, read, to_theirs)


KAZUTO = _v2(
    "kazuto.deeplabv2",
    "DeepLab v2 on ResNet-101, kazuto1011's names",
    ("*layer1.conv1.conv.weight", "*layer5.block1.conv3x3.conv.weight", "*aspp.c0.weight", "*aspp.c3.bias"),
    KAZUTO_NAMES,
    "base.",
    "kazuto",
)
ISHT7 = _v2(
    "isht7.deeplabv2",
    "DeepLab v2 on ResNet-101, isht7's names",
    ("*layer4.0.downsample.1.weight", "*layer5.conv2d_list.0.weight", "*layer5.conv2d_list.3.bias"),
    ISHT7_NAMES,
    "Scale.",
    "caffe",
)

# v3 and v3+ ---------------------------------------------------------------------------------------------------

LOW, HIGH = "|".join(map(str, range(4))), "|".join(map(str, range(4, 18)))
VAINF_BACKBONE = (
    (f"backbone.low_level_features.{{i:{LOW}}}.{{rest}}", f"backbone.features.{{i:{LOW}}}.{{rest}}"),
    (f"backbone.high_level_features.{{i:{HIGH}}}.{{rest}}", f"backbone.features.{{i:{HIGH}}}.{{rest}}"),
    ("backbone.{rest}", "backbone.{rest}"),
)
VAINF_V3_NAMES = Renames(
    *VAINF_BACKBONE,
    ("classifier.classifier.0.{rest}", "aspp.{rest}"),
    ("classifier.classifier.1.{rest}", "refine.0.{rest}"),
    ("classifier.classifier.2.{rest}", "refine.1.{rest}"),
    ("classifier.classifier.4.{rest}", "logits.{rest}"),
)
VAINF_V3PLUS_NAMES = Renames(
    *VAINF_BACKBONE,
    ("classifier.project.{rest}", "decoder.reduce.{rest}"),
    ("classifier.aspp.{rest}", "aspp.{rest}"),
    ("classifier.classifier.0.{rest}", "decoder.mix.conv0.0.{rest}"),
    ("classifier.classifier.1.{rest}", "decoder.mix.conv0.1.{rest}"),
    ("classifier.classifier.3.{rest}", "decoder.logits.{rest}"),
)
JFZHANG95_NAMES = Renames(
    ("backbone.{rest}", "backbone.{rest}"),
    ("aspp.global_avg_pool.1.{rest}", "aspp.convs.4.1.{rest}"),
    ("aspp.global_avg_pool.2.{rest}", "aspp.convs.4.2.{rest}"),
    ("aspp.aspp{i+1}.atrous_conv.{rest}", "aspp.convs.{i}.0.{rest}"),
    ("aspp.aspp{i+1}.bn.{rest}", "aspp.convs.{i}.1.{rest}"),
    ("aspp.conv1.{rest}", "aspp.project.0.{rest}"),
    ("aspp.bn1.{rest}", "aspp.project.1.{rest}"),
    ("decoder.conv1.{rest}", "decoder.reduce.0.{rest}"),
    ("decoder.bn1.{rest}", "decoder.reduce.1.{rest}"),
    ("decoder.last_conv.0.{rest}", "decoder.mix.conv0.0.{rest}"),
    ("decoder.last_conv.1.{rest}", "decoder.mix.conv0.1.{rest}"),
    ("decoder.last_conv.4.{rest}", "decoder.mix.conv1.0.{rest}"),
    ("decoder.last_conv.5.{rest}", "decoder.mix.conv1.1.{rest}"),
    ("decoder.last_conv.8.{rest}", "decoder.logits.{rest}"),
)


def _vainf(network: str, classifier: str, tensors: Tensors) -> Origin:
    if "backbone.conv1.weight" in tensors:
        encoder, first = "resnet101" if "backbone.layer3.6.conv1.weight" in tensors else "resnet50", "conv1"
    else:
        encoder, first = "mobilenet_v2", "low_level_features.0.0"
    arguments = {
        "num_classes": tensors[f"{classifier}.weight"].shape[0],
        "in_channels": tensors[f"backbone.{first}.weight"].shape[1],
    }
    return Origin(f"{network}_{encoder}_vainf", arguments)


def _vainf_v3(tensors: Tensors) -> tuple[Origin, Tensors]:
    return _vainf("deeplabv3", "classifier.classifier.4", tensors), rename(tensors, VAINF_V3_NAMES)


def _vainf_v3plus(tensors: Tensors) -> tuple[Origin, Tensors]:
    origin = _vainf("deeplabv3plus", "classifier.classifier.3", tensors)
    return origin, _context_first(rename(tensors, VAINF_V3PLUS_NAMES))


def _jfzhang95(tensors: Tensors) -> tuple[Origin, Tensors]:
    arguments = {
        "num_classes": tensors["decoder.last_conv.8.weight"].shape[0],
        "in_channels": tensors["backbone.conv1.weight"].shape[1],
    }
    return Origin("deeplabv3plus_resnet101_jfzhang95", arguments), rename(tensors, JFZHANG95_NAMES)


def _context_first(tensors: Tensors) -> Tensors:
    """VainF's order of the decoder's input channels, [48 fine, 256 context], to ours."""
    return _moved(tensors, 48)


def _fine_first(tensors: Tensors) -> Tensors:
    """Our order of the decoder's input channels, [256 context, 48 fine], to VainF's."""
    return _moved(tensors, 256)


def _moved(tensors: Tensors, first: int) -> Tensors:
    key = "decoder.mix.conv0.0.weight"
    weight = tensors[key]
    return {**tensors, key: torch.cat([weight[:, first:], weight[:, :first]], dim=1)}


VAINF_V3 = Family(
    "vainf.deeplabv3",
    "DeepLab v3, VainF's names",
    ("classifier.classifier.0.convs.0.0.weight", "classifier.classifier.4.weight"),
    _vainf_v3,
    lambda tensors: rename(tensors, VAINF_V3_NAMES, back=True),
)
VAINF_V3PLUS = Family(
    "vainf.deeplabv3plus",
    "DeepLab v3+, VainF's names",
    ("classifier.project.0.weight", "classifier.aspp.convs.0.0.weight", "classifier.classifier.3.weight"),
    _vainf_v3plus,
    lambda tensors: rename(_fine_first(tensors), VAINF_V3PLUS_NAMES, back=True),
)
JFZHANG95 = Family(
    "jfzhang95.deeplabv3plus",
    "DeepLab v3+ on ResNet-101, jfzhang95's names",
    ("backbone.layer4.2.conv3.weight", "aspp.aspp4.atrous_conv.weight", "decoder.last_conv.8.weight"),
    _jfzhang95,
    lambda tensors: rename(tensors, JFZHANG95_NAMES, back=True),
)
FAMILIES = (KAZUTO, ISHT7, VAINF_V3, VAINF_V3PLUS, JFZHANG95)

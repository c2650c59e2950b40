"""Checkpoints of R's torchvision (mlverse): UPerNet and FCN on ConvNeXt.

The files that it fetches, convnext_*_upernet_512.pth, are in mmsegmentation's names and are read as such; R renames
them while loading, so a network saved from R has these names. R's networks do not normalise their features and hold no
such norms (but for one that it never applies): they become networks with output_norms=False, and only such networks can
be written in R's names.
"""

from __future__ import annotations

from pixelwise.checkpoints.families.upernet import NORM, convnext_variant, heads_of, read_upernet, rows
from pixelwise.checkpoints.family import Family
from pixelwise.weights.origin import Origin
from pixelwise.weights.renames import Renames, Tensors, rename

_BACKBONE = (
    ("backbone.model.downsample_layers.{rest}", "backbone.downsample_layers.{rest}"),
    ("backbone.model.stages.{rest}", "backbone.stages.{rest}"),
)

_UPERNET = Renames(
    *_BACKBONE,
    ("decode_head.psp_modules.stages.{i}.1.{rest}", "decode_head.psp_modules.{i}.1.conv.{rest}"),
    ("decode_head.psp_modules.stages.{i}.2.{rest}", "decode_head.psp_modules.{i}.1.bn.{rest}"),
    ("decode_head.{rest}.0.weight", "decode_head.{rest}.conv.weight"),
    (f"decode_head.{{rest}}.1.{NORM}", f"decode_head.{{rest}}.bn.{NORM}"),
    ("decode_head.cls_seg.{rest}", "decode_head.conv_seg.{rest}"),
    ("aux_classifier.0.{rest}", "auxiliary_head.convs.0.conv.{rest}"),
    ("aux_classifier.1.{rest}", "auxiliary_head.convs.0.bn.{rest}"),
    ("aux_classifier.4.{rest}", "auxiliary_head.conv_seg.{rest}"),
)

_FCN = Renames(
    *_BACKBONE,
    ("classifier.{rest}", "classifier.{rest}"),
    ("aux_classifier.{rest}", "aux_classifier.{rest}"),
)


def _fcn(tensors: Tensors) -> tuple[Origin, Tensors]:
    ours = rename(tensors, _FCN)
    model, arguments = convnext_variant(ours, "fcn", ("tiny", "small", "base"))
    classes, width = ours["classifier.4.weight"].shape[:2]
    aux_width = rows(ours, "aux_classifier.0.weight")
    return Origin(model, arguments | heads_of(classes, width, aux_width) | {"output_norms": False}), ours


FAMILIES: tuple[Family, ...] = (
    Family(
        "mlverse.upernet_convnext",
        "a UPerNet on ConvNeXt of R's torchvision",
        ("backbone.model.stages.0.0.dwconv.weight", "decode_head.psp_modules.stages.0.1.weight"),
        read_upernet(lambda tensors: rename(tensors, _UPERNET)), lambda tensors: rename(tensors, _UPERNET, back=True),
        ("backbone.model.norm*",),
    ),
    Family(
        "mlverse.fcn_convnext",
        "an FCN on ConvNeXt of R's torchvision",
        ("backbone.model.stages.0.0.dwconv.weight", "classifier.4.weight"),
        _fcn, lambda tensors: rename(tensors, _FCN, back=True),
        ("backbone.model.norm.*", "backbone.model.head.*"),  # of the classifier that R's encoder still carries
    ),
)  # fmt: skip

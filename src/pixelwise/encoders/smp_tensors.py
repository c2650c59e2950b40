"""Names that the tensors of SMP's EfficientNets and MobileOnes have in timm's files and had in ours before these took
SMP's (`encoders.renamed`). All others are the same, torchvision's or timm's.

Names here are without the prefix "encoder.".
"""

from __future__ import annotations

import functools
import math

from pixelwise.encoders.renamed import DEPTHS, REPEATS
from pixelwise.weights.renames import Renames

MOBILEONE = Renames(
    *(
        (f"{theirs}.{inner}.{{rest}}", f"{ours}.{new}.{{rest}}")
        for theirs, ours in (("stage0", "stem"), ("stage{i+1}.{j}", "stages.{i}.{j}"))
        for inner, new in (
            ("rbr_conv", "conv_kxk"),
            ("rbr_scale", "conv_scale"),
            ("rbr_skip", "identity"),
            ("se.reduce", "attn.fc1"),
            ("se.expand", "attn.fc2"),
        )
    )
)


@functools.cache
def efficientnet(size: str) -> Renames:
    """SMP counts blocks from the first to the last, timm stage by stage; a first block has no expansion."""
    pairs = [
        ("_conv_stem.{rest}", "conv_stem.{rest}"),
        ("_bn0.{rest}", "bn1.{rest}"),
        ("_conv_head.{rest}", "conv_head.{rest}"),
        ("_bn1.{rest}", "bn2.{rest}"),
    ]
    whole = (
        ("_expand_conv", "conv_pw"),
        ("_bn0", "bn1"),
        ("_depthwise_conv", "conv_dw"),
        ("_bn1", "bn2"),
        ("_se_reduce", "se.conv_reduce"),
        ("_se_expand", "se.conv_expand"),
        ("_project_conv", "conv_pwl"),
        ("_bn2", "bn3"),
    )
    unexpanded = (
        ("_depthwise_conv", "conv_dw"),
        ("_bn1", "bn1"),
        ("_se_reduce", "se.conv_reduce"),
        ("_se_expand", "se.conv_expand"),
        ("_project_conv", "conv_pw"),
        ("_bn2", "bn2"),
    )
    count = 0
    for stage, repeats in enumerate(REPEATS):
        for block in range(math.ceil(repeats * DEPTHS[size])):
            pairs += [
                (f"_blocks.{count}.{theirs}.{{rest}}", f"blocks.{stage}.{block}.{ours}.{{rest}}")
                for theirs, ours in (whole if stage else unexpanded)
            ]
            count += 1
    return Renames(*pairs)


def table(name: str) -> Renames | None:
    """The renaming of SMP's encoder `name` (theirs: SMP's, ours: timm's), or None where the names are the same."""
    if name.startswith("efficientnet-"):
        return efficientnet(name.removeprefix("efficientnet-"))
    return MOBILEONE if name.startswith("mobileone_") else None

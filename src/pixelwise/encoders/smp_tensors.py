"""Names of tensors in SMP's encoders that are not ours: EfficientNet's (SMP's own, a port of TensorFlow's) and
MobileOne's (as its authors released it). All others are the same, torchvision's or timm's.

Names here are without the prefix "encoder.".
"""

from __future__ import annotations

import functools
import math

from pixelwise.weights.renames import Renames

EFFICIENTNET_REPEATS = (1, 2, 2, 3, 3, 4, 1)
"""Table 1 of 1905.11946: blocks of each stage, times the depth of the size, rounded up."""

EFFICIENTNET_DEPTHS = {"b0": 1.0, "b1": 1.1, "b2": 1.2, "b3": 1.4, "b4": 1.8, "b5": 2.2, "b6": 2.6, "b7": 3.1}

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
    for stage, repeats in enumerate(EFFICIENTNET_REPEATS):
        for block in range(math.ceil(repeats * EFFICIENTNET_DEPTHS[size])):
            pairs += [
                (f"_blocks.{count}.{theirs}.{{rest}}", f"blocks.{stage}.{block}.{ours}.{{rest}}")
                for theirs, ours in (whole if stage else unexpanded)
            ]
            count += 1
    return Renames(*pairs)


def table(name: str) -> Renames | None:
    """The renaming of SMP's encoder `name`, or None where the names are the same."""
    if name.startswith("efficientnet-"):
        return efficientnet(name.removeprefix("efficientnet-"))
    return MOBILEONE if name.startswith("mobileone_") else None

"""SegFormer checkpoints: the release's (NVlabs), Hugging Face's, and the names inside transformers 5.

Our names are the release's. A network from Hugging Face's names gets their layer norm epsilons, so that its
logits are theirs; the tensors themselves are the same.
"""

from __future__ import annotations

from collections.abc import Callable

from pixelwise.checkpoints.families import mit
from pixelwise.checkpoints.family import Family
from pixelwise.models.segformer import VARIANTS
from pixelwise.weights.origin import Origin
from pixelwise.weights.renames import Tensors

_HEAD: mit.Pairs = (
    ("decode_head.linear_fuse.{rest}", "decode_head.linear_fuse.conv.{rest}"),
    ("decode_head.batch_norm.{rest}", "decode_head.linear_fuse.bn.{rest}"),
    ("decode_head.classifier.{rest}", "decode_head.linear_pred.{rest}"),
)

_CLASSIC = mit.tables(
    *mit.classic("segformer.encoder.", "backbone."),
    ("decode_head.linear_c.{i-1}.proj.{rest}", "decode_head.linear_c{i}.proj.{rest}"),
    *_HEAD,
)

_TRANSFORMERS5 = mit.tables(
    *mit.transformers5("segformer.", "backbone."),
    ("decode_head.linear_projections.{i-1}.proj.{rest}", "decode_head.linear_c{i}.proj.{rest}"),
    *_HEAD,
)


def _reader(to_ours: Callable[[Tensors], Tensors], eps: str) -> Callable[[Tensors], tuple[Origin, Tensors]]:
    """Reads the variant off the sizes; sizes that no variant has become options of segformer_b0."""

    def read(tensors: Tensors) -> tuple[Origin, Tensors]:
        ours = to_ours(tensors)
        channels, depths, in_channels = mit.sizes_of(ours, "backbone.")
        classes, width = ours["decode_head.linear_pred.weight"].shape[:2]
        arguments = {"num_classes": classes, "in_channels": in_channels, "eps": eps} | mit.options_of(
            ours, "backbone."
        )
        sizes = (mit.encoder_of(channels, depths), width)
        known = next((name for name, variant in VARIANTS.items() if variant == sizes), None)
        if known is None:
            arguments |= {"channels": channels, "depths": depths, "width": width}
        return Origin(known or "segformer_b0", arguments), ours

    return read


FAMILIES: tuple[Family, ...] = (
    Family(
        "nvlabs.segformer",
        "a SegFormer of the authors (NVlabs)",
        ("backbone.patch_embed1.proj.weight", "backbone.block1.0.attn.kv.weight", "decode_head.linear_c1.proj.weight"),
        _reader(dict, "nvlabs"), dict,
        ("decode_head.conv_seg.*",),  # a classifier of 128 channels that their head's base class makes and nobody uses
    ),
    Family(
        "huggingface.segformer",
        "a SegFormer of Hugging Face",
        (
            "segformer.encoder.patch_embeddings.0.proj.weight",
            "segformer.encoder.block.0.0.attention.self.query.weight",
            "decode_head.linear_c.0.proj.weight",
        ),
        _reader(_CLASSIC[0], "huggingface"), _CLASSIC[1],
    ),
    Family(
        "transformers5.segformer",
        "a SegFormer in the names of transformers 5",
        (
            "segformer.stages.0.patch_embeddings.proj.weight", "segformer.stages.0.blocks.0.attention.q_proj.weight",
            "decode_head.linear_projections.0.proj.weight",
        ),
        _reader(_TRANSFORMERS5[0], "huggingface"), _TRANSFORMERS5[1],
    ),
)  # fmt: skip

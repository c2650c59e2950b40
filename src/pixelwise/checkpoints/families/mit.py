"""Mix Transformer encoders (SegFormer's), as others name their tensors. Ours are the release's names.

Hugging Face keeps keys and values apart where the release has one linear layer (keys first), and
mmsegmentation has queries, keys and values in one and the two linear layers of the feed-forward part as 1x1
convolutions. BACKBONES are files that hold the encoder alone, or under a classifier.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import torch

from pixelwise.checkpoints.family import Family
from pixelwise.encoders.mit import SIZES
from pixelwise.weights.origin import Origin
from pixelwise.weights.renames import Renames, Tensors, rename

Pairs = tuple[tuple[str, str], ...]


def classic(theirs: str, ours: str) -> Pairs:
    """Hugging Face's names up to transformers 4, and in files to this day. theirs, ours: prefixes of the
    names.
    """
    block, our_block = f"{theirs}block.{{i-1}}.{{k}}.", f"{ours}block{{i}}.{{k}}."
    return (
        (f"{theirs}patch_embeddings.{{i-1}}.proj.{{rest}}", f"{ours}patch_embed{{i}}.proj.{{rest}}"),
        (f"{theirs}patch_embeddings.{{i-1}}.layer_norm.{{rest}}", f"{ours}patch_embed{{i}}.norm.{{rest}}"),
        (f"{theirs}layer_norm.{{i-1}}.{{rest}}", f"{ours}norm{{i}}.{{rest}}"),
        (f"{block}layer_norm_{{j:1|2}}.{{rest}}", f"{our_block}norm{{j:1|2}}.{{rest}}"),
        (f"{block}attention.self.query.{{rest}}", f"{our_block}attn.q.{{rest}}"),
        (f"{block}attention.self.{{kv:key|value}}.{{rest}}", f"{our_block}attn.{{kv:key|value}}.{{rest}}"),
        (f"{block}attention.self.sr.{{rest}}", f"{our_block}attn.sr.{{rest}}"),
        (f"{block}attention.self.layer_norm.{{rest}}", f"{our_block}attn.norm.{{rest}}"),
        (f"{block}attention.output.dense.{{rest}}", f"{our_block}attn.proj.{{rest}}"),
        (f"{block}mlp.dense{{j:1|2}}.{{rest}}", f"{our_block}mlp.fc{{j:1|2}}.{{rest}}"),
        (f"{block}mlp.dwconv.dwconv.{{rest}}", f"{our_block}mlp.dwconv.dwconv.{{rest}}"),
    )


def transformers5(theirs: str, ours: str) -> Pairs:
    """The names inside transformers 5."""
    stage = f"{theirs}stages.{{i-1}}."
    block, our_block = f"{stage}blocks.{{k}}.", f"{ours}block{{i}}.{{k}}."
    return (
        (f"{stage}patch_embeddings.proj.{{rest}}", f"{ours}patch_embed{{i}}.proj.{{rest}}"),
        (f"{stage}patch_embeddings.layer_norm.{{rest}}", f"{ours}patch_embed{{i}}.norm.{{rest}}"),
        (f"{stage}layer_norm.{{rest}}", f"{ours}norm{{i}}.{{rest}}"),
        (f"{block}layernorm_before.{{rest}}", f"{our_block}norm1.{{rest}}"),
        (f"{block}layernorm_after.{{rest}}", f"{our_block}norm2.{{rest}}"),
        (f"{block}attention.q_proj.{{rest}}", f"{our_block}attn.q.{{rest}}"),
        (f"{block}attention.k_proj.{{rest}}", f"{our_block}attn.key.{{rest}}"),
        (f"{block}attention.v_proj.{{rest}}", f"{our_block}attn.value.{{rest}}"),
        (f"{block}attention.sequence_reduction.sequence_reduction.{{rest}}", f"{our_block}attn.sr.{{rest}}"),
        (f"{block}attention.sequence_reduction.layer_norm.{{rest}}", f"{our_block}attn.norm.{{rest}}"),
        (f"{block}attention.o_proj.{{rest}}", f"{our_block}attn.proj.{{rest}}"),
        (f"{block}mlp.fc{{j:1|2}}.{{rest}}", f"{our_block}mlp.fc{{j:1|2}}.{{rest}}"),
        (f"{block}mlp.dwconv.dwconv.{{rest}}", f"{our_block}mlp.dwconv.dwconv.{{rest}}"),
    )


def mmseg(theirs: str, ours: str) -> Pairs:
    stage = f"{theirs}layers.{{i-1}}."
    block, our_block = f"{stage}1.{{k}}.", f"{ours}block{{i}}.{{k}}."
    return (
        (f"{stage}0.projection.{{rest}}", f"{ours}patch_embed{{i}}.proj.{{rest}}"),
        (f"{stage}0.norm.{{rest}}", f"{ours}patch_embed{{i}}.norm.{{rest}}"),
        (f"{stage}2.{{rest}}", f"{ours}norm{{i}}.{{rest}}"),
        (f"{block}norm{{j:1|2}}.{{rest}}", f"{our_block}norm{{j:1|2}}.{{rest}}"),
        (f"{block}attn.attn.in_proj_{{rest}}", f"{our_block}attn.qkv.{{rest}}"),
        (f"{block}attn.attn.out_proj.{{rest}}", f"{our_block}attn.proj.{{rest}}"),
        (f"{block}attn.{{part:sr|norm}}.{{rest}}", f"{our_block}attn.{{part:sr|norm}}.{{rest}}"),
        (f"{block}ffn.layers.0.{{rest}}", f"{our_block}mlp.fc1.{{rest}}"),
        (f"{block}ffn.layers.1.{{rest}}", f"{our_block}mlp.dwconv.dwconv.{{rest}}"),
        (f"{block}ffn.layers.4.{{rest}}", f"{our_block}mlp.fc2.{{rest}}"),
    )


def join_key_and_value(tensors: Tensors) -> Tensors:
    """Every attn.key and attn.value (c, ...) become attn.kv (2c, ...), keys first; others stay. What has no
    fitting partner stays too, for the loading to report.
    """
    joined = dict(tensors)
    for name, key in tensors.items():
        value = tensors.get(name.replace(".attn.key.", ".attn.value."))
        if ".attn.key." in name and value is not None and value.shape == key.shape:
            joined[name.replace(".attn.key.", ".attn.kv.")] = torch.cat([key, value])
            del joined[name], joined[name.replace(".attn.key.", ".attn.value.")]
    return joined


def part_key_and_value(tensors: Tensors) -> Tensors:
    """The way back: every attn.kv becomes attn.key and attn.value."""
    parted: Tensors = {}
    for name, tensor in tensors.items():
        if ".attn.kv." in name:
            key, value = (half.clone() for half in tensor.chunk(2))
            parted[name.replace(".attn.kv.", ".attn.key.")] = key
            parted[name.replace(".attn.kv.", ".attn.value.")] = value
        else:
            parted[name] = tensor
    return parted


def _linear_from_mmseg(tensors: Tensors) -> Tensors:
    ours: Tensors = {}
    for name, tensor in tensors.items():
        if ".attn.qkv." in name and tensor.shape[0] % 3 == 0:
            c = tensor.shape[0] // 3
            ours[name.replace(".attn.qkv.", ".attn.q.")] = tensor[:c].clone()
            ours[name.replace(".attn.qkv.", ".attn.kv.")] = tensor[c:].clone()
        elif re.search(r"\.mlp\.fc[12]\.weight$", name) and tensor.shape[2:] == (1, 1):
            ours[name] = tensor.flatten(1)
        else:
            ours[name] = tensor
    return ours


def _linear_to_mmseg(tensors: Tensors) -> Tensors:
    theirs: Tensors = {}
    for name, tensor in tensors.items():
        if ".attn.q." in name:
            both = [tensor, tensors[name.replace(".attn.q.", ".attn.kv.")]]
            theirs[name.replace(".attn.q.", ".attn.qkv.")] = torch.cat(both)
        elif re.search(r"\.mlp\.fc[12]\.weight$", name):
            theirs[name] = tensor[:, :, None, None]
        elif ".attn.kv." not in name:
            theirs[name] = tensor
    return theirs


def sizes_of(tensors: Tensors, prefix: str = "") -> tuple[tuple[int, ...], tuple[int, ...], int]:
    """Channels and depths of the four stages, and the input channels, of an encoder in our names."""
    patches = [tensors[f"{prefix}patch_embed{i}.proj.weight"] for i in (1, 2, 3, 4)]
    depths = [
        len({name.split(".")[at + 1] for name in tensors if name.startswith(f"{prefix}block{i}.")})
        for i, at in ((i, prefix.count(".")) for i in (1, 2, 3, 4))
    ]
    return tuple(p.shape[0] for p in patches), tuple(depths), patches[0].shape[1]


def options_of(tensors: Tensors, prefix: str = "") -> dict[str, Any]:
    """What else shapes show of an encoder in our names, where it is not as in the paper: `MixTransformer`'s reductions,
    patches and mlp_ratio."""
    reductions, patches, ratios = [], [], []
    for i in (1, 2, 3, 4):
        reduction = tensors.get(f"{prefix}block{i}.0.attn.sr.weight")
        reductions.append(1 if reduction is None else reduction.shape[-1])
        patches.append(tensors[f"{prefix}patch_embed{i}.proj.weight"].shape[-1])
        hidden, channels = tensors[f"{prefix}block{i}.0.mlp.fc1.weight"].shape
        ratios.append(ratio_of(hidden, channels))
    found = {"reductions": tuple(reductions), "patches": tuple(patches), "mlp_ratio": tuple(ratios)}
    usual = {"reductions": (8, 4, 2, 1), "patches": (7, 3, 3, 3), "mlp_ratio": (4, 4, 4, 4)}
    return {key: value for key, value in found.items() if value != usual[key]}


def ratio_of(hidden: int, channels: int) -> float:
    """A number whose product with the channels, rounded down, is hidden."""
    return hidden // channels if hidden % channels == 0 else hidden / channels * (1 + 1e-9)


def encoder_of(channels: tuple[int, ...], depths: tuple[int, ...]) -> str | None:
    """The name of the Mix Transformer with these sizes, or None."""
    return next((name for name, size in SIZES.items() if size == (channels, depths)), None)


def _backbone(
    name: str, says: str, marks: tuple[str, ...], eps: str,
    to_ours: Callable[[Tensors], Tensors], to_theirs: Callable[[Tensors], Tensors], drops: tuple[str, ...] = (),
) -> Family:  # fmt: skip
    def read(tensors: Tensors) -> tuple[Origin, Tensors]:
        ours = to_ours(tensors)
        channels, depths, in_channels = sizes_of(ours)
        encoder = encoder_of(channels, depths)
        sizes = {} if encoder else {"channels": channels, "depths": depths}
        return Origin(encoder or "mit_b0", {**sizes, "in_channels": in_channels, "eps": eps}), ours

    return Family(name, says, marks, read, to_theirs, drops)


def tables(*pairs: tuple[str, str]) -> tuple[Callable[[Tensors], Tensors], Callable[[Tensors], Tensors]]:
    """The way to our names, keys and values joined, and the way back."""
    table = Renames(*pairs)
    return (
        lambda tensors: join_key_and_value(rename(tensors, table)),
        lambda tensors: rename(part_key_and_value(tensors), table, back=True),
    )


_MMSEG = Renames(*mmseg("", ""))


def from_mmseg(tensors: Tensors) -> Tensors:
    """Encoder tensors in mmsegmentation's names, without prefix, in ours."""
    return _linear_from_mmseg(rename(tensors, _MMSEG))


def to_mmseg(tensors: Tensors) -> Tensors:
    return rename(_linear_to_mmseg(tensors), _MMSEG, back=True)


BACKBONES: tuple[Family, ...] = (
    _backbone(
        "nvlabs.mit",
        "a Mix Transformer of the SegFormer release (mit_b0.pth and so on)",
        ("patch_embed1.proj.weight", "block1.0.attn.kv.weight", "norm1.weight"),
        "nvlabs", dict, dict, ("head.*",),
    ),
    _backbone(
        "huggingface.mit",
        "a Mix Transformer of Hugging Face (nvidia/mit-b0 and so on)",
        ("segformer.encoder.patch_embeddings.0.proj.weight", "segformer.encoder.layer_norm.0.weight"),
        "huggingface", *tables(*classic("segformer.encoder.", "")), ("classifier.*",),
    ),
    _backbone(
        "transformers5.mit",
        "a Mix Transformer in the names of transformers 5",
        ("segformer.stages.0.patch_embeddings.proj.weight", "segformer.stages.0.layer_norm.weight"),
        "huggingface", *tables(*transformers5("segformer.", "")), ("classifier.*",),
    ),
    _backbone(
        "mmseg.mit",
        "a Mix Transformer of mmsegmentation",
        ("layers.0.0.projection.weight", "layers.0.1.0.attn.attn.in_proj_weight", "layers.0.2.weight"),
        "mmseg", from_mmseg, to_mmseg,
    ),
)  # fmt: skip
"""Encoders alone. `Origin.model` is a key of `encoders.mit.SIZES`, to be built by `MixTransformer`."""

FAMILIES: tuple[Family, ...] = ()
"""Nothing here is a whole network."""

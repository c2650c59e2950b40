"""The twelve decoders once more, written down from their papers and SMP's names: slow, and sharing no code with ours.

Each takes the tensors of a network by name, the encoder's features by stride, and the image's height and width, and
gives the coarse logits. Letters: n batch, c channels, h w pixels.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from deeplab import bilinear, holes, normed

Names = Mapping[str, Tensor]
Features = Sequence[tuple[int, Tensor]]
"""(stride, feature), finest first."""


def conv(x: Tensor, names: Names, name: str, *, stride: int = 1, rate: int = 1) -> Tensor:
    weight, bias = names[f"{name}.weight"], names.get(f"{name}.bias")
    groups = x.shape[1] // weight.shape[1]
    return F.conv2d(x, weight, bias, stride, (weight.shape[-1] - 1) * rate // 2, rate, groups)


def norm(x: Tensor, names: Names, name: str) -> Tensor:
    """Batch norm where there are statistics, groups of four channels where there are none, nothing without a norm."""
    if f"{name}.running_mean" in names:
        return normed(x, names, name)
    if f"{name}.weight" not in names:
        return x
    grouped = x.unflatten(1, (-1, 4))
    mean = grouped.mean((2, 3, 4), keepdim=True)
    var = (grouped - mean).square().mean((2, 3, 4), keepdim=True)
    x = ((grouped - mean) / torch.sqrt(var + 1e-5)).flatten(1, 2)
    return x * names[f"{name}.weight"][:, None, None] + names[f"{name}.bias"][:, None, None]


def layer(x: Tensor, names: Names, name: str, parts: Sequence[object] = (0, 1)) -> Tensor:
    """Convolution, norm, ReLU, called by `parts`."""
    return norm(conv(x, names, f"{name}.{parts[0]}"), names, f"{name}.{parts[1]}").relu()


def repeated(x: Tensor, size_hw: Sequence[int]) -> Tensor:
    """The nearest pixel: row i of the enlarged map is row floor(i h' / h)."""
    for axis, size in zip((2, 3), size_hw, strict=True):
        x = x.index_select(axis, torch.tensor([i * x.shape[axis] // size for i in range(size)]))
    return x


def means(x: Tensor, parts: int) -> Tensor:
    """Over parts x parts windows, the i-th from floor(i h / parts) to ceil((i + 1) h / parts)."""
    h, w = x.shape[2:]
    rows, columns = (
        [slice(i * side // parts, -(-(i + 1) * side // parts)) for i in range(parts)] for side in (h, w)
    )
    return torch.stack([torch.stack([x[:, :, r, c].mean((2, 3)) for c in columns], -1) for r in rows], -2)


def gate(x: Tensor, names: Names, name: str, first: int = 1, last: int = 3) -> Tensor:
    x = conv(x.mean((2, 3), keepdim=True), names, f"{name}.{first}").relu()
    return conv(x, names, f"{name}.{last}").sigmoid()


def steps(features: Features, size_hw: tuple[int, int]) -> list[tuple[Tensor | None, Sequence[int]]]:
    """From the deepest feature to the image: the feature of each stride, or None, and the height and width there."""
    skips = {stride: feature for stride, feature in features[:-1] if stride > 1}
    found, stride = [], features[-1][0] // 2
    while stride >= 1:
        skip = skips.get(stride)
        found.append((skip, [side // stride for side in size_hw] if skip is None else skip.shape[2:]))
        stride //= 2
    return found


def unet(names: Names, features: Features, size_hw: tuple[int, int]) -> Tensor:
    x = features[-1][1]
    for i, (skip, here) in enumerate(steps(features, size_hw)):
        x = repeated(x, here)
        x = x if skip is None else torch.cat([x, skip], 1)
        for part in ("conv1", "conv2"):
            x = layer(x, names, f"decoder.blocks.{i}.{part}")
    return conv(x, names, "segmentation_head.0")


def unetplusplus(names: Names, features: Features, size_hw: tuple[int, int]) -> Tensor:
    """Node (d, i) sees the one below it, and all on its left in its own row, at whose end is the encoder's feature."""
    rows = steps(features, size_hw)
    known: dict[tuple[int, int], Tensor] = {(0, -1): features[-1][1]}
    known |= {(i + 1, i): skip for i, (skip, _) in enumerate(rows) if skip is not None}

    def node(d: int, i: int) -> Tensor:
        if (d, i) not in known:
            left = [node(e, i) for e in range(d + 1, i + 2)] if rows[i][0] is not None else []
            x = torch.cat([repeated(node(d, i - 1), rows[i][1]), *left], 1)
            for part in ("conv1", "conv2"):
                x = layer(x, names, f"decoder.blocks.x_{d}_{i}.{part}")
            known[d, i] = x
        return known[d, i]

    return conv(node(0, len(rows) - 1), names, "segmentation_head.0")


def manet(names: Names, features: Features, size_hw: tuple[int, int]) -> Tensor:
    x = features[-1][1]
    asked, asking, values = (
        conv(x, names, f"decoder.center.{part}_conv").flatten(2) for part in ("top", "center", "bottom")
    )
    shares = torch.einsum("npt,nps->nts", asking, asked).softmax(-1)  # of every place s in place t
    x = conv(x + torch.einsum("nts,ncs->nct", shares, values).view(x.shape), names, "decoder.center.out_conv")
    for i, (skip, here) in enumerate(steps(features, size_hw)):
        name = f"decoder.blocks.{i}"
        if skip is None:
            x = repeated(x, here)
        else:
            x = layer(layer(x, names, f"{name}.hl_conv.0"), names, f"{name}.hl_conv.1")
            x = repeated(x, here)
            x = torch.cat(
                [x * (gate(x, names, f"{name}.SE_hl") + gate(skip, names, f"{name}.SE_ll")), skip], 1
            )
        for part in ("conv1", "conv2"):
            x = layer(x, names, f"{name}.{part}")
    return conv(x, names, "segmentation_head.0")


def linknet(names: Names, features: Features, size_hw: tuple[int, int]) -> Tensor:
    x = features[-1][1]
    for i, (skip, here) in enumerate(steps(features, size_hw)):
        name = f"decoder.blocks.{i}.block"
        x = layer(x, names, f"{name}.0")
        apart = x.new_zeros(*x.shape[:2], 2 * x.shape[2] - 1, 2 * x.shape[3] - 1)
        apart[:, :, ::2, ::2] = x  # a transposed convolution is a convolution of pixels moved apart
        weight = names[f"{name}.1.0.weight"].transpose(0, 1).flip(2, 3)
        x = F.conv2d(F.pad(apart, (2, 2, 2, 2)), weight, names[f"{name}.1.0.bias"])
        x = layer(norm(x, names, f"{name}.1.1").relu(), names, f"{name}.2")
        x = bilinear(x, tuple(here), align_corners=False)
        x = x if skip is None else x + skip
    return conv(x, names, "segmentation_head.0")


def fpn(names: Names, features: Features, size_hw: tuple[int, int]) -> Tensor:
    used = [feature for stride, feature in features if stride > 1][-4:][::-1]  # deepest first
    level, merged = conv(used[0], names, "decoder.p5"), 0
    for i, feature in enumerate(used):
        if i > 0:
            level = repeated(level, feature.shape[2:]) + conv(feature, names, f"decoder.p{5 - i}.skip_conv")
        x, finer = level, used[i + 1 :]
        for j in range(max(1, len(finer))):
            x = layer(x, names, f"decoder.seg_blocks.{i}.block.{j}.block")
            x = bilinear(x, tuple(finer[j].shape[2:]), align_corners=True) if finer else x
        merged = merged + x
    return conv(merged, names, "segmentation_head.0")


def pspnet(names: Names, features: Features, size_hw: tuple[int, int]) -> Tensor:
    x = features[-1][1]
    pooled = [
        bilinear(
            layer(means(x, parts), names, f"decoder.psp.blocks.{i}.pool.1"),
            tuple(x.shape[2:]),
            align_corners=True,
        )
        for i, parts in enumerate((1, 2, 3, 6))
    ]
    return conv(layer(torch.cat([*pooled, x], 1), names, "decoder.conv"), names, "segmentation_head.0")


def pan(names: Names, features: Features, size_hw: tuple[int, int]) -> Tensor:
    *finer, x = [feature for stride, feature in features if stride >= 4]
    parts = ("conv", "bn")
    maps = [x]
    for i, inner in enumerate((["1"], ["1"], ["1", "2"]), start=1):
        y = F.max_pool2d(maps[-1], 2)
        for part in inner:
            y = layer(y, names, f"decoder.fpa.down{i}.{part}", parts)
        maps.append(y)
    y = maps[3]
    for i in (2, 1):
        y = bilinear(y, tuple(maps[i].shape[2:]), align_corners=True)
        y = y + layer(maps[i], names, f"decoder.fpa.conv{i}", parts)
    y = bilinear(y, tuple(x.shape[2:]), align_corners=True)
    whole = layer(x.mean((2, 3), keepdim=True), names, "decoder.fpa.branch1.1", parts)
    x = y * layer(x, names, "decoder.fpa.mid.0", parts) + whole
    for i in range(len(finer), 0, -1):
        name, fine = f"decoder.gau{i}", finer[i - 1]
        share = norm(
            conv(x.mean((2, 3), keepdim=True), names, f"{name}.conv1.1.conv"), names, f"{name}.conv1.1.bn"
        )
        x = bilinear(x, tuple(fine.shape[2:]), align_corners=True)
        x = x + layer(fine, names, f"{name}.conv2", parts) * share.sigmoid()
    return conv(x, names, "segmentation_head.0")


def aspp(x: Tensor, names: Names, name: str, *, separable: bool) -> Tensor:
    branches = [layer(x, names, f"{name}.convs.0")]
    for i, rate in enumerate((12, 24, 36), start=1):
        branch = f"{name}.convs.{i}"
        if separable:
            y = conv(conv(x, names, f"{branch}.0.0", rate=rate), names, f"{branch}.0.1")
        else:
            y = holes(x, names[f"{branch}.0.weight"], None, rate)
        branches.append(norm(y, names, f"{branch}.1").relu())
    whole = layer(x.mean((2, 3), keepdim=True), names, f"{name}.convs.4", (1, 2))
    return layer(torch.cat([*branches, whole.expand_as(branches[0])], 1), names, f"{name}.project")


def deeplabv3(names: Names, features: Features, size_hw: tuple[int, int]) -> Tensor:
    x = aspp(features[-1][1], names, "decoder.aspp", separable=False)
    return conv(layer(x, names, "decoder", ("conv", "bn")), names, "segmentation_head.0")


def deeplabv3plus(names: Names, features: Features, size_hw: tuple[int, int]) -> Tensor:
    x = aspp(features[-1][1], names, "decoder.aspp.0", separable=True)
    x = conv(conv(x, names, "decoder.aspp.1.0"), names, "decoder.aspp.1.1")
    x = norm(x, names, "decoder.aspp.2").relu()
    fine = layer(next(f for stride, f in features if stride >= 4), names, "decoder.block1")
    x = torch.cat([bilinear(x, tuple(fine.shape[2:]), align_corners=True), fine], 1)
    x = conv(conv(x, names, "decoder.block2.0.0"), names, "decoder.block2.0.1")
    return conv(norm(x, names, "decoder.block2.1").relu(), names, "segmentation_head.0")


def upernet(names: Names, features: Features, size_hw: tuple[int, int]) -> Tensor:
    used = []
    for i, x in enumerate(feature for stride, feature in features if stride >= 4):
        apart = x - x.mean(1, keepdim=True)
        x = apart / torch.sqrt(apart.square().mean(1, keepdim=True) + 1e-6)
        weight, bias = (names[f"decoder.feature_norms.{i}.{kind}"] for kind in ("weight", "bias"))
        used.append(x * weight[:, None, None] + bias[:, None, None])
    deepest = used[-1]
    pooled = [
        bilinear(
            layer(means(deepest, parts), names, f"decoder.psp.blocks.{i}.1"), tuple(deepest.shape[2:]),
            align_corners=False,
        )
        for i, parts in enumerate((1, 2, 3, 6))
    ]  # fmt: skip
    state = layer(torch.cat([deepest, *pooled], 1), names, "decoder.psp.out_conv")
    levels = [state]
    for i, feature in enumerate(used[-2::-1]):
        state = bilinear(state, tuple(feature.shape[2:]), align_corners=False)
        state = state + layer(feature, names, f"decoder.fpn_lateral_blocks.{i}.conv_norm_relu")
        levels.append(layer(state, names, f"decoder.fpn_conv_blocks.{i}"))
    size = tuple(used[0].shape[2:])
    x = torch.cat([bilinear(level, size, align_corners=False) for level in levels[::-1]], 1)
    return conv(layer(x, names, "decoder.fusion_block"), names, "segmentation_head.0")


def segformer(names: Names, features: Features, size_hw: tuple[int, int]) -> Tensor:
    used = [(stride, feature) for stride, feature in features if stride > 1]
    size = next((f.shape[2:] for stride, f in used if stride >= 4), used[-1][1].shape[2:])
    levels = []
    for i, (_, feature) in enumerate(used[::-1]):
        weight, bias = (names[f"decoder.mlp_stage.{i}.linear.{kind}"] for kind in ("weight", "bias"))
        projected = torch.einsum("dc,nchw->ndhw", weight, feature) + bias[:, None, None]
        levels.append(bilinear(projected, tuple(size), align_corners=False))
    return conv(layer(torch.cat(levels, 1), names, "decoder.fuse_stage"), names, "segmentation_head.0")


def dpt(
    names: Names, features: Sequence[tuple[int, tuple[Tensor, Tensor | None]]], size_hw: tuple[int, int]
) -> Tensor:
    """Features become those of strides 4, 8, 16 and 32; each comes with its tokens, or None. Patches of 14 are 16."""
    maps = []
    for i, (stride, (x, tokens)) in enumerate(features):
        name = f"decoder.projection_blocks.{i}.project.0"
        both = x if tokens is None else torch.cat([x, tokens[:, 0, :, None, None].expand_as(x)], 1)
        x = torch.einsum("dc,nchw->ndhw", names[f"{name}.weight"], both)
        x = F.gelu(x + names[f"{name}.bias"][:, None, None])
        name = f"decoder.reassemble_blocks.{i}"
        x = conv(x, names, f"{name}.project_to_out_channel")
        doublings = {4: 2, 8: 3, 14: 4, 16: 4, 32: 5}[stride] - (i + 2)
        if doublings > 0:  # every pixel becomes a square of its own
            weight, bias = (names[f"{name}.upsample.{kind}"] for kind in ("weight", "bias"))
            squares = torch.einsum("nchw,cdyx->ndhywx", x, weight)
            x = squares.flatten(4, 5).flatten(2, 3) + bias[:, None, None]
        elif doublings < 0:
            x = conv(x, names, f"{name}.upsample", stride=2**-doublings)
        maps.append(conv(x, names, f"{name}.project_to_feature_dim"))

    def residual(x: Tensor, name: str) -> Tensor:
        y = x
        for part in "12":
            y = norm(conv(y.relu(), names, f"{name}.conv_{part}"), names, f"{name}.batch_norm_{part}")
        return x + y

    fused: Tensor | None = None
    for i, x in enumerate(maps[::-1]):
        name, last = f"decoder.fusion_blocks.{i}", i == len(maps) - 1
        size = [math.ceil(side / 2) for side in size_hw] if last else maps[-2 - i].shape[2:]
        x = residual(x, f"{name}.residual_conv_block1")
        x = residual(x if fused is None else x + fused, f"{name}.residual_conv_block2")
        fused = conv(bilinear(x, tuple(size), align_corners=True), names, f"{name}.project")
    assert fused is not None
    return conv(layer(fused, names, "segmentation_head.head"), names, "segmentation_head.head.4")


BY_HAND: dict[str, Callable[..., Tensor]] = {
    function.__name__: function
    for function in (
        unet, unetplusplus, manet, linknet, fpn, pspnet, pan, deeplabv3, deeplabv3plus, upernet, segformer, dpt,
    )
}  # fmt: skip


def coarse_by_hand(name: str, network: nn.Module, image: Tensor) -> Tensor:
    """The coarse logits of decoder `name` for an image, from the network's tensors and its encoder's features."""
    features = zip(network.encoder.strides, network.features(image), strict=True)
    return BY_HAND[name](network.state_dict(), list(features), (image.shape[2], image.shape[3]))

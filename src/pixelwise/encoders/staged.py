"""Classifiers of torchvision and timm cut into stages, whatever their family: one table, one class.

A network that is a chain of modules needs no code of its own to become an encoder: it is enough to say after which
of its modules a feature is taken. Keys stay those of the network, which for all families here are also those of
segmentation_models.pytorch (SMP); two are timm's networks under SMP's names (`encoders.renamed`).

Letters: n batch, c channels, h w pixels.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

from torch import Tensor, nn
from torch.nn import functional as F

from pixelwise.encoders.renamed import EfficientNet, MobileOne, efficientnet_stages
from pixelwise.errors import UnknownNameError
from pixelwise.weights import store
from pixelwise.weights.renames import Renames

Paths = tuple[str, ...]


class StagedEncoder(nn.Module):
    """image (n, in_channels, h, w) -> one feature per stage, finest first.

    network: the classifier. stages: for each feature the names of the modules that lead to it from the one before;
    what no stage names is dropped. strides: of the features; those above `output_stride` are dilated instead, see
    `dilate`. rectified: a feature passes a ReLU that the next stage does not see (dual path networks). before: names
    that its tensors had in files written earlier, which load too. Sizes are those that the network's own convolutions
    and poolings give: the ones that round down (VGG, DenseNet, Xception, Inception, SE-ResNet, EfficientNet of SMP)
    want sides that are multiples of the largest stride, or lose last rows.
    """

    def __init__(
        self,
        network: nn.Module,
        stages: Sequence[Paths],
        *,
        channels: Sequence[int],
        strides: Sequence[int],
        output_stride: int = 32,
        dilation: str = "classic",
        rectified: bool = False,
        before: Renames | None = None,
    ) -> None:
        super().__init__()
        dilate(network, stages, strides, output_stride, rule=dilation)
        _keep_only(network, {path for stage in stages for path in stage})
        for name, child in network.named_children():
            self.add_module(name, child)
        self.paths, self.rectified = tuple(stages), rectified
        self.channels = tuple(channels)
        self.strides = tuple(min(stride, output_stride) for stride in strides)
        if before is not None:
            self.names_before = before
            self.register_load_state_dict_pre_hook(store.rename_older)  # type: ignore[no-untyped-call]

    def forward(self, image: Tensor) -> list[Tensor]:
        features, x = [], image
        for stage in self.paths:
            for path in stage:
                x = self.get_submodule(path)(x)
            features.append(F.relu(x) if self.rectified else x)
        return features


def dilate(
    network: nn.Module, stages: Sequence[Paths], strides: Sequence[int], output_stride: int, *, rule: str
) -> None:
    """Turn the strides of all stages beyond `output_stride` into dilation, in place.

    rule "classic": of torchvision, timm and the DeepLab papers: the convolution that loses its stride keeps the rate
    of the stage before, those after it take the new one. rule "smp": of segmentation_models.pytorch: every
    convolution of the stage takes the new rate, the first as well, and pads by (kernel // 2) * rate. Weights trained
    with one do not give the same numbers with the other.
    """
    if rule not in RULES:
        raise ValueError(f"dilation must be one of {', '.join(RULES)}, got {rule!r}")
    rate = 1
    for stage, stride in zip(stages, strides, strict=True):
        if stride <= output_stride:
            continue
        before, rate = rate, stride // output_stride
        inner = [module for path in stage for module in network.get_submodule(path).modules()]
        if any(isinstance(module, (nn.MaxPool2d, nn.AvgPool2d)) for module in inner):
            raise ValueError(
                f"{type(network).__name__} halves its image by pooling, which cannot be dilated; "
                f"its output_stride must be 32, got {output_stride}"
            )
        now = before if rule == "classic" else rate
        for conv in (module for module in inner if isinstance(module, nn.Conv2d)):
            strided = conv.stride != (1, 1)
            k = conv.kernel_size
            conv.stride = (1, 1)
            if k != (1, 1):
                conv.dilation = (now, now)
                conv.padding = (k[0] // 2 * now, (k[1] if rule == "classic" else k[0]) // 2 * now)
            if isinstance(conv, StaticPadding):
                conv.pads = (0, 0, 0, 0)
            if strided:
                now = rate


RULES = ("classic", "smp")


def _keep_only(module: nn.Module, paths: set[str]) -> None:
    """Delete every child that is neither in `paths`, nor holds or lies within what is."""
    for name in [name for name, _ in module.named_children()]:
        if name in paths:
            continue
        below = {path.partition(".")[2] for path in paths if path.partition(".")[0] == name}
        if below:
            _keep_only(module.get_submodule(name), below)
        else:
            del module._modules[name]


class StaticPadding(nn.Conv2d):
    """A convolution that pads by `pads` (left, right, top, bottom), whatever the size of its input."""

    pads = (0, 0, 0, 0)

    def forward(self, x: Tensor) -> Tensor:
        left, right, top, bottom = self.pads
        if left + right + top + bottom > 0:
            x = F.pad(x, [left, right, top, bottom])
        convolved: Tensor = self._conv_forward(x, self.weight, self.bias)  # TorchScript knows no super()
        return convolved


def pad_as_for(network: nn.Module, size_px: int) -> nn.Module:
    """Give every convolution the padding that TensorFlow's "SAME" has for an image of `size_px`, in place.

    So does EfficientNet in SMP and the port it comes from: at other sizes their padding differs from TensorFlow's,
    and at all sizes from timm's `tf_efficientnet`, which pads anew for each image.
    """
    for name, conv in list(network.named_modules()):
        if not isinstance(conv, nn.Conv2d) or ".se." in name:
            continue
        side = math.ceil(size_px / conv.stride[0])
        k = conv.kernel_size[0]
        pad = max((side - 1) * conv.stride[0] + k - size_px, 0)
        if k > 1:
            static = StaticPadding(
                conv.in_channels, conv.out_channels, k, conv.stride[0], groups=conv.groups, bias=False,
                device="meta",
            )  # fmt: skip
            static.weight = conv.weight
            static.pads = (pad // 2, pad - pad // 2, pad // 2, pad - pad // 2)
            parent, _, leaf = name.rpartition(".")
            setattr(network.get_submodule(parent), leaf, static)
        size_px = side
    return network


# The families ------------------------------------------------------------------------------------------------------


class Family(NamedTuple):
    """build: the classifier, from in_channels and drop_path or whatever else it takes. stages, channels, strides: as
    `StagedEncoder` takes them, for the whole network.
    """

    build: Callable[..., nn.Module]
    stages: tuple[Paths, ...]
    channels: tuple[int, ...]
    strides: tuple[int, ...] = (2, 4, 8, 16, 32)
    rectified: bool = False


def family(name: str) -> Family:
    """The row of `name`, one of SMP's names of encoders; UnknownNameError if it is not in the tables below."""
    if name in RESNETS:
        layers, wide, arguments = RESNETS[name]
        return Family(partial(_resnet, layers, wide, arguments), _resnet_stages("relu"), _RESNET[wide])
    if name in SE_NETS:
        stem = 128 if name == "senet154" else 64
        return Family(partial(_timm, SE_NETS[name]), SE_NET_STAGES, (stem, *_RESNET[True][1:]))
    if name in SK_NETS:
        layers, wide = SK_NETS[name]
        return Family(partial(_sknet, layers, wide), _resnet_stages("act1"), _RESNET[wide])
    if name in DPNS:
        return Family(partial(_timm, name), *_dpn_stages(*DPNS[name]), rectified=True)
    if name in VGGS:
        return Family(partial(_torchvision, name), _vgg_stages(name), (64, 128, 256, 512, 512, 512), _FROM_1)
    if name in DENSENETS:
        return Family(partial(_torchvision, name), DENSENET_STAGES, DENSENETS[name])
    if name == "mobilenet_v2":
        return Family(partial(_torchvision, name), MOBILENET_V2_STAGES, (16, 24, 32, 96, 1280))
    if name in EFFICIENTNETS:
        network, size_px, channels = EFFICIENTNETS[name]
        stages = EFFICIENTNET_STAGES if size_px is None else efficientnet_stages(name[-2:])
        return Family(partial(_efficientnet, network, size_px), stages, channels)
    if name in OTHERS:
        return OTHERS[name]
    raise UnknownNameError("encoder", name, NAMES)


def _torchvision(name: str, *, in_channels: int) -> nn.Module:
    from torchvision import models

    network: nn.Module = getattr(models, name)(weights=None)
    return _first(network, in_channels)


def _timm(name: str, *, in_channels: int, **options: Any) -> nn.Module:
    import timm

    network: nn.Module = timm.create_model(name, pretrained=False, in_chans=in_channels, **options)
    return network


def _first(network: nn.Module, in_channels: int) -> nn.Module:
    """The same with a first convolution, random, for another number of channels."""
    if in_channels == 3:
        return network
    name, conv = next((n, m) for n, m in network.named_modules() if isinstance(m, nn.Conv2d))
    new: Any = copy.copy(conv)
    new.in_channels, new._parameters = in_channels, dict(conv._parameters)
    new.weight = nn.Parameter(conv.weight.new_empty(conv.out_channels, in_channels, *conv.kernel_size))
    nn.init.kaiming_normal_(new.weight, mode="fan_out", nonlinearity="relu")
    parent, _, leaf = name.rpartition(".")
    setattr(network.get_submodule(parent), leaf, new)
    return network


RESNETS: dict[str, tuple[tuple[int, ...], bool, dict[str, int]]] = {
    # Table 1 of 1512.03385; ResNeXt: 1611.05431. layers, bottlenecks, groups
    "resnet18": ((2, 2, 2, 2), False, {}),
    "resnet34": ((3, 4, 6, 3), False, {}),
    "resnet50": ((3, 4, 6, 3), True, {}),
    "resnet101": ((3, 4, 23, 3), True, {}),
    "resnet152": ((3, 8, 36, 3), True, {}),
    "resnext50_32x4d": ((3, 4, 6, 3), True, {"groups": 32, "width_per_group": 4}),
    "resnext101_32x4d": ((3, 4, 23, 3), True, {"groups": 32, "width_per_group": 4}),
    "resnext101_32x8d": ((3, 4, 23, 3), True, {"groups": 32, "width_per_group": 8}),
    "resnext101_32x16d": ((3, 4, 23, 3), True, {"groups": 32, "width_per_group": 16}),
    "resnext101_32x32d": ((3, 4, 23, 3), True, {"groups": 32, "width_per_group": 32}),
    "resnext101_32x48d": ((3, 4, 23, 3), True, {"groups": 32, "width_per_group": 48}),
}
_RESNET = {False: (64, 64, 128, 256, 512), True: (64, 256, 512, 1024, 2048)}


def _resnet_stages(activation: str) -> tuple[Paths, ...]:
    return (("conv1", "bn1", activation), ("maxpool", "layer1"), ("layer2",), ("layer3",), ("layer4",))


def _resnet(layers: Sequence[int], wide: bool, arguments: dict[str, int], *, in_channels: int) -> nn.Module:
    from torchvision.models.resnet import BasicBlock, Bottleneck, ResNet

    network: nn.Module = ResNet(Bottleneck if wide else BasicBlock, list(layers), **arguments)
    return _first(network, in_channels)


SE_NETS = {
    # 1709.01507, as released by their authors; timm's names
    "senet154": "legacy_senet154",
    "se_resnet50": "legacy_seresnet50",
    "se_resnet101": "legacy_seresnet101",
    "se_resnet152": "legacy_seresnet152",
    "se_resnext50_32x4d": "legacy_seresnext50_32x4d",
    "se_resnext101_32x4d": "legacy_seresnext101_32x4d",
}

SE_NET_STAGES: tuple[Paths, ...] = (("layer0",), ("pool0", "layer1"), ("layer2",), ("layer3",), ("layer4",))

SK_NETS = {
    # 1903.06586, with the attention as narrow as SMP has it, which is not timm's
    "timm-skresnet18": ((2, 2, 2, 2), False),
    "timm-skresnet34": ((3, 4, 6, 3), False),
    "timm-skresnext50_32x4d": ((3, 4, 6, 3), True),
}


def _sknet(layers: Sequence[int], wide: bool, *, in_channels: int) -> nn.Module:
    from timm.models.resnet import ResNet
    from timm.models.sknet import SelectiveKernelBasic, SelectiveKernelBottleneck

    arguments: dict[str, Any] = {"zero_init_last": False, "in_chans": in_channels}
    if wide:
        return ResNet(  # type: ignore[no-any-return]
            SelectiveKernelBottleneck, list(layers), cardinality=32, base_width=4, **arguments
        )
    attention = {"sk_kwargs": {"rd_ratio": 1 / 8, "split_input": True}}
    return ResNet(SelectiveKernelBasic, list(layers), block_args=attention, **arguments)  # type: ignore[no-any-return]


DPNS = {
    # Table 1 of 1707.01629: blocks of each stage; channels of the features
    "dpn68": ((3, 4, 12, 3), (10, 144, 320, 704, 832)),
    "dpn68b": ((3, 4, 12, 3), (10, 144, 320, 704, 832)),
    "dpn92": ((3, 4, 20, 3), (64, 336, 704, 1552, 2688)),
    "dpn98": ((3, 6, 20, 3), (96, 336, 768, 1728, 2688)),
    "dpn107": ((4, 8, 20, 3), (128, 376, 1152, 2432, 2688)),
    "dpn131": ((4, 8, 28, 3), (128, 352, 832, 1984, 2688)),
}


def _dpn_stages(blocks: Sequence[int], channels: Sequence[int]) -> tuple[tuple[Paths, ...], tuple[int, ...]]:
    stages = [
        tuple(f"features.conv{stage}_{block + 1}" for block in range(count))
        for stage, count in enumerate(blocks, start=2)
    ]
    stages[0] = ("features.conv1_pool", *stages[0])
    stages[-1] = (*stages[-1], "features.conv5_bn_ac")
    return (("features.conv1_1",), *stages), tuple(channels)


VGGS = {
    # Table 1 of 1409.1556: convolutions of each stage
    "vgg11": (1, 1, 2, 2, 2),
    "vgg13": (2, 2, 2, 2, 2),
    "vgg16": (2, 2, 3, 3, 3),
    "vgg19": (2, 2, 4, 4, 4),
}
VGGS |= {f"{name}_bn": counts for name, counts in VGGS.items()}
_FROM_1 = (1, 2, 4, 8, 16, 32)


def _vgg_stages(name: str) -> tuple[Paths, ...]:
    """Features end before each pooling, and after the last one."""
    stages, start, end = [], 0, 0
    for count in VGGS[name]:
        end += count * (3 if name.endswith("_bn") else 2)
        stages.append(tuple(f"features.{place}" for place in range(start, end)))
        start, end = end, end + 1
    return (*stages, (f"features.{start}",))


DENSENETS = {
    # Table 1 of 1608.06993: channels of the features, which are taken before a transition halves them
    "densenet121": (64, 256, 512, 1024, 1024),
    "densenet161": (96, 384, 768, 2112, 2208),
    "densenet169": (64, 256, 512, 1280, 1664),
    "densenet201": (64, 256, 512, 1792, 1920),
}


def _between(block: int) -> Paths:
    """From the middle of the transition before dense block `block` to the middle of the one after."""
    before, after = f"features.transition{block - 1}", f"features.transition{block}"
    return (
        f"{before}.conv", f"{before}.pool", f"features.denseblock{block}", f"{after}.norm", f"{after}.relu"
    )  # fmt: skip


DENSENET_STAGES: tuple[Paths, ...] = (
    ("features.conv0", "features.norm0", "features.relu0"),
    ("features.pool0", "features.denseblock1", "features.transition1.norm", "features.transition1.relu"),
    _between(2),
    _between(3),
    ("features.transition3.conv", "features.transition3.pool", "features.denseblock4", "features.norm5"),
)

MOBILENET_V2_STAGES: tuple[Paths, ...] = tuple(
    tuple(f"features.{place}" for place in range(start, end))
    for start, end in ((0, 2), (2, 4), (4, 7), (7, 14), (14, 19))
)
"""Unlike `pixelwise.encoders.mobilenet_v2` the last feature is after the last 1x1 convolution (1280 channels)."""

EFFICIENTNET_STAGES: tuple[Paths, ...] = (
    ("conv_stem", "bn1"),
    ("blocks.0", "blocks.1"),
    ("blocks.2",),
    ("blocks.3", "blocks.4"),
    ("blocks.5", "blocks.6"),
)

_EFFICIENTNETS = {
    # Table 8 of 1905.11946, b8: 1911.09665, l2: 1911.04252: published size, channels of the features
    "b0": (224, (32, 24, 40, 112, 320)),
    "b1": (240, (32, 24, 40, 112, 320)),
    "b2": (260, (32, 24, 48, 120, 352)),
    "b3": (300, (40, 32, 48, 136, 384)),
    "b4": (380, (48, 32, 56, 160, 448)),
    "b5": (456, (48, 40, 64, 176, 512)),
    "b6": (528, (56, 40, 72, 200, 576)),
    "b7": (600, (64, 48, 80, 224, 640)),
    "b8": (672, (72, 56, 88, 248, 704)),
    "l2": (800, (136, 104, 176, 480, 1376)),
}

EFFICIENTNETS: dict[str, tuple[str, int | None, tuple[int, ...]]] = {
    # timm's network, the size whose padding it keeps, channels
    **{
        f"efficientnet-{size}": (f"tf_efficientnet_{size}", px, channels)
        for size, (px, channels) in _EFFICIENTNETS.items()
        if size not in ("b8", "l2")
    },
    **{
        f"timm-efficientnet-{size}": (f"efficientnet_{size}", None, channels)
        for size, (_, channels) in _EFFICIENTNETS.items()
    },
    **{
        f"timm-tf_efficientnet_lite{size[1]}": (f"efficientnet_lite{size[1]}", None, (32, *channels[1:]))
        for size, (_, channels) in _EFFICIENTNETS.items()
        if size in ("b0", "b1", "b2", "b3", "b4")
    },
}


def _efficientnet(name: str, size_px: int | None, *, in_channels: int, drop_path: float = 0.2) -> nn.Module:
    network = _timm(name, in_channels=in_channels, drop_path_rate=drop_path)
    return network if size_px is None else EfficientNet(pad_as_for(network, size_px))


def _mobileone(name: str, *, in_channels: int, **options: Any) -> nn.Module:
    return MobileOne(_timm(name, in_channels=in_channels, **options))


def _padded(name: str, *, in_channels: int) -> nn.Module:
    """An Inception network whose 3x3 convolutions and poolings pad, so that features lie on a grid."""
    network = _timm(name, in_channels=in_channels)
    for module in network.modules():
        if isinstance(module, nn.Conv2d) and module.kernel_size == (3, 3):
            module.padding = (1, 1)
        elif isinstance(module, nn.MaxPool2d):
            module.padding = 1
    return network


def _xception(*, in_channels: int) -> nn.Module:
    network: Any = _timm("legacy_xception", in_channels=in_channels)
    network.conv1.padding = network.conv2.padding = (1, 1)
    return network  # type: ignore[no-any-return]


def _features(*ends: int) -> tuple[Paths, ...]:
    starts = (0, *ends[:-1])
    return tuple(tuple(f"features.{i}" for i in range(a, b)) for a, b in zip(starts, ends, strict=True))


OTHERS: dict[str, Family] = {
    "xception": Family(  # 1610.02357
        _xception,
        (
            ("conv1", "bn1", "act1", "conv2", "bn2", "act2"),
            ("block1",),
            ("block2",),
            tuple(f"block{i}" for i in range(3, 12)),
            ("block12", "conv3", "bn3", "act3", "conv4", "bn4"),
        ),
        (64, 128, 256, 728, 2048),
    ),
    "inceptionv4": Family(  # 1602.07261
        partial(_padded, "inception_v4"), _features(3, 5, 9, 15, 22), (64, 192, 384, 1024, 1536)
    ),
    "inceptionresnetv2": Family(
        partial(_padded, "inception_resnet_v2"),
        (
            ("conv2d_1a", "conv2d_2a", "conv2d_2b"),
            ("maxpool_3a", "conv2d_3b", "conv2d_4a"),
            ("maxpool_5a", "mixed_5b", "repeat"),
            ("mixed_6a", "repeat_1"),
            ("mixed_7a", "repeat_2", "block8", "conv2d_7b"),
        ),
        (64, 192, 320, 1088, 1536),
    ),
    **{  # Table 2 of 2206.04040
        f"mobileone_{size}": Family(
            partial(_mobileone, f"mobileone_{size}"),
            (("stage0",), ("stage1",), ("stage2",), ("stage3",), ("stage4",)),
            channels,
        )
        for size, channels in {
            "s0": (48, 48, 128, 256, 1024),
            "s1": (64, 96, 192, 512, 1280),
            "s2": (64, 96, 256, 640, 2048),
            "s3": (64, 128, 320, 768, 2048),
            "s4": (64, 192, 448, 896, 2048),
        }.items()
    },
}

NAMES = (
    *RESNETS, *SE_NETS, *SK_NETS, *DPNS, *VGGS, *DENSENETS, "mobilenet_v2", *EFFICIENTNETS, *OTHERS
)  # fmt: skip

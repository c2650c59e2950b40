"""Every network of timm that gives features, by timm's own name. timm itself is imported when one is built.

Two kinds. Networks of several strides are asked for timm's `features_only`; plain vision transformers, all of whose
blocks have one stride, give the tokens of a few blocks as images. Either way the network is the child `model`, with
the keys that segmentation_models.pytorch (SMP) has for its "tu-" encoders.

Letters: n batch, c channels, h w pixels, t tokens, p tokens before the image's (class token, registers).
"""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pixelwise.encoders.names import SMP
from pixelwise.encoders.pretrained import Weights, fetching, for_input_channels, tensors_of
from pixelwise.errors import UnknownNameError, WeightsError, first_line, suggest
from pixelwise.weights import store


class TimmEncoder(nn.Module):
    """image (n, in_channels, h, w) -> features (n, channels[i], ceil(h / strides[i]), ceil(w / strides[i])).

    Any height and width, unless `size_hw` is set: then only that one. An image whose sides are no multiples of
    `multiple_hw` is first padded with zeros at its right and bottom, and what the padding led to is cut off the
    features, so that a pixel of stride s always stands for the same s x s pixels of the image.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        name: str,
        channels: Sequence[int],
        strides: Sequence[int],
        multiple_hw: tuple[int, int],
        size_hw: tuple[int, int] | None = None,
        channels_last: bool = False,
    ) -> None:
        super().__init__()
        self.model, self.name = model, name
        self.channels, self.strides = tuple(channels), tuple(strides)
        self.multiple_hw, self.size_hw, self.channels_last = multiple_hw, size_hw, channels_last

    def forward(self, image: Tensor) -> list[Tensor]:
        features = self._features(self._padded(image))
        if self.channels_last:
            features = [feature.permute(0, 3, 1, 2) for feature in features]
        return self._cut(features, image)

    def _features(self, image: Tensor) -> list[Tensor]:
        features: list[Tensor] = self.model(image)
        return features

    def _padded(self, image: Tensor) -> Tensor:
        (h, w), (mh, mw) = image.shape[-2:], self.multiple_hw
        if self.size_hw is not None:
            only = f"{self.name} takes images of {self.size_hw[0]}x{self.size_hw[1]} only"
            if torch.compiler.is_exporting() and any(isinstance(side, torch.SymInt) for side in (h, w)):
                raise ValueError(f"{only}; export it with traced_at={self.size_hw}, dynamic=False")
            if (h, w) != self.size_hw:
                raise ValueError(
                    f"{only}, got {h}x{w}: what it learnt about places is tied to that size; resize the image, or "
                    "build it with img_size=(h, w)"
                )
            return image
        if torch.compiler.is_exporting() or h % mh or w % mw:  # an export must not depend on the size it saw
            # whole multiples, not -h % mh: ONNX rounds quotients of negative numbers the other way, and the tracer
            # knows what becomes of k * mh pixels in layers that halve them
            return F.pad(image, (0, (w + mw - 1) // mw * mw - w, 0, (h + mh - 1) // mh * mh - h))
        return image

    def _cut(self, features: list[Tensor], image: Tensor) -> list[Tensor]:
        h, w = image.shape[-2], image.shape[-1]
        sizes = [((h + stride - 1) // stride, (w + stride - 1) // stride) for stride in self.strides]
        if not torch.compiler.is_exporting() and any(
            f.shape[-2] < a or f.shape[-1] < b for f, (a, b) in zip(features, sizes, strict=True)
        ):
            raise ValueError(
                f"the features of {self.name} do not lie on grids of strides {self.strides}, because it does not "
                "pad its convolutions; no decoder can use it"
            )
        return [feature[..., :a, :b] for feature, (a, b) in zip(features, sizes, strict=True)]


class TimmTransformer(TimmEncoder):
    """A plain vision transformer: the tokens after the blocks `taps`, as images, without the final norm.

    `prefix_tokens` tokens come before those of the image; `with_tokens` returns them as well.
    """

    def __init__(self, model: nn.Module, *, taps: Sequence[int], prefix_tokens: int, **declared: Any) -> None:
        super().__init__(model, **declared)
        self.taps, self.prefix_tokens = tuple(taps), prefix_tokens

    def _features(self, image: Tensor) -> list[Tensor]:
        features: list[Tensor] = self._intermediates(image)
        return features

    def with_tokens(self, image: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        """The features as `forward` gives them, and of each tap the prefix tokens (n, p, c); p may be 0."""
        if not self.prefix_tokens:
            features = super().forward(image)
            return features, [f.new_zeros(f.shape[0], 0, f.shape[1]) for f in features]
        pairs = self._intermediates(self._padded(image), return_prefix_tokens=True)
        return self._cut([feature for feature, _ in pairs], image), [tokens for _, tokens in pairs]

    def _intermediates(self, image: Tensor, **more: Any) -> Any:
        take: Any = self.model.forward_intermediates
        return take(image, indices=list(self.taps), output_fmt="NCHW", intermediates_only=True, **more)


def timm_encoder(
    name: str,
    *,
    in_channels: int = 3,
    output_stride: int = 32,
    depth: int = 5,
    weights: Weights = None,
    drop_path: float | None = None,
    taps: Sequence[int] | None = None,
    **options: Any,
) -> TimmEncoder:
    """timm's network `name`, with or without a tag ("convnext_tiny.fb_in22k"), as an encoder.

    in_channels: with weights, a number other than 3 follows SMP's rule (`pixelwise.layers.with_input_channels`): one
    channel gets the sum of the three filters, two or more get them in turn, times 3/in_channels.
    output_stride: below 32, later stages are dilated, where timm can (most convolutional networks).
    depth: only features of strides up to 2**depth, 1 to 5; what leads to none of them is left out. A plain vision
    transformer gives min(depth, 4) features, of equally spaced blocks, or of the blocks `taps` (negative
    ones count from the last).
    weights: None or False, random; True, those that timm has for the name, fetched from the Hub (nothing else ever
    touches the network); a path or a dictionary, tensors named as timm's or as ours.
    drop_path: rate of stochastic depth in training; None leaves timm's. options: timm's own, such as img_size.

    Raises UnknownNameError for a name that timm does not have, ValueError for what the network cannot do, TypeError
    for an option that it does not take, WeightsError and DownloadError for weights.
    """
    plain = _checked(name)
    if not 1 <= depth <= 5:
        raise ValueError(f"depth must be from 1 to 5, got {depth!r}")
    rule = _rule(plain)
    if rule.refused:
        raise ValueError(f"{plain} {rule.refused}")
    asked = {**rule.options, **options}
    if drop_path is not None:
        asked["drop_path_rate"] = drop_path
    found = _survey(name, asked)
    if len(set(found.strides)) == 1 and len(found.strides) > 1:
        return _transformer(name, found, rule, asked, in_channels, output_stride, depth, weights, taps)
    if taps is not None:
        raise TypeError(f"{plain} is no plain vision transformer and takes no taps; choose depth instead")
    first = found.strides[0]
    count = _count(found, depth)
    if count == 0:
        raise ValueError(f"the finest stride of {plain} is {first}, so depth must be more than {depth}")
    asked["out_indices"] = found.indices[:count]
    coarsest = found.strides[count - 1]
    if output_stride < coarsest:
        asked["output_stride"] = output_stride

    def prepare(model: Any) -> None:
        for unused in rule.unused:
            setattr(getattr(model, "model", model), unused, None)
        if type(model).__name__ == "HighResolutionNetFeatures":
            _drop_branches(model, count)
        elif isinstance(getattr(model, "blocks", None), nn.Sequential):
            _drop_after(model, found.indices[count - 1], found.modules)
        for block in model.modules():
            if getattr(block, "dynamic_mask", False):
                block.get_attn_mask = functools.partial(_shifted_mask, block)
            if type(block).__name__ == "LocallyGroupedAttn":
                block.fused_attn = False  # of Twins, in five dimensions; the fused one exports in four only

    model = _create(name, in_channels, weights, prepare, features_only=True, **asked)
    strides = tuple(model.feature_info.reduction())
    if max(strides) > max(output_stride, first):
        raise _not_dilated(plain, coarsest, output_stride)
    return TimmEncoder(
        model, name=plain, channels=model.feature_info.channels(), strides=strides,
        channels_last=str(getattr(model, "output_fmt", "NCHW")).endswith("NHWC"),
        **_sizes(rule, plain, options, coarsest),
    )  # fmt: skip


def _transformer(
    name: str, found: Survey, rule: Rule, asked: dict[str, Any], in_channels: int, output_stride: int, depth: int,
    weights: Weights, taps: Sequence[int] | None,
) -> TimmTransformer:  # fmt: skip
    plain, stride = name.partition(".")[0], found.strides[0]
    if output_stride < stride:
        raise _not_dilated(plain, stride, output_stride)
    blocks, count = found.blocks, min(depth, 4, found.blocks)
    if taps is None:
        taps = evenly(count, blocks)
    if all(-blocks <= tap < blocks for tap in taps):
        taps = [tap % blocks for tap in taps]
    if any(not 0 <= tap < blocks for tap in taps) or list(taps) != sorted(set(taps)):
        raise ValueError(f"taps must be rising numbers of blocks, 0 to {blocks - 1} for {plain}, got {taps}")

    def prepare(model: Any) -> None:
        model.prune_intermediate_layers(list(taps), prune_norm=True, prune_head=True)
        for unused in ("fc_norm", "head_drop", "attn_pool", "head_dist", "aux_head"):
            if unused in dict(model.named_children()):
                setattr(model, unused, nn.Identity())

    model = _create(name, in_channels, weights, prepare, **asked)
    return TimmTransformer(
        model, taps=taps, prefix_tokens=int(getattr(model, "num_prefix_tokens", 0)), name=plain,
        channels=[model.feature_info[tap]["num_chs"] for tap in taps], strides=(stride,) * len(taps),
        **_sizes(rule, plain, asked, stride),
    )  # fmt: skip


def evenly(count: int, blocks: int) -> list[int]:
    """The numbers of `count` of so many blocks, equally spaced, the last one among them; rounded as SMP does it."""
    return [int(blocks / count * place) - 1 for place in range(1, count + 1)]


def whole_network(name: str, in_channels: int = 3, depth: int = 5) -> nn.Module:
    """What SMP keeps of timm's network: of a plain vision transformer all, head and final norm too; of any other what
    `features_only` gives for that depth.
    """
    rule = _rule(name)
    found = _survey(name, rule.options)
    if len(set(found.strides)) == 1 and len(found.strides) > 1:
        whole: nn.Module = _create(name, in_channels, None, **rule.options)
        return whole
    indices = found.indices[: _count(found, depth)]
    part: nn.Module = _create(
        name, in_channels, None, features_only=True, out_indices=indices, **rule.options
    )
    return part


def _count(found: Survey, depth: int) -> int:
    """How many features have a stride up to 2**depth, without dilation."""
    return sum(found.strides[0] * 2**place <= 2**depth for place in range(len(found.strides)))


def list_timm() -> list[str]:
    """timm's names, without tags, of the networks that can be encoders."""
    import timm

    return [name for name in timm.list_models() if not _rule(name).refused]


# What is known about families of timm -----------------------------------------------------------------------------


class Rule(NamedTuple):
    """options: what makes it take images of any size. sizes: "any", "own" (its own size, or the img_size it is built
    for) or "multiples" (of that). refused: why it cannot be an encoder. unused: parameters of the classifier alone.
    """

    options: Mapping[str, Any] = {}
    sizes: str = "any"
    refused: str = ""
    unused: tuple[str, ...] = ()


_OWN = Rule(sizes="own")
_GRIDS = "does not pad its convolutions, so that its features lie on no grid; "

RULES = {
    **dict.fromkeys(
        "vision_transformer vision_transformer_hybrid vitamin".split(), Rule({"dynamic_img_size": True})
    ),
    **dict.fromkeys("deit eva".split(), Rule({"dynamic_img_size": True})),
    **dict.fromkeys("swin_transformer swin_transformer_v2".split(), Rule({"strict_img_size": False})),
    **dict.fromkeys(
        "beit byoanet cait coat convit efficientformer efficientformer_v2 gcvit hiera levit mlp_mixer mvitv2 nest "
        "swin_transformer_v2_cr tnt visformer vision_transformer_relpos volo".split(),
        _OWN,
    ),
    "maxxvit": Rule(sizes="multiples"),
    "efficientvim": Rule(unused=("weights",)),
    "crossvit": Rule(refused="has two branches whose features are no pyramid; take a vit or a swin instead"),
    "pit": Rule(refused=_GRIDS + "take a swin or a pvt_v2 instead"),
    "inception_v3": Rule(refused=_GRIDS + "take inceptionv4, which pads, instead"),
    "inception_v4": Rule(refused=_GRIDS + "take inceptionv4, which pads, instead"),
    "inception_resnet_v2": Rule(refused=_GRIDS + "take inceptionresnetv2, which pads, instead"),
    "xception": Rule(refused=_GRIDS + "take xception, which pads, instead"),
}
"""Module of timm: rule. What is not here takes any size, padded to a multiple of its largest stride."""


def _rule(name: str) -> Rule:
    from timm.models import model_entrypoint

    plain = name.partition(".")[0]
    module = model_entrypoint(plain).__module__.rpartition(".")[2]
    if module == "maxxvit" and "coat" in plain:  # relative places over the whole image, not over windows
        return _OWN
    return RULES.get(module, Rule())


def _size(name: str, options: Mapping[str, Any]) -> tuple[int, int]:
    """The size that the network is built for."""
    given = options.get("img_size")
    if given is None:
        from timm.models import get_pretrained_cfg

        given = get_pretrained_cfg(name).input_size[1:]
    return (given, given) if isinstance(given, int) else (int(given[0]), int(given[1]))


def _sizes(rule: Rule, name: str, options: Mapping[str, Any], stride: int) -> dict[str, Any]:
    """What `TimmEncoder` is told about sizes; `stride` is the coarsest without dilation."""
    own_hw = _size(name, options)
    return {
        "multiple_hw": own_hw if rule.sizes == "multiples" else (stride, stride),
        "size_hw": own_hw if rule.sizes == "own" else None,
    }


class Survey(NamedTuple):
    """strides, indices (as timm counts them) and names of modules of all features that a network has; how many blocks
    timm counts in all.
    """

    strides: tuple[int, ...]
    indices: tuple[int, ...]
    modules: tuple[str, ...]
    blocks: int


def _survey(name: str, options: Mapping[str, Any]) -> Survey:
    """Read off the network, built without memory."""
    import timm

    try:
        with torch.device("meta"):
            info = timm.create_model(name, features_only=True, **options).feature_info
    except TypeError as error:
        raise _no_option(name, options, error) from error
    except (AttributeError, AssertionError, NotImplementedError, RuntimeError) as error:
        raise ValueError(
            f"timm's {name} gives no features ({first_line(error)}); choose another encoder"
        ) from error
    return Survey(tuple(info.reduction()), tuple(info.out_indices), tuple(info.module_name()), len(info.info))


def _create(
    name: str, in_channels: int, weights: Weights, prepare: Callable[[Any], None] | None = None, **asked: Any
) -> Any:
    """timm's network with what `prepare` leaves of it, and the weights in it, all of them or none."""
    import timm

    def build(in_chans: int, **more: Any) -> Any:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", UserWarning)  # timm's about names it maps to others
                model = timm.create_model(name, in_chans=in_chans, **asked, **more)
        except TypeError as error:
            if "output_stride" in asked and "output_stride" in str(error):
                raise _not_dilated(name.partition(".")[0], 32, asked["output_stride"]) from error
            raise _no_option(name, asked, error) from error
        except (AssertionError, NotImplementedError) as error:
            if "output_stride" in asked:
                raise _not_dilated(name.partition(".")[0], 32, asked["output_stride"]) from error
            raise ValueError(f"timm cannot build {name} with {asked}: {first_line(error)}") from error
        if prepare is not None:
            prepare(model)
        return model

    if weights is None or weights is False:
        return build(in_channels)
    if weights is True:
        if not timm.models.is_model_pretrained(name):
            raise WeightsError(f"timm has no weights for {name}; pass weights=None or the path of a file")
        with fetching(f"timm's weights of {name}"):
            trained = build(3, pretrained=True)
        if in_channels == 3:
            return trained
        tensors, source = trained.state_dict(), f"the weights of {name}"
    else:
        tensors, source = tensors_of(weights)
        if all(key.startswith("model.") for key in tensors):
            tensors = {key.removeprefix("model."): tensor for key, tensor in tensors.items()}
    model = build(in_channels)
    own = model.state_dict()
    if not set(own) <= set(tensors):  # the classifier, as timm names it
        whole = _classifier(name, tensors, source)
        tensors = build(3, pretrained=True, pretrained_cfg_overlay={"state_dict": whole}).state_dict()
    kept = {key: tensor for key, tensor in tensors.items() if key in own}
    store.load_into(model, for_input_channels(kept, own), source=source)
    return model


def _classifier(name: str, tensors: Mapping[str, Tensor], source: str) -> dict[str, Tensor]:
    """The tensors of a file in timm's names, or older ones that timm knows, checked against the whole network."""
    import timm
    from timm.models import get_pretrained_cfg

    last = get_pretrained_cfg(name).classifier or ()
    heads = tuple(f"{head}." for head in ((last,) if isinstance(last, str) else last))
    kept = {key: tensor for key, tensor in tensors.items() if not (heads and key.startswith(heads))}
    overlay = {"state_dict": kept, "num_classes": 0}
    try:
        whole = timm.create_model(name, pretrained=True, pretrained_cfg_overlay=overlay, num_classes=0)
    except RuntimeError as error:
        lines = " ".join(str(error).split())
        raise WeightsError(f"{source} do not fit {name}: {lines[:200]}") from error
    state: dict[str, Tensor] = whole.state_dict()
    return state


def _drop_after(model: Any, last: int, modules: Sequence[str]) -> None:
    """EfficientNets and MobileNets of timm keep all blocks; those after the last feature lead nowhere."""

    path = modules[min(last, len(modules) - 1)]
    if path.startswith("blocks."):
        model.blocks = model.blocks[: int(path.split(".")[1]) + 1]


def _drop_branches(model: Any, count: int) -> None:
    """HRNet's branches run side by side to the end: the last exchange need not go to those that give no feature."""
    last = model.stage4[-1]
    last.fuse_layers = last.fuse_layers[: max(count - 1, 1)]
    model.incre_modules = model.incre_modules[: max(count - 1, 1)]


def _shifted_mask(block: Any, windows: Tensor) -> Tensor | None:
    """What timm's Swin blocks add to the attention where a shifted window has wrapped around, (t, p, p) for t windows
    of p pixels: -100 between pixels that are no neighbours. timm fills nine slices in place, of which the tracer of
    exports makes so much that it takes minutes; this is the same by comparing places.

    windows (n, h, w, c), whole windows.
    """
    if not any(block.shift_size):
        return None
    (h, w), (window_h, window_w) = windows.shape[1:3], block.window_size
    rows, columns = (
        (place >= side - window).int() + (place >= side - shift).int()
        for side, window, shift, place in (
            (h, window_h, block.shift_size[0], torch.arange(h, device=windows.device)),
            (w, window_w, block.shift_size[1], torch.arange(w, device=windows.device)),
        )
    )
    regions = (3 * rows[:, None] + columns).view(h // window_h, window_h, w // window_w, window_w)
    regions = regions.transpose(1, 2).reshape(-1, window_h * window_w)  # (t, p)
    apart = regions[:, None] != regions[:, :, None]  # (t, p, p)
    added: Tensor = apart.to(windows.dtype) * -100.0
    return added


def _checked(name: str) -> str:
    """The name without its tag."""
    import timm

    plain, _, tag = name.partition(".")
    if not timm.is_model(plain):
        raise UnknownNameError("encoder", name, {*SMP, *timm.list_models()})
    if tag and name not in _tagged(plain):
        raise UnknownNameError(f"weights of {plain}", name, _tagged(plain))
    return plain


@functools.cache
def _tagged(plain: str) -> tuple[str, ...]:
    from timm.models import list_pretrained

    return tuple(list_pretrained(f"{plain}.*"))


def _not_dilated(name: str, stride: int, asked: int) -> ValueError:
    return ValueError(
        f"{name} cannot be dilated: its coarsest stride is {stride}, got output_stride={asked}; pass output_stride="
        f"{stride}, or take a convolutional encoder such as resnet50 or convnext_tiny"
    )


def _no_option(name: str, options: Mapping[str, Any], error: TypeError) -> TypeError:
    import inspect

    from timm.models import model_entrypoint

    unknown = next((key for key in options if f"'{key}'" in str(error)), None)
    if unknown is None:
        return TypeError(f"timm cannot build {name}: {first_line(error)}")
    home = inspect.getmodule(model_entrypoint(name.partition(".")[0]))
    known = {
        parameter
        for part in vars(home).values()
        if inspect.isclass(part) and issubclass(part, nn.Module) and part.__module__ == home.__name__  # type: ignore[union-attr]
        for parameter in inspect.signature(part).parameters
    }
    ours = {"in_channels", "output_stride", "depth", "weights", "drop_path", "taps"}
    return TypeError(f"{name} has no option {unknown!r}; {suggest(unknown, (known | ours) - {unknown})}")

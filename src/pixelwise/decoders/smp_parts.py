"""How segmentation_models.pytorch (SMP) joins the parts of a model, so that its parts and ours can be exchanged.

SMP's encoder gives a list that begins with the image and has an empty map where a stride is missing, its decoder takes
that list, and its head also enlarges and applies the activation. Ours give and take features alone, the decoder with
the size of the image, and know no activation. Everything here reads the parts that it is handed and keeps none.

Letters: n batch, c channels, k classes, h w pixels.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from pixelwise.errors import InputError, UnknownNameError, WeightsError
from pixelwise.layers import enlarge


@dataclass(frozen=True)
class Shape:
    """What a model was built for: features of its encoder, SMP's depth, and whether tokens come with the features."""

    features: int
    depth: int
    tokens: bool


def features_for(decoder: nn.Module, encoder: Any, image: Tensor, shape: Shape) -> list[Any]:
    """What `decoder` reads off the image, from an encoder of ours or of SMP's; pairs of map and tokens for DPT."""
    if shape.tokens:
        return _pairs(encoder, image)
    found: list[Any] = list(encoder(image))
    if takes_size(decoder):
        if len(found) < shape.features:
            raise InputError(
                f"the decoder reads {shape.features} features, finest first, the encoder gives {len(found)}; assign "
                "a decoder for that encoder as well, or build the model with it"
            )
        return found[-shape.features :]
    if len(found) > shape.depth:
        return found
    empty = image.new_empty(image.shape[0], 0, image.shape[-2] // 2, image.shape[-1] // 2)
    return [image, *[empty] * (shape.depth - len(found)), *found]


def _pairs(encoder: Any, image: Tensor) -> list[tuple[Tensor, Tensor | None]]:
    if getattr(encoder, "prefix_tokens", 0):
        return list(zip(*encoder.with_tokens(image), strict=True))
    found = encoder(image)
    if isinstance(found, tuple) and len(found) == 2 and isinstance(found[0], (list, tuple)):
        return list(zip(*found, strict=True))
    return [(feature, None) for feature in found]


def decode(decoder: nn.Module, features: list[Any], size_hw: tuple[int, int], shape: Shape) -> Tensor:
    """The decoder's map (n, c, ~h/stride, ~w/stride) of features as `features_for` gives them."""
    parts = [list(each) for each in zip(*features, strict=True)] if shape.tokens else [features]
    decoded: Tensor = decoder(*parts, size_hw) if takes_size(decoder) else decoder(*parts)
    return decoded


def takes_size(part: nn.Module) -> bool:
    """Whether a part is called as ours are, with the size of the image, or as SMP's."""
    if isinstance(part, torch.jit.ScriptModule):  # has no signature to read
        return False
    return "size_hw" in inspect.signature(type(part).forward).parameters


def deepest(features: list[Any]) -> Tensor:
    """The map that a classifier of the whole image looks at."""
    last: Tensor = features[-1][0] if isinstance(features[-1], tuple) else features[-1]
    return last


class SegmentationHead(nn.Sequential):
    """SMP's head: a convolution to classes, enlargement corner to corner, activation. (n, c, h, w) -> (n, k, h', w').

    Arguments as in SMP. size_hw: that of the image, to which the result is brought where `upsampling` leads to the
    pixel next to it; alone it enlarges by the factor. activation: a key of `ACTIVATIONS`, what makes one, or None.
    """

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: int = 3, activation: Any = None, upsampling: float = 1
    ) -> None:  # fmt: skip
        conv = nn.Conv2d(in_channels, out_channels, kernel_size, padding=kernel_size // 2)
        super().__init__(conv, upsampler(upsampling), Activation(activation))

    @classmethod
    def of(cls, layers: nn.Module, upsampling: nn.Module, activation: Any) -> SegmentationHead:
        """The head of a network of ours, `layers` to logits, with what SMP has behind it."""
        head = cls.__new__(cls)
        nn.Sequential.__init__(head, *layers.children(), upsampling, Activation(activation))
        return head

    def forward(self, x: Tensor, size_hw: tuple[int, int] | None = None) -> Tensor:
        for layer in self:
            # TorchScript knows before it runs which layers have this, which are those of class Upsampling
            if hasattr(layer, "whole"):  # noqa: SIM108  # it decides between statements only
                x = layer(x, size_hw)
            else:
                x = layer(x)
        return x


class ClassificationHead(nn.Sequential):
    """SMP's head for the whole image: the mean ("avg") or largest ("max") of each channel, dropout, a linear layer, an
    activation. (n, c, h, w) -> (n, classes). Raises ValueError for another pooling.
    """

    def __init__(
        self, in_channels: int, classes: int, pooling: str = "avg", dropout: float = 0.2, activation: Any = None
    ) -> None:  # fmt: skip
        if pooling not in ("avg", "max"):
            raise ValueError(f"pooling must be 'avg' or 'max', got {pooling!r}")
        linear = nn.Linear(in_channels, classes)
        nn.init.xavier_uniform_(linear.weight)
        nn.init.zeros_(linear.bias)
        pool = nn.AdaptiveAvgPool2d(1) if pooling == "avg" else nn.AdaptiveMaxPool2d(1)
        drop = nn.Dropout(dropout) if dropout else nn.Identity()
        super().__init__(pool, nn.Flatten(), drop, linear, Activation(activation))


class DPTSegmentationHead(nn.Module):
    """SMP's head of DPT: layers to classes, twice as large, activation. (n, c, h, w) -> (n, k, 2h, 2w) or `size_hw`."""

    def __init__(self, layers: nn.Module, activation: Any) -> None:
        super().__init__()
        self.head = layers.get_submodule("head")
        self.activation = Activation(activation)
        self.upsampling = Upsampling(2)

    def forward(self, x: Tensor, size_hw: tuple[int, int] | None = None) -> Tensor:
        mask: Tensor = self.activation(self.upsampling(self.head(x), size_hw))
        return mask


class Upsampling(nn.Upsample):
    """Bilinear, corner to corner, by `factor`: (n, k, h, w) -> (n, k, factor h, factor w).

    Or to the size of the image, where the factor leads to within one step of it: sides that are no multiples. whole:
    always to the size of the image, as far as it is given.
    """

    def __init__(self, factor: float, *, whole: bool = False) -> None:
        super().__init__(scale_factor=float(factor), mode="bilinear", align_corners=True)
        self.whole = whole

    def forward(self, input: Tensor, size_hw: tuple[int, int] | None = None) -> Tensor:
        # It is given as one number
        factor = float(self.scale_factor)  # type: ignore[arg-type]
        if size_hw is None or not (self.whole or _leads_to(input, factor, size_hw)):
            size_hw = _times(input.shape[-2], factor), _times(input.shape[-1], factor)
        return enlarge(input, size_hw, align_corners=True)


def _times(side: int, factor: float) -> int:
    if torch.jit.is_scripting():  # type: ignore[attr-defined]
        return int(side * factor + 0.5)  # its round() gives no whole number
    # A traced side is a tensor, which cannot be rounded
    return side * int(factor) if factor == int(factor) else round(side * factor)


def _leads_to(x: Tensor, factor: float, size_hw: tuple[int, int]) -> bool:
    near = (abs(x.shape[-2] * factor - size_hw[0]), abs(x.shape[-1] * factor - size_hw[1]))
    return bool(near[0] < factor) and bool(near[1] < factor)


def upsampler(factor: float | None, *, whole: bool = False) -> nn.Module:
    """The layer for a factor; as in SMP none for factors up to 1."""
    return Upsampling(factor, whole=whole) if factor is not None and factor > 1 else nn.Identity()


class Activation(nn.Module):
    """What SMP's names of activations do to logits (n, k, ...); a callable is called to make one.

    Raises UnknownNameError, with the nearest, for another name.
    """

    def __init__(self, name: str | Callable[[], Any] | None = None) -> None:
        super().__init__()
        if isinstance(name, str) and name not in ACTIVATIONS:
            raise UnknownNameError("activation", name, ACTIVATIONS)
        make = nn.Identity if name is None else ACTIVATIONS[name] if isinstance(name, str) else name
        self.activation = make()

    def forward(self, x: Tensor) -> Tensor:
        activated: Tensor = self.activation(x)
        return activated


class ArgMax(nn.Module):
    """The index of the largest: along `dim`, or of all that there is."""

    def __init__(self, dim: int | None = None) -> None:
        super().__init__()
        self.dim = dim

    def forward(self, x: Tensor) -> Tensor:
        return torch.argmax(x, dim=self.dim)


class Clamp(nn.Module):
    """Values from 0 to 1."""

    def forward(self, x: Tensor) -> Tensor:
        return x.clamp(0, 1)


ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "identity": nn.Identity,
    "sigmoid": nn.Sigmoid,
    "softmax": lambda: nn.Softmax(dim=1),
    "softmax2d": lambda: nn.Softmax(dim=1),
    "logsoftmax": lambda: nn.LogSoftmax(dim=1),
    "tanh": nn.Tanh,
    "argmax": ArgMax,
    "argmax2d": lambda: ArgMax(dim=1),
    "clamp": Clamp,
}


def finish(head: nn.Module, decoded: Tensor, size_hw: tuple[int, int]) -> Tensor:
    """What the head, of ours or anybody's, makes of the decoder's map."""
    mask: Tensor = head(decoded, size_hw) if takes_size(head) else head(decoded)
    return mask


def logit_layers(head: nn.Module) -> list[nn.Module]:
    """The layers of a head, of ours, SMP's or a plain nn.Sequential, up to its logits: without the enlargement corner
    to corner and the activation at its end. Any other head is one layer.
    """
    inner = getattr(head, "head", None)
    if isinstance(inner, nn.Module) and isinstance(getattr(head, "activation", None), nn.Module):
        return logit_layers(inner)
    if not isinstance(head, nn.Sequential):
        return [head]
    if type(head).forward not in (nn.Sequential.forward, SegmentationHead.forward):
        return [head]
    layers = list(head)
    while layers and _finishes(layers[-1]):
        layers.pop()
    return layers


def finishing_layers(head: nn.Module) -> list[nn.Module]:
    """The layers of a head that `logit_layers` leaves out."""
    logits = logit_layers(head)
    if isinstance(head, nn.Sequential):
        return list(head)[len(logits) :] if logits != [head] else []
    return [] if logits == [head] else [head.get_submodule("activation")]


def _finishes(layer: nn.Module) -> bool:
    if isinstance(layer, nn.Upsample):
        return layer.mode == "bilinear" and bool(layer.align_corners)
    if isinstance(layer, nn.UpsamplingBilinear2d):
        return True
    inner = getattr(layer, "activation", None)  # ours and SMP's Activation
    if isinstance(inner, nn.Module):
        return not any(True for _ in layer.parameters())
    plain = (nn.Identity, nn.Sigmoid, nn.Softmax, nn.Softmax2d, nn.LogSoftmax, nn.Tanh, ArgMax, Clamp)
    return isinstance(layer, plain)


def activation_of(layers: list[nn.Module], asked: Any) -> str | None:
    """SMP's name of the activation among these layers at the end of a head, `asked` where that makes it; None for none.

    Raises WeightsError for one that has no name.
    """
    found = [getattr(layer, "activation", layer) for layer in layers if not isinstance(layer, nn.Upsample)]
    found = [module for module in found if not isinstance(module, nn.Identity)]
    if not found:
        return None if asked is None or callable(asked) else "identity" if asked == "identity" else None
    known = {name: _kind(make()) for name, make in ACTIVATIONS.items()}
    if isinstance(asked, str) and known[asked] == _kind(found[0]) and len(found) == 1:
        return asked
    names = [name for name, kind in known.items() if kind == _kind(found[0])]
    if len(found) > 1 or not names:
        raise WeightsError(
            f"an activation that is no name cannot be written, got {' and '.join(map(repr, found))}; build with "
            "activation=None and apply it behind the model"
        )
    return names[-1]


def _kind(activation: nn.Module) -> tuple[str, Any]:
    name = type(activation).__name__
    dim = getattr(activation, "dim", None)
    return name.removesuffix("2d"), 1 if "oftmax" in name else dim


def factor_of(layers: list[nn.Module]) -> float:
    """The factor by which these layers at the end of a head enlarge."""
    whole = 1.0
    for layer in layers:
        if isinstance(layer, nn.Upsample):
            whole *= float(layer.scale_factor or 0)  # type: ignore[arg-type]  # one number, or none
    return int(whole) if whole == int(whole) else whole


def classes_of_layers(layers: list[nn.Module]) -> int:
    """How many classes these layers tell apart: the outputs of the last convolution or linear layer among them."""
    counted = 0
    for module in (module for layer in layers for module in layer.modules()):
        if isinstance(module, nn.modules.conv._ConvNd):
            counted = module.out_channels
        elif isinstance(module, nn.Linear):
            counted = module.out_features
        elif isinstance(module, nn.PixelShuffle):
            counted //= module.upscale_factor**2
    if not counted:
        raise InputError(
            "the segmentation head has no convolution by which its classes could be counted; let it end in one"
        )
    return counted

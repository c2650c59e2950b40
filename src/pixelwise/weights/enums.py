"""What a script written for torchvision relies on: weight enums with their transforms, and how builders are
called.

The facts about each set of weights are the catalog's; here they get torchvision's shape.
"""

from __future__ import annotations

import functools
import inspect
import re
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar, cast

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torchvision.transforms import InterpolationMode
from torchvision.transforms import functional as F

from pixelwise.errors import UnknownNameError, refuse_unknown
from pixelwise.inference.preprocess import IMAGENET_MEAN, IMAGENET_STD, Preprocess
from pixelwise.weights.origin import note_origin
from pixelwise.weights.store import fetch, is_path, load_into, load_state_dict, unwrap

if TYPE_CHECKING:
    from pixelwise.catalog.entry import Entry

E = TypeVar("E", bound=Enum)
M = TypeVar("M", bound=nn.Module)
P = ParamSpec("P")


class SemanticSegmentation(nn.Module):
    """What torchvision's segmentation weights want done to a picture; its result is torchvision's, bit for
    bit.

    Takes a PIL image, or a tensor (..., c, h, w), uint8 or float in [0, 1]; returns float32 (..., 3, h', w'),
    normalised. The shorter side becomes `resize_size` pixels, the aspect is kept; None leaves the size.
    """

    def __init__(
        self,
        *,
        resize_size: int | None,
        mean: Sequence[float] = IMAGENET_MEAN,
        std: Sequence[float] = IMAGENET_STD,
        interpolation: InterpolationMode = InterpolationMode.BILINEAR,
        antialias: bool | None = True,
    ) -> None:
        super().__init__()
        self.resize_size = None if resize_size is None else [resize_size]
        self.mean, self.std = list(mean), list(std)
        self.interpolation, self.antialias = interpolation, antialias

    def forward(self, img: Tensor) -> Tensor:
        # TorchScript knows no PIL images, so `img` is declared a tensor and scripts leave out the block for the other.
        if not torch.jit.is_scripting():  # type: ignore[attr-defined]
            usual = self._without_tensors(img)
            if usual is not None:
                return usual
        if self.resize_size is not None:
            img = F.resize(img, self.resize_size, interpolation=self.interpolation, antialias=self.antialias)
        if not isinstance(img, Tensor):
            img = F.pil_to_tensor(img)  # type: ignore[unreachable]
        image = F.convert_image_dtype(img, torch.float32)
        normalised: Tensor = F.normalize(image, mean=self.mean, std=self.std)
        return normalised

    def _without_tensors(self, img: Any) -> Tensor | None:
        """The usual case, for which no detour over tensors is needed; None for another."""
        plain = self.interpolation == InterpolationMode.BILINEAR and len(self.mean) == len(self.std) == 3
        if not (plain and isinstance(img, Image.Image) and img.mode == "RGB"):
            return None
        size = self.resize_size[0] if self.resize_size else None
        (r, g, b), (sr, sg, sb) = self.mean, self.std
        preprocess = Preprocess(mean=(r, g, b), std=(sr, sg, sb), size=size)
        return torch.from_numpy(preprocess(np.asarray(img))[0])

    def extra_repr(self) -> str:
        return (
            f"resize_size={self.resize_size}, mean={self.mean}, std={self.std}, "
            f"interpolation={self.interpolation}, antialias={self.antialias}"
        )

    def describe(self) -> str:
        """One sentence about what happens to a picture."""
        resize = (
            f"scaled so that the shorter side is {self.resize_size[0]} pixels, " if self.resize_size else ""
        )
        return f"The picture is {resize}brought to [0, 1], then normalised: mean {self.mean}, std {self.std}."


@dataclass(frozen=True)
class Weights:
    """The value of a weights enum's member. url: the file's; transforms(): its preprocessing; meta: facts."""

    url: str
    transforms: Callable[..., SemanticSegmentation]
    meta: dict[str, Any]


def coco_with_voc_labels(entry: Entry) -> Weights:
    """A row of the catalog in torchvision's words."""
    card, url = entry.card, entry.url
    assert card is not None and url is not None  # noqa: PT018  (rows of torchvision's weights are complete)
    assert card.multiply_adds is not None and card.file_bytes is not None  # noqa: PT018
    miou, pixel_accuracy = (round(100 * score.value, 3) for score in card.scores)
    size, mean, std = card.preprocess.size, card.preprocess.mean, card.preprocess.std
    assert not isinstance(size, tuple)
    return Weights(
        url=url,
        transforms=partial(SemanticSegmentation, resize_size=size, mean=mean, std=std),
        meta={
            "categories": ["__background__", *card.labels.names[1:]],  # torchvision's spelling
            "min_size": (1, 1),
            "num_params": card.parameters,
            "recipe": f"https://github.com/pytorch/vision/tree/main/references/segmentation#{card.name}",
            "_metrics": {"COCO-val2017-VOC-labels": {"miou": miou, "pixel_acc": pixel_accuracy}},
            "_ops": round(card.multiply_adds / 1e9, 3),
            "_file_size": round(card.file_bytes / 2**20, 3),
            "_docs": "Trained on the part of COCO that shows Pascal VOC's 20 classes.",
        },
    )


class WeightsEnum(Enum):
    """Base of the weights enums. `FCN_ResNet50_Weights.DEFAULT` has `url`, `meta`, `transforms()`,
    `get_state_dict()`.
    """

    @classmethod
    def verify(cls, obj: Any) -> Any:
        """The member that `obj` is or names, or None; see `verify` of this module."""
        return verify(cls, obj)

    @property
    def url(self) -> str:
        url: str = self.value.url
        return url

    @property
    def transforms(self) -> Callable[..., SemanticSegmentation]:
        transforms: Callable[..., SemanticSegmentation] = self.value.transforms
        return transforms

    @property
    def meta(self) -> dict[str, Any]:
        meta: dict[str, Any] = self.value.meta
        return meta

    def get_state_dict(self, progress: bool = True, check_hash: bool = True) -> dict[str, Tensor]:
        """The tensors of the file, fetched if need be (`store.fetch` says where, and what is raised)."""
        return state_dict_of(self.url, progress=progress, check_hash=check_hash)

    def __repr__(self) -> str:
        return f"{type(self).__name__}.{self.name}"

    def __reduce_ex__(self, protocol: Any) -> Any:
        return getattr, (type(self), self.name)  # by name: copies and pickles are the same member


class UnknownWeightsError(UnknownNameError, KeyError):
    """No member of a weights enum has that name (a KeyError, as in torchvision)."""

    __str__ = Exception.__str__  # KeyError would put the sentence in quotation marks


def verify(enum: type[E], value: Any) -> E | None:
    """The member of `enum` that `value` is, or names ("DEFAULT", "FCN_ResNet50_Weights.DEFAULT"); None stays
    None.

    torchvision's member of an enum of the same name is taken for ours. Raises TypeError for something else
    and UnknownWeightsError (a KeyError) for a name that no member has.
    """
    if value is None or isinstance(value, enum):
        return value
    if type(value).__name__ == enum.__name__ and isinstance(value, Enum):
        value = value.name
    if not isinstance(value, str):
        raise TypeError(
            f"weights must be a member of {enum.__name__}, the name of one, or None, got {value!r} "
            f"of type {type(value).__name__}"
        )
    name = value.removeprefix(f"{enum.__name__}.")
    if name not in enum.__members__:
        raise UnknownWeightsError(f"member of {enum.__name__}", name, enum.__members__)
    return enum[name]


def state_dict_of(url: str, *, progress: bool = True, check_hash: bool = True) -> dict[str, Tensor]:
    """The tensors of an official file, whose name ends in the first digits of its SHA-256."""
    file = url.rpartition("/")[2]
    sha256 = re.search(r"-([0-9a-f]{8,})\.", file)
    return load_state_dict(fetch(file, url, sha256[1] if sha256 and check_hash else None, progress=progress))


def load_classifier(network: nn.Module, enum: Any, weights: Any, *, progress: bool) -> None:
    """Fill a whole torchvision classifier with `weights`; None leaves it as it is.

    weights: what `verify` takes, and is fetched; or the path of the same file, or its names and tensors.
    """
    if isinstance(weights, Mapping):
        load_into(network, unwrap(weights, "the dictionary"), source="the given weights")
    elif is_path(weights):
        load_into(network, load_state_dict(Path(weights)), source=f"the weights {weights}")
    elif (member := verify(enum, weights)) is not None:
        load_into(network, state_dict_of(member.url, progress=progress), source=str(member))


def with_weights(network: M, weights: WeightsEnum | None, *, progress: bool) -> M:
    """The network, filled with `weights` unless they are None."""
    if weights is not None:
        load_into(network, weights.get_state_dict(progress=progress), source=repr(weights))
    return network


def settle(
    enum: type[WeightsEnum],
    weights: Any,
    num_classes: int | None,
    aux_loss: bool | None,
    backbone_enum: Any,
    weights_backbone: Any,
) -> tuple[WeightsEnum | None, int, bool, Any]:
    """torchvision's rules for arguments that depend on each other; returns them (weights, num_classes,
    aux_loss, weights_backbone) settled.

    Trained weights bring their own number of classes and auxiliary head, and need no weights of the backbone.
    Raises ValueError for arguments that contradict them, and what `verify` raises.
    """
    member = verify(enum, weights)
    given = is_path(weights_backbone) or isinstance(weights_backbone, Mapping)
    backbone = weights_backbone if given else verify(backbone_enum, weights_backbone)
    if num_classes is not None and num_classes < 1:
        raise ValueError(f"num_classes must be at least 1, got {num_classes}")
    if member is None:
        return None, 21 if num_classes is None else num_classes, bool(aux_loss), backbone
    has = len(member.meta["categories"])
    if num_classes not in (None, has):
        raise ValueError(
            f"num_classes must be {has} with weights={member!r}, got {num_classes}; "
            "leave weights out for another number"
        )
    if aux_loss not in (None, True):
        raise ValueError(
            f"aux_loss must be True with weights={member!r}, which have an auxiliary head, got {aux_loss}; "
            "leave it out, and ignore the output 'aux'"
        )
    return member, has, True, None


def called_as_in_torchvision(
    weights: WeightsEnum, weights_backbone: Any
) -> Callable[[Callable[P, M]], Callable[P, M]]:
    """Decorator: let a builder be called in every way that torchvision ever had, with its UserWarning for old
    ones.

    Old are arguments without keyword, `pretrained` and `pretrained_backbone`, which stand for the two given
    weights. An unknown keyword is a TypeError that names the nearest one (torchvision drops it in silence). How the
    network was made is noted on it (`weights.origin`).
    """
    old = {"weights": ("pretrained", weights), "weights_backbone": ("pretrained_backbone", weights_backbone)}

    def decorate(builder: Callable[P, M]) -> Callable[P, M]:
        name, known = builder.__name__, list(inspect.signature(builder).parameters)

        @functools.wraps(builder)
        def call(*args: P.args, **kwargs: P.kwargs) -> M:
            if args:
                positional = dict(zip(known, args, strict=False))
                if len(args) > len(known) or positional.keys() & kwargs.keys():
                    raise TypeError(f"{name}() takes each of {', '.join(known)} once, by keyword")
                spelled = ", ".join(f"{key}=" for key in positional)
                _warn(f"{name}: positional arguments are deprecated, write {spelled}")
                kwargs.update(positional)
            for new, (former, default) in old.items():
                if former in kwargs:
                    flag = kwargs.pop(former)
                    spelled = f"{former}={flag!r}"
                elif isinstance(kwargs.get(new), bool):
                    flag = kwargs.pop(new)
                    spelled = f"{new}={flag!r}"
                else:
                    continue
                _warn(f"{name}: {spelled} is deprecated, write {new}={str(default) if flag else None}")
                kwargs.setdefault(new, default if flag else None)
            refuse_unknown(f"{name}() has no argument", kwargs, known)
            network = cast(Callable[..., M], builder)(**kwargs)
            if kwargs.get("weights") is not None and getattr(network, "aux_classifier", None) is not None:
                kwargs["aux_loss"] = True  # they bring the head with them
            note_origin(network, name, kwargs)
            return network

        return call

    return decorate


def _warn(message: str) -> None:
    warnings.warn(message, UserWarning, stacklevel=3)

"""SMP's encoders by name, as it gives them: a list of features that begins with the image itself.

>>> from pixelwise import smp                                                           # doctest: +SKIP
>>> encoder = smp.encoders.get_encoder("resnet34", depth=4)                             # doctest: +SKIP
>>> encoder.out_channels, encoder.output_stride                                         # doctest: +SKIP
([3, 64, 64, 128, 256], 16)

`pixelwise.encoders.create_encoder` makes the same networks, which then give their features alone.
"""

from __future__ import annotations

import functools
import warnings
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from pixelwise.encoders import create_encoder, names
from pixelwise.errors import InputError, UnknownNameError, WeightsError
from pixelwise.inference.preprocess import IMAGENET_MEAN, IMAGENET_STD

if TYPE_CHECKING:
    from pixelwise.smp.encoders.features import SmpEncoder

__all__ = [
    "encoders",
    "get_encoder",
    "get_encoder_names",
    "get_preprocessing_fn",
    "get_preprocessing_params",
    "preprocess_input",
]


def get_encoder(
    name: str,
    in_channels: int = 3,
    depth: int = 5,
    weights: Any = None,
    output_stride: int = 32,
    **kwargs: Any,
) -> SmpEncoder:
    """The encoder `name`, one of SMP's, or "tu-" and one of timm's: image (n, in_channels, h, w) -> depth + 1 features.

    The first is the image; a stride that the network does not have is a map without channels. (VGG and the like begin
    with their own feature of that size.) weights: None or False for random ones, True for the usual ones, fetched; a
    tag of `encoders[name]["pretrained_settings"]`, the path of a file. output_stride: 8 or 16 dilate, the way SMP does.
    kwargs: of timm's networks; encoder_weights is another name of weights.

    Raises what `pixelwise.encoders.create_encoder` raises.
    """
    # It brings torchvision, which the import above need not wait for
    from pixelwise.smp.encoders.features import as_smp

    if "encoder_weights" in kwargs:  # the models' word, which SMP's function swallows
        weights = kwargs.pop("encoder_weights") or weights
    timm = names.resolve(name).kind == "timm"
    if timm and isinstance(weights, str) and name.startswith("tu-"):
        warnings.warn(
            f"{name} has one set of weights, which is named behind a dot in it; weights={weights!r} is taken as True",
            UserWarning,
            stacklevel=2,
        )
        weights = True
    rule = {} if timm else {"dilation": "smp"}
    encoder = create_encoder(
        name, in_channels=in_channels, depth=depth, weights=weights, output_stride=output_stride, **rule, **kwargs
    )  # fmt: skip
    return as_smp(encoder, name, in_channels=in_channels, depth=depth, options=kwargs)


def get_encoder_names() -> list[str]:
    """SMP's names, without timm's."""
    return list(names.SMP)


def get_preprocessing_params(encoder_name: str, pretrained: str = "imagenet") -> dict[str, Any]:
    """What an encoder's weights want done to a picture: input_space, input_range, mean and std, as `preprocess_input`
    takes them. Nothing is fetched. Raises InputError where there are no such weights.
    """
    row = names.resolve(encoder_name)
    mean, std = IMAGENET_MEAN, IMAGENET_STD
    if row.kind == "timm":
        from timm.models import get_pretrained_cfg, is_model, is_model_pretrained

        if not is_model(row.network.partition(".")[0]):
            raise UnknownNameError("encoder", encoder_name, names.SMP)
        if not is_model_pretrained(row.network):
            raise WeightsError(
                f"timm has no weights for {encoder_name}, so nothing says how to prepare a picture"
            )
        found = get_pretrained_cfg(row.network)
        mean, std = found.mean, found.std
    else:
        tags = _tags(encoder_name)
        if pretrained not in tags:
            raise UnknownNameError(f"weights of {encoder_name}", pretrained, tags)
        if encoder_name.startswith("dpn"):
            mean, std = (124 / 255, 117 / 255, 104 / 255), (1 / (0.0167 * 255),) * 3
        elif pretrained == "advprop" or encoder_name.startswith(_HALVES):
            mean = std = (0.5, 0.5, 0.5)
    return {"input_space": "RGB", "input_range": [0, 1], "mean": list(mean), "std": list(std)}


_HALVES = ("xception", "inception", "timm-tf_efficientnet_lite")
"""Encoders trained on values from -1 to 1."""


def get_preprocessing_fn(encoder_name: str, pretrained: str = "imagenet") -> functools.partial[NDArray[Any]]:
    """`preprocess_input` with the numbers of `get_preprocessing_params`; it can be pickled."""
    return functools.partial(preprocess_input, **get_preprocessing_params(encoder_name, pretrained))


def preprocess_input(
    x: NDArray[Any],
    mean: Any = None,
    std: Any = None,
    input_space: str = "RGB",
    input_range: Any = None,
    **kwargs: Any,
) -> NDArray[Any]:
    """x (..., 3), RGB, float64 out: channels turned for "BGR", divided by 255, less `mean`, divided by `std`.

    Only what is given is done; divided by 255 it is where input_range ends at 1 and a value is above 1. A black picture
    with values of 0 and 1 is therefore taken as one from 0 to 1, as in SMP.
    """
    if input_space == "BGR":
        x = x[..., ::-1].copy()
    if input_range is not None and input_range[1] == 1 and x.size and x.max() > 1:
        x = x / 255.0
    if mean is not None:
        x = x - np.array(mean)
    if std is not None:
        x = x / np.array(std)
    return x


_MORE_TAGS = {
    **dict.fromkeys(("dpn68b", "dpn92", "dpn107"), ("imagenet+5k",)),
    **dict.fromkeys(("inceptionv4", "inceptionresnetv2"), ("imagenet+background",)),
    **dict.fromkeys(("timm-skresnet18", "timm-skresnet34", "timm-skresnext50_32x4d"), ("imagenet",)),
    "resnext101_32x48d": ("instagram",),
}
"""SMP's tags of weights that `get_encoder` cannot fetch."""


def _tags(name: str) -> tuple[str, ...]:
    return (*names.SMP[name].weights, *_MORE_TAGS.get(name, ()))


def __getattr__(name: str) -> Any:
    if name == "TimmViTEncoder":  # it brings timm, which the import above need not wait for
        from pixelwise.smp.encoders.timm_vit import TimmViTEncoder

        return TimmViTEncoder
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


class _Encoders(Mapping[str, dict[str, Any]]):
    """SMP's table, read only: name -> "encoder" (what makes it of "params"), "pretrained_settings" by tag, "params"."""

    def __getitem__(self, name: str) -> dict[str, Any]:
        from pixelwise.encoders import mit, staged

        row = names.SMP[name]
        channels = mit.SIZES[name].channels if row.kind == "mit" else staged.family(name).channels
        ahead = [3, 0] if row.kind == "mit" else [3] if len(channels) == 5 else []
        return {
            "encoder": functools.partial(_of_params, name),
            "pretrained_settings": {tag: get_preprocessing_params(name, tag) for tag in _tags(name)},
            "params": {"out_channels": [*ahead, *channels]},
        }

    def __iter__(self) -> Iterator[str]:
        return iter(names.SMP)

    def __len__(self) -> int:
        return len(names.SMP)

    def __setitem__(self, name: str, row: Any) -> None:
        raise InputError(
            f"{name!r} cannot be added to the table; build a model and assign your encoder, model.encoder = ..."
        )


def _of_params(name: str, out_channels: object = None, depth: int = 5, output_stride: int = 32) -> SmpEncoder:
    return get_encoder(name, depth=depth, output_stride=output_stride)


encoders = _Encoders()

"""Encoders: networks that turn an image into features of several sizes, for any decoder to use.

`create_encoder` makes them by name; importing this module brings neither torch nor timm.
"""

from __future__ import annotations

import fnmatch
import inspect
from typing import TYPE_CHECKING, Any, Protocol

from pixelwise.encoders.names import SMP, resolve
from pixelwise.errors import refuse_unknown, words_for

if TYPE_CHECKING:
    from torch import Tensor, nn

    from pixelwise.encoders.pretrained import Weights


class Encoder(Protocol):
    """What a decoder may rely on.

    `encoder(image (n, 3, h, w))` returns one feature per entry of `channels`, finest first; feature i has
    `channels[i]` channels and ceil(h / strides[i]) by ceil(w / strides[i]) pixels (at sizes that are no multiples of
    the strides, networks that shrink by pooling may round down).
    """

    channels: tuple[int, ...]
    strides: tuple[int, ...]

    def __call__(self, image: Tensor) -> list[Tensor]: ...


def create_encoder(
    name: str,
    *,
    in_channels: int = 3,
    output_stride: int = 32,
    depth: int = 5,
    weights: Weights = None,
    dilation: str = "classic",
    **options: Any,
) -> nn.Module:
    """The encoder `name`: one of SMP's names, or any network of timm that gives features (`list_encoders`).

    in_channels: with weights, a number other than 3 follows SMP's rule (`pixelwise.layers.with_input_channels`).
    output_stride: 8 or 16 dilate later stages instead of striding, where the network can.
    depth: only features of strides up to 2**depth, 1 to 5; layers beyond are left out.
    weights: None or False, random ones; True, the usual ones, fetched; a tag of SMP such as "imagenet"; the path of
    a file or a dictionary, in the names of SMP, torchvision, timm or ours. Without weights nothing touches the network.
    dilation: "classic" or "smp", see `pixelwise.encoders.staged.dilate`. SMP's checkpoints of dilated encoders (PAN,
    DeepLabV3, DeepLabV3+) give SMP's numbers only with "smp". timm's networks, in SMP too, dilate the classic way.
    options: of timm's networks, see `pixelwise.encoders.timm.timm_encoder`; drop_path of transformers and
    EfficientNets.

    Raises UnknownNameError for an unknown name, TypeError for an unknown option, each with the nearest; ValueError for
    what the network cannot do; WeightsError and DownloadError.
    """
    refuse_unknown(
        "create_encoder() has no argument",
        [key for key in options if words_for(key, _ARGUMENTS)],
        _ARGUMENTS,
    )
    for key, value in (("in_channels", in_channels), ("output_stride", output_stride), ("depth", depth)):
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise ValueError(f"{key} must be a whole number from 1 up, got {value!r}")
    if dilation not in ("classic", "smp"):
        raise ValueError(f"dilation must be 'classic' or 'smp', got {dilation!r}")
    row = resolve(name)
    if row.kind == "timm":
        from pixelwise.encoders.timm import timm_encoder

        if isinstance(weights, str) and weights == "imagenet":
            weights = True
        return timm_encoder(
            row.network,
            in_channels=in_channels,
            output_stride=output_stride,
            depth=depth,
            weights=weights,
            **options,
        )
    from pixelwise.encoders import named

    return named.smp_encoder(
        name, row, in_channels=in_channels, output_stride=output_stride, depth=depth, weights=weights,
        dilation=dilation, **options,
    )  # fmt: skip


_ARGUMENTS = tuple(
    name
    for name, kind in inspect.signature(create_encoder).parameters.items()
    if kind.kind is kind.KEYWORD_ONLY
)


def list_encoders(pattern: str = "*") -> list[str]:
    """The names that `create_encoder` knows and that match a shell pattern, sorted: SMP's and timm's.

    Names that begin with "tu-" or "timm/" are not listed: every name of timm may be written so. Needs timm.
    """
    from pixelwise.encoders.timm import list_timm

    return sorted(fnmatch.filter({*SMP, *list_timm()}, pattern))

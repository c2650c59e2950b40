"""Decoders: what makes a segmentation network of any encoder. Importing this module brings no torch.

Each file holds one network class, `Class(encoder, num_classes=1, *, ...)`, after one paper. Arithmetic and names of
the tensors are those of segmentation_models.pytorch (SMP) 0.6 wherever that is defined, so that what was trained
there loads; where it is not (odd sizes, smaller depths, patches of 14 pixels), the docstrings say what is done.
"""

from __future__ import annotations

import fnmatch
import importlib
from typing import Any

from pixelwise.errors import UnknownNameError

DECODERS: dict[str, str] = {
    "unet": "pixelwise.decoders.unet:Unet",
    "unetplusplus": "pixelwise.decoders.unetplusplus:UnetPlusPlus",
    "manet": "pixelwise.decoders.manet:MAnet",
    "linknet": "pixelwise.decoders.linknet:Linknet",
    "fpn": "pixelwise.decoders.fpn:FPN",
    "pspnet": "pixelwise.decoders.pspnet:PSPNet",
    "pan": "pixelwise.decoders.pan:PAN",
    "deeplabv3": "pixelwise.decoders.deeplabv3:DeepLabV3",
    "deeplabv3plus": "pixelwise.decoders.deeplabv3plus:DeepLabV3Plus",
    "upernet": "pixelwise.decoders.upernet:UPerNet",
    "segformer": "pixelwise.decoders.segformer:Segformer",
    "dpt": "pixelwise.decoders.dpt:DPT",
}
"""Name of the decoder: "module:Class" of the network that it makes of an encoder."""


def load_decoder(name: str) -> Any:
    """The network class of a decoder (this imports torch); UnknownNameError, with the nearest, for another name."""
    if name not in DECODERS:
        raise UnknownNameError("decoder", name, DECODERS)
    module, attribute = DECODERS[name].split(":")
    return getattr(importlib.import_module(module), attribute)


def list_decoders(pattern: str = "*") -> list[str]:
    """The names of decoders that match a shell pattern, sorted: what `create_model` takes with `encoder=`.

    >>> list_decoders("unet*")
    ['unet', 'unetplusplus']
    """
    return sorted(fnmatch.filter(DECODERS, pattern))

"""The names of segmentation_models.pytorch (SMP) 0.6: change one import and go on.

>>> import pixelwise.smp as smp                                                         # doctest: +SKIP
>>> model = smp.Unet("resnet34", encoder_weights="imagenet", classes=3)                 # doctest: +SKIP

docs/from_smp.md says what is different.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from pixelwise.decoders.smp_parts import SegmentationHead
from pixelwise.smp.derived import SegmentationModel
from pixelwise.smp.models import (
    DPT,
    FPN,
    MODEL_ARCHITECTURES_MAPPING,
    PAN,
    DeepLabV3,
    DeepLabV3Plus,
    Linknet,
    MAnet,
    PSPNet,
    Segformer,
    Unet,
    UnetPlusPlus,
    UPerNet,
    create_model,
    from_pretrained,
)

if TYPE_CHECKING:
    from pixelwise.smp import base, encoders, losses, metrics

__version__ = "0.6.0"
"""The version of SMP that this stands for."""

__all__ = [
    "DPT",
    "FPN",
    "MODEL_ARCHITECTURES_MAPPING",
    "PAN",
    "DeepLabV3",
    "DeepLabV3Plus",
    "Linknet",
    "MAnet",
    "PSPNet",
    "Segformer",
    "SegmentationHead",
    "SegmentationModel",
    "UPerNet",
    "Unet",
    "UnetPlusPlus",
    "__version__",
    "base",
    "create_model",
    "encoders",
    "from_pretrained",
    "losses",
    "metrics",
]


def __getattr__(name: str) -> Any:
    if name in ("base", "encoders", "losses", "metrics"):  # which the import above need not wait for
        return importlib.import_module(f"pixelwise.smp.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__

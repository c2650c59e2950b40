"""No New-Net (1809.10483): the 3-D U-Net for tumours in four kinds of MRI."""

from __future__ import annotations

from pixelwise.catalog.entry import Entry, biomedical, by_name
from pixelwise.inference.preprocess import Preprocess
from pixelwise.inference.volume_preprocess import Normalise, VolumePreprocess
from pixelwise.labels import LabelSet
from pixelwise.weights.card import Score

_REGIONS = LabelSet.of(("background", "whole tumour", "tumour core", "enhancing tumour"))
_TISSUES = LabelSet.of(("nothing", "edema", "enhancing tumour", "necrosis"), ids=(0, 2, 4, 1))
_FOUR = Preprocess(mean=(0.0,) * 4, std=(1.0,) * 4)
_VOLUME = VolumePreprocess(
    channels=(Normalise("zscore", nonzero=True),) * 4, spacing=(1.0, 1.0, 1.0), patch=(128, 128, 128)
)
_CHANNELS = "Input channels T1, T1ce, T2, FLAIR, 1 mm, each z-scored within the brain and zero outside it."


def _dice(region: str, value: float) -> Score:
    return Score(f"Dice, {region}", value, "BraTS 2018 test", "ensemble of folds and flips", "1809.10483")


ROWS: dict[str, Entry] = by_name(
    biomedical("nonewnet:nonewnet", labels=_REGIONS, outputs="regions", preprocess=_FOUR, volume=_VOLUME,
               parameters=12_418_980,
               licence="MIT", origin="modelhub-ai/mic-dkfz-brats, 1809.10483",
               scores=(_dice("whole tumour", 0.8781), _dice("tumour core", 0.8062), _dice("enhancing tumour", 0.7788)),
               notes=("Official files: 0_model_best.model .. 4_model_best.model, one per fold, with heads at four "
                      "levels for two data sets (12,420,330 parameters): deep_supervision=True, cotraining_classes=3.",
                      _CHANNELS, "391,312,834,560 multiply-adds for a volume of 128 x 128 x 128.")),
    biomedical("nonewnet:nonewnet_softmax", labels=_TISSUES, preprocess=_FOUR, volume=_VOLUME, parameters=12_419_010,
               origin="1809.10483",
               notes=(_CHANNELS, "391,375,749,120 multiply-adds for a volume of 128 x 128 x 128.")),
    biomedical("nonewnet:nonewnet_2d", labels=_REGIONS, outputs="regions", preprocess=_FOUR, parameters=4_835_700,
               multiply_adds=2_275_246_080, multiply_adds_hw=(128, 128),
               origin="1809.10483, in two dimensions", notes=(_CHANNELS,)),
)  # fmt: skip

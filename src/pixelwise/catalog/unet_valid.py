"""U-Net without padding: the paper's (1505.04597) and the network of its release."""

from __future__ import annotations

from pixelwise.catalog.entry import Entry, biomedical, by_name
from pixelwise.labels import LabelSet
from pixelwise.weights.card import Score

_CELLS = LabelSet.of(("background", "cell"))
_ISBI = "ISBI 2012 EM, 7 rotations averaged"

ROWS: dict[str, Entry] = by_name(
    biomedical("unet_valid:unet_valid", labels=_CELLS, parameters=31_031_810,
               multiply_adds=150_802_709_248, multiply_adds_hw=(388, 388), origin="1505.04597",
               scores=(Score("warping error", 0.000353, _ISBI, "challenge", "1505.04597"),
                       Score("Rand error", 0.0382, _ISBI, "challenge", "1505.04597"),
                       Score("pixel error", 0.0611, _ISBI, "challenge", "1505.04597")),
               notes=("With one input channel, as in the paper, 31,030,658 parameters.",
                      "Multiply-adds for an image that one tile of 572 pixels covers.")),
    biomedical("unet_valid:unet_phseg_v5", labels=_CELLS, parameters=31_101_506,
               multiply_adds=157_668_539_136, multiply_adds_hw=(388, 388),
               origin="u-net-release-2015-10-02 of the University of Freiburg",
               notes=("Official file: phseg_v5.caffemodel (u-net-release-2015-10-02), one input channel.",
                      "With its one input channel 31,100,354 parameters.")),
)  # fmt: skip

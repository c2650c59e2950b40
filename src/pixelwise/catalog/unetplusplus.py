"""U-Net++ (1807.10165), with and without deep supervision."""

from __future__ import annotations

from pixelwise.catalog.entry import Entry, biomedical, by_name
from pixelwise.labels import LabelSet

_FOREGROUND = LabelSet.of(("background", "foreground"))
_ORIGIN = "MrGiovanni/UNetPlusPlus, 1807.10165"
_KERAS = "Keras names are read; the authors publish no 2-D weights."

ROWS: dict[str, Entry] = by_name(
    biomedical("unetplusplus:unetplusplus", labels=_FOREGROUND, outputs="binary", parameters=9_042_177,
               multiply_adds=119_151_788_032, multiply_adds_hw=(512, 512), origin=_ORIGIN, notes=(_KERAS,)),
    biomedical("unetplusplus:unetplusplus_ds", labels=_FOREGROUND, outputs="binary", parameters=9_042_276,
               multiply_adds=119_176_953_856, multiply_adds_hw=(512, 512), origin=_ORIGIN, notes=(_KERAS,)),
)  # fmt: skip

"""FCN on ConvNeXt: a network of R's torchvision, whose weights nobody publishes."""

from __future__ import annotations

from functools import partial

from pixelwise.catalog.entry import Entry, by_name, row
from pixelwise.inference.preprocess import Preprocess
from pixelwise.labels import VOC

_fcn_convnext = partial(
    row, labels=VOC, preprocess=Preprocess(size=520), stride=32, multiply_adds_hw=(520, 520),
    origin="the network of R's torchvision (mlverse); no trained weights are published",
    notes=("R leaves out the norm of the encoder's features: output_norms=False.",),
)  # fmt: skip
"""parameters: without the auxiliary head."""

ROWS: dict[str, Entry] = by_name(
    _fcn_convnext("fcn_convnext:fcn_convnext_tiny", parameters=31_370_869, multiply_adds=24_433_660_608),
    _fcn_convnext("fcn_convnext:fcn_convnext_small", parameters=53_005_429, multiply_adds=46_523_749_056),
    _fcn_convnext("fcn_convnext:fcn_convnext_base", parameters=92_296_853, multiply_adds=81_866_430_720),
)

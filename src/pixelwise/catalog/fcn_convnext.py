"""FCN on ConvNeXt: a network of R's torchvision, whose weights nobody publishes."""

from __future__ import annotations

from pixelwise.catalog.entry import Entry, by_name
from pixelwise.inference.preprocess import Preprocess
from pixelwise.labels import VOC
from pixelwise.weights.card import Card


def _fcn_convnext(size: str, *, parameters: int, multiply_adds: int) -> Entry:
    """parameters: without the auxiliary head. multiply_adds: at 520x520."""
    return Entry(
        builder=f"fcn_convnext:fcn_convnext_{size}",
        card=Card(
            name=f"fcn_convnext_{size}",
            architecture=f"fcn_convnext_{size}",
            labels=VOC,
            preprocess=Preprocess(size=520),
            stride=32,
            align_corners=False,
            parameters=parameters,
            multiply_adds=multiply_adds,
            multiply_adds_hw=(520, 520),
            origin="the network of R's torchvision (mlverse); no trained weights are published",
            notes=("R leaves out the norm of the encoder's features: output_norms=False.",),
        ),
    )


ROWS: dict[str, Entry] = by_name(
    _fcn_convnext("tiny", parameters=31_370_869, multiply_adds=24_433_660_608),
    _fcn_convnext("small", parameters=53_005_429, multiply_adds=46_523_749_056),
    _fcn_convnext("base", parameters=92_296_853, multiply_adds=81_866_430_720),
)

"""A network and its card to one ONNX file: `image` (n, 3, h, w) float32 in, coarse `logits` out, any n, h, w."""

from __future__ import annotations

import copy
import logging
import os
import warnings
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from pixelwise.errors import ExportError
from pixelwise.files import writing
from pixelwise.layers import Network
from pixelwise.weights.card import CARD_KEY, Card

TOLERANCE = 1e-4
"""Largest difference in logits that an export may show, relative to the logits' range."""


class _Coarse(nn.Module):
    """The part of a network that is exported: the last enlargement is `decide`'s."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, image: Tensor) -> Tensor:
        return cast(Tensor, cast(Any, self.network).coarse(image))


def export_onnx(
    network: nn.Module,
    card: Card,
    path: str | os.PathLike[str],
    *,
    in_channels: int = 3,
    check_hw: tuple[tuple[int, int], ...] = ((97, 130), (161, 129)),
    overwrite: bool = True,
) -> float:
    """Write `network.coarse` and `card` to `path`; return the largest relative difference in logits seen.

    The file is checked against the network, with ONNX Runtime, at the sizes `check_hw` (height, width), none
    of which is the size it was traced at. Raises ExportError, leaving no file, when it differs by more than
    TOLERANCE of the logits' range or cannot be traced. The network itself is not changed.
    """
    if not isinstance(network, Network):
        raise ExportError(
            f"{type(network).__name__} has no coarse(), stride and align_corners, so it is no Network"
        )
    source = copy.deepcopy(network).cpu().float().eval()
    with writing(path, overwrite=overwrite) as temporary:
        _trace(source, card, temporary, in_channels)
        worst = max(_difference(source, temporary, in_channels, size) for size in check_hw)
        if not worst <= TOLERANCE:  # false for NaN as well
            raise ExportError(
                f"the exported {card.name} differs from its network by {worst:.1e} of the logits' range "
                f"(allowed: {TOLERANCE:.0e}); no file was written"
            )
    return worst


def _trace(source: nn.Module, card: Card, path: Path, in_channels: int) -> None:
    sides = dict.fromkeys((0, 2, 3), torch.export.Dim.DYNAMIC)
    example = torch.rand(2, in_channels, 224, 256)  # a batch of 2: the tracer takes a 1 for a constant
    for noisy in ("torch.onnx", "torch.fx.experimental.symbolic_shapes"):
        logging.getLogger(noisy).setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")  # the exporter warns about itself
            program = torch.onnx.export(
                _Coarse(source),
                (example,),
                input_names=["image"],
                output_names=["logits"],
                dynamic_shapes=(sides,),
                dynamo=True,
                verbose=False,
            )
    except Exception as error:  # the exporter raises whatever the tracer met
        raise ExportError(f"{card.name} cannot be exported to ONNX: {str(error).splitlines()[0]}") from error
    assert program is not None
    program.model.metadata_props[CARD_KEY] = card.to_json()
    program.save(str(path), external_data=False)


def _difference(source: nn.Module, path: Path, in_channels: int, size_hw: tuple[int, int]) -> float:
    import onnxruntime

    image = torch.randn(1, in_channels, *size_hw, generator=torch.Generator().manual_seed(sum(size_hw)))
    with torch.no_grad():
        expected = cast(Any, source).coarse(image).numpy()
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    (got,) = session.run(None, {"image": image.numpy()})
    if got.shape != expected.shape:
        return float("inf")
    return float(np.abs(got - expected).max() / (np.ptp(expected) or 1.0))

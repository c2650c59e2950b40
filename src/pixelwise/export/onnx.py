"""A network and its card to one ONNX file: `image` (n, 3, h, w) float32 in, coarse `logits` out, any n, h, w."""

from __future__ import annotations

import copy
import logging
import os
import warnings
from pathlib import Path
from typing import Any, cast

import numpy as np
import onnx
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
    traced_at: tuple[int, ...] = (224, 256),
    checked_at: tuple[tuple[int, ...], ...] = ((97, 130), (161, 129)),
    overwrite: bool = True,
) -> float:
    """Write `network.coarse` and `card` to `path`; return the largest relative difference in logits seen.

    Batch and every side are dynamic, in 2-D (h, w) and 3-D (d, h, w). The file is checked against the network,
    with ONNX Runtime, at the sizes `checked_at`, none of which is the size it was traced at. Raises ExportError,
    leaving no file, when it differs by more than TOLERANCE of the logits' range or cannot be traced. The network
    itself is not changed.
    """
    if not isinstance(network, Network):
        raise ExportError(
            f"{type(network).__name__} has no coarse(), stride and align_corners, so it is no Network"
        )
    source = copy.deepcopy(network).cpu().float().eval()
    with writing(path, overwrite=overwrite) as temporary:
        try:
            program = trace(source, torch.rand(2, in_channels, *traced_at))
        except Exception as error:  # the exporter raises whatever the tracer met
            raise ExportError(
                f"{card.name} cannot be exported to ONNX: {str(error).splitlines()[0]}"
            ) from error
        _write(program.model_proto, card, temporary)
        worst = max(_difference(source, temporary, (1, in_channels, *size)) for size in checked_at)
        if not worst <= TOLERANCE:  # false for NaN as well
            raise ExportError(
                f"the exported {card.name} differs from its network by {worst:.1e} of the logits' range "
                f"(allowed: {TOLERANCE:.0e}); no file was written"
            )
    return worst


def trace(network: nn.Module, example: Tensor) -> Any:
    """`network.coarse` as a torch.onnx program in which batch and sides are dynamic.

    example (n, c, ...) with n > 1: the tracer takes a 1 for a constant.
    """
    for noisy in ("torch.onnx", "torch.fx.experimental.symbolic_shapes"):
        logging.getLogger(noisy).setLevel(logging.ERROR)
    sides = dict.fromkeys((0, *range(2, example.ndim)), torch.export.Dim.DYNAMIC)
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # the exporter warns about itself
        return torch.onnx.export(
            _Coarse(network),
            (example,),
            input_names=["image"],
            output_names=["logits"],
            dynamic_shapes=(sides,),
            dynamo=True,
            verbose=False,
        )


def _write(model: Any, card: Card, path: Path) -> None:
    """The model with its card, and without the exporter's notes on each node: file names of this machine."""
    graph = model.graph
    for part in (graph, *graph.node, *graph.input, *graph.output, *graph.value_info, *graph.initializer):
        part.ClearField("metadata_props")
        part.ClearField("doc_string")
    model.metadata_props.add(key=CARD_KEY, value=card.to_json())
    onnx.save(model, path)


def _difference(source: nn.Module, path: Path, shape: tuple[int, ...]) -> float:
    import onnxruntime

    image = torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape)))
    with torch.no_grad():
        expected = cast(Any, source).coarse(image).numpy()
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    (got,) = session.run(None, {"image": image.numpy()})
    if got.shape != expected.shape:
        return float("inf")
    return float(np.abs(got - expected).max() / (np.ptp(expected) or 1.0))

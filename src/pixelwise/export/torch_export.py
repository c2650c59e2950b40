"""A network and its card to a file of torch.export (.pt2): coarse logits as a graph, for whatever takes such graphs."""

from __future__ import annotations

import copy
import dataclasses
import logging
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from pixelwise.checkpoints.loading import from_checkpoint
from pixelwise.checkpoints.saving import header
from pixelwise.errors import ExportError, first_line
from pixelwise.export.onnx import CHECKED_AT, TOLERANCE, TRACED_AT, Coarse
from pixelwise.export.parity import Parity, joined, parity_of, refuse_far
from pixelwise.weights import programs
from pixelwise.weights.card import Card


def write_program(
    network: nn.Module, card: Card, path: Path, *, size_hw: tuple[int, int] | None = None
) -> Parity:
    """Write a network of ours as a graph in float32, and say how far it is from the network.

    The graph takes `image` (n, c, h, w) float32, any n, h and w, or with `size_hw` that size alone, and gives coarse
    logits. Beside it stand the card and how the network is built, so that pixelwise opens the file as it opens weights.

    Raises InputError for a network whose origin is not known; ExportError, after which the file is of no use, where it
    cannot be traced or gives other numbers than the network.
    """
    said = header(network, card)
    source = copy.deepcopy(network).cpu().float().eval().requires_grad_(False)
    fit = dataclasses.replace(card.preprocess, size=None).size_hw
    traced = size_hw or fit(*TRACED_AT)
    sizes = [size_hw] if size_hw else [fit(*size) for size in CHECKED_AT]
    channels = len(card.preprocess.mean)
    for noisy in ("torch.export", "torch.fx.experimental.symbolic_shapes"):
        logging.getLogger(noisy).setLevel(logging.ERROR)
    sides = dict.fromkeys((0,) if size_hw else (0, 2, 3), torch.export.Dim.DYNAMIC)
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # the exporter warns about itself
        try:
            example = torch.rand(2, channels, *traced)
            program = torch.export.export(Coarse(source), (example,), dynamic_shapes=(sides,))
            program.example_inputs = None  # which would be written, too
            torch.export.save(program, path, **programs.with_header(said))
            run = torch.export.load(path).module()
        except Exception as error:  # whatever the tracer meets
            raise ExportError(
                f"{card.name} cannot be exported by torch.export ({first_line(error)}); try one size (--size H,W), or "
                "another kind of file: --to onnx"
            ) from error
        shapes = [(3, channels, *sizes[0]), *((1, channels, *size) for size in sizes)]
        found = joined(_difference(card, source, run, shape) for shape in shapes)
    refuse_far(card.name, found, gap=TOLERANCE)
    again, own = from_checkpoint(path).state_dict(), source.state_dict()
    if again.keys() != own.keys() or not all(torch.equal(again[name], own[name]) for name in own):
        raise ExportError(
            f"the exported {card.name} does not open again with its weights, so no file was written; torch "
            f"{torch.__version__} writes other files than 2.9 and newer"
        )
    return found


def _difference(card: Card, source: nn.Module, run: Any, shape: tuple[int, ...]) -> Parity:
    image = torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape)))
    expected: Tensor = source.coarse(image)  # type: ignore[operator]
    try:
        got: Tensor = run(image)
    except Exception as error:  # guards of any kind
        raise ExportError(
            f"the exported {card.name} fails at a batch of {shape[0]} and {shape[2]}x{shape[3]} ({first_line(error)}), "
            "so no file was written; export it for one size (--size H,W)"
        ) from error
    return parity_of(expected.numpy(), got.numpy(), card.outputs)

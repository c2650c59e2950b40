"""Export a network, score the file as users run it, and write that on its card."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from pixelwise.export.onnx import export_onnx
from pixelwise.weights.card import Card, Score


def embed(network: nn.Module, card: Card, path: Path, measure: Callable[[Path], tuple[Score, ...]]) -> Card:
    """Write `path`, an ONNX file whose card tells size, cost and what `measure` finds in it; return the card.

    The parameters and multiply-adds of `card` are counted here, the latter at 513x513 pixels and of pictures alone.
    """
    card = card.replace(parameters=sum(parameter.numel() for parameter in network.parameters()))
    if card.volume is None:
        cost = count_multiply_adds(network, (513, 513))
        card = card.replace(multiply_adds=cost, multiply_adds_hw=(513, 513))
    difference = export_onnx(network, card, path)
    print(f"largest difference to the network: {difference:.1e} of the logits' range", file=sys.stderr)
    card = card.replace(scores=measure(path))
    export_onnx(network, card, path)
    for score in card.scores:
        print(f"{score.metric}: {score.value:.4f} ({score.data}; {score.protocol})")
    return card


def count_multiply_adds(network: nn.Module, size_hw: tuple[int, int]) -> int:
    """Multiply-adds of convolutions in one forward pass over one RGB picture."""
    counter = FlopCounterMode(display=False)
    with counter, torch.no_grad():
        network.eval()(torch.zeros(1, 3, *size_hw))
    return int(counter.get_total_flops()) // 2

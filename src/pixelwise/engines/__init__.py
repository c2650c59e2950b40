"""Engines: what turns float32 images (n, 3, h, w) into coarse logits (n, k, ~h/stride, ~w/stride)."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Protocol

from pixelwise.errors import InputError, MissingExtraError, UnknownNameError
from pixelwise.weights.card import Card

ENGINES = {
    "onnxruntime": "files (.onnx), the default on a CPU",
    "pytorch": "networks (torch.nn.Module), CPU and GPU",
}


class Engine(Protocol):
    """A loaded network. `name` is a key of ENGINES; `card` says what it expects and what its logits mean."""

    name: str
    card: Card

    def __call__(self, images: Any) -> Any:
        """float32 (n, 3, h, w), already normalised, NumPy or torch, to coarse logits where they were computed."""
        ...


def open_engine(
    model: Any, name: str = "auto", *, card: Card | None = None, threads: int | None = None
) -> Engine:
    """The engine for a file or a network.

    model: path of an ONNX file that holds a card (or pass `card`), or a torch network with its `card`. name:
    "auto" runs files with ONNX Runtime and networks with PyTorch. threads: CPU threads, None for one a core.
    """
    if name != "auto" and name not in ENGINES:
        raise UnknownNameError("engine", name, ["auto", *ENGINES])
    is_file = isinstance(model, (str, os.PathLike))
    if name == "auto":
        name = "onnxruntime" if is_file else "pytorch"
    if is_file != (name == "onnxruntime"):
        raise InputError(
            f"engine {name!r} runs {ENGINES[name]}, got {model if is_file else type(model).__name__}"
        )
    if is_file:
        from pixelwise.engines.onnxruntime import OnnxRuntimeEngine

        return OnnxRuntimeEngine(Path(model), card=card, threads=threads)
    try:
        from pixelwise.engines.pytorch import PyTorchEngine
    except ModuleNotFoundError as error:
        raise MissingExtraError("running a torch network", "torch") from error
    if card is None:
        raise InputError("a torch network needs a card that says what its outputs mean; pass card=")
    return PyTorchEngine(model, card, threads=threads)

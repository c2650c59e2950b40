"""Engines: what turns float32 images (n, 3, h, w) into coarse logits (n, k, ~h/stride, ~w/stride)."""

from __future__ import annotations

import os
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from pixelwise.errors import InputError, MissingExtraError, UnknownNameError

if TYPE_CHECKING:
    from pixelwise.weights.card import Card, CardOf


class Engine(Protocol):
    """A loaded network. `name` is a key of ENGINES; `card` says what it expects and what its logits mean."""

    name: str
    card: Card

    def __call__(self, images: Any) -> Any:
        """float32 (n, 3, h, w), already normalised, NumPy or torch, to coarse logits where they were computed."""
        ...


@dataclass(frozen=True)
class Known:
    """One row of ENGINES. opens: "module:class", called with (path or network, card=, threads=, device=). says: what it
    runs. files: endings of the files that it runs; none: it runs networks in memory. extra: of pixelwise, that brings
    it."""

    opens: str
    says: str
    files: tuple[str, ...] = ()
    extra: str | None = None


ENGINES = {
    "onnxruntime": Known(
        opens="pixelwise.engines.onnxruntime:OnnxRuntimeEngine",
        says="files (.onnx), the default on a CPU",
        files=(".onnx",),
    ),
    "pytorch": Known(
        opens="pixelwise.engines.pytorch:PyTorchEngine",
        says="networks (torch.nn.Module), CPU and GPU",
        extra="torch",
    ),
}
"""Every engine by its name; "auto" takes the first that fits."""


def open_engine(
    model: Any,
    name: str = "auto",
    *,
    card: Card | CardOf | None = None,
    threads: int | None = None,
    device: str | None = None,
) -> Engine:
    """The engine for a file or a network.

    model: path of a file that holds a card (or pass `card`), or a torch network with its `card`. name: a key of
    ENGINES, or "auto": ONNX Runtime for ONNX files and PyTorch for networks. card: goes before the file's own; or a
    function that makes one. threads: CPU threads, None for one a core. device: where it is to run, such as "cuda" or
    "cuda:1", or "auto" for a GPU if the engine can use one here; None is the CPU, and leaves a network where it is.
    """
    if threads is not None and (isinstance(threads, bool) or not isinstance(threads, int) or threads < 1):
        raise InputError(f"threads must be a whole number from 1 up, or None for one a core, got {threads!r}")
    if name != "auto" and name not in ENGINES:
        raise UnknownNameError("engine", name, ["auto", *ENGINES])
    is_file = isinstance(model, (str, os.PathLike))
    model = Path(model) if is_file else model
    if name == "auto":
        fit = [known for known, row in ENGINES.items() if bool(row.files) == is_file]
        name = next(
            (known for known in fit if is_file and model.suffix.lower() in ENGINES[known].files), fit[0]
        )
    row = ENGINES[name]
    if bool(row.files) != is_file:
        there = str(model) if is_file else f"a torch network ({type(model).__name__})"
        advice = "" if is_file else "; pixelwise export writes such a file"
        raise InputError(f"engine {name!r} runs {row.says}, got {there}{advice}")
    module, _, kind = row.opens.partition(":")
    try:
        home = import_module(module)
    except ModuleNotFoundError as error:
        if row.extra is None:
            raise
        raise MissingExtraError(f"the engine {name}", row.extra) from error
    engine: Engine = getattr(home, kind)(model, card=card, threads=threads, device=device)
    return engine

"""Engines: what turns float32 images (n, 3, h, w) into coarse logits (n, k, ~h/stride, ~w/stride)."""

from __future__ import annotations

import os
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from pixelwise.errors import InputError, MissingExtraError, UnknownNameError
from pixelwise.precision import PRECISIONS, Precision

if TYPE_CHECKING:
    from pixelwise.weights.card import Card, CardOf


class Engine(Protocol):
    """A loaded network. `name` is a key of ENGINES, `precision` what it computes in; `card` says what it expects and
    what its logits mean."""

    card: Card

    @property
    def name(self) -> str: ...

    @property
    def precision(self) -> Precision: ...

    def __call__(self, images: Any) -> Any:
        """float32 (n, 3, h, w), already normalised, NumPy or torch, to coarse logits where they were computed."""
        ...


@dataclass(frozen=True)
class Known:
    """One row of ENGINES. opens: "module:class", called with (path or network, card=, threads=, device=, precision=).
    says: what it runs. files: endings of the files that it runs; none: it runs networks in memory. extra: of pixelwise,
    that brings it. precisions: that it can be asked for; int8 is for files that were quantised. package: whose version
    counts. tried: it loads a file in a process of its own first, for it may crash."""

    opens: str
    says: str
    files: tuple[str, ...] = ()
    extra: str | None = None
    precisions: tuple[Precision, ...] = ("float32", "int8")
    package: str = "pixelwise"
    tried: bool = False

    def fits(self, model: Any) -> bool:
        """Whether it runs models of that kind, a path or a network."""
        return model.suffix.lower() in self.files if isinstance(model, Path) else not self.files


ENGINES = {
    "onnxruntime": Known(
        opens="pixelwise.engines.onnxruntime:OnnxRuntimeEngine",
        says="files (.onnx), the default on a CPU",
        files=(".onnx",),
        package="onnxruntime",
    ),
    "openvino": Known(
        opens="pixelwise.engines.openvino:OpenVinoEngine",
        says="files (.onnx, .xml), CPU",
        files=(".onnx", ".xml"),
        extra="openvino",
        precisions=("float32", "bfloat16", "int8"),
        package="openvino",
        tried=True,
    ),
    "pytorch": Known(
        opens="pixelwise.engines.pytorch:PyTorchEngine",
        says="networks (torch.nn.Module), CPU and GPU",
        extra="torch",
        precisions=("float32", "bfloat16", "float16"),
        package="torch",
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
    precision: Precision | None = None,
) -> Engine:
    """The engine for a file or a network.

    model: path of a file that holds a card (or pass `card`), or a torch network with its `card`. name: a key of
    ENGINES, or "auto": the first that runs such a model in that precision, ONNX Runtime for ONNX files and PyTorch for
    networks. card: goes before the file's own; or a function that makes one. threads: CPU threads, None for one a core.
    device: where it is to run, such as "cuda" or "cuda:1", or "auto" for a GPU if the engine can use one here; None is
    the CPU, and leaves a network where it is. precision: None for what the model is, float32 unless it was made
    otherwise; float32 is float32 in every engine.

    Raises InputError, in one sentence with what to do, for what cannot be had; MissingExtraError where the engine is
    not installed.
    """
    if threads is not None and (isinstance(threads, bool) or not isinstance(threads, int) or threads < 1):
        raise InputError(f"threads must be a whole number from 1 up, or None for one a core, got {threads!r}")
    if precision is not None and precision not in PRECISIONS:
        raise UnknownNameError("precision", precision, PRECISIONS)
    if name != "auto" and name not in ENGINES:
        raise UnknownNameError("engine", name, ["auto", *ENGINES])
    model = Path(model) if isinstance(model, (str, os.PathLike)) else model
    name = _first_fit(model, precision) if name == "auto" else name
    row = ENGINES[name]
    if not row.fits(model) and (model.is_file() if isinstance(model, Path) else True):
        there = str(model) if isinstance(model, Path) else f"a torch network ({type(model).__name__})"
        advice = "" if isinstance(model, Path) else "; pixelwise export writes such a file"
        raise InputError(f"engine {name!r} runs {row.says}, got {there}{advice}")
    if precision is not None and precision not in row.precisions:
        others = [
            other for other, known in ENGINES.items() if known.fits(model) and precision in known.precisions
        ]
        raise InputError(
            f"engine {name!r} computes in {', '.join(row.precisions)}, got precision {precision!r}; "
            + (f"take engine {others[0]}" if others else "leave it out")
        )
    module, _, kind = row.opens.partition(":")
    try:
        home = import_module(module)
    except ModuleNotFoundError as error:
        if row.extra is None:
            raise
        raise MissingExtraError(f"the engine {name}", row.extra) from error
    if row.tried and model.is_file():
        from pixelwise.engines.apart import Order
        from pixelwise.engines.trials import refuse_failing, version_of

        order = Order(row.opens, model, threads=threads, device=device, precision=precision)
        refuse_failing(order, name, version_of(row.package), reference_for(model, name))
    engine: Engine = getattr(home, kind)(
        model, card=card, threads=threads, device=device, precision=precision
    )
    return engine


def reference_for(model: Any, name: str) -> str | None:
    """What opens the engine whose answers are right for such a model: the first that runs it, None for itself."""
    first = _first_fit(model, None)
    return None if first == name else ENGINES[first].opens


def _first_fit(model: Any, precision: Precision | None) -> str:
    """What "auto" takes: the first that runs such a model, in that precision where one can."""
    fit = [name for name, row in ENGINES.items() if row.fits(model)]
    if not fit:  # what is no model at all is for the first of them to say
        fit = [name for name, row in ENGINES.items() if bool(row.files) == isinstance(model, Path)]
    return next((name for name in fit if precision is None or precision in ENGINES[name].precisions), fit[0])

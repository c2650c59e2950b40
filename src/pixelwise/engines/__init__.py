"""Engines: what turns float32 images (n, 3, h, w) into coarse logits (n, k, ~h/stride, ~w/stride)."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from pixelwise.errors import InputError, MissingExtraError, UnknownNameError
from pixelwise.precision import PRECISIONS, Precision

if TYPE_CHECKING:
    from pixelwise.engines.racing import Candidate
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
    counts. cpu_only: it runs nowhere else. tried: it loads a file in a process of its own first, for it may crash.
    compiles: it takes minutes before the first answer, so it races on a GPU only, where it may pay."""

    opens: str
    says: str
    files: tuple[str, ...] = ()
    extra: str | None = None
    precisions: tuple[Precision, ...] = ("float32", "int8")
    package: str = "pixelwise"
    tried: bool = False
    cpu_only: bool = False
    compiles: bool = False

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
        cpu_only=True,
    ),
    "pytorch": Known(
        opens="pixelwise.engines.pytorch:PyTorchEngine",
        says="networks (torch.nn.Module), CPU and GPU",
        extra="torch",
        precisions=("float32", "bfloat16", "float16"),
        package="torch",
    ),
    "pytorch-compiled": Known(
        opens="pixelwise.engines.pytorch:CompiledEngine",
        says="networks (torch.nn.Module), compiled on first use",
        extra="torch",
        precisions=("float32", "bfloat16", "float16"),
        package="torch",
        compiles=True,
    ),
}
"""Every engine by its name; "auto" takes the first that fits, "fastest" prefers the first where it makes no odds."""


NAMES = ("auto", *ENGINES, "fastest")


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
    ENGINES; or "auto": the first that runs such a model in that precision, ONNX Runtime for ONNX files and PyTorch for
    networks; or "fastest": whoever wins a race at the size of the first picture, see `engines.racing`. card: goes
    before the file's own; or a function that makes one. threads: CPU threads, None for one a core. device: where it is
    to run, such as "cuda" or "cuda:1", or "auto" for a GPU if the engine can use one here; None is the CPU, and leaves
    a network where it is. precision: None for what the model is, float32 unless it was made otherwise; float32 is
    float32 in every engine.

    Raises InputError, in one sentence with what to do, for what cannot be had; MissingExtraError where the engine is
    not installed.
    """
    if threads is not None and (isinstance(threads, bool) or not isinstance(threads, int) or threads < 1):
        raise InputError(f"threads must be a whole number from 1 up, or None for one a core, got {threads!r}")
    if precision is not None and precision not in PRECISIONS:
        raise UnknownNameError("precision", precision, PRECISIONS)
    if name not in NAMES:
        raise UnknownNameError("engine", name, NAMES)
    model = Path(model) if isinstance(model, (str, os.PathLike)) else model
    if name == "fastest":
        return fastest(model, card=card, threads=threads, device=device, precision=precision)
    asked, name = name, _first_fit(model, precision) if name == "auto" else name
    row = ENGINES[name]
    if not row.fits(model) and (model.is_file() if isinstance(model, Path) else True):
        there = str(model) if isinstance(model, Path) else f"a torch network ({type(model).__name__})"
        advice = "" if isinstance(model, Path) else "; pixelwise export writes such a file"
        raise InputError(f"engine {name!r} runs {row.says}, got {there}{advice}")
    if precision is not None and precision not in row.precisions:
        others = [
            other for other, known in ENGINES.items() if known.fits(model) and precision in known.precisions
        ]
        elsewhere = [other for other, known in ENGINES.items() if precision in known.precisions]
        if asked == "auto" and not others and elsewhere:
            kind = "file" if isinstance(model, Path) else "network in memory"
            raise InputError(
                f"no engine computes in {precision} with a {kind}; engine {elsewhere[0]} does with "
                f"{ENGINES[elsewhere[0]].says}"
            )
        raise InputError(
            f"engine {name!r} computes in {', '.join(row.precisions)}, got precision {precision!r}; "
            + (f"take engine {others[0]}" if others else "leave it out")
        )
    if row.cpu_only and device not in (None, "cpu", "auto"):
        raise InputError(
            f"engine {name!r} runs on the CPU here, got device {device!r}; leave it out, or take another engine: "
            + " or ".join(other for other, known in ENGINES.items() if not (known.cpu_only or known.compiles))
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


def fastest(
    model: Any,
    *,
    card: Card | CardOf | None = None,
    threads: int | None = None,
    device: str | None = None,
    precision: Precision | None = None,
    more: Sequence[Candidate] = (),
) -> Engine:
    """The engine that lets all that run such a model in that precision race. more: others that may run it."""
    from pixelwise.engines import trials
    from pixelwise.engines.racing import FastestEngine

    fallback = open_engine(model, card=card, threads=threads, device=device, precision=precision)
    if fallback.card.baked:
        return fallback  # one engine runs those
    where: dict[str, Any] = {"card": fallback.card, "threads": threads, "device": device}
    first = _first_fit(model, None)
    reference = fallback if fallback.name == first else open_engine(model, first, **where)
    candidates = [
        _candidate(name, model, fallback, reference, where)
        for name, row in ENGINES.items()
        if row.fits(model)
        and fallback.precision in row.precisions
        and not (row.compiles and device in (None, "cpu"))
    ]
    candidates += more
    return FastestEngine(
        candidates,
        reference,
        fallback,
        model if isinstance(model, Path) else _words_of(model),
        [
            sorted({trials.version_of(row.package) for row in ENGINES.values()}),
            [one.name for one in candidates],
            fallback.precision,
            device,
            threads
            or len(
                os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else range(os.cpu_count() or 1)
            ),
        ],
    )


def _candidate(
    name: str, model: Any, opened: Engine, reference: Engine, where: Mapping[str, Any]
) -> Candidate:
    """An engine of the table, as one that may race. opened: one of them that is open already."""
    from pixelwise.engines.apart import Order
    from pixelwise.engines.racing import Candidate

    row, order = ENGINES[name], None
    if isinstance(model, Path) and name != reference.name:
        order = Order(row.opens, model, None, where["threads"], where["device"], opened.precision)
    missing = ""
    if row.extra is not None and find_spec(row.package) is None:
        missing = str(MissingExtraError(f"the engine {name}", row.extra))

    def open() -> Engine:
        if name == opened.name:
            return opened
        precision = None if opened.precision == "int8" else opened.precision
        return open_engine(model, name, precision=precision, **where)

    return Candidate(name, open, order, missing)


def _words_of(network: Any) -> str:
    """What a network in memory is, whatever numbers it holds: its parts and their shapes."""
    return "\n".join(
        [repr(network), *(f"{name} {tuple(t.shape)} {t.dtype}" for name, t in network.state_dict().items())]
    )


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

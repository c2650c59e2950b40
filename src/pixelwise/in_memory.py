"""A network in memory that engines of files run: exported once, and again as soon as it is another.

Which it is shows in its parts, in the identity and version of every parameter and buffer, in sums over their bits, for
what is written to `tensor.data` or through NumPy makes no new version, and in hooks and attributes.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import threading
import weakref
from collections import OrderedDict
from collections.abc import Callable
from operator import is_
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from pixelwise.engines import ENGINES, Engine, fastest, open_engine
from pixelwise.engines.pytorch import precision_of
from pixelwise.engines.racing import Candidate
from pixelwise.errors import InputError
from pixelwise.export.onnx import export_onnx
from pixelwise.precision import Precision
from pixelwise.weights.card import Card


class ExportedEngine:
    """Runs a network as an ONNX file that is made of it; after a training step, loaded weights or a replaced part the
    next call makes another. name: an engine of files, or "auto". Pickled as the engine of the file."""

    def __init__(
        self,
        network: nn.Module,
        card: Card,
        name: str = "auto",
        *,
        threads: int | None = None,
        device: str | None = None,
        precision: Precision | None = None,
    ) -> None:
        self.network, self.card = network, card
        self._asked = name
        self._where: dict[str, Any] = {"threads": threads, "device": device, "precision": precision}
        self._changing = threading.Lock()
        self._exports = 0
        self._engine: Engine
        self._forget: Callable[[], Any] = bool  # removes the file
        self._export()
        _all.add(self)

    @property
    def name(self) -> str:
        return self._engine.name

    @property
    def precision(self) -> Precision:
        return self._engine.precision

    def __call__(self, images: Any) -> Any:
        with self._changing:
            engine = self._current()
        return engine(images)

    def _current(self) -> Engine:
        """The engine of the network as it is. In a forked process the file may be gone with that of its parent."""
        same = self._state.holds(self.network) and self._traits.hold(self.network)
        if not (same and self._path.is_file()):
            self._export()
        return self._engine

    def _export(self) -> None:
        before = State(self.network)
        self._exports += 1
        folder = tempfile.mkdtemp(prefix="pixelwise-")
        remove = weakref.finalize(self, _remove, folder, os.getpid())
        path = Path(folder) / f"{type(self.network).__name__}-{self._exports}.onnx"
        try:
            export_onnx(self.network, self.card, path)
            engine = open_engine(path, self._asked, card=self.card, **self._where)
        except BaseException:
            remove()
            raise
        self._forget()
        self._engine, self._path, self._forget = engine, path, remove
        self._state, self._traits = before, Traits(self.network)  # a network may note things as it runs

    def __reduce__(self) -> Any:
        with self._changing:
            return _itself, (self._current(),)


def _itself(engine: Any) -> Any:
    return engine


def _remove(folder: str, process: int) -> None:
    """Remove a folder, where this is the process that made it, and none that was forked off it."""
    if os.getpid() == process:
        shutil.rmtree(folder, ignore_errors=True)


_all: weakref.WeakSet[ExportedEngine] = weakref.WeakSet()


def _unlock() -> None:
    """In a forked process, where nobody would ever give back what another thread had locked."""
    for engine in list(_all):
        engine._changing = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_unlock)


class State:
    """What a network was when it was looked at."""

    def __init__(self, network: nn.Module) -> None:
        self._parts = [*network.modules()]  # held, so that no other gets the identity of one that has gone
        tensors = _tensors(self._parts)
        if any(tensor.is_inference() for tensor in tensors):
            raise InputError(
                "this network was made in torch.inference_mode, where nobody sees that its numbers change; make it "
                "outside, or leave out export"
            )
        self._numbers = Numbers(tensors)

    def holds(self, network: nn.Module) -> bool:
        """Whether it is the same still."""
        parts = [*network.modules()]
        return (
            len(parts) == len(self._parts)
            and all(map(is_, parts, self._parts))
            and self._numbers.hold(_tensors(parts))
        )


class Traits:
    """What else a network's answers may depend on: classes, hooks, attributes of its parts, which may be tensors.

    Numbers and texts are compared by value, also in tuples; lists, sets and dictionaries by what they hold; other
    things by identity.
    """

    def __init__(self, network: nn.Module) -> None:
        self._found = _found(network)
        plain = [value for value in self._found if type(value) in (Tensor, nn.Parameter)]
        self._tensors = [tensor for tensor in plain if tensor.layout is torch.strided]
        self._numbers = Numbers(self._tensors)

    def hold(self, network: nn.Module) -> bool:
        """Whether they are the same still."""
        found = _found(network)
        return (
            len(found) == len(self._found)
            and (all(map(is_, found, self._found)) or all(map(_same, found, self._found)))
            and self._numbers.hold(self._tensors)
        )


BESIDE = {
    "training", "_parameters", "_buffers", "_non_persistent_buffers_set", "_backward_hooks", "_backward_pre_hooks",
    "_is_full_backward_hook", "_state_dict_hooks", "_state_dict_pre_hooks", "_load_state_dict_pre_hooks",
    "_load_state_dict_post_hooks",
}  # fmt: skip
"""Attributes that an answer does not depend on, or that `State` looks at."""

BY_VALUE = {bool, int, float, complex, str, bytes}


def _found(network: nn.Module) -> list[Any]:
    """Everything that is compared, one thing after another, in a millisecond for a network of 250 parts."""
    found: list[Any] = []
    for part in network.modules():
        found += (type(part), getattr(type(part), "forward", None))
        for name, value in vars(part).items():
            if name in BESIDE:
                continue
            found.append(name)
            kind = type(value)
            if kind is dict or kind is OrderedDict:
                found += value.keys()
                found += value.values()
                found.append(None)
            elif kind is list or kind is set:
                found += value
                found.append(None)
            else:
                found.append(value)
    return found


def _same(a: Any, b: Any) -> bool:
    if a is b:
        return True
    if type(a) is not type(b):
        return False
    if type(a) is tuple:
        return len(a) == len(b) and all(map(_same, a, b))
    return type(a) in BY_VALUE and bool(a == b)


class Numbers:
    """What stood in tensors when they were looked at, for somebody may write to their memory without a new version."""

    def __init__(self, tensors: list[Tensor]) -> None:
        self._tensors, self._marks = tensors, [*map(_mark, tensors)]
        self._words: list[NDArray[np.int64]] = []
        self._rests: list[NDArray[np.uint8]] = []
        self._others: list[Tensor] = []
        for tensor in tensors:
            if tensor.device.type == "cpu" and (memory := _memory(tensor)) is not None:
                whole = len(memory) // 8 * 8
                words = memory[:whole].view(np.int64)
                self._words += [words[at : at + len(FACTORS)] for at in range(0, len(words), len(FACTORS))]
                self._rests.append(memory[whole:])
            elif tensor.element_size() in WHOLE and tensor.device.type != "meta":
                self._others.append(tensor.detach().view(WHOLE[tensor.element_size()]))
        self._before = self._sums()

    def hold(self, tensors: list[Tensor]) -> bool:
        """Whether these are the same tensors, and hold the same."""
        return (
            len(tensors) == len(self._tensors)
            and all(map(is_, tensors, self._tensors))
            and [*map(_mark, tensors)] == self._marks
            and self._sums() == self._before  # last, for these places are theirs still
        )

    def _sums(self) -> list[int | bytes]:
        """Sums over all bits, modulo 2^64. On a CPU each eight bytes have a factor of their own, so that numbers that
        change places or signs are seen."""
        found: list[int | bytes] = [int(words.dot(FACTORS[: len(words)])) for words in self._words]
        found += [rest.tobytes() for rest in self._rests]
        for device in dict.fromkeys(tensor.device for tensor in self._others):  # each is waited for once
            some = [tensor.sum(dtype=torch.int64) for tensor in self._others if tensor.device == device]
            found += torch.stack(some).tolist()
        return found


WHOLE = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
"""Whole numbers of so many bytes."""

FACTORS = np.random.default_rng(0).integers(-(2**63), 2**63 - 1, 2**14) | 1
"""Odd, so that no change of a single number is lost; few enough to stay in the processor's cache."""


def _memory(tensor: Tensor) -> NDArray[np.uint8] | None:
    """The bytes of a tensor, as they lie there; None where they have gaps or are shared among its numbers."""
    order = sorted(range(tensor.ndim), key=tensor.stride, reverse=True)
    dense = tensor.detach().permute(order)
    if not dense.is_contiguous() or tensor.element_size() not in WHOLE:
        return None
    memory: NDArray[np.uint8] = dense.view(WHOLE[tensor.element_size()]).numpy().reshape(-1).view(np.uint8)
    return memory


def _mark(tensor: Tensor) -> tuple[Any, ...]:
    version = None if tensor.is_inference() else tensor._version
    return version, tensor.data_ptr(), tensor.shape, tensor.stride()


def _tensors(parts: list[nn.Module]) -> list[Tensor]:
    """Parameters and buffers, in a tenth of the time that `parameters()` takes, for it is asked at every picture."""
    found: list[Any] = [part._parameters for part in parts]
    found += [part._buffers for part in parts]
    return [tensor for some in found for tensor in some.values() if tensor is not None]


def fastest_in_memory(
    network: nn.Module,
    card: Card,
    *,
    threads: int | None = None,
    device: str | None = None,
    precision: Precision | None = None,
) -> Engine:
    """The engine that lets those of networks and, with the network exported, those of ONNX files race."""
    precision = precision or precision_of(network)  # one that computes in another is no rival
    where: dict[str, Any] = {"threads": threads, "precision": precision}

    def exported(name: str) -> Candidate:
        return Candidate(name, lambda: ExportedEngine(network, card, name, **where))

    more = [
        exported(name)
        for name, row in ENGINES.items()
        if ".onnx" in row.files and precision in row.precisions and device in (None, "cpu")
    ]
    return fastest(network, card=card, device=device, more=more, **where)

"""A network in memory that engines of files run: exported once, and again as soon as it is another.

Which it is shows in its parts, in the identity and version of every parameter and buffer, and in one number of each,
for `tensor.data` is changed without a new version.
"""

from __future__ import annotations

import shutil
import tempfile
import threading
import weakref
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from pixelwise.engines import ENGINES, Engine, fastest, open_engine
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
        self._folder = tempfile.mkdtemp(prefix="pixelwise-")
        weakref.finalize(self, shutil.rmtree, self._folder, ignore_errors=True)
        self._exports = 0
        self._export()

    @property
    def name(self) -> str:
        return self._engine.name

    @property
    def precision(self) -> Precision:
        return self._engine.precision

    def __call__(self, images: Any) -> Any:
        with self._changing:
            if not self._state.holds(self.network):
                self._export()
            engine = self._engine
        return engine(images)

    def _export(self) -> None:
        before = State(self.network)
        self._exports += 1
        path = Path(self._folder) / f"{type(self.network).__name__}-{self._exports}.onnx"
        export_onnx(self.network, self.card, path)
        self._engine: Engine = open_engine(path, self._asked, card=self.card, **self._where)
        self._state = before

    def __reduce__(self) -> Any:
        with self._changing:
            if not self._state.holds(self.network):
                self._export()
            return _itself, (self._engine,)


def _itself(engine: Any) -> Any:
    return engine


class State:
    """What a network was when it was looked at."""

    def __init__(self, network: nn.Module) -> None:
        self._parts = [*network.modules()]  # held, so that no other gets the identity of one that has gone
        self._tensors = _tensors(self._parts)
        if any(tensor.is_inference() for tensor in self._tensors):
            raise InputError(
                "this network was made in torch.inference_mode, where nobody sees that its numbers change; make it "
                "outside, or leave out export"
            )
        self._versions = [tensor._version for tensor in self._tensors]
        self._places = [tensor.data_ptr() for tensor in self._tensors]
        # The largest number is no zero, which a factor would leave as it is
        floats = [
            tensor.detach() for tensor in self._tensors if tensor.is_floating_point() and tensor.numel()
        ]
        views = [
            tensor[torch.unravel_index(tensor.abs().argmax(), tensor.shape)] if tensor.ndim else tensor
            for tensor in floats
        ]
        kinds = {(view.dtype, view.device) for view in views}
        self._views = [[view for view in views if (view.dtype, view.device) == kind] for kind in kinds]
        self._numbers = self._sample()

    def holds(self, network: nn.Module) -> bool:
        """Whether it is the same still."""
        parts = [*network.modules()]
        tensors = _tensors(parts)
        return (
            len(parts) == len(self._parts)
            and all(a is b for a, b in zip(parts, self._parts, strict=True))
            and len(tensors) == len(self._tensors)
            and all(a is b for a, b in zip(tensors, self._tensors, strict=True))
            and [tensor._version for tensor in tensors] == self._versions
            and [tensor.data_ptr() for tensor in tensors] == self._places
            and all(map(torch.equal, self._sample(), self._numbers))
        )

    def _sample(self) -> list[Tensor]:
        return [torch.stack(views) for views in self._views]


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
    where: dict[str, Any] = {"threads": threads, "precision": precision}

    def exported(name: str) -> Candidate:
        return Candidate(name, lambda: ExportedEngine(network, card, name, **where))

    more = [
        exported(name)
        for name, row in ENGINES.items()
        if ".onnx" in row.files and (precision or "float32") in row.precisions and device in (None, "cpu")
    ]
    return fastest(network, card=card, device=device, more=more, **where)

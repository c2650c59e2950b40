"""PyTorch: any network as it is, on the CPU or a GPU, and the reference for the other engines."""

from __future__ import annotations

import os
import warnings
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from array_api_compat import is_torch_array
from torch import nn

from pixelwise.errors import InputError, first_line
from pixelwise.layers import Network, evaluating
from pixelwise.precision import Precision
from pixelwise.weights.card import Card, CardOf

DTYPES = {"bfloat16": torch.bfloat16, "float16": torch.float16}


class PyTorchEngine:
    name = "pytorch"

    def __init__(
        self,
        network: nn.Module,
        *,
        card: Card | CardOf | None,
        threads: int | None = None,
        device: str | None = None,
        precision: Precision | None = None,
    ) -> None:
        """Wrap a network (DESIGN: forward to a dictionary, `coarse`). device: it is moved there, "auto" to a GPU if
        there is one; None: it is used on the device where it is. precision: bfloat16 and float16 leave the parameters
        as they are, and let PyTorch choose what computes in them (autocast); None is what the parameters are.

        The network is switched to evaluation for each call and each part back, so it may go on training in between.
        """
        if not isinstance(network, Network):
            raise InputError(
                f"expected a pixelwise network (coarse, stride, align_corners, num_classes), "
                f"got {type(network).__name__}"
            )
        if callable(card):
            card = card(self, vars(network).get("card"))
        if card is None:
            raise InputError("a torch network needs a card that says what its outputs mean; pass card=")
        if any(parameter.is_meta for parameter in network.parameters()):
            raise InputError('this network is on "meta" and holds no values; build or load it on a device')
        if device is not None and device.startswith("meta"):
            raise InputError(
                'a network on "meta" holds no values; name a device that computes, such as "cuda"'
            )
        if threads is not None:
            torch.set_num_threads(threads)
        self.card, self._process = card, os.getpid()
        self.network: Network = network
        self._module: nn.Module = network
        own = precision_of(network)
        if precision is not None and own != "float32" and precision != own:
            raise InputError(
                f"this network's parameters are {own}, got precision {precision!r}; call its .float() first, or leave "
                "the precision out"
            )
        self.precision: Precision = precision or own
        self._cast = None if own != "float32" or self.precision == "float32" else DTYPES[self.precision]
        if device == "auto":
            device = (
                "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
            )
        if device is not None:
            try:
                self._module.to(device)
            except (RuntimeError, AssertionError) as error:  # no such kind of device, or none of it here
                raise InputError(
                    f"device {device!r} cannot be used here: {str(error).splitlines()[0]}"
                ) from error

    def __call__(self, images: Any) -> Any:
        """The logits stay on the network's device; a CPU network given NumPy returns NumPy."""
        if (
            os.getpid() != self._process
        ):  # forked: OpenMP's threads did not come along, and would be waited for
            torch.set_num_threads(1)
            self._process = os.getpid()
        tensor = images if is_torch_array(images) else torch.from_numpy(images)
        parameter = next(self._module.parameters(), tensor)
        kind = parameter.device.type
        cast = nullcontext() if self._cast is None else torch.autocast(kind, self._cast)
        with evaluating(self._module), torch.inference_mode(), cast, _exact(kind):
            logits = self._coarse(tensor.to(parameter.device, parameter.dtype)).float()
        return logits if is_torch_array(images) or logits.device.type != "cpu" else logits.numpy()

    def _coarse(self, tensor: torch.Tensor) -> torch.Tensor:
        return self.network.coarse(tensor)


class CompiledEngine(PyTorchEngine):
    """The same, compiled by PyTorch on the first call, and again for other sizes; needs a C++ compiler on the CPU."""

    name = "pytorch-compiled"
    _compiled: Any = None

    def _coarse(self, tensor: torch.Tensor) -> torch.Tensor:
        if self._compiled is None:
            self._compiled = torch.compile(self.network.coarse)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # it warns about itself
                logits: torch.Tensor = self._compiled(tensor)
        except (torch._dynamo.exc.TorchDynamoException, torch._inductor.exc.InductorError) as error:
            raise InputError(
                f"PyTorch cannot compile this {type(self.network).__name__} here ({first_line(error)}); take engine "
                "pytorch"
            ) from error
        return logits

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name != "_compiled"}


def precision_of(network: nn.Module) -> Precision:
    """What a network's parameters are."""
    first = next(network.parameters(), None)
    dtype = torch.float32 if first is None else first.dtype
    return "bfloat16" if dtype == torch.bfloat16 else "float16" if dtype == torch.float16 else "float32"


def _exact(kind: str) -> AbstractContextManager[Any]:
    """On a GPU float32 is float32: convolutions would otherwise round to ten bits (TF32)."""
    return torch.backends.cudnn.flags(allow_tf32=False) if kind == "cuda" else nullcontext()

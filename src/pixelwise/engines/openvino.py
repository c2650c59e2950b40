"""OpenVINO: ONNX files and its own (.xml with .bin) on the CPU, also in bfloat16 where the processor has it."""

from __future__ import annotations

import hashlib
import os
import re
import threading
from contextlib import suppress
from functools import cache
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pixelwise.engines.apart import Apart, Order
from pixelwise.engines.file_engine import Content, FileEngine, Loaded
from pixelwise.errors import InputError, PixelwiseError, first_line
from pixelwise.silent import openvino
from pixelwise.weights.card import CARD_KEY, IR_CARD_KEY, IR_WEIGHTS_KEY
from pixelwise.weights.store import digest

MARK = "/winograd/"
"""In the names of convolutions that `export.winograd` has rewritten."""

HINTS = {"float32": "f32", "bfloat16": "bf16", "int8": "f32"}
"""What OpenVINO is told of each precision. Left to itself it takes bfloat16 where the processor has it. int8 is in the
file, and what was left in float there stays so."""

HELD = {"f32": "float32", "bf16": "bfloat16"}
"""How it calls them itself."""


class OpenVinoEngine(FileEngine):
    """A file with one input (n, c, h, w) float32; its first output is the coarse logits. Any size stays any size."""

    name = "openvino"

    def beside(self, path: Path) -> Path | None:
        weights = path.with_suffix(".bin")
        return weights if path.suffix.lower() == ".xml" and weights.is_file() else None

    def load(self, model: Path | Content) -> Loaded:
        if any(process != os.getpid() for process in _cores):
            return self._apart(model)
        try:
            network = _read(model, is_onnx=self._path.suffix.lower() == ".onnx")
        except Exception as error:  # all of OpenVINO's are RuntimeErrors, of many lines
            said = f"{self._path} is not a model that OpenVINO can load ({_reason(error)})"
            if isinstance(error, RuntimeError) and self._path.suffix.lower() == ".xml":
                said += (
                    f"; export it again, or copy it with its weights, {self._path.with_suffix('.bin').name}"
                )
            raise InputError(said) from error
        self._refuse_other_weights(network, model)
        if not network.inputs or not network.outputs:
            raise InputError(f"the model in {self._path} has no input or no output; it is no network")
        hint = HINTS[self._asked or "float32"]
        compiled = self._compiled(network, hint)
        local = threading.local()

        def run(images: NDArray[np.float32]) -> NDArray[np.float32]:
            if not hasattr(local, "request"):  # one is for one thread at a time
                local.request = compiled.create_infer_request()
            found = local.request.infer([np.ascontiguousarray(images, np.float32)], share_inputs=True)
            logits: NDArray[np.float32] = np.asarray(found[0], np.float32)
            return logits

        return Loaded(
            run, _sides(network.inputs[0]), _sides(network.outputs[0]), _card(network), held=(compiled, local)
        )

    def _refuse_other_weights(self, network: Any, model: Path | Content) -> None:
        """Raise InputError where the weights beside a file are not those that it was written with, as far as it says
        which those are."""
        if not network.has_rt_info([IR_WEIGHTS_KEY]):
            return
        weights = self._path.with_suffix(".bin")
        if isinstance(model, Path):
            found = digest(weights) if weights.is_file() else None
        else:
            found = hashlib.sha256(model[1] or b"").hexdigest()
        if found != str(network.get_rt_info([IR_WEIGHTS_KEY]).value):
            raise InputError(
                f"{weights} does not hold the weights that {self._path.name} was written with, but others; export the "
                "model again, or copy both files from one place"
            )

    def _apart(self, model: Path | Content) -> Loaded:
        """In a process that was forked off one in which OpenVINO was at work: its threads are not here, and what they
        had locked stays so for ever."""
        path, content = (model, None) if isinstance(model, Path) else (self._path, model)
        opens = f"{type(self).__module__}:{type(self).__qualname__}"
        other = Apart(Order(opens, path, content, self._threads, self._device, self._asked))
        return Loaded(other, other.takes, other.gives, other.card, held=other, fails=PixelwiseError)

    def _compiled(self, network: Any, hint: str) -> Any:
        """The model, ready to run; InputError where it does not run as it was asked to."""
        options: dict[str, Any] = {
            "INFERENCE_PRECISION_HINT": hint,
            "PERFORMANCE_HINT": "LATENCY",
            "NUM_STREAMS": 1,
            "ENABLE_CPU_PINNING": False,  # two processes would be pinned to the same cores
            **({} if self._threads is None else {"INFERENCE_NUM_THREADS": self._threads}),
        }
        try:
            compiled = _core().compile_model(network, "CPU", options)
            got = compiled.get_property("INFERENCE_PRECISION_HINT").to_string()
        except Exception as error:
            raise InputError(f"OpenVINO cannot run {self._path} ({_reason(error)})") from error
        if got != hint:
            raise InputError(
                f"OpenVINO runs {self._path} in {HELD.get(got, got)} on this processor, got precision "
                f"{HELD[hint]!r}; leave out the precision"
            )
        return compiled


def _read(model: Path | Content, *, is_onnx: bool) -> Any:
    """The model of a file or of its bytes, read as what its name says; left to itself OpenVINO tries all it knows."""
    if is_onnx:
        reader, plain = _manager().load_by_framework("onnx"), _plain(model)
        return reader.convert(reader.load(str(model) if plain is None else BytesIO(plain)))
    with open(model, "rb") if isinstance(model, Path) else BytesIO(model[0]) as file:
        if not re.match(rb"\s*(<\?xml[^>]*>)?\s*<net\b", file.read(4096)):
            raise ValueError("it does not begin with <net>")
    return (
        _core().read_model(str(model))
        if isinstance(model, Path)
        else _core().read_model(model[0], model[1] or b"")
    )


def _plain(model: Path | Content) -> bytes | None:
    """The bytes of an ONNX model, None for the file as it is. Convolutions that were rewritten for ONNX Runtime are put
    back, for OpenVINO has better ones, where the package that can do so is installed; they give the same without."""
    content = model.read_bytes() if isinstance(model, Path) else model[0]
    if MARK.encode() in content:
        with suppress(ModuleNotFoundError):
            from pixelwise.export.winograd import restored

            return restored(model if isinstance(model, Path) else content)
    return None if isinstance(model, Path) else content


@cache
def _manager() -> Any:
    return openvino.frontend.FrontEndManager()


_cores: dict[int, Any] = {}
"""By process: that of a forked one's parent stays, and shows that it is there."""


def _core() -> Any:
    """The one core of this process."""
    if os.getpid() not in _cores:
        _cores[os.getpid()] = openvino.Core()
    return _cores[os.getpid()]


def _card(network: Any) -> str | None:
    """The text of the card: of a file of OpenVINO's own, or of the ONNX file that it was made of."""
    for place in ([IR_CARD_KEY], ["framework", CARD_KEY]):
        if network.has_rt_info(place):
            return str(network.get_rt_info(place).value)
    return None


def _sides(port: Any) -> tuple[int | None, ...]:
    shape = port.partial_shape
    if shape.rank.is_dynamic:
        return ()
    return tuple(None if side.is_dynamic else side.get_length() for side in shape)


def _reason(error: BaseException) -> str:
    """What OpenVINO says of an error behind the places in its own sources that come first."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    told = [line for line in lines if not line.startswith(("Exception from ", "Check '", "FrontEnd API"))]
    return (told or lines or [first_line(error)])[0]

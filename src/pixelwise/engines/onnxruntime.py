"""ONNX Runtime, on the CPU or with CUDA: the default engine, and the only one that the base installation needs."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from pixelwise.engines.file_engine import Content, FileEngine, Loaded
from pixelwise.errors import InputError, first_line
from pixelwise.weights.card import CARD_KEY


class OnnxRuntimeEngine(FileEngine):
    """An ONNX file with one input (n, c, h, w) float32; its first output is the coarse logits."""

    name = "onnxruntime"

    def load(self, model: Path | Content) -> Loaded:
        providers = _providers(self._device)
        given = str(model) if isinstance(model, Path) else model[0]
        session = _session(given, self._threads, providers, str(self._path))
        inputs, outputs = session.get_inputs(), session.get_outputs()
        if not inputs or not outputs:
            raise InputError(f"the model in {self._path} has no input or no output; it is no network")
        try:
            name, text = inputs[0].name, session.get_modelmeta().custom_metadata_map.get(CARD_KEY)
            takes, gives = _sides(inputs[0].shape), _sides(outputs[0].shape)
        except Exception as error:  # names that are no UTF-8, and inputs that are no arrays
            raise InputError(
                f"{self._path} is no network that pixelwise can run ({first_line(error)})"
            ) from error

        def run(images: NDArray[np.float32]) -> NDArray[np.float32]:
            logits: NDArray[np.float32] = session.run(None, {name: images})[0]
            return logits

        return Loaded(run, takes, gives, text, held=session)


def _sides(shape: Sequence[Any]) -> tuple[int | None, ...]:
    return tuple(side if isinstance(side, int) else None for side in shape or ())


CPU, CUDA = "CPUExecutionProvider", "CUDAExecutionProvider"

Providers: TypeAlias = "list[str | tuple[str, dict[str, Any]]]"


def _providers(device: str | None) -> Providers:
    """What ONNX Runtime is to run on; InputError where it cannot."""
    here = onnxruntime.get_available_providers()
    if device in (None, "cpu") or (device == "auto" and CUDA not in here):
        return [CPU]
    number = re.fullmatch(r"auto|cuda(?::([0-9]{1,3}))?", str(device))
    if number is None:
        raise InputError(
            f"engine 'onnxruntime' runs on cpu, cuda, cuda:1 and so on, got device {device!r}; PyTorch knows others, "
            "and runs weights and runs, no ONNX files (engine pytorch)"
        )
    if CUDA not in here:
        raise InputError(
            f"ONNX Runtime has no CUDA here, got device {device!r}; install onnxruntime-gpu in place of onnxruntime, "
            "or let PyTorch run the weights or the run that the file was made of (engine pytorch)"
        )
    # Otherwise convolutions round to ten bits (TF32)
    return [(CUDA, {"device_id": int(number[1] or 0), "use_tf32": "0"}), CPU]


def _session(
    model: str | bytes, threads: int | None, providers: Providers, what: str
) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.intra_op_num_threads = threads or 0
    # Idle threads between runs stay idle
    options.add_session_config_entry("session.force_spinning_stop", "1")
    options.log_severity_level = 4  # what goes wrong is raised, and said once
    try:
        # Falling back prints lines of its own, and is never wanted
        session = onnxruntime.InferenceSession(model, options, providers=providers, enable_fallback=0)
    except Exception as error:  # ONNX Runtime's exceptions share no base class of their own
        raise InputError(f"{what} is not a model that ONNX Runtime can load ({first_line(error)})") from error
    if providers != [CPU] and CUDA not in session.get_providers():
        raise InputError(
            "ONNX Runtime cannot use CUDA here, as its libraries do not load; install the versions of CUDA and cuDNN "
            "that it is made for, or leave out the device"
        )
    return session

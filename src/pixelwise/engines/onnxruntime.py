"""ONNX Runtime, on the CPU or with CUDA: the default engine, and the only one that the base installation needs."""

from __future__ import annotations

import os
import platform
import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache
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
    _spins = True

    def load(self, model: Path | Content) -> Loaded:
        return self._load(model, self._threads)

    def _load(self, model: Path | Content, threads: int | None) -> Loaded:
        providers = _providers(self._device)
        given = str(model) if isinstance(model, Path) else model[0]
        session = _session(given, threads, providers, str(self._path), spins=self._spins)
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

    def share(self, at_once: int | None = None, is_alone: Callable[[], bool] = lambda: True) -> int:
        """Make ready for calls from several threads at a time; from how many. On a GPU that is one. Threads of its own
        that wait for a part of the work give up their core, which for a single picture they keep.

        at_once: how many calls there will be at a time, at most. Then each has its part of the threads, as all of them
        on every picture take an eighth more of the processor, and one that comes when `is_alone` says so has all. For
        that the model is held twice.
        """
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        threads = min(self._threads or cores, cores)
        callers = min(at_once or threads, threads)
        if _providers(self._device) != [CPU] or callers < 2 or self._marks() != self._written:
            return 1
        self._spins = False
        self._loaded = self.load(self._path)
        if at_once is not None:
            all_of_them, part = self._loaded.run, self._load(self._path, threads // callers).run

            def run(images: NDArray[np.float32]) -> NDArray[np.float32]:
                return (all_of_them if is_alone() else part)(images)

            self._loaded = replace(self._loaded, run=run)
        return callers

    def _check_baked(self) -> None:
        session, card = self._loaded.held, self.card
        takes, gives = session.get_inputs(), session.get_outputs()
        if (
            len(takes) != 1
            or (takes[0].name, takes[0].type, len(takes[0].shape)) != ("picture", "tensor(uint8)", 4)
            or takes[0].shape[3] != len(card.preprocess.mean)
            or [one.name for one in gives] != ["labels", *["regions"] * (card.outputs == "regions")]
        ):
            raise InputError(
                f"the card in {self._path} says that it is baked, and the model does not take pictures of "
                f"{len(card.preprocess.mean)} channels and give label maps; export it again"
            )

    def label_map(self, picture: NDArray[np.uint8]) -> tuple[NDArray[Any], NDArray[np.bool_] | None]:
        """What a baked file says of a picture, uint8 (h, w, c): ids (h, w), and of regions each mask (k, h, w)."""
        if self._forked:
            self.__setstate__(self.__getstate__())
        size_hw = picture.shape[:2]
        try:
            labels, *regions = self._loaded.held.run(None, {"picture": np.ascontiguousarray(picture)[None]})
        except Exception as error:
            raise InputError(
                f"{self._path} fails at a picture of {size_hw[0]} x {size_hw[1]} pixels ({first_line(error)})"
            ) from error
        classes, dtype = self.card.labels, self.card.labels.dtype
        shapes = [(1, *size_hw), *[(1, self.card.channels, *size_hw) for _ in regions]]
        if [one.shape for one in (labels, *regions)] != shapes or labels.dtype != dtype:
            raise InputError(
                f"{self._path} gives {labels.dtype} of {labels.shape} for a picture of {size_hw}, expected label maps "
                f"of {dtype}; export it again"
            )
        if not np.isin(np.unique(labels), classes.ids).all():
            raise InputError(f"{self._path} gives ids that are none of its classes'; export it again")
        return labels[0], regions[0][0] if regions else None


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


@cache
def _saturates() -> bool:
    """Whether this processor, left to itself, adds products of uint8 and int8 in 16 bits, where they may run over:
    those of Intel's kind do without VNNI. ONNX Runtime then takes a slower way that is exact."""
    if platform.machine().lower() not in ("x86_64", "amd64"):
        return False
    try:
        with open("/proc/cpuinfo", encoding="ascii", errors="replace") as file:
            said = file.read(8192)
    except OSError:  # another system
        return True
    return "avx512_vnni" not in said and "avx_vnni" not in said


def _session(
    model: str | bytes, threads: int | None, providers: Providers, what: str, *, spins: bool = True
) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.intra_op_num_threads = threads or 0
    # Idle threads between runs stay idle
    options.add_session_config_entry("session.force_spinning_stop", "1")
    options.add_session_config_entry("session.intra_op.allow_spinning", "1" if spins else "0")
    if _saturates():
        options.add_session_config_entry("session.x64quantprecision", "1")
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

"""ONNX Runtime, on the CPU or with CUDA: the default engine, and the only one that the base installation needs."""

from __future__ import annotations

import ctypes
import os
import re
import weakref
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import onnxruntime
from array_api_compat import is_torch_array
from numpy.typing import NDArray

from pixelwise.errors import InputError, PixelwiseError, first_line
from pixelwise.inference.measure import check_ratio
from pixelwise.weights.card import CARD_KEY, Card, CardOf

LARGEST_PICTURE = 2**28
"""Pixels of the one size that a file may ask for."""


SMALLEST = 32
"""Pixels a side below which a network may have no features left to work with."""


class OnnxRuntimeEngine:
    name = "onnxruntime"

    def __init__(
        self,
        path: Path,
        *,
        card: Card | CardOf | None = None,
        threads: int | None = None,
        device: str | None = None,
    ) -> None:
        """Load an ONNX file with one input (n, c, h, w) float32; its first output is the coarse logits.

        Raises InputError when the file is missing, is no model, has no input or output, takes pictures of an absurd
        size, or carries no card and none is given. What its nodes make of a picture is not looked at beforehand.
        """
        self._providers = _providers(device)
        if not path.is_file():
            raise InputError(f"no such model file: {path}")
        self._threads, self._path, self._written = threads, path, _written(path)
        self._bytes: bytes | None = None
        self._forked = False
        _engines.add(self)
        self._session = _session(str(path), threads, self._providers, str(path))
        try:
            self._look(path)
            text = self._session.get_modelmeta().custom_metadata_map.get(CARD_KEY)
        except PixelwiseError:
            raise
        except Exception as error:  # names that are no UTF-8, and inputs that are no arrays
            raise InputError(f"{path} is no network that pixelwise can run ({first_line(error)})") from error
        if callable(card):
            card = card(self, None if text is None else Card.from_json(text))
        elif card is None and text is None:
            raise InputError(
                f"{path} carries no pixelwise card, so its classes and preprocessing are unknown; "
                "export it with pixelwise, or pass card="
            )
        self.card = card or Card.from_json(text)
        self._refuse_other_channels(path)

    def _look(self, path: Path) -> None:
        """Note what the file says of itself. channels: logits of a pixel, None where it does not say. size_hw: the only
        size of pictures that it takes, None for any."""
        if not self._session.get_inputs() or not self._session.get_outputs():
            raise InputError(f"the model in {path} has no input or no output; it is no network")
        self._input = self._session.get_inputs()[0].name
        takes, gives = self._session.get_inputs()[0].shape, self._session.get_outputs()[0].shape
        self.channels: int | None = gives[1] if len(gives) > 1 and isinstance(gives[1], int) else None
        if takes and len(takes) not in (4, 5):
            raise InputError(
                f"{path} takes arrays of {len(takes)} dimensions; expected pictures (n, c, h, w)"
            )
        one = len(takes) == 4 and all(isinstance(side, int) for side in takes[2:])
        self.size_hw: tuple[int, int] | None = (takes[2], takes[3]) if one else None
        if one and not (min(takes[2:]) > 0 and takes[2] * takes[3] <= LARGEST_PICTURE):
            raise InputError(
                f"{path} takes pictures of {takes[2]} x {takes[3]} pixels alone; expected at most {LARGEST_PICTURE:,}"
            )
        self.stride: int | None = None

    def __call__(self, images: Any) -> NDArray[np.float32]:
        if self._forked:
            self.__setstate__(self.__getstate__())
        if is_torch_array(images):
            images = images.detach().cpu().numpy()
        try:
            logits: NDArray[np.float32] = self._session.run(None, {self._input: images})[0]
        except Exception as error:  # ONNX Runtime's exceptions share no base class of their own
            takes = self._session.get_inputs()[0].shape[2:]
            if all(isinstance(side, int) for side in takes) and tuple(takes) != images.shape[2:]:
                raise InputError(
                    f"{self._path} takes pictures of {'x'.join(map(str, takes))} pixels and no others, got "
                    f"{'x'.join(map(str, images.shape[2:]))}; use tile={tuple(takes)}, or export it for any size"
                ) from error
            size = f"{images.shape[2]} x {images.shape[3]} pixels"
            if min(images.shape[2:]) < SMALLEST and self._takes_larger(images.shape[1]):
                raise InputError(
                    f"{self.card.name} cannot take a picture of {size}, which is too small for this network; enlarge "
                    f"it to at least {SMALLEST} x {SMALLEST}"
                ) from error
            raise InputError(f"{self._path} fails at a picture of {size} ({first_line(error)})") from error
        if self.stride is not None:
            check_ratio(images, logits, self.stride, str(self._path), align_corners=self.card.align_corners)
        return logits

    def share(self) -> int:
        """Make ready for calls from several threads at a time; from how many. On a GPU that is one. Threads of its own
        that wait for a part of the work give up their core, which for a single picture they keep."""
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        callers = min(self._threads or cores, cores)
        if self._providers != [CPU] or callers < 2 or _written(self._path) != self._written:
            return 1
        self._session = _session(str(self._path), self._threads, [CPU], str(self._path), spins=False)
        return callers

    def _takes_larger(self, channels: int) -> bool:
        """Whether the model works at all."""
        try:
            self._session.run(None, {self._input: np.zeros((1, channels, SMALLEST, SMALLEST), np.float32)})
        except Exception:  # whatever it was, the size is not to blame
            return False
        return True

    def _refuse_other_channels(self, path: Path) -> None:
        """Raise InputError where the card speaks of another model."""
        takes, gives = self._session.get_inputs()[0].shape, self._session.get_outputs()[0].shape
        mean, classes = len(self.card.preprocess.mean), self.card.labels.num_classes
        for what, here, there in (
            ("input channels (mean and std)", mean, takes),
            (f"outputs ({classes} classes, {self.card.outputs})", self.card.channels, gives),
        ):
            if len(there) > 1 and isinstance(there[1], int) and there[1] != here:
                raise InputError(
                    f"the card is for {here} {what}, the model in {path} has {there[1]}; give a card that agrees "
                    "(pixelwise.Card.of)"
                )

    def __getstate__(self) -> dict[str, Any]:
        """What is pickled: the file itself, which need not be where this is unpickled."""
        model = self._bytes
        if model is None:
            if self._written is None or _written(self._path) != self._written:
                raise InputError(
                    f"{self._path} has changed since it was opened; open it again before it is pickled"
                )
            model = self._path.read_bytes()
            if b"\n\x08location\x12" in model:  # a tensor's note of the file that holds it
                raise InputError(
                    f"{self._path} keeps its weights in another file, and cannot be pickled; export it as one file"
                )
        return {"model": model, "path": self._path, "threads": self._threads, "card": self.card,
                "stride": self.stride, "providers": self._providers}  # fmt: skip

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.card, self._threads, self._path = state["card"], state["threads"], state["path"]
        self._providers = state["providers"]
        self._bytes, self._written, self._forked = state["model"], None, False
        _engines.add(self)
        self._session = _session(state["model"], self._threads, self._providers, str(self._path))
        self._look(self._path)
        self.stride = state["stride"]

    def __deepcopy__(self, _: Any) -> OnnxRuntimeEngine:
        other = object.__new__(OnnxRuntimeEngine)
        vars(other).update(vars(self))  # a session never changes
        return other


_engines: weakref.WeakSet[OnnxRuntimeEngine] = weakref.WeakSet()


def _leave_sessions() -> None:
    """In a forked process, which has none of their threads, sessions are opened anew; and the old ones are never taken
    down, for that would wait for the threads."""
    for engine in list(_engines):
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(engine._session))
        engine._forked = True


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_leave_sessions)


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
    return [(CUDA, {"device_id": int(number[1] or 0)}), CPU]


def _session(
    model: str | bytes, threads: int | None, providers: Providers, what: str, *, spins: bool = True
) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.intra_op_num_threads = threads or 0
    # Idle threads between runs stay idle
    options.add_session_config_entry("session.force_spinning_stop", "1")
    options.add_session_config_entry("session.intra_op.allow_spinning", "1" if spins else "0")
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


def _written(path: Path) -> tuple[int, int] | None:
    """Size and time of change of a file, by which another one in its place is noticed."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_size, found.st_mtime_ns

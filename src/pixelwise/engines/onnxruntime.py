"""ONNX Runtime on the CPU: the default engine, and the only one that the base installation needs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from array_api_compat import is_torch_array
from numpy.typing import NDArray

from pixelwise.errors import InputError
from pixelwise.weights.card import CARD_KEY, Card


class OnnxRuntimeEngine:
    name = "onnxruntime"

    def __init__(self, path: Path, *, card: Card | None = None, threads: int | None = None) -> None:
        """Load an ONNX file with one input (n, 3, h, w) float32; its first output is the coarse logits.

        Raises InputError when the file is missing, is no model, or carries no card and none is given.
        """
        if not path.is_file():
            raise InputError(f"no such model file: {path}")
        options = onnxruntime.SessionOptions()
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
        options.intra_op_num_threads = threads or 0
        # Idle threads between runs stay idle
        options.add_session_config_entry("session.force_spinning_stop", "1")
        options.log_severity_level = 3
        try:
            self._session = onnxruntime.InferenceSession(
                str(path), options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # ONNX Runtime's exceptions share no base class of their own
            raise InputError(
                f"{path} is not a model that ONNX Runtime can load ({_first_line(error)})"
            ) from error
        text = self._session.get_modelmeta().custom_metadata_map.get(CARD_KEY)
        if card is None and text is None:
            raise InputError(
                f"{path} carries no pixelwise card, so its classes and preprocessing are unknown; "
                "export it with pixelwise, or pass card="
            )
        self.card = card or Card.from_json(text)
        self._input = self._session.get_inputs()[0].name

    def __call__(self, images: Any) -> NDArray[np.float32]:
        if is_torch_array(images):
            images = images.detach().cpu().numpy()
        logits: NDArray[np.float32] = self._session.run(None, {self._input: images})[0]
        return logits


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]

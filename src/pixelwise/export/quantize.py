"""Quantize: a network's layers in int8, by ONNX Runtime's own tools, and the search for those that must stay in float.

Weights are int8 with a scale for each channel of the output, what flows between layers is uint8: on x86 processors with
VNNI the fastest pair by far (twice int8 with int8). Which ranges it covers is measured on pictures.
"""

from __future__ import annotations

import logging
import statistics
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import onnx
from numpy.typing import NDArray
from onnxruntime.quantization import CalibrationMethod, QuantType
from onnxruntime.quantization.calibrate import CalibrationDataReader, create_calibrator
from onnxruntime.quantization.qdq_quantizer import QDQQuantizer
from onnxruntime.quantization.quant_utils import load_model_with_shape_infer
from onnxruntime.quantization.shape_inference import quant_pre_process

from pixelwise.errors import InputError, first_line
from pixelwise.export.winograd import restored

WITH_WEIGHTS = ("Conv", "ConvTranspose", "Gemm", "MatMul")
"""Operators that are worth it, and of which each is a layer that can go back to float."""

BETWEEN = ("Relu", "Clip", "Add", "MaxPool", "AveragePool", "GlobalAveragePool", "Concat", "Resize")
"""Operators that work on what is in int8 already, so that it need not become float in between."""


class Quantiser:
    """Makes int8 models of one ONNX file. layers: the names of the nodes that can be in int8 or not."""

    def __init__(self, source: Path, images: Iterable[NDArray[Any]], folder: Path) -> None:
        """Fold batch norms and measure ranges. images: what the network sees, float32 (1, c, h, w), of any sizes;
        folder: for temporary files. Raises InputError for a model that ONNX Runtime's tools do not take, and for one
        without layers."""
        self._path, plain = folder / "folded.onnx", folder / "plain.onnx"
        plain.write_bytes(restored(source))
        with _quietly():
            try:
                quant_pre_process(str(plain), str(self._path), skip_symbolic_shape=True)
                model = onnx.load(self._path)
                _name_nodes(model)
                onnx.save(model, self._path)
                calibrator = create_calibrator(
                    self._path,
                    [*WITH_WEIGHTS, *BETWEEN],
                    augmented_model_path=str(folder / "watched.onnx"),
                    calibrate_method=CalibrationMethod.MinMax,
                )
                calibrator.collect_data(_Reader(model.graph.input[0].name, images))
                self._ranges = calibrator.compute_data()
            except InputError:
                raise
            except Exception as error:  # the tools raise whatever they meet
                raise InputError(
                    f"ONNX Runtime's tools cannot quantise this model ({first_line(error)})"
                ) from error
        weights = {tensor.name for tensor in model.graph.initializer}
        self.layers = tuple(
            node.name
            for node in model.graph.node
            if node.op_type in WITH_WEIGHTS and any(name in weights for name in node.input)
        )
        if not self.layers:
            raise InputError("this model has no convolution or matrix product with weights to quantise")

    def __call__(self, floats: Collection[str] = ()) -> Any:
        """The model with every layer in int8 but those."""
        with _quietly():
            quantizer = QDQQuantizer(
                load_model_with_shape_infer(self._path),
                True,  # a scale for each channel
                False,  # the whole range
                QuantType.QInt8,
                QuantType.QUInt8,
                self._ranges,
                [],
                list(floats),
                [*WITH_WEIGHTS, *BETWEEN] if len(floats) < len(self.layers) else ["none"],
                {},
            )
            quantizer.quantize_model()
        return quantizer.model.model


class _Reader(CalibrationDataReader):  # type: ignore[misc]  # published without types
    def __init__(self, name: str, images: Iterable[NDArray[Any]]) -> None:
        self._name, self._images = name, iter(images)

    def get_next(self) -> dict[str, NDArray[Any]] | None:
        image = next(self._images, None)
        return None if image is None else {self._name: image}


def _name_nodes(model: Any) -> None:
    """A name of its own for every node, by which it can be left out."""
    for number, node in enumerate(model.graph.node):
        node.name = f"{node.op_type} {number}"


@contextmanager
def _quietly() -> Iterator[None]:
    """Without the advice that the tools log."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)


def fewest_floats(
    layers: Sequence[str], holds: Callable[[Collection[str]], bool], cost: Callable[[str], float]
) -> tuple[str, ...]:
    """As few layers as it takes, to be put back to float.

    holds: whether the model in which those layers are float keeps what is asked for. cost: what a layer loses when it
    alone is in int8. The layers that cost most go back first; how many is found by halving. If it never holds, all of
    them go.
    """
    if holds(()):
        return ()
    ranked = sorted(layers, key=cost, reverse=True)
    few, many = 0, len(ranked)  # that are not enough, and that are
    while many - few > 1:
        half = (few + many) // 2
        few, many = (few, half) if holds(ranked[:half]) else (half, many)
    return tuple(ranked[:many])


def times_as_fast(
    before: Callable[[], Any], after: Callable[[], Any], clock: Callable[[], float], rounds: int = 7
) -> float:
    """How many times as fast `after` is as `before`: the median of ratios, both timed alternately."""
    before(), after()
    ratios = []
    for _ in range(rounds):
        times = []
        for work in (before, after):
            start = clock()
            work()
            times.append(clock() - start)
        ratios.append(times[0] / max(times[1], 1e-9))
    return statistics.median(ratios)

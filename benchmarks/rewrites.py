"""Less arithmetic, layer by layer: convolutions of the ResNet and DeepLab networks in ONNX Runtime, as they are and
rewritten. Alternately, in milliseconds; the shapes are those of a picture of 520x779.

    python benchmarks/rewrites.py

"winograd" is what `export` writes (`pixelwise.export.winograd`, here also where it keeps a layer). "taps" is a
convolution of a large rate as a sum of matrix products, one for each of its nine taps over the part of the picture that
it reaches without falling into the padding: less arithmetic as well, and not faster, so that no exporter does it.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from pixelwise.export import winograd
from timing import alternately, record

LAYERS = (
    ("ResNet layer 2", 128, 128, 1, 65, 98),
    ("ResNet layer 3", 256, 256, 2, 65, 98),
    ("ResNet layer 4", 512, 512, 4, 65, 98),
    ("FCN head", 2048, 512, 1, 65, 98),
    ("U-Net decoder", 64, 64, 1, 130, 195),
    ("DeepLabV3-ResNet50, rate 12", 2048, 256, 12, 65, 98),
    ("DeepLabV3-ResNet50, rate 24", 2048, 256, 24, 65, 98),
    ("DeepLabV3-ResNet50, rate 36", 2048, 256, 36, 65, 98),
    ("DeepLabV3-MobileNetV3, rate 12", 960, 256, 12, 33, 49),
    ("DeepLabV3-MobileNetV3, rate 24", 960, 256, 24, 33, 49),
)
"""Names; channels in and out; rate; height and width of the map."""

LAST = 2**31


def model_of(nodes: list[Any], channels: int, held: dict[str, NDArray[Any]]) -> onnx.ModelProto:
    graph = helper.make_graph(
        nodes,
        "layer",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", channels, "h", "w"])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(value, name) for name, value in held.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)


def direct(weights: NDArray[np.float32], rate: int) -> onnx.ModelProto:
    node = helper.make_node(
        "Conv", ["x", "w"], ["y"], name="layer", kernel_shape=[3, 3], pads=[rate] * 4, dilations=[rate] * 2
    )
    return model_of([node], weights.shape[1], {"w": weights})


def taps(weights: NDArray[np.float32], rate: int) -> onnx.ModelProto:
    """A sum over the nine taps, each a product of matrices over the rows and columns that it can reach."""
    nodes: list[Any] = []
    held: dict[str, NDArray[Any]] = {}

    def constant(values: Any) -> str:
        name = f"c{len(held)}"
        held[name] = np.asarray(values, np.float32 if isinstance(values, np.ndarray) else np.int64)
        return name

    def add(kind: str, inputs: list[str], **attributes: Any) -> str:
        name = f"t{len(nodes)}"
        nodes.append(helper.make_node(kind, inputs, [name], **attributes))
        return name

    def shifted(of: str, steps: int, axis: int) -> str:
        if not steps:
            return of
        ends = [[max(0, steps * rate)], [LAST if steps > 0 else steps * rate], [axis]]
        return add("Slice", [of, *(constant(values) for values in ends)])

    def padded(of: str, steps: int, axis: int) -> str:
        before, after = [0] * 4, [0] * 4
        before[axis], after[axis] = max(0, -steps * rate), max(0, steps * rate)
        return add("Pad", [of, constant(before + after)]) if steps else of

    total = ""
    for down in (-1, 0, 1):
        rows, line = shifted("x", down, 2), ""
        for across in (-1, 0, 1):
            part = shifted(rows, across, 3)
            hw = add("Slice", [add("Shape", [part]), constant([2]), constant([4])])
            n = add("Slice", [add("Shape", [part]), constant([0]), constant([1])])
            flat = add("Reshape", [part, constant([0, 0, -1])])
            product = add("MatMul", [constant(weights[:, :, down + 1, across + 1].copy()), flat])
            shape = add("Concat", [n, constant([weights.shape[0]]), hw], axis=0)
            found = padded(add("Reshape", [product, shape]), across, 3)
            line = add("Add", [line, found]) if line else found
        line = padded(line, down, 2)
        total = add("Add", [total, line]) if total else line
    nodes.append(helper.make_node("Identity", [total], ["y"]))
    return model_of(nodes, weights.shape[1], held)


def rewritten(weights: NDArray[np.float32], rate: int) -> onnx.ModelProto:
    model = direct(weights, rate)
    before = winograd.FEWEST, winograd.LARGEST_RATE
    winograd.FEWEST, winograd.LARGEST_RATE = 1, 99
    winograd.rewrite(model)
    winograd.FEWEST, winograd.LARGEST_RATE = before
    return model


def runner(model: onnx.ModelProto, image: NDArray[np.float32], threads: int) -> Callable[[], Any]:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.add_session_config_entry("session.force_spinning_stop", "1")
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    return lambda: session.run(None, {"x": image})[0]


def main() -> None:
    draw = np.random.default_rng(0)
    threads = len(os.sched_getaffinity(0))
    for name, c, k, rate, h, w in LAYERS:
        weights = (draw.standard_normal((k, c, 3, 3)) / np.sqrt(9 * c)).astype(np.float32)
        image = draw.standard_normal((1, c, h, w)).astype(np.float32)
        run = partial(runner, image=image, threads=threads)
        contenders = {"direct": run(direct(weights, rate))}
        if rate <= 4:
            contenders["winograd"] = run(rewritten(weights, rate))
        else:
            contenders["taps"] = run(taps(weights, rate))
        answers = {who: call() for who, call in contenders.items()}
        error = max(float(np.abs(a - answers["direct"]).max() / np.ptp(a)) for a in answers.values())
        times = alternately(contenders, repeats=15)
        record(
            "rewrites", f"{name}: 3x3, {c} to {k} channels, rate {rate}, {h}x{w}", "direct", [*contenders][1], times,
            threads=threads, largest_difference=error,
        )  # fmt: skip


if __name__ == "__main__":
    main()

"""Halves: a model whose weights take half the bytes."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

LEAST = 1024
"""Numbers below which a tensor stays as it is: biases and constants are small, and cost little."""


def in_halves(model: Any) -> Any:
    """An ONNX model that keeps float32 weights as float16 and computes with them in float32, as before.

    Each weight changes by up to 1/2048 of itself. Runtimes make float32 of them when they load the file.
    """
    halved = onnx.ModelProto()
    halved.CopyFrom(model)
    graph, casts = halved.graph, []
    for tensor in graph.initializer:
        if tensor.data_type != TensorProto.FLOAT or np.prod(tensor.dims, dtype=np.int64) < LEAST:
            continue
        values, name = numpy_helper.to_array(tensor), tensor.name
        if np.abs(values).max() > np.finfo(np.float16).max:
            continue
        tensor.CopyFrom(numpy_helper.from_array(values.astype(np.float16), f"{name} in halves"))
        casts.append(helper.make_node("Cast", [tensor.name], [name], f"{name} Cast", to=TensorProto.FLOAT))
    nodes = list(graph.node)
    del graph.node[:]
    graph.node.extend([*casts, *nodes])
    return halved

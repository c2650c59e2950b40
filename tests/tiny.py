"""A model of a few bytes with known answers: the class of a pixel is its strongest colour, or dark."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from pixelwise.inference.preprocess import Preprocess
from pixelwise.labels import LabelSet
from pixelwise.weights.card import CARD_KEY, Card, Score

COLORS = LabelSet.of(
    ["dark", "red", "green", "blue"], colors=[(0, 0, 0), (255, 0, 0), (0, 255, 0), (0, 0, 255)]
)

CARD = Card(
    name="colors",
    architecture="colors",
    labels=COLORS,
    preprocess=Preprocess(mean=(0, 0, 0), std=(1, 1, 1)),
    stride=2,
    align_corners=False,
    parameters=52,
    scores=(Score("mean IoU", 1.0, "drawn pictures", "as they are", "by construction"),),
)


def write_colors_model(
    path: Path, card: Card | None = CARD, numbers: tuple[np.ndarray, np.ndarray] | None = None
) -> Path:
    """One 2x2 convolution of stride 2: logits are the mean of R, G, B over the patch, and 0.4 for dark. numbers: other
    weights (4, 3, 2, 2) and bias."""
    weight, bias = np.zeros((4, 3, 2, 2), np.float32), np.array([0.4, 0, 0, 0], np.float32)
    for channel in range(3):
        weight[channel + 1, channel] = 0.25
    weight, bias = numbers or (weight, bias)
    graph = helper.make_graph(
        [
            helper.make_node(
                "Conv", ["image", "weight", "bias"], ["logits"], kernel_shape=[2, 2], strides=[2, 2]
            )
        ],
        "colors",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["n", 3, "h", "w"])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["n", 4, "h2", "w2"])],
        [
            numpy_helper.from_array(weight, "weight"),
            numpy_helper.from_array(bias, "bias"),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    if card is not None:
        model.metadata_props.add(key=CARD_KEY, value=card.to_json())
    onnx.save(model, str(path))
    return path


def quadrants() -> np.ndarray:
    """A picture (40, 60, 3) whose quarters are dark, red, green and blue."""
    image = np.zeros((40, 60, 3), np.uint8)
    image[:20, 30:, 0] = 255
    image[20:, :30, 1] = 255
    image[20:, 30:, 2] = 255
    return image


def quadrant_labels() -> np.ndarray:
    labels = np.zeros((40, 60), np.uint8)
    labels[:20, 30:], labels[20:, :30], labels[20:, 30:] = 1, 2, 3
    return labels

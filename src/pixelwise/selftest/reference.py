"""A network of four layers whose answers follow from arithmetic: as an ONNX file, in plain NumPy, and in torch.

Its weights are a formula, so nothing is stored. The file is written byte by byte in ONNX's protobuf format, because the
onnx package does not come with the base installation. Letters: n batch, c channels, k classes, h w pixels.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from pixelwise.weights.card import CARD_KEY, Card

if TYPE_CHECKING:
    from torch import nn

WIDTH, CLASSES = 8, 4

CARD = Card.of(
    ["ground", "water", "wood", "house"], mean=(0.5,) * 3, std=(0.5,) * 3, stride=2, name="selftest"
)


def weights() -> dict[str, NDArray[np.float32]]:
    """Of the layers, by the name of the tensor in the file."""

    def waves(pace: float, *shape: int) -> NDArray[np.float32]:
        inputs = math.prod(shape[1:])
        values = np.sin(pace * np.arange(1, math.prod(shape) + 1)) / math.sqrt(inputs)
        return np.asarray(values, np.float32).reshape(shape)

    return {
        "first.weight": waves(2.0, WIDTH, 3, 3, 3), "first.bias": waves(0.9, WIDTH),
        "wide.weight": waves(2.3, WIDTH, 1, 3, 3), "wide.bias": waves(1.1, WIDTH),
        "last.weight": waves(2.5, CLASSES, WIDTH, 1, 1), "last.bias": waves(2.9, CLASSES) / np.float32(10),
    }  # fmt: skip


def by_definition(images: NDArray[np.float32]) -> NDArray[np.float64]:
    """Logits (n, k, h/2, w/2) of images (n, 3, h, w), in float64."""
    w = {name: values.astype(np.float64) for name, values in weights().items()}
    x = np.maximum(_convolved(images, w["first.weight"], w["first.bias"], stride=2), 0)
    x = np.maximum(x + _convolved(x, w["wide.weight"], w["wide.bias"], dilation=2), 0)
    around = np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)), constant_values=-np.inf)
    x = np.lib.stride_tricks.sliding_window_view(around, (3, 3), axis=(2, 3)).max(axis=(4, 5))
    return _convolved(x, w["last.weight"], w["last.bias"])


def _convolved(x: Any, weight: Any, bias: Any, *, stride: int = 1, dilation: int = 1) -> NDArray[np.float64]:
    """Zero-padded to the size of the input over the stride; one filter a channel where weight has a single input."""
    side, (h, w) = weight.shape[2], x.shape[2:]
    edge = (side // 2) * dilation
    padded = np.pad(x.astype(np.float64), ((0, 0), (0, 0), (edge, edge), (edge, edge)))
    out: NDArray[np.float64] = bias[:, None, None] + np.zeros(
        (len(x), len(weight), -(-h // stride), -(-w // stride))
    )
    for i in range(side):
        for j in range(side):
            seen = padded[:, :, i * dilation :, j * dilation :][:, :, :h:stride, :w:stride]
            if weight.shape[1] == 1:
                out += weight[:, 0, i, j, None, None] * seen
            else:
                out += np.einsum("kc,nchw->nkhw", weight[:, :, i, j], seen)
    return out


def in_torch() -> nn.Module:
    """The same network as a torch module, images (n, 3, h, w) to logits (n, k, h/2, w/2)."""
    import torch
    from torch import nn
    from torch.nn import functional as F

    class Network(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first = nn.Conv2d(3, WIDTH, 3, stride=2, padding=1)
            self.wide = nn.Conv2d(WIDTH, WIDTH, 3, padding=2, dilation=2, groups=WIDTH)
            self.last = nn.Conv2d(WIDTH, CLASSES, 1)

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            x = F.relu(self.first(images))
            x = F.relu(x + self.wide(x))
            logits: torch.Tensor = self.last(F.max_pool2d(x, 3, stride=1, padding=1))
            return logits

    network = Network().eval()
    network.load_state_dict({name: torch.from_numpy(values) for name, values in weights().items()})
    return network


def in_onnx(card: str | None = None) -> bytes:
    """The same network as an ONNX file. card: JSON; None: that of the network."""

    def convolution(name: str, x: str, y: str, **attributes: int | list[int]) -> bytes:
        return _node("Conv", [x, f"{name}.weight", f"{name}.bias"], y, **attributes)

    nodes = [
        convolution("first", "image", "a", kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1]),
        _node("Relu", ["a"], "b"),
        convolution("wide", "b", "c", kernel_shape=[3, 3], pads=[2, 2, 2, 2], dilations=[2, 2], group=WIDTH),
        _node("Add", ["b", "c"], "d"),
        _node("Relu", ["d"], "e"),
        _node("MaxPool", ["e"], "f", kernel_shape=[3, 3], pads=[1, 1, 1, 1], strides=[1, 1]),
        convolution("last", "f", "logits", kernel_shape=[1, 1]),
    ]
    tensors = [
        b"".join(_int(1, side) for side in values.shape) + _int(2, 1) + _text(8, name) + _bytes(9, values.tobytes())
        for name, values in weights().items()
    ]  # fmt: skip
    return model(
        nodes, tensors, _value("image", "n", 3, "h", "w"), _value("logits", "n", CLASSES, "p", "q"), card
    )


def model(
    nodes: list[bytes], tensors: list[bytes], image: bytes, logits: bytes | None, card: str | None = None
) -> bytes:
    """An ONNX file (ModelProto) of such parts; card: as in `in_onnx`."""
    graph = b"".join(_bytes(1, node) for node in nodes) + _text(2, "selftest")
    graph += b"".join(_bytes(5, tensor) for tensor in tensors) + _bytes(11, image)
    graph += b"" if logits is None else _bytes(12, logits)
    note = _text(1, CARD_KEY) + _text(2, CARD.to_json() if card is None else card)
    return _int(1, 8) + _bytes(7, graph) + _bytes(8, _text(1, "") + _int(2, 17)) + _bytes(14, note)


def _node(kind: str, takes: list[str], gives: str, **attributes: int | list[int]) -> bytes:
    """A NodeProto."""
    node = b"".join(_text(1, name) for name in takes) + _text(2, gives) + _text(4, kind)
    for name, value in attributes.items():
        numbers = (
            _int(3, value) + _int(20, 2)
            if isinstance(value, int)
            else b"".join(_int(8, v) for v in value) + _int(20, 7)
        )
        node += _bytes(5, _text(1, name) + numbers)
    return node


def _value(name: str, *sides: int | str) -> bytes:
    """A ValueInfoProto of float32."""
    shape = b"".join(_bytes(1, _int(1, side) if isinstance(side, int) else _text(2, side)) for side in sides)
    return _text(1, name) + _bytes(2, _bytes(1, _int(1, 1) + _bytes(2, shape)))


def _varint(number: int) -> bytes:
    more = number >> 7
    return bytes([number & 127 | 128]) + _varint(more) if more else bytes([number])


def _int(field: int, number: int) -> bytes:
    return _varint(field << 3) + _varint(number)


def _bytes(field: int, data: bytes) -> bytes:
    return _varint(field << 3 | 2) + _varint(len(data)) + data


def _text(field: int, text: str) -> bytes:
    return _bytes(field, text.encode())

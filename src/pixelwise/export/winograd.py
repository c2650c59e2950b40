"""Winograd's F(4x4, 3x3) in ONNX: 3x3 convolutions of many channels as transforms and 36 matrix products.

A tile of 4x4 outputs takes 36 products a pair of channels instead of 144 (Lavin & Gray, "Fast Algorithms for
Convolutional Neural Networks", 2016, section 4.3; the matrices are those of equation 14). In exact arithmetic it
is the same convolution; in float32 it differs by 4e-6 of the outputs' range. A dilated one is cut into rate x rate
undilated ones, by the dilation and the stride of the convolution that transforms the tiles. The file keeps the weights
as they were: ONNX Runtime transforms them when it loads it, so a file does not grow.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

FEWEST = 256
"""Channels, in and out, below which the transforms cost more than the products save."""

AT_ONCE = 512
"""Input channels whose tiles are in memory at once: they take nine times the memory of these channels."""

LARGEST_RATE = 4
"""Dilation above which the tiles of the undilated parts, rounded up to four pixels, are mostly air."""

MARK = "/winograd/"
"""In the names of all nodes and tensors of a rewritten convolution, after its own name."""

TILES = np.array(
    [
        [4, 0, -5, 0, 1, 0],
        [0, -4, -4, 1, 1, 0],
        [0, 4, -4, -1, 1, 0],
        [0, -2, -1, 2, 1, 0],
        [0, 2, -1, -2, 1, 0],
        [0, 4, 0, -5, 0, 1],
    ],
    np.float64,
)
"""Six pixels of a row to six values, B transposed."""

WEIGHTS = np.array(
    [
        [1 / 4, 0, 0],
        [-1 / 6, -1 / 6, -1 / 6],
        [-1 / 6, 1 / 6, -1 / 6],
        [1 / 24, 1 / 12, 1 / 6],
        [1 / 24, -1 / 12, 1 / 6],
        [0, 0, 1],
    ],
    np.float64,
)
"""Three weights to six values, G."""

OUTPUTS = np.array(
    [[1, 1, 1, 1, 1, 0], [0, 1, -1, 2, -2, 0], [0, 1, 1, 4, 4, 0], [0, 1, -1, 8, -8, 1]], np.float64
)
"""Six products to four pixels, A transposed."""


def rewrite(model: onnx.ModelProto) -> int:
    """Put Winograd's form in the place of every convolution that gains by it; returns of how many.

    Those are 3x3 of one group, of stride 1, zero-padded to the size of their input, with dilation and channels within
    the limits above and weights that are in the file.
    """
    graph = model.graph
    held = {tensor.name: tensor for tensor in graph.initializer}
    nodes, count = [], 0
    for node in graph.node:
        rate = _rate(node, held) if node.op_type == "Conv" else None
        if rate is None:
            nodes.append(node)
            continue
        nodes += _Winograd(node, held[node.input[1]], rate, graph).nodes
        count += 1
    del graph.node[:]
    graph.node.extend(nodes)
    return count


def restore(model: onnx.ModelProto) -> int:
    """The plain convolutions again, in place of what `rewrite` made of them; returns of how many. For quantisation, and
    for engines that have something better."""
    graph = model.graph
    nodes, count = [], 0
    made: set[str] = set()
    groups: dict[str, list[onnx.NodeProto]] = {}
    for node in graph.node:
        name, mark, _ = node.name.partition(MARK)
        if not mark:
            nodes.append(node)
            continue
        if name not in groups:
            nodes.append(onnx.NodeProto(name=name))  # the convolution's place
        groups.setdefault(name, []).append(node)
    for i, place in enumerate(nodes):
        if place.op_type or place.name not in groups:
            continue
        group = groups[place.name]
        by = {node.name.partition(MARK)[2]: node for node in group}
        tile = by["tiles00"]
        (rate,) = {value for a in tile.attribute if a.name == "dilations" for value in a.ints}
        inputs = [by["size"].input[0], by["rows"].input[0]]
        if "bias" in by:
            inputs.append(by["flat_bias"].input[0])
        nodes[i] = helper.make_node(
            "Conv", inputs, list(group[-1].output), name=place.name, kernel_shape=[3, 3], strides=[1, 1],
            pads=[rate] * 4, dilations=[rate] * 2, group=1,
        )  # fmt: skip
        made |= {f"{place.name}{MARK}"}
        count += 1
    kept = [t for t in graph.initializer if t.name.partition(MARK)[0] + MARK not in made]
    del graph.node[:], graph.initializer[:]
    graph.node.extend(nodes)
    graph.initializer.extend(kept)
    return count


def restored(source: Path | bytes) -> bytes:
    """The bytes of a model after `restore`, of a file or of its bytes; of a file also what it keeps in others."""
    model = onnx.load(source) if isinstance(source, Path) else onnx.load_from_string(source)
    restore(model)
    return bytes(model.SerializeToString())


def _rate(node: onnx.NodeProto, held: dict[str, onnx.TensorProto]) -> int | None:
    """The dilation of a convolution that is to be rewritten, None for others."""
    weights = held.get(node.input[1])
    if weights is None or weights.data_type != onnx.TensorProto.FLOAT or list(weights.dims[2:]) != [3, 3]:
        return None
    if len(node.input) > 2 and node.input[2] and node.input[2] not in held:
        return None
    values = {a.name: helper.get_attribute_value(a) for a in node.attribute}
    rates = values.get("dilations", [1, 1])
    rate = int(rates[0])
    plain = (
        values.get("group", 1) == 1
        and list(values.get("strides", [1, 1])) == [1, 1]
        and values.get("auto_pad", b"NOTSET") == b"NOTSET"
        and list(rates) == [rate] * 2
        and list(values.get("pads", [0] * 4)) == [rate] * 4
    )
    return rate if plain and rate <= LARGEST_RATE and min(weights.dims[:2]) >= FEWEST else None


class _Winograd:
    """The nodes of one convolution, in their order, and its constants in the graph.

    Names of sizes: n pictures, c channels in, k out, r the dilation; each of the r x r parts has (th, tw) tiles.
    """

    def __init__(
        self, conv: onnx.NodeProto, weights: onnx.TensorProto, rate: int, graph: onnx.GraphProto
    ) -> None:
        self.name, self.graph = conv.name or conv.output[0], graph
        self.nodes: list[onnx.NodeProto] = []
        k, c, r = weights.dims[0], weights.dims[1], rate
        x, side = conv.input[0], 4 * rate
        size = self.add("size", "Shape", [x])
        n, hw = self.part(size, "pictures", 0, 1), self.part(size, "sides", 2, 4)

        rows = self.add("rows", "Reshape", [conv.input[1], self.constant("rows", [k * c, 9])])
        columns = self.add("columns", "Transpose", [rows], perm=[1, 0])
        u = np.einsum("ai,bj->abij", WEIGHTS, WEIGHTS).reshape(36, 9)
        kernels = self.add("transformed", "MatMul", [self.constant("weights", u), columns])
        kernels = self.add("weights", "Reshape", [kernels, self.constant("kernels", [36, 1, k, c])])

        # Each channel for itself: (n c, 1, h, w) to (n c, 36, th, tw), a part at a time
        kernel = self.constant("tiles", np.einsum("ai,bj->abij", TILES, TILES).reshape(36, 1, 6, 6))
        alone = self.add(
            "alone", "Concat", [self.constant("all", [-1]), self.constant("one", [1]), hw], axis=0
        )
        made = grid = ""
        for first in range(0, c, AT_ONCE):
            last, by, bunch = min(c, first + AT_ONCE), f"_{first}" if first else "", x
            here = kernels
            if c > AT_ONCE:
                ends = [self.constant(f"at{i}", [i]) for i in (first, last)]
                bunch = self.add(f"bunch{by}", "Slice", [x, *ends, self.constant("at1", [1])])
                here = self.add(f"of_bunch{by}", "Slice", [kernels, *ends, self.constant("at3", [3])])
            flat = self.add(f"flat{by}", "Reshape", [bunch, alone])
            parts = [
                self.add(
                    f"tiles{y}{z}{by}", "Conv", [flat, kernel], kernel_shape=[6, 6], strides=[side] * 2,
                    dilations=[r] * 2, pads=[r - y, r - z, side + y, side + z],
                )
                for y in range(r)
                for z in range(r)
            ]  # fmt: skip
            grid = grid or self.add("grid", "Shape", [parts[0]])
            tiles = self.add(f"parts{by}", "Concat", parts, axis=2) if r > 1 else parts[0]
            shape = self.add(
                f"by_tile{by}",
                "Concat",
                [n, self.constant(f"c{last - first}", [last - first, 36, -1])],
                axis=0,
            )
            tiles = self.add(f"joined{by}", "Reshape", [tiles, shape])
            tiles = self.add(f"tiles{by}", "Transpose", [tiles], perm=[2, 0, 1, 3])  # (36, n, c, r r th tw)
            more = self.add(f"products{by}", "MatMul", [here, tiles])  # (36, n, k, r r th tw)
            made = self.add(f"sum{by}", "Add", [made, more]) if made else more
        th, tw = self.part(grid, "down", 2, 3), self.part(grid, "across", 3, 4)

        made = self.add("made", "Reshape", [made, self.constant("flat", [36, -1])])
        back = np.einsum("pa,qb->pqab", OUTPUTS, OUTPUTS).reshape(16, 36)
        out = self.add("outputs", "MatMul", [self.constant("outputs", back), made])  # (4 4, n k r r th tw)
        if r > 1:
            shape = self.add("dilated", "Concat", [self.constant("four", [4, 4, -1, r, r]), th, tw], axis=0)
            out = self.add("apart", "Reshape", [out, shape])
            out = self.add("rates", "Transpose", [out], perm=[0, 3, 1, 4, 2, 5, 6])
        # (4r, 4r, n k th tw) to (n k th 4r, tw 4r): twice one axis is moved, which ONNX Runtime does fast
        out = self.add("square", "Reshape", [out, self.constant("square", [side, side, -1])])
        out = self.add("across_last", "Transpose", [out], perm=[0, 2, 1])
        width = self.add("width", "Mul", [tw, self.constant("side", [side])])
        height = self.add("height", "Mul", [th, self.constant("side", [side])])
        shape = self.add("lines", "Concat", [self.constant("lines", [side, -1]), width], axis=0)
        out = self.add("by_line", "Reshape", [out, shape])
        out = self.add("down_last", "Transpose", [out], perm=[1, 0, 2])
        shape = self.add("whole", "Concat", [n, self.constant("k", [k]), height, width], axis=0)
        out = self.add("picture", "Reshape", [out, shape])
        bias = conv.input[2] if len(conv.input) > 2 else ""
        cut = [out, self.constant("corner", [0, 0]), hw, self.constant("both", [2, 3])]
        out = self.add("cut", "Slice", cut)
        if bias:
            flat_bias = self.add("flat_bias", "Reshape", [bias, self.constant("channel", [k, 1, 1])])
            self.add("bias", "Add", [out, flat_bias])
        self.nodes[-1].output[0] = conv.output[0]

    def constant(self, name: str, values: list[int] | NDArray[np.float64]) -> str:
        """The name of a constant: sizes int64, numbers float32."""
        name = f"{self.name}{MARK}{name}:"
        if all(tensor.name != name for tensor in self.graph.initializer):
            array = np.array(values, np.int64 if isinstance(values, list) else np.float32)
            self.graph.initializer.append(numpy_helper.from_array(array, name))
        return name

    def add(self, name: str, kind: str, inputs: list[str], **attributes: int | list[int]) -> str:
        """The name of a node's output."""
        name = f"{self.name}{MARK}{name}"
        self.nodes.append(helper.make_node(kind, inputs, [name], name=name, **attributes))
        return name

    def part(self, of: str, name: str, begin: int, end: int) -> str:
        """Some of a list of sizes."""
        ends = [self.constant(f"at{i}", [i]) for i in (begin, end)]
        return self.add(name, "Slice", [of, *ends])

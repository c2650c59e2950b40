"""Bake: the whole way from a picture to its label map into the graph of a network, for those who have no pixelwise.

In front of the network comes what `Preprocess` does (Pillow's antialiased resize, in its fixed-point arithmetic),
behind it what `decide` does (interpolation and argmax, where classes meet). Both are plain operators of ONNX 13, for
pictures of any size, and give the numbers of the originals to the last bit.

Letters: h w pixels of the picture, c channels, k logits of a pixel, n anything.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx
import PIL
from onnx import TensorProto, helper, numpy_helper

from pixelwise.codes import code_type
from pixelwise.errors import InputError
from pixelwise.inference.preprocess import Preprocess
from pixelwise.weights.card import CARD_KEY, Card

FRACTION_BITS = 22
"""Of Pillow's weights: 32 bits, less 8 for the pixel and 2 for sums that run over."""

AT_ONCE = 4_000_000
"""Logits of border pixels that are interpolated at a time; it bounds the memory."""

HEIGHT_MAY_BE_FIRST = 13
"""The first version of Pillow that resizes the height first where that shrinks by more than twice as many pixels as the
width; others always begin with the width. Between the two passes pixels are rounded."""

OLDEST_OPERATORS = 13
"""The first version of ONNX in which the operators that are used here take what they are given."""

PREFIX, NETWORK = "baked/", "network/"
"""How the names of what is added begin, and those of all that was there: any may be called "picture" or "labels" too.
"""


class _Graph:
    """Nodes in the making: graph("Add", a, b) adds one and returns the name of what comes out of it. Names of values
    are what everything here takes and returns."""

    def __init__(self, outer: _Graph | None = None) -> None:
        self.nodes: list[Any] = []
        self.constants: dict[tuple[Any, ...], Any] = {} if outer is None else outer.constants
        self._names: list[str] = [] if outer is None else outer._names

    def name(self) -> str:
        self._names.append(f"{PREFIX}{len(self._names)}")
        return self._names[-1]

    def __call__(self, operator: str, *inputs: str, gives: str | None = None, **attributes: Any) -> str:
        name = gives or self.name()
        self.nodes.append(helper.make_node(operator, inputs, [name], f"{name} {operator}", **attributes))
        return name

    def constant(self, values: Any, dtype: Any = np.int64) -> str:
        array = np.asarray(values, dtype)
        key = (array.dtype.str, array.shape, array.tobytes())
        if key not in self.constants:
            self.constants[key] = numpy_helper.from_array(array, self.name())
        return str(self.constants[key].name)

    def loop(self, trips: str, body: Callable[[_Graph, str], str], kept: str | None = None) -> str:
        """The value that goes from trip to trip and begins as `kept`; without one, what each trip gives, stacked.

        body: (graph, number of the trip) to what it gives; a kept value is found under the name `kept + "'"`.
        """
        inner, trip, go_on = _Graph(self), self.name(), self.name()
        found = body(inner, trip)
        still = inner("Identity", go_on)
        inputs = [helper.make_tensor_value_info(trip, TensorProto.INT64, [])]
        inputs.append(helper.make_tensor_value_info(go_on, TensorProto.BOOL, []))
        if kept is not None:
            inputs.append(helper.make_empty_tensor_value_info(f"{kept}'"))
        outputs = [helper.make_tensor_value_info(still, TensorProto.BOOL, [])]
        outputs.append(helper.make_empty_tensor_value_info(found))
        graph = helper.make_graph(inner.nodes, f"{found} body", inputs, outputs)
        return self("Loop", trips, "", *([] if kept is None else [kept]), body=graph)

    def either(self, condition: str, one: Callable[[_Graph], str], other: Callable[[_Graph], str]) -> str:
        """What `one` gives where the condition holds, else what `other` gives."""
        branches = []
        for make in (one, other):
            inner = _Graph(self)
            found = make(inner)
            outputs = [helper.make_empty_tensor_value_info(found)]
            branches.append(helper.make_graph(inner.nodes, f"{found} branch", [], outputs))
        return self("If", condition, then_branch=branches[0], else_branch=branches[1])

    # What is written most often

    def cast(self, value: str, kind: int) -> str:
        return self("Cast", value, to=kind)

    def float64(self, value: str) -> str:
        return self.cast(value, TensorProto.DOUBLE)

    def number(self, value: float) -> str:
        return self.constant(value, np.float64)

    def count(self, until: str) -> str:
        """0, 1, ... below `until`."""
        return self("Range", self.constant(0), until, self.constant(1))

    def at(self, value: str, index: str | int, axis: int = 0) -> str:
        """value[index] along one axis."""
        return self("Gather", value, self.constant(index) if isinstance(index, int) else index, axis=axis)

    def up(self, value: str, *axes: int) -> str:
        """With new axes of one."""
        return self("Unsqueeze", value, self.constant(axes))

    def shaped(self, value: str, *sides: str | int) -> str:
        whole = [self.constant([s]) if isinstance(s, int) else self.up(s, 0) for s in sides]
        return self("Reshape", value, self("Concat", *whole, axis=0))


def bake(model: Any, card: Card) -> Any:
    """The ONNX model of a network, with the same weights, from `picture` to label map; its card says baked=True.

    model: its one input is float32 (1, c, h, w), its first output coarse logits (1, k, h', w'). What comes out takes
    `picture`, uint8 (1, h, w, c) of any size, RGB for photos, and gives `labels` (1, h, w), the ids of the card's
    classes in the smallest unsigned type (`LabelSet.dtype`): the pixels of `Segmenter(...)(picture).labels`. A model of
    regions also gives `regions`, bool (1, k, h, w), each region's own mask.

    Raises InputError for a model of another kind, or of operators that are too old.
    """
    if card.baked:
        raise InputError(f"{card.name} is baked already: it takes a picture and gives its label map")
    version = next((one.version for one in model.opset_import if one.domain in ("", "ai.onnx")), 0)
    if version < OLDEST_OPERATORS:
        raise InputError(
            f"the operators of {card.name} are of ONNX opset {version}, and a picture and its label map need "
            f"{OLDEST_OPERATORS} or later; export the network again"
        )
    source = onnx.GraphProto()
    source.CopyFrom(model.graph)
    _rename(source)
    weights = {tensor.name for tensor in source.initializer}
    takes = [one for one in source.input if one.name not in weights]
    if len(takes) != 1 or takes[0].type.tensor_type.elem_type != TensorProto.FLOAT:
        raise InputError(f"expected a model of one input, pictures in float32; {card.name} has others")

    graph = _Graph()
    shape = graph("Shape", "picture")
    height, width = graph.at(shape, 1), graph.at(shape, 2)
    _prepared(graph, card.preprocess, height, width, gives=takes[0].name)
    graph.nodes.extend(source.node)
    logits = graph.at(graph.cast(source.output[0].name, TensorProto.FLOAT), 0)  # (k, h', w')
    decided = _Decided(graph, logits, height, width, align_corners=card.align_corners)
    outputs = [_output("labels", card.labels.dtype, [1, "height", "width"])]
    if card.outputs == "regions":
        found = _regions(graph, decided, logits, card)
        outputs.append(_output("regions", np.bool_, [1, card.channels, "height", "width"]))
    elif card.channels == 1:
        found = decided.ids(_with_zeros(graph, logits), card.labels.ids, card.labels.dtype)
    else:
        found = decided.ids(logits, card.labels.ids, card.labels.dtype)
    graph.up(found, 0)
    graph.nodes[-1].output[0] = "labels"

    made = helper.make_graph(
        graph.nodes,
        source.name or "network",
        [helper.make_tensor_value_info(
            "picture", TensorProto.UINT8, [1, "height", "width", len(card.preprocess.mean)]
        )],
        outputs,
        [*source.initializer, *graph.constants.values()],
        sparse_initializer=source.sparse_initializer,
    )  # fmt: skip
    baked = onnx.ModelProto()
    baked.CopyFrom(model)
    baked.graph.CopyFrom(made)
    for entry in list(baked.metadata_props):
        if entry.key == CARD_KEY:
            baked.metadata_props.remove(entry)
    baked.metadata_props.add(key=CARD_KEY, value=card.replace(baked=True).to_json())
    return baked


def _rename(graph: Any) -> None:
    """Begin every name of a graph, and of those inside its nodes, with NETWORK. ONNX's own `compose.add_prefix` leaves
    out weights that inner graphs take from outside."""
    for node in graph.node:
        node.name = f"{NETWORK}{node.name}" if node.name else ""
        for names in (node.input, node.output):
            names[:] = [f"{NETWORK}{name}" if name else "" for name in names]  # without a name: left out
        for attribute in node.attribute:
            for inner in [attribute.g] * attribute.HasField("g") + [*attribute.graphs]:
                _rename(inner)
    tensors = [tensor for sparse in graph.sparse_initializer for tensor in (sparse.values, sparse.indices)]
    for value in (*graph.input, *graph.output, *graph.value_info, *graph.initializer, *tensors):
        value.name = f"{NETWORK}{value.name}"


def _output(name: str, dtype: Any, shape: Sequence[int | str]) -> Any:
    return helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(np.dtype(dtype)), shape)


# In front: what `Preprocess` does


def _prepared(g: _Graph, preprocess: Preprocess, height: str, width: str, *, gives: str) -> None:
    """The picture as the network's input, float32 (1, c, h', w')."""
    values = g.at("picture", 0)  # (h, w, c)
    if preprocess.size is not None or preprocess.multiple > 1:
        values = _resized(g, values, (height, width), _seen(g, preprocess, height, width))
    values = g.cast(g("Transpose", values, perm=[2, 0, 1]), TensorProto.FLOAT)
    mean, std = (
        g.constant(np.array(numbers, np.float32)[:, None, None], np.float32)
        for numbers in (preprocess.mean, preprocess.std)
    )
    shares = g("Div", values, g.constant(255, np.float32))
    g("Unsqueeze", g("Div", g("Sub", shares, mean), std), g.constant([0]), gives=gives)


def _seen(g: _Graph, preprocess: Preprocess, height: str, width: str) -> tuple[str, str]:
    """`Preprocess.size_hw`."""
    sides = [height, width]
    if isinstance(preprocess.size, tuple):
        sides = [g.constant(side) for side in preprocess.size]
    elif preprocess.size is not None:
        given = g.constant(preprocess.size)
        fixed = g("LessOrEqual", height, width)  # whether the height is the side that is given
        if preprocess.side == "longer":
            fixed = g("Not", fixed)
        own, other = g("Where", fixed, height, width), g("Where", fixed, width, height)
        scaled = g("Max", g.constant(1), g("Div", g("Mul", given, other), own))
        sides = [g("Where", fixed, given, scaled), g("Where", fixed, scaled, given)]
    if preprocess.multiple > 1:
        multiple, offset = g.constant(preprocess.multiple), g.constant(preprocess.offset)
        least = g.constant(1 - min(preprocess.offset, 1))
        for i, side in enumerate(sides):
            share = g("Div", g.float64(g("Sub", side, offset)), g.float64(multiple))
            whole = g("Max", least, g.cast(g("Round", share), TensorProto.INT64))
            sides[i] = g("Add", g("Mul", whole, multiple), offset)
    return sides[0], sides[1]


def _resized(g: _Graph, values: str, before: tuple[str, str], after: tuple[str, str]) -> str:
    """uint8 (h, w, c) to (h', w', c), one axis after the other in the order of the Pillow that is installed here."""

    def turned(inner: _Graph, values: str) -> str:
        return inner("Transpose", values, perm=[1, 0, 2])

    if int(PIL.__version__.partition(".")[0]) >= HEIGHT_MAY_BE_FIRST:
        less = [g("Sub", *sides) for sides in zip(before, after, strict=True)]
        much = g("Greater", less[0], g("Mul", less[1], g.constant(2)))
        height_first = g("And", g("Greater", less[0], g.constant(0)), much)
    else:
        height_first = g.constant(False, np.bool_)
    values = g.either(
        height_first, lambda inner: inner("Identity", values), lambda inner: turned(inner, values)
    )
    for axis in (0, 1):
        there, goal = (g("Where", height_first, sides[axis], sides[1 - axis]) for sides in (before, after))
        values = turned(g, _resized_axis(g, values, there, goal))
    return g.either(
        height_first, lambda inner: inner("Identity", values), lambda inner: turned(inner, values)
    )


def _resized_axis(g: _Graph, values: str, before: str, after: str) -> str:
    """uint8 (before, n, n) to (after, n, n), as Pillow resizes one axis: antialiased, bilinear.

    Source: `precompute_coeffs`, `normalize_coeffs_8bpc` and the two passes in Pillow's libImaging/Resample.c, whose
    order of operations is kept, in float64 for the weights and in integers of 22 binary places for the pixels.
    """
    scale = g("Div", g.float64(before), g.float64(after))
    support = g("Max", scale, g.number(1))
    center = g("Mul", g("Add", g.float64(g.count(after)), g.number(0.5)), scale)  # (after,)

    def whole(number: str) -> str:
        return g.cast(g("Add", number, g.number(0.5)), TensorProto.INT64)

    first = g("Max", whole(g("Sub", center, support)), g.constant(0))
    taps = g("Sub", g("Min", whole(g("Add", center, support)), before), first)
    most = g("ReduceMax", taps, keepdims=0)
    tap = g.count(most)
    place = g.float64(g("Add", g.up(first, 1), tap))  # (after, taps)
    away = g("Add", g("Sub", place, g.up(center, 1)), g.number(0.5))
    away = g("Abs", g("Mul", away, g("Div", g.number(1), support)))
    weight = g("Max", g("Sub", g.number(1), away), g.number(0))
    weight = g("Where", g("Less", tap, g.up(taps, 1)), weight, g.number(0))
    total = g.at(
        g("CumSum", weight, g.constant(1)), g("Sub", most, g.constant(1)), axis=1
    )  # one by one, as there
    share = g("Mul", g("Div", weight, g.up(total, 1)), g.number(1 << FRACTION_BITS))
    share = g.cast(g("Floor", g("Add", share, g.number(0.5))), TensorProto.INT32)
    last = g("Sub", before, g.constant(1))
    rest = g("Slice", g("Shape", values), g.constant([1]), g.constant([3]))
    begin = g(
        "Expand", g.constant(1 << FRACTION_BITS - 1, np.int32), g("Concat", g.up(after, 0), rest, axis=0)
    )

    def body(inner: _Graph, trip: str) -> str:
        there = inner.at(values, inner("Min", inner("Add", first, trip), last))
        part = inner(
            "Mul", inner.cast(there, TensorProto.INT32), inner.up(inner.at(share, trip, axis=1), 1, 2)
        )
        return inner("Add", f"{begin}'", part)

    sums = g.loop(most, body, begin)
    return g.cast(g("Div", sums, g.constant(1 << FRACTION_BITS, np.int32)), TensorProto.UINT8)


# Behind: what `decide` does


class _Decided:
    """`decide` at the size of the picture; where its pixels lie on the coarse grid is worked out once."""

    def __init__(self, g: _Graph, logits: str, height: str, width: str, *, align_corners: bool) -> None:
        self.g, self.height, self.width = g, height, width
        shape = g("Shape", logits)
        self.coarse_width = g.at(shape, 2)
        self.y, self.v, self.below = _axis(g, g.at(shape, 1), height, align_corners)
        self.x, self.u, self.beside = _axis(g, self.coarse_width, width, align_corners)

    def ids(self, logits: str, ids: Sequence[int], dtype: Any) -> str:
        """Of logits (k, h', w') the ids (h, w) of the winning classes, in a type of integers."""
        g = self.g
        table = g.constant(ids, dtype)
        coarse = g("ArgMax", logits, axis=0, keepdims=0)
        below = g.at(coarse, self.below)
        meets = [below, g.at(coarse, self.beside, axis=1), g.at(below, self.beside, axis=1)]
        same = [g("Equal", coarse, other) for other in meets]
        border = g("Not", g("And", g("And", same[0], same[1]), same[2]))
        inside = g.shaped(self._fine(g.at(table, coarse)), -1)
        found = g("NonZero", self._fine(border))  # (2, pixels)
        row, column = g.at(found, 0), g.at(found, 1)
        pixels = g.at(g("Shape", found), 1)
        place = g("Add", g("Mul", row, self.width), column)
        winners = g(
            "Slice",
            self._interpolated(logits, len(ids), row, column, pixels),
            g.constant([0]),
            g.up(pixels, 0),
        )
        decided = g("ScatterElements", inside, place, g.at(table, winners), axis=0)
        return g.shaped(decided, self.height, self.width)

    def _fine(self, coarse: str) -> str:
        """Each pixel of the picture with what is noted for its cell."""
        return self.g.at(self.g.at(coarse, self.y), self.x, axis=1)

    def _interpolated(self, logits: str, k: int, row: str, column: str, pixels: str) -> str:
        """The winning classes of those pixels, a few at a time and one or more beyond the last: each time as many."""
        g = self.g
        corner = g("Transpose", g.shaped(logits, k, -1), perm=[1, 0])  # (h' w', k)
        row, column = (g("Concat", some, g.constant([0]), axis=0) for some in (row, column))
        step = g("Min", g.constant(max(1, AT_ONCE // k)), g("Add", pixels, g.constant(1)))
        trips = g("Add", g("Div", pixels, step), g.constant(1))
        places = g.count(step)

        def body(inner: _Graph, trip: str) -> str:
            those = inner("Min", inner("Add", inner("Mul", trip, step), places), pixels)
            i, j = inner.at(row, those), inner.at(column, those)
            y, x = inner.at(self.y, i), inner.at(self.x, j)
            v, u = inner.up(inner.at(self.v, i), 1), inner.up(inner.at(self.u, j), 1)

            def mixed(one: str, other: str, share: str) -> str:
                rest = inner("Sub", inner.constant(1, np.float32), share)
                return inner("Add", inner("Mul", one, rest), inner("Mul", other, share))

            def side(x: str) -> str:
                ends = (
                    inner("Add", inner("Mul", row, self.coarse_width), x)
                    for row in (y, inner.at(self.below, y))
                )
                upper, lower = (inner.at(corner, end) for end in ends)
                return mixed(upper, lower, v)

            return inner("ArgMax", mixed(side(x), side(inner.at(self.beside, x)), u), axis=1, keepdims=0)

        return g.shaped(g.loop(trips, body), -1)


def _axis(g: _Graph, coarse: str, fine: str, align_corners: bool) -> tuple[str, str, str]:
    """`inference.axis.axis_of`: the cell of each pixel, the weight within it, and the cell after each cell."""
    pixels, one = g.float64(g.count(fine)), g.constant(1)
    last = g("Sub", coarse, one)
    if align_corners:
        between = g.float64(g("Max", g("Sub", fine, one), one))
        position = g("Mul", pixels, g("Div", g.float64(last), between))
    else:
        ratio = g("Div", g.float64(coarse), g.float64(fine))
        position = g("Sub", g("Mul", g("Add", pixels, g.number(0.5)), ratio), g.number(0.5))
        position = g("Max", position, g.number(0))
    cell = g("Min", g.cast(position, TensorProto.INT64), last)
    weight = g.cast(g("Sub", position, g.float64(cell)), TensorProto.FLOAT)
    return cell, weight, g("Min", g("Add", g.count(coarse), one), last)


def _with_zeros(g: _Graph, logit: str) -> str:
    """A single logit (1, h', w') after that of its opposite, which is zero."""
    zeros = g("Expand", g.constant(0, np.float32), g("Shape", logit))
    return g("Concat", zeros, logit, axis=0)


def _regions(g: _Graph, decided: _Decided, logits: str, card: Card) -> str:
    """`decide_regions` and `codes.highest`: the label map (h, w), and `regions`, the masks."""
    code_type(card.channels)  # not too many of them
    masks = [
        decided.ids(_with_zeros(g, g.at(logits, g.constant([region]))), (0, 1), np.uint8)
        for region in range(card.channels)
    ]
    masks = [g.cast(mask, TensorProto.BOOL) for mask in masks]
    g("Unsqueeze", g("Concat", *(g.up(mask, 0) for mask in masks), axis=0), g.constant([0]), gives="regions")
    labels, ids = g.constant(card.labels.ids[0], card.labels.dtype), card.labels.ids[1:]
    for mask, id in zip(masks, ids, strict=True):
        labels = g("Where", mask, g.constant(id, card.labels.dtype), labels)
    return labels

"""ONNX files, opened by the command. Their cards are right."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from hostile.cases import Case, Place, Refused, Right, accepted, colors_model, encoded, flat, segmented

LEFT = ("out/*.png",)


def edited(edit: Callable[[Any], object]) -> Callable[[Place], None]:
    """The model of `tiny.py` after an edit, with a picture beside it."""

    def make(place: Place) -> None:
        import onnx

        picture(place)
        path = colors_model(place)
        model = onnx.load(str(path))
        edit(model)
        onnx.save(model, str(path))

    return make


def raw(change: Callable[[bytes], bytes]) -> Callable[[Place], None]:
    """The file's bytes after a change."""

    def make(place: Place) -> None:
        picture(place)
        path = colors_model(place)
        path.write_bytes(change(path.read_bytes()))

    return make


def picture(place: Place) -> None:
    place.write("x.png", encoded(flat((255, 0, 0)), "PNG"))


def weight(model: Any) -> Any:
    return model.graph.initializer[0]


def elsewhere(location: str, length: int = 192) -> Callable[[Any], None]:
    """The weights lie in another file."""

    def edit(model: Any) -> None:
        tensor = weight(model)
        tensor.ClearField("raw_data")
        tensor.data_location = 1
        for key, value in {"location": location, "offset": "0", "length": str(length)}.items():
            entry = tensor.external_data.add()
            entry.key, entry.value = key, value

    return edit


def node(kind: str, domain: str = "", **attributes: Any) -> Callable[[Any], None]:
    """Another node before the output."""

    def edit(model: Any) -> None:
        from onnx import helper

        model.graph.node[0].output[0] = "before"
        model.graph.node.append(helper.make_node(kind, ["before"], ["logits"], domain=domain, **attributes))

    return edit


def _huge(model: Any) -> None:
    """A constant of 400 GB, made of eight numbers."""
    from onnx import helper, numpy_helper

    model.graph.initializer.append(numpy_helper.from_array(np.array([100_000, 1_000_000]), "shape"))
    model.graph.node.append(helper.make_node("ConstantOfShape", ["shape"], ["large"]))
    model.graph.node.append(helper.make_node("ReduceSum", ["large"], ["sum"], keepdims=0))
    model.graph.node[0].output[0] = "before"
    model.graph.node.append(helper.make_node("Add", ["before", "sum"], ["logits"]))


def _cases() -> Iterator[Case]:
    def one(name: str, make: Callable[[Place], None], right: Right | None = None) -> Case:
        right = right or Refused(r"colors\.onnx")
        return Case(name, make, segmented("x.png"), right, LEFT)

    yield one("whole", edited(lambda model: None), accepted("red 100.0%"))
    yield one(
        "a new name and producer",
        edited(lambda m: setattr(m, "producer_name", "\x1b[31m")),
        accepted("red 100.0%"),
    )
    yield one("nothing in it", raw(lambda data: b""))
    yield one("text", raw(lambda data: b"not a model at all"))
    yield one("a page of HTML", raw(lambda data: b"<!DOCTYPE html><title>404</title>" * 50))
    yield one("cut in the middle", raw(lambda data: data[: len(data) // 2]))
    yield one("a pickle", raw(lambda data: b"\x80\x02cposix\nsystem\nX\x04\x00\x00\x00true\x85R."))
    yield one(
        "a length beyond its end", raw(lambda data: data.replace(b"\x3a", b"\x3a\xff\xff\xff\xff\x0f", 1))
    )
    yield one("zeros", raw(lambda data: bytes(100_000)))
    yield one("groups without end", raw(lambda data: b"\x0b" * 100_000))
    yield one("no input", edited(lambda m: m.graph.ClearField("input")))
    yield one("no output", edited(lambda m: m.graph.ClearField("output")))
    yield one("no nodes", edited(lambda m: m.graph.ClearField("node")))
    yield one("no graph", edited(lambda m: m.ClearField("graph")))
    yield one("no weights", edited(lambda m: m.graph.ClearField("initializer")))
    yield one("an unknown node", edited(node("Nothing")))
    yield one("a node of another maker", edited(node("Run", "com.nobody")))
    yield one("a node that feeds itself", edited(lambda m: m.graph.node[0].input.__setitem__(0, "logits")))
    yield one("an operation set of the future", edited(lambda m: setattr(m.opset_import[0], "version", 9999)))
    yield one("a version of the future", edited(lambda m: setattr(m, "ir_version", 9999)))
    yield one("weights in another folder", edited(elsewhere("../outside/secret.png", 6)))
    yield one("weights at an absolute path", edited(elsewhere("/etc/passwd")))
    yield one("weights in a file that is not there", edited(elsewhere("none.bin")))
    yield one("weights at an address", edited(elsewhere("http://127.0.0.1:1/x")))
    yield one("weights of another size", edited(lambda m: setattr(weight(m), "raw_data", b"\0" * 7)))
    yield one("weights of a terabyte", edited(lambda m: weight(m).dims.__setitem__(0, 10**11)))
    yield one("weights of a negative size", edited(lambda m: weight(m).dims.__setitem__(0, -4)))
    yield one("weights of an unknown type", edited(lambda m: setattr(weight(m), "data_type", 99)))
    yield one(
        "an input of words", edited(lambda m: setattr(m.graph.input[0].type.tensor_type, "elem_type", 8))
    )
    yield one(
        "an input of bytes", edited(lambda m: setattr(m.graph.input[0].type.tensor_type, "elem_type", 2))
    )
    yield one("an input of three axes", edited(lambda m: m.graph.input[0].type.tensor_type.shape.dim.pop()))
    yield one("one more input", edited(lambda m: m.graph.input.append(_renamed(m.graph.input[0]))))
    yield one("outputs of one axis", edited(node("Flatten", axis=0)), Refused("logits"))
    yield one("outputs that are not numbers", edited(node("Log")), Refused("not finite"))
    yield one("outputs of integers", edited(node("Cast", to=7)))
    yield one("outputs of words", edited(node("Cast", to=8)))
    yield one(
        "outputs without pixels", edited(node("ReduceMean", axes=[2, 3], keepdims=0)), Refused("logits")
    )
    yield one("a constant of 400 GB", edited(_huge))


def _renamed(value: Any) -> Any:
    copied = type(value)()
    copied.CopyFrom(value)
    copied.name = "other"
    return copied


CASES = list(_cases())

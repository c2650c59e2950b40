"""Cards, in an ONNX file that the command opens."""

from __future__ import annotations

import copy
import functools
import json
from collections.abc import Callable, Iterator
from typing import Any

from hostile.cases import Case, Place, Refused, Right, accepted, encoded, flat, segmented

LEFT = ("out/*.png",)


@functools.cache
def whole() -> dict[str, Any]:
    from pixelwise.inference.preprocess import Preprocess
    from tiny import CARD

    card = CARD.replace(preprocess=Preprocess(mean=(0, 0, 0), std=(1, 1, 1), multiple=2))
    content: dict[str, Any] = json.loads(card.to_json())
    return content


def with_card(text: str) -> Callable[[Place], None]:
    """The model of `tiny.py` with this for a card, and a picture."""

    def make(place: Place) -> None:
        import onnx

        from pixelwise.weights.card import CARD_KEY
        from tiny import write_colors_model

        model = onnx.load(str(write_colors_model(place.folder / "colors.onnx", None)))
        model.metadata_props.add(key=CARD_KEY, value=text)
        onnx.save(model, str(place.folder / "colors.onnx"))
        place.write("x.png", encoded(flat((255, 0, 0)), "PNG"))

    return make


def changed(*path: Any, to: Any) -> str:
    content = copy.deepcopy(whole())
    where: Any = content
    for key in path[:-1]:
        where = where[key]
    where[path[-1]] = to
    return json.dumps(content)


def without(key: str) -> str:
    return json.dumps({name: value for name, value in whole().items() if name != key})


def _cases() -> Iterator[Case]:
    def one(name: str, make: Callable[[], str], right: Right | None = None) -> Case:
        right = right or Refused(r"card|colors\.onnx")
        return Case(name, lambda place: with_card(make())(place), segmented("x.png"), right, LEFT)

    good = accepted("red 100.0%")
    yield one("whole", lambda: json.dumps(whole()), good)
    yield one("spaces and lines between", lambda: json.dumps(whole(), indent=8), good)
    yield one("scores that were not measured", lambda: changed("scores", to=[]), good)
    yield one("nothing in it", lambda: " ")
    yield one("no JSON", lambda: "{")
    yield one("a number", lambda: "7")
    yield one("nothing", lambda: "null")
    yield one("a list", lambda: "[]")
    yield one("nested without end", lambda: "[" * 100_000)
    yield one("a key that nobody knows", lambda: json.dumps({**whole(), "colour": 1}))
    for key in ("name", "labels", "preprocess", "stride", "parameters"):
        yield one(f"no {key}", lambda key=key: without(key))
    yield one("fewer classes than outputs", lambda: _labels(names=["a"], colors=[[0, 0, 0]], ids=[0]))
    yield one("one name twice", lambda: _labels(names=["a", "a", "b", "c"]))
    yield one("names that are numbers", lambda: _labels(names=[1, 2, 3, 4]))
    yield one("names that are a word", lambda: _labels(names="abcd"))
    control = accepted(r"r\\x1b\[31med\\n 100.0%")  # escaped where it is printed
    yield one(
        "names with control characters", lambda: _labels(names=["dark", "r\x1b[31med\n", "g", "b"]), control
    )
    yield one("one id twice", lambda: _labels(ids=[0, 1, 1, 2]))
    yield one("a negative id", lambda: _labels(ids=[-1, 0, 1, 2]))
    yield one("an id of a fraction", lambda: _labels(ids=[0, 1.5, 2, 3]))
    yield one("an id beyond any number", lambda: _labels(ids=[0, 1, 2, 10**400]))
    yield one("an id of ten billion", lambda: _labels(ids=[0, 1, 2, 10**10]), Refused("card|65535"))
    yield one("an id of three billion", lambda: _labels(ids=[0, 1, 2, 3 * 10**9]), Refused("card|65535"))
    yield one("colours out of range", lambda: _labels(colors=[[0, 0, 300]] * 4))
    yield one("colours of two numbers", lambda: _labels(colors=[[0, 0]] * 4))
    yield one("ids that are a number", lambda: _labels(ids=7))
    yield one("an ignored class", lambda: _labels(ignore_id=1))
    yield one("an ignored word", lambda: _labels(ignore_id="none"))
    yield one("a negative ignored id", lambda: _labels(ignore_id=-1))
    yield one("a stride of nothing", lambda: changed("stride", to=0))
    yield one("a stride of a fraction", lambda: changed("stride", to=2.5))
    yield one("another stride than the network's", lambda: changed("stride", to=4), good)
    yield one("means of two channels", lambda: _preprocess(mean=[0, 0]))
    yield one("means of words", lambda: _preprocess(mean=["a", "b", "c"]))
    yield one("means that are no numbers", lambda: _preprocess(mean=[float("nan")] * 3))
    yield one("deviations of nothing", lambda: _preprocess(std=[0, 0, 0]))
    yield one("a size without end", lambda: _preprocess(size=10**9), Refused("card"))
    yield one("a size beyond any number", lambda: _preprocess(size=10**400), Refused("card|resize rule"))
    yield one("a negative size", lambda: _preprocess(size=-5))
    yield one("a multiple of nothing", lambda: _preprocess(multiple=0))
    yield one("a multiple of ten billion", lambda: _preprocess(multiple=10**10), Refused("card"))
    yield one("outputs of an unknown kind", lambda: changed("outputs", to="none"))
    yield one("outputs of another kind", lambda: changed("outputs", to="binary"))
    yield one("corners that are a word", lambda: changed("align_corners", to="yes"))
    yield one("a number of parameters that is a word", lambda: changed("parameters", to="many"))
    yield one("a name of a megabyte", lambda: changed("name", to="a" * 1_000_000), good)
    yield one("scores that are a number", lambda: changed("scores", to=7))


def _labels(**changes: Any) -> str:
    return changed("labels", to={**whole()["labels"], **changes})


def _preprocess(**changes: Any) -> str:
    return changed("preprocess", to={**whole()["preprocess"], **changes})


CASES = list(_cases())

"""JSON that somebody else wrote: what is of its kind is read, all else is one sentence and no other exception."""

from __future__ import annotations

import json
import re
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import pixelwise
from pixelwise.errors import InputError
from pixelwise.untrusted import Between, Plain, fit, read


@dataclass(frozen=True)
class Inner:
    side: Annotated[int, Between(1, 8)]
    word: Literal["a", "b"] = "a"


@dataclass(frozen=True)
class Outer:
    name: str
    inner: Inner
    pair: tuple[int, float] = (1, 2.0)
    many: tuple[Inner, ...] = ()
    names: dict[str, Plain] = field(default_factory=dict)
    flag: bool | None = None
    score: Annotated[float, Between(nan=True)] = 0.0

    def __post_init__(self) -> None:
        if self.name == "wrong":
            raise InputError("this name goes with nothing")


WHOLE = {
    "name": "x", "inner": {"side": 3, "word": "b"}, "pair": [2, 3], "many": [{"side": 1}], "names": {"a": [1, None]},
    "flag": None,
}  # fmt: skip


def test_what_is_of_its_kind_becomes_the_dataclass():
    found = read(json.dumps(WHOLE), Outer, "this file")
    assert found == Outer("x", Inner(3, "b"), (2, 3), (Inner(1),), {"a": [1, None]}, None)
    assert fit(WHOLE | {"pair": (2, 3)}, Outer, "this") == found
    assert read(json.dumps(WHOLE).encode("utf-8-sig"), Outer, "this file") == found
    assert read("[[1], []]", list[list[int]], "this") == [[1], []]


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"name": 3}, r"name is 3, expected a text"),
        ({"name": "\ud800"}, "half a character"),
        ({"name": "wrong"}, "goes with nothing"),
        ({"inner": {"side": 9}}, r"inner\.side is 9, expected a whole number from 1 to 8"),
        ({"inner": {"side": True}}, r"inner\.side is True"),
        ({"inner": {"side": 3.0}}, r"inner\.side is 3\.0"),
        ({"inner": {}}, r"inner\.side is missing"),
        ({"inner": []}, r"inner is \[\], expected an object"),
        ({"inner": {"side": 1, "wrod": "a"}}, r"no 'wrod' in inner; did you mean 'word'"),
        ({"pair": [1]}, r"pair is \[1\], expected 2 values"),
        ({"pair": [1, float("nan")]}, r"pair\[1\] is nan, expected a number"),
        ({"pair": [1, 2**70]}, r"pair\[1\] is 1180591620717411303424, expected a number of at most 63 bits"),
        ({"pair": [2**63, 1]}, r"pair\[0\]"),
        ({"pair": "ab"}, r"pair is 'ab', expected a list"),
        (
            {"many": [{"side": 1}, {"side": 1, "word": "c"}]},
            r"many\[1\]\.word is 'c', expected one of 'a', 'b'",
        ),
        ({"names": {"a": float("inf")}}, r"names\.a is inf, expected finite numbers"),
        ({"flag": 1}, r"flag is 1, expected true or false"),
    ],
)
def test_what_is_not_is_told_by_its_place(changes: dict[str, Any], says: str):
    with pytest.raises(InputError, match=says) as caught:
        read(json.dumps(WHOLE | changes), Outer, "this file", advice="write it again")
    assert str(caught.value).startswith("this file cannot be read (")
    assert str(caught.value).endswith("); write it again")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (b"\xff", "no UTF-8 at byte 0"),
        ("", "no JSON"),
        ("{", "no JSON"),
        ("[" * 100_000, "nested too deeply"),
        ('{"name": "x", "name": "y"}', "the key 'name' is there twice"),
        ("1" * 5000, "no JSON"),
        (r'{"a": "\ud800"}', "half a character"),
        (r'{"a": "\uDC00"}', "half a character"),
        (r'{"a": ["\udfff"]}', "half a character"),
        ('{"a": "' + "x" * 200 + '"}', "more than 100 bytes"),
    ],
)
def test_texts_that_are_not_read_at_all(text: str | bytes, says: str):
    with pytest.raises(InputError, match=says):
        read(text, dict[str, Plain], "this", most=100 if "bytes" in says else 10**6)


def test_what_equals_an_expected_value_and_is_of_another_type_is_not_it():
    assert read("1", Literal[1, "a"], "this") == 1
    for text in ("true", "1.0"):
        with pytest.raises(InputError, match="expected one of 1, 'a'"):
            read(text, Literal[1, "a"], "this")


def test_a_file_is_read_no_further_than_its_limit_and_need_not_be_there(tmp_path):
    path = tmp_path / "x.json"
    with pytest.raises(InputError, match="there is no such file"):
        read(path, Outer, "x")
    path.write_text(json.dumps(WHOLE))
    assert read(path, Outer, "x").name == "x"
    with pytest.raises(InputError, match="more than 50 bytes"):
        read(path, Outer, "x", most=50)


def test_plain_values_are_not_nested_without_end_and_twins_are_found_at_once():
    deep: Any = 1
    for _ in range(40):
        deep = [deep]
    with pytest.raises(InputError, match="nested more than 32 deep"):
        fit({"a": deep}, dict[str, Plain], "this")
    with pytest.raises(InputError, match="twice"):
        read(
            "{" + ",".join(f'"k{i}": 1' for i in range(200_000)) + ', "k199999": 2}', dict[str, Plain], "this"
        )


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.just(10**400),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.sampled_from([*WHOLE, "side", "word", "z"]), inner, max_size=4)
    ),
    max_leaves=12,
)


@settings(max_examples=150, deadline=None)
@given(values, st.sampled_from([None, *WHOLE]))
def test_any_value_of_json_is_read_or_refused(value: Any, key: str | None):
    text = json.dumps(value if key is None else WHOLE | {key: value})
    for unknown in ("refuse", "leave"):
        with suppress(InputError):
            assert type(read(text, Outer, "this", unknown=unknown).inner.side) is int


OWN_WORDS = {
    "bench/contender.py",
    "checkpoints/saving.py",
    "checkpoints/smp/encoders.py",
    "selftest/checks.py",
}
"""Where JSON is parsed that the very same code has written a moment before."""


def test_json_of_others_is_parsed_in_one_place():
    root = Path(pixelwise.__file__).parent
    files = [path for path in root.rglob("*.py") if re.search(r"json\w*\.loads?\(", path.read_text("utf-8"))]
    assert {path.relative_to(root).as_posix() for path in files} - OWN_WORDS == {"untrusted.py"}

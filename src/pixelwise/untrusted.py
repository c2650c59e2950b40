"""JSON that somebody else wrote, read against what it is to become, so that nothing in a file is taken on trust.

A kind is a dataclass, whose annotations say what each key holds, or an annotation alone: int, float, str, bool, None,
Literal, a union, list, tuple, dict, `Plain` or Any. Whatever does not fit is one sentence that names the place. Of
objects with a key twice none is right, lone surrogates cannot be written, and numbers that are not finite, or have more
than 63 bits, are allowed only where the kind says so.
"""

from __future__ import annotations

import json
import math
import os
import re
import reprlib
import types
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import MISSING, dataclass, fields, is_dataclass
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, Union, cast, get_args, get_origin, get_type_hints

from pixelwise.errors import InputError, PixelwiseError, suggest

T = TypeVar("T")

MAX_BYTES = 2**24
"""Of a text; the configuration of 150 classes has 10 KB."""

MAX_DEPTH = 32
"""Of `Plain` values inside each other."""

LARGEST = 2**63 - 1
"""The largest whole number, unless a kind says otherwise."""

SHORT = reprlib.Repr()
SHORT.maxlist = SHORT.maxtuple = SHORT.maxdict = 8
SHORT.maxlevel = 3
SHORT.maxstring = SHORT.maxother = SHORT.maxlong = 60
"""Of values in sentences."""


@dataclass(frozen=True)
class Between:
    """In `Annotated[int, Between(1, 8)]`: which numbers. nan: floats need not be finite."""

    least: float = -LARGEST
    most: float = LARGEST
    nan: bool = False


class _Plain:
    """The mark of `Plain`."""


Plain = Annotated[Any, _Plain]
"""Any value of JSON that can be handed on: looked at all the way down, at most `MAX_DEPTH` deep."""


Sizes = Annotated[Any, _Plain, Between(-(2**16), 2**16)]
"""The same for arguments of networks, whose whole numbers are small."""


class _Misfit(Exception):
    """A value that is not of its kind, in words."""


def read(
    source: str | bytes | Path,
    kind: type[T],
    what: str,
    *,
    advice: str = "",
    error: type[PixelwiseError] = InputError,
    most: int = MAX_BYTES,
    unknown: Literal["refuse", "leave"] = "refuse",
    surrogates: bool = False,
) -> T:
    """The value of that kind in a text of JSON, UTF-8, or in a file of it.

    what: what it is called in the error, whose class is `error`; advice: ends it. most: bytes that it may have.
    unknown: what is done with keys that a dataclass does not know. surrogates: they are allowed, as names of files that
    are no UTF-8 have them.
    """
    try:
        return _fit(_parsed(_text(source, most), surrogates), kind, "", unknown)  # type: ignore[no-any-return]
    except _Misfit as misfit:
        raise error(f"{what} cannot be read ({misfit}){advice and '; '}{advice}") from misfit


def fit(
    values: Any,
    kind: type[T],
    what: str,
    *,
    advice: str = "",
    error: type[PixelwiseError] = InputError,
    unknown: Literal["refuse", "leave"] = "refuse",
) -> T:
    """The same for what is no text any more: a dictionary of a dataclass, tuples as well as lists."""
    try:
        return _fit(values, kind, "", unknown)  # type: ignore[no-any-return]
    except _Misfit as misfit:
        raise error(f"{what} cannot be read ({misfit}){advice and '; '}{advice}") from misfit


def _text(source: str | bytes | Path, most: int) -> str:
    if isinstance(source, os.PathLike):
        try:
            if not source.is_file():
                raise _Misfit("there is no such file")
            with open(source, "rb") as file:
                # read(n) takes n bytes of memory before it knows how many there are
                source = file.read(min(most, os.fstat(file.fileno()).st_size) + 1)
        except (OSError, ValueError) as error:  # ValueError: a name that no file can have
            raise _Misfit(getattr(error, "strerror", None) or str(error)) from error
    if len(source) > most:
        raise _Misfit(f"it has more than {most:,} bytes")
    if isinstance(source, str):
        return source
    try:
        return source.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise _Misfit(f"it is no UTF-8 at byte {error.start}") from error


def _parsed(text: str, surrogates: bool) -> Any:
    try:
        values = json.loads(text, object_pairs_hook=_once)
    except RecursionError as error:
        raise _Misfit("it is nested too deeply") from error
    except ValueError as error:  # also for numbers of thousands of digits
        raise _Misfit(f"it is no JSON: {str(error).splitlines()[0]}") from error
    if not surrogates and re.search(r"\\u[dD][89a-fA-F]|[\ud800-\udfff]", text):
        for one in _strings(values):
            if re.search(r"[\ud800-\udfff]", one):
                raise _Misfit(f"{SHORT.repr(one)} holds half a character")
    return values


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) != len(pairs):
        raise _Misfit(f"the key {SHORT.repr(first_twice(key for key, _ in pairs))} is there twice")
    return values


def first_twice(values: Iterable[T]) -> T:
    """The first value that came before; StopIteration if there is none."""
    seen: set[T] = set()
    return next(value for value in values if value in seen or seen.add(value))  # type: ignore[func-returns-value]


def _strings(values: Any) -> Iterator[str]:
    """All of them, keys as well."""
    todo = [values]
    while todo:
        one = todo.pop()
        if isinstance(one, str):
            yield one
        elif isinstance(one, dict):
            todo += [*one, *one.values()]
        elif isinstance(one, list):
            todo += one


def _fit(value: Any, kind: Any, at: str, unknown: str) -> Any:
    marks: list[Any] = []
    if get_origin(kind) is Annotated:
        kind, *marks = get_args(kind)
    bounds = next((mark for mark in marks if isinstance(mark, Between)), Between())
    if kind is Any:
        return _plain(value, bounds, at) if _Plain in marks else value
    if is_dataclass(kind):
        return _object(value, cast(type, kind), at, unknown)
    origin, inner = get_origin(kind), get_args(kind)
    if origin in (Union, types.UnionType):
        return _one_of(value, inner, at, unknown)
    if origin is Literal:
        if any(type(value) is type(each) and value == each for each in inner):
            return value
        raise _misfit(at, "one of " + ", ".join(map(repr, inner)), value)
    if kind in (int, float):
        return _number(value, kind, bounds, at)
    if kind in (str, bool, None, type(None)):
        wanted = type(None) if kind is None else kind
        if type(value) is wanted:
            return value
        raise _misfit(at, {str: "a text", bool: "true or false"}.get(wanted, "null"), value)
    if origin is tuple or origin is list:
        if not isinstance(value, (list, tuple)):
            raise _misfit(at, "a list", value)
        each = inner[0] if origin is list or inner[-1] is Ellipsis else None
        if each is None and len(value) != len(inner):
            raise _misfit(at, f"{len(inner)} values", value)
        kinds = inner if each is None else (each,) * len(value)
        return origin(
            _fit(v, k, f"{at}[{i}]", unknown) for i, (v, k) in enumerate(zip(value, kinds, strict=True))
        )
    if origin in (dict, Mapping):
        if not isinstance(value, Mapping) or not all(type(key) is str for key in value):
            raise _misfit(at, "an object of keys and values", value)
        return {key: _fit(v, inner[1], _under(at, key), unknown) for key, v in value.items()}
    raise AssertionError(f"a kind that no JSON becomes: {kind!r}")


def _object(value: Any, kind: type, at: str, unknown: str) -> Any:
    if isinstance(value, kind):
        return value
    if not isinstance(value, Mapping):
        raise _misfit(at, "an object of keys and values", value)
    hints = _hints(kind)
    for key in value:
        if key not in hints and unknown == "refuse":
            raise _Misfit(
                f"there is no {SHORT.repr(key)}{at and ' in '}{at}; {suggest(str(key)[:60], hints)}"
            )
    for name in sorted(_required(kind) - value.keys()):
        raise _Misfit(f"{_under(at, name)} is missing")
    given = {
        name: _fit(value[name], hint, _under(at, name), unknown)
        for name, hint in hints.items()
        if name in value
    }
    try:
        return kind(**given)
    except PixelwiseError as error:  # what does not go together
        raise _Misfit(str(error)) from error


def _one_of(value: Any, kinds: tuple[Any, ...], at: str, unknown: str) -> Any:
    misfits = []
    for kind in kinds:
        try:
            return _fit(value, kind, at, unknown)
        except _Misfit as misfit:
            misfits.append(misfit)
    of_shape = [misfit for misfit in misfits if not str(misfit).endswith("expected null")]
    raise (of_shape or misfits)[0]


def _number(value: Any, kind: type, bounds: Between, at: str) -> Any:
    fits = type(value) is int or (kind is float and type(value) is float)
    if fits and type(value) is float and not math.isfinite(value):
        fits, finite = bounds.nan, False
    else:
        finite = True
    if fits and (
        not finite or bounds.least <= value <= bounds.most or (bounds == Between() and kind is float)
    ):
        if type(value) is int and abs(value) > LARGEST:
            raise _misfit(at, "a number of at most 63 bits", value)
        return value
    said = "a whole number" if kind is int else "a number"
    if bounds != Between():
        said += f" from {bounds.least:g} to {bounds.most:g}"
    raise _misfit(at, said, value)


def _plain(value: Any, bounds: Between, at: str) -> Any:
    """The value as it is, if all of it is plain."""
    todo = [(value, 0)]
    while todo:
        one, depth = todo.pop()
        if depth > MAX_DEPTH:
            raise _Misfit(f"{at or 'it'} is nested more than {MAX_DEPTH} deep")
        if isinstance(one, Mapping):
            todo += [(inner, depth + 1) for inner in one.values()]
        elif isinstance(one, (list, tuple)):
            todo += [(inner, depth + 1) for inner in one]
        elif isinstance(one, float) and not math.isfinite(one):
            raise _misfit(at, "finite numbers", one)
        elif type(one) is int and not bounds.least <= one <= bounds.most:
            raise _misfit(at, f"whole numbers from {bounds.least:g} to {bounds.most:g}", one)
    return value


@cache
def _hints(kind: type) -> dict[str, Any]:
    hints = get_type_hints(kind, include_extras=True)
    return {each.name: hints[each.name] for each in fields(kind) if each.init}


@cache
def _required(kind: type) -> frozenset[str]:
    """The keys that have no default."""
    return frozenset(
        f.name for f in fields(kind) if f.init and f.default is MISSING and f.default_factory is MISSING
    )


def _under(at: str, key: str) -> str:
    return f"{at}.{key[:60]}" if at else key[:60]


def _misfit(at: str, expected: str, value: Any) -> _Misfit:
    return _Misfit(f"{at or 'it'} is {SHORT.repr(value)}, expected {expected}")

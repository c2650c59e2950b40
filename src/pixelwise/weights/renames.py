"""Renames: one table between somebody's names of tensors and ours, read in both directions."""

from __future__ import annotations

import re
from collections.abc import Mapping

from torch import Tensor

Tensors = dict[str, Tensor]


class Renames:
    """A table of (their pattern, our pattern), read in both directions; the first that matches a key wins.

    In a pattern {i} stands for a whole number, {i+1} or {i-1} for its neighbour, {name:a|b} for one of the
    given words, and {rest} for any tail; the same names occur on both sides. A key that no pattern matches is
    returned as None.

    >>> table = Renames(("block{i}.norm.{rest}", "stages.{i-1}.norm.{rest}"))
    >>> table.to_ours("block2.norm.weight"), table.to_theirs("stages.1.norm.weight")
    ('stages.1.norm.weight', 'block2.norm.weight')
    """

    def __init__(self, *pairs: tuple[str, str]) -> None:
        self.pairs = pairs
        self._there = [(_Pattern(theirs), _Pattern(ours)) for theirs, ours in pairs]

    def to_ours(self, key: str) -> str | None:
        return next((b.fill(v) for a, b in self._there if (v := a.match(key)) is not None), None)

    def to_theirs(self, key: str) -> str | None:
        return next((a.fill(v) for a, b in self._there if (v := b.match(key)) is not None), None)


class _Pattern:
    _field = re.compile(r"\{(\w+)([+-]\d+)?(?::([^}]*))?\}")

    def __init__(self, text: str) -> None:
        self._parts: list[tuple[str, int] | str] = []
        regex, end = "", 0
        for found in self._field.finditer(text):
            regex += re.escape(text[end : found.start()])
            self._parts.append(text[end : found.start()])
            name, shift, words = found.groups()
            inner = words or (r".*" if name == "rest" else r"\d+")
            regex += f"(?P<{name}>{inner})"
            self._parts.append((name, int(shift or 0)))
            end = found.end()
        self._parts.append(text[end:])
        self._regex = re.compile(regex + re.escape(text[end:]))

    def match(self, key: str) -> dict[str, str] | None:
        found = self._regex.fullmatch(key)
        if found is None:
            return None
        shifts = {part[0]: part[1] for part in self._parts if not isinstance(part, str)}
        return {n: str(int(v) - shifts[n]) if shifts[n] else v for n, v in found.groupdict().items()}

    def fill(self, values: Mapping[str, str]) -> str:
        return "".join(
            part
            if isinstance(part, str)
            else str(int(values[part[0]]) + part[1])
            if part[1]
            else values[part[0]]
            for part in self._parts
        )


def rename(tensors: Tensors, table: Renames, *, back: bool = False) -> Tensors:
    """All tensors under new names; raises KeyError, with the key, for one that the table does not know."""
    renamed: Tensors = {}
    for key, tensor in tensors.items():
        new = table.to_theirs(key) if back else table.to_ours(key)
        if new is None:
            raise KeyError(key)
        renamed[new] = tensor
    return renamed

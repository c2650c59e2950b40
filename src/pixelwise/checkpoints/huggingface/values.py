"""Values of somebody's JSON, each asked for by key and kind, so that nothing in a file is taken on trust."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn

from pixelwise import untrusted
from pixelwise.errors import WeightsError
from pixelwise.untrusted import SHORT, Plain

MOST = 2**16
"""The largest whole number that a configuration may hold."""


class Values:
    """The values of a JSON object, asked for by key and kind; WeightsError, which names the key, for any other kind."""

    def __init__(self, values: Mapping[str, Any], where: Path, prefix: str = "") -> None:
        self.values, self.where, self.prefix = values, where, prefix

    def __contains__(self, key: str) -> bool:
        return self.values.get(key) is not None

    def refuse(self, key: str, expected: str) -> NoReturn:
        said = SHORT.repr(self.values.get(key))
        raise WeightsError(f"{self.where} says {self.prefix}{key}={said}, expected {expected}")

    def whole(self, key: str, default: int, *, least: int = 1, most: int = MOST) -> int:
        value = self.values.get(key, default)
        if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
            self.refuse(key, f"a whole number from {least} to {most}")
        return value

    def number(self, key: str, default: float, *, least: float = 0.0, most: float = float(MOST)) -> float:
        value = self.values.get(key, default)
        if not is_number(value) or not least <= value <= most:
            self.refuse(key, f"a number from {least:g} to {most:g}")
        return float(value)

    def share(self, key: str, default: float) -> float:
        """A probability of dropping something."""
        value = self.number(key, default, most=1.0)
        if value == 1:
            self.refuse(key, "a probability below 1")
        return value

    def flag(self, key: str, default: bool) -> bool:
        value = self.values.get(key, default)
        if not isinstance(value, bool):
            self.refuse(key, "true or false")
        return value

    def wholes(self, key: str, default: tuple[int, ...], count: int | None = 4) -> tuple[int, ...]:
        """Whole numbers from 1 up; count: how many, None for any number of them."""
        value = self.values.get(key, default)
        fits = isinstance(value, (list, tuple)) and (len(value) == count if count else 1 <= len(value) <= 64)
        if not fits or any(
            isinstance(v, bool) or not isinstance(v, int) or not 1 <= v <= MOST for v in value
        ):
            amount = f"{count} whole numbers" if count else "a list of whole numbers"
            self.refuse(
                key, f"{amount} from 1 to {MOST}" + (", as there are four stages here" if count == 4 else "")
            )
        return tuple(value)

    def numbers(
        self, key: str, default: tuple[float, ...], count: int, *, single: bool = False
    ) -> tuple[float, ...]:
        """Numbers; single: one may stand for all."""
        value = self.values.get(key, default)
        if single and is_number(value):
            value = [value] * count
        if not isinstance(value, (list, tuple)) or len(value) != count or not all(map(is_number, value)):
            self.refuse(key, f"{count} numbers")
        return tuple(float(v) for v in value)

    def word(self, key: str, default: str, known: Mapping[str, str]) -> str:
        value = self.values.get(key, default)
        if not isinstance(value, str) or value not in known:
            self.refuse(key, f"one of {', '.join(known)}")
        return known[value]

    def only(self, key: str, value: Any, why: str) -> None:
        """Refuse anything but this one value."""
        said = self.values.get(key, value)
        if type(said) is not type(value) or said != value:
            self.refuse(key, f"{SHORT.repr(value)}: {why}")

    def side(self, key: str, default: int) -> int:
        """One whole number, or two equal ones."""
        value = self.values.get(key, default)
        if isinstance(value, list) and len(value) == 2 and value[0] == value[1]:
            value = value[0]
        if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= MOST:
            self.refuse(key, f"a whole number from 1 to {MOST}, or two equal ones")
        return value


def is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def read_values(path: Path) -> dict[str, Any]:
    """The object in a JSON file; WeightsError for anything else."""
    return untrusted.read(path, dict[str, Plain], str(path), error=WeightsError)

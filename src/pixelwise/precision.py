"""Precisions by name: what a network computes in. What goes in and comes out is float32."""

from __future__ import annotations

from typing import Literal, TypeAlias, get_args

Precision: TypeAlias = Literal["float32", "bfloat16", "float16", "int8"]

PRECISIONS: tuple[Precision, ...] = get_args(Precision)

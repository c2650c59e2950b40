"""Family: one way of naming a network's tensors, and the way to our names and back.

A file in `families/` holds Family objects. `pixelwise.from_checkpoint` asks each of FAMILIES whether its marks are
among the keys, lets the right one say which network they belong to, rename, and loads with nothing missing or left
over.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from pixelwise.weights.origin import Origin
from pixelwise.weights.renames import Tensors


@dataclass(frozen=True)
class Family:
    """One source's naming of one architecture.

    name: "source.architecture", such as "nvlabs.segformer". says: the same for people. marks: fnmatch patterns,
    each of which some key of every such file matches, and which together no other family has. plan: reads the
    network's variant, classes and input channels off names and shapes. to_ours: their tensors to a state dict
    of our network (nothing left over but what `drops` matches). to_theirs: the way back, or None. drops:
    fnmatch patterns of keys that such files may hold and our network does not need.
    """

    name: str
    says: str
    marks: tuple[str, ...]
    plan: Callable[[Tensors], Origin]
    to_ours: Callable[[Tensors], Tensors]
    to_theirs: Callable[[Tensors], Tensors] | None = None
    drops: tuple[str, ...] = ()

    def matches(self, keys: Mapping[str, Any]) -> int:
        """How many of the marks are among the keys."""
        return sum(any(fnmatch.fnmatchcase(key, mark) for key in keys) for mark in self.marks)

    def needed(self, tensors: Tensors) -> Tensors:
        """The tensors without those that such files may hold and our network does not need."""
        return {k: t for k, t in tensors.items() if not any(fnmatch.fnmatchcase(k, d) for d in self.drops)}

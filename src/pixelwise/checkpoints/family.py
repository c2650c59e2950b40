"""Family: one way of naming a network's tensors, and the way to our names and back.

A file in `families/` holds Family objects. `pixelwise.from_checkpoint` asks each of FAMILIES whether its marks are
among the keys, lets the right one read them (which network, and its tensors under our names), builds that, and loads
with nothing missing or left over.
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from pixelwise.errors import PixelwiseError, WeightsError
from pixelwise.weights.origin import Origin
from pixelwise.weights.renames import Tensors


@dataclass(frozen=True)
class Family:
    """One source's naming of one architecture.

    name: "source.architecture", such as "nvlabs.segformer". says: the same for people. marks: fnmatch patterns,
    each of which some key of every such file matches, and which together no other family has. read: their tensors,
    less what `drops` matches, to the network's origin (variant, classes and input channels, read off names and shapes)
    and its state dict under our names, with nothing left over; KeyError, IndexError or StopIteration for a key that is
    missing or has no place. to_theirs: the way back, or None. drops: fnmatch patterns of keys that such files may hold
    and our network does not need.
    """

    name: str
    says: str
    marks: tuple[str, ...]
    read: Callable[[Tensors], tuple[Origin, Tensors]]
    to_theirs: Callable[[Tensors], Tensors] | None = None
    drops: tuple[str, ...] = ()

    def matches(self, keys: Mapping[str, Any]) -> int:
        """How many of the marks are among the keys."""
        return sum(among(mark, keys) for mark in self.marks)

    def interpret(self, tensors: Tensors) -> tuple[Origin, Tensors]:
        """`read`, without what `drops` matches; WeightsError, which names it, for a key that `read` cannot place."""
        needed = {k: t for k, t in tensors.items() if not any(fnmatch.fnmatchcase(k, d) for d in self.drops)}
        try:
            return self.read(needed)
        except (KeyError, IndexError, StopIteration) as error:
            what = str(error) or "a tensor"
            raise WeightsError(
                f"this looks like {self.says}, but {what} is missing or has no place there; nothing was loaded"
            ) from error
        except PixelwiseError:
            raise
        except (
            Exception
        ) as error:  # a tensor that is measured has other dimensions, a configuration other kinds
            raise WeightsError(
                f"this looks like {self.says}, but its tensors have other shapes ({error}); nothing was loaded"
            ) from error


def among(mark: str, keys: Mapping[str, Any]) -> bool:
    """Whether one of the keys matches the pattern; most patterns are plain names, which are looked up."""
    if not re.search(r"[*?[]", mark):
        return mark in keys
    return any(fnmatch.fnmatchcase(key, mark) for key in keys)

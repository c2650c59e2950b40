"""What the builders of the papers' networks have in common: checks of arguments, weights from a file, a name."""

from __future__ import annotations

import functools
import importlib
import inspect
from collections.abc import Callable
from typing import ParamSpec, TypeVar

from torch import nn

from pixelwise.errors import suggest

M = TypeVar("M", bound=nn.Module)
P = ParamSpec("P")


def builder(build: Callable[P, M]) -> Callable[P, M]:
    """Decorator of a function that makes a network from keywords.

    Its argument `weights`, None or the path of a checkpoint of any family we know, is dealt with here, so `build`
    itself leaves it alone. The network gets the function's name as `architecture`.

    Raises TypeError for an unknown argument, naming the nearest; ValueError for counts below 1; WeightsError for
    weights that do not fit.
    """
    name, known = build.__name__, list(inspect.signature(build).parameters)

    @functools.wraps(build)
    def call(*args: P.args, **kwargs: P.kwargs) -> M:
        if args:
            raise TypeError(f"{name}() takes its arguments by keyword: {', '.join(known)}")
        for key, value in kwargs.items():
            if key not in known:
                raise TypeError(f"{name}() has no argument {key!r}; {suggest(key, known)}")
            if key in ("num_classes", "in_channels") and not (isinstance(value, int) and value >= 1):
                raise ValueError(f"{key} must be a whole number from 1 up, got {value!r}")
        network = build(*args, **kwargs)
        network.architecture = name  # type: ignore[assignment]  # a plain attribute, not a parameter
        if kwargs.get("weights") is not None:
            importlib.import_module("pixelwise.weights.checkpoint").load_checkpoint(
                network, kwargs["weights"]
            )
        return network

    return call

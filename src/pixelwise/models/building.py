"""What the builders of the papers' networks have in common: checks of arguments, weights from files, their origin.

Here alone something points upwards: `weights=` and `weights_backbone=` are conveniences, and whoever knows the names
that others give to tensors stands above the networks. So `checkpoints` is imported by name, and only when asked for.
"""

from __future__ import annotations

import functools
import importlib
import inspect
import os
from collections.abc import Callable, Mapping
from numbers import Integral
from typing import Any, Concatenate, ParamSpec, TypeVar

from torch import nn

from pixelwise.catalog import CATALOG
from pixelwise.errors import WeightsError, refuse_unknown
from pixelwise.weights.origin import note_origin
from pixelwise.weights.store import is_path

M = TypeVar("M", bound=nn.Module)
P = ParamSpec("P")


def builder(build: Callable[P, M]) -> Callable[P, M]:
    """Decorator of a function that makes a network from keywords.

    Its argument `weights`, None or a checkpoint of any family we know (its path, or its names and tensors), is dealt
    with here, so `build` itself leaves it alone. How the network was made is noted on it (`weights.origin`).

    Raises TypeError for an unknown argument, naming the nearest; ValueError for counts below 1; WeightsError for
    weights that do not fit.
    """
    name, known = build.__name__, list(inspect.signature(build).parameters)

    @functools.wraps(build)
    def call(*args: P.args, **kwargs: P.kwargs) -> M:
        if args:
            raise TypeError(f"{name}() takes its arguments by keyword: {', '.join(known)}")
        refuse_unknown(f"{name}() has no argument", kwargs, known)
        for key, value in kwargs.items():
            if key in ("num_classes", "in_channels"):
                if isinstance(value, bool) or not isinstance(value, Integral) or value < 1:
                    raise ValueError(f"{key} must be a whole number from 1 up, got {value!r}")
                kwargs[key] = int(value)
        weights = kwargs.get("weights")
        refuse_name(name, weights)
        network = build(*args, **kwargs)
        note_origin(network, name, kwargs)
        if weights is not None and weights is not False:
            checkpoints = importlib.import_module("pixelwise.checkpoints.loading")
            checkpoints.load_checkpoint(network, weights)
        return network

    return call


def refuse_name(builder: str, weights: Any) -> None:
    """WeightsError, with the way to the official files, for weights that are asked for by a name ("DEFAULT", True): of
    these networks none can be fetched."""
    if weights is None or weights is False or isinstance(weights, Mapping) or is_path(weights):
        return
    if isinstance(weights, str) and os.path.exists(weights):
        return
    known = CATALOG.get(builder)
    raise WeightsError(
        f"{builder} has no weights that can be fetched by name, so weights= takes the path of a file, or None for "
        f"random ones; got {weights!r}" + ("" if known is None else f": {known.way}")
    )


def variant(family: Callable[Concatenate[str, P], M], name: str, says: str) -> Callable[P, M]:
    """The builder `name` of a family: all its rows have one signature, one docstring and one body.

    family: a function whose first parameter is the row's name; the others, by keyword, are the builder's. says: one
    sentence about this row, which begins its docstring; the family's follows.
    """
    return builder(named(family, name, says))


def named(family: Callable[Concatenate[str, P], M], name: str, says: str) -> Callable[P, M]:
    """The function `name` that hands its name and its arguments to `family`; see `variant`."""
    row, *shared = inspect.signature(family).parameters.values()

    @functools.wraps(family)
    def build(*args: P.args, **kwargs: P.kwargs) -> M:
        return family(name, *args, **kwargs)

    build.__name__ = build.__qualname__ = name
    build.__doc__ = f"{says}\n\n{inspect.getdoc(family) or ''}"
    build.__annotations__ = {key: kind for key, kind in family.__annotations__.items() if key != row.name}
    vars(build)["__signature__"] = inspect.signature(family).replace(parameters=shared)
    return build


def with_encoder_weights(encoder: M, kind: str, weights: Any, *, progress: bool = True) -> M:
    """The encoder, filled with ImageNet weights unless they are None or False.

    kind: a key of `checkpoints.backbones.ENCODERS`. weights: the path of a file of any family that fits it, a
    dictionary of names and arrays, or a member, or its name, of torchvision's weights where it has this encoder.
    """
    if weights is not None and weights is not False:
        backbones = importlib.import_module("pixelwise.checkpoints.backbones")
        backbones.load_encoder(encoder, kind, weights, progress=progress)
    return encoder

"""Weights of encoders: where they come from, and how they meet another number of input channels."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

from pixelwise.errors import DownloadError, WeightsError, first_line
from pixelwise.layers import with_input_channels
from pixelwise.weights import store

Weights = bool | str | os.PathLike[str] | Mapping[str, Any] | None
"""None or False: random. True: the usual ones. Text: a tag, or the path of a file. A dictionary: the tensors."""


def tensors_of(weights: str | os.PathLike[str] | Mapping[str, Any]) -> tuple[dict[str, Tensor], str]:
    """The tensors of a file or dictionary, and what to call them in an error."""
    if isinstance(weights, Mapping):
        return store.unwrap(weights, "the dictionary"), "the given weights"
    if not os.path.exists(weights):
        raise WeightsError(f"there is no file {os.fspath(weights)!r}, and no weights of that name are known")
    return store.load_state_dict(weights), f"the weights {os.fspath(weights)}"


def for_input_channels(tensors: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors, with filters over red, green and blue shared out to as many channels as `own` has there.

    SMP's rule, `pixelwise.layers.with_input_channels`. Only filters that differ in that number alone are touched.
    """
    adapted = dict(tensors)
    for key, tensor in tensors.items():
        shape = own[key].shape if key in own else tensor.shape
        if tensor.ndim == 4 and tensor.shape != shape and tensor.shape[1] == 3:
            out, _, h, w = tensor.shape
            if tuple(shape) == (out, shape[1], h, w):
                conv = nn.Conv2d(3, out, (h, w), bias=False)
                conv.weight = nn.Parameter(tensor)
                adapted[key] = with_input_channels(conv, shape[1]).weight.detach()
    return adapted


@contextmanager
def fetching(what: str) -> Iterator[None]:
    """Errors of the Hub's client become one of ours, which says what to do."""
    try:
        yield
    except DownloadError:
        raise
    except (OSError, RuntimeError) as error:  # the client's own are OSErrors; timm's are RuntimeErrors
        line = first_line(error)
        offline = " (HF_HUB_OFFLINE is set)" if os.environ.get("HF_HUB_OFFLINE") else ""
        raise DownloadError(
            f"{what} could not be fetched{offline}: {line}; pass weights=None for random ones, or the path of a file"
        ) from error

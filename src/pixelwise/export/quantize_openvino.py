"""Quantize for OpenVINO: NNCF with accuracy control, which puts layers back to float until the agreement holds."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from pixelwise.errors import InputError, first_line
from pixelwise.export.openvino import save
from pixelwise.silent import openvino
from pixelwise.weights.card import Card

import nncf  # isort: skip  # after pixelwise.silent

Run: TypeAlias = Callable[[NDArray[np.float32]], NDArray[np.float32]]
"""From what the network sees, (1, c, h, w), to coarse logits."""


def write_int8(
    source: Path,
    images: Sequence[NDArray[np.float32]],
    numbers: Sequence[int],
    agreements: Callable[[Run, Sequence[int]], list[float]],
    asked: float,
    card: Card,
    path: Path,
) -> None:
    """Write the model of OpenVINO's own file `source` in int8 as `path`, and its weights beside it.

    images: what ranges are measured on. numbers: of the pictures that the agreement is measured on; agreements: of a
    network, the share of equal pixels in each of them. asked: how large their mean is to be. The card gets the
    precision float32 where every layer went back to it. Raises InputError for a model that NNCF does not take.
    """
    nncf.set_log_level(logging.ERROR)

    def validate(compiled: Any, data: Iterable[int]) -> tuple[float, list[float]]:
        found = agreements(lambda image: np.asarray(compiled([image])[0], np.float32), list(data))
        return float(np.mean(found)), found

    try:
        model = openvino.Core().read_model(source)
        made = nncf.quantize_with_accuracy_control(
            model,
            nncf.Dataset(list(images)),
            nncf.Dataset(list(numbers)),
            validate,
            max_drop=1 - asked,
            subset_size=len(images),
        )
        in_int8 = any(node.get_type_name() == "FakeQuantize" for node in made.get_ops())
        save(made, card.replace(precision="int8" if in_int8 else "float32"), path)
    except Exception as error:  # NNCF raises whatever it meets
        raise InputError(f"NNCF cannot quantise {card.name} ({first_line(error)})") from error

"""OpenVINO's own files: an .xml with the graph and the card, and a .bin with the weights beside it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import onnx

from pixelwise.errors import ExportError, first_line
from pixelwise.export import winograd
from pixelwise.silent import openvino
from pixelwise.weights.card import IR_CARD_KEY, IR_WEIGHTS_KEY, Card
from pixelwise.weights.store import digest


def write_openvino(source: Path, card: Card, path: Path, *, halved: bool = False) -> None:
    """Write the ONNX file `source` as `path`, which ends in .xml, and its weights beside it; any size stays any size.

    Convolutions that were rewritten for ONNX Runtime are put back. halved: weights in float16; OpenVINO does so by
    itself unless it is told not to. Raises ExportError for a network that OpenVINO cannot
    take.
    """
    network = onnx.load(source)
    try:
        if winograd.restore(network):
            source = path.with_suffix(".onnx")
            onnx.save(network, source)
        save(openvino.convert_model(source), card, path, halved=halved)
    except ExportError:
        raise
    except Exception as error:  # all of OpenVINO's are RuntimeErrors
        raise ExportError(f"{card.name} cannot be exported to OpenVINO: {first_line(error)}") from error


def with_card(path: Path, card: Card, out: Path) -> Path:
    """The same model as `out`, with another card."""
    save(openvino.Core().read_model(path), card, out)
    return out


def save(model: Any, card: Card, path: Path, *, halved: bool = False) -> None:
    """Write OpenVINO's model as `path`, with its card and the SHA-256 of its weights, and those beside it."""
    model.set_rt_info(card.to_json(), [IR_CARD_KEY])
    openvino.save_model(model, path, compress_to_fp16=halved)
    weights = digest(path.with_suffix(".bin"))
    model.set_rt_info(weights, [IR_WEIGHTS_KEY])
    openvino.save_model(model, path, compress_to_fp16=halved)
    if digest(path.with_suffix(".bin")) != weights:
        raise ExportError(
            f"OpenVINO writes the weights of {card.name} differently each time; export it to ONNX, which OpenVINO runs"
        )

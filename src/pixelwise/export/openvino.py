"""OpenVINO's own files: an .xml with the graph and the card, and a .bin with the weights beside it."""

from __future__ import annotations

from pathlib import Path

import onnx

from pixelwise.errors import ExportError, first_line
from pixelwise.export import winograd
from pixelwise.silent import openvino
from pixelwise.weights.card import IR_CARD_KEY, Card


def write_openvino(source: Path, card: Card, path: Path, *, halved: bool = False) -> None:
    """Write the ONNX file `source` as `path`, which ends in .xml, and its weights beside it; any size stays any size.

    Convolutions that were rewritten for ONNX Runtime are put back. halved: weights in float16; OpenVINO does so by
    itself unless it is told not to. Raises ExportError for a network
    that OpenVINO cannot take.
    """
    network = onnx.load(source)
    try:
        if winograd.restore(network):
            source = path.with_suffix(".onnx")
            onnx.save(network, source)
        model = openvino.convert_model(source)
        model.set_rt_info(card.to_json(), [IR_CARD_KEY])
        openvino.save_model(model, path, compress_to_fp16=halved)
    except Exception as error:  # all of OpenVINO's are RuntimeErrors
        raise ExportError(f"{card.name} cannot be exported to OpenVINO: {first_line(error)}") from error


def with_card(path: Path, card: Card, out: Path) -> Path:
    """The same model as `out`, with another card."""
    model = openvino.Core().read_model(path)
    model.set_rt_info(card.to_json(), [IR_CARD_KEY])
    openvino.save_model(model, out, compress_to_fp16=False)
    return out

"""A network and its card to one ONNX file: `image` (n, 3, h, w) float32 in, coarse `logits` out, any n, h, w."""

from __future__ import annotations

import copy
import dataclasses
import logging
import math
import os
import warnings
from pathlib import Path
from typing import Any, cast

import onnx
import torch
from torch import Tensor, nn

from pixelwise.catalog import of_network
from pixelwise.errors import ExportError, InputError, first_line
from pixelwise.export import winograd
from pixelwise.export.parity import Parity, joined, parity_of, refuse_far
from pixelwise.files import writing
from pixelwise.foreign import as_network
from pixelwise.weights.card import CARD_KEY, Card

TOLERANCE = 1e-4
"""Largest difference in logits that an export may show, relative to the logits' range."""

TRACED_AT = (416, 448)
"""Size of the picture that is traced, unless another is asked for."""

CHECKED_AT = ((97, 130), (129, 529), (530, 97))
"""Sizes at which a file for any size is compared, unless others are asked for. Each side is once smaller and once
larger than what is traced, also where an encoder pads to multiples of up to 512."""


VOLUME_TRACED_AT = (32, 48, 64)
VOLUME_CHECKED_AT = ((48, 32, 32), (32, 64, 48))
"""The same of volumes (d, h, w), whose sides most networks halve four or five times."""


MOST_AT_THREE = 2**18
"""Voxels up to which a file is also compared at a batch of three, for the memory that they take."""


class Coarse(nn.Module):
    """The part of a network that is exported: the last enlargement is `decide`'s."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, image: Tensor) -> Tensor:
        return cast(Tensor, cast(Any, self.network).coarse(image))


def export_onnx(
    network: nn.Module,
    card: Card,
    path: str | os.PathLike[str],
    *,
    in_channels: int | None = None,
    traced_at: tuple[int, ...] | None = None,
    checked_at: tuple[tuple[int, ...], ...] | None = None,
    dynamic: bool = True,
    rewrite: bool = True,
    overwrite: bool = True,
) -> float:
    """Write a network's coarse logits and `card` to `path`; return the largest relative difference in logits seen.

    network: ours, or anyone's that `Segmenter` takes; it is not changed. Batch and sides are dynamic, in 2-D (h, w)
    and 3-D (d, h, w); with dynamic=False the batch alone is, and the file takes images of the size `traced_at`. It is
    checked against the network, with ONNX Runtime, at batches of three and one and at the sizes `checked_at`: None for
    `CHECKED_AT` (of a card with `volume`, `VOLUME_CHECKED_AT`), or for `traced_at` with dynamic=False. in_channels:
    None for as many as the card has means. Sizes that are not given are multiples as the card wants them. rewrite:
    large convolutions in a form that takes ONNX Runtime less time (`export.winograd`); False leaves them as they are.

    Raises InputError for a card that does not agree with the network; ExportError, leaving no file, when it fails or
    differs by more than TOLERANCE of the logits' range anywhere, or cannot be traced.
    """
    return write_onnx(
        network, card, path, in_channels=in_channels, traced_at=traced_at, checked_at=checked_at,
        dynamic=dynamic, rewrite=rewrite, overwrite=overwrite,
    ).gap  # fmt: skip


def write_onnx(
    network: nn.Module,
    card: Card,
    path: str | os.PathLike[str],
    *,
    in_channels: int | None = None,
    traced_at: tuple[int, ...] | None = None,
    checked_at: tuple[tuple[int, ...], ...] | None = None,
    dynamic: bool = True,
    rewrite: bool = True,
    overwrite: bool = True,
) -> Parity:
    """`export_onnx`, and all that was seen of the difference."""
    if not isinstance(card, Card):
        raise InputError(
            f"export_onnx takes a network, its card (pixelwise.Card.of) and a path, got {type(card).__name__} as a card"
        )
    network = as_network(
        network, card.preprocess, align_corners=card.align_corners, single=card.outputs != "exclusive"
    )
    card = of_network(card, network)
    in_channels = in_channels or len(card.preprocess.mean)
    fit = dataclasses.replace(card.preprocess, size=None).size_hw
    usual: tuple[int, ...] = VOLUME_TRACED_AT if card.volume is not None else fit(*TRACED_AT)
    if card.volume is not None and card.volume.whole is not None:  # whose windows are of one size
        usual, dynamic = card.volume.patch, False
    traced_at = traced_at or usual
    if checked_at is None and not dynamic:
        checked_at = (traced_at,)
    elif checked_at is None:
        of_pictures = tuple(fit(*size_hw) for size_hw in CHECKED_AT)
        checked_at = of_pictures if card.volume is None else VOLUME_CHECKED_AT
    source = copy.deepcopy(network).cpu().float().eval()
    with writing(path, overwrite=overwrite) as temporary:
        try:
            program = trace(source, torch.rand(2, in_channels, *traced_at), dynamic=dynamic)
        except Exception as error:  # the exporter raises whatever the tracer met
            said = f"{card.name} cannot be exported to ONNX: {_reason(error)}"
            if dynamic and "dynamic=False" not in said:
                said += "; try one size, with traced_at=(h, w), dynamic=False (--size H,W)"
            raise ExportError(said) from error
        model = program.model_proto  # made anew whenever it is asked for
        if rewrite:
            winograd.rewrite(model)
        _write(model, card, temporary)
        shapes = [(1, in_channels, *size) for size in checked_at]
        if card.volume is None or math.prod(checked_at[0]) <= MOST_AT_THREE:
            shapes.insert(0, (3, in_channels, *checked_at[0]))
        found = joined(_difference(card, source, temporary, shape) for shape in shapes)
        refuse_far(card.name, found, gap=TOLERANCE)
    return found


def trace(network: nn.Module, example: Tensor, *, dynamic: bool = True) -> Any:
    """`network.coarse` as a torch.onnx program in which the batch and, if `dynamic`, the sides are dynamic.

    example (n, c, ...) with n > 1: the tracer takes a 1 for a constant. So it does with what a layer makes of a side:
    the example should be so large that each map, and each grid of windows, has two pixels or more a side.
    """
    for noisy in ("torch.onnx", "torch.fx.experimental.symbolic_shapes"):
        logging.getLogger(noisy).setLevel(logging.ERROR)
    sides = dict.fromkeys((0, *range(2, example.ndim if dynamic else 2)), torch.export.Dim.DYNAMIC)
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # the exporter warns about itself
        return torch.onnx.export(
            Coarse(network),
            (example,),
            input_names=["image"],
            output_names=["logits"],
            dynamic_shapes=(sides,),
            dynamo=True,
            verbose=False,
        )


def _write(model: Any, card: Card, path: Path) -> None:
    """The model with its card, and without the exporter's notes on each node: file names of this machine."""
    graph = model.graph
    for part in (graph, *graph.node, *graph.input, *graph.output, *graph.value_info, *graph.initializer):
        part.ClearField("metadata_props")
        part.ClearField("doc_string")
    model.metadata_props.add(key=CARD_KEY, value=card.to_json())
    onnx.save(model, path)


def _difference(card: Card, source: nn.Module, path: Path, shape: tuple[int, ...]) -> Parity:
    import onnxruntime

    name = card.name
    image = torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape)))
    at = f"at a batch of {shape[0]} and " + "x".join(map(str, shape[2:]))
    try:
        with torch.no_grad():
            expected = cast(Any, source).coarse(image).numpy()
    except (RuntimeError, ValueError) as error:
        raise ExportError(
            f"the export of {name} cannot be checked {at}, where the network itself fails ({_reason(error)}); pass "
            "sizes that it takes as checked_at, or export it for one size: traced_at=(h, w), dynamic=False (--size H,W)"
        ) from error
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # what goes wrong is said below
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    try:
        (got,) = session.run(None, {"image": image.numpy()})
    except Exception as error:  # ONNX Runtime's exceptions share no base class of their own
        raise ExportError(
            f"the exported {name} fails {at} ({_reason(error)}), so no file was written; export it for one size with "
            "traced_at=(h, w), dynamic=False (--size H,W)"
        ) from error
    return parity_of(expected, got, card.outputs)


def _reason(error: BaseException) -> str:
    """The first line of what went wrong at the bottom of it; the exporter wraps it several times."""
    while error.__cause__ is not None:
        error = error.__cause__
    return first_line(error)

"""Any model to a file that runs without torch: `pixelwise export`."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from pixelwise.errors import InputError, MissingExtraError
from pixelwise.files import writing
from pixelwise.opening import NOTHING, Said, copy_of_asset, located, open_model, open_network
from pixelwise.weights.card import Card


def export_model(
    model: str | os.PathLike[str],
    out: str | os.PathLike[str],
    said: Said = NOTHING,
    *,
    size_hw: tuple[int, int] | None = None,
    overwrite: bool = False,
) -> str:
    """Write a model as ONNX with its card; returns a sentence that says what was done.

    model: the name, file or folder of whatever `Segmenter` opens; what is an ONNX file already is copied, without
    torch. out: a name that ends in .onnx. said: in place of what its card says. size_hw: the one size that the file is
    to take, for networks that cannot be exported for any.

    Raises InputError for what cannot be opened; ExportError, leaving no file, where the file would give other numbers
    than the network.
    """
    if Path(out).suffix.lower() != ".onnx":
        raise InputError(
            f"a model is exported as ONNX, expected a name that ends in .onnx, got {os.fspath(out)!r}"
        )
    as_it_is = said == NOTHING and size_hw is None
    if isinstance(model, str) and as_it_is and copy_of_asset(model, out, overwrite=overwrite):
        return "the file that ships in the package"
    where = located(model)
    if isinstance(where, Path) and where.suffix.lower() == ".onnx" and as_it_is:
        card = open_model(where, threads=1).card
        with writing(out, overwrite=overwrite) as temporary:
            shutil.copyfile(where, temporary)
        return f"the same file, of {card.labels.num_classes} classes{described(card)}"
    try:
        from pixelwise.export.onnx import export_onnx
    except ModuleNotFoundError as error:
        raise MissingExtraError("exporting", "torch") from error
    network, card = open_network(model, said)
    fixed = {} if size_hw is None else {"traced_at": size_hw, "dynamic": False}
    worst = export_onnx(network, card, out, overwrite=overwrite, **fixed)  # type: ignore[arg-type]
    return (
        f"{card.labels.num_classes} classes, {card.parameters:,} parameters, logits as the network's to {worst:.1e} of "
        f"their range{described(card)}"
    )


def described(card: Card) -> str:
    """The first names of a card's classes, to see that they are the right ones."""
    names = card.labels.names
    return f"; {', '.join(names[:5])}{', ...' if len(names) > 5 else ''}"

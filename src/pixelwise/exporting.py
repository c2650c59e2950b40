"""Any model to a file that runs without torch: `pixelwise export`."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from pixelwise.engines import Engine, open_engine
from pixelwise.errors import ExportError, InputError, MissingExtraError, UnknownNameError, first_line
from pixelwise.files import check_writable, held, sync, writing
from pixelwise.inference.preprocess import Preprocess
from pixelwise.opening import NOTHING, Said, copy_of_asset, located, open_model, open_network
from pixelwise.segmenter import Segmenter
from pixelwise.weights.beside import outside
from pixelwise.weights.card import CARD_KEY, Card

if TYPE_CHECKING:
    from pixelwise.export.parity import Parity

KINDS = {"onnx": ".onnx", "openvino": ".xml", "torch-export": ".pt2"}
"""What can be written, and how the names of such files end."""

FAR = {"float32": (1e-4, 1.0), "float16": (2e-2, 0.02)}
"""What weights can be written in, and how far logits (a share of their range) and classes (a share of the pixels) may
then be from the model's. The arithmetic stays float32."""

MAY_CHANGE = 1e-3
"""The share of the pixels to which a baked file may give another class than `Segmenter`: none, where arithmetic is that
of the processors that we know."""

CHECKED_AT = ((97, 130), (129, 529), (530, 97))
"""Sizes at which a file is compared with what it was made of."""


def export_model(
    model: str | os.PathLike[str],
    out: str | os.PathLike[str],
    said: Said = NOTHING,
    *,
    to: str | None = None,
    bake: bool = False,
    precision: str | None = None,
    size_hw: tuple[int, int] | None = None,
    overwrite: bool = False,
) -> str:
    """Write a model as a file with its card; returns a sentence that says what was done, and how far the file is from
    the model at three sizes.

    model: the name, file or folder of whatever `Segmenter` opens; an ONNX file that is to stay as it is is copied,
    without torch, and with weights that it keeps in other files written as one. out: a name that ends as KINDS says.
    said: in place of what its card says. to: a key of KINDS; None for the one that `out` ends in. bake: the whole way
    from picture to label map, see `export.bake`. precision: of the weights, a key of FAR; float16 halves the file.
    size_hw: the one size that the file is to take, for networks that cannot be exported for any.

    Raises InputError for what cannot be opened; ExportError, leaving no file, where the file would give other numbers
    than the model.
    """
    kind, precision = check_ending(out, to, KINDS), precision or "float32"
    if precision == "int8":
        if kind == "onnx" and not bake and said == NOTHING and isinstance(model, str):  # noqa: SIM102
            if copy_of_asset(model, out, overwrite=overwrite, precision="int8"):
                return "the file that ships in the package"
        raise InputError(
            "int8 is found with pictures of your own; quantise it: pixelwise quantize "
            f"{os.fspath(model)} --data DIR --out {Path(out).with_suffix('.onnx') if kind == 'torch-export' else out}"
        )
    if precision not in FAR:
        raise UnknownNameError("precision to export in", precision, (*FAR, "int8"))
    if bake and kind != "onnx":
        raise InputError(f"a baked file is ONNX, expected a name that ends in .onnx, got {os.fspath(out)!r}")
    for path in files_of(Path(out)):
        check_writable(path, overwrite=overwrite)
    if said == NOTHING and size_hw is None and not bake and precision == "float32":
        if kind == "onnx" and isinstance(model, str) and copy_of_asset(model, out, overwrite=overwrite):
            return "the file that ships in the package"
        where = located(model)
        if isinstance(where, Path) and where.suffix.lower() == KINDS[kind]:
            card = open_model(where, threads=1).card
            if kind == "onnx" and (names := outside(where)):
                _copy_as_one(where, Path(out), names, overwrite=overwrite)
                return f"the same model in one file, of {card.labels.num_classes} classes{described(card)}"
            copy(where, Path(out), overwrite=overwrite)
            return f"the same file, of {card.labels.num_classes} classes{described(card)}"
    try:
        import onnx  # noqa: F401
        import torch  # noqa: F401
    except ModuleNotFoundError as error:
        raise MissingExtraError("exporting", "torch") from error
    with TemporaryDirectory(prefix="pixelwise-") as folder:
        plain = kind == "onnx" and not bake and precision == "float32"
        if not plain:
            _refuse_volumes(model, said)
        if kind == "torch-export":
            made, card, told = _in_torch(model, said, size_hw, Path(folder), precision)
        else:
            source, card, before = as_onnx(model, said, size_hw, Path(folder))
        if kind == "onnx":
            made, told = _in_onnx(source, card, before, Path(folder), bake=bake, precision=precision)
        elif kind == "openvino":
            made, told = _in_openvino(source, card, before, Path(folder), precision=precision)
        copy(made, Path(out), overwrite=overwrite)
    parameters = f"{card.parameters:,} parameters, " if card.parameters else ""
    return f"{card.labels.num_classes} classes, {parameters}{told}{described(card)}"


def _refuse_volumes(model: str | os.PathLike[str], said: Said) -> None:
    """Raise InputError for a model of volumes, which is written as plain ONNX."""
    where = located(model)
    if isinstance(where, Path) and where.suffix.lower() in KINDS.values():
        card = open_model(where, said=said, threads=1).card
    elif isinstance(where, Path):
        card = open_network(where, said)[1]
    else:
        return
    card.refuse_volumes("any other file than plain ONNX in float32 (--out model.onnx)")


def check_ending(out: str | os.PathLike[str], to: str | None, kinds: Mapping[str, str]) -> str:
    """The kind of file that is to be written, of those kinds and their endings: `to`, or by the ending of `out`.
    InputError where the two do not agree."""
    if to is not None and to not in kinds:
        raise UnknownNameError("kind of file to export to", to, kinds)
    ending = Path(out).suffix.lower()
    kind = to or next((kind for kind, other in kinds.items() if other == ending), None)
    if kind is None or kinds[kind] != ending:
        endings = kinds[to] if to else " or ".join(f"{other} ({kind})" for kind, other in kinds.items())
        raise InputError(f"expected a name that ends in {endings}, got {os.fspath(out)!r}")
    return kind


def files_of(path: Path) -> list[Path]:
    """The files that a model in `path` consists of; of OpenVINO's the weights lie beside it."""
    return [path.with_suffix(".bin"), path] if path.suffix.lower() == ".xml" else [path]


def copy(made: Path, out: Path, *, overwrite: bool) -> None:
    """Put a finished model where it belongs: all of it is on the disk before the first file gets its name, what others
    need first, and two who write to one name do so one after the other."""
    files = files_of(out)
    with ExitStack() as stack:
        stack.enter_context(held(out.with_name(f".{files[0].name}.lock"), str(out), wait=True))
        copies = [stack.enter_context(writing(path, overwrite=overwrite)) for path in reversed(files)]
        for source, copied in zip(files_of(made), reversed(copies), strict=True):
            shutil.copyfile(source, copied)
            with open(copied, "rb+") as file:
                sync(file.fileno())


def _copy_as_one(source: Path, out: Path, names: Sequence[str], *, overwrite: bool) -> None:
    """Write an ONNX file and what it keeps in files of those names as one: where it goes there may be others so called,
    or none."""
    try:
        import onnx
    except ModuleNotFoundError as error:
        raise MissingExtraError("exporting a model whose weights lie in another file", "torch") from error
    with writing(out, overwrite=overwrite) as temporary:
        try:
            onnx.save(onnx.load(source), temporary)
        except OSError:
            raise
        except Exception as error:  # what it raises depends on its version
            raise ExportError(
                f"{source} and its weights in {', '.join(names)} cannot be written as one file "
                f"({first_line(error)}); copy all of them into one folder instead"
            ) from error


def as_onnx(
    model: str | os.PathLike[str], said: Said, size_hw: tuple[int, int] | None, folder: Path
) -> tuple[Path, Card, Parity | None]:
    """An ONNX file of a model, its card, and how far it is from the network, None where it is what the model was. What
    is not there already is written into the folder."""
    from pixelwise.export.onnx import write_onnx

    path = folder / "source.onnx"
    if size_hw is None:
        if isinstance(model, str) and copy_of_asset(model, path, overwrite=True):
            return path, open_model(path, said=said, threads=1).card, None
        where = located(model)
        if isinstance(where, Path) and where.suffix.lower() == ".onnx":
            return where, open_model(where, said=said, threads=1).card, None
    network, card = open_network(model, said)
    if size_hw is None:
        found = write_onnx(network, card, path)
    else:
        found = write_onnx(network, card, path, traced_at=size_hw, dynamic=False)
    return path, open_engine(path, threads=1).card, found


def _in_onnx(
    source: Path, card: Card, before: Parity | None, folder: Path, *, bake: bool, precision: str
) -> tuple[Path, str]:
    """The model in `source`, changed as it was asked for, as a file in the folder, if it gives the same; and what to
    say of it. before: how far `source` is from what it was made of."""
    import onnx

    from pixelwise.export.bake import bake as baked
    from pixelwise.export.halves import in_halves
    from pixelwise.export.parity import joined, refuse_far

    model = onnx.load(source)
    if precision == "float16":
        model = in_halves(model)
    made, whole = folder / "made.onnx", folder / "whole.onnx"
    onnx.save(with_card(model, card), made)
    engine = open_engine(made)
    sizes = sizes_for(engine, card.preprocess)
    found = [] if before is None else [before]
    if precision != "float32" or before is None:
        found.append(differences(open_engine(source, card=card), engine, sizes))
    told = joined(found)
    refuse_far(card.name, told, gap=FAR[precision][0], changed=FAR[precision][1])
    if not bake:
        return made, str(told)
    onnx.save(baked(model, card), whole)
    pixels = _same_labels(Segmenter(made), whole, sizes)
    refuse_far(f"{card.name} from picture to label map", pixels, gap=0.0, changed=MAY_CHANGE)
    return (
        whole,
        f"{told}; from picture to label map {pixels.changed:.3%} of {pixels.pixels:,} pixels changed",
    )


def _in_openvino(
    source: Path, card: Card, before: Parity | None, folder: Path, *, precision: str
) -> tuple[Path, str]:
    """The model in `source` as OpenVINO's own files in the folder, if they give the same; and what to say of it."""
    try:
        from pixelwise.export.openvino import write_openvino
    except ModuleNotFoundError as error:
        raise MissingExtraError("exporting to OpenVINO", "openvino") from error
    from pixelwise.export.parity import joined, refuse_far

    made = folder / "made.xml"
    write_openvino(source, card, made, halved=precision == "float16")
    engine = open_engine(made)
    model = open_engine(source, card=card)
    told = joined(
        [*([] if before is None else [before]), differences(model, engine, sizes_for(model, card.preprocess))]
    )
    refuse_far(card.name, told, gap=FAR[precision][0], changed=FAR[precision][1])
    return made, str(told)


def _in_torch(
    model: str | os.PathLike[str], said: Said, size_hw: tuple[int, int] | None, folder: Path, precision: str
) -> tuple[Path, Card, str]:
    """The torch network of a model as a file of torch.export in the folder, its card, and what to say of it."""
    from pixelwise.export.torch_export import write_program

    if precision != "float32":
        raise InputError(
            f"a file of torch.export is written in float32, got precision {precision!r}; leave it out, or export to "
            "onnx or openvino"
        )
    network, card = open_network(model, said)
    made = folder / "made.pt2"
    return made, card, str(write_program(network, card, made, size_hw=size_hw))


def with_card(model: Any, card: Card) -> Any:
    """The ONNX model, which from now on carries this card."""
    for entry in [entry for entry in model.metadata_props if entry.key == CARD_KEY]:
        model.metadata_props.remove(entry)
    model.metadata_props.add(key=CARD_KEY, value=card.to_json())
    return model


def sizes_for(engine: Engine, preprocess: Preprocess) -> Sequence[tuple[int, int]]:
    """Sizes of pictures at which an engine can be looked at: `CHECKED_AT`, or the only one that it takes."""
    one = getattr(engine, "size_hw", None)
    return CHECKED_AT if one is None or preprocess.size is not None else (one,)


def differences(model: Engine, made: Engine, sizes: Sequence[tuple[int, int]]) -> Parity:
    """How far the logits of one engine are from those of another, for pictures of these sizes."""
    from pixelwise.export.parity import joined, parity_of

    found = []
    for size_hw in sizes:
        image = model.card.preprocess(picture(size_hw, len(model.card.preprocess.mean)))
        expected, got = (np.asarray(engine(image)) for engine in (model, made))
        found.append(parity_of(expected, got, model.card.outputs))
    return joined(found)


def _same_labels(segmenter: Segmenter, baked: Path, sizes: Sequence[tuple[int, int]]) -> Parity:
    """In how many pixels the label maps of a baked file are not those of a segmenter, by ONNX Runtime alone."""
    import onnxruntime

    from pixelwise.export.parity import Parity, joined

    session = onnxruntime.InferenceSession(str(baked), providers=["CPUExecutionProvider"])
    found = []
    for size_hw in sizes:
        image = picture(size_hw, len(segmenter.card.preprocess.mean))
        expected = segmenter(image).labels
        (got,) = session.run(["labels"], {"picture": image[None]})
        other = 1.0 if got.shape[1:] != expected.shape else float((got[0] != expected).mean())
        found.append(Parity(0.0, other, expected.size))
    return joined(found)


def picture(size_hw: tuple[int, int], channels: int) -> NDArray[np.uint8]:
    """A drawn picture, uint8 (h, w, channels), always the same: large soft blots, and noise."""
    random = np.random.default_rng(size_hw[0])
    rows, columns = (np.linspace(0, 6, side)[:, None] for side in size_hw)
    waves = random.uniform(0.3, 1.0, (4, channels, 2)), random.uniform(0, 6, (4, channels))
    blots = sum(
        np.sin(rows * speed[:, 0] + phase)[:, None] * np.cos(columns * speed[:, 1] + phase)[None]
        for speed, phase in zip(*waves, strict=True)
    )  # (h, w, channels)
    noise = random.normal(0, 12, (*size_hw, channels))
    shown: NDArray[np.uint8] = np.clip(128 + 60 * blots + noise, 0, 255).astype(np.uint8)
    return shown


def described(card: Card) -> str:
    """The first names of a card's classes, to see that they are the right ones."""
    names = card.labels.names
    return f"; {', '.join(names[:5])}{', ...' if len(names) > 5 else ''}"

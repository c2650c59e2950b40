"""Opening: whatever somebody calls a model to an engine that runs it, with the card that says what it means.

A name of the catalog, an ONNX file, weights of ours or of any known family, the folder of a run, of Hugging Face or of
SMP, a name of the Hugging Face Hub, a network of ours, or any torch network. `Segmenter` and every command go this way.
"""

from __future__ import annotations

import os
import shutil
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING

from pixelwise import catalog
from pixelwise.catalog.entry import Entry
from pixelwise.engines import Engine, open_engine
from pixelwise.errors import InputError, MissingExtraError, PixelwiseWarning, UnknownNameError
from pixelwise.files import writing
from pixelwise.inference.measure import measure
from pixelwise.inference.preprocess import Preprocess
from pixelwise.labels import LabelSet
from pixelwise.weights import store
from pixelwise.weights.card import Card, Outputs
from pixelwise.weights.hub import fetch_folder, is_hub_name

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class Said:
    """What a caller says about a model; what is None is for its own card to say. The words are those of `Card.of`."""

    card: Card | None = None
    classes: Sequence[str] | LabelSet | None = None
    outputs: Outputs | None = None
    mean: Sequence[float] | None = None
    std: Sequence[float] | None = None
    size: int | None = None

    def __post_init__(self) -> None:
        words = [
            name for name in ("classes", "outputs", "mean", "std", "size") if getattr(self, name) is not None
        ]
        if self.card is not None and words:
            raise InputError(f"card= says {words[0]} as well; give one of them, or card.replace(...)")

    @property
    def single(self) -> bool | None:
        """Whether each logit is decided for itself, if that was said."""
        outputs = self.card.outputs if self.card is not None else self.outputs
        return None if outputs is None else outputs != "exclusive"

    def about(self, card: Card, channels: int) -> Card:
        """The card, of a model with so many outputs, in these words."""
        if self.card is not None:
            return self.card.replace(
                stride=card.stride, align_corners=card.align_corners, parameters=card.parameters
            )
        labels, outputs = card.labels, self.outputs or card.outputs
        if self.classes is not None:
            labels = self.classes if isinstance(self.classes, LabelSet) else LabelSet.of(self.classes)
            if self.outputs is None and outputs == "exclusive" and channels == 1:
                outputs = "binary"
        elif outputs != card.outputs:
            labels = catalog.numbered(channels, outputs)
        preprocess = self.preprocess(card.preprocess)
        return card.replace(labels=labels, outputs=outputs, preprocess=preprocess)

    def preprocess(self, before: Preprocess) -> Preprocess:
        """The preprocessing in these words."""
        if self.card is not None:
            return self.card.preprocess
        return Preprocess(
            tuple(self.mean) if self.mean is not None else before.mean,
            tuple(self.std) if self.std is not None else before.std,
            self.size if self.size is not None else before.size,
            before.side, before.multiple, before.offset,
        )  # fmt: skip


NOTHING = Said()


def open_model(
    model: str | os.PathLike[str] | nn.Module,
    engine: str = "auto",
    said: Said = NOTHING,
    *,
    threads: int | None = None,
    device: str | None = None,
) -> Engine:
    """The engine for a model, whose `card` says all about it.

    model: see the module. engine: a key of `engines.ENGINES` or "auto". said: goes before what the model's own card
    says. device: of PyTorch, such as "cuda". Raises InputError, in one sentence with what to do, for what cannot be
    opened; DownloadError.
    """
    found = located(model) if isinstance(model, (str, os.PathLike)) else model
    if isinstance(found, Entry):
        name = os.fspath(model)  # type: ignore[arg-type]
        if found.asset is not None and engine != "pytorch" and device in (None, "cpu"):
            with resources.as_file(resources.files("pixelwise") / "assets" / found.asset) as asset:
                return _open_file(asset, engine, said, threads, device)
        if found.asset is None and not found.fetched:
            raise InputError(catalog.how_to_get(name))
        if found.asset is None and engine != "pytorch" and device in (None, "cpu"):
            return _open_file(_exported(name, found), engine, said, threads, device)
    elif isinstance(found, Path) and found.suffix == ".onnx":
        return _open_file(found, engine, said, threads, device)
    network, card = open_network(model, said)
    return open_engine(network, engine, card=card, threads=threads, device=device)


def open_network(model: str | os.PathLike[str] | nn.Module, said: Said = NOTHING) -> tuple[nn.Module, Card]:
    """The torch network of a model, and its card; otherwise as `open_model`. ONNX files hold none: InputError."""
    found = located(model) if isinstance(model, (str, os.PathLike)) else model
    if isinstance(found, Entry):
        name = os.fspath(model)  # type: ignore[arg-type]
        network, card = _trained(name), card_of(name)
        return network, catalog.of_network(said.about(card, card.channels), network)
    if isinstance(found, Path):
        if found.suffix == ".onnx":
            raise InputError(f"{found} is an ONNX file; there is no torch network to open")
        try:
            from pixelwise.checkpoints.loading import from_checkpoint
        except ModuleNotFoundError as error:
            raise MissingExtraError(f"opening {found}", "torch") from error
        found = from_checkpoint(found)
    from pixelwise.foreign import Foreign, as_network

    aligned = said.card is not None and said.card.align_corners
    network = as_network(found, said.preprocess(Preprocess()), align_corners=aligned, single=said.single)
    channels = int(network.num_classes)  # type: ignore[arg-type]
    if isinstance(network, Foreign):
        card = catalog.unnamed(type(network.module).__name__, channels)
        if (own := _names_of_transformers(network.module)) is not None:
            card = card.replace(labels=own)
        else:
            _warn_of_numbers(f"this {card.name}", said)
    else:
        card = catalog.card_for(network)
        if vars(network).get("card") is None:
            _warn_of_numbers(f"this {type(network).__name__}", said, foreign=False)
    return network, catalog.of_network(said.about(card, channels), network)


def located(model: str | os.PathLike[str]) -> Entry | Path:
    """What a name means: a row of the catalog, or a file or folder, fetched from the Hub if need be.

    A name that is both is the row's, unless it has a separator or a suffix.
    """
    text, path = os.fspath(model), Path(model)
    if isinstance(model, str) and text in catalog.CATALOG:
        return catalog.CATALOG[text]
    if path.exists():
        return path
    if isinstance(model, str) and is_hub_name(text):
        return fetch_folder(text)
    if not isinstance(model, str) or path.suffix or path.name != text:
        raise InputError(f"no such model file or folder: {text}")
    raise UnknownNameError("model", text, catalog.CATALOG)


def weights_file(model: str) -> Path | None:
    """The file that a model's weights lie in; None for a model that is known by its name alone."""
    found = located(model)
    if isinstance(found, Entry):
        return None
    if found.suffix == ".onnx" or not found.is_dir():
        return found
    from pixelwise.checkpoints.reading import file_of

    return file_of(found)


def card_of(name: str) -> Card:
    """The card of a model of the catalog; that of an embedded model lies inside its file."""
    entry = catalog.entry(name)
    return entry.card if entry.card is not None else open_model(name, threads=1).card


def copy_of_asset(name: str, out: str | os.PathLike[str], *, overwrite: bool) -> bool:
    """Write the file of a model that ships in the package, if it is one, to `out`."""
    entry = catalog.CATALOG.get(name)
    if entry is None or entry.asset is None:
        return False
    with (
        resources.as_file(resources.files("pixelwise") / "assets" / entry.asset) as asset,
        writing(out, overwrite=overwrite) as temporary,
    ):
        shutil.copyfile(asset, temporary)
    return True


def _open_file(path: Path, engine: str, said: Said, threads: int | None, device: str | None) -> Engine:
    """An engine for an ONNX file; one without a card is looked at."""

    def card(opened: Engine, own: Card | None) -> Card:
        if own is not None:
            return said.about(own, own.channels)
        aligned = said.card is not None and said.card.align_corners
        what = f"the model in {path}"
        found = measure(
            opened, said.preprocess(Preprocess()), what, align_corners=aligned, single=said.single
        )
        _warn_of_numbers(what, said)
        bare = catalog.unnamed(path.stem, found.channels).replace(stride=found.stride, align_corners=aligned)
        return catalog.agreed(said.about(bare, found.channels), found.channels)

    return open_engine(path, engine, card=card, threads=threads, device=device)


def _names_of_transformers(module: nn.Module) -> LabelSet | None:
    """The names of the classes that a network of transformers knows, None where nobody gave it any."""
    names = getattr(getattr(module, "config", None), "id2label", None)
    if not isinstance(names, dict) or names == {i: f"LABEL_{i}" for i in range(len(names))}:
        return None
    from pixelwise.checkpoints.huggingface.meaning import labels_of
    from pixelwise.checkpoints.huggingface.values import Values

    config = {"id2label": {str(i): name for i, name in names.items()}}
    return labels_of(Values(config, Path("the network's own configuration")))[0]


def _warn_of_numbers(what: str, said: Said, *, foreign: bool = True) -> None:
    if said.card is None and said.classes is None:
        taken = (
            ", and its input is taken for RGB with ImageNet's mean and std unless said otherwise"
            if foreign
            else ""
        )
        warnings.warn(
            f"{what} has no card: its classes are named by number{taken}; give classes=[...], mean=..., std=..., or "
            "card=pixelwise.Card.of(...)",
            PixelwiseWarning,
            stacklevel=5,
        )


def _exported(name: str, entry: Entry) -> Path:
    """The ONNX file of a model of the catalog in the cache, made on first use."""
    assert entry.card is not None
    assert entry.card.sha256 is not None
    exported = store.cache_dir() / "onnx" / f"{entry.card.name}-{entry.card.sha256[:8]}.onnx"
    if not exported.exists():
        network = _trained(name)
        from pixelwise.export.onnx import export_onnx

        export_onnx(network, entry.card, exported)
    return exported


def _trained(name: str) -> nn.Module:
    """The network of that name with the weights that ship or are fetched."""
    try:
        from pixelwise.checkpoints.making import create_model
    except ModuleNotFoundError as error:
        raise MissingExtraError(f"making {name}", "torch") from error
    shipped = catalog.entry(name).asset is not None
    return create_model(name, **({} if shipped else {"weights": "DEFAULT"})).eval()

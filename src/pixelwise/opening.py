"""Opening: whatever somebody calls a model to an engine that runs it, with the card that says what it means.

A name of the catalog, an ONNX file, weights of ours or of any known family, the folder of a run, of Hugging Face or of
SMP, a name of the Hugging Face Hub, a network of ours, or any torch network. `Segmenter` and every command go this way.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import warnings
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from pixelwise import catalog
from pixelwise.catalog.entry import Entry
from pixelwise.checkpoints.nnunet import folder as nnunet
from pixelwise.engines import ENGINES, Engine, open_engine
from pixelwise.errors import InputError, MissingExtraError, PixelwiseWarning, UnknownNameError
from pixelwise.exported import exported
from pixelwise.files import writing
from pixelwise.folds import FILE as FOLDS
from pixelwise.folds import folds_of
from pixelwise.images import check_range
from pixelwise.inference.ensemble import Ensemble
from pixelwise.inference.measure import measure
from pixelwise.inference.preprocess import Preprocess
from pixelwise.inference.volume_preprocess import Normalise, VolumePreprocess
from pixelwise.labels import LabelSet
from pixelwise.precision import Precision
from pixelwise.terminal import note, without_secrets
from pixelwise.weights.beside import beside
from pixelwise.weights.card import Card, Outputs, numbers, sides
from pixelwise.weights.hub import fetch_folder, is_hub_name

if TYPE_CHECKING:
    from torch import nn


WRITTEN = "with winograd's convolutions"
"""What our ONNX files in the cache are made as; others are made again."""

WORDS = ("classes", "outputs", "mean", "std", "size", "value_range")
"""What may be said about a model without a whole card."""


@dataclass(frozen=True)
class Said:
    """What a caller says about a model; what is None is for its own card to say. The words are those of `Card.of`."""

    card: Card | None = None
    classes: Sequence[str] | LabelSet | None = None
    outputs: Outputs | None = None
    mean: Sequence[float] | None = None
    std: Sequence[float] | None = None
    size: int | tuple[int, int] | None = None
    value_range: Sequence[float] | None = None

    def __post_init__(self) -> None:
        if self.card is not None and not isinstance(self.card, Card):
            raise InputError(
                f"card= takes a pixelwise.Card (Card.of writes one), got {type(self.card).__name__}"
            )
        if self.classes is not None and not isinstance(self.classes, LabelSet):
            object.__setattr__(self, "classes", LabelSet.of(self.classes))
        for name in ("mean", "std"):
            if (given := getattr(self, name)) is not None:
                object.__setattr__(self, name, numbers(name, given))
        if self.size is not None:
            object.__setattr__(self, "size", sides(self.size))
        if self.value_range is not None:
            object.__setattr__(self, "value_range", check_range(self.value_range))
        words = [word for word in WORDS if getattr(self, word) is not None]
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
                stride=card.stride, align_corners=card.align_corners, parameters=card.parameters,
                precision=card.precision, baked=card.baked,
            )  # fmt: skip
        labels, outputs = card.labels, self.outputs or card.outputs
        if isinstance(self.classes, LabelSet):
            labels = self.classes
            if self.outputs is None and outputs == "exclusive" and channels == 1:
                outputs = "binary"
        elif outputs != card.outputs:
            if labels != catalog.numbered(channels, card.outputs):
                raise InputError(
                    f"outputs={outputs!r} is not what the card of {card.name} says ({card.outputs!r}), so say the "
                    "classes as well"
                )
            labels = catalog.numbered(channels, outputs)
        changed = card.replace(labels=labels, outputs=outputs, preprocess=self.preprocess(card.preprocess))
        # Scores were those of what the card said before
        return card if changed == card else changed.replace(scores=())

    def preprocess(self, before: Preprocess) -> Preprocess:
        """The preprocessing in these words."""
        if self.card is not None:
            return self.card.preprocess
        if self.mean is not None and self.std is None and len(self.mean) != len(before.std):
            raise InputError(f"mean is of {len(self.mean)} channels; say std for as many")
        return Preprocess(
            tuple(self.mean) if self.mean is not None else before.mean,
            tuple(self.std) if self.std is not None else before.std,
            self.size if self.size is not None else before.size,
            before.side, before.multiple, before.offset,
            check_range(self.value_range) if self.value_range is not None else before.value_range,
        )  # fmt: skip


NOTHING = Said()


def open_model(
    model: str | os.PathLike[str] | nn.Module | Sequence[str | os.PathLike[str] | nn.Module],
    engine: str = "auto",
    said: Said = NOTHING,
    *,
    threads: int | None = None,
    device: str | None = None,
    precision: Precision | None = None,
    export: bool = False,
) -> Engine:
    """The engine for a model, whose `card` says all about it.

    model: see the module; of a list the mean of the logits counts (`inference.ensemble`). engine: a key of
    `engines.ENGINES` or "auto". said: goes before what the model's own card
    says. device, precision: as `engines.open_engine` takes them. export: a network in memory is exported and run as a
    file is, as it is also where an engine of files is asked for; see `in_memory`. Raises InputError, in one sentence
    with what to do, for what cannot be opened; DownloadError.
    """
    how: dict[str, Any] = {"threads": threads, "device": device, "precision": precision, "export": export}
    if isinstance(model, (str, os.PathLike)) and (runs := _folds(model)) is not None:
        return open_model(runs, engine, said, **how)
    if isinstance(model, (list, tuple)):
        opened = [open_model(one, engine, said, **how) for one in model]
        return opened[0] if len(opened) == 1 else Ensemble(opened)
    model = cast("str | os.PathLike[str] | nn.Module", model)
    found = located(model) if isinstance(model, (str, os.PathLike)) else model
    if isinstance(found, Entry):
        name = os.fspath(model)  # type: ignore[arg-type]
        if found.asset is not None and not _of_networks(engine) and device in (None, "cpu", "auto"):
            if precision == "int8" and found.int8 is None:
                raise InputError(
                    f"{name} ships in float32, got precision 'int8'; quantise it first: pixelwise quantize {name} "
                    "--data DIR --out FILE"
                )
            file = found.int8 if precision == "int8" and found.int8 is not None else found.asset
            with resources.as_file(resources.files("pixelwise") / "assets" / file) as asset:
                return _open_file(asset, engine, said, threads, device, precision)
        if found.asset is None and not found.fetched:
            raise InputError(_how_to_get(name))
        if found.asset is None and not _of_networks(engine) and device in (None, "cpu", "auto"):
            return _open_file(_exported(name, found), engine, said, threads, device, precision)
    elif isinstance(found, Path) and is_runnable(found):
        if export:
            raise InputError(f"{found} is run as it is, got export=True; leave export out")
        return _open_file(found, engine, said, threads, device, precision)
    elif isinstance(found, Path) and (folds := nnunet.find(found)) is not None:
        return _open_nnunet(folds, engine, said, threads, device, precision)
    network, card = open_network(model, said)
    of_files = engine in ENGINES and bool(ENGINES[engine].files)
    if export or of_files or engine == "fastest":
        try:
            from pixelwise.in_memory import ExportedEngine, fastest_in_memory
        except ModuleNotFoundError as error:
            raise MissingExtraError("exporting", "torch") from error
        where: dict[str, Any] = {"threads": threads, "device": device, "precision": precision}
        if engine == "fastest":
            return fastest_in_memory(network, card, **where)
        if export and not of_files and engine != "auto":
            raise InputError(
                f"engine {engine!r} runs networks as they are, got export=True; leave one of them out"
            )
        return ExportedEngine(network, card, engine, **where)
    return open_engine(network, engine, card=card, threads=threads, device=device, precision=precision)


def open_network(model: str | os.PathLike[str] | nn.Module, said: Said = NOTHING) -> tuple[nn.Module, Card]:
    """The torch network of a model, and its card; otherwise as `open_model`. ONNX files hold none: InputError."""
    found = located(model) if isinstance(model, (str, os.PathLike)) else model
    if isinstance(found, Entry):
        name = os.fspath(model)  # type: ignore[arg-type]
        if found.asset is None and not found.fetched:
            raise InputError(_how_to_get(name))
        network, card = _trained(name), card_of(name)
        return network, catalog.of_network(said.about(card, card.channels), network)
    if isinstance(found, Path):
        if is_runnable(found):
            kind = "an ONNX" if found.suffix.lower() == ".onnx" else f"a {found.suffix.lower()}"
            raise InputError(f"{found} is {kind} file; there is no torch network to open")
        folds = nnunet.find(found)
        try:
            if folds is not None:
                from pixelwise.checkpoints.nnunet.network import open_model as open_folds

                network, card = open_folds(folds)
                return network, catalog.of_network(said.about(card, card.channels), network)
            from pixelwise.checkpoints.loading import from_checkpoint
        except ModuleNotFoundError as error:
            raise MissingExtraError(f"opening {found}", "torch") from error
        found = from_checkpoint(found)
    from pixelwise.foreign import Foreign, as_network

    said = _as_smp_means(found, said)
    aligned = said.card is not None and said.card.align_corners
    of_volumes = _takes_volumes(found)
    network = as_network(found, said.preprocess(Preprocess()), align_corners=aligned, single=said.single)
    channels = int(network.num_classes)  # type: ignore[arg-type]
    if isinstance(network, Foreign):
        card = catalog.unnamed(type(network.module).__name__, channels)
        if (own := _names_of_transformers(network.module)) is not None:
            card = card.replace(labels=own)
        else:
            _warn_of_numbers(f"this {card.name}", said, said.preprocess(card.preprocess))
    else:
        card = catalog.card_for(network)
        if vars(network).get("card") is None:
            shown = None if of_volumes else said.preprocess(card.preprocess)
            _warn_of_numbers(f"this {type(network).__name__}", said, shown)
    card = catalog.of_network(said.about(card, channels), network)
    if of_volumes:
        card = _of_volumes(card, f"this {type(network).__name__}")
    inputs = catalog.inputs_of(network)
    if inputs not in (None, len(card.preprocess.mean)):
        raise InputError(
            f"the card is for {len(card.preprocess.mean)} input channels (mean and std), the network has {inputs}; "
            "give mean and std with a number a channel"
        )
    return network, card


def _folds(model: str | os.PathLike[str]) -> list[Path] | None:
    """The run folders of a cross-validation that `pixelwise train --folds` has left; None for any other model."""
    with suppress(OSError, ValueError):  # a name that no file can have
        return folds_of(Path(model))
    return None


def _takes_volumes(module: Any) -> bool:
    """Whether a network is one of ours that takes volumes (n, c, d, h, w). InputError for anyone else's that does."""
    from pixelwise.layers import Network, behind

    layers = module.modules() if hasattr(module, "modules") else ()
    if not any(type(layer).__name__ == "Conv3d" for layer in layers):
        return False
    if not isinstance(behind(module), Network):
        raise InputError(
            f"this {type(module).__name__} takes volumes (n, c, d, h, w), which is opened of networks of pixelwise "
            f"and of "
            "ONNX files; export it with torch.onnx and open the file with card=pixelwise.Card.of(classes, volume=...)"
        )
    return True


def _of_volumes(card: Card, what: str) -> Card:
    """The card of a model that takes volumes; where it does not say how, with what is usual, and a warning that says
    it."""
    if card.volume is not None:
        return card
    usual = VolumePreprocess((Normalise(),) * len(card.preprocess.mean))
    warnings.warn(
        f"the card of {what} does not say how volumes are prepared: each channel is brought to mean 0 and deviation 1, "
        f"spacing and orientation stay as they are stored, and {' x '.join(map(str, usual.patch))} voxels are seen "
        f"at a "
        "time; say how it was trained: card=pixelwise.Card.of(classes, volume=pixelwise.VolumePreprocess(...))",
        PixelwiseWarning,
        stacklevel=5,
    )
    return card.replace(volume=usual)


def _as_smp_means(model: Any, said: Said) -> Said:
    """What was said, and that several classes of a model of `pixelwise.smp` that ends in a sigmoid are regions."""
    while not hasattr(model, "pixelwise_network") and hasattr(model, "module"):  # in DataParallel and its kin
        model = model.module
    if not hasattr(model, "pixelwise_network") or said.single is not None:
        return said
    layers = {type(layer).__name__ for layer in model.segmentation_head.modules()}
    sigmoids = "Sigmoid" in layers and model.pixelwise_network.num_classes > 1
    return replace(said, outputs="regions") if sigmoids else said


def located(model: str | os.PathLike[str]) -> Entry | Path:
    """What a name means: a row of the catalog, or a file or folder, fetched from the Hub if need be.

    A name that is both is the row's, unless it has a separator or a suffix.
    """
    text, path = os.fspath(model), Path(model)
    if not text or len(text) > 4000 or "\0" in text:
        raise InputError(f"expected the name or file of a model, got {text[:60]!r}")
    if isinstance(model, str) and text in catalog.CATALOG:
        return catalog.CATALOG[text]
    try:
        if path.exists():
            return path
    except OSError as error:
        raise InputError(f"{text[:200]} cannot be opened ({error.strerror})") from error
    if isinstance(model, str) and "://" in text:
        raise InputError(
            f"{without_secrets(text)} is an address; fetch the model first, or name one of the Hub: owner/name"
        )
    if isinstance(model, str) and is_hub_name(text):
        return fetch_folder(text)
    if not isinstance(model, str) or path.suffix or path.name != text:
        raise InputError(f"no such model file or folder: {text}")
    raise UnknownNameError("model", text, catalog.CATALOG)


def _of_networks(engine: str) -> bool:
    """Whether an engine runs networks as they are, and no files."""
    return engine in ENGINES and not ENGINES[engine].files


def _how_to_get(name: str) -> str:
    """How to get the weights of a model that has none here; before that, that something of that name is here."""
    if Path(name).exists():
        here = os.path.join(os.curdir, name)
        return (
            f"{name} is the name of an architecture without weights; for the {name} in this folder say {here}"
        )
    return catalog.how_to_get(name)


def is_runnable(path: Path) -> bool:
    """Whether a file is one that engines run, by its ending; others hold weights."""
    return any(path.suffix.lower() in row.files for row in ENGINES.values())


def weights_files(model: str) -> list[Path]:
    """The files that a model's weights lie in; none of a model that is known by its name alone."""
    found = located(model)
    if isinstance(found, Entry):
        return []
    if not is_runnable(found) and (folds := nnunet.find(found)) is not None:
        return folds.files
    if is_runnable(found) or not found.is_dir():
        return [found, *beside(found)]
    if (found / FOLDS).is_file():  # which is written when all of them are done
        return [found / FOLDS]
    from pixelwise.checkpoints.reading import file_of

    return [file_of(found)]


def card_of(name: str) -> Card:
    """The card of a model of the catalog; that of an embedded model lies inside its file."""
    entry = catalog.entry(name)
    return entry.card if entry.card is not None else open_model(name, threads=1).card


def copy_of_asset(
    name: str, out: str | os.PathLike[str], *, overwrite: bool, precision: Precision = "float32"
) -> bool:
    """Write the file of a model that ships in the package, if it is one and in that precision, to `out`."""
    entry = catalog.CATALOG.get(name)
    file = None if entry is None else entry.int8 if precision == "int8" else entry.asset
    if file is None:
        return False
    with (
        resources.as_file(resources.files("pixelwise") / "assets" / file) as asset,
        writing(out, overwrite=overwrite) as temporary,
    ):
        shutil.copyfile(asset, temporary)
    return True


def _open_file(
    path: Path, engine: str, said: Said, threads: int | None, device: str | None, precision: Precision | None
) -> Engine:
    """An engine for a file; one without a card is looked at."""

    def card(opened: Any, own: Card | None) -> Card:
        if own is not None:
            if own.baked and said != NOTHING:
                raise InputError(
                    f"{path} is baked: its classes and how pictures are prepared are in it; leave out what you say of "
                    "the model, or say it when the model is exported"
                )
            if own.outputs == "exclusive" and own.labels.num_classes == 2 and opened.channels == 1:
                own = own.replace(outputs="binary")  # written before cards said what outputs mean
            about = said.about(own, own.channels)
            return _of_volumes(about, f"the model in {path}") if opened.dimensions == 3 else about
        if opened.dimensions == 3:
            if said.card is None or said.card.volume is None:
                raise InputError(
                    f"{path} takes volumes and has no card; say what it was made with: "
                    "card=pixelwise.Card.of(classes, volume=pixelwise.VolumePreprocess(...))"
                )
            return catalog.agreed(said.card, opened.channels or said.card.channels)
        aligned = said.card is not None and said.card.align_corners
        what = f"the model in {path}"
        shown = len(said.preprocess(Preprocess()).mean)
        if opened.takes not in (None, shown):
            raise InputError(
                f"{what} takes pictures of {opened.takes} channels, and what is said of it prepares {shown}; say in "
                f"Python what it was made with: mean and std of {opened.takes} numbers, or card=pixelwise.Card.of(...)"
            )
        found = measure(
            opened,
            said.preprocess(Preprocess()),
            what,
            align_corners=aligned,
            single=said.single,
            size_hw=opened.size_hw,
        )
        _warn_of_numbers(what, said, said.preprocess(Preprocess()))
        opened.stride = found.stride  # to be looked at whenever it answers
        bare = catalog.unnamed(path.stem, found.channels).replace(stride=found.stride, align_corners=aligned)
        return catalog.agreed(said.about(bare, found.channels), found.channels)

    return open_engine(path, engine, card=card, threads=threads, device=device, precision=precision)


def _names_of_transformers(module: nn.Module) -> LabelSet | None:
    """The names of the classes that a network of transformers knows, None where nobody gave it any."""
    names = getattr(getattr(module, "config", None), "id2label", None)
    if not isinstance(names, dict) or names == {i: f"LABEL_{i}" for i in range(len(names))}:
        return None
    from pixelwise.checkpoints.huggingface.meaning import labels_of
    from pixelwise.checkpoints.huggingface.values import Values

    config = {"id2label": {str(i): name for i, name in names.items()}}
    return labels_of(Values(config, Path("the network's own configuration")))[0]


def _warn_of_numbers(what: str, said: Said, preprocess: Preprocess | None) -> None:
    """preprocess: None of a model of volumes."""
    if said.card is None and said.classes is None and preprocess is None:
        warnings.warn(
            f"{what} has no card: its classes are named by number; say what they are: classes=[...] or "
            "card=pixelwise.Card.of(classes, volume=pixelwise.VolumePreprocess(...))",
            PixelwiseWarning,
            stacklevel=5,
        )
    elif said.card is None and said.classes is None:
        assert preprocess is not None
        mean, std = (
            ", ".join(f"{number:.3g}" for number in some) for some in (preprocess.mean, preprocess.std)
        )
        warnings.warn(
            f"{what} has no card: its classes are named by number, and pictures are prepared with mean ({mean}) and "
            f"std ({std}); say what it was made with: classes=[...], mean=..., std=... or card=pixelwise.Card.of(...)",
            PixelwiseWarning,
            stacklevel=5,
        )


def _exported(name: str, entry: Entry) -> Path:
    """The ONNX file of a model of the catalog in the cache; see `exported.exported`."""
    assert entry.card is not None
    assert entry.card.sha256 is not None
    card = hashlib.sha256((WRITTEN + entry.card.to_json()).encode()).hexdigest()

    def write(path: Path) -> None:
        network = _trained(name)
        from pixelwise.export.onnx import export_onnx

        assert entry.card is not None
        export_onnx(network, entry.card, path)

    return exported(name, f"{entry.card.name}-{entry.card.sha256[:8]}-{card[:8]}", write)


def _open_nnunet(
    model: nnunet.Model,
    engine: str,
    said: Said,
    threads: int | None,
    device: str | None,
    precision: Precision | None,
) -> Engine:
    """The engine for what nnU-Net trained: its folds exported once each, and from then on run without torch; or as they
    are, by an engine of networks."""
    where: dict[str, Any] = {"threads": threads, "device": device, "precision": precision}

    def read(fold: nnunet.Fold) -> tuple[nn.Module, Card]:
        try:
            from pixelwise.checkpoints.nnunet.network import open_fold
        except ModuleNotFoundError as error:
            raise MissingExtraError(f"opening {model.what} for the first time", "torch") from error
        return open_fold(model, fold)

    def written(fold: nnunet.Fold, key: str) -> Path:
        def write(path: Path) -> None:
            network, card = read(fold)
            from pixelwise.export.onnx import export_onnx

            note(f"exporting {fold.name} of {model.what} to ONNX, once")
            export_onnx(network, card, path, rewrite=False)

        return exported(model.what, f"nnunet-{NNUNET}-{key}", write)

    engines: list[Engine] = []
    if _of_networks(engine):
        for fold in model.folds:
            network, card = read(fold)
            card = catalog.of_network(said.about(card, card.channels), network)
            engines.append(open_engine(network, engine, card=card, **where))
    else:
        for fold, key in zip(model.folds, model.keys(), strict=True):
            engines.append(_open_file(written(fold, key), engine, said, threads, device, precision))
    return engines[0] if len(engines) == 1 else Ensemble(engines)


NNUNET = 1
"""Counts the ways in which networks of nnU-Net were exported and their cards written; others are made again."""


def _trained(name: str) -> nn.Module:
    """The network of that name with the weights that ship or are fetched."""
    try:
        from pixelwise.checkpoints.making import create_model
    except ModuleNotFoundError as error:
        raise MissingExtraError(f"making {name}", "torch") from error
    shipped = catalog.entry(name).asset is not None
    return create_model(name, **({} if shipped else {"weights": "DEFAULT"})).eval()

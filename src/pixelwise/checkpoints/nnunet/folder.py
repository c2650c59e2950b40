"""Where nnU-Net v2 keeps a trained model: a folder, one fold of it, the zip file of a release, a lone checkpoint.

Nothing here needs torch, and nothing in a checkpoint is looked at but whether it is one of nnU-Net's.
"""

from __future__ import annotations

import hashlib
import re
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory

from pixelwise.errors import PixelwiseError, WeightsError, first_line
from pixelwise.untrusted import MAX_BYTES
from pixelwise.weights import store

CHECKPOINT = "checkpoint_final.pth"
CHECKPOINTS = (".pth", ".pt", ".model")
FOLD = re.compile(r"fold_([0-9]{1,3}|all)")

MARKS = (b"network_weights", b"init_args")
"""Keys in the pickle of a checkpoint of nnU-Net's."""


@dataclass(frozen=True)
class Fold:
    """One trained network. path: its checkpoint, or the zip file in which it is `member`."""

    name: str
    path: Path
    member: str | None = None

    @contextmanager
    def file(self) -> Iterator[Path]:
        """Its checkpoint as a file of its own while the block runs."""
        if self.member is None:
            yield self.path
            return
        try:
            with TemporaryDirectory(prefix="pixelwise-") as folder, zipfile.ZipFile(self.path) as archive:
                info = archive.getinfo(self.member)
                if info.file_size > store.PROMISES * info.compress_size + 2**20:
                    raise WeightsError(
                        f"{self.path} has {info.compress_size:,} bytes of {self.member} and would unfold to "
                        f"{info.file_size:,}, which no file of weights does"
                    )
                out = Path(folder) / CHECKPOINT
                with archive.open(info) as packed, open(out, "wb") as file:
                    while block := packed.read(2**20):
                        file.write(block)
                yield out
        except PixelwiseError:
            raise
        except (zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError, KeyError) as error:
            raise WeightsError(f"{self.path} is damaged ({first_line(error)}); get it again") from error


@dataclass(frozen=True)
class Model:
    """What is there of one trained configuration. what: in sentences. plans, dataset, after: the texts of plans.json,
    dataset.json and postprocessing.json; None where the checkpoint alone says it, and where nothing is done after."""

    what: str
    folds: tuple[Fold, ...]
    plans: bytes | None = None
    dataset: bytes | None = None
    after: bytes | None = None

    @property
    def files(self) -> list[Path]:
        """Those that the checkpoints lie in, each once."""
        return list(dict.fromkeys(fold.path for fold in self.folds))

    def keys(self) -> list[str]:
        """For each fold a name that no other content has."""
        digests = {path: store.digest(path).encode() for path in self.files}
        found = []
        for fold in self.folds:
            whole = hashlib.sha256()
            for part in (
                self.plans,
                self.dataset,
                self.after,
                (fold.member or "").encode(),
                digests[fold.path],
            ):
                whole.update(b"-" if part is None else hashlib.sha256(part).digest())
            found.append(whole.hexdigest()[:32])
        return found


def find(path: Path) -> Model | None:
    """The model of nnU-Net's at that place; None where there is none. WeightsError for one that is not whole, or
    several."""
    try:
        if path.is_dir():
            return _in_folder(path)
        if path.suffix.lower() == ".zip":
            return _in_zip(path)
        if path.suffix.lower() in CHECKPOINTS and _is_checkpoint(path):
            return _of_folds(path.parent.parent, (Fold(path.parent.name, path),), path)
    except OSError as error:
        raise WeightsError(f"{path} cannot be read ({error.strerror or error})") from error
    return None


def _in_folder(folder: Path) -> Model | None:
    if (folder / "plans.json").is_file():
        found = {
            place.name: Fold(place.name, place / CHECKPOINT)
            for place in sorted(folder.glob("fold_*"))
            if FOLD.fullmatch(place.name) and (place / CHECKPOINT).is_file()
        }
        if not found and not (folder / "dataset.json").is_file():
            return None
        if not found:
            raise WeightsError(
                f"{folder} has no fold_0/{CHECKPOINT} or the like; if its training was not finished, name the "
                "checkpoint itself, such as fold_0/checkpoint_best.pth"
            )
        return _of_folds(folder, _chosen(found), folder)
    if FOLD.fullmatch(folder.name):
        file = folder / CHECKPOINT
        if file.is_file():
            return _of_folds(folder.parent, (Fold(folder.name, file),), folder)
        if any(folder.glob("checkpoint_*.pth")):
            raise WeightsError(
                f"{folder} has no {CHECKPOINT}; if its training was not finished, name the checkpoint itself, such as "
                f"{next(folder.glob('checkpoint_*.pth'))}"
            )
        return None
    below = sorted(
        place.parent for place in folder.glob("*/plans.json") if (place.parent / "dataset.json").is_file()
    )
    if len(below) > 1:
        raise WeightsError(
            f"{folder} holds {len(below)} models of nnU-Net's; name one of them: {', '.join(map(str, below))[:400]}"
        )
    return _in_folder(below[0]) if below else None


def _chosen(found: dict[str, Fold]) -> tuple[Fold, ...]:
    """The folds of a cross-validation; where there are none, the one that was trained on everything."""
    numbered = [fold for name, fold in found.items() if name != "fold_all"]
    return tuple(numbered or found.values())


def _of_folds(folder: Path, folds: tuple[Fold, ...], said: Path) -> Model:
    texts = {name: _text(folder / name) for name in ("plans.json", "dataset.json")}
    if (texts["plans.json"] is None) != (texts["dataset.json"] is None):
        there, lacks = sorted(texts, key=lambda name: texts[name] is None)
        raise WeightsError(
            f"{folder} has {there} and no {lacks}; copy it there from where the model was trained"
        )
    after, numbers = None, "_".join(fold.name.removeprefix("fold_") for fold in folds)
    for place in (folder, folder / f"crossval_results_folds_{numbers}"):
        after = after or _text(place / "postprocessing.json")
    return Model(str(said), folds, texts["plans.json"], texts["dataset.json"], after)


def _text(path: Path) -> bytes | None:
    if not path.is_file():
        return None
    with open(path, "rb") as file:
        text = file.read(MAX_BYTES + 1)
    if len(text) > MAX_BYTES:
        raise WeightsError(f"{path} has more than {MAX_BYTES:,} bytes, which no plan has")
    return text


def _is_checkpoint(path: Path) -> bool:
    """Whether a file of torch has the keys of nnU-Net's; nothing in it is run; what is no file is not waited for."""
    if not path.is_file():
        return False
    try:
        with zipfile.ZipFile(path) as archive:
            name = next(name for name in archive.namelist() if name.endswith("/data.pkl"))
            with archive.open(name) as file:
                content = file.read(MAX_BYTES)
    except OSError:
        raise
    except Exception:  # damaged; whoever opens it will say how
        return False
    return all(mark in content for mark in MARKS)


def _in_zip(path: Path) -> Model | None:
    try:
        with zipfile.ZipFile(path) as archive:
            names = set(archive.namelist())
            models = sorted(
                str(PurePosixPath(name).parent)
                for name in names
                if PurePosixPath(name).name == "plans.json"
                and str(PurePosixPath(name).with_name("dataset.json")) in names
            )
            if not models:
                return None
            if len(models) > 1:
                raise WeightsError(
                    f"{path} holds {len(models)} models of nnU-Net's; unzip it and name one of them: "
                    f"{', '.join(models)[:400]}"
                )
            folder = PurePosixPath(models[0])
            found = {}
            for name in sorted(names):
                place = PurePosixPath(name)
                if (
                    place.name == CHECKPOINT
                    and place.parent.parent == folder
                    and FOLD.fullmatch(place.parent.name)
                ):
                    found[place.parent.name] = Fold(place.parent.name, path, name)
            if not found:
                raise WeightsError(
                    f"{path} has no fold_0/{CHECKPOINT} or the like beside {folder}/plans.json"
                )
            folds = _chosen(found)
            numbers = "_".join(fold.name.removeprefix("fold_") for fold in folds)
            after = None
            for place in (folder, folder / f"crossval_results_folds_{numbers}"):
                if after is None and str(place / "postprocessing.json") in names:
                    after = _member(archive, str(place / "postprocessing.json"), path)
            plans, dataset = (
                _member(archive, str(folder / name), path) for name in ("plans.json", "dataset.json")
            )
    except PixelwiseError:
        raise
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError, ValueError, KeyError) as error:
        raise WeightsError(f"{path} is a damaged zip file ({first_line(error)}); get it again") from error
    return Model(str(path), folds, plans, dataset, after)


def _member(archive: zipfile.ZipFile, name: str, path: Path) -> bytes:
    with archive.open(name) as file:
        text = file.read(MAX_BYTES + 1)
    if len(text) > MAX_BYTES:
        raise WeightsError(f"{name} in {path} has more than {MAX_BYTES:,} bytes, which no plan has")
    return text

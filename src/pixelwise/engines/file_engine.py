"""What all engines of files share: the card, what a file may not be, sentences, pickling and forked processes."""

from __future__ import annotations

import ctypes
import os
import re
import shlex
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from array_api_compat import is_torch_array
from numpy.typing import NDArray

from pixelwise.errors import InputError, PixelwiseError, first_line
from pixelwise.inference.measure import check_ratio
from pixelwise.precision import Precision
from pixelwise.weights.beside import PLACE
from pixelwise.weights.card import Card, CardOf

if TYPE_CHECKING:
    from pixelwise.engines.apart import Order

LARGEST_PICTURE = 2**28
"""Pixels of the one size that a file may ask for."""

SMALLEST = 32
"""Pixels a side below which a network may have no features left to work with."""


@dataclass(frozen=True)
class Loaded:
    """A file as its library has it. run: float32 (n, c, h, w) to its first output, from any thread. takes, gives: the
    sides of its first input and output, None for any; empty where it does not say. card: the text of the one inside.
    held: what is never to be taken down in a forked process, which has none of its threads. fails: what `run` raises by
    itself; others come from whoever interrupts it."""

    run: Callable[[NDArray[np.float32]], NDArray[np.float32]]
    takes: tuple[int | None, ...]
    gives: tuple[int | None, ...]
    card: str | None
    held: Any
    fails: type[Exception] = Exception  # the runtimes' exceptions share no base class of their own


Content: TypeAlias = "tuple[bytes, bytes | None]"
"""The bytes of a file, and of the one beside it that holds its weights, None where it holds them itself."""


class FileEngine:
    """The base of engines that run a file. What is left to each: `name`, `load`, and `beside` where there are two.

    Raises InputError when the file is missing, is no model, has no input or output, takes pictures of an absurd size,
    or carries no card and none is given. What its nodes make of a picture is not looked at beforehand.
    """

    name: str

    def load(self, model: Path | Content) -> Loaded:
        """The model of a file, or of what was in it."""
        raise NotImplementedError

    @property
    def path(self) -> Path:
        """The file that was opened."""
        return self._path

    @classmethod
    def bare(cls, order: Order) -> Loaded:
        """What a file holds, without a card and without an engine around it."""
        engine = object.__new__(cls)
        engine._path, engine._threads = order.path, order.threads
        engine._device, engine._asked = order.device, order.precision
        return engine.load(order.content or order.path)

    def beside(self, path: Path) -> Path | None:
        """The other file that belongs to this one."""
        return None

    def __init__(
        self,
        path: Path,
        *,
        card: Card | CardOf | None = None,
        threads: int | None = None,
        device: str | None = None,
        precision: Precision | None = None,
    ) -> None:
        if not path.is_file():
            raise InputError(f"no such model file: {path}")
        self._path, self._threads, self._device, self._asked = path, threads, device, precision
        self._written = self._marks()
        self._content: Content | None = None
        self._forked = False
        _engines.add(self)
        self._loaded = self.load(path)
        try:
            self._look()
        except PixelwiseError:
            raise
        except Exception as error:  # inputs that are no arrays
            raise InputError(f"{path} is no network that pixelwise can run ({first_line(error)})") from error
        self.stride: int | None = None
        own, text = None, self._loaded.card
        if callable(card):
            card = card(self, None if text is None else Card.from_json(text))
        elif card is None and text is None:
            raise InputError(
                f"{path} carries no pixelwise card, so its classes and preprocessing are unknown; "
                "export it with pixelwise, or pass card="
            )
        elif card is None:
            own = Card.from_json(text or "")
        self.card: Card = card or own  # type: ignore[assignment]  # one of them is there
        if self.card.baked:
            self._check_baked()
        else:
            self._refuse_other_channels()
        if self.card.precision == "int8" and not is_quantised(path.read_bytes(), path.suffix):
            raise InputError(
                f"the card for {path} says that it runs in int8, and nothing in it does; quantise the model that it "
                "was made of: pixelwise quantize MODEL --data DIR --out FILE"
            )
        self.precision = settled(precision, self.card, path)

    def _look(self) -> None:
        """Note what the file says of itself. channels: logits of a pixel, and takes: those of a picture, None where it
        does not say. size_hw: the only size of pictures that it takes, None for any. dimensions: 3 where it takes
        volumes, else 2."""
        takes, gives = self._loaded.takes, self._loaded.gives
        self.dimensions = 3 if len(takes) == 5 else 2
        self.channels: int | None = gives[1] if len(gives) > 1 else None
        self.takes: int | None = takes[1] if len(takes) > 1 else None
        if takes and len(takes) not in (4, 5):
            raise InputError(
                f"{self._path} takes arrays of {len(takes)} dimensions; expected pictures (n, c, h, w), or volumes "
                f"(n, c, d, h, w)"
            )
        self.size_hw: tuple[int, int] | None = None
        if len(takes) == 4 and (height := takes[2]) is not None and (width := takes[3]) is not None:
            self.size_hw = height, width
            if not (min(height, width) > 0 and height * width <= LARGEST_PICTURE):
                raise InputError(
                    f"{self._path} takes pictures of {height} x {width} pixels alone; expected at most "
                    f"{LARGEST_PICTURE:,}"
                )

    def __call__(self, images: Any) -> NDArray[np.float32]:
        card = getattr(self, "card", None)  # None while a file without one is looked at
        if card is not None and card.baked:
            raise InputError(
                f"{self._path} is baked: it takes a whole picture and gives its label map, no logits; export the model "
                "without --bake"
            )
        if self._forked:
            self.__setstate__(self.__getstate__())
        if is_torch_array(images):
            images = images.detach().cpu().numpy()
        try:
            logits = self._loaded.run(images)
        except self._loaded.fails as error:
            takes = self._loaded.takes[2:]
            if images.ndim == 5:
                sides = " x ".join(map(str, images.shape[2:]))
                raise InputError(
                    f"{self._path} fails at {sides} voxels ({first_line(error)}); take another patch, such as one "
                    f"whose "
                    "sides are multiples of 32"
                ) from error
            if takes and None not in takes and takes != images.shape[2:]:
                raise InputError(
                    f"{self._path} takes pictures of {'x'.join(map(str, takes))} pixels and no others, got "
                    f"{'x'.join(map(str, images.shape[2:]))}; use tile={tuple(takes)}, or export it for any size"
                ) from error
            size = f"{images.shape[2]} x {images.shape[3]} pixels"
            if min(images.shape[2:]) < SMALLEST and self._takes_larger(images.shape[1]):
                raise InputError(
                    f"{self.card.name} cannot take a picture of {size}, which is too small for this network; enlarge "
                    f"it to at least {SMALLEST} x {SMALLEST}"
                ) from error
            raise InputError(f"{self._path} fails at a picture of {size} ({first_line(error)})") from error
        if self.stride is not None:
            check_ratio(images, logits, self.stride, str(self._path), align_corners=self.card.align_corners)
        return logits

    def _takes_larger(self, channels: int) -> bool:
        """Whether the model works at all."""
        try:
            self._loaded.run(np.zeros((1, channels, SMALLEST, SMALLEST), np.float32))
        except Exception:  # whatever it was, the size is not to blame
            return False
        return True

    def _refuse_other_channels(self) -> None:
        """Raise InputError where the card speaks of another model."""
        mean, classes = len(self.card.preprocess.mean), self.card.labels.num_classes
        for what, here, there in (
            ("input channels (mean and std)", mean, self._loaded.takes),
            (f"outputs ({classes} classes, {self.card.outputs})", self.card.channels, self._loaded.gives),
        ):
            if len(there) > 1 and there[1] is not None and there[1] != here:
                raise InputError(
                    f"the card is for {here} {what}, the model in {self._path} has {there[1]}; give a card that agrees "
                    "(pixelwise.Card.of)"
                )

    def _check_baked(self) -> None:
        """Raise InputError where a file that says that it is baked cannot be run, or is not."""
        raise InputError(
            f"{self._path} is baked, from picture to label map, and engine {self.name!r} does not run it; take engine "
            "onnxruntime, or the model that it was made of"
        )

    def _marks(self) -> list[tuple[int, int] | None]:
        other = self.beside(self._path)
        return [_written(self._path), *([] if other is None else [_written(other)])]

    def __getstate__(self) -> dict[str, Any]:
        """What is pickled: the file itself, which need not be where this is unpickled."""
        content = self._content
        if content is None:
            if self._written[0] is None or self._marks() != self._written:
                raise InputError(
                    f"{self._path} has changed since it was opened; open it again before it is pickled"
                )
            model, other = self._path.read_bytes(), self.beside(self._path)
            if PLACE.search(model):
                raise InputError(
                    f"{self._path} keeps its weights in another file, and cannot be pickled; export it as one file"
                )
            content = model, None if other is None else other.read_bytes()
        return {"content": content, "path": self._path, "threads": self._threads, "card": self.card,
                "stride": self.stride, "device": self._device, "precision": self.precision,
                "asked": self._asked}  # fmt: skip

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.card, self._threads, self._path = state["card"], state["threads"], state["path"]
        self._device, self.precision, self._asked = state["device"], state["precision"], state["asked"]
        self._content, self._written, self._forked = state["content"], [None], False
        _engines.add(self)
        self._loaded = self.load(state["content"])
        self._look()
        self.stride = state["stride"]

    def __deepcopy__(self, _: Any) -> FileEngine:
        other = object.__new__(type(self))
        vars(other).update(vars(self))  # what is loaded never changes
        return other


QUANTISED = {
    ".onnx": rb'"(\x0eQuantizeLinear|\x10DequantizeLinear|\x15DynamicQuantizeLinear|\x0bQLinearConv|\x0bConvInteger'
    rb"|\x0dQLinearMatMul|\x0dMatMulInteger)",
    ".xml": rb'type="FakeQuantize"|element_type="[iu]8"',
}
"""What stands in the bytes of files whose layers are in int8: kinds of nodes, in ONNX after tag and length."""


def is_quantised(content: bytes, ending: str) -> bool:
    """Whether there is anything in int8 in the bytes of a file of that ending."""
    return re.search(QUANTISED.get(ending.lower(), b""), content) is not None


def settled(asked: Precision | None, card: Card, path: Path) -> Precision:
    """In which precision a file is to run. asked: None for what it is. Raises InputError where it cannot be had."""
    own = card.precision
    if asked is None or asked == own:
        return own
    if own == "int8":
        raise InputError(
            f"{path} was quantised and runs in int8, got precision {asked!r}; leave it out, or take the file that it "
            "was made of"
        )
    if asked == "int8":
        raise InputError(
            f"{path} runs in {own}, got precision 'int8'; quantise it first: pixelwise quantize "
            f"{shlex.quote(str(path))} --data DIR --out FILE"
        )
    return asked


_engines: weakref.WeakSet[FileEngine] = weakref.WeakSet()


def _leave_loaded() -> None:
    """In a forked process, which has none of their threads, models are loaded anew; and the old ones are never taken
    down, for that would wait for the threads."""
    for engine in list(_engines):
        if "_loaded" in vars(engine):
            ctypes.pythonapi.Py_IncRef(ctypes.py_object(engine._loaded))
        engine._forked = True


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_leave_loaded)


def _written(path: Path) -> tuple[int, int] | None:
    """Size and time of change of a file, by which another one in its place is noticed."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_size, found.st_mtime_ns

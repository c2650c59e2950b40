"""The exceptions of pixelwise. Every message says what was expected, what came, and what to do.

PixelwiseError                something outside the caller's hands failed (command line: exit code 1)
├── DownloadError             a file could not be fetched (also an OSError)
├── ExportError               a network could not be exported, or its export disagrees with it
├── MissingExtraError         an optional dependency is not installed (also an ImportError)
└── InputError                what was passed in cannot be used (also a ValueError; exit code 2)
    ├── ColorError            a colour is not three numbers in range (also a RuntimeError)
    ├── ImageError            a picture is missing, damaged, too large or of an unknown kind
    │   ├── ImageKindError    it is no picture, or of a kind that is not read
    │   └── ImageSizeError    it has more pixels than are allowed
    ├── OutputError           a result cannot be written where it was asked for
    ├── ScriptError           TorchScript cannot take that model (also a RuntimeError)
    ├── SizeError             an image has sides that a model does not take (also a RuntimeError)
    ├── UnknownNameError      no model, class, engine or option has that name
    └── WeightsError          weights do not fit the network, or their hash is wrong

PixelwiseWarning (a UserWarning) is what our own warnings are.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection, Iterable


class PixelwiseError(Exception):
    """Base of all errors that pixelwise raises on purpose."""

    exit_code = 1


class PixelwiseWarning(UserWarning):
    """What goes on all the same, but may not be what was meant; the message says how to say what is."""


class DownloadError(PixelwiseError, OSError):
    """A file could not be fetched; the message names the address and where to put the file by hand."""


class ExportError(PixelwiseError):
    """A network could not be exported, or the export's numbers are too far from the network's."""


class MissingExtraError(PixelwiseError, ImportError):
    """An optional dependency is missing; the message names the extra that brings it."""

    def __init__(self, what: str, extra: str) -> None:
        super().__init__(f"{what} needs an optional part of pixelwise; run: pip install 'pixelwise[{extra}]'")


class InputError(PixelwiseError, ValueError):
    """What was passed in cannot be used."""

    exit_code = 2


class ImageError(InputError):
    """A picture is missing, empty, truncated, too large, or not a picture."""


class ImageKindError(ImageError):
    """A file is no picture, or of a kind that is not read."""


class ImageSizeError(ImageError):
    """A picture has more pixels than are allowed."""


class ColorError(InputError, RuntimeError):
    """A colour is not three numbers in range (also a RuntimeError, which is what torchvision raises)."""


class OutputError(InputError):
    """A result cannot be written where it was asked for."""


class ScriptError(InputError, RuntimeError):
    """TorchScript cannot take a model of that kind (also a RuntimeError, as torch's own are)."""


class SizeError(InputError, RuntimeError):
    """An image has sides that a model does not take (also a RuntimeError, which is what SMP raises)."""


class UnknownNameError(InputError):
    """A name is not known; the message proposes the nearest ones."""

    def __init__(self, kind: str, name: object, known: Iterable[str]) -> None:
        super().__init__(f"Unknown {kind} {name!r}; {suggest(str(name), known)}")


class WeightsError(InputError):
    """Weights do not fit the network, hold something else than tensors, or have the wrong hash."""


WORDS: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(("encoder_name", "backbone", "backbone_name"), ("encoder",)),
    **dict.fromkeys(
        ("classes", "n_classes", "nclass", "nclasses", "num_labels", "out_channels"), ("num_classes",)
    ),
    **dict.fromkeys(("in_chans", "n_channels", "num_channels", "input_channels"), ("in_channels",)),
    "pretrained": ("weights", "weights_backbone", "encoder_weights"),
    **dict.fromkeys(
        ("encoder_weights", "weights_backbone", "pretrained_backbone", "backbone_weights"),
        ("weights_backbone", "encoder_weights", "weights"),
    ),
    "weights": ("encoder_weights",),
    **dict.fromkeys(("checkpoint", "checkpoint_path"), ("weights",)),
    **dict.fromkeys(("encoder_depth", "depth"), ("encoder_depth", "depth")),
    "encoder_output_stride": ("output_stride",),
    **dict.fromkeys(("lr", "learning_rate"), ("peak_lr",)),
    **dict.fromkeys(("img_size", "crop_size"), ("image_size",)),
    "num_workers": ("workers",),
    **dict.fromkeys(("aux_params", "auxiliary_head", "use_auxiliary_head"), ("aux_loss",)),
}  # fmt: skip
"""Words of other libraries (torchvision, timm, SMP, transformers), and for each what the same may be called here."""


def refuse_unknown(says: str, given: Iterable[str], known: Collection[str]) -> None:
    """Raise TypeError if one of the arguments `given` is not `known`, with our word for it or the nearest.

    says: the beginning of the sentence, such as "unet() has no argument".
    """
    wrong = [key for key in given if key not in known]
    if wrong:
        first, *others = wrong
        word = words_for(first, known)
        answer = f"here it is {word}" if word else suggest(first, known)
        more = [f"{key!r} is {words_for(key, known)}" for key in others if words_for(key, known)]
        raise TypeError("; ".join((f"{says} {first!r}", answer, *([", ".join(more)] if more else []))))


def words_for(key: str, known: Collection[str]) -> str:
    """What another library's word is called among the arguments `known`: "num_classes="; "" if it is none's."""
    return " or ".join(f"{word}=" for word in WORDS.get(key, ()) if word in known)


def first_line(error: BaseException) -> str:
    """What an error of another library says, for the brackets of a sentence: its first line, or its class."""
    return (str(error).splitlines() or [type(error).__name__])[0]


def suggest(name: str, known: Iterable[str]) -> str:
    """The end of an error message: the names nearest to `name`, or all of them when they are few."""
    names = sorted(known)
    plain: dict[str, list[str]] = {}
    for each in names:
        plain.setdefault(_plain(each), []).append(each)
    near = difflib.get_close_matches(_plain(name), plain, n=3, cutoff=0.6)
    close = [each for key in near for each in plain[key]][:3]
    if close:
        return f"did you mean {' or '.join(repr(c) for c in close)}?"
    if len(names) <= 30:
        return f"known: {', '.join(names)}"
    return f"{len(names)} names are known, none of them near"


def _plain(name: str) -> str:
    """Without what people write differently: capitals, and dashes or spaces for underscores."""
    return re.sub(r"[-\s]", "_", name.lower())

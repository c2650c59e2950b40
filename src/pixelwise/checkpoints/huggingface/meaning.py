"""What goes in and comes out: names of classes by `config.json`, preprocessing by `preprocessor_config.json`."""

from __future__ import annotations

import math
from pathlib import Path

from pixelwise.checkpoints.huggingface.values import MOST, Values, read_values
from pixelwise.inference.preprocess import IMAGENET_MEAN, IMAGENET_STD, Preprocess
from pixelwise.labels import ADE20K, LabelSet, spread_colors
from pixelwise.weights.card import Outputs

PREPROCESSOR = "preprocessor_config.json"


def labels_of(config: Values, *, reduced: bool = False) -> tuple[LabelSet, Outputs]:
    """The names by id2label; reduced: label files count them from 1, and 0 is ignored. Names that say nothing but
    their number, which transformers makes up, are ours; a name that comes again gets its number."""
    said = config.values.get("id2label")
    if said is None:
        said = {str(i): f"LABEL_{i}" for i in range(config.whole("num_labels", 2))}
    if not isinstance(said, dict) or not said or set(said) != {str(i) for i in range(len(said))}:
        config.refuse("id2label", "names under the numbers from 0 up, none left out")
    names = [said[str(i)] for i in range(len(said))]
    if len(names) > MOST or not all(isinstance(name, str) for name in names):
        config.refuse("id2label", f"names, at most {MOST}")
    if names == [f"LABEL_{i}" for i in range(len(names))]:
        names = [f"class {i}" for i in range(len(names))]
    if len(names) == 1:  # a single logit, trained with a sigmoid
        first = "class 0" if names[0] == "class 0" else "not " + names[0]
        return LabelSet.of([first, "class 1" if names[0] == "class 0" else names[0]]), "binary"
    ignored = config.values.get("semantic_loss_ignore_index", config.values.get("loss_ignore_index", 255))
    if type(ignored) is not int or not len(names) <= ignored <= MOST:
        ignored = 255  # of a class, or of none: no label file can say it
    seen: set[str] = set()
    for i, name in enumerate(names):
        if name in seen:
            names[i] = f"{name} ({i})"
        seen.add(names[i])
    if len(set(names)) != len(names):
        config.refuse("id2label", "different names")
    if not reduced:
        return LabelSet.of(names, ignore_id=ignored), "exclusive"
    if tuple(names) == ADE20K.names:
        return ADE20K, "exclusive"
    count = len(names)
    return LabelSet.of(
        names, colors=spread_colors(count + 1)[1:], ids=range(1, count + 1), ignore_id=0
    ), "exclusive"


_PROCESSORS: dict[str, tuple[tuple[float, ...], tuple[float, ...], tuple[int, int]]] = {
    "Segformer": (IMAGENET_MEAN, IMAGENET_STD, (512, 512)),
    "ViT": ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5), (224, 224)),
}
"""Image processors of transformers that scale and normalise and do nothing else: their mean, std and (height, width)
where the file does not say."""


def preprocess_of(path: Path, in_channels: int) -> tuple[Preprocess | None, bool]:
    """What `preprocessor_config.json` says, None without one; and whether label files count classes from 1."""
    where = path / PREPROCESSOR
    if not where.is_file():
        return None, False
    config = Values({key: value for key, value in read_values(where).items() if value is not None}, where)
    key = "image_processor_type" if "image_processor_type" in config else "feature_extractor_type"
    endings = ("ImageProcessor", "ImageProcessorFast", "ImageProcessorPil", "FeatureExtractor")
    known = {f"{name}{end}": name for name in _PROCESSORS for end in endings}
    mean, std, size_hw = _PROCESSORS[config.word(key, "SegformerImageProcessor", known)]
    for step in ("do_center_crop", "do_pad"):
        if step in config:
            config.only(
                step, False, "pictures are scaled and normalised here, and nothing else is done to them"
            )
    size: int | tuple[int, int] | None = None
    if config.flag("do_resize", True):
        size = _size(config, size_hw)
        if "resample" in config:
            config.only("resample", 2, "pictures are scaled bilinearly here")
    factor = config.number("rescale_factor", 1 / 255)
    if factor == 0:
        config.refuse("rescale_factor", "more than 0")
    unit = (
        255 * factor if config.flag("do_rescale", True) else 255.0
    )  # what 1 in our [0, 1] is in their values
    if math.isclose(unit, 1, rel_tol=1e-12):
        unit = 1.0
    if config.flag("do_normalize", True):
        mean = config.numbers("image_mean", mean, in_channels, single=True)
        std = config.numbers("image_std", std, in_channels, single=True)
        if min(std) <= 0:
            config.refuse("image_std", "numbers above 0")
    else:
        mean, std = (0.0,) * in_channels, (1.0,) * in_channels
    older = config.flag("reduce_labels", False) if "reduce_labels" in config else False
    reduced = config.flag("do_reduce_labels", older) if "do_reduce_labels" in config else older
    return Preprocess(tuple(m / unit for m in mean), tuple(s / unit for s in std), size), reduced


def _size(config: Values, usual_hw: tuple[int, int]) -> int | tuple[int, int]:
    """The rule in "size": a pair for a fixed height and width, a number for the shorter side."""
    said = config.values.get("size")
    if said is None:
        return usual_hw
    sides = {"height": said, "width": said} if isinstance(said, int) else said
    if isinstance(sides, dict):
        sides = {key: value for key, value in sides.items() if value is not None}
        inside = Values(sides, config.where, "size.")
        if sides.keys() == {"height", "width"}:
            return inside.whole("height", 1), inside.whole("width", 1)
        if sides.keys() == {"shortest_edge"}:
            return inside.whole("shortest_edge", 1)
    config.refuse("size", "a number, height and width, or shortest_edge alone")

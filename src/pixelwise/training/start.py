"""How a run begins, from what somebody asks for to an experiment: `pixelwise.train`, and the command of that name."""

from __future__ import annotations

import dataclasses
import os
import sys
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pixelwise import terminal
from pixelwise.errors import InputError, MissingExtraError, refuse_unknown
from pixelwise.training.config import MATTERS_NOT, TrainConfig

if TYPE_CHECKING:
    from pixelwise.training.experiment import Experiment
    from pixelwise.weights.card import Card

CONFIG = "config.json"


def train(
    data: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    config: TrainConfig | str | os.PathLike[str] | None = None,
    resume: bool = False,
    check: bool = True,
    export: bool = False,
    say: Callable[[str], None] | None = None,
    **fields: Any,
) -> Card:
    """Train on a folder of pictures and label maps, as `pixelwise train --data DATA --out OUT` does.

    fields: those of `training.config.TrainConfig`, such as model, encoder, epochs, batch_size or peak_lr; what is left
    out suits a small data set of one's own. config: a whole configuration that the fields change, or the path of its
    config.json; `pixelwise.recipes.published.recipe` has some. resume: go on with the run in `out`. check: examine the
    data first. export: also write model.onnx. say: is told what happens, line by line; None writes to stderr.

    Returns the finished model's card, with its scores; what is left in `out` says `training.runner.train`.
    Raises TypeError for an unknown field, with the nearest; InputError for data, values and names that will not do.

    >>> pixelwise.train("pictures", "run", model="unet", encoder="resnet18", epochs=20)      # doctest: +SKIP
    """
    known = [field.name for field in dataclasses.fields(TrainConfig)]
    refuse_unknown("train() has no argument", fields, known)
    try:
        from pixelwise.training import runner
    except ModuleNotFoundError as error:
        raise MissingExtraError("training", "train") from error
    say = say or partial(terminal.say, file=sys.stderr)
    if config is not None and not isinstance(config, TrainConfig):
        config = read_config(Path(config))
    fields = {"data": os.fspath(data), **fields}
    base = None if config is None else config.to_dict()
    experiment = prepared(fields, base, Path(out), resume=resume, check=check, say=say)
    return runner.train(experiment, Path(out), export=export, say=say)


def prepared(
    fields: Mapping[str, Any], base: Mapping[str, Any] | None, out: Path, *, resume: bool, check: bool,
    say: Callable[[str], None],
) -> Experiment:  # fmt: skip
    """The experiment that somebody asks for: new, or that of the run in `out`.

    fields: what they said of TrainConfig; base: a whole configuration which that changes, or None.
    """
    from pixelwise.training.experiment import data_of, experiment_of, fitted
    from pixelwise.training.names import refuse_misspelt
    from pixelwise.training.runner import refuse_unusable

    refuse_unusable(out, resume=resume)
    wanted = dict(fields) if base is None else changed(base, fields)
    config = resumed(wanted, out) if resume else new_run(wanted)
    if not resume:
        refuse_misspelt(config)
    data = data_of(config)
    if not resume:
        config = fitted(config, wanted, data)
    kept = resume and (out / "checkpoint.pt").is_file()  # else it begins again, with its first weights
    return experiment_of(config, data, check=check and not resume, resume=kept, say=say)


def changed(base: Mapping[str, Any], fields: Mapping[str, Any]) -> dict[str, Any]:
    """A configuration with some fields changed, and those that contradict the new ones left out."""
    kept = dict(base)
    if "epochs" in fields or "steps" in fields:
        kept["epochs"] = kept["steps"] = None
    if "image_size" in fields:  # which is the side of the crops too
        kept["augment"] = {name: value for name, value in kept["augment"].items() if name != "crop_hw"}
    return {**kept, **fields}


def new_run(wanted: Mapping[str, Any]) -> TrainConfig:
    """The configuration of a new run; with defaults for what was left open, if nothing but options was given, which
    `fitted` has yet to fit to the data."""
    from pixelwise.training.experiment import with_defaults

    whole = wanted.keys() >= {field.name for field in dataclasses.fields(TrainConfig)}
    return TrainConfig.from_dict(wanted) if whole else with_defaults({"weights": "auto", **wanted})


def resumed(wanted: Mapping[str, Any], out: Path) -> TrainConfig:
    """The configuration of the run in `out`. What says otherwise is refused, unless it changes no number."""
    config = read_config(out / CONFIG)
    for name, value in wanted.items():
        was = getattr(config, name)
        # What was left open was settled by the run itself
        was_open = (name, value) in (("weights", "auto"), ("image_size", None))
        if name not in MATTERS_NOT and value != was and not was_open:
            raise InputError(
                f"{out} holds a run with {name} {was!r}, not {value!r}: leave that out to resume it, or choose another "
                "--out"
            )
    return config.replace(**{name: value for name, value in wanted.items() if name in MATTERS_NOT})


def read_config(path: Path) -> TrainConfig:
    """The configuration in a file; InputError, with its name, for what is none."""
    return TrainConfig.from_json(path)

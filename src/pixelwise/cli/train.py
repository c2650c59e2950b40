"""`pixelwise train`: from a folder of pictures and label maps to a model."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pixelwise.errors import InputError, MissingExtraError
from pixelwise.files import writing

if TYPE_CHECKING:
    from pixelwise.training.config import TrainConfig
    from pixelwise.training.experiment import Experiment

CONFIG = "config.json"


def run(
    fields: Mapping[str, Any], recipe: str | None, config_file: Path | None, out: Path, *, resume: bool, check: bool,
    export: bool, find_lr: bool, overfit: bool,
) -> int:  # fmt: skip
    """Train, or ask one of the questions that come before; the exit code. fields: see `given`."""
    try:
        from pixelwise.training.experiment import data_of, experiment_of, fitted
        from pixelwise.training.loop import process_state
        from pixelwise.training.runner import refuse_unusable, train

        main = process_state().is_main_process
    except ModuleNotFoundError as error:
        raise MissingExtraError("training", "train") from error
    say: Callable[[str], None] = lambda text: print(text, file=sys.stderr) if main else None  # noqa: E731
    refuse_unusable(out, resume=resume)
    wanted = asked_for(fields, recipe, config_file)
    config = resumed(wanted, out) if resume else new_run(wanted)
    data = data_of(config)
    if not resume:
        config = fitted(config, wanted, data)
    experiment = experiment_of(config, data, check=check and not resume, resume=resume, say=say)
    if find_lr or overfit:
        return probe(experiment, out, say, overfit=overfit)
    card = train(experiment, out, export=export, say=say)
    if card.scores:  # none in the processes that only help
        score = card.scores[0]
        print(f"{score.metric} {score.value:.4f} on {score.data}; the model and its report are in {out}")
    process_state().destroy_process_group()
    return 0


def given(**options: Any) -> dict[str, Any]:
    """The fields of TrainConfig that somebody gave on the command line, in its types."""
    fields = {name: value for name, value in options.items() if value is not None}
    for name in ("encoder", "weights"):
        if fields.get(name) == "none":
            fields[name] = None
    if "losses" in fields:
        try:
            pairs = [part.split("=") for part in fields["losses"].split(",")]
            fields["losses"] = {name.strip(): float(weight) for name, weight in pairs}
        except ValueError:
            raise InputError(
                f"losses are names and weights such as cross_entropy=1,dice=0.5; got {fields['losses']!r}"
            ) from None
    if "trackers" in fields:
        fields["trackers"] = tuple(fields["trackers"])
    return fields


def asked_for(fields: Mapping[str, Any], recipe: str | None, config_file: Path | None) -> dict[str, Any]:
    """The fields of TrainConfig that somebody wants: those of the recipe or file, if any, changed by the options."""
    if recipe is not None and config_file is not None:
        raise InputError("--recipe and --config both say what a run is: give one of them")
    if recipe is not None:
        from pixelwise.recipes.published import recipe as recipe_of
        from pixelwise.training.experiment import usual_workers

        base = {**recipe_of(recipe).to_dict(), "workers": usual_workers()}
    elif config_file is not None:
        base = read_config(config_file).to_dict()
    else:
        return dict(fields)
    if "epochs" in fields or "steps" in fields:
        base["epochs"] = base["steps"] = None
    if "image_size" in fields:  # which is the side of the crops too
        base["augment"] = {name: value for name, value in base["augment"].items() if name != "crop_hw"}
    return {**base, **fields}


def new_run(wanted: Mapping[str, Any]) -> TrainConfig:
    """The configuration of a new run; with defaults for what was left open, if nothing but options was given, which
    `fitted` has yet to fit to the data."""
    from pixelwise.training.config import TrainConfig
    from pixelwise.training.experiment import with_defaults

    whole = wanted.keys() >= {field.name for field in dataclasses.fields(TrainConfig)}
    return TrainConfig.from_dict(wanted) if whole else with_defaults({"weights": "auto", **wanted})


def resumed(wanted: Mapping[str, Any], out: Path) -> TrainConfig:
    """The configuration of the run in `out`. What says otherwise is refused, unless it changes no number."""
    from pixelwise.training.config import MATTERS_NOT

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
    from pixelwise.training.config import TrainConfig

    try:
        return TrainConfig.from_json(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(
            f"{path} cannot be read ({error.strerror}); give the config.json of a run"
        ) from error


def probe(experiment: Experiment, out: Path, say: Callable[[str], None], *, overfit: bool) -> int:
    """--overfit-batch and --find-lr: print the answer; the exit code is 1 if one batch cannot be learned by heart."""
    from pixelwise.training import probes

    parts = experiment.network, experiment.training, experiment.augment, experiment.loss_of, experiment.config
    if overfit:
        first, last, accuracy = probes.overfit_batch(*parts)
        learned = accuracy > 0.9
        print(
            f"one batch, 150 steps: loss {first:.3f} to {last:.3f}, {accuracy:.1%} of its pixels right: "
            + (
                "the network can learn these labels"
                if learned
                else "look at the label maps and the learning rate"
            )
        )
        return 0 if learned else 1
    rate, curve = probes.find_lr(*parts)
    with writing(out / "find_lr.csv") as temporary:
        lines = ["learning rate,loss", *(f"{lr:.6g},{loss:.6g}" for lr, loss in curve)]
        temporary.write_text("\n".join(lines) + "\n", encoding="utf-8")
    say(f"wrote {out / 'find_lr.csv'}")
    print(f"the loss falls most steeply at a learning rate of {rate:.1e}; pass --lr {rate:.1e}")
    return 0

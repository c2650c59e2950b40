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
from pixelwise.datasets.manifest import read_manifest
from pixelwise.datasets.opening import divided
from pixelwise.errors import InputError, MissingExtraError, refuse_unknown
from pixelwise.folds import FOLD
from pixelwise.training.config import LENGTH, MATTERS_NOT, MOVES, TrainConfig
from pixelwise.training.memory import memory_here
from pixelwise.training.plan import AS_ASKED, Machine, parse_budget, plan, steps_within, table, validations
from pixelwise.training.progress import duration
from pixelwise.untrusted import read
from pixelwise.weights.card import EARLIER_BORDER

if TYPE_CHECKING:
    from pixelwise.training.experiment import Experiment
    from pixelwise.weights.card import Card

CONFIG = "config.json"

SCANS_ONLY = frozenset({"patch", "spacing"})
"""What may be asked for of scans alone, besides fields of TrainConfig."""

LATER = frozenset({"split_at", "value_range", "reasons", "volume", "fold", "aux_decay"})
"""Fields that runs of earlier versions did not write."""

SETTLED = ("weights", "image_size", "split_at", "value_range")
"""Fields that `experiment_of` settles where a configuration leaves them open."""


def train(
    data: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    config: TrainConfig | str | os.PathLike[str] | None = None,
    resume: bool = False,
    check: bool = True,
    export: bool = False,
    device: str | None = None,
    budget: str | None = None,
    crop: int | None = None,
    patch: tuple[int, int, int] | None = None,
    spacing: tuple[float, float, float] | None = None,
    folds: int | None = None,
    say: Callable[[str], None] | None = None,
    **fields: Any,
) -> Card:
    """Train on a folder of pictures or scans and label maps, as `pixelwise train --data DATA --out OUT` does.

    fields: those of `training.config.TrainConfig`, such as model, encoder, epochs, batch_size or peak_lr; what is left
    out is planned from the data (`training.plan`, of scans `training.scan_plan`). budget: a time such as "20min", which
    sets the steps, with resume those to come; crop: the side of crops at the pictures' own size; patch, spacing: of
    scans, (slices, rows, columns) of what the network sees at a time, in voxels, and of its voxels, in mm. folds: train
    so many networks, each on what the others hold out, into fold_0 and so on in `out`, which opens as their mean.
    config: a whole configuration that the fields change, or the path of its config.json;
    `pixelwise.recipes.published.recipe` has some. resume: go on with the run in `out`. check: examine the data first.
    export: also write model.onnx. device: where it runs, such as "cpu", "cuda", "cuda:1" or "mps"; None: a GPU if there
    is one. say: is told what happens, line by line; None writes to stderr.

    Returns the finished model's card, with its scores; what is left in `out` says `training.runner.train`.
    Raises TypeError for an unknown field, with the nearest; InputError for data, values and names that will not do.

    >>> pixelwise.train("pictures", "run", model="unet", encoder="resnet18", epochs=20)      # doctest: +SKIP
    """
    known = [field.name for field in dataclasses.fields(TrainConfig)]
    refuse_unknown("train() has no argument", fields, known)
    try:
        from pixelwise.training import runner
        from pixelwise.training.loop import on_device
    except ModuleNotFoundError as error:
        raise MissingExtraError("training", "train") from error
    say = say or partial(terminal.say, file=sys.stderr)
    if config is not None and not isinstance(config, TrainConfig):
        config = read_base(Path(config))
    sizes = {"crop": crop, "patch": patch, "spacing": spacing}
    fields = {"data": os.fspath(data), **{k: v for k, v in sizes.items() if v is not None}, **fields}
    seconds = None if budget is None else parse_budget(budget)
    base = None if config is None else config.to_dict()
    with on_device(device):
        if folds is not None:
            return train_folds(
                fields,
                base,
                Path(out),
                folds,
                resume=resume,
                check=check,
                export=export,
                budget=seconds,
                say=say,
            )
        experiment = prepared(fields, base, Path(out), resume=resume, check=check, say=say, budget=seconds)
        return runner.train(experiment, Path(out), export=export, say=say)


def train_folds(
    fields: Mapping[str, Any], base: Mapping[str, Any] | None, out: Path, folds: int, *, resume: bool, check: bool,
    export: bool, budget: float | None, say: Callable[[str], None],
) -> Card:  # fmt: skip
    """Train `folds` networks, each in a run folder fold_0, fold_1, ... of `out`, and write folds.json, with which `out`
    opens as their mean. Of a budget each has its share. Returns the card of the first with the mean of all scores, each
    measured on what the fold held out. With resume what is finished is left as it is. Raises as `prepared`."""
    from pixelwise.training import runner

    if not 2 <= folds <= 100:
        raise InputError(f"folds are 2 to 100, got {folds}")
    if "fold" in fields or (base or {}).get("fold"):
        raise InputError("folds trains all of them, and fold names one; leave one of them out")
    cards = []
    for i in range(folds):
        run = out / FOLD.format(i)
        say(f"fold {i}, of {folds}")
        going_on = resume and (run / CONFIG).is_file()
        if going_on and (run / "weights.safetensors").is_file() and (run / "card.json").is_file():
            cards.append(runner.read_card(run))
            continue
        experiment = prepared(
            fields if going_on else {**fields, "fold": (i, folds)}, base, run, resume=going_on, check=check and not i,
            say=say, budget=None if budget is None else budget / folds, show=not i,
        )  # fmt: skip
        cards.append(runner.train(experiment, run, export=export, say=say))
    return runner.write_folds(cards, out)


def prepared(
    fields: Mapping[str, Any], base: Mapping[str, Any] | None, out: Path | None, *, resume: bool, check: bool,
    say: Callable[[str], None], budget: float | None = None, show: bool = True,
) -> Experiment:  # fmt: skip
    """The experiment that somebody asks for: new, or that of the run in `out`; None: none is there to go on with.

    fields: what they said of TrainConfig, and of crop; base: a whole configuration which that changes, or None for a
    plan. budget: seconds that the whole run may take, or from here on that of a run which is gone on with; they set its
    steps. show: tell `say` the plan.
    """
    from pixelwise.training.experiment import data_of, experiment_of
    from pixelwise.training.loop import process_state, refuse_large_batch
    from pixelwise.training.names import refuse_misspelt
    from pixelwise.training.runner import refuse_unusable

    if out is not None:
        refuse_unusable(out, resume=resume)
    if budget is not None and LENGTH & fields.keys():
        raise InputError("--budget sets the steps: leave out --steps and --epochs")
    wanted = dict(fields) if base is None else changed(base, fields)
    if resume and out is not None:
        return _resumed(wanted, out, budget, check=check, say=say)
    if base is not None:
        config = TrainConfig.from_dict(wanted)
        refuse_misspelt(config)
        experiment = experiment_of(config, data_of(config), check=check, say=say)
        refuse_large_batch(config, len(experiment.training), process_state().num_processes)
        if budget is not None:
            experiment = _within(experiment, budget, lambda steps, why: _set(config, steps, why))
        return experiment if out is None else _kept(experiment)
    experiment = _planned(wanted, budget, check=check, say=say)
    if show:
        for line in table(experiment.config).splitlines():
            say(line)
    return experiment if out is None else _kept(experiment)


def _kept(experiment: Experiment) -> Experiment:
    """The experiment with what its files hold."""
    from pixelwise.datasets.opening import PairSamples
    from pixelwise.datasets.sample import Coded
    from pixelwise.training.kept_data import kept_data
    from pixelwise.training.prepared import Prepared

    training, held_out = (
        samples.samples if isinstance(samples, (Coded, Prepared)) else samples
        for samples in (experiment.training, experiment.held_out)
    )
    assert isinstance(training, PairSamples)
    assert isinstance(held_out, PairSamples)
    manifest = read_manifest(Path(experiment.config.data))
    kept = kept_data(training, held_out, None if manifest is None else manifest.map_ids)
    return dataclasses.replace(experiment, kept=kept)


def _resumed(
    wanted: Mapping[str, Any], out: Path, budget: float | None, *, check: bool, say: Callable[[str], None]
) -> Experiment:
    """The experiment of the run in `out`, with its data as they are now; what has changed about them is said."""
    from pixelwise.datasets.doctor import examine
    from pixelwise.training.experiment import data_of, experiment_of, refuse_unsafe
    from pixelwise.training.kept_data import changes, read_kept, refuse_other_classes
    from pixelwise.training.loop import process_state
    from pixelwise.training.state import standing

    config, was = resumed(wanted, out), read_config(out / CONFIG)
    if config.data and not Path(config.data).exists():
        raise InputError(
            f"the data of the run in {out} are not at {config.data} any more: say with --data where they are now"
        )
    before = standing(out)
    then = None if before is None else read_kept(out)
    data = data_of(config)
    # Without a checkpoint it begins again, with its first weights
    experiment = experiment_of(config, data, check=False, resume=before is not None, before=then, say=say)
    experiment = _kept(experiment)
    now, learned = experiment.kept, len(experiment.training)
    assert now is not None
    differ = ""
    if then is not None:
        refuse_other_classes(now, then, out)
        differ = changes(now, then)
    elif before is not None and before.samples != learned:
        differ = f"{terminal.counted(before.samples, 'picture')} to learn from, now {learned}"
    if differ and Path(config.data).resolve() != Path(was.data).resolve():
        raise InputError(
            f"{config.data} does not hold the data of the run in {out}, which were in {was.data} ({differ}): name the "
            "folder that does with --data, or begin a new run with another --out"
        )
    processes = process_state().num_processes
    if before is not None and (batch := config.batch_size * processes) > learned:
        raise InputError(
            f"the run in {out} has batches of {terminal.counted(batch, 'picture')}, more than it now has to learn "
            f"from: {learned}{differ and f' ({differ})'}; put back what is gone, or begin a new run with --batch-size "
            f"{max(1, learned // processes)} and another --out"
        )
    if differ:
        if check:
            refuse_unsafe(examine(data), config.data)
        scores = ""
        if then is not None and now.words["val"] != then.words["val"]:
            scores = ", and scores from here on are not of the same label maps as those before"
        since = "since this run began or last went on"
        say(f"warning: the data have changed {since}: {differ}; it goes on with them{scores}")
    if budget is not None:
        done = 0 if before is None else before.step
        every = config.steps_between_validations(learned, processes)
        looks: Callable[[int], int] = lambda steps: -(-steps // every) if config.validate_every else 1  # noqa: E731
        experiment = _within(experiment, budget, partial(_longer, experiment.config, done), looks)
    return experiment


def _longer(config: TrainConfig, done: int, steps: int, because: str) -> TrainConfig:
    """Another configuration's steps, so many after those that are done."""
    total = max(done + steps, config.warmup_steps + 1)
    because = f"{because}; {done} were done" if done else because
    reasons = {**{k: v for k, v in config.reasons.items() if k != "epochs"}, "steps": because}
    return config.replace(steps=total, epochs=None, reasons=reasons)


def _planned(
    wanted: Mapping[str, Any], budget: float | None, *, check: bool, say: Callable[[str], None]
) -> Experiment:
    """The experiment of a plan."""
    from pixelwise.datasets.doctor import measure
    from pixelwise.datasets.fingerprint import Fingerprint
    from pixelwise.training.experiment import data_of, examined, experiment_of
    from pixelwise.training.loop import process_state, refuse_large_batch
    from pixelwise.training.names import refuse_misspelt

    if _of_scans(wanted):
        return _planned_scans(wanted, budget, check=check, say=say)
    machine = machine_here()
    for name in SCANS_ONLY & wanted.keys():
        raise InputError(f"--{name} is of scans, and {wanted.get('data')} holds none; leave it out")
    # Before anything is read: what was asked for, with what a plan of nothing would add
    asked = plan(Fingerprint(), wanted, machine, pictures=1, held_out=1)
    refuse_misspelt(asked)
    data = data_of(asked)
    report = examined(data, asked.data, say) if check else None
    fingerprint = measure(data) if report is None else report.fingerprint
    training, held_out, _ = divided(data, asked.split_at)

    def plan_for(steps: int | None = None, because: str = "", weights: str | None = "auto") -> TrainConfig:
        count = {"pictures": len(training), "held_out": len(held_out)}
        config = plan(
            fingerprint,
            wanted,
            machine,
            **count,
            steps=steps,
            because=because,
            weights=weights,
            regions=data.regions,
        )
        if data.value_range is None or "value_range" in wanted:
            return config
        reasons = {**config.reasons, "value_range": "as pixelwise.json says"}
        return config.replace(value_range=data.value_range, reasons=reasons)

    experiment = experiment_of(plan_for(), data, check=check, report=report, say=say)
    refuse_large_batch(experiment.config, len(experiment.training), process_state().num_processes)
    found = experiment.config.weights
    experiment = _with(experiment, plan_for(weights=found))
    if budget is None:
        return experiment
    return _within(experiment, budget, lambda steps, why: plan_for(steps, why, found))


def _of_scans(wanted: Mapping[str, Any]) -> bool:
    """Whether somebody asks for a run on scans: by the layout that they name, else by what the folder looks like."""
    from pixelwise.datasets.layouts import detect

    layout, data = wanted.get("format", "auto"), wanted.get("data")
    return layout == "volumes" or (layout == "auto" and bool(data) and detect(Path(str(data))) == "volumes")


def _planned_scans(
    wanted: Mapping[str, Any], budget: float | None, *, check: bool, say: Callable[[str], None]
) -> Experiment:
    """`_planned` for scans; the reason of the steps says what one takes here."""
    from pixelwise.datasets.scan_doctor import measure_scans
    from pixelwise.datasets.scan_fingerprint import ScanFingerprint
    from pixelwise.training.experiment import data_of, examined, experiment_of
    from pixelwise.training.loop import process_state, refuse_large_batch
    from pixelwise.training.names import refuse_misspelt
    from pixelwise.training.probes import estimate
    from pixelwise.training.scan_plan import plan_scans

    machine = machine_here()
    asked = plan_scans(ScanFingerprint(), wanted, machine, scans=1, held_out=1)
    refuse_misspelt(asked)
    data = data_of(asked)
    report = examined(data, asked.data, say) if check else None
    found = measure_scans(data) if report is None or report.scans is None else report.scans
    training, held_out, _ = divided(data, asked.split_at, asked.fold)
    count = {
        "scans": len(training),
        "held_out": len(held_out),
        "classes": training.classes.num_classes if training.classes is not None else 2,
    }

    def plan_for(steps: int | None = None, because: str = "") -> TrainConfig:
        return plan_scans(found, wanted, machine, **count, steps=steps, because=because)

    experiment = experiment_of(plan_for(), data, check=check, report=report, say=say)
    config = experiment.config
    refuse_large_batch(config, len(training), process_state().num_processes)
    if budget is not None:
        return _within(experiment, budget, plan_for)
    cost = estimate(experiment.network, experiment.training, experiment.augment, experiment.loss_of, config)
    steps, name = config.total_steps(len(training)), "epochs" if config.steps is None else "steps"
    took = f"{config.reasons[name]}; a step took {cost.seconds:.2g} s here, {duration(steps * cost.seconds)} in all"
    return dataclasses.replace(
        experiment, config=config.replace(reasons={**config.reasons, name: took}), cost=cost
    )


def _with(experiment: Experiment, config: TrainConfig) -> Experiment:
    """The experiment with another configuration, but for what it settled itself."""
    settled = {name: getattr(experiment.config, name) for name in SETTLED}
    return dataclasses.replace(experiment, config=config.replace(**settled))


def _within(
    experiment: Experiment,
    budget: float,
    config_for: Callable[[int, str], TrainConfig],
    looks: Callable[[int], int] = validations,
) -> Experiment:
    """The experiment with as many steps as a budget of seconds allows, by what a step and a validation take here.
    looks: how many validations so many steps have."""
    from pixelwise.training.loop import process_state
    from pixelwise.training.probes import estimate
    from pixelwise.training.validation import seconds_of

    config = experiment.config
    cost = estimate(experiment.network, experiment.training, experiment.augment, experiment.loss_of, config)
    looking = seconds_of(experiment.network, experiment.held_out, experiment.card)
    measured = [cost.seconds, looking]
    if process_state().num_processes > 1:
        from accelerate.utils import broadcast_object_list

        broadcast_object_list(measured)  # all processes take the steps of the first
    steps = steps_within(budget, measured[0], measured[1], looks)
    because = f"what {duration(budget)} allow: a step took {measured[0]:.2g} s here, a validation {measured[1]:.2g} s"
    return dataclasses.replace(_with(experiment, config_for(steps, because)), cost=cost)


def _set(config: TrainConfig, steps: int, because: str) -> TrainConfig:
    """Another configuration's steps."""
    return config.replace(
        steps=steps, epochs=None, warmup_steps=min(config.warmup_steps, max(0, steps - 1)),
        reasons={**{k: v for k, v in config.reasons.items() if k != "epochs"}, "steps": because},
    )  # fmt: skip


def machine_here() -> Machine:
    """This machine, for a plan."""
    import torch

    from pixelwise.training.loop import process_state

    device = process_state().device
    if device.type == "cuda":
        memory = torch.cuda.get_device_properties(device).total_memory
        return Machine(True, os.cpu_count() or 1, memory, torch.cuda.is_bf16_supported())
    known = (getattr(torch.cpu, f"_is_{name}_supported", None) for name in ("avx512_bf16", "amx_tile"))
    bfloat16 = device.type == "cpu" and any(ask is not None and ask() for ask in known)
    return Machine(device.type != "cpu", os.cpu_count() or 1, memory_here(), bfloat16)


def changed(base: Mapping[str, Any], fields: Mapping[str, Any]) -> dict[str, Any]:
    """A configuration with some fields changed, and those that contradict the new ones left out."""
    kept, new = dict(base), dict(fields)
    if "epochs" in new or "steps" in new:
        kept["epochs"] = kept["steps"] = None
    if "image_size" in new:  # which is the side of the crops too
        kept["augment"] = {name: value for name, value in kept["augment"].items() if name != "crop_hw"}
    for name in ("patch", "spacing"):
        if (sides := new.pop(name, None)) is not None:
            if kept.get("volume") is None:
                raise InputError(f"--{name} is of scans, and the configuration is of pictures; leave it out")
            kept["volume"] = {**kept["volume"], name: list(sides)}
    if (crop := new.pop("crop", None)) is not None:
        kept["augment"], new["image_size"] = {**kept["augment"], "crop_hw": [crop, crop]}, 0
    known = {
        name: why for name, why in kept.get("reasons", {}).items() if name not in LENGTH or name not in new
    }
    asked = {name: AS_ASKED for name in new if name in known}
    return {**kept, "reasons": {**known, **asked}, **new}


def resumed(wanted: Mapping[str, Any], out: Path) -> TrainConfig:
    """The configuration of the run in `out`, with another number of steps or epochs, or the new place of its data,
    where that is asked for. What else says otherwise is refused, unless it changes no number."""
    config = read_config(out / CONFIG)
    wanted = dict(wanted)
    if (crop := wanted.pop("crop", None)) is not None and config.augment.get("crop_hw") != [crop, crop]:
        raise InputError(
            f"{out} holds a run with crops of {config.augment.get('crop_hw')}, not {crop}: leave --crop out to resume "
            "it, or choose another --out"
        )
    for name in ("patch", "spacing"):
        sides = wanted.pop(name, None)
        was = None if config.volume is None else getattr(config.volume, name)
        if sides is not None and (was is None or tuple(sides) != tuple(was)):
            raise InputError(
                f"{out} holds a run with {name} {was}, not {sides}: leave --{name} out to resume it, or choose another "
                "--out"
            )
    for name, value in wanted.items():
        was = getattr(config, name)
        # What was left open was settled by the run itself
        was_open = value == "auto" if name == "weights" else value is None and name in SETTLED
        if name not in MATTERS_NOT | LENGTH | MOVES and value != was and not was_open:
            raise InputError(
                f"{out} holds a run with {name} {was!r}, not {value!r}: leave that out to resume it, or choose another "
                "--out"
            )
    if length := {name: value for name, value in wanted.items() if name in LENGTH}:
        config = TrainConfig.from_dict(changed(config.to_dict(), length))
    return config.replace(**{name: value for name, value in wanted.items() if name in MATTERS_NOT | MOVES})


def read_config(path: Path) -> TrainConfig:
    """The configuration in a file; InputError, with its name, for what is none."""
    return TrainConfig.from_json(path)


def read_base(path: Path) -> TrainConfig:
    """The configuration in a file, to begin another run with. One that a run of an earlier version wrote holds out what
    that held out."""
    config, written = read_config(path), read(path, dict[str, Any], f"the training configuration {path}")
    missing = {field.name for field in dataclasses.fields(config)} - written.keys()
    earlier = "split_at" in missing and missing <= LATER
    return config.replace(split_at=EARLIER_BORDER) if earlier else config

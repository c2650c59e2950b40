"""`pixelwise train`: from a folder of pictures and label maps to a model."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pixelwise import terminal
from pixelwise.errors import InputError, MissingExtraError
from pixelwise.files import writing

if TYPE_CHECKING:
    from pixelwise.training.experiment import Experiment
    from pixelwise.weights.card import Card


def run(
    fields: Mapping[str, Any], recipe: str | None, config_file: Path | None, out: Path | None, *, device: str | None,
    budget: str | None, dry_run: bool, json: bool, resume: bool, check: bool, export: bool, find_lr: bool,
    overfit: bool, folds: int | None = None,
) -> int:  # fmt: skip
    """Train, or ask one of the questions that come before; the exit code. fields: see `given`."""
    if out is None and not dry_run:
        raise InputError("--out says where the run goes, such as --out run; --dry-run needs none")
    if dry_run and resume:
        raise InputError("--dry-run shows what a new run would do: leave out --resume")
    if json and not dry_run:
        raise InputError("--json prints the configuration of --dry-run: give both")
    try:
        from pixelwise.training.loop import process_state, train_on
        from pixelwise.training.plan import parse_budget, table
        from pixelwise.training.runner import kept, train
        from pixelwise.training.start import prepared, train_folds

        train_on(device)
        main = process_state().is_main_process
    except ModuleNotFoundError as error:
        raise MissingExtraError("training", "train") from error
    say: Callable[[str], None] = lambda text: terminal.say(text, file=sys.stderr) if main else None  # noqa: E731
    base = base_of(recipe, config_file)
    seconds = None if budget is None else parse_budget(budget)
    if dry_run:
        config = prepared(
            fields, base, None, resume=False, check=check, say=say, budget=seconds, show=False
        ).config
        if json:
            print(config.to_json())
        else:
            for line in table(config).splitlines():
                terminal.say(line)
        return 0
    assert out is not None
    if folds is not None and (find_lr or overfit):
        raise InputError("--folds trains; leave --find-lr and --overfit-batch out")
    try:
        if folds is not None:
            card = train_folds(
                fields, base, out, folds, resume=resume, check=check, export=export, budget=seconds, say=say
            )
            return said(card, out)
        experiment = prepared(fields, base, out, resume=resume, check=check, say=say, budget=seconds)
        if find_lr or overfit:
            return probe(experiment, out, say, overfit=overfit)
        card = train(experiment, out, export=export, say=say)
    except KeyboardInterrupt:
        done = kept(out, export=export) if folds is None else "go on with the same command and --resume"
        say(f"pixelwise: stopped; {done}")
        return 130
    return said(card, out)


def said(card: Card, out: Path) -> int:
    """The last line; the exit code."""
    from pixelwise.training.loop import process_state

    if card.scores:  # none in the processes that only help
        score = card.scores[0]
        terminal.say(
            f"{score.metric} {score.value:.4f} on {score.data}; the model and its report are in {out}"
        )
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
    for name, kind in (("patch", int), ("spacing", float)):
        if name in fields:
            fields[name] = three(name, fields[name], kind)
    if "trackers" in fields:
        fields["trackers"] = tuple(fields["trackers"])
    return fields


def three(name: str, text: str, kind: type[int] | type[float]) -> tuple[Any, ...]:
    """Three numbers with commas between them, or one for all three; InputError for anything else."""
    try:
        sides = tuple(kind(part) for part in text.split(","))
    except ValueError:
        sides = ()
    sides = sides * 3 if len(sides) == 1 else sides
    if len(sides) != 3 or not all(0 < side < 1e5 for side in sides):
        raise InputError(
            f"--{name} is three numbers above 0, of slices, rows and columns, such as 40,56,40; got {text!r:.60}"
        )
    return sides


def base_of(recipe: str | None, config_file: Path | None) -> dict[str, Any] | None:
    """The configuration of the recipe or file, if one is named, which the options change."""
    if recipe is not None and config_file is not None:
        raise InputError("--recipe and --config both say what a run is: give one of them")
    if recipe is not None:
        from pixelwise.recipes.published import recipe as recipe_of
        from pixelwise.training.plan import usual_workers

        return {**recipe_of(recipe).to_dict(), "workers": usual_workers()}
    if config_file is not None:
        from pixelwise.training.start import read_base

        return read_base(config_file).to_dict()
    return None


def probe(experiment: Experiment, out: Path, say: Callable[[str], None], *, overfit: bool) -> int:
    """--overfit-batch and --find-lr: print the answer; the exit code is 1 if one batch cannot be learned by heart."""
    from pixelwise.training import probes

    parts = experiment.network, experiment.training, experiment.augment, experiment.loss_of, experiment.config
    if overfit:
        overlapping = experiment.card.outputs == "regions"
        first, last, accuracy = probes.overfit_batch(*parts, regions=overlapping)
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

"""Own data, from what people have to a model, against a plain SMP loop: python benchmarks/own_data.py

Ten drawn data sets (own_sets.py) go through `pixelwise init`, `check`, `train` and `evaluate` as somebody types them;
of `train`'s options only --steps, which is all that --budget sets, and --seed. Beside it stands a
plain loop over segmentation_models_pytorch (SMP): its U-Net on the plan's encoder, from random weights as ours; its
Dice loss, binary for two classes and multiclass for more, at a constant learning rate; crops of the plan's size at the
pictures' own scale and mirror images; the same pictures to learn from, the plan's batch; Adam at 2e-4, as in its
examples, and AdamW at 1e-3. Each data set's better one of the two counts.

Scored are held-out pictures, whole and at their own size, and as many in other light and colour: the Dice of the object
over all pixels of the part, or its mean over all classes but the ground. Steps, seeds and data sets are chosen by
options; every run is a line of results/own_data.jsonl, and those that are there already are left out, so that it can be
stopped at any time. CPU time is that of training, loading included, without imports, checks and scores; one thread.
The encoder starts from random weights on both sides.

    python benchmarks/own_data.py --only vessels,roads --steps 150 --seeds 0
    python benchmarks/own_data.py --variants           # one change of the plan at a time
    python benchmarks/own_data.py --real ../shared/data   # real pictures: the plan beside what came before it
    python benchmarks/own_data.py --typed 60s --seeds 0   # the four commands as processes, what they took
    python benchmarks/own_data.py --report             # what was measured, as tables
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from own_sets import KINDS, make, save
from timing import RESULTS, machine, versions

LINES = RESULTS / "own_data.jsonl"
OURS, ADAM, ADAMW, EQUAL = "pixelwise", "smp adam 2e-4", "smp adamw 1e-3", "pixelwise, equal CPU time"
STEPS, SEEDS = (50, 100, 150), (0, 1, 2)

VARIANTS: dict[str, dict[str, Any]] = {
    "Dice over all classes": {"loss_options": {}},
    "Dice of class 1 alone": {"loss_options": {"dice": {"classes": [1], "absent": "area"}}},
    "cross-entropy beside Dice": {"losses": {"cross_entropy": 1.0, "dice": 1.0}},
    "a tenth of cross-entropy": {"losses": {"cross_entropy": 0.1, "dice": 1.0}},
    "cross-entropy alone": {"losses": {"cross_entropy": 1.0}, "loss_options": {}},
    "cosine": {"schedule": "cosine"},
    "constant rate": {"schedule": "constant"},
    "no warm-up": {"warmup_steps": 0},
    "rate 5e-4": {"peak_lr": 5e-4},
    "rate 1e-3": {"peak_lr": 1e-3},
    "rate 2e-3": {"peak_lr": 2e-3},
    "rate 4e-3": {"peak_lr": 4e-3},
    "no average of weights": {"ema_decay": None},
    "average 0.9": {"ema_decay": 0.9},
    "no colour": {"augment.colour": 0.0},
    "colour 0.2": {"augment.colour": 0.2},
    "colour 0.5": {"augment.colour": 0.5},
    "crops anywhere": {"augment.on_object": 0.0},
    "a third about objects": {"augment.on_object": 0.33},
    "half about objects": {"augment.on_object": 0.5},
    "one size": {"augment.scale": [1.0, 1.0]},
    "scales 0.5 to 2": {"augment.scale": [0.5, 2.0]},
    "shrunk to two thirds": {"shrink": 2 / 3},
    "bfloat16": {"precision": "bfloat16"},
    "float32": {"precision": "float32"},
    "encoder to stride 16": {"model_options": {"encoder_depth": 4}},
    "encoder to stride 32": {"model_options": {}},
}
"""Single changes of a plan."""

LIKE_SMP = {
    "losses": {"dice": 1.0}, "schedule": "constant", "warmup_steps": 0, "peak_lr": 1e-3, "weight_decay": 1e-2,
    "decay_norms": True, "augment.colour": 0.0, "augment.on_object": 0.0, "augment.scale": [1.0, 1.0],
}  # fmt: skip
"""The plain loop's choices, to see that ours does the same with them."""
VARIANTS["all as the plain loop"] = LIKE_SMP


def cpu_seconds() -> float:
    """Of this process and of its children that have ended."""
    parts = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(part.ru_utime + part.ru_stime for part in parts)


def pixelwise(*words: object) -> str:
    """What the command prints as results, as if typed, but in this process. Raises RuntimeError where it fails."""
    from typer.testing import CliRunner

    from pixelwise.cli.app import app

    done = CliRunner().invoke(app, list(map(str, words)))
    if done.exit_code:
        raise RuntimeError(f"pixelwise {' '.join(map(str, words))}\n{done.output}") from done.exception
    return done.stdout


def typed(folder: Path, budget: str) -> dict[str, Any]:
    """The four commands in processes of their own, with no option but --budget: their seconds by the clock, those to
    the first step of training, and the object's Dice."""
    took: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as there:
        data, run = Path(there) / "data", Path(there) / "run"
        commands = {
            "init": ["init", folder / "source", "--out", data, "--yes"],
            "check": ["check", data],
            "train": ["train", "--data", data, "--out", run, "--budget", budget],
            "evaluate": [
                "evaluate",
                "--data",
                folder / "data_test",
                "--split",
                "all",
                "--model",
                run,
                "--json",
            ],
        }
        for name, words in commands.items():
            began = time.perf_counter()
            command = [sys.executable, "-m", "pixelwise", *map(str, words)]
            with subprocess.Popen(
                command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
            ) as process:
                assert process.stderr is not None
                assert process.stdout is not None
                said = []
                for line in process.stderr:
                    said.append(line)
                    if name == "train" and line.startswith("step 1/"):
                        took["first step"] = round(time.perf_counter() - began, 1)
                printed = process.stdout.read()
            if process.returncode:
                raise RuntimeError(f"{' '.join(command)}\n{printed}{''.join(said)}")
            took[name] = round(time.perf_counter() - began, 1)
    return {**took, "dice": object_dice(json.loads(printed))}


def learned_data(folder: Path, *, ready: bool) -> Path:
    """The folder to train on: what `pixelwise init` makes of the source, or with `ready` our own layout as drawn."""
    if ready:
        return folder / "ready"
    data = folder / "data"
    if not (folder / "data done").is_file():
        pixelwise("init", folder / "source", "--out", data, "--yes")
        pixelwise("check", data)
        relabel(folder, data)
        (folder / "data done").write_text("")
    return data


def relabel(folder: Path, data: Path) -> None:
    """test and shifted again as data_test and data_shifted, with the ids and names that `init` gave the classes: those
    that most pixels of each class have in what it made."""
    made, drawn = (sorted((where / "masks").glob("*.png")) for where in (data, folder / "ready"))
    counts = np.zeros((256, 256), np.int64)
    for ours, theirs in zip(made, drawn, strict=True):
        both = np.asarray(Image.open(theirs)).astype(np.int64) * 256 + np.asarray(Image.open(ours))
        counts += np.bincount(both.reshape(-1), minlength=65536).reshape(256, 256)
    table = counts.argmax(axis=1).astype(np.uint8)
    for part in ("test", "shifted"):
        for path in sorted((folder / part / "masks").glob("*.png")):
            save(folder / f"data_{part}" / "masks" / path.name, table[np.asarray(Image.open(path))])
            image = folder / part / "images" / path.name
            save(folder / f"data_{part}" / "images" / path.name, np.asarray(Image.open(image)))
        shutil.copy(data / "pixelwise.json", folder / f"data_{part}")


def held_out(folder: Path, data: Path) -> tuple[Path, Path]:
    """(test, shifted) with the classes that `data` has."""
    before = "" if data.name == "ready" else "data_"
    return folder / f"{before}test", folder / f"{before}shifted"


def object_dice(report: Mapping[str, Any]) -> float:
    """The mean Dice over all classes but the first, of `pixelwise evaluate --json`."""
    rows = report["classes"]
    values = [row["dice"] for row in (rows.values() if isinstance(rows, dict) else rows)][1:]
    return statistics.fmean(v for v in values if v is not None)


def planned(data: Path, steps: int, seed: int, options: Sequence[str] = ()) -> dict[str, Any]:
    """The plan's configuration, as `pixelwise train --dry-run --json` prints it."""
    config: dict[str, Any] = json.loads(_planned(data, steps, tuple(options)))
    return {**config, "seed": seed}


@cache
def _planned(data: Path, steps: int, options: tuple[str, ...]) -> str:
    words = ["train", "--data", data, "--steps", steps, "--weights", "none", *options]
    return pixelwise(*words, "--dry-run", "--json")


def changed(config: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """A configuration with single fields changed; "augment.NAME" is one of augment's, "shrink" a factor of size."""
    new = json.loads(json.dumps(config))
    for name, value in changes.items():
        if name.startswith("augment."):
            new["augment"][name[8:]] = value
        elif name == "shrink":
            new["augment"]["scale"] = [value * s for s in new["augment"]["scale"]]
        else:
            new[name] = value
    return new


def train_ours(config: Mapping[str, Any], out: Path, *, validated: bool = True) -> float:
    """Train by a configuration in this process; CPU seconds, those of validations written to validating.txt."""
    from pixelwise.training import runner
    from pixelwise.training.config import TrainConfig
    from pixelwise.training.experiment import experiment_of
    from pixelwise.training.loop import fit
    from pixelwise.training.validation import Validation

    made = experiment_of(TrainConfig.from_dict(dict(config)), check=False)
    header = runner.header(made.network, made.card)
    validation, validating = Validation(made.held_out, made.card), [0.0]

    def validate(network: Any) -> float:
        began = cpu_seconds()
        score = validation(network)
        validating[0] += cpu_seconds() - began
        return score

    began = cpu_seconds()
    network = fit(
        made.network,
        made.training,
        made.augment,
        made.loss_of,
        made.config,
        out,
        validate if validated else None,
        header,
    )
    spent = cpu_seconds() - began
    from pixelwise.checkpoints.saving import save

    save(network, out / "weights.safetensors", card=made.card)
    (out / "validating.txt").write_text(f"{validating[0]:.1f}")
    return spent


def score_ours(folder: Path, data: Path, run: Path) -> tuple[float, float]:
    """Object Dice on (test, shifted) by `pixelwise evaluate`."""
    found = []
    for part in held_out(folder, data):
        words = ["--data", part, "--split", "all", "--model", run / "weights.safetensors", "--json"]
        found.append(object_dice(json.loads(pixelwise("evaluate", *words))))
    return found[0], found[1]


# The plain loop


def pictures(
    folder: Path, names: Sequence[str] | None = None
) -> list[tuple[NDArray[Any], NDArray[np.uint8]]]:
    """Pictures and masks of a folder in our layout. Those of more than 8 bits are scaled to 8 by their 12."""
    found = []
    for path in sorted((folder / "masks").glob("*.png")):
        if names is not None and path.stem not in names:
            continue
        (picture,) = (folder / "images").glob(f"{path.stem}.*")
        image = np.asarray(Image.open(picture))
        if image.dtype != np.uint8:
            image = (np.clip(image / 4095, 0, 1) * 255).astype(np.uint8)
        if image.ndim == 2:
            image = np.repeat(image[..., None], 3, axis=2)
        found.append((image, np.asarray(Image.open(path))))
    return found


def plain_loop(
    folder: Path, data: Path, config: Mapping[str, Any], optimizer: str, steps: Sequence[int], seed: int
) -> Iterator[tuple[int, float, float, float]]:
    """(steps, object Dice on test, on shifted, CPU seconds of training) after each number of steps."""
    import segmentation_models_pytorch as smp
    import torch

    from pixelwise.datasets.opening import divided, open_data

    names = {pair.name for pair in divided(open_data(data), None)[0].pairs}
    paths = [p for p in sorted((data / "images").iterdir()) if p.stem in names]
    classes, side, batch = (
        len(KINDS[folder.name].classes),
        config["augment"]["crop_hw"][0],
        config["batch_size"],
    )
    torch.manual_seed(seed)
    draw = np.random.default_rng(seed)
    outputs = 1 if classes == 2 else classes
    model = smp.Unet(config["encoder"], encoder_weights=None, classes=outputs)
    loss_fn = smp.losses.DiceLoss("binary" if classes == 2 else "multiclass", from_logits=True)
    if optimizer == ADAM:
        moving: Any = torch.optim.Adam(model.parameters(), lr=2e-4)
    else:
        moving = torch.optim.AdamW(model.parameters(), lr=1e-3)
    mean, std = np.array((0.485, 0.456, 0.406)), np.array((0.229, 0.224, 0.225))

    def tensor(image: NDArray[Any]) -> torch.Tensor:
        return torch.from_numpy(
            np.ascontiguousarray(((image / 255 - mean) / std).transpose(2, 0, 1), dtype=np.float32)
        )

    def crop(path: Path) -> tuple[torch.Tensor, torch.Tensor]:
        ((image, mask),) = pictures(data, [path.stem])
        pad = [(0, max(0, side - s)) for s in mask.shape]
        image, mask = np.pad(image, [*pad, (0, 0)]), np.pad(mask, pad)
        top, left = (int(draw.integers(0, s - side + 1)) for s in mask.shape)
        image, mask = image[top : top + side, left : left + side], mask[top : top + side, left : left + side]
        if draw.random() < 0.5:
            image, mask = image[:, ::-1], mask[:, ::-1]
        return tensor(image), torch.from_numpy(mask.astype(np.int64))

    def score(part: Path) -> float:
        model.eval()
        hits = np.zeros((3, classes))
        for image, mask in pictures(part):
            h, w = mask.shape
            padded = np.pad(image, ((0, -h % 32), (0, -w % 32), (0, 0)), mode="edge")
            with torch.no_grad():
                logits = model(tensor(padded)[None])[0, :, :h, :w]
            answer = (logits[0] > 0).long() if classes == 2 else logits.argmax(0)
            for one in range(classes):
                a, t = answer.numpy() == one, mask == one
                hits[:, one] += (a & t).sum(), a.sum(), t.sum()
        model.train()
        present = hits[2, 1:] > 0
        return float((2 * hits[0, 1:] / np.maximum(hits[1, 1:] + hits[2, 1:], 1))[present].mean())

    order: list[Path] = []
    spent = 0.0
    for step in range(1, max(steps) + 1):
        began = cpu_seconds()
        while len(order) < batch:
            order += [paths[i] for i in draw.permutation(len(paths))]
        cut = [crop(order.pop(0)) for _ in range(batch)]
        loss = loss_fn(model(torch.stack([c[0] for c in cut])), torch.stack([c[1] for c in cut]))
        moving.zero_grad()
        loss.backward()
        moving.step()
        spent += cpu_seconds() - began
        if step in steps:
            test, shifted = map(score, held_out(folder, data))
            yield step, test, shifted, spent


# Real pictures


REAL: dict[str, tuple[str, list[str]]] = {
    "nuclei": ("dsb2018_nuclei", ["--map-ids", "1-65535=1"]),
    "isbi": ("isbi2012_em", []),
    "camvid": ("camvid", ["--format", "camvid"]),
    "voc": ("voc2012_animals", ["--format", "voc"]),
}
"""Folder and options of each; see the recipes of those names."""

BEFORE = "before plans"
"""What `train` did with the same options before there were plans, on the same encoder and batch."""


def before_plans(config: Mapping[str, Any], shorter_sides: Sequence[int]) -> dict[str, Any]:
    from pixelwise.training.plan import usual_size

    return {
        "image_size": usual_size(shorter_sides), "augment": {}, "loss_options": {}, "model_options": {},
        "losses": {"cross_entropy": 1.0, "dice": 1.0}, "peak_lr": 1e-3, "precision": "float32", "ema_decay": None,
        "warmup_steps": config["steps"] // 20, "class_balanced": False,
    }  # fmt: skip


def run_real(results: Results, root: Path, name: str, seed: int, steps: int, most: int = 40) -> None:
    """Both sides on real pictures; mean Dice over the classes but the first, on at most so many held-out pictures."""
    from pixelwise.datasets.opening import PairSamples, divided, open_data, parse_map
    from pixelwise.evaluation import evaluate
    from pixelwise.segmenter import Segmenter

    folder, options = REAL[name]
    data = laid_out(root / folder, name)
    change = parse_map(options[1]) if options[:1] == ["--map-ids"] else None
    training, held_out, _ = divided(open_data(data, map_ids=change), None)
    step = max(1, len(held_out) // most)
    for side in (OURS, BEFORE):
        if results.has(name, side, seed, steps):
            continue
        with tempfile.TemporaryDirectory() as there, quiet():
            config = planned(data, steps, seed, options)
            if side == BEFORE:
                config.update(before_plans(config, training.shorter_sides()))
            spent = train_ours({**config, "workers": 0, "validate_every": 0}, Path(there), validated=False)
            segmenter = Segmenter(Path(there) / "weights.safetensors", engine="pytorch")
            some = PairSamples(held_out.pairs[::step], segmenter.card.labels, "val", config["value_range"])
            found = evaluate(segmenter, some).confusion.dice()[1:]
        dice = float(np.nanmean(found))
        results.add(name, side, seed, steps, dice, dice, spent, crop=config["augment"].get("crop_hw"))


def laid_out(root: Path, name: str) -> Path:
    """The data set in a layout that `train` knows: ISBI's stack as images/ and masks/ with ids."""
    if name != "isbi":
        return root
    made = Path(tempfile.gettempdir()) / "own_data_isbi"
    if not made.is_dir():
        for path in sorted((root / "image").iterdir()):
            save(made / "images" / f"{path.stem}.png", np.asarray(Image.open(path)))
        for path in sorted((root / "label").iterdir()):
            save(made / "masks" / f"{path.stem}.png", 1 - np.asarray(Image.open(path)))
        (made / "classes.txt").write_text("cell\nmembrane\n")
    return made


# Runs and their lines


class Results:
    """The lines that are there, and new ones."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.lines: list[dict[str, Any]] = []
        if path.is_file():
            self.lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]

    def has(self, name: str, side: str, seed: int, steps: int) -> bool:
        return any(_key(line) == (name, side, seed, steps) for line in self.lines)

    def line(self, name: str, side: str, seed: int, steps: int) -> dict[str, Any]:
        return next(line for line in self.lines if _key(line) == (name, side, seed, steps))

    def add(
        self, name: str, side: str, seed: int, steps: int, dice: float, shifted: float, cpu: float, **more: Any
    ) -> None:  # fmt: skip
        line = {
            "set": name, "side": side, "seed": seed, "steps": steps, "dice": round(dice, 4),
            "shifted": round(shifted, 4), "cpu_s": round(cpu, 1), **more, "machine": machine()["cpu"],
            "torch": versions().get("torch"),
        }  # fmt: skip
        self.lines.append(line)
        self.path.parent.mkdir(exist_ok=True, parents=True)
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
        print(
            f"{name:9} {side:28} seed {seed} steps {steps:4}  {dice:.3f}  {shifted:.3f}  {cpu:6.1f} s",
            flush=True,
        )

    def of(self, name: str, side: str, steps: int | None, what: str = "dice") -> list[float]:
        """Of all seeds; steps None: of however many."""
        return [
            r[what]
            for r in self.lines
            if (r["set"], r["side"]) == (name, side) and steps in (None, r["steps"])
        ]


def _key(line: Mapping[str, Any]) -> tuple[Any, ...]:
    return line["set"], line["side"], line["seed"], line["steps"]


def run_ours(
    results: Results, folder: Path, data: Path, side: str, seed: int, steps: int, changes: Mapping[str, Any]
) -> None:  # fmt: skip
    """One run of ours by its plan, or with changes of it."""
    if results.has(folder.name, side, seed, steps):
        return
    with tempfile.TemporaryDirectory() as there, quiet():
        config = changed(planned(data, steps, seed), {"workers": 0, **changes})
        spent = train_ours(config, Path(there))
        looked = float((Path(there) / "validating.txt").read_text())
        dice, shifted = score_ours(folder, data, Path(there))
    results.add(folder.name, side, seed, steps, dice, shifted, spent - looked, validating_s=looked)


def run_smp(
    results: Results, folder: Path, data: Path, optimizer: str, seed: int, steps: Sequence[int]
) -> None:
    if all(results.has(folder.name, optimizer, seed, s) for s in steps):
        return
    config = planned(data, max(steps), seed)
    for done, dice, shifted, spent in plain_loop(folder, data, config, optimizer, steps, seed):
        if not results.has(folder.name, optimizer, seed, done):
            results.add(folder.name, optimizer, seed, done, dice, shifted, spent)


def run_equal_time(results: Results, folder: Path, data: Path, seed: int, steps: int) -> None:
    """Ours with as many steps as take the CPU time of the plain loop's `steps`."""
    per_step = [
        statistics.fmean(results.of(folder.name, side, steps, "cpu_s")) / steps for side in (OURS, ADAMW)
    ]
    more = round(steps * per_step[1] / per_step[0])
    if not any((r["set"], r["side"], r["seed"]) == (folder.name, EQUAL, seed) for r in results.lines):
        run_ours(results, folder, data, EQUAL, seed, more, {})


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    with open(os.devnull, "w") as nowhere, contextlib.redirect_stderr(nowhere):
        yield


def tables(results: Results) -> list[str]:
    """What was measured, as lines of markdown."""
    names = [n for n in KINDS if any(r["set"] == n for r in results.lines)]
    lines: list[str] = []
    for steps in STEPS:
        rows, means = [], []
        for name in names:
            ours = results.of(name, OURS, steps)
            sides = [s for s in (ADAM, ADAMW) if results.of(name, s, steps)]
            if not ours or not sides:
                continue
            better = max(sides, key=lambda s: statistics.fmean(results.of(name, s, steps)))
            whats = ("dice", "shifted", "cpu_s")
            found = [results.of(name, side, steps, what) for what in whats for side in (OURS, better)]
            means.append([statistics.fmean(one) for one in found])
            a, b, c, d = map(spread, found[:4])
            cpu = " | ".join(f"{value:.0f}" for value in means[-1][4:])
            rows.append(f"| {name} | {a} | {b} | {better[4:]} | {c} | {d} | {cpu} |")
        if rows:
            lines += [
                "",
                f"| {steps} steps | pixelwise | SMP | SMP's better | other light: pixelwise | SMP | CPU s | SMP |",
            ]
            a, b, c, d, e, f = (statistics.fmean(column) for column in zip(*means, strict=True))
            rows.append(
                f"| mean of {len(rows)} | {a:.3f} | {b:.3f} | | {c:.3f} | {d:.3f} | {e:.0f} | {f:.0f} |"
            )
            lines += ["|---|--:|--:|---|--:|--:|--:|--:|", *rows]
    equal = [name for name in names if results.of(name, EQUAL, None)]
    if equal:
        lines += ["", "| the CPU time of SMP's better after 150 steps | pixelwise | SMP |", "|---|--:|--:|"]
    for name in equal:
        better = max(
            (results.of(name, side, 150) for side in (ADAM, ADAMW)), key=lambda v: statistics.fmean(v or [0])
        )
        lines.append(f"| {name} | {spread(results.of(name, EQUAL, None))} | {spread(better)} |")
    real = [name for name in REAL if results.of(name, BEFORE, None)]
    if real:
        lines += [
            "",
            "| real pictures, 150 steps | the plan | before plans | CPU s | before |",
            "|---|--:|--:|--:|--:|",
        ]
    for name in real:
        dice = " | ".join(spread(results.of(name, side, None)) for side in (OURS, BEFORE))
        spent = " | ".join(
            f"{statistics.fmean(results.of(name, side, None, 'cpu_s')):.0f}" for side in (OURS, BEFORE)
        )
        lines.append(f"| {name} | {dice} | {spent} |")
    sides = [v for v in VARIANTS if any(r["side"] == v for r in results.lines)]
    if sides:
        lines += [
            "",
            f"| one change | {' | '.join(names)} | mean | other light |",
            "|---|" + "--:|" * (len(names) + 2),
        ]
    for side in sides:
        row, differences, shifted = [], [], []
        for name in names:
            pairs = [
                (r, results.line(name, OURS, r["seed"], r["steps"]))
                for r in results.lines
                if r["side"] == side and r["set"] == name and results.has(name, OURS, r["seed"], r["steps"])
            ]
            row.append(f"{statistics.fmean(r['dice'] - o['dice'] for r, o in pairs):+.3f}" if pairs else "")
            differences += [r["dice"] - o["dice"] for r, o in pairs]
            shifted += [r["shifted"] - o["shifted"] for r, o in pairs]
        if differences:
            ends = f"{statistics.fmean(differences):+.3f} | {statistics.fmean(shifted):+.3f}"
            lines.append(f"| {side} | {' | '.join(row)} | {ends} |")
    return lines


def spread(values: Sequence[float]) -> str:
    """Mean and standard deviation."""
    mean = f"{statistics.fmean(values):.3f}"
    return mean if len(values) < 2 else f"{mean} ± {statistics.stdev(values):.3f}"


def main() -> None:
    parser = argparse.ArgumentParser(description="Own data against a plain SMP loop.")
    parser.add_argument("--only", default=",".join(KINDS), help="data sets, comma separated")
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--steps", default="50,100,150")
    parser.add_argument("--sides", default="ours,adam,adamw,equal", help="of ours, adam, adamw, equal")
    parser.add_argument(
        "--variants",
        nargs="?",
        const=",".join(VARIANTS),
        default=None,
        help="single changes, comma separated",
    )
    parser.add_argument(
        "--folder",
        type=Path,
        default=Path(tempfile.gettempdir()) / "own_data",
        help="where the sets are drawn",
    )
    parser.add_argument("--results", type=Path, default=LINES)
    parser.add_argument(
        "--ready", action="store_true", help="train on our own layout, without `pixelwise init`"
    )
    parser.add_argument("--real", type=Path, help="the folder of real data sets, to compare on those")
    parser.add_argument(
        "--typed", help="only type the four commands, with this budget, and print what they took"
    )
    parser.add_argument("--report", action="store_true", help="only print what was measured")
    asked = parser.parse_args()
    results = Results(asked.results)
    if asked.real is not None:
        import torch

        torch.set_num_threads(1)
        for seed in asked.seeds.split(","):
            for name in REAL if asked.only == ",".join(KINDS) else asked.only.split(","):
                run_real(results, asked.real, name, int(seed), int(asked.steps.split(",")[-1]))
        return
    if asked.report:
        print("\n".join(tables(results)))
        return
    import torch

    torch.set_num_threads(1)
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    seeds, steps = ([int(v) for v in text.split(",")] for text in (asked.seeds, asked.steps))
    sides = asked.sides.split(",")
    for seed in seeds:
        for name in asked.only.split(","):
            folder = make(name, asked.folder)
            if asked.typed is not None:
                learned_data(folder, ready=False)
                print(name, json.dumps(typed(folder, asked.typed)), flush=True)
                continue
            data = learned_data(folder, ready=asked.ready)
            if asked.variants is not None:
                for side in asked.variants.split(","):
                    run_ours(results, folder, data, side, seed, max(steps), VARIANTS[side])
                continue
            if "ours" in sides:
                for each in steps[::-1]:
                    run_ours(results, folder, data, OURS, seed, each, {})
            for short, optimizer in (("adamw", ADAMW), ("adam", ADAM)):
                if short in sides:
                    run_smp(results, folder, data, optimizer, seed, steps)
            if "equal" in sides:
                run_equal_time(results, folder, data, seed, max(steps))


if __name__ == "__main__":
    main()
